//! The server's share of a request: the same tiny agent asked directly over its Unix socket, and through the server.
//!
//! `cargo run --release -p sandcrab-server --example share -- [multi|current] [workers]`

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use sandcrab_runtime::fake::{AgentStart, Fake};
use sandcrab_server::{ServeOptions, Server};
use std::io::Write;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

const ROUNDS: usize = 20_000;
const ANSWER: &str = r#"{"success":true,"exitCode":0,"duration":0.1,"command":"true","execId":"e","timestamp":"2026-01-31T12:00:00.000Z","encoding":"utf8","stdout":"","stderr":""}"#;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let multi = arguments.next().is_none_or(|flavour| flavour == "multi");
    let workers = arguments.next().map_or(Ok(2), |count| count.parse())?;

    let (sockets, socket) = mpsc::channel();
    let driver = on_a_thread(current()?, move || {
        Fake::new(move |start: AgentStart| {
            let sockets = sockets.clone();
            async move {
                let address = start.listener.local_addr();
                let path = address.ok().and_then(|address| address.as_pathname().map(ToOwned::to_owned));
                let (Some(path), Ok(listener)) = (path, tokio::net::UnixListener::from_std(start.listener))
                else {
                    return 1;
                };
                let _measured = sockets.send(path);
                let json = [("content-type", "application/json")];
                let router = axum::Router::new()
                    .route("/agent", axum::routing::get(async || r#"{"version":"0","features":[]}"#))
                    .route("/exec", axum::routing::post(async move |_: Bytes| (json, ANSWER)));
                i32::from(axum::serve(listener, router).await.is_err())
            }
        })
    })?;
    let dir = tempfile::tempdir()?;
    let options = ServeOptions {
        listen: "127.0.0.1:0".into(),
        data_dir: Some(dir.path().to_owned()),
        no_auth: false,
        api_key: Some("a-key-of-the-bench".into()),
        ..ServeOptions::default()
    };
    let runtime = if multi {
        tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?
    } else {
        current()?
    };
    let server = runtime.block_on(Server::start(options.resolve()?, Arc::new(driver)))?;
    let address = server.started().address;
    std::thread::spawn(move || runtime.block_on(server.run(std::future::pending())));

    current()?.block_on(async {
        let through = tokio::net::TcpStream::connect(address).await?;
        through.set_nodelay(true)?;
        let mut through = connect(through).await?;
        ask(&mut through, "/v1/sandboxes/a/exec", &address.to_string()).await?;
        let mut direct = connect(tokio::net::UnixStream::connect(socket.recv()?).await?).await?;
        let health = tokio::net::TcpStream::connect(address).await?;
        health.set_nodelay(true)?;
        let mut health = connect(health).await?;
        let mut out = std::io::stdout();
        for _ in 0..3 {
            let host = address.to_string();
            let (bare, _) = measure(&mut direct, "/exec", "sandbox").await?;
            let (own, _) = measure(&mut health, "/nothing", &host).await?;
            let (whole, p99) = measure(&mut through, "/v1/sandboxes/a/exec", &host).await?;
            writeln!(out, "agent alone {bare:?}, server alone {own:?}, through the server {whole:?} (p99 {p99:?}), share {:?}", whole.saturating_sub(bare))?;
        }
        for parallel in [50] {
            let began = Instant::now();
            let mut tasks = tokio::task::JoinSet::new();
            for _ in 0..parallel {
                tasks.spawn(async move {
                    let stream = tokio::net::TcpStream::connect(address).await.ok()?;
                    stream.set_nodelay(true).ok()?;
                    let mut sender = connect(stream).await.ok()?;
                    for _ in 0..ROUNDS / parallel {
                        ask(&mut sender, "/v1/sandboxes/a/exec", "localhost").await.ok()?;
                    }
                    Some(())
                });
            }
            while let Some(done) = tasks.join_next().await {
                done?.ok_or("a request failed")?;
            }
            writeln!(out, "{parallel} at once: {:.0}/s", ROUNDS as f64 / began.elapsed().as_secs_f64())?;
        }
        Ok(())
    })
}

fn current() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Makes something inside a runtime that then runs on a thread of its own.
fn on_a_thread<T: Send + 'static>(
    runtime: tokio::runtime::Runtime,
    make: impl FnOnce() -> T + Send + 'static,
) -> Result<T, mpsc::RecvError> {
    let (sender, made) = mpsc::channel();
    std::thread::spawn(move || {
        runtime.block_on(async move {
            let _taken = sender.send(make());
            std::future::pending::<()>().await;
        });
    });
    made.recv()
}

type Sender = SendRequest<Full<Bytes>>;

async fn connect(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
) -> hyper::Result<Sender> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn ask(sender: &mut Sender, path: &str, host: &str) -> Result<(), Failure> {
    sender.ready().await?;
    let request = Request::post(path)
        .header("host", host)
        .header("authorization", "Bearer a-key-of-the-bench")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from_static(br#"{"command":"true"}"#)))?;
    sender.send_request(request).await?.into_body().collect().await?;
    Ok(())
}

async fn measure(sender: &mut Sender, path: &str, host: &str) -> Result<(Duration, Duration), Failure> {
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let began = Instant::now();
        ask(sender, path, host).await?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    Ok((times[ROUNDS / 2], times[ROUNDS * 99 / 100]))
}

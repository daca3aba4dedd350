//! HTTP over loopback with nothing behind it: the floor of every figure that goes over HTTP.

use anyhow::{Context as _, Result, ensure};
use axum::body::{Body, Bytes};
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post, put};
use axum::serve::ListenerExt as _;
use futures_util::future::try_join_all;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A server that only answers, and a client with keep-alive.
pub(crate) struct Http {
    address: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// The binary content that is written and read.
pub(crate) const CONTENT: usize = 1 << 20;

impl Http {
    pub(crate) async fn start() -> Result<Self> {
        let app = axum::Router::new()
            .route("/echo", post(async |body: Bytes| body))
            .route("/content", put(async |body: Bytes| body.len().to_string()))
            .route("/content", get(async || Bytes::from_static(&[0xa5; CONTENT])))
            .layer(DefaultBodyLimit::disable());
        let socket = tokio::net::TcpSocket::new_v4().context("make a socket")?;
        socket.bind(([127, 0, 0, 1], 0).into()).context("bind to loopback")?;
        // A thousand callers connect at once; past the usual 1024 the kernel drops some, who come again a second later.
        let listener = socket.listen(4096).context("listen on loopback")?;
        let address = listener.local_addr().context("the address of a listener")?;
        tokio::spawn(async move { axum::serve(listener.tap_io(|io| drop(io.set_nodelay(true))), app).await });
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Ok(Self { address, client: Client::builder(TokioExecutor::new()).build(connector) })
    }

    /// Where it answers, for a client in another language.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// One small POST and its answer.
    pub(crate) async fn time_echo(&self) -> Result<Duration> {
        let begun = Instant::now();
        let answer = self.send("POST", "/echo", Bytes::from_static(b"{\"command\":\"true\"}")).await?;
        ensure!(answer.len() == 18, "the echo came back changed");
        Ok(begun.elapsed())
    }

    /// One upload of [`CONTENT`] bytes.
    pub(crate) async fn time_upload(&self, content: &Bytes) -> Result<Duration> {
        let begun = Instant::now();
        let answer = self.send("PUT", "/content", content.clone()).await?;
        ensure!(answer.as_ref() == content.len().to_string().as_bytes(), "the upload was cut");
        Ok(begun.elapsed())
    }

    /// One download of [`CONTENT`] bytes.
    pub(crate) async fn time_download(&self) -> Result<Duration> {
        let begun = Instant::now();
        ensure!(self.send("GET", "/content", Bytes::new()).await?.len() == CONTENT, "the download was cut");
        Ok(begun.elapsed())
    }

    /// `tasks` callers at once, each with `each` echoes.
    pub(crate) async fn time_many(&self, tasks: usize, each: usize) -> Result<Duration> {
        let begun = Instant::now();
        try_join_all((0..tasks).map(|_| async {
            for _ in 0..each {
                self.time_echo().await?;
            }
            anyhow::Ok(())
        }))
        .await?;
        Ok(begun.elapsed())
    }

    async fn send(&self, method: &str, path: &str, body: Bytes) -> Result<Bytes> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url()))
            .body(Full::new(body))
            .context("build a request")?;
        let answer = self.client.request(request).await.with_context(|| format!("{method} {path}"))?;
        ensure!(answer.status().is_success(), "{method} {path}: {}", answer.status());
        Ok(Body::new(answer.into_body()).collect().await.context("read an answer")?.to_bytes())
    }
}

use crate::harness::{OTHER, USER, World};
use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use sandcrab_agent::files::http::{FilesState, router};
use sandcrab_api::{ApiError, ErrorCode};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tower::ServiceExt;

fn app(world: &World) -> axum::Router {
    let cwd: sandcrab_agent::files::http::CwdOf = Arc::new(|session| {
        Box::pin(async move {
            match session {
                None => Ok(PathBuf::from("/workspace")),
                Some(id) if id.as_str() == "inner" => Ok(PathBuf::from("/workspace/inner")),
                Some(id) => Err(ApiError::new(ErrorCode::SessionNotFound, format!("no session {id}"))),
            }
        })
    });
    router::<FilesState>().into_router().with_state(FilesState {
        files: world.files.clone(),
        cwd,
        enter: Arc::new(|_| Ok(())),
    })
}

struct Answer {
    status: u16,
    headers: http::HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

async fn ask(world: &World, request: http::Request<Body>) -> Answer {
    let response = app(world).oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}

async fn post(world: &World, path: &str, body: Value) -> Answer {
    let request = http::Request::post(path).header("content-type", "application/json");
    ask(world, request.body(Body::from(body.to_string())).unwrap()).await
}

async fn get(world: &World, path: &str) -> Answer {
    ask(world, http::Request::get(path).body(Body::empty()).unwrap()).await
}

async fn put(world: &World, path: &str, body: impl Into<Body>) -> Answer {
    ask(world, http::Request::put(path).body(body.into()).unwrap()).await
}

#[tokio::test]
async fn every_route_answers_as_the_document_says() {
    let world = World::new();
    let is_changed = |answer: &Answer, path: &str| {
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        let json = answer.json();
        assert_eq!((&json["success"], &json["path"]), (&json!(true), &json!(path)));
        assert!(json["timestamp"].is_string());
    };
    is_changed(&post(&world, "/files/write", json!({"path": "a.txt", "content": "hé"})).await, "a.txt");
    let base64 = json!({"path": "b", "content": "/w==", "encoding": "base64", "mode": 0o600});
    is_changed(&post(&world, "/files/write", base64).await, "b");
    let read = post(&world, "/files/read", json!({"path": "a.txt", "encoding": "utf8"})).await.json();
    assert_eq!(
        (&read["content"], &read["encoding"], &read["mimeType"]),
        (&json!("hé"), &json!("utf-8"), &json!("text/plain"))
    );
    let read = post(&world, "/files/read", json!({"path": "/workspace/b"})).await.json();
    assert_eq!(
        (&read["content"], &read["encoding"], &read["isBinary"]),
        (&json!("/w=="), &json!("base64"), &json!(true))
    );

    is_changed(&post(&world, "/files/mkdir", json!({"path": "inner", "mode": 0o755})).await, "inner");
    is_changed(&put(&world, "/files/content?path=raw&sessionId=inner&mode=420", vec![0; 10]).await, "raw");
    let raw = get(&world, "/files/content?path=inner/raw").await;
    assert_eq!((raw.status, raw.body.len()), (200, 10));
    for (name, value) in [
        ("content-type", "application/octet-stream"),
        ("content-length", "10"),
        ("x-sandcrab-mime-type", "application/octet-stream"),
        ("x-sandcrab-is-binary", "true"),
    ] {
        assert_eq!(raw.headers[name], value);
    }
    let stream = get(&world, "/files/stream?path=a.txt").await;
    assert_eq!(stream.headers["content-type"], "text/event-stream");
    let text = String::from_utf8(stream.body.to_vec()).unwrap();
    let events: Vec<Value> = text
        .split_terminator("\n\n")
        .map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap())
        .collect();
    assert_eq!(
        events[0],
        json!({"type": "metadata", "mimeType": "text/plain", "size": 3, "isBinary": false, "encoding": "utf-8"})
    );
    assert_eq!(events[1], json!({"type": "chunk", "data": "hé"}));
    assert_eq!(events[2], json!({"type": "complete", "bytesRead": 3}));

    let renamed = post(&world, "/files/rename", json!({"path": "a.txt", "newPath": "c.txt"})).await;
    is_changed(&renamed, "a.txt");
    assert_eq!(renamed.json()["newPath"], "c.txt");
    is_changed(&post(&world, "/files/move", json!({"path": "c.txt", "newPath": "inner"})).await, "c.txt");
    let listed = post(&world, "/files/list", json!({"path": ".", "recursive": true})).await.json();
    let names: Vec<_> =
        listed["files"].as_array().unwrap().iter().map(|file| &file["relativePath"]).collect();
    assert_eq!(names, ["b", "inner", "inner/c.txt", "inner/raw"]);
    assert_eq!((&listed["count"], &listed["files"][1]["type"]), (&json!(4), &json!("directory")));
    is_changed(&post(&world, "/files/delete", json!({"path": "c.txt", "sessionId": "inner"})).await, "c.txt");
    let exists = post(&world, "/files/exists", json!({"path": "inner/c.txt"})).await.json();
    assert_eq!(exists["exists"], false);
}

#[test]
fn every_route_is_in_the_document_with_its_refusals() {
    let document = serde_json::to_value(router::<FilesState>().into_openapi()).unwrap();
    for (path, method, operation) in [
        ("read", "post", "readFile"),
        ("write", "post", "writeFile"),
        ("content", "get", "readFileContent"),
        ("content", "put", "writeFileContent"),
        ("stream", "get", "readFileStream"),
        ("mkdir", "post", "mkdir"),
        ("delete", "post", "deleteFile"),
        ("rename", "post", "renameFile"),
        ("move", "post", "moveFile"),
        ("list", "post", "listFiles"),
        ("exists", "post", "exists"),
    ] {
        let route = &document["paths"][format!("/files/{path}")][method];
        assert_eq!(route["operationId"], operation, "{path}");
        for status in ["200", "400", "403", "404", "409", "413", "500", "507"] {
            assert!(route["responses"][status]["content"].is_object(), "{operation} {status}");
        }
        assert_eq!(route["requestBody"].is_object(), method != "get", "{operation}");
        assert_eq!(route["parameters"].is_array(), method != "post", "{operation}");
    }
    assert_eq!(document["paths"].as_object().unwrap().len(), 10);
}

#[tokio::test]
async fn x02_bad_requests_name_their_field_and_change_nothing() {
    let world = World::new();
    world.plant("workspace/kept", b"kept", USER, 0o644);
    let field = |answer: Answer| {
        let json = answer.json();
        assert_eq!((answer.status, &json["code"]), (400, &json!("VALIDATION_FAILED")), "{json}");
        json["context"]["validationErrors"][0]["field"].as_str().unwrap().to_owned()
    };
    assert_eq!(field(post(&world, "/files/read", json!({"path": ""})).await), "path");
    assert_eq!(field(post(&world, "/files/read", json!({"path": "a\0b"})).await), "path");
    assert_eq!(
        field(post(&world, "/files/read", json!({"path": "x", "encoding": "latin1"})).await),
        "encoding"
    );
    let bad = json!({"path": "kept", "content": "***", "encoding": "base64"});
    assert_eq!(field(post(&world, "/files/write", bad).await), "content");
    assert_eq!(
        field(post(&world, "/files/write", json!({"path": "kept", "content": "", "mode": 0o1000})).await),
        "mode"
    );
    assert_eq!(field(post(&world, "/files/move", json!({"path": "kept", "newPath": "\0"})).await), "newPath");
    assert_eq!(field(put(&world, "/files/content", "x").await), "path");
    assert_eq!(field(put(&world, "/files/content?path=kept&mode=9999", "x").await), "mode");
    assert_eq!(field(get(&world, "/files/content?path=a%00b").await), "path");
    let long = post(&world, "/files/read", json!({"path": "x".repeat(5000)})).await;
    assert_eq!((long.status, &long.json()["code"]), (400, &json!("NAME_TOO_LONG")));
    let session = post(&world, "/files/read", json!({"path": "kept", "sessionId": "none"})).await;
    assert_eq!((session.status, &session.json()["operation"]), (404, &json!("readFile")));
    assert_eq!(world.names("/workspace"), ["kept"]);
    assert_eq!(world.text("kept").await.unwrap(), "kept");
}

#[tokio::test]
async fn b02_overlong_utf8_in_a_query_is_refused() {
    let world = World::new();
    for path in ["%c0%ae%c0%ae%c0%afsentinel", "%ff", "%ed%a0%80"] {
        let answer = get(&world, &format!("/files/content?path={path}")).await;
        assert_eq!(answer.status, 400, "{path}: {:?}", answer.body);
    }
    let answer = get(&world, "/files/content?path=%2e%2e/%2e%2e/sentinel").await;
    assert_eq!(answer.status, 404);
    world.sentinel_is_untouched();
}

#[tokio::test]
async fn x01_refusals_have_every_field_and_their_status() {
    let world = World::new();
    world.plant_directory("workspace/dir", USER, 0o755);
    world.plant("workspace/dir/x", b"", OTHER, 0o644);
    for (route, body, status, code, operation) in [
        ("read", json!({"path": "none"}), 404, "FILE_NOT_FOUND", "readFile"),
        ("read", json!({"path": "dir"}), 400, "IS_DIRECTORY", "readFile"),
        ("write", json!({"path": "dir", "content": ""}), 400, "IS_DIRECTORY", "writeFile"),
        ("delete", json!({"path": "dir"}), 400, "IS_DIRECTORY", "deleteFile"),
        ("list", json!({"path": "dir/x"}), 400, "NOT_DIRECTORY", "listFiles"),
        ("mkdir", json!({"path": "dir"}), 409, "FILE_EXISTS", "mkdir"),
        ("rename", json!({"path": "dir/x", "newPath": "dir"}), 409, "FILE_EXISTS", "renameFile"),
        ("move", json!({"path": "none", "newPath": "dir"}), 404, "FILE_NOT_FOUND", "moveFile"),
    ] {
        let answer = post(&world, &format!("/files/{route}"), body).await;
        let json = answer.json();
        assert_eq!((answer.status, json["code"].as_str()), (status, Some(code)), "{json}");
        assert_eq!(
            (json["operation"].as_str(), json["httpStatus"].as_u64()),
            (Some(operation), Some(status.into()))
        );
        assert!(json["context"]["path"].is_string() && json["suggestion"].is_string(), "{json}");
    }
}

/// One connection to a real server on loopback.
async fn connect(world: &World) -> hyper::client::conn::http1::SendRequest<Body> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = app(world);
    tokio::spawn(async move { axum::serve(listener, app).await });
    let socket = tokio::net::TcpStream::connect(address).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    sender
}

#[tokio::test]
async fn f01_an_upload_whose_client_vanishes_leaves_the_old_content() {
    let world = World::new();
    world.plant("workspace/kept", b"old", USER, 0o644);
    for size in [1000, 5 << 20] {
        let mut client = connect(&world).await;
        let parts = stream::iter([Ok(Bytes::from(vec![b'n'; size])), Err("the client dies")]);
        let request = http::Request::put("/files/content?path=kept").header("content-length", size + 1);
        assert!(client.send_request(request.body(Body::from_stream(parts)).unwrap()).await.is_err());
    }
    // The server notices the end of the connection by an event of its own; wait for what it then removes.
    let deadline = Instant::now() + Duration::from_secs(5);
    while world.names("/workspace").len() > 1 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(world.names("/workspace"), ["kept"]);
    assert_eq!(world.text("kept").await.unwrap(), "old");
}

#[tokio::test]
async fn a_download_that_cannot_be_finished_is_broken_off_not_shortened() {
    let world = World::new();
    world.plant("workspace/large", &vec![1; 64 << 20], USER, 0o644);
    let mut client = connect(&world).await;
    let request = http::Request::get("/files/content?path=large").body(Body::empty()).unwrap();
    let response = client.send_request(request).await.unwrap();
    assert_eq!(response.headers()["content-length"], (64 << 20).to_string());
    std::fs::File::options()
        .write(true)
        .open(world.host("/workspace/large"))
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    let mut body = response.into_body().into_data_stream();
    let mut end = None;
    while let Some(part) = body.next().await {
        end = Some(part.is_ok());
    }
    assert_eq!(end, Some(false), "a shortened body must not look complete");
}

/// Median milliseconds of `rounds` requests.
async fn median(rounds: usize, mut request: impl AsyncFnMut()) -> f64 {
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let start = Instant::now();
        request().await;
        times.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    times[rounds / 2]
}

/// Prints what one MiB costs through the API and as a plain body of the same server, in one run.
#[test]
fn one_mebibyte_over_http_beside_the_same_bytes_without_files() {
    let world = World::new();
    // In memory: what is measured is the way through the API, not the disk that others use too.
    let _mounted = world.mount("/workspace", "tmpfs", "mode=777");
    let content = Bytes::from((0..1 << 20).map(|n: u32| (n * 31 + n / 255) as u8).collect::<Vec<_>>());
    let held = content.clone();
    let swallow = |body: Body| async move {
        let mut body = body.into_data_stream();
        let mut size = 0;
        while let Some(part) = body.next().await {
            size += part.unwrap().len();
        }
        size.to_string()
    };
    let plain = axum::routing::get(move || async move { held.clone() }).put(swallow);
    let app = app(&world).route("/plain", plain);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // A thread of its own, as the agent is another process than its client.
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = std::thread::spawn(move || {
        runtime().block_on(async {
            listener.set_nonblocking(true).unwrap();
            let listener = TcpListener::from_std(listener).unwrap();
            let end = async { stopped.await.unwrap_or_default() };
            axum::serve(listener, app).with_graceful_shutdown(end).await.unwrap();
        });
    });
    runtime().block_on(async {
        let socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let (mut client, connection) =
            hyper::client::conn::http1::handshake::<_, Body>(TokioIo::new(socket)).await.unwrap();
        tokio::spawn(connection);
        let mut send = async |method: &str, path: &str, body: Bytes| {
            let request = http::Request::builder().method(method).uri(path).body(Body::from(body)).unwrap();
            let response = client.send_request(request).await.unwrap();
            assert_eq!(response.status(), 200, "{method} {path}");
            let mut body = response.into_body().into_data_stream();
            let mut size = 0;
            while let Some(part) = body.next().await {
                size += part.unwrap().len();
            }
            size
        };
        for round in 0..2 {
            let put = median(100, async || {
                send("PUT", "/plain", content.clone()).await;
            })
            .await;
            let write = median(100, async || {
                send("PUT", "/files/content?path=one", content.clone()).await;
            })
            .await;
            let get = median(100, async || assert_eq!(send("GET", "/plain", Bytes::new()).await, 1 << 20)).await;
            let read = median(100, async || {
                assert_eq!(send("GET", "/files/content?path=one", Bytes::new()).await, 1 << 20);
            })
            .await;
            println!(
                "round {round}, 1 MiB: write {write:.2} ms, plain PUT {put:.2} ms; read {read:.2} ms, plain GET {get:.2} ms"
            );
        }
    });
    drop(stop);
    server.join().unwrap();
    assert_eq!(std::fs::read(world.host("/workspace/one")).unwrap(), content);
}

#[tokio::test]
async fn b14_long_files_are_answered_in_pieces_and_read_the_same() {
    let world = World::new();
    // A character lies across every seam between two pieces, and every byte of the last needs an escape.
    let text = format!("{}{}\n\u{1}\"", "x", "ü€".repeat(300_000));
    let mut late = vec![b'a'; 700_000];
    late.push(0xff);
    let nuls = vec![0; 1_000_001];
    let cut = "é".repeat(200_000);
    for (name, content, encoding, is_binary) in [
        ("text", text.as_bytes(), "utf-8", false),
        ("late", &late[..], "base64", true),
        ("nuls", &nuls[..], "base64", true),
        ("cut", &cut.as_bytes()[..399_999], "base64", true),
    ] {
        world.plant(&format!("workspace/{name}"), content, USER, 0o644);
        let answer = post(&world, "/files/read", json!({ "path": name })).await;
        assert_eq!(answer.status, 200, "{name}");
        let result: sandcrab_api::files::ReadFileResult = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((result.size, result.is_binary), (content.len() as u64, is_binary), "{name}");
        assert_eq!(serde_json::to_value(result.encoding).unwrap(), encoding, "{name}");
        let read = match encoding {
            "utf-8" => result.content.into_bytes(),
            _ => base64::Engine::decode(&base64::engine::general_purpose::STANDARD, result.content).unwrap(),
        };
        assert!(read == content, "{name}");
    }
    // As text where that is asked for, NUL or not; as base64 all the same where it is none.
    let read = |name: &'static str, encoding: &'static str| {
        post(&world, "/files/read", json!({ "path": name, "encoding": encoding }))
    };
    let nul = read("nuls", "utf8").await.json();
    assert_eq!((&nul["encoding"], &nul["isBinary"]), (&json!("utf-8"), &json!(true)));
    assert_eq!(nul["content"].as_str().unwrap().len(), nuls.len());
    assert_eq!(read("late", "utf8").await.json()["encoding"], "base64");
    assert_eq!(read("text", "base64").await.json()["encoding"], "base64");
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "another process does what this one must not")]
async fn b14_a_lease_is_a_typed_error_and_passes() {
    let world = World::new();
    world.plant("workspace/leased", b"content", USER, 0o644);
    let path = world.host("/workspace/leased");
    let script = format!(
        "import fcntl, os, signal, sys\nsignal.signal(signal.SIGIO, signal.SIG_IGN)\nfd = os.open({path:?}, os.O_RDWR)\n\
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)\nprint('held', flush=True)\nsys.stdin.read()"
    );
    let mut holder = std::process::Command::new("python3")
        .args(["-c", &script])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut held = [0; 5];
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut held).unwrap();
    assert_eq!(&held, b"held\n");
    for path in ["/files/read", "/files/content?path=leased"] {
        let begun = Instant::now();
        let answer = match path {
            "/files/read" => post(&world, path, json!({ "path": "leased" })).await,
            path => get(&world, path).await,
        };
        assert_eq!((answer.status, &answer.json()["code"]), (409, &json!("RESOURCE_BUSY")), "{path}");
        assert_eq!(answer.headers["retry-after"], "1");
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
    drop(holder.stdin.take());
    holder.wait().unwrap();
    assert_eq!(post(&world, "/files/read", json!({ "path": "leased" })).await.json()["content"], "content");
}

//! A server in this process, and a client that holds every answer against the API's document.

use crate::schema;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use sandcrab_runtime::fake::Fake;
use sandcrab_runtime::{Driver, InstanceId};
use sandcrab_server::{ServeOptions, Server, Started};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// No single step of a test takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const KEY: &str = "a-key-of-the-tests";

/// Bounds a future, so that a hanging test says where it hung.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing after {PATIENCE:?}"),
    }
}

/// A server that runs until it is dropped or stopped.
pub(crate) struct TestServer {
    pub address: SocketAddr,
    pub started: Started,
    pub data: PathBuf,
    pub key: Option<String>,
    _dir: Option<tempfile::TempDir>,
    end: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
}

/// What to listen on, with the tests' key.
pub(crate) fn options(data: &Path) -> ServeOptions {
    ServeOptions {
        listen: "127.0.0.1:0".into(),
        data_dir: Some(data.to_owned()),
        api_key: Some(KEY.into()),
        ..ServeOptions::default()
    }
}

impl TestServer {
    /// On a fresh data directory.
    pub(crate) async fn start(driver: impl Driver) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Self::start_with(options(dir.path()), Arc::new(driver)).await;
        server._dir = Some(dir);
        server
    }

    pub(crate) async fn start_with(options: ServeOptions, driver: Arc<dyn Driver>) -> Self {
        let data = options.data_dir.clone().unwrap();
        let key = options.api_key.clone();
        let server = within("start", Server::start(options.resolve().unwrap(), driver)).await.unwrap();
        let started = server.started().clone();
        let (end, ended) = oneshot::channel();
        let running = tokio::spawn(server.run(async move {
            let _ended = ended.await;
        }));
        Self { address: started.address, started, data, key, _dir: None, end: Some(end), running }
    }

    /// As SIGTERM does.
    pub(crate) async fn stop(mut self) {
        drop(self.end.take());
        within("stop", &mut self.running).await.unwrap();
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> Call<'_> {
        Call { server: self, method, path: path.to_owned(), headers: HeaderMap::new(), body: Bytes::new() }
            .header("host", &self.address.to_string())
            .key(self.key.as_deref())
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, path).send().await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.request(Method::DELETE, path).send().await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.request(Method::PUT, path).json(&body).send().await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.request(Method::POST, path).json(&body).send().await
    }

    /// Runs a command in a sandbox.
    pub(crate) async fn exec(&self, sandbox: &str, command: &str) -> Answer {
        self.post(&format!("/v1/sandboxes/{sandbox}/exec"), serde_json::json!({ "command": command })).await
    }

    /// Sends a head and a body that has no end until the server takes no more of it; all that it answered.
    pub(crate) async fn upload_without_end(&self, head: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let (mut read, mut write) = stream.split();
        let answer = async {
            let mut answer = Vec::new();
            // The end of a connection that is cut off is an error, and comes after what was said.
            read.read_to_end(&mut answer).await.ok();
            String::from_utf8(answer).unwrap()
        };
        let upload = async {
            write.write_all(head.as_bytes()).await.unwrap();
            while write.write_all(&[7; 1 << 16]).await.is_ok() {}
        };
        within("an upload's end", async { tokio::join!(answer, upload).0 }).await
    }

    /// The kinds of a sandbox's events.
    pub(crate) async fn events(&self, sandbox: &str) -> Vec<String> {
        let events = self.get(&format!("/v1/sandboxes/{sandbox}/events")).await.ok();
        events["events"].as_array().unwrap().iter().map(|e| e["kind"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until the log of a sandbox ends with this event.
    pub(crate) async fn until_event(&self, sandbox: &str, kind: &str) {
        within(&format!("{sandbox} {kind}"), async {
            while self.events(sandbox).await.last().is_none_or(|last| last != kind) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    }

    /// Asks again and again, because the owner of a sandbox is told of its end by the driver.
    pub(crate) async fn until_status(&self, sandbox: &str, status: &str) -> Value {
        let path = format!("/v1/sandboxes/{sandbox}");
        within(&format!("{sandbox} {status}"), async {
            loop {
                let info = self.get(&path).await.ok();
                if info["status"] == status {
                    return info;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await
    }
}

/// The only instance that a driver has.
pub(crate) async fn only_instance(driver: &Fake) -> InstanceId {
    let mut list = driver.list().await.unwrap();
    assert_eq!(list.len(), 1);
    list.remove(0).id
}

/// A request that is being put together.
pub(crate) struct Call<'a> {
    server: &'a TestServer,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Call<'_> {
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, value.parse().unwrap());
        self
    }

    pub(crate) fn key(mut self, key: Option<&str>) -> Self {
        self.headers.remove("authorization");
        match key {
            Some(key) => self.header("authorization", &format!("Bearer {key}")),
            None => self,
        }
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        let text = serde_json::to_vec(body).unwrap();
        self.header("content-type", "application/json").body(text)
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends it over a connection of its own and reads the head of the answer.
    pub(crate) async fn open(self) -> http::Response<Incoming> {
        self.try_open().await.unwrap()
    }

    /// Sends it and tells whether a whole answer came: one that was cut off at any point did not.
    pub(crate) async fn came_whole(self) -> bool {
        match self.try_open().await {
            Ok(answer) => within("the answer's body", answer.into_body().collect()).await.is_ok(),
            Err(_cut) => false,
        }
    }

    async fn try_open(self) -> hyper::Result<http::Response<Incoming>> {
        within(&format!("{} {}", self.method, self.path), async {
            let stream = TcpStream::connect(self.server.address).await.unwrap();
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            let mut request =
                Request::builder().method(self.method).uri(self.path).body(Full::new(self.body)).unwrap();
            *request.headers_mut() = self.headers;
            // The connection lives as long as the answer's body does.
            sender.send_request(request).await
        })
        .await
    }

    /// Sends it, reads the whole answer and checks it against the document.
    pub(crate) async fn send(self) -> Answer {
        let (method, path) = (self.method.clone(), self.path.clone());
        let (head, body) = self.open().await.into_parts();
        let body = within("the answer's body", body.collect()).await.unwrap().to_bytes();
        let answer = Answer { status: head.status, headers: head.headers, body };
        schema::check(&method, &path, &answer);
        answer
    }
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The body of a success.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert!(self.status.is_success(), "{} {}", self.status, String::from_utf8_lossy(&self.body));
        self.json()
    }

    /// Status and code of a failure, after a look at its form (contract X01).
    #[track_caller]
    pub(crate) fn failure(&self) -> (u16, String) {
        let error = self.json();
        assert_eq!(error["httpStatus"], self.status.as_u16(), "{error}");
        for field in ["code", "message", "operation", "suggestion"] {
            assert!(error[field].as_str().is_some_and(|text| !text.is_empty()), "{field} of {error}");
        }
        assert!(error["context"].is_object(), "{error}");
        (self.status.as_u16(), error["code"].as_str().unwrap().to_owned())
    }

    /// The first field that a refusal of bad input names (contract X02).
    #[track_caller]
    pub(crate) fn field(&self) -> String {
        assert_eq!(self.failure(), (400, "VALIDATION_FAILED".into()), "{}", self.json());
        self.json()["context"]["validationErrors"][0]["field"].as_str().unwrap().to_owned()
    }
}

//! Requests and answers over HTTP/1.1.

mod body;
mod connection;
mod endpoint;
mod websocket;

pub(crate) use body::RequestBody;
pub(crate) use connection::AnswerBody;
pub(crate) use websocket::WebSocket;

use crate::ClientError;
use crate::options::ClientOptions;
use crate::retry::Patience;
use bytes::{Bytes, BytesMut};
use connection::{Connection, Pool};
use endpoint::Endpoint;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use http::{HeaderMap, Method, Request};
use sandcrab_api::ApiError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// The longest answer to calls whose answer is no file and no output.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// The way to one server.
pub(crate) struct Transport {
    endpoint: Endpoint,
    pool: Arc<Pool>,
    host: HeaderValue,
    authorization: Option<HeaderValue>,
    answer_timeout: Duration,
    pub reconnect_for: Duration,
}

/// One request whose body is at hand.
#[derive(Clone)]
pub(crate) struct Call {
    /// The operation's name, for errors.
    pub operation: &'static str,
    pub method: Method,
    /// From `/` on, without the endpoint's prefix, encoded, with the query.
    pub path: String,
    pub body: Option<Bytes>,
    /// The media type of the body.
    pub content: &'static str,
    /// Whether asking twice does no more than asking once.
    pub repeatable: bool,
    /// Whether the answer waits for something that has no bound of ours.
    pub unbounded: bool,
    /// The longest right answer in bytes.
    pub limit: usize,
}

impl Call {
    pub(crate) fn new(operation: &'static str, method: Method, path: String) -> Self {
        let repeatable = method == Method::GET;
        Self {
            operation,
            method,
            path,
            body: None,
            content: "application/json",
            repeatable,
            unbounded: false,
            limit: MAX_ANSWER_BYTES,
        }
    }

    pub(crate) fn get(operation: &'static str, path: String) -> Self {
        Self::new(operation, Method::GET, path)
    }

    pub(crate) fn post(operation: &'static str, path: String) -> Self {
        Self::new(operation, Method::POST, path)
    }

    pub(crate) fn json(mut self, body: &impl Serialize) -> Self {
        // Our own request types have string keys and finite numbers: they always are JSON.
        self.body = Some(serde_json::to_vec(body).unwrap_or_default().into());
        self
    }

    pub(crate) fn octets(mut self, body: Bytes) -> Self {
        self.body = Some(body);
        self.content = "application/octet-stream";
        self
    }

    /// May be asked again when the connection was lost before the answer (contract S12, X04).
    pub(crate) fn repeatable(mut self) -> Self {
        self.repeatable = true;
        self
    }

    pub(crate) fn unbounded(mut self) -> Self {
        self.unbounded = true;
        self
    }

    pub(crate) fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }
}

/// The head of an answer with the body yet to be read.
pub(crate) struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: AnswerBody,
}

impl Transport {
    pub(crate) fn new(options: &ClientOptions) -> Result<Self, ClientError> {
        let endpoint = Endpoint::parse(&options.url, options.ca_file.as_deref(), options.connect_timeout)?;
        let authorization = match &options.api_key {
            Some(key) => {
                let mut value =
                    HeaderValue::try_from(format!("Bearer {key}")).map_err(|_| ClientError::ApiKey)?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        let host = HeaderValue::try_from(&endpoint.authority).map_err(|_| ClientError::Url {
            url: options.url.clone(),
            reason: "has a host that HTTP cannot name",
        })?;
        Ok(Self {
            endpoint,
            pool: Pool::new(options.max_idle_connections),
            host,
            authorization,
            answer_timeout: options.answer_timeout,
            reconnect_for: options.reconnect_for,
        })
    }

    /// Sends a request and reads its whole answer as JSON.
    pub(crate) async fn json<T: DeserializeOwned>(&self, call: &Call) -> Result<T, ClientError> {
        let (status, bytes) = self.bytes(call).await?;
        self.parse(call.operation, status, &bytes)
    }

    /// Sends a request and reads its whole answer; again, if it may be, when the connection was lost.
    pub(crate) async fn bytes(&self, call: &Call) -> Result<(u16, Bytes), ClientError> {
        let mut patience = Patience::new(self.reconnect_for);
        loop {
            match self.attempt(call).await {
                Err(error) if call.repeatable && error.is_lost() => patience.after(error).await?,
                outcome => return outcome,
            }
        }
    }

    async fn attempt(&self, call: &Call) -> Result<(u16, Bytes), ClientError> {
        self.within(call, async {
            let answer = self.open(call).await?;
            let status = answer.status;
            self.collect(call.operation, answer.body, call.limit).await.map(|bytes| (status, bytes))
        })
        .await
    }

    async fn within<T>(
        &self,
        call: &Call,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        if call.unbounded {
            return work.await;
        }
        tokio::time::timeout(self.answer_timeout, work).await.unwrap_or_else(|_| {
            Err(ClientError::Timeout {
                operation: call.operation,
                authority: self.endpoint.authority.clone(),
                after: self.answer_timeout,
            })
        })
    }

    /// Sends a request and waits for the head of a good answer.
    pub(crate) async fn stream(&self, call: &Call) -> Result<Answer, ClientError> {
        let answer = self.within(call, self.open(call)).await?;
        self.good(call.operation, answer).await
    }

    /// Sends a request with a body that is read as it goes, and reads its whole answer as JSON.
    pub(crate) async fn upload<T: DeserializeOwned>(
        &self,
        call: &Call,
        body: RequestBody,
    ) -> Result<T, ClientError> {
        let request = self.request(call, body, "application/octet-stream")?;
        let answer = self.send(call.operation, request).await?;
        let status = answer.status;
        let bytes = self.collect(call.operation, answer.body, call.limit).await?;
        self.parse(call.operation, status, &bytes)
    }

    /// An answer of a good status as it is, any other as its error.
    async fn good(&self, operation: &'static str, answer: Answer) -> Result<Answer, ClientError> {
        if answer.status < 400 {
            return Ok(answer);
        }
        let bytes = self.collect(operation, answer.body, MAX_ANSWER_BYTES).await?;
        Err(self.failure(operation, answer.status, &bytes))
    }

    async fn open(&self, call: &Call) -> Result<Answer, ClientError> {
        let body = RequestBody::Bytes(call.body.clone().unwrap_or_default());
        self.send(call.operation, self.request(call, body, call.content)?).await
    }

    fn request(
        &self,
        call: &Call,
        body: RequestBody,
        content: &'static str,
    ) -> Result<Request<RequestBody>, ClientError> {
        let path = match self.endpoint.prefix.as_str() {
            "" => http::Uri::try_from(call.path.as_str()),
            prefix => http::Uri::try_from(format!("{prefix}{}", call.path)),
        };
        let path = path.map_err(|_| ClientError::Url {
            url: call.path.clone(),
            reason: "is too long for a request; give a shorter path or query",
        })?;
        let mut request = Request::new(body);
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = path;
        let headers = request.headers_mut();
        headers.reserve(4);
        headers.insert(HOST, self.host.clone());
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        if !http_body::Body::is_end_stream(request.body()) {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content));
        }
        Ok(request)
    }

    async fn send(
        &self,
        operation: &'static str,
        mut request: Request<RequestBody>,
    ) -> Result<Answer, ClientError> {
        loop {
            let (mut connection, reused) = match self.pool.take().await {
                Some(connection) => (connection, true),
                None => (self.connect().await?, false),
            };
            match connection.exchange(request).await {
                Ok(answer) => {
                    let (head, incoming) = answer.into_parts();
                    let body = AnswerBody::new(incoming, connection, Arc::clone(&self.pool));
                    return Ok(Answer { status: head.status.as_u16(), headers: head.headers, body });
                }
                Err(mut failure) => match failure.take_message() {
                    // The server had closed this connection: not a byte of the request went out.
                    Some(unsent) if reused => request = unsent,
                    _ => return Err(self.lost(operation, failure.into_error())),
                },
            }
        }
    }

    async fn connect(&self) -> Result<Connection, ClientError> {
        Connection::open(&self.endpoint)
            .await
            .map_err(|source| ClientError::Connect { authority: self.endpoint.authority.clone(), source })
    }

    async fn collect(
        &self,
        operation: &'static str,
        mut body: AnswerBody,
        limit: usize,
    ) -> Result<Bytes, ClientError> {
        let expected = usize::try_from(body.length().unwrap_or(0)).unwrap_or(usize::MAX);
        if expected > limit {
            return Err(ClientError::TooLarge { operation, limit });
        }
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        while let Some(chunk) = body.chunk().await {
            let chunk = chunk.map_err(|error| self.lost(operation, error))?;
            if first.len() + all.len() + chunk.len() > limit {
                return Err(ClientError::TooLarge { operation, limit });
            }
            // Most answers are one chunk, which need not be copied.
            if first.is_empty() && all.is_empty() {
                first = chunk;
                continue;
            }
            if all.is_empty() {
                // A length that a stranger names is believed only so far.
                all.reserve(expected.min(16 << 20));
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&chunk);
        }
        Ok(if all.is_empty() { first } else { all.freeze() })
    }

    pub(crate) fn parse<'a, T: Deserialize<'a>>(
        &self,
        operation: &'static str,
        status: u16,
        bytes: &'a [u8],
    ) -> Result<T, ClientError> {
        if status >= 400 {
            return Err(self.failure(operation, status, bytes));
        }
        serde_json::from_slice(bytes).map_err(|error| {
            self.unexpected(operation, status, format!("a body that is not as documented ({error})"))
        })
    }

    fn failure(&self, operation: &'static str, status: u16, bytes: &[u8]) -> ClientError {
        match serde_json::from_slice::<ApiError>(bytes) {
            Ok(error) => error.into(),
            Err(_) => {
                let start = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]);
                self.unexpected(operation, status, format!("no error of this API: {:?}", start.trim()))
            }
        }
    }

    pub(crate) fn unexpected(&self, operation: &'static str, status: u16, reason: String) -> ClientError {
        ClientError::Unexpected { operation, authority: self.endpoint.authority.clone(), status, reason }
    }

    pub(crate) fn lost(&self, operation: &'static str, source: hyper::Error) -> ClientError {
        if source.is_user() {
            // The one user of hyper here that can fail is the reader of an upload.
            return ClientError::Local { operation, source: std::io::Error::other(source) };
        }
        ClientError::Lost { operation, authority: self.endpoint.authority.clone(), source }
    }
}

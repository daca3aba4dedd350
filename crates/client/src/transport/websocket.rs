//! WebSockets: each a connection of its own, asked for with the key as any request.

use super::{Call, Connection, RequestBody, Transport};
use crate::ClientError;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::pin::Pin;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

pub(crate) type WebSocket = WebSocketStream<TokioIo<Upgraded>>;

/// The longest answer of a server that opens no WebSocket: an error.
const MAX_REFUSAL_BYTES: usize = 1 << 20;

impl Transport {
    /// Opens a WebSocket. The call's limit is that of one message.
    pub(crate) async fn websocket(&self, call: &Call) -> Result<WebSocket, ClientError> {
        self.within(call, self.switch(call)).await
    }

    async fn switch(&self, call: &Call) -> Result<WebSocket, ClientError> {
        let key = generate_key();
        let mut request = self.request(call, RequestBody::Bytes(Bytes::new()), "")?;
        let headers = request.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        // Base64, which any header can hold.
        headers.extend(HeaderValue::try_from(&key).map(|key| (SEC_WEBSOCKET_KEY, key)));
        let connect = |source| ClientError::Connect { authority: self.endpoint.authority.clone(), source };
        let (mut sender, connection) = Connection::upgradable(&self.endpoint).await.map_err(connect)?;
        // It lives until the socket closes, and is polled as that is.
        tokio::spawn(connection);
        let lost = |error| self.lost(call.operation, error);
        let answer = sender.send_request(request).await.map_err(lost)?;
        let status = answer.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            let bytes = refusal(answer.into_body()).await.map_err(lost)?;
            return Err(match status.as_u16() {
                status @ 400.. => self.failure(call.operation, status, &bytes),
                status => self.unexpected(call.operation, status, "and opened no WebSocket".to_owned()),
            });
        }
        let accept = derive_accept_key(key.as_bytes());
        if answer.headers().get(SEC_WEBSOCKET_ACCEPT).is_none_or(|value| value != accept.as_str()) {
            return Err(self.unexpected(call.operation, 101, "for another WebSocket".to_owned()));
        }
        let upgraded = hyper::upgrade::on(answer).await.map_err(lost)?;
        let config =
            WebSocketConfig::default().max_message_size(Some(call.limit)).max_frame_size(Some(call.limit));
        Ok(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, Some(config)).await)
    }
}

/// The body of an answer, as far as an error could reach.
async fn refusal(mut body: Incoming) -> Result<Bytes, hyper::Error> {
    let mut all = BytesMut::new();
    while all.len() < MAX_REFUSAL_BYTES
        && let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await
    {
        if let Ok(bytes) = frame?.into_data() {
            all.extend_from_slice(&bytes);
        }
    }
    Ok(all.freeze())
}

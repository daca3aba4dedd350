//! A process on a WebSocket, for those who talk with it: what comes goes to its stdin, what it writes goes out.

use super::follow::Events;
use super::process::Process;
use axum::extract::ws::{Message, WebSocket};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use sandcrab_api::ApiError;
use sandcrab_api::process::{AttachCommand, ProcessLogEvent};
use sandcrab_api::time::Timestamp;
use std::sync::Arc;
use std::time::Duration;

/// The longest message that is taken, in bytes.
pub(super) const MAX_MESSAGE: usize = 1 << 20;

/// How long a caller may take to say farewell.
const FAREWELL: Duration = Duration::from_secs(2);

/// Talks until the process has ended or the caller leaves, which ends nothing but the talk.
pub(super) async fn talk(socket: WebSocket, process: Arc<Process>, events: Events) {
    let (mut sender, mut receiver) = socket.split();
    let last = tokio::select! {
        told = tell(&mut sender, events) => told.ok(),
        refused = listen(&mut receiver, &process) => match refused {
            Some(error) => {
                let event = ProcessLogEvent::Error {
                    error: error.message.clone(),
                    detail: Box::new(error),
                    process_id: process.id.clone(),
                    timestamp: Timestamp::now(),
                };
                let text = serde_json::to_string(&event).unwrap_or_default();
                sender.send(Message::Text(text.into())).await.ok()
            }
            None => None,
        },
    };
    // A caller who has left needs no farewell.
    if last.is_some() && sender.close().await.is_ok() {
        // What was on its way is read, and the caller's own farewell (RFC 6455, section 7.1.1): a connection that is
        // closed with bytes unread takes back what was said last.
        let rest = async { while let Some(Ok(_)) = receiver.next().await {} };
        let _late = tokio::time::timeout(FAREWELL, rest).await;
    }
}

/// Sends the log's events, to the last.
async fn tell(sender: &mut SplitSink<WebSocket, Message>, mut events: Events) -> Result<(), axum::Error> {
    while let Some((_, json)) = events.next().await {
        // Written by us, as text.
        let text = String::from_utf8(json).unwrap_or_default();
        sender.send(Message::Text(text.into())).await?;
    }
    Ok(())
}

/// Passes on what comes; returns when the caller leaves, with the error if something of it cannot be done.
async fn listen(receiver: &mut SplitStream<WebSocket>, process: &Process) -> Option<ApiError> {
    while let Some(Ok(message)) = receiver.next().await {
        let done = match message {
            Message::Binary(bytes) => process.write_stdin(&bytes, None).await,
            Message::Text(text) => match crate::http::extract::parse_json(text.as_bytes()) {
                Ok(AttachCommand::Stdin { data }) => process.write_stdin(data.as_bytes(), None).await,
                Ok(AttachCommand::End) => process.close_stdin().await,
                Err(error) => Err(error),
            },
            Message::Close(_) => return None,
            Message::Ping(_) | Message::Pong(_) => Ok(()),
        };
        if let Err(error) = done {
            if process.has_ended() {
                // Its end is told by its log.
                return std::future::pending().await;
            }
            return Some(error.during("attachProcess"));
        }
    }
    None
}

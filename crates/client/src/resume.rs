//! Event streams that go on where they broke off (contract S12): one loop for commands, processes and runs.

use crate::ClientError;
use crate::retry::Patience;
use crate::sse::{Message, Parser, TooLong};
use crate::transport::{Answer, AnswerBody, Call, Transport};
use futures_util::Stream;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::Instant;

/// A connection that held this long was a good one, also if nothing new came over it.
const QUIET_CONNECTION: Duration = Duration::from_secs(5);

/// Events as a caller gets them.
pub(crate) type Events<T> = Pin<Box<dyn Stream<Item = Result<T, ClientError>> + Send>>;

/// What one kind of stream is, and how far its caller has come in it.
pub(crate) trait Source: Send + 'static {
    /// What a caller gets.
    type Event: Send;
    /// The operation's name, for errors.
    const OPERATION: &'static str;
    /// The longest event in bytes.
    const MAX_EVENT_BYTES: usize;

    /// The way to the server.
    fn transport(&self) -> &Transport;

    /// Asks for what the caller does not have yet.
    fn rest(&self) -> Call;

    /// What is new in an event; `None` if the caller has it all.
    fn accept(&mut self, message: &Message) -> Result<Option<Self::Event>, ClientError>;

    /// Whether the last event has come. A stream that ends before it was cut off by something in between.
    fn has_ended(&self) -> bool;

    /// The error of a stream that could not be had back.
    fn lost(&self, tried_for: Duration, cause: Option<Box<ClientError>>) -> Result<ClientError, ClientError>;

    /// The error of an answer that is not as documented.
    fn unexpected(&self, reason: &str) -> ClientError {
        self.transport().unexpected(Self::OPERATION, 200, reason.to_owned())
    }
}

/// Opens a stream by `call`; waits for a server that goes away meanwhile as long as its options say.
pub(crate) async fn open<S: Source>(source: S, call: &Call) -> Result<Events<S::Event>, ClientError> {
    let mut patience = Patience::new(source.transport().reconnect_for);
    let answer = loop {
        match source.transport().stream(call).await {
            Err(error) if error.is_lost() => patience.after(error).await?,
            outcome => break outcome?,
        }
    };
    patience.reset();
    expect_events(&source, &answer)?;
    let opened = Instant::now();
    let follow =
        Follow { source, body: answer.body, parser: Parser::new(S::MAX_EVENT_BYTES), patience, opened };
    Ok(Box::pin(futures_util::stream::try_unfold(follow, |mut follow| async move {
        Ok(follow.next().await?.map(|event| (event, follow)))
    })))
}

/// A stream in the middle.
struct Follow<S> {
    source: S,
    body: AnswerBody,
    parser: Parser,
    patience: Patience,
    /// When the connection was made.
    opened: Instant,
}

/// A page that something in between answers is no stream, whatever stands in it.
fn expect_events<S: Source>(source: &S, answer: &Answer) -> Result<(), ClientError> {
    let kind = answer.headers.get(http::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    match kind.map(|kind| kind.split(';').next().unwrap_or(kind).trim()) {
        Some(kind) if kind.eq_ignore_ascii_case("text/event-stream") => Ok(()),
        kind => Err(source
            .unexpected(&format!("no event stream, but {}", kind.unwrap_or("something without a type")))),
    }
}

impl<S: Source> Follow<S> {
    async fn next(&mut self) -> Result<Option<S::Event>, ClientError> {
        while !self.source.has_ended() {
            while let Some(message) =
                self.parser.next().map_err(|TooLong| self.source.unexpected("an event that never ends"))?
            {
                if let Some(event) = self.source.accept(&message)? {
                    self.patience.reset();
                    return Ok(Some(event));
                }
            }
            match self.body.chunk().await {
                Some(Ok(bytes)) => self.parser.push(&bytes),
                Some(Err(error)) => {
                    let error = self.source.transport().lost(S::OPERATION, error);
                    self.resume(Some(error)).await?;
                }
                None => self.resume(None).await?,
            }
        }
        Ok(None)
    }

    async fn resume(&mut self, mut cause: Option<ClientError>) -> Result<(), ClientError> {
        let rest = self.source.rest();
        tracing::debug!(operation = S::OPERATION, path = rest.path, ?cause, "stream lost");
        // A command that writes nothing for long makes no progress; a proxy may still end its quiet connections.
        if self.opened.elapsed() >= QUIET_CONNECTION {
            self.patience.reset();
        }
        while self.patience.again().await {
            match self.source.transport().stream(&rest).await {
                Ok(answer) => {
                    expect_events(&self.source, &answer)?;
                    self.opened = Instant::now();
                    self.body = answer.body;
                    self.parser = Parser::new(S::MAX_EVENT_BYTES);
                    return Ok(());
                }
                Err(error) if error.is_lost() => cause = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(self.source.lost(self.patience.total(), cause.map(Box::new))?)
    }
}

//! Bodies that the server gathers itself: short ones of its own routes, and those of requests that make their sandbox. What
//! all of them hold together is bounded (attack C15), by the bytes that came and not by those that were announced.

use crate::proxy::Upload;
use axum::BoxError;
use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyDataStream, Full};
use sandcrab_agent::http::extract::unreadable_body;
use sandcrab_api::{ApiError, ErrorCode};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What gathered bodies may hold at a time.
const ROOM: usize = 64 << 20;
/// The unit that room is counted in.
const UNIT: usize = 1 << 10;

/// The room for bodies.
#[derive(Debug)]
pub(crate) struct Bodies {
    room: Arc<Semaphore>,
}

impl Default for Bodies {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(ROOM / UNIT)) }
    }
}

/// What was gathered, and its room.
#[derive(Debug, Default)]
struct Held {
    bytes: Vec<u8>,
    room: Option<OwnedSemaphorePermit>,
}

impl Held {
    fn room(&self) -> usize {
        self.room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits) * UNIT
    }

    /// Adds what came; not if there is no room for it.
    fn add(&mut self, data: &[u8], all: &Arc<Semaphore>) -> bool {
        let missing = (self.bytes.len() + data.len()).saturating_sub(self.room()).div_ceil(UNIT);
        if missing > 0 {
            let Ok(Ok(more)) = u32::try_from(missing).map(|more| all.clone().try_acquire_many_owned(more))
            else {
                return false;
            };
            match &mut self.room {
                Some(room) => room.merge(more),
                None => self.room = Some(more),
            }
        }
        self.bytes.extend_from_slice(data);
        true
    }
}

/// A body that was gathered. Its room is taken until it is dropped.
#[derive(Debug)]
pub(crate) struct Gathered(Held);

impl Gathered {
    /// The body, which keeps the room until it has been sent.
    pub(crate) fn into_body(self) -> Body {
        let Held { bytes, room } = self.0;
        Body::new(Whole { body: Full::from(bytes), _room: room })
    }
}

/// A gathered body on its way on.
struct Whole {
    body: Full<Bytes>,
    _room: Option<OwnedSemaphorePermit>,
}

impl HttpBody for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl AsRef<[u8]> for Gathered {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}

/// What became of a body that was to be gathered.
pub(crate) enum Outcome {
    /// It is whole.
    Whole(Gathered),
    /// There was no room for all of it; here is what came, with the rest after it.
    NoRoom(Body),
}

impl Bodies {
    /// Reads a body of at most `bound` bytes.
    pub(crate) async fn gather(&self, body: Upload, bound: usize) -> Result<Outcome, ApiError> {
        if body.size_hint().lower() > bound as u64 {
            return Err(too_long(bound));
        }
        let mut held = Held::default();
        let mut body = BodyDataStream::new(body);
        while let Some(data) = body.next().await {
            let data = data.map_err(|error| unreadable_body(&*error))?;
            if held.bytes.len() + data.len() > bound {
                return Err(too_long(bound));
            }
            if !held.add(&data, &self.room) {
                let begun =
                    [Gathered(held).into_body().into_data_stream(), Body::from(data).into_data_stream()];
                let begun = stream::iter(begun).flatten().map(|part| part.map_err(BoxError::from));
                return Ok(Outcome::NoRoom(Body::from_stream(begun.chain(body))));
            }
        }
        Ok(Outcome::Whole(Gathered(held)))
    }
}

/// No room is left for one more body.
pub(crate) fn no_room() -> ApiError {
    ApiError::new(ErrorCode::QuotaExceeded, "the server reads as many bodies as it has room for")
        .with("limit", "bodies")
        .with("value", ROOM)
        .with("scope", "server")
        .suggest("Try again after Retry-After.")
        .retry_after(1)
}

/// The body is longer than this route takes.
pub(crate) fn too_long(bound: usize) -> ApiError {
    ApiError::new(ErrorCode::PayloadTooLarge, format!("the body is longer than {bound} bytes"))
        .with("limit", bound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    fn body(parts: usize, of: usize) -> Upload {
        let parts = stream::iter((0..parts).map(move |_| Ok::<_, BoxError>(Bytes::from(vec![b'x'; of]))));
        Upload::new(Body::from_stream(parts))
    }

    async fn whole(bodies: &Bodies, length: usize) -> Gathered {
        match bodies.gather(body(1, length), ROOM).await.unwrap() {
            Outcome::Whole(whole) => whole,
            Outcome::NoRoom(_) => panic!("no room for {length}"),
        }
    }

    #[tokio::test]
    async fn c15_what_gathered_bodies_hold_together_is_bounded() {
        let bodies = Bodies::default();
        let first = whole(&bodies, ROOM / 2).await;
        let second = whole(&bodies, ROOM / 4).await;
        // The third is given back with all that came.
        let Outcome::NoRoom(third) = bodies.gather(body(512, ROOM / 1024), ROOM).await.unwrap() else {
            panic!("more than the bound")
        };
        assert_eq!(third.collect().await.unwrap().to_bytes().len(), ROOM / 2);
        assert_eq!(bodies.room.available_permits(), ROOM / UNIT / 4, "its room is free again");
        drop(first);
        let read = second.into_body().collect().await.unwrap().to_bytes();
        assert_eq!((read.len(), bodies.room.available_permits()), (ROOM / 4, ROOM / UNIT));
    }

    #[tokio::test]
    async fn c15_a_body_past_its_bound_is_refused_before_it_is_held() {
        let bodies = Bodies::default();
        let refused = async |body: Upload| match bodies.gather(body, 100).await {
            Err(error) => error.http_status,
            Ok(_) => panic!("taken"),
        };
        assert_eq!(refused(body(1000, 1)).await, 413);
        assert_eq!(refused(Upload::new(Body::from(vec![0; 101]))).await, 413);
        assert!(bodies.gather(body(100, 1), 100).await.is_ok());
        assert_eq!(bodies.room.available_permits(), ROOM / UNIT);
    }

    #[tokio::test(start_paused = true)]
    async fn c15_silence_ends_a_body_and_so_does_a_trickle() {
        let bodies = Bodies::default();
        let begun = tokio::time::Instant::now();
        let trickle = |every: u64| {
            stream::unfold((), move |()| async move {
                tokio::time::sleep(std::time::Duration::from_secs(every)).await;
                Some((Ok::<_, BoxError>(Bytes::from_static(b"x")), ()))
            })
        };
        for (every, ended) in [(3600, 30), (5, 30 + 60)] {
            let body = Upload::gathered(Body::from_stream(trickle(every)));
            let Err(error) = bodies.gather(body, 1000).await else { panic!("it ended") };
            assert_eq!((error.http_status, begun.elapsed().as_secs()), (400, ended), "{error}");
        }
    }
}

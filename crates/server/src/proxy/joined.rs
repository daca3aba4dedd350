//! The body of an answer, with its small pieces joined.
//!
//! Each piece costs the server the same whatever its length, to read it and to write it again. What runs in a sandbox
//! chooses the pieces; a row of single bytes kept a CPU busy (attack E14). Pieces that are there already go on as one, and
//! all answers of one sandbox together are read no faster than so many small pieces a second.

use super::link::Link;
use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// A piece below this is small, and small ones are joined up to this.
const SMALL: usize = 4 << 10;
const JOINED: usize = 16 << 10;
/// How many small pieces a sandbox may send in this time: 50,000 in a second.
const CRUMBS: u32 = 500;
const WINDOW: Duration = Duration::from_millis(10);

/// Counts the small pieces of one sandbox's answers. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Crumbs {
    window: Arc<Mutex<Window>>,
}

#[derive(Debug)]
struct Window {
    begun: Instant,
    count: u32,
}

impl Default for Crumbs {
    fn default() -> Self {
        Self { window: Arc::new(Mutex::new(Window { begun: Instant::now(), count: 0 })) }
    }
}

impl Crumbs {
    /// Counts one; says until when to read no more, if that was too many.
    fn count(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(window.begun) >= WINDOW {
            *window = Window { begun: now, count: 0 };
        }
        window.count += 1;
        (window.count > CRUMBS).then(|| window.begun + WINDOW)
    }
}

type Piece = Option<Result<Frame<Bytes>, hyper::Error>>;

/// A body that is read over a link.
pub(crate) struct Joined {
    body: Incoming,
    crumbs: Crumbs,
    /// What came after the pieces that were joined and is none of them.
    next: Option<Piece>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Joined {
    pub(crate) fn new(body: Incoming, crumbs: Crumbs) -> Self {
        Self { body, crumbs, next: None, pause: None }
    }

    /// What comes next, read over `link` as far as needed.
    pub(crate) fn poll(&mut self, mut link: Option<&mut Link>, cx: &mut Context<'_>) -> Poll<Piece> {
        if let Some(next) = self.next.take() {
            return Poll::Ready(next);
        }
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        let first = ready!(self.poll_piece(&mut link, cx));
        let Some(data) = small(first.as_ref()) else { return Poll::Ready(first) };
        // The usual answer is one piece.
        if self.is_crumb_too_many() || self.body.is_end_stream() {
            return Poll::Ready(first);
        }
        let mut joined = BytesMut::from(&data[..]);
        while joined.len() < JOINED && self.pause.is_none() {
            let Poll::Ready(next) = self.poll_piece(&mut link, cx) else { break };
            match small(next.as_ref()) {
                Some(data) => joined.extend_from_slice(data),
                None => {
                    self.next = Some(next);
                    break;
                }
            }
            self.is_crumb_too_many();
        }
        Poll::Ready(Some(Ok(Frame::data(joined.freeze()))))
    }

    fn is_crumb_too_many(&mut self) -> bool {
        let until = self.crumbs.count();
        self.pause = until.map(|until| Box::pin(tokio::time::sleep_until(until)));
        self.pause.is_some()
    }

    /// The body first, for what is there already; then the connection, for more; then the body again.
    fn poll_piece(&mut self, link: &mut Option<&mut Link>, cx: &mut Context<'_>) -> Poll<Piece> {
        if let Poll::Ready(piece) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(piece);
        }
        if let Some(link) = link {
            link.drive(cx);
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.next.is_none() && self.body.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        if self.next.is_none() { self.body.size_hint() } else { SizeHint::default() }
    }
}

/// The bytes of a small piece.
fn small(piece: Option<&Result<Frame<Bytes>, hyper::Error>>) -> Option<&Bytes> {
    let data = piece?.as_ref().ok()?.data_ref()?;
    (data.len() < SMALL).then_some(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn e14_small_pieces_of_one_sandbox_are_bounded_in_time() {
        let (one, other) = (Crumbs::default(), Crumbs::default());
        let shared = one.clone();
        let begun = Instant::now();
        let mut pauses = 0;
        for crumbs in [&one, &shared].into_iter().cycle().take(10 * CRUMBS as usize) {
            if let Some(until) = crumbs.count() {
                pauses += 1;
                tokio::time::sleep_until(until).await;
            }
        }
        assert_eq!((pauses, begun.elapsed()), (9, 9 * WINDOW));
        assert_eq!(other.count(), None);
        tokio::time::sleep(WINDOW).await;
        assert_eq!(one.count(), None);
    }
}

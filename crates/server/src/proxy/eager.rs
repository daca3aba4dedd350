//! Waiting for an answer that is about to come without falling asleep over it.
//!
//! A thread that sleeps is woken for a price: the CPU under it has gone to sleep too, and to wake that costs whoever does
//! it some 10 µs in a virtual machine, and the sleeper more before it runs; six such wake-ups were half of a command that
//! does nothing. A worker that has nothing else to do looks again and again instead, for as long as such a command takes
//! (docs/decisions/0012-waiting-awake.md, 0014-awake-for-programs.md).

use std::future::poll_fn;
use std::num::NonZero;
use std::pin::pin;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

/// How long is waited this way at most: what the shortest commands and code take with everybody asleep, on a machine in a
/// slow hour too, and less than anything that starts a program. A bound that such an answer may miss is worse than a long
/// one: missed once, the next is waited for asleep, takes longer for that, and misses it again.
const LONGEST: Duration = Duration::from_micros(600);

/// The same for a command, while no other answer is waited for: one that starts a program takes a millisecond and more, and
/// nobody is kept from the CPU. Other operations may be answered while what they have started starts, and wants it.
const LONGEST_ALONE: Duration = Duration::from_micros(1500);

/// How long at least, which is enough for `exec` of a builtin most of the time.
const SHORTEST: Duration = Duration::from_micros(200);

/// This process's: its servers share its workers.
static WAITERS: LazyLock<Waiters> = LazyLock::new(|| {
    let cpus = std::thread::available_parallelism().map_or(1, NonZero::get);
    Waiters { all: AtomicUsize::new(0), now: AtomicUsize::new(0), awake: cpus / 2 }
});

/// Who waits awake.
#[derive(Debug)]
struct Waiters {
    /// How many wait, asleep or awake.
    all: AtomicUsize,
    /// How many do so awake.
    now: AtomicUsize,
    /// How many there may be: as many as there are workers. The other half of the CPUs is the agents' (see
    /// [`crate::serve`]), who would only be held up; with one CPU, the very one that is waited for.
    awake: usize,
}

/// Counts as one that waits until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(all: &'a AtomicUsize) -> Self {
        all.fetch_add(1, Ordering::Relaxed);
        Self(all)
    }

    /// As one that waits awake; none if there are enough already.
    fn awake(waiters: &'a Waiters) -> Option<Self> {
        let this = Self(&waiters.now);
        (waiters.now.fetch_add(1, Ordering::Relaxed) < waiters.awake).then_some(this)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How soon one peer answers to requests of one kind.
#[derive(Debug)]
pub(crate) struct Pace {
    waiters: &'static Waiters,
    /// The longest time that one is waited for awake that nobody else waits beside.
    alone: Duration,
    /// How long its last answer took, in microseconds. One that took longer than the longest time is followed by one that
    /// is waited for asleep, and so is the first.
    last: AtomicU64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { waiters: &WAITERS, alone: LONGEST, last: AtomicU64::new(u64::MAX) }
    }
}

impl Pace {
    /// That of an agent's operation.
    pub(crate) fn of(operation: &str) -> Self {
        let alone = if operation == "exec" { LONGEST_ALONE } else { LONGEST };
        Self { alone, ..Self::default() }
    }

    /// Waits for the peer's answer: awake, if its last one came soon and few others are waited for so.
    pub(crate) async fn wait<T>(&self, answer: impl Future<Output = T>) -> T {
        let mut answer = pin!(answer);
        let _waiting = Waiting::begin(&self.waiters.all);
        let begun = Instant::now();
        if self.patience().is_some()
            && let Some(_awake) = Waiting::awake(self.waiters)
        {
            loop {
                if let Poll::Ready(answer) = poll_fn(|cx| Poll::Ready(answer.as_mut().poll(cx))).await {
                    self.took(begun.elapsed());
                    return answer;
                }
                // Shorter once there are others.
                if self.patience().is_none_or(|patience| begun.elapsed() > patience) {
                    break;
                }
                // Whoever else waits for this CPU goes first: it may be the one who is to answer.
                std::thread::yield_now();
                // What came meanwhile is looked at, and other tasks have their turn.
                tokio::task::yield_now().await;
            }
        }
        let answer = answer.await;
        self.took(begun.elapsed());
        answer
    }

    /// How long to wait awake, if at all: twice as long as the last answer took. One that takes longer still may be waiting
    /// for this very CPU.
    fn patience(&self) -> Option<Duration> {
        let last = Duration::from_micros(self.last.load(Ordering::Relaxed));
        let is_alone = self.waiters.all.load(Ordering::Relaxed) <= 1;
        let longest = if is_alone { self.alone } else { LONGEST };
        (last <= longest).then(|| (last * 2).clamp(SHORTEST, longest))
    }

    fn took(&self, time: Duration) {
        self.last.store(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    fn pace(awake: usize) -> Pace {
        let (all, now) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let waiters = Box::leak(Box::new(Waiters { all, now, awake }));
        Pace { waiters, ..Pace::of("exec") }
    }

    /// How often an answer is looked for that comes after `time`.
    async fn looks(pace: &Pace, time: Duration) -> usize {
        let mut looks = 0;
        let mut timer = pin!(tokio::time::sleep(time));
        let answer = poll_fn(|cx| {
            looks += 1;
            timer.as_mut().poll(cx)
        });
        pace.wait(answer).await;
        looks
    }

    async fn answer_soon(pace: &Pace) {
        // Again, if this thread was held up by others.
        while pace.patience().is_none() {
            pace.wait(async {}).await;
        }
    }

    const SLOW: Duration = Duration::from_millis(5);
    /// Once at the beginning and once when it has come.
    const ASLEEP: usize = 2;

    #[tokio::test]
    async fn only_who_answered_soon_is_waited_for_awake_and_not_for_long() {
        let pace = pace(1);
        // Nothing is known of it yet.
        assert_eq!(looks(&pace, SLOW).await, ASLEEP);
        answer_soon(&pace).await;
        assert!(looks(&pace, SLOW).await > ASLEEP);
        // It is slow now.
        assert_eq!(looks(&pace, SLOW).await, ASLEEP);
    }

    #[test]
    fn an_answer_is_given_twice_the_time_of_the_last_one() {
        let pace = pace(1);
        let patience = |pace: &Pace, last: u64| {
            pace.took(Duration::from_micros(last));
            pace.patience().map(|patience| patience.as_micros())
        };
        for (last, expected) in [(0, 200), (90, 200), (150, 300), (700, 1400), (1500, 1500)] {
            assert_eq!(patience(&pace, last), Some(expected), "alone, after {last}");
        }
        assert_eq!(patience(&pace, 1501), None);
        let other = Pace { waiters: pace.waiters, ..Pace::of("startProcess") };
        assert_eq!((patience(&other, 600), patience(&other, 601)), (Some(600), None));
        let _others = [Waiting::begin(&pace.waiters.all), Waiting::begin(&pace.waiters.all)];
        for (last, expected) in [(150, 300), (301, 600), (600, 600)] {
            assert_eq!(patience(&pace, last), Some(expected), "beside others, after {last}");
        }
        assert_eq!(patience(&pace, 601), None);
    }

    #[tokio::test]
    async fn only_so_many_are_waited_for_awake() {
        let pace = pace(1);
        answer_soon(&pace).await;
        let other = Waiting::awake(pace.waiters).unwrap();
        assert_eq!(looks(&pace, SLOW).await, ASLEEP);
        drop(other);
        answer_soon(&pace).await;
        assert!(looks(&pace, SLOW).await > ASLEEP);
    }

    #[tokio::test]
    async fn other_tasks_of_the_thread_have_their_turn() {
        let pace = pace(1);
        answer_soon(&pace).await;
        let (tell, told) = oneshot::channel();
        tokio::spawn(async move { tell.send(7) });
        assert_eq!(pace.wait(told).await, Ok(7));
    }
}

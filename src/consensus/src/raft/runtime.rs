//! tokio as openraft's runtime, with the clocks of all groups ticking together.
//!
//! Every group has a tick, a fifth of its heartbeat interval apart, and openraft spreads those of
//! many groups over time so that a thousand of them do not crowd. trine has eight: spread, they
//! wake an idle node two hundred times a second, together a dozen times
//! (docs/decisions/0018-one-clock-for-all-groups.md).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};
use std::time::Duration;

use openraft::{AsyncRuntime, OptionalSend};
use openraft_rt_tokio::{TokioInstant, TokioRuntime};
use tokio::time::Sleep;

/// Waits of openraft end at multiples of this. Ticks may come so much late, so a heartbeat may,
/// too: of 200 ms it makes 240. The lowest `raft.heartbeat_ms` allowed is above it.
const GRID: Duration = Duration::from_millis(80);

/// How long openraft waits to gather what else has been written. tokio's timer counts
/// milliseconds, which would be a thousand times that: so short a wait gives turns to other tasks.
const SHORT: Duration = Duration::from_micros(1);
/// After so many turns the timer takes over: simulated time stands still while tasks take turns.
const MOST_TURNS: u8 = 16;

static ORIGIN: LazyLock<TokioInstant> = LazyLock::new(<TokioInstant as openraft::Instant>::now);

/// How long after `since` a wait of `wait`, begun then, ends; `since` counts from the origin.
fn on_grid(since: Duration, wait: Duration) -> Duration {
    let end = (since + wait).as_micros();
    let cells = end.div_ceil(GRID.as_micros());
    let micros = cells.saturating_mul(GRID.as_micros());
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)).saturating_sub(since)
}

/// tokio, but [`AsyncRuntime::sleep_until`] ends on a grid that all groups of the process share.
pub struct Runtime(TokioRuntime);

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A wait that never ends early: openraft's ticks compute the next one from when the last ended,
/// and one before its time would be due again at once.
pub enum Wait {
    Timer(Pin<Box<Sleep>>),
    Turns { until: TokioInstant, left: u8 },
}

impl Future for Wait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if let Self::Turns { until, left } = &mut *self {
            if <TokioInstant as openraft::Instant>::now() >= *until {
                return Poll::Ready(());
            }
            if let Some(fewer) = left.checked_sub(1) {
                *left = fewer;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let until = *until;
            *self = Self::Timer(Box::pin(TokioRuntime::sleep_until(until)));
        }
        match &mut *self {
            Self::Timer(sleep) => sleep.as_mut().poll(context),
            Self::Turns { .. } => Poll::Pending,
        }
    }
}

impl AsyncRuntime for Runtime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = Wait;
    type Instant = TokioInstant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> =
        <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <TokioRuntime as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        Wait::Timer(Box::pin(TokioRuntime::sleep(duration)))
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        let now = <TokioInstant as openraft::Instant>::now();
        let wait = deadline - now;
        if wait <= SHORT {
            return Wait::Turns { until: deadline, left: MOST_TURNS };
        }
        let end = now + on_grid(now - *ORIGIN, wait);
        Wait::Timer(Box::pin(TokioRuntime::sleep_until(end)))
    }

    fn timeout<R, F>(duration: Duration, future: F) -> Self::Timeout<R, F>
    where
        F: Future<Output = R> + OptionalSend,
    {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F>
    where
        F: Future<Output = R> + OptionalSend,
    {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        TokioRuntime::thread_rng()
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_end_on_the_grid_and_never_early() {
        for since in (0..200).map(Duration::from_millis) {
            for wait in (1..100).map(Duration::from_millis) {
                let after = on_grid(since, wait);
                assert!(after >= wait && after < wait + GRID, "{since:?} {wait:?} {after:?}");
                assert_eq!((since + after).as_micros() % GRID.as_micros(), 0);
            }
        }
    }

    /// A wait that ended before its time once kept a simulation at one moment for ever.
    #[tokio::test(start_paused = true)]
    async fn short_waits_end_when_time_stands_still_and_never_early() {
        for nanos in [0, 1, 999, 1_000] {
            let now = <TokioInstant as openraft::Instant>::now();
            let until = now + Duration::from_nanos(nanos);
            Runtime::sleep_until(until).await;
            let waited = <TokioInstant as openraft::Instant>::now() - now;
            assert!(waited >= until - now && waited <= Duration::from_millis(2), "{waited:?}");
        }
    }

    #[test]
    fn it_is_what_openraft_expects_of_a_runtime() {
        openraft_rt::testing::Suite::<Runtime>::test_all();
    }
}

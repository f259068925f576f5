//! Tasks that end with their owner.
//!
//! Every async task of a node belongs to a [`TaskGroup`] and has a name. Shutdown cancels the
//! group's token, then waits for every task; a task must therefore watch [`TaskGroup::stopped`]
//! or be safe to drop at any await point, because [`TaskGroup::spawn`] drops it on shutdown.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt as _;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

/// Runs work that may wait for a disk where the caller is async code that cannot: on a runtime
/// with several workers the others' tasks go on meanwhile.
pub fn may_wait<T>(work: impl FnOnce() -> T) -> T {
    let flavor = tokio::runtime::Handle::try_current().map(|handle| handle.runtime_flavor());
    match flavor {
        Ok(tokio::runtime::RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        // A thread of its own, or a simulation.
        _ => work(),
    }
}

/// A set of named tasks with one shutdown signal. Cloning shares the set.
#[derive(Clone, Debug, Default)]
pub struct TaskGroup {
    token: CancellationToken,
    tracker: TaskTracker,
}

impl TaskGroup {
    /// A group without tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `future` until it ends or the group stops; on stop it is dropped where it awaits.
    /// A panic is logged as an error and does not end the group.
    pub fn spawn<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let token = self.token.clone();
        self.run(name, async move {
            tokio::select! {
                biased;
                () = token.cancelled() => {}
                () = future => {}
            }
        });
    }

    /// Runs `future` to its end even while the group stops; it must watch [`Self::stopped`].
    pub fn spawn_graceful<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.run(name, future);
    }

    #[expect(clippy::disallowed_methods, reason = "this is the place that spawns")]
    fn run<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // A dead task must not be silent. Shared state behind a panic is guarded by locks that
        // do not poison; what it left half done is the panicking code's bug either way.
        let guarded = AssertUnwindSafe(future).catch_unwind();
        tokio::spawn(self.tracker.track_future(async move {
            if let Err(panic) = guarded.await {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                error!(task = name, "task panicked: {}", text.unwrap_or("no message"));
            }
        }));
    }

    /// Resolves once the group was told to stop. Cancel-safe.
    pub fn stopped(&self) -> WaitForCancellationFuture<'_> {
        self.token.cancelled()
    }

    /// Whether the group was told to stop.
    pub fn is_stopped(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Tells every task to stop, without waiting.
    pub fn stop(&self) {
        self.token.cancel();
    }

    /// Tells every task to stop and waits up to `patience` for them to end.
    pub async fn shutdown(&self, patience: Duration) {
        self.token.cancel();
        self.tracker.close();
        if tokio::time::timeout(patience, self.tracker.wait()).await.is_err() {
            warn!(tasks = self.tracker.len(), "tasks still running after shutdown");
        }
    }
}

/// Starts a named operating-system thread for blocking work (disk, SSH).
pub fn thread<F, T>(name: &str, body: F) -> std::thread::JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    std::thread::Builder::new()
        .name(name.chars().take(15).collect())
        .spawn(body)
        .expect("the system can start a thread at start-up")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn shutdown_drops_waiting_tasks() {
        let group = TaskGroup::new();
        group.spawn("forever", std::future::pending());
        group.shutdown(Duration::from_secs(5)).await;
        assert!(group.is_stopped());
        assert_eq!(group.tracker.len(), 0);
    }
}

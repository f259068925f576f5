//! Counters of what was let in and what was refused, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts since the node started.
#[derive(Debug, Default)]
pub struct Audit {
    authenticated: AtomicU64,
    refused: AtomicU64,
    handshakes_failed: AtomicU64,
    denied: AtomicU64,
    throttled: AtomicU64,
    throttled_ms: AtomicU64,
}

/// A copy of the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Clients that proved who they are.
    pub authenticated: u64,
    /// Clients that did not.
    pub refused: u64,
    /// TLS handshakes that failed or took too long.
    pub handshakes_failed: u64,
    /// Actions that access control denied.
    pub denied: u64,
    /// Responses whose client was made to wait by a quota.
    pub throttled: u64,
    /// How long those clients were made to wait, in milliseconds.
    pub throttled_ms: u64,
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

impl Audit {
    /// A client proved who it is.
    pub fn authenticated(&self) {
        add(&self.authenticated, 1);
    }

    /// A client did not.
    pub fn refused(&self) {
        add(&self.refused, 1);
    }

    /// A TLS handshake failed.
    pub fn handshake_failed(&self) {
        add(&self.handshakes_failed, 1);
    }

    /// An action was denied.
    pub fn denied(&self) {
        add(&self.denied, 1);
    }

    /// A client was made to wait.
    pub fn throttled(&self, wait: Duration) {
        add(&self.throttled, 1);
        add(&self.throttled_ms, u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
    }

    /// The counters now.
    pub fn counts(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            authenticated: get(&self.authenticated),
            refused: get(&self.refused),
            handshakes_failed: get(&self.handshakes_failed),
            denied: get(&self.denied),
            throttled: get(&self.throttled),
            throttled_ms: get(&self.throttled_ms),
        }
    }
}

//! The budget of records on their way to clients.
//!
//! Records read from disk stay in memory until their client has taken them, and a client may take
//! its time. Nobody waits for the budget, or a few sleepers would stop everybody: the less is
//! left, the smaller a response becomes, down to [`MIN_FETCH_BYTES`]. Only a batch that is larger
//! than that waits, once such batches have taken as much as the budget again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::OwnedSemaphorePermit;

use crate::limits::{FETCH_SHARE, MIN_FETCH_BYTES};

/// Bytes of records held for responses, of all connections.
#[derive(Debug)]
pub(crate) struct Outgoing {
    limit: usize,
    held: AtomicUsize,
}

impl Outgoing {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, held: AtomicUsize::new(0) })
    }

    fn grant(&self, held: usize, wanted: usize) -> usize {
        let left = self.limit.saturating_sub(held);
        wanted.min((left / FETCH_SHARE).max(MIN_FETCH_BYTES))
    }

    /// Whether single batches larger than what their fetches were granted have taken so much
    /// that no further one may.
    pub(crate) fn is_over(&self) -> bool {
        self.held.load(Ordering::Relaxed) > 2 * self.limit
    }

    /// Takes a part of what is left, at most `wanted` bytes.
    pub(crate) fn reserve(self: &Arc<Self>, wanted: usize) -> Held {
        let mut bytes = 0;
        // Never fails: the closure always gives a value.
        let _ = self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            bytes = self.grant(held, wanted);
            Some(held.saturating_add(bytes))
        });
        Held { outgoing: self.clone(), bytes }
    }
}

/// What a request holds of the budgets, until its answer is on its way.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    /// Of the budget of requests, for the bytes that came.
    pub(crate) request: Option<OwnedSemaphorePermit>,
    /// Of the budget of records, for those that go.
    pub(crate) records: Option<Held>,
}

/// Part of the budget; comes back when dropped.
#[derive(Debug)]
pub(crate) struct Held {
    outgoing: Arc<Outgoing>,
    bytes: usize,
}

impl Held {
    /// How many bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// So many bytes were read. A single batch may be larger than what was reserved.
    pub(crate) fn set(&mut self, bytes: usize) {
        self.outgoing.held.fetch_add(bytes, Ordering::Relaxed);
        self.outgoing.held.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.outgoing.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use base::limits::MIB;

    use super::*;

    #[test]
    fn responses_become_smaller_as_the_budget_shrinks() {
        let outgoing = Outgoing::new(256 * MIB);
        let all: Vec<Held> = (0..1000).map(|_| outgoing.reserve(55 * MIB)).collect();
        assert_eq!(all[0].bytes(), 32 * MIB);
        assert!(all[1].bytes() < all[0].bytes());
        assert_eq!(all[999].bytes(), MIN_FETCH_BYTES, "nobody waits");
        let total: usize = all.iter().map(Held::bytes).sum();
        assert!(total <= 256 * MIB + 1000 * MIN_FETCH_BYTES);
        drop(all);
        assert_eq!(outgoing.reserve(1000).bytes(), 1000);
    }

    #[test]
    fn what_was_read_counts() {
        let outgoing = Outgoing::new(256 * MIB);
        let mut held = outgoing.reserve(32 * MIB);
        held.set(10);
        assert_eq!(outgoing.held.load(Ordering::Relaxed), 10);
        held.set(MIB);
        drop(held);
        assert_eq!(outgoing.held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn large_batches_go_beyond_the_budget_only_so_far() {
        let outgoing = Outgoing::new(256 * MIB);
        let mut batches: Vec<Held> = Vec::new();
        while !outgoing.is_over() {
            let mut held = outgoing.reserve(MIB);
            held.set(16 * MIB);
            batches.push(held);
        }
        assert_eq!(batches.len(), 33);
        batches.pop();
        assert!(!outgoing.is_over());
    }
}

//! What all shards of a node share: memory of Tantivy writers, and of operations that searchers
//! do not have yet.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::limits::{NODE_WRITER_BYTES, SHARD_WRITER_BYTES, SMALLEST_WRITER_BYTES};

/// How often whoever waits looks whether it still should.
const LOOK: Duration = Duration::from_millis(200);

/// Memory of a node's Tantivy writers. A feeder leases its writer's share before it makes one;
/// when nothing is left, feeders take turns in the order they came.
pub(crate) struct WriterBudget {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    free: usize,
    next_ticket: u64,
    /// Who waits, first come first.
    waiting: VecDeque<u64>,
}

impl Default for WriterBudget {
    fn default() -> Self {
        let state = State { free: NODE_WRITER_BYTES, next_ticket: 0, waiting: VecDeque::new() };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }
}

/// A writer's share, given back when dropped.
pub(crate) struct WriterLease {
    budget: Arc<WriterBudget>,
    /// Memory that the writer may use.
    pub(crate) bytes: usize,
}

impl WriterBudget {
    /// Waits for a share; `None` once `given_up` says so.
    pub(crate) fn lease(self: &Arc<Self>, given_up: impl Fn() -> bool) -> Option<WriterLease> {
        let mut state = self.state.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.waiting.push_back(ticket);
        loop {
            if state.waiting.front() == Some(&ticket) && state.free >= SMALLEST_WRITER_BYTES {
                let bytes = state.free.min(SHARD_WRITER_BYTES);
                state.free -= bytes;
                state.waiting.pop_front();
                self.changed.notify_all();
                return Some(WriterLease { budget: self.clone(), bytes });
            }
            if given_up() {
                state.waiting.retain(|t| *t != ticket);
                self.changed.notify_all();
                return None;
            }
            // The time-out only makes a closed copy noticed.
            self.changed.wait_for(&mut state, LOOK);
        }
    }

    /// Whether somebody waits for a share.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.state.lock().waiting.is_empty()
    }
}

impl Drop for WriterLease {
    fn drop(&mut self) {
        self.budget.state.lock().free += self.bytes;
        self.budget.changed.notify_all();
    }
}

/// Bytes of operations that were applied and that searchers of this node do not have yet.
#[derive(Debug, Default)]
pub(crate) struct NodeLag(AtomicUsize);

impl NodeLag {
    /// Bytes now.
    pub(crate) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// A copy held `before` bytes and now holds `after`.
    pub(crate) fn change(&self, before: usize, after: usize) {
        if after >= before {
            self.0.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.0.fetch_sub(before - after, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_never_exceed_the_nodes_memory_and_are_given_in_turn() {
        let budget = Arc::new(WriterBudget::default());
        let mut held = Vec::new();
        while held.iter().map(|l: &WriterLease| l.bytes).sum::<usize>() < NODE_WRITER_BYTES {
            held.push(budget.lease(|| false).unwrap());
        }
        assert!(
            held.iter().all(|l| (SMALLEST_WRITER_BYTES..=SHARD_WRITER_BYTES).contains(&l.bytes))
        );
        assert!(budget.lease(|| true).is_none());
        assert!(!budget.is_wanted());
        let (order, done) = std::sync::mpsc::channel();
        let mut threads = Vec::new();
        for number in 0..3 {
            let (own, order) = (budget.clone(), order.clone());
            threads.push(base::task::thread("waits", move || {
                let lease = own.lease(|| false).unwrap();
                order.send(number).unwrap();
                drop(lease);
            }));
            while budget.state.lock().waiting.len() <= number {
                std::thread::yield_now();
            }
        }
        assert!(budget.is_wanted());
        held.pop();
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(done.try_iter().collect::<Vec<_>>(), [0, 1, 2]);
    }
}

//! Searchers kept between the phases of a search, and for scrolls and points in time.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::error::{EsError, Result};
use crate::limits;
use crate::shard::ShardSnapshot;

/// Snapshots by id, each with a moment when it is forgotten. Times are the caller's milliseconds.
#[derive(Default)]
pub struct Snapshots {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    held: BTreeMap<u64, (ShardSnapshot, i64)>,
}

impl Snapshots {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps a snapshot for `keep_ms`. At the limit the search is refused.
    pub fn put(&self, snapshot: ShardSnapshot, now_ms: i64, keep_ms: i64) -> Result<u64> {
        let mut state = self.state.lock();
        state.held.retain(|_, (_, until)| *until > now_ms);
        if state.held.len() >= limits::MAX_SNAPSHOTS {
            return Err(EsError::new(
                429,
                "rejected_execution_exception",
                format!("too many open searches, at most [{}]", limits::MAX_SNAPSHOTS),
            ));
        }
        state.next += 1;
        let id = state.next;
        state.held.insert(id, (snapshot, now_ms + keep_ms));
        Ok(id)
    }

    /// A snapshot, kept for `keep_ms` from now on.
    pub fn get(&self, id: u64, now_ms: i64, keep_ms: i64) -> Result<ShardSnapshot> {
        let mut state = self.state.lock();
        match state.held.get_mut(&id) {
            Some((snapshot, until)) if *until > now_ms => {
                *until = (*until).max(now_ms + keep_ms);
                Ok(snapshot.clone())
            }
            _ => Err(EsError::new(
                404,
                "search_context_missing_exception",
                format!("No search context found for id [{id}]"),
            )),
        }
    }

    /// Forgets a snapshot; says whether it was there.
    pub fn remove(&self, id: u64) -> bool {
        self.state.lock().held.remove(&id).is_some()
    }

    /// Forgets what has expired and counts the rest.
    pub fn expire(&self, now_ms: i64) -> usize {
        let mut state = self.state.lock();
        state.held.retain(|_, (_, until)| *until > now_ms);
        state.held.len()
    }
}

//! Fetch sessions (KIP-227): a client names its partitions once and then only what changes.
//!
//! Every node has a cache of its own, independent of connections. It holds as many sessions as
//! Kafka's (`max.incremental.fetch.session.cache.slots`) and is bounded in bytes too; a request
//! that finds no room is answered without a session, and its client sends whole requests. Who may
//! push out whom follows Kafka's rule for clients: a session unused for two minutes gives way;
//! else one that is older than that and has fewer partitions than the new one.
//!
//! Locks: a session's may be held while the cache's is taken, never the other way round.

mod session;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::Env;
use parking_lot::Mutex;

pub(crate) use session::{Found, Look, Session, TopicKey, Which};

use crate::codec::messages::FetchRequest;
use crate::errors;
use crate::limits::{FETCH_SESSION_EVICTION, MAX_FETCH_SESSION_BYTES};

/// No session.
pub(crate) const NO_SESSION: i32 = 0;
/// The epoch of a request that begins a session.
const INITIAL_EPOCH: i32 = 0;
/// The epoch of a request that wants no session, and ends one it names.
const FINAL_EPOCH: i32 = -1;
/// Fetch 13 names topics by id.
const BY_ID: i16 = 13;

/// The epoch after a session's.
pub(crate) fn next_epoch(epoch: i32) -> i32 {
    match epoch {
        ..0 => FINAL_EPOCH,
        i32::MAX => 1,
        _ => epoch + 1,
    }
}

/// What a request is in the protocol of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A whole request; its session may be kept.
    Begins,
    /// A whole request whose session may not be kept.
    Alone,
    /// The next request of a session, in this epoch.
    Continues(i32),
}

/// A request's session.
pub(crate) struct Context {
    pub(crate) kind: Kind,
    pub(crate) session: Arc<Mutex<Session>>,
}

struct Entry {
    session: Arc<Mutex<Session>>,
    created_ms: u64,
    used_ms: u64,
    /// Partitions and bytes when it was used last.
    size: usize,
    bytes: usize,
}

#[derive(Default)]
struct Cache {
    entries: HashMap<i32, Entry>,
    /// By last use.
    by_use: BTreeSet<(u64, i32)>,
    /// Sessions that a larger one may push out, by size.
    by_size: BTreeSet<(usize, i32)>,
    partitions: usize,
    bytes: usize,
}

impl Cache {
    fn remove(&mut self, id: i32) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        self.by_use.remove(&(entry.used_ms, id));
        self.by_size.remove(&(entry.size, id));
        self.partitions -= entry.size;
        self.bytes -= entry.bytes;
        Some(entry)
    }

    fn insert(&mut self, id: i32, entry: Entry) {
        self.by_use.insert((entry.used_ms, id));
        let old = entry.used_ms.saturating_sub(entry.created_ms) > eviction_ms();
        if old {
            self.by_size.insert((entry.size, id));
        }
        self.partitions += entry.size;
        self.bytes += entry.bytes;
        self.entries.insert(id, entry);
    }

    /// Makes room for a session of `size` partitions.
    fn evict(&mut self, size: usize, now_ms: u64) -> Option<Entry> {
        let (used_ms, oldest) = *self.by_use.first()?;
        if now_ms.saturating_sub(used_ms) > eviction_ms() {
            return self.remove(oldest);
        }
        let (smallest, id) = *self.by_size.first()?;
        if size > smallest { self.remove(id) } else { None }
    }
}

fn eviction_ms() -> u64 {
    u64::try_from(FETCH_SESSION_EVICTION.as_millis()).unwrap_or(u64::MAX)
}

/// What the cache holds, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SessionStats {
    pub(crate) sessions: usize,
    pub(crate) partitions: usize,
    pub(crate) evictions: u64,
}

/// The fetch sessions of a node.
pub(crate) struct Sessions {
    slots: usize,
    env: Env,
    cache: Mutex<Cache>,
    evictions: AtomicU64,
}

impl Sessions {
    /// A cache for `slots` sessions; 0 for none.
    pub(crate) fn new(slots: usize, env: Env) -> Self {
        Self { slots, env, cache: Mutex::default(), evictions: AtomicU64::new(0) }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.env.clock.monotonic().as_millis()).unwrap_or(u64::MAX)
    }

    /// The session of a request, or the error code that answers it.
    pub(crate) fn begin(
        &self,
        request: &FetchRequest,
        version: i16,
    ) -> Result<Context, errors::Code> {
        let by_id = version >= BY_ID;
        let (id, epoch) = (request.session_id, request.session_epoch);
        if epoch == INITIAL_EPOCH || epoch == FINAL_EPOCH {
            // A whole request ends the session that it names.
            let gone = self.cache.lock().remove(id);
            drop(gone);
            let mut session = Session::new(by_id);
            session.update(&request.topics, &[]);
            let kind = if epoch == INITIAL_EPOCH { Kind::Begins } else { Kind::Alone };
            return Ok(Context { kind, session: Arc::new(Mutex::new(session)) });
        }
        let known = self.cache.lock().entries.get(&id).map(|entry| entry.session.clone());
        let shared = known.ok_or(errors::FETCH_SESSION_ID_NOT_FOUND)?;
        let mut session = shared.lock();
        if session.epoch != epoch {
            return Err(errors::INVALID_FETCH_SESSION_EPOCH);
        }
        if session.by_id != by_id {
            return Err(errors::FETCH_SESSION_TOPIC_ID_ERROR);
        }
        session.update(&request.topics, &request.forgotten_topics_data);
        if session.len() == 0 {
            drop(session);
            let gone = self.cache.lock().remove(id);
            drop(gone);
            return Ok(Context { kind: Kind::Alone, session: shared });
        }
        if !self.touch(id, session.len(), session.bytes()) {
            return Err(errors::FETCH_SESSION_ID_NOT_FOUND);
        }
        session.epoch = next_epoch(epoch);
        drop(session);
        Ok(Context { kind: Kind::Continues(epoch), session: shared })
    }

    /// Notes the use of a session; false when it is there no longer, or has grown too large.
    fn touch(&self, id: i32, size: usize, bytes: usize) -> bool {
        let used_ms = self.now_ms();
        let mut cache = self.cache.lock();
        let Some(entry) = cache.remove(id) else { return false };
        if cache.bytes.saturating_add(bytes) > MAX_FETCH_SESSION_BYTES {
            self.evictions.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        cache.insert(id, Entry { used_ms, size, bytes, ..entry });
        true
    }

    /// Keeps a session that a whole request began, if there is room; returns its id.
    pub(crate) fn keep(&self, shared: &Arc<Mutex<Session>>) -> i32 {
        let mut session = shared.lock();
        let (size, bytes) = (session.len(), session.bytes());
        let now_ms = self.now_ms();
        let mut cache = self.cache.lock();
        let full = |cache: &Cache| {
            cache.entries.len() >= self.slots || cache.bytes + bytes > MAX_FETCH_SESSION_BYTES
        };
        let mut gone = None;
        if full(&cache) && self.slots > 0 {
            gone = cache.evict(size, now_ms);
            self.evictions.fetch_add(u64::from(gone.is_some()), Ordering::Relaxed);
        }
        if full(&cache) {
            return NO_SESSION;
        }
        let id = self.new_id(&cache);
        (session.id, session.epoch) = (id, next_epoch(INITIAL_EPOCH));
        let (created_ms, used_ms) = (now_ms, now_ms);
        let session = shared.clone();
        cache.insert(id, Entry { session, created_ms, used_ms, size, bytes });
        drop(cache);
        // Its watches go one by one, which nobody else should wait for.
        drop(gone);
        id
    }

    fn new_id(&self, cache: &Cache) -> i32 {
        loop {
            let bits = self.env.random.next_u64() & u64::from(i32::MAX.unsigned_abs());
            match i32::try_from(bits) {
                Ok(id) if id != NO_SESSION && !cache.entries.contains_key(&id) => return id,
                _ => {}
            }
        }
    }

    /// What the cache holds.
    pub(crate) fn stats(&self) -> SessionStats {
        let cache = self.cache.lock();
        SessionStats {
            sessions: cache.entries.len(),
            partitions: cache.partitions,
            evictions: self.evictions.load(Ordering::Relaxed),
        }
    }
}

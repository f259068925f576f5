//! The log of one group in memory: where each entry lies, and the bodies of the newest ones.
//!
//! An entry costs 12 bytes plus its share of a run (one per change of term or leader). Entries
//! that were not written yet are always cached; the cache is a suffix of the log.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::LogPos;

/// Where a record lies. File 0 means: not written yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) file: u32,
    pub(crate) offset: u32,
    /// Length of the body.
    pub(crate) len: u32,
}

/// Entries from `first` on were written by this leader in this term.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: u64,
    term: u64,
    node: u64,
}

#[derive(Clone, Debug)]
struct Cached {
    body: Bytes,
    /// Place of its record in the queue: tells an entry from a truncated one of the same index.
    serial: u64,
}

/// Log and vote of one group as its owner sees them: what is queued counts as done.
#[derive(Debug, Default)]
pub(crate) struct GroupLog {
    pub(crate) vote: Option<Bytes>,
    pub(crate) committed: Option<LogPos>,
    /// The committed position may be written once all records below this serial are.
    pub(crate) committed_serial: u64,
    pub(crate) committed_dirty: bool,
    pub(crate) purged: Option<LogPos>,
    /// Applied index whose state is durable elsewhere.
    pub(crate) checkpointed: Option<u64>,
    /// Entries below this index are written, and below the second also synced.
    pub(crate) written_next: u64,
    pub(crate) durable_next: u64,
    /// Bytes of the bodies in the cache.
    pub(crate) cache_bytes: usize,
    /// Bytes of the bodies of all entries.
    pub(crate) bytes: u64,
    first: u64,
    slots: VecDeque<Slot>,
    runs: VecDeque<Run>,
    cache: VecDeque<Cached>,
}

impl GroupLog {
    /// Index of the first entry.
    pub(crate) fn first(&self) -> Option<u64> {
        (!self.slots.is_empty()).then_some(self.first)
    }

    /// Index above the last entry; the place where the next one must go. `None`: anywhere.
    pub(crate) fn next(&self) -> Option<u64> {
        if self.slots.is_empty() {
            return self.purged.map(|p| p.index + 1);
        }
        Some(self.first + self.slots.len() as u64)
    }

    /// The last entry, or else the last purged one.
    pub(crate) fn last(&self) -> Option<LogPos> {
        match self.next() {
            Some(next) if !self.slots.is_empty() => self.pos_at(next - 1),
            _ => self.purged,
        }
    }

    /// Position of the entry with this index, or of the last purged one.
    pub(crate) fn pos_at(&self, index: u64) -> Option<LogPos> {
        if let Some(purged) = self.purged
            && purged.index == index
        {
            return Some(purged);
        }
        self.slot(index)?;
        let run = self.runs[self.runs.partition_point(|run| run.first <= index) - 1];
        Some(LogPos { term: run.term, node: run.node, index })
    }

    /// Where the entry with this index lies.
    pub(crate) fn slot(&self, index: u64) -> Option<Slot> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.slots.get(at).copied()
    }

    /// The cached body of the entry with this index.
    pub(crate) fn cached(&self, index: u64) -> Option<&Bytes> {
        Some(&self.cache.get(self.cache_at(index)?)?.body)
    }

    fn cache_at(&self, index: u64) -> Option<usize> {
        let first = self.first + (self.slots.len() - self.cache.len()) as u64;
        usize::try_from(index.checked_sub(first)?).ok()
    }

    /// The first of `from..=to`, the first of each run in it, and the last.
    pub(crate) fn key_positions(&self, from: u64, to: u64) -> Vec<LogPos> {
        let mut keys: Vec<LogPos> = self.pos_at(from).into_iter().collect();
        let inner =
            self.runs.iter().map(|run| run.first).filter(|first| (from..=to).contains(first));
        for index in inner.chain([to]) {
            let pos = self.pos_at(index);
            // A run may begin below the first entry and the range end above the last.
            if let Some(pos) = pos
                && pos.index <= to
                && keys.last().is_none_or(|last| last.index < pos.index)
            {
                keys.push(pos);
            }
        }
        keys
    }

    /// Adds an entry at the end. Its index must be [`GroupLog::next`].
    pub(crate) fn push(&mut self, pos: LogPos, body: Bytes, serial: u64) {
        let slot = Slot { file: 0, offset: 0, len: body.len() as u32 };
        self.push_slot(pos, slot);
        self.cache_bytes += body.len();
        self.cache.push_back(Cached { body, serial });
    }

    /// As `push`, for an entry that is found written; nothing may be cached.
    pub(crate) fn push_slot(&mut self, pos: LogPos, slot: Slot) {
        assert!(self.next().is_none_or(|next| next == pos.index), "entries are consecutive");
        if self.slots.is_empty() {
            self.first = pos.index;
            self.runs.clear();
        }
        let same = |run: &Run| run.term == pos.term && run.node == pos.node;
        if !self.runs.back().is_some_and(same) {
            self.runs.push_back(Run { first: pos.index, term: pos.term, node: pos.node });
        }
        self.bytes += u64::from(slot.len);
        self.slots.push_back(slot);
    }

    /// Removes all entries above `index`; `None`: all entries.
    pub(crate) fn truncate_after(&mut self, index: Option<u64>) {
        let keep_next = index.map_or(0, |i| i.saturating_add(1));
        let keep = usize::try_from(keep_next.saturating_sub(self.first)).unwrap_or(usize::MAX);
        while self.slots.len() > keep {
            let slot = self.slots.pop_back().unwrap_or_default();
            self.bytes -= u64::from(slot.len);
            if let Some(cached) = self.cache.pop_back() {
                self.cache_bytes -= cached.body.len();
            }
        }
        let next = self.next().unwrap_or(0);
        while self.runs.back().is_some_and(|run| run.first >= next) {
            self.runs.pop_back();
        }
        self.written_next = self.written_next.min(next);
        self.durable_next = self.durable_next.min(next);
    }

    /// Removes all entries up to and including `upto`, which may lie above the last one. A
    /// lower position than before changes nothing.
    pub(crate) fn purge(&mut self, upto: LogPos) {
        if self.purged.is_some_and(|p| p.index >= upto.index) {
            return;
        }
        while self.slots.front().is_some() && self.first <= upto.index {
            let slot = self.slots.pop_front().unwrap_or_default();
            self.bytes -= u64::from(slot.len);
            if self.cache.len() > self.slots.len() {
                self.evict();
            }
            self.first += 1;
        }
        while self.runs.get(1).is_some_and(|run| run.first <= self.first) {
            self.runs.pop_front();
        }
        if self.slots.is_empty() {
            self.runs.clear();
        }
        self.purged = Some(upto);
    }

    /// Notes where an entry was written. Ignored when the entry was truncated, purged or
    /// replaced since it was queued with this serial. Returns whether it is still the entry.
    pub(crate) fn written(&mut self, index: u64, serial: u64, place: Slot) -> bool {
        let cached = self.cache_at(index).and_then(|at| self.cache.get(at));
        if cached.is_none_or(|cached| cached.serial != serial) {
            return false;
        }
        let at = usize::try_from(index - self.first).unwrap_or(usize::MAX);
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = place;
        }
        self.written_next = self.written_next.max(index + 1);
        true
    }

    /// Age of the oldest cached body that may be evicted; lower is older.
    pub(crate) fn oldest_cached(&self) -> Option<u64> {
        let oldest = self.cache.front()?;
        let slot = self.slots[self.slots.len() - self.cache.len()];
        (slot.file != 0).then_some(oldest.serial)
    }

    /// Drops the oldest cached body.
    pub(crate) fn evict(&mut self) {
        if let Some(cached) = self.cache.pop_front() {
            self.cache_bytes -= cached.body.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pos(term: u64, index: u64) -> LogPos {
        LogPos { term, node: term * 10, index }
    }

    fn log(terms: &[u64]) -> GroupLog {
        let mut log = GroupLog::default();
        for (index, term) in terms.iter().enumerate() {
            log.push(pos(*term, index as u64), Bytes::from(vec![0; 10]), index as u64);
        }
        log
    }

    fn keys(log: &GroupLog, from: u64, to: u64) -> Vec<(u64, u64)> {
        log.key_positions(from, to).into_iter().map(|p| (p.term, p.index)).collect()
    }

    #[test]
    fn positions_come_from_runs() {
        let log = log(&[1, 1, 2, 2, 2, 5]);
        assert_eq!(log.last(), Some(pos(5, 5)));
        assert_eq!(log.pos_at(1), Some(pos(1, 1)));
        assert_eq!(log.pos_at(4), Some(pos(2, 4)));
        assert_eq!(log.pos_at(6), None);
        assert_eq!(keys(&log, 0, 5), [(1, 0), (2, 2), (5, 5)]);
        assert_eq!(keys(&log, 1, 4), [(1, 1), (2, 2), (2, 4)]);
        assert_eq!(keys(&log, 3, 3), [(2, 3)]);
    }

    #[test]
    fn truncation_cuts_entries_runs_and_durability() {
        let mut log = log(&[1, 1, 2, 2]);
        for i in 0..4 {
            assert!(log.written(i, i, Slot { file: 1, offset: 64, len: 10 }));
        }
        log.durable_next = 4;
        log.truncate_after(Some(1));
        assert_eq!((log.last(), log.durable_next, log.bytes), (Some(pos(1, 1)), 2, 20));
        log.push(pos(3, 2), Bytes::new(), 9);
        assert_eq!(keys(&log, 0, 2), [(1, 0), (3, 2)]);
        log.truncate_after(None);
        assert_eq!((log.last(), log.next(), log.cache_bytes), (None, None, 0));
    }

    #[test]
    fn a_late_write_of_a_replaced_entry_is_ignored() {
        let mut log = log(&[1, 1]);
        log.truncate_after(Some(0));
        log.push(pos(2, 1), Bytes::from_static(b"new"), 7);
        assert!(!log.written(1, 1, Slot { file: 1, offset: 64, len: 10 }));
        assert_eq!(log.slot(1).unwrap().file, 0);
        assert!(log.written(1, 7, Slot { file: 1, offset: 128, len: 3 }));
        assert_eq!(log.slot(1).unwrap().offset, 128);
    }

    #[test]
    fn purge_may_pass_the_end() {
        let mut log = log(&[1, 1, 2, 2]);
        log.purge(pos(1, 1));
        assert_eq!((log.first(), log.last(), log.bytes), (Some(2), Some(pos(2, 3)), 20));
        assert_eq!(log.pos_at(1), Some(pos(1, 1)));
        assert_eq!(keys(&log, 1, 3), [(1, 1), (2, 2), (2, 3)]);
        log.purge(pos(4, 90));
        assert_eq!((log.first(), log.last(), log.next()), (None, Some(pos(4, 90)), Some(91)));
        log.purge(pos(1, 5));
        assert_eq!(log.purged, Some(pos(4, 90)));
        log.push(pos(5, 91), Bytes::new(), 0);
        assert_eq!(log.last(), Some(pos(5, 91)));
    }

    #[test]
    fn only_written_bodies_are_evicted() {
        let mut log = log(&[1, 1, 1]);
        assert_eq!(log.oldest_cached(), None);
        log.written(0, 0, Slot { file: 1, offset: 64, len: 10 });
        assert_eq!(log.oldest_cached(), Some(0));
        log.evict();
        assert_eq!((log.oldest_cached(), log.cache_bytes), (None, 20));
        assert!(log.cached(0).is_none() && log.cached(1).is_some());
    }
}

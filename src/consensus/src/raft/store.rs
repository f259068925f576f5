//! A group's log and vote in the node's WAL, as openraft wants them.
//!
//! Traps of openraft 0.10.0-alpha.37 minded here: `append` returns before the flush, entries
//! readable at once; `save_vote` waits for its flush; `save_committed` must cost nothing, it is
//! awaited before every apply; only `limited_get_log_entries` may return less than asked.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds, RangeInclusive};

use base::GroupId;
use base::limits::MIB;
use futures::{Stream, StreamExt, stream};
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use tokio::sync::oneshot;
use wal::Wal;

use super::types::{
    Entry, LogId, Types, Vote, decode_vote, encode_vote, from_pos, from_wal, to_pos, to_wal,
};

/// Bytes of entries in one replication request; at least one entry goes whatever its size.
pub(crate) const REPLICATION_BYTES: usize = MIB;
/// Bytes of entries that the apply path holds at once.
const APPLY_BYTES: usize = 4 * MIB;

/// One group's part of the WAL.
#[derive(Clone)]
pub(crate) struct LogStore {
    pub(crate) wal: Wal,
    pub(crate) group: GroupId,
}

impl LogStore {
    fn end(&self) -> u64 {
        self.wal.last(self.group).map_or(0, |last| last.index + 1)
    }

    fn first(&self) -> u64 {
        self.wal.first_index(self.group).unwrap_or_else(|| self.end())
    }

    /// The range as it was asked for: first index, and the one after the last.
    fn asked(&self, range: &impl RangeBounds<u64>) -> (u64, u64) {
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => self.first(),
        };
        let to = match range.end_bound() {
            Bound::Included(last) => last + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => self.end(),
        };
        (from, to)
    }

    /// The part of a range that the log has.
    fn bounds(&self, range: &impl RangeBounds<u64>) -> (u64, u64) {
        let (from, to) = self.asked(range);
        (from.max(self.first()), to.min(self.end()))
    }

    /// As [`Self::read`], but at least the entry at `from`. A log that failed took no more
    /// entries, and openraft would count as applied what it could not read.
    fn read_present(&self, from: u64, to: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let entries = self.read(from, to, max_bytes)?;
        match entries.first() {
            Some(first) if first.log_id.index == from => Ok(entries),
            _ => {
                let text = format!("group {}: entry {from} is not in the log", self.group);
                Err(io::Error::new(io::ErrorKind::NotFound, text))
            }
        }
    }

    fn read(&self, from: u64, to: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        if from >= to {
            return Ok(Vec::new());
        }
        self.wal.read(self.group, from, to, max_bytes)?.into_iter().map(from_wal).collect()
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = self.asked(&range);
        let store = self.clone();
        // Reads on as the consumer goes, so that a long replay never sits in memory.
        let chunks = stream::unfold(Some(from), move |at| {
            let store = store.clone();
            async move {
                let at = at.filter(|at| *at < to)?;
                match store.read_present(at, to, APPLY_BYTES) {
                    Ok(entries) => {
                        let next = entries.last().map(|e| e.log_id.index + 1);
                        Some((entries.into_iter().map(Ok).collect::<Vec<_>>(), next))
                    }
                    Err(e) => Some((vec![Err(e)], None)),
                }
            }
        });
        chunks.flat_map(stream::iter).boxed()
    }

    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (from, to) = self.bounds(&range);
        self.read(from, to, usize::MAX)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        let (from, to) = self.bounds(&(start..end));
        self.read(from, to, REPLICATION_BYTES)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.wal.vote(self.group).map(|bytes| decode_vote(&bytes)).transpose()
    }

    async fn get_key_log_ids(
        &mut self,
        range: RangeInclusive<LogId>,
    ) -> Result<Vec<LogId>, io::Error> {
        // Trap of this openraft: its documentation asks for the first id of every leader, its
        // code holds the last one of each.
        let (start, end) = (*range.start(), *range.end());
        let firsts = self.wal.key_positions(self.group, start.index, end.index);
        let mut ids: Vec<LogId> = Vec::new();
        let mut term = start.leader_id;
        for first in firsts.into_iter().map(from_pos).filter(|id| id.index > start.index) {
            if first.leader_id != term {
                ids.push(LogId::new(term, first.index - 1));
                term = first.leader_id;
            }
        }
        ids.push(end);
        Ok(ids)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        Ok(LogState {
            last_purged_log_id: self.wal.purged(self.group).map(from_pos),
            last_log_id: self.wal.last(self.group).map(from_pos),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (done, saved) = oneshot::channel();
        let callback = Box::new(move |result| drop(done.send(result)));
        self.wal.save_vote(self.group, encode_vote(vote), callback);
        saved.await.unwrap_or_else(|_| Err(io::Error::other("the WAL stopped")))
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        if let Some(committed) = committed {
            self.wal.set_committed(self.group, to_pos(&committed));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.wal.committed(self.group).map(from_pos))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(|e| to_wal(&e)).collect();
        self.wal.append(self.group, entries, Box::new(move |result| callback.io_completed(result)));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.wal.truncate_after(self.group, last.map(|id| id.index));
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.wal.purge(self.group, to_pos(&upto));
        Ok(())
    }
}

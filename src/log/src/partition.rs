//! One partition's replica on this node: its stream and what apply knows about it.

use std::io;

use base::GroupId;
use base::broken::{self, Broken};
use bytes::{Bytes, BytesMut};
use consensus::{ApplyAt, Fatal};
use parking_lot::{Mutex, MutexGuard};
use segment::{SegmentInfo, Stream};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::age;
use crate::batch::{self, BatchHeader};
use crate::command::ProduceReply;
use crate::compact::run::Made;
use crate::compact::{Compaction, Plan, PlanSpec};
use crate::configs::ReplicaSettings;
use crate::limits::MAX_EPOCHS;
use crate::producers::{ActiveProducer, Producers, Verdict};
use crate::service::Gates;
use crate::transactions::marker::{self, Marker};
use crate::transactions::{AbortedTxn, Claim, PartTxns};
use crate::types::{PartKey, PartitionStatus};
use crate::unsettled::Unsettled;
use crate::waiters::Waiters;

/// A replica. Readers share it with the machine that applies.
pub(crate) struct Partition {
    pub(crate) key: PartKey,
    pub(crate) group: GroupId,
    /// Name of its directory, which no other replica ever has.
    pub(crate) dir: String,
    pub(crate) stream: Stream,
    pub(crate) state: Mutex<PartState>,
    /// Held while a plan of compaction is carried out.
    pub(crate) compacting: Mutex<()>,
    /// The end offset, for those who wait for it.
    pub(crate) end: watch::Sender<i64>,
    /// Where batches wait whose transaction is about to begin here.
    pub(crate) gates: Gates,
    /// Held while a batch is checked, so that batches are proposed in the order they came.
    pub(crate) order: tokio::sync::Mutex<()>,
    /// Whether batches of producers may be missing.
    pub(crate) unsettled: Mutex<Unsettled>,
    /// Readers that wait for bytes.
    pub(crate) waiters: Waiters,
}

/// What apply keeps in memory and a checkpoint writes into rows.
#[derive(Clone, Debug)]
pub(crate) struct PartState {
    /// Offset of the next record; the high watermark.
    pub(crate) end: i64,
    /// First offset that may be read.
    pub(crate) log_start: i64,
    /// Terms with the first offset appended in each.
    pub(crate) epochs: Vec<(i32, i64)>,
    pub(crate) producers: Producers,
    pub(crate) txns: PartTxns,
    pub(crate) settings: ReplicaSettings,
    /// Term in which it was made; 0 when it comes from a checkpoint.
    pub(crate) born: u64,
    /// When the newest segment got its first record.
    pub(crate) active_since_ms: i64,
    /// The next batch begins a new segment, as the log's start passed the newest one.
    pub(crate) roll_next: bool,
    pub(crate) compaction: Compaction,
    /// Changed since the latest checkpoint.
    pub(crate) dirty: bool,
    /// Rows that hold the producers since the latest checkpoint.
    pub(crate) producer_rows: u32,
    /// Rows that hold their transactions since the latest checkpoint.
    pub(crate) txn_rows: u32,
    /// Rows that hold segments beyond those in the replica's own row since the latest checkpoint.
    pub(crate) segment_rows: u32,
    /// When it was made, by the clock of the leader then; 0 when that was not noted.
    pub(crate) created_ms: i64,
}

/// A partition in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartRow {
    pub(crate) dir: String,
    pub(crate) segments: Vec<SegmentInfo>,
    pub(crate) end: i64,
    pub(crate) log_start: i64,
    pub(crate) epochs: Vec<(i32, i64)>,
    pub(crate) settings: ReplicaSettings,
    pub(crate) active_since_ms: i64,
    pub(crate) roll_next: bool,
    pub(crate) producer_rows: u32,
    pub(crate) compaction: Compaction,
}

/// When a replica was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Born {
    pub(crate) term: u64,
    pub(crate) at_ms: i64,
}

impl PartState {
    /// An empty replica; producers up to `forgotten` may have written to
    /// an earlier topic of the same name.
    pub(crate) fn new(settings: ReplicaSettings, forgotten: Option<i64>, born: Born) -> Self {
        Self {
            born: born.term,
            created_ms: born.at_ms,
            end: 0,
            log_start: 0,
            epochs: Vec::new(),
            producers: Producers::new(forgotten),
            txns: PartTxns::default(),
            settings,
            active_since_ms: 0,
            roll_next: false,
            compaction: Compaction::default(),
            dirty: true,
            producer_rows: 0,
            txn_rows: 0,
            segment_rows: 0,
        }
    }

    pub(crate) fn from_row(row: &PartRow, forgotten: Option<i64>) -> Self {
        Self {
            born: 0,
            end: row.end,
            log_start: row.log_start,
            epochs: row.epochs.clone(),
            producers: Producers::new(forgotten),
            txns: PartTxns::default(),
            settings: row.settings,
            active_since_ms: row.active_since_ms,
            roll_next: row.roll_next,
            compaction: row.compaction.clone(),
            dirty: false,
            producer_rows: row.producer_rows,
            txn_rows: 0,
            segment_rows: 0,
            created_ms: 0,
        }
    }

    /// Makes room for a producer; one whose transaction is open is not forgotten.
    fn make_room(&mut self, producer_id: i64) {
        let Self { producers, txns, .. } = self;
        if let Some(gone) = producers.make_room(producer_id, |id| txns.is_open(id)) {
            txns.forget(gone);
        }
    }

    /// Where readers of committed records stop: the first offset of the oldest open transaction,
    /// or the end.
    pub(crate) fn last_stable_offset(&self) -> i64 {
        self.txns.first_open().map_or(self.end, |first| first.max(self.log_start).min(self.end))
    }

    /// Whether the next batch of `len` bytes begins a new segment.
    fn must_roll(&self, active_len: u64, len: usize, time_ms: i64) -> bool {
        let full = active_len + len as u64 > self.settings.segment_bytes;
        let old = time_ms.saturating_sub(self.active_since_ms) > self.settings.segment_ms;
        active_len > 0 && (full || old || self.roll_next)
    }

    fn note_epoch(&mut self, epoch: i32) {
        if self.epochs.last().is_some_and(|(last, _)| *last >= epoch) {
            return;
        }
        self.epochs.push((epoch, self.end));
        if self.epochs.len() > MAX_EPOCHS {
            self.epochs.remove(0);
        }
    }

    /// Kafka's OffsetForLeaderEpoch: the largest epoch here up to `epoch`, and where it ends.
    /// `current` is the group's term; a term without a record ends where the log ends.
    pub(crate) fn epoch_end(&self, epoch: i32, current: i32) -> Option<(i32, i64)> {
        if epoch < 0 || epoch > current {
            return None;
        }
        let after = self.epochs.partition_point(|(e, _)| *e <= epoch);
        match self.epochs.get(after) {
            None => Some((epoch, self.end)),
            Some((_, start)) => {
                let floor = after.checked_sub(1).and_then(|i| self.epochs.get(i));
                Some((floor.map_or(epoch, |(e, _)| *e), *start))
            }
        }
    }

    /// The epoch of the record at `offset`.
    pub(crate) fn epoch_at(&self, offset: i64) -> i32 {
        let after = self.epochs.partition_point(|(_, start)| *start <= offset);
        after.checked_sub(1).and_then(|i| self.epochs.get(i)).map_or(-1, |(e, _)| *e)
    }
}

/// Kafka knows terms as 32-bit epochs.
pub(crate) fn epoch_of(term: u64) -> i32 {
    i32::try_from(term).unwrap_or(i32::MAX)
}

impl Partition {
    pub(crate) fn new(
        key: PartKey,
        group: GroupId,
        dir: String,
        stream: Stream,
        state: PartState,
    ) -> Self {
        let end = watch::Sender::new(state.end);
        let (state, gates) = (Mutex::new(state), Gates::default());
        let (order, waiters) = (tokio::sync::Mutex::default(), Waiters::default());
        let (compacting, unsettled) = (Mutex::default(), Mutex::default());
        Self { key, group, dir, stream, state, compacting, end, gates, order, unsettled, waiters }
    }

    /// Stops writing to files, and waits until a compaction under way has noticed.
    pub(crate) fn release(&self) {
        self.stream.close();
        drop(self.compacting.lock());
    }

    /// Hides segments below the log's start. Segments that a plan may still read stay: its result
    /// must not depend on when this node carries it out.
    fn trim(&self, state: &PartState) {
        if state.compaction.plans.is_empty() {
            self.stream.trim_before(u64::try_from(state.log_start).unwrap_or(0));
        }
    }

    /// Notes a plan of compaction; false when it comes too late.
    pub(crate) fn plan(&self, spec: PlanSpec) -> bool {
        let mut state = self.state.lock();
        let state = &mut *state;
        let is_boundary = |at: i64| {
            let begins = |s: &SegmentInfo| i64::try_from(s.base_offset) == Ok(at);
            self.stream.segments().iter().any(begins)
        };
        let bounds = (state.log_start, state.end);
        // Transactions of the range have ended: no leader proposes anything else.
        let accepted = spec.upto <= state.last_stable_offset()
            && state.compaction.accept(spec, bounds, is_boundary);
        state.dirty |= accepted;
        accepted
    }

    /// Swaps in what a plan made, whose files are durable; false when the replica is gone.
    pub(crate) fn finish_plan(&self, plan: &Plan, made: &Made) -> io::Result<bool> {
        let mut state = self.state.lock();
        if self.stream.is_closed() || state.compaction.plans.first() != Some(plan) {
            return Ok(false);
        }
        self.stream.replace(u64::try_from(plan.spec.upto).unwrap_or(0), &made.segments)?;
        state.compaction.plans.remove(0);
        state.compaction.next_horizon_ms = made.next_horizon_ms;
        state.txns.forget_aborted(&made.gone_markers);
        state.dirty = true;
        if state.compaction.plans.is_empty() {
            self.stream.trim_aside(u64::try_from(state.log_start).unwrap_or(0));
        }
        Ok(true)
    }

    /// Applies one batch: judges its producer and transaction, appends.
    pub(crate) fn append(
        &self,
        at: &ApplyAt,
        batch: &Bytes,
        claim: Claim,
    ) -> Result<ProduceReply, Fatal> {
        let Ok(header) = BatchHeader::parse(batch) else { return Ok(ProduceReply::Corrupt) };
        if header.len != batch.len() || header.last_offset_delta < 0 {
            return Ok(ProduceReply::Corrupt);
        }
        // Before the lock: tasks of the runtime take it, and the disk may keep them long.
        self.stream.wait_for_room()?;
        let mut state = self.state.lock();
        let log_start = state.log_start;
        match state.producers.judge(&header) {
            _ if broken::is(Broken::SkipDedup) => {}
            Verdict::Append => {}
            Verdict::Duplicate(base_offset) => {
                return Ok(ProduceReply::Done { base_offset, log_start });
            }
            Verdict::OutOfOrder => return Ok(ProduceReply::OutOfOrder),
            Verdict::OldEpoch => return Ok(ProduceReply::OldEpoch),
        }
        if state.txns.judge(&header, claim).is_err() {
            return Ok(ProduceReply::NotInTransaction);
        }
        let Some(base_offset) = self.add(&mut state, at, batch, &header)? else {
            return Ok(ProduceReply::Corrupt);
        };
        state.txns.note(&header, claim, base_offset);
        if header.producer_id >= 0 {
            state.make_room(header.producer_id);
        }
        state.producers.note(&header, base_offset, at.time_ms);
        self.show_end(state, batch.len());
        Ok(ProduceReply::Done { base_offset, log_start })
    }

    /// Applies a marker: ends the producer's transaction with a control batch. Nothing happens
    /// when that was done before.
    pub(crate) fn end_transaction(&self, at: &ApplyAt, marker: &Marker) -> Result<(), Fatal> {
        self.stream.wait_for_room()?;
        let mut state = self.state.lock();
        if state.txns.has_ended(marker) {
            return Ok(());
        }
        let batch = marker::batch(marker, at.time_ms);
        let header = BatchHeader::parse(&batch).map_err(|e| Fatal(e.to_string()))?;
        // Only a log of 2⁶³ records has no room.
        let Some(offset) = self.add(&mut state, at, &batch, &header)? else { return Ok(()) };
        state.txns.end(marker, offset);
        state.make_room(marker.producer_id);
        state.producers.note_epoch(marker.producer_id, marker.epoch, at.time_ms);
        // Readers of committed records may now read all that waited for this end.
        self.show_end(state, usize::MAX);
        Ok(())
    }

    /// Gives a batch its offset and epoch and appends it; `None` when offsets are used up.
    fn add(
        &self,
        state: &mut PartState,
        at: &ApplyAt,
        batch: &Bytes,
        header: &BatchHeader,
    ) -> Result<Option<i64>, Fatal> {
        let base_offset = state.end;
        let Some(end) = base_offset.checked_add(i64::from(header.last_offset_delta) + 1) else {
            return Ok(None);
        };
        let epoch = epoch_of(at.term);
        // The one copy: base offset and epoch are set in it, outside the checksum.
        let mut bytes = BytesMut::from(&batch[..]);
        batch::assign(&mut bytes, base_offset, epoch);
        let active_len = self.stream.active_len();
        if state.must_roll(active_len, bytes.len(), at.time_ms) {
            self.stream.roll();
            state.roll_next = false;
            state.active_since_ms = at.time_ms;
        } else if active_len == 0 {
            state.active_since_ms = at.time_ms;
        }
        let (from, to) = (offset(base_offset)?, offset(end)?);
        let newest = age::newest_or_appended(header.max_timestamp_ms, at.time_ms);
        self.stream.append(from, to, newest, bytes.freeze())?;
        // Nothing to do unless a roll has just let go of a segment below the start.
        self.trim(state);
        state.note_epoch(epoch);
        state.end = end;
        state.dirty = true;
        Ok(Some(base_offset))
    }

    /// Lets go of the state and wakes those who wait for its end, or for the `bytes` that can be
    /// read now.
    fn show_end(&self, state: MutexGuard<'_, PartState>, bytes: usize) {
        let end = state.end;
        drop(state);
        self.end.send_replace(end);
        self.waiters.tell(bytes);
    }

    /// The transaction that the producer of a batch has open here.
    pub(crate) fn open_for(&self, batch: &BatchHeader) -> Option<Claim> {
        let state = self.state.lock();
        let same = state.producers.epoch_of(batch.producer_id) == Some(batch.producer_epoch);
        let number = state.txns.open_number(batch.producer_id).filter(|_| same);
        number.map(Claim::Number)
    }

    /// Whether leaders of terms before this one may have been sent batches.
    pub(crate) fn inherits(&self, term: u64) -> bool {
        self.state.lock().born < term
    }

    /// Where readers of committed records stop.
    pub(crate) fn last_stable_offset(&self) -> i64 {
        self.state.lock().last_stable_offset()
    }

    /// Transactions aborted in this partition that have records in `from..to`.
    pub(crate) fn aborted(&self, from: i64, to: i64) -> Vec<AbortedTxn> {
        if broken::is(Broken::AbortedVisible) {
            return Vec::new();
        }
        self.state.lock().txns.aborted(from, to)
    }

    /// The producers of the partition.
    pub(crate) fn producers(&self) -> Vec<ActiveProducer> {
        let state = self.state.lock();
        let mut all = state.producers.describe();
        for one in &mut all {
            one.coordinator_epoch = state.txns.coordinator_epoch(one.producer_id);
            one.txn_start_offset = state.txns.open_since(one.producer_id).unwrap_or(-1);
        }
        all
    }

    /// Whether one without an open transaction was last heard before `before_ms`.
    pub(crate) fn has_idle_producers(&self, before_ms: i64) -> bool {
        let state = self.state.lock();
        state.producers.any_before(before_ms, |id| state.txns.is_open(id))
    }

    /// Forgets producers that were last heard before `before_ms`, unless a transaction is open.
    pub(crate) fn expire_producers(&self, before_ms: i64) {
        let mut state = self.state.lock();
        let PartState { producers, txns, .. } = &mut *state;
        producers.expire(before_ms, |id| txns.is_open(id));
        txns.retain(|id| producers.epoch_of(id).is_some());
        state.dirty = true;
    }

    /// Moves the log's start up to `offset`, and hides segments below it.
    pub(crate) fn set_log_start(&self, start: i64) -> Result<i64, (i64, i64)> {
        let mut state = self.state.lock();
        if start > state.end || start < 0 {
            return Err((state.log_start, state.end));
        }
        if start > state.log_start {
            self.waiters.tell(0);
            state.log_start = start;
            state.txns.trim(start);
            state.dirty = true;
            // The newest segment goes with the next one's first record.
            state.roll_next = start == state.end;
        }
        self.trim(&state);
        Ok(state.log_start)
    }

    /// Log start and end.
    pub(crate) fn bounds(&self) -> (i64, i64) {
        let state = self.state.lock();
        (state.log_start, state.end)
    }

    /// Batches from `from` on; the caller has checked the bounds.
    pub(crate) fn read(&self, from: i64, max_bytes: usize) -> io::Result<Vec<Bytes>> {
        self.stream.read(u64::try_from(from).unwrap_or(0), max_bytes)
    }

    /// Log start, last stable offset and end, as of one moment.
    pub(crate) fn stable_bounds(&self) -> (i64, i64, i64) {
        let state = self.state.lock();
        let early = broken::is(Broken::EarlyLso);
        let stable = if early { state.end } else { state.last_stable_offset() };
        (state.log_start, stable, state.end)
    }

    pub(crate) fn status(&self) -> PartitionStatus {
        let (log_start_offset, last_stable_offset, end_offset) = self.stable_bounds();
        PartitionStatus {
            key: self.key,
            group: self.group,
            log_start_offset,
            end_offset,
            last_stable_offset,
            bytes: self.stream.total_len(),
            segments: self.stream.segments().len(),
        }
    }

    pub(crate) fn row(&self, state: &PartState) -> PartRow {
        PartRow {
            dir: self.dir.clone(),
            segments: self.stream.segments(),
            end: state.end,
            log_start: state.log_start,
            epochs: state.epochs.clone(),
            settings: state.settings,
            active_since_ms: state.active_since_ms,
            roll_next: state.roll_next,
            producer_rows: state.producer_rows,
            compaction: state.compaction.clone(),
        }
    }
}

fn offset(value: i64) -> Result<u64, Fatal> {
    u64::try_from(value).map_err(|_| Fatal(format!("offset {value} in apply")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_end_where_the_next_begins() {
        let settings = ReplicaSettings { segment_bytes: 1, segment_ms: 1 };
        let mut state = PartState::new(settings, None, Born { term: 1, at_ms: 0 });
        for (epoch, end) in [(2, 0), (2, 5), (4, 10), (4, 11)] {
            state.end = end;
            state.note_epoch(epoch);
        }
        state.end = 20;
        assert_eq!(state.epochs, [(2, 0), (4, 10)]);
        let ends = |epoch| state.epoch_end(epoch, 6);
        assert_eq!(ends(1), Some((1, 0)));
        assert_eq!(ends(2), Some((2, 10)));
        assert_eq!(ends(3), Some((2, 10)));
        assert_eq!(ends(4), Some((4, 20)));
        assert_eq!(ends(6), Some((6, 20)));
        assert_eq!(ends(7), None);
        assert_eq!((state.epoch_at(9), state.epoch_at(10)), (2, 4));
    }
}

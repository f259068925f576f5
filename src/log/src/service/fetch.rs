//! Reading: fetch, offsets, epochs.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use base::GroupId;
use bytes::Bytes;
use consensus::GroupRef;

use super::LogService;
use crate::batch::{BatchHeader, frame_info};
use crate::error::LogError;
use crate::limits::MAX_READ_BYTES;
use crate::partition::{Partition, epoch_of};
use crate::records::scan;
use crate::types::{FetchSpec, Fetched, Isolation, ListedOffset, OffsetQuery, TopicRef};

impl LogService {
    /// Record batches from an offset on. Only on the leader; does not wait for data.
    pub async fn fetch(&self, spec: &FetchSpec<'_>) -> Result<Fetched, LogError> {
        let topic = self.resolve(spec.topic)?;
        let (group, part, leadership) = self.led(&topic, spec.partition)?;
        let current = epoch_of(leadership.term);
        check_epoch(spec.current_leader_epoch, current)?;
        if spec.offset > part.bounds().1 {
            // A leader that was deposed and cut off does not know of the newest records, and a
            // consumer told that its offset is out of range begins anew. Only one that leads for
            // certain may say so.
            let deposed = |_| LogError::NotLeader { leader: None };
            group.read_barrier().await.map_err(deposed)?;
            if self.led(&topic, spec.partition)?.2.term != leadership.term {
                return Err(LogError::NotLeader { leader: None });
            }
        }
        if spec.last_fetched_epoch >= 0 {
            let state = part.state.lock();
            let (log_start, end) = (state.log_start, state.end);
            let stable = state.last_stable_offset();
            let found = state.epoch_end(spec.last_fetched_epoch, current);
            drop(state);
            let diverging = match found {
                None => Some((-1, -1)),
                Some((epoch, end)) if epoch < spec.last_fetched_epoch || end < spec.offset => {
                    Some((epoch, end))
                }
                Some(_) => None,
            };
            if diverging.is_some() {
                let (high_watermark, last_stable_offset) = (end, stable);
                return Ok(Fetched {
                    high_watermark,
                    last_stable_offset,
                    log_start_offset: log_start,
                    diverging,
                    ..Fetched::default()
                });
            }
        }
        let (offset, max_bytes) = (spec.offset, spec.max_bytes);
        match spec.isolation {
            Isolation::Uncommitted => {
                let records = read(&part, offset, max_bytes).await?;
                // Looked at after the read, so that no record lies beyond the watermark.
                let (log_start_offset, last_stable_offset, high_watermark) = part.stable_bounds();
                let bounds = Fetched {
                    high_watermark,
                    last_stable_offset,
                    log_start_offset,
                    ..Fetched::default()
                };
                Ok(Fetched { records, ..bounds })
            }
            Isolation::Committed => read_committed(&part, offset, max_bytes).await,
        }
    }

    /// Record batches from this node's replica, whoever leads: for the processor. What it
    /// returns is committed, also as far as transactions go: skip what [`Fetched::hides`]. The
    /// newest records may be missing here.
    pub async fn read_any(
        &self,
        topic: TopicRef<'_>,
        partition: i32,
        offset: i64,
        max_bytes: usize,
    ) -> Result<Fetched, LogError> {
        let topic = self.resolve(topic)?;
        let part = self.local(&topic, partition)?;
        let (log_start, end) = part.bounds();
        if offset > end {
            // Committed elsewhere and not applied here yet.
            return Ok(Fetched {
                high_watermark: end,
                last_stable_offset: part.last_stable_offset(),
                log_start_offset: log_start,
                ..Fetched::default()
            });
        }
        read_committed(&part, offset, max_bytes).await
    }

    /// Of the data groups that these partitions are in and this node leads, those of which it
    /// cannot make sure that it still does: a leader that was deposed and cut off, or stopped for a
    /// while, does not know of the newest records.
    pub async fn doubtful_groups(&self, parts: &[(&str, i32)]) -> BTreeSet<GroupId> {
        let mut asked = BTreeSet::new();
        for (topic, partition) in parts {
            asked.extend(self.topic(topic).and_then(|topic| topic.group_of(*partition)));
        }
        let led = self.0.groups.data.iter().filter(|group| asked.contains(&group.id()));
        let led: Vec<GroupRef> = led.filter(|g| g.leadership().ready_here).cloned().collect();
        let barriers = led.iter().map(|group| group.read_barrier());
        let passed = futures::future::join_all(barriers).await;
        let doubtful = led.iter().zip(passed).filter(|(_, passed)| passed.is_err());
        doubtful.map(|(group, _)| group.id()).collect()
    }

    /// An offset by time or end of the log. Only on the leader, which should not be a doubtful one
    /// (see [`Self::doubtful_groups`]).
    pub async fn list_offset(
        &self,
        topic: TopicRef<'_>,
        partition: i32,
        current_leader_epoch: i32,
        query: OffsetQuery,
        isolation: Isolation,
    ) -> Result<ListedOffset, LogError> {
        let topic = self.resolve(topic)?;
        let (_, part, leadership) = self.led(&topic, partition)?;
        check_epoch(current_leader_epoch, epoch_of(leadership.term))?;
        let (log_start, stable, end) = part.stable_bounds();
        let end = if isolation == Isolation::Committed { stable } else { end };
        let listed = |offset: i64, timestamp_ms: i64| {
            let leader_epoch = part.state.lock().epoch_at(offset);
            ListedOffset { offset, timestamp_ms, leader_epoch }
        };
        let ts = match query {
            OffsetQuery::Earliest => return Ok(listed(log_start, -1)),
            OffsetQuery::Latest => return Ok(listed(end, -1)),
            OffsetQuery::Time(ts) => ts,
            OffsetQuery::MaxTimestamp => match part.stream.max_timestamp_ms() {
                Some(ts @ 0..) => ts,
                // As in Kafka, no record is the newest where none has a timestamp (see `age`).
                Some(..0) | None => return Ok(listed(-1, -1)),
            },
        };
        let search = part.clone();
        let found = blocking(move || find_record(&search, log_start, ts)).await?;
        Ok(match found.filter(|(offset, _)| *offset < end) {
            Some((offset, ts)) => listed(offset, ts),
            None => ListedOffset { offset: -1, timestamp_ms: -1, leader_epoch: -1 },
        })
    }

    /// Where an epoch ends: (epoch, end offset), −1 and −1 for one that is unknown. Only on the
    /// leader.
    pub fn offset_for_leader_epoch(
        &self,
        topic: TopicRef<'_>,
        partition: i32,
        current_leader_epoch: i32,
        epoch: i32,
    ) -> Result<(i32, i64), LogError> {
        let topic = self.resolve(topic)?;
        let (_, part, leadership) = self.led(&topic, partition)?;
        let current = epoch_of(leadership.term);
        check_epoch(current_leader_epoch, current)?;
        let found = part.state.lock().epoch_end(epoch, current);
        Ok(found.unwrap_or((-1, -1)))
    }
}

/// Reads what lies below the last stable offset, and says which of it was aborted.
async fn read_committed(
    part: &Arc<Partition>,
    offset: i64,
    max_bytes: usize,
) -> Result<Fetched, LogError> {
    // Looked at before the read: what ends meanwhile is not in the list of aborted transactions.
    let (_, stable, _) = part.stable_bounds();
    let mut records = read(part, offset, max_bytes).await?;
    let below = |batch: &Bytes| BatchHeader::parse(batch).is_ok_and(|b| b.base_offset < stable);
    records.truncate(records.iter().take_while(|batch| below(batch)).count());
    let last = records.last().and_then(|batch| BatchHeader::parse(batch).ok());
    let aborted = last.map_or_else(Vec::new, |last| part.aborted(offset, last.next_offset()));
    let (log_start_offset, last_stable_offset, high_watermark) = part.stable_bounds();
    if log_start_offset > offset {
        // What was deleted since the read is no longer in the list of aborted transactions.
        let (start, end) = (log_start_offset, high_watermark);
        return Err(LogError::OffsetOutOfRange { offset, start, end });
    }
    Ok(Fetched {
        high_watermark,
        last_stable_offset,
        log_start_offset,
        records,
        diverging: None,
        aborted,
    })
}

/// KIP-320: a client that knows an older or newer leader must refresh its metadata.
fn check_epoch(claimed: i32, current: i32) -> Result<(), LogError> {
    match claimed {
        ..0 => Ok(()),
        n if n < current => Err(LogError::FencedLeaderEpoch),
        n if n > current => Err(LogError::UnknownLeaderEpoch),
        _ => Ok(()),
    }
}

/// Disk reads go to the runtime's blocking threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    let result = tokio::task::spawn_blocking(work).await;
    result.map_err(|e| LogError::Internal(e.to_string()))?
}

async fn read(
    part: &Arc<Partition>,
    offset: i64,
    max_bytes: usize,
) -> Result<Vec<Bytes>, LogError> {
    let (start, end) = part.bounds();
    if offset < start || offset > end {
        return Err(LogError::OffsetOutOfRange { offset, start, end });
    }
    if max_bytes == 0 {
        return Ok(Vec::new());
    }
    let max_bytes = max_bytes.min(MAX_READ_BYTES);
    let from = u64::try_from(offset).unwrap_or(0);
    let records = match part.stream.read_memory(from, max_bytes) {
        Some(records) => records,
        None => {
            let part = part.clone();
            blocking(move || Ok(part.read(offset, max_bytes)?)).await?
        }
    };
    check_whole(part, offset, end, &records)?;
    Ok(records)
}

/// A reader must never go over records without a word: only compaction and deletion make holes.
fn check_whole(part: &Partition, offset: i64, end: i64, records: &[Bytes]) -> Result<(), LogError> {
    let first = records.first().and_then(|batch| BatchHeader::parse(batch).ok());
    let found = first.map_or(end, |batch| batch.base_offset);
    if found <= offset {
        return Ok(());
    }
    let state = part.state.lock();
    if state.compaction.generation > 0 || state.log_start > offset {
        return Ok(());
    }
    drop(state);
    let (topic, partition) = (part.key.topic, part.key.partition);
    let what = format!("{topic}-{partition} has nothing from {offset} to {found}");
    tracing::error!("{what}");
    Err(LogError::Storage(what))
}

/// The first record at or after `log_start` that is at least as new as `ts`: offset and time.
fn find_record(part: &Partition, log_start: i64, ts: i64) -> Result<Option<(i64, i64)>, LogError> {
    let Some(frame) = part.stream.find_time(ts)? else { return Ok(None) };
    let first = i64::try_from(frame.base_offset).unwrap_or(i64::MAX);
    let mut next = first.max(log_start);
    loop {
        let batches = part.read(next, MAX_READ_BYTES / 32)?;
        if batches.is_empty() {
            return Ok(None);
        }
        for batch in batches {
            let info = frame_info(&batch);
            let info = info.ok_or_else(|| LogError::Storage("a damaged batch".to_owned()))?;
            next = i64::try_from(info.next_offset).unwrap_or(i64::MAX);
            if info.max_timestamp_ms < ts {
                continue;
            }
            if let Some(hit) = find_in_batch(&batch, log_start, ts) {
                return Ok(Some(hit));
            }
        }
    }
}

/// Kafka answers with record precision, also inside compressed batches and with markers. One
/// whose records do not decode is answered with its first offset.
fn find_in_batch(batch: &Bytes, log_start: i64, ts: i64) -> Option<(i64, i64)> {
    if let Some(marker) = BatchHeader::parse(batch).ok().filter(BatchHeader::is_control) {
        // One that compaction has emptied holds no record.
        let has_one = marker.record_count > 0;
        return has_one.then_some((marker.base_offset, marker.max_timestamp_ms));
    }
    let found =
        scan(batch, |record| match record.timestamp_ms >= ts && record.offset >= log_start {
            true => ControlFlow::Break((record.offset, record.timestamp_ms)),
            false => ControlFlow::Continue(()),
        });
    match found {
        Ok(hit) => hit,
        Err(_) => {
            let header = BatchHeader::parse(batch).ok()?;
            Some((header.base_offset.max(log_start), header.max_timestamp_ms))
        }
    }
}

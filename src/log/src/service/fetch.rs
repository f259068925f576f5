//! Reading: fetch, offsets, epochs.

use std::sync::Arc;

use bytes::Bytes;

use super::LogService;
use crate::batch::{BatchHeader, frame_info};
use crate::error::LogError;
use crate::limits::MAX_READ_BYTES;
use crate::partition::{Partition, epoch_of};
use crate::records::records;
use crate::types::{FetchSpec, Fetched, ListedOffset, OffsetQuery, TopicRef};

impl LogService {
    /// Record batches from an offset on. Only on the leader; does not wait for data.
    pub async fn fetch(&self, spec: &FetchSpec<'_>) -> Result<Fetched, LogError> {
        let topic = self.resolve(spec.topic)?;
        let (_, part, leadership) = self.led(&topic, spec.partition)?;
        let current = epoch_of(leadership.term);
        check_epoch(spec.current_leader_epoch, current)?;
        if spec.last_fetched_epoch >= 0 {
            let state = part.state.lock();
            let (log_start, end) = (state.log_start, state.end);
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
                return Ok(fetched(log_start, end, Vec::new(), diverging));
            }
        }
        let records = read(&part, spec.offset, spec.max_bytes).await?;
        // Looked at after the read, so that no record lies beyond the watermark.
        let (log_start, end) = part.bounds();
        Ok(fetched(log_start, end, records, None))
    }

    /// Record batches from this node's replica, whoever leads: for the processor. What it
    /// returns is committed; the newest records may be missing here.
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
            return Ok(fetched(log_start, end, Vec::new(), None));
        }
        let records = read(&part, offset, max_bytes).await?;
        let (log_start, end) = part.bounds();
        Ok(fetched(log_start, end, records, None))
    }

    /// An offset by time or end of the log. Only on the leader.
    pub async fn list_offset(
        &self,
        topic: TopicRef<'_>,
        partition: i32,
        current_leader_epoch: i32,
        query: OffsetQuery,
    ) -> Result<ListedOffset, LogError> {
        let topic = self.resolve(topic)?;
        let (_, part, leadership) = self.led(&topic, partition)?;
        check_epoch(current_leader_epoch, epoch_of(leadership.term))?;
        let (log_start, end) = part.bounds();
        let listed = |offset: i64, timestamp_ms: i64| {
            let leader_epoch = part.state.lock().epoch_at(offset);
            ListedOffset { offset, timestamp_ms, leader_epoch }
        };
        let ts = match query {
            OffsetQuery::Earliest => return Ok(listed(log_start, -1)),
            OffsetQuery::Latest => return Ok(listed(end, -1)),
            OffsetQuery::Time(ts) => ts,
            OffsetQuery::MaxTimestamp => match part.stream.max_timestamp_ms() {
                Some(ts) => ts,
                None => return Ok(listed(-1, -1)),
            },
        };
        let search = part.clone();
        let found = blocking(move || find_record(&search, log_start, ts)).await?;
        Ok(match found {
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

fn fetched(
    log_start_offset: i64,
    end: i64,
    records: Vec<Bytes>,
    diverging: Option<(i32, i64)>,
) -> Fetched {
    let (high_watermark, last_stable_offset) = (end, end);
    Fetched { high_watermark, last_stable_offset, log_start_offset, records, diverging }
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
async fn blocking<T: Send + 'static>(
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
    let max_bytes = max_bytes.min(MAX_READ_BYTES);
    let from = u64::try_from(offset).unwrap_or(0);
    if let Some(records) = part.stream.read_memory(from, max_bytes) {
        return Ok(records);
    }
    let part = part.clone();
    blocking(move || Ok(part.read(offset, max_bytes)?)).await
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

/// Kafka answers with record precision, also inside compressed batches. One whose records do
/// not decode is answered with its first offset.
fn find_in_batch(batch: &Bytes, log_start: i64, ts: i64) -> Option<(i64, i64)> {
    match records(batch) {
        Ok(records) => {
            let hit = records.iter().find(|r| r.timestamp_ms >= ts && r.offset >= log_start)?;
            Some((hit.offset, hit.timestamp_ms))
        }
        Err(_) => {
            let header = BatchHeader::parse(batch).ok()?;
            Some((header.base_offset.max(log_start), header.max_timestamp_ms))
        }
    }
}

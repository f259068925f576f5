//! What becomes of one batch. Pure.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use base::broken::{self, Broken};
use bytes::{BufMut, Bytes, BytesMut};
use sha2::{Digest, Sha256};

use super::Plan;
use super::survey::Survey;
use crate::batch::{self, BatchError, BatchHeader, Compression, HEADER_BYTES};
use crate::compression::{Level, compress};
use crate::records::{RawRecord, raw_records};

/// The first 16 bytes of a key's SHA-256. Two keys with one hash would be one key: nobody finds
/// such keys.
type KeyHash = u128;

/// A hash needs no hashing.
#[derive(Default)]
pub(crate) struct Plain(u64);

impl Hasher for Plain {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The newest offset of each key in a plan's window.
#[derive(Default)]
pub(crate) struct Newest(HashMap<KeyHash, i64, BuildHasherDefault<Plain>>);

impl Newest {
    /// Notes the keys of a batch as far as they lie in the plan's window.
    pub(crate) fn note(&mut self, header: &BatchHeader, batch: &Bytes, plan: &Plan) {
        let window = plan.spec.from..plan.spec.end;
        // What does not decode stays as it is, and takes no other record's place.
        let Ok(records) = raw_records(header, batch) else { return };
        for record in records {
            let offset = header.base_offset.saturating_add(record.offset_delta);
            if let Some(key) = &record.key
                && window.contains(&offset)
            {
                if broken::is(Broken::OldestByKey) {
                    self.0.entry(hash(key)).or_insert(offset);
                } else {
                    self.0.insert(hash(key), offset);
                }
            }
        }
    }

    fn get(&self, key: &[u8]) -> Option<i64> {
        self.0.get(&hash(key)).copied()
    }
}

fn hash(key: &[u8]) -> KeyHash {
    let digest = Sha256::digest(key);
    digest.first_chunk().map_or(0, |first| u128::from_be_bytes(*first))
}

/// What becomes of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It stays.
    Same,
    /// This takes its place.
    Changed(Bytes),
    /// It goes.
    Gone,
}

/// Judges the batches of a plan's segments, in order.
pub(crate) struct Filter<'a> {
    plan: &'a Plan,
    survey: &'a Survey,
    newest: &'a Newest,
    /// Where the last batch of the last segment ends.
    range_end: i64,
    /// Producers with batches of a transaction whose marker has not come yet.
    open: HashSet<i64>,
    /// The earliest delete horizon to come.
    next_horizon_ms: i64,
    /// Offsets of markers that go.
    gone_markers: Vec<i64>,
}

/// The records of a batch that stay.
struct Staying {
    records: Vec<RawRecord>,
    all: bool,
    has_tombstone: bool,
}

impl<'a> Filter<'a> {
    pub(crate) fn new(
        plan: &'a Plan,
        survey: &'a Survey,
        newest: &'a Newest,
        range_end: i64,
    ) -> Self {
        let (open, next_horizon_ms) = (HashSet::new(), i64::MAX);
        let gone_markers = Vec::new();
        Self { plan, survey, newest, range_end, open, next_horizon_ms, gone_markers }
    }

    /// Offsets of the markers that went, in order.
    pub(crate) fn into_gone_markers(self) -> Vec<i64> {
        self.gone_markers
    }

    /// When the next tombstone or marker of the batches judged so far may go.
    pub(crate) fn next_horizon_ms(&self) -> i64 {
        self.next_horizon_ms
    }

    /// What becomes of a batch. One whose records do not decode stays as it is.
    pub(crate) fn judge(&mut self, header: &BatchHeader, batch: &Bytes) -> Kept {
        // A marker is done with when no batch of its transaction is left.
        let is_done_marker = self.follow_transaction(header);
        if self.survey.is_open(header) {
            return Kept::Same;
        }
        let horizon = header.delete_horizon_ms();
        let passed = horizon.is_some_and(|at| at <= self.plan.spec.now_ms);
        let discard = match header.is_control() {
            true => is_done_marker && passed,
            false => self.survey.is_aborted(header),
        };
        if discard && header.is_control() {
            self.gone_markers.push(header.base_offset);
        }
        let staying = match discard {
            true => Ok(Staying { records: Vec::new(), all: false, has_tombstone: false }),
            false => self.staying(header, batch),
        };
        let Ok(staying) = staying else { return Kept::Same };
        if staying.records.is_empty() {
            return self.keep_empty(header, batch);
        }
        let wants_horizon = staying.has_tombstone || is_done_marker;
        let new = (horizon.is_none() && wants_horizon)
            .then(|| self.plan.spec.now_ms.saturating_add(self.plan.spec.delete_retention_ms));
        if let Some(at) = new.or(horizon).filter(|at| *at > self.plan.spec.now_ms) {
            self.next_horizon_ms = self.next_horizon_ms.min(at);
        }
        if staying.all && new.is_none() {
            return Kept::Same;
        }
        rebuild(header, batch, &staying.records, new).map_or(Kept::Same, Kept::Changed)
    }

    fn follow_transaction(&mut self, header: &BatchHeader) -> bool {
        if header.is_control() {
            return header.record_count > 0 && !self.open.remove(&header.producer_id);
        }
        if header.is_transactional() {
            self.open.insert(header.producer_id);
        }
        false
    }

    fn staying(&self, header: &BatchHeader, batch: &Bytes) -> Result<Staying, BatchError> {
        let mut records = raw_records(header, batch)?;
        let before = records.len();
        if !header.is_control() {
            records.retain(|record| self.stays(header, record));
        }
        let has_tombstone = !header.is_control() && records.iter().any(|r| !r.has_value);
        Ok(Staying { all: records.len() == before, has_tombstone, records })
    }

    fn stays(&self, header: &BatchHeader, record: &RawRecord) -> bool {
        let offset = header.base_offset.saturating_add(record.offset_delta);
        if offset >= self.plan.spec.end {
            return true;
        }
        // Kafka's cleaner drops what came without a key before the topic was compacted.
        let Some(key) = &record.key else { return false };
        if self.newest.get(key).is_some_and(|newest| newest > offset) {
            return false;
        }
        let horizon = header.delete_horizon_ms();
        record.has_value || horizon.is_none_or(|at| self.plan.spec.now_ms < at)
    }

    /// KIP-98 and KAFKA-7321: producers need the sequence of their last batch, and readers the end
    /// of the range.
    fn keep_empty(&self, header: &BatchHeader, batch: &Bytes) -> Kept {
        if !self.survey.is_last(header) && header.next_offset() != self.range_end {
            return Kept::Gone;
        }
        match header.record_count {
            0 => Kept::Same,
            _ => Kept::Changed(batch::emptied(batch)),
        }
    }
}

/// A batch with fewer records, or with a delete horizon. Timestamps count from the base
/// timestamp, whose place the horizon takes.
fn rebuild(
    header: &BatchHeader,
    batch: &Bytes,
    records: &[RawRecord],
    horizon: Option<i64>,
) -> Result<Bytes, BatchError> {
    let shift = horizon.map(|at| header.base_timestamp_ms.wrapping_sub(at));
    let mut body = BytesMut::new();
    for record in records {
        record.put(&mut body, shift);
    }
    let compression = header.compression()?;
    let packed = match compression {
        Compression::None => body.freeze(),
        _ => compress(compression, Level::DEFAULT, &body)?,
    };
    let mut out = BytesMut::with_capacity(HEADER_BYTES + packed.len());
    out.put_slice(batch.get(..HEADER_BYTES).unwrap_or_default());
    out.put(packed);
    let newest = records.iter().map(|r| header.base_timestamp_ms.wrapping_add(r.time_delta)).max();
    let max_timestamp_ms = match newest {
        Some(newest) if !header.has_append_time() => newest,
        _ => header.max_timestamp_ms,
    };
    batch::renew(&mut out, records.len(), max_timestamp_ms, horizon);
    Ok(out.freeze())
}

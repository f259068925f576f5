//! The first look at a plan's segments: which transactions were aborted, and which batch is the
//! last of each producer. Pure.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::batch::BatchHeader;
use crate::limits::MAX_PRODUCERS;
use crate::records::marker;

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marker {
    Abort,
    Commit,
}

/// What is known after all batches were noted, in order.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// First batch of the transaction under way, by producer.
    open: BTreeMap<i64, i64>,
    /// First and last offset of aborted transactions of which batches are left, by producer.
    aborted: BTreeMap<i64, Vec<(i64, i64)>>,
    /// Epoch and base offset of the last batch, by producer.
    last: BTreeMap<i64, (i16, i64)>,
}

impl Survey {
    /// Notes a batch. Producers whose batch is older than `since_ms` have expired.
    pub(crate) fn note(&mut self, header: &BatchHeader, batch: &Bytes, since_ms: i64) {
        if header.producer_id < 0 {
            return;
        }
        self.note_end(header, batch);
        if header.is_transactional() && !header.is_control() {
            self.open.entry(header.producer_id).or_insert(header.base_offset);
        }
        if header.max_timestamp_ms >= since_ms {
            self.note_last(header);
        }
    }

    /// Notes a batch behind the range, of which only markers count.
    pub(crate) fn note_end(&mut self, header: &BatchHeader, batch: &Bytes) {
        if !header.is_control() {
            return;
        }
        let producer = header.producer_id;
        let first = self.open.remove(&producer);
        if let (Some(first), Some(Marker::Abort)) = (first, marker(header, batch)) {
            let range = (first, header.base_offset);
            self.aborted.entry(producer).or_default().push(range);
        }
    }

    /// Whether a transaction has not ended as far as was looked.
    pub(crate) fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Whether a batch belongs to such a transaction: nothing can be said of it.
    pub(crate) fn is_open(&self, header: &BatchHeader) -> bool {
        let first = self.open.get(&header.producer_id);
        header.is_transactional()
            && !header.is_control()
            && first.is_some_and(|first| *first <= header.base_offset)
    }

    fn note_last(&mut self, header: &BatchHeader) {
        let (producer, epoch) = (header.producer_id, header.producer_epoch);
        // A marker says more than the data before it only when it has a newer epoch.
        let known = self.last.get(&producer);
        if header.is_control() && known.is_some_and(|(known, _)| *known == epoch) {
            return;
        }
        self.last.insert(producer, (epoch, header.base_offset));
        if self.last.len() > MAX_PRODUCERS {
            let oldest = self.last.iter().min_by_key(|(_, (_, offset))| *offset);
            if let Some(producer) = oldest.map(|(producer, _)| *producer) {
                self.last.remove(&producer);
            }
        }
    }

    /// Whether a batch of data belongs to an aborted transaction.
    pub(crate) fn is_aborted(&self, header: &BatchHeader) -> bool {
        if !header.is_transactional() {
            return false;
        }
        let Some(ranges) = self.aborted.get(&header.producer_id) else { return false };
        let after = ranges.partition_point(|(first, _)| *first <= header.base_offset);
        let range = after.checked_sub(1).and_then(|i| ranges.get(i));
        range.is_some_and(|(_, last)| header.base_offset < *last)
    }

    /// Whether a batch is the last of a producer that has not expired.
    pub(crate) fn is_last(&self, header: &BatchHeader) -> bool {
        let last = self.last.get(&header.producer_id);
        header.producer_id >= 0 && last.is_some_and(|(_, offset)| *offset == header.base_offset)
    }
}

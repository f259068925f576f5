//! Control batches: the markers that end a transaction in a partition.
//!
//! One record: key = version i16 (0), type i16 (0 abort, 1 commit); value = version i16 (0),
//! epoch of the coordinator i32. Big-endian, as in Kafka's `EndTransactionMarker`.

use bytes::Bytes;

use crate::batch::{build, with_control};
use crate::records::RecordRef;

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Outcome {
    /// Its records may be read.
    Commit,
    /// Its records must be skipped.
    Abort,
}

impl Outcome {
    /// From a flag of the protocol.
    pub fn of(committed: bool) -> Self {
        if committed { Self::Commit } else { Self::Abort }
    }
}

/// Who ended which producer's transaction, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Marker {
    pub(crate) producer_id: i64,
    /// The producer's epoch from now on.
    pub(crate) epoch: i16,
    /// Number of the transaction; `None` ends whatever is open (an administrator's marker).
    pub(crate) txn: Option<u64>,
    pub(crate) outcome: Outcome,
    /// Term of the coordinator.
    pub(crate) coordinator_epoch: i32,
}

/// The control batch of a marker, without offset and leader epoch.
pub(crate) fn batch(marker: &Marker, time_ms: i64) -> Bytes {
    let kind: i16 = if marker.outcome == Outcome::Commit { 1 } else { 0 };
    let key = [0i16.to_be_bytes(), kind.to_be_bytes()].concat();
    let value = [&0i16.to_be_bytes()[..], &marker.coordinator_epoch.to_be_bytes()].concat();
    let record = RecordRef {
        key: Some(key.into()),
        value: Some(value.into()),
        timestamp_ms: time_ms,
        ..RecordRef::default()
    };
    with_control(&build(&[record]), marker.producer_id, marker.epoch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::BatchHeader;

    #[test]
    fn a_marker_is_a_control_batch_of_kafkas_layout() {
        let marker = Marker {
            producer_id: 7,
            epoch: 3,
            txn: Some(1),
            outcome: Outcome::Commit,
            coordinator_epoch: 9,
        };
        let bytes = batch(&marker, 1000);
        let header = BatchHeader::parse(&bytes).unwrap();
        assert!(header.is_control() && header.is_transactional());
        assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (7, 3, -1));
        assert_eq!((header.record_count, header.max_timestamp_ms), (1, 1000));
        assert_eq!(base::crc::crc32c(&bytes[21..]), header.crc);
        // Length, attributes, deltas, key of 4 bytes, value of 6 bytes, no headers.
        let record = [32, 0, 0, 0, 8, 0, 0, 0, 1, 12, 0, 0, 0, 0, 0, 9, 0];
        assert_eq!(bytes[61..], record);
    }
}

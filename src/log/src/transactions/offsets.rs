//! Offsets committed inside transactions, in the data group of their consumer group.
//!
//! Rows: `x` + group + producer id: what the group knows of a producer's transactions; `y` +
//! group + producer id + topic id + partition: a pending offset. The group has a u16 length
//! before it. A marker turns pending offsets into committed ones, or drops them.

use std::collections::BTreeSet;

use base::codec;
use consensus::{ApplyAt, Fatal, Rows, RowsReader};
use serde::{Deserialize, Serialize};

use super::command::{ProducerEpoch, TxnError};
use super::marker::{Marker, Outcome};
use crate::command::OffsetEntry;
use crate::data::keys;
use crate::error::LogError;
use crate::offsets::OffsetRow;
use crate::types::PartKey;

/// What a group knows of a producer's transactions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupTxnRow {
    epoch: i16,
    /// Number of the transaction that has pending offsets; 0 when there is none.
    open: u64,
    /// Number of the newest one that was ended.
    ended: u64,
    time_ms: i64,
}

/// Prefix of the rows of a group, of kind `x` or `y`.
pub(crate) fn prefix(kind: u8, group: &str) -> Vec<u8> {
    let offsets = keys::offsets(group);
    [&[kind], offsets.get(1..).unwrap_or_default()].concat()
}

fn head_key(group: &str, producer_id: i64) -> Vec<u8> {
    [prefix(b'x', group), producer_id.to_be_bytes().to_vec()].concat()
}

/// Number of a producer's newest transaction that was ended in a group; 0 before the first.
pub(crate) fn ended(rows: &RowsReader, group: &str, producer_id: i64) -> Result<u64, LogError> {
    let row = rows.get(&head_key(group, producer_id))?;
    let head = row.map(|value| codec::decode::<GroupTxnRow>(&value)).transpose()?;
    Ok(head.map_or(0, |head| head.ended))
}

fn pending_prefix(group: &str, producer_id: i64) -> Vec<u8> {
    [prefix(b'y', group), producer_id.to_be_bytes().to_vec()].concat()
}

/// Notes offsets that count once the transaction commits.
pub(crate) fn commit(
    at: &ApplyAt,
    group: &str,
    producer: ProducerEpoch,
    number: u64,
    offsets: &[OffsetEntry],
    rows: &mut Rows<'_>,
) -> Result<Result<(), TxnError>, Fatal> {
    let key = head_key(group, producer.producer_id);
    let mut head: GroupTxnRow =
        rows.get(&key)?.map(|v| codec::decode(&v)).transpose()?.unwrap_or_default();
    if producer.epoch < head.epoch {
        return Ok(Err(TxnError::InvalidProducerEpoch));
    }
    // A commit that comes late must not stay pending for ever.
    if number <= head.ended || head.open != 0 && head.open != number {
        return Ok(Err(TxnError::InvalidTxnState));
    }
    (head.epoch, head.open, head.time_ms) = (producer.epoch, number, at.time_ms);
    rows.put(&key, codec::encode(&head));
    let pending = pending_prefix(group, producer.producer_id);
    for entry in offsets {
        let part = keys::part(b'y', &entry.key);
        let key = [&pending[..], part.get(1..).unwrap_or_default()].concat();
        rows.put(&key, codec::encode(&OffsetRow::of(entry, at.time_ms)));
    }
    Ok(Ok(()))
}

/// Applies a marker to a group. Nothing happens when that was done before.
pub(crate) fn end(
    at: &ApplyAt,
    group: &str,
    marker: &Marker,
    rows: &mut Rows<'_>,
) -> Result<(), Fatal> {
    let key = head_key(group, marker.producer_id);
    let mut head: GroupTxnRow =
        rows.get(&key)?.map(|v| codec::decode(&v)).transpose()?.unwrap_or_default();
    let number = marker.txn.unwrap_or(head.open);
    if number <= head.ended {
        return Ok(());
    }
    (head.open, head.ended, head.time_ms) = (0, number, at.time_ms);
    head.epoch = head.epoch.max(marker.epoch);
    rows.put(&key, codec::encode(&head));
    let pending = pending_prefix(group, marker.producer_id);
    for (row, value) in rows.scan(&pending)? {
        rows.delete(&row);
        if marker.outcome == Outcome::Abort {
            continue;
        }
        let Some(part) = keys::part_of(row.get(pending.len()..).unwrap_or_default()) else {
            continue;
        };
        let key = keys::offset(group, &part);
        let committed = rows.get(&key)?.map(|v| codec::decode::<OffsetRow>(&v)).transpose()?;
        let offset: OffsetRow = codec::decode(&value)?;
        // What was committed outside the transaction later stands.
        if committed.is_none_or(|old| old.commit_time_ms <= offset.commit_time_ms) {
            rows.put(&key, value);
        }
    }
    Ok(())
}

/// Forgets what is pending for some partitions of a group.
pub(crate) fn forget_parts(
    group: &str,
    parts: &BTreeSet<PartKey>,
    rows: &mut Rows<'_>,
) -> Result<(), Fatal> {
    let prefix = prefix(b'y', group);
    for (row, _) in rows.scan(&prefix)? {
        if pending_part(&row, &prefix).is_some_and(|part| parts.contains(&part)) {
            rows.delete(&row);
        }
    }
    Ok(())
}

/// Forgets everything about the transactions of a group that is deleted.
pub(crate) fn forget_group(group: &str, rows: &mut Rows<'_>) -> Result<(), Fatal> {
    for kind in [b'x', b'y'] {
        for (row, _) in rows.scan(&prefix(kind, group))? {
            rows.delete(&row);
        }
    }
    Ok(())
}

/// Whether a row of kind `x` can be forgotten.
pub(crate) fn is_old(value: &[u8], before_ms: i64) -> Result<bool, codec::DecodeError> {
    let head: GroupTxnRow = codec::decode(value)?;
    Ok(head.open == 0 && head.time_ms < before_ms)
}

/// Forgets producers whose transactions ended before.
pub(crate) fn expire(before_ms: i64, rows: &mut Rows<'_>) -> Result<(), Fatal> {
    for (row, value) in rows.scan(b"x")? {
        if is_old(&value, before_ms)? {
            rows.delete(&row);
        }
    }
    Ok(())
}

/// The partition of a row of kind `y`, and its group's prefix.
pub(crate) fn pending_part(row: &[u8], prefix: &[u8]) -> Option<PartKey> {
    keys::part_of(row.get(prefix.len() + 8..)?)
}

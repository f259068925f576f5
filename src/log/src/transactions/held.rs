//! What one partition knows of transactions. Pure; runs inside apply.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::marker::{Marker, Outcome};
use crate::batch::BatchHeader;

/// A transaction that was aborted in a partition: its records must be skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbortedTxn {
    /// The producer.
    pub producer_id: i64,
    /// Offset of the transaction's first record.
    pub first_offset: i64,
    /// Offset of its marker.
    pub last_offset: i64,
    /// The partition's last stable offset after the marker: every transaction that ended later
    /// begins there or after.
    pub(crate) stable_offset: i64,
}

/// Which transaction a batch says it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// To none.
    Plain,
    /// To the one with this number, which is open here or which the coordinator confirmed.
    Number(u64),
}

/// Why a batch does not fit the producer's transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal;

/// A producer's transactions in a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    /// First offset and number of the transaction that is open.
    open: Option<(i64, u64)>,
    /// Number of the newest one that was ended.
    ended: u64,
    /// Newest coordinator that wrote a marker; −1 before the first.
    coordinator_epoch: i32,
}

/// The transactions of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PartTxns {
    held: BTreeMap<i64, Held>,
    /// First offset and producer of each open transaction.
    open: BTreeSet<(i64, i64)>,
    /// By offset of the marker. One takes 32 bytes for at least two batches of the log.
    aborted: Vec<AbortedTxn>,
    /// Those with markers below are in rows of the latest checkpoint.
    stored_before: i64,
    /// Markers of those whose rows the next checkpoint deletes.
    gone: Vec<i64>,
}

/// The part that fits one row of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HeldRow(Vec<(i64, Held)>);

impl PartTxns {
    /// Whether a batch may be appended as part of the transaction that it claims.
    pub(crate) fn judge(&self, batch: &BatchHeader, claim: Claim) -> Result<(), Refusal> {
        let held = self.held.get(&batch.producer_id);
        let open = held.and_then(|held| held.open);
        if !batch.is_transactional() {
            // Kafka's INVALID_TXN_STATE: a producer is in its transaction with all it sends.
            return if open.is_none() { Ok(()) } else { Err(Refusal) };
        }
        let fits = match (claim, open) {
            (Claim::Plain, _) => false,
            (Claim::Number(txn), Some((_, number))) => txn == number,
            (Claim::Number(txn), None) => txn > held.map_or(0, |held| held.ended),
        };
        if fits { Ok(()) } else { Err(Refusal) }
    }

    /// Notes a transactional batch that was judged and appended.
    pub(crate) fn note(&mut self, batch: &BatchHeader, claim: Claim, base_offset: i64) {
        let Claim::Number(txn) = claim else { return };
        let held = self.held.entry(batch.producer_id).or_insert_with(Held::fresh);
        if held.open.is_none() {
            held.open = Some((base_offset, txn));
            self.open.insert((base_offset, batch.producer_id));
        }
    }

    /// Whether the marker has been applied before.
    pub(crate) fn has_ended(&self, marker: &Marker) -> bool {
        let ended = self.ended(marker.producer_id);
        marker.txn.is_some_and(|txn| txn <= ended)
    }

    /// Number of a producer's newest transaction that was ended here; 0 before the first.
    pub(crate) fn ended(&self, producer_id: i64) -> u64 {
        self.held.get(&producer_id).map_or(0, |held| held.ended)
    }

    /// Newest coordinator that wrote a marker for a producer; −1 when there was none.
    pub(crate) fn coordinator_epoch(&self, producer_id: i64) -> i32 {
        self.held.get(&producer_id).map_or(-1, |held| held.coordinator_epoch)
    }

    /// Number of a producer's open transaction.
    pub(crate) fn open_number(&self, producer_id: i64) -> Option<u64> {
        self.held.get(&producer_id)?.open.map(|(_, number)| number)
    }

    /// First offset of a producer's open transaction.
    pub(crate) fn open_since(&self, producer_id: i64) -> Option<i64> {
        self.held.get(&producer_id)?.open.map(|(first, _)| first)
    }

    /// Whether the producer has a transaction open.
    pub(crate) fn is_open(&self, producer_id: i64) -> bool {
        self.open_since(producer_id).is_some()
    }

    /// Ends a producer's transaction with the marker at `offset`, where the log then ends.
    pub(crate) fn end(&mut self, marker: &Marker, offset: i64) {
        let held = self.held.entry(marker.producer_id).or_insert_with(Held::fresh);
        held.coordinator_epoch = held.coordinator_epoch.max(marker.coordinator_epoch);
        let open = match marker.txn {
            Some(number) => held.open.take_if(|(_, open)| *open <= number),
            None => held.open.take(),
        };
        let number = marker.txn.or(open.map(|(_, txn)| txn)).unwrap_or(0);
        held.ended = held.ended.max(number);
        let Some((first_offset, _)) = open else { return };
        let producer_id = marker.producer_id;
        self.open.remove(&(first_offset, producer_id));
        if marker.outcome == Outcome::Abort {
            let stable_offset = self.first_open().unwrap_or(offset.saturating_add(1));
            let (last_offset, aborted) = (offset, &mut self.aborted);
            aborted.push(AbortedTxn { producer_id, first_offset, last_offset, stable_offset });
        }
    }

    /// First offset of the oldest open transaction.
    pub(crate) fn first_open(&self) -> Option<i64> {
        self.open.first().map(|(first, _)| *first)
    }

    /// Aborted transactions that have records in `from..to`, by offset of their markers.
    pub(crate) fn aborted(&self, from: i64, to: i64) -> Vec<AbortedTxn> {
        let first = self.aborted.partition_point(|txn| txn.last_offset < from);
        let mut found = Vec::new();
        for txn in self.aborted.get(first..).unwrap_or_default() {
            if txn.first_offset < to {
                found.push(*txn);
            }
            if txn.stable_offset >= to {
                break;
            }
        }
        found
    }

    /// Forgets what lies below the log's start.
    pub(crate) fn trim(&mut self, log_start: i64) {
        let gone = self.aborted.partition_point(|txn| txn.last_offset < log_start);
        let markers = self.aborted.drain(..gone).map(|txn| txn.last_offset);
        let stored = markers.filter(|marker| *marker < self.stored_before);
        self.gone.extend(stored);
    }

    /// Forgets aborted transactions whose markers, in order, compaction has dropped: readers would
    /// wait for them and skip what the producer committed later.
    pub(crate) fn forget_aborted(&mut self, markers: &[i64]) {
        let Self { aborted, gone, stored_before, .. } = self;
        aborted.retain(|txn| {
            let stays = markers.binary_search(&txn.last_offset).is_err();
            if !stays && txn.last_offset < *stored_before {
                gone.push(txn.last_offset);
            }
            stays
        });
    }

    /// Forgets a producer without an open transaction.
    pub(crate) fn forget(&mut self, producer_id: i64) {
        if !self.is_open(producer_id) {
            self.held.remove(&producer_id);
        }
    }

    /// Forgets producers that the partition no longer knows, unless their transaction is open.
    pub(crate) fn retain(&mut self, knows: impl Fn(i64) -> bool) {
        self.held.retain(|id, held| held.open.is_some() || knows(*id));
    }

    /// Producers as rows of at most `size`.
    pub(crate) fn held_rows(&self, size: usize) -> Vec<HeldRow> {
        let all: Vec<_> = self.held.iter().map(|(id, held)| (*id, *held)).collect();
        all.chunks(size).map(|chunk| HeldRow(chunk.to_vec())).collect()
    }

    /// Takes producers from a row.
    pub(crate) fn take_held(&mut self, row: HeldRow) {
        for (id, held) in row.0 {
            if let Some((first, _)) = held.open {
                self.open.insert((first, id));
            }
            self.held.insert(id, held);
        }
    }

    /// Aborted transactions that no checkpoint holds yet; they count as stored from now on.
    pub(crate) fn store_aborted(&mut self) -> Vec<AbortedTxn> {
        let before = self.stored_before;
        let first = self.aborted.partition_point(|txn| txn.last_offset < before);
        let new = self.aborted.get(first..).unwrap_or_default().to_vec();
        if let Some(last) = new.last() {
            self.stored_before = last.last_offset.saturating_add(1);
        }
        new
    }

    /// Markers of aborted transactions whose rows are to be deleted.
    pub(crate) fn take_gone(&mut self) -> Vec<i64> {
        std::mem::take(&mut self.gone)
    }

    /// Takes an aborted transaction from a row; in order of markers.
    pub(crate) fn take_aborted(&mut self, txn: AbortedTxn) {
        self.stored_before = txn.last_offset.saturating_add(1);
        self.aborted.push(txn);
    }

    /// Every aborted transaction, by offset of their markers.
    pub(crate) fn all_aborted(&self) -> &[AbortedTxn] {
        &self.aborted
    }
}

impl Held {
    fn fresh() -> Self {
        Self { open: None, ended: 0, coordinator_epoch: -1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{build, validate, with_transaction};
    use crate::records::RecordRef;

    fn batch(producer_id: i64) -> BatchHeader {
        let one = build(&[RecordRef::value(b"x", 1)]);
        validate(&with_transaction(&one, producer_id, 0, 0)).unwrap()
    }

    fn marker(producer_id: i64, txn: u64, outcome: Outcome) -> Marker {
        Marker { producer_id, epoch: 0, txn: Some(txn), outcome, coordinator_epoch: 1 }
    }

    fn open(txns: &mut PartTxns, producer_id: i64, txn: u64, offset: i64) {
        let (batch, claim) = (batch(producer_id), Claim::Number(txn));
        txns.judge(&batch, claim).unwrap();
        txns.note(&batch, claim, offset);
    }

    #[test]
    fn the_oldest_open_transaction_holds_the_stable_offset() {
        let mut txns = PartTxns::default();
        open(&mut txns, 1, 1, 10);
        open(&mut txns, 2, 5, 12);
        assert_eq!(txns.first_open(), Some(10));
        txns.end(&marker(1, 1, Outcome::Commit), 13);
        assert_eq!(txns.first_open(), Some(12));
        txns.end(&marker(2, 5, Outcome::Abort), 14);
        assert_eq!(txns.first_open(), None);
        let (first_offset, last_offset) = (12, 14);
        let aborted = AbortedTxn { producer_id: 2, first_offset, last_offset, stable_offset: 15 };
        assert_eq!(txns.aborted(0, 100), [aborted]);
        assert_eq!(txns.aborted(14, 15), [aborted]);
        assert_eq!(txns.aborted(0, 12), []);
        assert_eq!(txns.aborted(15, 100), []);
    }

    #[test]
    fn a_late_batch_opens_nothing() {
        let mut txns = PartTxns::default();
        open(&mut txns, 1, 3, 0);
        assert_eq!(txns.open_number(1), Some(3));
        assert_eq!(txns.judge(&batch(1), Claim::Number(4)), Err(Refusal));
        txns.end(&marker(1, 3, Outcome::Commit), 1);
        assert!(txns.has_ended(&marker(1, 3, Outcome::Commit)));
        for claim in [Claim::Plain, Claim::Number(3), Claim::Number(2)] {
            assert_eq!(txns.judge(&batch(1), claim), Err(Refusal), "{claim:?}");
        }
        assert_eq!(txns.judge(&batch(1), Claim::Number(4)), Ok(()));
    }

    #[test]
    fn a_marker_before_any_record_still_ends_the_transaction() {
        let mut txns = PartTxns::default();
        txns.end(&marker(1, 3, Outcome::Abort), 0);
        assert_eq!(txns.judge(&batch(1), Claim::Number(3)), Err(Refusal));
        assert_eq!(txns.aborted(0, 10), []);
    }

    #[test]
    fn an_administrators_marker_ends_whatever_is_open() {
        let mut txns = PartTxns::default();
        open(&mut txns, 1, 3, 0);
        txns.end(&Marker { txn: None, ..marker(1, 0, Outcome::Abort) }, 1);
        assert_eq!(txns.first_open(), None);
        assert_eq!(txns.judge(&batch(1), Claim::Number(3)), Err(Refusal));
    }

    #[test]
    fn rows_bring_everything_back() {
        let mut txns = PartTxns::default();
        for n in 0..10 {
            open(&mut txns, n, 1, n * 10);
            if n % 2 == 0 {
                txns.end(&marker(n, 1, Outcome::Abort), n * 10 + 1);
            }
        }
        let (mut aborted, rows) = (txns.store_aborted(), txns.held_rows(3));
        assert_eq!((aborted.len(), rows.len(), txns.store_aborted().len()), (5, 4, 0));
        open(&mut txns, 20, 1, 200);
        txns.end(&marker(20, 1, Outcome::Abort), 201);
        aborted.extend(txns.store_aborted());
        let mut again = PartTxns::default();
        txns.held_rows(100).into_iter().for_each(|row| again.take_held(row));
        aborted.into_iter().for_each(|txn| again.take_aborted(txn));
        assert_eq!(again, txns);
        again.trim(21);
        assert_eq!((again.aborted(0, 1000).len(), again.take_gone()), (5, vec![1]));
    }
}

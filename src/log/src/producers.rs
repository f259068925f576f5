//! Idempotent producers of one partition (KIP-98). Pure; runs inside apply.

use std::collections::{BTreeMap, VecDeque};

use base::broken::{self, Broken};
use serde::{Deserialize, Serialize};

use crate::batch::{BatchHeader, add_sequence};
use crate::limits::{MAX_PRODUCERS, PRODUCER_BATCHES};

/// A producer of a partition, for DescribeProducers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveProducer {
    /// The producer.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// Sequence number of its last record, −1 when only a marker is known.
    pub last_sequence: i32,
    /// When it was last heard.
    pub last_time_ms: i64,
    /// Term of the coordinator that wrote its last marker, −1 before the first.
    pub coordinator_epoch: i32,
    /// First offset of its open transaction, −1 when there is none.
    pub txn_start_offset: i64,
}

/// A remembered batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    first_sequence: i32,
    last_sequence: i32,
    base_offset: i64,
}

/// What a partition remembers of a producer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Producer {
    epoch: i16,
    last_time_ms: i64,
    batches: VecDeque<Seen>,
}

/// Whether a batch may be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Append,
    /// Held already, with this first offset.
    Duplicate(i64),
    OutOfOrder,
    OldEpoch,
}

/// The producers of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Producers {
    known: BTreeMap<i64, Producer>,
    /// Highest id of those forgotten. Ids only grow, so one above was never seen.
    forgotten: Option<i64>,
}

impl Producers {
    /// Nobody is known; those up to `forgotten` may have been, to a topic that had this one's
    /// name.
    pub(crate) fn new(forgotten: Option<i64>) -> Self {
        Self { known: BTreeMap::new(), forgotten }
    }

    /// Judges a batch of an idempotent producer; others may always append.
    pub(crate) fn judge(&self, batch: &BatchHeader) -> Verdict {
        if batch.producer_id < 0 {
            return Verdict::Append;
        }
        let Some(known) = self.known.get(&batch.producer_id) else {
            // Who was forgotten goes on where it was (KIP-360). Who was never seen begins at 0:
            // clients take a batch for stored once one behind it is, and the one before this may
            // still be under way, or lie with a node that was cut off.
            let begins = batch.base_sequence == 0 || broken::is(Broken::BeginAnywhere);
            let forgotten = Some(batch.producer_id) <= self.forgotten;
            return if begins || forgotten { Verdict::Append } else { Verdict::OutOfOrder };
        };
        if batch.producer_epoch < known.epoch {
            return Verdict::OldEpoch;
        }
        if batch.producer_epoch > known.epoch {
            return if batch.base_sequence == 0 { Verdict::Append } else { Verdict::OutOfOrder };
        }
        let (first, last) = (batch.base_sequence, batch.last_sequence());
        let same = |seen: &&Seen| seen.first_sequence == first && seen.last_sequence == last;
        // KIP-98: a batch we already hold is acknowledged with its first offset.
        if let Some(seen) = known.batches.iter().find(same) {
            return Verdict::Duplicate(seen.base_offset);
        }
        // Without a batch a marker told of this epoch: the producer begins it at 0.
        let next = known.batches.back().map_or(0, |seen| add_sequence(seen.last_sequence, 1));
        if next == first { Verdict::Append } else { Verdict::OutOfOrder }
    }

    /// Forgets the one longest idle when there is no room for a new producer, and says whom. One
    /// who is `busy` stays.
    pub(crate) fn make_room(
        &mut self,
        producer_id: i64,
        busy: impl Fn(i64) -> bool,
    ) -> Option<i64> {
        if self.known.len() < MAX_PRODUCERS || self.known.contains_key(&producer_id) {
            return None;
        }
        let idle = self.known.iter().filter(|(id, _)| !busy(**id));
        let (id, _) = idle.min_by_key(|(id, p)| (p.last_time_ms, **id))?;
        let id = *id;
        self.known.remove(&id);
        self.forgotten = self.forgotten.max(Some(id));
        Some(id)
    }

    /// Notes an appended batch.
    pub(crate) fn note(&mut self, batch: &BatchHeader, base_offset: i64, time_ms: i64) {
        if batch.producer_id < 0 {
            return;
        }
        let known = self.reach(batch.producer_id, batch.producer_epoch, time_ms);
        known.batches.push_back(Seen {
            first_sequence: batch.base_sequence,
            last_sequence: batch.last_sequence(),
            base_offset,
        });
        if known.batches.len() > PRODUCER_BATCHES {
            known.batches.pop_front();
        }
    }

    /// Notes the epoch that a marker tells of, unless a newer one is known.
    pub(crate) fn note_epoch(&mut self, producer_id: i64, epoch: i16, time_ms: i64) {
        let newest = self.epoch_of(producer_id).unwrap_or(epoch).max(epoch);
        self.reach(producer_id, newest, time_ms);
    }

    /// The producer in that epoch; what is known of another one is forgotten.
    fn reach(&mut self, producer_id: i64, epoch: i16, time_ms: i64) -> &mut Producer {
        let fresh = || Producer { epoch, last_time_ms: 0, batches: VecDeque::new() };
        let known = self.known.entry(producer_id).or_insert_with(fresh);
        if known.epoch != epoch {
            *known = fresh();
        }
        known.last_time_ms = time_ms;
        known
    }

    /// The epoch that is known of a producer.
    pub(crate) fn epoch_of(&self, producer_id: i64) -> Option<i16> {
        self.known.get(&producer_id).map(|known| known.epoch)
    }

    /// Forgets producers that were last heard before `time_ms` and are not `busy`.
    pub(crate) fn expire(&mut self, time_ms: i64, busy: impl Fn(i64) -> bool) {
        let forgotten = &mut self.forgotten;
        self.known.retain(|id, producer| {
            let stays = producer.last_time_ms >= time_ms || busy(*id);
            if !stays {
                *forgotten = (*forgotten).max(Some(*id));
            }
            stays
        });
    }

    /// Highest id of those forgotten.
    pub(crate) fn forgotten(&self) -> Option<i64> {
        self.forgotten
    }

    /// Highest id of all that were ever seen.
    pub(crate) fn highest(&self) -> Option<i64> {
        self.known.last_key_value().map(|(id, _)| *id).max(self.forgotten)
    }

    /// Whether one that is not `busy` was last heard before `time_ms`.
    pub(crate) fn any_before(&self, time_ms: i64, busy: impl Fn(i64) -> bool) -> bool {
        self.known.iter().any(|(id, producer)| producer.last_time_ms < time_ms && !busy(*id))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&i64, &Producer)> {
        self.known.iter()
    }

    /// Everybody, as far as this module knows them.
    pub(crate) fn describe(&self) -> Vec<ActiveProducer> {
        let one = |(id, known): (&i64, &Producer)| ActiveProducer {
            producer_id: *id,
            epoch: known.epoch,
            last_sequence: known.batches.back().map_or(-1, |seen| seen.last_sequence),
            last_time_ms: known.last_time_ms,
            coordinator_epoch: -1,
            txn_start_offset: -1,
        };
        self.known.iter().map(one).collect()
    }

    pub(crate) fn extend(&mut self, producers: Vec<(i64, Producer)>) {
        self.known.extend(producers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{build, validate, with_producer};
    use crate::records::RecordRef;

    fn batch(epoch: i16, sequence: i32, count: usize) -> BatchHeader {
        let records = vec![RecordRef::value(b"x", 1); count];
        validate(&with_producer(&build(&records), 9, epoch, sequence)).unwrap()
    }

    fn check(steps: &[(BatchHeader, Verdict)]) {
        check_from(Producers::default(), steps);
    }

    fn check_from(mut producers: Producers, steps: &[(BatchHeader, Verdict)]) {
        let mut offset = 100;
        for (i, (batch, verdict)) in steps.iter().enumerate() {
            assert_eq!(producers.judge(batch), *verdict, "step {i}");
            if *verdict == Verdict::Append {
                producers.note(batch, offset, 0);
                offset += i64::from(batch.record_count);
            }
        }
    }

    #[test]
    fn repeated_batches_get_their_first_offset() {
        check(&[
            (batch(0, 0, 2), Verdict::Append),
            (batch(0, 2, 3), Verdict::Append),
            (batch(0, 0, 2), Verdict::Duplicate(100)),
            (batch(0, 2, 3), Verdict::Duplicate(102)),
            (batch(0, 5, 1), Verdict::Append),
        ]);
    }

    #[test]
    fn gaps_and_forgotten_batches_are_out_of_order() {
        check(&[
            (batch(0, 0, 1), Verdict::Append),
            (batch(0, 2, 1), Verdict::OutOfOrder),
            (batch(0, 1, 1), Verdict::Append),
            (batch(0, 2, 1), Verdict::Append),
            (batch(0, 3, 1), Verdict::Append),
            (batch(0, 4, 1), Verdict::Append),
            (batch(0, 5, 1), Verdict::Append),
            (batch(0, 0, 1), Verdict::OutOfOrder),
            (batch(0, 1, 1), Verdict::Duplicate(101)),
        ]);
    }

    #[test]
    fn who_was_never_seen_begins_at_zero() {
        check(&[
            (batch(0, 2, 1), Verdict::OutOfOrder),
            (batch(0, 0, 2), Verdict::Append),
            (batch(0, 2, 1), Verdict::Append),
        ]);
    }

    #[test]
    fn who_was_forgotten_goes_on_anywhere() {
        let mut producers = Producers::default();
        producers.note(&batch(0, 0, 1), 0, 5);
        assert_eq!((producers.forgotten(), producers.highest()), (None, Some(9)));
        producers.expire(6, |_| false);
        assert_eq!((producers.forgotten(), producers.highest()), (Some(9), Some(9)));
        assert_eq!(producers.judge(&batch(0, 7, 1)), Verdict::Append);
        let above = Producers::new(Some(8));
        assert_eq!(above.judge(&batch(0, 7, 1)), Verdict::OutOfOrder);
    }

    #[test]
    fn room_is_made_by_forgetting() {
        let mut producers = Producers::default();
        let many = i64::try_from(MAX_PRODUCERS).unwrap();
        for id in 0..many {
            producers.note_epoch(id, 0, i64::from(id != 9));
        }
        assert_eq!(producers.make_room(9, |_| false), None, "it has a place");
        assert_eq!(producers.make_room(many, |_| false), Some(9));
        assert_eq!(producers.forgotten(), Some(9));
        assert_eq!(producers.judge(&batch(0, 7, 1)), Verdict::Append);
    }

    #[test]
    fn a_new_epoch_starts_at_zero_and_fences_the_old() {
        check(&[
            (batch(0, 0, 1), Verdict::Append),
            (batch(1, 1, 1), Verdict::OutOfOrder),
            (batch(1, 0, 1), Verdict::Append),
            (batch(0, 1, 1), Verdict::OldEpoch),
        ]);
    }

    #[test]
    fn a_marker_begins_an_epoch_and_keeps_a_newer_one() {
        let mut producers = Producers::default();
        producers.note(&batch(0, 0, 1), 0, 5);
        producers.note_epoch(9, 1, 6);
        assert_eq!(producers.judge(&batch(0, 1, 1)), Verdict::OldEpoch);
        assert_eq!(producers.judge(&batch(1, 1, 1)), Verdict::OutOfOrder);
        assert_eq!(producers.judge(&batch(1, 0, 1)), Verdict::Append);
        producers.note_epoch(9, 0, 7);
        assert_eq!(producers.epoch_of(9), Some(1));
        producers.expire(8, |id| id == 9);
        assert_eq!(producers.epoch_of(9), Some(1), "a busy one stays");
        producers.expire(8, |_| false);
        assert_eq!(producers.epoch_of(9), None);
    }

    #[test]
    fn sequences_wrap() {
        let steps = [
            (batch(0, i32::MAX - 1, 2), Verdict::Append),
            (batch(0, 0, 2), Verdict::Append),
            (batch(0, i32::MAX - 1, 2), Verdict::Duplicate(100)),
        ];
        check_from(Producers::new(Some(9)), &steps);
    }
}

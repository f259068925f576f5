//! Gaps in a producer's sequence numbers that close by themselves.
//!
//! A client has several batches under way. When the leader moves, or refuses the first of them for
//! a moment, a later one may come to the leader before the first is sent again. Kafka answers
//! `OUT_OF_ORDER_SEQUENCE_NUMBER`, upon which librdkafka begins a new epoch and sends again under
//! it all that has no answer yet, to every partition: what was stored already is there twice. So
//! for a while such a batch is told that it came to a node that does not lead, and clients repeat
//! it in its turn.

use std::time::Duration;

/// How long a batch that is missing may be under way: as clients wait for an answer of a node that
/// is cut off.
const PATIENCE: Duration = Duration::from_secs(10);

/// When batches of a partition's producers last went astray. Known to the leader only.
#[derive(Debug, Default)]
pub(crate) struct Unsettled {
    term: u64,
    since: Option<Duration>,
}

impl Unsettled {
    /// A batch came to the leader of `term`. `inherits` says that the partition is older than the
    /// term, so that other batches may have gone to the leader before.
    pub(crate) fn came(&mut self, term: u64, inherits: bool, now: Duration) {
        if self.term != term {
            self.term = term;
            self.since = inherits.then_some(now).or(self.since);
        }
    }

    /// A batch was refused that its producer will send again.
    pub(crate) fn refused(&mut self, now: Duration) {
        self.since = Some(now);
    }

    /// Whether a batch that is missing may still come.
    pub(crate) fn lasts(&self, now: Duration) -> bool {
        self.since.is_some_and(|since| now.saturating_sub(since) < PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_first_leader_knows_of_every_batch() {
        let mut unsettled = Unsettled::default();
        unsettled.came(1, false, at(5));
        assert!(!unsettled.lasts(at(5)));
    }

    #[test]
    fn after_another_leader_batches_may_be_missing_for_a_while() {
        let mut unsettled = Unsettled::default();
        unsettled.came(2, true, at(5));
        unsettled.came(2, true, at(14));
        assert!(unsettled.lasts(at(14)));
        assert!(!unsettled.lasts(at(15)));
    }

    #[test]
    fn a_refused_batch_may_come_again() {
        let mut unsettled = Unsettled::default();
        unsettled.came(1, false, at(1));
        unsettled.refused(at(2));
        assert!(unsettled.lasts(at(11)));
        assert!(!unsettled.lasts(at(12)));
    }
}

//! Crashes of transaction coordinators, each at the moment in which the row of a transactional id
//! enters a state there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::env::{Random, SeededRandom};
use log::TxnDescription;
use log::transactions::TxnState;
use tokio::time::Instant;

use crate::faults;
use crate::node::Life;
use crate::world::World;

/// Rows are looked at so often.
const LOOK: Duration = Duration::from_millis(1);
/// Longest wait for a state.
const PATIENCE: Duration = Duration::from_secs(5);
/// More ids than there are.
const MOST_IDS: usize = 100;

/// A state that a row enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    /// A producer begins.
    Empty,
    /// A transaction has partitions.
    Partitions,
    /// A transaction has a consumer group.
    Offsets,
    PrepareCommit,
    /// A client aborts, or is fenced by its next life.
    PrepareAbort,
    /// A transaction took too long.
    TimedOut,
    CompleteCommit,
    CompleteAbort,
}

/// How many states there are.
pub const AIMS: usize = 8;

const ALL: [Aim; AIMS] = [
    Aim::Empty,
    Aim::Partitions,
    Aim::Offsets,
    Aim::PrepareCommit,
    Aim::PrepareAbort,
    Aim::TimedOut,
    Aim::CompleteCommit,
    Aim::CompleteAbort,
];

impl Aim {
    /// The state that a row is in.
    fn of(txn: &TxnDescription, now_ms: i64) -> Self {
        let late = now_ms >= txn.start_ms.saturating_add(i64::from(txn.timeout_ms));
        match txn.state {
            TxnState::Empty => Self::Empty,
            TxnState::Ongoing if txn.groups.is_empty() => Self::Partitions,
            TxnState::Ongoing => Self::Offsets,
            TxnState::PrepareCommit => Self::PrepareCommit,
            TxnState::PrepareAbort if late => Self::TimedOut,
            TxnState::PrepareAbort => Self::PrepareAbort,
            TxnState::CompleteCommit => Self::CompleteCommit,
            TxnState::CompleteAbort => Self::CompleteAbort,
        }
    }
}

/// Waits for one state after the other and crashes the node that coordinates the id; others
/// start it again. Counts the crashes.
pub async fn run(world: &World, random: &SeededRandom, time: Duration) {
    let until = Instant::now() + time;
    let first = usize::from(world.seed.to_le_bytes()[0]) % AIMS;
    for (number, aim) in ALL.iter().enumerate().cycle().skip(first) {
        tokio::time::sleep(Duration::from_millis(500 + random.below(2_000))).await;
        let Some(life) = seek(world, *aim, until.min(Instant::now() + PATIENCE)).await else {
            if Instant::now() >= until {
                return;
            }
            continue;
        };
        world.note(format!("a transaction is {aim:?} on node {}", life.node));
        if let Some(hits) = world.txns.lock().aimed.get_mut(number) {
            *hits += 1;
        }
        world.crash(&[life.node], faults::kind(random)).await;
    }
}

/// A node on which a row has just entered a state.
async fn seek(world: &World, aim: Aim, until: Instant) -> Option<Arc<Life>> {
    let mut before: BTreeMap<(u16, String), (Aim, i64)> = BTreeMap::new();
    while Instant::now() < until {
        for life in world.up().into_iter().filter_map(|node| world.life(node)) {
            for txn in life.log.list_transactions(MOST_IDS).unwrap_or_default() {
                let now = (Aim::of(&txn, life.log.now_ms()), txn.start_ms);
                let last = before.insert((life.node.0, txn.id), now);
                if now.0 == aim && last.is_some_and(|last| last != now) {
                    return Some(life);
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
    None
}

#[cfg(test)]
mod tests {
    use log::transactions::ProducerEpoch;

    use super::*;

    fn check(state: TxnState, groups: &[&str], now_ms: i64, expected: Aim) {
        let txn = TxnDescription {
            id: "t".to_owned(),
            state,
            producer: ProducerEpoch { producer_id: 1, epoch: 0 },
            timeout_ms: 1_000,
            start_ms: 5_000,
            parts: vec![("x".to_owned(), 0)],
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        };
        assert_eq!(Aim::of(&txn, now_ms), expected);
    }

    #[test]
    fn steps_of_a_transaction_are_told_apart() {
        check(TxnState::Empty, &[], 5_000, Aim::Empty);
        check(TxnState::Ongoing, &[], 5_000, Aim::Partitions);
        check(TxnState::Ongoing, &["g"], 9_000, Aim::Offsets);
        check(TxnState::PrepareAbort, &[], 5_999, Aim::PrepareAbort);
        check(TxnState::PrepareAbort, &["g"], 6_000, Aim::TimedOut);
        check(TxnState::PrepareCommit, &[], 6_000, Aim::PrepareCommit);
    }
}

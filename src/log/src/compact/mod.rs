//! Log compaction: of all records with one key, only the newest stays.
//!
//! The leader decides ([`decide`]) and proposes a [`PlanSpec`]; applying it only notes a [`Plan`]
//! in the partition's state, the same on every node. Each node then carries plans out on its own,
//! in their order, on a thread of its own ([`run`]): it reads closed segments, writes new files of
//! the plan's generation, syncs them and swaps them in for readers at once.
//!
//! Rules are those of Kafka's cleaner ([`filter`]): offsets never change; batches keep base offset,
//! last offset delta and producer fields; a tombstone stays until its delete horizon (KIP-534),
//! which the first compaction that meets it writes into its batch; records of aborted
//! transactions go, and a transaction's marker goes by the same horizon once nothing of the
//! transaction is left; the last batch of a producer, and the last of the range, stay as empty
//! batches.
//!
//! Invariants:
//! * What a plan makes follows from the plan and from the log's bytes alone: no clock, no state of
//!   this node. So files are byte-equal on all nodes once plans are done.
//! * A record of an aborted transaction takes no other record's place, also when its marker lies
//!   behind the range: the first look goes on until all transactions of the range have ended.
//! * The keys of a plan's window are at most as many as its offsets, and the leader bounds those
//!   ([`crate::limits::COMPACTION_WINDOW`]): memory is bounded and the same plan fits every node.
//!   A larger dirty part takes several plans.
//! * While plans wait, no segment is trimmed; before a plan runs, exactly the segments below the
//!   log start that the plan noted are. So all nodes begin with the same segments.
//! * After a crash the checkpoint's row has either the old segments and the plan, or the new
//!   ones; files that no row speaks of are removed at start, and the plan runs again.
//! * Old files go once no durable checkpoint speaks of them, as trimmed segments do.

pub(crate) mod decide;
pub(crate) mod filter;
pub(crate) mod run;
pub(crate) mod survey;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

/// What the leader proposes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlanSpec {
    /// Segments that begin before this offset are rewritten; one begins here.
    pub(crate) upto: i64,
    /// Keys are collected from here, where the plan before ended,
    pub(crate) from: i64,
    /// up to here; records from here on stay.
    pub(crate) end: i64,
    /// The leader's time: what delete horizons are compared with.
    pub(crate) now_ms: i64,
    /// `delete.retention.ms`
    pub(crate) delete_retention_ms: i64,
    /// Rewritten segments are made of old ones of at most so many bytes together.
    pub(crate) segment_bytes: u64,
    /// Producers whose last batch is older have expired.
    pub(crate) producers_since_ms: i64,
}

/// What apply notes and every node carries out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) spec: PlanSpec,
    /// Generation of the files that it makes.
    pub(crate) generation: u64,
    /// The log's start when the plan was applied: segments below are gone before it runs.
    pub(crate) log_start: i64,
    /// The log's end when the plan was applied: transactions of the range have ended before it.
    pub(crate) log_end: i64,
}

/// What a partition knows of its compaction. `plans` and `next_horizon_ms` follow what this node
/// has carried out; the rest is the same on all nodes at one index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Compaction {
    /// Not carried out yet, oldest first.
    pub(crate) plans: Vec<Plan>,
    /// Generation of the newest plan; 0 before the first.
    pub(crate) generation: u64,
    /// `upto` of the newest plan.
    pub(crate) compacted_to: i64,
    /// `end` of the newest plan: the first dirty offset.
    pub(crate) clean_to: i64,
    /// `now_ms` of the newest plan.
    pub(crate) planned_at_ms: i64,
    /// When the next tombstone or marker may go; `i64::MAX` when there is none.
    pub(crate) next_horizon_ms: i64,
}

impl Default for Compaction {
    fn default() -> Self {
        Self {
            plans: Vec::new(),
            generation: 0,
            compacted_to: 0,
            clean_to: 0,
            planned_at_ms: 0,
            next_horizon_ms: i64::MAX,
        }
    }
}

impl Compaction {
    /// Notes a plan; false when it does not follow the newest one, or nothing it speaks of is
    /// left. `is_boundary` says whether a segment begins at an offset that is above the log's
    /// start and beyond what was compacted: such a segment is the same on all nodes.
    pub(crate) fn accept(
        &mut self,
        spec: PlanSpec,
        (log_start, log_end): (i64, i64),
        is_boundary: impl Fn(i64) -> bool,
    ) -> bool {
        // What was deleted meanwhile needs no plan.
        let from =
            spec.from == self.clean_to || spec.from > self.clean_to && spec.from <= log_start;
        let follows = from
            && (spec.from..=spec.upto).contains(&spec.end)
            && spec.upto > log_start
            && (spec.upto == self.compacted_to && self.generation > 0
                || spec.upto > self.compacted_to && is_boundary(spec.upto));
        if !follows {
            return false;
        }
        self.generation += 1;
        self.compacted_to = spec.upto;
        self.clean_to = spec.end;
        self.planned_at_ms = spec.now_ms;
        self.plans.push(Plan { spec, generation: self.generation, log_start, log_end });
        true
    }
}

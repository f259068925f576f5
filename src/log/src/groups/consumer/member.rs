//! A member: what it said, what it was told, what it shall have.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::row::{ConsumerMemberRow, ConsumerMemberRowV1, pack, unpack};
use super::types::{Beat, ConsumerMemberDescription, JOINS, LEAVES_FOR_A_WHILE};
use crate::limits::MAX_MEMBER_NAME;
use crate::types::PartKey;

/// What a member takes in memory and in its row without what it says, at most, in bytes: most of it
/// its id.
const BASE_WEIGHT: usize = MAX_MEMBER_NAME + 128;

/// Where a member is on its way to its target. Stored: append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Progress {
    /// It has all of the target that it was last reconciled to.
    Stable,
    /// It was told to give partitions up and has not confirmed yet.
    Revoking,
    /// It waits for partitions that others have not given up yet.
    Waiting,
}

/// What a member subscribes to and says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) instance: Option<String>,
    pub(super) rack: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) topics: BTreeSet<String>,
    pub(super) regex: Option<String>,
    /// What the regular expression found when it was last looked at.
    pub(super) matched: BTreeSet<String>,
    pub(super) assignor: Option<String>,
}

impl Wish {
    /// With what a heartbeat says; what it leaves out stays, except where it joins: then that is
    /// all there is.
    pub(super) fn updated(&self, beat: &Beat) -> Self {
        let mut wish = if beat.epoch == JOINS { Self::default() } else { self.clone() };
        wish.client_id.clone_from(&beat.client_id);
        wish.client_host.clone_from(&beat.client_host);
        let keep = |new: &Option<String>, old: Option<String>| new.clone().or(old);
        wish.instance = keep(&beat.instance, wish.instance);
        wish.rack = keep(&beat.rack, wish.rack);
        wish.assignor = keep(&beat.assignor, wish.assignor);
        if let Some(ms) = beat.rebalance_timeout_ms {
            wish.rebalance_timeout_ms = ms;
        }
        if let Some(topics) = &beat.topics {
            wish.topics = topics.iter().cloned().collect();
        }
        if let Some(regex) = &beat.regex {
            wish.regex = Some(regex.clone()).filter(|regex| !regex.is_empty());
        }
        wish
    }

    /// Whether the member subscribes to the same topics as before.
    pub(super) fn reads_like(&self, other: &Self) -> bool {
        self.topics == other.topics && self.matched == other.matched
    }

    pub(super) fn subscribed(&self) -> impl Iterator<Item = &String> {
        self.topics.iter().chain(&self.matched)
    }

    /// What a member with that wish takes in memory and in a row, roughly, in bytes.
    pub(super) fn weight(&self) -> usize {
        let optional = [&self.instance, &self.rack, &self.regex, &self.assignor];
        let optional = optional.into_iter().flatten();
        let all = optional.chain([&self.client_id, &self.client_host]).chain(self.subscribed());
        BASE_WEIGHT + all.map(|text| text.len() + 8).sum::<usize>()
    }
}

/// A member of a group.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) wish: Wish,
    /// The epoch that it is in, [`LEAVES_FOR_A_WHILE`] for a static member that is away.
    pub(super) epoch: i32,
    /// The epoch before that: it still speaks of it where the last answer was lost.
    pub(super) previous_epoch: i32,
    pub(super) progress: Progress,
    /// What it may own.
    pub(super) assigned: BTreeSet<PartKey>,
    /// What it was told to give up and may still own.
    pub(super) revoking: BTreeSet<PartKey>,
    /// What it shall own.
    pub(super) target: BTreeSet<PartKey>,
    /// When its silence removes it.
    pub(super) expires_ms: i64,
    /// When it is removed for not giving up what it was told to.
    pub(super) revoke_until_ms: Option<i64>,
    /// When its regular expression was last looked at, and which topics there were.
    pub(super) looked: Option<(i64, u64)>,
    /// When it was last told of what it may own, if it has not said since that it owns that.
    pub(super) told_ms: Option<i64>,
}

impl Member {
    pub(super) fn new(expires_ms: i64) -> Self {
        Self {
            wish: Wish::default(),
            epoch: 0,
            previous_epoch: 0,
            progress: Progress::Stable,
            assigned: BTreeSet::new(),
            revoking: BTreeSet::new(),
            target: BTreeSet::new(),
            expires_ms,
            revoke_until_ms: None,
            looked: None,
            told_ms: None,
        }
    }

    pub(super) fn from_row(row: ConsumerMemberRow, now_ms: i64, session_ms: i64) -> Self {
        let ConsumerMemberRow::V1(row) = row;
        let revoking = row.progress == Progress::Revoking && row.epoch != LEAVES_FOR_A_WHILE;
        let until = now_ms.saturating_add(i64::from(row.rebalance_timeout_ms));
        Self {
            wish: Wish {
                instance: row.instance,
                rack: row.rack,
                client_id: row.client_id,
                client_host: row.client_host,
                rebalance_timeout_ms: row.rebalance_timeout_ms,
                topics: row.topics.into_iter().collect(),
                regex: row.regex,
                matched: row.matched.into_iter().collect(),
                assignor: row.assignor,
            },
            epoch: row.epoch,
            previous_epoch: row.previous_epoch,
            progress: row.progress,
            assigned: unpack(&row.assigned),
            revoking: unpack(&row.revoking),
            target: unpack(&row.target),
            expires_ms: now_ms.saturating_add(session_ms),
            revoke_until_ms: revoking.then_some(until),
            looked: None,
            told_ms: None,
        }
    }

    pub(super) fn row(&self) -> ConsumerMemberRow {
        let wish = self.wish.clone();
        ConsumerMemberRow::V1(ConsumerMemberRowV1 {
            epoch: self.epoch,
            previous_epoch: self.previous_epoch,
            progress: self.progress,
            instance: wish.instance,
            rack: wish.rack,
            client_id: wish.client_id,
            client_host: wish.client_host,
            rebalance_timeout_ms: wish.rebalance_timeout_ms,
            topics: wish.topics.into_iter().collect(),
            regex: wish.regex,
            matched: wish.matched.into_iter().collect(),
            assignor: wish.assignor,
            assigned: pack(&self.assigned),
            revoking: pack(&self.revoking),
            target: pack(&self.target),
        })
    }

    /// Whether nothing is left to do towards the target of that epoch.
    pub(super) fn is_reconciled_to(&self, target_epoch: i32) -> bool {
        self.progress == Progress::Stable && self.epoch == target_epoch
    }

    pub(super) fn deadline_ms(&self) -> i64 {
        self.revoke_until_ms.map_or(self.expires_ms, |until| until.min(self.expires_ms))
    }

    pub(super) fn describe(&self, id: &str) -> ConsumerMemberDescription {
        ConsumerMemberDescription {
            id: id.to_owned(),
            instance: self.wish.instance.clone(),
            rack: self.wish.rack.clone(),
            epoch: self.epoch,
            client_id: self.wish.client_id.clone(),
            client_host: self.wish.client_host.clone(),
            topics: self.wish.topics.iter().cloned().collect(),
            regex: self.wish.regex.clone(),
            assigned: self.assigned.clone(),
            target: self.target.clone(),
        }
    }
}

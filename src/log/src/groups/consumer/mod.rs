//! A group of the consumer protocol (KIP-848): members say what they want in heartbeats, the
//! coordinator decides who shall own what, and leads each member there step by step.
//!
//! Three epochs: the group's grows with every change of members, subscriptions or topics; the
//! target's is the group's at the time the target was computed; a member's is that of the target
//! that it has reached. A partition goes from one member to another in three steps: the first is
//! told to give it up, the first confirms, the second is told to take it.
//!
//! Here are the fields, and how changes are saved. State in memory is decided at once and is
//! ahead of the rows; rows are saved one command at a time, each with all that changed since the
//! one before, and what a member hears waits until all that it rests on is saved. A command that
//! fails leaves its rows to the next one. So the rows are always a state that was true in memory,
//! and nobody was told more than the rows say.
//!
//! Invariants: a partition is owned by one member at most, counting those that were told to give
//! it up and have not confirmed; rows of a group and of its members agree.

mod assignors;
mod beat;
mod leave;
mod member;
mod questions;
mod re2;
mod reconcile;
pub(in crate::groups) mod row;
mod target;
mod types;

#[cfg(test)]
mod random;
#[cfg(test)]
pub(super) mod tests;

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

pub(in crate::groups) use beat::{Context, validate};
pub use member::Progress;
pub use row::{
    ConsumerGroupRow, ConsumerGroupRowV1, ConsumerMemberRow, ConsumerMemberRowV1, ConsumerSave,
    PackedParts, StoredConsumerGroup,
};
pub use types::{
    Beat, BeatReply, BeatSettings, ConsumerDescription, ConsumerMemberDescription, ConsumerState,
    JOINS, LEAVES, LEAVES_FOR_A_WHILE, Refusal, TopicShape, TopicView,
};

use super::coordinator::{Effect, Write};
use super::types::{GroupError, Token};
use crate::types::PartKey;
use member::Member;

/// Rows that could not be saved are tried again after this time, if no heartbeat does it before.
const SAVE_AGAIN_MS: i64 = 500;

/// Tickets of groups of this protocol begin here: those of a classic group that this one took
/// over are below.
const FIRST_TICKET: u64 = 1 << 32;

/// Rows on their way.
#[derive(Debug)]
struct Saving {
    ticket: u64,
    members: BTreeSet<String>,
    answers: Vec<(Token, BeatReply)>,
}

#[derive(Debug)]
pub(in crate::groups) struct Group {
    id: String,
    epoch: i32,
    target_epoch: i32,
    /// Stands for the subscribed topics that `epoch` knows of.
    topics_hash: u64,
    /// Ids and partitions of the subscribed topics, as far as they exist.
    topics: BTreeMap<Uuid, u32>,
    /// The topics that there were when `topics` was made; `None` when it has to be made anew.
    topics_version: Option<u64>,
    members: BTreeMap<String, Member>,
    /// Static names and who has them.
    statics: BTreeMap<String, String>,
    /// Who may own a partition, be it only until it has given it up.
    owners: BTreeMap<PartKey, String>,
    /// The weight of all members.
    weight: usize,
    /// No deadline is before this; `None` when there is none.
    due_ms: Option<i64>,
    /// Members whose rows are behind.
    dirty: BTreeSet<String>,
    /// Whether the group's row is behind.
    dirty_group: bool,
    saving: Option<Saving>,
    /// Answers that wait for rows that are not on their way yet.
    waiting: Vec<(Token, BeatReply)>,
    save_again_ms: Option<i64>,
    next_ticket: u64,
    /// Whether a row of this group was ever asked to be saved.
    stored: bool,
}

impl Group {
    pub(in crate::groups) fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            epoch: 0,
            target_epoch: 0,
            topics_hash: 0,
            topics: BTreeMap::new(),
            topics_version: None,
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            owners: BTreeMap::new(),
            weight: 0,
            due_ms: None,
            dirty: BTreeSet::new(),
            dirty_group: false,
            saving: None,
            waiting: Vec::new(),
            save_again_ms: None,
            next_ticket: FIRST_TICKET,
            stored: false,
        }
    }

    /// A stored group; its members have a whole session from now.
    pub(in crate::groups) fn from_rows(
        id: &str,
        stored: StoredConsumerGroup,
        now_ms: i64,
        session_ms: i64,
    ) -> Self {
        let ConsumerGroupRow::V1(row) = stored.row;
        let mut group = Self::new(id);
        group.epoch = row.epoch;
        group.target_epoch = row.target_epoch;
        group.topics_hash = row.topics_hash;
        group.stored = true;
        for (id, row) in stored.members {
            let member = Member::from_row(row, now_ms, session_ms);
            if let Some(instance) = &member.wish.instance {
                group.statics.insert(instance.clone(), id.clone());
            }
            for key in member.assigned.iter().chain(&member.revoking) {
                group.owners.insert(*key, id.clone());
            }
            group.weight += member.wish.weight();
            group.is_due(member.deadline_ms());
            group.members.insert(id, member);
        }
        group
    }

    pub(in crate::groups) fn state(&self) -> ConsumerState {
        if self.members.is_empty() {
            ConsumerState::Empty
        } else if self.epoch > self.target_epoch {
            ConsumerState::Assigning
        } else if self.members.values().all(|m| m.is_reconciled_to(self.target_epoch)) {
            ConsumerState::Stable
        } else {
            ConsumerState::Reconciling
        }
    }

    pub(in crate::groups) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether the rows say all that is so.
    pub(in crate::groups) fn is_saved(&self) -> bool {
        self.saving.is_none() && !self.is_dirty()
    }

    fn is_dirty(&self) -> bool {
        self.dirty_group || !self.dirty.is_empty()
    }

    /// Whether nothing would be lost by forgetting the group.
    pub(in crate::groups) fn is_forgettable(&self) -> bool {
        self.members.is_empty() && !self.stored
    }

    /// Members that are gone and whose rows are not deleted yet.
    fn unsaved_leavers(&self) -> usize {
        self.dirty.iter().filter(|id| !self.members.contains_key(*id)).count()
    }

    fn bump(&mut self) {
        self.epoch = self.epoch.saturating_add(1);
        self.dirty_group = true;
    }

    /// Something is due at that time.
    fn is_due(&mut self, at_ms: i64) {
        self.due_ms = Some(self.due_ms.map_or(at_ms, |due| due.min(at_ms)));
    }

    /// When [`Self::tick`] may have something to do next: not later than it has.
    pub(in crate::groups) fn next_deadline_ms(&self) -> Option<i64> {
        self.due_ms.into_iter().chain(self.save_again_ms).min()
    }

    /// Takes a member out and sets free what it may have owned.
    fn remove(&mut self, id: &str) {
        let Some(member) = self.members.remove(id) else { return };
        for key in member.assigned.iter().chain(&member.revoking) {
            self.owners.remove(key);
        }
        if let Some(instance) = &member.wish.instance {
            self.statics.remove(instance);
        }
        self.weight = self.weight.saturating_sub(member.wish.weight());
        self.dirty.insert(id.to_owned());
        self.topics_version = None;
        self.bump();
    }

    /// Answers once all that is decided so far is saved.
    fn answer(&mut self, token: Token, reply: BeatReply, out: &mut Vec<Effect>) {
        self.waiting.push((token, reply));
        self.flush(out);
    }

    /// Saves what changed, or answers where nothing did. One command is on its way at a time: were
    /// there two, the first could be lost and the second not.
    pub(in crate::groups) fn flush(&mut self, out: &mut Vec<Effect>) {
        if self.saving.is_some() {
            return;
        }
        if !self.is_dirty() {
            let answers = std::mem::take(&mut self.waiting);
            out.extend(answers.into_iter().map(|(token, reply)| Effect::Beat(token, Ok(reply))));
            return;
        }
        self.next_ticket += 1;
        self.stored = true;
        self.dirty_group = false;
        self.save_again_ms = None;
        let members = std::mem::take(&mut self.dirty);
        let row = |id: &String| (id.clone(), self.members.get(id).map(Member::row));
        let save = ConsumerSave {
            group: self.id.clone(),
            row: self.row(),
            members: members.iter().map(row).collect(),
        };
        let ticket = self.next_ticket;
        out.push(Effect::Save { group: self.id.clone(), ticket, write: Write::Consumer(save) });
        let answers = std::mem::take(&mut self.waiting);
        self.saving = Some(Saving { ticket, members, answers });
    }

    fn row(&self) -> ConsumerGroupRow {
        ConsumerGroupRow::V1(ConsumerGroupRowV1 {
            epoch: self.epoch,
            target_epoch: self.target_epoch,
            topics_hash: self.topics_hash,
            members: u32::try_from(self.members.len()).unwrap_or(u32::MAX),
        })
    }

    /// The rows asked for with `ticket` are replicated, or could not be, or nobody knows.
    pub(in crate::groups) fn saved(
        &mut self,
        now_ms: i64,
        ticket: u64,
        result: Result<(), GroupError>,
        out: &mut Vec<Effect>,
    ) {
        let Some(saving) = self.saving.take_if(|saving| saving.ticket == ticket) else { return };
        match result {
            Ok(()) => {
                let answers = saving.answers.into_iter();
                out.extend(answers.map(|(token, reply)| Effect::Beat(token, Ok(reply))));
                self.flush(out);
            }
            Err(error) => {
                self.dirty_group = true;
                self.dirty.extend(saving.members);
                self.save_again_ms = Some(now_ms.saturating_add(SAVE_AGAIN_MS));
                let answers = saving.answers.into_iter().chain(std::mem::take(&mut self.waiting));
                out.extend(answers.map(|(token, _)| Effect::Beat(token, Err(error.into()))));
            }
        }
    }

    /// Every invariant between members and what is derived from them.
    #[cfg(test)]
    pub(in crate::groups) fn check(&self) {
        let mut owners = BTreeMap::new();
        for (id, member) in &self.members {
            for key in member.assigned.iter().chain(&member.revoking) {
                assert_eq!(owners.insert(*key, id.clone()), None, "{key:?} has two owners");
            }
        }
        assert_eq!(owners, self.owners);
        assert_eq!(self.weight, self.members.values().map(|m| m.wish.weight()).sum::<usize>());
        let statics = self.members.iter();
        let statics = statics.filter_map(|(id, m)| Some((m.wish.instance.clone()?, id.clone())));
        assert_eq!(statics.collect::<BTreeMap<_, _>>(), self.statics);
        let deadline = self.members.values().map(Member::deadline_ms).min();
        assert!(deadline.is_none_or(|at| self.due_ms.is_some_and(|due| due <= at)));
    }
}

//! All groups of one data group: dispatch, creation and forgetting of groups. Pure: time and
//! fresh ids come in, effects go out.

use std::collections::BTreeMap;

use super::expiry::Retention;
use super::group::Group;
use super::row::GroupRow;
use super::types::{
    CommitCheck, GroupConfig, GroupDescription, GroupError, GroupListing, GroupState, GroupStats,
    Heartbeat, Join, JoinReply, Leave, LeaveResult, MemberName, Sync, SyncReply, Token,
};

/// What the runtime shall do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Answer a join.
    Join(Token, JoinReply),
    /// Answer a sync.
    Sync(Token, Result<SyncReply, GroupError>),
    /// Replicate the group's row (remove it when `None`), in the order of these effects, then
    /// call [`Coordinator::saved`].
    Save {
        /// Group id.
        group: String,
        /// Comes back with [`Coordinator::saved`].
        ticket: u64,
        /// The row.
        row: Option<GroupRow>,
    },
}

/// The consumer groups that one data group coordinates.
#[derive(Debug)]
pub struct Coordinator {
    config: GroupConfig,
    groups: BTreeMap<String, Group>,
    effects: Vec<Effect>,
}

impl Coordinator {
    /// A coordinator over stored groups; their members have a whole session from now.
    pub fn new(config: GroupConfig, rows: BTreeMap<String, GroupRow>, now_ms: i64) -> Self {
        let load = |(id, row): (String, GroupRow)| {
            let group = Group::from_row(&id, row, now_ms);
            (id, group)
        };
        Self { config, groups: rows.into_iter().map(load).collect(), effects: Vec::new() }
    }

    /// Takes what is to be done.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// A member joins; `fresh_id` is its id should it need a new one. Answered by
    /// [`Effect::Join`].
    pub fn join(&mut self, now_ms: i64, token: Token, join: &Join, fresh_id: &str) {
        let timeouts = self.config.min_session_ms..=self.config.max_session_ms;
        let refused = if join.group.is_empty() {
            Some(GroupError::InvalidGroupId)
        } else if !timeouts.contains(&join.session_timeout_ms) {
            Some(GroupError::InvalidSessionTimeout)
        } else if !self.groups.contains_key(&join.group) && !join.member.is_empty() {
            Some(GroupError::UnknownMemberId)
        } else {
            None
        };
        if let Some(error) = refused {
            self.effects.push(Effect::Join(token, JoinReply::failed(&join.member, error)));
            return;
        }
        let group =
            self.groups.entry(join.group.clone()).or_insert_with(|| Group::new(&join.group));
        group.join(now_ms, token, join, fresh_id, &self.config, &mut self.effects);
        self.forget_if_empty(&join.group);
    }

    /// A member asks for its assignment. Answered by [`Effect::Sync`].
    pub fn sync(&mut self, now_ms: i64, token: Token, sync: &Sync) {
        match self.group(&sync.group) {
            Ok(_) => {}
            Err(error) => return self.effects.push(Effect::Sync(token, Err(error))),
        }
        if let Some(group) = self.groups.get_mut(&sync.group) {
            group.sync(now_ms, token, sync, &mut self.effects);
        }
    }

    fn group(&mut self, id: &str) -> Result<&mut Group, GroupError> {
        if id.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        self.groups.get_mut(id).ok_or(GroupError::UnknownMemberId)
    }

    /// A member lives.
    pub fn heartbeat(&mut self, now_ms: i64, beat: &Heartbeat) -> Result<(), GroupError> {
        let name = MemberName { id: beat.member.clone(), instance: beat.instance.clone() };
        self.group(&beat.group)?.heartbeat(now_ms, &name, beat.generation)
    }

    /// Members leave.
    pub fn leave(&mut self, now_ms: i64, leave: &Leave) -> Result<Vec<LeaveResult>, GroupError> {
        if leave.group.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        let mut results = Vec::new();
        for member in &leave.members {
            let result = match self.groups.get_mut(&leave.group) {
                Some(group) => group.leave(now_ms, member, &mut self.effects),
                None => Err(GroupError::UnknownMemberId),
            };
            results.push(LeaveResult { member: member.clone(), error: result.err() });
        }
        self.forget_if_empty(&leave.group);
        Ok(results)
    }

    /// Whether offsets may be committed.
    pub fn check_commit(&mut self, now_ms: i64, check: &CommitCheck) -> Result<(), GroupError> {
        if check.group.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        match self.groups.get_mut(&check.group) {
            Some(group) => group.check_commit(now_ms, check),
            // A commit from outside a group needs none.
            None if check.generation < 0 => Ok(()),
            None => Err(GroupError::IllegalGeneration),
        }
    }

    /// The replication of a row ended.
    pub fn saved(&mut self, now_ms: i64, group: &str, ticket: u64, result: Result<(), GroupError>) {
        if let Some(group) = self.groups.get_mut(group) {
            group.saved(now_ms, ticket, result, &mut self.effects);
        }
    }

    /// Lets time pass.
    pub fn tick(&mut self, now_ms: i64) {
        for group in self.groups.values_mut() {
            if group.next_deadline_ms().is_some_and(|at| now_ms >= at) {
                group.tick(now_ms, &mut self.effects);
            }
        }
        self.groups.retain(|_, group| !group.is_forgettable());
    }

    /// When [`Self::tick`] has something to do next.
    pub fn next_deadline_ms(&self) -> Option<i64> {
        self.groups.values().filter_map(Group::next_deadline_ms).min()
    }

    /// When something is due next in one group.
    pub fn deadline_of(&self, id: &str) -> Option<i64> {
        self.groups.get(id).and_then(Group::next_deadline_ms)
    }

    fn forget_if_empty(&mut self, id: &str) {
        if self.groups.get(id).is_some_and(Group::is_forgettable) {
            self.groups.remove(id);
        }
    }

    /// Removes a group without members; says whether there was one.
    pub fn delete(&mut self, id: &str) -> Result<bool, GroupError> {
        match self.groups.get(id).map(Group::state) {
            None => Ok(false),
            Some(GroupState::Empty) => {
                self.groups.remove(id);
                let group = id.to_owned();
                self.effects.push(Effect::Save { group, ticket: 0, row: None });
                Ok(true)
            }
            Some(_) => Err(GroupError::NonEmptyGroup),
        }
    }

    /// Whether offsets of a topic may be deleted.
    pub fn check_offset_delete(&self, id: &str, topic: &str) -> Result<(), GroupError> {
        let Some(group) = self.groups.get(id) else { return Ok(()) };
        if group.state() == GroupState::Empty {
            return Ok(());
        }
        if group.protocol_type() != "consumer" {
            return Err(GroupError::NonEmptyGroup);
        }
        match group.subscribed() {
            Some(topics) if !topics.contains(topic) => Ok(()),
            _ => Err(GroupError::GroupSubscribedToTopic),
        }
    }

    /// What decides when offsets of a group expire.
    pub fn retention(&self, id: &str) -> Retention {
        let Some(group) = self.groups.get(id) else { return Retention::SinceCommit };
        match group.state() {
            GroupState::Empty if group.protocol_type().is_empty() => Retention::SinceCommit,
            GroupState::Empty => Retention::SinceEmpty,
            GroupState::Stable if group.protocol_type() == "consumer" => {
                group.subscribed().map_or(Retention::Kept, Retention::SinceCommitUnless)
            }
            GroupState::Stable
            | GroupState::PreparingRebalance
            | GroupState::CompletingRebalance => Retention::Kept,
        }
    }

    /// Groups that are stored and have no members.
    pub fn empty_groups(&self) -> Vec<String> {
        let empty = self.groups.iter().filter(|(_, group)| group.state() == GroupState::Empty);
        empty.map(|(id, _)| id.clone()).collect()
    }

    /// A group as it stands.
    pub fn describe(&self, id: &str) -> Option<GroupDescription> {
        self.groups.get(id).map(Group::describe)
    }

    /// What metrics say of every group.
    pub fn stats(&self) -> Vec<GroupStats> {
        self.groups.values().map(Group::stats).collect()
    }

    /// Every group.
    pub fn list(&self) -> Vec<GroupListing> {
        let listing = |(id, group): (&String, &Group)| GroupListing {
            id: id.clone(),
            protocol_type: group.protocol_type().to_owned(),
            state: group.state().name(),
        };
        self.groups.iter().map(listing).collect()
    }
}

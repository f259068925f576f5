//! All groups of one data group: dispatch, creation and forgetting of groups. Pure: time and
//! fresh ids come in, effects go out.
//!
//! A group speaks one of two protocols. One that has members keeps its protocol; an empty one
//! takes that of whoever joins next, and keeps its committed offsets, which are not of this
//! module. That is Kafka with `group.consumer.migration.policy=disabled`, except that there a
//! classic member may still join a group of the consumer protocol.

use std::collections::BTreeMap;

use super::classic::{Group as ClassicGroup, check_names};
use super::consumer::{
    self, Beat, BeatReply, BeatSettings, ConsumerSave, Context, Group as ConsumerGroup, JOINS,
    Refusal, TopicView,
};
use super::expiry::Retention;
use super::row::{GroupRow, StoredGroups};
use super::types::{
    CommitCheck, CommitVia, Described, FetchCheck, GroupConfig, GroupError, GroupListing,
    GroupState, GroupStats, Heartbeat, Join, JoinReply, Leave, LeaveResult, MemberName, Sync,
    SyncReply, Token,
};

/// What the runtime shall do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Answer a join.
    Join(Token, JoinReply),
    /// Answer a sync.
    Sync(Token, Result<SyncReply, GroupError>),
    /// Answer a heartbeat of the consumer protocol.
    Beat(Token, Result<BeatReply, Refusal>),
    /// Replicate rows, in the order of these effects, then call [`Coordinator::saved`].
    Save {
        /// Group id.
        group: String,
        /// Comes back with [`Coordinator::saved`].
        ticket: u64,
        /// The rows.
        write: Write,
    },
}

/// What is to be replicated of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// The row of a classic group; `None` removes the group, of whichever kind it is.
    Classic(Option<GroupRow>),
    /// Changes of a group of the consumer protocol.
    Consumer(ConsumerSave),
}

/// A group, by the protocol that it speaks.
#[derive(Debug)]
enum Group {
    Classic(ClassicGroup),
    Consumer(ConsumerGroup),
}

impl Group {
    fn is_forgettable(&self) -> bool {
        match self {
            Self::Classic(group) => group.is_forgettable(),
            Self::Consumer(group) => group.is_forgettable(),
        }
    }

    fn next_deadline_ms(&self) -> Option<i64> {
        match self {
            Self::Classic(group) => group.next_deadline_ms(),
            Self::Consumer(group) => group.next_deadline_ms(),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Classic(group) => group.state() == GroupState::Empty,
            Self::Consumer(group) => group.is_empty(),
        }
    }
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
    pub fn new(config: GroupConfig, stored: StoredGroups, now_ms: i64) -> Self {
        let classic = stored.classic.into_iter().map(|(id, row)| {
            let group = ClassicGroup::from_row(&id, row, now_ms);
            (id, Group::Classic(group))
        });
        let session_ms = config.consumer_session_ms;
        let consumer = stored.consumer.into_iter().map(|(id, rows)| {
            let group = ConsumerGroup::from_rows(&id, rows, now_ms, session_ms);
            (id, Group::Consumer(group))
        });
        Self { config, groups: classic.chain(consumer).collect(), effects: Vec::new() }
    }

    /// Takes what is to be done.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// A member joins; `fresh_id` is its id should it need a new one. Answered by
    /// [`Effect::Join`].
    pub fn join(&mut self, now_ms: i64, token: Token, join: &Join, fresh_id: &str) {
        if let Err(error) = self.try_join(now_ms, token, join, fresh_id) {
            self.effects.push(Effect::Join(token, JoinReply::failed(&join.member, error)));
        }
        self.forget_if_empty(&join.group);
    }

    fn try_join(
        &mut self,
        now_ms: i64,
        token: Token,
        join: &Join,
        fresh_id: &str,
    ) -> Result<(), GroupError> {
        let timeouts = self.config.min_session_ms..=self.config.max_session_ms;
        if join.group.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        check_names(join)?;
        if !timeouts.contains(&join.session_timeout_ms) {
            return Err(GroupError::InvalidSessionTimeout);
        }
        let taken_over = match self.groups.get(&join.group) {
            Some(Group::Consumer(group)) if !group.is_empty() => {
                return Err(GroupError::InconsistentGroupProtocol);
            }
            // Its rows must not come after those of the group that takes its place.
            Some(Group::Consumer(group)) if !group.is_saved() => {
                return Err(GroupError::CoordinatorNotAvailable);
            }
            Some(Group::Consumer(_)) => Some(ClassicGroup::taking_over(&join.group)),
            Some(Group::Classic(_)) => None,
            None => Some(ClassicGroup::new(&join.group)),
        };
        if let Some(group) = taken_over {
            if !join.member.is_empty() {
                return Err(GroupError::UnknownMemberId);
            }
            self.groups.insert(join.group.clone(), Group::Classic(group));
        }
        if let Some(Group::Classic(group)) = self.groups.get_mut(&join.group) {
            group.join(now_ms, token, join, fresh_id, &self.config, &mut self.effects);
        }
        Ok(())
    }

    /// A member asks for its assignment. Answered by [`Effect::Sync`].
    pub fn sync(&mut self, now_ms: i64, token: Token, sync: &Sync) {
        match classic(&mut self.groups, &sync.group) {
            Ok(group) => group.sync(now_ms, token, sync, &mut self.effects),
            Err(error) => self.effects.push(Effect::Sync(token, Err(error))),
        }
    }

    /// A member lives.
    pub fn heartbeat(&mut self, now_ms: i64, beat: &Heartbeat) -> Result<(), GroupError> {
        let name = MemberName { id: beat.member.clone(), instance: beat.instance.clone() };
        classic(&mut self.groups, &beat.group)?.heartbeat(now_ms, &name, beat.generation)
    }

    /// Members leave.
    pub fn leave(&mut self, now_ms: i64, leave: &Leave) -> Result<Vec<LeaveResult>, GroupError> {
        if leave.group.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        let mut results = Vec::new();
        for member in &leave.members {
            let result = classic(&mut self.groups, &leave.group)
                .and_then(|group| group.leave(now_ms, member, &mut self.effects));
            results.push(LeaveResult { member: member.clone(), error: result.err() });
        }
        self.forget_if_empty(&leave.group);
        Ok(results)
    }

    /// A heartbeat of the consumer protocol (KIP-848); `fresh_id` is the member's id should it
    /// need one. Answered by [`Effect::Beat`].
    pub fn beat(
        &mut self,
        now_ms: i64,
        token: Token,
        beat: &Beat,
        settings: BeatSettings,
        topics: &dyn TopicView,
        fresh_id: &str,
    ) {
        if let Err(refusal) = consumer::validate(beat) {
            return self.effects.push(Effect::Beat(token, Err(refusal)));
        }
        let context = Context { settings, max_members: self.config.max_members, topics, fresh_id };
        let id = beat.group.as_str();
        match self.groups.get_mut(id) {
            Some(Group::Consumer(group)) => {
                group.heartbeat(now_ms, token, beat, context, &mut self.effects);
            }
            Some(Group::Classic(group))
                if beat.epoch != JOINS || group.state() != GroupState::Empty =>
            {
                let message = format!("Group {id} is not a consumer group.");
                let refusal = Refusal::new(GroupError::GroupIdNotFound, message);
                self.effects.push(Effect::Beat(token, Err(refusal)));
            }
            None if beat.epoch != JOINS => {
                let message = format!("Group {id} not found.");
                let refusal = Refusal::new(GroupError::GroupIdNotFound, message);
                self.effects.push(Effect::Beat(token, Err(refusal)));
            }
            Some(Group::Classic(_)) | None => {
                let mut group = ConsumerGroup::new(id);
                group.heartbeat(now_ms, token, beat, context, &mut self.effects);
                // What the group refused made no group.
                if !group.is_empty() {
                    self.groups.insert(id.to_owned(), Group::Consumer(group));
                }
            }
        }
    }

    /// Whether offsets may be committed. The group without a name has no members, but it may have
    /// offsets, as in Kafka.
    pub fn check_commit(&mut self, now_ms: i64, check: &CommitCheck) -> Result<(), GroupError> {
        match self.groups.get_mut(&check.group) {
            Some(Group::Classic(group)) => group.check_commit(now_ms, check),
            Some(Group::Consumer(group)) => group.check_commit(check),
            // A commit from outside a group needs none.
            None if check.generation < 0 => Ok(()),
            None => Err(match check.via {
                CommitVia::OffsetCommit => GroupError::GroupIdNotFound,
                CommitVia::OldOffsetCommit | CommitVia::Transaction => {
                    GroupError::IllegalGeneration
                }
            }),
        }
    }

    /// Whether committed offsets may be read.
    pub fn check_fetch(&self, check: &FetchCheck) -> Result<(), GroupError> {
        match self.groups.get(&check.group) {
            Some(Group::Consumer(group)) => group.check_fetch(check),
            Some(Group::Classic(_)) | None => Ok(()),
        }
    }

    /// The replication of a row ended.
    pub fn saved(&mut self, now_ms: i64, group: &str, ticket: u64, result: Result<(), GroupError>) {
        match self.groups.get_mut(group) {
            Some(Group::Classic(group)) => group.saved(now_ms, ticket, result, &mut self.effects),
            Some(Group::Consumer(group)) => group.saved(now_ms, ticket, result, &mut self.effects),
            None => {}
        }
    }

    /// Lets time pass.
    pub fn tick(&mut self, now_ms: i64) {
        for group in self.groups.values_mut() {
            if group.next_deadline_ms().is_none_or(|at| now_ms < at) {
                continue;
            }
            match group {
                Group::Classic(group) => group.tick(now_ms, &mut self.effects),
                Group::Consumer(group) => group.tick(now_ms, &mut self.effects),
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
        match self.groups.get(id) {
            None => return Ok(false),
            Some(group) if !group.is_empty() => return Err(GroupError::NonEmptyGroup),
            // Its rows must not come after their removal.
            Some(Group::Consumer(group)) if !group.is_saved() => {
                return Err(GroupError::CoordinatorNotAvailable);
            }
            Some(_) => {}
        }
        self.groups.remove(id);
        let write = Write::Classic(None);
        self.effects.push(Effect::Save { group: id.to_owned(), ticket: 0, write });
        Ok(true)
    }

    /// Whether offsets of a topic may be deleted.
    pub fn check_offset_delete(&self, id: &str, topic: &str) -> Result<(), GroupError> {
        let group = match self.groups.get(id) {
            None => return Ok(()),
            Some(Group::Consumer(group)) => {
                let reads = group.subscribed().contains(topic);
                return if reads { Err(GroupError::GroupSubscribedToTopic) } else { Ok(()) };
            }
            Some(Group::Classic(group)) => group,
        };
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
        let group = match self.groups.get(id) {
            None => return Retention::SinceCommit,
            Some(Group::Consumer(group)) => {
                return Retention::SinceCommitUnless(group.subscribed());
            }
            Some(Group::Classic(group)) => group,
        };
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
        let empty = self.groups.iter().filter(|(_, group)| group.is_empty());
        empty.map(|(id, _)| id.clone()).collect()
    }

    /// A group as it stands.
    pub fn describe(&self, id: &str) -> Option<Described> {
        Some(match self.groups.get(id)? {
            Group::Classic(group) => Described::Classic(group.describe()),
            Group::Consumer(group) => Described::Consumer(group.describe()),
        })
    }

    /// What metrics say of every group.
    pub fn stats(&self) -> Vec<GroupStats> {
        let stats = |group: &Group| match group {
            Group::Classic(group) => group.stats(),
            Group::Consumer(group) => group.stats(),
        };
        self.groups.values().map(stats).collect()
    }

    /// Every group.
    pub fn list(&self) -> Vec<GroupListing> {
        let listing = |(id, group): (&String, &Group)| match group {
            Group::Classic(group) => GroupListing {
                id: id.clone(),
                protocol_type: group.protocol_type().to_owned(),
                state: group.state().name(),
                group_type: "classic",
            },
            Group::Consumer(group) => GroupListing {
                id: id.clone(),
                protocol_type: "consumer".to_owned(),
                state: group.state().name(),
                group_type: "consumer",
            },
        };
        self.groups.iter().map(listing).collect()
    }
}

#[cfg(test)]
impl Coordinator {
    /// Checks what must hold of every group of the consumer protocol.
    pub(super) fn check(&self) {
        for group in self.groups.values() {
            if let Group::Consumer(group) = group {
                group.check();
            }
        }
    }
}

/// The classic group with that id. To members of the classic protocol, those of the other are
/// unknown.
fn classic<'a>(
    groups: &'a mut BTreeMap<String, Group>,
    id: &str,
) -> Result<&'a mut ClassicGroup, GroupError> {
    if id.is_empty() {
        return Err(GroupError::InvalidGroupId);
    }
    match groups.get_mut(id) {
        Some(Group::Classic(group)) => Ok(group),
        Some(Group::Consumer(_)) | None => Err(GroupError::UnknownMemberId),
    }
}

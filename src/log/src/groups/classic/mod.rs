//! One group: its members and the four states of the classic protocol.
//!
//! Here are its fields and how they are saved; what happens to them is in a file each: members
//! join, the group rebalances, members sync, they live and leave, and questions are answered.

mod join;
mod living;
mod questions;
mod rebalance;
mod sync;
mod weight;

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;

use super::coordinator::{Effect, Write};
use super::row::{GroupRow, GroupRowV1, MemberRow};
use super::types::{GroupError, GroupState, JoinReply, Token};
pub(in crate::groups) use weight::check_names;

/// A member that joined but whose generation never completed is given up after this time.
const NEW_MEMBER_TIMEOUT_MS: i64 = 300_000;
/// A rebalance that nobody has joined goes on for so long at least.
const MIN_REBALANCE_MS: i64 = 1_000;

#[derive(Clone, Debug)]
struct Member {
    instance: Option<String>,
    client_id: String,
    client_host: String,
    session_timeout_ms: i64,
    rebalance_timeout_ms: i64,
    protocols: Vec<(String, Bytes)>,
    assignment: Bytes,
    expires_ms: i64,
    joining: Option<Token>,
    syncing: Option<Token>,
    /// Not yet part of a complete generation.
    new: bool,
    /// Has not asked for its assignment in this generation.
    owes_sync: bool,
}

impl Member {
    fn protocol_names(&self) -> HashSet<&str> {
        self.protocols.iter().map(|(name, _)| name.as_str()).collect()
    }

    fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| name == protocol);
        found.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }

    /// A waiting member cannot heartbeat and does not expire, except before its first generation.
    fn deadline(&self) -> Option<i64> {
        let waits = self.joining.is_some() || self.syncing.is_some();
        (self.new || !waits).then_some(self.expires_ms)
    }
}

/// A rebalance that waits for members.
#[derive(Clone, Copy, Debug)]
struct Joining {
    deadline_ms: i64,
    /// For the first generation: wait for the deadline even when all are there, but not beyond.
    first_until_ms: Option<i64>,
}

/// A saved assignment that members wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Saving {
    ticket: u64,
    purpose: Purpose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Assignment,
    /// A static member returned in a stable group; this join waits.
    Replacement(Token),
}

#[derive(Debug)]
pub(in crate::groups) struct Group {
    id: String,
    state: GroupState,
    generation: i32,
    protocol_type: Option<String>,
    protocol: Option<String>,
    leader: Option<String>,
    members: BTreeMap<String, Member>,
    statics: BTreeMap<String, String>,
    /// Ids handed out that have not joined yet, with the time they are given up.
    pending: BTreeMap<String, i64>,
    joining: Option<Joining>,
    sync_deadline_ms: Option<i64>,
    saving: Vec<(Saving, Option<JoinReply>)>,
    next_ticket: u64,
    /// Whether a row of this group was ever asked to be saved.
    stored: bool,
}

impl Group {
    pub(in crate::groups) fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            state: GroupState::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            pending: BTreeMap::new(),
            joining: None,
            sync_deadline_ms: None,
            saving: Vec::new(),
            next_ticket: 0,
            stored: false,
        }
    }

    /// A group that takes the place of one of the consumer protocol, whose rows go with its first.
    pub(in crate::groups) fn taking_over(id: &str) -> Self {
        Self { stored: true, ..Self::new(id) }
    }

    pub(in crate::groups) fn from_row(id: &str, row: GroupRow, now_ms: i64) -> Self {
        let GroupRow::V1(row) = row;
        let mut group = Self::new(id);
        group.generation = row.generation;
        group.leader = row.leader;
        group.stored = true;
        for member in row.members {
            if let Some(instance) = &member.instance {
                group.statics.insert(instance.clone(), member.id.clone());
            }
            let protocol = row.protocol.clone().unwrap_or_default();
            group.members.insert(
                member.id,
                Member {
                    instance: member.instance,
                    client_id: member.client_id,
                    client_host: member.client_host,
                    session_timeout_ms: member.session_timeout_ms,
                    rebalance_timeout_ms: member.rebalance_timeout_ms,
                    protocols: vec![(protocol, member.metadata)],
                    assignment: member.assignment,
                    expires_ms: now_ms.saturating_add(member.session_timeout_ms),
                    joining: None,
                    syncing: None,
                    new: false,
                    owes_sync: false,
                },
            );
        }
        group.protocol_type = row.protocol_type;
        group.protocol = row.protocol;
        if !group.members.is_empty() {
            group.state = GroupState::Stable;
        }
        group
    }

    pub(in crate::groups) fn state(&self) -> GroupState {
        self.state
    }

    pub(in crate::groups) fn protocol_type(&self) -> &str {
        self.protocol_type.as_deref().unwrap_or_default()
    }

    /// Whether nothing would be lost by forgetting the group.
    pub(in crate::groups) fn is_forgettable(&self) -> bool {
        self.members.is_empty() && self.pending.is_empty() && !self.stored
    }

    fn row(&self) -> GroupRow {
        let protocol = self.protocol.clone().unwrap_or_default();
        let member = |(id, m): (&String, &Member)| MemberRow {
            id: id.clone(),
            instance: m.instance.clone(),
            client_id: m.client_id.clone(),
            client_host: m.client_host.clone(),
            session_timeout_ms: m.session_timeout_ms,
            rebalance_timeout_ms: m.rebalance_timeout_ms,
            metadata: m.metadata(&protocol),
            assignment: m.assignment.clone(),
        };
        GroupRow::V1(GroupRowV1 {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            members: self.members.iter().map(member).collect(),
        })
    }

    fn save(&mut self, out: &mut Vec<Effect>) -> u64 {
        self.next_ticket += 1;
        self.stored = true;
        out.push(Effect::Save {
            group: self.id.clone(),
            ticket: self.next_ticket,
            write: Write::Classic(Some(self.row())),
        });
        self.next_ticket
    }

    fn check_member(&self, id: &str, instance: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance) = instance {
            match self.statics.get(instance) {
                None => return Err(GroupError::UnknownMemberId),
                Some(holder) if holder != id => return Err(GroupError::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(id) { Ok(()) } else { Err(GroupError::UnknownMemberId) }
    }

    fn touch(&mut self, now_ms: i64, id: &str) {
        if let Some(member) = self.members.get_mut(id) {
            member.expires_ms = now_ms.saturating_add(member.session_timeout_ms);
        }
    }

    /// Protocols that every member supports.
    fn shared_protocols(&self) -> HashSet<&str> {
        let mut sets = self.members.values().map(Member::protocol_names);
        let first = sets.next().unwrap_or_default();
        sets.fold(first, |shared, other| &shared & &other)
    }

    fn rebalance_timeout_ms(&self) -> i64 {
        self.members.values().map(|m| m.rebalance_timeout_ms).max().unwrap_or_default()
    }
}

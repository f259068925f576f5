//! One group: its members and the four states of the classic protocol.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::coordinator::Effect;
use super::row::{GroupRow, GroupRowV1, MemberRow};
use super::types::{
    CommitCheck, GroupConfig, GroupDescription, GroupError, GroupState, Join, JoinMember,
    JoinReply, MemberDescription, MemberName, Sync, SyncReply, Token,
};

/// A member that joined but whose generation never completed is given up after this time.
const NEW_MEMBER_TIMEOUT_MS: i64 = 300_000;

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
    fn supports(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(name, _)| name == protocol)
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
pub(super) struct Group {
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
    pub(super) fn new(id: &str) -> Self {
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

    pub(super) fn from_row(id: &str, row: GroupRow, now_ms: i64) -> Self {
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

    pub(super) fn state(&self) -> GroupState {
        self.state
    }

    pub(super) fn protocol_type(&self) -> &str {
        self.protocol_type.as_deref().unwrap_or_default()
    }

    /// Whether nothing would be lost by forgetting the group.
    pub(super) fn is_forgettable(&self) -> bool {
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
            row: Some(self.row()),
        });
        self.next_ticket
    }

    // ---- joining

    pub(super) fn join(
        &mut self,
        now_ms: i64,
        token: Token,
        join: &Join,
        fresh_id: &str,
        config: &GroupConfig,
        out: &mut Vec<Effect>,
    ) {
        if let Err(error) = self.try_join(now_ms, token, join, fresh_id, config, out) {
            // KIP-394: the id travels with the error, and the member joins again with it.
            let member = match error {
                GroupError::MemberIdRequired => fresh_id,
                _ => &join.member,
            };
            out.push(Effect::Join(token, JoinReply::failed(member, error)));
        }
    }

    fn try_join(
        &mut self,
        now_ms: i64,
        token: Token,
        join: &Join,
        fresh_id: &str,
        config: &GroupConfig,
        out: &mut Vec<Effect>,
    ) -> Result<(), GroupError> {
        if !self.fits(join) {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        let known = self.members.contains_key(&join.member);
        if !known && self.members.len() + self.pending.len() >= config.max_members {
            return Err(GroupError::GroupMaxSizeReached);
        }
        match (join.member.as_str(), &join.instance) {
            ("", Some(instance)) => match self.statics.get(instance).cloned() {
                Some(old) => self.replace_static(now_ms, token, join, &old, fresh_id, out),
                None => self.add(now_ms, token, join, fresh_id, config, out),
            },
            ("", None) if join.require_known_id => {
                let until = now_ms.saturating_add(join.session_timeout_ms);
                self.pending.insert(fresh_id.to_owned(), until);
                return Err(GroupError::MemberIdRequired);
            }
            ("", None) => self.add(now_ms, token, join, fresh_id, config, out),
            (id, instance) => {
                if instance.is_some() {
                    self.check_member(id, instance.as_deref())?;
                } else if self.pending.remove(id).is_some() {
                    self.add(now_ms, token, join, id, config, out);
                    return Ok(());
                } else if !known {
                    return Err(GroupError::UnknownMemberId);
                }
                self.rejoin(now_ms, token, join, config, out)?;
            }
        }
        Ok(())
    }

    fn fits(&self, join: &Join) -> bool {
        if join.protocol_type.is_empty() || join.protocols.is_empty() {
            return false;
        }
        self.members.is_empty()
            || self.protocol_type.as_deref() == Some(join.protocol_type.as_str())
                && join
                    .protocols
                    .iter()
                    .any(|(name, _)| self.members.values().all(|m| m.supports(name)))
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

    fn add(
        &mut self,
        now_ms: i64,
        token: Token,
        join: &Join,
        id: &str,
        config: &GroupConfig,
        out: &mut Vec<Effect>,
    ) {
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type.clone());
        }
        if let Some(instance) = &join.instance {
            self.statics.insert(instance.clone(), id.to_owned());
        }
        let member = Member {
            instance: join.instance.clone(),
            client_id: join.client_id.clone(),
            client_host: join.client_host.clone(),
            session_timeout_ms: join.session_timeout_ms,
            rebalance_timeout_ms: join.rebalance_timeout_ms,
            protocols: join.protocols.clone(),
            assignment: Bytes::new(),
            expires_ms: now_ms.saturating_add(NEW_MEMBER_TIMEOUT_MS),
            joining: Some(token),
            syncing: None,
            new: true,
            owes_sync: false,
        };
        self.members.insert(id.to_owned(), member);
        self.leader.get_or_insert_with(|| id.to_owned());
        if let Some(Joining { deadline_ms, first_until_ms: Some(until) }) = &mut self.joining {
            *deadline_ms = now_ms.saturating_add(config.initial_delay_ms).min(*until);
        }
        self.rebalance(now_ms, config.initial_delay_ms, out);
    }

    /// A known member joins again.
    fn rejoin(
        &mut self,
        now_ms: i64,
        token: Token,
        join: &Join,
        config: &GroupConfig,
        out: &mut Vec<Effect>,
    ) -> Result<(), GroupError> {
        let id = join.member.as_str();
        let member = self.members.get(id).ok_or(GroupError::UnknownMemberId)?;
        let same = member.protocols == join.protocols;
        let leads = self.leader.as_deref() == Some(id);
        match self.state {
            GroupState::Empty => return Err(GroupError::UnknownMemberId),
            // The reply of this generation got lost: give it again.
            GroupState::CompletingRebalance if same => {
                self.touch(now_ms, id);
                out.push(Effect::Join(token, self.join_reply(id)));
                return Ok(());
            }
            GroupState::Stable if same && !leads => {
                self.touch(now_ms, id);
                out.push(Effect::Join(token, self.join_reply(id)));
                return Ok(());
            }
            GroupState::PreparingRebalance
            | GroupState::CompletingRebalance
            | GroupState::Stable => {}
        }
        if let Some(member) = self.members.get_mut(id) {
            member.protocols = join.protocols.clone();
            member.session_timeout_ms = join.session_timeout_ms;
            member.rebalance_timeout_ms = join.rebalance_timeout_ms;
            if let Some(old) = member.joining.replace(token) {
                let reply = JoinReply::failed(id, GroupError::RebalanceInProgress);
                out.push(Effect::Join(old, reply));
            }
        }
        self.rebalance(now_ms, config.initial_delay_ms, out);
        Ok(())
    }

    /// KIP-345: a static member came back under a new member id.
    fn replace_static(
        &mut self,
        now_ms: i64,
        token: Token,
        join: &Join,
        old_id: &str,
        new_id: &str,
        out: &mut Vec<Effect>,
    ) {
        let Some(mut member) = self.members.remove(old_id) else { return };
        let fenced = GroupError::FencedInstanceId;
        if let Some(waiting) = member.joining.take() {
            out.push(Effect::Join(waiting, JoinReply::failed(old_id, fenced)));
        }
        if let Some(waiting) = member.syncing.take() {
            out.push(Effect::Sync(waiting, Err(fenced)));
        }
        let protocol = self.protocol.clone().unwrap_or_default();
        let before = member.metadata(&protocol);
        member.protocols = join.protocols.clone();
        member.client_id = join.client_id.clone();
        member.client_host = join.client_host.clone();
        member.session_timeout_ms = join.session_timeout_ms;
        member.rebalance_timeout_ms = join.rebalance_timeout_ms;
        member.expires_ms = now_ms.saturating_add(join.session_timeout_ms);
        let unchanged = member.metadata(&protocol) == before;
        let old_leader = self.leader.clone().unwrap_or_default();
        let led = old_leader == old_id;
        if led {
            self.leader = Some(new_id.to_owned());
        }
        if let Some(instance) = &join.instance {
            self.statics.insert(instance.clone(), new_id.to_owned());
        }
        self.members.insert(new_id.to_owned(), member);
        let same_vote = self.vote().as_deref() == Some(protocol.as_str());
        if self.state == GroupState::Stable && unchanged && same_vote {
            let mut reply = self.join_reply(new_id);
            reply.skip_assignment = led && join.can_skip_assignment;
            if !join.can_skip_assignment {
                // An old client must not assign again: it is told that another one leads.
                reply.leader = old_leader;
                reply.members = Vec::new();
            }
            let ticket = self.save(out);
            let purpose = Purpose::Replacement(token);
            self.saving.push((Saving { ticket, purpose }, Some(reply)));
            return;
        }
        if let Some(member) = self.members.get_mut(new_id) {
            member.joining = Some(token);
        }
        self.rebalance(now_ms, 0, out);
    }

    fn touch(&mut self, now_ms: i64, id: &str) {
        if let Some(member) = self.members.get_mut(id) {
            member.expires_ms = now_ms.saturating_add(member.session_timeout_ms);
        }
    }

    fn rebalance_timeout_ms(&self) -> i64 {
        self.members.values().map(|m| m.rebalance_timeout_ms).max().unwrap_or_default()
    }

    /// Begins a rebalance where none is under way, and completes it when all are there.
    fn rebalance(&mut self, now_ms: i64, initial_delay_ms: i64, out: &mut Vec<Effect>) {
        let timeout_ms = self.rebalance_timeout_ms();
        match self.state {
            GroupState::PreparingRebalance => {}
            GroupState::Empty if initial_delay_ms > 0 => {
                let until = now_ms.saturating_add(timeout_ms.max(initial_delay_ms));
                let deadline_ms = now_ms.saturating_add(initial_delay_ms);
                self.joining = Some(Joining { deadline_ms, first_until_ms: Some(until) });
            }
            GroupState::Empty | GroupState::CompletingRebalance | GroupState::Stable => {
                self.fail_syncs(GroupError::RebalanceInProgress, out);
                let deadline_ms = now_ms.saturating_add(timeout_ms);
                self.joining = Some(Joining { deadline_ms, first_until_ms: None });
            }
        }
        self.state = GroupState::PreparingRebalance;
        self.sync_deadline_ms = None;
        self.complete_join_if_due(now_ms, out);
    }

    fn fail_syncs(&mut self, error: GroupError, out: &mut Vec<Effect>) {
        self.saving.retain(|(saving, _)| saving.purpose != Purpose::Assignment);
        for member in self.members.values_mut() {
            if let Some(token) = member.syncing.take() {
                out.push(Effect::Sync(token, Err(error)));
            }
        }
    }

    fn complete_join_if_due(&mut self, now_ms: i64, out: &mut Vec<Effect>) {
        let Some(joining) = self.joining else { return };
        let all = self.pending.is_empty() && self.members.values().all(|m| m.joining.is_some());
        let early = all && joining.first_until_ms.is_none();
        if self.state == GroupState::PreparingRebalance && (early || now_ms >= joining.deadline_ms)
        {
            self.complete_join(now_ms, out);
        }
    }

    fn complete_join(&mut self, now_ms: i64, out: &mut Vec<Effect>) {
        // Static members keep their place until their session ends.
        let gone = |m: &Member| m.joining.is_none() && m.instance.is_none();
        self.members.retain(|_, m| !gone(m));
        if self.members.is_empty() {
            self.become_empty(out);
            return;
        }
        let joined = |id: &String| self.members.get(id).is_some_and(|m| m.joining.is_some());
        if !self.leader.as_ref().is_some_and(joined) {
            let next = self.members.iter().find(|(_, m)| m.joining.is_some());
            let Some((next, _)) = next else {
                let deadline_ms = now_ms.saturating_add(self.rebalance_timeout_ms());
                self.joining = Some(Joining { deadline_ms, first_until_ms: None });
                return;
            };
            self.leader = Some(next.clone());
        }
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.protocol = self.vote();
        self.state = GroupState::CompletingRebalance;
        self.joining = None;
        self.sync_deadline_ms = Some(now_ms.saturating_add(self.rebalance_timeout_ms()));
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let reply = self.join_reply(&id);
            let Some(member) = self.members.get_mut(&id) else { continue };
            member.owes_sync = true;
            member.new = false;
            if let Some(token) = member.joining.take() {
                member.expires_ms = now_ms.saturating_add(member.session_timeout_ms);
                out.push(Effect::Join(token, reply));
            }
        }
    }

    fn become_empty(&mut self, out: &mut Vec<Effect>) {
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.state = GroupState::Empty;
        self.protocol = None;
        self.leader = None;
        self.joining = None;
        self.sync_deadline_ms = None;
        self.save(out);
    }

    /// Each member votes for the first of its protocols that all support.
    fn vote(&self) -> Option<String> {
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let choice = member
                .protocols
                .iter()
                .map(|(name, _)| name.as_str())
                .find(|name| self.members.values().all(|m| m.supports(name)));
            *votes.entry(choice?).or_default() += 1;
        }
        votes.into_iter().max_by_key(|(_, count)| *count).map(|(name, _)| name.to_owned())
    }

    fn join_reply(&self, id: &str) -> JoinReply {
        let leader = self.leader.clone().unwrap_or_default();
        let protocol = self.protocol.clone().unwrap_or_default();
        let member = |(id, m): (&String, &Member)| JoinMember {
            id: id.clone(),
            instance: m.instance.clone(),
            metadata: m.metadata(&protocol),
        };
        let leads = leader == id;
        JoinReply {
            error: None,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            members: if leads { self.members.iter().map(member).collect() } else { Vec::new() },
            protocol: self.protocol.clone(),
            leader,
            member: id.to_owned(),
            skip_assignment: false,
        }
    }

    // ---- syncing

    pub(super) fn sync(&mut self, now_ms: i64, token: Token, sync: &Sync, out: &mut Vec<Effect>) {
        if let Err(error) = self.try_sync(now_ms, token, sync, out) {
            out.push(Effect::Sync(token, Err(error)));
        }
    }

    fn try_sync(
        &mut self,
        now_ms: i64,
        token: Token,
        sync: &Sync,
        out: &mut Vec<Effect>,
    ) -> Result<(), GroupError> {
        self.check_member(&sync.member, sync.instance.as_deref())?;
        if sync.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        let differs = |asked: &Option<String>, ours: &Option<String>| {
            asked.is_some() && asked.as_deref() != ours.as_deref()
        };
        if differs(&sync.protocol_type, &self.protocol_type)
            || differs(&sync.protocol, &self.protocol)
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        match self.state {
            GroupState::Empty => Err(GroupError::UnknownMemberId),
            GroupState::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            GroupState::CompletingRebalance => {
                self.await_assignment(now_ms, token, sync, out);
                Ok(())
            }
            GroupState::Stable => {
                self.touch(now_ms, &sync.member);
                if let Some(member) = self.members.get_mut(&sync.member) {
                    member.owes_sync = false;
                }
                out.push(Effect::Sync(token, Ok(self.sync_reply(&sync.member))));
                Ok(())
            }
        }
    }

    fn await_assignment(&mut self, now_ms: i64, token: Token, sync: &Sync, out: &mut Vec<Effect>) {
        self.touch(now_ms, &sync.member);
        if let Some(member) = self.members.get_mut(&sync.member) {
            member.owes_sync = false;
            if let Some(old) = member.syncing.replace(token) {
                out.push(Effect::Sync(old, Err(GroupError::RebalanceInProgress)));
            }
        }
        let under_way = self.saving.iter().any(|(s, _)| s.purpose == Purpose::Assignment);
        if self.leader.as_deref() != Some(sync.member.as_str()) || under_way {
            return;
        }
        for (id, member) in &mut self.members {
            let given = sync.assignments.iter().find(|(to, _)| to == id);
            member.assignment = given.map(|(_, bytes)| bytes.clone()).unwrap_or_default();
        }
        let ticket = self.save(out);
        self.saving.push((Saving { ticket, purpose: Purpose::Assignment }, None));
    }

    fn sync_reply(&self, id: &str) -> SyncReply {
        let assignment = self.members.get(id).map(|m| m.assignment.clone()).unwrap_or_default();
        let (protocol_type, protocol) = (self.protocol_type.clone(), self.protocol.clone());
        SyncReply { protocol_type, protocol, assignment }
    }

    /// The row asked for with `ticket` is replicated, or could not be.
    pub(super) fn saved(
        &mut self,
        now_ms: i64,
        ticket: u64,
        result: Result<(), GroupError>,
        out: &mut Vec<Effect>,
    ) {
        let Some(at) = self.saving.iter().position(|(s, _)| s.ticket == ticket) else { return };
        let (saving, reply) = self.saving.remove(at);
        match (saving.purpose, result) {
            (Purpose::Replacement(token), Ok(())) => {
                out.extend(reply.map(|reply| Effect::Join(token, reply)));
            }
            (Purpose::Replacement(token), Err(error)) => {
                let member = reply.map(|r| r.member).unwrap_or_default();
                out.push(Effect::Join(token, JoinReply::failed(&member, error)));
            }
            (Purpose::Assignment, Ok(())) => {
                self.state = GroupState::Stable;
                let waiting: Vec<_> = self
                    .members
                    .iter_mut()
                    .filter_map(|(id, m)| m.syncing.take().map(|token| (id.clone(), token)))
                    .collect();
                for (id, token) in waiting {
                    self.touch(now_ms, &id);
                    out.push(Effect::Sync(token, Ok(self.sync_reply(&id))));
                }
            }
            (Purpose::Assignment, Err(error)) => {
                self.fail_syncs(error, out);
                self.rebalance(now_ms, 0, out);
            }
        }
    }

    // ---- living and leaving

    pub(super) fn heartbeat(
        &mut self,
        now_ms: i64,
        name: &MemberName,
        generation: i32,
    ) -> Result<(), GroupError> {
        self.check_member(&name.id, name.instance.as_deref())?;
        if self.state == GroupState::Empty {
            return Err(GroupError::UnknownMemberId);
        }
        if generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        self.touch(now_ms, &name.id);
        match self.state {
            GroupState::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            GroupState::CompletingRebalance | GroupState::Stable | GroupState::Empty => Ok(()),
        }
    }

    pub(super) fn leave(
        &mut self,
        now_ms: i64,
        name: &MemberName,
        out: &mut Vec<Effect>,
    ) -> Result<(), GroupError> {
        let id = match &name.instance {
            Some(instance) => {
                let holder = self.statics.get(instance).ok_or(GroupError::UnknownMemberId)?;
                if !name.id.is_empty() && *holder != name.id {
                    return Err(GroupError::FencedInstanceId);
                }
                holder.clone()
            }
            None if self.pending.remove(&name.id).is_some() => {
                self.complete_join_if_due(now_ms, out);
                return Ok(());
            }
            None if self.members.contains_key(&name.id) => name.id.clone(),
            None => return Err(GroupError::UnknownMemberId),
        };
        self.remove(now_ms, &id, out);
        Ok(())
    }

    fn remove(&mut self, now_ms: i64, id: &str, out: &mut Vec<Effect>) {
        let Some(member) = self.members.remove(id) else { return };
        if let Some(token) = member.joining {
            let reply = JoinReply::failed(id, GroupError::UnknownMemberId);
            out.push(Effect::Join(token, reply));
        }
        if let Some(token) = member.syncing {
            out.push(Effect::Sync(token, Err(GroupError::UnknownMemberId)));
        }
        if let Some(instance) = &member.instance {
            self.statics.remove(instance);
        }
        if self.leader.as_deref() == Some(id) {
            self.leader = self.members.keys().next().cloned();
        }
        match self.state {
            GroupState::Empty => {}
            GroupState::PreparingRebalance => self.complete_join_if_due(now_ms, out),
            GroupState::CompletingRebalance | GroupState::Stable => self.rebalance(now_ms, 0, out),
        }
    }

    /// Removes whom the time has run out for, and ends a rebalance that waited long enough.
    pub(super) fn tick(&mut self, now_ms: i64, out: &mut Vec<Effect>) {
        self.pending.retain(|_, until| now_ms < *until);
        let expired = |m: &Member| m.deadline().is_some_and(|at| now_ms >= at);
        let late_sync = self.sync_deadline_ms.is_some_and(|at| now_ms >= at);
        if late_sync {
            self.sync_deadline_ms = None;
        }
        let gone: Vec<String> = self
            .members
            .iter()
            .filter(|(_, m)| expired(m) || late_sync && m.owes_sync)
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            self.remove(now_ms, &id, out);
        }
        self.complete_join_if_due(now_ms, out);
    }

    /// When [`Self::tick`] has something to do next.
    pub(super) fn next_deadline_ms(&self) -> Option<i64> {
        let members = self.members.values().filter_map(Member::deadline);
        let pending = self.pending.values().copied();
        let joining = self.joining.map(|j| j.deadline_ms);
        members.chain(pending).chain(joining).chain(self.sync_deadline_ms).min()
    }

    // ---- questions

    pub(super) fn check_commit(
        &mut self,
        now_ms: i64,
        check: &CommitCheck,
    ) -> Result<(), GroupError> {
        if check.generation < 0 && self.state == GroupState::Empty {
            return Ok(());
        }
        if check.generation < 0 && check.member.is_empty() && check.instance.is_none() {
            return Err(GroupError::UnknownMemberId);
        }
        self.check_member(&check.member, check.instance.as_deref())?;
        if check.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        if self.state == GroupState::CompletingRebalance {
            return Err(GroupError::RebalanceInProgress);
        }
        self.touch(now_ms, &check.member);
        Ok(())
    }

    /// Topics that the members subscribe to; `None` when they cannot be told.
    pub(super) fn subscribed(&self) -> Option<BTreeSet<String>> {
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            for (_, metadata) in &member.protocols {
                topics.extend(subscription_topics(metadata)?);
            }
        }
        Some(topics)
    }

    pub(super) fn describe(&self) -> GroupDescription {
        let stable = self.state == GroupState::Stable;
        let protocol = if stable { self.protocol.clone().unwrap_or_default() } else { "".into() };
        let member = |(id, m): (&String, &Member)| MemberDescription {
            id: id.clone(),
            instance: m.instance.clone(),
            client_id: m.client_id.clone(),
            client_host: m.client_host.clone(),
            metadata: if stable { m.metadata(&protocol) } else { Bytes::new() },
            assignment: if stable { m.assignment.clone() } else { Bytes::new() },
        };
        GroupDescription {
            state: self.state,
            protocol_type: self.protocol_type().to_owned(),
            members: self.members.iter().map(member).collect(),
            protocol,
        }
    }
}

/// Topics of a consumer subscription: `version: i16 | [topic: string] | …`.
fn subscription_topics(metadata: &[u8]) -> Option<Vec<String>> {
    let mut rest = metadata.get(2..)?;
    let mut next = |n: usize| {
        let (head, tail) = rest.split_at_checked(n)?;
        rest = tail;
        Some(head)
    };
    let count = i32::from_be_bytes(next(4)?.try_into().ok()?);
    let mut topics = Vec::new();
    for _ in 0..count.max(0) {
        let length = i16::from_be_bytes(next(2)?.try_into().ok()?);
        let name = next(usize::try_from(length).ok()?)?;
        topics.push(std::str::from_utf8(name).ok()?.to_owned());
    }
    Some(topics)
}

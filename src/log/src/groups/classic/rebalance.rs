//! Rebalancing: waiting for members, completing a generation, choosing its protocol.

use std::collections::BTreeMap;

use super::super::coordinator::Effect;
use super::super::types::{GroupError, GroupState, JoinMember, JoinReply};
use super::{Group, Joining, MIN_REBALANCE_MS, Member, Purpose};

impl Group {
    /// Begins a rebalance where none is under way, and completes it when all are there.
    pub(super) fn rebalance(&mut self, now_ms: i64, initial_delay_ms: i64, out: &mut Vec<Effect>) {
        let timeout_ms = self.rebalance_timeout_ms();
        match self.state {
            GroupState::PreparingRebalance => {}
            GroupState::Empty if initial_delay_ms > 0 => {
                let until = now_ms.saturating_add(timeout_ms.max(initial_delay_ms));
                let deadline_ms = now_ms.saturating_add(initial_delay_ms);
                self.joining = Some(Joining { deadline_ms, first_until_ms: Some(until) });
            }
            GroupState::Empty | GroupState::CompletingRebalance | GroupState::Stable => {
                self.fail_syncs(now_ms, GroupError::RebalanceInProgress, out);
                let deadline_ms = now_ms.saturating_add(timeout_ms);
                self.joining = Some(Joining { deadline_ms, first_until_ms: None });
            }
        }
        self.state = GroupState::PreparingRebalance;
        self.sync_deadline_ms = None;
        self.complete_join_if_due(now_ms, out);
    }

    /// Refuses those who wait for their assignment. As in Kafka, their sessions begin anew: who
    /// waits cannot heartbeat.
    pub(super) fn fail_syncs(&mut self, now_ms: i64, error: GroupError, out: &mut Vec<Effect>) {
        self.saving.retain(|(saving, _)| saving.purpose != Purpose::Assignment);
        for member in self.members.values_mut() {
            if let Some(token) = member.syncing.take() {
                member.expires_ms = now_ms.saturating_add(member.session_timeout_ms);
                out.push(Effect::Sync(token, Err(error)));
            }
        }
    }

    pub(super) fn complete_join_if_due(&mut self, now_ms: i64, out: &mut Vec<Effect>) {
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
                // They may have asked for no time at all.
                let patience_ms = self.rebalance_timeout_ms().max(MIN_REBALANCE_MS);
                let deadline_ms = now_ms.saturating_add(patience_ms);
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
    pub(super) fn vote(&self) -> Option<String> {
        let shared = self.shared_protocols();
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let mut names = member.protocols.iter().map(|(name, _)| name.as_str());
            let choice = names.find(|name| shared.contains(name));
            *votes.entry(choice?).or_default() += 1;
        }
        votes.into_iter().max_by_key(|(_, count)| *count).map(|(name, _)| name.to_owned())
    }

    pub(super) fn join_reply(&self, id: &str) -> JoinReply {
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
}

//! Syncing: the leader's assignment is saved, then members hear it.

use std::collections::HashMap;

use bytes::Bytes;

use super::super::coordinator::Effect;
use super::super::types::{GroupError, GroupState, JoinReply, Sync, SyncReply, Token};
use super::weight::may_be_assigned;
use super::{Group, Purpose, Saving};

impl Group {
    pub(in crate::groups) fn sync(
        &mut self,
        now_ms: i64,
        token: Token,
        sync: &Sync,
        out: &mut Vec<Effect>,
    ) {
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
            GroupState::CompletingRebalance => self.await_assignment(now_ms, token, sync, out),
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

    fn await_assignment(
        &mut self,
        now_ms: i64,
        token: Token,
        sync: &Sync,
        out: &mut Vec<Effect>,
    ) -> Result<(), GroupError> {
        self.touch(now_ms, &sync.member);
        let under_way = self.saving.iter().any(|(s, _)| s.purpose == Purpose::Assignment);
        let assigns = self.leader.as_deref() == Some(sync.member.as_str()) && !under_way;
        if assigns && !may_be_assigned(&sync.assignments) {
            // A row that cannot be saved would make the group rebalance for ever. This leader
            // still owes its sync and is out when the time for that is over.
            return Err(GroupError::InvalidRequest);
        }
        if let Some(member) = self.members.get_mut(&sync.member) {
            member.owes_sync = false;
            if let Some(old) = member.syncing.replace(token) {
                out.push(Effect::Sync(old, Err(GroupError::RebalanceInProgress)));
            }
        }
        if !assigns {
            return Ok(());
        }
        let given = sync.assignments.iter().rev().map(|(to, bytes)| (to.as_str(), bytes));
        let given: HashMap<&str, &Bytes> = given.collect();
        for (id, member) in &mut self.members {
            let given = given.get(id.as_str());
            // A slice of the request would hold all of it.
            member.assignment = given.map(|b| Bytes::copy_from_slice(b)).unwrap_or_default();
        }
        let ticket = self.save(out);
        self.saving.push((Saving { ticket, purpose: Purpose::Assignment }, None));
        Ok(())
    }

    fn sync_reply(&self, id: &str) -> SyncReply {
        let assignment = self.members.get(id).map(|m| m.assignment.clone()).unwrap_or_default();
        let (protocol_type, protocol) = (self.protocol_type.clone(), self.protocol.clone());
        SyncReply { protocol_type, protocol, assignment }
    }

    /// The row asked for with `ticket` is replicated, or could not be.
    pub(in crate::groups) fn saved(
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
                self.fail_syncs(now_ms, error, out);
                self.rebalance(now_ms, 0, out);
            }
        }
    }
}

//! Heartbeats, leaving, and what the passing of time does.

use super::super::coordinator::Effect;
use super::super::types::{GroupError, GroupState, JoinReply, MemberName};
use super::{Group, Member};

impl Group {
    pub(in crate::groups) fn heartbeat(
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

    pub(in crate::groups) fn leave(
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
    pub(in crate::groups) fn tick(&mut self, now_ms: i64, out: &mut Vec<Effect>) {
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
    pub(in crate::groups) fn next_deadline_ms(&self) -> Option<i64> {
        let members = self.members.values().filter_map(Member::deadline);
        let pending = self.pending.values().copied();
        let joining = self.joining.map(|j| j.deadline_ms);
        members.chain(pending).chain(joining).chain(self.sync_deadline_ms).min()
    }
}

//! Leaving, being removed, and what the passing of time does.

use tracing::info;

use super::super::coordinator::Effect;
use super::super::types::{GroupError, Token};
use super::types::{Beat, BeatReply, LEAVES_FOR_A_WHILE, Refusal};
use super::{Group, Progress};

impl Group {
    /// A member leaves, for good or for a while.
    pub(super) fn leave(
        &mut self,
        token: Token,
        beat: &Beat,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let id = self.find(beat)?;
        if beat.epoch == LEAVES_FOR_A_WHILE {
            self.step_out(&id);
        } else {
            info!(group = %self.id, member = %id, "member left the consumer group");
            self.remove(&id);
        }
        let reply = BeatReply { member: id, epoch: beat.epoch, interval_ms: 0, assignment: None };
        self.answer(token, reply, out);
        Ok(())
    }

    /// The member that a heartbeat is from; it must be there.
    pub(super) fn find(&self, beat: &Beat) -> Result<String, Refusal> {
        let Some(instance) = &beat.instance else {
            if self.members.contains_key(&beat.member) {
                return Ok(beat.member.clone());
            }
            let (id, group) = (&beat.member, &self.id);
            let message = format!("Member {id} is not a member of group {group}.");
            return Err(Refusal::new(GroupError::UnknownMemberId, message));
        };
        let Some(holder) = self.statics.get(instance) else {
            let message = format!("Instance id {instance} is unknown.");
            return Err(Refusal::new(GroupError::UnknownMemberId, message));
        };
        if *holder != beat.member {
            let id = &beat.member;
            let message = format!(
                "Static member {id} with instance id {instance} was fenced by member {holder}."
            );
            return Err(Refusal::new(GroupError::FencedInstanceId, message));
        }
        Ok(holder.clone())
    }

    /// A static member goes and keeps what it has until its session ends: it will be back.
    fn step_out(&mut self, id: &str) {
        let Some(member) = self.members.get_mut(id) else { return };
        member.epoch = LEAVES_FOR_A_WHILE;
        member.progress = Progress::Stable;
        member.revoke_until_ms = None;
        // It is gone, so it owns nothing: what it was to give up is free.
        for key in std::mem::take(&mut member.revoking) {
            self.owners.remove(&key);
        }
        self.dirty.insert(id.to_owned());
        info!(group = %self.id, member = %id, "static member left the consumer group for a while");
    }

    /// Removes whom the time has run out for, and saves again what could not be saved.
    pub(in crate::groups) fn tick(&mut self, now_ms: i64, out: &mut Vec<Effect>) {
        let over = self.members.iter().filter(|(_, m)| now_ms >= m.deadline_ms());
        let over: Vec<(String, bool)> =
            over.map(|(id, m)| (id.clone(), now_ms >= m.expires_ms)).collect();
        for (id, silent) in over {
            let why = if silent { "its session is over" } else { "it gives nothing up" };
            info!(group = %self.id, member = %id, "member removed from the consumer group: {why}");
            self.remove(&id);
        }
        self.due_ms = self.members.values().map(super::Member::deadline_ms).min();
        if self.save_again_ms.is_some_and(|at| now_ms >= at) {
            self.save_again_ms = None;
        }
        if self.save_again_ms.is_none() {
            self.flush(out);
        }
    }
}

//! Joining: new members, members that join again, static members that come back (KIP-345).

use bytes::Bytes;

use super::super::coordinator::Effect;
use super::super::types::{GroupConfig, GroupError, GroupState, Join, JoinReply, Token};
use super::weight::kept;
use super::{Group, Joining, Member, NEW_MEMBER_TIMEOUT_MS, Purpose, Saving};

impl Group {
    pub(in crate::groups) fn join(
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
        // An id that was handed out has its place already.
        let counted = known || self.pending.contains_key(&join.member);
        let full = self.members.len() + self.pending.len() >= config.max_members;
        if !counted && full || !self.has_room(join, fresh_id) {
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
        if self.members.is_empty() {
            return true;
        }
        let shared = self.shared_protocols();
        self.protocol_type.as_deref() == Some(join.protocol_type.as_str())
            && join.protocols.iter().any(|(name, _)| shared.contains(name.as_str()))
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
            protocols: kept(&join.protocols),
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
            member.protocols = kept(&join.protocols);
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
        member.protocols = kept(&join.protocols);
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
}

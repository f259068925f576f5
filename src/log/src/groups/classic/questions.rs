//! What others ask a group: may offsets be committed, what is it subscribed to, how does it stand.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::super::types::{
    CommitCheck, GroupDescription, GroupError, GroupState, GroupStats, MemberDescription,
};
use super::{Group, Member};

impl Group {
    pub(in crate::groups) fn check_commit(
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
    pub(in crate::groups) fn subscribed(&self) -> Option<BTreeSet<String>> {
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            for (_, metadata) in &member.protocols {
                topics.extend(subscription_topics(metadata)?);
            }
        }
        Some(topics)
    }

    pub(in crate::groups) fn stats(&self) -> GroupStats {
        let (id, members) = (self.id.clone(), self.members.len());
        GroupStats { id, members, generation: self.generation }
    }

    pub(in crate::groups) fn describe(&self) -> GroupDescription {
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

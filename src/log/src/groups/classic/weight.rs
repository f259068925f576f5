//! How large a group may grow: its row has to fit one value of a command.
//!
//! What the members say of themselves is bounded when they join, what they are assigned when
//! their leader brings it; both together leave room for the group's own fields. Kafka bounds a
//! group, too, by what its topic for offsets takes as one message.

use bytes::Bytes;

use super::super::types::{GroupError, Join};
use super::{Group, Member};
use crate::limits::{MAX_GROUP_NAME, MAX_GROUP_WEIGHT, MAX_MEMBER_NAME};

/// What the members of a group are assigned together, in bytes.
const MAX_ASSIGNMENTS: usize = MAX_GROUP_WEIGHT / 2;

/// Protocols that a member offers, at most.
const MAX_PROTOCOLS: usize = 100;

/// Length of a client's name for itself, with which its member id begins, in bytes.
const MAX_CLIENT_NAME: usize = 4096;

/// What a member takes in its group's row without its texts, its protocols and its assignment, at
/// most, in bytes.
const BASE_WEIGHT: usize = 128;

/// Kafka has no such limits; what is beyond them is no client's. A member id is one that was
/// handed out, or unknown.
pub(in crate::groups) fn check_names(join: &Join) -> Result<(), GroupError> {
    if join.group.len() > MAX_GROUP_NAME {
        return Err(GroupError::InvalidGroupId);
    }
    let instance = join.instance.as_ref().map_or(0, String::len);
    if join.protocols.len() > MAX_PROTOCOLS {
        return Err(GroupError::InvalidRequest);
    }
    let too_long = instance > MAX_MEMBER_NAME
        || join.protocol_type.len() > MAX_MEMBER_NAME
        || join.client_id.len() > MAX_CLIENT_NAME;
    if too_long { Err(GroupError::InvalidRequest) } else { Ok(()) }
}

/// Protocols as a group keeps them: slices of a request would hold all of it.
pub(super) fn kept(protocols: &[(String, Bytes)]) -> Vec<(String, Bytes)> {
    let copy =
        |(name, metadata): &(String, Bytes)| (name.clone(), Bytes::copy_from_slice(metadata));
    protocols.iter().map(copy).collect()
}

/// Whether the assignments that a leader brings are small enough.
pub(super) fn may_be_assigned(assignments: &[(String, Bytes)]) -> bool {
    assignments.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() <= MAX_ASSIGNMENTS
}

fn names_of<'a>(id: &'a str, member: &'a Member) -> [&'a str; 4] {
    let instance = member.instance.as_deref().unwrap_or_default();
    [id, instance, &member.client_id, &member.client_host]
}

/// What a member says of itself takes so many bytes of its group's row, at most: only one of its
/// protocols will be there.
fn weight(names: [&str; 4], protocols: &[(String, Bytes)]) -> usize {
    let names = names.into_iter().map(str::len).sum::<usize>();
    let protocols = protocols.iter().map(|(name, metadata)| name.len() + metadata.len() + 16);
    BASE_WEIGHT + names + protocols.sum::<usize>()
}

impl Group {
    fn weight(&self) -> usize {
        self.members.iter().map(|(id, m)| weight(names_of(id, m), &m.protocols)).sum()
    }

    /// Whether the group has room for what a member says that joins. `fresh_id` is the id of one
    /// that brings none.
    pub(super) fn has_room(&self, join: &Join, fresh_id: &str) -> bool {
        let returns = join.instance.as_ref().filter(|_| join.member.is_empty());
        let old_id = returns.and_then(|instance| self.statics.get(instance));
        let old = self.members.get_key_value(old_id.unwrap_or(&join.member));
        let id = if join.member.is_empty() { fresh_id } else { &join.member };
        let instance = join.instance.as_deref().unwrap_or_default();
        let names = match old {
            // Who joins again keeps the names that it has.
            Some((id, member)) if returns.is_none() => names_of(id, member),
            Some(_) | None => [id, instance, &join.client_id, &join.client_host],
        };
        let before = old.map_or(0, |(id, m)| weight(names_of(id, m), &m.protocols));
        let after = weight(names, &join.protocols);
        after <= before || self.weight() - before + after <= MAX_GROUP_WEIGHT
    }
}

//! The replicated form of a group of the consumer protocol: a row for the group and one for each
//! member.
//!
//! Row keys: `g`, `c`, group id: the group; `g`, `m`, length of the group id (`u16`, big endian),
//! group id, member id: a member. What one request changes is one command, so that no crash
//! parts a member that gave a partition up from the one that got it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use base::codec;
use consensus::{Rows, RowsReader};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::super::row::scan;
use super::member::Progress;
use crate::types::PartKey;

const GROUP_PREFIX: &[u8] = b"gc";
const MEMBER_PREFIX: &[u8] = b"gm";

/// Partitions by topic.
pub type PackedParts = Vec<(Uuid, Vec<u32>)>;

/// A group as it is stored. Append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConsumerGroupRow {
    /// First form.
    V1(ConsumerGroupRowV1),
}

/// First form of a stored group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerGroupRowV1 {
    /// Counts changes of members, subscriptions and topics.
    pub epoch: i32,
    /// The group's epoch that the targets of its members are for.
    pub target_epoch: i32,
    /// Stands for the ids and sizes of the topics that the group subscribed to in that epoch.
    pub topics_hash: u64,
    /// How many rows of members there are.
    pub members: u32,
}

/// A member as it is stored. Append-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConsumerMemberRow {
    /// First form.
    V1(ConsumerMemberRowV1),
}

/// First form of a stored member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerMemberRowV1 {
    /// The epoch that it is in; −2 for a static member that is away.
    pub epoch: i32,
    /// The epoch before that.
    pub previous_epoch: i32,
    /// Where it is on its way to its target.
    pub progress: Progress,
    /// Static name.
    pub instance: Option<String>,
    /// Where it is.
    pub rack: Option<String>,
    /// The client's name for itself.
    pub client_id: String,
    /// The client's address.
    pub client_host: String,
    /// How long it may take to give partitions up.
    pub rebalance_timeout_ms: i32,
    /// Topics subscribed to by name.
    pub topics: Vec<String>,
    /// Regular expression subscribed to.
    pub regex: Option<String>,
    /// Topics that it found.
    pub matched: Vec<String>,
    /// The assignor that it wants.
    pub assignor: Option<String>,
    /// What it may own.
    pub assigned: PackedParts,
    /// What it was told to give up and may still own.
    pub revoking: PackedParts,
    /// What it shall own.
    pub target: PackedParts,
}

/// Changes of one group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerSave {
    /// Group id.
    pub group: String,
    /// The group from now on.
    pub row: ConsumerGroupRow,
    /// Members that came or changed, and `None` for those that are gone.
    pub members: Vec<(String, Option<ConsumerMemberRow>)>,
}

/// A group with its members as they are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredConsumerGroup {
    /// The group.
    pub row: ConsumerGroupRow,
    /// Members, by id.
    pub members: BTreeMap<String, ConsumerMemberRow>,
}

pub(super) fn pack(parts: &BTreeSet<PartKey>) -> PackedParts {
    let mut packed: PackedParts = Vec::new();
    for key in parts {
        match packed.last_mut().filter(|(topic, _)| *topic == key.topic) {
            Some((_, numbers)) => numbers.push(key.partition),
            None => packed.push((key.topic, vec![key.partition])),
        }
    }
    packed
}

pub(super) fn unpack(packed: &PackedParts) -> BTreeSet<PartKey> {
    let parts = |(topic, numbers): &(Uuid, Vec<u32>)| {
        let topic = *topic;
        numbers.clone().into_iter().map(move |partition| PartKey { topic, partition })
    };
    packed.iter().flat_map(parts).collect()
}

impl ConsumerSave {
    /// How large its command will be, in bytes; not less.
    pub fn size_at_most(&self) -> usize {
        const FIXED: usize = 200;
        let parts = |packed: &PackedParts| -> usize {
            packed.iter().map(|(_, numbers)| 24 + 4 * numbers.len()).sum()
        };
        let text = |text: &String| text.len() + 8;
        let member = |(id, row): &(String, Option<ConsumerMemberRow>)| {
            let Some(ConsumerMemberRow::V1(row)) = row else { return FIXED + id.len() };
            let optional = [&row.instance, &row.rack, &row.regex, &row.assignor];
            let texts = optional.into_iter().flatten().chain([&row.client_id, &row.client_host]);
            let texts = texts.chain(&row.topics).chain(&row.matched).map(text).sum::<usize>();
            let parts = [&row.assigned, &row.revoking, &row.target].map(parts);
            FIXED + id.len() + texts + parts.into_iter().sum::<usize>()
        };
        FIXED + self.group.len() + self.members.iter().map(member).sum::<usize>()
    }
}

fn group_key(group: &str) -> Vec<u8> {
    [GROUP_PREFIX, group.as_bytes()].concat()
}

fn member_key(group: &str, member: &str) -> Vec<u8> {
    // The coordinator refuses longer names.
    let length = u16::try_from(group.len()).unwrap_or(u16::MAX);
    [MEMBER_PREFIX, &length.to_be_bytes()[..], group.as_bytes(), member.as_bytes()].concat()
}

/// The group and member of a member's key without its prefix.
fn read_member_key(rest: &[u8]) -> Option<(String, String)> {
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (group, member) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((String::from_utf8(group.to_vec()).ok()?, String::from_utf8(member.to_vec()).ok()?))
}

/// Applies the changes of a group.
pub(in crate::groups) fn apply(save: ConsumerSave, rows: &mut Rows<'_>) {
    rows.put(&group_key(&save.group), codec::encode(&save.row));
    for (member, row) in save.members {
        let key = member_key(&save.group, &member);
        match row {
            Some(row) => rows.put(&key, codec::encode(&row)),
            None => rows.delete(&key),
        }
    }
}

/// Forgets a group. It has no members: the coordinator does not ask for this while it has some.
pub(in crate::groups) fn forget(group: &str, rows: &mut Rows<'_>) {
    rows.delete(&group_key(group));
}

/// Every stored group.
pub(in crate::groups) fn load(
    reader: &RowsReader,
) -> io::Result<BTreeMap<String, StoredConsumerGroup>> {
    let mut groups = BTreeMap::new();
    scan(reader, GROUP_PREFIX, |rest, value| {
        let id = String::from_utf8(rest.to_vec()).map_err(io::Error::other)?;
        let row = codec::decode(value).map_err(io::Error::other)?;
        groups.insert(id, StoredConsumerGroup { row, members: BTreeMap::new() });
        Ok(())
    })?;
    scan(reader, MEMBER_PREFIX, |rest, value| {
        let bad = || io::Error::other("the key of a member's row is none");
        let (group, member) = read_member_key(rest).ok_or_else(bad)?;
        let row = codec::decode(value).map_err(io::Error::other)?;
        if let Some(group) = groups.get_mut(&group) {
            group.members.insert(member, row);
        }
        Ok(())
    })?;
    Ok(groups)
}

//! The replicated form of a group, and the commands that write it.
//!
//! Row keys: `g`, `r`, group id: a classic group; `g`, `e`, group id: when a group of either kind
//! lost its last member; `g`, `c` and `g`, `m`: groups of the consumer protocol and their members,
//! see there. A group is of one kind: a save of the one kind deletes the row of the other.
//! Other keys of the machine must not begin with `gr`, `ge`, `gc` or `gm`.

use std::collections::BTreeMap;
use std::io;

use base::codec;
use bytes::Bytes;
use consensus::{Fatal, Rows, RowsReader};
use serde::{Deserialize, Serialize};

use super::consumer::row as consumer;
use super::consumer::{ConsumerGroupRow, ConsumerSave, StoredConsumerGroup};

const PREFIX: &[u8] = b"gr";
const EMPTY_PREFIX: &[u8] = b"ge";

/// How many rows are read at a time.
const SCAN_ROWS: usize = 256;

/// A group as it is stored. Append-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupRow {
    /// First form.
    V1(GroupRowV1),
}

impl GroupRow {
    /// How large it will be in a command without its group's id, in bytes; not less.
    pub fn size_at_most(&self) -> usize {
        const FIXED: usize = 100;
        let Self::V1(row) = self;
        let optional = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let member = |m: &MemberRow| {
            let names =
                m.id.len() + optional(&m.instance) + m.client_id.len() + m.client_host.len();
            FIXED + names + m.metadata.len() + m.assignment.len()
        };
        let names = optional(&row.protocol_type) + optional(&row.protocol) + optional(&row.leader);
        FIXED + names + row.members.iter().map(member).sum::<usize>()
    }
}

/// First form of a stored group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRowV1 {
    /// Generation that the members saw.
    pub generation: i32,
    /// Protocol type.
    pub protocol_type: Option<String>,
    /// Chosen protocol.
    pub protocol: Option<String>,
    /// Member id of the leader.
    pub leader: Option<String>,
    /// Members; none for an empty group.
    pub members: Vec<MemberRow>,
}

/// A stored member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRow {
    /// Member id.
    pub id: String,
    /// Static name.
    pub instance: Option<String>,
    /// The client's name for itself.
    pub client_id: String,
    /// The client's address.
    pub client_host: String,
    /// Session timeout.
    pub session_timeout_ms: i64,
    /// Rebalance timeout.
    pub rebalance_timeout_ms: i64,
    /// Subscription under the chosen protocol.
    pub metadata: Bytes,
    /// Assignment.
    pub assignment: Bytes,
}

/// What changes group rows. Append-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupCommand {
    /// Sets rows, or removes those that are `None`, in order.
    Save(Vec<(String, Option<GroupRow>)>),
    /// Changes of groups of the consumer protocol, in order.
    SaveConsumers(Vec<ConsumerSave>),
}

/// Every stored group of a data group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredGroups {
    /// Classic groups.
    pub classic: BTreeMap<String, GroupRow>,
    /// Groups of the consumer protocol.
    pub consumer: BTreeMap<String, StoredConsumerGroup>,
}

fn key(group: &str) -> Vec<u8> {
    [PREFIX, group.as_bytes()].concat()
}

/// Key of the row that says since when a group is empty, in milliseconds since the epoch.
pub(crate) fn empty_key(group: &str) -> Vec<u8> {
    [EMPTY_PREFIX, group.as_bytes()].concat()
}

/// Applies a command to the rows of the machine that hosts the groups.
pub fn apply_command(
    command: GroupCommand,
    time_ms: i64,
    rows: &mut Rows<'_>,
) -> Result<(), Fatal> {
    match command {
        GroupCommand::Save(groups) => {
            for (group, row) in groups {
                let empty = |GroupRow::V1(row): &GroupRow| row.members.is_empty();
                let empty = row.as_ref().is_some_and(empty);
                note_empty(&group, empty, time_ms, rows)?;
                consumer::forget(&group, rows);
                match row {
                    Some(row) => rows.put(&key(&group), codec::encode(&row)),
                    None => rows.delete(&key(&group)),
                }
            }
        }
        GroupCommand::SaveConsumers(saves) => {
            for save in saves {
                let ConsumerGroupRow::V1(row) = save.row;
                note_empty(&save.group, row.members == 0, time_ms, rows)?;
                rows.delete(&key(&save.group));
                consumer::apply(save, rows);
            }
        }
    }
    Ok(())
}

/// Notes since when a group has no members.
fn note_empty(group: &str, empty: bool, time_ms: i64, rows: &mut Rows<'_>) -> Result<(), Fatal> {
    let key = empty_key(group);
    if !empty {
        rows.delete(&key);
    } else if rows.get(&key)?.is_none() {
        rows.put(&key, codec::encode(&time_ms));
    }
    Ok(())
}

/// Every stored group.
pub fn load_rows(reader: &RowsReader) -> io::Result<StoredGroups> {
    let mut classic = BTreeMap::new();
    scan(reader, PREFIX, |rest, value| {
        let id = String::from_utf8(rest.to_vec()).map_err(io::Error::other)?;
        classic.insert(id, codec::decode(value).map_err(io::Error::other)?);
        Ok(())
    })?;
    Ok(StoredGroups { classic, consumer: consumer::load(reader)? })
}

/// Feeds every row with a prefix to `each`, its key without it.
pub(super) fn scan(
    reader: &RowsReader,
    prefix: &[u8],
    mut each: impl FnMut(&[u8], &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let rows = reader.scan(prefix, after.as_deref(), SCAN_ROWS)?;
        for (key, value) in &rows {
            each(key.get(prefix.len()..).unwrap_or_default(), value)?;
        }
        match rows.into_iter().last() {
            Some((key, _)) => after = Some(key),
            None => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(row: GroupRowV1) {
        let row = GroupRow::V1(row);
        let most = row.size_at_most();
        let alone = codec::encode(&GroupCommand::Save(Vec::new())).len();
        let saved = codec::encode(&GroupCommand::Save(vec![(String::new(), Some(row))])).len();
        assert!(saved - alone <= most, "{saved} {alone} {most}");
    }

    #[test]
    fn a_row_is_not_larger_than_it_says() {
        check(GroupRowV1::default());
        let text = |bytes: usize| "t".repeat(bytes);
        let member = |number: usize| MemberRow {
            id: text(number),
            instance: number.is_multiple_of(2).then(|| text(50)),
            client_id: text(30),
            client_host: text(20),
            session_timeout_ms: i64::MAX,
            rebalance_timeout_ms: i64::MAX,
            metadata: text(400).into(),
            assignment: text(300).into(),
        };
        check(GroupRowV1 {
            generation: i32::MAX,
            protocol_type: Some(text(70)),
            protocol: Some(text(80)),
            leader: Some(text(90)),
            members: (0..100).map(member).collect(),
        });
    }
}

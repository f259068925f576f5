//! The replicated form of a group, and the commands that write it.
//!
//! Row keys: `g`, `r`, group id: the group; `g`, `e`, group id: when it lost its last member.
//! Other keys of the machine must not begin with `gr` or `ge`.

use std::collections::BTreeMap;
use std::io;

use base::codec::{self, DecodeError};
use bytes::Bytes;
use consensus::{Fatal, Rows, RowsReader};
use serde::{Deserialize, Serialize};

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
                let empty = empty_key(&group);
                match &row {
                    Some(GroupRow::V1(row)) if row.members.is_empty() => {
                        if rows.get(&empty)?.is_none() {
                            rows.put(&empty, codec::encode(&time_ms));
                        }
                    }
                    _ => rows.delete(&empty),
                }
                match row {
                    Some(row) => rows.put(&key(&group), codec::encode(&row)),
                    None => rows.delete(&key(&group)),
                }
            }
        }
    }
    Ok(())
}

/// Every stored group.
pub fn load_rows(reader: &RowsReader) -> io::Result<BTreeMap<String, GroupRow>> {
    let mut groups = BTreeMap::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let rows = reader.scan(PREFIX, after.as_deref(), SCAN_ROWS)?;
        for (key, value) in &rows {
            let id = key.get(PREFIX.len()..).unwrap_or_default();
            let id = String::from_utf8(id.to_vec()).map_err(io::Error::other)?;
            let row = codec::decode(value).map_err(|e: DecodeError| io::Error::other(e))?;
            groups.insert(id, row);
        }
        match rows.into_iter().last() {
            Some((key, _)) => after = Some(key),
            None => return Ok(groups),
        }
    }
}

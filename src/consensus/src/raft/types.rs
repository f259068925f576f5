//! openraft's types as trine uses them, and their encoding on disk and on the wire.
//!
//! openraft's own serde forms are never stored: an upgrade of that crate must not be a data
//! migration. A log entry's body is `version: u8 | kind: u8 | rest`; `rest` is empty for a blank
//! entry, a bincode [`MembershipRow`] for a membership, and a [`super::batch`] for commands.

// openraft's traits make these types part of public signatures, though the module is private.
#![allow(unreachable_pub)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;

use base::codec;
use bytes::{BufMut, Bytes, BytesMut};
use openraft::EntryPayload;
use openraft::impls::leader_id_std;
use serde::{Deserialize, Serialize};
use wal::{LogPos, WalEntry};

use crate::net::proto;

openraft::declare_raft_types!(
    /// trine's choice of openraft types: plain Raft terms, minted 64-bit node ids.
    pub Types:
        D = Commands,
        R = Replies,
        NodeId = u64,
        Node = Member,
        LeaderId = leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = super::runtime::Runtime,
);

pub type Raft = openraft::Raft<Types, super::host::Host>;
pub type LogId = openraft::type_config::alias::LogIdOf<Types>;
pub type Vote = openraft::type_config::alias::VoteOf<Types>;
pub type Entry = openraft::type_config::alias::EntryOf<Types>;
pub type Membership = openraft::Membership<u64, Member>;
pub type StoredMembership = openraft::type_config::alias::StoredMembershipOf<Types>;
pub type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Types>;

/// What a Raft node id stands for: the slot 1, 2 or 3 that its users see.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub slot: u16,
}

/// An encoded batch of commands.
#[derive(Clone)]
pub struct Commands(pub Bytes);

impl fmt::Debug for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The replies to a batch, in its order.
#[derive(Debug, Default)]
pub struct Replies(pub Vec<Bytes>);

const VERSION: u8 = 1;
const BLANK: u8 = 0;
const MEMBERSHIP: u8 = 1;
const COMMANDS: u8 = 2;

/// A membership as stored.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct MembershipRow {
    configs: Vec<Vec<u64>>,
    nodes: Vec<(u64, Member)>,
}

impl From<&Membership> for MembershipRow {
    fn from(membership: &Membership) -> Self {
        let configs = membership.get_joint_config().iter();
        Self {
            configs: configs.map(|c| c.iter().copied().collect()).collect(),
            nodes: membership.nodes().map(|(id, node)| (*id, node.clone())).collect(),
        }
    }
}

impl MembershipRow {
    pub fn into_membership(self) -> io::Result<Membership> {
        let configs: Vec<BTreeSet<u64>> =
            self.configs.into_iter().map(|c| c.into_iter().collect()).collect();
        let nodes: BTreeMap<u64, Member> = self.nodes.into_iter().collect();
        if configs.is_empty() {
            return Ok(Membership::default());
        }
        Membership::new(configs, nodes).map_err(|e| invalid(&e.to_string()))
    }
}

pub fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.to_owned())
}

/// The body of an entry: for commands it is one copy, shared by the WAL and all followers.
pub fn encode_body(entry: &Entry) -> Bytes {
    let (kind, rest) = match &entry.payload {
        EntryPayload::Blank => (BLANK, Bytes::new()),
        EntryPayload::Membership(m) => (MEMBERSHIP, codec::encode(&MembershipRow::from(m)).into()),
        // The batch already carries its two bytes in front, so that nothing is copied.
        EntryPayload::Normal(commands) => return commands.0.clone(),
    };
    let mut body = BytesMut::with_capacity(2 + rest.len());
    body.put_slice(&[VERSION, kind]);
    body.put_slice(&rest);
    body.freeze()
}

/// The two bytes in front of every command batch.
pub const COMMANDS_PREFIX: [u8; 2] = [VERSION, COMMANDS];

/// An entry from its position and body. The body of commands keeps its prefix.
pub fn decode_entry(term: u64, index: u64, body: Bytes) -> io::Result<Entry> {
    let payload = match body.get(..2) {
        Some([VERSION, BLANK]) => EntryPayload::Blank,
        Some([VERSION, MEMBERSHIP]) => {
            let rest = body.get(2..).unwrap_or_default();
            let row: MembershipRow = codec::decode(rest).map_err(|e| invalid(&e.to_string()))?;
            EntryPayload::Membership(row.into_membership()?)
        }
        Some([VERSION, COMMANDS]) => EntryPayload::Normal(Commands(body)),
        _ => return Err(invalid(&format!("log entry {term}-{index} is of an unknown kind"))),
    };
    Ok(Entry { log_id: LogId::new_term_index(term, index), payload })
}

pub fn to_pos(id: &LogId) -> LogPos {
    LogPos { term: id.leader_id.term, node: 0, index: id.index }
}

pub fn from_pos(pos: LogPos) -> LogId {
    LogId::new_term_index(pos.term, pos.index)
}

pub fn to_wal(entry: &Entry) -> WalEntry {
    WalEntry { pos: to_pos(&entry.log_id), body: encode_body(entry) }
}

pub fn from_wal(entry: WalEntry) -> io::Result<Entry> {
    decode_entry(entry.pos.term, entry.pos.index, entry.body)
}

/// A vote as the WAL stores it.
pub fn encode_vote(vote: &Vote) -> Bytes {
    let id = vote.leader_id;
    codec::encode(&(VERSION, id.term, id.voted_for, vote.committed)).into()
}

pub fn decode_vote(bytes: &[u8]) -> io::Result<Vote> {
    let (version, term, node, committed): (u8, u64, u64, bool) =
        codec::decode(bytes).map_err(|e| invalid(&e.to_string()))?;
    if version != VERSION {
        return Err(invalid("vote of an unknown version"));
    }
    Ok(if committed { Vote::new_committed(term, node) } else { Vote::new(term, node) })
}

impl From<&LogId> for proto::LogPos {
    fn from(id: &LogId) -> Self {
        Self { term: id.leader_id.term, index: id.index }
    }
}

impl From<proto::LogPos> for LogId {
    fn from(pos: proto::LogPos) -> Self {
        Self::new_term_index(pos.term, pos.index)
    }
}

impl From<&Vote> for proto::Vote {
    fn from(vote: &Vote) -> Self {
        let id = vote.leader_id;
        Self { term: id.term, node: id.voted_for, committed: vote.committed }
    }
}

impl From<proto::Vote> for Vote {
    fn from(vote: proto::Vote) -> Self {
        if vote.committed {
            Self::new_committed(vote.term, vote.node)
        } else {
            Self::new(vote.term, vote.node)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_survive_their_encoding() {
        let configs = vec![BTreeSet::from([7, 8, 9])];
        let nodes: BTreeMap<u64, Member> =
            [(7, 1), (8, 2), (9, 3)].into_iter().map(|(id, slot)| (id, Member { slot })).collect();
        let membership = Membership::new(configs, nodes).unwrap();
        let commands = Commands(Bytes::from_static(&[VERSION, COMMANDS, 1, 2, 3]));
        for payload in [
            EntryPayload::Blank,
            EntryPayload::Membership(membership),
            EntryPayload::Normal(commands),
        ] {
            let entry = Entry { log_id: LogId::new_term_index(3, 9), payload };
            let body = encode_body(&entry);
            let back = decode_entry(3, 9, body.clone()).unwrap();
            assert_eq!(encode_body(&back), body);
            assert_eq!(back.log_id, entry.log_id);
        }
    }

    #[test]
    fn unknown_kinds_are_errors() {
        assert!(decode_entry(1, 1, Bytes::from_static(&[1, 9])).is_err());
        assert!(decode_entry(1, 1, Bytes::new()).is_err());
    }

    #[test]
    fn votes_survive_their_encoding() {
        for vote in [Vote::new(3, 77), Vote::new_committed(4, 78)] {
            assert_eq!(decode_vote(&encode_vote(&vote)).unwrap(), vote);
        }
    }
}

//! Commands of the two machines.
//!
//! Those of `m0` are bincode. Those of data groups begin with a kind byte; operations on
//! documents are laid out by hand (little endian), because they carry sources:
//!
//! ```text
//! 3 | shard: 16 bytes, u16 | term: u64 | base_seq_no: u64 | mapping_version: u64
//!   | mark: option(pipeline: blob, partition: u32, expected: option(u64), new: u64)
//!   | count: u32 | op*
//! op: kind: u8 | version: u64 | id: blob | routing: option(blob) | source: blob
//! ```
//!
//! The part from `count` on goes into the translog as it is: see [`crate::translog`].

use std::collections::BTreeMap;

use base::GroupId;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::EsError;
use crate::model::{IndexState, IndexUuid, ShardId};
use crate::wire::{Malformed, Reader, Writer};

/// A change of the catalog in `m0`. Append-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CatalogCommand {
    /// Creates an index.
    Create(NewIndex),
    /// Deletes indices.
    Delete {
        /// Which.
        uuids: Vec<IndexUuid>,
    },
    /// Merges a mapping into that of an index.
    PutMapping {
        /// Which index.
        uuid: IndexUuid,
        /// The addition, as JSON.
        mapping: String,
    },
    /// Changes settings.
    PutSettings {
        /// Which indices.
        uuids: Vec<IndexUuid>,
        /// Flat settings as JSON; null removes.
        settings: String,
        /// Whether settings that are there stay.
        keep_existing: bool,
    },
    /// Changes aliases, all or none.
    Aliases {
        /// What to do, in order.
        actions: Vec<AliasAction>,
    },
    /// Opens or closes indices.
    SetState {
        /// Which.
        uuids: Vec<IndexUuid>,
        /// The new state.
        state: IndexState,
    },
    /// Sets or removes a named definition (a template).
    PutBlob {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
        /// JSON, `None` removes.
        json: Option<String>,
    },
}

/// What a new index is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewIndex {
    /// Its name.
    pub name: String,
    /// Its identity, minted by the proposer.
    pub uuid: IndexUuid,
    /// Number of shards.
    pub shards: u16,
    /// Copies beside the first.
    pub replicas: u32,
    /// Flat settings as JSON.
    pub settings: String,
    /// Mapping as JSON.
    pub mapping: String,
    /// Aliases: name and definition as JSON.
    pub aliases: BTreeMap<String, String>,
    /// How many data groups there are.
    pub data_groups: u16,
}

/// One step of a change of aliases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AliasAction {
    /// Adds or replaces.
    Add {
        /// Of which index.
        uuid: IndexUuid,
        /// Its name.
        alias: String,
        /// Filter, routing and so on as JSON.
        definition: String,
    },
    /// Removes.
    Remove {
        /// Of which index.
        uuid: IndexUuid,
        /// Its name.
        alias: String,
    },
    /// Deletes a whole index.
    RemoveIndex {
        /// Which.
        uuid: IndexUuid,
    },
}

/// The answer to a [`CatalogCommand`]. Append-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CatalogReply {
    /// Done.
    Done {
        /// Groups of the new index's shards.
        shards: Vec<GroupId>,
        /// Version of the mapping.
        mapping_version: u64,
    },
    /// Refused.
    Refused(EsError),
}

const CREATE_SHARD: u8 = 1;
const DELETE_SHARD: u8 = 2;
const OPS: u8 = 3;

/// A change in a data group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShardCommand {
    /// Creates a shard; nothing happens when it is there.
    Create(ShardId),
    /// Deletes a shard; nothing happens when it is not there.
    Delete(ShardId),
    /// Appends operations.
    Ops(OpsCommand),
}

/// How far a pipeline got in a shard: set together with the operations it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkChange {
    /// The pipeline.
    pub pipeline: String,
    /// The partition it read from.
    pub partition: u32,
    /// The mark that must be there; `None` when there must be none.
    pub expected: Option<u64>,
    /// The mark afterwards.
    pub new: u64,
}

/// Operations with the numbers that the shard's leader gave them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpsCommand {
    /// The shard.
    pub shard: ShardId,
    /// The term in which they were evaluated.
    pub term: u64,
    /// Number of the first; the others follow.
    pub base_seq_no: u64,
    /// The feeder needs at least this version of the mapping.
    pub mapping_version: u64,
    /// A pipeline's mark.
    pub mark: Option<MarkChange>,
    /// How many.
    pub count: u32,
    /// The operations; see [`LoggedOp`].
    pub ops: Bytes,
}

/// Why operations were not appended, or that they were.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpsReply {
    /// Appended.
    Done {
        /// The shard's primary term, which clients see.
        primary_term: u64,
    },
    /// The shard does not exist (any more).
    NoShard,
    /// Evaluated by an earlier leader, or against numbers that have moved on: evaluate again.
    Stale,
    /// The pipeline's mark is another one.
    MarkMismatch {
        /// The mark that is there.
        found: Option<u64>,
    },
}

/// One operation as the translog has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedOp {
    /// Whether the document is removed.
    pub delete: bool,
    /// Its version.
    pub version: u64,
    /// Its id.
    pub id: String,
    /// Its routing.
    pub routing: Option<String>,
    /// Its source; empty for a removal.
    pub source: Bytes,
}

impl LoggedOp {
    /// Writes one operation.
    pub fn write(&self, out: &mut Writer) {
        out.u8(u8::from(self.delete));
        out.u64(self.version);
        out.blob(self.id.as_bytes());
        out.option(self.routing.as_deref(), |w, routing| w.blob(routing.as_bytes()));
        out.blob(&self.source);
    }

    /// Reads one operation; the source shares the bytes.
    pub fn read(input: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            delete: input.u8()? != 0,
            version: input.u64()?,
            id: input.text()?,
            routing: input.option(Reader::text)?,
            source: input.blob()?,
        })
    }
}

impl ShardCommand {
    /// The command's bytes.
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Create(shard) => encode_shard(CREATE_SHARD, *shard),
            Self::Delete(shard) => encode_shard(DELETE_SHARD, *shard),
            Self::Ops(ops) => ops.encode(),
        }
    }

    /// Reads a command.
    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut input = Reader::new(bytes);
        match input.u8()? {
            CREATE_SHARD => Ok(Self::Create(read_shard(&mut input)?)),
            DELETE_SHARD => Ok(Self::Delete(read_shard(&mut input)?)),
            OPS => OpsCommand::decode(&mut input).map(Self::Ops),
            _ => Err(Malformed { at: 0 }),
        }
    }
}

fn encode_shard(kind: u8, shard: ShardId) -> Bytes {
    let mut out = Writer::with_capacity(19);
    out.u8(kind);
    write_shard(&mut out, shard);
    out.finish()
}

/// Writes a shard's identity.
pub(crate) fn write_shard(out: &mut Writer, shard: ShardId) {
    out.raw(&shard.index.0);
    out.u16(shard.number);
}

/// Reads a shard's identity.
pub(crate) fn read_shard(input: &mut Reader) -> Result<ShardId, Malformed> {
    Ok(ShardId { index: IndexUuid(input.id()?), number: input.u16()? })
}

impl OpsCommand {
    fn encode(&self) -> Bytes {
        let mut out = Writer::with_capacity(self.ops.len() + 128);
        out.u8(OPS);
        write_shard(&mut out, self.shard);
        out.u64(self.term);
        out.u64(self.base_seq_no);
        out.u64(self.mapping_version);
        out.option(self.mark.as_ref(), |w, mark| mark.write(w));
        out.u32(self.count);
        out.raw(&self.ops);
        out.finish()
    }

    fn decode(input: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            shard: read_shard(input)?,
            term: input.u64()?,
            base_seq_no: input.u64()?,
            mapping_version: input.u64()?,
            mark: input.option(MarkChange::read)?,
            count: input.u32()?,
            ops: input.rest(),
        })
    }
}

impl MarkChange {
    /// Writes a mark.
    pub(crate) fn write(&self, out: &mut Writer) {
        out.blob(self.pipeline.as_bytes());
        out.u32(self.partition);
        out.option(self.expected, Writer::u64);
        out.u64(self.new);
    }

    /// Reads a mark.
    pub(crate) fn read(input: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            pipeline: input.text()?,
            partition: input.u32()?,
            expected: input.option(Reader::u64)?,
            new: input.u64()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_come_back() {
        let op = LoggedOp {
            delete: false,
            version: 3,
            id: "가".to_owned(),
            routing: Some("r".to_owned()),
            source: Bytes::from_static(b"{}"),
        };
        let mut out = Writer::default();
        op.write(&mut out);
        let shard = ShardId { index: IndexUuid([1; 16]), number: 2 };
        let mark = MarkChange { pipeline: "p".to_owned(), partition: 1, expected: None, new: 10 };
        let command = ShardCommand::Ops(OpsCommand {
            shard,
            term: 4,
            base_seq_no: 9,
            mapping_version: 1,
            mark: Some(mark),
            count: 1,
            ops: out.finish(),
        });
        let back = ShardCommand::decode(command.encode()).unwrap();
        assert_eq!(back, command);
        let ShardCommand::Ops(ops) = back else { panic!("operations") };
        assert_eq!(LoggedOp::read(&mut Reader::new(ops.ops)).unwrap(), op);
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(ShardCommand::decode(Bytes::from_static(&[3, 1, 2])).is_err());
        assert!(ShardCommand::decode(Bytes::new()).is_err());
    }
}

//! Commands of the log in `m0` and in the data groups, and their replies.
//!
//! The first byte of a command is its kind. What carries payload is laid out by hand, so that
//! record batches are never copied through a serializer; the rest is bincode behind
//! [`KIND_CONTROL`]. Enums are append-only.
//!
//! ```text
//! produce:  1, topic [16], partition u32, batch
//! in txn:   5, topic [16], partition u32, number of the transaction u64, batch
//! once:     2, head length u32, head (bincode), batches back to back
//! control:  3, bincode
//! groups:   4, bincode
//! txns:     6, bincode
//! ```
//! Hand-made integers are big-endian.

use base::NodeId;
use base::codec::{self, TooLarge};
use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::compact::PlanSpec;
use crate::configs::ReplicaSettings;
use crate::groups::GroupCommand;
use crate::transactions::{Claim, TxnCommand};
use crate::types::{PartKey, SettingsOf};

pub(crate) const KIND_PRODUCE: u8 = 1;
pub(crate) const KIND_ONCE: u8 = 2;
pub(crate) const KIND_CONTROL: u8 = 3;
pub(crate) const KIND_GROUPS: u8 = 4;
pub(crate) const KIND_PRODUCE_TXN: u8 = 5;
pub(crate) const KIND_TXNS: u8 = 6;

/// Bytes of a produce command before the batch.
pub(crate) const PRODUCE_HEAD: usize = 21;

/// Bytes of a produce command of a transaction before the batch.
pub(crate) const PRODUCE_TXN_HEAD: usize = PRODUCE_HEAD + 8;

/// Whether a command of a data group adds records: such commands are refused while a disk is
/// below its reserve. Markers that end transactions, trims and deletions do not count.
pub fn grows(command: &[u8]) -> bool {
    let kinds = [KIND_PRODUCE, KIND_ONCE, KIND_PRODUCE_TXN];
    command.first().is_some_and(|kind| kinds.contains(kind))
}

/// A command that is not one of ours.
#[derive(Debug, thiserror::Error)]
#[error("not a command of the log: {0}")]
pub(crate) struct BadCommand(pub(crate) &'static str);

/// A decoded command of a data group.
#[derive(Debug)]
pub(crate) enum DataCommand {
    Produce { key: PartKey, claim: Claim, batch: Bytes },
    Once { head: OnceHead, batches: Bytes },
    Control(Control),
    Groups(GroupCommand),
    Txns(TxnCommand),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OnceHead {
    pub(crate) key: PartKey,
    pub(crate) source: String,
    pub(crate) epoch: u64,
    pub(crate) files: Vec<OnceEntry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OnceEntry {
    pub(crate) file_key: Bytes,
    pub(crate) version: Bytes,
    pub(crate) batch_len: u32,
}

/// Commands of a data group without payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Control {
    CreateReplica { key: PartKey, settings: ReplicaSettings },
    DeleteReplica { key: PartKey },
    ConfigureReplica { key: PartKey, settings: ReplicaSettings },
    SetLogStart { key: PartKey, offset: i64 },
    ExpireProducers { key: PartKey, before_ms: i64 },
    Fence { source: String, epoch: u64 },
    MarkLedger { key: PartKey, source: String, file_key: Bytes, version: Bytes, state: u8 },
    CommitOffsets { group: String, offsets: Vec<OffsetEntry> },
    DeleteOffsets { group: String, keys: Option<Vec<PartKey>> },
    Compact { key: PartKey, plan: PlanSpec },
    ExpireOffsets { group: String, empty_since_ms: Option<i64>, offsets: Vec<(PartKey, i64)> },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OffsetEntry {
    pub(crate) key: PartKey,
    pub(crate) offset: i64,
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: String,
}

/// Replies to [`Control`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ControlReply {
    Done,
    UnknownPartition,
    LogStart(i64),
    OutOfRange {
        start: i64,
        end: i64,
    },
    /// The fence as it stands now.
    Fence(u64),
    /// The ledger has another version.
    OtherVersion,
    /// The plan does not follow the partition's latest one.
    StalePlan,
}

/// A produce command and where its batch begins.
pub(crate) fn produce(key: PartKey, claim: Claim, batch: &[u8]) -> (BytesMut, usize) {
    let mut out = BytesMut::with_capacity(PRODUCE_TXN_HEAD + batch.len());
    let kind = if claim == Claim::Plain { KIND_PRODUCE } else { KIND_PRODUCE_TXN };
    out.put_u8(kind);
    out.put_slice(key.topic.as_bytes());
    out.put_u32(key.partition);
    match claim {
        Claim::Plain => {}
        Claim::Number(number) => out.put_u64(number),
    }
    let head = out.len();
    out.put_slice(batch);
    (out, head)
}

pub(crate) fn once(head: &OnceHead, batches: &[Bytes]) -> Bytes {
    let head = codec::encode(head);
    let payload: usize = batches.iter().map(Bytes::len).sum();
    let mut out = BytesMut::with_capacity(5 + head.len() + payload);
    out.put_u8(KIND_ONCE);
    out.put_u32(u32::try_from(head.len()).unwrap_or(u32::MAX));
    out.put_slice(&head);
    batches.iter().for_each(|batch| out.put_slice(batch));
    out.freeze()
}

pub(crate) fn control(command: &Control) -> Result<Bytes, TooLarge> {
    let mut out = vec![KIND_CONTROL];
    out.extend(codec::try_encode(command)?);
    Ok(out.into())
}

pub(crate) fn groups(command: &GroupCommand) -> Result<Bytes, TooLarge> {
    let mut out = vec![KIND_GROUPS];
    out.extend(codec::try_encode(command)?);
    Ok(out.into())
}

pub(crate) fn transactions(command: &TxnCommand) -> Result<Bytes, TooLarge> {
    let mut out = vec![KIND_TXNS];
    out.extend(codec::try_encode(command)?);
    Ok(out.into())
}

pub(crate) fn decode(command: &Bytes) -> Result<DataCommand, BadCommand> {
    match command.first().copied() {
        Some(KIND_PRODUCE) => {
            let (key, batch) = (produce_key(command)?, command.slice(PRODUCE_HEAD..));
            Ok(DataCommand::Produce { key, claim: Claim::Plain, batch })
        }
        Some(KIND_PRODUCE_TXN) => {
            let head = command.first_chunk::<PRODUCE_TXN_HEAD>();
            let (_, number) = head.and_then(|h| h.split_last_chunk::<8>()).ok_or(SHORT_PRODUCE)?;
            let claim = Claim::Number(u64::from_be_bytes(*number));
            let (key, batch) = (produce_key(command)?, command.slice(PRODUCE_TXN_HEAD..));
            Ok(DataCommand::Produce { key, claim, batch })
        }
        Some(KIND_ONCE) => {
            let head = command.first_chunk::<5>().ok_or(BadCommand("short head"))?;
            let [_, a, b, c, d] = *head;
            let len = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
            let end = len.checked_add(5).filter(|end| *end <= command.len());
            let end = end.ok_or(BadCommand("head reaches beyond the command"))?;
            let bytes = command.slice(5..end);
            let head = codec::decode(&bytes).map_err(|_| BadCommand("head does not decode"))?;
            Ok(DataCommand::Once { head, batches: command.slice(end..) })
        }
        Some(KIND_CONTROL) => {
            let command = codec::decode(command.get(1..).unwrap_or_default());
            command.map(DataCommand::Control).map_err(|_| BadCommand("control does not decode"))
        }
        Some(KIND_GROUPS) => {
            let command = codec::decode(command.get(1..).unwrap_or_default());
            command.map(DataCommand::Groups).map_err(|_| BadCommand("groups do not decode"))
        }
        Some(KIND_TXNS) => {
            let command = codec::decode(command.get(1..).unwrap_or_default());
            command.map(DataCommand::Txns).map_err(|_| BadCommand("transactions do not decode"))
        }
        Some(_) => Err(BadCommand("unknown kind")),
        None => Err(BadCommand("empty")),
    }
}

const SHORT_PRODUCE: BadCommand = BadCommand("short produce");

fn produce_key(command: &[u8]) -> Result<PartKey, BadCommand> {
    let head = command.first_chunk::<PRODUCE_HEAD>().ok_or(SHORT_PRODUCE)?;
    let (mut topic, mut partition) = ([0; 16], [0; 4]);
    topic.copy_from_slice(&head[1..17]);
    partition.copy_from_slice(&head[17..21]);
    Ok(PartKey { topic: Uuid::from_bytes(topic), partition: u32::from_be_bytes(partition) })
}

/// What became of a produce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProduceReply {
    /// Appended, or held already: first offset and the log's start.
    Done {
        base_offset: i64,
        log_start: i64,
    },
    UnknownPartition,
    OutOfOrder,
    OldEpoch,
    /// Not a batch; the proposer should have refused it.
    Corrupt,
    /// The transaction that the batch claims is over, or one is open that it is not part of.
    NotInTransaction,
}

impl ProduceReply {
    pub(crate) fn encode(self) -> Bytes {
        let mut out = BytesMut::with_capacity(17);
        match self {
            Self::Done { base_offset, log_start } => {
                out.put_u8(0);
                out.put_i64(base_offset);
                out.put_i64(log_start);
            }
            Self::UnknownPartition => out.put_u8(1),
            Self::OutOfOrder => out.put_u8(2),
            Self::OldEpoch => out.put_u8(3),
            Self::Corrupt => out.put_u8(4),
            Self::NotInTransaction => out.put_u8(5),
        }
        out.freeze()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadCommand> {
        match bytes {
            [0, rest @ ..] => {
                let (base, start) = rest.split_at_checked(8).ok_or(BadCommand("short reply"))?;
                let number = |b: &[u8]| b.try_into().map(i64::from_be_bytes);
                match (number(base), number(start)) {
                    (Ok(base_offset), Ok(log_start)) => Ok(Self::Done { base_offset, log_start }),
                    _ => Err(BadCommand("short reply")),
                }
            }
            [1] => Ok(Self::UnknownPartition),
            [2] => Ok(Self::OutOfOrder),
            [3] => Ok(Self::OldEpoch),
            [4] => Ok(Self::Corrupt),
            [5] => Ok(Self::NotInTransaction),
            _ => Err(BadCommand("unknown reply")),
        }
    }
}

/// Commands of `m0`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MetaCommand {
    CreateTopic {
        name: String,
        id: Uuid,
        partitions: u32,
        replication_factor: i16,
        configs: Vec<(String, String)>,
        data_groups: u16,
    },
    DeleteTopic {
        id: Uuid,
    },
    CreatePartitions {
        id: Uuid,
        total: u32,
        data_groups: u16,
    },
    AlterConfigs {
        id: Uuid,
        set: Vec<(String, String)>,
        remove: Vec<String>,
    },
    AllocateProducerIds {
        count: u32,
    },
    /// Says on which nodes partitions from `first` on are reported to be.
    AssignReplicas {
        id: Uuid,
        first: u32,
        replicas: Vec<Vec<NodeId>>,
    },
    /// Settings that are no topic's own.
    AlterSettings {
        of: SettingsOf,
        set: Vec<(String, String)>,
        remove: Vec<String>,
    },
}

/// Replies of `m0`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MetaReply {
    Done,
    /// The topic's first partition that the command added.
    Created {
        first: u32,
    },
    TopicExists,
    /// The name differs from an existing one only in `.` and `_`.
    NameCollides(String),
    UnknownTopic,
    /// Fewer or as many partitions as there are.
    NotMore(u32),
    /// The cluster's bound is reached.
    TooMany,
    ProducerIds {
        first: i64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_that_add_records_are_known() {
        let key = PartKey { topic: Uuid::from_u128(7), partition: 3 };
        for claim in [Claim::Plain, Claim::Number(4)] {
            assert!(grows(&produce(key, claim, b"batch").0));
        }
        let head = OnceHead { key, source: "s".into(), epoch: 1, files: Vec::new() };
        assert!(grows(&once(&head, &[])));
        assert!(!grows(&control(&Control::SetLogStart { key, offset: 3 }).unwrap()));
        assert!(!grows(&[]));
    }

    #[test]
    fn commands_survive_a_round_trip() {
        let key = PartKey { topic: Uuid::from_u128(7), partition: 3 };
        for claim in [Claim::Plain, Claim::Number(4)] {
            let bytes = produce(key, claim, b"batch").0.freeze();
            assert!(
                matches!(decode(&bytes).unwrap(), DataCommand::Produce { key: k, claim: c, batch }
                if k == key && c == claim && batch == "batch")
            );
        }
        let entry = OnceEntry { file_key: "f".into(), version: "1".into(), batch_len: 2 };
        let head = OnceHead { key, source: "s".into(), epoch: 4, files: vec![entry] };
        let bytes = once(&head, &["ab".into()]);
        assert!(matches!(decode(&bytes).unwrap(),
            DataCommand::Once { head: h, batches } if h == head && batches == "ab"));
        for len in 0..bytes.len() - 2 {
            assert!(decode(&bytes.slice(..len)).is_err(), "{len}");
        }
        let reply = ProduceReply::Done { base_offset: 5, log_start: 1 };
        assert_eq!(ProduceReply::decode(&reply.encode()).unwrap(), reply);
    }
}

//! What a replicated service implements.

use bytes::Bytes;

use base::GroupId;

use crate::table::Rows;

/// Tags of the services that share a group's log; the first byte of every command and row key.
pub mod tags {
    /// The cluster's own rows: nodes, slots, settings.
    pub const CLUSTER: u8 = 1;
    /// Topics, partitions, producers, consumer groups, the collector's ledger.
    pub const LOG: u8 = 2;
    /// Namespace and blocks.
    pub const BLOCKS: u8 = 3;
    /// Indices, mappings, shards.
    pub const INDEX: u8 = 4;
    /// Sources and pipelines.
    pub const FLOW: u8 = 5;
    /// Users, access control lists, client quotas.
    pub const SECURITY: u8 = 6;
}

/// Where and when a command is applied. Equal on all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApplyAt {
    /// The group.
    pub group: GroupId,
    /// Raft index of the entry; several commands may share one.
    pub index: u64,
    /// Raft term of the entry; Kafka sees it as leader epoch.
    pub term: u64,
    /// The leader's wall time in milliseconds, never less than that of an earlier entry.
    pub time_ms: i64,
}

/// The state can no longer be trusted or stored; the node must stop.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Fatal(pub String);

impl From<std::io::Error> for Fatal {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<base::codec::DecodeError> for Fatal {
    fn from(error: base::codec::DecodeError) -> Self {
        Self(error.to_string())
    }
}

/// A file that belongs to a snapshot beside the rows: its first `len` bytes never change.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SnapshotFile {
    /// Path below the node's data directory, with `/`.
    pub path: String,
    /// Bytes that belong to the snapshot.
    pub len: u64,
    /// CRC32C of these bytes.
    pub crc: u32,
}

/// What a checkpoint does on disk, while later commands are applied.
pub type DiskWork = Box<dyn FnOnce() -> Result<(), Fatal> + Send>;

/// One service's part of a group: a deterministic state machine.
///
/// `apply` reads no clock, no randomness and no state of this node's disk: the same commands
/// give the same rows, files and replies on every node. A machine shares what readers need
/// through its own `Arc`; readers call [`crate::Group::read_barrier`] first when they must see
/// every acknowledged write.
///
/// Durability: rows are synced at checkpoints together with the applied index; what lies
/// between two checkpoints is replayed from the WAL after a crash.
pub trait StateMachine: Send + 'static {
    /// Applies one committed command and returns the reply for its proposer.
    ///
    /// A command that cannot be honoured is a reply that says so, never an error. An error
    /// stops the node. Must be quick: it runs on the runtime's worker.
    fn apply(&mut self, at: &ApplyAt, command: Bytes, rows: &mut Rows<'_>) -> Result<Bytes, Fatal>;

    /// Moves RAM state into `rows`, so that they hold everything replicated. Apply waits for it:
    /// it must be quick and leave the disk alone.
    fn capture(&mut self, _rows: &mut Rows<'_>) -> Result<(), Fatal> {
        Ok(())
    }

    /// Begins a checkpoint, right after [`Self::capture`]; the checkpoint before is durable. The
    /// work returned makes the files that the rows speak of durable, at least up to the lengths
    /// written there, and may delete what the checkpoint before does not speak of. It runs on
    /// another thread while commands are applied, and has ended before a snapshot is installed
    /// or the next checkpoint begins.
    fn begin_checkpoint(&mut self) -> DiskWork {
        Box::new(|| Ok(()))
    }

    /// Whether files wait for further checkpoints to go: one is then made although nothing was
    /// applied since the last.
    fn waits_for_checkpoint(&self) -> bool {
        false
    }

    /// Before a snapshot is installed over this state: stops writing to files. `restore` follows.
    fn release(&mut self) -> Result<(), Fatal> {
        Ok(())
    }

    /// At start, and after a snapshot was installed: loads RAM state from `rows`, which stand at
    /// a checkpoint, cuts files to the lengths stated there and deletes files they do not know.
    fn restore(&mut self, rows: &Rows<'_>) -> Result<(), Fatal>;

    /// Files that a snapshot of the state at the latest [`Self::capture`] needs.
    fn files(&self) -> Vec<SnapshotFile> {
        Vec::new()
    }

    /// Feeds everything replicated into `add`, rows excepted, in the same order on every node.
    /// Used to compare nodes.
    fn digest(&mut self, _add: &mut dyn FnMut(&[u8])) -> Result<(), Fatal> {
        Ok(())
    }
}

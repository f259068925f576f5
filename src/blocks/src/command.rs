//! Commands of the namespace and their replies. All enums are append-only.

use serde::{Deserialize, Serialize};

use crate::error::FsError;
use crate::types::Caller;

/// Hadoop's client id and call id: the key of the retry cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OpId {
    /// Random id of the client process.
    pub client: [u8; 16],
    /// Number of the call.
    pub call: u64,
}

/// One command with its sender; a log entry holds a list of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    /// Given where a repetition must not act twice.
    pub op: Option<OpId>,
    pub caller: Caller,
    pub command: Command,
}

/// How a file is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateOptions {
    /// Permission bits.
    pub mode: u16,
    /// Replication to report.
    pub replication: u16,
    /// Block size.
    pub block_size: u64,
    /// Whether an existing file is replaced.
    pub overwrite: bool,
    /// Whether missing parents are made.
    pub create_parent: bool,
}

impl Default for CreateOptions {
    fn default() -> Self {
        Self {
            mode: 0o644,
            replication: 3,
            block_size: crate::limits::DEFAULT_BLOCK_BYTES,
            overwrite: false,
            create_parent: true,
        }
    }
}

/// A block that two nodes have synced and a file is about to own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewBlock {
    /// Block id.
    pub id: u64,
    /// Generation stamp.
    pub gs: u64,
    /// Bytes.
    pub len: u64,
    /// CRC32C over the chunk CRCs.
    pub digest: u32,
    /// Bit n set: node n+1 has synced it.
    pub replicas: u8,
}

/// One file of [`Command::PutFenced`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PutEntry {
    pub path: String,
    pub version: Vec<u8>,
    pub blocks: Vec<NewBlock>,
    pub mtime_ms: i64,
    pub block_size: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Command {
    Mkdirs {
        path: String,
        mode: u16,
    },
    /// Opens a new file for writing.
    Create {
        path: String,
        options: CreateOptions,
        holder: String,
    },
    /// Creates a file with its content, closed.
    CreateClosed {
        path: String,
        options: CreateOptions,
        blocks: Vec<NewBlock>,
    },
    /// Opens an existing file for writing at its end.
    Append {
        path: String,
        holder: String,
    },
    Commit(Commit),
    /// Removes a file whose writer gave up.
    Abandon {
        path: String,
        file: u64,
        holder: String,
    },
    /// Written by versions that had no fence here.
    Put(Vec<PutEntry>),
    /// Hadoop's `rename`: answers false where it does not act.
    Rename {
        src: String,
        dst: String,
    },
    /// Hadoop's `rename2`.
    Rename2 {
        src: String,
        dst: String,
        overwrite: bool,
    },
    Delete {
        path: String,
        recursive: bool,
    },
    SetMode {
        path: String,
        mode: u16,
    },
    SetOwner {
        path: String,
        owner: Option<String>,
        group: Option<String>,
    },
    SetTimes {
        path: String,
        mtime_ms: Option<i64>,
        atime_ms: Option<i64>,
    },
    SetReplication {
        path: String,
        replication: u16,
    },
    Renew {
        holder: String,
    },
    /// Closes the files of writers that are past the hard limit, forgets old replies.
    Expire,
    /// Takes ids for blocks to be written.
    Reserve {
        count: u32,
    },
    /// What one node gained and lost, found by repair or scrub.
    Replicas {
        slot: u8,
        added: Vec<u64>,
        lost: Vec<u64>,
    },
    /// One node has removed these doomed blocks.
    Removed {
        slot: u8,
        ids: Vec<u64>,
    },
    /// The node in this slot starts empty.
    ResetSlot {
        slot: u8,
    },
    /// Goes on removing deleted trees.
    Purge,
    /// As `SetTimes` of the access time by a reader, who needs no write permission.
    Touch {
        file: u64,
        atime_ms: i64,
    },
    /// Refuses what older epochs of a source put from now on.
    Fence {
        source: String,
        epoch: u64,
    },
    /// As `Put`, unless the source has a newer epoch.
    PutFenced {
        source: String,
        epoch: u64,
        entries: Vec<PutEntry>,
    },
}

/// Adds blocks to an open file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Commit {
    pub path: String,
    pub file: u64,
    pub holder: String,
    /// The last block, which the first new one takes the place of.
    pub replace: Option<u64>,
    pub blocks: Vec<NewBlock>,
    pub close: bool,
}

/// What a successful command answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Done,
    Bool(bool),
    Opened(Opened),
    Reserved { start: u64, count: u32, gs: u64 },
    Put(Vec<Result<PutOutcome, FsError>>),
}

/// A file open for writing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Opened {
    pub file: u64,
    pub block_size: u64,
    /// The last block when it is short enough to be replaced by a longer one.
    pub last: Option<NewBlock>,
}

/// What a put did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PutOutcome {
    /// The file is new.
    Created,
    /// An older version was replaced.
    Replaced,
    /// This version was there already.
    Unchanged,
}

pub(crate) type Reply = Result<Outcome, FsError>;

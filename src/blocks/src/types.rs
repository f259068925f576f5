//! What callers of the block service see.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Who asks. The gateway decides who is a superuser, so that apply needs no configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// User name.
    pub user: String,
    /// Whether permissions are not checked.
    pub superuser: bool,
    /// Address of the client, for messages.
    pub client: String,
}

impl Caller {
    /// The node itself: collector, repair.
    pub fn system() -> Self {
        Self { user: "root".to_owned(), superuser: true, client: "localhost".to_owned() }
    }
}

/// What a permission check asks for; bits as in a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access(pub u8);

impl Access {
    /// Read.
    pub const READ: Self = Self(4);
    /// Write.
    pub const WRITE: Self = Self(2);
    /// Enter a directory.
    pub const EXECUTE: Self = Self(1);
    /// List a directory.
    pub const READ_EXECUTE: Self = Self(5);
    /// Everything.
    pub const ALL: Self = Self(7);

    /// Hadoop's name of the action.
    pub fn name(self) -> &'static str {
        match self.0 & 7 {
            0 => "NONE",
            1 => "EXECUTE",
            2 => "WRITE",
            3 => "WRITE_EXECUTE",
            4 => "READ",
            5 => "READ_EXECUTE",
            6 => "READ_WRITE",
            _ => "ALL",
        }
    }
}

/// Directory or file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A directory.
    Directory,
    /// A file.
    File,
}

/// What is known of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStatus {
    /// Inode number.
    pub id: u64,
    /// Last component; empty for the root.
    pub name: Arc<str>,
    /// Directory or file.
    pub kind: FileKind,
    /// Committed bytes; 0 for a directory.
    pub len: u64,
    /// Owner.
    pub owner: Arc<str>,
    /// Group.
    pub group: Arc<str>,
    /// Permission bits with the sticky bit, at most `0o1777`.
    pub mode: u16,
    /// Modification time in milliseconds.
    pub mtime_ms: i64,
    /// Access time in milliseconds; 0 for a directory.
    pub atime_ms: i64,
    /// Replication that was asked for; 0 for a directory.
    pub replication: u16,
    /// Block size; 0 for a directory.
    pub block_size: u64,
    /// Number of children of a directory.
    pub children: u64,
    /// Whether a writer holds the file open.
    pub open: bool,
}

/// A page of a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Entries in byte order of their names.
    pub entries: Vec<FileStatus>,
    /// Entries after this page.
    pub remaining: u64,
}

/// A block of a file and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocatedBlock {
    /// Block id.
    pub id: u64,
    /// Generation stamp.
    pub gs: u64,
    /// Bytes.
    pub len: u64,
    /// Where the block begins in the file.
    pub offset: u64,
    /// CRC32C over the chunk CRCs.
    pub digest: u32,
    /// Bit n set: node n+1 has a synced copy.
    pub replicas: u8,
}

/// Totals of a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContentSummary {
    /// Directories, the root of the tree included.
    pub directories: u64,
    /// Files.
    pub files: u64,
    /// Bytes of all files.
    pub len: u64,
    /// Bytes times replication.
    pub space: u64,
}

/// Hadoop's MD5-of-MD5-of-CRC32C.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChecksum {
    /// CRCs per block, 0 for a file of at most one block.
    pub crc_per_block: u64,
    /// Bytes per CRC.
    pub bytes_per_crc: u32,
    /// MD5 over the block MD5s.
    pub md5: [u8; 16],
}

/// Who puts files: a source in one epoch.
#[derive(Clone, Copy, Debug)]
pub struct Putter<'a> {
    /// Name of the source.
    pub source: &'a str,
    /// Its epoch; refused once a newer one was fenced.
    pub epoch: u64,
}

/// A whole file for the collector.
#[derive(Clone, Debug)]
pub struct PutFile {
    /// Absolute path; missing directories are made.
    pub path: String,
    /// Which version of the source file this is; the same token again changes nothing.
    pub version: Vec<u8>,
    /// Content.
    pub bytes: Bytes,
    /// Modification time to show, in milliseconds.
    pub mtime_ms: i64,
}

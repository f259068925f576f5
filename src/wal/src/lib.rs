//! The write-ahead log of a node: one for all its Raft groups.
//!
//! # What it is for
//! Entries and votes of every group go through one queue. One thread takes what is queued,
//! writes it with one write, makes it durable and then calls back, in order (group commit): the
//! time of a flush is the batching window, nothing lingers. Bodies and votes are opaque here.
//!
//! # Layout and its reasons
//! Files of `file_bytes` in one directory, numbered without a gap (names: module `store`). They are
//! zeroed in advance and recycled, because writing into allocated blocks needs no journal
//! commit, and because the log then owns its room: a full disk cannot hit a running node. The
//! next file is prepared under its number in the background, so that changing files costs a
//! flush no more than its own write.
//!
//! A file is a row of **flushes** ([`mod@format`]): a header, records, zeros up to the next 4 KiB.
//! * The padding means that a synced block is never rewritten, so no crash can tear what was
//!   acknowledged; and it suits direct I/O (`O_DIRECT|O_DSYNC` with aligned memory), which is
//!   used where the file system takes it. Elsewhere, and with [`SyncMode::Interval`], writes go
//!   through the page cache and `fdatasync`.
//! * Each header attests the place up to which everything was synced **before** the flush was
//!   written. The sectors of one unsynced write land in any order, so valid bytes behind bad
//!   ones prove nothing; an attestation does. Recovery stops at the first flush that is not
//!   whole. When any valid header attests a later place, synced bytes are gone: that is damage,
//!   [`WalError::Damaged`] reports it and nothing is changed. Otherwise it is the torn tail of
//!   an unacknowledged flush: it is cut, and what follows in the file is zeroed, lest its
//!   remains be read as the continuation of a later, shorter flush.
//! * Checksums are salted with the file's number and a random id of this use of it, so what a
//!   recycled file held before never parses, nor does a record inside a client's payload.
//! * The first flush of a file holds the state of every group (vote, committed, purged, end of
//!   the log after truncations). Older files can go once it is synced and their entries are
//!   purged and checkpointed; without it, recycling could forget a vote. Recovery compares it
//!   with what the older files said.
//! * Committed positions stand at the end of a flush, and only once everything that was queued
//!   before is in it or before it: a position read back is always one of the log as it was.
//!
//! # Invariants
//! * Callbacks of a group fire in the order of its calls. After the first error everything
//!   fails: a write or sync is never tried again, the process has to end.
//! * Files leave strictly oldest first, one durable rename at a time.
//! * An entry's body is in memory until it is written; then the tail cache may drop it.
//!
//! # What it does not do
//! It bounds no queue: proposals are bounded by their owner ([`Wal::wait_queue_below`] helps).
//! It cannot tell a damaged last flush from a torn one, because nothing attests it; an orderly
//! stop writes an empty flush that does.
#![cfg_attr(not(test), warn(missing_docs))]

pub mod format;
#[cfg(test)]
mod golden;
mod index;
pub mod limits;
mod read;
mod recover;
mod replay;
mod state;
mod store;
mod upkeep;
mod wal;
mod window;
mod writer;
mod written;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

pub use format::Lsn;
pub use wal::Wal;
pub use writer::WalThread;

/// When a flush counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// Callbacks fire when the bytes are durable.
    EveryFlush,
    /// Callbacks fire when the bytes are written; they are synced this often, and with every vote.
    /// Power loss on a majority of nodes may lose what was acknowledged since.
    Interval(Duration),
}

/// Settings of a log.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory of the files; nothing else may live in it.
    pub dir: PathBuf,
    /// Size of a file, a multiple of 4 KiB.
    pub file_bytes: u64,
    /// When a flush counts as done.
    pub sync: SyncMode,
    /// Bodies kept in memory, in bytes over all groups. Unwritten ones come on top.
    pub tail_cache_bytes: usize,
    /// Files made in advance beside those in use, the prepared next one included; at least 1.
    pub keep_spare_files: usize,
    /// Files that were used and are kept for their next use, if that is more. A checkpoint frees
    /// many at once: making each anew would write every byte of the log twice.
    pub most_spare_files: usize,
}

impl Options {
    /// The defaults for a directory.
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            file_bytes: 64 << 20,
            sync: SyncMode::EveryFlush,
            tail_cache_bytes: 32 << 20,
            keep_spare_files: 2,
            most_spare_files: 8,
        }
    }

    fn check(&self) -> Result<(), WalError> {
        if !(limits::MIN_FILE_BYTES..=limits::MAX_FILE_BYTES).contains(&self.file_bytes) {
            return Err(WalError::Options("file size out of range"));
        }
        if !self.file_bytes.is_multiple_of(format::BLOCK as u64) {
            return Err(WalError::Options("file size is not a multiple of 4096"));
        }
        Ok(())
    }
}

/// Identity of an entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LogPos {
    /// Raft term of the leader that proposed it.
    pub term: u64,
    /// Raft node id of that leader, opaque here.
    pub node: u64,
    /// Raft index.
    pub index: u64,
}

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalEntry {
    /// Identity.
    pub pos: LogPos,
    /// Content, opaque here.
    pub body: Bytes,
}

/// Called once when a request is durable (or written, with [`SyncMode::Interval`]), or failed.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The system refused; fix the disk or the permissions.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Synced bytes are gone or changed. The node must not vote with this log; it rejoins
    /// empty, under a new Raft id.
    #[error("{} is damaged at {lsn}: {what}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// The first place that cannot be trusted.
        lsn: Lsn,
        /// What is wrong there.
        what: String,
    },
    /// Written by a newer release.
    #[error("{} has format version {version}, newer than this build knows", file.display())]
    TooNew {
        /// The file.
        file: PathBuf,
        /// Its version.
        version: u16,
    },
    /// A setting makes no sense.
    #[error("wal: {0}")]
    Options(&'static str),
}

/// A flush that took longer than [`limits::SLOW_FLUSH_US`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowFlush {
    /// When it ended, in milliseconds since the Unix epoch.
    pub ended_ms: i64,
    /// How long it took, in microseconds.
    pub took_us: u64,
}

/// Figures for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalStats {
    /// Flushes since the start.
    pub flushes: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes in them, padding included.
    pub bytes: u64,
    /// Flushes slower than [`limits::SLOW_FLUSH_US`].
    pub slow_flushes: u64,
    /// Duration of the last flush, in microseconds.
    pub last_flush_us: u64,
    /// Longest flush since the start, in microseconds.
    pub max_flush_us: u64,
    /// Bytes that wait for a flush.
    pub queue_bytes: usize,
    /// Records that wait for a flush.
    pub queue_records: usize,
    /// Files in use.
    pub files: usize,
    /// Bytes written in them.
    pub live_bytes: u64,
    /// Bodies held in memory, in bytes.
    pub cache_bytes: usize,
    /// Entries that had to be read from a file.
    pub cache_misses: u64,
    /// Whether the log has failed and refuses everything.
    pub failed: bool,
}

pub(crate) fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> WalError {
    move |source| WalError::Io { what, source }
}

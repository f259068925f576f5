//! Limits of the collector, and what happens at each.

use base::limits::{KIB, MIB};

/// Bytes asked of a server at once; with libssh2 this is also how much is in flight.
pub const READ_BUFFER_BYTES: usize = MIB;
/// Largest file collected. A larger one goes to quarantine with a text that says so.
pub const MAX_FILE_BYTES: u64 = 256 * MIB as u64;
/// File bytes between fetch and commit on one node; fetching waits at the limit.
pub const MAX_INFLIGHT_BYTES: u64 = 256 * MIB as u64;
/// Files seen and not yet collected; further new files wait for a later scan.
pub const MAX_BACKLOG: usize = 100_000;
/// Depth of directories; deeper ones are reported and left out.
pub const MAX_DEPTH: usize = 100;
/// Entries in one message from the lister.
pub const LIST_BATCH: usize = 256;
/// Files in one commit.
pub const COMMIT_FILES: usize = 256;
/// Bytes of files in one commit, unless it is one file.
pub const COMMIT_BYTES: u64 = MIB as u64;
/// Commits running at the same time.
pub const MAX_COMMITS: usize = 4;
/// Jobs waiting for a fetch thread, per session.
pub const QUEUED_PER_SESSION: usize = 4;
/// Sessions to one source from one node, at most.
pub const MAX_SESSIONS: usize = 12;
/// Characters of a subject.
pub const MAX_SUBJECT_CHARS: usize = 512;
/// Bytes of a record's value; a file whose record would be larger is referred to.
pub const MAX_RECORD_BYTES: usize = 1_000_000;
/// Bytes of text in the record of a file that is referred to.
pub const REFERENCE_TEXT_BYTES: usize = 256 * KIB;
/// Bytes looked at for NUL.
pub const BINARY_PROBE_BYTES: usize = 8 * KIB;
/// Bytes of one component of a path in the block store (HDFS' own limit).
pub const MAX_COMPONENT_BYTES: usize = 255;
/// Directories and files with errors that are shown.
pub const MAX_SHOWN_ERRORS: usize = 32;

//! Limits of the write-ahead log.

use base::limits::{KIB, MAX_PEER_MESSAGE_BYTES, MIB};

/// A flush takes records from the queue until it has this many bytes. A single larger record
/// still goes into one flush.
pub const MAX_FLUSH_BYTES: usize = 4 * MIB;

/// A flush takes at most this many records from the queue.
pub const MAX_FLUSH_RECORDS: usize = 4096;

/// Largest body of a record. What reaches a node fits a peer message; an append with a larger
/// entry is refused through its callback.
pub const MAX_BODY_BYTES: usize = MAX_PEER_MESSAGE_BYTES;

/// Largest flush that recovery believes in: a full one, one more record, and room for the state
/// of every group.
pub const MAX_RECOVERED_FLUSH_BYTES: usize = MAX_FLUSH_BYTES + MAX_BODY_BYTES + 16 * MIB;

/// Smallest file.
pub const MIN_FILE_BYTES: u64 = 64 * KIB as u64;

/// Largest file: positions in a file are 32 bits wide, and a flush may run over the end.
pub const MAX_FILE_BYTES: u64 = 1 << 31;

/// Recovery and reads that miss the cache fetch this much at a time.
pub(crate) const READ_AHEAD_BYTES: usize = 256 * KIB;

/// Recovery reads files in steps of this size.
pub(crate) const SCAN_BYTES: usize = MIB;

/// New files are zeroed in steps of this size.
pub(crate) const ZERO_STEP_BYTES: usize = MIB;

/// A flush that takes longer is counted as slow, in microseconds.
pub const SLOW_FLUSH_US: u64 = 15_000;

/// So many of the latest slow flushes are remembered with their time.
pub const SLOW_FLUSHES_KEPT: usize = 1024;

/// The write buffer starts with this size and shrinks back to it after exceptional flushes.
pub(crate) const BUFFER_BYTES: usize = 256 * KIB;

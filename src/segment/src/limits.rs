//! Limits of segment files, in bytes.

use base::limits::{KIB, MIB};

/// A segment's index has an entry for at least each so many bytes of data at its beginning.
pub const INDEX_STEP_BYTES: u64 = 4 * KIB as u64;

/// Further on in a segment an index has fewer entries, but one for each so many bytes: what 1 GiB
/// takes in memory is 0.4 MiB.
pub const MAX_INDEX_STEP_BYTES: u64 = 64 * KIB as u64;

/// A stream with so much unwritten data is written; also the size of pooled write buffers.
pub const CHUNK_BYTES: usize = MIB;

/// Appends wait while the node has more unwritten data than this.
pub const QUEUE_BYTES: usize = 128 * MIB;

/// Written frames that a stream keeps in memory for readers at its end.
pub const STREAM_CACHE_BYTES: usize = 4 * MIB;

/// Written frames that all streams of a node keep in memory.
pub const NODE_CACHE_BYTES: usize = 64 * MIB;

/// Write buffers kept for reuse.
pub const POOLED_BUFFERS: usize = 4;

/// Files of finished segments that a stream holds open until they are synced.
pub const MAX_UNSYNCED_FILES: usize = 64;

/// Files that all streams of a node together hold open for readers.
pub const MAX_READERS: usize = 512;

/// Step of the scan that rebuilds an index.
pub const SCAN_BYTES: usize = 256 * KIB;

/// A rewrite syncs its file after so many bytes, so that no large write-back is ever due.
pub const REWRITE_SYNC_BYTES: usize = 16 * MIB;

//! Limits of the block store.

use std::time::Duration;

use base::limits::{KIB, MIB};

/// Bytes covered by one CRC32C.
pub const CHUNK_BYTES: usize = 512;
/// Largest block that goes into a pack; also the size of the pieces of larger blocks.
pub const PACK_BLOCK_BYTES: usize = MIB;
/// A pack is sealed at this size.
pub const PACK_TARGET_BYTES: u64 = 64 * MIB as u64;
/// Most bytes of pack records written with one sync.
pub const PACK_BATCH_BYTES: usize = 16 * MIB;
/// Block size when the client names none.
pub const DEFAULT_BLOCK_BYTES: u64 = 128 * MIB as u64;
/// Smallest block size a client may ask for, as Hadoop's `dfs.namenode.fs-limits.min-block-size`.
pub const MIN_BLOCK_BYTES: u64 = MIB as u64;
/// Largest block size a client may ask for.
pub const MAX_BLOCK_BYTES: u64 = 2048 * MIB as u64;
/// Most blocks of one file, as Hadoop's `dfs.namenode.fs-limits.max-blocks-per-file`.
pub const MAX_BLOCKS_PER_FILE: usize = 10_000;
/// Longest name of one path component, in bytes of UTF-8.
pub const MAX_COMPONENT_BYTES: usize = 255;
/// Longest path, in characters.
pub const MAX_PATH_CHARS: usize = 8_000;
/// Deepest path, in components.
pub const MAX_PATH_DEPTH: usize = 1_000;
/// Longest owner, group or lease holder name, in bytes.
pub const MAX_NAME_BYTES: usize = 256;
/// Longest version token of a put file, in bytes.
pub const MAX_VERSION_BYTES: usize = 64;
/// Most requests in one proposal.
pub const MAX_BATCH_REQUESTS: usize = 256;
/// Most encoded bytes of requests in one proposal.
pub const MAX_BATCH_BYTES: usize = 2 * MIB;
/// Most files in one put command; the service splits longer lists.
pub const MAX_PUT_FILES: usize = 500;
/// Most bytes sent to a peer in one pack write.
pub const PACK_CALL_BYTES: usize = 8 * MIB;
/// Requests that wait for a proposal.
pub const PROPOSE_QUEUE: usize = 1_024;
/// Most remembered replies of the retry cache.
pub const RETRY_ENTRIES: usize = 65_536;
/// How long a reply stays in the retry cache, as Hadoop's expiry of 10 minutes.
pub const RETRY_MS: i64 = 10 * 60 * 1000;
/// After this a lease may be taken over by another client (Hadoop's soft limit).
pub const LEASE_SOFT_MS: i64 = 60 * 1000;
/// After this the file of a dead writer is closed (Hadoop's hard limit).
pub const LEASE_HARD_MS: i64 = 20 * 60 * 1000;
/// A writer renews its lease when the last renewal is this old.
pub const LEASE_RENEW: Duration = Duration::from_secs(20);
/// Block ids taken with one reservation.
pub const RESERVE_IDS: u32 = 1_024;
/// Most ids of one reservation that a command may ask for.
pub const MAX_RESERVE_IDS: u32 = 65_536;
/// A node stops handing out ids of a reservation this old.
pub const RESERVE_USE: Duration = Duration::from_secs(60);
/// A block whose reservation is older than this is not accepted into a file any more.
pub const RESERVE_MS: i64 = 5 * 60 * 1000;
/// Bytes on disk that nothing claims are removed at this age; longer than [`RESERVE_MS`].
pub const ORPHAN_AGE: Duration = Duration::from_secs(600);
/// Inodes of a deleted tree that one command removes.
pub const PURGE_INODES: usize = 2_000;
/// Access times are kept to this precision, as Hadoop's `accesstime.precision`.
pub const ATIME_PRECISION_MS: i64 = 3_600_000;
/// Entries of a directory returned at once, as Hadoop's `dfs.ls.limit`.
pub const LIST_LIMIT: usize = 1_000;
/// Inodes visited per lock hold of a content summary.
pub const SUMMARY_STEP: usize = 10_000;
/// Blocks that one repair request names.
pub const REPAIR_BATCH: usize = 256;
/// Blocks a node pulls at the same time while it is repaired.
pub const REPAIR_PARALLEL: usize = 8;
/// Jobs waiting for a disk thread.
pub const DISK_QUEUE: usize = 256;
/// Threads that read and write block files.
pub const DISK_THREADS: usize = 4;
/// Big blocks being received at once.
pub const MAX_OPEN_BLOCKS: usize = 1_024;
/// Pieces in flight to one node per writer.
pub const PIECES_IN_FLIGHT: usize = 8;
/// Longest wait for a node that lags behind the others before a writer drops it.
pub const SLOW_PEER: Duration = Duration::from_secs(2);
/// Extra wait for the third copy after two nodes have synced a block.
pub const THIRD_COPY_GRACE: Duration = Duration::from_millis(100);
/// Deadline of one call that carries block bytes.
pub const BULK_CALL: Duration = Duration::from_secs(20);
/// Longest that a request is retried while the group has no leader.
pub const PROPOSE_PATIENCE: Duration = Duration::from_secs(25);
/// Bytes verified per second by the scrubber.
pub const SCRUB_BYTES_PER_TICK: u64 = 8 * MIB as u64;
/// Largest sidecar or pack index file that is read.
pub const MAX_INDEX_BYTES: u64 = 64 * MIB as u64;
/// Smallest pack record step: records begin at multiples of this.
pub const RECORD_ALIGN: usize = 8;
/// Read-ahead of a file reader, in pieces.
pub const READ_AHEAD: usize = 2;
/// Bytes read at once while a pack is scanned.
pub const SCAN_BYTES: usize = 256 * KIB;
/// Longest that a read waits for a leader, and the pause between two attempts.
pub const READ_PATIENCE: Duration = Duration::from_secs(15);
/// See [`READ_PATIENCE`].
pub const READ_PAUSE: Duration = Duration::from_millis(50);
/// Most bytes that one repair request names, unless it names one block only.
pub const REPAIR_BYTES: u64 = 64 * MIB as u64;
/// Deadline of a repair request.
pub const REPAIR_CALL: Duration = Duration::from_secs(120);
/// Incomplete blocks that the leader looks at per second.
pub const REPAIR_PAGE: usize = 5_000;

//! Limits of the index service.

use std::time::Duration;

use base::limits::MIB;

/// Default of `index.refresh_interval`, in milliseconds.
pub const REFRESH_INTERVAL_MS: u64 = 1_000;

/// Largest document source, in bytes: two fit into a command with room to spare.
pub const MAX_DOCUMENT_BYTES: usize = 6 * MIB;

/// Longest `_id`, in bytes, as in Elasticsearch.
pub const MAX_ID_BYTES: usize = 512;

/// A shard's writer takes requests into one command until it has so many bytes.
pub const COMMAND_BYTES: usize = 4 * MIB;

/// A command gets no further operation once those in it have so many bytes: partial updates are
/// logged as whole documents, which may be many times as large as their requests.
pub const STAGED_BYTES: usize = 8 * MIB;

/// Sources that the updates of one request may ask back from a shard, in bytes: a node's answer to
/// another one holds 8 MiB.
pub const SHOWN_SOURCE_BYTES: usize = 7 * MIB;

/// Most operations of one command.
pub const COMMAND_OPS: usize = 20_000;

/// A shard leader makes writers wait while its own search copy is behind by so many bytes. A
/// copy that follows and is behind by twice as many forgets what look-ups would find there,
/// and reads it again from its translog.
pub const COPY_LAG_BYTES: usize = 32 * MIB;

/// As [`COPY_LAG_BYTES`], for all copies of a node together.
pub const NODE_LAG_BYTES: usize = 64 * MIB;

/// A copy that is behind by less never waits or forgets for the sake of others.
pub const FAIR_LAG_BYTES: usize = MIB;

/// What an operation in memory weighs beyond its id and source, in bytes.
pub const RECENT_OP_BYTES: usize = 256;

/// Memory of all Tantivy writers of a node. Feeders of more shards take turns.
pub const NODE_WRITER_BYTES: usize = 96 * MIB;

/// Memory of one shard's Tantivy writer, if there is enough for it.
pub const SHARD_WRITER_BYTES: usize = 32 * MIB;

/// Memory that Tantivy wants for a writer at least.
pub const SMALLEST_WRITER_BYTES: usize = 16 * MIB;

/// A feeder keeps its writer for so long when others wait for one, in milliseconds.
pub const WRITER_TURN_MS: u64 = 1_000;

/// Sources that a feeder hands to Tantivy before it commits, in bytes: Tantivy's own queue counts
/// documents, not bytes.
pub const UNCOMMITTED_BYTES: usize = 16 * MIB;

/// Requests that wait for a shard's writer; more wait before the queue.
pub const WRITER_QUEUE: usize = 256;

/// A translog segment is rolled at this size, in bytes.
pub const TRANSLOG_SEGMENT_BYTES: u64 = 64 * MIB as u64;

/// Bytes that a feeder reads from the translog at once; between two reads it may refresh.
pub const FEED_BYTES: usize = MIB;

/// Most shards of one index, as Elasticsearch's default limit.
pub const MAX_SHARDS: u16 = 1024;

/// Most copies of a shard, the first included: one per node.
pub const MAX_COPIES: u32 = 3;

/// How long a request waits for another node's facts (sizes, counts).
pub const FACTS_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a write waits for a shard's leader.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a search waits for a node.
pub const SEARCH_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a refresh waits for a copy that is behind.
pub const REFRESH_TIMEOUT: Duration = Duration::from_secs(10);

/// How long creating an index waits for its groups.
pub const CREATE_TIMEOUT: Duration = Duration::from_secs(30);

/// How often the leader of `m0` compares indices with the groups.
pub const RECONCILE_EVERY: Duration = Duration::from_secs(5);

/// Longest document list of one forwarded call, in bytes; below the limit of a peer message.
pub const FORWARD_BYTES: usize = 8 * MIB;

/// The search index is synced after so many operations.
pub const CHECKPOINT_OPS: u64 = 100_000;

/// The search index is synced so long after a change, in milliseconds.
pub const CHECKPOINT_EVERY_MS: u64 = 15_000;

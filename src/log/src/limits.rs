//! Limits of the log.

use base::limits::{KIB, MAX_COMMAND_BYTES, MIB};

/// Largest value that `max.message.bytes` takes: a batch and its envelope must fit a command.
pub const MAX_BATCH_BYTES: usize = MAX_COMMAND_BYTES - 64 * KIB;

/// Default of `max.message.bytes`, as Kafka's.
pub const DEFAULT_MAX_MESSAGE_BYTES: usize = MIB + 12;

/// Largest result of decompressing one batch, in bytes.
pub const MAX_DECOMPRESSED_BYTES: usize = 64 * MIB;

/// Records and headers of one batch that are read at once, about 100 MiB of memory; a record may
/// take seven bytes and a header two. A batch with more is kept and served, but compaction leaves
/// it as it is and a pipeline reports it as damaged.
pub const MAX_RECORD_PARTS: usize = 1 << 20;

/// Log2 of the largest window that a zstd frame may ask to be kept: its memory, taken by what the
/// frame says. It is what libzstd's decoders take by default, and level 22 of its encoders uses it.
pub const ZSTD_WINDOW_LOG: u32 = 27;

/// A produced batch whose records unfold to no more than this is looked through at once; a larger
/// one on a thread for blocking work, at most [`MAX_BATCH_CHECKS`] at a time.
pub const INLINE_CHECK_BYTES: usize = 256 * KIB;

/// Large produced batches looked through at once; more wait, holding their request's budget.
pub const MAX_BATCH_CHECKS: usize = 2;

/// Batches that are remembered for each producer, as Kafka's.
pub const PRODUCER_BATCHES: usize = 5;

/// Producers remembered for each partition; the one longest idle goes first.
pub const MAX_PRODUCERS: usize = 10_000;

/// Producers in one row of a checkpoint.
pub const PRODUCERS_PER_ROW: usize = 400;

/// Segments of a partition in one row, of some 50 bytes each.
pub const SEGMENTS_PER_ROW: usize = if cfg!(test) { 3 } else { 10_000 };

/// Producers idle for so long are forgotten; Kafka's `producer.id.expiration.ms`.
pub const PRODUCER_EXPIRY_MS: i64 = 24 * 3600 * 1000;

/// Characters of a setting that is a number; spaces around it count.
pub const MAX_NUMBER_CHARS: usize = 64;

/// Bytes of a setting's value, as of any text in Kafka's older versions of messages.
pub const MAX_CONFIG_VALUE: usize = 32_767;

/// Groups that have settings of their own.
pub const MAX_GROUPS_WITH_SETTINGS: usize = 10_000;

/// Partitions of one topic.
pub const MAX_PARTITIONS: u32 = 1000;

/// Partitions of all topics.
pub const MAX_ALL_PARTITIONS: usize = 10_000;

/// Entries of the epoch cache of one partition; the oldest go first.
pub const MAX_EPOCHS: usize = 1000;

/// Length of a topic name, as Kafka's.
pub const MAX_TOPIC_NAME: usize = 249;

/// Length of the metadata text of a committed offset, as Kafka's.
pub const MAX_OFFSET_METADATA: usize = 4096;

/// Length of a consumer group's name.
pub const MAX_GROUP_NAME: usize = 4096;

/// Length of a member's id, static name and rack in the consumer protocol, in bytes.
pub const MAX_MEMBER_NAME: usize = 256;

/// Members that are gone and whose rows are still to be deleted, above which a group takes no new
/// ones.
pub const MAX_UNSAVED_LEAVERS: usize = 2048;

/// Length of a regular expression that a member subscribes to, in bytes.
pub const MAX_REGEX: usize = 4096;

/// What such an expression may take when it is compiled, in bytes.
pub const MAX_COMPILED_REGEX: usize = MIB;

/// What one member says of itself in the consumer protocol, names of topics above all, in bytes.
pub const MAX_SUBSCRIPTION: usize = MIB;

/// What all members of a group say of themselves together, in bytes: with their assignments, all
/// of a group has to fit one value of a command.
pub const MAX_GROUP_WEIGHT: usize = 5 * MIB;

/// Bytes of groups of the consumer protocol that are saved with one command, if they are not of
/// one group.
pub const GROUPS_PER_COMMAND_BYTES: usize = MIB;

/// Offsets in one commit.
pub const MAX_OFFSETS_PER_COMMIT: usize = 10_000;

/// Length of a ledger's source name, file key and version, in bytes.
pub const MAX_LEDGER_KEY: usize = 8 * KIB;

/// Bytes of batches in one conditional append; more is split.
pub const ONCE_COMMAND_BYTES: usize = 4 * MIB;

/// Threads that sync streams for a checkpoint.
pub const SYNC_THREADS: usize = 8;

/// Largest answer of one internal read, in bytes.
pub const MAX_READ_BYTES: usize = 32 * MIB;

/// Longest transaction that a producer may ask for; Kafka's `transaction.max.timeout.ms`.
pub const MAX_TXN_TIMEOUT_MS: i32 = 15 * 60 * 1000;

/// Transactional ids idle for so long are forgotten; Kafka's `transactional.id.expiration.ms`.
pub const TXN_ID_EXPIRY_MS: i64 = 7 * 24 * 3600 * 1000;

/// Length of a transactional id, in bytes.
pub const MAX_TXN_ID: usize = 4096;

/// Partitions in one transaction.
pub const MAX_TXN_PARTITIONS: usize = MAX_ALL_PARTITIONS;

/// Consumer groups in one transaction.
pub const MAX_TXN_GROUPS: usize = 1000;

/// Transactions of one data group whose markers are written at once.
pub const TXNS_AT_ONCE: usize = 64;

/// Idle transactional ids looked at in one pass over a data group.
pub const TXN_IDS_PER_PASS: usize = 10_000;

/// Offsets in the window of one compaction: at most so many keys are held in memory, at some 28
/// bytes each. Part of each plan, so that nodes with other limits do the same.
pub const COMPACTION_WINDOW: u64 = 1_800_000;

/// Bytes that a node reads and writes for compaction in a second.
pub const COMPACTION_BYTES_PER_SECOND: u64 = 32 * MIB as u64;

/// A compaction begins only when so many bytes are free beside what it may write.
pub const COMPACTION_SPARE_BYTES: u64 = 64 * MIB as u64;

/// Batches that a node compresses anew for producers at once.
pub const COMPRESSIONS_AT_ONCE: usize = 2;

/// Refused records that an answer names.
pub const MAX_REJECTED_RECORDS: usize = 1000;

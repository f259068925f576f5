//! Named limits shared by several crates. A crate's own limits stand in its own `limits.rs`.

/// One kibibyte, in bytes.
pub const KIB: usize = 1024;
/// One mebibyte, in bytes.
pub const MIB: usize = 1024 * KIB;

/// Largest command that a Raft group takes, in bytes. A Kafka batch of the default
/// `message.max.bytes` (1,048,588) and a bulk request part both fit several times.
pub const MAX_COMMAND_BYTES: usize = 16 * MIB;

/// Largest message between two nodes, in bytes: one command and its envelope.
pub const MAX_PEER_MESSAGE_BYTES: usize = 2 * MAX_COMMAND_BYTES;

/// Largest value encoded with [`crate::codec`], in bytes.
pub const MAX_VALUE_BYTES: u64 = 8 * MIB as u64;

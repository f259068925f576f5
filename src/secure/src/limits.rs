//! Limits of users, lists, quotas and handshakes.

use std::time::Duration;

/// Users of the cluster.
pub const MAX_USERS: usize = 10_000;

/// Access control entries of the cluster.
pub const MAX_ACLS: usize = 10_000;

/// Bytes of access control entries that the answer to a removal holds.
pub const MAX_TOLD_BYTES: usize = 4 * 1024 * 1024;

/// Entities with a quota.
pub const MAX_QUOTAS: usize = 10_000;

/// Longest name of a user, resource, principal, host or client in what is stored, in bytes.
pub const MAX_NAME: usize = 1024;

/// Changes in one request.
pub const MAX_CHANGES: usize = 1000;

/// Fewest iterations of a SCRAM verifier, as Kafka's.
pub const MIN_ITERATIONS: u32 = 4096;

/// Most iterations of a SCRAM verifier, as Kafka's: more would let a client buy much work cheaply.
pub const MAX_ITERATIONS: u32 = 16_384;

/// Longest salt, in bytes.
pub const MAX_SALT: usize = 256;

/// Longest message of a SASL exchange, in bytes (`sasl.server.max.receive.size`).
pub const MAX_SASL_BYTES: usize = 524_288;

/// Passwords that are checked at once; each takes a thread for a millisecond or a few.
pub const MAX_PASSWORD_CHECKS: usize = 2;

/// Longest certificate, key or CA file, in bytes.
pub const MAX_PEM_BYTES: u64 = 1024 * 1024;

/// How often certificate files are looked at.
pub const RELOAD_EVERY: Duration = Duration::from_secs(1);

/// A TLS handshake takes at most so long.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Clients whose rate is followed at once; those longest idle are forgotten first.
pub const MAX_SENSORS: usize = 10_000;

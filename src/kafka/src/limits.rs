//! Limits of the Kafka port.

use std::time::Duration;

use base::limits::{KIB, MIB};

/// What one request may take in memory when decoded, beside its own bytes.
pub const MAX_DECODED_BYTES: usize = 64 * MIB;

/// What a message may take in memory when decoded, in multiples of its own bytes: an empty text of
/// one byte is 24 bytes in memory, and the smallest structures are little worse.
pub const DECODED_PER_BYTE: usize = 32;

/// Byte strings of at least this length travel in a response without a copy.
pub(crate) const SHARED_CHUNK_BYTES: usize = 4 * KIB;

/// Largest request (`socket.request.max.bytes`); a larger one closes the connection.
pub const MAX_REQUEST_BYTES: usize = 100 * MIB;

/// Requests of one connection that may be under way; more wait in the socket.
pub const MAX_IN_FLIGHT_REQUESTS: usize = 64;

/// Request bytes that all connections together hold; a further request waits in its socket.
pub const MAX_BUFFERED_BYTES: usize = 256 * MIB;

/// A request up to this size is small. Small requests have a budget of their own, so that large
/// ones which are slow to arrive do not keep out the heartbeats and fetches of others.
pub const SMALL_REQUEST_BYTES: usize = MIB;

/// The part of the bytes held for requests that only small ones take: one in so many.
pub const SMALL_REQUEST_SHARE: usize = 4;

/// What those who have yet to prove who they are may hold, beside the bytes for small requests:
/// one in so many of these.
pub const STRANGERS_SHARE: usize = 4;

/// Looks for an offset by time that go on at once; more wait. Each may decompress a batch.
pub const MAX_TIME_SEARCHES: usize = 2;

/// Connections served at once; a further one is closed.
pub const MAX_CONNECTIONS: usize = 4096;

/// A connection without a request for so long is closed (`connections.max.idle.ms`).
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// A client must have proved who it is within this time.
pub const AUTHENTICATION_TIMEOUT: Duration = Duration::from_secs(60);

/// Once a request has begun, every 2 MiB of it, or what is left of it, may take so long beyond what
/// [`MIN_BYTES_PER_SECOND`] gives it.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A client must take its response within this time, and beyond it at the rate of
/// [`MIN_BYTES_PER_SECOND`].
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// The slowest rate at which a request may arrive, beyond [`STALL_TIMEOUT`].
pub const MIN_BYTES_PER_SECOND: usize = 64 * KIB;

/// A client that is sent away has so long to take the end of its connection.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long requests already read are worked at after their client has closed its side.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Records of one fetch response (`fetch.max.bytes`).
pub const MAX_FETCH_BYTES: usize = 55 * MIB;

/// Records held for the responses of all connections, when clients do not take them.
pub const MAX_OUTGOING_BYTES: usize = 256 * MIB;

/// One response takes at most this part of what is left of [`MAX_OUTGOING_BYTES`]: one in so many.
pub const FETCH_SHARE: usize = 8;

/// A response may have so many bytes of records even when nothing is left.
pub const MIN_FETCH_BYTES: usize = 64 * KIB;

/// Partitions in one answer of DescribeTopicPartitions (`max.request.partition.size.limit`).
pub const MAX_PARTITIONS_DESCRIBED: usize = 2000;

/// Longest wait of a fetch, whatever the client asks for.
pub const MAX_FETCH_WAIT: Duration = Duration::from_secs(300);

/// Clients are told of a silent node for so long, when nothing else is configured.
pub const BROKER_SESSION: Duration = Duration::from_secs(9);

/// Pause after a connection could not be accepted, as when no file handles are left.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Transactional ids in one answer to ListTransactions.
pub const MAX_LISTED_TRANSACTIONS: usize = 100_000;

/// Topics that have metrics of their own; those beyond share the label `other`.
pub const MAX_METRIC_TOPICS: usize = 1000;

/// Partitions, and partitions of groups, that have metrics of their own; those beyond share the
/// label `other`.
pub const MAX_METRIC_PARTITIONS: usize = 5000;

/// Consumer groups that have metrics of their own; those beyond share the label `other`.
pub const MAX_METRIC_GROUPS: usize = 1000;

/// Fetch sessions of a node (`max.incremental.fetch.session.cache.slots`).
pub const MAX_FETCH_SESSIONS: usize = 1000;

/// A fetch session unused for so long gives way to a new one, and one younger than that to none,
/// as in Kafka.
pub const FETCH_SESSION_EVICTION: Duration = Duration::from_secs(120);

/// What all fetch sessions of a node may take in memory; beyond it none is made or grows.
pub const MAX_FETCH_SESSION_BYTES: usize = 64 * MIB;

/// What one partition of a fetch session takes in memory, beside the name of its topic.
pub(crate) const FETCH_PLACE_BYTES: usize = 320;

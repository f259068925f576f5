//! Limits of the Elasticsearch port.

use std::time::Duration;

use base::limits::MIB;

/// Largest request body, before and after decompression, in bytes, as Elasticsearch's default of
/// `http.max_content_length`.
pub const MAX_BODY_BYTES: usize = 100 * MIB;

/// Bodies of all requests together, in bytes; further requests wait.
pub const BODIES_BYTES: usize = 300 * MIB;

/// A body up to this size, in KiB, is small. Small ones have a part of the budget for themselves:
/// one in [`SMALL_BODY_SHARE`].
pub const SMALL_BODY_KIB: u32 = 1024;
/// See [`SMALL_BODY_KIB`].
pub const SMALL_BODY_SHARE: usize = 4;

/// Open connections; further ones are closed at once.
pub const MAX_CONNECTIONS: usize = 2048;

/// Requests answered at the same time; further ones wait.
pub const MAX_REQUESTS: usize = 256;

/// Time to send the head of a request.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(20);

/// Time to send a body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest URL that is answered, in bytes.
pub const MAX_URL_BYTES: usize = 16 * 1024;

/// Answers from this size on are compressed when the client takes gzip, in bytes.
pub const GZIP_FROM_BYTES: usize = 1024;

/// Operations of one bulk request.
pub const MAX_BULK_OPS: usize = 500_000;

/// Searches of one `_msearch`.
pub const MAX_MSEARCH: usize = 1_000;

/// Documents of one `_mget`.
pub const MAX_MGET: usize = 10_000;

/// Longest wait that a request may ask for with `timeout`.
pub const MAX_WAIT: Duration = Duration::from_secs(600);

//! Limits of the WebHDFS ports.

use std::time::Duration;

/// Connections served at once per port; further ones wait to be accepted.
pub const MAX_CONNECTIONS: usize = 1_024;
/// Bytes of request line and headers.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Header lines of a request.
pub const MAX_HEADERS: usize = 100;
/// Parameters of a query.
pub const MAX_PARAMS: usize = 64;
/// Longest wait for a request's head, idle time included.
pub const HEAD_PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait for the next part of a body.
pub const BODY_PATIENCE: Duration = Duration::from_secs(60);
/// After [`BODY_PATIENCE`], a body must have arrived with this many bytes per second.
pub const MIN_BODY_BYTES_PER_S: u64 = 100;
/// Pause after a failed accept, such as with no file descriptors left.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

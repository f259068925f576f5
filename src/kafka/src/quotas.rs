//! Client quotas on bytes produced and fetched, per node.
//!
//! What goes over the quota is served, and told to wait (`throttle_time_ms`); the connection then
//! takes no further request for that time, whatever the client does. Kafka mutes it likewise, but
//! empties a fetch that goes over (decision 16). A new connection has not waited: while its client
//! is over the quota its first fetch gets no records, or who connects again and again would get as
//! many times the quota.

use std::time::Duration;

use base::Env;
use secure::quota::{CONSUMER_BYTE_RATE, PRODUCER_BYTE_RATE};
use secure::throttle::{SAMPLES, Sensors};

use crate::caller::Caller;
use crate::codec::{RequestBody, ResponseBody};
use crate::gateway::Shared;
use crate::handlers::NO_RECORDS;

/// What clients sent and took lately.
pub(crate) struct Quotas {
    env: Env,
    produced: Sensors,
    fetched: Sensors,
}

impl Quotas {
    pub(crate) fn new(env: Env) -> Self {
        Self { env, produced: Sensors::default(), fetched: Sensors::default() }
    }
}

/// A fetch asks for no more than the quota allows in its window; the first of a connection, which
/// is `fresh`, for nothing while the client is over its quota already.
pub(crate) fn limit(
    shared: &Shared,
    caller: &Caller,
    client_id: &str,
    body: &mut RequestBody,
    fresh: bool,
) {
    let RequestBody::Fetch(request) = body else { return };
    let quotas = shared.backend.security.store().quotas();
    let found = quotas.resolve(caller.name(), client_id, CONSUMER_BYTE_RATE);
    let Some((bucket, bound)) = found else { return };
    let now = shared.quotas.env.clock.monotonic();
    if fresh && !shared.quotas.fetched.wait(&bucket, bound, now).is_zero() {
        request.max_bytes = NO_RECORDS;
        return;
    }
    let seconds = u32::try_from(SAMPLES - 1).unwrap_or(1);
    #[expect(clippy::cast_possible_truncation, reason = "a float to integer cast saturates")]
    let window = (bound * f64::from(seconds)) as i32;
    request.max_bytes = request.max_bytes.min(window.max(1));
}

/// Counts a produce of so many bytes that has no response; how long the client must wait.
pub(crate) fn silent(
    shared: &Shared,
    caller: &Caller,
    client_id: &str,
    request_bytes: usize,
) -> Option<Duration> {
    let mut unsent = ResponseBody::Produce(Default::default());
    let wait = charge(shared, caller, client_id, request_bytes, &mut unsent);
    (!wait.is_zero()).then_some(wait)
}

/// Counts a request of so many bytes and its response; returns how long the client must wait.
pub(crate) fn charge(
    shared: &Shared,
    caller: &Caller,
    client_id: &str,
    request_bytes: usize,
    response: &mut ResponseBody,
) -> Duration {
    let (key, sensors, bytes) = match response {
        ResponseBody::Produce(_) => (PRODUCER_BYTE_RATE, &shared.quotas.produced, request_bytes),
        ResponseBody::Fetch(body) => {
            let parts = body.responses.iter().flat_map(|topic| &topic.partitions);
            let bytes = parts.flat_map(|part| &part.records.0).map(bytes::Bytes::len).sum();
            (CONSUMER_BYTE_RATE, &shared.quotas.fetched, bytes)
        }
        _ => return Duration::ZERO,
    };
    let quotas = shared.backend.security.store().quotas();
    let Some((bucket, bound)) = quotas.resolve(caller.name(), client_id, key) else {
        return Duration::ZERO;
    };
    let wait = sensors.record(bucket, bytes, bound, shared.quotas.env.clock.monotonic());
    let wait_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
    if wait_ms == 0 {
        return Duration::ZERO;
    }
    match response {
        ResponseBody::Produce(body) => body.throttle_time_ms = wait_ms,
        ResponseBody::Fetch(body) => body.throttle_time_ms = wait_ms,
        _ => {}
    }
    let wait = Duration::from_millis(u64::try_from(wait_ms).unwrap_or(0));
    shared.backend.security.audit().throttled(wait);
    wait
}

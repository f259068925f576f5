//! Fetch: a long poll over many partitions.
//!
//! Fetch sessions are refused by answering session id 0, which tells the client to send whole
//! requests.

use std::sync::Arc;
use std::time::Duration;

use log::transactions::AbortedTxn;
use log::{FetchSpec, Isolation, LogError, TopicRef};
use tokio::time::Instant;

use crate::codec::Records;
use crate::codec::messages::{
    AbortedTransaction, FetchEpochEndOffset, FetchLeaderIdAndEpoch, FetchNodeEndpoint,
    FetchPartition, FetchRequest, FetchResponse, FetchableTopicResponse, PartitionData,
};
use crate::errors;
use crate::gateway::Shared;
use crate::limits::{MAX_FETCH_BYTES, MAX_FETCH_WAIT};
use crate::outgoing::Held;

/// Fetch 13 names topics by id.
const BY_ID: i16 = 13;

/// What one pass over the partitions found.
struct Found {
    topics: Vec<FetchableTopicResponse>,
    bytes: usize,
    /// An error or a divergence: answer at once.
    urgent: bool,
}

/// Reads records, waiting for `min_bytes` of them at most `max_wait_ms`. What they take of the
/// budget is left in `held`.
pub(crate) async fn fetch(
    shared: &Arc<Shared>,
    request: FetchRequest,
    version: i16,
    held: &mut Option<Held>,
) -> FetchResponse {
    if request.session_id != 0 && request.session_epoch > 0 {
        let error_code = errors::FETCH_SESSION_ID_NOT_FOUND;
        return FetchResponse { error_code, ..Default::default() };
    }
    let max_wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let deadline = after(max_wait.min(MAX_FETCH_WAIT));
    let min_bytes = usize::try_from(request.min_bytes).unwrap_or(0);
    let max_bytes = usize::try_from(request.max_bytes).unwrap_or(0).min(MAX_FETCH_BYTES);
    loop {
        *held = None;
        let part = held.insert(shared.outgoing.reserve(max_bytes));
        let room = part.bytes();
        let found = look(shared, &request, version, room).await;
        part.set(found.bytes);
        // Whole batches rarely fill the room: half of it is enough, whatever the client wants.
        let wanted = min_bytes.min((room / 2).max(1));
        let enough = found.urgent || found.bytes >= wanted || request.topics.is_empty();
        if enough || deadline <= after(Duration::ZERO) {
            return respond(shared, found);
        }
        wait(shared, &request, version, &found, deadline).await;
    }
}

fn topic_ref(topic: &crate::codec::messages::FetchTopic, version: i16) -> TopicRef<'_> {
    if version >= BY_ID { TopicRef::Id(topic.topic_id) } else { TopicRef::Name(&topic.topic) }
}

/// Now and a while.
fn after(wait: Duration) -> Instant {
    // Tokio's clock: simulations pause it, and a sleep is measured with it anyway.
    Instant::now() + wait
}

/// Waits until there is more than was found, or for the deadline.
async fn wait(
    shared: &Arc<Shared>,
    request: &FetchRequest,
    version: i16,
    found: &Found,
    deadline: Instant,
) {
    let pairs = request.topics.iter().zip(&found.topics);
    let wants: Vec<(TopicRef<'_>, i32, i64)> = pairs
        .flat_map(|(topic, seen)| {
            let name = topic_ref(topic, version);
            let parts = seen.partitions.iter();
            parts.map(move |part| (name, part.partition_index, part.high_watermark))
        })
        .collect();
    let left = deadline.saturating_duration_since(after(Duration::ZERO));
    shared.backend.log.wait_for_data(&wants, left).await;
}

async fn look(
    shared: &Arc<Shared>,
    request: &FetchRequest,
    version: i16,
    max_bytes: usize,
) -> Found {
    let mut found = Found { topics: Vec::new(), bytes: 0, urgent: false };
    for topic in &request.topics {
        let mut partitions = Vec::new();
        for part in &topic.partitions {
            let left = max_bytes.saturating_sub(found.bytes);
            let name = topic_ref(topic, version);
            let data = read(shared, name, part, left, found.bytes == 0, request).await;
            found.bytes += data.records.0.iter().map(bytes::Bytes::len).sum::<usize>();
            found.urgent |= data.error_code != errors::NONE
                || data.diverging_epoch != FetchEpochEndOffset::default();
            partitions.push(data);
        }
        let (topic, topic_id) = (topic.topic.clone(), topic.topic_id);
        found.topics.push(FetchableTopicResponse { topic, topic_id, partitions });
    }
    found
}

async fn read(
    shared: &Arc<Shared>,
    topic: TopicRef<'_>,
    part: &FetchPartition,
    left: usize,
    first: bool,
    request: &FetchRequest,
) -> PartitionData {
    let own = usize::try_from(part.partition_max_bytes).unwrap_or(0);
    let spec = FetchSpec {
        topic,
        partition: part.partition,
        offset: part.fetch_offset,
        max_bytes: own.min(left),
        current_leader_epoch: part.current_leader_epoch,
        last_fetched_epoch: part.last_fetched_epoch,
        isolation: isolation(request.isolation_level),
    };
    match shared.backend.log.fetch(&spec).await {
        Ok(got) => {
            // KIP-74: only the first partition with records may exceed the limit of the request.
            let size: usize = got.records.iter().map(bytes::Bytes::len).sum();
            let records = if first || size <= left { got.records } else { Vec::new() };
            let diverging =
                got.diverging.map(|(epoch, end_offset)| FetchEpochEndOffset { epoch, end_offset });
            PartitionData {
                partition_index: part.partition,
                high_watermark: got.high_watermark,
                last_stable_offset: got.last_stable_offset,
                log_start_offset: got.log_start_offset,
                aborted_transactions: aborted(request.isolation_level, &got.aborted),
                records: Records(records),
                diverging_epoch: diverging.unwrap_or_default(),
                ..Default::default()
            }
        }
        Err(error) => refused(shared, topic, part.partition, &error),
    }
}

/// Kafka's `isolation.level` on the wire.
pub(crate) fn isolation(level: i8) -> Isolation {
    if level == 1 { Isolation::Committed } else { Isolation::Uncommitted }
}

/// The list of aborted transactions, which readers of everything do not get.
fn aborted(level: i8, txns: &[AbortedTxn]) -> Option<Vec<AbortedTransaction>> {
    let one = |txn: &AbortedTxn| AbortedTransaction {
        producer_id: txn.producer_id,
        first_offset: txn.first_offset,
    };
    let mut all: Vec<_> = txns.iter().map(one).collect();
    // Clients take them in order of their first offset.
    all.sort_by_key(|txn| txn.first_offset);
    (isolation(level) == Isolation::Committed).then_some(all)
}

fn refused(
    shared: &Arc<Shared>,
    topic: TopicRef<'_>,
    partition: i32,
    error: &LogError,
) -> PartitionData {
    let mut data = PartitionData {
        partition_index: partition,
        error_code: error.code(),
        high_watermark: -1,
        ..Default::default()
    };
    let moved = matches!(error, LogError::NotLeader { .. } | LogError::FencedLeaderEpoch);
    if let (true, Ok(topic)) = (moved, shared.backend.log.resolve(topic)) {
        let (leader_id, leader_epoch) = shared.leader_of(&topic.name, partition);
        data.current_leader = FetchLeaderIdAndEpoch { leader_id, leader_epoch };
    }
    data
}

fn respond(shared: &Arc<Shared>, found: Found) -> FetchResponse {
    let parts = found.topics.iter().flat_map(|t| &t.partitions);
    let leaders: Vec<i32> = parts.map(|p| p.current_leader.leader_id).filter(|l| *l >= 0).collect();
    let named = shared.brokers().into_iter().filter(|(n, ..)| leaders.contains(&i32::from(n.0)));
    let endpoint = |(node, host, port): (base::NodeId, String, u16)| FetchNodeEndpoint {
        node_id: i32::from(node.0),
        host,
        port: i32::from(port),
        rack: None,
    };
    let node_endpoints = named.map(endpoint).collect();
    FetchResponse { responses: found.topics, node_endpoints, ..Default::default() }
}

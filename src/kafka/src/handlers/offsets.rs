//! ListOffsets, OffsetForLeaderEpoch and DeleteRecords.

use std::collections::BTreeSet;
use std::sync::Arc;

use base::GroupId;
use log::{LogError, LogService, OffsetQuery, TopicRef};
use tokio::sync::SemaphorePermit;

use super::fetch::isolation;
use super::topics::repeated;
use crate::codec::messages::{
    DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsResponse,
    DeleteRecordsTopicResult, ListOffsetsPartitionResponse, ListOffsetsRequest,
    ListOffsetsResponse, ListOffsetsTopicResponse, OffsetForLeaderEpochEpochEndOffset,
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, OffsetForLeaderTopicResult,
};
use crate::errors;
use crate::gateway::Shared;

/// Kafka's special timestamps. −4 is the start of what lies on this node, −5 the end of what was
/// moved to other storage: nothing is.
fn query(timestamp: i64) -> Option<OffsetQuery> {
    match timestamp {
        -1 => Some(OffsetQuery::Latest),
        -2 | -4 => Some(OffsetQuery::Earliest),
        -3 => Some(OffsetQuery::MaxTimestamp),
        time if time >= 0 => Some(OffsetQuery::Time(time)),
        _ => None,
    }
}

/// The first version that knows a timestamp.
fn since(timestamp: i64) -> i16 {
    match timestamp {
        -2.. => 1,
        -3 => 7,
        -4 => 8,
        -5 => 9,
        _ => i16::MAX,
    }
}

/// Waits until a search that may decompress batches can begin: what a batch says is small, what
/// it unfolds to is not, and many clients may look at once.
async fn turn(shared: &Shared, query: OffsetQuery) -> Option<SemaphorePermit<'_>> {
    match query {
        OffsetQuery::Earliest | OffsetQuery::Latest => None,
        // The semaphore is never closed.
        OffsetQuery::Time(_) | OffsetQuery::MaxTimestamp => {
            shared.time_searches.acquire().await.ok()
        }
    }
}

/// Whether a partition is in one of the groups that this node may lead no longer.
fn is_doubtful(log: &LogService, doubtful: &BTreeSet<GroupId>, part: (&str, i32)) -> bool {
    let group = log.topic(part.0).and_then(|topic| topic.group_of(part.1));
    group.is_some_and(|group| doubtful.contains(&group))
}

/// Finds offsets by time.
pub(crate) async fn list(
    shared: &Arc<Shared>,
    request: ListOffsetsRequest,
    version: i16,
) -> ListOffsetsResponse {
    let log = &shared.backend.log;
    let isolation = isolation(request.isolation_level);
    let mut asked = Vec::new();
    for topic in &request.topics {
        asked.extend(topic.partitions.iter().map(|p| (topic.name.as_str(), p.partition_index)));
    }
    let doubtful = log.doubtful_groups(&asked).await;
    let twice = repeated(asked.iter().copied());
    let mut topics = Vec::new();
    for topic in &request.topics {
        let mut partitions = Vec::new();
        for part in &topic.partitions {
            let mut answer = ListOffsetsPartitionResponse {
                partition_index: part.partition_index,
                ..Default::default()
            };
            let (index, epoch) = (part.partition_index, part.current_leader_epoch);
            match query(part.timestamp) {
                _ if twice.contains(&(topic.name.as_str(), index)) => {
                    answer.error_code = errors::INVALID_REQUEST;
                }
                _ if version < since(part.timestamp) => {
                    answer.error_code = errors::UNSUPPORTED_VERSION;
                }
                Some(_) if is_doubtful(log, &doubtful, (topic.name.as_str(), index)) => {
                    answer.error_code = errors::NOT_LEADER_OR_FOLLOWER;
                }
                Some(query) => {
                    let name = TopicRef::Name(&topic.name);
                    let _turn = turn(shared, query).await;
                    match log.list_offset(name, index, epoch, query, isolation).await {
                        Ok(found) => {
                            answer.offset = found.offset;
                            answer.timestamp = found.timestamp_ms;
                            answer.leader_epoch = found.leader_epoch;
                        }
                        Err(error) => answer.error_code = error.code(),
                    }
                }
                None => {}
            }
            partitions.push(answer);
        }
        topics.push(ListOffsetsTopicResponse { name: topic.name.clone(), partitions });
    }
    ListOffsetsResponse { throttle_time_ms: 0, topics }
}

/// Says where an epoch ended.
pub(crate) async fn for_epoch(
    shared: &Arc<Shared>,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let log = &shared.backend.log;
    // A leader that was deposed does not know where its epoch ended: told its own end, a client
    // would take what it has read for gone.
    let mut asked = Vec::new();
    for topic in &request.topics {
        asked.extend(topic.partitions.iter().map(|p| (topic.topic.as_str(), p.partition)));
    }
    let doubtful = log.doubtful_groups(&asked).await;
    let mut topics = Vec::new();
    for topic in request.topics {
        let mut partitions = Vec::new();
        for part in topic.partitions {
            let name = TopicRef::Name(&topic.topic);
            let (epoch, current) = (part.leader_epoch, part.current_leader_epoch);
            let mut answer = OffsetForLeaderEpochEpochEndOffset {
                partition: part.partition,
                ..Default::default()
            };
            if is_doubtful(log, &doubtful, (topic.topic.as_str(), part.partition)) {
                answer.error_code = errors::NOT_LEADER_OR_FOLLOWER;
                partitions.push(answer);
                continue;
            }
            match log.offset_for_leader_epoch(name, part.partition, current, epoch) {
                Ok((epoch, end)) => (answer.leader_epoch, answer.end_offset) = (epoch, end),
                Err(error) => answer.error_code = error.code(),
            }
            partitions.push(answer);
        }
        topics.push(OffsetForLeaderTopicResult { topic: topic.topic, partitions });
    }
    OffsetForLeaderEpochResponse { throttle_time_ms: 0, topics }
}

/// Moves the start of partitions.
pub(crate) async fn delete_records(
    shared: &Arc<Shared>,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let mut topics = Vec::new();
    for topic in request.topics {
        let mut partitions = Vec::new();
        for part in topic.partitions {
            let name = TopicRef::Name(&topic.name);
            let result: Result<i64, LogError> =
                shared.backend.log.delete_records(name, part.partition_index, part.offset).await;
            partitions.push(DeleteRecordsPartitionResult {
                partition_index: part.partition_index,
                low_watermark: *result.as_ref().unwrap_or(&-1),
                error_code: result.as_ref().err().map_or(errors::NONE, LogError::code),
            });
        }
        topics.push(DeleteRecordsTopicResult { name: topic.name, partitions });
    }
    DeleteRecordsResponse { throttle_time_ms: 0, topics }
}

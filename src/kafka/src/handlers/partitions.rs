//! DescribeTopicPartitions (KIP-966): topics page by page, in the order of their names.

use std::collections::BTreeSet;
use std::sync::Arc;

use log::Topic;
use secure::acl::{Operation, ResourceType};

use crate::authorize::Access;
use crate::codec::Nullable;
use crate::codec::messages::{
    DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, DescribedPartition,
    DescribedTopicPartitions, TopicPartitionsCursor,
};
use crate::errors;
use crate::gateway::Shared;
use crate::limits::MAX_PARTITIONS_DESCRIBED;

/// Describes topics from the cursor on, as many partitions as fit the limit.
pub(crate) fn describe(
    shared: &Arc<Shared>,
    access: &Access,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let cursor = request.cursor.0.unwrap_or_default();
    let log = &shared.backend.log;
    // Kafka's rule: no topics named means all, and the cursor leaves out what lies before it.
    let named: BTreeSet<String> = if request.topics.is_empty() {
        // Before pages are made of them: a cursor names a topic too.
        let need = (Operation::Describe, ResourceType::Topic);
        let all = log.topics();
        let names = all.iter().map(|topic| topic.name.clone());
        names.filter(|name| access.might(need, name)).collect()
    } else {
        request.topics.into_iter().map(|topic| topic.name).collect()
    };
    if cursor.partition_index < 0 {
        return refused(named);
    }
    let limit = usize::try_from(request.response_partition_limit).unwrap_or(0);
    let mut left = limit.clamp(1, MAX_PARTITIONS_DESCRIBED);
    let mut answer = DescribeTopicPartitionsResponse::default();
    for name in named.range(cursor.topic_name.clone()..) {
        let first = if *name == cursor.topic_name { cursor.partition_index } else { 0 };
        if left == 0 {
            answer.next_cursor = Nullable(Some(cursor_at(name, 0)));
            break;
        }
        let Some(topic) = log.topic(name) else {
            answer.topics.push(unknown(name));
            continue;
        };
        let partitions = page(shared, &topic, first, left);
        left -= partitions.len();
        let end = first.saturating_add(i32::try_from(partitions.len()).unwrap_or(i32::MAX));
        answer.topics.push(DescribedTopicPartitions {
            name: Some(name.clone()),
            topic_id: topic.id,
            partitions,
            ..Default::default()
        });
        if topic.group_of(end).is_some() {
            answer.next_cursor = Nullable(Some(cursor_at(name, end)));
            break;
        }
    }
    answer
}

fn cursor_at(topic: &str, partition_index: i32) -> TopicPartitionsCursor {
    TopicPartitionsCursor { topic_name: topic.to_owned(), partition_index }
}

fn page(shared: &Arc<Shared>, topic: &Topic, first: i32, most: usize) -> Vec<DescribedPartition> {
    let indexes = (first..).take_while(|index| topic.group_of(*index).is_some()).take(most);
    let described = indexes.map(|partition_index| {
        let facts = shared.facts(topic, partition_index);
        DescribedPartition {
            error_code: facts.code(),
            partition_index,
            leader_id: facts.leader,
            leader_epoch: facts.leader_epoch,
            replica_nodes: facts.replicas,
            isr_nodes: facts.in_sync,
            eligible_leader_replicas: Some(Vec::new()),
            last_known_elr: Some(Vec::new()),
            offline_replicas: facts.offline,
        }
    });
    described.collect()
}

fn unknown(name: &str) -> DescribedTopicPartitions {
    let error_code = match log::check_name(name) {
        Ok(()) => errors::UNKNOWN_TOPIC_OR_PARTITION,
        Err(_) => errors::INVALID_TOPIC_EXCEPTION,
    };
    DescribedTopicPartitions { error_code, name: Some(name.to_owned()), ..Default::default() }
}

/// The cursor points before the first partition.
fn refused(named: BTreeSet<String>) -> DescribeTopicPartitionsResponse {
    let error_code = errors::INVALID_REQUEST;
    let topics = named.into_iter().map(|name| DescribedTopicPartitions {
        error_code,
        name: Some(name),
        ..Default::default()
    });
    DescribeTopicPartitionsResponse { topics: topics.collect(), ..Default::default() }
}

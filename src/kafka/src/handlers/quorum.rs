//! DescribeQuorum: the voters of `m0`, which does for this cluster what the metadata quorum does
//! for Kafka's. Log ends are indexes of its Raft log, as the leader knows them.

use std::sync::Arc;

use consensus::{LogState, ReplicaLog};
use uuid::Uuid;

use crate::codec::messages::{
    DescribeQuorumRequest, DescribeQuorumResponse, QuorumListener, QuorumNode, QuorumPartitionData,
    QuorumReplicaState, QuorumTopicData,
};
use crate::errors;
use crate::gateway::Shared;

/// The topic that stands for the metadata log; it has one partition.
const METADATA_TOPIC: &str = "__cluster_metadata";

/// Describes the quorum, asked of any node.
pub(crate) async fn describe(
    shared: &Arc<Shared>,
    request: DescribeQuorumRequest,
) -> DescribeQuorumResponse {
    // Kafka looks for exactly this one partition and refuses every partition of another request.
    let asked = request.topics.as_slice();
    let valid = matches!(asked, [topic] if topic.topic_name == METADATA_TOPIC
        && matches!(topic.partitions.as_slice(), [part] if part.partition_index == 0));
    if !valid {
        return refused(request);
    }
    let state = match shared.backend.groups.m0.log_state().await {
        Ok(state) => state,
        Err(error) => {
            return DescribeQuorumResponse {
                error_code: errors::LEADER_NOT_AVAILABLE,
                error_message: Some(error.to_string()),
                ..Default::default()
            };
        }
    };
    let nodes = shared.config.advertised.all().into_iter().map(|(node, (host, port))| {
        let name = shared.config.security.protocol.name().to_owned();
        let listener = QuorumListener { name, host, port };
        QuorumNode { node_id: i32::from(node.0), listeners: vec![listener] }
    });
    let partitions = vec![partition(&state)];
    let topic_name = METADATA_TOPIC.to_owned();
    DescribeQuorumResponse {
        topics: vec![QuorumTopicData { topic_name, partitions }],
        nodes: nodes.collect(),
        ..Default::default()
    }
}

fn partition(state: &LogState) -> QuorumPartitionData {
    let offset = |index: u64| i64::try_from(index).unwrap_or(i64::MAX);
    let replica = |replica: &ReplicaLog| QuorumReplicaState {
        replica_id: i32::from(replica.node.0),
        replica_directory_id: Uuid::nil(),
        // Offsets count from 0 and indexes from 1: the index of the last entry is the end offset.
        log_end_offset: offset(replica.last_index),
        ..Default::default()
    };
    let of = |votes: bool| state.replicas.iter().filter(move |r| r.votes == votes).map(replica);
    QuorumPartitionData {
        partition_index: 0,
        leader_id: state.leader.map_or(-1, |node| i32::from(node.0)),
        leader_epoch: i32::try_from(state.term).unwrap_or(i32::MAX),
        high_watermark: offset(state.committed),
        current_voters: of(true).collect(),
        observers: of(false).collect(),
        ..Default::default()
    }
}

fn refused(request: DescribeQuorumRequest) -> DescribeQuorumResponse {
    let error_code = errors::UNKNOWN_TOPIC_OR_PARTITION;
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter().map(|part| QuorumPartitionData {
            partition_index: part.partition_index,
            error_code,
            error_message: Some(errors::message(error_code).to_owned()),
            ..Default::default()
        });
        QuorumTopicData { topic_name: topic.topic_name, partitions: partitions.collect() }
    });
    DescribeQuorumResponse { topics: topics.collect(), ..Default::default() }
}

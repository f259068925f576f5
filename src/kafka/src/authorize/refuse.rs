//! Answers to requests that are refused as a whole, as Kafka's `getErrorResponse` makes them.

use crate::codec::messages::*;
use crate::codec::{RequestBody, ResponseBody};
use crate::errors::{self, Code};

/// The answer with a code wherever the response has room for it.
pub(crate) fn whole(body: &RequestBody, error_code: Code) -> ResponseBody {
    let message = Some(errors::message(error_code).to_owned());
    match body {
        RequestBody::JoinGroup(request) => JoinGroupResponse {
            error_code,
            member_id: request.member_id.clone(),
            protocol_name: Some(String::new()),
            ..Default::default()
        }
        .into(),
        RequestBody::SyncGroup(_) => SyncGroupResponse { error_code, ..Default::default() }.into(),
        RequestBody::Heartbeat(_) => HeartbeatResponse { error_code, ..Default::default() }.into(),
        RequestBody::LeaveGroup(_) => {
            LeaveGroupResponse { error_code, ..Default::default() }.into()
        }
        RequestBody::ConsumerGroupHeartbeat(_) => {
            ConsumerGroupHeartbeatResponse { error_code, ..Default::default() }.into()
        }
        RequestBody::OffsetCommit(request) => {
            let topics = request.topics.iter().map(|topic| OffsetCommitResponseTopic {
                name: topic.name.clone(),
                partitions: super::groups::committed(&topic.partitions, error_code),
            });
            OffsetCommitResponse { topics: topics.collect(), ..Default::default() }.into()
        }
        RequestBody::OffsetDelete(_) => {
            OffsetDeleteResponse { error_code, ..Default::default() }.into()
        }
        RequestBody::InitProducerId(_) => {
            InitProducerIdResponse { error_code, producer_epoch: -1, ..Default::default() }.into()
        }
        RequestBody::AddOffsetsToTxn(_) => {
            AddOffsetsToTxnResponse { error_code, ..Default::default() }.into()
        }
        RequestBody::EndTxn(_) => EndTxnResponse { error_code, ..Default::default() }.into(),
        RequestBody::TxnOffsetCommit(request) => {
            let topics = super::transactions::committed(&request.topics, error_code);
            TxnOffsetCommitResponse { topics, ..Default::default() }.into()
        }
        RequestBody::WriteTxnMarkers(request) => markers(request, error_code).into(),
        RequestBody::AlterReplicaLogDirs(request) => {
            let topics = request.dirs.iter().flat_map(|dir| &dir.topics);
            let results = topics.map(|topic| AlterReplicaLogDirTopicResult {
                topic_name: topic.name.clone(),
                partitions: topic
                    .partitions
                    .iter()
                    .map(|index| AlterReplicaLogDirPartitionResult {
                        partition_index: *index,
                        error_code,
                    })
                    .collect(),
            });
            AlterReplicaLogDirsResponse { results: results.collect(), ..Default::default() }.into()
        }
        RequestBody::DescribeLogDirs(_) => {
            DescribeLogDirsResponse { error_code, ..Default::default() }.into()
        }
        RequestBody::ElectLeaders(request) => {
            // Version 0 has no code for the whole, and an empty list would mean success.
            let named = request.topic_partitions.iter().flatten();
            let results = named.map(|topic| ReplicaElectionResult {
                topic: topic.topic.clone(),
                partition_result: topic
                    .partitions
                    .iter()
                    .map(|partition_id| ElectLeadersPartitionResult {
                        partition_id: *partition_id,
                        error_code,
                        error_message: message.clone(),
                    })
                    .collect(),
            });
            let replica_election_results = results.collect();
            ElectLeadersResponse { error_code, replica_election_results, ..Default::default() }
                .into()
        }
        RequestBody::AlterPartitionReassignments(_) => AlterPartitionReassignmentsResponse {
            error_code,
            error_message: message,
            ..Default::default()
        }
        .into(),
        RequestBody::ListPartitionReassignments(_) => ListPartitionReassignmentsResponse {
            error_code,
            error_message: message,
            ..Default::default()
        }
        .into(),
        RequestBody::DescribeQuorum(_) => {
            DescribeQuorumResponse { error_code, error_message: message, ..Default::default() }
                .into()
        }
        RequestBody::ListConfigResources(_) => {
            ListConfigResourcesResponse { error_code, ..Default::default() }.into()
        }
        RequestBody::DescribeAcls(_) => {
            DescribeAclsResponse { error_code, error_message: message, ..Default::default() }.into()
        }
        RequestBody::CreateAcls(request) => {
            let result = AclCreationResult { error_code, error_message: message };
            let results = vec![result; request.creations.len()];
            CreateAclsResponse { results, ..Default::default() }.into()
        }
        RequestBody::DeleteAcls(request) => {
            let result =
                DeleteAclsFilterResult { error_code, error_message: message, ..Default::default() };
            let filter_results = vec![result; request.filters.len()];
            DeleteAclsResponse { filter_results, ..Default::default() }.into()
        }
        RequestBody::DescribeUserScramCredentials(_) => DescribeUserScramCredentialsResponse {
            error_code,
            error_message: message,
            ..Default::default()
        }
        .into(),
        RequestBody::AlterUserScramCredentials(request) => {
            alter_users(request, error_code, message).into()
        }
        RequestBody::DescribeClientQuotas(_) => DescribeClientQuotasResponse {
            error_code,
            error_message: message,
            ..Default::default()
        }
        .into(),
        RequestBody::AlterClientQuotas(request) => {
            let entries = request.entries.iter().map(|entry| AlterQuotaResult {
                error_code,
                error_message: message.clone(),
                entity: entry.entity.clone(),
            });
            AlterClientQuotasResponse { entries: entries.collect(), ..Default::default() }.into()
        }
        // Rules without a need for the whole request never come here.
        other => ResponseBody::empty(other.key()),
    }
}

fn markers(request: &WriteTxnMarkersRequest, error_code: Code) -> WriteTxnMarkersResponse {
    let markers = request.markers.iter().map(|marker| WritableTxnMarkerResult {
        producer_id: marker.producer_id,
        topics: marker
            .topics
            .iter()
            .map(|topic| WritableTxnMarkerTopicResult {
                name: topic.name.clone(),
                partitions: topic
                    .partition_indexes
                    .iter()
                    .map(|index| WritableTxnMarkerPartitionResult {
                        partition_index: *index,
                        error_code,
                    })
                    .collect(),
            })
            .collect(),
    });
    WriteTxnMarkersResponse { markers: markers.collect() }
}

fn alter_users(
    request: &AlterUserScramCredentialsRequest,
    error_code: Code,
    error_message: Option<String>,
) -> AlterUserScramCredentialsResponse {
    let removed = request.deletions.iter().map(|d| &d.name);
    let users: std::collections::BTreeSet<&String> =
        removed.chain(request.upsertions.iter().map(|u| &u.name)).collect();
    let results = users.into_iter().map(|user| AlterUserScramCredentialsResult {
        user: user.clone(),
        error_code,
        error_message: error_message.clone(),
    });
    AlterUserScramCredentialsResponse { results: results.collect(), ..Default::default() }
}

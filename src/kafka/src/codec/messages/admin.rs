//! Messages: AlterReplicaLogDirs, DescribeLogDirs, ElectLeaders, AlterPartitionReassignments,
//! ListPartitionReassignments, DescribeQuorum, ListConfigResources, DescribeTopicPartitions.

use uuid::Uuid;

use crate::codec::wire::Nullable;

messages! {
    /// Request of AlterReplicaLogDirs (key 34).
    struct AlterReplicaLogDirsRequest {
        dirs: Vec<AlterReplicaLogDir> [0..],
    }
    /// The alterations to make for each directory.
    struct AlterReplicaLogDir {
        path: String [0..],
        topics: Vec<AlterReplicaLogDirTopic> [0..],
    }
    /// The topics to add to the directory.
    struct AlterReplicaLogDirTopic {
        name: String [0..],
        partitions: Vec<i32> [0..],
    }
    /// Response of AlterReplicaLogDirs (key 34).
    struct AlterReplicaLogDirsResponse {
        throttle_time_ms: i32 [0..],
        results: Vec<AlterReplicaLogDirTopicResult> [0..],
    }
    /// The results for each topic.
    struct AlterReplicaLogDirTopicResult {
        topic_name: String [0..],
        partitions: Vec<AlterReplicaLogDirPartitionResult> [0..],
    }
    /// The results for each partition.
    struct AlterReplicaLogDirPartitionResult {
        partition_index: i32 [0..],
        error_code: i16 [0..],
    }
    /// Request of DescribeLogDirs (key 35).
    struct DescribeLogDirsRequest {
        topics: Option<Vec<DescribableLogDirTopic>> [0..],
    }
    /// Each topic that we want to describe log directories for, or null for all topics.
    struct DescribableLogDirTopic {
        topic: String [0..],
        partitions: Vec<i32> [0..],
    }
    /// Response of DescribeLogDirs (key 35).
    struct DescribeLogDirsResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [3..],
        results: Vec<DescribeLogDirsResult> [0..],
    }
    /// The log directories.
    struct DescribeLogDirsResult {
        error_code: i16 [0..],
        log_dir: String [0..],
        topics: Vec<DescribeLogDirsTopic> [0..],
        total_bytes: i64 [4..] = -1,
        usable_bytes: i64 [4..] = -1,
    }
    /// The topics.
    struct DescribeLogDirsTopic {
        name: String [0..],
        partitions: Vec<DescribeLogDirsPartition> [0..],
    }
    /// The partitions.
    struct DescribeLogDirsPartition {
        partition_index: i32 [0..],
        partition_size: i64 [0..],
        offset_lag: i64 [0..],
        is_future_key: bool [0..],
    }
    /// Request of ElectLeaders (key 43).
    struct ElectLeadersRequest {
        election_type: i8 [1..],
        topic_partitions: Option<Vec<ElectLeadersTopic>> [0..],
        timeout_ms: i32 [0..] = 60000,
    }
    /// The topic partitions to elect leaders, or null for all of them.
    struct ElectLeadersTopic {
        topic: String [0..],
        partitions: Vec<i32> [0..],
    }
    /// Response of ElectLeaders (key 43).
    struct ElectLeadersResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [1..],
        replica_election_results: Vec<ReplicaElectionResult> [0..],
    }
    /// The election results, or an empty array if the requester did not have permission …
    struct ReplicaElectionResult {
        topic: String [0..],
        partition_result: Vec<ElectLeadersPartitionResult> [0..],
    }
    /// The results for each partition.
    struct ElectLeadersPartitionResult {
        partition_id: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<String> [0..],
    }
    /// Request of AlterPartitionReassignments (key 45).
    struct AlterPartitionReassignmentsRequest {
        timeout_ms: i32 [0..] = 60000,
        topics: Vec<ReassignableTopic> [0..],
    }
    /// The topics to reassign.
    struct ReassignableTopic {
        name: String [0..],
        partitions: Vec<ReassignablePartition> [0..],
    }
    /// The partitions to reassign; null replicas cancel a reassignment.
    struct ReassignablePartition {
        partition_index: i32 [0..],
        replicas: Option<Vec<i32>> [0..],
    }
    /// Response of AlterPartitionReassignments (key 45).
    struct AlterPartitionReassignmentsResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<String> [0..],
        responses: Vec<ReassignableTopicResponse> [0..],
    }
    /// The responses to topics to reassign.
    struct ReassignableTopicResponse {
        name: String [0..],
        partitions: Vec<ReassignablePartitionResponse> [0..],
    }
    /// The responses to partitions to reassign.
    struct ReassignablePartitionResponse {
        partition_index: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<String> [0..],
    }
    /// Request of ListPartitionReassignments (key 46).
    struct ListPartitionReassignmentsRequest {
        timeout_ms: i32 [0..] = 60000,
        topics: Option<Vec<ListPartitionReassignmentsTopics>> [0..],
    }
    /// The topics to list partition reassignments for, or null to list everything.
    struct ListPartitionReassignmentsTopics {
        name: String [0..],
        partition_indexes: Vec<i32> [0..],
    }
    /// Response of ListPartitionReassignments (key 46).
    struct ListPartitionReassignmentsResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<String> [0..],
        topics: Vec<OngoingTopicReassignment> [0..],
    }
    /// The ongoing reassignments for each topic.
    struct OngoingTopicReassignment {
        name: String [0..],
        partitions: Vec<OngoingPartitionReassignment> [0..],
    }
    /// The ongoing reassignments for each partition.
    struct OngoingPartitionReassignment {
        partition_index: i32 [0..],
        replicas: Vec<i32> [0..],
        adding_replicas: Vec<i32> [0..],
        removing_replicas: Vec<i32> [0..],
    }
    /// Request of DescribeQuorum (key 55).
    struct DescribeQuorumRequest {
        topics: Vec<DescribeQuorumTopic> [0..],
    }
    /// The topics to describe.
    struct DescribeQuorumTopic {
        topic_name: String [0..],
        partitions: Vec<DescribeQuorumPartition> [0..],
    }
    /// The partitions to describe.
    struct DescribeQuorumPartition {
        partition_index: i32 [0..],
    }
    /// Response of DescribeQuorum (key 55).
    struct DescribeQuorumResponse {
        error_code: i16 [0..],
        error_message: Option<String> [2..],
        topics: Vec<QuorumTopicData> [0..],
        nodes: Vec<QuorumNode> [2..],
    }
    /// The response from the describe quorum API.
    struct QuorumTopicData {
        topic_name: String [0..],
        partitions: Vec<QuorumPartitionData> [0..],
    }
    /// The partition data.
    struct QuorumPartitionData {
        partition_index: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<String> [2..],
        leader_id: i32 [0..],
        leader_epoch: i32 [0..],
        high_watermark: i64 [0..],
        current_voters: Vec<QuorumReplicaState> [0..],
        observers: Vec<QuorumReplicaState> [0..],
    }
    /// The state of a voter or observer.
    struct QuorumReplicaState {
        replica_id: i32 [0..],
        replica_directory_id: Uuid [2..],
        log_end_offset: i64 [0..],
        last_fetch_timestamp: i64 [1..] = -1,
        last_caught_up_timestamp: i64 [1..] = -1,
    }
    /// The nodes in the quorum.
    struct QuorumNode {
        node_id: i32 [2..],
        listeners: Vec<QuorumListener> [2..],
    }
    /// The listeners of this controller.
    struct QuorumListener {
        name: String [2..],
        host: String [2..],
        port: u16 [2..],
    }
    /// Request of ListConfigResources (key 74), in version 0 of ListClientMetricsResources.
    struct ListConfigResourcesRequest {
        resource_types: Vec<i8> [1..],
    }
    /// Response of ListConfigResources (key 74).
    struct ListConfigResourcesResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
        config_resources: Vec<ConfigResource> [0..],
    }
    /// Each config resource in the response.
    struct ConfigResource {
        resource_name: String [0..],
        resource_type: i8 [1..] = 16,
    }
    /// Request of DescribeTopicPartitions (key 75).
    struct DescribeTopicPartitionsRequest {
        topics: Vec<DescribeTopicPartitionsTopic> [0..],
        response_partition_limit: i32 [0..] = 2000,
        cursor: Nullable<TopicPartitionsCursor> [0..],
    }
    /// The topics to fetch details for.
    struct DescribeTopicPartitionsTopic {
        name: String [0..],
    }
    /// The first topic and partition index to fetch details for.
    struct TopicPartitionsCursor {
        topic_name: String [0..],
        partition_index: i32 [0..],
    }
    /// Response of DescribeTopicPartitions (key 75).
    struct DescribeTopicPartitionsResponse {
        throttle_time_ms: i32 [0..],
        topics: Vec<DescribedTopicPartitions> [0..],
        next_cursor: Nullable<TopicPartitionsCursor> [0..],
    }
    /// Each topic in the response.
    struct DescribedTopicPartitions {
        error_code: i16 [0..],
        name: Option<String> [0..],
        topic_id: Uuid [0..],
        is_internal: bool [0..],
        partitions: Vec<DescribedPartition> [0..],
        topic_authorized_operations: i32 [0..] = -2147483648,
    }
    /// Each partition in the topic.
    struct DescribedPartition {
        error_code: i16 [0..],
        partition_index: i32 [0..],
        leader_id: i32 [0..],
        leader_epoch: i32 [0..] = -1,
        replica_nodes: Vec<i32> [0..],
        isr_nodes: Vec<i32> [0..],
        eligible_leader_replicas: Option<Vec<i32>> [0..],
        last_known_elr: Option<Vec<i32>> [0..],
        offline_replicas: Vec<i32> [0..],
    }
}

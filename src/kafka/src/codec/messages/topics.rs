//! Messages: CreateTopics, DeleteTopics, CreatePartitions.

use uuid::Uuid;

messages! {
    /// Request of CreateTopics (key 19).
    struct CreateTopicsRequest {
        topics: Vec<CreatableTopic> [0..],
        timeout_ms: i32 [0..] = 60000,
        validate_only: bool [1..],
    }
    /// The topics to create.
    struct CreatableTopic {
        name: String [0..],
        num_partitions: i32 [0..],
        replication_factor: i16 [0..],
        assignments: Vec<CreatableReplicaAssignment> [0..],
        configs: Vec<CreatableTopicConfig> [0..],
    }
    /// The manual partition assignment, or the empty array if we are using automatic …
    struct CreatableReplicaAssignment {
        partition_index: i32 [0..],
        broker_ids: Vec<i32> [0..],
    }
    /// The custom topic configurations to set.
    struct CreatableTopicConfig {
        name: String [0..],
        value: Option<String> [0..],
    }
    /// Response of CreateTopics (key 19).
    struct CreateTopicsResponse {
        throttle_time_ms: i32 [2..],
        topics: Vec<CreatableTopicResult> [0..],
    }
    /// Results for each topic we tried to create.
    struct CreatableTopicResult {
        name: String [0..],
        topic_id: Uuid [7..],
        error_code: i16 [0..],
        error_message: Option<String> [1..],
        num_partitions: i32 [5..] = -1,
        replication_factor: i16 [5..] = -1,
        configs: Option<Vec<CreatableTopicConfigs>> [5..],
        @tags {
            0 topic_config_error_code: i16 [5..],
        }
    }
    /// Configuration of the topic.
    struct CreatableTopicConfigs {
        name: String [5..],
        value: Option<String> [5..],
        read_only: bool [5..],
        config_source: i8 [5..] = -1,
        is_sensitive: bool [5..],
    }
    /// Request of DeleteTopics (key 20).
    struct DeleteTopicsRequest {
        topics: Vec<DeleteTopicState> [6..],
        topic_names: Vec<String> [0..=5],
        timeout_ms: i32 [0..],
    }
    /// The name or topic ID of the topic.
    struct DeleteTopicState {
        name: Option<String> [6..],
        topic_id: Uuid [6..],
    }
    /// Response of DeleteTopics (key 20).
    struct DeleteTopicsResponse {
        throttle_time_ms: i32 [1..],
        responses: Vec<DeletableTopicResult> [0..],
    }
    /// The results for each topic we tried to delete.
    struct DeletableTopicResult {
        name: Option<String> [0..] null [6..],
        topic_id: Uuid [6..],
        error_code: i16 [0..],
        error_message: Option<String> [5..],
    }
    /// Request of CreatePartitions (key 37).
    struct CreatePartitionsRequest {
        topics: Vec<CreatePartitionsTopic> [0..],
        timeout_ms: i32 [0..],
        validate_only: bool [0..],
    }
    /// Each topic that we want to create new partitions inside.
    struct CreatePartitionsTopic {
        name: String [0..],
        count: i32 [0..],
        assignments: Option<Vec<CreatePartitionsAssignment>> [0..],
    }
    /// The new partition assignments.
    struct CreatePartitionsAssignment {
        broker_ids: Vec<i32> [0..],
    }
    /// Response of CreatePartitions (key 37).
    struct CreatePartitionsResponse {
        throttle_time_ms: i32 [0..],
        results: Vec<CreatePartitionsTopicResult> [0..],
    }
    /// The partition creation results for each topic.
    struct CreatePartitionsTopicResult {
        name: String [0..],
        error_code: i16 [0..],
        error_message: Option<String> [0..],
    }
}

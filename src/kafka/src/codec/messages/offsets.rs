//! Messages: OffsetCommit, OffsetFetch, OffsetDelete.

messages! {
    /// Request of OffsetCommit (key 8).
    struct OffsetCommitRequest {
        group_id: String [0..],
        generation_id_or_member_epoch: i32 [1..] = -1,
        member_id: String [1..],
        group_instance_id: Option<String> [7..],
        retention_time_ms: i64 [2..=4] = -1,
        topics: Vec<OffsetCommitRequestTopic> [0..],
    }
    /// The topics to commit offsets for.
    struct OffsetCommitRequestTopic {
        name: String [0..],
        partitions: Vec<OffsetCommitRequestPartition> [0..],
    }
    /// Each partition to commit offsets for.
    struct OffsetCommitRequestPartition {
        partition_index: i32 [0..],
        committed_offset: i64 [0..],
        committed_leader_epoch: i32 [6..] = -1,
        committed_metadata: Option<String> [0..],
    }
    /// Response of OffsetCommit (key 8).
    struct OffsetCommitResponse {
        throttle_time_ms: i32 [3..],
        topics: Vec<OffsetCommitResponseTopic> [0..],
    }
    /// The responses for each topic.
    struct OffsetCommitResponseTopic {
        name: String [0..],
        partitions: Vec<OffsetCommitResponsePartition> [0..],
    }
    /// The responses for each partition in the topic.
    struct OffsetCommitResponsePartition {
        partition_index: i32 [0..],
        error_code: i16 [0..],
    }
    /// Request of OffsetFetch (key 9).
    struct OffsetFetchRequest {
        group_id: String [0..=7],
        topics: Option<Vec<OffsetFetchRequestTopic>> [0..=7] null [2..],
        groups: Vec<OffsetFetchRequestGroup> [8..],
        require_stable: bool [7..],
    }
    /// Each topic we would like to fetch offsets for, or null to fetch offsets for all …
    struct OffsetFetchRequestTopic {
        name: String [0..=7],
        partition_indexes: Vec<i32> [0..=7],
    }
    /// Each group we would like to fetch offsets for.
    struct OffsetFetchRequestGroup {
        group_id: String [8..],
        member_id: Option<String> [9..],
        member_epoch: i32 [9..] = -1,
        topics: Option<Vec<OffsetFetchRequestTopics>> [8..],
    }
    /// Each topic we would like to fetch offsets for, or null to fetch offsets for all …
    struct OffsetFetchRequestTopics {
        name: String [8..],
        partition_indexes: Vec<i32> [8..],
    }
    /// Response of OffsetFetch (key 9).
    struct OffsetFetchResponse {
        throttle_time_ms: i32 [3..],
        topics: Vec<OffsetFetchResponseTopic> [0..=7],
        error_code: i16 [2..=7],
        groups: Vec<OffsetFetchResponseGroup> [8..],
    }
    /// The responses per topic.
    struct OffsetFetchResponseTopic {
        name: String [0..=7],
        partitions: Vec<OffsetFetchResponsePartition> [0..=7],
    }
    /// The responses per partition.
    struct OffsetFetchResponsePartition {
        partition_index: i32 [0..=7],
        committed_offset: i64 [0..=7],
        committed_leader_epoch: i32 [5..=7] = -1,
        metadata: Option<String> [0..=7],
        error_code: i16 [0..=7],
    }
    /// The responses per group id.
    struct OffsetFetchResponseGroup {
        group_id: String [8..],
        topics: Vec<OffsetFetchResponseTopics> [8..],
        error_code: i16 [8..],
    }
    /// The responses per topic.
    struct OffsetFetchResponseTopics {
        name: String [8..],
        partitions: Vec<OffsetFetchResponsePartitions> [8..],
    }
    /// The responses per partition.
    struct OffsetFetchResponsePartitions {
        partition_index: i32 [8..],
        committed_offset: i64 [8..],
        committed_leader_epoch: i32 [8..] = -1,
        metadata: Option<String> [8..],
        error_code: i16 [8..],
    }
    /// Request of OffsetDelete (key 47).
    struct OffsetDeleteRequest {
        group_id: String [0..],
        topics: Vec<OffsetDeleteRequestTopic> [0..],
    }
    /// The topics to delete offsets for.
    struct OffsetDeleteRequestTopic {
        name: String [0..],
        partitions: Vec<OffsetDeleteRequestPartition> [0..],
    }
    /// Each partition to delete offsets for.
    struct OffsetDeleteRequestPartition {
        partition_index: i32 [0..],
    }
    /// Response of OffsetDelete (key 47).
    struct OffsetDeleteResponse {
        error_code: i16 [0..],
        throttle_time_ms: i32 [0..],
        topics: Vec<OffsetDeleteResponseTopic> [0..],
    }
    /// The responses for each topic.
    struct OffsetDeleteResponseTopic {
        name: String [0..],
        partitions: Vec<OffsetDeleteResponsePartition> [0..],
    }
    /// The responses for each partition in the topic.
    struct OffsetDeleteResponsePartition {
        partition_index: i32 [0..],
        error_code: i16 [0..],
    }
}

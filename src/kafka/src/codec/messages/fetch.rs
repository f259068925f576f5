//! Messages: Fetch, ListOffsets, OffsetForLeaderEpoch, DeleteRecords.

use uuid::Uuid;

use crate::codec::wire::Records;

messages! {
    /// Request of Fetch (key 1).
    struct FetchRequest {
        replica_id: i32 [0..=14] = -1,
        max_wait_ms: i32 [0..],
        min_bytes: i32 [0..],
        max_bytes: i32 [3..] = 2147483647,
        isolation_level: i8 [4..],
        session_id: i32 [7..],
        session_epoch: i32 [7..] = -1,
        topics: Vec<FetchTopic> [0..],
        forgotten_topics_data: Vec<FetchForgottenTopic> [7..],
        rack_id: String [11..],
        @tags {
            0 cluster_id: Option<String> [12..],
            1 replica_state: FetchReplicaState [15..],
        }
    }
    /// The state of the replica in the follower.
    struct FetchReplicaState {
        replica_id: i32 [15..] = -1,
        replica_epoch: i64 [15..] = -1,
    }
    /// The topics to fetch.
    struct FetchTopic {
        topic: String [0..=12],
        topic_id: Uuid [13..],
        partitions: Vec<FetchPartition> [0..],
    }
    /// The partitions to fetch.
    struct FetchPartition {
        partition: i32 [0..],
        current_leader_epoch: i32 [9..] = -1,
        fetch_offset: i64 [0..],
        last_fetched_epoch: i32 [12..] = -1,
        log_start_offset: i64 [5..] = -1,
        partition_max_bytes: i32 [0..],
        @tags {
            0 replica_directory_id: Uuid [17..],
        }
    }
    /// In an incremental fetch request, the partitions to remove.
    struct FetchForgottenTopic {
        topic: String [7..=12],
        topic_id: Uuid [13..],
        partitions: Vec<i32> [7..],
    }
    /// Response of Fetch (key 1).
    struct FetchResponse {
        throttle_time_ms: i32 [1..],
        error_code: i16 [7..],
        session_id: i32 [7..],
        responses: Vec<FetchableTopicResponse> [0..],
        @tags {
            0 node_endpoints: Vec<FetchNodeEndpoint> [16..],
        }
    }
    /// The response topics.
    struct FetchableTopicResponse {
        topic: String [0..=12],
        topic_id: Uuid [13..],
        partitions: Vec<PartitionData> [0..],
    }
    /// The topic partitions.
    struct PartitionData {
        partition_index: i32 [0..],
        error_code: i16 [0..],
        high_watermark: i64 [0..],
        last_stable_offset: i64 [4..] = -1,
        log_start_offset: i64 [5..] = -1,
        aborted_transactions: Option<Vec<AbortedTransaction>> [4..],
        preferred_read_replica: i32 [11..] = -1,
        records: Records [0..],
        @tags {
            0 diverging_epoch: FetchEpochEndOffset [12..],
            1 current_leader: FetchLeaderIdAndEpoch [12..],
            2 snapshot_id: FetchSnapshotId [12..],
        }
    }
    /// In case divergence is detected based on the `LastFetchedEpoch` and `FetchOffset` in …
    struct FetchEpochEndOffset {
        epoch: i32 [12..] = -1,
        end_offset: i64 [12..] = -1,
    }
    /// The current leader of the partition.
    struct FetchLeaderIdAndEpoch {
        leader_id: i32 [12..] = -1,
        leader_epoch: i32 [12..] = -1,
    }
    /// In the case of fetching an offset less than the LogStartOffset, this is the end …
    struct FetchSnapshotId {
        end_offset: i64 [0..] = -1,
        epoch: i32 [0..] = -1,
    }
    /// The aborted transactions.
    struct AbortedTransaction {
        producer_id: i64 [4..],
        first_offset: i64 [4..],
    }
    /// Endpoints for all current-leaders enumerated in PartitionData, with errors …
    struct FetchNodeEndpoint {
        node_id: i32 [16..],
        host: String [16..],
        port: i32 [16..],
        rack: Option<String> [16..],
    }
    /// Request of ListOffsets (key 2).
    struct ListOffsetsRequest {
        replica_id: i32 [0..],
        isolation_level: i8 [2..],
        topics: Vec<ListOffsetsTopic> [0..],
        timeout_ms: i32 [10..],
    }
    /// Each topic in the request.
    struct ListOffsetsTopic {
        name: String [0..],
        partitions: Vec<ListOffsetsPartition> [0..],
    }
    /// Each partition in the request.
    struct ListOffsetsPartition {
        partition_index: i32 [0..],
        current_leader_epoch: i32 [4..] = -1,
        timestamp: i64 [0..],
    }
    /// Response of ListOffsets (key 2).
    struct ListOffsetsResponse {
        throttle_time_ms: i32 [2..],
        topics: Vec<ListOffsetsTopicResponse> [0..],
    }
    /// Each topic in the response.
    struct ListOffsetsTopicResponse {
        name: String [0..],
        partitions: Vec<ListOffsetsPartitionResponse> [0..],
    }
    /// Each partition in the response.
    struct ListOffsetsPartitionResponse {
        partition_index: i32 [0..],
        error_code: i16 [0..],
        timestamp: i64 [1..] = -1,
        offset: i64 [1..] = -1,
        leader_epoch: i32 [4..] = -1,
    }
    /// Request of OffsetForLeaderEpoch (key 23).
    struct OffsetForLeaderEpochRequest {
        replica_id: i32 [3..] = -2,
        topics: Vec<OffsetForLeaderTopic> [0..],
    }
    /// Each topic to get offsets for.
    struct OffsetForLeaderTopic {
        topic: String [0..],
        partitions: Vec<OffsetForLeaderPartition> [0..],
    }
    /// Each partition to get offsets for.
    struct OffsetForLeaderPartition {
        partition: i32 [0..],
        current_leader_epoch: i32 [2..] = -1,
        leader_epoch: i32 [0..],
    }
    /// Response of OffsetForLeaderEpoch (key 23).
    struct OffsetForLeaderEpochResponse {
        throttle_time_ms: i32 [2..],
        topics: Vec<OffsetForLeaderTopicResult> [0..],
    }
    /// Each topic we fetched offsets for.
    struct OffsetForLeaderTopicResult {
        topic: String [0..],
        partitions: Vec<OffsetForLeaderEpochEpochEndOffset> [0..],
    }
    /// Each partition in the topic we fetched offsets for.
    struct OffsetForLeaderEpochEpochEndOffset {
        error_code: i16 [0..],
        partition: i32 [0..],
        leader_epoch: i32 [1..] = -1,
        end_offset: i64 [0..] = -1,
    }
    /// Request of DeleteRecords (key 21).
    struct DeleteRecordsRequest {
        topics: Vec<DeleteRecordsTopic> [0..],
        timeout_ms: i32 [0..],
    }
    /// Each topic that we want to delete records from.
    struct DeleteRecordsTopic {
        name: String [0..],
        partitions: Vec<DeleteRecordsPartition> [0..],
    }
    /// Each partition that we want to delete records from.
    struct DeleteRecordsPartition {
        partition_index: i32 [0..],
        offset: i64 [0..],
    }
    /// Response of DeleteRecords (key 21).
    struct DeleteRecordsResponse {
        throttle_time_ms: i32 [0..],
        topics: Vec<DeleteRecordsTopicResult> [0..],
    }
    /// Each topic that we wanted to delete records from.
    struct DeleteRecordsTopicResult {
        name: String [0..],
        partitions: Vec<DeleteRecordsPartitionResult> [0..],
    }
    /// Each partition that we wanted to delete records from.
    struct DeleteRecordsPartitionResult {
        partition_index: i32 [0..],
        low_watermark: i64 [0..],
        error_code: i16 [0..],
    }
}

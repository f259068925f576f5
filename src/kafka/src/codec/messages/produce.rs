//! Messages: Produce, InitProducerId.

use crate::codec::wire::Records;

messages! {
    /// Request of Produce (key 0).
    struct ProduceRequest {
        transactional_id: Option<String> [3..],
        acks: i16 [0..],
        timeout_ms: i32 [0..],
        topic_data: Vec<TopicProduceData> [0..],
    }
    /// Each topic to produce to.
    struct TopicProduceData {
        name: String [0..],
        partition_data: Vec<PartitionProduceData> [0..],
    }
    /// Each partition to produce to.
    struct PartitionProduceData {
        index: i32 [0..],
        records: Records [0..],
    }
    /// Response of Produce (key 0).
    struct ProduceResponse {
        responses: Vec<TopicProduceResponse> [0..],
        throttle_time_ms: i32 [1..],
        @tags {
            0 node_endpoints: Vec<ProduceNodeEndpoint> [10..],
        }
    }
    /// Each produce response.
    struct TopicProduceResponse {
        name: String [0..],
        partition_responses: Vec<PartitionProduceResponse> [0..],
    }
    /// Each partition that we produced to within the topic.
    struct PartitionProduceResponse {
        index: i32 [0..],
        error_code: i16 [0..],
        base_offset: i64 [0..],
        log_append_time_ms: i64 [2..] = -1,
        log_start_offset: i64 [5..] = -1,
        record_errors: Vec<BatchIndexAndErrorMessage> [8..],
        error_message: Option<String> [8..],
        @tags {
            0 current_leader: ProduceLeaderIdAndEpoch [10..],
        }
    }
    /// The batch indices of records that caused the batch to be dropped.
    struct BatchIndexAndErrorMessage {
        batch_index: i32 [8..],
        batch_index_error_message: Option<String> [8..],
    }
    /// The leader broker that the producer should use for future requests.
    struct ProduceLeaderIdAndEpoch {
        leader_id: i32 [10..] = -1,
        leader_epoch: i32 [10..] = -1,
    }
    /// Endpoints for all current-leaders enumerated in PartitionProduceResponses, with …
    struct ProduceNodeEndpoint {
        node_id: i32 [10..],
        host: String [10..],
        port: i32 [10..],
        rack: Option<String> [10..],
    }
    /// Request of InitProducerId (key 22).
    struct InitProducerIdRequest {
        transactional_id: Option<String> [0..],
        transaction_timeout_ms: i32 [0..],
        producer_id: i64 [3..] = -1,
        producer_epoch: i16 [3..] = -1,
    }
    /// Response of InitProducerId (key 22).
    struct InitProducerIdResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
        producer_id: i64 [0..] = -1,
        producer_epoch: i16 [0..],
    }
}

//! Messages: AddPartitionsToTxn, AddOffsetsToTxn, EndTxn, WriteTxnMarkers, TxnOffsetCommit,
//! DescribeProducers, DescribeTransactions, ListTransactions.

messages! {
    /// Request of AddPartitionsToTxn (key 24).
    struct AddPartitionsToTxnRequest {
        transactions: Vec<AddPartitionsToTxnTransaction> [4..],
        v3_and_below_transactional_id: String [0..=3],
        v3_and_below_producer_id: i64 [0..=3],
        v3_and_below_producer_epoch: i16 [0..=3],
        v3_and_below_topics: Vec<AddPartitionsToTxnTopic> [0..=3],
    }
    /// List of transactions to add partitions to.
    struct AddPartitionsToTxnTransaction {
        transactional_id: String [4..],
        producer_id: i64 [4..],
        producer_epoch: i16 [4..],
        verify_only: bool [4..],
        topics: Vec<AddPartitionsToTxnTopic> [4..],
    }
    /// The partitions to add to the transaction.
    struct AddPartitionsToTxnTopic {
        name: String [0..],
        partitions: Vec<i32> [0..],
    }
    /// Response of AddPartitionsToTxn (key 24).
    struct AddPartitionsToTxnResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [4..],
        results_by_transaction: Vec<AddPartitionsToTxnResult> [4..],
        results_by_topic_v3_and_below: Vec<AddPartitionsToTxnTopicResult> [0..=3],
    }
    /// Results categorized by transactional ID.
    struct AddPartitionsToTxnResult {
        transactional_id: String [4..],
        topic_results: Vec<AddPartitionsToTxnTopicResult> [4..],
    }
    /// The results for each topic.
    struct AddPartitionsToTxnTopicResult {
        name: String [0..],
        results_by_partition: Vec<AddPartitionsToTxnPartitionResult> [0..],
    }
    /// The results for each partition.
    struct AddPartitionsToTxnPartitionResult {
        partition_index: i32 [0..],
        partition_error_code: i16 [0..],
    }
    /// Request of AddOffsetsToTxn (key 25).
    struct AddOffsetsToTxnRequest {
        transactional_id: String [0..],
        producer_id: i64 [0..],
        producer_epoch: i16 [0..],
        group_id: String [0..],
    }
    /// Response of AddOffsetsToTxn (key 25).
    struct AddOffsetsToTxnResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
    }
    /// Request of EndTxn (key 26).
    struct EndTxnRequest {
        transactional_id: String [0..],
        producer_id: i64 [0..],
        producer_epoch: i16 [0..],
        committed: bool [0..],
    }
    /// Response of EndTxn (key 26).
    struct EndTxnResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
        producer_id: i64 [5..] = -1,
        producer_epoch: i16 [5..] = -1,
    }
    /// Request of WriteTxnMarkers (key 27).
    struct WriteTxnMarkersRequest {
        markers: Vec<WritableTxnMarker> [0..],
    }
    /// The transaction markers to be written.
    struct WritableTxnMarker {
        producer_id: i64 [0..],
        producer_epoch: i16 [0..],
        transaction_result: bool [0..],
        topics: Vec<WritableTxnMarkerTopic> [0..],
        coordinator_epoch: i32 [0..],
    }
    /// Each topic that we want to write transaction marker(s) for.
    struct WritableTxnMarkerTopic {
        name: String [0..],
        partition_indexes: Vec<i32> [0..],
    }
    /// Response of WriteTxnMarkers (key 27).
    struct WriteTxnMarkersResponse {
        markers: Vec<WritableTxnMarkerResult> [0..],
    }
    /// The results for writing makers.
    struct WritableTxnMarkerResult {
        producer_id: i64 [0..],
        topics: Vec<WritableTxnMarkerTopicResult> [0..],
    }
    /// The results by topic.
    struct WritableTxnMarkerTopicResult {
        name: String [0..],
        partitions: Vec<WritableTxnMarkerPartitionResult> [0..],
    }
    /// The results by partition.
    struct WritableTxnMarkerPartitionResult {
        partition_index: i32 [0..],
        error_code: i16 [0..],
    }
    /// Request of TxnOffsetCommit (key 28).
    struct TxnOffsetCommitRequest {
        transactional_id: String [0..],
        group_id: String [0..],
        producer_id: i64 [0..],
        producer_epoch: i16 [0..],
        generation_id: i32 [3..] = -1,
        member_id: String [3..],
        group_instance_id: Option<String> [3..],
        topics: Vec<TxnOffsetCommitRequestTopic> [0..],
    }
    /// Each topic that we want to commit offsets for.
    struct TxnOffsetCommitRequestTopic {
        name: String [0..],
        partitions: Vec<TxnOffsetCommitRequestPartition> [0..],
    }
    /// The partitions inside the topic that we want to commit offsets for.
    struct TxnOffsetCommitRequestPartition {
        partition_index: i32 [0..],
        committed_offset: i64 [0..],
        committed_leader_epoch: i32 [2..] = -1,
        committed_metadata: Option<String> [0..],
    }
    /// Response of TxnOffsetCommit (key 28).
    struct TxnOffsetCommitResponse {
        throttle_time_ms: i32 [0..],
        topics: Vec<TxnOffsetCommitResponseTopic> [0..],
    }
    /// The responses for each topic.
    struct TxnOffsetCommitResponseTopic {
        name: String [0..],
        partitions: Vec<TxnOffsetCommitResponsePartition> [0..],
    }
    /// The responses for each partition in the topic.
    struct TxnOffsetCommitResponsePartition {
        partition_index: i32 [0..],
        error_code: i16 [0..],
    }
    /// Request of DescribeProducers (key 61).
    struct DescribeProducersRequest {
        topics: Vec<DescribeProducersTopicRequest> [0..],
    }
    /// The topics to list producers for.
    struct DescribeProducersTopicRequest {
        name: String [0..],
        partition_indexes: Vec<i32> [0..],
    }
    /// Response of DescribeProducers (key 61).
    struct DescribeProducersResponse {
        throttle_time_ms: i32 [0..],
        topics: Vec<DescribeProducersTopicResponse> [0..],
    }
    /// Each topic in the response.
    struct DescribeProducersTopicResponse {
        name: String [0..],
        partitions: Vec<DescribeProducersPartitionResponse> [0..],
    }
    /// Each partition in the response.
    struct DescribeProducersPartitionResponse {
        partition_index: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<String> [0..],
        active_producers: Vec<ProducerState> [0..],
    }
    /// The active producers for the partition.
    struct ProducerState {
        producer_id: i64 [0..],
        producer_epoch: i32 [0..],
        last_sequence: i32 [0..] = -1,
        last_timestamp: i64 [0..] = -1,
        coordinator_epoch: i32 [0..],
        current_txn_start_offset: i64 [0..] = -1,
    }
    /// Request of DescribeTransactions (key 65).
    struct DescribeTransactionsRequest {
        transactional_ids: Vec<String> [0..],
    }
    /// Response of DescribeTransactions (key 65).
    struct DescribeTransactionsResponse {
        throttle_time_ms: i32 [0..],
        transaction_states: Vec<DescribedTransactionState> [0..],
    }
    /// The current state of the transaction.
    struct DescribedTransactionState {
        error_code: i16 [0..],
        transactional_id: String [0..],
        transaction_state: String [0..],
        transaction_timeout_ms: i32 [0..],
        transaction_start_time_ms: i64 [0..],
        producer_id: i64 [0..],
        producer_epoch: i16 [0..],
        topics: Vec<DescribedTransactionTopic> [0..],
    }
    /// The set of partitions included in the current transaction (if active).
    struct DescribedTransactionTopic {
        topic: String [0..],
        partitions: Vec<i32> [0..],
    }
    /// Request of ListTransactions (key 66).
    struct ListTransactionsRequest {
        state_filters: Vec<String> [0..],
        producer_id_filters: Vec<i64> [0..],
        duration_filter: i64 [1..] = -1,
    }
    /// Response of ListTransactions (key 66).
    struct ListTransactionsResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
        unknown_state_filters: Vec<String> [0..],
        transaction_states: Vec<ListedTransactionState> [0..],
    }
    /// The current state of the transaction for the transactional id.
    struct ListedTransactionState {
        transactional_id: String [0..],
        producer_id: i64 [0..],
        transaction_state: String [0..],
    }
}

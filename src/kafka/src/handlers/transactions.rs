//! Transactions: producers' requests to their coordinator, and what administrators ask.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use log::limits::MAX_TXN_PARTITIONS;
use log::transactions::{Outcome, ProducerEpoch, TxnState, TxnVersion};
use log::{LogError, TopicRef, TxnDescription};

use super::may_exist;
use crate::codec::messages::*;
use crate::errors::{self, Code};
use crate::gateway::Shared;
use crate::limits::MAX_LISTED_TRANSACTIONS;

/// Errors of the transactional id's data group are errors of its coordinator. Before a version
/// of each API, clients do not know PRODUCER_FENCED.
pub(super) fn coordinator_code(error: &LogError, knows_fenced: bool) -> Code {
    match error {
        LogError::NotLeader { .. } => errors::NOT_COORDINATOR,
        LogError::Timeout | LogError::Storage(_) => errors::COORDINATOR_NOT_AVAILABLE,
        LogError::ProducerFenced if !knows_fenced => errors::INVALID_PRODUCER_EPOCH,
        other => other.code(),
    }
}

fn result_code<T>(result: &Result<T, LogError>, knows_fenced: bool) -> Code {
    result.as_ref().err().map_or(errors::NONE, |error| coordinator_code(error, knows_fenced))
}

/// Hands out a producer id, or the next epoch of a transactional one.
pub(crate) async fn init_producer_id(
    shared: &Arc<Shared>,
    request: InitProducerIdRequest,
    version: i16,
) -> InitProducerIdResponse {
    let log = &shared.backend.log;
    let producer = (request.producer_id, request.producer_epoch);
    let expected = match producer {
        (-1, -1) => Ok(None),
        (-1, _) | (_, -1) => Err(LogError::InvalidRequest("half a producer".to_owned())),
        (producer_id, epoch) => Ok(Some(ProducerEpoch { producer_id, epoch })),
    };
    let transactional = request.transactional_id.is_some();
    let result = match (expected, request.transactional_id) {
        (Err(error), _) => Err(error),
        (Ok(_), None) => {
            let id = log.init_producer_id().await;
            id.map(|producer_id| ProducerEpoch { producer_id, epoch: 0 })
        }
        (Ok(expected), Some(id)) => {
            log.init_transactional(&id, request.transaction_timeout_ms, expected).await
        }
    };
    match result {
        Ok(ProducerEpoch { producer_id, epoch }) => {
            InitProducerIdResponse { producer_id, producer_epoch: epoch, ..Default::default() }
        }
        // There is no coordinator to look for. As Kafka's ProducerIdManager answers while it has
        // no ids, because older clients take a time-out for final.
        Err(LogError::Timeout | LogError::Storage(_)) if !transactional => InitProducerIdResponse {
            error_code: errors::COORDINATOR_LOAD_IN_PROGRESS,
            producer_epoch: -1,
            ..Default::default()
        },
        Err(error) => InitProducerIdResponse {
            error_code: coordinator_code(&error, version >= 4),
            producer_epoch: -1,
            ..Default::default()
        },
    }
}

fn named(topics: &[AddPartitionsToTxnTopic]) -> Vec<(String, i32)> {
    let parts = |topic: &AddPartitionsToTxnTopic| {
        let name = topic.name.clone();
        topic.partitions.iter().map(move |part| (name.clone(), *part)).collect::<Vec<_>>()
    };
    topics.iter().flat_map(parts).collect()
}

/// One code for each partition, in order.
fn results(
    topics: Vec<AddPartitionsToTxnTopic>,
    codes: impl IntoIterator<Item = Code>,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let mut codes = codes.into_iter();
    let topic = |topic: AddPartitionsToTxnTopic| {
        let part = |partition_index| AddPartitionsToTxnPartitionResult {
            partition_index,
            partition_error_code: codes.next().unwrap_or(errors::UNKNOWN_SERVER_ERROR),
        };
        let results_by_partition = topic.partitions.into_iter().map(part).collect();
        AddPartitionsToTxnTopicResult { name: topic.name, results_by_partition }
    };
    topics.into_iter().map(topic).collect()
}

/// Adds partitions to transactions, or checks that they were added.
pub(crate) async fn add_partitions(
    shared: &Arc<Shared>,
    request: AddPartitionsToTxnRequest,
    version: i16,
) -> AddPartitionsToTxnResponse {
    if version < 4 {
        let transaction = AddPartitionsToTxnTransaction {
            transactional_id: request.v3_and_below_transactional_id,
            producer_id: request.v3_and_below_producer_id,
            producer_epoch: request.v3_and_below_producer_epoch,
            verify_only: false,
            topics: request.v3_and_below_topics,
        };
        let result = add_to_one(shared, transaction, version).await;
        let results_by_topic_v3_and_below = result.topic_results;
        return AddPartitionsToTxnResponse { results_by_topic_v3_and_below, ..Default::default() };
    }
    let mut results_by_transaction = Vec::with_capacity(request.transactions.len());
    for transaction in request.transactions {
        results_by_transaction.push(add_to_one(shared, transaction, version).await);
    }
    AddPartitionsToTxnResponse { results_by_transaction, ..Default::default() }
}

async fn add_to_one(
    shared: &Arc<Shared>,
    transaction: AddPartitionsToTxnTransaction,
    version: i16,
) -> AddPartitionsToTxnResult {
    let log = &shared.backend.log;
    let AddPartitionsToTxnTransaction { transactional_id: id, producer_id, .. } = transaction;
    let producer = ProducerEpoch { producer_id, epoch: transaction.producer_epoch };
    let count: usize = transaction.topics.iter().map(|topic| topic.partitions.len()).sum();
    let refused = if count > MAX_TXN_PARTITIONS {
        Some(errors::INVALID_REQUEST)
    } else if !transaction.topics.iter().all(|topic| may_exist(&topic.name)) {
        Some(errors::UNKNOWN_TOPIC_OR_PARTITION)
    } else {
        None
    };
    if let Some(code) = refused {
        let topic_results = results(transaction.topics, std::iter::repeat(code));
        return AddPartitionsToTxnResult { transactional_id: id, topic_results };
    }
    let parts = named(&transaction.topics);
    let exists = |(topic, partition): &(String, i32)| {
        log.topic(topic).is_some_and(|topic| topic.group_of(*partition).is_some())
    };
    let codes = if !parts.iter().all(exists) {
        // One partition that is not there keeps the others out, too.
        let code = |part| {
            if exists(part) {
                errors::OPERATION_NOT_ATTEMPTED
            } else {
                errors::UNKNOWN_TOPIC_OR_PARTITION
            }
        };
        parts.iter().map(code).collect()
    } else if transaction.verify_only {
        match log.verify_partitions(&id, producer, &parts).await {
            Ok(each) => each.iter().map(|result| result_code(result, true)).collect(),
            Err(error) => vec![coordinator_code(&error, true); parts.len()],
        }
    } else {
        let added = log.add_partitions(&id, producer, &parts).await;
        vec![result_code(&added, version >= 2); parts.len()]
    };
    let topic_results = results(transaction.topics, codes);
    AddPartitionsToTxnResult { transactional_id: id, topic_results }
}

/// Adds a consumer group's offsets to a transaction.
pub(crate) async fn add_offsets(
    shared: &Arc<Shared>,
    request: AddOffsetsToTxnRequest,
    version: i16,
) -> AddOffsetsToTxnResponse {
    let AddOffsetsToTxnRequest { transactional_id: id, producer_id, .. } = request;
    let producer = ProducerEpoch { producer_id, epoch: request.producer_epoch };
    let added = shared.backend.log.add_offsets(&id, producer, &request.group_id).await;
    AddOffsetsToTxnResponse { error_code: result_code(&added, version >= 2), ..Default::default() }
}

/// Commits or aborts.
pub(crate) async fn end(
    shared: &Arc<Shared>,
    request: EndTxnRequest,
    version: i16,
) -> EndTxnResponse {
    let EndTxnRequest { transactional_id: id, producer_id, .. } = request;
    let producer = ProducerEpoch { producer_id, epoch: request.producer_epoch };
    let outcome = Outcome::of(request.committed);
    let speaks = if version >= 5 { TxnVersion::V2 } else { TxnVersion::V1 };
    match shared.backend.log.end_transaction(&id, producer, outcome, speaks).await {
        Ok(ProducerEpoch { producer_id, epoch }) => {
            EndTxnResponse { producer_id, producer_epoch: epoch, ..Default::default() }
        }
        Err(error) => {
            let error_code = coordinator_code(&error, version >= 2);
            EndTxnResponse { error_code, ..Default::default() }
        }
    }
}

/// Ends transactions that hang, as an administrator asks.
pub(crate) async fn write_markers(
    shared: &Arc<Shared>,
    request: WriteTxnMarkersRequest,
) -> WriteTxnMarkersResponse {
    let mut markers = Vec::with_capacity(request.markers.len());
    for marker in request.markers {
        let WritableTxnMarker { producer_id, producer_epoch: epoch, .. } = marker;
        let producer = ProducerEpoch { producer_id, epoch };
        let outcome = Outcome::of(marker.transaction_result);
        let mut topics = Vec::with_capacity(marker.topics.len());
        for WritableTxnMarkerTopic { name, partition_indexes } in marker.topics {
            let mut partitions = Vec::with_capacity(partition_indexes.len());
            for partition_index in partition_indexes {
                let (topic, term) = (TopicRef::Name(&name), marker.coordinator_epoch);
                let log = &shared.backend.log;
                let written =
                    log.write_marker(topic, partition_index, producer, outcome, term).await;
                let error_code = written.err().map_or(errors::NONE, |error| error.code());
                partitions.push(WritableTxnMarkerPartitionResult { partition_index, error_code });
            }
            topics.push(WritableTxnMarkerTopicResult { name, partitions });
        }
        markers.push(WritableTxnMarkerResult { producer_id, topics });
    }
    WriteTxnMarkersResponse { markers }
}

/// Names the producers of partitions.
pub(crate) fn describe_producers(
    shared: &Arc<Shared>,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let part = |name: &str, partition_index| {
        let found = shared.backend.log.describe_producers(TopicRef::Name(name), partition_index);
        let mut answer =
            DescribeProducersPartitionResponse { partition_index, ..Default::default() };
        match found {
            Ok(producers) => {
                let one = |p: log::ActiveProducer| ProducerState {
                    producer_id: p.producer_id,
                    producer_epoch: i32::from(p.epoch),
                    last_sequence: p.last_sequence,
                    last_timestamp: p.last_time_ms,
                    coordinator_epoch: p.coordinator_epoch,
                    current_txn_start_offset: p.txn_start_offset,
                };
                answer.active_producers = producers.into_iter().map(one).collect();
            }
            Err(error) => {
                answer.error_code = error.code();
                answer.error_message = Some(error.to_string());
            }
        }
        answer
    };
    // An answer may be large: what is asked for twice is answered once.
    let mut seen: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
    let topic = |topic: DescribeProducersTopicRequest| {
        let name = topic.name;
        let seen = seen.entry(name.clone()).or_default();
        let new = topic.partition_indexes.into_iter().filter(|index| seen.insert(*index));
        let partitions = new.map(|index| part(&name, index)).collect();
        DescribeProducersTopicResponse { name, partitions }
    };
    let topics = request.topics.into_iter().map(topic).collect();
    DescribeProducersResponse { topics, ..Default::default() }
}

/// Tells of transactional ids.
pub(crate) async fn describe(
    shared: &Arc<Shared>,
    request: DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    let (mut transaction_states, mut seen) = (Vec::new(), BTreeSet::new());
    for id in request.transactional_ids {
        // An answer may be large: what is asked for twice is answered once.
        if !seen.insert(id.clone()) {
            continue;
        }
        let state = match shared.backend.log.describe_transaction(&id).await {
            Ok(txn) => described(txn),
            Err(error) => DescribedTransactionState {
                error_code: coordinator_code(&error, true),
                transactional_id: id,
                ..Default::default()
            },
        };
        transaction_states.push(state);
    }
    DescribeTransactionsResponse { transaction_states, ..Default::default() }
}

fn described(txn: TxnDescription) -> DescribedTransactionState {
    let mut topics: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in txn.parts {
        topics.entry(topic).or_default().push(partition);
    }
    let topic = |(topic, partitions)| DescribedTransactionTopic { topic, partitions };
    DescribedTransactionState {
        error_code: errors::NONE,
        transactional_id: txn.id,
        transaction_state: txn.state.name().to_owned(),
        transaction_timeout_ms: txn.timeout_ms,
        transaction_start_time_ms: txn.start_ms,
        producer_id: txn.producer.producer_id,
        producer_epoch: txn.producer.epoch,
        topics: topics.into_iter().map(topic).collect(),
    }
}

/// Lists the transactional ids that this node coordinates.
pub(crate) fn list(
    shared: &Arc<Shared>,
    request: &ListTransactionsRequest,
    now_ms: i64,
) -> ListTransactionsResponse {
    let all = match shared.backend.log.list_transactions(MAX_LISTED_TRANSACTIONS) {
        Ok(all) => all,
        Err(error) => {
            let error_code = coordinator_code(&error, true);
            return ListTransactionsResponse { error_code, ..Default::default() };
        }
    };
    let is_state = |name: &String| TxnState::ALL.iter().any(|state| state.name() == name);
    let unknown = request.state_filters.iter().filter(|name| !is_state(name));
    let states: HashSet<&str> = request.state_filters.iter().map(String::as_str).collect();
    let ids: HashSet<i64> = request.producer_id_filters.iter().copied().collect();
    let wanted = |txn: &TxnDescription| {
        let longer = request.duration_filter < 0
            || now_ms.saturating_sub(txn.start_ms) > request.duration_filter;
        (states.is_empty() || states.contains(txn.state.name()))
            && (ids.is_empty() || ids.contains(&txn.producer.producer_id))
            && longer
    };
    let state = |txn: TxnDescription| ListedTransactionState {
        transactional_id: txn.id,
        producer_id: txn.producer.producer_id,
        transaction_state: txn.state.name().to_owned(),
    };
    ListTransactionsResponse {
        unknown_state_filters: unknown.cloned().collect(),
        transaction_states: all.into_iter().filter(wanted).map(state).collect(),
        ..Default::default()
    }
}

//! Produce.

use std::sync::Arc;
use std::time::Duration;

use base::broken::{self, Broken};
use bytes::Bytes;
use futures::{StreamExt, stream};
use log::batch::BatchHeader;
use log::transactions::TxnVersion;
use log::{Acks, LogError, TopicRef};
use tokio::time::Instant;

use crate::codec::messages::{
    BatchIndexAndErrorMessage, PartitionProduceData, PartitionProduceResponse,
    ProduceLeaderIdAndEpoch, ProduceNodeEndpoint, ProduceRequest, ProduceResponse,
    TopicProduceResponse,
};
use crate::errors;
use crate::gateway::Shared;
use crate::metrics::Traffic;

/// Topics, and partitions of each, that a request appends to at once; more take turns.
pub(crate) const AT_ONCE: usize = 256;

/// Appends; `None` when the client wants no answer and there is no error to tell of.
pub(crate) async fn produce(
    shared: &Arc<Shared>,
    request: ProduceRequest,
    version: i16,
) -> Option<ProduceResponse> {
    let (acks, timeout_ms) = (request.acks, request.timeout_ms);
    let id = request.transactional_id.as_deref();
    let batches = request.topic_data.iter().flat_map(|topic| &topic.partition_data);
    let refusal = if !(-1..=1).contains(&acks) {
        Some((errors::INVALID_REQUIRED_ACKS, "acks must be -1, 0 or 1"))
    } else if id.is_none() && batches.flat_map(|part| &part.records.0).any(is_transactional) {
        // Kafka asks for the right to an id that is not there.
        let code = errors::TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
        Some((code, errors::message(code)))
    } else {
        None
    };
    let topics = request.topic_data.into_iter().map(|topic| async move {
        let name = topic.name;
        let parts = topic.partition_data.into_iter().map(|part| {
            let name = name.as_str();
            async move {
                match refusal {
                    Some((code, text)) => failed(part.index, code, text.to_owned()),
                    None => append(shared, name, part, (acks, timeout_ms), (id, version)).await,
                }
            }
        });
        let partition_responses = stream::iter(parts).buffered(AT_ONCE).collect().await;
        TopicProduceResponse { name, partition_responses }
    });
    let responses: Vec<TopicProduceResponse> =
        stream::iter(topics).buffered(AT_ONCE).collect().await;
    let mut parts = responses.iter().flat_map(|t| &t.partition_responses);
    if acks == 0 && parts.all(|p| p.error_code == errors::NONE) {
        return None;
    }
    let parts = responses.iter().flat_map(|t| &t.partition_responses);
    let moved = parts.filter(|p| p.error_code == errors::NOT_LEADER_OR_FOLLOWER);
    let mut leaders: Vec<i32> = moved.map(|p| p.current_leader.leader_id).collect();
    leaders.sort_unstable();
    let brokers = if leaders.is_empty() { Vec::new() } else { shared.brokers() };
    let known = brokers.into_iter().filter(|(n, ..)| leaders.contains(&i32::from(n.0)));
    let endpoint = |(node, host, port): (base::NodeId, String, u16)| ProduceNodeEndpoint {
        node_id: i32::from(node.0),
        host,
        port: i32::from(port),
        rack: None,
    };
    let node_endpoints = known.map(endpoint).collect();
    Some(ProduceResponse { responses, throttle_time_ms: 0, node_endpoints })
}

/// How many records a batch says it has.
fn records_in(batch: &Bytes) -> usize {
    let header = BatchHeader::parse(batch).ok();
    let last = header.and_then(|header| usize::try_from(header.last_offset_delta).ok());
    last.map_or(0, |last| last + 1)
}

fn failed(index: i32, code: errors::Code, text: String) -> PartitionProduceResponse {
    PartitionProduceResponse {
        index,
        error_code: code,
        base_offset: -1,
        error_message: Some(text),
        ..Default::default()
    }
}

/// Produce 12 adds partitions to the transaction by itself (KIP-890).
fn txn_version(version: i16) -> TxnVersion {
    if version >= 12 { TxnVersion::V2 } else { TxnVersion::V1 }
}

/// The coordinator's errors as producers of that version expect them: what may pass becomes an
/// error that every producer repeats, as in Kafka.
fn transaction_error(error: LogError, version: i16) -> LogError {
    match error {
        LogError::ConcurrentTransactions => LogError::NotEnoughReplicas,
        LogError::ProducerFenced => LogError::InvalidProducerEpoch,
        LogError::InvalidTxnState if version >= 11 => LogError::TransactionAbortable,
        other => other,
    }
}

/// How long a leader tries to append what need not be on the other replicas.
const OWN_PATIENCE: Duration = Duration::from_secs(30);

/// Places in a batch.
const MAGIC: usize = 16;
const ATTRIBUTES: usize = 22;

/// Whether a batch says that it is part of a transaction.
fn is_transactional(batch: &Bytes) -> bool {
    batch.get(MAGIC) == Some(&2) && batch.get(ATTRIBUTES).is_some_and(|bits| bits & 0x10 != 0)
}

/// What makes records unfit before the log looks at them, in the order of Kafka's
/// `ProduceRequest.validateRecords`, with code and words.
fn unfit(batch: &[u8], version: i16) -> Option<(errors::Code, String)> {
    const BEFORE_SIZE: usize = 12;
    const ZSTD: u8 = 4;
    let invalid = |what: &str| {
        let text = format!("Produce requests with version {version} {what}");
        Some((errors::INVALID_RECORD, text))
    };
    let size = batch.get(8..BEFORE_SIZE).and_then(|bytes| bytes.try_into().ok());
    let size = size.map(i32::from_be_bytes).and_then(|size| usize::try_from(size).ok());
    let whole = size.map_or(batch.len() <= MAGIC, |size| batch.len() >= BEFORE_SIZE + size);
    let magic = match batch.get(MAGIC) {
        Some(magic) if whole => *magic,
        Some(_) if size.is_none() => return None,
        _ => return invalid("must have at least one record batch per partition"),
    };
    if magic < 2 {
        return invalid("are only allowed to contain record batches with magic version 2");
    }
    let attributes = batch.get(ATTRIBUTES).copied().unwrap_or_default();
    if version < 7 && attributes & 7 == ZSTD {
        let text = "are not allowed to use ZStandard compression";
        let (_, text) = invalid(text)?;
        return Some((errors::UNSUPPORTED_COMPRESSION_TYPE, text));
    }
    if size.is_some_and(|size| batch.len() > BEFORE_SIZE + size) {
        return invalid("are only allowed to contain exactly one record batch per partition");
    }
    None
}

async fn append(
    shared: &Arc<Shared>,
    topic: &str,
    part: PartitionProduceData,
    (acks, timeout_ms): (i16, i32),
    (id, version): (Option<&str>, i16),
) -> PartitionProduceResponse {
    let began = Instant::now();
    let records = part.records.0.into_iter().next().unwrap_or_default();
    let known = shared.backend.log.topic(topic).and_then(|topic| topic.group_of(part.index));
    if let Some((code, text)) = unfit(&records, version).filter(|_| known.is_some()) {
        shared.traffic(topic, Traffic::ProduceFailed);
        return failed(part.index, code, text);
    }
    let (bytes, messages) = (records.len(), records_in(&records));
    let asked = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0).max(1));
    // As in Kafka, the client's limit is for the other replicas: with acks=1 its leader appends or
    // says why not, however short the limit.
    let (acks, patience) =
        if acks == -1 { (Acks::All, asked) } else { (Acks::Leader, asked.max(OWN_PATIENCE)) };
    let topic_ref = TopicRef::Name(topic);
    let log = &shared.backend.log;
    let appending = async {
        match id {
            None => log.produce(topic_ref, part.index, records, acks).await,
            Some(id) => {
                let txn = txn_version(version);
                let done =
                    log.produce_in_transaction(topic_ref, part.index, records, acks, id, txn).await;
                done.map_err(|error| transaction_error(error, version))
            }
        }
    };
    let result = match tokio::time::timeout(patience, appending).await {
        Ok(result) => result,
        Err(_) => {
            log.gave_up(topic_ref, part.index);
            Err(LogError::Timeout)
        }
    };
    if broken::is(Broken::AckUnknown) && result == Err(LogError::Timeout) {
        let place = PartitionProduceResponse { base_offset: -1, ..Default::default() };
        return PartitionProduceResponse { index: part.index, ..place };
    }
    let traffic = match &result {
        Ok(_) => Traffic::Produced { bytes, messages, took: began.elapsed() },
        Err(_) => Traffic::ProduceFailed,
    };
    shared.traffic(topic, traffic);
    match result {
        Ok(done) => PartitionProduceResponse {
            index: part.index,
            base_offset: done.base_offset,
            log_append_time_ms: done.log_append_time_ms,
            log_start_offset: done.log_start_offset,
            ..Default::default()
        },
        Err(error) => {
            let mut answer = failed(part.index, error.code(), error.to_string());
            if let LogError::RejectedRecords { records, .. } = &error {
                let named = |r: &log::RejectedRecord| BatchIndexAndErrorMessage {
                    batch_index: r.index,
                    batch_index_error_message: Some(r.message.clone()),
                };
                answer.record_errors = records.iter().map(named).collect();
            }
            if let LogError::NotLeader { .. } = error
                && let Some((leader_id, leader_epoch)) = shared.told_leader(topic, part.index)
            {
                answer.current_leader = ProduceLeaderIdAndEpoch { leader_id, leader_epoch };
            }
            answer
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header that states `size` bytes behind the size, with magic, attributes and so many bytes
    /// in all.
    fn batch(size: i32, magic: u8, attributes: u8, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len.max(23)];
        bytes[8..12].copy_from_slice(&size.to_be_bytes());
        (bytes[16], bytes[22]) = (magic, attributes);
        bytes.truncate(len);
        bytes
    }

    #[test]
    fn unfit_records_have_kafkas_codes() {
        let code = |batch: &[u8], version| unfit(batch, version).map(|(code, _)| code);
        let sound = batch(88, 2, 0, 100);
        assert_eq!(code(&sound, 3), None);
        for (what, batch) in [
            ("nothing", vec![]),
            ("a beginning", batch(88, 2, 0, 16)),
            ("cut short", batch(88, 2, 0, 99)),
            ("the old format", batch(88, 1, 0, 100)),
            ("two", [sound.clone(), sound.clone()].concat()),
        ] {
            assert_eq!(code(&batch, 9), Some(errors::INVALID_RECORD), "{what}");
        }
        // What it is else is the log's to say.
        assert_eq!(code(&batch(-1, 2, 0, 100), 9), None);
        let zstd = batch(88, 2, 4, 100);
        assert_eq!(code(&zstd, 6), Some(errors::UNSUPPORTED_COMPRESSION_TYPE));
        assert_eq!(code(&zstd, 7), None);
        assert!(is_transactional(&batch(88, 2, 0x10, 100).into()));
        assert!(!is_transactional(&batch(88, 1, 0x10, 100).into()));
    }
}

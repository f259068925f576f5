//! TxnOffsetCommit: offsets of a consumer group that count once a transaction commits.

use std::sync::Arc;

use log::groups::{CommitCheck, CommitVia};
use log::limits::MAX_OFFSETS_PER_COMMIT;
use log::transactions::{ProducerEpoch, TxnVersion};
use log::{LogError, OffsetToCommit};

use super::may_exist;
use super::transactions::coordinator_code;
use crate::codec::messages::*;
use crate::errors::{self, Code};
use crate::gateway::Shared;

/// Commits offsets inside a transaction.
pub(crate) async fn commit(
    shared: &Arc<Shared>,
    request: TxnOffsetCommitRequest,
    version: i16,
) -> TxnOffsetCommitResponse {
    let count = request.topics.iter().map(|topic| topic.partitions.len()).sum::<usize>();
    let each = match count > MAX_OFFSETS_PER_COMMIT {
        true => Err(errors::INVALID_REQUEST),
        false => codes(shared, &request, version).await,
    };
    // Either one code for each partition that may be, or one for all.
    let (mut each, all) = match each {
        Ok(each) => (each.into_iter(), errors::UNKNOWN_TOPIC_OR_PARTITION),
        Err(code) => (Vec::new().into_iter(), code),
    };
    let topics = request.topics.into_iter().map(|topic| {
        let known = may_exist(&topic.name);
        let part = |part: TxnOffsetCommitRequestPartition| TxnOffsetCommitResponsePartition {
            partition_index: part.partition_index,
            error_code: if known { each.next().unwrap_or(all) } else { all },
        };
        let partitions = topic.partitions.into_iter().map(part).collect();
        TxnOffsetCommitResponseTopic { name: topic.name, partitions }
    });
    TxnOffsetCommitResponse { throttle_time_ms: 0, topics: topics.collect() }
}

async fn codes(
    shared: &Arc<Shared>,
    request: &TxnOffsetCommitRequest,
    version: i16,
) -> Result<Vec<Code>, Code> {
    let check = CommitCheck {
        group: request.group_id.clone(),
        via: CommitVia::Transaction,
        generation: request.generation_id,
        member: request.member_id.clone(),
        instance: request.group_instance_id.clone().filter(|name| !name.is_empty()),
    };
    let groups = &shared.backend.consumer_groups;
    if let Err(error) = groups.check_transactional_commit(&check) {
        return Err(errors::group_code(error));
    }
    let possible = request.topics.iter().filter(|topic| may_exist(&topic.name));
    let offsets = possible.flat_map(|topic| {
        topic.partitions.iter().map(|part| OffsetToCommit {
            topic: topic.name.clone(),
            partition: part.partition_index,
            offset: part.committed_offset,
            leader_epoch: part.committed_leader_epoch,
            metadata: part.committed_metadata.clone().unwrap_or_default(),
        })
    });
    let offsets: Vec<OffsetToCommit> = offsets.collect();
    let (id, group) = (&request.transactional_id, &request.group_id);
    let producer =
        ProducerEpoch { producer_id: request.producer_id, epoch: request.producer_epoch };
    let speaks = if version >= 5 { TxnVersion::V2 } else { TxnVersion::V1 };
    let log = &shared.backend.log;
    let transaction = match log.transaction_of_group(id, producer, group, speaks).await {
        Ok(transaction) => transaction,
        Err(error) => return Err(code(&error, version)),
    };
    // That took its time, in which the group may have given the member's partitions to another.
    if let Err(error) = groups.check_transactional_commit(&check) {
        return Err(errors::group_code(error));
    }
    let each = log.commit_offsets_in_transaction(&transaction, &offsets).await;
    let each = each.map_err(|error| code(&error, version))?;
    Ok(each.into_iter().map(|r| r.err().map_or(errors::NONE, |e| e.code())).collect())
}

fn code(error: &LogError, version: i16) -> Code {
    match error {
        // Producers take this one for what it is in every version.
        LogError::ProducerFenced => errors::INVALID_PRODUCER_EPOCH,
        LogError::InvalidTxnState if version >= 4 => LogError::TransactionAbortable.code(),
        // It passes; every producer repeats after COORDINATOR_LOAD_IN_PROGRESS.
        LogError::ConcurrentTransactions if version < 5 => errors::COORDINATOR_LOAD_IN_PROGRESS,
        other => coordinator_code(other, true),
    }
}

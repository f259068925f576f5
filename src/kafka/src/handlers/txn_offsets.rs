//! TxnOffsetCommit: offsets of a consumer group that count once a transaction commits.

use std::sync::Arc;

use log::groups::{CommitCheck, CommitVia};
use log::transactions::{ProducerEpoch, TxnVersion};
use log::{LogError, OffsetToCommit};

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
    let codes = codes(shared, &request, version).await;
    // One code for all, or one for each.
    let last = codes.last().copied().unwrap_or(errors::NONE);
    let mut next = codes.into_iter();
    let topics = request.topics.into_iter().map(|topic| TxnOffsetCommitResponseTopic {
        name: topic.name,
        partitions: topic
            .partitions
            .into_iter()
            .map(|part| TxnOffsetCommitResponsePartition {
                partition_index: part.partition_index,
                error_code: next.next().unwrap_or(last),
            })
            .collect(),
    });
    TxnOffsetCommitResponse { throttle_time_ms: 0, topics: topics.collect() }
}

async fn codes(shared: &Arc<Shared>, request: &TxnOffsetCommitRequest, version: i16) -> Vec<Code> {
    let check = CommitCheck {
        group: request.group_id.clone(),
        via: CommitVia::Transaction,
        generation: request.generation_id,
        member: request.member_id.clone(),
        instance: request.group_instance_id.clone().filter(|name| !name.is_empty()),
    };
    let groups = &shared.backend.consumer_groups;
    if let Err(error) = groups.check_transactional_commit(&check) {
        return vec![errors::group_code(error)];
    }
    let offsets = request.topics.iter().flat_map(|topic| {
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
        Err(error) => return vec![code(&error, version)],
    };
    // That took its time, in which the group may have given the member's partitions to another.
    if let Err(error) = groups.check_transactional_commit(&check) {
        return vec![errors::group_code(error)];
    }
    match log.commit_offsets_in_transaction(&transaction, &offsets).await {
        Ok(each) => each.into_iter().map(|r| r.err().map_or(errors::NONE, |e| e.code())).collect(),
        Err(error) => vec![code(&error, version)],
    }
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

//! Requests about transactions.

use secure::acl::{Operation, ResourceType};

use super::rules::{Need, rule_of};
use super::{Access, Finish, Verdict, finish, rest, split};
use crate::codec::messages::*;
use crate::codec::{ApiKey, RequestBody, ResponseBody};
use crate::errors;

const TOPIC_DENIED: errors::Code = errors::TOPIC_AUTHORIZATION_FAILED;
const DESCRIBE_TOPIC: Need = (Operation::Describe, ResourceType::Topic);

/// The transactional id that a request is about as a whole.
pub(super) fn id_of(body: &RequestBody) -> Option<&str> {
    Some(match body {
        RequestBody::AddOffsetsToTxn(request) => &request.transactional_id,
        RequestBody::EndTxn(request) => &request.transactional_id,
        RequestBody::TxnOffsetCommit(request) => &request.transactional_id,
        _ => return None,
    })
}

/// Versions up to 3 are clients'; later ones come from brokers (KIP-890) and need to act for the
/// cluster. One topic that may not be written keeps all others out, as they are added together.
pub(super) fn add_partitions(
    access: &Access,
    version: i16,
    body: AddPartitionsToTxnRequest,
) -> Verdict {
    if version >= 4 {
        if access.may((Operation::ClusterAction, ResourceType::Cluster), secure::acl::CLUSTER) {
            return Verdict::Pass(body.into(), None);
        }
        let error_code = errors::CLUSTER_AUTHORIZATION_FAILED;
        let response = AddPartitionsToTxnResponse { error_code, ..Default::default() };
        return Verdict::Refuse(response.into());
    }
    let need = (Operation::Write, ResourceType::TransactionalId);
    let topics = &body.v3_and_below_topics;
    let answer = |code_of: &dyn Fn(&str) -> errors::Code| {
        let results = topics.iter().map(|topic| AddPartitionsToTxnTopicResult {
            name: topic.name.clone(),
            results_by_partition: topic
                .partitions
                .iter()
                .map(|index| AddPartitionsToTxnPartitionResult {
                    partition_index: *index,
                    partition_error_code: code_of(&topic.name),
                })
                .collect(),
        });
        let results_by_topic_v3_and_below = results.collect();
        AddPartitionsToTxnResponse { results_by_topic_v3_and_below, ..Default::default() }
    };
    if !access.may(need, &body.v3_and_below_transactional_id) {
        let code = errors::TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
        return Verdict::Refuse(answer(&|_| code).into());
    }
    let each = rule_of(ApiKey::AddPartitionsToTxn).each;
    let denied = |name: &str| each.is_some_and(|need| !access.may(need, name));
    if topics.iter().any(|topic| denied(&topic.name)) {
        let code = |name: &str| match denied(name) {
            true => TOPIC_DENIED,
            false => errors::OPERATION_NOT_ATTEMPTED,
        };
        return Verdict::Refuse(answer(&code).into());
    }
    Verdict::Pass(body.into(), None)
}

pub(super) fn commit(access: &Access, mut body: TxnOffsetCommitRequest) -> Verdict {
    let each = rule_of(ApiKey::TxnOffsetCommit).each;
    let passes = |t: &TxnOffsetCommitRequestTopic| each.is_none_or(|n| access.may(n, &t.name));
    let denied = split(&mut body.topics, passes);
    if denied.is_empty() {
        return Verdict::Pass(body.into(), None);
    }
    let answers = committed(&denied, TOPIC_DENIED);
    let empty = body.topics.is_empty();
    rest(body.into(), empty, finish!(TxnOffsetCommit, |r| { r.topics.extend(answers) }))
}

/// The answer for each partition of a commit.
pub(super) fn committed(
    topics: &[TxnOffsetCommitRequestTopic],
    error_code: errors::Code,
) -> Vec<TxnOffsetCommitResponseTopic> {
    let answer = |topic: &TxnOffsetCommitRequestTopic| TxnOffsetCommitResponseTopic {
        name: topic.name.clone(),
        partitions: topic
            .partitions
            .iter()
            .map(|part| TxnOffsetCommitResponsePartition {
                partition_index: part.partition_index,
                error_code,
            })
            .collect(),
    };
    topics.iter().map(answer).collect()
}

pub(super) fn describe_producers(access: &Access, mut body: DescribeProducersRequest) -> Verdict {
    let each = rule_of(ApiKey::DescribeProducers).each;
    let passes = |t: &DescribeProducersTopicRequest| each.is_none_or(|n| access.may(n, &t.name));
    let denied = split(&mut body.topics, passes);
    if denied.is_empty() {
        return Verdict::Pass(body.into(), None);
    }
    let answers: Vec<DescribeProducersTopicResponse> = denied
        .into_iter()
        .map(|topic| DescribeProducersTopicResponse {
            partitions: topic
                .partition_indexes
                .iter()
                .map(|index| DescribeProducersPartitionResponse {
                    partition_index: *index,
                    error_code: TOPIC_DENIED,
                    error_message: Some(errors::message(TOPIC_DENIED).to_owned()),
                    ..Default::default()
                })
                .collect(),
            name: topic.name,
        })
        .collect();
    let empty = body.topics.is_empty();
    rest(body.into(), empty, finish!(DescribeProducers, |r| { r.topics.extend(answers) }))
}

/// Of a transaction, only topics are told that the client may describe.
pub(super) fn describe(access: &Access, mut body: DescribeTransactionsRequest) -> Verdict {
    let each = rule_of(ApiKey::DescribeTransactions).each;
    let passes = |id: &String| each.is_none_or(|need| access.may(need, id));
    let denied = split(&mut body.transactional_ids, passes);
    let empty = body.transactional_ids.is_empty() && !denied.is_empty();
    let access = access.clone();
    let finish: Finish = finish!(DescribeTransactions, |r| {
        for state in &mut r.transaction_states {
            state.topics.retain(|topic| access.might(DESCRIBE_TOPIC, &topic.topic));
        }
        r.transaction_states.extend(denied.into_iter().map(|transactional_id| {
            DescribedTransactionState {
                error_code: errors::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
                transactional_id,
                ..Default::default()
            }
        }));
    });
    rest(body.into(), empty, finish)
}

pub(super) fn list(access: &Access, body: ListTransactionsRequest) -> Verdict {
    let access = access.clone();
    let finish: Finish = finish!(ListTransactions, |r| {
        let need = rule_of(ApiKey::ListTransactions).shown;
        r.transaction_states
            .retain(|state| need.is_none_or(|need| access.might(need, &state.transactional_id)));
    });
    Verdict::Pass(body.into(), Some(finish))
}

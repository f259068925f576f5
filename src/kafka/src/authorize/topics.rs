//! Requests about topics.

use std::collections::BTreeSet;

use secure::acl::{Operation, ResourceType};
use uuid::Uuid;

use super::rules::rule_of;
use super::{Access, Finish, Verdict, finish, rest, split};
use crate::codec::messages::*;
use crate::codec::{ApiKey, ResponseBody};
use crate::errors;

const DENIED: errors::Code = errors::TOPIC_AUTHORIZATION_FAILED;

/// Whether the caller has what the API needs for each topic.
fn may(access: &Access, key: ApiKey, name: &str) -> bool {
    rule_of(key).each.is_none_or(|need| access.may(need, name))
}

fn message() -> Option<String> {
    Some(errors::message(DENIED).to_owned())
}

/// Transactional batches also need to write the transactional id: all of the request is refused
/// without it.
pub(super) fn produce(access: &Access, mut body: ProduceRequest) -> Verdict {
    let need = (Operation::Write, ResourceType::TransactionalId);
    let code = match &body.transactional_id {
        Some(id) if !access.may(need, id) => errors::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        _ => DENIED,
    };
    let whole = code != DENIED;
    let passes = |t: &TopicProduceData| !whole && may(access, ApiKey::Produce, &t.name);
    let denied = split(&mut body.topic_data, passes);
    if denied.is_empty() {
        return Verdict::Pass(body.into(), None);
    }
    let answers: Vec<TopicProduceResponse> = denied
        .into_iter()
        .map(|topic| TopicProduceResponse {
            name: topic.name,
            partition_responses: topic
                .partition_data
                .iter()
                .map(|part| PartitionProduceResponse {
                    index: part.index,
                    error_code: code,
                    base_offset: -1,
                    log_append_time_ms: -1,
                    log_start_offset: -1,
                    ..Default::default()
                })
                .collect(),
        })
        .collect();
    let empty = body.topic_data.is_empty();
    let add: Finish = finish!(Produce, |r| { r.responses.extend(answers) });
    rest(body.into(), empty, add)
}

pub(super) fn list_offsets(access: &Access, mut body: ListOffsetsRequest) -> Verdict {
    let denied = split(&mut body.topics, |t| may(access, ApiKey::ListOffsets, &t.name));
    if denied.is_empty() {
        return Verdict::Pass(body.into(), None);
    }
    let answers: Vec<ListOffsetsTopicResponse> = denied
        .into_iter()
        .map(|topic| {
            let parts = topic.partitions.iter().map(|part| ListOffsetsPartitionResponse {
                partition_index: part.partition_index,
                error_code: DENIED,
                ..Default::default()
            });
            ListOffsetsTopicResponse { partitions: parts.collect(), name: topic.name }
        })
        .collect();
    let empty = body.topics.is_empty();
    rest(body.into(), empty, finish!(ListOffsets, |r| { r.topics.extend(answers) }))
}

pub(super) fn for_epoch(access: &Access, mut body: OffsetForLeaderEpochRequest) -> Verdict {
    let key = ApiKey::OffsetForLeaderEpoch;
    if access.might_cluster(Operation::ClusterAction) {
        return Verdict::Pass(body.into(), None);
    }
    let denied = split(&mut body.topics, |t| may(access, key, &t.topic));
    if denied.is_empty() {
        return Verdict::Pass(body.into(), None);
    }
    let answers: Vec<OffsetForLeaderTopicResult> = denied
        .into_iter()
        .map(|topic| {
            let parts = topic.partitions.iter().map(|part| OffsetForLeaderEpochEpochEndOffset {
                partition: part.partition,
                error_code: DENIED,
                ..Default::default()
            });
            OffsetForLeaderTopicResult { partitions: parts.collect(), topic: topic.topic }
        })
        .collect();
    let empty = body.topics.is_empty();
    rest(body.into(), empty, finish!(OffsetForLeaderEpoch, |r| { r.topics.extend(answers) }))
}

pub(super) fn delete_records(access: &Access, mut body: DeleteRecordsRequest) -> Verdict {
    let denied = split(&mut body.topics, |t| may(access, ApiKey::DeleteRecords, &t.name));
    if denied.is_empty() {
        return Verdict::Pass(body.into(), None);
    }
    let answers: Vec<DeleteRecordsTopicResult> = denied
        .into_iter()
        .map(|topic| {
            let parts = topic.partitions.iter().map(|part| DeleteRecordsPartitionResult {
                partition_index: part.partition_index,
                low_watermark: -1,
                error_code: DENIED,
            });
            DeleteRecordsTopicResult { partitions: parts.collect(), name: topic.name }
        })
        .collect();
    let empty = body.topics.is_empty();
    rest(body.into(), empty, finish!(DeleteRecords, |r| { r.topics.extend(answers) }))
}

/// Who may not describe the settings of a topic is not told them when making it.
pub(super) fn create(access: &Access, mut body: CreateTopicsRequest) -> Verdict {
    let everywhere = access.might_cluster(Operation::Create);
    let passes = |t: &CreatableTopic| everywhere || may(access, ApiKey::CreateTopics, &t.name);
    let denied = split(&mut body.topics, passes);
    let names: BTreeSet<String> = denied.into_iter().map(|t| t.name).collect();
    let empty = body.topics.is_empty() && !names.is_empty();
    let access = access.clone();
    let finish: Finish = finish!(CreateTopics, |r| {
        let need = rule_of(ApiKey::CreateTopics).shown;
        for topic in &mut r.topics {
            if topic.error_code == errors::NONE
                && need.is_some_and(|need| !access.might(need, &topic.name))
            {
                topic.topic_config_error_code = DENIED;
                topic.num_partitions = -1;
                topic.replication_factor = -1;
                topic.configs = Some(Vec::new());
            }
        }
        r.topics.extend(names.into_iter().map(|name| CreatableTopicResult {
            name,
            error_code: DENIED,
            error_message: Some("Authorization failed.".to_owned()),
            ..Default::default()
        }));
    });
    rest(body.into(), empty, finish)
}

/// Names that the client may not describe are answered alike whether there are such topics or not.
/// Whether it may delete the others, and those that it names by id, is asked by the handler, which
/// first finds out which topics are meant.
pub(super) fn delete(access: &Access, mut body: DeleteTopicsRequest) -> Verdict {
    let names = split(&mut body.topic_names, |name| access.may_name(name));
    let passes =
        |topic: &DeleteTopicState| topic.name.as_ref().is_none_or(|name| access.may_name(name));
    let states = split(&mut body.topics, passes);
    let denied = names.into_iter().chain(states.into_iter().filter_map(|topic| topic.name));
    let denied: Vec<DeletableTopicResult> = denied
        .map(|name| DeletableTopicResult {
            name: Some(name),
            topic_id: Uuid::nil(),
            error_code: DENIED,
            error_message: message(),
        })
        .collect();
    if denied.is_empty() {
        return Verdict::Pass(body.into(), None);
    }
    let empty = body.topic_names.is_empty() && body.topics.is_empty();
    rest(body.into(), empty, finish!(DeleteTopics, |r| { r.responses.extend(denied) }))
}

pub(super) fn add_partitions(access: &Access, mut body: CreatePartitionsRequest) -> Verdict {
    let denied = split(&mut body.topics, |t| may(access, ApiKey::CreatePartitions, &t.name));
    if denied.is_empty() {
        return Verdict::Pass(body.into(), None);
    }
    let answers: Vec<CreatePartitionsTopicResult> = denied
        .into_iter()
        .map(|topic| CreatePartitionsTopicResult {
            name: topic.name,
            error_code: DENIED,
            error_message: message(),
        })
        .collect();
    let empty = body.topics.is_empty();
    rest(body.into(), empty, finish!(CreatePartitions, |r| { r.results.extend(answers) }))
}

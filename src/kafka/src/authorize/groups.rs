//! Requests about consumer groups and their offsets.

use secure::acl::{Operation, ResourceType};

use super::rules::{Need, rule_of};
use super::{Access, Finish, Verdict, finish, rest, split};
use crate::codec::messages::*;
use crate::codec::{ApiKey, RequestBody, ResponseBody};
use crate::errors;

const DENIED: errors::Code = errors::GROUP_AUTHORIZATION_FAILED;
const TOPIC_DENIED: errors::Code = errors::TOPIC_AUTHORIZATION_FAILED;
const DESCRIBE_TOPIC: Need = (Operation::Describe, ResourceType::Topic);

/// The group that a request is about as a whole.
pub(super) fn group_of(body: &RequestBody) -> Option<&str> {
    Some(match body {
        RequestBody::JoinGroup(request) => &request.group_id,
        RequestBody::SyncGroup(request) => &request.group_id,
        RequestBody::Heartbeat(request) => &request.group_id,
        RequestBody::LeaveGroup(request) => &request.group_id,
        RequestBody::ConsumerGroupHeartbeat(request) => &request.group_id,
        RequestBody::OffsetCommit(request) => &request.group_id,
        RequestBody::OffsetDelete(request) => &request.group_id,
        RequestBody::AddOffsetsToTxn(request) => &request.group_id,
        RequestBody::TxnOffsetCommit(request) => &request.group_id,
        _ => return None,
    })
}

fn may(access: &Access, key: ApiKey, name: &str) -> bool {
    rule_of(key).each.is_none_or(|need| access.may(need, name))
}

pub(super) fn describe(access: &Access, mut body: DescribeGroupsRequest) -> Verdict {
    let denied = split(&mut body.groups, |group| may(access, ApiKey::DescribeGroups, group));
    let told = body.include_authorized_operations;
    if denied.is_empty() && !told {
        return Verdict::Pass(body.into(), None);
    }
    let answers: Vec<DescribedGroup> = denied
        .into_iter()
        .map(|group_id| DescribedGroup { error_code: DENIED, group_id, ..Default::default() })
        .collect();
    let empty = body.groups.is_empty() && !answers.is_empty();
    let access = access.clone();
    let finish: Finish = finish!(DescribeGroups, |r| {
        for group in r.groups.iter_mut().filter(|g| told && g.error_code == errors::NONE) {
            group.authorized_operations = access.operations(ResourceType::Group, &group.group_id);
        }
        r.groups.extend(answers);
    });
    rest(body.into(), empty, finish)
}

/// A member must not learn of topics by subscribing to them.
pub(super) fn beat(access: &Access, body: ConsumerGroupHeartbeatRequest) -> Verdict {
    let need = rule_of(ApiKey::ConsumerGroupHeartbeat).each.unwrap_or(DESCRIBE_TOPIC);
    let mut names = body.subscribed_topic_names.iter().flatten();
    if names.all(|name| access.may(need, name)) {
        return Verdict::Pass(body.into(), None);
    }
    let error_code = TOPIC_DENIED;
    Verdict::Refuse(ConsumerGroupHeartbeatResponse { error_code, ..Default::default() }.into())
}

pub(super) fn describe_consumers(
    access: &Access,
    mut body: ConsumerGroupDescribeRequest,
) -> Verdict {
    let key = ApiKey::ConsumerGroupDescribe;
    let denied = split(&mut body.group_ids, |group| may(access, key, group));
    let told = body.include_authorized_operations;
    let denied: Vec<DescribedConsumerGroup> = denied
        .into_iter()
        .map(|group_id| DescribedConsumerGroup {
            error_code: DENIED,
            group_id,
            ..Default::default()
        })
        .collect();
    let empty = body.group_ids.is_empty() && !denied.is_empty();
    let access = access.clone();
    let finish: Finish = finish!(ConsumerGroupDescribe, |r| {
        for group in r.groups.iter_mut().filter(|g| g.error_code == errors::NONE) {
            if told {
                let operations = access.operations(ResourceType::Group, &group.group_id);
                group.authorized_operations = operations;
            }
            if !topics_of(group).all(|topic| access.might(DESCRIBE_TOPIC, topic)) {
                group.error_code = TOPIC_DENIED;
                group.error_message = Some(HIDDEN_TOPICS.to_owned());
                group.members.clear();
            }
        }
        r.groups.extend(denied);
    });
    rest(body.into(), empty, finish)
}

const HIDDEN_TOPICS: &str =
    "The group has described topic(s) that the client is not authorized to describe.";

/// Names of all topics that the description of a group tells of.
fn topics_of(group: &DescribedConsumerGroup) -> impl Iterator<Item = &String> {
    group.members.iter().flat_map(|member| {
        let assigned = member.assignment.topic_partitions.iter();
        let assigned = assigned.chain(&member.target_assignment.topic_partitions);
        member.subscribed_topic_names.iter().chain(assigned.map(|topic| &topic.topic_name))
    })
}

/// Who may describe the cluster sees all groups.
pub(super) fn list(access: &Access, body: ListGroupsRequest) -> Verdict {
    if access.might_cluster(Operation::Describe) {
        return Verdict::Pass(body.into(), None);
    }
    let access = access.clone();
    let finish: Finish = finish!(ListGroups, |r| {
        let need = rule_of(ApiKey::ListGroups).shown;
        r.groups.retain(|group| need.is_none_or(|need| access.might(need, &group.group_id)));
    });
    Verdict::Pass(body.into(), Some(finish))
}

pub(super) fn delete(access: &Access, mut body: DeleteGroupsRequest) -> Verdict {
    let denied = split(&mut body.groups_names, |group| may(access, ApiKey::DeleteGroups, group));
    if denied.is_empty() {
        return Verdict::Pass(body.into(), None);
    }
    let answers: Vec<DeletableGroupResult> = denied
        .into_iter()
        .map(|group_id| DeletableGroupResult { group_id, error_code: DENIED })
        .collect();
    let empty = body.groups_names.is_empty();
    rest(body.into(), empty, finish!(DeleteGroups, |r| { r.results.extend(answers) }))
}

/// The answer for each partition of a commit.
pub(super) fn committed(
    parts: &[OffsetCommitRequestPartition],
    error_code: errors::Code,
) -> Vec<OffsetCommitResponsePartition> {
    let answer = |part: &OffsetCommitRequestPartition| OffsetCommitResponsePartition {
        partition_index: part.partition_index,
        error_code,
    };
    parts.iter().map(answer).collect()
}

pub(super) fn commit(access: &Access, mut body: OffsetCommitRequest) -> Verdict {
    let denied = split(&mut body.topics, |t| may(access, ApiKey::OffsetCommit, &t.name));
    if denied.is_empty() {
        return Verdict::Pass(body.into(), None);
    }
    let answers: Vec<OffsetCommitResponseTopic> = denied
        .into_iter()
        .map(|topic| OffsetCommitResponseTopic {
            partitions: committed(&topic.partitions, TOPIC_DENIED),
            name: topic.name,
        })
        .collect();
    let empty = body.topics.is_empty();
    rest(body.into(), empty, finish!(OffsetCommit, |r| { r.topics.extend(answers) }))
}

pub(super) fn delete_offsets(access: &Access, mut body: OffsetDeleteRequest) -> Verdict {
    let denied = split(&mut body.topics, |t| may(access, ApiKey::OffsetDelete, &t.name));
    if denied.is_empty() {
        return Verdict::Pass(body.into(), None);
    }
    let answers: Vec<OffsetDeleteResponseTopic> = denied
        .into_iter()
        .map(|topic| {
            let parts = topic.partitions.iter().map(|part| OffsetDeleteResponsePartition {
                partition_index: part.partition_index,
                error_code: TOPIC_DENIED,
            });
            OffsetDeleteResponseTopic { partitions: parts.collect(), name: topic.name }
        })
        .collect();
    let empty = body.topics.is_empty();
    rest(body.into(), empty, finish!(OffsetDelete, |r| { r.topics.extend(answers) }))
}

pub(super) fn fetch_offsets(access: &Access, version: i16, body: OffsetFetchRequest) -> Verdict {
    if version < 8 { fetch_single(access, version, body) } else { fetch_many(access, body) }
}

/// One group. All of its topics: those that may be described.
fn fetch_single(access: &Access, version: i16, mut body: OffsetFetchRequest) -> Verdict {
    if !may(access, ApiKey::OffsetFetch, &body.group_id) {
        let topics = body.topics.unwrap_or_default().into_iter();
        // Versions 0 and 1 have no room for an error but in the partitions.
        let topics = topics.map(|t| unfetched(t.name, &t.partition_indexes, DENIED));
        let topics = if version < 2 { topics.collect() } else { Vec::new() };
        let response = OffsetFetchResponse { topics, error_code: DENIED, ..Default::default() };
        return Verdict::Refuse(response.into());
    }
    let access = access.clone();
    let Some(topics) = &mut body.topics else {
        let finish: Finish = finish!(OffsetFetch, |r| {
            r.topics.retain(|topic| access.might(DESCRIBE_TOPIC, &topic.name));
        });
        return Verdict::Pass(body.into(), Some(finish));
    };
    let denied = split(topics, |topic| access.may(DESCRIBE_TOPIC, &topic.name));
    if denied.is_empty() {
        return Verdict::Pass(body.into(), None);
    }
    let answers = denied.into_iter();
    let answers: Vec<OffsetFetchResponseTopic> =
        answers.map(|t| unfetched(t.name, &t.partition_indexes, TOPIC_DENIED)).collect();
    let empty = topics.is_empty();
    rest(body.into(), empty, finish!(OffsetFetch, |r| { r.topics.extend(answers) }))
}

fn unfetched(name: String, parts: &[i32], error_code: errors::Code) -> OffsetFetchResponseTopic {
    let parts = parts.iter().map(|index| OffsetFetchResponsePartition {
        partition_index: *index,
        committed_offset: -1,
        metadata: Some(String::new()),
        error_code,
        ..Default::default()
    });
    OffsetFetchResponseTopic { partitions: parts.collect(), name }
}

fn fetch_many(access: &Access, mut body: OffsetFetchRequest) -> Verdict {
    let denied = split(&mut body.groups, |g| may(access, ApiKey::OffsetFetch, &g.group_id));
    let denied_groups: Vec<OffsetFetchResponseGroup> = denied
        .into_iter()
        .map(|group| OffsetFetchResponseGroup {
            group_id: group.group_id,
            error_code: DENIED,
            ..Default::default()
        })
        .collect();
    let mut denied_topics: Vec<(String, Vec<OffsetFetchResponseTopics>)> = Vec::new();
    for group in &mut body.groups {
        let Some(topics) = &mut group.topics else { continue };
        let denied = split(topics, |topic| access.may(DESCRIBE_TOPIC, &topic.name));
        let denied = denied.into_iter().map(|topic| OffsetFetchResponseTopics {
            partitions: topic
                .partition_indexes
                .iter()
                .map(|index| OffsetFetchResponsePartitions {
                    partition_index: *index,
                    committed_offset: -1,
                    metadata: Some(String::new()),
                    error_code: TOPIC_DENIED,
                    ..Default::default()
                })
                .collect(),
            name: topic.name,
        });
        denied_topics.push((group.group_id.clone(), denied.collect()));
    }
    let empty = body.groups.is_empty() && !denied_groups.is_empty();
    let access = access.clone();
    let finish: Finish = finish!(OffsetFetch, |r| {
        for group in &mut r.groups {
            group.topics.retain(|topic| access.might(DESCRIBE_TOPIC, &topic.name));
            let denied = denied_topics.iter_mut().find(|(id, _)| *id == group.group_id);
            if let (Some((_, topics)), errors::NONE) = (denied, group.error_code) {
                group.topics.append(topics);
            }
        }
        r.groups.extend(denied_groups);
    });
    rest(body.into(), empty, finish)
}

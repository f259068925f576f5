//! Requests about the cluster, coordinators and producer ids.

use secure::acl::{Operation, ResourceType};
use uuid::Uuid;

use super::rules::{Need, rule_of};
use super::{Access, Facts, Finish, Verdict, finish, rest, split};
use crate::codec::messages::*;
use crate::codec::{ApiKey, ResponseBody};
use crate::errors;

const DENIED: errors::Code = errors::TOPIC_AUTHORIZATION_FAILED;
const DESCRIBE: Need = (Operation::Describe, ResourceType::Topic);

/// KIP-98 and Kafka since 2.8: who may write to any topic may be an idempotent producer.
pub(super) fn producer_id(
    access: &Access,
    request: &InitProducerIdRequest,
    need: Need,
) -> Option<errors::Code> {
    if let Some(id) = &request.transactional_id {
        let need = (Operation::Write, ResourceType::TransactionalId);
        return (!access.may(need, id)).then_some(errors::TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
    }
    let allowed = access.might_somewhere((Operation::Write, ResourceType::Topic))
        || access.may(need, secure::acl::CLUSTER);
    (!allowed).then_some(errors::CLUSTER_AUTHORIZATION_FAILED)
}

/// Topics that the client may not describe: left out of a list of all, else an error that does
/// not tell whether they exist.
pub(super) fn metadata(
    facts: &dyn Facts,
    access: &Access,
    version: i16,
    mut body: MetadataRequest,
) -> Verdict {
    let creates = body.allow_auto_topic_creation && facts.creates();
    let mut denied = Vec::new();
    let mut none_left = false;
    if let Some(topics) = body.topics.as_mut().filter(|t| version > 0 || !t.is_empty()) {
        let asked = !topics.is_empty();
        denied = split(topics, |topic| may_ask(facts, access, topic, creates));
        none_left = asked && topics.is_empty();
    }
    let answers = denied.into_iter().map(|topic| {
        let topic_id = if topic.name.is_some() { Uuid::nil() } else { topic.topic_id };
        MetadataResponseTopic {
            error_code: DENIED,
            name: topic.name,
            topic_id,
            ..Default::default()
        }
    });
    let answers: Vec<MetadataResponseTopic> = answers.collect();
    let for_topics = body.include_topic_authorized_operations;
    let for_cluster = body.include_cluster_authorized_operations;
    let access = access.clone();
    let finish: Finish = finish!(Metadata, |r| {
        if none_left {
            // Version 0 cannot ask for nothing: an empty list means all.
            r.topics.clear();
        }
        r.topics.retain(|topic| {
            let name = topic.name.as_deref();
            topic.error_code != errors::NONE || name.is_some_and(|n| access.might(DESCRIBE, n))
        });
        for topic in r.topics.iter_mut().filter(|_| for_topics) {
            let name = topic.name.as_deref().unwrap_or_default();
            topic.topic_authorized_operations = access.operations(ResourceType::Topic, name);
        }
        if for_cluster {
            r.cluster_authorized_operations = access.cluster_operations();
        }
        r.topics.extend(answers);
    });
    Verdict::Pass(body.into(), Some(finish))
}

fn may_ask(
    facts: &dyn Facts,
    access: &Access,
    topic: &MetadataRequestTopic,
    creates: bool,
) -> bool {
    let need = rule_of(ApiKey::Metadata).each.unwrap_or(DESCRIBE);
    match &topic.name {
        None => facts.name_of(topic.topic_id).is_none_or(|name| access.may(need, &name)),
        Some(name) => {
            access.may(need, name) && (!creates || facts.exists(name) || access.may_create(name))
        }
    }
}

pub(super) fn describe(access: &Access, body: DescribeClusterRequest) -> Verdict {
    if !body.include_cluster_authorized_operations {
        return Verdict::Pass(body.into(), None);
    }
    let operations = access.cluster_operations();
    let finish: Finish =
        finish!(DescribeCluster, |r| { r.cluster_authorized_operations = operations });
    Verdict::Pass(body.into(), Some(finish))
}

pub(super) fn find_coordinator(
    access: &Access,
    version: i16,
    mut body: FindCoordinatorRequest,
) -> Verdict {
    let (need, code) = match body.key_type {
        1 => (
            (Operation::Describe, ResourceType::TransactionalId),
            errors::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        ),
        _ => (
            rule_of(ApiKey::FindCoordinator)
                .each
                .unwrap_or((Operation::Describe, ResourceType::Group)),
            errors::GROUP_AUTHORIZATION_FAILED,
        ),
    };
    let message = || Some(errors::message(code).to_owned());
    if version < 4 {
        if access.may(need, &body.key) {
            return Verdict::Pass(body.into(), None);
        }
        let response = FindCoordinatorResponse {
            error_code: code,
            error_message: message(),
            node_id: -1,
            port: -1,
            ..Default::default()
        };
        return Verdict::Refuse(response.into());
    }
    let denied = split(&mut body.coordinator_keys, |key| access.may(need, key));
    if denied.is_empty() {
        return Verdict::Pass(body.into(), None);
    }
    let answers: Vec<Coordinator> = denied
        .into_iter()
        .map(|key| Coordinator {
            key,
            node_id: -1,
            port: -1,
            error_code: code,
            error_message: message(),
            ..Default::default()
        })
        .collect();
    let empty = body.coordinator_keys.is_empty();
    rest(body.into(), empty, finish!(FindCoordinator, |r| { r.coordinators.extend(answers) }))
}

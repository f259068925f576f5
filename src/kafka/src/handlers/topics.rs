//! CreateTopics, DeleteTopics and CreatePartitions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::NodeId;
use log::{LogError, Mode, Topic, TopicRef, TopicSpec};

use super::configs;
use crate::authorize::Access;
use crate::codec::messages::*;
use crate::errors;
use crate::gateway::Shared;

fn mode(validate_only: bool) -> Mode {
    if validate_only { Mode::ValidateOnly } else { Mode::Apply }
}

/// What comes more than once.
pub(super) fn repeated<T: Ord>(all: impl Iterator<Item = T>) -> BTreeSet<T> {
    let (mut seen, mut repeated) = (BTreeSet::new(), BTreeSet::new());
    for one in all {
        if let Some(again) = seen.replace(one) {
            repeated.insert(again);
        }
    }
    repeated
}

/// Makes topics.
pub(crate) async fn create(
    shared: &Arc<Shared>,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let repeated = repeated(request.topics.iter().map(|topic| topic.name.clone()));
    let (mut topics, mut told) = (Vec::new(), BTreeSet::new());
    for topic in request.topics {
        // Validating alone waits for nothing.
        tokio::task::consume_budget().await;
        if !repeated.contains(&topic.name) {
            topics.push(create_one(shared, topic, mode(request.validate_only)).await);
        } else if told.insert(topic.name.clone()) {
            topics.push(CreatableTopicResult {
                name: topic.name,
                error_code: errors::INVALID_REQUEST,
                error_message: Some("Duplicate topic name.".to_owned()),
                ..Default::default()
            });
        }
    }
    CreateTopicsResponse { throttle_time_ms: 0, topics }
}

async fn create_one(
    shared: &Arc<Shared>,
    topic: CreatableTopic,
    mode: Mode,
) -> CreatableTopicResult {
    let name = topic.name.clone();
    let (spec, replicas) = match spec(shared, topic) {
        Ok(found) => found,
        Err((error_code, text)) => {
            let error_message = Some(text);
            return CreatableTopicResult { name, error_code, error_message, ..Default::default() };
        }
    };
    let log = &shared.backend.log;
    let made = async {
        let made = log.create_topic(&spec, mode).await?;
        if mode == Mode::Apply && !replicas.is_empty() {
            log.assign_replicas(made.id, 0, replicas).await?;
        }
        Ok::<_, LogError>(made)
    };
    match made.await {
        Ok(made) => created(shared, &made, mode),
        Err(error) => CreatableTopicResult {
            name,
            error_code: error.code(),
            error_message: Some(error.to_string()),
            ..Default::default()
        },
    }
}

fn created(shared: &Arc<Shared>, topic: &Topic, mode: Mode) -> CreatableTopicResult {
    let configs = configs::topic_entries(&topic.configs, &shared.backend.log.topic_defaults());
    let configs = configs.into_iter();
    let configs = configs.map(|entry| CreatableTopicConfigs {
        name: entry.name,
        value: entry.value,
        read_only: entry.read_only,
        config_source: entry.config_source,
        is_sensitive: false,
    });
    CreatableTopicResult {
        name: topic.name.clone(),
        topic_id: if mode == Mode::Apply { topic.id } else { uuid::Uuid::nil() },
        num_partitions: i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX),
        replication_factor: if topic.replication_factor < 0 { 3 } else { topic.replication_factor },
        configs: Some(configs.collect()),
        ..Default::default()
    }
}

type Refusal = (errors::Code, String);

/// What is to be made and the replicas that were named, or code and words of a refusal.
fn spec(
    shared: &Arc<Shared>,
    topic: CreatableTopic,
) -> Result<(TopicSpec, Vec<Vec<NodeId>>), Refusal> {
    let mut partitions = topic.num_partitions;
    let mut replication_factor = topic.replication_factor;
    let mut replicas = Vec::new();
    if !topic.assignments.is_empty() {
        if partitions != -1 || replication_factor != -1 {
            let text = "Both numPartitions or replicationFactor and replicasAssignments were set.";
            return Err((errors::INVALID_REQUEST, text.to_owned()));
        }
        replicas = assigned(shared, &topic.assignments)?;
        let factor = replicas.first().map_or(0, Vec::len);
        partitions = i32::try_from(replicas.len()).unwrap_or(i32::MAX);
        replication_factor = i16::try_from(factor).unwrap_or(i16::MAX);
    }
    if partitions == -1 {
        partitions = shared.config.default_partitions;
    }
    let mut configs = Vec::new();
    for config in topic.configs {
        let Some(value) = config.value else {
            let text = format!("Null value not supported for topic configs: {}", config.name);
            return Err((errors::INVALID_CONFIG, text));
        };
        configs.push((config.name, value));
    }
    let spec = TopicSpec { name: topic.name, partitions, replication_factor, configs };
    Ok((spec, replicas))
}

/// A manual assignment by partition, which must begin at 0 and have no gap.
fn assigned(
    shared: &Arc<Shared>,
    assignments: &[CreatableReplicaAssignment],
) -> Result<Vec<Vec<NodeId>>, Refusal> {
    let by_index: BTreeMap<i32, &Vec<i32>> =
        assignments.iter().map(|a| (a.partition_index, &a.broker_ids)).collect();
    let consecutive = by_index.keys().copied().zip(0..).all(|(index, n)| index == n);
    if !consecutive || by_index.len() != assignments.len() {
        let text = "partitions should be a consecutive 0-based integer sequence";
        return Err((errors::INVALID_REPLICA_ASSIGNMENT, text.to_owned()));
    }
    let factor = by_index.values().next().map_or(0, |ids| ids.len());
    by_index.into_values().map(|ids| nodes(shared, ids, factor)).collect()
}

/// The nodes of one partition's manual assignment, `factor` of them.
fn nodes(shared: &Arc<Shared>, ids: &[i32], factor: usize) -> Result<Vec<NodeId>, Refusal> {
    let refused = |text: String| (errors::INVALID_REPLICA_ASSIGNMENT, text);
    if ids.is_empty() {
        let text = "The manual partition assignment includes an empty replica list.";
        return Err(refused(text.to_owned()));
    }
    let shown = || ids.iter().map(i32::to_string).collect::<Vec<_>>().join(", ");
    if ids.len() != factor {
        let (list, count) = (shown(), ids.len());
        return Err(refused(format!(
            "The manual partition assignment includes a partition with {count} replica(s), but \
             this is not consistent with previous partitions, which have {factor} replica(s): \
             [{list}]"
        )));
    }
    let known = shared.backend.peers.all();
    let mut nodes: Vec<NodeId> = Vec::with_capacity(ids.len());
    for id in ids {
        let node = u16::try_from(*id).map(NodeId).ok().filter(|node| known.contains(node));
        let Some(node) = node else {
            return Err(refused(format!(
                "The manual partition assignment includes broker {id}, but no such broker is \
                 registered."
            )));
        };
        if nodes.contains(&node) {
            return Err(refused(format!(
                "The manual partition assignment includes the broker {id} more than once."
            )));
        }
        nodes.push(node);
    }
    Ok(nodes)
}

/// Removes topics by name, or by id from version 6.
pub(crate) async fn delete(
    shared: &Arc<Shared>,
    access: &Access,
    request: DeleteTopicsRequest,
    version: i16,
) -> DeleteTopicsResponse {
    let by_name = |name: String| DeleteTopicState { name: Some(name), topic_id: uuid::Uuid::nil() };
    let asked: Vec<DeleteTopicState> = if version < 6 {
        request.topic_names.into_iter().map(by_name).collect()
    } else {
        request.topics
    };
    let log = &shared.backend.log;
    let mut responses = Vec::new();
    let twice = repeated(asked.iter().filter_map(|topic| topic.name.clone()));
    let ids = asked.iter().map(|topic| topic.topic_id).filter(|id| !id.is_nil());
    let ids_twice = repeated(ids);
    for topic in asked {
        let refusal = match &topic.name {
            Some(_) if !topic.topic_id.is_nil() => {
                Some("You may not specify both topic name and topic id.")
            }
            Some(name) if twice.contains(name) => Some("Duplicate topic name."),
            None if topic.topic_id.is_nil() => Some("Neither topic name nor id were specified."),
            None if ids_twice.contains(&topic.topic_id) => Some("Duplicate topic id."),
            _ => None,
        };
        if let Some(text) = refusal {
            responses.push(DeletableTopicResult {
                name: topic.name,
                topic_id: topic.topic_id,
                error_code: errors::INVALID_REQUEST,
                error_message: Some(text.to_owned()),
            });
            continue;
        }
        let by = match &topic.name {
            Some(name) => TopicRef::Name(name),
            None => TopicRef::Id(topic.topic_id),
        };
        let found = log.resolve_surely(by).await;
        if let Ok(found) = &found
            && !access.may_delete(&found.name)
        {
            // Who asks by an id may not even know the name.
            responses.push(DeletableTopicResult {
                name: Some(found.name.clone()).filter(|name| access.sees(name)),
                topic_id: found.id,
                error_code: errors::TOPIC_AUTHORIZATION_FAILED,
                error_message: Some(errors::message(errors::TOPIC_AUTHORIZATION_FAILED).to_owned()),
            });
            continue;
        }
        let result = match found {
            Ok(found) => log.delete_known(found).await,
            Err(error) => Err(error),
        };
        let known = result.as_ref().ok().cloned().or_else(|| log.resolve(by).ok());
        // Where nobody could be asked, this one may not know who may.
        let known = known.filter(|known| result.is_ok() || access.sees(&known.name));
        let error_code = result.as_ref().err().map_or(errors::NONE, LogError::code);
        let name = topic.name.clone().or_else(|| known.as_ref().map(|t| t.name.clone()));
        responses.push(DeletableTopicResult {
            name,
            topic_id: known.map_or(topic.topic_id, |t| t.id),
            error_code,
            error_message: result.err().map(|e| match e {
                LogError::UnknownTopicOrPartition => errors::message(e.code()).to_owned(),
                other => other.to_string(),
            }),
        });
    }
    DeleteTopicsResponse { throttle_time_ms: 0, responses }
}

/// Adds partitions to topics.
pub(crate) async fn add_partitions(
    shared: &Arc<Shared>,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let mut results = Vec::new();
    let twice = repeated(request.topics.iter().map(|topic| topic.name.clone()));
    let mut told = BTreeSet::new();
    for topic in request.topics {
        if twice.contains(&topic.name) {
            if told.insert(topic.name.clone()) {
                results.push(CreatePartitionsTopicResult {
                    name: topic.name,
                    error_code: errors::INVALID_REQUEST,
                    error_message: Some("Duplicate topic name.".to_owned()),
                });
            }
            continue;
        }
        let done = add_to_one(shared, &topic, mode(request.validate_only)).await;
        let (error_code, error_message) = match done {
            Ok(()) => (errors::NONE, None),
            Err((code, text)) => (code, Some(text)),
        };
        results.push(CreatePartitionsTopicResult { name: topic.name, error_code, error_message });
    }
    CreatePartitionsResponse { throttle_time_ms: 0, results }
}

async fn add_to_one(
    shared: &Arc<Shared>,
    topic: &CreatePartitionsTopic,
    mode: Mode,
) -> Result<(), Refusal> {
    let log = &shared.backend.log;
    let refused = |error: LogError| (error.code(), error.to_string());
    let held = log.topic(&topic.name).map_or(0, |known| known.partitions.len());
    let mut replicas = Vec::new();
    if let Some(assignments) = &topic.assignments {
        let added = usize::try_from(topic.count).unwrap_or(0).saturating_sub(held);
        if assignments.len() != added {
            let text = format!(
                "Attempted to add {added} additional partition(s), but only {} assignment(s) were \
                 specified.",
                assignments.len()
            );
            return Err((errors::INVALID_REPLICA_ASSIGNMENT, text));
        }
        let factor = assignments.first().map_or(0, |a| a.broker_ids.len());
        for assignment in assignments {
            replicas.push(nodes(shared, &assignment.broker_ids, factor)?);
        }
    }
    let grown = log.create_partitions(&topic.name, topic.count, mode).await.map_err(refused)?;
    if mode == Mode::Apply && !replicas.is_empty() {
        let first = u32::try_from(held).unwrap_or(u32::MAX);
        log.assign_replicas(grown.id, first, replicas).await.map_err(refused)?;
    }
    Ok(())
}

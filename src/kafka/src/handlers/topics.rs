//! CreateTopics, DeleteTopics and CreatePartitions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use log::{LogError, Mode, Topic, TopicRef, TopicSpec};

use super::configs;
use crate::codec::messages::*;
use crate::errors;
use crate::gateway::Shared;

fn mode(validate_only: bool) -> Mode {
    if validate_only { Mode::ValidateOnly } else { Mode::Apply }
}

/// Makes topics.
pub(crate) async fn create(
    shared: &Arc<Shared>,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for topic in &request.topics {
        *counts.entry(&topic.name).or_default() += 1;
    }
    let repeated: BTreeSet<String> =
        counts.into_iter().filter(|(_, n)| *n > 1).map(|(name, _)| name.to_owned()).collect();
    let mut topics: Vec<CreatableTopicResult> = Vec::new();
    for topic in request.topics {
        if !repeated.contains(&topic.name) {
            topics.push(create_one(shared, topic, mode(request.validate_only)).await);
        } else if !topics.iter().any(|t| t.name == topic.name) {
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
    let spec = match spec(shared, topic) {
        Ok(spec) => spec,
        Err((error_code, text)) => {
            let error_message = Some(text);
            return CreatableTopicResult { name, error_code, error_message, ..Default::default() };
        }
    };
    match shared.backend.log.create_topic(&spec, mode).await {
        Ok(made) => created(&made, mode),
        Err(error) => CreatableTopicResult {
            name,
            error_code: error.code(),
            error_message: Some(error.to_string()),
            ..Default::default()
        },
    }
}

fn created(topic: &Topic, mode: Mode) -> CreatableTopicResult {
    let configs = configs::topic_entries(&topic.configs).into_iter();
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

/// What is to be made, or code and words of a refusal.
fn spec(shared: &Arc<Shared>, topic: CreatableTopic) -> Result<TopicSpec, (errors::Code, String)> {
    let mut partitions = topic.num_partitions;
    let mut replication_factor = topic.replication_factor;
    if !topic.assignments.is_empty() {
        if partitions != -1 || replication_factor != -1 {
            let text = "Both numPartitions or replicationFactor and replicasAssignments were set.";
            return Err((errors::INVALID_REQUEST, text.to_owned()));
        }
        (partitions, replication_factor) = assigned(&topic.assignments)?;
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
    Ok(TopicSpec { name: topic.name, partitions, replication_factor, configs })
}

/// A manual assignment only tells the numbers: data is on every node.
fn assigned(
    assignments: &[CreatableReplicaAssignment],
) -> Result<(i32, i16), (errors::Code, String)> {
    let refused = |text: &str| (errors::INVALID_REPLICA_ASSIGNMENT, text.to_owned());
    let indexes: BTreeSet<i32> = assignments.iter().map(|a| a.partition_index).collect();
    let count = i32::try_from(assignments.len()).map_err(|_| refused("too many partitions"))?;
    if !indexes.iter().copied().eq(0..count) {
        return Err(refused("partitions should be a consecutive 0-based integer sequence"));
    }
    let factor = assignments.first().map_or(0, |a| a.broker_ids.len());
    let distinct = |a: &CreatableReplicaAssignment| {
        a.broker_ids.len() == factor && a.broker_ids.iter().collect::<BTreeSet<_>>().len() == factor
    };
    if factor == 0 || !assignments.iter().all(distinct) {
        return Err(refused("replicas of partitions must be distinct and equally many"));
    }
    Ok((count, i16::try_from(factor).unwrap_or(i16::MAX)))
}

/// Removes topics by name, or by id from version 6.
pub(crate) async fn delete(
    shared: &Arc<Shared>,
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
    for topic in asked {
        let by = match &topic.name {
            Some(name) => TopicRef::Name(name),
            None => TopicRef::Id(topic.topic_id),
        };
        let known = log.resolve(by).ok();
        let result = log.delete_topic(by).await;
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
    for topic in request.topics {
        let mode = mode(request.validate_only);
        let done = shared.backend.log.create_partitions(&topic.name, topic.count, mode).await;
        results.push(CreatePartitionsTopicResult {
            name: topic.name.clone(),
            error_code: done.as_ref().err().map_or(errors::NONE, LogError::code),
            error_message: done.err().map(|error| error.to_string()),
        });
    }
    CreatePartitionsResponse { throttle_time_ms: 0, results }
}

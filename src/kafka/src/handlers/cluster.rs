//! ApiVersions, Metadata, DescribeCluster and FindCoordinator.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base::{GroupId, NodeId};
use log::{LogError, Mode, Topic, TopicSpec};
use tokio::time::Instant;
use uuid::Uuid;

use crate::authorize::Access;
use crate::codec::messages::{
    ApiVersion, ApiVersionsRequest, ApiVersionsResponse, Coordinator, DescribeClusterBroker,
    DescribeClusterRequest, DescribeClusterResponse, FinalizedFeatureKey, FindCoordinatorRequest,
    FindCoordinatorResponse, MetadataRequest, MetadataRequestTopic, MetadataResponse,
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic, SupportedFeatureKey,
};
use crate::codec::{Api, ApiKey, ResponseBody, TABLE};
use crate::errors;
use crate::gateway::Shared;

/// Client names and versions that KIP-511 allows.
const MAX_SOFTWARE_NAME: usize = 255;
/// FindCoordinator waits so long for an election: longer than one takes, shorter than any client
/// waits for an answer.
const ELECTION_WAIT: Duration = Duration::from_secs(3);
/// While it waits, it looks again after this time.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

fn row(api: &Api) -> ApiVersion {
    ApiVersion { api_key: api.key.number(), min_version: api.advertised_min, max_version: api.max }
}

/// Says which APIs and versions are served.
pub(crate) fn api_versions(request: ApiVersionsRequest, version: i16) -> ApiVersionsResponse {
    let (name, software) = (request.client_software_name, request.client_software_version);
    if version >= 3 && !(is_software(&name) && is_software(&software)) {
        let error_code = errors::INVALID_REQUEST;
        return ApiVersionsResponse { error_code, ..Default::default() };
    }
    ApiVersionsResponse {
        api_keys: TABLE.iter().map(row).collect(),
        supported_features: supported_features(version),
        finalized_features_epoch: 0,
        finalized_features: FEATURES.iter().map(finalized).collect(),
        ..Default::default()
    }
}

/// Features as a cluster of Kafka 4.0 has them: name, lowest and highest level, the level in use.
/// Level 2 of `transaction.version` is KIP-890: each end of a transaction gives a new epoch.
/// Level 1 of `group.version` is KIP-848: groups whose members the coordinator assigns.
const FEATURES: &[(&str, i16, i16, i16)] = &[
    ("group.version", 0, 1, 1),
    ("metadata.version", 7, 25, 25),
    ("transaction.version", 0, 2, 2),
];

fn finalized((name, _, _, level): &(&str, i16, i16, i16)) -> FinalizedFeatureKey {
    let (max_version_level, min_version_level) = (*level, *level);
    FinalizedFeatureKey { name: (*name).to_owned(), max_version_level, min_version_level }
}

/// Before version 4 clients cannot read a lowest level of 0, and Kafka leaves such features out.
fn supported_features(version: i16) -> Vec<SupportedFeatureKey> {
    let readable = FEATURES.iter().filter(|(_, lowest, ..)| version >= 4 || *lowest > 0);
    let key = |(name, min_version, max_version, _): &(&str, i16, i16, i16)| SupportedFeatureKey {
        name: (*name).to_owned(),
        min_version: *min_version,
        max_version: *max_version,
    };
    readable.map(key).collect()
}

/// KIP-511: letters and digits, and `.` and `-` inside.
fn is_software(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= MAX_SOFTWARE_NAME
        && edge(text.chars().next())
        && edge(text.chars().last())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-')
}

/// The answer, in version 0, to an ApiVersions request of a version that is not served.
pub(crate) fn unsupported_api_versions() -> ResponseBody {
    let error_code = errors::UNSUPPORTED_VERSION;
    let api_keys = vec![row(ApiKey::ApiVersions.api())];
    ApiVersionsResponse { error_code, api_keys, ..Default::default() }.into()
}

/// Names brokers, topics and leaders.
pub(crate) async fn metadata(
    shared: &Arc<Shared>,
    access: &Access,
    request: MetadataRequest,
    version: i16,
) -> MetadataResponse {
    let create = request.allow_auto_topic_creation && shared.config.auto_create_topics;
    let topics = match request.topics {
        Some(asked) if version > 0 || !asked.is_empty() => {
            // As in Kafka: what is asked for twice is answered once.
            let (mut topics, mut seen) = (Vec::new(), BTreeSet::new());
            for topic in asked {
                if !seen.insert((topic.name.clone(), topic.topic_id)) {
                    continue;
                }
                topics.push(asked_topic(shared, access, topic, version, create).await);
            }
            topics
        }
        // Version 0 means all by an empty list, later ones by null.
        _ => {
            let all = shared.backend.log.topics();
            all.iter().map(|topic| topic_metadata(shared, topic, version)).collect()
        }
    };
    let brokers = shared.brokers().into_iter().map(|(node, host, port)| MetadataResponseBroker {
        node_id: i32::from(node.0),
        host,
        port: i32::from(port),
        rack: None,
    });
    MetadataResponse {
        brokers: brokers.collect(),
        cluster_id: Some(shared.config.cluster_id.clone()),
        controller_id: shared.controller(),
        topics,
        ..Default::default()
    }
}

async fn asked_topic(
    shared: &Arc<Shared>,
    access: &Access,
    asked: MetadataRequestTopic,
    version: i16,
    create: bool,
) -> MetadataResponseTopic {
    let log = &shared.backend.log;
    let Some(name) = asked.name else {
        // KIP-516: topics are asked for by id from version 12 on; before it a name must be there.
        if version < 12 {
            let (error_code, name) = (errors::INVALID_REQUEST, Some(String::new()));
            return MetadataResponseTopic { error_code, name, ..Default::default() };
        }
        let by_id = log.topic_by_id(asked.topic_id);
        return match by_id {
            Some(topic) => topic_metadata(shared, &topic, version),
            None => MetadataResponseTopic {
                error_code: errors::UNKNOWN_TOPIC_ID,
                topic_id: asked.topic_id,
                ..Default::default()
            },
        };
    };
    if let Some(topic) = log.topic(&name) {
        return topic_metadata(shared, &topic, version);
    }
    let error_code = if create && !access.may_create(&name) {
        // It was there when the gate was asked.
        errors::TOPIC_AUTHORIZATION_FAILED
    } else if create {
        let spec = TopicSpec {
            name: name.clone(),
            partitions: shared.config.default_partitions,
            replication_factor: -1,
            configs: Vec::new(),
        };
        match log.create_topic(&spec, Mode::Apply).await {
            Ok(topic) => return topic_metadata(shared, &topic, version),
            Err(LogError::TopicExists(_)) => match log.topic(&name) {
                Some(topic) => return topic_metadata(shared, &topic, version),
                None => errors::LEADER_NOT_AVAILABLE,
            },
            Err(LogError::InvalidTopic(_)) => errors::INVALID_TOPIC_EXCEPTION,
            // The client asks again.
            Err(_) => errors::LEADER_NOT_AVAILABLE,
        }
    } else {
        match log::check_name(&name) {
            Ok(()) => errors::UNKNOWN_TOPIC_OR_PARTITION,
            Err(_) => errors::INVALID_TOPIC_EXCEPTION,
        }
    };
    let topic_id = Uuid::nil();
    MetadataResponseTopic { error_code, name: Some(name), topic_id, ..Default::default() }
}

fn topic_metadata(shared: &Arc<Shared>, topic: &Topic, version: i16) -> MetadataResponseTopic {
    let partitions = (0..).zip(&topic.partitions).map(|(index, _)| {
        let facts = shared.facts(topic, index);
        MetadataResponsePartition {
            error_code: facts.code(),
            partition_index: index,
            leader_id: facts.leader,
            leader_epoch: facts.leader_epoch,
            replica_nodes: facts.replicas,
            isr_nodes: facts.in_sync,
            offline_replicas: if version >= 5 { facts.offline } else { Vec::new() },
        }
    });
    MetadataResponseTopic {
        name: Some(topic.name.clone()),
        topic_id: topic.id,
        partitions: partitions.collect(),
        ..Default::default()
    }
}

/// What clients are told of a partition.
pub(super) struct Facts {
    /// −1 when there is none.
    pub(super) leader: i32,
    pub(super) leader_epoch: i32,
    pub(super) replicas: Vec<i32>,
    pub(super) in_sync: Vec<i32>,
    pub(super) offline: Vec<i32>,
}

impl Facts {
    pub(super) fn code(&self) -> errors::Code {
        if self.leader < 0 { errors::LEADER_NOT_AVAILABLE } else { errors::NONE }
    }
}

impl Shared {
    pub(super) fn facts(&self, topic: &Topic, partition: i32) -> Facts {
        let (leader, leader_epoch) = self.leader_of(&topic.name, partition);
        let replicas = self.replicas_of(topic, partition, leader);
        let group = topic.group_of(partition).and_then(|id| self.backend.groups.get(id));
        let behind = group.map(|group| group.behind()).unwrap_or_default();
        let node = |id: i32| u16::try_from(id).map_or(NodeId(0), NodeId);
        let alive = |id: &i32| self.backend.peers.is_alive(node(*id));
        let (answering, offline): (Vec<i32>, Vec<i32>) = replicas.iter().partition(|id| alive(id));
        let keeps_up = |id: &i32| *id == leader || !behind.contains(&node(*id));
        let in_sync = answering.into_iter().filter(keeps_up).collect();
        Facts { leader, leader_epoch, replicas, in_sync, offline }
    }

    /// Node id of a partition's leader, −1 when there is none, and the leader epoch.
    pub(crate) fn leader_of(&self, topic: &str, partition: i32) -> (i32, i32) {
        let topic = self.backend.log.topic(topic);
        let group = topic.and_then(|t| t.group_of(partition));
        let Some(group) = group.and_then(|id| self.backend.groups.get(id)) else {
            return (-1, -1);
        };
        let leadership = group.leadership();
        let epoch = i32::try_from(leadership.term).unwrap_or(i32::MAX);
        (self.live_leader(leadership).map_or(-1, |n| i32::from(n.0)), epoch)
    }

    /// The leader that an answer tells besides its error (KIP-951); nothing while none is known.
    /// librdkafka 2.16 takes a leader of −1 for one it has memory for, reads past that memory and
    /// dies.
    pub(crate) fn told_leader(&self, topic: &str, partition: i32) -> Option<(i32, i32)> {
        Some(self.leader_of(topic, partition)).filter(|(leader, _)| *leader >= 0)
    }

    /// The node that is to lead a group when all are up: the one that consensus moves it to.
    pub(crate) fn preferred_of(&self, group: GroupId) -> Option<NodeId> {
        let nodes = self.backend.peers.all();
        nodes.get(usize::from(group.0) % nodes.len().max(1)).copied()
    }

    /// The nodes named as replicas: as many as were asked for, the leader among them. The data
    /// itself is on every node.
    fn replicas_of(&self, topic: &Topic, partition: i32, leader: i32) -> Vec<i32> {
        let named = u32::try_from(partition).ok().and_then(|p| topic.replicas.get(&p));
        if let Some(named) = named {
            let mut nodes: Vec<i32> = named.iter().map(|n| i32::from(n.0)).collect();
            // Any node may lead, since all have the data; a leader is a replica.
            if leader >= 0 && !nodes.contains(&leader) && nodes.pop().is_some() {
                nodes.push(leader);
            }
            return nodes;
        }
        let mut nodes: Vec<i32> = self.backend.peers.all().iter().map(|n| i32::from(n.0)).collect();
        let count = usize::try_from(topic.replication_factor).unwrap_or(nodes.len());
        let count = count.clamp(1, nodes.len().max(1));
        if nodes.is_empty() {
            return nodes;
        }
        let first = topic.group_of(partition).and_then(|group| self.preferred_of(group));
        let first = first.map(|node| i32::from(node.0));
        let turn = nodes.iter().position(|node| Some(*node) == first).unwrap_or(0);
        nodes.rotate_left(turn);
        if let Some(at) = nodes.iter().position(|n| *n == leader).filter(|at| *at >= count) {
            nodes.swap(0, at);
        }
        nodes.truncate(count);
        nodes
    }
}

/// Names brokers and the controller.
pub(crate) fn describe(
    shared: &Arc<Shared>,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    let refusal = match request.endpoint_type {
        1 => None,
        2 => Some((
            errors::MISMATCHED_ENDPOINT_TYPE,
            "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type \
             CONTROLLER"
                .to_owned(),
        )),
        0 => Some((errors::INVALID_REQUEST, "Unsupported endpoint type 0".to_owned())),
        other => {
            Some((errors::UNSUPPORTED_ENDPOINT_TYPE, format!("Unsupported endpoint type {other}")))
        }
    };
    if let Some((error_code, text)) = refusal {
        let error_message = Some(text);
        return DescribeClusterResponse { error_code, error_message, ..Default::default() };
    }
    let all = shared.config.advertised.all().into_iter();
    // KIP-1073
    let shown = all.filter(|(node, _)| request.include_fenced_brokers || !shared.is_fenced(*node));
    let brokers = shown.map(|(node, (host, port))| DescribeClusterBroker {
        broker_id: i32::from(node.0),
        host,
        port: i32::from(port),
        rack: None,
        is_fenced: shared.is_fenced(node),
    });
    DescribeClusterResponse {
        cluster_id: shared.config.cluster_id.clone(),
        controller_id: shared.controller(),
        brokers: brokers.collect(),
        ..Default::default()
    }
}

/// Names the coordinators of groups and of transactional ids.
pub(crate) async fn find_coordinator(
    shared: &Arc<Shared>,
    request: FindCoordinatorRequest,
    version: i16,
) -> FindCoordinatorResponse {
    let until = Instant::now() + ELECTION_WAIT;
    if version >= 4 {
        let mut coordinators = Vec::new();
        for key in request.coordinator_keys {
            coordinators.push(coordinator(shared, key, request.key_type, until).await);
        }
        return FindCoordinatorResponse { coordinators, ..Default::default() };
    }
    let found = coordinator(shared, request.key, request.key_type, until).await;
    FindCoordinatorResponse {
        error_code: found.error_code,
        error_message: found.error_message,
        node_id: found.node_id,
        host: found.host,
        port: found.port,
        ..Default::default()
    }
}

async fn coordinator(
    shared: &Arc<Shared>,
    key: String,
    key_type: i8,
    until: Instant,
) -> Coordinator {
    let refused = |key: String, error_code, text: &str| Coordinator {
        key,
        node_id: -1,
        port: -1,
        error_code,
        error_message: Some(text.to_owned()),
        ..Default::default()
    };
    match key_type {
        1 if key.is_empty() => {
            return refused(key, errors::INVALID_REQUEST, "the transactional id is empty");
        }
        // Both kinds of coordinators are found alike. Offsets may be kept for the group "".
        0 | 1 => {}
        _ => return refused(key, errors::INVALID_REQUEST, "unknown type of coordinator"),
    }
    let node = coordinating_node(shared, &key, until).await;
    let address = node.and_then(|n| shared.config.advertised.all().remove(&n).map(|a| (n, a)));
    match address {
        Some((node, (host, port))) => Coordinator {
            key,
            node_id: i32::from(node.0),
            host,
            port: i32::from(port),
            ..Default::default()
        },
        None => {
            let code = errors::COORDINATOR_NOT_AVAILABLE;
            refused(key, code, errors::message(code))
        }
    }
}

/// The node that coordinates a group or transactional id. During an election, waits for its end;
/// then names the last coordinator, as Kafka does whose brokers answer from a cache.
///
/// By its source, librdkafka (2.16) asks three times at most, and a call that was refused as often
/// hangs: `send_offsets_to_transaction` does not heed its timeout.
async fn coordinating_node(shared: &Arc<Shared>, key: &str, until: Instant) -> Option<NodeId> {
    let mut coordinator = shared.backend.consumer_groups.watch_coordinator(key)?;
    loop {
        let leadership = *coordinator.borrow_and_update();
        if let Some(node) = shared.live_leader(leadership) {
            return Some(node);
        }
        let now = Instant::now();
        if now >= until {
            return leadership.last_leader;
        }
        // A node that answers again changes no leadership.
        let look_again = until.min(now + LOOK_AGAIN);
        if let Ok(Err(_)) = tokio::time::timeout_at(look_again, coordinator.changed()).await {
            return None;
        }
    }
}

//! Topics: create, delete, grow, configure.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{NodeId, codec};
use consensus::tags;
use uuid::Uuid;

use super::{LogService, decode_reply};
use crate::command::{Control, MetaCommand, MetaReply};
use crate::configs::{self, TopicSettings};
use crate::error::LogError;
use crate::limits::{MAX_GROUPS_WITH_SETTINGS, MAX_PARTITIONS, MAX_TOPIC_NAME};
use crate::types::{Mode, PartKey, SettingsOf, Topic, TopicRef, TopicSpec};

/// A change of one topic setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigChange {
    /// Sets it.
    Set(String, String),
    /// Back to the default.
    Remove(String),
}

impl LogService {
    /// Creates a topic and waits until all its data groups have its partitions. With
    /// [`Mode::ValidateOnly`] the topic returned has no groups yet.
    pub async fn create_topic(&self, spec: &TopicSpec, mode: Mode) -> Result<Arc<Topic>, LogError> {
        let mut topic = self.checked(spec)?;
        if self.topic(&spec.name).is_some() {
            return Err(self.exists(spec, mode).await);
        }
        if let Some(other) = self.0.shared.topics().collision(&spec.name) {
            return Err(collides(&spec.name, &other));
        }
        if mode == Mode::ValidateOnly {
            return Ok(Arc::new(topic));
        }
        topic.id = Uuid::from_bytes(self.0.shared.0.env.random.uuid_bytes());
        let command = MetaCommand::CreateTopic {
            name: spec.name.clone(),
            id: topic.id,
            partitions: u32::try_from(topic.partitions.len()).unwrap_or(0),
            replication_factor: topic.replication_factor,
            configs: topic.configs.into_iter().collect(),
            data_groups: self.data_groups(),
        };
        match self.meta(&command).await? {
            MetaReply::Created { first } => {
                // An earlier topic of this name may be known still to a node that leads one of
                // its partitions: what is produced there by name must not be acknowledged.
                self.delete_orphans().await?;
                self.confirm(topic.id, first).await
            }
            MetaReply::TopicExists => Err(self.exists(spec, mode).await),
            MetaReply::NameCollides(other) => Err(collides(&spec.name, &other)),
            MetaReply::TooMany => {
                Err(LogError::InvalidPartitions("the cluster has too many partitions".to_owned()))
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Who is told that a topic exists may have made it with an attempt that timed out half way,
    /// and produces to it now: an earlier topic of this name must be gone first, as after a
    /// creation.
    async fn exists(&self, spec: &TopicSpec, mode: Mode) -> LogError {
        let rest = match mode {
            Mode::Apply => self.delete_orphans().await,
            Mode::ValidateOnly => Ok(()),
        };
        rest.err().unwrap_or_else(|| LogError::TopicExists(spec.name.clone()))
    }

    /// As [`Self::resolve`], by what every node has acknowledged: this one may not know yet that a
    /// topic was made, or that one was deleted and another made under its name.
    pub async fn resolve_surely(&self, topic: TopicRef<'_>) -> Result<Arc<Topic>, LogError> {
        self.0.groups.m0.read_barrier().await?;
        self.resolve(topic)
    }

    /// Deletes a topic, and says which; its data goes in the background.
    pub async fn delete_topic(&self, topic: TopicRef<'_>) -> Result<Arc<Topic>, LogError> {
        let topic = self.resolve_surely(topic).await?;
        self.delete_known(topic).await
    }

    /// Deletes exactly this topic, not one that was made under its name meanwhile.
    pub async fn delete_known(&self, topic: Arc<Topic>) -> Result<Arc<Topic>, LogError> {
        let reply = self.meta(&MetaCommand::DeleteTopic { id: topic.id }).await?;
        self.0.groups.m0.read_barrier().await?;
        match reply {
            MetaReply::Done => Ok(topic),
            MetaReply::UnknownTopic => Err(LogError::UnknownTopicOrPartition),
            other => Err(unexpected(&other)),
        }
    }

    /// Grows a topic to `total` partitions.
    pub async fn create_partitions(
        &self,
        name: &str,
        total: i32,
        mode: Mode,
    ) -> Result<Arc<Topic>, LogError> {
        let topic = self.resolve_surely(TopicRef::Name(name)).await?;
        let held = topic.partitions.len();
        let wanted = u32::try_from(total).unwrap_or(0);
        let not_more = |held: usize| {
            let text = if usize::try_from(total) == Ok(held) {
                format!("Topic already has {held} partition(s).")
            } else {
                format!(
                    "The topic {name} currently has {held} partition(s); {total} would not be an \
                     increase."
                )
            };
            LogError::InvalidPartitions(text)
        };
        if usize::try_from(total).is_ok_and(|total| total <= held) || wanted == 0 {
            return Err(not_more(held));
        }
        if wanted > MAX_PARTITIONS {
            return Err(LogError::InvalidPartitions(format!(
                "at most {MAX_PARTITIONS} partitions"
            )));
        }
        if mode == Mode::ValidateOnly {
            return Ok(topic);
        }
        let data_groups = self.data_groups();
        let command = MetaCommand::CreatePartitions { id: topic.id, total: wanted, data_groups };
        match self.meta(&command).await? {
            MetaReply::Created { first } => self.confirm(topic.id, first).await,
            MetaReply::NotMore(held) => Err(not_more(usize::try_from(held).unwrap_or(0))),
            MetaReply::UnknownTopic => Err(LogError::UnknownTopicOrPartition),
            MetaReply::TooMany => {
                Err(LogError::InvalidPartitions("the cluster has too many partitions".to_owned()))
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Remembers the nodes that were named for the partitions of a topic from `first` on. They are
    /// what clients are told; data is stored on all nodes.
    pub async fn assign_replicas(
        &self,
        topic: Uuid,
        first: u32,
        replicas: Vec<Vec<NodeId>>,
    ) -> Result<(), LogError> {
        let reply = self.meta(&MetaCommand::AssignReplicas { id: topic, first, replicas }).await?;
        self.0.groups.m0.read_barrier().await?;
        match reply {
            MetaReply::Done => Ok(()),
            MetaReply::UnknownTopic => Err(LogError::UnknownTopicOrPartition),
            other => Err(unexpected(&other)),
        }
    }

    /// Changes settings of a topic, all or none.
    pub async fn alter_configs(
        &self,
        name: &str,
        changes: &[ConfigChange],
        mode: Mode,
    ) -> Result<(), LogError> {
        let topic = self.resolve_surely(TopicRef::Name(name)).await?;
        let (mut set, mut remove) = (Vec::new(), Vec::new());
        for change in changes {
            match change {
                ConfigChange::Set(name, value) => {
                    configs::check(name, value)?;
                    set.push((name.clone(), value.clone()));
                }
                ConfigChange::Remove(name) => remove.push(name.clone()),
            }
        }
        let mut merged = topic.configs.clone();
        merged.retain(|name, _| !remove.contains(name));
        merged.extend(set.iter().cloned());
        configs::check_together(&merged, &self.topic_defaults())?;
        if mode == Mode::ValidateOnly {
            return Ok(());
        }
        match self.meta(&MetaCommand::AlterConfigs { id: topic.id, set, remove }).await? {
            MetaReply::Done => {}
            MetaReply::UnknownTopic => return Err(LogError::UnknownTopicOrPartition),
            other => return Err(unexpected(&other)),
        }
        self.0.groups.m0.read_barrier().await?;
        let topic = self.topic_by_id(topic.id).ok_or(LogError::UnknownTopicOrPartition)?;
        let settings = topic.settings.replica;
        self.each_partition(&topic, 0, |key| Control::ConfigureReplica { key, settings }).await
    }

    /// Defaults of topic settings that are set for the whole cluster, by their broker names.
    pub fn topic_defaults(&self) -> BTreeMap<String, String> {
        self.0.shared.topics().defaults()
    }

    /// What is set explicitly and no topic's own.
    pub fn settings(&self, of: &SettingsOf) -> BTreeMap<String, String> {
        self.0.shared.topics().settings(of)
    }

    /// Changes settings that are no topic's own, all or none. Partitions follow defaults of topics
    /// with the next reconciliation.
    pub async fn alter_settings(
        &self,
        of: SettingsOf,
        changes: &[ConfigChange],
        mode: Mode,
    ) -> Result<(), LogError> {
        let (mut set, mut remove) = (Vec::new(), Vec::new());
        for change in changes {
            match change {
                ConfigChange::Set(name, value) => {
                    configs::check_setting(&of, name, value)?;
                    set.push((name.clone(), value.clone()));
                }
                ConfigChange::Remove(name) => remove.push(name.clone()),
            }
        }
        if mode == Mode::ValidateOnly {
            return Ok(());
        }
        match self.meta(&MetaCommand::AlterSettings { of, set, remove }).await? {
            MetaReply::Done => Ok(self.0.groups.m0.read_barrier().await?),
            MetaReply::TooMany => {
                let text = format!("more than {MAX_GROUPS_WITH_SETTINGS} groups have settings");
                Err(LogError::InvalidRequest(text))
            }
            other => Err(unexpected(&other)),
        }
    }

    fn data_groups(&self) -> u16 {
        u16::try_from(self.0.groups.data.len()).unwrap_or(u16::MAX)
    }

    /// Changes what `m0` keeps. Its leader is nothing that clients know: where it has none, their
    /// requests time out, as those of a Kafka broker without a controller.
    pub(super) async fn meta(&self, command: &MetaCommand) -> Result<MetaReply, LogError> {
        let command = codec::try_encode(command)?;
        let applied = self.0.groups.m0.propose(tags::LOG, command.into()).await;
        let applied = applied.map_err(|error| match error.into() {
            LogError::NotLeader { .. } => LogError::Timeout,
            other => other,
        })?;
        decode_reply(&applied.reply)
    }

    /// Waits until this node knows the topic and its groups have the partitions from `first` on.
    async fn confirm(&self, id: Uuid, first: u32) -> Result<Arc<Topic>, LogError> {
        self.0.groups.m0.read_barrier().await?;
        let topic = self.topic_by_id(id).ok_or(LogError::UnknownTopicOrPartition)?;
        let settings = topic.settings.replica;
        self.each_partition(&topic, first, |key| Control::CreateReplica { key, settings }).await?;
        Ok(topic)
    }

    /// Sends a command to the group of each partition from `first` on.
    async fn each_partition(
        &self,
        topic: &Topic,
        first: u32,
        command: impl Fn(PartKey) -> Control,
    ) -> Result<(), LogError> {
        let numbered = (0u32..).zip(&topic.partitions).filter(|(number, _)| *number >= first);
        let mut commands = Vec::new();
        for (partition, group) in numbered {
            let group = self.0.groups.get(*group).ok_or(LogError::UnknownTopicOrPartition)?;
            commands.push((group.clone(), command(PartKey { topic: topic.id, partition })));
        }
        self.control_all(commands).await.into_iter().collect()
    }

    /// The topic that a specification asks for, without id and groups.
    fn checked(&self, spec: &TopicSpec) -> Result<Topic, LogError> {
        check_name(&spec.name)?;
        let options = self.0.options;
        let count =
            if spec.partitions == -1 { options.default_partitions } else { spec.partitions };
        let partitions = u32::try_from(count).ok().filter(|n| (1..=MAX_PARTITIONS).contains(n));
        let Some(partitions) = partitions else {
            let text = "Number of partitions must be larger than 0 and at most 1000.";
            return Err(LogError::InvalidPartitions(text.to_owned()));
        };
        let replication_factor = match spec.replication_factor {
            -1 => options.default_replication_factor,
            n @ 1..=3 => n,
            n if n < 1 => {
                let text = "Replication factor must be larger than 0.";
                return Err(LogError::InvalidReplicationFactor(text.to_owned()));
            }
            n => {
                let text = format!(
                    "Unable to replicate the partition {n} time(s): The target \
                     replication factor of {n} cannot be reached because only 3 broker(s) are \
                     registered."
                );
                return Err(LogError::InvalidReplicationFactor(text));
            }
        };
        for (name, value) in &spec.configs {
            configs::check(name, value)?;
        }
        let configs = spec.configs.iter().cloned().collect();
        configs::check_together(&configs, &self.topic_defaults())?;
        let groups = &self.0.groups.data;
        let partitions = (0..partitions).zip(groups.iter().cycle()).map(|(_, g)| g.id()).collect();
        let settings = TopicSettings::of(&configs, &self.0.shared.topics().defaults());
        let (name, id, replicas) = (spec.name.clone(), Uuid::nil(), BTreeMap::new());
        Ok(Topic { name, id, partitions, replication_factor, replicas, configs, settings })
    }
}

/// Kafka's rule for topic names.
pub fn check_name(name: &str) -> Result<(), LogError> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let text = if name.is_empty() {
        "Topic name is invalid: the empty string is not allowed".to_owned()
    } else if name == "." || name == ".." {
        "Topic name is invalid: '.' or '..' is not allowed".to_owned()
    } else if name.len() > MAX_TOPIC_NAME {
        format!(
            "Topic name is invalid: the length of '{name}' is longer than the max \
             allowed length {MAX_TOPIC_NAME}"
        )
    } else if !name.bytes().all(legal) {
        format!(
            "Topic name is invalid: '{name}' contains one or more characters \
             other than ASCII alphanumerics, '.', '_' and '-'"
        )
    } else {
        return Ok(());
    };
    Err(LogError::InvalidTopic(text))
}

fn collides(name: &str, other: &str) -> LogError {
    LogError::InvalidTopic(format!("Topic '{name}' collides with existing topics: {other}"))
}

fn unexpected(reply: &MetaReply) -> LogError {
    LogError::Internal(format!("m0 answered {reply:?}"))
}

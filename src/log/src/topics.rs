//! Topics: the desired state, in `m0`.
//!
//! Rows: `T` + topic id: the topic; `A` + topic id: replicas that were asked for by name, where
//! there are any; `I`: next producer id; `D`, `DB` + broker and `DG` + group: settings that are no
//! topic's own, defaults of topics among them.
//! All of it is also in memory, for readers of this node.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{GroupId, NodeId, codec};
use bytes::Bytes;
use consensus::{ApplyAt, Fatal, Rows, StateMachine};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use uuid::Uuid;

use crate::command::{MetaCommand, MetaReply};
use crate::configs::TopicSettings;
use crate::limits::{MAX_ALL_PARTITIONS, MAX_GROUPS_WITH_SETTINGS, MAX_PARTITIONS};
use crate::types::{SettingsOf, Topic};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct TopicRow {
    name: String,
    id: Uuid,
    partitions: Vec<GroupId>,
    replication_factor: i16,
    configs: BTreeMap<String, String>,
}

impl TopicRow {
    fn topic(self, defaults: &BTreeMap<String, String>) -> Topic {
        let settings = TopicSettings::of(&self.configs, defaults);
        Topic {
            name: self.name,
            id: self.id,
            partitions: self.partitions,
            replication_factor: self.replication_factor,
            replicas: BTreeMap::new(),
            configs: self.configs,
            settings,
        }
    }

    fn of(topic: &Topic) -> Self {
        Self {
            name: topic.name.clone(),
            id: topic.id,
            partitions: topic.partitions.clone(),
            replication_factor: topic.replication_factor,
            configs: topic.configs.clone(),
        }
    }
}

type Settings = BTreeMap<String, String>;

#[derive(Default)]
struct Maps {
    by_name: BTreeMap<String, Arc<Topic>>,
    by_id: BTreeMap<Uuid, Arc<Topic>>,
    /// What is set and no topic's own. Of the cluster: defaults of topics, by their broker names.
    settings: BTreeMap<SettingsOf, Settings>,
}

/// The topics that this node has applied. Cloning shares them.
#[derive(Clone)]
pub(crate) struct Topics {
    maps: Arc<RwLock<Maps>>,
    pub(crate) changes: watch::Sender<u64>,
}

impl Default for Topics {
    fn default() -> Self {
        Self { maps: Arc::default(), changes: watch::Sender::new(0) }
    }
}

impl Topics {
    pub(crate) fn all(&self) -> Vec<Arc<Topic>> {
        self.maps.read().by_name.values().cloned().collect()
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<Arc<Topic>> {
        self.maps.read().by_name.get(name).cloned()
    }

    pub(crate) fn by_id(&self, id: Uuid) -> Option<Arc<Topic>> {
        self.maps.read().by_id.get(&id).cloned()
    }

    /// Defaults of topic settings for the whole cluster, by their broker names.
    pub(crate) fn defaults(&self) -> Settings {
        self.settings(&SettingsOf::Cluster)
    }

    /// What is set explicitly and no topic's own.
    pub(crate) fn settings(&self, of: &SettingsOf) -> Settings {
        self.maps.read().settings.get(of).cloned().unwrap_or_default()
    }

    fn groups_with_settings(&self) -> usize {
        let maps = self.maps.read();
        maps.settings.keys().filter(|of| matches!(of, SettingsOf::Group(_))).count()
    }

    fn set_settings(&self, of: SettingsOf, settings: Settings) {
        if of == SettingsOf::Cluster {
            self.set_defaults(&settings);
        }
        let mut maps = self.maps.write();
        if settings.is_empty() {
            maps.settings.remove(&of);
        } else {
            maps.settings.insert(of, settings);
        }
    }

    fn set_defaults(&self, defaults: &Settings) {
        let mut maps = self.maps.write();
        let with_defaults = |known: &Arc<Topic>| {
            // The row does not hold the replicas that were named.
            let replicas = known.replicas.clone();
            Topic { replicas, ..TopicRow::of(known).topic(defaults) }
        };
        let topics: Vec<Topic> = maps.by_id.values().map(with_defaults).collect();
        for topic in topics {
            let topic = Arc::new(topic);
            maps.by_name.insert(topic.name.clone(), topic.clone());
            maps.by_id.insert(topic.id, topic);
        }
        drop(maps);
        self.changes.send_modify(|n| *n += 1);
    }

    /// A topic whose name Kafka's metrics could not tell from `name`.
    pub(crate) fn collision(&self, name: &str) -> Option<String> {
        let plain = |byte: u8| if byte == b'.' { b'_' } else { byte };
        let same = |other: &str| {
            other.len() == name.len() && other.bytes().map(plain).eq(name.bytes().map(plain))
        };
        self.maps.read().by_name.keys().find(|other| same(other)).cloned()
    }

    fn count(&self) -> usize {
        self.maps.read().by_name.values().map(|t| t.partitions.len()).sum()
    }

    fn put(&self, topic: Topic) {
        let topic = Arc::new(topic);
        let mut maps = self.maps.write();
        maps.by_name.insert(topic.name.clone(), topic.clone());
        maps.by_id.insert(topic.id, topic);
        drop(maps);
        self.changes.send_modify(|n| *n += 1);
    }

    fn remove(&self, id: Uuid) -> bool {
        let mut maps = self.maps.write();
        let Some(topic) = maps.by_id.remove(&id) else { return false };
        maps.by_name.remove(&topic.name);
        drop(maps);
        self.changes.send_modify(|n| *n += 1);
        true
    }

    /// Puts other topics in the place of all, at once: readers must not take them for deleted.
    fn replace(&self, other: &Self) {
        let maps = std::mem::take(&mut *other.maps.write());
        *self.maps.write() = maps;
        self.changes.send_modify(|n| *n += 1);
    }
}

/// The machine for topics.
pub(crate) struct MetaMachine {
    topics: Topics,
    next_producer_id: i64,
}

impl MetaMachine {
    pub(crate) fn new(topics: Topics) -> Self {
        Self { topics, next_producer_id: 0 }
    }

    /// The data groups of partitions `first` and following of a topic: one after the other, from
    /// one that the name gives. So a topic that is made anew under its name finds its partitions
    /// in the same groups, and their leader epochs, which are the groups' terms, never go back:
    /// librdkafka believes no metadata with a lower epoch, also when the topic's id has changed.
    fn place(name: &str, first: u32, count: u32, data_groups: u16) -> Vec<GroupId> {
        let groups = u64::from(data_groups.max(1));
        let start = u64::from(base::crc::crc32c(name.as_bytes())) + u64::from(first);
        let numbers = (start..start + u64::from(count)).map(|n| n % groups);
        numbers.map(|n| GroupId::data(u16::try_from(n).unwrap_or(0))).collect()
    }

    /// Saves a topic's row; the replicas named for it stay what they are.
    fn save(&self, row: TopicRow, rows: &mut Rows<'_>) {
        rows.put(&topic_key(row.id), codec::encode(&row));
        let mut topic = row.topic(&self.topics.defaults());
        if let Some(known) = self.topics.by_id(topic.id) {
            topic.replicas = known.replicas.clone();
        }
        self.topics.put(topic);
    }

    fn assign_replicas(
        &self,
        id: Uuid,
        first: u32,
        replicas: Vec<Vec<NodeId>>,
        rows: &mut Rows<'_>,
    ) -> MetaReply {
        let Some(topic) = self.topics.by_id(id) else { return MetaReply::UnknownTopic };
        let mut topic = Topic::clone(&topic);
        let held = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
        topic.replicas.extend((first..held).zip(replicas));
        rows.put(&replicas_key(id), codec::encode(&topic.replicas));
        self.topics.put(topic);
        MetaReply::Done
    }

    fn run(&mut self, command: MetaCommand, rows: &mut Rows<'_>) -> MetaReply {
        match command {
            MetaCommand::CreateTopic {
                name,
                id,
                partitions,
                replication_factor,
                configs,
                data_groups,
            } => {
                if self.topics.by_name(&name).is_some() || self.topics.by_id(id).is_some() {
                    return MetaReply::TopicExists;
                }
                if let Some(other) = self.topics.collision(&name) {
                    return MetaReply::NameCollides(other);
                }
                if !self.has_room(0, partitions) {
                    return MetaReply::TooMany;
                }
                let partitions = Self::place(&name, 0, partitions, data_groups);
                let configs = configs.into_iter().collect();
                let row = TopicRow { name, id, partitions, replication_factor, configs };
                self.save(row, rows);
                MetaReply::Created { first: 0 }
            }
            MetaCommand::DeleteTopic { id } => {
                rows.delete(&topic_key(id));
                rows.delete(&replicas_key(id));
                if self.topics.remove(id) { MetaReply::Done } else { MetaReply::UnknownTopic }
            }
            MetaCommand::CreatePartitions { id, total, data_groups } => {
                self.create_partitions(id, total, data_groups, rows)
            }
            MetaCommand::AlterConfigs { id, set, remove } => {
                let Some(topic) = self.topics.by_id(id) else { return MetaReply::UnknownTopic };
                let mut row = TopicRow::of(&topic);
                remove.iter().for_each(|name| {
                    row.configs.remove(name);
                });
                row.configs.extend(set);
                self.save(row, rows);
                MetaReply::Done
            }
            MetaCommand::AlterSettings { of, set, remove } => {
                self.alter_settings(of, set, &remove, rows)
            }
            MetaCommand::AllocateProducerIds { count } => {
                let first = self.next_producer_id;
                self.next_producer_id = first.saturating_add(i64::from(count));
                rows.put(b"I", codec::encode(&self.next_producer_id));
                MetaReply::ProducerIds { first }
            }
            MetaCommand::AssignReplicas { id, first, replicas } => {
                self.assign_replicas(id, first, replicas, rows)
            }
        }
    }

    fn alter_settings(
        &self,
        of: SettingsOf,
        set: Vec<(String, String)>,
        remove: &[String],
        rows: &mut Rows<'_>,
    ) -> MetaReply {
        let mut settings = self.topics.settings(&of);
        let new = settings.is_empty() && matches!(of, SettingsOf::Group(_));
        if new && self.topics.groups_with_settings() >= MAX_GROUPS_WITH_SETTINGS {
            return MetaReply::TooMany;
        }
        settings.retain(|name, _| !remove.contains(name));
        settings.extend(set);
        if settings.is_empty() {
            rows.delete(&settings_key(&of));
        } else {
            rows.put(&settings_key(&of), codec::encode(&(&of, &settings)));
        }
        self.topics.set_settings(of, settings);
        MetaReply::Done
    }

    fn has_room(&self, held: usize, wanted: u32) -> bool {
        let wanted_count = usize::try_from(wanted).unwrap_or(usize::MAX);
        let all = self.topics.count().saturating_add(wanted_count.saturating_sub(held));
        wanted <= MAX_PARTITIONS && all <= MAX_ALL_PARTITIONS
    }

    fn create_partitions(
        &mut self,
        id: Uuid,
        total: u32,
        data_groups: u16,
        rows: &mut Rows<'_>,
    ) -> MetaReply {
        let Some(topic) = self.topics.by_id(id) else { return MetaReply::UnknownTopic };
        let held = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
        if total <= held {
            return MetaReply::NotMore(held);
        }
        if !self.has_room(topic.partitions.len(), total) {
            return MetaReply::TooMany;
        }
        let mut row = TopicRow::of(&topic);
        row.partitions.extend(Self::place(&topic.name, held, total - held, data_groups));
        self.save(row, rows);
        MetaReply::Created { first: held }
    }
}

fn topic_key(id: Uuid) -> Vec<u8> {
    [b"T", &id.as_bytes()[..]].concat()
}

fn replicas_key(id: Uuid) -> Vec<u8> {
    [b"A", &id.as_bytes()[..]].concat()
}

fn settings_key(of: &SettingsOf) -> Vec<u8> {
    match of {
        SettingsOf::Cluster => b"D".to_vec(),
        SettingsOf::Broker(node) => [b"DB", &node.0.to_be_bytes()[..]].concat(),
        SettingsOf::Group(name) => [b"DG", name.as_bytes()].concat(),
    }
}

impl StateMachine for MetaMachine {
    fn apply(&mut self, _: &ApplyAt, command: Bytes, rows: &mut Rows<'_>) -> Result<Bytes, Fatal> {
        // What does not decode was proposed by a newer version or is damaged: no reply decodes
        // from nothing, so the proposer sees an error.
        let Ok(command) = codec::decode(&command) else { return Ok(Bytes::new()) };
        Ok(codec::encode(&self.run(command, rows)).into())
    }

    fn restore(&mut self, rows: &Rows<'_>) -> Result<(), Fatal> {
        let topics = Topics::default();
        for (_, value) in rows.scan(b"D")? {
            let (of, settings) = codec::decode(&value)?;
            topics.set_settings(of, settings);
        }
        let defaults = topics.defaults();
        for (_, value) in rows.scan(b"T")? {
            let mut topic = codec::decode::<TopicRow>(&value)?.topic(&defaults);
            if let Some(replicas) = rows.get(&replicas_key(topic.id))? {
                topic.replicas = codec::decode(&replicas)?;
            }
            topics.put(topic);
        }
        self.topics.replace(&topics);
        let id = rows.get(b"I")?.map(|value| codec::decode(&value)).transpose()?;
        self.next_producer_id = id.unwrap_or(0);
        Ok(())
    }
}

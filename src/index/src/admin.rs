//! Creating, changing and deleting indices.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::GroupId;
use consensus::tags;
use futures::future::join_all;
use serde_json::Value;

use crate::command::{AliasAction, CatalogCommand, NewIndex, ShardCommand};
use crate::error::EsError;
use crate::limits::{CREATE_TIMEOUT, MAX_COPIES};
use crate::model::{IndexMeta, IndexState, IndexUuid, ShardId};
use crate::names::{validate_alias_name, validate_index_name};
use crate::service::IndexService;
use crate::settings::{self, Settings};

/// What a client wants of a new index.
#[derive(Clone, Debug, Default)]
pub struct CreateSpec {
    /// Flat settings.
    pub settings: Settings,
    /// Mapping, as JSON.
    pub mapping: Option<Value>,
    /// Aliases and their definitions.
    pub aliases: BTreeMap<String, Value>,
}

/// Health of an index, worst first when compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// A shard has no leader.
    Red,
    /// A copy is missing.
    Yellow,
    /// All is there.
    Green,
}

impl Health {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Red => "red",
            Self::Yellow => "yellow",
            Self::Green => "green",
        }
    }
}

impl IndexService {
    /// Creates an index and waits for its shards. `Ok(false)`: the index exists, but a shard was
    /// not confirmed in time; it will be created in the background.
    pub async fn create(&self, name: &str, spec: CreateSpec) -> Result<bool, EsError> {
        validate_index_name(name)?;
        settings::validate(&spec.settings)?;
        let mut aliases = BTreeMap::new();
        for (alias, definition) in &spec.aliases {
            validate_alias_name(alias)?;
            aliases.insert(alias.clone(), definition.to_string());
        }
        let mut kept = spec.settings;
        kept.retain(|_, value| !value.is_null());
        let shards = settings::number(&kept, "index.number_of_shards").unwrap_or(1);
        let replicas = settings::number(&kept, "index.number_of_replicas").unwrap_or(1);
        kept.insert("index.number_of_shards".to_owned(), shards.to_string().into());
        kept.insert("index.number_of_replicas".to_owned(), replicas.to_string().into());
        expand_replicas(&mut kept, self.peers.all().len());
        let replicas = settings::number(&kept, "index.number_of_replicas").unwrap_or(replicas);
        let empty = Value::Object(serde_json::Map::new());
        let mapping = crate::mapping::normalize(spec.mapping.as_ref().unwrap_or(&empty), &kept)?;
        let new = NewIndex {
            name: name.to_owned(),
            uuid: IndexUuid(self.shared.env.random.uuid_bytes()),
            shards: u16::try_from(shards).unwrap_or(1),
            replicas,
            settings: serde_json::to_string(&kept).map_err(|e| EsError::internal(e.to_string()))?,
            mapping,
            aliases,
            data_groups: u16::try_from(self.groups.data.len()).unwrap_or(1),
        };
        let index = new.uuid;
        let done = self.change(&CatalogCommand::Create(new)).await?;
        let shards = (0..).zip(done.shards).map(|(number, g)| (ShardId { index, number }, g));
        let shards: Vec<_> = shards.collect();
        let ready = tokio::time::timeout(CREATE_TIMEOUT, self.create_shards(&shards)).await;
        Ok(ready.is_ok_and(|created| created))
    }

    /// Creates shards in their groups and waits until this node serves them.
    pub(crate) async fn create_shards(&self, shards: &[(ShardId, GroupId)]) -> bool {
        let calls = shards.iter().map(|(id, group)| async move {
            let Ok(group) = self.group(*group) else { return false };
            let command = ShardCommand::Create(*id).encode();
            if let Err(error) = group.propose(tags::INDEX, command).await {
                tracing::debug!(shard = ?id, "a shard waits for the next comparison: {error}");
                return false;
            }
            if group.read_barrier().await.is_err() {
                return false;
            }
            self.wait_started(*id).await
        });
        join_all(calls).await.into_iter().all(|ok| ok)
    }

    async fn wait_started(&self, id: ShardId) -> bool {
        let Some(copy) = self.shared.copy(id) else { return false };
        let pause = std::time::Duration::from_millis(2);
        while !copy.is_started() {
            if copy.is_closed() {
                return false;
            }
            tokio::time::sleep(pause).await;
        }
        true
    }

    /// Deletes indices. Their shards go with the next comparison, which starts at once.
    pub async fn delete(&self, indices: &[Arc<IndexMeta>]) -> Result<(), EsError> {
        let uuids: Vec<_> = indices.iter().map(|meta| meta.uuid()).collect();
        self.change(&CatalogCommand::Delete { uuids }).await?;
        let shards = indices.iter().flat_map(|meta| meta.shards().collect::<Vec<_>>());
        let calls = shards.map(|(id, group)| async move {
            let Ok(group) = self.group(group) else { return };
            let command = ShardCommand::Delete(id).encode();
            if let Err(error) = group.propose(tags::INDEX, command).await {
                tracing::debug!(shard = ?id, "a shard waits for the next comparison: {error}");
            }
        });
        join_all(calls).await;
        Ok(())
    }

    /// Merges a mapping into those of indices.
    pub async fn put_mapping(
        &self,
        indices: &[Arc<IndexMeta>],
        mapping: &Value,
    ) -> Result<(), EsError> {
        for meta in indices {
            let mapping = crate::mapping::normalize(mapping, &meta.settings)?;
            self.change(&CatalogCommand::PutMapping { uuid: meta.uuid(), mapping }).await?;
        }
        Ok(())
    }

    /// Changes settings of indices.
    pub async fn put_settings(
        &self,
        indices: &[Arc<IndexMeta>],
        mut change: Settings,
        keep_existing: bool,
    ) -> Result<(), EsError> {
        for meta in indices {
            settings::validate_update(&change, meta.name(), &meta.uuid().to_string())?;
        }
        expand_replicas(&mut change, self.peers.all().len());
        let text = serde_json::to_string(&change).map_err(|e| EsError::internal(e.to_string()))?;
        let uuids = indices.iter().map(|meta| meta.uuid()).collect();
        let command = CatalogCommand::PutSettings { uuids, settings: text, keep_existing };
        self.change(&command).await.map(|_| ())
    }

    /// Changes aliases, all or none.
    pub async fn change_aliases(&self, actions: Vec<AliasAction>) -> Result<(), EsError> {
        for action in &actions {
            if let AliasAction::Add { alias, .. } = action {
                validate_alias_name(alias)?;
            }
        }
        self.change(&CatalogCommand::Aliases { actions }).await.map(|_| ())
    }

    /// Opens or closes indices.
    pub async fn set_state(
        &self,
        indices: &[Arc<IndexMeta>],
        state: IndexState,
    ) -> Result<(), EsError> {
        let uuids = indices.iter().map(|meta| meta.uuid()).collect();
        self.change(&CatalogCommand::SetState { uuids, state }).await.map(|_| ())
    }

    /// Sets (`Some`) or removes a named definition.
    pub async fn put_blob(
        &self,
        kind: &str,
        name: &str,
        json: Option<&Value>,
    ) -> Result<(), EsError> {
        let command = CatalogCommand::PutBlob {
            kind: kind.to_owned(),
            name: name.to_owned(),
            json: json.map(Value::to_string),
        };
        self.change(&command).await.map(|_| ())
    }

    /// Copies of each shard that there are now: one per living node, at most as many as asked
    /// for. Every node keeps every shard, because any of them may have to lead at once.
    pub fn active_copies(&self, meta: &IndexMeta) -> u32 {
        let alive = self.nodes().into_iter().filter(|(_, alive)| *alive).count();
        let alive = u32::try_from(alive).unwrap_or(MAX_COPIES).min(MAX_COPIES);
        alive.min(meta.row.replicas.saturating_add(1))
    }

    /// Health of an index as this node sees it.
    pub fn health(&self, meta: &IndexMeta) -> Health {
        let led = |group: GroupId| {
            let leader = self.leadership(group).leader;
            leader.is_some_and(|node| self.peers.is_alive(node))
        };
        let all = meta.shards().all(|(id, group)| led(group) && self.shared.copy(id).is_some());
        if !all {
            return Health::Red;
        }
        let wanted = meta.row.replicas.saturating_add(1);
        if self.active_copies(meta) < wanted { Health::Yellow } else { Health::Green }
    }
}

/// `auto_expand_replicas: 0-1` sets the number of replicas by the number of nodes.
fn expand_replicas(settings: &mut Settings, nodes: usize) {
    let Some(text) = settings.get("index.auto_expand_replicas").and_then(Value::as_str) else {
        return;
    };
    let Some((low, high)) = text.split_once('-') else { return };
    let most = nodes.saturating_sub(1);
    let high = if high == "all" { most } else { high.parse().unwrap_or(most) };
    let low: usize = low.parse().unwrap_or(0);
    let replicas = most.min(high).max(low);
    settings.insert("index.number_of_replicas".to_owned(), replicas.to_string().into());
}

//! The catalog's state machine in `m0`.
//!
//! Rows: `i` + name → [`IndexRow`], `b` + kind + NUL + name → JSON, `g` → the data group that
//! the next shard goes to. Everything is also in RAM as [`Catalog`], replaced as a whole with
//! each change.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::GroupId;
use base::codec::{decode, encode, try_encode};
use bytes::Bytes;
use consensus::machine::{ApplyAt, Fatal, StateMachine};
use consensus::table::Rows;
use serde_json::Value;

use crate::command::{AliasAction, CatalogCommand, CatalogReply, NewIndex};
use crate::error::EsError;
use crate::model::{Catalog, IndexMeta, IndexRow, IndexState, IndexUuid};
use crate::service::too_large;
use crate::settings::Settings;
use crate::shared::IndexShared;

const NEXT_GROUP: &[u8] = b"g";

/// See the module's documentation.
pub(crate) struct CatalogMachine {
    shared: Arc<IndexShared>,
    catalog: Catalog,
}

impl CatalogMachine {
    pub(crate) fn new(shared: Arc<IndexShared>) -> Self {
        Self { shared, catalog: Catalog::default() }
    }

    fn run(
        &mut self,
        at: &ApplyAt,
        command: CatalogCommand,
        rows: &mut Rows<'_>,
    ) -> Result<CatalogReply, Refusal> {
        match command {
            CatalogCommand::Create(new) => self.create(at, new, rows),
            CatalogCommand::Delete { uuids } => {
                self.delete(&uuids, rows);
                Ok(done())
            }
            CatalogCommand::PutMapping { uuid, mapping } => {
                let mut row = self.row(uuid)?;
                put_mapping(&mut row, &mapping)?;
                let mapping_version = row.mapping_version;
                self.store(row, rows)?;
                Ok(CatalogReply::Done { shards: Vec::new(), mapping_version })
            }
            CatalogCommand::PutSettings { uuids, settings, keep_existing } => {
                let mut changed = Vec::new();
                for uuid in uuids {
                    let mut row = self.row(uuid)?;
                    put_settings(&mut row, &settings, keep_existing)?;
                    changed.push(self.prepare(row)?);
                }
                self.store_all(changed, rows);
                Ok(done())
            }
            CatalogCommand::Aliases { actions } => self.aliases(actions, rows),
            CatalogCommand::SetState { uuids, state } => {
                let mut changed = Vec::new();
                for uuid in uuids {
                    let mut row = self.row(uuid)?;
                    row.state = state;
                    changed.push(self.prepare(row)?);
                }
                self.store_all(changed, rows);
                Ok(done())
            }
            CatalogCommand::PutBlob { kind, name, json } => {
                self.put_blob(kind, name, json, rows)?;
                Ok(done())
            }
        }
    }

    fn create(
        &mut self,
        at: &ApplyAt,
        new: NewIndex,
        rows: &mut Rows<'_>,
    ) -> Result<CatalogReply, Refusal> {
        self.refuse_taken(&new)?;
        let mut next = match rows.get(NEXT_GROUP)? {
            Some(bytes) => decode::<u16>(&bytes)?,
            None => 0,
        };
        let groups = new.data_groups.max(1);
        let mut shards = Vec::new();
        for _ in 0..new.shards {
            shards.push(GroupId::data(next % groups));
            next = (next + 1) % groups;
        }
        let row = IndexRow {
            name: new.name,
            uuid: new.uuid,
            created_ms: at.time_ms,
            shards: shards.clone(),
            replicas: new.replicas,
            settings: new.settings,
            mapping: new.mapping,
            mapping_version: 1,
            settings_version: 1,
            aliases: new.aliases,
            state: IndexState::Open,
        };
        self.store(row, rows)?;
        rows.put(NEXT_GROUP, encode(&next));
        Ok(CatalogReply::Done { shards, mapping_version: 1 })
    }

    fn refuse_taken(&self, new: &NewIndex) -> Result<(), EsError> {
        if let Some(meta) = self.catalog.indices.get(&new.name) {
            return Err(exists(meta));
        }
        if self.catalog.with_alias(&new.name).next().is_some() {
            let why = format!("Invalid index name [{}], already exists as alias", new.name);
            let error = EsError::new(400, "invalid_index_name_exception", why);
            return Err(error.with("index_uuid", "_na_").with("index", new.name.as_str()));
        }
        for alias in new.aliases.keys() {
            if let Some(meta) = self.catalog.indices.get(alias) {
                return Err(alias_is_index(alias, meta));
            }
        }
        Ok(())
    }

    fn delete(&mut self, uuids: &[IndexUuid], rows: &mut Rows<'_>) {
        for uuid in uuids {
            let name = self.catalog.by_uuid(*uuid).map(|meta| meta.name().to_owned());
            let Some(name) = name else { continue };
            rows.delete(&index_key(&name));
            self.catalog.indices.remove(&name);
        }
    }

    fn aliases(
        &mut self,
        actions: Vec<AliasAction>,
        rows: &mut Rows<'_>,
    ) -> Result<CatalogReply, Refusal> {
        // All or none: changes are made to a copy of the rows first.
        let mut changed: BTreeMap<IndexUuid, IndexRow> = BTreeMap::new();
        let mut removed = Vec::new();
        for action in actions {
            match action {
                AliasAction::Add { uuid, alias, definition } => {
                    if let Some(meta) = self.catalog.indices.get(&alias)
                        && !removed.contains(&meta.uuid())
                    {
                        return Err(alias_is_index(&alias, meta).into());
                    }
                    self.edit(&mut changed, uuid)?.aliases.insert(alias, definition);
                }
                AliasAction::Remove { uuid, alias } => {
                    self.edit(&mut changed, uuid)?.aliases.remove(&alias);
                }
                AliasAction::RemoveIndex { uuid } => removed.push(uuid),
            }
        }
        changed.retain(|uuid, _| !removed.contains(uuid));
        let changed = changed.into_values().map(|row| self.prepare(row));
        let changed: Vec<Prepared> = changed.collect::<Result<_, _>>()?;
        self.delete(&removed, rows);
        self.store_all(changed, rows);
        Ok(done())
    }

    fn edit<'a>(
        &self,
        changed: &'a mut BTreeMap<IndexUuid, IndexRow>,
        uuid: IndexUuid,
    ) -> Result<&'a mut IndexRow, EsError> {
        let row = self.row(uuid)?;
        Ok(changed.entry(uuid).or_insert(row))
    }

    fn put_blob(
        &mut self,
        kind: String,
        name: String,
        json: Option<String>,
        rows: &mut Rows<'_>,
    ) -> Result<(), Refusal> {
        let key = [b"b", kind.as_bytes(), b"\0", name.as_bytes()].concat();
        match json {
            Some(json) => {
                let value = parse_json(&json)?;
                rows.put(&key, try_encode(&(&kind, &name, &json)).map_err(too_large)?);
                self.catalog.blobs.insert((kind, name), value);
            }
            None => {
                rows.delete(&key);
                self.catalog.blobs.remove(&(kind, name));
            }
        }
        Ok(())
    }

    fn row(&self, uuid: IndexUuid) -> Result<IndexRow, EsError> {
        let meta = self.catalog.by_uuid(uuid);
        meta.map(|meta| meta.row.clone()).ok_or_else(|| EsError::no_index(&uuid.to_string()))
    }

    fn store(&mut self, row: IndexRow, rows: &mut Rows<'_>) -> Result<(), EsError> {
        let prepared = self.prepare(row)?;
        self.store_all(vec![prepared], rows);
        Ok(())
    }

    /// All that can be wrong with a row is found here, before anything of its command is stored.
    fn prepare(&self, row: IndexRow) -> Result<Prepared, EsError> {
        let old = self.catalog.indices.get(&row.name);
        let meta = meta_of(row, old)?;
        let row = try_encode(&meta.row).map_err(too_large)?;
        Ok(Prepared { meta, row })
    }

    fn store_all(&mut self, changed: Vec<Prepared>, rows: &mut Rows<'_>) {
        for Prepared { meta, row } in changed {
            rows.put(&index_key(meta.name()), row);
            self.catalog.indices.insert(meta.name().to_owned(), Arc::new(meta));
        }
    }

    fn publish(&mut self) {
        self.catalog.version += 1;
        self.shared.set_catalog(self.catalog.clone());
    }
}

/// An index as it will be, and its row.
struct Prepared {
    meta: IndexMeta,
    row: Vec<u8>,
}

/// Either the client's fault, which is a reply, or the end of this node.
enum Refusal {
    Client(EsError),
    Fatal(Fatal),
}

impl From<EsError> for Refusal {
    fn from(error: EsError) -> Self {
        Self::Client(error)
    }
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        Self::Fatal(error.into())
    }
}

impl From<base::codec::DecodeError> for Refusal {
    fn from(error: base::codec::DecodeError) -> Self {
        Self::Fatal(error.into())
    }
}

impl StateMachine for CatalogMachine {
    fn apply(&mut self, at: &ApplyAt, command: Bytes, rows: &mut Rows<'_>) -> Result<Bytes, Fatal> {
        let command = decode::<CatalogCommand>(&command)?;
        let reply = match self.run(at, command, rows) {
            Ok(reply) => {
                self.publish();
                reply
            }
            Err(Refusal::Client(error)) => CatalogReply::Refused(error),
            Err(Refusal::Fatal(fatal)) => return Err(fatal),
        };
        // An error may repeat what the client sent.
        let encoded = try_encode(&reply)
            .unwrap_or_else(|error| encode(&CatalogReply::Refused(too_large(error))));
        Ok(encoded.into())
    }

    fn restore(&mut self, rows: &Rows<'_>) -> Result<(), Fatal> {
        let version = self.catalog.version;
        self.catalog = Catalog { version, ..Catalog::default() };
        for (_, value) in rows.scan(b"i")? {
            let meta = meta_of(decode(&value)?, None).map_err(|e| Fatal(e.to_string()))?;
            self.catalog.indices.insert(meta.name().to_owned(), Arc::new(meta));
        }
        for (_, value) in rows.scan(b"b")? {
            let (kind, name, json): (String, String, String) = decode(&value)?;
            let value = parse_json(&json).map_err(|e| Fatal(e.to_string()))?;
            self.catalog.blobs.insert((kind, name), value);
        }
        self.publish();
        Ok(())
    }
}

fn done() -> CatalogReply {
    CatalogReply::Done { shards: Vec::new(), mapping_version: 0 }
}

fn index_key(name: &str) -> Vec<u8> {
    [b"i", name.as_bytes()].concat()
}

/// The error of creating an index that is there.
pub(crate) fn exists(meta: &IndexMeta) -> EsError {
    let (name, uuid) = (meta.name(), meta.uuid().to_string());
    let reason = format!("index [{name}/{uuid}] already exists");
    EsError::new(400, "resource_already_exists_exception", reason)
        .with("index_uuid", uuid)
        .with("index", name)
}

fn alias_is_index(alias: &str, meta: &IndexMeta) -> EsError {
    let reason =
        format!("Invalid alias name [{alias}], an index exists with the same name as the alias");
    EsError::new(400, "invalid_alias_name_exception", reason)
        .with("index_uuid", meta.uuid().to_string())
        .with("index", alias)
}

fn parse_json(text: &str) -> Result<Value, EsError> {
    serde_json::from_str(text).map_err(|e| EsError::parsing(e.to_string()))
}

fn put_settings(row: &mut IndexRow, change: &str, keep_existing: bool) -> Result<(), EsError> {
    let mut settings: Settings = parse_settings(&row.settings)?;
    for (name, value) in parse_settings(change)? {
        if keep_existing && settings.contains_key(&name) {
            continue;
        }
        if value.is_null() {
            settings.remove(&name);
        } else {
            settings.insert(name, value);
        }
    }
    row.replicas = crate::settings::number(&settings, "index.number_of_replicas").unwrap_or(1);
    row.settings = serde_json::to_string(&settings).map_err(|e| EsError::parsing(e.to_string()))?;
    row.settings_version += 1;
    Ok(())
}

fn parse_settings(text: &str) -> Result<Settings, EsError> {
    serde_json::from_str(text).map_err(|e| EsError::parsing(e.to_string()))
}

fn put_mapping(row: &mut IndexRow, addition: &str) -> Result<(), EsError> {
    let settings = parse_settings(&row.settings)?;
    let merged = crate::mapping::merge(&row.mapping, addition, &settings)?;
    if merged != row.mapping {
        row.mapping = merged;
        row.mapping_version += 1;
    }
    Ok(())
}

/// Parses a row's JSON parts; the parsed mapping of `old` is shared when nothing changed.
fn meta_of(row: IndexRow, old: Option<&Arc<IndexMeta>>) -> Result<IndexMeta, EsError> {
    let settings = parse_settings(&row.settings)?;
    let same = old.filter(|old| old.row.mapping == row.mapping && old.settings == settings);
    let schema = match same {
        Some(old) => old.schema.clone(),
        None => Arc::new(crate::mapping::compile(&row.mapping, &settings)?),
    };
    let mut aliases = BTreeMap::new();
    for (name, json) in &row.aliases {
        aliases.insert(name.clone(), parse_json(json)?);
    }
    Ok(IndexMeta { row, settings, schema, aliases })
}

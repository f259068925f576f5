//! Indices: create, delete, look at, change, maintain.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use index::EsError;
use index::admin::CreateSpec;
use index::blocks::{self, Access};
use index::command::AliasAction;
use index::model::{IndexMeta, IndexState, ShardId};
use index::names::{IndicesOptions, wildcard_match};
use index::remote::Maintenance;
use index::settings::{self, Settings};
use search::query::Query;
use serde_json::{Map, Value, json};

use crate::active::{Wanted, timeout_of};
use crate::app::{App, Request};
use crate::reply::Reply;

/// The answer of a change.
fn acknowledged() -> Reply {
    Reply::ok(json!({"acknowledged": true}))
}

fn shards_of(indices: &[Arc<IndexMeta>]) -> Vec<ShardId> {
    indices.iter().flat_map(|meta| meta.shards().map(|(id, _)| id).collect::<Vec<_>>()).collect()
}

fn parse_aliases(value: &Value) -> Result<BTreeMap<String, Value>, EsError> {
    let Value::Object(map) = value else {
        return Err(EsError::new(400, "parse_exception", "aliases must be an object"));
    };
    let one = |(name, definition): (&String, &Value)| {
        Ok((name.clone(), alias_definition(name, definition)?))
    };
    map.iter().map(one).collect()
}

/// `routing` stands for both kinds of routing where they are not given.
fn alias_definition(name: &str, value: &Value) -> Result<Value, EsError> {
    if let Some(filter) = value.get("filter").filter(|filter| !filter.is_null()) {
        Query::parse(filter)
            .map_err(|_| EsError::illegal(format!("failed to parse filter for alias [{name}]")))?;
    }
    let mut out = Map::new();
    for key in ["index_routing", "search_routing"] {
        match value.get(key).or_else(|| value.get("routing")) {
            None | Some(Value::Null) => continue,
            Some(Value::String(text)) => out.insert(key.to_owned(), json!(text)),
            Some(other) => out.insert(key.to_owned(), json!(other.to_string())),
        };
    }
    for key in ["filter", "is_write_index", "is_hidden"] {
        if let Some(inner) = value.get(key) {
            out.insert(key.to_owned(), inner.clone());
        }
    }
    Ok(Value::Object(out))
}

impl App {
    /// Indices that the request's `index` means.
    pub async fn indices(
        &self,
        request: &Request,
        default: IndicesOptions,
    ) -> Result<Vec<Arc<IndexMeta>>, EsError> {
        let options = request.indices_options(default)?;
        self.service.resolve(request.part("index"), options).await
    }

    /// As [`Self::indices`], when no block is in the way.
    async fn indices_for(
        &self,
        request: &Request,
        default: IndicesOptions,
        access: Access,
    ) -> Result<Vec<Arc<IndexMeta>>, EsError> {
        let indices = self.indices(request, default).await?;
        blocks::check(&indices, access)?;
        Ok(indices)
    }

    /// `PUT /i`.
    pub async fn index_create(&self, request: &Request) -> Result<Reply, EsError> {
        let mut spec = CreateSpec::default();
        for (key, value) in request.object()? {
            match key.as_str() {
                "settings" => spec.settings = settings::flatten(&value)?,
                "mappings" => {
                    let refusal = "The mapping definition cannot be nested under a type [_doc] \
                                   unless include_type_name is set to true.";
                    spec.mapping = Some(untyped(value, request, refusal)?);
                }
                "aliases" => spec.aliases = parse_aliases(&value)?,
                other => {
                    return Err(EsError::parsing(format!(
                        "unknown key [{other}] for create index"
                    )));
                }
            }
        }
        let setting = spec.settings.get("index.write.wait_for_active_shards");
        let wanted = Wanted::of(&request.params, setting.and_then(Value::as_str))?;
        let timeout = timeout_of(&request.params, Duration::from_secs(30))?;
        let name = request.part("index");
        let mut ready = self.service.create(name, spec).await?;
        let made = self.service.resolve(name, IndicesOptions::READ_META).await;
        for meta in made.unwrap_or_default() {
            ready = ready && self.wait_active(&meta, wanted, timeout).await.is_ok();
        }
        Ok(Reply::ok(json!({"acknowledged": true, "shards_acknowledged": ready, "index": name})))
    }

    /// `DELETE /i`.
    pub async fn index_delete(&self, request: &Request) -> Result<Reply, EsError> {
        let indices = self.indices_for(request, IndicesOptions::DELETE, Access::Delete).await?;
        if !indices.is_empty() {
            self.service.delete(&indices).await?;
        }
        Ok(acknowledged())
    }

    /// `GET /i` and `HEAD`.
    pub async fn index_get(&self, request: &Request) -> Result<Reply, EsError> {
        let indices =
            self.indices_for(request, IndicesOptions::READ_META, Access::ReadMetadata).await?;
        let features = request.params.list("features");
        let wants = |name: &str| features.as_ref().is_none_or(|list| list.contains(&name));
        let flat = request.params.flag("flat_settings", false)?;
        let mut out = Map::new();
        for meta in &indices {
            let mut body = Map::new();
            if wants("aliases") {
                let aliases = meta.aliases.iter().map(|(k, v)| (k.clone(), v.clone()));
                body.insert("aliases".to_owned(), Value::Object(aliases.collect()));
            }
            if wants("mappings") {
                body.insert("mappings".to_owned(), meta.schema.mapping().to_json());
            }
            if wants("settings") {
                body.insert("settings".to_owned(), self.settings_json(meta, flat, None));
            }
            out.insert(meta.name().to_owned(), Value::Object(body));
        }
        Ok(Reply::ok(Value::Object(out)))
    }

    fn all_settings(&self, meta: &IndexMeta) -> Settings {
        let mut all = meta.settings.clone();
        let mut set = |name: &str, value: String| all.insert(name.to_owned(), value.into());
        set("index.creation_date", meta.row.created_ms.to_string());
        set("index.provided_name", meta.name().to_owned());
        set("index.uuid", meta.uuid().to_string());
        // Version ids of Elasticsearch: major, minor, patch in two digits each, then 99.
        let id = self
            .version
            .split('.')
            .fold(0u64, |id, part| id * 100 + part.parse::<u64>().unwrap_or(0));
        set("index.version.created", (id * 100 + 99).to_string());
        if meta.row.state == IndexState::Closed {
            set("index.verified_before_close", "true".to_owned());
        }
        all
    }

    fn settings_json(&self, meta: &IndexMeta, flat: bool, names: Option<&[&str]>) -> Value {
        let mut all = self.all_settings(meta);
        if let Some(names) = names {
            all.retain(|name, _| names.iter().any(|pattern| wildcard_match(pattern, name)));
        }
        if flat { json!(all) } else { settings::nested(&all) }
    }

    /// `GET /i/_mapping`.
    pub async fn mapping_get(&self, request: &Request) -> Result<Reply, EsError> {
        let indices =
            self.indices_for(request, IndicesOptions::READ_META, Access::ReadMetadata).await?;
        let mut out = Map::new();
        for meta in &indices {
            out.insert(
                meta.name().to_owned(),
                json!({"mappings": meta.schema.mapping().to_json()}),
            );
        }
        Ok(Reply::ok(Value::Object(out)))
    }

    /// `PUT /i/_mapping`.
    pub async fn mapping_put(&self, request: &Request) -> Result<Reply, EsError> {
        let body =
            request.json()?.ok_or_else(|| EsError::validation(&["mapping source is missing"]))?;
        let indices =
            self.indices_for(request, IndicesOptions::READ_META, Access::WriteMetadata).await?;
        let refusal = "Types cannot be provided in put mapping requests, unless the \
                       include_type_name parameter is set to true.";
        self.service.put_mapping(&indices, &untyped(body, request, refusal)?).await?;
        Ok(acknowledged())
    }

    /// `GET /i/_mapping/field/f`.
    pub async fn field_mapping(&self, request: &Request) -> Result<Reply, EsError> {
        let indices =
            self.indices_for(request, IndicesOptions::READ_META, Access::ReadMetadata).await?;
        let patterns = request.params.list("fields").unwrap_or_default();
        let mut out = Map::new();
        for meta in &indices {
            let mut found = Map::new();
            for (path, field) in meta.schema.fields() {
                if !patterns.iter().any(|pattern| wildcard_match(pattern, path)) {
                    continue;
                }
                let short = path.rsplit('.').next().unwrap_or(path);
                let definition = definition_at(&meta.schema.mapping().to_json(), path)
                    .unwrap_or_else(|| json!({"type": field.type_name}));
                found.insert(
                    path.to_owned(),
                    json!({"full_name": path, "mapping": {short: definition}}),
                );
            }
            out.insert(meta.name().to_owned(), json!({"mappings": found}));
        }
        Ok(Reply::ok(Value::Object(out)))
    }

    /// `GET /i/_settings`.
    pub async fn settings_get(&self, request: &Request) -> Result<Reply, EsError> {
        let indices =
            self.indices_for(request, IndicesOptions::READ_META, Access::ReadMetadata).await?;
        let names = request.params.list("name").filter(|names| !names.contains(&"_all"));
        let flat = request.params.flag("flat_settings", false)?;
        let mut out = Map::new();
        for meta in &indices {
            let shown = self.settings_json(meta, flat, names.as_deref());
            if shown.as_object().is_none_or(|map| !map.is_empty()) {
                out.insert(meta.name().to_owned(), json!({"settings": shown}));
            }
        }
        Ok(Reply::ok(Value::Object(out)))
    }

    /// `PUT /i/_settings`.
    pub async fn settings_put(&self, request: &Request) -> Result<Reply, EsError> {
        let mut body = Value::Object(request.object()?);
        if let Some(inner) = body.get_mut("settings").filter(|inner| inner.is_object()) {
            body = inner.take();
        }
        let change = settings::flatten(&body)?;
        let indices = self.indices(request, IndicesOptions::READ_META).await?;
        blocks::check_settings(&indices, &change)?;
        let keep = request.params.flag("preserve_existing", false)?;
        self.service.put_settings(&indices, change, keep).await?;
        Ok(acknowledged())
    }

    /// `GET /_alias`.
    pub async fn alias_get(&self, request: &Request) -> Result<Reply, EsError> {
        let options = IndicesOptions { expand_closed: true, ..IndicesOptions::READ_META };
        let indices = self.indices_for(request, options, Access::ReadMetadata).await?;
        let names = request.params.list("name");
        let mut out = Map::new();
        let mut missing = names.as_deref().map(must_exist).unwrap_or_default();
        for meta in &indices {
            let fits = |alias: &str| names.as_ref().is_none_or(|list| is_meant(list, alias));
            let found = meta.aliases.iter().filter(|(alias, _)| fits(alias));
            let found: Map<String, Value> = found.map(|(k, v)| (k.clone(), v.clone())).collect();
            missing.retain(|name| !found.contains_key(*name));
            if names.is_none() || !found.is_empty() {
                out.insert(meta.name().to_owned(), json!({"aliases": found}));
            }
        }
        if missing.is_empty() {
            return Ok(Reply::ok(Value::Object(out)));
        }
        let plural = if missing.len() == 1 { "alias" } else { "aliases" };
        let list = missing.into_iter().collect::<Vec<_>>().join(",");
        out.insert("error".to_owned(), json!(format!("{plural} [{list}] missing")));
        out.insert("status".to_owned(), json!(404));
        Ok(Reply::with(404, Value::Object(out)))
    }

    /// `PUT /i/_alias/a`.
    pub async fn alias_put(&self, request: &Request) -> Result<Reply, EsError> {
        let alias = request.part("name");
        let definition = alias_definition(alias, &Value::Object(request.object()?))?.to_string();
        let indices =
            self.indices_for(request, IndicesOptions::DELETE, Access::WriteMetadata).await?;
        let add = |meta: &Arc<IndexMeta>| AliasAction::Add {
            uuid: meta.uuid(),
            alias: alias.to_owned(),
            definition: definition.clone(),
        };
        self.service.change_aliases(indices.iter().map(add).collect()).await?;
        Ok(acknowledged())
    }

    /// `DELETE /i/_alias/a`.
    pub async fn alias_delete(&self, request: &Request) -> Result<Reply, EsError> {
        let indices =
            self.indices_for(request, IndicesOptions::DELETE, Access::WriteMetadata).await?;
        let names = request.params.list("name").unwrap_or_default();
        let actions = removals(&indices, &names);
        if actions.is_empty() {
            return Err(aliases_missing(&names));
        }
        self.service.change_aliases(actions).await?;
        Ok(acknowledged())
    }

    /// `POST /_aliases`.
    pub async fn aliases_update(&self, request: &Request) -> Result<Reply, EsError> {
        let body = request.object()?;
        let list = body
            .get("actions")
            .and_then(Value::as_array)
            .ok_or_else(|| EsError::illegal("No action specified"))?;
        let mut actions = Vec::new();
        for step in list {
            let one = step.as_object().and_then(|map| map.iter().next());
            let (kind, spec) = one.ok_or_else(|| EsError::illegal("No action specified"))?;
            self.alias_step(kind, spec, &mut actions).await?;
        }
        // An alias may take the name of an index that goes at the same time.
        actions.sort_by_key(|action| !matches!(action, AliasAction::RemoveIndex { .. }));
        self.service.change_aliases(actions).await?;
        Ok(acknowledged())
    }

    async fn alias_step(
        &self,
        kind: &str,
        spec: &Value,
        actions: &mut Vec<AliasAction>,
    ) -> Result<(), EsError> {
        let indices = names_of(spec, "index", "indices");
        let aliases = names_of(spec, "alias", "aliases");
        if indices.is_empty() {
            return Err(EsError::illegal("One of [index] or [indices] is required"));
        }
        let found = self.service.resolve(&indices.join(","), IndicesOptions::DELETE).await?;
        blocks::check(&found, Access::WriteMetadata)?;
        match kind {
            "remove_index" => {
                let remove =
                    found.iter().map(|meta| AliasAction::RemoveIndex { uuid: meta.uuid() });
                actions.extend(remove);
            }
            "add" if aliases.is_empty() => {
                return Err(EsError::illegal("One of [alias] or [aliases] is required"));
            }
            "add" => {
                for alias in &aliases {
                    let definition = alias_definition(alias, spec)?.to_string();
                    actions.extend(found.iter().map(|meta| AliasAction::Add {
                        uuid: meta.uuid(),
                        alias: alias.clone(),
                        definition: definition.clone(),
                    }));
                }
            }
            "remove" => {
                let names: Vec<&str> = aliases.iter().map(String::as_str).collect();
                let removed = removals(&found, &names);
                let must_exist = spec.get("must_exist").and_then(Value::as_bool);
                if removed.is_empty() && must_exist != Some(false) {
                    return Err(aliases_missing(&names));
                }
                actions.extend(removed);
            }
            other => {
                return Err(EsError::illegal(format!("[alias_action] unknown field [{other}]")));
            }
        }
        Ok(())
    }

    /// `POST /i/_open` and `_close`.
    pub async fn set_state(&self, request: &Request, state: IndexState) -> Result<Reply, EsError> {
        let options = IndicesOptions { expand_closed: true, ..IndicesOptions::READ_META };
        let indices = self.indices_for(request, options, Access::WriteMetadata).await?;
        self.service.set_state(&indices, state).await?;
        let mut body = json!({"acknowledged": true, "shards_acknowledged": true});
        if state == IndexState::Closed
            && let Some(body) = body.as_object_mut()
        {
            let closed = indices.iter().map(|m| (m.name().to_owned(), json!({"closed": true})));
            body.insert("indices".to_owned(), Value::Object(closed.collect()));
        }
        Ok(Reply::ok(body))
    }

    /// `_refresh`.
    pub async fn refresh(&self, request: &Request) -> Result<Reply, EsError> {
        let indices = self.indices(request, IndicesOptions::SEARCH).await?;
        let (mut done, mut total) = (0, 0);
        for meta in &indices {
            let shards: Vec<ShardId> = meta.shards().map(|(id, _)| id).collect();
            let copies = meta.row.replicas.saturating_add(1);
            let (refreshed, all) = self.service.refresh(&shards, copies).await;
            done += refreshed;
            total += all;
        }
        Ok(Reply::ok(json!({"_shards": {"total": total, "successful": done, "failed": 0}})))
    }

    /// `_flush` and `_forcemerge`.
    pub async fn maintain(&self, request: &Request, what: Maintenance) -> Result<Reply, EsError> {
        let indices = self.indices(request, IndicesOptions::SEARCH).await?;
        let total: u32 = indices
            .iter()
            .map(|m| u32::from(m.shard_count()) * m.row.replicas.saturating_add(1))
            .sum();
        let done = self.service.maintain(&shards_of(&indices), what).await.min(total);
        Ok(Reply::ok(json!({"_shards": {"total": total, "successful": done, "failed": 0}})))
    }

    /// `_cache/clear`: there is no cache to clear.
    pub async fn clear_cache(&self, request: &Request) -> Result<Reply, EsError> {
        let indices = self.indices(request, IndicesOptions::SEARCH).await?;
        let total: u32 = indices
            .iter()
            .map(|m| u32::from(m.shard_count()) * m.row.replicas.saturating_add(1))
            .sum();
        let active: u32 = indices
            .iter()
            .map(|m| u32::from(m.shard_count()) * self.service.active_copies(m))
            .sum();
        Ok(Reply::ok(json!({"_shards": {"total": total, "successful": active, "failed": 0}})))
    }

    /// `_resolve/index/<pattern>`.
    pub async fn resolve_index(&self, request: &Request) -> Result<Reply, EsError> {
        let options = request.indices_options(IndicesOptions::READ_META)?;
        let found = self.service.resolve(request.part("name"), options).await?;
        let mut aliases: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for meta in &found {
            for alias in meta.aliases.keys() {
                aliases.entry(alias).or_default().push(meta.name());
            }
        }
        let indices: Vec<Value> = found
            .iter()
            .map(|meta| {
                let open = meta.row.state == IndexState::Open;
                let mut attributes = vec![if open { "open" } else { "closed" }];
                if meta.is_hidden() {
                    attributes.push("hidden");
                }
                let mut body = json!({"name": meta.name()});
                if let Some(body) = body.as_object_mut() {
                    if !meta.aliases.is_empty() {
                        body.insert(
                            "aliases".into(),
                            json!(meta.aliases.keys().collect::<Vec<_>>()),
                        );
                    }
                    body.insert("attributes".into(), json!(attributes));
                }
                body
            })
            .collect();
        let patterns: Vec<&str> = request.part("name").split(',').collect();
        let aliases: Vec<Value> = aliases
            .into_iter()
            .filter(|(name, _)| patterns.iter().any(|p| wildcard_match(p, name)))
            .map(|(name, indices)| json!({"name": name, "indices": indices}))
            .collect();
        Ok(Reply::ok(json!({"indices": indices, "aliases": aliases, "data_streams": []})))
    }

    /// `_analyze`.
    pub async fn analyze(&self, request: &Request) -> Result<Reply, EsError> {
        let body = request.object()?;
        let settings;
        let index = match request.params.get("index") {
            Some(name) => Some(self.read_target(name).await?),
            None => None,
        };
        let analysis = match &index {
            Some(meta) => meta.schema.analysis(),
            None => {
                settings = search::analysis::Analysis::new(&json!({}))?;
                &settings
            }
        };
        let texts = match body.get("text") {
            Some(Value::String(text)) => vec![text.clone()],
            Some(Value::Array(list)) => {
                list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
            }
            _ => return Err(EsError::validation(&["text is missing"])),
        };
        let field = body.get("field").and_then(Value::as_str);
        let of_field = index.as_ref().zip(field).and_then(|(m, f)| m.schema.field(f));
        let analyzer = match (body.get("analyzer"), of_field) {
            (Some(Value::String(name)), _) => analysis.analyzer(name).ok_or_else(|| {
                EsError::illegal(format!("failed to find global analyzer [{name}]"))
            })?,
            (_, Some(field)) => (*field.analyzer).clone(),
            _ if body.contains_key("tokenizer") || body.contains_key("filter") => {
                analysis.custom(&Value::Object(body.clone()))?
            }
            _ => analysis
                .analyzer("standard")
                .ok_or_else(|| EsError::internal("the standard analyzer is missing"))?,
        };
        Ok(Reply::ok(json!({"tokens": tokens(&analyzer, &texts)})))
    }
}

fn tokens(analyzer: &search::analysis::Analyzer, texts: &[String]) -> Vec<Value> {
    let mut tokens = Vec::new();
    let (mut offset, mut position) = (0usize, 0u32);
    for text in texts {
        let mut last = position;
        for token in analyzer.analyze(text) {
            let (start, end) = search::analysis::utf16_offsets(text, &token);
            last = position + token.position;
            tokens.push(json!({
                "token": token.text,
                "start_offset": offset + start,
                "end_offset": offset + end,
                "type": token.kind,
                "position": last,
            }));
        }
        // As Elasticsearch: one between values in offsets, a gap of 100 in positions.
        offset += text.encode_utf16().count() + 1;
        position = last + 101;
    }
    tokens
}

/// Whether a list of names, patterns and `-` exclusions means an alias.
fn is_meant(list: &[&str], alias: &str) -> bool {
    let fits = |pattern: &str| pattern == "_all" || wildcard_match(pattern, alias);
    list.iter().fold(false, |meant, name| match name.strip_prefix('-') {
        Some(excluded) => meant && !wildcard_match(excluded, alias),
        None => meant || fits(name),
    })
}

/// Names of a list that have to be there: those written out and not excluded later. A `-`
/// excludes only behind the first pattern; before, it belongs to the name.
fn must_exist<'a>(list: &[&'a str]) -> BTreeSet<&'a str> {
    let is_pattern = |name: &&str| name.contains('*');
    let first = list.iter().position(is_pattern).unwrap_or(list.len());
    let excluded = |at: usize, name: &str| {
        let later = list.iter().skip(first.max(at + 1)).filter_map(|n| n.strip_prefix('-'));
        later.into_iter().any(|p| p == "_all" || wildcard_match(p, name))
    };
    let names = list.iter().enumerate().filter(|(at, name)| {
        let exclusion = *at > first && name.starts_with('-');
        **name != "_all" && !is_pattern(name) && !exclusion && !excluded(*at, name)
    });
    names.map(|(_, name)| *name).collect()
}

fn removals(indices: &[Arc<IndexMeta>], names: &[&str]) -> Vec<AliasAction> {
    let mut actions = Vec::new();
    for meta in indices {
        for alias in meta.aliases.keys() {
            if names.iter().any(|p| *p == "_all" || wildcard_match(p, alias)) {
                actions.push(AliasAction::Remove { uuid: meta.uuid(), alias: alias.clone() });
            }
        }
    }
    actions
}

fn aliases_missing(names: &[&str]) -> EsError {
    EsError::new(
        404,
        "aliases_not_found_exception",
        format!("aliases [{}] missing", names.join(",")),
    )
    .with("resource.type", "aliases")
    .with("resource.id", names.join(","))
}

fn names_of(spec: &Value, one: &str, many: &str) -> Vec<String> {
    match spec.get(one).or_else(|| spec.get(many)) {
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(list)) => {
            list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

/// Clients of version 6 wrap a mapping into a type's name, and have to say so.
fn untyped(mut mapping: Value, request: &Request, refusal: &str) -> Result<Value, EsError> {
    match mapping.get_mut("_doc") {
        Some(inner) if inner.is_object() => {
            if request.params.flag("include_type_name", false)? {
                return Ok(inner.take());
            }
            Err(EsError::illegal(refusal))
        }
        _ => Ok(mapping),
    }
}

/// The definition of a field inside a mapping; multi-fields stand below `fields`.
fn definition_at(mapping: &Value, path: &str) -> Option<Value> {
    let mut at = mapping;
    for part in path.split('.') {
        at = at
            .get("properties")
            .and_then(|p| p.get(part))
            .or_else(|| at.get("fields").and_then(|f| f.get(part)))?;
    }
    Some(at.clone())
}

//! `_search`, `_msearch`, `_count`, `_field_caps`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::join_all;
use index::EsError;
use index::blocks::{self, Access};
use index::model::{IndexMeta, ShardId};
use index::names::{IndicesOptions, wildcard_match};
use index::searching::{SearchShard, all_shards_failed};
use index::settings::number;
use search::query::QueryContext;
use search::search::{
    IndexLimits, Merged, SearchRequest, ShardCounts, ShardTop, execute_query_phase, fetch_phase,
    merge, render,
};
use serde_json::{Map, Value, json};

use crate::app::{App, Request};
use crate::docs_api::shows_type;
use crate::limits::MAX_MSEARCH;
use crate::params::Params;
use crate::reply::Reply;
use crate::scope::Scope;
use crate::takes::{MSEARCH_HEADER, unsupported};

/// What the shards of a search answered.
struct Found {
    tops: Vec<ShardTop>,
    /// The shard of each top.
    shards: Vec<Arc<(SearchShard, QueryContext)>>,
    failures: Vec<Value>,
    total: usize,
}

impl App {
    /// `_search`.
    pub async fn search(&self, request: &Request) -> Result<Reply, EsError> {
        let body = request.json()?;
        let value = self.search_body(body.as_ref(), request).await?;
        Ok(Reply::ok(value))
    }

    /// The indices that a request searches.
    async fn searched(&self, request: &Request) -> Result<Vec<Arc<IndexMeta>>, EsError> {
        let indices = self.indices(request, IndicesOptions::SEARCH).await?;
        blocks::check(&indices, Access::Read)?;
        Ok(indices)
    }

    async fn search_body(&self, body: Option<&Value>, request: &Request) -> Result<Value, EsError> {
        let started = self.env.clock.monotonic();
        let kind = request.params.get("search_type").unwrap_or("query_then_fetch");
        if !["query_then_fetch", "dfs_query_then_fetch"].contains(&kind) {
            return Err(EsError::illegal(format!("No search type for [{kind}]")));
        }
        let indices = self.searched(request).await?;
        let shards: u32 = indices.iter().map(|meta| u32::from(meta.shard_count())).sum();
        if kind == "dfs_query_then_fetch" && shards > 1 {
            // Each shard scores by its own statistics.
            return Err(unsupported("search_type", kind));
        }
        let params: BTreeMap<String, String> =
            request.params.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let parsed = Arc::new(SearchRequest::parse(body, &params)?);
        let scope = Scope::of(&request.params, request.part("index"))?;
        let found = self.query_shards(&indices, &parsed, &scope).await?;
        let counts = ShardCounts {
            total: found.total,
            successful: found.total - found.failures.len(),
            skipped: 0,
            failures: found.failures,
        };
        let shards = found.shards;
        let merged = merge(&parsed, found.tops)?;
        let hits = fetch(&parsed, &merged, &shards).await?;
        let took = self.env.clock.monotonic().saturating_sub(started).as_millis();
        let took = u64::try_from(took).unwrap_or(u64::MAX);
        let mut out = render(&parsed, &merged, hits, &counts, took)?;
        if request.params.flag("typed_keys", false)? {
            type_keys(&mut out, &parsed, &indices);
        }
        self.adapt(&mut out, request)?;
        Ok(out)
    }

    /// What differs between clients.
    fn adapt(&self, out: &mut Value, request: &Request) -> Result<(), EsError> {
        if request.params.flag("rest_total_hits_as_int", false)?
            && let Some(hits) = out.get_mut("hits").and_then(Value::as_object_mut)
        {
            let total = hits.get("total").and_then(|t| t.get("value")).cloned();
            let mut ordered = Map::new();
            ordered.insert("total".to_owned(), total.unwrap_or_else(|| json!(-1)));
            ordered.extend(std::mem::take(hits).into_iter().filter(|(k, _)| k != "total"));
            *hits = ordered;
        }
        if !shows_type(request.client) {
            strip_types(out);
        }
        Ok(())
    }

    async fn query_shards(
        &self,
        indices: &[Arc<IndexMeta>],
        parsed: &Arc<SearchRequest>,
        scope: &Scope,
    ) -> Result<Found, EsError> {
        let (shards, missing) = self.scoped_shards(indices, scope);
        let total = shards.len() + missing.len();
        if shards.is_empty() && !missing.is_empty() {
            return Err(all_shards_failed());
        }
        let now_ms = self.env.clock.unix_ms();
        let runs = shards.into_iter().enumerate().map(|(i, shard)| {
            let context = QueryContext {
                now_ms,
                index: shard.meta.name().to_owned(),
                shard: u32::try_from(i).unwrap_or(u32::MAX),
            };
            let shard = Arc::new((shard, context));
            let (work, search) = (shard.clone(), scope.within(&shard.0.meta, parsed));
            async move {
                let run = move || {
                    let search = search?;
                    search.check_limits(&limits_of(&work.0.meta))?;
                    Ok(execute_query_phase(&work.0.snapshot, &search, &work.1)?)
                };
                (shard, tokio::task::spawn_blocking(run).await)
            }
        });
        let mut found = Found { tops: vec![], shards: vec![], failures: vec![], total };
        let mut first: Option<EsError> = None;
        for (shard, result) in join_all(runs).await {
            let result = match result {
                Ok(result) => result,
                Err(panic) => Err(EsError::internal(panic.to_string())),
            };
            match result {
                Ok(top) => {
                    found.tops.push(top);
                    found.shards.push(shard);
                }
                Err(error) => {
                    found.failures.push(self.failure(&shard.0, &error));
                    first.get_or_insert(error);
                }
            }
        }
        if found.tops.is_empty()
            && let Some(error) = first
        {
            return Err(phase_error("all shards failed", error, found.failures));
        }
        found.failures.extend(missing.iter().map(|id| starting(*id, indices)));
        if !scope.partial && !found.failures.is_empty() {
            let error = first.unwrap_or_else(|| EsError::new(503, NO_SHARD, STARTING));
            return Err(phase_error("Partial shards failure", error, found.failures));
        }
        Ok(found)
    }

    /// This node's copies of the shards that a search looks at, and the shards that have none.
    fn scoped_shards(
        &self,
        indices: &[Arc<IndexMeta>],
        scope: &Scope,
    ) -> (Vec<SearchShard>, Vec<ShardId>) {
        let (mut shards, mut missing) = self.service.search_shards(indices);
        shards.retain(|shard| scope.has(&shard.meta, shard.id.number));
        let meta = |id: &ShardId| indices.iter().find(|meta| meta.uuid() == id.index);
        missing.retain(|id| meta(id).is_some_and(|meta| scope.has(meta, id.number)));
        (shards, missing)
    }

    fn failure(&self, shard: &SearchShard, error: &EsError) -> Value {
        json!({
            "shard": shard.id.number,
            "index": shard.meta.name(),
            "node": self.node_id(self.service.me()),
            "reason": with_index(error, &shard.meta).body(),
        })
    }

    /// `_count`.
    pub async fn count(&self, request: &Request) -> Result<Reply, EsError> {
        let indices = self.searched(request).await?;
        let body = request.json()?;
        for key in body.as_ref().and_then(Value::as_object).into_iter().flat_map(Map::keys) {
            if key != "query" {
                return Err(EsError::parsing(format!("request does not support [{key}]")));
            }
        }
        let mut params: BTreeMap<String, String> = BTreeMap::new();
        for name in COUNT_PARAMS {
            if let Some(value) = request.params.get(name) {
                params.insert((*name).to_owned(), value.to_owned());
            }
        }
        params.insert("size".to_owned(), "0".to_owned());
        params.insert("track_total_hits".to_owned(), "true".to_owned());
        let parsed = Arc::new(SearchRequest::parse(body.as_ref(), &params)?);
        let scope = Scope::of(&request.params, request.part("index"))?;
        let found = self.query_shards(&indices, &parsed, &scope).await?;
        let count: u64 = found.tops.iter().map(|top| top.total).sum();
        let failed = found.failures.len();
        Ok(Reply::ok(json!({
            "count": count,
            "_shards": {"total": found.total, "successful": found.total - failed, "skipped": 0,
                "failed": failed},
        })))
    }

    /// `_msearch`: pairs of lines, a header and a body.
    pub async fn msearch(&self, request: &Request) -> Result<Reply, EsError> {
        let started = self.env.clock.monotonic();
        let body = request.required_body()?;
        let text = std::str::from_utf8(&body)
            .map_err(|_| EsError::illegal("the request body is not UTF-8"))?;
        let lines: Vec<&str> = text.lines().collect();
        let (mut searches, mut at) = (Vec::new(), 0);
        while let Some(header) = lines.get(at) {
            at += 1;
            if header.trim().is_empty() && lines.get(at).is_none_or(|l| l.trim().is_empty()) {
                continue;
            }
            let Some(search) = lines.get(at) else { break };
            at += 1;
            searches.push((*header, *search));
            if searches.len() > MAX_MSEARCH {
                return Err(EsError::illegal(format!("more than {MAX_MSEARCH} searches")));
            }
        }
        if searches.is_empty() {
            return Err(EsError::validation(&["no requests added"]));
        }
        let mut requests = Vec::new();
        for (header, search) in searches {
            requests.push((one_search(&json_line(header)?, request)?, json_line(search)?));
        }
        let mut responses = Vec::new();
        for (one, body) in requests {
            responses.push(match self.search_body(Some(&body), &one).await {
                Ok(mut value) => {
                    if let Some(map) = value.as_object_mut() {
                        map.insert("status".to_owned(), json!(200));
                    }
                    value
                }
                Err(error) => error.answer(),
            });
        }
        let took = self.env.clock.monotonic().saturating_sub(started).as_millis();
        let took = u64::try_from(took).unwrap_or(u64::MAX);
        Ok(Reply::ok(json!({"took": took, "responses": responses})))
    }

    /// `_field_caps`.
    pub async fn field_caps(&self, request: &Request) -> Result<Reply, EsError> {
        let indices = self.indices(request, IndicesOptions::SEARCH).await?;
        let body = request.object()?;
        if body.contains_key("index_filter") {
            return Err(unsupported("index_filter", ""));
        }
        let mut patterns: Vec<String> = request
            .params
            .list("fields")
            .unwrap_or_default()
            .into_iter()
            .map(str::to_owned)
            .collect();
        match body.get("fields") {
            Some(Value::String(text)) => patterns.push(text.clone()),
            Some(Value::Array(list)) => {
                patterns.extend(list.iter().filter_map(Value::as_str).map(str::to_owned));
            }
            _ => {}
        }
        if patterns.is_empty() {
            return Err(EsError::validation(&["no fields specified"]));
        }
        let names: Vec<&str> = indices.iter().map(|meta| meta.name()).collect();
        let mut fields = field_types(&indices, &patterns);
        if request.params.flag("include_unmapped", false)? {
            add_unmapped(&mut fields, &names);
        }
        Ok(Reply::ok(json!({"indices": names, "fields": field_caps(fields)})))
    }
}

/// Parameters of `_count` that a search reads.
const COUNT_PARAMS: &[&str] = &[
    "q",
    "df",
    "default_operator",
    "analyzer",
    "analyze_wildcard",
    "lenient",
    "min_score",
    "terminate_after",
];

const NO_SHARD: &str = "no_shard_available_action_exception";
const STARTING: &str = "the shard is starting";

fn limits_of(meta: &IndexMeta) -> IndexLimits {
    let default = IndexLimits::default();
    let limit = |name: &str, default: usize| {
        number(&meta.settings, name).and_then(|n| usize::try_from(n).ok()).unwrap_or(default)
    };
    IndexLimits {
        result_window: limit("index.max_result_window", default.result_window),
        docvalue_fields: limit("index.max_docvalue_fields_search", default.docvalue_fields),
    }
}

fn type_keys(out: &mut Value, parsed: &SearchRequest, indices: &[Arc<IndexMeta>]) {
    let class_of = |path: &str| {
        indices.iter().find_map(|meta| meta.schema.field(path)).map(|field| field.class())
    };
    if let Some(level) = out.get_mut("aggregations").and_then(Value::as_object_mut) {
        parsed.aggs.type_keys(level, &class_of);
    }
}

fn json_line(text: &str) -> Result<Value, EsError> {
    if text.trim().is_empty() {
        return Ok(json!({}));
    }
    serde_json::from_str(text).map_err(|e| EsError::new(400, "json_parse_exception", e.to_string()))
}

/// One search of `_msearch`: what its header says goes before what the URL says.
fn one_search(header: &Value, request: &Request) -> Result<Request, EsError> {
    let mut params = Params::default();
    for (name, value) in request.params.iter() {
        params.set(name, value);
    }
    for (key, value) in header.as_object().into_iter().flatten() {
        let Some((_, name)) = MSEARCH_HEADER.iter().find(|(known, _)| known == key) else {
            let text = format!("key [{key}] is not supported in the metadata section");
            return Err(EsError::illegal(text));
        };
        match value {
            Value::Null => {}
            Value::String(text) => params.set(name, text),
            Value::Array(list) => {
                let list: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
                params.set(name, &list.join(","));
            }
            other => params.set(name, &other.to_string()),
        }
    }
    Ok(Request {
        method: request.method.clone(),
        path: request.path.clone(),
        params,
        body: bytes::Bytes::new(),
        client: request.client,
    })
}

#[derive(Default)]
struct Caps {
    searchable: BTreeSet<String>,
    not_searchable: BTreeSet<String>,
    aggregatable: BTreeSet<String>,
    not_aggregatable: BTreeSet<String>,
    indices: BTreeSet<String>,
}

/// Fields by path and type.
type FieldTypes = BTreeMap<String, BTreeMap<String, Caps>>;

fn field_types(indices: &[Arc<IndexMeta>], patterns: &[String]) -> FieldTypes {
    let mut all = FieldTypes::new();
    for meta in indices {
        let index = || meta.name().to_owned();
        for (path, field) in meta.schema.fields() {
            if !patterns.iter().any(|pattern| wildcard_match(pattern, path)) {
                continue;
            }
            let target = meta.schema.field(path).unwrap_or_else(|| field.clone());
            let caps = all.entry(path.to_owned()).or_default();
            let caps = caps.entry(target.type_name.clone()).or_default();
            let side = if target.index { &mut caps.searchable } else { &mut caps.not_searchable };
            side.insert(index());
            let side = if target.is_aggregatable() {
                &mut caps.aggregatable
            } else {
                &mut caps.not_aggregatable
            };
            side.insert(index());
            caps.indices.insert(index());
        }
        for (name, kind, search, agg) in [
            ("_id", "_id", true, true),
            ("_index", "_index", true, true),
            ("_source", "_source", false, false),
        ] {
            if patterns.iter().any(|pattern| wildcard_match(pattern, name)) {
                let caps = all.entry(name.to_owned()).or_default();
                let caps = caps.entry(kind.to_owned()).or_default();
                let side = if search { &mut caps.searchable } else { &mut caps.not_searchable };
                side.insert(index());
                let side = if agg { &mut caps.aggregatable } else { &mut caps.not_aggregatable };
                side.insert(index());
                caps.indices.insert(index());
            }
        }
    }
    all
}

/// Indices without a field are of the type `unmapped`.
fn add_unmapped(all: &mut FieldTypes, names: &[&str]) {
    for types in all.values_mut() {
        let has = |name: &str| types.values().any(|caps| caps.indices.contains(name));
        let without: BTreeSet<String> =
            names.iter().copied().filter(|name| !has(name)).map(str::to_owned).collect();
        if !without.is_empty() {
            let caps = Caps {
                not_searchable: without.clone(),
                not_aggregatable: without.clone(),
                indices: without,
                ..Caps::default()
            };
            types.insert("unmapped".to_owned(), caps);
        }
    }
}

fn field_caps(all: FieldTypes) -> Value {
    let fields = all.into_iter().map(|(path, types)| {
        let several = types.len() > 1;
        let types = types.into_iter().map(|(kind, caps)| {
            let mut body = json!({
                "type": kind,
                "searchable": caps.not_searchable.is_empty(),
                "aggregatable": caps.not_aggregatable.is_empty(),
            });
            if let Some(body) = body.as_object_mut() {
                if several {
                    body.insert("indices".into(), json!(caps.indices));
                }
                if !caps.not_searchable.is_empty() && !caps.searchable.is_empty() {
                    body.insert("non_searchable_indices".into(), json!(caps.not_searchable));
                }
                if !caps.not_aggregatable.is_empty() && !caps.aggregatable.is_empty() {
                    body.insert("non_aggregatable_indices".into(), json!(caps.not_aggregatable));
                }
            }
            (kind, body)
        });
        (path, Value::Object(types.collect()))
    });
    Value::Object(fields.collect())
}

/// Fetches the page's hits from their shards, in the order of the page.
async fn fetch(
    parsed: &Arc<SearchRequest>,
    merged: &Merged,
    shards: &[Arc<(SearchShard, QueryContext)>],
) -> Result<Vec<Value>, EsError> {
    let mut by_shard: BTreeMap<usize, (Vec<usize>, Vec<_>)> = BTreeMap::new();
    for (place, hit) in merged.hits.iter().enumerate() {
        let slot = by_shard.entry(hit.shard).or_default();
        slot.0.push(place);
        slot.1.push(hit.hit.clone());
    }
    let mut out = vec![Value::Null; merged.hits.len()];
    for (at, (places, hits)) in by_shard {
        let Some(shard) = shards.get(at).cloned() else { continue };
        let parsed = parsed.clone();
        let run = move || fetch_phase(&shard.0.snapshot, &parsed, &shard.1, &hits);
        let fetched = tokio::task::spawn_blocking(run).await;
        let fetched = fetched.map_err(|e| EsError::internal(e.to_string()))??;
        for (place, hit) in places.into_iter().zip(fetched) {
            if let Some(slot) = out.get_mut(place) {
                *slot = hit;
            }
        }
    }
    Ok(out)
}

fn with_index(error: &EsError, meta: &IndexMeta) -> EsError {
    if error.kind != "query_shard_exception" {
        return error.clone();
    }
    let error = error.clone().with("index_uuid", meta.uuid().to_string());
    error.with("index", meta.name())
}

/// The first error is the root cause.
fn phase_error(text: &str, error: EsError, failures: Vec<Value>) -> EsError {
    let status = error.status;
    let first = failures.first().and_then(|f| f.get("reason")).cloned();
    let mut root = error.clone();
    if let Some(Value::Object(reason)) = first {
        for name in ["index_uuid", "index"] {
            if let Some(value) = reason.get(name) {
                root = root.with(name, value.clone());
            }
        }
    }
    EsError::new(status, "search_phase_execution_exception", text)
        .with("phase", "query")
        .with("grouped", true)
        .with("failed_shards", Value::Array(failures.into_iter().take(1).collect()))
        .rooted_in(root)
}

fn starting(id: ShardId, indices: &[Arc<IndexMeta>]) -> Value {
    let name = indices.iter().find(|m| m.uuid() == id.index).map_or("", |m| m.name());
    json!({"shard": id.number, "index": name, "node": null, "reason": {
        "type": NO_SHARD, "reason": STARTING}})
}

fn strip_types(out: &mut Value) {
    let hits = out.get_mut("hits").and_then(|h| h.get_mut("hits")).and_then(Value::as_array_mut);
    for hit in hits.into_iter().flatten() {
        if let Some(map) = hit.as_object_mut() {
            map.shift_remove("_type");
        }
    }
}

//! `_search`, `_msearch`, `_count`, `_field_caps`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::join_all;
use index::EsError;
use index::model::{IndexMeta, ShardId};
use index::names::{IndicesOptions, wildcard_match};
use index::searching::{SearchShard, all_shards_failed};
use search::query::QueryContext;
use search::search::{
    Merged, SearchRequest, ShardCounts, ShardTop, execute_query_phase, fetch_phase, merge, render,
};
use serde_json::{Map, Value, json};

use crate::app::{App, Request};
use crate::docs_api::shows_type;
use crate::limits::MAX_MSEARCH;
use crate::params::Params;
use crate::reply::Reply;

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
        if request.params.get("scroll").is_some() {
            return Err(EsError::illegal("[scroll] is not supported by this server"));
        }
        let kind = request.params.get("search_type").unwrap_or("query_then_fetch");
        if !["query_then_fetch", "dfs_query_then_fetch"].contains(&kind) {
            return Err(EsError::illegal(format!("No search type for [{kind}]")));
        }
        let indices = self.indices(request, IndicesOptions::SEARCH).await?;
        let body = request.json()?;
        let value = self.search_body(&indices, body.as_ref(), request).await?;
        Ok(Reply::ok(value))
    }

    async fn search_body(
        &self,
        indices: &[Arc<IndexMeta>],
        body: Option<&Value>,
        request: &Request,
    ) -> Result<Value, EsError> {
        let started = self.env.clock.monotonic();
        let params: BTreeMap<String, String> =
            request.params.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let parsed = Arc::new(SearchRequest::parse(body, &params)?);
        let found = self.query_shards(indices, &parsed).await?;
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
    ) -> Result<Found, EsError> {
        let (shards, missing) = self.service.search_shards(indices);
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
            let (work, parsed) = (shard.clone(), parsed.clone());
            async move {
                let run = move || execute_query_phase(&work.0.snapshot, &parsed, &work.1);
                (shard, tokio::task::spawn_blocking(run).await)
            }
        });
        let mut found = Found { tops: vec![], shards: vec![], failures: vec![], total };
        let mut first: Option<EsError> = None;
        for (shard, result) in join_all(runs).await {
            let result = match result {
                Ok(result) => result.map_err(EsError::from),
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
        if let Some(error) = first.filter(|_| found.tops.is_empty()) {
            return Err(phase_error(error, found.failures));
        }
        found.failures.extend(missing.iter().map(|id| starting(*id, indices)));
        Ok(found)
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
        let indices = self.indices(request, IndicesOptions::SEARCH).await?;
        let body = request.json()?;
        for key in body.as_ref().and_then(Value::as_object).into_iter().flat_map(Map::keys) {
            if key != "query" {
                return Err(EsError::parsing(format!("request does not support [{key}]")));
            }
        }
        let mut params: BTreeMap<String, String> = BTreeMap::new();
        for name in ["q", "df", "default_operator", "analyzer", "lenient", "terminate_after"] {
            if let Some(value) = request.params.get(name) {
                params.insert(name.to_owned(), value.to_owned());
            }
        }
        params.insert("size".to_owned(), "0".to_owned());
        params.insert("track_total_hits".to_owned(), "true".to_owned());
        let parsed = Arc::new(SearchRequest::parse(body.as_ref(), &params)?);
        let found = self.query_shards(&indices, &parsed).await?;
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
        let mut responses = Vec::new();
        for (header, search) in searches {
            responses.push(match self.msearch_one(header, search, request).await {
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

    async fn msearch_one(
        &self,
        header: &str,
        search: &str,
        request: &Request,
    ) -> Result<Value, EsError> {
        let parse = |text: &str| -> Result<Value, EsError> {
            if text.trim().is_empty() {
                return Ok(json!({}));
            }
            serde_json::from_str(text)
                .map_err(|e| EsError::new(400, "json_parse_exception", e.to_string()))
        };
        let (header, body) = (parse(header)?, parse(search)?);
        let mut params = Params::default();
        for (name, value) in
            request.params.iter().filter(|(name, _)| *name == "rest_total_hits_as_int")
        {
            params.set(name, value);
        }
        let index = match header.get("index") {
            Some(Value::String(name)) => name.clone(),
            Some(Value::Array(list)) => {
                list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
            }
            _ => request.part("index").to_owned(),
        };
        params.set("index", &index);
        for name in ["ignore_unavailable", "allow_no_indices", "expand_wildcards"] {
            match header.get(name) {
                Some(Value::String(text)) => params.set(name, text),
                Some(Value::Array(list)) => {
                    let list: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
                    params.set(name, &list.join(","));
                }
                Some(other) => params.set(name, &other.to_string()),
                None => {}
            }
        }
        let one = Request {
            method: request.method.clone(),
            path: request.path.clone(),
            params,
            body: bytes::Bytes::new(),
            client: request.client,
        };
        let indices = self.indices(&one, IndicesOptions::SEARCH).await?;
        self.search_body(&indices, Some(&body), &one).await
    }

    /// `_field_caps`.
    pub async fn field_caps(&self, request: &Request) -> Result<Reply, EsError> {
        let indices = self.indices(request, IndicesOptions::SEARCH).await?;
        let body = request.object()?;
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
        Ok(Reply::ok(json!({"indices": names, "fields": field_caps(&indices, &patterns)})))
    }
}

#[derive(Default)]
struct Caps {
    searchable: BTreeSet<String>,
    not_searchable: BTreeSet<String>,
    aggregatable: BTreeSet<String>,
    not_aggregatable: BTreeSet<String>,
    indices: BTreeSet<String>,
}

fn field_caps(indices: &[Arc<IndexMeta>], patterns: &[String]) -> Value {
    let mut all: BTreeMap<String, BTreeMap<String, Caps>> = BTreeMap::new();
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

/// All shards failed: the first error is the root cause.
fn phase_error(error: EsError, failures: Vec<Value>) -> EsError {
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
    EsError::new(status, "search_phase_execution_exception", "all shards failed")
        .with("phase", "query")
        .with("grouped", true)
        .with("failed_shards", Value::Array(failures.into_iter().take(1).collect()))
        .rooted_in(root)
}

fn starting(id: ShardId, indices: &[Arc<IndexMeta>]) -> Value {
    let name = indices.iter().find(|m| m.uuid() == id.index).map_or("", |m| m.name());
    json!({"shard": id.number, "index": name, "node": null, "reason": {
        "type": "no_shard_available_action_exception", "reason": "the shard is starting"}})
}

fn strip_types(out: &mut Value) {
    let hits = out.get_mut("hits").and_then(|h| h.get_mut("hits")).and_then(Value::as_array_mut);
    for hit in hits.into_iter().flatten() {
        if let Some(map) = hit.as_object_mut() {
            map.shift_remove("_type");
        }
    }
}

//! `_bulk`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::join_all;
use index::EsError;
use index::aliases::document_routing;
use index::model::IndexMeta;
use index::names::IndicesOptions;
use index::write::{WriteKind, WriteOp, WriteResult};
use serde_json::{Map, Value, json};

use crate::app::{App, Request};
use crate::bulk::{Action, BulkItem, parse};
use crate::docs_api::{
    ParsedUpdate, Refresh, condition_of, got, parse_update, refresh_of, routing_missing,
    shows_type, status_of, version_of, write_body,
};
use crate::reply::{Content, Reply};
use crate::source::SourceFilter;
use crate::takes::{NO_PIPELINE, unsupported};

/// An item on its way.
struct Prepared {
    op: WriteOp,
    source: Option<SourceFilter>,
}

/// Items of one index and their places in the request.
type IndexWork = (Arc<IndexMeta>, Vec<usize>, Vec<Prepared>);

impl App {
    /// `_bulk`. Items of one index go to their shards together; the answer keeps their order.
    pub async fn bulk(&self, request: &Request) -> Result<Reply, EsError> {
        let started = self.env.clock.monotonic();
        let refresh = refresh_of(&request.params)?;
        let default_alias = request.params.flag("require_alias", false)?;
        let items = parse(&request.required_body()?)?;
        let targets = self.bulk_targets(&items, request, default_alias).await;
        let mut answers: Vec<Option<Value>> = items.iter().map(|_| None).collect();
        let mut work: BTreeMap<String, IndexWork> = BTreeMap::new();
        for (at, item) in items.iter().enumerate() {
            let name = index_name(item, request);
            let prepared = match targets.get(&(name.to_owned(), alias_flag(item, default_alias))) {
                Some(Ok(meta)) => self.prepare(item, request, meta).map(|op| (meta.clone(), op)),
                Some(Err(error)) => Err(error.clone()),
                None => Err(EsError::validation(&["index is missing"])),
            };
            match prepared {
                Ok((meta, op)) => {
                    let slot = work.entry(meta.name().to_owned());
                    let slot = slot.or_insert_with(|| (meta, Vec::new(), Vec::new()));
                    slot.1.push(at);
                    slot.2.push(op);
                }
                Err(error) if error.kind == "action_request_validation_exception" => {
                    return Err(error);
                }
                Err(error) => {
                    let body = failed(item, name, item.id.as_deref(), &error, request);
                    if let Some(slot) = answers.get_mut(at) {
                        *slot = Some(body);
                    }
                }
            }
        }
        let runs = work.into_values().map(|(meta, places, ops)| {
            let items = &items;
            async move {
                (places.clone(), self.bulk_index(meta, items, &places, ops, refresh, request).await)
            }
        });
        for (places, bodies) in join_all(runs).await {
            for (at, body) in places.into_iter().zip(bodies) {
                if let Some(slot) = answers.get_mut(at) {
                    *slot = Some(body);
                }
            }
        }
        let took = self.env.clock.monotonic().saturating_sub(started).as_millis();
        Ok(answer(took, answers, request))
    }

    async fn bulk_targets(
        &self,
        items: &[BulkItem],
        request: &Request,
        default_alias: bool,
    ) -> BTreeMap<(String, bool), Result<Arc<IndexMeta>, EsError>> {
        let mut names: BTreeMap<(String, bool), bool> = BTreeMap::new();
        for item in items {
            let name = index_name(item, request);
            if !name.is_empty() {
                let creates = item.action != Action::Delete || item.version.is_some();
                let key = (name.to_owned(), alias_flag(item, default_alias));
                *names.entry(key).or_default() |= creates;
            }
        }
        let mut targets = BTreeMap::new();
        for ((name, alias), creates) in names {
            let target = if creates {
                self.write_target(&name, alias).await
            } else {
                match self.service.resolve(&name, IndicesOptions::SEARCH).await {
                    Ok(_) => self.write_target(&name, alias).await,
                    Err(error) => Err(error),
                }
            };
            targets.insert((name, alias), target);
        }
        targets
    }

    fn prepare(
        &self,
        item: &BulkItem,
        request: &Request,
        meta: &IndexMeta,
    ) -> Result<Prepared, EsError> {
        if let Some(pipeline) = item.pipeline.as_deref().filter(|name| *name != NO_PIPELINE) {
            return Err(unsupported("pipeline", pipeline));
        }
        if item.id.as_deref() == Some("") {
            return Err(EsError::illegal("if _id is specified it must not be empty"));
        }
        let routing =
            item.routing.clone().or_else(|| request.params.get("routing").map(str::to_owned));
        let routing = document_routing(meta, index_name(item, request), routing)?;
        let auto_id = item.id.is_none();
        let mut condition = condition_of(item.if_seq_no, item.if_primary_term)?;
        let mut source = None;
        let kind = match item.action {
            Action::Index if auto_id => WriteKind::Create(item.source.clone()),
            Action::Index => WriteKind::Index(item.source.clone()),
            Action::Create => WriteKind::Create(item.source.clone()),
            Action::Delete => WriteKind::Delete,
            Action::Update => {
                let ParsedUpdate { mut spec, if_seq_no, source: in_body } =
                    parse_update(&item.source)?;
                condition = condition.or(if_seq_no);
                let in_line = item.fetch_source.as_deref().and_then(|text| {
                    serde_json::from_str::<Value>(text).ok().map(|v| SourceFilter::from_json(&v))
                });
                source = in_body.or(in_line).or_else(|| SourceFilter::from_params(&request.params));
                spec.want_source = source.as_ref().is_some_and(|s| *s != SourceFilter::None);
                WriteKind::Update(spec)
            }
        };
        if auto_id && matches!(item.action, Action::Update | Action::Delete) {
            return Err(EsError::validation(&["id is missing"]));
        }
        let id = item.id.clone().unwrap_or_else(|| self.new_id());
        if meta.schema.mapping().routing_required() && routing.is_none() {
            return Err(routing_missing(meta.name(), &id));
        }
        let version = version_of(item.version, item.version_type.as_deref())?;
        let op = WriteOp { kind, id, auto_id, routing, version, if_seq_no: condition };
        Ok(Prepared { op, source })
    }

    async fn bulk_index(
        &self,
        meta: Arc<IndexMeta>,
        items: &[BulkItem],
        places: &[usize],
        prepared: Vec<Prepared>,
        refresh: Refresh,
        request: &Request,
    ) -> Vec<Value> {
        let ids: Vec<String> = prepared.iter().map(|p| p.op.id.clone()).collect();
        let patience = match self.wait_writable(&meta, &request.params).await {
            Ok(patience) => patience,
            Err(error) => {
                let items = places.iter().filter_map(|at| items.get(*at));
                let refused = items
                    .zip(&ids)
                    .map(|(item, id)| failed(item, meta.name(), Some(id), &error, request));
                return refused.collect();
            }
        };
        let (ops, sources): (Vec<_>, Vec<_>) =
            prepared.into_iter().map(|p| (p.op, p.source)).unzip();
        let results = self.service.write(&meta, ops, patience).await;
        if refresh != Refresh::No {
            let shards: BTreeSet<u16> = results.iter().map(|(shard, _)| *shard).collect();
            self.refresh_shards(&meta, &shards.into_iter().collect::<Vec<_>>()).await;
        }
        let shards = self.write_shards(&meta);
        let all = results.into_iter().zip(ids).zip(sources).zip(places);
        let bodies = all.map(|((((_, result), id), source), at)| {
            let Some(item) = items.get(*at) else { return Value::Null };
            match result {
                Err(error) => failed(item, meta.name(), Some(&id), &error, request),
                Ok(result) => {
                    let forced = refresh == Refresh::Now;
                    let mut body =
                        write_body(&meta, &id, &result, shards.clone(), forced, request.client);
                    if let Some(new_source) = &result.source {
                        body.insert("get".to_owned(), got(&result, new_source, source.as_ref()));
                    }
                    succeeded(item, body, &result)
                }
            }
        });
        bodies.collect()
    }
}

fn index_name<'a>(item: &'a BulkItem, request: &'a Request) -> &'a str {
    item.index.as_deref().unwrap_or_else(|| request.part("index"))
}

fn alias_flag(item: &BulkItem, default: bool) -> bool {
    item.require_alias.unwrap_or(default)
}

fn succeeded(item: &BulkItem, mut body: Map<String, Value>, result: &WriteResult) -> Value {
    let got = body.remove("get");
    body.insert("status".to_owned(), json!(status_of(result)));
    if let Some(got) = got {
        body.insert("get".to_owned(), got);
    }
    json!({ item.action.as_str(): body })
}

fn failed(
    item: &BulkItem,
    index: &str,
    id: Option<&str>,
    error: &EsError,
    request: &Request,
) -> Value {
    let mut body = Map::new();
    body.insert("_index".to_owned(), json!(index));
    if shows_type(request.client) {
        body.insert("_type".to_owned(), json!("_doc"));
    }
    body.insert("_id".to_owned(), json!(id));
    body.insert("status".to_owned(), json!(error.status));
    body.insert("error".to_owned(), Value::Object(error.body()));
    json!({ item.action.as_str(): body })
}

/// Key order and compactness matter: shippers look for `"errors":false,"items":[` in the text.
fn answer(took: u128, answers: Vec<Option<Value>>, request: &Request) -> Reply {
    let items: Vec<Value> = answers.into_iter().map(Option::unwrap_or_default).collect();
    let errors = items.iter().any(|item| {
        item.as_object().is_some_and(|m| m.values().any(|body| body.get("error").is_some()))
    });
    let took = u64::try_from(took).unwrap_or(u64::MAX);
    if request.params.get("pretty").is_some() || request.params.get("filter_path").is_some() {
        return Reply::ok(json!({"took": took, "errors": errors, "items": items}));
    }
    let mut text = format!("{{\"took\":{took},\"errors\":{errors},\"items\":[");
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            text.push(',');
        }
        text.push_str(&item.to_string());
    }
    text.push_str("]}");
    Reply { status: 200, content: Content::Raw(text), headers: Vec::new() }
}

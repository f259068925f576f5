//! Looking documents up by their ids: `GET /i/_doc/1`, `_source`, `_mget`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::join_all;
use index::EsError;
use index::aliases::document_routing;
use index::copy::DocState;
use index::model::{IndexMeta, IndexUuid};
use index::routing::shard_of;
use search::search::stored_fields;
use serde_json::{Map, Value, json};

use crate::app::{App, Client, Request};
use crate::docs_api::{identity, routing_missing, shows_type};
use crate::limits::MAX_MGET;
use crate::params::Params;
use crate::reply::Reply;
use crate::source::SourceFilter;

impl App {
    /// `GET /i/_doc/1` and `HEAD`.
    pub async fn doc_get(&self, request: &Request) -> Result<Reply, EsError> {
        let (meta, state) = self.look_up(request).await?;
        let id = request.part("id");
        let Some(state) = state else {
            return Ok(Reply::with(404, Value::Object(not_found(&meta, id, request.client))));
        };
        let shown = Shown {
            source: SourceFilter::from_params(&request.params),
            stored: stored_of(&request.params),
        };
        let body = found_body(&meta, id, &state, &shown, request.client)?;
        Ok(Reply::ok(Value::Object(body)))
    }

    /// `GET /i/_source/1` and `HEAD`.
    pub async fn doc_source(&self, request: &Request) -> Result<Reply, EsError> {
        let id = request.part("id");
        if SourceFilter::from_params(&request.params) == Some(SourceFilter::None) {
            return Err(EsError::validation(&["fetching source can not be disabled"]));
        }
        let (meta, state) = self.look_up(request).await?;
        let state = state.filter(|_| meta.schema.mapping().source_enabled()).ok_or_else(|| {
            let reason = format!("Document not found [{}]/[_doc]/[{id}]", meta.name());
            EsError::new(404, "resource_not_found_exception", reason)
        })?;
        let filter = SourceFilter::from_params(&request.params).unwrap_or(SourceFilter::All);
        let source = filter.apply(parse_source(&state.source));
        Ok(Reply::ok(source.unwrap_or(Value::Null)))
    }

    /// The index and the document that a request names.
    async fn look_up(
        &self,
        request: &Request,
    ) -> Result<(Arc<IndexMeta>, Option<DocState>), EsError> {
        let name = request.part("index");
        let meta = self.read_target(name).await?;
        let lookup = Lookup::of(request)?.by(&meta, name)?;
        if request.params.flag("refresh", false)? {
            self.refresh_shards(&meta, &[lookup.shard(&meta)]).await;
        }
        let state = self.find(&meta, &lookup, &request.params).await?;
        Ok((meta, state))
    }

    async fn find(
        &self,
        meta: &Arc<IndexMeta>,
        lookup: &Lookup,
        params: &Params,
    ) -> Result<Option<DocState>, EsError> {
        let (id, routing) = (lookup.id.as_str(), lookup.routing.clone());
        if meta.schema.mapping().routing_required() && routing.is_none() {
            return Err(routing_missing(meta.name(), id));
        }
        let number = lookup.shard(meta);
        if !params.flag("realtime", true)? {
            let (shards, _) = self.service.search_shards(std::slice::from_ref(meta));
            let shard = shards.into_iter().find(|shard| shard.id.number == number);
            let shard = shard.ok_or_else(|| EsError::unavailable("the shard is starting"))?;
            let doc = shard.snapshot.get(id)?;
            let state = doc.map(|doc| DocState {
                seq_no: doc.seq_no,
                primary_term: doc.primary_term,
                version: doc.version,
                deleted: false,
                routing: doc.routing,
                source: doc.source,
            });
            return check_version(meta, lookup, state);
        }
        let found = self.service.get_many(meta, &[(id.to_owned(), routing)]).await.pop();
        check_version(meta, lookup, found.unwrap_or(Ok(None))?)
    }

    async fn find_item(
        &self,
        meta: &Arc<IndexMeta>,
        item: &MgetItem,
        params: &Params,
    ) -> Result<Option<DocState>, EsError> {
        let lookup = item.lookup.clone().by(meta, &item.index)?;
        self.find(meta, &lookup, params).await
    }

    /// `_mget`.
    pub async fn mget(&self, request: &Request) -> Result<Reply, EsError> {
        let body = request.object()?;
        let items = mget_items(&body, &request.params)?;
        if request.params.flag("refresh", false)? {
            self.refresh_items(&items).await;
        }
        let gets = items.iter().map(|item| self.mget_one(item, request));
        let docs: Vec<Value> = join_all(gets).await;
        Ok(Reply::ok(json!({"docs": docs})))
    }

    /// Refreshes the shards of documents, each once.
    async fn refresh_items(&self, items: &[MgetItem]) {
        let mut shards: BTreeMap<IndexUuid, (Arc<IndexMeta>, BTreeSet<u16>)> = BTreeMap::new();
        for item in items {
            // Its own answer will say what is wrong with the index.
            let Ok(meta) = self.read_target(&item.index).await else { continue };
            let Ok(lookup) = item.lookup.clone().by(&meta, &item.index) else { continue };
            let number = lookup.shard(&meta);
            shards.entry(meta.uuid()).or_insert((meta, BTreeSet::new())).1.insert(number);
        }
        for (meta, numbers) in shards.into_values() {
            self.refresh_shards(&meta, &numbers.into_iter().collect::<Vec<_>>()).await;
        }
    }

    async fn mget_one(&self, item: &MgetItem, request: &Request) -> Value {
        let id = item.lookup.id.as_str();
        let failed = |name: &str, error: EsError| {
            let mut body = Map::new();
            body.insert("_index".to_owned(), json!(name));
            if shows_type(request.client) {
                body.insert("_type".to_owned(), Value::Null);
            }
            body.insert("_id".to_owned(), json!(id));
            let answer = error.answer();
            body.insert("error".to_owned(), answer.get("error").cloned().unwrap_or_default());
            body
        };
        let body = match self.read_target(&item.index).await {
            Err(error) => failed(&item.index, error),
            Ok(meta) => match self.find_item(&meta, item, &request.params).await {
                Err(error) => failed(meta.name(), error),
                Ok(None) => not_found(&meta, id, request.client),
                Ok(Some(state)) => found_body(&meta, id, &state, &item.shown, request.client)
                    .unwrap_or_else(|error| failed(meta.name(), error)),
            },
        };
        Value::Object(body)
    }
}

/// One document to look at.
#[derive(Clone)]
struct Lookup {
    id: String,
    routing: Option<String>,
    /// The version that it has to have.
    version: Option<u64>,
}

impl Lookup {
    /// With the routing of the alias by which it is looked for.
    fn by(mut self, meta: &IndexMeta, name: &str) -> Result<Self, EsError> {
        self.routing = document_routing(meta, name, self.routing)?;
        Ok(self)
    }

    fn shard(&self, meta: &IndexMeta) -> u16 {
        shard_of(self.routing.as_deref().unwrap_or(&self.id), meta.shard_count())
    }

    fn of(request: &Request) -> Result<Self, EsError> {
        Ok(Self {
            id: request.part("id").to_owned(),
            routing: request.params.get("routing").map(str::to_owned),
            version: request.params.number("version")?,
        })
    }
}

/// What is shown of a document.
struct Shown {
    /// What of its source, if that was said.
    source: Option<SourceFilter>,
    /// Which of its stored fields; who asks for some gets no source unless it is among them.
    stored: Option<Vec<String>>,
}

impl Shown {
    fn filter(&self) -> &SourceFilter {
        match (&self.source, &self.stored) {
            (Some(filter), _) => filter,
            (None, Some(names)) if !names.iter().any(|name| name == "_source") => {
                &SourceFilter::None
            }
            (None, _) => &SourceFilter::All,
        }
    }
}

fn stored_of(params: &Params) -> Option<Vec<String>> {
    let names = params.list("stored_fields")?;
    Some(names.into_iter().map(str::to_owned).collect())
}

/// For reads all kinds of versions have to be equal.
fn check_version(
    meta: &IndexMeta,
    lookup: &Lookup,
    state: Option<DocState>,
) -> Result<Option<DocState>, EsError> {
    let (Some(found), Some(version)) = (&state, lookup.version) else { return Ok(state) };
    if found.version == version {
        return Ok(state);
    }
    let reason = format!(
        "[{}]: version conflict, current version [{}] is different than the one provided \
         [{version}]",
        lookup.id, found.version
    );
    Err(EsError::new(409, "version_conflict_engine_exception", reason)
        .with("index_uuid", meta.uuid().to_string())
        .with("shard", lookup.shard(meta).to_string())
        .with("index", meta.name()))
}

struct MgetItem {
    index: String,
    lookup: Lookup,
    shown: Shown,
}

fn mget_items(body: &Map<String, Value>, params: &Params) -> Result<Vec<MgetItem>, EsError> {
    let list = |name: &str| body.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let ids: Vec<Value> = list("ids").iter().map(|id| json!({ "_id": id })).collect();
    let (mut items, mut failures) = (Vec::new(), Vec::new());
    for doc in list("docs").iter().chain(&ids) {
        if let Some(unknown) =
            doc.as_object().and_then(|m| m.keys().find(|k| !MGET.contains(&k.as_str())))
        {
            return Err(EsError::illegal(format!(
                "unknown parameter [{unknown}] for request body or parameter is of the wrong type"
            )));
        }
        let place = items.len() + failures.len();
        match mget_item(doc, params) {
            Ok(item) => items.push(item),
            Err(part) => failures.push(format!("{part} is missing for doc {place}")),
        }
    }
    if items.is_empty() && failures.is_empty() {
        failures.push("no documents to get".to_owned());
    }
    if !failures.is_empty() {
        return Err(EsError::validation(&failures.iter().map(String::as_str).collect::<Vec<_>>()));
    }
    if items.len() > MAX_MGET {
        return Err(EsError::illegal(format!("more than {MAX_MGET} documents at once")));
    }
    Ok(items)
}

/// One document of `_mget`, or what it does not say. What it does not say of the rest, the URL
/// says for all.
fn mget_item(doc: &Value, params: &Params) -> Result<MgetItem, &'static str> {
    let text = |name: &str| match doc.get(name) {
        Some(Value::String(text)) => Some(text.clone()),
        None | Some(Value::Null) => None,
        Some(other) => Some(other.to_string()),
    };
    let url = |name: &str| params.get(name).map(str::to_owned);
    let names = |value: &Value| match value {
        Value::Array(list) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        other => other.as_str().map(str::to_owned).into_iter().collect::<Vec<_>>(),
    };
    let source = doc.get("_source").map(SourceFilter::from_json);
    let stored = doc.get("stored_fields").map(names);
    Ok(MgetItem {
        index: text("_index").or_else(|| url("index")).ok_or("index")?,
        lookup: Lookup {
            id: text("_id").ok_or("id")?,
            routing: text("routing").or_else(|| url("routing")),
            version: doc.get("version").and_then(Value::as_u64),
        },
        shown: Shown {
            source: source.or_else(|| SourceFilter::from_params(params)),
            stored: stored.or_else(|| stored_of(params)),
        },
    })
}

const MGET: &[&str] =
    &["_index", "_id", "_type", "routing", "_source", "stored_fields", "version", "version_type"];

fn parse_source(source: &[u8]) -> Value {
    serde_json::from_slice(source).unwrap_or(Value::Null)
}

fn not_found(meta: &IndexMeta, id: &str, client: Client) -> Map<String, Value> {
    let mut body = identity(meta, id, client);
    body.insert("found".to_owned(), json!(false));
    body
}

fn found_body(
    meta: &IndexMeta,
    id: &str,
    state: &DocState,
    shown: &Shown,
    client: Client,
) -> Result<Map<String, Value>, EsError> {
    let mut body = identity(meta, id, client);
    body.insert("_version".to_owned(), json!(state.version));
    body.insert("_seq_no".to_owned(), json!(state.seq_no));
    body.insert("_primary_term".to_owned(), json!(state.primary_term));
    if let Some(routing) = &state.routing {
        body.insert("_routing".to_owned(), json!(routing));
    }
    body.insert("found".to_owned(), json!(true));
    if meta.schema.mapping().source_enabled()
        && let Some(source) = shown.filter().apply(parse_source(&state.source))
    {
        body.insert("_source".to_owned(), source);
    }
    if let Some(names) = &shown.stored {
        let fields = stored_fields(&meta.schema, id, &state.source, names)?;
        if !fields.is_empty() {
            body.insert("fields".to_owned(), Value::Object(fields));
        }
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(query: &str, body: Value) -> Result<Vec<MgetItem>, String> {
        let body = body.as_object().cloned().unwrap_or_default();
        mget_items(&body, &Params::parse(query).unwrap()).map_err(|error| error.reason)
    }

    #[test]
    fn stored_fields_stand_for_the_source_unless_both_are_asked_for() {
        for (query, doc, filter) in [
            ("", json!({}), SourceFilter::All),
            ("", json!({"stored_fields": "a"}), SourceFilter::None),
            ("", json!({"stored_fields": ["a", "_source"]}), SourceFilter::All),
            ("&stored_fields=a", json!({}), SourceFilter::None),
            ("&stored_fields=a", json!({"stored_fields": ["_source"]}), SourceFilter::All),
            ("&stored_fields=a&_source=true", json!({}), SourceFilter::All),
            ("&stored_fields=a", json!({"_source": true}), SourceFilter::All),
        ] {
            let mut doc = doc;
            doc["_id"] = json!(1);
            let items = items(&format!("index=i{query}"), json!({"docs": [doc]})).unwrap();
            assert_eq!(*items[0].shown.filter(), filter, "{query} {doc}");
        }
    }

    #[test]
    fn what_is_missing_is_named_with_its_place() {
        let reason = |query: &str, body| items(query, body).err().unwrap();
        assert_eq!(
            reason("", json!({"docs": [{"_id": "1"}, {"_index": "a"}]})),
            "Validation Failed: 1: index is missing for doc 0;2: id is missing for doc 1;"
        );
        assert_eq!(reason("index=a", json!({})), "Validation Failed: 1: no documents to get;");
        assert!(reason("", json!({"docs": [{"_di": 1}]})).starts_with("unknown parameter [_di]"));
    }
}

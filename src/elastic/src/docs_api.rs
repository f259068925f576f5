//! Writing one document at a time.

use std::sync::Arc;

use bytes::Bytes;
use index::EsError;
use index::aliases::document_routing;
use index::blocks::{self, Access};
use index::model::{IndexMeta, ShardId};
use index::names::IndicesOptions;
use index::write::{Outcome, UpdateSpec, VersionType, WriteKind, WriteOp, WriteResult};
use serde_json::{Map, Value, json};

use crate::app::{App, Client, Request};
use crate::params::{Params, did_you_mean};
use crate::reply::Reply;
use crate::source::SourceFilter;

/// Whether documents are to be searchable before the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refresh {
    /// In their own time.
    No,
    /// At once.
    Now,
    /// The answer waits for them.
    Wait,
}

/// Reads `refresh`.
pub(crate) fn refresh_of(params: &Params) -> Result<Refresh, EsError> {
    match params.get("refresh") {
        None | Some("false") => Ok(Refresh::No),
        Some("" | "true") => Ok(Refresh::Now),
        Some("wait_for") => Ok(Refresh::Wait),
        Some(other) => Err(EsError::illegal(format!("Unknown value for refresh: [{other}]."))),
    }
}

const NO_VERSION: &str = "internal versioning can not be used for optimistic concurrency control. \
                          Please use `if_seq_no` and `if_primary_term` instead";

/// Reads `version` and `version_type`.
pub(crate) fn version_of(
    version: Option<i64>,
    version_type: Option<&str>,
) -> Result<Option<(u64, VersionType)>, EsError> {
    let kind = match version_type {
        None | Some("internal") => {
            return match version {
                None => Ok(None),
                Some(_) => Err(EsError::validation(&[NO_VERSION])),
            };
        }
        Some("external" | "external_gt") => VersionType::External,
        Some("external_gte") => VersionType::ExternalGte,
        Some(other) => {
            return Err(EsError::illegal(format!("No version type match [{other}]")));
        }
    };
    let name = if kind == VersionType::External { "EXTERNAL" } else { "EXTERNAL_GTE" };
    let version = version.unwrap_or(-3);
    let unsigned = u64::try_from(version).map_err(|_| {
        let text = format!("illegal version value [{version}] for version type [{name}]");
        EsError::validation(&[&text])
    })?;
    Ok(Some((unsigned, kind)))
}

/// Both or none of `if_seq_no` and `if_primary_term`.
pub(crate) fn condition_of(
    seq_no: Option<u64>,
    term: Option<u64>,
) -> Result<Option<(u64, u64)>, EsError> {
    match (seq_no, term) {
        (None, None) => Ok(None),
        (Some(seq_no), Some(term)) if term > 0 => Ok(Some((seq_no, term))),
        (Some(_), _) => Err(EsError::validation(&["ifSeqNo is set, but primary term is [0]"])),
        (None, Some(term)) => {
            let text = format!("ifSeqNo is unassigned, but primary term is [{term}]");
            Err(EsError::validation(&[&text]))
        }
    }
}

impl App {
    /// The index that a write to this name goes to; it is created when nothing is there.
    pub async fn write_target(
        &self,
        name: &str,
        require_alias: bool,
    ) -> Result<Arc<IndexMeta>, EsError> {
        let meta = self.resolve_target(name, require_alias).await?;
        blocks::check(std::slice::from_ref(&meta), Access::Write)?;
        Ok(meta)
    }

    async fn resolve_target(
        &self,
        name: &str,
        require_alias: bool,
    ) -> Result<Arc<IndexMeta>, EsError> {
        match self.service.resolve(name, IndicesOptions::SEARCH).await {
            Ok(found) if require_alias && found.iter().any(|meta| meta.name() == name) => {
                Err(not_an_alias(name))
            }
            Ok(found) => pick_write_index(name, found),
            Err(error) if error.kind == "index_not_found_exception" => {
                if require_alias {
                    return Err(not_an_alias(name));
                }
                let created = self.service.create(name, Default::default()).await;
                match created {
                    Ok(_) => {}
                    Err(error) if error.kind == "resource_already_exists_exception" => {}
                    Err(error) => return Err(error),
                }
                let found = self.service.resolve(name, IndicesOptions::SEARCH).await?;
                pick_write_index(name, found)
            }
            Err(error) => Err(error),
        }
    }

    /// A name that means exactly one index, for reading documents.
    pub async fn read_target(&self, name: &str) -> Result<Arc<IndexMeta>, EsError> {
        let found = self.service.resolve(name, IndicesOptions::SEARCH).await?;
        blocks::check(&found, Access::Read)?;
        match found.as_slice() {
            [one] => Ok(one.clone()),
            [] => Err(EsError::no_index(name)),
            many => {
                let names: Vec<&str> = many.iter().map(|meta| meta.name()).collect();
                Err(EsError::illegal(format!(
                    "alias [{name}] has more than one index associated with it [{}], can't \
                     execute a single index op",
                    names.join(", ")
                )))
            }
        }
    }

    /// `_shards` of a write.
    pub fn write_shards(&self, meta: &IndexMeta) -> Value {
        let total = u64::from(meta.row.replicas) + 1;
        json!({"total": total, "successful": self.service.active_copies(meta), "failed": 0})
    }

    /// Makes shards searchable on all copies that answer.
    pub async fn refresh_shards(&self, meta: &IndexMeta, numbers: &[u16]) {
        let index = meta.uuid();
        let shards: Vec<_> = numbers.iter().map(|n| ShardId { index, number: *n }).collect();
        self.service.refresh(&shards, 1).await;
    }

    async fn write_one(&self, request: &Request, mut op: WriteOp) -> Result<Reply, EsError> {
        let refresh = refresh_of(&request.params)?;
        let require_alias = request.params.flag("require_alias", false)?;
        let meta = self.write_target(request.part("index"), require_alias).await?;
        op.routing = document_routing(&meta, request.part("index"), op.routing.take())?;
        if meta.schema.mapping().routing_required() && op.routing.is_none() {
            return Err(routing_missing(meta.name(), &op.id));
        }
        let patience = self.wait_writable(&meta, &request.params).await?;
        let (id, is_delete) = (op.id.clone(), op.kind == WriteKind::Delete);
        let wants = SourceFilter::from_params(&request.params);
        let (shard, result) = self
            .service
            .write(&meta, vec![op], patience)
            .await
            .pop()
            .ok_or_else(|| EsError::internal("a write got no result"))?;
        let result = result?;
        if refresh != Refresh::No {
            self.refresh_shards(&meta, &[shard]).await;
        }
        let shards = self.write_shards(&meta);
        let forced = refresh == Refresh::Now && result.outcome != Outcome::Noop;
        let mut body = write_body(&meta, &id, &result, shards, forced, request.client);
        if let Some(source) = &result.source {
            body.insert("get".to_owned(), got(&result, source, wants.as_ref()));
        }
        let status = status_of(&result);
        let mut reply = Reply::with(status, Value::Object(body));
        if status == 201 && !is_delete {
            let encoded =
                percent_encoding::utf8_percent_encode(&id, percent_encoding::NON_ALPHANUMERIC);
            reply.headers.push(("location", format!("/{}/_doc/{encoded}", meta.name())));
        }
        Ok(reply)
    }

    /// `PUT /i/_doc/1`, `POST /i/_doc`, `PUT /i/_create/1`.
    pub async fn doc_index(&self, request: &Request, create: bool) -> Result<Reply, EsError> {
        let source = request.required_body()?;
        let params = &request.params;
        let create = match params.get("op_type") {
            None => create || params.get("id").is_none(),
            Some("create") => true,
            Some("index") if create => {
                return Err(EsError::illegal("opType must be 'create', found: [index]"));
            }
            Some("index") => false,
            Some(other) => {
                return Err(EsError::illegal(format!(
                    "opType must be 'create' or 'index', found: [{other}]"
                )));
            }
        };
        let kind = if create { WriteKind::Create(source) } else { WriteKind::Index(source) };
        let op = self.op(request, kind)?;
        if create && op.version.is_some() {
            return Err(EsError::validation(&[
                "create operations only support internal versioning. use index instead",
            ]));
        }
        self.write_one(request, op).await
    }

    /// `DELETE /i/_doc/1`.
    pub async fn doc_delete(&self, request: &Request) -> Result<Reply, EsError> {
        let op = self.op(request, WriteKind::Delete)?;
        if op.version.is_none() {
            // Deleting creates no index, unless the version is kept outside.
            self.service.resolve(request.part("index"), IndicesOptions::SEARCH).await?;
        }
        self.write_one(request, op).await
    }

    /// `POST /i/_update/1`.
    pub async fn doc_update(&self, request: &Request) -> Result<Reply, EsError> {
        if ["version", "version_type"].iter().any(|name| request.params.get(name).is_some()) {
            return Err(EsError::validation(&[NO_VERSION]));
        }
        let spec = parse_update(&request.required_body()?)?;
        let mut update = spec.spec;
        update.want_source |= SourceFilter::from_params(&request.params).is_some();
        let mut op = self.op(request, WriteKind::Update(update))?;
        op.if_seq_no = op.if_seq_no.or(spec.if_seq_no);
        self.write_one(request, op).await
    }

    fn op(&self, request: &Request, kind: WriteKind) -> Result<WriteOp, EsError> {
        let params = &request.params;
        let given = params.get("id").map(str::to_owned);
        let auto_id = given.is_none();
        Ok(WriteOp {
            kind,
            id: given.unwrap_or_else(|| self.new_id()),
            auto_id,
            routing: params.get("routing").map(str::to_owned),
            version: version_of(params.number("version")?, params.get("version_type"))?,
            if_seq_no: condition_of(
                params.number("if_seq_no")?,
                params.number("if_primary_term")?,
            )?,
        })
    }

    /// A new document id: 20 characters, as Elasticsearch's own.
    pub fn new_id(&self) -> String {
        use base64::Engine as _;
        let bytes = self.env.random.uuid_bytes();
        let kept = bytes.get(..15).unwrap_or_default();
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(kept)
    }
}

const UPDATE: &[&str] = &[
    "doc",
    "upsert",
    "doc_as_upsert",
    "detect_noop",
    "_source",
    "if_seq_no",
    "if_primary_term",
    "script",
    "scripted_upsert",
];

/// The body of an update, taken apart.
#[derive(Debug)]
pub(crate) struct ParsedUpdate {
    /// What to do.
    pub spec: UpdateSpec,
    /// A condition inside the body.
    pub if_seq_no: Option<(u64, u64)>,
    /// What of the source is wanted.
    pub source: Option<SourceFilter>,
}

/// Reads the body of an update.
pub(crate) fn parse_update(body: &Bytes) -> Result<ParsedUpdate, EsError> {
    let map: Map<String, Value> = serde_json::from_slice(body)
        .map_err(|e| EsError::new(400, "json_parse_exception", e.to_string()))?;
    let mut spec = UpdateSpec { detect_noop: true, ..UpdateSpec::default() };
    let (mut as_upsert, mut source, mut seq_no, mut term) = (false, None, None, None);
    for (key, value) in &map {
        let flag = || value.as_bool().unwrap_or(value.as_str() == Some("true"));
        match key.as_str() {
            "doc" => spec.doc = Some(value.to_string().into()),
            "upsert" => spec.upsert = Some(value.to_string().into()),
            "doc_as_upsert" => as_upsert = flag(),
            "detect_noop" => spec.detect_noop = flag(),
            "_source" => source = Some(SourceFilter::from_json(value)),
            "if_seq_no" => seq_no = value.as_u64(),
            "if_primary_term" => term = value.as_u64(),
            "script" | "scripted_upsert" => {
                return Err(EsError::illegal(
                    "scripts are not supported by this server: send [doc] or [upsert]",
                ));
            }
            other => {
                let meant = did_you_mean(other, UPDATE.iter().copied());
                let text = format!("[UpdateRequest] unknown field [{other}]{meant}");
                return Err(EsError::new(400, "x_content_parse_exception", text));
            }
        }
    }
    if spec.doc.is_none() {
        let text = if as_upsert {
            "doc must be specified if doc_as_upsert is enabled"
        } else {
            "script or doc is missing"
        };
        return Err(EsError::validation(&[text]));
    }
    if as_upsert {
        spec.upsert = spec.doc.clone();
    }
    spec.want_source = source.as_ref().is_some_and(|source| *source != SourceFilter::None);
    Ok(ParsedUpdate { spec, if_seq_no: condition_of(seq_no, term)?, source })
}

fn not_an_alias(name: &str) -> EsError {
    EsError::new(
        404,
        "index_not_found_exception",
        format!(
            "no such index [{name}] and [require_alias] request flag is [true] and [{name}] is \
             not an alias"
        ),
    )
    .with("index_uuid", "_na_")
    .with("index", name)
}

/// The error of a request without the routing that the mapping demands.
pub(crate) fn routing_missing(index: &str, id: &str) -> EsError {
    EsError::new(
        400,
        "routing_missing_exception",
        format!("routing is required for [{index}]/[_doc]/[{id}]"),
    )
    .with("index_uuid", "_na_")
    .with("index", index)
}

fn pick_write_index(name: &str, mut found: Vec<Arc<IndexMeta>>) -> Result<Arc<IndexMeta>, EsError> {
    let marked = found.iter().position(|meta| {
        let flag = meta.aliases.get(name).and_then(|a| a.get("is_write_index"));
        flag.and_then(Value::as_bool) == Some(true)
    });
    match (marked, found.len()) {
        (Some(at), _) => Ok(found.swap_remove(at)),
        (None, 1) => Ok(found.swap_remove(0)),
        (None, 0) => Err(EsError::no_index(name)),
        (None, _) => Err(EsError::illegal(format!(
            "no write index is defined for alias [{name}]. The write index may be explicitly \
             disabled using is_write_index=false or the alias points to multiple indices without \
             one being designated as a write index"
        ))),
    }
}

/// Answers before version 8 name a type.
pub(crate) fn shows_type(client: Client) -> bool {
    match client {
        Client::Eight | Client::Nine => false,
        Client::Fork | Client::Plain => true,
    }
}

/// `_index`, `_type` and `_id`.
pub(crate) fn identity(meta: &IndexMeta, id: &str, client: Client) -> Map<String, Value> {
    let mut body = Map::new();
    body.insert("_index".to_owned(), json!(meta.name()));
    if shows_type(client) {
        body.insert("_type".to_owned(), json!("_doc"));
    }
    body.insert("_id".to_owned(), json!(id));
    body
}

/// HTTP status of a write.
pub(crate) fn status_of(result: &WriteResult) -> u16 {
    match result.outcome {
        Outcome::Created => 201,
        Outcome::NotFound => 404,
        Outcome::Updated | Outcome::Deleted | Outcome::Noop => 200,
    }
}

/// The answer to a write.
pub(crate) fn write_body(
    meta: &IndexMeta,
    id: &str,
    result: &WriteResult,
    shards: Value,
    forced_refresh: bool,
    client: Client,
) -> Map<String, Value> {
    let mut body = identity(meta, id, client);
    body.insert("_version".to_owned(), json!(result.version));
    body.insert("result".to_owned(), json!(result.outcome.as_str()));
    if forced_refresh {
        body.insert("forced_refresh".to_owned(), json!(true));
    }
    let none = || json!({"total": 0, "successful": 0, "failed": 0});
    let shards = if result.outcome == Outcome::Noop { none() } else { shards };
    body.insert("_shards".to_owned(), shards);
    body.insert("_seq_no".to_owned(), json!(result.seq_no));
    body.insert("_primary_term".to_owned(), json!(result.primary_term));
    body
}

/// `get` inside the answer to an update.
pub(crate) fn got(result: &WriteResult, source: &[u8], filter: Option<&SourceFilter>) -> Value {
    let source = serde_json::from_slice(source).unwrap_or(Value::Null);
    let source = filter.unwrap_or(&SourceFilter::All).apply(source);
    let mut body = Map::new();
    body.insert("_seq_no".to_owned(), json!(result.seq_no));
    body.insert("_primary_term".to_owned(), json!(result.primary_term));
    body.insert("found".to_owned(), json!(true));
    if let Some(source) = source {
        body.insert("_source".to_owned(), source);
    }
    Value::Object(body)
}

//! The body and parameters of `_search`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::request_parts::{field_formats, highlight};
use super::sort::{self, SortField};
use super::{FieldFormat, HighlightSpec, IndexLimits, SourceFilter, StoredFields};
use crate::aggs::Aggregations;
use crate::error::{EsError, Result};
use crate::mapping::{parse_bool, parse_number};
use crate::query::Query;

/// How exactly hits are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrackTotal {
    /// All of them.
    Exact,
    /// Up to a number; above it the answer says "at least".
    UpTo(u64),
    /// Not at all.
    Off,
}

/// A search. On the wire it travels as the JSON it was parsed from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct SearchRequest {
    wire: Wire,
    /// The query.
    pub query: Query,
    /// First hit.
    pub from: usize,
    /// Number of hits.
    pub size: usize,
    /// Order; empty means by score.
    pub sort: Vec<SortField>,
    /// Sort values of the last hit of the page before.
    pub search_after: Option<Vec<Value>>,
    /// What of `_source` is returned.
    pub source: SourceFilter,
    /// Values of stored fields.
    pub stored_fields: StoredFields,
    /// Values from columns.
    pub docvalue_fields: Vec<FieldFormat>,
    /// Values from `_source` in the shape of the mapping.
    pub fields: Vec<FieldFormat>,
    /// Highlighting.
    pub highlight: Option<HighlightSpec>,
    /// How exactly hits are counted.
    pub track_total: TrackTotal,
    /// Hits below are dropped.
    pub min_score: Option<f32>,
    /// Filter of hits, not of aggregations.
    pub post_filter: Option<Query>,
    /// Documents per shard after which collecting stops.
    pub terminate_after: Option<u64>,
    /// Time limit as written. Elasticsearch looks at it between segments and blocks of documents
    /// and returns what it has by then; here a search always runs to its end, which that best
    /// effort allows.
    pub timeout: Option<String>,
    /// Whether hits show `_version`.
    pub version: bool,
    /// Whether hits show `_seq_no` and `_primary_term`.
    pub seq_no: bool,
    /// Whether scores are computed when sorting by fields.
    pub track_scores: bool,
    /// Aggregations.
    pub aggs: Aggregations,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Wire {
    body: String,
    params: BTreeMap<String, String>,
}

impl TryFrom<Wire> for SearchRequest {
    type Error = EsError;

    fn try_from(wire: Wire) -> Result<Self> {
        let body = serde_json::from_str(&wire.body)
            .map_err(|e| EsError::parsing(format!("search request on the wire: {e}")))?;
        Self::parse(Some(&body), &wire.params)
    }
}

impl From<SearchRequest> for Wire {
    fn from(request: SearchRequest) -> Self {
        request.wire
    }
}

/// Keys whose features do not exist here; they are refused unless empty or false.
const UNSUPPORTED: &[&str] = &[
    "collapse",
    "rescore",
    "script_fields",
    "suggest",
    "explain",
    "profile",
    "pit",
    "ext",
    "runtime_mappings",
    "slice",
    "knn",
    "rank",
    "indices_boost",
];

/// Keys that change no answer: groups of statistics.
const IGNORED: &[&str] = &["stats"];

/// Parameters of a URL that say what of `_source` is returned.
const SOURCE: &[&str] = &["_source", "_source_includes", "_source_excludes"];

impl SearchRequest {
    /// Reads a request body and the URL parameters that concern the search itself (`q`, `df`,
    /// `default_operator`, `analyzer`, `lenient`, `from`, `size`, `sort`, `_source*`,
    /// `stored_fields`, `track_total_hits`, `track_scores`, `min_score`, `version`,
    /// `seq_no_primary_term`, `terminate_after`, `timeout`, `docvalue_fields`). Other parameters
    /// are left to the gateway.
    pub fn parse(body: Option<&Value>, params: &BTreeMap<String, String>) -> Result<Self> {
        let empty = Value::Object(Map::new());
        let body = body.unwrap_or(&empty);
        let Value::Object(object) = body else {
            return Err(EsError::parsing(format!(
                "Expected [START_OBJECT] but found [{}]",
                token_name(body)
            )));
        };
        let wire = Wire { body: body.to_string(), params: params.clone() };
        let mut request = Self::empty(wire);
        for (key, value) in object {
            request.key(key, value)?;
        }
        request.url(params)?;
        let in_url = SOURCE.iter().any(|name| params.contains_key(*name));
        request.settle_source(in_url || object.contains_key("_source"))?;
        request.check()?;
        Ok(request)
    }

    fn empty(wire: Wire) -> Self {
        Self {
            wire,
            query: Query::match_all(),
            from: 0,
            size: 10,
            sort: Vec::new(),
            search_after: None,
            source: SourceFilter::default(),
            stored_fields: StoredFields::Unset,
            docvalue_fields: Vec::new(),
            fields: Vec::new(),
            highlight: None,
            track_total: TrackTotal::UpTo(10_000),
            min_score: None,
            post_filter: None,
            terminate_after: None,
            timeout: None,
            version: false,
            seq_no: false,
            track_scores: false,
            aggs: Aggregations::default(),
        }
    }

    fn key(&mut self, key: &str, value: &Value) -> Result<()> {
        let flag = || parse_bool(value).unwrap_or(false);
        match key {
            "query" => self.query = Query::parse(value)?,
            "post_filter" => self.post_filter = Some(Query::parse(value)?),
            "from" => self.from = size(key, value)?,
            "size" => self.size = size(key, value)?,
            "sort" => self.sort = sort::parse(value)?,
            "search_after" => self.search_after = Some(after(value)?),
            "_source" => self.source = SourceFilter::parse(value)?,
            "stored_fields" => self.stored_fields = StoredFields::parse(value)?,
            "docvalue_fields" => self.docvalue_fields = field_formats(key, value)?,
            "fields" => self.fields = field_formats(key, value)?,
            "highlight" => self.highlight = Some(highlight(value)?),
            "track_total_hits" => self.track_total = track_total(value)?,
            "min_score" => self.min_score = parse_number(value).map(|score| score as f32),
            "terminate_after" => {
                self.terminate_after = Some(size(key, value)? as u64).filter(|n| *n > 0);
            }
            "timeout" => self.timeout = value.as_str().map(str::to_owned),
            "version" => self.version = flag(),
            "seq_no_primary_term" => self.seq_no = flag(),
            "track_scores" => self.track_scores = flag(),
            "aggs" | "aggregations" => self.aggs = Aggregations::parse(value)?,
            key if IGNORED.contains(&key) => {}
            key if UNSUPPORTED.contains(&key) => {
                if !is_empty(value) {
                    return Err(EsError::unsupported(format!("[{key}] in a search request")));
                }
            }
            key => {
                let token = token_name(value);
                return Err(EsError::parsing(format!("Unknown key for a {token} in [{key}].")));
            }
        }
        Ok(())
    }

    fn url(&mut self, params: &BTreeMap<String, String>) -> Result<()> {
        let text = |key: &str| params.get(key).map(String::as_str);
        let number = |key: &str| -> Result<Option<usize>> {
            text(key).map(|t| size(key, &Value::String(t.to_owned()))).transpose()
        };
        let flag = |key: &str| text(key).is_some_and(|value| value != "false");
        if let Some(q) = text("q") {
            let mut body = Map::new();
            body.insert("query".into(), q.into());
            for (param, key) in [
                ("df", "default_field"),
                ("default_operator", "default_operator"),
                ("analyzer", "analyzer"),
                ("lenient", "lenient"),
                ("analyze_wildcard", "analyze_wildcard"),
            ] {
                if let Some(value) = text(param) {
                    body.insert(key.into(), value.into());
                }
            }
            self.query = Query::parse(&serde_json::json!({ "query_string": body }))?;
        }
        if let Some(from) = number("from")? {
            self.from = from;
        }
        if let Some(size) = number("size")? {
            self.size = size;
        }
        if let Some(sort) = text("sort") {
            self.sort = sort::parse_url(sort)?;
        }
        self.source.apply_url(text("_source"), text("_source_includes"), text("_source_excludes"));
        if let Some(total) = text("track_total_hits") {
            self.track_total = track_total(&Value::String(total.to_owned()))?;
        }
        if let Some(n) = number("terminate_after")? {
            self.terminate_after = Some(n as u64).filter(|n| *n > 0);
        }
        if let Some(timeout) = text("timeout") {
            self.timeout = Some(timeout.to_owned());
        }
        if let Some(text) = text("min_score") {
            self.min_score = Some(score("min_score", text)?);
        }
        if let Some(names) = text("stored_fields") {
            self.stored_fields = StoredFields::of(names.split(',').map(str::to_owned).collect())?;
        }
        if let Some(fields) = text("docvalue_fields") {
            let list: Vec<&str> = fields.split(',').collect();
            self.docvalue_fields = field_formats("docvalue_fields", &serde_json::json!(list))?;
        }
        self.version |= flag("version");
        self.seq_no |= flag("seq_no_primary_term");
        self.track_scores |= flag("track_scores");
        Ok(())
    }

    /// Who asks for stored fields gets `_source` only by asking for it too.
    fn settle_source(&mut self, asked: bool) -> Result<()> {
        match &self.stored_fields {
            StoredFields::Unset => {}
            StoredFields::None if asked && !self.source.off => {
                let text = "[stored_fields] cannot be disabled if [_source] is requested";
                return Err(EsError::illegal(text));
            }
            StoredFields::None if !self.fields.is_empty() => {
                let text = "[stored_fields] cannot be disabled when using the [fields] option";
                return Err(EsError::illegal(text));
            }
            StoredFields::None => self.source.off = true,
            StoredFields::Named(names) if names.iter().any(|name| name == "_source") => {
                self.source.off = false;
            }
            StoredFields::Named(_) => self.source.off |= !asked,
        }
        Ok(())
    }

    /// Refuses what goes beyond the settings of an index that is searched.
    pub fn check_limits(&self, limits: &IndexLimits) -> Result<()> {
        let (window, most) = (self.window(), limits.result_window);
        if window > most {
            return Err(EsError::illegal(format!(
                "Result window is too large, from + size must be less than or equal to: [{most}] \
                 but was [{window}]. See the scroll api for a more efficient way to request large \
                 data sets. This limit can be set by changing the [index.max_result_window] \
                 index level setting."
            )));
        }
        let (asked, most) = (self.docvalue_fields.len(), limits.docvalue_fields);
        if asked > most {
            return Err(EsError::illegal(format!(
                "Trying to retrieve too many docvalue_fields. Must be less than or equal to: \
                 [{most}] but was [{asked}]. This limit can be set by changing the \
                 [index.max_docvalue_fields_search] index level setting."
            )));
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        if let Some(after) = &self.search_after {
            if self.from > 0 {
                return Err(EsError::illegal(
                    "`from` parameter must be set to 0 when `search_after` is used.",
                ));
            }
            let expected = self.sort.len().max(1);
            if after.len() != expected {
                return Err(EsError::illegal(format!(
                    "search_after has {} value(s) but sort has {expected}.",
                    after.len()
                )));
            }
        }
        Ok(())
    }

    /// Hits that each shard has to offer.
    pub fn window(&self) -> usize {
        self.from + self.size
    }

    /// The order with the default made explicit.
    pub fn order(&self) -> Vec<SortField> {
        if self.sort.is_empty() { vec![SortField::by_score()] } else { self.sort.clone() }
    }

    /// Whether hits carry scores.
    pub fn needs_scores(&self) -> bool {
        let by_score = self.sort.is_empty() || self.sort.iter().any(SortField::is_score);
        (by_score && self.size > 0) || self.track_scores || self.min_score.is_some()
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Object(object) => object.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::String(text) => text == "false",
        Value::Bool(true) | Value::Number(_) => false,
    }
}

fn size(key: &str, value: &Value) -> Result<usize> {
    let number = parse_number(value).filter(|number| *number <= f64::from(i32::MAX));
    let number = number.ok_or_else(|| {
        EsError::illegal(format!("Failed to parse int parameter [{key}] with value [{value}]"))
    })?;
    if number < 0.0 {
        return Err(EsError::illegal(format!(
            "[{key}] parameter cannot be negative, found [{number}]"
        )));
    }
    Ok(number as usize)
}

fn score(key: &str, text: &str) -> Result<f32> {
    text.parse().map_err(|_| {
        EsError::illegal(format!("Failed to parse float parameter [{key}] with value [{text}]"))
    })
}

fn after(value: &Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(list) if list.is_empty() => {
            Err(EsError::illegal("Values must contains at least one value."))
        }
        Value::Array(list) => Ok(list.clone()),
        _ => Err(EsError::parsing("Expected [START_ARRAY] in [search_after]")),
    }
}

fn track_total(value: &Value) -> Result<TrackTotal> {
    if let Some(flag) = parse_bool(value) {
        return Ok(if flag { TrackTotal::Exact } else { TrackTotal::Off });
    }
    match parse_number(value) {
        Some(number) if number >= 0.0 => Ok(TrackTotal::UpTo(number as u64)),
        Some(-1.0) => Ok(TrackTotal::Off),
        _ => Err(EsError::illegal(format!(
            "[track_total_hits] parameter must be positive or equals to -1, got {value}"
        ))),
    }
}

/// Jackson's name of a token.
fn token_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "VALUE_NULL",
        Value::Bool(_) => "VALUE_BOOLEAN",
        Value::Number(_) => "VALUE_NUMBER",
        Value::String(_) => "VALUE_STRING",
        Value::Array(_) => "START_ARRAY",
        Value::Object(_) => "START_OBJECT",
    }
}

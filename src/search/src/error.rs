//! Errors in the shape of Elasticsearch.
//!
//! Every failure that a client may see carries Elasticsearch's own type, reason and status, so
//! that the gateway only has to render it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Result of this crate.
pub type Result<T, E = EsError> = std::result::Result<T, E>;

/// An Elasticsearch error: a type, a reason, an HTTP status and perhaps a cause.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{kind}: {reason}")]
pub struct EsError {
    /// HTTP status.
    pub status: u16,
    /// Type, for example `parsing_exception`.
    pub kind: String,
    /// Text for people.
    pub reason: String,
    /// What lies beneath.
    pub caused_by: Option<Box<EsError>>,
    /// Further keys of the error object as JSON text pairs, such as `line` and `col`.
    pub extra: Vec<(String, String)>,
}

impl EsError {
    /// An error with the given status, type and reason.
    pub fn new(status: u16, kind: &str, reason: impl Into<String>) -> Self {
        let (kind, reason) = (kind.to_owned(), reason.into());
        Self { status, kind, reason, caused_by: None, extra: Vec::new() }
    }

    /// `illegal_argument_exception`, 400.
    pub fn illegal(reason: impl Into<String>) -> Self {
        Self::new(400, "illegal_argument_exception", reason)
    }

    /// `parsing_exception`, 400. The position of the text is not tracked: line and column are 1.
    pub fn parsing(reason: impl Into<String>) -> Self {
        Self::new(400, "parsing_exception", reason).with("line", &json!(1)).with("col", &json!(1))
    }

    /// `mapper_parsing_exception`, 400.
    pub fn mapper_parsing(reason: impl Into<String>) -> Self {
        Self::new(400, "mapper_parsing_exception", reason)
    }

    /// `x_content_parse_exception`, 400.
    pub fn x_content(reason: impl Into<String>) -> Self {
        Self::new(400, "x_content_parse_exception", reason)
    }

    /// `query_shard_exception`, 400: a query that does not fit the mapping.
    pub fn query_shard(reason: impl Into<String>) -> Self {
        Self::new(400, "query_shard_exception", reason)
    }

    /// `parse_exception`, 400: a date or number inside a query that cannot be read.
    pub fn parse(reason: impl Into<String>) -> Self {
        Self::new(400, "parse_exception", reason)
    }

    /// Something that Elasticsearch knows and this server does not do.
    pub fn unsupported(what: impl AsRef<str>) -> Self {
        Self::illegal(format!("{} is not supported by this server", what.as_ref()))
    }

    /// The storage engine failed; not the client's fault.
    pub fn internal(reason: impl Into<String>) -> Self {
        Self::new(500, "exception", reason)
    }

    /// Adds a cause.
    #[must_use]
    pub fn caused_by(mut self, cause: Self) -> Self {
        self.caused_by = Some(Box::new(cause));
        self
    }

    /// Adds a key to the error object.
    #[must_use]
    pub fn with(mut self, key: &str, value: &Value) -> Self {
        self.extra.push((key.to_owned(), value.to_string()));
        self
    }

    /// The error object without `root_cause`.
    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("type".into(), json!(self.kind));
        object.insert("reason".into(), json!(self.reason));
        for (key, text) in &self.extra {
            object.insert(key.clone(), serde_json::from_str(text).unwrap_or(Value::Null));
        }
        if let Some(cause) = &self.caused_by {
            object.insert("caused_by".into(), cause.to_json());
        }
        Value::Object(object)
    }

    /// Wraps the error of a query as a coordinating node does when all shards failed.
    pub fn all_shards_failed(&self, index: &str, node: &str) -> Value {
        let failure = json!([{"shard": 0, "index": index, "node": node, "reason": self.to_json()}]);
        json!({
            "root_cause": [self.to_json()],
            "type": "search_phase_execution_exception",
            "reason": "all shards failed",
            "phase": "query",
            "grouped": true,
            "failed_shards": failure,
        })
    }
}

impl From<tantivy::TantivyError> for EsError {
    fn from(error: tantivy::TantivyError) -> Self {
        Self::internal(format!("search engine: {error}"))
    }
}

impl From<std::io::Error> for EsError {
    fn from(error: std::io::Error) -> Self {
        Self::internal(format!("disk: {error}"))
    }
}

//! The one error that an Elasticsearch client sees.
//!
//! It travels between nodes and in replies of commands, hence plain fields only: extra fields
//! are kept as JSON text beside their name.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// An error as Elasticsearch words it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{kind}: {reason}")]
pub struct EsError {
    /// HTTP status.
    pub status: u16,
    /// The `type` field, such as `index_not_found_exception`.
    pub kind: String,
    /// The `reason` field.
    pub reason: String,
    /// Further fields: name and JSON text.
    pub extra: Vec<(String, String)>,
    /// What lies behind it.
    pub caused_by: Option<Box<EsError>>,
    /// What stands as root cause, when that is another error.
    pub root: Option<Box<EsError>>,
}

impl EsError {
    /// An error without extra fields.
    pub fn new(status: u16, kind: &str, reason: impl Into<String>) -> Self {
        Self {
            status,
            kind: kind.to_owned(),
            reason: reason.into(),
            extra: Vec::new(),
            caused_by: None,
            root: None,
        }
    }

    /// Adds a field.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extra.push((name.to_owned(), value.into().to_string()));
        self
    }

    /// Adds the error that lies behind.
    #[must_use]
    pub fn because(mut self, cause: Self) -> Self {
        self.caused_by = Some(Box::new(cause));
        self
    }

    /// Sets another error as the root cause.
    #[must_use]
    pub fn rooted_in(mut self, root: Self) -> Self {
        self.root = Some(Box::new(root));
        self
    }

    /// `illegal_argument_exception`.
    pub fn illegal(reason: impl Into<String>) -> Self {
        Self::new(400, "illegal_argument_exception", reason)
    }

    /// `parsing_exception`.
    pub fn parsing(reason: impl Into<String>) -> Self {
        Self::new(400, "parsing_exception", reason)
    }

    /// `action_request_validation_exception` with its list of failures.
    pub fn validation(failures: &[&str]) -> Self {
        let numbered = failures.iter().enumerate().map(|(i, f)| format!("{}: {f};", i + 1));
        let text = numbered.collect::<String>();
        Self::new(400, "action_request_validation_exception", format!("Validation Failed: {text}"))
    }

    /// No index, alias or pattern of that name.
    pub fn no_index(name: &str) -> Self {
        Self::new(404, "index_not_found_exception", format!("no such index [{name}]"))
            .with("resource.type", "index_or_alias")
            .with("resource.id", name)
            .with("index_uuid", "_na_")
            .with("index", name)
    }

    /// The shard has no leader that answers; the client may retry.
    pub fn unavailable(reason: impl Into<String>) -> Self {
        Self::new(503, "unavailable_shards_exception", reason)
    }

    /// A node failed in a way that is nobody's request.
    pub fn internal(reason: impl Into<String>) -> Self {
        Self::new(500, "exception", reason)
    }

    /// Whether it goes away by itself, so that the same request may succeed later.
    pub fn passes(&self) -> bool {
        self.status == 429 || self.status >= 500
    }

    /// The object inside `error` or an item of a bulk answer.
    pub fn body(&self) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("type".to_owned(), json!(self.kind));
        map.insert("reason".to_owned(), json!(self.reason));
        for (name, text) in &self.extra {
            let value = serde_json::from_str(text).unwrap_or_else(|_| json!(text));
            map.insert(name.clone(), value);
        }
        if let Some(cause) = &self.caused_by {
            map.insert("caused_by".to_owned(), Value::Object(cause.body()));
        }
        map
    }

    /// The whole answer: `{"error":{"root_cause":[..],..},"status":N}`.
    pub fn answer(&self) -> Value {
        let mut root = self.root.as_deref().unwrap_or(self).body();
        root.remove("caused_by");
        root.remove("phase");
        root.remove("grouped");
        root.remove("failed_shards");
        let mut error = Map::new();
        error.insert("root_cause".to_owned(), json!([root]));
        error.extend(self.body());
        json!({"error": error, "status": self.status})
    }
}

impl From<search::EsError> for EsError {
    fn from(error: search::EsError) -> Self {
        Self {
            status: error.status,
            kind: error.kind,
            reason: error.reason,
            extra: error.extra,
            caused_by: error.caused_by.map(|cause| Box::new((*cause).into())),
            root: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_index_reads_as_in_elasticsearch() {
        let answer = EsError::no_index("x").answer();
        assert_eq!(
            answer,
            json!({"error": {
                "root_cause": [{"type": "index_not_found_exception",
                    "reason": "no such index [x]", "resource.type": "index_or_alias",
                    "resource.id": "x", "index_uuid": "_na_", "index": "x"}],
                "type": "index_not_found_exception", "reason": "no such index [x]",
                "resource.type": "index_or_alias", "resource.id": "x",
                "index_uuid": "_na_", "index": "x"}, "status": 404})
        );
    }

    #[test]
    fn validation_failures_are_numbered() {
        let error = EsError::validation(&["type is missing", "id is missing"]);
        assert_eq!(error.reason, "Validation Failed: 1: type is missing;2: id is missing;");
    }
}

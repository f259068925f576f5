//! The body of `_bulk`: lines of JSON, an action and, except for deletes, its source.
//!
//! Parsing is pure, bounded and never copies a source. As in Elasticsearch, a malformed action
//! line fails the whole request and a bad document only its own item.

use bytes::Bytes;
use index::EsError;
use serde_json::{Map, Value};

use crate::limits::MAX_BULK_OPS;

/// What a line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Put.
    Index,
    /// Put unless it exists.
    Create,
    /// Change.
    Update,
    /// Remove.
    Delete,
}

impl Action {
    /// Its name in the request and in the answer.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Index => "index",
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BulkItem {
    /// What.
    pub action: Action,
    /// Index, from the line or the URL.
    pub index: Option<String>,
    /// Document.
    pub id: Option<String>,
    /// Routing.
    pub routing: Option<String>,
    /// A version kept outside.
    pub version: Option<i64>,
    /// How to compare it.
    pub version_type: Option<String>,
    /// Sequence number that must be there.
    pub if_seq_no: Option<u64>,
    /// Primary term that must be there.
    pub if_primary_term: Option<u64>,
    /// Ingest pipeline.
    pub pipeline: Option<String>,
    /// Whether the name must be an alias.
    pub require_alias: Option<bool>,
    /// `_source` of an update's answer, as JSON text.
    pub fetch_source: Option<String>,
    /// The line with the document; empty for a delete.
    pub source: Bytes,
}

impl BulkItem {
    fn new(action: Action) -> Self {
        Self {
            action,
            index: None,
            id: None,
            routing: None,
            version: None,
            version_type: None,
            if_seq_no: None,
            if_primary_term: None,
            pipeline: None,
            require_alias: None,
            fetch_source: None,
            source: Bytes::new(),
        }
    }
}

/// Reads a whole body.
pub fn parse(body: &Bytes) -> Result<Vec<BulkItem>, EsError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(EsError::new(400, "parse_exception", "request body is required"));
    }
    if body.last() != Some(&b'\n') {
        return Err(EsError::illegal("The bulk request must be terminated by a newline [\\n]"));
    }
    let mut items = Vec::new();
    let (mut at, mut line_number) = (0, 0);
    while let Some(line) = next_line(body, &mut at) {
        line_number += 1;
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let mut item = parse_action(&line, line_number)?;
        if item.action != Action::Delete {
            let Some(source) = next_line(body, &mut at) else { break };
            line_number += 1;
            item.source = source;
        }
        items.push(item);
        if items.len() > MAX_BULK_OPS {
            return Err(EsError::illegal(format!(
                "a bulk request of more than {MAX_BULK_OPS} operations"
            )));
        }
    }
    if items.is_empty() {
        return Err(EsError::validation(&["no requests added"]));
    }
    Ok(items)
}

/// The next line without its end.
fn next_line(body: &Bytes, at: &mut usize) -> Option<Bytes> {
    let rest = body.get(*at..).filter(|rest| !rest.is_empty())?;
    let len = rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
    let mut line = body.slice(*at..*at + len);
    *at += len + 1;
    if line.last() == Some(&b'\r') {
        line.truncate(line.len() - 1);
    }
    Some(line)
}

fn parse_action(line: &[u8], number: usize) -> Result<BulkItem, EsError> {
    let value: Value = serde_json::from_slice(line)
        .map_err(|e| EsError::new(400, "json_parse_exception", format!("line [{number}]: {e}")))?;
    let Value::Object(map) = value else {
        return Err(EsError::illegal(format!(
            "Malformed action/metadata line [{number}], expected START_OBJECT but found [{}]",
            token(&value)
        )));
    };
    let Some((name, meta)) = map.iter().next() else {
        return Err(EsError::illegal(format!(
            "Malformed action/metadata line [{number}], expected FIELD_NAME but found [END_OBJECT]"
        )));
    };
    let action = match name.as_str() {
        "index" => Action::Index,
        "create" => Action::Create,
        "update" => Action::Update,
        "delete" => Action::Delete,
        other => {
            return Err(EsError::illegal(format!(
                "Malformed action/metadata line [{number}], expected field [create], [delete], \
                 [index] or [update] but found [{other}]"
            )));
        }
    };
    let Value::Object(meta) = meta else {
        return Err(EsError::illegal(format!(
            "Malformed action/metadata line [{number}], expected START_OBJECT but found [{}]",
            token(meta)
        )));
    };
    if map.len() > 1 {
        return Err(EsError::illegal(format!(
            "Malformed action/metadata line [{number}], expected END_OBJECT but found [FIELD_NAME]"
        )));
    }
    parse_meta(action, meta, number)
}

fn token(value: &Value) -> &'static str {
    match value {
        Value::Null => "VALUE_NULL",
        Value::Bool(_) => "VALUE_BOOLEAN",
        Value::Number(_) => "VALUE_NUMBER",
        Value::String(_) => "VALUE_STRING",
        Value::Array(_) => "START_ARRAY",
        Value::Object(_) => "START_OBJECT",
    }
}

fn parse_meta(
    action: Action,
    meta: &Map<String, Value>,
    number: usize,
) -> Result<BulkItem, EsError> {
    let mut item = BulkItem::new(action);
    for (key, value) in meta {
        let text = || match value {
            Value::String(text) => Some(text.clone()),
            Value::Null => None,
            other => Some(other.to_string()),
        };
        let unsigned = || {
            value.as_u64().or_else(|| value.as_str()?.parse().ok()).ok_or_else(|| {
                EsError::illegal(format!("sequence numbers must be non negative. got [{value}]."))
            })
        };
        if matches!(value, Value::Array(_) | Value::Object(_)) && key != "_source" {
            return Err(EsError::illegal(format!(
                "Malformed action/metadata line [{number}], expected a simple value for field \
                 [{key}] but found [{}]",
                token(value)
            )));
        }
        match key.as_str() {
            "_index" => item.index = text(),
            "_id" => item.id = text(),
            "_type" => {}
            "routing" => item.routing = text(),
            "version" => {
                item.version = value.as_i64().or_else(|| value.as_str()?.parse().ok());
            }
            "version_type" => item.version_type = text(),
            "if_seq_no" => item.if_seq_no = Some(unsigned()?),
            "if_primary_term" => item.if_primary_term = Some(unsigned()?),
            "pipeline" => item.pipeline = text(),
            "op_type" => {
                if action == Action::Index && value.as_str() == Some("create") {
                    item.action = Action::Create;
                }
            }
            "retry_on_conflict" | "dynamic_templates" => {}
            "require_alias" => item.require_alias = value.as_bool(),
            "_source" => item.fetch_source = Some(value.to_string()),
            other => {
                return Err(EsError::illegal(format!(
                    "Action/metadata line [{number}] contains an unknown parameter [{other}]"
                )));
            }
        }
    }
    let external = item.version_type.as_deref().is_some_and(|kind| kind != "internal");
    if action == Action::Update && (item.version.is_some() || external) {
        return Err(EsError::illegal(
            "Update requests do not support versioning. Please use `if_seq_no` and \
             `if_primary_term` instead",
        ));
    }
    Ok(item)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_error(body: &'static str, expected: &str) {
        assert_eq!(parse(&Bytes::from_static(body.as_bytes())).unwrap_err().reason, expected);
    }

    #[test]
    fn operations_are_read() {
        let body = "{\"index\":{\"_index\":\"a\",\"_id\":1}}\r\n{\"x\":1}\r\n\n\
                    {\"delete\":{\"_id\":\"2\",\"routing\":\"r\"}}\n{\"create\":{}}\n{}\n";
        let items = parse(&Bytes::from(body)).unwrap();
        assert_eq!(items.len(), 3);
        assert_eq!(items[0].id.as_deref(), Some("1"));
        assert_eq!(items[0].source, "{\"x\":1}");
        assert_eq!((items[1].action, items[1].routing.as_deref()), (Action::Delete, Some("r")));
        assert_eq!(items[2].id, None);
    }

    #[test]
    fn malformed_lines_fail_with_the_texts_of_elasticsearch() {
        check_error("{\"index\":{}}\n{}", "The bulk request must be terminated by a newline [\\n]");
        check_error("\n\n", "request body is required");
        check_error(
            "{\"foo\":{}}\n",
            "Malformed action/metadata line [1], expected field [create], [delete], [index] or \
             [update] but found [foo]",
        );
        check_error(
            "{\"index\":{\"_foo\":1}}\n{}\n",
            "Action/metadata line [1] contains an unknown parameter [_foo]",
        );
        check_error(
            "{\"index\":{\"_routing\":1}}\n{}\n",
            "Action/metadata line [1] contains an unknown parameter [_routing]",
        );
        check_error(
            "{\"update\":{\"_id\":\"1\",\"version\":2}}\n{}\n",
            "Update requests do not support versioning. Please use `if_seq_no` and \
             `if_primary_term` instead",
        );
        check_error(
            "{}\n",
            "Malformed action/metadata line [1], expected FIELD_NAME but found [END_OBJECT]",
        );
        check_error(
            "[1]\n",
            "Malformed action/metadata line [1], expected START_OBJECT but found [START_ARRAY]",
        );
    }

    #[test]
    fn any_bytes_are_an_answer() {
        for body in ["\u{0}\n", "{}\n", "{\"delete\":null}\n", "{\"index\":{\"_id\":[]}}\nx\n"] {
            assert!(parse(&Bytes::from(body)).is_err(), "{body:?}");
        }
    }
}

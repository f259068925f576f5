//! Dynamic mapping: guessing fields from values, dynamic templates.

use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

use super::compiled::wildcard_match;
use super::{FieldKind, IndexSchema, Node, Object, parse};
use crate::dates::Fill;
use crate::error::{EsError, Result};

/// The field that Elasticsearch would add for a value.
pub(super) fn infer(schema: &IndexSchema, leaf: &Value) -> Node {
    let settings = &schema.mapping().settings;
    let on =
        |key: &str, default: bool| settings.get(key).and_then(super::parse_bool).unwrap_or(default);
    match leaf {
        Value::Bool(_) => field(FieldKind::Boolean, Map::new()),
        Value::Number(number) if number.is_f64() => field(FieldKind::Float, Map::new()),
        Value::Number(_) => field(FieldKind::Long, Map::new()),
        Value::String(text) => {
            if on("date_detection", true)
                && let Some(node) = date(schema, text)
            {
                return node;
            }
            if on("numeric_detection", false) {
                if text.parse::<i64>().is_ok() {
                    return field(FieldKind::Long, Map::new());
                }
                if text.parse::<f64>().is_ok() {
                    return field(FieldKind::Float, Map::new());
                }
            }
            text_with_keyword()
        }
        Value::Null | Value::Array(_) | Value::Object(_) => Node::Object(Object::default()),
    }
}

fn field(kind: FieldKind, params: Map<String, Value>) -> Node {
    let type_name = kind.name().to_owned();
    Node::Field(super::Field { kind, type_name, params, fields: Default::default() })
}

fn text_with_keyword() -> Node {
    let mut params = Map::new();
    params.insert("ignore_above".into(), json!(256));
    let Node::Field(keyword) = field(FieldKind::Keyword, params) else {
        return field(FieldKind::Text, Map::new());
    };
    let type_name = FieldKind::Text.name().to_owned();
    Node::Field(super::Field {
        kind: FieldKind::Text,
        type_name,
        params: Map::new(),
        fields: [("keyword".to_owned(), keyword)].into(),
    })
}

/// Dates are only looked for where the text has a separator and starts with a digit.
fn date(schema: &IndexSchema, text: &str) -> Option<Node> {
    if !text.starts_with(|c: char| c.is_ascii_digit()) || !text.contains(['-', '/', ':']) {
        return None;
    }
    for format in &schema.date_formats {
        if format.parse(text, &TimeZone::UTC, Fill::Lowest).is_ok() {
            let mut params = Map::new();
            if format.name() != "strict_date_optional_time" {
                let name = match format.name().strip_prefix("yyyy/MM/dd HH:mm:ss Z||yyyy") {
                    Some(_) => "yyyy/MM/dd HH:mm:ss||yyyy/MM/dd||epoch_millis",
                    None => format.name(),
                };
                params.insert("format".into(), json!(name));
            }
            return Some(field(FieldKind::Date, params));
        }
    }
    None
}

/// Adds a node under a dotted path; what is there already stays.
pub(super) fn add(root: &mut Object, path: &str, node: Node) {
    match path.split_once('.') {
        None => {
            root.properties.entry(path.to_owned()).or_insert(node);
        }
        Some((head, rest)) => {
            let next = root
                .properties
                .entry(head.to_owned())
                .or_insert_with(|| Node::Object(Object::default()));
            if let Node::Object(object) = next {
                add(object, rest, node);
            }
        }
    }
}

/// The node that the first matching dynamic template gives.
pub(super) fn template(
    schema: &IndexSchema,
    path: &str,
    name: &str,
    value: &Value,
) -> Result<Option<Node>> {
    let Some(Value::Array(templates)) = schema.mapping().settings.get("dynamic_templates") else {
        return Ok(None);
    };
    let guessed = guessed_type(schema, value);
    for template in templates {
        let Some((_, spec)) = template.as_object().and_then(|object| object.iter().next()) else {
            return Err(EsError::mapper_parsing("A dynamic template must be defined with a name"));
        };
        if matches(spec, path, name, guessed) {
            let mapping = spec.get("mapping").cloned().unwrap_or_else(|| json!({}));
            let mut filled = fill(&mapping, name, guessed);
            if filled.get("type").is_none()
                && let Value::Object(object) = &mut filled
            {
                let kind = if guessed == "string" { "text" } else { guessed };
                object.insert("type".into(), json!(if kind == "double" { "float" } else { kind }));
            }
            return parse::node(name, &filled, 0).map(Some);
        }
    }
    Ok(None)
}

fn guessed_type(schema: &IndexSchema, value: &Value) -> &'static str {
    match value {
        Value::Object(_) => "object",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "double",
        Value::Number(_) => "long",
        leaf => match infer(schema, leaf) {
            Node::Field(field) if field.kind == FieldKind::Date => "date",
            Node::Field(field) if field.kind == FieldKind::Long => "long",
            Node::Field(field) if field.kind == FieldKind::Float => "double",
            _ => "string",
        },
    }
}

fn matches(spec: &Value, path: &str, name: &str, guessed: &str) -> bool {
    let text = |key: &str| spec.get(key).and_then(Value::as_str);
    let regex = text("match_pattern") == Some("regex");
    let fits = |pattern: &str, text: &str| match regex {
        true => regex::Regex::new(&format!("^(?:{pattern})$")).is_ok_and(|r| r.is_match(text)),
        false => wildcard_match(pattern, text),
    };
    text("match_mapping_type").is_none_or(|kind| kind == "*" || kind == guessed)
        && text("match").is_none_or(|pattern| fits(pattern, name))
        && !text("unmatch").is_some_and(|pattern| fits(pattern, name))
        && text("path_match").is_none_or(|pattern| fits(pattern, path))
        && !text("path_unmatch").is_some_and(|pattern| fits(pattern, path))
}

fn fill(mapping: &Value, name: &str, guessed: &str) -> Value {
    match mapping {
        Value::String(text) => {
            let dynamic = if guessed == "string" { "text" } else { guessed };
            json!(text.replace("{name}", name).replace("{dynamic_type}", dynamic))
        }
        Value::Object(object) => {
            let parts = object.iter().map(|(k, v)| (k.clone(), fill(v, name, guessed)));
            Value::Object(parts.collect())
        }
        other => other.clone(),
    }
}

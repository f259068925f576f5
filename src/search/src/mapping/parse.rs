//! Reading mapping JSON.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Dynamic, Field, FieldKind, Mapping, Node, Object};
use crate::dates::DateFormat;
use crate::error::{EsError, Result};
use crate::limits;

/// Root keys that are kept as they are.
const ROOT: &[&str] = &[
    "_source",
    "_meta",
    "_routing",
    "_field_names",
    "_size",
    "date_detection",
    "numeric_detection",
    "dynamic_date_formats",
    "dynamic_templates",
];

/// Parameters that every field may have.
const COMMON: &[&str] = &[
    "index",
    "doc_values",
    "store",
    "copy_to",
    "meta",
    "boost",
    "ignore_malformed",
    "null_value",
    "coerce",
    "on_script_error",
    "time_series_metric",
    "time_series_dimension",
    "norms",
    "similarity",
];

fn own_params(kind: FieldKind) -> &'static [&'static str] {
    match kind {
        FieldKind::Text => &[
            "analyzer",
            "search_analyzer",
            "search_quote_analyzer",
            "position_increment_gap",
            "index_options",
            "term_vector",
            "fielddata",
            "fielddata_frequency_filter",
            "eager_global_ordinals",
            "index_prefixes",
            "index_phrases",
        ],
        FieldKind::Keyword | FieldKind::Flattened => &[
            "ignore_above",
            "normalizer",
            "eager_global_ordinals",
            "index_options",
            "split_queries_on_whitespace",
            "depth_limit",
        ],
        FieldKind::Date => &["format", "locale"],
        FieldKind::ScaledFloat => &["scaling_factor"],
        FieldKind::Alias => &["path"],
        FieldKind::Long
        | FieldKind::Integer
        | FieldKind::Short
        | FieldKind::Byte
        | FieldKind::Double
        | FieldKind::Float
        | FieldKind::HalfFloat
        | FieldKind::Boolean
        | FieldKind::Ip
        | FieldKind::Binary => &[],
    }
}

pub(super) fn mapping(value: &Value) -> Result<Mapping> {
    let Value::Object(object) = value else {
        return Err(EsError::mapper_parsing(
            "Expected map for root mapping but got something else",
        ));
    };
    let mut mapping = Mapping::default();
    for (key, value) in object {
        match key.as_str() {
            "properties" => mapping.root.properties = properties(value, 0)?,
            "dynamic" => mapping.root.dynamic = Some(dynamic(value)?),
            key if ROOT.contains(&key) => {
                mapping.settings.insert(key.to_owned(), value.clone());
            }
            _ => {
                let text = format!(
                    "Root mapping definition has unsupported parameters:  [{key} : {}]",
                    java_text(value)
                );
                return Err(failed(EsError::mapper_parsing(text)));
            }
        }
    }
    check_total(&mapping)?;
    Ok(mapping)
}

pub(super) fn check_total(mapping: &Mapping) -> Result<()> {
    if mapping.field_count() > limits::TOTAL_FIELDS {
        return Err(EsError::illegal(format!(
            "Limit of total fields [{}] has been exceeded",
            limits::TOTAL_FIELDS
        )));
    }
    Ok(())
}

fn failed(cause: EsError) -> EsError {
    EsError::mapper_parsing(format!("Failed to parse mapping [_doc]: {}", cause.reason))
        .caused_by(cause)
}

pub(super) fn dynamic(value: &Value) -> Result<Dynamic> {
    match value {
        Value::Bool(true) => Ok(Dynamic::True),
        Value::Bool(false) => Ok(Dynamic::False),
        Value::String(text) => match text.to_ascii_lowercase().as_str() {
            "true" => Ok(Dynamic::True),
            "false" => Ok(Dynamic::False),
            "strict" => Ok(Dynamic::Strict),
            "runtime" => Err(EsError::unsupported("[dynamic: runtime]")),
            other => Err(EsError::mapper_parsing(format!(
                "Could not convert [dynamic] to boolean: [{other}]"
            ))),
        },
        _ => Err(EsError::mapper_parsing("[dynamic] must be true, false or strict")),
    }
}

fn properties(value: &Value, depth: usize) -> Result<BTreeMap<String, Node>> {
    if depth > limits::MAX_OBJECT_DEPTH {
        return Err(EsError::illegal(format!(
            "Limit of mapping depth [{}] has been exceeded",
            limits::MAX_OBJECT_DEPTH
        )));
    }
    let Value::Object(object) = value else {
        return Err(EsError::mapper_parsing("[properties] must be a map type"));
    };
    let mut out = BTreeMap::new();
    for (name, spec) in object {
        if name.is_empty() || name.split('.').any(str::is_empty) {
            return Err(EsError::illegal("name cannot be empty string"));
        }
        put(&mut out, name, node(name, spec, depth)?);
    }
    Ok(out)
}

/// Places a node under a dotted name, making the objects on the way.
fn put(into: &mut BTreeMap<String, Node>, name: &str, node: Node) {
    let Some((head, rest)) = name.split_once('.') else {
        into.insert(name.to_owned(), node);
        return;
    };
    let next = into.entry(head.to_owned()).or_insert_with(|| Node::Object(Object::default()));
    if let Node::Object(object) = next {
        put(&mut object.properties, rest, node);
    }
}

pub(super) fn node(name: &str, spec: &Value, depth: usize) -> Result<Node> {
    let Value::Object(spec) = spec else {
        return Err(failed(EsError::mapper_parsing(format!(
            "Expected map for property [fields] on field [{name}] but got a class java.lang.String"
        ))));
    };
    let type_name = match spec.get("type") {
        Some(Value::String(text)) => text.as_str(),
        Some(other) => {
            let text = format!("No handler for type [{}] declared on field [{name}]", other);
            return Err(failed(EsError::mapper_parsing(text)));
        }
        None if spec.contains_key("properties")
            || spec.contains_key("enabled")
            || spec.contains_key("dynamic") =>
        {
            "object"
        }
        None => {
            let text = format!("No type specified for field [{name}]");
            return Err(failed(EsError::mapper_parsing(text)));
        }
    };
    match type_name {
        "object" => object(name, spec, depth).map(Node::Object),
        "nested" => Err(failed(EsError::mapper_parsing(format!(
            "type [nested] declared on field [{name}] is not supported by this server"
        )))),
        _ => field(name, type_name, spec).map(Node::Field),
    }
}

fn object(name: &str, spec: &Map<String, Value>, depth: usize) -> Result<Object> {
    let mut out = Object::default();
    for (key, value) in spec {
        match key.as_str() {
            "type" => {}
            "dynamic" => out.dynamic = Some(dynamic(value)?),
            "enabled" => out.enabled = super::parse_bool(value).unwrap_or(true),
            "properties" => out.properties = properties(value, depth + 1)?,
            other => return Err(unknown_param(name, "object", other)),
        }
    }
    Ok(out)
}

fn unknown_param(name: &str, type_name: &str, key: &str) -> EsError {
    let text = format!("unknown parameter [{key}] on mapper [{name}] of type [{type_name}]");
    failed(EsError::mapper_parsing(text))
}

fn field(name: &str, type_name: &str, spec: &Map<String, Value>) -> Result<Field> {
    let Some(kind) = FieldKind::from_name(type_name) else {
        let text = format!("No handler for type [{type_name}] declared on field [{name}]");
        return Err(failed(EsError::mapper_parsing(text)));
    };
    let type_name = type_name.to_owned();
    let mut out = Field { kind, type_name, params: Map::new(), fields: BTreeMap::new() };
    for (key, value) in spec {
        match key.as_str() {
            "type" => {}
            "fields" => out.fields = multi_fields(name, value)?,
            key if COMMON.contains(&key) || own_params(kind).contains(&key) => {
                if !is_default(key, value) {
                    out.params.insert(key.to_owned(), value.clone());
                }
            }
            other => return Err(unknown_param(name, &out.type_name, other)),
        }
    }
    check(name, &out)?;
    Ok(out)
}

fn check(name: &str, field: &Field) -> Result<()> {
    if let Some(Value::String(format)) = field.params.get("format") {
        DateFormat::new(format).map_err(failed)?;
    }
    if field.kind == FieldKind::ScaledFloat && !field.params.contains_key("scaling_factor") {
        let text = format!("Field [{name}] misses required parameter [scaling_factor]");
        return Err(failed(EsError::mapper_parsing(text)));
    }
    if field.kind == FieldKind::Alias && !field.params.contains_key("path") {
        let text = format!("The [path] property must be specified for field [{name}].");
        return Err(failed(EsError::mapper_parsing(text)));
    }
    Ok(())
}

fn is_default(key: &str, value: &Value) -> bool {
    match key {
        "index" | "doc_values" => *value == Value::Bool(true),
        "store" | "eager_global_ordinals" => *value == Value::Bool(false),
        "boost" => value.as_f64() == Some(1.0),
        _ => false,
    }
}

fn multi_fields(name: &str, value: &Value) -> Result<BTreeMap<String, Field>> {
    let Value::Object(object) = value else {
        let text = format!("expected map for property [fields] on field [{name}]");
        return Err(failed(EsError::mapper_parsing(text)));
    };
    let mut out = BTreeMap::new();
    for (sub, spec) in object {
        match node(sub, spec, limits::MAX_OBJECT_DEPTH)? {
            Node::Field(field) if field.fields.is_empty() => {
                out.insert(sub.clone(), field);
            }
            _ => {
                let text = format!("Type [object] cannot be used in multi field [{name}.{sub}]");
                return Err(failed(EsError::mapper_parsing(text)));
            }
        }
    }
    Ok(out)
}

/// A value as Java prints it: `{a=1, b=[x, y]}`.
pub(crate) fn java_text(value: &Value) -> String {
    match value {
        Value::Object(object) => {
            let parts: Vec<String> =
                object.iter().map(|(key, value)| format!("{key}={}", java_text(value))).collect();
            format!("{{{}}}", parts.join(", "))
        }
        Value::Array(list) => {
            let parts: Vec<String> = list.iter().map(java_text).collect();
            format!("[{}]", parts.join(", "))
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

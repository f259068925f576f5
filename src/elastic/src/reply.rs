//! Answers, and how they are written: JSON compact or pretty, or text.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::{Response, StatusCode};
use index::EsError;
use serde_json::Value;

/// What an answer consists of.
#[derive(Clone, Debug)]
pub enum Content {
    /// JSON.
    Json(Value),
    /// JSON that is written already.
    Raw(String),
    /// A text table.
    Text(String),
    /// Nothing.
    Empty,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Its content.
    pub content: Content,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
}

impl Reply {
    /// 200 with JSON.
    pub fn ok(value: Value) -> Self {
        Self::with(200, value)
    }

    /// JSON with a status.
    pub fn with(status: u16, value: Value) -> Self {
        Self { status, content: Content::Json(value), headers: Vec::new() }
    }

    /// Text.
    pub fn text(text: String) -> Self {
        Self { status: 200, content: Content::Text(text), headers: Vec::new() }
    }

    /// Only a status.
    pub fn status(status: u16) -> Self {
        Self { status, content: Content::Empty, headers: Vec::new() }
    }
}

impl From<EsError> for Reply {
    fn from(error: EsError) -> Self {
        Self::with(error.status, error.answer())
    }
}

/// How the client wants its answer.
#[derive(Clone, Debug, Default)]
pub struct Style {
    /// Indented.
    pub pretty: bool,
    /// `filter_path`.
    pub filter: Option<String>,
    /// The media type asked for, when it is a vendor one.
    pub vendor: Option<String>,
    /// No body.
    pub head: bool,
    /// YAML instead of JSON.
    pub yaml: bool,
}

/// Writes an answer.
pub fn render(reply: Reply, style: &Style) -> Response<Body> {
    let json_type =
        || style.vendor.clone().unwrap_or_else(|| "application/json; charset=UTF-8".to_owned());
    let (mut body, content_type) = match reply.content {
        Content::Json(value) if style.yaml => {
            (filtered(value, style, yaml), "application/yaml".to_owned())
        }
        Content::Json(value) => (filtered(value, style, json_text(style.pretty)), json_type()),
        Content::Raw(text) => (text, json_type()),
        Content::Text(text) => (text, "text/plain; charset=UTF-8".to_owned()),
        Content::Empty => (String::new(), "text/plain; charset=UTF-8".to_owned()),
    };
    let length = body.len();
    if style.head {
        body.clear();
    }
    let mut response = Response::new(Body::from(body));
    *response.status_mut() =
        StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert("X-elastic-product", HeaderValue::from_static("Elasticsearch"));
    if let Ok(value) = HeaderValue::from_str(&content_type) {
        headers.insert(CONTENT_TYPE, value);
    }
    if style.head {
        headers.insert("content-length", HeaderValue::from(length));
    }
    for (name, value) in reply.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    response
}

fn filtered(value: Value, style: &Style, write: impl Fn(&Value) -> String) -> String {
    match &style.filter {
        None => write(&value),
        Some(filter) => match crate::filter::apply(filter, value) {
            Some(value) => write(&value),
            None => write(&Value::Object(serde_json::Map::new())),
        },
    }
}

fn json_text(pretty: bool) -> impl Fn(&Value) -> String {
    move |value| {
        if !pretty {
            return value.to_string();
        }
        let mut out = String::new();
        write_pretty(value, 0, &mut out);
        out.push('\n');
        out
    }
}

/// As Elasticsearch indents: a space before the colon, `{ }` and `[ ]` for nothing.
fn write_pretty(value: &Value, depth: usize, out: &mut String) {
    let indent = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    match value {
        Value::Object(map) if map.is_empty() => out.push_str("{ }"),
        Value::Array(items) if items.is_empty() => out.push_str("[ ]"),
        Value::Object(map) => {
            out.push('{');
            for (i, (key, inner)) in map.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                indent(out, depth + 1);
                out.push_str(&Value::String(key.clone()).to_string());
                out.push_str(" : ");
                write_pretty(inner, depth + 1, out);
            }
            indent(out, depth);
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (i, inner) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                indent(out, depth + 1);
                write_pretty(inner, depth + 1, out);
            }
            indent(out, depth);
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

/// YAML in block style with quoted texts.
fn yaml(value: &Value) -> String {
    let mut out = "---\n".to_owned();
    write_yaml(value, 0, &mut out);
    if !out.ends_with('\n') {
        out.push('\n');
    }
    out
}

fn write_yaml(value: &Value, depth: usize, out: &mut String) {
    let pad = |out: &mut String| out.extend(std::iter::repeat_n("  ", depth));
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (i, (key, inner)) in map.iter().enumerate() {
                if i > 0 || !out.ends_with("- ") {
                    pad(out);
                }
                out.push_str(&format!("{}:", yaml_key(key)));
                write_yaml_inner(inner, depth + 1, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for inner in items {
                pad(out);
                out.push_str("- ");
                write_yaml(inner, depth + 1, out);
                if !out.ends_with('\n') {
                    out.push('\n');
                }
            }
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

fn write_yaml_inner(value: &Value, depth: usize, out: &mut String) {
    let nested = match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if nested {
        out.push('\n');
        let depth = if value.is_array() { depth - 1 } else { depth };
        write_yaml(value, depth, out);
    } else {
        out.push_str(&format!(" {value}\n"));
    }
}

fn yaml_key(key: &str) -> String {
    let plain = !key.is_empty()
        && key.chars().all(|c| c.is_alphanumeric() || "_-./".contains(c))
        && key.starts_with(|c: char| c.is_alphabetic() || c == '_');
    if plain { key.to_owned() } else { Value::String(key.to_owned()).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pretty_json_looks_like_that_of_elasticsearch() {
        let value = json!({"a": 1, "b": {}, "c": ["x", {"d": []}]});
        let expected = "{\n  \"a\" : 1,\n  \"b\" : { },\n  \"c\" : [\n    \"x\",\n    {\n      \
                        \"d\" : [ ]\n    }\n  ]\n}\n";
        assert_eq!(json_text(true)(&value), expected);
    }

    #[test]
    fn yaml_is_written_in_blocks() {
        let value = json!({"a": {"b": "x"}, "c": [1, {"d": 2, "e": 3}]});
        assert_eq!(yaml(&value), "---\na:\n  b: \"x\"\nc:\n- 1\n- d: 2\n  e: 3\n");
    }
}

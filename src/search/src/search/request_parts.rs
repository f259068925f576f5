//! Smaller parts of a search request: field lists, limits, highlighting.

use serde_json::{Map, Value};

use crate::error::{EsError, Result};
use crate::limits;
use crate::mapping::{parse_bool, parse_number};
use crate::query::Query;

/// A field or pattern with the format of its dates.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldFormat {
    /// Name or pattern.
    pub field: String,
    /// Date format.
    pub format: Option<String>,
}

pub(super) fn field_formats(key: &str, value: &Value) -> Result<Vec<FieldFormat>> {
    let Value::Array(list) = value else {
        return Err(EsError::parsing(format!("Expected [START_ARRAY] in [{key}]")));
    };
    list.iter()
        .map(|item| match item {
            Value::String(field) => Ok(FieldFormat { field: field.clone(), format: None }),
            Value::Object(object) => {
                let text = |key: &str| object.get(key).and_then(Value::as_str).map(str::to_owned);
                let field = text("field").ok_or_else(|| {
                    EsError::x_content(format!("[1:1] [{key}] failed to parse, [field] missing"))
                })?;
                let format = text("format").filter(|format| format != "use_field_mapping");
                Ok(FieldFormat { field, format })
            }
            _ => Err(EsError::parsing(format!("[{key}] must hold names or objects"))),
        })
        .collect()
}

/// Which stored fields hits show.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum StoredFields {
    /// Not asked for.
    #[default]
    Unset,
    /// `_none_`: not even `_id`.
    None,
    /// These, names or patterns.
    Named(Vec<String>),
}

impl StoredFields {
    /// Reads `stored_fields` of a body.
    pub(super) fn parse(value: &Value) -> Result<Self> {
        match value {
            Value::String(name) => Self::of(vec![name.clone()]),
            Value::Array(list) => {
                Self::of(list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
            }
            _ => Err(EsError::parsing("Expected [START_ARRAY] in [stored_fields]")),
        }
    }

    /// Reads names, which a URL separates by commas.
    pub(super) fn of(names: Vec<String>) -> Result<Self> {
        let none = names.iter().any(|name| name == "_none_");
        match (none, names.len()) {
            (false, _) => Ok(Self::Named(names)),
            (true, 1) => Ok(Self::None),
            (true, _) => Err(EsError::illegal("cannot combine _none_ with other fields")),
        }
    }
}

/// What the settings of an index allow a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexLimits {
    /// `index.max_result_window`.
    pub result_window: usize,
    /// `index.max_docvalue_fields_search`.
    pub docvalue_fields: usize,
}

impl Default for IndexLimits {
    fn default() -> Self {
        Self {
            result_window: limits::MAX_RESULT_WINDOW,
            docvalue_fields: limits::MAX_DOCVALUE_FIELDS,
        }
    }
}

/// Highlighting as asked.
#[derive(Clone, Debug, PartialEq)]
pub struct HighlightSpec {
    /// Fields in order of the request.
    pub fields: Vec<HighlightField>,
}

/// Highlighting of one field or pattern.
#[derive(Clone, Debug, PartialEq)]
pub struct HighlightField {
    /// Name or pattern.
    pub field: String,
    /// Put before a match.
    pub pre_tag: String,
    /// Put behind a match.
    pub post_tag: String,
    /// Characters of a fragment.
    pub fragment_size: usize,
    /// Fragments at most; 0 means the whole text.
    pub number_of_fragments: usize,
    /// Only terms asked of this field count.
    pub require_field_match: bool,
    /// Characters shown when nothing matches.
    pub no_match_size: usize,
    /// Whether the text is HTML-escaped.
    pub html: bool,
    /// Best fragments first.
    pub by_score: bool,
    /// Query to highlight instead of the search's.
    pub query: Option<Query>,
}

const KEYS: &[&str] = &[
    "fields",
    "pre_tags",
    "post_tags",
    "fragment_size",
    "number_of_fragments",
    "require_field_match",
    "no_match_size",
    "encoder",
    "order",
    "type",
    "highlight_query",
    "boundary_chars",
    "boundary_max_scan",
    "boundary_scanner",
    "boundary_scanner_locale",
    "force_source",
    "fragmenter",
    "fragment_offset",
    "matched_fields",
    "phrase_limit",
    "tags_schema",
    "max_analyzed_offset",
    "max_analyzer_offset",
    "options",
];

fn check(object: &Map<String, Value>) -> Result<()> {
    if let Some(key) = object.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(EsError::x_content(format!("[1:1] [highlight] unknown field [{key}]")));
    }
    if let Some(kind) = object.get("type").and_then(Value::as_str)
        && !matches!(kind, "unified" | "plain" | "fvh")
    {
        return Err(EsError::illegal(format!(
            "unknown highlighter type [{kind}] for the field [_na_]"
        )));
    }
    Ok(())
}

pub(super) fn highlight(value: &Value) -> Result<HighlightSpec> {
    let Value::Object(object) = value else {
        return Err(EsError::parsing("Expected [START_OBJECT] in [highlight]"));
    };
    check(object)?;
    let empty = Map::new();
    let mut fields = Vec::new();
    let mut add = |name: &String, own: &Value| -> Result<()> {
        let own = own.as_object().unwrap_or(&empty);
        check(own)?;
        fields.push(field(name, own, object)?);
        Ok(())
    };
    match object.get("fields") {
        Some(Value::Object(named)) => {
            for (name, own) in named {
                add(name, own)?;
            }
        }
        Some(Value::Array(list)) => {
            for (name, own) in list.iter().filter_map(Value::as_object).flatten() {
                add(name, own)?;
            }
        }
        _ => {}
    }
    Ok(HighlightSpec { fields })
}

fn field(
    name: &str,
    own: &Map<String, Value>,
    global: &Map<String, Value>,
) -> Result<HighlightField> {
    let get = |key: &str| own.get(key).or_else(|| global.get(key));
    let number = |key: &str, default: usize| {
        get(key).and_then(parse_number).map_or(default, |n| n.max(0.0) as usize)
    };
    let tag = |key: &str, default: &str| {
        match get(key) {
            Some(Value::Array(list)) => list.first().and_then(Value::as_str).unwrap_or(default),
            Some(Value::String(text)) => text.as_str(),
            _ => default,
        }
        .to_owned()
    };
    let is = |key: &str, text: &str| get(key).and_then(Value::as_str) == Some(text);
    Ok(HighlightField {
        field: name.to_owned(),
        pre_tag: tag("pre_tags", "<em>"),
        post_tag: tag("post_tags", "</em>"),
        fragment_size: number("fragment_size", 100),
        number_of_fragments: number("number_of_fragments", 5),
        require_field_match: get("require_field_match").and_then(parse_bool).unwrap_or(true),
        no_match_size: number("no_match_size", 0),
        html: is("encoder", "html"),
        by_score: is("order", "score"),
        query: get("highlight_query").map(Query::parse).transpose()?,
    })
}

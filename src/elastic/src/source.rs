//! `_source` filtering.

use index::names::wildcard_match;
use serde_json::{Map, Value};

use crate::params::Params;

/// What of `_source` is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceFilter {
    /// All of it.
    All,
    /// Nothing.
    None,
    /// Some fields.
    Some {
        /// Patterns of fields to keep; empty keeps all.
        includes: Vec<String>,
        /// Patterns of fields to leave out.
        excludes: Vec<String>,
    },
}

impl SourceFilter {
    /// From `_source`, `_source_includes` and `_source_excludes`; `None` when none is given.
    pub fn from_params(params: &Params) -> Option<Self> {
        let list = |name: &str| -> Vec<String> {
            let list = params.list(name).unwrap_or_default();
            list.into_iter().map(str::to_owned).collect()
        };
        let (mut includes, excludes) = (list("_source_includes"), list("_source_excludes"));
        match params.get("_source") {
            Some("true" | "") => {}
            Some("false") => return Some(Self::None),
            Some(_) => includes.extend(list("_source")),
            None if includes.is_empty() && excludes.is_empty() => return None,
            None => {}
        }
        if includes.is_empty() && excludes.is_empty() {
            return Some(Self::All);
        }
        Some(Self::Some { includes, excludes })
    }

    /// From `_source` in a body.
    pub fn from_json(value: &Value) -> Self {
        let list = |value: Option<&Value>| -> Vec<String> {
            match value {
                Some(Value::String(text)) => vec![text.clone()],
                Some(Value::Array(items)) => {
                    items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
                }
                _ => Vec::new(),
            }
        };
        match value {
            Value::Bool(false) => Self::None,
            Value::String(_) | Value::Array(_) => {
                Self::Some { includes: list(Some(value)), excludes: Vec::new() }
            }
            Value::Object(map) => Self::Some {
                includes: list(map.get("includes").or_else(|| map.get("include"))),
                excludes: list(map.get("excludes").or_else(|| map.get("exclude"))),
            },
            _ => Self::All,
        }
    }

    /// What is left of a source; `None` when nothing is wanted.
    pub fn apply(&self, source: Value) -> Option<Value> {
        match self {
            Self::None => None,
            Self::All => Some(source),
            Self::Some { includes, excludes } => match source {
                Value::Object(map) => {
                    Some(Value::Object(filter(map, "", includes.is_empty(), includes, excludes)))
                }
                other => Some(other),
            },
        }
    }
}

/// Whether a pattern names this path, or something it lies in.
fn covers(pattern: &str, path: &str) -> bool {
    wildcard_match(pattern, path) || wildcard_match(&format!("{pattern}.*"), path)
}

/// Whether something below this path may be named by a pattern: one of its beginnings matches
/// what stands before the next name. A `*` takes any number of names.
fn leads_to(pattern: &str, path: &str) -> bool {
    let below = format!("{path}.");
    let ends = pattern.char_indices().filter(|(_, c)| matches!(c, '*' | '.'));
    ends.filter_map(|(at, _)| pattern.get(..=at)).any(|begin| wildcard_match(begin, &below))
}

fn filter(
    map: Map<String, Value>,
    prefix: &str,
    inside: bool,
    includes: &[String],
    excludes: &[String],
) -> Map<String, Value> {
    let mut out = Map::new();
    for (key, value) in map {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        if excludes.iter().any(|pattern| covers(pattern, &path)) {
            continue;
        }
        let included = inside || includes.iter().any(|pattern| covers(pattern, &path));
        if !included && !includes.iter().any(|pattern| leads_to(pattern, &path)) {
            continue;
        }
        match value {
            Value::Object(inner) => {
                let was_empty = inner.is_empty();
                let inner = filter(inner, &path, included, includes, excludes);
                if !inner.is_empty() || included && was_empty || included && excludes.is_empty() {
                    out.insert(key, Value::Object(inner));
                }
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                let items = items.into_iter().filter_map(|item| match item {
                    Value::Object(inner) => {
                        let inner = filter(inner, &path, included, includes, excludes);
                        (!inner.is_empty()).then_some(Value::Object(inner))
                    }
                    other => included.then_some(other),
                });
                let items: Vec<Value> = items.collect();
                if included || !items.is_empty() {
                    out.insert(key, Value::Array(items));
                }
            }
            other if included => {
                out.insert(key, other);
            }
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(query: &str, expected: Value) {
        let source = json!({"a": 1, "b": {"c": 2, "d": {"e": 3}}, "f": [{"g": 1, "h": 2}]});
        let filter = SourceFilter::from_params(&Params::parse(query).unwrap()).unwrap();
        assert_eq!(filter.apply(source), Some(expected), "{query}");
    }

    #[test]
    fn fields_are_kept_and_left_out() {
        check("_source=a", json!({"a": 1}));
        check("_source=b.c", json!({"b": {"c": 2}}));
        check("_source=b", json!({"b": {"c": 2, "d": {"e": 3}}}));
        check("_source=f.g", json!({"f": [{"g": 1}]}));
        check("_source=*.e", json!({"b": {"d": {"e": 3}}}));
        check("_source_excludes=b,f.g", json!({"a": 1, "f": [{"h": 2}]}));
        check("_source_includes=b.*&_source_excludes=b.d", json!({"b": {"c": 2}}));
    }
}

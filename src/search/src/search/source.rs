//! Choosing parts of `_source`.

use serde_json::{Map, Value};

use crate::error::{EsError, Result};
use crate::mapping::wildcard_match;

/// What of `_source` is returned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourceFilter {
    /// Nothing at all.
    pub off: bool,
    /// Only these paths; empty means all.
    pub includes: Vec<String>,
    /// Not these paths.
    pub excludes: Vec<String>,
}

impl SourceFilter {
    /// Reads `_source` of a body: a flag, a pattern, a list or an object.
    pub fn parse(value: &Value) -> Result<Self> {
        let mut out = Self::default();
        match value {
            Value::Bool(flag) => out.off = !flag,
            Value::String(_) | Value::Array(_) => out.includes = strings(value),
            Value::Object(object) => {
                for (key, value) in object {
                    match key.as_str() {
                        "includes" | "include" => out.includes = strings(value),
                        "excludes" | "exclude" => out.excludes = strings(value),
                        other => {
                            return Err(EsError::parsing(format!(
                                "Unknown key for a START_ARRAY in [{other}]."
                            )));
                        }
                    }
                }
            }
            _ => {
                return Err(EsError::parsing(
                    "Expected one of [VALUE_BOOLEAN, VALUE_STRING, START_ARRAY, START_OBJECT]",
                ));
            }
        }
        Ok(out)
    }

    /// Applies the URL parameters `_source`, `_source_includes`, `_source_excludes`.
    pub fn apply_url(
        &mut self,
        source: Option<&str>,
        includes: Option<&str>,
        excludes: Option<&str>,
    ) {
        let list = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        match source {
            Some("true" | "") => self.off = false,
            Some("false") => self.off = true,
            Some(text) => self.includes = list(text),
            None => {}
        }
        if let Some(text) = includes {
            self.includes = list(text);
        }
        if let Some(text) = excludes {
            self.excludes = list(text);
        }
    }

    /// The filtered source; `None` when it is not wanted.
    pub fn apply(&self, source: Value) -> Option<Value> {
        if self.off {
            return None;
        }
        if self.includes.is_empty() && self.excludes.is_empty() {
            return Some(source);
        }
        let included = self.includes.is_empty();
        match source {
            Value::Object(object) => Some(Value::Object(self.object(object, "", included))),
            other => Some(other),
        }
    }

    fn object(
        &self,
        object: Map<String, Value>,
        prefix: &str,
        included: bool,
    ) -> Map<String, Value> {
        let mut out = Map::new();
        for (key, value) in object {
            let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            if self.excludes.iter().any(|pattern| wildcard_match(pattern, &path)) {
                continue;
            }
            let included = included || self.includes.iter().any(|p| wildcard_match(p, &path));
            let may_hold = included || self.includes.iter().any(|p| reaches(p, &path));
            if may_hold && let Some(value) = self.value(value, &path, included) {
                out.insert(key, value);
            }
        }
        out
    }

    fn value(&self, value: Value, path: &str, included: bool) -> Option<Value> {
        match value {
            Value::Object(object) => {
                let kept = self.object(object, path, included);
                (included || !kept.is_empty()).then_some(Value::Object(kept))
            }
            Value::Array(list) => {
                let had = !list.is_empty();
                let kept: Vec<Value> =
                    list.into_iter().filter_map(|v| self.value(v, path, included)).collect();
                (included || (had && !kept.is_empty())).then_some(Value::Array(kept))
            }
            leaf => included.then_some(leaf),
        }
    }
}

/// Whether a pattern may match something below a path.
fn reaches(pattern: &str, path: &str) -> bool {
    let below = format!("{path}.");
    pattern.starts_with(&below)
        || pattern.find('*').is_some_and(|star| {
            let head = pattern.get(..star).unwrap_or("");
            below.starts_with(head) || head.starts_with(&below)
        })
}

fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(list) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

//! `filter_path`: keeps (or with `-` removes) parts of an answer.

use serde_json::{Map, Value};

use index::names::wildcard_match;

/// Applies a comma-separated filter; `None` when nothing is left.
pub fn apply(filter: &str, value: Value) -> Option<Value> {
    let split = |part: &str| -> Vec<String> {
        part.replace("\\.", "\u{1}").split('.').map(|p| p.replace('\u{1}', ".")).collect()
    };
    let parts = || filter.split(',').map(str::trim).filter(|part| !part.is_empty());
    let includes: Vec<Vec<String>> =
        parts().filter(|part| !part.starts_with('-')).map(split).collect();
    let excludes: Vec<Vec<String>> =
        parts().filter_map(|p| p.strip_prefix('-')).map(split).collect();
    let kept = if includes.is_empty() {
        Some(value)
    } else {
        keep(value, &includes.iter().map(Vec::as_slice).collect::<Vec<_>>())
    };
    if excludes.is_empty() {
        return kept;
    }
    kept.and_then(|value| {
        drop_paths(value, &excludes.iter().map(Vec::as_slice).collect::<Vec<_>>())
    })
}

/// What is left of each filter below `key`, and whether one of them ends here.
fn step<'a>(filters: &[&'a [String]], key: &str) -> (Vec<&'a [String]>, bool) {
    let (mut next, mut ends) = (Vec::new(), false);
    for filter in filters {
        let mut filter: &'a [String] = filter;
        while let Some((first, rest)) = filter.split_first() {
            if first == "**" {
                next.push(filter);
                if rest.is_empty() {
                    ends = true;
                    break;
                }
                filter = rest;
                continue;
            }
            if wildcard_match(first, key) {
                ends |= rest.is_empty();
                if !rest.is_empty() {
                    next.push(rest);
                }
            }
            break;
        }
    }
    (next, ends)
}

fn keep(value: Value, filters: &[&[String]]) -> Option<Value> {
    match value {
        Value::Object(map) => {
            let mut out = Map::new();
            for (key, inner) in map {
                let (next, ends) = step(filters, &key);
                if ends {
                    out.insert(key, inner);
                } else if !next.is_empty()
                    && let Some(inner) = keep(inner, &next)
                {
                    out.insert(key, inner);
                }
            }
            (!out.is_empty()).then_some(Value::Object(out))
        }
        Value::Array(items) => {
            let items: Vec<Value> = items.into_iter().filter_map(|v| keep(v, filters)).collect();
            (!items.is_empty()).then_some(Value::Array(items))
        }
        _ => None,
    }
}

fn drop_paths(value: Value, filters: &[&[String]]) -> Option<Value> {
    match value {
        Value::Object(map) => {
            let mut out = Map::new();
            for (key, inner) in map {
                let (next, ends) = step(filters, &key);
                if ends {
                    continue;
                }
                let inner = if next.is_empty() { Some(inner) } else { drop_paths(inner, &next) };
                if let Some(inner) = inner {
                    out.insert(key, inner);
                }
            }
            (!out.is_empty()).then_some(Value::Object(out))
        }
        Value::Array(items) => {
            let items = items.into_iter().filter_map(|v| drop_paths(v, filters)).collect();
            Some(Value::Array(items))
        }
        other => Some(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn parts_are_kept_and_removed() {
        let value = json!({"took": 1, "hits": {"total": 2, "hits": [{"_id": "1", "_score": 1}]}});
        let check = |filter: &str, expected: Value| {
            assert_eq!(apply(filter, value.clone()), Some(expected), "{filter}");
        };
        check("took", json!({"took": 1}));
        check("hits.hits._id", json!({"hits": {"hits": [{"_id": "1"}]}}));
        check("**._id", json!({"hits": {"hits": [{"_id": "1"}]}}));
        check("h*.total,took", json!({"took": 1, "hits": {"total": 2}}));
        check("-hits", json!({"took": 1}));
        assert_eq!(apply("nothing", value), None);
    }
}

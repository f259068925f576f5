//! Index settings: flattening, validation, and the units of Elasticsearch.

use std::collections::BTreeMap;

use search::limits::LARGEST_RESULT_WINDOW;
use serde_json::Value;

use crate::error::EsError;
use crate::limits::MAX_SHARDS;

/// Settings by full name (`index.number_of_shards`); values are texts, lists of texts or null.
pub type Settings = BTreeMap<String, Value>;

/// Settings that are kept and answered; those that matter here are read where they matter.
const KNOWN: &[&str] = &[
    "index.number_of_shards",
    "index.number_of_replicas",
    "index.number_of_routing_shards",
    "index.refresh_interval",
    "index.auto_expand_replicas",
    "index.hidden",
    "index.priority",
    "index.codec",
    "index.max_result_window",
    "index.max_inner_result_window",
    "index.max_rescore_window",
    "index.max_docvalue_fields_search",
    "index.max_script_fields",
    "index.max_ngram_diff",
    "index.max_shingle_diff",
    "index.max_refresh_listeners",
    "index.max_terms_count",
    "index.max_regex_length",
    "index.max_slices_per_scroll",
    "index.gc_deletes",
    "index.default_pipeline",
    "index.final_pipeline",
    "index.blocks.read_only",
    "index.blocks.read_only_allow_delete",
    "index.blocks.read",
    "index.blocks.write",
    "index.blocks.metadata",
    "index.sort.field",
    "index.sort.order",
    "index.sort.mode",
    "index.sort.missing",
    "index.load_fixed_bitset_filters_eagerly",
    "index.verified_before_close",
    "index.write.wait_for_active_shards",
    "index.creation_date",
    "index.uuid",
    "index.version.created",
    "index.provided_name",
    "index.shard.check_on_startup",
    "index.routing_partition_size",
    "index.format",
    "index.soft_deletes.enabled",
    "index.data_path",
    "index.query_string.lenient",
    "index.highlight.max_analyzed_offset",
    "index.mode",
];

/// Groups of settings that are kept as they are.
const KNOWN_PREFIXES: &[&str] = &[
    "index.analysis.",
    "index.mapping.",
    "index.translog.",
    "index.merge.",
    "index.routing.",
    "index.unassigned.",
    "index.search.",
    "index.indexing.",
    "index.similarity.",
    "index.soft_deletes.",
    "index.query.",
    "index.store.",
    "index.lifecycle.",
    "index.analyze.",
    "index.allocation.",
    "index.recovery.",
    "index.requests.",
    "index.queries.",
    "index.warmer.",
    "index.ttl.",
];

/// Settings that Elasticsearch acts on and this server does not, with the values that ask for what
/// is done anyway.
const UNSUPPORTED: &[(&str, &[&str])] = &[
    ("index.default_pipeline", &["_none"]),
    ("index.final_pipeline", &["_none"]),
    ("index.sort.field", &[]),
    ("index.sort.order", &[]),
    ("index.sort.mode", &[]),
    ("index.sort.missing", &[]),
    ("index.routing_partition_size", &["1"]),
    ("index.mode", &["standard"]),
];

/// The same for groups of settings.
const UNSUPPORTED_PREFIXES: &[(&str, &[&str])] =
    &[("index.similarity.", &["BM25"]), ("index.lifecycle.", &[])];

/// Settings that are true or false.
const FLAGS: &[&str] = &[
    "index.blocks.read_only",
    "index.blocks.read_only_allow_delete",
    "index.blocks.read",
    "index.blocks.write",
    "index.blocks.metadata",
    "index.mapping.coerce",
    "index.mapping.ignore_malformed",
];

/// Settings fixed at creation.
const FINAL: &[&str] = &[
    "index.number_of_shards",
    "index.number_of_routing_shards",
    "index.codec",
    "index.routing_partition_size",
    "index.shard.check_on_startup",
];

/// Turns nested or dotted settings, with or without `index.`, into flat ones.
pub fn flatten(value: &Value) -> Result<Settings, EsError> {
    let mut flat = Settings::new();
    flatten_into(value, "", &mut flat, 0)?;
    let named = flat.into_iter().map(|(name, value)| match name.starts_with("index.") {
        true => (name, value),
        false => (format!("index.{name}"), value),
    });
    Ok(named.collect())
}

fn flatten_into(
    value: &Value,
    path: &str,
    out: &mut Settings,
    depth: usize,
) -> Result<(), EsError> {
    if depth > 20 {
        return Err(EsError::illegal("settings are nested too deeply"));
    }
    let flat = match value {
        Value::Object(map) => {
            for (key, inner) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten_into(inner, &path, out, depth + 1)?;
            }
            return Ok(());
        }
        Value::Array(items) => Value::Array(items.iter().map(as_text).collect()),
        Value::Null => Value::Null,
        other => as_text(other),
    };
    if path.is_empty() {
        return Err(EsError::new(400, "settings_exception", "settings must be an object"));
    }
    out.insert(path.to_owned(), flat);
    Ok(())
}

fn as_text(value: &Value) -> Value {
    match value {
        Value::String(_) | Value::Null => value.clone(),
        other => Value::String(other.to_string()),
    }
}

/// Refuses unknown names, values out of range, and what would have no effect.
pub fn validate(settings: &Settings) -> Result<(), EsError> {
    for (name, value) in settings {
        let known = KNOWN.contains(&name.as_str())
            || KNOWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        if !known {
            return Err(EsError::illegal(format!(
                "unknown setting [{name}] please check that any required plugins are installed, \
                 or check the breaking changes documentation for removed settings"
            )));
        }
        refuse_unsupported(name, value)?;
        let Some(text) = value.as_str() else { continue };
        match name.as_str() {
            name if FLAGS.contains(&name) && !["true", "false"].contains(&text) => {
                return Err(EsError::illegal(format!(
                    "Failed to parse value [{text}] as only [true] or [false] are allowed."
                )));
            }
            "index.max_result_window" => {
                integer(name, text, 1, LARGEST_RESULT_WINDOW as i64)?;
            }
            "index.max_docvalue_fields_search" => {
                integer(name, text, 0, i64::from(i32::MAX))?;
            }
            "index.write.wait_for_active_shards"
                if text != "all" && text.parse::<u32>().is_err() =>
            {
                return Err(EsError::illegal(format!("cannot parse ActiveShardCount[{text}]")));
            }
            "index.number_of_shards" => {
                integer(name, text, 1, i64::from(MAX_SHARDS))?;
            }
            "index.number_of_replicas" => {
                integer(name, text, 0, i64::from(i32::MAX))?;
            }
            "index.refresh_interval" if parse_time_ms(text).is_none() => {
                return Err(EsError::illegal(format!(
                    "failed to parse setting [{name}] with value [{text}] as a time value: unit \
                     is missing or unrecognized"
                )));
            }
            _ => {}
        }
    }
    Ok(())
}

fn refuse_unsupported(name: &str, value: &Value) -> Result<(), EsError> {
    let listed = UNSUPPORTED.iter().find(|(known, _)| *known == name);
    let grouped = || UNSUPPORTED_PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix));
    let Some((_, accepted)) = listed.or_else(grouped) else { return Ok(()) };
    let harmless = |value: &Value| value.as_str().is_some_and(|text| accepted.contains(&text));
    let fine = match value {
        Value::Null => true,
        Value::Array(list) => list.iter().all(harmless),
        other => harmless(other),
    };
    if fine {
        return Ok(());
    }
    let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Err(EsError::illegal(format!(
        "setting [{name}] with value [{shown}] is not supported by this server"
    )))
}

/// Refuses to change what is fixed once an index exists.
pub fn validate_update(settings: &Settings, index: &str, uuid: &str) -> Result<(), EsError> {
    validate(settings)?;
    for name in settings.keys() {
        if FINAL.contains(&name.as_str()) {
            let text = if name == "index.number_of_shards" {
                format!("final {index} setting [{name}], not updateable")
            } else {
                format!(
                    "Can't update non dynamic settings [[{name}]] for open indices \
                     [[{index}/{uuid}]]"
                )
            };
            return Err(EsError::illegal(text));
        }
    }
    Ok(())
}

fn integer(name: &str, text: &str, min: i64, max: i64) -> Result<i64, EsError> {
    let parse = || EsError::illegal(format!("Failed to parse value [{text}] for setting [{name}]"));
    let value: i64 = text.parse().map_err(|_| parse())?;
    if value < min {
        let text = format!("Failed to parse value [{text}] for setting [{name}] must be >= {min}");
        return Err(EsError::illegal(text));
    }
    if value > max {
        let text = format!("Failed to parse value [{text}] for setting [{name}] must be <= {max}");
        return Err(EsError::illegal(text));
    }
    Ok(value)
}

/// A number among settings.
pub fn number(settings: &Settings, name: &str) -> Option<u32> {
    settings.get(name)?.as_str()?.parse().ok()
}

/// `1s`, `500ms`, `-1`, `0` in milliseconds.
pub fn parse_time_ms(text: &str) -> Option<i64> {
    if text == "-1" || text == "0" {
        return text.parse().ok();
    }
    let split = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at_checked(split)?;
    let number: f64 = number.trim().parse().ok()?;
    let factor = match unit {
        "nanos" => 1e-6,
        "micros" => 1e-3,
        "ms" => 1.0,
        "s" => 1e3,
        "m" => 60e3,
        "h" => 3_600e3,
        "d" => 86_400e3,
        _ => return None,
    };
    let ms = number * factor;
    // Larger than any wait; a float beyond it has no exact integer.
    (ms.is_finite() && ms.abs() < 1e15).then_some(ms as i64)
}

/// Flat settings as the nested object of an answer.
pub fn nested(settings: &Settings) -> Value {
    let mut root = serde_json::Map::new();
    for (name, value) in settings {
        let parts: Vec<&str> = name.split('.').collect();
        insert_nested(&mut root, &parts, value);
    }
    Value::Object(root)
}

fn insert_nested(map: &mut serde_json::Map<String, Value>, path: &[&str], value: &Value) {
    let [first, rest @ ..] = path else { return };
    if rest.is_empty() {
        map.insert((*first).to_owned(), value.clone());
        return;
    }
    let slot = map.entry((*first).to_owned()).or_insert_with(|| Value::Object(Default::default()));
    match slot {
        Value::Object(inner) => insert_nested(inner, rest, value),
        // `a` and `a.b` both set: Elasticsearch keeps the dotted name.
        _ => {
            map.insert(path.join("."), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn settings_in_all_spellings_are_one() {
        let a = flatten(&json!({"index": {"number_of_shards": 3}})).unwrap();
        let b = flatten(&json!({"number_of_shards": "3"})).unwrap();
        let c = flatten(&json!({"index.number_of_shards": 3})).unwrap();
        assert_eq!(a, b);
        assert_eq!(b, c);
        assert_eq!(nested(&a), json!({"index": {"number_of_shards": "3"}}));
        validate(&a).unwrap();
    }

    #[test]
    fn unknown_settings_are_refused() {
        let settings = flatten(&json!({"number_of_shard": 3})).unwrap();
        let reason = validate(&settings).unwrap_err().reason;
        assert!(reason.starts_with("unknown setting [index.number_of_shard]"), "{reason}");
    }

    /// Every setting that would have no effect.
    #[test]
    fn settings_without_effect_are_refused() {
        let check = |settings: Value| validate(&flatten(&settings).unwrap()).map_err(|e| e.reason);
        for (name, asked, default) in [
            ("default_pipeline", json!("p"), json!("_none")),
            ("final_pipeline", json!("p"), json!("_none")),
            ("sort.field", json!(["d", "n"]), json!([])),
            ("sort.order", json!("desc"), json!(null)),
            ("sort.mode", json!("min"), json!(null)),
            ("sort.missing", json!("_last"), json!(null)),
            ("routing_partition_size", json!(2), json!(1)),
            ("mode", json!("time_series"), json!("standard")),
        ] {
            let reason = check(json!({ name: asked })).unwrap_err();
            let begin = format!("setting [index.{name}] with value [");
            assert!(reason.starts_with(&begin) && reason.contains("not supported"), "{reason}");
            assert_eq!(check(json!({ name: default })), Ok(()), "{name}");
        }
    }

    #[test]
    fn values_of_settings_are_checked() {
        let check = |settings: Value| validate(&flatten(&settings).unwrap()).map_err(|e| e.reason);
        for (settings, text) in [
            (json!({"blocks.write": "yes"}), "as only [true] or [false] are allowed."),
            (json!({"blocks.wriet": true}), "unknown setting [index.blocks.wriet]"),
            (json!({"max_result_window": 0}), "must be >= 1"),
            (json!({"write.wait_for_active_shards": "some"}), "ActiveShardCount[some]"),
            (json!({"max_result_window": 1_000_001}), "must be <= 1000000"),
        ] {
            let reason = check(settings).unwrap_err();
            assert!(reason.contains(text), "{reason}");
        }
        for settings in [
            json!({"blocks": {"write": true, "read_only_allow_delete": null}}),
            json!({"max_result_window": 50_000, "max_docvalue_fields_search": 2}),
            json!({"write.wait_for_active_shards": "all"}),
        ] {
            assert_eq!(check(settings), Ok(()));
        }
    }

    #[test]
    fn times_have_units() {
        assert_eq!(parse_time_ms("1s"), Some(1000));
        assert_eq!(parse_time_ms("1.5m"), Some(90_000));
        assert_eq!(parse_time_ms("-1"), Some(-1));
        assert_eq!(parse_time_ms("5"), None);
    }
}

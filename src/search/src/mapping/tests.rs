use serde_json::json;

use super::*;

fn schema(mapping: Value) -> IndexSchema {
    IndexSchema::new(Mapping::parse(&mapping).unwrap(), &json!({})).unwrap()
}

fn check_dynamic(mapping: Value, document: Value, expected: Value) {
    let parsed = schema(mapping).parse_document("1", document.to_string().as_bytes()).unwrap();
    let update = parsed.update.map_or(json!(null), |update| update.to_json());
    assert_eq!(update, expected, "{document}");
}

fn check_error(mapping: Value, document: Value, text: &str) {
    let error = schema(mapping).parse_document("1", document.to_string().as_bytes()).unwrap_err();
    let cause = error.caused_by.as_ref().map_or("", |cause| cause.reason.as_str());
    assert!(format!("{error} {cause}").contains(text), "{error} / {cause}");
}

#[test]
fn new_fields_are_guessed_as_elasticsearch_does() {
    let text = json!({"type": "text",
        "fields": {"keyword": {"type": "keyword", "ignore_above": 256}}});
    check_dynamic(json!({}), json!({"a": "x"}), json!({"properties": {"a": text}}));
    check_dynamic(
        json!({}),
        json!({"n": 1, "f": 1.5, "b": true, "d": "2024-01-02", "z": null, "e": []}),
        json!({"properties": {"b": {"type": "boolean"}, "d": {"type": "date"},
            "f": {"type": "float"}, "n": {"type": "long"}}}),
    );
    check_dynamic(
        json!({}),
        json!({"o": {"a": 1}, "p.q": 2}),
        json!({"properties": {"o": {"properties": {"a": {"type": "long"}}},
            "p": {"properties": {"q": {"type": "long"}}}}}),
    );
    check_dynamic(json!({"dynamic": false}), json!({"a": 1}), json!(null));
    check_dynamic(
        json!({"dynamic_templates": [{"s": {"match_mapping_type": "string",
            "mapping": {"type": "keyword"}}}]}),
        json!({"a": "x"}),
        json!({"properties": {"a": {"type": "keyword"}}}),
    );
}

#[test]
fn values_that_do_not_fit_are_rejected() {
    let long = json!({"properties": {"n": {"type": "long"}, "o": {"properties": {}},
        "k": {"type": "byte"}, "d": {"type": "date", "format": "yyyy-MM-dd HH:mm:ss"}}});
    check_error(long.clone(), json!({"n": "abc"}), "failed to parse field [n] of type [long]");
    check_error(long.clone(), json!({"n": "abc"}), "For input string: \"abc\"");
    check_error(long.clone(), json!({"o": 1}), "object mapping for [o] tried to parse field");
    check_error(long.clone(), json!({"k": 300}), "Value [300] is out of range for a byte");
    check_error(long, json!({"d": "2024"}), "with format [yyyy-MM-dd HH:mm:ss]");
    check_error(
        json!({"dynamic": "strict"}),
        json!({"x": 1}),
        "mapping set to strict, dynamic introduction of [x] within [_doc] is not allowed",
    );
}

#[test]
fn entries_carry_multi_fields_and_nulls() {
    let schema = schema(json!({"properties": {
        "t": {"type": "text", "fields": {"raw": {"type": "keyword", "ignore_above": 3}}},
        "k": {"type": "keyword", "null_value": "none"},
        "i": {"type": "ip"}, "x": {"type": "flattened"}, "c": {"type": "text", "copy_to": "all"},
        "all": {"type": "text"}}}));
    let parse = |doc: Value| {
        let parsed = schema.parse_document("1", doc.to_string().as_bytes()).unwrap();
        let paths: Vec<String> = parsed.entries.into_iter().map(|entry| entry.path).collect();
        paths.join(" ")
    };
    assert_eq!(parse(json!({"t": "abc"})), "t t.raw");
    assert_eq!(parse(json!({"t": "abcd"})), "t");
    assert_eq!(parse(json!({"k": null})), "k");
    assert_eq!(parse(json!({"k": ["a", "b"]})), "k k");
    assert_eq!(parse(json!({"i": "10.0.0.1"})), "i");
    assert_eq!(parse(json!({"x": {"a": {"b": 1}}})), "x x.a.b");
    assert_eq!(parse(json!({"c": "w"})), "c all");
    assert_eq!(ip_from_hex(&ip_hex("10.0.0.1").unwrap()), "10.0.0.1");
}

#[test]
fn merging_keeps_types() {
    let base = Mapping::parse(&json!({"properties": {"a": {"type": "text"}}})).unwrap();
    let merge = |update: Value| base.merge(&Mapping::parse(&update).unwrap());
    let merged = merge(json!({"properties": {"b": {"type": "long"}}})).unwrap();
    assert_eq!(merged.field_count(), 2);
    let error = merge(json!({"properties": {"a": {"type": "long"}}})).unwrap_err();
    assert_eq!(error.reason, "mapper [a] cannot be changed from type [text] to [long]");
    let error = merge(json!({"properties": {"a": {"type": "text", "analyzer": "cjk"}}}));
    let reason = error.unwrap_err().reason;
    assert!(reason.contains("Cannot update parameter [analyzer] from [default] to [cjk]"));
}

#[test]
fn mapping_json_survives_a_round_trip() {
    let json = json!({"dynamic": "strict", "_meta": {"v": 1}, "properties": {
        "a": {"type": "text", "analyzer": "cjk", "fields": {"k": {"type": "keyword"}}},
        "o": {"properties": {"d": {"type": "date", "format": "yyyy-MM-dd"}}}}});
    assert_eq!(Mapping::parse(&json).unwrap().to_json(), json);
    for (bad, text) in [
        (
            json!({"properties": {"a": {"type": "foo"}}}),
            "No handler for type [foo] declared on field [a]",
        ),
        (json!({"properties": {"a": {"type": "nested"}}}), "is not supported"),
        (
            json!({"properties": {"a": {"type": "long", "zz": 1}}}),
            "unknown parameter [zz] on mapper [a] of type [long]",
        ),
        (json!({"zz": 1}), "Root mapping definition has unsupported parameters:  [zz : 1]"),
    ] {
        let error = Mapping::parse(&bad).unwrap_err();
        assert!(error.reason.contains(text), "{error}");
    }
}

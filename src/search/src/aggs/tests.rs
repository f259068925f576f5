use serde_json::{Value, json};

use super::Aggregations;
use crate::mapping::ValueClass;
use crate::search::tests::World;

fn shop(shards: usize) -> World {
    let mapping = json!({"properties": {
        "k": {"type": "keyword"}, "n": {"type": "long"}, "f": {"type": "double"},
        "d": {"type": "date"}, "b": {"type": "boolean"}, "t": {"type": "text"}}});
    World::new(
        mapping,
        shards,
        &[
            ("1", json!({"k": "a", "n": 1, "f": 1.5, "d": "2024-01-01T23:30:00Z", "b": true})),
            ("2", json!({"k": "b", "n": 2, "f": 2.5, "d": "2024-01-02T00:30:00Z", "b": false})),
            ("3", json!({"k": ["a", "c"], "n": 3, "d": "2024-01-04T12:00:00Z", "b": true})),
            ("4", json!({"n": 10})),
        ],
    )
}

fn check(aggs: Value, expected: Value) {
    for shards in [1, 2, 3] {
        let answer = shop(shards).search(json!({"size": 0, "aggs": {"x": aggs}}));
        let answer = answer.unwrap_or_else(|e| panic!("{aggs}: {e}"));
        assert_eq!(answer["aggregations"]["x"], expected, "{shards} shards {aggs}");
    }
}

#[test]
fn terms() {
    check(
        json!({"terms": {"field": "k"}}),
        json!({"doc_count_error_upper_bound": 0, "sum_other_doc_count": 0, "buckets": [
            {"key": "a", "doc_count": 2}, {"key": "b", "doc_count": 1},
            {"key": "c", "doc_count": 1}]}),
    );
    check(
        json!({"terms": {"field": "k", "size": 1, "missing": "none", "order": {"_key": "desc"}}}),
        json!({"doc_count_error_upper_bound": 0, "sum_other_doc_count": 4, "buckets": [
            {"key": "none", "doc_count": 1}]}),
    );
    check(
        json!({"terms": {"field": "b"}, "aggs": {"m": {"max": {"field": "n"}}}}),
        json!({"doc_count_error_upper_bound": 0, "sum_other_doc_count": 0, "buckets": [
            {"key": 1, "key_as_string": "true", "doc_count": 2, "m": {"value": 3.0}},
            {"key": 0, "key_as_string": "false", "doc_count": 1, "m": {"value": 2.0}}]}),
    );
    check(
        json!({"terms": {"field": "k", "include": "[ab]", "exclude": ["b"],
            "order": {"m": "asc"}}, "aggs": {"m": {"sum": {"field": "n"}}}}),
        json!({"doc_count_error_upper_bound": 0, "sum_other_doc_count": 0, "buckets": [
            {"key": "a", "doc_count": 2, "m": {"value": 4.0}}]}),
    );
    check(
        json!({"terms": {"field": "nope"}}),
        json!({"doc_count_error_upper_bound": 0, "sum_other_doc_count": 0, "buckets": []}),
    );
}

#[test]
fn date_histograms() {
    fn bucket(day: &str, key: i64, count: u64) -> Value {
        json!({"key_as_string": day, "key": key, "doc_count": count})
    }
    check(
        json!({"date_histogram": {"field": "d", "calendar_interval": "day",
            "format": "yyyy-MM-dd"}}),
        json!({"buckets": [
            bucket("2024-01-01", 1_704_067_200_000, 1),
            bucket("2024-01-02", 1_704_153_600_000, 1),
            bucket("2024-01-03", 1_704_240_000_000, 0),
            bucket("2024-01-04", 1_704_326_400_000, 1)]}),
    );
    check(
        json!({"date_histogram": {"field": "d", "fixed_interval": "1d", "min_doc_count": 1,
            "time_zone": "Asia/Seoul"}}),
        json!({"buckets": [
            bucket("2024-01-02T00:00:00.000+09:00", 1_704_121_200_000, 2),
            bucket("2024-01-04T00:00:00.000+09:00", 1_704_294_000_000, 1)]}),
    );
    check(
        json!({"date_histogram": {"field": "d", "calendar_interval": "month", "keyed": true,
            "format": "yyyy-MM", "extended_bounds": {"min": "2023-12", "max": "2024-01"}}}),
        json!({"buckets": {
            "2023-12": {"key_as_string": "2023-12", "key": 1_701_388_800_000_i64, "doc_count": 0},
            "2024-01": {"key_as_string": "2024-01", "key": 1_704_067_200_000_i64,
                "doc_count": 3}}}),
    );
}

#[test]
fn other_buckets() {
    check(
        json!({"histogram": {"field": "n", "interval": 5}}),
        json!({"buckets": [{"key": 0.0, "doc_count": 3}, {"key": 5.0, "doc_count": 0},
            {"key": 10.0, "doc_count": 1}]}),
    );
    check(
        json!({"range": {"field": "n", "ranges": [{"from": 3}, {"to": 3}]}}),
        json!({"buckets": [{"key": "*-3.0", "to": 3.0, "doc_count": 2},
            {"key": "3.0-*", "from": 3.0, "doc_count": 2}]}),
    );
    check(
        json!({"date_range": {"field": "d", "format": "yyyy-MM-dd",
            "ranges": [{"from": "2024-01-02", "key": "late"}]}}),
        json!({"buckets": [{"key": "late", "from": 1_704_153_600_000.0,
            "from_as_string": "2024-01-02", "doc_count": 2}]}),
    );
    check(
        json!({"filter": {"term": {"k": "a"}}, "aggs": {"s": {"sum": {"field": "n"}}}}),
        json!({"doc_count": 2, "s": {"value": 4.0}}),
    );
    check(
        json!({"filters": {"filters": {"p": {"term": {"k": "a"}}}, "other_bucket": true}}),
        json!({"buckets": {"p": {"doc_count": 2}, "_other_": {"doc_count": 2}}}),
    );
    check(json!({"missing": {"field": "k"}}), json!({"doc_count": 1}));
    check(json!({"global": {}}), json!({"doc_count": 4}));
}

#[test]
fn metrics() {
    check(
        json!({"stats": {"field": "n"}}),
        json!({"count": 4, "min": 1.0, "max": 10.0, "avg": 4.0, "sum": 16.0}),
    );
    check(json!({"avg": {"field": "f"}}), json!({"value": 2.0}));
    check(json!({"avg": {"field": "f", "missing": 0}}), json!({"value": 1.0}));
    check(json!({"min": {"field": "nope"}}), json!({"value": null}));
    check(json!({"value_count": {"field": "k"}}), json!({"value": 4}));
    check(json!({"cardinality": {"field": "k"}}), json!({"value": 3}));
    check(json!({"cardinality": {"field": "n"}}), json!({"value": 4}));
    check(
        json!({"max": {"field": "d"}}),
        json!({"value": 1_704_369_600_000.0, "value_as_string": "2024-01-04T12:00:00.000Z"}),
    );
}

#[test]
fn bad_aggregations_get_elasticsearch_errors() {
    let world = shop(1);
    for (aggs, text) in [
        (json!({"x": {"foo": {}}}), "Unknown aggregation type [foo]"),
        (json!({"x": {"top_hits": {}}}), "aggregation type [top_hits] is not supported"),
        (json!({"x": {"terms": {"field": "t"}}}), "Text fields are not optimised"),
        (json!({"x": {"avg": {"field": "k"}}}), "is not supported for aggregation [avg]"),
        (json!({"x": {"terms": {"field": "k", "zz": 1}}}), "[terms] unknown field [zz]"),
        (json!({"x": {}}), "Missing definition for aggregation [x]"),
        (json!({"a[b]": {"avg": {"field": "n"}}}), "Invalid aggregation name [a[b]]"),
        (
            json!({"x": {"avg": {"field": "n"}, "aggs": {"y": {"avg": {"field": "n"}}}}}),
            "cannot accept sub-aggregations",
        ),
        (
            json!({"x": {"histogram": {"field": "n", "interval": 0.0001}}}),
            "Trying to create too many buckets",
        ),
    ] {
        let error = world.search(json!({"size": 0, "aggs": aggs})).unwrap_err();
        assert!(error.reason.contains(text), "{error}");
    }
}

#[test]
fn many_distinct_values_are_estimated() {
    let mut left = super::Sketch::new(100);
    let mut right = super::Sketch::new(100);
    for n in 0..60_000_u64 {
        let half = if n % 2 == 0 { &mut left } else { &mut right };
        half.insert(super::sketch::hash(&n.to_le_bytes()));
    }
    left.merge(right);
    let off = left.count().abs_diff(60_000);
    assert!(off < 1_800, "{}", left.count());
}

#[test]
fn typed_keys_name_the_type_of_each_result() {
    let class_of = |field: &str| match field {
        "k" => Some(ValueClass::Keyword),
        "n" | "b" | "d" => Some(ValueClass::Long),
        "f" => Some(ValueClass::Double),
        _ => None,
    };
    for (aggs, path) in [
        (json!({"x": {"terms": {"field": "k"}}}), "/sterms#x/buckets/0/doc_count"),
        (json!({"x": {"terms": {"field": "b"}}}), "/lterms#x/buckets/0/doc_count"),
        (json!({"x": {"terms": {"field": "f"}}}), "/dterms#x/buckets/0/doc_count"),
        (json!({"x": {"terms": {"field": "nope"}}}), "/sterms#x/buckets"),
        (json!({"x": {"histogram": {"field": "n", "interval": 5}}}), "/histogram#x/buckets"),
        (
            json!({"x": {"date_histogram": {"field": "d", "calendar_interval": "day"}}}),
            "/date_histogram#x/buckets/0",
        ),
        (json!({"x": {"range": {"field": "n", "ranges": [{"to": 2}]}}}), "/range#x/buckets/0"),
        (
            json!({"x": {"date_range": {"field": "d", "ranges": [{"to": "2025"}]}}}),
            "/date_range#x/buckets/0",
        ),
        (json!({"x": {"extended_stats": {"field": "n"}}}), "/extended_stats#x/count"),
        (json!({"x": {"cardinality": {"field": "k"}}}), "/cardinality#x/value"),
        (
            json!({"x": {"filters": {"filters": {"y": {"match_all": {}}}},
                "aggs": {"m": {"max": {"field": "n"}}}}}),
            "/filters#x/buckets/y/max#m/value",
        ),
        (
            json!({"x": {"global": {}, "aggs": {"t": {"terms": {"field": "k"},
                "aggs": {"m": {"value_count": {"field": "n"}}}}}}}),
            "/global#x/sterms#t/buckets/0/value_count#m/value",
        ),
        (json!({"x": {"missing": {"field": "k"}}}), "/missing#x/doc_count"),
        (json!({"x": {"filter": {"match_all": {}}}}), "/filter#x/doc_count"),
    ] {
        let mut answer = shop(1).search(json!({"size": 0, "aggs": aggs})).unwrap();
        let level = answer["aggregations"].as_object_mut().unwrap();
        Aggregations::parse(&aggs).unwrap().type_keys(level, &class_of);
        assert!(answer["aggregations"].pointer(path).is_some(), "{path} in {answer}");
    }
}

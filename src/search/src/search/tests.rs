use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::error::EsError;
use crate::mapping::{IndexSchema, Mapping};
use crate::query::QueryContext;
use crate::shard::{IndexOp, Shard, ShardOp, ShardOptions};

/// Shards of one index with documents spread over them, fed as a primary would.
pub(crate) struct World {
    shards: Vec<Shard>,
    _dir: tempfile::TempDir,
}

impl World {
    pub(crate) fn new(mapping: Value, shards: usize, docs: &[(&str, Value)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let compile = |mapping| Arc::new(IndexSchema::new(mapping, &json!({})).unwrap());
        let mut schema = compile(Mapping::parse(&mapping).unwrap());
        let open = |number: usize, schema: &Arc<IndexSchema>| {
            let path = dir.path().join(number.to_string());
            let options = ShardOptions { writer_bytes: 15 << 20, ..ShardOptions::default() };
            Shard::open(&path, schema.clone(), options).unwrap()
        };
        let shards: Vec<Shard> = (0..shards).map(|number| open(number, &schema)).collect();
        for (seq, (id, doc)) in docs.iter().enumerate() {
            let source = doc.to_string().into_bytes();
            while let Some(update) = schema.parse_document(id, &source).unwrap().update {
                schema = compile(schema.mapping().merge(&update).unwrap());
            }
            let shard = &shards[seq % shards.len()];
            shard.set_schema(schema.clone());
            let op = IndexOp {
                id: (*id).to_owned(),
                routing: None,
                source: source.into(),
                seq_no: seq as u64,
                primary_term: 1,
                version: 1,
            };
            shard.apply(&ShardOp::Index(op)).unwrap();
            if seq % 3 == 2 {
                shard.refresh().unwrap();
            }
        }
        for shard in &shards {
            shard.set_schema(schema.clone());
            shard.refresh().unwrap();
        }
        Self { shards, _dir: dir }
    }

    pub(crate) fn search(&self, body: Value) -> Result<Value, EsError> {
        let request = SearchRequest::parse(Some(&body), &BTreeMap::new())?;
        // Requests and tops travel between nodes.
        let wire = serde_json::to_vec(&request).unwrap();
        let request: SearchRequest = serde_json::from_slice(&wire).unwrap();
        let context = |shard: usize| QueryContext {
            now_ms: 1_704_164_645_678,
            index: "news".to_owned(),
            shard: shard as u32,
        };
        request.check_limits(&IndexLimits::default())?;
        let snapshots: Vec<_> = self.shards.iter().map(Shard::snapshot).collect();
        let mut tops = Vec::new();
        for (number, snapshot) in snapshots.iter().enumerate() {
            tops.push(execute_query_phase(snapshot, &request, &context(number))?);
        }
        let merged = merge(&request, tops)?;
        let mut hits = Vec::new();
        for MergedHit { shard, hit } in &merged.hits {
            let hit = std::slice::from_ref(hit);
            hits.extend(fetch_phase(&snapshots[*shard], &request, &context(*shard), hit)?);
        }
        let counts = ShardCounts { total: self.shards.len(), ..ShardCounts::default() };
        render(&request, &merged, hits, &counts, 1)
    }

    pub(crate) fn ids(&self, body: Value) -> String {
        let answer = self.search(body.clone()).unwrap_or_else(|e| panic!("{body}: {e}"));
        let hits = answer["hits"]["hits"].as_array().unwrap();
        let ids: Vec<&str> = hits.iter().map(|hit| hit["_id"].as_str().unwrap()).collect();
        ids.join(" ")
    }
}

fn news(shards: usize) -> World {
    let mapping = json!({"properties": {
        "body": {"type": "text", "analyzer": "cjk"},
        "n": {"type": "integer"}, "d": {"type": "date"}, "k": {"type": "keyword"}}});
    World::new(
        mapping,
        shards,
        &[
            ("1", json!({"body": "내일 회의에서 결정합니다", "n": 3, "d": "2024-01-01", "k": "b"})),
            ("2", json!({"body": "회의 자료 첨부", "n": 1, "d": "2024-01-02", "k": "a"})),
            ("3", json!({"body": "점심 메뉴", "n": 2, "d": "2024-01-03T10:00:00Z", "k": "c"})),
            ("4", json!({"body": "Meeting notes <b>", "n": 2})),
        ],
    )
}

#[test]
fn korean_is_found_inside_words() {
    for shards in [1, 3] {
        let world = news(shards);
        let ids = world.ids(json!({"query": {"match": {"body": "회의"}}, "sort": ["n"]}));
        assert_eq!(ids, "2 1");
    }
}

#[test]
fn sorting_and_paging_agree_on_any_number_of_shards() {
    for shards in [1, 2, 3] {
        let world = news(shards);
        for (body, expected) in [
            (json!({"sort": [{"n": "desc"}, {"k": "asc"}]}), "1 3 4 2"),
            (json!({"sort": [{"k": {"order": "asc", "missing": "_first"}}]}), "4 2 1 3"),
            (json!({"sort": [{"d": "desc"}]}), "3 2 1 4"),
            (json!({"sort": ["n", "k"], "from": 1, "size": 2}), "3 4"),
            (json!({"sort": ["k"], "search_after": ["a"]}), "1 3 4"),
            (json!({"sort": ["k"], "search_after": ["aa"]}), "1 3 4"),
            (json!({"sort": [{"k": "desc"}], "search_after": ["b"]}), "2 4"),
            (json!({"sort": [{"d": "asc"}], "search_after": [1_704_067_200_000_i64]}), "2 3 4"),
            (json!({"sort": ["n", "k"], "post_filter": {"term": {"k": "a"}}}), "2"),
        ] {
            assert_eq!(world.ids(body.clone()), expected, "{shards} {body}");
        }
    }
}

#[test]
fn answers_have_the_shape_of_elasticsearch() {
    let world = news(2);
    let answer = world
        .search(json!({"query": {"term": {"k": "a"}}, "sort": [{"d": "asc"}], "version": true,
            "seq_no_primary_term": true, "_source": ["n", "k"],
            "docvalue_fields": [{"field": "d", "format": "yyyy/MM/dd"}],
            "fields": ["n"], "track_total_hits": true}))
        .unwrap();
    assert_eq!(answer["hits"]["total"], json!({"value": 1, "relation": "eq"}));
    assert_eq!(answer["hits"]["max_score"], json!(null));
    let hit = json!({"_index": "news", "_type": "_doc", "_id": "2", "_version": 1, "_seq_no": 1,
        "_primary_term": 1, "_score": null, "_source": {"n": 1, "k": "a"},
        "fields": {"d": ["2024/01/02"], "n": [1]}, "sort": [1_704_153_600_000_i64]});
    assert_eq!(answer["hits"]["hits"][0], hit);
}

#[test]
fn matches_are_highlighted() {
    let world = news(1);
    let highlight = |body: Value| {
        let answer = world.search(body).unwrap();
        answer["hits"]["hits"][0]["highlight"]["body"].clone()
    };
    let marked = highlight(json!({"query": {"match": {"body": "회의에서"}},
        "highlight": {"fields": {"body": {}}}}));
    assert_eq!(marked, json!(["내일 <em>회의에서</em> 결정합니다"]));
    let marked = highlight(json!({"query": {"query_string": {"query": "meet*"}},
        "highlight": {"fields": {"*": {}}, "pre_tags": ["["], "post_tags": ["]"],
            "encoder": "html", "number_of_fragments": 0}}));
    assert_eq!(marked, json!(["[Meeting] notes &lt;b&gt;"]));
    let text = "One sentence here. Another one has the needle inside. A last one follows here.";
    let world = World::new(json!({}), 1, &[("1", json!({"t": text}))]);
    let answer = world
        .search(json!({"query": {"match_phrase": {"t": "the needle"}},
            "highlight": {"fields": {"t": {"fragment_size": 40}}}}))
        .unwrap();
    let fragment = json!(["Another one has <em>the</em> <em>needle</em> inside."]);
    assert_eq!(answer["hits"]["hits"][0]["highlight"]["t"], fragment);
}

#[test]
fn bad_requests_get_elasticsearch_errors() {
    let world = news(1);
    for (body, text) in [
        (json!({"size": 10_001}), "Result window is too large"),
        (json!({"size": 1e10}), "Failed to parse int parameter [size]"),
        (json!({"stored_fields": ["_none_", "n"]}), "cannot combine _none_ with other fields"),
        (
            json!({"stored_fields": "_none_", "_source": true}),
            "[stored_fields] cannot be disabled if [_source] is requested",
        ),
        (json!({"foo": 1}), "Unknown key for a VALUE_NUMBER in [foo]."),
        (json!({"collapse": {"field": "k"}}), "[collapse] in a search request is not supported"),
        (json!({"sort": ["nope"]}), "No mapping found for [nope] in order to sort on"),
        (json!({"sort": ["body"]}), "Text fields are not optimised"),
        (json!({"sort": ["n"], "search_after": [1, 2]}), "search_after has 2 value(s)"),
    ] {
        let error = world.search(body.clone()).unwrap_err();
        assert!(error.reason.contains(text), "{body}: {error}");
    }
}

#[test]
fn snapshots_expire() {
    let world = news(1);
    let table = Snapshots::new();
    let id = table.put(world.shards[0].snapshot(), 0, 100).unwrap();
    assert_eq!(table.get(id, 50, 100).unwrap().docs(), 4);
    assert!(table.get(id, 149, 0).is_ok());
    assert!(table.get(id, 151, 0).is_err());
    assert!(table.remove(id));
}

#[test]
fn totals_follow_track_total_hits() {
    let world = news(2);
    let total = |value: Value| {
        let body = json!({"track_total_hits": value, "query": {"match_all": {}}});
        world.search(body).unwrap()["hits"].get("total").cloned()
    };
    assert_eq!(total(json!(true)), Some(json!({"value": 4, "relation": "eq"})));
    assert_eq!(total(json!(3)), Some(json!({"value": 3, "relation": "gte"})));
    assert_eq!(total(json!(false)), None);
}

/// Every key of a body whose feature does not exist here.
#[test]
fn unsupported_keys_are_refused_unless_they_ask_for_nothing() {
    for (key, asked) in [
        ("collapse", json!({"field": "k"})),
        ("rescore", json!({"query": {}})),
        ("script_fields", json!({"x": {}})),
        ("suggest", json!({"x": {}})),
        ("explain", json!(true)),
        ("profile", json!(true)),
        ("pit", json!({"id": "x"})),
        ("ext", json!({"x": {}})),
        ("runtime_mappings", json!({"x": {}})),
        ("slice", json!({"id": 0, "max": 2})),
        ("knn", json!({"field": "k"})),
        ("rank", json!({"rrf": {}})),
        ("indices_boost", json!([{"news": 2}])),
    ] {
        let parse =
            |value: &Value| SearchRequest::parse(Some(&json!({ key: value })), &BTreeMap::new());
        let reason = parse(&asked).unwrap_err().reason;
        let text = format!("[{key}] in a search request is not supported by this server");
        assert_eq!(reason, text);
        for nothing in [json!(null), json!(false), json!({}), json!([])] {
            assert!(parse(&nothing).is_ok(), "{key}: {nothing}");
        }
    }
}

#[test]
fn stored_fields_replace_the_source() {
    let mapping = json!({"properties": {
        "k": {"type": "keyword", "store": true}, "n": {"type": "integer"}}});
    let world = World::new(mapping, 1, &[("1", json!({"k": "a", "n": 1}))]);
    let shown = |body: Value| {
        let hit = world.search(body).unwrap()["hits"]["hits"][0].clone();
        let keys: Vec<&str> = hit.as_object().unwrap().keys().map(String::as_str).collect();
        (keys.join(" "), hit["fields"].clone())
    };
    for (body, keys, fields) in [
        (json!({}), "_index _type _id _score _source", json!(null)),
        (json!({"stored_fields": []}), "_index _type _id _score", json!(null)),
        (json!({"stored_fields": "_none_"}), "_index _type _score", json!(null)),
        (json!({"stored_fields": ["n"]}), "_index _type _id _score", json!(null)),
        (json!({"stored_fields": "k"}), "_index _type _id _score fields", json!({"k": ["a"]})),
        (
            json!({"stored_fields": ["*"], "_source": {"excludes": []}}),
            "_index _type _id _score _source fields",
            json!({"k": ["a"]}),
        ),
        (
            json!({"stored_fields": ["k", "_source"]}),
            "_index _type _id _score _source fields",
            json!({"k": ["a"]}),
        ),
    ] {
        assert_eq!(shown(body.clone()), (keys.to_owned(), fields), "{body}");
    }
}

#[test]
fn limits_are_those_of_the_index() {
    let request = |body: Value| SearchRequest::parse(Some(&body), &BTreeMap::new()).unwrap();
    let limits = IndexLimits { result_window: 5, docvalue_fields: 1 };
    request(json!({"from": 2, "size": 3, "docvalue_fields": ["n"]})).check_limits(&limits).unwrap();
    for (body, text) in [
        (json!({"from": 3, "size": 3}), "must be less than or equal to: [5] but was [6]."),
        (json!({"size": 1, "docvalue_fields": ["n", "k"]}), "equal to: [1] but was [2]."),
    ] {
        let reason = request(body).check_limits(&limits).unwrap_err().reason;
        assert!(reason.contains(text), "{reason}");
    }
}

#[test]
fn the_url_counts_too() {
    let params = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let parse = |pairs: &[(&str, &str)]| SearchRequest::parse(None, &params(pairs));
    assert_eq!(parse(&[("min_score", "0.5")]).unwrap().min_score, Some(0.5));
    assert_eq!(
        parse(&[("min_score", "x")]).unwrap_err().reason,
        "Failed to parse float parameter [min_score] with value [x]"
    );
    assert!(parse(&[("stored_fields", "k,n")]).unwrap().source.off);
    assert!(!parse(&[("stored_fields", "k"), ("_source", "n")]).unwrap().source.off);
    assert_eq!(parse(&[("stored_fields", "_none_")]).unwrap().stored_fields, StoredFields::None);
}

//! Bodies of searches, carried out on a small shard: parsing, compiling (query_string too, whose
//! text is parsed only then), sorting, aggregations, highlighting, rendering.
#![no_main]

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use search::mapping::{IndexSchema, Mapping};
use search::query::QueryContext;
use search::search::{
    SearchRequest, ShardCounts, execute_query_phase, fetch_phase, merge, render,
};
use search::shard::{IndexOp, Shard, ShardOp, ShardOptions, ShardSnapshot};
use serde_json::{Value, json};

static SHARD: LazyLock<ShardSnapshot> = LazyLock::new(|| {
    let dir = std::env::temp_dir().join(format!("trine-fuzz-{}", std::process::id()));
    let mapping = json!({"properties": {
        "t": {"type": "text"}, "u": {"type": "text", "analyzer": "cjk"}, "k": {"type": "keyword"},
        "n": {"type": "integer"}, "f": {"type": "float"}, "b": {"type": "boolean"},
        "d": {"type": "date"}, "ip": {"type": "ip"}}});
    let mapping = Mapping::parse(&mapping).expect("the mapping is right");
    let schema = Arc::new(IndexSchema::new(mapping, &json!({})).expect("and so is its schema"));
    let options = ShardOptions { writer_bytes: 15 << 20, ..ShardOptions::default() };
    let shard = Shard::open(&dir, schema, options).expect("a temporary directory can be written");
    let documents = [
        json!({"t": "the quick brown fox", "u": "회의 자료", "k": "Foo", "n": 1, "f": 0.1,
            "b": true, "d": "2024-01-01", "ip": "10.0.0.1"}),
        json!({"t": ["lazy dog", "fox"], "k": ["Bar", "baz"], "n": [2, -20], "f": 1e30,
            "b": false, "d": "2024-02-29T12:00:00Z", "ip": "::1"}),
        json!({}),
    ];
    for (number, document) in (0u64..).zip(documents) {
        let op = IndexOp {
            id: number.to_string(),
            routing: None,
            source: document.to_string().into_bytes().into(),
            seq_no: number,
            primary_term: 1,
            version: 1,
        };
        shard.apply(&ShardOp::Index(op)).expect("a document is taken");
    }
    shard.refresh().expect("a shard refreshes");
    shard.snapshot()
});

fn search(body: &Value) -> search::Result<Value> {
    let request = SearchRequest::parse(Some(body), &BTreeMap::new())?;
    let context =
        QueryContext { now_ms: 1_704_164_645_678, index: "news".to_owned(), shard: 0 };
    let top = execute_query_phase(&SHARD, &request, &context)?;
    let merged = merge(&request, vec![top])?;
    let found: Vec<_> = merged.hits.iter().map(|hit| hit.hit.clone()).collect();
    let hits = fetch_phase(&SHARD, &request, &context, &found)?;
    render(&request, &merged, hits, &ShardCounts { total: 1, ..ShardCounts::default() }, 1)
}

fuzz_target!(|data: &[u8]| {
    if let Ok(body) = serde_json::from_slice::<Value>(data) {
        // What is wrong in a request is the client's error, never the shard's.
        if let Err(error) = search(&body) {
            assert!(error.status < 500, "{error}");
        }
    }
    // Whatever a person types into a search box.
    if let Ok(text) = std::str::from_utf8(data) {
        for kind in ["query_string", "simple_query_string"] {
            let _ = search(&json!({"query": {kind: {"query": text}}}));
        }
    }
});

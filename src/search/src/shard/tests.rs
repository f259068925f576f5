use serde_json::{Value, json};

use super::*;
use crate::mapping::Mapping;

pub(crate) fn schema(mapping: &Value) -> Arc<IndexSchema> {
    let mapping = Mapping::parse(mapping).unwrap();
    Arc::new(IndexSchema::new(mapping, &json!({})).unwrap())
}

fn put(id: &str, seq_no: u64, source: Value) -> ShardOp {
    ShardOp::Index(IndexOp {
        id: id.to_owned(),
        routing: None,
        source: source.to_string().into_bytes().into(),
        seq_no,
        primary_term: 1,
        version: 1,
    })
}

#[test]
fn operations_become_visible_and_durable() {
    let dir = tempfile::tempdir().unwrap();
    let schema = schema(&json!({"properties": {"a": {"type": "text"}}}));
    let open = || Shard::open(dir.path(), schema.clone(), ShardOptions::default()).unwrap();
    let shard = open();
    assert_eq!(shard.committed_payload(), None);
    shard.apply(&put("1", 0, json!({"a": "x"}))).unwrap();
    assert_eq!(shard.get("1").unwrap(), None);
    assert!(shard.refresh().unwrap());
    assert!(!shard.refresh().unwrap());
    assert_eq!(shard.get("1").unwrap().unwrap().seq_no, 0);
    shard.checkpoint("offset 1").unwrap();
    shard.apply(&put("1", 1, json!({"a": "y"}))).unwrap();
    shard.apply(&put("2", 2, json!({"a": "z"}))).unwrap();
    shard.refresh().unwrap();
    assert_eq!(shard.stats().docs, 2);
    drop(shard);

    // What was only refreshed is gone, as after a crash.
    let shard = open();
    assert_eq!(shard.committed_payload().as_deref(), Some("offset 1"));
    assert_eq!(shard.get("1").unwrap().unwrap().seq_no, 0);
    assert_eq!(shard.get("2").unwrap(), None);
    for round in 0..20 {
        shard.apply(&put("1", 3 + round, json!({"a": "y"}))).unwrap();
        shard.apply(&ShardOp::Delete { id: "2".into() }).unwrap();
        shard.refresh().unwrap();
    }
    shard.checkpoint("offset 2").unwrap();
    assert!(shard.release_writer().unwrap());
    drop(shard);
    let shard = open();
    assert_eq!(shard.committed_payload().as_deref(), Some("offset 2"));
    assert_eq!(shard.stats().docs, 1);
    assert_eq!(shard.get("1").unwrap().unwrap().seq_no, 22);
}

#[test]
fn a_pinned_commit_can_be_copied() {
    let dir = tempfile::tempdir().unwrap();
    let schema = schema(&json!({"properties": {"a": {"type": "text"}}}));
    let shard = Shard::open(dir.path(), schema.clone(), ShardOptions::default()).unwrap();
    shard.apply(&put("1", 0, json!({"a": "x"}))).unwrap();
    shard.checkpoint("p").unwrap();
    let pinned = shard.pin_commit().unwrap();
    for seq in 1..30 {
        shard.apply(&put("1", seq, json!({"a": "x"}))).unwrap();
        shard.checkpoint("q").unwrap();
    }
    let copy = tempfile::tempdir().unwrap();
    for file in &pinned.files {
        std::fs::copy(dir.path().join(file), copy.path().join(file)).unwrap();
    }
    std::fs::write(copy.path().join("meta.json"), &pinned.meta).unwrap();
    let error = |e| panic!("{e:?}");
    let copied = Shard::open(copy.path(), schema, ShardOptions::default()).unwrap_or_else(error);
    assert_eq!(copied.stats().docs, 1);
}

#[test]
fn text_fields_beyond_the_slots_overflow() {
    let mut slots = Slots::new(BTreeMap::new(), 1);
    slots.bind("a");
    slots.bind("b");
    let fields = Fields::of(&layout::schema(1)).unwrap();
    assert_eq!(slots.place(&fields, "a"), (fields.slots[0], String::new()));
    assert_eq!(slots.place(&fields, "b"), (fields.overflow, "b\u{0}".to_owned()));
}

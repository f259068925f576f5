//! What the demo declares: its index and its pipeline.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::demo::{NAME, USER};

/// Settings and mapping of the index: Korean text as bigrams, so that 회의 finds 회의에서.
pub(super) fn index() -> Value {
    let text = json!({
        "type": "text",
        "analyzer": "cjk",
        "fields": {"keyword": {"type": "keyword", "ignore_above": 256}},
    });
    json!({
        "settings": {"number_of_shards": 3, "number_of_replicas": 2},
        "mappings": {"properties": {
            "id": {"type": "keyword"},
            "fileName": text,
            "fullPathName": {"type": "keyword"},
            "subject": text,
            "body": {"type": "text", "analyzer": "cjk"},
            "writeDatetime": {"type": "date", "format": "yyyy-MM-dd HH:mm:ss"},
        }},
    })
}

/// The pipeline from the sample server to topic, block store and index.
pub(super) fn spec(server: SocketAddr, host_key: &str, password: &str) -> Value {
    json!({
        "name": NAME,
        "source": {
            "type": "sftp",
            "host": server.ip().to_string(),
            "port": server.port(),
            "user": USER,
            "password": password,
            "host_keys": [host_key],
            "path": "/",
            "settle_ms": 1000,
            "settle_empty_ms": 1000,
            "scan_interval_ms": 1000,
        },
        "topic": NAME,
        "partitions": 3,
        "directory": format!("/datalake/{NAME}"),
        "index": NAME,
    })
}

//! The pipeline that the demo declares. It makes its topic and its index itself; the index takes
//! Korean text as bigrams, so that 회의 finds 회의에서.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::demo::{NAME, USER};

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

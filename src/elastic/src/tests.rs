//! The whole port over groups of one node, without sockets.

use std::sync::Arc;

use axum::body::Body;
use base::{Env, GroupId, NodeId, TaskGroup};
use consensus::solo::{SoloGroup, SoloPeers};
use consensus::{GroupRef, Groups, tags};
use index::{IndexService, IndexShared};
use segment::{SegmentWriter, WriterOptions};
use serde_json::{Value, json};

use crate::app::{App, ClusterFacts, NodeFacts};
use crate::server::{Limits, Shared, json_of};

mod effects;

struct Facts;

impl ClusterFacts for Facts {
    fn cluster_uuid(&self) -> [u8; 16] {
        [9; 16]
    }

    fn node(&self, node: NodeId) -> NodeFacts {
        NodeFacts {
            name: format!("trine-{node}"),
            host: "127.0.0.1".to_owned(),
            http_address: "127.0.0.1:9200".to_owned(),
            transport_address: "127.0.0.1:7400".to_owned(),
            alive: true,
            ..NodeFacts::default()
        }
    }
}

struct Port {
    shared: Shared,
    _dir: tempfile::TempDir,
}

fn port() -> Port {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::real();
    let writer = SegmentWriter::start(&env, WriterOptions::default());
    let shared = IndexShared::new(env.clone(), dir.path().to_owned(), writer);
    let m0 = SoloGroup::new(GroupId::M0, vec![(tags::INDEX, shared.machine_m0())]);
    let fs = SoloGroup::new(GroupId::FS, Vec::new());
    let data = |n| -> GroupRef {
        let id = GroupId::data(n);
        SoloGroup::new(id, vec![(tags::INDEX, shared.machine_data(id))])
    };
    let groups = Groups { m0, fs, data: vec![data(0), data(1)] };
    let peers = Arc::new(SoloPeers::default());
    let service = IndexService::new(shared, groups, peers, Default::default(), TaskGroup::new());
    let app = App {
        service,
        facts: Arc::new(Facts),
        cluster_name: "trine".to_owned(),
        version: "7.17.22".to_owned(),
        env,
    };
    Port { shared: Shared::new(app, Limits::default()), _dir: dir }
}

impl Port {
    async fn send(&self, method: &str, uri: &str, body: &str) -> (u16, Value) {
        let kind = if uri.contains("_bulk") { "application/x-ndjson" } else { "application/json" };
        let request = hyper::Request::builder()
            .method(method)
            .uri(uri)
            .header("content-type", kind)
            .header("content-length", body.len())
            .body(Body::from(body.to_owned()))
            .unwrap();
        json_of(self.shared.answer(request).await).await
    }

    async fn ok(&self, method: &str, uri: &str, body: &str) -> Value {
        let (status, value) = self.send(method, uri, body).await;
        assert!(status < 300, "{method} {uri}: {status} {value}");
        value
    }
}

fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or_else(|| panic!("no {pointer} in {value}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_go_in_and_are_found() {
    let port = port();
    let mapping = json!({"settings": {"number_of_shards": 2, "number_of_replicas": 0},
        "mappings": {"properties": {"subject": {"type": "text", "analyzer": "cjk"}}}});
    let made = port.ok("PUT", "/news", &mapping.to_string()).await;
    assert_eq!(made, json!({"acknowledged": true, "shards_acknowledged": true, "index": "news"}));
    let put = port.ok("PUT", "/news/_doc/1?refresh=true", r#"{"subject":"회의에서","n":1}"#).await;
    assert_eq!(at(&put, "/result"), "created");
    assert_eq!(at(&put, "/forced_refresh"), true);
    let bulk = "{\"index\":{\"_id\":\"2\"}}\n{\"subject\":\"바다\",\"n\":2}\n\
                {\"create\":{\"_id\":\"1\"}}\n{}\n{\"delete\":{\"_id\":\"9\"}}\n\
                {\"update\":{\"_id\":\"2\"}}\n{\"doc\":{\"n\":5}}\n";
    let done = port.ok("POST", "/news/_bulk?refresh=true", bulk).await;
    assert_eq!(at(&done, "/errors"), true);
    let statuses: Vec<_> = [
        "/items/0/index/status",
        "/items/1/create/status",
        "/items/2/delete/status",
        "/items/3/update/status",
    ]
    .map(|p| at(&done, p).clone())
    .into();
    assert_eq!(json!(statuses), json!([201, 409, 404, 200]));
    let found = port.ok("POST", "/news/_search", r#"{"query":{"match":{"subject":"회의"}}}"#).await;
    assert_eq!(at(&found, "/hits/total"), &json!({"value": 1, "relation": "eq"}));
    assert_eq!(at(&found, "/hits/hits/0/_id"), "1");
    assert_eq!(at(&port.ok("GET", "/news/_count", "").await, "/count"), 2);
    let got = port.ok("GET", "/news/_doc/2?_source=n", "").await;
    assert_eq!(at(&got, "/_source"), &json!({"n": 5}));
    assert_eq!(port.send("GET", "/news/_doc/77", "").await.0, 404);
    let health = port.ok("GET", "/_cluster/health?wait_for_status=green", "").await;
    assert_eq!(at(&health, "/active_primary_shards"), 2);
    port.ok("DELETE", "/news", "").await;
    assert_eq!(port.send("HEAD", "/news", "").await.0, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_are_answered_as_elasticsearch_does() {
    let port = port();
    let (status, body) = port.send("GET", "/nothing/_search", "").await;
    assert_eq!(status, 404);
    assert_eq!(at(&body, "/error/type"), "index_not_found_exception");
    let (status, body) = port.send("GET", "/_cat/indices?vv", "").await;
    assert_eq!(status, 400);
    let reason = "request [/_cat/indices] contains unrecognized parameter: [vv]";
    assert!(at(&body, "/error/reason").as_str().unwrap().starts_with(reason), "{body}");
    let (status, body) = port.send("POST", "/_cat/indices", "").await;
    assert_eq!(status, 405);
    assert_eq!(
        at(&body, "/error"),
        "Incorrect HTTP method for uri [/_cat/indices] and method [POST], allowed: [GET, HEAD]"
    );
    let (status, _) = port.send("PUT", "/Bad", "").await;
    assert_eq!(status, 400);
    let (status, body) = port.send("PUT", "/a/_doc/1", "{broken").await;
    assert_eq!(
        (status, at(&body, "/error/type").as_str()),
        (400, Some("mapper_parsing_exception"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_and_versions_fit_the_client() {
    let port = port();
    port.ok("PUT", "/뉴스", "").await;
    port.ok("PUT", "/abc", r#"{"settings":{"number_of_replicas":0}}"#).await;
    let table = port.ok("GET", "/_cat/indices?h=health,index,pri,rep&s=index&v", "").await;
    assert_eq!(table, json!("health index pri rep\ngreen  abc     1   0\nyellow 뉴스    1   1\n"));
    let info = port.ok("GET", "/?filter_path=version.number,tagline", "").await;
    assert_eq!(info, json!({"version": {"number": "7.17.22"}, "tagline": "You Know, for Search"}));
    let kind = "application/vnd.elasticsearch+json; compatible-with=8";
    let request =
        hyper::Request::builder().uri("/").header("accept", kind).body(Body::empty()).unwrap();
    let response = port.shared.answer(request).await;
    assert_eq!(response.headers()["content-type"], kind);
    assert_eq!(response.headers()["x-elastic-product"], "Elasticsearch");
    let (_, body) = json_of(response).await;
    assert_eq!(at(&body, "/version/number"), "8.19.0");
}

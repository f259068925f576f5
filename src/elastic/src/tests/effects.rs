//! What parameters and settings bring about, or are refused for.

use serde_json::{Value, json};

use super::{Port, at, port};

impl Port {
    async fn refused(&self, method: &str, uri: &str, body: &str) -> (u16, String, String) {
        let (status, value) = self.send(method, uri, body).await;
        let text = |pointer: &str| at(&value, pointer).as_str().unwrap().to_owned();
        (status, text("/error/type"), text("/error/reason"))
    }
}

fn settings(settings: Value) -> String {
    json!({ "settings": settings }).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_keep_clients_out() {
    let port = port();
    port.ok("PUT", "/a", &settings(json!({"number_of_replicas": 0}))).await;
    port.ok("PUT", "/a/_doc/1?refresh", "{}").await;
    port.ok("PUT", "/a/_settings", r#"{"index.blocks.write":true}"#).await;
    let kind = "cluster_block_exception".to_owned();
    let text = "index [a] blocked by: [FORBIDDEN/8/index write (api)];".to_owned();
    assert_eq!(port.refused("PUT", "/a/_doc/2", "{}").await, (403, kind.clone(), text));
    let done = port.ok("POST", "/a/_bulk", "{\"index\":{}}\n{}\n").await;
    assert_eq!(at(&done, "/items/0/index/status"), 403);
    assert_eq!(at(&port.ok("GET", "/a/_count", "").await, "/count"), 1);
    port.ok("PUT", "/a/_settings", r#"{"blocks":{"write":null,"read":true}}"#).await;
    for uri in ["/a/_search", "/a/_count", "/a/_doc/1"] {
        assert_eq!(port.refused("GET", uri, "").await.0, 403, "{uri}");
    }
    port.ok("PUT", "/a/_settings", r#"{"index.blocks":{"read":false}}"#).await;
    port.ok("PUT", "/a/_settings", r#"{"index.blocks.read_only":true}"#).await;
    for (method, uri, body) in [
        ("PUT", "/a/_mapping", r#"{"properties":{"x":{"type":"long"}}}"#),
        ("PUT", "/a/_settings", r#"{"refresh_interval":"2s"}"#),
        ("PUT", "/a/_alias/b", ""),
        ("POST", "/a/_close", ""),
        ("DELETE", "/a", ""),
    ] {
        let (status, found, _) = port.refused(method, uri, body).await;
        assert_eq!((status, &found), (403, &kind), "{method} {uri}");
    }
    port.ok("GET", "/a", "").await;
    port.ok("PUT", "/a/_settings", r#"{"index.blocks.read_only":false}"#).await;
    port.ok("DELETE", "/a", "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_of_an_index_are_kept() {
    let port = port();
    port.ok("PUT", "/a", &settings(json!({"max_result_window": 5}))).await;
    port.ok("GET", "/a/_search?size=5", "").await;
    let (status, value) = port.send("GET", "/a/_search?from=3&size=5", "").await;
    assert_eq!((status, at(&value, "/error/reason")), (400, &json!("all shards failed")));
    assert_eq!(at(&value, "/error/root_cause/0/type"), "illegal_argument_exception");
    let reason = at(&value, "/error/root_cause/0/reason").as_str().unwrap();
    let text = "Result window is too large, from + size must be less than or equal to: [5] but was \
                [8].";
    assert!(reason.starts_with(text), "{reason}");
    port.ok("PUT", "/a/_settings", r#"{"max_result_window":20000}"#).await;
    port.ok("GET", "/a/_search?size=20000", "").await;
    let (status, _, reason) =
        port.refused("PUT", "/b", &settings(json!({"default_pipeline": "p"}))).await;
    assert_eq!(status, 400);
    let text = "setting [index.default_pipeline] with value [p] is not supported by this server";
    assert_eq!(reason, text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routing_and_min_score_narrow_a_search() {
    let port = port();
    port.ok("PUT", "/a", &settings(json!({"number_of_shards": 5}))).await;
    for (id, routing) in [("1", "x"), ("2", "y"), ("3", "x")] {
        port.ok("PUT", &format!("/a/_doc/{id}?routing={routing}&refresh"), r#"{"n":1}"#).await;
    }
    let found = port.ok("GET", "/a/_search?routing=x", "").await;
    assert_eq!(at(&found, "/_shards/total"), 1);
    assert!(at(&found, "/hits/total/value").as_u64().unwrap() >= 2);
    let all = port.ok("GET", "/a/_search?preference=_shards:0,1,2,3,4", "").await;
    assert_eq!((at(&all, "/_shards/total"), at(&all, "/hits/total/value")), (&json!(5), &json!(3)));
    for (query, count) in [("", 3), ("?min_score=0.5", 3), ("?min_score=1.5", 0)] {
        let counted = port.ok("GET", &format!("/a/_count{query}"), "").await;
        assert_eq!(at(&counted, "/count"), count, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_typed_on_demand() {
    let port = port();
    port.ok("PUT", "/a/_doc/1?refresh", r#"{"n":1}"#).await;
    let body = json!({"size": 0, "aggs": {"x": {"terms": {"field": "n"},
        "aggs": {"m": {"max": {"field": "n"}}}}}})
    .to_string();
    let plain = port.ok("POST", "/a/_search", &body).await;
    assert_eq!(at(&plain, "/aggregations/x/buckets/0/m/value"), 1.0);
    let typed = port.ok("POST", "/a/_search?typed_keys", &body).await;
    assert_eq!(at(&typed, "/aggregations/lterms#x/buckets/0/max#m/value"), 1.0);
    let lines = format!("{{\"index\":\"a\",\"preference\":\"p\"}}\n{body}\n");
    let many = port.ok("POST", "/_msearch?typed_keys=true", &lines).await;
    assert_eq!(at(&many, "/responses/0/aggregations/lterms#x/buckets/0/key"), 1);
    let (status, _, reason) = port.refused("POST", "/_msearch", "{\"indexx\":\"a\"}\n{}\n").await;
    assert_eq!(status, 400);
    assert_eq!(reason, "key [indexx] is not supported in the metadata section");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_wait_for_copies() {
    let port = port();
    let uri = "/a?wait_for_active_shards=all&timeout=10ms";
    let made = port.ok("PUT", uri, &settings(json!({"number_of_replicas": 1}))).await;
    assert_eq!(at(&made, "/shards_acknowledged"), false);
    let uri = "/a/_doc/1?wait_for_active_shards=all&timeout=10ms";
    let (status, kind, reason) = port.refused("PUT", uri, "{}").await;
    assert_eq!((status, kind.as_str()), (503, "unavailable_shards_exception"));
    let text = "[a][0] Not enough active copies to meet shard count of [ALL] (have 1, needed 2).";
    assert!(reason.starts_with(text), "{reason}");
    let uri = "/a/_bulk?wait_for_active_shards=2&timeout=10ms";
    let done = port.ok("POST", uri, "{\"index\":{}}\n{}\n").await;
    assert_eq!(at(&done, "/items/0/index/status"), 503);
    port.ok("PUT", "/a/_doc/1?wait_for_active_shards=1", "{}").await;
    port.ok("PUT", "/a/_settings", r#"{"number_of_replicas":0}"#).await;
    port.ok("PUT", "/a/_doc/1?wait_for_active_shards=all", "{}").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stored_fields_are_shown() {
    let port = port();
    let mapping = json!({"mappings": {"properties": {
        "k": {"type": "keyword", "store": true}, "n": {"type": "long"}}}});
    port.ok("PUT", "/a", &mapping.to_string()).await;
    port.ok("PUT", "/a/_doc/1?refresh", r#"{"k":"v","n":1}"#).await;
    let got = port.ok("GET", "/a/_doc/1?stored_fields=k,n", "").await;
    assert_eq!((at(&got, "/fields"), got.get("_source")), (&json!({"k": ["v"]}), None));
    let body = r#"{"docs":[{"_id":"1","stored_fields":["k","_source"]},{"_id":"1"}]}"#;
    let many = port.ok("POST", "/a/_mget?realtime=false", body).await;
    assert_eq!(at(&many, "/docs/0/fields/k/0"), "v");
    assert_eq!(at(&many, "/docs/0/_source/n"), 1);
    assert_eq!(at(&many, "/docs/1").get("fields"), None);
    let found = port.ok("GET", "/a/_search?stored_fields=_none_", "").await;
    let hit = at(&found, "/hits/hits/0");
    assert_eq!((hit.get("_id"), hit.get("_source")), (None, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_refused() {
    let port = port();
    let lines = "{\"index\":{\"_index\":\"a\",\"pipeline\":\"p\"}}\n{}\n\
                 {\"index\":{\"_index\":\"a\",\"pipeline\":\"_none\"}}\n{}\n";
    let done = port.ok("POST", "/_bulk?refresh", lines).await;
    let statuses = [0, 1].map(|n| at(&done, &format!("/items/{n}/index/status")).clone());
    assert_eq!(json!(statuses), json!([400, 201]));
    for (method, uri, body) in [
        ("GET", "/a/_search?explain", ""),
        ("POST", "/a/_search", r#"{"pit":{"id":"x"}}"#),
        ("POST", "/a/_search", r#"{"profile":true}"#),
        ("PUT", "/a/_doc/1?pipeline=p", "{}"),
        ("GET", "/_cat/indices?format=cbor", ""),
        ("GET", "/?format=smile", ""),
    ] {
        let (status, kind, reason) = port.refused(method, uri, body).await;
        assert_eq!((status, kind.as_str()), (400, "illegal_argument_exception"), "{uri} {body}");
        assert!(reason.ends_with("is not supported by this server"), "{uri} {body}: {reason}");
    }
    port.ok("POST", "/a/_search?explain=false", r#"{"profile":false,"timeout":"1s"}"#).await;
    let (status, _, _) =
        port.refused("POST", "/a/_update/1?version=3&version_type=external", r#"{"doc":{}}"#).await;
    assert_eq!(status, 400);
    assert_eq!(port.ok("GET", "/_cat/nodes?h=cpu&v", "").await, json!("cpu\n -1\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_that_an_index_has_not_are_unmapped_there() {
    let port = port();
    for index in ["a", "b"] {
        let body = json!({"mappings": {"properties": {index: {"type": "long"}}}});
        port.ok("PUT", &format!("/{index}"), &body.to_string()).await;
    }
    let plain = port.ok("GET", "/a,b/_field_caps?fields=a", "").await;
    assert_eq!(at(&plain, "/fields/a").get("unmapped"), None);
    let caps = port.ok("GET", "/a,b/_field_caps?fields=a&include_unmapped", "").await;
    let unmapped = json!({"type": "unmapped", "searchable": false, "aggregatable": false,
        "indices": ["b"]});
    assert_eq!(at(&caps, "/fields/a/unmapped"), &unmapped);
}

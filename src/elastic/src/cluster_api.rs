//! `GET /`, cluster health and state, nodes, statistics.

use std::sync::Arc;
use std::time::Duration;

use index::EsError;
use index::admin::Health;
use index::model::IndexMeta;
use index::names::IndicesOptions;
use index::settings::parse_time_ms;
use serde_json::{Map, Value, json};

use crate::app::{App, Client, Request};
use crate::reply::Reply;

/// Numbers of `_cluster/health`.
#[derive(Clone, Debug)]
pub struct HealthFacts {
    /// The worst of all indices.
    pub status: Health,
    /// Nodes that answer.
    pub nodes: u64,
    /// First copies that are there.
    pub primaries: u64,
    /// All copies that are there.
    pub active: u64,
    /// Copies being built.
    pub initializing: u64,
    /// Copies that no node has.
    pub unassigned: u64,
}

impl HealthFacts {
    /// Copies that are there in percent of those that should be.
    pub fn percent(&self) -> f64 {
        let all = self.active + self.initializing + self.unassigned;
        if all == 0 { 100.0 } else { self.active as f64 * 100.0 / all as f64 }
    }
}

impl App {
    /// `GET /`.
    pub fn info(&self, request: &Request) -> Reply {
        let version = self.version_for(request.client);
        let mut number = json!({
            "number": version,
            "build_flavor": "default",
            "build_type": "tar",
            "build_hash": "747e1cc71def077253878a59143c1f785afa92b9",
            "build_date": "2021-01-13T00:42:12.435326Z",
            "build_snapshot": false,
            "lucene_version": if request.client == Client::Plain { "8.7.0" } else { "9.12.0" },
            "minimum_wire_compatibility_version": "6.8.0",
            "minimum_index_compatibility_version": "6.0.0-beta1",
        });
        if matches!(request.client, Client::Eight | Client::Nine)
            && let Some(map) = number.as_object_mut()
        {
            map.insert("minimum_wire_compatibility_version".into(), json!("7.17.0"));
            map.insert("minimum_index_compatibility_version".into(), json!("7.0.0"));
        }
        Reply::ok(json!({
            "name": self.facts.node(self.service.me()).name,
            "cluster_name": self.cluster_name,
            "cluster_uuid": self.cluster_uuid(),
            "version": number,
            "tagline": "You Know, for Search",
        }))
    }

    /// Health of these indices together.
    pub fn cluster_health_facts(&self, indices: &[Arc<IndexMeta>]) -> HealthFacts {
        let nodes = self.service.nodes().into_iter().filter(|(_, alive)| *alive).count();
        let mut facts = HealthFacts {
            status: Health::Green,
            nodes: nodes as u64,
            primaries: 0,
            active: 0,
            initializing: 0,
            unassigned: 0,
        };
        if self.service.master().is_none() {
            facts.status = Health::Red;
        }
        for meta in indices {
            let health = self.service.health(meta);
            facts.status = facts.status.min(health);
            let shards = u64::from(meta.shard_count());
            let wanted = u64::from(meta.row.replicas) + 1;
            let active = u64::from(self.service.active_copies(meta));
            if health == Health::Red {
                facts.unassigned += shards * wanted;
            } else {
                facts.primaries += shards;
                facts.active += shards * active;
                facts.unassigned += shards * wanted.saturating_sub(active);
            }
        }
        facts
    }

    /// `_cluster/health`.
    pub async fn cluster_health(&self, request: &Request) -> Result<Reply, EsError> {
        let wanted = match request.params.get("wait_for_status").map(str::to_lowercase).as_deref() {
            None => None,
            Some("green") => Some(Health::Green),
            Some("yellow") => Some(Health::Yellow),
            Some("red") => Some(Health::Red),
            Some(other) => {
                return Err(EsError::illegal(format!("unknown cluster health status [{other}]")));
            }
        };
        let level = request.params.get("level").unwrap_or("cluster");
        if !["cluster", "indices", "shards"].contains(&level) {
            return Err(EsError::illegal(format!("unknown level [{level}]")));
        }
        let nodes = request.params.get("wait_for_nodes");
        let shards = match request.params.get("wait_for_active_shards") {
            Some("all") | None => None,
            Some(_) => request.params.number::<u64>("wait_for_active_shards")?,
        };
        let all_shards = request.params.get("wait_for_active_shards") == Some("all");
        let timeout = request.params.get("timeout").unwrap_or("30s");
        let timeout =
            parse_time_ms(timeout).and_then(|ms| u64::try_from(ms).ok()).unwrap_or(30_000);
        let deadline = self.env.clock.monotonic() + Duration::from_millis(timeout.min(600_000));
        let options = IndicesOptions {
            expand_closed: true,
            expand_hidden: true,
            ignore_unavailable: true,
            ..IndicesOptions::READ_META
        };
        let options = request.indices_options(options)?;
        loop {
            let named = request.part("index");
            let indices = self.service.resolve(named, options).await?;
            let missing = !named.is_empty() && !named.contains('*') && indices.is_empty();
            let facts = self.cluster_health_facts(&indices);
            let met = !missing
                && wanted.is_none_or(|wanted| facts.status >= wanted)
                && shards.is_none_or(|shards| facts.active >= shards)
                && (!all_shards || facts.unassigned + facts.initializing == 0)
                && nodes.is_none_or(|text| nodes_fit(text, facts.nodes));
            if met || self.env.clock.monotonic() >= deadline {
                let status = if met { 200 } else { 408 };
                let mut shown = facts;
                if missing {
                    shown.status = Health::Red;
                }
                return Ok(Reply::with(status, self.health_body(&shown, &indices, level, !met)));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn health_body(
        &self,
        facts: &HealthFacts,
        indices: &[Arc<IndexMeta>],
        level: &str,
        timed_out: bool,
    ) -> Value {
        let mut body = json!({
            "cluster_name": self.cluster_name,
            "status": facts.status.as_str(),
            "timed_out": timed_out,
            "number_of_nodes": facts.nodes,
            "number_of_data_nodes": facts.nodes,
            "active_primary_shards": facts.primaries,
            "active_shards": facts.active,
            "relocating_shards": 0,
            "initializing_shards": facts.initializing,
            "unassigned_shards": facts.unassigned,
            "delayed_unassigned_shards": 0,
            "number_of_pending_tasks": 0,
            "number_of_in_flight_fetch": 0,
            "task_max_waiting_in_queue_millis": 0,
            "active_shards_percent_as_number": facts.percent(),
        });
        if level != "cluster"
            && let Some(map) = body.as_object_mut()
        {
            let each = indices.iter().map(|meta| {
                let own = self.cluster_health_facts(std::slice::from_ref(meta));
                (meta.name().to_owned(), index_health(meta, &own, level == "shards"))
            });
            map.insert("indices".to_owned(), Value::Object(each.collect()));
        }
        body
    }

    /// `_cluster/stats`: what is known.
    pub async fn cluster_stats(&self, request: &Request) -> Result<Reply, EsError> {
        let indices: Vec<_> = self.service.catalog().indices.values().cloned().collect();
        let facts = self.cluster_health_facts(&indices);
        let totals = self.totals(&indices).await;
        let shards: u64 = indices.iter().map(|meta| u64::from(meta.shard_count())).sum();
        Ok(Reply::ok(json!({
            "_nodes": {"total": facts.nodes, "successful": facts.nodes, "failed": 0},
            "cluster_name": self.cluster_name,
            "cluster_uuid": self.cluster_uuid(),
            "timestamp": self.env.clock.unix_ms(),
            "status": facts.status.as_str(),
            "indices": {
                "count": indices.len(),
                "shards": {"total": facts.active, "primaries": shards},
                "docs": {"count": totals.docs, "deleted": totals.deleted},
                "store": {"size_in_bytes": totals.all_bytes, "reserved_in_bytes": 0},
                "segments": {"count": totals.segments},
            },
            "nodes": {
                "count": {"total": facts.nodes, "data": facts.nodes, "master": facts.nodes,
                    "ingest": facts.nodes, "coordinating_only": 0},
                "versions": [self.version_for(request.client)],
            },
        })))
    }

    /// `_stats`.
    pub async fn stats(&self, request: &Request) -> Result<Reply, EsError> {
        let indices = self.indices(request, IndicesOptions::READ_META).await?;
        let mut each = Map::new();
        for meta in &indices {
            let own = self.totals(std::slice::from_ref(meta)).await;
            each.insert(
                meta.name().to_owned(),
                json!({
                    "uuid": meta.uuid().to_string(),
                    "health": self.service.health(meta).as_str(),
                    "status": "open",
                    "primaries": own.json(true),
                    "total": own.json(false),
                }),
            );
        }
        let all = self.totals(&indices).await;
        let facts = self.cluster_health_facts(&indices);
        Ok(Reply::ok(json!({
            "_shards": {"total": facts.active + facts.unassigned, "successful": facts.active,
                "failed": 0},
            "_all": {"primaries": all.json(true), "total": all.json(false)},
            "indices": each,
        })))
    }

    async fn totals(&self, indices: &[Arc<IndexMeta>]) -> Totals {
        let copies = self.copies(indices).await;
        let mut totals = Totals::default();
        for list in copies.by_shard.values() {
            let facts = list.iter().flatten().filter_map(|(_, facts)| facts.as_ref());
            for (nth, facts) in facts.enumerate() {
                totals.all_docs += facts.docs;
                totals.all_bytes += facts.store_bytes;
                if nth == 0 {
                    totals.docs += facts.docs;
                    totals.deleted += facts.deleted;
                    totals.bytes += facts.store_bytes;
                    totals.segments += facts.segments;
                }
            }
        }
        totals
    }

    /// `_cluster/state`: names, master and metadata.
    pub async fn cluster_state(&self, request: &Request) -> Result<Reply, EsError> {
        let metric = request.params.get("metric").unwrap_or("_all");
        let wants = |name: &str| metric.split(',').any(|m| m == name || m == "_all");
        let options = IndicesOptions { expand_closed: true, ..IndicesOptions::READ_META };
        let indices = self.indices(request, options).await?;
        let master = self.service.master().map(|node| self.node_id(node));
        let mut body = Map::new();
        body.insert("cluster_name".into(), json!(self.cluster_name));
        body.insert("cluster_uuid".into(), json!(self.cluster_uuid()));
        if wants("version") {
            body.insert("version".into(), json!(self.service.catalog().version));
        }
        if wants("master_node") {
            body.insert("master_node".into(), json!(master));
        }
        if wants("nodes") {
            let nodes = self.service.nodes().into_iter().filter(|(_, alive)| *alive);
            let nodes = nodes.map(|(node, _)| {
                let facts = self.facts.node(node);
                (
                    self.node_id(node),
                    json!({"name": facts.name,
                    "transport_address": facts.transport_address, "attributes": {}}),
                )
            });
            body.insert("nodes".into(), Value::Object(nodes.collect()));
        }
        if wants("metadata") {
            let metas = indices.iter().map(|meta| {
                let state = match meta.row.state {
                    index::model::IndexState::Open => "open",
                    index::model::IndexState::Closed => "close",
                };
                let aliases: Vec<&String> = meta.aliases.keys().collect();
                (
                    meta.name().to_owned(),
                    json!({"state": state,
                    "settings": index::settings::nested(&meta.settings),
                    "mappings": {"_doc": meta.schema.mapping().to_json()}, "aliases": aliases}),
                )
            });
            let metas: Map<String, Value> = metas.collect();
            body.insert(
                "metadata".into(),
                json!({"cluster_uuid": self.cluster_uuid(),
                "templates": {}, "indices": metas}),
            );
        }
        Ok(Reply::ok(Value::Object(body)))
    }

    /// `GET /_cluster/settings`: none are set.
    pub fn cluster_settings(&self, request: &Request) -> Result<Reply, EsError> {
        let mut body = json!({"persistent": {}, "transient": {}});
        if request.params.flag("include_defaults", false)?
            && let Some(map) = body.as_object_mut()
        {
            map.insert("defaults".to_owned(), json!({"cluster": {"name": self.cluster_name}}));
        }
        Ok(Reply::ok(body))
    }

    /// `GET /_nodes`.
    pub fn nodes_info(&self, request: &Request) -> Reply {
        let version = self.version_for(request.client);
        let nodes = self.service.nodes().into_iter().filter(|(_, alive)| *alive);
        let nodes: Map<String, Value> = nodes
            .map(|(node, _)| {
                let facts = self.facts.node(node);
                let body = json!({
                    "name": facts.name,
                    "transport_address": facts.transport_address,
                    "host": facts.host,
                    "ip": facts.host,
                    "version": version,
                    "build_flavor": "default",
                    "build_type": "tar",
                    "build_hash": "747e1cc71def077253878a59143c1f785afa92b9",
                    "roles": ["data", "ingest", "master"],
                    "attributes": {},
                    "plugins": [],
                    "modules": [],
                    "http": {
                        "bound_address": [facts.http_address],
                        "publish_address": facts.http_address,
                        "max_content_length_in_bytes": crate::limits::MAX_BODY_BYTES,
                    },
                });
                (self.node_id(node), body)
            })
            .collect();
        let count = nodes.len();
        Reply::ok(json!({
            "_nodes": {"total": count, "successful": count, "failed": 0},
            "cluster_name": self.cluster_name,
            "nodes": nodes,
        }))
    }

    /// `GET /_nodes/stats`: what is known.
    pub fn nodes_stats(&self) -> Reply {
        let timestamp = self.env.clock.unix_ms();
        let nodes = self.service.nodes().into_iter().filter(|(_, alive)| *alive);
        let nodes: Map<String, Value> = nodes
            .map(|(node, _)| {
                let facts = self.facts.node(node);
                let mut body = json!({
                    "timestamp": timestamp,
                    "name": facts.name,
                    "transport_address": facts.transport_address,
                    "host": facts.host,
                    "ip": facts.host,
                    "roles": ["data", "ingest", "master"],
                    "os": {"timestamp": timestamp},
                });
                if let (Some(rss), Some(map)) = (facts.rss_bytes, body.as_object_mut()) {
                    map.insert(
                        "process".into(),
                        json!({"timestamp": timestamp,
                        "mem": {"resident_in_bytes": rss}}),
                    );
                }
                (self.node_id(node), body)
            })
            .collect();
        let count = nodes.len();
        Reply::ok(json!({
            "_nodes": {"total": count, "successful": count, "failed": 0},
            "cluster_name": self.cluster_name,
            "nodes": nodes,
        }))
    }

    /// `GET /_license`.
    pub fn license(&self) -> Reply {
        Reply::ok(json!({"license": {
            "status": "active",
            "uid": self.cluster_uuid(),
            "type": "basic",
            "issued_to": self.cluster_name,
            "issuer": "elasticsearch",
            "start_date_in_millis": -1,
        }}))
    }

    /// `GET /_xpack`.
    pub fn xpack(&self) -> Reply {
        let off = ["ccr", "graph", "ml", "monitoring", "watcher"];
        let mut features: Map<String, Value> = off
            .iter()
            .map(|name| ((*name).to_owned(), json!({"available": false, "enabled": false})))
            .collect();
        features.insert("security".into(), json!({"available": true, "enabled": false}));
        Reply::ok(json!({
            "build": {"hash": "747e1cc71def077253878a59143c1f785afa92b9",
                "date": "2021-01-13T00:42:12.435326Z"},
            "license": {"uid": self.cluster_uuid(), "type": "basic", "mode": "basic",
                "status": "active"},
            "features": features,
            "tagline": "You know, for X",
        }))
    }
}

#[derive(Default)]
struct Totals {
    docs: u64,
    deleted: u64,
    bytes: u64,
    segments: u64,
    all_docs: u64,
    all_bytes: u64,
}

impl Totals {
    fn json(&self, primaries: bool) -> Value {
        let (docs, bytes) =
            if primaries { (self.docs, self.bytes) } else { (self.all_docs, self.all_bytes) };
        json!({
            "docs": {"count": docs, "deleted": self.deleted},
            "store": {"size_in_bytes": bytes, "reserved_in_bytes": 0},
        })
    }
}

fn index_health(meta: &IndexMeta, own: &HealthFacts, with_shards: bool) -> Value {
    let mut body = json!({
        "status": own.status.as_str(),
        "number_of_shards": meta.shard_count(),
        "number_of_replicas": meta.row.replicas,
        "active_primary_shards": own.primaries,
        "active_shards": own.active,
        "relocating_shards": 0,
        "initializing_shards": own.initializing,
        "unassigned_shards": own.unassigned,
    });
    if with_shards && let Some(map) = body.as_object_mut() {
        let count = u64::from(meta.shard_count()).max(1);
        let shards = (0..meta.shard_count()).map(|n| {
            let body = json!({"status": own.status.as_str(),
                "primary_active": own.status != Health::Red,
                "active_shards": own.active / count, "relocating_shards": 0,
                "initializing_shards": 0, "unassigned_shards": own.unassigned / count});
            (n.to_string(), body)
        });
        map.insert("shards".to_owned(), Value::Object(shards.collect()));
    }
    body
}

/// `3`, `>=2`, `le(3)` and so on.
fn nodes_fit(text: &str, nodes: u64) -> bool {
    let number = |text: &str| text.trim_end_matches(')').trim().parse::<u64>().ok();
    let compare = [">=", "<=", ">", "<", "ge(", "le(", "gt(", "lt("];
    for prefix in compare {
        let Some(rest) = text.strip_prefix(prefix) else { continue };
        return number(rest).is_some_and(|wanted| match prefix {
            ">=" | "ge(" => nodes >= wanted,
            "<=" | "le(" => nodes <= wanted,
            ">" | "gt(" => nodes > wanted,
            _ => nodes < wanted,
        });
    }
    number(text).is_none_or(|wanted| nodes == wanted)
}

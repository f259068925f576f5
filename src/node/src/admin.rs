//! What operators see and do: the console's view of this node and, through it, of the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base::{Env, NodeId};
use consensus::net::Link;
use consensus::{Cluster, Lane, Message, PeerHandler, tags};
use console::{Admin, AdminError, Answer, Kind, Verb};
use kafka::KafkaMetrics;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::config::Config;
use crate::registry::Registry;
use crate::services::Services;

/// A node that does not tell its status within this time is shown as it is known from here.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
const NODE_STATUS: u16 = u16::from_be_bytes([tags::CLUSTER, 1]);
/// Every gateway that must serve before the node is ready.
const GATEWAYS: [&str; 3] = ["kafka", "webhdfs", "elastic"];

/// Which gateways serve.
#[derive(Default)]
pub(crate) struct Gateways(Mutex<BTreeSet<&'static str>>);

impl Gateways {
    pub(crate) fn open(&self, name: &'static str) {
        self.0.lock().insert(name);
    }

    fn missing(&self) -> Vec<&'static str> {
        let open = self.0.lock();
        GATEWAYS.into_iter().filter(|name| !open.contains(name)).collect()
    }
}

/// The node as its operators see it.
pub(crate) struct NodeAdmin {
    pub(crate) env: Env,
    pub(crate) config: Config,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) registry: Registry,
    pub(crate) services: Arc<Services>,
    pub(crate) gateways: Arc<Gateways>,
    pub(crate) kafka: Arc<KafkaMetrics>,
}

impl NodeAdmin {
    fn own_status(&self) -> Value {
        let space = self.env.disk.space(&self.config.data_dir).ok();
        let groups = self.cluster.status();
        json!({
            "id": self.config.node_id,
            "ready": self.not_ready().is_none(),
            "not_ready": self.not_ready(),
            "cluster_id": self.cluster.cluster_id(),
            "disk": space.map(|s| json!({
                "free_bytes": s.free_bytes,
                "total_bytes": s.total_bytes,
                "below_reserve": self.cluster.disk_low(),
            })),
            "wal_bytes": self.cluster.wal_bytes(),
            "slow_flushes": self.cluster.slow_flushes().iter()
                .map(|flush| json!({"ended_ms": flush.ended_ms, "took_us": flush.took_us}))
                .collect::<Value>(),
            "groups": groups,
        })
    }

    async fn status_of(&self, peers: &Arc<dyn Link>, node: NodeId) -> Option<Value> {
        if node == peers.me() {
            return Some(self.own_status());
        }
        let call = peers.call(node, Lane::Control, NODE_STATUS, Message::default(), ASK_TIMEOUT);
        serde_json::from_slice(&call.await.ok()?.head).ok()
    }
}

#[async_trait]
impl PeerHandler for NodeAdmin {
    async fn handle(
        &self,
        _from: NodeId,
        method: u16,
        _request: Message,
    ) -> Result<Message, String> {
        match method {
            NODE_STATUS => Ok(Message::head(self.own_status().to_string())),
            _ => Err(format!("unknown method {method}")),
        }
    }
}

/// Joins what every node says of every group: leader and term as the latest term has them,
/// applied index by node.
fn join_groups(nodes: &BTreeMap<NodeId, Option<Value>>) -> Vec<Value> {
    let mut order: Vec<String> = Vec::new();
    let mut joined: BTreeMap<String, Value> = BTreeMap::new();
    for (node, status) in nodes {
        let groups = status.as_ref().and_then(|s| s["groups"].as_array());
        for group in groups.into_iter().flatten() {
            let Some(id) = group["group"].as_str() else { continue };
            let entry = joined.entry(id.to_owned()).or_insert_with(|| {
                order.push(id.to_owned());
                json!({"id": id, "leader": null, "term": 0, "applied": {}, "lag": {}})
            });
            if group["term"].as_u64() >= entry["term"].as_u64() && !group["leader"].is_null() {
                entry["leader"] = group["leader"].clone();
                entry["term"] = group["term"].clone();
            }
            entry["applied"][node.to_string()] = group["applied"].clone();
            if group["role"] == "leader" {
                entry["lag"] = group["lag"].clone();
            }
        }
    }
    order.into_iter().filter_map(|id| joined.remove(&id)).collect()
}

fn log_error(error: &log::LogError) -> AdminError {
    use log::LogError;
    match error {
        LogError::UnknownTopicOrPartition => AdminError::not_found(error),
        LogError::TopicExists(_) => AdminError { status: 409, message: error.to_string() },
        LogError::NotLeader { .. } | LogError::Storage(_) => AdminError::unavailable(error),
        _ => AdminError::bad_request(error),
    }
}

#[async_trait]
impl Admin for NodeAdmin {
    fn not_ready(&self) -> Option<String> {
        if !self.cluster.is_ready() {
            let lacking = self.cluster.status().into_iter().filter(|g| g.leader.is_none());
            let names: Vec<String> = lacking.map(|g| g.group).collect();
            return Some(match names.is_empty() {
                true => "this node does not vote in every group yet".to_owned(),
                false => format!("no leader in {}", names.join(", ")),
            });
        }
        let missing = self.gateways.missing();
        if !missing.is_empty() {
            return Some(format!("not serving yet: {}", missing.join(", ")));
        }
        let moving = !self.cluster.has_balanced();
        moving.then(|| "leaders are being spread over the nodes".to_owned())
    }

    fn metrics(&self) -> String {
        crate::metrics::render(self)
    }

    async fn status(&self) -> Answer {
        let peers = self.cluster.peers();
        let asked = peers.all().into_iter().map(|node| {
            let peers = peers.clone();
            async move { (node, self.status_of(&peers, node).await) }
        });
        let told: BTreeMap<_, _> = futures::future::join_all(asked).await.into_iter().collect();
        let nodes: Vec<Value> = told
            .iter()
            .map(|(node, status)| {
                let console =
                    self.registry.get(*node).map(|a| format!("{}:{}", a.console.0, a.console.1));
                let mut value = json!({"id": node, "alive": status.is_some(), "console": console});
                if let Some(status) = status {
                    value["ready"] = status["ready"].clone();
                    value["not_ready"] = status["not_ready"].clone();
                    value["disk"] = status["disk"].clone();
                }
                value
            })
            .collect();
        Ok(json!({
            "cluster": self.config.cluster,
            "cluster_id": self.cluster.cluster_id(),
            "nodes": nodes,
            "groups": join_groups(&told),
            "flow": self.services.flows().await,
        }))
    }

    async fn node_status(&self) -> Answer {
        Ok(self.own_status())
    }

    async fn digest(&self) -> Answer {
        let digests = self.cluster.digests().await.map_err(AdminError::unavailable)?;
        let groups =
            digests.into_iter().map(|(group, (_, crc))| (group, json!(format!("{crc:08x}"))));
        Ok(json!({"node": self.config.node_id, "groups": groups.collect::<Value>()}))
    }

    async fn lead(&self) -> Answer {
        self.cluster.lead_all().await.map_err(AdminError::unavailable)?;
        Ok(json!({"leader": self.config.node_id}))
    }

    async fn topics(&self) -> Answer {
        Ok(self.services.topics())
    }

    async fn topic(&self, name: &str) -> Answer {
        self.services.topic(name).map_err(|e| log_error(&e))
    }

    async fn create_topic(&self, spec: Value) -> Answer {
        let name =
            spec["name"].as_str().ok_or_else(|| AdminError::bad_request("name is missing"))?;
        let partitions = spec["partitions"].as_i64();
        let partitions = partitions.unwrap_or_else(|| self.config.log.default_partitions.into());
        let replication = spec["replication_factor"].as_i64().unwrap_or(-1);
        self.services.create_topic(name, partitions, replication).await.map_err(|e| log_error(&e))
    }

    async fn delete_topic(&self, name: &str) -> Answer {
        self.services
            .log
            .delete_topic(log::TopicRef::Name(name))
            .await
            .map_err(|e| log_error(&e))?;
        Ok(json!({"deleted": name}))
    }

    async fn users(&self) -> Answer {
        crate::users::list(&self.services.security).await
    }

    async fn put_user(&self, spec: Value) -> Answer {
        crate::users::put(&self.services.security, &spec).await
    }

    async fn delete_user(&self, name: &str) -> Answer {
        crate::users::delete(&self.services.security, name).await
    }

    async fn flows(&self, _kind: Kind) -> Answer {
        Ok(self.services.flows().await)
    }

    async fn apply_flow(&self, kind: Kind, spec: Value) -> Answer {
        match kind {
            Kind::Source => self.services.apply_source(spec).await,
            Kind::Pipeline => self.services.apply_flow(spec).await,
        }
    }

    async fn quarantine(&self, name: &str) -> Answer {
        self.services.quarantine(name)
    }

    async fn delete_flow(&self, kind: Kind, name: &str) -> Answer {
        if kind == Kind::Source {
            let text = "a source goes with its pipeline: DELETE /api/pipelines/NAME";
            return Err(AdminError::bad_request(text));
        }
        self.services.delete_flow(name).await
    }

    async fn act_on_flow(&self, kind: Kind, name: &str, verb: Verb) -> Answer {
        self.services.act_on_flow(kind, name, verb).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_joined_by_the_latest_term() {
        let node = |leader: Option<u16>, term: u64, applied: u64, role: &str| {
            Some(json!({"groups": [{"group": "d0", "leader": leader, "term": term,
                "applied": applied, "role": role, "lag": {"2": 5}}]}))
        };
        let nodes = BTreeMap::from([
            (NodeId(1), node(Some(1), 3, 10, "follower")),
            (NodeId(2), node(Some(2), 4, 12, "leader")),
            (NodeId(3), None),
        ]);
        let expected = json!([{"id": "d0", "leader": 2, "term": 4,
            "applied": {"1": 10, "2": 12}, "lag": {"2": 5}}]);
        assert_eq!(json!(join_groups(&nodes)), expected);
    }
}

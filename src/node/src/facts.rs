//! What Elasticsearch clients are told about the nodes.

use std::sync::Arc;

use base::NodeId;
use consensus::Cluster;
use elastic::{ClusterFacts, NodeFacts};

use crate::config::{HostPort, Peer};
use crate::registry::Registry;

/// The cluster's facts as this node knows them.
pub(crate) struct Facts {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) registry: Registry,
    pub(crate) peers: Vec<Peer>,
}

impl ClusterFacts for Facts {
    fn cluster_uuid(&self) -> [u8; 16] {
        self.cluster.peers().identity().cluster
    }

    fn node(&self, node: NodeId) -> NodeFacts {
        let (host, port) = self.registry.get(node).map(|a| a.elastic).unwrap_or_default();
        let http = HostPort { host: host.clone(), port };
        let peer = self.peers.iter().find(|p| p.id == node);
        let transport = peer.map(|p| HostPort { host: p.host.clone(), port: p.raft_port });
        let peers = self.cluster.peers();
        let own = node == peers.me();
        NodeFacts {
            name: format!("trine-{node}"),
            host,
            http_address: http.to_string(),
            transport_address: transport.map(|t| t.to_string()).unwrap_or_default(),
            alive: peers.is_alive(node),
            rss_bytes: own.then(own_memory).flatten(),
            memory_bytes: own.then(|| meminfo("MemTotal:")).flatten(),
            load: own.then(load).flatten(),
        }
    }
}

/// The value of a `name: value kB` line, in bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

fn own_memory() -> Option<u64> {
    field(&std::fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

fn meminfo(name: &str) -> Option<u64> {
    field(&std::fs::read_to_string("/proc/meminfo").ok()?, name)
}

fn load() -> Option<[f64; 3]> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    let mut figures = text.split_whitespace().map(|word| word.parse::<f64>().ok());
    Some([figures.next()??, figures.next()??, figures.next()??])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_figures_are_read() {
        assert_eq!(field("VmPeak: 9 kB\nVmRSS:\t  12 kB\n", "VmRSS:"), Some(12 * 1024));
        assert_eq!(field("nothing", "VmRSS:"), None);
        assert!(own_memory().is_some_and(|bytes| bytes > 0));
    }
}

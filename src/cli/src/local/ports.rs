//! Which ports the three nodes of a local cluster use.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::{fs, io};

use anyhow::{Context, bail};
use rand::Rng;

use crate::Usage;

/// The ports of a node by name, in the order of `--port-base`, and the standard number.
pub const PORTS: [(&str, u16); 8] = [
    ("kafka", 9092),
    ("webhdfs", 9870),
    ("datanode_http", 9864),
    ("elastic", 9200),
    ("console", 5600),
    ("raft", 7400),
    ("bulk", 7401),
    ("kafka_tls", 9093),
];

/// Number of nodes.
pub const NODES: u16 = node::config::NODES;

/// How many ports a cluster takes.
const COUNT: u16 = NODES * PORTS.len() as u16;

/// Free ports are sought here: below the range from which the system takes ports of outgoing
/// connections, so that a stopped node finds its port free when it comes back.
const FREE_RANGE: std::ops::Range<u16> = 15_000..30_000;

/// Node number to port name to port.
pub type PortMap = BTreeMap<u16, BTreeMap<String, u16>>;

/// What `--port-base` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortPlan {
    /// Node 1 on the standard ports, the others 10000 and 20000 above.
    Standard,
    /// Consecutive ports from here.
    Base(u16),
    /// Any; kept in the directory, so that a cluster stays where it was.
    Free,
}

impl PortPlan {
    /// Reads `--port-base`.
    pub fn parse(text: Option<&str>) -> anyhow::Result<Self> {
        match text {
            None => Ok(Self::Standard),
            Some("free") => Ok(Self::Free),
            Some(text) => match text.parse::<u16>() {
                Ok(base) if base > 0 && base <= u16::MAX - COUNT => Ok(Self::Base(base)),
                _ => bail!(Usage(format!(
                    "--port-base must be \"free\" or a number from 1 to {}, not \"{text}\"",
                    u16::MAX - COUNT
                ))),
            },
        }
    }

    /// Chooses the ports and makes sure that nobody has them.
    pub fn choose(self, dir: &Path) -> anyhow::Result<PortMap> {
        let file = dir.join("ports.json");
        let ports = match self {
            Self::Standard => map(|node, at| standard(at).saturating_add((node - 1) * 10_000)),
            Self::Base(base) => map(|node, at| base + (node - 1) * PORTS.len() as u16 + at as u16),
            Self::Free => match fs::read(&file) {
                Ok(bytes) => serde_json::from_slice(&bytes)
                    .with_context(|| format!("{} is damaged", file.display()))?,
                Err(e) if e.kind() == io::ErrorKind::NotFound => free()?,
                Err(e) => return Err(e).with_context(|| file.display().to_string()),
            },
        };
        for (node, ports) in &ports {
            for (name, port) in ports {
                if let Err(e) = TcpListener::bind(address(*port)) {
                    let text = format!("port {port} ({name} of node {node}) is taken: {e}");
                    bail!(Usage(text + "; choose others with --port-base N or --port-base free"));
                }
            }
        }
        fs::write(&file, serde_json::to_vec(&ports)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
        Ok(ports)
    }
}

/// The loopback address of a port.
pub fn address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn standard(at: usize) -> u16 {
    PORTS.get(at).map_or(0, |p| p.1)
}

fn map(mut port: impl FnMut(u16, usize) -> u16) -> PortMap {
    let mut nodes = PortMap::new();
    for node in 1..=NODES {
        let names = PORTS.iter().enumerate();
        nodes.insert(node, names.map(|(at, p)| (p.0.to_owned(), port(node, at))).collect());
    }
    nodes
}

/// Holds each port found until all are, so that none is found twice.
fn free() -> anyhow::Result<PortMap> {
    let mut held = Vec::new();
    let mut random = rand::rng();
    for _ in 0..10_000 {
        if held.len() == usize::from(COUNT) {
            break;
        }
        if let Ok(listener) = TcpListener::bind(address(random.random_range(FREE_RANGE))) {
            held.push(listener);
        }
    }
    let ports: Result<Vec<u16>, _> =
        held.iter().map(|l| l.local_addr().map(|a| a.port())).collect();
    let mut ports = ports?.into_iter();
    if ports.len() < usize::from(COUNT) {
        bail!("found only {} free ports of {COUNT}", ports.len());
    }
    Ok(map(|_, _| ports.next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_two_and_three_stand_ten_thousand_above() {
        let ports = map(|node, at| standard(at).saturating_add((node - 1) * 10_000));
        assert_eq!(ports[&1]["kafka"], 9092);
        assert_eq!(ports[&2]["datanode_http"], 19864);
        assert_eq!(ports[&3]["bulk"], 27401);
    }

    #[test]
    fn free_ports_differ_and_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let ports = PortPlan::Free.choose(dir.path()).unwrap();
        let all: std::collections::BTreeSet<u16> =
            ports.values().flat_map(|p| p.values().copied()).collect();
        assert_eq!(all.len(), 24);
        assert_eq!(PortPlan::Free.choose(dir.path()).unwrap(), ports);
    }

    #[test]
    fn a_taken_port_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let ports = PortPlan::Free.choose(dir.path()).unwrap();
        let _taken = TcpListener::bind(address(ports[&2]["elastic"])).unwrap();
        let error = PortPlan::Free.choose(dir.path()).unwrap_err();
        assert!(error.is::<Usage>());
        let start = format!("port {} (elastic of node 2) is taken", ports[&2]["elastic"]);
        assert!(error.to_string().starts_with(&start), "{error}");
    }

    #[test]
    fn port_base_is_checked() {
        assert_eq!(PortPlan::parse(None).unwrap(), PortPlan::Standard);
        assert_eq!(PortPlan::parse(Some("20000")).unwrap(), PortPlan::Base(20_000));
        for bad in ["0", "65530", "x", "-1"] {
            assert!(PortPlan::parse(Some(bad)).is_err(), "{bad}");
        }
    }
}

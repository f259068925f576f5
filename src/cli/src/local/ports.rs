//! Which ports the three nodes of a local cluster use.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::{fs, io};

use anyhow::{Context, bail};
use rand::Rng;

use crate::Usage;

/// The ports that a node may have by name, in the order of `--port-base`, and the standard number.
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

/// The port of Kafka's second listener, which is off unless a configuration says otherwise.
const KAFKA_TLS: &str = "kafka_tls";
/// The key that switches this listener on, and the variable that overrides it.
const TLS_KEY: &str = "kafka.tls_listener";
const TLS_VARIABLE: &str = "TRINE_KAFKA_TLS_LISTENER";

/// How many ports a cluster takes at most; `--port-base` keeps the place of those it lacks.
const COUNT: u16 = NODES * PORTS.len() as u16;

/// Free ports are sought here: below the range from which the system takes ports of outgoing
/// connections, so that a stopped node finds its port free when it comes back.
const FREE_RANGE: std::ops::Range<u16> = 15_000..30_000;

/// Node number to port name to port.
pub type PortMap = BTreeMap<u16, BTreeMap<String, u16>>;

/// The names of the ports that nodes with these settings have, in the order of [`PORTS`].
pub fn names(sets: &[String]) -> Vec<&'static str> {
    let tls = has_tls_listener(sets, std::env::var(TLS_VARIABLE).ok().as_deref());
    PORTS.iter().map(|port| port.0).filter(|name| tls || *name != KAFKA_TLS).collect()
}

/// Whether the nodes open the second listener. Settings are written to their files, so the
/// environment, which they inherit, has the last word.
fn has_tls_listener(sets: &[String], variable: Option<&str>) -> bool {
    let given = sets.iter().rev().filter_map(|set| set.split_once('='));
    let given = given.map(|(key, value)| (key.trim(), value.trim())).find(|g| g.0 == TLS_KEY);
    variable.or(given.map(|g| g.1)).is_some_and(|value| value != "off")
}

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

    /// Chooses the ports of these names and makes sure that nobody has them.
    pub fn choose(self, dir: &Path, names: &[&str]) -> anyhow::Result<PortMap> {
        let file = dir.join("ports.json");
        let ports = match self {
            Self::Standard => standard_ports(names),
            Self::Base(base) => {
                map(names, |node, at| base + (node - 1) * PORTS.len() as u16 + at as u16)
            }
            Self::Free => free(names, &kept(&file)?)?,
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

/// The ports that nodes have by default, whoever may have them.
pub fn standard_ports(names: &[&str]) -> PortMap {
    map(names, |node, at| standard(at).saturating_add((node - 1) * 10_000))
}

/// The loopback address of a port.
pub fn address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn standard(at: usize) -> u16 {
    PORTS.get(at).map_or(0, |p| p.1)
}

fn map(names: &[&str], mut port: impl FnMut(u16, usize) -> u16) -> PortMap {
    let mut nodes = PortMap::new();
    for node in 1..=NODES {
        let named = PORTS.iter().enumerate().filter(|(_, p)| names.contains(&p.0));
        nodes.insert(node, named.map(|(at, p)| (p.0.to_owned(), port(node, at))).collect());
    }
    nodes
}

/// The ports that the cluster had before; none for a new one.
fn kept(file: &Path) -> anyhow::Result<PortMap> {
    match fs::read(file) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", file.display()))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(PortMap::new()),
        Err(e) => Err(e).with_context(|| file.display().to_string()),
    }
}

/// The ports of `kept`, and free ones for what it lacks.
fn free(names: &[&str], kept: &PortMap) -> anyhow::Result<PortMap> {
    let had = |node: u16, at: usize| kept.get(&node)?.get(PORTS.get(at)?.0).copied();
    let mut ports = map(names, |node, at| had(node, at).unwrap_or_default());
    let lacking = ports.values().flat_map(BTreeMap::values).filter(|port| **port == 0).count();
    let mut found = seek(lacking, &ports)?.into_iter();
    for port in ports.values_mut().flat_map(BTreeMap::values_mut).filter(|port| **port == 0) {
        *port = found.next().unwrap_or_default();
    }
    Ok(ports)
}

/// Holds each port found until all are, so that none is found twice.
fn seek(count: usize, taken: &PortMap) -> anyhow::Result<Vec<u16>> {
    let mut held = Vec::new();
    let mut random = rand::rng();
    for _ in 0..10_000 {
        if held.len() == count {
            break;
        }
        let port = random.random_range(FREE_RANGE);
        // The ports of a cluster that is stopped are free, too.
        let ours = taken.values().any(|ports| ports.values().any(|p| *p == port));
        if !ours && let Ok(listener) = TcpListener::bind(address(port)) {
            held.push(listener);
        }
    }
    if held.len() < count {
        bail!("found only {} free ports of {count}", held.len());
    }
    let ports: io::Result<Vec<u16>> =
        held.iter().map(|l| l.local_addr().map(|a| a.port())).collect();
    Ok(ports?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Vec<&'static str> {
        PORTS.map(|port| port.0).into_iter().filter(|name| *name != KAFKA_TLS).collect()
    }

    fn numbers(ports: &PortMap) -> std::collections::BTreeSet<u16> {
        ports.values().flat_map(|p| p.values().copied()).collect()
    }

    #[test]
    fn node_two_and_three_stand_ten_thousand_above() {
        let ports = map(&plain(), |node, at| standard(at).saturating_add((node - 1) * 10_000));
        assert_eq!(ports[&1]["kafka"], 9092);
        assert_eq!(ports[&2]["datanode_http"], 19864);
        assert_eq!(ports[&3]["bulk"], 27401);
    }

    #[test]
    fn only_a_listener_that_is_on_has_a_port() {
        let on = |sets: &[&str], variable| {
            let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
            has_tls_listener(&sets, variable)
        };
        assert!(!on(&[], None) && !on(&["kafka.tls_listener=off", "wal.sync=always"], None));
        assert!(on(&["wal.sync=always", " kafka.tls_listener = ssl "], None));
        assert!(on(&["kafka.tls_listener=off"], Some("sasl_ssl")));
        assert!(!on(&["kafka.tls_listener=ssl"], Some("off")));
        assert!(map(&plain(), |_, _| 1).values().all(|ports| !ports.contains_key(KAFKA_TLS)));
    }

    #[test]
    fn free_ports_differ_and_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let ports = PortPlan::Free.choose(dir.path(), &plain()).unwrap();
        assert_eq!(numbers(&ports).len(), 21);
        assert_eq!(PortPlan::Free.choose(dir.path(), &plain()).unwrap(), ports);
    }

    #[test]
    fn a_listener_that_is_switched_on_gets_ports_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let before = PortPlan::Free.choose(dir.path(), &plain()).unwrap();
        let names = PORTS.map(|port| port.0);
        let mut ports = PortPlan::Free.choose(dir.path(), &names).unwrap();
        assert_eq!(numbers(&ports).len(), 24);
        for ports in ports.values_mut() {
            ports.remove(KAFKA_TLS);
        }
        assert_eq!(ports, before);
        assert_eq!(PortPlan::Free.choose(dir.path(), &plain()).unwrap(), before);
    }

    #[test]
    fn a_taken_port_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let ports = PortPlan::Free.choose(dir.path(), &plain()).unwrap();
        let _taken = TcpListener::bind(address(ports[&2]["elastic"])).unwrap();
        let error = PortPlan::Free.choose(dir.path(), &plain()).unwrap_err();
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

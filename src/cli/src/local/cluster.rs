//! Three node processes of this same binary on loopback.
//!
//! Layout of the directory: `lock` (held while the cluster runs), `ports.json`, and per node
//! `nodeN/` with `node.toml`, `data/`, `log` and `pid`. `trine node --config nodeN/node.toml`
//! starts one node by hand.
//!
//! Dropping a [`Cluster`] kills what still runs.

use std::fs::{self, File, OpenOptions};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use base::Clock;
use base::env::RealClock;
use node::config::{self, Config, Sources};
use rustix::process::{Pid, Signal, kill_process};

use crate::Usage;
use crate::args::ClusterArgs;
use crate::http::Http;
use crate::local::ports::{self, NODES, PORTS, PortMap, PortPlan, address};
use crate::signals::Stop;

/// How long a node may take to stop before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// Pause between looks at processes and ports.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// Log lines shown of a node that ended by itself.
const SHOWN_LOG_LINES: usize = 12;
/// Keys that the cluster itself sets.
const OWN_KEYS: [&str; 3] = ["node_id", "data_dir", "listen."];

/// One node process.
#[derive(Debug)]
struct Node {
    id: u16,
    dir: PathBuf,
    child: Child,
    ended: Option<ExitStatus>,
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    /// Ports by node and name.
    pub ports: PortMap,
    nodes: Vec<Node>,
    clock: RealClock,
    _lock: File,
}

/// A node that ended by itself.
#[derive(Debug)]
pub struct Ended {
    /// How it ended and its last log lines.
    pub text: String,
}

impl Cluster {
    /// Chooses ports, writes the configurations and starts the nodes. Call from the main
    /// thread: a child ends when the thread that started it ends.
    pub fn start(dir: &Path, args: &ClusterArgs) -> anyhow::Result<Self> {
        let plan = PortPlan::parse(args.port_base.as_deref())?;
        check_sets(&args.sets)?;
        let shown = dir.display();
        fs::create_dir_all(dir).with_context(|| format!("cannot make {shown}"))?;
        let dir = dir.canonicalize().with_context(|| format!("cannot open {shown}"))?;
        let lock = lock(&dir)?;
        let names = ports::names(&args.sets);
        // A wrong word is told before a port that is taken.
        node_toml(1, &dir, &ports::standard_ports(&names), &args.sets)?;
        let ports = plan.choose(&dir, &names)?;
        let mut texts = Vec::new();
        for id in 1..=NODES {
            texts.push((id, node_toml(id, &dir, &ports, &args.sets)?));
        }
        let mut cluster = Self { ports, nodes: Vec::new(), clock: RealClock::new(), _lock: lock };
        for (id, text) in texts {
            let node_dir = node_dir(&dir, id);
            fs::create_dir_all(&node_dir)?;
            fs::write(node_dir.join("node.toml"), text)?;
            let child = spawn(&node_dir)?;
            fs::write(node_dir.join("pid"), format!("{}\n", child.id()))?;
            cluster.nodes.push(Node { id, dir: node_dir, child, ended: None });
        }
        Ok(cluster)
    }

    /// Names of the ports that each node has, in the order of `--port-base`.
    pub fn port_names(&self) -> Vec<&'static str> {
        let has = |name: &str| self.ports.values().all(|ports| ports.contains_key(name));
        PORTS.iter().map(|port| port.0).filter(|name| has(name)).collect()
    }

    /// The loopback address of a port of a node.
    pub fn address(&self, node: u16, port: &str) -> String {
        let number = self.ports.get(&node).and_then(|p| p.get(port)).copied().unwrap_or_default();
        address(number).to_string()
    }

    /// The addresses of a port on all nodes.
    pub fn addresses(&self, port: &str) -> Vec<String> {
        (1..=NODES).map(|node| self.address(node, port)).collect()
    }

    /// Process ids of the nodes.
    pub fn pids(&self) -> Vec<u32> {
        self.nodes.iter().map(|n| n.child.id()).collect()
    }

    /// Kills a node, as a crash would, and waits for its end.
    pub fn kill(&mut self, id: u16) -> anyhow::Result<()> {
        self.end(id, Signal::KILL)
    }

    /// Stops a node politely and waits for its end.
    pub fn stop_node(&mut self, id: u16) -> anyhow::Result<()> {
        self.end(id, Signal::TERM)
    }

    fn end(&mut self, id: u16, how: Signal) -> anyhow::Result<()> {
        let node = self.nodes.iter_mut().find(|n| n.id == id).context("no such node")?;
        signal(&node.child, how);
        node.ended = Some(node.child.wait()?);
        Ok(())
    }

    /// Starts a node again that has ended.
    pub fn start_again(&mut self, id: u16) -> anyhow::Result<()> {
        let node = self.nodes.iter_mut().find(|n| n.id == id).context("no such node")?;
        if node.ended.is_none() {
            bail!("node {id} runs");
        }
        node.child = spawn(&node.dir)?;
        node.ended = None;
        fs::write(node.dir.join("pid"), format!("{}\n", node.child.id()))?;
        Ok(())
    }

    /// Data directories of the nodes.
    pub fn data_dirs(&self) -> Vec<PathBuf> {
        self.nodes.iter().map(|n| n.dir.join("data")).collect()
    }

    /// The node that has this address as one of its ports.
    pub fn node_at(&self, address: &str) -> Option<u16> {
        let has = |id: &u16| {
            self.ports.get(id).is_some_and(|ports| {
                ports.values().any(|port| self::address(*port).to_string() == address)
            })
        };
        (1..=NODES).find(has)
    }

    /// Nodes that ended since the last look.
    pub fn poll(&mut self) -> Vec<Ended> {
        let mut ended = Vec::new();
        for node in self.nodes.iter_mut().filter(|n| n.ended.is_none()) {
            if let Ok(Some(status)) = node.child.try_wait() {
                node.ended = Some(status);
                ended.push(Ended { text: obituary(node, status) });
            }
        }
        ended
    }

    /// Whether a node process that this cluster started still runs.
    pub fn any_alive(&self) -> bool {
        self.nodes.iter().any(|n| n.ended.is_none())
    }

    /// Waits until every gateway of every node serves; returns how long that took. `None` when
    /// the user asked to stop meanwhile. Fails when a node ends or the deadline passes.
    pub fn wait_ready(
        &mut self,
        stop: &Stop,
        deadline: Duration,
    ) -> anyhow::Result<Option<Duration>> {
        let http = Http::new(Duration::from_secs(1));
        let consoles = self.addresses("console");
        loop {
            if let Some(ended) = self.poll().first() {
                bail!("{}", ended.text);
            }
            let waits: Vec<String> = consoles
                .iter()
                .filter_map(|c| match http.get(&format!("http://{c}/readyz")) {
                    Ok(answer) if answer.status == 200 => None,
                    Ok(answer) => Some(format!("{c}: {}", answer.text())),
                    Err(e) => Some(format!("{e:#}")),
                })
                .collect();
            let passed = self.clock.monotonic();
            if waits.is_empty() {
                return Ok(Some(passed));
            }
            if passed > deadline {
                bail!("not ready after {} s: {}", deadline.as_secs(), waits.join("; "));
            }
            if stop.sleep(LOOK_PAUSE) {
                return Ok(None);
            }
        }
    }

    /// Stops every node that still runs, politely first.
    pub fn stop(&mut self) {
        self.poll();
        for node in self.nodes.iter().filter(|n| n.ended.is_none()) {
            signal(&node.child, Signal::TERM);
        }
        let deadline = self.clock.monotonic() + STOP_PATIENCE;
        while self.any_alive() && self.clock.monotonic() < deadline {
            std::thread::sleep(LOOK_PAUSE);
            self.poll();
        }
        for node in self.nodes.iter_mut().filter(|n| n.ended.is_none()) {
            signal(&node.child, Signal::KILL);
            node.ended = node.child.wait().ok();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in self.nodes.iter_mut().filter(|n| n.ended.is_none()) {
            signal(&node.child, Signal::KILL);
            // Nobody is left to tell; the process is gone either way.
            let _ = node.child.wait();
        }
    }
}

/// Directory of a node.
pub fn node_dir(dir: &Path, id: u16) -> PathBuf {
    dir.join(format!("node{id}"))
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It fails only when the child has just ended, which is what is wanted.
        let _ = kill_process(pid, signal);
    }
}

fn check_sets(sets: &[String]) -> anyhow::Result<()> {
    for set in sets {
        let own = OWN_KEYS.iter().any(|k| set.starts_with(k) || set.starts_with("advertise."));
        if own {
            bail!(Usage(format!("--set {set}: a local cluster sets this itself")));
        }
    }
    Ok(())
}

/// One cluster per directory at a time.
fn lock(dir: &Path) -> anyhow::Result<File> {
    let path = dir.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(e) => bail!(Usage(format!("{} is in use by another cluster: {e}", dir.display()))),
    }
}

/// The configuration of a node, checked.
fn node_toml(id: u16, dir: &Path, ports: &PortMap, sets: &[String]) -> anyhow::Result<String> {
    let data = node_dir(dir, id).join("data");
    let data = data.to_str().context("the directory's path must be UTF-8")?.to_owned();
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let mut text = format!("# Written by trine local at each start.\nnode_id = {id}\n");
    text += &format!("data_dir = {}\n", quoted(&data));
    let mut sections: std::collections::BTreeMap<&str, String> = Default::default();
    for set in sets {
        let Some((key, value)) = set.split_once('=') else { continue };
        let (key, value) = (key.trim(), value.trim());
        let Some(value) = config::literal(key, value) else { continue };
        match key.split_once('.') {
            Some((section, key)) => {
                *sections.entry(section).or_default() += &format!("{key} = {value}\n")
            }
            None => text += &format!("{key} = {value}\n"),
        }
    }
    let node_ports = ports.get(&id).context("every node has ports")?;
    text += "\n[listen]\n";
    for (name, port) in node_ports {
        text += &format!("{name} = \"{}\"\n", address(*port));
    }
    for (section, lines) in sections {
        text += &format!("\n[{section}]\n{lines}");
    }
    for (id, ports) in ports {
        let port = |name: &str| ports.get(name).copied().unwrap_or_default();
        text += &format!("\n[[peers]]\nid = {id}\nhost = \"127.0.0.1\"\n");
        text += &format!("raft_port = {}\nbulk_port = {}\n", port("raft"), port("bulk"));
    }
    // The words are parsed too: what `literal` could not place is named as the user wrote it.
    let sources = Sources { file: "node.toml", text: &text, env: &[], sets };
    Config::parse(&sources).map_err(|e| Usage(e.to_string()))?;
    Ok(text)
}

fn spawn(node_dir: &Path) -> anyhow::Result<Child> {
    let path = node_dir.join("log");
    let log = OpenOptions::new().create(true).append(true).open(&path);
    let log = log.with_context(|| format!("cannot write {}", path.display()))?;
    let binary = std::env::current_exe().context("cannot find this program's file")?;
    Command::new(binary)
        .arg("node")
        .arg("--config")
        .arg(node_dir.join("node.toml"))
        .args(["--parent-pid", &std::process::id().to_string()])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Its own group: Ctrl-C reaches only the parent, which then stops the nodes in order.
        .process_group(0)
        .spawn()
        .context("cannot start a node process")
}

fn obituary(node: &Node, status: ExitStatus) -> String {
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("with exit code {code}"),
        (None, Some(signal)) => format!("by signal {signal}"),
        (None, None) => "in an unknown way".to_owned(),
    };
    let log = node.dir.join("log");
    let lines = tail(&log, SHOWN_LOG_LINES);
    format!("node {} ended {how}; the end of {}:\n{lines}", node.id, log.display())
}

/// The last lines of a file that may be large.
fn tail(path: &Path, count: usize) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(16 << 10)))?;
        let mut bytes = Vec::new();
        file.take(16 << 10).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(count);
    lines.iter().skip(from).map(|line| format!("  {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports() -> PortMap {
        let dir = tempfile::tempdir().unwrap();
        PortPlan::Free.choose(dir.path(), &ports::names(&[])).unwrap()
    }

    #[test]
    fn written_configuration_is_valid_and_holds_the_words() {
        let dir = tempfile::tempdir().unwrap();
        let sets = ["wal.sync=interval", "log.default_partitions=5", "cluster=5"];
        let sets: Vec<String> = sets.map(ToOwned::to_owned).into();
        let text = node_toml(2, dir.path(), &ports(), &sets).unwrap();
        let sources = Sources { file: "x", text: &text, env: &[], sets: &[] };
        let config = Config::parse(&sources).unwrap();
        assert_eq!(config.wal.sync, config::WalSync::Interval);
        assert_eq!(config.log.default_partitions, 5);
        assert_eq!(config.cluster, "5");
        assert_eq!(config.data_dir, dir.path().join("node2/data"));
    }

    #[test]
    fn bad_words_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let sets = ["wal.snyc=always".to_owned()];
        let error = node_toml(1, dir.path(), &ports(), &sets).unwrap_err();
        assert!(error.to_string().contains("did you mean \"wal.sync\"?"), "{error}");
        assert!(check_sets(&["listen.kafka=127.0.0.1:1".to_owned()]).is_err());
    }

    #[test]
    fn a_directory_is_used_once() {
        let dir = tempfile::tempdir().unwrap();
        let _held = lock(dir.path()).unwrap();
        assert!(lock(dir.path()).unwrap_err().is::<Usage>());
    }

    #[test]
    fn tail_shows_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "a\nb\nc\n").unwrap();
        assert_eq!(tail(&path, 2), "  b\n  c\n");
        assert_eq!(tail(&dir.path().join("none"), 2), "");
    }
}

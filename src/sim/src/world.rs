//! One simulation from beginning to end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::env::life_disk::LifeDisk;
use base::env::sim_disk::Crash;
use base::env::{Random, SeededRandom};
use base::{GroupId, NodeId, TaskGroup};
use consensus::net::sim_net::{SimNet, Weather};
use consensus::tags;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::history::{Counts, History, Sending};
use crate::node::{DATA_GROUPS, EPOCH_MS, Hardware, Life};
use crate::{compacted, faults, groups, list, marks, topic, txn};

/// Time with faults.
const FAULTS: Duration = Duration::from_secs(25);
/// Time for a whole network of running nodes to become ready, or to answer.
const PATIENCE: Duration = Duration::from_secs(60);
const BOOT_PATIENCE: Duration = Duration::from_secs(60);
const LIST_CLIENTS: u64 = 3;
const PRODUCERS: u64 = 4;
const CONSUMERS: u64 = 2;
const TXN_READERS: u64 = 2;
/// Members of each consumer group.
const MEMBERS: u64 = 3;

/// A simulated cluster and its clients.
pub struct World {
    /// What everything is drawn from.
    pub seed: u64,
    /// The network.
    pub net: Arc<SimNet>,
    /// What clients saw.
    pub history: Mutex<History>,
    /// What transactional clients did and saw.
    pub txns: Mutex<txn::Record>,
    /// What the compacted topic must hold.
    pub compacted: Mutex<compacted::Written>,
    /// What members of consumer groups did and saw.
    pub groups: Mutex<groups::Record>,
    /// What a group's offset and a log's start must be.
    pub marks: Mutex<marks::Marks>,
    /// Records left in the compacted topic, of so many offsets.
    left: Mutex<(usize, i64)>,
    hardware: BTreeMap<NodeId, Hardware>,
    lives: Mutex<BTreeMap<NodeId, Arc<Life>>>,
    /// Nodes whose power is about to fail, or has failed.
    armed: Mutex<BTreeSet<NodeId>>,
    quiet: AtomicBool,
    calm: AtomicBool,
    grouped: AtomicBool,
    drivers: TaskGroup,
    trace: Mutex<Vec<String>>,
    crashes: Mutex<usize>,
    begun: Instant,
}

/// What a simulation that found nothing wrong did.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Appends and reads.
    pub counts: Counts,
    /// Nodes crashed.
    pub crashes: usize,
    /// Pairs of group and term that had a leader.
    pub terms: usize,
    /// Transactions that committed.
    pub committed: usize,
    /// Crashes of transaction coordinators, by what they were aimed at.
    pub aimed: [usize; txn::aim::AIMS],
    /// What consumer groups did.
    pub groups: groups::Counts,
    /// Acknowledged commits of offsets, and deletions of records.
    pub moves: (u64, u64),
    /// Records left in the compacted topic, of so many offsets.
    pub compacted: (usize, i64),
}

/// Runs the simulation of a seed. The error tells what was wrong and what had happened.
pub fn run(seed: u64) -> Result<Report, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .max_blocking_threads(2)
        .build()
        .map_err(|e| e.to_string())?;
    let result = runtime.block_on(async {
        let world = World::new(seed);
        let result = world.clone().live().await;
        world.drivers.stop();
        result.map_err(|what| world.explain(&what))
    });
    runtime.shutdown_background();
    result
}

impl World {
    fn new(seed: u64) -> Arc<Self> {
        let nodes: Vec<NodeId> = (1..=3).map(NodeId).collect();
        let hardware = nodes.iter().map(|n| (*n, Hardware::new(*n, seed))).collect();
        Arc::new(Self {
            seed,
            net: SimNet::new(seed, nodes),
            history: Mutex::default(),
            txns: Mutex::default(),
            compacted: Mutex::default(),
            groups: Mutex::default(),
            marks: Mutex::default(),
            left: Mutex::default(),
            hardware,
            lives: Mutex::default(),
            armed: Mutex::default(),
            quiet: AtomicBool::new(false),
            calm: AtomicBool::new(false),
            grouped: AtomicBool::new(false),
            drivers: TaskGroup::new(),
            trace: Mutex::default(),
            crashes: Mutex::default(),
            begun: Instant::now(),
        })
    }

    async fn live(self: Arc<Self>) -> Result<Report, String> {
        let random = SeededRandom::new(self.seed);
        for node in self.nodes() {
            self.start(node).await;
        }
        let clients = self.clone().start_clients();
        let watching = TaskGroup::new();
        watching.spawn("leaders", self.clone().watch_leaders());
        let aiming = SeededRandom::new(self.seed ^ 0xa1a1);
        let aimed = txn::aim::run(&self, &aiming, FAULTS);
        tokio::join!(faults::run(&self, &random, FAULTS), aimed);
        self.mend(&random).await;
        self.wait_until_ready().await?;
        self.calm.store(true, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(3)).await;
        self.quiet.store(true, Ordering::SeqCst);
        for (name, client) in clients {
            let ended = tokio::time::timeout(PATIENCE, client).await;
            let ended = ended.map_err(|_| format!("{name} waits for an answer for ever"))?;
            ended.map_err(|_| format!("{name} panicked"))?;
        }
        let lives: Vec<_> = self.lives.lock().values().cloned().collect();
        groups::check(&self, &lives).await?;
        txn::settle(&lives).await?;
        let equal = self.equal_digests().await;
        self.check_replicas().await?;
        equal?;
        watching.stop();
        self.reap(&random).await;
        let lives = self.up();
        self.crash(&lives, Crash::Process).await;
        let history = self.history.lock();
        if let Some(violation) = history.violation() {
            return Err(violation.to_owned());
        }
        let crashes = *self.crashes.lock() - lives.len();
        let (committed, aimed) = {
            let txns = self.txns.lock();
            (txns.committed(), txns.aimed)
        };
        Ok(Report {
            counts: history.counts(),
            crashes,
            terms: history.terms(),
            committed,
            aimed,
            groups: self.groups.lock().counts(),
            moves: self.marks.lock().moves,
            compacted: *self.left.lock(),
        })
    }

    /// Starts the clients; each ends a while after the world asks for quiet.
    fn start_clients(self: Arc<Self>) -> Vec<(&'static str, tokio::sync::oneshot::Receiver<()>)> {
        let mut ends = Vec::new();
        let mut run = |name, client: futures::future::BoxFuture<'static, ()>| {
            let (end, ended) = tokio::sync::oneshot::channel();
            ends.push((name, ended));
            self.drivers.spawn(name, async move {
                client.await;
                // Without a receiver the simulation is over.
                let _ = end.send(());
            });
        };
        run("topic creation", Box::pin(topic::create(self.clone())));
        run("topic creation", Box::pin(txn::create(self.clone())));
        for client in 1..=txn::CLIENTS {
            run("transactional client", Box::pin(txn::run_client(self.clone(), client)));
        }
        for client in 1..=TXN_READERS {
            run("committed reader", Box::pin(txn::run_reader(self.clone(), 300 + client)));
        }
        for client in 1..=LIST_CLIENTS {
            run("list client", Box::pin(list::run_client(self.clone(), client)));
        }
        for client in 1..=PRODUCERS {
            let sending = if client % 2 == 0 { Sending::Plain } else { Sending::Idempotent };
            let client = 100 + client;
            run("producer", Box::pin(topic::run_producer(self.clone(), client, sending)));
        }
        run("grouped topic", Box::pin(groups::prepare(self.clone())));
        for member in 1..=MEMBERS {
            let (classic, consumer) = (self.clone(), self.clone());
            run("classic member", Box::pin(groups::classic::run_member(classic, member)));
            run("consumer member", Box::pin(groups::consumer::run_member(consumer, member)));
        }
        run("compacted topic", Box::pin(compacted::run_writer(self.clone())));
        run("committed offset", Box::pin(marks::run_committer(self.clone())));
        run("trimmed log", Box::pin(marks::run_trimmer(self.clone())));
        for client in 1..=CONSUMERS {
            run("consumer", Box::pin(topic::run_consumer(self.clone(), 200 + client)));
        }
        ends
    }

    async fn watch_leaders(self: Arc<Self>) {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let lives: Vec<_> = self.lives.lock().values().cloned().collect();
            for life in lives {
                for group in life.cluster.groups().all() {
                    let now = group.leadership();
                    if now.ready_here {
                        self.history.lock().leads(group.id().0, now.term, life.node.0);
                    }
                }
            }
        }
    }

    /// Every node.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.hardware.keys().copied().collect()
    }

    /// Nodes that run.
    pub fn up(&self) -> Vec<NodeId> {
        self.lives.lock().keys().copied().collect()
    }

    /// Nodes that do not.
    pub fn down(&self) -> Vec<NodeId> {
        let up = self.up();
        self.nodes().into_iter().filter(|n| !up.contains(n)).collect()
    }

    /// A running node.
    pub fn life(&self, node: NodeId) -> Option<Arc<Life>> {
        self.lives.lock().get(&node).cloned()
    }

    /// Any node, if it runs.
    pub fn random_life(&self, random: &SeededRandom) -> Option<Arc<Life>> {
        let nodes = self.nodes();
        let number = usize::try_from(random.below(nodes.len() as u64)).unwrap_or(0);
        self.life(*nodes.get(number)?)
    }

    /// Wall time as a client has it, in milliseconds.
    pub fn now_ms(&self) -> i64 {
        EPOCH_MS + i64::try_from(self.begun.elapsed().as_millis()).unwrap_or(0)
    }

    /// Time since the beginning, in milliseconds.
    pub fn age_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether everything works again, and nobody loses an answer any more.
    pub fn is_calm(&self) -> bool {
        self.calm.load(Ordering::SeqCst)
    }

    /// Consumer groups may begin.
    pub fn open_groups(&self) {
        self.grouped.store(true, Ordering::SeqCst);
    }

    /// Whether they may.
    pub fn has_groups(&self) -> bool {
        self.grouped.load(Ordering::SeqCst)
    }

    /// Whether clients should end.
    pub fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::SeqCst)
    }

    /// Notes an event for the report of a failure.
    pub fn note(&self, what: String) {
        let at = self.begun.elapsed();
        self.trace.lock().push(format!("{:8.3} s  {what}", at.as_secs_f64()));
    }

    /// Lets the power of a node fail in the middle of a change of its disk to come.
    pub fn arm(&self, node: NodeId, steps: u64) {
        if let Some(hardware) = self.hardware.get(&node) {
            self.note(format!("node {node} loses power {steps} changes from now"));
            self.armed.lock().insert(node);
            hardware.disk.power_off_in(steps);
        }
    }

    fn is_armed(&self, node: NodeId) -> bool {
        self.armed.lock().contains(&node)
    }

    /// Crashes running nodes, all at the same moment.
    pub async fn crash(&self, nodes: &[NodeId], how: Crash) {
        self.note(format!("crash of {nodes:?}: {how:?}"));
        let mut ended = Vec::new();
        for node in nodes {
            let life = self.lives.lock().remove(node);
            if let Some(life) = life {
                life.crash(&self.net, how);
                self.armed.lock().remove(node);
                ended.push(life);
            }
        }
        *self.crashes.lock() += ended.len();
        for life in ended {
            if let Err(what) = life.bury().await {
                self.history.lock().violate(what);
            }
        }
    }

    /// Starts a node that is down. When its power fails meanwhile it stays down.
    pub async fn start(&self, node: NodeId) {
        let Some(hardware) = self.hardware.get(&node) else { return };
        let (disk, tasks) = (LifeDisk::new(&hardware.disk), TaskGroup::new());
        let boot = hardware.boot(&self.net, disk.clone(), &self.drivers, tasks.clone());
        let booted = tokio::time::timeout(BOOT_PATIENCE, boot).await;
        match booted.unwrap_or_else(|_| Err("it does not start in time".to_owned())) {
            Ok(life) => {
                self.note(format!("node {node} runs"));
                self.lives.lock().insert(node, Arc::new(life));
            }
            Err(reason) => {
                self.note(format!("node {node} does not start: {reason}"));
                if !self.armed.lock().remove(&node) {
                    self.history.lock().violate(format!("node {node} does not start: {reason}"));
                }
                self.net.detach(node);
                disk.crash(Crash::TearUnsynced);
                tasks.stop();
            }
        }
    }

    /// Crashes nodes that gave up because their power failed; others must not give up.
    pub async fn reap(&self, random: &SeededRandom) {
        let lives: Vec<_> = self.lives.lock().values().cloned().collect();
        for life in lives {
            let Some(reason) = life.cluster.failure().borrow().clone() else { continue };
            let node = life.node;
            self.note(format!("node {node} gave up: {reason}"));
            if !self.is_armed(node) {
                self.history.lock().violate(format!("node {node} gave up: {reason}"));
            }
            let torn = random.below(2) == 0;
            let how = if torn { Crash::TearUnsynced } else { Crash::LoseUnsynced };
            self.crash(&[node], how).await;
        }
    }

    async fn mend(&self, random: &SeededRandom) {
        self.note("everything is mended".to_owned());
        self.net.heal();
        self.net.set_weather(Weather::CALM);
        let armed: Vec<NodeId> = self.armed.lock().iter().copied().collect();
        self.crash(&armed, Crash::TearUnsynced).await;
        self.reap(random).await;
        for node in self.down() {
            self.start(node).await;
        }
    }

    async fn wait_until_ready(&self) -> Result<(), String> {
        let until = Instant::now() + PATIENCE;
        let ready = || self.lives.lock().values().filter(|l| l.cluster.is_ready()).count() == 3;
        while !ready() {
            if let Some(violation) = self.history.lock().violation() {
                return Err(violation.to_owned());
            }
            if Instant::now() > until {
                return Err("the mended cluster does not become ready".to_owned());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn equal_digests(&self) -> Result<(), String> {
        let until = Instant::now() + PATIENCE;
        let mut before = BTreeMap::new();
        loop {
            let lives: Vec<_> = self.lives.lock().values().cloned().collect();
            let mut seen: BTreeMap<String, BTreeSet<(u64, u32)>> = BTreeMap::new();
            for life in &lives {
                let digests = life.cluster.digests().await?;
                for (group, digest) in digests {
                    seen.entry(group).or_default().insert(digest);
                }
            }
            // A plan of compaction that one node has carried out and another has not is no
            // difference. It may have come and gone while digests were made, so only a difference
            // that stays counts.
            let busy = lives.iter().any(|life| life.log.waiting_compactions() > 0);
            for (group, digests) in &seen {
                let indices: BTreeSet<u64> = digests.iter().map(|d| d.0).collect();
                let stays = !busy && before.get(group) == Some(digests);
                if indices.len() < digests.len() && stays {
                    let rows = differing_rows(&lives);
                    return Err(format!("group {group} differs: {digests:?}, {rows}"));
                }
            }
            if lives.len() == 3 && !busy && seen.values().all(|digests| digests.len() == 1) {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("nodes do not reach the same index: {seen:?}"));
            }
            before = if busy { BTreeMap::new() } else { seen };
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn check_replicas(&self) -> Result<(), String> {
        let offsets = txn::offsets(self).await?;
        let lives: Vec<_> = self.lives.lock().values().cloned().collect();
        for life in lives {
            let on = |what: String| format!("node {}: {what}", life.node);
            for group in (0..DATA_GROUPS).map(GroupId::data) {
                let found = list::values(&life, group).map_err(on)?;
                self.history.lock().check(&list::name(group), &found).map_err(on)?;
            }
            for partition in 0..topic::PARTITIONS {
                let found = topic::values(&life, partition).await.map_err(on)?;
                self.history.lock().check(&topic::name(partition), &found).map_err(on)?;
            }
            txn::check(self, &life, &offsets).await.map_err(on)?;
            marks::check(self, &life).await.map_err(on)?;
            let (records, offsets) = compacted::check(self, &life).await.map_err(on)?;
            self.note(format!("node {}: {records} records of {offsets} offsets", life.node));
            *self.left.lock() = (records, offsets);
        }
        Ok(())
    }

    fn explain(&self, what: &str) -> String {
        let mut text = format!("seed {}: {}\n", self.seed, shorten(what));
        for line in self.trace.lock().iter() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{line}");
        }
        for life in self.lives.lock().values() {
            let _ = writeln!(text, "node {}: {:?}", life.node, life.cluster.status());
        }
        text
    }
}

/// The first row in each data group that is not the same on all nodes.
fn differing_rows(lives: &[Arc<Life>]) -> String {
    let mut text = String::new();
    for (group, tag) in [(0, tags::LOG), (0, list::TAG), (1, tags::LOG), (1, list::TAG)] {
        let group = GroupId::data(group);
        let rows: Vec<Vec<_>> = lives
            .iter()
            .map(|l| l.cluster.reader(group, tag).scan(b"", None, usize::MAX).unwrap_or_default())
            .collect();
        let most = rows.iter().map(Vec::len).max().unwrap_or(0);
        let differs =
            |n: &usize| rows.iter().any(|of| of.get(*n) != rows.first().and_then(|o| o.get(*n)));
        if let Some(n) = (0..most).find(differs) {
            for (life, of) in lives.iter().zip(&rows) {
                let _ =
                    writeln!(text, "{group} tag {tag} row {n} on {}: {:?}", life.node, of.get(n));
            }
        }
    }
    text
}

/// Values are padded; runs of x say nothing.
fn shorten(text: &str) -> String {
    let mut short = String::new();
    let mut run = 0;
    for c in text.chars() {
        run = if c == 'x' { run + 1 } else { 0 };
        if run <= 3 {
            short.push(c);
        }
    }
    short
}

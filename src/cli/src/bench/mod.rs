//! `trine bench`: measures a cluster through its real ports.
//!
//! Every measurement warms up first, counts what is answered within the given seconds, takes
//! CPU and memory of the nodes from `/proc`, and finally waits until everything replicated is
//! equal on all nodes. Payloads are random, so that nothing on the way compresses them.

mod cold_read;
mod consume;
mod equal;
mod failover;
mod fill;
mod fs;
mod idle;
mod index;
mod measure;
mod payload;
mod pipeline;
mod produce;
mod restart;
mod stalls;

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use base::Clock;
use base::env::RealClock;
use serde_json::{Value, json};

use crate::admin::{Admin, Ask};
use crate::args::{BenchArgs, BenchKind, ClusterArgs, Output};
use crate::bench::measure::Figures;
use crate::local::READY_DEADLINE;
use crate::local::cluster::Cluster;
use crate::output::{say, table};
use crate::signals::Stop;

/// Leaders that did not move for this long have settled; they are balanced every 2 s.
const SETTLED_FOR: Duration = Duration::from_secs(5);
const SETTLE_DEADLINE: Duration = Duration::from_secs(60);

/// Partitions of a topic when the user does not say: two on each node.
const PARTITIONS: i32 = 6;
/// The same for the idle measurement.
const IDLE_PARTITIONS: i32 = 1000;

/// The cluster that is measured.
#[derive(Debug)]
struct Target {
    kafka: Vec<String>,
    webhdfs: Vec<String>,
    elastic: Vec<String>,
    admin: Admin,
    pids: Vec<u32>,
    /// A directory that the nodes see too.
    work_dir: PathBuf,
    /// A name that no earlier run has used.
    name: String,
}

/// What every measurement is given.
struct Bench<'a> {
    args: &'a BenchArgs,
    target: Arc<Target>,
    stop: &'a Stop,
    clock: Arc<RealClock>,
    /// The cluster made for this run.
    cluster: Option<&'a RefCell<Cluster>>,
}

impl Bench<'_> {
    /// Partitions of the topic.
    fn partitions(&self) -> i32 {
        let usual = if self.args.kind == BenchKind::Idle { IDLE_PARTITIONS } else { PARTITIONS };
        self.args.partitions.unwrap_or(usual)
    }

    /// The cluster, for what can only be measured on one made for it.
    fn own_cluster(&self) -> anyhow::Result<&RefCell<Cluster>> {
        let text = "this measurement kills and starts nodes: it needs --local";
        self.cluster.ok_or_else(|| crate::Usage(text.to_owned()).into())
    }
}

/// Runs the command.
pub fn run(args: &BenchArgs, output: Output) -> anyhow::Result<()> {
    check(args)?;
    let stop = Stop::install()?;
    let parent = args.work_dir.clone().unwrap_or_else(std::env::temp_dir);
    std::fs::create_dir_all(&parent).with_context(|| parent.display().to_string())?;
    let work = tempfile::Builder::new().prefix("trine-bench-").tempdir_in(&parent)?;
    let mut cluster = None;
    if args.local {
        let ports = ClusterArgs { port_base: Some("free".to_owned()), sets: args.sets.clone() };
        let mut started = Cluster::start(&work.path().join("cluster"), &ports)?;
        if started.wait_ready(&stop, READY_DEADLINE)?.is_none() {
            started.stop();
            return Ok(());
        }
        cluster = Some(started);
    }
    let target = target(args, cluster.as_ref(), work.path().to_owned());
    let clock = Arc::new(RealClock::new());
    let cluster = cluster.map(RefCell::new);
    let target = Arc::new(target);
    let bench = Bench { args, target, stop: &stop, clock, cluster: cluster.as_ref() };
    let result = measure(&bench, output);
    if let Some(cluster) = cluster {
        cluster.into_inner().stop();
    }
    result
}

fn check(args: &BenchArgs) -> anyhow::Result<()> {
    let bad = |text: &str| Err(crate::Usage(text.to_owned()).into());
    if args.connections == 0 || args.batch == 0 || args.in_flight == 0 || args.seconds == 0 {
        return bad("--connections, --batch, --in-flight and --seconds must be at least 1");
    }
    if args.size.is_some_and(|s| !(16..=1 << 20).contains(&s)) {
        return bad("--size must be from 16 to 1048576");
    }
    if args.size.unwrap_or(1024).saturating_mul(args.batch) > 8 << 20 {
        return bad("--size times --batch must be at most 8 MiB");
    }
    let kinds = [BenchKind::Restart, BenchKind::Failover];
    if !args.local && kinds.contains(&args.kind) {
        return bad("this measurement kills and starts nodes: it needs --local");
    }
    if args.partitions.is_some_and(|n| !(1..=1000).contains(&n)) {
        return bad("--partitions must be from 1 to 1000");
    }
    if args.rate.is_some_and(|rate| !(rate > 0.0 && rate < 1e6)) {
        return bad("--rate must be above 0");
    }
    if !(args.gb > 0.0 && args.gb < 1e4) || args.rounds == 0 {
        return bad("--gb must be above 0 and --rounds at least 1");
    }
    if !args.local && !args.sets.is_empty() {
        return bad("--set needs --local");
    }
    Ok(())
}

fn target(args: &BenchArgs, cluster: Option<&Cluster>, work_dir: PathBuf) -> Target {
    let name = format!("bench-{:08x}", rand::random::<u32>());
    match cluster {
        Some(cluster) => Target {
            kafka: cluster.addresses("kafka"),
            webhdfs: cluster.addresses("webhdfs"),
            elastic: cluster.addresses("elastic"),
            admin: Admin::new(cluster.addresses("console")),
            pids: cluster.pids(),
            work_dir,
            name,
        },
        None => Target {
            kafka: args.kafka.clone(),
            webhdfs: args.webhdfs.clone(),
            elastic: args.elastic.clone(),
            admin: Admin::of(&args.admin),
            pids: args.pids.clone(),
            work_dir,
            name,
        },
    }
}

/// Waits until leaders have stopped moving: a young cluster spreads them over its nodes, and the
/// measuring clients look for leaders only once.
fn wait_settled(bench: &Bench<'_>) -> anyhow::Result<()> {
    let deadline = bench.clock.monotonic() + SETTLE_DEADLINE;
    let mut seen = Value::Null;
    let mut since = bench.clock.monotonic();
    while bench.clock.monotonic() < deadline {
        let status = bench.target.admin.call("/api/status", Ask::Get)?;
        let groups = status["groups"].as_array().map_or(&[][..], Vec::as_slice);
        let now: Value = groups.iter().map(|g| json!([g["id"], g["leader"], g["term"]])).collect();
        if now != seen {
            (seen, since) = (now, bench.clock.monotonic());
        }
        if bench.clock.monotonic() - since >= SETTLED_FOR {
            return Ok(());
        }
        if bench.stop.sleep(Duration::from_millis(250)) {
            bail!("stopped before the leaders had settled");
        }
    }
    bail!("leaders still move after {} s", SETTLE_DEADLINE.as_secs())
}

fn measure(bench: &Bench<'_>, output: Output) -> anyhow::Result<()> {
    wait_settled(bench)?;
    let figures = match bench.args.kind {
        BenchKind::Produce => produce::run(bench)?,
        BenchKind::Consume => consume::run(bench)?,
        BenchKind::Fs => fs::run(bench)?,
        BenchKind::Index => index::run(bench)?,
        BenchKind::Pipeline => pipeline::run(bench)?,
        BenchKind::Idle => idle::run(bench)?,
        BenchKind::Restart => restart::run(bench)?,
        BenchKind::Failover => failover::run(bench)?,
        BenchKind::ColdRead => cold_read::run(bench)?,
    };
    let nodes = equal::wait_equal(bench)?;
    print(output, &figures, nodes)
}

fn print(output: Output, figures: &Figures, nodes: usize) -> anyhow::Result<()> {
    let round = |value: f64| (value * 100.0).round() / 100.0;
    let values = [
        ("mb_per_s", Some(figures.mb_per_s)),
        ("ops_per_s", Some(figures.ops_per_s)),
        ("p50_ms", Some(figures.p50_ms)),
        ("p99_ms", Some(figures.p99_ms)),
        ("cpu_s_per_gb", figures.cpu_s_per_gb),
        ("rss_mb", figures.rss_mb),
    ];
    let values = values.into_iter().chain(figures.more.iter().map(|(k, v)| (*k, Some(*v))));
    match output {
        Output::Json => {
            let mut object = json!({"bench": figures.what});
            for (key, value) in values {
                object[key] = value.map(round).into();
            }
            object["seconds"] = round(figures.seconds).into();
            object["equal_replicas"] = nodes.into();
            say(object)?;
        }
        Output::Table => {
            let shown = |v: Option<f64>| v.map_or("-".to_owned(), |v| round(v).to_string());
            let mut rows: Vec<Vec<String>> =
                values.map(|(k, v)| vec![k.to_owned(), shown(v)]).collect();
            rows.push(vec!["seconds".to_owned(), round(figures.seconds).to_string()]);
            rows.push(vec!["equal_replicas".to_owned(), nodes.to_string()]);
            say(table(&[figures.what, ""], rows))?;
        }
    }
    Ok(())
}

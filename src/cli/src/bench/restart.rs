//! How long a cluster with much data takes to serve again: after all nodes were killed, and after
//! they were stopped. Bytes read show what a start depends on.

use std::time::Duration;

use anyhow::{Context, bail};
use base::Clock;

use crate::bench::equal::wait_equal;
use crate::bench::measure::{Figures, rss_mb};
use crate::bench::produce::Producer;
use crate::bench::{Bench, fill, wait_settled};
use crate::kafka_client::Connection;
use crate::local::READY_DEADLINE;
use crate::local::ports::NODES;

/// Pause between two looks at whether a partition takes a batch again.
const PAUSE: Duration = Duration::from_millis(10);

/// One start.
struct Start {
    ready_s: f64,
    acked_s: f64,
    read_mb: f64,
    cpu_s: f64,
}

/// Measures.
pub(super) fn run(bench: &Bench<'_>) -> anyhow::Result<Figures> {
    let producer = fill::run(bench, bench.args.gb)?;
    wait_equal(bench)?;
    let killed = start(bench, &producer, How::Killed)?;
    wait_settled(bench)?;
    let stopped = start(bench, &producer, How::Stopped)?;
    let pids = bench.own_cluster()?.borrow().pids();
    Ok(Figures {
        what: "restart",
        rss_mb: rss_mb(&pids),
        seconds: killed.acked_s,
        more: vec![
            ("gb", bench.args.gb),
            ("killed_ready_s", killed.ready_s),
            ("killed_all_partitions_acked_s", killed.acked_s),
            ("killed_read_mb", killed.read_mb),
            ("killed_cpu_s", killed.cpu_s),
            ("stopped_ready_s", stopped.ready_s),
            ("stopped_all_partitions_acked_s", stopped.acked_s),
            ("stopped_read_mb", stopped.read_mb),
            ("stopped_cpu_s", stopped.cpu_s),
        ],
        ..Figures::default()
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Killed,
    Stopped,
}

fn start(bench: &Bench<'_>, producer: &Producer, how: How) -> anyhow::Result<Start> {
    let cluster = bench.own_cluster()?;
    for node in 1..=NODES {
        match how {
            How::Killed => cluster.borrow_mut().kill(node)?,
            How::Stopped => cluster.borrow_mut().stop_node(node)?,
        }
    }
    let began = bench.clock.monotonic();
    for node in 1..=NODES {
        cluster.borrow_mut().start_again(node)?;
    }
    if cluster.borrow_mut().wait_ready(bench.stop, READY_DEADLINE)?.is_none() {
        bail!("stopped");
    }
    let ready_s = (bench.clock.monotonic() - began).as_secs_f64();
    for partition in 0..bench.partitions() {
        append(bench, producer, partition)?;
    }
    let acked_s = (bench.clock.monotonic() - began).as_secs_f64();
    let pids = cluster.borrow().pids();
    let read: u64 = pids.iter().filter_map(|pid| read_bytes(*pid)).sum();
    let cpu_s = crate::bench::measure::cpu_seconds(&pids);
    Ok(Start { ready_s, acked_s, read_mb: read as f64 / 1e6, cpu_s })
}

/// Appends one batch, trying until the partition has a leader that takes it.
fn append(bench: &Bench<'_>, producer: &Producer, partition: i32) -> anyhow::Result<()> {
    let deadline = bench.clock.monotonic() + READY_DEADLINE;
    let topic = &bench.target.name;
    let first = bench.target.kafka.first().context("no Kafka address")?;
    let attempt = || -> anyhow::Result<()> {
        let leaders = Connection::open(first)?.topic(topic)?.leaders;
        let leader = leaders.get(&partition).context("a partition without leader")?;
        let mut connection = Connection::open(leader)?;
        connection.send_produce(topic, partition, producer.batch(0).0)?;
        connection.receive_produced().map(|_| ())
    };
    loop {
        match attempt() {
            Ok(()) => return Ok(()),
            Err(error) if bench.clock.monotonic() > deadline => return Err(error),
            Err(_) => {}
        }
        if bench.stop.sleep(PAUSE) {
            bail!("stopped");
        }
    }
}

/// Bytes that a process has read from files, from the page cache too.
fn read_bytes(pid: u32) -> Option<u64> {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    io.lines().find_map(|line| line.strip_prefix("rchar: "))?.trim().parse().ok()
}

//! How long writers wait when a leader dies: from its SIGKILL to the next acknowledgement of a
//! client that asks every surviving node who leads now, without back-off. A client's own back-off
//! (librdkafka waits up to a second, Java 100 ms) comes on top.

use std::time::Duration;

use anyhow::{Context, bail};
use base::Clock;

use crate::bench::measure::{Figures, percentile};
use crate::bench::produce::Producer;
use crate::bench::{Bench, wait_settled};
use crate::kafka_client::Connection;
use crate::local::READY_DEADLINE;

/// Pause between two questions for the leader.
const PAUSE: Duration = Duration::from_millis(5);
/// Longest wait for a new leader.
const DEADLINE: Duration = Duration::from_secs(60);

/// Measures.
pub(super) fn run(bench: &Bench<'_>) -> anyhow::Result<Figures> {
    let producer = Producer::new(bench)?;
    let (mut gaps, mut elections) = (Vec::new(), Vec::new());
    for round in 0..bench.args.rounds {
        let partition = i32::try_from(round).unwrap_or(0) % bench.partitions();
        let (gap, election) = one(bench, &producer, partition)?;
        gaps.push(gap);
        elections.push(election);
        wait_settled(bench)?;
    }
    gaps.sort_unstable();
    elections.sort_unstable();
    Ok(Figures {
        what: "failover",
        p50_ms: percentile(&gaps, 50) / 1e3,
        p99_ms: percentile(&gaps, 99) / 1e3,
        more: vec![
            ("new_leader_known_p50_ms", percentile(&elections, 50) / 1e3),
            ("new_leader_known_max_ms", percentile(&elections, 100) / 1e3),
            ("rounds", bench.args.rounds as f64),
        ],
        ..Figures::default()
    })
}

/// Kills the leader of a partition; microseconds until the next acknowledgement, and until a
/// surviving node names another leader.
fn one(bench: &Bench<'_>, producer: &Producer, partition: i32) -> anyhow::Result<(u32, u32)> {
    let cluster = bench.own_cluster()?;
    let topic = &bench.target.name;
    let leader = leader(&bench.target.kafka, topic, partition).context("no leader")?;
    let dead = cluster.borrow().node_at(&leader).context("a leader that is no node")?;
    let mut connection = Connection::open(&leader)?;
    for _ in 0..100 {
        connection.send_produce(topic, partition, producer.batch(0).0)?;
        connection.receive_produced()?;
    }
    cluster.borrow_mut().kill(dead)?;
    let began = bench.clock.monotonic();
    let survivors: Vec<String> =
        bench.target.kafka.iter().filter(|a| **a != leader).cloned().collect();
    let micros = || {
        let passed = bench.clock.monotonic() - began;
        u32::try_from(passed.as_micros()).unwrap_or(u32::MAX)
    };
    let mut elected = None;
    let gap = loop {
        if let Some(now) = self::leader(&survivors, topic, partition).filter(|now| *now != leader) {
            elected.get_or_insert_with(micros);
            if append(&now, topic, partition, producer).is_ok() {
                break micros();
            }
        }
        if bench.clock.monotonic() - began > DEADLINE {
            bail!("no acknowledgement within {} s", DEADLINE.as_secs());
        }
        if bench.stop.sleep(PAUSE) {
            bail!("stopped");
        }
    };
    cluster.borrow_mut().start_again(dead)?;
    if cluster.borrow_mut().wait_ready(bench.stop, READY_DEADLINE)?.is_none() {
        bail!("stopped");
    }
    Ok((gap, elected.unwrap_or(gap)))
}

fn append(leader: &str, topic: &str, partition: i32, producer: &Producer) -> anyhow::Result<()> {
    let mut connection = Connection::open(leader)?;
    connection.send_produce(topic, partition, producer.batch(0).0)?;
    connection.receive_produced().map(|_| ())
}

/// The leader of a partition as the first node knows it that knows one.
fn leader(nodes: &[String], topic: &str, partition: i32) -> Option<String> {
    nodes.iter().find_map(|node| {
        let leaders = Connection::open(node).ok()?.leaders(topic).ok()?;
        leaders.get(&partition).cloned()
    })
}

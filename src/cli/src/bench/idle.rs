//! What nodes cost when there is nothing to do: with a topic of many partitions alone, then under
//! consumers that wait for records as librdkafka does (every request names every partition), then
//! as Java clients do (fetch sessions).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use base::Clock;

use crate::bench::measure::{Figures, cpu_seconds, rss_mb};
use crate::bench::{Bench, wait_settled};
use crate::kafka_client::{Connection, Poll};

/// How long a topic of many partitions may take to be there.
const TOPIC_DEADLINE: Duration = Duration::from_secs(120);

/// Measures.
pub(super) fn run(bench: &Bench<'_>) -> anyhow::Result<Figures> {
    let leaders = make_topic(bench)?;
    wait_settled(bench)?;
    let nobody = cores(bench)?;
    let (whole, whole_polls) = under_consumers(bench, &leaders, Poll::Whole)?;
    let (sessions, session_polls) = under_consumers(bench, &leaders, Poll::Session)?;
    Ok(Figures {
        what: "idle",
        rss_mb: rss_mb(&bench.target.pids),
        seconds: bench.args.seconds as f64,
        more: vec![
            ("partitions", f64::from(bench.partitions())),
            ("consumers", bench.args.connections as f64),
            ("cpu_percent_of_a_core", 100.0 * nobody),
            ("cpu_percent_under_whole_requests", 100.0 * whole),
            ("whole_requests_per_s", whole_polls),
            ("cpu_percent_under_sessions", 100.0 * sessions),
            ("session_requests_per_s", session_polls),
        ],
        ..Figures::default()
    })
}

/// Address of a leader and the partitions it leads.
type Leaders = Vec<(String, Vec<i32>)>;

fn make_topic(bench: &Bench<'_>) -> anyhow::Result<Leaders> {
    let topic = &bench.target.name;
    let first = bench.target.kafka.first().context("no Kafka address")?;
    Connection::open(first)?.create_topic(topic, bench.partitions())?;
    let deadline = bench.clock.monotonic() + TOPIC_DEADLINE;
    loop {
        match Connection::open(first)?.topic(topic) {
            Ok(found) => {
                let mut leaders = std::collections::BTreeMap::<String, Vec<i32>>::new();
                for (partition, leader) in found.leaders {
                    leaders.entry(leader).or_default().push(partition);
                }
                return Ok(leaders.into_iter().collect());
            }
            Err(error) if bench.clock.monotonic() > deadline => return Err(error),
            Err(_) => {}
        }
        if bench.stop.sleep(Duration::from_millis(100)) {
            bail!("stopped");
        }
    }
}

/// Cores that the nodes use over the time of the measurement.
fn cores(bench: &Bench<'_>) -> anyhow::Result<f64> {
    if bench.stop.sleep(Duration::from_secs(bench.args.warm_up)) {
        bail!("stopped");
    }
    let (began, cpu) = (bench.clock.monotonic(), cpu_seconds(&bench.target.pids));
    if bench.stop.sleep(Duration::from_secs(bench.args.seconds)) {
        bail!("stopped");
    }
    let passed = bench.clock.monotonic() - began;
    Ok((cpu_seconds(&bench.target.pids) - cpu) / passed.as_secs_f64())
}

/// Cores used, and polls answered per second, while every consumer polls every leader.
fn under_consumers(bench: &Bench<'_>, leaders: &Leaders, how: Poll) -> anyhow::Result<(f64, f64)> {
    let (over, polls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut threads = Vec::new();
    for _ in 0..bench.args.connections {
        for (leader, partitions) in leaders.clone() {
            let (over, polls) = (Arc::clone(&over), Arc::clone(&polls));
            let topic = bench.target.name.clone();
            threads.push(base::task::thread("consumer", move || -> anyhow::Result<()> {
                let mut poller = Connection::open(&leader)?.poller(&topic, &partitions, how);
                while !over.load(Ordering::Relaxed) {
                    poller.poll()?;
                    polls.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            }));
        }
    }
    let began = bench.clock.monotonic();
    let used = cores(bench);
    over.store(true, Ordering::Relaxed);
    let passed = (bench.clock.monotonic() - began).as_secs_f64();
    let polls = polls.load(Ordering::Relaxed) as f64 / passed;
    for thread in threads {
        match thread.join() {
            Ok(result) => result?,
            Err(_) => bail!("a consumer panicked"),
        }
    }
    Ok((used?, polls))
}

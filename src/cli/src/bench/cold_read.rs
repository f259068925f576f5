//! Kafka Fetch of a whole topic whose data no cache holds: the catch-up of a consumer that was
//! away. Every batch's checksum is checked, and every record must be there.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail};
use base::Clock;

use crate::bench::equal::wait_equal;
use crate::bench::measure::{Figures, cpu_seconds, percentile, rss_mb};
use crate::bench::{Bench, Target, fill};
use crate::kafka_client::{Connection, batch};

/// Bytes of one fetch.
const FETCH_BYTES: i32 = 4 << 20;

/// What one reader found.
#[derive(Debug, Default)]
struct Read {
    records: u64,
    bytes: u64,
    latencies_us: Vec<u32>,
}

/// Measures.
pub(super) fn run(bench: &Bench<'_>) -> anyhow::Result<Figures> {
    fill::run(bench, bench.args.gb)?;
    wait_equal(bench)?;
    if let Some(cluster) = bench.cluster {
        for dir in cluster.borrow().data_dirs() {
            forget(&dir).with_context(|| dir.display().to_string())?;
        }
    }
    let first = bench.target.kafka.first().context("no Kafka address")?;
    let leaders = Connection::open(first)?.topic(&bench.target.name)?.leaders;
    let work = Arc::new(Mutex::new(leaders.into_iter().collect::<Vec<_>>()));
    let own = [std::process::id()];
    let (began, cpu) = (bench.clock.monotonic(), cpu_seconds(&bench.target.pids));
    let client_cpu = cpu_seconds(&own);
    let mut threads = Vec::new();
    for _ in 0..bench.args.connections {
        let (work, target) = (Arc::clone(&work), Arc::clone(&bench.target));
        let clock = Arc::clone(&bench.clock);
        threads.push(base::task::thread("reader", move || -> anyhow::Result<Read> {
            let mut read = Read::default();
            loop {
                let next = work.lock().ok().and_then(|mut work| work.pop());
                let Some((partition, leader)) = next else { return Ok(read) };
                read_partition(&target, (partition, &leader), &*clock, &mut read)?;
            }
        }));
    }
    let mut sum = Read::default();
    for thread in threads {
        let Ok(read) = thread.join() else { bail!("a reader panicked") };
        let read = read?;
        sum.records += read.records;
        sum.bytes += read.bytes;
        sum.latencies_us.extend(read.latencies_us);
    }
    let seconds = (bench.clock.monotonic() - began).as_secs_f64();
    sum.latencies_us.sort_unstable();
    let (rss, gb) = (rss_mb(&bench.target.pids), sum.bytes as f64 / 1e9);
    let cpu = cpu_seconds(&bench.target.pids) - cpu;
    Ok(Figures {
        what: "cold-read",
        mb_per_s: sum.bytes as f64 / 1e6 / seconds,
        ops_per_s: sum.records as f64 / seconds,
        p50_ms: percentile(&sum.latencies_us, 50) / 1e3,
        p99_ms: percentile(&sum.latencies_us, 99) / 1e3,
        cpu_s_per_gb: rss.map(|_| cpu / gb),
        rss_mb: rss,
        seconds,
        more: vec![("client_cpu_s_per_gb", (cpu_seconds(&own) - client_cpu) / gb), ("gb", gb)],
    })
}

fn read_partition(
    target: &Target,
    (partition, leader): (i32, &str),
    clock: &dyn Clock,
    read: &mut Read,
) -> anyhow::Result<()> {
    let mut connection = Connection::open(leader)?;
    let (mut offset, next) = connection.offsets(&target.name, partition)?;
    let wanted = read.records + u64::try_from(next - offset)?;
    while offset < next {
        let began = clock.monotonic();
        let fetched = connection.fetch(&target.name, partition, offset, FETCH_BYTES)?;
        offset = batch::for_each(&fetched.records, offset, |_, value| {
            read.records += 1;
            read.bytes += value.len() as u64;
        })?;
        let took: Duration = clock.monotonic().saturating_sub(began);
        read.latencies_us.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }
    if read.records != wanted {
        bail!("partition {partition} gave {} records, not {wanted}", read.records);
    }
    Ok(())
}

/// Drops what the page cache holds of the files below a directory.
fn forget(dir: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            forget(&path)?;
        } else if let Ok(file) = File::open(&path) {
            // Written pages only: what is dirty stays, and is little.
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    Ok(())
}

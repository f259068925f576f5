//! Windows of time, latencies, and what the nodes used meanwhile.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::bail;
use base::Clock;
use base::env::RealClock;

use crate::bench::Bench;
use crate::bench::stalls::Stalls;
use crate::output::progress;

/// Clock ticks per second in `/proc`; fixed in Linux's interface whatever the kernel's own is.
const TICKS_PER_SECOND: f64 = 100.0;
/// Latencies kept per worker.
const MAX_LATENCIES: usize = 20_000_000;

/// What a measurement found.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    pub(super) what: &'static str,
    pub(super) mb_per_s: f64,
    pub(super) ops_per_s: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) cpu_s_per_gb: Option<f64>,
    pub(super) rss_mb: Option<f64>,
    pub(super) seconds: f64,
    /// Figures that only some measurements have.
    pub(super) more: Vec<(&'static str, f64)>,
}

/// What one worker did; only answers inside the window count.
#[derive(Debug)]
pub(super) struct Tally {
    window: Arc<Window>,
    ops: u64,
    bytes: u64,
    latencies_us: Vec<u32>,
    /// When each of them began, in microseconds of the clock, where that matters.
    begun_us: Option<Vec<u64>>,
    leader_moves: u64,
}

/// The seconds that count.
#[derive(Debug)]
pub(super) struct Window {
    clock: Arc<RealClock>,
    from: Duration,
    to: Duration,
    over: AtomicBool,
    done: AtomicU64,
}

impl Window {
    /// The time now.
    pub(super) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// Whether workers should stop.
    pub(super) fn over(&self) -> bool {
        self.over.load(Ordering::Relaxed) || self.now() >= self.to
    }
}

impl Tally {
    /// Counts one answered request that began at `began`.
    pub(super) fn add(&mut self, began: Duration, ops: usize, bytes: usize) {
        let now = self.window.now();
        if now < self.window.from || now > self.window.to {
            return;
        }
        self.ops += ops as u64;
        self.bytes += bytes as u64;
        self.window.done.fetch_add(ops as u64, Ordering::Relaxed);
        if self.latencies_us.len() < MAX_LATENCIES {
            let micros = now.saturating_sub(began).as_micros();
            self.latencies_us.push(u32::try_from(micros).unwrap_or(u32::MAX));
            if let Some(begun) = &mut self.begun_us {
                begun.push(u64::try_from(began.as_micros()).unwrap_or(u64::MAX));
            }
        }
    }
}

impl Tally {
    /// Remembers when each request began, for [`Figures`] without those near a stall.
    pub(super) fn keep_times(&mut self) {
        self.begun_us.get_or_insert_default();
    }

    /// Counts a change of leader that the worker followed.
    pub(super) fn leader_moved(&mut self) {
        self.leader_moves += 1;
    }
}

/// What the nodes and this program used while the window was open.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    cpu: f64,
    client_cpu: f64,
    rss_mb: Option<f64>,
}

/// CPU seconds used so far by processes.
pub(super) fn cpu_seconds(pids: &[u32]) -> f64 {
    let ticks = |pid: &u32| -> Option<f64> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, which may hold spaces, ends at the last parenthesis.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        Some(fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?)
    };
    pids.iter().filter_map(ticks).sum::<f64>() / TICKS_PER_SECOND
}

/// Resident memory of processes in MB.
pub(super) fn rss_mb(pids: &[u32]) -> Option<f64> {
    let kb = |pid: &u32| -> Option<f64> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find(|l| l.starts_with("VmRSS:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    let all: Vec<f64> = pids.iter().filter_map(kb).collect();
    (!all.is_empty()).then(|| all.iter().sum::<f64>() * 1024.0 / 1e6)
}

/// Runs one worker per connection through warm-up and window and sums up. A worker returns when
/// the window is over; its error ends the measurement.
pub(super) fn run<W>(bench: &Bench<'_>, what: &'static str, worker: W) -> anyhow::Result<Figures>
where
    W: Fn(usize, &Window, &mut Tally) -> anyhow::Result<()> + Send + Sync + 'static,
{
    let (warm_up, seconds) = (bench.args.warm_up, bench.args.seconds);
    let clock = Arc::clone(&bench.clock);
    let from = clock.monotonic() + Duration::from_secs(warm_up);
    let to = from + Duration::from_secs(seconds);
    let (over, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let window = Arc::new(Window { clock, from, to, over, done });
    let worker = Arc::new(worker);
    let (send, receive) = mpsc::sync_channel(bench.args.connections);
    let mut threads = Vec::new();
    for number in 0..bench.args.connections {
        let (send, window, worker) = (send.clone(), Arc::clone(&window), Arc::clone(&worker));
        threads.push(base::task::thread("bench", move || {
            let window_of = Arc::clone(&window);
            let (ops, bytes, latencies_us) = (0, 0, Vec::new());
            let mut tally = Tally {
                window: window_of,
                ops,
                bytes,
                latencies_us,
                begun_us: None,
                leader_moves: 0,
            };
            let result = worker(number, &window, &mut tally).map(|()| tally);
            if result.is_err() {
                window.over.store(true, Ordering::Relaxed);
            }
            // The receiver waits for every worker, so it is there.
            let _ = send.send(result);
        }));
    }
    drop(send);
    let stalls = Stalls::watch(bench);
    let used = watch(bench, &window, what);
    let mut tallies = Vec::new();
    for result in receive {
        tallies.push(result?);
    }
    for thread in threads {
        if thread.join().is_err() {
            bail!("a worker of the measurement panicked");
        }
    }
    if bench.stop.asked() {
        bail!("stopped");
    }
    if tallies.iter().all(|tally| tally.ops == 0) {
        bail!("nothing was answered within {seconds} s; measure longer, or with smaller --batch");
    }
    let mut figures = sum_up(what, &tallies, seconds as f64, used);
    let moves: u64 = tallies.iter().map(|tally| tally.leader_moves).sum();
    if moves > 0 {
        figures.more.push(("leader_moves_followed", moves as f64));
    }
    if tallies.iter().any(|tally| tally.begun_us.is_some()) {
        let requests = tallies.iter().flat_map(|tally| {
            let begun = tally.begun_us.iter().flatten().copied();
            begun.zip(tally.latencies_us.iter().copied())
        });
        figures.more.extend(stalls.set_apart(bench, requests));
    }
    Ok(figures)
}

/// Waits through the window.
fn watch(bench: &Bench<'_>, window: &Window, what: &'static str) -> Used {
    let pids = &bench.target.pids;
    let bar = progress((window.to - window.from).as_millis() as u64, what);
    let own = [std::process::id()];
    let mut before = None;
    while !window.over() {
        let now = window.now();
        if now >= window.from && before.is_none() {
            before = Some((cpu_seconds(pids), cpu_seconds(&own)));
        }
        bar.set_position(now.saturating_sub(window.from).as_millis() as u64);
        if bench.stop.sleep(Duration::from_millis(20)) {
            window.over.store(true, Ordering::Relaxed);
        }
    }
    bar.finish_and_clear();
    let (cpu, client_cpu) = before.unwrap_or_default();
    Used {
        cpu: cpu_seconds(pids) - cpu,
        client_cpu: cpu_seconds(&own) - client_cpu,
        rss_mb: rss_mb(pids),
    }
}

fn sum_up(what: &'static str, tallies: &[Tally], seconds: f64, used: Used) -> Figures {
    let Used { cpu, client_cpu, rss_mb } = used;
    let ops: u64 = tallies.iter().map(|t| t.ops).sum();
    let bytes: u64 = tallies.iter().map(|t| t.bytes).sum();
    let mut latencies: Vec<u32> =
        tallies.iter().flat_map(|t| t.latencies_us.iter().copied()).collect();
    latencies.sort_unstable();
    let gb = bytes as f64 / 1e9;
    Figures {
        what,
        mb_per_s: bytes as f64 / 1e6 / seconds,
        ops_per_s: ops as f64 / seconds,
        p50_ms: percentile(&latencies, 50) / 1e3,
        p99_ms: percentile(&latencies, 99) / 1e3,
        cpu_s_per_gb: (rss_mb.is_some() && gb > 0.0).then(|| cpu / gb),
        rss_mb,
        seconds,
        more: vec![("client_cpu_s_per_gb", if gb > 0.0 { client_cpu / gb } else { 0.0 })],
    }
}

/// The smallest value that `percent` of all do not exceed.
pub(super) fn percentile(sorted: &[u32], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().map_or(0.0, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<u32> = (1..=200).collect();
        assert_eq!(percentile(&values, 50), 100.0);
        assert_eq!(percentile(&values, 99), 198.0);
        assert_eq!(percentile(&[7], 99), 7.0);
        assert_eq!(percentile(&[], 99), 0.0);
    }

    #[test]
    fn this_process_has_memory() {
        assert!(rss_mb(&[std::process::id()]).unwrap() > 0.1);
        assert_eq!(rss_mb(&[]), None);
        assert!(cpu_seconds(&[std::process::id()]) >= 0.0);
    }
}

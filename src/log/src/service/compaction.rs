//! Compaction at work: the leader's plans, and each node's carrying them out.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use base::Env;
use consensus::GroupRef;
use parking_lot::{Condvar, Mutex};
use segment::{SegmentInfo, Stream, Writing};
use tokio::sync::oneshot;
use tracing::{debug, info, warn};

use super::LogService;
use crate::batch::BatchHeader;
use crate::command::{Control, ControlReply};
use crate::compact::decide::{View, decide};
use crate::compact::run::{Pace, Ran, run_next};
use crate::error::LogError;
use crate::limits::COMPACTION_SPARE_BYTES;
use crate::partition::Partition;
use crate::types::PartKey;

/// Longest sleep between two looks whether the node stops.
const NAP: Duration = Duration::from_millis(100);
/// Without news, plans are looked for after this time.
const IDLE: Duration = Duration::from_secs(10);
/// A partition whose plan failed is left alone for so long.
const RETRY: Duration = Duration::from_secs(30);
/// First segments whose oldest record is looked at for `max.compaction.lag.ms`.
const OLDEST_LOOKED_AT: usize = 16;

impl LogService {
    /// Plans of compaction that this node has not carried out yet. Nodes can be compared by their
    /// digests when none has any.
    pub fn waiting_compactions(&self) -> usize {
        let views = self.0.groups.data.iter().map(|group| self.view(group.id()));
        views.flat_map(|view| view.all()).map(|p| p.state.lock().compaction.plans.len()).sum()
    }

    /// Bytes that this node's plans, where they are not carried out yet, may write.
    fn planned_bytes(&self) -> u64 {
        let views = self.0.groups.data.iter().map(|group| self.view(group.id()));
        let of = |part: Arc<Partition>| {
            let upto = part.state.lock().compaction.plans.last().map(|plan| plan.spec.upto);
            upto.map_or(0, |upto| bytes_below(&part.stream.segments(), upto))
        };
        views.flat_map(|view| view.all()).map(of).sum()
    }

    /// Where this node leads: proposes what is due.
    pub(super) async fn plan_compactions_forever(&self) {
        loop {
            tokio::time::sleep(self.0.options.compaction_every).await;
            if let Err(error) = self.know_settings().await {
                info!("compaction is not planned: {error}");
                continue;
            }
            for group in &self.0.groups.data {
                if !group.leadership().ready_here {
                    continue;
                }
                for part in self.view(group.id()).all() {
                    if let Err(error) = self.plan_compaction(group, &part).await {
                        info!(topic = %part.key.topic, "compaction is not planned: {error}");
                    }
                }
            }
        }
    }

    async fn plan_compaction(
        &self,
        group: &GroupRef,
        part: &Arc<Partition>,
    ) -> Result<(), LogError> {
        let Some(topic) = self.topic_by_id(part.key.topic) else { return Ok(()) };
        let Some(settings) = topic.settings.compaction else { return Ok(()) };
        let (compaction, log_start, stable) = {
            let state = part.state.lock();
            (state.compaction.clone(), state.log_start, state.last_stable_offset())
        };
        let segments = part.stream.segments();
        let mut view = View {
            segments: &segments,
            compaction: &compaction,
            settings: &settings,
            segment_bytes: topic.settings.replica.segment_bytes,
            log_start,
            stable,
            now_ms: self.now_ms(),
            oldest_dirty_ms: None,
        };
        if settings.max_lag_ms < i64::MAX {
            let part = part.clone();
            view.oldest_dirty_ms =
                super::fetch::blocking(move || Ok(oldest(&part, compaction_start(&part)))).await?;
        }
        let Some(plan) = decide(&view) else { return Ok(()) };
        // A plan that waits for room holds back what would make room: retention.
        let needed = bytes_below(&segments, plan.upto)
            .saturating_add(self.planned_bytes())
            .saturating_add(COMPACTION_SPARE_BYTES);
        let (disk, dir) = (self.0.shared.0.env.disk.clone(), part.stream.dir().to_owned());
        let free = super::fetch::blocking(move || Ok(disk.space(&dir)?.free_bytes)).await?;
        if free < needed {
            let partition = part.key.partition;
            info!(topic = %topic.name, partition, needed, free, "no room for a compaction");
            return Ok(());
        }
        debug!(topic = %topic.name, partition = part.key.partition, ?plan, "compaction");
        match self.control_here(group, &Control::Compact { key: part.key, plan }).await? {
            // A plan of another leader came first; the next look sees it.
            ControlReply::Done | ControlReply::StalePlan | ControlReply::UnknownPartition => Ok(()),
            other => Err(LogError::Internal(format!("the group answered {other:?}"))),
        }
    }

    /// On every node: carries plans out, one after the other.
    pub(super) async fn compact_forever(&self) {
        let shared = &self.0.shared.0;
        let worker = match shared.writer.writing() {
            Writing::Thread => Some(Worker::start(&shared.env, self.rate())),
            Writing::Inline => None,
        };
        let mut resting: BTreeMap<PartKey, Duration> = BTreeMap::new();
        loop {
            let news = tokio::time::timeout(IDLE, shared.compactions.notified()).await;
            if news.is_ok() {
                // More may come with it.
                tokio::time::sleep(self.0.options.compaction_every / 100).await;
            }
            let now = shared.env.clock.monotonic();
            resting.retain(|_, until| *until > now);
            for group in &self.0.groups.data {
                for part in self.view(group.id()).all() {
                    if resting.contains_key(&part.key) {
                        continue;
                    }
                    if let Err(error) = self.compact(&part, worker.as_ref()).await {
                        let (topic, partition) = (part.key.topic, part.key.partition);
                        warn!(%topic, partition, "compaction waits: {error}");
                        resting.insert(part.key, now + RETRY);
                    }
                }
            }
        }
    }

    fn rate(&self) -> u64 {
        self.0.options.compaction_bytes_per_second.max(1)
    }

    /// Carries out all plans of a partition.
    async fn compact(&self, part: &Arc<Partition>, worker: Option<&Worker>) -> io::Result<()> {
        while !part.state.lock().compaction.plans.is_empty() {
            let ran = match worker {
                Some(worker) => worker.run(part).await?,
                None => run_next(part, &mut Unpaced { env: &self.0.shared.0.env, part })?,
            };
            match ran {
                Ran::Done { before, after } => {
                    let (topic, partition) = (part.key.topic, part.key.partition);
                    debug!(%topic, partition, before, after, "compacted");
                }
                Ran::Nothing | Ran::Stopped => return Ok(()),
            }
        }
        Ok(())
    }
}

/// Bytes of the segments that begin below an offset.
fn bytes_below(segments: &[SegmentInfo], upto: i64) -> u64 {
    let upto = u64::try_from(upto).unwrap_or(0);
    segments.iter().filter(|s| s.base_offset < upto).map(|s| s.len).sum()
}

/// First offset that is neither compacted nor deleted.
fn compaction_start(part: &Partition) -> i64 {
    let state = part.state.lock();
    state.compaction.clean_to.max(state.log_start)
}

/// Time of the first record of the oldest closed segments from `from` on, the lowest of them.
fn oldest(part: &Partition, from: i64) -> Option<i64> {
    let mut segments = part.stream.segments();
    segments.pop();
    let from = u64::try_from(from).unwrap_or(0);
    let dirty = segments.iter().filter(|s| s.next_offset > from).take(OLDEST_LOOKED_AT);
    let first = |base: u64| {
        let batches = part.stream.read(base, 1).ok()?;
        BatchHeader::parse(batches.first()?).ok().map(|header| header.base_timestamp_ms)
    };
    dirty.filter_map(|s| first(s.base_offset)).filter(|time| *time > 0).min()
}

struct Job {
    part: Arc<Partition>,
    done: oneshot::Sender<io::Result<Ran>>,
}

/// The node's one thread for compaction. Dropped, it stops the thread at its next batch.
struct Worker {
    jobs: mpsc::SyncSender<Job>,
    stop: Arc<AtomicBool>,
}

impl Worker {
    fn start(env: &Env, rate: u64) -> Self {
        // One job at a time: the sender waits for its end.
        let (jobs, inbox) = mpsc::sync_channel::<Job>(1);
        let stop = Arc::new(AtomicBool::new(false));
        let (env, stopped) = (env.clone(), stop.clone());
        base::task::thread("compaction", move || {
            while let Ok(Job { part, done }) = inbox.recv() {
                let mut pace = Throttle::new(&env, &part.stream, &stopped, rate);
                // Without a receiver the node stops.
                drop(done.send(run_next(&part, &mut pace)));
            }
        });
        Self { jobs, stop }
    }

    async fn run(&self, part: &Arc<Partition>) -> io::Result<Ran> {
        let (done, result) = oneshot::channel();
        let gone = || io::Error::other("the compaction thread is gone");
        self.jobs.try_send(Job { part: part.clone(), done }).map_err(|_| gone())?;
        result.await.map_err(|_| gone())?
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// Keeps a job to its rate.
struct Throttle<'a> {
    env: &'a Env,
    stream: &'a Stream,
    stop: &'a AtomicBool,
    rate: u64,
    begun: Duration,
    spent: u64,
    nap: (Mutex<()>, Condvar),
}

impl<'a> Throttle<'a> {
    fn new(env: &'a Env, stream: &'a Stream, stop: &'a AtomicBool, rate: u64) -> Self {
        let (begun, nap) = (env.clock.monotonic(), Default::default());
        Self { env, stream, stop, rate, begun, spent: 0, nap }
    }

    fn ahead(&self) -> Duration {
        let nanos = u128::from(self.spent) * 1_000_000_000 / u128::from(self.rate);
        let due = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        due.saturating_sub(self.env.clock.monotonic().saturating_sub(self.begun))
    }
}

impl Pace for Throttle<'_> {
    fn spend(&mut self, bytes: u64) -> bool {
        self.spent = self.spent.saturating_add(bytes);
        loop {
            if self.stop.load(Ordering::SeqCst) || self.stream.is_closed() {
                return false;
            }
            let ahead = self.ahead();
            if ahead < NAP / 10 {
                return true;
            }
            // Nobody wakes it: a sleep that the lint on sleeping threads does not forbid.
            self.nap.1.wait_for(&mut self.nap.0.lock(), ahead.min(NAP));
        }
    }

    fn free_bytes(&self, stream: &Stream) -> io::Result<u64> {
        Ok(self.env.disk.space(stream.dir())?.free_bytes)
    }
}

/// For simulations, where everything happens at once.
struct Unpaced<'a> {
    env: &'a Env,
    part: &'a Partition,
}

impl Pace for Unpaced<'_> {
    fn spend(&mut self, _: u64) -> bool {
        !self.part.stream.is_closed()
    }

    fn free_bytes(&self, stream: &Stream) -> io::Result<u64> {
        Ok(self.env.disk.space(stream.dir())?.free_bytes)
    }
}

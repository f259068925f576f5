//! Runs a source on the node that holds its lease.
//!
//! Every node runs this for every source and contends for the lease; one gets it, commits its
//! epoch as a fence in every data group, and collects while it renews. A holder that does not
//! answer any more is replaced before its lease ends: the fence makes that safe.

use std::sync::Arc;
use std::time::Duration;

use base::{Env, NodeId, TaskGroup};
use collect::record::RecordBuilder;
use collect::runner::{self, Job, SharedProgress, Stopped, connector};
use collect::sink::SinkError;
use consensus::{GroupRef, PeersRef};
use parking_lot::Mutex;
use tracing::{info, warn};

use crate::ports::{BlockPort, LogPort};
use crate::sinks::{ServiceSinks, propose};
use crate::spec::PipelineSpec;
use crate::state::{Command, FlowShared, Lease, Reply};

/// How long a lease lasts without renewal.
const LEASE_MS: i64 = 6_000;
/// How often it is renewed.
const RENEW: Duration = Duration::from_millis(1_500);
/// How often a node without the lease looks at it.
const CONTEND: Duration = Duration::from_millis(500);
/// Looks at a holder that does not answer before its lease is taken.
const DEAD_LOOKS: u32 = 3;

/// What a source does on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum SourceState {
    /// Another node holds the lease, or none yet.
    #[default]
    Waiting,
    /// Collecting here, with this epoch.
    Collecting(u64),
    /// Holds the lease but has stopped by itself; someone must act.
    Stopped(String),
}

/// A source on this node, for those who show it.
#[derive(Clone, Default)]
pub(crate) struct SourceView {
    /// What it does.
    pub(crate) state: Arc<Mutex<SourceState>>,
    /// Its numbers.
    pub(crate) progress: SharedProgress,
}

/// What it takes to run a source.
#[derive(Clone)]
pub(crate) struct SourceTask {
    pub(crate) spec: Arc<PipelineSpec>,
    /// The topic that the pipeline's partitions are frozen for.
    pub(crate) topic_id: [u8; 16],
    pub(crate) partitions: u32,
    pub(crate) boot: u64,
    pub(crate) shared: Arc<FlowShared>,
    pub(crate) m0: GroupRef,
    pub(crate) peers: PeersRef,
    pub(crate) log: Arc<dyn LogPort>,
    pub(crate) blocks: Arc<dyn BlockPort>,
    pub(crate) env: Env,
    pub(crate) tasks: TaskGroup,
    pub(crate) view: SourceView,
}

impl SourceTask {
    /// Contends and collects until it is dropped.
    pub(crate) async fn run(self) {
        loop {
            *self.view.state.lock() = SourceState::Waiting;
            let epoch = self.acquire().await;
            tokio::select! {
                () = self.collect(epoch) => {}
                () = self.renew(epoch) => info!(source = %self.spec.name, epoch, "lease lost"),
            }
            tokio::time::sleep(CONTEND).await;
        }
    }

    fn held(&self) -> Option<Lease> {
        self.shared.read(|state| state.leases.get(&self.spec.name).cloned())
    }

    /// Waits until the lease is ours; returns the epoch.
    async fn acquire(&self) -> u64 {
        let mut silent: (Option<u64>, u32) = (None, 0);
        loop {
            let held = self.held();
            let dead = held.as_ref().filter(|l| !self.peers.is_alive(l.node)).map(|l| l.epoch);
            silent =
                if dead.is_some() && silent.0 == dead { (dead, silent.1 + 1) } else { (dead, 0) };
            let dead = dead.filter(|_| silent.1 >= DEAD_LOOKS);
            if self.may_ask(held.as_ref(), dead) {
                let command = Command::Acquire {
                    name: self.spec.name.clone(),
                    node: self.me(),
                    boot: self.boot,
                    ttl_ms: LEASE_MS,
                    dead,
                };
                if let Ok(Reply::Granted { epoch }) = propose(&self.m0, &command).await {
                    return epoch;
                }
            }
            // Not all nodes at the same moment.
            let jitter = Duration::from_millis(self.env.random.below(200));
            tokio::time::sleep(CONTEND + jitter).await;
        }
    }

    fn me(&self) -> NodeId {
        self.peers.me()
    }

    /// Whether asking for the lease could succeed; the group's own clock decides.
    fn may_ask(&self, held: Option<&Lease>, dead: Option<u64>) -> bool {
        let Some(held) = held else { return true };
        held.node == self.me() || dead.is_some() || held.expires_ms <= self.env.clock.unix_ms()
    }

    /// Renews until the lease is lost.
    async fn renew(&self, epoch: u64) {
        let command = Command::Renew {
            name: self.spec.name.clone(),
            boot: self.boot,
            epoch,
            ttl_ms: LEASE_MS,
        };
        loop {
            tokio::time::sleep(RENEW).await;
            match propose(&self.m0, &command).await {
                Ok(Reply::Done) => {}
                Ok(_) => return,
                // No leader: nobody else can take the lease either.
                Err(error) => warn!(source = %self.spec.name, %error, "lease not renewed"),
            }
        }
    }

    /// Waits until the topic is there. One that was made anew has no ledger yet, and perhaps other
    /// partitions: that is noted first, and starts the source again.
    async fn topic_is_ours(&self) {
        loop {
            if let Some(topic) = self.log.topic(&self.spec.topic) {
                if topic.id == self.topic_id {
                    return;
                }
                let command = Command::Refreeze {
                    name: self.spec.name.clone(),
                    topic_id: topic.id,
                    partitions: u32::try_from(topic.groups.len()).unwrap_or(u32::MAX),
                };
                if let Err(error) = propose(&self.m0, &command).await {
                    warn!(source = %self.spec.name, %error, "the new topic is not noted yet");
                }
            }
            tokio::time::sleep(CONTEND).await;
        }
    }

    /// From here on nothing of an older epoch is stored or appended.
    async fn fence(&self, epoch: u64) -> Result<(), SinkError> {
        self.blocks.fence(&self.spec.name, epoch).await?;
        self.log.fence(&self.spec.name, epoch).await
    }

    async fn collect(&self, epoch: u64) {
        let name = &self.spec.name;
        self.topic_is_ours().await;
        while let Err(error) = self.fence(epoch).await {
            warn!(source = %name, %error, "fence not set yet");
            self.view.progress.lock().last_error = Some(format!("fence: {error}"));
            tokio::time::sleep(CONTEND).await;
        }
        let record = match RecordBuilder::new(&self.spec.record) {
            Ok(record) => record,
            Err(error) => return self.stopped(&Stopped::Config(error)).await,
        };
        *self.view.state.lock() = SourceState::Collecting(epoch);
        info!(source = %name, epoch, "collecting");
        let job = Job {
            name: name.clone(),
            source: self.spec.source.clone(),
            record,
            store: self.spec.directory.clone(),
            partitions: self.partitions,
        };
        let connect = connector(&job.source);
        let sinks = Arc::new(ServiceSinks {
            name: name.clone(),
            topic: self.spec.topic.clone(),
            epoch,
            log: self.log.clone(),
            blocks: self.blocks.clone(),
            shared: self.shared.clone(),
            m0: self.m0.clone(),
            ledger: Mutex::default(),
        });
        while let Err(error) = sinks.load(self.partitions).await {
            warn!(source = %name, %error, "ledger not read yet");
            self.view.progress.lock().last_error = Some(format!("ledger: {error}"));
            tokio::time::sleep(CONTEND).await;
        }
        let (env, tasks) = (self.env.clone(), self.tasks.clone());
        let progress = self.view.progress.clone();
        let why = runner::run(job, connect, sinks, env, tasks, progress).await;
        self.stopped(&why).await;
    }

    /// A source that stopped by itself keeps its lease, so that no other node tries the same
    /// login, until it is changed, resumed or retried. A fenced one contends again.
    async fn stopped(&self, why: &Stopped) {
        warn!(source = %self.spec.name, %why, "source stopped");
        if *why == Stopped::Fenced {
            return;
        }
        *self.view.state.lock() = SourceState::Stopped(why.to_string());
        std::future::pending().await
    }
}

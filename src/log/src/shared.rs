//! What machines and services of one node share: created before the groups are.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::{Env, GroupId};
use consensus::StateMachine;
use parking_lot::{Mutex, RwLock};
use segment::SegmentWriter;
use tokio::sync::{Notify, watch};

use crate::data::DataMachine;
use crate::partition::Partition;
use crate::topics::{MetaMachine, Topics};
use crate::transactions::ActiveTxns;
use crate::types::PartKey;

/// Replicas of one data group on this node.
pub(crate) struct GroupView {
    pub(crate) group: GroupId,
    pub(crate) parts: RwLock<BTreeMap<PartKey, Arc<Partition>>>,
    /// Counts replicas that came or went.
    pub(crate) changes: watch::Sender<u64>,
    /// Transactions whose ids this group coordinates.
    pub(crate) txns: ActiveTxns,
}

impl GroupView {
    pub(crate) fn get(&self, key: &PartKey) -> Option<Arc<Partition>> {
        self.parts.read().get(key).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Partition>> {
        self.parts.read().values().cloned().collect()
    }
}

/// State of the log on one node. Make it first, then the machines, then the groups with them,
/// then the [`crate::LogService`].
#[derive(Clone)]
pub struct LogShared(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) env: Env,
    pub(crate) writer: SegmentWriter,
    pub(crate) parts_dir: PathBuf,
    pub(crate) topics: Topics,
    /// Told of every new plan of compaction.
    pub(crate) compactions: Notify,
    groups: Mutex<BTreeMap<GroupId, Arc<GroupView>>>,
}

impl LogShared {
    /// State that keeps its segments in `parts` below the node's data directory.
    pub fn new(env: Env, data_dir: &Path, writer: SegmentWriter) -> io::Result<Self> {
        let parts_dir = data_dir.join("parts");
        env.disk.create_dir_all(&parts_dir)?;
        env.disk.sync_dir(data_dir)?;
        let (topics, compactions, groups) = Default::default();
        Ok(Self(Arc::new(Inner { env, writer, parts_dir, topics, compactions, groups })))
    }

    /// The machine for tag `LOG` in `m0`.
    pub fn machine_m0(&self) -> Box<dyn StateMachine> {
        Box::new(MetaMachine::new(self.0.topics.clone()))
    }

    /// The machine for tag `LOG` in a data group.
    pub fn machine_data(&self, group: GroupId) -> Box<dyn StateMachine> {
        Box::new(DataMachine::new(self.clone(), self.view(group)))
    }

    /// Topics as this node has applied them.
    pub(crate) fn topics(&self) -> &Topics {
        &self.0.topics
    }

    pub(crate) fn view(&self, group: GroupId) -> Arc<GroupView> {
        let mut groups = self.0.groups.lock();
        let view = groups.entry(group).or_insert_with(|| {
            let (parts, changes) = (RwLock::default(), watch::Sender::new(0));
            Arc::new(GroupView { group, parts, changes, txns: ActiveTxns::default() })
        });
        view.clone()
    }

    /// Directory of a group's replicas.
    pub(crate) fn group_dir(&self, group: GroupId) -> PathBuf {
        self.0.parts_dir.join(group.to_string())
    }
}

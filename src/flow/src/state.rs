//! The replicated state in `m0`: pipelines, the lease of each source's lister, and the quarantine.
//!
//! Rows: `p` + name → [`Pipeline`], `l` + name → [`Lease`], `q` + name + NUL + id →
//! [`Quarantined`]. A deleted pipeline keeps its row, because its partition count must stay the
//! same if it is declared again, and its lease, because epochs must never go back.
//!
//! A lease only saves work: what makes two listers harmless is the epoch, which every data group
//! holds as a fence. So a lease may be taken over as soon as its holder seems dead.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::NodeId;
use base::codec::{decode, encode};
use bytes::Bytes;
use consensus::{ApplyAt, Fatal, Rows, StateMachine};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Pipelines in a cluster, deleted ones included.
pub const MAX_PIPELINES: usize = 1_000;
/// Quarantined items of one pipeline; further ones are only counted.
pub const MAX_QUARANTINED: usize = 10_000;
/// Bytes of a declaration.
pub const MAX_SPEC_BYTES: usize = 64 * 1024;

/// A pipeline as replicated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pipeline {
    /// The declaration as JSON, secrets included.
    pub spec: String,
    /// Grows with every change.
    pub revision: u64,
    /// Id of the topic.
    pub topic_id: [u8; 16],
    /// Partitions that files are spread over, frozen at creation.
    pub partitions: u32,
    /// No collecting.
    pub source_paused: bool,
    /// No collecting and no processing.
    pub paused: bool,
    /// Deleted; the row only keeps the facts that must not change.
    pub deleted: bool,
    /// Quarantined items that were not kept.
    pub dropped: u64,
}

impl Pipeline {
    /// Partitions are frozen while the topic is the same: the ledger of a file lies in its
    /// partition.
    fn freeze(&mut self, topic_id: [u8; 16], partitions: u32) {
        if self.topic_id != topic_id {
            self.topic_id = topic_id;
            self.partitions = partitions;
        }
    }
}

/// Who lists a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The node.
    pub node: NodeId,
    /// Which run of that node.
    pub boot: u64,
    /// Grows with every new holder.
    pub epoch: u64,
    /// Until when, in the group's time.
    pub expires_ms: i64,
}

/// What was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// A file's path, or partition and offset of a record.
    pub what: String,
    /// Why.
    pub error: String,
    /// After how many attempts.
    pub attempts: u32,
    /// Size and time of a file.
    pub stat: Option<(u64, i64)>,
    /// When.
    pub time_ms: i64,
}

/// Which part of a pipeline is paused or resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// Collecting only.
    Source,
    /// Everything.
    Whole,
}

/// Commands. Append-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Declares a pipeline or changes it. Partitions count only for a new topic.
    Put {
        name: String,
        spec: String,
        topic_id: [u8; 16],
        partitions: u32,
    },
    Delete {
        name: String,
    },
    Pause {
        name: String,
        part: Part,
        on: bool,
    },
    /// Takes the lease when it is free, over, the caller's own, or `dead`.
    Acquire {
        name: String,
        node: NodeId,
        boot: u64,
        ttl_ms: i64,
        dead: Option<u64>,
    },
    Renew {
        name: String,
        boot: u64,
        epoch: u64,
        ttl_ms: i64,
    },
    Quarantine {
        name: String,
        id: Vec<u8>,
        item: Quarantined,
    },
    /// Releases the files of the quarantine. Records stay: their place in the topic has passed.
    Retry {
        name: String,
    },
    /// The topic of a pipeline was made anew, with these partitions.
    Refreeze {
        name: String,
        topic_id: [u8; 16],
        partitions: u32,
    },
}

/// Replies. Append-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reply {
    Done,
    Unknown,
    TooMany,
    Granted {
        epoch: u64,
    },
    Held(Lease),
    Lost,
    /// So many files left the quarantine, and so many records stay there.
    Retried {
        released: u32,
        kept: u32,
    },
}

/// Everything replicated, in memory.
#[derive(Clone, Debug, Default)]
pub struct FlowState {
    /// Pipelines by name, deleted ones included.
    pub pipelines: BTreeMap<String, Pipeline>,
    /// Leases by pipeline.
    pub leases: BTreeMap<String, Lease>,
    /// Quarantine by pipeline and id.
    pub quarantine: BTreeMap<String, BTreeMap<Vec<u8>, Quarantined>>,
}

/// What the machine fills and the service reads; exists before the groups.
#[derive(Default)]
pub struct FlowShared {
    state: RwLock<FlowState>,
    version: watch::Sender<u64>,
}

impl FlowShared {
    /// Nothing yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// The machine of tag [`consensus::tags::FLOW`] in group `m0`.
    pub fn machine_m0(self: &Arc<Self>) -> Box<dyn StateMachine> {
        Box::new(Machine(self.clone()))
    }

    /// Reads the state as applied on this node.
    pub fn read<T>(&self, look: impl FnOnce(&FlowState) -> T) -> T {
        look(&self.state.read())
    }

    /// Follows changes.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}

struct Machine(Arc<FlowShared>);

impl StateMachine for Machine {
    fn apply(&mut self, at: &ApplyAt, command: Bytes, rows: &mut Rows<'_>) -> Result<Bytes, Fatal> {
        let command: Command = decode(&command)?;
        let (reply, changes) = {
            let mut state = self.0.state.write();
            state.apply(at.time_ms, command)
        };
        for (key, value) in changes {
            match value {
                Some(value) => rows.put(&key, value),
                None => rows.delete(&key),
            }
        }
        self.0.version.send_modify(|version| *version += 1);
        Ok(encode(&reply).into())
    }

    fn restore(&mut self, rows: &Rows<'_>) -> Result<(), Fatal> {
        let mut state = FlowState::default();
        let text = |bytes: &[u8]| {
            String::from_utf8(bytes.to_vec()).map_err(|_| Fatal("a flow row has no name".into()))
        };
        for (key, value) in rows.scan(b"p")? {
            state.pipelines.insert(text(key.get(1..).unwrap_or_default())?, decode(&value)?);
        }
        for (key, value) in rows.scan(b"l")? {
            state.leases.insert(text(key.get(1..).unwrap_or_default())?, decode(&value)?);
        }
        for (key, value) in rows.scan(b"q")? {
            let mut parts = key.get(1..).unwrap_or_default().splitn(2, |b| *b == 0);
            let name = text(parts.next().unwrap_or_default())?;
            let id = parts.next().unwrap_or_default().to_vec();
            state.quarantine.entry(name).or_default().insert(id, decode(&value)?);
        }
        *self.0.state.write() = state;
        self.0.version.send_modify(|version| *version += 1);
        Ok(())
    }

    fn digest(&mut self, add: &mut dyn FnMut(&[u8])) -> Result<(), Fatal> {
        let state = self.0.state.read();
        add(&encode(&(&state.pipelines, &state.leases, &state.quarantine)));
        Ok(())
    }
}

type Changes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

fn key(kind: u8, name: &str) -> Vec<u8> {
    [&[kind], name.as_bytes()].concat()
}

fn quarantine_key(name: &str, id: &[u8]) -> Vec<u8> {
    [b"q", name.as_bytes(), &[0], id].concat()
}

impl FlowState {
    fn apply(&mut self, now_ms: i64, command: Command) -> (Reply, Changes) {
        let mut changes = Changes::new();
        let reply = match command {
            Command::Put { name, spec, topic_id, partitions } => {
                self.put(name, spec, (topic_id, partitions), &mut changes)
            }
            Command::Delete { name } => self.change(&name, &mut changes, |p| p.deleted = true),
            Command::Pause { name, part, on } => self.change(&name, &mut changes, |p| match part {
                Part::Source => p.source_paused = on,
                Part::Whole => p.paused = on,
            }),
            Command::Acquire { name, node, boot, ttl_ms, dead } => {
                let next = Lease { node, boot, epoch: 1, expires_ms: now_ms + ttl_ms };
                self.acquire(name, next, now_ms, dead, &mut changes)
            }
            Command::Renew { name, boot, epoch, ttl_ms } => match self.leases.get_mut(&name) {
                Some(lease) if lease.boot == boot && lease.epoch == epoch => {
                    lease.expires_ms = now_ms + ttl_ms;
                    changes.push((key(b'l', &name), Some(encode(lease))));
                    Reply::Done
                }
                _ => Reply::Lost,
            },
            Command::Quarantine { name, id, item } => {
                let item = Quarantined { time_ms: now_ms, ..item };
                self.give_up(name, id, item, &mut changes)
            }
            Command::Refreeze { name, topic_id, partitions } => {
                self.change(&name, &mut changes, |p| p.freeze(topic_id, partitions))
            }
            Command::Retry { name } => {
                let (mut released, mut kept) = (0, 0);
                if let Some(items) = self.quarantine.get_mut(&name) {
                    items.retain(|id, item| {
                        let record = item.stat.is_none();
                        if record {
                            kept += 1;
                        } else {
                            released += 1;
                            changes.push((quarantine_key(&name, id), None));
                        }
                        record
                    });
                }
                match self.change(&name, &mut changes, |p| p.dropped = 0) {
                    Reply::Done => Reply::Retried { released, kept },
                    other => other,
                }
            }
        };
        (reply, changes)
    }

    fn put(
        &mut self,
        name: String,
        spec: String,
        (topic_id, partitions): ([u8; 16], u32),
        changes: &mut Changes,
    ) -> Reply {
        if self.pipelines.len() >= MAX_PIPELINES && !self.pipelines.contains_key(&name) {
            return Reply::TooMany;
        }
        let pipeline = self.pipelines.entry(name.clone()).or_default();
        pipeline.spec = spec;
        pipeline.revision += 1;
        pipeline.deleted = false;
        pipeline.freeze(topic_id, partitions);
        changes.push((key(b'p', &name), Some(encode(pipeline))));
        Reply::Done
    }

    fn change(
        &mut self,
        name: &str,
        changes: &mut Changes,
        act: impl FnOnce(&mut Pipeline),
    ) -> Reply {
        let Some(pipeline) = self.pipelines.get_mut(name).filter(|p| !p.deleted) else {
            return Reply::Unknown;
        };
        act(pipeline);
        pipeline.revision += 1;
        changes.push((key(b'p', name), Some(encode(pipeline))));
        Reply::Done
    }

    fn acquire(
        &mut self,
        name: String,
        mut next: Lease,
        now_ms: i64,
        dead: Option<u64>,
        changes: &mut Changes,
    ) -> Reply {
        if let Some(held) = self.leases.get(&name) {
            // A node runs one task per source: what held the lease there before is over, and the
            // new epoch fences whatever of it is still under way.
            let own_past = held.node == next.node;
            if held.expires_ms > now_ms && dead != Some(held.epoch) && !own_past {
                return Reply::Held(held.clone());
            }
            next.epoch = held.epoch + 1;
        }
        let epoch = next.epoch;
        changes.push((key(b'l', &name), Some(encode(&next))));
        self.leases.insert(name, next);
        Reply::Granted { epoch }
    }

    fn give_up(
        &mut self,
        name: String,
        id: Vec<u8>,
        item: Quarantined,
        changes: &mut Changes,
    ) -> Reply {
        let Some(pipeline) = self.pipelines.get_mut(&name) else { return Reply::Unknown };
        let items = self.quarantine.entry(name.clone()).or_default();
        if items.len() >= MAX_QUARANTINED && !items.contains_key(&id) {
            pipeline.dropped += 1;
            changes.push((key(b'p', &name), Some(encode(pipeline))));
            return Reply::TooMany;
        }
        changes.push((quarantine_key(&name, &id), Some(encode(&item))));
        items.insert(id, item);
        Reply::Done
    }
}

#[cfg(test)]
mod tests {
    use base::GroupId;
    use consensus::solo::SoloGroup;
    use consensus::tags;

    use super::*;

    fn group() -> (Arc<FlowShared>, Arc<SoloGroup>) {
        let shared = FlowShared::new();
        let machines = vec![(tags::FLOW, shared.machine_m0())];
        (shared, SoloGroup::new(GroupId::M0, machines))
    }

    fn send(group: &SoloGroup, command: Command) -> Reply {
        decode(&group.apply(tags::FLOW, encode(&command).into()).reply).unwrap()
    }

    fn acquire(node: u16, boot: u64, dead: Option<u64>) -> Command {
        Command::Acquire { name: "n".into(), node: NodeId(node), boot, ttl_ms: 5000, dead }
    }

    #[test]
    fn one_node_holds_the_lease_and_epochs_grow() {
        let (shared, group) = group();
        assert_eq!(send(&group, acquire(1, 7, None)), Reply::Granted { epoch: 1 });
        assert!(matches!(send(&group, acquire(2, 8, None)), Reply::Held(l) if l.epoch == 1));
        assert_eq!(send(&group, acquire(2, 8, Some(1))), Reply::Granted { epoch: 2 });
        let renew = |boot, epoch| Command::Renew { name: "n".into(), boot, epoch, ttl_ms: 5000 };
        assert_eq!(send(&group, renew(7, 1)), Reply::Lost);
        assert_eq!(send(&group, renew(8, 2)), Reply::Done);
        group.advance_ms(5001);
        assert_eq!(send(&group, acquire(1, 7, None)), Reply::Granted { epoch: 3 });
        assert_eq!(send(&group, acquire(1, 9, None)), Reply::Granted { epoch: 4 }, "after restart");
        assert_eq!(shared.read(|s| s.leases["n"].boot), 9);
    }

    #[test]
    fn partitions_are_frozen_and_survive_deletion() {
        let (shared, group) = group();
        let put = |topic, partitions| Command::Put {
            name: "n".into(),
            spec: "{}".into(),
            topic_id: [topic; 16],
            partitions,
        };
        assert_eq!(send(&group, put(1, 3)), Reply::Done);
        assert_eq!(send(&group, Command::Delete { name: "n".into() }), Reply::Done);
        assert_eq!(send(&group, Command::Delete { name: "n".into() }), Reply::Unknown);
        assert_eq!(send(&group, put(1, 6)), Reply::Done);
        assert_eq!(shared.read(|s| s.pipelines["n"].partitions), 3);
        assert_eq!(send(&group, put(2, 6)), Reply::Done);
        assert_eq!(shared.read(|s| s.pipelines["n"].partitions), 6);
        let refreeze = |topic, partitions| Command::Refreeze {
            name: "n".into(),
            topic_id: [topic; 16],
            partitions,
        };
        assert_eq!(send(&group, refreeze(2, 9)), Reply::Done);
        assert_eq!(shared.read(|s| s.pipelines["n"].partitions), 6, "the same topic");
        assert_eq!(send(&group, refreeze(3, 2)), Reply::Done);
        assert_eq!(shared.read(|s| s.pipelines["n"].partitions), 2);
        assert_eq!(send(&group, Command::Delete { name: "n".into() }), Reply::Done);
        assert_eq!(send(&group, refreeze(4, 1)), Reply::Unknown, "it stays deleted");
    }

    #[test]
    fn a_retry_releases_the_files_of_the_quarantine() {
        let (shared, group) = group();
        send(
            &group,
            Command::Put { name: "n".into(), spec: "{}".into(), topic_id: [1; 16], partitions: 3 },
        );
        let item = Quarantined {
            what: "a.txt".into(),
            error: "bad".into(),
            attempts: 8,
            stat: Some((1, 2)),
            time_ms: 0,
        };
        let record = Quarantined { what: "news-0@7".into(), stat: None, ..item.clone() };
        for (id, item) in [(vec![0, 1], &item), (vec![0, 2], &item), (vec![1, 1], &record)] {
            let command = Command::Quarantine { name: "n".into(), id, item: item.clone() };
            assert_eq!(send(&group, command), Reply::Done);
        }
        // What the rows hold is what the memory holds.
        let before = shared.read(Clone::clone);
        let mut pending = BTreeMap::new();
        let store = consensus::MemStore::default();
        let mut machine = Machine(shared.clone());
        for (key, value) in group.reader(tags::FLOW).scan(b"", None, 100).unwrap() {
            Rows::new(&store, &mut pending, tags::FLOW).put(&key, value);
        }
        machine.restore(&Rows::new(&store, &mut pending, tags::FLOW)).unwrap();
        shared.read(|after| {
            assert_eq!(after.quarantine, before.quarantine);
            assert_eq!(after.pipelines, before.pipelines);
        });
        assert_eq!(shared.read(|s| s.quarantine["n"].len()), 3);
        let retried = Reply::Retried { released: 2, kept: 1 };
        assert_eq!(send(&group, Command::Retry { name: "n".into() }), retried);
        assert_eq!(send(&group, Command::Retry { name: "m".into() }), Reply::Unknown);
        assert_eq!(shared.read(|s| s.quarantine["n"].len()), 1);
        assert_eq!(group.reader(tags::FLOW).scan(b"q", None, 9).unwrap().len(), 1);
    }
}

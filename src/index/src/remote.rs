//! What nodes ask of each other.

use std::sync::Weak;
use std::time::Duration;

use async_trait::async_trait;
use base::NodeId;
use base::codec::{decode, encode, try_encode};
use bytes::Bytes;
use consensus::{Lane, Message, PeerHandler};
use futures::future::join_all;
use serde::{Deserialize, Serialize};

use crate::command::read_shard;
use crate::docs::{ShardWrite, write_states};
use crate::limits::{FACTS_TIMEOUT, REFRESH_TIMEOUT};
use crate::model::ShardId;
use crate::service::IndexService;
use crate::wire::Reader;

/// Writes for a shard that the callee leads.
pub(crate) const METHOD_WRITE: u16 = 0x0401;
/// Make shards searchable up to given numbers.
pub(crate) const METHOD_REFRESH: u16 = 0x0402;
/// Documents by id.
pub(crate) const METHOD_GET: u16 = 0x0403;
/// Sizes of the callee's copies.
pub(crate) const METHOD_FACTS: u16 = 0x0404;
/// Apply what `m0` has acknowledged.
pub(crate) const METHOD_SYNC: u16 = 0x0406;
/// Merge segments or sync shards.
pub(crate) const METHOD_MAINTAIN: u16 = 0x0407;

/// Most documents of one `METHOD_GET`.
const MAX_GET: u32 = 100_000;

/// One copy as its node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyFacts {
    /// Which shard.
    pub shard: ShardId,
    /// Whether it serves.
    pub started: bool,
    /// Live documents.
    pub docs: u64,
    /// Deleted documents not merged away.
    pub deleted: u64,
    /// Bytes of the search index.
    pub store_bytes: u64,
    /// Segments of the search index.
    pub segments: u64,
    /// Bytes of the translog.
    pub translog_bytes: u64,
    /// The number that the next operation gets.
    pub next_seq_no: u64,
}

/// What is to be done with shards beyond refreshing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Maintenance {
    /// Sync to disk.
    Flush,
    /// Merge into one segment.
    Merge,
}

/// Answers the other nodes.
pub(crate) struct Handler(pub(crate) Weak<IndexService>);

#[async_trait]
impl PeerHandler for Handler {
    async fn handle(
        &self,
        _from: NodeId,
        method: u16,
        request: Message,
    ) -> Result<Message, String> {
        let service = self.0.upgrade().ok_or("the index service has stopped")?;
        let text = |e: &dyn std::fmt::Display| e.to_string();
        match method {
            METHOD_WRITE => {
                let write = ShardWrite::decode(request.payload).map_err(|e| text(&e))?;
                // Errors may repeat much of what was sent.
                let written = try_encode(&service.write_here(write).await);
                written.map(Message::head).map_err(|e| text(&e))
            }
            METHOD_REFRESH => {
                let targets: Vec<(ShardId, u64)> = decode(&request.head).map_err(|e| text(&e))?;
                let done = service.refresh_here(&targets).await;
                Ok(Message::head(encode(&done)))
            }
            METHOD_GET => {
                let (shard, ids) = read_get(request.payload)?;
                // What the asker was told is written may not have been applied here yet.
                let copy = service.shared.copy(shard).ok_or("no such shard here")?;
                let barrier = service.group(copy.group).map_err(|e| text(&e))?.read_barrier();
                barrier.await.map_err(|e| text(&e))?;
                let found = service.get_here(shard, ids).await.map_err(|e| text(&e))?;
                Ok(Message { head: Bytes::new(), payload: write_states(&found) })
            }
            METHOD_FACTS => {
                let shards: Vec<ShardId> = decode(&request.head).map_err(|e| text(&e))?;
                Ok(Message::head(encode(&service.facts_here(&shards))))
            }
            METHOD_SYNC => {
                service.groups.m0.read_barrier().await.map_err(|e| text(&e))?;
                Ok(Message::default())
            }
            METHOD_MAINTAIN => {
                let (shards, what): (Vec<ShardId>, Maintenance) =
                    decode(&request.head).map_err(|e| text(&e))?;
                Ok(Message::head(encode(&service.maintain_here(&shards, what).await)))
            }
            other => Err(format!("the index service has no method {other:#06x}")),
        }
    }
}

fn read_get(payload: Bytes) -> Result<(ShardId, Vec<String>), String> {
    let mut input = Reader::new(payload);
    let shard = read_shard(&mut input).map_err(|e| e.to_string())?;
    let count = input.u32().map_err(|e| e.to_string())?;
    if count > MAX_GET {
        return Err(format!("{count} documents at once"));
    }
    let ids = (0..count).map(|_| input.text()).collect::<Result<Vec<_>, _>>();
    Ok((shard, ids.map_err(|e| e.to_string())?))
}

impl IndexService {
    /// Lets every node that answers apply what `m0` has acknowledged, so that a client may go on
    /// at another node. A node that does not answer in time will see it later.
    pub(crate) async fn spread_catalog(&self) {
        let others = self.nodes().into_iter().filter(|(node, alive)| *alive && *node != self.me());
        let calls = others.map(|(node, _)| async move {
            let call = self.peers.call(
                node,
                Lane::Control,
                METHOD_SYNC,
                Message::default(),
                FACTS_TIMEOUT,
            );
            if let Err(error) = call.await {
                tracing::debug!(%node, "a node does not follow the catalog: {error}");
            }
        });
        let here = async {
            // The proposal may have been applied on another node only.
            if let Err(error) = self.groups.m0.read_barrier().await {
                tracing::debug!("this node does not follow the catalog: {error}");
            }
        };
        futures::join!(here, join_all(calls));
    }

    /// Makes everything acknowledged before the call searchable on every copy that can answer.
    /// Returns how many copies did and how many there should be.
    pub async fn refresh(&self, shards: &[ShardId], copies_of: u32) -> (u32, u32) {
        let mut targets = Vec::new();
        for id in shards {
            let Some(copy) = self.shared.copy(*id) else { continue };
            if let Ok(group) = self.group(copy.group)
                && let Err(error) = group.read_barrier().await
            {
                tracing::debug!(shard = ?id, "refreshing what is known here: {error}");
            }
            targets.push((*id, copy.next_seq_no()));
        }
        let total = u32::try_from(shards.len()).unwrap_or(u32::MAX) * copies_of;
        let head = Bytes::from(encode(&targets));
        let calls = self.nodes().into_iter().filter(|(_, alive)| *alive).map(|(node, _)| {
            let head = head.clone();
            let targets = &targets;
            async move {
                if node == self.me() {
                    return self.refresh_here(targets).await;
                }
                let timeout = REFRESH_TIMEOUT + Duration::from_secs(1);
                let request = Message::head(head);
                let call = self.peers.call(node, Lane::Control, METHOD_REFRESH, request, timeout);
                let answer = call.await.ok();
                answer.and_then(|m| decode::<u32>(&m.head).ok()).unwrap_or(0)
            }
        });
        let done: u32 = join_all(calls).await.into_iter().sum();
        (done.min(total), total)
    }

    /// Makes this node's copies searchable up to the given numbers; how many got there.
    pub(crate) async fn refresh_here(&self, targets: &[(ShardId, u64)]) -> u32 {
        let waits = targets.iter().map(|(id, next)| async move {
            let Some(copy) = self.shared.copy(*id) else { return false };
            copy.want_searchable(*next);
            let mut searchable = copy.watch_searchable();
            let reached = searchable.wait_for(|at| at >= next);
            tokio::time::timeout(REFRESH_TIMEOUT, reached).await.is_ok_and(|r| r.is_ok())
        });
        let reached = join_all(waits).await;
        u32::try_from(reached.into_iter().filter(|ok| *ok).count()).unwrap_or(u32::MAX)
    }

    /// Facts of this node's copies.
    pub(crate) fn facts_here(&self, shards: &[ShardId]) -> Vec<CopyFacts> {
        let copies = shards.iter().filter_map(|id| self.shared.copy(*id));
        let facts = copies.map(|copy| {
            let stats = copy.engine().map(|engine| engine.stats()).unwrap_or_default();
            CopyFacts {
                shard: copy.id,
                started: copy.is_started(),
                docs: stats.docs,
                deleted: stats.deleted,
                store_bytes: stats.store_bytes,
                segments: stats.segments,
                translog_bytes: copy.stream.total_len(),
                next_seq_no: copy.next_seq_no(),
            }
        });
        facts.collect()
    }

    /// Facts of the copies on every node that answers within a second.
    pub async fn facts(&self, shards: &[ShardId]) -> Vec<(NodeId, Vec<CopyFacts>)> {
        let head = Bytes::from(encode(&shards.to_vec()));
        let calls = self.nodes().into_iter().filter(|(_, alive)| *alive).map(|(node, _)| {
            let head = head.clone();
            async move {
                if node == self.me() {
                    return Some((node, self.facts_here(shards)));
                }
                let request = Message::head(head);
                let call =
                    self.peers.call(node, Lane::Control, METHOD_FACTS, request, FACTS_TIMEOUT);
                let answer = call.await.ok()?;
                Some((node, decode(&answer.head).ok()?))
            }
        });
        join_all(calls).await.into_iter().flatten().collect()
    }

    /// Flushes or merges shards on every node that answers; how many copies did.
    pub async fn maintain(&self, shards: &[ShardId], what: Maintenance) -> u32 {
        let head = Bytes::from(encode(&(shards.to_vec(), what)));
        let calls = self.nodes().into_iter().filter(|(_, alive)| *alive).map(|(node, _)| {
            let head = head.clone();
            async move {
                if node == self.me() {
                    return self.maintain_here(shards, what).await;
                }
                let request = Message::head(head);
                let timeout = crate::limits::SEARCH_TIMEOUT;
                let call = self.peers.call(node, Lane::Control, METHOD_MAINTAIN, request, timeout);
                let answer = call.await.ok();
                answer.and_then(|m| decode::<u32>(&m.head).ok()).unwrap_or(0)
            }
        });
        join_all(calls).await.into_iter().sum()
    }

    pub(crate) async fn maintain_here(&self, shards: &[ShardId], what: Maintenance) -> u32 {
        let mut done = 0;
        for id in shards {
            let Some(copy) = self.shared.copy(*id) else { continue };
            let Some(engine) = copy.engine() else { continue };
            let work = move || match what {
                // Operations are durable in the group's log; the index catches up from there.
                Maintenance::Flush => engine.refresh().map(|_| ()),
                Maintenance::Merge => engine.force_merge(),
            };
            match tokio::task::spawn_blocking(work).await {
                Ok(Ok(())) => done += 1,
                Ok(Err(error)) => tracing::warn!(shard = ?id, "maintenance failed: {error}"),
                Err(error) => tracing::warn!(shard = ?id, "maintenance failed: {error}"),
            }
        }
        done
    }
}

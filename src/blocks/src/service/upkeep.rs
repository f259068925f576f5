//! What the service does by itself.
//!
//! On the leader of `fs`: lost and missing copies are restored, leases and old replies expire,
//! deleted trees are removed. On every node: doomed blocks are removed and confirmed, garbage is
//! collected by age, the blocks that the namespace credits this node with are compared with what
//! is there, and everything is read through now and then (scrub).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base::{NodeId, codec};
use bytes::Bytes;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::BlockService;
use super::peer::{Ask, bit, slot};
use crate::command::Command;
use crate::error::BlockError;
use crate::limits::{
    PACK_BLOCK_BYTES, REPAIR_BATCH, REPAIR_BYTES, REPAIR_PAGE, SCRUB_BYTES_PER_TICK,
};
use crate::store::record::BlockMeta;
use crate::types::Caller;

const TICK: Duration = Duration::from_secs(1);
/// Blocks compared with the namespace at once.
const PAGE: usize = 1_000;
/// Ticks between two looks for garbage and lost blocks; the first comes after `FIRST_LOOK`.
const LOOK_EVERY: u64 = 60;
const FIRST_LOOK: u64 = 5;
/// Ticks between expiries.
const EXPIRE_EVERY: u64 = 10;
/// Ticks between two compactions.
const COMPACT_EVERY: u32 = 30;
/// A commit this young may still get its third copy by itself.
const SETTLE_TICKS: u64 = 2;

pub(crate) fn start(service: &Arc<BlockService>, bad: mpsc::Receiver<(NodeId, u64)>) {
    let tasks = &service.tasks;
    tasks.spawn("fs-leader", lead(service.clone()));
    tasks.spawn("block-drain", drain(service.clone()));
    tasks.spawn("block-garbage", look_after(service.clone()));
    tasks.spawn("block-compact", compact(service.clone()));
    tasks.spawn("block-scrub", scrub(service.clone()));
    tasks.spawn("block-mend", mend(service.clone(), bad));
}

fn meta(id: u64, block: &crate::namespace::BlockRow) -> BlockMeta {
    BlockMeta { id, gs: block.gs, len: block.len, digest: block.digest }
}

/// What the leader remembers of incomplete blocks.
#[derive(Default)]
struct Seen {
    /// Where the walk has come to.
    after: u64,
    /// The tick at which a living node was first seen to lack a block.
    since: BTreeMap<u64, u64>,
}

async fn lead(service: Arc<BlockService>) {
    let mut seen = Seen::default();
    for tick in 0u64.. {
        tokio::time::sleep(TICK).await;
        if !service.fs.leadership().ready_here {
            seen = Seen::default();
            continue;
        }
        if tick % EXPIRE_EVERY == 0 && service.has_old_state() {
            service.quietly(Command::Expire).await;
        }
        while !service.shared.namespace.read().graveyard.is_empty() {
            if !service.quietly(Command::Purge).await {
                break;
            }
        }
        service.restore_copies(tick, &mut seen).await;
    }
}

impl BlockService {
    /// Proposes something that is proposed again later when it fails.
    async fn quietly(&self, command: Command) -> bool {
        let result = self.propose(&Caller::system(), None, command).await;
        if let Err(error) = &result {
            warn!(%error, "upkeep of the namespace is delayed");
        }
        result.is_ok()
    }

    fn has_old_state(&self) -> bool {
        self.shared.namespace.read().has_old_state(self.shared.env.clock.unix_ms())
    }

    /// Lets living nodes get the copies they lack.
    async fn restore_copies(self: &Arc<Self>, tick: u64, seen: &mut Seen) {
        let alive: Vec<NodeId> =
            self.peers.all().into_iter().filter(|node| self.peers.is_alive(*node)).collect();
        let mut work: BTreeMap<NodeId, (u64, Vec<(BlockMeta, u8)>)> = BTreeMap::new();
        {
            let namespace = self.shared.namespace.read();
            seen.since.retain(|id, _| namespace.partial.contains(id));
            let page: Vec<u64> =
                namespace.partial.range(seen.after + 1..).take(REPAIR_PAGE).copied().collect();
            // A long list is walked page by page, round and round.
            seen.after = page.last().copied().filter(|_| page.len() == REPAIR_PAGE).unwrap_or(0);
            for id in page {
                let Some(block) = namespace.blocks.get(&id) else { continue };
                let lacking = alive.iter().filter(|node| block.replicas & bit(**node) == 0);
                for node in lacking {
                    if tick - *seen.since.entry(id).or_insert(tick) < SETTLE_TICKS {
                        continue;
                    }
                    let (bytes, list) = work.entry(*node).or_default();
                    let full = list.len() >= REPAIR_BATCH || *bytes + block.len > REPAIR_BYTES;
                    if list.is_empty() || !full {
                        *bytes += block.len;
                        list.push((meta(id, block), block.replicas));
                    }
                }
            }
        }
        for (node, (_, list)) in work {
            self.let_pull(node, list).await;
        }
    }

    /// Tells a node to get or mend blocks and records what it has then.
    async fn let_pull(&self, node: NodeId, list: Vec<(BlockMeta, u8)>) {
        let wanted = list.len();
        let answer = self.ask(node, &Ask::Pull(list), Bytes::new()).await;
        let good = answer.and_then(|answer| {
            let good = codec::decode::<Vec<u64>>(&answer.head);
            good.map_err(|e| BlockError::Unavailable(e.to_string()))
        });
        match (good, slot(node)) {
            (Ok(good), Some(slot)) => {
                let count = good.len();
                self.repaired.fetch_add(count as u64, Ordering::Relaxed);
                self.report_copies(slot, good, Vec::new()).await;
                info!(%node, wanted, restored = count, "block copies were restored");
            }
            (Err(error), _) => warn!(%node, %error, "a node could not be given its copies"),
            (Ok(_), None) => {}
        }
    }
}

/// Removes doomed blocks of this node.
async fn drain(service: Arc<BlockService>) {
    let me = service.peers.me();
    let (Some(slot), bit) = (slot(me), bit(me)) else { return };
    loop {
        tokio::time::sleep(TICK).await;
        let grace_ms = i64::try_from(service.shared.options.delete_grace.as_millis());
        let before = {
            let namespace = service.shared.namespace.read();
            let now = namespace.time_ms.max(service.shared.env.clock.unix_ms());
            now.saturating_sub(grace_ms.unwrap_or(i64::MAX))
        };
        let ids: Vec<u64> = {
            let namespace = service.shared.namespace.read();
            let mine = namespace
                .doomed
                .iter()
                .filter(|(_, doomed)| doomed.replicas & bit != 0 && doomed.since_ms <= before);
            mine.map(|(id, _)| *id).take(PAGE).collect()
        };
        if ids.is_empty() {
            continue;
        }
        match service.shared.store.remove(ids.clone()).await {
            Ok(()) => {
                service.quietly(Command::Removed { slot, ids }).await;
            }
            Err(error) => warn!(%error, "deleted blocks could not be removed"),
        }
    }
}

/// Collects garbage, reports lost blocks.
async fn look_after(service: Arc<BlockService>) {
    for tick in 1u64.. {
        tokio::time::sleep(TICK).await;
        if tick % LOOK_EVERY == FIRST_LOOK {
            if let Err(error) = service.collect_garbage().await {
                warn!(%error, "garbage could not be collected");
            }
            if let Err(error) = service.report_lost().await {
                warn!(%error, "lost blocks could not be reported");
            }
        }
    }
}

/// Rewrites dead packs. It may take hours when much was deleted, and nothing else waits for it.
async fn compact(service: Arc<BlockService>) {
    loop {
        tokio::time::sleep(TICK * COMPACT_EVERY).await;
        if let Err(error) = service.shared.store.compact().await {
            warn!(%error, "a pack could not be rewritten");
        }
    }
}

impl BlockService {
    /// Removes blocks that nothing has claimed for long enough.
    pub(crate) async fn collect_garbage(&self) -> Result<(), BlockError> {
        let age = self.shared.options.orphan_age;
        let store = &self.shared.store;
        let failed = |e: crate::store::StoreError| BlockError::Unavailable(e.to_string());
        store.abort_idle(age).await.map_err(failed)?;
        let me = self.peers.me();
        let mut after = 0;
        loop {
            let page = store.page(after, PAGE);
            let Some(last) = page.last() else { return Ok(()) };
            after = last.meta.id;
            let now = self.shared.env.clock.monotonic();
            let old = |local: &&crate::store::Local| now.saturating_sub(local.written) >= age;
            let candidates: Vec<_> = page.iter().filter(old).map(|local| local.meta.id).collect();
            if candidates.is_empty() {
                continue;
            }
            self.fs.read_barrier().await?;
            let (mut garbage, mut uncredited) = (Vec::new(), Vec::new());
            {
                let namespace = self.shared.namespace.read();
                for id in candidates {
                    match (namespace.blocks.get(&id), namespace.doomed.get(&id)) {
                        (Some(block), _) if block.replicas & bit(me) == 0 => uncredited.push(id),
                        (None, None) => garbage.push(id),
                        (Some(_), _) | (None, Some(_)) => {}
                    }
                }
            }
            // A good copy the namespace does not know of is repaired by the leader, who finds it
            // here at once; nothing to do for `uncredited` but to keep it.
            if !garbage.is_empty() || !uncredited.is_empty() {
                let (garbage, kept) = (garbage.len(), uncredited.len());
                info!(garbage, kept, "blocks without a claim were looked at");
            }
            store.remove(garbage).await.map_err(failed)?;
        }
    }

    /// Reports blocks that this node is credited with and does not have.
    pub(crate) async fn report_lost(&self) -> Result<(), BlockError> {
        let me = self.peers.me();
        let Some(slot) = slot(me) else { return Ok(()) };
        self.fs.read_barrier().await?;
        let mut after = 0;
        loop {
            let page: Vec<(u64, BlockMeta, bool)> = {
                let namespace = self.shared.namespace.read();
                let blocks = namespace.blocks.range(after + 1..).take(PAGE);
                blocks.map(|(id, b)| (*id, meta(*id, b), b.replicas & bit(me) != 0)).collect()
            };
            let Some((last, ..)) = page.last() else { return Ok(()) };
            after = *last;
            let store = &self.shared.store;
            let gone = |(id, meta, mine): &&(u64, BlockMeta, bool)| {
                *mine && store.get(*id).is_none_or(|local| local.meta != *meta)
            };
            let lost: Vec<u64> = page.iter().filter(gone).map(|(id, ..)| *id).collect();
            if !lost.is_empty() {
                warn!(blocks = lost.len(), "blocks of this node are lost and will be restored");
                self.report_copies(slot, Vec::new(), lost).await;
            }
        }
    }

    /// Reads the next blocks of this node through; returns whether the pass has ended.
    pub(crate) async fn scrub_step(&self, mut budget: u64) -> bool {
        let after = *self.scrub_at.lock();
        let page = self.shared.store.page(after, PAGE);
        for local in &page {
            let id = local.meta.id;
            let mut offset = 0;
            while offset < local.meta.len {
                let result = self.shared.store.read(id, offset, PACK_BLOCK_BYTES as u64).await;
                if let Err(error) = result
                    && self.shared.store.get(id).is_some()
                {
                    warn!(block = id, %error, "the scrubber found a bad copy");
                    // When the queue is full the next pass finds it again.
                    let _ = self.bad_copies.try_send((self.peers.me(), id));
                    break;
                }
                offset += PACK_BLOCK_BYTES as u64;
            }
            *self.scrub_at.lock() = id;
            budget = budget.saturating_sub(local.meta.len);
            if budget == 0 {
                return false;
            }
        }
        let ended = page.len() < PAGE;
        if ended {
            *self.scrub_at.lock() = 0;
        }
        ended
    }
}

async fn scrub(service: Arc<BlockService>) {
    loop {
        tokio::time::sleep(TICK).await;
        if service.scrub_step(SCRUB_BYTES_PER_TICK).await {
            tokio::time::sleep(TICK * 600).await;
        }
    }
}

/// Mends copies that readers and the scrubber found bad.
async fn mend(service: Arc<BlockService>, mut bad: mpsc::Receiver<(NodeId, u64)>) {
    while let Some(first) = bad.recv().await {
        let mut work: BTreeMap<NodeId, BTreeMap<u64, (BlockMeta, u8)>> = BTreeMap::new();
        let mut next = Some(first);
        for _ in 0..REPAIR_BATCH {
            let Some((node, id)) = next else { break };
            if let Some(block) = service.shared.namespace.read().blocks.get(&id) {
                let entry = (meta(id, block), block.replicas & !bit(node));
                work.entry(node).or_default().insert(id, entry);
            }
            next = bad.try_recv().ok();
        }
        for (node, list) in work {
            service.let_pull(node, list.into_values().collect()).await;
        }
    }
}

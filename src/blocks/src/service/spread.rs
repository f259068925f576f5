//! Writing blocks to all nodes, acknowledged by two.

use std::sync::Arc;
use std::time::Duration;

use base::NodeId;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::BlockService;
use super::peer::{Ask, bit, join, slot};
use crate::chunks;
use crate::command::NewBlock;
use crate::error::BlockError;
use crate::limits::{BULK_CALL, PIECES_IN_FLIGHT, SLOW_PEER, THIRD_COPY_GRACE};
use crate::store::record::BlockMeta;

type Ack = (NodeId, Result<(), BlockError>);

impl BlockService {
    /// Nodes whose sync an acknowledged block needs.
    fn quorum(&self) -> usize {
        self.peers.all().len().min(2)
    }

    /// Nodes to write to: the living ones, or all when too few seem to live.
    fn targets(&self) -> Vec<NodeId> {
        let all = self.peers.all();
        let alive: Vec<NodeId> =
            all.iter().copied().filter(|node| self.peers.is_alive(*node)).collect();
        if alive.len() >= self.quorum() { alive } else { all }
    }

    /// Writes small blocks everywhere; returns the bitmap of nodes that synced them in time.
    /// A later copy is reported by itself.
    pub(crate) async fn spread(
        self: &Arc<Self>,
        parts: &[(BlockMeta, Bytes)],
    ) -> Result<u8, BlockError> {
        let metas: Vec<BlockMeta> = parts.iter().map(|(meta, _)| *meta).collect();
        let ids = metas.iter().map(|meta| meta.id).collect();
        let (payload, ask) = (join(parts), Arc::new(Ask::WriteSmall(metas)));
        let targets = self.targets();
        let (acks, answers) = mpsc::channel(targets.len().max(1));
        for node in targets {
            let (service, ask, payload) = (self.clone(), ask.clone(), payload.clone());
            let acks = acks.clone();
            self.tasks.spawn("block-write", async move {
                let result = service.ask(node, &ask, payload).await.map(|_| ());
                // Nobody waits when the writer was dropped.
                let _ = acks.send((node, result)).await;
            });
        }
        drop(acks);
        self.collect(ids, answers).await
    }

    /// Waits for a quorum, then a little for the rest; goes on in the background for the others.
    async fn collect(
        self: &Arc<Self>,
        ids: Vec<u64>,
        mut answers: mpsc::Receiver<Ack>,
    ) -> Result<u8, BlockError> {
        let quorum = self.quorum();
        let (mut good, mut replicas) = (0, 0u8);
        let mut reasons = Vec::new();
        let mut late = false;
        loop {
            let answer = if good < quorum {
                answers.recv().await
            } else {
                match tokio::time::timeout(THIRD_COPY_GRACE, answers.recv()).await {
                    Ok(answer) => answer,
                    Err(_) => {
                        late = true;
                        break;
                    }
                }
            };
            match answer {
                Some((node, Ok(()))) => {
                    good += 1;
                    replicas |= bit(node);
                }
                Some((node, Err(error))) => {
                    warn!(%node, %error, "a block copy failed");
                    reasons.push(error.to_string());
                }
                None => break,
            }
        }
        if good < quorum {
            let text = format!(
                "could only be written to {good} of the {quorum} nodes needed: {}",
                reasons.join("; ")
            );
            return Err(match reasons.iter().any(|r| r.contains("below its reserve")) {
                true => BlockError::NoSpace(text),
                false => BlockError::Unavailable(text),
            });
        }
        if !late {
            return Ok(replicas);
        }
        let service = self.clone();
        self.tasks.spawn("late-copy", async move {
            while let Some((node, result)) = answers.recv().await {
                if let (Ok(()), Some(slot)) = (result, slot(node)) {
                    service.report_copies(slot, ids.clone(), Vec::new()).await;
                }
            }
        });
        Ok(replicas)
    }
}

enum Part {
    Data { offset: u64, data: Bytes },
    Finish(BlockMeta),
}

struct Target {
    node: NodeId,
    parts: mpsc::Sender<Part>,
    done: oneshot::Receiver<Result<(), BlockError>>,
}

/// A large block on its way to all nodes.
pub(crate) struct BigBlock {
    service: Arc<BlockService>,
    id: u64,
    gs: u64,
    len: u64,
    sums: Vec<u32>,
    targets: Vec<Target>,
    /// When it was begun, by the monotonic clock.
    pub(crate) started: Duration,
}

impl BigBlock {
    pub(crate) fn begin(service: &Arc<BlockService>, id: u64, gs: u64) -> Self {
        let targets = service.targets().into_iter().map(|node| {
            let (parts, queue) = mpsc::channel(PIECES_IN_FLIGHT);
            let (result, done) = oneshot::channel();
            let service = service.clone();
            service.clone().tasks.spawn("block-stream", async move {
                let outcome = send_parts(&service, node, id, gs, queue).await;
                // Nobody waits when the writer dropped this node or itself.
                let _ = result.send(outcome);
            });
            Target { node, parts, done }
        });
        let started = service.shared.env.clock.monotonic();
        Self {
            targets: targets.collect(),
            service: service.clone(),
            id,
            gs,
            len: 0,
            sums: vec![],
            started,
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Adds a piece; every piece but the last is a whole number of chunks.
    pub(crate) async fn push(&mut self, data: Bytes) -> Result<(), BlockError> {
        let offset = self.len;
        assert_eq!(offset % crate::limits::CHUNK_BYTES as u64, 0);
        self.len += data.len() as u64;
        self.sums.extend(chunks::crcs(&data));
        let quorum = self.service.quorum();
        let mut kept = Vec::with_capacity(self.targets.len());
        let mut left = self.targets.len();
        for target in std::mem::take(&mut self.targets) {
            // A slow node is waited for only as long as it is needed.
            let patience = if left > quorum { SLOW_PEER } else { BULK_CALL };
            let part = Part::Data { offset, data: data.clone() };
            match tokio::time::timeout(patience, target.parts.send(part)).await {
                Ok(Ok(())) => kept.push(target),
                Ok(Err(_)) | Err(_) => {
                    warn!(node = %target.node, block = self.id, "a node was dropped from a block");
                    left -= 1;
                }
            }
        }
        self.targets = kept;
        if self.targets.len() >= quorum {
            return Ok(());
        }
        Err(BlockError::Unavailable(format!("block {} lost too many nodes", self.id)))
    }

    /// Syncs the block on the nodes.
    pub(crate) async fn finish(self) -> Result<NewBlock, BlockError> {
        let digest = chunks::digest(&self.sums);
        let meta = BlockMeta { id: self.id, gs: self.gs, len: self.len, digest };
        let (acks, answers) = mpsc::channel(self.targets.len().max(1));
        for target in self.targets {
            let acks = acks.clone();
            self.service.tasks.spawn("block-finish", async move {
                let sent = target.parts.send(Part::Finish(meta)).await;
                drop(target.parts);
                let lost = || BlockError::Unavailable(format!("node {} is gone", target.node));
                let result = match (target.done.await, sent) {
                    (Ok(result), _) => result,
                    (Err(_), _) => Err(lost()),
                };
                // Nobody waits when the writer was dropped.
                let _ = acks.send((target.node, result)).await;
            });
        }
        drop(acks);
        let replicas = self.service.collect(vec![meta.id], answers).await?;
        Ok(NewBlock { id: meta.id, gs: meta.gs, len: meta.len, digest, replicas })
    }
}

async fn send_parts(
    service: &BlockService,
    node: NodeId,
    id: u64,
    gs: u64,
    mut queue: mpsc::Receiver<Part>,
) -> Result<(), BlockError> {
    while let Some(part) = queue.recv().await {
        match part {
            Part::Data { offset, data } => {
                service.ask(node, &Ask::WritePiece { id, gs, offset }, data).await?;
            }
            Part::Finish(meta) => {
                service.ask(node, &Ask::Finish(meta), Bytes::new()).await?;
                return Ok(());
            }
        }
    }
    // The writer gave up. A node that misses this forgets the block by age.
    service.ask(node, &Ask::Abort(id), Bytes::new()).await?;
    Err(BlockError::Unavailable("the writer gave up".to_owned()))
}

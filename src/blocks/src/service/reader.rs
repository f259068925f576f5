//! Reading one file.

use std::sync::Arc;

use base::NodeId;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use tracing::warn;

use super::BlockService;
use super::peer::bit;
use crate::error::BlockError;
use crate::limits::{CHUNK_BYTES, PACK_BLOCK_BYTES, READ_AHEAD};
use crate::types::{FileStatus, LocatedBlock};

/// A file as it was when it was opened.
#[derive(Clone)]
pub struct OpenFile {
    pub(crate) service: Arc<BlockService>,
    /// Its status.
    pub status: FileStatus,
    /// Its blocks, in order.
    pub blocks: Vec<LocatedBlock>,
}

#[derive(Clone, Copy)]
struct Step {
    block: LocatedBlock,
    offset: u64,
    len: u64,
}

impl OpenFile {
    /// Bytes of the file.
    pub fn len(&self) -> u64 {
        self.status.len
    }

    /// Whether the file has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The verified bytes from `offset` on, at most `len`, in pieces of up to 1 MiB. The stream
    /// ends with an error when no node has a good copy of a piece.
    pub fn stream(
        &self,
        offset: u64,
        len: u64,
    ) -> impl Stream<Item = Result<Bytes, BlockError>> + Send + 'static {
        let end = offset.saturating_add(len).min(self.len());
        let service = self.service.clone();
        let steps = self.blocks.clone().into_iter().flat_map(move |block| {
            let from = offset.max(block.offset).saturating_sub(block.offset).min(block.len);
            let to = end.min(block.offset + block.len).saturating_sub(block.offset);
            pieces(from, to).map(move |(offset, len)| Step { block, offset, len })
        });
        let read = move |step: Step| {
            let service = service.clone();
            async move { service.read_step(step).await }
        };
        futures::stream::iter(steps).map(read).buffered(READ_AHEAD)
    }
}

/// A range cut at multiples of the piece size.
fn pieces(from: u64, to: u64) -> impl Iterator<Item = (u64, u64)> {
    let step = PACK_BLOCK_BYTES as u64;
    let mut at = from;
    std::iter::from_fn(move || {
        let end = (at / step + 1).saturating_mul(step).min(to);
        let piece = (at < to).then_some((at, end.saturating_sub(at)));
        at = end.max(at);
        piece
    })
}

impl BlockService {
    async fn read_step(self: Arc<Self>, step: Step) -> Result<Bytes, BlockError> {
        let Step { block, offset, len } = step;
        let mut reasons = Vec::new();
        for node in self.read_order(&block) {
            let piece = match self.read_from(node, block.id, offset, len).await {
                Ok(piece) => piece,
                Err(error) => {
                    self.note_bad_copy(node, &block, &error);
                    reasons.push(error.to_string());
                    continue;
                }
            };
            let skip = offset % CHUNK_BYTES as u64;
            let cut = usize::try_from(skip).ok().zip(usize::try_from(skip + len).ok());
            match cut.filter(|(_, end)| *end <= piece.data.len()) {
                Some((start, end)) => return Ok(piece.data.slice(start..end)),
                None => reasons.push(format!("node {node} has a shorter block")),
            }
        }
        Err(BlockError::Corrupt { block: block.id, reason: reasons.join("; ") })
    }

    /// This node first, then living holders, then whoever might have it.
    fn read_order(&self, block: &LocatedBlock) -> Vec<NodeId> {
        let me = self.peers.me();
        let mut nodes = self.peers.all();
        nodes.sort_by_key(|node| {
            let holds = block.replicas & bit(*node) != 0;
            (!holds, *node != me, !self.peers.is_alive(*node))
        });
        nodes
    }

    fn note_bad_copy(&self, node: NodeId, block: &LocatedBlock, error: &BlockError) {
        let is_bad = matches!(error, BlockError::Corrupt { .. });
        if block.replicas & bit(node) == 0 || !is_bad {
            return;
        }
        warn!(block = block.id, %node, "a bad copy will be repaired");
        // When the queue is full the scrubber finds it later.
        let _ = self.bad_copies.try_send((node, block.id));
    }
}

//! Block bytes between nodes.
//!
//! One method; the head is an [`Ask`], the payload the bytes. A call to oneself takes the same
//! way without the network, so that local and remote copies are written by one code path.

use std::sync::Arc;

use async_trait::async_trait;
use base::{NodeId, codec};
use bytes::{Bytes, BytesMut};
use consensus::{Lane, Message, PeerHandler, tags};
use futures::StreamExt;
use serde::{Deserialize, Serialize};

use super::BlockService;
use crate::chunks;
use crate::error::BlockError;
use crate::limits::{
    BULK_CALL, MAX_BLOCK_BYTES, PACK_BLOCK_BYTES, REPAIR_BATCH, REPAIR_CALL, REPAIR_PARALLEL,
};
use crate::store::record::BlockMeta;
use crate::store::{Piece, Place, SmallBlock, StoreError};

pub(crate) const METHOD: u16 = u16::from_be_bytes([tags::BLOCKS, 1]);

/// What a node asks another. Append-only.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// Store these small blocks, whose bytes follow each other in the payload, and sync.
    WriteSmall(Vec<BlockMeta>),
    /// Store the payload as part of a large block.
    WritePiece { id: u64, gs: u64, offset: u64 },
    /// Sync a large block.
    Finish(BlockMeta),
    /// Forget a large block.
    Abort(u64),
    /// Read a range, widened to chunks; the head of the answer holds the chunk CRCs.
    Read { id: u64, offset: u64, len: u64 },
    /// Get or mend these blocks from the nodes of the bitmap; answers the ids that are good now.
    Pull(Vec<(BlockMeta, u8)>),
}

/// Head of the answer to [`Ask::Read`]: chunk CRCs, or that this copy is bad.
type Sums = Result<Vec<u32>, ()>;

pub(crate) fn slot(node: NodeId) -> Option<u8> {
    u8::try_from(node.0.checked_sub(1)?).ok().filter(|slot| *slot < 8)
}

pub(crate) fn bit(node: NodeId) -> u8 {
    slot(node).map_or(0, |slot| 1 << slot)
}

pub(crate) struct Handler(pub(crate) std::sync::Weak<BlockService>);

#[async_trait]
impl PeerHandler for Handler {
    async fn handle(
        &self,
        _from: NodeId,
        method: u16,
        request: Message,
    ) -> Result<Message, String> {
        let service = self.0.upgrade().ok_or("the node is stopping")?;
        if method != METHOD {
            return Err(format!("unknown method {method}"));
        }
        let ask: Ask = codec::decode(&request.head).map_err(|e| e.to_string())?;
        service.answer(ask, request.payload).await.map_err(|e| e.to_string())
    }
}

impl BlockService {
    /// Calls a node.
    pub(crate) async fn ask(
        &self,
        to: NodeId,
        ask: &Ask,
        payload: Bytes,
    ) -> Result<Message, BlockError> {
        let request = Message { head: codec::encode(ask).into(), payload };
        let patience = if matches!(ask, Ask::Pull(_)) { REPAIR_CALL } else { BULK_CALL };
        Ok(self.peers.call(to, Lane::Bulk, METHOD, request, patience).await?)
    }

    async fn answer(self: &Arc<Self>, ask: Ask, payload: Bytes) -> Result<Message, BlockError> {
        let store = &self.shared.store;
        let failed = |error: StoreError| BlockError::Unavailable(error.to_string());
        match ask {
            Ask::WriteSmall(metas) => {
                store.write_small(split(&metas, payload)?).await.map_err(failed)?;
            }
            Ask::WritePiece { id, gs, offset } => {
                store.write_piece(id, gs, offset, payload).await.map_err(failed)?;
            }
            Ask::Finish(meta) => store.finish(meta).await.map_err(failed)?,
            Ask::Abort(id) => store.abort(id).await.map_err(failed)?,
            Ask::Read { id, offset, len } => {
                let len = len.min(PACK_BLOCK_BYTES as u64);
                return match store.read(id, offset, len).await {
                    Ok(piece) => {
                        let head = codec::encode(&Sums::Ok(piece.crcs)).into();
                        Ok(Message { head, payload: piece.data })
                    }
                    // The copy itself is bad: the reader has it repaired.
                    Err(StoreError::Missing(_) | StoreError::Corrupt(_)) => {
                        Ok(Message::head(codec::encode(&Sums::Err(()))))
                    }
                    Err(error) => Err(failed(error)),
                };
            }
            Ask::Pull(list) => {
                let good = self.pull(list).await;
                return Ok(Message::head(codec::encode(&good)));
            }
        }
        Ok(Message::default())
    }

    /// Reads a range from one node, verified.
    pub(crate) async fn read_from(
        &self,
        node: NodeId,
        id: u64,
        offset: u64,
        len: u64,
    ) -> Result<Piece, BlockError> {
        let bad = || BlockError::Corrupt { block: id, reason: format!("bad copy on node {node}") };
        if node == self.peers.me() {
            return self.shared.store.read(id, offset, len).await.map_err(|error| match error {
                StoreError::Missing(_) | StoreError::Corrupt(_) => bad(),
                StoreError::Io(_) => BlockError::Unavailable(error.to_string()),
            });
        }
        let answer = self.ask(node, &Ask::Read { id, offset, len }, Bytes::new()).await?;
        let sums: Sums =
            codec::decode(&answer.head).map_err(|e| BlockError::Unavailable(e.to_string()))?;
        let crcs = sums.map_err(|()| bad())?;
        if !chunks::matches(&answer.payload, &crcs) {
            return Err(BlockError::Unavailable(format!("node {node} sent a damaged piece")));
        }
        Ok(Piece { data: answer.payload, crcs })
    }

    /// Gets or mends blocks of this node; returns the ids that are good now.
    async fn pull(self: &Arc<Self>, list: Vec<(BlockMeta, u8)>) -> Vec<u64> {
        let pulls = list.into_iter().take(REPAIR_BATCH).map(|(meta, sources)| {
            let service = self.clone();
            async move {
                if !service.pulling.lock().insert(meta.id) {
                    // Another request is at it; who asked will ask again.
                    return None;
                }
                let result = service.pull_one(meta, sources).await;
                service.pulling.lock().remove(&meta.id);
                if let Err(error) = &result {
                    tracing::warn!(block = meta.id, %error, "a block could not be repaired");
                }
                result.is_ok().then_some(meta.id)
            }
        });
        futures::stream::iter(pulls)
            .buffer_unordered(REPAIR_PARALLEL)
            .filter_map(futures::future::ready)
            .collect()
            .await
    }

    async fn pull_one(&self, meta: BlockMeta, sources: u8) -> Result<(), BlockError> {
        if meta.len == 0 || meta.len > MAX_BLOCK_BYTES {
            return Err(BlockError::Unavailable("no such block length".to_owned()));
        }
        let me = self.peers.me();
        let here = self.shared.store.get(meta.id).filter(|local| local.meta == meta);
        let mend = matches!(here.map(|local| local.place), Some(Place::File));
        let step = PACK_BLOCK_BYTES as u64;
        let mut offset = 0;
        let mut sums = Vec::new();
        while offset < meta.len {
            let len = step.min(meta.len - offset);
            // What is still good here stays: another copy may be damaged elsewhere.
            if here.is_some()
                && let Ok(piece) = self.read_from(me, meta.id, offset, len).await
            {
                if !mend {
                    return Ok(());
                }
                sums.extend(piece.crcs);
            } else {
                let piece = self.read_any(&meta, sources & !bit(me), offset, len).await?;
                self.store_piece(&meta, offset, &piece, mend).await?;
                sums.extend(piece.crcs);
            }
            offset += len;
        }
        if chunks::digest(&sums) != meta.digest {
            return Err(BlockError::Unavailable("the copy differs from the namespace".to_owned()));
        }
        let failed = |error: StoreError| BlockError::Unavailable(error.to_string());
        if !mend && meta.len > step {
            self.shared.store.finish(meta).await.map_err(failed)?;
        }
        Ok(())
    }

    async fn store_piece(
        &self,
        meta: &BlockMeta,
        offset: u64,
        piece: &Piece,
        mend: bool,
    ) -> Result<(), BlockError> {
        let (store, data) = (&self.shared.store, piece.data.clone());
        let done = if mend {
            store.patch(*meta, offset, data).await
        } else if meta.len > PACK_BLOCK_BYTES as u64 {
            store.write_piece(meta.id, meta.gs, offset, data).await
        } else {
            let crcs = piece.crcs.clone();
            store.write_small(vec![SmallBlock { meta: *meta, crcs, data }]).await
        };
        done.map_err(|e| BlockError::Unavailable(e.to_string()))
    }

    async fn read_any(
        &self,
        meta: &BlockMeta,
        sources: u8,
        offset: u64,
        len: u64,
    ) -> Result<Piece, BlockError> {
        let mut reason = "no node has it".to_owned();
        for node in self.peers.all() {
            if sources & bit(node) == 0 || !self.peers.is_alive(node) {
                continue;
            }
            match self.read_from(node, meta.id, offset, len).await {
                Ok(piece) if piece.data.len() as u64 == len => return Ok(piece),
                Ok(_) => reason = format!("node {node} has a shorter block"),
                Err(error) => reason = error.to_string(),
            }
        }
        Err(BlockError::Corrupt { block: meta.id, reason })
    }
}

/// Cuts the payload of [`Ask::WriteSmall`] into its blocks and verifies them.
fn split(metas: &[BlockMeta], mut payload: Bytes) -> Result<Vec<SmallBlock>, BlockError> {
    let damaged = || BlockError::Unavailable("a block arrived damaged".to_owned());
    let mut blocks = Vec::with_capacity(metas.len());
    for meta in metas {
        let len = usize::try_from(meta.len).map_err(|_| damaged())?;
        if len > payload.len() || len > PACK_BLOCK_BYTES {
            return Err(damaged());
        }
        let data = payload.split_to(len);
        let crcs = chunks::crcs(&data);
        if chunks::digest(&crcs) != meta.digest {
            return Err(damaged());
        }
        blocks.push(SmallBlock { meta: *meta, crcs, data });
    }
    if payload.is_empty() { Ok(blocks) } else { Err(damaged()) }
}

/// Several blocks' bytes as one payload.
pub(crate) fn join(parts: &[(BlockMeta, Bytes)]) -> Bytes {
    if let [(_, only)] = parts {
        return only.clone();
    }
    let mut all = BytesMut::with_capacity(parts.iter().map(|(_, data)| data.len()).sum());
    parts.iter().for_each(|(_, data)| all.extend_from_slice(data));
    all.freeze()
}

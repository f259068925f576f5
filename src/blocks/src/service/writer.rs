//! Writing one file.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tracing::warn;

use super::BlockService;
use super::spread::BigBlock;
use crate::chunks;
use crate::command::{Command, Commit, NewBlock, Opened};
use crate::error::{BlockError, FsErrorKind};
use crate::limits::{LEASE_RENEW, PACK_BLOCK_BYTES};
use crate::store::record::BlockMeta;
use crate::types::Caller;

/// A block that has been open this long is ended, so that it can be claimed in time.
const LONGEST_BLOCK: Duration = Duration::from_secs(120);

/// A file open for writing. What was written becomes visible at the end of each block, with
/// [`Writer::hflush`], and with [`Writer::close`]. Dropping a writer that created its file removes
/// the file; one that appends leaves what was committed. Its methods are not cancel-safe: after
/// a dropped call only [`Writer::abort`] may follow.
pub struct Writer {
    service: Arc<BlockService>,
    caller: Caller,
    path: String,
    file: u64,
    holder: String,
    block_size: u64,
    /// The committed last block whose bytes stand at the start of the buffer.
    replace: Option<NewBlock>,
    /// Bytes of the current block that are not sent.
    buffer: BytesMut,
    big: Option<BigBlock>,
    renewed: Duration,
    created: bool,
    open: bool,
}

impl Writer {
    pub(crate) fn new(
        service: Arc<BlockService>,
        caller: Caller,
        path: String,
        holder: String,
        opened: &Opened,
        created: bool,
    ) -> Self {
        let renewed = service.shared.env.clock.monotonic();
        Self {
            service,
            caller,
            path,
            file: opened.file,
            holder,
            block_size: opened.block_size,
            replace: None,
            buffer: BytesMut::new(),
            big: None,
            renewed,
            created,
            open: true,
        }
    }

    /// Puts the bytes of a short last block before those to come.
    pub(crate) fn continue_block(&mut self, last: NewBlock, data: &[u8]) {
        self.buffer.extend_from_slice(data);
        self.replace = Some(last);
    }

    /// Adds bytes.
    pub async fn write(&mut self, mut data: Bytes) -> Result<(), BlockError> {
        self.renew_if_old().await?;
        while !data.is_empty() {
            let filled = self.block_len();
            let to_block_end = self.block_size - filled;
            let to_piece_end = (PACK_BLOCK_BYTES - self.buffer.len()) as u64;
            let take = to_block_end.min(to_piece_end).min(data.len() as u64);
            let part = data.split_to(usize::try_from(take).unwrap_or(data.len()));
            self.buffer.extend_from_slice(&part);
            if self.block_len() >= self.block_size {
                self.end_block(false).await?;
            } else if self.buffer.len() == PACK_BLOCK_BYTES && !data.is_empty() {
                self.send_piece().await?;
            }
        }
        let now = self.service.shared.env.clock.monotonic();
        if self.big.as_ref().is_some_and(|big| now.saturating_sub(big.started) > LONGEST_BLOCK) {
            self.end_block(false).await?;
        }
        Ok(())
    }

    fn block_len(&self) -> u64 {
        self.big.as_ref().map_or(0, BigBlock::len) + self.buffer.len() as u64
    }

    async fn send_piece(&mut self) -> Result<(), BlockError> {
        if self.big.is_none() {
            let (id, gs) = self.service.take_id().await?;
            self.big = Some(BigBlock::begin(&self.service, id, gs));
        }
        let piece = self.buffer.split().freeze();
        match &mut self.big {
            Some(big) => big.push(piece).await,
            None => Ok(()),
        }
    }

    /// Makes everything written so far durable and visible.
    pub async fn hflush(&mut self) -> Result<(), BlockError> {
        self.end_block(false).await
    }

    /// As [`Self::hflush`]: a flush here always syncs.
    pub async fn hsync(&mut self) -> Result<(), BlockError> {
        self.end_block(false).await
    }

    /// Ends the file; everything is durable on two nodes when this returns.
    pub async fn close(mut self) -> Result<(), BlockError> {
        self.end_block(true).await?;
        self.open = false;
        Ok(())
    }

    /// Gives up: a created file is removed, an appended one stays as it was committed.
    pub async fn abort(mut self) -> Result<(), BlockError> {
        self.open = false;
        self.give_up().await
    }

    fn give_up(&self) -> impl Future<Output = Result<(), BlockError>> + Send + 'static {
        let (path, file, holder) = (self.path.clone(), self.file, self.holder.clone());
        let command = if self.created {
            Command::Abandon { path, file, holder }
        } else {
            let (replace, blocks) = (None, Vec::new());
            Command::Commit(Commit { path, file, holder, replace, blocks, close: true })
        };
        let (service, caller) = (self.service.clone(), self.caller.clone());
        async move { service.propose_once(&caller, command).await.map(|_| ()) }
    }

    async fn end_block(&mut self, close: bool) -> Result<(), BlockError> {
        let old = self.replace.map_or(0, |last| last.len);
        let block = if self.big.is_some() {
            if !self.buffer.is_empty() {
                self.send_piece().await?;
            }
            match self.big.take() {
                Some(big) => Some(big.finish().await?),
                None => None,
            }
        } else if self.buffer.len() as u64 > old {
            Some(self.write_small().await?)
        } else {
            None
        };
        if block.is_none() && !close {
            return Ok(());
        }
        let result = self.commit(block, close).await;
        let stale = matches!(&result, Err(BlockError::Fs(e)) if e.kind == FsErrorKind::StaleBlocks);
        if stale && self.buffer.len() as u64 > old {
            // The node slept between writing and committing; the bytes are still here.
            let again = self.write_small().await?;
            self.commit(Some(again), close).await?;
        } else {
            result?;
        }
        self.buffer.clear();
        self.replace = None;
        Ok(())
    }

    async fn write_small(&self) -> Result<NewBlock, BlockError> {
        let data = Bytes::copy_from_slice(&self.buffer);
        let blocks = self.service.write_blocks(vec![data]).await?;
        blocks.into_iter().next().ok_or_else(|| BlockError::Unavailable("no block".to_owned()))
    }

    async fn commit(&mut self, block: Option<NewBlock>, close: bool) -> Result<(), BlockError> {
        let commit = Commit {
            path: self.path.clone(),
            file: self.file,
            holder: self.holder.clone(),
            replace: block.and(self.replace).map(|last| last.id),
            blocks: block.into_iter().collect(),
            close,
        };
        self.service.propose_once(&self.caller, Command::Commit(commit)).await?;
        self.renewed = self.service.shared.env.clock.monotonic();
        Ok(())
    }

    async fn renew_if_old(&mut self) -> Result<(), BlockError> {
        let now = self.service.shared.env.clock.monotonic();
        if now.saturating_sub(self.renewed) < LEASE_RENEW {
            return Ok(());
        }
        let command = Command::Renew { holder: self.holder.clone() };
        self.service.propose(&self.caller, None, command).await?;
        self.renewed = now;
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.open || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let give_up = self.give_up();
        self.service.tasks.spawn("writer-gave-up", async move {
            if let Err(error) = give_up.await {
                warn!(%error, "the file of a dropped writer stays open until its lease ends");
            }
        });
    }
}

/// What a block of these bytes is called.
pub(crate) fn meta_of(id: u64, gs: u64, data: &[u8]) -> BlockMeta {
    let digest = chunks::digest(&chunks::crcs(data));
    BlockMeta { id, gs, len: data.len() as u64, digest }
}

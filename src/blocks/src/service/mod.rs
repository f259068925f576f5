//! The block service of a node: what gateways and the collector call.

mod checksum;
mod peer;
mod propose;
pub(crate) mod reader;
mod spread;
#[cfg(test)]
mod tests;
mod upkeep;
pub(crate) mod writer;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::{NodeId, TaskGroup};
use bytes::{Bytes, BytesMut};
use consensus::{GroupRef, PeersRef, tags};
use futures::TryStreamExt;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::command::{
    Command, CreateOptions, NewBlock, OpId, Outcome, PutEntry, PutOutcome, Request,
};
use crate::error::{BlockError, FsError, FsErrorKind};
use crate::limits::{
    ATIME_PRECISION_MS, DEFAULT_BLOCK_BYTES, LIST_LIMIT, MAX_BATCH_BYTES, MAX_PUT_FILES,
    PACK_BLOCK_BYTES, PACK_CALL_BYTES, READ_PATIENCE, READ_PAUSE, REPAIR_BATCH, RESERVE_IDS,
    RESERVE_USE, SUMMARY_STEP,
};
use crate::machine::BlockShared;
use crate::namespace::Namespace;
use crate::path::FsPath;
use crate::store::record::BlockMeta;
use crate::types::{Access, Caller, ContentSummary, FileStatus, Listing, PutFile, Putter};
use propose::Proposer;
use reader::OpenFile;
use writer::{Writer, meta_of};

/// Ids of blocks that this node may write.
#[derive(Default)]
struct Ids {
    next: u64,
    end: u64,
    gs: u64,
    taken: Duration,
}

/// Counters of the block store, as this node knows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Inodes of the namespace.
    pub inodes: u64,
    /// Committed blocks.
    pub blocks: u64,
    /// Bytes of committed blocks, each counted once.
    pub bytes: u64,
    /// Committed blocks with fewer than three copies.
    pub partial: u64,
    /// Deleted blocks that some node still has.
    pub doomed: u64,
    /// Files open for writing.
    pub open_files: u64,
    /// Blocks on this node's disk.
    pub local_blocks: u64,
    /// Bytes of blocks on this node's disk.
    pub local_bytes: u64,
    /// Copies that this node's leader or readers have repaired since the start.
    pub repaired: u64,
}

/// The block store as callers see it. All reads are linearizable.
pub struct BlockService {
    shared: Arc<BlockShared>,
    fs: GroupRef,
    peers: PeersRef,
    tasks: TaskGroup,
    proposer: Proposer,
    ids: tokio::sync::Mutex<Ids>,
    client: [u8; 16],
    next_call: AtomicU64,
    bad_copies: mpsc::Sender<(NodeId, u64)>,
    repaired: AtomicU64,
    /// The block that the scrubber has come to.
    scrub_at: Mutex<u64>,
    /// Blocks that are being repaired here.
    pulling: Mutex<BTreeSet<u64>>,
}

impl BlockService {
    /// Starts the service: registers its peer handler and its background tasks. Call after the
    /// groups exist.
    pub fn new(
        shared: Arc<BlockShared>,
        fs: GroupRef,
        peers: PeersRef,
        tasks: TaskGroup,
    ) -> Arc<Self> {
        let (bad_copies, bad) = mpsc::channel(1024);
        let service = Arc::new(Self {
            proposer: Proposer::start(fs.clone(), &tasks),
            client: shared.env.random.uuid_bytes(),
            shared,
            fs,
            peers,
            tasks,
            ids: tokio::sync::Mutex::default(),
            next_call: AtomicU64::new(0),
            bad_copies,
            repaired: AtomicU64::new(0),
            scrub_at: Mutex::new(0),
            pulling: Mutex::default(),
        });
        let handler = Arc::new(peer::Handler(Arc::downgrade(&service)));
        service.peers.register(tags::BLOCKS, handler);
        upkeep::start(&service, bad);
        service
    }

    async fn propose(
        &self,
        caller: &Caller,
        op: Option<OpId>,
        command: Command,
    ) -> Result<Outcome, BlockError> {
        self.proposer.propose(Request { op, caller: caller.clone(), command }).await
    }

    /// Proposes a command that must not act twice, however often the proposal is repeated.
    async fn propose_once(&self, caller: &Caller, command: Command) -> Result<Outcome, BlockError> {
        let call = self.next_call.fetch_add(1, Ordering::Relaxed);
        self.propose(caller, Some(OpId { client: self.client, call }), command).await
    }

    async fn yes_or_no(&self, caller: &Caller, command: Command) -> Result<bool, BlockError> {
        match self.propose_once(caller, command).await? {
            Outcome::Bool(answer) => Ok(answer),
            Outcome::Done | Outcome::Opened(_) | Outcome::Reserved { .. } | Outcome::Put(_) => {
                Ok(true)
            }
        }
    }

    async fn view<T>(&self, look: impl FnOnce(&Namespace) -> T) -> Result<T, BlockError> {
        let deadline = tokio::time::Instant::now() + READ_PATIENCE;
        // While a new leader is found, readers wait as writers do.
        while let Err(error) = self.fs.read_barrier().await {
            if tokio::time::Instant::now() >= deadline {
                return Err(error.into());
            }
            tokio::time::sleep(READ_PAUSE).await;
        }
        Ok(look(&self.shared.namespace.read()))
    }

    /// Makes a directory and its parents. True also when it exists.
    pub async fn mkdirs(&self, who: &Caller, path: &str, mode: u16) -> Result<bool, BlockError> {
        self.yes_or_no(who, Command::Mkdirs { path: path.to_owned(), mode }).await
    }

    /// Hadoop's `rename`: false where it does not act.
    pub async fn rename(&self, who: &Caller, src: &str, dst: &str) -> Result<bool, BlockError> {
        let (src, dst) = (src.to_owned(), dst.to_owned());
        self.yes_or_no(who, Command::Rename { src, dst }).await
    }

    /// Hadoop's `rename2`: an error where it does not act; replaces a destination when
    /// `overwrite`, atomically.
    pub async fn rename2(
        &self,
        who: &Caller,
        src: &str,
        dst: &str,
        overwrite: bool,
    ) -> Result<(), BlockError> {
        let (src, dst) = (src.to_owned(), dst.to_owned());
        self.propose_once(who, Command::Rename2 { src, dst, overwrite }).await.map(|_| ())
    }

    /// Deletes a file or tree; false when there is none.
    pub async fn delete(
        &self,
        who: &Caller,
        path: &str,
        recursive: bool,
    ) -> Result<bool, BlockError> {
        self.yes_or_no(who, Command::Delete { path: path.to_owned(), recursive }).await
    }

    /// Sets permission bits.
    pub async fn set_permission(
        &self,
        who: &Caller,
        path: &str,
        mode: u16,
    ) -> Result<(), BlockError> {
        let command = Command::SetMode { path: path.to_owned(), mode };
        self.propose_once(who, command).await.map(|_| ())
    }

    /// Sets owner and group where given.
    pub async fn set_owner(
        &self,
        who: &Caller,
        path: &str,
        owner: Option<String>,
        group: Option<String>,
    ) -> Result<(), BlockError> {
        let command = Command::SetOwner { path: path.to_owned(), owner, group };
        self.propose_once(who, command).await.map(|_| ())
    }

    /// Sets modification and access time where given, in milliseconds.
    pub async fn set_times(
        &self,
        who: &Caller,
        path: &str,
        mtime_ms: Option<i64>,
        atime_ms: Option<i64>,
    ) -> Result<(), BlockError> {
        let command = Command::SetTimes { path: path.to_owned(), mtime_ms, atime_ms };
        self.propose_once(who, command).await.map(|_| ())
    }

    /// Sets the replication to report; false for a directory or nothing.
    pub async fn set_replication(
        &self,
        who: &Caller,
        path: &str,
        replication: u16,
    ) -> Result<bool, BlockError> {
        self.yes_or_no(who, Command::SetReplication { path: path.to_owned(), replication }).await
    }

    /// Status of a path.
    pub async fn status(&self, who: &Caller, path: &str) -> Result<FileStatus, BlockError> {
        let path = FsPath::parse(path)?;
        Ok(self.view(|ns| ns.status(who, &path)).await??)
    }

    /// A page of a directory, of at most 1,000 entries after the name `after`.
    pub async fn list(
        &self,
        who: &Caller,
        path: &str,
        after: Option<&str>,
    ) -> Result<Listing, BlockError> {
        let path = FsPath::parse(path)?;
        Ok(self.view(|ns| ns.list(who, &path, after, LIST_LIMIT)).await??)
    }

    /// Totals of a tree. Not a snapshot: a large tree is visited in steps.
    pub async fn content_summary(
        &self,
        who: &Caller,
        path: &str,
    ) -> Result<ContentSummary, BlockError> {
        let path = FsPath::parse(path)?;
        let root = self.view(|ns| ns.summary_root(who, &path)).await??;
        let mut sum = ContentSummary::default();
        let mut stack = vec![root];
        while !stack.is_empty() {
            {
                let namespace = self.shared.namespace.read();
                namespace.summarize(who, &mut stack, &mut sum, SUMMARY_STEP)?;
            }
            tokio::task::yield_now().await;
        }
        Ok(sum)
    }

    /// An error unless `who` has `access` to the path.
    pub async fn check_access(
        &self,
        who: &Caller,
        path: &str,
        access: Access,
    ) -> Result<(), BlockError> {
        let path = FsPath::parse(path)?;
        Ok(self.view(|ns| ns.access(who, &path, access)).await??)
    }

    /// Everything that would refuse a create, without creating.
    pub async fn check_create(
        &self,
        who: &Caller,
        path: &str,
        options: &CreateOptions,
    ) -> Result<(), BlockError> {
        let path = FsPath::parse(path)?;
        Ok(self.view(|ns| ns.check_create(who, &path, options)).await??)
    }

    /// Opens a file for reading.
    pub async fn open(self: &Arc<Self>, who: &Caller, path: &str) -> Result<OpenFile, BlockError> {
        let path = FsPath::parse(path)?;
        let (status, blocks) = self.view(|ns| ns.located(who, &path)).await??;
        let now = self.shared.env.clock.unix_ms();
        if now.saturating_sub(status.atime_ms) > ATIME_PRECISION_MS {
            let (service, file) = (self.clone(), status.id);
            self.tasks.spawn("access-time", async move {
                let command = Command::Touch { file, atime_ms: now };
                // An access time that is not written does no harm.
                let _ = service.propose(&Caller::system(), None, command).await;
            });
        }
        Ok(OpenFile { service: self.clone(), status, blocks })
    }

    /// A whole file of at most `limit` bytes.
    pub async fn read_all(
        self: &Arc<Self>,
        who: &Caller,
        path: &str,
        limit: u64,
    ) -> Result<Bytes, BlockError> {
        let file = self.open(who, path).await?;
        if file.len() > limit {
            let text = format!("{path} has {} bytes, more than {limit}", file.len());
            return Err(FsError::io(text).into());
        }
        let mut all = BytesMut::new();
        let mut pieces = Box::pin(file.stream(0, file.len()));
        while let Some(piece) = pieces.try_next().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }

    /// Creates a file and opens it for writing.
    pub async fn create(
        self: &Arc<Self>,
        who: &Caller,
        path: &str,
        options: CreateOptions,
    ) -> Result<Writer, BlockError> {
        let (path, holder) = (FsPath::parse(path)?.as_str().to_owned(), self.new_holder());
        let command = Command::Create { path: path.clone(), options, holder: holder.clone() };
        match self.propose_once(who, command).await? {
            Outcome::Opened(opened) => {
                Ok(Writer::new(self.clone(), who.clone(), path, holder, &opened, true))
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Creates a file from its whole content, which may have any size: one command where it
    /// fits a small block, a writer otherwise.
    pub async fn create_whole(
        self: &Arc<Self>,
        who: &Caller,
        path: &str,
        options: CreateOptions,
        content: Bytes,
    ) -> Result<(), BlockError> {
        if content.len() > PACK_BLOCK_BYTES || content.len() as u64 > options.block_size {
            let mut writer = self.create(who, path, options).await?;
            writer.write(content).await?;
            return writer.close().await;
        }
        self.check_create(who, path, &options).await?;
        let path = path.to_owned();
        let mut fresh = true;
        loop {
            let parts = if content.is_empty() { vec![] } else { vec![content.clone()] };
            let blocks = self.write_blocks(parts).await?;
            let command = Command::CreateClosed { path: path.clone(), options, blocks };
            match self.propose_once(who, command).await {
                Err(BlockError::Fs(e)) if fresh && e.kind == FsErrorKind::StaleBlocks => {
                    fresh = false;
                }
                other => return other.map(|_| ()),
            }
        }
    }

    /// Opens an existing file for writing at its end.
    pub async fn append(self: &Arc<Self>, who: &Caller, path: &str) -> Result<Writer, BlockError> {
        let (path, holder) = (FsPath::parse(path)?.as_str().to_owned(), self.new_holder());
        let command = Command::Append { path: path.clone(), holder: holder.clone() };
        let opened = match self.propose_once(who, command).await? {
            Outcome::Opened(opened) => opened,
            other => return Err(unexpected(&other)),
        };
        let mut writer = Writer::new(self.clone(), who.clone(), path, holder, &opened, false);
        if let Some(last) = opened.last {
            let NewBlock { id, gs, len, digest, replicas } = last;
            let block = crate::types::LocatedBlock { id, gs, len, offset: 0, digest, replicas };
            let data = self.read_block(block).await?;
            writer.continue_block(last, &data);
        }
        Ok(writer)
    }

    /// Refuses what older epochs of a source put from now on.
    ///
    /// # Errors
    ///
    /// [`FsErrorKind::Fenced`] when the source has a newer epoch already.
    pub async fn fence(&self, source: &str, epoch: u64) -> Result<(), BlockError> {
        let command = Command::Fence { source: source.to_owned(), epoch };
        self.propose(&Caller::system(), None, command).await.map(drop)
    }

    /// Stores whole files of a source with as few syncs and commands as possible: create or
    /// replace by version, idempotent. One result per file, in order.
    ///
    /// # Errors
    ///
    /// [`FsErrorKind::Fenced`] when the source has a newer epoch.
    pub async fn put_files(
        self: &Arc<Self>,
        putter: Putter<'_>,
        files: Vec<PutFile>,
    ) -> Result<Vec<Result<PutOutcome, FsError>>, BlockError> {
        let mut results = Vec::with_capacity(files.len());
        let mut group = Vec::new();
        let (mut bytes, mut names) = (0, 0);
        for file in files {
            let named = file.path.len() + file.version.len();
            let full = group.len() >= MAX_PUT_FILES
                || bytes + file.bytes.len() > PACK_CALL_BYTES
                || names + named > MAX_BATCH_BYTES;
            if !group.is_empty() && full {
                results.extend(self.put_group(putter, std::mem::take(&mut group)).await?);
                (bytes, names) = (0, 0);
            }
            bytes += file.bytes.len();
            names += named;
            group.push(file);
        }
        if !group.is_empty() {
            results.extend(self.put_group(putter, group).await?);
        }
        Ok(results)
    }

    async fn put_group(
        self: &Arc<Self>,
        putter: Putter<'_>,
        files: Vec<PutFile>,
    ) -> Result<Vec<Result<PutOutcome, FsError>>, BlockError> {
        let mut results = self.try_put_group(putter, &files).await?;
        let stale = |e: &FsError| e.kind == FsErrorKind::StaleBlocks;
        if results.iter().any(|result| result.as_ref().is_err_and(stale)) {
            // The node slept between writing and committing: write everything again.
            results = self.try_put_group(putter, &files).await?;
        }
        Ok(results)
    }

    async fn try_put_group(
        self: &Arc<Self>,
        putter: Putter<'_>,
        files: &[PutFile],
    ) -> Result<Vec<Result<PutOutcome, FsError>>, BlockError> {
        // Only what fits packs travels together; a larger file becomes blocks of its own.
        let small = |file: &PutFile| file.bytes.len() <= PACK_BLOCK_BYTES;
        let parts: Vec<Bytes> = files
            .iter()
            .filter(|file| small(file) && !file.bytes.is_empty())
            .map(|file| file.bytes.clone())
            .collect();
        let mut written = self.write_blocks(parts).await?.into_iter();
        let mut entries = Vec::with_capacity(files.len());
        for file in files {
            let blocks = if file.bytes.is_empty() {
                Vec::new()
            } else if small(file) {
                written.next().into_iter().collect()
            } else {
                self.write_large(&file.bytes).await?
            };
            entries.push(PutEntry {
                path: file.path.clone(),
                version: file.version.clone(),
                blocks,
                mtime_ms: file.mtime_ms,
                block_size: DEFAULT_BLOCK_BYTES,
            });
        }
        let Putter { source, epoch } = putter;
        let command = Command::PutFenced { source: source.to_owned(), epoch, entries };
        match self.propose(&Caller::system(), None, command).await? {
            Outcome::Put(results) => Ok(results),
            other => Err(unexpected(&other)),
        }
    }

    /// Writes bytes above the pack limit as blocks of their own.
    async fn write_large(self: &Arc<Self>, bytes: &Bytes) -> Result<Vec<NewBlock>, BlockError> {
        let mut blocks = Vec::new();
        let block_bytes = usize::try_from(DEFAULT_BLOCK_BYTES).unwrap_or(usize::MAX);
        let mut rest = bytes.clone();
        while !rest.is_empty() {
            let mut block = rest.split_to(rest.len().min(block_bytes));
            if block.len() <= PACK_BLOCK_BYTES {
                blocks.extend(self.write_blocks(vec![block]).await?);
                continue;
            }
            let (id, gs) = self.take_id().await?;
            let mut big = spread::BigBlock::begin(self, id, gs);
            while !block.is_empty() {
                big.push(block.split_to(block.len().min(PACK_BLOCK_BYTES))).await?;
            }
            blocks.push(big.finish().await?);
        }
        Ok(blocks)
    }

    /// Writes small blocks to the nodes with one sync each.
    async fn write_blocks(
        self: &Arc<Self>,
        parts: Vec<Bytes>,
    ) -> Result<Vec<NewBlock>, BlockError> {
        if parts.is_empty() {
            return Ok(Vec::new());
        }
        let mut named: Vec<(BlockMeta, Bytes)> = Vec::with_capacity(parts.len());
        for data in parts {
            let (id, gs) = self.take_id().await?;
            named.push((meta_of(id, gs, &data), data));
        }
        let replicas = self.spread(&named).await?;
        let block = |meta: &BlockMeta| NewBlock {
            id: meta.id,
            gs: meta.gs,
            len: meta.len,
            digest: meta.digest,
            replicas,
        };
        Ok(named.iter().map(|(meta, _)| block(meta)).collect())
    }

    /// An id for a block that is about to be written.
    async fn take_id(&self) -> Result<(u64, u64), BlockError> {
        let mut ids = self.ids.lock().await;
        let now = self.shared.env.clock.monotonic();
        if ids.next >= ids.end || now.saturating_sub(ids.taken) > RESERVE_USE {
            let command = Command::Reserve { count: RESERVE_IDS };
            // A repetition wastes a range of ids and nothing else.
            match self.propose(&Caller::system(), None, command).await? {
                Outcome::Reserved { start, count, gs } => {
                    *ids = Ids { next: start, end: start + u64::from(count), gs, taken: now };
                }
                other => return Err(unexpected(&other)),
            }
        }
        let id = ids.next;
        ids.next += 1;
        Ok((id, ids.gs))
    }

    fn new_holder(&self) -> String {
        let random = self.shared.env.random.next_u64();
        format!("DFSClient_NONMAPREDUCE_{random}_{}", self.peers.me())
    }

    /// Clears what the former holder of a node slot was credited with. For node replacement.
    pub async fn reset_slot(&self, node: NodeId) -> Result<(), BlockError> {
        let Some(slot) = peer::slot(node) else { return Ok(()) };
        self.propose(&Caller::system(), None, Command::ResetSlot { slot }).await.map(|_| ())
    }

    /// Says which blocks a node gained or lost.
    async fn report_copies(&self, slot: u8, added: Vec<u64>, lost: Vec<u64>) {
        for (added, lost) in chunks_of(added, lost) {
            let command = Command::Replicas { slot, added, lost };
            if let Err(error) = self.propose(&Caller::system(), None, command).await {
                tracing::warn!(%error, "a change of block copies will be found again later");
            }
        }
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        let namespace = self.shared.namespace.read();
        let (local_blocks, local_bytes) = self.shared.store.totals();
        Stats {
            inodes: namespace.inodes.len() as u64,
            blocks: namespace.blocks.len() as u64,
            bytes: namespace.blocks.values().map(|block| block.len).sum(),
            partial: self.missing_copies(&namespace),
            doomed: namespace.doomed.len() as u64,
            open_files: namespace.leases.values().map(|lease| lease.files.len() as u64).sum(),
            local_blocks,
            local_bytes,
            repaired: self.repaired.load(Ordering::Relaxed),
        }
    }

    fn missing_copies(&self, namespace: &Namespace) -> u64 {
        let all = self.peers.all().into_iter().fold(0, |bits, node| bits | peer::bit(node));
        let missing =
            |id: &&u64| namespace.blocks.get(id).is_some_and(|block| all & !block.replicas != 0);
        namespace.partial.iter().filter(missing).count() as u64
    }
}

/// Lists of at most one repair batch each.
fn chunks_of(mut added: Vec<u64>, mut lost: Vec<u64>) -> Vec<(Vec<u64>, Vec<u64>)> {
    let mut parts = Vec::new();
    while !added.is_empty() || !lost.is_empty() {
        let next_added = added.split_off(added.len().min(REPAIR_BATCH));
        let next_lost = lost.split_off(lost.len().min(REPAIR_BATCH));
        parts.push((added, lost));
        (added, lost) = (next_added, next_lost);
    }
    parts
}

fn unexpected(outcome: &Outcome) -> BlockError {
    BlockError::Unavailable(format!("unexpected reply {outcome:?}"))
}

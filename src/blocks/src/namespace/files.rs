//! Commands that write files: create, append, commit, put, leases.

use std::sync::Arc;

use super::ops::{check_components, check_replication};
use super::{FileNode, Namespace, Node, Resolved};
use crate::command::{
    Commit, CreateOptions, NewBlock, Opened, Outcome, PutEntry, PutOutcome, Reply,
};
use crate::error::{FsError, FsErrorKind};
use crate::limits::{
    LEASE_HARD_MS, LEASE_SOFT_MS, MAX_BLOCK_BYTES, MAX_BLOCKS_PER_FILE, MAX_NAME_BYTES,
    MAX_VERSION_BYTES, MIN_BLOCK_BYTES, PACK_BLOCK_BYTES, RESERVE_MS, RETRY_MS,
};
use crate::path::FsPath;
use crate::types::{Access, Caller};

impl Namespace {
    pub(super) fn create(
        &mut self,
        who: &Caller,
        path: &str,
        options: &CreateOptions,
        holder: &str,
    ) -> Reply {
        if holder.is_empty() || holder.len() > MAX_NAME_BYTES {
            return Err(FsError::io("lease holder names have 1 to 256 bytes"));
        }
        let file = self.new_file(who, path, options, Vec::new())?;
        self.open_for(file, holder);
        Ok(Outcome::Opened(Opened { file, block_size: options.block_size, last: None }))
    }

    pub(super) fn create_closed(
        &mut self,
        who: &Caller,
        path: &str,
        options: &CreateOptions,
        blocks: &[NewBlock],
    ) -> Reply {
        let checked = self.check_fresh(blocks).and_then(|()| self.check_count(blocks.len()));
        let made = checked.and_then(|()| {
            let ids = blocks.iter().map(|block| block.id).collect();
            self.new_file(who, path, options, ids)
        });
        match made {
            Ok(file) => {
                self.adopt(file, blocks);
                Ok(Outcome::Done)
            }
            Err(error) => {
                self.doom_unclaimed(blocks);
                Err(error)
            }
        }
    }

    /// Makes an inode for a new file, replacing an existing one where that is allowed.
    fn new_file(
        &mut self,
        who: &Caller,
        path: &str,
        options: &CreateOptions,
        blocks: Vec<u64>,
    ) -> Result<u64, FsError> {
        let path = FsPath::parse(path)?;
        check_create(&path, options)?;
        let at = self.resolve(&path);
        self.check_create(who, &path, options)?;
        if let Some(old) = at.target() {
            self.bury(old);
        }
        let at = self.resolve(&path);
        let parent = self.make_parents(who, &at);
        let node = Node::File(FileNode {
            blocks,
            replication: options.replication,
            block_size: options.block_size,
            holder: None,
            version: Vec::new(),
        });
        let name = at.names.last().copied().unwrap_or_default();
        Ok(self.add(parent, name, &who.user, options.mode, node))
    }

    /// Everything that can refuse a create.
    pub(crate) fn check_create(
        &self,
        who: &Caller,
        path: &FsPath,
        options: &CreateOptions,
    ) -> Result<(), FsError> {
        check_create(path, options)?;
        let at = self.resolve(path);
        self.check_traverse(who, &at)?;
        if let Some(old) = at.target() {
            return self.check_overwrite(who, path, &at, old, options);
        }
        let missing_parent = at.parent().is_none();
        self.must_be_dir(&at)?;
        if missing_parent && !options.create_parent {
            let text = format!("Parent directory doesn't exist: {}", at.parent_path());
            return Err(FsError::new(FsErrorKind::FileNotFound, text));
        }
        check_components(&at)?;
        self.check_parent_write(who, &at)
    }

    fn check_overwrite(
        &self,
        who: &Caller,
        path: &FsPath,
        at: &Resolved<'_>,
        old: u64,
        options: &CreateOptions,
    ) -> Result<(), FsError> {
        let path = path.as_str();
        if self.is_dir(old) {
            let text = format!("{path} already exists as a directory");
            return Err(FsError::new(FsErrorKind::FileAlreadyExists, text));
        }
        if options.overwrite {
            return self.check_target(who, at, Access::WRITE);
        }
        if let Some(holder) = self.file(old).and_then(|file| file.holder.clone())
            && !self.past_soft_limit(&holder)
        {
            return Err(busy("CREATE_FILE", path, who, &holder));
        }
        let text = format!("{path} for client {} already exists", who.client);
        Err(FsError::new(FsErrorKind::FileAlreadyExists, text))
    }

    pub(super) fn append(&mut self, who: &Caller, path: &str, holder: &str) -> Reply {
        let path = FsPath::parse(path)?;
        let at = self.resolve(&path);
        self.check_traverse(who, &at)?;
        let Some(id) = at.target() else {
            let text = format!(
                "Failed to append to non-existent file {} for client {}",
                path.as_str(),
                who.client
            );
            return Err(FsError::new(FsErrorKind::FileNotFound, text));
        };
        let Some(file) = self.file(id) else {
            let text = format!("Path is not a file: {}", path.as_str());
            return Err(FsError::new(FsErrorKind::FileNotFound, text));
        };
        self.check_target(who, &at, Access::WRITE)?;
        if let Some(current) = file.holder.clone() {
            if *current != *holder && !self.past_soft_limit(&current) {
                return Err(busy("APPEND_FILE", path.as_str(), who, &current));
            }
            self.close(id);
        }
        self.open_for(id, holder);
        let Some(file) = self.file(id) else { return Err(FsError::missing(path.as_str())) };
        let (block_size, last) = (file.block_size, self.short_last_block(file));
        Ok(Outcome::Opened(Opened { file: id, block_size, last }))
    }

    /// The last block where it is cheap to write it again together with what follows.
    fn short_last_block(&self, file: &FileNode) -> Option<NewBlock> {
        let id = *file.blocks.last()?;
        let block = self.blocks.get(&id)?;
        let short = block.len < (PACK_BLOCK_BYTES as u64).min(file.block_size);
        short.then_some(NewBlock {
            id,
            gs: block.gs,
            len: block.len,
            digest: block.digest,
            replicas: block.replicas,
        })
    }

    pub(super) fn commit(&mut self, commit: &Commit) -> Reply {
        let result = self.check_commit(commit);
        if let Err(error) = result {
            self.doom_unclaimed(&commit.blocks);
            return Err(error);
        }
        if let Some(old) = commit.replace {
            if let Some(file) = self.file_mut(commit.file) {
                file.blocks.pop();
            }
            self.doom(old);
        }
        let now = self.time_ms;
        if let Some(file) = self.file_mut(commit.file) {
            file.blocks.extend(commit.blocks.iter().map(|block| block.id));
        }
        self.adopt(commit.file, &commit.blocks);
        if let Some(inode) = self.inode_mut(commit.file) {
            inode.mtime_ms = now;
        }
        self.renew(&commit.holder);
        if commit.close {
            self.close(commit.file);
        }
        Ok(Outcome::Done)
    }

    fn check_commit(&self, commit: &Commit) -> Result<(), FsError> {
        let file = self.held_file(&commit.path, commit.file, &commit.holder)?;
        if commit.replace.is_some() && file.blocks.last().copied() != commit.replace {
            return Err(FsError::io(format!("{} has grown meanwhile", commit.path)));
        }
        if commit.replace.is_some() && commit.blocks.is_empty() {
            return Err(FsError::io("a block is replaced by a longer one only"));
        }
        self.check_count(file.blocks.len() + commit.blocks.len())?;
        self.check_fresh(&commit.blocks)
    }

    fn check_count(&self, blocks: usize) -> Result<(), FsError> {
        if blocks <= MAX_BLOCKS_PER_FILE {
            return Ok(());
        }
        Err(FsError::io(format!(
            "File has reached the limit on maximum number of blocks \
             (dfs.namenode.fs-limits.max-blocks-per-file): {blocks} > {MAX_BLOCKS_PER_FILE}"
        )))
    }

    /// The file `id` at `path`, held open by `holder`.
    fn held_file(&self, path: &str, id: u64, holder: &str) -> Result<&FileNode, FsError> {
        let lost = |why: &str| {
            let text = format!("No lease on {path} (inode {id}): {why} Holder {holder}");
            Err(FsError::new(FsErrorKind::LeaseExpired, text))
        };
        let parsed = FsPath::parse(path)?;
        // The file may have been renamed while it was written: it is found by its number.
        let reachable = self.resolve(&parsed).target() == Some(id) || self.is_linked(id);
        let Some(file) = self.file(id).filter(|_| reachable) else {
            return lost("File does not exist.");
        };
        match &file.holder {
            Some(current) if **current == *holder => Ok(file),
            Some(current) => lost(&format!("Held by {current}.")),
            None => lost("File is not open for writing."),
        }
    }

    /// Whether an inode can be reached from the root.
    fn is_linked(&self, mut id: u64) -> bool {
        while let Some(inode) = self.inodes.get(&id).filter(|inode| inode.parent != 0) {
            id = inode.parent;
        }
        id == super::ROOT
    }

    pub(super) fn abandon(&mut self, path: &str, id: u64, holder: &str) -> Reply {
        self.held_file(path, id, holder)?;
        self.bury(id);
        Ok(Outcome::Done)
    }

    pub(super) fn put(&mut self, who: &Caller, entries: Vec<PutEntry>) -> Outcome {
        Outcome::Put(entries.into_iter().map(|entry| self.put_one(who, entry)).collect())
    }

    /// Refuses older epochs of a source from now on.
    pub(super) fn fence(&mut self, source: String, epoch: u64) -> Reply {
        self.check_fence(&source, epoch)?;
        self.fences.insert(source.clone(), epoch);
        self.dirty.fences.insert(source);
        Ok(Outcome::Done)
    }

    /// As [`Self::put`], for a source whose epoch nobody has followed yet.
    pub(super) fn put_fenced(
        &mut self,
        who: &Caller,
        source: &str,
        epoch: u64,
        entries: Vec<PutEntry>,
    ) -> Reply {
        if let Err(refused) = self.check_fence(source, epoch) {
            for entry in &entries {
                self.doom_unclaimed(&entry.blocks);
            }
            return Err(refused);
        }
        Ok(self.put(who, entries))
    }

    fn check_fence(&self, source: &str, epoch: u64) -> Result<(), FsError> {
        match self.fences.get(source) {
            Some(&newer) if newer > epoch => {
                let text = format!("source {source} has epoch {newer}, this is of {epoch}");
                Err(FsError::new(FsErrorKind::Fenced, text))
            }
            _ => Ok(()),
        }
    }

    fn put_one(&mut self, who: &Caller, entry: PutEntry) -> Result<PutOutcome, FsError> {
        let done = self.try_put(who, &entry);
        if !matches!(done, Ok(PutOutcome::Created | PutOutcome::Replaced)) {
            self.doom_unclaimed(&entry.blocks);
        }
        done
    }

    fn try_put(&mut self, who: &Caller, entry: &PutEntry) -> Result<PutOutcome, FsError> {
        let path = FsPath::parse(&entry.path)?;
        if entry.version.is_empty() || entry.version.len() > MAX_VERSION_BYTES {
            return Err(FsError::io("version tokens have 1 to 64 bytes"));
        }
        let old = self.resolve(&path).target();
        if old.and_then(|id| self.file(id)).is_some_and(|file| file.version == entry.version) {
            return Ok(PutOutcome::Unchanged);
        }
        self.check_count(entry.blocks.len())?;
        self.check_fresh(&entry.blocks)?;
        let ids = entry.blocks.iter().map(|block| block.id).collect();
        let options = CreateOptions {
            overwrite: true,
            block_size: entry.block_size,
            ..CreateOptions::default()
        };
        let id = self.new_file(who, path.as_str(), &options, ids)?;
        if let Some(file) = self.file_mut(id) {
            file.version.clone_from(&entry.version);
        }
        if let Some(inode) = self.inode_mut(id) {
            inode.mtime_ms = entry.mtime_ms;
        }
        self.adopt(id, &entry.blocks);
        Ok(if old.is_some() { PutOutcome::Replaced } else { PutOutcome::Created })
    }

    fn open_for(&mut self, id: u64, holder: &str) {
        let holder = self.intern(holder);
        if let Some(file) = self.file_mut(id) {
            file.holder = Some(holder.clone());
        }
        let now = self.time_ms;
        let lease = self.leases.entry(holder.clone()).or_default();
        lease.files.insert(id);
        lease.renewed_ms = now;
        self.dirty.leases.insert(holder);
    }

    /// Ends the writing of a file at its committed length.
    fn close(&mut self, id: u64) {
        let Some(holder) = self.file_mut(id).and_then(|file| file.holder.take()) else { return };
        if let Some(lease) = self.leases.get_mut(&holder) {
            lease.files.remove(&id);
            if lease.files.is_empty() {
                self.leases.remove(&holder);
                self.names.remove(&holder);
            }
        }
        self.dirty.leases.insert(holder);
    }

    /// What a removed inode leaves behind: its lease and its blocks.
    pub(super) fn drop_file_facts(&mut self, id: u64) {
        self.close(id);
        let blocks = self.file_mut(id).map(|file| std::mem::take(&mut file.blocks));
        for block in blocks.unwrap_or_default() {
            self.doom(block);
        }
    }

    pub(super) fn renew(&mut self, holder: &str) -> Outcome {
        let now = self.time_ms;
        if let Some((name, lease)) = self.lease_mut(holder) {
            lease.renewed_ms = now;
            self.dirty.leases.insert(name);
        }
        Outcome::Done
    }

    fn lease_mut(&mut self, holder: &str) -> Option<(Arc<str>, &mut super::Lease)> {
        let name = self.leases.get_key_value(holder)?.0.clone();
        self.leases.get_mut(&name).map(|lease| (name, lease))
    }

    fn past_soft_limit(&self, holder: &str) -> bool {
        let lease = self.leases.get(holder);
        lease.is_none_or(|lease| self.time_ms - lease.renewed_ms > LEASE_SOFT_MS)
    }

    /// Whether [`Self::expire`] would do something at this time.
    pub(crate) fn has_old_state(&self, now_ms: i64) -> bool {
        let late = |lease: &super::Lease| now_ms - lease.renewed_ms > LEASE_HARD_MS;
        let reply = self.replies.front();
        self.leases.values().any(late)
            || reply.is_some_and(|(_, entry)| now_ms - entry.time_ms > RETRY_MS)
            || self.reservations.values().any(|r| now_ms - r.time_ms > RESERVE_MS)
    }

    pub(super) fn expire(&mut self) -> Outcome {
        let late = |lease: &super::Lease| self.time_ms - lease.renewed_ms > LEASE_HARD_MS;
        let expired = self.leases.values().filter(|lease| late(lease));
        let files: Vec<u64> = expired.flat_map(|lease| lease.files.iter().copied()).collect();
        for file in files {
            self.close(file);
        }
        self.forget_replies();
        self.forget_reservations();
        Outcome::Done
    }
}

fn busy(operation: &str, path: &str, who: &Caller, holder: &str) -> FsError {
    let text = format!(
        "Failed to {operation} {path} for {} on {} because this file lease is currently owned \
         by {holder}",
        who.user, who.client
    );
    FsError::new(FsErrorKind::AlreadyBeingCreated, text)
}

fn check_create(path: &FsPath, options: &CreateOptions) -> Result<(), FsError> {
    if path.is_root() {
        let text = "/ already exists as a directory";
        return Err(FsError::new(FsErrorKind::FileAlreadyExists, text));
    }
    if options.block_size < MIN_BLOCK_BYTES {
        return Err(FsError::io(format!(
            "Specified block size is less than configured minimum value \
             (dfs.namenode.fs-limits.min-block-size): {} < {MIN_BLOCK_BYTES}",
            options.block_size
        )));
    }
    if options.block_size > MAX_BLOCK_BYTES || !options.block_size.is_multiple_of(512) {
        return Err(FsError::io(format!(
            "block size {} is no multiple of 512 up to {MAX_BLOCK_BYTES}",
            options.block_size
        )));
    }
    check_replication(path.as_str(), options.replication)
}

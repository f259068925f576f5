//! Reading the namespace.

use std::ops::Bound;

use super::{Namespace, Node};
use crate::error::{FsError, FsErrorKind};
use crate::path::FsPath;
use crate::types::{Access, Caller, ContentSummary, FileKind, FileStatus, Listing, LocatedBlock};

impl Namespace {
    /// Status of one path.
    pub(crate) fn status(&self, who: &Caller, path: &FsPath) -> Result<FileStatus, FsError> {
        let at = self.resolve(path);
        self.check_traverse(who, &at)?;
        let id = at.target().ok_or_else(|| FsError::missing(path.as_str()))?;
        self.status_of(id).ok_or_else(|| FsError::missing(path.as_str()))
    }

    /// Status of the root, which always exists.
    pub(crate) fn status_of_root(&self) -> FileStatus {
        self.status_of(super::ROOT).expect("the root is never removed")
    }

    fn status_of(&self, id: u64) -> Option<FileStatus> {
        let inode = self.inodes.get(&id)?;
        let mut status = FileStatus {
            id,
            name: inode.name.clone(),
            kind: FileKind::Directory,
            len: 0,
            owner: inode.owner.clone(),
            group: inode.group.clone(),
            mode: inode.mode,
            mtime_ms: inode.mtime_ms,
            atime_ms: inode.atime_ms,
            replication: 0,
            block_size: 0,
            children: 0,
            open: false,
        };
        match &inode.node {
            Node::Dir(children) => status.children = children.len() as u64,
            Node::File(file) => {
                status.kind = FileKind::File;
                status.len = self.file_len(file);
                status.replication = file.replication;
                status.block_size = file.block_size;
                status.open = file.holder.is_some();
            }
        }
        Some(status)
    }

    /// A page of a directory after the name `after`; a file lists itself with an empty name.
    pub(crate) fn list(
        &self,
        who: &Caller,
        path: &FsPath,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Listing, FsError> {
        let at = self.resolve(path);
        self.check_traverse(who, &at)?;
        let missing = || {
            let text = format!("File {} does not exist.", path.as_str());
            FsError::new(FsErrorKind::FileNotFound, text)
        };
        let id = at.target().ok_or_else(missing)?;
        let children = match &self.inodes.get(&id).ok_or_else(missing)?.node {
            Node::Dir(children) => children,
            Node::File(_) => {
                let status = self.status_of(id).map(|s| FileStatus { name: "".into(), ..s });
                return Ok(Listing { entries: status.into_iter().collect(), remaining: 0 });
            }
        };
        self.check_target(who, &at, Access::READ_EXECUTE)?;
        let from = after.filter(|name| !name.is_empty()).map_or(Bound::Unbounded, Bound::Excluded);
        let range = || children.range::<str, _>((from, Bound::Unbounded));
        let entries: Vec<FileStatus> =
            range().take(limit).filter_map(|(_, id)| self.status_of(*id)).collect();
        // Counting the rest costs a walk; only a full page can have one.
        let rest = if entries.len() < limit { 0 } else { range().count() - entries.len() };
        Ok(Listing { entries, remaining: rest as u64 })
    }

    /// A file with its blocks, for reading.
    pub(crate) fn located(
        &self,
        who: &Caller,
        path: &FsPath,
    ) -> Result<(FileStatus, Vec<LocatedBlock>), FsError> {
        let at = self.resolve(path);
        self.check_traverse(who, &at)?;
        let id = at.target().ok_or_else(|| FsError::missing(path.as_str()))?;
        let status = self.status_of(id).ok_or_else(|| FsError::missing(path.as_str()))?;
        let Some(file) = self.file(id) else {
            let text = format!("Path is not a file: {}", path.as_str());
            return Err(FsError::new(FsErrorKind::FileNotFound, text));
        };
        self.check_target(who, &at, Access::READ)?;
        let mut offset = 0;
        let mut blocks = Vec::with_capacity(file.blocks.len());
        for id in &file.blocks {
            let Some(block) = self.blocks.get(id) else {
                return Err(FsError::io(format!("block {id} has no row")));
            };
            blocks.push(LocatedBlock {
                id: *id,
                gs: block.gs,
                len: block.len,
                offset,
                digest: block.digest,
                replicas: block.replicas,
            });
            offset += block.len;
        }
        Ok((status, blocks))
    }

    /// Whether `who` has `access` to a path.
    pub(crate) fn access(
        &self,
        who: &Caller,
        path: &FsPath,
        access: Access,
    ) -> Result<(), FsError> {
        let at = self.resolve(path);
        self.check_traverse(who, &at)?;
        at.target().ok_or_else(|| FsError::missing(path.as_str()))?;
        self.check_target(who, &at, access)
    }

    /// Where a content summary begins.
    pub(crate) fn summary_root(&self, who: &Caller, path: &FsPath) -> Result<u64, FsError> {
        let at = self.resolve(path);
        self.check_traverse(who, &at)?;
        at.target().ok_or_else(|| FsError::missing(path.as_str()))
    }

    /// Adds up to `limit` inodes of `stack` to `sum`; what is below them goes onto the stack.
    pub(crate) fn summarize(
        &self,
        who: &Caller,
        stack: &mut Vec<u64>,
        sum: &mut ContentSummary,
        limit: usize,
    ) -> Result<(), FsError> {
        for _ in 0..limit {
            let Some(id) = stack.pop() else { break };
            let Some(inode) = self.inodes.get(&id) else { continue };
            match &inode.node {
                Node::Dir(children) => {
                    self.check_inode(who, inode, Access::READ_EXECUTE)?;
                    sum.directories += 1;
                    stack.extend(children.values());
                }
                Node::File(file) => {
                    let len = self.file_len(file);
                    sum.files += 1;
                    sum.len += len;
                    sum.space += len * u64::from(file.replication);
                }
            }
        }
        Ok(())
    }
}

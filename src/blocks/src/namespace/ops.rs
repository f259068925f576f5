//! Commands that change the tree: directories, rename, delete, attributes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Inode, Namespace, Node, ROOT, Resolved};
use crate::command::{Command, Outcome, Reply};
use crate::error::{FsError, FsErrorKind};
use crate::limits::{MAX_COMPONENT_BYTES, MAX_NAME_BYTES, PURGE_INODES};
use crate::path::FsPath;
use crate::types::{Access, Caller};

impl Namespace {
    pub(super) fn execute(&mut self, who: &Caller, command: Command) -> Reply {
        match command {
            Command::Mkdirs { path, mode } => self.mkdirs(who, &path, mode),
            Command::Create { path, options, holder } => self.create(who, &path, &options, &holder),
            Command::CreateClosed { path, options, blocks } => {
                self.create_closed(who, &path, &options, &blocks)
            }
            Command::Append { path, holder } => self.append(who, &path, &holder),
            Command::Commit(commit) => self.commit(&commit),
            Command::Abandon { path, file, holder } => self.abandon(&path, file, &holder),
            Command::Put(entries) => Ok(self.put(who, entries)),
            Command::Fence { source, epoch } => self.fence(source, epoch),
            Command::PutFenced { source, epoch, entries } => {
                self.put_fenced(who, &source, epoch, entries)
            }
            Command::Rename { src, dst } => self.rename(who, &src, &dst),
            Command::Rename2 { src, dst, overwrite } => self.rename2(who, &src, &dst, overwrite),
            Command::Delete { path, recursive } => self.delete(who, &path, recursive),
            Command::SetMode { path, mode } => self.set_mode(who, &path, mode),
            Command::SetOwner { path, owner, group } => {
                self.set_owner(who, &path, owner.as_deref(), group.as_deref())
            }
            Command::SetTimes { path, mtime_ms, atime_ms } => {
                self.set_times(who, &path, mtime_ms, atime_ms)
            }
            Command::SetReplication { path, replication } => {
                self.set_replication(who, &path, replication)
            }
            Command::Renew { holder } => Ok(self.renew(&holder)),
            Command::Expire => Ok(self.expire()),
            Command::Reserve { count } => Ok(self.reserve(count)),
            Command::Replicas { slot, added, lost } => Ok(self.replicas(slot, &added, &lost)),
            Command::Removed { slot, ids } => Ok(self.removed(slot, &ids)),
            Command::ResetSlot { slot } => Ok(self.reset_slot(slot)),
            Command::Purge => {
                self.purge(PURGE_INODES);
                Ok(Outcome::Done)
            }
            Command::Touch { file, atime_ms } => {
                if let Some(inode) = self.inode_mut(file) {
                    inode.atime_ms = inode.atime_ms.max(atime_ms);
                }
                Ok(Outcome::Done)
            }
        }
    }

    fn mkdirs(&mut self, who: &Caller, path: &str, mode: u16) -> Reply {
        let path = FsPath::parse(path)?;
        let at = self.resolve(&path);
        self.check_traverse(who, &at)?;
        if let Some(id) = at.target() {
            if self.is_dir(id) {
                return Ok(Outcome::Bool(true));
            }
            let text = format!("Path is not a directory: {}", path.as_str());
            return Err(FsError::new(FsErrorKind::FileAlreadyExists, text));
        }
        self.must_be_dir(&at)?;
        check_components(&at)?;
        self.check_parent_write(who, &at)?;
        let (ids, names) = (at.ids, at.names);
        let mut parent = ids.last().copied().unwrap_or(ROOT);
        for (depth, name) in names.iter().enumerate().skip(ids.len() - 1) {
            let last = depth + 1 == names.len();
            // HDFS-1094: parents made on the way stay writable for their owner.
            let mode = if last { mode } else { mode | 0o300 };
            parent = self.add_dir(parent, name, &who.user, mode);
        }
        Ok(Outcome::Bool(true))
    }

    /// Makes the missing parents of a new file; they take their mode from the directory they
    /// stand in. Returns the parent of the file.
    pub(super) fn make_parents(&mut self, who: &Caller, at: &Resolved<'_>) -> u64 {
        let mut parent = at.last();
        let mode = self.inodes.get(&parent).map_or(0o755, |inode| inode.mode & 0o777) | 0o300;
        let names = at.names.get(..at.names.len().saturating_sub(1)).unwrap_or_default();
        for name in names.iter().skip(at.ids.len() - 1) {
            parent = self.add_dir(parent, name, &who.user, mode);
        }
        parent
    }

    fn add_dir(&mut self, parent: u64, name: &str, owner: &str, mode: u16) -> u64 {
        self.add(parent, name, owner, mode, Node::Dir(BTreeMap::new()))
    }

    /// Adds an inode; the caller has checked the name and that it is free.
    pub(super) fn add(
        &mut self,
        parent: u64,
        name: &str,
        owner: &str,
        mode: u16,
        node: Node,
    ) -> u64 {
        let id = self.meta.next_inode;
        self.meta.next_inode += 1;
        self.dirty.meta = true;
        let group = self.inodes.get(&parent).map(|inode| inode.group.clone());
        let inode = Inode {
            parent: 0,
            name: "".into(),
            owner: self.intern(owner),
            group: group.unwrap_or_else(|| "".into()),
            mode: mode & 0o1777,
            mtime_ms: self.time_ms,
            atime_ms: if matches!(node, Node::Dir(_)) { 0 } else { self.time_ms },
            node,
        };
        self.inodes.insert(id, inode);
        self.link(id, parent, name.into());
        id
    }

    /// Puts an inode under a name.
    fn link(&mut self, id: u64, parent: u64, name: Arc<str>) {
        if let Some(inode) = self.inode_mut(id) {
            inode.parent = parent;
            inode.name = name.clone();
        }
        self.change_dir(parent, |children| {
            let before = children.insert(name, id);
            assert!(before.is_none(), "the name was checked to be free");
        });
    }

    /// Takes an inode out of its directory.
    fn unlink(&mut self, id: u64) {
        let Some(inode) = self.inode_mut(id) else { return };
        let parent = std::mem::take(&mut inode.parent);
        let name = inode.name.clone();
        self.change_dir(parent, |children| {
            children.remove(&name);
        });
    }

    fn change_dir(&mut self, id: u64, change: impl FnOnce(&mut BTreeMap<Arc<str>, u64>)) {
        let now = self.time_ms;
        if let Some(Inode { node: Node::Dir(children), mtime_ms, .. }) = self.inode_mut(id) {
            change(children);
            *mtime_ms = now;
        }
    }

    /// An error when the path goes through a file.
    pub(super) fn must_be_dir(&self, at: &Resolved<'_>) -> Result<(), FsError> {
        if at.target().is_some() || self.is_dir(at.last()) {
            return Ok(());
        }
        let text = format!("{} (is not a directory)", at.existing_path());
        Err(FsError::new(FsErrorKind::ParentNotDirectory, text))
    }

    /// Detaches a tree and removes it, at once when it is small.
    pub(super) fn bury(&mut self, id: u64) {
        self.unlink(id);
        self.graveyard.insert(id);
        self.dirty.graveyard.insert(id);
        self.purge(PURGE_INODES);
    }

    /// Removes up to `limit` inodes of deleted trees.
    fn purge(&mut self, limit: usize) {
        for _ in 0..limit {
            let Some(top) = self.graveyard.first().copied() else { return };
            let mut leaf = top;
            while let Some(Inode { node: Node::Dir(children), .. }) = self.inodes.get(&leaf)
                && let Some(child) = children.values().next()
            {
                leaf = *child;
            }
            self.unlink(leaf);
            self.drop_file_facts(leaf);
            self.inodes.remove(&leaf);
            self.dirty.inodes.insert(leaf);
            if leaf == top {
                self.graveyard.remove(&top);
                self.dirty.graveyard.insert(top);
            }
        }
    }

    fn delete(&mut self, who: &Caller, path: &str, recursive: bool) -> Reply {
        let path = FsPath::parse(path)?;
        let at = self.resolve(&path);
        self.check_traverse(who, &at)?;
        let Some(id) = at.target() else { return Ok(Outcome::Bool(false)) };
        if path.is_root() {
            return Ok(Outcome::Bool(false));
        }
        let children = match self.inodes.get(&id).map(|inode| &inode.node) {
            Some(Node::Dir(children)) => children.len(),
            _ => 0,
        };
        self.check_parent_write(who, &at)?;
        self.check_sticky(who, &at)?;
        if children > 0 && !recursive {
            let text = format!("`{} is non empty': Directory is not empty", path.as_str());
            return Err(FsError::new(FsErrorKind::PathIsNotEmptyDirectory, text));
        }
        self.check_subtree(who, id, path.as_str())?;
        self.bury(id);
        Ok(Outcome::Bool(true))
    }

    fn rename(&mut self, who: &Caller, src: &str, dst: &str) -> Reply {
        let src = FsPath::parse(src)?;
        let invalid = |_| FsError::io(format!("Invalid name: {dst}"));
        let mut dst = FsPath::parse(dst).map_err(invalid)?;
        let from = self.resolve(&src);
        self.check_parent_write(who, &from)?;
        let Some(id) = from.target() else { return Ok(Outcome::Bool(false)) };
        if src.is_root() {
            return Ok(Outcome::Bool(false));
        }
        self.check_sticky(who, &from)?;
        if src == dst {
            return Ok(Outcome::Bool(!self.is_dir(id)));
        }
        if self.resolve(&dst).target().is_some_and(|id| self.is_dir(id)) {
            let name = src.components().pop().unwrap_or_default().to_owned();
            dst = FsPath::parse(&format!("{}/{name}", dst.as_str().trim_end_matches('/')))?;
        }
        let to = self.resolve(&dst);
        self.check_parent_write(who, &to)?;
        let Some(parent) = to.parent().filter(|id| self.is_dir(*id)) else {
            return Ok(Outcome::Bool(false));
        };
        if to.target().is_some() || dst.starts_with(&src) {
            return Ok(Outcome::Bool(false));
        }
        check_components(&to)?;
        self.relink(id, parent, &to);
        Ok(Outcome::Bool(true))
    }

    fn relink(&mut self, id: u64, parent: u64, to: &Resolved<'_>) {
        let name: Arc<str> = to.names.last().copied().unwrap_or_default().into();
        self.unlink(id);
        self.link(id, parent, name);
    }

    fn rename2(&mut self, who: &Caller, src: &str, dst: &str, overwrite: bool) -> Reply {
        let (src, dst) = (FsPath::parse(src)?, FsPath::parse(dst)?);
        let (from, to) = (self.resolve(&src), self.resolve(&dst));
        self.check_parent_write(who, &from)?;
        let (src_text, dst_text) = (src.as_str(), dst.as_str());
        let Some(id) = from.target() else {
            let text = format!("rename source {src_text} is not found.");
            return Err(FsError::new(FsErrorKind::FileNotFound, text));
        };
        if src.is_root() {
            return Err(FsError::io("rename source cannot be the root"));
        }
        self.check_sticky(who, &from)?;
        self.check_parent_write(who, &to)?;
        if src == dst {
            let text = format!("The source {src_text} and destination {dst_text} are the same");
            return Err(FsError::new(FsErrorKind::FileAlreadyExists, text));
        }
        if dst.starts_with(&src) {
            let text = format!(
                "Rename destination {dst_text} is a directory or file under source {src_text}"
            );
            return Err(FsError::io(text));
        }
        if dst.is_root() {
            return Err(FsError::io("rename destination cannot be the root"));
        }
        let Some(parent) = to.parent() else {
            let text = format!("rename destination parent {dst_text} not found.");
            return Err(FsError::new(FsErrorKind::FileNotFound, text));
        };
        if !self.is_dir(parent) {
            let text = format!("rename destination parent {dst_text} is a file.");
            return Err(FsError::new(FsErrorKind::ParentNotDirectory, text));
        }
        check_components(&to)?;
        if let Some(old) = to.target() {
            self.check_sticky(who, &to)?;
            self.may_replace(id, old, &src, &dst, overwrite)?;
            self.bury(old);
        }
        self.relink(id, parent, &to);
        Ok(Outcome::Done)
    }

    fn may_replace(
        &self,
        id: u64,
        old: u64,
        src: &FsPath,
        dst: &FsPath,
        overwrite: bool,
    ) -> Result<(), FsError> {
        let (src, dst) = (src.as_str(), dst.as_str());
        if self.is_dir(id) != self.is_dir(old) {
            let both = if self.is_dir(id) { "directories" } else { "files" };
            return Err(FsError::io(format!(
                "Source {src} and destination {dst} must both be {both}"
            )));
        }
        if !overwrite {
            let text = format!("rename destination {dst} already exists");
            return Err(FsError::new(FsErrorKind::FileAlreadyExists, text));
        }
        match self.inodes.get(&old).map(|inode| &inode.node) {
            Some(Node::Dir(children)) if !children.is_empty() => {
                Err(FsError::io(format!("rename destination directory is not empty: {dst}")))
            }
            _ => Ok(()),
        }
    }

    fn set_mode(&mut self, who: &Caller, path: &str, mode: u16) -> Reply {
        let path = FsPath::parse(path)?;
        let at = self.resolve(&path);
        let id = at.target().ok_or_else(|| FsError::missing(path.as_str()))?;
        self.check_owner(who, &at)?;
        if let Some(inode) = self.inode_mut(id) {
            inode.mode = mode & 0o1777;
        }
        Ok(Outcome::Done)
    }

    fn set_owner(
        &mut self,
        who: &Caller,
        path: &str,
        owner: Option<&str>,
        group: Option<&str>,
    ) -> Reply {
        let path = FsPath::parse(path)?;
        let at = self.resolve(&path);
        let id = at.target().ok_or_else(|| FsError::missing(path.as_str()))?;
        self.check_owner(who, &at)?;
        for name in [owner, group].into_iter().flatten() {
            check_name(name)?;
        }
        if !who.superuser {
            let current = self.inodes.get(&id).map(|inode| inode.owner.clone());
            if owner.is_some_and(|owner| current.is_some_and(|now| *now != *owner)) {
                let text = "Non-super user cannot change owner";
                return Err(FsError::new(FsErrorKind::AccessControl, text));
            }
            if let Some(group) = group.filter(|group| *group != who.user) {
                let text = format!("User {} does not belong to {group}", who.user);
                return Err(FsError::new(FsErrorKind::AccessControl, text));
            }
        }
        let owner = owner.map(|name| self.intern(name));
        let group = group.map(|name| self.intern(name));
        if let Some(inode) = self.inode_mut(id) {
            inode.owner = owner.unwrap_or_else(|| inode.owner.clone());
            inode.group = group.unwrap_or_else(|| inode.group.clone());
        }
        Ok(Outcome::Done)
    }

    fn set_times(
        &mut self,
        who: &Caller,
        path: &str,
        mtime_ms: Option<i64>,
        atime_ms: Option<i64>,
    ) -> Reply {
        let path = FsPath::parse(path)?;
        let at = self.resolve(&path);
        let missing = || {
            let text = format!("File/Directory {} does not exist.", path.as_str());
            FsError::new(FsErrorKind::FileNotFound, text)
        };
        let id = at.target().ok_or_else(missing)?;
        self.check_target(who, &at, Access::WRITE)?;
        if let Some(inode) = self.inode_mut(id) {
            inode.mtime_ms = mtime_ms.unwrap_or(inode.mtime_ms);
            inode.atime_ms = atime_ms.unwrap_or(inode.atime_ms);
        }
        Ok(Outcome::Done)
    }

    fn set_replication(&mut self, who: &Caller, path: &str, replication: u16) -> Reply {
        let path = FsPath::parse(path)?;
        check_replication(path.as_str(), replication)?;
        let at = self.resolve(&path);
        let Some(id) = at.target().filter(|id| !self.is_dir(*id)) else {
            return Ok(Outcome::Bool(false));
        };
        self.check_target(who, &at, Access::WRITE)?;
        if let Some(file) = self.file_mut(id) {
            file.replication = replication;
        }
        Ok(Outcome::Bool(true))
    }
}

/// Hadoop's `dfs.replication.max` of 512 and minimum of 1.
pub(super) fn check_replication(path: &str, replication: u16) -> Result<(), FsError> {
    let text = match replication {
        0 => format!(
            "Requested replication factor of 0 is less than the required minimum of 1 for {path}"
        ),
        1..=512 => return Ok(()),
        _ => format!(
            "Requested replication factor of {replication} exceeds the maximum of 512 for {path}"
        ),
    };
    Err(FsError::io(text))
}

/// Every component that is about to be created fits.
pub(super) fn check_components(at: &Resolved<'_>) -> Result<(), FsError> {
    for (depth, name) in at.names.iter().enumerate().skip(at.ids.len() - 1) {
        if name.len() > MAX_COMPONENT_BYTES {
            let parent = super::path_of(at.names.get(..depth).unwrap_or_default());
            let text = format!(
                "The maximum path component name limit of {name} in directory {parent} is \
                 exceeded: limit={MAX_COMPONENT_BYTES} length={}",
                name.len()
            );
            return Err(FsError::new(FsErrorKind::PathComponentTooLong, text));
        }
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), FsError> {
    if name.len() <= MAX_NAME_BYTES && !name.is_empty() {
        return Ok(());
    }
    let text = format!("owner and group names have 1 to {MAX_NAME_BYTES} bytes");
    Err(FsError::new(FsErrorKind::IllegalArgument, text))
}

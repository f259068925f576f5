//! The namespace in RAM with a row per inode, block, doomed block, lease, reservation and
//! remembered reply.
//!
//! Rows, by first byte of the key (numbers big-endian):
//! `i` inode id → [`InodeRow`], `b` block id → [`BlockRow`], `d` block id → [`Doomed`],
//! `l` holder → renewed ms, `g` inode id → (a deleted tree not yet removed),
//! `v` first id → [`Reservation`], `r` sequence → [`Remembered`], `f` source → epoch,
//! `m` → [`Meta`].
//!
//! Every command marks what it changed; [`Namespace::flush`] writes those rows, so RAM and rows
//! are equal after every entry. Directories hold their children by name in RAM only; they are
//! rebuilt from the parents named in the inode rows.

mod files;
#[cfg(test)]
mod golden;
mod ops;
mod perm;
mod replicas;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use base::codec;
use consensus::{Fatal, Rows};
use serde::{Deserialize, Serialize};

use crate::command::{OpId, Reply, Request};
use crate::limits::{MAX_BLOCKS_PER_FILE, RETRY_ENTRIES, RETRY_MS};
use crate::path::FsPath;

pub(crate) const ROOT: u64 = 16_385;
const FIRST_BLOCK: u64 = 1_073_741_825;
const FIRST_STAMP: u64 = 1_001;
const SUPERGROUP: &str = "supergroup";

#[derive(Debug)]
pub(crate) struct Inode {
    /// The directory this stands in; 0 for the root and for the top of a deleted tree.
    pub parent: u64,
    pub name: Arc<str>,
    pub owner: Arc<str>,
    pub group: Arc<str>,
    pub mode: u16,
    pub mtime_ms: i64,
    pub atime_ms: i64,
    pub node: Node,
}

#[derive(Debug)]
pub(crate) enum Node {
    Dir(BTreeMap<Arc<str>, u64>),
    File(FileNode),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileNode {
    pub blocks: Vec<u64>,
    pub replication: u16,
    pub block_size: u64,
    /// The lease that holds the file open.
    pub holder: Option<Arc<str>>,
    /// The version token of the latest put.
    pub version: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct InodeRow {
    parent: u64,
    name: Arc<str>,
    owner: Arc<str>,
    group: Arc<str>,
    mode: u16,
    mtime_ms: i64,
    atime_ms: i64,
    /// `None` for a directory.
    file: Option<FileNode>,
}

/// A committed block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlockRow {
    pub gs: u64,
    pub len: u64,
    pub digest: u32,
    /// Bit n: node n+1 has a synced copy.
    pub replicas: u8,
    pub file: u64,
}

/// A block that no file owns and that nodes have yet to remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Doomed {
    /// Nodes that have not confirmed.
    pub replicas: u8,
    pub since_ms: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reservation {
    pub count: u32,
    pub gs: u64,
    pub time_ms: i64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Remembered {
    op: OpId,
    time_ms: i64,
    reply: Reply,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Meta {
    next_inode: u64,
    next_block: u64,
    next_stamp: u64,
    next_reply: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Lease {
    pub renewed_ms: i64,
    pub files: BTreeSet<u64>,
}

#[derive(Default)]
struct Dirty {
    inodes: BTreeSet<u64>,
    blocks: BTreeSet<u64>,
    doomed: BTreeSet<u64>,
    leases: BTreeSet<Arc<str>>,
    graveyard: BTreeSet<u64>,
    reservations: BTreeSet<u64>,
    replies: BTreeSet<u64>,
    fences: BTreeSet<String>,
    meta: bool,
}

pub(crate) struct Namespace {
    pub inodes: BTreeMap<u64, Inode>,
    pub blocks: BTreeMap<u64, BlockRow>,
    pub doomed: BTreeMap<u64, Doomed>,
    pub leases: BTreeMap<Arc<str>, Lease>,
    /// Tops of deleted trees that are not fully removed yet.
    pub graveyard: BTreeSet<u64>,
    /// Blocks with fewer than three copies.
    pub partial: BTreeSet<u64>,
    /// Time of the latest entry.
    pub time_ms: i64,
    reservations: BTreeMap<u64, Reservation>,
    replies: VecDeque<(u64, Remembered)>,
    reply_index: BTreeMap<OpId, u64>,
    /// The epoch of each source that puts files; older ones are refused.
    fences: BTreeMap<String, u64>,
    meta: Meta,
    /// Every owner, group and holder once.
    names: BTreeSet<Arc<str>>,
    dirty: Dirty,
}

/// How far a path exists: the inodes from the root on, one more than the names they match.
pub(crate) struct Resolved<'p> {
    pub ids: Vec<u64>,
    pub names: Vec<&'p str>,
}

impl Resolved<'_> {
    /// The inode of the whole path.
    pub(crate) fn target(&self) -> Option<u64> {
        (self.ids.len() == self.names.len() + 1).then(|| self.last())
    }

    /// The deepest existing inode.
    pub(crate) fn last(&self) -> u64 {
        self.ids.last().copied().unwrap_or(ROOT)
    }

    /// The directory of the last component, where it exists (it may be a file).
    pub(crate) fn parent(&self) -> Option<u64> {
        self.names.len().checked_sub(1).and_then(|depth| self.ids.get(depth).copied())
    }

    /// The path of the deepest existing inode.
    pub(crate) fn existing_path(&self) -> String {
        path_of(self.names.get(..self.ids.len().saturating_sub(1)).unwrap_or_default())
    }

    /// The path of the parent.
    pub(crate) fn parent_path(&self) -> String {
        path_of(self.names.get(..self.names.len().saturating_sub(1)).unwrap_or_default())
    }
}

pub(crate) fn path_of(names: &[&str]) -> String {
    if names.is_empty() { "/".to_owned() } else { format!("/{}", names.join("/")) }
}

impl Namespace {
    /// A namespace with an empty root.
    pub(crate) fn new() -> Self {
        let mut this = Self {
            inodes: BTreeMap::new(),
            blocks: BTreeMap::new(),
            doomed: BTreeMap::new(),
            leases: BTreeMap::new(),
            graveyard: BTreeSet::new(),
            partial: BTreeSet::new(),
            time_ms: 0,
            reservations: BTreeMap::new(),
            replies: VecDeque::new(),
            reply_index: BTreeMap::new(),
            fences: BTreeMap::new(),
            meta: Meta {
                next_inode: ROOT + 1,
                next_block: FIRST_BLOCK,
                next_stamp: FIRST_STAMP,
                next_reply: 0,
            },
            names: BTreeSet::new(),
            dirty: Dirty::default(),
        };
        let root = Inode {
            parent: 0,
            name: "".into(),
            owner: this.intern("root"),
            group: this.intern(SUPERGROUP),
            mode: 0o755,
            mtime_ms: 0,
            atime_ms: 0,
            node: Node::Dir(BTreeMap::new()),
        };
        this.inodes.insert(ROOT, root);
        this
    }

    /// Runs one request: a repetition gets the remembered reply.
    pub(crate) fn run(&mut self, time_ms: i64, request: Request) -> Reply {
        self.time_ms = time_ms;
        if let Some(reply) = request.op.and_then(|op| self.remembered(op)) {
            return reply;
        }
        let reply = self.execute(&request.caller, request.command);
        if let (Some(op), Ok(_)) = (request.op, &reply) {
            self.remember(op, reply.clone());
        }
        reply
    }

    fn remembered(&self, op: OpId) -> Option<Reply> {
        let sequence = *self.reply_index.get(&op)?;
        let first = self.replies.front()?.0;
        let at = usize::try_from(sequence.checked_sub(first)?).ok()?;
        self.replies.get(at).map(|(_, entry)| entry.reply.clone())
    }

    fn remember(&mut self, op: OpId, reply: Reply) {
        let sequence = self.meta.next_reply;
        self.meta.next_reply += 1;
        self.dirty.meta = true;
        self.dirty.replies.insert(sequence);
        self.reply_index.insert(op, sequence);
        self.replies.push_back((sequence, Remembered { op, time_ms: self.time_ms, reply }));
        self.forget_replies();
    }

    /// Drops replies beyond the count and the age that are kept.
    fn forget_replies(&mut self) {
        while let Some((_, oldest)) = self.replies.front() {
            let expired = self.time_ms - oldest.time_ms > RETRY_MS;
            if !expired && self.replies.len() <= RETRY_ENTRIES {
                break;
            }
            let Some((sequence, entry)) = self.replies.pop_front() else { break };
            self.reply_index.remove(&entry.op);
            self.dirty.replies.insert(sequence);
        }
    }

    /// Follows a path as far as it exists. Stops at a file.
    pub(crate) fn resolve<'p>(&self, path: &'p FsPath) -> Resolved<'p> {
        let names = path.components();
        let mut ids = vec![ROOT];
        for name in &names {
            let here = ids.last().and_then(|id| self.inodes.get(id));
            let Some(Inode { node: Node::Dir(children), .. }) = here else { break };
            let Some(child) = children.get(*name) else { break };
            ids.push(*child);
        }
        Resolved { ids, names }
    }

    pub(crate) fn file(&self, id: u64) -> Option<&FileNode> {
        match &self.inodes.get(&id)?.node {
            Node::File(file) => Some(file),
            Node::Dir(_) => None,
        }
    }

    fn file_mut(&mut self, id: u64) -> Option<&mut FileNode> {
        self.dirty.inodes.insert(id);
        match &mut self.inodes.get_mut(&id)?.node {
            Node::File(file) => Some(file),
            Node::Dir(_) => None,
        }
    }

    fn inode_mut(&mut self, id: u64) -> Option<&mut Inode> {
        self.dirty.inodes.insert(id);
        self.inodes.get_mut(&id)
    }

    pub(crate) fn is_dir(&self, id: u64) -> bool {
        matches!(self.inodes.get(&id), Some(Inode { node: Node::Dir(_), .. }))
    }

    fn intern(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return known.clone();
        }
        let name: Arc<str> = name.into();
        self.names.insert(name.clone());
        name
    }

    /// Committed bytes of a file.
    pub(crate) fn file_len(&self, file: &FileNode) -> u64 {
        file.blocks.iter().filter_map(|id| self.blocks.get(id)).map(|block| block.len).sum()
    }

    /// Writes what changed since the last flush.
    pub(crate) fn flush(&mut self, rows: &mut Rows<'_>) {
        let dirty = std::mem::take(&mut self.dirty);
        for id in dirty.inodes {
            let row = self.inodes.get(&id).map(|inode| codec::encode(&inode_row(inode)));
            write(rows, b'i', &id.to_be_bytes(), row);
        }
        for id in dirty.blocks {
            write(rows, b'b', &id.to_be_bytes(), self.blocks.get(&id).map(codec::encode));
        }
        for id in dirty.doomed {
            write(rows, b'd', &id.to_be_bytes(), self.doomed.get(&id).map(codec::encode));
        }
        for holder in dirty.leases {
            let lease = self.leases.get(&holder).map(|lease| codec::encode(&lease.renewed_ms));
            write(rows, b'l', holder.as_bytes(), lease);
        }
        for id in dirty.graveyard {
            let row = self.graveyard.contains(&id).then(Vec::new);
            write(rows, b'g', &id.to_be_bytes(), row);
        }
        for id in dirty.reservations {
            let row = self.reservations.get(&id).map(codec::encode);
            write(rows, b'v', &id.to_be_bytes(), row);
        }
        let first = self.replies.front().map_or(u64::MAX, |(sequence, _)| *sequence);
        for sequence in dirty.replies {
            let at = sequence.checked_sub(first).and_then(|at| usize::try_from(at).ok());
            let entry = at.and_then(|at| self.replies.get(at));
            let row = entry.map(|(_, entry)| codec::encode(entry));
            write(rows, b'r', &sequence.to_be_bytes(), row);
        }
        for source in dirty.fences {
            let row = self.fences.get(&source).map(codec::encode);
            write(rows, b'f', source.as_bytes(), row);
        }
        if dirty.meta {
            rows.put(b"m", codec::encode(&self.meta));
        }
    }

    /// Loads what [`Self::flush`] wrote.
    pub(crate) fn load(rows: &Rows<'_>) -> Result<Self, Fatal> {
        let mut this = Self::new();
        if let Some(meta) = rows.get(b"m")? {
            this.meta = codec::decode(&meta)?;
        }
        this.load_inodes(rows)?;
        for (key, value) in rows.scan(b"b")? {
            let (id, block) = (number(&key)?, codec::decode::<BlockRow>(&value)?);
            this.note_copies(id, block.replicas);
            this.blocks.insert(id, block);
        }
        for (key, value) in rows.scan(b"d")? {
            this.doomed.insert(number(&key)?, codec::decode(&value)?);
        }
        for (key, _) in rows.scan(b"g")? {
            this.graveyard.insert(number(&key)?);
        }
        for (key, value) in rows.scan(b"v")? {
            this.reservations.insert(number(&key)?, codec::decode(&value)?);
        }
        for (key, value) in rows.scan(b"r")? {
            let (sequence, entry) = (number(&key)?, codec::decode::<Remembered>(&value)?);
            this.reply_index.insert(entry.op, sequence);
            this.replies.push_back((sequence, entry));
        }
        for (key, value) in rows.scan(b"f")? {
            this.fences.insert(text(&key)?.to_owned(), codec::decode(&value)?);
        }
        for (key, value) in rows.scan(b"l")? {
            let holder = text(&key)?;
            if let Some(lease) = this.leases.get_mut(holder) {
                lease.renewed_ms = codec::decode(&value)?;
            }
        }
        Ok(this)
    }

    fn load_inodes(&mut self, rows: &Rows<'_>) -> Result<(), Fatal> {
        for (key, value) in rows.scan(b"i")? {
            let (id, row) = (number(&key)?, codec::decode::<InodeRow>(&value)?);
            if let Some(FileNode { holder: Some(holder), .. }) = &row.file {
                let holder = self.intern(holder);
                self.leases.entry(holder).or_default().files.insert(id);
            }
            let node = row.file.map_or(Node::Dir(BTreeMap::new()), Node::File);
            let inode = Inode {
                parent: row.parent,
                name: row.name,
                owner: self.intern(&row.owner),
                group: self.intern(&row.group),
                mode: row.mode,
                mtime_ms: row.mtime_ms,
                atime_ms: row.atime_ms,
                node,
            };
            self.inodes.insert(id, inode);
        }
        let links: Vec<_> = self
            .inodes
            .iter()
            .filter(|(_, inode)| inode.parent != 0)
            .map(|(id, inode)| (inode.parent, inode.name.clone(), *id))
            .collect();
        for (parent, name, id) in links {
            match self.inodes.get_mut(&parent).map(|inode| &mut inode.node) {
                Some(Node::Dir(children)) => children.insert(name, id),
                _ => return Err(Fatal(format!("inode {id} stands in {parent}, no directory"))),
            };
        }
        Ok(())
    }

    /// Keeps `partial` right for a block with these copies.
    fn note_copies(&mut self, id: u64, replicas: u8) {
        if replicas.count_ones() < 3 {
            self.partial.insert(id);
        } else {
            self.partial.remove(&id);
        }
    }
}

fn inode_row(inode: &Inode) -> InodeRow {
    let file = match &inode.node {
        Node::Dir(_) => None,
        Node::File(file) => {
            assert!(file.blocks.len() <= MAX_BLOCKS_PER_FILE);
            Some(file.clone())
        }
    };
    InodeRow {
        parent: inode.parent,
        name: inode.name.clone(),
        owner: inode.owner.clone(),
        group: inode.group.clone(),
        mode: inode.mode,
        mtime_ms: inode.mtime_ms,
        atime_ms: inode.atime_ms,
        file,
    }
}

fn write(rows: &mut Rows<'_>, table: u8, key: &[u8], value: Option<Vec<u8>>) {
    let key = [&[table], key].concat();
    match value {
        Some(value) => rows.put(&key, value),
        None => rows.delete(&key),
    }
}

fn text(key: &[u8]) -> Result<&str, Fatal> {
    let name = std::str::from_utf8(key.get(1..).unwrap_or_default());
    name.map_err(|e| Fatal(format!("row key: {e}")))
}

fn number(key: &[u8]) -> Result<u64, Fatal> {
    let digits = key.get(1..).and_then(|rest| <[u8; 8]>::try_from(rest).ok());
    digits.map(u64::from_be_bytes).ok_or_else(|| Fatal("row key of a wrong length".to_owned()))
}

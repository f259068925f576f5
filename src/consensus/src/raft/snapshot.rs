//! Snapshots: a lagging or new node copies a checkpoint from the leader.
//!
//! The offer names row files and data files. Row files are copied whole; of a data file only the
//! range that this node's own last checkpoint does not cover, because committed bytes are equal
//! on all nodes. Everything lands in a staging folder first; [`super::host::Host`] puts it in
//! place between two entries.
//!
//! The checksum of every file is compared before anything is put in place. Of a data file that
//! differs the piece is fetched again from the other nodes, whose bytes must be the same; row
//! files are the sender's own. What no node has whole is reported and the offer refused.

use std::io;
use std::path::{Component, Path};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base::crc::crc32c_append;
use base::env::OpenMode;
use base::limits::MIB;
use base::{GroupId, NodeId};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message as _;
use tracing::{error, warn};

use super::checkpoint::Position;
use super::host::{Manifest, Piece, Shared, Staged};
use super::network::group_id;
use super::types::{SnapshotMeta, Vote, invalid};
use crate::machine::SnapshotFile;
use crate::net::{Link, methods, proto};
use crate::peer::{Lane, Message};

/// Bytes per request.
const STEP_BYTES: u64 = MIB as u64;
/// Requests on their way at once: enough to fill a link, few enough to leave room for blocks.
const IN_FLIGHT: usize = 4;
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Folders of the data directory that a snapshot may name.
const ALLOWED: [&str; 3] = ["ckpt", "parts", "index"];

/// A decoded offer.
pub(crate) struct Offer {
    pub(crate) group: GroupId,
    pub(crate) target: u64,
    pub(crate) vote: Vote,
    pub(crate) manifest: Manifest,
}

impl Offer {
    pub(crate) fn decode(head: Bytes) -> io::Result<Self> {
        let head = proto::SnapshotOffer::decode(head).map_err(io::Error::other)?;
        let decoded = base::codec::decode::<Position>(&head.membership);
        let mut position = decoded.map_err(|e| invalid(&e.to_string()))?;
        position.files = own_files(head.files)?;
        let rows = own_files(head.rows)?;
        let vote = head.vote.ok_or_else(|| invalid("snapshot offer without a vote"))?.into();
        let manifest = Manifest { position, rows, staged: None };
        Ok(Self { group: group_id(head.group)?, target: head.target, vote, manifest })
    }

    pub(crate) fn meta(&self) -> io::Result<SnapshotMeta> {
        self.manifest.position.meta()
    }
}

fn own_files(files: Vec<proto::SnapshotFile>) -> io::Result<Vec<SnapshotFile>> {
    let own = |f: proto::SnapshotFile| {
        check_path(&f.path)?;
        Ok(SnapshotFile { path: f.path, len: f.len, crc: f.crc })
    };
    files.into_iter().map(own).collect()
}

fn check_path(path: &str) -> io::Result<&Path> {
    let path = Path::new(path);
    let plain = path.components().all(|c| matches!(c, Component::Normal(_)));
    let first = path.components().next().and_then(|c| c.as_os_str().to_str());
    if plain && first.is_some_and(|f| ALLOWED.contains(&f)) {
        return Ok(path);
    }
    Err(invalid(&format!("{} is no file of a snapshot", path.display())))
}

/// Copies what this node lacks of an offered snapshot.
pub(crate) async fn pull(
    shared: &Arc<Shared>,
    link: &Arc<dyn Link>,
    from: NodeId,
    manifest: &mut Manifest,
) -> io::Result<()> {
    let dir = shared.data_dir.join("snap").join(shared.group.to_string());
    shared.env.disk.remove_dir_all(&dir)?;
    shared.env.disk.create_dir_all(&dir)?;
    for file in &manifest.rows {
        let name = file.path.rsplit('/').next().unwrap_or(&file.path);
        copy(shared, link, &[from], file, &Have::default(), &dir.join(name)).await?;
    }
    let others = link.all().into_iter().filter(|n| ![from, link.me()].contains(n));
    let places: Vec<NodeId> = std::iter::once(from).chain(others).collect();
    let own = own_files_here(shared)?;
    let mut pieces = Vec::new();
    for (number, file) in manifest.position.files.iter().enumerate() {
        // A longer file than the sender's cannot be: this node would not need the snapshot.
        let have = own.iter().find(|f| f.path == file.path && f.len <= file.len);
        let have = have.map_or_else(Have::default, |f| Have { len: f.len, crc: f.crc });
        if have.len == file.len && file.len > 0 && have.crc == file.crc {
            continue;
        }
        let name = format!("piece-{number}");
        let offset = copy(shared, link, &places, file, &have, &dir.join(&name)).await?;
        pieces.push(Piece { path: file.path.clone(), offset, name });
    }
    manifest.staged = Some(Staged { dir, pieces });
    Ok(())
}

/// The beginning of a file that this node has, and its checksum.
#[derive(Clone, Copy, Debug, Default)]
struct Have {
    len: u64,
    crc: u32,
}

/// Files of this node's last checkpoint that still exist, with the lengths that are durable.
fn own_files_here(shared: &Shared) -> io::Result<Vec<SnapshotFile>> {
    let current = shared.checkpoints.current();
    let files = current.map_or_else(Vec::new, |c| c.position.files.clone());
    let mut kept = Vec::new();
    for file in files {
        if shared.env.disk.exists(&shared.data_dir.join(&file.path))? {
            kept.push(file);
        }
    }
    Ok(kept)
}

/// Copies what is missing of a file into `to` and compares the whole file's checksum, trying
/// one place after the other, and at last the whole file, should its beginning here be the odd
/// one. Returns the offset that the copied piece begins at.
async fn copy(
    shared: &Arc<Shared>,
    link: &Arc<dyn Link>,
    places: &[NodeId],
    file: &SnapshotFile,
    have: &Have,
    to: &Path,
) -> io::Result<u64> {
    let mut failure = invalid("no place to copy from");
    let whole = (have.len > 0).then(Have::default);
    for have in std::iter::once(*have).chain(whole) {
        for from in places {
            let copied = copy_from(shared, link, *from, file, &have, to).await;
            let (group, path) = (shared.group, &file.path);
            match copied {
                Ok(crc) if crc == file.crc => return Ok(have.len),
                Ok(crc) => {
                    shared.damaged_copies.fetch_add(1, Ordering::Relaxed);
                    let expected = file.crc;
                    error!(%group, node = %from, path, crc, expected, "damaged snapshot file");
                    failure = invalid(&format!("{path} is damaged at node {from}"));
                }
                Err(e) => {
                    warn!(%group, node = %from, path, "cannot copy a snapshot file: {e}");
                    failure = e;
                }
            }
        }
    }
    Err(failure)
}

/// Copies from one place; returns the checksum of the whole file as it would be here.
async fn copy_from(
    shared: &Arc<Shared>,
    link: &Arc<dyn Link>,
    from: NodeId,
    file: &SnapshotFile,
    have: &Have,
    to: &Path,
) -> io::Result<u32> {
    if shared.env.disk.exists(to)? {
        shared.env.disk.remove_file(to)?;
    }
    let target = shared.env.disk.open(to, OpenMode::ReadWrite)?;
    let mut starts = Vec::new();
    let mut at = have.len;
    while at < file.len {
        starts.push(at);
        at += STEP_BYTES;
    }
    let ranges = stream::iter(starts).map(|at| {
        let len = STEP_BYTES.min(file.len - at);
        read_range(link, from, &file.path, at, len)
    });
    let mut parts = ranges.buffered(IN_FLIGHT);
    let (mut written, mut crc) = (0, have.crc);
    while let Some(part) = parts.try_next().await? {
        target.write_all_at(&part, written)?;
        written += part.len() as u64;
        crc = crc32c_append(crc, &part);
    }
    target.sync()?;
    Ok(crc)
}

async fn read_range(
    link: &Arc<dyn Link>,
    from: NodeId,
    path: &str,
    offset: u64,
    len: u64,
) -> io::Result<Bytes> {
    let len = u32::try_from(len).map_err(io::Error::other)?;
    let head = proto::ReadFileRequest { path: path.to_owned(), offset, len };
    let request = Message::head(head.encode_to_vec());
    let answer = link.call(from, Lane::Bulk, methods::READ_FILE, request, READ_TIMEOUT).await;
    let payload = answer.map_err(io::Error::other)?.payload;
    if payload.len() == len as usize {
        return Ok(payload);
    }
    Err(invalid(&format!("{path} is shorter at node {from} than its snapshot says")))
}

/// Answers a peer's request for a range of a file.
pub(crate) fn serve_range(env: &base::Env, data_dir: &Path, head: Bytes) -> io::Result<Message> {
    let request = proto::ReadFileRequest::decode(head).map_err(io::Error::other)?;
    let path = data_dir.join(check_path(&request.path)?);
    let len = u64::from(request.len).min(STEP_BYTES);
    let file = env.disk.open(&path, OpenMode::Read)?;
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    let read = file.read_at(&mut bytes, request.offset)?;
    bytes.truncate(read);
    Ok(Message { head: Bytes::new(), payload: bytes.into() })
}

/// Writes a pulled piece into its file and syncs both file and folder.
pub(crate) fn place(shared: &Shared, staged: &Path, piece: &Piece) -> io::Result<()> {
    let disk = &shared.env.disk;
    let path = shared.data_dir.join(check_path(&piece.path)?);
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    disk.create_dir_all(parent)?;
    let source = disk.open(&staged.join(&piece.name), OpenMode::Read)?;
    let target = disk.open(&path, OpenMode::ReadWrite)?;
    let mut buffer = vec![0; MIB];
    let mut at = 0;
    loop {
        let read = source.read_at(&mut buffer, at)?;
        let Some(part) = buffer.get(..read).filter(|p| !p.is_empty()) else { break };
        target.write_all_at(part, piece.offset + at)?;
        at += read as u64;
    }
    target.sync()?;
    disk.sync_dir(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_snapshots_can_be_read() {
        for good in ["ckpt/d0/00.base", "parts/x-0/00.log", "index/a/0/00.log"] {
            assert!(check_path(good).is_ok(), "{good}");
        }
        for bad in ["/etc/passwd", "../x", "parts/../node.json", "node.json", "wal/1.wal", ""] {
            assert!(check_path(bad).is_err(), "{bad}");
        }
    }
}

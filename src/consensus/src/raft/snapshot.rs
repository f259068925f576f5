//! Snapshots: a lagging or new node copies a checkpoint from the leader.
//!
//! The offer names row files and data files. Row files are copied whole; of a data file only the
//! range that this node's own last checkpoint does not cover, because committed bytes are equal
//! on all nodes. Everything lands in a staging folder first; [`super::host::Host`] puts it in
//! place between two entries.
//!
//! A long copy may fail half way, for one, because the sender deleted a file meanwhile. What was
//! copied of data files until then stays staged, under names that say what it is, and the next
//! attempt takes of it what its offer still asks for.
//!
//! The checksum of every file is compared before anything is put in place. Of a data file that
//! differs the piece is fetched again from the other nodes, whose bytes must be the same; row
//! files are the sender's own. What no node has whole is reported and the offer refused.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base::crc::{crc32c, crc32c_append};
use base::env::OpenMode;
use base::limits::MIB;
use base::{Disk, GroupId, NodeId};
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
const STEP: usize = MIB;
const STEP_BYTES: u64 = STEP as u64;
/// Requests on their way at once: enough to fill a link, few enough to leave room for blocks.
const IN_FLIGHT: usize = 4;
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Name in the staging folder of what is being copied; whole and synced it gets its own.
const COPYING: &str = "copying";
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
    let dir = staging(shared);
    let lacking = lacking(shared, &manifest.position.files)?;
    keep_pieces(&*shared.env.disk, &dir, &lacking)?;
    for file in &manifest.rows {
        let name = file.path.rsplit('/').next().unwrap_or(&file.path).to_owned();
        let ways = [Way { have: Have::default(), name }];
        copy(shared, link, &[from], file, &ways, &dir).await?;
    }
    let others = link.all().into_iter().filter(|n| ![from, link.me()].contains(n));
    let places: Vec<NodeId> = std::iter::once(from).chain(others).collect();
    let mut pieces = Vec::new();
    for Lack { file, ways } in &lacking {
        let way = match find_staged(shared, file, ways, &dir).await? {
            Some(way) => way,
            None => copy(shared, link, &places, file, ways, &dir).await?,
        };
        let (offset, name) = (way.have.len, way.name.clone());
        pieces.push(Piece { path: file.path.clone(), offset, name });
    }
    manifest.staged = Some(Staged { dir, pieces });
    Ok(())
}

/// Where a snapshot of a group is staged.
fn staging(shared: &Shared) -> PathBuf {
    shared.data_dir.join("snap").join(shared.group.to_string())
}

/// Removes what is staged, for nobody asks for it any more: whether there was anything.
pub(crate) fn clear_staging(shared: &Shared) -> io::Result<bool> {
    let dir = staging(shared);
    let staged = shared.env.disk.exists(&dir)?;
    if staged {
        shared.env.disk.remove_dir_all(&dir)?;
    }
    Ok(staged)
}

/// The beginning of a file that this node has, and its checksum.
#[derive(Clone, Copy, Debug, Default)]
struct Have {
    len: u64,
    crc: u32,
}

/// One way to get a file: from where on to copy it, and the name of that piece once it is staged.
struct Way {
    have: Have,
    name: String,
}

/// A file of an offer that this node has not, or not all of.
struct Lack<'a> {
    file: &'a SnapshotFile,
    /// At last the whole file, should its beginning here be the odd one.
    ways: Vec<Way>,
}

fn lacking<'a>(shared: &Shared, files: &'a [SnapshotFile]) -> io::Result<Vec<Lack<'a>>> {
    let own = own_files_here(shared)?;
    let own: BTreeMap<&str, &SnapshotFile> = own.iter().map(|f| (f.path.as_str(), f)).collect();
    let mut keys = BTreeSet::new();
    let mut lacking = Vec::new();
    for file in files {
        // A longer file than the sender's cannot be: this node would not need the snapshot.
        let have = own.get(file.path.as_str()).filter(|f| f.len <= file.len);
        let have = have.map_or_else(Have::default, |f| Have { len: f.len, crc: f.crc });
        if have.len == file.len && file.len > 0 && have.crc == file.crc {
            continue;
        }
        // A path is too long for a name, and two may have one checksum.
        let mut key = format!("{:08x}", crc32c(file.path.as_bytes()));
        while !keys.insert(key.clone()) {
            key.push('+');
        }
        lacking.push(Lack { file, ways: ways(file, have, &key) });
    }
    Ok(lacking)
}

fn ways(file: &SnapshotFile, have: Have, key: &str) -> Vec<Way> {
    let (len, crc) = (file.len, file.crc);
    let whole = (have.len > 0).then(Have::default);
    let named =
        |have: Have| Way { have, name: format!("piece-{key}-{}-{len}-{crc:08x}", have.len) };
    std::iter::once(have).chain(whole).map(named).collect()
}

/// Clears the staging folder, except for pieces that earlier attempts may have left for this one.
fn keep_pieces(disk: &dyn Disk, dir: &Path, lacking: &[Lack<'_>]) -> io::Result<()> {
    disk.create_dir_all(dir)?;
    let ways = lacking.iter().flat_map(|lack| &lack.ways);
    let known: BTreeSet<PathBuf> = ways.map(|way| dir.join(&way.name)).collect();
    for path in disk.read_dir(dir)? {
        if !known.contains(&path) {
            disk.remove_file(&path)?;
        }
    }
    Ok(())
}

/// The way of a piece that an earlier attempt staged. Only what is read again, and makes the file
/// what it should be, counts.
async fn find_staged<'a>(
    shared: &Arc<Shared>,
    file: &SnapshotFile,
    ways: &'a [Way],
    dir: &Path,
) -> io::Result<Option<&'a Way>> {
    for way in ways {
        let path = dir.join(&way.name);
        if !shared.env.disk.exists(&path)? {
            continue;
        }
        let (disk, file, have) = (shared.env.disk.clone(), file.clone(), way.have);
        let whole = move || is_whole(&*disk, &path, &file, have);
        match tokio::task::spawn_blocking(whole).await.map_err(io::Error::other)? {
            Ok(true) => return Ok(Some(way)),
            Ok(false) => {}
            Err(e) => warn!(group = %shared.group, "cannot read a staged piece: {e}"),
        }
    }
    Ok(None)
}

fn is_whole(disk: &dyn Disk, path: &Path, file: &SnapshotFile, have: Have) -> io::Result<bool> {
    let staged = disk.open(path, OpenMode::Read)?;
    if have.len + staged.len()? != file.len {
        return Ok(false);
    }
    let (mut buffer, mut at, mut crc) = (vec![0; MIB], 0, have.crc);
    loop {
        let read = staged.read_at(&mut buffer, at)?;
        let Some(part) = buffer.get(..read).filter(|p| !p.is_empty()) else { break };
        crc = crc32c_append(crc, part);
        at += read as u64;
    }
    Ok(crc == file.crc)
}

/// Files of this node's last checkpoint that still exist, with the lengths that are durable.
fn own_files_here(shared: &Shared) -> io::Result<Vec<SnapshotFile>> {
    let current = shared.checkpoints.current();
    let files = current.map_or_else(Vec::new, |c| c.position.files.clone());
    let mut kept = Vec::new();
    for file in files {
        if len_here(shared, &file.path)? >= file.len {
            kept.push(file);
        }
    }
    Ok(kept)
}

/// Bytes that a file has on this node; 0 when there is none.
fn len_here(shared: &Shared, path: &str) -> io::Result<u64> {
    let path = shared.data_dir.join(check_path(path)?);
    match shared.env.disk.exists(&path)? {
        true => shared.env.disk.open(&path, OpenMode::Read)?.len(),
        false => Ok(0),
    }
}

/// Copies what is missing of a file and compares the whole file's checksum, trying one place after
/// the other for each of the ways. Returns the way that led to a staged piece.
async fn copy<'a>(
    shared: &Arc<Shared>,
    link: &Arc<dyn Link>,
    places: &[NodeId],
    file: &SnapshotFile,
    ways: &'a [Way],
    dir: &Path,
) -> io::Result<&'a Way> {
    let mut failure = invalid("no place to copy from");
    let to = dir.join(COPYING);
    for way in ways {
        for from in places {
            let copied = copy_from(shared, link, *from, file, &way.have, &to).await;
            let (group, path) = (shared.group, &file.path);
            match copied {
                Ok(crc) if crc == file.crc => {
                    shared.env.disk.rename(&to, &dir.join(&way.name))?;
                    return Ok(way);
                }
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
    // One after the other as they are wanted: the length is what a peer says.
    let ranges = stream::iter((have.len..file.len).step_by(STEP)).map(|at| {
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

/// Whether all that was not copied is still there; to be asked when no checkpoint can begin any
/// more. One that was made during a long pull may have deleted, say, segments that this node has
/// compacted and the sender has not.
pub(crate) fn check_ground(shared: &Shared, manifest: &Manifest) -> io::Result<()> {
    let pieces = manifest.staged.iter().flat_map(|staged| &staged.pieces);
    let copied_from: BTreeMap<&str, u64> = pieces.map(|p| (p.path.as_str(), p.offset)).collect();
    for SnapshotFile { path, len, .. } in &manifest.position.files {
        let needed = copied_from.get(path.as_str()).unwrap_or(len);
        if *needed > 0 && len_here(shared, path)? < *needed {
            return Err(invalid(&format!("{path} went away while the rest was copied")));
        }
    }
    Ok(())
}

/// Puts all pulled pieces into their files, durably.
///
/// The checkpoint of before stands until the new one is durable, so a crash on the way must leave
/// what it speaks of: its files, no shorter than it says. Bytes may be written or put there that
/// the new one has, as committed bytes are equal on all nodes.
pub(crate) fn place(shared: &Shared, staged: &Staged) -> io::Result<()> {
    let current = shared.checkpoints.current();
    let files = current.iter().flat_map(|c| &c.position.files);
    let spoken_of: BTreeMap<&str, u64> = files.map(|f| (f.path.as_str(), f.len)).collect();
    let mut parents = BTreeSet::new();
    for piece in &staged.pieces {
        let least = spoken_of.get(piece.path.as_str()).copied().unwrap_or(0);
        parents.insert(place_piece(shared, &staged.dir, piece, least)?);
    }
    // A folder may be new, too, and then its name stands in the one above.
    let above = parents.iter().filter_map(|parent| parent.parent().map(Path::to_owned));
    let above: BTreeSet<PathBuf> = above.collect();
    parents.iter().chain(&above).try_for_each(|parent| shared.env.disk.sync_dir(parent))
}

/// Returns the folder of the piece's file, which is not synced yet. The file will have at least
/// `least` bytes.
fn place_piece(shared: &Shared, dir: &Path, piece: &Piece, least: u64) -> io::Result<PathBuf> {
    let disk = &shared.env.disk;
    let path = shared.data_dir.join(check_path(&piece.path)?);
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    disk.create_dir_all(parent)?;
    let staged = dir.join(&piece.name);
    let source = disk.open(&staged, OpenMode::Read)?;
    if piece.offset == 0 && source.len()? >= least {
        // A file of gibibytes takes neither time nor room.
        source.sync()?;
        disk.rename(&staged, &path)?;
        return Ok(parent.to_owned());
    }
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
    // Its room may be needed by the next one.
    disk.remove_file(&staged)?;
    Ok(parent.to_owned())
}

#[cfg(test)]
mod tests;

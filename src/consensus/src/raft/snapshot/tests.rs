use std::sync::atomic::AtomicU64;

use async_trait::async_trait;
use base::Env;
use base::env::sim_disk::{Crash, SimDisk};
use tokio::sync::watch;

use super::*;
use crate::net::{Answer, CallError, Identity, RaftHandler};
use crate::peer::{PeerError, PeerHandler, Peers};
use crate::raft::checkpoint::CheckpointDir;
use crate::raft::types::{LogId, StoredMembership};
use crate::table::MemStore;

const DATA: &str = "/data";
const STAGING: &str = "/data/snap/d0";
const GROUP: GroupId = GroupId(2);

#[test]
fn only_files_of_snapshots_can_be_read() {
    for good in ["ckpt/d0/00.base", "parts/x-0/00.log", "index/a/0/00.log"] {
        assert!(check_path(good).is_ok(), "{good}");
    }
    for bad in ["/etc/passwd", "../x", "parts/../node.json", "node.json", "wal/1.wal", ""] {
        assert!(check_path(bad).is_err(), "{bad}");
    }
}

/// Node 1, as node 2 reaches it.
struct Sender {
    env: Env,
    /// Bytes of files that were asked for.
    read: AtomicU64,
}

#[async_trait]
impl Peers for Sender {
    fn me(&self) -> NodeId {
        NodeId(2)
    }

    fn all(&self) -> Vec<NodeId> {
        vec![NodeId(1), NodeId(2)]
    }

    fn is_alive(&self, _: NodeId) -> bool {
        true
    }

    fn register(&self, _: u8, _: Arc<dyn PeerHandler>) {}

    async fn call(
        &self,
        to: NodeId,
        _: Lane,
        method: u16,
        request: Message,
        _: Duration,
    ) -> Result<Message, PeerError> {
        assert_eq!(method, methods::READ_FILE);
        let answer = serve_range(&self.env, Path::new(DATA), request.head);
        let answer = answer.map_err(|e| PeerError::Refused { to, reason: e.to_string() })?;
        self.read.fetch_add(answer.payload.len() as u64, Ordering::Relaxed);
        Ok(answer)
    }
}

#[async_trait]
impl Link for Sender {
    async fn begin(
        &self,
        _: NodeId,
        _: Lane,
        _: u16,
        _: Bytes,
        _: Vec<Bytes>,
    ) -> Result<Answer, CallError> {
        Err(CallError::NotSent("nothing but files is asked for here".to_owned()))
    }

    fn register_raft(&self, _: Arc<dyn RaftHandler>) {}

    fn identity(&self) -> Identity {
        Identity { node: NodeId(2), raft_id: 2, cluster: [0; 16] }
    }

    fn set_cluster(&self, _: [u8; 16]) {}

    fn foreign(&self) -> Option<NodeId> {
        None
    }
}

fn env(disk: &SimDisk) -> Env {
    Env { disk: Arc::new(disk.clone()), ..Env::real() }
}

fn in_data(path: &str) -> PathBuf {
    Path::new(DATA).join(path)
}

/// Stores a file durably.
fn put(disk: &SimDisk, path: &str, bytes: &[u8]) {
    let path = in_data(path);
    let dir = path.parent().unwrap();
    disk.create_dir_all(dir).unwrap();
    let file = disk.open(&path, OpenMode::ReadWrite).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir(dir).unwrap();
}

fn get(disk: &SimDisk, path: &str) -> Vec<u8> {
    disk.read(&in_data(path), 1 << 30).unwrap()
}

fn file(path: &str, bytes: &[u8]) -> SnapshotFile {
    SnapshotFile { path: path.to_owned(), len: bytes.len() as u64, crc: crc32c(bytes) }
}

fn at(index: u64, files: &[SnapshotFile]) -> Position {
    let applied = Some(LogId::new_term_index(1, index));
    Position::new(applied, &StoredMembership::default(), 0, files.to_vec())
}

/// Two nodes: one sends, the other pulls.
struct Bench {
    theirs: SimDisk,
    own: SimDisk,
    shared: Arc<Shared>,
    sender: Arc<Sender>,
}

impl Bench {
    /// The node that pulls has these files, and a checkpoint that speaks of them.
    fn new(files: &[(&str, &str)]) -> Self {
        let (theirs, own) = (SimDisk::new(1), SimDisk::new(2));
        let env_here = env(&own);
        let shared = Arc::new(Shared {
            group: GROUP,
            env: env_here.clone(),
            data_dir: DATA.into(),
            store: Arc::new(MemStore::default()),
            checkpoints: CheckpointDir::open(&env_here, Path::new(DATA), GROUP).unwrap(),
            applied: watch::Sender::new((0, 0)),
            damaged_copies: AtomicU64::new(0),
        });
        files.iter().for_each(|(path, text)| put(&own, path, text.as_bytes()));
        let files: Vec<_> = files.iter().map(|(path, text)| file(path, text.as_bytes())).collect();
        shared.checkpoints.add(at(5, &files), BTreeMap::new()).unwrap();
        let sender = Arc::new(Sender { env: env(&theirs), read: AtomicU64::new(0) });
        Self { theirs, own, shared, sender }
    }

    async fn pull(&self, files: &[SnapshotFile]) -> io::Result<Manifest> {
        let rows = Vec::new();
        let mut manifest = Manifest { position: at(9, files), rows, staged: None };
        let link: Arc<dyn Link> = self.sender.clone();
        pull(&self.shared, &link, NodeId(1), &mut manifest).await?;
        Ok(manifest)
    }

    /// Bytes that were sent so far.
    fn sent(&self) -> u64 {
        self.sender.read.load(Ordering::Relaxed)
    }

    fn staged(&self) -> Vec<PathBuf> {
        self.own.read_dir(Path::new(STAGING)).unwrap()
    }
}

#[tokio::test]
async fn a_pull_goes_on_where_an_earlier_one_broke_off() {
    let bench = Bench::new(&[]);
    let len = MIB + 5;
    let path = |number: u8| format!("parts/d0/x/{number}.log");
    let bytes = |number: u8| vec![number; len];
    let offered = |number: u8| file(&path(number), &bytes(number));
    (1..=2).for_each(|number| put(&bench.theirs, &path(number), &bytes(number)));
    // The third was deleted since the checkpoint that is offered.
    assert!(bench.pull(&[1, 2, 3].map(offered)).await.is_err());
    assert_eq!(bench.sent(), 2 * len as u64);
    let first_byte = |path: &PathBuf| bench.own.read(path, 1 << 30).unwrap().first().copied();
    let second = bench.staged().into_iter().find(|path| first_byte(path) == Some(2)).unwrap();
    bench.own.flip_bit(&second, len - 1).unwrap();
    put(&bench.theirs, &path(4), &bytes(4));
    let manifest = bench.pull(&[4, 2, 1].map(offered)).await.unwrap();
    assert_eq!(bench.sent(), 4 * len as u64, "the damaged piece and the new file");
    assert_eq!(bench.staged().len(), 3, "nothing is left of the third");
    place(&bench.shared, &manifest.staged.unwrap()).unwrap();
    bench.own.crash(Crash::LoseUnsynced);
    for number in [1, 2, 4] {
        assert!(get(&bench.own, &path(number)) == bytes(number), "{number}");
    }
}

#[tokio::test]
async fn a_whole_file_that_was_copied_for_its_odd_beginning_is_kept_too() {
    let bench = Bench::new(&[("parts/d0/x/1.log", "BEGIN")]);
    put(&bench.theirs, "parts/d0/x/1.log", b"begin end");
    let offered = [file("parts/d0/x/1.log", b"begin end")];
    for _ in 0..2 {
        let manifest = bench.pull(&offered).await.unwrap();
        assert_eq!(manifest.staged.unwrap().pieces[0].offset, 0);
        assert_eq!(bench.sent(), 4 + 9, "the end, then all of it, once");
        assert_eq!(bench.shared.damaged_copies.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test]
async fn what_went_away_during_a_pull_is_noticed() {
    let path = "parts/d0/x/1.log";
    let bench = Bench::new(&[(path, "begin"), ("parts/d0/x/2.log", "same")]);
    put(&bench.theirs, path, b"begin end");
    let offered = [file(path, b"begin end"), file("parts/d0/x/2.log", b"same")];
    let manifest = bench.pull(&offered).await.unwrap();
    assert_eq!(bench.sent(), 4);
    check_ground(&bench.shared, &manifest).unwrap();
    for gone in [path, "parts/d0/x/2.log"] {
        let bytes = get(&bench.own, gone);
        bench.own.remove_file(&in_data(gone)).unwrap();
        assert!(check_ground(&bench.shared, &manifest).is_err(), "{gone}");
        put(&bench.own, gone, &bytes);
    }
    check_ground(&bench.shared, &manifest).unwrap();
}

#[test]
fn pieces_are_put_in_place_and_the_old_checkpoint_keeps_what_it_speaks_of() {
    let long = "longer than what is offered";
    let bench = Bench::new(&[("parts/d0/x/1.log", "begin"), ("parts/d0/x/2.log", long)]);
    // It was appended to after the checkpoint.
    put(&bench.own, "parts/d0/x/3.log", b"who");
    let pieces = [
        ("parts/d0/x/1.log", 5, "tail", " end"),
        ("parts/d0/x/2.log", 0, "short", "longer"),
        ("parts/d0/x/3.log", 0, "whole", "whole"),
        ("parts/d0/y/4.log", 0, "empty", ""),
    ];
    let pieces = pieces.map(|(path, offset, name, text)| {
        put(&bench.own, &format!("snap/d0/{name}"), text.as_bytes());
        Piece { path: path.to_owned(), offset, name: name.to_owned() }
    });
    place(&bench.shared, &Staged { dir: STAGING.into(), pieces: pieces.into() }).unwrap();
    assert_eq!(bench.staged(), [] as [PathBuf; 0], "no byte takes room twice");
    bench.own.crash(Crash::LoseUnsynced);
    assert_eq!(get(&bench.own, "parts/d0/x/1.log"), b"begin end");
    assert_eq!(get(&bench.own, "parts/d0/x/2.log"), long.as_bytes());
    assert_eq!(get(&bench.own, "parts/d0/x/3.log"), b"whole");
    assert_eq!(get(&bench.own, "parts/d0/y/4.log"), b"");
}

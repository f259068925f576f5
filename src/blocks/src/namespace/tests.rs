//! Behaviour of the namespace, case by case.

use std::collections::BTreeMap;

use consensus::{MemStore, Rows, TableStore};

use super::*;
use crate::command::{Command, Commit, CreateOptions, NewBlock, Outcome, PutEntry, PutOutcome};
use crate::error::FsErrorKind;
use crate::limits::{LEASE_HARD_MS, LEASE_SOFT_MS, RESERVE_MS};
use crate::types::Caller;

struct Fs {
    ns: Namespace,
    now: i64,
    store: MemStore,
}

impl Fs {
    fn new() -> Self {
        Self { ns: Namespace::new(), now: 1_000_000, store: MemStore::default() }
    }

    fn run_as(&mut self, who: &Caller, op: Option<OpId>, command: Command) -> Reply {
        let reply = self.ns.run(self.now, Request { op, caller: who.clone(), command });
        let mut pending = BTreeMap::new();
        self.ns.flush(&mut Rows::new(&self.store, &mut pending, 3));
        let changes: Vec<_> = pending.into_iter().collect();
        self.store.write_batch(1, &changes).unwrap();
        reply
    }

    fn run(&mut self, command: Command) -> Reply {
        self.run_as(&Caller::system(), None, command)
    }

    fn error(&mut self, command: Command) -> (FsErrorKind, String) {
        let error = self.run(command).unwrap_err();
        (error.kind, error.message)
    }

    fn blocks(&mut self, count: u32) -> Vec<NewBlock> {
        let Ok(Outcome::Reserved { start, gs, .. }) = self.run(Command::Reserve { count }) else {
            panic!("reserved")
        };
        let ids = start..start + u64::from(count);
        ids.map(|id| NewBlock { id, gs, len: 10, digest: 1, replicas: 3 }).collect()
    }

    fn file(&mut self, path: &str) {
        let blocks = self.blocks(1);
        let options = CreateOptions::default();
        self.run(Command::CreateClosed { path: path.into(), options, blocks }).unwrap();
    }

    fn len(&self, path: &str) -> u64 {
        self.ns.status(&Caller::system(), &FsPath::parse(path).unwrap()).unwrap().len
    }

    fn names(&self, path: &str) -> Vec<String> {
        let path = FsPath::parse(path).unwrap();
        let listing = self.ns.list(&Caller::system(), &path, None, 100).unwrap();
        listing.entries.iter().map(|e| e.name.to_string()).collect()
    }

    /// The namespace read back from its rows is the same.
    fn check_rows(&self) {
        let mut pending = BTreeMap::new();
        let again = Namespace::load(&Rows::new(&self.store, &mut pending, 3)).unwrap();
        let show = |ns: &Namespace| {
            format!(
                "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
                ns.inodes.iter().filter(|(id, _)| **id != ROOT).collect::<Vec<_>>(),
                ns.blocks,
                ns.doomed,
                ns.leases,
                ns.graveyard,
                ns.partial,
                ns.reservations,
                ns.meta
            )
        };
        assert_eq!(show(&self.ns), show(&again));
    }
}

fn mkdirs(path: &str) -> Command {
    Command::Mkdirs { path: path.into(), mode: 0o755 }
}

fn rename(src: &str, dst: &str) -> Command {
    Command::Rename { src: src.into(), dst: dst.into() }
}

fn delete(path: &str, recursive: bool) -> Command {
    Command::Delete { path: path.into(), recursive }
}

fn user(name: &str) -> Caller {
    Caller { user: name.into(), superuser: false, client: "127.0.0.1".into() }
}

fn put(path: &str, version: &[u8], blocks: Vec<NewBlock>) -> Command {
    let block_size = CreateOptions::default().block_size;
    Command::Put(vec![PutEntry {
        path: path.into(),
        version: version.into(),
        blocks,
        mtime_ms: 5,
        block_size,
    }])
}

const YES: Reply = Ok(Outcome::Bool(true));
const NO: Reply = Ok(Outcome::Bool(false));

#[test]
fn directories_behave_as_the_name_nodes() {
    let mut fs = Fs::new();
    assert_eq!(fs.run(mkdirs("/tour/회의")), YES);
    assert_eq!(fs.run(mkdirs("/tour")), YES);
    fs.file("/tour/a");
    let (kind, text) = fs.error(mkdirs("/tour/a"));
    assert_eq!(
        (kind, &*text),
        (FsErrorKind::FileAlreadyExists, "Path is not a directory: /tour/a")
    );
    let (kind, text) = fs.error(mkdirs("/tour/a/b"));
    assert_eq!((kind, &*text), (FsErrorKind::ParentNotDirectory, "/tour/a (is not a directory)"));
    let (kind, _) = fs.error(mkdirs(&format!("/tour/{}", "x".repeat(256))));
    assert_eq!(kind, FsErrorKind::PathComponentTooLong);
    assert_eq!(fs.names("/tour"), ["a", "회의"]);
    fs.check_rows();
}

#[test]
fn create_refuses_what_exists() {
    let mut fs = Fs::new();
    fs.file("/tour/a");
    let create =
        |path: &str, options| Command::Create { path: path.into(), options, holder: "w".into() };
    let (kind, text) = fs.error(create("/tour/a", CreateOptions::default()));
    assert_eq!(kind, FsErrorKind::FileAlreadyExists);
    assert_eq!(text, "/tour/a for client localhost already exists");
    let (_, text) = fs.error(create("/tour", CreateOptions::default()));
    assert_eq!(text, "/tour already exists as a directory");
    let alone = CreateOptions { create_parent: false, ..CreateOptions::default() };
    let (kind, text) = fs.error(create("/tour/nope/x", alone));
    assert_eq!(kind, FsErrorKind::FileNotFound);
    assert_eq!(text, "Parent directory doesn't exist: /tour/nope");
    let old = fs.ns.blocks.len();
    let over = CreateOptions { overwrite: true, ..CreateOptions::default() };
    fs.run(create("/tour/a", over)).unwrap();
    assert_eq!((old, fs.ns.blocks.len(), fs.ns.doomed.len()), (1, 0, 1));
    fs.check_rows();
}

#[test]
fn rename_answers_false_where_hadoop_does() {
    let mut fs = Fs::new();
    fs.file("/t/a");
    fs.file("/t/b");
    fs.run(mkdirs("/t/d")).unwrap();
    assert_eq!(fs.run(rename("/t/zz", "/t/y")), NO);
    assert_eq!(fs.run(rename("/t/a", "/t/b")), NO);
    assert_eq!(fs.run(rename("/t", "/t/d/x")), NO);
    assert_eq!(fs.run(rename("/t/a", "/nope/x")), NO);
    assert_eq!(fs.run(rename("/t/a", "/t/a")), YES);
    assert_eq!(fs.run(rename("/t/a", "/t/d")), YES);
    assert_eq!(fs.names("/t/d"), ["a"]);
    assert_eq!(fs.run(rename("/t/b", "/t/c")), YES);
    assert_eq!(fs.names("/t"), ["c", "d"]);
    fs.check_rows();
}

#[test]
fn rename2_throws_or_replaces() {
    let mut fs = Fs::new();
    fs.file("/t/a");
    fs.file("/t/b");
    let rename2 = |src: &str, dst: &str, overwrite| Command::Rename2 {
        src: src.into(),
        dst: dst.into(),
        overwrite,
    };
    let (kind, text) = fs.error(rename2("/t/a", "/t/b", false));
    assert_eq!(kind, FsErrorKind::FileAlreadyExists);
    assert_eq!(text, "rename destination /t/b already exists");
    let (kind, text) = fs.error(rename2("/t/zz", "/t/b", false));
    assert_eq!((kind, &*text), (FsErrorKind::FileNotFound, "rename source /t/zz is not found."));
    assert_eq!(fs.run(rename2("/t/a", "/t/b", true)), Ok(Outcome::Done));
    assert_eq!(fs.names("/t"), ["b"]);
    assert_eq!(fs.ns.doomed.len(), 1);
    fs.check_rows();
}

#[test]
fn delete_takes_whole_trees_in_steps() {
    let mut fs = Fs::new();
    fs.file("/t/a/b/c");
    let (kind, text) = fs.error(delete("/t", false));
    assert_eq!(kind, FsErrorKind::PathIsNotEmptyDirectory);
    assert_eq!(text, "`/t is non empty': Directory is not empty");
    assert_eq!(fs.run(delete("/zz", true)), NO);
    assert_eq!(fs.run(delete("/", true)), NO);
    for i in 0..2_500 {
        fs.run(mkdirs(&format!("/t/many/{i}"))).unwrap();
    }
    assert_eq!(fs.run(delete("/t", true)), YES);
    assert!(fs.names("/").is_empty());
    assert_eq!(fs.ns.graveyard.len(), 1, "a large tree is removed in steps");
    fs.check_rows();
    fs.run(Command::Purge).unwrap();
    assert_eq!((fs.ns.graveyard.len(), fs.ns.inodes.len()), (0, 1));
    assert_eq!(fs.ns.doomed.len(), 1);
    fs.check_rows();
}

#[test]
fn a_put_acts_once_per_version() {
    let mut fs = Fs::new();
    let outcome = |reply: Reply| match reply {
        Ok(Outcome::Put(mut list)) => list.pop().unwrap(),
        other => panic!("{other:?}"),
    };
    let first = fs.blocks(1);
    assert_eq!(
        outcome(fs.run(put("/n/뉴스 1.txt", b"v1", first.clone()))),
        Ok(PutOutcome::Created)
    );
    // The same command again, as after an unknown outcome: nothing is lost.
    assert_eq!(outcome(fs.run(put("/n/뉴스 1.txt", b"v1", first))), Ok(PutOutcome::Unchanged));
    assert_eq!((fs.ns.blocks.len(), fs.ns.doomed.len()), (1, 0));
    // The same version from a collector that wrote the bytes again.
    let again = fs.blocks(1);
    assert_eq!(outcome(fs.run(put("/n/뉴스 1.txt", b"v1", again))), Ok(PutOutcome::Unchanged));
    assert_eq!((fs.ns.blocks.len(), fs.ns.doomed.len()), (1, 1));
    let second = fs.blocks(2);
    assert_eq!(outcome(fs.run(put("/n/뉴스 1.txt", b"v2", second))), Ok(PutOutcome::Replaced));
    assert_eq!((fs.len("/n/뉴스 1.txt"), fs.ns.doomed.len()), (20, 2));
    fs.check_rows();
}

#[test]
fn old_blocks_are_refused() {
    let mut fs = Fs::new();
    let blocks = fs.blocks(1);
    fs.now += RESERVE_MS + 1;
    let Ok(Outcome::Put(list)) = fs.run(put("/x", b"v", blocks)) else { panic!("put") };
    assert_eq!(list[0].as_ref().unwrap_err().kind, FsErrorKind::StaleBlocks);
    assert_eq!(fs.ns.blocks.len(), 0);
    fs.check_rows();
}

#[test]
fn one_writer_at_a_time() {
    let mut fs = Fs::new();
    let options = CreateOptions::default();
    let create = Command::Create { path: "/w".into(), options, holder: "one".into() };
    let Ok(Outcome::Opened(open)) = fs.run(create) else { panic!("open") };
    let append = |holder: &str| Command::Append { path: "/w".into(), holder: holder.into() };
    let (kind, _) = fs.error(append("two"));
    assert_eq!(kind, FsErrorKind::AlreadyBeingCreated);
    let blocks = fs.blocks(1);
    let commit = |blocks: Vec<NewBlock>, holder: &str, close| {
        Command::Commit(Commit {
            path: "/w".into(),
            file: open.file,
            holder: holder.into(),
            replace: None,
            blocks,
            close,
        })
    };
    fs.run(commit(blocks, "one", false)).unwrap();
    fs.check_rows();
    fs.now += LEASE_SOFT_MS + 1;
    fs.run(append("two")).unwrap();
    let (kind, _) = fs.error(commit(vec![], "one", true));
    assert_eq!(kind, FsErrorKind::LeaseExpired);
    assert_eq!(fs.len("/w"), 10);
    fs.now += LEASE_HARD_MS + 1;
    fs.run(Command::Expire).unwrap();
    assert!(fs.ns.leases.is_empty());
    fs.check_rows();
    assert_eq!(fs.run(delete("/w", false)), YES);
    fs.check_rows();
}

#[test]
fn a_short_last_block_is_replaced_by_append() {
    let mut fs = Fs::new();
    fs.file("/a");
    let append = Command::Append { path: "/a".into(), holder: "w".into() };
    let Ok(Outcome::Opened(open)) = fs.run(append) else { panic!("open") };
    let last = open.last.unwrap();
    let mut blocks = fs.blocks(1);
    blocks[0].len = 25;
    let commit = Commit {
        path: "/a".into(),
        file: open.file,
        holder: "w".into(),
        replace: Some(last.id),
        blocks,
        close: true,
    };
    fs.run(Command::Commit(commit)).unwrap();
    assert_eq!((fs.len("/a"), fs.ns.blocks.len(), fs.ns.doomed.len()), (25, 1, 1));
    fs.check_rows();
}

#[test]
fn a_repeated_call_gets_its_first_reply() {
    let mut fs = Fs::new();
    fs.file("/a");
    let op = Some(OpId { client: [1; 16], call: 1 });
    let who = Caller::system();
    assert_eq!(fs.run_as(&who, op, rename("/a", "/b")), YES);
    assert_eq!(fs.run_as(&who, op, rename("/a", "/b")), YES);
    assert_eq!(fs.run(rename("/a", "/b")), NO);
    fs.check_rows();
    fs.now += RETRY_MS + 1;
    fs.run(Command::Expire).unwrap();
    assert!(fs.ns.replies.is_empty());
    fs.check_rows();
}

#[test]
fn permissions_speak_hadoop() {
    let mut fs = Fs::new();
    let bob = user("bob");
    let error = fs.run_as(&bob, None, mkdirs("/x")).unwrap_err();
    assert_eq!(error.kind, FsErrorKind::AccessControl);
    assert_eq!(
        error.message,
        "Permission denied: user=bob, access=WRITE, inode=\"/\":root:supergroup:drwxr-xr-x"
    );
    fs.run(mkdirs("/tmp")).unwrap();
    fs.run(Command::SetMode { path: "/tmp".into(), mode: 0o1777 }).unwrap();
    assert_eq!(fs.run_as(&bob, None, mkdirs("/tmp/bob")), YES);
    let eve = user("eve");
    let error = fs.run_as(&eve, None, delete("/tmp/bob", true)).unwrap_err();
    assert!(error.message.starts_with("Permission denied by sticky bit: user=eve"));
    let chmod = Command::SetMode { path: "/tmp/bob".into(), mode: 0o700 };
    let error = fs.run_as(&eve, None, chmod.clone()).unwrap_err();
    assert_eq!(error.message, "Permission denied. user=eve is not the owner of inode=/tmp/bob");
    fs.run_as(&bob, None, chmod).unwrap();
    let path = FsPath::parse("/tmp/bob/secret").unwrap();
    let error = fs.ns.status(&eve, &path).unwrap_err();
    assert!(error.message.contains("access=EXECUTE, inode=\"/tmp/bob\":bob:supergroup:drwx------"));
    fs.check_rows();
}

#[test]
fn a_replaced_node_loses_its_bits() {
    let mut fs = Fs::new();
    fs.file("/a");
    let id = *fs.ns.blocks.keys().next().unwrap();
    fs.run(Command::Replicas { slot: 2, added: vec![id], lost: vec![] }).unwrap();
    assert!(fs.ns.partial.is_empty());
    fs.run(Command::ResetSlot { slot: 0 }).unwrap();
    assert_eq!(fs.ns.blocks[&id].replicas, 0b110);
    assert_eq!(fs.ns.partial.len(), 1);
    fs.run(delete("/a", false)).unwrap();
    fs.run(Command::Removed { slot: 1, ids: vec![id] }).unwrap();
    assert_eq!(fs.ns.doomed.len(), 1);
    fs.run(Command::Removed { slot: 2, ids: vec![id] }).unwrap();
    assert!(fs.ns.doomed.is_empty());
    fs.check_rows();
}

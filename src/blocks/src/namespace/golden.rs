//! The bytes of commands, replies, rows and block records; see [`base::golden`].

use std::collections::BTreeMap;

use base::golden::Golden;
use consensus::MemStore;

use super::*;
use crate::command::{
    Command, Commit, CreateOptions, NewBlock, Opened, Outcome, PutEntry, PutOutcome,
};
use crate::error::{FsError, FsErrorKind};
use crate::store::record::BlockMeta;
use crate::types::Caller;

const TIME_MS: i64 = 1_700_000_000_123;
const OP: OpId = OpId { client: *b"client-of-16-byt", call: 0x0102_0304 };
const OPTIONS: CreateOptions = CreateOptions {
    mode: 0o640,
    replication: 2,
    block_size: 0x1112_1314,
    overwrite: true,
    create_parent: true,
};

fn caller() -> Caller {
    Caller { user: "사용자".into(), superuser: true, client: "10.0.0.1".into() }
}

fn block(id: u64) -> NewBlock {
    NewBlock { id, gs: 0x21, len: 0x22, digest: 0x2324_2526, replicas: 0b011 }
}

fn put_entry() -> PutEntry {
    PutEntry {
        path: "/수집/파일".into(),
        version: b"version".to_vec(),
        blocks: vec![block(0x31)],
        mtime_ms: TIME_MS,
        block_size: 0x32,
    }
}

fn commit() -> Commit {
    let (path, holder, blocks) = ("/가/나".into(), "임자".into(), vec![block(0x33)]);
    Commit { path, file: 0x34, holder, replace: Some(0x35), blocks, close: true }
}

fn commands() -> Vec<Command> {
    let path = || "/가/나".to_owned();
    let holder = || "임자".to_owned();
    vec![
        Command::Mkdirs { path: path(), mode: 0o750 },
        Command::Create { path: path(), options: OPTIONS, holder: holder() },
        Command::CreateClosed { path: path(), options: OPTIONS, blocks: vec![block(0x36)] },
        Command::Append { path: path(), holder: holder() },
        Command::Commit(commit()),
        Command::Abandon { path: path(), file: 0x37, holder: holder() },
        Command::Put(vec![put_entry()]),
        Command::Rename { src: path(), dst: "/다".into() },
        Command::Rename2 { src: path(), dst: "/다".into(), overwrite: true },
        Command::Delete { path: path(), recursive: true },
        Command::SetMode { path: path(), mode: 0o1777 },
        Command::SetOwner {
            path: path(), owner: Some("임자".into()), group: Some("무리".into())
        },
        Command::SetTimes { path: path(), mtime_ms: Some(0x38), atime_ms: Some(0x39) },
        Command::SetReplication { path: path(), replication: 0x3a },
        Command::Renew { holder: holder() },
        Command::Expire,
        Command::Reserve { count: 0x3b },
        Command::Replicas { slot: 2, added: vec![0x3c], lost: vec![0x3d] },
        Command::Removed { slot: 1, ids: vec![0x3e] },
        Command::ResetSlot { slot: 2 },
        Command::Purge,
        Command::Touch { file: 0x3f, atime_ms: 0x40 },
        Command::Fence { source: "수집".into(), epoch: 0x43 },
        Command::PutFenced { source: "수집".into(), epoch: 0x44, entries: vec![put_entry()] },
    ]
}

fn kinds() -> Vec<FsErrorKind> {
    vec![
        FsErrorKind::FileNotFound,
        FsErrorKind::FileAlreadyExists,
        FsErrorKind::AccessControl,
        FsErrorKind::PathIsNotEmptyDirectory,
        FsErrorKind::ParentNotDirectory,
        FsErrorKind::LeaseExpired,
        FsErrorKind::AlreadyBeingCreated,
        FsErrorKind::InvalidPath,
        FsErrorKind::PathComponentTooLong,
        FsErrorKind::IllegalArgument,
        FsErrorKind::Unsupported,
        FsErrorKind::Io,
        FsErrorKind::StaleBlocks,
        FsErrorKind::Fenced,
    ]
}

fn replies(golden: &mut Golden) {
    let refused = || FsError::new(FsErrorKind::ParentNotDirectory, "디렉터리가 아님");
    let opened = Opened { file: 0x41, block_size: 0x42, last: Some(block(0x43)) };
    let outcomes = [
        Outcome::Done,
        Outcome::Bool(true),
        Outcome::Opened(opened),
        Outcome::Reserved { start: 0x44, count: 0x45, gs: 0x46 },
        Outcome::Put(vec![Ok(PutOutcome::Replaced), Err(refused())]),
    ];
    golden.variants("FsErrorKind", &kinds());
    golden.variants("Outcome", &outcomes);
    let put = [PutOutcome::Created, PutOutcome::Replaced, PutOutcome::Unchanged];
    golden.variants("PutOutcome", &put);
    // A log entry's reply is a list of these.
    golden.value::<Vec<Reply>>("Replies", &vec![Ok(Outcome::Bool(false)), Err(refused())]);
}

fn file_node() -> FileNode {
    FileNode {
        blocks: vec![0x51, 0x52],
        replication: 3,
        block_size: 0x53,
        holder: Some("임자".into()),
        version: b"version".to_vec(),
    }
}

fn row_types(golden: &mut Golden) {
    for (name, file) in [("InodeRow::file", Some(file_node())), ("InodeRow::directory", None)] {
        let row = InodeRow {
            parent: 0x54,
            name: "이름".into(),
            owner: "임자".into(),
            group: "무리".into(),
            mode: 0o644,
            mtime_ms: 0x55,
            atime_ms: 0x56,
            file,
        };
        golden.value(name, &row);
    }
    let row = BlockRow { gs: 0x61, len: 0x62, digest: 0x63, replicas: 0b101, file: 0x64 };
    golden.value("BlockRow", &row);
    golden.value("Doomed", &Doomed { replicas: 0b110, since_ms: TIME_MS });
    golden.value("Reservation", &Reservation { count: 0x65, gs: 0x66, time_ms: TIME_MS });
    let reply = Ok(Outcome::Bool(true));
    golden.value("Remembered", &Remembered { op: OP, time_ms: TIME_MS, reply });
    let (next_inode, next_block) = (0x67, 0x68);
    golden.value("Meta", &Meta { next_inode, next_block, next_stamp: 0x69, next_reply: 0x6a });
}

/// Rows of every kind as the namespace itself writes them, keys included.
fn rows(golden: &mut Golden) {
    let mut namespace = Namespace::new();
    let mut run = |op, command| {
        let request = Request { op, caller: caller(), command };
        namespace.run(TIME_MS, request).unwrap()
    };
    let options = CreateOptions { block_size: 1 << 20, ..OPTIONS };
    let reserved = run(None, Command::Reserve { count: 3 });
    let Outcome::Reserved { start, gs, .. } = reserved else { panic!("reserved") };
    let new = |id| NewBlock { gs, ..block(id) };
    let closed = |path: &str, id| Command::CreateClosed {
        path: path.into(),
        options,
        blocks: vec![new(id)],
    };
    run(Some(OP), closed("/가/나", start));
    run(None, closed("/다", start + 1));
    run(None, Command::Delete { path: "/다".into(), recursive: true });
    run(None, Command::Create { path: "/라".into(), options, holder: "임자".into() });
    run(None, Command::Fence { source: "수집".into(), epoch: 0x72 });
    let (store, mut pending) = (MemStore::default(), BTreeMap::new());
    let mut rows = Rows::new(&store, &mut pending, consensus::tags::BLOCKS);
    namespace.graveyard.insert(0x71);
    namespace.dirty.graveyard.insert(0x71);
    namespace.flush(&mut rows);
    let found = rows.scan(b"").unwrap();
    let kinds: BTreeSet<u8> = found.iter().filter_map(|(key, _)| key.first().copied()).collect();
    assert_eq!(kinds, BTreeSet::from(*b"ibdlgvrfm"), "a row of every kind");
    let mut again = Namespace::load(&rows).unwrap();
    let show = |ns: &Namespace| {
        let (blocks, doomed, leases) = (&ns.blocks, &ns.doomed, &ns.leases);
        let (graveyard, reservations, replies) = (&ns.graveyard, &ns.reservations, &ns.replies);
        let inodes = &ns.inodes;
        let (fences, meta) = (&ns.fences, ns.meta);
        format!(
            "{inodes:?} {blocks:?} {doomed:?} {leases:?} {graveyard:?} {reservations:?} \
             {replies:?} {fences:?} {meta:?}"
        )
    };
    // The root has no row before it changes.
    again.inodes.entry(ROOT).and_modify(|root| root.mtime_ms = namespace.inodes[&ROOT].mtime_ms);
    assert_eq!(show(&again), show(&namespace));
    golden.rows("fs", found);
}

fn records(golden: &mut Golden) {
    let data = "블록의 내용".as_bytes();
    let crcs = [base::crc::crc32c(data)];
    let digest = crate::chunks::digest(&crcs);
    let meta = BlockMeta { id: 0x81, gs: 0x82, len: data.len() as u64, digest };
    golden.bytes("BlockMeta::header", &meta.header(), |bytes| {
        BlockMeta::parse(bytes).map(|meta| meta.header().to_vec()).ok_or("no sound header")
    });
    let record = |meta: BlockMeta| {
        let mut record = Vec::new();
        meta.append_record(data, &crcs, &mut record);
        record
    };
    golden.bytes("pack-record", &record(meta), |bytes| {
        BlockMeta::parse(bytes).map(record).ok_or("no sound header")
    });
    // The body of a pack's index; a CRC32C follows it in the file.
    golden.value("pack-index", &vec![(meta, 0x83u64)]);
}

#[test]
fn golden() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/namespace/golden.txt");
    let mut golden = Golden::open(path);
    // A log entry's command is a list of these.
    let command = Command::Renew { holder: "임자".into() };
    golden.value("Requests", &vec![Request { op: Some(OP), caller: caller(), command }]);
    golden.variants("Command", &commands());
    replies(&mut golden);
    row_types(&mut golden);
    rows(&mut golden);
    records(&mut golden);
    golden.check();
}

//! The bytes of votes, log entries, checkpoints and `node.json`; see [`base::golden`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use base::env::sim_disk::SimDisk;
use base::golden::Golden;
use base::{Disk, Env, GroupId};
use bytes::Bytes;
use openraft::EntryPayload;

use super::batch::{self, Item};
use super::checkpoint::{CheckpointDir, Position};
use super::types::{
    Commands, Entry, LogId, Member, Membership, StoredMembership, Vote, decode_entry, decode_vote,
    encode_body, encode_vote,
};
use crate::identity::NodeFile;
use crate::machine::{SnapshotFile, tags};

const TERM: u64 = 0x0102_0304_0506_0708;
const INDEX: u64 = 0x1112_1314_1516_1718;

/// Two nodes, about to be three.
fn membership() -> Membership {
    let configs = vec![BTreeSet::from([0x21, 0x22]), BTreeSet::from([0x21, 0x22, 0x23])];
    let nodes = [(0x21, 1), (0x22, 2), (0x23, 3)].map(|(id, slot)| (id, Member { slot }));
    Membership::new(configs, BTreeMap::from(nodes)).unwrap()
}

fn votes(golden: &mut Golden) {
    let votes =
        [("asked", Vote::new(TERM, INDEX)), ("committed", Vote::new_committed(TERM, INDEX))];
    for (name, vote) in votes {
        golden.bytes(&format!("Vote::{name}"), &encode_vote(&vote), |bytes| {
            decode_vote(bytes).map(|vote| encode_vote(&vote).to_vec())
        });
    }
}

/// One name for each kind of entry: a new one does not compile without a sample.
fn entry_name(payload: &EntryPayload<Commands, u64, Member>) -> &'static str {
    match payload {
        EntryPayload::Blank => "Blank",
        EntryPayload::Membership(_) => "Membership",
        EntryPayload::Normal(_) => "Commands",
    }
}

fn commands() -> Bytes {
    let item = |tag, body: &'static str| Item { tag, body: Bytes::from(body) };
    batch::encode(0x3132_3334, &[item(2, "명령"), item(5, ""), item(3, "abc")])
}

fn entries(golden: &mut Golden) {
    for payload in [
        EntryPayload::Blank,
        EntryPayload::Membership(membership()),
        EntryPayload::Normal(Commands(commands())),
    ] {
        let name = format!("Entry::{}", entry_name(&payload));
        let entry = Entry { log_id: LogId::new_term_index(TERM, INDEX), payload };
        golden.bytes(&name, &encode_body(&entry), |bytes| {
            let body = Bytes::copy_from_slice(bytes);
            decode_entry(TERM, INDEX, body).map(|entry| encode_body(&entry).to_vec())
        });
    }
    // The body of commands is opaque to an entry: their own layout is read here.
    golden.bytes("Commands", &commands(), |bytes| {
        let read = batch::decode(Bytes::copy_from_slice(bytes));
        read.map(|(time_ms, items)| batch::encode(time_ms, &items).to_vec())
    });
    golden.bytes(
        "tags",
        &[tags::CLUSTER, tags::LOG, tags::BLOCKS, tags::INDEX, tags::FLOW, tags::SECURITY],
        |bytes| Ok::<_, String>(bytes.to_vec()),
    );
}

fn env(disk: &SimDisk) -> Env {
    Env { disk: Arc::new(disk.clone()), ..Env::real() }
}

/// The files of a checkpoint: `CURRENT`, a base, and a delta with a deleted row.
fn checkpoints(golden: &mut Golden) {
    let disk = SimDisk::new(1);
    let open = || CheckpointDir::open(&env(&disk), Path::new("/data"), GroupId::data(3)).unwrap();
    let dir = open();
    let at = LogId::new_term_index(0x41, 0x42);
    let position = |index| {
        let applied = Some(LogId::new_term_index(TERM, index));
        let file = SnapshotFile { path: "parts/가/0.log".into(), len: 0x51, crc: 0x5253_5455 };
        let membership = StoredMembership::new(Some(at), membership());
        Position::new(applied, &membership, 0x6162_6364, vec![file])
    };
    let row = |key: &str, value: Option<&'static str>| {
        (key.as_bytes().to_vec(), value.map(|value| Bytes::from_static(value.as_bytes())))
    };
    let rows = [row("a", Some("값")), row("나", Some(""))];
    dir.add(position(7), BTreeMap::from(rows)).unwrap();
    dir.add(position(INDEX), BTreeMap::from([row("a", None), row("c", Some("3"))])).unwrap();
    // Reading it again: each file is read as what it was written of.
    let again = open();
    let current = again.current().unwrap();
    assert_eq!(current.position.applied_id(), Some(LogId::new_term_index(TERM, INDEX)));
    assert_eq!(current.position.stored_membership().unwrap().membership(), &membership());
    let held: Vec<_> = again.load().unwrap().map(|row| row.unwrap()).collect();
    assert_eq!(held, [row("c", Some("3")), row("나", Some(""))]);
    golden.value("Current", &*current);
    let mut files = disk.read_dir(Path::new("/data/ckpt/d3")).unwrap();
    files.sort();
    assert_eq!(files.len(), 3);
    for path in files {
        let name = path.file_name().unwrap().to_str().unwrap();
        let bytes = disk.read(&path, 1 << 20).unwrap();
        // Read above, from the disk.
        golden.bytes(&format!("file:{name}"), &bytes, |bytes| Ok::<_, String>(bytes.to_vec()));
    }
}

fn identity(golden: &mut Golden) {
    let born = NodeFile {
        format: 1,
        node: 2,
        raft_id: TERM,
        cluster: Some("000102030405060708090a0b0c0d0e0f".to_owned()),
        name: Some("가락".to_owned()),
        data_groups: 6,
        giving_birth: Some(vec![(1, 0x71), (2, TERM), (3, 0x73)]),
    };
    let blank = NodeFile { cluster: None, name: None, giving_birth: None, ..born.clone() };
    for (name, file) in [("born", born), ("blank", blank)] {
        let disk = SimDisk::new(1);
        file.save(&env(&disk), Path::new("/data")).unwrap();
        let bytes = disk.read(Path::new("/data/node.json"), 1 << 16).unwrap();
        golden.bytes(&format!("node.json:{name}"), &bytes, |bytes| {
            let read: NodeFile = serde_json::from_slice(bytes)?;
            serde_json::to_vec_pretty(&read)
        });
    }
}

#[test]
fn golden() {
    let mut golden = Golden::open(concat!(env!("CARGO_MANIFEST_DIR"), "/src/raft/golden.txt"));
    votes(&mut golden);
    entries(&mut golden);
    checkpoints(&mut golden);
    identity(&mut golden);
    golden.check();
}

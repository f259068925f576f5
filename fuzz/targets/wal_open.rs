//! Opens a log whose file holds foreign bytes behind a valid beginning, or was overwritten at
//! random: recovery answers, never panics, and what it accepts opens again the same.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use base::env::sim_disk::{Crash, SimDisk};
use base::env::{RealClock, SeededRandom};
use base::{Disk, Env, GroupId, OpenMode};
use libfuzzer_sys::fuzz_target;
use wal::{LogPos, Options, Wal, WalEntry};

const G: GroupId = GroupId(0);

fn open(disk: &SimDisk) -> Option<(Wal, wal::WalThread)> {
    let env = Env {
        clock: Arc::new(RealClock::new()),
        random: Arc::new(SeededRandom::new(1)),
        disk: Arc::new(disk.clone()),
    };
    let options =
        Options { file_bytes: 64 << 10, keep_spare_files: 1, ..Options::new("/wal".into()) };
    Wal::open(&env, options).ok()
}

fuzz_target!(|data: &[u8]| {
    let Some(([high, low], patch)) = data.split_first_chunk() else { return };
    let disk = SimDisk::new(1);
    let (wal, mut thread) = open(&disk).expect("an empty disk");
    for index in 0..3 {
        let pos = LogPos { term: 1, node: 1, index };
        wal.append(G, vec![WalEntry { pos, body: vec![7; 100].into() }], Box::new(|_| {}));
        thread.step();
    }
    disk.crash(Crash::Process);
    let path = Path::new("/wal/0000000001.wal");
    let file = disk.open(path, OpenMode::ReadWrite).expect("the log's file");
    let offset = u64::from(u16::from_be_bytes([*high, *low]));
    file.write_all_at(&patch[..patch.len().min(60 << 10)], offset).expect("written");
    if let Some((wal, _)) = open(&disk) {
        let state = (wal.last(G), wal.vote(G), wal.purged(G), wal.committed(G));
        disk.crash(Crash::Process);
        let (wal, _) = open(&disk).expect("opens again");
        assert_eq!(state, (wal.last(G), wal.vote(G), wal.purged(G), wal.committed(G)));
    }
});

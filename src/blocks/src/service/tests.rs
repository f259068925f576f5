//! The service on one node.

use std::path::{Path, PathBuf};

use base::env::sim_disk::{Crash, SimDisk};
use base::{Env, GroupId};
use consensus::solo::{SoloGroup, SoloPeers};

use super::*;
use crate::machine::BlockOptions;

struct World {
    disk: SimDisk,
    shared: Arc<BlockShared>,
    group: Arc<SoloGroup>,
    fs: Arc<BlockService>,
}

fn world() -> World {
    let disk = SimDisk::new(1);
    let env = Env { disk: Arc::new(disk.clone()), ..Env::real() };
    let options =
        BlockOptions { reserve_bytes: 0, orphan_age: Duration::ZERO, delete_grace: Duration::ZERO };
    let shared = BlockShared::new(env, Path::new("/data"), options).unwrap();
    let group = SoloGroup::new(GroupId::FS, vec![(tags::BLOCKS, shared.machine())]);
    let peers = Arc::new(SoloPeers::default());
    let fs = BlockService::new(shared.clone(), group.clone(), peers, TaskGroup::new());
    World { disk, shared, group, fs }
}

fn bytes(len: usize) -> Bytes {
    (0..len).map(|i| (i * 31 + i / 977) as u8).collect::<Vec<_>>().into()
}

async fn read(fs: &Arc<BlockService>, path: &str) -> Bytes {
    fs.read_all(&Caller::system(), path, u64::MAX).await.unwrap()
}

#[tokio::test]
async fn files_of_every_size_come_back() {
    let World { fs, .. } = world();
    let who = Caller::system();
    let options = CreateOptions { block_size: 2 << 20, ..CreateOptions::default() };
    for len in [0, 1, 511, 512, 1 << 20, (1 << 20) + 1, 2 << 20, (5 << 20) + 77] {
        let path = format!("/f/{len}");
        let mut writer = fs.create(&who, &path, options).await.unwrap();
        for part in bytes(len).chunks(300_000) {
            writer.write(Bytes::copy_from_slice(part)).await.unwrap();
        }
        writer.close().await.unwrap();
        assert_eq!(read(&fs, &path).await, bytes(len), "{len}");
        fs.create_whole(&who, &format!("/g/{len}"), options, bytes(len)).await.unwrap();
        assert_eq!(read(&fs, &format!("/g/{len}")).await, bytes(len), "{len}");
        let one = fs.checksum(&who, &path).await.unwrap();
        assert_eq!(one, fs.checksum(&who, &format!("/g/{len}")).await.unwrap());
    }
    let file = fs.open(&who, "/f/5242957").await.unwrap();
    assert_eq!(file.blocks.len(), 3);
    let part: Vec<Bytes> = file.stream(2_000_000, 1_000_001).try_collect().await.unwrap();
    assert_eq!(part.concat(), bytes(5_242_957)[2_000_000..3_000_001]);
    assert_eq!(fs.content_summary(&who, "/f").await.unwrap().files, 8);
}

#[tokio::test]
async fn appends_grow_small_and_large_files() {
    let World { fs, .. } = world();
    let who = Caller::system();
    let options = CreateOptions::default();
    fs.create_whole(&who, "/a", options, Bytes::new()).await.unwrap();
    let all = bytes(4_000_000);
    let mut at = 0;
    for len in [10, 700, 0, 1_500_000, 5, 2_000_000] {
        let mut writer = fs.append(&who, "/a").await.unwrap();
        writer.write(all.slice(at..at + len)).await.unwrap();
        writer.close().await.unwrap();
        at += len;
        assert_eq!(read(&fs, "/a").await, all[..at]);
    }
    let blocks = fs.open(&who, "/a").await.unwrap().blocks.len();
    assert_eq!(blocks, 2, "short blocks are merged");
}

#[tokio::test]
async fn a_flush_is_visible_and_a_dropped_writer_leaves_nothing() {
    let World { fs, .. } = world();
    let who = Caller::system();
    let mut writer = fs.create(&who, "/w", CreateOptions::default()).await.unwrap();
    writer.write(bytes(100)).await.unwrap();
    writer.hflush().await.unwrap();
    assert_eq!(read(&fs, "/w").await, bytes(100));
    assert!(fs.status(&who, "/w").await.unwrap().open);
    writer.abort().await.unwrap();
    assert!(fs.status(&who, "/w").await.is_err());
    let mut writer = fs.create(&who, "/v", CreateOptions::default()).await.unwrap();
    writer.write(bytes(3_000_000)).await.unwrap();
    drop(writer);
    for _ in 0..1000 {
        if fs.status(&who, "/v").await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the file of a dropped writer is still there");
}

#[tokio::test]
async fn a_batch_is_put_once() {
    let World { fs, shared, .. } = world();
    let file = |n: usize, version: &str| PutFile {
        path: format!("/datalake/뉴스/파일 {n}.txt"),
        version: version.as_bytes().to_vec(),
        bytes: bytes(n * 1000),
        mtime_ms: 42,
    };
    let files: Vec<_> = (0..50).chain([3_000]).map(|n| file(n, "1")).collect();
    let by = Putter { source: "뉴스", epoch: 1 };
    let first = fs.put_files(by, files.clone()).await.unwrap();
    assert!(first.iter().all(|r| *r == Ok(PutOutcome::Created)), "{first:?}");
    let again = fs.put_files(by, files).await.unwrap();
    assert!(again.iter().all(|r| *r == Ok(PutOutcome::Unchanged)), "{again:?}");
    for n in [0, 1, 49, 3_000] {
        let path = format!("/datalake/뉴스/파일 {n}.txt");
        assert_eq!(read(&fs, &path).await, bytes(n * 1000));
        assert_eq!(fs.status(&Caller::system(), &path).await.unwrap().mtime_ms, 42);
    }
    let bad = PutFile { path: "/a:b".into(), ..file(1, "1") };
    assert!(fs.put_files(by, vec![bad]).await.unwrap()[0].is_err());
    assert_eq!(shared.namespace.read().blocks.len(), 50);
}

#[tokio::test]
async fn a_source_that_was_followed_replaces_nothing() {
    let World { fs, shared, .. } = world();
    let put = async |source, epoch, version: &str, len| {
        let version = version.as_bytes().to_vec();
        let file = PutFile { path: "/d/가.txt".into(), version, bytes: bytes(len), mtime_ms: 1 };
        fs.put_files(Putter { source, epoch }, vec![file]).await
    };
    let fenced = |error| matches!(error, BlockError::Fs(e) if e.kind == FsErrorKind::Fenced);
    fs.fence("뉴스", 1).await.unwrap();
    assert_eq!(put("뉴스", 1, "old", 100).await.unwrap(), [Ok(PutOutcome::Created)]);
    fs.fence("뉴스", 2).await.unwrap();
    assert_eq!(put("뉴스", 2, "new", 200).await.unwrap(), [Ok(PutOutcome::Replaced)]);
    // The one before was cut off while it stored the older version, and comes back.
    assert!(fenced(put("뉴스", 1, "old", 100).await.unwrap_err()));
    assert!(fenced(fs.fence("뉴스", 1).await.unwrap_err()));
    assert_eq!(read(&fs, "/d/가.txt").await, bytes(200));
    // What it had written belongs to nobody and goes.
    assert_eq!(shared.namespace.read().blocks.len(), 1);
    // Another source's epochs are its own.
    assert_eq!(put("소설", 1, "other", 300).await.unwrap(), [Ok(PutOutcome::Replaced)]);
}

#[tokio::test]
async fn deleted_bytes_leave_the_disk() {
    let World { fs, shared, .. } = world();
    let who = Caller::system();
    fs.create_whole(&who, "/d/small", CreateOptions::default(), bytes(10)).await.unwrap();
    fs.create_whole(&who, "/d/big", CreateOptions::default(), bytes(2_000_000)).await.unwrap();
    assert_eq!(shared.store.totals(), (2, 2_000_010));
    assert!(fs.delete(&who, "/d", true).await.unwrap());
    for _ in 0..1000 {
        if shared.store.totals() == (0, 0) && shared.namespace.read().doomed.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("blocks are left: {:?}", fs.stats());
}

#[tokio::test]
async fn garbage_is_collected_and_claimed_blocks_stay() {
    let World { fs, shared, .. } = world();
    let who = Caller::system();
    fs.create_whole(&who, "/a", CreateOptions::default(), bytes(10)).await.unwrap();
    fs.write_blocks(vec![bytes(20), bytes(30)]).await.unwrap();
    assert_eq!(shared.store.totals().0, 3);
    fs.collect_garbage().await.unwrap();
    assert_eq!(shared.store.totals(), (1, 10));
    assert_eq!(read(&fs, "/a").await, bytes(10));
}

#[tokio::test]
async fn lost_blocks_are_noticed() {
    let World { fs, shared, .. } = world();
    let who = Caller::system();
    fs.create_whole(&who, "/a", CreateOptions::default(), bytes(10)).await.unwrap();
    let id = fs.open(&who, "/a").await.unwrap().blocks[0].id;
    shared.store.remove(vec![id]).await.unwrap();
    fs.report_lost().await.unwrap();
    assert_eq!(fs.open(&who, "/a").await.unwrap().blocks[0].replicas, 0);
    let error = fs.read_all(&who, "/a", 100).await.unwrap_err();
    assert!(matches!(error, BlockError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn acknowledged_files_survive_a_power_loss() {
    let World { fs, shared, disk, group } = world();
    let who = Caller::system();
    fs.create_whole(&who, "/a", CreateOptions::default(), bytes(1000)).await.unwrap();
    fs.create_whole(&who, "/b", CreateOptions::default(), bytes(3_000_000)).await.unwrap();
    disk.crash(Crash::TearUnsynced);
    let env = Env { disk: Arc::new(disk.clone()), ..Env::real() };
    let again = BlockShared::new(env, Path::new("/data"), BlockOptions::default()).unwrap();
    // The namespace is Raft's to keep; here it lives on in the group.
    std::mem::swap(&mut *again.namespace.write(), &mut *shared.namespace.write());
    let peers = Arc::new(SoloPeers::default());
    let fs = BlockService::new(again, group, peers, TaskGroup::new());
    assert_eq!(read(&fs, "/a").await, bytes(1000));
    assert_eq!(read(&fs, "/b").await, bytes(3_000_000));
}

#[tokio::test]
async fn commands_that_are_no_commands_are_refused() {
    let World { group, .. } = world();
    let reply = group.apply(tags::BLOCKS, Bytes::from_static(b"\xff\xff garbage")).reply;
    let replies: Vec<crate::command::Reply> = base::codec::decode(&reply).unwrap();
    assert!(replies[0].is_err());
}

/// Three nodes that share one namespace group.
mod three {
    use super::*;
    use async_trait::async_trait;
    use consensus::{Lane, Message, PeerError, PeerHandler, Peers};
    use std::collections::{BTreeSet, HashMap};

    #[derive(Default)]
    struct Net {
        handlers: Mutex<HashMap<NodeId, Arc<dyn PeerHandler>>>,
        dead: Mutex<BTreeSet<NodeId>>,
    }

    struct Side {
        me: NodeId,
        net: Arc<Net>,
    }

    #[async_trait]
    impl Peers for Side {
        fn me(&self) -> NodeId {
            self.me
        }
        fn all(&self) -> Vec<NodeId> {
            vec![NodeId(1), NodeId(2), NodeId(3)]
        }
        fn is_alive(&self, node: NodeId) -> bool {
            !self.net.dead.lock().contains(&node)
        }
        fn register(&self, _tag: u8, handler: Arc<dyn PeerHandler>) {
            self.net.handlers.lock().insert(self.me, handler);
        }
        async fn call(
            &self,
            to: NodeId,
            _lane: Lane,
            method: u16,
            request: Message,
            _timeout: Duration,
        ) -> Result<Message, PeerError> {
            let handler = self.net.handlers.lock().get(&to).cloned();
            let handler = handler
                .filter(|_| self.is_alive(to))
                .ok_or_else(|| PeerError::Unreachable { to, reason: "it is dead".to_owned() })?;
            let answer = handler.handle(self.me, method, request).await;
            answer.map_err(|reason| PeerError::Refused { to, reason })
        }
    }

    struct Three {
        net: Arc<Net>,
        disks: Vec<SimDisk>,
        nodes: Vec<Arc<BlockService>>,
    }

    /// The namespace is one object, as if all three had applied the same entries.
    fn three() -> Three {
        let net = Arc::new(Net::default());
        let (mut disks, mut nodes) = (Vec::new(), Vec::new());
        let mut first: Option<(Arc<SoloGroup>, Arc<BlockShared>)> = None;
        for n in 1..=3 {
            let disk = SimDisk::new(n);
            let env = Env { disk: Arc::new(disk.clone()), ..Env::real() };
            let options = BlockOptions {
                reserve_bytes: 0,
                delete_grace: Duration::ZERO,
                ..BlockOptions::default()
            };
            let mut shared = BlockShared::new(env, Path::new("/data"), options).unwrap();
            if let Some((_, one)) = &first {
                let mine = Arc::get_mut(&mut shared).unwrap();
                mine.namespace = one.namespace.clone();
            }
            let (group, _) = first.get_or_insert_with(|| {
                let machines = vec![(tags::BLOCKS, shared.machine())];
                (SoloGroup::new(GroupId::FS, machines), shared.clone())
            });
            let me = NodeId(u16::try_from(n).unwrap());
            let peers = Arc::new(Side { me, net: net.clone() });
            nodes.push(BlockService::new(shared, group.clone(), peers, TaskGroup::new()));
            disks.push(disk);
        }
        Three { net, disks, nodes }
    }

    async fn until(what: &str, mut done: impl FnMut() -> bool) {
        for _ in 0..2000 {
            if done() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not in time: {what}");
    }

    #[tokio::test]
    async fn a_dead_node_is_missed_by_nobody_and_gets_its_copies_back() {
        let Three { net, nodes, .. } = three();
        let who = Caller::system();
        net.dead.lock().insert(NodeId(3));
        let options = CreateOptions::default();
        nodes[0].create_whole(&who, "/a", options, bytes(1000)).await.unwrap();
        nodes[1].create_whole(&who, "/b", options, bytes(3_000_000)).await.unwrap();
        assert_eq!(nodes[0].stats().partial, 2);
        assert_eq!(nodes[2].stats().local_blocks, 0);
        net.dead.lock().clear();
        until("repair", || nodes[2].stats().local_blocks == 2 && nodes[0].stats().partial == 0)
            .await;
        net.dead.lock().extend([NodeId(1), NodeId(2)]);
        assert_eq!(read(&nodes[2], "/b").await, bytes(3_000_000));
        let error = nodes[2].create_whole(&who, "/c", options, bytes(10)).await.unwrap_err();
        assert!(matches!(error, BlockError::Unavailable(_)), "one node acknowledges nothing");
    }

    #[tokio::test]
    async fn a_bad_copy_is_mended_in_place() {
        let Three { disks, nodes, .. } = three();
        let who = Caller::system();
        let options = CreateOptions::default();
        nodes[0].create_whole(&who, "/a", options, bytes(5000)).await.unwrap();
        nodes[0].create_whole(&who, "/b", options, bytes(3_000_000)).await.unwrap();
        until("third copies", || nodes.iter().all(|node| node.stats().local_blocks == 2)).await;
        let id = nodes[0].open(&who, "/b").await.unwrap().blocks[0].id;
        let big = PathBuf::from(format!("/data/blocks/files/{:02x}/{id}.blk", id & 0xff));
        let pack = PathBuf::from("/data/blocks/packs/00000001.pack");
        disks[0].flip_bit(&big, 2_500_000).unwrap();
        disks[1].flip_bit(&big, 100).unwrap();
        disks[0].flip_bit(&pack, 1000).unwrap();
        // Every copy but the third is damaged somewhere, and the reader does not notice.
        assert_eq!(read(&nodes[0], "/b").await, bytes(3_000_000));
        assert_eq!(read(&nodes[0], "/a").await, bytes(5000));
        nodes[1].scrub_step(u64::MAX).await;
        let whole = |n: usize, path: &'static str| {
            let node = nodes[n].clone();
            async move {
                let file = node.open(&Caller::system(), path).await.unwrap();
                let (id, len) = (file.blocks[0].id, file.len());
                node.shared.store.read(id, 0, len).await.is_ok()
            }
        };
        for _ in 0..2000 {
            if whole(0, "/a").await && whole(0, "/b").await && whole(1, "/b").await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the copies are still bad");
    }

    #[tokio::test]
    async fn a_wiped_node_is_filled_again() {
        let Three { nodes, .. } = three();
        let who = Caller::system();
        for n in 0..20 {
            let path = format!("/n/{n}");
            nodes[0]
                .create_whole(&who, &path, CreateOptions::default(), bytes(n * 100 + 1))
                .await
                .unwrap();
        }
        until("copies", || nodes[2].stats().local_blocks == 20).await;
        let ids = nodes[2].shared.store.page(0, 100).iter().map(|l| l.meta.id).collect();
        nodes[2].shared.store.remove(ids).await.unwrap();
        nodes[0].reset_slot(NodeId(3)).await.unwrap();
        assert_eq!(nodes[0].stats().partial, 20);
        until("refilled", || nodes[2].stats().local_blocks == 20 && nodes[0].stats().partial == 0)
            .await;
    }
}

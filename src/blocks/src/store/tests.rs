//! Packs and block files against a disk that forgets.

use base::env::sim_disk::{Crash, SimDisk};

use super::*;

const DIR: &str = "/data/blocks";

fn env(disk: &SimDisk) -> Env {
    Env { disk: Arc::new(disk.clone()), ..Env::real() }
}

fn open(disk: &SimDisk) -> Store {
    Store::open(&env(disk), Path::new(DIR), 0).unwrap()
}

fn bytes(id: u64, len: usize) -> Bytes {
    (0..len).map(|i| (i as u64 * 7 + id) as u8).collect::<Vec<_>>().into()
}

fn small(id: u64, len: usize) -> SmallBlock {
    let data = bytes(id, len);
    let crcs = chunks::crcs(&data);
    let meta = BlockMeta { id, gs: 1, len: len as u64, digest: chunks::digest(&crcs) };
    SmallBlock { meta, crcs, data }
}

async fn whole(store: &Store, id: u64) -> Result<Bytes, StoreError> {
    Ok(store.read(id, 0, u64::MAX).await?.data)
}

#[tokio::test]
async fn synced_blocks_survive_a_power_loss() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let store = open(&disk);
        for id in 1..30 {
            store.write_small(vec![small(id, id as usize * 97)]).await.unwrap();
        }
        let big = bytes(99, 3_000_000);
        for (n, piece) in big.chunks(1 << 20).enumerate() {
            let piece = Bytes::copy_from_slice(piece);
            store.write_piece(99, 1, (n << 20) as u64, piece).await.unwrap();
        }
        let digest = chunks::digest(&chunks::crcs(&big));
        let meta = BlockMeta { id: 99, gs: 1, len: big.len() as u64, digest };
        store.finish(meta).await.unwrap();
        store.write_piece(100, 1, 0, bytes(100, 5000)).await.unwrap();
        disk.crash(if seed % 2 == 0 { Crash::TearUnsynced } else { Crash::LoseUnsynced });
        let store = open(&disk);
        for id in 1..30 {
            assert_eq!(whole(&store, id).await.unwrap(), bytes(id, id as usize * 97));
        }
        assert_eq!(whole(&store, 99).await.unwrap(), big);
        assert!(whole(&store, 100).await.is_err(), "an unfinished block is gone");
    }
}

#[tokio::test]
async fn damage_costs_one_record() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    store.write_small((1..10).map(|id| small(id, 1000)).collect()).await.unwrap();
    let Place::Pack { offset, .. } = store.get(5).unwrap().place else { panic!("in a pack") };
    let path = pack::pack_path(&Path::new(DIR).join("packs"), 1);
    disk.flip_bit(&path, offset as usize + 20).unwrap();
    disk.crash(Crash::Process);
    let store = open(&disk);
    assert!(matches!(whole(&store, 5).await, Err(StoreError::Missing(5))));
    for id in [1, 4, 6, 9] {
        assert_eq!(whole(&store, id).await.unwrap(), bytes(id, 1000));
    }
    // A block written again (repair) is readable, and a bad chunk is noticed.
    store.write_small(vec![small(5, 1000)]).await.unwrap();
    assert_eq!(whole(&store, 5).await.unwrap(), bytes(5, 1000));
    let Place::Pack { offset, .. } = store.get(6).unwrap().place else { panic!("in a pack") };
    disk.flip_bit(&path, offset as usize + 400).unwrap();
    assert!(matches!(whole(&store, 6).await, Err(StoreError::Corrupt(6))));
}

#[tokio::test]
async fn ranges_are_widened_to_chunks() {
    let store = open(&SimDisk::new(1));
    store.write_small(vec![small(1, 2000)]).await.unwrap();
    let piece = store.read(1, 600, 10).await.unwrap();
    assert_eq!(piece.data, bytes(1, 2000).slice(512..1024));
    assert_eq!(store.read(1, 1999, 100).await.unwrap().data, bytes(1, 2000).slice(1536..));
    assert!(store.read(1, 5000, 10).await.unwrap().data.is_empty());
}

#[tokio::test]
async fn dead_packs_are_rewritten() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    store.write_small((1..100).map(|id| small(id, 5000)).collect()).await.unwrap();
    drop(store);
    disk.crash(Crash::Process);
    let store = open(&disk);
    store.remove((1..90).collect()).await.unwrap();
    assert_eq!(store.compact().await.unwrap(), 1);
    assert!(!disk.exists(&pack::pack_path(&Path::new(DIR).join("packs"), 1)).unwrap());
    assert_eq!(whole(&store, 95).await.unwrap(), bytes(95, 5000));
    assert!(whole(&store, 5).await.is_err());
    disk.crash(Crash::LoseUnsynced);
    let store = open(&disk);
    assert_eq!(whole(&store, 95).await.unwrap(), bytes(95, 5000));
    assert_eq!(store.totals().0, 10);
}

#[tokio::test]
async fn a_pack_that_cannot_be_rewritten_holds_up_no_other() {
    let disk = SimDisk::new(1);
    let packs = Path::new(DIR).join("packs");
    for first in [1, 10, 20] {
        let store = open(&disk);
        store.write_small((first..first + 9).map(|id| small(id, 1000)).collect()).await.unwrap();
        disk.crash(Crash::Process);
    }
    let store = open(&disk);
    let Place::Pack { offset, number } = store.get(9).unwrap().place else { panic!("in a pack") };
    assert_eq!(number, 1);
    disk.flip_bit(&pack::pack_path(&packs, 1), offset as usize + 400).unwrap();
    store.remove((1..9).chain(10..19).chain(20..28).collect()).await.unwrap();
    assert!(matches!(store.compact().await, Err(StoreError::Corrupt(9))));
    let there = |number| disk.exists(&pack::pack_path(&packs, number)).unwrap();
    assert!(there(1) && !there(2) && !there(3));
    assert_eq!(whole(&store, 28).await.unwrap(), bytes(28, 1000));
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_not_reads() {
    let disk = SimDisk::new(1);
    let store = Store::open(&env(&disk), Path::new(DIR), 1000).unwrap();
    store.write_small(vec![small(1, 10)]).await.unwrap();
    disk.set_free_bytes(10);
    store.inner.free_checked_ms.store(0, Ordering::Relaxed);
    assert!(store.write_small(vec![small(2, 10)]).await.is_err());
    assert_eq!(whole(&store, 1).await.unwrap(), bytes(1, 10));
    store.remove(vec![1]).await.unwrap();
}

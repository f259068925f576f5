//! Files: flushes, recycling, torn tails and damage.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;

use std::time::Duration;

use base::Disk;
use base::env::sim_disk::Crash;
use bytes::Bytes;
use common::*;
use wal::{SyncMode, WalError};

/// Fills more than `files` files with entries of one group, purging as it goes.
fn run_through(wal: &wal::Wal, thread: &mut wal::WalThread, files: u64) {
    let first = wal.last(G).map_or(0, |last| last.index + 1);
    for next in first..first + files * 8 {
        wal.append(G, entries(1, next, 1, 10_000), ignore());
        thread.step();
        wal.purge(G, pos(1, next));
        wal.set_checkpointed(G, next);
        thread.step();
    }
}

#[test]
fn one_flush_takes_what_is_queued_and_calls_back_in_order() {
    let rig = Rig::new(1);
    let (wal, mut thread) = rig.open();
    let acks = Acks::default();
    wal.append(G, entries(1, 0, 3, 100), acks.done(1));
    wal.save_vote(G, Bytes::from_static(b"v"), acks.done(2));
    wal.append(base::GroupId::FS, entries(1, 0, 2, 100), acks.done(3));
    wal.append(G, vec![], acks.done(4));
    assert_eq!(read_all(&wal, G), entries(1, 0, 3, 100), "readable before it is written");
    assert_eq!(wal.vote(G).unwrap(), "v");
    assert!(!wal.is_durable(G, 0) && acks.all().is_empty());
    assert_eq!(thread.step(), 1);
    assert_eq!(acks.all(), [(1, true), (2, true), (3, true), (4, true)]);
    assert_eq!(
        (wal.durable_index(G), wal.is_durable(G, 2), wal.is_durable(G, 3)),
        (2, true, false)
    );
    let stats = wal.stats();
    assert_eq!((stats.flushes, stats.records, stats.bytes, stats.queue_bytes), (1, 6, 4096, 0));
}

#[test]
fn a_large_append_is_split_and_called_back_once_after_the_last_write() {
    let mut rig = Rig::new(2);
    rig.options.file_bytes = 16 << 20;
    let (wal, mut thread) = rig.open();
    let acks = Acks::default();
    wal.append(G, entries(1, 0, 3, 3 << 20), acks.done(1));
    wal.append(G, entries(1, 3, 5000, 0), acks.done(2));
    assert_eq!(thread.step(), 4, "4 MiB or 4096 records at most");
    assert_eq!(acks.all(), [(1, true), (2, true)]);
    let (wal, _) = rig.crash(Crash::LoseUnsynced);
    assert_eq!(wal.read(G, 0, 3, usize::MAX).unwrap(), entries(1, 0, 3, 3 << 20));
    assert_eq!(wal.last(G), Some(pos(1, 5002)));
}

#[test]
fn an_entry_larger_than_a_file_is_stored() {
    let rig = Rig::new(3);
    let (wal, mut thread) = rig.open();
    wal.append(G, entries(1, 0, 1, 200_000), ignore());
    wal.append(G, entries(1, 1, 1, 10), ignore());
    thread.step();
    wal.append(G, entries(1, 2, 1, 10), ignore());
    thread.step();
    let (wal, _) = rig.crash(Crash::LoseUnsynced);
    assert_eq!(wal.read(G, 0, 1, 1).unwrap(), entries(1, 0, 1, 200_000));
    assert_eq!(wal.last(G), Some(pos(1, 2)));
}

#[test]
fn a_body_above_the_limit_is_refused_and_changes_nothing() {
    let rig = Rig::new(4);
    let (wal, _thread) = rig.open();
    let acks = Acks::default();
    wal.append(G, entries(1, 0, 1, wal::limits::MAX_BODY_BYTES + 1), acks.done(1));
    assert_eq!(acks.all(), [(1, false)]);
    assert_eq!((wal.last(G), wal.failed()), (None, None));
}

#[test]
fn a_commit_alone_causes_no_flush_and_goes_with_the_next() {
    let rig = Rig::new(5);
    let (wal, mut thread) = rig.open();
    wal.append(G, entries(1, 0, 5, 10), ignore());
    thread.step();
    wal.set_committed(G, pos(1, 3));
    assert_eq!((wal.committed(G), thread.step()), (Some(pos(1, 3)), 0));
    let (wal, mut thread) = rig.crash(Crash::LoseUnsynced);
    assert_eq!(wal.committed(G), None);
    wal.set_committed(G, pos(1, 3));
    wal.save_vote(base::GroupId::M0, Bytes::new(), ignore());
    thread.step();
    let (wal, _) = rig.crash(Crash::LoseUnsynced);
    assert_eq!(wal.committed(G), Some(pos(1, 3)));
}

#[test]
fn a_commit_never_names_an_entry_that_the_recovered_log_lacks() {
    let mut rig = Rig::new(18);
    rig.options.file_bytes = 8 << 20;
    let (wal, mut thread) = rig.open();
    wal.append(G, entries(1, 0, 5000, 0), ignore());
    thread.step();
    wal.truncate_after(G, Some(9));
    wal.append(G, entries(2, 10, 5000, 0), ignore());
    wal.set_committed(G, pos(2, 4600));
    // The first of two flushes lands, up to entry 4104.
    rig.disk.power_off_in(2);
    thread.step();
    let (wal, _) = rig.crash(Crash::LoseUnsynced);
    assert_eq!((wal.last(G), wal.committed(G)), (Some(pos(2, 4104)), None));
}

/// Files of the log's directory, in use and spare.
fn file_names(rig: &Rig) -> Vec<std::path::PathBuf> {
    let mut names = rig.disk.read_dir(std::path::Path::new(DIR)).unwrap();
    names.sort();
    names
}

#[test]
fn files_that_a_checkpoint_frees_together_are_used_again_before_any_is_made() {
    let mut rig = Rig::new(19);
    (rig.options.keep_spare_files, rig.options.most_spare_files) = (1, 4);
    let (wal, mut thread) = rig.open();
    let mut next = 0;
    let mut fill = |wal: &wal::Wal, thread: &mut wal::WalThread, entries_more: u64| {
        for _ in 0..entries_more {
            wal.append(G, entries(1, next, 1, 10_000), ignore());
            thread.step();
            next += 1;
        }
        next
    };
    let end = fill(&wal, &mut thread, 60);
    let used = file_names(&rig).len();
    assert!(used > 8, "{used}");
    wal.purge(G, pos(1, end - 1));
    wal.set_checkpointed(G, end - 1);
    thread.step();
    let kept = file_names(&rig).len();
    assert!((5..=7).contains(&kept), "the one in use, the next one, four spares: {kept}");
    // What the spares hold is written without a file made: their number stays.
    fill(&wal, &mut thread, 18);
    assert_eq!(file_names(&rig).len(), kept);
}

#[test]
fn recycled_files_carry_every_groups_state() {
    let rig = Rig::new(6);
    let (wal, mut thread) = rig.open();
    let other = base::GroupId::M0;
    wal.append(other, entries(7, 0, 9, 10), ignore());
    wal.save_vote(other, Bytes::from_static(b"for 3"), ignore());
    wal.truncate_after(other, Some(5));
    wal.purge(other, pos(7, 5));
    wal.set_checkpointed(other, 5);
    wal.set_committed(other, pos(7, 5));
    run_through(&wal, &mut thread, 10);
    assert!(rig.numbers().first() > Some(&8), "old files went: {:?}", rig.names());
    assert!(rig.names().len() <= 5, "and were reused: {:?}", rig.names());
    let (wal, mut thread) = rig.crash(Crash::LoseUnsynced);
    assert_eq!(wal.vote(other).unwrap(), "for 3");
    assert_eq!((wal.last(other), wal.purged(other)), (Some(pos(7, 5)), Some(pos(7, 5))));
    assert_eq!(wal.committed(other), Some(pos(7, 5)));
    run_through(&wal, &mut thread, 3);
    let (wal, _) = rig.crash(Crash::LoseUnsynced);
    assert_eq!(wal.vote(other).unwrap(), "for 3");
}

#[test]
fn files_stay_until_entries_are_purged_and_checkpointed() {
    let rig = Rig::new(7);
    let (wal, mut thread) = rig.open();
    for i in 0..30 {
        wal.append(G, entries(1, i, 1, 10_000), ignore());
        thread.step();
    }
    assert_eq!(rig.numbers()[0], 1);
    let (group, highest) = wal.oldest_needed()[0];
    assert_eq!(group, G);
    assert_eq!(
        (wal.late_checkpoints(0), wal.late_checkpoints(wal.live_bytes())),
        (vec![G], vec![])
    );
    wal.set_checkpointed(G, highest);
    thread.step();
    assert_eq!(rig.numbers()[0], 1, "not purged");
    wal.purge(G, pos(1, highest));
    thread.step();
    assert_eq!(rig.numbers()[0], 2, "only the first file went");
    wal.purge(G, pos(1, 29));
    thread.step();
    assert_eq!(rig.numbers()[0], 2, "not checkpointed");
    let before = wal.live_bytes();
    assert_eq!(wal.late_checkpoints(0), [G]);
    wal.set_checkpointed(G, 29);
    assert_eq!(wal.late_checkpoints(0), []);
    thread.step();
    assert!(wal.live_bytes() < before && wal.oldest_needed().is_empty());
    assert_eq!(wal.live_bytes_of(G), 0);
}

#[test]
fn a_full_disk_does_not_stop_a_running_log() {
    let rig = Rig::new(8);
    let (wal, mut thread) = rig.open();
    thread.step();
    rig.disk.set_full(true);
    run_through(&wal, &mut thread, 12);
    assert_eq!(wal.failed(), None);
    let (wal, mut thread) = rig.crash(Crash::LoseUnsynced);
    run_through(&wal, &mut thread, 3);
    assert_eq!(wal.failed(), None);
}

#[test]
fn a_failed_write_is_final() {
    let rig = Rig::new(9);
    let (wal, mut thread) = rig.open();
    let acks = Acks::default();
    let told = Acks::default();
    let hook = told.clone();
    wal.on_failure(move |_| hook.done(0)(Ok(())));
    wal.append(G, entries(1, 0, 1, 10), acks.done(1));
    thread.step();
    rig.disk.power_off_in(1);
    wal.append(G, entries(1, 1, 1, 10), acks.done(2));
    thread.step();
    wal.append(G, entries(1, 2, 1, 10), acks.done(3));
    wal.save_vote(G, Bytes::new(), acks.done(4));
    thread.step();
    assert_eq!(acks.all(), [(1, true), (2, false), (3, false), (4, false)]);
    assert!(wal.failed().is_some() && wal.stats().failed);
    assert!(wal.read(G, 0, 1, 100).is_err());
    assert_eq!(told.all().len(), 1);
    assert_eq!(wal.durable_index(G), 0);
}

#[test]
fn a_stopped_log_refuses_requests() {
    let rig = Rig::new(10);
    let (wal, mut thread) = rig.open();
    let acks = Acks::default();
    wal.append(G, entries(1, 0, 1, 10), acks.done(1));
    wal.stop();
    wal.append(G, entries(1, 1, 1, 10), acks.done(2));
    thread.step();
    assert_eq!(acks.all(), [(2, false), (1, true)]);
}

#[test]
fn a_flipped_bit_below_an_attested_place_is_damage() {
    for (offset, synced_behind) in [(64, true), (4096 + 100, true), (8192 + 100, false)] {
        let rig = Rig::new(11);
        let (wal, mut thread) = rig.open();
        for i in 0..2 {
            wal.append(G, entries(1, i, 1, 500), ignore());
            thread.step();
        }
        rig.disk.crash(Crash::Process);
        rig.disk.flip_bit(&path(1), offset).unwrap();
        // 64 lies in the padding of the first block: no content, no damage.
        let expect_damage = synced_behind && offset != 64;
        for _ in 0..2 {
            match rig.try_open() {
                Err(WalError::Damaged { lsn, .. }) => {
                    assert!(expect_damage, "at {offset}");
                    assert_eq!((lsn.file, lsn.offset), (1, 4096));
                }
                Ok((wal, _)) => {
                    assert!(!expect_damage, "at {offset}");
                    let last = if synced_behind { 1 } else { 0 };
                    assert_eq!(wal.last(G), Some(pos(1, last)));
                }
                Err(e) => panic!("{e}"),
            }
        }
    }
}

#[test]
fn damage_in_an_older_file_or_its_loss_is_reported() {
    let grown = || {
        let rig = Rig::new(12);
        let (wal, mut thread) = rig.open();
        for i in 0..30 {
            wal.append(G, entries(1, i, 1, 10_000), ignore());
            thread.step();
        }
        rig.disk.crash(Crash::Process);
        rig
    };
    let damage = |rig: &Rig| match rig.try_open() {
        Err(WalError::Damaged { lsn, what, .. }) => (lsn.file, what),
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("opened"),
    };
    let rig = grown();
    rig.disk.flip_bit(&path(2), 8192 + 500).unwrap();
    assert_eq!(damage(&rig).0, 2);
    let rig = grown();
    rig.disk.flip_bit(&path(3), 20).unwrap();
    assert_eq!(damage(&rig).0, 2, "the end of the second file cannot be confirmed");
    let rig = grown();
    rig.disk.remove_file(&path(2)).unwrap();
    assert_eq!(damage(&rig), (2, "the file is missing".to_owned()));
    let rig = grown();
    rig.disk.remove_file(&path(1)).unwrap();
    assert!(damage(&rig).1.starts_with("entries of group d0 up to"), "{}", damage(&rig).1);
}

#[test]
fn an_orderly_stop_attests_the_last_flush() {
    let rig = Rig::new(13);
    let (wal, thread) = rig.open();
    wal.append(G, entries(1, 0, 1, 500), ignore());
    wal.stop();
    thread.run();
    rig.disk.crash(Crash::LoseUnsynced);
    assert_eq!(rig.open().0.last(G), Some(pos(1, 0)));
    rig.disk.crash(Crash::Process);
    rig.disk.flip_bit(&path(1), 4096 + 100).unwrap();
    assert!(matches!(rig.try_open(), Err(WalError::Damaged { .. })));
}

#[test]
fn a_torn_tail_is_cut_and_zeroed_and_never_comes_back() {
    let mut cut = 0;
    for seed in 0..40 {
        let every = SyncMode::Interval(Duration::from_secs(1));
        let rig = Rig::with_sync(seed, every);
        let (wal, mut thread) = rig.open();
        wal.append(G, entries(1, 0, 1, 100), ignore());
        thread.step();
        rig.clock.advance(Duration::from_secs(2));
        thread.step();
        assert!(wal.is_durable(G, 0));
        for i in 1..5 {
            wal.append(G, entries(1, i, 1, 3000), ignore());
            thread.step();
        }
        assert!(!wal.is_durable(G, 1));
        let (wal, mut thread) = rig.crash(Crash::TearUnsynced);
        let last = wal.last(G).unwrap().index;
        cut += u64::from(last < 4);
        assert_eq!(read_all(&wal, G), [entries(1, 0, 1, 100), entries(1, 1, last, 3000)].concat());
        let end = usize::try_from(wal.live_bytes()).unwrap();
        let bytes = rig.disk.read(&path(1), 1 << 20).unwrap();
        assert!(bytes[end..].iter().all(|b| *b == 0), "the rest is zero");
        // A flush of the same size right there; what stood behind must not follow it.
        wal.append(G, entries(2, last + 1, 1, 3000), ignore());
        thread.step();
        let (wal, _) = rig.crash(Crash::Process);
        assert_eq!(wal.last(G), Some(pos(2, last + 1)));
    }
    assert!(cut > 20, "{cut} of 40 were torn");
}

#[test]
fn a_vote_is_synced_even_where_writes_are_synced_at_intervals() {
    let rig = Rig::with_sync(15, SyncMode::Interval(Duration::from_secs(3600)));
    let (wal, mut thread) = rig.open();
    wal.append(G, entries(1, 0, 2, 100), ignore());
    thread.step();
    assert!(!wal.is_durable(G, 1));
    wal.save_vote(G, Bytes::from_static(b"vote"), ignore());
    thread.step();
    assert!(wal.is_durable(G, 1), "what was written before it is synced with it");
    wal.append(G, entries(1, 2, 1, 100), ignore());
    thread.step();
    let (wal, _) = rig.crash(Crash::LoseUnsynced);
    assert_eq!(wal.vote(G), Some(Bytes::from_static(b"vote")));
    assert_eq!(wal.last(G), Some(pos(1, 1)));
}

#[test]
fn a_file_of_a_newer_format_is_refused_untouched() {
    let rig = Rig::new(14);
    drop(rig.open());
    let file = rig.disk.open(&path(1), base::OpenMode::ReadWrite).unwrap();
    let mut header = [0; wal::format::HEADER_BYTES];
    file.read_exact_at(&mut header, 0).unwrap();
    header[8] = 2;
    let crc = base::crc::crc32c(&header[8..]);
    header[4..8].copy_from_slice(&crc.to_le_bytes());
    file.write_all_at(&header, 0).unwrap();
    assert!(matches!(rig.try_open(), Err(WalError::TooNew { version: 2, .. })));
}

#[test]
fn a_crash_at_every_step_of_growth_and_recycling_is_survived() {
    for step in 1.. {
        let rig = Rig::new(step);
        rig.disk.power_off_in(step);
        let mut acked = None;
        if let Ok((wal, mut thread)) = rig.try_open() {
            for next in 0..40 {
                let acks = Acks::default();
                wal.append(G, entries(1, next, 1, 10_000), acks.done(next));
                thread.step();
                if let Some((_, true)) = acks.all().first() {
                    acked = Some(next);
                }
                if next % 7 == 6 {
                    wal.purge(G, pos(1, next - 2));
                    wal.set_checkpointed(G, next - 2);
                    thread.step();
                }
            }
            if wal.failed().is_none() {
                return assert!(step > 50, "all steps were tried");
            }
        }
        let (wal, mut thread) = rig.crash(Crash::TearUnsynced);
        let last = wal.last(G).map(|last| last.index);
        assert!(last >= acked, "step {step}: {last:?} < {acked:?}");
        wal.append(G, entries(1, last.map_or(0, |l| l + 1), 20, 10_000), ignore());
        thread.step();
        let (wal, _) = rig.crash(Crash::LoseUnsynced);
        assert_eq!(wal.last(G).map(|last| last.index), Some(last.map_or(19, |l| l + 20)));
        read_all(&wal, G);
    }
}

#[test]
fn without_direct_io_flushes_are_synced() {
    let rig = Rig::new(15);
    rig.disk.refuse_direct();
    let (wal, mut thread) = rig.open();
    let acks = Acks::default();
    wal.append(G, entries(1, 0, 5, 3000), acks.done(1));
    thread.step();
    assert_eq!(acks.all(), [(1, true)]);
    let (wal, _) = rig.crash(Crash::LoseUnsynced);
    assert_eq!(read_all(&wal, G), entries(1, 0, 5, 3000));
}

#[test]
fn the_cache_is_bounded_and_misses_are_read_from_files() {
    let rig = Rig::new(16);
    let (wal, mut thread) = rig.open();
    for i in 0..50 {
        wal.append(G, entries(1, i, 1, 2000), ignore());
        thread.step();
    }
    assert!(wal.stats().cache_bytes <= 8 << 10);
    assert_eq!(read_all(&wal, G), entries(1, 0, 50, 2000));
    assert!(wal.stats().cache_misses >= 46);
    assert_eq!(wal.read(G, 3, 9, 1).unwrap(), entries(1, 3, 1, 2000), "at least one");
    assert_eq!(wal.read(G, 3, 9, 4000).unwrap(), entries(1, 3, 2, 2000));
    assert_eq!(wal.read(G, 50, 60, 4000).unwrap(), []);
}

#[test]
fn a_damaged_entry_is_not_handed_out() {
    let rig = Rig::new(17);
    let (wal, mut thread) = rig.open();
    for i in 0..10 {
        wal.append(G, entries(1, i, 1, 2000), ignore());
        thread.step();
    }
    rig.disk.flip_bit(&path(1), 4096 + 500).unwrap();
    let error = wal.read(G, 0, 1, 100).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    assert_eq!(wal.read(G, 1, 2, 100).unwrap(), entries(1, 1, 1, 2000));
}

use std::path::PathBuf;
use std::sync::Arc;

use base::env::sim_disk::{Crash, SimDisk};
use base::{Disk, Env};
use bytes::Bytes;

use crate::limits;
use crate::{FrameInfo, SegmentInfo, SegmentWriter, Stream, WriterOptions};

/// A test frame: length u32, base u64, count u32, timestamp i64, then filler.
pub(crate) fn frame(base: u64, count: u32, ts: i64, len: usize) -> Bytes {
    let mut bytes = Vec::with_capacity(len);
    bytes.extend((len as u32).to_be_bytes());
    bytes.extend(base.to_be_bytes());
    bytes.extend(count.to_be_bytes());
    bytes.extend(ts.to_be_bytes());
    bytes.resize(len, base as u8);
    bytes.into()
}

pub(crate) fn parse(bytes: &[u8]) -> Option<FrameInfo> {
    let len = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?);
    let base_offset = u64::from_be_bytes(bytes.get(4..12)?.try_into().ok()?);
    let count = u32::from_be_bytes(bytes.get(12..16)?.try_into().ok()?);
    let max_timestamp_ms = i64::from_be_bytes(bytes.get(16..24)?.try_into().ok()?);
    let next_offset = base_offset.checked_add(u64::from(count))?;
    Some(FrameInfo { len: u64::from(len), base_offset, next_offset, max_timestamp_ms })
}

fn env_on(disk: Arc<dyn Disk>) -> Env {
    Env { disk, ..Env::real() }
}

fn small() -> WriterOptions {
    WriterOptions { chunk_bytes: 16 * 1024, stream_cache_bytes: 8 * 1024, ..Default::default() }
}

struct Fill {
    next: u64,
    ts: i64,
}

impl Fill {
    fn one(&mut self, stream: &Stream, count: u32, len: usize) {
        let bytes = frame(self.next, count, self.ts, len);
        stream.append(self.next, self.next + u64::from(count), self.ts, bytes).unwrap();
        self.next += u64::from(count);
        self.ts += 10;
    }
}

fn read_all(stream: &Stream, mut from: u64) -> Vec<u64> {
    let mut bases = vec![];
    loop {
        let frames = stream.read(from, 5000).unwrap();
        let Some(last) = frames.last() else { return bases };
        from = parse(last).unwrap().next_offset;
        bases.extend(frames.iter().map(|f| parse(f).unwrap().base_offset));
    }
}

fn check_everywhere(env: &Env, dir: PathBuf) {
    let writer = SegmentWriter::start(env, small());
    let stream = Stream::create(&writer, dir.clone(), parse);
    let mut fill = Fill { next: 0, ts: 1000 };
    for i in 0..500usize {
        if i % 200 == 199 {
            stream.roll();
        }
        fill.one(&stream, 3, 100 + i * 7);
    }
    let expected: Vec<u64> = (0..500).map(|i| i * 3).collect();
    assert_eq!(read_all(&stream, 0), expected, "before the sync");
    stream.sync().unwrap();
    assert_eq!(read_all(&stream, 0), expected, "after the sync");
    assert_eq!(read_all(&stream, 301)[0], 300, "an offset inside a frame finds the frame");
    let segments = stream.segments();
    assert_eq!(segments.len(), 3);
    for info in &segments {
        let bytes = env.disk.read(&stream.path_of(info), 1 << 30).unwrap();
        assert_eq!(bytes.len() as u64, info.len, "files hold exactly what was appended");
        assert_eq!(base::crc::crc32c(&bytes), info.crc);
    }
    writer.stop();
    assert!(stream.sync().is_err(), "a stopped writer acknowledges nothing");

    let writer = SegmentWriter::start(env, small());
    let stream = Stream::open(&writer, dir, &segments, parse).unwrap();
    assert_eq!(read_all(&stream, 0), expected, "after a restart");
    fill.one(&stream, 3, 333);
    assert_eq!(read_all(&stream, 1494), [1494, 1497, 1500]);
    stream.sync().unwrap();
    let found = stream.find_time(1000 + 10 * 250 - 3).unwrap().unwrap();
    assert_eq!((found.base_offset, found.max_timestamp_ms), (750, 3500));
    assert_eq!(stream.find_time(1 << 40).unwrap(), None);
    writer.stop();
}

#[test]
fn frames_are_read_back_on_a_simulated_disk() {
    check_everywhere(&env_on(Arc::new(SimDisk::new(3))), PathBuf::from("/parts/a"));
}

#[test]
fn frames_are_read_back_on_a_real_disk() {
    let dir = tempfile::tempdir_in(".").unwrap();
    check_everywhere(&Env::real(), dir.path().join("parts/a"));
}

#[test]
fn frames_are_read_back_where_direct_io_may_be_missing() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    check_everywhere(&Env::real(), dir.path().join("parts/a"));
}

fn synced_then_more(disk: &SimDisk) -> (Vec<SegmentInfo>, Vec<u64>) {
    let writer = SegmentWriter::start(&env_on(Arc::new(disk.clone())), small());
    let stream = Stream::create(&writer, "/parts/a".into(), parse);
    let mut fill = Fill { next: 0, ts: 0 };
    (0..40).for_each(|_| fill.one(&stream, 1, 777));
    stream.sync().unwrap();
    let segments = stream.segments();
    let bases = read_all(&stream, 0);
    (0..100).for_each(|_| fill.one(&stream, 1, 777));
    stream.roll();
    (0..100).for_each(|_| fill.one(&stream, 1, 777));
    writer.stop();
    (segments, bases)
}

#[test]
fn what_was_synced_survives_every_crash_and_the_rest_is_cut() {
    for (seed, crash) in (0..20).flat_map(|seed| {
        [Crash::Process, Crash::LoseUnsynced, Crash::TearUnsynced].map(|c| (seed, c))
    }) {
        let disk = SimDisk::new(seed);
        let (segments, bases) = synced_then_more(&disk);
        disk.crash(crash);
        let writer = SegmentWriter::start(&env_on(Arc::new(disk.clone())), small());
        let stream = Stream::open(&writer, "/parts/a".into(), &segments, parse).unwrap();
        assert_eq!(read_all(&stream, 0), bases, "seed {seed} {crash:?}");
        let bytes = disk.read(&stream.path_of(&segments[0]), 1 << 30).unwrap();
        assert_eq!(base::crc::crc32c(&bytes), segments[0].crc);
        assert_eq!(disk.read_dir(stream.dir()).unwrap().len(), 1, "unknown files are deleted");
        writer.stop();
    }
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// A topic with tiny segments must not take all file descriptors of the node.
#[test]
fn many_segments_between_two_syncs_are_not_all_held_open() {
    let dir = tempfile::tempdir().unwrap();
    let writer = SegmentWriter::start(&Env::real(), small());
    let stream = Stream::create(&writer, dir.path().join("parts/a"), parse);
    let mut fill = Fill { next: 0, ts: 0 };
    let before = open_files();
    let mut most = 0;
    for _ in 0..1_000 {
        fill.one(&stream, 1, 100);
        stream.roll();
        most = most.max(open_files());
    }
    stream.sync().unwrap();
    let other_tests = 200;
    assert!(most < before + limits::MAX_UNSYNCED_FILES + other_tests, "{before} to {most}");
    assert_eq!(read_all(&stream, 0).len(), 1_000);
    let now = open_files();
    assert!(now < before + limits::MAX_READERS + other_tests, "{now} for readers");
    writer.stop();
}

/// A node has more partitions than files that it may open.
#[test]
fn streams_that_rest_hold_no_file_open() {
    let dir = tempfile::tempdir().unwrap();
    let writer = SegmentWriter::start(&Env::real(), small());
    let before = open_files();
    let streams: Vec<Stream> = (0..1000)
        .map(|n| Stream::create(&writer, dir.path().join(format!("parts/{n}")), parse))
        .collect();
    let mut most = 0;
    for round in 0..2 {
        for stream in &streams {
            stream.append(round, round + 1, 0, frame(round, 1, 0, 100)).unwrap();
            stream.sync().unwrap();
            most = most.max(open_files());
        }
    }
    assert!(most < before + 1000, "{before} to {most}");
    assert!(streams.iter().all(|stream| read_all(stream, 0) == [0, 1]));
    writer.stop();
}

#[test]
fn a_shorter_file_is_refused() {
    let disk = SimDisk::new(1);
    let (mut segments, _) = synced_then_more(&disk);
    disk.crash(Crash::LoseUnsynced);
    segments[0].len += 1;
    let writer = SegmentWriter::start(&env_on(Arc::new(disk)), small());
    assert!(Stream::open(&writer, "/parts/a".into(), &segments, parse).is_err());
}

#[test]
fn trimmed_files_outlive_the_checkpoint_that_knows_them() {
    let disk = SimDisk::new(1);
    let writer = SegmentWriter::start(&env_on(Arc::new(disk.clone())), small());
    let stream = Stream::create(&writer, "/parts/a".into(), parse);
    let mut fill = Fill { next: 0, ts: 0 };
    for _ in 0..3 {
        (0..10).for_each(|_| fill.one(&stream, 1, 500));
        stream.roll();
    }
    stream.sync().unwrap();
    stream.trim_before(25);
    assert_eq!((stream.start_offset(), stream.next_offset()), (20, 30));
    assert_eq!(read_all(&stream, 20).len(), 10);
    let files = || disk.read_dir(stream.dir()).unwrap().len();
    assert_eq!(stream.begin_checkpoint(), [] as [PathBuf; 0]);
    assert_eq!(files(), 3);
    writer.delete(stream.begin_checkpoint());
    assert_eq!(files(), 1);
    stream.trim_before(30);
    assert_eq!(stream.start_offset(), 20, "the newest segment stays, it knows the next offset");
    stream.remove().unwrap();
    assert!(!disk.exists("/parts/a".as_ref()).unwrap());
}

#[test]
fn a_stream_that_is_gone_holds_no_memory() {
    let disk = SimDisk::new(1);
    let options = WriterOptions { writing: crate::Writing::Inline, ..small() };
    let writer = SegmentWriter::start(&env_on(Arc::new(disk)), options);
    let mut fill = Fill { next: 0, ts: 0 };
    let (closed, removed) = ("/parts/a", "/parts/b");
    let [closed, removed] = [closed, removed].map(|dir| Stream::create(&writer, dir.into(), parse));
    for stream in [&closed, &removed] {
        (0..10).for_each(|_| fill.one(stream, 1, 500));
        stream.sync().unwrap();
        // And something that is never written.
        fill.one(stream, 1, 500);
    }
    assert_eq!(writer.stats().memory_bytes, 11_000);
    closed.close();
    drop(closed);
    removed.remove().unwrap();
    assert_eq!(writer.stats().memory_bytes, 0);
}

#[test]
fn memory_stays_bounded_and_appends_wait_for_the_disk() {
    let disk = SimDisk::new(1);
    let options = WriterOptions { queue_bytes: 64 * 1024, node_cache_bytes: 32 * 1024, ..small() };
    let writer = SegmentWriter::start(&env_on(Arc::new(disk)), options);
    let streams: Vec<Stream> =
        (0..20).map(|i| Stream::create(&writer, format!("/parts/{i}").into(), parse)).collect();
    for round in 0..200u64 {
        for stream in &streams {
            stream.wait_for_room().unwrap();
            stream.append(round, round + 1, 0, frame(round, 1, 0, 1000)).unwrap();
            assert!(writer.stats().unwritten_bytes <= 65 * 1024);
        }
    }
    for stream in &streams {
        stream.sync().unwrap();
        assert_eq!(read_all(stream, 0).len(), 200);
    }
    assert_eq!(writer.stats().unwritten_bytes, 0);
    assert!(writer.stats().memory_bytes <= 32 * 1024, "{:?}", writer.stats());
    writer.stop();
}

#[test]
fn frames_out_of_order_are_refused() {
    let writer = SegmentWriter::start(&env_on(Arc::new(SimDisk::new(1))), small());
    let stream = Stream::create(&writer, "/a".into(), parse);
    stream.append(5, 8, 0, frame(5, 3, 0, 100)).unwrap();
    assert!(stream.append(7, 9, 0, frame(7, 2, 0, 100)).is_err());
    assert!(stream.append(8, 8, 0, frame(8, 0, 0, 100)).is_err());
    stream.append(10, 11, 0, frame(10, 1, 0, 100)).unwrap();
    assert_eq!(read_all(&stream, 0), [5, 10]);
}

/// Writes every other frame of all segments but the newest into one new segment.
fn thin_out(stream: &Stream, generation: u64) -> Vec<u64> {
    stream.sync().unwrap();
    let mut segments = stream.segments();
    let upto = segments.pop().unwrap().base_offset;
    let mut out = stream.rewrite(segments[0].base_offset, generation);
    let mut kept = vec![];
    for segment in &segments {
        let mut frames = stream.frames(segment).unwrap();
        while let Some((info, bytes)) = frames.next_frame().unwrap() {
            if info.base_offset % 2 == 0 {
                kept.push(info.base_offset);
                out.push(&info, bytes).unwrap();
            }
        }
    }
    let made = out.finish().unwrap();
    stream.sync_names().unwrap();
    stream.replace(upto, made.as_slice()).unwrap();
    kept
}

#[test]
fn rewritten_segments_take_the_place_of_old_ones() {
    let disk = SimDisk::new(3);
    let writer = SegmentWriter::start(&env_on(Arc::new(disk.clone())), small());
    let dir = PathBuf::from("/s");
    let stream = Stream::create(&writer, dir.clone(), parse);
    let mut fill = Fill { next: 0, ts: 0 };
    for i in 0..100 {
        fill.one(&stream, 1, 300 + i * 7 % 900);
        if i % 30 == 29 {
            stream.roll();
        }
    }
    let before = stream.segments();
    let mut expected = thin_out(&stream, 1);
    expected.extend(90..100);
    assert_eq!(read_all(&stream, 0), expected);
    assert_eq!(read_all(&stream, 13)[..3], [14, 16, 18]);
    assert_eq!(stream.find_time(130).unwrap().unwrap().base_offset, 14);
    let after = stream.segments();
    assert_eq!(after.iter().map(|s| s.generation).collect::<Vec<_>>(), [1, 0]);
    // A crash now: the owner's checkpoint may speak of either.
    disk.crash(Crash::TearUnsynced);
    for segments in [&before, &after] {
        let copy = SimDisk::new(4);
        copy_files(&disk, &copy, &dir);
        let writer = SegmentWriter::start(&env_on(Arc::new(copy)), small());
        let stream = Stream::open(&writer, dir.clone(), &segments[..segments.len() - 1], parse);
        let held = read_all(&stream.unwrap(), 0);
        let all: Vec<u64> = (0..90).collect();
        assert_eq!(held, if segments.len() > 2 { all } else { expected[..45].to_vec() });
        writer.stop();
    }
    writer.stop();
}

fn copy_files(from: &SimDisk, to: &SimDisk, dir: &std::path::Path) {
    to.create_dir_all(dir).unwrap();
    for path in from.read_dir(dir).unwrap() {
        let bytes = from.read(&path, 1 << 20).unwrap();
        let file = to.open(&path, base::OpenMode::ReadWrite).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
    }
}

#[test]
fn old_files_stay_while_a_checkpoint_may_speak_of_them() {
    let disk = Arc::new(SimDisk::new(3));
    let writer = SegmentWriter::start(&env_on(disk.clone()), small());
    let stream = Stream::create(&writer, "/s".into(), parse);
    let mut fill = Fill { next: 0, ts: 0 };
    for _ in 0..3 {
        (0..10).for_each(|_| fill.one(&stream, 1, 500));
        stream.roll();
    }
    fill.one(&stream, 1, 500);
    thin_out(&stream, 1);
    thin_out(&stream, 2);
    let files = || disk.read_dir(std::path::Path::new("/s")).unwrap().len();
    let mut seen = vec![files()];
    for _ in 0..3 {
        stream.begin_checkpoint().iter().for_each(|path| disk.remove_file(path).unwrap());
        seen.push(files());
    }
    assert_eq!(seen, [6, 6, 6, 2]);
    writer.stop();
}

#[test]
fn a_damaged_segment_is_not_rewritten() {
    let disk = Arc::new(SimDisk::new(3));
    let writer = SegmentWriter::start(&env_on(disk.clone()), small());
    let stream = Stream::create(&writer, "/s".into(), parse);
    let mut fill = Fill { next: 0, ts: 0 };
    (0..10).for_each(|_| fill.one(&stream, 1, 500));
    stream.roll();
    fill.one(&stream, 1, 500);
    stream.sync().unwrap();
    let first = stream.segments().remove(0);
    disk.flip_bit(&stream.path_of(&first), 400).unwrap();
    let mut frames = stream.frames(&first).unwrap();
    let end = loop {
        match frames.next_frame() {
            Ok(Some(_)) => {}
            end => break end,
        }
    };
    assert!(end.unwrap_err().to_string().contains("checksum"));
    writer.stop();
}

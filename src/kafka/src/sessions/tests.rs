use std::sync::atomic::AtomicU64;
use std::time::Duration;

use base::Clock;

use super::*;
use crate::codec::Records;
use crate::codec::messages::{FetchForgottenTopic, FetchPartition, FetchTopic, PartitionData};
use crate::limits::FETCH_PLACE_BYTES;

#[derive(Default)]
struct Hand(AtomicU64);

impl Clock for Hand {
    fn unix_ms(&self) -> i64 {
        0
    }
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

struct Case {
    hand: Arc<Hand>,
    sessions: Sessions,
}

impl Case {
    fn new(slots: usize) -> Self {
        let hand = Arc::new(Hand::default());
        let env = Env { clock: hand.clone(), ..Env::real() };
        Self { hand, sessions: Sessions::new(slots, env) }
    }

    fn pass(&self, ms: u64) {
        self.hand.0.fetch_add(ms, Ordering::Relaxed);
    }

    fn begin(&self, request: &FetchRequest, version: i16) -> Result<Context, i16> {
        self.sessions.begin(request, version)
    }

    /// Begins a session of so many partitions; 0 when it was not kept.
    fn open(&self, partitions: i32) -> i32 {
        let context = self.begin(&request(0, 0, 0..partitions), 12).unwrap();
        assert_eq!(context.kind, Kind::Begins);
        self.sessions.keep(&context.session)
    }

    fn go_on(&self, id: i32, epoch: i32) -> Result<Kind, i16> {
        self.begin(&request(id, epoch, 0..0), 12).map(|context| context.kind)
    }
}

fn request(id: i32, epoch: i32, partitions: std::ops::Range<i32>) -> FetchRequest {
    let part = |partition| FetchPartition { partition, ..Default::default() };
    let topic = FetchTopic {
        topic: "t".into(),
        partitions: partitions.clone().map(part).collect(),
        ..Default::default()
    };
    let topics = if partitions.is_empty() { vec![] } else { vec![topic] };
    FetchRequest { session_id: id, session_epoch: epoch, topics, ..Default::default() }
}

#[test]
fn epochs_count_up_and_skip_zero() {
    let case = Case::new(10);
    let id = case.open(2);
    assert_ne!(id, NO_SESSION);
    assert_eq!(case.go_on(id, 1), Ok(Kind::Continues(1)));
    assert_eq!(case.go_on(id, 2), Ok(Kind::Continues(2)));
    assert_eq!(case.go_on(id, 2), Err(errors::INVALID_FETCH_SESSION_EPOCH));
    assert_eq!(case.go_on(id, 4), Err(errors::INVALID_FETCH_SESSION_EPOCH));
    assert_eq!(case.go_on(id, 3), Ok(Kind::Continues(3)), "errors change nothing");
    assert_eq!(case.go_on(id + 1, 1), Err(errors::FETCH_SESSION_ID_NOT_FOUND));
    assert_eq!((next_epoch(i32::MAX), next_epoch(-1)), (1, -1));
}

#[test]
fn a_whole_request_ends_the_session_it_names() {
    let case = Case::new(10);
    let id = case.open(2);
    let again = case.begin(&request(id, 0, 0..1), 12).unwrap();
    assert_eq!(again.kind, Kind::Begins);
    assert_eq!(case.go_on(id, 1), Err(errors::FETCH_SESSION_ID_NOT_FOUND));
    let id = case.open(2);
    assert_eq!(case.begin(&request(id, -1, 0..1), 12).unwrap().kind, Kind::Alone);
    assert_eq!(case.go_on(id, 1), Err(errors::FETCH_SESSION_ID_NOT_FOUND));
    assert_eq!(case.sessions.stats(), SessionStats::default());
}

#[test]
fn a_session_without_partitions_ends() {
    let case = Case::new(10);
    let id = case.open(2);
    let mut last = request(id, 1, 0..0);
    last.forgotten_topics_data = vec![FetchForgottenTopic {
        topic: "t".into(),
        partitions: vec![0, 1, 7],
        ..Default::default()
    }];
    assert_eq!(case.begin(&last, 12).unwrap().kind, Kind::Alone);
    assert_eq!(case.go_on(id, 2), Err(errors::FETCH_SESSION_ID_NOT_FOUND));
}

#[test]
fn a_session_stays_with_names_or_ids() {
    let case = Case::new(10);
    let id = case.open(2);
    let by_id = case.begin(&request(id, 1, 0..1), 13).map(|context| context.kind);
    assert_eq!(by_id, Err(errors::FETCH_SESSION_TOPIC_ID_ERROR));
}

#[test]
fn a_full_cache_keeps_young_sessions() {
    let case = Case::new(2);
    let (a, b) = (case.open(3), case.open(5));
    assert_eq!(case.open(100), NO_SESSION, "neither is stale nor old");
    case.pass(100_000);
    assert!(case.go_on(a, 1).is_ok() && case.go_on(b, 1).is_ok());
    case.pass(30_000);
    // Old by now, but the cache learns that at their next use.
    assert!(case.go_on(a, 2).is_ok() && case.go_on(b, 2).is_ok());
    assert_eq!(case.open(3), NO_SESSION, "not larger than the smallest");
    let c = case.open(4);
    assert_ne!(c, NO_SESSION);
    assert_eq!(case.go_on(a, 3), Err(errors::FETCH_SESSION_ID_NOT_FOUND));
    assert_eq!(case.sessions.stats(), SessionStats { sessions: 2, partitions: 9, evictions: 1 });
}

#[test]
fn a_stale_session_gives_way_to_any() {
    let case = Case::new(2);
    let (a, b) = (case.open(30), case.open(50));
    case.pass(119_000);
    assert!(case.go_on(a, 1).is_ok());
    case.pass(2_000);
    assert_ne!(case.open(1), NO_SESSION);
    assert_eq!(case.go_on(b, 1), Err(errors::FETCH_SESSION_ID_NOT_FOUND), "unused for 121 s");
    assert!(case.go_on(a, 2).is_ok());
}

#[test]
fn sessions_are_bounded_in_bytes() {
    let case = Case::new(1000);
    let mut large = request(0, 0, 0..1000);
    large.topics[0].topic = "n".repeat(3_000);
    let kept = (0..30).filter(|_| {
        let context = case.begin(&large, 12).unwrap();
        case.sessions.keep(&context.session) != NO_SESSION
    });
    assert_eq!(kept.count(), 20, "{MAX_FETCH_SESSION_BYTES} bytes are not exceeded");
    let id = case.open(1);
    large.session_id = id;
    large.session_epoch = 1;
    let grown = case.begin(&large, 12).map(|context| context.kind);
    assert_eq!(grown, Err(errors::FETCH_SESSION_ID_NOT_FOUND));
    assert_eq!(case.go_on(id, 1), Err(errors::FETCH_SESSION_ID_NOT_FOUND));
}

#[test]
fn no_slots_means_no_sessions() {
    assert_eq!(Case::new(0).open(1), NO_SESSION);
}

fn found(slot: u32, watermark: i64, records: &'static [u8]) -> Found {
    let records = Records(if records.is_empty() { vec![] } else { vec![records.into()] });
    let data = PartitionData { high_watermark: watermark, records, ..Default::default() };
    Found { slot, idle: data.records.0.is_empty(), missed: false, data, name: None }
}

fn slots(session: &mut Session) -> Vec<u32> {
    session.looks(1, 0).iter().map(|look| look.slot).collect()
}

#[test]
fn partitions_that_gave_records_come_last() {
    let mut session = Session::new(false);
    session.update(&request(0, 0, 0..4).topics, &[]);
    assert_eq!(slots(&mut session), [0, 1, 2, 3]);
    session.looked(&[found(0, 5, b"x"), found(1, 5, b"x")]);
    assert_eq!(slots(&mut session), [2, 3, 0, 1]);
    session.looked(&[found(2, 5, b"x"), found(3, 5, b""), found(0, 5, b"")]);
    assert_eq!(slots(&mut session), [1, 2], "idle ones are not looked at");
    session.update(&request(0, 1, 3..4).topics, &[]);
    assert_eq!(slots(&mut session), [1, 2, 3], "a request about one queues it");
    assert_eq!(session.looks(2, 0).len(), 4, "a new leader may lead any of them");
    session.looked(&(0..4).map(|slot| found(slot, 5, b"")).collect::<Vec<_>>());
    assert_eq!(session.looks(2, 1).len(), 4, "as does another isolation level");
}

#[test]
fn only_what_changed_is_told() {
    let mut session = Session::new(false);
    session.update(&request(0, 0, 0..1).topics, &[]);
    assert!(session.must_tell(&found(0, 5, b"")), "for the first time");
    assert!(!session.must_tell(&found(0, 5, b"")));
    assert!(session.must_tell(&found(0, 6, b"")), "another watermark");
    assert!(session.must_tell(&found(0, 6, b"x")), "records");
    let mut start = found(0, 6, b"");
    start.data.log_start_offset = 3;
    assert!(session.must_tell(&start), "another start");
    let mut failed = found(0, -1, b"");
    failed.data.error_code = errors::NOT_LEADER_OR_FOLLOWER;
    assert!(session.must_tell(&failed) && session.must_tell(&failed), "errors always");
    assert!(session.must_tell(&start), "and what comes after one");
}

#[test]
fn a_forgotten_slot_is_used_again_once() {
    let mut session = Session::new(false);
    session.update(&request(0, 0, 0..3).topics, &[]);
    let forget = |partition| FetchForgottenTopic {
        topic: "t".into(),
        partitions: vec![partition],
        ..Default::default()
    };
    session.looked(&[found(0, 0, b"")]);
    session.update(&[], &[forget(0), forget(1)]);
    assert_eq!((session.len(), slots(&mut session)), (1, vec![2]));
    session.update(&request(0, 0, 5..8).topics, &[]);
    let looks = session.looks(1, 0);
    let mut partitions: Vec<i32> = looks.iter().map(|look| look.partition).collect();
    partitions.sort_unstable();
    assert_eq!(partitions, [2, 5, 6, 7]);
    let mut slots: Vec<u32> = looks.iter().map(|look| look.slot).collect();
    slots.sort_unstable();
    slots.dedup();
    assert_eq!(slots.len(), 4, "every partition has a slot of its own");
}

#[test]
fn what_a_session_once_had_counts_until_it_is_used_again() {
    let mut session = Session::new(false);
    let forget = FetchForgottenTopic {
        topic: "t".into(),
        partitions: (1..1000).collect(),
        ..Default::default()
    };
    session.update(&request(0, 0, 0..1000).topics, &[forget]);
    assert_eq!(session.len(), 1);
    let bytes = session.bytes();
    assert!(bytes >= 1000 * FETCH_PLACE_BYTES, "{bytes}");
    // The queue passes the slots, which sets them free.
    session.looked(&[]);
    session.update(&request(0, 1, 1000..1999).topics, &[]);
    assert_eq!((session.len(), session.bytes()), (1000, 1000 * FETCH_PLACE_BYTES + 1000));
}

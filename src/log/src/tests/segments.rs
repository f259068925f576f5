//! Times of records; where segments end, and when they go.

use segment::SegmentInfo;

use super::*;

const NEVER: Duration = Duration::from_secs(3600);
/// The time that [`SoloGroup`] begins with.
const EPOCH_MS: i64 = 1_700_000_000_000;

impl Cluster {
    fn home(&self, topic: &Topic) -> &SoloGroup {
        &self.data[usize::from(topic.partitions[0].data_number().unwrap())]
    }

    /// The segments of partition 0.
    fn segments(&self, topic: &Topic) -> Vec<SegmentInfo> {
        let key = PartKey { topic: topic.id, partition: 0 };
        let part = self.shared.view(topic.partitions[0]).get(&key).unwrap();
        part.stream.segments()
    }
}

#[tokio::test]
async fn records_too_far_from_now_are_refused_by_their_place() {
    let c = cluster_that_reconciles(NEVER);
    let limits =
        [("message.timestamp.after.max.ms", "9000"), ("message.timestamp.before.max.ms", "20000")];
    c.topic(&limits).await;
    let now_ms = c.env.clock.unix_ms();
    let put = async |times: &[i64]| {
        let records: Vec<_> = times.iter().map(|ms| RecordRef::value(b"v", *ms)).collect();
        c.put(0, build(&records)).await
    };
    assert_eq!(put(&[now_ms, now_ms - 5_000, now_ms + 5_000]).await, Ok(0));
    assert_eq!(put(&[-1]).await, Ok(3), "one without a timestamp has none to be wrong");
    for (times, wrong) in [
        (vec![now_ms + 60_000], vec![0]),
        (vec![now_ms - 60_000], vec![0]),
        (vec![now_ms, now_ms + 60_000, now_ms], vec![1]),
        (vec![now_ms - 60_000, now_ms, now_ms + 60_000], vec![0, 2]),
    ] {
        let refused = put(&times).await.unwrap_err();
        let LogError::RejectedRecords { code, records, .. } = refused else {
            panic!("{times:?}: {refused:?}")
        };
        let places: Vec<i32> = records.iter().map(|record| record.index).collect();
        assert_eq!((code, places), (32, wrong), "{times:?}");
    }
    assert_eq!(c.fetch(0, 0).await.unwrap().high_watermark, 4);
}

#[tokio::test]
async fn an_hour_ahead_is_the_default_and_append_time_takes_every_time() {
    let c = cluster_that_reconciles(NEVER);
    c.topic(&[]).await;
    let now_ms = c.env.clock.unix_ms();
    assert_eq!(c.put(0, batch(&["a"], now_ms + 1_800_000)).await, Ok(0));
    assert_eq!(c.put(0, batch(&["a"], now_ms + 7_200_000)).await.unwrap_err().code(), 32);
    assert_eq!(c.put(0, batch(&["a"], 0)).await, Ok(1));
    let stamped = spec("u", &[("message.timestamp.type", "LogAppendTime")]);
    c.service.create_topic(&stamped, Mode::Apply).await.unwrap();
    let late = batch(&["a"], now_ms + 7_200_000);
    assert!(c.service.produce(TopicRef::Name("u"), 0, late, Acks::All).await.is_ok());
}

#[tokio::test]
async fn a_segment_ends_before_it_gets_too_large() {
    let c = cluster_that_reconciles(NEVER);
    let topic = c.topic(&[("segment.bytes", "1000")]).await;
    let one = batch(&["x".repeat(100).as_str()], 1);
    let fit = 1000 / one.len();
    for _ in 0..=fit {
        c.put(0, one.clone()).await.unwrap();
    }
    c.put(0, batch(&["y".repeat(2000).as_str()], 1)).await.unwrap();
    c.put(0, one.clone()).await.unwrap();
    let found: Vec<_> = c.segments(&topic).iter().map(|s| (s.base_offset, s.next_offset)).collect();
    let fit = fit as u64;
    assert_eq!(found, [(0, fit), (fit, fit + 1), (fit + 1, fit + 2), (fit + 2, fit + 3)]);
    assert_eq!(c.segments(&topic)[0].len, fit * one.len() as u64);
}

#[tokio::test]
async fn a_segment_ends_when_its_time_is_over() {
    let c = cluster_that_reconciles(NEVER);
    let topic = c.topic(&[("segment.ms", "60000")]).await;
    let put_after = async |ms| {
        c.home(&topic).advance_ms(ms);
        // What records say of themselves does not matter.
        c.put(0, batch(&["a"], 5)).await.unwrap();
        c.segments(&topic).len()
    };
    assert_eq!(put_after(0).await, 1);
    assert_eq!(put_after(30_000).await, 1);
    assert_eq!(put_after(30_000).await, 1, "it is not over yet");
    assert_eq!(put_after(1).await, 2, "counted from the segment's first record");
    assert_eq!(put_after(60_000).await, 2);
    assert_eq!(put_after(1).await, 3);
    assert_eq!(put_after(1_000_000).await, 4);
    let ends: Vec<_> = c.segments(&topic).iter().map(|s| s.next_offset).collect();
    assert_eq!(ends, [3, 5, 6, 7]);
}

#[tokio::test(start_paused = true)]
async fn records_without_timestamps_go_by_the_time_of_their_append() {
    let c = cluster_that_reconciles(NEVER);
    let topic = c.topic(&[("retention.ms", "3600000"), ("segment.bytes", "100")]).await;
    let now_ms = c.env.clock.unix_ms();
    for _ in 0..3 {
        c.put(0, batch(&["old"], -1)).await.unwrap();
    }
    c.home(&topic).advance_ms(now_ms - EPOCH_MS);
    for _ in 0..2 {
        c.put(0, batch(&["young"], -1)).await.unwrap();
    }
    let start = async || c.fetch(0, 4).await.unwrap().log_start_offset;
    let gone = async {
        while start().await == 0 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(300), gone).await.expect("the old ones go");
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(start().await, 3, "the young ones stay");
    assert_eq!(c.values(0, 3).await, [(3, "young".to_owned()), (4, "young".to_owned())]);
    // A node that starts anew knows as much.
    c.home(&topic).checkpoint();
    let (shared, mut machine) =
        c.restarted(usize::from(topic.partitions[0].data_number().unwrap()));
    let key = PartKey { topic: topic.id, partition: 0 };
    let part = shared.view(topic.partitions[0]).get(&key).unwrap();
    assert_eq!(part.stream.segments(), c.segments(&topic));
    let mut live = c.shared.machine_data(topic.partitions[0]);
    assert_eq!(digest(&mut *machine), digest(&mut *live));
    c.tasks.stop();
}

#[tokio::test]
async fn records_without_timestamps_are_not_found_by_time() {
    let c = cluster_that_reconciles(NEVER);
    c.topic(&[("segment.bytes", "100")]).await;
    let list = async |query| {
        let listed = c.service.list_offset(T, 0, -1, query, Isolation::Uncommitted).await.unwrap();
        (listed.offset, listed.timestamp_ms)
    };
    for _ in 0..3 {
        c.put(0, batch(&["a"], -1)).await.unwrap();
    }
    assert_eq!(list(OffsetQuery::Time(0)).await, (-1, -1));
    assert_eq!(list(OffsetQuery::MaxTimestamp).await, (-1, -1));
    c.put(0, batch(&["b"], 70)).await.unwrap();
    c.put(0, batch(&["c"], -1)).await.unwrap();
    assert_eq!(list(OffsetQuery::Time(0)).await, (3, 70));
    assert_eq!(list(OffsetQuery::Time(71)).await, (-1, -1));
    assert_eq!(list(OffsetQuery::MaxTimestamp).await, (3, 70));
}

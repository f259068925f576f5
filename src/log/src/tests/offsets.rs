//! Committed offsets of consumer groups.

use super::*;

#[tokio::test]
async fn committed_offsets_belong_to_the_topics_id() {
    let c = cluster();
    c.topic(&[]).await;
    let commit = |topic: &str, metadata: &str| OffsetToCommit {
        topic: topic.to_owned(),
        partition: 2,
        offset: 42,
        leader_epoch: 3,
        metadata: metadata.to_owned(),
    };
    let offsets = [commit("t", "메모"), commit("none", ""), commit("t", &"x".repeat(5000))];
    let results = c.service.commit_offsets("g", &offsets).await.unwrap();
    assert_eq!(
        results,
        [Ok(()), Err(LogError::UnknownTopicOrPartition), Err(LogError::OffsetMetadataTooLarge)]
    );
    let found = c.service.fetch_offsets("g").await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].offset, found[0].metadata.as_str()), (42, "메모"));
    assert!(c.service.fetch_offsets("gg").await.unwrap().is_empty());
    assert_eq!(c.service.groups_with_offsets().unwrap().into_iter().collect::<Vec<_>>(), ["g"]);
    c.service.delete_topic(T).await.unwrap();
    c.topic(&[]).await;
    assert!(c.service.fetch_offsets("g").await.unwrap().is_empty());
    c.service.delete_offsets("g", None).await.unwrap();
    assert!(c.service.groups_with_offsets().unwrap().is_empty());
}

/// Seed 17 of the simulator: a coordinator just started had the group's rows and not yet the topic
/// they are of, and said that nothing was committed.
#[tokio::test]
async fn a_coordinator_behind_in_m0_learns_of_topics_before_it_speaks_of_offsets() {
    let c = cluster();
    c.topic(&[]).await;
    let commit = OffsetToCommit {
        topic: "t".to_owned(),
        partition: 2,
        offset: 42,
        leader_epoch: -1,
        metadata: String::new(),
    };
    c.service.commit_offsets("g", &[commit]).await.unwrap();
    let behind = || {
        let env = env();
        let dir = Path::new("/data");
        env.disk.create_dir_all(dir).unwrap();
        let writer = SegmentWriter::start(&env, WriterOptions::default());
        let shared = LogShared::new(env.clone(), dir, writer).unwrap();
        let m0 = SoloGroup::behind(&c.m0, vec![(tags::LOG, shared.machine_m0())]);
        service(&shared, &m0, &c.data, Duration::from_secs(3600))
    };
    let (service, tasks) = behind();
    assert!(service.topic("t").is_none());
    let found = service.fetch_offsets("g").await.unwrap();
    assert_eq!(found.iter().map(|o| o.offset).collect::<Vec<_>>(), [42]);
    tasks.stop();
    let (service, tasks) = behind();
    service.delete_offsets("g", Some(&[("t".to_owned(), 2)])).await.unwrap();
    assert!(service.fetch_offsets("g").await.unwrap().is_empty());
    tasks.stop();
    c.tasks.stop();
}

#[tokio::test]
async fn only_the_commit_that_expired_is_forgotten() {
    use crate::groups::{ExpiredOffsets, GroupStore};
    let c = cluster();
    let topic = c.topic(&[]).await;
    let commit = |partition| OffsetToCommit {
        topic: "t".to_owned(),
        partition,
        offset: 1,
        leader_epoch: -1,
        metadata: String::new(),
    };
    let shard = c.service.coordinator_shard("g");
    c.service.commit_offsets("g", &[commit(0), commit(1)]).await.unwrap();
    let stored = c.service.offsets(shard).await.unwrap().remove(0);
    assert_eq!(
        (stored.group.as_str(), stored.empty_since_ms, stored.offsets.len()),
        ("g", None, 2)
    );
    assert_eq!(stored.offsets[0].topic.as_deref(), Some("t"));
    // The second was committed anew before the command arrives.
    c.data[shard].advance_ms(1000);
    c.service.commit_offsets("g", &[commit(1)]).await.unwrap();
    let offsets = stored.offsets.iter().map(|o| (o.key, o.commit_time_ms)).collect();
    let gone = ExpiredOffsets { group: "g".to_owned(), empty_since_ms: None, offsets };
    let other = ExpiredOffsets { empty_since_ms: Some(1), ..gone.clone() };
    c.service.expire(shard, 1, other).await.unwrap();
    assert_eq!(c.service.fetch_offsets("g").await.unwrap().len(), 2, "the group has changed");
    c.service.expire(shard, 1, gone).await.unwrap();
    let left = c.service.fetch_offsets("g").await.unwrap();
    assert_eq!(left.iter().map(|o| o.partition).collect::<Vec<_>>(), [1]);
    c.service.delete_topic(TopicRef::Id(topic.id)).await.unwrap();
    let dead = c.service.offsets(shard).await.unwrap();
    assert!(dead.iter().flat_map(|stored| &stored.offsets).all(|offset| offset.topic.is_none()));
}

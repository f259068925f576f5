//! Groups over the machine that keeps their rows.

use std::collections::BTreeSet;

use super::*;
use crate::groups::{
    Beat, ConsumerGroupRow, ConsumerGroupRowV1, ConsumerMemberRow, ConsumerMemberRowV1,
    ConsumerSave, GroupCommand, GroupConfig, GroupRow, GroupRowV1, GroupService, GroupStore, JOINS,
    Progress, StoredGroups,
};

fn member(epoch: i32) -> ConsumerMemberRow {
    ConsumerMemberRow::V1(ConsumerMemberRowV1 {
        epoch,
        previous_epoch: epoch - 1,
        progress: Progress::Stable,
        instance: None,
        rack: None,
        client_id: "client".into(),
        client_host: "/10.0.0.1".into(),
        rebalance_timeout_ms: 1,
        topics: vec!["t".into()],
        regex: None,
        matched: vec![],
        assignor: None,
        assigned: vec![(uuid::Uuid::from_u128(1), vec![0, 2])],
        revoking: vec![],
        target: vec![(uuid::Uuid::from_u128(1), vec![0, 1, 2])],
    })
}

fn save(group: &str, count: u32, members: &[(&str, Option<ConsumerMemberRow>)]) -> ConsumerSave {
    let row = ConsumerGroupRowV1 { epoch: 3, target_epoch: 2, topics_hash: 9, members: count };
    let members = members.iter().map(|(id, row)| ((*id).to_owned(), row.clone()));
    ConsumerSave {
        group: group.to_owned(),
        row: ConsumerGroupRow::V1(row),
        members: members.collect(),
    }
}

#[tokio::test]
async fn rows_of_groups_are_read_as_they_were_saved() {
    let c = cluster();
    let ids = |stored: &StoredGroups, group: &str| -> Vec<String> {
        stored.consumer[group].members.keys().cloned().collect()
    };
    let consumers = |saves| c.service.save(0, 1, GroupCommand::SaveConsumers(saves));
    // Names and ids of which one begins with another.
    consumers(vec![
        save("g", 2, &[("a", Some(member(1))), ("aa", Some(member(2)))]),
        save("ga", 1, &[("a", Some(member(3)))]),
        save("", 0, &[]),
    ])
    .await
    .unwrap();
    let stored = c.service.load(0).unwrap();
    assert_eq!(stored.consumer.keys().collect::<Vec<_>>(), ["", "g", "ga"]);
    assert_eq!(
        (ids(&stored, "g"), ids(&stored, "ga")),
        (vec!["a".into(), "aa".into()], vec!["a".into()])
    );
    assert_eq!(stored.consumer["ga"].members["a"], member(3));
    assert_eq!(stored.consumer["g"].row, save("g", 2, &[]).row);
    // A member that is gone, and one that goes on; the others are not touched.
    consumers(vec![save("g", 1, &[("a", None), ("aa", Some(member(4)))])]).await.unwrap();
    let stored = c.service.load(0).unwrap();
    assert_eq!(ids(&stored, "g"), ["aa"]);
    assert_eq!(stored.consumer["g"].members["aa"], member(4));
    // A group is of one kind.
    consumers(vec![save("g", 0, &[("aa", None)])]).await.unwrap();
    let classic = GroupRow::V1(GroupRowV1 { generation: 1, ..GroupRowV1::default() });
    let command = GroupCommand::Save(vec![("g".into(), Some(classic.clone()))]);
    c.service.save(0, 1, command).await.unwrap();
    let stored = c.service.load(0).unwrap();
    assert!(!stored.consumer.contains_key("g") && stored.classic["g"] == classic);
    consumers(vec![save("g", 1, &[("b", Some(member(5)))])]).await.unwrap();
    let stored = c.service.load(0).unwrap();
    assert!(stored.classic.is_empty() && ids(&stored, "g") == ["b"]);
    c.tasks.stop();
}

/// As it was for committed offsets: a coordinator just started has the group's rows and not yet
/// the topics that they are of.
#[tokio::test]
async fn a_coordinator_behind_in_m0_takes_no_partition_away() {
    let c = cluster();
    c.topic(&[]).await;
    let all = |_: &str| true;
    let join = Beat {
        group: "g".into(),
        member: "a".into(),
        epoch: JOINS,
        rebalance_timeout_ms: Some(1000),
        topics: Some(vec!["t".into()]),
        owned: Some(BTreeSet::new()),
        ..Beat::default()
    };
    let beat = Beat { group: "g".into(), member: "a".into(), epoch: 1, ..Beat::default() };
    let start = |service: &LogService, tasks: &TaskGroup| {
        GroupService::start(Arc::new(service.clone()), GroupConfig::default(), env(), tasks)
    };
    let first = start(&c.service, &c.tasks).beat(join, &all).await.unwrap();
    let given = first.assignment.unwrap().len();
    assert!(first.epoch == 1 && given > 0);

    let env = env();
    let dir = Path::new("/data");
    env.disk.create_dir_all(dir).unwrap();
    let writer = SegmentWriter::start(&env, WriterOptions::default());
    let shared = LogShared::new(env.clone(), dir, writer).unwrap();
    let m0 = SoloGroup::behind(&c.m0, vec![(tags::LOG, shared.machine_m0())]);
    let (behind, tasks) = service(&shared, &m0, &c.data, Duration::from_secs(3600));
    assert!(behind.topic("t").is_none());
    let next = start(&behind, &tasks).beat(beat, &all).await.unwrap();
    assert_eq!((next.epoch, next.assignment), (1, None), "nothing has changed");
    tasks.stop();
    c.tasks.stop();
}

//! Every row of the version table, in every version, asked of a running port: of a topic and a
//! group that are there, and of ones that are not. A handler that leaves out what a version must
//! have closes the connection.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod solo;

use base::TaskGroup;
use bytes::Bytes;
use kafka::codec::messages::*;
use kafka::codec::{Records, RequestBody, ResponseBody, TABLE};
use log::batch::build;
use log::records::RecordRef;
use solo::client::{Client, DEADLINE};
use uuid::Uuid;

/// What is asked about.
#[derive(Clone)]
struct Names {
    topic: String,
    id: Uuid,
    group: String,
}

impl Names {
    fn topics<T>(&self, one: impl Fn(String) -> T) -> Vec<T> {
        vec![one(self.topic.clone())]
    }

    fn group(&self) -> String {
        self.group.clone()
    }
}

const TXN: &str = "rows";

/// Of partition 0 of the topic, of records.
fn records(names: &Names, version: i16) -> Vec<RequestBody> {
    let batch = build(&[RecordRef::value(b"x", 1000)]);
    let part = PartitionProduceData { index: 0, records: Records(vec![batch]) };
    let one = |name| TopicProduceData { name, partition_data: vec![part.clone()] };
    let topic_data = names.topics(one);
    let produce = ProduceRequest { acks: -1, timeout_ms: 5000, topic_data, ..Default::default() };
    let part = FetchPartition { partition_max_bytes: 1000, ..Default::default() };
    let (topic, topic_id) =
        if version < 13 { (names.topic.clone(), Uuid::nil()) } else { (String::new(), names.id) };
    let topics = vec![FetchTopic { topic, topic_id, partitions: vec![part] }];
    let fetch = FetchRequest { max_bytes: 1000, topics, ..Default::default() };
    let part = ListOffsetsPartition { timestamp: -1, ..Default::default() };
    let topics = names.topics(|name| ListOffsetsTopic { name, partitions: vec![part.clone()] });
    let listed = ListOffsetsRequest { replica_id: -1, topics, ..Default::default() };
    let part = OffsetForLeaderPartition { leader_epoch: 1, ..Default::default() };
    let topics =
        names.topics(|topic| OffsetForLeaderTopic { topic, partitions: vec![part.clone()] });
    let epochs = OffsetForLeaderEpochRequest { replica_id: -1, topics };
    let part = DeleteRecordsPartition { partition_index: 0, offset: 0 };
    let topics = names.topics(|name| DeleteRecordsTopic { name, partitions: vec![part.clone()] });
    let deleted = DeleteRecordsRequest { topics, timeout_ms: 5000 };
    vec![produce.into(), fetch.into(), listed.into(), epochs.into(), deleted.into()]
}

/// Of the cluster and its topics. Nothing is changed for good.
fn cluster(names: &Names, version: i16) -> Vec<RequestBody> {
    let topic = MetadataRequestTopic { name: Some(names.topic.clone()), ..Default::default() };
    let metadata = MetadataRequest { topics: Some(vec![topic]), ..Default::default() };
    let (key, keys) =
        if version < 4 { (names.group(), vec![]) } else { (String::new(), vec![names.group()]) };
    let found = FindCoordinatorRequest { key, key_type: 0, coordinator_keys: keys };
    let new = CreatableTopic {
        name: format!("{}-new", names.topic),
        num_partitions: 1,
        replication_factor: 1,
        ..Default::default()
    };
    let created = CreateTopicsRequest { topics: vec![new], timeout_ms: 5000, validate_only: true };
    let gone = || "no-such-topic".to_owned();
    let deleted = if version < 6 {
        DeleteTopicsRequest { topic_names: vec![gone()], timeout_ms: 5000, ..Default::default() }
    } else {
        let by_id = DeleteTopicState { name: None, topic_id: Uuid::from_u128(7) };
        let topics = vec![by_id, DeleteTopicState { name: Some(gone()), topic_id: Uuid::nil() }];
        DeleteTopicsRequest { topics, timeout_ms: 5000, ..Default::default() }
    };
    let more = names.topics(|name| CreatePartitionsTopic { name, count: 9, ..Default::default() });
    let grown = CreatePartitionsRequest { topics: more, timeout_ms: 5000, validate_only: true };
    let of = |kind, name: &str| DescribeConfigsResource {
        resource_type: kind,
        resource_name: name.into(),
        configuration_keys: None,
    };
    let resources = vec![of(2, &names.topic), of(4, "1"), of(8, "1"), of(32, &names.group)];
    let described =
        DescribeConfigsRequest { resources, include_synonyms: true, include_documentation: true };
    let value = || Some("1000".to_owned());
    let config = AlterableConfig { name: "retention.ms".into(), value: value() };
    let resource = AlterConfigsResource {
        resource_type: 2,
        resource_name: names.topic.clone(),
        configs: vec![config],
    };
    let altered = AlterConfigsRequest { resources: vec![resource], validate_only: true };
    let config = IncrementalAlterableConfig {
        name: "retention.ms".into(),
        config_operation: 0,
        value: value(),
    };
    let resource = IncrementalAlterConfigsResource {
        resource_type: 2,
        resource_name: names.topic.clone(),
        configs: vec![config],
    };
    let changed = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: true };
    let topics = names.topics(|topic| DescribableLogDirTopic { topic, partitions: vec![0] });
    let dirs = DescribeLogDirsRequest { topics: Some(topics) };
    let led = names.topics(|topic| ElectLeadersTopic { topic, partitions: vec![0] });
    let elected = ElectLeadersRequest { topic_partitions: Some(led), ..Default::default() };
    vec![
        metadata.into(),
        found.into(),
        created.into(),
        deleted.into(),
        grown.into(),
        described.into(),
        altered.into(),
        changed.into(),
        dirs.into(),
        elected.into(),
    ]
}

/// Of groups, as one who is no member.
fn groups(names: &Names, version: i16) -> Vec<RequestBody> {
    let member = || "stranger".to_owned();
    let protocols =
        vec![JoinGroupRequestProtocol { name: "range".into(), metadata: Bytes::from_static(b"x") }];
    let join = JoinGroupRequest {
        group_id: names.group(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        member_id: member(),
        protocol_type: "consumer".into(),
        protocols,
        ..Default::default()
    };
    let (group_id, member_id, generation_id) = (names.group(), member(), 1);
    let sync = SyncGroupRequest { group_id, member_id, generation_id, ..Default::default() };
    let (group_id, member_id) = (names.group(), member());
    let beat = HeartbeatRequest { group_id, member_id, generation_id, ..Default::default() };
    let leaving = MemberIdentity { member_id: member(), ..Default::default() };
    let members = if version < 3 { vec![] } else { vec![leaving] };
    let leave = LeaveGroupRequest { group_id: names.group(), member_id: member(), members };
    let described = DescribeGroupsRequest {
        groups: vec![names.group()],
        include_authorized_operations: version >= 3,
    };
    let part = OffsetCommitRequestPartition {
        committed_offset: 5,
        committed_metadata: Some("메모".into()),
        ..Default::default()
    };
    let topics =
        names.topics(|name| OffsetCommitRequestTopic { name, partitions: vec![part.clone()] });
    let commit = OffsetCommitRequest {
        group_id: names.group(),
        generation_id_or_member_epoch: -1,
        topics,
        ..Default::default()
    };
    let mut fetch = OffsetFetchRequest::default();
    if version < 8 {
        fetch.group_id = names.group();
        let one = |name| OffsetFetchRequestTopic { name, partition_indexes: vec![0, 1] };
        fetch.topics = Some(names.topics(one));
    } else {
        let one = |name| OffsetFetchRequestTopics { name, partition_indexes: vec![0, 1] };
        let topics = Some(names.topics(one));
        let group = OffsetFetchRequestGroup {
            group_id: names.group(),
            member_epoch: -1,
            topics,
            ..Default::default()
        };
        let other = OffsetFetchRequestGroup { group_id: "other".into(), ..group.clone() };
        fetch.groups = vec![group, other];
    }
    let deleted = DeleteGroupsRequest { groups_names: vec!["no-such-group".into()] };
    vec![
        join.into(),
        sync.into(),
        beat.into(),
        leave.into(),
        described.into(),
        commit.into(),
        fetch.into(),
        deleted.into(),
        ListGroupsRequest::default().into(),
    ]
}

/// Of transactions, as a producer that the coordinator does not know.
fn transactions(names: &Names, version: i16) -> Vec<RequestBody> {
    let id = || TXN.to_owned();
    let topics = names.topics(|name| AddPartitionsToTxnTopic { name, partitions: vec![0] });
    let mut add = AddPartitionsToTxnRequest::default();
    if version < 4 {
        (add.v3_and_below_transactional_id, add.v3_and_below_topics) = (id(), topics);
    } else {
        let one = AddPartitionsToTxnTransaction {
            transactional_id: id(),
            verify_only: true,
            topics,
            ..Default::default()
        };
        add.transactions = vec![one];
    }
    let (transactional_id, group_id) = (id(), names.group());
    let offsets = AddOffsetsToTxnRequest { transactional_id, group_id, ..Default::default() };
    let end = EndTxnRequest { transactional_id: id(), ..Default::default() };
    let part = TxnOffsetCommitRequestPartition { committed_offset: 1, ..Default::default() };
    let topics =
        names.topics(|name| TxnOffsetCommitRequestTopic { name, partitions: vec![part.clone()] });
    let commit = TxnOffsetCommitRequest {
        transactional_id: id(),
        group_id: names.group(),
        topics,
        ..Default::default()
    };
    let topics =
        names.topics(|name| DescribeProducersTopicRequest { name, partition_indexes: vec![0] });
    let topics_of =
        names.topics(|name| WritableTxnMarkerTopic { name, partition_indexes: vec![0] });
    let marker = WritableTxnMarker { producer_id: 9, topics: topics_of, ..Default::default() };
    vec![
        InitProducerIdRequest { transaction_timeout_ms: 1000, ..Default::default() }.into(),
        add.into(),
        offsets.into(),
        end.into(),
        commit.into(),
        DescribeProducersRequest { topics }.into(),
        DescribeTransactionsRequest { transactional_ids: vec![id()] }.into(),
        ListTransactionsRequest::default().into(),
        WriteTxnMarkersRequest { markers: vec![marker] }.into(),
    ]
}

#[tokio::test]
async fn every_row_is_answered_in_every_version() {
    let tasks = TaskGroup::new();
    let mut client = Client::start(&tasks).await;
    client.topic("t").await;
    let topic = MetadataRequestTopic { name: Some("t".into()), ..Default::default() };
    let request = MetadataRequest { topics: Some(vec![topic]), ..Default::default() };
    let ResponseBody::Metadata(answer) = client.ask(12, request).await else { panic!() };
    let known = Names { topic: "t".into(), id: answer.topics[0].topic_id, group: "g".into() };
    let unknown = Names { topic: "nowhere".into(), id: Uuid::from_u128(9), group: "nobody".into() };
    let mut asked = 0;
    for names in [known, unknown] {
        for api in TABLE {
            for version in api.min..=api.max {
                let all = [records, cluster, groups, transactions].map(|of| of(&names, version));
                for request in all.into_iter().flatten().filter(|r| r.key() == api.key) {
                    let answer = client.ask(version, request).await;
                    assert_eq!(answer.key(), api.key, "v{version}");
                    let mut unexpected = false;
                    answer.errors(&mut |code| unexpected |= code == -1);
                    assert!(!unexpected, "{:?} v{version}: {answer:?}", api.key);
                    asked += 1;
                }
            }
        }
    }
    assert!(asked > 300, "{asked}");
    tasks.shutdown(DEADLINE).await;
}

/// Ends of epochs, and what a fetch is told that has read in an epoch which ended earlier.
#[tokio::test]
async fn epochs_are_told() {
    let tasks = TaskGroup::new();
    let (address, groups) = solo::start_over("127.0.0.1:0".parse().unwrap(), &tasks).await;
    let mut client = Client::connect(address).await;
    client.topic("t").await;
    let leader_of = async |client: &mut Client| {
        let topic = MetadataRequestTopic { name: Some("t".into()), ..Default::default() };
        let request = MetadataRequest { topics: Some(vec![topic]), ..Default::default() };
        let ResponseBody::Metadata(answer) = client.ask(12, request).await else { panic!() };
        answer.topics[0].partitions.iter().find(|p| p.partition_index == 0).unwrap().leader_epoch
    };
    let send = async |client: &mut Client| {
        let batch = build(&[RecordRef::value(b"x", 1000)]);
        let part = PartitionProduceData { index: 0, records: Records(vec![batch]) };
        let topic = TopicProduceData { name: "t".into(), partition_data: vec![part] };
        let (acks, timeout_ms, topic_data) = (-1, 5000, vec![topic]);
        let request = ProduceRequest { acks, timeout_ms, topic_data, ..Default::default() };
        let ResponseBody::Produce(answer) = client.ask(9, request).await else { panic!() };
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
    };
    let first = leader_of(&mut client).await;
    send(&mut client).await;
    send(&mut client).await;
    for group in &groups {
        group.begin_term(None);
        group.begin_term(Some(base::NodeId(1)));
    }
    let second = leader_of(&mut client).await;
    assert_eq!(second, first + 2);
    send(&mut client).await;
    let ask = async |client: &mut Client, current, epoch| {
        let part = OffsetForLeaderPartition {
            partition: 0,
            current_leader_epoch: current,
            leader_epoch: epoch,
        };
        let topics = vec![OffsetForLeaderTopic { topic: "t".into(), partitions: vec![part] }];
        let request = OffsetForLeaderEpochRequest { replica_id: -1, topics };
        let ResponseBody::OffsetForLeaderEpoch(mut answer) = client.ask(4, request).await else {
            panic!()
        };
        let part = answer.topics.remove(0).partitions.remove(0);
        (part.error_code, part.leader_epoch, part.end_offset)
    };
    assert_eq!(ask(&mut client, -1, first).await, (0, first, 2));
    assert_eq!(ask(&mut client, second, first + 1).await, (0, first, 2), "one without records");
    assert_eq!(ask(&mut client, -1, second).await, (0, second, 3));
    assert_eq!(ask(&mut client, -1, second + 9).await, (0, -1, -1), "one that never was");
    assert_eq!(ask(&mut client, first, first).await.0, 74, "FENCED_LEADER_EPOCH");
    assert_eq!(ask(&mut client, second + 9, first).await.0, 75, "UNKNOWN_LEADER_EPOCH");
    let part = FetchPartition {
        fetch_offset: 3,
        current_leader_epoch: second,
        last_fetched_epoch: first,
        partition_max_bytes: 1000,
        ..Default::default()
    };
    let topic = FetchTopic { topic: "t".into(), partitions: vec![part], ..Default::default() };
    let request = FetchRequest { max_bytes: 1000, topics: vec![topic], ..Default::default() };
    let ResponseBody::Fetch(mut answer) = client.ask(12, request).await else { panic!() };
    let part = answer.responses.remove(0).partitions.remove(0);
    let diverging = (part.diverging_epoch.epoch, part.diverging_epoch.end_offset);
    assert_eq!((part.error_code, diverging), (0, (first, 2)));
    assert!(part.records.0.concat().is_empty());
    tasks.shutdown(DEADLINE).await;
}

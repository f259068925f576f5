//! Behaviour on which clients rely and that other brokers got wrong.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod solo;

use base::TaskGroup;
use bytes::{Bytes, BytesMut};
use kafka::codec::messages::*;
use kafka::codec::{Records, ResponseBody};
use log::batch::{BatchHeader, HEADER_BYTES, build, with_producer};
use log::records::{RecordRef, records};
use solo::client::{Client, DEADLINE};

fn batch(count: usize, bytes: usize) -> Bytes {
    let value = vec![b'x'; bytes];
    let records: Vec<_> = (0..count).map(|_| RecordRef::value(&value, 1000)).collect();
    build(&records)
}

fn produce(records: Bytes) -> ProduceRequest {
    let part = PartitionProduceData { index: 0, records: Records(vec![records]) };
    let topic = TopicProduceData { name: "t".into(), partition_data: vec![part] };
    ProduceRequest { acks: -1, timeout_ms: 5000, topic_data: vec![topic], ..Default::default() }
}

fn fetch(offset: i64, part_bytes: i32, all_bytes: i32) -> FetchRequest {
    let part = FetchPartition {
        fetch_offset: offset,
        partition_max_bytes: part_bytes,
        ..Default::default()
    };
    let topic = FetchTopic { topic: "t".into(), partitions: vec![part], ..Default::default() };
    FetchRequest { min_bytes: 1, max_bytes: all_bytes, topics: vec![topic], ..Default::default() }
}

async fn send(client: &mut Client, records: Bytes) -> (i16, i64, Option<String>) {
    let ResponseBody::Produce(mut answer) = client.ask(9, produce(records)).await else { panic!() };
    let part = answer.responses.remove(0).partition_responses.remove(0);
    (part.error_code, part.base_offset, part.error_message)
}

async fn get(client: &mut Client, request: FetchRequest) -> Bytes {
    let ResponseBody::Fetch(mut answer) = client.ask(12, request).await else { panic!() };
    let part = answer.responses.remove(0).partitions.remove(0);
    assert_eq!(part.error_code, 0);
    part.records.0.concat().into()
}

async fn started(tasks: &TaskGroup) -> Client {
    let mut client = Client::start(tasks).await;
    client.topic("t").await;
    client
}

#[tokio::test]
async fn an_offset_inside_a_batch_brings_the_whole_batch() {
    let tasks = TaskGroup::new();
    let mut client = started(&tasks).await;
    assert_eq!(send(&mut client, batch(10, 10)).await.1, 0);
    assert_eq!(send(&mut client, batch(10, 10)).await.1, 10);
    let bytes = get(&mut client, fetch(14, 1 << 20, 1 << 20)).await;
    let header = BatchHeader::parse(&bytes).unwrap();
    assert_eq!((header.base_offset, header.len), (10, bytes.len()));
    assert_eq!(records(&bytes).unwrap().last().unwrap().offset, 19);
    tasks.shutdown(DEADLINE).await;
}

#[tokio::test]
async fn the_first_batch_comes_whatever_the_limits_say_and_never_half_a_batch() {
    let tasks = TaskGroup::new();
    let mut client = started(&tasks).await;
    send(&mut client, batch(10, 1000)).await;
    send(&mut client, batch(10, 1000)).await;
    for (part, all) in [(1, 1 << 20), (1 << 20, 1), (1, 1), (15_000, 1 << 20), (1 << 20, 15_000)] {
        let bytes = get(&mut client, fetch(0, part, all)).await;
        let header = BatchHeader::parse(&bytes).unwrap();
        assert_eq!((header.base_offset, header.len), (0, bytes.len()), "{part} {all}");
    }
    tasks.shutdown(DEADLINE).await;
}

#[tokio::test]
async fn an_empty_set_of_records_has_length_zero_and_is_not_null() {
    let tasks = TaskGroup::new();
    let mut client = started(&tasks).await;
    for version in 4..=11 {
        client.send(version, fetch(0, 1 << 20, 1 << 20)).await;
        // The records of the only partition are what the frame of these versions ends with.
        assert!(client.frame().await.unwrap().ends_with(&[0, 0, 0, 0]), "version {version}");
    }
    client.send(12, fetch(0, 1 << 20, 1 << 20)).await;
    // A compact length of 1, and empty lists of tags of partition, topic and message.
    assert!(client.frame().await.unwrap().ends_with(&[1, 0, 0, 0]));
    tasks.shutdown(DEADLINE).await;
}

/// The batch with its records compressed by zstd and, in the header, another number of them.
fn claiming(count: i32, compressed: bool) -> Bytes {
    let plain = batch(10, 100);
    let mut out = BytesMut::from(&plain[..HEADER_BYTES]);
    let body = &plain[HEADER_BYTES..];
    if compressed {
        out.extend_from_slice(&zstd::encode_all(body, 1).unwrap());
        out[22] = 4;
    } else {
        out.extend_from_slice(body);
    }
    let len = i32::try_from(out.len() - 12).unwrap();
    out[8..12].copy_from_slice(&len.to_be_bytes());
    out[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    out[57..61].copy_from_slice(&count.to_be_bytes());
    with_producer(&out, -1, -1, -1)
}

#[tokio::test]
async fn a_batch_that_lies_about_its_records_is_an_invalid_record() {
    let tasks = TaskGroup::new();
    let mut client = started(&tasks).await;
    for compressed in [false, true] {
        let (code, _, text) = send(&mut client, claiming(9, compressed)).await;
        let more = "invalid record: the batch has more records than it says";
        assert_eq!((code, text.as_deref()), (87, Some(more)));
        let (code, ..) = send(&mut client, claiming(11, compressed)).await;
        assert_eq!(code, 87);
        let (code, offset, _) = send(&mut client, claiming(10, compressed)).await;
        assert_eq!((code, offset), (0, 10 * i64::from(compressed)), "nothing was appended before");
    }
    tasks.shutdown(DEADLINE).await;
}

#[tokio::test]
async fn a_newest_timestamp_that_lies_is_put_right() {
    let tasks = TaskGroup::new();
    let mut client = started(&tasks).await;
    let mut bytes = BytesMut::from(&batch(3, 10)[..]);
    bytes[35..43].copy_from_slice(&77i64.to_be_bytes());
    assert_eq!(send(&mut client, with_producer(&bytes, -1, -1, -1)).await.0, 0);
    let bytes = get(&mut client, fetch(0, 1 << 20, 1 << 20)).await;
    let header = BatchHeader::parse(&bytes).unwrap();
    assert_eq!(header.max_timestamp_ms, 1000);
    assert_eq!(base::crc::crc32c(&bytes[21..]), header.crc);
    tasks.shutdown(DEADLINE).await;
}

#[tokio::test]
async fn topics_are_made_or_refused_one_by_one() {
    let tasks = TaskGroup::new();
    let mut client = started(&tasks).await;
    let topic = |name: &str| CreatableTopic {
        name: name.to_owned(),
        num_partitions: 1,
        replication_factor: 1,
        ..Default::default()
    };
    let topics = vec![topic("new"), topic("t"), topic("a b"), topic("twice"), topic("twice")];
    let request = CreateTopicsRequest { topics, ..Default::default() };
    let ResponseBody::CreateTopics(answer) = client.ask(7, request).await else { panic!() };
    let codes: Vec<_> = answer.topics.iter().map(|t| (t.name.as_str(), t.error_code)).collect();
    assert_eq!(codes, [("new", 0), ("t", 36), ("a b", 17), ("twice", 42)]);
    let grow = |name: &str, count| CreatePartitionsTopic {
        name: name.to_owned(),
        count,
        ..Default::default()
    };
    let topics = vec![grow("new", 2), grow("t", 1), grow("none", 2)];
    let request = CreatePartitionsRequest { topics, ..Default::default() };
    let ResponseBody::CreatePartitions(answer) = client.ask(3, request).await else { panic!() };
    let codes: Vec<_> = answer.results.iter().map(|t| (t.name.as_str(), t.error_code)).collect();
    assert_eq!(codes, [("new", 0), ("t", 37), ("none", 3)]);
    tasks.shutdown(DEADLINE).await;
}

#[tokio::test]
async fn topics_are_asked_for_by_id_from_version_12_on() {
    let tasks = TaskGroup::new();
    let mut client = started(&tasks).await;
    let ask = |topic_id| {
        let topics = Some(vec![MetadataRequestTopic { topic_id, name: None }]);
        MetadataRequest { topics, ..Default::default() }
    };
    let ResponseBody::Metadata(all) =
        client.ask(12, MetadataRequest { topics: None, ..Default::default() }).await
    else {
        panic!()
    };
    let id = all.topics[0].topic_id;
    let ResponseBody::Metadata(found) = client.ask(12, ask(id)).await else { panic!() };
    assert_eq!((found.topics[0].error_code, found.topics[0].name.as_deref()), (0, Some("t")));
    let unknown = uuid::Uuid::from_u128(7);
    let ResponseBody::Metadata(none) = client.ask(12, ask(unknown)).await else { panic!() };
    assert_eq!((none.topics[0].error_code, none.topics[0].name.as_deref()), (100, None));
    let ResponseBody::Metadata(early) = client.ask(11, ask(id)).await else { panic!() };
    assert_eq!(early.topics[0].error_code, 42);
    tasks.shutdown(DEADLINE).await;
}

#[tokio::test]
async fn an_empty_list_of_topics_means_all_only_in_version_0() {
    let tasks = TaskGroup::new();
    let mut client = started(&tasks).await;
    let none = || MetadataRequest { topics: Some(Vec::new()), ..Default::default() };
    let ResponseBody::Metadata(all) = client.ask(0, none()).await else { panic!() };
    assert_eq!(all.topics.len(), 1);
    for version in 1..=13 {
        let ResponseBody::Metadata(answer) = client.ask(version, none()).await else { panic!() };
        assert!(answer.topics.is_empty(), "version {version}");
    }
    // Null in version 0, where Kafka's definition has none, is no request.
    use tokio::io::AsyncWriteExt;
    let null = [0, 0, 0, 14, 0, 3, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    client.stream.write_all(&null).await.unwrap();
    client.closed().await;
    tasks.shutdown(DEADLINE).await;
}

#[tokio::test]
async fn only_brokers_are_described() {
    let tasks = TaskGroup::new();
    let mut client = started(&tasks).await;
    for (endpoint_type, code) in [(1, 0), (2, 114), (0, 42), (3, 115)] {
        let request = DescribeClusterRequest { endpoint_type, ..Default::default() };
        let ResponseBody::DescribeCluster(answer) = client.ask(2, request).await else { panic!() };
        assert_eq!(answer.error_code, code, "endpoint type {endpoint_type}");
        assert_eq!(answer.brokers.len(), usize::from(code == 0));
    }
    tasks.shutdown(DEADLINE).await;
}

#[tokio::test]
async fn settings_of_a_node_cannot_be_changed() {
    let tasks = TaskGroup::new();
    let mut client = started(&tasks).await;
    let config = |value: Option<&str>| IncrementalAlterableConfig {
        name: "log.dirs".into(),
        config_operation: 0,
        value: value.map(str::to_owned),
    };
    for (kind, configs, text) in [
        (4, vec![config(Some("x"))], "Cannot update these configs dynamically: Set(log.dirs)"),
        (4, vec![config(None)], "Null value not supported for : log.dirs"),
        (2, vec![config(Some("1")), config(Some("2"))], "Error due to duplicate config keys"),
        (99, vec![config(Some("x"))], "Unknown resource type 99"),
    ] {
        let name = if kind == 2 { "t" } else { "1" };
        let resources = vec![IncrementalAlterConfigsResource {
            resource_type: kind,
            resource_name: name.into(),
            configs,
        }];
        let request = IncrementalAlterConfigsRequest { resources, ..Default::default() };
        let body = client.ask(1, request).await;
        let ResponseBody::IncrementalAlterConfigs(answer) = body else { panic!() };
        let answer = &answer.responses[0];
        assert_eq!((answer.error_code, answer.error_message.as_deref()), (42, Some(text)));
    }
    tasks.shutdown(DEADLINE).await;
}

#[tokio::test]
async fn the_quorum_is_one_partition_of_one_topic() {
    let tasks = TaskGroup::new();
    let mut client = started(&tasks).await;
    let topic = |name: &str, partitions: &[i32]| DescribeQuorumTopic {
        topic_name: name.into(),
        partitions: partitions
            .iter()
            .map(|&partition_index| DescribeQuorumPartition { partition_index })
            .collect(),
    };
    let metadata = "__cluster_metadata";
    for (topics, codes) in [
        (vec![topic(metadata, &[0])], vec![0]),
        (vec![topic(metadata, &[1])], vec![3]),
        (vec![topic(metadata, &[0, 1])], vec![3, 3]),
        (vec![topic("t", &[0])], vec![3]),
    ] {
        let ResponseBody::DescribeQuorum(answer) =
            client.ask(2, DescribeQuorumRequest { topics }).await
        else {
            panic!()
        };
        let found = answer.topics.iter().flat_map(|t| &t.partitions).map(|p| p.error_code);
        assert_eq!(found.collect::<Vec<_>>(), codes);
    }
    tasks.shutdown(DEADLINE).await;
}

//! The port as a client sees it: bytes over a socket.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod solo;

use std::time::Duration;

use base::TaskGroup;
use kafka::codec::messages::*;
use kafka::codec::{ApiKey, Records, ResponseBody};
use log::batch::build;
use log::records::RecordRef;
use solo::client::{Client, DEADLINE};
use tokio::io::AsyncWriteExt;

fn produce(values: &[&str], acks: i16) -> ProduceRequest {
    let records: Vec<_> = values.iter().map(|v| RecordRef::value(v.as_bytes(), 1000)).collect();
    let records = Records(vec![build(&records)]);
    let part = PartitionProduceData { index: 0, records };
    let topic = TopicProduceData { name: "t".into(), partition_data: vec![part] };
    ProduceRequest { acks, timeout_ms: 5000, topic_data: vec![topic], ..Default::default() }
}

fn fetch(offset: i64, max_wait_ms: i32) -> FetchRequest {
    let part =
        FetchPartition { fetch_offset: offset, partition_max_bytes: 1 << 20, ..Default::default() };
    let topic = FetchTopic { topic: "t".into(), partitions: vec![part], ..Default::default() };
    FetchRequest { max_wait_ms, min_bytes: 1, topics: vec![topic], ..Default::default() }
}

fn produced(body: ResponseBody) -> (i16, i64) {
    let ResponseBody::Produce(answer) = body else { panic!("{body:?}") };
    let part = &answer.responses[0].partition_responses[0];
    (part.error_code, part.base_offset)
}

fn fetched(body: ResponseBody) -> PartitionData {
    let ResponseBody::Fetch(mut answer) = body else { panic!("{body:?}") };
    answer.responses.remove(0).partitions.remove(0)
}

#[tokio::test]
async fn records_come_back_in_every_version() {
    let tasks = TaskGroup::new();
    let mut client = Client::start(&tasks).await;
    client.topic("t").await;
    for version in 3..=12 {
        let offset = i64::from(version - 3);
        assert_eq!(produced(client.ask(version, produce(&["x"], -1)).await), (0, offset));
    }
    for version in 4..=12 {
        let data = fetched(client.ask(version, fetch(0, 0)).await);
        assert_eq!((data.error_code, data.high_watermark), (0, 10));
        assert!(!data.records.0.concat().is_empty());
    }
    let beyond = fetched(client.ask(12, fetch(11, 0)).await);
    assert_eq!(beyond.error_code, 1, "OFFSET_OUT_OF_RANGE");
    tasks.shutdown(DEADLINE).await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let tasks = TaskGroup::new();
    let mut client = Client::start(&tasks).await;
    client.topic("t").await;
    for _ in 0..100 {
        client.send(9, produce(&["x", "y"], -1)).await;
    }
    let last = client.send(12, fetch(0, 0)).await;
    for n in 0..100 {
        let (id, body) = client.receive(ApiKey::Produce, 9).await;
        assert_eq!((id, produced(body)), (n + 2, (0, i64::from(n) * 2)));
    }
    let (_, body) = client.receive(last, 12).await;
    assert_eq!(fetched(body).high_watermark, 200, "a fetch sees what was produced before it");
    tasks.shutdown(DEADLINE).await;
}

#[tokio::test]
async fn a_fetch_waits_for_records() {
    let tasks = TaskGroup::new();
    let address = solo::start("127.0.0.1:0".parse().unwrap(), &tasks).await;
    let (mut reader, mut writer) = (Client::connect(address).await, Client::connect(address).await);
    writer.topic("t").await;
    let key = reader.send(12, fetch(0, 15_000)).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(produced(writer.ask(9, produce(&["x"], 1)).await), (0, 0));
    let (_, body) = reader.receive(key, 12).await;
    assert!(!fetched(body).records.0.is_empty());
    let empty = fetched(reader.ask(12, fetch(1, 30)).await);
    assert!(empty.records.0.concat().is_empty());
    tasks.shutdown(DEADLINE).await;
}

#[tokio::test]
async fn a_produce_without_acknowledgement_has_no_answer() {
    let tasks = TaskGroup::new();
    let mut client = Client::start(&tasks).await;
    client.topic("t").await;
    client.send(9, produce(&["x"], 0)).await;
    let data = fetched(client.ask(12, fetch(0, 5000)).await);
    assert_eq!(data.high_watermark, 1);
    let mut bad = produce(&["x"], 0);
    bad.topic_data[0].name = "nowhere".into();
    client.send(9, bad).await;
    client.closed().await;
    tasks.shutdown(DEADLINE).await;
}

#[tokio::test]
async fn refusals_have_kafkas_codes() {
    let tasks = TaskGroup::new();
    let mut client = Client::start(&tasks).await;
    client.topic("t").await;
    assert_eq!(produced(client.ask(9, produce(&["x"], 7)).await).0, 21);
    let mut unknown = produce(&["x"], 1);
    unknown.topic_data[0].name = "nowhere".into();
    assert_eq!(produced(client.ask(9, unknown).await).0, 3);
    let mut damaged = produce(&["x"], 1);
    let mut bytes = damaged.topic_data[0].partition_data[0].records.0[0].to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    damaged.topic_data[0].partition_data[0].records = Records(vec![bytes.clone().into()]);
    assert_eq!(produced(client.ask(9, damaged.clone()).await).0, 2, "CORRUPT_MESSAGE");
    bytes[16] = 1;
    damaged.topic_data[0].partition_data[0].records = Records(vec![bytes.into()]);
    assert_eq!(produced(client.ask(9, damaged).await).0, 87, "old formats are refused");
    let name = MetadataRequestTopic { name: Some("a/b".into()), ..Default::default() };
    let request = MetadataRequest { topics: Some(vec![name]), ..Default::default() };
    let ResponseBody::Metadata(answer) = client.ask(12, request).await else { panic!() };
    assert_eq!(answer.topics[0].error_code, 17);
    tasks.shutdown(DEADLINE).await;
}

#[tokio::test]
async fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    let tasks = TaskGroup::new();
    let mut client = Client::start(&tasks).await;
    let request = [0, 0, 0, 10, 0, 18, 0, 99, 0, 0, 0, 7, 0xff, 0xff];
    client.stream.write_all(&request).await.unwrap();
    let (id, body) = client.receive(ApiKey::ApiVersions, 0).await;
    let ResponseBody::ApiVersions(answer) = body else { panic!() };
    assert_eq!((id, answer.error_code, answer.api_keys.len()), (7, 35, 1));
    let asked = ApiVersionsRequest {
        client_software_name: "test".into(),
        client_software_version: "1.0".into(),
    };
    let ResponseBody::ApiVersions(answer) = client.ask(3, asked).await else { panic!() };
    let range = |key| {
        let row = answer.api_keys.iter().find(|row| row.api_key == key).unwrap();
        (row.min_version, row.max_version)
    };
    assert_eq!((range(0), range(11), range(1)), ((0, 12), (0, 9), (4, 17)));
    tasks.shutdown(DEADLINE).await;
}

#[tokio::test]
async fn garbage_closes_the_connection_and_nothing_else() {
    let tasks = TaskGroup::new();
    let address = solo::start("127.0.0.1:0".parse().unwrap(), &tasks).await;
    let cases: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &[0xff, 0xff, 0xff, 0xff, 0, 0],
        &[0x7f, 0xff, 0xff, 0xff, 0, 0],
        &[0, 0, 0, 3, 0, 0, 0],
        // An unknown API, and a Metadata request that lies about its length.
        &[0, 0, 0, 10, 0, 99, 0, 0, 0, 0, 0, 1, 0xff, 0xff],
        &[0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff],
    ];
    for bytes in cases {
        let mut client = Client::connect(address).await;
        client.stream.write_all(bytes).await.unwrap();
        client.closed().await;
    }
    let mut client = Client::connect(address).await;
    client.topic("t").await;
    tasks.shutdown(DEADLINE).await;
}

//! Fetch sessions and long polls as a client sees them.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]
#![allow(dead_code, reason = "not every test uses all of the client")]

mod solo;

use std::time::Duration;

use base::{NodeId, TaskGroup};
use kafka::codec::messages::*;
use kafka::codec::{ApiKey, Records, ResponseBody};
use log::batch::build;
use log::records::RecordRef;
use solo::client::{Client, DEADLINE};
use uuid::Uuid;

const NAMES: i16 = 12;
const IDS: i16 = 17;

fn part(partition: i32, fetch_offset: i64) -> FetchPartition {
    let partition_max_bytes = 1 << 20;
    FetchPartition { partition, fetch_offset, partition_max_bytes, ..Default::default() }
}

/// A request of a session for topic `t`; the id is used from version 13 on.
fn request(session: (i32, i32), topic_id: Uuid, partitions: Vec<FetchPartition>) -> FetchRequest {
    let topic = FetchTopic { topic: "t".into(), topic_id, partitions };
    let topics = if topic.partitions.is_empty() { vec![] } else { vec![topic] };
    let (session_id, session_epoch) = session;
    FetchRequest { session_id, session_epoch, topics, min_bytes: 1, ..Default::default() }
}

fn by_name(session: (i32, i32), partitions: Vec<FetchPartition>) -> FetchRequest {
    request(session, Uuid::nil(), partitions)
}

async fn fetch(client: &mut Client, version: i16, request: FetchRequest) -> FetchResponse {
    answer(client.ask(version, request).await)
}

fn answer(body: ResponseBody) -> FetchResponse {
    let ResponseBody::Fetch(answer) = body else { panic!("{body:?}") };
    answer
}

async fn put(client: &mut Client, partition: i32, value: &[u8]) {
    let records = Records(vec![build(&[RecordRef::value(value, 1000)])]);
    let partition_data = vec![PartitionProduceData { index: partition, records }];
    let topic_data = vec![TopicProduceData { name: "t".into(), partition_data }];
    let request = ProduceRequest { acks: -1, timeout_ms: 5000, topic_data, ..Default::default() };
    let ResponseBody::Produce(answer) = client.ask(9, request).await else { panic!() };
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
}

/// Partition, error, watermark and whether there are records, of every partition named.
fn told(answer: &FetchResponse) -> Vec<(i32, i16, i64, bool)> {
    assert_eq!(answer.error_code, 0);
    let parts = answer.responses.iter().flat_map(|topic| &topic.partitions);
    parts
        .map(|p| {
            let records = !p.records.0.concat().is_empty();
            (p.partition_index, p.error_code, p.high_watermark, records)
        })
        .collect()
}

async fn topic_id(client: &mut Client) -> Uuid {
    let topic = MetadataRequestTopic { name: Some("t".into()), ..Default::default() };
    let request = MetadataRequest { topics: Some(vec![topic]), ..Default::default() };
    let ResponseBody::Metadata(answer) = client.ask(12, request).await else { panic!() };
    answer.topics[0].topic_id
}

#[tokio::test]
async fn a_session_tells_only_what_changed() {
    let tasks = TaskGroup::new();
    let mut client = Client::start(&tasks).await;
    client.topic("t").await;
    let all = vec![part(0, 0), part(1, 0), part(2, 0)];
    let first = fetch(&mut client, NAMES, by_name((0, 0), all)).await;
    let id = first.session_id;
    assert!(id > 0);
    assert_eq!(told(&first), [(0, 0, 0, false), (1, 0, 0, false), (2, 0, 0, false)]);
    let nothing = fetch(&mut client, NAMES, by_name((id, 1), vec![])).await;
    assert_eq!((told(&nothing), nothing.session_id), (vec![], id));
    put(&mut client, 1, b"x").await;
    let news = fetch(&mut client, NAMES, by_name((id, 2), vec![])).await;
    assert_eq!(told(&news), [(1, 0, 1, true)]);
    let again = fetch(&mut client, NAMES, by_name((id, 3), vec![])).await;
    assert_eq!(told(&again), [(1, 0, 1, true)], "the client has not moved on");
    let moved = fetch(&mut client, NAMES, by_name((id, 4), vec![part(1, 1)])).await;
    assert_eq!(told(&moved), []);
    let wrong = fetch(&mut client, NAMES, by_name((id, 4), vec![])).await;
    assert_eq!((wrong.error_code, wrong.session_id), (71, 0), "INVALID_FETCH_SESSION_EPOCH");
    let mut other = Client::connect(client.stream.peer_addr().unwrap()).await;
    let there = fetch(&mut other, NAMES, by_name((id, 5), vec![])).await;
    assert_eq!(told(&there), [], "a session is of no connection");
    let unknown = fetch(&mut client, NAMES, by_name((id ^ 1, 6), vec![])).await;
    assert_eq!(unknown.error_code, 70, "FETCH_SESSION_ID_NOT_FOUND");
    tasks.shutdown(DEADLINE).await;
}

#[tokio::test]
async fn a_forgotten_partition_is_told_of_no_more() {
    let tasks = TaskGroup::new();
    let mut client = Client::start(&tasks).await;
    client.topic("t").await;
    let first = fetch(&mut client, NAMES, by_name((0, 0), vec![part(0, 0), part(1, 0)])).await;
    let id = first.session_id;
    let mut forget = by_name((id, 1), vec![]);
    forget.forgotten_topics_data =
        vec![FetchForgottenTopic { topic: "t".into(), partitions: vec![0], ..Default::default() }];
    assert_eq!(told(&fetch(&mut client, NAMES, forget).await), []);
    put(&mut client, 0, b"x").await;
    assert_eq!(told(&fetch(&mut client, NAMES, by_name((id, 2), vec![])).await), []);
    let back = fetch(&mut client, NAMES, by_name((id, 3), vec![part(0, 0)])).await;
    assert_eq!(told(&back), [(0, 0, 1, true)]);
    tasks.shutdown(DEADLINE).await;
}

#[tokio::test]
async fn a_session_waits_for_its_bytes_and_for_no_more() {
    let tasks = TaskGroup::new();
    let mut reader = Client::start(&tasks).await;
    let mut writer = Client::connect(reader.stream.peer_addr().unwrap()).await;
    writer.topic("t").await;
    let all = vec![part(0, 0), part(1, 0), part(2, 0)];
    let id = fetch(&mut reader, NAMES, by_name((0, 0), all)).await.session_id;
    let mut wait = by_name((id, 1), vec![]);
    (wait.min_bytes, wait.max_wait_ms) = (3000, 15_000);
    reader.send(NAMES, wait).await;
    for partition in [0, 2, 0] {
        put(&mut writer, partition, &[7; 1000]).await;
    }
    let (_, body) = reader.receive(ApiKey::Fetch, NAMES).await;
    let mut news = told(&answer(body));
    news.sort_unstable();
    assert_eq!(news, [(0, 0, 2, true), (2, 0, 1, true)]);
    let mut late = by_name((id, 2), vec![part(0, 2), part(2, 1)]);
    (late.min_bytes, late.max_wait_ms) = (3000, 2000);
    reader.send(NAMES, late).await;
    put(&mut writer, 1, b"x").await;
    let (_, body) = reader.receive(ApiKey::Fetch, NAMES).await;
    assert_eq!(told(&answer(body)), [(1, 0, 1, true)], "what there is when the time is over");
    tasks.shutdown(DEADLINE).await;
}

#[tokio::test]
async fn partitions_take_turns_when_an_answer_is_full() {
    let tasks = TaskGroup::new();
    let mut client = Client::start(&tasks).await;
    client.topic("t").await;
    for partition in 0..3 {
        put(&mut client, partition, &[7; 1000]).await;
    }
    let all = vec![part(0, 0), part(1, 0), part(2, 0)];
    let mut first = by_name((0, 0), all);
    first.max_bytes = 1;
    let first = fetch(&mut client, NAMES, first).await;
    let gave = [(0, 0, 1, true), (1, 0, 1, false), (2, 0, 1, false)];
    assert_eq!(told(&first), gave, "one batch even if it is over the limit");
    for (epoch, partition) in [(1, 1), (2, 2), (3, 0), (4, 1)] {
        let mut next = by_name((first.session_id, epoch), vec![]);
        next.max_bytes = 1;
        let next = fetch(&mut client, NAMES, next).await;
        assert_eq!(told(&next), [(partition, 0, 1, true)]);
    }
    tasks.shutdown(DEADLINE).await;
}

#[tokio::test]
async fn topics_by_id_are_not_taken_for_another_of_their_name() {
    let tasks = TaskGroup::new();
    let mut client = Client::start(&tasks).await;
    client.topic("t").await;
    let old = topic_id(&mut client).await;
    let first = fetch(&mut client, IDS, request((0, 0), old, vec![part(0, 0)])).await;
    let id = first.session_id;
    assert_eq!(told(&first), [(0, 0, 0, false)]);
    assert_eq!(first.responses[0].topic_id, old);
    let named = fetch(&mut client, NAMES, by_name((id, 1), vec![])).await;
    assert_eq!(named.error_code, 106, "FETCH_SESSION_TOPIC_ID_ERROR");
    let unknown = Uuid::from_u128(7);
    let news = fetch(&mut client, IDS, request((id, 1), unknown, vec![part(0, 0)])).await;
    assert_eq!(told(&news), [(0, 100, -1, false)], "UNKNOWN_TOPIC_ID");
    let mut forget = request((id, 2), old, vec![]);
    forget.forgotten_topics_data =
        vec![FetchForgottenTopic { topic_id: unknown, partitions: vec![0], ..Default::default() }];
    assert_eq!(told(&fetch(&mut client, IDS, forget).await), []);
    let mut wait = request((id, 3), old, vec![]);
    wait.max_wait_ms = 15_000;
    client.send(IDS, wait).await;
    let mut other = Client::connect(client.stream.peer_addr().unwrap()).await;
    let delete = DeleteTopicsRequest {
        topic_names: vec!["t".into()],
        timeout_ms: 5000,
        ..Default::default()
    };
    other.ask(4, delete).await;
    let (_, body) = client.receive(ApiKey::Fetch, IDS).await;
    assert_eq!(told(&answer(body)), [(0, 3, -1, false)], "the deletion ends the wait");
    other.topic("t").await;
    let again = fetch(&mut client, IDS, request((id, 4), old, vec![])).await;
    assert_eq!(told(&again), [(0, 103, -1, false)], "INCONSISTENT_TOPIC_ID");
    tasks.shutdown(DEADLINE).await;
}

#[tokio::test]
async fn whole_requests_need_no_session() {
    let tasks = TaskGroup::new();
    let mut client = Client::start(&tasks).await;
    client.topic("t").await;
    let mut wait = by_name((0, -1), vec![part(0, 0), part(1, 0)]);
    wait.max_wait_ms = 15_000;
    client.send(NAMES, wait).await;
    let mut writer = Client::connect(client.stream.peer_addr().unwrap()).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    put(&mut writer, 1, b"x").await;
    let (_, body) = client.receive(ApiKey::Fetch, NAMES).await;
    let answer = answer(body);
    assert_eq!(answer.session_id, 0);
    assert_eq!(told(&answer), [(0, 0, 0, false), (1, 0, 1, true)], "every partition is named");
    let none = fetch(&mut client, NAMES, by_name((0, -1), vec![])).await;
    assert_eq!(told(&none), []);
    tasks.shutdown(DEADLINE).await;
}

/// librdkafka 2.16 dies of a leader of −1 beside one that it knows.
#[tokio::test]
async fn a_leader_is_told_only_when_there_is_one() {
    let tasks = TaskGroup::new();
    let (address, groups) = solo::start_over("127.0.0.1:0".parse().unwrap(), &tasks).await;
    let mut client = Client::connect(address).await;
    client.topic("t").await;
    let asked = || FetchPartition { current_leader_epoch: 1, ..part(0, 0) };
    let told = |answer: FetchResponse| {
        let part = &answer.responses[0].partitions[0];
        let leader = &part.current_leader;
        (part.error_code, leader.leader_id, leader.leader_epoch)
    };
    groups.iter().for_each(|group| group.begin_term(None));
    let answer = fetch(&mut client, NAMES, by_name((0, -1), vec![asked()])).await;
    assert!(answer.node_endpoints.is_empty());
    assert_eq!(told(answer), (6, -1, -1));
    groups.iter().for_each(|group| group.begin_term(Some(NodeId(1))));
    let answer = fetch(&mut client, NAMES, by_name((0, -1), vec![asked()])).await;
    assert_eq!(told(answer), (74, 1, 3));
    tasks.shutdown(DEADLINE).await;
}

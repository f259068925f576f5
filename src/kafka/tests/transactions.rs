//! Transactions over the wire as clients since Kafka 4.0 speak them (KIP-890): Produce 12 adds the
//! partition, EndTxn 5 gives the next epoch. The black-box tests have clients of before.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod solo;

use std::time::Duration;

use base::TaskGroup;
use bytes::Bytes;
use kafka::codec::messages::*;
use kafka::codec::{
    ApiKey, Records, Request, RequestBody, ResponseBody, decode_response, encode_request,
};
use log::batch::{build, with_transaction};
use log::records::RecordRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const DEADLINE: Duration = Duration::from_secs(20);
const ID: &str = "pay";

struct Client {
    stream: TcpStream,
    next: i32,
}

impl Client {
    async fn start(tasks: &TaskGroup) -> Self {
        let address = solo::start("127.0.0.1:0".parse().unwrap(), tasks).await;
        let mut client = Self { stream: TcpStream::connect(address).await.unwrap(), next: 0 };
        let topic = MetadataRequestTopic { name: Some("t".into()), ..Default::default() };
        let request = MetadataRequest { topics: Some(vec![topic]), ..Default::default() };
        let ResponseBody::Metadata(answer) = client.ask(9, request).await else { panic!() };
        assert_eq!(answer.topics[0].error_code, 0);
        client
    }

    async fn send(&mut self, version: i16, body: impl Into<RequestBody>) -> ApiKey {
        self.next += 1;
        let body = body.into();
        let key = body.key();
        let request = Request { version, correlation_id: self.next, client_id: None, body };
        let bytes = encode_request(&request).unwrap().concat();
        self.stream.write_all(&bytes).await.unwrap();
        key
    }

    async fn receive(&mut self, key: ApiKey, version: i16) -> ResponseBody {
        let read = async {
            let size = self.stream.read_i32().await.unwrap();
            let mut frame = vec![0; usize::try_from(size).unwrap()];
            self.stream.read_exact(&mut frame).await.unwrap();
            Bytes::from(frame)
        };
        let mut frame = tokio::time::timeout(DEADLINE, read).await.expect("an answer in time");
        decode_response(&mut frame, key, version).unwrap().1
    }

    async fn ask(&mut self, version: i16, body: impl Into<RequestBody>) -> ResponseBody {
        let key = self.send(version, body).await;
        self.receive(key, version).await
    }

    async fn init(&mut self) -> (i64, i16) {
        let request = InitProducerIdRequest {
            transactional_id: Some(ID.into()),
            transaction_timeout_ms: 60_000,
            ..Default::default()
        };
        let ResponseBody::InitProducerId(answer) = self.ask(5, request).await else { panic!() };
        assert_eq!(answer.error_code, 0);
        (answer.producer_id, answer.producer_epoch)
    }

    async fn end(&mut self, producer: (i64, i16), committed: bool) -> (i16, (i64, i16)) {
        let request = EndTxnRequest {
            transactional_id: ID.into(),
            producer_id: producer.0,
            producer_epoch: producer.1,
            committed,
        };
        let ResponseBody::EndTxn(answer) = self.ask(5, request).await else { panic!() };
        (answer.error_code, (answer.producer_id, answer.producer_epoch))
    }

    async fn produced(&mut self) -> (i16, i64) {
        let ResponseBody::Produce(answer) = self.receive(ApiKey::Produce, 12).await else {
            panic!()
        };
        let part = &answer.responses[0].partition_responses[0];
        (part.error_code, part.base_offset)
    }

    async fn fetch(&mut self, isolation_level: i8) -> PartitionData {
        let part = FetchPartition { partition_max_bytes: 1 << 20, ..Default::default() };
        let topic = FetchTopic { topic: "t".into(), partitions: vec![part], ..Default::default() };
        let request = FetchRequest { isolation_level, topics: vec![topic], ..Default::default() };
        let ResponseBody::Fetch(mut answer) = self.ask(12, request).await else { panic!() };
        answer.responses.remove(0).partitions.remove(0)
    }
}

fn produce(producer: (i64, i16), sequence: i32, value: &str) -> ProduceRequest {
    let batch = build(&[RecordRef::value(value.as_bytes(), 1000)]);
    let batch = with_transaction(&batch, producer.0, producer.1, sequence);
    let part = PartitionProduceData { index: 0, records: Records(vec![batch]) };
    let topic = TopicProduceData { name: "t".into(), partition_data: vec![part] };
    ProduceRequest {
        transactional_id: Some(ID.into()),
        acks: -1,
        timeout_ms: 5000,
        topic_data: vec![topic],
    }
}

#[tokio::test]
async fn the_features_that_clients_look_for_are_finalized() {
    let tasks = TaskGroup::new();
    let mut client = Client::start(&tasks).await;
    for (version, supported) in [(3, 1), (4, 3)] {
        let asked = ApiVersionsRequest {
            client_software_name: "test".into(),
            client_software_version: "1.0".into(),
        };
        let ResponseBody::ApiVersions(answer) = client.ask(version, asked).await else { panic!() };
        for (name, level) in [("transaction.version", 2), ("group.version", 1)] {
            let found = answer.finalized_features.iter().find(|f| f.name == name);
            assert_eq!(found.unwrap().max_version_level, level);
        }
        assert!(answer.finalized_features_epoch >= 0);
        assert_eq!(answer.supported_features.len(), supported);
    }
    tasks.shutdown(DEADLINE).await;
}

#[tokio::test]
async fn every_end_gives_an_epoch_and_late_ends_touch_nothing() {
    let tasks = TaskGroup::new();
    let mut client = Client::start(&tasks).await;
    let first = client.init().await;
    // Five in flight, as producers send them: the first adds the partition.
    for n in 0..5 {
        client.send(12, produce(first, n, &format!("a{n}"))).await;
    }
    for n in 0..5 {
        assert_eq!(client.produced().await, (0, i64::from(n)));
    }
    let open = client.fetch(1).await;
    assert_eq!((open.last_stable_offset, open.high_watermark), (0, 5));
    assert!(open.records.0.concat().is_empty());
    let (code, second) = client.end(first, true).await;
    assert_eq!((code, second), (0, (first.0, first.1 + 1)));
    assert_eq!(client.end(first, true).await, (0, second), "asked again");
    client.send(12, produce(second, 0, "b")).await;
    assert_eq!(client.produced().await, (0, 6));
    assert_eq!(client.end(first, true).await.0, 90, "the delayed end of another transaction");
    client.send(12, produce(first, 5, "late")).await;
    assert_eq!(client.produced().await.0, 47, "INVALID_PRODUCER_EPOCH");
    let (code, _third) = client.end(second, false).await;
    assert_eq!(code, 0);
    let closed = client.fetch(1).await;
    assert_eq!((closed.last_stable_offset, closed.high_watermark), (8, 8));
    let aborted = closed.aborted_transactions.unwrap();
    assert_eq!(aborted, [AbortedTransaction { producer_id: second.0, first_offset: 6 }]);
    assert_eq!(client.fetch(0).await.aborted_transactions, None);
    tasks.shutdown(DEADLINE).await;
}

#[tokio::test]
async fn administrators_see_what_is_open() {
    let tasks = TaskGroup::new();
    let mut client = Client::start(&tasks).await;
    let producer = client.init().await;
    client.send(12, produce(producer, 0, "open")).await;
    assert_eq!(client.produced().await, (0, 0));
    let listed = ListTransactionsRequest {
        state_filters: vec!["Ongoing".into(), "Nonsense".into()],
        ..Default::default()
    };
    let ResponseBody::ListTransactions(answer) = client.ask(1, listed).await else { panic!() };
    assert_eq!(answer.unknown_state_filters, ["Nonsense"]);
    assert_eq!(answer.transaction_states[0].transactional_id, ID);
    let asked = DescribeTransactionsRequest { transactional_ids: vec![ID.into(), "no".into()] };
    let ResponseBody::DescribeTransactions(answer) = client.ask(0, asked).await else { panic!() };
    let [found, missing] = &answer.transaction_states[..] else { panic!() };
    assert_eq!((found.transaction_state.as_str(), found.producer_id), ("Ongoing", producer.0));
    assert_eq!((&found.topics[0].topic[..], &found.topics[0].partitions[..]), ("t", &[0][..]));
    assert_eq!(missing.error_code, 105, "TRANSACTIONAL_ID_NOT_FOUND");
    let topic = DescribeProducersTopicRequest { name: "t".into(), partition_indexes: vec![0, 9] };
    let asked = DescribeProducersRequest { topics: vec![topic] };
    let ResponseBody::DescribeProducers(answer) = client.ask(0, asked).await else { panic!() };
    let parts = &answer.topics[0].partitions;
    assert_eq!(parts[0].active_producers[0].current_txn_start_offset, 0);
    assert_eq!(parts[1].error_code, 3);
    tasks.shutdown(DEADLINE).await;
}

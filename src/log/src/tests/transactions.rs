//! Transactions on groups of one node, from the requests of gateways to what readers see.

use std::time::Duration;

use super::*;
use crate::batch::{BatchHeader, with_transaction};
use crate::transactions::{Outcome, ProducerEpoch, TxnState, TxnVersion};

const ID: &str = "pay";
const MINUTE: i32 = 60_000;
const PATIENCE: Duration = Duration::from_secs(20);

use TxnVersion::{V1, V2};

/// A producer with a transactional id.
struct Producer<'a> {
    cluster: &'a Cluster,
    me: ProducerEpoch,
    version: TxnVersion,
    sequences: [i32; 3],
}

impl<'a> Producer<'a> {
    async fn begin(cluster: &'a Cluster, version: TxnVersion) -> Self {
        let me = cluster.init().await.unwrap();
        Self { cluster, me, version, sequences: [0; 3] }
    }

    fn batch(&mut self, partition: i32, values: &[&str]) -> Bytes {
        let next = &mut self.sequences[partition as usize];
        let ProducerEpoch { producer_id, epoch } = self.me;
        let batch = with_transaction(&batch(values, 1), producer_id, epoch, *next);
        *next += values.len() as i32;
        batch
    }

    async fn add(&self, partitions: &[i32]) -> Result<(), LogError> {
        let parts: Vec<_> = partitions.iter().map(|p| ("t".to_owned(), *p)).collect();
        self.cluster.service.add_partitions(ID, self.me, &parts).await
    }

    async fn send(&self, partition: i32, batch: Bytes) -> Result<i64, LogError> {
        let service = &self.cluster.service;
        let sent = service.produce_in_transaction(T, partition, batch, Acks::All, ID, self.version);
        sent.await.map(|done| done.base_offset)
    }

    /// Adds the partition where the client has to, and writes.
    async fn put(&mut self, partition: i32, values: &[&str]) -> Result<i64, LogError> {
        if self.version == V1 {
            self.add(&[partition]).await?;
        }
        let batch = self.batch(partition, values);
        self.send(partition, batch).await
    }

    async fn end(&mut self, outcome: Outcome) -> Result<(), LogError> {
        let service = &self.cluster.service;
        let next = service.end_transaction(ID, self.me, outcome, self.version).await?;
        if next != self.me {
            (self.me, self.sequences) = (next, [0; 3]);
        }
        Ok(())
    }
}

impl Cluster {
    async fn init(&self) -> Result<ProducerEpoch, LogError> {
        self.service.init_transactional(ID, MINUTE, None).await
    }

    async fn committed(&self, partition: i32) -> Vec<String> {
        let spec = FetchSpec {
            topic: T,
            partition,
            offset: 0,
            max_bytes: 1 << 20,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
            isolation: Isolation::Committed,
        };
        let fetched = self.service.fetch(&spec).await.unwrap();
        let seen = fetched.records.iter().filter(|batch| {
            let header = BatchHeader::parse(batch).unwrap();
            assert!(header.base_offset < fetched.last_stable_offset);
            !fetched.hides(&header)
        });
        let values = seen.flat_map(|batch| records(batch).unwrap());
        values.map(|r| String::from_utf8(r.value.unwrap().to_vec()).unwrap()).collect()
    }

    async fn bounds(&self, partition: i32) -> (i64, i64) {
        let fetched = self.fetch(partition, 0).await.unwrap();
        (fetched.last_stable_offset, fetched.high_watermark)
    }

    async fn state(&self) -> TxnState {
        self.service.describe_transaction(ID).await.unwrap().state
    }
}

async fn both_versions(test: impl AsyncFn(&Cluster, TxnVersion)) {
    for version in [V1, V2] {
        let c = cluster();
        c.topic(&[]).await;
        test(&c, version).await;
        c.tasks.shutdown(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn a_commit_shows_everything_and_an_abort_nothing() {
    both_versions(async |c, version| {
        let mut producer = Producer::begin(c, version).await;
        producer.put(0, &["a", "b"]).await.unwrap();
        producer.put(1, &["c"]).await.unwrap();
        assert_eq!((c.bounds(0).await, c.bounds(1).await), ((0, 2), (0, 1)));
        assert_eq!(c.committed(0).await, [""; 0]);
        producer.end(Outcome::Commit).await.unwrap();
        assert_eq!((c.bounds(0).await, c.bounds(1).await), ((3, 3), (2, 2)), "a marker each");
        assert_eq!(
            (c.committed(0).await, c.committed(1).await),
            (vec!["a".into(), "b".into()], vec!["c".into()])
        );
        producer.put(0, &["x"]).await.unwrap();
        c.put(0, batch(&["plain"], 1)).await.unwrap();
        assert_eq!(c.committed(0).await, ["a", "b"], "what follows an open transaction waits");
        producer.end(Outcome::Abort).await.unwrap();
        assert_eq!(c.committed(0).await, ["a", "b", "plain"]);
        assert_eq!(c.bounds(0).await, (6, 6));
        assert_eq!(c.state().await, TxnState::CompleteAbort);
    })
    .await;
}

#[tokio::test]
async fn a_batch_outside_a_transaction_is_refused() {
    both_versions(async |c, version| {
        let mut producer = Producer::begin(c, version).await;
        let batch = producer.batch(0, &["early"]);
        let plain = c.put(0, batch.clone()).await;
        assert_eq!(plain, Err(LogError::InvalidTxnState), "without a transactional id");
        if version == V1 {
            assert_eq!(producer.send(0, batch.clone()).await, Err(LogError::InvalidTxnState));
            producer.add(&[1]).await.unwrap();
            assert_eq!(producer.send(0, batch).await, Err(LogError::InvalidTxnState));
        }
        assert_eq!(c.bounds(0).await, (0, 0));
    })
    .await;
}

#[tokio::test]
async fn a_zombie_is_fenced_and_its_transaction_aborted() {
    both_versions(async |c, version| {
        let mut old = Producer::begin(c, version).await;
        old.put(0, &["old"]).await.unwrap();
        assert_eq!(c.init().await, Err(LogError::ConcurrentTransactions));
        let complete = async {
            while c.state().await != TxnState::CompleteAbort {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, complete).await.expect("the open transaction is aborted");
        let mut new = Producer::begin(c, version).await;
        let late = old.batch(0, &["late"]);
        assert_eq!(old.send(0, late).await, Err(LogError::ProducerFenced));
        assert_eq!(old.end(Outcome::Commit).await, Err(LogError::ProducerFenced));
        new.put(0, &["new"]).await.unwrap();
        new.end(Outcome::Commit).await.unwrap();
        assert_eq!(c.committed(0).await, ["new"]);
    })
    .await;
}

#[tokio::test]
async fn a_transaction_times_out() {
    let c = cluster();
    c.topic(&[]).await;
    let short = c.service.init_transactional(ID, 50, None).await.unwrap();
    let mut producer = Producer { cluster: &c, me: short, version: V2, sequences: [0; 3] };
    producer.put(0, &["slow"]).await.unwrap();
    c.data[c.service.coordinator_shard(ID)].advance_ms(60);
    let aborted = async {
        while c.bounds(0).await != (2, 2) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, aborted).await.expect("the stable offset goes on");
    assert_eq!(c.committed(0).await, [""; 0]);
    assert_eq!(producer.end(Outcome::Commit).await, Err(LogError::ProducerFenced));
    let far = c.service.init_transactional(ID, i32::MAX, None).await;
    assert_eq!(far, Err(LogError::InvalidTransactionTimeout));
}

#[tokio::test]
async fn pipelined_batches_of_a_beginning_transaction_stay_in_order() {
    both_versions(async |c, version| {
        let mut producer = Producer::begin(c, version).await;
        if version == V1 {
            producer.add(&[0]).await.unwrap();
        }
        let batches: Vec<_> =
            (0..5).map(|n| producer.batch(0, &[["a", "b", "c", "d", "e"][n]])).collect();
        let sent = batches.into_iter().map(|batch| producer.send(0, batch));
        let offsets: Vec<_> = futures::future::join_all(sent).await;
        assert_eq!(offsets, (0..5).map(Ok).collect::<Vec<_>>());
        producer.end(Outcome::Commit).await.unwrap();
        assert_eq!(c.committed(0).await, ["a", "b", "c", "d", "e"]);
    })
    .await;
}

#[tokio::test]
async fn offsets_count_once_their_transaction_commits() {
    both_versions(async |c, version| {
        let mut producer = Producer::begin(c, version).await;
        let offset = |offset| OffsetToCommit {
            topic: "t".into(),
            partition: 0,
            offset,
            leader_epoch: -1,
            metadata: String::new(),
        };
        for (number, outcome, expected) in
            [(5, Outcome::Abort, None), (7, Outcome::Commit, Some(7)), (9, Outcome::Abort, Some(7))]
        {
            if version == V1 {
                let early = c.service.transaction_of_group(ID, producer.me, "g", V1).await;
                assert_eq!(early, Err(LogError::InvalidTxnState));
                c.service.add_offsets(ID, producer.me, "g").await.unwrap();
            }
            let offsets = [offset(number)];
            let transaction = c.service.transaction_of_group(ID, producer.me, "g", version).await;
            let transaction = transaction.unwrap();
            let sent = c.service.commit_offsets_in_transaction(&transaction, &offsets);
            assert_eq!(sent.await, Ok(vec![Ok(())]));
            let pending = c.service.pending_offsets("g").await.unwrap();
            assert_eq!(pending.into_iter().collect::<Vec<_>>(), [("t".to_owned(), 0)]);
            producer.end(outcome).await.unwrap();
            assert!(c.service.pending_offsets("g").await.unwrap().is_empty());
            let found = c.service.fetch_offsets("g").await.unwrap();
            assert_eq!(found.first().map(|o| o.offset), expected);
        }
    })
    .await;
}

#[tokio::test]
async fn a_transaction_over_a_deleted_topic_completes() {
    let c = cluster();
    c.topic(&[]).await;
    let mut producer = Producer::begin(&c, V2).await;
    producer.put(0, &["gone"]).await.unwrap();
    c.service.delete_topic(T).await.unwrap();
    producer.end(Outcome::Commit).await.unwrap();
    let complete = async {
        while c.state().await != TxnState::CompleteCommit {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, complete).await.expect("no marker is waited for");
}

#[tokio::test]
async fn latest_is_the_stable_offset_for_readers_of_committed_records() {
    let c = cluster();
    c.topic(&[]).await;
    c.put(0, batch(&["plain"], 1)).await.unwrap();
    let mut producer = Producer::begin(&c, V2).await;
    producer.put(0, &["open"]).await.unwrap();
    let list = async |query, isolation| {
        c.service.list_offset(T, 0, -1, query, isolation).await.unwrap().offset
    };
    assert_eq!(list(OffsetQuery::Latest, Isolation::Committed).await, 1);
    assert_eq!(list(OffsetQuery::Latest, Isolation::Uncommitted).await, 2);
    let producers = c.service.describe_producers(T, 0).unwrap();
    assert_eq!((producers.len(), producers[0].txn_start_offset), (1, 1));
    let marked = c.service.write_marker(T, 0, producer.me, Outcome::Abort, 1).await;
    assert_eq!(marked, Ok(()), "an administrator ends what hangs");
    assert_eq!(c.bounds(0).await, (3, 3));
    assert_eq!(c.committed(0).await, ["plain"]);
}

#[tokio::test]
async fn a_checkpoint_brings_open_and_aborted_transactions_back() {
    let c = cluster();
    let topic = c.topic(&[]).await;
    let mut producer = Producer::begin(&c, V2).await;
    for outcome in [Outcome::Abort, Outcome::Commit, Outcome::Abort] {
        producer.put(0, &["v"]).await.unwrap();
        producer.end(outcome).await.unwrap();
    }
    producer.put(0, &["open"]).await.unwrap();
    let group = topic.partitions[0];
    let number = usize::from(group.data_number().unwrap());
    c.data[number].checkpoint();
    let (shared, mut machine) = c.restarted(number);
    let mut live = c.shared.machine_data(group);
    assert_eq!(digest(&mut *machine), digest(&mut *live));
    let key = PartKey { topic: topic.id, partition: 0 };
    let part = shared.view(group).get(&key).unwrap();
    assert_eq!(part.stable_bounds(), (0, 6, 7));
    let aborted: Vec<_> =
        part.aborted(0, 7).iter().map(|t| (t.first_offset, t.last_offset)).collect();
    assert_eq!(aborted, [(0, 1), (4, 5)]);
    let home = c.service.coordinator_shard(ID);
    c.data[home].checkpoint();
    let (shared, _machine) = c.restarted(home);
    let active = shared.view(GroupId::data(home as u16)).txns.all();
    assert_eq!(active.len(), 1, "the coordinator knows what is open");
}

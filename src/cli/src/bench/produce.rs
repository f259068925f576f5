//! Kafka Produce with acks=all: each connection keeps some batches under way to one partition.

use std::collections::VecDeque;
use std::sync::Arc;

use anyhow::Context;
use base::Clock;

use crate::bench::measure::{self, Figures, Tally, Window};
use crate::bench::{Bench, Target, payload};
use crate::kafka_client::{Connection, batch};

/// Different batches made in advance, so that the client's own work stays small.
const BATCHES: usize = 64;
/// Partitions of the topic: two on each node.
const PARTITIONS: i32 = 6;

/// What a producing worker needs.
pub(super) struct Producer {
    target: Arc<Target>,
    batches: Vec<Vec<u8>>,
    records: usize,
    record_bytes: usize,
    in_flight: usize,
}

impl Producer {
    /// Makes the topic and the batches.
    pub(super) fn new(bench: &Bench<'_>) -> anyhow::Result<Self> {
        let first = bench.target.kafka.first().context("no Kafka address")?;
        Connection::open(first)?.create_topic(&bench.target.name, PARTITIONS)?;
        let (records, record_bytes) = (bench.args.batch, bench.args.size.unwrap_or(1024));
        let time_ms = bench.clock.unix_ms();
        let batches = (0..BATCHES as u64).map(|seed| {
            let bytes = payload::random(records * record_bytes, seed);
            let values: Vec<&[u8]> = bytes.chunks(record_bytes).collect();
            batch::encode(&values, time_ms)
        });
        Ok(Self {
            target: Arc::clone(&bench.target),
            batches: batches.collect(),
            records,
            record_bytes,
            in_flight: bench.args.in_flight,
        })
    }

    /// Produces until the window is over.
    pub(super) fn work(
        &self,
        number: usize,
        window: &Window,
        tally: &mut Tally,
    ) -> anyhow::Result<()> {
        let topic = &self.target.name;
        let (partition, mut connection) = open(&self.target, number)?;
        let mut under_way = VecDeque::new();
        for batch in self.batches.iter().cycle().skip(number) {
            if window.over() {
                break;
            }
            under_way.push_back(window.now());
            connection.send_produce(topic, partition, batch)?;
            if under_way.len() >= self.in_flight {
                self.receive(&mut connection, &mut under_way, tally)?;
            }
        }
        while !under_way.is_empty() {
            self.receive(&mut connection, &mut under_way, tally)?;
        }
        Ok(())
    }

    fn receive(
        &self,
        connection: &mut Connection,
        under_way: &mut VecDeque<std::time::Duration>,
        tally: &mut Tally,
    ) -> anyhow::Result<()> {
        connection.receive_produced()?;
        if let Some(began) = under_way.pop_front() {
            tally.add(began, self.records, self.records * self.record_bytes);
        }
        Ok(())
    }
}

/// A partition for this worker and a connection to its leader.
pub(super) fn open(target: &Target, number: usize) -> anyhow::Result<(i32, Connection)> {
    let first = target.kafka.first().context("no Kafka address")?;
    let leaders = Connection::open(first)?.topic(&target.name)?.leaders;
    let (partition, leader) =
        leaders.iter().nth(number % leaders.len()).context("a topic without partitions")?;
    Ok((*partition, Connection::open(leader)?))
}

/// Measures.
pub(super) fn run(bench: &Bench<'_>) -> anyhow::Result<Figures> {
    let producer = Producer::new(bench)?;
    measure::run(bench, "produce", move |number, window, tally| {
        producer.work(number, window, tally)
    })
}

//! Kafka Produce with acks=all: each connection keeps some batches under way to one partition.
//!
//! With a rate it is an open loop: batches leave on a schedule that waits for no answer, and a
//! latency counts from the scheduled instant. Otherwise the client would wait with the broker, and
//! its stalls would not show.

use std::collections::VecDeque;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::{Context, anyhow};
use base::Clock;

use crate::bench::measure::{self, Figures, Tally, Window};
use crate::bench::{Bench, Target, payload};
use crate::kafka_client::{Connection, LeaderMoved, batch};

/// Different batches made in advance, so that the client's own work stays small.
const BATCHES: usize = 64;
/// Batches of one connection that an open loop has sent and not seen answered; then it waits.
const OPEN_LOOP_BACKLOG: usize = 100_000;
/// Before the new leader of a partition is asked for again.
pub(super) const PAUSE: Duration = Duration::from_millis(20);
/// How long a partition may be without a leader.
const NO_LEADER: Duration = Duration::from_secs(30);

/// What a producing worker needs.
pub(super) struct Producer {
    target: Arc<Target>,
    batches: Vec<Vec<u8>>,
    records: usize,
    record_bytes: usize,
    in_flight: usize,
    /// Time between two batches of one connection, in an open loop.
    every: Option<Duration>,
    connections: usize,
}

impl Producer {
    /// Makes the topic and the batches.
    pub(super) fn new(bench: &Bench<'_>) -> anyhow::Result<Self> {
        let first = bench.target.kafka.first().context("no Kafka address")?;
        Connection::open(first)?.create_topic(&bench.target.name, bench.partitions())?;
        let (records, record_bytes) = (bench.args.batch, bench.args.size.unwrap_or(1024));
        let batch_bytes = (records * record_bytes) as f64;
        let connections = bench.args.connections;
        let every = bench
            .args
            .rate
            .map(|mb| Duration::from_secs_f64(batch_bytes * connections as f64 / (mb * 1e6)));
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
            every,
            connections,
        })
    }

    /// Produces until the window is over, to the new leader when the old one hands over.
    pub(super) fn work(
        &self,
        number: usize,
        window: &Window,
        tally: &mut Tally,
    ) -> anyhow::Result<()> {
        // Connections take turns inside the interval.
        let share = number as f64 / self.connections.max(1) as f64;
        let mut due = window.now() + self.every.unwrap_or_default().mul_f64(share);
        loop {
            let ended = match self.every {
                Some(every) => self.open_loop(number, every, &mut due, window, tally),
                None => self.closed_loop(number, window, tally),
            };
            match ended {
                Err(error) if error.is::<LeaderMoved>() && !window.over() => {
                    tally.leader_moved();
                    std::thread::sleep(PAUSE);
                }
                ended => return ended,
            }
        }
    }

    /// Sends what is due from `due` on; when the leader moved, `due` is that of the first batch
    /// that was not appended, so that the time without a leader counts.
    fn open_loop(
        &self,
        number: usize,
        every: Duration,
        due: &mut Duration,
        window: &Window,
        tally: &mut Tally,
    ) -> anyhow::Result<()> {
        tally.keep_times();
        let (partition, mut sending) = open(&self.target, number)?;
        let mut receiving = sending.split()?;
        let (sent, schedule) = mpsc::sync_channel::<Duration>(OPEN_LOOP_BACKLOG);
        let mut at = *due;
        std::thread::scope(|threads| {
            let receiver = threads.spawn(move || -> anyhow::Result<()> {
                for scheduled in schedule {
                    *due = scheduled;
                    receiving.receive_produced()?;
                    tally.add(scheduled, self.records, self.records * self.record_bytes);
                }
                Ok(())
            });
            let mut batches = self.batches.iter().cycle().skip(number);
            while !window.over()
                && let Some(batch) = batches.next()
            {
                std::thread::sleep(at.saturating_sub(window.now()));
                sending.send_produce(&self.target.name, partition, batch)?;
                // The receiver is gone only when it failed, which is told below.
                if sent.send(at).is_err() {
                    break;
                }
                at += every;
            }
            drop(sent);
            receiver.join().unwrap_or_else(|_| Err(anyhow!("the receiver panicked")))
        })
    }

    fn closed_loop(&self, number: usize, window: &Window, tally: &mut Tally) -> anyhow::Result<()> {
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

    /// One of the batches, and the bytes of its records.
    pub(super) fn batch(&self, number: usize) -> (&[u8], usize) {
        let batch = self.batches.get(number % self.batches.len()).map_or(&[][..], Vec::as_slice);
        (batch, self.records * self.record_bytes)
    }

    /// Requests that a connection keeps under way.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn receive(
        &self,
        connection: &mut Connection,
        under_way: &mut VecDeque<Duration>,
        tally: &mut Tally,
    ) -> anyhow::Result<()> {
        connection.receive_produced()?;
        if let Some(began) = under_way.pop_front() {
            tally.add(began, self.records, self.records * self.record_bytes);
        }
        Ok(())
    }
}

/// A partition for this worker and a connection to its leader, which it waits for.
pub(super) fn open(target: &Target, number: usize) -> anyhow::Result<(i32, Connection)> {
    let first = target.kafka.first().context("no Kafka address")?;
    let mut asking = Connection::open(first)?;
    let mut waited = Duration::ZERO;
    let leaders = loop {
        match asking.topic(&target.name) {
            Ok(topic) => break topic.leaders,
            Err(error) if waited >= NO_LEADER => return Err(error),
            Err(_) => std::thread::sleep(PAUSE),
        }
        waited += PAUSE;
    };
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

//! Kafka Fetch: each connection reads one partition from its start, again and again, and checks
//! every batch's checksum.

use std::sync::Arc;

use crate::bench::Bench;
use crate::bench::measure::{self, Figures};
use crate::bench::produce::{Producer, open};
use crate::kafka_client::batch;

/// Bytes of one fetch.
const FETCH_BYTES: i32 = 4 << 20;

/// Produces for as long as the warm-up lasts, at least a second, then measures.
pub(super) fn run(bench: &Bench<'_>) -> anyhow::Result<Figures> {
    let producer = Producer::new(bench)?;
    let mut fill = bench.args.clone();
    fill.warm_up = 0;
    fill.rate = None;
    fill.seconds = bench.args.warm_up.max(1);
    let filling = Bench {
        args: &fill,
        target: Arc::clone(&bench.target),
        stop: bench.stop,
        clock: Arc::clone(&bench.clock),
        cluster: bench.cluster,
    };
    measure::run(&filling, "fill", move |number, window, tally| {
        producer.work(number, window, tally)
    })?;
    let target = Arc::clone(&bench.target);
    measure::run(bench, "consume", move |number, window, tally| {
        let (partition, mut connection) = open(&target, number)?;
        let (first, next) = connection.offsets(&target.name, partition)?;
        let mut offset = first;
        while !window.over() {
            let began = window.now();
            let fetched = connection.fetch(&target.name, partition, offset, FETCH_BYTES)?;
            let (mut records, mut bytes) = (0, 0);
            offset = batch::for_each(&fetched.records, offset, |_, value| {
                records += 1;
                bytes += value.len();
            })?;
            tally.add(began, records, bytes);
            if offset >= next {
                offset = first;
            }
        }
        Ok(())
    })
}

//! Writes a given amount of data before a measurement.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use anyhow::bail;

use crate::bench::produce::{PAUSE, Producer, open};
use crate::bench::{Bench, Target};
use crate::kafka_client::LeaderMoved;
use crate::output::progress;

/// Appends about `gb` gigabytes of records to the topic, over all its partitions.
pub(super) fn run(bench: &Bench<'_>, gb: f64) -> anyhow::Result<Arc<Producer>> {
    let producer = Arc::new(Producer::new(bench)?);
    let total = (gb * 1e9) as i64;
    let left = Arc::new(AtomicI64::new(total));
    let partitions = usize::try_from(bench.partitions()).unwrap_or(1);
    let writers = bench.args.connections.max(partitions.min(16));
    let mut threads = Vec::new();
    for number in 0..writers {
        let (producer, left) = (Arc::clone(&producer), Arc::clone(&left));
        let target = Arc::clone(&bench.target);
        threads.push(base::task::thread("fill", move || -> anyhow::Result<()> {
            loop {
                match write(&producer, &target, number, &left) {
                    // What was under way then is missing from the amount.
                    Err(error) if error.is::<LeaderMoved>() => std::thread::sleep(PAUSE),
                    ended => return ended,
                }
            }
        }));
    }
    let bar = progress(total.unsigned_abs(), "fill");
    while threads.iter().any(|thread| !thread.is_finished()) {
        let done = total - left.load(Ordering::Relaxed).max(0);
        bar.set_position(done.unsigned_abs());
        if bench.stop.sleep(std::time::Duration::from_millis(100)) {
            left.store(0, Ordering::Relaxed);
        }
    }
    bar.finish_and_clear();
    for thread in threads {
        match thread.join() {
            Ok(result) => result?,
            Err(_) => bail!("a writer panicked"),
        }
    }
    if bench.stop.asked() {
        bail!("stopped");
    }
    Ok(producer)
}

/// Appends to one partition until nothing is left to write.
fn write(
    producer: &Producer,
    target: &Target,
    number: usize,
    left: &AtomicI64,
) -> anyhow::Result<()> {
    let (partition, mut connection) = open(target, number)?;
    let mut under_way = 0;
    for at in number.. {
        let (batch, bytes) = producer.batch(at);
        let bytes = i64::try_from(bytes)?;
        if left.fetch_sub(bytes, Ordering::Relaxed) <= 0 {
            break;
        }
        connection.send_produce(&target.name, partition, batch)?;
        under_way += 1;
        if under_way >= producer.in_flight() {
            connection.receive_produced()?;
            under_way -= 1;
        }
    }
    for _ in 0..under_way {
        connection.receive_produced()?;
    }
    Ok(())
}

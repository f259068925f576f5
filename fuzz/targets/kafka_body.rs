//! Bodies of Kafka requests: the first two bytes choose a row of the table and a version, which
//! no fuzzer has to guess. `TRINE_FUZZ_API=<key>` keeps to one API.
#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use kafka::codec::{Api, TABLE};
use libfuzzer_sys::fuzz_target;

mod kafka_round_trip;

static ROWS: LazyLock<Vec<&Api>> = LazyLock::new(|| {
    let only = std::env::var("TRINE_FUZZ_API").ok().map(|key| key.parse().expect("a number"));
    TABLE.iter().filter(|api| only.is_none_or(|key: i16| api.key.number() == key)).collect()
});

fuzz_target!(|data: &[u8]| {
    let Some(([row, version], body)) = data.split_first_chunk() else { return };
    let api = ROWS[usize::from(*row) % ROWS.len()];
    let version = api.min + i16::from(*version) % (api.max - api.min + 1);
    let mut frame = Vec::with_capacity(body.len() + 11);
    frame.extend(api.key.number().to_be_bytes());
    frame.extend(version.to_be_bytes());
    // Correlation id 7, no client id, and in flexible versions no tags.
    frame.extend([0, 0, 0, 7, 0xff, 0xff]);
    if api.ctx(version).flexible {
        frame.push(0);
    }
    frame.extend(body);
    kafka_round_trip::check(Bytes::from(frame));
});

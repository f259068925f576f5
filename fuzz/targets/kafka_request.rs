//! Whole Kafka requests, header and body, from raw bytes.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

mod kafka_round_trip;

fuzz_target!(|data: &[u8]| kafka_round_trip::check(Bytes::copy_from_slice(data)));

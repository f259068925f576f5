//! Kafka record batches: header, checks, splitting, records in every compression.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use log::batch::{BatchHeader, frame_info, split, validate};
use log::records::records;
use log::walk::walk;

/// What a batch may unfold to.
const MOST: usize = 4 << 20;
const CRC_AT: usize = 17;
const CRC_FROM: usize = 21;

fn check(bytes: &[u8]) {
    let _ = BatchHeader::parse(bytes);
    let _ = frame_info(bytes);
    let _ = validate(bytes);
    let read = records(&Bytes::copy_from_slice(bytes));
    if let Ok(header) = validate(bytes)
        && let Ok(walked) = walk(bytes, &header, MOST)
    {
        // What a broker lets pass, a consumer can read.
        let read = read.expect("looked through");
        assert_eq!(read.len(), header.record_count as usize);
        let newest = read.iter().map(|r| r.timestamp_ms).max().expect("not empty");
        assert_eq!(newest.max(-1), walked.max_timestamp_ms);
    }
    if let Ok(batches) = split(Bytes::copy_from_slice(bytes)) {
        assert_eq!(batches.iter().map(Bytes::len).sum::<usize>(), bytes.len());
    }
}

fuzz_target!(|data: &[u8]| {
    check(data);
    // The same with length and checksum put right, which no fuzzer guesses.
    let mut bytes = data.to_vec();
    if bytes.len() > CRC_FROM {
        let length = (bytes.len() - 12) as i32;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        let crc = base::crc::crc32c(&bytes[CRC_FROM..]);
        bytes[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
        check(&bytes);
    }
});

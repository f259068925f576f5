//! Flushes and records of the write-ahead log: no panic, and what decodes is encoded the same.
#![no_main]

use base::crc::{crc32c, crc32c_append};
use libfuzzer_sys::fuzz_target;
use wal::format::{FlushHeader, HEADER_BYTES, RECORD_BYTES, decode_flush, decode_record};

/// Puts right the checksums, which no fuzzer guesses.
fn mend(bytes: &mut [u8]) {
    let Some(header) = bytes.get_mut(..HEADER_BYTES) else { return };
    let crc = crc32c(&header[8..]);
    header[4..8].copy_from_slice(&crc.to_le_bytes());
    let id: [u8; 8] = header[16..24].try_into().unwrap();
    let mut rest = &mut bytes[HEADER_BYTES..];
    while rest.len() >= RECORD_BYTES {
        let length = u32::from_le_bytes(rest[4..8].try_into().unwrap()) as usize;
        let end = RECORD_BYTES + length;
        if end > rest.len() {
            return;
        }
        let crc = crc32c_append(crc32c(&id), &rest[4..end]);
        rest[..4].copy_from_slice(&crc.to_le_bytes());
        let next = end.next_multiple_of(8).min(rest.len());
        rest = &mut rest[next..];
    }
}

fn check(bytes: &[u8]) {
    let Ok((header, records)) = decode_flush(bytes) else { return };
    let mut again = vec![0xaa; header.length as usize];
    let mut at = HEADER_BYTES;
    for (offset, record) in &records {
        assert_eq!(*offset, at);
        at += record.encode(header.salt, &mut again[at..]);
    }
    header.encode(&mut again);
    assert_eq!(again, bytes[..at]);
}

fuzz_target!(|data: &[u8]| {
    if let Ok(header) = FlushHeader::decode(data) {
        let _ = decode_record(&data[HEADER_BYTES..], header.salt);
    }
    check(data);
    let mut bytes = data.to_vec();
    mend(&mut bytes);
    check(&bytes);
});

//! Row frames of checkpoints and the commands inside log entries.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = consensus::decoders::rows(Bytes::copy_from_slice(data));
    let _ = consensus::decoders::commands(Bytes::copy_from_slice(data));
});

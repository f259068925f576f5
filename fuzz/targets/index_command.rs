//! Commands and translog frames of the search indices.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = index::translog::parse_header(data);
    let bytes = Bytes::copy_from_slice(data);
    let _ = index::command::ShardCommand::decode(bytes.clone());
    if let Ok(frame) = index::translog::Frame::decode(bytes) {
        let _ = frame.read_ops();
    }
});

//! Kafka request headers and bodies: what decodes is the same after another round.
#![no_main]

use bytes::Bytes;
use kafka::codec::{decode_request, encode_request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(request) = decode_request(&mut Bytes::copy_from_slice(data)) else { return };
    let Ok(chunks) = encode_request(&request) else { return };
    let mut frame = Bytes::from(chunks.concat()).slice(4..);
    let again = decode_request(&mut frame).expect("own encoding decodes");
    assert_eq!(again, request);
});

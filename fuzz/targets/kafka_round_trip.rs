//! What both Kafka targets check: what decodes is the same after another round.

use bytes::Bytes;
use kafka::codec::{decode_request, encode_request};

pub fn check(frame: Bytes) {
    let Ok(request) = decode_request(&mut frame.clone()) else { return };
    let Ok(chunks) = encode_request(&request) else { return };
    let encoded = Bytes::from(chunks.concat());
    let again = decode_request(&mut encoded.slice(4..)).expect("own encoding decodes");
    // Bytes are compared, because records may be held in other pieces.
    let chunks = encode_request(&again).expect("encoded before");
    assert_eq!(chunks.concat(), encoded);
}

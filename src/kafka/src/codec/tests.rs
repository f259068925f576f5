//! Every message in every version against bytes made from Kafka's protocol definition, and
//! input that lies.

use super::messages::*;
use super::*;

/// `key version side hex` per line.
const GOLDEN: &str = include_str!("golden.txt");

fn unhex(text: &str) -> Bytes {
    let digits: Vec<u8> =
        text.chars().map(|c| u8::try_from(c.to_digit(16).unwrap()).unwrap()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect::<Vec<u8>>().into()
}

fn golden() -> impl Iterator<Item = (i16, i16, &'static str, Bytes)> {
    GOLDEN.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let parts: Vec<&str> = line.split(' ').collect();
        (parts[0].parse().unwrap(), parts[1].parse().unwrap(), parts[2], unhex(parts[3]))
    })
}

fn joined(chunks: Vec<Bytes>) -> Bytes {
    let all = chunks.concat();
    let size = usize::try_from(i32::from_be_bytes(all[..4].try_into().unwrap())).unwrap();
    assert_eq!(size, all.len() - 4, "the frame states its size");
    Bytes::from(all).slice(4..)
}

#[test]
fn every_message_reads_and_writes_as_kafka_defines_it() {
    let mut seen = 0;
    for (key, version, side, bytes) in golden() {
        let api = Api::by_number(key).unwrap();
        let again = if side == "request" {
            let request = decode_request(&mut bytes.clone())
                .unwrap_or_else(|e| panic!("{:?} v{version}: {e}", api.key));
            assert_eq!((request.correlation_id, request.client_id.as_deref()), (7, Some("client")));
            joined(encode_request(&request).unwrap())
        } else {
            let (id, body) = decode_response(&mut bytes.clone(), api.key, version)
                .unwrap_or_else(|e| panic!("{:?} v{version} {side}: {e}", api.key));
            joined(encode_response(id, version, &body).unwrap())
        };
        assert_eq!(again, bytes, "{:?} v{version} {side}", api.key);
        seen += 1;
    }
    // Later rows are held against the oracle alone.
    assert!(seen >= 384, "lines were lost: {seen}");
}

#[test]
fn a_cut_message_is_an_error_at_every_length() {
    for (key, version, side, bytes) in golden() {
        let key = Api::by_number(key).unwrap().key;
        for cut in 0..bytes.len() {
            let mut part = bytes.slice(..cut);
            let failed = if side == "request" {
                decode_request(&mut part).is_err()
            } else {
                decode_response(&mut part, key, version).is_err()
            };
            assert!(failed, "{key:?} v{version} {side} cut at {cut}");
        }
    }
}

#[test]
fn flipped_bytes_never_panic() {
    for (key, version, side, bytes) in golden() {
        let key = Api::by_number(key).unwrap().key;
        for at in 0..bytes.len() {
            for value in [0, 0x7f, 0x80, 0xff] {
                let mut changed = bytes.to_vec();
                changed[at] = value;
                let mut changed = Bytes::from(changed);
                if side == "request" {
                    let _ = decode_request(&mut changed);
                } else {
                    let _ = decode_response(&mut changed, key, version);
                }
            }
        }
    }
}

fn metadata_request(version: u8, body: &[u8]) -> Result<Request, CodecError> {
    let head = [0, 3, 0, version, 0, 0, 0, 1, 0xff, 0xff];
    decode_request(&mut [&head, body].concat().into())
}

#[test]
fn a_lying_length_is_an_error_and_not_an_allocation() {
    let lie = metadata_request(1, &[0x7f, 0xff, 0xff, 0xff]);
    assert_eq!(lie, Err(CodecError::BadLength(0x7fff_ffff)));
    let compact = metadata_request(9, &[0, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    assert_eq!(compact, Err(CodecError::BadLength(0xffff_fffe)));
    let endless = metadata_request(9, &[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(endless, Err(CodecError::BadVarint));
}

#[test]
fn many_small_elements_exceed_the_budget() {
    // 20 million empty names need 2 bytes each on the wire and 24 and more in memory.
    let count = 20_000_000u32;
    let mut body = count.to_be_bytes().to_vec();
    body.resize(4 + 2 * usize::try_from(count).unwrap(), 0);
    assert_eq!(metadata_request(1, &body), Err(CodecError::TooLarge));
}

#[test]
fn unserved_keys_and_versions_are_named() {
    let ask =
        |key: u8, version: u8| decode_request(&mut vec![0, key, 0, version, 0, 0, 0, 9].into());
    assert_eq!(ask(99, 0), Err(CodecError::UnknownApi(99)));
    let refused = CodecError::UnsupportedVersion { api_key: 18, version: 9, correlation_id: 9 };
    assert_eq!(ask(18, 9), Err(refused));
    let old = CodecError::UnsupportedVersion { api_key: 0, version: 2, correlation_id: 9 };
    assert_eq!(ask(0, 2), Err(old));
}

#[test]
fn the_header_of_an_api_versions_response_has_no_tags() {
    let body = ApiVersionsResponse { error_code: 35, ..Default::default() };
    let bytes = joined(encode_response(5, 3, &body.into()).unwrap());
    assert_eq!(&bytes[..], [0, 0, 0, 5, 0, 35, 1, 0, 0, 0, 0, 0]);
}

#[test]
fn large_records_travel_without_a_copy() {
    let records = Bytes::from(vec![7; 100_000]);
    let partition = PartitionData { records: Records(vec![records.clone()]), ..Default::default() };
    let topic = FetchableTopicResponse { partitions: vec![partition], ..Default::default() };
    let body = FetchResponse { responses: vec![topic], ..Default::default() };
    let chunks = encode_response(1, 12, &body.into()).unwrap();
    assert!(chunks.iter().any(|c| c.as_ptr() == records.as_ptr() && c.len() == records.len()));
}

#[test]
fn a_text_too_long_for_an_old_version_is_an_error() {
    let name = Some("n".repeat(40_000));
    let topic = MetadataResponseTopic { name, ..Default::default() };
    let body: ResponseBody = MetadataResponse { topics: vec![topic], ..Default::default() }.into();
    assert_eq!(encode_response(1, 8, &body), Err(CodecError::DoesNotFit(40_000)));
    assert!(encode_response(1, 9, &body).is_ok());
}

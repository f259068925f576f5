//! Every API in every version against `kafka-protocol`, a codec generated from Kafka's own
//! definitions: what one side writes, the other reads and writes again, byte for byte.

use std::collections::BTreeSet;

use bytes::BytesMut;
use kafka_protocol::messages::{
    ApiKey as TheirKey, RequestHeader, RequestKind, ResponseHeader, ResponseKind,
};
use kafka_protocol::protocol::{Decodable, Encodable};

use super::counting::CountingAlloc;
use super::messages::FetchReplicaState;
use super::sample::{Gen, Sample};
use super::*;
use crate::limits::DECODED_PER_BYTE;

/// Messages made up for each row, version and side.
const ROUNDS: u64 = 30;

/// Where the crate's versions, those of Kafka 4.1, are not those of the table, which is 4.0.1's:
/// key, highest version here, highest there.
const HIGHER_THERE: &[(ApiKey, i16, i16)] = &[
    (ApiKey::Produce, 12, 13),
    (ApiKey::Fetch, 17, 18),
    (ApiKey::OffsetCommit, 9, 10),
    (ApiKey::OffsetFetch, 9, 10),
    // Version 6 (KIP-939) is not stable in 4.0.
    (ApiKey::InitProducerId, 5, 6),
    (ApiKey::AlterPartitionReassignments, 0, 1),
    (ApiKey::ListTransactions, 1, 2),
    (ApiKey::ListConfigResources, 0, 1),
];

/// Fields that only those higher versions have, or versions below the served ones.
const NOT_SERVED: &[(ApiKey, &[&str])] = &[
    (ApiKey::Produce, &["topic_id"]),
    (ApiKey::OffsetCommit, &["topic_id"]),
    (ApiKey::OffsetFetch, &["topic_id"]),
    (
        ApiKey::InitProducerId,
        &[
            "enable_2_pc",
            "keep_prepared_txn",
            "ongoing_txn_producer_id",
            "ongoing_txn_producer_epoch",
        ],
    ),
    (ApiKey::AlterPartitionReassignments, &["allow_replication_factor_change"]),
    (ApiKey::ListTransactions, &["transactional_id_pattern"]),
];

fn theirs(api: &Api) -> TheirKey {
    TheirKey::try_from(api.key.number()).expect("the crate knows every API of Kafka")
}

fn every_version(mut check: impl FnMut(&Api, i16, u64)) {
    for api in TABLE {
        for version in api.min..=api.max {
            for round in 0..ROUNDS {
                check(api, version, round);
            }
        }
    }
}

fn gen_of(api: &Api, version: i16, round: u64, side: u64) -> Gen {
    let key = u64::from(api.key.number().cast_unsigned());
    Gen::new(key << 32 | u64::from(version.cast_unsigned()) << 16 | round << 1 | side)
}

fn frame(chunks: Vec<Bytes>) -> Bytes {
    Bytes::from(chunks.concat()).slice(4..)
}

fn sample_request(api: &Api, version: i16, round: u64) -> Request {
    let (g, ctx) = (&mut gen_of(api, version, round, 0), api.ctx(version));
    let correlation_id = i32::sample(g, ctx);
    let client_id = Option::sample(g, ctx);
    let body = RequestBody::sample(api.key, g, ctx);
    Request { version, correlation_id, client_id, body }
}

fn sample_response(api: &Api, version: i16, round: u64) -> (i32, ResponseBody) {
    let (g, ctx) = (&mut gen_of(api, version, round, 1), api.ctx(version));
    (i32::sample(g, ctx), ResponseBody::sample(api.key, g, ctx))
}

/// Their reading of a request and what they write of it.
fn request_there(api: &Api, version: i16, bytes: &Bytes) -> (String, Bytes) {
    let (key, mut rest) = (theirs(api), bytes.clone());
    let header_version = key.request_header_version(version);
    let header = RequestHeader::decode(&mut rest, header_version).unwrap();
    let body = RequestKind::decode(key, &mut rest, version).unwrap();
    assert!(rest.is_empty(), "{key:?} v{version}: {} bytes are left", rest.len());
    let mut out = BytesMut::new();
    header.encode(&mut out, header_version).unwrap();
    body.encode(&mut out, version).unwrap();
    (format!("{body:?}"), out.freeze())
}

fn response_there(api: &Api, version: i16, bytes: &Bytes) -> (String, Bytes) {
    let (key, mut rest) = (theirs(api), bytes.clone());
    let header_version = key.response_header_version(version);
    let header = ResponseHeader::decode(&mut rest, header_version).unwrap();
    let body = ResponseKind::decode(key, &mut rest, version).unwrap();
    assert!(rest.is_empty(), "{key:?} v{version}: {} bytes are left", rest.len());
    let mut out = BytesMut::new();
    header.encode(&mut out, header_version).unwrap();
    body.encode(&mut out, version).unwrap();
    (format!("{body:?}"), out.freeze())
}

#[test]
fn the_table_differs_from_the_oracles_only_where_kafka_4_1_does() {
    for api in TABLE {
        let there = theirs(api).valid_versions();
        let higher = HIGHER_THERE.iter().find(|(key, ..)| *key == api.key);
        let max = higher.map_or((api.max, api.max), |(_, here, there)| (*here, *there));
        assert_eq!((api.min, api.max, there.max), (there.min, max.0, max.1), "{:?}", api.key);
    }
}

#[test]
fn flexible_versions_and_headers_are_the_oracles() {
    for api in TABLE {
        for version in api.min..=api.max {
            let flexible = api.ctx(version).flexible;
            let key = theirs(api);
            let request = if flexible { 2 } else { 1 };
            let response = i16::from(flexible && api.key != ApiKey::ApiVersions);
            assert_eq!(key.request_header_version(version), request, "{:?} v{version}", api.key);
            assert_eq!(key.response_header_version(version), response, "{:?} v{version}", api.key);
        }
    }
}

#[test]
fn requests_pass_through_the_oracle_unchanged() {
    every_version(|api, version, round| {
        let here = sample_request(api, version, round);
        let bytes = frame(encode_request(&here).unwrap());
        let (_, there) = request_there(api, version, &bytes);
        assert_eq!(there, bytes, "{:?} v{version} round {round}: {here:?}", api.key);
        let again = decode_request(&mut there.clone()).unwrap();
        assert_eq!(again, here, "{:?} v{version} round {round}", api.key);
    });
}

#[test]
fn responses_pass_through_the_oracle_unchanged() {
    every_version(|api, version, round| {
        let (id, here) = sample_response(api, version, round);
        let bytes = frame(encode_response(id, version, &here).unwrap());
        let (_, there) = response_there(api, version, &bytes);
        assert_eq!(there, bytes, "{:?} v{version} round {round}: {here:?}", api.key);
        let again = decode_response(&mut there.clone(), api.key, version).unwrap();
        assert_eq!(again, (id, here), "{:?} v{version} round {round}", api.key);
    });
}

/// Names of fields in a `Debug` text.
fn fields(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in text.match_indices(": ") {
        let head = &text[..at];
        let start = head.rfind(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        names.insert(head[start.map_or(0, |i| i + 1)..].to_owned());
    }
    names
}

/// A tagged field that is missing here would go unnoticed above: it would never be sent.
#[test]
fn no_field_of_the_oracle_is_missing_here() {
    for api in TABLE {
        let (mut here, mut there) = (BTreeSet::new(), BTreeSet::new());
        for version in api.min..=api.max {
            for round in 0..ROUNDS {
                let request = sample_request(api, version, round);
                let bytes = frame(encode_request(&request).unwrap());
                here.extend(fields(&format!("{:?}", request.body)));
                there.extend(fields(&request_there(api, version, &bytes).0));
                let (id, response) = sample_response(api, version, round);
                let bytes = frame(encode_response(id, version, &response).unwrap());
                here.extend(fields(&format!("{response:?}")));
                there.extend(fields(&response_there(api, version, &bytes).0));
            }
        }
        there.remove("unknown_tagged_fields");
        let extra: &[&str] =
            NOT_SERVED.iter().find(|(key, _)| *key == api.key).map_or(&[], |(_, names)| names);
        there.retain(|name| !extra.contains(&name.as_str()));
        assert_eq!(here, there, "{:?}", api.key);
    }
}

/// Appends a tagged field that nobody knows to a message that ends with an empty list of them.
fn with_unknown_tag(bytes: &Bytes) -> Option<Bytes> {
    let (0, head) = bytes.split_last().map(|(last, head)| (*last, head))? else { return None };
    Some([head, &[1, 0xff, 0x7f, 3, 1, 2, 3]].concat().into())
}

#[test]
fn unknown_tagged_fields_are_skipped() {
    let mut tried = BTreeSet::new();
    every_version(|api, version, round| {
        if !api.ctx(version).flexible {
            return;
        }
        let mut request = sample_request(api, version, round);
        if let RequestBody::Fetch(body) = &mut request.body {
            // The only request with tagged fields of its own; without them it ends with their
            // count, as all others do.
            (body.cluster_id, body.replica_state) = (None, FetchReplicaState::default());
        }
        let bytes = frame(encode_request(&request).unwrap());
        if let Some(more) = with_unknown_tag(&bytes)
            && request_there(api, version, &more).0.contains("16383: ")
        {
            assert_eq!(decode_request(&mut more.clone()).unwrap(), request, "{:?}", api.key);
            tried.insert((api.key.number(), version));
        }
    });
    let flexible = |api: &Api| (api.min..=api.max).filter(|v| api.ctx(*v).flexible).count();
    assert_eq!(tried.len(), TABLE.iter().map(flexible).sum::<usize>());
}

/// What sharing the message's own bytes takes, however many they are.
const SHARING_BYTES: usize = 64;

/// Decodes a request and asserts what that takes at most. Returns whether it was one, and how many
/// times its own bytes it took.
fn decode_within_budget(bytes: &[u8], what: &str) -> (bool, usize) {
    let mut message = Bytes::copy_from_slice(bytes);
    let (decoded, held) = CountingAlloc::most_held(|| decode_request(&mut message));
    let limit = DECODED_PER_BYTE * bytes.len() + SHARING_BYTES;
    assert!(held <= limit, "{what}: {held} bytes for a message of {}", bytes.len());
    (decoded.is_ok(), held / bytes.len())
}

/// Writes lengths that lie over every place of every message: nothing may panic, and nothing
/// beyond the budget of the message's own bytes is taken.
#[test]
fn lying_lengths_never_cost_more_than_the_budget() {
    let lies: [&[u8]; 5] = [
        &[0x7f, 0xff, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0xff, 0xff, 0x7f],
        &[0x7f, 0xff],
        &[0x80, 0, 0, 0],
    ];
    every_version(|api, version, round| {
        if round > 2 {
            return;
        }
        let bytes = frame(encode_request(&sample_request(api, version, round)).unwrap());
        for at in (8..bytes.len()).take(600) {
            for lie in lies {
                let end = bytes.len().min(at + lie.len());
                let lied = [&bytes[..at], lie, &bytes[end..]].concat();
                decode_within_budget(&lied, &format!("{:?} v{version} at {at}", api.key));
            }
        }
    });
}

/// The dearest messages: long arrays of the smallest elements. Those that say the truth are taken,
/// and those that end in the middle of it cost no more.
#[test]
fn arrays_of_the_smallest_elements_cost_no_more_than_the_budget() {
    let mut dearest = 0;
    every_version(|api, version, round| {
        // The arrays that a message may be made of, one inside the other or one after the other.
        if round > 5 {
            return;
        }
        let (g, ctx) = (&mut Gen::wide(round, 700), api.ctx(version));
        let body = RequestBody::sample(api.key, g, ctx);
        let request = Request { version, correlation_id: 0, client_id: None, body };
        let bytes = frame(encode_request(&request).unwrap());
        let what = format!("{:?} v{version} array {round}", api.key);
        let (decoded, times) = decode_within_budget(&bytes, &what);
        assert!(decoded, "{what}");
        dearest = dearest.max(times);
        for cut in [bytes.len() / 3, bytes.len() * 2 / 3, bytes.len() - 1] {
            decode_within_budget(&bytes[..cut], &what);
        }
    });
    assert!(dearest > DECODED_PER_BYTE / 2, "only {dearest} times: nothing here is dear");
}

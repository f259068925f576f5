//! The bytes of records and flush headers; see [`base::golden`].

use base::GroupId;
use base::golden::Golden;
use bytes::Bytes;

use crate::format::{FlushHeader, FlushKind, HEADER_BYTES, Lsn, Record, Salt, What, decode_record};
use crate::{LogPos, format};

const SALT: Salt = Salt { file: 0x0102_0304, id: 0x1112_1314_1516_1718 };

fn encoded(record: &Record) -> Vec<u8> {
    let mut bytes = vec![0; record.encoded_len()];
    record.encode(SALT, &mut bytes);
    bytes
}

/// One name for each kind of record: a new one does not compile without a sample.
fn record_name(what: &What) -> &'static str {
    match what {
        What::Entry(..) => "Entry",
        What::Vote(_) => "Vote",
        What::TruncateAfter(Some(_)) => "TruncateAfter",
        What::TruncateAfter(None) => "TruncateAll",
        What::Purge(_) => "Purge",
        What::Committed(_) => "Committed",
    }
}

fn flush_name(kind: FlushKind) -> &'static str {
    match kind {
        FlushKind::Records => "Records",
        FlushKind::State => "State",
        FlushKind::Prepared => "Prepared",
        FlushKind::Closed => "Closed",
    }
}

#[test]
fn golden() {
    let mut golden = Golden::open(concat!(env!("CARGO_MANIFEST_DIR"), "/src/golden.txt"));
    let pos = LogPos { term: 0x2122_2324, node: 0x3132_3334_3536_3738, index: 0x4142_4344 };
    for what in [
        What::Entry(pos, Bytes::from("가나다")),
        What::Vote(Bytes::from_static(b"vote")),
        What::TruncateAfter(Some(0x5152_5354)),
        What::TruncateAfter(None),
        What::Purge(pos),
        What::Committed(pos),
    ] {
        let name = format!("Record::{}", record_name(&what));
        let record = Record { group: GroupId::data(0x0506), what };
        golden.bytes(&name, &encoded(&record), |bytes| {
            decode_record(bytes, SALT).map(|(record, _)| encoded(&record))
        });
    }
    for kind in [FlushKind::Records, FlushKind::State, FlushKind::Prepared, FlushKind::Closed] {
        let header = FlushHeader {
            kind,
            salt: SALT,
            offset: 3 * format::BLOCK as u32,
            length: 4_321,
            records: 21,
            synced: Lsn { file: 0x6162_6364, offset: 0x7172_7374 },
        };
        let encoded = |header: FlushHeader| {
            let mut bytes = vec![0; HEADER_BYTES];
            header.encode(&mut bytes);
            bytes
        };
        let name = format!("FlushHeader::{}", flush_name(kind));
        golden.bytes(&name, &encoded(header), |bytes| FlushHeader::decode(bytes).map(encoded));
    }
    golden.check();
}

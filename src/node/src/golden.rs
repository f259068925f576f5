//! The bytes of the registry's commands and rows; see [`base::golden`].

use std::collections::BTreeMap;

use base::codec::encode;
use base::golden::Golden;
use base::{GroupId, NodeId};
use consensus::{ApplyAt, MemStore, Rows, tags};

use crate::registry::{Advertised, Registry};

fn advertised(kafka_tls: Option<(String, u16)>) -> Advertised {
    let pair = |name: &str, port| (name.to_owned(), port);
    Advertised {
        kafka: pair("카프카", 0x0101),
        webhdfs: pair("w", 0x0202),
        datanode_http: pair("d", 0x0303),
        elastic: pair("e", 0x0404),
        console: pair("c", 0x0505),
        kafka_tls,
    }
}

/// The encoding of a command: number of the variant, node, what it tells.
fn command(variant: u32, node: u16, advertised: &impl serde::Serialize) -> Vec<u8> {
    encode(&(variant, NodeId(node), advertised))
}

#[test]
fn golden() {
    let mut golden = Golden::open(concat!(env!("CARGO_MANIFEST_DIR"), "/src/golden.txt"));
    let plain = advertised(None);
    let all = advertised(Some(("tls".to_owned(), 0x0606)));
    golden.value("Advertised", &all);
    let Advertised { kafka, webhdfs, datanode_http, elastic, console, kafka_tls: _ } = &plain;
    let first = (kafka, webhdfs, datanode_http, elastic, console);
    // The commands have no name outside of their module: they are pinned by what they do.
    let (register, register_all) = (command(0, 1, &first), command(1, 2, &all));
    let (registry, restored) = (Registry::default(), Registry::default());
    let (store, mut pending) = (MemStore::default(), BTreeMap::new());
    let mut rows = Rows::new(&store, &mut pending, tags::CLUSTER);
    let mut machine = registry.machine();
    for (name, command) in [("Register", register), ("RegisterAll", register_all)] {
        let at = ApplyAt { group: GroupId::M0, index: 1, term: 1, time_ms: 1 };
        golden.bytes(&format!("Command::{name}"), &command, |bytes| {
            machine.apply(&at, bytes.to_vec().into(), &mut rows).map(|_| bytes.to_vec())
        });
    }
    golden.rows("m0", rows.scan(b"").unwrap());
    restored.machine().restore(&rows).unwrap();
    assert_eq!(registry.all(), BTreeMap::from([(NodeId(1), plain), (NodeId(2), all)]));
    assert_eq!(restored.all(), registry.all());
    golden.check();
}

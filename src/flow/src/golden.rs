//! The bytes of commands, replies and rows; see [`base::golden`].

use std::collections::BTreeMap;

use base::codec::encode;
use base::golden::Golden;
use base::{GroupId, NodeId};
use consensus::{ApplyAt, MemStore, Rows, tags};

use crate::state::{Command, FlowShared, Lease, Part, Pipeline, Quarantined, Reply};

const TIME_MS: i64 = 1_700_000_000_123;
const TOPIC: [u8; 16] = *b"0123456789abcdef";

fn name() -> String {
    "흐름".to_owned()
}

fn lease() -> Lease {
    Lease { node: NodeId(2), boot: 0x11, epoch: 0x12, expires_ms: TIME_MS }
}

fn item() -> Quarantined {
    Quarantined {
        what: "/자료/파일.txt".into(),
        error: "읽을 수 없음".into(),
        attempts: 0x13,
        stat: Some((0x14, 0x15)),
        time_ms: TIME_MS,
    }
}

fn commands() -> Vec<Command> {
    let (name, spec) = (name(), r#"{"name":"흐름"}"#.to_owned());
    vec![
        Command::Put { name: name.clone(), spec, topic_id: TOPIC, partitions: 0x21 },
        Command::Delete { name: name.clone() },
        Command::Pause { name: name.clone(), part: Part::Whole, on: true },
        Command::Acquire {
            name: name.clone(),
            node: NodeId(3),
            boot: 0x22,
            ttl_ms: 0x23,
            dead: Some(0x24),
        },
        Command::Renew { name: name.clone(), boot: 0x25, epoch: 0x26, ttl_ms: 0x27 },
        Command::Quarantine { name: name.clone(), id: vec![0, 0x28, 0x29], item: item() },
        Command::Retry { name: name.clone() },
        Command::Refreeze { name, topic_id: TOPIC, partitions: 0x2a },
    ]
}

fn rows(golden: &mut Golden) {
    let (first, second) = (FlowShared::new(), FlowShared::new());
    let (store, mut pending) = (MemStore::default(), BTreeMap::new());
    let mut rows = Rows::new(&store, &mut pending, tags::FLOW);
    let mut machine = first.machine_m0();
    let lasting = |command: &Command| match command {
        Command::Put { .. }
        | Command::Pause { .. }
        | Command::Acquire { .. }
        | Command::Quarantine { .. } => true,
        Command::Delete { .. }
        | Command::Renew { .. }
        | Command::Retry { .. }
        | Command::Refreeze { .. } => false,
    };
    for (index, command) in (1..).zip(commands().into_iter().filter(lasting)) {
        let at = ApplyAt { group: GroupId::M0, index, term: 1, time_ms: TIME_MS };
        machine.apply(&at, encode(&command).into(), &mut rows).unwrap();
    }
    let found = rows.scan(b"").unwrap();
    assert_eq!(found.len(), 3);
    golden.rows("m0", found);
    second.machine_m0().restore(&rows).unwrap();
    let (before, after) = (first.read(Clone::clone), second.read(Clone::clone));
    assert_eq!(after.pipelines, before.pipelines);
    assert_eq!(after.leases, before.leases);
    assert_eq!(after.quarantine, before.quarantine);
}

#[test]
fn golden() {
    let mut golden = Golden::open(concat!(env!("CARGO_MANIFEST_DIR"), "/src/golden.txt"));
    let pipeline = Pipeline {
        spec: r#"{"name":"흐름"}"#.into(),
        revision: 0x31,
        topic_id: TOPIC,
        partitions: 0x32,
        source_paused: true,
        paused: false,
        deleted: true,
        dropped: 0x33,
    };
    golden.value("Pipeline", &pipeline);
    golden.value("Lease", &lease());
    golden.value("Quarantined", &item());
    golden.variants("Part", &[Part::Source, Part::Whole]);
    golden.variants("Command", &commands());
    golden.variants(
        "Reply",
        &[
            Reply::Done,
            Reply::Unknown,
            Reply::TooMany,
            Reply::Granted { epoch: 0x34 },
            Reply::Held(lease()),
            Reply::Lost,
            Reply::Retried { released: 0x35, kept: 0x36 },
        ],
    );
    rows(&mut golden);
    golden.check();
}

//! The bytes of commands, replies, rows and translog frames; see [`base::golden`].

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use base::codec::encode;
use base::env::sim_disk::SimDisk;
use base::golden::Golden;
use base::{Env, GroupId};
use bytes::Bytes;
use consensus::machine::{ApplyAt, StateMachine};
use consensus::{MemStore, Rows, tags};
use segment::{SegmentWriter, WriterOptions};

use crate::command::{
    AliasAction, CatalogCommand, CatalogReply, LoggedOp, MarkChange, NewIndex, OpsCommand,
    OpsReply, ShardCommand,
};
use crate::error::EsError;
use crate::model::{IndexRow, IndexState, IndexUuid, ShardId};
use crate::shared::IndexShared;
use crate::translog::Frame;
use crate::wire::{Reader, Writer};

const UUID: IndexUuid = IndexUuid(*b"0123456789abcdef");
const SHARD: ShardId = ShardId { index: UUID, number: 0x0102 };
const TIME_MS: i64 = 1_700_000_000_123;
const MAPPING: &str = r#"{"properties":{"제목":{"type":"text"}}}"#;

fn aliases() -> BTreeMap<String, String> {
    BTreeMap::from([("별명".to_owned(), r#"{"is_write_index":true}"#.to_owned())])
}

fn new_index() -> NewIndex {
    NewIndex {
        name: "색인".into(),
        uuid: UUID,
        shards: 3,
        replicas: 2,
        settings: r#"{"index.number_of_replicas":"2"}"#.into(),
        mapping: MAPPING.into(),
        aliases: aliases(),
        data_groups: 6,
    }
}

fn alias_actions() -> Vec<AliasAction> {
    let (uuid, alias) = (UUID, "별명".to_owned());
    vec![
        AliasAction::Add { uuid, alias: alias.clone(), definition: "{}".into() },
        AliasAction::Remove { uuid, alias },
        AliasAction::RemoveIndex { uuid },
    ]
}

fn catalog_commands() -> Vec<CatalogCommand> {
    let (uuid, uuids) = (UUID, vec![UUID]);
    let (kind, name) = ("index_template".to_owned(), "본".to_owned());
    vec![
        CatalogCommand::Create(new_index()),
        CatalogCommand::Delete { uuids: uuids.clone() },
        CatalogCommand::PutMapping { uuid, mapping: MAPPING.into() },
        CatalogCommand::PutSettings {
            uuids: uuids.clone(),
            settings: r#"{"index.hidden":"true"}"#.into(),
            keep_existing: true,
        },
        CatalogCommand::Aliases { actions: alias_actions() },
        CatalogCommand::SetState { uuids, state: IndexState::Closed },
        CatalogCommand::PutBlob { kind, name, json: Some(r#"{"가":1}"#.into()) },
    ]
}

fn error() -> EsError {
    let part = |kind: &str| EsError {
        status: 0x0191,
        kind: kind.into(),
        reason: "까닭".into(),
        extra: vec![("index".into(), "\"색인\"".into())],
        caused_by: None,
        root: None,
    };
    EsError {
        caused_by: Some(Box::new(part("caused_exception"))),
        root: Some(Box::new(part("root_exception"))),
        ..part("index_not_found_exception")
    }
}

fn catalog(golden: &mut Golden) {
    golden.variants("CatalogCommand", &catalog_commands());
    golden.variants("AliasAction", &alias_actions());
    golden.variants("IndexState", &[IndexState::Open, IndexState::Closed]);
    golden.value("EsError", &error());
    let shards = vec![GroupId::data(4), GroupId::data(5)];
    let done = CatalogReply::Done { shards: shards.clone(), mapping_version: 0x11 };
    golden.variants("CatalogReply", &[done, CatalogReply::Refused(error())]);
    let row = IndexRow {
        name: "색인".into(),
        uuid: UUID,
        created_ms: TIME_MS,
        shards,
        replicas: 0x12,
        settings: "{}".into(),
        mapping: MAPPING.into(),
        mapping_version: 0x13,
        settings_version: 0x14,
        aliases: aliases(),
        state: IndexState::Closed,
    };
    golden.value("IndexRow", &row);
}

fn ops() -> [LoggedOp; 2] {
    let put = LoggedOp {
        delete: false,
        version: 0x21,
        id: "문서".into(),
        routing: Some("길".into()),
        source: Bytes::from_static(b"{\"a\":1}"),
    };
    let delete = LoggedOp {
        delete: true,
        version: 0x22,
        id: "b".into(),
        routing: None,
        source: Bytes::new(),
    };
    [put, delete]
}

fn written(ops: &[LoggedOp]) -> Bytes {
    let mut out = Writer::default();
    ops.iter().for_each(|op| op.write(&mut out));
    out.finish()
}

fn mark(expected: Option<u64>) -> MarkChange {
    MarkChange { pipeline: "흐름".into(), partition: 0x23, expected, new: 0x24 }
}

fn ops_command(mark: Option<MarkChange>) -> OpsCommand {
    OpsCommand {
        shard: SHARD,
        term: 0x25,
        base_seq_no: 0x26,
        mapping_version: 0x27,
        mark,
        count: 2,
        ops: written(&ops()),
    }
}

/// One name for each command: a new one does not compile without a sample.
fn command_name(command: &ShardCommand) -> &'static str {
    match command {
        ShardCommand::Create(_) => "Create",
        ShardCommand::Delete(_) => "Delete",
        ShardCommand::Ops(OpsCommand { mark: None, .. }) => "Ops",
        ShardCommand::Ops(OpsCommand { mark: Some(MarkChange { expected, .. }), .. }) => {
            if expected.is_some() { "Ops.mark" } else { "Ops.first-mark" }
        }
    }
}

fn shards(golden: &mut Golden) {
    for command in [
        ShardCommand::Create(SHARD),
        ShardCommand::Delete(SHARD),
        ShardCommand::Ops(ops_command(None)),
        ShardCommand::Ops(ops_command(Some(mark(None)))),
        ShardCommand::Ops(ops_command(Some(mark(Some(0x28))))),
    ] {
        let name = format!("ShardCommand::{}", command_name(&command));
        golden.bytes(&name, &command.encode(), |bytes| {
            let read = ShardCommand::decode(Bytes::copy_from_slice(bytes));
            read.map(|command| command.encode().to_vec())
        });
    }
    for (name, op) in ["put", "delete"].into_iter().zip(ops()) {
        golden.bytes(&format!("LoggedOp::{name}"), &written(&[op]), |bytes| {
            let read = LoggedOp::read(&mut Reader::new(Bytes::copy_from_slice(bytes)));
            read.map(|op| written(&[op]).to_vec())
        });
    }
    let frame = Frame {
        base_seq_no: 0x31,
        count: 2,
        time_ms: TIME_MS,
        primary_term: 0x32,
        mapping_version: 0x33,
        ops: written(&ops()),
    };
    golden.bytes("Frame", &frame.encode(), |bytes| {
        Frame::decode(Bytes::copy_from_slice(bytes)).map(|frame| frame.encode().to_vec())
    });
    golden.variants(
        "OpsReply",
        &[
            OpsReply::Done { primary_term: 0x34 },
            OpsReply::NoShard,
            OpsReply::Stale,
            OpsReply::MarkMismatch { found: Some(0x35) },
        ],
    );
}

fn shared() -> Arc<IndexShared> {
    let env = Env { disk: Arc::new(SimDisk::new(1)), ..Env::real() };
    let writer = SegmentWriter::start(&env, WriterOptions::default());
    IndexShared::new(env, Path::new("/data").to_owned(), writer)
}

/// Applies commands one after the other, each at its own index.
fn apply(machine: &mut dyn StateMachine, rows: &mut Rows<'_>, commands: Vec<Bytes>) {
    for (index, command) in (1..).zip(commands) {
        let at = ApplyAt { group: GroupId::data(0), index, term: 7, time_ms: TIME_MS };
        machine.apply(&at, command, rows).unwrap();
    }
}

fn catalog_rows(golden: &mut Golden) {
    let (first, second) = (shared(), shared());
    let (store, mut pending) = (MemStore::default(), BTreeMap::new());
    let mut rows = Rows::new(&store, &mut pending, tags::INDEX);
    let mut commands = catalog_commands();
    commands.retain(|command| {
        matches!(command, CatalogCommand::Create(_) | CatalogCommand::PutBlob { .. })
    });
    let commands = commands.iter().map(|command| encode(command).into()).collect();
    apply(&mut *first.machine_m0(), &mut rows, commands);
    let found = rows.scan(b"").unwrap();
    assert_eq!(found.len(), 3);
    golden.rows("m0", found);
    second.machine_m0().restore(&rows).unwrap();
    let (first, second) = (first.catalog(), second.catalog());
    assert_eq!(second.indices["색인"].row, first.indices["색인"].row);
    assert_eq!(second.blobs, first.blobs);
}

/// The row of a shard at a checkpoint, and that of a mark.
fn shard_rows(golden: &mut Golden) {
    let shared = shared();
    let group = GroupId::data(0);
    let (store, mut pending) = (MemStore::default(), BTreeMap::new());
    let mut rows = Rows::new(&store, &mut pending, tags::INDEX);
    let mut machine = shared.machine_data(group);
    let ops = OpsCommand { term: 7, base_seq_no: 0, ..ops_command(Some(mark(None))) };
    let commands = [ShardCommand::Create(SHARD), ShardCommand::Ops(ops)];
    let commands = commands.iter().map(ShardCommand::encode).collect();
    apply(&mut *machine, &mut rows, commands);
    machine.capture(&mut rows).unwrap();
    machine.begin_checkpoint()().unwrap();
    let found = rows.scan(b"").unwrap();
    assert_eq!(found.len(), 2);
    golden.rows("data", found);
    let digest = |machine: &mut dyn StateMachine| {
        let mut digest = Vec::new();
        machine.digest(&mut |bytes| digest.extend_from_slice(bytes)).unwrap();
        digest
    };
    let before = digest(&mut *machine);
    machine.release().unwrap();
    let mut again = shared.machine_data(group);
    again.restore(&rows).unwrap();
    assert_eq!(digest(&mut *again), before);
}

#[test]
fn golden() {
    let mut golden = Golden::open(concat!(env!("CARGO_MANIFEST_DIR"), "/src/golden.txt"));
    catalog(&mut golden);
    shards(&mut golden);
    catalog_rows(&mut golden);
    shard_rows(&mut golden);
    golden.check();
}

//! The bytes of commands, replies and rows; see [`base::golden`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use base::env::sim_disk::SimDisk;
use base::golden::Golden;
use base::{Env, GroupId, NodeId, codec};
use bytes::Bytes;
use consensus::{ApplyAt, MemStore, Rows, StateMachine, tags};
use segment::{SegmentInfo, SegmentWriter, WriterOptions};
use uuid::Uuid;

use crate::batch::{build, with_producer, with_transaction};
use crate::command::{
    self, Control, ControlReply, DataCommand, MetaCommand, MetaReply, OffsetEntry, OnceEntry,
    OnceHead, ProduceReply,
};
use crate::compact::{Compaction, Plan, PlanSpec};
use crate::configs::ReplicaSettings;
use crate::groups::{
    ConsumerGroupRow, ConsumerGroupRowV1, ConsumerMemberRow, ConsumerMemberRowV1, ConsumerSave,
    GroupCommand, GroupRow, GroupRowV1, MemberRow, Progress,
};
use crate::limits::SEGMENTS_PER_ROW;
use crate::offsets::OffsetRow;
use crate::partition::PartRow;
use crate::producers::Producer;
use crate::records::RecordRef;
use crate::shared::LogShared;
use crate::topics::{MetaMachine, Topics};
use crate::transactions::offsets::GroupTxnRow;
use crate::transactions::{
    AbortedTxn, Claim, IdCommand, Marker, Outcome, PartTxns, ProducerEpoch, Txn, TxnCommand,
    TxnError, TxnReply, TxnRow, TxnState, TxnVersion,
};
use crate::types::{LedgerRow, OnceOutcome, PartKey, SettingsOf};

const TOPIC: Uuid = Uuid::from_u128(0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f);
const KEY: PartKey = PartKey { topic: TOPIC, partition: 0x1011_1213 };
const SETTINGS: ReplicaSettings =
    ReplicaSettings { segment_bytes: 0x2021_2223, segment_ms: 0x3031_3233_3435 };
const PRODUCER: ProducerEpoch = ProducerEpoch { producer_id: 0x41, epoch: 0x42 };
const GROUP: &str = "그룹";
const SOURCE: &str = "수집";
const TIME_MS: i64 = 1_700_000_000_123;

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn plan() -> PlanSpec {
    PlanSpec {
        upto: 0x51,
        from: 0x52,
        end: 0x53,
        now_ms: TIME_MS,
        delete_retention_ms: 0x54,
        segment_bytes: 0x55,
        producers_since_ms: 0x56,
    }
}

fn entry() -> OffsetEntry {
    OffsetEntry { key: KEY, offset: 0x61, leader_epoch: 0x62, metadata: "메모".into() }
}

fn marker(txn: Option<u64>, outcome: Outcome) -> Marker {
    Marker { producer_id: 0x71, epoch: 0x72, txn, outcome, coordinator_epoch: 0x73 }
}

fn head(batch_len: u32) -> OnceHead {
    let (file_key, version) = (Bytes::from_static(b"key"), Bytes::from_static(b"version"));
    let files = vec![OnceEntry { file_key, version, batch_len }];
    OnceHead { key: KEY, source: SOURCE.into(), epoch: 0x81, files }
}

fn controls() -> Vec<Control> {
    let (group, source, key) = (GROUP.to_owned(), SOURCE.to_owned(), KEY);
    let (file_key, version) = (Bytes::from_static(b"key"), Bytes::from_static(b"version"));
    vec![
        Control::CreateReplica { key, settings: SETTINGS },
        Control::DeleteReplica { key },
        Control::ConfigureReplica { key, settings: SETTINGS },
        Control::SetLogStart { key, offset: 0x91 },
        Control::ExpireProducers { key, before_ms: TIME_MS },
        Control::Fence { source: source.clone(), epoch: 0x92 },
        Control::MarkLedger { key, source, file_key, version, state: 3 },
        Control::CommitOffsets { group: group.clone(), offsets: vec![entry()] },
        Control::DeleteOffsets { group: group.clone(), keys: Some(vec![key]) },
        Control::DeleteOffsets { group: group.clone(), keys: None },
        Control::Compact { key, plan: plan() },
        Control::ExpireOffsets {
            group: group.clone(),
            empty_since_ms: Some(TIME_MS),
            offsets: vec![(key, 0x93)],
        },
        Control::ExpireOffsets { group, empty_since_ms: None, offsets: Vec::new() },
    ]
}

fn group_row() -> GroupRow {
    let member = MemberRow {
        id: "회원-1".into(),
        instance: Some("고정".into()),
        client_id: "클라이언트".into(),
        client_host: "/10.0.0.1".into(),
        session_timeout_ms: 0xa1,
        rebalance_timeout_ms: 0xa2,
        metadata: Bytes::from_static(b"subscription"),
        assignment: Bytes::from_static(b"assignment"),
    };
    GroupRow::V1(GroupRowV1 {
        generation: 0xa3,
        protocol_type: Some("consumer".into()),
        protocol: Some("range".into()),
        leader: Some("회원-1".into()),
        members: vec![member],
    })
}

fn empty_group_row() -> GroupRow {
    GroupRow::V1(GroupRowV1 { generation: 4, ..GroupRowV1::default() })
}

fn save_groups() -> GroupCommand {
    GroupCommand::Save(vec![
        (GROUP.into(), Some(group_row())),
        ("empty".into(), Some(empty_group_row())),
        ("gone".into(), None),
    ])
}

fn consumer_group_row() -> ConsumerGroupRow {
    ConsumerGroupRow::V1(ConsumerGroupRowV1 {
        epoch: 0x101,
        target_epoch: 0x102,
        topics_hash: 0x103,
        members: 0x104,
    })
}

fn consumer_member_row() -> ConsumerMemberRow {
    ConsumerMemberRow::V1(ConsumerMemberRowV1 {
        epoch: 0x111,
        previous_epoch: 0x112,
        progress: Progress::Revoking,
        instance: Some("고정".into()),
        rack: Some("장소".into()),
        client_id: "클라이언트".into(),
        client_host: "/10.0.0.1".into(),
        rebalance_timeout_ms: 0x113,
        topics: vec!["주제".into()],
        regex: Some("주.*".into()),
        matched: vec!["주일".into()],
        assignor: Some("uniform".into()),
        assigned: vec![(TOPIC, vec![0x114, 0x115])],
        revoking: vec![(TOPIC, vec![0x116])],
        target: vec![(TOPIC, vec![0x117])],
    })
}

fn save_consumers() -> GroupCommand {
    GroupCommand::SaveConsumers(vec![ConsumerSave {
        group: GROUP.into(),
        row: consumer_group_row(),
        members: vec![("회원-1".into(), Some(consumer_member_row())), ("회원-2".into(), None)],
    }])
}

fn id_commands() -> Vec<IdCommand> {
    let (producer, parts) = (PRODUCER, vec![KEY]);
    vec![
        IdCommand::Init { timeout_ms: 0xb1, expected: Some(PRODUCER), fresh_id: Some(0xb2) },
        IdCommand::Add { producer, parts, groups: vec![GROUP.into()], number: Some(0xb3) },
        IdCommand::End {
            producer,
            commit: true,
            version: TxnVersion::V2,
            fresh_id: Some(0xb4),
            number: Some(0xb5),
        },
        IdCommand::TimeOut { number: 0xb6 },
        IdCommand::Complete { number: 0xb7 },
        IdCommand::Expire { update_ms: TIME_MS },
    ]
}

fn txn_commands() -> Vec<TxnCommand> {
    let (parts, groups) = (vec![KEY], vec![GROUP.to_owned()]);
    let (group, offsets) = (GROUP.to_owned(), vec![entry()]);
    let id = |command| TxnCommand::Id { id: "거래".into(), command };
    let mut commands: Vec<_> = id_commands().into_iter().map(id).collect();
    commands.extend([
        TxnCommand::Mark { marker: marker(Some(0xb8), Outcome::Abort), parts, groups },
        TxnCommand::CommitOffsets { group, producer: PRODUCER, number: 0xb9, offsets },
        TxnCommand::ExpireOffsets { before_ms: TIME_MS },
    ]);
    commands
}

fn encoded(command: &DataCommand) -> Bytes {
    match command {
        DataCommand::Produce { key, claim, batch } => {
            command::produce(*key, *claim, batch).0.freeze()
        }
        DataCommand::Once { head, batches } => command::once(head, std::slice::from_ref(batches)),
        DataCommand::Control(control) => command::control(control).unwrap(),
        DataCommand::Groups(groups) => command::groups(groups).unwrap(),
        DataCommand::Txns(txns) => command::transactions(txns).unwrap(),
    }
}

fn data_commands(golden: &mut Golden) {
    let (key, batch) = (KEY, Bytes::from_static(b"batch"));
    let plain = DataCommand::Produce { key, claim: Claim::Plain, batch: batch.clone() };
    let claim = Claim::Number(0xc1);
    let in_txn = DataCommand::Produce { key, claim, batch: batch.clone() };
    let mark = txn_commands().swap_remove(6);
    for (name, command) in [
        ("Produce", plain),
        ("ProduceTxn", in_txn),
        ("Once", DataCommand::Once { head: head(5), batches: batch }),
        ("Control", DataCommand::Control(controls().swap_remove(0))),
        ("Groups", DataCommand::Groups(save_groups())),
        ("Txns", DataCommand::Txns(mark)),
    ] {
        golden.bytes(&format!("DataCommand::{name}"), &encoded(&command), |bytes| {
            let read = command::decode(&Bytes::copy_from_slice(bytes));
            read.map(|command| encoded(&command).to_vec())
        });
    }
    golden.value("OnceHead", &head(0xc2));
    golden.variants("Control", &controls());
    golden.variants("GroupCommand", &[save_groups(), save_consumers()]);
    golden.variants("IdCommand", &id_commands());
    golden.variants("TxnCommand", &txn_commands());
    golden.variants("TxnVersion", &[TxnVersion::V1, TxnVersion::V2]);
    golden.variants("Outcome", &[Outcome::Commit, Outcome::Abort]);
    golden.value("Marker", &marker(None, Outcome::Commit));
}

/// One name for each reply: a new one does not compile without a sample.
fn reply_name(reply: ProduceReply) -> &'static str {
    match reply {
        ProduceReply::Done { .. } => "Done",
        ProduceReply::UnknownPartition => "UnknownPartition",
        ProduceReply::OutOfOrder => "OutOfOrder",
        ProduceReply::OldEpoch => "OldEpoch",
        ProduceReply::Corrupt => "Corrupt",
        ProduceReply::NotInTransaction => "NotInTransaction",
    }
}

fn data_replies(golden: &mut Golden) {
    for reply in [
        ProduceReply::Done { base_offset: 0xd1, log_start: 0xd2 },
        ProduceReply::UnknownPartition,
        ProduceReply::OutOfOrder,
        ProduceReply::OldEpoch,
        ProduceReply::Corrupt,
        ProduceReply::NotInTransaction,
    ] {
        let name = format!("ProduceReply::{}", reply_name(reply));
        golden.bytes(&name, &reply.encode(), |bytes| {
            ProduceReply::decode(bytes).map(|reply| reply.encode().to_vec())
        });
    }
    golden.variants(
        "ControlReply",
        &[
            ControlReply::Done,
            ControlReply::UnknownPartition,
            ControlReply::LogStart(0xd3),
            ControlReply::OutOfRange { start: 0xd4, end: 0xd5 },
            ControlReply::Fence(0xd6),
            ControlReply::OtherVersion,
            ControlReply::StalePlan,
        ],
    );
    golden.variants(
        "OnceOutcome",
        &[
            OnceOutcome::Appended(0xd7),
            OnceOutcome::Already(0xd8),
            OnceOutcome::Fenced(0xd9),
            OnceOutcome::NoPartition,
            OnceOutcome::BadBatch,
        ],
    );
    golden.variants(
        "TxnReply",
        &[
            TxnReply::Done { producer: PRODUCER, number: 0xda, epoch_since_ms: TIME_MS },
            TxnReply::Failed(TxnError::TooMany),
            TxnReply::NeedsProducerId,
            TxnReply::Marked { missing: vec![KEY] },
        ],
    );
    golden.variants(
        "TxnError",
        &[
            TxnError::InvalidProducerIdMapping,
            TxnError::ProducerFenced,
            TxnError::ConcurrentTransactions,
            TxnError::InvalidTxnState,
            TxnError::InvalidProducerEpoch,
            TxnError::TooMany,
        ],
    );
}

fn meta_commands() -> Vec<MetaCommand> {
    let id = TOPIC;
    vec![
        MetaCommand::CreateTopic {
            name: "토픽".into(),
            id,
            partitions: 3,
            replication_factor: 2,
            configs: pairs(&[("retention.ms", "1000")]),
            data_groups: 6,
        },
        MetaCommand::DeleteTopic { id },
        MetaCommand::CreatePartitions { id, total: 4, data_groups: 6 },
        MetaCommand::AlterConfigs {
            id,
            set: pairs(&[("cleanup.policy", "compact")]),
            remove: vec!["retention.ms".into()],
        },
        MetaCommand::AllocateProducerIds { count: 1_000 },
        MetaCommand::AssignReplicas {
            id,
            first: 1,
            replicas: vec![vec![NodeId(3), NodeId(1)], vec![NodeId(2)]],
        },
        alter(SettingsOf::Cluster, &[("log.retention.ms", "9")]),
        alter(SettingsOf::Broker(NodeId(2)), &[("a", "b")]),
        alter(SettingsOf::Group(GROUP.into()), &[("c", "값")]),
    ]
}

fn alter(of: SettingsOf, set: &[(&str, &str)]) -> MetaCommand {
    MetaCommand::AlterSettings { of, set: pairs(set), remove: vec!["x".into()] }
}

fn meta(golden: &mut Golden) {
    golden.variants("MetaCommand", &meta_commands());
    golden.variants(
        "SettingsOf",
        &[SettingsOf::Cluster, SettingsOf::Broker(NodeId(2)), SettingsOf::Group(GROUP.into())],
    );
    golden.variants(
        "MetaReply",
        &[
            MetaReply::Done,
            MetaReply::Created { first: 0xe1 },
            MetaReply::TopicExists,
            MetaReply::NameCollides("가.나".into()),
            MetaReply::UnknownTopic,
            MetaReply::NotMore(0xe2),
            MetaReply::TooMany,
            MetaReply::ProducerIds { first: 0xe3 },
        ],
    );
}

fn part_row() -> PartRow {
    let segment = SegmentInfo {
        base_offset: 0xf1,
        generation: 0xf2,
        len: 0xf3,
        crc: 0xf4f5_f6f7,
        next_offset: 0xf8,
        max_timestamp_ms: TIME_MS,
    };
    let spec = plan();
    let compaction = Compaction {
        plans: vec![Plan { spec, generation: 0x12, log_start: 0x13, log_end: 0x14 }],
        generation: 0x15,
        compacted_to: 0x16,
        clean_to: 0x17,
        planned_at_ms: 0x18,
        next_horizon_ms: 0x19,
    };
    PartRow {
        dir: "000102-1.7".into(),
        segments: vec![segment],
        end: 0x1a,
        log_start: 0x1b,
        epochs: vec![(0x1c, 0x1d)],
        settings: SETTINGS,
        active_since_ms: 0x1e,
        roll_next: true,
        producer_rows: 0x1f,
        compaction,
    }
}

fn txn(state: TxnState) -> Txn {
    Txn {
        producer_id: 0x21,
        previous_id: 0x22,
        next_id: 0x23,
        epoch: 0x24,
        last_epoch: 0x25,
        timeout_ms: 0x26,
        state,
        number: 0x27,
        parts: vec![KEY],
        groups: vec![GROUP.into()],
        start_ms: 0x28,
        update_ms: 0x29,
        epoch_since_ms: 0x2a,
        bumps: true,
    }
}

fn rows(golden: &mut Golden) {
    golden.value("PartRow", &part_row());
    golden.shown::<Producer>(
        "Producer",
        &(0x31i16, 0x32i64, vec![(0x33i32, 0x34i32, 0x35i64)]),
        "Producer { epoch: 49, last_time_ms: 50, batches: \
         [Seen { first_sequence: 51, last_sequence: 52, base_offset: 53 }] }",
    );
    // Its type has no name outside of its module.
    let mut held = PartTxns::default();
    let fields = vec![(0x36i64, (Some((0x37i64, 0x38u64)), 0x39u64, 0x3ai32))];
    held.take_held(codec::decode(&codec::encode(&fields)).unwrap());
    let held = held.held_rows(10).remove(0);
    golden.value("HeldRow", &held);
    assert_eq!(
        format!("{held:?}"),
        "HeldRow([(54, Held { open: Some((55, 56)), ended: 57, coordinator_epoch: 58 })])"
    );
    let (producer_id, first_offset) = (0x3b, 0x3c);
    let aborted = AbortedTxn { producer_id, first_offset, last_offset: 0x3d, stable_offset: 0x3e };
    golden.value("AbortedTxn", &aborted);
    golden.value("OffsetRow", &OffsetRow::of(&entry(), TIME_MS));
    let version = Bytes::from_static(b"version");
    golden.value("LedgerRow", &LedgerRow { version, offset: 0x41, state: 2, time_ms: TIME_MS });
    golden.variants("GroupRow", &[group_row(), empty_group_row()]);
    golden.variants("ConsumerGroupRow", &[consumer_group_row()]);
    golden.variants("ConsumerMemberRow", &[consumer_member_row()]);
    golden.variants("Progress", &[Progress::Stable, Progress::Revoking, Progress::Waiting]);
    golden.variants("TxnRow", &TxnState::ALL.map(|state| TxnRow::V1(txn(state))));
    golden.variants("TxnState", &TxnState::ALL);
    golden.shown::<GroupTxnRow>(
        "GroupTxnRow",
        &(0x43i16, 0x44u64, 0x45u64, 0x46i64),
        "GroupTxnRow { epoch: 67, open: 68, ended: 69, time_ms: 70 }",
    );
}

/// Applies commands one after the other, each at its own index.
fn apply(machine: &mut dyn StateMachine, rows: &mut Rows<'_>, commands: Vec<Bytes>) {
    for (index, command) in (1..).zip(commands) {
        let at = ApplyAt { group: GroupId::data(0), index, term: 5, time_ms: TIME_MS };
        machine.apply(&at, command, rows).unwrap();
    }
}

fn meta_rows(golden: &mut Golden) {
    let (topics, restored) = (Topics::default(), Topics::default());
    let (store, mut pending) = (MemStore::default(), BTreeMap::new());
    let mut rows = Rows::new(&store, &mut pending, tags::LOG);
    let lasting = |command: &MetaCommand| !matches!(command, MetaCommand::DeleteTopic { .. });
    let commands = meta_commands().into_iter().filter(lasting);
    let commands = commands.map(|command| codec::encode(&command).into()).collect();
    apply(&mut MetaMachine::new(topics.clone()), &mut rows, commands);
    let found = rows.scan(b"").unwrap();
    golden.rows("m0", found);
    MetaMachine::new(restored.clone()).restore(&rows).unwrap();
    assert_eq!(restored.all(), topics.all());
    assert_eq!(topics.all().len(), 1);
    for of in [SettingsOf::Cluster, SettingsOf::Broker(NodeId(2)), SettingsOf::Group(GROUP.into())]
    {
        assert_eq!(restored.settings(&of), topics.settings(&of));
        assert_eq!(topics.settings(&of).len(), 1);
    }
}

/// Commands that leave a row of every kind.
fn story() -> Vec<Bytes> {
    let key = PartKey { topic: TOPIC, partition: 1 };
    let batch = build(&[RecordRef::value("기록".as_bytes(), TIME_MS)]);
    let produce = |claim, batch: &[u8]| command::produce(key, claim, batch).0.freeze();
    let id =
        |command| command::transactions(&TxnCommand::Id { id: "거래".into(), command }).unwrap();
    let producer = ProducerEpoch { producer_id: 9, epoch: 0 };
    let (group, offsets) = (GROUP.to_owned(), vec![OffsetEntry { key, ..entry() }]);
    let marker = Marker { epoch: 0, producer_id: 11, ..marker(Some(1), Outcome::Abort) };
    let once = OnceHead { key, ..head(u32::try_from(batch.len()).unwrap()) };
    // More segments than the row of a replica has.
    let many = PartKey { partition: 2, ..key };
    let small = ReplicaSettings { segment_bytes: 1, ..SETTINGS };
    let segments = (0..=SEGMENTS_PER_ROW).map(|_| produce_to(many, &batch));
    let first = command::control(&Control::CreateReplica { key: many, settings: small }).unwrap();
    let story = vec![
        command::control(&Control::CreateReplica { key, settings: SETTINGS }).unwrap(),
        produce(Claim::Plain, &with_producer(&batch, 7, 1, 0)),
        command::once(&once, std::slice::from_ref(&batch)),
        command::control(&Control::CommitOffsets {
            group: group.clone(),
            offsets: offsets.clone(),
        })
        .unwrap(),
        command::groups(&save_groups()).unwrap(),
        id(IdCommand::Init { timeout_ms: 60_000, expected: None, fresh_id: Some(9) }),
        id(IdCommand::Add {
            producer,
            parts: vec![key],
            groups: vec![group.clone()],
            number: Some(1),
        }),
        produce(Claim::Number(1), &with_transaction(&batch, 9, 0, 0)),
        command::transactions(&TxnCommand::CommitOffsets { group, producer, number: 1, offsets })
            .unwrap(),
        produce(Claim::Number(1), &with_transaction(&batch, 11, 0, 0)),
        command::transactions(&TxnCommand::Mark { marker, parts: vec![key], groups: Vec::new() })
            .unwrap(),
    ];
    story.into_iter().chain([first]).chain(segments).collect()
}

fn produce_to(key: PartKey, batch: &[u8]) -> Bytes {
    command::produce(key, Claim::Plain, batch).0.freeze()
}

fn data_rows(golden: &mut Golden) {
    let env = Env { disk: Arc::new(SimDisk::new(1)), ..Env::real() };
    env.disk.create_dir_all(Path::new("/data")).unwrap();
    let machine = || {
        let writer = SegmentWriter::start(&env, WriterOptions::default());
        let shared = LogShared::new(env.clone(), Path::new("/data"), writer).unwrap();
        shared.machine_data(GroupId::data(0))
    };
    let (store, mut pending) = (MemStore::default(), BTreeMap::new());
    let mut rows = Rows::new(&store, &mut pending, tags::LOG);
    let mut first = machine();
    apply(&mut *first, &mut rows, story());
    first.capture(&mut rows).unwrap();
    first.begin_checkpoint()().unwrap();
    let found = rows.scan(b"").unwrap();
    let kinds: BTreeSet<u8> = found.iter().filter_map(|(key, _)| key.first().copied()).collect();
    assert_eq!(kinds, BTreeSet::from(*b"RSCPTAOFLgtxy"), "a row of every kind");
    golden.rows("data", found);
    let digest = crate::tests::digest(&mut *first);
    first.release().unwrap();
    let mut second = machine();
    second.restore(&rows).unwrap();
    assert_eq!(crate::tests::digest(&mut *second), digest);
}

#[test]
fn golden() {
    let mut golden = Golden::open(concat!(env!("CARGO_MANIFEST_DIR"), "/src/golden.txt"));
    data_commands(&mut golden);
    data_replies(&mut golden);
    meta(&mut golden);
    rows(&mut golden);
    meta_rows(&mut golden);
    data_rows(&mut golden);
    golden.check();
}

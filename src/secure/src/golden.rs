//! The bytes of commands, replies and rows; see [`base::golden`].

use std::collections::BTreeMap;

use base::golden::Golden;
use base::{GroupId, codec};
use consensus::{ApplyAt, MemStore, Rows, tags};

use crate::acl::{
    Binding, Filter, Operation, PatternFilter, PatternType, Permission, ResourceType,
};
use crate::command::{AclResult, Command, Reply, UserChange, UserResult, Verifiers};
use crate::quota::{Entity, PRODUCER_BYTE_RATE, Who};
use crate::scram::{Hash, Verifier};
use crate::store::Store;

fn verifier(hash: Hash) -> Verifier {
    let len = match hash {
        Hash::Sha256 => 32,
        Hash::Sha512 => 64,
    };
    Verifier::of_keys(hash, vec![0x11, 0x12, 0x13], 4_097, vec![0x21; len], vec![0x31; len])
        .unwrap()
}

fn verifiers() -> Verifiers {
    Hash::ALL.map(|hash| (hash, verifier(hash))).into()
}

fn binding() -> Binding {
    Binding {
        resource: ResourceType::Group,
        pattern: PatternType::Prefixed,
        name: "그룹".into(),
        principal: "User:사용자".into(),
        host: "10.0.0.1".into(),
        operation: Operation::Describe,
        permission: Permission::Allow,
    }
}

fn filter(pattern: PatternFilter) -> Filter {
    Filter {
        resource: Some(ResourceType::Topic),
        pattern,
        name: Some("토픽".into()),
        principal: Some("User:가".into()),
        host: Some("*".into()),
        operation: Some(Operation::Write),
        permission: Some(Permission::Deny),
    }
}

fn entity() -> Entity {
    Entity {
        user: Some(Who::Named("사용자".into())),
        client: Some(Who::Default),
        ip: Some(Who::Named("10.0.0.2".into())),
    }
}

fn commands() -> Vec<Command> {
    let name = || "사용자".to_owned();
    let changes = vec![
        UserChange::Set {
            name: "나".into(), hash: Hash::Sha512, verifier: verifier(Hash::Sha512)
        },
        UserChange::Remove { name: "다".into(), hash: Hash::Sha256 },
    ];
    let quotas = vec![(PRODUCER_BYTE_RATE.to_owned(), Some(1_024.5)), ("removed".to_owned(), None)];
    vec![
        Command::EnsureUser { name: name(), verifiers: verifiers() },
        Command::AlterUsers { changes },
        Command::DeleteUser { name: name() },
        Command::CreateAcls { entries: vec![binding()] },
        Command::DeleteAcls { filters: vec![filter(PatternFilter::Match)] },
        Command::AlterQuotas { changes: vec![(entity(), quotas)] },
    ]
}

fn enums(golden: &mut Golden) {
    golden.variants("ResourceType", ResourceType::ALL);
    golden.variants("PatternType", PatternType::ALL);
    golden.variants("Operation", Operation::ALL);
    golden.variants("Permission", Permission::ALL);
    golden.variants("Hash", &Hash::ALL);
    golden.variants("Who", &[Who::Default, Who::Named("사용자".into())]);
    golden.variants("UserResult", &[UserResult::Done, UserResult::NotFound, UserResult::TooMany]);
    golden.variants("AclResult", &[AclResult::Done, AclResult::TooMany]);
    let only = PatternFilter::Only(PatternType::Prefixed);
    golden.variants("PatternFilter", &[PatternFilter::Any, PatternFilter::Match, only]);
}

fn rows(golden: &mut Golden) {
    let (store, restored) = (Store::default(), Store::default());
    let (table, mut pending) = (MemStore::default(), BTreeMap::new());
    let mut rows = Rows::new(&table, &mut pending, tags::SECURITY);
    let mut machine = store.machine_m0();
    let lasting = |command: &Command| match command {
        Command::EnsureUser { .. }
        | Command::AlterUsers { .. }
        | Command::CreateAcls { .. }
        | Command::AlterQuotas { .. } => true,
        Command::DeleteUser { .. } | Command::DeleteAcls { .. } => false,
    };
    for (index, command) in (1..).zip(commands().into_iter().filter(lasting)) {
        let at = ApplyAt { group: GroupId::M0, index, term: 1, time_ms: 1 };
        machine.apply(&at, codec::encode(&command).into(), &mut rows).unwrap();
    }
    let found = rows.scan(b"").unwrap();
    assert_eq!(found.len(), 5);
    golden.rows("m0", found);
    restored.machine_m0().restore(&rows).unwrap();
    assert_eq!(restored.user("사용자").unwrap().verifiers, verifiers());
    assert_eq!(restored.user("나"), store.user("나"));
    assert_eq!(restored.user("나").unwrap().newest, Some(Hash::Sha512));
    assert_eq!(restored.users(), store.users());
    assert_eq!(restored.acls().entries(), store.acls().entries());
    assert_eq!(*restored.quotas(), *store.quotas());
}

#[test]
fn golden() {
    let mut golden = Golden::open(concat!(env!("CARGO_MANIFEST_DIR"), "/src/golden.txt"));
    enums(&mut golden);
    golden.value("Verifier", &verifier(Hash::Sha256));
    golden.value("Binding", &binding());
    golden.value("Filter", &filter(PatternFilter::Any));
    golden.value("Entity", &entity());
    golden.variants("Command", &commands());
    let Command::AlterUsers { changes } = commands().swap_remove(1) else { panic!("changes") };
    golden.variants("UserChange", &changes);
    golden.variants(
        "Reply",
        &[
            Reply::Users(vec![UserResult::NotFound]),
            Reply::Acls(vec![AclResult::TooMany]),
            Reply::Removed(vec![vec![binding()]]),
            Reply::Quotas(vec![AclResult::Done]),
        ],
    );
    rows(&mut golden);
    golden.check();
}

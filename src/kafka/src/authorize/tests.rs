//! Every request of the version table against clients that may do nothing, everything, or one
//! thing.

use std::collections::BTreeSet;

use base::GroupId;
use consensus::solo::SoloGroup;
use consensus::tags;
use secure::acl::{Binding, EVERYBODY, PatternType, Permission, Rules, WILDCARD};
use secure::{Security, Store};

use super::*;
use crate::codec::messages::*;
use crate::codec::sample::Gen;
use crate::codec::{ApiKey, TABLE, encode_response};

struct Known;

impl Facts for Known {
    fn exists(&self, topic: &str) -> bool {
        topic.starts_with("known")
    }

    fn name_of(&self, _: Uuid) -> Option<String> {
        Some("known".to_owned())
    }

    fn creates(&self) -> bool {
        true
    }
}

fn access(rules: Option<Rules>) -> Access {
    let store = Store::default();
    let m0 = SoloGroup::new(GroupId::M0, vec![(tags::SECURITY, store.machine_m0())]);
    let caller = Arc::new(Caller::of_user("10.0.0.1:5".parse().unwrap(), "alice", None));
    Access::new(&Security::new(store, m0, rules), &caller)
}

/// May do exactly these things.
fn allowed(entries: &[(Operation, ResourceType, &str)]) -> Access {
    let store = Store::default();
    let m0 = SoloGroup::new(GroupId::M0, vec![(tags::SECURITY, store.machine_m0())]);
    let security = Security::new(store, m0, Some(Rules::default()));
    let entry = |(operation, resource, name): &(Operation, ResourceType, &str)| Binding {
        resource: *resource,
        pattern: PatternType::Literal,
        name: (*name).to_owned(),
        principal: EVERYBODY.to_owned(),
        host: WILDCARD.to_owned(),
        operation: *operation,
        permission: Permission::Allow,
    };
    let entries = entries.iter().map(entry).collect();
    let created = futures::executor::block_on(security.create_acls(entries));
    assert!(created.is_ok());
    let caller = Arc::new(Caller::of_user("10.0.0.1:5".parse().unwrap(), "alice", None));
    Access::new(&security, &caller)
}

/// Made-up requests of every API in every version.
fn requests() -> impl Iterator<Item = (i16, RequestBody)> {
    TABLE.iter().flat_map(|api| {
        (api.min..=api.max).flat_map(move |version| {
            (0..ROUNDS).map(move |round| {
                let mut g = Gen::new(round << 8 | u64::from(version.cast_unsigned()));
                (version, RequestBody::sample(api.key, &mut g, api.ctx(version)))
            })
        })
    })
}

/// Requests made up for each API and version.
const ROUNDS: u64 = 30;

/// Whether a request may name nothing that could be denied: some list of it is empty or missing.
fn may_be_empty(body: &RequestBody) -> bool {
    let text = format!("{body:?}");
    text.contains("[]") || text.contains(": None")
}

/// APIs that reach their handler whoever asks: they tell nothing, filter what they tell
/// ([`rules::Rule::shown`]) or ask themselves.
const OPEN: &[ApiKey] = &[
    ApiKey::ApiVersions,
    ApiKey::SaslHandshake,
    ApiKey::SaslAuthenticate,
    ApiKey::DescribeCluster,
    ApiKey::Metadata,
    ApiKey::ListGroups,
    ApiKey::ListTransactions,
    ApiKey::Fetch,
];

#[test]
fn who_may_do_nothing_reaches_no_handler() {
    let access = access(Some(Rules::default()));
    let mut refused = BTreeSet::new();
    for (version, body) in requests() {
        let (key, empty) = (body.key(), may_be_empty(&body));
        let whole = !rule_of(key).whole.is_empty();
        match gate(&Known, &access, version, body) {
            Verdict::Pass(..) => {
                let passes = OPEN.contains(&key) || empty && !whole;
                assert!(passes, "{key:?} v{version} passes");
            }
            Verdict::Refuse(response) => {
                assert!(!OPEN.contains(&key), "{key:?} v{version} is refused");
                assert_eq!(response.key(), key);
                let text = format!("{response:?}");
                let codes = ["code: 29", "code: 30", "code: 31", "code: 53"];
                let told = codes.iter().any(|code| text.contains(code));
                assert!(told || empty, "{key:?} v{version} does not say why: {text}");
                assert!(encode_response(1, version, &response).is_ok(), "{key:?} v{version}");
                refused.insert((key.number(), version));
            }
        }
    }
    for api in TABLE.iter().filter(|api| !OPEN.contains(&api.key)) {
        for version in api.min..=api.max {
            assert!(refused.contains(&(api.key.number(), version)), "{:?} v{version}", api.key);
        }
    }
}

#[test]
fn who_may_do_everything_passes_unchanged() {
    let rules = Rules { super_users: ["User:alice".to_owned()].into(), ..Rules::default() };
    for access in [access(None), access(Some(rules))] {
        for (version, body) in requests() {
            match gate(&Known, &access, version, body.clone()) {
                Verdict::Pass(passed, _) => assert_eq!(passed, body),
                Verdict::Refuse(_) => panic!("{:?} v{version} is refused", body.key()),
            }
        }
    }
}

#[test]
fn every_api_has_the_needs_of_kafka() {
    use Operation::*;
    use ResourceType::{Cluster, Group, Topic, TransactionalId};
    // (API, for the whole, for each, to be shown) as in KafkaApis.
    let whole = |key, need| (key, vec![need], None, None);
    let each = |key, need| (key, vec![], Some(need), None);
    let expected = [
        each(ApiKey::Produce, (Write, Topic)),
        each(ApiKey::Fetch, (Read, Topic)),
        each(ApiKey::ListOffsets, (Describe, Topic)),
        (ApiKey::Metadata, vec![], Some((Describe, Topic)), Some((Describe, Topic))),
        (ApiKey::OffsetCommit, vec![(Read, Group)], Some((Read, Topic)), None),
        (ApiKey::OffsetFetch, vec![], Some((Describe, Group)), Some((Describe, Topic))),
        each(ApiKey::FindCoordinator, (Describe, Group)),
        whole(ApiKey::JoinGroup, (Read, Group)),
        whole(ApiKey::Heartbeat, (Read, Group)),
        whole(ApiKey::LeaveGroup, (Read, Group)),
        whole(ApiKey::SyncGroup, (Read, Group)),
        each(ApiKey::DescribeGroups, (Describe, Group)),
        (ApiKey::ListGroups, vec![], None, Some((Describe, Group))),
        (ApiKey::ConsumerGroupHeartbeat, vec![(Read, Group)], Some((Describe, Topic)), None),
        (ApiKey::ConsumerGroupDescribe, vec![], Some((Describe, Group)), Some((Describe, Topic))),
        (ApiKey::CreateTopics, vec![], Some((Create, Topic)), Some((DescribeConfigs, Topic))),
        each(ApiKey::DeleteTopics, (Delete, Topic)),
        each(ApiKey::DeleteRecords, (Delete, Topic)),
        whole(ApiKey::InitProducerId, (IdempotentWrite, Cluster)),
        each(ApiKey::OffsetForLeaderEpoch, (Describe, Topic)),
        whole(ApiKey::DescribeAcls, (Describe, Cluster)),
        whole(ApiKey::CreateAcls, (Alter, Cluster)),
        whole(ApiKey::DeleteAcls, (Alter, Cluster)),
        each(ApiKey::DescribeConfigs, (DescribeConfigs, Topic)),
        each(ApiKey::AlterConfigs, (AlterConfigs, Topic)),
        each(ApiKey::CreatePartitions, (Alter, Topic)),
        each(ApiKey::DeleteGroups, (Delete, Group)),
        each(ApiKey::IncrementalAlterConfigs, (AlterConfigs, Topic)),
        (ApiKey::OffsetDelete, vec![(Delete, Group)], Some((Read, Topic)), None),
        whole(ApiKey::DescribeClientQuotas, (DescribeConfigs, Cluster)),
        whole(ApiKey::AlterClientQuotas, (AlterConfigs, Cluster)),
        whole(ApiKey::DescribeUserScramCredentials, (Describe, Cluster)),
        whole(ApiKey::AlterUserScramCredentials, (Alter, Cluster)),
        each(ApiKey::AddPartitionsToTxn, (Write, Topic)),
        (ApiKey::AddOffsetsToTxn, vec![(Write, TransactionalId), (Read, Group)], None, None),
        whole(ApiKey::EndTxn, (Write, TransactionalId)),
        whole(ApiKey::WriteTxnMarkers, (Alter, Cluster)),
        (
            ApiKey::TxnOffsetCommit,
            vec![(Write, TransactionalId), (Read, Group)],
            Some((Read, Topic)),
            None,
        ),
        whole(ApiKey::DescribeLogDirs, (Describe, Cluster)),
        whole(ApiKey::ElectLeaders, (Alter, Cluster)),
        whole(ApiKey::AlterReplicaLogDirs, (Alter, Cluster)),
        whole(ApiKey::AlterPartitionReassignments, (Alter, Cluster)),
        whole(ApiKey::ListPartitionReassignments, (Describe, Cluster)),
        whole(ApiKey::DescribeQuorum, (Describe, Cluster)),
        each(ApiKey::DescribeProducers, (Read, Topic)),
        (
            ApiKey::DescribeTransactions,
            vec![],
            Some((Describe, TransactionalId)),
            Some((Describe, Topic)),
        ),
        (ApiKey::ListTransactions, vec![], None, Some((Describe, TransactionalId))),
        whole(ApiKey::ListConfigResources, (DescribeConfigs, Cluster)),
        (ApiKey::DescribeTopicPartitions, vec![], Some((Describe, Topic)), Some((Describe, Topic))),
    ];
    for api in TABLE {
        let rule = rule_of(api.key);
        let found = expected.iter().find(|e| e.0 == api.key);
        let (_, whole, each, shown) = found.cloned().unwrap_or((api.key, vec![], None, None));
        assert_eq!((rule.whole, rule.each, rule.shown), (&whole[..], each, shown), "{api:?}");
        assert!(found.is_some() || OPEN.contains(&api.key), "{:?} has no rule", api.key);
    }
}

fn passed(access: &Access, version: i16, body: impl Into<RequestBody>) -> RequestBody {
    match gate(&Known, access, version, body.into()) {
        Verdict::Pass(body, _) => body,
        Verdict::Refuse(response) => panic!("refused: {response:?}"),
    }
}

/// The response when the handler answers `response` to what it gets.
fn answered(
    access: &Access,
    version: i16,
    body: impl Into<RequestBody>,
    response: impl Into<ResponseBody>,
) -> ResponseBody {
    let mut response = response.into();
    match gate(&Known, access, version, body.into()) {
        Verdict::Pass(_, finish) => {
            if let Some(finish) = finish {
                finish(&mut response);
            }
            response
        }
        Verdict::Refuse(response) => response,
    }
}

#[test]
fn a_request_is_served_in_part() {
    use Operation::Write;
    use ResourceType::Topic;
    let access = allowed(&[(Write, Topic, "mine")]);
    let topic = |name: &str| TopicProduceData { name: name.to_owned(), ..Default::default() };
    let part = PartitionProduceData { index: 3, ..Default::default() };
    let other = TopicProduceData { partition_data: vec![part], ..topic("other") };
    let request = ProduceRequest { topic_data: vec![topic("mine"), other], ..Default::default() };
    let RequestBody::Produce(left) = passed(&access, 9, request.clone()) else { panic!() };
    assert_eq!(left.topic_data, [topic("mine")]);
    let done = TopicProduceResponse { name: "mine".to_owned(), ..Default::default() };
    let response = ProduceResponse { responses: vec![done], ..Default::default() };
    let ResponseBody::Produce(told) = answered(&access, 9, request, response) else { panic!() };
    let names: Vec<&str> = told.responses.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["mine", "other"]);
    let part = &told.responses[1].partition_responses[0];
    assert_eq!((part.index, part.error_code, part.base_offset), (3, 29, -1));
}

#[test]
fn a_transactional_produce_needs_its_id() {
    use Operation::Write;
    use ResourceType::{Topic, TransactionalId};
    let topic = TopicProduceData {
        name: "t".to_owned(),
        partition_data: vec![PartitionProduceData::default()],
    };
    let request = ProduceRequest {
        transactional_id: Some("tx".to_owned()),
        topic_data: vec![topic],
        ..Default::default()
    };
    let without = allowed(&[(Write, Topic, "t")]);
    let ResponseBody::Produce(told) =
        answered(&without, 9, request.clone(), ProduceResponse::default())
    else {
        panic!()
    };
    assert_eq!(told.responses[0].partition_responses[0].error_code, 53);
    let with = allowed(&[(Write, Topic, "t"), (Write, TransactionalId, "tx")]);
    assert_eq!(passed(&with, 9, request.clone()), request.into());
}

#[test]
fn metadata_hides_what_may_not_be_described() {
    use Operation::{Create, Describe, Read};
    use ResourceType::Topic;
    let access = allowed(&[
        (Read, Topic, "known1"),
        (Describe, Topic, "new1"),
        (Describe, Topic, "new2"),
        (Create, Topic, "new2"),
    ]);
    let shown =
        |name: &str| MetadataResponseTopic { name: Some(name.to_owned()), ..Default::default() };
    let all = MetadataRequest { topics: None, ..Default::default() };
    let response =
        MetadataResponse { topics: vec![shown("known1"), shown("known2")], ..Default::default() };
    let ResponseBody::Metadata(told) = answered(&access, 9, all, response) else { panic!() };
    assert_eq!(told.topics, [shown("known1")]);
    let ask =
        |name: &str| MetadataRequestTopic { name: Some(name.to_owned()), ..Default::default() };
    let names = ["known1", "known2", "new1", "new2"];
    let named = MetadataRequest { topics: Some(names.map(ask).to_vec()), ..Default::default() };
    let RequestBody::Metadata(left) = passed(&access, 9, named.clone()) else { panic!() };
    assert_eq!(left.topics, Some(vec![ask("known1"), ask("new2")]));
    let ResponseBody::Metadata(told) = answered(&access, 9, named, MetadataResponse::default())
    else {
        panic!()
    };
    let codes: Vec<(&str, i16)> =
        told.topics.iter().map(|t| (t.name.as_deref().unwrap(), t.error_code)).collect();
    assert_eq!(codes, [("known2", 29), ("new1", 29)]);
    // Version 0 asks for all with an empty list; nothing left must not become that.
    let old = MetadataRequest { topics: Some(vec![ask("known2")]), ..Default::default() };
    let response = MetadataResponse { topics: vec![shown("known1")], ..Default::default() };
    let ResponseBody::Metadata(told) = answered(&access, 0, old, response) else { panic!() };
    assert_eq!(told.topics.len(), 1);
    assert_eq!(told.topics[0].error_code, 29);
}

#[test]
fn operations_that_are_allowed_are_told_when_asked() {
    use Operation::{Describe, Read, Write};
    use ResourceType::{Cluster, Topic};
    let access = allowed(&[(Read, Topic, "known1"), (Write, Topic, "known1")]);
    let request = MetadataRequest {
        include_topic_authorized_operations: true,
        include_cluster_authorized_operations: true,
        ..Default::default()
    };
    let topic = MetadataResponseTopic { name: Some("known1".into()), ..Default::default() };
    let response = MetadataResponse { topics: vec![topic], ..Default::default() };
    let ResponseBody::Metadata(told) = answered(&access, 9, request, response) else { panic!() };
    let bits = |ops: &[Operation]| ops.iter().fold(0, |bits, op| bits | 1 << op.number());
    assert_eq!(told.topics[0].topic_authorized_operations, bits(&[Read, Write, Describe]));
    assert_eq!(told.cluster_authorized_operations, 0, "for those who may not describe it");
    let request = || DescribeClusterRequest {
        include_cluster_authorized_operations: true,
        ..Default::default()
    };
    let operations = |access: &Access| {
        let told = answered(access, 0, request(), DescribeClusterResponse::default());
        let ResponseBody::DescribeCluster(told) = told else { panic!() };
        told.cluster_authorized_operations
    };
    assert_eq!(operations(&allowed(&[(Describe, Cluster, CLUSTER)])), bits(&[Describe]));
    let open = bits(Cluster.operations());
    assert_eq!(operations(&self::access(None)), open, "uncontrolled, everything is allowed");
}

#[test]
fn an_idempotent_producer_may_write_somewhere() {
    use Operation::{IdempotentWrite, Read, Write};
    use ResourceType::{Cluster, Topic, TransactionalId};
    let refused = |access: &Access, id: Option<&str>| {
        let request = InitProducerIdRequest {
            transactional_id: id.map(ToOwned::to_owned),
            ..Default::default()
        };
        let told = answered(access, 4, request, InitProducerIdResponse::default());
        let ResponseBody::InitProducerId(told) = told else { panic!() };
        told.error_code
    };
    assert_eq!(refused(&allowed(&[(Read, Topic, "t")]), None), 31);
    assert_eq!(refused(&allowed(&[(Write, Topic, "t")]), None), 0);
    assert_eq!(refused(&allowed(&[(IdempotentWrite, Cluster, CLUSTER)]), None), 0);
    assert_eq!(refused(&allowed(&[(Write, Topic, "t")]), Some("tx")), 53);
    assert_eq!(refused(&allowed(&[(Write, TransactionalId, "tx")]), Some("tx")), 0);
}

#[test]
fn members_subscribe_to_topics_that_they_may_describe() {
    use Operation::{Describe, Read};
    use ResourceType::{Group, Topic};
    let access = allowed(&[(Read, Group, "g"), (Describe, Topic, "mine")]);
    let names = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
    let beat = |subscribed_topic_names| ConsumerGroupHeartbeatRequest {
        group_id: "g".to_owned(),
        subscribed_topic_names,
        ..Default::default()
    };
    for allowed in [None, names(&[]), names(&["mine"])] {
        let request = beat(allowed);
        assert_eq!(passed(&access, 1, request.clone()), request.into());
    }
    let silence = ConsumerGroupHeartbeatResponse::default();
    let code = |request: ConsumerGroupHeartbeatRequest| match answered(
        &access,
        1,
        request,
        silence.clone(),
    ) {
        ResponseBody::ConsumerGroupHeartbeat(told) => told.error_code,
        other => panic!("{other:?}"),
    };
    assert_eq!(code(beat(names(&["mine", "other"]))), 29);
    let other = ConsumerGroupHeartbeatRequest { group_id: "h".to_owned(), ..beat(None) };
    assert_eq!(code(other), 30);
}

#[test]
fn a_group_whose_topics_are_hidden_is_not_described() {
    use Operation::Describe;
    use ResourceType::{Group, Topic};
    let access =
        allowed(&[(Describe, Group, "g"), (Describe, Group, "h"), (Describe, Topic, "mine")]);
    let group_ids = ["g", "h", "secret"].map(str::to_owned).to_vec();
    let request = ConsumerGroupDescribeRequest { group_ids, include_authorized_operations: true };
    let RequestBody::ConsumerGroupDescribe(left) = passed(&access, 1, request.clone()) else {
        panic!()
    };
    assert_eq!(left.group_ids, ["g", "h"]);
    let assigned = |topic: &str| DescribedAssignment {
        topic_partitions: vec![DescribedTopicParts {
            topic_name: topic.to_owned(),
            ..Default::default()
        }],
    };
    let group = |id: &str, member| DescribedConsumerGroup {
        group_id: id.to_owned(),
        members: vec![member],
        ..Default::default()
    };
    let shown = DescribedConsumerMember { assignment: assigned("mine"), ..Default::default() };
    let names = vec!["mine".to_owned()];
    let shown = DescribedConsumerMember { subscribed_topic_names: names, ..shown };
    let other = assigned("other");
    let hidden = DescribedConsumerMember { target_assignment: other, ..shown.clone() };
    let groups = vec![group("g", shown), group("h", hidden)];
    let response = ConsumerGroupDescribeResponse { groups, ..Default::default() };
    let ResponseBody::ConsumerGroupDescribe(told) = answered(&access, 1, request, response) else {
        panic!()
    };
    let told = told.groups.iter();
    let told = told.map(|g| (g.group_id.as_str(), g.error_code, g.members.len()));
    assert_eq!(told.collect::<Vec<_>>(), [("g", 0, 1), ("h", 29, 0), ("secret", 30, 0)]);
}

//! The consumer group APIs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use log::groups::{
    CommitCheck, CommitVia, Described, FetchCheck, GroupError, Heartbeat, Join, Leave, MemberName,
    Sync as SyncGroup,
};
use log::limits::{MAX_ALL_PARTITIONS, MAX_OFFSETS_PER_COMMIT};
use log::{CommittedOffset, LogError, OffsetToCommit};

use super::may_exist;
use crate::codec::messages::*;
use crate::errors;
use crate::gateway::Shared;
use crate::outgoing::Holds;

/// An empty static name counts as none.
fn instance(name: Option<String>) -> Option<String> {
    name.filter(|name| !name.is_empty())
}

pub(crate) async fn join(
    shared: &Arc<Shared>,
    request: JoinGroupRequest,
    version: i16,
    client_id: String,
    peer: SocketAddr,
    holds: &mut Holds,
) -> JoinGroupResponse {
    let session = i64::from(request.session_timeout_ms);
    let rebalance = i64::from(request.rebalance_timeout_ms);
    let protocols = request.protocols.into_iter().map(|p| (p.name, p.metadata)).collect();
    let join = Join {
        group: request.group_id,
        member: request.member_id,
        instance: instance(request.group_instance_id),
        client_id,
        client_host: format!("/{}", peer.ip()),
        session_timeout_ms: session,
        // Version 0 has no rebalance timeout of its own.
        rebalance_timeout_ms: if version == 0 { session } else { rebalance.max(0) },
        protocol_type: request.protocol_type,
        protocols,
        require_known_id: version >= 4,
        can_skip_assignment: version >= 9,
    };
    let joining = shared.backend.consumer_groups.join(join);
    // The group has what it keeps, and the rest of it may take minutes to come.
    holds.request = None;
    let reply = joining.await;
    let members = reply.members.into_iter().map(|m| JoinGroupResponseMember {
        member_id: m.id,
        group_instance_id: m.instance,
        metadata: m.metadata,
    });
    // Before version 7 the protocol must not be null.
    let empty = (version < 7).then(String::new);
    JoinGroupResponse {
        error_code: reply.error.map_or(errors::NONE, errors::group_code),
        generation_id: reply.generation,
        protocol_type: reply.protocol_type,
        protocol_name: reply.protocol.or(empty),
        leader: reply.leader,
        skip_assignment: reply.skip_assignment,
        member_id: reply.member,
        members: members.collect(),
        ..Default::default()
    }
}

pub(crate) async fn sync(
    shared: &Arc<Shared>,
    request: SyncGroupRequest,
    holds: &mut Holds,
) -> SyncGroupResponse {
    let assignments = request.assignments.into_iter();
    let sync = SyncGroup {
        group: request.group_id,
        generation: request.generation_id,
        member: request.member_id,
        instance: instance(request.group_instance_id),
        protocol_type: request.protocol_type,
        protocol: request.protocol_name,
        assignments: assignments.map(|a| (a.member_id, a.assignment)).collect(),
    };
    let waiting = shared.backend.consumer_groups.sync(sync);
    holds.request = None;
    match waiting.await {
        Ok(reply) => SyncGroupResponse {
            protocol_type: reply.protocol_type,
            protocol_name: reply.protocol,
            assignment: reply.assignment,
            ..Default::default()
        },
        Err(error) => {
            SyncGroupResponse { error_code: errors::group_code(error), ..Default::default() }
        }
    }
}

pub(crate) fn heartbeat(shared: &Arc<Shared>, request: &HeartbeatRequest) -> HeartbeatResponse {
    let beat = Heartbeat {
        group: request.group_id.clone(),
        generation: request.generation_id,
        member: request.member_id.clone(),
        instance: instance(request.group_instance_id.clone()),
    };
    let result = shared.backend.consumer_groups.heartbeat(&beat);
    HeartbeatResponse { error_code: errors::group_result(&result), ..Default::default() }
}

pub(crate) fn leave(
    shared: &Arc<Shared>,
    request: LeaveGroupRequest,
    version: i16,
) -> LeaveGroupResponse {
    let single = MemberName { id: request.member_id, instance: None };
    let members = if version < 3 {
        vec![single]
    } else {
        let name = |m: MemberIdentity| MemberName {
            id: m.member_id,
            instance: instance(m.group_instance_id),
        };
        request.members.into_iter().map(name).collect()
    };
    let leave = Leave { group: request.group_id, members };
    let results = match shared.backend.consumer_groups.leave(&leave) {
        Ok(results) => results,
        Err(error) => {
            let error_code = errors::group_code(error);
            return LeaveGroupResponse { error_code, ..Default::default() };
        }
    };
    let code = |error: Option<GroupError>| error.map_or(errors::NONE, errors::group_code);
    if version < 3 {
        let error_code = results.first().map_or(errors::NONE, |r| code(r.error));
        return LeaveGroupResponse { error_code, ..Default::default() };
    }
    let members = results.into_iter().map(|result| LeaveGroupMemberResponse {
        member_id: result.member.id,
        group_instance_id: result.member.instance,
        error_code: code(result.error),
    });
    LeaveGroupResponse { members: members.collect(), ..Default::default() }
}

pub(crate) async fn describe(
    shared: &Arc<Shared>,
    request: DescribeGroupsRequest,
    version: i16,
) -> DescribeGroupsResponse {
    let mut groups = Vec::new();
    // What is asked for twice is answered once.
    for id in request.groups.into_iter().collect::<BTreeSet<_>>() {
        groups.push(describe_one(shared, id, version).await);
    }
    DescribeGroupsResponse { throttle_time_ms: 0, groups }
}

async fn describe_one(shared: &Arc<Shared>, id: String, version: i16) -> DescribedGroup {
    let mut answer = DescribedGroup { group_id: id.clone(), ..Default::default() };
    match shared.backend.consumer_groups.describe(&id) {
        Err(error) => answer.error_code = errors::group_code(error),
        Ok(Some(Described::Classic(group))) => {
            answer.group_state = group.state.name().to_owned();
            answer.protocol_type = group.protocol_type;
            answer.protocol_data = group.protocol;
            let members = group.members.into_iter().map(|m| DescribedGroupMember {
                member_id: m.id,
                group_instance_id: m.instance,
                client_id: m.client_id,
                client_host: m.client_host,
                member_metadata: m.metadata,
                member_assignment: m.assignment,
            });
            answer.members = members.collect();
        }
        // Whoever wants to know more of it asks with ConsumerGroupDescribe.
        Ok(Some(Described::Consumer(_))) => dead(&mut answer, "is not a classic group", version),
        Ok(None) => match has_offsets(shared, &id).await {
            Ok(true) => answer.group_state = "Empty".to_owned(),
            Ok(false) => dead(&mut answer, "not found", version),
            Err(code) => answer.error_code = code,
        },
    }
    answer
}

fn dead(answer: &mut DescribedGroup, why: &str, version: i16) {
    answer.group_state = "Dead".to_owned();
    // KIP-1043: from version 6 a group that does not exist is an error.
    if version >= 6 {
        answer.error_code = errors::GROUP_ID_NOT_FOUND;
        answer.error_message = Some(format!("Group {} {why}.", answer.group_id));
    }
}

/// Whether a group has committed offsets. A coordinator that cannot tell must not say that there
/// is no such group: clients take that for final.
pub(super) async fn has_offsets(shared: &Arc<Shared>, group: &str) -> Result<bool, errors::Code> {
    let offsets = shared.backend.log.fetch_offsets(group).await;
    offsets.map(|offsets| !offsets.is_empty()).map_err(|error| admin_code(&error))
}

pub(crate) async fn list(shared: &Arc<Shared>, request: &ListGroupsRequest) -> ListGroupsResponse {
    let mut all: BTreeMap<String, (String, &'static str, &'static str)> = BTreeMap::new();
    for id in shared.backend.log.groups_with_offsets().unwrap_or_default() {
        if shared.backend.consumer_groups.check_coordinator(&id).is_ok() {
            all.insert(id, (String::new(), "Empty", "classic"));
        }
    }
    for group in shared.backend.consumer_groups.list() {
        all.insert(group.id, (group.protocol_type, group.state, group.group_type));
    }
    let wanted = |filter: &[String], value: &str| {
        filter.is_empty() || filter.iter().any(|f| f.eq_ignore_ascii_case(value))
    };
    let groups = all
        .into_iter()
        .filter(|(_, (_, state, group_type))| {
            wanted(&request.states_filter, state) && wanted(&request.types_filter, group_type)
        })
        .map(|(group_id, (protocol_type, state, group_type))| ListedGroup {
            group_id,
            protocol_type,
            group_state: state.to_owned(),
            group_type: group_type.to_owned(),
        });
    ListGroupsResponse { groups: groups.collect(), ..Default::default() }
}

pub(crate) async fn delete(
    shared: &Arc<Shared>,
    request: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    let (mut results, mut seen) = (Vec::new(), BTreeSet::new());
    for group_id in request.groups_names {
        if !seen.insert(group_id.clone()) {
            continue;
        }
        let error_code = delete_one(shared, &group_id).await;
        results.push(DeletableGroupResult { group_id, error_code });
    }
    DeleteGroupsResponse { throttle_time_ms: 0, results }
}

async fn delete_one(shared: &Arc<Shared>, group: &str) -> errors::Code {
    match shared.backend.consumer_groups.delete(group).await {
        Err(error) => return errors::group_code(error),
        Ok(true) => {}
        // One without a row may have offsets.
        Ok(false) => match has_offsets(shared, group).await {
            Ok(true) => {}
            Ok(false) => return errors::GROUP_ID_NOT_FOUND,
            Err(code) => return code,
        },
    }
    let deleted = shared.backend.log.delete_offsets(group, None).await;
    deleted.err().map_or(errors::NONE, |error| admin_code(&error))
}

/// Errors as those see them that describe and delete groups. A time-out is final to Java's admin
/// client; Kafka's coordinator says instead that it is not available, which is tried again.
fn admin_code(error: &LogError) -> errors::Code {
    match coordinator_code(error) {
        errors::REQUEST_TIMED_OUT => errors::COORDINATOR_NOT_AVAILABLE,
        other => other,
    }
}

/// Errors of the group's data group are errors of its coordinator.
fn coordinator_code(error: &LogError) -> errors::Code {
    match error {
        LogError::NotLeader { .. } => errors::NOT_COORDINATOR,
        LogError::Timeout => errors::REQUEST_TIMED_OUT,
        LogError::Storage(_) => errors::COORDINATOR_NOT_AVAILABLE,
        other => other.code(),
    }
}

pub(crate) async fn commit(
    shared: &Arc<Shared>,
    request: OffsetCommitRequest,
    version: i16,
) -> OffsetCommitResponse {
    let check = CommitCheck {
        group: request.group_id.clone(),
        via: if version < 9 { CommitVia::OldOffsetCommit } else { CommitVia::OffsetCommit },
        generation: request.generation_id_or_member_epoch,
        member: request.member_id.clone(),
        instance: instance(request.group_instance_id.clone()),
    };
    let checked = shared.backend.consumer_groups.check_commit(&check).map_err(errors::group_code);
    let count = request.topics.iter().map(|topic| topic.partitions.len()).sum::<usize>();
    let each = match checked {
        Ok(()) if count > MAX_OFFSETS_PER_COMMIT => Err(errors::INVALID_REQUEST),
        Ok(()) => commit_each(shared, &request).await,
        Err(code) => Err(code),
    };
    // Either one code for each partition that may be, or one for all.
    let (mut each, all) = match each {
        Ok(each) => (each.into_iter(), errors::UNKNOWN_TOPIC_OR_PARTITION),
        Err(code) => (Vec::new().into_iter(), code),
    };
    let topics = request.topics.into_iter().map(|topic| {
        let known = may_exist(&topic.name);
        let code = |_: &OffsetCommitRequestPartition| match known {
            true => each.next().unwrap_or(all),
            false => all,
        };
        let codes: Vec<errors::Code> = topic.partitions.iter().map(code).collect();
        let partitions = topic.partitions.iter().zip(codes).map(|(part, error_code)| {
            let partition_index = part.partition_index;
            OffsetCommitResponsePartition { partition_index, error_code }
        });
        OffsetCommitResponseTopic { partitions: partitions.collect(), name: topic.name }
    });
    OffsetCommitResponse { throttle_time_ms: 0, topics: topics.collect() }
}

async fn commit_each(
    shared: &Arc<Shared>,
    request: &OffsetCommitRequest,
) -> Result<Vec<errors::Code>, errors::Code> {
    let possible = request.topics.iter().filter(|topic| may_exist(&topic.name));
    let offsets = possible.flat_map(|topic| {
        topic.partitions.iter().map(|part| OffsetToCommit {
            topic: topic.name.clone(),
            partition: part.partition_index,
            offset: part.committed_offset,
            leader_epoch: part.committed_leader_epoch,
            metadata: part.committed_metadata.clone().unwrap_or_default(),
        })
    });
    let offsets: Vec<OffsetToCommit> = offsets.collect();
    let each = shared.backend.log.commit_offsets(&request.group_id, &offsets).await;
    let each = each.map_err(|error| coordinator_code(&error))?;
    Ok(each.into_iter().map(|r| r.err().map_or(errors::NONE, |e| e.code())).collect())
}

/// Topics and partitions that a request asks for; `None` for all.
type Wanted = Option<Vec<(String, Vec<i32>)>>;

/// A committed offset, or why there is none for now.
type Answered = (CommittedOffset, errors::Code);

/// Without the topic's name, which a request has once for many partitions, and so has the answer.
fn no_offset(partition: i32) -> CommittedOffset {
    CommittedOffset {
        topic: String::new(),
        partition,
        offset: -1,
        leader_epoch: -1,
        metadata: String::new(),
        commit_time_ms: -1,
    }
}

/// Committed offsets of one group, by topic and partition; `wanted` keeps the order asked for.
/// With `require_stable`, one that a transaction under way may change is an error.
async fn committed(
    shared: &Arc<Shared>,
    group: &str,
    wanted: Wanted,
    require_stable: bool,
) -> Result<Vec<(String, Vec<Answered>)>, errors::Code> {
    let check = shared.backend.consumer_groups.check_coordinator(group);
    check.map_err(errors::group_code)?;
    let log = &shared.backend.log;
    let unstable = match require_stable {
        true => log.pending_offsets(group).await.map_err(|e| coordinator_code(&e))?,
        false => Default::default(),
    };
    let found = log.fetch_offsets(group).await.map_err(|e| coordinator_code(&e))?;
    let is_unstable = |topic: &str, partition: i32| {
        // Looked up with a name of its own, and only where anything is.
        !unstable.is_empty() && unstable.contains(&(topic.to_owned(), partition))
    };
    let mut by_topic: BTreeMap<String, BTreeMap<i32, CommittedOffset>> = BTreeMap::new();
    for offset in found {
        by_topic.entry(offset.topic.clone()).or_default().insert(offset.partition, offset);
    }
    let answered = |topic: &str, partition: i32, offset: Option<CommittedOffset>| {
        if is_unstable(topic, partition) {
            (no_offset(partition), errors::UNSTABLE_OFFSET_COMMIT)
        } else {
            (offset.unwrap_or_else(|| no_offset(partition)), errors::NONE)
        }
    };
    let Some(wanted) = wanted else {
        let topic = |(topic, parts): (String, BTreeMap<i32, CommittedOffset>)| {
            let parts = parts.into_iter().map(|(p, offset)| answered(&topic, p, Some(offset)));
            let parts = parts.collect();
            (topic, parts)
        };
        return Ok(by_topic.into_iter().map(topic).collect());
    };
    let mut told: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
    let mut topics = Vec::new();
    for (topic, mut parts) in wanted {
        // What is asked for twice is answered once: an answer may be large.
        let told = told.entry(topic.clone()).or_default();
        parts.retain(|part| told.insert(*part));
        let mut known = by_topic.get_mut(&topic);
        let mut offset_of = |part: i32| known.as_mut().and_then(|known| known.remove(&part));
        let parts = parts.into_iter().map(|part| answered(&topic, part, offset_of(part)));
        let parts = parts.collect();
        topics.push((topic, parts));
    }
    Ok(topics)
}

/// What an OffsetFetch is told that has to be asked again. Kafka, too, says this instead of a
/// time-out: Java's consumers before 3.9 end with an exception upon any error but this one and
/// COORDINATOR_LOAD_IN_PROGRESS, and this one lets them look the coordinator up.
fn fetch_code(code: errors::Code) -> errors::Code {
    match code {
        errors::REQUEST_TIMED_OUT | errors::COORDINATOR_NOT_AVAILABLE => errors::NOT_COORDINATOR,
        other => other,
    }
}

/// How long a node that does not coordinate the group waits before it says so. librdkafka asks
/// again at once, until it has found the coordinator.
const NOT_HERE_PAUSE: Duration = Duration::from_millis(100);

/// What each partition is told where the whole answer is an error.
///
/// Kafka lists no partitions then, and clients look at the error of the whole first. But
/// librdkafka 2.16 asks again only for partitions that are listed as unstable or stale: of others
/// it never reads until the group rebalances (`docs/decisions/0017-clients-and-moving-leaders.md`).
fn part_code(code: errors::Code, version: i16) -> Option<errors::Code> {
    match code {
        // Version 1 has no code for the whole.
        _ if version < 2 => Some(code),
        // Before that version nobody knows the code.
        _ if version < 7 => None,
        errors::NOT_COORDINATOR | errors::COORDINATOR_LOAD_IN_PROGRESS => {
            Some(errors::UNSTABLE_OFFSET_COMMIT)
        }
        errors::STALE_MEMBER_EPOCH => Some(code),
        _ => None,
    }
}

/// The partitions asked for, without offsets.
fn refused(wanted: Wanted, code: errors::Code, version: i16) -> Vec<(String, Vec<Answered>)> {
    let Some(code) = part_code(code, version) else { return Vec::new() };
    let topic = |(name, parts): (String, Vec<i32>)| {
        let parts = parts.into_iter().map(|part| (no_offset(part), code)).collect();
        (name, parts)
    };
    wanted.unwrap_or_default().into_iter().map(topic).collect()
}

/// Committed offsets of one group, and the error of the whole.
async fn answered(
    shared: &Arc<Shared>,
    check: FetchCheck,
    wanted: Wanted,
    require_stable: bool,
    version: i16,
) -> (Vec<(String, Vec<Answered>)>, errors::Code) {
    let allowed = shared.backend.consumer_groups.check_fetch(&check).map_err(errors::group_code);
    let found = match allowed {
        Ok(()) => committed(shared, &check.group, wanted.clone(), require_stable).await,
        Err(code) => Err(code),
    };
    match found {
        Ok(topics) => (topics, errors::NONE),
        Err(code) => {
            let code = fetch_code(code);
            if part_code(code, version) == Some(errors::UNSTABLE_OFFSET_COMMIT) {
                tokio::time::sleep(NOT_HERE_PAUSE).await;
            }
            (refused(wanted, code, version), code)
        }
    }
}

pub(crate) async fn fetch(
    shared: &Arc<Shared>,
    request: OffsetFetchRequest,
    version: i16,
) -> OffsetFetchResponse {
    let stable = request.require_stable;
    if version < 8 {
        let check = FetchCheck { group: request.group_id, member: None, epoch: -1 };
        let wanted = request.topics;
        let wanted = wanted.map(|t| t.into_iter().map(|t| (t.name, t.partition_indexes)).collect());
        let (topics, code) = answered(shared, check, wanted, stable, version).await;
        let part = |(o, error_code): Answered| OffsetFetchResponsePartition {
            partition_index: o.partition,
            committed_offset: o.offset,
            committed_leader_epoch: o.leader_epoch,
            metadata: Some(o.metadata),
            error_code,
        };
        let topic = |(name, offsets): (String, Vec<Answered>)| OffsetFetchResponseTopic {
            name,
            partitions: offsets.into_iter().map(part).collect(),
        };
        let topics = topics.into_iter().map(topic).collect();
        let error_code = if version < 2 { errors::NONE } else { code };
        return OffsetFetchResponse { topics, error_code, ..Default::default() };
    }
    let (mut groups, mut seen) = (Vec::new(), BTreeSet::new());
    for group in request.groups {
        // An answer may be large: what is asked for twice is answered once.
        if !seen.insert(group.group_id.clone()) {
            continue;
        }
        let (id, member, epoch) = (group.group_id, group.member_id, group.member_epoch);
        let wanted = group.topics;
        let wanted = wanted.map(|t| t.into_iter().map(|t| (t.name, t.partition_indexes)).collect());
        let check = FetchCheck { group: id.clone(), member, epoch };
        let (topics, error_code) = answered(shared, check, wanted, stable, version).await;
        let part = |(o, error_code): Answered| OffsetFetchResponsePartitions {
            partition_index: o.partition,
            committed_offset: o.offset,
            committed_leader_epoch: o.leader_epoch,
            metadata: Some(o.metadata),
            error_code,
        };
        let topic = |(name, offsets): (String, Vec<Answered>)| OffsetFetchResponseTopics {
            name,
            partitions: offsets.into_iter().map(part).collect(),
        };
        let topics = topics.into_iter().map(topic).collect();
        groups.push(OffsetFetchResponseGroup { group_id: id, topics, error_code });
    }
    OffsetFetchResponse { groups, ..Default::default() }
}

pub(crate) async fn delete_offsets(
    shared: &Arc<Shared>,
    request: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    let group = request.group_id.as_str();
    let groups = &shared.backend.consumer_groups;
    let missing = match groups.describe(group) {
        _ if group.is_empty() => Some(errors::group_code(GroupError::InvalidGroupId)),
        Err(error) => Some(errors::group_code(error)),
        Ok(Some(_)) => None,
        Ok(None) => match has_offsets(shared, group).await {
            Ok(true) => None,
            Ok(false) => Some(errors::GROUP_ID_NOT_FOUND),
            Err(code) => Some(code),
        },
    };
    if let Some(error_code) = missing {
        return OffsetDeleteResponse { error_code, ..Default::default() };
    }
    let mut topics = Vec::new();
    for topic in request.topics {
        let allowed = groups.check_offset_delete(group, &topic.name);
        if allowed == Err(GroupError::NonEmptyGroup) {
            // One whose members do not say what they read.
            let error_code = errors::group_code(GroupError::NonEmptyGroup);
            return OffsetDeleteResponse { error_code, ..Default::default() };
        }
        let mut code = errors::group_result(&allowed);
        let indexes: BTreeSet<i32> = topic.partitions.iter().map(|p| p.partition_index).collect();
        if code == errors::NONE && !may_exist(&topic.name) {
            code = errors::UNKNOWN_TOPIC_OR_PARTITION;
        }
        if code == errors::NONE && indexes.len() > MAX_ALL_PARTITIONS {
            code = errors::INVALID_REQUEST;
        }
        if code == errors::NONE {
            let keys: Vec<_> = indexes.into_iter().map(|p| (topic.name.clone(), p)).collect();
            let deleted = shared.backend.log.delete_offsets(group, Some(&keys)).await;
            code = deleted.err().map_or(errors::NONE, |error| admin_code(&error));
        }
        let partitions = topic.partitions.into_iter().map(|p| OffsetDeleteResponsePartition {
            partition_index: p.partition_index,
            error_code: code,
        });
        let partitions = partitions.collect();
        topics.push(OffsetDeleteResponseTopic { name: topic.name, partitions });
    }
    OffsetDeleteResponse { topics, ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(code: errors::Code, version: i16, expected: &[errors::Code]) {
        let wanted = Some(vec![("t".to_owned(), vec![0, 3])]);
        let listed = refused(wanted, code, version);
        let listed = listed.iter().flat_map(|(topic, parts)| {
            parts.iter().map(move |(offset, code)| {
                assert_eq!((topic.as_str(), offset.offset), ("t", -1));
                *code
            })
        });
        assert_eq!(listed.collect::<Vec<_>>(), expected, "{code} {version}");
    }

    #[test]
    fn partitions_are_listed_where_a_client_would_forget_them() {
        let (not_here, unstable) = (errors::NOT_COORDINATOR, errors::UNSTABLE_OFFSET_COMMIT);
        check(not_here, 1, &[not_here; 2]);
        check(not_here, 2, &[]);
        check(not_here, 7, &[unstable; 2]);
        check(errors::COORDINATOR_LOAD_IN_PROGRESS, 9, &[unstable; 2]);
        check(errors::STALE_MEMBER_EPOCH, 9, &[errors::STALE_MEMBER_EPOCH; 2]);
        check(errors::GROUP_ID_NOT_FOUND, 9, &[]);
        assert_eq!(refused(None, not_here, 9), []);
    }

    #[test]
    fn a_fetch_without_a_barrier_is_told_to_look_the_coordinator_up() {
        let cases = [
            (errors::REQUEST_TIMED_OUT, errors::NOT_COORDINATOR),
            (errors::COORDINATOR_NOT_AVAILABLE, errors::NOT_COORDINATOR),
            (errors::NOT_COORDINATOR, errors::NOT_COORDINATOR),
            (errors::STALE_MEMBER_EPOCH, errors::STALE_MEMBER_EPOCH),
        ];
        for (code, expected) in cases {
            assert_eq!(fetch_code(code), expected);
        }
        assert_eq!(part_code(fetch_code(7), 9), Some(errors::UNSTABLE_OFFSET_COMMIT));
    }
}

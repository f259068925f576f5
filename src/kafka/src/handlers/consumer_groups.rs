//! The APIs of the consumer protocol (KIP-848): ConsumerGroupHeartbeat, ConsumerGroupDescribe.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use log::PartKey;
use log::groups::{
    Beat, BeatReply, ConsumerDescription, ConsumerMemberDescription, Described, GroupError, Refusal,
};
use secure::acl::{Operation, ResourceType};
use uuid::Uuid;

use crate::authorize::Access;
use crate::codec::Nullable;
use crate::codec::messages::*;
use crate::errors;
use crate::gateway::Shared;

/// What ConsumerGroupDescribe calls a member of this protocol (KIP-1099).
const CONSUMER_MEMBER: i8 = 1;

/// A member joins, stays or leaves.
pub(crate) async fn heartbeat(
    shared: &Arc<Shared>,
    access: &Access,
    request: ConsumerGroupHeartbeatRequest,
    version: i16,
    client_id: String,
    peer: SocketAddr,
) -> ConsumerGroupHeartbeatResponse {
    let answer = match beat_of(request, version, client_id, peer) {
        Ok(beat) => {
            // A regular expression finds what its reader may describe and no more.
            let need = (Operation::Describe, ResourceType::Topic);
            let may_see = |topic: &str| access.might(need, topic);
            shared.backend.consumer_groups.beat(beat, &may_see).await
        }
        Err(refusal) => Err(refusal),
    };
    match answer {
        Ok(reply) => response_of(reply),
        Err(Refusal { error, message }) => ConsumerGroupHeartbeatResponse {
            error_code: errors::group_code(error),
            error_message: message,
            ..Default::default()
        },
    }
}

fn beat_of(
    request: ConsumerGroupHeartbeatRequest,
    version: i16,
    client_id: String,
    peer: SocketAddr,
) -> Result<Beat, Refusal> {
    let owned = request.topic_partitions.map(|topics| {
        let keys = topics.iter().flat_map(|topic| {
            topic.partitions.iter().map(|partition| {
                let partition = u32::try_from(*partition).ok()?;
                Some(PartKey { topic: topic.topic_id, partition })
            })
        });
        keys.collect::<Option<BTreeSet<PartKey>>>()
    });
    if owned == Some(None) {
        let message = Some("TopicPartitions has a partition that cannot be.".to_owned());
        return Err(Refusal { error: GroupError::InvalidRequest, message });
    }
    let rebalance_timeout_ms = request.rebalance_timeout_ms;
    Ok(Beat {
        group: request.group_id,
        member: request.member_id,
        epoch: request.member_epoch,
        instance: request.instance_id,
        rack: request.rack_id,
        rebalance_timeout_ms: Some(rebalance_timeout_ms).filter(|ms| *ms != -1),
        topics: request.subscribed_topic_names,
        regex: request.subscribed_topic_regex,
        assignor: request.server_assignor,
        owned: owned.flatten(),
        client_id,
        client_host: format!("/{}", peer.ip()),
        brings_id: version >= 1,
    })
}

fn response_of(reply: BeatReply) -> ConsumerGroupHeartbeatResponse {
    let assignment = reply.assignment.map(|parts| {
        let topics = by_topic(&parts).into_iter();
        let topics =
            topics.map(|(topic_id, partitions)| HeartbeatTopicPartitions { topic_id, partitions });
        HeartbeatAssignment { topic_partitions: topics.collect() }
    });
    ConsumerGroupHeartbeatResponse {
        member_id: Some(reply.member),
        member_epoch: reply.epoch,
        heartbeat_interval_ms: reply.interval_ms,
        assignment: Nullable(assignment),
        ..Default::default()
    }
}

fn by_topic(parts: &BTreeSet<PartKey>) -> Vec<(Uuid, Vec<i32>)> {
    let mut topics: Vec<(Uuid, Vec<i32>)> = Vec::new();
    for key in parts {
        let partition = i32::try_from(key.partition).unwrap_or(i32::MAX);
        match topics.last_mut().filter(|(topic, _)| *topic == key.topic) {
            Some((_, partitions)) => partitions.push(partition),
            None => topics.push((key.topic, vec![partition])),
        }
    }
    topics
}

/// Describes groups of this protocol.
pub(crate) async fn describe(
    shared: &Arc<Shared>,
    request: ConsumerGroupDescribeRequest,
) -> ConsumerGroupDescribeResponse {
    let mut groups = Vec::new();
    // What is asked for twice is answered once.
    for id in request.group_ids.into_iter().collect::<BTreeSet<_>>() {
        groups.push(describe_one(shared, id).await);
    }
    ConsumerGroupDescribeResponse { throttle_time_ms: 0, groups }
}

async fn describe_one(shared: &Arc<Shared>, id: String) -> DescribedConsumerGroup {
    let group = DescribedConsumerGroup { group_id: id.clone(), ..Default::default() };
    let missing = |why: &str| DescribedConsumerGroup {
        error_code: errors::GROUP_ID_NOT_FOUND,
        error_message: Some(format!("Group {id} {why}.")),
        ..group.clone()
    };
    if id.is_empty() {
        let error_code = errors::group_code(GroupError::InvalidGroupId);
        return DescribedConsumerGroup { error_code, ..group };
    }
    match shared.backend.consumer_groups.describe(&id) {
        Err(error) => DescribedConsumerGroup { error_code: errors::group_code(error), ..group },
        Ok(Some(Described::Consumer(found))) => described(shared, group, found).await,
        Ok(Some(Described::Classic(_))) => missing("is not a consumer group"),
        Ok(None) => match super::groups::has_offsets(shared, &id).await {
            Ok(true) => missing("is not a consumer group"),
            Ok(false) => missing("not found"),
            Err(error_code) => DescribedConsumerGroup { error_code, ..group },
        },
    }
}

async fn described(
    shared: &Arc<Shared>,
    group: DescribedConsumerGroup,
    found: ConsumerDescription,
) -> DescribedConsumerGroup {
    let parts = found.members.iter().flat_map(|m| m.assigned.iter().chain(&m.target));
    let topics: BTreeSet<Uuid> = parts.map(|key| key.topic).collect();
    // Names of topics that this node does not know yet; without them it can still answer.
    if let Err(error) = shared.backend.log.learn_topics(topics).await {
        tracing::debug!(%error, "topics of a group are not known");
    }
    let members = found.members.into_iter().map(|member| described_member(shared, member));
    DescribedConsumerGroup {
        group_state: found.state.name().to_owned(),
        group_epoch: found.epoch,
        assignment_epoch: found.target_epoch,
        assignor_name: found.assignor.to_owned(),
        members: members.collect(),
        ..group
    }
}

fn described_member(
    shared: &Arc<Shared>,
    member: ConsumerMemberDescription,
) -> DescribedConsumerMember {
    DescribedConsumerMember {
        member_id: member.id,
        instance_id: member.instance,
        rack_id: member.rack,
        member_epoch: member.epoch,
        client_id: member.client_id,
        client_host: member.client_host,
        subscribed_topic_names: member.topics,
        subscribed_topic_regex: member.regex,
        assignment: described_assignment(shared, &member.assigned),
        target_assignment: described_assignment(shared, &member.target),
        member_type: CONSUMER_MEMBER,
    }
}

/// An assignment without the topics that were deleted.
fn described_assignment(shared: &Arc<Shared>, parts: &BTreeSet<PartKey>) -> DescribedAssignment {
    let topics = by_topic(parts).into_iter().filter_map(|(topic_id, partitions)| {
        let topic_name = shared.backend.log.topic_by_id(topic_id)?.name.clone();
        Some(DescribedTopicParts { topic_id, topic_name, partitions })
    });
    DescribedAssignment { topic_partitions: topics.collect() }
}

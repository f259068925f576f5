//! One handler per API: from the request's message to the service and back.

mod broker_configs;
pub(crate) mod cluster;
mod configs;
mod consumer_groups;
mod elections;
mod fetch;
mod groups;
mod log_dirs;
mod offsets;
mod partitions;
pub(crate) mod produce;
mod quorum;
mod reassignments;
mod security;
mod topics;
mod transactions;
mod txn_offsets;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::authorize::{self, Access, Verdict};
use crate::caller::Caller;
use crate::codec::{Request, RequestBody, ResponseBody};
use crate::gateway::Shared;
use crate::outgoing::Holds;

/// As `max_bytes` of a fetch: it is answered at once, and without records. Any number below 0 means
/// the same; 0 gives a batch, as with Kafka.
pub(crate) const NO_RECORDS: i32 = -1;

/// Whether there may be a topic of this name. One that is longer would be copied for each of many
/// partitions.
fn may_exist(topic: &str) -> bool {
    topic.len() <= log::limits::MAX_TOPIC_NAME
}

/// How many things a request names of which each takes far more work or room than the bytes that
/// name it. What is named again is refused or answered once.
pub(crate) fn named(request: &RequestBody) -> usize {
    match request {
        RequestBody::Produce(body) => body.topic_data.iter().map(|t| t.partition_data.len()).sum(),
        RequestBody::CreateTopics(body) => {
            let mut times: HashMap<&str, usize> = HashMap::new();
            body.topics.iter().for_each(|topic| *times.entry(&topic.name).or_default() += 1);
            times.values().filter(|times| **times == 1).count()
        }
        RequestBody::DescribeConfigs(body) => {
            let names = body.resources.iter().map(|r| (r.resource_type, &r.resource_name));
            names.collect::<HashSet<_>>().len()
        }
        _ => 0,
    }
}

/// Answers a request, as far as its client may have it. `None` when the client wants no answer.
pub(crate) async fn handle(
    shared: &Arc<Shared>,
    caller: &Arc<Caller>,
    request: Request,
    peer: SocketAddr,
    holds: &mut Holds,
) -> Option<ResponseBody> {
    let Request { version, client_id, body, .. } = request;
    let key = body.key();
    let access = Access::new(&shared.backend.security, caller);
    let (body, finish) = match authorize::gate(&**shared, &access, version, body) {
        Verdict::Refuse(response) => return Some(response),
        Verdict::Pass(body, finish) => (body, finish),
    };
    let client_id = client_id.unwrap_or_default();
    let response = dispatch(shared, &access, version, client_id, body, peer, holds).await;
    let Some(finish) = finish else { return response };
    // A silent producer is told of what it may not write.
    let mut response = response.unwrap_or_else(|| ResponseBody::empty(key));
    finish(&mut response);
    Some(response)
}

/// Answers a request that its client may make.
async fn dispatch(
    shared: &Arc<Shared>,
    access: &Access,
    version: i16,
    client_id: String,
    body: RequestBody,
    peer: SocketAddr,
    holds: &mut Holds,
) -> Option<ResponseBody> {
    Some(match body {
        RequestBody::Produce(body) => {
            return produce::produce(shared, body, version).await.map(Into::into);
        }
        RequestBody::Fetch(body) => {
            fetch::fetch(shared, access, body, version, &mut holds.records).await.into()
        }
        RequestBody::ListOffsets(body) => offsets::list(shared, body, version).await.into(),
        RequestBody::OffsetForLeaderEpoch(body) => offsets::for_epoch(shared, body).await.into(),
        RequestBody::DeleteRecords(body) => offsets::delete_records(shared, body).await.into(),
        RequestBody::Metadata(body) => {
            cluster::metadata(shared, access, body, version).await.into()
        }
        RequestBody::ApiVersions(body) => cluster::api_versions(body, version).into(),
        RequestBody::DescribeCluster(body) => cluster::describe(shared, body).into(),
        RequestBody::FindCoordinator(body) => {
            cluster::find_coordinator(shared, body, version).await.into()
        }
        RequestBody::InitProducerId(body) => {
            transactions::init_producer_id(shared, body, version).await.into()
        }
        RequestBody::AddPartitionsToTxn(body) => {
            transactions::add_partitions(shared, body, version).await.into()
        }
        RequestBody::AddOffsetsToTxn(body) => {
            transactions::add_offsets(shared, body, version).await.into()
        }
        RequestBody::EndTxn(body) => transactions::end(shared, body, version).await.into(),
        RequestBody::WriteTxnMarkers(body) => {
            transactions::write_markers(shared, body).await.into()
        }
        RequestBody::TxnOffsetCommit(body) => {
            txn_offsets::commit(shared, body, version).await.into()
        }
        RequestBody::DescribeProducers(body) => {
            transactions::describe_producers(shared, body).into()
        }
        RequestBody::DescribeTransactions(body) => {
            transactions::describe(shared, body).await.into()
        }
        RequestBody::ListTransactions(body) => {
            transactions::list(shared, &body, shared.now_ms()).into()
        }
        RequestBody::JoinGroup(body) => {
            groups::join(shared, body, version, client_id, peer, holds).await.into()
        }
        RequestBody::SyncGroup(body) => groups::sync(shared, body, holds).await.into(),
        RequestBody::Heartbeat(body) => groups::heartbeat(shared, &body).into(),
        RequestBody::LeaveGroup(body) => groups::leave(shared, body, version).into(),
        RequestBody::DescribeGroups(body) => groups::describe(shared, body, version).await.into(),
        RequestBody::ListGroups(body) => groups::list(shared, &body).await.into(),
        RequestBody::DeleteGroups(body) => groups::delete(shared, body).await.into(),
        RequestBody::OffsetCommit(body) => groups::commit(shared, body, version).await.into(),
        RequestBody::OffsetFetch(body) => groups::fetch(shared, body, version).await.into(),
        RequestBody::OffsetDelete(body) => groups::delete_offsets(shared, body).await.into(),
        RequestBody::ConsumerGroupHeartbeat(body) => {
            consumer_groups::heartbeat(shared, access, body, version, client_id, peer).await.into()
        }
        RequestBody::ConsumerGroupDescribe(body) => {
            consumer_groups::describe(shared, body).await.into()
        }
        RequestBody::CreateTopics(body) => topics::create(shared, body).await.into(),
        RequestBody::DeleteTopics(body) => {
            topics::delete(shared, access, body, version).await.into()
        }
        RequestBody::CreatePartitions(body) => topics::add_partitions(shared, body).await.into(),
        RequestBody::AlterReplicaLogDirs(body) => log_dirs::alter(shared, body).into(),
        RequestBody::DescribeLogDirs(body) => log_dirs::describe(shared, body).into(),
        RequestBody::ElectLeaders(body) => elections::elect(shared, body).await.into(),
        RequestBody::AlterPartitionReassignments(body) => reassignments::alter(shared, body).into(),
        RequestBody::ListPartitionReassignments(_) => reassignments::list().into(),
        RequestBody::DescribeQuorum(body) => quorum::describe(shared, body).await.into(),
        RequestBody::ListConfigResources(_) => configs::list_resources().into(),
        RequestBody::DescribeTopicPartitions(body) => {
            partitions::describe(shared, access, body).into()
        }
        RequestBody::SaslHandshake(_) => security::unexpected_handshake().into(),
        RequestBody::SaslAuthenticate(_) => security::unexpected_token().into(),
        RequestBody::DescribeAcls(body) => security::describe_acls(shared, body).await.into(),
        RequestBody::CreateAcls(body) => security::create_acls(shared, body).await.into(),
        RequestBody::DeleteAcls(body) => security::delete_acls(shared, body).await.into(),
        RequestBody::DescribeUserScramCredentials(body) => {
            security::describe_users(shared, body).await.into()
        }
        RequestBody::AlterUserScramCredentials(body) => {
            security::alter_users(shared, body).await.into()
        }
        RequestBody::DescribeClientQuotas(body) => {
            security::describe_quotas(shared, body).await.into()
        }
        RequestBody::AlterClientQuotas(body) => security::alter_quotas(shared, body).await.into(),
        RequestBody::DescribeConfigs(body) => configs::describe(shared, body).await.into(),
        RequestBody::AlterConfigs(body) => configs::alter(shared, body).await.into(),
        RequestBody::IncrementalAlterConfigs(body) => {
            configs::alter_incrementally(shared, body).await.into()
        }
    })
}

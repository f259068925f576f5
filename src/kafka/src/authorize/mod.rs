//! Access control in front of the handlers.
//!
//! [`gate`] takes from a request what its client may not have and answers for that itself; the
//! handler sees only the rest, and [`Finish`] joins the two. A request of which nothing is left
//! never reaches a handler. Handlers ask where the answer must be of the moment at which they act:
//! that of Fetch partition by partition, because a fetch session goes on with partitions that were
//! named long ago; that of DeleteTopics once it knows which topic is meant; that of Metadata when
//! a topic is to be made.

mod cluster;
mod configs;
mod groups;
mod partitions;
mod refuse;
pub(crate) mod rules;
mod topics;
mod transactions;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use secure::Security;
use secure::acl::{CLUSTER, Operation, ResourceType};
use tracing::debug;
use uuid::Uuid;

use crate::caller::Caller;
use crate::codec::{RequestBody, ResponseBody};
use crate::errors;
use crate::gateway::Shared;

use rules::{Need, rule_of};

/// Adds to a response what the handler did not see, or takes from it what the client may not.
pub(crate) type Finish = Box<dyn FnOnce(&mut ResponseBody) + Send>;

/// What becomes of a request.
pub(crate) enum Verdict {
    /// The handler answers what is left of it.
    Pass(RequestBody, Option<Finish>),
    /// It is answered already.
    Refuse(ResponseBody),
}

/// The code that says that a client may not act on a kind of resource.
pub(crate) fn code_of(resource: ResourceType) -> errors::Code {
    match resource {
        ResourceType::Topic => errors::TOPIC_AUTHORIZATION_FAILED,
        ResourceType::Group => errors::GROUP_AUTHORIZATION_FAILED,
        ResourceType::TransactionalId => errors::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        ResourceType::Cluster | ResourceType::DelegationToken | ResourceType::User => {
            errors::CLUSTER_AUTHORIZATION_FAILED
        }
    }
}

/// What the node knows of topics.
pub(crate) trait Facts {
    /// Whether the topic exists.
    fn exists(&self, topic: &str) -> bool;
    /// The name of the topic of that id.
    fn name_of(&self, id: Uuid) -> Option<String>;
    /// Whether naming a topic makes it.
    fn creates(&self) -> bool;
}

impl Facts for Shared {
    fn exists(&self, topic: &str) -> bool {
        self.backend.log.topic(topic).is_some()
    }

    fn name_of(&self, id: Uuid) -> Option<String> {
        self.backend.log.topic_by_id(id).map(|topic| topic.name.clone())
    }

    fn creates(&self) -> bool {
        self.config.auto_create_topics
    }
}

/// What a caller may do, as handlers and gates ask it.
#[derive(Clone)]
pub(crate) struct Access {
    security: Security,
    caller: Arc<Caller>,
}

impl Access {
    pub(crate) fn new(security: &Security, caller: &Arc<Caller>) -> Self {
        Self { security: security.clone(), caller: caller.clone() }
    }

    /// Whether the caller may; a denial is counted.
    pub(crate) fn may(&self, need: Need, name: &str) -> bool {
        let allowed = self.might(need, name);
        if !allowed {
            self.security.audit().denied();
            let (operation, resource) = need;
            let actor = &self.caller.actor;
            debug!(
                principal = actor.principal,
                host = actor.host,
                ?operation,
                ?resource,
                name,
                "denied"
            );
        }
        allowed
    }

    /// The same where a denial is nothing special, as when a list is filtered.
    pub(crate) fn might(&self, (operation, resource): Need, name: &str) -> bool {
        self.security.allows(&self.caller.actor, operation, resource, name)
    }

    /// Whether the caller may make a topic of this name.
    pub(crate) fn may_create(&self, topic: &str) -> bool {
        self.might_cluster(Operation::Create)
            || self.may((Operation::Create, ResourceType::Topic), topic)
    }

    /// Whether the caller may delete the topic.
    pub(crate) fn may_delete(&self, topic: &str) -> bool {
        self.might_cluster(Operation::Delete)
            || self.may((Operation::Delete, ResourceType::Topic), topic)
    }

    /// Whether the caller may name the topic to delete it; a denial is counted.
    pub(crate) fn may_name(&self, topic: &str) -> bool {
        self.might_cluster(Operation::Delete)
            || self.may((Operation::Describe, ResourceType::Topic), topic)
    }

    /// Whether who deletes topics may be told the name of this one.
    pub(crate) fn sees(&self, topic: &str) -> bool {
        self.might_cluster(Operation::Delete)
            || self.might((Operation::Describe, ResourceType::Topic), topic)
    }

    fn might_cluster(&self, operation: Operation) -> bool {
        self.might((operation, ResourceType::Cluster), CLUSTER)
    }

    fn might_somewhere(&self, (operation, resource): Need) -> bool {
        self.security.allows_somewhere(&self.caller.actor, operation, resource)
    }

    /// The bit field of operations that the caller may do to a resource.
    fn operations(&self, resource: ResourceType, name: &str) -> i32 {
        let all = resource.operations().iter();
        let allowed = all.filter(|operation| self.might((**operation, resource), name));
        allowed.fold(0, |bits, operation| bits | 1 << operation.number())
    }

    /// The same for the cluster; nothing for those who may not describe it.
    fn cluster_operations(&self) -> i32 {
        if self.might_cluster(Operation::Describe) {
            self.operations(ResourceType::Cluster, CLUSTER)
        } else {
            0
        }
    }
}

/// Takes out the items that do not pass.
fn split<T>(items: &mut Vec<T>, passes: impl Fn(&T) -> bool) -> Vec<T> {
    let (kept, denied) = std::mem::take(items).into_iter().partition(passes);
    *items = kept;
    denied
}

/// Passes what is left, or answers when nothing is.
fn rest(body: RequestBody, empty: bool, finish: Finish) -> Verdict {
    if !empty {
        return Verdict::Pass(body, Some(finish));
    }
    let mut response = ResponseBody::empty(body.key());
    finish(&mut response);
    Verdict::Refuse(response)
}

/// A [`Finish`] for one kind of response.
macro_rules! finish {
    ($kind:ident, |$response:ident| $body:block) => {
        Box::new(move |response: &mut ResponseBody| {
            if let ResponseBody::$kind($response) = response {
                $body
            }
        })
    };
}
use finish;

/// Decides about a request.
pub(crate) fn gate(facts: &dyn Facts, access: &Access, version: i16, body: RequestBody) -> Verdict {
    if !access.security.is_controlled() {
        // Nothing is denied, but clients may ask what they are allowed.
        return match body {
            RequestBody::Metadata(_)
            | RequestBody::DescribeCluster(_)
            | RequestBody::DescribeGroups(_)
            | RequestBody::ConsumerGroupDescribe(_)
            | RequestBody::DescribeTopicPartitions(_) => each(facts, access, version, body),
            body => Verdict::Pass(body, None),
        };
    }
    let mut needs = rule_of(body.key()).whole.iter();
    if let Some(code) = needs.find_map(|need| refused(access, *need, &body)) {
        return Verdict::Refuse(refuse::whole(&body, code));
    }
    each(facts, access, version, body)
}

/// The code for a request that lacks what it needs as a whole.
fn refused(access: &Access, need: Need, body: &RequestBody) -> Option<errors::Code> {
    if let RequestBody::InitProducerId(request) = body {
        return cluster::producer_id(access, request, need);
    }
    let name = match need.1 {
        ResourceType::Group => groups::group_of(body),
        ResourceType::TransactionalId => transactions::id_of(body),
        _ => Some(CLUSTER),
    };
    if matches!(body, RequestBody::WriteTxnMarkers(_))
        && access.might_cluster(Operation::ClusterAction)
    {
        return None;
    }
    // A request that does not name what it needs is refused too.
    let allowed = name.is_some_and(|name| access.may(need, name));
    (!allowed).then(|| code_of(need.1))
}

/// Takes out what lacks its need.
fn each(facts: &dyn Facts, access: &Access, version: i16, body: RequestBody) -> Verdict {
    match body {
        RequestBody::Produce(body) => topics::produce(access, body),
        RequestBody::ListOffsets(body) => topics::list_offsets(access, body),
        RequestBody::OffsetForLeaderEpoch(body) => topics::for_epoch(access, body),
        RequestBody::DeleteRecords(body) => topics::delete_records(access, body),
        RequestBody::CreateTopics(body) => topics::create(access, body),
        RequestBody::DeleteTopics(body) => topics::delete(access, body),
        RequestBody::CreatePartitions(body) => topics::add_partitions(access, body),
        RequestBody::Metadata(body) => cluster::metadata(facts, access, version, body),
        RequestBody::DescribeCluster(body) => cluster::describe(access, body),
        RequestBody::FindCoordinator(body) => cluster::find_coordinator(access, version, body),
        RequestBody::DescribeConfigs(body) => configs::describe(access, body),
        RequestBody::AlterConfigs(body) => configs::alter(access, body),
        RequestBody::IncrementalAlterConfigs(body) => configs::alter_incrementally(access, body),
        RequestBody::DescribeGroups(body) => groups::describe(access, body),
        RequestBody::ConsumerGroupHeartbeat(body) => groups::beat(access, body),
        RequestBody::ConsumerGroupDescribe(body) => groups::describe_consumers(access, body),
        RequestBody::ListGroups(body) => groups::list(access, body),
        RequestBody::DeleteGroups(body) => groups::delete(access, body),
        RequestBody::OffsetCommit(body) => groups::commit(access, body),
        RequestBody::OffsetDelete(body) => groups::delete_offsets(access, body),
        RequestBody::OffsetFetch(body) => groups::fetch_offsets(access, version, body),
        RequestBody::AddPartitionsToTxn(body) => {
            transactions::add_partitions(access, version, body)
        }
        RequestBody::TxnOffsetCommit(body) => transactions::commit(access, body),
        RequestBody::DescribeProducers(body) => transactions::describe_producers(access, body),
        RequestBody::DescribeTransactions(body) => transactions::describe(access, body),
        RequestBody::ListTransactions(body) => transactions::list(access, body),
        RequestBody::DescribeTopicPartitions(body) => partitions::describe(access, body),
        // Nothing beyond the request as a whole; Fetch is asked in its handler.
        body @ (RequestBody::Fetch(_)
        | RequestBody::ApiVersions(_)
        | RequestBody::SaslHandshake(_)
        | RequestBody::SaslAuthenticate(_)
        | RequestBody::InitProducerId(_)
        | RequestBody::JoinGroup(_)
        | RequestBody::SyncGroup(_)
        | RequestBody::Heartbeat(_)
        | RequestBody::LeaveGroup(_)
        | RequestBody::AddOffsetsToTxn(_)
        | RequestBody::EndTxn(_)
        | RequestBody::WriteTxnMarkers(_)
        | RequestBody::AlterReplicaLogDirs(_)
        | RequestBody::DescribeLogDirs(_)
        | RequestBody::ElectLeaders(_)
        | RequestBody::AlterPartitionReassignments(_)
        | RequestBody::ListPartitionReassignments(_)
        | RequestBody::DescribeQuorum(_)
        | RequestBody::ListConfigResources(_)
        | RequestBody::DescribeAcls(_)
        | RequestBody::CreateAcls(_)
        | RequestBody::DeleteAcls(_)
        | RequestBody::DescribeClientQuotas(_)
        | RequestBody::AlterClientQuotas(_)
        | RequestBody::DescribeUserScramCredentials(_)
        | RequestBody::AlterUserScramCredentials(_)) => Verdict::Pass(body, None),
    }
}

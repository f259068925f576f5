//! ElectLeaders: gives partitions back to their preferred leader, the first of their replicas.
//!
//! Leadership belongs to a data group, so electing one partition's leader moves all partitions of
//! its group; all of them have the same preferred leader.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::{GroupId, NodeId};
use futures::future::join_all;
use log::Topic;

use super::may_exist;
use crate::codec::messages::{
    ElectLeadersPartitionResult, ElectLeadersRequest, ElectLeadersResponse, ReplicaElectionResult,
};
use crate::errors;
use crate::gateway::Shared;

/// Kinds of election, as Kafka numbers them.
const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

/// What is to be done about a partition.
enum Plan {
    Refuse(errors::Code, String),
    /// Move its group to this node.
    Move(GroupId, NodeId),
}

impl Plan {
    /// Whether the wanted leader leads already.
    fn is_needless(&self) -> bool {
        matches!(self, Self::Refuse(code, _) if *code == errors::ELECTION_NOT_NEEDED)
    }
}

fn refuse(code: errors::Code) -> Plan {
    Plan::Refuse(code, errors::message(code).to_owned())
}

impl Shared {
    fn plan(&self, topic: &Topic, partition: i32, unclean: bool) -> Plan {
        let Some(group) = topic.group_of(partition) else {
            let text = format!("No such partition as {}-{partition}", topic.name);
            return Plan::Refuse(errors::UNKNOWN_TOPIC_OR_PARTITION, text);
        };
        let (leader, _) = self.leader_of(&topic.name, partition);
        if unclean {
            // Nobody without all committed entries is ever elected.
            let code = match leader {
                -1 => errors::ELIGIBLE_LEADERS_NOT_AVAILABLE,
                _ => errors::ELECTION_NOT_NEEDED,
            };
            return refuse(code);
        }
        let Some(preferred) = self.preferred_of(group) else {
            return refuse(errors::PREFERRED_LEADER_NOT_AVAILABLE);
        };
        if leader == i32::from(preferred.0) {
            return refuse(errors::ELECTION_NOT_NEEDED);
        }
        if !self.backend.peers.is_alive(preferred) {
            return refuse(errors::PREFERRED_LEADER_NOT_AVAILABLE);
        }
        Plan::Move(group, preferred)
    }
}

/// Elects leaders; with no partitions named, of all that need it.
pub(crate) async fn elect(
    shared: &Arc<Shared>,
    request: ElectLeadersRequest,
) -> ElectLeadersResponse {
    let unclean = match request.election_type {
        PREFERRED => false,
        UNCLEAN => true,
        _ => {
            let error_code = errors::INVALID_REQUEST;
            return ElectLeadersResponse { error_code, ..Default::default() };
        }
    };
    let every = request.topic_partitions.is_none();
    let named: Vec<(String, Vec<i32>)> = match request.topic_partitions {
        Some(named) => named.into_iter().map(|t| (t.topic, t.partitions)).collect(),
        None => {
            let all = shared.backend.log.topics();
            let indexes = |topic: &Topic| (0..).zip(&topic.partitions).map(|(i, _)| i).collect();
            all.iter().map(|topic| (topic.name.clone(), indexes(topic))).collect()
        }
    };
    let mut plans: Vec<(String, Vec<(i32, Plan)>)> = Vec::new();
    for (name, partitions) in named {
        let topic = shared.backend.log.topic(&name);
        // Not in every partition's text where it is so long that no topic has it.
        let told = if may_exist(&name) { name.as_str() } else { "this" };
        let plan = |partition: i32| match &topic {
            Some(topic) => shared.plan(topic, partition, unclean),
            None => {
                let text = format!("No such topic as {told}");
                Plan::Refuse(errors::UNKNOWN_TOPIC_OR_PARTITION, text)
            }
        };
        let mut parts: Vec<(i32, Plan)> = partitions.into_iter().map(|p| (p, plan(p))).collect();
        if every {
            // Kafka leaves out the partitions that have the wanted leader.
            parts.retain(|(_, plan)| !plan.is_needless());
        }
        if !(every && parts.is_empty()) {
            plans.push((name, parts));
        }
    }
    let moved = carry_out(shared, &plans).await;
    let replica_election_results = plans.into_iter().map(|(topic, parts)| {
        let partition_result = parts.into_iter().map(|(id, plan)| result(id, plan, &moved));
        ReplicaElectionResult { topic, partition_result: partition_result.collect() }
    });
    ElectLeadersResponse {
        replica_election_results: replica_election_results.collect(),
        ..Default::default()
    }
}

/// Moves each group once; says for each whether it went.
async fn carry_out(
    shared: &Arc<Shared>,
    plans: &[(String, Vec<(i32, Plan)>)],
) -> BTreeMap<GroupId, bool> {
    let plans = plans.iter().flat_map(|(_, parts)| parts);
    let moves: BTreeSet<(GroupId, NodeId)> = plans
        .filter_map(|(_, plan)| match plan {
            Plan::Move(group, to) => Some((*group, *to)),
            Plan::Refuse(..) => None,
        })
        .collect();
    let moves = moves.into_iter().map(|(id, to)| async move {
        let moved = match shared.backend.groups.get(id) {
            Some(group) => group.transfer(to).await.is_ok(),
            None => false,
        };
        (id, moved)
    });
    join_all(moves).await.into_iter().collect()
}

fn result(
    partition_id: i32,
    plan: Plan,
    moved: &BTreeMap<GroupId, bool>,
) -> ElectLeadersPartitionResult {
    let (error_code, error_message) = match plan {
        Plan::Refuse(code, text) => (code, Some(text)),
        Plan::Move(group, _) if moved.get(&group) == Some(&true) => (errors::NONE, None),
        Plan::Move(..) => {
            let code = errors::PREFERRED_LEADER_NOT_AVAILABLE;
            (code, Some(errors::message(code).to_owned()))
        }
    };
    ElectLeadersPartitionResult { partition_id, error_code, error_message }
}

//! AlterPartitionReassignments and ListPartitionReassignments.
//!
//! Every node holds every partition, so there is nothing to move: naming the replicas that a
//! partition has, in any order, succeeds, and anything else is refused. The order changes nothing:
//! the preferred leader is that of the partition's data group.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::may_exist;
use crate::codec::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
    ListPartitionReassignmentsResponse, ReassignablePartitionResponse, ReassignableTopicResponse,
};
use crate::errors;
use crate::gateway::Shared;

type Refusal = Result<(), (errors::Code, String)>;

/// Nothing is ever being reassigned.
pub(crate) fn list() -> ListPartitionReassignmentsResponse {
    ListPartitionReassignmentsResponse::default()
}

/// Says of each partition whether it may have the replicas asked for.
pub(crate) fn alter(
    shared: &Arc<Shared>,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let responses = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter().map(|part| {
            let checked = check(shared, &topic.name, part.partition_index, part.replicas);
            let (code, text) = checked.err().map_or((errors::NONE, None), |(c, t)| (c, Some(t)));
            ReassignablePartitionResponse {
                partition_index: part.partition_index,
                error_code: code,
                error_message: text,
            }
        });
        ReassignableTopicResponse { partitions: partitions.collect(), name: topic.name.clone() }
    });
    AlterPartitionReassignmentsResponse { responses: responses.collect(), ..Default::default() }
}

fn check(shared: &Arc<Shared>, name: &str, partition: i32, replicas: Option<Vec<i32>>) -> Refusal {
    let Some(topic) = shared.backend.log.topic(name) else {
        // Not in every partition's text where it is so long that no topic has it.
        let name = if may_exist(name) { name } else { "this" };
        let text = format!("Unable to find a topic named {name}.");
        return Err((errors::UNKNOWN_TOPIC_OR_PARTITION, text));
    };
    if topic.group_of(partition).is_none() {
        let text = format!("Unable to find partition {name}:{partition}.");
        return Err((errors::UNKNOWN_TOPIC_OR_PARTITION, text));
    }
    let Some(replicas) = replicas else {
        let code = errors::NO_REASSIGNMENT_IN_PROGRESS;
        return Err((code, errors::message(code).to_owned()));
    };
    check_assignment(shared, &replicas)?;
    let current = shared.facts(&topic, partition).replicas;
    if current.len() == replicas.len() && current.iter().all(|id| replicas.contains(id)) {
        return Ok(());
    }
    let text = format!(
        "Partition {name}-{partition} keeps its replicas {current:?}: every node holds every \
         partition."
    );
    Err((errors::INVALID_REPLICA_ASSIGNMENT, text))
}

/// What Kafka's controller checks of a manual assignment, with its words.
fn check_assignment(shared: &Arc<Shared>, replicas: &[i32]) -> Refusal {
    let refused = |text: String| Err((errors::INVALID_REPLICA_ASSIGNMENT, text));
    if replicas.is_empty() {
        let text = "The manual partition assignment includes an empty replica list.";
        return refused(text.to_owned());
    }
    let mut seen = BTreeSet::new();
    let nodes = shared.backend.peers.all();
    for id in replicas {
        if !nodes.iter().any(|node| i32::from(node.0) == *id) {
            return refused(format!(
                "The manual partition assignment includes broker {id}, but no such broker is \
                 registered."
            ));
        }
        if !seen.insert(*id) {
            return refused(format!(
                "The manual partition assignment includes the broker {id} more than once."
            ));
        }
    }
    Ok(())
}

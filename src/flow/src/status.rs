//! What people see of pipelines: each node tells what it does, and the answers are merged.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::state::FlowState;

/// What one node does for one pipeline.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodePart {
    /// The collector, on the node that holds the lease.
    pub source: Option<SourcePart>,
    /// Partitions that are processed here.
    pub partitions: BTreeMap<u32, PartitionPart>,
}

/// The collector's numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SourcePart {
    /// `collecting`, or why it stopped.
    pub state: String,
    /// Epoch of the lease.
    pub epoch: u64,
    /// Files listed by the latest scan.
    pub seen: u64,
    /// Of those, collected with this version.
    pub done: u64,
    /// Waiting to settle, to be fetched or to be committed.
    pub pending: u64,
    /// Given up.
    pub quarantined: u64,
    /// Scans so far.
    pub scans: u64,
    /// Files collected by this run.
    pub collected: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Failed attempts of this run.
    pub failed: u64,
    /// Files per second of late.
    pub rate: f64,
    /// Latest problem.
    pub last_error: Option<String>,
    /// Directories that cannot be listed.
    pub bad_dirs: Vec<String>,
}

/// A partition's numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PartitionPart {
    /// Offset up to which the index has everything.
    pub mark: u64,
    /// End of the partition.
    pub end: u64,
    /// Documents written by this run.
    pub documents: u64,
    /// Documents per second of late.
    pub rate: f64,
    /// Latest problem.
    pub last_error: Option<String>,
}

/// Parts by pipeline, of one node.
pub type NodeStatus = BTreeMap<String, NodePart>;

/// One row for each pipeline, from the replicated state and what the nodes said.
pub fn rows(state: &FlowState, nodes: &BTreeMap<u16, NodeStatus>) -> Vec<Value> {
    let live = state.pipelines.iter().filter(|(_, p)| !p.deleted);
    live.map(|(name, pipeline)| {
        let parts = || nodes.iter().filter_map(|(node, s)| Some((*node, s.get(name)?)));
        let found = parts().find_map(|(node, part)| Some((node, part.source.as_ref()?)));
        let node = found.map(|(node, _)| node);
        let source = found.map(|(_, source)| source.clone()).unwrap_or_default();
        let (mut lag, mut documents, mut rate) = (0, 0, 0.0);
        let mut error = source.last_error.clone();
        let mut processing = 0u64;
        for (_, part) in parts() {
            for partition in part.partitions.values() {
                processing += 1;
                lag += partition.end.saturating_sub(partition.mark);
                documents += partition.documents;
                rate += partition.rate;
                error = error.or_else(|| partition.last_error.clone());
            }
        }
        let shown = match (pipeline.paused, pipeline.source_paused) {
            (true, _) => "paused",
            (false, true) => "source paused",
            (false, false) if source.state.is_empty() => "starting",
            (false, false) if source.state == "collecting" => "running",
            (false, false) => "stopped",
        };
        let spec: Value = serde_json::from_str(&pipeline.spec).unwrap_or_default();
        json!({
            "pipeline": name,
            "state": shown,
            "node": node,
            "topic": spec["topic"],
            "index": spec["index"],
            "seen": source.seen,
            "collected": source.done,
            "pending": source.pending,
            "failed": source.failed,
            "quarantined": state.quarantine.get(name).map_or(0, BTreeMap::len),
            "bytes": source.bytes,
            "files_per_s": round(source.rate),
            "documents": documents,
            "documents_per_s": round(rate),
            "partitions": if pipeline.paused { 0 } else { processing },
            "lag": lag,
            "scans": source.scans,
            "last_error": match source.state.as_str() {
                "" | "collecting" => error,
                stopped => Some(stopped.to_owned()),
            },
        })
    })
    .collect()
}

fn round(rate: f64) -> f64 {
    (rate * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Pipeline;

    #[test]
    fn rows_merge_what_the_nodes_say() {
        let mut state = FlowState::default();
        let spec = r#"{"topic":"news","index":"news","source":{"password":"hunter2"}}"#;
        let pipeline = Pipeline { spec: spec.into(), ..Default::default() };
        state.pipelines.insert("news".into(), pipeline.clone());
        state.pipelines.insert("old".into(), Pipeline { deleted: true, ..pipeline });
        let source = SourcePart {
            state: "collecting".into(),
            seen: 9,
            done: 7,
            pending: 2,
            ..Default::default()
        };
        let partition = |mark, end| PartitionPart { mark, end, ..Default::default() };
        let one = NodePart { source: Some(source), partitions: [(0, partition(5, 8))].into() };
        let two = NodePart { source: None, partitions: [(1, partition(4, 4))].into() };
        let nodes = BTreeMap::from([
            (1, BTreeMap::from([("news".to_owned(), one)])),
            (2, BTreeMap::from([("news".to_owned(), two)])),
        ]);
        let rows = rows(&state, &nodes);
        assert_eq!(rows.len(), 1);
        let row = &rows[0];
        assert_eq!((&row["state"], &row["node"]), (&json!("running"), &json!(1)));
        assert_eq!(
            (&row["lag"], &row["collected"], &row["seen"]),
            (&json!(3), &json!(7), &json!(9))
        );
        assert!(!row.to_string().contains("hunter2"));
    }
}

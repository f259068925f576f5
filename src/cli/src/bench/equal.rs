//! After a measurement: every node holds the same.

use std::time::Duration;

use anyhow::bail;
use base::Clock as _;
use serde_json::{Value, json};

use crate::bench::Bench;
use crate::http::Http;

/// How long the nodes may take to become equal.
const DEADLINE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(500);
const TIMEOUT: Duration = Duration::from_secs(10);

/// Waits until all nodes tell the same digests of their groups, hold as many copies of blocks as
/// each other and, in each copy of a shard, as many documents; returns how many nodes there are.
pub(super) fn wait_equal(bench: &Bench<'_>) -> anyhow::Result<usize> {
    let deadline = bench.clock.monotonic() + DEADLINE;
    let http = Http::new(TIMEOUT);
    loop {
        let nodes = nodes(bench, &http);
        let documents = documents(bench, &http);
        let answered = nodes.iter().chain(&documents).all(|(_, holds)| !holds.is_null());
        if answered && all_same(&nodes) && all_same(&documents) {
            return Ok(nodes.len());
        }
        if bench.clock.monotonic() > deadline {
            let all = nodes.iter().chain(&documents);
            let told: Vec<String> = all.map(|(of, holds)| format!("{of}: {holds}")).collect();
            bail!("the replicas are not equal:\n{}", told.join("\n"));
        }
        if bench.stop.sleep(PAUSE) {
            bail!("stopped before the replicas were compared");
        }
    }
}

fn all_same(told: &[(String, Value)]) -> bool {
    told.windows(2).all(|pair| match pair {
        [(_, one), (_, next)] => one == next,
        _ => true,
    })
}

/// What each node holds; null for one that does not tell.
fn nodes(bench: &Bench<'_>, http: &Http) -> Vec<(String, Value)> {
    let digests = bench.target.admin.get_all("/api/digest").into_iter();
    let held = digests.map(|(node, digest)| {
        let copies = http.get(&format!("http://{node}/metrics")).ok();
        let copies = copies.and_then(|answer| {
            metric(&String::from_utf8_lossy(&answer.body), "trine_block_copies")
        });
        let holds = digest.and_then(|d| Some(json!([d.get("groups")?, copies?])));
        (node, holds.unwrap_or_default())
    });
    held.collect()
}

fn metric(text: &str, name: &str) -> Option<String> {
    let of = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(' ')?.to_owned());
    text.lines().find_map(of)
}

/// Documents of the measurement's index: what the first, second… copies of its shards hold. Empty
/// when it made none, null when nobody tells.
fn documents(bench: &Bench<'_>, http: &Http) -> Vec<(String, Value)> {
    let unknown = vec![("documents".to_owned(), Value::Null)];
    let Some(address) = bench.target.elastic.first() else { return Vec::new() };
    let name = &bench.target.name;
    let url = format!("http://{address}/_cat/shards/{name}?format=json&h=shard,node,docs");
    match http.get(&url) {
        Ok(answer) if answer.status == 404 => Vec::new(),
        Ok(answer) if answer.status == 200 => answer.json().map_or(unknown, |rows| by_node(&rows)),
        _ => unknown,
    }
}

fn by_node(rows: &Value) -> Vec<(String, Value)> {
    let mut nodes = std::collections::BTreeMap::<String, Value>::new();
    for row in rows.as_array().into_iter().flatten() {
        let text = |key| row.get(key).and_then(Value::as_str).unwrap_or_default();
        let node = nodes.entry(text("node").to_owned()).or_insert_with(|| json!({}));
        node[text("shard")] = text("docs").into();
    }
    nodes.into_iter().map(|(node, holds)| (format!("documents on {node}"), holds)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(shard: &str, node: &str, docs: &str) -> Value {
        json!({"shard": shard, "node": node, "docs": docs})
    }

    #[test]
    fn copies_are_compared_by_node() {
        let first = [row("0", "a", "5"), row("1", "a", "6")];
        let second = [row("1", "b", "6"), row("0", "b", "5")];
        let rows = json!([first, second].concat());
        assert!(all_same(&by_node(&rows)));
        let rows = json!([row("0", "a", "5"), row("0", "b", "4")]);
        assert!(!all_same(&by_node(&rows)));
        assert!(all_same(&[]));
    }

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let text = "# HELP x\nx_bytes 7\nx 5\n";
        assert_eq!(metric(text, "x"), Some("5".to_owned()));
        assert_eq!(metric(text, "y"), None);
    }
}

//! `trine status`: what the cluster says of itself, as tables.

use serde_json::Value;

use crate::admin::{Admin, Ask};
use crate::args::{AdminArgs, Output};
use crate::output::{bytes, cell, say, table, table_of};

/// Asks any node and prints.
pub fn run(admin: &AdminArgs, output: Output) -> anyhow::Result<()> {
    let status = Admin::of(admin).call("/api/status", Ask::Get)?;
    match output {
        Output::Json => say(status)?,
        Output::Table => say(render(&status))?,
    }
    Ok(())
}

/// The tables of a status: nodes, groups, flow.
fn render(status: &Value) -> String {
    let nodes = list(status, "nodes");
    let mut text = format!("cluster {}\n\n", cell(&status["cluster"]));
    text += &table(
        &["node", "alive", "ready", "disk free", "disk total", "console"],
        nodes.iter().map(node_row).collect(),
    );
    let ids: Vec<String> = nodes.iter().map(|n| cell(&n["id"])).collect();
    let names: Vec<String> = ids.iter().map(|id| format!("node {id}")).collect();
    let mut header = vec!["group", "leader", "term"];
    header.extend(names.iter().map(String::as_str));
    let groups = list(status, "groups").iter().map(|g| group_row(g, &ids)).collect();
    text += "\n\n";
    text += &table(&header, groups);
    let flow = list(status, "flow");
    if !flow.is_empty() {
        text += "\n\n";
        text += &table_of(flow);
    }
    text
}

fn list<'a>(status: &'a Value, key: &str) -> &'a [Value] {
    status.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn node_row(node: &Value) -> Vec<String> {
    let disk = |key: &str| node["disk"][key].as_u64().map_or("-".to_owned(), bytes);
    let yes = |key: &str| match node[key].as_bool() {
        Some(true) => "yes".to_owned(),
        Some(false) => "no".to_owned(),
        None => "-".to_owned(),
    };
    let (free, total) = (disk("free_bytes"), disk("total_bytes"));
    vec![cell(&node["id"]), yes("alive"), yes("ready"), free, total, cell(&node["console"])]
}

/// Role and applied index of each node in a group.
fn group_row(group: &Value, ids: &[String]) -> Vec<String> {
    let leader = cell(&group["leader"]);
    let mut row = vec![cell(&group["id"]), leader.clone(), cell(&group["term"])];
    for id in ids {
        let role = if *id == leader { "leader" } else { "follower" };
        row.push(match group["applied"].get(id).and_then(Value::as_u64) {
            Some(applied) => format!("{role} {applied}"),
            None => "-".to_owned(),
        });
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::json;

    #[test]
    fn shows_nodes_groups_and_flow() {
        let status = json!({
            "cluster": "trine",
            "nodes": [
                {"id": 1, "alive": true, "ready": true, "console": "127.0.0.1:5600",
                 "disk": {"free_bytes": 1_073_741_824, "total_bytes": 4_294_967_296_u64}},
                {"id": 2, "alive": false},
            ],
            "groups": [{"id": "m0", "leader": 1, "term": 4, "applied": {"1": 17}}],
            "flow": [{"pipeline": "뉴스", "state": "running", "lag": 0}],
        });
        expect![[r#"
            cluster trine

            node  alive  ready  disk free  disk total  console
            1     yes    yes    1.0 GiB    4.0 GiB     127.0.0.1:5600
            2     no     -      -          -           -

            group  leader  term  node 1     node 2
            m0     1       4     leader 17  -

            pipeline  state    lag
            뉴스      running  0"#]]
        .assert_eq(&render(&status));
    }

    #[test]
    fn an_answer_of_another_shape_is_no_panic() {
        assert_eq!(render(&json!([])).lines().next(), Some("cluster -"));
    }
}

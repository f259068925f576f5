//! `trine local`: three node processes on loopback until Ctrl-C.

pub mod cluster;
pub mod ports;

use std::time::Duration;

use anyhow::bail;
use serde_json::{Map, Value, json};

use crate::args::{LocalArgs, Output};
use crate::local::cluster::Cluster;
use crate::local::ports::NODES;
use crate::output::{note, say, table};
use crate::signals::Stop;

/// How long a cluster may take to serve; replaying a large log takes its time.
pub const READY_DEADLINE: Duration = Duration::from_secs(120);

/// Runs the command.
pub fn run(args: &LocalArgs, output: Output) -> anyhow::Result<()> {
    let stop = Stop::install()?;
    let mut cluster = Cluster::start(&args.dir, &args.cluster)?;
    print_addresses(&cluster, output)?;
    let Some(passed) = cluster.wait_ready(&stop, READY_DEADLINE)? else {
        cluster.stop();
        return Ok(());
    };
    let seconds = (passed.as_secs_f64() * 100.0).round() / 100.0;
    match output {
        Output::Json => say(json!({"ready": true, "seconds": seconds}))?,
        Output::Table => say(format!("ready after {seconds} s; Ctrl-C stops"))?,
    }
    while !stop.sleep(Duration::from_millis(200)) {
        for ended in cluster.poll() {
            note(&ended.text);
        }
        if !cluster.any_alive() {
            bail!("all nodes have ended");
        }
    }
    cluster.stop();
    Ok(())
}

/// One row per port, one column per node; or one JSON line: node, port name, address.
pub fn print_addresses(cluster: &Cluster, output: Output) -> anyhow::Result<()> {
    let names = cluster.port_names();
    match output {
        Output::Json => {
            let mut nodes = Map::new();
            for node in 1..=NODES {
                let address = |name: &str| Value::from(cluster.address(node, name));
                let ports = names.iter().map(|name| ((*name).to_owned(), address(name)));
                nodes.insert(node.to_string(), ports.collect::<Map<String, Value>>().into());
            }
            say(Value::from(nodes))?;
        }
        Output::Table => {
            let row = |port: &str| {
                let cells = cluster.addresses(port).into_iter();
                std::iter::once(port.to_owned()).chain(cells).collect()
            };
            let rows = names.into_iter().map(row).collect();
            say(table(&["port", "node 1", "node 2", "node 3"], rows))?;
        }
    }
    Ok(())
}

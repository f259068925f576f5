//! Metrics in the Prometheus text format.

use std::fmt::Write as _;

use console::Admin as _;

use crate::admin::NodeAdmin;

/// One family: help, type and samples.
fn family(out: &mut String, name: &str, kind: &str, help: &str, samples: &[(String, f64)]) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (labels, value) in samples {
        let _ = writeln!(out, "{name}{labels} {value}");
    }
}

fn plain(value: f64) -> Vec<(String, f64)> {
    vec![(String::new(), value)]
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
fn float(value: u64) -> f64 {
    value as f64
}

/// All metrics of a node.
pub(crate) fn render(node: &NodeAdmin) -> String {
    let mut out = String::new();
    let ready = if node.not_ready().is_none() { 1.0 } else { 0.0 };
    family(&mut out, "trine_ready", "gauge", "1 when every gateway serves.", &plain(ready));
    let low = if node.cluster.disk_low() { 1.0 } else { 0.0 };
    let help = "1 while free disk space is below the reserve and writes are refused.";
    family(&mut out, "trine_disk_below_reserve", "gauge", help, &plain(low));
    let bytes = plain(float(node.cluster.wal_bytes()));
    family(
        &mut out,
        "trine_wal_live_bytes",
        "gauge",
        "Bytes of log that are still needed.",
        &bytes,
    );
    let wal = node.cluster.wal_stats();
    let counters = [
        ("trine_wal_flushes_total", "Flushes of the write-ahead log.", wal.flushes),
        ("trine_wal_bytes_total", "Bytes written to the write-ahead log.", wal.bytes),
        ("trine_wal_slow_flushes_total", "Flushes that took over 15 ms.", wal.slow_flushes),
    ];
    for (name, help, value) in counters {
        family(&mut out, name, "counter", help, &plain(float(value)));
    }
    let damaged = plain(float(node.cluster.damaged_copies()));
    let help = "Files of snapshots that came damaged and were refused.";
    family(&mut out, "trine_snapshot_damaged_files_total", "counter", help, &damaged);
    groups(&mut out, node);
    out
}

fn groups(out: &mut String, node: &NodeAdmin) {
    let groups = node.cluster.status();
    let by_group = |value: &dyn Fn(&consensus::GroupStatus) -> f64| -> Vec<(String, f64)> {
        groups.iter().map(|g| (format!("{{group=\"{}\"}}", g.group), value(g))).collect()
    };
    let leads = by_group(&|g| if g.role == "leader" { 1.0 } else { 0.0 });
    family(out, "trine_group_leader", "gauge", "1 where this node leads the group.", &leads);
    let term = by_group(&|g| float(g.term));
    family(out, "trine_group_term", "gauge", "Raft term of the group.", &term);
    let applied = by_group(&|g| float(g.applied));
    family(out, "trine_group_applied_index", "gauge", "Last applied log index.", &applied);
}

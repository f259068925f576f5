//! Metrics in the Prometheus text format: the node's own, then the Kafka port's.

use base::metrics::{Kind, Text};
use console::Admin as _;

use crate::admin::NodeAdmin;

/// All metrics of a node.
pub(crate) fn render(node: &NodeAdmin) -> String {
    let mut text = Text::default();
    let ready = u8::from(node.not_ready().is_none());
    text.single("trine_ready", Kind::Gauge, "1 when every gateway serves.", ready);
    let help = "1 while free disk space is below the reserve and writes are refused.";
    let low = u8::from(node.cluster.disk_low());
    text.single("trine_disk_below_reserve", Kind::Gauge, help, low);
    let help = "Bytes of log that are still needed.";
    text.single("trine_wal_live_bytes", Kind::Gauge, help, node.cluster.wal_bytes());
    let wal = node.cluster.wal_stats();
    let counters = [
        ("trine_wal_flushes_total", "Flushes of the write-ahead log.", wal.flushes),
        ("trine_wal_bytes_total", "Bytes written to the write-ahead log.", wal.bytes),
        ("trine_wal_slow_flushes_total", "Flushes that took over 15 ms.", wal.slow_flushes),
    ];
    for (name, help, value) in counters {
        text.single(name, Kind::Counter, help, value);
    }
    let help = "Files of snapshots that came damaged and were refused.";
    let damaged = node.cluster.damaged_copies();
    text.single("trine_snapshot_damaged_files_total", Kind::Counter, help, damaged);
    blocks(&mut text, node);
    groups(&mut text, node);
    security(&mut text, node);
    node.kafka.render(&mut text);
    text.finish()
}

fn blocks(text: &mut Text, node: &NodeAdmin) {
    let stats = node.services.blocks.stats();
    let gauges = [
        ("trine_blocks", "Blocks of all files; on every node.", stats.blocks),
        ("trine_blocks_with_missing_copies", "Of those, not on every node.", stats.partial),
        ("trine_block_copies", "Copies of blocks on this node's disk.", stats.local_blocks),
        ("trine_block_copy_bytes", "Bytes of these copies.", stats.local_bytes),
    ];
    for (name, help, value) in gauges {
        text.single(name, Kind::Gauge, help, value);
    }
    let help = "Copies of blocks that were mended, counted where it was found out.";
    text.single("trine_block_repairs_total", Kind::Counter, help, stats.repaired);
}

fn security(text: &mut Text, node: &NodeAdmin) {
    let counts = node.services.security.audit().counts();
    let counters = [
        ("trine_authentications_total", "Clients that proved who they are.", counts.authenticated),
        (
            "trine_failed_authentications_total",
            "Clients that did not prove who they are.",
            counts.refused,
        ),
        (
            "trine_failed_tls_handshakes_total",
            "TLS handshakes that failed or took too long.",
            counts.handshakes_failed,
        ),
        ("trine_denied_actions_total", "Actions that access control denied.", counts.denied),
        (
            "trine_throttled_responses_total",
            "Responses whose client was made to wait by a quota.",
            counts.throttled,
        ),
        (
            "trine_throttled_milliseconds_total",
            "How long clients were made to wait by quotas.",
            counts.throttled_ms,
        ),
    ];
    for (name, help, value) in counters {
        text.single(name, Kind::Counter, help, value);
    }
}

fn groups(text: &mut Text, node: &NodeAdmin) {
    type Field = fn(&consensus::GroupStatus) -> u64;
    let families: [(&str, &str, Field); 3] = [
        ("trine_group_leader", "1 where this node leads the group.", |g| {
            u64::from(g.role == "leader")
        }),
        ("trine_group_term", "Raft term of the group.", |g| g.term),
        ("trine_group_applied_index", "Last applied log index.", |g| g.applied),
    ];
    let groups = node.cluster.status();
    for (name, help, field) in families {
        text.family(name, Kind::Gauge, help);
        for group in &groups {
            text.sample(name, &[("group", &group.group.to_string())], field(group));
        }
    }
}

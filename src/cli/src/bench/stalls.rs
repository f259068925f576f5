//! Slow flushes of the nodes' write-ahead logs, set apart from what the software takes.
//!
//! Shared disks pause for 15 to 400 ms now and then, and every request that waits for such a
//! flush is late whatever the program does. Nodes remember when their slow flushes were
//! (`slow_flushes` of `/api/node`); requests that overlap with one are counted apart.

use std::time::Duration;

use base::Clock;
use serde_json::Value;

use crate::bench::Bench;
use crate::bench::measure::percentile;

/// A flush is noticed a little before it begins and after it ends: clocks tick in milliseconds.
const MARGIN_US: u64 = 2_000;

/// What is needed to place flushes on this program's clock.
pub(super) struct Stalls {
    /// Wall time minus monotonic time, in microseconds.
    offset_us: i64,
    began_ms: i64,
}

impl Stalls {
    /// Begins to watch.
    pub(super) fn watch(bench: &Bench<'_>) -> Self {
        let began_ms = bench.clock.unix_ms();
        Self { offset_us: began_ms * 1000 - micros(bench.clock.monotonic()), began_ms }
    }

    /// Figures of requests (begin and latency, in microseconds) that no slow flush overlaps, and
    /// of the flushes.
    pub(super) fn set_apart(
        &self,
        bench: &Bench<'_>,
        requests: impl Iterator<Item = (u64, u32)>,
    ) -> Vec<(&'static str, f64)> {
        let mut spans = Vec::new();
        for (_, node) in bench.target.admin.get_all("/api/node") {
            let node = node.unwrap_or_default();
            let flushes = node["slow_flushes"].as_array().map_or(&[][..], Vec::as_slice);
            spans.extend(flushes.iter().filter_map(|flush| self.span(flush)));
        }
        let longest = spans.iter().map(|(from, to)| to - from - 2 * MARGIN_US).max().unwrap_or(0);
        let count = spans.len();
        let spans = joined(spans);
        let (mut quiet, mut all) = (Vec::new(), 0_usize);
        for (begun, took) in requests {
            all += 1;
            if !overlaps(&spans, begun, begun.saturating_add(u64::from(took))) {
                quiet.push(took);
            }
        }
        quiet.sort_unstable();
        let apart = all - quiet.len();
        vec![
            ("p50_ms_without_slow_flushes", percentile(&quiet, 50) / 1e3),
            ("p99_ms_without_slow_flushes", percentile(&quiet, 99) / 1e3),
            ("percent_near_slow_flushes", 100.0 * apart as f64 / all.max(1) as f64),
            ("slow_flushes", count as f64),
            ("slowest_flush_ms", longest as f64 / 1e3),
        ]
    }

    /// A flush on this program's clock, in microseconds.
    fn span(&self, flush: &Value) -> Option<(u64, u64)> {
        let (ended_ms, took_us) = (flush["ended_ms"].as_i64()?, flush["took_us"].as_u64()?);
        if ended_ms < self.began_ms {
            return None;
        }
        let ended = u64::try_from(ended_ms * 1000 - self.offset_us).ok()?;
        Some((ended.saturating_sub(took_us + MARGIN_US), ended + MARGIN_US))
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

/// Spans in order, those that touch joined.
fn joined(mut spans: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    spans.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (from, to) in spans {
        match joined.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => joined.push((from, to)),
        }
    }
    joined
}

fn overlaps(spans: &[(u64, u64)], from: u64, to: u64) -> bool {
    let after = spans.partition_point(|span| span.1 < from);
    spans.get(after).is_some_and(|span| span.0 <= to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_during_a_flush_are_found() {
        let spans = joined(vec![(100, 200), (150, 300), (500, 600)]);
        assert_eq!(spans, [(100, 300), (500, 600)]);
        let cases = [
            (0, 99, false),
            (0, 100, true),
            (250, 260, true),
            (301, 499, false),
            (400, 900, true),
            (601, 900, false),
        ];
        for (from, to, expected) in cases {
            assert_eq!(overlaps(&spans, from, to), expected, "{from}..{to}");
        }
    }
}

//! Whether a partition is compacted now, and how far: the leader's part. Pure.

use segment::SegmentInfo;

use super::{Compaction, PlanSpec};
use crate::age::newest_ms;
use crate::configs::CompactionSettings;
use crate::limits::{COMPACTION_WINDOW, PRODUCER_EXPIRY_MS};

/// What the leader looks at.
pub(crate) struct View<'a> {
    /// All segments, the active one last.
    pub(crate) segments: &'a [SegmentInfo],
    pub(crate) compaction: &'a Compaction,
    pub(crate) settings: &'a CompactionSettings,
    pub(crate) segment_bytes: u64,
    pub(crate) log_start: i64,
    /// Nothing from here on is compacted: the last stable offset.
    pub(crate) stable: i64,
    pub(crate) now_ms: i64,
    /// Time of the oldest dirty record; looked at only with `max.compaction.lag.ms`.
    pub(crate) oldest_dirty_ms: Option<i64>,
}

/// What could be compacted.
struct Dirty {
    from: i64,
    /// How far one plan goes.
    upto: i64,
    end: i64,
    /// All that could be, in as many plans as it takes: Kafka's ratio is about that, too.
    bytes: u64,
}

/// The plan that is due, if one is.
pub(crate) fn decide(view: &View<'_>) -> Option<PlanSpec> {
    let compaction = view.compaction;
    if !compaction.plans.is_empty() {
        return None;
    }
    let spec = |upto, from, end| PlanSpec {
        upto,
        from,
        end,
        now_ms: view.now_ms,
        delete_retention_ms: view.settings.delete_retention_ms,
        segment_bytes: view.segment_bytes,
        producers_since_ms: view.now_ms.saturating_sub(PRODUCER_EXPIRY_MS),
    };
    if let Some(dirty) = dirty(view)
        && (is_dirty_enough(view, &dirty) || is_late(view))
    {
        return Some(spec(dirty.upto, dirty.from, dirty.end));
    }
    let waited = view.now_ms.saturating_sub(compaction.planned_at_ms);
    let horizon_passed = compaction.next_horizon_ms <= view.now_ms
        && waited >= view.settings.delete_retention_ms
        && compaction.compacted_to > view.log_start;
    // Beyond Kafka: tombstones go also when nothing new comes.
    let clean_to = compaction.clean_to;
    horizon_passed.then(|| spec(compaction.compacted_to, clean_to, clean_to))
}

/// The whole closed segments that may be compacted, and how far one plan's memory goes.
fn dirty(view: &View<'_>) -> Option<Dirty> {
    let Compaction { clean_to, compacted_to, .. } = *view.compaction;
    // What was deleted needs no compaction.
    let from = clean_to.max(view.log_start);
    let window_end = from.saturating_add(i64::try_from(COMPACTION_WINDOW).unwrap_or(i64::MAX));
    let mut found: Option<Dirty> = None;
    let mut is_full = false;
    for (number, pair) in view.segments.windows(2).enumerate() {
        let [segment, next] = pair else { break };
        let (ends, boundary) = (offset(segment.next_offset), offset(next.base_offset));
        if ends <= from {
            continue;
        }
        // A segment of which no time is known is no younger than the one behind it.
        let made_ms = || view.segments.iter().skip(number).find_map(newest_ms);
        let until = view.now_ms.saturating_sub(view.settings.min_lag_ms);
        let too_young = view.settings.min_lag_ms > 0 && made_ms().is_some_and(|made| made > until);
        if ends > view.stable || too_young {
            break;
        }
        let dirty = found.get_or_insert(Dirty { from, upto: 0, end: 0, bytes: 0 });
        dirty.bytes += segment.len;
        if !is_full {
            (dirty.upto, dirty.end) = (boundary, boundary.min(window_end));
        }
        // Of segments that a plan made, only the end of the last is the same on all nodes.
        is_full |= boundary >= window_end.max(compacted_to);
    }
    found.filter(|dirty| {
        dirty.upto > view.log_start && dirty.upto >= compacted_to && dirty.end > from
    })
}

/// Kafka's rule: dirty bytes against all that a compaction would read.
fn is_dirty_enough(view: &View<'_>, dirty: &Dirty) -> bool {
    let clean_to = view.compaction.clean_to;
    let clean = view.segments.iter().filter(|s| offset(s.next_offset) <= clean_to);
    let clean: u64 = clean.map(|s| s.len).sum();
    let total = u128::from(clean) + u128::from(dirty.bytes);
    let limit = u128::from(view.settings.min_dirty_millionths) * total;
    u128::from(dirty.bytes) * 1_000_000 > limit
}

/// Whether the oldest dirty record is older than `max.compaction.lag.ms`.
fn is_late(view: &View<'_>) -> bool {
    let until = view.now_ms.saturating_sub(view.settings.max_lag_ms);
    view.oldest_dirty_ms.is_some_and(|oldest| oldest > 0 && oldest < until)
}

fn offset(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: CompactionSettings = CompactionSettings {
        min_lag_ms: 0,
        max_lag_ms: i64::MAX,
        min_dirty_millionths: 500_000,
        delete_retention_ms: 1000,
    };

    /// Segments of ten offsets and a hundred bytes each; the last one is active.
    fn segments(count: u64) -> Vec<SegmentInfo> {
        (0..count)
            .map(|n| SegmentInfo {
                base_offset: n * 10,
                generation: 0,
                len: 100,
                crc: 0,
                next_offset: n * 10 + 10,
                max_timestamp_ms: n.cast_signed() * 100,
            })
            .collect()
    }

    /// `upto` and `end` of what is decided after the change.
    fn check(change: impl Fn(&mut View<'_>, &mut Compaction), expected: Option<(i64, i64)>) {
        let (segments, mut compaction) = (segments(5), Compaction::default());
        let none = Compaction::default();
        let mut view = View {
            segments: &segments,
            compaction: &none,
            settings: &SETTINGS,
            segment_bytes: 1000,
            log_start: 0,
            stable: 50,
            now_ms: 1000,
            oldest_dirty_ms: None,
        };
        change(&mut view, &mut compaction);
        let view = View { compaction: &compaction, ..view };
        assert_eq!(decide(&view).map(|spec| (spec.upto, spec.end)), expected);
    }

    #[test]
    fn closed_segments_are_compacted_when_they_are_dirty_enough() {
        check(|_, _| (), Some((40, 40)));
        check(|view, _| view.segments = &view.segments[..1], None);
        check(|view, _| view.stable = 29, Some((20, 20)));
        let clean = |to| {
            move |_: &mut View<'_>, c: &mut Compaction| {
                (c.clean_to, c.compacted_to, c.generation) = (to, to, 1);
            }
        };
        // 30 of 40 are dirty; 20 of 40 are not more than half; nothing is.
        check(clean(10), Some((40, 40)));
        check(clean(20), None);
        check(clean(40), None);
    }

    #[test]
    fn young_segments_wait_and_old_ones_do_not() {
        const LAG: CompactionSettings = CompactionSettings { min_lag_ms: 850, ..SETTINGS };
        check(|view, _| view.settings = &LAG, Some((20, 20)));
        const MAX: CompactionSettings = CompactionSettings { max_lag_ms: 100, ..SETTINGS };
        let late = |oldest| {
            move |view: &mut View<'_>, c: &mut Compaction| {
                (c.clean_to, c.compacted_to, c.generation) = (30, 30, 1);
                view.settings = &MAX;
                view.oldest_dirty_ms = Some(oldest);
            }
        };
        check(late(899), Some((40, 40)));
        check(late(900), None);
        // Without timestamps the time of the append counts.
        let mut untimed = segments(5);
        for segment in &mut untimed {
            let appended = segment.max_timestamp_ms;
            segment.max_timestamp_ms = crate::age::newest_or_appended(-1, appended);
        }
        let decided = |now_ms| {
            let view = View {
                segments: &untimed,
                compaction: &Compaction::default(),
                settings: &LAG,
                segment_bytes: 1000,
                log_start: 0,
                stable: 50,
                now_ms,
                oldest_dirty_ms: None,
            };
            decide(&view).map(|spec| spec.upto)
        };
        assert_eq!((decided(840), decided(1000), decided(1150)), (None, Some(20), Some(40)));
    }

    /// What is clean may be more than a plan takes: plans go on all the same.
    #[test]
    fn the_ratio_counts_all_that_is_dirty() {
        let (count, wide) = (40, COMPACTION_WINDOW);
        let all: Vec<_> = (0..count)
            .map(|n| SegmentInfo {
                base_offset: n * wide,
                next_offset: (n + 1) * wide,
                ..segments(1).remove(0)
            })
            .collect();
        let clean = |segments: i64| {
            let to = segments * offset(wide);
            let compaction =
                Compaction { clean_to: to, compacted_to: to, generation: 1, ..Default::default() };
            let view = View {
                segments: &all,
                compaction: &compaction,
                settings: &SETTINGS,
                segment_bytes: 1000,
                log_start: 0,
                stable: i64::MAX,
                now_ms: 1000,
                oldest_dirty_ms: None,
            };
            decide(&view).map(|spec| (spec.upto / offset(wide), spec.end / offset(wide)))
        };
        // One of them is active: 20 of 39 are dirty, then 19.
        assert_eq!((clean(19), clean(20)), (Some((20, 20)), None));
    }

    #[test]
    fn tombstones_go_without_new_records() {
        let passed = |horizon, planned| {
            move |_: &mut View<'_>, c: &mut Compaction| {
                (c.clean_to, c.compacted_to, c.generation) = (40, 40, 1);
                (c.next_horizon_ms, c.planned_at_ms) = (horizon, planned);
            }
        };
        check(passed(1000, 0), Some((40, 40)));
        check(passed(1001, 0), None);
        check(passed(1000, 1), None);
    }

    #[test]
    fn a_window_ends_inside_a_segment() {
        let wide = i64::try_from(COMPACTION_WINDOW).unwrap();
        let mut all = segments(3);
        all[0].next_offset = COMPACTION_WINDOW * 2;
        all[1].base_offset = COMPACTION_WINDOW * 2;
        all[1].next_offset = COMPACTION_WINDOW * 3;
        all[2].base_offset = COMPACTION_WINDOW * 3;
        let mut compaction = Compaction::default();
        let mut ends = vec![];
        loop {
            let view = View {
                segments: &all,
                compaction: &compaction,
                settings: &CompactionSettings { min_dirty_millionths: 0, ..SETTINGS },
                segment_bytes: 1000,
                log_start: 0,
                stable: i64::MAX,
                now_ms: 1000,
                oldest_dirty_ms: None,
            };
            let Some(spec) = decide(&view) else { break };
            ends.push((spec.upto / wide, spec.end / wide));
            let begins = |at| all.iter().any(|s| offset(s.base_offset) == at);
            assert!(compaction.accept(spec, (0, i64::MAX), begins));
            compaction.plans.clear();
        }
        assert_eq!(ends, [(2, 1), (2, 2), (3, 3)]);
    }

    #[test]
    fn what_was_deleted_is_not_compacted() {
        let far = COMPACTION_WINDOW * 300;
        let mut all = segments(3);
        for segment in &mut all {
            segment.base_offset += far;
            segment.next_offset += far;
        }
        let mut compaction = Compaction::default();
        let log_start = offset(far) + 3;
        let view = View {
            segments: &all,
            compaction: &compaction,
            settings: &SETTINGS,
            segment_bytes: 1000,
            log_start,
            stable: i64::MAX,
            now_ms: 1000,
            oldest_dirty_ms: None,
        };
        let spec = decide(&view).unwrap();
        let end = offset(far) + 20;
        assert_eq!((spec.from, spec.end, spec.upto), (log_start, end, end));
        let begins = |at| all.iter().any(|s| offset(s.base_offset) == at);
        // Records from before it that are still there would not be looked at.
        assert!(!compaction.accept(spec.clone(), (log_start - 1, i64::MAX), begins));
        assert!(compaction.accept(spec, (log_start + 1, i64::MAX), begins));
        assert_eq!(compaction.clean_to, end);
    }
}

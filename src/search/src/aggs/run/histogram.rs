//! Histograms of numbers and dates.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use tantivy::DocId;

use super::{SegmentRun, Source, Values};
use crate::aggs::{AggState, Aggregations, BucketKey, Interval, Shown, ValueSource};
use crate::dates::{add_units, round_down, time_zone};
use crate::error::{EsError, Result};

impl SegmentRun<'_> {
    pub(super) fn histogram(
        &self,
        spec: &ValueSource,
        interval: f64,
        offset: f64,
        subs: &Aggregations,
        docs: &[DocId],
    ) -> Result<AggState> {
        let source = self.source(spec, "histogram")?;
        let round = |number: f64| {
            let place = ((number - offset) / interval).floor();
            Some(BucketKey::double(place * interval + offset))
        };
        self.rounded(&source, spec, "histogram", round, subs, docs)
    }

    pub(super) fn date_histogram(
        &self,
        spec: &ValueSource,
        interval: Interval,
        zone_name: &str,
        offset_ms: i64,
        subs: &Aggregations,
        docs: &[DocId],
    ) -> Result<AggState> {
        let mut source = self.source(spec, "date_histogram")?;
        if let Shown::Date { zone, .. } = &mut source.shown {
            zone_name.clone_into(zone);
        }
        let mut rounder = DateRounder::new(interval, time_zone(zone_name)?, offset_ms);
        let round = |number: f64| rounder.round(number as i64).map(BucketKey::Long);
        self.rounded(&source, spec, "date_histogram", round, subs, docs)
    }

    fn rounded(
        &self,
        source: &Source,
        spec: &ValueSource,
        name: &str,
        mut round: impl FnMut(f64) -> Option<BucketKey>,
        subs: &Aggregations,
        docs: &[DocId],
    ) -> Result<AggState> {
        if let Values::Text(_) = source.values {
            return Err(EsError::illegal(format!(
                "Field [{}] of type [keyword] is not supported for aggregation [{name}]",
                spec.field
            )));
        }
        let missing = source.missing_number()?;
        let mut groups: BTreeMap<BucketKey, Vec<DocId>> = BTreeMap::new();
        for doc in docs {
            let mut numbers = Vec::new();
            if let Values::Number(Some(column)) = &source.values {
                column.each(*doc, |number| numbers.push(number));
            }
            if numbers.is_empty() {
                numbers.extend(missing);
            }
            for key in numbers.into_iter().filter_map(&mut round) {
                let list = groups.entry(key).or_default();
                if list.last() != Some(doc) {
                    list.push(*doc);
                }
            }
        }
        self.grouped(groups, source.shown.clone(), subs)
    }
}

/// Rounds instants to the start of their bucket; remembers the last bucket, since neighbours
/// usually share it.
pub(in crate::aggs) struct DateRounder {
    interval: Interval,
    zone: TimeZone,
    offset_ms: i64,
    last: Option<(i64, i64)>,
}

impl DateRounder {
    pub(in crate::aggs) fn new(interval: Interval, zone: TimeZone, offset_ms: i64) -> Self {
        Self { interval, zone, offset_ms, last: None }
    }

    pub(in crate::aggs) fn round(&mut self, ms: i64) -> Option<i64> {
        if let Some((start, end)) = self.last
            && (start..end).contains(&ms)
        {
            return Some(start);
        }
        let shifted = ms.checked_sub(self.offset_ms)?;
        let start = match self.interval {
            Interval::Calendar(unit) => round_down(shifted, unit, &self.zone)?,
            Interval::Fixed(length) => {
                let local = self.local_offset(shifted)?;
                let place = (shifted + local).div_euclid(length) * length - local;
                // A change of the clock inside the bucket moves its start.
                let again = self.local_offset(place)?;
                if again == local { place } else { place + local - again }
            }
        };
        let start = start.checked_add(self.offset_ms)?;
        if let Some(end) = self.next(start)
            && self.zone == TimeZone::UTC
        {
            self.last = Some((start, end));
        }
        Some(start)
    }

    fn local_offset(&self, ms: i64) -> Option<i64> {
        if self.zone == TimeZone::UTC {
            return Some(0);
        }
        let stamp = jiff::Timestamp::from_millisecond(ms).ok()?;
        Some(i64::from(self.zone.to_offset(stamp).seconds()) * 1000)
    }

    /// The start of the bucket behind the one that starts at `start`.
    pub(in crate::aggs) fn next(&self, start: i64) -> Option<i64> {
        match self.interval {
            Interval::Fixed(length) => start.checked_add(length),
            Interval::Calendar(unit) => {
                let shifted = start.checked_sub(self.offset_ms)?;
                add_units(shifted, unit, 1, &self.zone)?.checked_add(self.offset_ms)
            }
        }
    }
}

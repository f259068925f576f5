//! Intermediate results: they merge, shrink to what a shard may send, and travel.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tantivy::{f64_to_u64, u64_to_f64};

use super::{AggKind, Aggregations, MetricKind, OrderBy, Sketch};
use crate::error::{EsError, Result};
use crate::limits;

/// Results by name, in the order of the request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AggregationStates(pub Vec<(String, AggState)>);

/// Key of a bucket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum BucketKey {
    /// A whole number.
    Long(i64),
    /// A float by its monotonic bits.
    Double(u64),
    /// A text.
    Text(String),
}

impl BucketKey {
    pub(super) fn double(number: f64) -> Self {
        // Zero has two signs and one bucket.
        Self::Double(f64_to_u64(if number == 0.0 { 0.0 } else { number }))
    }

    pub(super) fn number(&self) -> f64 {
        match self {
            Self::Long(number) => *number as f64,
            Self::Double(bits) => u64_to_f64(*bits),
            Self::Text(_) => 0.0,
        }
    }
}

/// How keys and values of a field are shown.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Shown {
    /// As they are.
    #[default]
    Plain,
    /// As dates of a format in a zone.
    Date {
        /// Format.
        format: String,
        /// Zone.
        zone: String,
    },
    /// As true and false.
    Boolean,
    /// As addresses.
    Ip,
}

/// Documents of a bucket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    /// How many.
    pub count: u64,
    /// Results below.
    pub subs: AggregationStates,
}

/// Numbers seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// How many values.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// What the sum lost to rounding (Kahan).
    pub lost: f64,
    /// Sum of their squares.
    pub squares: f64,
    /// Lowest.
    pub min: f64,
    /// Highest.
    pub max: f64,
    /// How they are shown.
    pub shown: Shown,
}

impl Default for Metric {
    fn default() -> Self {
        Self {
            count: 0,
            sum: 0.0,
            lost: 0.0,
            squares: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            shown: Shown::Plain,
        }
    }
}

impl Metric {
    pub(super) fn add(&mut self, number: f64) {
        self.count += 1;
        self.add_sum(number);
        self.squares += number * number;
        self.min = self.min.min(number);
        self.max = self.max.max(number);
    }

    fn add_sum(&mut self, number: f64) {
        let corrected = number - self.lost;
        let sum = self.sum + corrected;
        self.lost = (sum - self.sum) - corrected;
        self.sum = sum;
    }

    fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.add_sum(other.sum);
        self.squares += other.squares;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        if self.shown == Shown::Plain {
            self.shown = other.shown;
        }
    }

    /// The value of a metric, `None` without numbers.
    pub(super) fn value(&self, kind: MetricKind) -> Option<f64> {
        match kind {
            MetricKind::ValueCount => Some(self.count as f64),
            MetricKind::Sum => Some(self.sum),
            _ if self.count == 0 => None,
            MetricKind::Min => Some(self.min),
            MetricKind::Max => Some(self.max),
            MetricKind::Avg | MetricKind::Stats | MetricKind::ExtendedStats => {
                Some(self.sum / self.count as f64)
            }
        }
    }
}

/// Intermediate result of one aggregation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum AggState {
    /// Buckets by key: terms and histograms.
    Keyed {
        /// Buckets.
        buckets: BTreeMap<BucketKey, Bucket>,
        /// How keys are shown.
        shown: Shown,
        /// Documents in buckets that shards left out.
        other: u64,
        /// How wrong counts may be.
        error: u64,
        /// Shards that were merged.
        shards: u32,
    },
    /// Buckets in the order of the request: ranges and filters.
    Listed {
        /// Buckets.
        buckets: Vec<Bucket>,
        /// Bounds of ranges once they are known as numbers.
        bounds: Vec<(Option<f64>, Option<f64>)>,
        /// How bounds are shown.
        shown: Shown,
    },
    /// One bucket.
    Single(Bucket),
    /// Numbers.
    Metric(Metric),
    /// Distinct values.
    Cardinality(Sketch),
}

impl AggState {
    pub(super) fn keyed(shown: Shown) -> Self {
        Self::Keyed { buckets: BTreeMap::new(), shown, other: 0, error: 0, shards: 0 }
    }
}

impl AggregationStates {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the results of another segment or shard for the same request.
    pub fn merge(&mut self, other: Self) -> Result<()> {
        if self.0.is_empty() {
            *self = other;
            return Ok(());
        }
        if other.0.is_empty() {
            return Ok(());
        }
        for ((name, ours), (theirs_name, theirs)) in self.0.iter_mut().zip(other.0) {
            if *name != theirs_name {
                return Err(EsError::internal("aggregation results of different requests"));
            }
            merge_state(ours, theirs)?;
        }
        Ok(())
    }

    /// Keeps what a shard sends: the best `shard_size` terms.
    pub fn shrink(&mut self, request: &Aggregations) {
        for ((_, state), aggregation) in self.0.iter_mut().zip(&request.0) {
            match state {
                AggState::Keyed { buckets, other, error, shards, .. } => {
                    *shards = 1;
                    buckets.values_mut().for_each(|b| b.subs.shrink(&aggregation.subs));
                    if let AggKind::Terms { shard_size, order, .. } = &aggregation.kind {
                        let cut = keep_best(buckets, *shard_size, order, &aggregation.subs);
                        *other += cut.left_out;
                        *error += cut.error;
                    }
                }
                AggState::Listed { buckets, .. } => {
                    buckets.iter_mut().for_each(|b| b.subs.shrink(&aggregation.subs));
                }
                AggState::Single(bucket) => bucket.subs.shrink(&aggregation.subs),
                AggState::Metric(_) | AggState::Cardinality(_) => {}
            }
        }
    }
}

fn merge_bucket(ours: &mut Bucket, theirs: Bucket) -> Result<()> {
    ours.count += theirs.count;
    ours.subs.merge(theirs.subs)
}

fn merge_state(ours: &mut AggState, theirs: AggState) -> Result<()> {
    match (ours, theirs) {
        (
            AggState::Keyed { buckets, shown, other, error, shards },
            AggState::Keyed {
                buckets: more,
                shown: their_shown,
                other: more_other,
                error: more_error,
                shards: more_shards,
            },
        ) => {
            for (key, bucket) in more {
                match buckets.get_mut(&key) {
                    Some(there) => merge_bucket(there, bucket)?,
                    None => {
                        buckets.insert(key, bucket);
                    }
                }
            }
            if buckets.len() > limits::MAX_SHARD_BUCKETS {
                return Err(too_many_buckets(buckets.len()));
            }
            if *shown == Shown::Plain {
                *shown = their_shown;
            }
            *other += more_other;
            *error += more_error;
            *shards += more_shards;
            Ok(())
        }
        (
            AggState::Listed { buckets, bounds, shown },
            AggState::Listed { buckets: more, bounds: more_bounds, shown: more_shown },
        ) => {
            if buckets.is_empty() {
                (*buckets, *bounds, *shown) = (more, more_bounds, more_shown);
                return Ok(());
            }
            buckets.iter_mut().zip(more).try_for_each(|(a, b)| merge_bucket(a, b))
        }
        (AggState::Single(bucket), AggState::Single(more)) => merge_bucket(bucket, more),
        (AggState::Metric(metric), AggState::Metric(more)) => {
            metric.merge(more);
            Ok(())
        }
        (AggState::Cardinality(sketch), AggState::Cardinality(more)) => {
            sketch.merge(more);
            Ok(())
        }
        _ => Err(EsError::internal("aggregation results of different kinds")),
    }
}

pub(super) fn too_many_buckets(count: usize) -> EsError {
    EsError::new(
        503,
        "too_many_buckets_exception",
        format!(
            "Trying to create too many buckets. Must be less than or equal to: [{}] but was \
             [{count}]. This limit can be set by changing the [search.max_buckets] cluster level \
             setting.",
            limits::MAX_BUCKETS
        ),
    )
}

struct Cut {
    left_out: u64,
    error: u64,
}

fn keep_best(
    buckets: &mut BTreeMap<BucketKey, Bucket>,
    size: usize,
    order: &[(OrderBy, bool)],
    subs: &Aggregations,
) -> Cut {
    let mut cut = Cut { left_out: 0, error: 0 };
    if buckets.len() <= size {
        return cut;
    }
    let mut list: Vec<(BucketKey, Bucket)> = std::mem::take(buckets).into_iter().collect();
    list.sort_by(|a, b| compare(a, b, order, subs));
    cut.left_out = list.iter().skip(size).map(|(_, bucket)| bucket.count).sum();
    list.truncate(size);
    if matches!(order.first(), Some((OrderBy::Count, false))) {
        cut.error = list.last().map_or(0, |(_, bucket)| bucket.count);
    }
    buckets.extend(list);
    cut
}

/// Order of two buckets; keys break ties, ascending.
pub(super) fn compare(
    left: &(BucketKey, Bucket),
    right: &(BucketKey, Bucket),
    order: &[(OrderBy, bool)],
    subs: &Aggregations,
) -> Ordering {
    for (by, ascending) in order {
        let found = match by {
            OrderBy::Count => left.1.count.cmp(&right.1.count),
            OrderBy::Key => left.0.cmp(&right.0),
            OrderBy::Metric(name, value) => {
                let of = |bucket: &Bucket| metric_value(bucket, subs, name, value.as_deref());
                of(&left.1).total_cmp(&of(&right.1))
            }
        };
        let found = if *ascending { found } else { found.reverse() };
        if found.is_ne() {
            return found;
        }
    }
    left.0.cmp(&right.0)
}

fn metric_value(bucket: &Bucket, subs: &Aggregations, name: &str, value: Option<&str>) -> f64 {
    let kind = subs.0.iter().find(|sub| sub.name == name).map(|sub| &sub.kind);
    let state = bucket.subs.0.iter().find(|(known, _)| known == name).map(|(_, state)| state);
    match (state, kind) {
        (Some(AggState::Metric(metric)), Some(AggKind::Metric { kind, .. })) => {
            let kind = match value {
                Some("min") => MetricKind::Min,
                Some("max") => MetricKind::Max,
                Some("sum") => MetricKind::Sum,
                Some("count") => MetricKind::ValueCount,
                Some("avg") => MetricKind::Avg,
                _ => *kind,
            };
            metric.value(kind).unwrap_or(f64::NEG_INFINITY)
        }
        (Some(AggState::Cardinality(sketch)), _) => sketch.count() as f64,
        (Some(AggState::Single(bucket)), _) => bucket.count as f64,
        _ => f64::NEG_INFINITY,
    }
}

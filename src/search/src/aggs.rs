//! Aggregations: parsing, collecting per segment, merging, rendering.
//!
//! Collecting is recursive: the documents of a level are grouped into buckets and each bucket's
//! documents are handed to the level below. The results of segments, shards and nodes are
//! [`AggregationStates`], which merge and travel. What Elasticsearch has and this server has not
//! is an error.

mod parse;
mod render;
mod run;
mod sketch;
mod state;
mod typed;

use serde_json::Value;

use crate::dates::Unit;
use crate::query::Query;

pub use run::SegmentRun;
pub use sketch::Sketch;
pub use state::{AggState, AggregationStates, Bucket, BucketKey, Metric, Shown};
pub use typed::ClassOf;

/// Aggregations of one level, in the order of the request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Aggregations(pub Vec<Aggregation>);

/// A named aggregation.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregation {
    /// Name.
    pub name: String,
    /// What it does.
    pub kind: AggKind,
    /// Aggregations of its buckets.
    pub subs: Aggregations,
    /// Returned as it is.
    pub meta: Option<Value>,
}

/// Field of an aggregation, with a value for documents without one.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueSource {
    /// Path.
    pub field: String,
    /// Stands for a missing value.
    pub missing: Option<Value>,
    /// Format of keys and dates.
    pub format: Option<String>,
}

/// By what buckets are ordered.
#[derive(Clone, Debug, PartialEq)]
pub enum OrderBy {
    /// Number of documents.
    Count,
    /// Key.
    Key,
    /// A metric below: its name, and the value of a multi-value metric.
    Metric(String, Option<String>),
}

/// Filter of terms.
#[derive(Clone, Debug)]
pub enum TermFilter {
    /// Exactly these.
    Values(Vec<String>),
    /// Those that match.
    Pattern(regex::Regex),
}

impl PartialEq for TermFilter {
    fn eq(&self, other: &Self) -> bool {
        format!("{self:?}") == format!("{other:?}")
    }
}

/// Width of the buckets of a date histogram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Interval {
    /// Calendar unit.
    Calendar(Unit),
    /// Milliseconds.
    Fixed(i64),
}

/// Options that both histograms share.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistogramOptions {
    /// Buckets with fewer documents are left out.
    pub min_doc_count: u64,
    /// Range to show even when empty, as written.
    pub extended_bounds: Option<(Value, Value)>,
    /// Whether the answer is an object.
    pub keyed: bool,
    /// Order, by key when `None`.
    pub order: Option<(OrderBy, bool)>,
}

/// One range.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RangeSpec {
    /// Name given by the request.
    pub key: Option<String>,
    /// Lower bound, included.
    pub from: Option<Value>,
    /// Upper bound, excluded.
    pub to: Option<Value>,
}

/// Metrics of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are Elasticsearch's")]
pub enum MetricKind {
    Min,
    Max,
    Avg,
    Sum,
    ValueCount,
    Stats,
    ExtendedStats,
}

/// What an aggregation does.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names are Elasticsearch's")]
pub enum AggKind {
    Terms {
        source: ValueSource,
        size: usize,
        shard_size: usize,
        min_doc_count: u64,
        /// Key and whether ascending.
        order: Vec<(OrderBy, bool)>,
        include: Option<TermFilter>,
        exclude: Option<TermFilter>,
    },
    DateHistogram {
        source: ValueSource,
        interval: Interval,
        time_zone: Option<String>,
        offset_ms: i64,
        options: HistogramOptions,
    },
    Histogram {
        source: ValueSource,
        interval: f64,
        offset: f64,
        options: HistogramOptions,
    },
    Range {
        source: ValueSource,
        ranges: Vec<RangeSpec>,
        keyed: bool,
        dates: bool,
        time_zone: Option<String>,
    },
    Filter(Query),
    Filters {
        filters: Vec<(String, Query)>,
        keyed: bool,
        other: Option<String>,
    },
    Missing(ValueSource),
    Global,
    Metric {
        source: ValueSource,
        kind: MetricKind,
        sigma: f64,
    },
    Cardinality {
        source: ValueSource,
        threshold: usize,
    },
}

impl Aggregations {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads the object under `aggs`.
    pub fn parse(value: &Value) -> crate::Result<Self> {
        parse::aggregations(value, 0)
    }
}

#[cfg(test)]
mod tests;

//! Collecting aggregations over the documents of one segment.

mod histogram;
mod keyword;

pub(super) use histogram::DateRounder;

use std::collections::BTreeMap;

use serde_json::Value;
use tantivy::columnar::StrColumn;
use tantivy::query::EnableScoring;
use tantivy::{DocId, DocSet, SegmentReader, TERMINATED};

use super::sketch::hash;
use super::state::too_many_buckets;
use super::{
    AggKind, AggState, Aggregation, AggregationStates, Aggregations, Bucket, BucketKey, Metric,
    MetricKind, RangeSpec, Shown, Sketch, TermFilter, ValueSource,
};
use crate::dates::{DateFormat, Rounding};
use crate::error::{EsError, Result};
use crate::limits;
use crate::mapping::{FieldDef, FieldKind, ValueClass, parse_bool, parse_number};
use crate::query::{NumberColumn, Query, QueryContext, compile};
use crate::shard::{ShardSnapshot, column_name};

/// A segment with what aggregations need besides its documents.
pub struct SegmentRun<'a> {
    /// Shard.
    pub snapshot: &'a ShardSnapshot,
    /// Time and names.
    pub context: &'a QueryContext,
    /// Segment.
    pub reader: &'a SegmentReader,
    /// Query of the search, for the global aggregation.
    pub query: &'a Query,
}

/// Values of an aggregation's field in a segment.
pub(super) enum Values {
    Number(Option<NumberColumn>),
    Text(Option<StrColumn>),
    /// The mapping does not know the field.
    Unmapped,
}

/// A field with its values and how they are shown.
pub(super) struct Source {
    pub(super) field: Option<std::sync::Arc<FieldDef>>,
    pub(super) values: Values,
    pub(super) shown: Shown,
    pub(super) missing: Option<Value>,
}

impl Aggregations {
    /// Results over no documents, as a shard without segments has them.
    pub(crate) fn empty_states(&self, _: &ShardSnapshot) -> Result<AggregationStates> {
        let states = self.0.iter().map(|agg| (agg.name.clone(), empty_state(agg)));
        Ok(AggregationStates(states.collect()))
    }
}

fn empty_bucket(subs: &Aggregations) -> Bucket {
    let states = subs.0.iter().map(|agg| (agg.name.clone(), empty_state(agg)));
    Bucket { count: 0, subs: AggregationStates(states.collect()) }
}

/// The result of an aggregation over nothing.
pub(super) fn empty_state(aggregation: &Aggregation) -> AggState {
    match &aggregation.kind {
        AggKind::Terms { .. } | AggKind::DateHistogram { .. } | AggKind::Histogram { .. } => {
            AggState::keyed(Shown::Plain)
        }
        AggKind::Range { .. } => {
            AggState::Listed { buckets: Vec::new(), bounds: Vec::new(), shown: Shown::Plain }
        }
        AggKind::Filters { filters, other, .. } => {
            let count = filters.len() + usize::from(other.is_some());
            let buckets = (0..count).map(|_| empty_bucket(&aggregation.subs)).collect();
            AggState::Listed { buckets, bounds: Vec::new(), shown: Shown::Plain }
        }
        AggKind::Filter(_) | AggKind::Missing(_) | AggKind::Global => {
            AggState::Single(empty_bucket(&aggregation.subs))
        }
        AggKind::Metric { .. } => AggState::Metric(Metric::default()),
        AggKind::Cardinality { threshold, .. } => AggState::Cardinality(Sketch::new(*threshold)),
    }
}

impl SegmentRun<'_> {
    /// Aggregates documents, which are in ascending order.
    pub fn collect(&self, aggs: &Aggregations, docs: &[DocId]) -> Result<AggregationStates> {
        let mut out = Vec::new();
        for agg in &aggs.0 {
            out.push((agg.name.clone(), self.one(agg, docs)?));
        }
        Ok(AggregationStates(out))
    }

    pub(super) fn bucket(&self, subs: &Aggregations, docs: &[DocId]) -> Result<Bucket> {
        Ok(Bucket { count: docs.len() as u64, subs: self.collect(subs, docs)? })
    }

    fn one(&self, agg: &Aggregation, docs: &[DocId]) -> Result<AggState> {
        match &agg.kind {
            AggKind::Terms { source, include, exclude, min_doc_count, .. } => {
                let filters = Filters { include: include.as_ref(), exclude: exclude.as_ref() };
                self.terms(source, &filters, *min_doc_count == 0, &agg.subs, docs)
            }
            AggKind::DateHistogram { source, interval, time_zone, offset_ms, .. } => {
                let zone = time_zone.as_deref().unwrap_or("UTC");
                self.date_histogram(source, *interval, zone, *offset_ms, &agg.subs, docs)
            }
            AggKind::Histogram { source, interval, offset, .. } => {
                self.histogram(source, *interval, *offset, &agg.subs, docs)
            }
            AggKind::Range { source, ranges, dates, time_zone, .. } => {
                let zone = time_zone.as_deref().unwrap_or("UTC");
                self.ranges(source, ranges, *dates, zone, &agg.subs, docs)
            }
            AggKind::Filter(query) => {
                let inside = self.matching(query, docs)?;
                self.bucket(&agg.subs, &inside).map(AggState::Single)
            }
            AggKind::Filters { filters, other, .. } => {
                self.filters(filters, other.is_some(), &agg.subs, docs)
            }
            AggKind::Missing(source) => {
                let source = self.source(source, "missing")?;
                let without: Vec<DocId> =
                    docs.iter().copied().filter(|doc| !source.has_value(*doc)).collect();
                self.bucket(&agg.subs, &without).map(AggState::Single)
            }
            AggKind::Global => {
                let all: Vec<DocId> = self.reader.doc_ids_alive().collect();
                self.bucket(&agg.subs, &all).map(AggState::Single)
            }
            AggKind::Metric { source, kind, .. } => self.metric(source, *kind, docs),
            AggKind::Cardinality { source, threshold } => {
                self.cardinality(source, *threshold, docs)
            }
        }
    }

    /// Opens a field for the aggregation named `kind`.
    pub(super) fn source(&self, spec: &ValueSource, kind: &str) -> Result<Source> {
        let missing = spec.missing.clone();
        let Some(field) = self.snapshot.schema.field(&spec.field) else {
            if spec.field == "_id" || spec.field == "_index" {
                return Err(EsError::unsupported(format!("[{kind}] on [{}]", spec.field)));
            }
            let shown = Shown::Plain;
            return Ok(Source { field: None, values: Values::Unmapped, shown, missing });
        };
        if field.class() == ValueClass::Text {
            return Err(crate::search::text_fielddata(&field.path));
        }
        if !field.is_aggregatable() {
            return Err(EsError::illegal(format!(
                "Can't load fielddata on [{}] because fielddata is unsupported on fields of type \
                 [{}]. Use doc values instead.",
                field.path, field.type_name
            )));
        }
        let shown = match field.kind {
            FieldKind::Date => Shown::Date {
                format: spec.format.clone().unwrap_or_else(|| field.format.name().to_owned()),
                zone: "UTC".to_owned(),
            },
            FieldKind::Boolean => Shown::Boolean,
            FieldKind::Ip => Shown::Ip,
            _ => Shown::Plain,
        };
        let values = if field.class() == ValueClass::Keyword {
            let name = column_name(ValueClass::Keyword, &field.path);
            Values::Text(self.reader.fast_fields().str(&name)?)
        } else {
            Values::Number(NumberColumn::open(self.reader, field.class(), &field.path)?)
        };
        Ok(Source { field: Some(field), values, shown, missing })
    }

    /// Those of `docs` that match a query.
    fn matching(&self, query: &Query, docs: &[DocId]) -> Result<Vec<DocId>> {
        let query = compile(query, self.snapshot, self.context)?;
        let searcher = &self.snapshot.searcher;
        let weight = query.weight(EnableScoring::disabled_from_searcher(searcher))?;
        let mut scorer = weight.scorer(self.reader, 1.0)?;
        let mut out = Vec::new();
        for doc in docs {
            if scorer.doc() < *doc {
                scorer.seek(*doc);
            }
            if scorer.doc() == TERMINATED {
                break;
            }
            if scorer.doc() == *doc {
                out.push(*doc);
            }
        }
        Ok(out)
    }

    fn filters(
        &self,
        filters: &[(String, Query)],
        other: bool,
        subs: &Aggregations,
        docs: &[DocId],
    ) -> Result<AggState> {
        let mut buckets = Vec::new();
        let mut rest: std::collections::BTreeSet<DocId> =
            if other { docs.iter().copied().collect() } else { Default::default() };
        for (_, query) in filters {
            let inside = self.matching(query, docs)?;
            inside.iter().for_each(|doc| {
                rest.remove(doc);
            });
            buckets.push(self.bucket(subs, &inside)?);
        }
        if other {
            let rest: Vec<DocId> = rest.into_iter().collect();
            buckets.push(self.bucket(subs, &rest)?);
        }
        Ok(AggState::Listed { buckets, bounds: Vec::new(), shown: Shown::Plain })
    }

    fn metric(&self, spec: &ValueSource, kind: MetricKind, docs: &[DocId]) -> Result<AggState> {
        let source = self.source(spec, "metric")?;
        let mut metric = Metric { shown: source.shown.clone(), ..Metric::default() };
        if let Values::Text(column) = &source.values {
            if kind != MetricKind::ValueCount {
                let field = source.field.as_ref();
                return Err(EsError::illegal(format!(
                    "Field [{}] of type [{}] is not supported for aggregation [{}]",
                    spec.field,
                    field.map_or("keyword", |f| f.type_name.as_str()),
                    metric_name(kind)
                )));
            }
            let values = |doc: &DocId| {
                column.as_ref().map_or(0, |c| c.ords().values_for_doc(*doc).count() as u64)
            };
            metric.count = docs.iter().map(values).sum();
            metric.shown = Shown::Plain;
            return Ok(AggState::Metric(metric));
        }
        let missing = source.missing_number()?;
        for doc in docs {
            let before = metric.count;
            if let Values::Number(Some(column)) = &source.values {
                column.each(*doc, |number| metric.add(number));
            }
            if metric.count == before
                && let Some(number) = missing
            {
                metric.add(number);
            }
        }
        Ok(AggState::Metric(metric))
    }

    fn cardinality(
        &self,
        spec: &ValueSource,
        threshold: usize,
        docs: &[DocId],
    ) -> Result<AggState> {
        let source = self.source(spec, "cardinality")?;
        let mut sketch = Sketch::new(threshold);
        match &source.values {
            Values::Number(Some(column)) => {
                for doc in docs {
                    column
                        .each(*doc, |number| sketch.insert(hash(&number.to_bits().to_le_bytes())));
                }
            }
            Values::Text(Some(column)) => {
                let ords: std::collections::BTreeSet<u64> =
                    docs.iter().flat_map(|doc| column.ords().values_for_doc(*doc)).collect();
                let mut text = String::new();
                for ord in ords {
                    text.clear();
                    column.ord_to_str(ord, &mut text)?;
                    sketch.insert(hash(text.as_bytes()));
                }
            }
            Values::Number(None) | Values::Text(None) | Values::Unmapped => {}
        }
        if let Some(missing) = &source.missing
            && docs.iter().any(|doc| !source.has_value(*doc))
        {
            let number = match &source.values {
                Values::Number(_) => parse_number(missing),
                _ => None,
            };
            let text = missing.as_str().map_or_else(|| missing.to_string(), str::to_owned);
            sketch.insert(match number {
                Some(number) => hash(&number.to_bits().to_le_bytes()),
                None => hash(text.as_bytes()),
            });
        }
        Ok(AggState::Cardinality(sketch))
    }

    fn ranges(
        &self,
        spec: &ValueSource,
        ranges: &[RangeSpec],
        dates: bool,
        zone: &str,
        subs: &Aggregations,
        docs: &[DocId],
    ) -> Result<AggState> {
        let mut source = self.source(spec, "range")?;
        if let Values::Text(_) = source.values {
            return Err(EsError::illegal(format!(
                "Field [{}] of type [keyword] is not supported for aggregation [range]",
                spec.field
            )));
        }
        if let Shown::Date { zone: shown, .. } = &mut source.shown {
            zone.clone_into(shown);
        }
        let mut bounds = Vec::new();
        for range in ranges {
            let bound = |value: &Option<Value>| self.bound(&source, spec, dates, zone, value);
            bounds.push((bound(&range.from)?, bound(&range.to)?));
        }
        let missing = source.missing_number()?;
        let mut groups: Vec<Vec<DocId>> = vec![Vec::new(); bounds.len()];
        for doc in docs {
            let mut numbers = Vec::new();
            if let Values::Number(Some(column)) = &source.values {
                column.each(*doc, |number| numbers.push(number));
            }
            if numbers.is_empty() {
                numbers.extend(missing);
            }
            for ((from, to), group) in bounds.iter().zip(&mut groups) {
                let inside = |n: &f64| from.is_none_or(|f| *n >= f) && to.is_none_or(|t| *n < t);
                if numbers.iter().any(inside) {
                    group.push(*doc);
                }
            }
        }
        let buckets = groups.iter().map(|group| self.bucket(subs, group)).collect::<Result<_>>()?;
        Ok(AggState::Listed { buckets, bounds, shown: source.shown })
    }

    fn bound(
        &self,
        source: &Source,
        spec: &ValueSource,
        dates: bool,
        zone: &str,
        value: &Option<Value>,
    ) -> Result<Option<f64>> {
        let Some(value) = value else { return Ok(None) };
        let date = source.field.as_ref().filter(|field| field.kind == FieldKind::Date);
        if date.is_none() && !dates {
            let number = parse_number(value).ok_or_else(|| {
                EsError::new(400, "number_format_exception", format!("For input string: {value}"))
            })?;
            return Ok(Some(number));
        }
        if let Some(number) = value.as_f64() {
            return Ok(Some(number));
        }
        let format = match (&spec.format, date) {
            (Some(format), _) => DateFormat::new(format)?,
            (None, Some(field)) => field.format.clone(),
            (None, None) => DateFormat::new(crate::dates::DEFAULT_FORMAT)?,
        };
        let zone = crate::dates::time_zone(zone)?;
        let math = crate::dates::DateMath { now_ms: self.context.now_ms, zone };
        let text = value.as_str().unwrap_or_default();
        Ok(Some(math.eval(text, &format, Rounding::Down)? as f64))
    }

    /// Turns grouped documents into buckets.
    pub(super) fn grouped(
        &self,
        groups: BTreeMap<BucketKey, Vec<DocId>>,
        shown: Shown,
        subs: &Aggregations,
    ) -> Result<AggState> {
        if groups.len() > limits::MAX_SHARD_BUCKETS {
            return Err(too_many_buckets(groups.len()));
        }
        let mut buckets = BTreeMap::new();
        for (key, docs) in groups {
            buckets.insert(key, self.bucket(subs, &docs)?);
        }
        Ok(AggState::Keyed { buckets, shown, other: 0, error: 0, shards: 0 })
    }
}

fn metric_name(kind: MetricKind) -> &'static str {
    match kind {
        MetricKind::Min => "min",
        MetricKind::Max => "max",
        MetricKind::Avg => "avg",
        MetricKind::Sum => "sum",
        MetricKind::ValueCount => "value_count",
        MetricKind::Stats => "stats",
        MetricKind::ExtendedStats => "extended_stats",
    }
}

impl Source {
    fn has_value(&self, doc: DocId) -> bool {
        match &self.values {
            Values::Number(Some(NumberColumn::Long(column))) => column.first(doc).is_some(),
            Values::Number(Some(NumberColumn::Double(column))) => column.first(doc).is_some(),
            Values::Text(Some(column)) => column.ords().first(doc).is_some(),
            Values::Number(None) | Values::Text(None) | Values::Unmapped => false,
        }
    }

    /// The number that stands for a missing value.
    pub(super) fn missing_number(&self) -> Result<Option<f64>> {
        let Some(value) = &self.missing else { return Ok(None) };
        if let Some(field) = self.field.as_ref().filter(|field| field.kind == FieldKind::Date)
            && let Some(text) = value.as_str()
        {
            let utc = jiff::tz::TimeZone::UTC;
            let ms = field.format.parse(text, &utc, crate::dates::Fill::Lowest)?;
            return Ok(Some(ms as f64));
        }
        if let (Shown::Boolean, Some(flag)) = (&self.shown, parse_bool(value)) {
            return Ok(Some(f64::from(u8::from(flag))));
        }
        parse_number(value)
            .map(Some)
            .ok_or_else(|| EsError::illegal(format!("For input string: {value}")))
    }
}

/// Which terms are wanted.
pub(super) struct Filters<'a> {
    pub(super) include: Option<&'a TermFilter>,
    pub(super) exclude: Option<&'a TermFilter>,
}

impl Filters<'_> {
    pub(super) fn accepts(&self, text: &str) -> bool {
        let hit = |filter: &TermFilter| match filter {
            TermFilter::Values(values) => values.iter().any(|value| value == text),
            TermFilter::Pattern(regex) => regex.is_match(text),
        };
        self.include.is_none_or(hit) && !self.exclude.is_some_and(hit)
    }

    pub(super) fn is_open(&self) -> bool {
        self.include.is_none() && self.exclude.is_none()
    }
}

//! Merged results as Elasticsearch's JSON.

use serde_json::{Map, Value, json};

use super::run::{DateRounder, empty_state};
use super::state::{compare, too_many_buckets};
use super::{
    AggKind, AggState, Aggregation, AggregationStates, Aggregations, Bucket, BucketKey,
    HistogramOptions, Metric, MetricKind, OrderBy, RangeSpec, Shown,
};
use crate::dates::{DateFormat, Rounding, time_zone};
use crate::error::{EsError, Result};
use crate::limits;
use crate::mapping::{ip_from_hex, parse_number};

impl AggregationStates {
    /// The object under `aggregations`.
    pub fn render(&self, request: &Aggregations) -> Result<Value> {
        let mut count = 0;
        let out = render_level(self, request, &mut count)?;
        Ok(Value::Object(out))
    }
}

fn render_level(
    states: &AggregationStates,
    request: &Aggregations,
    count: &mut usize,
) -> Result<Map<String, Value>> {
    let mut out = Map::new();
    for aggregation in &request.0 {
        let found = states.0.iter().find(|(name, _)| *name == aggregation.name);
        let empty;
        let state = match found {
            Some((_, state)) => state,
            None => {
                empty = empty_state(aggregation);
                &empty
            }
        };
        let mut body = render(state, aggregation, count)?;
        if let Some(meta) = &aggregation.meta {
            body.shift_insert(0, "meta".into(), meta.clone());
        }
        out.insert(aggregation.name.clone(), Value::Object(body));
    }
    Ok(out)
}

fn bump(count: &mut usize, more: usize) -> Result<()> {
    *count += more;
    if *count > limits::MAX_BUCKETS {
        return Err(too_many_buckets(*count));
    }
    Ok(())
}

fn render(state: &AggState, agg: &Aggregation, count: &mut usize) -> Result<Map<String, Value>> {
    match (state, &agg.kind) {
        (AggState::Keyed { .. }, AggKind::Terms { .. }) => terms(state, agg, count),
        (
            AggState::Keyed { buckets, shown, .. },
            AggKind::DateHistogram { .. } | AggKind::Histogram { .. },
        ) => {
            let list: Vec<(BucketKey, Bucket)> =
                buckets.iter().map(|(key, bucket)| (key.clone(), bucket.clone())).collect();
            histogram(list, shown, agg, count)
        }
        (AggState::Listed { buckets, bounds, shown }, AggKind::Range { ranges, keyed, .. }) => {
            range(buckets, bounds, shown, ranges, *keyed, agg, count)
        }
        (AggState::Listed { buckets, .. }, AggKind::Filters { filters, keyed, other }) => {
            bump(count, buckets.len())?;
            let names = filters.iter().map(|(name, _)| name.clone()).chain(other.clone());
            let mut named = Map::new();
            let mut list = Vec::new();
            for (name, bucket) in names.zip(buckets) {
                let mut body = Map::new();
                fill(&mut body, bucket, agg, count)?;
                if *keyed {
                    named.insert(name, Value::Object(body));
                } else {
                    list.push(Value::Object(body));
                }
            }
            let buckets = if *keyed { Value::Object(named) } else { Value::Array(list) };
            Ok(Map::from_iter([("buckets".to_owned(), buckets)]))
        }
        (AggState::Single(bucket), _) => {
            let mut body = Map::new();
            fill(&mut body, bucket, agg, count)?;
            Ok(body)
        }
        (AggState::Metric(metric), AggKind::Metric { kind, sigma, .. }) => {
            Ok(render_metric(metric, *kind, *sigma))
        }
        (AggState::Cardinality(sketch), _) => {
            Ok(Map::from_iter([("value".to_owned(), json!(sketch.count()))]))
        }
        _ => Err(EsError::internal("aggregation result of another kind")),
    }
}

/// `doc_count` and what lies below.
fn fill(
    body: &mut Map<String, Value>,
    bucket: &Bucket,
    agg: &Aggregation,
    count: &mut usize,
) -> Result<()> {
    body.insert("doc_count".into(), json!(bucket.count));
    body.extend(render_level(&bucket.subs, &agg.subs, count)?);
    Ok(())
}

/// A float as Java prints it in JSON.
fn float(number: f64) -> Value {
    json!(number)
}

fn date_text(format: &str, zone: &str, ms: i64) -> String {
    let zone = time_zone(zone).unwrap_or(jiff::tz::TimeZone::UTC);
    DateFormat::new(format).map_or_else(|_| ms.to_string(), |format| format.format(ms, &zone))
}

/// `key` and `key_as_string`, the text first as Elasticsearch does it for histograms.
fn key(body: &mut Map<String, Value>, key: &BucketKey, shown: &Shown, text_first: bool) {
    let text = match shown {
        Shown::Date { format, zone } => Some(date_text(format, zone, key.number() as i64)),
        Shown::Boolean => Some((key.number() != 0.0).to_string()),
        Shown::Plain | Shown::Ip => None,
    };
    let value = match (key, shown) {
        (BucketKey::Text(hex), Shown::Ip) => json!(ip_from_hex(hex)),
        (BucketKey::Text(text), _) => json!(text),
        (BucketKey::Long(number), _) => json!(number),
        (BucketKey::Double(_), _) => float(key.number()),
    };
    if let (Some(text), true) = (&text, text_first) {
        body.insert("key_as_string".into(), json!(text));
    }
    body.insert("key".into(), value);
    if let (Some(text), false) = (&text, text_first) {
        body.insert("key_as_string".into(), json!(text));
    }
}

fn terms(state: &AggState, agg: &Aggregation, count: &mut usize) -> Result<Map<String, Value>> {
    let (
        AggState::Keyed { buckets, shown, other, error, shards },
        AggKind::Terms { size, order, min_doc_count, .. },
    ) = (state, &agg.kind)
    else {
        return Err(EsError::internal("terms result of another kind"));
    };
    let mut list: Vec<(BucketKey, Bucket)> = buckets
        .iter()
        .filter(|(_, bucket)| bucket.count >= *min_doc_count)
        .map(|(key, bucket)| (key.clone(), bucket.clone()))
        .collect();
    list.sort_by(|a, b| compare(a, b, order, &agg.subs));
    let rest: u64 = list.iter().skip(*size).map(|(_, bucket)| bucket.count).sum();
    list.truncate(*size);
    bump(count, list.len())?;
    let mut out = Map::new();
    // One shard knows all its terms.
    let error = if *shards <= 1 { 0 } else { *error };
    out.insert("doc_count_error_upper_bound".into(), json!(error));
    out.insert("sum_other_doc_count".into(), json!(other + rest));
    let mut rendered = Vec::new();
    for (bucket_key, bucket) in &list {
        let mut body = Map::new();
        key(&mut body, bucket_key, shown, false);
        fill(&mut body, bucket, agg, count)?;
        rendered.push(Value::Object(body));
    }
    out.insert("buckets".into(), Value::Array(rendered));
    Ok(out)
}

fn histogram(
    mut list: Vec<(BucketKey, Bucket)>,
    shown: &Shown,
    agg: &Aggregation,
    count: &mut usize,
) -> Result<Map<String, Value>> {
    let options = match &agg.kind {
        AggKind::DateHistogram { options, .. } | AggKind::Histogram { options, .. } => options,
        _ => return Err(EsError::internal("histogram result of another kind")),
    };
    if options.min_doc_count == 0 {
        list = filled(list, options, agg)?;
    }
    list.retain(|(_, bucket)| bucket.count >= options.min_doc_count);
    if let Some((by, ascending)) = &options.order {
        let order = [(by.clone(), *ascending)];
        if *by != OrderBy::Key || !ascending {
            list.sort_by(|a, b| compare(a, b, &order, &agg.subs));
        }
    }
    bump(count, list.len())?;
    let dates = matches!(agg.kind, AggKind::DateHistogram { .. });
    let default = Shown::Date { format: crate::dates::DEFAULT_FORMAT.into(), zone: "UTC".into() };
    let shown = if dates && *shown == Shown::Plain { &default } else { shown };
    let mut named = Map::new();
    let mut rendered = Vec::new();
    for (bucket_key, bucket) in &list {
        let mut body = Map::new();
        key(&mut body, bucket_key, shown, true);
        fill(&mut body, bucket, agg, count)?;
        if options.keyed {
            let name = match body.get("key_as_string").and_then(Value::as_str) {
                Some(text) => text.to_owned(),
                None => format!("{:?}", bucket_key.number()),
            };
            named.insert(name, Value::Object(body));
        } else {
            rendered.push(Value::Object(body));
        }
    }
    let buckets = if options.keyed { Value::Object(named) } else { Value::Array(rendered) };
    Ok(Map::from_iter([("buckets".to_owned(), buckets)]))
}

/// Adds empty buckets between the first and the last, and out to the extended bounds.
fn filled(
    list: Vec<(BucketKey, Bucket)>,
    options: &HistogramOptions,
    agg: &Aggregation,
) -> Result<Vec<(BucketKey, Bucket)>> {
    let mut steps = Steps::new(agg)?;
    let bounds = match &options.extended_bounds {
        Some((low, high)) => Some((steps.bound(low)?, steps.bound(high)?)),
        None => None,
    };
    let mut first = list.first().map(|(key, _)| key.clone());
    let mut last = list.last().map(|(key, _)| key.clone());
    if let Some((low, high)) = bounds {
        first = Some(first.map_or(low.clone(), |key| key.min(low)));
        last = Some(last.map_or(high.clone(), |key| key.max(high)));
    }
    let (Some(mut at), Some(last)) = (first, last) else { return Ok(list) };
    let mut out = Vec::new();
    let mut there = list.into_iter().peekable();
    while at <= last {
        // Buckets of the shards win over computed places, which may differ by rounding.
        while let Some(bucket) = there.next_if(|(key, _)| *key <= at) {
            out.push(bucket);
        }
        if out.last().is_none_or(|(key, _)| *key != at) {
            out.push((at.clone(), Bucket::default()));
        }
        if out.len() > limits::MAX_BUCKETS {
            return Err(too_many_buckets(out.len()));
        }
        match steps.next(&at) {
            Some(next) if next > at => at = next,
            _ => break,
        }
    }
    out.extend(there);
    Ok(out)
}

/// Walks from bucket to bucket.
enum Steps {
    Dates { rounder: DateRounder, format: DateFormat },
    Numbers { interval: f64, offset: f64 },
}

impl Steps {
    fn new(agg: &Aggregation) -> Result<Self> {
        match &agg.kind {
            AggKind::DateHistogram { source, interval, time_zone: zone, offset_ms, .. } => {
                let zone = time_zone(zone.as_deref().unwrap_or("UTC"))?;
                let default = crate::dates::DEFAULT_FORMAT;
                let format = DateFormat::new(source.format.as_deref().unwrap_or(default))?;
                Ok(Self::Dates { rounder: DateRounder::new(*interval, zone, *offset_ms), format })
            }
            AggKind::Histogram { interval, offset, .. } => {
                Ok(Self::Numbers { interval: *interval, offset: *offset })
            }
            _ => Err(EsError::internal("not a histogram")),
        }
    }

    fn bound(&mut self, value: &Value) -> Result<BucketKey> {
        match self {
            Self::Dates { rounder, format } => {
                let ms = match value.as_f64() {
                    Some(ms) => ms as i64,
                    None => {
                        let text = value.as_str().unwrap_or_default();
                        let zone = jiff::tz::TimeZone::UTC;
                        let math = crate::dates::DateMath { now_ms: 0, zone };
                        math.eval(text, format, Rounding::Down)?
                    }
                };
                Ok(BucketKey::Long(rounder.round(ms).unwrap_or(ms)))
            }
            Self::Numbers { interval, offset } => {
                let number = parse_number(value).unwrap_or(0.0);
                let place = ((number - *offset) / *interval).floor();
                Ok(BucketKey::double(place * *interval + *offset))
            }
        }
    }

    fn next(&self, key: &BucketKey) -> Option<BucketKey> {
        match self {
            Self::Dates { rounder, .. } => rounder.next(key.number() as i64).map(BucketKey::Long),
            Self::Numbers { interval, offset } => {
                let place = ((key.number() - offset) / interval).round() + 1.0;
                Some(BucketKey::double(place * interval + offset))
            }
        }
    }
}

fn range(
    buckets: &[Bucket],
    bounds: &[(Option<f64>, Option<f64>)],
    shown: &Shown,
    ranges: &[RangeSpec],
    keyed: bool,
    agg: &Aggregation,
    count: &mut usize,
) -> Result<Map<String, Value>> {
    bump(count, ranges.len())?;
    let text = |bound: f64| match shown {
        Shown::Date { format, zone } => date_text(format, zone, bound as i64),
        _ => format!("{bound:?}"),
    };
    let mut rows = Vec::new();
    for (index, spec) in ranges.iter().enumerate() {
        let written =
            (spec.from.as_ref().and_then(parse_number), spec.to.as_ref().and_then(parse_number));
        let (from, to) = bounds.get(index).copied().unwrap_or(written);
        let shown_bound = |bound: Option<f64>| bound.map_or("*".to_owned(), text);
        let name = spec
            .key
            .clone()
            .unwrap_or_else(|| format!("{}-{}", shown_bound(from), shown_bound(to)));
        let mut body = Map::new();
        if !keyed {
            body.insert("key".into(), json!(name));
        }
        for (key, bound) in [("from", from), ("to", to)] {
            if let Some(bound) = bound {
                body.insert(key.into(), float(bound));
                if matches!(shown, Shown::Date { .. }) {
                    body.insert(format!("{key}_as_string"), json!(text(bound)));
                }
            }
        }
        fill(&mut body, buckets.get(index).unwrap_or(&Bucket::default()), agg, count)?;
        rows.push((from, to, name, body));
    }
    // Elasticsearch orders ranges by their bounds.
    let low = |bound: Option<f64>| bound.unwrap_or(f64::NEG_INFINITY);
    let high = |bound: Option<f64>| bound.unwrap_or(f64::INFINITY);
    rows.sort_by(|a, b| low(a.0).total_cmp(&low(b.0)).then(high(a.1).total_cmp(&high(b.1))));
    let buckets = if keyed {
        Value::Object(rows.into_iter().map(|(_, _, name, body)| (name, body.into())).collect())
    } else {
        Value::Array(rows.into_iter().map(|(_, _, _, body)| body.into()).collect())
    };
    Ok(Map::from_iter([("buckets".to_owned(), buckets)]))
}

fn render_metric(metric: &Metric, kind: MetricKind, sigma: f64) -> Map<String, Value> {
    let mut out = Map::new();
    let mut put = |name: &str, value: Option<f64>, dated: bool| {
        out.insert(name.to_owned(), value.map_or(Value::Null, float));
        if let (Shown::Date { format, zone }, Some(value), true) = (&metric.shown, value, dated) {
            let text = date_text(format, zone, value as i64);
            out.insert(format!("{name}_as_string"), json!(text));
        }
    };
    match kind {
        MetricKind::ValueCount => {
            out.insert("value".into(), json!(metric.count));
        }
        MetricKind::Stats | MetricKind::ExtendedStats => {
            put("min", metric.value(MetricKind::Min), true);
            put("max", metric.value(MetricKind::Max), true);
            put("avg", metric.value(MetricKind::Avg), true);
            put("sum", Some(metric.sum), true);
            if kind == MetricKind::ExtendedStats {
                extended(metric, sigma, &mut put);
            }
            out.shift_insert(0, "count".into(), json!(metric.count));
            if kind == MetricKind::ExtendedStats {
                out.insert("std_deviation_bounds".into(), deviation_bounds(metric, sigma));
            }
        }
        MetricKind::Min | MetricKind::Max | MetricKind::Avg | MetricKind::Sum => {
            put("value", metric.value(kind), true);
        }
    }
    out
}

fn variance(metric: &Metric) -> Option<f64> {
    if metric.count == 0 {
        return None;
    }
    let count = metric.count as f64;
    Some(((metric.squares - metric.sum * metric.sum / count) / count).max(0.0))
}

fn sampling(metric: &Metric) -> Option<f64> {
    let count = metric.count as f64;
    (metric.count > 1)
        .then(|| ((metric.squares - metric.sum * metric.sum / count) / (count - 1.0)).max(0.0))
}

fn extended(metric: &Metric, _sigma: f64, put: &mut impl FnMut(&str, Option<f64>, bool)) {
    let some = metric.count > 0;
    put("sum_of_squares", some.then_some(metric.squares), false);
    let (variance, sampling) = (variance(metric), sampling(metric));
    put("variance", variance, false);
    put("variance_population", variance, false);
    put("variance_sampling", sampling, false);
    put("std_deviation", variance.map(f64::sqrt), false);
    put("std_deviation_population", variance.map(f64::sqrt), false);
    put("std_deviation_sampling", sampling.map(f64::sqrt), false);
}

fn deviation_bounds(metric: &Metric, sigma: f64) -> Value {
    let mean = metric.value(MetricKind::Avg);
    let at = |deviation: Option<f64>, sign: f64| match (mean, deviation) {
        (Some(mean), Some(deviation)) => json!(mean + sign * sigma * deviation),
        _ => Value::Null,
    };
    let population = variance(metric).map(f64::sqrt);
    let sampling = sampling(metric).map(f64::sqrt);
    json!({
        "upper": at(population, 1.0),
        "lower": at(population, -1.0),
        "upper_population": at(population, 1.0),
        "lower_population": at(population, -1.0),
        "upper_sampling": at(sampling, 1.0),
        "lower_sampling": at(sampling, -1.0),
    })
}

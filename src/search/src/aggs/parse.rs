//! JSON to [`Aggregations`].

use serde_json::{Map, Value, json};

use super::{
    AggKind, Aggregation, Aggregations, HistogramOptions, Interval, MetricKind, OrderBy, RangeSpec,
    TermFilter, ValueSource,
};
use crate::dates::Unit;
use crate::error::{EsError, Result};
use crate::limits;
use crate::mapping::{parse_bool, parse_number};
use crate::query::Query;

/// Aggregations that Elasticsearch has and this server does not.
const UNSUPPORTED: &[&str] = &[
    "percentiles",
    "percentile_ranks",
    "top_hits",
    "top_metrics",
    "composite",
    "nested",
    "reverse_nested",
    "significant_terms",
    "significant_text",
    "sampler",
    "diversified_sampler",
    "random_sampler",
    "rare_terms",
    "multi_terms",
    "auto_date_histogram",
    "ip_range",
    "variable_width_histogram",
    "adjacency_matrix",
    "geotile_grid",
    "geohash_grid",
    "geo_bounds",
    "geo_centroid",
    "geo_distance",
    "weighted_avg",
    "median_absolute_deviation",
    "matrix_stats",
    "scripted_metric",
    "string_stats",
    "boxplot",
    "rate",
    "t_test",
    "children",
    "parent",
    "derivative",
    "cumulative_sum",
    "cumulative_cardinality",
    "moving_fn",
    "moving_avg",
    "avg_bucket",
    "max_bucket",
    "min_bucket",
    "sum_bucket",
    "stats_bucket",
    "extended_stats_bucket",
    "percentiles_bucket",
    "bucket_script",
    "bucket_selector",
    "bucket_sort",
    "serial_diff",
    "normalize",
    "inference",
];

pub(super) fn aggregations(value: &Value, depth: usize) -> Result<Aggregations> {
    if depth > limits::MAX_DEPTH {
        return Err(EsError::illegal("aggregations are nested too deeply"));
    }
    let Value::Object(object) = value else {
        return Err(EsError::parsing("Expected [START_OBJECT] under [aggs]"));
    };
    let mut out = Vec::new();
    for (name, body) in object {
        if name.is_empty() || name.contains(['[', ']', '>']) {
            return Err(EsError::parsing(format!(
                "Invalid aggregation name [{name}]. Aggregation names can contain any character \
                 except '[', ']', and '>'"
            )));
        }
        out.push(aggregation(name, body, depth)?);
    }
    Ok(Aggregations(out))
}

fn aggregation(name: &str, body: &Value, depth: usize) -> Result<Aggregation> {
    let Value::Object(object) = body else {
        return Err(EsError::parsing(format!(
            "Aggregation definition for [{name}] starts with a [VALUE_STRING], expected a \
             [START_OBJECT]."
        )));
    };
    let mut subs = Aggregations::default();
    let mut meta = None;
    let mut found: Option<(&String, &Value)> = None;
    for (key, value) in object {
        match key.as_str() {
            "aggs" | "aggregations" => subs = aggregations(value, depth + 1)?,
            "meta" => meta = Some(value.clone()),
            _ => {
                if let Some((first, _)) = found {
                    return Err(EsError::parsing(format!(
                        "Found two aggregation type definitions in [{name}]: [{first}] and [{key}]"
                    )));
                }
                found = Some((key, value));
            }
        }
    }
    let Some((kind_name, spec)) = found else {
        return Err(EsError::parsing(format!("Missing definition for aggregation [{name}]")));
    };
    let kind = kind(name, kind_name, spec)?;
    if !subs.is_empty() && matches!(kind, AggKind::Metric { .. } | AggKind::Cardinality { .. }) {
        return Err(EsError::new(
            500,
            "aggregation_initialization_exception",
            format!("Aggregator [{name}] of type [{kind_name}] cannot accept sub-aggregations"),
        ));
    }
    Ok(Aggregation { name: name.to_owned(), kind, subs, meta })
}

fn kind(name: &str, kind_name: &str, spec: &Value) -> Result<AggKind> {
    let metric = match kind_name {
        "min" => Some(MetricKind::Min),
        "max" => Some(MetricKind::Max),
        "avg" => Some(MetricKind::Avg),
        "sum" => Some(MetricKind::Sum),
        "value_count" => Some(MetricKind::ValueCount),
        "stats" => Some(MetricKind::Stats),
        "extended_stats" => Some(MetricKind::ExtendedStats),
        _ => None,
    };
    let Value::Object(object) = spec else {
        return Err(EsError::parsing(format!(
            "Expected [START_OBJECT] under [{kind_name}], but got a scalar in [{name}]"
        )));
    };
    let mut at = Reader { kind: kind_name, object, seen: Vec::new() };
    let kind = match kind_name {
        "terms" => terms(&mut at)?,
        "date_histogram" => date_histogram(&mut at)?,
        "histogram" => histogram(&mut at)?,
        "range" | "date_range" => range(&mut at)?,
        "filter" => return Query::parse(spec).map(AggKind::Filter),
        "filters" => filters(&mut at)?,
        "missing" => AggKind::Missing(at.source()?),
        "global" => AggKind::Global,
        "cardinality" => {
            let threshold = at.number("precision_threshold")?.unwrap_or(3000.0);
            at.take("rehash");
            let threshold = threshold.clamp(0.0, 40_000.0) as usize;
            AggKind::Cardinality { source: at.source()?, threshold }
        }
        _ => match metric {
            Some(kind) => {
                let sigma = at.number("sigma")?.unwrap_or(2.0);
                AggKind::Metric { source: at.source()?, kind, sigma }
            }
            None if UNSUPPORTED.contains(&kind_name) => {
                return Err(EsError::parsing(format!(
                    "aggregation type [{kind_name}] is not supported by this server"
                )));
            }
            None => {
                return Err(EsError::parsing(format!("Unknown aggregation type [{kind_name}]")));
            }
        },
    };
    at.done()?;
    Ok(kind)
}

struct Reader<'a> {
    kind: &'a str,
    object: &'a Map<String, Value>,
    seen: Vec<&'static str>,
}

impl<'a> Reader<'a> {
    fn take(&mut self, key: &'static str) -> Option<&'a Value> {
        self.seen.push(key);
        self.object.get(key).filter(|value| !value.is_null())
    }

    fn text(&mut self, key: &'static str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    fn number(&mut self, key: &'static str) -> Result<Option<f64>> {
        let kind = self.kind;
        self.take(key)
            .map(|value| {
                parse_number(value).ok_or_else(|| {
                    EsError::x_content(format!("[1:1] [{kind}] failed to parse field [{key}]"))
                })
            })
            .transpose()
    }

    fn flag(&mut self, key: &'static str) -> bool {
        self.take(key).and_then(parse_bool).unwrap_or(false)
    }

    fn source(&mut self) -> Result<ValueSource> {
        if self.take("script").is_some() {
            return Err(EsError::unsupported(format!("[script] in aggregation [{}]", self.kind)));
        }
        self.take("value_type");
        let Some(field) = self.text("field") else {
            return Err(EsError::illegal(format!(
                "Required one of fields [field, script], but none were specified. in [{}]",
                self.kind
            )));
        };
        let missing = self.take("missing").cloned();
        Ok(ValueSource { field, missing, format: self.text("format") })
    }

    fn done(&self) -> Result<()> {
        match self.object.keys().find(|key| !self.seen.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => {
                Err(EsError::x_content(format!("[1:1] [{}] unknown field [{key}]", self.kind)))
            }
        }
    }
}

fn terms(at: &mut Reader<'_>) -> Result<AggKind> {
    let size = at.number("size")?.unwrap_or(10.0);
    if size <= 0.0 {
        return Err(EsError::illegal(format!(
            "[size] must be greater than 0. Found [{size}] in [terms]"
        )));
    }
    let size = (size as usize).min(limits::MAX_SHARD_BUCKETS);
    let shard_size = at.number("shard_size")?.map(|n| n as usize);
    // Elasticsearch asks each shard for half as many again.
    let shard_size = shard_size.unwrap_or(size + size / 2 + 10).max(size);
    let min_doc_count = at.number("min_doc_count")?.unwrap_or(1.0) as u64;
    for ignored in
        ["shard_min_doc_count", "show_term_doc_count_error", "execution_hint", "collect_mode"]
    {
        at.take(ignored);
    }
    let order = match at.take("order") {
        None => vec![(OrderBy::Count, false)],
        Some(value) => order(value)?,
    };
    let include = at.take("include").map(term_filter).transpose()?;
    let exclude = at.take("exclude").map(term_filter).transpose()?;
    let source = at.source()?;
    Ok(AggKind::Terms { source, size, shard_size, min_doc_count, order, include, exclude })
}

fn order(value: &Value) -> Result<Vec<(OrderBy, bool)>> {
    let one = |object: &Map<String, Value>| -> Result<Vec<(OrderBy, bool)>> {
        object
            .iter()
            .map(|(key, direction)| {
                let ascending = match direction.as_str() {
                    Some(text) if text.eq_ignore_ascii_case("asc") => true,
                    Some(text) if text.eq_ignore_ascii_case("desc") => false,
                    _ => {
                        return Err(EsError::parsing(format!(
                            "Unknown order direction [{direction}]"
                        )));
                    }
                };
                let by = match key.as_str() {
                    "_count" => OrderBy::Count,
                    "_key" | "_term" => OrderBy::Key,
                    path => match path.rsplit_once('.') {
                        Some((name, value)) => {
                            OrderBy::Metric(name.to_owned(), Some(value.to_owned()))
                        }
                        None => OrderBy::Metric(path.to_owned(), None),
                    },
                };
                Ok((by, ascending))
            })
            .collect()
    };
    match value {
        Value::Object(object) => one(object),
        Value::Array(list) => {
            let mut out = Vec::new();
            for object in list.iter().filter_map(Value::as_object) {
                out.extend(one(object)?);
            }
            Ok(out)
        }
        _ => Err(EsError::parsing("Unexpected token [VALUE_STRING] for [order]")),
    }
}

fn term_filter(value: &Value) -> Result<TermFilter> {
    match value {
        Value::String(pattern) => {
            let regex = regex::RegexBuilder::new(&format!("^(?:{pattern})$"))
                .size_limit(1 << 20)
                .build()
                .map_err(|e| EsError::illegal(e.to_string()))?;
            Ok(TermFilter::Pattern(regex))
        }
        Value::Array(list) => {
            let values =
                list.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
            Ok(TermFilter::Values(values.collect()))
        }
        _ => Err(EsError::unsupported("[include] by partition")),
    }
}

fn histogram_options(at: &mut Reader<'_>) -> Result<HistogramOptions> {
    let extended_bounds = match at.take("extended_bounds") {
        Some(Value::Object(bounds)) => match (bounds.get("min"), bounds.get("max")) {
            (Some(min), Some(max)) => Some((min.clone(), max.clone())),
            _ => None,
        },
        _ => None,
    };
    if at.take("hard_bounds").is_some() {
        return Err(EsError::unsupported("[hard_bounds]"));
    }
    Ok(HistogramOptions {
        min_doc_count: at.number("min_doc_count")?.unwrap_or(0.0) as u64,
        extended_bounds,
        keyed: at.flag("keyed"),
        order: at.take("order").map(order).transpose()?.and_then(|list| list.into_iter().next()),
    })
}

/// `5m`, `12h`, `30s`, `100ms`, `1d`.
fn fixed(text: &str) -> Option<i64> {
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '-' || c == '.'))?;
    let (number, unit) = text.split_at(split);
    let length = match unit {
        "ms" => 1.0,
        "s" => 1_000.0,
        "m" => 60_000.0,
        "h" => 3_600_000.0,
        "d" => 86_400_000.0,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    Some((number * length) as i64)
}

fn calendar(text: &str) -> Option<Unit> {
    Some(match text {
        "year" | "1y" => Unit::Year,
        "quarter" | "1q" => Unit::Quarter,
        "month" | "1M" => Unit::Month,
        "week" | "1w" => Unit::Week,
        "day" | "1d" => Unit::Day,
        "hour" | "1h" => Unit::Hour,
        "minute" | "1m" => Unit::Minute,
        "second" | "1s" => Unit::Second,
        _ => return None,
    })
}

fn date_histogram(at: &mut Reader<'_>) -> Result<AggKind> {
    let named = (at.text("calendar_interval"), at.text("fixed_interval"), at.text("interval"));
    let bad_unit = |text: &str| {
        EsError::illegal(format!(
            "The supplied interval [{text}] could not be parsed as a calendar interval."
        ))
    };
    let bad_fixed = |text: &str| {
        EsError::illegal(format!(
            "failed to parse setting [date_histogram.fixedInterval] with value [{text}] as a time \
             value: unit is missing or unrecognized"
        ))
    };
    let interval = match &named {
        (Some(_), Some(_), _) => {
            return Err(EsError::illegal(
                "Cannot use [fixed_interval] with [calendar_interval] configuration option.",
            ));
        }
        (Some(text), ..) => Interval::Calendar(calendar(text).ok_or_else(|| bad_unit(text))?),
        (_, Some(text), _) => Interval::Fixed(fixed(text).ok_or_else(|| bad_fixed(text))?),
        (_, _, Some(text)) => match calendar(text) {
            Some(unit) => Interval::Calendar(unit),
            None => Interval::Fixed(fixed(text).ok_or_else(|| bad_fixed(text))?),
        },
        (None, None, None) => {
            return Err(EsError::illegal(
                "Invalid interval specified, must be non-null and non-empty",
            ));
        }
    };
    if matches!(interval, Interval::Fixed(length) if length <= 0) {
        return Err(EsError::illegal(
            "[interval] must be 1 or greater for aggregation [date_histogram]",
        ));
    }
    let time_zone = at.text("time_zone");
    if let Some(zone) = &time_zone {
        crate::dates::time_zone(zone)?;
    }
    let offset_ms = match at.take("offset") {
        Some(Value::String(text)) => {
            let plain = text.strip_prefix('+').unwrap_or(text);
            fixed(plain).ok_or_else(|| bad_fixed(text))?
        }
        Some(number) => parse_number(number).unwrap_or(0.0) as i64,
        None => 0,
    };
    let options = histogram_options(at)?;
    let source = at.source()?;
    Ok(AggKind::DateHistogram { source, interval, time_zone, offset_ms, options })
}

fn histogram(at: &mut Reader<'_>) -> Result<AggKind> {
    let interval = at.number("interval")?.unwrap_or(0.0);
    if interval <= 0.0 {
        return Err(EsError::illegal(
            "[interval] must be >0 for histogram aggregation [histogram]",
        ));
    }
    let offset = at.number("offset")?.unwrap_or(0.0);
    let options = histogram_options(at)?;
    Ok(AggKind::Histogram { source: at.source()?, interval, offset, options })
}

fn range(at: &mut Reader<'_>) -> Result<AggKind> {
    let dates = at.kind == "date_range";
    let Some(Value::Array(list)) = at.take("ranges") else {
        return Err(EsError::illegal(format!(
            "No [ranges] specified for the [{}] aggregation",
            at.kind
        )));
    };
    let ranges = list
        .iter()
        .filter_map(Value::as_object)
        .map(|object| RangeSpec {
            key: object.get("key").and_then(Value::as_str).map(str::to_owned),
            from: object.get("from").filter(|v| !v.is_null()).cloned(),
            to: object.get("to").filter(|v| !v.is_null()).cloned(),
        })
        .collect();
    let keyed = at.flag("keyed");
    let time_zone = at.text("time_zone");
    Ok(AggKind::Range { source: at.source()?, ranges, keyed, dates, time_zone })
}

fn filters(at: &mut Reader<'_>) -> Result<AggKind> {
    let other_key = at.text("other_bucket_key");
    let other = at.flag("other_bucket") || other_key.is_some();
    let other = other.then(|| other_key.unwrap_or_else(|| "_other_".to_owned()));
    match at.take("filters") {
        Some(Value::Object(named)) => {
            let mut filters = Vec::new();
            for (name, query) in named {
                filters.push((name.clone(), Query::parse(query)?));
            }
            Ok(AggKind::Filters { filters, keyed: true, other })
        }
        Some(Value::Array(list)) => {
            let mut filters = Vec::new();
            for query in list {
                filters.push((String::new(), Query::parse(query)?));
            }
            Ok(AggKind::Filters { filters, keyed: false, other })
        }
        _ => Err(EsError::illegal(format!("[filters] cannot be null in [{}]", json!(at.kind)))),
    }
}

//! `typed_keys`: before the name of an aggregation stands the type of its result, from which
//! clients with types of their own know how to read it.

use serde_json::{Map, Value};

use super::{AggKind, Aggregation, Aggregations, MetricKind};
use crate::mapping::ValueClass;

/// How the values of a field are kept; `None` for a field that is not mapped.
pub type ClassOf<'a> = &'a dyn Fn(&str) -> Option<ValueClass>;

impl Aggregations {
    /// Renames the results of a level and of those below it: `sterms#name`.
    pub fn type_keys(&self, level: &mut Map<String, Value>, class_of: ClassOf<'_>) {
        for (name, mut result) in std::mem::take(level) {
            match self.0.iter().find(|agg| agg.name == name) {
                Some(agg) => {
                    type_below(agg, &mut result, class_of);
                    level.insert(format!("{}#{name}", result_type(agg, class_of)), result);
                }
                None => {
                    level.insert(name, result);
                }
            }
        }
    }
}

fn type_below(agg: &Aggregation, result: &mut Value, class_of: ClassOf<'_>) {
    if agg.subs.is_empty() {
        return;
    }
    let bucket = |value: &mut Value| {
        if let Some(body) = value.as_object_mut() {
            agg.subs.type_keys(body, class_of);
        }
    };
    match result.get_mut("buckets") {
        Some(Value::Array(list)) => list.iter_mut().for_each(bucket),
        Some(Value::Object(named)) => named.values_mut().for_each(bucket),
        // A single bucket is the result itself.
        _ => bucket(result),
    }
}

fn result_type(agg: &Aggregation, class_of: ClassOf<'_>) -> &'static str {
    match &agg.kind {
        AggKind::Terms { source, .. } => match class_of(&source.field) {
            Some(ValueClass::Long) => "lterms",
            Some(ValueClass::Double) => "dterms",
            Some(ValueClass::Text | ValueClass::Keyword | ValueClass::None) | None => "sterms",
        },
        AggKind::DateHistogram { .. } => "date_histogram",
        AggKind::Histogram { .. } => "histogram",
        AggKind::Range { dates: true, .. } => "date_range",
        AggKind::Range { .. } => "range",
        AggKind::Filter(_) => "filter",
        AggKind::Filters { .. } => "filters",
        AggKind::Missing(_) => "missing",
        AggKind::Global => "global",
        AggKind::Cardinality { .. } => "cardinality",
        AggKind::Metric { kind, .. } => match kind {
            MetricKind::Min => "min",
            MetricKind::Max => "max",
            MetricKind::Avg => "avg",
            MetricKind::Sum => "sum",
            MetricKind::ValueCount => "value_count",
            MetricKind::Stats => "stats",
            MetricKind::ExtendedStats => "extended_stats",
        },
    }
}

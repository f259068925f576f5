//! Sorting: parsing, sort keys of documents, order of hits.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tantivy::columnar::{Column, StrColumn};
use tantivy::{DocId, SegmentReader, f64_to_u64, i64_to_u64, u64_to_f64, u64_to_i64};

use crate::dates::DateFormat;
use crate::error::{EsError, Result};
use crate::mapping::{FieldDef, FieldKind, ValueClass, ip_from_hex, ip_hex};
use crate::query::{NumberColumn, QueryContext};
use crate::shard::{ShardSnapshot, column_name};

/// Direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortOrder {
    /// Lowest first.
    Asc,
    /// Highest first.
    Desc,
}

/// What is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SortKey {
    /// The score.
    Score,
    /// Index order.
    Doc,
    /// Index order, distinct over shards.
    ShardDoc,
    /// A field.
    Field(String),
}

/// Which of several values counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum SortMode {
    Min,
    Max,
    Sum,
    Avg,
    Median,
}

/// One level of order.
#[derive(Clone, Debug, PartialEq)]
pub struct SortField {
    /// What is compared.
    pub key: SortKey,
    /// Direction.
    pub order: SortOrder,
    /// `_first`, `_last` or a value.
    pub missing: Option<Value>,
    /// Type to assume when a shard does not know the field.
    pub unmapped_type: Option<String>,
    /// Which of several values counts.
    pub mode: Option<SortMode>,
    /// Format of dates in the answer.
    pub format: Option<String>,
}

/// A sort value of a hit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SortValue {
    /// No value.
    Missing,
    /// An integer.
    Long(i64),
    /// A float.
    Double(f64),
    /// A text.
    Text(String),
}

impl SortValue {
    /// As Elasticsearch shows it.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Missing => Value::Null,
            Self::Long(number) => json!(number),
            Self::Double(number) => json!(number),
            Self::Text(text) => json!(text),
        }
    }
}

impl SortField {
    /// Best score first.
    pub fn by_score() -> Self {
        Self::new(SortKey::Score, SortOrder::Desc)
    }

    fn new(key: SortKey, order: SortOrder) -> Self {
        Self { key, order, missing: None, unmapped_type: None, mode: None, format: None }
    }

    pub(super) fn is_score(&self) -> bool {
        self.key == SortKey::Score
    }

    fn named(name: &str) -> Self {
        match name {
            "_score" => Self::by_score(),
            "_doc" => Self::new(SortKey::Doc, SortOrder::Asc),
            "_shard_doc" => Self::new(SortKey::ShardDoc, SortOrder::Asc),
            name => Self::new(SortKey::Field(name.to_owned()), SortOrder::Asc),
        }
    }

    fn missing_first(&self) -> bool {
        self.missing.as_ref().and_then(Value::as_str) == Some("_first")
    }

    /// Order of two values of this level.
    pub fn compare(&self, left: &SortValue, right: &SortValue) -> Ordering {
        let rank = |value: &SortValue| match (value, self.missing_first()) {
            (SortValue::Missing, true) => 0,
            (SortValue::Missing, false) => 2,
            _ => 1,
        };
        let order = match (left, right) {
            (SortValue::Long(a), SortValue::Long(b)) => a.cmp(b),
            (SortValue::Text(a), SortValue::Text(b)) => a.cmp(b),
            (SortValue::Double(a), SortValue::Double(b)) => a.total_cmp(b),
            (SortValue::Long(a), SortValue::Double(b)) => (*a as f64).total_cmp(b),
            (SortValue::Double(a), SortValue::Long(b)) => a.total_cmp(&(*b as f64)),
            _ => Ordering::Equal,
        };
        let order = if self.order == SortOrder::Desc { order.reverse() } else { order };
        rank(left).cmp(&rank(right)).then(order)
    }
}

/// Reads `sort` of a body.
pub(super) fn parse(value: &Value) -> Result<Vec<SortField>> {
    match value {
        Value::Array(list) => {
            let mut out = Vec::new();
            for item in list {
                out.extend(parse(item)?);
            }
            Ok(out)
        }
        Value::String(name) => Ok(vec![SortField::named(name)]),
        Value::Object(object) => {
            object.iter().map(|(name, options)| level(name, options)).collect()
        }
        _ => Err(EsError::illegal("malformed sort format, within the sort array")),
    }
}

/// Reads `field:desc,other`.
pub(super) fn parse_url(text: &str) -> Result<Vec<SortField>> {
    text.split(',')
        .map(|part| match part.rsplit_once(':') {
            Some((name, order)) => level(name, &json!(order)),
            None => Ok(SortField::named(part)),
        })
        .collect()
}

fn order(text: &str) -> Result<SortOrder> {
    match text.to_ascii_lowercase().as_str() {
        "asc" => Ok(SortOrder::Asc),
        "desc" => Ok(SortOrder::Desc),
        _ => Err(EsError::illegal(format!("Unknown SortOrder [{text}]"))),
    }
}

fn level(name: &str, options: &Value) -> Result<SortField> {
    if matches!(name, "_script" | "_geo_distance") {
        return Err(EsError::unsupported(format!("sort by [{name}]")));
    }
    let mut out = SortField::named(name);
    let object = match options {
        Value::String(text) => {
            out.order = order(text)?;
            return Ok(out);
        }
        Value::Object(object) => object,
        _ => return Err(EsError::illegal(format!("malformed sort format of [{name}]"))),
    };
    for (key, value) in object {
        let text = value.as_str().unwrap_or("");
        match key.as_str() {
            "order" => out.order = order(text)?,
            "missing" => out.missing = Some(value.clone()),
            "unmapped_type" => out.unmapped_type = Some(text.to_owned()),
            "format" => out.format = Some(text.to_owned()),
            "mode" => {
                out.mode = Some(match text.to_ascii_lowercase().as_str() {
                    "min" => SortMode::Min,
                    "max" => SortMode::Max,
                    "sum" => SortMode::Sum,
                    "avg" => SortMode::Avg,
                    "median" => SortMode::Median,
                    _ => return Err(EsError::illegal(format!("Unknown SortMode [{text}]"))),
                });
            }
            "numeric_type" | "ignore_unmapped" => {}
            "nested" | "nested_path" | "nested_filter" => {
                return Err(EsError::unsupported("nested sort"));
            }
            other => {
                return Err(EsError::x_content(format!(
                    "[1:1] [field_sort] unknown field [{other}]"
                )));
            }
        }
    }
    Ok(out)
}

/// A comparable key of one level: rank of missing, then a monotonic number. Smaller is better.
pub(super) type Comparable = (u8, u64);

enum Values {
    Score,
    Doc(u64),
    Long(Option<Column<i64>>),
    Double(Option<Column<f64>>),
    Text(Option<StrColumn>),
    Unmapped,
}

/// A level of order bound to a segment.
pub(super) struct SegmentLevel<'a> {
    spec: &'a SortField,
    field: Option<std::sync::Arc<FieldDef>>,
    values: Values,
}

impl<'a> SegmentLevel<'a> {
    /// `base` is the number of documents in the segments before.
    pub(super) fn open(
        spec: &'a SortField,
        snapshot: &ShardSnapshot,
        context: &QueryContext,
        reader: &SegmentReader,
        base: u64,
    ) -> Result<Self> {
        let path = match &spec.key {
            SortKey::Score => return Ok(Self { spec, field: None, values: Values::Score }),
            SortKey::Doc => return Ok(Self { spec, field: None, values: Values::Doc(base) }),
            SortKey::ShardDoc => {
                let base = base + (u64::from(context.shard) << 32);
                return Ok(Self { spec, field: None, values: Values::Doc(base) });
            }
            SortKey::Field(path) => path,
        };
        let Some(field) = snapshot.schema.field(path) else {
            if spec.unmapped_type.is_none() {
                return Err(EsError::query_shard(format!(
                    "No mapping found for [{path}] in order to sort on"
                )));
            }
            return Ok(Self { spec, field: None, values: Values::Unmapped });
        };
        let values = match field.class() {
            ValueClass::Text => return Err(text_fielddata(&field.path)),
            _ if !field.is_aggregatable() => {
                return Err(EsError::illegal(format!(
                    "Can't load fielddata on [{path}] because fielddata is unsupported on fields \
                     of type [{}]. Use doc values instead.",
                    field.type_name
                )));
            }
            ValueClass::Keyword => {
                let name = column_name(ValueClass::Keyword, &field.path);
                Values::Text(reader.fast_fields().str(&name)?)
            }
            class => match NumberColumn::open(reader, class, &field.path)? {
                Some(NumberColumn::Long(column)) => Values::Long(Some(column)),
                Some(NumberColumn::Double(column)) => Values::Double(Some(column)),
                None if class == ValueClass::Long => Values::Long(None),
                None => Values::Double(None),
            },
        };
        Ok(Self { spec, field: Some(field), values })
    }

    fn mode(&self) -> SortMode {
        let default = if self.spec.order == SortOrder::Asc { SortMode::Min } else { SortMode::Max };
        self.spec.mode.unwrap_or(default)
    }

    fn missing(&self) -> Comparable {
        let number = self.spec.missing.as_ref().filter(|v| !v.is_string());
        match (number.and_then(Value::as_f64), &self.values) {
            (Some(number), Values::Long(_)) => self.directed(i64_to_u64(number as i64)),
            (Some(number), Values::Double(_)) => self.directed(f64_to_u64(number)),
            _ if self.spec.missing_first() => (0, 0),
            _ => (2, 0),
        }
    }

    fn directed(&self, number: u64) -> Comparable {
        (1, if self.spec.order == SortOrder::Desc { !number } else { number })
    }

    pub(super) fn key(&self, doc: DocId, score: f32) -> Comparable {
        let number = match &self.values {
            Values::Score => Some(f64_to_u64(f64::from(score))),
            Values::Doc(base) => Some(base + u64::from(doc)),
            Values::Long(Some(column)) => {
                let mut values = column.values_for_doc(doc);
                match self.mode() {
                    SortMode::Min => values.min().map(i64_to_u64),
                    SortMode::Max => values.max().map(i64_to_u64),
                    mode => {
                        let list: Vec<f64> = values.by_ref().map(|v| v as f64).collect();
                        reduce(mode, list).map(|v| i64_to_u64(v.round() as i64))
                    }
                }
            }
            Values::Double(Some(column)) => {
                reduce(self.mode(), column.values_for_doc(doc).collect()).map(f64_to_u64)
            }
            // Terms have odd numbers so that a value between two terms has a place.
            Values::Text(Some(column)) => {
                let ords = column.ords().values_for_doc(doc);
                let ord = if self.mode() == SortMode::Max { ords.max() } else { ords.min() };
                ord.map(|ord| 2 * ord + 1)
            }
            Values::Long(None) | Values::Double(None) | Values::Text(None) | Values::Unmapped => {
                None
            }
        };
        number.map_or_else(|| self.missing(), |number| self.directed(number))
    }

    /// The key of a `search_after` value.
    pub(super) fn after(&self, value: &Value) -> Result<Comparable> {
        let bad = || EsError::illegal(format!("Failed to parse search_after value [{value}]"));
        if value.is_null() {
            return Ok(self.missing());
        }
        let float = || crate::mapping::parse_number(value).ok_or_else(bad);
        let number = match &self.values {
            Values::Score | Values::Double(_) => f64_to_u64(float()?),
            Values::Doc(_) => float()? as u64,
            Values::Long(_) => i64_to_u64(self.long_after(value).ok_or_else(bad)?),
            Values::Text(column) => {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let ip = self.field.as_ref().is_some_and(|f| f.kind == FieldKind::Ip);
                let text = if ip { ip_hex(&text).ok_or_else(bad)? } else { text };
                text_place(column.as_ref(), &text)?
            }
            Values::Unmapped => return Ok(self.missing()),
        };
        Ok(self.directed(number))
    }

    fn long_after(&self, value: &Value) -> Option<i64> {
        let field = self.field.as_ref()?;
        match value {
            Value::Number(number) => number.as_i64().or_else(|| Some(number.as_f64()? as i64)),
            Value::Bool(flag) => Some(i64::from(*flag)),
            Value::String(text) if field.kind == FieldKind::Date => {
                let utc = jiff::tz::TimeZone::UTC;
                let fill = crate::dates::Fill::Lowest;
                let own = self.spec.format.as_ref().and_then(|f| DateFormat::new(f).ok());
                own.and_then(|format| format.parse(text, &utc, fill).ok())
                    .or_else(|| field.format.parse(text, &utc, fill).ok())
            }
            Value::String(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// The value behind a key.
    pub(super) fn value(&self, (rank, number): Comparable) -> Result<SortValue> {
        if rank != 1 {
            return Ok(SortValue::Missing);
        }
        let number = if self.spec.order == SortOrder::Desc { !number } else { number };
        Ok(match &self.values {
            Values::Score | Values::Double(_) => SortValue::Double(u64_to_f64(number)),
            Values::Doc(_) => SortValue::Long(i64::try_from(number).unwrap_or(i64::MAX)),
            Values::Long(_) => self.shown(u64_to_i64(number)),
            Values::Text(Some(column)) => {
                let mut text = String::new();
                column.ord_to_str(number / 2, &mut text)?;
                let ip = self.field.as_ref().is_some_and(|f| f.kind == FieldKind::Ip);
                SortValue::Text(if ip { ip_from_hex(&text) } else { text })
            }
            Values::Text(None) | Values::Unmapped => SortValue::Missing,
        })
    }

    fn shown(&self, number: i64) -> SortValue {
        let date = self.field.as_ref().is_some_and(|f| f.kind == FieldKind::Date);
        match self.spec.format.as_ref().filter(|_| date).map(|f| DateFormat::new(f)) {
            Some(Ok(format)) => SortValue::Text(format.format(number, &jiff::tz::TimeZone::UTC)),
            _ => SortValue::Long(number),
        }
    }
}

/// The error of sorting or aggregating on analysed text.
pub(crate) fn text_fielddata(path: &str) -> EsError {
    EsError::illegal(format!(
        "Text fields are not optimised for operations that require per-document field data like \
         aggregations and sorting, so these operations are disabled by default. Please use a \
         keyword field instead. Alternatively, set fielddata=true on [{path}] in order to load \
         field data by uninverting the inverted index. Note that this can use significant memory."
    ))
}

fn reduce(mode: SortMode, mut values: Vec<f64>) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    let count = values.len() as f64;
    Some(match mode {
        SortMode::Min => values.into_iter().fold(f64::INFINITY, f64::min),
        SortMode::Max => values.into_iter().fold(f64::NEG_INFINITY, f64::max),
        SortMode::Sum => values.into_iter().sum(),
        SortMode::Avg => values.into_iter().sum::<f64>() / count,
        SortMode::Median => {
            values.sort_by(f64::total_cmp);
            let middle = values.len() / 2;
            let at = |index: usize| values.get(index).copied().unwrap_or(0.0);
            if values.len() % 2 == 1 { at(middle) } else { (at(middle - 1) + at(middle)) / 2.0 }
        }
    })
}

/// Odd number of a term, or the even number between its neighbours.
fn text_place(column: Option<&StrColumn>, text: &str) -> Result<u64> {
    let Some(column) = column else { return Ok(0) };
    let dictionary = column.dictionary();
    if let Some(ord) = dictionary.term_ord(text.as_bytes())? {
        return Ok(2 * ord + 1);
    }
    let (mut low, mut high) = (0, column.num_terms() as u64);
    let mut term = String::new();
    while low < high {
        let middle = low + (high - low) / 2;
        term.clear();
        column.ord_to_str(middle, &mut term)?;
        if term.as_str() < text { low = middle + 1 } else { high = middle }
    }
    Ok(2 * low)
}

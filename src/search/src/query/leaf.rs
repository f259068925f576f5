//! Queries on one field that are not full text: term, range, exists, patterns.

use std::ops::{Bound, RangeInclusive};

use serde_json::Value;
use tantivy::Term;
use tantivy::query::{AllQuery, TermQuery, TermSetQuery};
use tantivy::schema::IndexRecordOption;

use super::compile::{Boxed, Compiler, constant, nothing};
use super::multiterm::{MultiTermQuery, TermMatcher};
use super::parse::plain_text;
use super::scoped::{Lengths, ScopedQuery};
use super::{ColumnRangeQuery, Fuzziness, RangeBounds};
use crate::dates::{DateFormat, Rounding};
use crate::error::{EsError, Result};
use crate::mapping::{FieldDef, FieldKind, ValueClass, ip_hex, ip_range, parse_bool};

/// Bytes before each term of a path, and the Tantivy field.
pub(super) fn head(at: &Compiler<'_>, field: &FieldDef) -> (tantivy::schema::Field, Vec<u8>) {
    let fields = &at.snapshot.fields;
    if field.class() == ValueClass::Text {
        let (slot, prefix) = at.snapshot.slots.place(fields, &field.path);
        return (slot, prefix.into_bytes());
    }
    let term = fields.keyword_term(&field.path, "");
    (fields.keywords, term.serialized_value_bytes().to_vec())
}

/// The term of a text or keyword path.
pub(super) fn path_term(at: &Compiler<'_>, field: &FieldDef, text: &str) -> Term {
    let fields = &at.snapshot.fields;
    if field.class() == ValueClass::Text {
        let (slot, prefix) = at.snapshot.slots.place(fields, &field.path);
        return Term::from_field_text(slot, &format!("{prefix}{text}"));
    }
    fields.keyword_term(&field.path, text)
}

/// Scores with the statistics of the path.
pub(super) fn scoped(at: &Compiler<'_>, field: &FieldDef, inner: Boxed) -> Boxed {
    let fields = &at.snapshot.fields;
    let own = field.class() == ValueClass::Text
        && at.snapshot.slots.place(fields, &field.path).0 != fields.overflow;
    let lengths = if own { Lengths::OfField } else { Lengths::One };
    let path = Term::from_field_text(fields.field_names, &field.path);
    Box::new(ScopedQuery { inner, path, lengths })
}

fn failed(cause: EsError) -> EsError {
    EsError::query_shard(format!("failed to create query: {}", cause.reason)).caused_by(cause)
}

fn need_text(value: &Value) -> Result<String> {
    plain_text(value).ok_or_else(|| EsError::illegal("value must be a text or a number"))
}

/// Queries on metadata fields; `None` for other names.
fn special(at: &Compiler<'_>, path: &str, values: &[Value]) -> Option<Result<Boxed>> {
    let texts: Vec<String> = values.iter().filter_map(plain_text).collect();
    let fields = &at.snapshot.fields;
    match path {
        "_id" => {
            let terms = texts.iter().map(|text| Term::from_field_text(fields.id, text));
            Some(Ok(constant(TermSetQuery::new(terms), 1.0)))
        }
        "_index" => {
            let hit =
                texts.iter().any(|text| crate::mapping::wildcard_match(text, &at.context.index));
            Some(Ok(if hit { constant(AllQuery, 1.0) } else { nothing() }))
        }
        "_field_names" => {
            let terms = texts.iter().map(|text| Term::from_field_text(fields.field_names, text));
            Some(Ok(constant(TermSetQuery::new(terms), 1.0)))
        }
        "_routing" => Some(Err(EsError::unsupported("query on [_routing]"))),
        _ => None,
    }
}

fn not_indexed(field: &FieldDef) -> Result<()> {
    if field.index || (field.class() != ValueClass::Text && field.doc_values) {
        return Ok(());
    }
    Err(failed(EsError::illegal(format!(
        "Cannot search on field [{}] since it is not indexed.",
        field.path
    ))))
}

pub(super) fn term(
    at: &Compiler<'_>,
    path: &str,
    value: &Value,
    ignore_case: bool,
) -> Result<Boxed> {
    if let Some(query) = special(at, path, std::slice::from_ref(value)) {
        return query;
    }
    let Some(field) = at.field(path) else { return Ok(nothing()) };
    not_indexed(&field)?;
    match field.class() {
        ValueClass::Text | ValueClass::Keyword if ignore_case => {
            let text = regex::escape(&need_text(value)?).replace('/', "\\/");
            let regex = regex::Regex::new(&format!("(?is)^{text}$"))
                .map_err(|e| EsError::illegal(e.to_string()))?;
            let matcher = TermMatcher::Regex { prefix: String::new(), regex };
            let (tantivy_field, head) = head(at, &field);
            Ok(constant(MultiTermQuery { field: tantivy_field, head, matcher }, 1.0))
        }
        ValueClass::Text => {
            let term = path_term(at, &field, &need_text(value)?);
            let query = TermQuery::new(term, IndexRecordOption::WithFreqs);
            Ok(scoped(at, &field, Box::new(query)))
        }
        ValueClass::Keyword if field.kind == FieldKind::Ip => {
            let query = ip(at, &field, &need_text(value)?)?;
            Ok(constant(query, 1.0))
        }
        ValueClass::Keyword => {
            let term = path_term(at, &field, &normalized(&field, &need_text(value)?));
            let query = TermQuery::new(term, IndexRecordOption::Basic);
            Ok(scoped(at, &field, Box::new(query)))
        }
        ValueClass::Long | ValueClass::Double => {
            Ok(constant(numbers(at, &field, std::slice::from_ref(value))?, 1.0))
        }
        ValueClass::None => Ok(nothing()),
    }
}

fn normalized(field: &FieldDef, text: &str) -> String {
    match &field.normalizer {
        Some(normalizer) => normalizer.normalize(text),
        None => text.to_owned(),
    }
}

fn ip(at: &Compiler<'_>, field: &FieldDef, text: &str) -> Result<MultiTermQuery> {
    let (tantivy_field, head) = head(at, field);
    let bad = || failed(EsError::illegal(format!("'{text}' is not an IP string literal.")));
    let matcher = if text.contains('/') {
        let (low, high) = ip_range(text).ok_or_else(bad)?;
        TermMatcher::Range { lower: Bound::Included(low), upper: Bound::Included(high) }
    } else {
        TermMatcher::Exact(ip_hex(text).ok_or_else(bad)?)
    };
    Ok(MultiTermQuery { field: tantivy_field, head, matcher })
}

/// A query for any of some numbers, dates or booleans.
fn numbers(at: &Compiler<'_>, field: &FieldDef, values: &[Value]) -> Result<ColumnRangeQuery> {
    let path = field.path.clone();
    if field.class() == ValueClass::Double {
        let mut ranges = Vec::new();
        for value in values {
            let number = field.round(float(value)?);
            ranges.push(number..=number);
        }
        return Ok(ColumnRangeQuery::Double { path, ranges });
    }
    let mut ranges = Vec::new();
    for value in values {
        ranges.extend(exact_long(at, field, value)?);
    }
    Ok(ColumnRangeQuery::Long { path, ranges })
}

fn exact_long(
    at: &Compiler<'_>,
    field: &FieldDef,
    value: &Value,
) -> Result<Option<RangeInclusive<i64>>> {
    match field.kind {
        FieldKind::Boolean => {
            let flag = parse_bool(value).ok_or_else(|| {
                let text = plain_text(value).unwrap_or_default();
                failed(EsError::illegal(format!(
                    "Can't parse boolean value [{text}], expected [true] or [false]"
                )))
            })?;
            Ok(Some(i64::from(flag)..=i64::from(flag)))
        }
        FieldKind::Date => {
            let math = at.dates(None)?;
            let text = need_text(value)?;
            let low = math.eval(&text, &field.format, Rounding::Down)?;
            Ok(Some(low..=math.eval(&text, &field.format, Rounding::Up)?))
        }
        _ => Ok(whole(value)?.map(|number| number..=number)),
    }
}

fn float(value: &Value) -> Result<f64> {
    crate::mapping::parse_number(value).ok_or_else(|| {
        let text = plain_text(value).unwrap_or_default();
        let reason = format!("For input string: \"{text}\"");
        failed(EsError::new(400, "number_format_exception", reason))
    })
}

/// The number if it is whole.
fn whole(value: &Value) -> Result<Option<i64>> {
    let exact = match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    if exact.is_some() {
        return Ok(exact);
    }
    let number = float(value)?;
    let fits = number.fract() == 0.0 && number.abs() < 9.2e18;
    Ok(fits.then_some(number as i64))
}

pub(super) fn terms(at: &Compiler<'_>, path: &str, values: &[Value]) -> Result<Boxed> {
    if let Some(query) = special(at, path, values) {
        return query;
    }
    let Some(field) = at.field(path) else { return Ok(nothing()) };
    not_indexed(&field)?;
    match field.class() {
        ValueClass::Keyword if field.kind == FieldKind::Ip => {
            let mut clauses = Vec::new();
            for value in values {
                let query: Boxed = Box::new(ip(at, &field, &need_text(value)?)?);
                clauses.push((tantivy::query::Occur::Should, query));
            }
            Ok(constant(tantivy::query::BooleanQuery::new(clauses), 1.0))
        }
        ValueClass::Text | ValueClass::Keyword => {
            let mut terms = Vec::new();
            for value in values {
                terms.push(path_term(at, &field, &normalized(&field, &need_text(value)?)));
            }
            Ok(constant(TermSetQuery::new(terms), 1.0))
        }
        ValueClass::Long | ValueClass::Double => Ok(constant(numbers(at, &field, values)?, 1.0)),
        ValueClass::None => Ok(nothing()),
    }
}

pub(super) fn exists(at: &Compiler<'_>, path: &str) -> Boxed {
    let field_names = at.snapshot.fields.field_names;
    if matches!(path, "_id" | "_index" | "_source" | "_seq_no" | "_version") {
        return constant(AllQuery, 1.0);
    }
    let schema = &at.snapshot.schema;
    let mut paths: Vec<String> = schema.matching(path).iter().map(|f| f.path.clone()).collect();
    if schema.is_object(path) {
        paths.extend(schema.matching(&format!("{path}.*")).iter().map(|f| f.path.clone()));
    }
    if paths.is_empty() {
        return nothing();
    }
    let terms = paths.iter().map(|path| Term::from_field_text(field_names, path));
    constant(TermSetQuery::new(terms), 1.0)
}

pub(super) fn range(at: &Compiler<'_>, path: &str, bounds: &RangeBounds) -> Result<Boxed> {
    let Some(field) = at.field(path) else { return Ok(nothing()) };
    not_indexed(&field)?;
    let numbers = match field.class() {
        ValueClass::Text | ValueClass::Keyword => {
            let (tantivy_field, head) = head(at, &field);
            let matcher = TermMatcher::Range {
                lower: text_bound(&field, bounds.lower.as_ref())?,
                upper: text_bound(&field, bounds.upper.as_ref())?,
            };
            return Ok(constant(MultiTermQuery { field: tantivy_field, head, matcher }, 1.0));
        }
        ValueClass::None => return Ok(nothing()),
        ValueClass::Long if field.kind == FieldKind::Date => dates(at, &field, bounds)?,
        ValueClass::Long => longs(&field, bounds)?,
        ValueClass::Double => doubles(&field, bounds)?,
    };
    Ok(constant(numbers, 1.0))
}

fn text_bound(field: &FieldDef, bound: Option<&(Value, bool)>) -> Result<Bound<String>> {
    let Some((value, included)) = bound else { return Ok(Bound::Unbounded) };
    let text = need_text(value)?;
    let text = if field.kind == FieldKind::Ip {
        ip_hex(&text).ok_or_else(|| {
            failed(EsError::illegal(format!("'{text}' is not an IP string literal.")))
        })?
    } else {
        normalized(field, &text)
    };
    Ok(if *included { Bound::Included(text) } else { Bound::Excluded(text) })
}

fn dates(at: &Compiler<'_>, field: &FieldDef, bounds: &RangeBounds) -> Result<ColumnRangeQuery> {
    let math = at.dates(bounds.time_zone.as_deref())?;
    let format = match &bounds.format {
        Some(format) => DateFormat::new(format)?,
        None => field.format.clone(),
    };
    let mut low = i64::MIN;
    let mut high = i64::MAX;
    if let Some((value, included)) = &bounds.lower {
        let rounding = if *included { Rounding::Down } else { Rounding::Up };
        let ms = math.eval(&need_text(value)?, &format, rounding)?;
        low = if *included { ms } else { ms.saturating_add(1) };
    }
    if let Some((value, included)) = &bounds.upper {
        let rounding = if *included { Rounding::Up } else { Rounding::Down };
        let ms = math.eval(&need_text(value)?, &format, rounding)?;
        high = if *included { ms } else { ms.saturating_sub(1) };
    }
    Ok(ColumnRangeQuery::Long { path: field.path.clone(), ranges: vec![low..=high] })
}

fn longs(field: &FieldDef, bounds: &RangeBounds) -> Result<ColumnRangeQuery> {
    let read = |value: &Value| match field.kind {
        FieldKind::Boolean => Ok(f64::from(u8::from(parse_bool(value).unwrap_or(false)))),
        _ => float(value),
    };
    let mut low = i64::MIN;
    let mut high = i64::MAX;
    if let Some((value, included)) = &bounds.lower {
        low = match (value.as_i64(), included) {
            (Some(exact), true) => exact,
            (Some(exact), false) => exact.saturating_add(1),
            (None, true) => read(value)?.ceil() as i64,
            (None, false) => (read(value)?.floor() as i64).saturating_add(1),
        };
    }
    if let Some((value, included)) = &bounds.upper {
        high = match (value.as_i64(), included) {
            (Some(exact), true) => exact,
            (Some(exact), false) => exact.saturating_sub(1),
            (None, true) => read(value)?.floor() as i64,
            (None, false) => (read(value)?.ceil() as i64).saturating_sub(1),
        };
    }
    Ok(ColumnRangeQuery::Long { path: field.path.clone(), ranges: vec![low..=high] })
}

fn doubles(field: &FieldDef, bounds: &RangeBounds) -> Result<ColumnRangeQuery> {
    let mut low = f64::NEG_INFINITY;
    let mut high = f64::INFINITY;
    if let Some((value, included)) = &bounds.lower {
        let number = field.round(float(value)?);
        low = if *included { number } else { number.next_up() };
    }
    if let Some((value, included)) = &bounds.upper {
        let number = field.round(float(value)?);
        high = if *included { number } else { number.next_down() };
    }
    Ok(ColumnRangeQuery::Double { path: field.path.clone(), ranges: vec![low..=high] })
}

/// The queries on patterns of terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PatternKind {
    Prefix,
    Wildcard,
    Regexp,
}

/// The matcher of a pattern query.
pub(super) fn pattern_matcher(
    field: &FieldDef,
    value: &str,
    kind: PatternKind,
    ignore_case: bool,
) -> Result<TermMatcher> {
    let value = match (kind, field.class()) {
        (PatternKind::Regexp, _) => value.to_owned(),
        (_, ValueClass::Text) => field.search_analyzer.normalize(value),
        _ => normalized(field, value),
    };
    match kind {
        PatternKind::Prefix => TermMatcher::prefix(&value, ignore_case),
        PatternKind::Wildcard => TermMatcher::wildcard(&value, ignore_case),
        PatternKind::Regexp => TermMatcher::regexp(&value, ignore_case),
    }
}

pub(super) fn pattern(
    at: &Compiler<'_>,
    path: &str,
    value: &str,
    kind: PatternKind,
    ignore_case: bool,
) -> Result<Boxed> {
    if path == "_id" || path == "_index" {
        return special_pattern(at, path, value, kind, ignore_case);
    }
    let Some(field) = at.field(path) else { return Ok(nothing()) };
    not_indexed(&field)?;
    if !matches!(field.class(), ValueClass::Text | ValueClass::Keyword) {
        let name = match kind {
            PatternKind::Prefix => "prefix",
            PatternKind::Wildcard => "wildcard",
            PatternKind::Regexp => "regexp",
        };
        return Err(EsError::query_shard(format!(
            "Can only use {name} queries on keyword, text and wildcard fields - not on [{path}] \
             which is of type [{}]",
            field.type_name
        )));
    }
    let matcher = pattern_matcher(&field, value, kind, ignore_case)?;
    let (tantivy_field, head) = head(at, &field);
    Ok(constant(MultiTermQuery { field: tantivy_field, head, matcher }, 1.0))
}

fn special_pattern(
    at: &Compiler<'_>,
    path: &str,
    value: &str,
    kind: PatternKind,
    ignore_case: bool,
) -> Result<Boxed> {
    let matcher = match kind {
        PatternKind::Prefix => TermMatcher::prefix(value, ignore_case)?,
        PatternKind::Wildcard => TermMatcher::wildcard(value, ignore_case)?,
        PatternKind::Regexp => TermMatcher::regexp(value, ignore_case)?,
    };
    if path == "_index" {
        let hit = matcher.matches(&at.context.index);
        return Ok(if hit { constant(AllQuery, 1.0) } else { nothing() });
    }
    let field = at.snapshot.fields.id;
    Ok(constant(MultiTermQuery { field, head: Vec::new(), matcher }, 1.0))
}

/// How many edits a term may have.
pub(super) fn allowed_edits(fuzziness: Fuzziness, term: &str) -> usize {
    match fuzziness {
        Fuzziness::Edits(edits) => usize::from(edits),
        Fuzziness::Auto(low, high) => {
            let length = term.chars().count();
            usize::from(length >= low) + usize::from(length >= high)
        }
    }
}

pub(super) fn fuzzy(
    at: &Compiler<'_>,
    path: &str,
    value: &str,
    fuzziness: Fuzziness,
    prefix_length: usize,
) -> Result<Boxed> {
    let Some(field) = at.field(path) else { return Ok(nothing()) };
    if !matches!(field.class(), ValueClass::Text | ValueClass::Keyword) {
        return Err(EsError::query_shard(format!(
            "Can only use fuzzy queries on keyword and text fields - not on [{path}] which is of \
             type [{}]",
            field.type_name
        )));
    }
    let edits = allowed_edits(fuzziness, value);
    let matcher = TermMatcher::fuzzy(value, edits, prefix_length);
    let (tantivy_field, head) = head(at, &field);
    Ok(constant(MultiTermQuery { field: tantivy_field, head, matcher }, 1.0))
}

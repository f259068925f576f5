//! The fetch phase: documents of a shard as hits.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tantivy::DocAddress;

use super::highlight::Highlighter;
use super::merge::score_json;
use super::{FieldFormat, SearchRequest, StoredFields, TopHit};
use crate::dates::DateFormat;
use crate::error::{EsError, Result};
use crate::mapping::{
    Entry, FieldDef, FieldKind, FieldValue, IndexSchema, ValueClass, ip_from_hex,
};
use crate::query::QueryContext;
use crate::shard::ShardSnapshot;

/// Hits of one shard as JSON, in the order given.
pub fn fetch_phase(
    snapshot: &ShardSnapshot,
    request: &SearchRequest,
    context: &QueryContext,
    hits: &[TopHit],
) -> Result<Vec<Value>> {
    let highlighter = request
        .highlight
        .as_ref()
        .map(|spec| Highlighter::new(spec, &request.query, &snapshot.schema));
    hits.iter().map(|hit| one(snapshot, request, context, highlighter.as_ref(), hit)).collect()
}

fn one(
    snapshot: &ShardSnapshot,
    request: &SearchRequest,
    context: &QueryContext,
    highlighter: Option<&Highlighter<'_>>,
    hit: &TopHit,
) -> Result<Value> {
    let stored = snapshot.load(DocAddress::new(hit.segment, hit.doc))?;
    let mut out = Map::new();
    out.insert("_index".into(), json!(context.index));
    out.insert("_type".into(), json!("_doc"));
    if request.stored_fields != StoredFields::None {
        out.insert("_id".into(), json!(stored.id));
    }
    if request.version {
        out.insert("_version".into(), json!(stored.version));
    }
    if request.seq_no {
        out.insert("_seq_no".into(), json!(stored.seq_no));
        out.insert("_primary_term".into(), json!(stored.primary_term));
    }
    out.insert("_score".into(), hit.score.map_or(Value::Null, score_json));
    if let Some(routing) = stored.routing.filter(|_| request.stored_fields != StoredFields::None) {
        out.insert("_routing".into(), json!(routing));
    }
    let source: Value = serde_json::from_slice(&stored.source).unwrap_or(Value::Null);
    let fields = fields(snapshot, request, &stored.id, &stored.source)?;
    let highlights = highlighter.map(|highlighter| highlighter.highlight(&source));
    if snapshot.schema.mapping().source_enabled()
        && let Some(source) = request.source.apply(source)
    {
        out.insert("_source".into(), source);
    }
    if !fields.is_empty() {
        out.insert("fields".into(), Value::Object(fields));
    }
    if let Some(highlights) = highlights.filter(|h| !h.is_empty()) {
        out.insert("highlight".into(), Value::Object(highlights));
    }
    if !request.sort.is_empty() {
        let values: Vec<Value> = request
            .sort
            .iter()
            .zip(&hit.sort)
            .map(|(spec, value)| match (spec.is_score(), hit.score) {
                (true, Some(score)) => score_json(score),
                _ => value.to_json(),
            })
            .collect();
        out.insert("sort".into(), Value::Array(values));
    }
    Ok(Value::Object(out))
}

/// `fields` of a hit, by whichever of the options that fill it.
fn fields(
    snapshot: &ShardSnapshot,
    request: &SearchRequest,
    id: &str,
    source: &[u8],
) -> Result<Map<String, Value>> {
    let mut out = match &request.stored_fields {
        StoredFields::Named(names) => stored_fields(&snapshot.schema, id, source, names)?,
        StoredFields::Unset | StoredFields::None => Map::new(),
    };
    if !request.docvalue_fields.is_empty() || !request.fields.is_empty() {
        let parsed = snapshot.schema.parse_document(id, source)?;
        for wanted in &request.docvalue_fields {
            add_fields(&mut out, wanted, &parsed.entries, Kind::Column)?;
        }
        for wanted in &request.fields {
            add_fields(&mut out, wanted, &parsed.entries, Kind::Source)?;
        }
    }
    Ok(out)
}

/// Values of fields that the mapping stores, by names and patterns. They are read from `_source`,
/// which holds them too.
pub fn stored_fields(
    schema: &IndexSchema,
    id: &str,
    source: &[u8],
    names: &[String],
) -> Result<Map<String, Value>> {
    let mut out = Map::new();
    if let Some(name) = names.iter().find(|name| schema.is_object(name)) {
        return Err(EsError::illegal(format!("field [{name}] isn't a leaf field")));
    }
    if !names.iter().any(|name| schema.matching(name).iter().any(|field| field.store)) {
        return Ok(out);
    }
    let parsed = schema.parse_document(id, source)?;
    for name in names {
        let wanted = FieldFormat { field: name.clone(), format: None };
        add_fields(&mut out, &wanted, &parsed.entries, Kind::Stored)?;
    }
    Ok(out)
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// As columns hold them: sorted, keywords once.
    Column,
    /// As the document holds them.
    Source,
    /// Likewise, of fields that the mapping stores.
    Stored,
}

fn add_fields(
    out: &mut Map<String, Value>,
    wanted: &FieldFormat,
    entries: &[Entry],
    kind: Kind,
) -> Result<()> {
    let format = wanted.format.as_deref().map(DateFormat::new).transpose()?;
    let mut found: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    for entry in entries {
        let fits = match kind {
            Kind::Column => entry.field.class() != ValueClass::Text,
            Kind::Source => true,
            Kind::Stored => entry.field.store,
        };
        if fits && crate::mapping::wildcard_match(&wanted.field, &entry.path) {
            found.entry(&entry.path).or_default().push(entry);
        }
    }
    for (path, mut list) in found {
        if kind == Kind::Column {
            list.sort_by(|a, b| order(&a.value, &b.value));
            list.dedup_by(|a, b| matches!(a.value, FieldValue::Keyword(_)) && a.value == b.value);
        }
        let values =
            list.iter().map(|entry| shown(&entry.field, &entry.value, format.as_ref())).collect();
        out.insert(path.to_owned(), Value::Array(values));
    }
    Ok(())
}

fn order(left: &FieldValue, right: &FieldValue) -> std::cmp::Ordering {
    match (left, right) {
        (FieldValue::Keyword(a), FieldValue::Keyword(b)) => a.cmp(b),
        (FieldValue::Long(a), FieldValue::Long(b)) => a.cmp(b),
        (FieldValue::Double(a), FieldValue::Double(b)) => a.total_cmp(b),
        _ => std::cmp::Ordering::Equal,
    }
}

/// A value as `fields` shows it.
pub(crate) fn shown(field: &FieldDef, value: &FieldValue, format: Option<&DateFormat>) -> Value {
    match (value, field.kind) {
        (FieldValue::Long(flag), FieldKind::Boolean) => json!(*flag != 0),
        (FieldValue::Long(ms), FieldKind::Date) => {
            let format = format.unwrap_or(&field.format);
            json!(format.format(*ms, &jiff::tz::TimeZone::UTC))
        }
        (FieldValue::Long(number), _) => json!(number),
        (FieldValue::Double(number), FieldKind::Float) => {
            let short = format!("{:?}", *number as f32);
            serde_json::from_str(&short).unwrap_or_else(|_| json!(number))
        }
        (FieldValue::Double(number), _) => json!(number),
        (FieldValue::Keyword(hex), FieldKind::Ip) => json!(ip_from_hex(hex)),
        (FieldValue::Keyword(text) | FieldValue::Text(text), _) => json!(text),
    }
}

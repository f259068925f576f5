//! Terms of keywords and numbers.

use std::collections::{BTreeMap, HashMap};

use tantivy::DocId;
use tantivy::columnar::StrColumn;

use super::{Filters, SegmentRun, Source, Values};
use crate::aggs::{
    AggState, AggregationStates, Aggregations, Bucket, BucketKey, Shown, ValueSource,
};
use crate::error::Result;
use crate::mapping::{ip_from_hex, ip_hex};
use crate::query::NumberColumn;

impl SegmentRun<'_> {
    pub(super) fn terms(
        &self,
        spec: &ValueSource,
        filters: &Filters<'_>,
        also_empty: bool,
        subs: &Aggregations,
        docs: &[DocId],
    ) -> Result<AggState> {
        let source = self.source(spec, "terms")?;
        match &source.values {
            Values::Number(column) => {
                self.number_terms(&source, column.as_ref(), filters, subs, docs)
            }
            Values::Text(Some(column)) if subs.is_empty() => {
                counts(&source, column, filters, also_empty, docs)
            }
            Values::Text(column) => self.text_terms(&source, column.as_ref(), filters, subs, docs),
            Values::Unmapped => {
                let mut groups = BTreeMap::new();
                if let Some(key) = missing_text(&source) {
                    groups.insert(BucketKey::Text(key), docs.to_vec());
                }
                self.grouped(groups, Shown::Plain, subs)
            }
        }
    }

    fn text_terms(
        &self,
        source: &Source,
        column: Option<&StrColumn>,
        filters: &Filters<'_>,
        subs: &Aggregations,
        docs: &[DocId],
    ) -> Result<AggState> {
        let mut by_ord: HashMap<u64, Vec<DocId>> = HashMap::new();
        let mut without = Vec::new();
        for doc in docs {
            let mut any = false;
            if let Some(column) = column {
                for ord in column.ords().values_for_doc(*doc) {
                    any = true;
                    let list = by_ord.entry(ord).or_default();
                    if list.last() != Some(doc) {
                        list.push(*doc);
                    }
                }
            }
            if !any {
                without.push(*doc);
            }
        }
        let mut groups = BTreeMap::new();
        for (ord, list) in by_ord {
            if let Some(text) = wanted(source, column, ord, filters)? {
                groups.insert(BucketKey::Text(text), list);
            }
        }
        if let (Some(key), false) = (missing_text(source), without.is_empty()) {
            groups.insert(BucketKey::Text(key), without);
        }
        self.grouped(groups, source.shown.clone(), subs)
    }

    fn number_terms(
        &self,
        source: &Source,
        column: Option<&NumberColumn>,
        filters: &Filters<'_>,
        subs: &Aggregations,
        docs: &[DocId],
    ) -> Result<AggState> {
        let whole = source.field.as_ref().is_some_and(|field| !field.kind.is_float());
        let key = |number: f64| match whole {
            true => BucketKey::Long(number as i64),
            false => BucketKey::double(number),
        };
        let missing = source.missing_number()?;
        let mut groups: BTreeMap<BucketKey, Vec<DocId>> = BTreeMap::new();
        for doc in docs {
            let mut keys = Vec::new();
            match column {
                Some(NumberColumn::Long(column)) => {
                    keys.extend(column.values_for_doc(*doc).map(BucketKey::Long));
                }
                Some(NumberColumn::Double(column)) => {
                    keys.extend(column.values_for_doc(*doc).map(BucketKey::double));
                }
                None => {}
            }
            if keys.is_empty() {
                keys.extend(missing.map(key));
            }
            for key in keys {
                let list = groups.entry(key).or_default();
                if list.last() != Some(doc) {
                    list.push(*doc);
                }
            }
        }
        if !filters.is_open() {
            groups.retain(|key, _| match key {
                BucketKey::Long(number) => filters.accepts(&number.to_string()),
                other => filters.accepts(&other.number().to_string()),
            });
        }
        self.grouped(groups, source.shown.clone(), subs)
    }
}

fn missing_text(source: &Source) -> Option<String> {
    let value = source.missing.as_ref()?;
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match source.shown {
        Shown::Ip => ip_hex(&text),
        _ => Some(text),
    }
}

/// The text of an ordinal when the filters accept it.
fn wanted(
    source: &Source,
    column: Option<&StrColumn>,
    ord: u64,
    filters: &Filters<'_>,
) -> Result<Option<String>> {
    let mut text = String::new();
    if let Some(column) = column {
        column.ord_to_str(ord, &mut text)?;
    }
    let accepted = match source.shown {
        Shown::Ip => filters.accepts(&ip_from_hex(&text)),
        _ => filters.accepts(&text),
    };
    Ok(accepted.then_some(text))
}

/// Counts per term when nothing is aggregated below.
fn counts(
    source: &Source,
    column: &StrColumn,
    filters: &Filters<'_>,
    also_empty: bool,
    docs: &[DocId],
) -> Result<AggState> {
    let mut by_ord = vec![0_u64; column.num_terms()];
    let mut without = 0;
    for doc in docs {
        let mut last = None;
        for ord in column.ords().values_for_doc(*doc) {
            if last != Some(ord)
                && let Some(count) = by_ord.get_mut(ord as usize)
            {
                *count += 1;
            }
            last = Some(ord);
        }
        without += u64::from(last.is_none());
    }
    let mut buckets = BTreeMap::new();
    let bucket = |count| Bucket { count, subs: AggregationStates::default() };
    for (ord, count) in by_ord.into_iter().enumerate() {
        if (count > 0 || also_empty)
            && let Some(text) = wanted(source, Some(column), ord as u64, filters)?
        {
            buckets.insert(BucketKey::Text(text), bucket(count));
        }
    }
    if let (Some(key), true) = (missing_text(source), without > 0) {
        buckets.insert(BucketKey::Text(key), bucket(without));
    }
    Ok(AggState::Keyed { buckets, shown: source.shown.clone(), other: 0, error: 0, shards: 0 })
}

//! [`Query`] to Tantivy, against one snapshot.

use std::cell::Cell;
use std::sync::Arc;

use tantivy::Term;
use tantivy::query::{
    AllQuery, BooleanQuery, BoostQuery, ConstScoreQuery, DisjunctionMaxQuery, EmptyQuery, Occur,
    Query as TantivyQuery, TermSetQuery,
};

use super::excluded::ExcludedQuery;
use super::{MatchKind, MatchOptions, MultiKind, Query, QueryKind, leaf, lucene, text};
use crate::dates::DateMath;
use crate::error::{EsError, Result};
use crate::limits;
use crate::mapping::{FieldDef, ValueClass};
use crate::shard::ShardSnapshot;

pub(super) type Boxed = Box<dyn TantivyQuery>;

/// What a query needs besides the shard.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct QueryContext {
    /// What `now` means, in milliseconds since the epoch.
    pub now_ms: i64,
    /// Name of the index, for queries on `_index`.
    pub index: String,
    /// Number of the shard among those that are searched; part of the `_shard_doc` sort value.
    pub shard: u32,
}

/// Compiles a query; the error is the client's unless its status is 500.
pub(crate) fn compile(
    query: &Query,
    snapshot: &ShardSnapshot,
    context: &QueryContext,
) -> Result<Boxed> {
    Compiler { snapshot, context, clauses: Cell::new(0) }.query(query, 0)
}

pub(super) struct Compiler<'a> {
    pub(super) snapshot: &'a ShardSnapshot,
    pub(super) context: &'a QueryContext,
    clauses: Cell<usize>,
}

pub(super) fn nothing() -> Boxed {
    Box::new(EmptyQuery)
}

pub(super) fn constant(query: impl TantivyQuery, score: f32) -> Boxed {
    Box::new(ConstScoreQuery::new(Box::new(query), score))
}

fn boosted(query: Boxed, boost: f32) -> Boxed {
    if boost == 1.0 { query } else { Box::new(BoostQuery::new(query, boost)) }
}

impl Compiler<'_> {
    pub(super) fn query(&self, query: &Query, depth: usize) -> Result<Boxed> {
        if depth > limits::MAX_DEPTH + 2 {
            return Err(EsError::illegal("query is nested too deeply"));
        }
        if query.boost < 0.0 {
            return Err(EsError::illegal(format!(
                "negative [boost] are not allowed in [{}], use a value between 0 and 1 to deboost",
                query.boost
            )));
        }
        Ok(boosted(self.kind(&query.kind, depth)?, query.boost))
    }

    fn kind(&self, kind: &QueryKind, depth: usize) -> Result<Boxed> {
        match kind {
            QueryKind::MatchAll => Ok(constant(AllQuery, 1.0)),
            QueryKind::MatchNone => Ok(nothing()),
            QueryKind::Match { field, text, kind, options } => {
                self.matching(field, text, *kind, options)
            }
            QueryKind::MultiMatch { fields, text, kind, tie_breaker, options } => {
                self.multi(fields, text, *kind, *tie_breaker, options)
            }
            QueryKind::Term { field, value, ignore_case } => {
                leaf::term(self, field, value, *ignore_case)
            }
            QueryKind::Terms { field, values } => leaf::terms(self, field, values),
            QueryKind::Range { field, bounds } => leaf::range(self, field, bounds),
            QueryKind::Exists { field } => Ok(leaf::exists(self, field)),
            QueryKind::Ids { values } => {
                let id = self.snapshot.fields.id;
                let terms = values.iter().map(|value| Term::from_field_text(id, value));
                Ok(constant(TermSetQuery::new(terms), 1.0))
            }
            QueryKind::Prefix { field, value, ignore_case } => {
                leaf::pattern(self, field, value, leaf::PatternKind::Prefix, *ignore_case)
            }
            QueryKind::Wildcard { field, value, ignore_case } => {
                leaf::pattern(self, field, value, leaf::PatternKind::Wildcard, *ignore_case)
            }
            QueryKind::Regexp { field, value, ignore_case } => {
                leaf::pattern(self, field, value, leaf::PatternKind::Regexp, *ignore_case)
            }
            QueryKind::Fuzzy { field, value, fuzziness, prefix_length } => {
                leaf::fuzzy(self, field, value, *fuzziness, *prefix_length)
            }
            QueryKind::Bool { must, should, filter, must_not, minimum } => {
                let parts = BoolParts { must, should, filter, must_not };
                self.boolean(&parts, minimum.as_deref(), depth)
            }
            QueryKind::ConstantScore { filter } => {
                Ok(Box::new(ConstScoreQuery::new(self.query(filter, depth + 1)?, 1.0)))
            }
            QueryKind::DisMax { queries, tie_breaker } => {
                self.count(queries.len())?;
                let queries =
                    queries.iter().map(|q| self.query(q, depth + 1)).collect::<Result<_>>()?;
                Ok(dis_max(queries, *tie_breaker))
            }
            QueryKind::QueryString { query, options } => {
                let parsed = lucene::parse(query, options, &self.snapshot.schema)?;
                self.query(&parsed, depth + 1)
            }
            QueryKind::SimpleQueryString { query, options } => {
                let parsed = lucene::parse_simple(query, options, &self.snapshot.schema)?;
                self.query(&parsed, depth + 1)
            }
        }
    }

    /// Counts clauses of the whole query.
    pub(super) fn count(&self, more: usize) -> Result<()> {
        let total = self.clauses.get() + more;
        self.clauses.set(total);
        // Nested queries may have more together than one boolean query, but not without end.
        if more > limits::MAX_CLAUSES || total > 16 * limits::MAX_CLAUSES {
            return Err(super::parse::too_many_clauses());
        }
        Ok(())
    }

    pub(super) fn field(&self, path: &str) -> Option<Arc<FieldDef>> {
        self.snapshot.schema.field(path)
    }

    pub(super) fn dates(&self, time_zone: Option<&str>) -> Result<DateMath> {
        let zone = match time_zone {
            Some(name) => crate::dates::time_zone(name)?,
            None => jiff::tz::TimeZone::UTC,
        };
        Ok(DateMath { now_ms: self.context.now_ms, zone })
    }

    fn matching(
        &self,
        path: &str,
        value: &serde_json::Value,
        kind: MatchKind,
        options: &MatchOptions,
    ) -> Result<Boxed> {
        let Some(field) = self.field(path) else {
            if path.starts_with('_') {
                return leaf::term(self, path, value, false);
            }
            return Ok(nothing());
        };
        let text = super::parse::plain_text(value).unwrap_or_default();
        let result = match field.class() {
            ValueClass::Text => text::matching(self, &field, &text, kind, options),
            ValueClass::Keyword if kind == MatchKind::BoolPrefix => {
                leaf::pattern(self, path, &text, leaf::PatternKind::Prefix, false)
            }
            _ if kind == MatchKind::PhrasePrefix => Err(EsError::query_shard(format!(
                "Can only use phrase prefix queries on text fields - not on [{path}] which is of \
                 type [{}]",
                field.type_name
            ))),
            ValueClass::Keyword => match options.fuzziness {
                Some(fuzziness) => leaf::fuzzy(self, path, &text, fuzziness, options.prefix_length),
                None => leaf::term(self, path, value, false),
            },
            ValueClass::Long | ValueClass::Double | ValueClass::None => {
                leaf::term(self, path, value, false)
            }
        };
        match result {
            Err(e) if options.lenient && e.status < 500 => Ok(nothing()),
            result => result,
        }
    }

    fn multi(
        &self,
        fields: &[(String, f32)],
        value: &serde_json::Value,
        kind: MultiKind,
        tie_breaker: Option<f32>,
        options: &MatchOptions,
    ) -> Result<Boxed> {
        let all = fields.is_empty() || fields.iter().any(|(name, _)| name == "*");
        let expanded = lucene::expand_fields(fields, &self.snapshot.schema);
        self.count(expanded.len())?;
        let options = MatchOptions { lenient: options.lenient || all, ..options.clone() };
        let (each, tie) = match kind {
            MultiKind::BestFields => (MatchKind::Terms, 0.0),
            MultiKind::MostFields => (MatchKind::Terms, 1.0),
            MultiKind::Phrase => (MatchKind::Phrase, 0.0),
            MultiKind::PhrasePrefix => (MatchKind::PhrasePrefix, 0.0),
            MultiKind::BoolPrefix => (MatchKind::BoolPrefix, 1.0),
        };
        let mut queries = Vec::new();
        for (path, boost) in &expanded {
            let query = self.matching(path, value, each, &options)?;
            queries.push(boosted(query, *boost));
        }
        Ok(dis_max(queries, tie_breaker.unwrap_or(tie)))
    }

    fn boolean(&self, parts: &BoolParts<'_>, minimum: Option<&str>, depth: usize) -> Result<Boxed> {
        let BoolParts { must, should, filter, must_not } = parts;
        self.count(must.len() + should.len() + filter.len() + must_not.len())?;
        let required = !must.is_empty() || !filter.is_empty();
        let minimum = match minimum {
            Some(text) => minimum_should_match(text, should.len())?,
            None => usize::from(!required && !should.is_empty()),
        };
        if minimum > should.len() {
            return Ok(nothing());
        }
        let mut clauses: Vec<(Occur, Boxed)> = Vec::new();
        for query in must.iter() {
            clauses.push((Occur::Must, self.query(query, depth + 1)?));
        }
        for query in filter.iter() {
            let query = ConstScoreQuery::new(self.query(query, depth + 1)?, 0.0);
            clauses.push((Occur::Must, Box::new(query)));
        }
        for query in must_not.iter() {
            let query = ExcludedQuery(self.query(query, depth + 1)?);
            clauses.push((Occur::MustNot, Box::new(query)));
        }
        for query in should.iter() {
            clauses.push((Occur::Should, self.query(query, depth + 1)?));
        }
        if !required && should.is_empty() && !must_not.is_empty() {
            clauses.push((Occur::Must, constant(AllQuery, 0.0)));
        }
        if !required && minimum == 0 && !should.is_empty() {
            // Nothing is required at all: every document matches, some with a score.
            clauses.push((Occur::Must, constant(AllQuery, 0.0)));
        }
        Ok(boolean(clauses, minimum))
    }
}

struct BoolParts<'a> {
    must: &'a [Query],
    should: &'a [Query],
    filter: &'a [Query],
    must_not: &'a [Query],
}

/// A boolean query; one clause that must or should match stands for itself.
pub(super) fn boolean(mut clauses: Vec<(Occur, Boxed)>, minimum: usize) -> Boxed {
    if clauses.is_empty() {
        return constant(AllQuery, 1.0);
    }
    let lone = match clauses.first() {
        Some((Occur::Must, _)) => clauses.len() == 1,
        Some((Occur::Should, _)) => clauses.len() == 1 && minimum == 1,
        _ => false,
    };
    match (lone, clauses.pop()) {
        (true, Some((_, query))) => query,
        (_, last) => {
            clauses.extend(last);
            Box::new(BooleanQuery::with_minimum_required_clauses(clauses, minimum))
        }
    }
}

pub(super) fn dis_max(mut queries: Vec<Boxed>, tie_breaker: f32) -> Boxed {
    match queries.len() {
        0 => nothing(),
        1 => queries.pop().unwrap_or_else(nothing),
        _ => Box::new(DisjunctionMaxQuery::with_tie_breaker(queries, tie_breaker)),
    }
}

/// `2`, `-1`, `75%`, `-25%`, `2<75%`, `2<-25% 9<-3`.
pub(super) fn minimum_should_match(spec: &str, clauses: usize) -> Result<usize> {
    let bad = || EsError::illegal(format!("For input string: \"{spec}\""));
    let mut chosen = None;
    for part in spec.split_whitespace() {
        match part.split_once('<') {
            None => chosen = chosen.or(Some(part)),
            Some((limit, rest)) => {
                let limit: usize = limit.parse().map_err(|_| bad())?;
                if clauses > limit {
                    chosen = Some(rest);
                } else if chosen.is_none() {
                    return Ok(clauses);
                }
            }
        }
    }
    let part = chosen.ok_or_else(bad)?;
    let clauses_i = i64::try_from(clauses).unwrap_or(i64::MAX);
    let wanted = match part.strip_suffix('%') {
        Some(percent) => {
            let percent: i64 = percent.parse().map_err(|_| bad())?;
            let share = clauses_i * percent / 100;
            if percent < 0 { clauses_i + share } else { share }
        }
        None => {
            let number: i64 = part.parse().map_err(|_| bad())?;
            if number < 0 { clauses_i + number } else { number }
        }
    };
    Ok(usize::try_from(wanted.max(0)).unwrap_or(0))
}

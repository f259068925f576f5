//! Full-text matching on one field, and the terms that highlighting marks.

use std::collections::BTreeMap;

use tantivy::Term;
use tantivy::query::{AllQuery, Occur, PhrasePrefixQuery, PhraseQuery, TermQuery};
use tantivy::schema::IndexRecordOption;

use super::compile::{Boxed, Compiler, boolean, constant, minimum_should_match, nothing};
use super::leaf::{self, PatternKind, path_term, scoped};
use super::multiterm::{MultiTermQuery, TermMatcher};
use super::{MatchKind, MatchOptions, MultiKind, Operator, Query, QueryKind, lucene};
use crate::analysis::Token;
use crate::error::{EsError, Result};
use crate::mapping::{FieldDef, IndexSchema, ValueClass};

fn tokens(
    schema: &IndexSchema,
    field: &FieldDef,
    text: &str,
    options: &MatchOptions,
) -> Result<Vec<Token>> {
    match &options.analyzer {
        None => Ok(field.search_analyzer.analyze(text)),
        Some(name) => {
            let analyzer = schema.analysis().analyzer(name).ok_or_else(|| {
                EsError::query_shard(format!("[match] analyzer [{name}] not found"))
            })?;
            Ok(analyzer.analyze(text))
        }
    }
}

pub(super) fn matching(
    at: &Compiler<'_>,
    field: &FieldDef,
    text: &str,
    kind: MatchKind,
    options: &MatchOptions,
) -> Result<Boxed> {
    let tokens = tokens(&at.snapshot.schema, field, text, options)?;
    if tokens.is_empty() {
        return Ok(match options.zero_terms_all {
            true => constant(AllQuery, 1.0),
            false => nothing(),
        });
    }
    at.count(tokens.len())?;
    match kind {
        MatchKind::Terms | MatchKind::BoolPrefix => {
            terms(at, field, &tokens, options, kind == MatchKind::BoolPrefix)
        }
        MatchKind::Phrase => Ok(phrase(at, field, &tokens, options.slop)),
        MatchKind::PhrasePrefix => Ok(phrase_prefix(at, field, &tokens, options)),
    }
}

fn one(at: &Compiler<'_>, field: &FieldDef, token: &Token, options: &MatchOptions) -> Boxed {
    let edits = options.fuzziness.map_or(0, |f| leaf::allowed_edits(f, &token.text));
    if edits > 0 {
        let matcher = TermMatcher::fuzzy(&token.text, edits, options.prefix_length);
        let (tantivy_field, head) = leaf::head(at, field);
        return constant(MultiTermQuery { field: tantivy_field, head, matcher }, 1.0);
    }
    let term = path_term(at, field, &token.text);
    scoped(at, field, Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs)))
}

fn prefix(at: &Compiler<'_>, field: &FieldDef, text: &str) -> Boxed {
    let (tantivy_field, head) = leaf::head(at, field);
    let matcher = TermMatcher::Prefix(text.to_owned());
    constant(MultiTermQuery { field: tantivy_field, head, matcher }, 1.0)
}

fn terms(
    at: &Compiler<'_>,
    field: &FieldDef,
    tokens: &[Token],
    options: &MatchOptions,
    last_is_prefix: bool,
) -> Result<Boxed> {
    let mut positions: BTreeMap<u32, Vec<Boxed>> = BTreeMap::new();
    for (index, token) in tokens.iter().enumerate() {
        let query = if last_is_prefix && index + 1 == tokens.len() {
            prefix(at, field, &token.text)
        } else {
            one(at, field, token, options)
        };
        positions.entry(token.position).or_default().push(query);
    }
    let and = options.operator == Operator::And;
    let count = positions.len();
    let minimum = match &options.minimum {
        Some(spec) if !and => minimum_should_match(spec, count)?,
        _ => usize::from(!and),
    };
    if minimum > count {
        return Ok(nothing());
    }
    let occur = if and { Occur::Must } else { Occur::Should };
    let clauses: Vec<(Occur, Boxed)> = positions
        .into_values()
        .map(|same| {
            let same: Vec<_> = same.into_iter().map(|query| (Occur::Should, query)).collect();
            (occur, boolean(same, 1))
        })
        .collect();
    Ok(boolean(clauses, minimum.max(usize::from(!and))))
}

fn offsets(at: &Compiler<'_>, field: &FieldDef, tokens: &[Token]) -> Vec<(usize, Term)> {
    let first = tokens.first().map_or(0, |token| token.position);
    let offset = |token: &Token| (token.position - first) as usize;
    tokens.iter().map(|token| (offset(token), path_term(at, field, &token.text))).collect()
}

fn phrase(at: &Compiler<'_>, field: &FieldDef, tokens: &[Token], slop: u32) -> Boxed {
    if let [token] = tokens {
        return one(at, field, token, &MatchOptions::default());
    }
    let query = PhraseQuery::new_with_offset_and_slop(offsets(at, field, tokens), slop);
    scoped(at, field, Box::new(query))
}

fn phrase_prefix(
    at: &Compiler<'_>,
    field: &FieldDef,
    tokens: &[Token],
    options: &MatchOptions,
) -> Boxed {
    if let [token] = tokens {
        return prefix(at, field, &token.text);
    }
    let mut query = PhrasePrefixQuery::new_with_offset(offsets(at, field, tokens));
    query.set_max_expansions(options.max_expansions);
    scoped(at, field, Box::new(query))
}

/// What highlighting looks for in a field.
#[derive(Clone, Debug)]
pub(crate) enum HighlightTerm {
    /// Every token that matches.
    Token(TermMatcher),
    /// Tokens in this order, with their relative positions; the last may be a prefix.
    Phrase { terms: Vec<(u32, String)>, slop: u32, prefix: bool },
}

/// The terms of a query by field path, for highlighting.
pub(crate) fn highlight_terms(
    query: &Query,
    schema: &IndexSchema,
) -> BTreeMap<String, Vec<HighlightTerm>> {
    let mut out = BTreeMap::new();
    collect(query, schema, &mut out);
    out
}

type Found = BTreeMap<String, Vec<HighlightTerm>>;

fn collect(query: &Query, schema: &IndexSchema, out: &mut Found) {
    match &query.kind {
        QueryKind::Match { field, text, kind, options } => {
            let text = super::parse::plain_text(text).unwrap_or_default();
            match_terms(schema, field, &text, *kind, options, out);
        }
        QueryKind::MultiMatch { fields, text, kind, options, .. } => {
            let each = match kind {
                MultiKind::BestFields | MultiKind::MostFields => MatchKind::Terms,
                MultiKind::Phrase => MatchKind::Phrase,
                MultiKind::PhrasePrefix => MatchKind::PhrasePrefix,
                MultiKind::BoolPrefix => MatchKind::BoolPrefix,
            };
            let text = super::parse::plain_text(text).unwrap_or_default();
            for (field, _) in lucene::expand_fields(fields, schema) {
                match_terms(schema, &field, &text, each, options, out);
            }
        }
        QueryKind::Term { field, value, .. } => exact(schema, field, value, out),
        QueryKind::Terms { field, values } => {
            values.iter().for_each(|value| exact(schema, field, value, out));
        }
        QueryKind::Prefix { field, value, ignore_case } => {
            pattern(schema, field, value, PatternKind::Prefix, *ignore_case, out);
        }
        QueryKind::Wildcard { field, value, ignore_case } => {
            pattern(schema, field, value, PatternKind::Wildcard, *ignore_case, out);
        }
        QueryKind::Regexp { field, value, ignore_case } => {
            pattern(schema, field, value, PatternKind::Regexp, *ignore_case, out);
        }
        QueryKind::Fuzzy { field, value, fuzziness, prefix_length } => {
            let edits = leaf::allowed_edits(*fuzziness, value);
            let matcher = TermMatcher::fuzzy(value, edits, *prefix_length);
            push(out, field, HighlightTerm::Token(matcher));
        }
        QueryKind::Bool { must, should, filter, .. } => {
            must.iter().chain(should).chain(filter).for_each(|q| collect(q, schema, out));
        }
        QueryKind::ConstantScore { filter } => collect(filter, schema, out),
        QueryKind::DisMax { queries, .. } => {
            queries.iter().for_each(|query| collect(query, schema, out));
        }
        QueryKind::QueryString { query, options } => {
            if let Ok(parsed) = lucene::parse(query, options, schema) {
                collect(&parsed, schema, out);
            }
        }
        QueryKind::SimpleQueryString { query, options } => {
            if let Ok(parsed) = lucene::parse_simple(query, options, schema) {
                collect(&parsed, schema, out);
            }
        }
        QueryKind::MatchAll
        | QueryKind::MatchNone
        | QueryKind::Range { .. }
        | QueryKind::Exists { .. }
        | QueryKind::Ids { .. } => {}
    }
}

fn push(out: &mut Found, field: &str, term: HighlightTerm) {
    out.entry(field.to_owned()).or_default().push(term);
}

fn exact(schema: &IndexSchema, field: &str, value: &serde_json::Value, out: &mut Found) {
    let Some(def) = schema.field(field) else { return };
    if let Some(text) = super::parse::plain_text(value) {
        push(out, &def.path, HighlightTerm::Token(TermMatcher::Exact(text)));
    }
}

fn pattern(
    schema: &IndexSchema,
    field: &str,
    value: &str,
    kind: PatternKind,
    ignore_case: bool,
    out: &mut Found,
) {
    let Some(def) = schema.field(field) else { return };
    if let Ok(matcher) = leaf::pattern_matcher(&def, value, kind, ignore_case) {
        push(out, &def.path, HighlightTerm::Token(matcher));
    }
}

fn match_terms(
    schema: &IndexSchema,
    field: &str,
    text: &str,
    kind: MatchKind,
    options: &MatchOptions,
    out: &mut Found,
) {
    let Some(def) = schema.field(field) else { return };
    if def.class() != ValueClass::Text {
        push(out, &def.path, HighlightTerm::Token(TermMatcher::Exact(text.to_owned())));
        return;
    }
    let Ok(tokens) = tokens(schema, &def, text, options) else { return };
    let phrase = matches!(kind, MatchKind::Phrase | MatchKind::PhrasePrefix);
    if phrase && tokens.len() > 1 {
        let terms = tokens.iter().map(|t| (t.position, t.text.clone())).collect();
        let prefix = kind == MatchKind::PhrasePrefix;
        push(out, &def.path, HighlightTerm::Phrase { terms, slop: options.slop, prefix });
        return;
    }
    let prefix = matches!(kind, MatchKind::PhrasePrefix | MatchKind::BoolPrefix);
    for (index, token) in tokens.iter().enumerate() {
        let matcher = if prefix && index + 1 == tokens.len() {
            TermMatcher::Prefix(token.text.clone())
        } else {
            let edits = options.fuzziness.map_or(0, |f| leaf::allowed_edits(f, &token.text));
            TermMatcher::fuzzy(&token.text, edits, options.prefix_length)
        };
        push(out, &def.path, HighlightTerm::Token(matcher));
    }
}

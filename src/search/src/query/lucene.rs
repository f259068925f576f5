//! Lucene's query syntax (`query_string`) and its forgiving sister (`simple_query_string`).
//!
//! Both become the same tree as the JSON queries. A backslash escapes any character.

mod lexer;
mod simple;

use serde_json::{Value, json};

use self::lexer::{Lexeme, Lexer, Word};
use super::{
    Fuzziness, MatchKind, MatchOptions, Operator, Query, QueryKind, QueryStringOptions, RangeBounds,
};
use crate::error::{EsError, Result};
use crate::limits;
use crate::mapping::{IndexSchema, ValueClass};

pub(super) use simple::parse_simple;

/// Fields with patterns replaced by what they match; no fields means all that can be searched.
pub(super) fn expand_fields(fields: &[(String, f32)], schema: &IndexSchema) -> Vec<(String, f32)> {
    let all = [("*".to_owned(), 1.0)];
    let fields = if fields.is_empty() { &all[..] } else { fields };
    let mut out: Vec<(String, f32)> = Vec::new();
    for (name, boost) in fields {
        if !name.contains('*') {
            out.push((name.clone(), *boost));
            continue;
        }
        for field in schema.matching(name) {
            let searchable = field.index && field.class() != ValueClass::None;
            if searchable && !out.iter().any(|(known, _)| *known == field.path) {
                out.push((field.path.clone(), *boost));
            }
        }
    }
    out
}

/// Parses a `query_string`.
pub(super) fn parse(
    text: &str,
    options: &QueryStringOptions,
    schema: &IndexSchema,
) -> Result<Query> {
    let failed = |cause: EsError| {
        EsError::query_shard(format!("Failed to parse query [{text}]")).caused_by(cause)
    };
    let lexemes = Lexer::new(text).run().map_err(failed)?;
    if lexemes.is_empty() {
        return Ok(Query::new(QueryKind::MatchNone));
    }
    let lenient = options.options.lenient || options.fields.is_empty();
    let leaf = Leaf { options, schema, lenient };
    let mut parser = Parser { lexemes: &lexemes, at: 0, leaf };
    let query = parser.clauses(None, 0).map_err(failed)?;
    if parser.at < lexemes.len() {
        return Err(failed(syntax("unexpected closing parenthesis")));
    }
    Ok(query)
}

fn syntax(why: &str) -> EsError {
    EsError::new(400, "parse_exception", format!("Cannot parse query: {why}"))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Occur {
    Must,
    Should,
    MustNot,
}

struct Parser<'a> {
    lexemes: &'a [Lexeme],
    at: usize,
    leaf: Leaf<'a>,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Lexeme> {
        self.lexemes.get(self.at)
    }

    /// Clauses up to a closing parenthesis or the end.
    fn clauses(&mut self, field: Option<&str>, depth: usize) -> Result<Query> {
        if depth > limits::MAX_DEPTH {
            return Err(syntax("nested too deeply"));
        }
        let and_default = self.leaf.options.operator == Operator::And;
        let mut clauses: Vec<(Occur, Query)> = Vec::new();
        while let Some(lexeme) = self.peek() {
            if *lexeme == Lexeme::Close {
                break;
            }
            let mut conjunction = None;
            if matches!(lexeme, Lexeme::And | Lexeme::Or) {
                conjunction = Some(lexeme.clone());
                self.at += 1;
            }
            let mut modifier = None;
            while let Some(sign @ (Lexeme::Not | Lexeme::Plus | Lexeme::Minus)) = self.peek() {
                modifier = Some(sign.clone());
                self.at += 1;
            }
            let query = self.clause(field, depth)?;
            add_clause(&mut clauses, conjunction, modifier, query, and_default);
            if clauses.len() > limits::MAX_CLAUSES {
                return Err(super::parse::too_many_clauses());
            }
        }
        let minimum = if depth == 0 { self.leaf.options.options.minimum.clone() } else { None };
        Ok(combine(clauses, minimum))
    }

    fn clause(&mut self, field: Option<&str>, depth: usize) -> Result<Query> {
        let Some(lexeme) = self.peek().cloned() else {
            return Err(syntax("unexpected end"));
        };
        self.at += 1;
        let query = match lexeme {
            Lexeme::Field(name) => return self.clause(Some(&name), depth + 1),
            Lexeme::Open => {
                let query = self.clauses(field, depth + 1)?;
                if self.peek() != Some(&Lexeme::Close) {
                    return Err(syntax("missing closing parenthesis"));
                }
                self.at += 1;
                query
            }
            Lexeme::Word(word) => {
                let edits = self.tilde();
                self.leaf.word(field, &word, edits)?
            }
            Lexeme::Phrase(text) => {
                let slop = self.tilde().and_then(|n| n).map(|n| n as u32);
                self.leaf.phrase(field, &text, slop)?
            }
            Lexeme::Regex(pattern) => self.leaf.regex(field, &pattern),
            Lexeme::Range { lower, upper } => self.leaf.range(field, lower, upper)?,
            _ => return Err(syntax("operator without a term")),
        };
        if let Some(Lexeme::Boost(boost)) = self.peek() {
            let boost = *boost;
            self.at += 1;
            return Ok(query.boosted(boost));
        }
        Ok(query)
    }

    #[expect(clippy::option_option, reason = "~ may stand without a number")]
    fn tilde(&mut self) -> Option<Option<f32>> {
        if let Some(Lexeme::Tilde(number)) = self.peek() {
            let number = *number;
            self.at += 1;
            return Some(number);
        }
        None
    }
}

/// Lucene's classic rules: AND binds the clause before it too, OR loosens with default AND.
fn add_clause(
    clauses: &mut Vec<(Occur, Query)>,
    conjunction: Option<Lexeme>,
    modifier: Option<Lexeme>,
    query: Query,
    and_default: bool,
) {
    if let Some((occur, _)) = clauses.last_mut()
        && *occur != Occur::MustNot
    {
        match conjunction {
            Some(Lexeme::And) => *occur = Occur::Must,
            Some(Lexeme::Or) if and_default => *occur = Occur::Should,
            _ => {}
        }
    }
    let and = conjunction == Some(Lexeme::And);
    let or = conjunction == Some(Lexeme::Or);
    let occur = match modifier {
        Some(Lexeme::Not | Lexeme::Minus) => Occur::MustNot,
        Some(Lexeme::Plus) => Occur::Must,
        _ if and || (and_default && !or) => Occur::Must,
        _ => Occur::Should,
    };
    clauses.push((occur, query));
}

fn combine(mut clauses: Vec<(Occur, Query)>, minimum: Option<String>) -> Query {
    if clauses.len() == 1
        && matches!(clauses.first(), Some((Occur::Must | Occur::Should, _)))
        && let Some((_, query)) = clauses.pop()
    {
        return query;
    }
    let (mut must, mut should, mut must_not) = (Vec::new(), Vec::new(), Vec::new());
    for (occur, query) in clauses {
        match occur {
            Occur::Must => must.push(query),
            Occur::Should => should.push(query),
            Occur::MustNot => must_not.push(query),
        }
    }
    let minimum = if should.is_empty() { None } else { minimum };
    Query::new(QueryKind::Bool { must, should, filter: Vec::new(), must_not, minimum })
}

/// Turns single terms into queries on the right fields.
struct Leaf<'a> {
    options: &'a QueryStringOptions,
    schema: &'a IndexSchema,
    lenient: bool,
}

impl Leaf<'_> {
    fn match_options(&self) -> MatchOptions {
        MatchOptions {
            operator: self.options.operator,
            minimum: None,
            lenient: self.lenient,
            ..self.options.options.clone()
        }
    }

    /// Fields that a clause goes to.
    fn fields(&self, field: Option<&str>) -> Vec<(String, f32)> {
        match field {
            Some(name) => expand_fields(&[(name.to_owned(), 1.0)], self.schema),
            None => expand_fields(&self.options.fields, self.schema),
        }
    }

    /// The best of the queries on each field.
    fn on_fields(&self, field: Option<&str>, make: impl Fn(&str) -> Option<QueryKind>) -> Query {
        let mut queries: Vec<Query> = self
            .fields(field)
            .into_iter()
            .filter_map(|(path, boost)| Some(Query::new(make(&path)?).boosted(boost)))
            .collect();
        match queries.len() {
            0 => Query::new(QueryKind::MatchNone),
            1 => queries.remove(0),
            _ => Query::new(QueryKind::DisMax { queries, tie_breaker: 0.0 }),
        }
    }

    fn is_text_like(&self, path: &str) -> bool {
        self.schema
            .field(path)
            .is_some_and(|f| matches!(f.class(), ValueClass::Text | ValueClass::Keyword))
    }

    #[expect(clippy::option_option, reason = "~ may stand without a number")]
    fn word(&self, field: Option<&str>, word: &Word, tilde: Option<Option<f32>>) -> Result<Query> {
        let text = word.plain();
        if field == Some("_exists_") {
            return Ok(Query::new(QueryKind::Exists { field: text }));
        }
        if word.is_star() && tilde.is_none() {
            return Ok(match field {
                None | Some("*") => Query::match_all(),
                Some(name) => Query::new(QueryKind::Exists { field: name.to_owned() }),
            });
        }
        if let Some(edits) = tilde {
            let fuzziness = match edits {
                None => Fuzziness::Auto(3, 6),
                Some(n) if n < 1.0 => Fuzziness::Auto(3, 6),
                Some(n) => Fuzziness::Edits(n.min(2.0) as u8),
            };
            return Ok(self.on_fields(field, |path| {
                let fuzzy = MatchOptions { fuzziness: Some(fuzziness), ..self.match_options() };
                Some(self.matching(path, &text, MatchKind::Terms, fuzzy))
            }));
        }
        if word.has_wildcard() {
            return self.wildcard(field, word);
        }
        if let Some((lower, upper)) = word.comparison() {
            return self.range(field, lower, upper);
        }
        Ok(self.on_fields(field, |path| {
            Some(self.matching(path, &text, MatchKind::Terms, self.match_options()))
        }))
    }

    fn matching(
        &self,
        path: &str,
        text: &str,
        kind: MatchKind,
        options: MatchOptions,
    ) -> QueryKind {
        QueryKind::Match { field: path.to_owned(), text: json!(text), kind, options }
    }

    fn wildcard(&self, field: Option<&str>, word: &Word) -> Result<Query> {
        if !self.options.allow_leading_wildcard && word.starts_with_wildcard() {
            return Err(syntax("'*' or '?' not allowed as first character in WildcardQuery"));
        }
        Ok(self.on_fields(field, |path| {
            if !self.is_text_like(path) && !path.starts_with('_') {
                return None;
            }
            let field = path.to_owned();
            Some(match word.prefix() {
                Some(value) => QueryKind::Prefix { field, value, ignore_case: false },
                None => QueryKind::Wildcard { field, value: word.pattern(), ignore_case: false },
            })
        }))
    }

    fn phrase(&self, field: Option<&str>, text: &str, slop: Option<u32>) -> Result<Query> {
        Ok(self.on_fields(field, |path| {
            let mut options = self.match_options();
            options.slop = slop.unwrap_or(options.slop);
            Some(self.matching(path, text, MatchKind::Phrase, options))
        }))
    }

    fn regex(&self, field: Option<&str>, pattern: &str) -> Query {
        self.on_fields(field, |path| {
            let (field, value) = (path.to_owned(), pattern.to_owned());
            let text = self.is_text_like(path);
            text.then_some(QueryKind::Regexp { field, value, ignore_case: false })
        })
    }

    fn range(
        &self,
        field: Option<&str>,
        lower: Option<(String, bool)>,
        upper: Option<(String, bool)>,
    ) -> Result<Query> {
        let value = |bound: &Option<(String, bool)>| {
            bound.clone().map(|(text, included)| (Value::String(text), included))
        };
        Ok(self.on_fields(field, |path| {
            let bounds = RangeBounds {
                lower: value(&lower),
                upper: value(&upper),
                format: None,
                time_zone: self.options.time_zone.clone(),
            };
            let fits = field.is_some() || self.is_text_like(path);
            fits.then(|| QueryKind::Range { field: path.to_owned(), bounds })
        }))
    }
}

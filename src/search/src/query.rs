//! Elasticsearch's query DSL.
//!
//! [`parse`](Query::parse) turns JSON into a typed tree and refuses what Elasticsearch refuses,
//! with its texts; [`compile()`] turns the tree into a Tantivy query against one snapshot. Queries
//! that Elasticsearch knows and this server does not are errors that say so.

mod columns;
mod compile;
mod excluded;
mod fulltext;
mod leaf;
mod lucene;
mod multiterm;
mod parse;
mod scoped;
mod text;

use serde_json::Value;

pub(crate) use columns::{ColumnRangeQuery, NumberColumn};
pub use compile::QueryContext;
pub(crate) use compile::compile;
pub(crate) use text::{HighlightTerm, highlight_terms};

/// Operator between the terms of a full-text query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// All terms.
    And,
    /// Any term.
    Or,
}

/// Allowed edits of a fuzzy term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fuzziness {
    /// By length, with the two borders (3 and 6 by default).
    Auto(usize, usize),
    /// A fixed number.
    Edits(u8),
}

/// Options of the `match` family.
#[derive(Clone, Debug, PartialEq)]
pub struct MatchOptions {
    /// Between terms.
    pub operator: Operator,
    /// `minimum_should_match` as written.
    pub minimum: Option<String>,
    /// Fuzzy matching of each term.
    pub fuzziness: Option<Fuzziness>,
    /// Characters that must be equal in fuzzy matching.
    pub prefix_length: usize,
    /// Analyzer instead of the field's.
    pub analyzer: Option<String>,
    /// Bad values match nothing instead of failing.
    pub lenient: bool,
    /// Whether a text without terms matches all documents.
    pub zero_terms_all: bool,
    /// Moves that a phrase may need.
    pub slop: u32,
    /// Terms that a prefix may stand for.
    pub max_expansions: u32,
}

impl Default for MatchOptions {
    fn default() -> Self {
        Self {
            operator: Operator::Or,
            minimum: None,
            fuzziness: None,
            prefix_length: 0,
            analyzer: None,
            lenient: false,
            zero_terms_all: false,
            slop: 0,
            max_expansions: 50,
        }
    }
}

/// How a text is matched against a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchKind {
    /// Terms in any order.
    Terms,
    /// All terms in order.
    Phrase,
    /// As `Phrase`, the last term is a prefix.
    PhrasePrefix,
    /// As `Terms`, the last term is a prefix.
    BoolPrefix,
}

/// How `multi_match` combines fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MultiKind {
    /// The best field counts.
    BestFields,
    /// All fields add up.
    MostFields,
    /// Best field, phrases.
    Phrase,
    /// Best field, phrases with a prefix.
    PhrasePrefix,
    /// All fields add up, the last term is a prefix.
    BoolPrefix,
}

/// Options of `query_string` and `simple_query_string`.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryStringOptions {
    /// Fields with boosts; empty means the default.
    pub fields: Vec<(String, f32)>,
    /// Between clauses.
    pub operator: Operator,
    /// Options of each clause.
    pub options: MatchOptions,
    /// Zone of dates.
    pub time_zone: Option<String>,
    /// Whether wildcards are analysed (only case is).
    pub allow_leading_wildcard: bool,
}

/// Bounds of a range as written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RangeBounds {
    /// Lower bound and whether it is included.
    pub lower: Option<(Value, bool)>,
    /// Upper bound and whether it is included.
    pub upper: Option<(Value, bool)>,
    /// Format of dates.
    pub format: Option<String>,
    /// Zone of dates.
    pub time_zone: Option<String>,
}

/// A query.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// What is asked.
    pub kind: QueryKind,
    /// Factor of its score.
    pub boost: f32,
}

/// The kinds of queries.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names are Elasticsearch's")]
pub enum QueryKind {
    MatchAll,
    MatchNone,
    Match {
        field: String,
        text: Value,
        kind: MatchKind,
        options: MatchOptions,
    },
    MultiMatch {
        fields: Vec<(String, f32)>,
        text: Value,
        kind: MultiKind,
        tie_breaker: Option<f32>,
        options: MatchOptions,
    },
    Term {
        field: String,
        value: Value,
        ignore_case: bool,
    },
    Terms {
        field: String,
        values: Vec<Value>,
    },
    Range {
        field: String,
        bounds: RangeBounds,
    },
    Exists {
        field: String,
    },
    Ids {
        values: Vec<String>,
    },
    Prefix {
        field: String,
        value: String,
        ignore_case: bool,
    },
    Wildcard {
        field: String,
        value: String,
        ignore_case: bool,
    },
    Regexp {
        field: String,
        value: String,
        ignore_case: bool,
    },
    Fuzzy {
        field: String,
        value: String,
        fuzziness: Fuzziness,
        prefix_length: usize,
    },
    Bool {
        must: Vec<Query>,
        should: Vec<Query>,
        filter: Vec<Query>,
        must_not: Vec<Query>,
        minimum: Option<String>,
    },
    ConstantScore {
        filter: Box<Query>,
    },
    DisMax {
        queries: Vec<Query>,
        tie_breaker: f32,
    },
    QueryString {
        query: String,
        options: QueryStringOptions,
    },
    SimpleQueryString {
        query: String,
        options: QueryStringOptions,
    },
}

impl Query {
    /// A query with boost 1.
    pub fn new(kind: QueryKind) -> Self {
        Self { kind, boost: 1.0 }
    }

    /// All documents.
    pub fn match_all() -> Self {
        Self::new(QueryKind::MatchAll)
    }

    /// Reads the object under `query`.
    pub fn parse(value: &Value) -> crate::Result<Self> {
        parse::query(value, 0)
    }

    /// This query with a factor on its score.
    #[must_use]
    pub fn boosted(mut self, boost: f32) -> Self {
        self.boost *= boost;
        self
    }
}

#[cfg(test)]
mod tests;

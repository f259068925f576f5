//! Queries that stand for many terms: prefix, wildcard, regexp, fuzzy, ranges of keywords.
//!
//! The dictionary of the field is walked from the literal prefix of the pattern; the documents of
//! all terms that match get one constant score.

use std::ops::Bound;

use regex::Regex;
use tantivy::query::{
    BitSetDocSet, ConstScorer, EnableScoring, Explanation, Query, Scorer, Weight,
};
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{BitSet, DocId, DocSet, Score, SegmentReader, TERMINATED, TantivyError};

use crate::error::{EsError, Result};
use crate::limits;

/// Decides which terms match.
#[derive(Clone, Debug)]
pub(crate) enum TermMatcher {
    /// Exactly this term.
    Exact(String),
    /// Terms that begin so.
    Prefix(String),
    /// Terms that match as a whole; the literal prefix narrows the walk.
    Regex { prefix: String, regex: Regex },
    /// Terms within some edits, equal in the first characters.
    Fuzzy { term: String, edits: usize, prefix: String },
    /// Terms between bounds.
    Range { lower: Bound<String>, upper: Bound<String> },
}

impl TermMatcher {
    /// `*` and `?`, with backslash escapes.
    pub(crate) fn wildcard(pattern: &str, ignore_case: bool) -> Result<Self> {
        let mut regex = String::from(if ignore_case { "(?is)^" } else { "(?s)^" });
        let mut prefix = String::new();
        let mut literal = !ignore_case;
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            let c = match c {
                '*' | '?' => {
                    literal = false;
                    regex.push_str(if c == '*' { ".*" } else { "." });
                    continue;
                }
                '\\' => chars.next().unwrap_or('\\'),
                c => c,
            };
            if literal {
                prefix.push(c);
            }
            regex.push_str(&regex::escape(&c.to_string()));
        }
        regex.push('$');
        Ok(Self::Regex { prefix, regex: build(&regex)? })
    }

    /// Lucene's regular expressions.
    pub(crate) fn regexp(pattern: &str, ignore_case: bool) -> Result<Self> {
        if pattern.len() > limits::MAX_REGEX_LENGTH {
            return Err(EsError::illegal(format!(
                "The length of regex [{}] used in the Regexp Query request has exceeded the \
                 allowed maximum of [{}]. This maximum can be set by changing the \
                 [index.max_regex_length] index level setting.",
                pattern.len(),
                limits::MAX_REGEX_LENGTH
            )));
        }
        let flags = if ignore_case { "is" } else { "s" };
        let regex = format!("(?{flags})^(?:{})$", lucene_to_rust(pattern)?);
        let special = |c: char| ".?+*|{}[]()\"\\#@&<>~".contains(c);
        let mut prefix: String = pattern.chars().take_while(|c| !special(*c)).collect();
        if prefix.len() < pattern.len() {
            // The last literal may be optional.
            prefix.pop();
        }
        if ignore_case || pattern.contains('|') {
            prefix.clear();
        }
        Ok(Self::Regex { prefix, regex: build(&regex)? })
    }

    pub(crate) fn prefix(value: &str, ignore_case: bool) -> Result<Self> {
        if !ignore_case {
            return Ok(Self::Prefix(value.to_owned()));
        }
        let regex = build(&format!("(?is)^{}.*$", regex::escape(value)))?;
        Ok(Self::Regex { prefix: String::new(), regex })
    }

    pub(crate) fn fuzzy(term: &str, edits: usize, prefix_length: usize) -> Self {
        if edits == 0 {
            return Self::Exact(term.to_owned());
        }
        let prefix = term.chars().take(prefix_length).collect();
        Self::Fuzzy { term: term.to_owned(), edits, prefix }
    }

    pub(crate) fn matches(&self, term: &str) -> bool {
        match self {
            Self::Exact(text) => term == text,
            Self::Prefix(prefix) => term.starts_with(prefix.as_str()),
            Self::Regex { regex, .. } => regex.is_match(term),
            Self::Fuzzy { term: text, edits: max, prefix } => {
                term.starts_with(prefix.as_str()) && edits(text, term) <= *max
            }
            Self::Range { lower, upper } => {
                let above = match lower {
                    Bound::Included(low) => term >= low.as_str(),
                    Bound::Excluded(low) => term > low.as_str(),
                    Bound::Unbounded => true,
                };
                above
                    && !self.is_beyond(term)
                    && !matches!(upper, Bound::Excluded(high) if term == high)
            }
        }
    }

    /// Where the walk may begin.
    fn start(&self) -> &str {
        match self {
            Self::Exact(text) | Self::Prefix(text) => text,
            Self::Regex { prefix, .. } | Self::Fuzzy { prefix, .. } => prefix,
            Self::Range { lower: Bound::Included(low) | Bound::Excluded(low), .. } => low,
            Self::Range { lower: Bound::Unbounded, .. } => "",
        }
    }

    /// Whether no later term can match.
    fn is_beyond(&self, term: &str) -> bool {
        match self {
            Self::Range { upper, .. } => match upper {
                Bound::Included(high) | Bound::Excluded(high) => term > high.as_str(),
                Bound::Unbounded => false,
            },
            other => !term.starts_with(other.start()),
        }
    }
}

fn build(pattern: &str) -> Result<Regex> {
    regex::RegexBuilder::new(pattern)
        .size_limit(1 << 20)
        .build()
        .map_err(|e| EsError::illegal(e.to_string()))
}

fn lucene_to_rust(pattern: &str) -> Result<String> {
    let mut out = String::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push_str(&regex::escape(&chars.next().unwrap_or('\\').to_string())),
            '^' | '$' if !out.ends_with('[') => out.push_str(&regex::escape(&c.to_string())),
            '@' => out.push_str(".*"),
            '#' => out.push_str("[^\\s\\S]"),
            '"' => {
                let literal: String = chars.by_ref().take_while(|c| *c != '"').collect();
                out.push_str(&regex::escape(&literal));
            }
            '~' | '&' | '<' | '>' => {
                return Err(EsError::unsupported(format!("regexp operator [{c}]")));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

/// Damerau-Levenshtein distance in characters (adjacent swaps count once).
pub(crate) fn edits(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    if left.len().abs_diff(right.len()) > 2 {
        return usize::MAX;
    }
    let width = right.len() + 1;
    let mut rows = vec![(0..width).collect::<Vec<usize>>()];
    for i in 1..=left.len() {
        let mut row = vec![i; width];
        for j in 1..width {
            let same = usize::from(left[i - 1] != right[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + same);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row[j] = best;
        }
        rows.push(row);
    }
    rows.last().and_then(|row| row.last()).copied().unwrap_or(0)
}

/// All documents with a term that matches.
#[derive(Clone, Debug)]
pub(crate) struct MultiTermQuery {
    pub(crate) field: Field,
    /// Bytes before the text of every term of the path.
    pub(crate) head: Vec<u8>,
    pub(crate) matcher: TermMatcher,
}

impl Query for MultiTermQuery {
    fn weight(&self, _: EnableScoring<'_>) -> tantivy::Result<Box<dyn Weight>> {
        Ok(Box::new(MultiTermWeight(self.clone())))
    }
}

struct MultiTermWeight(MultiTermQuery);

impl MultiTermWeight {
    fn collect(&self, reader: &SegmentReader) -> tantivy::Result<BitSet> {
        let MultiTermQuery { field, head, matcher } = &self.0;
        let mut docs = BitSet::with_max_value(reader.max_doc());
        let index = reader.inverted_index(*field)?;
        let mut start = head.clone();
        start.extend_from_slice(matcher.start().as_bytes());
        let mut stream = index.terms().range().ge(start).into_stream()?;
        let mut scanned = 0;
        while stream.advance() {
            let Some(rest) = stream.key().strip_prefix(head.as_slice()) else { break };
            let Ok(term) = std::str::from_utf8(rest) else { continue };
            if matcher.is_beyond(term) {
                break;
            }
            scanned += 1;
            if scanned > limits::MAX_DICTIONARY_SCAN {
                let text = "too many terms to look at".to_owned();
                return Err(TantivyError::InvalidArgument(text));
            }
            if matcher.matches(term) {
                let info = stream.value();
                let mut postings =
                    index.read_postings_from_terminfo(info, IndexRecordOption::Basic)?;
                while postings.doc() != TERMINATED {
                    docs.insert(postings.doc());
                    postings.advance();
                }
            }
        }
        Ok(docs)
    }
}

impl Weight for MultiTermWeight {
    fn scorer(&self, reader: &SegmentReader, boost: Score) -> tantivy::Result<Box<dyn Scorer>> {
        let docs = BitSetDocSet::from(self.collect(reader)?);
        Ok(Box::new(ConstScorer::new(docs, boost)))
    }

    fn explain(&self, reader: &SegmentReader, doc: DocId) -> tantivy::Result<Explanation> {
        explain_constant(self, reader, doc)
    }
}

/// An explanation for queries that give one score to all.
pub(super) fn explain_constant(
    weight: &dyn Weight,
    reader: &SegmentReader,
    doc: DocId,
) -> tantivy::Result<Explanation> {
    let mut scorer = weight.scorer(reader, 1.0)?;
    if scorer.doc() > doc || scorer.seek(doc) != doc {
        return Err(TantivyError::InvalidArgument(format!("document {doc} does not match")));
    }
    Ok(Explanation::new("ConstantScore", 1.0))
}

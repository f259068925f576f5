//! Scoring with the statistics of a path instead of those of a Tantivy field.
//!
//! Elasticsearch's BM25 counts the documents that have the field, and the mean length over them.
//! Tantivy counts all documents of the index, and one of its fields may hold many paths here.

use tantivy::query::{Bm25StatisticsProvider, EnableScoring, Query, Weight};
use tantivy::schema::Field;
use tantivy::{Searcher, Term};

/// How long the values of a path are on average.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lengths {
    /// As the Tantivy field knows it: the path has the field for itself.
    OfField,
    /// One token each: keywords, and text without norms.
    One,
}

/// A query scored with the statistics of one path.
#[derive(Debug)]
pub(crate) struct ScopedQuery {
    pub(crate) inner: Box<dyn Query>,
    /// Term that all documents with the path have.
    pub(crate) path: Term,
    pub(crate) lengths: Lengths,
}

impl Clone for ScopedQuery {
    fn clone(&self) -> Self {
        let inner = self.inner.box_clone();
        Self { inner, path: self.path.clone(), lengths: self.lengths }
    }
}

impl Query for ScopedQuery {
    fn weight(&self, scoring: EnableScoring<'_>) -> tantivy::Result<Box<dyn Weight>> {
        match scoring {
            EnableScoring::Enabled { searcher, .. } => {
                let docs = searcher.doc_freq(&self.path)?.max(1);
                let statistics = PathStatistics { searcher, docs, lengths: self.lengths };
                self.inner
                    .weight(EnableScoring::Enabled { searcher, statistics_provider: &statistics })
            }
            disabled @ EnableScoring::Disabled { .. } => self.inner.weight(disabled),
        }
    }

    fn query_terms<'a>(&'a self, visitor: &mut dyn FnMut(&'a Term, bool)) {
        self.inner.query_terms(visitor);
    }
}

struct PathStatistics<'a> {
    searcher: &'a Searcher,
    docs: u64,
    lengths: Lengths,
}

impl Bm25StatisticsProvider for PathStatistics<'_> {
    fn total_num_tokens(&self, field: Field) -> tantivy::Result<u64> {
        match self.lengths {
            Lengths::OfField => Ok(self.searcher.total_num_tokens(field)?.max(1)),
            Lengths::One => Ok(self.docs),
        }
    }

    fn total_num_docs(&self) -> tantivy::Result<u64> {
        Ok(self.docs)
    }

    fn doc_freq(&self, term: &Term) -> tantivy::Result<u64> {
        // More documents with the term than with the path would be a contradiction in the index;
        // the formula must not see it.
        Ok(self.searcher.doc_freq(term)?.min(self.docs))
    }
}

//! Limits of the search engine. What happens at each of them is Elasticsearch's own error.

/// Clauses of one boolean query, also after expansion.
pub const MAX_CLAUSES: usize = 1024;
/// Nesting of queries and aggregations.
pub const MAX_DEPTH: usize = 30;
/// `from + size` of one search, unless `index.max_result_window` says otherwise.
pub const MAX_RESULT_WINDOW: usize = 10_000;
/// The most that `index.max_result_window` may say: every shard keeps so many hits in memory.
pub const LARGEST_RESULT_WINDOW: usize = 1_000_000;
/// Buckets of one aggregation answer.
pub const MAX_BUCKETS: usize = 65_535;
/// Buckets that one shard may hold while it works, before it keeps the best ones.
pub const MAX_SHARD_BUCKETS: usize = 2_000_000;
/// Terms of one `terms` query.
pub const MAX_TERMS_COUNT: usize = 65_536;
/// Terms that a wildcard, prefix, regular expression or fuzzy query may look at.
pub const MAX_DICTIONARY_SCAN: usize = 5_000_000;
/// Length of a regular expression.
pub const MAX_REGEX_LENGTH: usize = 1_000;
/// Fields of one mapping.
pub const TOTAL_FIELDS: usize = 1_000;
/// Depth of a document and of a mapping.
pub const MAX_OBJECT_DEPTH: usize = 20;
/// UTF-8 bytes of one keyword.
pub const MAX_KEYWORD_BYTES: usize = 32_766;
/// Tokens of one field of one document.
pub const MAX_TOKENS_PER_FIELD: usize = 5_000_000;
/// Characters that highlighting looks at.
pub const MAX_HIGHLIGHT_CHARS: usize = 1_000_000;
/// Text fields with their own length norms that a shard keeps beyond the declared ones.
pub const SPARE_TEXT_SLOTS: usize = 16;
/// Text fields with their own length norms of one shard.
pub const MAX_TEXT_SLOTS: usize = 256;
/// `docvalue_fields` of one search, unless `index.max_docvalue_fields_search` says otherwise.
pub const MAX_DOCVALUE_FIELDS: usize = 100;
/// Snapshots of searchers held for open searches on one node.
pub const MAX_SNAPSHOTS: usize = 1_000;
/// Bytes of documents on their way to indexing threads, for all shards that share a pipeline. A
/// refresh waits until its shard's part of them is indexed: more would only make it wait longer.
pub const PIPELINE_BYTES: usize = 4 << 20;
/// What such a document weighs beyond its source, in bytes.
pub const PENDING_DOCUMENT_BYTES: usize = 1024;

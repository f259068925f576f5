//! How documents lie in Tantivy.
//!
//! | field | holds |
//! |---|---|
//! | `_id`, `_routing`, `_source` | stored; `_id` is a term too |
//! | `_seq_no`, `_primary_term`, `_version` | columns |
//! | `_field_names` | one term per path that has a value, for `exists` and document counts |
//! | `k` | JSON: keywords and addresses; terms without norms and string columns per path |
//! | `n` | JSON: integers, dates, booleans, floats; columns per path |
//! | `t0` … | text slots: terms with frequencies, positions and norms |
//! | `tx` | text of fields that found no slot: terms `path NUL token`, no norms of their own |

use std::collections::BTreeMap;
use std::sync::Arc;

use tantivy::schema::{
    FAST, Field, IndexRecordOption, JsonObjectOptions, OwnedValue, STORED, STRING, Schema,
    TextFieldIndexing, TextOptions,
};
use tantivy::tokenizer::{PreTokenizedString, Token};
use tantivy::{TantivyDocument, Term};

use super::IndexOp;
use crate::error::{EsError, Result};
use crate::limits;
use crate::mapping::{FieldValue, ParsedDocument, ValueClass};

pub(crate) const SEQ_NO: &str = "_seq_no";
pub(crate) const PRIMARY_TERM: &str = "_primary_term";
pub(crate) const VERSION: &str = "_version";
const KEYWORDS: &str = "k";
const NUMBERS: &str = "n";

/// Between the path and the token of a term in the overflow field.
pub(crate) const OVERFLOW_SEPARATOR: char = '\u{0}';

/// Gap in positions between two values of one text field, as in Elasticsearch.
const POSITION_GAP: usize = 100;

/// Handles of the Tantivy fields.
#[derive(Clone, Debug)]
pub struct Fields {
    pub(crate) id: Field,
    pub(crate) routing: Field,
    pub(crate) source: Field,
    pub(crate) seq_no: Field,
    pub(crate) primary_term: Field,
    pub(crate) version: Field,
    pub(crate) field_names: Field,
    pub(crate) keywords: Field,
    pub(crate) numbers: Field,
    pub(crate) overflow: Field,
    pub(crate) slots: Arc<[Field]>,
}

/// The Tantivy schema with a number of text slots.
pub(crate) fn schema(slots: usize) -> Schema {
    let mut builder = Schema::builder();
    builder.add_text_field("_id", STRING | STORED);
    builder.add_text_field("_routing", TextOptions::default().set_stored());
    builder.add_bytes_field("_source", STORED);
    builder.add_u64_field(SEQ_NO, FAST);
    builder.add_u64_field(PRIMARY_TERM, FAST);
    builder.add_u64_field(VERSION, FAST);
    builder.add_text_field("_field_names", STRING);
    let raw = TextFieldIndexing::default()
        .set_tokenizer("raw")
        .set_fieldnorms(false)
        .set_index_option(IndexRecordOption::Basic);
    let json = JsonObjectOptions::default().set_expand_dots_enabled().set_fast("raw");
    builder.add_json_field(KEYWORDS, json.clone().set_indexing_options(raw));
    builder.add_json_field(NUMBERS, json);
    let text = |norms: bool| {
        let indexing = TextFieldIndexing::default()
            .set_tokenizer("raw")
            .set_fieldnorms(norms)
            .set_index_option(IndexRecordOption::WithFreqsAndPositions);
        TextOptions::default().set_indexing_options(indexing)
    };
    builder.add_text_field("tx", text(false));
    for slot in 0..slots {
        builder.add_text_field(&format!("t{slot}"), text(true));
    }
    builder.build()
}

impl Fields {
    pub(crate) fn of(schema: &Schema) -> Result<Self> {
        let get = |name: &str| {
            schema.get_field(name).map_err(|e| EsError::internal(format!("shard layout: {e}")))
        };
        let mut slots = Vec::new();
        while let Ok(field) = schema.get_field(&format!("t{}", slots.len())) {
            slots.push(field);
        }
        Ok(Self {
            id: get("_id")?,
            routing: get("_routing")?,
            source: get("_source")?,
            seq_no: get(SEQ_NO)?,
            primary_term: get(PRIMARY_TERM)?,
            version: get(VERSION)?,
            field_names: get("_field_names")?,
            keywords: get(KEYWORDS)?,
            numbers: get(NUMBERS)?,
            overflow: get("tx")?,
            slots: slots.into(),
        })
    }

    pub(crate) fn slot_count(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    /// The term of a keyword.
    pub(crate) fn keyword_term(&self, path: &str, value: &str) -> Term {
        let mut term = Term::from_field_json_path(self.keywords, path, true);
        term.append_type_and_str(value);
        term
    }
}

/// Name of the column of a keyword or number path; dots are path separators.
pub(crate) fn column_name(class: ValueClass, path: &str) -> String {
    let field = if class == ValueClass::Keyword { KEYWORDS } else { NUMBERS };
    format!("{field}.{path}")
}

/// Which text path uses which slot.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slots {
    bound: BTreeMap<String, u32>,
    count: u32,
}

impl Slots {
    pub(crate) fn new(bound: BTreeMap<String, u32>, count: u32) -> Self {
        Self { bound, count }
    }

    pub(crate) fn bound(&self) -> &BTreeMap<String, u32> {
        &self.bound
    }

    fn is_full(&self) -> bool {
        self.bound.len() >= self.count as usize
    }

    pub(crate) fn needs_binding(&self, path: &str) -> bool {
        !self.is_full() && !self.bound.contains_key(path)
    }

    /// Slots are given in order of first use and never taken back.
    pub(crate) fn bind(&mut self, path: &str) {
        if self.needs_binding(path) {
            let slot = u32::try_from(self.bound.len()).unwrap_or(u32::MAX);
            self.bound.insert(path.to_owned(), slot);
        }
    }

    /// The Tantivy field of a text path, and the prefix of its terms.
    pub(crate) fn place(&self, fields: &Fields, path: &str) -> (Field, String) {
        let slot = self.bound.get(path).and_then(|slot| fields.slots.get(*slot as usize));
        match slot {
            Some(field) => (*field, String::new()),
            None => (fields.overflow, format!("{path}{OVERFLOW_SEPARATOR}")),
        }
    }
}

/// Values gathered per path.
#[derive(Default)]
struct Gathered<'a> {
    texts: BTreeMap<&'a str, PreTokenizedString>,
    next_position: BTreeMap<&'a str, usize>,
    keywords: BTreeMap<&'a str, Vec<OwnedValue>>,
    numbers: BTreeMap<&'a str, Vec<OwnedValue>>,
    names: std::collections::BTreeSet<&'a str>,
}

/// The Tantivy document of an operation.
pub(crate) fn document(
    fields: &Fields,
    slots: &Slots,
    op: &IndexOp,
    parsed: &ParsedDocument,
) -> TantivyDocument {
    let mut document = TantivyDocument::default();
    document.add_text(fields.id, &op.id);
    if let Some(routing) = &op.routing {
        document.add_text(fields.routing, routing);
    }
    document.add_bytes(fields.source, &op.source);
    document.add_u64(fields.seq_no, op.seq_no);
    document.add_u64(fields.primary_term, op.primary_term);
    document.add_u64(fields.version, op.version);
    let mut gathered = Gathered::default();
    for entry in &parsed.entries {
        gather(&mut gathered, slots, fields, entry);
    }
    for (path, text) in gathered.texts {
        let (field, _) = slots.place(fields, path);
        document.add_pre_tokenized_text(field, text);
    }
    add_json(&mut document, fields.keywords, gathered.keywords);
    add_json(&mut document, fields.numbers, gathered.numbers);
    for name in gathered.names {
        document.add_text(fields.field_names, name);
    }
    document
}

fn add_json(document: &mut TantivyDocument, field: Field, values: BTreeMap<&str, Vec<OwnedValue>>) {
    if values.is_empty() {
        return;
    }
    let object = values.into_iter().map(|(path, mut list)| {
        let single = if list.len() == 1 { list.pop() } else { None };
        (path.to_owned(), single.unwrap_or(OwnedValue::Array(list)))
    });
    document.add_object(field, object.collect());
}

fn gather<'a>(
    gathered: &mut Gathered<'a>,
    slots: &Slots,
    fields: &Fields,
    entry: &'a crate::mapping::Entry,
) {
    let (path, field) = (entry.path.as_str(), &entry.field);
    match &entry.value {
        FieldValue::Text(text) if field.index => {
            let (_, prefix) = slots.place(fields, path);
            add_tokens(gathered, path, &prefix, text, field);
        }
        FieldValue::Text(_) => {}
        FieldValue::Keyword(text) => {
            if field.index || field.doc_values {
                gathered.names.insert(path);
                gathered.keywords.entry(path).or_default().push(OwnedValue::Str(text.clone()));
            }
        }
        FieldValue::Long(number) => {
            if field.index || field.doc_values {
                gathered.names.insert(path);
                gathered.numbers.entry(path).or_default().push(OwnedValue::I64(*number));
            }
        }
        FieldValue::Double(number) => {
            if field.index || field.doc_values {
                gathered.names.insert(path);
                gathered.numbers.entry(path).or_default().push(OwnedValue::F64(*number));
            }
        }
    }
}

fn add_tokens<'a>(
    gathered: &mut Gathered<'a>,
    path: &'a str,
    prefix: &str,
    text: &str,
    field: &crate::mapping::FieldDef,
) {
    let tokens = field.analyzer.analyze(text);
    if tokens.is_empty() {
        return;
    }
    gathered.names.insert(path);
    let first = gathered.next_position.get(path).copied().unwrap_or(0);
    let target = gathered
        .texts
        .entry(path)
        .or_insert_with(|| PreTokenizedString { text: String::new(), tokens: Vec::new() });
    let mut last = first;
    let room = limits::MAX_TOKENS_PER_FIELD.saturating_sub(target.tokens.len());
    for token in tokens.into_iter().take(room) {
        last = first + token.position as usize;
        let text = if prefix.is_empty() { token.text } else { format!("{prefix}{}", token.text) };
        target.tokens.push(Token {
            offset_from: token.start,
            offset_to: token.end,
            position: last,
            text,
            position_length: 1,
        });
    }
    gathered.next_position.insert(path, last + 1 + POSITION_GAP);
}

//! Highlighting: marked fragments of the texts that matched.
//!
//! Texts are analysed again with the field's analyzer; fragments are cut at sentences, or at
//! words where a sentence is longer than a fragment, as Lucene's unified highlighter does it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use unicode_segmentation::UnicodeSegmentation;

use super::{HighlightField, HighlightSpec};
use crate::analysis::Token;
use crate::limits;
use crate::mapping::{FieldDef, IndexSchema, ValueClass};
use crate::query::{HighlightTerm, Query, highlight_terms};

/// Terms by field path.
type Terms = BTreeMap<String, Vec<HighlightTerm>>;

/// Byte range of a match.
type Span = (usize, usize);

pub(super) struct Highlighter<'a> {
    schema: &'a IndexSchema,
    fields: Vec<(&'a HighlightField, Terms)>,
}

impl<'a> Highlighter<'a> {
    pub(super) fn new(spec: &'a HighlightSpec, query: &Query, schema: &'a IndexSchema) -> Self {
        let common = highlight_terms(query, schema);
        let fields = spec
            .fields
            .iter()
            .map(|field| match &field.query {
                Some(own) => (field, highlight_terms(own, schema)),
                None => (field, common.clone()),
            })
            .collect();
        Self { schema, fields }
    }

    /// Fragments by field.
    pub(super) fn highlight(&self, source: &Value) -> Map<String, Value> {
        let mut out = Map::new();
        for (spec, terms) in &self.fields {
            for field in self.schema.matching(&spec.field) {
                let text_like = matches!(field.class(), ValueClass::Text | ValueClass::Keyword);
                if !text_like || out.contains_key(&field.path) {
                    continue;
                }
                let fragments = self.field(spec, &field, terms, source);
                if !fragments.is_empty() {
                    out.insert(field.path.clone(), json!(fragments));
                }
            }
        }
        out
    }

    fn field(
        &self,
        spec: &HighlightField,
        field: &FieldDef,
        terms: &Terms,
        source: &Value,
    ) -> Vec<String> {
        let wanted: Vec<&HighlightTerm> = if spec.require_field_match {
            terms.get(&field.path).into_iter().flatten().collect()
        } else {
            terms.values().flatten().collect()
        };
        let path = field.parent.as_deref().unwrap_or(&field.path);
        let mut texts = Vec::new();
        gather(source, path, &mut texts);
        if wanted.is_empty() {
            return no_match(spec, &texts);
        }
        let mut fragments: Vec<(usize, String)> = Vec::new();
        for text in &texts {
            let limit = text.char_indices().nth(limits::MAX_HIGHLIGHT_CHARS);
            let text = text.get(..limit.map_or(text.len(), |(at, _)| at)).unwrap_or(text);
            let spans = spans(field, text, &wanted);
            if !spans.is_empty() {
                fragments.extend(cut(spec, text, &spans));
            }
        }
        if fragments.is_empty() {
            return no_match(spec, &texts);
        }
        if spec.number_of_fragments > 0 {
            fragments = best(fragments, spec);
        }
        fragments.into_iter().map(|(_, text)| text).collect()
    }
}

/// The fragments with most matches, in order of the text unless asked by score.
fn best(fragments: Vec<(usize, String)>, spec: &HighlightField) -> Vec<(usize, String)> {
    let mut ranked: Vec<(usize, (usize, String))> = fragments.into_iter().enumerate().collect();
    ranked.sort_by(|a, b| b.1.0.cmp(&a.1.0).then(a.0.cmp(&b.0)));
    ranked.truncate(spec.number_of_fragments);
    if !spec.by_score {
        ranked.sort_by_key(|(place, _)| *place);
    }
    ranked.into_iter().map(|(_, fragment)| fragment).collect()
}

fn no_match(spec: &HighlightField, texts: &[String]) -> Vec<String> {
    let Some(text) = texts.first().filter(|_| spec.no_match_size > 0) else { return Vec::new() };
    let end = text.char_indices().nth(spec.no_match_size).map_or(text.len(), |(at, _)| at);
    vec![text.get(..end).unwrap_or(text).to_owned()]
}

/// Texts at a dotted path, through arrays and dotted keys.
fn gather(value: &Value, path: &str, out: &mut Vec<String>) {
    match value {
        Value::Array(list) => list.iter().for_each(|item| gather(item, path, out)),
        Value::Object(object) => {
            for (key, inner) in object {
                if key == path {
                    leaves(inner, out);
                } else if let Some(rest) = path.strip_prefix(key.as_str())
                    && let Some(rest) = rest.strip_prefix('.')
                {
                    gather(inner, rest, out);
                }
            }
        }
        _ => {}
    }
}

fn leaves(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::String(text) => out.push(text.clone()),
        Value::Array(list) => list.iter().for_each(|item| leaves(item, out)),
        Value::Number(_) | Value::Bool(_) => out.push(value.to_string()),
        Value::Null | Value::Object(_) => {}
    }
}

fn spans(field: &FieldDef, text: &str, wanted: &[&HighlightTerm]) -> Vec<Span> {
    let tokens = if field.class() == ValueClass::Text {
        field.analyzer.analyze(text)
    } else {
        let normalized = field.normalizer.as_ref().map(|n| n.normalize(text));
        let text_len = text.len();
        let text = normalized.unwrap_or_else(|| text.to_owned());
        vec![Token { text, start: 0, end: text_len, position: 0, kind: "word" }]
    };
    let mut found = BTreeSet::new();
    for term in wanted {
        match term {
            HighlightTerm::Token(matcher) => {
                found.extend(
                    tokens.iter().filter(|t| matcher.matches(&t.text)).map(|t| (t.start, t.end)),
                );
            }
            HighlightTerm::Phrase { terms, slop, prefix } => {
                phrase_spans(&tokens, terms, *slop, *prefix, &mut found);
            }
        }
    }
    join(found)
}

fn phrase_spans(
    tokens: &[Token],
    terms: &[(u32, String)],
    slop: u32,
    prefix: bool,
    found: &mut BTreeSet<Span>,
) {
    let Some((first_at, first)) = terms.first() else { return };
    let fits = |token: &Token, index: usize, text: &str| {
        token.text == text || (prefix && index + 1 == terms.len() && token.text.starts_with(text))
    };
    for (at, start) in tokens.iter().enumerate().filter(|(_, t)| t.text == *first) {
        let mut spans = vec![(start.start, start.end)];
        for (index, (position, text)) in terms.iter().enumerate().skip(1) {
            let wanted = start.position + (position - first_at);
            let near = tokens.get(at..).unwrap_or(&[]).iter().find(|token| {
                let distance = token.position.abs_diff(wanted);
                distance <= slop && fits(token, index, text)
            });
            match near {
                Some(token) => spans.push((token.start, token.end)),
                None => break,
            }
        }
        if spans.len() == terms.len() {
            found.extend(spans);
        }
    }
}

/// Overlapping spans become one, as bigrams of one word do.
fn join(found: BTreeSet<Span>) -> Vec<Span> {
    let mut out: Vec<Span> = Vec::new();
    for (start, end) in found {
        match out.last_mut() {
            Some(last) if start < last.1 => last.1 = last.1.max(end),
            _ => out.push((start, end)),
        }
    }
    out
}

/// Fragments with the number of matches in each.
fn cut(spec: &HighlightField, text: &str, spans: &[Span]) -> Vec<(usize, String)> {
    if spec.number_of_fragments == 0 {
        return vec![(spans.len(), marked(spec, text, 0, text.len(), spans))];
    }
    let sentences: Vec<usize> =
        text.split_sentence_bound_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let mut out = Vec::new();
    let mut next = 0;
    let mut covered = 0;
    while let Some((first, _)) = spans.get(next) {
        let (start, end) = window(text, &sentences, *first, spec.fragment_size, covered);
        let inside: Vec<Span> =
            spans.iter().skip(next).take_while(|(at, _)| *at < end).copied().collect();
        let end = inside.last().map_or(end, |(_, last)| end.max(*last));
        let fragment = marked(spec, text, start, end, &inside);
        out.push((inside.len(), fragment.trim_matches(['\n', '\r', ' ']).to_owned()));
        next += inside.len().max(1);
        covered = end;
    }
    out
}

/// Whole sentences around a match up to a size in characters, or words of a long sentence.
fn window(
    text: &str,
    sentences: &[usize],
    at: usize,
    size: usize,
    covered: usize,
) -> (usize, usize) {
    let size = size.max(1);
    let length = |from: usize, to: usize| text.get(from..to).map_or(0, |t| t.chars().count());
    let mut start = sentences.iter().rev().find(|s| **s <= at).copied().unwrap_or(0).max(covered);
    if length(start, at) > size / 2 && length(start, text.len()) > size {
        let words = text.get(start..at).unwrap_or("").split_word_bound_indices();
        let near = words.map(|(w, _)| start + w).find(|w| length(*w, at) <= size / 2);
        start = near.unwrap_or(at);
    }
    let whole =
        sentences.iter().filter(|end| **end > at && length(start, **end) <= size).max().copied();
    let end = whole.unwrap_or_else(|| {
        let words = text.get(start..).unwrap_or("").split_word_bound_indices();
        let ends = words.map(|(w, word)| start + w + word.len());
        ends.take_while(|end| length(start, *end) <= size).last().unwrap_or(text.len())
    });
    (start, end.max(at + 1).min(text.len()))
}

fn marked(spec: &HighlightField, text: &str, start: usize, end: usize, spans: &[Span]) -> String {
    let mut out = String::new();
    let mut at = start;
    let put = |out: &mut String, from: usize, to: usize| {
        let piece = text.get(from..to).unwrap_or("");
        if spec.html { out.push_str(&escape(piece)) } else { out.push_str(piece) }
    };
    for (from, to) in spans {
        put(&mut out, at, *from);
        out.push_str(&spec.pre_tag);
        put(&mut out, *from, *to);
        out.push_str(&spec.post_tag);
        at = *to;
    }
    put(&mut out, at, end);
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#x27;")
        .replace('/', "&#x2F;")
}

//! Analyzers by name: built in and defined by the settings of an index.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::filters::{CJK, ENGLISH};
use super::{Analyzer, Filter, Tokenizer};
use crate::error::{EsError, Result};

/// The analyzers and normalizers of one index.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Analysis {
    analyzers: BTreeMap<String, Analyzer>,
    normalizers: BTreeMap<String, Analyzer>,
}

impl Analysis {
    /// Reads the `analysis` part of index settings, nested or with dotted keys.
    pub fn new(settings: &Value) -> Result<Self> {
        let settings = nest(settings);
        let empty = Value::Object(Map::new());
        let analysis = settings
            .pointer("/index/analysis")
            .or_else(|| settings.pointer("/analysis"))
            .unwrap_or(&empty);
        let parts = Parts { analysis };
        let mut this = Self::default();
        for (name, spec) in parts.section("analyzer") {
            this.analyzers.insert(name.clone(), parts.analyzer(name, spec)?);
        }
        for (name, spec) in parts.section("normalizer") {
            let filters = parts.filters(name, spec)?;
            if let Some(bad) = filters.iter().find(|filter| !filter.is_normalizing()) {
                return Err(EsError::illegal(format!(
                    "Custom normalizer [{name}] may not use filter [{bad:?}]"
                )));
            }
            let analyzer = Analyzer { name: name.clone(), tokenizer: Tokenizer::Keyword, filters };
            this.normalizers.insert(name.clone(), analyzer);
        }
        Ok(this)
    }

    /// The analyzer of that name.
    pub fn analyzer(&self, name: &str) -> Option<Analyzer> {
        self.analyzers.get(name).cloned().or_else(|| built_in(name))
    }

    /// The normalizer of that name.
    pub fn normalizer(&self, name: &str) -> Option<Analyzer> {
        if name == "lowercase" {
            let filters = vec![Filter::Lowercase];
            let tokenizer = Tokenizer::Keyword;
            return Some(Analyzer { name: name.to_owned(), tokenizer, filters });
        }
        self.normalizers.get(name).cloned()
    }

    /// An analyzer made of a tokenizer and filters named in an `_analyze` request.
    pub fn custom(&self, spec: &Value) -> Result<Analyzer> {
        let empty = Value::Object(Map::new());
        Parts { analysis: &empty }.analyzer("__custom__", spec)
    }
}

/// Turns dotted keys into nested objects.
pub fn nest(settings: &Value) -> Value {
    let Value::Object(object) = settings else { return settings.clone() };
    let mut out = Map::new();
    for (key, value) in object {
        insert_path(&mut out, key, nest(value));
    }
    Value::Object(out)
}

fn insert_path(into: &mut Map<String, Value>, key: &str, value: Value) {
    if let Some((head, rest)) = key.split_once('.') {
        let next = into.entry(head).or_insert_with(|| Value::Object(Map::new()));
        if !next.is_object() {
            *next = Value::Object(Map::new());
        }
        if let Value::Object(inner) = next {
            insert_path(inner, rest, value);
        }
        return;
    }
    match (into.get_mut(key), value) {
        (Some(Value::Object(there)), Value::Object(more)) => {
            for (key, value) in more {
                insert_path(there, &key, value);
            }
        }
        (_, value) => {
            into.insert(key.to_owned(), value);
        }
    }
}

fn built_in(name: &str) -> Option<Analyzer> {
    let standard = Tokenizer::standard;
    let (tokenizer, filters) = match name {
        "standard" | "default" => (standard(), vec![Filter::Lowercase]),
        "simple" => (Tokenizer::Lowercase, vec![]),
        "whitespace" => (Tokenizer::Whitespace, vec![]),
        "keyword" => (Tokenizer::Keyword, vec![]),
        "stop" => (Tokenizer::Lowercase, vec![Filter::stop(ENGLISH)]),
        "english" => (
            standard(),
            vec![
                Filter::EnglishPossessive,
                Filter::Lowercase,
                Filter::stop(ENGLISH),
                Filter::EnglishStem,
            ],
        ),
        "cjk" => (
            standard(),
            vec![
                Filter::CjkWidth,
                Filter::Lowercase,
                Filter::CjkBigram { unigrams: false },
                Filter::stop(CJK),
            ],
        ),
        _ => return None,
    };
    Some(Analyzer { name: name.to_owned(), tokenizer, filters })
}

/// The `analysis` object while it is read.
struct Parts<'a> {
    analysis: &'a Value,
}

impl<'a> Parts<'a> {
    fn section(&self, name: &str) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
        self.analysis.get(name).and_then(Value::as_object).into_iter().flatten()
    }

    fn analyzer(&self, name: &str, spec: &Value) -> Result<Analyzer> {
        let kind = text(spec, "type").unwrap_or("custom");
        if spec.get("char_filter").is_some_and(|list| list.as_array().is_none_or(|l| !l.is_empty()))
        {
            return Err(EsError::unsupported(format!("char_filter of analyzer [{name}]")));
        }
        if kind != "custom" {
            let mut analyzer = built_in(kind).ok_or_else(|| {
                EsError::illegal(format!("Unknown analyzer type [{kind}] for [{name}]"))
            })?;
            name.clone_into(&mut analyzer.name);
            if let Some(words) = spec.get("stopwords") {
                analyzer.filters.retain(|filter| !matches!(filter, Filter::Stop { .. }));
                analyzer.filters.push(stop_filter(words, false)?);
            }
            return Ok(analyzer);
        }
        let Some(tokenizer) = spec.get("tokenizer") else {
            return Err(EsError::illegal(format!(
                "analyzer [{name}] must specify either an analyzer type, or a tokenizer"
            )));
        };
        let tokenizer = self.tokenizer(name, tokenizer)?;
        Ok(Analyzer { name: name.to_owned(), tokenizer, filters: self.filters(name, spec)? })
    }

    fn tokenizer(&self, owner: &str, named: &Value) -> Result<Tokenizer> {
        let (kind, spec) = match named {
            Value::String(name) => match self.section("tokenizer").find(|(n, _)| *n == name) {
                Some((_, spec)) => (text(spec, "type").unwrap_or(name), spec),
                None => (name.as_str(), named),
            },
            spec => (text(spec, "type").unwrap_or(""), spec),
        };
        let size = |key: &str, default: usize| number(spec, key).unwrap_or(default);
        Ok(match kind {
            "standard" => Tokenizer::Standard { max_length: size("max_token_length", 255) },
            "keyword" => Tokenizer::Keyword,
            "whitespace" => Tokenizer::Whitespace,
            "letter" => Tokenizer::Letter,
            "lowercase" => Tokenizer::Lowercase,
            "ngram" | "nGram" | "edge_ngram" | "edgeNGram" => {
                let edge = kind.starts_with("edge");
                let (min, max) = (size("min_gram", 1), size("max_gram", 2).min(64));
                Tokenizer::Ngram { min: min.max(1), max, edge }
            }
            "pattern" => {
                let pattern = text(spec, "pattern").unwrap_or("\\W+");
                let regex = regex::RegexBuilder::new(pattern).size_limit(1 << 20).build();
                Tokenizer::Pattern(regex.map_err(|e| EsError::illegal(e.to_string()))?)
            }
            other => {
                return Err(EsError::illegal(format!(
                    "Custom Analyzer [{owner}] failed to find tokenizer under name [{other}]"
                )));
            }
        })
    }

    fn filters(&self, owner: &str, spec: &Value) -> Result<Vec<Filter>> {
        let list = match spec.get("filter") {
            None => Vec::new(),
            Some(Value::Array(list)) => list.clone(),
            Some(one) => vec![one.clone()],
        };
        let mut filters = Vec::new();
        for named in &list {
            if let Some(filter) = self.filter(owner, named)? {
                filters.push(filter);
            }
        }
        Ok(filters)
    }

    fn filter(&self, owner: &str, named: &Value) -> Result<Option<Filter>> {
        let (kind, spec) = match named {
            Value::String(name) => match self.section("filter").find(|(n, _)| *n == name) {
                Some((_, spec)) => (text(spec, "type").unwrap_or(name), spec),
                None => (name.as_str(), named),
            },
            spec => (text(spec, "type").unwrap_or(""), spec),
        };
        let size = |key: &str, default: usize| number(spec, key).unwrap_or(default);
        Ok(Some(match kind {
            "lowercase" => Filter::Lowercase,
            "uppercase" => Filter::Uppercase,
            "asciifolding" => Filter::AsciiFolding,
            "stop" => {
                let ignore_case = flag(spec, "ignore_case");
                match spec.get("stopwords") {
                    Some(words) => stop_filter(words, ignore_case)?,
                    None => Filter::stop(ENGLISH),
                }
            }
            "porter_stem" | "kstem" | "snowball" | "stemmer" => self.stemmer(spec)?,
            "cjk_width" => Filter::CjkWidth,
            "cjk_bigram" => Filter::CjkBigram { unigrams: flag(spec, "output_unigrams") },
            "trim" => Filter::Trim,
            "unique" => Filter::Unique,
            "reverse" => Filter::Reverse,
            "truncate" => Filter::Truncate(size("length", 10)),
            "length" => Filter::Length { min: size("min", 0), max: size("max", usize::MAX) },
            "ngram" | "nGram" | "edge_ngram" | "edgeNGram" => {
                let (min, max) = (size("min_gram", 1), size("max_gram", 2).min(64));
                Filter::Ngram { min: min.max(1), max, edge: kind.starts_with("edge") }
            }
            "standard" => return Ok(None),
            other => {
                return Err(EsError::illegal(format!(
                    "Custom Analyzer [{owner}] failed to find filter under name [{other}]"
                )));
            }
        }))
    }

    fn stemmer(&self, spec: &Value) -> Result<Filter> {
        let language = text(spec, "language").or_else(|| text(spec, "name")).unwrap_or("english");
        match language.to_ascii_lowercase().as_str() {
            "english" | "porter" | "porter2" | "light_english" => Ok(Filter::EnglishStem),
            "possessive_english" => Ok(Filter::EnglishPossessive),
            _ => Err(EsError::unsupported(format!("stemmer for language [{language}]"))),
        }
    }
}

fn stop_filter(words: &Value, ignore_case: bool) -> Result<Filter> {
    let named = |name: &str| match name {
        "_english_" => Ok(Filter::stop(ENGLISH)),
        "_none_" => Ok(Filter::stop(&[])),
        name if name.starts_with('_') => Err(EsError::unsupported(format!("stopwords [{name}]"))),
        name => {
            let words = name.split(',').map(|word| word.trim().to_owned()).collect();
            Ok(Filter::Stop { words, ignore_case })
        }
    };
    match words {
        Value::String(name) => named(name),
        Value::Array(list) if list.len() == 1 => {
            named(list.first().and_then(Value::as_str).unwrap_or(""))
        }
        Value::Array(list) => {
            let words = list.iter().filter_map(Value::as_str).map(str::to_owned).collect();
            Ok(Filter::Stop { words, ignore_case })
        }
        _ => Err(EsError::illegal("stopwords must be a list of words")),
    }
}

fn text<'a>(spec: &'a Value, key: &str) -> Option<&'a str> {
    spec.get(key).and_then(Value::as_str)
}

fn number(spec: &Value, key: &str) -> Option<usize> {
    match spec.get(key)? {
        Value::Number(number) => usize::try_from(number.as_u64()?).ok(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn flag(spec: &Value, key: &str) -> bool {
    matches!(spec.get(key), Some(Value::Bool(true)))
        || matches!(spec.get(key), Some(Value::String(text)) if text == "true")
}

//! Token filters.

use std::collections::BTreeSet;

use tantivy::tokenizer::{
    AsciiFoldingFilter, Language, RawTokenizer, Stemmer, TextAnalyzer, TokenStream,
};
use unicode_normalization::UnicodeNormalization;

use super::Token;
use super::tokenize::{is_han, is_hangul};

/// What happens to tokens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Filter {
    Lowercase,
    Uppercase,
    AsciiFolding,
    /// Removes words; the gap in positions stays.
    Stop {
        words: BTreeSet<String>,
        ignore_case: bool,
    },
    /// English stemming.
    EnglishStem,
    /// Removes `'s`.
    EnglishPossessive,
    /// Full-width Latin to ASCII, half-width Katakana to full width.
    CjkWidth,
    /// Bigrams of Han, Kana and Hangul.
    CjkBigram {
        unigrams: bool,
    },
    Trim,
    Unique,
    Reverse,
    Truncate(usize),
    Length {
        min: usize,
        max: usize,
    },
    Ngram {
        min: usize,
        max: usize,
        edge: bool,
    },
}

/// Lucene's English stop words.
pub(crate) const ENGLISH: &[&str] = &[
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it",
    "no", "not", "of", "on", "or", "such", "that", "the", "their", "then", "there", "these",
    "they", "this", "to", "was", "will", "with",
];

/// Stop words of Lucene's CJK analyzer.
pub(crate) const CJK: &[&str] = &[
    "a", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it", "no",
    "not", "of", "on", "or", "s", "such", "t", "that", "the", "their", "then", "there", "these",
    "they", "this", "to", "was", "will", "with", "www",
];

impl Filter {
    pub(crate) fn stop(words: &[&str]) -> Self {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        Self::Stop { words, ignore_case: false }
    }

    /// Whether the filter may be part of a normalizer: one token in, one token out.
    pub(crate) fn is_normalizing(&self) -> bool {
        matches!(
            self,
            Self::Lowercase | Self::Uppercase | Self::AsciiFolding | Self::CjkWidth | Self::Trim
        )
    }

    pub(crate) fn apply(&self, mut tokens: Vec<Token>) -> Vec<Token> {
        match self {
            Self::Lowercase => map(&mut tokens, lowercase),
            Self::Uppercase => map(&mut tokens, str::to_uppercase),
            Self::AsciiFolding => map(&mut tokens, |text| {
                if text.is_ascii() { text.to_owned() } else { through(text, Step::Fold) }
            }),
            Self::Stop { words, ignore_case } => {
                tokens.retain(|token| !is_stop(words, *ignore_case, &token.text));
            }
            Self::EnglishStem => map(&mut tokens, |text| through(text, Step::Stem)),
            Self::EnglishPossessive => map(&mut tokens, |text| {
                let cut = ["'s", "’s", "'S", "’S"].iter().find_map(|end| text.strip_suffix(end));
                cut.unwrap_or(text).to_owned()
            }),
            Self::CjkWidth => map(&mut tokens, width),
            Self::CjkBigram { unigrams } => return bigrams(&tokens, *unigrams),
            Self::Trim => map(&mut tokens, |text| text.trim().to_owned()),
            Self::Unique => {
                let mut seen = BTreeSet::new();
                tokens.retain(|token| seen.insert(token.text.clone()));
            }
            Self::Reverse => map(&mut tokens, |text| text.chars().rev().collect()),
            Self::Truncate(length) => {
                map(&mut tokens, |text| text.chars().take(*length).collect());
            }
            Self::Length { min, max } => {
                tokens.retain(|token| (*min..=*max).contains(&token.text.chars().count()));
            }
            Self::Ngram { min, max, edge } => return grams(&tokens, *min, *max, *edge),
        }
        tokens
    }
}

fn map(tokens: &mut [Token], change: impl Fn(&str) -> String) {
    for token in tokens {
        token.text = change(&token.text);
    }
}

fn lowercase(text: &str) -> String {
    // Java lowers each character by itself; the final sigma has no special form there.
    text.chars().flat_map(char::to_lowercase).collect()
}

fn is_stop(words: &BTreeSet<String>, ignore_case: bool, text: &str) -> bool {
    words.contains(text) || (ignore_case && words.contains(&lowercase(text)))
}

enum Step {
    Fold,
    Stem,
}

fn through(text: &str, step: Step) -> String {
    let raw = TextAnalyzer::builder(RawTokenizer::default());
    let mut analyzer = match step {
        Step::Fold => raw.filter(AsciiFoldingFilter).build(),
        Step::Stem => raw.filter(Stemmer::new(Language::English)).build(),
    };
    let mut stream = analyzer.token_stream(text);
    if stream.advance() { stream.token().text.clone() } else { String::new() }
}

fn width(text: &str) -> String {
    if !text.chars().any(|c| ('\u{FF00}'..='\u{FFEF}').contains(&c)) {
        return text.to_owned();
    }
    text.nfkc().collect()
}

fn is_cjk_kind(kind: &str) -> bool {
    matches!(kind, "<IDEOGRAPHIC>" | "<HIRAGANA>" | "<KATAKANA>" | "<HANGUL>")
}

fn is_cjk(c: char) -> bool {
    is_han(c) || is_hangul(c) || matches!(c, '\u{3040}'..='\u{30FF}' | '\u{31F0}'..='\u{31FF}')
}

/// Characters of one unbroken run with their byte ranges.
type Run = Vec<(char, usize, usize)>;

fn bigrams(tokens: &[Token], unigrams: bool) -> Vec<Token> {
    let mut out = Vec::new();
    let mut run: Run = Vec::new();
    let mut position = 0;
    for token in tokens {
        let cjk = is_cjk_kind(token.kind) && token.text.chars().all(is_cjk);
        if !cjk || run.last().is_some_and(|(_, _, end)| *end != token.start) {
            flush(&mut run, unigrams, &mut position, &mut out);
        }
        if cjk {
            extend(&mut run, token);
        } else {
            out.push(Token { position, ..token.clone() });
            position += 1;
        }
    }
    flush(&mut run, unigrams, &mut position, &mut out);
    out
}

fn extend(run: &mut Run, token: &Token) {
    // A width filter before may have changed lengths; then all characters share the token's range.
    let exact = token.end - token.start == token.text.len();
    let mut at = token.start;
    for c in token.text.chars() {
        let end = if exact { at + c.len_utf8() } else { token.end };
        run.push((c, at, end));
        if exact {
            at = end;
        }
    }
}

fn flush(run: &mut Run, unigrams: bool, position: &mut u32, out: &mut Vec<Token>) {
    let single = run.len() == 1;
    for (index, (first, start, end)) in run.iter().enumerate() {
        if single || unigrams {
            let kind = "<SINGLE>";
            let (start, end, position) = (*start, *end, *position);
            out.push(Token { text: first.to_string(), start, end, position, kind });
        }
        if let Some((second, _, end)) = run.get(index + 1) {
            let text: String = [*first, *second].iter().collect();
            let (start, end, position) = (*start, *end, *position);
            out.push(Token { text, start, end, position, kind: "<DOUBLE>" });
        } else if !single && !unigrams {
            break;
        }
        *position += 1;
    }
    run.clear();
}

fn grams(tokens: &[Token], min: usize, max: usize, edge: bool) -> Vec<Token> {
    let mut out = Vec::new();
    for token in tokens {
        let chars: Vec<char> = token.text.chars().collect();
        let starts = if edge { 1 } else { chars.len() };
        for from in 0..starts {
            for length in min..=max {
                let Some(part) = chars.get(from..from + length) else { break };
                out.push(Token { text: part.iter().collect(), ..token.clone() });
            }
        }
    }
    out
}

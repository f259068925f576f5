//! Tokenizers.

use regex::Regex;
use unicode_segmentation::UnicodeSegmentation;

use super::Token;

/// How text is cut.
#[derive(Clone, Debug)]
pub(crate) enum Tokenizer {
    /// UAX#29 word boundaries.
    Standard { max_length: usize },
    /// The whole text is one token.
    Keyword,
    /// Runs between white space.
    Whitespace,
    /// Runs of letters.
    Letter,
    /// Runs of letters in lower case.
    Lowercase,
    /// All substrings of the given lengths; `edge` only those at the start.
    Ngram { min: usize, max: usize, edge: bool },
    /// What lies between matches.
    Pattern(Regex),
}

impl PartialEq for Tokenizer {
    fn eq(&self, other: &Self) -> bool {
        format!("{self:?}") == format!("{other:?}")
    }
}

impl Tokenizer {
    pub(crate) fn standard() -> Self {
        Self::Standard { max_length: 255 }
    }

    pub(crate) fn tokens(&self, text: &str) -> Vec<Token> {
        match self {
            Self::Standard { max_length } => standard(text, *max_length),
            Self::Keyword => vec![token(text, 0, 0, "word")],
            Self::Whitespace => runs(text, |c| !c.is_whitespace()),
            Self::Letter => runs(text, char::is_alphabetic),
            Self::Lowercase => {
                let mut tokens = runs(text, char::is_alphabetic);
                tokens.iter_mut().for_each(|token| token.text = token.text.to_lowercase());
                tokens
            }
            Self::Ngram { min, max, edge } => ngrams(text, *min, *max, *edge),
            Self::Pattern(regex) => pattern(text, regex),
        }
    }
}

fn token(text: &str, start: usize, position: usize, kind: &'static str) -> Token {
    let position = u32::try_from(position).unwrap_or(u32::MAX);
    Token { text: text.to_owned(), start, end: start + text.len(), position, kind }
}

fn runs(text: &str, inside: impl Fn(char) -> bool) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut from = None;
    for (at, c) in text.char_indices().chain([(text.len(), '\u{0}')]) {
        let within = at < text.len() && inside(c);
        match (from, within) {
            (None, true) => from = Some(at),
            (Some(start), false) => {
                let word = text.get(start..at).unwrap_or("");
                tokens.push(token(word, start, tokens.len(), "word"));
                from = None;
            }
            _ => {}
        }
    }
    tokens
}

fn standard(text: &str, max_length: usize) -> Vec<Token> {
    let mut tokens: Vec<Token> = Vec::new();
    for (start, word) in text.split_word_bound_indices() {
        let Some(kind) = kind_of(word) else { continue };
        // Thai, Lao and Khmer have no boundaries in UAX#29; Lucene keeps their runs together.
        if kind == "<SOUTHEAST_ASIAN>"
            && let Some(last) = tokens.last_mut()
            && last.kind == kind
            && last.end == start
        {
            last.text.push_str(word);
            last.end += word.len();
            continue;
        }
        if word.len() <= max_length || word.chars().count() <= max_length {
            tokens.push(token(word, start, tokens.len(), kind));
            continue;
        }
        // Lucene cuts an overlong token into pieces.
        let mut at = start;
        let chars: Vec<char> = word.chars().collect();
        for piece in chars.chunks(max_length.max(1)) {
            let piece: String = piece.iter().collect();
            tokens.push(token(&piece, at, tokens.len(), kind));
            at += piece.len();
        }
    }
    tokens
}

/// Type of a piece between word boundaries; `None` for spaces and punctuation.
fn kind_of(word: &str) -> Option<&'static str> {
    let mut number = false;
    for c in word.chars() {
        if is_hangul(c) {
            return Some("<HANGUL>");
        }
        if is_han(c) {
            return Some("<IDEOGRAPHIC>");
        }
        match c {
            '\u{3040}'..='\u{309F}' => return Some("<HIRAGANA>"),
            '\u{30A0}'..='\u{30FA}' | '\u{30FC}'..='\u{30FF}' | '\u{31F0}'..='\u{31FF}' => {
                return Some("<KATAKANA>");
            }
            '\u{FF66}'..='\u{FF9F}' => return Some("<KATAKANA>"),
            '\u{0E00}'..='\u{0EFF}' | '\u{1780}'..='\u{17FF}' | '\u{1000}'..='\u{109F}'
                if c.is_alphanumeric() =>
            {
                return Some("<SOUTHEAST_ASIAN>");
            }
            c if c.is_alphabetic() => return Some("<ALPHANUM>"),
            c if c.is_numeric() => number = true,
            '\u{1F300}'..='\u{1FAFF}' | '\u{2600}'..='\u{27BF}' => return Some("<EMOJI>"),
            _ => {}
        }
    }
    number.then_some("<NUM>")
}

/// Hangul syllables and jamo.
pub(crate) fn is_hangul(c: char) -> bool {
    matches!(c, '\u{AC00}'..='\u{D7AF}' | '\u{1100}'..='\u{11FF}' | '\u{3130}'..='\u{318F}'
        | '\u{A960}'..='\u{A97F}' | '\u{D7B0}'..='\u{D7FF}' | '\u{FFA0}'..='\u{FFDC}')
}

/// Chinese characters.
pub(crate) fn is_han(c: char) -> bool {
    matches!(c, '\u{2E80}'..='\u{2FDF}' | '\u{3005}' | '\u{3007}' | '\u{3021}'..='\u{3029}'
        | '\u{3400}'..='\u{4DBF}' | '\u{4E00}'..='\u{9FFF}' | '\u{F900}'..='\u{FAFF}'
        | '\u{20000}'..='\u{3FFFF}')
}

fn ngrams(text: &str, min: usize, max: usize, edge: bool) -> Vec<Token> {
    let ends: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let mut tokens = Vec::new();
    let starts = if edge { 1 } else { ends.len() };
    for from in 0..starts {
        for length in min..=max {
            let (Some(&start), Some(&end)) = (ends.get(from), ends.get(from + length)) else {
                break;
            };
            let gram = text.get(start..end).unwrap_or("");
            tokens.push(token(gram, start, tokens.len(), "word"));
        }
    }
    tokens
}

fn pattern(text: &str, regex: &Regex) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut from = 0;
    for (start, end) in
        regex.find_iter(text).map(|m| (m.start(), m.end())).chain([(text.len(), text.len())])
    {
        if let Some(word) = text.get(from..start)
            && !word.is_empty()
        {
            tokens.push(token(word, from, tokens.len(), "word"));
        }
        from = end;
    }
    tokens
}

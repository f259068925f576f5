//! Cutting Lucene syntax into lexemes.

use crate::error::Result;

use super::syntax;

/// A piece of Lucene syntax.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Lexeme {
    And,
    Or,
    Not,
    Plus,
    Minus,
    Open,
    Close,
    /// `name:`
    Field(String),
    Word(Word),
    Phrase(String),
    Regex(String),
    Range {
        lower: Option<(String, bool)>,
        upper: Option<(String, bool)>,
    },
    /// `~` with its number.
    Tilde(Option<f32>),
    Boost(f32),
}

/// A bare term: characters and whether each was escaped.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Word(pub(super) Vec<(char, bool)>);

impl Word {
    pub(super) fn plain(&self) -> String {
        self.0.iter().map(|(c, _)| *c).collect()
    }

    pub(super) fn is_star(&self) -> bool {
        matches!(self.0.as_slice(), [('*', false)])
    }

    pub(super) fn has_wildcard(&self) -> bool {
        self.0.iter().any(|(c, escaped)| !escaped && matches!(c, '*' | '?'))
    }

    pub(super) fn starts_with_wildcard(&self) -> bool {
        matches!(self.0.first(), Some(('*' | '?', false)))
    }

    /// The text before a single star at the end.
    pub(super) fn prefix(&self) -> Option<String> {
        let (last, head) = self.0.split_last()?;
        let head = Self(head.to_vec());
        (*last == ('*', false) && !head.has_wildcard()).then(|| head.plain())
    }

    /// As a wildcard pattern with escapes.
    pub(super) fn pattern(&self) -> String {
        let mut out = String::new();
        for (c, escaped) in &self.0 {
            if *escaped && matches!(c, '*' | '?' | '\\') {
                out.push('\\');
            }
            out.push(*c);
        }
        out
    }

    /// `>5`, `>=5`, `<5`, `<=5`.
    #[expect(clippy::type_complexity, reason = "two optional bounds")]
    pub(super) fn comparison(&self) -> Option<(Option<(String, bool)>, Option<(String, bool)>)> {
        let (sign, rest) = match self.0.as_slice() {
            [('>' | '<', true), ..] => return None,
            [(sign @ ('>' | '<'), false), rest @ ..] if !rest.is_empty() => (*sign, rest),
            _ => return None,
        };
        let (included, rest) = match rest {
            [('=', false), rest @ ..] if !rest.is_empty() => (true, rest),
            rest => (false, rest),
        };
        let bound = Some((rest.iter().map(|(c, _)| *c).collect(), included));
        Some(if sign == '>' { (bound, None) } else { (None, bound) })
    }
}

pub(super) struct Lexer {
    chars: Vec<char>,
    at: usize,
    out: Vec<Lexeme>,
}

impl Lexer {
    pub(super) fn new(text: &str) -> Self {
        Self { chars: text.chars().collect(), at: 0, out: Vec::new() }
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next_is(&self, ahead: usize, c: char) -> bool {
        self.chars.get(self.at + ahead) == Some(&c)
    }

    pub(super) fn run(mut self) -> Result<Vec<Lexeme>> {
        while let Some(c) = self.peek() {
            match c {
                c if c.is_whitespace() => self.at += 1,
                '(' => self.single(Lexeme::Open),
                ')' => self.single(Lexeme::Close),
                '+' => self.single(Lexeme::Plus),
                '-' => self.single(Lexeme::Minus),
                '!' => self.single(Lexeme::Not),
                '&' if self.next_is(1, '&') => self.double(Lexeme::And),
                '|' if self.next_is(1, '|') => self.double(Lexeme::Or),
                '"' => self.phrase()?,
                '/' => self.regex()?,
                '[' | '{' => self.range()?,
                '~' => {
                    self.at += 1;
                    let number = self.number();
                    self.out.push(Lexeme::Tilde(number));
                }
                '^' => {
                    self.at += 1;
                    let boost = self.number().ok_or_else(|| syntax("boost without a number"))?;
                    self.out.push(Lexeme::Boost(boost));
                }
                _ => self.word()?,
            }
        }
        Ok(self.out)
    }

    fn single(&mut self, lexeme: Lexeme) {
        self.at += 1;
        self.out.push(lexeme);
    }

    fn double(&mut self, lexeme: Lexeme) {
        self.at += 2;
        self.out.push(lexeme);
    }

    fn number(&mut self) -> Option<f32> {
        let mut text = String::new();
        while let Some(c) = self.peek().filter(|c| c.is_ascii_digit() || *c == '.') {
            text.push(c);
            self.at += 1;
        }
        text.parse().ok()
    }

    /// Text up to an unescaped end character.
    fn until(&mut self, end: char, keep_escapes: bool) -> Option<String> {
        let mut text = String::new();
        while let Some(c) = self.peek() {
            self.at += 1;
            if c == end {
                return Some(text);
            }
            if c == '\\' {
                if keep_escapes {
                    text.push(c);
                }
                text.push(self.peek()?);
                self.at += 1;
            } else {
                text.push(c);
            }
        }
        None
    }

    fn phrase(&mut self) -> Result<()> {
        self.at += 1;
        let text = self.until('"', false).ok_or_else(|| syntax("unbalanced quotes"))?;
        self.out.push(Lexeme::Phrase(text));
        Ok(())
    }

    fn regex(&mut self) -> Result<()> {
        self.at += 1;
        let text = self.until('/', true).ok_or_else(|| syntax("unbalanced slash"))?;
        self.out.push(Lexeme::Regex(text.replace("\\/", "/")));
        Ok(())
    }

    fn range(&mut self) -> Result<()> {
        let open = self.peek() == Some('[');
        self.at += 1;
        let mut parts: Vec<String> = Vec::new();
        loop {
            while self.peek().is_some_and(char::is_whitespace) {
                self.at += 1;
            }
            let c = self.peek().ok_or_else(|| syntax("range without end"))?;
            if matches!(c, ']' | '}') {
                self.at += 1;
                let (Some(low), Some(high)) = (parts.first(), parts.last()) else {
                    return Err(syntax("range without bounds"));
                };
                if parts.len() != 3 || parts.get(1).map(String::as_str) != Some("TO") {
                    return Err(syntax("range must be [a TO b]"));
                }
                let bound =
                    |text: &String, included: bool| (text != "*").then(|| (text.clone(), included));
                let (lower, upper) = (bound(low, open), bound(high, c == ']'));
                self.out.push(Lexeme::Range { lower, upper });
                return Ok(());
            }
            if c == '"' {
                self.at += 1;
                parts.push(self.until('"', false).ok_or_else(|| syntax("unbalanced quotes"))?);
                continue;
            }
            let mut text = String::new();
            while let Some(c) = self.peek().filter(|c| !c.is_whitespace() && !"]}".contains(*c)) {
                self.at += 1;
                let escaped = if c == '\\' { self.peek() } else { None };
                self.at += usize::from(escaped.is_some());
                text.push(escaped.unwrap_or(c));
            }
            parts.push(text);
        }
    }

    fn word(&mut self) -> Result<()> {
        let mut word = Vec::new();
        while let Some(c) = self.peek() {
            if c == ':' && !word.is_empty() {
                self.at += 1;
                self.out.push(Lexeme::Field(Word(word).plain()));
                return Ok(());
            }
            if c.is_whitespace() || "()\"^~[]{}:".contains(c) {
                break;
            }
            self.at += 1;
            if c == '\\' {
                let Some(escaped) = self.peek() else { break };
                self.at += 1;
                word.push((escaped, true));
            } else {
                word.push((c, false));
            }
        }
        if word.is_empty() {
            return Err(syntax("unexpected character"));
        }
        let bare = word.iter().all(|(_, escaped)| !escaped);
        let word = Word(word);
        self.out.push(match word.plain().as_str() {
            "AND" if bare => Lexeme::And,
            "OR" if bare => Lexeme::Or,
            "NOT" if bare => Lexeme::Not,
            _ => Lexeme::Word(word),
        });
        Ok(())
    }
}

//! `simple_query_string`: `+ | - " * ( ) ~N`; what makes no sense is text.

use super::lexer::Word;
use super::{Leaf, Occur, combine};
use crate::error::Result;
use crate::limits;
use crate::mapping::IndexSchema;
use crate::query::{Operator, Query, QueryKind, QueryStringOptions};

/// Parses a `simple_query_string`; only conflicts with the mapping can fail.
pub(in crate::query) fn parse_simple(
    text: &str,
    options: &QueryStringOptions,
    schema: &IndexSchema,
) -> Result<Query> {
    let lenient = options.options.lenient || options.fields.is_empty();
    let leaf = Leaf { options, schema, lenient };
    let mut parser = Simple { chars: text.chars().collect(), at: 0, leaf };
    let query = parser.group(0)?;
    Ok(query.unwrap_or_else(|| Query::new(QueryKind::MatchNone)))
}

struct Simple<'a> {
    chars: Vec<char>,
    at: usize,
    leaf: Leaf<'a>,
}

impl Simple<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn group(&mut self, depth: usize) -> Result<Option<Query>> {
        let default =
            if self.leaf.options.operator == Operator::And { Occur::Must } else { Occur::Should };
        let mut clauses: Vec<(Occur, Query)> = Vec::new();
        let mut next = None;
        let mut not = false;
        while let Some(c) = self.peek() {
            match c {
                ')' if depth > 0 => break,
                '+' | '|' => {
                    let occur = if c == '+' { Occur::Must } else { Occur::Should };
                    if let Some((last, _)) = clauses.last_mut()
                        && *last != Occur::MustNot
                    {
                        *last = occur;
                    }
                    next = Some(occur);
                    self.at += 1;
                }
                '-' => {
                    not = !not;
                    self.at += 1;
                }
                c if c.is_whitespace() || c == ')' => self.at += 1,
                _ => {
                    let query = self.clause(depth)?;
                    let occur = next.take().unwrap_or(default);
                    if let Some(query) = query
                        && clauses.len() < limits::MAX_CLAUSES
                    {
                        let negated = Query::new(QueryKind::Bool {
                            must: vec![],
                            should: vec![],
                            filter: vec![],
                            must_not: vec![query.clone()],
                            minimum: None,
                        });
                        clauses.push((occur, if not { negated } else { query }));
                    }
                    not = false;
                }
            }
        }
        if clauses.is_empty() {
            return Ok(None);
        }
        let minimum = if depth == 0 { self.leaf.options.options.minimum.clone() } else { None };
        Ok(Some(combine(clauses, minimum)))
    }

    fn clause(&mut self, depth: usize) -> Result<Option<Query>> {
        match self.peek() {
            Some('(') if depth < limits::MAX_DEPTH => {
                self.at += 1;
                let query = self.group(depth + 1)?;
                self.at += 1;
                Ok(query)
            }
            Some('"') => {
                self.at += 1;
                let text = self.take_while(|c| c != '"');
                let text: String = text.0.iter().map(|(c, _)| *c).collect();
                self.at += 1;
                let slop = self.tilde().flatten().map(|n| n as u32);
                self.leaf.phrase(None, &text, slop).map(Some)
            }
            Some('(') => {
                self.at += 1;
                Ok(None)
            }
            _ => {
                let word = self.take_while(|c| !c.is_whitespace() && !"()\"|+~".contains(c));
                let tilde = self.tilde();
                if word.0.is_empty() {
                    return Ok(None);
                }
                // Only a star at the end is an operator here.
                let word = Word(match word.prefix() {
                    Some(_) => word.0,
                    None => word.0.into_iter().map(|(c, _)| (c, true)).collect(),
                });
                self.leaf.word(None, &word, tilde).map(Some)
            }
        }
    }

    fn take_while(&mut self, inside: impl Fn(char) -> bool) -> Word {
        let mut word = Vec::new();
        while let Some(c) = self.peek().filter(|c| inside(*c)) {
            self.at += 1;
            match (c, self.peek()) {
                ('\\', Some(escaped)) => {
                    self.at += 1;
                    word.push((escaped, true));
                }
                _ => word.push((c, false)),
            }
        }
        Word(word)
    }

    #[expect(clippy::option_option, reason = "~ may stand without a number")]
    fn tilde(&mut self) -> Option<Option<f32>> {
        if self.peek() != Some('~') {
            return None;
        }
        self.at += 1;
        let digits = self.take_while(|c| c.is_ascii_digit()).plain();
        Some(digits.parse().ok())
    }
}

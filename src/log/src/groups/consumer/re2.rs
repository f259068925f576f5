//! Kafka's regular expressions are those of RE2/J. Rust's are nearly the same; what differs is
//! rewritten here.
//!
//! RE2 has `\Q…\E` and octal escapes, takes a brace that begins no repetition for itself, and
//! knows no set operations between brackets.

use std::iter::Peekable;
use std::str::Chars;

/// The expression in the words of the `regex` crate, which judges it and must allow octal escapes.
pub(super) fn rewritten(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\\' => escape(&mut rest, &mut out),
            '[' => class(&mut rest, &mut out),
            '{' if !repeats(&rest) => out.push_str(r"\{"),
            _ => out.push(c),
        }
    }
    out
}

/// What follows a backslash.
fn escape(rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    if rest.next_if_eq(&'Q').is_none() {
        out.push('\\');
        let escaped = rest.next();
        // The name of a property is no repetition.
        if let Some('p' | 'P' | 'x') = escaped
            && rest.peek() == Some(&'{')
        {
            out.extend(escaped);
            out.extend(std::iter::from_fn(|| rest.next_if(|c| *c != '}')));
        } else {
            out.extend(escaped);
        }
        return;
    }
    let mut quoted = String::new();
    while let Some(c) = rest.next() {
        if c == '\\' && rest.next_if_eq(&'E').is_some() {
            break;
        }
        quoted.push(c);
    }
    out.push_str(&regex::escape(&quoted));
}

/// What follows an opening bracket, up to the closing one.
fn class(rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    out.push('[');
    out.extend(rest.next_if_eq(&'^'));
    if rest.next_if_eq(&']').is_some() {
        out.push_str(r"\]");
    }
    while let Some(c) = rest.next() {
        match c {
            ']' => {
                out.push(c);
                return;
            }
            '\\' => escape(rest, out),
            '[' if rest.peek() == Some(&':') => {
                out.push('[');
                out.extend(std::iter::from_fn(|| rest.next_if(|c| *c != ']')));
                out.extend(rest.next());
            }
            '[' => out.push_str(r"\["),
            '&' | '~' => out.extend(['\\', c]),
            '-' if rest.peek() == Some(&'-') => out.push_str(r"\-"),
            _ => out.push(c),
        }
    }
}

/// Whether what follows an opening brace makes a repetition of it: `3}`, `3,}`, `3,5}`.
fn repeats(rest: &Peekable<Chars<'_>>) -> bool {
    let mut rest = rest.clone();
    let number = |rest: &mut Peekable<Chars<'_>>| {
        std::iter::from_fn(|| rest.next_if(char::is_ascii_digit)).count()
    };
    if number(&mut rest) == 0 {
        return false;
    }
    if rest.next_if_eq(&',').is_some() {
        number(&mut rest);
    }
    rest.next() == Some('}')
}

#[cfg(test)]
mod tests {
    use regex::RegexBuilder;

    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        let built = RegexBuilder::new(&format!(r"\A(?:{})\z", rewritten(pattern)));
        let mut built = built;
        built.octal(true).build().unwrap().is_match(text)
    }

    #[test]
    fn what_re2_takes_is_taken() {
        for (pattern, yes, no) in [
            (r"\Qa.b\E.*", "a.bc", "axbc"),
            (r"\Qa.b", "a.b", "axb"),
            (r"a{2}b{1,}c{0,2}", "aabbcc", "ab"),
            (r"a{", "a{", "a"),
            (r"a{,3}", "a{,3}", "aaa"),
            (r"\101x", "Ax", "1x"),
            (r"[a&&b]+", "a&b", "c"),
            (r"[a~~b]+", "~", "c"),
            (r"[]x]", "]", "["),
            (r"[^]x]", "a", "]"),
            (r"[[x]", "[", "]"),
            (r"[[:digit:]-]+", "1-2", "a"),
            (r"[a-c]", "b", "-"),
            (r"\p{Hangul}+", "주제", "a"),
            (r"(?i)topic-\d+", "TOPIC-7", "topic-"),
        ] {
            assert!(matches(pattern, yes) && !matches(pattern, no), "{pattern}");
        }
    }

    #[test]
    fn ordinary_expressions_stay_as_they_are() {
        for pattern in ["news-.*", "a|b", r"\w+\.[0-9]{1,3}", "(x)+?", r"\x{41}"] {
            assert_eq!(rewritten(pattern), pattern);
        }
    }
}

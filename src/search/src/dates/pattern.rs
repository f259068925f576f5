//! The part of Java's `DateTimeFormatter` patterns that mappings use.

use jiff::tz::TimeZone;

use super::{Parts, parse_offset};
use crate::error::{EsError, Result};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pattern(Vec<Item>);

#[derive(Clone, Debug, PartialEq)]
enum Item {
    Text(String),
    /// A letter and how often it is repeated.
    Field(char, usize),
    /// `[...]`: may be missing when reading.
    Optional(Vec<Item>),
}

impl Pattern {
    pub(crate) fn new(pattern: &str) -> Result<Self> {
        let chars: Vec<char> = pattern.chars().collect();
        let mut at = 0;
        let items = compile(&chars, &mut at, 0)?;
        Ok(Self(items))
    }

    pub(crate) fn parse(&self, text: &str) -> Option<Parts> {
        let mut parts = Parts::default();
        let rest = parse_items(&self.0, text, &mut parts)?;
        rest.is_empty().then_some(parts)
    }

    pub(crate) fn format(&self, ms: i64, zone: &TimeZone) -> String {
        let Ok(stamp) = jiff::Timestamp::from_millisecond(ms) else { return ms.to_string() };
        let mut out = String::new();
        format_items(&self.0, &stamp.to_zoned(zone.clone()), &mut out);
        out
    }
}

fn compile(chars: &[char], at: &mut usize, depth: usize) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    while let Some(&c) = chars.get(*at) {
        match c {
            '\'' => items.push(Item::Text(quoted(chars, at)?)),
            '[' if depth < 4 => {
                *at += 1;
                items.push(Item::Optional(compile(chars, at, depth + 1)?));
            }
            ']' if depth > 0 => {
                *at += 1;
                return Ok(items);
            }
            c if c.is_ascii_alphabetic() => {
                let from = *at;
                while chars.get(*at) == Some(&c) {
                    *at += 1;
                }
                if !"yuxMLdDHhkKmsSnaEeZXzVO".contains(c) {
                    return Err(EsError::illegal(format!("Unknown pattern letter: {c}")));
                }
                items.push(Item::Field(c, *at - from));
            }
            c => {
                *at += 1;
                items.push(Item::Text(c.to_string()));
            }
        }
    }
    Ok(items)
}

fn quoted(chars: &[char], at: &mut usize) -> Result<String> {
    *at += 1;
    let mut text = String::new();
    while let Some(&c) = chars.get(*at) {
        *at += 1;
        if c != '\'' {
            text.push(c);
        } else if chars.get(*at) == Some(&'\'') {
            *at += 1;
            text.push('\'');
        } else {
            // Two quotes outside a text stand for one quote.
            return Ok(if text.is_empty() { "'".to_owned() } else { text });
        }
    }
    Err(EsError::illegal("Pattern ends with an incomplete string literal"))
}

fn parse_items<'a>(items: &[Item], mut text: &'a str, parts: &mut Parts) -> Option<&'a str> {
    for (index, item) in items.iter().enumerate() {
        match item {
            Item::Text(expected) => text = text.strip_prefix(expected.as_str())?,
            Item::Optional(inner) => {
                let mut trial = parts.clone();
                if let Some(rest) = parse_items(inner, text, &mut trial) {
                    *parts = trial;
                    text = rest;
                }
            }
            Item::Field(letter, count) => {
                // A number followed at once by another number has exactly its own width.
                let tight = matches!(items.get(index + 1), Some(Item::Field(..)));
                text = parse_field(*letter, *count, tight, text, parts)?;
            }
        }
    }
    Some(text)
}

fn parse_field<'a>(
    letter: char,
    count: usize,
    tight: bool,
    text: &'a str,
    parts: &mut Parts,
) -> Option<&'a str> {
    let max = if tight { count } else { count.max(2) };
    match letter {
        'y' | 'u' | 'x' if letter != 'x' => {
            let widest = if tight || count == 4 { count } else { 9 };
            let (value, rest) = digits(text, count.min(4), if count == 2 { 2 } else { widest })?;
            parts.year = Some(if count == 2 { 2000 + value } else { value });
            Some(rest)
        }
        'M' | 'L' if count >= 3 => {
            let (index, rest) = name(text, &MONTHS, count)?;
            parts.month = Some(index + 1);
            Some(rest)
        }
        'M' | 'L' => number(text, count, max, &mut parts.month),
        'd' => number(text, count, max, &mut parts.day),
        'D' => number(text, count, count.max(3), &mut parts.day_of_year),
        'H' | 'h' | 'k' | 'K' => number(text, count, max, &mut parts.hour),
        'm' => number(text, count, max, &mut parts.minute),
        's' => number(text, count, max, &mut parts.second),
        'S' | 'n' => {
            let (value, rest) = digits(text, count, count.max(1))?;
            let width = u32::try_from(text.len() - rest.len()).ok()?;
            parts.millis = Some(value.checked_mul(1000)? / 10_i64.checked_pow(width)?);
            Some(rest)
        }
        'a' => {
            let head = text.get(..2)?;
            parts.half = Some(i64::from(head.eq_ignore_ascii_case("pm")));
            text.get(2..)
        }
        'E' | 'e' => name(text, &DAYS, count).map(|(_, rest)| rest),
        _ => parse_zone(text, parts),
    }
}

fn parse_zone<'a>(text: &'a str, parts: &mut Parts) -> Option<&'a str> {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || "+-:/_".contains(c)))
        .unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    parts.zone = Some(match word {
        "Z" | "UTC" | "GMT" => TimeZone::UTC,
        _ => parse_offset(word).or_else(|| TimeZone::get(word).ok())?,
    });
    Some(rest)
}

fn digits(text: &str, min: usize, max: usize) -> Option<(i64, &str)> {
    let len = text.bytes().take(max).take_while(u8::is_ascii_digit).count();
    if len < min.max(1) {
        return None;
    }
    let (number, rest) = text.split_at(len);
    Some((number.parse().ok()?, rest))
}

fn number<'a>(text: &'a str, min: usize, max: usize, slot: &mut Option<i64>) -> Option<&'a str> {
    let (value, rest) = digits(text, min, max)?;
    *slot = Some(value);
    Some(rest)
}

fn name<'a>(text: &'a str, names: &[&str], count: usize) -> Option<(i64, &'a str)> {
    for (index, name) in names.iter().enumerate() {
        let name = if count == 3 { name.get(..3)? } else { name };
        let head = text.get(..name.len());
        if head.is_some_and(|head| head.eq_ignore_ascii_case(name)) {
            return Some((i64::try_from(index).ok()?, text.get(name.len()..)?));
        }
    }
    None
}

fn format_items(items: &[Item], at: &jiff::Zoned, out: &mut String) {
    for item in items {
        match item {
            Item::Text(text) => out.push_str(text),
            Item::Optional(inner) => format_items(inner, at, out),
            Item::Field(letter, count) => out.push_str(&format_field(*letter, *count, at)),
        }
    }
}

fn format_field(letter: char, count: usize, at: &jiff::Zoned) -> String {
    let padded = |value: i64| format!("{value:0count$}");
    let named = |names: &[&str], index: i8| {
        let name = names.get(usize::try_from(index).unwrap_or(0)).copied().unwrap_or("");
        if count <= 3 { name.chars().take(3).collect() } else { name.to_owned() }
    };
    match letter {
        'y' | 'u' if count == 2 => format!("{:02}", at.year().rem_euclid(100)),
        'y' | 'u' => padded(at.year().into()),
        'M' | 'L' if count >= 3 => named(&MONTHS, at.month() - 1),
        'M' | 'L' => padded(at.month().into()),
        'd' => padded(at.day().into()),
        'D' => padded(at.day_of_year().into()),
        'H' => padded(at.hour().into()),
        'k' => padded(if at.hour() == 0 { 24 } else { at.hour().into() }),
        'K' => padded(i64::from(at.hour()) % 12),
        'h' => padded((i64::from(at.hour()) + 11) % 12 + 1),
        'm' => padded(at.minute().into()),
        's' => padded(at.second().into()),
        'S' | 'n' => format!("{:09}", at.subsec_nanosecond()).chars().take(count).collect(),
        'a' => if at.hour() < 12 { "AM" } else { "PM" }.to_owned(),
        'E' | 'e' => named(&DAYS, at.weekday().to_monday_zero_offset()),
        'z' | 'V' => at.time_zone().iana_name().unwrap_or("UTC").to_owned(),
        'X' => offset_text(at.offset().seconds(), count >= 3, true),
        'Z' => offset_text(at.offset().seconds(), count == 5, false),
        _ => offset_text(at.offset().seconds(), count >= 3, false),
    }
}

/// `Z`, `+0900` or `+09:00`.
pub(crate) fn offset_text(seconds: i32, colon: bool, zulu: bool) -> String {
    if seconds == 0 && zulu {
        return "Z".to_owned();
    }
    let sign = if seconds < 0 { '-' } else { '+' };
    let (hours, minutes) = (seconds.abs() / 3600, seconds.abs() / 60 % 60);
    let between = if colon { ":" } else { "" };
    format!("{sign}{hours:02}{between}{minutes:02}")
}

//! Named formats and lists of alternatives.

use jiff::tz::TimeZone;

use super::pattern::Pattern;
use super::{Fill, Parts, parse_offset};
use crate::error::{EsError, Result};

/// One or more ways to read a date; the first one writes.
#[derive(Clone, Debug, PartialEq)]
pub struct DateFormat {
    name: String,
    choices: Vec<Choice>,
}

#[derive(Clone, Debug, PartialEq)]
enum Choice {
    EpochMillis,
    EpochSecond,
    /// ISO 8601 with optional parts; `strict` wants padded digits.
    OptionalTime {
        strict: bool,
    },
    Pattern(Pattern),
}

/// Names of formats and the Java patterns that they stand for.
const NAMED: &[(&str, &str)] = &[
    ("basic_date", "uuuuMMdd"),
    ("basic_date_time", "uuuuMMdd'T'HHmmss.SSSX"),
    ("basic_date_time_no_millis", "uuuuMMdd'T'HHmmssX"),
    ("basic_time", "HHmmss.SSSX"),
    ("basic_time_no_millis", "HHmmssX"),
    ("date", "uuuu-MM-dd"),
    ("date_hour", "uuuu-MM-dd'T'HH"),
    ("date_hour_minute", "uuuu-MM-dd'T'HH:mm"),
    ("date_hour_minute_second", "uuuu-MM-dd'T'HH:mm:ss"),
    ("date_hour_minute_second_fraction", "uuuu-MM-dd'T'HH:mm:ss.SSS"),
    ("date_hour_minute_second_millis", "uuuu-MM-dd'T'HH:mm:ss.SSS"),
    ("date_time", "uuuu-MM-dd'T'HH:mm:ss.SSSXXX"),
    ("date_time_no_millis", "uuuu-MM-dd'T'HH:mm:ssXXX"),
    ("hour", "HH"),
    ("hour_minute", "HH:mm"),
    ("hour_minute_second", "HH:mm:ss"),
    ("hour_minute_second_millis", "HH:mm:ss.SSS"),
    ("time", "HH:mm:ss.SSSXXX"),
    ("time_no_millis", "HH:mm:ssXXX"),
    ("ordinal_date", "uuuu-DDD"),
    ("year", "uuuu"),
    ("year_month", "uuuu-MM"),
    ("year_month_day", "uuuu-MM-dd"),
];

impl DateFormat {
    /// Compiles `a||b||c`.
    pub fn new(name: &str) -> Result<Self> {
        let mut choices = Vec::new();
        for part in name.split("||") {
            choices.push(Choice::new(part)?);
        }
        Ok(Self { name: name.to_owned(), choices })
    }

    /// The text that was compiled.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Milliseconds since the epoch of `text`.
    pub fn parse(&self, text: &str, zone: &TimeZone, fill: Fill) -> Result<i64> {
        for choice in &self.choices {
            let parts = choice.parse(text);
            if let Some(ms) = parts.and_then(|parts| parts.instant(zone, fill)) {
                return Ok(ms);
            }
        }
        let reason = format!("failed to parse date field [{text}] with format [{}]", self.name);
        Err(EsError::illegal(reason))
    }

    /// Writes an instant with the first alternative.
    pub fn format(&self, ms: i64, zone: &TimeZone) -> String {
        match self.choices.first() {
            Some(Choice::EpochMillis) | None => ms.to_string(),
            Some(Choice::EpochSecond) => ms.div_euclid(1000).to_string(),
            Some(Choice::OptionalTime { .. }) => iso(ms, zone),
            Some(Choice::Pattern(pattern)) => pattern.format(ms, zone),
        }
    }

    /// Whether numbers written in JSON are to be read as text of this format.
    pub fn reads_epoch_millis(&self) -> bool {
        self.choices.contains(&Choice::EpochMillis)
    }
}

fn iso(ms: i64, zone: &TimeZone) -> String {
    let Ok(stamp) = jiff::Timestamp::from_millisecond(ms) else { return ms.to_string() };
    let zoned = stamp.to_zoned(zone.clone());
    let offset = super::pattern::offset_text(zoned.offset().seconds(), true, true);
    format!("{}{offset}", zoned.strftime("%Y-%m-%dT%H:%M:%S%.3f"))
}

impl Choice {
    fn new(name: &str) -> Result<Self> {
        match name {
            "epoch_millis" => return Ok(Self::EpochMillis),
            "epoch_second" => return Ok(Self::EpochSecond),
            "date_optional_time" | "dateOptionalTime" | "iso8601" => {
                return Ok(Self::OptionalTime { strict: false });
            }
            "strict_date_optional_time"
            | "strictDateOptionalTime"
            | "strict_date_optional_time_nanos" => {
                return Ok(Self::OptionalTime { strict: true });
            }
            _ => {}
        }
        let plain = name.strip_prefix("strict_").unwrap_or(name);
        if let Some((_, pattern)) = NAMED.iter().find(|(known, _)| *known == plain) {
            return Pattern::new(pattern).map(Self::Pattern);
        }
        let pattern = name.strip_prefix('8').unwrap_or(name);
        Pattern::new(pattern)
            .map(Self::Pattern)
            .map_err(|e| EsError::illegal(format!("Invalid format: [{name}]: {}", e.reason)))
    }

    fn parse(&self, text: &str) -> Option<Parts> {
        match self {
            Self::EpochMillis => {
                let ms = number(text)?;
                Some(Parts { epoch_ms: Some(ms as i64), ..Parts::default() })
            }
            Self::EpochSecond => {
                let ms = number(text)? * 1000.0;
                Some(Parts { epoch_ms: Some(ms as i64), ..Parts::default() })
            }
            Self::OptionalTime { strict } => optional_time(text, *strict),
            Self::Pattern(pattern) => pattern.parse(text),
        }
    }
}

fn number(text: &str) -> Option<f64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    // Integers of this size are exact in a double up to the year 287,396.
    plain.then(|| text.parse::<f64>().ok()).flatten()
}

/// A cursor over ASCII digits and separators.
struct Cursor<'a>(&'a str);

impl Cursor<'_> {
    fn eat(&mut self, c: char) -> bool {
        let found = self.0.starts_with(c);
        if found {
            self.0 = self.0.get(c.len_utf8()..).unwrap_or("");
        }
        found
    }

    fn digits(&mut self, min: usize, max: usize) -> Option<i64> {
        let len = self.0.bytes().take(max).take_while(u8::is_ascii_digit).count();
        if len < min {
            return None;
        }
        let (number, rest) = self.0.split_at(len);
        self.0 = rest;
        number.parse().ok()
    }
}

/// `yyyy[-MM[-dd]]['T'[HH[:mm[:ss[.fraction]]]][zone]]`.
fn optional_time(text: &str, strict: bool) -> Option<Parts> {
    let least = if strict { 2 } else { 1 };
    let mut at = Cursor(text);
    let negative = at.eat('-');
    let year = at.digits(if strict { 4 } else { 1 }, if strict { 4 } else { 9 })?;
    let mut parts = Parts { year: Some(if negative { -year } else { year }), ..Parts::default() };
    if at.eat('-') {
        parts.month = Some(at.digits(least, 2)?);
        if at.eat('-') {
            parts.day = Some(at.digits(least, 2)?);
        }
    }
    if at.eat('T') {
        if !at.0.is_empty() && !at.0.starts_with(['Z', '+', '-']) {
            clock(&mut at, &mut parts, least)?;
        }
        parts.zone = zone(at.0)?;
        return Some(parts);
    }
    at.0.is_empty().then_some(parts)
}

fn clock(at: &mut Cursor<'_>, parts: &mut Parts, least: usize) -> Option<()> {
    parts.hour = Some(at.digits(least, 2)?);
    if !at.eat(':') {
        return Some(());
    }
    parts.minute = Some(at.digits(least, 2)?);
    if !at.eat(':') {
        return Some(());
    }
    parts.second = Some(at.digits(least, 2)?);
    if at.eat('.') || at.eat(',') {
        let before = at.0.len();
        let fraction = at.digits(1, 9)?;
        let width = u32::try_from(before - at.0.len()).ok()?;
        parts.millis = Some(fraction * 1000 / 10_i64.pow(width));
    }
    Some(())
}

#[expect(clippy::option_option, reason = "unreadable, absent and present differ")]
fn zone(text: &str) -> Option<Option<TimeZone>> {
    match text {
        "" => Some(None),
        "Z" => Some(Some(TimeZone::UTC)),
        _ => match parse_offset(text) {
            Some(zone) => Some(Some(zone)),
            None => TimeZone::get(text).ok().map(Some),
        },
    }
}

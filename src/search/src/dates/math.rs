//! Date math: `now-1d/d`, `2024-01-01||+1M/d`.

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan, Zoned};

use super::{DateFormat, Fill};
use crate::error::{EsError, Result};

/// Evaluates date math against a given moment.
#[derive(Clone, Debug)]
pub struct DateMath {
    /// What `now` means, in milliseconds since the epoch.
    pub now_ms: i64,
    /// Zone of dates without one and of rounding.
    pub zone: TimeZone,
}

/// Where `/d` goes: to the first or to the last millisecond of the day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To the first millisecond.
    Down,
    /// To the last millisecond.
    Up,
}

/// A calendar unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Unit {
    /// `y`
    Year,
    /// `q`, only for rounding in histograms.
    Quarter,
    /// `M`
    Month,
    /// `w`, begins on Monday.
    Week,
    /// `d`
    Day,
    /// `h` or `H`
    Hour,
    /// `m`
    Minute,
    /// `s`
    Second,
}

impl Unit {
    fn from_char(c: char) -> Option<Self> {
        Some(match c {
            'y' => Self::Year,
            'M' => Self::Month,
            'w' => Self::Week,
            'd' => Self::Day,
            'h' | 'H' => Self::Hour,
            'm' => Self::Minute,
            's' => Self::Second,
            _ => return None,
        })
    }

    fn span(self, count: i64) -> Option<Span> {
        let zero = Span::new();
        match self {
            Self::Year => zero.try_years(count),
            Self::Quarter => zero.try_months(count.checked_mul(3)?),
            Self::Month => zero.try_months(count),
            Self::Week => zero.try_weeks(count),
            Self::Day => zero.try_days(count),
            Self::Hour => zero.try_hours(count),
            Self::Minute => zero.try_minutes(count),
            Self::Second => zero.try_seconds(count),
        }
        .ok()
    }
}

fn zoned(ms: i64, zone: &TimeZone) -> Option<Zoned> {
    Some(Timestamp::from_millisecond(ms).ok()?.to_zoned(zone.clone()))
}

/// Adds calendar units in a zone; `None` beyond the calendar.
pub fn add_units(ms: i64, unit: Unit, count: i64, zone: &TimeZone) -> Option<i64> {
    let moved = zoned(ms, zone)?.checked_add(unit.span(count)?).ok()?;
    Some(moved.timestamp().as_millisecond())
}

/// The first millisecond of the unit that holds `ms`, in a zone.
pub fn round_down(ms: i64, unit: Unit, zone: &TimeZone) -> Option<i64> {
    if let (Unit::Minute | Unit::Second, _) | (Unit::Hour, true) = (unit, *zone == TimeZone::UTC) {
        let length = match unit {
            Unit::Hour => 3_600_000,
            Unit::Minute => 60_000,
            _ => 1_000,
        };
        return Some(ms - ms.rem_euclid(length));
    }
    let at = zoned(ms, zone)?;
    if unit == Unit::Hour {
        // Hours are rounded on the local clock, whose offset may be 30 or 45 minutes.
        let local = ms + i64::from(at.offset().seconds()) * 1000;
        return Some(ms - local.rem_euclid(3_600_000));
    }
    let date = at.date();
    let first = match unit {
        Unit::Year => date.first_of_year(),
        Unit::Quarter => {
            let month = (date.month() - 1) / 3 * 3 + 1;
            jiff::civil::Date::new(date.year(), month, 1).ok()?
        }
        Unit::Month => date.first_of_month(),
        Unit::Week => {
            let back = i64::from(date.weekday().to_monday_zero_offset());
            date.checked_sub(back.days()).ok()?
        }
        _ => date,
    };
    Some(first.to_zoned(zone.clone()).ok()?.timestamp().as_millisecond())
}

impl DateMath {
    /// Milliseconds since the epoch of a date or an expression.
    pub fn eval(&self, text: &str, format: &DateFormat, rounding: Rounding) -> Result<i64> {
        if let Some(rest) = text.strip_prefix("now") {
            return self.apply(self.now_ms, rest, text, rounding);
        }
        let fill = if rounding == Rounding::Up { Fill::Highest } else { Fill::Lowest };
        match text.split_once("||") {
            None => format.parse(text, &self.zone, fill).map_err(|e| as_parse(e, text, format)),
            Some((date, rest)) => {
                let start = format
                    .parse(date, &self.zone, Fill::Lowest)
                    .map_err(|e| as_parse(e, date, format))?;
                self.apply(start, rest, text, rounding)
            }
        }
    }

    fn apply(&self, start: i64, steps: &str, whole: &str, rounding: Rounding) -> Result<i64> {
        let bad = |why: &str| EsError::parse(format!("{why} in date math [{whole}]"));
        let mut at = start;
        let mut chars = steps.chars().peekable();
        while let Some(op) = chars.next() {
            let mut count = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                count.push(digit);
            }
            let count: i64 = if count.is_empty() {
                1
            } else {
                count.parse().map_err(|_| bad("number too large"))?
            };
            let letter = chars.next().ok_or_else(|| bad("truncated date math"))?;
            let unit = Unit::from_char(letter)
                .ok_or_else(|| bad(&format!("unit [{letter}] not supported")))?;
            let next = match op {
                '+' => add_units(at, unit, count, &self.zone),
                '-' => add_units(at, unit, -count, &self.zone),
                '/' if count == 1 => self.round(at, unit, rounding),
                _ => return Err(bad(&format!("operator not supported for date math [{op}]"))),
            };
            at = next.ok_or_else(|| bad("date out of range"))?;
        }
        Ok(at)
    }

    fn round(&self, ms: i64, unit: Unit, rounding: Rounding) -> Option<i64> {
        let first = round_down(ms, unit, &self.zone)?;
        match rounding {
            Rounding::Down => Some(first),
            Rounding::Up => Some(add_units(first, unit, 1, &self.zone)? - 1),
        }
    }
}

fn as_parse(cause: EsError, text: &str, format: &DateFormat) -> EsError {
    EsError::parse(format!(
        "failed to parse date field [{text}] with format [{}]: [{}]",
        format.name(),
        cause.reason
    ))
}

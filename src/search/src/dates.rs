//! Dates: Elasticsearch's formats, Java patterns and date math.
//!
//! A [`DateFormat`] is a list of alternatives (`a||b`). Instants are milliseconds since the Unix
//! epoch in UTC. Date math (`now-1d/d`, `2024-01-01||+1M`) is evaluated with the caller's `now`;
//! this module reads no clock.

mod format;
mod math;
mod pattern;

pub use format::DateFormat;
pub use math::{DateMath, Rounding, Unit, add_units, round_down};

use jiff::tz::{Offset, TimeZone};

use crate::error::{EsError, Result};

/// Name of Elasticsearch's default format.
pub const DEFAULT_FORMAT: &str = "strict_date_optional_time||epoch_millis";

/// Civil parts of a date as a format reads them; what is missing is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Parts {
    pub(crate) epoch_ms: Option<i64>,
    pub(crate) year: Option<i64>,
    pub(crate) month: Option<i64>,
    pub(crate) day: Option<i64>,
    pub(crate) day_of_year: Option<i64>,
    pub(crate) hour: Option<i64>,
    pub(crate) half: Option<i64>,
    pub(crate) minute: Option<i64>,
    pub(crate) second: Option<i64>,
    pub(crate) millis: Option<i64>,
    pub(crate) zone: Option<TimeZone>,
}

/// How missing parts are filled: with their lowest or highest value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// 2024 means 2024-01-01T00:00:00.000.
    Lowest,
    /// 2024 means 2024-12-31T23:59:59.999.
    Highest,
}

impl Parts {
    /// The instant in milliseconds, with `zone` where the text named none.
    pub(crate) fn instant(&self, zone: &TimeZone, fill: Fill) -> Option<i64> {
        if let Some(ms) = self.epoch_ms {
            return Some(ms);
        }
        let high = fill == Fill::Highest;
        let year = i16::try_from(self.year.unwrap_or(1970)).ok()?;
        let month = i8::try_from(self.month.unwrap_or(if high { 12 } else { 1 })).ok()?;
        let mut date = jiff::civil::Date::new(year, month, 1).ok()?;
        let last = i64::from(date.days_in_month());
        let day = self.day.unwrap_or(if high { last } else { 1 });
        date = jiff::civil::Date::new(year, month, i8::try_from(day).ok()?).ok()?;
        if let Some(day_of_year) = self.day_of_year {
            let first = jiff::civil::Date::new(year, 1, 1).ok()?;
            date = first.checked_add(jiff::Span::new().try_days(day_of_year - 1).ok()?).ok()?;
        }
        let mut hour = self.hour.unwrap_or(if high { 23 } else { 0 });
        if let Some(half) = self.half {
            hour = hour % 12 + 12 * half;
        }
        let minute = self.minute.unwrap_or(if high { 59 } else { 0 });
        let second = self.second.unwrap_or(if high { 59 } else { 0 });
        let millis = self.millis.unwrap_or(if high { 999 } else { 0 });
        let time = jiff::civil::Time::new(
            i8::try_from(hour).ok()?,
            i8::try_from(minute).ok()?,
            i8::try_from(second).ok()?,
            i32::try_from(millis * 1_000_000).ok()?,
        )
        .ok()?;
        let zone = self.zone.clone().unwrap_or_else(|| zone.clone());
        let zoned = date.to_datetime(time).to_zoned(zone).ok()?;
        Some(zoned.timestamp().as_millisecond())
    }
}

/// Reads a time zone: `UTC`, `Z`, `+09:00`, `Asia/Seoul`.
pub fn time_zone(text: &str) -> Result<TimeZone> {
    if matches!(text, "Z" | "z" | "UTC" | "GMT") {
        return Ok(TimeZone::UTC);
    }
    if let Some(offset) = parse_offset(text) {
        return Ok(offset);
    }
    TimeZone::get(text).map_err(|_| EsError::illegal(format!("Unknown time-zone ID: {text}")))
}

/// `+09`, `+0900`, `+09:00`, `-03:30:00`.
pub(crate) fn parse_offset(text: &str) -> Option<TimeZone> {
    let (sign, rest) = match text.as_bytes().first()? {
        b'+' => (1, text.get(1..)?),
        b'-' => (-1, text.get(1..)?),
        _ => return None,
    };
    let digits: String = rest.chars().filter(|c| *c != ':').collect();
    if !digits.bytes().all(|b| b.is_ascii_digit()) || !matches!(digits.len(), 1 | 2 | 4 | 6) {
        return None;
    }
    let part = |from: usize, to: usize| digits.get(from..to).and_then(|d| d.parse::<i32>().ok());
    let hours = part(0, digits.len().min(2))?;
    let seconds = hours * 3600 + part(2, 4).unwrap_or(0) * 60 + part(4, 6).unwrap_or(0);
    Some(TimeZone::fixed(Offset::from_seconds(sign * seconds).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(format: &str, text: &str) -> Option<i64> {
        DateFormat::new(format).unwrap().parse(text, &TimeZone::UTC, Fill::Lowest).ok()
    }

    #[test]
    fn formats_read_what_elasticsearch_reads() {
        for (format, text, ms) in [
            (DEFAULT_FORMAT, "2024-01-02T03:04:05.678Z", Some(1_704_164_645_678)),
            (DEFAULT_FORMAT, "2024-01-02", Some(1_704_153_600_000)),
            (DEFAULT_FORMAT, "2024", Some(1_704_067_200_000)),
            (DEFAULT_FORMAT, "1704153600000", Some(1_704_153_600_000)),
            (DEFAULT_FORMAT, "2024-01-02T12:00:00+09:00", Some(1_704_164_400_000)),
            (DEFAULT_FORMAT, "2024-1-2", None),
            (DEFAULT_FORMAT, "soon", None),
            ("yyyy-MM-dd HH:mm:ss", "2024-01-02 03:04:05", Some(1_704_164_645_000)),
            ("yyyy-MM-dd HH:mm:ss", "2024-01-02", None),
            ("yyyy/MM/dd||epoch_second", "1704153600", Some(1_704_153_600_000)),
            ("dd/MMM/yyyy:HH:mm:ss Z", "02/Jan/2024:03:04:05 +0000", Some(1_704_164_645_000)),
            ("basic_date", "20240102", Some(1_704_153_600_000)),
            ("strict_date_time", "2024-01-02T03:04:05.678Z", Some(1_704_164_645_678)),
            ("yyyyMMddHHmmss", "20240102030405", Some(1_704_164_645_000)),
            ("yyyyMMddHHmmssSSS", "20240102030405678", Some(1_704_164_645_678)),
        ] {
            assert_eq!(parse(format, text), ms, "{format} {text}");
        }
    }

    #[test]
    fn formats_write_what_elasticsearch_writes() {
        for (format, zone, text) in [
            (DEFAULT_FORMAT, "UTC", "2024-01-02T03:04:05.678Z"),
            (DEFAULT_FORMAT, "Asia/Seoul", "2024-01-02T12:04:05.678+09:00"),
            ("epoch_millis", "UTC", "1704164645678"),
            ("yyyy-MM-dd", "UTC", "2024-01-02"),
            ("yyyy-MM-dd HH:mm:ss", "Asia/Seoul", "2024-01-02 12:04:05"),
            ("dd MMM yyyy EEE", "UTC", "02 Jan 2024 Tue"),
        ] {
            let zone = time_zone(zone).unwrap();
            assert_eq!(DateFormat::new(format).unwrap().format(1_704_164_645_678, &zone), text);
        }
    }

    #[test]
    fn date_math_follows_now_and_rounds() {
        let now = 1_704_164_645_678;
        let math = DateMath { now_ms: now, zone: TimeZone::UTC };
        let format = DateFormat::new(DEFAULT_FORMAT).unwrap();
        for (text, rounding, ms) in [
            ("now", Rounding::Down, now),
            ("now-1d", Rounding::Down, now - 86_400_000),
            ("now/d", Rounding::Down, 1_704_153_600_000),
            ("now/d", Rounding::Up, 1_704_239_999_999),
            ("now-1d/d", Rounding::Down, 1_704_067_200_000),
            ("2024-01-31||+1M", Rounding::Down, 1_709_164_800_000),
            ("2024-01-02||/M", Rounding::Down, 1_704_067_200_000),
            ("now/w", Rounding::Down, 1_704_067_200_000),
            ("2024-01-02", Rounding::Up, 1_704_239_999_999),
        ] {
            assert_eq!(math.eval(text, &format, rounding).unwrap(), ms, "{text}");
        }
        assert!(math.eval("now+1x", &format, Rounding::Down).is_err());
    }
}

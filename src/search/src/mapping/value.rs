//! Turning JSON values into the values of fields.

use std::net::{IpAddr, Ipv6Addr};

use jiff::tz::TimeZone;
use serde_json::Value;

use super::{FieldDef, FieldKind, FieldValue};
use crate::dates::Fill;
use crate::error::{EsError, Result};

/// `true`, `"true"`, `false`, `"false"`, `""`.
pub(crate) fn parse_bool(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(*flag),
        Value::String(text) => match text.as_str() {
            "true" => Some(true),
            "false" | "" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// A number, also one written as text.
pub(crate) fn parse_number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// An address as sixteen bytes in hexadecimal, so that text order is address order.
pub(crate) fn ip_hex(text: &str) -> Option<String> {
    let ip: IpAddr = text.parse().ok()?;
    Some(hex(to_v6(ip)))
}

fn to_v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

fn hex(ip: Ipv6Addr) -> String {
    format!("{:032x}", u128::from(ip))
}

/// The address that [`ip_hex`] wrote.
pub(crate) fn ip_from_hex(hex: &str) -> String {
    let Ok(bits) = u128::from_str_radix(hex, 16) else { return hex.to_owned() };
    let ip = Ipv6Addr::from(bits);
    ip.to_ipv4_mapped().map_or_else(|| ip.to_string(), |ip| ip.to_string())
}

/// First and last address of `10.0.0.0/8` in hexadecimal.
pub(crate) fn ip_range(cidr: &str) -> Option<(String, String)> {
    let (ip, prefix) = cidr.split_once('/')?;
    let ip: IpAddr = ip.parse().ok()?;
    let prefix: u32 = prefix.parse().ok()?;
    let prefix = if ip.is_ipv4() { prefix.checked_add(96)? } else { prefix };
    if prefix > 128 {
        return None;
    }
    let mask = if prefix == 0 { 0 } else { u128::MAX << (128 - prefix) };
    let first = u128::from(to_v6(ip)) & mask;
    Some((hex(Ipv6Addr::from(first)), hex(Ipv6Addr::from(first | !mask))))
}

fn number_text(text: &str) -> EsError {
    EsError::illegal(format!("For input string: \"{text}\""))
}

fn text_of(value: &Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Object(_) => Err(EsError::new(
            400,
            "illegal_state_exception",
            "Can't get text on a START_OBJECT at 1:1",
        )),
        Value::Array(_) | Value::Null => Err(EsError::new(
            400,
            "illegal_state_exception",
            "Can't get text on a START_ARRAY at 1:1",
        )),
    }
}

/// Turns one JSON leaf into a value; `None` when the value is not indexed (too long a keyword).
pub(super) fn convert(field: &FieldDef, value: &Value) -> Result<Option<FieldValue>> {
    Ok(Some(match field.kind {
        FieldKind::Text => FieldValue::Text(text_of(value)?),
        FieldKind::Keyword | FieldKind::Flattened => return keyword(field, value),
        FieldKind::Long | FieldKind::Integer | FieldKind::Short | FieldKind::Byte => {
            FieldValue::Long(integer(field, value)?)
        }
        FieldKind::Double | FieldKind::Float | FieldKind::HalfFloat | FieldKind::ScaledFloat => {
            FieldValue::Double(float(field, value)?)
        }
        FieldKind::Boolean => FieldValue::Long(i64::from(parse_bool(value).ok_or_else(|| {
            let text = super::parse::java_text(value);
            EsError::illegal(format!(
                "Failed to parse value [{text}] as only [true] or [false] are allowed."
            ))
        })?)),
        FieldKind::Date => FieldValue::Long(date(field, value)?),
        FieldKind::Ip => {
            let text = text_of(value)?;
            let hex = ip_hex(&text).ok_or_else(|| {
                EsError::illegal(format!("'{text}' is not an IP string literal."))
            })?;
            FieldValue::Keyword(hex)
        }
        FieldKind::Binary | FieldKind::Alias => return Ok(None),
    }))
}

fn keyword(field: &FieldDef, value: &Value) -> Result<Option<FieldValue>> {
    let mut text = text_of(value)?;
    if field.ignore_above.is_some_and(|limit| text.encode_utf16().count() > limit) {
        return Ok(None);
    }
    if let Some(normalizer) = &field.normalizer {
        text = normalizer.normalize(&text);
    }
    if text.len() > crate::limits::MAX_KEYWORD_BYTES {
        return Err(EsError::illegal(format!(
            "Document contains at least one immense term in field=\"{}\" (whose UTF8 encoding is \
             longer than the max length {}), all of which were skipped.",
            field.path,
            crate::limits::MAX_KEYWORD_BYTES
        )));
    }
    Ok(Some(FieldValue::Keyword(text)))
}

fn integer(field: &FieldDef, value: &Value) -> Result<i64> {
    let (low, high) = match field.kind {
        FieldKind::Byte => (i64::from(i8::MIN), i64::from(i8::MAX)),
        FieldKind::Short => (i64::from(i16::MIN), i64::from(i16::MAX)),
        FieldKind::Integer => (i64::from(i32::MIN), i64::from(i32::MAX)),
        _ => (i64::MIN, i64::MAX),
    };
    let shown = super::parse::java_text(value);
    let out_of_range =
        || EsError::illegal(format!("Value [{shown}] is out of range for a {}", field.type_name));
    let exact = match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse::<i64>().ok(),
        Value::Bool(_) | Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    let whole = match exact {
        Some(whole) => whole,
        None => {
            let number = parse_number(value).ok_or_else(|| number_text(&shown))?;
            if !number.is_finite() || number.abs() >= 9.3e18 {
                return Err(out_of_range());
            }
            if number.fract() != 0.0 && !field.coerce {
                return Err(EsError::illegal(format!("Value [{shown}] has a decimal part")));
            }
            number.trunc() as i64
        }
    };
    if whole < low || whole > high {
        return Err(out_of_range());
    }
    Ok(whole)
}

fn float(field: &FieldDef, value: &Value) -> Result<f64> {
    let shown = super::parse::java_text(value);
    let number = parse_number(value).ok_or_else(|| number_text(&shown))?;
    let rounded = round_float(field, number);
    if !rounded.is_finite() {
        return Err(EsError::illegal(format!(
            "[{}] supports only finite values, but got [{shown}]",
            field.type_name
        )));
    }
    Ok(rounded)
}

/// A number as the field stores it.
pub(crate) fn round_float(field: &FieldDef, number: f64) -> f64 {
    match field.kind {
        FieldKind::Float => f64::from(number as f32),
        FieldKind::HalfFloat => half(number),
        FieldKind::ScaledFloat => (number * field.scaling_factor).round() / field.scaling_factor,
        _ => number,
    }
}

/// Rounds to eleven bits of mantissa, as a 16-bit float keeps them.
fn half(number: f64) -> f64 {
    if number == 0.0 {
        return 0.0;
    }
    if number.abs() >= 65_520.0 {
        return f64::INFINITY;
    }
    let exponent = number.abs().log2().floor().max(-14.0);
    let step = 2_f64.powf(exponent - 10.0);
    (number / step).round_ties_even() * step
}

fn date(field: &FieldDef, value: &Value) -> Result<i64> {
    let text = match value {
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.as_i64().is_none() => format!("{}", float.trunc() as i64),
            _ => number.to_string(),
        },
        other => text_of(other)?,
    };
    field.format.parse(&text, &TimeZone::UTC, Fill::Lowest)
}

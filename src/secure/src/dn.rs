//! The subject of an X.509 certificate as text, in the form of RFC 2253 that Java gives it and
//! that Kafka therefore takes for a client's principal: `CN=alice,OU=team,O=company,C=KR`.
//!
//! The certificate was verified before; this reads only the way to its subject, and every length
//! is checked against what is there.

use std::fmt::Write as _;

/// The certificate cannot be read up to its subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the certificate's subject cannot be read")]
pub struct BadSubject;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
/// `[0] EXPLICIT`, the certificate's version.
const VERSION: u8 = 0xa0;

/// Reads DER values one after the other.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// Tag, content and the whole encoding of the next value.
    fn next(&mut self) -> Option<(u8, &'a [u8], &'a [u8])> {
        let whole = self.0;
        let tag = self.byte()?;
        let first = self.byte()?;
        let len = match first {
            0..=0x7f => usize::from(first),
            0x81..=0x83 => {
                let mut len = 0;
                for _ in 0x80..first {
                    len = len << 8 | usize::from(self.byte()?);
                }
                len
            }
            _ => return None,
        };
        let (content, rest) = self.0.split_at_checked(len)?;
        let encoding = whole.get(..whole.len() - rest.len())?;
        self.0 = rest;
        Some((tag, content, encoding))
    }

    fn expect(&mut self, wanted: u8) -> Option<&'a [u8]> {
        self.next().filter(|(tag, ..)| *tag == wanted).map(|(_, content, _)| content)
    }
}

/// The subject of a certificate in DER form.
pub fn subject(certificate: &[u8]) -> Result<String, BadSubject> {
    read(certificate).ok_or(BadSubject)
}

fn read(certificate: &[u8]) -> Option<String> {
    let certificate = Der(certificate).expect(SEQUENCE)?;
    let mut body = Der(Der(certificate).expect(SEQUENCE)?);
    if body.0.first() == Some(&VERSION) {
        body.next()?;
    }
    // Serial number, signature algorithm, issuer, validity.
    for _ in 0..4 {
        body.next()?;
    }
    let mut names = Der(body.expect(SEQUENCE)?);
    let mut parts = Vec::new();
    while !names.0.is_empty() {
        let mut set = Der(names.expect(SET)?);
        let mut values = Vec::new();
        while !set.0.is_empty() {
            values.push(attribute(set.expect(SEQUENCE)?)?);
        }
        parts.push(values.join("+"));
    }
    // RFC 2253 names the most specific first.
    parts.reverse();
    Some(parts.join(","))
}

fn attribute(content: &[u8]) -> Option<String> {
    let mut pair = Der(content);
    let oid = pair.expect(OID)?;
    let (tag, value, encoding) = pair.next()?;
    match (keyword(oid), text(tag, value)) {
        (Some(keyword), Some(text)) => Some(format!("{keyword}={}", escape(&text))),
        (keyword, _) => {
            let name = keyword.map_or_else(|| dotted(oid), |k| Some(k.to_owned()))?;
            let mut out = format!("{name}=#");
            for byte in encoding {
                // Writing to a String cannot fail.
                let _ = write!(out, "{byte:02x}");
            }
            Some(out)
        }
    }
}

/// The attributes that RFC 2253 has words for.
fn keyword(oid: &[u8]) -> Option<&'static str> {
    Some(match oid {
        [0x55, 4, 3] => "CN",
        [0x55, 4, 7] => "L",
        [0x55, 4, 8] => "ST",
        [0x55, 4, 10] => "O",
        [0x55, 4, 11] => "OU",
        [0x55, 4, 6] => "C",
        [0x55, 4, 9] => "STREET",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25] => "DC",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1] => "UID",
        _ => return None,
    })
}

fn dotted(oid: &[u8]) -> Option<String> {
    let mut numbers = Vec::new();
    let mut number: u64 = 0;
    for byte in oid {
        number = number.checked_mul(128)? + u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            if numbers.is_empty() {
                let first = (number / 40).min(2);
                numbers.push(first);
                number -= first * 40;
            }
            numbers.push(number);
            number = 0;
        }
    }
    let words: Vec<String> = numbers.iter().map(u64::to_string).collect();
    Some(words.join("."))
}

/// A string value; `None` for a value that is none.
fn text(tag: u8, value: &[u8]) -> Option<String> {
    match tag {
        // UTF8String, PrintableString, IA5String, GeneralString.
        0x0c | 0x13 | 0x16 | 0x1b => std::str::from_utf8(value).ok().map(ToOwned::to_owned),
        // T61String, by custom Latin-1.
        0x14 => Some(value.iter().map(|b| char::from(*b)).collect()),
        // BMPString.
        0x1e if value.len().is_multiple_of(2) => {
            let units: Vec<u16> =
                value.chunks_exact(2).map(|c| u16::from_be_bytes([c[0], c[1]])).collect();
            String::from_utf16(&units).ok()
        }
        _ => None,
    }
}

/// Java escapes `=` and `#` too, and every space at either end.
fn escape(text: &str) -> String {
    let leading = text.len() - text.trim_start_matches(' ').len();
    let trailing = text.trim_end_matches(' ').len();
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        let at_end = c == ' ' && (at < leading || at >= trailing);
        if at_end || ",=+<>#;\"\\".contains(c) {
            out.push('\\');
        }
        if c == '\0' {
            out.push_str("\\00");
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let len = content.len();
        let mut out = vec![tag];
        if len < 0x80 {
            out.push(u8::try_from(len).unwrap());
        } else {
            out.push(0x82);
            out.extend(u16::try_from(len).unwrap().to_be_bytes());
        }
        out.extend(content);
        out
    }

    fn name(oid: &[u8], tag: u8, value: &[u8]) -> Vec<u8> {
        der(SEQUENCE, &[der(OID, oid), der(tag, value)].concat())
    }

    fn certificate(sets: &[Vec<u8>]) -> Vec<u8> {
        let names: Vec<u8> = sets.iter().flat_map(|s| der(SET, s)).collect();
        let body = [
            der(VERSION, &der(2, &[2])),
            der(2, &[1; 200]),
            der(SEQUENCE, &[]),
            der(SEQUENCE, &[]),
            der(SEQUENCE, &[]),
            der(SEQUENCE, &names),
        ];
        der(SEQUENCE, &der(SEQUENCE, &body.concat()))
    }

    const CN: &[u8] = &[0x55, 4, 3];

    #[test]
    fn subjects_read_as_java_writes_them() {
        let sets = [
            name(&[0x55, 4, 6], 0x13, b"KR"),
            name(&[0x55, 4, 10], 0x0c, "회사".as_bytes()),
            [name(CN, 0x0c, b"alice"), name(&[0x55, 4, 11], 0x13, b"team")].concat(),
        ];
        assert_eq!(subject(&certificate(&sets)).unwrap(), "CN=alice+OU=team,O=회사,C=KR");
        let email = name(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1], 0x16, b"a@b");
        let expected = "1.2.840.113549.1.9.1=#1603614062";
        assert_eq!(subject(&certificate(&[email])).unwrap(), expected);
        let odd = name(CN, 0x0c, b" a,b=c#\"d ");
        assert_eq!(subject(&certificate(&[odd])).unwrap(), "CN=\\ a\\,b\\=c\\#\\\"d\\ ");
        assert_eq!(subject(&certificate(&[])).unwrap(), "");
        let wide = name(CN, 0x1e, &[0xac, 0x00, 0, b'x']);
        assert_eq!(subject(&certificate(&[wide])).unwrap(), "CN=가x");
    }

    #[test]
    fn damaged_certificates_are_an_error_or_a_name_and_never_a_panic() {
        let whole = certificate(&[name(CN, 0x0c, b"alice")]);
        for cut in 0..whole.len() {
            assert_eq!(subject(&whole[..cut]), Err(BadSubject), "cut at {cut}");
        }
        for at in 0..whole.len() {
            for value in [0, 0x7f, 0x80, 0x84, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                let _ = subject(&bytes);
            }
        }
    }
}

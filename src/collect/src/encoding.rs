//! From bytes to text.
//!
//! Order: the source's own setting; byte order mark; NUL bytes (UTF-16 without mark, or binary);
//! strict UTF-8; the detector with the source's hint. The NUL check comes before the detector
//! because with the hint `kr` it calls binary data EUC-KR.

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};

use crate::limits::BINARY_PROBE_BYTES;

/// What a file's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// Text.
    Text {
        /// The text.
        text: String,
        /// Name of the encoding.
        encoding: &'static str,
        /// Byte sequences that were not valid and became U+FFFD.
        errors: usize,
    },
    /// No text.
    Binary,
}

/// Finds an encoding by a name people use, CP949 and its kin included.
pub fn by_name(name: &str) -> Option<&'static Encoding> {
    let label = match name.to_ascii_lowercase().as_str() {
        "cp949" | "ms949" | "uhc" | "windows-949" => "euc-kr".to_owned(),
        other => other.to_owned(),
    };
    Encoding::for_label(label.as_bytes())
}

/// Decodes a file.
pub fn decode(bytes: &[u8], forced: Option<&'static Encoding>, hint: &str) -> Decoded {
    if let Some(encoding) = forced {
        let skip = Encoding::for_bom(bytes).filter(|(e, _)| *e == encoding).map_or(0, |(_, n)| n);
        return decode_as(encoding, bytes.get(skip..).unwrap_or_default());
    }
    if let Some((encoding, skip)) = Encoding::for_bom(bytes) {
        return decode_as(encoding, bytes.get(skip..).unwrap_or_default());
    }
    let probe = bytes.get(..BINARY_PROBE_BYTES).unwrap_or(bytes);
    if probe.contains(&0) {
        return match utf16_without_mark(probe) {
            Some(encoding) => match decode_as(encoding, bytes) {
                Decoded::Text { errors: 1.., .. } => Decoded::Binary,
                other => other,
            },
            None => Decoded::Binary,
        };
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Decoded::Text { text: text.to_owned(), encoding: UTF_8.name(), errors: 0 };
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    detector.feed(bytes, true);
    let tld = Some(hint.as_bytes()).filter(|hint| is_tld(hint));
    decode_as(detector.guess(tld, Utf8Detection::Deny), bytes)
}

/// The detector panics on a hint that is no lower-case top-level domain.
fn is_tld(hint: &[u8]) -> bool {
    !hint.is_empty() && hint.iter().all(|b| b.is_ascii_lowercase())
}

/// Text in UTF-16 has its NULs (the high bytes of spaces, digits, line ends) on one side only.
fn utf16_without_mark(probe: &[u8]) -> Option<&'static Encoding> {
    let zeros = |odd: usize| probe.iter().skip(odd).step_by(2).filter(|b| **b == 0).count();
    let enough = (probe.len() / 50).max(2);
    match (zeros(0), zeros(1)) {
        (0, odd) if odd > enough => Some(UTF_16LE),
        (even, 0) if even > enough => Some(UTF_16BE),
        _ => None,
    }
}

fn decode_as(encoding: &'static Encoding, bytes: &[u8]) -> Decoded {
    let (text, had_errors) = encoding.decode_without_bom_handling(bytes);
    let errors = if had_errors { text.matches('\u{fffd}').count() } else { 0 };
    // More than a tenth undecodable: whatever this is, it is not text in that encoding.
    if errors * 10 > text.chars().count() {
        return Decoded::Binary;
    }
    Decoded::Text { text: text.into_owned(), encoding: encoding.name(), errors }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], want_encoding: &str, want_text: &str) {
        match decode(bytes, None, "kr") {
            Decoded::Text { text, encoding, errors } => {
                assert_eq!((encoding, &text[..], errors), (want_encoding, want_text, 0));
            }
            Decoded::Binary => panic!("binary"),
        }
    }

    fn cp949(text: &str) -> Vec<u8> {
        encoding_rs::EUC_KR.encode(text).0.into_owned()
    }

    #[test]
    fn encodings_are_found() {
        check(b"", "UTF-8", "");
        check("회의는 두 시".as_bytes(), "UTF-8", "회의는 두 시");
        check("\u{feff}회의".as_bytes(), "UTF-8", "회의");
        for text in
            ["회의\n", "오늘 시장에서는 쌀 가격이 올랐습니다.", "똠방각하와 펲시콜라를 마셨다"]
        {
            check(&cp949(text), "EUC-KR", text);
        }
        let le: Vec<u8> = "회의 10:30 시작\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        check(&[b"\xff\xfe", &le[..]].concat(), "UTF-16LE", "회의 10:30 시작\n");
        check(&le, "UTF-16LE", "회의 10:30 시작\n");
        let be: Vec<u8> = "plain text\n".encode_utf16().flat_map(u16::to_be_bytes).collect();
        check(&be, "UTF-16BE", "plain text\n");
    }

    #[test]
    fn binary_is_not_text() {
        assert_eq!(decode(b"before\0after", None, "kr"), Decoded::Binary);
        let noise: Vec<u8> = (0..4096u32).map(|n| ((n * 7919) >> 3) as u8).collect();
        assert_eq!(decode(&noise, None, "kr"), Decoded::Binary);
    }

    #[test]
    fn a_damaged_text_counts_its_errors() {
        let mut bytes = cp949(&"회의록을 작성했습니다. ".repeat(20));
        bytes.extend(b"\xff. end");
        let Decoded::Text { errors, text, .. } = decode(&bytes, None, "kr") else { panic!() };
        assert_eq!(errors, 1);
        assert!(text.starts_with("회의록을"));
    }

    #[test]
    fn a_setting_beats_detection() {
        let Decoded::Text { text, encoding, .. } =
            decode(&cp949("회의"), by_name("windows-1252"), "kr")
        else {
            panic!()
        };
        assert_eq!((encoding, text.as_str()), ("windows-1252", "È¸ÀÇ"));
        assert_eq!(by_name("CP949"), Some(encoding_rs::EUC_KR));
        assert!(by_name("klingon").is_none());
    }
}

//! From a fetched file to the record that goes into the topic.
//!
//! The value is JSON made by a serializer: `id, fileName, fullPathName, subject, body,
//! writeDatetime`, in this order, or `{"<file name>": "<text>"}`. Everything else is told in
//! headers, so that consumers of the value see no more than they expect.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use encoding_rs::Encoding;
use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};
use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::config::{BodyPart, ConfigError, Newlines, RecordConfig, Shape, bad};
use crate::encoding::{self, Decoded};
use crate::ident::{FileKey, Stat, hex};
use crate::limits::{MAX_RECORD_BYTES, MAX_SUBJECT_CHARS, REFERENCE_TEXT_BYTES};

/// Above this, text is cut without a look at whether its record would fit (line ends that become
/// spaces may make it shorter).
const MAX_WHOLE_TEXT_BYTES: usize = 8 * MAX_RECORD_BYTES;
/// Lines in which a subject line is looked for.
const SUBJECT_LINES: usize = 20;

/// Names of the headers.
pub mod headers {
    /// Identity of the file; the document's id.
    pub const ID: &str = "x-id";
    /// Name of the source.
    pub const SOURCE: &str = "x-source";
    /// Raw bytes of the path in base64, where it is not the shown one.
    pub const PATH_RAW: &str = "x-path-raw";
    /// Encoding the text had.
    pub const ENCODING: &str = "x-encoding";
    /// Undecodable sequences, where there were any.
    pub const DECODE_ERRORS: &str = "x-decode-errors";
    /// Path of the original in the block store.
    pub const CONTENT_REF: &str = "x-content-ref";
    /// Length of the original in bytes.
    pub const CONTENT_LENGTH: &str = "x-content-length";
    /// SHA-256 of the original.
    pub const CONTENT_SHA256: &str = "x-content-sha256";
    /// `true` when the value holds only the beginning of the text.
    pub const TRUNCATED: &str = "x-truncated";
    /// `true` when the file is no text.
    pub const BINARY: &str = "x-binary";
}

/// The value's six fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    /// Identity of the file.
    pub id: String,
    /// Its shown name.
    pub file_name: String,
    /// Its shown path on the server.
    pub full_path_name: String,
    /// First line, or what a subject line says.
    pub subject: String,
    /// The text.
    pub body: String,
    /// Modification time as text.
    pub write_datetime: String,
}

/// A record for the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Key: shown path below the source's directory.
    pub key: Vec<u8>,
    /// JSON.
    pub value: Vec<u8>,
    /// Headers.
    pub headers: Vec<(&'static str, Vec<u8>)>,
}

/// What the builder needs to know of a file.
#[derive(Clone, Copy, Debug)]
pub struct FileFacts<'a> {
    /// Name of the source.
    pub source: &'a str,
    /// Identity.
    pub key: FileKey,
    /// Raw path below the source's directory.
    pub raw_path: &'a [u8],
    /// Shown path below the source's directory.
    pub display: &'a str,
    /// The source's directory.
    pub root: &'a str,
    /// Shown path with the number of a twin; the record's key.
    pub record_key: &'a str,
    /// Path in the block store.
    pub store_path: &'a str,
    /// Size and time.
    pub stat: Stat,
    /// SHA-256 of the content.
    pub sha256: &'a [u8; 32],
}

/// Makes records as a source's settings say.
#[derive(Clone, Debug)]
pub struct RecordBuilder {
    config: RecordConfig,
    subject_line: Regex,
    zone: TimeZone,
    forced: Option<&'static Encoding>,
}

impl RecordBuilder {
    /// Checks the settings.
    pub fn new(config: &RecordConfig) -> Result<Self, ConfigError> {
        let subject_line = regex::RegexBuilder::new(&config.subject_line)
            .size_limit(1 << 20)
            .build()
            .map_err(|e| bad("record.subject_line", e.to_string()))?;
        if subject_line.captures_len() < 2 {
            return Err(bad("record.subject_line", "needs a group that holds the subject"));
        }
        let zone = zone(&config.zone)?;
        let forced = match &config.encoding {
            None => None,
            Some(name) => Some(
                encoding::by_name(name)
                    .ok_or_else(|| bad("record.encoding", format!("{name} is not known")))?,
            ),
        };
        let hint = config.encoding_hint.as_bytes();
        if hint.iter().any(|b| !b.is_ascii_lowercase()) {
            return Err(bad("record.encoding_hint", "is a country's domain in lower case"));
        }
        let builder = Self { config: config.clone(), subject_line, zone, forced };
        jiff::fmt::strtime::format(&config.time_format, &builder.zoned(0))
            .map_err(|e| bad("record.time_format", e.to_string()))?;
        Ok(builder)
    }

    /// Builds the record of a file.
    pub fn build(&self, facts: &FileFacts<'_>, bytes: &[u8]) -> Record {
        let mut headers = self.facts_headers(facts);
        let decoded = encoding::decode(bytes, self.forced, &self.config.encoding_hint);
        let text = match decoded {
            Decoded::Binary => {
                headers.push((headers::BINARY, b"true".to_vec()));
                String::new()
            }
            Decoded::Text { text, encoding, errors } => {
                headers.push((headers::ENCODING, encoding.into()));
                if errors > 0 {
                    headers.push((headers::DECODE_ERRORS, errors.to_string().into_bytes()));
                }
                text
            }
        };
        // What cannot fit is not built: copies and escapes make it many times as large.
        let whole = (text.len() <= MAX_WHOLE_TEXT_BYTES).then(|| self.value(facts, &text));
        let value = match whole.filter(|value| value.len() <= MAX_RECORD_BYTES) {
            Some(value) => value,
            None => {
                headers.push((headers::TRUNCATED, b"true".to_vec()));
                self.cut_value(facts, &text)
            }
        };
        Record { key: facts.record_key.as_bytes().to_vec(), value, headers }
    }

    /// The value with a part of the text. Control characters take six bytes each in JSON: halves
    /// until it fits.
    fn cut_value(&self, facts: &FileFacts<'_>, text: &str) -> Vec<u8> {
        let mut keep = REFERENCE_TEXT_BYTES.min(text.len());
        loop {
            while !text.is_char_boundary(keep) {
                keep -= 1;
            }
            let value = self.value(facts, text.get(..keep).unwrap_or_default());
            if value.len() <= MAX_RECORD_BYTES || keep == 0 {
                return value;
            }
            keep /= 2;
        }
    }

    fn facts_headers(&self, facts: &FileFacts<'_>) -> Vec<(&'static str, Vec<u8>)> {
        let mut out = vec![
            (headers::ID, facts.key.hex().into_bytes()),
            (headers::SOURCE, facts.source.into()),
            (headers::CONTENT_REF, facts.store_path.into()),
            (headers::CONTENT_LENGTH, facts.stat.size.to_string().into_bytes()),
            (headers::CONTENT_SHA256, hex(facts.sha256).into_bytes()),
        ];
        if facts.raw_path != facts.display.as_bytes() {
            out.push((headers::PATH_RAW, STANDARD.encode(facts.raw_path).into_bytes()));
        }
        out
    }

    fn value(&self, facts: &FileFacts<'_>, text: &str) -> Vec<u8> {
        let name = facts.display.rsplit('/').next().unwrap_or(facts.display);
        let json = match self.config.shape {
            Shape::Document => {
                let (subject, body) = self.split(text);
                serde_json::to_vec(&Document {
                    id: facts.key.hex(),
                    file_name: name.to_owned(),
                    full_path_name: join(facts.root, facts.display),
                    subject,
                    body: self.newlines(body),
                    write_datetime: self.datetime(facts.stat.mtime_s),
                })
            }
            Shape::Plain => {
                let mut map = serde_json::Map::new();
                map.insert(name.to_owned(), self.newlines(text.to_owned()).into());
                serde_json::to_vec(&map)
            }
        };
        json.expect("strings serialize")
    }

    /// The body of a whole text, for a reader of a file that its record only refers to.
    pub fn body_of(&self, text: &str) -> String {
        match self.config.shape {
            Shape::Document => self.newlines(self.split(text).1),
            Shape::Plain => self.newlines(text.to_owned()),
        }
    }

    /// Subject and body of a text.
    fn split(&self, text: &str) -> (String, String) {
        let lines = || text.split_inclusive('\n');
        let found = lines().take(SUBJECT_LINES).enumerate().find_map(|(number, line)| {
            let captures = self.subject_line.captures(line.trim_end())?;
            Some((number, captures.get(1)?.as_str().trim().to_owned()))
        });
        let first = || lines().enumerate().find(|(_, line)| !line.trim().is_empty());
        let (number, subject) = match found {
            Some(found) => found,
            None => match first() {
                Some((number, line)) => (number, line.trim().to_owned()),
                None => return (String::new(), text.to_owned()),
            },
        };
        let cut: String = subject.chars().take(MAX_SUBJECT_CHARS).collect();
        // A subject that was cut stays whole in the body: nothing is lost.
        if self.config.body == BodyPart::All || cut.len() < subject.len() {
            return (cut, text.to_owned());
        }
        let rest: String =
            lines().enumerate().filter(|(n, _)| *n != number).map(|(_, line)| line).collect();
        (cut, rest.trim_start_matches(['\r', '\n']).to_owned())
    }

    fn newlines(&self, text: String) -> String {
        match self.config.body_newlines {
            Newlines::Keep => text,
            Newlines::Space => {
                let parts = text.split(['\r', '\n']).filter(|part| !part.is_empty());
                parts.collect::<Vec<_>>().join(" ")
            }
        }
    }

    fn zoned(&self, mtime_s: i64) -> jiff::Zoned {
        let time = Timestamp::from_second(mtime_s).unwrap_or(Timestamp::UNIX_EPOCH);
        time.to_zoned(self.zone.clone())
    }

    fn datetime(&self, mtime_s: i64) -> String {
        jiff::fmt::strtime::format(&self.config.time_format, &self.zoned(mtime_s))
            .unwrap_or_default()
    }
}

/// A zone by name. Seoul works on machines without a zone database: its offset is fixed.
fn zone(name: &str) -> Result<TimeZone, ConfigError> {
    match TimeZone::get(name) {
        Ok(zone) => Ok(zone),
        Err(_) if name == "Asia/Seoul" => Ok(TimeZone::fixed(Offset::constant(9))),
        Err(_) if name == "UTC" => Ok(TimeZone::UTC),
        Err(e) => Err(bad("record.zone", e.to_string())),
    }
}

fn join(root: &str, path: &str) -> String {
    format!("{}/{path}", root.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    const STAT: Stat = Stat { size: 10, mtime_s: 1_740_000_000 };

    fn build(config: RecordConfig, name: &str, bytes: &[u8]) -> Record {
        let facts = FileFacts {
            source: "news",
            key: FileKey([0xab; 16]),
            raw_path: name.as_bytes(),
            display: name,
            root: "/data/",
            record_key: name,
            store_path: "/datalake/news/x",
            stat: STAT,
            sha256: &[1; 32],
        };
        RecordBuilder::new(&config).unwrap().build(&facts, bytes)
    }

    /// Values begin and end alike; `middle` is what is between.
    #[track_caller]
    fn check(bytes: &[u8], middle: Expect) {
        let record = build(RecordConfig::default(), "a/b.txt", bytes);
        let value = std::str::from_utf8(&record.value).unwrap();
        let head = r#"{"id":"abababababababababababababababab","fileName":"b.txt","#;
        let tail = r#""writeDatetime":"2025-02-20 06:20:00"}"#;
        middle.assert_eq(value.strip_prefix(head).unwrap().strip_suffix(tail).unwrap());
    }

    #[test]
    fn records_have_six_fields_in_order() {
        check(
            "회의\n\n\"두 시\" \\ 시작\u{1}\n".as_bytes(),
            expect![[
                r#""fullPathName":"/data/a/b.txt","subject":"회의","body":"\"두 시\" \\ 시작\u0001\n","#
            ]],
        );
        check(b"", expect![[r#""fullPathName":"/data/a/b.txt","subject":"","body":"","#]]);
    }

    #[track_caller]
    fn check_split(text: &str, subject: &str, body: &str) {
        let record = build(RecordConfig::default(), "a.txt", text.as_bytes());
        let document: Document = serde_json::from_slice(&record.value).unwrap();
        assert_eq!((document.subject.as_str(), document.body.as_str()), (subject, body));
    }

    #[test]
    fn subjects_are_found_and_nothing_is_lost() {
        check_split("\n\n  first  \nrest", "first", "rest");
        check_split("첫 줄\r\n\r\n본문\r\n", "첫 줄", "본문\r\n");
        check_split("날짜: 오늘\n제목: 회의\n\n본문", "회의", "날짜: 오늘\n\n본문");
        check_split("Subject: Budget \"x\"\nbody", "Budget \"x\"", "body");
        check_split("\n\n", "", "\n\n");
        let long = "가".repeat(600);
        check_split(&long, &"가".repeat(512), &long);
    }

    #[test]
    fn options_change_body_and_shape() {
        let all = RecordConfig {
            body: BodyPart::All,
            body_newlines: Newlines::Space,
            ..Default::default()
        };
        let record = build(all, "a.txt", b"one\r\n\r\ntwo\n");
        let document: Document = serde_json::from_slice(&record.value).unwrap();
        assert_eq!(document.body, "one two");
        let plain = RecordConfig { shape: Shape::Plain, ..Default::default() };
        let record = build(plain, "d/\"q\".txt", b"text\n");
        assert_eq!(record.value, br#"{"\"q\".txt":"text\n"}"#);
    }

    #[test]
    fn large_and_binary_files_say_so_in_headers() {
        let big = "회의 시장 날씨\n".repeat(100_000);
        let record = build(RecordConfig::default(), "a.txt", big.as_bytes());
        assert!(record.value.len() < 2 * REFERENCE_TEXT_BYTES);
        let has = |r: &Record, name| r.headers.iter().any(|(n, _)| *n == name);
        assert!(has(&record, headers::TRUNCATED) && has(&record, headers::CONTENT_REF));
        let nasty = build(RecordConfig::default(), "a.txt", &vec![1; 900_000]);
        assert!(nasty.value.len() <= MAX_RECORD_BYTES);
        let huge = build(RecordConfig::default(), "a.txt", "회의\n".repeat(2_000_000).as_bytes());
        assert!(has(&huge, headers::TRUNCATED) && huge.value.len() > REFERENCE_TEXT_BYTES);
        assert!(huge.value.len() <= MAX_RECORD_BYTES);
        let binary = build(RecordConfig::default(), "a.txt", b"a\0b");
        assert!(has(&binary, headers::BINARY) && !has(&binary, headers::ENCODING));
    }

    #[test]
    fn bad_settings_are_named() {
        let check = |config: RecordConfig, key| {
            assert_eq!(RecordBuilder::new(&config).unwrap_err().key, key);
        };
        let base = RecordConfig::default;
        check(RecordConfig { subject_line: "(".into(), ..base() }, "record.subject_line");
        check(RecordConfig { subject_line: "x".into(), ..base() }, "record.subject_line");
        check(RecordConfig { zone: "Mars/Base".into(), ..base() }, "record.zone");
        check(RecordConfig { time_format: "%Q%".into(), ..base() }, "record.time_format");
        check(RecordConfig { encoding: Some("x".into()), ..base() }, "record.encoding");
        check(RecordConfig { encoding_hint: "KR".into(), ..base() }, "record.encoding_hint");
    }
}

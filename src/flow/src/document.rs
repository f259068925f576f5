//! From a record of the topic to a document of the index. Pure.
//!
//! Accepted are the collector's two shapes, by whoever produced them: an object with string
//! fields `id`, `fileName`, `fullPathName`, `subject`, `body`, `writeDatetime` (only `id` must be
//! there; other fields are kept as they are), and `{"<file name>": "<text>"}` with the id in a
//! header. Anything else goes to quarantine.

use collect::record::headers;
use serde_json::{Map, Value};

use crate::ports::{IndexDoc, TopicRecord};

/// Longest id that an index takes.
const MAX_ID_BYTES: usize = 512;

/// Fields that must be text where they are present.
const TEXT_FIELDS: [&str; 6] =
    ["id", "fileName", "fullPathName", "subject", "body", "writeDatetime"];

/// A document, and what it still needs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mapped {
    /// Its id.
    pub id: String,
    /// Its fields.
    pub fields: Map<String, Value>,
    /// Path in the block store whose text is to replace `body`, with its encoding.
    pub full_text: Option<(String, Option<String>)>,
}

/// Maps a record; the error is for people.
pub(crate) fn map(record: &TopicRecord) -> Result<Mapped, String> {
    let value = record.value.as_deref().ok_or("has no value")?;
    let json: Value = serde_json::from_slice(value).map_err(|e| format!("is not JSON: {e}"))?;
    let Value::Object(fields) = json else { return Err("is not a JSON object".to_owned()) };
    let (id, fields) = match fields.get("id") {
        Some(Value::String(id)) => (id.clone(), fields),
        Some(_) => return Err("field id is no text".to_owned()),
        None => plain(record, fields)?,
    };
    if id.is_empty() || id.len() > MAX_ID_BYTES {
        return Err(format!("id has {} bytes, 1 to {MAX_ID_BYTES} are possible", id.len()));
    }
    for name in TEXT_FIELDS {
        if fields.get(name).is_some_and(|value| !value.is_string()) {
            return Err(format!("field {name} is no text"));
        }
    }
    let full_text = match (header(record, headers::TRUNCATED), header(record, headers::CONTENT_REF))
    {
        (Some(flag), Some(path)) if flag == "true" => {
            Some((path, header(record, headers::ENCODING)))
        }
        _ => None,
    };
    Ok(Mapped { id, fields, full_text })
}

/// The plain shape: the id comes from a header, the name is the only key.
fn plain(
    record: &TopicRecord,
    fields: Map<String, Value>,
) -> Result<(String, Map<String, Value>), String> {
    let id = header(record, headers::ID).ok_or("has neither a field id nor a header x-id")?;
    let mut entries = fields.into_iter();
    let (Some((name, Value::String(text))), None) = (entries.next(), entries.next()) else {
        return Err("is not one file name with its text".to_owned());
    };
    let mut out = Map::new();
    out.insert("id".to_owned(), id.clone().into());
    out.insert("fileName".to_owned(), name.into());
    out.insert("body".to_owned(), text.into());
    Ok((id, out))
}

fn header(record: &TopicRecord, name: &str) -> Option<String> {
    let (_, value) = record.headers.iter().find(|(n, _)| n == name)?;
    std::str::from_utf8(value).ok().map(str::to_owned)
}

impl Mapped {
    /// Sets the body, or as much of its beginning as fits into a document of so many bytes.
    pub(crate) fn set_body(&mut self, mut body: String, document_bytes: usize) {
        self.fields.insert("body".to_owned(), Value::String(String::new()));
        let others = self.id.len() + serde_json::to_vec(&self.fields).map_or(0, |json| json.len());
        cut(&mut body, document_bytes.saturating_sub(others));
        self.fields.insert("body".to_owned(), body.into());
    }

    /// The document as the index takes it.
    pub(crate) fn into_doc(mut self, strip_controls: bool) -> IndexDoc {
        if strip_controls {
            for value in self.fields.values_mut() {
                if let Value::String(text) = value {
                    let bad = |c: char| c.is_control() && !"\t\r\n".contains(c);
                    *text = text.replace(bad, "\u{fffd}");
                }
            }
        }
        let source = serde_json::to_vec(&self.fields).expect("JSON values serialize");
        IndexDoc { id: self.id, source: source.into() }
    }
}

/// Cuts a text to so many bytes of JSON, without its quotes.
fn cut(text: &mut String, limit: usize) {
    let mut used = 0;
    let too_much = text.char_indices().find(|(_, c)| {
        used += match c {
            '"' | '\\' | '\n' | '\r' | '\t' => 2,
            // Replaced by a character of three bytes where controls are stripped.
            '\u{8}' | '\u{c}' | '\u{7f}'..='\u{9f}' => 3,
            '\0'..='\u{1f}' => 6,
            c => c.len_utf8(),
        };
        used > limit
    });
    if let Some((at, _)) = too_much {
        text.truncate(at);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn record(value: &str, headers: &[(&str, &str)]) -> TopicRecord {
        TopicRecord {
            offset: 1,
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
            headers: headers
                .iter()
                .map(|(n, v)| ((*n).to_owned(), Bytes::copy_from_slice(v.as_bytes())))
                .collect(),
        }
    }

    #[track_caller]
    fn refused(value: &str, want: &str) {
        let error = map(&record(value, &[])).unwrap_err();
        assert!(error.contains(want), "{error}");
    }

    #[test]
    fn both_shapes_become_documents() {
        let mapped = map(&record(r#"{"id":"a","subject":"회의","body":"x","n":1}"#, &[])).unwrap();
        assert_eq!(
            mapped.clone().into_doc(false).source,
            r#"{"id":"a","subject":"회의","body":"x","n":1}"#
        );
        let mapped = map(&record(r#"{"b.txt":"text\u0001"}"#, &[("x-id", "77")])).unwrap();
        let doc = mapped.into_doc(true);
        assert_eq!(doc.id, "77");
        assert_eq!(doc.source, "{\"id\":\"77\",\"fileName\":\"b.txt\",\"body\":\"text\u{fffd}\"}");
    }

    #[test]
    fn a_body_is_cut_to_what_a_document_may_have() {
        for text in ["회의 시장\n", "\u{1}\"\\\t", "a", "😀"] {
            for limit in [0, 40, 41, 42, 43, 44, 45, 46, 100, 1000] {
                let record = record(r#"{"id":"a","subject":"회의"}"#, &[]);
                let mut mapped = map(&record).unwrap();
                mapped.set_body(text.repeat(500), limit);
                let doc = mapped.clone().into_doc(false);
                let others = r#"{"id":"a","subject":"회의","body":""}"#.len();
                let bytes = doc.id.len() + doc.source.len();
                assert!(bytes <= limit.max(others + 1), "{bytes} of {limit}");
                let (cut, whole) = (mapped.fields["body"].as_str().unwrap(), text.repeat(500));
                assert!(whole.starts_with(cut));
                assert!(whole == cut || bytes + 6 > limit, "{bytes} of {limit}");
            }
        }
        for text in ["\u{7f}", "\u{85}", "\u{c}\u{8}", "\u{1}x"] {
            for strip in [false, true] {
                let mut mapped = map(&record(r#"{"id":"a"}"#, &[])).unwrap();
                mapped.set_body(text.repeat(500), 600);
                let doc = mapped.into_doc(strip);
                assert!(doc.id.len() + doc.source.len() <= 600);
            }
        }
        let mut whole = map(&record(r#"{"id":"a"}"#, &[])).unwrap();
        whole.set_body("회의".to_owned(), 1000);
        assert_eq!(whole.fields["body"], "회의");
    }

    #[test]
    fn what_is_no_document_says_why() {
        refused("not json", "is not JSON");
        refused("[1]", "is not a JSON object");
        refused(r#"{"id":1}"#, "field id is no text");
        refused(r#"{"id":""}"#, "id has 0 bytes");
        refused(r#"{"id":"a","body":[1]}"#, "field body is no text");
        refused(r#"{"x.txt":"t"}"#, "neither a field id");
        assert!(map(&TopicRecord::default()).is_err());
        let two = record(r#"{"a":"1","b":"2"}"#, &[("x-id", "1")]);
        assert!(map(&two).unwrap_err().contains("one file name"));
    }

    #[test]
    fn large_files_name_their_text() {
        let headers =
            [("x-truncated", "true"), ("x-content-ref", "/d/a"), ("x-encoding", "EUC-KR")];
        let mapped = map(&record(r#"{"id":"a","body":"beginning"}"#, &headers)).unwrap();
        assert_eq!(mapped.full_text, Some(("/d/a".to_owned(), Some("EUC-KR".to_owned()))));
        let small = map(&record(r#"{"id":"a"}"#, &headers[1..])).unwrap();
        assert_eq!(small.full_text, None);
    }
}

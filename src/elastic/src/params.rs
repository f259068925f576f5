//! Parameters of a URL, and the refusal of those that nobody knows.

use std::collections::BTreeMap;

use index::EsError;
use percent_encoding::percent_decode_str;

/// Parameters that every request takes.
pub const COMMON: &[&str] =
    &["pretty", "human", "error_trace", "filter_path", "format", "source", "source_content_type"];

/// Parameters by name; a name without `=` has an empty value.
#[derive(Clone, Debug, Default)]
pub struct Params(BTreeMap<String, String>);

impl Params {
    /// Reads a query string.
    pub fn parse(query: &str) -> Result<Self, EsError> {
        let mut params = BTreeMap::new();
        for pair in query.split(['&', ';']).filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            params.insert(decode(name)?, decode(value)?);
        }
        Ok(Self(params))
    }

    /// A parameter's text.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Sets a parameter, as a path segment does.
    pub fn set(&mut self, name: &str, value: &str) {
        self.0.insert(name.to_owned(), value.to_owned());
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// A flag: absent is `default`, present without a value is true.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, EsError> {
        match self.get(name) {
            None => Ok(default),
            Some("" | "true") => Ok(true),
            Some("false") => Ok(false),
            Some(other) => Err(EsError::illegal(format!(
                "Failed to parse value [{other}] as only [true] or [false] are allowed."
            ))),
        }
    }

    /// A number.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, EsError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let bad = |_| {
            let cause = EsError::new(
                400,
                "number_format_exception",
                format!("For input string: \"{text}\""),
            );
            EsError::illegal(format!("Failed to parse int parameter [{name}] with value [{text}]"))
                .because(cause)
        };
        text.parse().map(Some).map_err(bad)
    }

    /// A list separated by commas.
    pub fn list(&self, name: &str) -> Option<Vec<&str>> {
        self.get(name).map(|text| text.split(',').filter(|part| !part.is_empty()).collect())
    }

    /// Refuses parameters that neither the route nor every request knows.
    pub fn refuse_unknown(&self, path: &str, known: &[&str]) -> Result<(), EsError> {
        let is_known = |name: &str| known.contains(&name) || COMMON.contains(&name);
        let unknown: Vec<&str> =
            self.0.keys().map(String::as_str).filter(|n| !is_known(n)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let plural = if unknown.len() == 1 { "" } else { "s" };
        let mut text = format!("request [{path}] contains unrecognized parameter{plural}: ");
        for (i, name) in unknown.iter().enumerate() {
            if i > 0 {
                text.push_str(", ");
            }
            let meant = did_you_mean(name, known.iter().chain(COMMON).copied());
            let arrow = if meant.is_empty() { "" } else { " ->" };
            text.push_str(&format!("[{name}]{arrow}{meant}"));
        }
        Err(EsError::illegal(text))
    }
}

fn decode(text: &str) -> Result<String, EsError> {
    let text = text.replace('+', " ");
    let decoded = percent_decode_str(&text).decode_utf8();
    decoded.map(|text| text.into_owned()).map_err(|_| {
        EsError::illegal(format!("unterminated escape sequence at end of string: {text}"))
    })
}

/// Elasticsearch proposes names whose Levenshtein similarity is above one half.
pub(crate) fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let mut near: Vec<(f32, &str)> = known
        .map(|candidate| (similarity(name, candidate), candidate))
        .filter(|(score, _)| *score > 0.5)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    near.dedup();
    match near.as_slice() {
        [] => String::new(),
        [(_, one)] => format!(" did you mean [{one}]?"),
        many => {
            let names: Vec<&str> = many.iter().map(|(_, name)| *name).collect();
            format!(" did you mean any of [{}]?", names.join(", "))
        }
    }
}

fn similarity(a: &str, b: &str) -> f32 {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(100).collect(), b.chars().collect());
    let longest = a.len().max(b.len());
    if longest == 0 {
        return 1.0;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
        for (j, y) in b.iter().enumerate() {
            let [left, above] = [row.get(j), row.get(j + 1)].map(|n| n.copied().unwrap_or(0));
            let best = (diagonal + usize::from(x != y)).min(left + 1).min(above + 1);
            diagonal = above;
            if let Some(slot) = row.get_mut(j + 1) {
                *slot = best;
            }
        }
    }
    let distance = row.last().copied().unwrap_or(longest);
    1.0 - distance as f32 / longest as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_parameters_are_named_with_what_was_meant() {
        let params = Params::parse("rooting=1&pretty").unwrap();
        let error = params.refuse_unknown("/a/_doc/1", &["routing", "refresh"]).unwrap_err();
        assert_eq!(
            error.reason,
            "request [/a/_doc/1] contains unrecognized parameter: [rooting] -> did you mean \
             [routing]?"
        );
        let params = Params::parse("x=1&y=2").unwrap();
        let reason = params.refuse_unknown("/", &[]).unwrap_err().reason;
        assert_eq!(reason, "request [/] contains unrecognized parameters: [x], [y]");
    }

    #[test]
    fn values_are_decoded() {
        let params = Params::parse("q=a+b%ED%9A%8C&v&size=7").unwrap();
        assert_eq!(params.get("q"), Some("a b회"));
        assert!(params.flag("v", false).unwrap());
        assert_eq!(params.number::<u32>("size").unwrap(), Some(7));
    }
}

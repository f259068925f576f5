//! Analysis: from text to tokens, as Lucene's analyzers do it.
//!
//! Built-in analyzers: `standard`, `simple`, `whitespace`, `keyword`, `stop`, `english`, `cjk`,
//! `pattern` is custom only. An index may define its own from tokenizers and filters. Offsets of
//! tokens are byte offsets into the analysed text; [`utf16_offsets`] turns them into what
//! Elasticsearch reports.

mod filters;
mod registry;
mod tokenize;

pub use registry::{Analysis, nest};

pub(crate) use filters::Filter;
pub(crate) use tokenize::Tokenizer;

/// One token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The text to index or to look for.
    pub text: String,
    /// First byte in the analysed text.
    pub start: usize,
    /// Byte behind the last one.
    pub end: usize,
    /// Position; tokens of one place share it.
    pub position: u32,
    /// Lucene's type attribute, for example `<ALPHANUM>`.
    pub kind: &'static str,
}

/// A tokenizer and the filters behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct Analyzer {
    /// Name by which mappings call it.
    pub name: String,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) filters: Vec<Filter>,
}

impl Analyzer {
    /// Tokens of a text in order.
    pub fn analyze(&self, text: &str) -> Vec<Token> {
        let mut tokens = self.tokenizer.tokens(text);
        for filter in &self.filters {
            tokens = filter.apply(tokens);
        }
        tokens
    }

    /// The whole text through the filters, for normalizers and for wildcard terms.
    pub fn normalize(&self, text: &str) -> String {
        let mut tokens = Tokenizer::Keyword.tokens(text);
        for filter in self.filters.iter().filter(|filter| filter.is_normalizing()) {
            tokens = filter.apply(tokens);
        }
        tokens.into_iter().next().map(|token| token.text).unwrap_or_default()
    }
}

/// Byte offsets as offsets in UTF-16 units, which Java counts.
pub fn utf16_offsets(text: &str, token: &Token) -> (usize, usize) {
    let units = |end: usize| text.get(..end).map_or(0, |head| head.encode_utf16().count());
    (units(token.start), units(token.end))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(analyzer: &str, text: &str, expected: &[&str]) {
        let analysis = Analysis::new(&json!({})).unwrap();
        let tokens = analysis.analyzer(analyzer).unwrap().analyze(text);
        let texts: Vec<&str> = tokens.iter().map(|token| token.text.as_str()).collect();
        assert_eq!(texts, expected, "{analyzer} {text}");
    }

    #[test]
    fn standard_follows_word_boundaries() {
        check(
            "standard",
            "The 2 QUICK Brown-Foxes jumped.",
            &["the", "2", "quick", "brown", "foxes", "jumped"],
        );
        check("standard", "it's 3.14 foo_bar a@b.com", &["it's", "3.14", "foo_bar", "a", "b.com"]);
        check("standard", "회의에서 결정", &["회의에서", "결정"]);
        check("standard", "東京タワー", &["東", "京", "タワー"]);
        check("standard", "", &[]);
    }

    #[test]
    fn other_analyzers_split_as_named() {
        check("whitespace", "A b-C  d", &["A", "b-C", "d"]);
        check("simple", "it's 2 OK", &["it", "s", "ok"]);
        check("keyword", "New York", &["New York"]);
        check("stop", "the quick fox", &["quick", "fox"]);
        check("english", "The foxes' running", &["fox", "run"]);
    }

    #[test]
    fn cjk_makes_bigrams_of_runs() {
        check("cjk", "회의에서", &["회의", "의에", "에서"]);
        check("cjk", "회의", &["회의"]);
        check("cjk", "한 the 東京ABC", &["한", "東京", "abc"]);
        check("cjk", "ＡＢＣ ｶﾞｷﾞ", &["abc", "ガギ"]);
    }

    #[test]
    fn positions_count_stop_words() {
        let analysis = Analysis::new(&json!({})).unwrap();
        let tokens = analysis.analyzer("stop").unwrap().analyze("fox the dog");
        assert_eq!(tokens.iter().map(|t| t.position).collect::<Vec<_>>(), [0, 2]);
        let tokens = analysis.analyzer("cjk").unwrap().analyze("가나다");
        assert_eq!(tokens.iter().map(|t| (t.start, t.end)).collect::<Vec<_>>(), [(0, 6), (3, 9)]);
        assert_eq!(utf16_offsets("가나다", &tokens[1]), (1, 3));
    }

    #[test]
    fn an_index_defines_its_own() {
        let settings = json!({"analysis": {
            "analyzer": {"mine": {"type": "custom", "tokenizer": "whitespace",
                "filter": ["lowercase", "asciifolding", "short"]}},
            "filter": {"short": {"type": "stop", "stopwords": ["x"]}},
            "normalizer": {"low": {"type": "custom", "filter": ["lowercase"]}}
        }});
        let analysis = Analysis::new(&settings).unwrap();
        let tokens = analysis.analyzer("mine").unwrap().analyze("Café X Ü");
        assert_eq!(tokens.iter().map(|t| t.text.as_str()).collect::<Vec<_>>(), ["cafe", "u"]);
        assert_eq!(analysis.normalizer("low").unwrap().normalize("Foo BAR"), "foo bar");
        let bad = json!({"analysis": {"analyzer": {"a": {"tokenizer": "nope"}}}});
        let error = Analysis::new(&bad).unwrap_err();
        assert!(error.reason.contains("failed to find tokenizer under name [nope]"), "{error}");
    }
}

//! Parsing of the full-text queries.

use serde_json::{Map, Value};

use super::parse::{Reader, fuzziness, plain_text, single};
use super::{MatchKind, MatchOptions, MultiKind, Operator, Query, QueryKind, QueryStringOptions};
use crate::error::{EsError, Result};
use crate::mapping::parse_bool;

pub(super) fn parse(name: &str, body: &Map<String, Value>) -> Result<Query> {
    match name {
        "match" => matching(name, body, MatchKind::Terms),
        "match_phrase" => matching(name, body, MatchKind::Phrase),
        "match_phrase_prefix" => matching(name, body, MatchKind::PhrasePrefix),
        "match_bool_prefix" => matching(name, body, MatchKind::BoolPrefix),
        "multi_match" => multi(body),
        _ => query_string(name, body),
    }
}

fn matching(name: &str, body: &Map<String, Value>, kind: MatchKind) -> Result<Query> {
    let (field, value) = single(name, body)?;
    let field = field.clone();
    match value {
        Value::Object(inner) => {
            let mut at = Reader::new(name, inner);
            let text = at.take("query").filter(|v| !v.is_null()).cloned();
            let options = options(&mut at, kind)?;
            at.done()?;
            let text = text.ok_or_else(|| EsError::parsing("No text specified for text query"))?;
            Ok(at.query(QueryKind::Match { field, text, kind, options }))
        }
        Value::Array(_) => {
            Err(EsError::parsing(format!("[{name}] unknown token [START_ARRAY] after [{field}]")))
        }
        Value::Null => Err(EsError::illegal(format!("[{name}] requires query value"))),
        text => {
            let text = text.clone();
            let options = MatchOptions::default();
            Ok(Query::new(QueryKind::Match { field, text, kind, options }))
        }
    }
}

pub(super) fn operator(value: Option<&Value>) -> Result<Operator> {
    match value.and_then(Value::as_str) {
        None => Ok(Operator::Or),
        Some(text) if text.eq_ignore_ascii_case("or") => Ok(Operator::Or),
        Some(text) if text.eq_ignore_ascii_case("and") => Ok(Operator::And),
        Some(text) => Err(EsError::illegal(format!(
            "No enum constant org.elasticsearch.index.query.Operator.{}",
            text.to_uppercase()
        ))),
    }
}

fn options(at: &mut Reader<'_>, kind: MatchKind) -> Result<MatchOptions> {
    let mut out = MatchOptions { analyzer: at.text("analyzer"), ..MatchOptions::default() };
    if kind != MatchKind::BoolPrefix {
        let zero = at.text("zero_terms_query").unwrap_or_default();
        out.zero_terms_all = zero.eq_ignore_ascii_case("all");
    }
    match kind {
        MatchKind::Terms | MatchKind::BoolPrefix => {
            out.operator = operator(at.take("operator"))?;
            out.minimum = at.text("minimum_should_match");
            out.fuzziness = fuzziness(at.take("fuzziness"))?;
            out.prefix_length = at.number("prefix_length")?.unwrap_or(0.0) as usize;
            at.take("fuzzy_transpositions");
            at.take("fuzzy_rewrite");
        }
        MatchKind::Phrase | MatchKind::PhrasePrefix => {
            out.slop = at.number("slop")?.unwrap_or(0.0).max(0.0) as u32;
        }
    }
    if kind == MatchKind::Terms {
        out.lenient = at.flag("lenient", false);
        at.take("cutoff_frequency");
        at.take("auto_generate_synonyms_phrase_query");
    }
    if kind != MatchKind::Phrase {
        let expansions = at.number("max_expansions")?.unwrap_or(50.0);
        if expansions <= 0.0 {
            return Err(EsError::illegal("No negative maxExpansions allowed."));
        }
        out.max_expansions = expansions as u32;
    }
    Ok(out)
}

/// `title^2` is a field with a boost.
fn fields(value: Option<&Value>) -> Result<Vec<(String, f32)>> {
    let list = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list.iter().filter_map(plain_text).collect(),
        Some(one) => plain_text(one).into_iter().collect::<Vec<_>>(),
    };
    list.iter()
        .map(|text| match text.rsplit_once('^') {
            None => Ok((text.clone(), 1.0)),
            Some((name, boost)) => boost
                .parse()
                .map(|boost| (name.to_owned(), boost))
                .map_err(|_| EsError::illegal(format!("For input string: \"{boost}\""))),
        })
        .collect()
}

fn multi(body: &Map<String, Value>) -> Result<Query> {
    let mut at = Reader::new("multi_match", body);
    let text = at.take("query").filter(|v| !v.is_null()).cloned();
    let fields = fields(at.take("fields"))?;
    let kind = match at.text("type").as_deref() {
        None | Some("best_fields") => MultiKind::BestFields,
        Some("most_fields") => MultiKind::MostFields,
        Some("phrase") => MultiKind::Phrase,
        Some("phrase_prefix") => MultiKind::PhrasePrefix,
        Some("bool_prefix") => MultiKind::BoolPrefix,
        Some("cross_fields") => {
            return Err(EsError::unsupported("[multi_match] of type [cross_fields]"));
        }
        Some(other) => {
            return Err(EsError::parse(format!(
                "failed to parse [multi_match] query type [{other}]. unknown type."
            )));
        }
    };
    let tie_breaker = at.number("tie_breaker")?.map(|t| t as f32);
    let mut out = options(&mut at, MatchKind::Terms)?;
    out.slop = at.number("slop")?.unwrap_or(0.0).max(0.0) as u32;
    at.done()?;
    let text = text.ok_or_else(|| EsError::parsing("No text specified for multi_match query"))?;
    Ok(at.query(QueryKind::MultiMatch { fields, text, kind, tie_breaker, options: out }))
}

fn query_string(name: &str, body: &Map<String, Value>) -> Result<Query> {
    let mut at = Reader::new(name, body);
    let query = at.text("query");
    let mut fields = fields(at.take("fields"))?;
    let simple = name == "simple_query_string";
    if !simple && let Some(field) = at.text("default_field") {
        fields.push((field, 1.0));
    }
    let mut options = MatchOptions {
        analyzer: at.text("analyzer"),
        minimum: at.text("minimum_should_match"),
        lenient: at.flag("lenient", fields.is_empty()),
        ..MatchOptions::default()
    };
    let operator = operator(at.take("default_operator"))?;
    at.take("analyze_wildcard");
    at.take("auto_generate_synonyms_phrase_query");
    at.take("quote_field_suffix");
    at.take("fuzzy_prefix_length");
    at.take("fuzzy_max_expansions");
    at.take("fuzzy_transpositions");
    let mut allow_leading_wildcard = true;
    let mut time_zone = None;
    if simple {
        at.take("flags");
    } else {
        options.slop = at.number("phrase_slop")?.unwrap_or(0.0) as u32;
        allow_leading_wildcard =
            at.take("allow_leading_wildcard").and_then(parse_bool) != Some(false);
        time_zone = at.text("time_zone");
        for key in [
            "quote_analyzer",
            "fuzziness",
            "rewrite",
            "fuzzy_rewrite",
            "type",
            "tie_breaker",
            "max_determinized_states",
            "enable_position_increments",
            "escape",
        ] {
            at.take(key);
        }
    }
    at.done()?;
    let query = query
        .ok_or_else(|| EsError::parsing(format!("[{name}] must be provided with a [query]")))?;
    let options =
        QueryStringOptions { fields, operator, options, time_zone, allow_leading_wildcard };
    Ok(at.query(match simple {
        true => QueryKind::SimpleQueryString { query, options },
        false => QueryKind::QueryString { query, options },
    }))
}

//! JSON to [`Query`].

use serde_json::{Map, Value};

use super::fulltext;
use super::{Fuzziness, Query, QueryKind, RangeBounds};
use crate::error::{EsError, Result};
use crate::limits;
use crate::mapping::{parse_bool, parse_number};

/// Queries that Elasticsearch has and this server does not.
const UNSUPPORTED: &[&str] = &[
    "boosting",
    "function_score",
    "script_score",
    "script",
    "nested",
    "has_child",
    "has_parent",
    "parent_id",
    "geo_bounding_box",
    "geo_distance",
    "geo_polygon",
    "geo_shape",
    "shape",
    "more_like_this",
    "percolate",
    "rank_feature",
    "distance_feature",
    "wrapper",
    "pinned",
    "intervals",
    "terms_set",
    "span_containing",
    "span_first",
    "span_multi",
    "span_near",
    "span_not",
    "span_or",
    "span_term",
    "span_within",
    "field_masking_span",
    "common",
    "combined_fields",
    "type",
    "knn",
    "text_expansion",
];

const SUPPORTED: &[&str] = &[
    "match_all",
    "match_none",
    "match",
    "match_phrase",
    "match_phrase_prefix",
    "match_bool_prefix",
    "multi_match",
    "term",
    "terms",
    "range",
    "exists",
    "ids",
    "prefix",
    "wildcard",
    "regexp",
    "fuzzy",
    "bool",
    "constant_score",
    "dis_max",
    "query_string",
    "simple_query_string",
];

pub(super) fn query(value: &Value, depth: usize) -> Result<Query> {
    if depth > limits::MAX_DEPTH {
        return Err(EsError::illegal(format!(
            "The nested depth of the query exceeds the maximum nested depth for queries set in \
             [{}]",
            limits::MAX_DEPTH
        )));
    }
    let Value::Object(object) = value else {
        return Err(EsError::parsing("[_na] query malformed, must start with start_object"));
    };
    let mut keys = object.iter();
    let Some((name, body)) = keys.next() else {
        return Err(EsError::illegal("query malformed, empty clause found"));
    };
    if let Some((_, _)) = keys.next() {
        return Err(EsError::parsing(format!(
            "[{name}] malformed query, expected [END_OBJECT] but found [FIELD_NAME]"
        )));
    }
    if !SUPPORTED.contains(&name.as_str()) {
        return Err(unknown(name));
    }
    let Value::Object(body) = body else {
        return Err(EsError::parsing(format!(
            "[{name}] query malformed, no start_object after query name"
        )));
    };
    dispatch(name, body, depth)
}

fn dispatch(name: &str, body: &Map<String, Value>, depth: usize) -> Result<Query> {
    match name {
        "match_all" => {
            let at = Reader::new(name, body);
            at.done()?;
            Ok(at.query(QueryKind::MatchAll))
        }
        "match_none" => {
            let at = Reader::new(name, body);
            at.done()?;
            Ok(at.query(QueryKind::MatchNone))
        }
        "term" => term(body),
        "terms" => terms(body),
        "range" => range(body),
        "exists" => {
            let mut at = Reader::new(name, body);
            let field = at.need_text("field")?;
            at.done()?;
            Ok(at.query(QueryKind::Exists { field }))
        }
        "ids" => ids(body),
        "prefix" | "wildcard" | "regexp" | "fuzzy" => pattern(name, body),
        "bool" => boolean(body, depth),
        "constant_score" => {
            let mut at = Reader::new(name, body);
            let filter = at
                .take("filter")
                .ok_or_else(|| EsError::parsing("[constant_score] requires a 'filter' element"))?;
            let filter = Box::new(query(filter, depth + 1)?);
            at.done()?;
            Ok(at.query(QueryKind::ConstantScore { filter }))
        }
        "dis_max" => {
            let mut at = Reader::new(name, body);
            let tie_breaker = at.number("tie_breaker")?.unwrap_or(0.0) as f32;
            let queries = list(at.take("queries"), depth)?;
            at.done()?;
            if queries.is_empty() {
                return Err(EsError::parsing(
                    "[dis_max] requires 'queries' field with at least one clause",
                ));
            }
            Ok(at.query(QueryKind::DisMax { queries, tie_breaker }))
        }
        _ => fulltext::parse(name, body),
    }
}

fn unknown(name: &str) -> EsError {
    if UNSUPPORTED.contains(&name) {
        return EsError::parsing(format!("[{name}] query is not supported by this server"));
    }
    let near: Vec<&str> = SUPPORTED
        .iter()
        .copied()
        .filter(|known| super::multiterm::edits(name, known) <= 2)
        .collect();
    let hint = match near.as_slice() {
        [] => String::new(),
        [one] => format!(" did you mean [{one}]?"),
        many => format!(" did you mean any of [{}]?", many.join(", ")),
    };
    let text = format!("unknown query [{name}]{hint}");
    let cause = EsError::new(
        400,
        "named_object_not_found_exception",
        format!("[1:1] unknown field [{name}]"),
    );
    EsError::parsing(text).caused_by(cause)
}

/// Reads the keys of one query and refuses those it does not know.
pub(super) struct Reader<'a> {
    name: &'a str,
    body: &'a Map<String, Value>,
    seen: Vec<&'static str>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(name: &'a str, body: &'a Map<String, Value>) -> Self {
        Self { name, body, seen: vec!["boost", "_name"] }
    }

    pub(super) fn take(&mut self, key: &'static str) -> Option<&'a Value> {
        self.seen.push(key);
        self.body.get(key)
    }

    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        self.take(key).and_then(plain_text)
    }

    pub(super) fn need_text(&mut self, key: &'static str) -> Result<String> {
        let name = self.name;
        self.text(key)
            .ok_or_else(|| EsError::parsing(format!("[{name}] must be provided with a [{key}]")))
    }

    pub(super) fn number(&mut self, key: &'static str) -> Result<Option<f64>> {
        match self.take(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => parse_number(value).map(Some).ok_or_else(|| {
                EsError::parsing(format!("[{}] failed to parse field [{key}]", self.name))
            }),
        }
    }

    pub(super) fn flag(&mut self, key: &'static str, default: bool) -> bool {
        self.take(key).and_then(parse_bool).unwrap_or(default)
    }

    /// Fails on keys that nobody took.
    pub(super) fn done(&self) -> Result<()> {
        match self.body.keys().find(|key| !self.seen.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => {
                Err(EsError::parsing(format!("[{}] query does not support [{key}]", self.name)))
            }
        }
    }

    pub(super) fn boost(&self) -> f32 {
        self.body.get("boost").and_then(parse_number).unwrap_or(1.0) as f32
    }

    pub(super) fn query(&self, kind: QueryKind) -> Query {
        Query { kind, boost: self.boost() }
    }
}

/// The text of a scalar.
pub(super) fn plain_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The single field of `{"<field>": ...}`; `boost` and `_name` may stand beside it.
pub(super) fn single<'a>(
    name: &str,
    body: &'a Map<String, Value>,
) -> Result<(&'a String, &'a Value)> {
    let mut fields = body.iter().filter(|(key, _)| !matches!(key.as_str(), "boost" | "_name"));
    let Some(first) = fields.next() else {
        return Err(EsError::illegal(format!("[{name}] query requires a field name")));
    };
    if let Some((second, _)) = fields.next() {
        return Err(EsError::parsing(format!(
            "[{name}] query doesn't support multiple fields, found [{}] and [{second}]",
            first.0
        )));
    }
    Ok(first)
}

fn term(body: &Map<String, Value>) -> Result<Query> {
    let (field, value) = single("term", body)?;
    let field = field.clone();
    match value {
        Value::Object(inner) => {
            let mut at = Reader::new("term", inner);
            let value = at.take("value").cloned();
            let ignore_case = at.flag("case_insensitive", false);
            at.done()?;
            let value = value
                .filter(|v| !v.is_null())
                .ok_or_else(|| EsError::illegal("value cannot be null"))?;
            Ok(at.query(QueryKind::Term { field, value, ignore_case }))
        }
        Value::Array(_) => Err(EsError::parsing("[term] query does not support array of values")),
        Value::Null => Err(EsError::illegal("value cannot be null")),
        value => {
            let kind = QueryKind::Term { field, value: value.clone(), ignore_case: false };
            Ok(Reader::new("term", body).query(kind))
        }
    }
}

fn terms(body: &Map<String, Value>) -> Result<Query> {
    let (field, value) = single("terms", body)?;
    let values = match value {
        Value::Array(values) => values.clone(),
        Value::Object(_) => return Err(EsError::unsupported("[terms] lookup")),
        _ => {
            return Err(EsError::parsing(
                "[terms] query does not support [".to_owned() + field + "]",
            ));
        }
    };
    if values.iter().any(Value::is_null) {
        return Err(EsError::illegal("No value specified for terms query"));
    }
    if values.len() > limits::MAX_TERMS_COUNT {
        return Err(EsError::illegal(format!(
            "failed to create query: The number of terms [{}] used in the Terms Query request has \
             exceeded the allowed maximum of [{}]. This maximum can be set by changing the \
             [index.max_terms_count] index level setting.",
            values.len(),
            limits::MAX_TERMS_COUNT
        )));
    }
    Ok(Reader::new("terms", body).query(QueryKind::Terms { field: field.clone(), values }))
}

fn range(body: &Map<String, Value>) -> Result<Query> {
    let (field, value) = single("range", body)?;
    let Value::Object(inner) = value else {
        return Err(EsError::parsing("[range] query does not support [".to_owned() + field + "]"));
    };
    let mut at = Reader::new("range", inner);
    let include_lower = at.flag("include_lower", true);
    let include_upper = at.flag("include_upper", true);
    let mut bounds = RangeBounds::default();
    let mut take = |key: &'static str| at.take(key).filter(|v| !v.is_null()).cloned();
    if let Some(value) = take("from") {
        bounds.lower = Some((value, include_lower));
    }
    if let Some(value) = take("to") {
        bounds.upper = Some((value, include_upper));
    }
    for (key, included) in [("gt", false), ("gte", true)] {
        if let Some(value) = take(key) {
            bounds.lower = Some((value, included));
        }
    }
    for (key, included) in [("lt", false), ("lte", true)] {
        if let Some(value) = take(key) {
            bounds.upper = Some((value, included));
        }
    }
    bounds.format = at.text("format");
    bounds.time_zone = at.text("time_zone");
    // Relations only matter for range fields, which no mapping here has.
    at.take("relation");
    at.done()?;
    Ok(at.query(QueryKind::Range { field: field.clone(), bounds }))
}

fn ids(body: &Map<String, Value>) -> Result<Query> {
    let mut at = Reader::new("ids", body);
    at.take("type");
    let values = match at.take("values") {
        Some(Value::Array(list)) => list.iter().filter_map(plain_text).collect(),
        Some(other) => plain_text(other).into_iter().collect(),
        None => return Err(EsError::parsing("[ids] requires providing a values array")),
    };
    at.done()?;
    Ok(at.query(QueryKind::Ids { values }))
}

fn pattern(name: &str, body: &Map<String, Value>) -> Result<Query> {
    let (field, value) = single(name, body)?;
    let field = field.clone();
    let own;
    let inner = match value {
        Value::Object(inner) => inner,
        scalar => {
            own = Map::from_iter([("value".to_owned(), scalar.clone())]);
            &own
        }
    };
    let mut at = Reader::new(name, inner);
    let value = if name == "wildcard" && inner.contains_key("wildcard") {
        at.need_text("wildcard")?
    } else {
        at.text("value").ok_or_else(|| EsError::illegal("value cannot be null"))?
    };
    at.take("rewrite");
    let kind = if name == "fuzzy" {
        let fuzziness = fuzziness(at.take("fuzziness"))?.unwrap_or(Fuzziness::Auto(3, 6));
        let prefix_length = at.number("prefix_length")?.unwrap_or(0.0) as usize;
        at.take("max_expansions");
        at.take("transpositions");
        QueryKind::Fuzzy { field, value, fuzziness, prefix_length }
    } else {
        let ignore_case = at.flag("case_insensitive", false);
        match name {
            "prefix" => QueryKind::Prefix { field, value, ignore_case },
            "wildcard" => QueryKind::Wildcard { field, value, ignore_case },
            _ => {
                at.take("flags");
                at.take("flags_value");
                at.take("max_determinized_states");
                QueryKind::Regexp { field, value, ignore_case }
            }
        }
    };
    at.done()?;
    Ok(at.query(kind))
}

pub(super) fn fuzziness(value: Option<&Value>) -> Result<Option<Fuzziness>> {
    let Some(text) = value.and_then(plain_text) else { return Ok(None) };
    let upper = text.to_ascii_uppercase();
    if upper == "AUTO" {
        return Ok(Some(Fuzziness::Auto(3, 6)));
    }
    if let Some(borders) = upper.strip_prefix("AUTO:") {
        let borders: Vec<usize> =
            borders.split(',').filter_map(|n| n.trim().parse().ok()).collect();
        if let [low, high] = borders.as_slice() {
            return Ok(Some(Fuzziness::Auto(*low, *high)));
        }
    }
    match text.parse::<f64>() {
        Ok(edits) if (0.0..=2.0).contains(&edits) => Ok(Some(Fuzziness::Edits(edits as u8))),
        _ => Err(EsError::illegal(format!(
            "Invalid fuzziness value: {text}. Valid values are 0, 1, 2 or AUTO"
        ))),
    }
}

fn list(value: Option<&Value>, depth: usize) -> Result<Vec<Query>> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(|item| query(item, depth + 1)).collect(),
        Some(one) => Ok(vec![query(one, depth + 1)?]),
    }
}

fn boolean(body: &Map<String, Value>, depth: usize) -> Result<Query> {
    let mut at = Reader::new("bool", body);
    let must = list(at.take("must"), depth)?;
    let should = list(at.take("should"), depth)?;
    let filter = list(at.take("filter"), depth)?;
    let mut must_not = list(at.take("must_not"), depth)?;
    must_not.extend(list(at.take("mustNot"), depth)?);
    let minimum = at.text("minimum_should_match");
    at.take("adjust_pure_negative");
    at.done()?;
    let clauses = must.len() + should.len() + filter.len() + must_not.len();
    if clauses > limits::MAX_CLAUSES {
        return Err(too_many_clauses());
    }
    Ok(at.query(QueryKind::Bool { must, should, filter, must_not, minimum }))
}

pub(super) fn too_many_clauses() -> EsError {
    EsError::new(
        400,
        "too_many_clauses",
        format!("maxClauseCount is set to {}", limits::MAX_CLAUSES),
    )
}

use serde_json::{Value, json};

use crate::search::tests::World;

fn library() -> World {
    let mapping = json!({"properties": {
        "t": {"type": "text"}, "u": {"type": "text"}, "k": {"type": "keyword"},
        "n": {"type": "integer"}, "f": {"type": "float"}, "b": {"type": "boolean"},
        "d": {"type": "date", "format": "yyyy-MM-dd HH:mm:ss||yyyy-MM-dd||epoch_millis"},
        "ip": {"type": "ip"}, "x": {"type": "flattened"}, "o": {"properties": {
            "p": {"type": "keyword"}}}}});
    World::new(
        mapping,
        1,
        &[
            (
                "1",
                json!({"t": "the quick brown fox", "k": "Foo", "n": 1, "f": 0.1, "b": true,
                "d": "2024-01-01", "ip": "10.0.0.1", "x": {"a": "v"}}),
            ),
            (
                "2",
                json!({"t": "the lazy dog", "u": "quick", "k": ["Bar", "baz"], "n": [2, 20],
                "f": 1.5, "b": false, "d": "2024-01-02 12:00:00", "ip": "10.1.0.1"}),
            ),
            (
                "3",
                json!({"t": ["brown dog", "quick cat"], "k": "foobar", "n": 3,
                "d": "2023-12-31", "ip": "::1", "o": {"p": "q"}}),
            ),
            ("4", json!({"u": "nothing here"})),
        ],
    )
}

fn check(query: Value, expected: &str) {
    thread_local!(static WORLD: World = library());
    WORLD.with(|world| {
        let body = json!({"query": query, "sort": ["_doc"]});
        assert_eq!(world.ids(body), expected, "{query}");
    });
}

fn check_error(query: Value, text: &str) {
    thread_local!(static WORLD: World = library());
    WORLD.with(|world| {
        let error = world.search(json!({"query": query})).map(|a| a.to_string()).unwrap_err();
        let causes = error.caused_by.as_ref().map_or("", |cause| &cause.reason);
        assert!(format!("{error} {causes}").contains(text), "{query}: {error} {causes}");
    });
}

#[test]
fn full_text() {
    check(json!({"match": {"t": "quick dog"}}), "1 2 3");
    check(json!({"match": {"t": {"query": "quick dog", "operator": "and"}}}), "3");
    check(json!({"match": {"t": {"query": "brown lazy dog", "minimum_should_match": 2}}}), "2 3");
    check(json!({"match": {"t": {"query": "quikc", "fuzziness": "AUTO"}}}), "1 3");
    check(json!({"match": {"n": 20}}), "2");
    check(json!({"match": {"nope": "x"}}), "");
    check(json!({"match": {"t": {"query": "...", "zero_terms_query": "all"}}}), "1 2 3 4");
    check(json!({"match_phrase": {"t": "brown fox"}}), "1");
    check(json!({"match_phrase": {"t": "dog quick"}}), "");
    check(json!({"match_phrase": {"t": {"query": "quick fox", "slop": 1}}}), "1");
    check(json!({"match_phrase_prefix": {"t": "quick bro"}}), "1");
    check(json!({"match_bool_prefix": {"t": "laz"}}), "2");
    check(json!({"multi_match": {"query": "quick", "fields": ["t", "u"]}}), "1 2 3");
    check(json!({"multi_match": {"query": "lazy dog", "fields": ["t"], "type": "phrase"}}), "2");
    check(json!({"multi_match": {"query": "foobar"}}), "3");
}

#[test]
fn exact_values() {
    check(json!({"term": {"k": "Foo"}}), "1");
    check(json!({"term": {"k": {"value": "foo", "case_insensitive": true}}}), "1");
    check(json!({"terms": {"k": ["baz", "foobar"]}}), "2 3");
    check(json!({"term": {"n": 20}}), "2");
    check(json!({"term": {"f": 0.1}}), "1");
    check(json!({"term": {"b": false}}), "2");
    check(json!({"term": {"d": "2024-01-01"}}), "1");
    check(json!({"term": {"ip": "10.0.0.0/8"}}), "1 2");
    check(json!({"term": {"x.a": "v"}}), "1");
    check(json!({"terms": {"_id": ["4", "1"]}}), "1 4");
    check(json!({"term": {"_index": "news"}}), "1 2 3 4");
    check(json!({"ids": {"values": ["2", "9"]}}), "2");
    check(json!({"exists": {"field": "u"}}), "2 4");
    check(json!({"exists": {"field": "o"}}), "3");
    check(json!({"exists": {"field": "n"}}), "1 2 3");
}

#[test]
fn ranges_and_patterns() {
    check(json!({"range": {"n": {"gt": 1, "lte": 3}}}), "2 3");
    check(json!({"range": {"n": {"gte": 2.5}}}), "2 3");
    check(json!({"range": {"f": {"lte": 0.1}}}), "1");
    check(json!({"range": {"n": {"lt": 1}}}), "");
    check(json!({"range": {"n": {"gt": 20}}}), "");
    check(json!({"term": {"n": 0}}), "");
    check(json!({"range": {"d": {"gte": "2024-01-01", "lt": "2024-01-02"}}}), "1");
    check(json!({"range": {"d": {"lte": "2024-01-02"}}}), "1 2 3");
    check(json!({"range": {"d": {"gte": "now-1d/d", "lt": "now/d"}}}), "1");
    check(json!({"range": {"d": {"gte": "2024", "format": "yyyy"}}}), "1 2");
    check(json!({"range": {"d": {"lt": "2023-12-31 08:00:00"}}}), "3");
    let local = json!({"lt": "2023-12-31 08:00:00", "time_zone": "+09:00"});
    check(json!({"range": {"d": local}}), "");
    check(json!({"range": {"k": {"gte": "Foo", "lt": "foo"}}}), "1 2");
    check(json!({"range": {"ip": {"gte": "10.0.0.1", "lt": "10.1.0.0"}}}), "1");
    check(json!({"prefix": {"k": "foo"}}), "3");
    check(json!({"wildcard": {"k": {"value": "*o*"}}}), "1 3");
    check(json!({"wildcard": {"t": "QUI?K"}}), "1 3");
    check(json!({"regexp": {"k": "[fF]oo.*"}}), "1 3");
    check(json!({"fuzzy": {"k": "Fop"}}), "1");
}

#[test]
fn combinations() {
    check(
        json!({"bool": {"must": {"match": {"t": "dog"}}, "must_not": [{"term": {"n": 3}}]}}),
        "2",
    );
    check(json!({"bool": {"must_not": {"exists": {"field": "n"}}}}), "4");
    check(json!({"bool": {"must_not": {"match_all": {}}}}), "");
    check(json!({"bool": {"must_not": {"match": {"nope": "x"}}}}), "1 2 3 4");
    check(json!({"bool": {"filter": [{"term": {"b": true}}]}}), "1");
    check(
        json!({"bool": {"should": [{"term": {"n": 1}}, {"term": {"n": 2}}],
            "filter": {"match_all": {}}, "minimum_should_match": 1}}),
        "1 2",
    );
    check(json!({"bool": {"should": [{"term": {"n": 1}}], "minimum_should_match": 2}}), "");
    check(json!({"bool": {}}), "1 2 3 4");
    check(json!({"constant_score": {"filter": {"term": {"n": 1}}}}), "1");
    check(json!({"dis_max": {"queries": [{"term": {"n": 1}}, {"term": {"n": 3}}]}}), "1 3");
    check(json!({"match_none": {}}), "");
}

#[test]
fn lucene_syntax() {
    let query = |text: &str| json!({"query_string": {"query": text, "default_field": "t"}});
    check(query("quick"), "1 3");
    check(query("quick AND dog"), "3");
    check(query("quick -fox"), "3");
    check(query("+dog NOT lazy"), "3");
    check(query("(fox OR lazy) AND the"), "1 2");
    check(query("\"lazy dog\""), "2");
    check(query("\"quick fox\"~1"), "1");
    check(query("qui* brow?"), "1 3");
    check(query("k:Foo OR n:[2 TO 3]"), "1 2 3");
    check(query("n:>2"), "2 3");
    check(query("n:{1 TO *}"), "2 3");
    check(query("_exists_:u"), "2 4");
    check(query("u:*"), "2 4");
    check(query("k:f\\o\\obar"), "3");
    check(query("k:/[fF]oo/"), "1");
    check(query("quikc~"), "1 3");
    check(query("*"), "1 2 3 4");
    check(json!({"query_string": {"query": "quick"}}), "1 2 3");
    check(
        json!({"query_string": {"query": "quick dog", "fields": ["t"], "default_operator": "AND"}}),
        "3",
    );
    let simple = |text: &str| json!({"simple_query_string": {"query": text, "fields": ["t"]}});
    check(simple("quick + dog"), "3");
    check(simple("fox | lazy"), "1 2");
    check(simple("\"lazy dog\" | fo*"), "1 2");
    check(simple("(((\""), "");
}

#[test]
fn bad_queries_get_elasticsearch_errors() {
    check_error(json!({"mach": {}}), "unknown query [mach] did you mean [match]?");
    check_error(json!({"zzz": {}}), "unknown query [zzz]");
    check_error(json!({"nested": {}}), "[nested] query is not supported");
    check_error(
        json!({"match": {"a": {"query": 1, "x": 1}}}),
        "[match] query does not support [x]",
    );
    check_error(
        json!({"term": {"a": 1, "b": 2}}),
        "[term] query doesn't support multiple fields, found [a] and [b]",
    );
    check_error(json!({"bool": {"x": []}}), "[bool] query does not support [x]");
    check_error(json!({"term": {"n": "abc"}}), "For input string: \"abc\"");
    check_error(json!({"range": {"d": {"gte": "x"}}}), "failed to parse date field [x]");
    check_error(json!({"wildcard": {"n": "1*"}}), "Can only use wildcard queries on keyword");
    check_error(json!({"query_string": {"query": "(a"}}), "Failed to parse query [(a]");
    check_error(json!({"multi_match": {"query": "a", "type": "cross_fields"}}), "is not supported");
    let many: Vec<Value> = (0..1025).map(|n| json!({"term": {"n": n}})).collect();
    check_error(json!({"bool": {"should": many}}), "maxClauseCount is set to 1024");
    let mut deep = json!({"match_all": {}});
    for _ in 0..40 {
        deep = json!({"bool": {"must": deep}});
    }
    check_error(deep, "maximum nested depth");
}

/// Scores of Elasticsearch 7 computed by hand from its formula: k1 1.2, b 0.75, statistics of the
/// documents that have the field.
#[test]
fn scores_are_those_of_the_field_alone() {
    let world = World::new(
        json!({"properties": {"t": {"type": "text"}, "k": {"type": "keyword"}}}),
        1,
        &[
            ("1", json!({"t": "a b c"})),
            ("2", json!({"t": "a"})),
            ("3", json!({"k": "z", "other": "a"})),
        ],
    );
    let scores = |query: Value| {
        let answer = world.search(json!({"query": query})).unwrap();
        let hits = answer["hits"]["hits"].as_array().unwrap().clone();
        hits.iter().map(|hit| hit["_score"].as_f64().unwrap() as f32).collect::<Vec<_>>()
    };
    // Two documents have t, of mean length 2; both have "a".
    let idf = (1.0_f32 + (2.0 - 2.0 + 0.5) / (2.0 + 0.5)).ln();
    let score = |length: f32| idf * 2.2 / (1.0 + 1.2 * (0.25 + 0.75 * length / 2.0));
    let found = scores(json!({"match": {"t": "a"}}));
    assert_eq!(found.len(), 2);
    assert!((found[0] - score(1.0)).abs() < 1e-6 && (found[1] - score(3.0)).abs() < 1e-6);
    // One document has k, and its length is one.
    let idf = (1.0_f32 + (1.0 - 1.0 + 0.5) / (1.0 + 0.5)).ln();
    let found = scores(json!({"term": {"k": "z"}}));
    assert!((found[0] - idf).abs() < 1e-6, "{found:?} {idf}");
    assert_eq!(
        scores(json!({"constant_score": {"filter": {"term": {"k": "z"}}, "boost": 3}})),
        [3.0]
    );
}

/// Every other document has the phrase, or both words apart, or only one of them.
#[test]
fn excluded_documents_are_all_that_match_and_no_others() {
    let texts = ["red fox", "fox red", "red", "a red fox", "nothing", "red and fox", "fox"];
    let documents: Vec<_> = (0..200_usize)
        .map(|n| (n.to_string(), json!({"t": texts[n * n % texts.len()], "n": n})))
        .collect();
    let documents: Vec<_> = documents.iter().map(|(id, doc)| (id.as_str(), doc.clone())).collect();
    let mapping = json!({"properties": {"t": {"type": "text"}, "n": {"type": "integer"}}});
    let world = World::new(mapping, 1, &documents);
    let all = |query: Value| world.ids(json!({"query": query, "sort": ["n"], "size": 200}));
    let excluded = [
        json!([{"match_phrase": {"t": "red fox"}}]),
        json!([{"match_phrase": {"t": "red fox"}}, {"range": {"n": {"gte": 50, "lt": 60}}}]),
        json!([{"match_phrase": {"t": {"query": "fox red", "slop": 2}}}, {"term": {"n": 4}}]),
        json!([{"bool": {"must": [{"match_phrase": {"t": "red fox"}}, {"match": {"t": "a"}}]}}]),
        json!([{"bool": {"must_not": {"match_phrase": {"t": "red fox"}}}}]),
        json!([{"match_phrase_prefix": {"t": "red f"}}]),
    ];
    for must_not in excluded {
        let matching = all(json!({"bool": {"should": must_not}}));
        let matching: Vec<_> = matching.split(' ').collect();
        assert!((1..200).contains(&matching.len()), "{must_not}");
        for (required, from) in
            [(json!({"match_all": {}}), 0), (json!({"range": {"n": {"gte": 7}}}), 7)]
        {
            let expected: Vec<_> = (from..200)
                .map(|n: i32| n.to_string())
                .filter(|id| !matching.contains(&id.as_str()))
                .collect();
            let query = json!({"bool": {"must": required, "must_not": must_not}});
            assert_eq!(all(query.clone()), expected.join(" "), "{query}");
        }
    }
}

"""What applications do with a client of Elasticsearch, in words that elasticsearch-py 7 and 8 and
opensearch-py all understand.

Run by test_elastic_clients.py in the environment of each:
`python client_cases.py MODULE URLS INDEX`.
"""

import importlib
import json
import sys

MAPPINGS = {"properties": {
    "subject": {"type": "text", "analyzer": "cjk"},
    "tag": {"type": "keyword"},
    "n": {"type": "long"},
    "day": {"type": "date"},
}}
DOCUMENTS = 300


def document(n):
    return {"subject": f"회의에서 {n}", "tag": "even" if n % 2 == 0 else "odd", "n": n,
            "day": f"2026-01-{1 + n % 3:02}"}


def connect(module, urls):
    found = importlib.import_module(module)
    return getattr(found, "OpenSearch" if module == "opensearchpy" else "Elasticsearch")(urls)


def refused(module, status, call, *args, **options):
    """Calls, and returns what the server says in the error of that status."""
    errors = importlib.import_module(module)
    kind = {404: errors.NotFoundError, 409: errors.ConflictError}.get(status)
    # Version 8 has another name for it.
    kind = kind or getattr(errors, "BadRequestError", None) or errors.RequestError
    try:
        call(*args, **options)
    except kind as e:
        assert e.status_code == status, e
        # A document that is not there is told of without an error in the body.
        return e.info.get("error", e.info)
    raise AssertionError(f"{call} was not refused with {status}")


def fill(module, es, index):
    made = es.indices.create(index=index, body={
        "settings": {"number_of_shards": 3, "number_of_replicas": 2}, "mappings": MAPPINGS})
    assert made["acknowledged"] is True and made["index"] == index
    bulk = importlib.import_module(f"{module}.helpers").bulk
    actions = [{"_index": index, "_id": str(n), "_source": document(n)} for n in range(DOCUMENTS)]
    assert bulk(es, actions, refresh=True) == (DOCUMENTS, [])
    more = [{"_op_type": "create", "_index": index, "_id": "1", "_source": {}},
            {"_op_type": "update", "_index": index, "_id": "none", "doc": {}},
            {"_op_type": "index", "_index": index, "_id": "bad", "_source": {"n": "many"}},
            {"_op_type": "update", "_index": index, "_id": "2", "doc": {"tag": "two"}},
            {"_op_type": "delete", "_index": index, "_id": "3"}]
    done, errors = bulk(es, more, raise_on_error=False, refresh=True)
    told = [(action, item["status"]) for error in errors for action, item in error.items()]
    assert (done, told) == (2, [("create", 409), ("update", 404), ("index", 400)]), errors


def look(es, index):
    """What every node must answer."""
    assert es.count(index=index)["count"] == DOCUMENTS - 1
    found = es.search(index=index, body={
        "query": {"bool": {"must": {"match": {"subject": "회의"}},
                           "filter": {"term": {"tag": "odd"}}}},
        "aggs": {"least": {"min": {"field": "n"}}},
        "size": 2, "sort": [{"n": "desc"}], "track_total_hits": True,
        "_source": {"includes": ["n", "t*"], "excludes": ["tag"]},
        "highlight": {"fields": {"subject": {}}}})
    assert found["hits"]["total"] == {"value": DOCUMENTS // 2 - 1, "relation": "eq"}
    first, second = found["hits"]["hits"]
    assert (first["_id"], first["_source"], first["sort"]) == ("299", {"n": 299}, [299])
    assert first["highlight"] == {"subject": ["<em>회의</em>에서 299"]}
    assert second["_id"] == "297"
    assert found["aggregations"]["least"]["value"] == 1
    found = es.search(index=index, body={"size": 0, "aggs": {
        "tags": {"terms": {"field": "tag"}, "aggs": {"most": {"max": {"field": "n"}}}},
        "days": {"date_histogram": {"field": "day", "calendar_interval": "day"}},
        "mean": {"avg": {"field": "n"}}}}, typed_keys=True)
    tags = {b["key"]: (b["doc_count"], b["max#most"]["value"])
            for b in found["aggregations"]["sterms#tags"]["buckets"]}
    assert tags == {"even": (149, 298), "odd": (149, 299), "two": (1, 2)}
    days = found["aggregations"]["date_histogram#days"]["buckets"]
    assert [(d["key_as_string"][:10], d["doc_count"]) for d in days] == [
        ("2026-01-01", 99), ("2026-01-02", 100), ("2026-01-03", 100)]
    assert found["aggregations"]["avg#mean"]["value"] == (sum(range(DOCUMENTS)) - 3) / 299
    assert es.get(index=index, id="2", _source_includes="tag")["_source"] == {"tag": "two"}
    assert es.get_source(index=index, id="4") == document(4)
    assert es.exists(index=index, id="4") and not es.exists(index=index, id="3")
    several = es.mget(index=index, body={"ids": ["4", "3"]})["docs"]
    assert [d["found"] for d in several] == [True, False]


def change(module, es, index):
    before = es.get(index=index, id="1")
    updated = es.update(index=index, id="1", body={"doc": {"n": 1000}})
    assert (updated["result"], updated["_version"]) == ("updated", before["_version"] + 1)
    assert es.get(index=index, id="1")["_source"] == {**document(1), "n": 1000}
    again = es.update(index=index, id="1", body={"doc": {"n": 1000}})
    assert again["result"] == "noop"
    upsert = {"doc": {"n": 1}, "doc_as_upsert": True}
    assert es.update(index=index, id="new", body=upsert, refresh=True)["result"] == "created"
    error = refused(module, 409, es.create, index=index, id="1", body={})
    assert error["type"] == "version_conflict_engine_exception"
    error = refused(module, 409, es.index, index=index, id="1", body={},
                    if_seq_no=before["_seq_no"], if_primary_term=before["_primary_term"])
    assert error["type"] == "version_conflict_engine_exception"
    assert es.delete(index=index, id="new", refresh=True)["result"] == "deleted"
    assert refused(module, 404, es.delete, index=index, id="new")["result"] == "not_found"
    assert refused(module, 404, es.get, index=index, id="new")["found"] is False
    error = refused(module, 404, es.search, index=f"{index}-none")
    assert (error["type"], error["index"]) == ("index_not_found_exception", f"{index}-none")
    error = refused(module, 400, es.indices.create, index=index)
    assert error["type"] == "resource_already_exists_exception"
    error = refused(module, 400, es.search, index=index, body={"query": {"no_such": {}}})
    assert error["type"] == "parsing_exception"


def administer(es, index):
    told = es.indices.get_mapping(index=index)[index]["mappings"]["properties"]
    assert told == MAPPINGS["properties"]
    added = es.indices.put_mapping(index=index, body={"properties": {"more": {"type": "boolean"}}})
    assert added["acknowledged"] is True
    told = es.indices.get_mapping(index=index)[index]["mappings"]["properties"]
    assert told == {**MAPPINGS["properties"], "more": {"type": "boolean"}}
    settings = es.indices.get_settings(index=index)[index]["settings"]["index"]
    assert (settings["number_of_shards"], settings["number_of_replicas"]) == ("3", "2")
    health = es.cluster.health(index=index, wait_for_status="green")
    assert (health["status"], health["number_of_nodes"]) == ("green", 3)
    assert (health["active_primary_shards"], health["active_shards"]) == (3, 9)
    rows = es.cat.indices(index=index, format="json", h="index,health,pri,rep,docs.count")
    assert list(rows) == [{"index": index, "health": "green", "pri": "3", "rep": "2",
                           "docs.count": str(DOCUMENTS - 1)}]
    assert str(es.cat.count(index=index, h="count")).strip() == str(DOCUMENTS - 1)
    es.indices.delete(index=index)
    assert not es.indices.exists(index=index)


def main(module, urls, index):
    es = connect(module, urls)
    fill(module, es, index)
    for url in urls:
        look(connect(module, [url]), index)
    change(module, es, index)
    administer(es, index)
    print(importlib.import_module(module).__versionstr__, es.info()["version"]["number"])


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]), sys.argv[3])

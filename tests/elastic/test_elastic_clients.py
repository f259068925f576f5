"""elasticsearch-py 8 and opensearch-py through all nodes, elasticsearch-py 7 in its own venv."""

import json
import subprocess

import pytest
from elasticsearch import ConflictError, Elasticsearch, NotFoundError, helpers
from opensearchpy import OpenSearch
from support.paths import python_of

KOREAN = {"properties": {"subject": {"type": "text", "analyzer": "cjk"}}}

SEVEN = """
import json, sys
from elasticsearch import Elasticsearch
urls, index = json.loads(sys.argv[1]), sys.argv[2]
es = Elasticsearch(urls)
es.index(index=index, id="1", body={"subject": "seven"}, refresh=True)
found = es.search(index=index, body={"query": {"match": {"subject": "seven"}}})
print(found["hits"]["total"]["value"], es.get(index=index, id="1")["_source"]["subject"])
"""


def test_elasticsearch_py_8(urls, name):
    es = Elasticsearch(urls)
    es.indices.create(index=name, settings={"number_of_shards": 3}, mappings=KOREAN)
    docs = [{"_index": name, "_id": str(i), "subject": f"회의에서 {i}", "n": i} for i in range(500)]
    done, errors = helpers.bulk(es, docs, refresh=True)
    assert (done, errors) == (500, [])
    for url in urls:
        one = Elasticsearch(url)
        assert one.count(index=name)["count"] == 500
        found = one.search(
            index=name, query={"match": {"subject": "회의"}}, size=1, track_total_hits=True,
            sort=[{"n": "desc"}], aggs={"top": {"max": {"field": "n"}}})
        assert found["hits"]["total"]["value"] == 500
        assert found["hits"]["hits"][0]["_id"] == "499"
        assert found["aggregations"]["top"]["value"] == 499
        typed = one.search(
            index=name, size=0, typed_keys=True, aggs={"top": {"max": {"field": "n"}}})
        assert typed["aggregations"]["max#top"]["value"] == 499
    with pytest.raises(ConflictError):
        es.create(index=name, id="1", document={})
    es.update(index=name, id="1", doc={"n": 1000})
    assert es.get(index=name, id="1")["_source"] == {"subject": "회의에서 1", "n": 1000}
    es.delete(index=name, id="1")
    with pytest.raises(NotFoundError):
        es.get(index=name, id="1")
    es.indices.delete(index=name)
    assert not es.indices.exists(index=name)


def test_opensearch_py(urls, name):
    client = OpenSearch(urls)
    assert client.info()["version"]["number"] == "7.10.2"
    client.index(index=name, id="a", body={"t": "hello world"}, refresh=True)
    found = client.search(index=name, body={"query": {"match": {"t": "hello"}}})
    assert [hit["_id"] for hit in found["hits"]["hits"]] == ["a"]
    client.indices.delete(index=name)


def test_elasticsearch_py_7(urls, name):
    done = subprocess.run(
        [python_of("es7"), "-c", SEVEN, json.dumps(urls), name],
        capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["1", "seven"], done.stderr

"""What curl users see: tables, errors, methods, and documents written at one node."""

import gzip
import json
import re
import socket

import requests
from support.wait import wait_until


def test_a_document_is_seen_at_every_node(urls, name):
    one, two, three = urls
    assert requests.put(f"{one}/{name}").json()["shards_acknowledged"] is True
    put = requests.put(f"{two}/{name}/_doc/a%2Fb?refresh=wait_for", json={"x": "y"})
    assert put.status_code == 201 and put.json()["_id"] == "a/b"
    for url in (one, two, three):
        assert requests.get(f"{url}/{name}/_doc/a%2Fb").json()["_source"] == {"x": "y"}
        assert requests.get(f"{url}/{name}/_count").json()["count"] == 1
        assert "x" in requests.get(f"{url}/{name}/_mapping").json()[name]["mappings"]["properties"]
    requests.delete(f"{three}/{name}")
    assert requests.head(f"{one}/{name}").status_code == 404


def test_errors_are_those_of_elasticsearch(urls, name):
    url = urls[0]
    missing = requests.get(f"{url}/{name}/_search")
    assert missing.status_code == 404
    assert missing.json()["error"]["reason"] == f"no such index [{name}]"
    unknown = requests.get(f"{url}/_cat/indices?vv")
    assert unknown.status_code == 400
    assert "contains unrecognized parameter: [vv]" in unknown.json()["error"]["reason"]
    wrong = requests.post(f"{url}/_cat/indices")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET,HEAD")
    assert requests.put(f"{url}/{name}", data="{}").status_code == 406
    assert requests.get(url).headers["X-elastic-product"] == "Elasticsearch"


def test_what_is_not_there_is_refused_and_defaults_pass(urls, name):
    url = urls[0]
    doc = f"{url}/{name}/_doc/1"
    two = {"settings": {"number_of_shards": 2, "similarity": {"default": {"type": "BM25"}}}}
    assert requests.put(f"{url}/{name}-two", json=two).ok
    dfs = {"search_type": "dfs_query_then_fetch"}
    for refused in (
        requests.get(f"{url}/{name}-two/_search", params=dfs),
        requests.post(f"{url}/_field_caps?fields=*", json={"index_filter": {"match_all": {}}}),
        requests.put(f"{url}/{name}", json={"settings": {"index.lifecycle.name": "p"}}),
        requests.put(f"{url}/{name}", json={"settings": {
            "similarity": {"default": {"type": "boolean"}}}}),
        requests.put(doc, params={"pipeline": "p"}, json={}),
        requests.get(f"{url}/_search", params={"explain": "true"}),
        requests.get(f"{url}/_search", params={"scroll": "1m"}),
        requests.post(f"{url}/_search", json={"pit": {"id": "x"}}),
        requests.post(f"{url}/_search", json={"profile": True}),
        requests.get(f"{url}/_cat/indices", params={"format": "cbor"}),
        requests.put(f"{url}/{name}", json={"settings": {"index.sort.field": "n"}}),
    ):
        assert refused.status_code == 400, refused.url
        assert "not supported by this server" in refused.json()["error"]["reason"], refused.url
    for params in ({"pipeline": "_none"}, {"wait_for_active_shards": "all", "timeout": "30s"}):
        assert requests.put(doc, params={**params, "refresh": "true"}, json={"n": 1}).ok, params
    params = {"explain": "false", "typed_keys": "true", "preference": "1795348891025"}
    body = {"profile": False, "timeout": "30s", "stored_fields": ["*"], "_source": True,
            "script_fields": {}, "aggs": {"n": {"terms": {"field": "n"}}}}
    found = requests.post(f"{url}/{name}/_search", params={**params, **dfs}, json=body).json()
    assert found["hits"]["hits"][0]["_source"] == {"n": 1}
    assert found["aggregations"]["lterms#n"]["buckets"][0]["doc_count"] == 1


def test_a_block_holds_at_every_node(urls, name):
    requests.put(f"{urls[0]}/{name}")

    def block(flag):
        change = {"index.blocks.write": flag}
        assert requests.put(f"{urls[1]}/{name}/_settings", json=change).ok

    def statuses():
        return [requests.put(f"{url}/{name}/_doc/1", json={}).status_code for url in urls]

    block(True)
    assert statuses() == [403, 403, 403]
    block(False)
    assert statuses() == [201, 200, 200]


def test_a_phrase_is_excluded_that_begins_behind_the_first_hit(urls, name):
    """An assertion in Tantivy 0.27 takes that for a mistake, where assertions are compiled in."""
    url = f"{urls[0]}/{name}"
    assert requests.put(url, json={"settings": {"number_of_shards": 1}}).ok
    # In one request, so that they come into one segment.
    lines = [f'{{"index": {{"_id": "{number}"}}}}\n{{"t": "{text}"}}\n' for number, text
             in enumerate(("quick brown fox", "lazy dog, fox", "dog, lazy fox"))]
    bulk = requests.post(f"{url}/_bulk?refresh=true", data="".join(lines),
                         headers={"Content-Type": "application/x-ndjson"})
    assert bulk.json()["errors"] is False
    query = {"bool": {"must": {"match": {"t": "fox"}},
                      "must_not": {"match_phrase": {"t": "lazy dog"}}}}
    found = requests.post(f"{url}/_search", json={"query": query}).json()
    assert "error" not in found and {h["_id"] for h in found["hits"]["hits"]} == {"0", "2"}, found


def test_small_updates_of_large_documents_are_not_refused(urls, name):
    """Each is logged as a whole document: thirty do not fit into one command of the log."""
    target = f"{urls[0]}/{name}"
    mapping = {"properties": {"text": {"type": "text", "index": False}}}
    requests.put(target, json={"mappings": mapping}, timeout=60).raise_for_status()
    for number in range(2):
        document = {"text": "회의 " * 300_000, "n": -1}
        answer = requests.put(f"{target}/_doc/{number}", json=document, timeout=60)
        answer.raise_for_status()
    lines = []
    for number in range(30):
        lines.append({"update": {"_id": str(number % 2)}})
        lines.append({"doc": {"n": number}})
    lines += [{"index": {"_id": "small"}}, {"n": 1}]
    body = "".join(json.dumps(line) + "\n" for line in lines)
    headers = {"content-type": "application/x-ndjson"}
    answer = requests.post(f"{target}/_bulk", data=body, headers=headers, timeout=60).json()
    items = [next(iter(item.values())) for item in answer["items"]]
    assert not answer["errors"], [item for item in items if "error" in item][:2]
    assert [item["_version"] for item in items] == [*(2 + n // 2 for n in range(30)), 1]
    for number in range(2):
        found = requests.get(f"{target}/_doc/{number}", timeout=60).json()
        assert found["_version"] == 16 and found["_source"]["n"] == 28 + number
    # What an update makes of a document has the limit of documents.
    body = json.dumps({"doc": {"more": "x" * 5_000_000}})
    headers = {"content-type": "application/json"}
    answer = requests.post(f"{target}/_update/0", data=body, headers=headers, timeout=60)
    assert answer.status_code == 413, answer.text[:200]


def test_gzip_both_ways(urls, name):
    url = urls[0]
    lines = b"".join(b'{"index":{"_id":"%d"}}\n{"n":%d}\n' % (i, i) for i in range(100))
    done = requests.post(f"{url}/{name}/_bulk", data=gzip.compress(lines), headers={
        "content-type": "application/x-ndjson", "content-encoding": "gzip"})
    assert done.json()["errors"] is False and len(done.json()["items"]) == 100
    assert done.headers["content-encoding"] == "gzip"
    assert re.match(r'\{"took":\d+,"errors":false,"items":\[', done.text)


def test_garbage_leaves_the_node_alive(urls):
    url = urls[0]
    host, port = url.removeprefix("http://").rstrip("/").rsplit(":", 1)
    for junk in (b"\0" * 100, b"GET / HTTP/9.9\r\n\r\n", b"POST /a/_bulk HTTP/1.1\r\n"
                 b"content-length: 99999999999\r\n\r\n", b"GET /%ff%fe HTTP/1.1\r\n\r\n"):
        with socket.create_connection((host, int(port)), timeout=10) as sock:
            sock.sendall(junk)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass
    bomb = gzip.compress(b" " * (101 << 20))
    huge = requests.post(f"{url}/x/_bulk", data=bomb, headers={
        "content-type": "application/x-ndjson", "content-encoding": "gzip"})
    assert huge.status_code == 413
    assert requests.get(url).status_code == 200


def test_acknowledged_documents_survive_a_killed_node(own_cluster, name):
    cluster = own_cluster()
    first, url = [f"http://{address}" for address in cluster.elastic[:2]]
    requests.put(f"{url}/{name}", json={"settings": {"number_of_shards": 3}})
    acknowledged = []
    for i in range(150):
        if i == 50:
            cluster.node(1).kill()
        done = requests.put(f"{url}/{name}/_doc/{i}", json={"n": i}, timeout=40)
        if done.status_code in (200, 201):
            acknowledged.append(i)
    assert len(acknowledged) >= 140
    table = requests.get(f"{url}/_cat/indices?v", timeout=5)
    assert table.status_code == 200
    cluster.node(1).start()
    cluster.wait_ready()
    for url in (first, url):
        def all_there(url=url):
            requests.post(f"{url}/{name}/_refresh")
            return requests.get(f"{url}/{name}/_count").json().get("count", 0) >= len(acknowledged)
        wait_until(all_there, 60, "all acknowledged documents")
        for i in acknowledged:
            assert requests.get(f"{url}/{name}/_doc/{i}").json()["_source"] == {"n": i}

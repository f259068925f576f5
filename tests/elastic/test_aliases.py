"""What comes by the name of an alias: filtered, and routed."""

import requests

SHARDS = 5


def make(url, name, **aliases):
    body = {"settings": {"number_of_shards": SHARDS}, "aliases": aliases,
            "mappings": {"properties": {"team": {"type": "keyword"}}}}
    done = requests.put(f"{url}/{name}", json=body)
    assert done.status_code == 200, done.text


def put(url, target, number, team, **params):
    return requests.put(f"{url}/{target}/_doc/{number}", json={"team": team, "text": "회의록"},
                        params={"refresh": "true", **params})


def found(url, expression, **body):
    answer = requests.get(f"{url}/{expression}/_search", json=body).json()
    count = requests.get(f"{url}/{expression}/_count",
                         json={"query": body["query"]} if "query" in body else None).json()
    hits = sorted(hit["_id"] for hit in answer["hits"]["hits"])
    assert count["count"] == answer["hits"]["total"]["value"] == len(hits), answer
    return hits


def test_a_filter_limits_what_an_alias_shows(urls, name):
    url = urls[0]
    only = {team: {"filter": {"term": {"team": team}}} for team in ("a", "b")}
    make(url, name, **{f"{name}-a": only["a"], f"{name}-b": only["b"], f"{name}-all": {}})
    for number, team in enumerate("aabc"):
        assert put(url, name, number, team).status_code == 201
    everything = ["0", "1", "2", "3"]
    assert found(url, f"{name}-a") == ["0", "1"]
    assert found(urls[1], f"{name}-b", query={"match": {"text": "회의록"}}) == ["2"]
    assert found(url, f"{name}-a,{name}-b") == ["0", "1", "2"]
    # An alias without a filter, or the index itself, leads to everything.
    assert found(url, f"{name}-a,{name}-all") == everything
    assert found(url, f"{name}-a,{name}") == everything
    assert found(url, f"{name}*") == everything
    assert found(url, f"{name}-a*") == everything, "-all is among them"
    lines = f'{{"index": "{name}-a"}}\n{{}}\n{{"index": "{name}"}}\n{{}}\n'
    several = requests.post(f"{url}/_msearch", data=lines,
                            headers={"content-type": "application/x-ndjson"}).json()
    assert [r["hits"]["total"]["value"] for r in several["responses"]] == [2, 4]
    # Scores are those of the query alone.
    scores = [requests.get(f"{url}/{target}/_search", json={"query": {"match": {"text": "회의록"}}})
              .json()["hits"]["hits"] for target in (name, f"{name}-b")]
    by_id = {hit["_id"]: hit["_score"] for hit in scores[0]}
    assert [hit["_score"] for hit in scores[1]] == [by_id["2"]]


def test_a_wrong_filter_is_refused_when_the_alias_is_made(urls, name):
    url = urls[0]
    make(url, name)
    wrong = {"filter": {"no_such_query": {}}}
    for done in (
        requests.put(f"{url}/{name}/_alias/{name}-x", json=wrong),
        requests.post(f"{url}/_aliases", json={"actions": [
            {"add": {"index": name, "alias": f"{name}-x", **wrong}}]}),
        requests.put(f"{url}/{name}-2", json={"aliases": {f"{name}-x": wrong}}),
    ):
        assert done.status_code == 400, done.text
        reason = done.json()["error"]["reason"]
        assert reason == f"failed to parse filter for alias [{name}-x]"


def test_routing_of_an_alias_is_that_of_its_documents_and_searches(urls, name):
    url, alias = urls[0], f"{name}-one"
    make(url, name, **{alias: {"routing": "north"}, f"{name}-two": {"search_routing": "n,s"}})
    for number in range(SHARDS):
        assert put(url, alias, number, "a").status_code == 201
    lines = f'{{"index": {{"_index": "{alias}", "_id": "bulk"}}}}\n{{"team": "b"}}\n'
    bulk = requests.post(f"{url}/_bulk?refresh=true", data=lines,
                         headers={"content-type": "application/x-ndjson"}).json()
    assert bulk["errors"] is False, bulk
    hits = requests.get(f"{url}/{name}/_search").json()["hits"]["hits"]
    assert [hit["_routing"] for hit in hits] == ["north"] * (SHARDS + 1)
    searched = requests.get(f"{url}/{alias}/_search").json()
    assert searched["_shards"]["total"] == 1
    assert searched["hits"]["total"]["value"] == SHARDS + 1
    assert requests.get(f"{url}/{name}-two/_search").json()["_shards"]["total"] in (1, 2)
    assert requests.get(f"{url}/{alias}/_doc/0").json()["found"] is True
    asked = {"docs": [{"_index": alias, "_id": "bulk"}]}
    assert requests.get(f"{url}/_mget", json=asked).json()["docs"][0]["found"] is True
    other = put(url, alias, 9, "a", routing="south")
    assert other.status_code == 400
    assert other.json()["error"]["reason"] == (
        f"Alias [{alias}] has index routing associated with it [north], and was provided with "
        "routing value [south], rejecting operation")


def test_several_routings_are_refused_for_a_document(urls, name):
    url, alias = urls[0], f"{name}-both"
    make(url, name, **{alias: {"index_routing": "n,s"}})
    refused = put(url, alias, 1, "a")
    assert refused.status_code == 400
    assert "resolved to several routing values" in refused.json()["error"]["reason"]

"""Tables of `_cat` as Elasticsearch 8 prints them.

Columns shown by default are those of 7.10 to 8.10; what 8.11 added (`dataset.size`, `dataset`) is
not there. How tables, JSON and help are put together is that of Elasticsearch's `RestTable`.
"""

import re

import pytest
import requests
from support.wait import wait_until

INDICES = ["health", "status", "index", "uuid", "pri", "rep", "docs.count", "docs.deleted",
           "store.size", "pri.store.size"]
HEALTH = ["epoch", "timestamp", "cluster", "status", "node.total", "node.data", "shards", "pri",
          "relo", "init", "unassign", "pending_tasks", "max_task_wait_time",
          "active_shards_percent"]
SHARDS = ["index", "shard", "prirep", "state", "docs", "store", "ip", "node"]
NODES = ["ip", "heap.percent", "ram.percent", "cpu", "load_1m", "load_5m", "load_15m", "node.role",
         "master", "name"]
COUNT = ["epoch", "timestamp", "count"]
RIGHT = {*INDICES[4:], *HEALTH[4:], "docs", "store", *NODES[1:7]}

SIZE = r"\d+(\.\d)?[kmg]?b"
NOW = r"\d{10} +\d\d:\d\d:\d\d"
LOAD = r"\d+\.\d\d"


@pytest.fixture(scope="module")
def url(cluster):
    return f"http://{cluster.elastic[0]}"


@pytest.fixture(scope="module")
def many(url):
    """An index of 12 documents; its name is the start of that of `few`."""
    return make(url, "cat-table", 12)


@pytest.fixture(scope="module")
def few(url):
    """One of 3 documents, and one more that was deleted."""
    name = make(url, "cat-table-few", 4)
    assert requests.delete(f"{url}/{name}/_doc/0?refresh=true").status_code == 200
    return name


def make(url, name, documents):
    shape = {"settings": {"number_of_shards": 2, "number_of_replicas": 2}}
    assert requests.put(f"{url}/{name}", json=shape).status_code == 200
    lines = "".join(f'{{"index":{{"_id":"{n}"}}}}\n{{"n":{n}}}\n' for n in range(documents))
    done = requests.post(f"{url}/{name}/_bulk?refresh=true", data=lines,
                         headers={"content-type": "application/x-ndjson"})
    assert done.json()["errors"] is False
    return name


def get(url, path, **params):
    found = requests.get(f"{url}/_cat/{path}", params=params, timeout=30)
    assert found.status_code == 200, found.text
    return found


def lines(url, path, **params):
    found = get(url, path, **params)
    assert found.headers["content-type"] == "text/plain; charset=UTF-8"
    assert found.text == "" or found.text.endswith("\n")
    return found.text.splitlines()


def laid_out(rows):
    """Lines of a table whose first row are the names of the columns."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    # What stands at the left of the last column is not padded.
    widths[-1] = widths[-1] if rows[0][-1] in RIGHT else 0
    return [" ".join(cell.rjust(width) if name in RIGHT else cell.ljust(width)
                     for name, cell, width in zip(rows[0], row, widths)) for row in rows]


@pytest.mark.parametrize("path, header, count, row", [
    ("indices/cat-table", INDICES, 1,
     rf"green +open +cat-table +[\w-]{{22}} +2 +2 +12 +0 +{SIZE} +{SIZE}"),
    ("health", HEALTH, 1, rf"{NOW} +trine +(green|yellow) +3 +3 +\d+ +\d+ +0 +\d+ +\d+ +0 +- "
                          r"+\d+\.\d%"),
    ("shards/cat-table", SHARDS, 6,
     rf"cat-table +[01] +[pr] +STARTED +\d+ +{SIZE} +127\.0\.0\.1 +trine-[123]"),
    # What one node knows of another's memory and load it may leave out, as Elasticsearch does
    # with a node that does not answer.
    ("nodes", NODES, 3, rf"127\.0\.0\.1 +(\d+ +\d+ )? *-?\d+ +({LOAD} +{LOAD} +{LOAD} )? *[a-z]+ +"
                        r"[*-] +trine-[123]"),
    ("count/cat-table", COUNT, 1, rf"{NOW} +12"),
], ids=["indices", "health", "shards", "nodes", "count"])
def test_columns_without_being_asked_for(url, many, path, header, count, row):
    table = lines(url, path, v="true")
    assert table[0].split() == header
    assert len(table) == 1 + count
    for line in table[1:]:
        assert re.fullmatch(row, line), line
    cells = [line.split() for line in table]
    if all(len(row) == len(header) for row in cells):
        assert table == laid_out(cells)
    plain = lines(url, path)
    assert len(plain) == count, "a header without `v`"
    (first, *_) = rows = get(url, path, format="json").json()
    assert list(first) == header and len(rows) == count
    assert all(value is None or isinstance(value, str) for value in first.values())


def test_health_without_the_time(url):
    assert lines(url, "health", v="true", ts="false")[0].split() == HEALTH[2:]


def test_counts(url, many, few):
    for path, count in ((many, 12), (few, 3), (f"{many},{few}", 15), (f"{many}*", 15)):
        assert lines(url, f"count/{path}", h="count") == [str(count)], path
    assert int(lines(url, "count", h="count")[0]) >= 15
    missing = requests.get(f"{url}/_cat/count/cat-table-none")
    assert missing.status_code == 404
    assert missing.json()["error"]["type"] == "index_not_found_exception"


def test_values_as_json(url, many):
    (row,) = get(url, f"indices/{many}", format="json").json()
    assert re.fullmatch(SIZE, row.pop("store.size"))
    assert re.fullmatch(SIZE, row.pop("pri.store.size"))
    assert re.fullmatch(r"[\w-]{22}", row.pop("uuid"))
    assert row == {"health": "green", "status": "open", "index": many, "pri": "2", "rep": "2",
                   "docs.count": "12", "docs.deleted": "0"}
    shards = get(url, f"shards/{many}", format="json", h="index,shard,prirep,docs").json()
    primaries = {row["shard"]: int(row["docs"]) for row in shards if row["prirep"] == "p"}
    assert sorted(primaries) == ["0", "1"] and sum(primaries.values()) == 12
    assert all(int(row["docs"]) == primaries[row["shard"]] for row in shards)
    nodes = get(url, "nodes", format="json", h="name,master").json()
    assert sorted(row["name"] for row in nodes) == ["trine-1", "trine-2", "trine-3"]
    assert sorted(row["master"] for row in nodes) == ["*", "-", "-"]


def test_json_by_the_accept_header(url, many):
    """Without `format`, Elasticsearch goes by what the client accepts."""
    found = requests.get(f"{url}/_cat/count/{many}?h=count",
                         headers={"accept": "application/json"})
    assert found.headers["content-type"].startswith("application/json"), found.text
    assert found.json() == [{"count": "12"}]


def test_sizes_in_the_unit_asked_for(url, many):
    columns = "store.size,pri.store.size"

    def sizes(**params):
        return lines(url, f"indices/{many}", h=columns, **params)[0].split()

    def steady():
        """Segments may be merged between two looks."""
        exact = [int(size) for size in sizes(bytes="b")]
        rounded, human = [int(size) for size in sizes(bytes="kb")], sizes()
        return sizes(bytes="b") == [str(size) for size in exact] and (exact, rounded, human)

    exact, rounded, human = wait_until(steady, 30, "sizes that do not change")
    assert exact[0] > exact[1] > 0, "all copies, and one of each shard"
    assert rounded == [size // 1024 for size in exact]
    for size, text in zip(exact, human):
        # Cut to one decimal, without a zero.
        expected = f"{size * 10 // 1024 / 10:g}kb" if size >= 1024 else f"{size}b"
        assert text == expected
    wrong = requests.get(f"{url}/_cat/indices?bytes=x")
    assert wrong.status_code == 400, wrong.text


@pytest.mark.parametrize("params, expected", [
    # By number, not by text: 12 is more than 3.
    ({"s": "docs.count:desc", "h": "index,docs.count"}, ["cat-table     12", "cat-table-few  3"]),
    ({"s": "dc", "h": "i"}, ["cat-table-few", "cat-table"]),
    ({"s": "pri,index:desc", "h": "index,pri"}, ["cat-table-few 2", "cat-table     2"]),
    ({"s": "index", "h": "dc,i", "v": ""}, ["dc i", "12 cat-table", " 3 cat-table-few"]),
    ({"s": "i", "h": "index,nothing,docs.d*", "v": "true"},
     ["index         docs.deleted", "cat-table                0", "cat-table-few            0"]),
    # A name twice is one column; by another name it is a second one.
    ({"s": "i", "h": "pri,pri,p", "v": "true"}, ["pri p", "  2 2", "  2 2"]),
], ids=["number", "alias", "two", "names", "wildcard", "twice"])
def test_sorting_and_choosing_columns(url, many, few, params, expected):
    assert lines(url, f"indices/{many}*", **params) == expected


def test_an_unknown_sort_key_is_refused(url):
    wrong = requests.get(f"{url}/_cat/indices?s=nothing")
    assert wrong.status_code == 500
    assert wrong.json()["error"]["reason"] == "Unable to sort by unknown sort key `nothing`"


def test_help(url):
    assert get(url, "count", help="true").text == (
        "epoch     | t,time                  | seconds since 1970-01-01 00:00:00\n"
        "timestamp | ts,hms,hhmmss           | time in HH:MM:SS                 \n"
        "count     | dc,docs.count,docsCount | the document count               \n")
    for path, header in (("indices", INDICES), ("health", HEALTH), ("shards", SHARDS),
                         ("nodes", NODES)):
        rows = [line.split(" | ") for line in lines(url, path, help="true")]
        assert all(len(row) == 3 for row in rows), path
        names = [row[0].rstrip() for row in rows]
        assert [name for name in names if name in header] == header
        for column in range(3):
            assert len({len(row[column]) for row in rows}) == 1, f"column {column} of {path}"

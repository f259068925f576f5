"""`trine demo`: the whole job end to end, verified by reading back through the three ports."""

import json
import re
import signal
import subprocess

import pytest
import requests

from support.cluster import NODES, is_alive
from support.paths import TRINE
from support.wait import wait_until


def demo(*words):
    result = subprocess.run(
        [TRINE, "-o", "json", "demo", "--once", "--port-base", "free", *words],
        capture_output=True, text=True, timeout=280,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def collected(directory):
    """The sample files that are not ignored."""
    return [f for f in (directory / "sample").rglob("*.txt") if not f.name.startswith(".")]


def test_everything_lands_once_and_a_second_run_collects_what_has_changed(tmp_path):
    directory = tmp_path / "demo"
    first = demo("--dir", directory)
    files = first["files"]
    assert files >= 200
    assert (first["records"], first["stored"], first["documents"]) == (files, files, files)
    assert len(first["records_per_partition"]) == 3
    assert all(n > 0 for n in first["records_per_partition"])
    # One block each: no file is as long as a block. An empty one has none.
    sample = collected(directory)
    assert len(sample) == files
    assert first["blocks"] == sum(f.stat().st_size > 0 for f in sample) < files
    changed = directory / "sample" / "edge" / "one-byte.txt"
    changed.write_text("두 번째 판\n")
    # All counts that the second run waits for are met before it has collected anything; that it
    # waits for the change is verified by the run itself.
    second = demo("--dir", directory)
    assert (second["records"], second["stored"], second["documents"]) == (files + 1, files, files)
    assert changed.read_text() == "두 번째 판\n"


@pytest.fixture
def running(tmp_path):
    """A demo for people, and its directory."""
    directory = tmp_path / "demo"
    process = subprocess.Popen(
        [TRINE, "demo", "--dir", directory, "--port-base", "free"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    yield process, directory
    if process.poll() is None:
        process.kill()
    process.wait()
    process.stdout.close()
    process.stderr.close()


def lines_before(process, last):
    found = []
    while (line := process.stdout.readline().rstrip("\n")) != last:
        found.append(line)
        assert process.poll() is None, process.stderr.read()
    return found


def cells(line):
    return re.split("  +", line)


def check_ports(rows):
    """The table of addresses; returns those of node 1."""
    header, *rows = map(cells, rows)
    assert header == ["port", "node 1", "node 2", "node 3"]
    assert [row[0] for row in rows] == [
        "kafka", "webhdfs", "datanode_http", "elastic", "console", "raft", "bulk"]
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+", a) for row in rows for a in row[1:]), rows
    return {row[0]: row[1] for row in rows}


def check_counts(rows, files):
    """The table of what has landed."""
    header, *rows, last = rows
    assert cells(header) == ["what", "count", "where"]
    assert re.fullmatch(r"[\d.]+ s from the first connection to searchable", last)
    counts = [(what, int(count), where) for what, count, where in map(cells, rows)]
    size = counts[4][2]
    assert re.fullmatch(r"/datalake/news, [\d.]+ [KM]iB", size)
    records = [count for what, count, _ in counts if what == "records"]
    blocks = counts[5][1]
    assert sum(records) == files and 0 < blocks < files
    assert counts == [
        ("files by SFTP", files, "sample/"),
        *(("records", n, f"topic news, partition {p}") for p, n in enumerate(records)),
        ("stored files", files, size),
        ("blocks", blocks, "of these files"),
        # The third copy of a block may still be on its way.
        *(("block copies", count, f"on node {node}")
          for node, (_, count, _) in enumerate(counts[6:9], 1)),
        ("documents", files, "index news"),
    ]
    assert all(0 < count <= blocks for _, count, _ in counts[6:9])


def check_commands(commands, ports, files):
    """Each line that the visitor may try does what it should; returns the one that adds a file."""
    def run(start):
        (command,) = [line for line in commands if line.startswith(start)]
        done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def table(path):
        header, row = run(f"curl '{ports['elastic']}/_cat/{path}'").splitlines()
        return dict(zip(header.split(), row.split(), strict=True))

    def indices():
        row = table("indices?v")
        return row["index"], row["status"], row["docs.count"]

    # The table counts at the first copy of each shard, which is refreshed when it is its turn.
    wait_until(lambda: indices() == ("news", "open", str(files)), 30, "all documents in _cat")
    health = table("health?v")
    assert (health["cluster"], health["node.total"]) == ("trine", "3")
    found = json.loads(run(f"curl -G '{ports['elastic']}/news/_search?pretty'"))
    assert found["hits"]["hits"] and "회의" in found["hits"]["hits"][0]["_source"]["body"]
    read = [json.loads(line) for line in run(f"kcat -b {ports['kafka']} ").splitlines()]
    assert len(read) == files and len({record["id"] for record in read}) == files
    listed = json.loads(run(f"curl 'http://{ports['webhdfs']}/webhdfs/v1/datalake/news?"))
    assert listed["FileStatuses"]["FileStatus"]
    assert [line for line in commands if line.startswith("python3 -c ")]
    (adds,) = [line for line in commands if line.startswith("echo ")]
    return adds


def check_what_comes_later(ports, directory, adds):
    """New and changed files appear in search by themselves."""
    def hits(query):
        answer = requests.post(f"http://{ports['elastic']}/news/_search", json={"query": query},
                               timeout=10)
        answer.raise_for_status()
        return [hit["_source"] for hit in answer.json()["hits"]["hits"]]

    def stored(path):
        url = f"http://{ports['webhdfs']}/webhdfs/v1/datalake/news/{path}?op=OPEN"
        answer = requests.get(url, timeout=10)
        answer.raise_for_status()
        return answer.content

    subprocess.run(adds, shell=True, check=True)
    path = "news/en/2025/01/article-000.txt"
    assert (directory / "sample" / path).exists()
    content = "Changed news\n\nNobody had written vwxyz before.\n".encode()
    (directory / "sample" / path).write_bytes(content)
    found = wait_until(lambda: hits({"term": {"fileName": "new.txt"}}), 60, "the new file")
    assert [(d["subject"], d["fullPathName"]) for d in found] == [
        ("새 소식: 회의는 내일", "/new.txt")]
    found = wait_until(lambda: hits({"match": {"body": "vwxyz"}}), 60, "the change in search")
    assert [document["subject"] for document in found] == ["Changed news"]
    # It replaces the old document and the old original.
    assert hits({"term": {"fullPathName": f"/{path}"}}) == found
    assert stored(path) == content
    # Korean is searched by bigrams: 회의 finds 회의에서.
    assert hits({"match": {"body": "회의"}})


def test_people_see_what_landed_and_what_comes_later(running):
    process, directory = running
    shown = lines_before(process, "Ctrl-C stops.")
    counts, tries = shown.index("what           count  where"), shown.index("Try:")
    files = len(collected(directory))
    ports = check_ports(shown[:counts])
    check_counts(shown[counts:tries - 1], files)
    adds = check_commands(shown[tries + 1:], ports, files)
    check_what_comes_later(ports, directory, adds)
    nodes = [int((directory / "cluster" / f"node{n}" / "pid").read_text()) for n in NODES]
    assert all(map(is_alive, nodes))
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert not any(map(is_alive, nodes))

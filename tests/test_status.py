"""`trine status`, `trine topic`: what the cluster says of itself."""

import json
import subprocess

import pytest
from confluent_kafka import Producer

from support.paths import TRINE
from support.pipelines import apply, write_files
from support.reading import count
from support.wait import wait_until


def test_status_as_json(cluster):
    def steady():
        result = cluster.run("-o", "json", "status")
        assert result.returncode == 0, result.stderr
        status = json.loads(result.stdout)
        # A node that answers late is left out of what is told at once.
        whole = all(n["alive"] and n["disk"] for n in status["nodes"])
        return whole and all(g["leader"] for g in status["groups"]) and status
    status = wait_until(steady, 30, "all nodes, and a leader for every group")
    assert [n["id"] for n in status["nodes"]] == [1, 2, 3]
    assert all(n["disk"]["total_bytes"] > n["disk"]["free_bytes"] > 0 for n in status["nodes"])
    assert [g["id"] for g in status["groups"]] == ["m0", "fs", *(f"d{n}" for n in range(6))]


def test_leaders_are_spread_evenly(cluster):
    def spread():
        leaders = [g["leader"] for g in cluster.status()["groups"]]
        counts = sorted(leaders.count(n) for n in (1, 2, 3))
        return counts == [2, 3, 3]
    wait_until(spread, 90, "leaders on all nodes", pause=0.5)


def test_status_as_table(cluster):
    result = cluster.run("status")
    assert result.returncode == 0, result.stderr
    assert "node  alive  ready" in result.stdout
    assert "leader" in result.stdout and "follower" in result.stdout


@pytest.fixture
def pipeline(cluster, name, tmp_path):
    root = tmp_path / "files"
    write_files(root, 3)
    apply(cluster, tmp_path, name, root)
    yield
    done = cluster.run("pipeline", "delete", name)
    assert done.returncode == 0, done.stderr
    assert name not in cluster.run("status").stdout


def flow_of(cluster, name):
    """What the status says of a pipeline, as JSON, and as the table has it, by column."""
    told = cluster.run("-o", "json", "status")
    assert told.returncode == 0, told.stderr
    (row,) = [row for row in json.loads(told.stdout)["flow"] if row["pipeline"] == name]
    lines = cluster.run("status").stdout.splitlines()
    (header,) = [line.split() for line in lines if line.startswith("pipeline ")]
    (line,) = [line.split() for line in lines if line.startswith(f"{name} ")]
    return row, dict(zip(header, line, strict=True))


def test_status_of_a_pipeline(cluster, pipeline, name):
    def done():
        row, shown = flow_of(cluster, name)
        same = all(str(row[key]) == shown[key] for key in ("state", "topic", "index", "lag"))
        # Documents are those that the processors at work have written: fewer where one has moved.
        return same and (row["state"], row["collected"], row["lag"]) == ("running", 3, 0) \
            and row["documents"] <= 3 and count(cluster, name) == 3
    wait_until(done, 30, "three files, and nothing left to do", pause=0.2)


def test_status_says_how_far_a_pipeline_is_behind(cluster, pipeline, name):
    """While it is paused, too: its lag are the records that it has not processed."""
    wait_until(lambda: count(cluster, name) == 3, 30, "three documents")
    assert cluster.run("pipeline", "pause", name).returncode == 0
    wait_until(lambda: flow_of(cluster, name)[0]["state"] == "paused", 30, "the pause")
    producer = Producer({"bootstrap.servers": ",".join(cluster.kafka)})
    for number in range(7):
        producer.produce(name, b"record %d" % number)
    assert producer.flush(30) == 0

    def told():
        row, shown = flow_of(cluster, name)
        return row["lag"], shown["lag"]

    wait_until(lambda: told() == (7, "7"), 10, "seven records behind")
    assert cluster.run("pipeline", "resume", name).returncode == 0
    wait_until(lambda: told() == (0, "0"), 30, "all records processed")


def test_status_from_every_node_is_the_same(cluster):
    groups = [[g["id"] for g in cluster.status(n)["groups"]] for n in (1, 2, 3)]
    assert groups[0] == groups[1] == groups[2]


def test_no_cluster_is_a_clear_error():
    result = subprocess.run([TRINE, "status", "--console", "127.0.0.1:1"],
                            capture_output=True, text=True, timeout=30)
    assert result.returncode == 1
    assert "no node answers at 127.0.0.1:1" in result.stderr


def test_topics_come_and_go(cluster, name):
    assert cluster.run("topic", "create", name, "--partitions", "4").returncode == 0
    described = cluster.run("-o", "json", "topic", "describe", name)
    assert described.returncode == 0, described.stderr
    again = cluster.run("topic", "create", name)
    assert again.returncode == 1 and "exist" in again.stderr
    assert cluster.run("topic", "delete", name).returncode == 0
    assert name not in cluster.run("topic", "list").stdout
    assert cluster.run("topic", "describe", name).returncode == 1


def test_completions():
    for shell in ("bash", "zsh", "fish"):
        result = subprocess.run([TRINE, "completions", shell], capture_output=True, text=True)
        assert result.returncode == 0 and "trine" in result.stdout

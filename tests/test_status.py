"""`trine status`, `trine topic`: what the cluster says of itself."""

import json
import subprocess

from support.paths import TRINE
from support.wait import wait_until


def test_status_as_json(cluster):
    def steady():
        result = cluster.run("-o", "json", "status")
        assert result.returncode == 0, result.stderr
        status = json.loads(result.stdout)
        return all(g["leader"] for g in status["groups"]) and status
    status = wait_until(steady, 30, "a leader for every group")
    assert [n["id"] for n in status["nodes"]] == [1, 2, 3]
    assert all(n["alive"] for n in status["nodes"])
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

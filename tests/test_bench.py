"""`trine bench` measures what it says, on a small scale."""

import json
import subprocess

from support.paths import TRINE

FIGURES = {"mb_per_s", "ops_per_s", "p50_ms", "p99_ms", "cpu_s_per_gb", "rss_mb"}


def bench(kind, *words):
    result = subprocess.run(
        [TRINE, "-o", "json", "bench", kind, "--local", "--set", "disk.reserve_bytes=0", *words],
        capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout)
    assert figures["bench"] == kind and figures["equal_replicas"] == 3
    assert figures.keys() >= FIGURES
    return figures


def test_an_open_loop_keeps_its_rate(figure):
    figures = bench("produce", "--seconds", "4", "--warm-up", "1", "--rate", "1", "--batch", "4")
    figure(json.dumps(figures))
    # Late answers count where they come, so a busy machine may show a little more or less.
    assert 0.7 < figures["mb_per_s"] < 1.3
    assert 0 < figures["p50_ms"] <= figures["p99_ms"]
    assert figures["p50_ms_without_slow_flushes"] <= figures["p99_ms"]


def test_a_killed_leader_is_replaced(figure):
    figures = bench("failover", "--rounds", "1")
    figure(json.dumps(figures))
    assert 0 < figures["new_leader_known_max_ms"] <= figures["p99_ms"]


def test_everything_is_read_back(figure):
    figures = bench("cold-read", "--gb", "0.02")
    figure(json.dumps(figures))
    assert 0.019 < figures["gb"] < 0.03


def test_a_restarted_cluster_takes_records(figure):
    figures = bench("restart", "--gb", "0.02")
    figure(json.dumps(figures))
    for how in ("killed", "stopped"):
        assert figures[f"{how}_ready_s"] <= figures[f"{how}_all_partitions_acked_s"]

"""`trine bench` measures what it says, on a small scale."""

import concurrent.futures
import json
import subprocess

import pytest

from support.paths import TRINE

# Bytes of what each kind counts in `ops_per_s`: a record, a file, a document, a file.
SIZES = {"consume": 1024, "fs": 2048, "index": 1024, "pipeline": 2048}
FILES = 50
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
    figures = bench("produce", "--seconds", "10", "--warm-up", "1", "--rate", "1", "--batch", "4")
    figure(json.dumps(figures))
    # Late answers count where they come, so a busy machine may show a little more or less.
    assert 0.5 < figures["mb_per_s"] < 1.5
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


def test_idle_nodes_are_watched(figure):
    figures = bench("idle", "--partitions", "30", "--seconds", "2")
    figure(json.dumps(figures))
    assert figures["partitions"] == 30 and figures["session_requests_per_s"] > 0
    shares = [name for name in figures if name.startswith("cpu_percent_")]
    assert len(shares) == 3 and all(figures[name] > 0 for name in shares)


@pytest.fixture(scope="module")
def running(cluster):
    """What each kind prints of a cluster that runs already. All at once: every one of them first
    waits until the leaders have settled."""
    where = []
    for port in ("kafka", "webhdfs", "elastic", "console"):
        where += [f"--{port}", ",".join(getattr(cluster, port))]
    where += ["--pids", ",".join(str(node.pid) for node in cluster.nodes)]

    def run(kind):
        # A leader that moves under this load ends a measurement.
        for _ in range(3):
            done = cluster.run("bench", kind, "-o", "json", "--seconds", "3", "--warm-up", "0",
                               "--connections", "2", "--batch", "4", "--files", str(FILES), *where,
                               timeout=300)
            if done.returncode == 0:
                break
        return done

    with concurrent.futures.ThreadPoolExecutor(len(SIZES)) as pool:
        return dict(zip(SIZES, pool.map(run, SIZES)))


@pytest.mark.parametrize("kind", SIZES)
def test_figures_of_every_kind_fit_together(running, kind, figure):
    result = running[kind]
    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout)
    figure(json.dumps(figures))
    assert figures["bench"] == kind and figures["equal_replicas"] == 3
    assert figures.keys() >= FIGURES
    assert 0 < figures["p50_ms"] <= figures["p99_ms"]
    assert figures["cpu_s_per_gb"] > 0 and figures["rss_mb"] > 0
    # Of one run and of one count. Both are rounded to a hundredth.
    assert figures["ops_per_s"] > 0
    expected = figures["ops_per_s"] * SIZES[kind] / 1e6
    assert figures["mb_per_s"] == pytest.approx(expected, rel=0.001, abs=0.006)
    if kind == "pipeline":
        counted = figures["ops_per_s"] * figures["seconds"]
        assert counted == pytest.approx(FILES, rel=0.02)

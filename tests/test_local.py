"""`trine local`: three nodes with one command."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess

import requests

from support.cluster import Cluster, is_alive
from support.paths import TRINE
from support.wait import wait_until

# The encrypted listener of Kafka is off unless the configuration says otherwise.
GATEWAYS = ["kafka", "webhdfs", "datanode_http", "elastic", "console", "raft", "bulk"]


def test_addresses_and_readiness(cluster):
    assert sorted(cluster.node(1).ports) == sorted(GATEWAYS)
    for node in cluster.nodes:
        for address in node.ports.values():
            host, port = address.split(":")
            socket.create_connection((host, int(port)), timeout=5).close()
        assert node.get("/healthz").status_code == 200
        assert node.get("/readyz").status_code == 200


def test_metrics_are_prometheus_text(cluster):
    for node in cluster.nodes:
        answer = node.get("/metrics")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain")
        samples = [s for s in answer.text.splitlines() if s and not s.startswith("#")]
        assert samples
        for sample in samples:
            float(sample.rsplit(" ", 1)[1])


def free_base(count):
    """The first of so many free ports in a row, below those that outgoing connections get."""
    for base in random.sample(range(15_000, 30_000 - count), 1000):
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for port in range(base, base + count):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
            return base
    raise AssertionError(f"no {count} free ports in a row")


def test_ports_from_a_base(own_cluster):
    """24 in a row, of which each node has eight; the last is for the encrypted listener."""
    base = free_base(24)
    cluster = own_cluster(port_base=base)
    for node in cluster.nodes:
        first = base + 8 * (node.number - 1)
        expected = {name: f"127.0.0.1:{port}" for port, name in enumerate(GATEWAYS, first)}
        assert node.ports == expected
        assert node.get("/readyz").status_code == 200
        assert requests.get(f"http://{node.ports['elastic']}/", timeout=5).status_code == 200
        with socket.create_server(("127.0.0.1", first + 7)):
            pass


def test_a_taken_port_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        # The taken port is the second node's third: base + 8 + 2.
        base = port - 10
        result = subprocess.run(
            [TRINE, "local", "--dir", tmp_path / "c", "--port-base", str(base)],
            capture_output=True, text=True, timeout=30,
        )
    assert result.returncode == 2
    assert f"port {port} (datanode_http of node 2) is taken" in result.stderr or (
        # Another port of the range may be taken by chance and is then named first.
        "is taken" in result.stderr)


def test_a_directory_in_use_is_refused(cluster):
    result = subprocess.run([TRINE, "local", "--dir", cluster.dir, "--port-base", "free"],
                            capture_output=True, text=True, timeout=30)
    assert result.returncode == 2
    assert "in use" in result.stderr
    assert cluster.node(1).get("/readyz").status_code == 200


def test_bad_words_are_refused(tmp_path):
    for words, text in [
        (["--set", "wal.snyc=always"], 'did you mean "wal.sync"?'),
        (["--set", "node_id=2"], "sets this itself"),
        (["--port-base", "x"], "--port-base"),
    ]:
        result = subprocess.run([TRINE, "local", "--dir", tmp_path / "c", *words],
                                capture_output=True, text=True, timeout=30)
        assert result.returncode == 2, result.stderr
        assert text in result.stderr


def test_sigterm_takes_the_nodes_down(own_cluster):
    cluster = own_cluster()
    pids = [n.pid for n in cluster.nodes]
    cluster.local.send_signal(signal.SIGTERM)
    assert cluster.local.wait(30) == 0
    assert not any(is_alive(p) for p in pids)


def test_a_killed_parent_takes_the_nodes_down(own_cluster):
    cluster = own_cluster()
    pids = [n.pid for n in cluster.nodes]
    cluster.local.kill()
    cluster.local.wait()
    wait_until(lambda: not any(is_alive(p) for p in pids), 20, "end of the nodes")


def test_a_node_that_ends_is_told_with_its_log(own_cluster):
    cluster = own_cluster()
    told = b""
    descriptor = cluster.local.stderr.fileno()
    os.set_blocking(descriptor, False)
    cluster.node(2).kill()

    def heard():
        nonlocal told
        told += os.read(descriptor, 65536)
        return b"node 2 ended by signal 9" in told

    wait_until(heard, 10, "word of the dead node")
    assert cluster.local.poll() is None


def test_the_same_directory_goes_on(tmp_path, name):
    directory = tmp_path / "c"
    first = Cluster(directory)
    try:
        ports = [n.ports for n in first.nodes]
        result = first.run("topic", "create", name, "--partitions", "2")
        assert result.returncode == 0, result.stderr
    finally:
        first.close()
    second = Cluster(directory)
    try:
        assert [n.ports for n in second.nodes] == ports
        topics = second.run("-o", "json", "topic", "list")
        assert name in json.dumps(json.loads(topics.stdout))
    finally:
        second.close()


def test_unknown_paths_of_the_console_are_404(cluster):
    answer = requests.get(f"http://{cluster.console[0]}/no/such/path", timeout=5)
    assert answer.status_code == 404

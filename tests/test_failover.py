"""Nodes die in the middle of load, and nothing is lost, doubled or stuck.

Load is 2,000 files through a pipeline, an idempotent Kafka producer and a consumer group. At the
end every file has one record, one stored file and one document, every acknowledged record stands
once at its offset, and everything replicated is equal on all nodes.
"""

import time

import pytest

from support.load import Load
from support.pipelines import apply
from support.reading import check_exactly_once
from support.wait import wait_until

FILES = 2000
# No partition may be without acknowledgements for longer; the aim is 3 s.
MAX_GAP_SECONDS = 20

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def loaded(own_cluster, tmp_path, name):
    """A cluster in the middle of load: some files have landed, most have not."""
    cluster = own_cluster()
    root = tmp_path / "files"
    root.mkdir()
    apply(cluster, tmp_path, name, root)
    load = Load(cluster, name, root, FILES)
    load.wait_files(0.1)
    # The writer is still at it: most files come while the node is away.
    assert len(load.writer.files) < FILES
    return load


def settle(load, max_gap, figure):
    """Everything goes on to its end and is what it should be."""
    load.wait_files(1.0, deadline=240)
    load.wait_acks()
    load.finish()
    gap = load.producer.longest_gap()
    figure(f"longest gap without an acknowledgement in a partition: {gap:.2f} s")
    assert gap < max_gap
    load.cluster.wait_ready()
    check_exactly_once(load.cluster, load.name, load.files)
    load.cluster.wait_equal_digests()


def test_the_leader_of_each_kind_of_group_is_killed(loaded, figure):
    for group in ("m0", "fs", "d0"):
        assert loaded.landed() < FILES, f"the load ended before {group} lost its leader"
        node = loaded.cluster.leader(group)
        node.kill()
        loaded.wait_acks(deadline=MAX_GAP_SECONDS)
        node.start()
        loaded.cluster.wait_ready()
    settle(loaded, MAX_GAP_SECONDS, figure)


def test_all_nodes_are_killed_at_once(loaded, figure):
    for node in loaded.cluster.nodes:
        node.signal(9)
    killed = time.monotonic()
    for node in loaded.cluster.nodes:
        wait_until(lambda: not node.alive(), 10, "end of the node")
    for node in loaded.cluster.nodes:
        node.start()
    loaded.cluster.wait_ready()
    figure(f"all nodes killed to all ready: {time.monotonic() - killed:.2f} s")
    # Nobody serves while nobody runs: the gap holds start and replay too.
    settle(loaded, 60, figure)


def test_a_wiped_node_comes_back(loaded, figure):
    node = loaded.cluster.leader("d1")
    node.kill()
    node.wipe()
    loaded.wait_acks(deadline=MAX_GAP_SECONDS)
    node.start()
    started = time.monotonic()
    loaded.cluster.wait_ready(deadline=120)
    figure(f"wiped node to ready: {time.monotonic() - started:.2f} s")
    settle(loaded, MAX_GAP_SECONDS, figure)

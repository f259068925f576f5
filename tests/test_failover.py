"""Nodes die in the middle of load, and nothing is lost, doubled or stuck.

Load is files through a pipeline, an idempotent Kafka producer and a consumer group. At the end
every file has one record, one stored file and one document, every acknowledged record stands once
at its offset, everything replicated is equal on all nodes, and so is every byte of every segment on
their disks.
"""

import time

import pytest
import requests

from support.load import Load
from support.pipelines import apply
from support.reading import check_equal_segments, check_every_node, check_exactly_once
from support.wait import wait_until

# At least so many; they come until the last node has died.
FILES = 2000
# Within this time after a death all goes on: no partition may be without acknowledgements for
# longer (the aim is 3 s), the group reads, and new files are found.
MAX_GAP_SECONDS = 20

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def loaded(own_cluster, tmp_path, name):
    """A cluster in the middle of load: some files have landed, and more come."""
    cluster = own_cluster()
    root = tmp_path / "files"
    root.mkdir()
    apply(cluster, tmp_path, name, root)
    load = Load(cluster, name, root)
    load.wait_files(FILES // 10)
    return load


@pytest.fixture
def loaded_by_sftp(demo, tmp_path, name):
    """The same, with files that one of the nodes collects from the demo's SFTP server."""
    root = demo.dir / "sample" / name
    root.mkdir()
    declared = tmp_path / "pipeline.toml"
    declared.write_text(demo.pipeline(name, demo.sftp_port))
    demo.json("pipeline", "apply", declared)
    load = Load(demo, name, root)
    load.wait_files(FILES // 10)
    return load


def settle(load, figure):
    """Everything comes to its end, and is the same at every node. The clients of Kafka end first:
    they take all the processor there is, and files that come after the deaths need no company."""
    load.wait_acks()
    load.finish()
    load.finish_files(FILES)
    gap = load.producer.longest_gap()
    figure(f"longest gap without an acknowledgement in a partition: {gap:.2f} s")
    assert gap < MAX_GAP_SECONDS
    load.cluster.wait_ready()
    check_every_node(load.cluster, load.name, len(load.files))


def check_replicas(cluster):
    """Ends the cluster."""
    cluster.wait_equal_digests()
    check_equal_segments(cluster)


def leader_of_all(cluster):
    """A node that was made the leader of every group."""
    node = cluster.node(2)

    def leads_all():
        # Again when a leader was not ready to hand over.
        requests.post(f"http://{node.ports['console']}/api/lead", timeout=40)
        return {group["leader"] for group in cluster.status()["groups"]} == {node.number}

    wait_until(leads_all, 30, "one leader of everything")
    return node


def survivor(cluster, dead):
    return next(node for node in cluster.nodes if node is not dead)


def test_the_leader_of_each_kind_of_group_is_killed(loaded, figure):
    """First a node that leads every group, then the leaders of `fs` and of a data group."""
    for group in (None, "fs", "d0"):
        node = loaded.cluster.leader(group) if group else leader_of_all(loaded.cluster)
        node.kill()
        loaded.wait_going_on(survivor(loaded.cluster, node).number, MAX_GAP_SECONDS)
        node.start()
        loaded.cluster.wait_ready()
    settle(loaded, figure)
    check_exactly_once(loaded.cluster, loaded.name, loaded.files)
    check_replicas(loaded.cluster)


def test_all_nodes_are_killed_at_once(loaded, figure):
    """The bound is that of a single death, though the gap holds start and replay of all three: a
    node reads at most what it wrote since its last checkpoint, here ten seconds of load."""
    for node in loaded.cluster.nodes:
        node.signal(9)
    killed = time.monotonic()
    for node in loaded.cluster.nodes:
        wait_until(lambda: not node.alive(), 10, "end of the node")
    for node in loaded.cluster.nodes:
        node.start()
    loaded.cluster.wait_ready()
    figure(f"all nodes killed to all ready: {time.monotonic() - killed:.2f} s")
    settle(loaded, figure)
    check_exactly_once(loaded.cluster, loaded.name, loaded.files)
    check_replicas(loaded.cluster)


def test_a_wiped_node_comes_back(loaded_by_sftp, figure):
    """The node that collects loses its disk: another one collects from the SFTP server instead.
    Afterwards it has all of every file, also while another node is away."""
    load, cluster = loaded_by_sftp, loaded_by_sftp.cluster

    def collecting():
        (row,) = cluster.rows("pipeline")
        return row["node"]

    node = cluster.node(wait_until(collecting, 20, "a node that collects"))
    node.kill()
    node.wipe()
    other = survivor(cluster, node)
    load.wait_going_on(other.number, MAX_GAP_SECONDS)
    wait_until(lambda: collecting() not in (None, node.number), 20, "another node that collects")
    node.start()
    started = time.monotonic()
    cluster.wait_ready(deadline=120)
    figure(f"wiped node to ready: {time.monotonic() - started:.2f} s")
    settle(load, figure)
    other.kill()
    check_exactly_once(cluster, load.name, load.files, node.number)
    other.start()
    cluster.wait_ready()
    check_replicas(cluster)

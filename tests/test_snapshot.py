"""A node that lost its disk, while the others have let go of their logs: snapshots fill it."""

import pytest

from support.pipelines import apply, write_files
from support.reading import check_equal_segments, check_every_node, check_exactly_once, count
from support.wait import wait_until

FILES = 150

pytestmark = pytest.mark.timeout(300)


def index(node, what):
    """An index of each group, as a node knows it."""
    return {group["group"]: group[what] for group in node.get("/api/node").json()["groups"]}


def test_a_wiped_node_is_filled_by_snapshots(own_cluster, tmp_path, name):
    cluster = own_cluster(sets=["disk.reserve_bytes=0", "raft.keep_log_bytes=0"])
    root = tmp_path / "files"
    root.mkdir()
    files = write_files(root, FILES)
    apply(cluster, tmp_path, name, root)
    wait_until(lambda: count(cluster, name) == FILES, 60, "the first files")

    node, *others = reversed(cluster.nodes)
    node.kill()
    node.wipe()
    files |= write_files(root, FILES, start=FILES)
    wait_until(lambda: count(cluster, name) == 2 * FILES, 60, "the files that came meanwhile")
    applied = index(others[0], "applied")

    def gone(at_node):
        begins = index(at_node, "purged")
        return all(begins[group] >= at for group, at in applied.items())

    wait_until(lambda: all(map(gone, others)), 60, "end of the logs of the other nodes")
    assert all(applied.values()), applied

    node.start()
    # It dies once more on its way; how far it has come by then is chance.
    wait_until(lambda: node.get("/healthz").ok, 30, "life")
    node.kill()
    node.start()
    cluster.wait_ready(deadline=60)
    cluster.wait_equal_digests()
    check_every_node(cluster, name, len(files))
    # Nobody had the entries up to these: they did not come as a log.
    begins = index(node, "purged")
    assert all(begins[group] >= at for group, at in applied.items()), (begins, applied)
    others[0].kill()
    check_exactly_once(cluster, name, files, node.number)
    others[0].start()
    cluster.wait_ready()
    check_equal_segments(cluster)

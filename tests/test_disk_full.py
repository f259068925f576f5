"""A disk that is really full: the write-ahead log and the segments of one node cannot be written.

There is no reserve here that would refuse writes before (`test_disk_reserve.py`): the node must
stop instead of going on with half of what it has acknowledged, the other two go on, and with room
again it catches up.
"""

import os
import subprocess
import time

import pytest
from confluent_kafka import Producer

from support.acks import Acks
from support.reading import records

pytestmark = pytest.mark.timeout(300)

DISK_BYTES = 200 << 20
LARGER_BYTES = 2 << 30
RECORD_BYTES = 50_000
PARTITIONS = 6
DEADLINE = 90


class SmallDisk:
    """A file system in memory below the data directory of a stopped node."""

    def __init__(self, node):
        self.node = node
        self.dir = node.data_dir
        self.kept = self.dir.with_name("kept")
        self.dir.rename(self.kept)
        self.dir.mkdir()
        done = self._mount("-t", "tmpfs", "-o", f"size={DISK_BYTES}", "trine-test")
        if done.returncode:
            pytest.skip(f"needs a mount: {done.stderr.strip()}")

    def start_node(self):
        subprocess.run(["cp", "-a", f"{self.kept}/.", self.dir], check=True)
        self.node.start()

    def _mount(self, *words):
        return subprocess.run(["mount", *words, self.dir], capture_output=True, text=True)

    def free_bytes(self):
        now = os.statvfs(self.dir)
        return now.f_bavail * now.f_frsize

    def grow(self):
        done = self._mount("-o", f"remount,size={LARGER_BYTES}")
        assert done.returncode == 0, done.stderr

    def close(self):
        self.node.kill()
        subprocess.run(["umount", self.dir], check=True)


@pytest.fixture
def cluster_with_small_disk(own_cluster):
    """A cluster and the small disk of its third node."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts a file system")
    cluster = own_cluster()
    cluster.wait_ready()
    node = cluster.node(3)
    node.stop()
    disk = SmallDisk(node)
    try:
        disk.start_node()
        cluster.wait_ready(deadline=DEADLINE)
        yield cluster, disk
    finally:
        disk.close()


class Filling:
    """Produces to all partitions and remembers what was acknowledged."""

    def __init__(self, cluster, topic):
        self.topic = topic
        self.acked = Acks()
        self.failed = []
        self.number = 0
        self._producer = Producer({
            "bootstrap.servers": ",".join(cluster.kafka),
            "log_level": 0,
            "enable.idempotence": True,
            "acks": "all",
            "delivery.timeout.ms": DEADLINE * 1000,
        })

    def produce(self, count):
        for _ in range(count):
            value = b"%d " % self.number + os.urandom(RECORD_BYTES)
            self._producer.produce(self.topic, value, partition=self.number % PARTITIONS,
                                   on_delivery=self._delivered)
            self.number += 1
        assert self._producer.flush(DEADLINE) == 0
        assert not self.failed, self.failed[:3]

    def _delivered(self, error, message):
        if error is not None:
            self.failed.append(error)
        else:
            self.acked.note(message)


def test_a_full_disk_stops_its_node_and_nothing_is_lost(cluster_with_small_disk, name):
    cluster, disk = cluster_with_small_disk
    node = disk.node
    done = cluster.run("topic", "create", name, "--partitions", str(PARTITIONS))
    assert done.returncode == 0, done.stderr
    filling = Filling(cluster, name)

    end = time.monotonic() + DEADLINE
    while node.alive():
        filling.produce(10 * PARTITIONS)
        assert filling.number * RECORD_BYTES < DISK_BYTES, "everything fits: nothing was full"
        assert time.monotonic() < end, f"{disk.free_bytes()} bytes are free"
    last_words = node.log_tail(10)
    assert "No space left on device" in last_words and str(disk.dir) in last_words
    assert "panicked" not in node.log_tail(2000)

    # The others go on without it, for what is there and what comes.
    filling.produce(10 * PARTITIONS)
    assert all(n.alive() for n in cluster.nodes if n is not node)
    filling.acked.check_same(records(cluster, name))

    disk.grow()
    node.start()
    cluster.wait_ready(deadline=DEADLINE)
    cluster.wait_equal_digests(deadline=DEADLINE)
    filling.produce(PARTITIONS)
    filling.acked.check_same(records(cluster, name))

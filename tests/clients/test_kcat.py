"""kcat, librdkafka on the command line."""

import json
import subprocess

import pytest
from support.wait import wait_until

DEADLINE = 60


def kcat(cluster, *words, data=None, node=None):
    servers = cluster.kafka[node - 1] if node else ",".join(cluster.kafka)
    done = subprocess.run(["kcat", "-b", servers, *words], input=data, capture_output=True,
                          timeout=DEADLINE)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout


def lines(count):
    return [f"줄 {n} {'x' * 200}".encode() for n in range(count)]


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_every_compression_with_every_acks(cluster, name, codec, acks):
    sent = lines(100)
    kcat(cluster, "-L", "-t", name)
    kcat(cluster, "-P", "-t", name, "-z", codec, "-X", f"acks={acks}", data=b"\n".join(sent))
    found = []

    def all_there():
        # With acks=0 the producer ends before its records are committed.
        found[:] = kcat(cluster, "-C", "-t", name, "-e", "-q", "-o", "beginning").splitlines()
        return len(found) >= len(sent)

    wait_until(all_there, DEADLINE, "all records")
    assert sorted(found) == sorted(sent)


def test_every_node_names_all_brokers_and_serves(cluster, name):
    kcat(cluster, "-P", "-t", name, "-X", "enable.idempotence=true", data=b"a\nb\nc\n")
    for node in (1, 2, 3):
        def spread():
            told = json.loads(kcat(cluster, "-L", "-J", "-t", name, node=node))
            assert sorted(b["name"] for b in told["brokers"]) == sorted(cluster.kafka)
            partitions = told["topics"][0]["partitions"]
            assert sorted(p["partition"] for p in partitions) == [0, 1, 2]
            assert all(len(p["replicas"]) == 3 for p in partitions)
            return len({p["leader"] for p in partitions}) == 3

        wait_until(spread, 30, "leaders that are spread", pause=0.2)
        read = kcat(cluster, "-C", "-t", name, "-e", "-q", "-o", "beginning", node=node)
        assert sorted(read.split()) == [b"a", b"b", b"c"]


def test_offsets_and_times(cluster, name):
    def put(value):
        kcat(cluster, "-P", "-t", name, "-p", "0", data=value)

    def get(start):
        words = ["-C", "-t", name, "-p", "0", "-e", "-q", "-o", start]
        return kcat(cluster, *words).split()

    put(b"a\nb")
    stamps = kcat(cluster, "-C", "-t", name, "-p", "0", "-e", "-q", "-f", "%T\n").split()
    after = max(int(stamp) for stamp in stamps) + 1
    put(b"c\nd")
    assert get("beginning") == [b"a", b"b", b"c", b"d"]
    assert get("end") == []
    assert get("3") == [b"d"]
    assert get("-1") == [b"d"]
    assert get(f"s@{after}") == [b"c", b"d"]
    assert get(f"s@{after + 3_600_000}") == []
    told = kcat(cluster, "-Q", "-t", f"{name}:0:{after}").decode()
    assert "offset 2" in told, told


def test_a_group_goes_on_where_it_stopped(cluster, name):
    sent = [b"%d" % n for n in range(30)]
    kcat(cluster, "-P", "-t", name, data=b"\n".join(sent))

    def group(count):
        more = ["-X", "auto.offset.reset=earliest", "-c", str(count), "-q", "-u"]
        return kcat(cluster, "-G", name, *more, name).split()

    first = group(10)
    assert len(first) == 10
    assert sorted(first + group(20)) == sorted(sent)

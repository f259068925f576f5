"""Requests of the Kafka port that are cut short, damaged, too large, dripping or bombs. What holds
for all ports is in tests/test_garbage.py."""

import gzip
import os
import socket
import struct
import subprocess
import threading
import time

import pytest
from confluent_kafka import Producer
from support.wait import wait_until
from test_garbage import answer, connect, kafka_frame, send
from test_garbage import the_node_survives  # noqa: F401 - a fixture for every test here

DEADLINE = 30


def text(value):
    value = value.encode()
    return struct.pack(">h", len(value)) + value


def blob(value):
    return struct.pack(">i", len(value)) + value


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def batch(records, codec=0, count=1, time_ms=1000):
    """A record batch with a sound checksum, whatever its records are."""
    checked = struct.pack(">hiqqqhii", codec, count - 1, time_ms, time_ms, -1, -1, -1, count)
    checked += records
    tail = struct.pack(">ibI", 0, 2, crc32c(checked)) + checked
    return struct.pack(">qi", 0, len(tail)) + tail


def produce(topic, records, acks=-1, timeout_ms=10_000):
    return kafka_frame(0, 7, struct.pack(">hhii", -1, acks, timeout_ms, 1) + text(topic)
                       + struct.pack(">ii", 1, 0) + blob(records))


def requests(topic):
    """A sound request of every kind that carries more than a word."""
    one = struct.pack(">i", 1) + text(topic)
    return {
        "produce": produce(topic, batch(b"\x0e\0\0\0\x01\x02a\0")),
        "fetch": kafka_frame(1, 4, struct.pack(">iiiib", -1, 10, 1, 1 << 20, 0) + one
                             + struct.pack(">iiqi", 1, 0, 0, 1 << 20)),
        "list_offsets": kafka_frame(2, 1, struct.pack(">i", -1) + one
                                    + struct.pack(">iiq", 1, 0, 0)),
        "metadata": kafka_frame(3, 4, one + b"\1"),
        "commit": kafka_frame(8, 2, text(topic) + struct.pack(">i", -1) + text("")
                              + struct.pack(">q", -1) + one + struct.pack(">iiq", 1, 0, 5)
                              + text("m")),
        "join": kafka_frame(11, 1, text(topic) + struct.pack(">ii", 6000, 6000) + text("")
                            + text("consumer") + struct.pack(">i", 1) + text("range")
                            + blob(b"\0\0\0\0\0\0")),
        "sync": kafka_frame(14, 1, text(topic) + struct.pack(">i", 1) + text("m")
                            + struct.pack(">i", 1) + text("m") + blob(b"abc")),
        "create": kafka_frame(19, 2, one + struct.pack(">ihi", 1, 1, 0) + struct.pack(">i", 1)
                              + text("retention.ms") + text("1000")
                              + struct.pack(">ib", 1000, 1)),
        "versions": kafka_frame(18, 3, b"\0\x05test\x041.0\0"),
        "flexible": kafka_frame(3, 9, b"\0\x02" + bytes([len(topic) + 1]) + topic.encode()
                                + b"\0\1\0\0\0"),
    }


KINDS = list(requests("t"))


def outcomes(cluster, frames):
    """Sends each frame over a connection of its own; every one is answered or closed."""
    for number, frame in enumerate(frames):
        with connect(cluster, "kafka") as connection:
            send(connection, frame)
            connection.shutdown(socket.SHUT_WR)
            assert answer(connection) is not None, f"silence after frame {number}"


def new_topic(cluster, topic, partitions=1):
    result = cluster.run("topic", "create", topic, "--partitions", str(partitions))
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_bodies_cut_short_under_an_honest_size(cluster, name, kind):
    body = requests(name)[kind][4:]
    cuts = range(8, len(body), 3)
    outcomes(cluster, [struct.pack(">i", cut) + body[:cut] for cut in cuts])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", [0xFF, 0x80, 0x7F])
def test_damaged_bytes(cluster, name, kind, damage):
    frames = []
    # The size itself stays: lies about it are tried for all binary ports.
    for at in range(12, len(requests(name)[kind]), 4):
        # A group of its own for each: a join waits for the members that are there.
        frame = requests(f"{at:03}{name}")[kind] if kind == "join" else requests(name)[kind]
        frames.append(frame[:at] + bytes([damage]) + frame[at + 1:])
    outcomes(cluster, frames)


def test_more_bytes_than_the_body_needs(cluster, name):
    frames = []
    for frame in requests(name).values():
        longer = frame[4:] + b"\0" * 5000
        frames.append(struct.pack(">i", len(longer)) + longer)
    outcomes(cluster, frames)


def still_serves(cluster):
    done = subprocess.run(["kcat", "-b", cluster.kafka[0], "-L", "-m", "10"],
                          capture_output=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stderr


def test_many_announce_large_requests(cluster):
    """Memory follows what has come, not what was announced."""
    connections = [connect(cluster, "kafka") for _ in range(200)]
    try:
        for connection in connections:
            send(connection, struct.pack(">i", 99 << 20) + b"\0" * 1000)
        still_serves(cluster)
    finally:
        for connection in connections:
            connection.close()


def test_large_requests_that_stall_do_not_starve_small_ones(cluster):
    """Half-sent large requests use up their budget; others are served beside them."""
    piece, connections = b"\0" * (1 << 20), []
    try:
        for _ in range(4):
            connection = connect(cluster, "kafka")
            connections.append(connection)
            send(connection, struct.pack(">i", 99 << 20))
            connection.settimeout(0.5)
            for _ in range(90):
                if not send(connection, piece):
                    break
        assert connections and not send(connections[-1], piece), "the budget is not used up"
        still_serves(cluster)
    finally:
        for connection in connections:
            connection.close()


def test_requests_without_end_whose_answers_nobody_reads(cluster, name):
    new_topic(cluster, name)
    asked = requests(name)["metadata"]
    with connect(cluster, "kafka") as connection:
        connection.settimeout(2)
        for _ in range(200):
            if not send(connection, asked * 1000):
                break
        still_serves(cluster)


def test_records_that_nobody_takes(own_cluster, name):
    """Many fetch what lies only on disk, and read nothing of the answers."""
    cluster = own_cluster()
    new_topic(cluster, name)
    producer = Producer({"bootstrap.servers": ",".join(cluster.kafka), "log_level": 0})
    for _ in range(70):
        producer.produce(name, os.urandom(900_000), partition=0)
    assert producer.flush(DEADLINE) == 0
    # After a restart nothing of it is in memory.
    for node in cluster.nodes:
        node.stop()
    for node in cluster.nodes:
        node.start()
    cluster.wait_ready()
    leader = wait_until(lambda: leader_node(cluster, name), DEADLINE, "a leader")
    node = cluster.node(leader)
    host, port = node.ports["kafka"].split(":")
    all_of_it = kafka_frame(1, 4, struct.pack(">iiiib", -1, 1000, 1, 2**31 - 1, 0)
                            + struct.pack(">i", 1) + text(name)
                            + struct.pack(">iiqi", 1, 0, 0, 2**31 - 1))
    before, connections, peak = node.rss_bytes(), [], 0
    try:
        for _ in range(60):
            connection = socket.create_connection((host, int(port)), DEADLINE)
            connections.append(connection)
            send(connection, all_of_it)
        for connection in connections:
            # The head of the answer is there, so its records have been read.
            assert len(connection.recv(4)) == 4
            peak = max(peak, node.rss_bytes() - before)
        assert peak < 768 << 20, f"grew by {peak >> 20} MiB"
        read = subprocess.run(["kcat", "-b", node.ports["kafka"], "-C", "-t", name, "-c", "70",
                               "-q", "-f", "%S\n"], capture_output=True, timeout=120)
        assert read.stdout.split() == [b"900000"] * 70
    finally:
        for connection in connections:
            connection.close()


def test_a_frame_that_drips_is_served_when_it_is_whole(cluster, name):
    new_topic(cluster, name)
    frame = requests(name)["metadata"]
    with connect(cluster, "kafka") as connection:
        for at in range(len(frame)):
            send(connection, frame[at:at + 1])
            time.sleep(0.01)
        connection.shutdown(socket.SHUT_WR)
        assert name.encode() in answer(connection)


def leader_node(cluster, topic):
    done = subprocess.run(["kcat", "-b", ",".join(cluster.kafka), "-L", "-t", topic],
                          capture_output=True, text=True, timeout=DEADLINE)
    return int(done.stdout.split("partition 0, leader ")[1].split(",")[0])


def ask(cluster, node, frame):
    """One request to a node; its answer without size and correlation id."""
    host, port = cluster.node(node).ports["kafka"].split(":")
    with socket.create_connection((host, int(port)), DEADLINE) as connection:
        connection.sendall(frame)
        connection.shutdown(socket.SHUT_WR)
        return answer(connection)[8:]


def produce_code(cluster, topic, records, timeout_ms=10_000):
    frame = produce(topic, records, timeout_ms=timeout_ms)
    found = ask(cluster, leader_node(cluster, topic), frame)
    at = 4 + 2 + len(topic) + 4 + 4
    return struct.unpack(">h", found[at:at + 2])[0]


def test_batches_have_kafkas_errors(cluster, name):
    new_topic(cluster, name)
    sound = batch(b"\x0e\0\0\0\x01\x02a\0")
    assert produce_code(cluster, name, sound) == 0
    damaged = sound[:-1] + b"\xff"
    assert produce_code(cluster, name, damaged) == 2, "CORRUPT_MESSAGE"
    assert produce_code(cluster, name, sound[:30]) == 87, "INVALID_RECORD"
    assert produce_code(cluster, name, sound + sound) == 87, "INVALID_RECORD"
    assert produce_code(cluster, name, b"") == 87, "INVALID_RECORD"
    assert produce_code(cluster, name, batch(b"", count=2**31 - 1)) in (2, 42, 87)
    old = sound[:16] + b"\1" + sound[17:]
    assert produce_code(cluster, name, old) == 87, "INVALID_RECORD"
    large = batch(b"\0" * (2 << 20))
    assert produce_code(cluster, name, large) == 10, "MESSAGE_TOO_LARGE"


def test_bombs_do_not_burst(cluster, name):
    """Small batches that decompress to very much, looked into by many at once."""
    new_topic(cluster, name)
    bomb = gzip.compress(b"\0" * (300 << 20), 9)
    code = produce_code(cluster, name, batch(bomb, codec=1, time_ms=5_000))
    leader = leader_node(cluster, name)
    before, peak = cluster.node(leader).rss_bytes(), 0
    look = kafka_frame(2, 1, struct.pack(">ii", -1, 1) + text(name)
                       + struct.pack(">iiq", 1, 0, 4_000))
    found = []
    threads = [threading.Thread(target=lambda: found.append(ask(cluster, leader, look)))
               for _ in range(32)]
    for thread in threads:
        thread.start()

    def done():
        nonlocal peak
        peak = max(peak, cluster.node(leader).rss_bytes() - before)
        return len(found) == len(threads)

    wait_until(done, 120, "answers", pause=0.01)
    print(f"produce answered {code}, peak {peak >> 20} MiB")
    assert peak < 512 << 20, f"grew by {peak >> 20} MiB"

"""Sound requests that ask for very much in few bytes: every node answers, small and in time, and goes
on. What is not sound is in test_garbage_kafka.py."""

import gzip
import struct
import time

import pytest
from support.raw_kafka import RawKafka
from support.wait import wait_until
from test_garbage import kafka_frame
from test_garbage_kafka import ask, batch, blob, leader_node, new_topic, produce_code, text

MOST_GROWTH = 512 << 20
DEADLINE = 30
ELSEWHERE = (14, 15, 16)  # COORDINATOR_LOAD_IN_PROGRESS, …_NOT_AVAILABLE, NOT_COORDINATOR


@pytest.fixture(autouse=True)
def all_nodes_survive(cluster):
    before = [(node.pid, node.rss_bytes()) for node in cluster.nodes]
    for node in cluster.nodes:
        node.begin_peak()
    yield
    for node, (pid, bytes_before) in zip(cluster.nodes, before):
        assert node.alive() and node.pid == pid, node.log_tail()
        wait_until(lambda node=node: node.get("/readyz").status_code == 200, DEADLINE, "readiness")
        growth = node.peak_bytes() - bytes_before
        assert growth < MOST_GROWTH, f"grew by {growth >> 20} MiB"


def array(*items):
    return struct.pack(">i", len(items)) + b"".join(items)


def coordinated(cluster, frame, at):
    """The answer of the node that coordinates, and the error code at `at` in it."""
    def answered():
        for number in (1, 2, 3):
            found = ask(cluster, number, frame)
            code = struct.unpack_from(">h", found, at)[0]
            if code not in ELSEWHERE:
                return found, code
        return None

    return wait_until(answered, DEADLINE, "an answer of the coordinator", pause=0.2)


def test_a_topic_asked_for_very_often_is_described_once(cluster, name):
    new_topic(cluster, name, 10)
    once = kafka_frame(3, 4, array(text(name)) + b"\0")
    often = kafka_frame(3, 4, array(*[text(name)] * 100_000) + b"\0")
    # A leader may move between the two.
    wait_until(lambda: ask(cluster, 1, often) == ask(cluster, 1, once), DEADLINE, "equal answers")


def test_settings_asked_for_very_often_are_told_once(cluster):
    broker = struct.pack(">b", 4) + text("1") + struct.pack(">i", -1)
    once = ask(cluster, 1, kafka_frame(32, 1, array(broker) + b"\0"))
    often = ask(cluster, 1, kafka_frame(32, 1, array(*[broker] * 50_000) + b"\0"))
    assert often == once


def test_a_node_has_one_number_however_it_is_written(cluster):
    """Each way to write it would be answered with all settings of the node."""
    def described(names):
        brokers = [struct.pack(">b", 4) + text(one) + struct.pack(">i", -1) for one in names]
        return ask(cluster, 1, kafka_frame(32, 1, array(*brokers) + b"\0"))

    assert described(["0" * n + "1" for n in range(1000)]) == described(["1"])


def test_one_long_name_for_many_partitions_takes_little(cluster, name):
    """32 KB of name and a MiB of partitions: their product is 8 GB."""
    new_topic(cluster, name)
    long = "n" * 32_000
    each = [struct.pack(">i", number) for number in range(250_000)]
    topics = array(text(long) + array(*each))
    # OffsetFetch: no offset for any of them, or of each that this node does not coordinate.
    for number in (1, 2, 3):
        found = ask(cluster, number, kafka_frame(9, 1, text(name) + topics))
        assert struct.unpack_from(">i", found)[0] == 1
    # OffsetCommit.
    offset = [struct.pack(">iq", number, 5) + text("") for number in range(9_000)]
    body = text(name) + struct.pack(">i", -1) + text("") + struct.pack(">q", -1)
    _, code = coordinated(cluster, kafka_frame(8, 2, body + array(text(long) + array(*offset))),
                          4 + 2 + len(long) + 4 + 4)
    assert code == 3, "UNKNOWN_TOPIC_OR_PARTITION"
    # ListOffsets: an error for each, and what is named twice is named by place.
    listed = [struct.pack(">iq", number, -1) for number in range(80_000)] * 2
    body = struct.pack(">i", -1) + array(text(long) + array(*listed))
    found = ask(cluster, 1, kafka_frame(2, 1, body))
    assert struct.unpack_from(">i", found)[0] == 1
    # ElectLeaders.
    found = ask(cluster, 1, kafka_frame(43, 0, topics + struct.pack(">i", 1000)))
    assert struct.unpack_from(">i", found)[0] == 0


def test_topics_named_twice_do_not_take_long(cluster, name):
    def topic(number):
        return text(f"{name}-{number}") + struct.pack(">ihii", 1, 1, 0, 0)

    topics = [topic(number) for number in range(100_000)] * 2
    begun = time.monotonic()
    found = ask(cluster, 1, kafka_frame(19, 2, array(*topics) + struct.pack(">ib", 1000, 1)))
    # Throttle time, and one result for each name.
    assert struct.unpack_from(">ii", found) == (0, 100_000)
    assert time.monotonic() - begun < DEADLINE


def test_a_request_that_names_more_than_there_can_be_ends_its_connection(cluster, name):
    def ask_of(key, version, body):
        connection = RawKafka(cluster.kafka[0])
        try:
            return connection.ask(key, version, body)
        finally:
            connection.close()

    for count in (100, 10_001):
        topics = [text(f"{name}-{n}") + struct.pack(">ihii", 1, 1, 0, 0) for n in range(count)]
        create = 19, 2, array(*topics) + struct.pack(">ib", 1000, 1)
        groups = [b"\x20" + text(f"{name}-{n}") + struct.pack(">i", -1) for n in range(count)]
        describe = 32, 1, array(*groups) + b"\0"
        empty = [struct.pack(">ii", n, 0) for n in range(count)]
        send = 0, 3, struct.pack(">hhi", -1, 1, 1000) + array(text(name) + array(*empty))
        for request in (create, describe, send):
            if count == 100:
                assert len(ask_of(*request)) > count
            else:
                with pytest.raises(ConnectionError):
                    ask_of(*request)


def test_a_commit_larger_than_a_command_is_refused(cluster, name):
    new_topic(cluster, name)
    offset = struct.pack(">iq", 0, 5) + text("m" * 4096)
    body = (text(name) + struct.pack(">i", -1) + text("") + struct.pack(">q", -1)
            + array(text(name) + array(*[offset] * 3000)))
    _, code = coordinated(cluster, kafka_frame(8, 2, body), 4 + 2 + len(name) + 4 + 4)
    assert code == 42, "INVALID_REQUEST"
    body = (text(name) + struct.pack(">i", -1) + text("") + struct.pack(">q", -1)
            + array(text(name) + array(offset)))
    _, code = coordinated(cluster, kafka_frame(8, 2, body), 4 + 2 + len(name) + 4 + 4)
    assert code == 0
    partitions = [struct.pack(">i", number) for number in range(500_000)]
    body = text(name) + array(text(name) + array(*partitions))
    at = 2 + 4 + 4 + 2 + len(name) + 4 + 4
    found, code = coordinated(cluster, kafka_frame(47, 0, body), 0)
    assert (code, struct.unpack_from(">h", found, at)[0]) == (0, 42), "INVALID_REQUEST"


def test_a_transaction_has_bounds(cluster, name):
    new_topic(cluster, name)
    frame = kafka_frame(22, 0, text(name) + struct.pack(">i", 60_000))
    found, code = coordinated(cluster, frame, 4)
    assert code == 0
    producer = text(name) + found[6:16]
    for number in range(3):
        group = f"{number}" + "g" * 32_000
        _, code = coordinated(cluster, kafka_frame(25, 0, producer + text(group)), 4)
        assert code == 42, "INVALID_REQUEST"
    one = struct.pack(">i", 0)
    body = producer + array(text(name) + array(*[one] * 300_000))
    at = 4 + 4 + 2 + len(name) + 4 + 4
    found = [ask(cluster, number, kafka_frame(24, 0, body)) for number in (1, 2, 3)]
    assert all(struct.unpack_from(">h", answer, at)[0] == 42 for answer in found)
    _, code = coordinated(cluster, kafka_frame(24, 0, producer + array(text(name) + array(one, one))),
                          at)
    assert code == 0


def test_what_members_of_a_group_say_is_bounded(cluster, name):
    body = (text(name) + struct.pack(">ii", 6000, 6000) + text("") + text("consumer")
            + array(text("range") + blob(b"\0" * (9 << 20))))
    _, code = coordinated(cluster, kafka_frame(11, 1, body), 0)
    assert code != 0
    body = (text(name) + struct.pack(">ii", 6000, 6000) + text("") + text("consumer")
            + array(text("range") + blob(b"\0" * 100)))
    _, code = coordinated(cluster, kafka_frame(11, 1, body), 0)
    assert code == 0


def test_a_record_with_millions_of_headers_is_refused_in_little_memory(cluster, name):
    def varint(value):
        value, out = value << 1, b""
        while value >= 0x80:
            out += bytes([value & 0x7F | 0x80])
            value >>= 7
        return out + bytes([value])

    new_topic(cluster, name)
    headers = (63 << 20) // 2
    record = b"\0\0\0\1\1" + varint(headers) + b"\0" * (2 * headers)
    packed = gzip.compress(varint(len(record)) + record, 9)
    now = int(time.time() * 1000)
    soon = now + 3 * 3600 * 1000
    leader = cluster.node(leader_node(cluster, name))
    code = produce_code(cluster, name, batch(packed, 1, time_ms=soon), timeout_ms=60_000)
    assert code == 32, "INVALID_TIMESTAMP"
    # Retention would take a record of long ago.
    assert produce_code(cluster, name, batch(packed, 1, time_ms=now), timeout_ms=60_000) == 0
    look = kafka_frame(
        2, 1, struct.pack(">ii", -1, 1) + text(name) + struct.pack(">iiq", 1, 0, now - 500))
    assert struct.unpack_from(">hqq", ask(cluster, leader.number, look), 14 + len(name)) \
        == (0, now, 0)

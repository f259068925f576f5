"""Client quotas: a producer and a consumer are slowed to the rate that was asked."""

import socket
import struct
import time

from confluent_kafka import Consumer, Producer, TopicPartition
from support.wait import wait_until

DEADLINE = 30
RATE = 200_000


def text(value):
    if value is None:
        return struct.pack(">h", -1)
    return struct.pack(">h", len(value.encode())) + value.encode()


def ask(cluster, key, version, body, node=1):
    host, port = cluster.node(node).ports["kafka"].split(":")
    request = struct.pack(">hhih", key, version, 7, -1) + body
    with socket.create_connection((host, int(port)), timeout=DEADLINE) as stream:
        stream.sendall(struct.pack(">i", len(request)) + request)
        size = struct.unpack(">i", stream.recv(4, socket.MSG_WAITALL))[0]
        return stream.recv(size, socket.MSG_WAITALL)[4:]


def entity(parts):
    return struct.pack(">i", len(parts)) + b"".join(text(k) + text(v) for k, v in parts)


def alter(cluster, parts, values):
    """AlterClientQuotas, version 0; returns the error code and text."""
    body = struct.pack(">i", 1) + entity(parts) + struct.pack(">i", len(values))
    for key, value in values.items():
        body += text(key) + struct.pack(">d?", value or 0, value is None)
    answer = ask(cluster, 49, 0, body + b"\0")
    _, count, code, length = struct.unpack(">iihh", answer[:12])
    assert count == 1
    return code, answer[12:12 + max(length, 0)].decode()


def describe(cluster, kind, match, node=1):
    """DescribeClientQuotas, version 0, of one exactly named part; the values by key."""
    body = struct.pack(">i", 1) + text(kind) + struct.pack(">b", 0) + text(match) + b"\0"
    answer = ask(cluster, 48, 0, body, node)
    _, code = struct.unpack(">ih", answer[:6])
    assert code == 0
    assert answer[6:8] == b"\xff\xff"
    at = 8
    found = {}

    def take(form):
        nonlocal at
        values = struct.unpack_from(form, answer, at)
        at += struct.calcsize(form)
        return values[0]

    def word():
        nonlocal at
        length = take(">h")
        if length < 0:
            return None
        at += length
        return answer[at - length:at].decode()

    for _ in range(take(">i")):
        for _ in range(take(">i")):
            word(), word()
        for _ in range(take(">i")):
            key = word()
            found[key] = take(">d")
    return found


def throttled(cluster):
    lines = [line for node in cluster.nodes for line in node.get("/metrics").text.splitlines()]
    counts = [line for line in lines if line.startswith("trine_throttled_responses_total ")]
    return sum(float(line.split()[1]) for line in counts)


def test_quotas_are_kept_and_checked(cluster, name):
    values = {"producer_byte_rate": 1000.0, "request_percentage": 12.5}
    assert alter(cluster, [("user", name), ("client-id", None)], values) == (0, "")
    assert describe(cluster, "user", name, node=3) == values
    assert alter(cluster, [("user", name), ("client-id", None)],
                 {"producer_byte_rate": None}) == (0, "")
    assert describe(cluster, "user", name, node=2) == {"request_percentage": 12.5}
    assert alter(cluster, [("ip", "10.0.0.1")], {"connection_creation_rate": 5}) == (0, "")
    assert alter(cluster, [("user", name)], {"speed": 1}) == \
        (42, "Invalid configuration key speed")
    assert alter(cluster, [("user", name)], {"producer_byte_rate": -1})[0] == 42
    assert alter(cluster, [("house", name)], {"producer_byte_rate": 1}) == \
        (42, "Unhandled client quota entity type: house")


def produce(cluster, name, client_id, count):
    """Seconds for `count` records of 10 KB to one partition."""
    producer = Producer({
        "bootstrap.servers": ",".join(cluster.kafka), "client.id": client_id, "linger.ms": 0,
        "batch.num.messages": 1, "acks": "all"})
    producer.list_topics(name, DEADLINE)
    start = time.monotonic()
    for _ in range(count):
        producer.produce(name, b"x" * 10_000, partition=0)
    assert producer.flush(4 * DEADLINE) == 0
    return time.monotonic() - start


def test_a_producer_is_slowed_to_its_rate(cluster, name):
    assert alter(cluster, [("client-id", name)], {"producer_byte_rate": RATE}) == (0, "")
    wait_until(lambda: describe(cluster, "client-id", name), DEADLINE, "the quota")
    before = throttled(cluster)
    # Kafka's window lets ten seconds' worth come at once; the rest must take its time.
    free = produce(cluster, name, f"free-{name}", 400)
    slow = produce(cluster, name, name, 400)
    expected = (400 * 10_000 - 10 * RATE) / RATE
    assert throttled(cluster) > before
    assert slow > 0.7 * expected, (slow, expected)
    assert slow > 2 * free, (slow, free)


def test_a_consumer_is_slowed_to_its_rate(cluster, name):
    produce(cluster, name, f"free-{name}", 400)
    assert alter(cluster, [("client-id", name)], {"consumer_byte_rate": RATE}) == (0, "")
    for node in (1, 2, 3):
        wait_until(lambda: describe(cluster, "client-id", name, node), DEADLINE, "the quota")

    def read(client_id):
        consumer = Consumer({
            "bootstrap.servers": ",".join(cluster.kafka), "client.id": client_id,
            "group.id": client_id, "fetch.message.max.bytes": 100_000})
        consumer.assign([TopicPartition(name, 0, 0)])
        start, count, end = time.monotonic(), 0, time.monotonic() + 4 * DEADLINE
        while count < 400 and time.monotonic() < end:
            message = consumer.poll(1)
            count += message is not None and message.error() is None
        consumer.close()
        assert count == 400
        return time.monotonic() - start

    free, slow = read(f"free-{name}"), read(name)
    assert slow > 0.7 * (400 * 10_000 - 10 * RATE) / RATE, slow
    assert slow > 2 * free, (slow, free)


"""Client quotas: a producer and a consumer are slowed to the rate that was asked."""

import struct
import time

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from kafka.record import MemoryRecordsBuilder
from support.raw_kafka import RawKafka
from support.secured import ADMIN, RawSasl, Secured
from support.wait import wait_until

DEADLINE = 30
RATE = 200_000


def text(value):
    if value is None:
        return struct.pack(">h", -1)
    return struct.pack(">h", len(value.encode())) + value.encode()


def connect(cluster, node):
    """A connection to an open cluster, or to a secured one as its administrator."""
    if isinstance(cluster, Secured):
        address = cluster.cluster.node(node).ports["kafka"]
        return RawSasl(address, *ADMIN, cluster.certificates)
    return RawKafka(cluster.node(node).ports["kafka"])


def ask(cluster, key, version, body, node=1):
    raw = connect(cluster, node)
    try:
        return raw.ask(key, version, body)
    finally:
        raw.close()


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
    slow = produce(cluster, name, name, 400)
    expected = (400 * 10_000 - 10 * RATE) / RATE
    assert throttled(cluster) > before
    assert slow > 0.7 * expected, (slow, expected)


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

    slow = read(name)
    assert slow > 0.7 * (400 * 10_000 - 10 * RATE) / RATE, slow



BATCH_BYTES = 120_000
USER_RATE = 20_000


def write(raw, topic):
    """Produce, version 7, of one batch to partition 0; returns the time to wait in ms."""
    records = MemoryRecordsBuilder(magic=2, compression_type=0, batch_size=2 * BATCH_BYTES)
    # Retention deletes what is old.
    now_ms = int(time.time() * 1000)
    records.append(timestamp=now_ms, key=None, value=b"x" * BATCH_BYTES, headers=[])
    records.close()
    batch = records.buffer()
    told = raw.ask(0, 7, struct.pack(">hhii", -1, -1, DEADLINE * 1000, 1) + text(topic)
                   + struct.pack(">iii", 1, 0, len(batch)) + batch)
    # One topic with one partition: its number, then the error code.
    assert struct.unpack_from(">ih", told, 4 + len(text(topic)) + 4) == (0, 0)
    return struct.unpack(">i", told[-4:])[0]


def fetch(raw, topic, offset):
    """Fetch, version 4, of one batch of partition 0; returns the time to wait in ms, and how many
    bytes of records there are."""
    told = raw.ask(1, 4, struct.pack(">iiiibi", -1, 1000, 1, 1 << 20, 0, 1) + text(topic)
                   + struct.pack(">iiqi", 1, 0, offset, 1))
    at = 8 + len(text(topic)) + 4
    assert struct.unpack_from(">ih", told, at) == (0, 0)
    # Behind the two high watermarks an absent list of aborted transactions.
    aborted, size = struct.unpack_from(">ii", told, at + 22)
    assert aborted == -1
    return struct.unpack(">i", told[:4])[0], size


def read(raw, topic, offset):
    """Reads a batch; returns the time to wait in ms."""
    wait_ms, size = fetch(raw, topic, offset)
    assert size > BATCH_BYTES
    return wait_ms


def leader(client, topic):
    """Address of the leader of partition 0, once that node lets the client write or read."""
    found = AdminClient(client).list_topics(topic, DEADLINE)
    node = found.brokers[found.topics[topic].partitions[0].leader]
    address = f"{node.host}:{node.port}"
    there = AdminClient({**client, "bootstrap.servers": address})
    wait_until(lambda: there.list_topics(topic, 5).topics[topic].error is None, DEADLINE,
               "a node that knows the user and its rights")
    return address


def check_throttled(raw, what):
    """The connection is told to wait after `what`, and is answered no sooner."""
    # Two batches are 24,000 B/s over Kafka's window of ten seconds: two seconds above 20,000.
    asked, wait_ms = time.monotonic(), what()
    assert 1000 < wait_ms < 2200, wait_ms
    raw.api_versions(0)
    assert (time.monotonic() - asked) * 1000 > 0.9 * wait_ms, "it was held off"


def test_a_users_quota_is_told_and_holds_the_connection(secured, name):
    """Whatever program a user runs; other users go on."""
    client = secured.user(name)
    secured.admin.create_topics([NewTopic(name, 1, 3)])[name].result(DEADLINE)
    secured.allow(f"User:{name}", ("WRITE", "TOPIC", name), ("READ", "TOPIC", name))
    rates = {"producer_byte_rate": USER_RATE, "consumer_byte_rate": USER_RATE}
    assert alter(secured, [("user", name)], rates) == (0, "")
    for node in (1, 2, 3):
        wait_until(lambda: describe(secured, "user", name, node) == rates, DEADLINE, "the quota")
    address = wait_until(lambda: leader(client, name), DEADLINE, "the leader")
    writer, reader = (RawSasl(address, name, client["sasl.password"], secured.certificates)
                      for _ in range(2))
    other = RawSasl(address, *ADMIN, secured.certificates)
    assert write(writer, name) == 0, "the window has room for the first"
    check_throttled(writer, lambda: write(writer, name))
    assert read(reader, name, 0) == 0, "reading has a window of its own"
    check_throttled(reader, lambda: read(reader, name, 1))
    assert [write(other, name) for _ in range(3)] == [0, 0, 0], "only this user is held off"
    # Another connection is another way to the same quota.
    assert read(reader, name, 1) > 1000
    second = RawSasl(address, name, client["sasl.password"], secured.certificates)
    wait_ms, size = fetch(second, name, 1)
    assert wait_ms > 1000 and size == 0, (wait_ms, size)
    for raw in (writer, reader, other, second):
        raw.close()

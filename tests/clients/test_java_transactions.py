"""Kafka's own transactional producer, of a version that ends transactions by KIP-890
(transaction.version 2), and the tool that shows what is under way; see java/Transactions.java."""

import concurrent.futures
import re
import struct

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from jvm import Jvm
from support.raw_kafka import RawKafka
from support.wait import wait_until
from test_groups import create
from test_java import TOOLS

DEADLINE = 60
# Inputs before each of the two kills: dozens of transactions.
HALF = 600
GROUP, TRANSACTION = 0, 1


@pytest.fixture(scope="module")
def jvm(tmp_path_factory):
    one = Jvm("4.1.1", tmp_path_factory.mktemp("java-transactions"))
    yield one
    one.close()


class Application:
    """Transactional producers and readers of one cluster, in Java."""

    def __init__(self, jvm, cluster):
        self.jvm = jvm
        self.servers = ",".join(cluster.kafka)

    def __call__(self, mode, *args, **options):
        return self.jvm.run("Transactions", mode, *args, **options)

    def open(self, label, transactional_id):
        self("open", self.servers, label, transactional_id)

    def write(self, label, topic, values):
        """Begins a transaction, and writes into the three partitions by turns."""
        self("begin", label)
        for partition in range(3):
            self("send", label, topic, partition, *values[partition::3])

    def values(self, topic, isolation):
        return sorted(self("read", self.servers, topic, f"read_{isolation}").split())

    def wait_values(self, topic, expected):
        """The markers of an end are written after it is decided."""
        wait_until(lambda: self.values(topic, "committed") == sorted(expected), DEADLINE,
                   "what was committed, and no more")

    def table(self, *words):
        """What kafka-transactions prints: rows by their columns' names."""
        told = self.jvm.run(TOOLS + "TransactionsCommand", "--bootstrap-server", self.servers,
                            *words)
        head, *rows = ([cell.strip() for cell in line.split("\t")] for line in told.splitlines())
        return [dict(zip(head, row, strict=True)) for row in rows]

    def described(self, transactional_id):
        (row,) = self.table("describe", "--transactional-id", transactional_id)
        return row


@pytest.fixture
def application(jvm, cluster):
    return Application(jvm, cluster)


def test_a_commit_is_seen_and_an_abort_is_not(application, cluster, name):
    create(cluster, name, 3)
    application.open(name, name)
    committed, everything, epochs = [], [], []
    for number in range(4):
        values = [f"{number}-{n}" for n in range(9)]
        application.write(name, name, values)
        everything += values
        assert application.values(name, "uncommitted") == sorted(everything)
        assert application.values(name, "committed") == sorted(committed), "open, so not seen"
        epochs.append(int(application.described(name)["ProducerEpoch"]))
        if number % 2:
            application("abort", name)
        else:
            application("commit", name)
            committed += values
        application.wait_values(name, committed)
    assert application.values(name, "uncommitted") == sorted(everything)
    # KIP-890: each end of a transaction gives the producer a new epoch.
    assert epochs == list(range(epochs[0], epochs[0] + 4)), epochs
    told = application.jvm.run(TOOLS + "FeatureCommand", "--bootstrap-server",
                               application.servers, "describe")
    assert re.search(r"transaction\.version\s.*FinalizedVersionLevel: 2\s", told), told
    application("close", name)


def test_a_second_producer_of_that_id_fences_the_first(application, cluster, name):
    create(cluster, name, 3)
    zombie, heir = f"zombie-{name}", f"heir-{name}"
    application.open(zombie, name)
    application.write(zombie, name, ["zombie-1", "zombie-2", "zombie-3"])
    application.open(heir, name)
    told = application("commit", zombie, code=70)
    assert re.search(r"ProducerFencedException|InvalidProducerEpochException", told), told
    told = application("begin", zombie, code=70)
    assert "ProducerFencedException" in told, "it may not go on"
    application.write(heir, name, ["heir-1", "heir-2", "heir-3"])
    application("commit", heir)
    application.wait_values(name, ["heir-1", "heir-2", "heir-3"])
    # One that is fenced between two transactions hears of it when it writes.
    late = f"late-{name}"
    application.open(late, name)
    application("begin", heir)
    told = application("send", heir, name, 0, "late", code=70)
    assert re.search(r"ProducerFencedException|InvalidProducerEpochException", told), told
    application.wait_values(name, ["heir-1", "heir-2", "heir-3"])
    for label in (zombie, heir, late):
        application("close", label)


def test_the_tool_shows_what_is_under_way(application, cluster, name):
    create(cluster, name, 3)
    application.open(name, name)

    def listed():
        rows = application.table("list")
        return {row["TransactionalId"]: row for row in rows}

    assert listed()[name]["TransactionState"] == "Empty"
    application("begin", name)
    application("send", name, name, 1, "a", "b", "c")
    row, told = listed()[name], application.described(name)
    assert row["TransactionState"] == told["TransactionState"] == "Ongoing"
    assert row["ProducerId"] == told["ProducerId"]
    assert row["Coordinator"] == told["CoordinatorId"]
    assert int(told["CoordinatorId"]) == coordinator(cluster, TRANSACTION, name).number
    assert told["TransactionTimeoutMs"] == "60000"
    assert int(told["CurrentTransactionStartTimeMs"]) > 0
    assert int(told["TransactionDurationMs"]) >= 0
    assert told["TopicPartitions"] == f"{name}-1"
    long = application.table("list", "--duration-filter", 1_000_000)
    assert name not in {row["TransactionalId"] for row in long}

    def producers(partition):
        return application.table("describe-producers", "--topic", name, "--partition", partition)

    (writer,) = producers(1)
    assert writer["ProducerId"] == told["ProducerId"]
    assert writer["ProducerEpoch"] == told["ProducerEpoch"]
    assert writer["LastSequence"] == "2"
    assert writer["CurrentTransactionStartOffset"] == "0"
    assert producers(0) == []
    application("commit", name)
    wait_until(lambda: listed()[name]["TransactionState"] == "CompleteCommit", DEADLINE,
               "the end of the transaction")
    assert application.described(name)["TopicPartitions"] == ""
    wait_until(lambda: producers(1)[0]["CurrentTransactionStartOffset"] == "None", DEADLINE,
               "the marker")
    # KIP-890: the marker carries the next epoch, so that nothing late of this one is let in.
    (after,) = producers(1)
    assert int(after["ProducerEpoch"]) == int(told["ProducerEpoch"]) + 1
    assert after["LastSequence"] == "-1"
    application("close", name)


def test_the_tool_ends_what_is_under_way(application, cluster, name):
    create(cluster, name, 3)
    application.open(name, name)
    application.write(name, name, ["a", "b", "c"])
    assert application.table("find-hanging", "--topic", name) == []
    tool = [TOOLS + "TransactionsCommand", "--bootstrap-server", application.servers]
    told = application.jvm.run(*tool, "abort", "--topic", name, "--partition", 0,
                               "--start-offset", 7, code=1)
    assert "Could not find any open transactions starting at offset 7" in told
    application.jvm.run(*tool, "forceTerminateTransaction", "--transactionalId", name)
    wait_until(lambda: application.described(name)["TransactionState"] == "Empty", DEADLINE,
               "the end of the transaction")
    told = application("commit", name, code=70)
    assert "ProducerFencedException" in told
    application.wait_values(name, [])
    assert application.values(name, "uncommitted") == ["a", "b", "c"]
    application("close", name)


def coordinator(cluster, kind, key):
    """The node that coordinates a group or a transactional id, as clients are told."""
    word = key.encode()
    raw = RawKafka(cluster.kafka[0])
    try:
        told = raw.ask(10, 1, struct.pack(">h", len(word)) + word + struct.pack(">b", kind))
    finally:
        raw.close()
    code, length = struct.unpack(">hh", told[4:8])
    assert code == 0
    return cluster.node(struct.unpack_from(">i", told, 8 + max(length, 0))[0])


def offsets(cluster, topic, group):
    """End and committed offset of each partition."""
    consumer = Consumer({"bootstrap.servers": ",".join(cluster.kafka), "group.id": group})
    try:
        parts = [TopicPartition(topic, number) for number in range(3)]
        ends = [consumer.get_watermark_offsets(part, timeout=5)[1] for part in parts]
        return ends, [part.offset for part in consumer.committed(parts, timeout=5)]
    finally:
        consumer.close()


def feed(cluster, topic, values):
    producer = Producer({"bootstrap.servers": ",".join(cluster.kafka)})
    for number, value in enumerate(values):
        producer.produce(topic, value, partition=number % 3)
    assert producer.flush(DEADLINE) == 0


@pytest.mark.timeout(300)
def test_each_input_has_one_output_although_coordinators_die(jvm, own_cluster, name, figure):
    """Consume, transform, produce; in the middle the node that coordinates the transactions is
    killed, later that of the consumers' group."""
    cluster = own_cluster()
    sink, group = f"{name}-out", f"{name}-group"
    create(cluster, name, 3)
    create(cluster, sink, 3)
    application = Application(jvm, cluster)
    halves = [[f"{half}-{number}" for number in range(HALF)] for half in range(2)]

    def copied():
        return sum(offsets(cluster, sink, group)[0])

    def caught_up():
        ends, committed = offsets(cluster, name, group)
        return ends == committed

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        working = pool.submit(application, "transform", application.servers, name, sink, group,
                              name, 2 * HALF, deadline=5 * DEADLINE)
        for values, kind, key in zip(halves, (TRANSACTION, GROUP), (name, group)):
            victim, before = coordinator(cluster, kind, key), copied()
            feed(cluster, name, values)
            wait_until(lambda: copied() > before + HALF / 10, DEADLINE, "the first copies")
            victim.kill()
            victim.start()
            cluster.wait_ready()
            wait_until(caught_up, DEADLINE, "the rest of the copies")
        figure(working.result(DEADLINE).strip())
    application.wait_values(sink, [f"{value}!" for half in halves for value in half])
    cluster.wait_equal_digests()

"""Compacted topics, tombstones, retention and topic settings through real clients, with nodes
killed in between; afterwards every node holds the same bytes."""

import struct
import threading
import time

import pytest

from support.raw_kafka import RawKafka
from support.wait import wait_until

confluent = pytest.importorskip("confluent_kafka")
from confluent_kafka.admin import (  # noqa: E402
    AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, OffsetSpec,
)

DEADLINE = 60
# Looks often, so that no test waits long.
SETS = ["disk.reserve_bytes=0", "log.compaction_check_ms=300", "log.retention_check_ms=300"]
SMALL = {"segment.bytes": "16384", "min.cleanable.dirty.ratio": "0.01"}

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def quick():
    """A cluster that compacts and trims at once, shared by tests that kill nobody."""
    from support.cluster import Cluster
    cluster = Cluster(sets=SETS)
    yield cluster
    cluster.close()


def servers(cluster):
    return ",".join(cluster.kafka)


def admin(cluster):
    return AdminClient({"bootstrap.servers": servers(cluster)})


def only(futures):
    return list(futures.values())[0].result(DEADLINE)


def make(cluster, topic, partitions=1, **configs):
    configs = {name.replace("_", "."): value for name, value in configs.items()}
    # Held until the answer has come: a client that goes takes its requests along.
    client = admin(cluster)
    only(client.create_topics([NewTopic(topic, partitions, 3, config=configs)]))


def producer(cluster, **more):
    return confluent.Producer({
        "bootstrap.servers": servers(cluster), "enable.idempotence": True, "linger.ms": 1,
        # Batches are small against a segment: the newest one is never compacted.
        "batch.num.messages": 50, **more})


def put(client, topic, pairs, partition=0):
    """Sends pairs in many batches; every one must be acknowledged."""
    failed = []

    def noted(error, _message):
        if error is not None:
            failed.append(error)

    for i, (key, value) in enumerate(pairs):
        client.produce(topic, value, key, partition, on_delivery=noted)
        if i % 10 == 9:
            client.poll(0)
    assert client.flush(DEADLINE) == 0
    assert not failed


def read(cluster, topic, partition=0, offset=None):
    """Every record of a partition: offset, key, value."""
    consumer = confluent.Consumer({
        "bootstrap.servers": servers(cluster), "group.id": "reader", "enable.auto.commit": False,
        "enable.partition.eof": True, "auto.offset.reset": "earliest",
        # The end is told by an answer without records, which waits this long.
        "fetch.wait.max.ms": 20})
    start = confluent.OFFSET_BEGINNING if offset is None else offset
    consumer.assign([confluent.TopicPartition(topic, partition, start)])
    found, end = [], time.monotonic() + DEADLINE
    while time.monotonic() < end:
        message = consumer.poll(1)
        if message is None:
            continue
        if message.error() is not None:
            assert message.error().code() == confluent.KafkaError._PARTITION_EOF
            consumer.close()
            return found
        found.append((message.offset(), message.key(), message.value()))
    raise AssertionError("the end of the partition does not come")


def last_values(records):
    return {key: value for _, key, value in records}


def check_compacted(cluster, topic, expected, most):
    """At most `most` records are left, among them the last value of each key."""
    def settled():
        records = read(cluster, topic)
        return len(records) <= most and records

    records = wait_until(settled, DEADLINE, f"compaction of {topic}")
    offsets = [offset for offset, _, _ in records]
    assert offsets == sorted(set(offsets))
    assert last_values(records) == expected
    return records


def test_a_compacted_topic_keeps_the_last_value_of_each_key(quick, name):
    make(quick, name, cleanup_policy="compact", **SMALL)
    client = producer(quick)
    pairs = [(b"k%d" % (i % 50), b"%d " % i * 40) for i in range(4000)]
    put(client, name, pairs)
    # What is in the newest segment stays as it is.
    check_compacted(quick, name, dict(pairs), most=400)
    # A fetch at an offset that is gone gets the next record; so does a producer go on.
    records = read(quick, name, offset=7)
    assert records[0][0] >= 7 and len(records) <= 400
    put(client, name, [(b"k1", b"after")])
    assert last_values(read(quick, name))[b"k1"] == b"after"
    quick.wait_equal_digests()


def test_tombstones_go_after_their_time(quick, name):
    make(quick, name, cleanup_policy="compact", delete_retention_ms="1500", **SMALL)
    client = producer(quick)
    put(client, name, [(b"gone%d" % i, b"v" * 100) for i in range(200)])
    put(client, name, [(b"gone%d" % i, None) for i in range(200)])
    put(client, name, [(b"fill%d" % (i % 5), b"x" * 1000) for i in range(60)])
    fill = {b"fill%d" % i: b"x" * 1000 for i in range(5)}

    def no_tombstone():
        return all(value is not None for _, _, value in read(quick, name))

    wait_until(no_tombstone, DEADLINE, "the end of the tombstones", pause=0.3)
    assert last_values(read(quick, name)) == fill
    quick.wait_equal_digests()


def test_compact_and_delete_together(quick, name):
    make(quick, name, cleanup_policy="compact,delete", retention_ms="2000", **SMALL)
    put(producer(quick), name, [(b"k%d" % i, b"x" * 500) for i in range(200)])

    def start():
        partition = confluent.TopicPartition(name, 0)
        client = admin(quick)
        listed = only(client.list_offsets({partition: OffsetSpec.earliest()}))
        return listed.offset

    wait_until(lambda: start() > 100, DEADLINE, "retention of a compacted topic")
    assert len(read(quick, name)) < 100
    quick.wait_equal_digests()


def test_a_compacted_topic_outlives_its_retention(quick, name):
    make(quick, name, cleanup_policy="compact", retention_ms="1", retention_bytes="1", **SMALL)
    pairs = [(b"k%d" % (i % 20), b"%d " % i * 40) for i in range(2000)]
    put(producer(quick), name, pairs)
    check_compacted(quick, name, dict(pairs), most=300)


def test_only_what_was_committed_is_compacted(quick, name):
    """Transactions with the same keys, every other one aborted, the last one too."""
    make(quick, name, cleanup_policy="compact", delete_retention_ms="1000", **SMALL)
    writer = confluent.Producer({
        "bootstrap.servers": servers(quick), "transactional.id": name, "linger.ms": 0})
    writer.init_transactions(DEADLINE)
    expected, keys = {}, [b"key-%d" % n for n in range(10)]
    for turn in range(40):
        writer.begin_transaction()
        values = {key: b"%d of %s " % (turn, key) + b"x" * 200 for key in keys}
        put(writer, name, values.items())
        if turn % 2:
            writer.abort_transaction(DEADLINE)
        else:
            writer.commit_transaction(DEADLINE)
            expected |= values
    # Only what is not in the newest segment is compacted.
    filler = {b"filler-%d" % n: b"x" * 500 for n in range(100)}
    put(producer(quick), name, filler.items())
    check_compacted(quick, name, expected | filler, len(expected) + len(filler) + 20)
    quick.wait_equal_digests()


def test_records_without_a_key_are_refused(quick, name):
    make(quick, name, cleanup_policy="compact")
    errors = []
    client = producer(quick)
    client.produce(name, b"value", on_delivery=lambda error, _: errors.append(error))
    client.flush(DEADLINE)
    assert [error.code() for error in errors] == [confluent.KafkaError.INVALID_RECORD]
    assert read(quick, name) == []


def test_kafka_python_reads_a_compacted_topic(quick, name):
    kafka = pytest.importorskip("kafka")
    make(quick, name, cleanup_policy="compact", **SMALL)
    pairs = [(b"k%d" % (i % 30), b"%d " % i * 40) for i in range(2000)]
    put(producer(quick, **{"compression.type": "lz4"}), name, pairs)
    check_compacted(quick, name, dict(pairs), most=1500)
    consumer = kafka.KafkaConsumer(
        bootstrap_servers=quick.kafka, auto_offset_reset="earliest", group_id=None,
        consumer_timeout_ms=30_000)
    consumer.assign([kafka.TopicPartition(name, 0)])
    found = {}
    for message in consumer:
        found[message.key] = message.value
        if found == dict(pairs):
            break
    assert found == dict(pairs)
    consumer.close()


def test_nodes_are_killed_while_they_compact(own_cluster, name):
    # So slow that a large plan is not done when the node dies.
    cluster = own_cluster(sets=[*SETS, "log.compaction_bytes_per_second=1000000"])
    make(cluster, name, partitions=3, cleanup_policy="compact", segment_bytes="65536",
         min_cleanable_dirty_ratio="0.01", delete_retention_ms="1000")
    expected = [{}, {}, {}]
    stop = threading.Event()

    def write():
        client, i = producer(cluster), 0
        # No faster, or the plans of all that is written take minutes.
        while not stop.wait(0.03):
            partition = i % 3
            pairs = [(b"k%d" % (n % 60), b"%d-%d " % (i, n) * 30) for n in range(120)]
            put(client, name, pairs, partition)
            expected[partition].update(pairs)
            i += 1

    writer = threading.Thread(target=write)
    writer.start()
    for number in (1, 2, 3, 1):
        node = cluster.node(number)
        time.sleep(2)  # Load, not waiting for anything: plans begin meanwhile.
        node.kill()
        node.start()
        cluster.wait_ready()
    stop.set()
    writer.join()
    for partition in range(3):
        assert last_values(read(cluster, name, partition)) == expected[partition]
    cluster.wait_equal_digests(120)
    for partition in range(3):
        assert last_values(read(cluster, name, partition)) == expected[partition]


def set_config(cluster, topic, **configs):
    entries = [ConfigEntry(key.replace("_", "."), value,
                           incremental_operation=AlterConfigOpType.SET)
               for key, value in configs.items()]
    client = admin(cluster)
    only(client.incremental_alter_configs(
        [ConfigResource("topic", topic, incremental_configs=entries)]))


def count(cluster, topic):
    return len(read(cluster, topic))


def test_a_segment_is_closed_after_its_time(quick, name):
    long = f"{name}-long"
    make(quick, name, cleanup_policy="compact", segment_ms="300", min_cleanable_dirty_ratio="0.01")
    make(quick, long, cleanup_policy="compact", min_cleanable_dirty_ratio="0.01")
    client = producer(quick)

    def one_more_until(left):
        for topic in (name, long):
            put(client, topic, [(b"key", b"value")])
        return count(quick, name) <= left

    for topic in (name, long):
        put(client, topic, [(b"key", b"%d" % i) for i in range(300)])
    # Kafka closes it when the next batch comes; the newest segment is never compacted.
    wait_until(lambda: one_more_until(10), DEADLINE, "compaction", pause=0.4)
    assert count(quick, long) >= 300


def test_compaction_leaves_records_alone_until_they_are_old_enough(quick, name):
    make(quick, name, cleanup_policy="compact", min_compaction_lag_ms="3600000", **SMALL)
    other = f"{name}-other"
    make(quick, other, cleanup_policy="compact", **SMALL)
    pairs = [(b"k%d" % (i % 5), b"%d " % i * 40) for i in range(1000)]
    for topic in (name, other):
        put(producer(quick), topic, pairs)
    check_compacted(quick, other, dict(pairs[-5:]), most=400)
    assert count(quick, name) == 1000
    set_config(quick, name, min_compaction_lag_ms="0")
    check_compacted(quick, name, dict(pairs[-5:]), most=400)


def test_compaction_takes_records_that_are_too_old(quick, name):
    # Never dirty enough, and never large enough for another segment.
    make(quick, name, cleanup_policy="compact", min_cleanable_dirty_ratio="1")
    other = f"{name}-other"
    make(quick, other, cleanup_policy="compact", **SMALL)
    client = producer(quick)
    pairs = [(b"k%d" % (i % 5), b"%d " % i * 40) for i in range(1000)]
    for topic in (name, other):
        put(client, topic, pairs)
    check_compacted(quick, other, dict(pairs[-5:]), most=400)
    assert count(quick, name) == 1000
    set_config(quick, name, max_compaction_lag_ms="500")

    def compacted():
        put(client, name, [(b"last", b"value")])
        return count(quick, name) <= 20

    wait_until(compacted, DEADLINE, "compaction of old records", pause=0.4)
    assert last_values(read(quick, name)) == {**dict(pairs[-5:]), b"last": b"value"}


def test_records_of_a_topic_that_is_only_compacted_are_not_deleted(quick, name):
    make(quick, name, cleanup_policy="compact")
    put(producer(quick), name, [(b"k", b"1"), (b"k", b"2")])
    client, place = admin(quick), confluent.TopicPartition(name, 0, 1)
    with pytest.raises(confluent.KafkaException) as refused:
        only(client.delete_records([place]))
    assert refused.value.args[0].code() == confluent.KafkaError.POLICY_VIOLATION
    assert count(quick, name) == 2
    set_config(quick, name, cleanup_policy="compact,delete")
    wait_until(lambda: deleted(client, place), DEADLINE, "the deletion of records")
    assert [value for _, _, value in read(quick, name)] == [b"2"]


def deleted(client, place):
    try:
        return only(client.delete_records([place])).low_watermark == place.offset
    except confluent.KafkaException:
        return False


def test_retention_while_reading(quick, name):
    make(quick, name, retention_bytes="60000", segment_bytes="16384")
    client = producer(quick)
    starts, seen = [], []
    for i in range(40):
        put(client, name, [(None, b"%06d " % (i * 20 + n) * 60) for n in range(20)])
        records = read(quick, name)
        starts.append(records[0][0])
        offsets = [offset for offset, _, _ in records]
        assert offsets == list(range(offsets[0], (i + 1) * 20))
        assert all(value[:6] == b"%06d" % offset for offset, _, value in records)
        seen.append(len(records))
    assert starts == sorted(starts) and starts[-1] > 500, "the log's start only moves on"
    quick.wait_equal_digests()


def test_settings_are_described_and_altered(quick, name):
    make(quick, name)
    client = admin(quick)
    topic = ConfigResource("topic", name)

    def described(resource):
        return only(client.describe_configs([resource]))

    entries = described(topic)
    assert len(entries) == 33
    assert entries["cleanup.policy"].value == "delete" and entries["cleanup.policy"].is_default
    change = [
        ConfigEntry("cleanup.policy", "compact", incremental_operation=AlterConfigOpType.APPEND),
        ConfigEntry("delete.retention.ms", "5", incremental_operation=AlterConfigOpType.SET),
    ]
    only(client.incremental_alter_configs(
        [ConfigResource("topic", name, incremental_configs=change)]))
    entries = described(topic)
    assert entries["cleanup.policy"].value == "delete,compact"
    assert not entries["delete.retention.ms"].is_default
    assert "log.cleaner.delete.retention.ms" in entries["delete.retention.ms"].synonyms
    back = [ConfigEntry("delete.retention.ms", None,
                        incremental_operation=AlterConfigOpType.DELETE)]
    only(client.incremental_alter_configs(
        [ConfigResource("topic", name, incremental_configs=back)]))
    assert described(topic)["delete.retention.ms"].is_default
    broker = described(ConfigResource("broker", "1"))
    assert len(broker) > 180 and broker["log.dirs"].is_read_only
    assert broker["advertised.listeners"].value == f"PLAINTEXT://{quick.node(1).ports['kafka']}"

    def alter(kind, of, key, value):
        operation = AlterConfigOpType.SET if value else AlterConfigOpType.DELETE
        entry = ConfigEntry(key, value, incremental_operation=operation)
        only(client.incremental_alter_configs(
            [ConfigResource(kind, of, incremental_configs=[entry])]))
        return described(ConfigResource(kind, of))[key].value

    with pytest.raises(Exception, match="Cannot update these configs dynamically"):
        alter("broker", "1", "log.dirs", "/elsewhere")
    with pytest.raises(Exception, match="for a single broker, use the cluster default"):
        alter("broker", "1", "log.retention.ms", "5")
    assert alter("broker", "2", "num.io.threads", "4") == "4"
    assert described(ConfigResource("broker", "1"))["num.io.threads"].value == "8"
    assert alter("broker", "2", "num.io.threads", None) == "8"
    timeout = "consumer.session.timeout.ms"
    assert alter("group", name, timeout, "50000") == "50000"
    assert alter("group", name, timeout, None) == "45000"
    # As Kafka reads them: Python's True, and more than any batch here may have.
    assert alter("topic", name, "preallocate", "False") == "False"
    assert alter("topic", name, "max.message.bytes", "50000000") == "50000000"


CODECS = ["uncompressed", "gzip", "snappy", "lz4", "zstd"]


def stored_codecs(cluster, topic):
    """The codecs of all batches of partition 0, from the attributes of each as fetched."""
    for address in cluster.kafka:
        raw = RawKafka(address)
        partition = struct.pack(">iqi", 0, 0, 1 << 24)
        topics = struct.pack(">ih", 1, len(topic)) + topic.encode()
        body = struct.pack(">iiiib", -1, 0, 1, 1 << 24, 0) + topics + struct.pack(">i", 1)
        answer = raw.ask(1, 4, body + partition)
        raw.close()
        # Throttle time, one topic with its name, one partition.
        at = 4 + 4 + 2 + len(topic) + 4
        _, error, _, _, aborted, size = struct.unpack_from(">ihqqii", answer, at)
        if error:
            assert error == 6, "NOT_LEADER_OR_FOLLOWER"
            continue
        assert aborted <= 0
        batches, found = answer[at + 30:at + 30 + size], []
        while batches:
            (length,) = struct.unpack_from(">i", batches, 8)
            (attributes,) = struct.unpack_from(">h", batches, 21)
            found.append(attributes & 7)
            batches = batches[12 + length:]
        return found
    raise AssertionError("no node leads the partition")


@pytest.mark.parametrize("codec", CODECS)
def test_the_broker_compresses_as_the_topic_says(quick, name, codec):
    make(quick, name, compression_type=codec)
    for sent in ("none", "zstd", "lz4"):
        put(producer(quick, **{"compression.type": sent}), name,
            [(b"k", b"%s %d " % (sent.encode(), i) * 50) for i in range(30)])
    records = read(quick, name)
    assert [value for _, _, value in records] == [
        b"%s %d " % (sent, i) * 50 for sent in (b"none", b"zstd", b"lz4") for i in range(30)]
    assert set(stored_codecs(quick, name)) == {CODECS.index(codec)}


def test_the_producers_codec_stays_where_the_topic_names_none(quick, name):
    make(quick, name)
    for sent in ("none", "gzip", "snappy", "lz4", "zstd"):
        put(producer(quick, **{"compression.type": sent}), name, [(b"k", b"x" * 1000)])
    assert stored_codecs(quick, name) == [0, 1, 2, 3, 4]

"""confluent-kafka, librdkafka for Python: records, offsets and administration.

Its consumer groups are in test_groups.py.
"""

import pytest
from confluent_kafka import (
    TIMESTAMP_CREATE_TIME, TIMESTAMP_LOG_APPEND_TIME, Consumer, KafkaError, KafkaException,
    Producer, TopicCollection, TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic,
    OffsetSpec, ResourceType,
)

from support.wait import wait_until

DEADLINE = 60


@pytest.fixture
def base(cluster):
    return {"bootstrap.servers": ",".join(cluster.kafka), "log_level": 0}


@pytest.fixture
def admin(base):
    return AdminClient(base)


def only(futures):
    (future,) = futures.values()
    return future.result(DEADLINE)


def create(admin, topic, partitions=3, **config):
    # Records of these tests say that they are of long ago: retention would take them.
    config = {"retention_ms": "-1", **config}
    config = {key.replace("_", "."): value for key, value in config.items()}
    only(admin.create_topics([NewTopic(topic, partitions, 3, config=config)]))


def send(base, topic, records, **more):
    """Sends records given as options of `produce`; gives what was acknowledged, in order."""
    told = []
    producer = Producer({**base, **{k.replace("_", "."): v for k, v in more.items()}})
    for record in records:
        producer.produce(topic, on_delivery=lambda error, m: told.append(error or m), **record)
    assert producer.flush(DEADLINE) == 0
    return told


def read(base, parts, count):
    """The next `count` messages from the given TopicPartitions."""
    consumer = Consumer({**base, "group.id": "none", "enable.auto.commit": False})
    consumer.assign(parts)
    found = []
    while len(found) < count:
        messages = consumer.consume(count - len(found), DEADLINE)
        assert messages, f"{len(found)} of {count} records within {DEADLINE} s"
        for message in messages:
            assert message.error() is None, message.error()
            found.append(message)
    consumer.close()
    return found


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_every_compression(base, admin, name, codec):
    create(admin, name)
    values = [b"%d " % i * 100 for i in range(200)]
    told = send(base, name, [{"value": v} for v in values], compression_type=codec,
                enable_idempotence=True)
    assert all(not isinstance(m, KafkaError) for m in told)
    found = read(base, [TopicPartition(name, p, 0) for p in range(3)], 200)
    assert sorted(m.value() for m in found) == sorted(values)


def test_headers_times_keys_and_absent_values(base, admin, name):
    create(admin, name, 1)
    headers = [("a", b"1"), ("a", b"2"), ("none", None), ("empty", b"")]
    send(base, name, [{"key": b"k", "value": None, "headers": headers, "timestamp": 12_345}])
    (found,) = read(base, [TopicPartition(name, 0, 0)], 1)
    assert found.headers() == headers
    assert (found.key(), found.value()) == (b"k", None)
    assert found.timestamp() == (TIMESTAMP_CREATE_TIME, 12_345)


def test_log_append_time(base, admin, name):
    create(admin, name, 1, message_timestamp_type="LogAppendTime")
    send(base, name, [{"value": b"x", "timestamp": 12_345}])
    (found,) = read(base, [TopicPartition(name, 0, 0)], 1)
    kind, time = found.timestamp()
    assert kind == TIMESTAMP_LOG_APPEND_TIME and time > 1_600_000_000_000


def test_offsets_by_time_within_one_batch(base, admin, name):
    create(admin, name, 1)
    records = [{"value": b"x", "timestamp": n * 1000} for n in range(1, 6)]
    send(base, name, records, linger_ms=200)
    part = TopicPartition(name, 0)

    def at(spec):
        return only(admin.list_offsets({part: spec})).offset

    assert at(OffsetSpec.earliest()) == 0
    assert at(OffsetSpec.latest()) == 5
    assert at(OffsetSpec.max_timestamp()) == 4
    assert at(OffsetSpec.for_timestamp(3000)) == 2
    assert at(OffsetSpec.for_timestamp(3001)) == 3
    assert at(OffsetSpec.for_timestamp(5001)) == -1


def test_topics_and_settings(base, admin, name):
    create(admin, name, 3, retention_ms="1000000")
    with pytest.raises(KafkaException, match="TOPIC_ALREADY_EXISTS"):
        create(admin, name)
    resource = ConfigResource(ResourceType.TOPIC, name)
    assert only(admin.describe_configs([resource]))["retention.ms"].value == "1000000"

    def alter(key, value, operation):
        entry = ConfigEntry(key, value, incremental_operation=operation)
        wanted = ConfigResource(ResourceType.TOPIC, name, incremental_configs=[entry])
        only(admin.incremental_alter_configs([wanted]))

    alter("retention.ms", "2000000", AlterConfigOpType.SET)
    told = only(admin.describe_configs([resource]))["retention.ms"]
    assert (told.value, told.is_default) == ("2000000", False)
    alter("retention.ms", None, AlterConfigOpType.DELETE)
    assert only(admin.describe_configs([resource]))["retention.ms"].is_default
    with pytest.raises(KafkaException, match="INVALID_CONFIG"):
        alter("retention.ms", "soon", AlterConfigOpType.SET)
    only(admin.create_partitions([NewPartitions(name, 4)]))

    def grown():
        told = only(admin.describe_topics(TopicCollection([name]))).partitions
        leaders = {part.leader.id for part in told if part.leader is not None}
        return [len(part.isr) for part in told] == [3] * 4 and leaders == {1, 2, 3}

    wait_until(grown, 30, "four partitions, in sync and spread", pause=0.2)
    only(admin.delete_topics([name]))
    with pytest.raises(KafkaException, match="UNKNOWN_TOPIC_OR_PART"):
        only(admin.delete_topics([name]))


def test_the_cluster_is_described(admin):
    told = admin.describe_cluster(request_timeout=DEADLINE).result(DEADLINE)
    assert sorted(node.id for node in told.nodes) == [1, 2, 3]
    assert told.controller.id in (1, 2, 3) and len(told.cluster_id) == 22


def test_records_are_deleted(base, admin, name):
    create(admin, name, 1)
    send(base, name, [{"value": b"%d" % n} for n in range(10)])
    told = only(admin.delete_records([TopicPartition(name, 0, 4)]))
    assert told.low_watermark == 4
    (found,) = read(base, [TopicPartition(name, 0, 4)], 1)
    assert found.value() == b"4"
    with pytest.raises(KafkaException, match="OFFSET_OUT_OF_RANGE"):
        only(admin.delete_records([TopicPartition(name, 0, 11)]))


def test_too_large_records_are_refused(base, admin, name):
    create(admin, name, 1, max_message_bytes="2000")
    told = send(base, name, [{"value": b"x" * 3000}, {"value": b"y"}], linger_ms=0,
                batch_num_messages=1)
    codes = [m.code() if isinstance(m, KafkaError) else m.value() for m in told]
    assert sorted(codes, key=str) == sorted([KafkaError.MSG_SIZE_TOO_LARGE, b"y"], key=str)

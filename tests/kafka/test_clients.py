"""Real Kafka clients: kafka-python 3.x, confluent-kafka and kcat. With kafka-python 2.0.2
installed instead, the tests of kafka-python run as they are."""

import shutil
import subprocess
import time

import pytest

from support.wait import wait_until

DEADLINE = 30


def bootstrap(cluster):
    addresses = cluster.kafka
    return addresses if isinstance(addresses, str) else ",".join(addresses)


def test_kafka_python_produces_consumes_and_commits(cluster, name):
    kafka = pytest.importorskip("kafka")
    servers = bootstrap(cluster).split(",")
    producer = kafka.KafkaProducer(bootstrap_servers=servers, acks="all")
    for i in range(50):
        producer.send(name, b"v%d" % i, key=b"k%d" % i)
    producer.flush(DEADLINE)
    producer.close()
    consumer = kafka.KafkaConsumer(
        name, bootstrap_servers=servers, group_id=name, auto_offset_reset="earliest",
        enable_auto_commit=False, consumer_timeout_ms=DEADLINE * 1000)
    seen = [next(consumer).value for _ in range(50)]
    assert sorted(seen) == sorted(b"v%d" % i for i in range(50))
    consumer.commit()
    assert sum(consumer.committed(tp) for tp in consumer.assignment()) == 50
    consumer.close()


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_librdkafka_round_trips_every_compression(cluster, name, codec):
    confluent = pytest.importorskip("confluent_kafka")
    servers = bootstrap(cluster)
    producer = confluent.Producer({
        "bootstrap.servers": servers, "enable.idempotence": True, "compression.type": codec})
    values = [b"%d " % i * 100 for i in range(200)]
    for value in values:
        producer.produce(name, value)
    assert producer.flush(DEADLINE) == 0
    assert sorted(consume(confluent, servers, name, len(values))) == sorted(values)


def consume(confluent, servers, topic, count):
    consumer = confluent.Consumer({
        "bootstrap.servers": servers, "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    values, end = [], time.monotonic() + DEADLINE
    while len(values) < count and time.monotonic() < end:
        message = consumer.poll(1)
        if message is not None and message.error() is None:
            values.append(message.value())
    consumer.commit(asynchronous=False)
    consumer.close()
    return values


def test_librdkafka_administers(cluster, name):
    pytest.importorskip("confluent_kafka")
    from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic
    admin = AdminClient({"bootstrap.servers": bootstrap(cluster)})

    def only(futures):
        return list(futures.values())[0].result(DEADLINE)

    only(admin.create_topics([NewTopic(name, 3, 3, config={"retention.ms": "1000000"})]))
    configs = only(admin.describe_configs([ConfigResource("topic", name)]))
    assert configs["retention.ms"].value == "1000000"
    partitions = admin.list_topics(name, DEADLINE).topics[name].partitions
    assert [len(p.replicas) for p in partitions.values()] == [3, 3, 3]
    with pytest.raises(Exception, match="TOPIC_ALREADY_EXISTS"):
        only(admin.create_topics([NewTopic(name, 1, 1)]))
    only(admin.delete_topics([name]))
    wait_until(lambda: name not in admin.list_topics(timeout=DEADLINE).topics, DEADLINE,
               "the end of the topic")


@pytest.mark.skipif(shutil.which("kcat") is None, reason="kcat is not installed")
def test_kcat_writes_and_reads(cluster, name):
    kcat = ["kcat", "-b", bootstrap(cluster)]
    subprocess.run([*kcat, "-P", "-t", name, "-z", "lz4"], input=b"a\nb\n", check=True,
                   timeout=DEADLINE)
    read = subprocess.run([*kcat, "-C", "-t", name, "-e", "-q", "-o", "beginning"], check=True,
                          timeout=DEADLINE, stdout=subprocess.PIPE)
    assert sorted(read.stdout.split()) == [b"a", b"b"]

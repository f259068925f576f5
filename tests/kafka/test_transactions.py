"""Transactions with real clients: what commits is seen whole, what aborts is not, zombies are
fenced, offsets move with the records, and nothing hangs when the coordinator's node dies."""

import asyncio
import threading
import time

import pytest

from support.wait import wait_until

confluent = pytest.importorskip("confluent_kafka")
admin_module = pytest.importorskip("confluent_kafka.admin")

DEADLINE = 60
DATA_GROUPS = 6

pytestmark = pytest.mark.timeout(300)


def servers_of(cluster):
    return ",".join(cluster.kafka)


def crc32c(data):
    """The checksum by which a transactional id finds its data group."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def coordinator(cluster, transactional_id):
    """The node that coordinates a transactional id."""
    return cluster.leader(f"d{crc32c(transactional_id.encode()) % DATA_GROUPS}")


def create(cluster, topic):
    admin = admin_module.AdminClient({"bootstrap.servers": servers_of(cluster)})
    made = admin.create_topics([admin_module.NewTopic(topic, 3, 3)])
    made[topic].result(DEADLINE)
    return admin


def producer_of(cluster, transactional_id, timeout_ms=60_000):
    producer = confluent.Producer({
        "bootstrap.servers": servers_of(cluster), "transactional.id": transactional_id,
        "transaction.timeout.ms": timeout_ms, "linger.ms": 0})
    retry(lambda: producer.init_transactions(DEADLINE))
    return producer


def retry(step):
    """Does a step of a transaction, again while the client says so."""
    end = time.monotonic() + DEADLINE
    while True:
        try:
            return step()
        except confluent.KafkaException as e:
            if not e.args[0].retriable() or time.monotonic() > end:
                raise
            time.sleep(0.05)


def ends(admin, topic, isolation):
    """End of each partition as readers of that isolation level see it."""
    parts = {confluent.TopicPartition(topic, p): admin_module.OffsetSpec.latest() for p in range(3)}
    found = admin.list_offsets(parts, isolation_level=isolation, request_timeout=DEADLINE)
    return [found[part].result(DEADLINE).offset for part in sorted(found, key=lambda t: t.partition)]


def settled(admin, topic):
    level = confluent.IsolationLevel
    wait_until(lambda: ends(admin, topic, level.READ_COMMITTED)
               == ends(admin, topic, level.READ_UNCOMMITTED),
               DEADLINE, "last stable offset at the end of every partition", pause=0.1)


def read(cluster, topic, isolation):
    """All values of a topic up to its end, for readers of that isolation level."""
    consumer = confluent.Consumer({
        "bootstrap.servers": servers_of(cluster), "group.id": f"read-{time.monotonic_ns()}",
        "isolation.level": isolation, "enable.partition.eof": True, "enable.auto.commit": False})
    consumer.assign([confluent.TopicPartition(topic, p, 0) for p in range(3)])
    values, done, end = [], set(), time.monotonic() + DEADLINE
    while len(done) < 3:
        assert time.monotonic() < end, f"end of partitions not reached: {done}"
        message = consumer.poll(1)
        if message is None:
            continue
        if message.error() is None:
            values.append(message.value().decode())
        elif message.error().code() == confluent.KafkaError._PARTITION_EOF:
            done.add(message.partition())
    consumer.close()
    return sorted(values)


def write(producer, topic, values):
    for n, value in enumerate(values):
        producer.produce(topic, value, partition=n % 3)


def test_a_commit_is_seen_and_an_abort_is_not(cluster, name):
    admin = create(cluster, name)
    producer = producer_of(cluster, name)
    expected = []
    for number, commit in enumerate([True, False, True, False]):
        values = [f"{number}-{n}" for n in range(9)]
        producer.begin_transaction()
        write(producer, name, values)
        if commit:
            producer.commit_transaction(DEADLINE)
            expected += values
        else:
            assert producer.flush(DEADLINE) == 0
            producer.abort_transaction(DEADLINE)
    settled(admin, name)
    assert read(cluster, name, "read_committed") == sorted(expected)
    everything = [f"{number}-{n}" for number in range(4) for n in range(9)]
    assert read(cluster, name, "read_uncommitted") == sorted(everything)


def test_an_open_transaction_hides_what_follows_it(cluster, name):
    admin = create(cluster, name)
    producer = producer_of(cluster, name)
    producer.begin_transaction()
    write(producer, name, ["open"])
    assert producer.flush(DEADLINE) == 0
    plain = confluent.Producer({"bootstrap.servers": servers_of(cluster)})
    plain.produce(name, "plain", partition=0)
    assert plain.flush(DEADLINE) == 0
    assert ends(admin, name, confluent.IsolationLevel.READ_COMMITTED) == [0, 0, 0]
    assert ends(admin, name, confluent.IsolationLevel.READ_UNCOMMITTED) == [2, 0, 0]
    assert read(cluster, name, "read_committed") == []
    producer.abort_transaction(DEADLINE)
    settled(admin, name)
    assert read(cluster, name, "read_committed") == ["plain"]


def test_a_zombie_is_fenced(cluster, name):
    admin = create(cluster, name)
    zombie = producer_of(cluster, name)
    zombie.begin_transaction()
    write(zombie, name, ["zombie"])
    assert zombie.flush(DEADLINE) == 0
    heir = producer_of(cluster, name)
    with pytest.raises(confluent.KafkaException) as refused:
        zombie.commit_transaction(DEADLINE)
    assert refused.value.args[0].fatal(), "a fenced producer must end"
    heir.begin_transaction()
    write(heir, name, ["heir"])
    heir.commit_transaction(DEADLINE)
    settled(admin, name)
    assert read(cluster, name, "read_committed") == ["heir"]


def test_a_transaction_that_takes_too_long_is_aborted(cluster, name):
    admin = create(cluster, name)
    producer = producer_of(cluster, name, timeout_ms=1000)
    producer.begin_transaction()
    write(producer, name, ["slow"])
    assert producer.flush(DEADLINE) == 0
    level = confluent.IsolationLevel
    wait_until(lambda: ends(admin, name, level.READ_COMMITTED)[0] == 2, DEADLINE,
               "the marker of the abort")
    with pytest.raises(confluent.KafkaException):
        producer.commit_transaction(DEADLINE)
    assert read(cluster, name, "read_committed") == []


def test_offsets_move_with_the_records(cluster, name):
    """Consume, transform, produce: each input has one output, through aborts and restarts."""
    source, sink = name, name + "-out"
    create(cluster, source)
    admin = create(cluster, sink)
    plain = confluent.Producer({"bootstrap.servers": servers_of(cluster)})
    inputs = [f"in-{n}" for n in range(60)]
    write(plain, source, inputs)
    assert plain.flush(DEADLINE) == 0
    done, round_number = 0, 0
    while done < len(inputs):
        round_number += 1
        assert round_number < 20, f"only {done} of {len(inputs)} inputs after 20 rounds"
        done += transform(cluster, source, sink, name, abort=round_number % 3 == 1)
    settled(admin, sink)
    assert read(cluster, sink, "read_committed") == sorted(v + "!" for v in inputs)


def transform(cluster, source, sink, group, abort):
    """One life of the application; returns how many inputs it committed."""
    consumer = confluent.Consumer({
        "bootstrap.servers": servers_of(cluster), "group.id": group,
        "auto.offset.reset": "earliest", "enable.auto.commit": False,
        "isolation.level": "read_committed"})
    consumer.subscribe([source])
    producer = producer_of(cluster, group)
    producer.begin_transaction()
    count, end = 0, time.monotonic() + DEADLINE
    while count < 15 and time.monotonic() < end:
        message = consumer.poll(1)
        if message is not None and message.error() is None:
            producer.produce(sink, message.value() + b"!", partition=message.partition())
            count += 1
    assert count == 15
    positions = consumer.position(consumer.assignment())
    producer.send_offsets_to_transaction(positions, consumer.consumer_group_metadata(), DEADLINE)
    if abort:
        producer.abort_transaction(DEADLINE)
    else:
        producer.commit_transaction(DEADLINE)
    consumer.close()
    return 0 if abort else count


def test_kafka_python_commits_and_aborts(cluster, name):
    kafka = pytest.importorskip("kafka")
    if not hasattr(kafka.KafkaProducer, "begin_transaction"):
        pytest.skip("this kafka-python has no transactions")
    admin = create(cluster, name)
    producer = kafka.KafkaProducer(bootstrap_servers=cluster.kafka, transactional_id=name)
    producer.init_transactions()
    expected = []
    for number in range(6):
        producer.begin_transaction()
        values = [f"{number}-{n}" for n in range(6)]
        for n, value in enumerate(values):
            producer.send(name, value.encode(), partition=n % 3)
        if number % 2:
            producer.abort_transaction()
        else:
            producer.commit_transaction()
            expected += values
    producer.close()
    settled(admin, name)
    assert read(cluster, name, "read_committed") == sorted(expected)
    consumer = kafka.KafkaConsumer(
        name, bootstrap_servers=cluster.kafka, isolation_level="read_committed",
        auto_offset_reset="earliest", consumer_timeout_ms=DEADLINE * 1000)
    seen = sorted(next(consumer).value.decode() for _ in expected)
    consumer.close()
    assert seen == sorted(expected)


def test_aiokafka_commits_and_aborts(cluster, name):
    aiokafka = pytest.importorskip("aiokafka")
    admin = create(cluster, name)

    async def run():
        producer = aiokafka.AIOKafkaProducer(
            bootstrap_servers=servers_of(cluster), transactional_id=name)
        await producer.start()
        try:
            async with producer.transaction():
                for n in range(6):
                    await producer.send_and_wait(name, b"kept-%d" % n, partition=n % 3)
            await producer.begin_transaction()
            await producer.send_and_wait(name, b"dropped", partition=0)
            await producer.abort_transaction()
        finally:
            await producer.stop()

    asyncio.run(asyncio.wait_for(run(), DEADLINE))
    settled(admin, name)
    assert read(cluster, name, "read_committed") == [f"kept-{n}" for n in range(6)]


# Seconds from the call of commit to the death of the coordinator's node: the end may be decided or
# not, its markers written or not, the answer lost or not.
DELAYS = [0.0, 0.001, 0.003, 0.006, 0.01, 0.02, 0.05]


@pytest.mark.timeout(600)
def test_the_coordinators_node_is_killed_at_every_step(own_cluster, name):
    cluster = own_cluster()
    admin = create(cluster, name)
    committed, unknown = [], []
    for number, delay in enumerate(DELAYS):
        producer = producer_of(cluster, name, timeout_ms=10_000)
        values = [f"{number}-{n}" for n in range(9)]
        producer.begin_transaction()
        write(producer, name, values)
        assert producer.flush(DEADLINE) == 0
        victim = coordinator(cluster, name)
        killer = threading.Timer(delay, victim.kill)
        killer.start()
        try:
            retry(lambda: producer.commit_transaction(DEADLINE))
            committed.append(values)
        except confluent.KafkaException:
            unknown.append(values)
        killer.join()
        victim.start()
        cluster.wait_ready()
    # Nobody waits for a transaction that nobody ends.
    settled(admin, name)
    seen = read(cluster, name, "read_committed")
    for values in committed:
        assert [v for v in seen if v in values] == values, "a committed transaction is whole"
    for values in unknown:
        assert [v for v in seen if v in values] in ([], values), "a transaction is torn"
    assert len(committed) > len(unknown), "most commits outlive their coordinator"
    cluster.wait_equal_digests()

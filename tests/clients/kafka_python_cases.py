"""What applications do with kafka-python, in words that 2.0.2 and 3.x both understand.

Run by test_kafka_python.py in the environment of each version:
`python kafka_python_cases.py CASE BOOTSTRAP TOPIC`.
"""

import sys
import threading
import time

import kafka
import kafka.codec
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka.errors import TopicAlreadyExistsError

DEADLINE = 60


def wait_until(condition, what):
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"{what} not within {DEADLINE} s"
        time.sleep(0.05)


def create(servers, topic, partitions=3, factor=3):
    admin = KafkaAdminClient(bootstrap_servers=servers)
    admin.create_topics([NewTopic(topic, partitions, factor)])
    admin.close()


def send(servers, topic, values, partition=None, **options):
    producer = KafkaProducer(bootstrap_servers=servers, **options)
    sent = [producer.send(topic, value, partition=partition) for value in values]
    producer.flush(DEADLINE)
    found = [(s.get(DEADLINE).partition, s.get(DEADLINE).offset) for s in sent]
    producer.close()
    return found


def read(consumer, count):
    """Exactly the next `count` records."""
    found = []
    end = time.monotonic() + DEADLINE
    while len(found) < count and time.monotonic() < end:
        for records in consumer.poll(500).values():
            found += records
    assert len(found) == count, f"{len(found)} of {count} records within {DEADLINE} s"
    return found


def values_of(servers, topic, count):
    consumer = KafkaConsumer(topic, bootstrap_servers=servers, auto_offset_reset="earliest")
    values = sorted(record.value for record in read(consumer, count))
    consumer.close()
    return values


def case_topics(servers, topic):
    create(servers, topic)
    admin = KafkaAdminClient(bootstrap_servers=servers)
    assert topic in admin.list_topics()
    consumer = KafkaConsumer(bootstrap_servers=servers)
    assert consumer.partitions_for_topic(topic) == {0, 1, 2}
    try:
        admin.create_topics([NewTopic(topic, 1, 1)])
        raise AssertionError("the topic was created twice")
    except TopicAlreadyExistsError:
        pass
    admin.delete_topics([topic])
    wait_until(lambda: topic not in admin.list_topics(), "deletion")
    consumer.close()
    admin.close()


def case_acks(servers, topic):
    create(servers, topic)
    expected = []
    for acks in (0, 1, "all"):
        values = [f"{acks} {n}".encode() for n in range(20)]
        send(servers, topic, values, acks=acks)
        expected += values
    assert values_of(servers, topic, 60) == sorted(expected)


def case_compression(servers, topic):
    """Every codec whose library is installed beside kafka-python; gzip needs none."""
    create(servers, topic)
    codecs = [codec for codec in ("gzip", "snappy", "lz4", "zstd")
              if getattr(kafka.codec, f"has_{codec}")()]
    assert "gzip" in codecs
    expected = []
    for codec in codecs:
        values = [b"%s %d " % (codec.encode(), n) * 200 for n in range(100)]
        send(servers, topic, values, acks="all", compression_type=codec, linger_ms=20)
        expected += values
    assert values_of(servers, topic, len(expected)) == sorted(expected)


def case_idempotence(servers, topic):
    """Batches on their way together keep their order, and the brokers know their producer. Only
    3.x can."""
    create(servers, topic, partitions=1)
    part = TopicPartition(topic, 0)
    values = [b"%d" % n for n in range(500)]
    found = send(servers, topic, values, partition=0, enable_idempotence=True, acks="all",
                 batch_size=256, max_in_flight_requests_per_connection=5)
    assert found == [(0, n) for n in range(500)]
    consumer = KafkaConsumer(bootstrap_servers=servers)
    consumer.assign([part])
    consumer.seek_to_beginning(part)
    assert [r.value for r in read(consumer, 500)] == values
    consumer.close()
    admin = KafkaAdminClient(bootstrap_servers=servers)
    (producer,) = admin.describe_producers([part])[part].active_producers
    admin.close()
    assert producer.producer_id >= 0 and producer.last_sequence == 499, producer


def case_offsets(servers, topic):
    create(servers, topic, partitions=1)
    part = TopicPartition(topic, 0)
    first = send(servers, topic, [b"a", b"b"], partition=0)
    assert first == [(0, 0), (0, 1)]
    time.sleep(0.01)
    between = int(time.time() * 1000)
    time.sleep(0.01)
    send(servers, topic, [b"c", b"d"], partition=0)
    consumer = KafkaConsumer(bootstrap_servers=servers)
    assert consumer.beginning_offsets([part]) == {part: 0}
    assert consumer.end_offsets([part]) == {part: 4}
    assert consumer.offsets_for_times({part: between})[part].offset == 2
    assert consumer.offsets_for_times({part: 0})[part].offset == 0
    assert consumer.offsets_for_times({part: between + 3_600_000})[part] is None
    consumer.assign([part])
    consumer.seek_to_beginning(part)
    assert [r.value for r in read(consumer, 4)] == [b"a", b"b", b"c", b"d"]
    consumer.seek(part, 2)
    assert [r.value for r in read(consumer, 2)] == [b"c", b"d"]
    consumer.seek_to_end(part)
    assert consumer.position(part) == 4
    send(servers, topic, [b"e"], partition=0)
    assert [r.value for r in read(consumer, 1)] == [b"e"]
    consumer.close()


def case_commit(servers, topic):
    """A group goes on where it stopped."""
    create(servers, topic, partitions=1)
    part = TopicPartition(topic, 0)
    send(servers, topic, [b"%d" % n for n in range(50)], partition=0)

    def member():
        return KafkaConsumer(topic, bootstrap_servers=servers, group_id=topic,
                             auto_offset_reset="earliest", enable_auto_commit=False,
                             max_poll_records=10)

    first = member()
    assert [r.offset for r in read(first, 20)] == list(range(20))
    first.commit()
    assert first.committed(part) == 20
    read(first, 10)
    first.close()
    second = member()
    assert [r.offset for r in read(second, 30)] == list(range(20, 50))
    second.commit()
    second.close()
    third = member()
    assert third.committed(part) == 50
    third.close()


class Member(threading.Thread):
    """Polls until it is told to leave."""

    def __init__(self, servers, topic):
        super().__init__(daemon=True)
        self.consumer = KafkaConsumer(
            topic, bootstrap_servers=servers, group_id=topic, auto_offset_reset="earliest",
            session_timeout_ms=10_000, heartbeat_interval_ms=500)
        self.owns, self.found, self.leaves, self.error = set(), [], threading.Event(), None
        self.start()

    def run(self):
        try:
            while not self.leaves.is_set():
                for records in self.consumer.poll(200).values():
                    self.found += [(r.partition, r.offset) for r in records]
                self.owns = {part.partition for part in self.consumer.assignment()}
            self.consumer.close()
        except BaseException as e:
            self.error = e
            raise

    def leave(self):
        self.leaves.set()
        self.join(DEADLINE)
        assert not self.is_alive() and self.error is None, self.error


def case_rebalance(servers, topic):
    """Two members share the partitions; the one that stays takes over, and nothing is lost."""
    create(servers, topic, partitions=6)
    everything = set(range(6))
    one = Member(servers, topic)
    wait_until(lambda: one.owns == everything, "all partitions at one member")
    two = Member(servers, topic)
    wait_until(lambda: len(one.owns) == 3 and len(two.owns) == 3, "three partitions each")
    assert one.owns | two.owns == everything
    sent = [send(servers, topic, [b"x"] * 20, partition=p) for p in everything]
    sent = {record for records in sent for record in records}
    wait_until(lambda: sent == {*one.found, *two.found}, "all records read")
    assert one.found and two.found
    one.leave()
    wait_until(lambda: two.owns == everything, "all partitions at the member that stayed")
    more = set(send(servers, topic, [b"y"] * 60, acks="all"))
    wait_until(lambda: more <= set(two.found), "records after the rebalance")
    two.leave()


if __name__ == "__main__":
    case, bootstrap, name = sys.argv[1:]
    globals()[f"case_{case}"](bootstrap.split(","), name)
    print(kafka.__version__)

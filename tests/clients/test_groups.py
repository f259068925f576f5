"""Consumer groups of librdkafka: rebalancing, and what a group keeps when its node dies."""

import threading
import time

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, Producer
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from support.acks import Acks
from support.wait import wait_until

DEADLINE = 60


def servers(cluster):
    return ",".join(cluster.kafka)


def create(cluster, topic, partitions):
    admin = AdminClient({"bootstrap.servers": servers(cluster), "log_level": 0})
    admin.create_topics([NewTopic(topic, partitions, 3)])[topic].result(DEADLINE)
    return admin


class Reader:
    """A group member in a thread: knows what it owns and remembers what it read."""

    def __init__(self, cluster, group, topics, **more):
        self.owns, self.found = set(), []
        # Values by partition and offset.
        self.read = {}
        self.errors = []
        # Why commits were refused.
        self.refused = []
        self._leaves = threading.Event()
        self._consumer = Consumer({
            "bootstrap.servers": servers(cluster), "log_level": 0, "group.id": group,
            "auto.offset.reset": "earliest", "auto.commit.interval.ms": 200,
            "on_commit": self._committed,
            "reconnect.backoff.max.ms": 500, **more,
        })
        self._consumer.subscribe(topics)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _committed(self, error, parts):
        found = [error, *(part.error for part in parts)]
        self.refused += [e for e in found if e is not None and e.code() != KafkaError._NO_OFFSET]

    def _run(self):
        while not self._leaves.is_set():
            message = self._consumer.poll(0.1)
            self.owns = {part.partition for part in self._consumer.assignment()}
            if message is None:
                continue
            if message.error() is None:
                at = (message.partition(), message.offset())
                self.found.append(at)
                self.read[at] = message.value()
            elif message.error().code() != KafkaError._ALL_BROKERS_DOWN:
                self.errors.append(message.error())
        self._consumer.close()

    def leave(self):
        self._leaves.set()
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive(), "the member does not leave"


class Member(Reader):
    """A member of the classic protocol; its group is named as its topic is."""

    def __init__(self, cluster, topic, strategy="range", **more):
        super().__init__(cluster, topic, [topic], **{
            "partition.assignment.strategy": strategy, "session.timeout.ms": 10_000,
            "heartbeat.interval.ms": 500, **more,
        })


class Sender:
    """Sends until it is stopped; remembers what was acknowledged."""

    def __init__(self, cluster, topic):
        self.acked, self.failed = Acks(), []
        self._ends = threading.Event()
        self._topic = topic
        self._producer = Producer({
            "bootstrap.servers": servers(cluster), "log_level": 0, "enable.idempotence": True,
            "reconnect.backoff.max.ms": 500, "linger.ms": 5,
        })
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _delivered(self, error, message):
        if error is None:
            self.acked.note(message)
        else:
            self.failed.append(error)

    def _run(self):
        number = 0
        while not self._ends.wait(0.01):
            for _ in range(5):
                number += 1
                self._producer.produce(self._topic, b"%d" % number, key=b"%d" % number,
                                       on_delivery=self._delivered)
            self._producer.poll(0)

    def wait_acks(self, more):
        goal = len(self.acked) + more
        wait_until(lambda: len(self.acked) >= goal, DEADLINE, f"{more} acknowledgements")

    def stop(self):
        self._ends.set()
        self._thread.join(DEADLINE)
        assert self._producer.flush(DEADLINE) == 0
        assert not self.failed, self.failed[:3]
        assert len(set(self.acked.values())) == len(self.acked), "a record stands there twice"


@pytest.mark.parametrize("strategy", ["range", "roundrobin", "cooperative-sticky"])
def test_two_members_share_and_one_takes_over(cluster, name, strategy):
    create(cluster, name, 6)
    everything = set(range(6))
    one = Member(cluster, name, strategy)
    wait_until(lambda: one.owns == everything, DEADLINE, "all partitions at one member")
    two = Member(cluster, name, strategy)
    wait_until(lambda: len(one.owns) == 3 and len(two.owns) == 3
               and one.owns | two.owns == everything, DEADLINE, "three partitions each")
    sender = Sender(cluster, name)
    sender.wait_acks(200)
    wait_until(lambda: one.found and two.found, DEADLINE, "records at both members")
    one.leave()
    wait_until(lambda: two.owns == everything, DEADLINE, "all partitions at the other")
    sender.wait_acks(200)
    sender.stop()
    wait_until(lambda: all_read(sender, [one, two]), DEADLINE, "all records")
    two.leave()
    # Both left in good order, so nothing was read twice.
    assert len(one.found) + len(two.found) == len(sender.acked)


def test_a_member_that_falls_silent_is_replaced(cluster, name):
    admin = create(cluster, name, 4)
    silent = Consumer({
        "bootstrap.servers": servers(cluster), "group.id": name, "session.timeout.ms": 6_000,
        "max.poll.interval.ms": 6_000, "log_level": 0,
    })
    silent.subscribe([name])
    wait_until(lambda: (silent.poll(0.1), len(silent.assignment()) == 4)[1], DEADLINE,
               "all partitions at the member")
    # It polls no more, so librdkafka leaves the group for it.
    other = Member(cluster, name)
    wait_until(lambda: other.owns == set(range(4)), DEADLINE, "all partitions at the other")
    told = admin.describe_consumer_groups([name])[name].result(DEADLINE)
    assert len(told.members) == 1
    other.leave()
    # librdkafka 2.16 can wait for itself forever when it first hears in close() what it has lost.
    wait_until(lambda: (silent.poll(0.1), not silent.assignment())[1], DEADLINE,
               "the loss at the member")
    silent.close()


def test_static_members_come_back_without_a_rebalance(cluster, name):
    admin = create(cluster, name, 4)
    stays = Member(cluster, name, **{"group.instance.id": "a"})
    goes = Member(cluster, name, **{"group.instance.id": "b"})
    wait_until(lambda: len(stays.owns) == 2 and len(goes.owns) == 2, DEADLINE, "two each")
    before = set(goes.owns)
    goes.leave()
    back = Member(cluster, name, **{"group.instance.id": "b"})
    wait_until(lambda: back.owns == before, DEADLINE, "the same partitions again")
    assert len(stays.owns) == 2
    told = admin.describe_consumer_groups([name])[name].result(DEADLINE)
    assert sorted(m.group_instance_id for m in told.members) == ["a", "b"]
    stays.leave()
    back.leave()


def test_groups_are_listed_described_altered_and_deleted(cluster, name):
    admin = create(cluster, name, 1)
    member = Member(cluster, name)
    wait_until(lambda: member.owns == {0}, DEADLINE, "the partition")
    told = admin.describe_consumer_groups([name])[name].result(DEADLINE)
    assert told.state.name == "STABLE" and len(told.members) == 1
    assert [p.topic for p in told.members[0].assignment.topic_partitions] == [name]
    listed = admin.list_consumer_groups().result(DEADLINE).valid
    assert name in [group.group_id for group in listed]
    with pytest.raises(Exception, match="NON_EMPTY_GROUP"):
        admin.delete_consumer_groups([name])[name].result(DEADLINE)
    member.leave()
    wanted = ConsumerGroupTopicPartitions(name, [TopicPartition(name, 0, 0)])
    admin.alter_consumer_group_offsets([wanted])[name].result(DEADLINE)
    asked = ConsumerGroupTopicPartitions(name, [TopicPartition(name, 0)])
    found = admin.list_consumer_group_offsets([asked])[name].result(DEADLINE)
    assert [part.offset for part in found.topic_partitions] == [0]
    admin.delete_consumer_groups([name])[name].result(DEADLINE)
    listed = admin.list_consumer_groups().result(DEADLINE).valid
    assert name not in [group.group_id for group in listed]


def wait_read_on(sender, members):
    """Right after a death: waits until records that are sent from now on are at the group."""
    killed_at, so_far = time.monotonic(), set(sender.acked)
    sender.wait_acks(300)
    later = sender.acked.keys() - so_far
    wait_until(lambda: later <= {p for member in members for p in member.found}, DEADLINE,
               "records sent after the death, at the group")
    print(f"the group reads on after {time.monotonic() - killed_at:.1f} s")


def test_the_coordinator_dies_while_a_group_consumes(own_cluster, name):
    cluster = own_cluster()
    admin = create(cluster, name, 6)
    one, two = Member(cluster, name), Member(cluster, name)
    sender = Sender(cluster, name)
    wait_until(lambda: len(one.owns) == 3 and len(two.owns) == 3, DEADLINE, "three each")
    sender.wait_acks(300)
    wait_until(lambda: one.found and two.found, DEADLINE, "records at both members")
    told = admin.describe_consumer_groups([name])[name].result(DEADLINE)
    dead = cluster.node(told.coordinator.id)
    dead.kill()
    wait_read_on(sender, [one, two])
    dead.start()
    cluster.wait_ready()
    sender.wait_acks(300)
    sender.stop()
    wait_until(lambda: all_read(sender, [one, two]), DEADLINE, "all records")
    one.leave()
    two.leave()
    check_committed(cluster, name, sender.acked)
    cluster.wait_equal_digests()


def all_read(sender, readers):
    """Whether the readers have read what the sender was told is stored."""
    read = {}
    for reader in readers:
        read.update(reader.read)
    return sender.acked.are_in(read)


def check_committed(cluster, group, acked):
    """Every node gives the group's committed offsets, and they are the ends of the partitions."""
    ends = {}
    for partition, offset in acked:
        ends[partition] = max(ends.get(partition, 0), offset + 1)
    asked = [TopicPartition(group, partition) for partition in ends]
    for address in cluster.kafka:
        reader = Consumer({"bootstrap.servers": address, "group.id": group})
        found = {p.partition: p.offset for p in reader.committed(asked, timeout=DEADLINE)}
        assert found == ends
        reader.close()

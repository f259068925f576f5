"""Committed offsets are forgotten after `offsets.retention.minutes`, as Kafka counts them: from the
commit where nobody subscribes, from the group's end where somebody did, never under a member."""

import time

import pytest

from support.wait import wait_until

confluent = pytest.importorskip("confluent_kafka")
from confluent_kafka.admin import AdminClient, NewTopic  # noqa: E402

DEADLINE = 60
# Kafka's least retention.
RETENTION = 60
SETS = ["log.offsets_retention_minutes=1", "log.offsets_check_ms=500"]

pytestmark = pytest.mark.timeout(300)


def consumer(cluster, group, protocol="classic"):
    return confluent.Consumer({
        "bootstrap.servers": ",".join(cluster.kafka), "group.id": group,
        "group.protocol": protocol, "enable.auto.commit": False,
        "auto.offset.reset": "earliest"})


def committed(cluster, topic, group):
    """The offset that a group has committed, None without one."""
    asking = consumer(cluster, group)
    try:
        offset = asking.committed([confluent.TopicPartition(topic, 0)], timeout=DEADLINE)[0].offset
        return None if offset == confluent.OFFSET_INVALID else offset
    finally:
        asking.close()


def commit_alone(cluster, topic, group):
    """Commits without subscribing to anything."""
    client = consumer(cluster, group)
    client.commit(offsets=[confluent.TopicPartition(topic, 0, 1)], asynchronous=False)
    client.close()


def join(cluster, topic, group, protocol):
    """A member that has read the one record and committed it."""
    client = consumer(cluster, group, protocol)
    client.subscribe([topic])
    wait_until(lambda: client.poll(0.5), DEADLINE, f"a record for {group}")
    client.commit(asynchronous=False)
    return client


def test_offsets_of_groups_that_are_gone_are_forgotten(own_cluster, name):
    cluster = own_cluster(sets=SETS)
    admin = AdminClient({"bootstrap.servers": ",".join(cluster.kafka)})
    admin.create_topics([NewTopic(name, 1, 3)])[name].result(DEADLINE)
    producer = confluent.Producer({"bootstrap.servers": ",".join(cluster.kafka)})
    producer.produce(name, b"value")
    assert producer.flush(DEADLINE) == 0

    members = {f"stays-{kind}": join(cluster, name, f"stays-{kind}", kind)
               for kind in ("classic", "consumer")}
    gone = ["alone", "left-classic", "left-consumer"]
    for kind in ("classic", "consumer"):
        join(cluster, name, f"left-{kind}", kind).close()
    commit_alone(cluster, name, "alone")
    left = time.monotonic()
    assert all(committed(cluster, name, group) == 1 for group in [*gone, *members])

    def forgotten():
        for client in members.values():
            client.poll(0)
        listed = admin.list_consumer_groups().result(DEADLINE)
        # A node that did not answer has not said that it has none.
        return not listed.errors and not {one.group_id for one in listed.valid} & set(gone)

    # Nothing goes before its time; what asks for the groups is not asking for their offsets.
    wait_until(forgotten, RETENTION + DEADLINE, "the end of the groups", pause=1)
    assert time.monotonic() - left > RETENTION - 5
    assert [committed(cluster, name, group) for group in gone] == [None] * 3
    assert [committed(cluster, name, group) for group in members] == [1, 1]
    for client in members.values():
        client.close()

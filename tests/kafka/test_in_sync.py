"""In-sync replicas and min.insync.replicas while a node stands still."""

import signal

import pytest

from support.wait import wait_until

confluent = pytest.importorskip("confluent_kafka")
admin_module = pytest.importorskip("confluent_kafka.admin")

DEADLINE = 60
KafkaError = confluent.KafkaError

pytestmark = pytest.mark.timeout(200)


def produce(producer, topic, partition=0):
    """The error code of a record that is sent once, None when it was acknowledged."""
    answers = []
    producer.produce(topic, b"x", partition=partition,
                     on_delivery=lambda error, message: answers.append(error))
    producer.flush(DEADLINE)
    (error,) = answers
    return None if error is None else error.code()


def test_an_acknowledgement_waits_for_the_third_replica(own_cluster):
    """The record is sent before anybody knows that a node stands still."""
    cluster = own_cluster()
    servers = ",".join(cluster.kafka)
    admin = admin_module.AdminClient({"bootstrap.servers": servers})
    new = admin_module.NewTopic("three", 3, 3, config={"min.insync.replicas": "3"})
    admin.create_topics([new])["three"].result(DEADLINE)
    producer = confluent.Producer({
        "bootstrap.servers": servers, "acks": "all", "retries": 0, "enable.idempotence": False,
        "linger.ms": 0, "request.timeout.ms": 30_000})

    def led_elsewhere():
        partitions = admin.list_topics("three", timeout=10).topics["three"].partitions.values()
        ready = all(set(found.isrs) == {1, 2, 3} for found in partitions)
        # One that is led by another than its first replica is about to move.
        return [found.id for found in partitions
                if ready and found.leader == found.replicas[0] != 3]

    partition = wait_until(led_elsewhere, DEADLINE, "replicas in sync, leaders on all nodes")[0]
    assert produce(producer, "three", partition) is None
    stopped = cluster.node(3)
    stopped.signal(signal.SIGSTOP)
    try:
        code = produce(producer, "three", partition)
    finally:
        stopped.signal(signal.SIGCONT)
    # Before, when a heartbeat was missing already.
    assert code in (KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND, KafkaError.NOT_ENOUGH_REPLICAS)


def test_a_topic_that_wants_three_replicas_is_refused_while_one_stands_still(own_cluster):
    cluster = own_cluster()
    up = {node.number for node in cluster.nodes}
    servers = ",".join(cluster.kafka)
    admin = admin_module.AdminClient({"bootstrap.servers": servers})
    new = [admin_module.NewTopic(topic, 3, 3, config={"min.insync.replicas": wanted})
           for topic, wanted in (("three", "3"), ("two", "2"))]
    for made in admin.create_topics(new).values():
        made.result(DEADLINE)
    # Each error shows, and not the time-out after repeating; a request to the node that stands
    # still is given up soon.
    producer = confluent.Producer({
        "bootstrap.servers": servers, "acks": "all", "retries": 0, "enable.idempotence": False,
        "linger.ms": 0, "socket.timeout.ms": 2000})

    def in_sync():
        partitions = admin.list_topics("three", timeout=10).topics["three"].partitions
        return [set(found.isrs) for found in partitions.values()]

    def codes(topic):
        return [produce(producer, topic, partition) for partition in range(3)]

    def taken(topic):
        return codes(topic) == [None] * 3

    wait_until(lambda: in_sync() == [up] * 3, DEADLINE, "all replicas in sync")
    wait_until(lambda: taken("three"), DEADLINE, "three replicas")

    stopped = cluster.node(3)
    stopped.signal(signal.SIGSTOP)
    try:
        wait_until(lambda: in_sync() == [{1, 2}] * 3, DEADLINE, "the stopped node is behind")
        wait_until(lambda: taken("two"), DEADLINE, "leaders on the other nodes")
        # Its partitions lie in groups of their own, which may get their leaders later.
        wait_until(lambda: codes("three") == [KafkaError.NOT_ENOUGH_REPLICAS] * 3, DEADLINE,
                   "refusals")
    finally:
        stopped.signal(signal.SIGCONT)
    wait_until(lambda: in_sync() == [up] * 3, DEADLINE, "the node caught up")
    wait_until(lambda: taken("three"), DEADLINE, "three replicas again")


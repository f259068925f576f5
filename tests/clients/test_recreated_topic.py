"""A topic that is deleted and made anew while clients use it."""

import signal
import struct
import threading

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from support.cluster import NODES
from support.raw_kafka import RawKafka
from support.wait import wait_until

DEADLINE = 60


class Sending:
    """A producer that never stops, whatever becomes of its topic."""

    def __init__(self, servers, topic):
        self.acked = {}
        self._ends = threading.Event()
        self._topic = topic
        self._producer = Producer({
            "bootstrap.servers": servers, "log_level": 0, "reconnect.backoff.max.ms": 500,
            "topic.metadata.propagation.max.ms": 1000, "message.timeout.ms": 5_000,
            # Where the topic is away for less than a record's time, nothing else shows its growth.
            "topic.metadata.refresh.interval.ms": 1000,
        })
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _delivered(self, error, message):
        if error is None:
            self.acked.setdefault(message.partition(), []).append(message.offset())

    def _run(self):
        number = 0
        while not self._ends.wait(0.01):
            number += 1
            try:
                self._producer.produce(self._topic, b"x", key=b"%d" % number,
                                       on_delivery=self._delivered)
            except Exception:  # noqa: BLE001 - the topic is not there just now
                pass
            self._producer.poll(0)

    def wait_everywhere(self, partitions):
        self.acked = {}
        wait_until(lambda: all(len(self.acked.get(p, ())) > 5 for p in range(partitions)),
                   DEADLINE, "acknowledgements in every partition")

    def stop(self):
        self._ends.set()
        self._thread.join(DEADLINE)
        self._producer.flush(DEADLINE)


def test_a_running_producer_goes_on_with_the_new_topic(own_cluster, name):
    """Leader epochs differ between partitions once a node has died; librdkafka believes no
    metadata with a lower epoch than it knows, so those of the new topic must not be lower."""
    cluster = own_cluster(sets=["disk.reserve_bytes=0", "log.auto_create_topics=false"])
    servers = ",".join(cluster.kafka)
    admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})

    def create(partitions):
        admin.create_topics([NewTopic(name, partitions, 3)])[name].result(DEADLINE)

    create(4)
    sending = Sending(servers, name)
    sending.wait_everywhere(4)
    node = cluster.leader("d1")
    node.kill()
    sending.wait_everywhere(4)
    node.start()
    cluster.wait_ready()
    sending.wait_everywhere(4)
    for partitions in (3, 4, 5):
        admin.delete_topics([name])[name].result(DEADLINE)
        wait_until(lambda: name not in admin.list_topics(timeout=DEADLINE).topics, DEADLINE,
                   "the end of the topic")
        create(partitions)
        sending.wait_everywhere(partitions)
    sending.stop()


DELETE_TOPICS = 20


def test_a_node_that_was_away_deletes_the_topic_of_today(own_cluster, name):
    """It knows an earlier one of that name. Told that there is none, whoever makes the topic next
    finds that it exists, with the records that it had."""
    cluster = own_cluster(sets=["disk.reserve_bytes=0", "log.auto_create_topics=false"])
    leads = cluster.leader("m0")
    away = next(cluster.node(n) for n in NODES if cluster.node(n) is not leads)
    admin = AdminClient({"bootstrap.servers": leads.ports["kafka"], "log_level": 0,
                         "allow.auto.create.topics": False})
    admin.create_topics([NewTopic(name, 2, 3)])[name].result(DEADLINE)
    earlier = RawKafka(away.ports["kafka"], DEADLINE)
    assert DELETE_TOPICS in earlier.api_versions(0)
    away.signal(signal.SIGSTOP)
    try:
        admin.delete_topics([name])[name].result(DEADLINE)
        wait_until(lambda: made(admin, name), DEADLINE, "the topic made anew", pause=0.5)
        words = struct.pack(">ih", 1, len(name)) + name.encode() + struct.pack(">i", 20_000)
        earlier.send(DELETE_TOPICS, 1, words)
    finally:
        away.signal(signal.SIGCONT)
    answer = deleted(earlier.receive())
    assert answer[name] in (0, 7), answer
    if answer[name] == 0:
        assert name not in admin.list_topics(timeout=DEADLINE).topics
    earlier.close()


def made(admin, name):
    """Whether the topic is there: others lead first what the node led that is away."""
    try:
        admin.create_topics([NewTopic(name, 2, 3)])[name].result(DEADLINE)
    except KafkaException as e:
        return e.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS
    return True


def deleted(answer):
    """Topics and codes of a response of DeleteTopics 1, behind the throttle time."""
    count, = struct.unpack(">i", answer[4:8])
    found, at = {}, 8
    for _ in range(count):
        size, = struct.unpack(">h", answer[at:at + 2])
        topic = answer[at + 2:at + 2 + size].decode()
        at += 2 + size
        found[topic], = struct.unpack(">h", answer[at:at + 2])
        at += 2
    return found

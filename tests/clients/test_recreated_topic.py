"""A topic that is deleted and made anew while clients use it."""

import threading

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
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

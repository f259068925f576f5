"""A disk below its reserve: every port refuses writes in its own words; reading, deleting and
retention go on; nobody dies; with room again everything is written as before.

The reserve of a node is raised above what its disk has, as if the disk had filled up while it was
away: a node must also be able to start then.
"""

import itertools
import json
import re

import pytest
import requests
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType,
)

from support.reading import records
from support.wait import wait_until

pytestmark = pytest.mark.timeout(300)

NO_DISK_HAS_THIS = 1 << 49
RECORDS = 60


class Ports:
    """One cluster through the clients of all its ports."""

    def __init__(self, cluster, name):
        self.cluster = cluster
        self.name = name
        self.bootstrap = ",".join(cluster.kafka)
        self.admin = AdminClient({"bootstrap.servers": self.bootstrap})

    def produce(self, value=b"x"):
        """The error of a produce request, None when it was acknowledged."""
        producer = Producer({"bootstrap.servers": self.bootstrap, "retries": 0, "acks": "all"})
        outcome = []
        producer.produce(self.name, value, partition=0,
                         on_delivery=lambda error, _: outcome.append(error))
        producer.flush(30)
        assert outcome, "no answer to a produce request"
        return outcome[0]

    def refused_for_room(self):
        error = self.produce()
        return error is not None and error.code() == KafkaError.KAFKA_STORAGE_ERROR

    def is_refused(self):
        """A leader that moves meanwhile refuses for another reason."""
        return self.produce() is not None

    def create_topic(self, topic, **config):
        one = NewTopic(topic, 1, 3, config=config)
        self.admin.create_topics([one])[topic].result(30)

    def creates_topic(self, topic):
        try:
            self.create_topic(topic)
            return True
        except KafkaException as error:
            assert error.args[0].code() == KafkaError.KAFKA_STORAGE_ERROR, error
            return False

    def low_watermark(self):
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": self.name})
        try:
            return consumer.get_watermark_offsets(TopicPartition(self.name, 0), timeout=30)[0]
        finally:
            consumer.close()

    def commit(self, offset):
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": self.name,
                             "enable.auto.commit": False})
        try:
            at = TopicPartition(self.name, 0, offset)
            consumer.commit(offsets=[at], asynchronous=False)
            return consumer.committed([TopicPartition(self.name, 0)], timeout=30)[0].offset
        finally:
            consumer.close()

    def web(self, method, path, op, **options):
        url = f"http://{self.cluster.webhdfs[0]}/webhdfs/v1/{self.name}/{path}"
        params = {"op": op, "user.name": "root", **options.pop("params", {})}
        return requests.request(method, url, params=params, timeout=30, **options)

    def create_file(self, path, body=b"body"):
        return self.web("PUT", path, "CREATE", data=body, params={"overwrite": "true"})

    def elastic(self, method, path, **options):
        url = f"http://{self.cluster.elastic[0]}/{path}"
        return requests.request(method, url, timeout=30, **options)


def set_reserve(node, number_of_bytes):
    """Restarts a node with another reserve."""
    node.stop()
    path = node.dir / "node.toml"
    text, found = re.subn(r"reserve_bytes = \d+", f"reserve_bytes = {number_of_bytes}",
                          path.read_text())
    assert found == 1
    path.write_text(text)
    node.start()


def fill(ports):
    """What stands there before the disks are full."""
    ports.create_topic(ports.name, **{"segment.bytes": "10000"})
    ports.create_topic(f"{ports.name}-gone")
    for number in range(RECORDS):
        assert ports.produce(b"%04d" % number + b"x" * 1000) is None
    for path in ("keep", "gone"):
        assert ports.create_file(path).status_code == 201
    for index in (ports.name, f"{ports.name}-gone"):
        done = ports.elastic("PUT", f"{index}/_doc/1?refresh=true", json={"a": 1})
        assert done.status_code == 201, done.text


def check_writes_are_refused(ports):
    wait_until(ports.refused_for_room, 30, "a refusal", pause=0.5)
    with pytest.raises(KafkaException) as refused:
        ports.create_topic(f"{ports.name}-new")
    assert refused.value.args[0].code() == KafkaError.KAFKA_STORAGE_ERROR

    answer = ports.create_file("new")
    assert answer.status_code == 403, answer.text
    remote = answer.json()["RemoteException"]
    assert remote["javaClassName"] == "java.io.IOException"
    assert "reserve" in remote["message"]

    one = ports.elastic("PUT", f"{ports.name}/_doc/2", json={"a": 2})
    assert one.status_code == 429
    assert one.json()["error"]["type"] == "cluster_block_exception"
    line = json.dumps({"index": {"_id": "2"}}) + "\n" + json.dumps({"a": 2}) + "\n"
    bulk = ports.elastic("POST", f"{ports.name}/_bulk", data=line,
                         headers={"content-type": "application/x-ndjson"})
    assert bulk.status_code == 200 and bulk.json()["errors"]
    assert bulk.json()["items"][0]["index"]["error"]["type"] == "cluster_block_exception"
    index = ports.elastic("PUT", f"{ports.name}-new")
    assert index.status_code == 403
    assert "create-index blocked" in index.json()["error"]["reason"]

    topic = ports.cluster.run("topic", "create", f"{ports.name}-new")
    assert topic.returncode == 1 and "disk reserve" in topic.stderr


def check_reads_go_on(ports):
    found = records(ports.cluster, ports.name)
    assert sorted(v[:4] for v in found.values()) == [b"%04d" % n for n in range(RECORDS)]
    assert ports.commit(7) == 7
    assert ports.web("GET", "keep", "OPEN").content == b"body"
    hits = ports.elastic("GET", f"{ports.name}/_search").json()["hits"]
    assert hits["total"]["value"] == 1
    assert ports.elastic("GET", f"{ports.name}/_doc/1").json()["_source"] == {"a": 1}


def check_deletes_and_retention_go_on(ports):
    ports.admin.delete_topics([f"{ports.name}-gone"])[f"{ports.name}-gone"].result(30)
    assert ports.web("DELETE", "gone", "DELETE").json() == {"boolean": True}
    assert ports.elastic("DELETE", f"{ports.name}-gone").status_code == 200
    deleted = ports.admin.delete_records([TopicPartition(ports.name, 0, 5)])
    assert next(iter(deleted.values())).result(30).low_watermark == 5
    entry = ConfigEntry("retention.bytes", "15000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, ports.name, incremental_configs=[entry])
    ports.admin.incremental_alter_configs([resource])[resource].result(30)
    wait_until(lambda: ports.low_watermark() > 20, 60, "retention", pause=1)


def check_writes_work(ports):
    """Each leader hears by itself that there is room again."""
    def waits_for(what, done):
        wait_until(done, 30, what, pause=0.5)

    waits_for("an acknowledged record", lambda: ports.produce() is None)
    waits_for("a topic", lambda: ports.creates_topic(f"{ports.name}-after"))
    waits_for("a file", lambda: ports.create_file("after").status_code == 201)
    waits_for("a document", lambda: ports.elastic(
        "PUT", f"{ports.name}/_doc/3", json={"a": 3}).status_code == 201)
    waits_for("an index", lambda: ports.elastic("PUT", f"{ports.name}-after").status_code == 200)
    assert ports.cluster.run("topic", "create", f"{ports.name}-later").returncode == 0


def test_below_the_reserve_writes_are_refused_and_all_else_goes_on(own_cluster, name):
    cluster = own_cluster(sets=["disk.reserve_bytes=0", "log.retention_check_ms=1000"])
    ports = Ports(cluster, name)
    fill(ports)

    for node in cluster.nodes:
        set_reserve(node, NO_DISK_HAS_THIS)
    cluster.wait_ready()
    for node in cluster.nodes:
        assert "trine_disk_below_reserve 1" in node.get("/metrics").text
    assert all(n["disk"]["below_reserve"] for n in cluster.status()["nodes"])
    check_writes_are_refused(ports)
    check_reads_go_on(ports)
    check_deletes_and_retention_go_on(ports)
    assert all(node.alive() for node in cluster.nodes)

    # Every node stores every record: one without room is enough to refuse them.
    for number in (1, 2):
        set_reserve(cluster.node(number), 0)
    cluster.wait_ready()
    # The leaders of the partition and of the metadata hear of it one after the other. Each attempt
    # has a name of its own, as one that comes before the news makes its topic.
    names = (f"{name}-{number}" for number in itertools.count())
    wait_until(lambda: cluster.run("topic", "create", next(names)).stderr.count("node 3"), 30,
               "word of node 3's full disk at the metadata's leader", pause=0.5)
    wait_until(lambda: ports.refused_for_room(), 30,
               "word of node 3's full disk at the partition's leader", pause=0.5)
    for _ in range(20):
        assert ports.is_refused()

    set_reserve(cluster.node(3), 0)
    cluster.wait_ready()
    check_writes_work(ports)
    cluster.wait_equal_digests()


def test_deleted_files_go_although_nothing_more_is_written(own_cluster, name):
    """Where writes are refused for lack of room, nothing else would ever make room."""
    cluster = own_cluster()
    ports = Ports(cluster, name)
    ports.create_topic(name)
    assert ports.produce(b"x" * 100_000) is None

    def folders():
        return [[folder for group in (node.data_dir / "parts").iterdir()
                 for folder in group.iterdir()] for node in cluster.nodes]

    wait_until(lambda: all(len(found) == 1 for found in folders()), 30, "three replicas")
    ports.admin.delete_topics([name])[name].result(30)
    wait_until(lambda: folders() == [[], [], []], 90, "the end of their folders", pause=0.5)

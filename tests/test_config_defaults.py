"""What a configuration says of topics and addresses is what clients get."""

import json
import subprocess

import pytest
import requests
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from support.cluster import Cluster
from support.wait import wait_until

DEADLINE = 30


@pytest.fixture(scope="module")
def configured():
    made = Cluster(sets=[
        "disk.reserve_bytes=0", "log.auto_create_topics=false", "log.default_partitions=5"])
    yield made
    made.close()


@pytest.fixture
def client(configured):
    return {"bootstrap.servers": ",".join(configured.kafka), "log_level": 0}


def topics(cluster):
    listed = cluster.run("-o", "json", "topic", "list")
    assert listed.returncode == 0, listed.stderr
    return {row["name"]: row["partitions"] for row in json.loads(listed.stdout)}


def test_topics_are_not_made_by_themselves(configured, client, name):
    producer = Producer({**client, "topic.metadata.propagation.max.ms": 0})
    # The request of a producer asks for the topic to be made.
    told = producer.list_topics(name, timeout=DEADLINE).topics[name]
    assert told.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART and not told.partitions
    with pytest.raises(KafkaException, match="_UNKNOWN_TOPIC"):
        producer.produce(name, b"x")
    assert name not in topics(configured)


def test_topics_have_the_default_number_of_partitions(configured, client, name):
    admin = AdminClient(client)
    admin.create_topics([NewTopic(name, -1, -1)])[name].result(DEADLINE)
    assert len(admin.list_topics(name, timeout=DEADLINE).topics[name].partitions) == 5
    done = configured.run("topic", "create", f"{name}-cli")
    assert done.returncode == 0, done.stderr
    found = topics(configured)
    assert (found[name], found[f"{name}-cli"]) == (5, 5)


def test_the_settings_are_described(client):
    admin = AdminClient(client)
    broker = ConfigResource(ResourceType.BROKER, "1")
    told = admin.describe_configs([broker])[broker].result(DEADLINE)
    assert told["auto.create.topics.enable"].value == "false"
    assert told["num.partitions"].value == "5"


@pytest.fixture(scope="module")
def renamed(configured):
    """Node 2 started again with other addresses to advertise; by kind, those of all nodes."""
    node = configured.node(2)
    told = {kind: [n.ports[kind] for n in configured.nodes]
            for kind in ("kafka", "elastic", "console")}
    for addresses in told.values():
        addresses[1] = addresses[1].replace("127.0.0.1", "localhost")
    node.stop()
    with open(node.dir / "node.toml", "a") as config:
        config.write("\n[advertise]\n")
        config.writelines(f'{kind} = "{addresses[1]}"\n' for kind, addresses in told.items())
    node.start()
    configured.wait_ready()
    return told


def kafka_addresses(cluster, node):
    words = ["kcat", "-b", cluster.kafka[node - 1], "-L", "-J"]
    listed = subprocess.run(words, capture_output=True, timeout=DEADLINE, check=True)
    brokers = {b["id"]: b["name"] for b in json.loads(listed.stdout)["brokers"]}
    return [brokers[n] for n in sorted(brokers)]


def elastic_addresses(cluster, node):
    url = f"http://{cluster.elastic[node - 1]}/_cat/nodes?h=http&s=name"
    return requests.get(url, timeout=DEADLINE).text.split()


def console_addresses(cluster, node):
    return [n["console"] for n in cluster.status(node)["nodes"]]


@pytest.mark.parametrize("kind, addresses", [
    ("kafka", kafka_addresses), ("elastic", elastic_addresses), ("console", console_addresses)],
    ids=["kafka", "elastic", "console"])
def test_every_node_tells_the_advertised_addresses(configured, renamed, kind, addresses):
    for number in (1, 2, 3):
        wait_until(lambda: addresses(configured, number) == renamed[kind], DEADLINE,
                   f"{renamed[kind]} at node {number}")

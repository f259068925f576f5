"""What `/metrics` of all nodes says after known traffic."""

import re
import time

import pytest

from support.wait import wait_until

DEADLINE = 30
SAMPLE = re.compile(r'^([a-z_:]+)(?:\{(.*)\})? ([0-9.e+-]+|\+Inf|NaN)$', re.I)
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')


def scrape(cluster):
    """All samples of all nodes: [(name, labels, value)]."""
    samples = []
    for node in cluster.nodes:
        answer = node.get("/metrics")
        answer.raise_for_status()
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        known = {}
        for line in answer.text.splitlines():
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split(" ")
                assert name not in known, f"{name} is declared twice"
                known[name] = kind
            elif not line.startswith("# HELP "):
                name, labels, value = SAMPLE.match(line).groups()
                family = re.sub("_(bucket|sum|count)$", "", name)
                kind = known.get(name) or known[family]
                assert kind == "histogram" or name in known, f"{name} has no TYPE"
                assert kind != "counter" or name.endswith("_total"), name
                samples.append((name, dict(LABEL.findall(labels or "")), float(value)))
    return samples


def total(cluster, name, **labels):
    """A metric summed over all nodes and over labels that are not given."""
    found = [value for found, has, value in scrape(cluster)
             if found == name and labels.items() <= has.items()]
    return sum(found)


def produce(cluster, topic, values):
    """Produces to all partitions in turn: one without records would have no offset and no lag."""
    confluent = pytest.importorskip("confluent_kafka")
    producer = confluent.Producer({"bootstrap.servers": ",".join(cluster.kafka)})
    for i, value in enumerate(values):
        producer.produce(topic, value, partition=i % 3)
    assert producer.flush(DEADLINE) == 0


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_traffic_lag_and_errors_are_counted(cluster, name, protocol):
    confluent = pytest.importorskip("confluent_kafka")
    produced = "kafka_network_requestmetrics_requests_total"
    before = total(cluster, produced, request="Produce")
    produce(cluster, name, [b"x" * 1000] * 300)
    topic = "kafka_server_brokertopicmetrics"
    assert total(cluster, f"{topic}_messagesin_total", topic=name) == 300
    bytes_in = total(cluster, f"{topic}_bytesin_total", topic=name)
    assert 300_000 < bytes_in < 400_000
    assert total(cluster, f"{topic}_failedproducerequests_total", topic=name) == 0
    assert total(cluster, produced, request="Produce") > before
    latency = "kafka_network_requestmetrics_totaltime_seconds"
    assert total(cluster, f"{latency}_count", request="Produce") >= before + 1
    assert total(cluster, f"{latency}_bucket", request="Produce", le="+Inf") >= before + 1
    assert total(cluster, "kafka_topic_partition_current_offset", topic=name) == 300
    batches = total(cluster, f"{topic}_totalproducerequests_total", topic=name)
    assert total(cluster, f"{topic}_producetime_seconds_count", topic=name) == batches > 0
    assert total(cluster, f"{topic}_producetime_seconds_sum", topic=name) > 0
    assert total(cluster, f"{topic}_fetchtime_seconds_count", topic=name) == 0

    consumer = confluent.Consumer({
        "bootstrap.servers": ",".join(cluster.kafka), "group.id": name,
        "auto.offset.reset": "earliest", "enable.auto.commit": False,
        "group.protocol": protocol})
    consumer.subscribe([name])
    count, end = 0, time.monotonic() + DEADLINE
    while count < 300 and time.monotonic() < end:
        message = consumer.poll(1)
        count += message is not None and message.error() is None
    assert count == 300
    consumer.commit(asynchronous=False)
    assert total(cluster, f"{topic}_bytesout_total", topic=name) >= bytes_in
    assert total(cluster, f"{topic}_fetchtime_seconds_count", topic=name) >= 3
    assert total(cluster, "kafka_consumergroup_members", consumergroup=name) == 1
    assert total(cluster, "kafka_consumergroup_rebalances_total", consumergroup=name) >= 1
    assert total(cluster, "kafka_consumergroup_lag", consumergroup=name, topic=name) == 0
    assert total(cluster, "kafka_consumergroup_current_offset", consumergroup=name) == 300
    assert total(cluster, "kafka_server_socketservermetrics_connection_count") >= 1
    consumer.close()

    produce(cluster, name, [b"late"] * 7)

    def lags():
        lag = total(cluster, "kafka_consumergroup_lag_sum", consumergroup=name)
        assert lag == 7, f"a lag of {lag}"
        return True

    wait_until(lags, DEADLINE, "a lag of 7")

    errors = "kafka_network_requestmetrics_errors_total"
    label = {"request": "Fetch", "error": "OFFSET_OUT_OF_RANGE"}
    before = total(cluster, errors, **label)
    reader = confluent.Consumer({
        "bootstrap.servers": ",".join(cluster.kafka), "group.id": f"{name}-lost",
        "auto.offset.reset": "latest", "enable.auto.commit": False})
    reader.assign([confluent.TopicPartition(name, 0, 1_000_000)])
    wait_until(lambda: reader.poll(0.2) or total(cluster, errors, **label) > before, DEADLINE,
               "an error counted")
    reader.close()


def test_a_deleted_topic_has_no_metrics(cluster, name):
    produce(cluster, name, [b"x"])
    bytes_in = "kafka_server_brokertopicmetrics_bytesin_total"
    assert total(cluster, bytes_in, topic=name) > 0
    assert cluster.run("topic", "delete", name).returncode == 0
    wait_until(lambda: not [has for _, has, _ in scrape(cluster) if has.get("topic") == name],
               DEADLINE, "no metrics of the topic")


def test_unknown_topics_make_no_labels(cluster, name):
    confluent = pytest.importorskip("confluent_kafka")
    errors = "kafka_network_requestmetrics_errors_total"
    label = {"request": "Metadata", "error": "UNKNOWN_TOPIC_OR_PARTITION"}
    before = total(cluster, errors, **label)
    consumer = confluent.Consumer({
        "bootstrap.servers": ",".join(cluster.kafka), "group.id": name,
        "allow.auto.create.topics": False})
    consumer.assign([confluent.TopicPartition(name, 0, 0)])
    wait_until(lambda: consumer.poll(0.2) or total(cluster, errors, **label) > before, DEADLINE,
               "an error counted")
    consumer.close()
    assert not [has for _, has, _ in scrape(cluster) if has.get("topic") == name]

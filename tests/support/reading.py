"""Reading back through the real ports, with real clients, what a pipeline has brought in."""

import hashlib
import json
import time
import urllib.parse

import requests
from confluent_kafka import Consumer, TopicPartition

from support.wait import wait_until


def count(cluster, index):
    """Documents that a search finds; 0 while there is no index."""
    answer = requests.get(f"http://{cluster.elastic[0]}/{index}/_count", timeout=10)
    return answer.json()["count"] if answer.status_code == 200 else 0


def documents(cluster, index, size=10_000):
    """The sources of all documents of an index, by node 1."""
    requests.post(f"http://{cluster.elastic[0]}/{index}/_refresh", timeout=30).raise_for_status()
    body = {"size": size, "query": {"match_all": {}}}
    answer = requests.post(f"http://{cluster.elastic[0]}/{index}/_search", json=body, timeout=60)
    answer.raise_for_status()
    return [h["_source"] for h in answer.json()["hits"]["hits"]]


def records(cluster, topic, deadline=120):
    """Every record of a topic: (partition, offset) to value."""
    consumer = Consumer({
        "bootstrap.servers": ",".join(cluster.kafka),
        "group.id": f"reading-{time.monotonic_ns()}",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
    })
    try:
        partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
        ends = {}
        for number in partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=30)
            ends[number] = (low, high)
        consumer.assign([TopicPartition(topic, n, low) for n, (low, _) in ends.items()])
        left = sum(high - low for low, high in ends.values())
        found = {}
        end = time.monotonic() + deadline
        while len(found) < left and time.monotonic() < end:
            for message in consumer.consume(min(1000, left - len(found)), 1.0):
                assert message.error() is None, message.error()
                key = (message.partition(), message.offset())
                assert key not in found, f"{key} was read twice"
                found[key] = message.value()
        assert len(found) == left, f"{len(found)} of {left} records within {deadline} s"
        return found
    finally:
        consumer.close()


def stored(cluster, directory, node=0):
    """Every file below a directory: path below it to SHA-256, through WebHDFS."""
    base = f"http://{cluster.webhdfs[node]}/webhdfs/v1"
    session = requests.Session()
    found, open_dirs = {}, [""]
    while open_dirs:
        current = open_dirs.pop()
        url = base + urllib.parse.quote(directory + current)
        answer = session.get(url, params={"op": "LISTSTATUS"}, timeout=60)
        answer.raise_for_status()
        for entry in answer.json()["FileStatuses"]["FileStatus"]:
            path = f"{current}/{entry['pathSuffix']}"
            if entry["type"] == "DIRECTORY":
                open_dirs.append(path)
                continue
            content = session.get(base + urllib.parse.quote(directory + path),
                                  params={"op": "OPEN"}, timeout=60)
            content.raise_for_status()
            found[path] = hashlib.sha256(content.content).hexdigest()
    session.close()
    return found


def check_exactly_once(cluster, name, files):
    """Every file (path below the source to content) has one stored file with equal content, one
    record and one document; and there is nothing else."""
    expected = {"/" + p: hashlib.sha256(c).hexdigest() for p, c in files.items()}
    assert stored(cluster, f"/datalake/{name}") == expected
    values = [json.loads(v) for v in records(cluster, name).values()]
    ids = [v["id"] for v in values]
    assert len(ids) == len(files), f"{len(ids)} records for {len(files)} files"
    assert len(set(ids)) == len(files), "a file has two records"
    wait_until(lambda: count(cluster, name) == len(files), 60, "all documents searchable")
    found = [d["id"] for d in documents(cluster, name)]
    assert sorted(found) == sorted(ids)

"""Reading back through the real ports, with real clients, what a pipeline has brought in."""

import hashlib
import json
import time
import urllib.parse

import requests
from confluent_kafka import Consumer, TopicPartition

from support.wait import wait_until


def count(cluster, index, node=1):
    """Documents that a search at a node finds; 0 while there is no index."""
    answer = requests.get(f"http://{cluster.elastic[node - 1]}/{index}/_count", timeout=10)
    return answer.json()["count"] if answer.status_code == 200 else 0


def documents(cluster, index, node=1, size=10_000):
    """The sources of all documents of an index, by a node."""
    url = f"http://{cluster.elastic[node - 1]}/{index}"
    requests.post(f"{url}/_refresh", timeout=30).raise_for_status()
    body = {"size": size, "query": {"match_all": {}}}
    answer = requests.post(f"{url}/_search", json=body, timeout=60)
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


def stored(cluster, directory, node=1):
    """Every file below a directory: path below it to SHA-256, through a node's WebHDFS."""
    base = f"http://{cluster.webhdfs[node - 1]}/webhdfs/v1"
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


def check_exactly_once(cluster, name, files, node=1):
    """Every file (path below the source to content) has one stored file with equal content, one
    record and one document; and there is nothing else. Files and documents as a node has them."""
    expected = {"/" + p: hashlib.sha256(c).hexdigest() for p, c in files.items()}
    assert stored(cluster, f"/datalake/{name}", node) == expected
    values = [json.loads(v) for v in records(cluster, name).values()]
    ids = [v["id"] for v in values]
    assert len(ids) == len(files), f"{len(ids)} records for {len(files)} files"
    assert len(set(ids)) == len(files), "a file has two records"
    wait_until(lambda: count(cluster, name, node) == len(files), 60, "all documents searchable")
    found = [d["id"] for d in documents(cluster, name, node)]
    assert sorted(found) == sorted(ids)


def check_every_node(cluster, index, number, deadline=60):
    """Each node for itself finds so many documents and has a copy of every block."""
    def found():
        return [count(cluster, index, node.number) for node in cluster.nodes] == [number] * 3

    def copied():
        blocks = {node.metric("trine_blocks") for node in cluster.nodes}
        missing = {node.metric("trine_blocks_with_missing_copies") for node in cluster.nodes}
        # There may be more: what was stored for a file, but not put under its path because a node
        # died, lies there for ten minutes.
        copies = min(node.metric("trine_block_copies") for node in cluster.nodes)
        return len(blocks) == 1 and missing == {0} and copies >= blocks.pop() >= number

    wait_until(found, deadline, f"{number} documents at every node", pause=0.2)
    wait_until(copied, deadline, "every block on every node", pause=0.2)


def segments(node):
    """Segment files of all partitions and shards of a node: path to SHA-256."""
    found = {}
    for top in ("parts", "index/translog"):
        for path in (node.data_dir / top).rglob("*.log"):
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found[str(path.relative_to(node.data_dir))] = digest
    return found


def check_equal_segments(cluster):
    """Ends the nodes, which brings to disk what they have. A segment file holds what was appended
    and nothing else, so with equal digests all nodes have the same files of the same bytes."""
    cluster.stop_nodes()
    first, *others = [segments(node) for node in cluster.nodes]
    assert first, "no segments"
    for number, other in enumerate(others, 2):
        differ = sorted({path for path, _ in first.items() ^ other.items()})
        assert not differ, f"node 1 and node {number} differ in {differ[:5]}"

"""Two of three nodes are gone: the last one refuses writes on every port in that port's own words
and within a deadline, shows what it still may show, and acknowledges nothing. When the two are
back, everything acknowledged is there, and nothing of what was refused.

All requests are under way at once, because some are refused only after the patience that clients
expect of the originals (30 s for Elasticsearch). The tests judge what came back.
"""

import concurrent.futures
import json
import re
import struct
import time

import pytest
import requests
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from kafka.record import MemoryRecordsBuilder

from support.cluster import Cluster
from support.raw_kafka import RawKafka
from support.reading import records
from support.wait import wait_until

pytestmark = pytest.mark.timeout(300)

# No request may be without an answer for longer. The longest patience of trine is 30 s.
DEADLINE = 90
PARTITIONS = 6
RECORDS = 10
SHARDS = 6
DOCUMENTS = 24

REQUEST_TIMED_OUT, COORDINATOR_LOAD_IN_PROGRESS = 7, 14
# Errors of Kafka that tell a producer to try again. After UNKNOWN the record may stand in the log.
REFUSED = {5: "LEADER_NOT_AVAILABLE", 6: "NOT_LEADER_OR_FOLLOWER", 19: "NOT_ENOUGH_REPLICAS"}
UNKNOWN = {7: "REQUEST_TIMED_OUT", 20: "NOT_ENOUGH_REPLICAS_AFTER_APPEND"}


class Lonely:
    """A cluster with something in it, of which one node is left, and what that node answered."""

    def __init__(self, cluster, name):
        self.cluster = cluster
        self.name = name
        self.acked = {}
        self.answers = {}
        self.fill()
        leaders = self.leaders()
        self.left = cluster.node(leaders[0])
        self.primaries = self.primary_nodes()
        self.led = sorted(p for p, leader in leaders.items() if leader == self.left.number)
        self.gone = [n for n in cluster.nodes if n is not self.left]
        for node in self.gone:
            node.kill()
        self.wait_alone()
        self.ask_everything()

    def fill(self):
        done = self.cluster.run("topic", "create", self.name, "--partitions", str(PARTITIONS))
        assert done.returncode == 0, done.stderr
        producer = Producer({"bootstrap.servers": ",".join(self.cluster.kafka), "log_level": 0})

        def delivered(error, message):
            assert error is None, error
            self.acked[(message.partition(), message.offset())] = message.value()

        for number in range(PARTITIONS * RECORDS):
            producer.produce(self.name, b"kept %d" % number, partition=number % PARTITIONS,
                             on_delivery=delivered)
        assert producer.flush(60) == 0
        url = f"http://{self.cluster.webhdfs[0]}/webhdfs/v1/{self.name}/kept"
        done = requests.put(url, params={"op": "CREATE", "user.name": "root"}, data=b"body",
                            timeout=60)
        assert done.status_code == 201, done.text
        elastic = f"http://{self.cluster.elastic[0]}/{self.name}"
        # A shard in every group: some are led by the node that is left.
        done = requests.put(elastic, json={"settings": {"number_of_shards": SHARDS}}, timeout=60)
        assert done.status_code == 200, done.text
        done = requests.put(f"{elastic}/_doc/kept?refresh=true", json={"a": 1}, timeout=60)
        assert done.status_code == 201, done.text
        # A search is answered from a node's own copy, once that is there.
        for address in self.cluster.elastic:
            url = f"http://{address}/{self.name}/_count"
            wait_until(lambda: requests.get(url, timeout=10).json()["count"] == 1, 60,
                       "the document on every node")

    def leaders(self):
        """Partition to the node that leads it."""
        admin = AdminClient({"bootstrap.servers": ",".join(self.cluster.kafka)})
        topic = admin.list_topics(self.name, timeout=60).topics[self.name]
        return {number: p.leader for number, p in topic.partitions.items()}

    def primary_nodes(self):
        """Shard of the index to the node that has its primary."""
        url = f"http://{self.cluster.elastic[0]}/_cat/shards/{self.name}?format=json"
        rows = requests.get(url, timeout=60).json()
        found = {int(r["shard"]): r["node"] for r in rows if r["prirep"] == "p"}
        assert len(found) == SHARDS and len(set(found.values())) > 1, found
        return found

    def wait_alone(self):
        """Until the node knows that nobody answers it."""
        def alone():
            alive = [n["id"] for n in self.cluster.status(self.left.number)["nodes"] if n["alive"]]
            return alive == [self.left.number]
        wait_until(alone, DEADLINE, "word of the dead nodes")

    def http(self, port, method, path, **options):
        url = f"http://{self.left.ports[port]}{path}"
        return requests.request(method, url, timeout=DEADLINE, allow_redirects=False, **options)

    def web(self, method, path, op, **options):
        params = {"op": op, "user.name": "root"}
        return self.http("webhdfs", method, f"/webhdfs/v1/{self.name}/{path}", params=params,
                         **options)

    def elastic(self, method, path, **options):
        return self.http("elastic", method, path, **options)

    def bulk(self):
        lines = "".join(json.dumps({"index": {"_id": f"refused {n}"}}) + '\n{"a": 2}\n'
                        for n in range(DOCUMENTS))
        return self.elastic("POST", f"/{self.name}/_bulk", data=lines,
                            headers={"content-type": "application/x-ndjson"})

    def metadata(self):
        admin = AdminClient({"bootstrap.servers": self.left.ports["kafka"], "log_level": 0})
        return sorted(admin.list_topics(timeout=DEADLINE).topics[self.name].partitions)

    def produce(self, partition, acks):
        """The error code of one produce request."""
        records = MemoryRecordsBuilder(2, 0, 10_000)
        records.append(timestamp=None, key=None, value=refused(partition, acks))
        records.close()
        body = struct.pack(">hhiih", -1, acks, 3000, 1, len(self.name)) + self.name.encode()
        body += struct.pack(">iii", 1, partition, records.size_in_bytes()) + records.buffer()
        connection = RawKafka(self.left.ports["kafka"])
        try:
            connection.socket.settimeout(DEADLINE)
            answer = connection.ask(0, 7, body)
        finally:
            connection.close()
        found, code = struct.unpack_from(">ih", answer, 4 + 2 + len(self.name) + 4)
        assert found == partition
        return code

    def kafka(self, key, version, body):
        connection = RawKafka(self.left.ports["kafka"])
        try:
            connection.socket.settimeout(DEADLINE)
            return connection.ask(key, version, body)
        finally:
            connection.close()

    def create_topic(self):
        """The error code of one CreateTopics request."""
        name = f"{self.name}-raw".encode()
        body = struct.pack(">ih", 1, len(name)) + name
        body += struct.pack(">ihiii?", 1, 1, 0, 0, 3000, False)
        answer = self.kafka(19, 2, body)
        return struct.unpack_from(">h", answer, 4 + 4 + 2 + len(name))[0]

    def producer_id(self):
        """The error code of one InitProducerId request without a transactional id."""
        return struct.unpack_from(">h", self.kafka(22, 0, struct.pack(">hi", -1, 60_000)), 4)[0]

    def consume(self):
        """What a consumer finds in the partitions that the node leads."""
        consumer = Consumer({
            "bootstrap.servers": self.left.ports["kafka"],
            "group.id": self.name,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "log_level": 0,
        })
        consumer.assign([TopicPartition(self.name, p, 0) for p in self.led])
        found, ended, end = {}, set(), time.monotonic() + DEADLINE
        try:
            while len(ended) < len(self.led) and time.monotonic() < end:
                for message in consumer.consume(100, 0.5):
                    if message.error() is not None:
                        ended.add(message.partition())
                    else:
                        found[(message.partition(), message.offset())] = message.value()
            return found
        finally:
            consumer.close()

    def ask_everything(self):
        asked = {
            "create index": lambda: self.elastic("PUT", f"/{self.name}-new"),
            "document": lambda: self.elastic("PUT", f"/{self.name}/_doc/refused", json={"a": 2}),
            "impatient": lambda: self.elastic("PUT", f"/{self.name}/_doc/impatient?timeout=2s",
                                              json={"a": 2}),
            "bulk": self.bulk,
            "get": lambda: self.until_refused(
                lambda: self.elastic("GET", f"/{self.name}/_doc/kept")),
            "list": lambda: self.until_refused(lambda: self.web("GET", "", "LISTSTATUS")),
            "open": lambda: self.until_refused(lambda: self.web("GET", "kept", "OPEN")),
            "create file": lambda: self.web("PUT", "refused", "CREATE", data=b"body"),
            "make directory": lambda: self.web("PUT", "refused-dir", "MKDIRS"),
            "create topic": lambda: self.cluster.run("topic", "create", f"{self.name}-new"),
            "create topic, raw": self.create_topic,
            "producer id": self.producer_id,
        }
        for partition in range(PARTITIONS):
            for acks in (1, -1):
                key = ("produce", partition, acks)
                asked[key] = lambda p=partition, a=acks: self.produce(p, a)
        with concurrent.futures.ThreadPoolExecutor(len(asked)) as pool:
            futures = {key: pool.submit(ask) for key, ask in asked.items()}
            self.answers = {key: f.result(2 * DEADLINE) for key, f in futures.items()}
        self.answers |= {
            "metadata": self.metadata(),
            "consume": self.consume(),
            "search": self.elastic("GET", f"/{self.name}/_search"),
            "health": self.elastic("GET", "/_cluster/health"),
            "healthz": self.left.get("/healthz"),
            "readyz": self.left.get("/readyz"),
            "status": self.cluster.run("-o", "json", "status"),
            "table": self.cluster.run("status"),
        }

    def until_refused(self, ask):
        """The first answer that is an error. A leader may answer reads from what it has for as
        long as nobody else can have become leader: about a second."""
        answers = []

        def refused():
            answers.append(ask())
            return answers[-1].status_code >= 400

        wait_until(refused, DEADLINE, "a refusal")
        return answers[-1]


def refused(partition, acks):
    return b"refused %d %d" % (partition, acks)


@pytest.fixture(scope="module")
def lonely():
    cluster = Cluster(sets=["disk.reserve_bytes=0"])
    try:
        cluster.wait_ready()
        yield Lonely(cluster, "lonely")
    finally:
        cluster.close()


@pytest.fixture(scope="module")
def back(lonely):
    """The same cluster after its two nodes have come back."""
    for node in lonely.gone:
        node.start()
    lonely.cluster.wait_ready(deadline=DEADLINE)
    lonely.cluster.wait_equal_digests(deadline=DEADLINE)
    return lonely


def test_kafka_acknowledges_nothing_and_says_try_again(lonely):
    codes = {key[1:]: a for key, a in lonely.answers.items() if key[0] == "produce"}
    assert len(codes) == 2 * PARTITIONS
    assert all(code in REFUSED or code in UNKNOWN for code in codes.values()), codes
    created = lonely.answers["create topic"]
    assert created.returncode == 1 and created.stderr.startswith("trine: "), created
    assert lonely.answers["create topic, raw"] == REQUEST_TIMED_OUT
    # One of the block that the node has, or what Kafka answers while it has no ids.
    assert lonely.answers["producer id"] in (0, COORDINATOR_LOAD_IN_PROGRESS)


def test_kafka_shows_what_was_committed_and_nothing_else(lonely):
    assert lonely.answers["metadata"] == list(range(PARTITIONS))
    kept = {key: value for key, value in lonely.acked.items() if key[0] in lonely.led}
    assert len(kept) == len(lonely.led) * RECORDS > 0
    assert lonely.answers["consume"] == kept


@pytest.mark.parametrize("what", ["list", "open", "create file", "make directory"])
def test_webhdfs_says_try_again(lonely, what):
    answer = lonely.answers[what]
    # Hadoop answers 403 to every IOException that is not about the path.
    assert answer.status_code == 403, answer.text
    remote = answer.json()["RemoteException"]
    assert remote["exception"] == "RetriableException"
    assert remote["javaClassName"] == "org.apache.hadoop.ipc.RetriableException"
    assert "fs" in remote["message"]


def check_unavailable(status, error, *kinds):
    assert status == 503, error
    assert error["type"] in kinds and error["reason"], error


def test_elasticsearch_refuses_writes(lonely):
    for what, kinds in {
        "document": ["unavailable_shards_exception"],
        "impatient": ["unavailable_shards_exception"],
        "get": ["unavailable_shards_exception"],
        "create index": ["master_not_discovered_exception",
                         "process_cluster_event_timeout_exception"],
    }.items():
        answer = lonely.answers[what]
        body = answer.json()
        assert body["status"] == 503
        check_unavailable(answer.status_code, body["error"], *kinds)
        assert body["error"]["root_cause"][0]["type"] == body["error"]["type"]
    assert "Timeout: [2s]" in lonely.answers["impatient"].json()["error"]["reason"]
    bulk = lonely.answers["bulk"]
    assert bulk.status_code == 200 and bulk.json()["errors"] is True
    items = [item["index"] for item in bulk.json()["items"]]
    assert [item["_id"] for item in items] == [f"refused {n}" for n in range(DOCUMENTS)]
    for item in items:
        check_unavailable(item["status"], item["error"], "unavailable_shards_exception")


def test_elasticsearch_is_red_and_searches_its_own_copy(lonely):
    health = lonely.answers["health"]
    assert health.status_code == 200
    assert (health.json()["status"], health.json()["number_of_nodes"]) == ("red", 1)
    found = lonely.answers["search"].json()
    assert [hit["_id"] for hit in found["hits"]["hits"]] == ["kept"]
    assert found["_shards"]["failed"] == 0


def test_the_console_tells_who_is_gone(lonely):
    assert lonely.answers["healthz"].status_code == 200
    readyz = lonely.answers["readyz"]
    assert readyz.status_code == 503 and "no leader in m0" in readyz.text, readyz.text
    status = lonely.answers["status"]
    assert status.returncode == 0, status.stderr
    told = json.loads(status.stdout)
    assert {group["leader"] for group in told["groups"]} == {None}
    alive = {n["id"]: n["alive"] for n in told["nodes"]}
    assert alive == {n.number: n is lonely.left for n in lonely.cluster.nodes}
    table = lonely.answers["table"]
    assert table.returncode == 0, table.stderr
    for number, lives in alive.items():
        assert re.search(rf"^{number} +{'yes' if lives else 'no'} ", table.stdout, re.M)


def test_what_was_acknowledged_is_there_and_what_was_refused_is_not(back):
    found = records(back.cluster, back.name)
    assert {key: found.get(key) for key in back.acked} == back.acked
    more = [value for key, value in found.items() if key not in back.acked]
    assert len(more) == len(set(more)), "a record stands there twice"
    unknown = {refused(*key[1:]) for key, code in back.answers.items()
               if key[0] == "produce" and code in UNKNOWN}
    assert set(more) <= unknown

    url = f"http://{back.cluster.webhdfs[0]}/webhdfs/v1/{back.name}"
    rows = requests.get(f"{url}?op=LISTSTATUS", timeout=60).json()["FileStatuses"]["FileStatus"]
    names = {row["pathSuffix"] for row in rows}
    assert requests.get(f"{url}/kept?op=OPEN", timeout=60).content == b"body"
    for name, what in {"refused": "create file", "refused-dir": "make directory"}.items():
        told = back.answers[what].json()["RemoteException"]["message"]
        assert name not in names or "outcome is unknown" in told


def test_documents_are_there_as_told(back):
    elastic = f"http://{back.cluster.elastic[0]}"
    requests.post(f"{elastic}/{back.name}/_refresh", timeout=60).raise_for_status()
    answer = requests.get(f"{elastic}/{back.name}/_search?size=100", timeout=60)
    ids = {hit["_id"] for hit in answer.json()["hits"]["hits"]}
    assert "kept" in ids
    # Where the primary was gone, nobody can have written; the node that is left may have begun.
    items = [item["index"] for item in back.answers["bulk"].json()["items"]]
    shard = {i["_id"]: int(re.search(r"\]\[(\d+)\]", i["error"]["reason"])[1]) for i in items}
    mine = f"trine-{back.left.number}"
    never = {i for i in shard if back.primaries[shard[i]] != mine}
    assert never, "every shard was led by the node that is left"
    # These words of Elasticsearch mean that nothing was written.
    never |= {i["_id"] for i in items if "is not active" in i["error"]["reason"]}
    assert not ids & never
    indices = requests.get(f"{elastic}/_cat/indices?format=json", timeout=60).json()
    told = back.answers["create index"].json()["error"]["type"]
    created = f"{back.name}-new" in [row["index"] for row in indices]
    assert not created or told == "process_cluster_event_timeout_exception"

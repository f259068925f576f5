"""Kafka's own tools and Java clients, of the last 3.x and of 4.x, each in one JVM."""

import json
import re

import pytest
from jvm import Jvm
from support.wait import wait_until

TOOLS = "org.apache.kafka.tools."
VERSIONS = ["3.9.1", "4.1.1"]


class Tools:
    """The tools of one version against one cluster, named as their scripts are."""

    MAINS = {
        "topics": TOOLS + "TopicCommand",
        "console-consumer": TOOLS + "consumer.ConsoleConsumer",
        "consumer-groups": TOOLS + "consumer.group.ConsumerGroupCommand",
        "configs": "kafka.admin.ConfigCommand",
        "get-offsets": TOOLS + "GetOffsetShell",
        "delete-records": TOOLS + "DeleteRecordsCommand",
        "log-dirs": TOOLS + "LogDirsCommand",
        "cluster": TOOLS + "ClusterTool",
        "verifiable-producer": TOOLS + "VerifiableProducer",
        "verifiable-consumer": TOOLS + "VerifiableConsumer",
        "producer-perf-test": TOOLS + "ProducerPerformance",
        "consumer-perf-test": TOOLS + "ConsumerPerformance",
    }
    OLD_MAINS = {
        "console-producer": "kafka.tools.ConsoleProducer",
        "broker-api-versions": "kafka.admin.BrokerApiVersionsCommand",
    }
    NEW_MAINS = {
        "console-producer": TOOLS + "ConsoleProducer",
        "broker-api-versions": TOOLS + "BrokerApiVersionsCommand",
    }

    def __init__(self, jvm, cluster):
        self.jvm = jvm
        self.servers = ",".join(cluster.kafka)
        self.mains = {**self.MAINS, **(self.OLD_MAINS if jvm.version < "4" else self.NEW_MAINS)}

    def __call__(self, tool, *args, **options):
        words = ["--bootstrap-server", self.servers, *args]
        return self.jvm.run(self.mains[tool], *words, **options)

    def bare(self, tool, *args, **options):
        """Without the addresses."""
        return self.jvm.run(self.mains[tool], *args, **options)

    def alone(self, tool, *args):
        """In a JVM of its own."""
        return self.jvm.alone(self.mains[tool], "--bootstrap-server", self.servers, *args)

    def create(self, topic, partitions=3, *more):
        self("topics", "--create", "--topic", topic, "--partitions", partitions,
             "--replication-factor", 3, *more)

    def produce(self, topic, text, *more):
        self("console-producer", "--topic", topic, *more, stdin=text)

    def consume(self, topic, count, *more):
        """Exactly `count` records; the tool itself ends at its time-out when there are fewer."""
        words = ["--topic", topic, "--max-messages", count, "--timeout-ms", 30_000, *more]
        return self("console-consumer", *words).splitlines()


@pytest.fixture(scope="module", params=VERSIONS)
def jvm(request, tmp_path_factory):
    one = Jvm(request.param, tmp_path_factory.mktemp(f"java-{request.param}"))
    yield one
    one.close()


@pytest.fixture
def tools(jvm, cluster):
    return Tools(jvm, cluster)


def test_topics(tools, name):
    tools.create(name, 3, "--config", "retention.ms=86400000", "--config", "segment.bytes=1048576")
    told = tools("topics", "--create", "--topic", name, code=1)
    assert f"Topic '{name}' already exists." in told
    tools("topics", "--create", "--topic", name, "--if-not-exists")
    assert name in tools("topics", "--list").split()

    def spread():
        told = tools("topics", "--describe", "--topic", name)
        head, *rest = told.strip().splitlines()
        assert "PartitionCount: 3" in head and "ReplicationFactor: 3" in head
        assert "retention.ms=86400000" in head and "segment.bytes=1048576" in head
        leaders = {word for line in rest for word in re.findall(r"Leader: (\d)", line)}
        in_sync = [sorted(re.search(r"Isr: ([\d,]*)", line)[1].split(",")) for line in rest]
        return leaders == {"1", "2", "3"} and in_sync == [["1", "2", "3"]] * 3

    wait_until(spread)
    tools("topics", "--alter", "--topic", name, "--partitions", 5)
    told = tools("topics", "--alter", "--topic", name, "--partitions", 2, code=1)
    assert "currently has 5 partition(s); 2 would not be an increase." in told
    wait_until(lambda: "PartitionCount: 5" in tools("topics", "--describe", "--topic", name))
    wait_until(lambda: not tools("topics", "--describe", "--under-replicated-partitions").strip())
    assert tools("topics", "--describe", "--unavailable-partitions").strip() == ""
    tools("topics", "--delete", "--topic", name)
    wait_until(lambda: name not in tools("topics", "--list").split())
    told = tools("topics", "--delete", "--topic", name, code=1)
    assert "does not exist as expected" in told


def test_topics_with_bad_words(tools, name):
    told = tools("topics", "--create", "--topic", name, "--replication-factor", 4, code=1)
    assert "only 3 broker(s) are registered" in told
    told = tools("topics", "--create", "--topic", name, "--config", "retention.ms=x", code=1)
    assert "Invalid value x for configuration retention.ms" in told
    told = tools("topics", "--create", "--topic", name, "--config", "no.such=1", code=1)
    assert "no.such" in told
    told = tools("topics", "--create", "--topic", "a b", code=1)
    assert "ASCII alphanumerics, '.', '_' and '-'" in told


def test_console_producer_and_consumer(tools, name):
    tools.create(name)
    lines = [f"h{n}:{n}\tk{n}\tv{n}" for n in range(20)]
    tools.produce(name, "\n".join(lines) + "\n", "--property", "parse.key=true",
                  "--property", "parse.headers=true", "--compression-codec", "zstd")
    shown = ["key", "headers", "offset", "partition", "timestamp"]
    words = [w for s in shown for w in ("--property", f"print.{s}=true")]
    found = tools.consume(name, 20, "--from-beginning", "--group", name, *words)
    told = [re.fullmatch(r"CreateTime:\d+\tPartition:\d\tOffset:\d+\th(\d+):\d+\tk(\d+)\tv(\d+)",
                         line) for line in found]
    assert all(told), found
    assert sorted(int(m[3]) for m in told) == list(range(20))
    assert all(m[1] == m[2] == m[3] for m in told)
    # The group committed when it left.
    tools.produce(name, "next\n", "--producer-property", "acks=1")
    assert tools.consume(name, 1, "--group", name) == ["next"]
    told = tools.consume(name, 1, "--partition", 0, "--offset", "earliest")
    assert len(told) == 1


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_every_compression(tools, name, codec):
    tools.create(name, 1)
    lines = [f"{n} " + "x" * 100 for n in range(100)]
    tools.produce(name, "\n".join(lines) + "\n", "--compression-codec", codec)
    assert tools.consume(name, 100, "--from-beginning") == lines


def test_get_offsets(tools, name):
    tools.create(name, 2)
    tools.produce(name, "a\nb\nc\n", "--producer-property", "linger.ms=50")

    def offsets(time):
        told = tools("get-offsets", "--topic", name, "--time", time)
        return sum(int(line.split(":")[2] or 0) for line in told.split())

    assert offsets(-1) == offsets("latest") == 3
    assert offsets(-2) == offsets("earliest") == 0
    assert offsets("earliest-local") == 0
    tools("get-offsets", "--topic", name, "--time", "max-timestamp")
    assert offsets(1) == 0
    told = tools("get-offsets", "--topic-partitions", f"{name}:1")
    assert told.startswith(f"{name}:1:")


def test_consumer_groups(tools, name):
    tools.create(name, 2)
    tools.produce(name, "".join(f"k{n}\tv{n}\n" for n in range(10)),
                  "--property", "parse.key=true")
    tools.consume(name, 10, "--from-beginning", "--group", name)

    def groups(*words, **options):
        return tools("consumer-groups", *words, **options)

    def offsets():
        told = groups("--describe", "--group", name)
        rows = [line.split() for line in told.splitlines() if line.startswith(name)]
        # Group, topic, partition, current offset, log end offset, lag.
        return {int(row[2]): (int(row[3]), int(row[4]), int(row[5])) for row in rows}

    assert name in groups("--list").split()
    told = groups("--list", "--state")
    assert re.search(rf"{name}\s.*Empty", told), told
    assert name in groups("--list", "--state", "Empty").split()
    assert name not in groups("--list", "--state", "Stable").split()
    assert name in groups("--list", "--type", "classic").split()
    told = groups("--describe", "--group", name, "--state")
    assert re.search(rf"{name}\s.*Empty\s+0", told), told
    groups("--describe", "--group", name, "--members")
    found = offsets()
    assert sum(row[0] for row in found.values()) == 10 and all(r[2] == 0 for r in found.values())
    groups("--reset-offsets", "--group", name, "--topic", name, "--to-earliest", "--dry-run")
    assert offsets() == found
    groups("--reset-offsets", "--group", name, "--topic", name, "--to-earliest", "--execute")
    assert all(row[0] == 0 for row in offsets().values())
    groups("--reset-offsets", "--group", name, "--topic", f"{name}:0", "--shift-by", 1,
           "--execute")
    groups("--reset-offsets", "--group", name, "--topic", name, "--by-duration", "PT1H",
           "--execute")
    groups("--reset-offsets", "--group", name, "--topic", name, "--to-latest", "--execute")
    assert offsets() == found
    told = groups("--delete-offsets", "--group", name, "--topic", f"{name}:0")
    assert "Successful" in told
    assert list(offsets()) == [1]
    groups("--delete", "--group", name)
    assert name not in groups("--list").split()
    told = groups("--describe", "--group", name, code=None)
    assert "does not exist" in told or "not found" in told


def test_configs(tools, name):
    tools.create(name)
    topic = ["--entity-type", "topics", "--entity-name", name]
    changed = "retention.ms=1234567,cleanup.policy=[delete],max.message.bytes=2000000"
    tools("configs", *topic, "--alter", "--add-config", changed)
    told = tools("configs", *topic, "--describe")
    assert "retention.ms=1234567" in told and "max.message.bytes=2000000" in told
    assert "DYNAMIC_TOPIC_CONFIG:retention.ms=1234567" in told
    told = tools("configs", *topic, "--describe", "--all")
    assert "min.insync.replicas" in told and "segment.bytes=1073741824" in told
    tools("configs", *topic, "--alter", "--delete-config", "retention.ms")
    assert "retention.ms=1234567" not in tools("configs", *topic, "--describe")
    told = tools("configs", *topic, "--alter", "--add-config", "retention.ms=soon", code=1)
    assert "soon" in told
    told = tools("configs", "--entity-type", "brokers", "--entity-name", 1, "--describe", "--all")
    assert "num.partitions=" in told and "message.max.bytes=" in told


def test_delete_records(tools, name):
    tools.create(name, 1)
    tools.produce(name, "".join(f"{n}\n" for n in range(10)))
    path = tools.jvm.dir / f"{name}.json"
    wanted = [{"topic": name, "partition": 0, "offset": 4}]
    path.write_text(json.dumps({"partitions": wanted, "version": 1}))
    told = tools("delete-records", "--offset-json-file", path)
    assert "low_watermark: 4" in told
    assert tools.consume(name, 6, "--from-beginning") == [str(n) for n in range(4, 10)]


def test_log_dirs(tools, name):
    tools.create(name, 1)
    tools.produce(name, "abc\n")
    told = tools("log-dirs", "--describe", "--topic-list", name)
    line = next(line for line in told.splitlines() if line.startswith("{"))
    brokers = json.loads(line)["brokers"]
    assert sorted(b["broker"] for b in brokers) == [1, 2, 3]
    for broker in brokers:
        (part,) = broker["logDirs"][0]["partitions"]
        assert part["partition"] == f"{name}-0" and part["size"] > 0


def test_cluster_and_api_versions(tools):
    told = tools.bare("cluster", "cluster-id", "--bootstrap-server", tools.servers)
    assert re.search(r"Cluster ID: \S{22}\n", told), told
    told = tools("broker-api-versions")
    assert told.count("(id: ") == 3
    assert "Produce(0): 0 to" in told and "Fetch(1): 4 to" in told


def test_verifiable_producer_and_consumer(tools, name):
    tools.create(name)
    told = tools.alone("verifiable-producer", "--topic", name, "--max-messages", 1000,
                       "--acks", -1)
    events = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    sent = {(e["partition"], e["offset"]) for e in events if e["name"] == "producer_send_success"}
    assert len(sent) == 1000
    told = tools.alone("verifiable-consumer", "--topic", name, "--group-id", name,
                       "--max-messages", 1000, "--verbose", "--reset-policy", "earliest")
    events = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    read = [(e["partition"], e["offset"]) for e in events if e["name"] == "record_data"]
    assert len(read) == 1000 and set(read) == sent
    commits = [e for e in events if e["name"] == "offsets_committed"]
    assert commits and all(e["success"] for e in commits)


def test_client_compatibility(tools, name):
    """Kafka's own program that says what a client may expect of a broker."""
    tools.create(name, 1)
    # It makes and deletes a topic of this name, and may have been ended in between.
    tools("topics", "--delete", "--topic", "newtopic", "--if-exists")
    tools.jvm.run(
        TOOLS + "ClientCompatibilityTest", "--bootstrap-server", tools.servers, "--topic", name,
        "--num-cluster-nodes", 3, "--offsets-for-times-supported", "true",
        "--cluster-id-supported", "true", "--expect-record-too-large-exception", "false",
        "--create-topics-supported", "true", "--describe-acls-supported", "true",
        "--describe-configs-supported", "true", "--idempotent-producer-supported", "true")


@pytest.mark.parametrize("assignor, static", [
    ("RangeAssignor", "false"), ("RangeAssignor", "true"),
    ("CooperativeStickyAssignor", "false"), ("CooperativeStickyAssignor", "true"),
])
def test_members_in_threads(tools, name, assignor, static):
    """Rebalancing of Java consumers; see java/Groups.java."""
    tools.create(name, 8)
    assignor = f"org.apache.kafka.clients.consumer.{assignor}"
    told = tools.jvm.run("Groups", tools.servers, name, assignor, 4, 8, static, deadline=120)
    assert told.strip().endswith("shared")


def test_static_members_that_an_administrator_removes(tools, name):
    """By their group.instance.id; see java/StaticMembers.java."""
    tools.create(name, 6)
    told = tools.jvm.run("StaticMembers", tools.servers, name, deadline=120)
    assert told.strip().endswith("removed")


def test_performance_tools(tools, name, figure):
    tools.create(name)
    told = tools.bare("producer-perf-test", "--topic", name, "--num-records", 20_000,
                      "--record-size", 1000, "--throughput", -1, "--producer-props",
                      f"bootstrap.servers={tools.servers}", "acks=all", "linger.ms=5",
                      "batch.size=131072")
    assert told.strip().splitlines()[-1].startswith("20000 records sent"), told
    figure(f"Java {tools.jvm.version} producer: {told.strip().splitlines()[-1]}")
    told = tools("consumer-perf-test", "--topic", name, "--messages", 20_000, "--timeout", 30_000)
    fields = told.strip().splitlines()[-1].split(", ")
    assert int(fields[4]) >= 20_000, told

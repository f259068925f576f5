"""One run: a cluster, clients, faults, healing, last readings, verdict."""

import collections
import json
import random
import shutil
import socket
import struct
import time

from confluent_kafka import (
    OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic

from support.wait import wait_until
from torture import workload
from torture.checks import SHOWN, check_all
from torture.clients.base import COMMON, polled, record
from torture.clients.reading import ISOLATION
from torture.cluster import TorturedCluster
from torture.faults import NEED_DISKS, Faults
from torture.history import History, Recorder, now, summary

ADD_PARTITIONS_TO_TXN = 24
READY_SECONDS = 60
FLUSH_SECONDS = 150
# A copier commits a transaction for what little it polls: on a busy machine it needs its time.
DRAIN_SECONDS = 180
FINAL_SECONDS = 90


def served_keys(address):
    """API keys that a node lists (ApiVersions 0)."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=5) as link:
        request = struct.pack(">hhih", 18, 0, 1, -1)
        link.sendall(struct.pack(">i", len(request)) + request)
        with link.makefile("rb") as answer:
            (length,) = struct.unpack(">i", answer.read(4))
            body = answer.read(length)
    _, _, count = struct.unpack_from(">ihi", body)
    return {struct.unpack_from(">hhh", body, 10 + 6 * n)[0] for n in range(count)}


class Run:
    """Everything of one seed, below `directory`."""

    def __init__(self, directory, seed, options, say):
        self.directory, self.seed, self.options, self.say = directory, seed, options, say
        (directory / "history").mkdir(parents=True)
        self.recorder = Recorder(directory / "history" / "run.jsonl")
        self.transactions = False

    def execute(self):
        """Runs to the end; returns the anomalies."""
        # Not every run: a file in a file costs time that other faults would use.
        small = self.options.disks and random.Random(f"disks {self.seed}").random() < 0.4
        if self.options.faults:
            small = bool(NEED_DISKS & set(self.options.faults))
        cluster = TorturedCluster(self.directory, self.say, small, self.options.namespaces)
        clients = None
        try:
            self.create_topics(cluster)
            clients = workload.Clients(self.directory, cluster.kafka, self.seed,
                                       self.transactions)
            faults = Faults(cluster, clients.members, self.recorder, self.seed, self.say)
            if self.options.faults:
                faults.follow(self.options.faults, self.options.seconds)
            else:
                faults.run(self.options.seconds)
            self.settle(cluster, clients)
            self.recorder.close()
        finally:
            if clients is not None:
                clients.close()
            cluster.close()
        history = History.load(self.directory / "history")
        self.say(f"  {summary(history)}")
        return check_all(history)

    def broken(self, what):
        self.recorder.note("broken", what=what, t=now())

    def expect(self, condition, seconds, what):
        """Waits for a condition; that it does not come is an anomaly, not the run's end."""
        try:
            return wait_until(condition, seconds, what, pause=0.3)
        except AssertionError as e:
            self.broken(str(e))
            return None

    def conf(self, cluster, **more):
        more = {key.replace("_", "."): value for key, value in more.items()}
        return {**COMMON, "log_level": 0, "bootstrap.servers": ",".join(cluster.kafka), **more}

    def create_topics(self, cluster):
        if self.options.transactions != "off":
            self.transactions = self.takes_transactions(cluster)
        admin = AdminClient(self.conf(cluster))
        wanted = workload.topics(self.transactions)
        if not self.create(admin, wanted):
            self.say("  no compaction: the nodes do not take cleanup.policy=compact")
            name = "compact"
            assert self.create(admin, {name: (wanted[name][0], {})})

    @staticmethod
    def create(admin, topics):
        """Creates topics; False when a setting was refused."""
        new = [NewTopic(name, count, 3, config=config)
               for name, (count, config) in topics.items()]
        refused = False
        for future in admin.create_topics(new, operation_timeout=20, request_timeout=60).values():
            try:
                future.result()
            except KafkaException as e:
                if e.args[0].code() != KafkaError.INVALID_CONFIG:
                    raise
                refused = True
        return not refused

    def takes_transactions(self, cluster):
        if ADD_PARTITIONS_TO_TXN in served_keys(cluster.kafka[0]):
            return True
        assert self.options.transactions != "on", "the nodes do not take transactions"
        self.say("  no transactions: the nodes do not take them")
        return False

    def settle(self, cluster, clients):
        """After healing: everyone becomes ready, ends, and the end is read."""
        self.expect(lambda: all(n.ready() for n in cluster.nodes), READY_SECONDS,
                    "readiness of all nodes after healing")
        for process in clients.members:
            process.mend(at_once=True)
        for process in clients.writing:
            process.ask_to_end()
        deadline = time.monotonic() + FLUSH_SECONDS
        for process in clients.writing:
            process.wait(self.recorder, deadline)
        self.expect(lambda: self.drained(cluster, clients), DRAIN_SECONDS,
                    "groups have committed all that is in their topics")
        for process in [*clients.members, *clients.reading]:
            process.ask_to_end()
        deadline = time.monotonic() + FLUSH_SECONDS
        for process in [*clients.members, *clients.reading]:
            process.wait(self.recorder, deadline)
        try:
            for topic, (count, _) in workload.topics(self.transactions).items():
                for iso in ("ru", "rc"):
                    self.read_all(cluster, topic, count, iso)
        except (AssertionError, KafkaException) as e:
            # Nobody serves a partition any more: what was read is judged all the same.
            self.broken(f"the last reading: {e}")
        self.expect(lambda: self.equal(cluster), READY_SECONDS, "equal digests on all nodes")
        for node in cluster.nodes:
            if not node.runs():
                self.broken(f"node {node.number} is dead at the end:\n{node.log_tail(12)}")

    def equal(self, cluster):
        first, *others = cluster.digests()
        differing = sorted({g for o in others for g in first if o.get(g) != first[g]})
        assert not differing, f"{differing} differ: {[first, *others]}"
        return bool(first)

    def drained(self, cluster, clients):
        """Every group has committed up to the end; notes what it found when so."""
        for group, topic in clients.groups.items():
            consumer = Consumer(self.conf(cluster, group_id=group,
                                          isolation_level="read_committed"))
            try:
                parts = [TopicPartition(topic, p) for p in
                         range(workload.TOPICS[topic][0])]
                begun = now()
                found = consumer.committed(parts, timeout=10)
                ended = now()
                for place in found:
                    _, high = consumer.get_watermark_offsets(place, timeout=10)
                    assert place.offset >= high, (
                        f"{group} is at {place.offset} of {high} in {topic}-{place.partition}")
            finally:
                consumer.close()
            self.recorder.note("committed", c="last look", group=group, t0=begun, t1=ended,
                               copies=group == workload.COPYING_GROUP,
                               offsets=[[p.topic, p.partition, p.offset] for p in found])
        return True

    def read_all(self, cluster, topic, count, iso):
        """Reads a topic from start to end, as the last word on what it holds."""
        consumer = Consumer(self.conf(
            cluster, group_id="last-reading", isolation_level=ISOLATION[iso],
            enable_auto_commit=False, auto_offset_reset="error", enable_partition_eof=True))
        places = {p: TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(count)}
        try:
            bounds = self.bounds(cluster, places.values())
            consumer.assign(list(places.values()))
            recs, ends = self.read_to_end(consumer, bounds, iso)
            # Retention goes on: what it took meanwhile was not there to be read.
            lows = {part: low for part, (low, _) in self.bounds(cluster, places.values()).items()}
            for part, (_, high) in bounds.items():
                low = lows[part]
                self.recorder.note("final", topic=topic, part=part, iso=iso, low=low, high=high,
                                   end=ends.get(part, -1), recs=recs[part], t=now())
                if ends.get(part, -1) < high and iso == "ru":
                    self.broken(f"{topic}-{part} cannot be read to its end: {high}, "
                                f"only {ends.get(part)}")
        finally:
            consumer.close()

    def bounds(self, cluster, places):
        """Log start and high watermark of partitions; read_committed would tell the LSO."""
        consumer = Consumer(self.conf(cluster, group_id="last-reading",
                                      isolation_level=ISOLATION["ru"]))
        try:
            return {place.partition: wait_until(
                lambda: consumer.get_watermark_offsets(place, timeout=5), 30, f"bounds of {place}")
                for place in places}
        finally:
            consumer.close()

    def read_to_end(self, consumer, bounds, iso):
        recs, ends = collections.defaultdict(list), {}
        deadline = time.monotonic() + FINAL_SECONDS
        while time.monotonic() < deadline:
            if all(ends.get(p, -1) >= high for p, (_, high) in bounds.items()):
                break
            for message in polled(consumer, 1000, 0.5):
                error, part = message.error(), message.partition()
                if error is None:
                    recs[part].append(record(message))
                elif error.code() == KafkaError._PARTITION_EOF:
                    ends[part] = max(ends.get(part, -1), message.offset())
                elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                    self.broken(f"the last reading of {message.topic()}-{part} ({iso}): "
                                f"{error.str()} at {message.offset()}")
        return recs, ends


def tell(anomalies, say):
    """Tells what was found, a few of each kind."""
    by_name = collections.defaultdict(list)
    for anomaly in anomalies:
        by_name[anomaly.name].append(anomaly)
    for name, of in sorted(by_name.items()):
        say(f"  ANOMALY {name}: {len(of)}")
        for anomaly in of[:SHOWN]:
            say(f"    {anomaly.text}")


def report(run, anomalies, say):
    """Tells what was found, and where the rest lies."""
    tell(anomalies, say)
    found = [{"name": a.name, "text": a.text} for a in anomalies]
    (run.directory / "anomalies.json").write_text(json.dumps(found, indent=1))
    say(f"  seed {run.seed}; nodes, logs and history are kept in {run.directory}")


def one(directory, seed, options, say):
    """Runs one seed; returns the names of its anomalies. Keeps the directory when there are."""
    begun = time.monotonic()
    say(f"seed {seed}: {options.seconds} s")
    run = Run(directory, seed, options, say)
    anomalies = run.execute()
    if anomalies:
        report(run, anomalies, say)
        return {anomaly.name for anomaly in anomalies}
    if not options.keep:
        shutil.rmtree(directory)
    say(f"seed {seed}: no anomalies; {time.monotonic() - begun:.0f} s in all")
    return set()

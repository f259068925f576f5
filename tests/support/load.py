"""Load that goes on while nodes die: files through a pipeline, a Kafka producer, a group."""

import random
import threading
import time

import requests
from confluent_kafka import Consumer, Producer

from support.acks import Acks
from support.pipelines import write_files
from support.reading import count, records
from support.wait import wait_until


class Threaded:
    """A loop on its own thread that ends with `stop`, and whose error is raised there."""

    def __init__(self):
        self._end = threading.Event()
        self._error = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self._thread.start()
        return self

    def _run(self):
        try:
            self.loop()
        except BaseException as e:  # noqa: BLE001 - raised again by stop()
            self._error = e

    def stop(self, deadline=150):
        self._end.set()
        self._thread.join(deadline)
        assert not self._thread.is_alive(), f"{type(self).__name__} does not end"
        if self._error is not None:
            raise self._error


class Producing(Threaded):
    """An idempotent producer with acks=all; remembers where each record was acknowledged."""

    def __init__(self, cluster, topic):
        super().__init__()
        self.topic = topic
        self.acked = Acks()
        self.acks = {}
        self.failed = []
        self._producer = Producer({
            "bootstrap.servers": ",".join(cluster.kafka),
            "log_level": 0,
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 5,
            "delivery.timeout.ms": 120_000,
            "retry.backoff.ms": 50,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 500,
            "socket.timeout.ms": 10_000,
        })

    def loop(self):
        number = 0
        while not self._end.is_set():
            value = b"%d %s" % (number, random.randbytes(64).hex().encode())
            self._producer.produce(self.topic, value, on_delivery=self._delivered)
            number += 1
            self._producer.poll(0.002)
        left = self._producer.flush(120)
        assert left == 0, f"{left} records without an answer"

    def _delivered(self, error, message):
        if error is not None:
            self.failed.append(error)
            return
        self.acked.note(message)
        self.acks.setdefault(message.partition(), []).append(time.monotonic())

    def longest_gap(self):
        """The longest time between two acknowledgements of one partition, in seconds."""
        return max(
            (later - earlier for times in self.acks.values()
             for earlier, later in zip(times, times[1:])),
            default=float("inf"),
        )


class Consuming(Threaded):
    """A member of a consumer group; remembers what it read."""

    def __init__(self, cluster, topic, group):
        super().__init__()
        self.read = {}
        self._consumer = Consumer({
            "bootstrap.servers": ",".join(cluster.kafka),
            "log_level": 0,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "auto.commit.interval.ms": 500,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 500,
            "session.timeout.ms": 10_000,
        })
        self._consumer.subscribe([topic])

    def loop(self):
        try:
            while not self._end.is_set():
                for message in self._consumer.consume(500, 0.5):
                    # librdkafka tells of lost brokers and goes on by itself.
                    if message.error() is None:
                        key = (message.partition(), message.offset())
                        before = self.read.setdefault(key, message.value())
                        assert before == message.value(), f"{key} changed"
        finally:
            self._consumer.close()


class Writing(Threaded):
    """Drops files into a directory until it is stopped, but waits while many have not landed."""

    def __init__(self, root, landed, per_step=10, pause=0.1, ahead=40):
        super().__init__()
        self.root, self.landed = root, landed
        self.per_step, self.pause, self.ahead = per_step, pause, ahead
        self.files = {}

    def loop(self):
        while not self._end.wait(self.pause):
            written = len(self.files)
            try:
                behind = written - self.landed()
            except (requests.RequestException, ValueError):
                continue
            if behind < self.ahead:
                self.files.update(write_files(self.root, self.per_step, start=written))


class Load:
    """All of it at once."""

    def __init__(self, cluster, name, root):
        self.cluster, self.name = cluster, name
        self.writer = Writing(root, self.landed).start()
        topic = f"{name}-load"
        result = cluster.run("topic", "create", topic, "--partitions", "6")
        assert result.returncode == 0, result.stderr
        self.producer = Producing(cluster, topic).start()
        self.consumer = Consuming(cluster, topic, f"{name}-group").start()
        wait_until(lambda: len(self.producer.acks) == 6, 30, "records in every partition")

    def landed(self, node=None):
        """Files that can be searched: at a node, or at the first that is alive."""
        alive = (n.number for n in self.cluster.nodes if n.alive())
        return count(self.cluster, self.name, node or next(alive, 1))

    def wait_files(self, number, deadline=120):
        """Waits until so many files can be searched."""
        wait_until(lambda: self.landed() >= number, deadline, f"{number} searchable files",
                   pause=0.2)

    def finish_files(self, number, deadline=240):
        """Goes on to so many files at least, and waits until all can be searched."""
        self.writer.ahead, self.writer.per_step = number, 25
        wait_until(lambda: len(self.writer.files) >= number, deadline, f"{number} files")
        self.writer.stop()
        self.wait_files(len(self.files), deadline)

    @property
    def files(self):
        """Path below the source to content."""
        return self.writer.files

    def wait_acks(self, more=500, deadline=20):
        """Waits for fresh acknowledgements in every partition."""
        now = time.monotonic()
        wait_until(lambda: all(t[-1] > now for t in self.producer.acks.values()), deadline,
                   "acknowledgements in every partition")
        goal = len(self.producer.acked) + more
        wait_until(lambda: len(self.producer.acked) >= goal, now + deadline - time.monotonic(),
                   "acknowledgements")

    def wait_going_on(self, node, deadline):
        """Right after a death: within the deadline every partition acknowledges, the group reads
        what is sent from now on, and files that are written from now on are found at a node."""
        end = time.monotonic() + deadline
        # Files of the step under way may have been written before.
        sent, written = set(self.producer.acked), len(self.files) + self.writer.per_step
        self.wait_acks(deadline=deadline)
        later = self.producer.acked.keys() - sent
        wait_until(lambda: later <= self.consumer.read.keys(), end - time.monotonic(),
                   "records sent after the death, at the group")
        wait_until(lambda: self.landed(node) > written, end - time.monotonic(),
                   "files written after the death, in search")

    def finish(self):
        """Stops the clients and checks every acknowledged record."""
        self.producer.stop()
        acked = self.producer.acked
        assert not self.producer.failed, self.producer.failed[:3]
        wait_until(lambda: acked.are_in(dict(self.consumer.read)), 60,
                   "the group has read every acknowledged record")
        self.consumer.stop()
        acked.check_same(records(self.cluster, self.producer.topic))

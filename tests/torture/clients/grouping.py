"""Members of consumer groups, and a client that looks at their commits."""

import collections
import functools
import struct
import traceback

from confluent_kafka import Consumer, KafkaException, TopicPartition

from torture.clients.base import Role, polled, record
from torture.clients.late import late_commit

METADATA_MARK = b"CGMDv2:"
# A member that reads nothing commits its positions again: an earlier commit, sent to a node that
# was cut off, may have come late and taken the place of the last one.
COMMIT_AGAIN_SECONDS = 5


def generation(consumer):
    """The member's generation, or None between generations (librdkafka's own encoding)."""
    try:
        data = consumer.consumer_group_metadata()
    except RuntimeError:
        return None  # It is about to leave: "Consumer group metadata not available".
    if data is None or not data.startswith(METADATA_MARK):
        return None
    (number,) = struct.unpack_from("<i", data, len(METADATA_MARK))
    return number if number >= 0 else None


def told(callback):
    """Tells what a callback raises: on its way through the client its text may get lost."""
    @functools.wraps(callback)
    def guarded(self, consumer, parts):
        try:
            callback(self, consumer, parts)
        except Exception:
            what = f"{self.name}, {callback.__name__}: {traceback.format_exc()}"
            self.note("broken", what=what, t=self.now())
    return guarded


class Member(Role):
    """Subscribes, reads, commits what it has read. The process may be stopped or killed."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.group, self.settings = self.spec["group"], self.spec["settings"]
        # KIP-848: an epoch is the member's, no generation of all.
        self.own_epoch = self.settings.get("group.protocol") == "consumer"
        self.held = set()
        self.commits = 0
        # What is read, and what of it is not known to be committed.
        self.read, self.next = {}, {}
        self.last_commit = 0.0
        # The generation, and the id in it, that this member was last in.
        self.past = (None, None)

    def run(self):
        consumer = Consumer(self.settings | self.conf(
            group_id=self.group, enable_auto_commit=False, auto_offset_reset="earliest",
            isolation_level="read_committed", fetch_wait_max_ms=200))
        consumer.subscribe([self.spec["topic"]], on_assign=self.on_assign,
                           on_revoke=self.on_revoke, on_lost=self.on_lost)
        try:
            while not self.stop.is_set():
                end = self.now() + 0.2 + 0.6 * self.random.random()
                while self.now() < end and not self.stop.is_set():
                    self.take(consumer)
                self.commit(consumer)
        finally:
            consumer.close()

    @told
    def on_assign(self, consumer, parts):
        parts = {(p.topic, p.partition) for p in parts}
        strategy = self.settings.get("partition.assignment.strategy")
        if self.own_epoch or strategy == "cooperative-sticky":
            self.held |= parts
        else:
            self.held = parts
        self.tell("assign", consumer)
        self.commit_late(consumer)
        self.past = (generation(consumer), consumer.memberid())

    def commit_late(self, consumer):
        """Commits the beginning once more in the name of a generation that is over. Only what was
        taken is told: it must not be."""
        past, member = self.past
        # librdkafka may be out of the group already when it tells of an assignment.
        if past is None or member is None or past >= (generation(consumer) or 0):
            return
        begun, offsets = self.now(), [[self.spec["topic"], 0, 0]]
        address = self.random.choice(self.bootstrap.split(","))
        if late_commit(address, self.group, past, member, offsets) == 0:
            self.commits += 1
            number = f"{self.name}/{self.commits}"
            self.note("commit", k=number, group=self.group, t=begun, offsets=offsets)
            self.note("commit-end", k=number, gen=past, ok=True, error=None, t=self.now())

    @told
    def on_revoke(self, consumer, parts):
        self.commit(consumer)
        self.drop(parts)
        self.tell("revoke", consumer)

    @told
    def on_lost(self, consumer, parts):
        self.drop(parts)
        self.tell("lost", consumer)

    def drop(self, parts):
        for part in parts:
            self.held.discard((part.topic, part.partition))
            self.read.pop((part.topic, part.partition), None)
            self.next.pop((part.topic, part.partition), None)

    def tell(self, kind, consumer):
        self.note(kind, group=self.group, gen=generation(consumer), member=consumer.memberid(),
                  own=self.own_epoch, parts=sorted(self.held), t=self.now())

    def take(self, consumer):
        begun = self.now()
        by_part = collections.defaultdict(list)
        for message in polled(consumer, 200, 0.2):
            # librdkafka tells of lost brokers and goes on by itself.
            if message.error() is None:
                by_part[(message.topic(), message.partition())].append(record(message))
        ended = self.now()
        for (topic, part), recs in by_part.items():
            self.note("poll", session=self.name, iso="rc", group=self.group, topic=topic,
                      part=part, t0=begun, t1=ended, recs=recs)
            # It may have been lost within this very call: its next owner commits it.
            if (topic, part) in self.held:
                self.read[(topic, part)] = self.next[(topic, part)] = recs[-1][0] + 1

    def commit(self, consumer):
        if not self.next and self.now() - self.last_commit > COMMIT_AGAIN_SECONDS:
            self.next = dict(self.read)
        offsets = [TopicPartition(t, p, off) for (t, p), off in self.next.items()]
        if not offsets:
            return
        self.last_commit = self.now()
        self.commits += 1
        number, before, ok, text = f"{self.name}/{self.commits}", generation(consumer), True, None
        # Told before it is done: a member that is killed may have committed.
        self.note("commit", k=number, group=self.group, t=self.now(),
                  offsets=[[p.topic, p.partition, p.offset] for p in offsets])
        try:
            done = consumer.commit(offsets=offsets, asynchronous=False)
            errors = [p.error for p in done if p.error is not None]
        except KafkaException as e:
            errors = [e.args[0]]
        if errors:
            # Not known to have failed: librdkafka repeats a commit without an answer, and tells
            # of the last attempt only.
            ok, text = None, errors[0].name()
        ended = self.now()
        same = before if before == generation(consumer) else None
        self.note("commit-end", k=number, gen=same, ok=ok, error=text, t=ended)
        if ok:
            self.next = {}


class Watching(Role):
    """Fetches the committed offsets of groups, without being a member."""

    def run(self):
        consumers = {g: Consumer(self.conf(group_id=g)) for g in self.spec["groups"]}
        try:
            while not self.stop.is_set():
                for group, consumer in consumers.items():
                    self.look(group, consumer)
                self.stop.pause(0.5)
        finally:
            for consumer in consumers.values():
                consumer.close()

    def look(self, group, consumer):
        parts = [TopicPartition(topic, part) for topic, count in self.spec["topics"].items()
                 for part in range(count)]
        begun = self.now()
        try:
            found = consumer.committed(parts, timeout=4)
        except KafkaException:
            # No answer in time; nothing was seen.
            return
        offsets = [[p.topic, p.partition, max(p.offset, -1)] for p in found if p.error is None]
        self.note("committed", group=group, offsets=offsets, t0=begun, t1=self.now())

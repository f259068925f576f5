"""Readers that choose their partitions, and a client that asks for bounds."""

import collections

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from torture.clients.base import Role, polled, record

ISOLATION = {"rc": "read_committed", "ru": "read_uncommitted"}


class Reading(Role):
    """Assigns itself all partitions of a topic again and again, from the start, from the end and
    from where it was.

    Always from an offset that it asked for itself: librdkafka (2.16) asks for "the end" once more,
    half a second later and under way, when the first answer came from a node that no longer
    leads.
    """

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.iso = self.spec["iso"]
        self.sessions = 0
        self.seen = collections.defaultdict(int)

    def run(self):
        while not self.stop.is_set():
            consumer = self.make()
            try:
                for _ in range(4):
                    if not self.stop.is_set():
                        self.session(consumer)
            finally:
                consumer.close()

    def make(self):
        return Consumer(self.conf(
            group_id=f"{self.name}-unused", isolation_level=ISOLATION[self.iso],
            enable_auto_commit=False, auto_offset_reset="error", check_crcs=True,
            fetch_wait_max_ms=200, fetch_error_backoff_ms=50))

    def start(self, consumer, part):
        """Where a session begins."""
        choice = self.random.randrange(4)
        back = max(0, self.seen[part] - self.random.randrange(300))
        if choice > 1:
            return back
        try:
            place = TopicPartition(self.spec["topic"], part)
            return consumer.get_watermark_offsets(place, timeout=2)[choice]
        except KafkaException:
            return back

    def session(self, consumer):
        parts = range(self.spec["partitions"])
        starts = {part: self.start(consumer, part) for part in parts}
        self.assign(consumer, starts)
        end = self.now() + 3 + 9 * self.random.random()
        while self.now() < end and not self.stop.is_set():
            begun = self.now()
            self.take(consumer, polled(consumer, 500, 0.3), begun)
        consumer.unassign()

    def assign(self, consumer, starts):
        self.sessions += 1
        topic = self.spec["topic"]
        consumer.assign([TopicPartition(topic, part, off) for part, off in starts.items()])

    def take(self, consumer, messages, begun):
        by_part = collections.defaultdict(list)
        lost = []
        for message in messages:
            error = message.error()
            if error is None:
                by_part[message.partition()].append(record(message))
            elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                lost.append(message)
            elif error.code() == KafkaError._LOG_TRUNCATION:
                self.note("truncated", topic=message.topic(), part=message.partition(),
                          at=message.offset(), error=error.str(), t=self.now())
        ended = self.now()
        for part, recs in by_part.items():
            self.note("poll", session=f"{self.name}/{self.sessions}", iso=self.iso,
                      topic=self.spec["topic"], part=part, t0=begun, t1=ended, recs=recs)
            self.seen[part] = max(self.seen[part], recs[-1][0])
        for message in lost:
            self.out_of_range(consumer, message)

    def out_of_range(self, consumer, message):
        part = message.partition()
        place = TopicPartition(self.spec["topic"], part)
        try:
            low, high = consumer.get_watermark_offsets(place, timeout=10)
        except KafkaException:
            # Nothing can be said of the bounds; the next session looks again.
            return
        at = message.offset()
        if at >= 0:
            self.note("reset", topic=place.topic, part=part, at=at, low=low, high=high,
                      error=message.error().str(), t=self.now())
        starts = {p.partition: p.offset for p in consumer.position(consumer.assignment())}
        starts = {p: off if off >= 0 else self.seen[p] for p, off in starts.items()}
        self.assign(consumer, {**starts, part: low})


class Marking(Role):
    """Asks for log start and high watermark of all partitions of some topics."""

    def run(self):
        consumer = Consumer(self.conf(group_id=f"{self.name}-unused"))
        try:
            while not self.stop.is_set():
                for topic, count in self.spec["topics"].items():
                    for part in range(count):
                        self.ask(consumer, topic, part)
                self.stop.pause(0.4)
        finally:
            consumer.close()

    def ask(self, consumer, topic, part):
        place = TopicPartition(topic, part)
        begun = self.now()
        try:
            low, high = consumer.get_watermark_offsets(place, timeout=3)
            if 0 < low == high:
                # Also what librdkafka makes of it when the one of its two requests was refused, as
                # by a leader that is not yet sure of its lead, and the other was not.
                begun = self.now()
                low, high = consumer.get_watermark_offsets(place, timeout=3)
        except KafkaException:
            # No answer in time; nothing was seen.
            return
        self.note("marks", topic=topic, part=part, low=low, high=high, t0=begun, t1=self.now())

"""Clients that change topics: delete and create one in a loop, trim the log of another."""

from confluent_kafka import (
    OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic

from torture.clients.base import ID_HEADER, Role, filled, polled, record


# How long an old life may be read from a node that is cut off and does not know it.
STALE_SECONDS = 20


class Remaking(Role):
    """Creates a topic, fills it, reads it, deletes it, and begins again. One at a time: what an
    earlier life left over would be seen."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.topic, self.count = self.spec["topic"], self.spec["partitions"]
        self.admin = AdminClient(self.conf())

    def run(self):
        life = 0
        while not self.stop.is_set():
            life += 1
            if self.create() and self.fill_and_read(f"{self.topic}#{life}"):
                self.delete()

    def until(self, attempt):
        """Repeats until the cluster is as wanted, or the run ends."""
        while not self.stop.is_set():
            try:
                if attempt():
                    return True
            except KafkaException:
                # Nodes are away; the next attempt finds out what happened.
                pass
            self.stop.pause(0.2)
        return False

    def create(self):
        def attempt():
            topic = NewTopic(self.topic, self.count, 3)
            future = self.admin.create_topics([topic], operation_timeout=5, request_timeout=8)
            try:
                future[self.topic].result()
            except KafkaException as e:
                return e.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS
            return True
        return self.until(attempt)

    def delete(self):
        def attempt():
            future = self.admin.delete_topics([self.topic], operation_timeout=5,
                                              request_timeout=8)
            try:
                future[self.topic].result()
            except KafkaException as e:
                return e.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART
            return True
        return self.until(attempt)

    def fill_and_read(self, label):
        producer = Producer(self.conf(acks="all", enable_idempotence=True,
                                      delivery_timeout_ms=20_000))
        total = self.random.randint(20, 200)
        for number in range(total):
            self.send(producer, label, number)
            producer.poll(0)
        # Nothing of this life may be on its way when the next begins.
        producer.flush()
        consumer = Consumer(self.conf(group_id=f"{self.name}-unused", enable_auto_commit=False,
                                      auto_offset_reset="error"))
        try:
            patience = self.now() + STALE_SECONDS
            return self.until(lambda: self.read(consumer, label, patience))
        finally:
            consumer.close()

    def send(self, producer, label, number):
        value_id = f"{label}:{number}"
        part = self.random.randrange(self.count)
        self.note("send", v=value_id, mode="idempotent", topic=label, part=part, n=number,
                  t=self.now())

        def ended(error, message):
            if error is None:
                self.note("ack", v=value_id, off=message.offset(), t=self.now())
            else:
                self.note("fail", v=value_id, error=error.name(), definite=False, t=self.now())

        producer.produce(self.topic, filled(value_id, 100), partition=part,
                         headers={ID_HEADER: value_id}, on_delivery=ended)

    def read(self, consumer, label, patience):
        """Reads every partition from start to end; False when that takes too long."""
        for part in range(self.count):
            place = TopicPartition(self.topic, part, OFFSET_BEGINNING)
            low, high = consumer.get_watermark_offsets(place, timeout=5)
            recs, end = [], self.now() + 10
            consumer.assign([place])
            while not self.stop.is_set() and (recs[-1][0] + 1 if recs else low) < high:
                if self.now() > end:
                    return False
                recs += [record(m) for m in polled(consumer, 500, 0.2) if m.error() is None]
            if self.now() < patience and any(not r[1].startswith(f"{label}:") for r in recs):
                # As with Kafka, a leader that was deposed unheard serves what it had.
                self.stop.pause(0.5)
                return False
            self.note("first-offset", topic=label, part=part, low=low, t=self.now())
            if self.stop.is_set():
                return False
            self.recorder.note("final", topic=label, part=part, iso="ru", low=low, high=high,
                               end=high, recs=recs, t=self.now())
        return True


class Trimming(Role):
    """Deletes records below random offsets of a topic."""

    def run(self):
        admin = AdminClient(self.conf())
        consumer = Consumer(self.conf(group_id=f"{self.name}-unused"))
        try:
            while not self.stop.is_set():
                self.stop.pause(1 + 3 * self.random.random())
                self.trim(admin, consumer)
        finally:
            consumer.close()

    def trim(self, admin, consumer):
        place = TopicPartition(self.spec["topic"],
                               self.random.randrange(self.spec["partitions"]))
        try:
            low, high = consumer.get_watermark_offsets(place, timeout=3)
            place.offset = self.random.randint(low, low + (high - low) // 2)
            begun = self.now()
            future = admin.delete_records([place], request_timeout=5)
            low = next(iter(future.values())).result().low_watermark
        except KafkaException:
            # Whether it happened does not matter: the log start only has to rise.
            return
        if low >= 0:
            self.note("trimmed", topic=place.topic, part=place.partition, asked=place.offset,
                      low=low, t0=begun, t1=self.now())

"""Transactional producers: plain ones, zombies, and consume-transform-produce."""

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from torture.clients.base import ID_HEADER, Role, filled, polled

TIMEOUT_MS = 6000
# How long the end of a transaction is asked for, again and again.
END_SECONDS = 60


class Transactional(Role):
    """Shared parts: instances of a transactional id, and ending a transaction for certain."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.instance = 0
        self.count = 0
        self.number = 0

    def take_over(self):
        """A new instance of the transactional id, or None when the run ends first."""
        self.instance += 1
        instance = self.instance
        producer = Producer(self.conf(
            transactional_id=self.name, transaction_timeout_ms=TIMEOUT_MS, linger_ms=5,
            delivery_timeout_ms=TIMEOUT_MS))
        while not self.stop.is_set():
            begun = self.now()
            try:
                producer.init_transactions(5)
            except KafkaException as e:
                if e.args[0].retriable():
                    continue
                self.stop.pause(0.2)
                return self.take_over() if not self.stop.is_set() else None
            self.note("txn-init", inst=instance, t0=begun, t1=self.now(), t=self.now())
            return producer
        return None

    def begin(self, producer):
        producer.begin_transaction()
        self.count += 1
        txn = f"{self.name}.{self.instance}/{self.count}"
        self.note("txn-begin", x=txn, inst=self.instance, t=self.now())
        return txn

    def send(self, producer, txn, topic, part, source=None):
        self.number += 1
        value_id = f"{self.name}:{self.number}"
        fields = {} if source is None else {"src": source}
        self.note("send", v=value_id, mode="txn", topic=topic, part=part, n=self.number, x=txn,
                  t=self.now(), **fields)

        def ended(error, message):
            if error is None:
                self.note("ack", v=value_id, off=message.offset(), t=self.now())
            else:
                self.note("fail", v=value_id, error=error.name(), definite=False, t=self.now())

        producer.produce(topic, filled(value_id, self.random.randint(20, 400)), partition=part,
                         headers={ID_HEADER: value_id}, on_delivery=ended)
        producer.poll(0)

    def end(self, producer, txn, want):
        """Commits or aborts; returns "committed", "aborted", or "unknown" when the instance is
        of no use any more."""
        outcome, deadline = None, self.now() + END_SECONDS
        while outcome is None:
            self.note("txn-ask", x=txn, want=want, t=self.now())
            try:
                if want == "commit":
                    producer.commit_transaction(10)
                    outcome = "committed"
                else:
                    producer.abort_transaction(10)
                    outcome = "aborted"
            except KafkaException as e:
                error = e.args[0]
                if error.txn_requires_abort():
                    want = "abort"
                elif not error.retriable() or self.now() > deadline:
                    outcome = "unknown"
        self.note("txn-end", x=txn, outcome=outcome, t=self.now())
        return outcome


class Committing(Transactional):
    """Writes to several partitions of some topics, then commits or aborts; sometimes a second
    instance takes over in the middle, or the transaction times out."""

    def run(self):
        producer = self.take_over()
        while producer is not None and not self.stop.is_set():
            producer = self.one(producer)

    def one(self, producer):
        try:
            txn = self.begin(producer)
            for _ in range(self.random.randint(1, 12)):
                topic, count = self.random.choice(sorted(self.spec["topics"].items()))
                self.send(producer, txn, topic, self.random.randrange(count))
        except KafkaException:
            return self.take_over()
        fate = self.random.randrange(20)
        if fate == 0:
            return self.zombie(producer, txn)
        if fate == 1:
            self.stop.pause(TIMEOUT_MS / 1000 + 3)
        self.stop.pause(0.2 * self.random.random())
        want = "abort" if fate in (2, 3, 4, 5) else "commit"
        return producer if self.end(producer, txn, want) != "unknown" else self.take_over()

    def zombie(self, producer, txn):
        """Another instance takes over; the old one tries to commit all the same."""
        following = self.take_over()
        self.end(producer, txn, "commit")
        return following


class Copying(Transactional):
    """Consumes a topic and writes one output for each input, with offsets in the transaction."""

    def run(self):
        consumer = Consumer(self.conf(
            group_id=self.spec["group"], enable_auto_commit=False, auto_offset_reset="earliest",
            isolation_level="read_committed", session_timeout_ms=6000,
            heartbeat_interval_ms=500))
        consumer.subscribe([self.spec["source"]])
        producer = self.take_over()
        try:
            while producer is not None and not self.stop.is_set():
                # Of before the poll: when the group rebalances in it, what it read is not this
                # member's any more, and the coordinator must refuse it.
                metadata = consumer.consumer_group_metadata()
                messages = [m for m in polled(consumer, 50, 0.3) if m.error() is None]
                if messages:
                    producer = self.copy(consumer, producer, messages, metadata)
        finally:
            consumer.close()

    def copy(self, consumer, producer, messages, metadata):
        first, following = {}, {}
        for message in messages:
            place = (message.topic(), message.partition())
            first.setdefault(place, message.offset())
            following[place] = message.offset() + 1
        txn = None
        try:
            txn = self.begin(producer)
            for message in messages:
                self.send(producer, txn, self.spec["target"], message.partition(),
                          source=[message.topic(), message.partition(), message.offset()])
            offsets = [TopicPartition(t, p, off) for (t, p), off in following.items()]
            producer.send_offsets_to_transaction(offsets, metadata, 10)
            outcome = self.end(producer, txn, "commit")
        except KafkaException as e:
            outcome = self.give_up(producer, txn, e.args[0])
        if outcome == "unknown":
            # The new instance ends what the old one left open, whichever way it goes.
            producer = self.take_over()
        if outcome != "committed" and producer is not None:
            self.rewind(consumer, first)
        return producer

    def give_up(self, producer, txn, error):
        if txn is None or error.fatal():
            return "unknown"
        return self.end(producer, txn, "abort")

    def rewind(self, consumer, first):
        """To the committed offsets: what was read was not written."""
        parts = [TopicPartition(t, p) for t, p in first]
        held = {(p.topic, p.partition) for p in consumer.assignment()}
        while not self.stop.is_set():
            try:
                for place in consumer.committed(parts, timeout=5):
                    key = (place.topic, place.partition)
                    if key in held:
                        off = place.offset if place.offset >= 0 else 0
                        consumer.seek(TopicPartition(*key, off))
                return
            except KafkaException:
                # The coordinator is away, or the partition was just taken away.
                held = {(p.topic, p.partition) for p in consumer.assignment()}
                self.stop.pause(0.2)

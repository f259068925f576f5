"""Producers."""

import time

from confluent_kafka import KafkaError, Producer
from kafka import KafkaProducer, errors

from torture.clients.base import ID_HEADER, Role, filled

# Errors after which a record was promised never to be there, however often it was tried.
NEVER = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError._PURGE_QUEUE, KafkaError.INVALID_RECORD}
# Errors after which a single attempt was promised never to be there.
NEVER_ONCE = (errors.NotLeaderForPartitionError, errors.NotEnoughReplicasError,
              errors.KafkaStorageError, errors.CorruptRecordError,
              errors.MessageSizeTooLargeError, errors.RecordListTooLargeError,
              errors.InvalidRecordError)
# Records without an answer, per producer.
MOST_WAITING = 400

MODES = {
    # Repeats, and does not mind doubles.
    "plain": {"enable.idempotence": False, "delivery.timeout.ms": 12_000,
              "max.in.flight": 5},
    # Gives up now and then, and goes on under a new epoch or id.
    "idempotent": {"enable.idempotence": True, "delivery.timeout.ms": 5_000,
                   "max.in.flight": 5},
    # Never gives up.
    "patient": {"enable.idempotence": True, "delivery.timeout.ms": 600_000,
                "max.in.flight": 5},
}


class Producing(Role):
    """Sends records to the partitions of a topic, at `rate` a second."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.mode = self.spec["mode"]
        self.number = 0
        self.life = 0
        self.waiting = 0
        self.fatal = False

    def run(self):
        while not self.stop.is_set():
            self.life += 1
            producer = self.make()
            ends = time.monotonic() + self.spec.get("life", float("inf"))
            while not self.stop.is_set() and not self.fatal and time.monotonic() < ends:
                self.some(producer)
            self.fatal = False
            left = producer.flush(60)
            if left and self.stop.is_set():
                self.recorder.note("broken", what=f"{self.name} has {left} records unanswered",
                                   t=self.now())

    def make(self):
        def on_error(error):
            if error.fatal():
                self.fatal = True
                self.note("fatal", error=str(error), t=self.now())
        # Sizes are judged by the broker. What waits while nodes are away goes in batches that the
        # topic with the smallest max.message.bytes takes.
        own = {"error_cb": on_error, "linger.ms": self.spec.get("linger_ms", 5),
               "message.max.bytes": 4_000_000, "batch.size": 90_000,
               # Nodes say that they do not know before the client stops listening.
               "request.timeout.ms": 2_500}
        return Producer(self.conf(acks="all") | own | MODES[self.mode])

    def some(self, producer):
        """Sends what is due within a short time."""
        tick = 0.02 + 0.08 * self.random.random()
        for _ in range(max(1, round(self.spec["rate"] * tick))):
            if self.waiting < MOST_WAITING:
                self.send(producer)
        producer.poll(tick)
        self.stop.pause(0 if self.waiting >= MOST_WAITING else tick / 4)

    def send(self, producer):
        self.number += 1
        value_id = f"{self.name}.{self.life}:{self.number}"
        topic, part = self.spec["topic"], self.random.randrange(self.spec["partitions"])
        low, high = self.spec.get("size", (20, 800))
        size = self.random.randint(low, high)
        fields, key, value = {}, None, filled(value_id, size)
        if "keys" in self.spec:
            key = f"k{self.random.randrange(self.spec['keys'])}.{part}"
            fields["key"] = key
            if self.random.random() < 0.1:
                fields["tomb"], value = True, None
        self.recorder.note("send", c=f"{self.name}.{self.life}", v=value_id, mode=self.mode,
                           topic=topic, part=part, n=self.number, t=self.now(), **fields)
        self.waiting += 1
        producer.produce(topic, value, key, partition=part, headers={ID_HEADER: value_id},
                         on_delivery=lambda e, m: self.ended(value_id, e, m))

    def ended(self, value_id, error, message):
        self.waiting -= 1
        if error is None:
            self.note("ack", v=value_id, off=message.offset(), t=self.now())
            return
        self.note("fail", v=value_id, error=error.name(), definite=error.code() in NEVER,
                  t=self.now())


class ProducingOnce(Role):
    """Sends each record once, and never again, whatever happens to it.

    With kafka-python: librdkafka repeats what was in flight when a leader changes, with
    `retries=0` too.
    """

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.number = 0

    def run(self):
        producer = self.make()
        waiting = []
        while not self.stop.is_set():
            waiting = [future for future in waiting if not future.is_done]
            if producer is None:
                producer = self.make()
            elif len(waiting) < MOST_WAITING:
                sent = self.send(producer)
                waiting += [sent] if sent is not None else []
            self.stop.pause(1 / self.spec["rate"])
        if producer is not None:
            producer.close(timeout=30)

    def make(self):
        try:
            return KafkaProducer(
                bootstrap_servers=self.bootstrap.split(","), client_id=self.name, acks="all",
                enable_idempotence=False, retries=0, linger_ms=5, request_timeout_ms=5_000,
                delivery_timeout_ms=8_000, max_in_flight_requests_per_connection=1,
                max_request_size=4_000_000, metadata_max_age_ms=3_000, max_block_ms=2_000,
                reconnect_backoff_ms=50, reconnect_backoff_max_ms=500)
        except errors.KafkaError:
            # Nobody answered; tried again.
            return None

    def send(self, producer):
        self.number += 1
        value_id = f"{self.name}:{self.number}"
        topic, part = self.spec["topic"], self.random.randrange(self.spec["partitions"])
        size = self.random.randint(20, 800)
        if self.random.random() < 0.01:
            size = self.spec["max_bytes"] * 2
        self.note("send", v=value_id, mode="once", topic=topic, part=part, n=self.number,
                  t=self.now())
        try:
            future = producer.send(topic, filled(value_id, size), partition=part,
                                   headers=[(ID_HEADER, value_id.encode())])
        except errors.KafkaTimeoutError as e:
            # No metadata, no room: it was not taken.
            self.note("fail", v=value_id, error=str(e), definite=True, t=self.now())
            return None
        future.add_callback(lambda done: self.note("ack", v=value_id, off=done.offset,
                                                   t=self.now()))
        future.add_errback(lambda error: self.note(
            "fail", v=value_id, error=type(error).__name__,
            definite=isinstance(error, NEVER_ONCE), t=self.now()))
        return future

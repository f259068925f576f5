"""What all roles share."""

import os
import random
import threading

from torture.history import now

# Every record carries its id in this header; tombstones have no value to carry it.
ID_HEADER = "i"

# Cut off brokers answer nothing at all; more than their election takes.
REQUEST_SECONDS = 4

COMMON = {
    "log_level": 3,
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 500,
    "retry.backoff.ms": 50,
    "socket.timeout.ms": 1000 * REQUEST_SECONDS,
    "socket.connection.setup.timeout.ms": 1500,
    "topic.metadata.refresh.interval.ms": 3000,
    # When all brokers were down, librdkafka (2.16) gives up its handles of them; a transaction whose
    # group's coordinator it remembers by such a handle never ends.
    "metadata.recovery.strategy": "none",
    "allow.auto.create.topics": False,
}


class Stop(threading.Event):
    """Set when the process is asked to end."""

    def pause(self, seconds):
        self.wait(seconds)


class Role:
    """One client. `spec` is its part of the process's specification."""

    def __init__(self, recorder, stop, bootstrap, spec):
        self.recorder, self.stop, self.spec = recorder, stop, spec
        self.name = spec["name"]
        self.bootstrap = ",".join(bootstrap)
        self.random = random.Random(f"{spec['seed']} {self.name}")

    def run(self):
        raise NotImplementedError

    def note(self, kind, **fields):
        self.recorder.note(kind, c=self.name, **fields)

    def conf(self, **more):
        more = {key.replace("_", "."): value for key, value in more.items()}
        common = COMMON | self.debugging()
        return {**common, "bootstrap.servers": self.bootstrap, "client.id": self.name, **more}

    def debugging(self):
        """TORTURE_DEBUG="copier:eos,broker reader-log:fetch" logs more of clients so named."""
        for one in os.environ.get("TORTURE_DEBUG", "").split():
            prefix, contexts = one.split(":")
            if self.name.startswith(prefix):
                return {"debug": contexts, "log_level": 7}
        return {}

    def now(self):
        return now()


def polled(consumer, most, seconds):
    """Up to `most` messages: waits for the first, takes what is there.

    One by one: librdkafka's release notes tell of offsets that its batch call went over.
    """
    messages = []
    message = consumer.poll(seconds)
    while message is not None:
        messages.append(message)
        message = consumer.poll(0) if len(messages) < most else None
    return messages


def filled(value_id, size):
    """A value of about `size` bytes that tells its id and whether it is whole."""
    text = f"{value_id}|".encode()
    return (text * (1 + size // len(text)))[:max(size, len(text))]


def identify(message):
    """(id, damaged) of a record."""
    headers = dict(message.headers() or ())
    value_id = headers.get(ID_HEADER, b"?").decode(errors="replace")
    value = message.value()
    damaged = value is not None and value != filled(value_id, len(value))
    return value_id, damaged


def record(message):
    """A record as the history has it."""
    value_id, damaged = identify(message)
    return [message.offset(), value_id, message.leader_epoch(), int(damaged)]

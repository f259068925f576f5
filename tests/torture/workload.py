"""Which topics and clients a run has."""

from torture.processes import ClientProcess

# name: (partitions, settings)
TOPICS = {
    "log": (6, {"segment.bytes": "1048576", "max.message.bytes": "100000"}),
    "retain": (2, {"segment.bytes": "131072", "retention.bytes": "262144"}),
    "trim": (2, {"segment.bytes": "131072"}),
    "compact": (2, {"cleanup.policy": "compact", "segment.bytes": "131072", "segment.ms": "2000",
                    "min.cleanable.dirty.ratio": "0.01", "delete.retention.ms": "1000",
                    "max.compaction.lag.ms": "3000"}),
}
TXN_TOPICS = {
    "txn": (3, {"segment.bytes": "262144"}),
    "copied": (6, {}),
}
# Silence that removes a member, and how often members speak, in ms.
SESSION, HEARTBEAT = 6000, 500
CLASSIC = {"session.timeout.ms": SESSION, "heartbeat.interval.ms": HEARTBEAT}
# name: settings of its members
GROUPS = {
    "eager": CLASSIC | {"partition.assignment.strategy": "range"},
    "cooperative": CLASSIC | {"partition.assignment.strategy": "cooperative-sticky"},
    # Its coordinator knows the two times.
    "next": {"group.protocol": "consumer"},
}
MEMBERS = 3
COPIERS = 2
COPYING_GROUP = "copiers"


def topics(transactions):
    return TOPICS | TXN_TOPICS if transactions else TOPICS


def producing(name, mode, topic, rate, **more):
    return {"role": "producing", "name": name, "mode": mode, "topic": topic, "rate": rate,
            "partitions": (TOPICS | TXN_TOPICS)[topic][0], **more}


def producers(transactions):
    roles = [
        producing("plain", "plain", "log", 50),
        {**producing("once", "once", "log", 40, max_bytes=100_000), "role": "producing-once"},
        producing("idempotent", "idempotent", "log", 80, linger_ms=0),
        producing("patient", "patient", "log", 80),
        # Begins anew in every partition, several batches at once, as often as it can.
        producing("fresh", "patient", "log", 60, linger_ms=0, life=1.5),
        producing("retained", "patient", "retain", 60, size=[500, 4000]),
        producing("trimmed", "patient", "trim", 60),
        producing("keyed", "patient", "compact", 80, keys=40),
    ]
    return roles + ([producing("among", "patient", "txn", 10)] if transactions else [])


def readers(transactions):
    roles = [{"role": "reading", "name": f"reader-{topic}-{iso}", "topic": topic,
              "partitions": count, "iso": iso}
             for topic, (count, _) in topics(transactions).items() for iso in ("ru", "rc")]
    counts = {topic: count for topic, (count, _) in topics(transactions).items()}
    return roles + [{"role": "marking", "name": f"marks-{n}", "topics": counts}
                    for n in (1, 2)]


class Clients:
    """All client processes of a run."""

    def __init__(self, directory, bootstrap, seed, transactions):
        self.directory, self.bootstrap, self.seed = directory, bootstrap, seed
        self.groups = dict.fromkeys(GROUPS, "log")
        self.transactions = transactions
        changing = [{"role": "remaking", "name": "remaker", "topic": "remade", "partitions": 2},
                    {"role": "trimming", "name": "trimmer", "topic": "trim", "partitions": 2}]
        self.writing = [self.start("producers", producers(transactions) + changing)]
        self.members = [self.start(f"{group}-{n}", [
            {"role": "member", "name": f"{group}-{n}", "group": group, "topic": "log",
             "settings": settings}]) for group, settings in GROUPS.items()
            for n in range(MEMBERS)]
        if transactions:
            self.start_transactions()
        counts = {"log": TOPICS["log"][0]}
        watching = {"role": "watching", "name": "watcher", "groups": sorted(self.groups),
                    "topics": counts}
        self.reading = [self.start("readers", readers(transactions) + [watching])]

    def start_transactions(self):
        targets = {"txn": TXN_TOPICS["txn"][0]}
        self.writing += [self.start(f"txn-{n}", [
            {"role": "committing", "name": f"txn-{n}-{k}", "topics": targets} for k in range(2)])
            for n in range(1)]
        self.groups[COPYING_GROUP] = "log"
        self.copiers = [self.start(f"copier-{n}", [
            {"role": "copying", "name": f"copier-{n}", "group": COPYING_GROUP, "source": "log",
             "target": "copied"}]) for n in range(COPIERS)]
        self.members += self.copiers

    def start(self, name, roles):
        roles = [{**role, "seed": self.seed} for role in roles]
        return ClientProcess(self.directory, name, self.bootstrap, roles)

    def all(self):
        return [*self.writing, *self.members, *self.reading]

    def close(self):
        for process in self.all():
            process.close()

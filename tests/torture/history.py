"""What clients did and saw: how it is written, and how it is read again.

One file of JSON lines per process. Every line has `e`, its kind; times are `time.monotonic()`,
which all processes of a machine share. A topic that is deleted and created again has a label for
each of its lives, such as `remake#3`.

| e | meaning |
|---|---|
| send | a record was handed to a producer: `v` its id, `n` the producer's own count; `src` the [topic, partition, offset] that it was made of |
| ack, fail | how it ended; `definite`: it was promised that it never happens |
| poll | one call of a consumer: `recs` = [offset, id, leader epoch, damaged] in order |
| reset | a consumer was told that its position `at` is out of range; bounds asked thereafter |
| truncated | a consumer was told that the log was cut below its position |
| marks | log start and high watermark, as one client asked for them |
| assign | what a member of a group holds, with the generation |
| commit, commit-end | offsets to commit; how `k` ended (`ok`: true, or null = unknown) |
| committed | offsets of a group that were fetched |
| txn-init, txn-begin, txn-ask, txn-end | transactions; `x` names one; asked to commit or abort |
| final | everything a partition holds after healing, by isolation |
| fault, fatal, broken | a fault; a producer that gave up; what must not happen, seen by the run |
"""

import collections
import dataclasses
import json
import pathlib
import threading
import time


class Recorder:
    """Appends events to a file; usable from all threads of a process."""

    def __init__(self, path):
        # Line by line: a killed client leaves all but its last line.
        self._file = open(path, "a", buffering=1, encoding="utf-8")
        self._lock = threading.Lock()

    def note(self, kind, **fields):
        line = json.dumps({"e": kind, **fields}, separators=(",", ":"))
        with self._lock:
            self._file.write(line + "\n")

    def close(self):
        with self._lock:
            self._file.close()


def now():
    """Seconds; comparable between the processes of this machine."""
    return round(time.monotonic(), 6)


@dataclasses.dataclass
class Send:
    """One record that a client tried to append."""

    id: str
    client: str
    mode: str
    topic: str
    part: int
    n: int
    t0: float
    key: str = None
    tomb: bool = False
    txn: str = None
    source: tuple = None
    outcome: str = "unknown"
    off: int = None
    t1: float = None
    error: str = None

    def __str__(self):
        end = {"acked": f"acknowledged at {self.off}", "failed": f"refused ({self.error})",
               "unknown": f"outcome unknown ({self.error})"}[self.outcome]
        when = f"{self.t0:.3f} to {self.t1:.3f}" if self.t1 else f"since {self.t0:.3f}"
        txn = f", in {self.txn}" if self.txn else ""
        return f"{self.id} by {self.client} ({self.mode}{txn}) {when}: {end}"


@dataclasses.dataclass
class Poll:
    """One call of a consumer, one partition of it."""

    client: str
    session: str
    iso: str
    topic: str
    part: int
    t0: float
    t1: float
    recs: list
    group: str = None


@dataclasses.dataclass
class Commit:
    """Offsets that a member committed; `ok` is None when that is not known."""

    client: str
    group: str
    offsets: list
    t0: float
    gen: int = None
    ok: bool = None
    t1: float = float("inf")

    def __str__(self):
        return f"{self.client} committed {self.offsets} from {self.t0:.3f} to {self.t1:.3f}"


@dataclasses.dataclass
class Txn:
    """One transaction."""

    id: str
    producer: str
    instance: int
    begun: float
    # The last that its producer asked for, and when it first asked.
    want: str = None
    asked: float = None
    outcome: str = "unknown"
    t1: float = None


class History:
    """All events of a run, sorted and joined."""

    def __init__(self, events=()):
        self.sends = {}
        self.polls = []
        self.finals = {}
        self.txns = {}
        self.of = collections.defaultdict(list)
        self._logs = {}
        self.commits = {}
        for event in sorted(events, key=_time):
            self._take(event)

    @staticmethod
    def load(directory):
        events = []
        for path in sorted(pathlib.Path(directory).glob("*.jsonl")):
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    events.append(json.loads(line))
                except ValueError:
                    # The last line of a client that was killed while it wrote.
                    continue
        return History(events)

    def _take(self, event):
        kind = event["e"]
        if kind == "send":
            self.sends[event["v"]] = Send(
                event["v"], event["c"], event["mode"], event["topic"], event["part"],
                event["n"], event["t"], event.get("key"), event.get("tomb", False),
                event.get("x"), tuple(event["src"]) if "src" in event else None)
        elif kind == "ack":
            send = self.sends[event["v"]]
            send.outcome, send.off, send.t1 = "acked", event["off"], event["t"]
        elif kind == "fail":
            send = self.sends[event["v"]]
            send.outcome = "failed" if event["definite"] else "unknown"
            send.error, send.t1 = event["error"], event["t"]
        elif kind == "poll":
            recs = [tuple(r) for r in event["recs"]]
            self.polls.append(Poll(
                event["c"], event["session"], event["iso"], event["topic"], event["part"],
                event["t0"], event["t1"], recs, event.get("group")))
        elif kind == "final":
            event["recs"] = [tuple(r) for r in event["recs"]]
            self.finals[(event["topic"], event["part"], event["iso"])] = event
        elif kind == "commit":
            self.commits[event["k"]] = Commit(
                event["c"], event["group"], event["offsets"], event["t"])
        elif kind == "commit-end":
            commit = self.commits[event["k"]]
            commit.gen, commit.ok, commit.t1 = event["gen"], event["ok"], event["t"]
        elif kind == "txn-begin":
            self.txns[event["x"]] = Txn(event["x"], event["c"], event["inst"], event["t"])
        elif kind == "txn-ask":
            txn = self.txns[event["x"]]
            txn.want = event["want"]
            # Asked again after a time-out: the first may have done it.
            if txn.asked is None:
                txn.asked = event["t"]
        elif kind == "txn-end":
            txn = self.txns[event["x"]]
            txn.outcome, txn.t1 = event["outcome"], event["t"]
        else:
            self.of[kind].append(event)

    def partitions(self):
        """Every (topic, partition) that was read at the end."""
        return sorted({(topic, part) for topic, part, _ in self.finals})

    def log(self, topic, part, iso="ru"):
        """What the partition held at the end: offset to id; None when it was not read."""
        key = (topic, part, iso)
        if key in self.finals and key not in self._logs:
            self._logs[key] = {r[0]: r[1] for r in self.finals[key]["recs"]}
        return self._logs.get(key)

    def low(self, topic, part):
        """First offset that the partition held at the end."""
        return self.finals[(topic, part, "ru")]["low"]

    def readings(self, iso=None):
        """Every (topic, part, offset, id, where it was seen)."""
        for poll in self.polls:
            if iso in (None, poll.iso):
                for rec in poll.recs:
                    yield poll.topic, poll.part, rec[0], rec[1], f"{poll.client} at {poll.t1:.3f}"
        for (topic, part, of), final in self.finals.items():
            if iso in (None, of):
                for rec in final["recs"]:
                    yield topic, part, rec[0], rec[1], f"the last reading ({of})"


def _time(event):
    return event.get("t", event.get("t1", 0.0)), _RANK.get(event["e"], 1)


# Of events with equal times, what begins comes first.
_RANK = {"send": 0, "commit": 0, "txn-begin": 0, "commit-end": 2, "txn-end": 2}


def summary(history):
    """Counts for the report of a run."""
    outcomes = collections.Counter(s.outcome for s in history.sends.values())
    txns = collections.Counter(t.outcome for t in history.txns.values())
    read = sum(len(p.recs) for p in history.polls)
    commits = sum(1 for c in history.commits.values() if c.ok)
    text = (f"{outcomes['acked']} acknowledged, {outcomes['failed']} refused, "
            f"{outcomes['unknown']} unknown, {read} read, {commits} group commits")
    if history.txns:
        text += f", transactions {txns['committed']} committed {txns['aborted']} aborted"
        text += f" {txns['unknown']} unknown"
    return text

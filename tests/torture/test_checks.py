"""The checker is shown bad histories, and must report each; and a good one, and must not."""

import itertools

import pytest

from torture.checks import check_all
from torture.history import History


class Story:
    """A history told in short words; time passes by itself."""

    def __init__(self):
        self.events = []
        self.clock = itertools.count()
        self.numbers = itertools.count()

    def note(self, kind, **fields):
        t = next(self.clock) / 4
        self.events.append({"e": kind, "c": "c", "t": t, "t0": t, "t1": t, **fields})
        return self

    def send(self, v, mode="patient", part=0, topic="log", **more):
        n = next(self.numbers)
        return self.note("send", v=v, mode=mode, topic=topic, part=part, n=n, **more)

    def ack(self, v, off):
        return self.note("ack", v=v, off=off)

    def sent(self, v, off, mode="patient", **more):
        return self.send(v, mode, **more).ack(v, off)

    def fail(self, v, definite=True):
        return self.note("fail", v=v, error="E", definite=definite)

    def poll(self, *recs, iso="ru", part=0, session="r/1", topic="log", **more):
        recs = [[off, v, 1, 0] for off, v in recs]
        return self.note("poll", c="r", session=session, iso=iso, topic=topic, part=part,
                         recs=recs, **more)

    def final(self, *recs, iso="ru", part=0, topic="log", low=0, high=None, end=None, epochs=()):
        rows = [[off, v, epoch, 0] for (off, v), epoch
                in itertools.zip_longest(recs, epochs, fillvalue=1)]
        high = max((off + 1 for off, _ in recs), default=low) if high is None else high
        return self.note("final", iso=iso, topic=topic, part=part, low=low, high=high,
                         end=high if end is None else end, recs=rows)

    def txn(self, x, *sent, inst=1, c="p"):
        self.note("txn-begin", x=x, c=c, inst=inst)
        for v, off in sent:
            self.sent(v, off, "txn", x=x)
        return self

    def ask(self, x, want="commit"):
        return self.note("txn-ask", x=x, want=want)

    def done(self, x, outcome="committed"):
        return self.note("txn-end", x=x, outcome=outcome)

    def commit(self, off, ok=True, gen=1, member="m", seconds=0.25):
        k = f"k{next(self.numbers)}"
        self.note("commit", k=k, c=member, group="g", offsets=[["log", 0, off]])
        for _ in range(int(seconds * 4) - 1):
            next(self.clock)
        return self.note("commit-end", k=k, gen=gen, ok=ok, error=None)

    def committed(self, off):
        return self.note("committed", group="g", offsets=[["log", 0, off]])

    def assign(self, member, gen=1, own=False):
        return self.note("assign", c=member, member=member, group="g", gen=gen, own=own,
                         parts=[["log", 0]])

    def names(self):
        return {a.name for a in check_all(History(self.events))}


def good():
    """Some of everything, and nothing wrong."""
    story = Story().sent("a", 0).poll((0, "a")).sent("b", 1, "once")
    story.send("c", "once").fail("c").send("d", "idempotent").fail("d", definite=False)
    story.txn("x", ("e", 2)).ask("x").done("x").txn("y", ("f", 4)).ask("y", "abort")
    story.done("y", "aborted").poll((1, "b"), (2, "e"), (4, "f"))
    story.poll((0, "a"), (1, "b"), (2, "e"), iso="rc", session="r/2")
    story.assign("m").poll((0, "a"), iso="rc", group="g", session="m").commit(1).committed(1)
    story.final((0, "a"), (1, "b"), (2, "e"), (4, "f"), high=6)
    return story.final((0, "a"), (1, "b"), (2, "e"), iso="rc", high=6)


def test_a_good_history_has_no_anomaly():
    assert good().names() == set()


CASES = {
    "lost-write": Story().sent("a", 0).sent("b", 1).final((0, "a")),
    "lost-write of an unknown place": Story().sent("a", -1).final(high=0),
    "lost-write of an unknown place, behind what is left": Story().sent("a", 3).sent("b", -1)
        .sent("c", 4).final((3, "a"), (4, "c"), low=3),
    "inconsistent-offsets": Story().sent("a", 0).send("b", "plain").poll((0, "b")),
    "invented": Story().poll((0, "z")),
    "invented, in another partition": Story().send("a", "plain", part=1).poll((0, "a")),
    "unseen": Story().send("a", "plain").poll((0, "a")).final(high=1),
    "duplicate": Story().sent("a", 0).poll((0, "a"), (1, "a")),
    "duplicate of one sent once": Story().sent("a", 1, "once").final((0, "a"), (1, "a")),
    "duplicate of an idempotent one": Story().sent("a", 1, "idempotent").poll((0, "a"), (1, "a")),
    "aborted-read": Story().send("a", "once").fail("a").poll((0, "a")),
    "nonmonotonic-send": Story().sent("a", 1).sent("b", 0),
    "nonmonotonic-poll": Story().sent("a", 0).sent("b", 1).poll((1, "b")).poll((0, "a")),
    "poll-skip": Story().sent("a", 0).sent("b", 1).sent("c", 2).poll((0, "a")).poll((2, "c")),
    "epoch-regression": Story().sent("a", 0).sent("b", 1).final((0, "a"), (1, "b"),
                                                               epochs=(2, 1)),
    "watermark-regression": Story().note("marks", topic="log", part=0, low=0, high=5)
                                   .note("marks", topic="log", part=0, low=0, high=4),
    "watermark-regression of the start": Story().note("marks", topic="log", part=0, low=2, high=5)
                                                .note("marks", topic="log", part=0, low=1, high=5),
    "wrong-out-of-range": Story().note("reset", topic="log", part=0, at=3, low=2, high=9),
    "log-truncation": Story().note("truncated", topic="log", part=0, at=3, error="cut"),
    "compacted-away": Story().sent("a", 0, key="k").sent("b", 1, key="k").final((0, "a"), high=2),
    "compacted-away, back from the dead": Story().sent("a", 0, key="k")
        .sent("b", 1, key="k", tomb=True).final((0, "a"), high=2),
    "old-life": Story().sent("a", 0, topic="t#1").sent("b", 0, topic="t#2")
                       .final((0, "a"), topic="t#2"),
    "old-life begins late": Story().note("first-offset", topic="t#2", part=0, low=7),
    "generation-overlap": Story().assign("m").assign("n"),
    "zombie-commit": Story().assign("m", 1).assign("n", 2).commit(3, gen=1),
    "zombie-commit, behind itself": Story().assign("m", 1, True).assign("m", 2, True)
                                           .commit(3, gen=1),
    "lost-commit": Story().commit(3).commit(5).committed(3),
    "lost-commit, all of it": Story().commit(3).committed(-1),
    "lost-commit, invented": Story().commit(3).committed(4),
    "group-skip": Story().sent("a", 0).sent("b", 1).poll((1, "b"), group="g", iso="rc")
                         .commit(2).committed(2).final((0, "a"), (1, "b")),
    "aborted-txn-read": Story().txn("x", ("a", 0)).ask("x", "abort").done("x", "aborted")
                               .poll((0, "a"), iso="rc"),
    "precommitted-read": Story().txn("x", ("a", 0)).poll((0, "a"), iso="rc").ask("x").done("x"),
    "torn-txn": Story().txn("x", ("a", 0), ("b", 1)).ask("x").final((0, "a"), (1, "b"), high=3)
                       .final((0, "a"), iso="rc", high=3),
    "torn-txn, lost": Story().txn("x", ("a", 0)).ask("x").done("x").final((0, "a"), high=2)
                             .final(iso="rc", high=2),
    "zombie-producer": Story().txn("x", ("a", 0)).note("txn-init", c="p", inst=2)
                              .ask("x").done("x"),
    "stuck-lso": Story().final(iso="rc", high=5, end=3),
    "consumed-twice": Story().txn("x").sent("o", 0, "txn", x="x", src=["log", 0, 0])
                             .sent("p", 1, "txn", x="x", src=["log", 0, 0]).ask("x").done("x")
                             .final((0, "o"), (1, "p"), iso="rc"),
    "consumed-never": Story().sent("i", 0).final((0, "i"), iso="rc")
                             .note("committed", group="g", copies=True, offsets=[["log", 0, 1]]),
    "broken": Story().note("broken", what="node 1 died"),
    "fatal-producer": Story().note("fatal", error="out of order"),
    "patience-unrewarded": Story().send("a").fail("a", definite=False),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_history_is_reported(case):
    name = case.split(",")[0].split(" ")[0]
    assert name in CASES[case].names()


TOLERATED = {
    "an unknown outcome may be there": Story().send("a", "once").fail("a", definite=False)
                                              .poll((0, "a")).final((0, "a")),
    "a plain producer may double": Story().sent("a", 1, "plain").final((0, "a"), (1, "a")),
    "who gave up may double": Story().sent("a", 1, "idempotent").send("b", "idempotent")
        .fail("b", definite=False).final((0, "a"), (1, "a")),
    "retention may take": Story().sent("a", 0).sent("b", 1).final((1, "b"), low=1),
    "retention may take what has no known place": Story().sent("a", 0).sent("b", -1).sent("c", 4)
        .final((4, "c"), low=2),
    "compaction may take": Story().sent("a", 0, key="k").sent("b", 1, key="k")
                                  .poll((1, "b")).final((1, "b")),
    "a commit in doubt": Story().commit(3).commit(5, ok=None).committed(3).committed(5)
                                .committed(3),
    "a commit that was repeated, and comes late": Story().commit(3, seconds=5).commit(5)
                                                         .committed(5).committed(3),
    "two owners in two generations": Story().assign("m", 1).assign("n", 2).commit(3, gen=2),
    "a commit in an epoch of one's own": Story().assign("m", 1, True).assign("n", 2, True)
                                                .commit(3, gen=1),
    "out of range after retention": Story().note("reset", topic="log", part=0, at=1, low=2,
                                                 high=9),
    "a group that commits in transactions": Story().sent("i", 0).final((0, "i")).committed(1),
    "a group that goes on": Story().commit(5).commit(3).committed(3),
}


@pytest.mark.parametrize("case", TOLERATED)
def test_what_may_happen_is_no_anomaly(case):
    assert TOLERATED[case].names() == set()

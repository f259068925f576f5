"""Faults that nodes can have built in (src/base/src/broken.rs): what each must be convicted of, and
which faults of the world bring it out. Without any, those that the seed draws do."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Kind:
    """`anomalies`: any of them convicts. `faults`: what to do to the nodes, over and over."""

    anomalies: frozenset
    faults: tuple = ()


def kind(*anomalies, faults=()):
    return Kind(frozenset(anomalies), tuple(faults))


KINDS = {
    "skip-dedup": kind("duplicate", "nonmonotonic-send"),
    # The first batch of a new producer is refused, the one behind it comes to the next leader.
    "begin-anywhere": kind("lost-write", faults=("kill-leader", "isolate", "stop-leader")),
    # A leader that is alone learns of nothing while its clients wait.
    "ack-unknown": kind("lost-write", faults=("isolate", "deaf")),
    # What no node has written yet must be gone from most of them at once. Where a leader is left
    # that knows better, Raft finds the hole first, and ends the node that has it.
    "ack-before-write": kind("lost-write", "inconsistent-offsets", "broken",
                             faults=("kill-all", "kill-two")),
    "lose-commit": kind("lost-commit"),
    "any-generation": kind("zombie-commit"),
    # A producer that was fenced never asked to commit.
    "aborted-visible": kind("aborted-txn-read", "precommitted-read"),
    "early-lso": kind("precommitted-read"),
    "oldest-by-key": kind("compacted-away"),
}

"""Transactions, as read_committed readers see them."""

import collections

from torture.checks import where


def _seen(history):
    """Every reading under read_committed of a record of a transaction."""
    for poll in history.polls:
        if poll.iso == "rc":
            for rec in poll.recs:
                send = history.sends.get(rec[1])
                if send is not None and send.txn:
                    yield send, history.txns[send.txn], poll.t1, f"{poll.client} at {poll.t1:.3f}"
    for (_, _, iso), final in history.finals.items():
        if iso == "rc":
            for rec in final["recs"]:
                send = history.sends.get(rec[1])
                if send is not None and send.txn:
                    yield send, history.txns[send.txn], final["t"], "the last reading"


def aborted_txn_read(history):
    """Nothing of an aborted transaction is read under read_committed."""
    reported = set()
    for send, txn, _, who in _seen(history):
        if txn.outcome == "aborted" and send.id not in reported:
            reported.add(send.id)
            yield f"{send}; {txn.id} was aborted at {txn.t1:.3f}, and {who} read it"


def precommitted_read(history):
    """Nothing is read under read_committed before its commit was asked for."""
    for send, txn, when, who in _seen(history):
        if txn.outcome == "aborted":
            continue
        if txn.want != "commit":
            yield f"{send}; {who} read it, and {txn.id} never asked to commit"
        elif when < txn.asked:
            yield f"{send}; {who} read it, and {txn.id} asked to commit at {txn.asked:.3f}"


def torn_txn(history):
    """At the end all of a transaction is visible, or nothing; all, if it was committed."""
    visible = set()
    for topic, part, _, value, _ in history.readings("rc"):
        visible.add(value)
    sent = collections.defaultdict(list)
    for send in history.sends.values():
        if send.txn and history.log(send.topic, send.part, "rc") is not None:
            sent[send.txn].append(send)
    for txn, sends in sent.items():
        acked = [s for s in sends if s.outcome == "acked"]
        there = [s for s in acked if s.id in visible]
        missing = [s for s in acked if s.id not in visible]
        outcome = history.txns[txn].outcome
        if missing and (there or outcome == "committed"):
            yield (f"{txn} ({outcome}): {len(there)} of {len(acked)} records are visible; "
                   f"missing: {missing[0]}")


def zombie_producer(history):
    """After a new instance took over, an old one commits nothing."""
    inits = collections.defaultdict(list)
    for event in history.of["txn-init"]:
        inits[event["c"]].append(event)
    for txn in history.txns.values():
        if txn.outcome != "committed":
            continue
        for init in inits[txn.producer]:
            if init["inst"] > txn.instance and init["t1"] < txn.asked:
                yield (f"{txn.id} of instance {txn.instance} was committed at {txn.t1:.3f}, but "
                       f"instance {init['inst']} took over at {init['t1']:.3f}")


def stuck_lso(history):
    """After healing and the transactions' timeout, read_committed reaches the end."""
    for (topic, part, iso), final in history.finals.items():
        if iso == "rc" and final["end"] < final["high"]:
            yield (f"{where(topic, part)}: read_committed stops at {final['end']}, the log ends "
                   f"at {final['high']}")


def consumed_twice(history):
    """Consume, transform, produce: every input has one visible output, once.

    Inputs are places: a producer that gave up may have sent a record twice.
    """
    outputs = collections.defaultdict(set)
    for topic, part, off, value, _ in history.readings("rc"):
        send = history.sends.get(value)
        if send is not None and send.source is not None:
            outputs[send.source].add((topic, part, off, value))
    for source, places in outputs.items():
        if len(places) > 1:
            spots = ", ".join(f"{v} {where(t, p, o)}" for t, p, o, v in sorted(places))
            yield f"the input {where(*source)} came out {len(places)} times: {spots}"


def consumed_never(history):
    """Consume, transform, produce: what the group committed has its output."""
    done = {history.sends[v].source for _, _, _, v, _ in history.readings("rc")
            if v in history.sends and history.sends[v].source is not None}
    groups = {e["group"] for e in history.of["committed"] if e.get("copies")}
    last = {(e["group"], topic, part): off for e in history.of["committed"]
            for topic, part, off in e["offsets"] if e["group"] in groups}
    for (group, topic, part), end in last.items():
        log = history.log(topic, part, "rc") or {}
        missing = [off for off in log if off < end and (topic, part, off) not in done]
        if missing:
            yield (f"{group} committed {end} for {where(topic, part)}, and {len(missing)} records "
                   f"have no output, the first {log[missing[0]]} at {missing[0]}")


CHECKS = (aborted_txn_read, precommitted_read, torn_txn, zombie_producer, stuck_lso,
          consumed_twice, consumed_never)

"""Records: sent, acknowledged, read."""

import collections

from torture.checks import where


def inconsistent_offsets(history):
    """An offset of a partition has one value, whoever saw it and when."""
    seen = {}
    for topic, part, off, value, who in _all_places(history):
        first = seen.setdefault((topic, part, off), (value, who))
        if first[0] != value:
            yield (f"{where(topic, part, off)} is {first[0]} ({first[1]}) and {value} ({who})")


def _all_places(history):
    for send in history.sends.values():
        if _has_place(send):
            yield send.topic, send.part, send.off, send.id, f"its acknowledgement at {send.t1:.3f}"
    yield from history.readings()


def truth(history):
    """(topic, part) to {offset: id}, from acknowledgements and all readings."""
    known = collections.defaultdict(dict)
    for topic, part, off, value, _ in _all_places(history):
        known[(topic, part)].setdefault(off, value)
    return known


def invented(history):
    """What is read was sent, to that partition, and is undamaged."""
    for topic, part, off, value, who in history.readings():
        send = history.sends.get(value)
        if send is None:
            yield f"{where(topic, part, off)}: nobody sent {value!r}; seen by {who}"
        elif (send.topic, send.part) != (topic, part):
            yield f"{where(topic, part, off)}: {send} went to {where(send.topic, send.part)}"
    for poll in history.polls:
        for rec in poll.recs:
            if rec[3]:
                yield f"{where(poll.topic, poll.part, rec[0])}: {rec[1]} is damaged ({poll.client})"


def lost_write(history):
    """What was acknowledged is there at the end, where it was acknowledged."""
    replaced = _replaced(history)
    lowest = _lowest_places(history)
    for send in history.sends.values():
        log = history.log(send.topic, send.part)
        if send.outcome != "acked" or log is None:
            continue
        if not _has_place(send):
            trimmed = lowest.get(send.id, 0) < history.low(send.topic, send.part)
            if send.id not in log.values() and send.id not in replaced and not trimmed:
                yield f"{send}, and it is nowhere in {where(send.topic, send.part)}"
            continue
        gone = send.off < history.low(send.topic, send.part) or send.id in replaced
        if send.off not in log and not gone:
            end = max(log, default=None)
            yield f"{send}, but nothing is there; the log ends at {end}"


def _lowest_places(history):
    """Where records without a known offset may be at the lowest: behind the one sent before."""
    lines = collections.defaultdict(list)
    for send in history.sends.values():
        if send.mode != "plain":
            lines[(send.client, send.topic, send.part)].append(send)
    lowest = {}
    for sends in lines.values():
        place = 0
        for send in sorted(sends, key=lambda s: s.n):
            if _has_place(send):
                place = send.off + 1
            else:
                lowest[send.id] = place
    return lowest


def unseen(history):
    """What any client has read is still there at the end."""
    replaced = _replaced(history)
    reported = set()
    for topic, part, off, value, who in history.readings():
        log = history.log(topic, part)
        if log is None or off in log or off < history.low(topic, part) or value in replaced:
            continue
        if (topic, part, off) not in reported:
            reported.add((topic, part, off))
            yield f"{where(topic, part, off)}: {who} saw {value}, and at the end it is not there"


def _replaced(history):
    """Ids that compaction may have removed: their key has a later record, or a tombstone."""
    from torture.checks.topics import latest_by_key
    keep = set(latest_by_key(history).values())
    free = set()
    for send in history.sends.values():
        if send.key is not None and (send.tomb or (send.topic, send.part, send.id) not in keep):
            free.add(send.id)
    return free


def duplicate(history):
    """A record of an idempotent producer, or one sent once, has one offset.

    A librdkafka that gave up on one record begins a new epoch and sends again, renumbered, what
    it has no answer for: then doubles are its own.
    """
    gave_up = {s.client for s in history.sends.values()
               if s.mode == "idempotent" and s.outcome != "acked"}
    places = collections.defaultdict(set)
    for topic, part, off, value, _ in _all_places(history):
        places[value].add((topic, part, off))
    for value, at in places.items():
        send = history.sends.get(value)
        if send is None or send.mode == "plain" or send.client in gave_up:
            continue
        if len(at) > 1:
            spots = ", ".join(where(*place) for place in sorted(at))
            yield f"{send}; it is at {spots}"


def aborted_read(history):
    """G1a: what was refused for good is never read."""
    reported = set()
    for topic, part, off, value, who in history.readings():
        send = history.sends.get(value)
        if send is not None and send.outcome == "failed" and value not in reported:
            reported.add(value)
            yield f"{send}, and {who} read it from {where(topic, part, off)}"


def nonmonotonic_send(history):
    """The records of one ordered producer stand in the order of sending."""
    lines = collections.defaultdict(list)
    for send in history.sends.values():
        if send.mode != "plain" and _has_place(send):
            lines[(send.client, send.topic, send.part)].append(send)
    for sends in lines.values():
        sends.sort(key=lambda s: s.n)
        for before, after in zip(sends, sends[1:]):
            if after.off <= before.off:
                yield f"{before}; sent after it: {after}"


def _has_place(send):
    # librdkafka knows no offset when a broker answers DUPLICATE_SEQUENCE_NUMBER.
    return send.outcome == "acked" and send.off is not None and send.off >= 0


def _sessions(history):
    """Polls with records of one assignment, one partition, in order."""
    lines = collections.defaultdict(list)
    for poll in history.polls:
        if poll.recs and poll.group is None:
            lines[(poll.session, poll.topic, poll.part)].append(poll)
    return lines


def nonmonotonic_poll(history):
    """Offsets that one assignment of a reader gives only rise."""
    for polls in _sessions(history).values():
        last = -1
        for poll in polls:
            for rec in poll.recs:
                if rec[0] <= last:
                    yield (f"{poll.client} got {where(poll.topic, poll.part, rec[0])} after {last}"
                           f" at {poll.t1:.3f}")
                last = rec[0]


def poll_skip(history):
    """A reader misses no record between two that it is given."""
    known, replaced = truth(history), _replaced(history)
    committed = collections.defaultdict(set)
    for topic, part, off, _, _ in history.readings("rc"):
        committed[(topic, part)].add(off)
    for (_, topic, part), polls in _sessions(history).items():
        place = (topic, part)
        must = {off for off, value in known[place].items() if value not in replaced}
        if polls[0].iso == "rc":
            must &= committed[place]
        must = sorted(must)
        yield from _skipped(polls, must, known[place])


def _skipped(polls, must, values):
    got = [(rec[0], poll) for poll in polls for rec in poll.recs]
    have = {off for off, _ in got}
    first, last = got[0][0], got[-1][0]
    missing = [off for off in must if first < off < last and off not in have]
    if missing:
        poll = next(p for off, p in got if off > missing[0])
        yield (f"{poll.client} ({poll.iso}, {poll.session}) went over {len(missing)} records of "
               f"{where(poll.topic, poll.part)}, the first {values[missing[0]]} at {missing[0]}, "
               f"at {poll.t1:.3f}")


def epoch_regression(history):
    """Leader epochs rise with offsets."""
    for (topic, part, iso), final in history.finals.items():
        last = (-1, -1)
        for rec in final["recs"]:
            if rec[2] is not None and rec[2] < last[1]:
                yield (f"{where(topic, part, rec[0])} has epoch {rec[2]}, but "
                       f"{last[1]} at {last[0]} ({iso})")
            last = (rec[0], max(last[1], rec[2] if rec[2] is not None else -1))


CHECKS = (inconsistent_offsets, invented, lost_write, unseen, duplicate, aborted_read,
          nonmonotonic_send, nonmonotonic_poll, poll_skip, epoch_regression)

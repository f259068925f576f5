"""Topics: bounds, retention, compaction, deletion."""

import collections

from torture.checks import where


def watermark_regression(history):
    """Log start and high watermark never go back for a client, nor pass each other."""
    last = {}
    for marks in history.of["marks"]:
        key = (marks["c"], marks["topic"], marks["part"])
        place, when = where(marks["topic"], marks["part"]), f"at {marks['t1']:.3f}"
        if marks["low"] > marks["high"]:
            yield f"{place} begins at {marks['low']} and ends at {marks['high']} {when}"
        before = last.get(key)
        for mark in ("low", "high"):
            if before is not None and marks[mark] < before[mark]:
                yield (f"{place}: {mark} was {before[mark]} at {before['t1']:.3f} and "
                       f"{marks[mark]} {when} ({marks['c']})")
        last[key] = marks


def wrong_out_of_range(history):
    """OFFSET_OUT_OF_RANGE only for what retention took."""
    for reset in history.of["reset"]:
        if reset["low"] <= reset["at"]:
            yield (f"{reset['c']} was told that {where(reset['topic'], reset['part'], reset['at'])}"
                   f" is out of range at {reset['t']:.3f}, and the log is "
                   f"{reset['low']}..{reset['high']} thereafter")


def log_truncation(history):
    """What a consumer was given is never cut away: it was committed."""
    for event in history.of["truncated"]:
        yield (f"{event['c']} at {where(event['topic'], event['part'], event['at'])}: "
               f"{event['error']} at {event['t']:.3f}")


def latest_by_key(history):
    """(topic, key) to (topic, part, id) of the last record with that key, as far as known."""
    last = {}
    places = ((s.topic, s.part, s.off, s.id) for s in history.sends.values()
              if s.outcome == "acked")
    for topic, part, off, value in [*places, *(r[:4] for r in history.readings())]:
        send = history.sends.get(value)
        if send is None or send.key is None or off is None:
            continue
        before = last.get((topic, send.key))
        if before is None or before[0] < off:
            last[(topic, send.key)] = (off, (topic, part, value))
    return {key: place for key, (_, place) in last.items()}


def compacted_away(history):
    """Compaction keeps the last record of each key, and brings no older one back."""
    for (topic, key), (_, part, value) in latest_by_key(history).items():
        log = history.log(topic, part)
        if log is None:
            continue
        send = history.sends[value]
        if value in log.values():
            continue
        if not send.tomb:
            yield f"the last record of key {key} in {where(topic, part)} is gone: {send}"
            continue
        older = [(off, v) for off, v in log.items() if history.sends[v].key == key]
        if older:
            yield (f"the tombstone of key {key} in {where(topic, part)} is gone ({send}), but "
                   f"{older[0][1]} is there at {older[0][0]}")


def old_life(history):
    """A topic that was created again shows nothing of its earlier lives."""
    for topic, part, off, value, who in history.readings():
        send = history.sends.get(value)
        if "#" in topic and send is not None and send.topic != topic:
            yield f"{where(topic, part, off)} holds {send} of {send.topic}; seen by {who}"
    for first in history.of["first-offset"]:
        if first["low"] != 0:
            yield f"{where(first['topic'], first['part'])} is new and begins at {first['low']}"


CHECKS = (watermark_regression, wrong_out_of_range, log_truncation, compacted_away, old_life)


def counts(history):
    """Resets and lives, for reports."""
    return collections.Counter(e for e in ("reset", "first-offset") for _ in history.of[e])

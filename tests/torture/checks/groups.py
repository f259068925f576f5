"""Consumer groups: generations and commits."""

import collections

from torture.checks import where

# A commit that took longer may have been sent twice: the client's request times out after 4 s,
# and members of groups of the consumer protocol were seen to repeat one after a second.
SENT_ONCE_SECONDS = 1


def generation_overlap(history):
    """In one generation of a group, a partition has one owner."""
    owners = {}
    for event in history.of["assign"]:
        for topic, part in event["parts"]:
            key = (event["group"], event["gen"], topic, part)
            first = owners.setdefault(key, event)
            if first["member"] != event["member"]:
                yield (f"{where(topic, part)} in generation {event['gen']} of {event['group']} "
                       f"belongs to {first['c']} at {first['t']:.3f} and to {event['c']} "
                       f"at {event['t']:.3f}")


def zombie_commit(history):
    """A member of a past generation commits nothing. Where epochs are the members' own, one may be
    behind another, but not behind itself."""
    latest = collections.defaultdict(list)
    for event in history.of["assign"]:
        latest[event["group"]].append(
            (event["t"], event["gen"], event["c"], event.get("own", False)))
    for commit in history.commits.values():
        if not commit.ok or commit.gen is None:
            continue
        newer = [a for a in latest[commit.group] if a[0] < commit.t0 and a[1] > commit.gen
                 and (a[2] == commit.client or not a[3])]
        if newer:
            when, gen, who, _ = newer[0]
            yield f"{commit}, in generation {commit.gen}; {who} was in {gen} at {when:.3f}"


def lost_commit(history):
    """A fetched offset is that of the last commit, or of one in doubt.

    librdkafka repeats a commit whose answer does not come in time. The first request may still be
    on its way, in a socket of a node that was cut off, and be taken when that node coordinates
    the group again: Kafka has nothing to tell it from a new one.
    """
    commits = collections.defaultdict(list)
    for commit in history.commits.values():
        sent_once = commit.t1 - commit.t0 < SENT_ONCE_SECONDS
        end = commit.t1 if commit.ok and sent_once else float("inf")
        for topic, part, off in commit.offsets:
            commits[(commit.group, topic, part)].append((commit.t0, end, off, commit))
    groups = {commit.group for commit in history.commits.values()}
    for seen in history.of["committed"]:
        # Others commit in transactions.
        for topic, part, off in seen["offsets"] if seen["group"] in groups else ():
            yield from _stale(seen, topic, part, off, commits[(seen["group"], topic, part)])


def _stale(seen, topic, part, off, commits):
    """A commit that ended before the fetch began must not be older than all that fit."""
    fitting = [end for start, end, value, _ in commits if value == off and start <= seen["t1"]]
    if off < 0:
        fitting.append(float("-inf"))
    newest = max(fitting, default=None)
    if newest is None:
        yield (f"{seen['c']} found {off} for {where(topic, part)} of {seen['group']} at "
               f"{seen['t1']:.3f}; nobody committed that")
        return
    later = [c for start, end, value, c in commits
             if value != off and start > newest and end < seen["t0"]]
    if later:
        yield (f"{seen['c']} found {off} for {where(topic, part)} of {seen['group']} at "
               f"{seen['t1']:.3f}; before that {later[-1]}")


def group_skip(history):
    """Every record below what a group committed was given to one of its members."""
    given = collections.defaultdict(set)
    for poll in history.polls:
        if poll.group is not None:
            given[(poll.group, poll.topic, poll.part)].update(r[0] for r in poll.recs)
    last = {}
    groups = {group for group, _, _ in given}
    for seen in history.of["committed"]:
        for topic, part, off in seen["offsets"] if seen["group"] in groups else ():
            last[(seen["group"], topic, part)] = off
    for (group, topic, part), end in last.items():
        log = history.log(topic, part, "rc") or history.log(topic, part) or {}
        missing = [o for o in log if o < end and o not in given[(group, topic, part)]]
        if missing:
            yield (f"{group} committed {end} for {where(topic, part)}, and no member was given "
                   f"{len(missing)} records, the first {log[missing[0]]} at {missing[0]}")


CHECKS = (generation_overlap, zombie_commit, lost_commit, group_skip)

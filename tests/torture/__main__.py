"""Command line: bounded runs, seeds printed."""

import argparse
import pathlib
import random
import signal
import sys
import tempfile
import time
import traceback

from torture import run
from torture.broken import KINDS
from torture.checks import check_all
from torture.faults import CANNOT_BREAK, NAMES, CannotBreak
from torture.history import History, summary


def named(text):
    names = text.split(",")
    if unknown := set(names) - NAMES:
        raise argparse.ArgumentTypeError(f"no such fault: {', '.join(sorted(unknown))}")
    return names


def options():
    parser = argparse.ArgumentParser(
        prog="scripts/torture",
        description="Real nodes under faults, real Kafka clients, a history, a checker.")
    parser.add_argument("--seeds", type=int, default=3, help="how many runs (3)")
    parser.add_argument("--seed", type=int, help="the first seed; random without it")
    parser.add_argument("--seconds", type=float, default=60, help="faults of each run, in s (60)")
    parser.add_argument("--dir", type=pathlib.Path, help="where runs live; else a temporary one")
    parser.add_argument("--keep", action="store_true", help="keep clean runs too")
    parser.add_argument("--transactions", choices=("auto", "on", "off"), default="auto",
                        help="auto: when the nodes take them")
    parser.add_argument("--no-namespaces", dest="namespaces", action="store_false",
                        help="no network cuts")
    parser.add_argument("--no-disks", dest="disks", action="store_false", help="no full disks")
    parser.add_argument("--judge", type=pathlib.Path, metavar="DIR",
                        help="only judge the history of a run that was kept")
    parser.add_argument("--faults", type=named, metavar="NAME,…",
                        help="these, one after the other, again until --seconds are over: "
                             + ", ".join(sorted(NAMES)))
    parser.add_argument("--broken", choices=sorted(KINDS),
                        help="the nodes have this fault: its anomaly must be found")
    parser.add_argument("--all", action="store_true", help="go on after an anomaly")
    chosen = parser.parse_args()
    if chosen.broken and not chosen.faults:
        chosen.faults = KINDS[chosen.broken].faults
    return chosen


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def judge(directory):
    history = History.load(directory / "history")
    say(summary(history))
    anomalies = check_all(history)
    run.tell(anomalies, say)
    return 1 if anomalies else 0


def main():
    chosen = options()
    # So that nodes, namespaces and mounts go when the run is asked to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if chosen.judge:
        return judge(chosen.judge)
    first = chosen.seed if chosen.seed is not None else random.SystemRandom().randrange(1 << 31)
    root = chosen.dir or pathlib.Path(tempfile.mkdtemp(prefix="torture-"))
    clean, failed, found = 0, [], set()
    for seed in range(first, first + chosen.seeds):
        directory = root.resolve() / f"seed-{seed}"
        try:
            anomalies = run.one(directory, seed, chosen, say)
            good = not anomalies
            found |= anomalies
        except KeyboardInterrupt:
            raise
        except CannotBreak as e:
            say(f"{e}: nothing was tried")
            return CANNOT_BREAK
        except Exception:
            say(f"seed {seed}: the run itself failed; {directory}\n{traceback.format_exc()}")
            good = False
        if good:
            clean += 1
        else:
            failed.append(seed)
            if chosen.broken and found & KINDS[chosen.broken].anomalies:
                break
            if not chosen.all and not chosen.broken:
                break
    say(f"{clean} runs without anomalies, {chosen.seconds:.0f} s each; with: {failed or 'none'}")
    if chosen.broken:
        convicted = sorted(found & KINDS[chosen.broken].anomalies)
        say(f"{chosen.broken}: {', '.join(convicted) or 'nothing that it must lead to'}")
        return 0 if convicted else 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""One client process: runs its roles until SIGTERM."""

import faulthandler
import json
import pathlib
import signal
import sys
import threading
import traceback

from torture.clients import grouping, producing, reading, remaking, transacting
from torture.clients.base import Stop
from torture.history import Recorder, now

ROLES = {
    "producing": producing.Producing,
    "producing-once": producing.ProducingOnce,
    "reading": reading.Reading,
    "marking": reading.Marking,
    "member": grouping.Member,
    "watching": grouping.Watching,
    "remaking": remaking.Remaking,
    "trimming": remaking.Trimming,
    "committing": transacting.Committing,
    "copying": transacting.Copying,
}


def run(role, recorder):
    try:
        role.run()
    except BaseException:  # noqa: BLE001 - told to the checker, which counts it
        recorder.note("broken", what=f"{role.name} failed: {traceback.format_exc()}", t=now())


def main():
    spec = json.loads(pathlib.Path(sys.argv[1]).read_text())
    recorder = Recorder(spec["history"])
    stop = Stop()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    # Of a client that does not end, the log shows where its threads are.
    faulthandler.register(signal.SIGUSR1)
    roles = [ROLES[s["role"]](recorder, stop, spec["bootstrap"], s) for s in spec["roles"]]
    threads = [threading.Thread(target=run, args=(r, recorder)) for r in roles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recorder.note("end", name=spec["name"], t=now())


if __name__ == "__main__":
    main()

"""Client processes: started, hurt, asked to end."""

import ctypes
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

from torture.history import now

TESTS = pathlib.Path(__file__).resolve().parent.parent
PR_SET_PDEATHSIG = 1


def _die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class ClientProcess:
    """One process of `torture.clients`; a killed one may be started again."""

    def __init__(self, directory, name, bootstrap, roles):
        self.directory, self.name, self.roles, self.bootstrap = directory, name, roles, bootstrap
        self.lives = 0
        self.stopped_until = None
        self.process = None
        self.start()

    def start(self):
        self.lives += 1
        name = f"{self.name}-{self.lives}"
        roles = [{**role, "name": f"{role['name']}-{self.lives}"} for role in self.roles]
        if self.lives == 1:
            roles = self.roles
        spec = {"name": name, "bootstrap": self.bootstrap, "roles": roles,
                "history": str(self.directory / "history" / f"{name}.jsonl")}
        path = self.directory / f"{name}.json"
        path.write_text(json.dumps(spec))
        with open(self.directory / f"{self.name}.log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "torture.clients", path], cwd=TESTS,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_die_with_parent,
                env={**os.environ, "PYTHONPATH": str(TESTS)})

    def runs(self):
        return self.process.poll() is None

    def hurt(self, random, tell):
        """Stops it for longer than its session may last, or kills it."""
        if not self.runs() or self.stopped_until is not None:
            return
        if random.random() < 0.6:
            seconds = 2 + 8 * random.random()
            tell(f"SIGSTOP of {self.name} for at least {seconds:.1f} s")
            self.stopped_until = time.monotonic() + seconds
            self.process.send_signal(signal.SIGSTOP)
        else:
            tell(f"kill -9 of {self.name}")
            self.process.kill()
            self.process.wait()

    def mend(self, at_once=False):
        if not self.runs():
            self.stopped_until = None
            self.start()
        elif self.stopped_until is not None and (at_once
                                                 or time.monotonic() >= self.stopped_until):
            self.stopped_until = None
            self.process.send_signal(signal.SIGCONT)

    def ask_to_end(self):
        if self.runs():
            self.process.terminate()

    def wait(self, recorder, deadline):
        """Waits for the end; says so when it does not come."""
        try:
            code = self.process.wait(max(0.1, deadline - time.monotonic()))
            if code:
                recorder.note("broken", what=f"client {self.name} ended with {code}", t=now())
        except subprocess.TimeoutExpired:
            recorder.note("broken", what=f"client {self.name} does not end", t=now())
            self.process.send_signal(signal.SIGUSR1)
            self.close(after=2)

    def close(self, after=0):
        """Kills it, if it has not ended by itself within so many seconds."""
        try:
            self.process.wait(after)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

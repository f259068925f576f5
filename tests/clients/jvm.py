"""A JVM that runs Kafka's command line tools; see java/Launcher.java."""

import json
import pathlib
import queue
import subprocess
import threading

import pytest
from support.paths import ROOT

CLIENTS = ROOT / "target" / "clients"
# A JVM for short work: no time lost in the optimising compiler.
QUICK = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Xmx384m"]


class Ended(AssertionError):
    """A tool ended with another code than expected."""


class Jvm:
    """One JVM with the jars of one version of Kafka. Always close it."""

    def __init__(self, version, directory):
        home = CLIENTS / f"java-{version}"
        skipped = home / "skipped"
        if skipped.exists():
            pytest.skip(skipped.read_text().strip())
        self.version = version
        self.dir = pathlib.Path(directory)
        self._log = open(self.dir / "jvm.log", "wb")
        self._java = ["java", *QUICK, "-cp", f"{home}/classes:{home}/lib/*"]
        self._process = subprocess.Popen(
            [*self._java, "Launcher"], cwd=self.dir, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self._log, text=True)
        self._answers = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def run(self, main, *args, stdin="", code=0, deadline=60):
        """Runs a tool; gives what it printed. `code` is the expected exit code, None for any."""
        asked = {"main": main, "args": [str(a) for a in args], "stdin": stdin}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        try:
            line = self._answers.get(timeout=deadline)
        except queue.Empty:
            self._process.kill()
            raise AssertionError(f"{main} {args} not within {deadline} s") from None
        assert line, f"the JVM ended: {(self.dir / 'jvm.log').read_text(errors='replace')}"
        answer = json.loads(line)
        if code is not None and answer["exit"] != code:
            told = f"{answer['out']}\n{answer['err']}"
            raise Ended(f"{main} {args} ended with {answer['exit']}: {told[-6000:]}")
        return answer["out"] if code == 0 else answer["out"] + answer["err"]

    def alone(self, main, *args, deadline=60):
        """Runs a tool in a JVM of its own, for those that do their last work while it ends."""
        done = subprocess.run([*self._java, main, *(str(a) for a in args)], cwd=self.dir,
                              capture_output=True, text=True, timeout=deadline)
        if done.returncode != 0:
            raise Ended(f"{main} {args} ended with {done.returncode}: {done.stderr[-6000:]}")
        return done.stdout

    def close(self):
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

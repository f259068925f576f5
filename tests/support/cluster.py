"""A cluster of three real node processes on free ports."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

import requests

from support.paths import TRINE
from support.wait import wait_until

NODES = (1, 2, 3)


class Node:
    """One node process; it can be killed and started again."""

    def __init__(self, number, directory, ports):
        self.number = number
        self.dir = directory / f"node{number}"
        self.data_dir = self.dir / "data"
        self.ports = ports
        self._own = None

    @property
    def pid(self):
        if self._own is not None:
            return self._own.pid
        return int((self.dir / "pid").read_text())

    def alive(self):
        if self._own is not None:
            return self._own.poll() is None
        return is_alive(self.pid)

    def signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        """SIGKILL, and waits until the process is gone."""
        self._end(signal.SIGKILL)

    def stop(self, deadline=20):
        """SIGTERM, and waits until the process is gone."""
        self._end(signal.SIGTERM, deadline)

    def _end(self, number, deadline=10):
        if self.alive():
            self.signal(number)
        wait_until(lambda: not self.alive(), deadline, f"end of node {self.number}")

    def start(self):
        """Starts the node again after `kill` or `stop`."""
        assert not self.alive()
        log = open(self.dir / "log", "ab")
        with log:
            self._own = subprocess.Popen(
                [TRINE, "node", "--config", self.dir / "node.toml"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )

    def wipe(self):
        """Loses the disk of a stopped node."""
        assert not self.alive()
        shutil.rmtree(self.data_dir)

    def log_tail(self, lines=30):
        text = (self.dir / "log").read_text(errors="replace").splitlines()
        return "\n".join(text[-lines:])

    def rss_bytes(self):
        return self._memory("VmRSS")

    def begin_peak(self):
        """From now on counts [`peak_bytes`]."""
        pathlib.Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def peak_bytes(self):
        """The most memory that it had: what was given back meanwhile counts, too."""
        return self._memory("VmHWM")

    def _memory(self, what):
        for line in pathlib.Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{what}:"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"no {what}")

    def get(self, path, **options):
        """GET on the console port."""
        return requests.get(f"http://{self.ports['console']}{path}", timeout=5, **options)

    def metric(self, name):
        """The value of a metric without labels."""
        lines = [line.split() for line in self.get("/metrics").text.splitlines()]
        (value,) = [float(words[1]) for words in lines if words[0] == name]
        return value


# A file of the write-ahead log is written once before it is used. Tests start many clusters, and
# smaller files are also changed more often.
SMALL_LOG_FILES = "wal.file_bytes=8388608"


class Cluster:
    """Three nodes started by `trine local`. Always close it."""

    def __init__(self, directory=None, sets=(), start_deadline=120, port_base="free"):
        self._temporary = directory is None
        self.dir = pathlib.Path(directory or tempfile.mkdtemp(prefix="trine-test-"))
        words = ["--dir", self.dir, "--port-base", str(port_base)]
        words += [w for s in (SMALL_LOG_FILES, *sets) for w in ("--set", s)]
        self.local = subprocess.Popen(
            [TRINE, "-o", "json", "local", *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        try:
            ports = json.loads(self._line())
            self.nodes = [Node(n, self.dir.resolve(), ports[str(n)]) for n in NODES]
            ready = json.loads(self._line())
            self.seconds_to_ready = ready["seconds"]
            assert ready["ready"] and self.seconds_to_ready < start_deadline
        except BaseException:
            self.close()
            raise

    def _line(self):
        line = self.local.stdout.readline()
        if not line:
            raise AssertionError(f"trine local ended: {self.local.stderr.read()}")
        return line

    def node(self, number):
        return self.nodes[number - 1]

    def _all(self, port):
        return [n.ports[port] for n in self.nodes]

    @property
    def kafka(self):
        """Bootstrap addresses."""
        return self._all("kafka")

    @property
    def webhdfs(self):
        return self._all("webhdfs")

    @property
    def elastic(self):
        return self._all("elastic")

    @property
    def console(self):
        return self._all("console")

    def wait_ready(self, deadline=60, nodes=NODES):
        """Waits until every gateway of the nodes serves and every group has a leader."""
        for number in nodes:
            node = self.node(number)
            wait_until(lambda: node.get("/readyz").status_code == 200, deadline,
                       f"readiness of node {number}", pause=0.1)

    def status(self, number=None):
        """GET /api/status of a node, or of the first that answers."""
        errors = []
        for node in [self.node(number)] if number else self.nodes:
            try:
                answer = node.get("/api/status")
                answer.raise_for_status()
                return answer.json()
            except (requests.RequestException, ValueError) as e:
                errors.append(e)
        raise AssertionError(f"no status: {errors}")

    def leader(self, group):
        """The node that leads a group."""
        def find():
            groups = {g["id"]: g for g in self.status()["groups"]}
            return groups[group]["leader"]
        return self.node(wait_until(find, 30, f"leader of {group}"))

    def digests(self):
        """Per node: group to digest."""
        found = []
        for node in self.nodes:
            answer = requests.get(f"http://{node.ports['console']}/api/digest", timeout=60)
            answer.raise_for_status()
            found.append(answer.json()["groups"])
        return found

    def wait_equal_digests(self, deadline=60):
        """Everything replicated is equal on all nodes."""
        def equal():
            first, *others = self.digests()
            assert first, "no groups in the digest"
            return all(o == first for o in others) or None
        wait_until(equal, deadline, "equal digests on all nodes", pause=0.5)

    def stop_nodes(self, deadline=60):
        """SIGTERM to all nodes at once, and waits until they are gone."""
        for node in filter(Node.alive, self.nodes):
            node.signal(signal.SIGTERM)
        for node in self.nodes:
            node.stop(deadline)

    def run(self, *words, **options):
        """Runs a trine command against this cluster."""
        env = {**os.environ, "TRINE_CONSOLE": ",".join(self.console)}
        return subprocess.run([TRINE, *words], env=env, capture_output=True, text=True,
                              timeout=options.pop("timeout", 120), **options)

    def close(self):
        """Ends every process that this cluster started, and removes a temporary directory."""
        for node in getattr(self, "nodes", ()):
            if node._own is not None and node._own.poll() is None:
                node._own.kill()
                node._own.wait()
        if self.local.poll() is None:
            self.local.terminate()
            try:
                self.local.wait(30)
            except subprocess.TimeoutExpired:
                self.local.kill()
                self.local.wait()
        self.local.stdout.close()
        self.local.stderr.close()
        if self._temporary:
            shutil.rmtree(self.dir, ignore_errors=True)


def is_alive(pid):
    """Whether a process runs or still holds its sockets and files: a killed process is a zombie
    for a while before its last thread has let go of them."""
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        threads = len(os.listdir(f"/proc/{pid}/task"))
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in ("Z", "X") or threads > 1

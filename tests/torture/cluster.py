"""Three node processes that can be killed, stopped, cut off, wiped and starved of disk."""

import os
import shutil
import subprocess

import requests

from support.cluster import NODES, Cluster, Node
from support.paths import TRINE
from torture import disks, network
from torture.workload import HEARTBEAT, SESSION

PORTS = {"kafka": 9092, "webhdfs": 9870, "datanode_http": 9864, "elastic": 9200,
         "console": 5600, "raft": 7400, "bulk": 7401}


class TorturedNode(Node):
    """A node in its own place of the network."""

    def __init__(self, number, directory, net):
        address = net.address(number)
        super().__init__(number, directory, {p: f"{address}:{n}" for p, n in PORTS.items()})
        self.net = net
        # Down because a fault wants it.
        self.down = True
        self.stopped = False

    def write_config(self, reserve_bytes, sets):
        own = self.net.address(self.number)
        lines = [f"node_id = {self.number}", f'data_dir = "{self.data_dir}"', "insecure = true",
                 "[disk]", f"reserve_bytes = {reserve_bytes}", "[listen]"]
        lines += [f'{name} = "{own}:{port}"' for name, port in PORTS.items()]
        for node in NODES:
            lines += ["[[peers]]", f"id = {node}", f'host = "{self.net.address(node)}"',
                      f"raft_port = {PORTS['raft']}", f"bulk_port = {PORTS['bulk']}"]
        self.dir.mkdir(parents=True, exist_ok=True)
        (self.dir / "node.toml").write_text("\n".join(lines) + "\n")
        # librdkafka (2.16) never comes back from a coordinator that left the list of brokers.
        sets = ["kafka.broker_session_timeout_ms=120000", "log.retention_check_ms=5000",
                f"groups.consumer_session_timeout_ms={SESSION}",
                f"groups.consumer_heartbeat_interval_ms={HEARTBEAT}", *sets]
        self.sets = [word for one in sets for word in ("--set", one)]

    def start(self):
        assert not self.runs()
        log = open(self.dir / "log", "ab")
        with log:
            self._own = subprocess.Popen(
                [*self.net.enter(self.number), TRINE, "node", "--config",
                 self.dir / "node.toml", "--parent-pid", str(os.getpid()), *self.sets],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.down = False

    def runs(self):
        return self._own is not None and self._own.poll() is None

    def kill(self):
        """SIGKILL, of a stopped process too."""
        self.down = True
        if self.runs():
            self._own.kill()
            self._own.wait()
        self.stopped = False

    def wipe(self):
        """Loses everything in the data directory, which may be a mounted file system."""
        assert not self.runs()
        for entry in self.data_dir.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def ready(self):
        try:
            return self.get("/readyz").status_code == 200
        except requests.RequestException:
            return False


class TorturedCluster(Cluster):
    """Not by `trine local`: nodes have addresses of their own. Always close it."""

    def __init__(self, directory, say, small_disks, use_namespaces=True, sets=()):
        self.dir = directory
        self.net, self.disks = network.Loopback(), None
        if use_namespaces:
            try:
                self.net = network.Network()
            except network.NotPermitted as e:
                say(f"no network cuts: namespaces are not permitted here ({e})")
        self.nodes = [TorturedNode(n, directory, self.net) for n in NODES]
        try:
            if small_disks:
                try:
                    self.disks = disks.Disks([n.data_dir for n in self.nodes])
                except disks.NotPermitted as e:
                    say(f"no full disks: file systems cannot be mounted here ({e})")
            for node in self.nodes:
                node.write_config(disks.RESERVE_BYTES if self.disks else 0, sets)
                node.start()
            self.wait_ready(60)
        except BaseException:
            self.close()
            raise

    @property
    def can_cut(self):
        return isinstance(self.net, network.Network)

    def leads_most(self):
        """The node that leads most data groups as node statuses tell it; None when none tells."""
        try:
            leaders = [g["leader"] for g in self.status()["groups"]]
        except AssertionError:
            return None
        leaders = [leader for leader in leaders if leader in NODES]
        return self.node(max(leaders, key=leaders.count)) if leaders else None

    def close(self):
        for node in self.nodes:
            node.kill()
        if self.disks:
            self.disks.close()
        self.net.close()

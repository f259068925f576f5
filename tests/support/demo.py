"""The SFTP server of `trine demo`, with nodes that collect from it."""

import base64
import contextlib
import hashlib
import json
import os
import pathlib
import subprocess

from cryptography.hazmat.primitives.serialization import (
    Encoding, PublicFormat, load_ssh_private_key,
)

from support.cluster import NODES, Cluster, Node
from support.paths import TRINE
from support.pipelines import write_files


class Demo(Cluster):
    """`trine demo` whose sample is one file and whose own pipeline is gone."""

    def __init__(self, directory):
        self._temporary = False
        self.dir = pathlib.Path(directory)
        write_files(self.dir / "sample", 1)
        # Says that the sample is complete: the demo writes no files of its own.
        (self.dir / "sample.written").touch()
        self.local = subprocess.Popen(
            [TRINE, "-o", "json", "demo", "--dir", self.dir, "--port-base", "free",
             "--set", "disk.reserve_bytes=0"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        try:
            ports = json.loads(self._line())
            nodes = self.dir.resolve() / "cluster"
            self.nodes = [Node(n, nodes, ports[str(n)]) for n in NODES]
            assert json.loads(self._line())["documents"] == 1
            (row,) = self.rows("pipeline")
            self.json("pipeline", "delete", row["pipeline"])
        except BaseException:
            self.close()
            raise

    def json(self, *words):
        result = self.run("-o", "json", *words)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    def rows(self, kind):
        return self.json(kind, "list")

    @property
    def sftp_port(self):
        """The only port on which the demo's own process listens."""
        links = []
        for entry in pathlib.Path(f"/proc/{self.local.pid}/fd").iterdir():
            # A descriptor may be closed meanwhile.
            with contextlib.suppress(FileNotFoundError):
                links.append(os.readlink(entry))
        rows = [line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
        listening = "0A"
        (port,) = {int(row[1].rsplit(":", 1)[1], 16) for row in rows
                   if row[3] == listening and f"socket:[{row[9]}]" in links}
        return port

    @property
    def host_key(self):
        """Fingerprint of the server's key."""
        key = load_ssh_private_key((self.dir / "sftp" / "host_key").read_bytes(), None)
        line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        digest = hashlib.sha256(base64.b64decode(line.split()[1])).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    def pipeline(self, name, port):
        """TOML of a pipeline that collects the directory of that name from a port."""
        return f"""\
name = "{name}"
topic = "{name}"
partitions = 3
directory = "/datalake/{name}"
index = "{name}"

[source]
type = "sftp"
host = "127.0.0.1"
port = {port}
user = "demo"
password = "{(self.dir / "sftp" / "password").read_text()}"
host_keys = ["{self.host_key}"]
path = "/{name}"
settle_ms = 300
scan_interval_ms = 500
"""

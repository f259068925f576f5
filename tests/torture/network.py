"""Three network namespaces on one bridge, and cuts between any two ends.

A cut is a wrong permanent neighbour entry: packets from one address to another go to a hardware
address that nobody has. That is silent, has a direction, and needs no firewall. Clients sit at
the bridge itself.
"""

import os
import subprocess

NOWHERE = "02:00:00:00:00:ff"
CLIENTS = 0


class NotPermitted(Exception):
    """Namespaces cannot be made here."""


def ip(*words):
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


class Network:
    """Node n has address `<net>.n`; clients have `<net>.254`."""

    def __init__(self):
        self.tag = f"tt{os.getpid() % 100_000}"
        self.net = f"10.213.{os.getpid() % 250}"
        self.cuts = set()
        try:
            self._make()
        except OSError as e:
            self.close()
            raise NotPermitted(str(e)) from e

    def _make(self):
        bridge = self.tag
        ip("link", "add", bridge, "type", "bridge")
        ip("addr", "add", f"{self.net}.254/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        for node in (1, 2, 3):
            name, outside = self.namespace(node), f"{self.tag}v{node}"
            ip("netns", "add", name)
            ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", outside, "master", bridge)
            ip("link", "set", outside, "up")
            ip("-n", name, "addr", "add", f"{self.address(node)}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "eth0", "up")

    def namespace(self, node):
        return f"{self.tag}n{node}"

    def address(self, end):
        return f"{self.net}.{end or 254}"

    def enter(self, node):
        """Words before a command that shall run on a node's side."""
        return ["ip", "netns", "exec", self.namespace(node)]

    def _neighbour(self, verb, source, target, *more):
        inside = ["-n", self.namespace(source)] if source else []
        device = "eth0" if source else self.tag
        ip(*inside, "neigh", verb, self.address(target), *more, "dev", device)

    def cut(self, source, target):
        """Nothing goes from one end to the other any more; 0 are the clients."""
        self._neighbour("replace", source, target, "lladdr", NOWHERE, "nud", "permanent")
        self.cuts.add((source, target))

    def heal(self):
        """Ends all cuts; whether there were any."""
        cuts, self.cuts = self.cuts, set()
        for source, target in sorted(cuts):
            self._neighbour("del", source, target)
        return bool(cuts)

    def close(self):
        for node in (1, 2, 3):
            subprocess.run(["ip", "netns", "del", self.namespace(node)], capture_output=True)
            # The other end of the pair goes with the namespace, but not at once.
            subprocess.run(["ip", "link", "del", f"{self.tag}v{node}"], capture_output=True)
        subprocess.run(["ip", "link", "del", self.tag], capture_output=True)


class Loopback:
    """Nodes on loopback addresses, where namespaces are not permitted: nothing can be cut."""

    def __init__(self):
        self.net = f"127.77.{os.getpid() % 250}"

    def address(self, end):
        return f"{self.net}.{end or 254}"

    def enter(self, node):
        return []

    def heal(self):
        """Nothing was cut."""
        return False

    def close(self):
        """Nothing to remove."""

"""What goes wrong, and when, drawn from a seed."""

import random
import signal
import time

from torture.history import now
from torture.network import CLIENTS

NODES = (1, 2, 3)
NEED_NETWORK = {"isolate", "isolate-from-all", "one-way", "deaf", "cut-pair"}
NEED_DISKS = {"low-disk", "full-disk"}
NAMES = {"kill-one", "kill-leader", "kill-two", "kill-all", "stop-leader", "stop-any", "wipe-one",
         "hurt-member", "restart-politely"} | NEED_NETWORK | NEED_DISKS


# Exit code when a fault that was asked for cannot be made here.
CANNOT_BREAK = 3


class CannotBreak(Exception):
    """A fault that was asked for needs what is not permitted here."""


class Faults:
    """Breaks and mends a cluster until its time is over."""

    def __init__(self, cluster, members, recorder, seed, say):
        self.cluster, self.members, self.recorder, self.say = cluster, members, recorder, say
        self.random = random.Random(f"faults {seed}")
        # Until when a death is no wonder: the disk was full.
        self.forgiven = 0.0
        self.kinds = [(3, self.kill_one), (3, self.kill_leader), (1, self.kill_two),
                      (2, self.kill_all), (3, self.stop_leader), (1, self.stop_any),
                      (1, self.wipe_one), (2, self.hurt_member), (1, self.restart_politely)]
        if cluster.can_cut:
            self.kinds += [(3, self.isolate), (2, self.isolate_from_all), (3, self.one_way),
                           (2, self.deaf), (2, self.cut_pair)]
        if cluster.disks:
            self.kinds += [(4, self.low_disk), (3, self.full_disk)]

    def tell(self, what):
        self.say(f"  {what}")
        self.recorder.note("fault", what=what, t=now())

    def run(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.wait(0.3 + 2.5 * self.random.random())
            self.one()
            if self.random.random() < 0.25:
                self.wait(0.2 + self.random.random())
                self.one()
            self.wait(0.5 + 3.5 * self.random.random())
            if self.random.random() < 0.8:
                self.mend()
        self.mend()
        self.tell("everything is mended")

    def follow(self, names, seconds):
        """One fault after the other, each mended; again until the time is over."""
        if NEED_NETWORK & set(names) and not self.cluster.can_cut:
            raise CannotBreak("network namespaces are not permitted here")
        if NEED_DISKS & set(names) and not self.cluster.disks:
            raise CannotBreak("file systems cannot be mounted here")
        end = time.monotonic() + seconds
        while True:
            for name in names:
                self.wait(1.5)
                getattr(self, name.replace("-", "_"))()
                self.wait(1.5)
                self.mend()
            if time.monotonic() >= end:
                break
        self.tell("everything is mended")

    def one(self):
        weights, kinds = zip(*self.kinds)
        self.random.choices(kinds, weights)[0]()

    def wait(self, seconds):
        """Lets time pass, and looks after nodes that died by themselves."""
        end = time.monotonic() + seconds
        while True:
            for node in self.cluster.nodes:
                if not node.down and not node.runs():
                    self.buried(node)
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.2))

    def buried(self, node):
        node.down = True
        if time.monotonic() < self.forgiven:
            return self.tell(f"node {node.number} ended: its disk was full")
        text = f"node {node.number} died by itself:\n{node.log_tail(12)}"
        self.recorder.note("broken", what=text, t=now())
        return self.say(text)

    def mend(self):
        if self.cluster.net.heal():
            self.tell("the network is whole")
        if self.cluster.disks:
            for node in self.cluster.nodes:
                self.cluster.disks.free(node.data_dir)
        for member in self.members:
            member.mend()
        for node in self.cluster.nodes:
            if node.stopped:
                node.stopped = False
                node.signal(signal.SIGCONT)
            if not node.runs():
                self.tell(f"node {node.number} starts")
                node.start()
        if self.forgiven > time.monotonic():
            # Written before the room came back.
            self.forgiven = time.monotonic() + 5

    # Faults.

    def any_node(self):
        return self.cluster.node(self.random.choice(NODES))

    def leader(self):
        return self.cluster.leads_most() or self.any_node()

    def kill(self, nodes, why=""):
        self.tell(f"kill -9 of {', '.join(f'node {n.number}' for n in nodes)}{why}")
        # All at the same moment, as when a rack loses its power.
        for node in nodes:
            if node.runs():
                node.signal(signal.SIGKILL)
        for node in nodes:
            node.kill()

    def kill_one(self):
        self.kill([self.any_node()])

    def kill_leader(self):
        self.kill([self.leader()], ", which leads most groups")

    def kill_two(self):
        self.kill(self.random.sample(self.cluster.nodes, 2))

    def kill_all(self):
        self.kill(self.cluster.nodes)
        if self.random.random() < 0.7:
            self.mend()

    def restart_politely(self):
        node = self.any_node()
        if node.runs() and not node.stopped:
            self.tell(f"node {node.number} is asked to stop")
            node.down = True
            node.stop(30)

    def stop(self, node):
        if node.runs() and not node.stopped:
            seconds = 2 + 13 * self.random.random()
            self.tell(f"SIGSTOP of node {node.number} for {seconds:.1f} s")
            node.stopped = True
            node.signal(signal.SIGSTOP)
            self.wait(seconds)
            if node.stopped:
                node.stopped = False
                node.signal(signal.SIGCONT)
                self.tell(f"SIGCONT of node {node.number}")

    def stop_leader(self):
        self.stop(self.leader())

    def stop_any(self):
        self.stop(self.any_node())

    def wipe_one(self):
        """Only when all three are well: whoever loses two disks may lose data."""
        if not all(n.runs() and n.ready() for n in self.cluster.nodes):
            return
        node = self.any_node()
        self.kill([node], " and its disk is wiped")
        node.wipe()
        node.start()

    def hurt_member(self):
        if self.members:
            self.random.choice(self.members).hurt(self.random, self.tell)

    def cut(self, pairs, what):
        self.tell(what)
        for source, target in pairs:
            self.cluster.net.cut(source, target)

    def isolate(self):
        """Clients stay attached to it."""
        node = self.leader().number
        others = [n for n in NODES if n != node]
        pairs = [(node, n) for n in others] + [(n, node) for n in others]
        self.cut(pairs, f"node {node} is cut off from the others, not from clients")
        self.wait(2 + 6 * self.random.random())

    def isolate_from_all(self):
        node = self.leader().number
        others = [n for n in (CLIENTS, *NODES) if n != node]
        pairs = [(node, n) for n in others] + [(n, node) for n in others]
        self.cut(pairs, f"node {node} is cut off from everyone")
        self.wait(2 + 4 * self.random.random())

    def one_way(self):
        source, target = self.random.sample(NODES, 2)
        self.cut([(source, target)], f"nothing goes from node {source} to node {target}")
        self.wait(1 + 5 * self.random.random())

    def deaf(self):
        """The leader is heard by the others and hears none of them."""
        node = self.leader().number
        pairs = [(n, node) for n in NODES if n != node]
        self.cut(pairs, f"node {node} hears nothing from the other nodes")
        self.wait(2 + 5 * self.random.random())

    def cut_pair(self):
        """Both still reach the third."""
        one, other = self.random.sample(NODES, 2)
        self.cut([(one, other), (other, one)], f"nodes {one} and {other} do not reach each other")
        self.wait(2 + 5 * self.random.random())

    def low_disk(self):
        from torture.disks import RESERVE_BYTES
        # A node that was wiped takes what it lacks, whether or not there is a reserve.
        well = [node for node in self.cluster.nodes if node.runs() and node.ready()]
        nodes = self.random.sample(well, self.random.randint(min(1, len(well)), len(well)))
        self.tell(f"less than the reserve is free on {[n.number for n in nodes]}")
        for node in nodes:
            self.cluster.disks.fill(node.data_dir, RESERVE_BYTES // 2)
        self.wait(1 + 3 * self.random.random())

    def full_disk(self):
        node = self.any_node()
        self.tell(f"nothing is free on node {node.number}")
        self.forgiven = time.monotonic() + 60
        self.cluster.disks.fill(node.data_dir, 0)
        self.wait(1 + 3 * self.random.random())

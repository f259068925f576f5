"""Files survive the loss of a node, and the node gets its copies back."""

import os
import threading

import hdfs
import pytest
from support.wait import wait_until

# Small blocks lie in packs, larger ones in files of their own, the largest has many pieces.
SIZES = [0, 1, 100_000, 900_000, 3_000_000, 20_000_000]


def client(cluster, number):
    address = cluster.webhdfs[number - 1].removeprefix("http://")
    return hdfs.InsecureClient(f"http://{address}", user="root", timeout=30)


def put(cluster, number, path, body):
    # While a new leader is found a request may fail; the client asks again.
    def done():
        client(cluster, number).write(path, data=body, overwrite=True)
        return True

    wait_until(done, 30, f"write of {path}")


def get(cluster, number, path):
    with client(cluster, number).read(path) as reader:
        return reader.read()


def check(cluster, numbers, files):
    """Every file is whole through each of these nodes."""
    for number in numbers:
        for path, body in files.items():
            found = wait_until(lambda p=path, n=number: [get(cluster, n, p)], 30,
                               f"read of {path} through node {number}")
            assert found == [body], path


def holds(node, marks):
    """Whether all these byte strings lie in the node's block files."""
    left = set(marks)
    for path in (node.data_dir / "blocks").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            left = {mark for mark in left if mark not in content}
    return not left


def test_writes_go_on_and_copies_come_back(own_cluster):
    cluster = own_cluster()
    before = {f"/n/before {n}": os.urandom(n * 40_000) for n in range(30)}
    for path, body in before.items():
        put(cluster, 1, path, body)
    cluster.node(3).kill()
    while_away = {f"/n/away {size}": os.urandom(size) for size in SIZES}
    for path, body in while_away.items():
        put(cluster, 1, path, body)
    check(cluster, [1, 2], before | while_away)
    cluster.node(3).start()
    cluster.wait_ready()
    check(cluster, [3], before | while_away)
    # What was written while it was away is copied to it, not only read from the others.
    marks = [body[:256] for body in while_away.values() if len(body) > 256]
    wait_until(lambda: holds(cluster.node(3), marks), 60, "copies on node 3", pause=0.5)
    cluster.node(1).kill()
    check(cluster, [2, 3], before | while_away)


@pytest.mark.parametrize("victim", ["writer", "leader"])
def test_files_are_read_where_they_were_not_written(own_cluster, victim):
    """The node that took the files dies, or the one that leads the namespace."""
    cluster = own_cluster()
    leader = cluster.leader("fs").number
    writer = leader if victim == "leader" else leader % 3 + 1
    files = {f"/w/크기 {size}": os.urandom(size) for size in SIZES}
    for path, body in files.items():
        put(cluster, writer, path, body)
    others = [n for n in (1, 2, 3) if n != writer]
    check(cluster, others, files)
    cluster.node(writer).kill()
    check(cluster, others, files)
    for path in files:
        put(cluster, others[0], f"{path} again", files[path])
    check(cluster, others, {f"{path} again": body for path, body in files.items()})


def test_an_upload_outlives_the_leader(own_cluster):
    """A large file is on its way through one node while the namespace's leader dies."""
    cluster = own_cluster()
    dead = cluster.leader("fs")
    through = dead.number % 3 + 1
    piece = os.urandom(1 << 20)
    body, killed = piece * 40, threading.Event()

    def pieces():
        for number in range(40):
            if number == 20:
                dead.kill()
                killed.set()
            yield piece

    try:
        client(cluster, through).write("/u/large", data=pieces())
        broke_off = False
    except Exception:  # noqa: BLE001 - an upload may fail, but not half
        broke_off = True
    assert killed.is_set()
    if broke_off:
        put(cluster, through, "/u/large", body)
    for number in {1, 2, 3} - {dead.number}:
        assert get(cluster, number, "/u/large") == body
    print("the upload " + ("was refused and sent again" if broke_off else "went through"))

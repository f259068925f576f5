"""Files survive the loss of a node, and the node gets its copies back."""

import os

import hdfs
from support.wait import wait_until


def client(cluster, number):
    address = cluster.webhdfs[number - 1].removeprefix("http://")
    return hdfs.InsecureClient(f"http://{address}", user="root", timeout=30)


def test_writes_go_on_and_copies_come_back(own_cluster):
    cluster = own_cluster()
    files = {f"/n/{n}": os.urandom(n * 40_000) for n in range(30)}
    half = len(files) // 2
    for path, body in list(files.items())[:half]:
        client(cluster, 1).write(path, data=body)
    cluster.node(3).kill()

    def put(path, body):
        # While a new leader is found a request may fail; the client asks again.
        client(cluster, 1).write(path, data=body, overwrite=True)
        return True

    for path, body in list(files.items())[half:]:
        wait_until(lambda p=path, b=body: put(p, b), 30, f"write of {path}")
    cluster.node(3).start()
    cluster.wait_ready()

    def all_from(number):
        for path, body in files.items():
            with client(cluster, number).read(path) as reader:
                assert reader.read() == body, path
        return True

    wait_until(lambda: all_from(3), 30, "reads through node 3")

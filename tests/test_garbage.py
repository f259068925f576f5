"""What no client should send: every port answers with its protocol's own error or closes the
connection, memory stays bounded, and the node lives on."""

import random
import socket
import struct
import time

import pytest

from support.cluster import NODES
from support.wait import wait_until

HTTP = ["webhdfs", "datanode_http", "elastic", "console"]
BINARY = ["kafka", "raft", "bulk"]
ALL = HTTP + BINARY

# A node may grow by this much through everything that one test sends.
MAX_GROWTH_BYTES = 256 << 20
SILENCE_SECONDS = 15


@pytest.fixture(autouse=True)
def the_node_survives(cluster):
    """The node that is attacked stays alive, ready and small."""
    node = cluster.node(1)
    pid, before = node.pid, node.rss_bytes()
    yield
    assert node.alive() and node.pid == pid, node.log_tail()
    wait_until(lambda: node.get("/readyz").status_code == 200, 20, "readiness")
    assert "panicked" not in node.log_tail(2000)
    growth = node.rss_bytes() - before
    assert growth < MAX_GROWTH_BYTES, f"grew by {growth >> 20} MiB"


def connect(cluster, port):
    host, number = cluster.node(1).ports[port].split(":")
    connection = socket.create_connection((host, int(number)), timeout=10)
    connection.settimeout(SILENCE_SECONDS)
    return connection


def answer(connection, limit=1 << 20):
    """What comes back until the peer closes or is silent; None for silence from the start."""
    got = b""
    try:
        while len(got) < limit:
            more = connection.recv(65536)
            if not more:
                return got
            got += more
    except TimeoutError:
        return got or None
    except ConnectionError:
        return got
    return got


def send(connection, data):
    """Sends as much as the peer takes; a peer that closes early is within its rights."""
    try:
        connection.sendall(data)
        return True
    except (ConnectionError, TimeoutError):
        return False


def check_refused(port, got):
    """An error of the protocol, or a closed connection; never silence."""
    assert got is not None, f"{port} neither answers nor closes"
    if port in HTTP and got:
        assert got.startswith(b"HTTP/1."), got[:80]
        assert got.split(b" ", 2)[1][:1] in (b"4", b"5"), got[:80]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("port", ALL)
def test_random_bytes(cluster, port, seed):
    with connect(cluster, port) as connection:
        send(connection, random.Random(seed).randbytes(100_000))
        try:
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        check_refused(port, answer(connection))


def kafka_frame(key, version, body, size=None):
    head = struct.pack(">hhih", key, version, 7, 4) + b"test"
    payload = head + body
    return struct.pack(">i", len(payload) if size is None else size) + payload


METADATA = kafka_frame(3, 1, struct.pack(">i", -1))
REQUESTS = {
    "kafka": METADATA,
    "webhdfs": b"GET /webhdfs/v1/?op=LISTSTATUS HTTP/1.1\r\nHost: x\r\n\r\n",
    "datanode_http": b"GET /webhdfs/v1/none?op=OPEN HTTP/1.1\r\nHost: x\r\n\r\n",
    "elastic": b"POST /_search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
               b"Content-Length: 2\r\n\r\n{}",
    "console": b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("port", REQUESTS)
def test_truncated_requests(cluster, port):
    request = REQUESTS[port]
    for end in range(1, len(request), 3):
        with connect(cluster, port) as connection:
            send(connection, request[:end])
            connection.shutdown(socket.SHUT_WR)
            check_refused(port, answer(connection))


@pytest.mark.parametrize("size", [0, -1, -2**31, 3, 2**31 - 1, 1 << 30])
def test_kafka_frames_of_impossible_size(cluster, size):
    with connect(cluster, "kafka") as connection:
        send(connection, struct.pack(">i", size) + b"\0" * 1000)
        if 0 <= size < 100 << 20:
            connection.shutdown(socket.SHUT_WR)
        check_refused("kafka", answer(connection))


@pytest.mark.parametrize("key", [*range(0, 40), 999, -1])
@pytest.mark.parametrize("version", [-1, 0, 1, 4, 9, 32767])
def test_kafka_bodies_whose_lengths_lie(cluster, key, version):
    huge = [
        struct.pack(">i", 2**31 - 1),
        struct.pack(">hi", 32767, 2**31 - 1),
        b"\xff\xff\xff\xff\x07" * 4,
        b"\0" + b"\xff" * 12,
        b"",
    ]
    for body in huge:
        with connect(cluster, "kafka") as connection:
            connection.settimeout(SILENCE_SECONDS)
            send(connection, kafka_frame(key, version, body))
            connection.shutdown(socket.SHUT_WR)
            assert answer(connection) is not None


def test_kafka_batches_whose_lengths_lie(cluster, name):
    batch = bytearray(struct.pack(">qiibIhiqqqhii", 0, 2**31 - 1, -1, 2, 0, 0, 2**31 - 1,
                                  0, 0, -1, -1, -1, 2**31 - 1) + b"\xff" * 200)
    topic = name.encode()
    for size in (len(batch), 2**31 - 1, -2):
        body = struct.pack(">hhii", -1, -1, 1000, 1) + struct.pack(">h", len(topic)) + topic
        body += struct.pack(">iii", 1, 0, size) + bytes(batch)
        with connect(cluster, "kafka") as connection:
            send(connection, kafka_frame(0, 7, body))
            connection.shutdown(socket.SHUT_WR)
            assert answer(connection) is not None


@pytest.mark.parametrize("port", HTTP)
@pytest.mark.parametrize("head", [
    b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: " + b"b" * (4 << 20) + b"\r\n\r\n",
    b"GET /" + b"a" * (4 << 20) + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"".join(b"h%d: x\r\n" % n for n in range(20_000)) + b"\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"BREW / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    b"GET /%zz%00%ff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500,
], ids=["header", "path", "headers", "version", "method", "escape", "tls"])
def test_http_heads_out_of_bounds(cluster, port, head):
    with connect(cluster, port) as connection:
        send(connection, head)
        try:
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        check_refused(port, answer(connection))


BODY_PATHS = {
    "webhdfs": b"PUT /webhdfs/v1/garbage?op=CREATE",
    "datanode_http": b"PUT /webhdfs/v1/garbage?op=CREATE",
    "elastic": b"POST /_bulk",
    "console": b"PUT /api/pipelines",
}


@pytest.mark.parametrize("port", HTTP)
def test_http_bodies_that_never_end(cluster, port):
    """A body said to be huge is refused or limited, not kept in memory."""
    head = BODY_PATHS[port] + b" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with connect(cluster, port) as connection:
        send(connection, head + b"Content-Length: 10995116277760\r\n\r\n")
        connection.settimeout(2)
        for _ in range(128):
            if not send(connection, b"{" * (1 << 20)):
                break


@pytest.mark.parametrize("port", HTTP)
@pytest.mark.parametrize("chunk", [b"ffffffffffffffff\r\n", b"-1\r\n", b"zz\r\n", b"7fffffff\r\nx"])
def test_http_chunks_that_lie(cluster, port, chunk):
    head = BODY_PATHS[port] + b" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with connect(cluster, port) as connection:
        send(connection, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk)
        connection.shutdown(socket.SHUT_WR)
        got = answer(connection)
        assert got is not None
        if got and port != "webhdfs":
            check_refused(port, got)


@pytest.mark.parametrize("port", HTTP)
def test_http_body_shorter_than_said(cluster, port):
    head = BODY_PATHS[port] + b" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with connect(cluster, port) as connection:
        send(connection, head + b"Content-Length: 1000\r\n\r\n{")
        connection.shutdown(socket.SHUT_WR)
        assert answer(connection) is not None


@pytest.mark.parametrize("body", [
    b"[" * 200_000,
    b'{"query":' * 20_000,
    b'{"query":{"bool":{"must":[' * 2_000,
    b'{"size":1e999}',
    b'{"query":{"match":{"a":"' + b"x " * 500_000 + b'"}}}',
    b"\xff\xfe{}",
], ids=["arrays", "objects", "bools", "number", "long", "utf16"])
def test_elastic_bodies_that_nest_or_lie(cluster, body):
    head = (b"POST /_search HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body))
    with connect(cluster, "elastic") as connection:
        send(connection, head + body)
        got = answer(connection)
        # Where there is no index, nothing looks at the words of a long but well-formed query.
        if not (body.endswith(b'"}}}') and got and got.startswith(b"HTTP/1.1 200")):
            check_refused("elastic", got)


@pytest.mark.parametrize("port", ALL)
def test_slow_drips_do_not_block_others(cluster, port):
    """Fifty connections send a byte now and then; the node goes on serving."""
    drops = REQUESTS.get(port, b"\0\0\1\0" + b"\0" * 60)
    connections = [connect(cluster, port) for _ in range(50)]
    try:
        for at in range(30):
            for connection in connections:
                send(connection, drops[at:at + 1])
            time.sleep(0.05)
        began = time.monotonic()
        assert cluster.node(1).get("/healthz").status_code == 200
        assert time.monotonic() - began < 3
    finally:
        for connection in connections:
            connection.close()


def test_elastic_bodies_that_stall_do_not_keep_others_out(cluster):
    """More unfinished requests than are answered at once, and large ones that take what memory
    there is for large ones."""
    head = b"POST /_bulk HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    lengths = [1000] * 300 + [100 << 20] * 4
    connections = [connect(cluster, "elastic") for _ in lengths]
    try:
        for connection, length in zip(connections, lengths):
            send(connection, head + b"Content-Length: %d\r\n\r\n{" % length)
        with connect(cluster, "elastic") as connection:
            body = b'{"query":{"match_all":{}}}'
            send(connection, head.replace(b"_bulk", b"_search")
                 + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            assert (answer(connection) or b"").startswith(b"HTTP/1.1 200")
    finally:
        for connection in connections:
            connection.close()


@pytest.mark.parametrize("port", ALL)
def test_connections_that_say_nothing(cluster, port):
    connections = [connect(cluster, port) for _ in range(200)]
    try:
        assert cluster.node(1).get("/healthz").status_code == 200
    finally:
        for connection in connections:
            connection.close()


def test_the_cluster_still_works(cluster):
    for number in NODES:
        assert cluster.node(number).get("/readyz").status_code == 200
    cluster.wait_equal_digests()

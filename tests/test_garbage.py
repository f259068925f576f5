"""What no client should send: every port answers with its protocol's own error or closes the
connection, memory stays bounded, and the node lives on."""

import random
import socket
import struct
import threading
import time

import pytest

from support.cluster import NODES
from support.raw_kafka import RawKafka
from support.wait import wait_until

HTTP = ["webhdfs", "datanode_http", "elastic", "console"]
PEER = ["raft", "bulk"]
ALL = HTTP + ["kafka"] + PEER

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


HUGE = [
    struct.pack(">i", 2**31 - 1),
    struct.pack(">hi", 32767, 2**31 - 1),
    b"\xff\xff\xff\xff\x07" * 4,
    b"\0" + b"\xff" * 12,
    b"",
]


def test_kafka_bodies_whose_lengths_lie(cluster):
    """Every API in its lowest and its highest version. Where the version or the API itself is not
    there, nothing looks at the body, so that one is enough. A connection is used again as long as
    it is answered."""
    raw = RawKafka(cluster.kafka[0])
    known = raw.api_versions(0)
    raw.close()
    frames = [(key, version, body) for key, versions in known.items()
              for version in sorted(set(versions)) for body in HUGE]
    frames += [(key, version, HUGE[0]) for key, (_, high) in known.items()
               for version in (-1, high + 1, 32767)]
    frames += [(key, 0, HUGE[0]) for key in (-1, max(known) + 1, 999, 32767)]
    connection = None
    for frame in frames:
        connection = connection or connect(cluster, "kafka")
        send(connection, kafka_frame(*frame))
        if not is_answered(connection, frame):
            connection.close()
            connection = None
    if connection:
        connection.close()


def is_answered(connection, frame):
    """Whether a whole answer came; False when the connection was closed instead."""
    data = b""
    try:
        while len(data) < 4 or len(data) < 4 + struct.unpack(">i", data[:4])[0]:
            more = connection.recv(65536)
            if not more:
                return False
            data += more
    except ConnectionError:
        return False
    except TimeoutError:
        raise AssertionError(f"silence after {frame}") from None
    assert data[4:8] == struct.pack(">i", 7), f"another answer than that to {frame}"
    return True


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
    "webhdfs": b"PUT /webhdfs/v1/garbage?op=CREATE&overwrite=true&user.name=root",
    "datanode_http": b"PUT /webhdfs/v1/garbage?op=CREATE&overwrite=true&user.name=root",
    "elastic": b"POST /_bulk",
    "console": b"PUT /api/pipelines",
}


@pytest.mark.parametrize("port", HTTP)
def test_http_bodies_that_never_end(cluster, port):
    """A body said to be huge is refused, or goes to the disk; it is not kept in memory."""
    before, size = cluster.node(1).rss_bytes(), 128 << 20
    head = BODY_PATHS[port] + b" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with connect(cluster, port) as connection:
        send(connection, head + b"Content-Length: 10995116277760\r\n\r\n")
        part = b"{" * (1 << 20)
        for _ in range(size // len(part)):
            if not send(connection, part):
                break
        assert cluster.node(1).rss_bytes() - before < size * 3 // 4
        # What the node has said before it was sent all that is still to be read.
        try:
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        check_refused(port, answer(connection))


@pytest.mark.parametrize("port", HTTP)
@pytest.mark.parametrize("chunk", [b"ffffffffffffffff\r\n", b"-1\r\n", b"zz\r\n", b"7fffffff\r\nx"])
def test_http_chunks_that_lie(cluster, port, chunk):
    head = BODY_PATHS[port] + b" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with connect(cluster, port) as connection:
        send(connection, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk)
        connection.shutdown(socket.SHUT_WR)
        check_refused(port, answer(connection))


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


def greeting(cluster, port):
    """What node 2 says first to node 1."""
    lane = {"raft": 0, "bulk": 2}[port]
    head = b"TRNP\x01" + struct.pack("<BHHQ", lane, 2, 1, 1)
    return head + bytes.fromhex(cluster.status(1)["cluster_id"])


WELCOME = b"\0"


def request_of(cluster, port):
    return greeting(cluster, port) if port in PEER else REQUESTS[port]


def check_serves(cluster, port, deadline):
    """A sound request over a new connection has its normal answer within the deadline."""
    expected = {"kafka": struct.pack(">i", 7), "datanode_http": b"HTTP/1.1 404 "}
    expected = WELCOME if port in PEER else expected.get(port, b"HTTP/1.1 200 ")
    # The answer of Kafka begins with its own size.
    skipped = 4 if port == "kafka" else 0
    end, got = time.monotonic() + deadline, b""
    with connect(cluster, port) as connection:
        send(connection, request_of(cluster, port))
        while len(got) < skipped + len(expected):
            connection.settimeout(max(0.01, end - time.monotonic()))
            try:
                more = connection.recv(65536)
            except TimeoutError:
                raise AssertionError(f"{port} does not answer within {deadline} s") from None
            assert more, f"closed after {got}"
            got += more
    assert got[skipped:].startswith(expected), got[:80]


@pytest.mark.parametrize("port", ALL)
def test_slow_drips_do_not_keep_others_out(cluster, port):
    """Fifty connections send a byte now and then; the node goes on serving, at that port too."""
    drops = request_of(cluster, port)
    connections = [connect(cluster, port) for _ in range(50)]
    try:
        for at in range(20):
            for connection in connections:
                send(connection, drops[at:at + 1])
            if at in (10, 19):
                check_serves(cluster, port, 10)
            time.sleep(0.05)
        assert cluster.node(1).get("/healthz").status_code == 200
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


MAX_PEER_FRAME = 32 << 20
REQUEST, ANSWER, REFUSAL = 0, 1, 2
IDENTITY = 8


def peer_frame(kind, method, number, head=b"", payload=b"", size=None, head_size=None):
    body = struct.pack("<BHQI", kind, method, number, len(head) if head_size is None else head_size)
    body += head + payload
    return struct.pack("<I", len(body) if size is None else size) + body


def peer_answers(connection, count):
    """Number of a request to the kind of its answer."""
    data, found = b"", {}
    while len(found) < count:
        more = connection.recv(65536)
        assert more, f"closed after {len(found)} of {count} answers"
        data += more
        while len(data) >= 4 and len(data) >= 4 + struct.unpack("<I", data[:4])[0]:
            kind, _, number, _ = struct.unpack("<BHQI", data[4:19])
            found[number] = kind
            data = data[4 + struct.unpack("<I", data[:4])[0]:]
    return found


@pytest.fixture
def peer(cluster):
    """Makes connections that are taken for those of node 2. Afterwards every group has the leader
    that it had."""
    def leaders():
        return {g["id"]: (g["leader"], g["term"]) for g in cluster.status()["groups"]}

    def spread():
        """Leaders move to where they belong in the first seconds of a cluster."""
        found = leaders()
        nodes = [leader for leader, _ in found.values()]
        return sorted(nodes.count(n) for n in NODES) == [2, 3, 3] and found

    made, before = [], wait_until(spread, 90, "leaders on all nodes")

    def make(port, deadline=SILENCE_SECONDS):
        made.append(connect(cluster, port))
        made[-1].settimeout(deadline)
        made[-1].sendall(greeting(cluster, port))
        assert made[-1].recv(1) == WELCOME
        return made[-1]

    yield make
    for connection in made:
        connection.close()

    def unharmed():
        """An election of a busy machine is no harm; a term out of a frame would be far away."""
        now = leaders()
        return now.keys() == before.keys() and all(
            leader and before[group][1] <= term < before[group][1] + 20
            for group, (leader, term) in now.items())

    wait_until(unharmed, 60, "leaders of about the same terms")
    cluster.wait_equal_digests()


@pytest.mark.parametrize("port", PEER)
def test_peer_frames_that_are_cut_or_lie(cluster, peer, port):
    """The connection ends, and nothing else does."""
    sound = peer_frame(REQUEST, IDENTITY, 1, b"head", b"payload")
    lies = [peer_frame(REQUEST, IDENTITY, 1, size=size)
            for size in (0, 14, MAX_PEER_FRAME + 1, 2**31, 2**32 - 1)]
    lies += [peer_frame(REQUEST, IDENTITY, 1, b"head", head_size=size) for size in (5, 2**32 - 1)]
    lies += [peer_frame(kind, IDENTITY, 1) for kind in (3, 255)]
    for frame in [sound[:cut] for cut in range(1, len(sound))] + lies:
        connection = peer(port)
        send(connection, frame)
        if frame in lies:
            assert answer(connection) == b"", frame
        else:
            connection.shutdown(socket.SHUT_WR)
            assert answer(connection) == b"", frame


@pytest.mark.parametrize("port", PEER)
def test_peer_messages_whose_lengths_lie(cluster, peer, port):
    """Every method of every service, with a head and a payload that speak of more than there is,
    or with none. The answers are refusals, but for those who need not look."""
    methods = [tag << 8 | number for tag in range(0, 10) for number in range(0, 16)]
    lie = b"\x0a\xff\xff\xff\xff\x07", b"\xff" * 64
    connection = peer(port)
    for method in methods:
        connection.sendall(peer_frame(REQUEST, method, method, *lie))
    found = peer_answers(connection, len(methods))
    assert sorted(found) == methods and set(found.values()) == {ANSWER, REFUSAL}
    assert len([kind for kind in found.values() if kind == ANSWER]) < 10, found


def half_sent(cluster, port, sent):
    """64 connections, each with a frame of the largest size of which so many bytes were sent. Some
    may wait to be accepted."""
    connections = [connect(cluster, port) for _ in range(64)]
    start = greeting(cluster, port) + struct.pack("<I", MAX_PEER_FRAME) + b"\0" * sent

    def one(connection):
        connection.settimeout(3)
        send(connection, start)

    threads = [threading.Thread(target=one, args=[c]) for c in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return connections


@pytest.mark.parametrize("port", PEER)
def test_large_peer_frames_that_stall_are_bounded_in_memory(cluster, peer, port):
    before = cluster.node(1).rss_bytes()
    connections = half_sent(cluster, port, 8 << 20)
    try:
        growth = cluster.node(1).rss_bytes() - before
        assert cluster.node(1).get("/healthz").status_code == 200
        assert growth < MAX_GROWTH_BYTES, f"grew by {growth >> 20} MiB"
    finally:
        for connection in connections:
            connection.close()


@pytest.mark.parametrize("port", PEER)
def test_peer_frames_that_stall_do_not_keep_others_out(cluster, peer, port):
    """A node that comes back must be able to connect."""
    connections = half_sent(cluster, port, 1000)
    try:
        check_serves(cluster, port, SILENCE_SECONDS)
    finally:
        for connection in connections:
            connection.close()


def test_the_cluster_still_works(cluster):
    for number in NODES:
        assert cluster.node(number).get("/readyz").status_code == 200
    cluster.wait_equal_digests()

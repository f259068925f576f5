"""Parameters and bodies of WebHDFS that are wrong, too large or never come. What holds for all
ports is in tests/test_garbage.py."""

import os
import socket
import time

import pytest
import requests
from support.wait import wait_until
from test_garbage import answer, send
from test_garbage import the_node_survives  # noqa: F401 - a fixture for every test here

DEADLINE = 30


def refused(reply, codes=(400, 403, 404)):
    assert reply.status_code in codes, (reply.status_code, reply.text[:300])
    told = reply.json()["RemoteException"]
    assert told["exception"] and told["javaClassName"] and "message" in told
    return told["exception"]


@pytest.fixture
def small(web):
    """A file of ten bytes."""
    web.hdfs().write("f", data=b"0123456789")
    return f"{web.home}/f"


@pytest.mark.parametrize("query", [
    "op=OPEN&offset=-1", "op=OPEN&offset=x", "op=OPEN&offset=11", "op=OPEN&length=-1",
    "op=OPEN&offset=9223372036854775808", "op=OPEN&offset=99999999999999999999999999",
    "op=OPEN&length=1e3", "op=OPEN&noredirect=maybe", "op=", "op=%00", "op=%ff", "", "x=1",
    "op=" + "A" * 10_000, "op=CHECKACCESS&fsaction=rwxrwx", "op=CHECKACCESS&fsaction=%ED%9A%8C",
    "op=CHECKACCESS", "op=GETFILESTATUS&user.name=%20", "op=GETFILESTATUS&user.name=a/../b",
    "op=GETFILESTATUS&user.name=" + "a" * 300, "op=GETFILESTATUS&doas=%00",
    "&".join(["op=GETFILESTATUS"] + [f"p{n}=1" for n in range(100)]),
])
def test_bad_parameters_of_reads(web, small, query):
    url = f"http://{web.address()}/webhdfs/v1{small}?{query}"
    refused(requests.get(url, timeout=DEADLINE))


@pytest.mark.parametrize("query", [
    "op=CREATE&blocksize=-1", "op=CREATE&blocksize=x", "op=CREATE&replication=-1",
    "op=CREATE&replication=70000", "op=CREATE&permission=888", "op=CREATE&permission=77777",
    "op=CREATE&permission=-1", "op=CREATE&overwrite=2", "op=MKDIRS&permission=rwx",
    "op=SETPERMISSION&permission=9", "op=SETTIMES&modificationtime=x", "op=SETOWNER",
    "op=SETREPLICATION&replication=many", "op=RENAME", "op=RENAME&destination=",
    "op=RENAME&destination=relative", "op=RENAME&destination=/x&renameoptions=BOTH",
])
def test_bad_parameters_of_writes(web, small, query):
    url = f"http://{web.address()}/webhdfs/v1{small}?{query}&user.name=root"
    refused(requests.put(url, allow_redirects=False, timeout=DEADLINE))
    assert requests.get(web.url(small, "OPEN"), timeout=DEADLINE).content == b"0123456789"


@pytest.mark.parametrize("path", [
    "/" + "a" * 256, "/" + "/".join("a" * 200 for _ in range(100)), "/" + "d/" * 5_000,
    "/a%00b", "/%ff%fe", "/a/%2e%2e/b", "/a/%2E/b",
], ids=["component", "length", "depth", "nul", "utf8", "dots", "dot"])
def test_bad_paths(web, path):
    """Straight over the socket: clients of HTTP would tidy them up."""
    host, port = web.address().rsplit(":", 1)
    with socket.create_connection((host, int(port)), DEADLINE) as connection:
        line = f"PUT /webhdfs/v1{web.home}{path}?op=MKDIRS&user.name=root HTTP/1.1\r\n"
        rest = "Host: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        send(connection, (line + rest).encode())
        got = answer(connection)
    assert got.startswith(b"HTTP/1.1 4"), got[:200]
    assert b"RemoteException" in got, got[:300]


def target(web, path, op="CREATE", method=requests.put):
    """The data address of an upload: host, port and what stands in the request line."""
    reply = method(web.url(path, op), allow_redirects=False, timeout=DEADLINE)
    assert reply.status_code == 307, reply.text
    address, rest = reply.headers["Location"].removeprefix("http://").split("/", 1)
    host, port = address.rsplit(":", 1)
    return host, int(port), f"/{rest}"


def absent(web, path):
    status = requests.get(web.url(path, "GETFILESTATUS"), timeout=DEADLINE)
    return status.status_code == 404


@pytest.mark.parametrize("sent", [0, 1, 1000, 1 << 20, (1 << 20) + 1, 5_000_000])
def test_uploads_shorter_than_said_leave_no_file(web, sent):
    path = f"{web.home}/short"
    host, port, line = target(web, path)
    head = f"PUT {line} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9000000\r\n\r\n"
    with socket.create_connection((host, port), DEADLINE) as connection:
        send(connection, head.encode() + os.urandom(sent))
        connection.shutdown(socket.SHUT_WR)
        assert answer(connection) is not None
    wait_until(lambda: absent(web, path), DEADLINE, "the end of the broken file")


def test_appends_shorter_than_said_keep_what_was_there(web, small):
    host, port, line = target(web, small, "APPEND", requests.post)
    head = f"POST {line} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9000\r\n\r\n"
    with socket.create_connection((host, port), DEADLINE) as connection:
        send(connection, head.encode() + b"more")
        connection.shutdown(socket.SHUT_WR)
        answer(connection)

    def appended():
        web.hdfs().write("f", data=b"!", append=True)
        return True

    # The lease of the broken append does not keep others out.
    wait_until(appended, DEADLINE, "an append after the broken one")
    content = requests.get(web.url(small, "OPEN"), timeout=DEADLINE).content
    assert content in (b"0123456789!", b"0123456789more!")


@pytest.mark.parametrize("chunks", [
    b"5\r\nabcdefgh\r\n0\r\n\r\n", b"5\r\nabc", b"ffffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    b"-5\r\nabcde\r\n0\r\n\r\n", b"5;" + b"x" * 100_000 + b"\r\nabcde\r\n0\r\n\r\n",
])
def test_chunked_uploads_that_lie_leave_no_file(web, chunks):
    path = f"{web.home}/chunked"
    host, port, line = target(web, path)
    head = f"PUT {line} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection((host, port), DEADLINE) as connection:
        send(connection, head.encode() + chunks)
        try:
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        assert answer(connection) is not None
    wait_until(lambda: absent(web, path), DEADLINE, "no file")


def test_uploads_that_drip_arrive_and_hold_up_nobody(web):
    connections, body = [], b"drip" * 5
    try:
        for number in range(20):
            host, port, line = target(web, f"{web.home}/drip{number}")
            head = f"PUT {line} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
            connection = socket.create_connection((host, port), DEADLINE)
            connections.append(connection)
            connection.settimeout(DEADLINE)
            send(connection, head.encode())
        for at in range(len(body)):
            for connection in connections:
                send(connection, body[at:at + 1])
            time.sleep(0.02)
            if at == len(body) // 2:
                web.hdfs().write("between", data=b"x")
        for number, connection in enumerate(connections):
            assert connection.recv(1000).startswith(b"HTTP/1.1 201")
            with web.hdfs(number % 3 + 1).read(f"drip{number}") as reader:
                assert reader.read() == body
    finally:
        for connection in connections:
            connection.close()


def test_bodies_where_none_belong(web):
    """An operation without content does not take in what it is sent."""
    body = b"x" * (32 << 20)
    try:
        reply = requests.put(web.url(f"{web.home}/d", "MKDIRS"), data=body, timeout=DEADLINE)
        assert reply.status_code in (200, 400, 413)
    except requests.ConnectionError:
        pass  # It may as well hang up on the rest of the body.


def test_downloads_that_nobody_takes(web):
    """Many ask for a large file and read nothing of it."""
    web.hdfs().write("large", data=os.urandom(40 << 20))
    host, port = web.address().rsplit(":", 1)
    reply = requests.get(web.url(f"{web.home}/large", "OPEN"), allow_redirects=False,
                         timeout=DEADLINE)
    assert reply.status_code == 307
    address, rest = reply.headers["Location"].removeprefix("http://").split("/", 1)
    host, port = address.rsplit(":", 1)
    connections = []
    try:
        for _ in range(30):
            connection = socket.create_connection((host, int(port)), DEADLINE)
            connections.append(connection)
            send(connection, f"GET /{rest} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        with web.hdfs().read("large", length=100) as reader:
            assert len(reader.read()) == 100
    finally:
        for connection in connections:
            connection.close()

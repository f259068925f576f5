"""What only a look at the wire shows."""

import socket

import requests


def test_redirect_keeps_the_host_that_the_client_used(web):
    reply = requests.put(web.url(f"{web.home}/f", "CREATE"), allow_redirects=False, timeout=10)
    assert reply.status_code == 307 and reply.content == b""
    host = web.address().rsplit(":", 1)[0]
    assert reply.headers["Location"].startswith(f"http://{host}:")
    assert "overwrite=false" in reply.headers["Location"]
    # Step two carries no state: the URL may be used again.
    first = requests.put(reply.headers["Location"], data=b"x", timeout=10)
    again = requests.put(reply.headers["Location"], data=b"x", timeout=10)
    assert (first.status_code, again.status_code) == (201, 403)
    assert again.json()["RemoteException"]["exception"] == "FileAlreadyExistsException"


def test_noredirect_and_case(web):
    reply = requests.put(web.url(f"{web.home}/f", "create", noredirect="true"), timeout=10)
    assert reply.status_code == 200
    assert requests.put(reply.json()["Location"], data=b"abc", timeout=10).status_code == 201
    reply = requests.get(web.url(f"{web.home}/f", "Open", number=2, OFFSET="1"), timeout=10)
    assert reply.content == b"bc"
    reply = requests.get(web.url(f"{web.home}/f", "OPEN", offset="9"), timeout=10)
    assert reply.status_code == 403 and "out of the range" in reply.text


def test_raw_utf8_request_line(web):
    host, port = web.address().rsplit(":", 1)
    with socket.create_connection((host, int(port)), 10) as connection:
        line = f"PUT /webhdfs/v1{web.home}/회의?op=MKDIRS&user.name=root HTTP/1.1\r\n"
        connection.sendall((line + f"Host: {host}\r\nContent-Length: 0\r\n\r\n").encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    status = requests.get(web.url(f"{web.home}/회의", "GETFILESTATUS", number=3), timeout=10)
    assert status.json()["FileStatus"]["type"] == "DIRECTORY"


def test_unknown_and_unsupported_operations(web):
    reply = requests.get(web.url("/", "NOSUCHTHING"), timeout=10)
    assert reply.status_code == 400
    assert reply.json()["RemoteException"]["exception"] == "IllegalArgumentException"
    reply = requests.post(web.url("/", "TRUNCATE"), timeout=10)
    assert reply.status_code == 400
    assert reply.json()["RemoteException"]["exception"] == "UnsupportedOperationException"


def test_a_broken_upload_leaves_no_file(web):
    path = f"{web.home}/broken"
    reply = requests.put(web.url(path, "CREATE"), allow_redirects=False, timeout=10)
    target = reply.headers["Location"].removeprefix("http://")
    address, rest = target.split("/", 1)
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), 10) as connection:
        head = f"PUT /{rest} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 5000000\r\n\r\n"
        connection.sendall(head.encode() + b"x" * 2_000_000)
    from support.wait import wait_until

    def gone():
        reply = requests.get(web.url(path, "GETFILESTATUS"), timeout=10)
        return reply.status_code == 404

    wait_until(gone, 20, "removal of the broken file")

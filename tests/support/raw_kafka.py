"""A Kafka client of a few lines, for what real clients cannot be made to send."""

import socket
import struct

DEADLINE = 20


class RawKafka:
    """One connection to one node, given as host:port; `deadline` in seconds for each wait."""

    def __init__(self, address, deadline=DEADLINE):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), deadline)
        self.next = 0

    def close(self):
        self.socket.close()

    def ask(self, key, version, body, flexible=False):
        """Sends a request and returns the body of the response, behind the correlation id. In
        flexible versions the header of the request ends with an empty list of tags."""
        self.send(key, version, body, flexible)
        return self.receive()

    def send(self, key, version, body, flexible=False):
        """Sends a request and waits for nothing."""
        self.next += 1
        header = struct.pack(">hhih", key, version, self.next, -1) + (b"\0" if flexible else b"")
        self.socket.sendall(struct.pack(">i", len(header) + len(body)) + header + body)

    def receive(self):
        """The body of the response to the request sent last."""
        size = struct.unpack(">i", self._exactly(4))[0]
        frame = self._exactly(size)
        assert struct.unpack(">i", frame[:4])[0] == self.next
        return frame[4:]

    def _exactly(self, size):
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise ConnectionError("closed by the node")
            data += part
        return data

    def api_versions(self, version):
        """The table: key → lowest and highest version."""
        if version < 3:
            body = self.ask(18, version, b"")
            code, count = struct.unpack(">hi", body[:6])
            step, at = 6, 6
        else:
            body = self.ask(18, version, b"\x05test\x041.0\0", flexible=True)
            code, count = struct.unpack(">h", body[:2])[0], body[2] - 1
            # A table has fewer than 127 rows: its length takes one byte.
            step, at = 7, 3
        assert code == 0
        rows = (struct.unpack(">hhh", body[i:i + 6]) for i in range(at, at + count * step, step))
        return {key: (low, high) for key, low, high in rows}

"""An SFTP server that goes away in the middle of a file and comes back on the same port: the
collector says what is wrong, tries again by itself, and every file arrives exactly once.

The server is the one of `trine demo`, whose nodes collect from it. Between them stands a line of
ours, whose port stays the same: when it is cut, connections are reset and new ones are refused, as
when the server is killed.
"""

import contextlib
import json
import socket
import struct
import threading

import pytest

from support.pipelines import write_files
from support.reading import check_exactly_once, count
from support.wait import wait_until

FILES = 20
FILE_BYTES = 60_000
# More than handshakes and listings need, less than all files.
CUT_AFTER_BYTES = FILES * FILE_BYTES // 3
DEADLINE = 90


class Line:
    """A port that leads to another, until it is cut; then until it is mended."""

    def __init__(self, upstream):
        self._upstream = upstream
        self._lock = threading.Lock()
        self._open = []
        self._left = None
        self.was_cut = threading.Event()
        self._listen(0)
        self.port = self._listener.getsockname()[1]

    def _listen(self, port):
        self._listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, args=[self._listener], daemon=True).start()

    def _accept(self, listener):
        with contextlib.suppress(OSError):
            while True:
                client = listener.accept()[0]
                server = socket.create_connection(("127.0.0.1", self._upstream))
                with self._lock:
                    self._open += [client, server]
                for words in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._carry, args=words, daemon=True).start()

    def _carry(self, source, target, counted):
        with contextlib.suppress(OSError):
            while data := source.recv(16384):
                if counted and self._is_last(len(data)):
                    # The client gets the first half of what the server has sent last.
                    target.sendall(data[:len(data) // 2])
                    self.cut()
                    return
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _is_last(self, size):
        with self._lock:
            if self._left is None:
                return False
            self._left -= size
            return self._left <= 0

    def cut_after(self, size):
        """Cuts the line once the server has sent so many bytes more."""
        with self._lock:
            self._left = size

    def cut(self):
        """Nobody listens any more, and every connection is reset."""
        # Closing alone would not end an `accept` that waits.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            connections, self._open, self._left = self._open, [], None
        for one in connections:
            with contextlib.suppress(OSError):
                # Closed with a reset, not with a polite end.
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.shutdown(socket.SHUT_RD)
            one.close()
        self.was_cut.set()

    def mend(self):
        self._listen(self.port)


@pytest.fixture
def line(demo):
    made = Line(demo.sftp_port)
    yield made
    made.cut()


def test_the_server_is_away_for_a_while(demo, line, name, tmp_path):
    files = write_files(demo.dir / "sample" / name, FILES, size=FILE_BYTES)
    line.cut_after(CUT_AFTER_BYTES)
    declared = tmp_path / "pipeline.toml"
    declared.write_text(demo.pipeline(name, line.port))
    demo.json("pipeline", "apply", declared)

    assert line.was_cut.wait(DEADLINE), "the collector has not read a third of the files"

    def told():
        (row,) = demo.rows("source")
        return "refused" in (row["last_error"] or "").lower() and row

    row = wait_until(told, DEADLINE, "word of the refused connection", pause=0.2)
    assert row["state"] == "running" and row["failed"] > 0, row
    assert count(demo, name) < FILES

    line.mend()
    wait_until(lambda: count(demo, name) == FILES, DEADLINE, "every file", pause=0.2)
    (row,) = demo.rows("source")
    assert (row["state"], row["quarantined"]) == ("running", 0), row
    check_exactly_once(demo, name, files)
    demo.wait_equal_digests()

"""A commit that was long on its way: sent with a generation that is over."""

import struct

from support.raw_kafka import RawKafka

OFFSET_COMMIT, FIND_COORDINATOR = 8, 10
# Its caller is a member whose session lasts 6 s.
DEADLINE = 2


def late_commit(address, group, generation, member, offsets):
    """Commits (topic, partition, offset) as that member of that generation; the error code of the
    answer, or None when none came."""
    try:
        host, port = _ask(address, FIND_COORDINATOR, 0, _text(group), _coordinator)
        body = (_text(group) + struct.pack(">i", generation) + _text(member)
                + struct.pack(">qi", -1, len(offsets)))
        for topic, part, off in offsets:
            body += _text(topic) + struct.pack(">iiqh", 1, part, off, -1)
        return _ask(f"{host}:{port}", OFFSET_COMMIT, 2, body, _last_code)
    except OSError:
        return None


def _ask(address, key, version, body, read):
    link = RawKafka(address, DEADLINE)
    try:
        return read(link.ask(key, version, body))
    finally:
        link.close()


def _text(text):
    data = text.encode()
    return struct.pack(">h", len(data)) + data


def _coordinator(answer):
    code, _, size = struct.unpack_from(">hih", answer)
    if code:
        raise ConnectionError(f"no coordinator: error {code}")
    return answer[8:8 + size].decode(), struct.unpack_from(">i", answer, 8 + size)[0]


def _last_code(answer):
    return struct.unpack(">h", answer[-2:])[0]

"""A network of one's own, so that tests beside each other cannot take each other's ports."""

import ctypes
import fcntl
import os
import socket
import struct

CLONE_NEWNET = 0x4000_0000
SIOCSIFFLAGS = 0x8914
IFF_UP = 1


def leave_for_own_network():
    """Moves the calling thread, and what it starts, into a network of a loopback device only.

    A node that a test has killed leaves its ports to whoever seeks free ones.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "unshare")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))

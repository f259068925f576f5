"""Small disks that fill up: each node's data on a file system in a file."""

import os
import pathlib
import subprocess

SIZE_BYTES = 3 << 29
RESERVE_BYTES = 64 << 20
BALLAST = "ballast"


class NotPermitted(Exception):
    """File systems cannot be mounted here."""


def command(*words):
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise NotPermitted(f"{' '.join(map(str, words))}: {done.stderr.strip()}")


class Disks:
    """One mounted file system per directory."""

    def __init__(self, directories):
        self.mounted = []
        try:
            for directory in directories:
                self._mount(pathlib.Path(directory))
        except (NotPermitted, OSError) as e:
            self.close()
            raise NotPermitted(str(e)) from e

    def _mount(self, directory):
        directory.mkdir(parents=True)
        image = directory.with_name(directory.name + ".img")
        with open(image, "wb") as file:
            file.truncate(SIZE_BYTES)
        command("mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=1", image)
        command("mount", "-o", "loop", image, directory)
        self.mounted.append(directory)

    def fill(self, directory, leave_bytes):
        """Takes all room but `leave_bytes`."""
        space = os.statvfs(directory)
        size = space.f_bavail * space.f_frsize - leave_bytes
        if size <= 0:
            return
        with open(pathlib.Path(directory) / BALLAST, "wb") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, size)
            except OSError:
                # The node took some of the room meanwhile: then it is as full as it gets.
                return

    def free(self, directory):
        (pathlib.Path(directory) / BALLAST).unlink(missing_ok=True)

    def close(self):
        for directory in self.mounted:
            # The file stays: it holds the node's data.
            subprocess.run(["umount", directory], capture_output=True)
        self.mounted = []

"""The limit: what one entry needs of the kernel, in a blocking loop that does nothing else.

The calls are those that the protocol's guarantees need, in its order (see docs/reliability.md), and no more: no codecs,
no event loop, no check of what may be wrong. `power` adds the syncs. Claims go by one sorted listing.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import time
from pathlib import Path

from common import DATA

METADATA = b'{"number":1,"padding":"' + b"x" * 76 + b'"}'
_RENAME_NOREPLACE = 1  # linux/fs.h
_libc = ctypes.CDLL(None, use_errno=True)
_libc.renameat2.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
_NEW = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


def _move(name: str, source: int, target: int) -> None:
    raw = name.encode()
    if _libc.renameat2(source, raw, target, raw, _RENAME_NOREPLACE) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), name)


class Bare:
    """A spool directory with one queue, without the library."""

    def __init__(self, path: str, *, sync: bool) -> None:
        """Make the directories."""
        self._path, self._sync = path, sync
        for directory in (".registry", ".tmp", ".data", "work", "work/.checkout"):
            Path(path, directory).mkdir(parents=True)
        self._registry, self._temporary, self._data, self._queue, self._checkout = (
            os.open(f"{path}/{directory}", os.O_RDONLY | os.O_DIRECTORY)
            for directory in (".registry", ".tmp", ".data", "work", "work/.checkout")
        )

    def enqueue(self, name: str) -> None:
        """Make one entry."""
        lock = self._lock(name, os.O_RDONLY | _NEW)
        data = self._write(name, self._data, DATA)
        metadata = self._write(name, self._temporary, METADATA)
        self._fsync(data, metadata, self._data)
        os.close(data)
        os.close(metadata)
        _move(name, self._temporary, self._queue)
        fcntl.flock(lock, fcntl.LOCK_UN)
        os.close(lock)
        self._fsync(self._queue)

    def _lock(self, name: str, flags: int) -> int:
        lock = os.open(name, flags, 0o600, dir_fd=self._registry)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_ino != os.stat(name, dir_fd=self._registry, follow_symlinks=False).st_ino:
            raise FileNotFoundError(name)
        return lock

    def _write(self, name: str, directory: int, content: bytes) -> int:
        file = os.open(name, os.O_WRONLY | _NEW, 0o600, dir_fd=directory)
        os.fchmod(file, 0o600)
        if os.write(file, content) != len(content):
            raise OSError(f"{name} was not written whole")
        return file

    def _fsync(self, *descriptors: int) -> None:
        if self._sync:
            for descriptor in descriptors:
                os.fsync(descriptor)

    def remove(self, name: str) -> None:
        """Check one entry out, and remove it."""
        lock = self._lock(name, _OLD)
        metadata = os.open(name, _OLD, dir_fd=self._queue)
        size = os.fstat(metadata).st_size
        _ = os.read(metadata, size)
        os.close(metadata)
        _move(name, self._queue, self._checkout)
        self._fsync(self._queue)
        os.unlink(name, dir_fd=self._checkout)
        self._fsync(self._checkout)
        os.unlink(name, dir_fd=self._data)
        os.unlink(name, dir_fd=self._registry)
        fcntl.flock(lock, fcntl.LOCK_UN)
        os.close(lock)

    def names(self) -> list[str]:
        """List the queue."""
        return sorted(found.name for found in Path(self._path, "work").iterdir() if found.is_file())


def measure(folder: str, entries: int, *, sync: bool) -> tuple[float, float]:
    """Return how many entries a second are enqueued, and checked out and removed."""
    bare = Bare(f"{folder}/spool", sync=sync)
    began = time.perf_counter()
    for number in range(entries):
        bare.enqueue(f"20261126T000000.{number:09}Z-00000000")
    enqueued = time.perf_counter()
    names = bare.names()
    for name in names:
        bare.remove(name)
    removed = time.perf_counter()
    if len(names) != entries:
        raise RuntimeError(f"{len(names)} of {entries} entries were there")
    return entries / (enqueued - began), entries / (removed - enqueued)

"""The limit: what one entry needs of the kernel, in a blocking loop that does nothing else.

The calls are those that the protocol's guarantees need, in its order (see docs/reliability.md), and no more: no codecs,
no event loop, no check of what may be wrong. Level `power` adds the syncs. Claims go by one sorted listing. The phase
`enqueue_many` writes the files of a hundred entries, and syncs them with one `syncfs`.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

from bench.systems.blocking import Blocking
from bench.work import QUEUES, TOGETHER, Clock, metadata_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.work import Phase, Took, Work

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


class Bare(Blocking):
    """A spool directory, without the library."""

    def __init__(self, work: Work) -> None:
        """Make the directories, or find them."""
        super().__init__(work)
        self._sync = work.level == "power"
        self._path = Path(work.folder, "spool")
        self._directories: dict[str, int] = {}
        places = [".registry", ".tmp", ".data", *QUEUES, *(f"{queue}/.checkout" for queue in QUEUES)]
        for place in places:
            (self._path / place).mkdir(parents=True, exist_ok=True)
            self._directories[place] = os.open(self._path / place, os.O_RDONLY | os.O_DIRECTORY)
        self._registry, self._temporary, self._data = (self._directories[place] for place in places[:3])
        self._listings: dict[str, Iterator[str]] = {}

    def before(self, phase: Phase) -> None:
        """Forget the listings."""
        self._listings.clear()

    def put(self, number: int) -> None:
        """Make one entry."""
        queue = self._directories[QUEUES[0]]
        name = f"20261126T000000.{number:09}Z-00000000"
        lock = self._lock(name, os.O_RDONLY | _NEW)
        data = self._write(name, self._data, self.data)
        metadata = self._write(name, self._temporary, metadata_of(number))
        self._fsync(data, metadata, self._data)
        os.close(data)
        os.close(metadata)
        _move(name, self._temporary, queue)
        fcntl.flock(lock, fcntl.LOCK_UN)
        os.close(lock)
        self._fsync(queue)

    def measure(self, phase: Phase, count: int, ready: Callable[[], None]) -> Took:
        """Do a phase."""
        if phase != "enqueue_many":
            return super().measure(phase, count, ready)
        ready()
        clock = Clock()
        for numbers in batches(count):
            self._put_together(numbers)
        return clock.took(count)

    def _put_together(self, numbers: tuple[int, ...]) -> None:
        names = [f"20261126T000000.{number:09}Z-00000000" for number in numbers]
        queue = self._directories[QUEUES[0]]
        locks = [self._lock(name, os.O_RDONLY | _NEW) for name in names]
        for number, name in zip(numbers, names, strict=True):
            os.close(self._write(name, self._data, self.data))
            os.close(self._write(name, self._temporary, metadata_of(number)))
        if self._sync and _libc.syncfs(self._data) != 0:
            raise OSError(ctypes.get_errno(), "syncfs")
        for name in names:
            _move(name, self._temporary, queue)
        self._fsync(queue)
        for lock in locks:
            fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)

    def _lock(self, name: str, flags: int) -> int:
        lock = os.open(name, flags, 0o600, dir_fd=self._registry)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_ino == os.stat(name, dir_fd=self._registry, follow_symlinks=False).st_ino:
                return lock
            raise FileNotFoundError(name)
        except OSError:
            os.close(lock)
            raise

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

    def take(self) -> bool:
        """Check out and remove."""
        return self.take_from(QUEUES[0])

    def take_from(self, queue: str) -> bool:
        """Check out and remove."""
        claimed = self._claim(queue)
        if claimed is None:
            return False
        name, lock = claimed
        checkout = self._directories[f"{queue}/.checkout"]
        self._fsync(self._directories[queue])
        os.unlink(name, dir_fd=checkout)
        self._fsync(checkout)
        os.unlink(name, dir_fd=self._data)
        os.unlink(name, dir_fd=self._registry)
        fcntl.flock(lock, fcntl.LOCK_UN)
        os.close(lock)
        return True

    def move(self, source: str, target: str) -> bool:
        """Check out, and save with new metadata."""
        claimed = self._claim(source)
        if claimed is None:
            return False
        name, lock = claimed
        checkout = self._directories[f"{source}/.checkout"]
        metadata = self._write(name, self._temporary, metadata_of(1))
        self._fsync(metadata, self._directories[source])
        os.close(metadata)
        os.rename(name, name, src_dir_fd=self._temporary, dst_dir_fd=checkout)
        _move(name, checkout, self._directories[target])
        self._fsync(self._directories[target])
        fcntl.flock(lock, fcntl.LOCK_UN)
        os.close(lock)
        return True

    def _claim(self, queue: str) -> tuple[str, int] | None:
        """Check out the next entry that nobody else has; its name and its lock."""
        while True:
            listing = self._listings.get(queue)
            if listing is None:
                listing = self._listings[queue] = iter(self._names(queue))
            name = next(listing, None)
            if name is None:
                del self._listings[queue]
                return self._claim(queue) if queue != QUEUES[0] and self._names(queue) else None
            try:
                lock = self._lock(name, _OLD)
            except (FileNotFoundError, BlockingIOError):
                continue
            source = self._directories[queue]
            try:
                metadata = os.open(name, _OLD, dir_fd=source)
                _ = os.read(metadata, os.fstat(metadata).st_size)
                os.close(metadata)
                _move(name, source, self._directories[f"{queue}/.checkout"])
            except FileNotFoundError:
                os.close(lock)
                continue
            return name, lock

    def _names(self, queue: str) -> list[str]:
        """List a queue; each process begins at its own place."""
        with os.scandir(self._path / queue) as found:
            names = sorted(one.name for one in found if one.is_file(follow_symlinks=False))
        first = len(names) * self.work.worker // self.work.workers
        return names[first:] + names[:first]


def batches(count: int) -> Iterator[tuple[int, ...]]:
    """Part the numbers below `count`."""
    for first in range(0, count, TOGETHER):
        yield tuple(range(first, min(first + TOGETHER, count)))


def opened(work: Work) -> Bare:
    """Open it."""
    return Bare(work)

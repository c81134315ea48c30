"""The registry lock: whoever changes an entry holds `flock` on the open `.registry/NAME`.

The kernel drops the lock when its process dies, however it dies, so a dead owner is a fact and not a guess: no lease,
no timeout, no heartbeat. A lock is taken by opening the file, locking *that* descriptor, and then checking that the
path still leads to the same inode: between the two, a collector may have removed the file, and somebody else made it
anew.

`flock` belongs to an open file description, so two owners in one process exclude each other like two processes. A
forked child shares the description: it closes its copies at once and never unlocks, which would unlock the parent's.
The table below knows all locks of the process; one mutex covers "open and register", and is held across `fork`, so
that no lock can be missed. (Process-wide record locks of `fcntl` would not do: closing any descriptor of a file drops
them.)
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import stat
import threading
from typing import TYPE_CHECKING, Final

from trio_multispool.model.verdicts import Unavailable
from trio_multispool.storage.directory.disk.layout import NEW_FILE, READ_FILE, REGISTRY
from trio_multispool.storage.directory.disk.oserrors import as_spool_error

if TYPE_CHECKING:
    from trio_multispool.storage.directory.disk.layout import Layout
    from trio_multispool.storage.directory.disk.syscalls import SystemCalls

MOST_LOCKS_AT_A_TIME: Final = 256
"""Whoever takes more in one go keeps them from others who could begin at once."""

SHARE_OF_DESCRIPTORS: Final = 8
"""At most one in so many of the descriptors that the process may have is kept in hand by what is taken in one go."""

SHARE_OF_DESCRIPTORS_FOR_A_WHILE: Final = 3
"""The same for what is open only until the end of one hop.

With the usual limit of 1,024, a hundred entries are enqueued in one go, with one round of syncs."""


def locks_at_a_time(descriptors_each: int = 1) -> int:
    """Return how many locks this process may take in one go, as it is limited now.

    Each has a descriptor; one that has more, for files of its entry, has them only for the length of a hop.
    """
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST_LOCKS_AT_A_TIME
    share = SHARE_OF_DESCRIPTORS if descriptors_each == 1 else SHARE_OF_DESCRIPTORS_FOR_A_WHILE * descriptors_each
    return max(1, min(MOST_LOCKS_AT_A_TIME, soft // share))


class Lock:
    """A held lock of one entry. `fd` is -1 once it has been released, or in a forked child."""

    __slots__ = ("__weakref__", "_calls", "fd", "newborn")

    def __init__(self, fd: int, calls: SystemCalls, *, newborn: bool) -> None:
        """Take over a descriptor; `_table` calls this, with its mutex held."""
        self.fd: int = fd
        self.newborn: bool = newborn
        """Whether this call made the registry file."""
        self._calls = calls

    @property
    def held(self) -> bool:
        """Whether this process still has the lock."""
        return self.fd >= 0

    def release(self) -> None:
        """Unlock and close. Idempotent; explicit, because a forked child may still have the description open."""
        with _table.mutex:
            fd, self.fd = self.fd, -1
            _table.locks.discard(self)
            if fd < 0:
                return
            # An error has nothing to tell: the descriptor is closed in any case, and the lock with it.
            for let_go in (self._calls.unlock, self._calls.close):
                try:
                    let_go(fd)
                except OSError:
                    continue


class _Table:
    """All locks that this process holds."""

    def __init__(self) -> None:
        self.mutex: Final = threading.RLock()  # re-entrant: a garbage collection may release a lock in any line
        self.locks: set[Lock] = set()

    def open(self, calls: SystemCalls, name: str, directory: int, flags: int, mode: int) -> Lock:
        with self.mutex:
            lock = Lock(calls.open(name, flags, directory, mode), calls, newborn=bool(flags & os.O_EXCL))
            self.locks.add(lock)
            return lock

    def forget_in_child(self) -> None:
        for lock in list(self.locks):
            os.close(lock.fd)
            lock.fd = -1
        self.locks.clear()
        self.mutex.release()


_table = _Table()
os.register_at_fork(
    before=_table.mutex.acquire, after_in_parent=_table.mutex.release, after_in_child=_table.forget_in_child
)


def lock_existing(layout: Layout, name: str) -> Lock | Unavailable:
    """Lock an entry's reservation. `BUSY`: somebody has it. `GONE`: there is none (any more)."""
    return _lock(layout, name, READ_FILE)


def lock_new(layout: Layout, name: str) -> Lock | Unavailable:
    """Make an entry's reservation and lock it.

    `BUSY`: there is one already. `GONE`: the newborn was taken by a collector before it was locked; try again.
    """
    return _lock(layout, name, NEW_FILE & ~os.O_WRONLY | READ_FILE)


def lock_or_reserve(layout: Layout, name: str) -> Lock | Unavailable:
    """Lock an entry that has been seen, making its reservation again if power loss (or a hand) took it."""
    found = lock_existing(layout, name)
    return lock_new(layout, name) if found is Unavailable.GONE else found


def lock_temporary(layout: Layout, name: str, directory: str, *, new: bool) -> Lock | Unavailable:
    """Lock a temporary file, whose lock says that its writer lives; with `new`, make it, for writing."""
    return _lock(layout, name, NEW_FILE if new else READ_FILE, directory)


def _lock(layout: Layout, name: str, flags: int, directory: str = REGISTRY) -> Lock | Unavailable:
    calls = layout.calls
    try:
        directory_fd = layout.fd(directory)
    except OSError as error:
        raise as_spool_error(error, "open", layout.full(directory)) from error
    try:
        lock = _table.open(calls, name, directory_fd, flags, layout.file_mode)
    except FileNotFoundError:
        return Unavailable.GONE
    except FileExistsError:
        return Unavailable.BUSY
    except OSError as error:
        raise as_spool_error(error, "open", layout.full(directory, name)) from error
    try:
        owned = _take(layout, lock.fd, name, directory_fd, new=lock.newborn)
    except BaseException as error:  # passed on, or answered: whatever it was, the lock is let go
        lock.release()
        if isinstance(error, BlockingIOError):  # a newborn is locked by a collector, who will remove it
            return Unavailable.GONE if lock.newborn else Unavailable.BUSY
        if isinstance(error, OSError):
            raise as_spool_error(error, "lock", layout.full(directory, name)) from error
        raise
    if not owned:
        lock.release()
        return Unavailable.GONE
    return lock


def _take(layout: Layout, fd: int, name: str, directory_fd: int, *, new: bool) -> bool:
    """Lock an open file, and tell whether the name still leads to it; raises `OSError`."""
    calls = layout.calls
    calls.lock(fd)
    try:
        mine = calls.stat_fd(fd)
        if new and stat.S_IMODE(mine.st_mode) != layout.file_mode:  # the umask took something away
            calls.change_mode(fd, layout.file_mode)
        if not stat.S_ISREG(mine.st_mode):
            raise IsADirectoryError(errno.EISDIR, "not a regular file")
        try:
            current = calls.stat(name, directory_fd)
        except FileNotFoundError:
            return False
    except OSError:
        if new:  # of no use to anybody, and ours, because it is locked
            with contextlib.suppress(OSError):
                calls.unlink(name, directory_fd)
        raise
    return (mine.st_dev, mine.st_ino) == (current.st_dev, current.st_ino)

"""The registry lock: a process that changes an entry holds `flock` on the open `.registry/NAME`.

The kernel drops the lock when its process dies, however it dies. So a dead owner is a fact and not a guess: no lease,
no timeout, no heartbeat. To take a lock, open the file, lock *that* descriptor, and then check that the path still
leads to the same inode. Between the two, a collector may have removed the file, and another process may have made it
anew.

`flock` belongs to an open file description, so two owners in one process exclude each other like two processes. A
forked child shares the description. It closes its copies at once and never unlocks them: that would unlock the
parent's. The table below has all locks of the process. One mutex covers "open and register", and is held across `fork`,
so that no lock can be missed. (Process-wide record locks of `fcntl` would not work: closing any descriptor of a file
drops them.)
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import stat
import threading
from typing import TYPE_CHECKING, Final

import msgspec

from trio_multispool.clock import wall_clock
from trio_multispool.errors import AccessDenied, SpoolError
from trio_multispool.model.verdicts import Unavailable
from trio_multispool.storage.directory.disk.layout import NEW_FILE, READ_FILE, REGISTRY
from trio_multispool.storage.directory.disk.oserrors import as_spool_error
from trio_multispool.storage.directory.disk.owners import is_half_made, is_handed_over
from trio_multispool.storage.directory.disk.syscalls import SystemCalls

if TYPE_CHECKING:
    from trio_multispool.storage.directory.disk.layout import Layout

MOST_LOCKS_AT_A_TIME: Final = 256
"""More at once would keep entries from other workers that could begin them now."""

SHARE_OF_DESCRIPTORS: Final = 8
"""One batch of locks keeps at most one in this many of the descriptors that the process may have.

An entry that is being made has three, but only until the end of its hop. With the usual limit of 1,024, more than a
hundred entries are enqueued at once, with one round of syncs."""

NEW_LOCK: Final = NEW_FILE & ~os.O_WRONLY | READ_FILE
"""The flags with which a reservation is made."""

_A_MOMENT: Final = 0.5
"""In seconds. If another user has not handed over a new file after so long, that process is dead, or stopped."""


def locks_at_a_time() -> int:
    """Return how many locks this process may take at once, under its present limits. Each has one descriptor."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST_LOCKS_AT_A_TIME
    return max(1, min(MOST_LOCKS_AT_A_TIME, soft // SHARE_OF_DESCRIPTORS))


class Lock(msgspec.Struct, eq=False, weakref=True):
    """A held lock of one entry. `_table` makes it, with its mutex held."""

    fd: int
    """Its descriptor; -1 after its release, and in a forked child."""
    newborn: bool
    """Whether this call made the registry file."""
    calls: SystemCalls

    @property
    def held(self) -> bool:
        """Whether this process still has the lock."""
        return self.fd >= 0

    def __enter__(self) -> None:
        """Hold it for the length of a block."""

    def __exit__(self, *raised: object) -> None:
        self.release()

    def release(self) -> None:
        """Unlock and close. Idempotent; explicit, because a forked child may still have the description open."""
        with _table.mutex:
            fd, self.fd = self.fd, -1
            _table.locks.discard(self)
            if fd < 0:
                return
            # Ignore errors: the descriptor is closed in any case, and the lock is dropped with it.
            for let_go in (self.calls.unlock, self.calls.close):
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
            lock = Lock(calls.open(name, flags, directory, mode), bool(flags & os.O_EXCL), calls)
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
    """Lock an entry's reservation. `BUSY`: another owner has the lock. `GONE`: there is no reservation (any more).

    `BUSY` also if another user is about to make it. `AccessDenied` if this process may not open it.
    """
    return lock_file(layout, name, READ_FILE)


def lock_to_enqueue(layout: Layout, name: str) -> Lock | Unavailable:
    """Lock an existing reservation as `lock_existing` does. Hand it over if it is ours, and a kill prevented that."""
    return lock_file(layout, name, READ_FILE, to_enqueue=True)


def lock_new(layout: Layout, name: str) -> Lock | Unavailable:
    """Make an entry's reservation and lock it.

    `BUSY`: there is one already. `GONE`: a collector locked the new file first; try again.
    """
    return lock_file(layout, name, NEW_LOCK)


def lock_or_reserve(layout: Layout, name: str) -> Lock | Unavailable:
    """Lock an entry that was seen. Make its reservation again if power loss (or a person) removed it."""
    found = lock_existing(layout, name)
    return lock_new(layout, name) if found is Unavailable.GONE else found


def lock_entry(layout: Layout, name: str, directory: str) -> Lock | Unavailable:
    """Lock an entry that was seen in a directory, also if it has lost its reservation and is still there."""
    lock = lock_file(layout, name, READ_FILE)
    return lock_or_reserve(layout, name) if lock is Unavailable.GONE and layout.holds(directory, name) else lock


def lock_temporary(layout: Layout, name: str, directory: str, *, new: bool) -> Lock | Unavailable:
    """Lock a temporary file; the lock shows that its writer lives. With `new`, make the file, for writing.

    `BUSY` also if another user has not handed it over, who may live: it keeps nobody from the other files.
    """
    try:
        return lock_file(layout, name, NEW_FILE if new else READ_FILE, directory)
    except AccessDenied:
        if new:
            raise
        return Unavailable.BUSY


def lock_file(  # noqa: C901  # in one piece: every operation comes here
    layout: Layout, name: str, flags: int, directory: str = REGISTRY, *, to_enqueue: bool = False
) -> Lock | Unavailable:
    """Open a file, or make it, as the flags say, and lock it; `lock_existing` and the others say what that means."""
    try:
        directory_fd = layout.fds[directory]
    except OSError as error:
        raise as_spool_error(error, "open", layout.full(directory)) from error
    lock: Lock | None
    try:
        try:
            lock = _table.open(layout.calls, name, directory_fd, flags, layout.file_mode)
        except PermissionError as refused:
            if flags & os.O_EXCL:
                raise
            lock = _open_if_handed_over(layout, name, flags, directory_fd, refused)
    except FileNotFoundError:
        return Unavailable.GONE
    except FileExistsError:
        return Unavailable.BUSY
    except OSError as error:
        raise as_spool_error(error, "open", layout.full(directory, name)) from error
    if lock is None:
        return Unavailable.BUSY
    try:
        owned = _take(layout, lock, directory, name, to_enqueue=to_enqueue)
    except BaseException as error:  # passed on, or answered: whatever it was, the lock is released
        lock.release()
        if isinstance(error, BlockingIOError):  # a collector has locked our new file, and will remove it
            return Unavailable.GONE if lock.newborn else Unavailable.BUSY
        if isinstance(error, OSError):
            raise as_spool_error(error, "lock", layout.full(directory, name)) from error
        raise
    if not owned:
        lock.release()
        return Unavailable.GONE
    return lock


def _open_if_handed_over(
    layout: Layout, name: str, flags: int, directory_fd: int, refused: PermissionError
) -> Lock | None:
    """Open a file that was refused; `None` if another user has just made it, and not handed it over yet.

    Raises it once more if it stays refused.
    """
    calls, mode = layout.calls, layout.file_mode
    found = calls.stat(name, directory_fd)
    if not is_handed_over(found, calls.stat_fd(layout.fds[""]), mode):
        if abs(wall_clock() - found.st_ctime) < _A_MOMENT:  # by the kernel's clock, not the spool's
            return None
        raise refused
    return _table.open(calls, name, directory_fd, flags, mode)  # it may have been handed over since


def _take(layout: Layout, lock: Lock, directory: str, name: str, *, to_enqueue: bool) -> bool:
    """Lock an open file; tell whether the name still leads to it. Raises `OSError`, or what `hand_over` raises."""
    calls, directory_fd = layout.calls, layout.fds[directory]
    fd, new = lock.fd, lock.newborn
    calls.lock(fd)
    try:
        mine = calls.stat_fd(fd)
        if not stat.S_ISREG(mine.st_mode):
            raise IsADirectoryError(errno.EISDIR, "not a regular file")
        # The umask may have removed permissions.
        is_wrong = new and (layout.owner is not None or stat.S_IMODE(mine.st_mode) != layout.file_mode)
        if is_wrong or (to_enqueue and is_half_made(mine, layout.owner, layout.file_mode)):
            layout.hand_over(fd, layout.file_mode, directory, name)
        try:
            current = calls.stat(name, directory_fd)
        except FileNotFoundError:
            return False
    except (OSError, SpoolError):
        if new:  # useless to all, and ours, because we have its lock
            with contextlib.suppress(OSError):
                calls.unlink(name, directory_fd)
        raise
    return (mine.st_dev, mine.st_ino) == (current.st_dev, current.st_ino)

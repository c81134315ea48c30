"""Notices from the kernel that something came into a queue: one inotify instance, with a watch for each queue.

A notice is a hint: listing the queue again is worth it. If the kernel's queue of events overflows, every queue may have
changed. If the directory of a queue was moved away or removed, its watch is forgotten, and made anew with the next
`add`. The kernel sends no notice for a removed directory while a descriptor of it is held. So the spool's own directory
is watched too: that tells when a queue goes and when it comes again, and when the whole spool is moved away.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import sys
import threading
from typing import TYPE_CHECKING, Final, TypeVar, final

import msgspec

from trio_multispool.errors import OutOfSpace
from trio_multispool.storage.directory.disk.layout import CANCELLATIONS, REGISTRY, waiting_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_multispool.storage.directory.disk.layout import Layout
    from trio_multispool.storage.directory.disk.syscalls import Notifier

W = TypeVar("W")

# From inotify(7). Defined here, so that nothing is imported before something is watched.
_CLOSE_WRITE: Final = 0x00000008
_MOVED_FROM: Final = 0x00000040
_MOVED_TO: Final = 0x00000080
_CREATE: Final = 0x00000100
_DELETE: Final = 0x00000200
_DELETE_SELF: Final = 0x00000400
_MOVE_SELF: Final = 0x00000800
_OVERFLOW: Final = 0x00004000
_IGNORED: Final = 0x00008000
_ONLY_DIRECTORY: Final = 0x01000000
_IS_DIRECTORY: Final = 0x40000000

_COMING_IN: Final = _MOVED_TO | _CREATE | _CLOSE_WRITE
_QUEUES_CHANGE: Final = _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE
_ANY: Final = ""
"""Stands for any name, or for any queue."""
_GONE: Final = _DELETE_SELF | _MOVE_SELF | _IGNORED


MANY: Final = 1 << 32
"""Stands for any number of entries."""


class _Watch:
    """An inotify instance with watches for directories of a spool."""

    def __init__(self, layout: Layout, notify: Notifier) -> None:
        """Take over an inotify instance."""
        self._layout = layout
        self._notify = notify
        self._mutex = threading.Lock()
        self._directories: dict[int, str] = {}

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is something to `drain`."""
        return self._notify.fileno()

    def close(self) -> None:
        """Close the instance, with all its watches. Idempotent."""
        self._notify.close()

    def _fds_of(self, queue: str) -> dict[str, int]:
        """Return the descriptors of a queue's directory, and of its `.waiting` if there is one."""
        directory = waiting_of(queue)
        waiting = self._layout.optional_fd(directory) if self._layout.is_there(directory) else None
        fds = {queue: self._layout.fds[queue]}
        return fds if waiting is None else {**fds, directory: waiting}

    def _watch(self, directory: str, fd: int, mask: int) -> None:
        number = self._add(fd, mask | _DELETE_SELF | _MOVE_SELF)  # the same number again for the same inode
        for other in [each for each, of in self._directories.items() if of == directory and each != number]:
            self._forget(other)
        self._directories[number] = directory

    def _add(self, fd: int, mask: int) -> int:
        try:
            return _begin_to_watch(self._notify, fd, mask)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            reason = "this user's inotify watches are used up (sysctl fs.inotify.max_user_watches)"
            raise OutOfSpace("watch", self._layout.path, reason) from error

    def drain(self) -> collections.Counter[str]:
        """Return the names of the files that came or went since the last call, without waiting."""
        with self._mutex:
            moved: collections.Counter[str] = collections.Counter()
            for event in self._notify.read(timeout=0):
                # A directory that comes or goes: a queue's, say, or its `.waiting`, which is not watched yet.
                is_file = not event.mask & (_OVERFLOW | _GONE | _IS_DIRECTORY)
                moved[event.name if is_file else _ANY] = MANY
                if event.mask & _GONE and event.wd in self._directories:
                    self._forget(event.wd)
            return moved

    def _forget(self, number: int) -> None:
        del self._directories[number]
        with contextlib.suppress(OSError):  # the watch of a removed directory is gone with it
            self._notify.rm_watch(number)


@final
class DirectoryWatch(_Watch):
    """Tells which queues of a spool may have new entries. `add` may be called from any thread."""

    def __init__(self, layout: Layout, notify: Notifier) -> None:
        """Take over an inotify instance."""
        super().__init__(layout, notify)
        self._root = -1

    def add(self, queue: str) -> None:
        """Watch a queue from now on. Idempotent. Raises a `SpoolError`.

        Call it before each listing: the directory may have been replaced since the last one.
        """
        _ = self._layout.refresh(queue)
        with self._layout.doing("watch", queue):
            root, fds = self._layout.fds[""], self._fds_of(queue)
            with self._mutex:
                if self._root < 0:
                    self._root = self._add(root, _QUEUES_CHANGE | _MOVE_SELF)
                for directory, fd in fds.items():
                    self._watch(directory, fd, _COMING_IN)

    def drain(self) -> collections.Counter[str]:
        """Return how many entries each queue may have got since the last call, without waiting."""
        with self._mutex:
            changed: collections.Counter[str] = collections.Counter()
            for event in self._notify.read(timeout=0):
                if event.mask & _OVERFLOW:
                    changed[_ANY] = MANY
                    continue
                if event.wd == self._root:
                    changed[_ANY if event.mask & _MOVE_SELF else event.name] = MANY
                    continue
                directory = self._directories.get(event.wd)
                if directory is None:
                    continue
                is_entry = not event.mask & _GONE
                changed[directory.partition("/")[0]] += 1 if is_entry else MANY
                if not is_entry:
                    self._forget(event.wd)
            return changed


@final
class EntryWatch(_Watch):
    """Tells which entries may have left the spool, or come into a queue. `add` may be called from any thread.

    What has left the spool has no reservation any more: unlinking that is the last step of every removal.
    """

    def add(self, queue: str) -> None:
        """Watch what leaves the spool, and what comes into a queue unless that is `""`. Idempotent.

        Raises a `SpoolError`. Call it before each look: a directory may have been replaced since the last one.
        """
        if queue:
            _ = self._layout.refresh(queue)
        with self._layout.doing("watch", queue or REGISTRY):
            root, registry = self._layout.fds[""], self._layout.fds[REGISTRY]
            fds = self._fds_of(queue) if queue else {}
            with self._mutex:
                self._watch("", root, _QUEUES_CHANGE)
                self._watch(REGISTRY, registry, _DELETE)
                for directory, fd in fds.items():
                    self._watch(directory, fd, _MOVED_TO | _CREATE)


@final
class CancellationWatch(_Watch):
    """Tells of which entries the cancellation was asked for. `add` may be called from any thread."""

    def add(self, queue: str) -> None:  # noqa: ARG002  # as for other watches
        """Watch for requests, and for the directory that the first one makes. Idempotent. Raises a `SpoolError`.

        Call it before each look: it may have been made since the last one.
        """
        with self._layout.doing("watch", CANCELLATIONS):
            there = self._layout.is_there(CANCELLATIONS)
            root, fd = self._layout.fds[""], self._layout.optional_fd(CANCELLATIONS) if there else None
            with self._mutex:
                self._watch("", root, _QUEUES_CHANGE)
                if fd is not None:
                    self._watch(CANCELLATIONS, fd, _MOVED_TO | _CLOSE_WRITE)  # it is written under its name


@final
class Arrivals(msgspec.Struct, frozen=True):
    """The entries that began to wait for a queue since the last such question."""

    names: frozenset[str] = frozenset()
    all: bool = False
    """Whether `names` may be incomplete: then look at every entry that waits."""
    told: bool = True
    """Whether the store can tell. If not, `names` says nothing."""


class ArrivalsWatch:
    """Tells the names of entries that begin to wait for the queues of a spool. Any thread may use it.

    It has its own inotify instance, made when something waits: an event is read only once, so instances are not shared.
    """

    def __init__(self, layout: Layout) -> None:
        """Watch nothing so far."""
        self._layout = layout
        self._mutex = threading.Lock()
        self._notify: Notifier | None = None
        self._refused = not sys.platform.startswith("linux")
        self._queues: dict[int, str] = {}
        self._names: dict[str, set[str]] = {}

    def of(self, queue: str) -> Arrivals | None:
        """Return the entries that began to wait for a queue since the last call; `None` if it has no `.waiting`."""
        directory = waiting_of(queue)
        fd = self._layout.optional_fd(directory) if self._layout.is_there(directory) else None
        if fd is None:
            return None
        with self._mutex:
            if self._refused:
                return Arrivals(told=False)
            try:
                if self._notify is None:
                    self._notify = self._layout.calls.notify()
                number = _begin_to_watch(self._notify, fd, _MOVED_TO | _CREATE)
            except OSError:  # no instance (`DirectoryWatch` logs this) or watch is left: the caller looks again later
                return Arrivals(told=False)
            new = self._queues.get(number) != queue
            self._queues[number] = queue
            self._read(self._notify)
            names = self._names.pop(queue, set())
            return Arrivals(frozenset(names - {_ANY}), all=new or _ANY in names)

    def _read(self, notify: Notifier) -> None:
        for event in notify.read(timeout=0):
            if event.mask & _OVERFLOW:
                for queue in self._queues.values():
                    self._names.setdefault(queue, set()).add(_ANY)
            elif event.mask & _IGNORED:
                _ = self._queues.pop(event.wd, None)
            elif event.wd in self._queues:
                self._names.setdefault(self._queues[event.wd], set()).add(event.name)

    def stop(self) -> None:
        """Close the instance; the next question makes a new one. Idempotent."""
        with self._mutex:
            notify, self._notify = self._notify, None
            self._queues.clear()
            self._names.clear()
        if notify is not None:
            notify.close()

    def close(self) -> None:
        """Close the instance for ever. Idempotent."""
        self._refused = True
        self.stop()


def _begin_to_watch(notify: Notifier, fd: int, mask: int) -> int:
    # By the held descriptor, so that the watched directory is the listed one.
    return notify.add_watch(f"/proc/self/fd/{fd}", mask | _ONLY_DIRECTORY)


def watch(layout: Layout, kind: Callable[[Layout, Notifier], W]) -> W | None:
    """Begin to watch a spool; `None` if the kernel has no inotify. Raises a `SpoolError` if no instance is left."""
    if not sys.platform.startswith("linux"):
        return None
    with layout.doing("watch", ""):
        try:
            return kind(layout, layout.calls.notify())
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
            reason = (
                "this user's inotify instances are used up (sysctl fs.inotify.max_user_instances), "
                "or this process's file descriptors"
            )
            raise OutOfSpace("watch", layout.path, reason) from error

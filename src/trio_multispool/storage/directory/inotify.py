"""Being told by the kernel that something came into a queue: one inotify instance, with a watch for each queue.

What it tells is a hint: that it is worth listing a queue again. If the kernel's queue of events overflows, every
queue may have changed. A queue whose directory was moved away or removed is forgotten, and watched anew when it is
next asked for. A removed directory of which a descriptor is held says nothing of itself, so the spool's own directory
is watched too: it tells when a queue goes and when it comes again.
"""

from __future__ import annotations

import contextlib
import errno
import sys
import threading
from typing import TYPE_CHECKING, Final

from trio_multispool.errors import OutOfSpace
from trio_multispool.storage.directory.disk.layout import waiting_of
from trio_multispool.storage.requests import Arrivals

if TYPE_CHECKING:
    from trio_multispool.storage.directory.disk.layout import Layout
    from trio_multispool.storage.directory.disk.syscalls import Notifier

# inotify(7); a constant of ours each, so that nothing is imported before something is watched.
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

_COMING_IN: Final = _MOVED_TO | _CREATE | _CLOSE_WRITE
_QUEUES_CHANGE: Final = _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE
_ANY: Final = ""
"""Stands for any name."""
_GONE: Final = _DELETE_SELF | _MOVE_SELF | _IGNORED


class DirectoryWatch:
    """Tells which queues of a spool may have got entries. `add` may be called from any thread."""

    def __init__(self, layout: Layout, notify: Notifier) -> None:
        """Take over an inotify instance."""
        self._layout = layout
        self._notify = notify
        self._mutex = threading.Lock()
        self._directories: dict[int, str] = {}  # of queues, and of what waits for them
        self._wanted: set[str] = set()  # also those whose directory is missing just now
        self._root = -1

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is something to `drain`."""
        return self._notify.fileno()

    def add(self, queue: str) -> None:
        """Watch a queue, from now on; one that is watched already stays so. Raises a `SpoolError`.

        To be called before each listing: the directory may have been replaced since the last.
        """
        with self._mutex:
            self._wanted.add(queue)
        _ = self._layout.refresh(queue)
        with self._layout.doing("watch", queue):
            fds = [self._layout.fd(""), self._layout.fd(queue)]
            directory = waiting_of(queue)
            waiting = self._layout.optional_fd(directory) if self._layout.is_there(directory) else None
            with self._mutex:
                if self._root < 0:
                    self._root = self._add(fds[0], _QUEUES_CHANGE)
                self._watch(queue, fds[1])
                if waiting is not None:
                    self._watch(directory, waiting)

    def _watch(self, directory: str, fd: int) -> None:
        number = self._add(fd, _COMING_IN | _DELETE_SELF | _MOVE_SELF)  # the same again for the same inode
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

    def _forget(self, number: int) -> None:
        del self._directories[number]
        with contextlib.suppress(OSError):  # a directory that was removed has taken its watch with it
            self._notify.rm_watch(number)

    def drain(self) -> set[str]:
        """Return the queues in which something may have come in since the last time, without waiting."""
        with self._mutex:
            changed: set[str] = set()
            for event in self._notify.read(timeout=0):
                if event.mask & _OVERFLOW:
                    changed.update(self._wanted)
                    continue
                if event.wd == self._root:
                    changed.update({event.name} & self._wanted)
                    continue
                directory = self._directories.get(event.wd)
                if directory is None:
                    continue
                changed.add(directory.partition("/")[0])
                if event.mask & _GONE:
                    self._forget(event.wd)
            return changed

    def close(self) -> None:
        """Give the instance back, with all its watches. Idempotent."""
        self._notify.close()


class ArrivalsWatch:
    """Tells the names of what comes to wait for the queues of a spool. May be used from any thread.

    An inotify instance of its own, made when something waits: what one `DirectoryWatch` has read is gone for others.
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
        """Return what has come to wait for a queue since the last time; `None` if nothing ever has."""
        directory = waiting_of(queue)
        fd = self._layout.optional_fd(directory) if self._layout.is_there(directory) else None
        if fd is None:
            return None
        with self._mutex:
            if self._refused or not self._begin():
                return Arrivals(told=False)
            with self._layout.doing("watch", directory):
                try:
                    number = _begin_to_watch(self._notify, fd, _MOVED_TO | _CREATE)
                except OSError:  # none to spare: whoever asks looks again after a while
                    return Arrivals(told=False)
            new = self._queues.get(number) != queue
            self._queues[number] = queue
            self._read()
            names = self._names.pop(queue, set())
            return Arrivals(frozenset(names - {_ANY}), all=new or _ANY in names)

    def _begin(self) -> bool:
        if self._notify is None:
            try:
                self._notify = self._layout.calls.notify()
            except OSError:  # likewise; `DirectoryWatch` says so in the log
                return False
        return True

    def _read(self) -> None:
        assert self._notify is not None, "begun before"  # noqa: S101  # for the type checkers
        for event in self._notify.read(timeout=0):
            if event.mask & _OVERFLOW:
                for queue in self._queues.values():
                    self._names.setdefault(queue, set()).add(_ANY)
            elif event.mask & _IGNORED:
                _ = self._queues.pop(event.wd, None)
            elif event.wd in self._queues:
                self._names.setdefault(self._queues[event.wd], set()).add(event.name)

    def stop(self) -> None:
        """Give the instance back, until somebody asks again. Idempotent."""
        with self._mutex:
            notify, self._notify = self._notify, None
            self._queues.clear()
            self._names.clear()
        if notify is not None:
            notify.close()

    def close(self) -> None:
        """Give the instance back for ever. Idempotent."""
        self._refused = True
        self.stop()


def _begin_to_watch(notify: Notifier | None, fd: int, mask: int) -> int:
    # By the held descriptor: what is watched is the directory that is listed.
    assert notify is not None, "begun before"  # noqa: S101  # for the type checkers
    return notify.add_watch(f"/proc/self/fd/{fd}", mask | _ONLY_DIRECTORY)


def watch(layout: Layout) -> DirectoryWatch | None:
    """Begin to watch a spool; `None` where the kernel has no inotify. Raises a `SpoolError` if it has none to spare."""
    if not sys.platform.startswith("linux"):
        return None
    with layout.doing("watch", ""):
        try:
            return DirectoryWatch(layout, layout.calls.notify())
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
            reason = (
                "this user's inotify instances are used up (sysctl fs.inotify.max_user_instances), "
                "or this process's file descriptors"
            )
            raise OutOfSpace("watch", layout.path, reason) from error

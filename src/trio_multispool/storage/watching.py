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

if TYPE_CHECKING:
    from trio_multispool.storage.layout import Layout
    from trio_multispool.storage.syscalls import Notifier

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
_GONE: Final = _DELETE_SELF | _MOVE_SELF | _IGNORED


class DirectoryWatch:
    """Tells which queues of a spool may have got entries. `add` may be called from any thread."""

    def __init__(self, layout: Layout, notify: Notifier) -> None:
        """Take over an inotify instance."""
        self._layout = layout
        self._notify = notify
        self._mutex = threading.Lock()
        self._queues: dict[int, str] = {}
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
            with self._mutex:
                if self._root < 0:
                    self._root = self._add(fds[0], _QUEUES_CHANGE)
                number = self._add(fds[1], _COMING_IN | _DELETE_SELF | _MOVE_SELF)  # the same again for the same inode
                for other in [each for each, of in self._queues.items() if of == queue and each != number]:
                    self._forget(other)
                self._queues[number] = queue

    def _add(self, fd: int, mask: int) -> int:
        # By the held descriptor: what is watched is the directory that is listed.
        try:
            return self._notify.add_watch(f"/proc/self/fd/{fd}", mask | _ONLY_DIRECTORY)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            reason = "this user's inotify watches are used up (sysctl fs.inotify.max_user_watches)"
            raise OutOfSpace("watch", self._layout.path, reason) from error

    def _forget(self, number: int) -> None:
        del self._queues[number]
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
                queue = self._queues.get(event.wd)
                if queue is None:
                    continue
                changed.add(queue)
                if event.mask & _GONE:
                    self._forget(event.wd)
            return changed

    def close(self) -> None:
        """Give the instance back, with all its watches. Idempotent."""
        self._notify.close()


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

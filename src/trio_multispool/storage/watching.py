"""Being told by the kernel that something came into a queue: one inotify instance, with a watch for each queue.

What it tells is a hint: that it is worth listing a queue again. If the kernel's queue of events overflows, every
queue may have changed. A queue whose directory was moved away or removed is forgotten, and watched anew when it is
next asked for.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from trio_multispool.storage.layout import Layout
    from trio_multispool.storage.syscalls import Notifier

# inotify(7); a constant of ours each, so that nothing is imported before something is watched.
_CLOSE_WRITE: Final = 0x00000008
_MOVED_TO: Final = 0x00000080
_CREATE: Final = 0x00000100
_DELETE_SELF: Final = 0x00000400
_MOVE_SELF: Final = 0x00000800
_OVERFLOW: Final = 0x00004000
_IGNORED: Final = 0x00008000
_ONLY_DIRECTORY: Final = 0x01000000

_COMING_IN: Final = _MOVED_TO | _CREATE | _CLOSE_WRITE
_GONE: Final = _DELETE_SELF | _MOVE_SELF | _IGNORED


class DirectoryWatch:
    """Tells which queues of a spool may have got entries. `add` may be called from any thread."""

    def __init__(self, layout: Layout, notify: Notifier) -> None:
        """Take over an inotify instance."""
        self._layout = layout
        self._notify = notify
        self._mutex = threading.Lock()
        self._queues: dict[int, str] = {}

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is something to `drain`."""
        return self._notify.fileno()

    def add(self, queue: str) -> None:
        """Watch a queue, from now on; one that is watched already costs nothing. Raises a `SpoolError`."""
        with self._mutex:
            if queue in self._queues.values():
                return
            _ = self._layout.refresh(queue)
            with self._layout.doing("watch", queue):
                # By the held descriptor: what is watched is the directory that is listed.
                path = f"/proc/self/fd/{self._layout.fd(queue)}"
                number = self._notify.add_watch(path, _COMING_IN | _DELETE_SELF | _MOVE_SELF | _ONLY_DIRECTORY)
            self._queues[number] = queue

    def drain(self) -> set[str]:
        """Return the queues in which something may have come in since the last time, without waiting."""
        with self._mutex:
            changed: set[str] = set()
            for event in self._notify.read(timeout=0):
                if event.mask & _OVERFLOW:
                    changed.update(self._queues.values())
                    continue
                queue = self._queues.get(event.wd)
                if queue is None:
                    continue
                changed.add(queue)
                if event.mask & _GONE:
                    del self._queues[event.wd]
                    with contextlib.suppress(OSError):  # a directory that was removed has taken its watch with it
                        self._notify.rm_watch(event.wd)
            return changed

    def close(self) -> None:
        """Give the instance back, with all its watches. Idempotent."""
        self._notify.close()


def watch(layout: Layout) -> DirectoryWatch | None:
    """Begin to watch a spool; `None` where the kernel has no inotify. Raises a `SpoolError` if it has none to spare."""
    if not sys.platform.startswith("linux"):
        return None
    with layout.doing("watch", ""):
        return DirectoryWatch(layout, layout.calls.notify())

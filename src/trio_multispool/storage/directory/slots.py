"""Numbered slots that processes share: each a lock on one byte of `.limits`, a file without content.

The locks belong to the open file description (`F_OFD_SETLK`, fcntl(2), Linux 3.15). The kernel drops them when the
last descriptor is closed, however the process ends. So nothing is written, and nothing needs collecting. Two locks of
one description do not exclude each other, so the process itself records which slots it holds.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import weakref
from typing import TYPE_CHECKING

from trio_multispool.storage.directory.disk.files import discard
from trio_multispool.storage.directory.disk.layout import LIMITS, TEMPORARY
from trio_multispool.storage.directory.temporaries import new_temporary
from trio_multispool.storage.handles import Slot

if TYPE_CHECKING:
    from trio_multispool.storage.directory.disk.layout import Layout


class ByteSlots:
    """The slots of one open spool; used by any number of threads."""

    def __init__(self, layout: Layout) -> None:
        """Begin with nothing open, and nothing held."""
        self._layout = layout
        self._mutex = threading.RLock()  # re-entrant: a garbage collection may release a slot in any line
        self._fd = -1
        self._held: set[int] = set()
        _all.add(self)

    def take(self, number: int) -> Slot | None:
        """Hold a slot; `None` if it is taken. Raises a `SpoolError`."""
        layout = self._layout
        with self._mutex, layout.doing("lock", "", LIMITS):
            if number in self._held:
                return None
            if self._fd < 0:
                self._fd = self._open()
            try:
                layout.calls.lock_byte(self._fd, number)
            except BlockingIOError:
                return None
            self._held.add(number)
            return Slot(functools.partial(self.release, number))

    def _open(self) -> int:
        """Open the file. A new one gets its name only once all may use it: after a kill it would shut others out."""
        layout, calls = self._layout, self._layout.calls
        root, temporary = layout.fds[""], layout.fds[TEMPORARY]
        with contextlib.suppress(FileNotFoundError):
            return calls.open(LIMITS, os.O_RDWR, root)
        name, lock = new_temporary(layout, LIMITS)  # locked, so that no recovery clears it
        try:
            calls.move(name, temporary, LIMITS, root)
        except OSError as error:
            discard(layout, TEMPORARY, name, because=error)
            if not isinstance(error, FileExistsError):  # another process was faster
                raise
        finally:
            lock.release()
        return calls.open(LIMITS, os.O_RDWR, root)

    def release(self, number: int) -> None:
        """Unlock a slot that is held."""
        with self._mutex:
            if number in self._held:
                self._held.discard(number)
                try:
                    self._layout.calls.unlock_byte(self._fd, number)
                except OSError:  # only closing the file would help, and that would free the other slots too
                    self._held.add(number)

    def close(self) -> None:
        """Let go of all slots, and close the file. Idempotent."""
        with self._mutex:
            fd, self._fd = self._fd, -1
            self._held.clear()
            if fd >= 0:
                self._layout.close_fd(fd)

    def forget_in_child(self) -> None:
        """Close a forked child's copy. Open, it would hold the parent's slots for as long as the child lives."""
        self._mutex = threading.RLock()
        fd, self._fd = self._fd, -1
        self._held.clear()
        if fd >= 0:
            os.close(fd)


_all: weakref.WeakSet[ByteSlots] = weakref.WeakSet()


def _forget_in_child() -> None:
    for slots in list(_all):
        slots.forget_in_child()


os.register_at_fork(after_in_child=_forget_in_child)

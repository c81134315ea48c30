"""Watching a store in memory: a descriptor becomes readable when a queue may have new entries, or entries may move."""

from __future__ import annotations

import collections
import contextlib
import socket
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from trio_multispool.storage.memory.contents import Contents

_MANY: Final = 4096


@final
class MemoryWatch:
    """Tells which queues may have new entries, or which entries may have moved."""

    def __init__(self, contents: Contents, *, of_entries: bool = False) -> None:
        self._contents = contents
        self._of_entries = of_entries
        self._read, self._write = socket.socketpair()
        for end in (self._read, self._write):
            end.settimeout(0)
        self._queues: set[str] = set()
        self._told: collections.Counter[str] = collections.Counter()
        contents.listeners.add(self)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._read.fileno()

    def add(self, queue: str) -> None:
        """Watch a queue from now on."""
        with self._contents.mutex:
            self._queues.add(queue)

    def tell(self, name: str, queue: str | None) -> None:
        """Make the descriptor readable; under the mutex."""
        if queue is None:
            if not self._of_entries:
                return
        elif queue not in self._queues:
            return
        what = name if self._of_entries else queue or ""
        self._told[what] += 1
        if self._told[what] == 1:
            with contextlib.suppress(BlockingIOError):  # full: readable
                _ = self._write.send(b".")

    def drain(self) -> collections.Counter[str]:
        """Return how often each queue, or entry, was told of since the last time."""
        with self._contents.mutex:
            with contextlib.suppress(BlockingIOError):
                _ = self._read.recv(_MANY)
            told, self._told = self._told, collections.Counter()
            return told

    def close(self) -> None:
        """Stop watching."""
        with self._contents.mutex:
            self._contents.listeners.discard(self)
            self._queues.clear()
            self._read.close()
            self._write.close()

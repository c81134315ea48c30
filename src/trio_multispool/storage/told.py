"""`Told`: what is told in one thread, and found by another at a descriptor that becomes readable."""

from __future__ import annotations

import collections
import contextlib
import socket
import threading
from typing import Final, final

_MANY: Final = 4096


@final
class Told:
    """Names that were told, and how often, since the last time that they were taken."""

    def __init__(self) -> None:
        self._mutex = threading.RLock()
        self._read, self._write = socket.socketpair()
        for end in (self._read, self._write):
            end.settimeout(0)
        self._told: collections.Counter[str] = collections.Counter()
        self._closed = False

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._read.fileno()

    def tell(self, name: str, times: int = 1) -> None:
        """Make the descriptor readable."""
        with self._mutex:
            is_new = not self._told[name]
            self._told[name] += times
            if is_new and not self._closed:
                with contextlib.suppress(BlockingIOError):  # full: readable
                    _ = self._write.send(b".")

    def take(self) -> collections.Counter[str]:
        """Return what was told, without waiting."""
        with self._mutex:
            with contextlib.suppress(BlockingIOError):
                _ = self._read.recv(_MANY)
            told, self._told = self._told, collections.Counter()
            return told

    def close(self) -> None:
        """Close the descriptor. Idempotent."""
        with self._mutex:
            self._closed = True
            self._read.close()
            self._write.close()

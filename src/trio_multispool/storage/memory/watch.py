"""Watching a store in memory: what may have new entries is told, or what may have moved."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from trio_multispool.storage.told import Told

if TYPE_CHECKING:
    import collections

    from trio_multispool.storage.memory.contents import Contents


@final
class MemoryWatch:
    """Tells which queues may have new entries, or which entries may have moved."""

    def __init__(self, contents: Contents, *, of_entries: bool = False) -> None:
        self._contents = contents
        self._of_entries = of_entries
        self._queues: set[str] = set()
        self._told = Told()
        contents.listeners.add(self)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._told.fileno()

    def add(self, queue: str) -> None:
        """Watch a queue from now on."""
        with self._contents.mutex:
            self._queues.add(queue)

    def tell(self, name: str, queue: str | None) -> None:
        """Make the descriptor readable; under the mutex."""
        if queue in self._queues or (queue is None and self._of_entries):
            self._told.tell(name if self._of_entries else queue or "")

    def drain(self) -> collections.Counter[str]:
        """Return how often each queue, or entry, was told of since the last time."""
        return self._told.take()

    def close(self) -> None:
        """Stop watching."""
        with self._contents.mutex:
            self._contents.listeners.discard(self)
            self._queues.clear()
        self._told.close()

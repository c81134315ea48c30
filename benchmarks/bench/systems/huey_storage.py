"""huey's `SqliteStorage`, with and without `fsync`. Taking is destructive: what a dead worker took is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from huey.storage import SqliteStorage

from bench.systems.blocking import Blocking

if TYPE_CHECKING:
    from bench.work import Work


class Storage(Blocking):
    """One queue."""

    def __init__(self, work: Work) -> None:
        """Open it."""
        super().__init__(work)
        self._queue = SqliteStorage(filename=f"{work.folder}/queue.db", fsync=work.level == "power", timeout=60)

    def put(self, number: int) -> None:
        """Enqueue."""
        self._queue.enqueue(self.payload)

    def take(self) -> bool:
        """Dequeue."""
        return self._queue.dequeue() is not None


def opened(work: Work) -> Storage:
    """Open it."""
    return Storage(work)

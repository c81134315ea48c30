"""diskcache's `Deque`: SQLite with `synchronous=NORMAL`. Taking is destructive: what a dead worker took is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diskcache import Deque

from bench.systems.blocking import Blocking

if TYPE_CHECKING:
    from bench.work import Work


class Queue(Blocking):
    """One queue."""

    def __init__(self, work: Work) -> None:
        """Open it."""
        super().__init__(work)
        self._queue = Deque(directory=f"{work.folder}/queue")

    def put(self, number: int) -> None:
        """Append."""
        self._queue.append(self.payload)

    def take(self) -> bool:
        """Pop from the left."""
        try:
            _ = self._queue.popleft()
        except IndexError:
            return False
        return True


def opened(work: Work) -> Queue:
    """Open it."""
    return Queue(work)

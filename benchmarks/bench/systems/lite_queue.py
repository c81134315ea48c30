"""litequeue: SQLite in WAL mode with `synchronous=NORMAL`, so that power loss may take the last commits with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from litequeue import LiteQueue

from bench.systems.blocking import Blocking

if TYPE_CHECKING:
    from bench.work import Work


class Lite(Blocking):
    """One queue. Messages are text."""

    def __init__(self, work: Work) -> None:
        """Open it."""
        super().__init__(work)
        self._queue = LiteQueue(f"{work.folder}/queue.db")
        self._text = self.payload.decode()

    def put(self, number: int) -> None:
        """Put."""
        _ = self._queue.put(self._text)

    def take(self) -> bool:
        """Pop, which locks, and mark as done."""
        message = self._queue.pop()
        if message is None:
            return False
        _ = self._queue.done(message.message_id)
        return True


def opened(work: Work) -> Lite:
    """Open it."""
    return Lite(work)

"""persist-queue's `SQLiteAckQueue`: WAL, synced at each commit, as SQLite does unless told otherwise.

It keeps acknowledged items until they are cleared, a hundred at a time here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import persistqueue

from bench.systems.blocking import Blocking

if TYPE_CHECKING:
    from bench.work import Work


class AckQueue(Blocking):
    """One queue."""

    def __init__(self, work: Work) -> None:
        """Open it."""
        super().__init__(work)
        self._queue = persistqueue.SQLiteAckQueue(f"{work.folder}/queue", auto_commit=True)
        self._acknowledged = 0

    def put(self, number: int) -> None:
        """Put."""
        _ = self._queue.put(self.payload)

    def take(self) -> bool:
        """Get and acknowledge."""
        try:
            item = self._queue.get(block=False, raw=True)
        except persistqueue.Empty:
            return False
        _ = self._queue.ack(id=item["pqid"])
        self._acknowledged += 1
        if self._acknowledged % 100 == 0:
            self._queue.clear_acked_data(keep_latest=0, max_delete=100)
        return True


def opened(work: Work) -> AckQueue:
    """Open it."""
    return AckQueue(work)

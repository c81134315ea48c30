"""femtoqueue: a file an entry, and renames; `sync_after_write` syncs the file, and no directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from femtoqueue import FemtoQueue

from bench.systems.blocking import Blocking

if TYPE_CHECKING:
    from bench.work import Work


class Femto(Blocking):
    """One queue. What is done is kept, in a directory of its own."""

    def __init__(self, work: Work) -> None:
        """Open it."""
        super().__init__(work)
        self._queue = FemtoQueue(f"{work.folder}/queue", f"node{work.worker}", sync_after_write=work.level == "power")

    def put(self, number: int) -> None:
        """Push."""
        _ = self._queue.push(self.payload)

    def take(self) -> bool:
        """Pop, and mark as done."""
        task = self._queue.pop()
        if task is None:
            return False
        self._queue.done(task)
        return True


def opened(work: Work) -> Femto:
    """Open it."""
    return Femto(work)

"""python-dirq's `QueueSimple`: a file an entry, and hard links as locks; nothing is synced."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dirq.QueueSimple import QueueSimple

from bench.systems.blocking import Blocking

if TYPE_CHECKING:
    from bench.work import Phase, Work


class Simple(Blocking):
    """One queue."""

    def __init__(self, work: Work) -> None:
        """Open it."""
        super().__init__(work)
        self._queue = QueueSimple(f"{work.folder}/queue")
        self._name = ""

    def before(self, phase: Phase) -> None:
        """Begin to list, if there is something to take."""
        if phase == "remove":
            self._name = self._queue.first()

    def put(self, number: int) -> None:
        """Add."""
        _ = self._queue.add(self.payload)

    def take(self) -> bool:
        """Lock, get and remove."""
        while self._name:
            name, self._name = self._name, self._queue.next()
            if self._queue.lock(name):
                _ = self._queue.get(name)
                self._queue.remove(name)
                return True
        return False


def opened(work: Work) -> Simple:
    """Open it."""
    return Simple(work)

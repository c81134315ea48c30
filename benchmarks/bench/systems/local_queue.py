"""localqueue: its `DURABLE` mode for level `power`, its `RELAXED` mode for level `process`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from localqueue import DurabilityMode, SimpleQueue
from localqueue.exceptions import Empty

from bench.systems.blocking import Blocking

if TYPE_CHECKING:
    from bench.work import Work


class _Bytes:
    """A payload that is bytes already."""

    def dumps(self, data: bytes, /) -> bytes:
        """Return it."""
        return data

    def loads(self, data: bytes, /) -> bytes:
        """Return it."""
        return data


class Native(Blocking):
    """One queue."""

    def __init__(self, work: Work) -> None:
        """Open it."""
        super().__init__(work)
        mode = DurabilityMode.DURABLE if work.level == "power" else DurabilityMode.RELAXED
        self._queue = SimpleQueue(f"{work.folder}/queue", durability=mode, serializer=_Bytes())

    def put(self, number: int) -> None:
        """Put."""
        _ = self._queue.put(self.payload)

    def take(self) -> bool:
        """Get and acknowledge."""
        try:
            job = self._queue.get(block=False)
        except Empty:
            return False
        self._queue.ack(job)
        return True


def opened(work: Work) -> Native:
    """Open it."""
    return Native(work)

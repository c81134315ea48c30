"""What one process is asked to do, and what it answers."""

from __future__ import annotations

import time
from typing import Literal

import msgspec

Level = Literal["power", "process"]
"""What an acknowledged entry survives: the loss of power, or whatever kills processes."""

Phase = Literal["enqueue", "enqueue_many", "remove", "work_off", "save", "pipeline", "with_entry", "try_checkout"]
"""What can be timed: to enqueue one by one, a hundred together; to check out, and remove (with the data loaded, in
`work_off`) or save to another queue; and to take entries from a first queue through a second and a third until they are
removed."""

QUEUES = ("work", "second", "third")
METADATA_BYTES = 100
TOGETHER = 100
"""How many entries are enqueued together in the phase `enqueue_many`."""


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What a process is asked to do with one system."""

    system: str
    folder: str
    """Or the URL of a database, for a system that is on a server."""
    level: Level = "power"
    tasks: int = 1
    """How many tasks work at a time in a process; a system that blocks has one."""

    size: int = 1024
    """Bytes of data; metadata has `METADATA_BYTES` beside."""

    worker: int = 0
    workers: int = 1
    """Which of how many processes this one is."""


class Took(msgspec.Struct, frozen=True):
    """When a phase began and ended in a process, on the clock that all processes share, and how many entries it did."""

    began: float
    ended: float
    done: int


class Clock:
    """Times one phase."""

    def __init__(self) -> None:
        """Begin."""
        self._began = time.monotonic()

    def took(self, done: int) -> Took:
        """End."""
        return Took(self._began, time.monotonic(), done)


def metadata_of(number: int) -> bytes:
    """Return metadata as JSON, `METADATA_BYTES` long."""
    text = f'{{"number":{number},"padding":"'
    return f'{text}{"x" * (METADATA_BYTES - len(text) - 2)}"}}'.encode()

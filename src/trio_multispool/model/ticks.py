"""The ticks of a schedule: when they are, which are due, and what each is called. Nothing here reads a clock."""

from __future__ import annotations

import datetime
import enum
from typing import TYPE_CHECKING, Final, final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)

SHORTEST: Final = datetime.timedelta(seconds=1)
"""The shortest interval: names count in seconds."""


@final
class Missed(enum.Enum):
    """What `every` does about ticks that passed while no program ran, or when the clock was put forward."""

    ALL = "all"
    """Enqueue each of them, the earliest first."""
    LATEST = "latest"
    """Enqueue one entry for the latest of them."""
    NONE = "none"
    """Enqueue nothing for ticks that passed while no program ran."""


@final
class Ticks(msgspec.Struct, frozen=True):
    """The ticks of a schedule: `start`, and then one each `interval`, a whole number of microseconds."""

    name: str
    interval: datetime.timedelta
    start: datetime.datetime

    def latest(self, now: datetime.datetime) -> datetime.datetime | None:
        """Return the last tick that is not after `now`, or `None` if the first is yet to come."""
        return None if now < self.start else self.start + (now - self.start) // self.interval * self.interval

    def next_after(self, last: datetime.datetime | None) -> datetime.datetime:
        """Return the tick after `last`, or the first tick if that is `None`."""
        return self.start if last is None else last + self.interval

    def due(self, last: datetime.datetime | None, now: datetime.datetime, missed: Missed) -> list[datetime.datetime]:
        """Return the ticks after `last` to be enqueued by `now`, in order."""
        latest = self.latest(now)
        if latest is None or (last is not None and latest <= last):
            return []
        if missed is not Missed.ALL:
            return [latest]
        first = self.next_after(last)
        return [first + number * self.interval for number in range((latest - first) // self.interval + 1)]

    def back_from(self, now: datetime.datetime, memory: datetime.timedelta) -> Iterator[datetime.datetime]:
        """Yield the ticks from `now` back for as long as `memory`, the latest first."""
        tick = self.latest(now)
        while tick is not None and tick >= max(self.start, now - memory):
            yield tick
            tick -= self.interval

    def name_of(self, tick: datetime.datetime) -> str:
        """Return the name of a tick's entry."""
        return f"{self.name}-{tick.astimezone(datetime.UTC):%Y%m%dT%H%M%SZ}"

"""The times of a schedule: which there are, which are due, and how each is called. Nothing here knows the time."""

from __future__ import annotations

import datetime
import enum
from typing import TYPE_CHECKING, Final, final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)

SHORTEST: Final = datetime.timedelta(seconds=1)
"""Of intervals: names have the second in them."""


@final
class Missed(enum.Enum):
    """What `every` does about ticks that went by while no program ran, or the clock was put forward."""

    ALL = "all"
    """Enqueue each of them, the earliest first."""
    LATEST = "latest"
    """Enqueue one entry for the latest of them."""
    NONE = "none"
    """Enqueue nothing for those that went by while no program ran."""


@final
class Ticks(msgspec.Struct, frozen=True):
    """The ticks of a schedule: `start` and every `interval` after it, whole numbers of microseconds apart."""

    name: str
    interval: datetime.timedelta
    start: datetime.datetime

    def latest(self, now: datetime.datetime) -> datetime.datetime | None:
        """Return the last tick that is not after `now`; `None`: the first is yet to come."""
        return None if now < self.start else self.start + (now - self.start) // self.interval * self.interval

    def next_after(self, last: datetime.datetime | None) -> datetime.datetime:
        """Return the tick after another one; the first, if there was none."""
        return self.start if last is None else last + self.interval

    def due(self, last: datetime.datetime | None, now: datetime.datetime, missed: Missed) -> list[datetime.datetime]:
        """Return those after `last` that are to be enqueued by `now`, in order."""
        latest = self.latest(now)
        if latest is None or (last is not None and latest <= last):
            return []
        if missed is not Missed.ALL:
            return [latest]
        found: list[datetime.datetime] = []
        tick = self.next_after(last)
        while tick <= latest:
            found.append(tick)
            tick += self.interval
        return found

    def back_from(self, now: datetime.datetime, memory: datetime.timedelta) -> Iterator[datetime.datetime]:
        """Yield the ticks of the time before `now`, the latest first."""
        tick = self.latest(now)
        while tick is not None and tick >= max(self.start, now - memory):
            yield tick
            tick -= self.interval

    def name_of(self, tick: datetime.datetime) -> str:
        """Return what the entry of a tick is called."""
        return f"{self.name}-{tick.astimezone(datetime.UTC):%Y%m%dT%H%M%SZ}"

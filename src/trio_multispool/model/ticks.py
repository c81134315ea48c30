"""The ticks of a schedule: when they are, which are due, and what each is called. Nothing here reads a clock."""

from __future__ import annotations

import datetime
import enum
from typing import TYPE_CHECKING, Final, Protocol, final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)

SHORTEST: Final = datetime.timedelta(seconds=1)
"""The shortest interval: names count in seconds."""

FEWEST: Final = 2
"""At least this many ticks are remembered: else a schedule would forget its last one before the next."""


@final
class Missed(enum.Enum):
    """What `every` does about ticks that passed while no program ran, or when the clock was put forward."""

    ALL = "all"
    """Enqueue each of them, the earliest first."""
    LATEST = "latest"
    """Enqueue one entry for the latest of them."""
    NONE = "none"
    """Enqueue nothing for ticks that passed while no program ran."""


class Ticks(Protocol):
    """The ticks of a schedule, in order: points in time, in UTC, none before the first."""

    @property
    def name(self) -> str:
        """The name of the schedule."""
        ...

    @property
    def closest(self) -> datetime.timedelta:
        """No two ticks are closer than this."""
        ...

    def latest(self, now: datetime.datetime) -> datetime.datetime | None:
        """Return the last tick that is not after `now`, or `None` if the first is yet to come."""
        ...

    def next_after(self, last: datetime.datetime | None) -> datetime.datetime:
        """Return the tick after `last`, or the first tick if that is `None`."""
        ...

    def before(self, tick: datetime.datetime) -> datetime.datetime | None:
        """Return the tick before another one; `None` if that is the first."""
        ...

    def span(self, number: int) -> datetime.timedelta:
        """Return a time in which there are at most about so many ticks."""
        ...


@final
class IntervalTicks(msgspec.Struct, frozen=True):
    """The ticks of an interval: `start`, and then one each `interval`, a whole number of microseconds."""

    name: str
    interval: datetime.timedelta
    start: datetime.datetime

    @property
    def closest(self) -> datetime.timedelta:
        """The interval."""
        return self.interval

    def latest(self, now: datetime.datetime) -> datetime.datetime | None:
        """Return the last tick that is not after `now`, or `None` if the first is yet to come."""
        return None if now < self.start else self.start + (now - self.start) // self.interval * self.interval

    def next_after(self, last: datetime.datetime | None) -> datetime.datetime:
        """Return the tick after `last`, or the first tick if that is `None`."""
        return self.start if last is None else last + self.interval

    def before(self, tick: datetime.datetime) -> datetime.datetime | None:
        """Return the tick before another one; `None` if that is the first."""
        return None if tick <= self.start else tick - self.interval

    def span(self, number: int) -> datetime.timedelta:
        """Return the length of so many intervals."""
        return number * self.interval


def due(
    ticks: Ticks, last: datetime.datetime | None, now: datetime.datetime, missed: Missed
) -> list[datetime.datetime]:
    """Return the ticks after `last` to be enqueued by `now`, in order."""
    latest = ticks.latest(now)
    if latest is None or (last is not None and latest <= last):
        return []
    if missed is not Missed.ALL:
        return [latest]
    found = [ticks.next_after(last)]
    while found[-1] < latest:
        found.append(ticks.next_after(found[-1]))
    return found


def back_from(
    ticks: Ticks, now: datetime.datetime, memory: datetime.timedelta, *, most: int
) -> Iterator[datetime.datetime]:
    """Yield the ticks from `now` back for as long as `memory`, the latest first: two at least, and at most so many."""
    tick, earliest = ticks.latest(now), now - memory
    for number in range(most):
        if tick is None or (number >= FEWEST and tick < earliest):
            return
        yield tick
        tick = ticks.before(tick)


def to_remember(ticks: Ticks, tick: datetime.datetime, memory: datetime.timedelta) -> datetime.timedelta:
    """Return for how long a tick is remembered, so that `back_from` finds it for as long as it yields it.

    That ends with the second tick after it, or with the memory. The time from it to the next is added, for clocks that
    do not agree.
    """
    following = ticks.next_after(tick)
    return max(memory, ticks.next_after(following) - tick) + (following - tick)


def name_of(schedule: str, tick: datetime.datetime) -> str:
    """Return the name of a tick's entry."""
    return f"{schedule}-{tick.astimezone(datetime.UTC):%Y%m%dT%H%M%SZ}"

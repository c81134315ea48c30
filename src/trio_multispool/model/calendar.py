"""The ticks of a calendar: local times of a time zone, as points in time. Nothing here reads a clock.

Theory. Zones put their clocks forward, so that local times are left out, and back, so that they come twice. There are
two kinds of calendars, as in Debian's cron:

- *Fixed times*, such as 2:30 each day. Each comes once: in the moment in which the local clock first shows that time or
  a later one. So a time that is left out comes when the clock jumps over it, and one that comes twice counts the first
  time.
- *Every so often*, such as each quarter of an hour. A tick is each moment in which the local clock shows such a time:
  none while times are left out, and again when they come again.

What is a tick depends on nothing else: not on where a search begins, or on its direction. So all processes agree, also
those that look backwards for the last tick that was made.
"""

from __future__ import annotations

import bisect
import datetime
import functools
from typing import TYPE_CHECKING, Final, final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

_DAY: Final = datetime.timedelta(days=1)

CYCLE: Final = datetime.timedelta(days=146_097)
"""After 400 years, all weekdays and leap years come again."""

_LAST_CYCLE: Final = datetime.datetime(2400, 1, 1, tzinfo=datetime.UTC)
"""By then, zones change their clocks on the same days of each year, as far as anybody knows."""


@final
class Calendar:
    """The local times of a zone at which something is due."""

    def __init__(  # noqa: PLR0913  # the fields of an expression, and how they are meant
        self,
        *,
        minutes: Collection[int],
        hours: Collection[int],
        months: Collection[int],
        is_day: Callable[[datetime.date], bool],
        zone: datetime.tzinfo,
        fixed: bool,
    ) -> None:
        """Take whole numbers, and what says whether a day of these months is meant; `fixed`: see above."""
        self.most_a_day: int = len(minutes) * len(hours)
        """How many times there are in a day."""
        self._times = [datetime.time(hour, minute) for hour in sorted(hours) for minute in sorted(minutes)]
        self._months = frozenset(months)
        self._is_day = is_day
        self._zone = zone
        self._fixed = fixed
        # A few, because a search looks at neighbouring days again and again.
        self._ticks_of = functools.lru_cache(maxsize=8)(self._find)

    def ever_comes(self) -> bool:
        """Tell whether there will always be another tick."""
        return self._first_after(_LAST_CYCLE) is not None

    def first_after(self, moment: datetime.datetime) -> datetime.datetime:
        """Return the first tick after a moment, in UTC. Raises `ValueError` if there is none."""
        found = self._first_after(moment)
        if found is None:
            raise ValueError(f"it never comes again after {moment:%Y-%m-%d}")
        return found

    def _first_after(self, moment: datetime.datetime) -> datetime.datetime | None:
        # A clock that is put back at midnight shows the day before once more.
        begin = moment.astimezone(self._zone).date() - _DAY
        for day in self._days(begin, begin + CYCLE, _DAY):
            tick = self._first_of(day, moment)
            if tick is not None:
                return min(tick, self._first_of(day + _DAY, moment) or tick)
        return None

    def last_until(self, moment: datetime.datetime, earliest: datetime.datetime) -> datetime.datetime | None:
        """Return the last tick that is not after a moment, in UTC; `None` if it is before the `earliest` time."""
        begin, end = (each.astimezone(self._zone).date() for each in (moment, earliest))
        for day in self._days(begin + _DAY, end - _DAY, -_DAY):
            tick = self._last_of(day, moment)
            if tick is not None:
                tick = max(tick, self._last_of(day - _DAY, moment) or tick)
                return tick if tick >= earliest else None
        return None

    def _days(self, begin: datetime.date, end: datetime.date, step: datetime.timedelta) -> Iterator[datetime.date]:
        """Yield the days that are meant, from one to another."""
        day = begin
        while day != end + step:
            if day.month in self._months and self._is_day(day):
                yield day
            day += step

    def _first_of(self, day: datetime.date, moment: datetime.datetime) -> datetime.datetime | None:
        ticks = self._ticks_of(day)
        at = bisect.bisect_right(ticks, moment)
        return ticks[at] if at < len(ticks) else None

    def _last_of(self, day: datetime.date, moment: datetime.datetime) -> datetime.datetime | None:
        ticks = self._ticks_of(day)
        at = bisect.bisect_right(ticks, moment)
        return ticks[at - 1] if at else None

    def _find(self, day: datetime.date) -> list[datetime.datetime]:
        """Return the ticks of a day, in order."""
        if day.month not in self._months or not self._is_day(day):
            return []
        comes = self._when_reached if self._fixed else self._when_shown
        found = {tick for time in self._times for tick in comes(datetime.datetime.combine(day, time))}
        return sorted(found)

    def _when_shown(self, local: datetime.datetime) -> Iterator[datetime.datetime]:
        """Yield each moment in which the local clock shows a time: none, one or two."""
        for fold in (0, 1):
            moment = local.replace(fold=fold, tzinfo=self._zone).astimezone(datetime.UTC)
            if moment.astimezone(self._zone).replace(tzinfo=None) == local:
                yield moment

    def _when_reached(self, local: datetime.datetime) -> Iterator[datetime.datetime]:
        """Yield the moment in which the local clock first shows a time, or jumps over it."""
        shown = next(self._when_shown(local), None)
        yield self._jump_over(local) if shown is None else shown

    def _jump_over(self, local: datetime.datetime) -> datetime.datetime:
        """Return the moment in which the local clock jumps over a time that it never shows."""
        # PEP 495: with fold 0 it is reckoned by the offset before the jump, so that it is after it; and vice versa.
        late, early = (
            local.replace(fold=fold, tzinfo=self._zone).astimezone(datetime.UTC).timestamp() for fold in (0, 1)
        )
        seconds = range(int(early), int(late) + 1)

        def is_past(second: int) -> bool:
            moment = datetime.datetime.fromtimestamp(second, self._zone)
            return moment.replace(tzinfo=None) > local

        return datetime.datetime.fromtimestamp(seconds[bisect.bisect_left(seconds, x=True, key=is_past)], datetime.UTC)


@final
class CalendarTicks(msgspec.Struct, frozen=True):
    """The ticks of a calendar, from `start` on."""

    name: str
    calendar: Calendar
    start: datetime.datetime

    @property
    def closest(self) -> datetime.timedelta:
        """A minute."""
        return datetime.timedelta(minutes=1)

    def latest(self, now: datetime.datetime) -> datetime.datetime | None:
        """Return the last tick that is not after `now`, or `None` if the first is yet to come."""
        return self.calendar.last_until(now, self.start) if now >= self.start else None

    def next_after(self, last: datetime.datetime | None) -> datetime.datetime:
        """Return the tick after `last`, or the first tick if that is `None`."""
        return self.calendar.first_after(self.start - datetime.timedelta.resolution if last is None else last)

    def before(self, tick: datetime.datetime) -> datetime.datetime | None:
        """Return the tick before another one; `None` if that is the first."""
        return self.latest(tick - datetime.timedelta.resolution)

    def span(self, number: int) -> datetime.timedelta:
        """Return a time in which there are at most so many ticks: as many days as have them, if all days do."""
        return number / self.calendar.most_a_day * _DAY

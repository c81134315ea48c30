"""What came into a queue and what went out of it over the last minutes, for a small chart. Pure."""

from __future__ import annotations

import collections
from typing import Final, NamedTuple, final

STEP: Final = 10.0
"""How many seconds one point of the chart stands for."""

POINTS: Final = 60
"""How many points are kept: ten minutes."""


class Point(NamedTuple):
    """What happened in one step, or in as much of it as was seen."""

    seconds: float
    came: int
    went: int

    def per_minute(self) -> tuple[float, float]:
        """Return how many came in and went out in a minute."""
        return self.came * 60 / self.seconds, self.went * 60 / self.seconds


@final
class Flow:
    """The last minutes of one queue."""

    def __init__(self) -> None:
        self._points: collections.deque[Point] = collections.deque(maxlen=POINTS)

    def add(self, seconds: float, came: int, went: int) -> None:
        """Take in what happened between two looks."""
        if seconds <= 0:
            return
        last = self._points[-1] if self._points else None
        if last is not None and last.seconds + seconds <= STEP:
            self._points[-1] = Point(last.seconds + seconds, last.came + came, last.went + went)
        else:
            self._points.append(Point(seconds, came, went))

    @property
    def points(self) -> list[tuple[float, float]]:
        """What came in and went out in a minute, the latest last, without one that has just begun."""
        points = [*self._points]
        if len(points) > 1 and points[-1].seconds < STEP / 2:
            _ = points.pop()
        return [point.per_minute() for point in points]

    @property
    def lately(self) -> tuple[float, float] | None:
        """The same over the last two steps at most; `None` before the second look."""
        last = [*self._points][-2:]
        if not last:
            return None
        return Point(
            sum(each.seconds for each in last), sum(each.came for each in last), sum(each.went for each in last)
        ).per_minute()

"""Count a queue's entries by age, in buckets each twice as wide as the one before, as `qshape` draws them.

A queue that keeps up has its entries on the left; one that is stuck has them on the right, and how far to the right
tells since when.
"""

import bisect
from typing import Final, final

from trio_multispool.looks.ages import UNITS

BUCKETS: Final = 10
"""With five minutes for the first, nine edges reach to 21 hours; what is older is in the last."""

FIRST: Final = 300.0
"""The first bucket's edge in seconds unless somebody says otherwise: that of `qshape`."""

_MANY: Final = 20
"""From this many units on, a fraction of one makes no difference."""
_THOUSAND: Final = 1000
_TEN: Final = 10


def edges(first: float) -> list[float]:
    """Return the upper edges of all buckets but the last, which has none, in seconds."""
    return [first * 2**number for number in range(BUCKETS - 1)]


def headers(limits: list[float]) -> list[str]:
    """Name the buckets: `5m`, `10m` and so on are what is younger than that, `21h+` is the rest."""
    return [*map(_edge, limits), f"{_edge(limits[-1])}+"]


def _edge(seconds: float) -> str:
    """Say an edge in the largest unit that does not round it much: `5m`, `640m`, `21h`."""
    for size, unit in UNITS:
        scaled = seconds / size
        if scaled >= _MANY or (scaled >= 1 and scaled.is_integer()):
            return f"{int(scaled)}{unit}"
    return f"{seconds:g}s"


def short_count(number: int) -> str:
    """Say a number in four characters at most, so that a row fits a terminal: `999`, `12k`, `1.2M`."""
    if number < _TEN * _THOUSAND:
        return str(number)
    scaled = float(number)
    for unit in ("k", "M", "G"):
        scaled /= _THOUSAND
        if scaled < _TEN:
            return f"{int(scaled * _TEN) / _TEN:.1f}{unit}"
        if scaled < _THOUSAND:
            return f"{int(scaled)}{unit}"
    return f"{int(scaled / _THOUSAND)}T"


@final
class Histogram:
    """Counts ages."""

    def __init__(self, limits: list[float]) -> None:
        """Begin with empty buckets between these edges."""
        self.counts: list[int] = [0] * (len(limits) + 1)
        self._limits = limits

    def add(self, age: float) -> None:
        """Count one; an age that is an edge is in the bucket beyond it."""
        self.counts[bisect.bisect_right(self._limits, age)] += 1

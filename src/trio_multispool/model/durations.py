"""Numbers that callers give: durations, as seconds or `datetime.timedelta`s, and how many of something."""

from __future__ import annotations

import datetime
import math
import operator
from typing import overload


@overload
def seconds(duration: float | datetime.timedelta) -> float: ...
@overload
def seconds(duration: None) -> None: ...
@overload
def seconds(duration: float | datetime.timedelta | None) -> float | None: ...
def seconds(duration: float | datetime.timedelta | None) -> float | None:
    """Return a duration in seconds, `None` for none; raises `TypeError` for what is none, `ValueError` if negative."""
    if duration is None:
        return None
    if not isinstance(duration, (int, float, datetime.timedelta)):
        message = f"a duration is a number of seconds or a timedelta, not {duration!r}"
        raise TypeError(message)
    found = duration.total_seconds() if isinstance(duration, datetime.timedelta) else float(duration)
    if math.isnan(found) or found < 0:
        message = f"a duration is a number of seconds or a timedelta, and not negative, not {duration!r}"
        raise ValueError(message)
    return found


def whole(number: int, what: str, *, least: int) -> int:
    """Return a number of things; raises `TypeError` if it is no whole number, and `ValueError` if there are too few."""
    try:
        found = operator.index(number)
    except TypeError:
        message = f"{what} must be a whole number, not {number!r}"
        raise TypeError(message) from None
    if found < least:
        message = f"{what} must be at least {least}, not {number}"
        raise ValueError(message)
    return found

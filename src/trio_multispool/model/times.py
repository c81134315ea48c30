"""Times and numbers as callers give them: a duration, a whole number, and when an entry becomes due."""

from __future__ import annotations

import datetime
import math
import operator
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable


def seconds(duration: float | datetime.timedelta | None) -> float | None:
    """Return seconds, or `None` for `None`, where none need be given; otherwise as `length_of`."""
    return None if duration is None else length_of(duration)


def length_of(duration: float | datetime.timedelta, what: str = "a duration") -> float:
    """Return seconds. `TypeError` if it is no duration, which `None` is not; `ValueError` if negative or too long."""
    if not isinstance(duration, (int, float, datetime.timedelta)):
        raise TypeError(f"{what} is a number of seconds or a timedelta, not {duration!r}")
    try:
        found = duration.total_seconds() if isinstance(duration, datetime.timedelta) else float(duration)
    except OverflowError:
        raise ValueError(f"{what} is far too long") from None
    if math.isnan(found) or found < 0:
        raise ValueError(f"{what} is a number of seconds or a timedelta, and not negative, not {duration!r}")
    return found


def whole(number: int, what: str, *, least: int) -> int:
    """Return a whole number; raises `TypeError` if it is not one, and `ValueError` if it is below `least`."""
    try:
        found = operator.index(number)
    except TypeError:
        raise TypeError(f"{what} must be a whole number, not {number!r}") from None
    if found < least:
        raise ValueError(f"{what} must be at least {least}, not {number}")
    return found


NotBefore: TypeAlias = float | datetime.timedelta | datetime.datetime
"""An aware `datetime`; or seconds or a `timedelta`, counted from now."""

EARLIEST: Final = datetime.datetime(2010, 1, 1, tzinfo=datetime.UTC).timestamp()
"""Nothing was written before this: there was no such library, and clocks that are not set begin in 1970 to 2000."""

AHEAD: Final = 86_400.0
"""Nothing is dated further ahead of the clock than this, in seconds. Clocks of machines differ by less."""

LATEST: Final = datetime.datetime(2446, 1, 1, tzinfo=datetime.UTC).timestamp()
"""Times must be before this: ext4's time stamps end in that year, those of XFS later."""

_FIRST: Final = datetime.datetime.min.replace(tzinfo=datetime.UTC)
_LAST: Final = datetime.datetime.max.replace(tzinfo=datetime.UTC)


def aware(at: float) -> datetime.datetime:
    """Return a time in seconds since 1970 as an aware `datetime` in UTC.

    Any program, and any broken clock, can date a file. A time that no `datetime` can hold gives the earliest or the
    latest that there is: one nonsense date must not end a listing.
    """
    try:
        return datetime.datetime.fromtimestamp(at, datetime.UTC)
    except (ValueError, OverflowError, OSError):
        return _FIRST if at < 0 else _LAST


def is_possible(at: float, now: float) -> bool:
    """Tell whether something can have been written at a time; both are in seconds since 1970.

    If not, a clock was wrong: that of the machine which wrote it, or the one that `now` is from.
    """
    return EARLIEST <= at <= now + AHEAD


def time_since(at: float | None, now: float) -> float | None:
    """Return how long ago something was, in seconds, and never negative; `None` if `at` is, or cannot have been."""
    return None if at is None or not is_possible(at, now) else max(0.0, now - at)


def due_at(not_before: NotBefore | None, now: Callable[[], float]) -> float | None:
    """Return when an entry becomes due, in seconds since 1970, or `None` if it need not wait.

    A time in the past means no wait. `now` is the wall clock, in the same seconds. Raises `TypeError` if `not_before`
    is neither a time nor a duration. Raises `ValueError` for a `datetime` without a time zone, a negative duration, and
    a time after the year 2445.
    """
    if not_before is None:
        return None
    if isinstance(not_before, datetime.datetime):
        if not_before.utcoffset() is None:
            message = f"not_before wants a datetime with a time zone, not {not_before!r}; say datetime.now(tz=…) + …"
            raise ValueError(message)
        at = not_before.timestamp()
    else:
        at = now() + length_of(not_before)
    if not at < LATEST or math.isnan(at):
        raise ValueError(f"not_before is at the latest in the year 2445, and not {not_before!r}")
    return at if at > now() else None

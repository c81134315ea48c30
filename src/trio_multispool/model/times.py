"""Until when an entry is to wait, as callers say it: a time, or how long from now."""

from __future__ import annotations

import datetime
import math
from typing import TYPE_CHECKING, Final, TypeAlias

from trio_multispool.model.durations import seconds

if TYPE_CHECKING:
    from collections.abc import Callable

NotBefore: TypeAlias = float | datetime.timedelta | datetime.datetime
"""An aware `datetime`, or from now on: seconds, or a `timedelta`."""

LATEST: Final = datetime.datetime(2446, 1, 1, tzinfo=datetime.UTC).timestamp()
"""The last time that is taken: ext4's time stamps end in that year, and those of XFS later."""


def aware(at: float) -> datetime.datetime:
    """Return a time in seconds since 1970 as an aware `datetime` in UTC."""
    return datetime.datetime.fromtimestamp(at, datetime.UTC)


def due_at(not_before: NotBefore | None, now: Callable[[], float]) -> float | None:
    """Return until when an entry is to wait, in seconds since 1970; `None`: it need not wait.

    `now` is the wall clock, in the same seconds. Raises `TypeError` for what is neither a time nor a duration, and
    `ValueError` for a `datetime` without a time zone, a negative duration, and what is later than the year 2445.
    """
    if not_before is None:
        return None
    if isinstance(not_before, datetime.datetime):
        if not_before.utcoffset() is None:
            message = f"not_before wants a datetime with a time zone, not {not_before!r}; say datetime.now(tz=…) + …"
            raise ValueError(message)
        at = not_before.timestamp()
    else:
        at = now() + seconds(not_before)
    if not at < LATEST or math.isnan(at):
        message = f"not_before is at the latest in the year 2445, and not {not_before!r}"
        raise ValueError(message)
    return at if at > now() else None

"""Durations: seconds, or `datetime.timedelta`s, wherever one is asked for."""

from __future__ import annotations

import datetime
import math
from typing import overload


@overload
def seconds(duration: float | datetime.timedelta) -> float: ...
@overload
def seconds(duration: None) -> None: ...
@overload
def seconds(duration: float | datetime.timedelta | None) -> float | None: ...
def seconds(duration: float | datetime.timedelta | None) -> float | None:
    """Return a duration in seconds, `None` for none; raises `ValueError` if it is negative or no number."""
    if duration is None:
        return None
    found = duration.total_seconds() if isinstance(duration, datetime.timedelta) else float(duration)
    if math.isnan(found) or found < 0:
        message = f"a duration is a number of seconds or a timedelta, and not negative, not {duration!r}"
        raise ValueError(message)
    return found

"""`Retention`: what a queue is not to keep, as a value."""

from __future__ import annotations

import datetime
from typing import final

import msgspec

from trio_multispool.model.durations import seconds, whole


@final
class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """What a queue is not to keep: for `spool.reader(queue, retention=…)` and `spool.expire`. Nothing by default.

    - `max_age`: an entry goes whose metadata was written longer ago than this, in seconds or as a `timedelta`.
    - `max_count`: of more entries than so many, those go that are the oldest, by the same time.

    Only what is available goes: not what waits, what somebody has, or what is in quarantine.

    Raises `ValueError` if neither is given, or one is negative, and `TypeError` for what is no duration or no number.

    ```python
    Retention(max_age=timedelta(days=30), max_count=100_000)
    ```
    """

    max_age: float | datetime.timedelta | None = None
    max_count: int | None = None

    def __post_init__(self) -> None:
        """Check what was given."""
        _ = seconds(self.max_age)
        if self.max_count is not None:
            _ = whole(self.max_count, "max_count", least=0)
        if self.max_age is None and self.max_count is None:
            message = "a retention says a max_age, or a max_count, or both"
            raise ValueError(message)

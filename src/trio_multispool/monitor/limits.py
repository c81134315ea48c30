"""How old each kind of file may be before that is a problem."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Mapping
from typing import Final, final

import msgspec

from trio_multispool.model.times import length_of, seconds

TEN_MINUTES: Final = 600.0


@final
class Ages(msgspec.Struct, frozen=True):
    """The limits in seconds; `None` means no limit."""

    checked_out: float | None
    tmp_file: float | None
    queues: dict[str, float]


@final
class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How old each kind of file may be: seconds, or `timedelta`s; `None` means no limit.

    - `max_checked_out_age`: how long an entry may be checked out.
    - `max_tmp_file_age`: how long a temporary file may go without being written to.
    - `max_queue_ages`: a limit for each queue (a member of the enum, or a name). It counts from the last write of an
      available entry's metadata, and from the due time of a waiting entry. Queues that are not named have no limit.

    ```python
    limits = Limits(max_checked_out_age=3600, max_queue_ages={Mail.SEND: datetime.timedelta(minutes=5)})
    ```

    Raises `TypeError` if a value is not a duration, and `ValueError` if one is negative.
    """

    max_checked_out_age: float | datetime.timedelta | None = TEN_MINUTES
    max_tmp_file_age: float | datetime.timedelta | None = TEN_MINUTES
    max_queue_ages: Mapping[enum.Enum | str, float | datetime.timedelta] = {}

    def __post_init__(self) -> None:
        """Refuse a value that is not a duration now, not in the first run."""
        _ = self.ages()

    def ages(self) -> Ages:
        """Return them in seconds."""
        return Ages(
            seconds(self.max_checked_out_age),
            seconds(self.max_tmp_file_age),
            {_name(queue): length_of(age, f"the limit of {queue!r}") for queue, age in self.max_queue_ages.items()},
        )


def _name(queue: enum.Enum | str) -> str:
    name: object = queue.value if isinstance(queue, enum.Enum) else queue
    if not isinstance(name, str):
        raise TypeError(f"max_queue_ages: {queue!r} is no queue")
    return name

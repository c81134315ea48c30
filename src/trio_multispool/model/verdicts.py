"""What a handler answers about its entry, and what `try_…` operations answer when they get no entry."""

from __future__ import annotations

import datetime
import enum
from typing import Final, Generic, Literal, TypeAlias, TypeVar, final

import msgspec

from trio_multispool.model.times import NotBefore, length_of

Q_co = TypeVar("Q_co", bound=enum.Enum, covariant=True)
M_co = TypeVar("M_co", covariant=True)


@final
class Unchanged(enum.Enum):
    """The type of `UNCHANGED`."""

    UNCHANGED = "unchanged"


UNCHANGED: Final = Unchanged.UNCHANGED
"""Stands for the metadata that the job holds now: as checked out, or as `update` changed it."""


@final
class Save(msgspec.Struct, Generic[Q_co, M_co], frozen=True):
    """Move the entry to `queue` (the one it came from is allowed), with `metadata` if it is given.

    With `not_before`, it waits there until then: an aware `datetime`; or seconds or a `timedelta`, counted from now.

    ```python
    attempts = envelope.attempts + 1
    return Save(Mail.SEND, msgspec.structs.replace(envelope, attempts=attempts), not_before=60 * 2**attempts)
    ```
    """

    queue: Q_co
    metadata: M_co | Literal[Unchanged.UNCHANGED] = UNCHANGED
    not_before: NotBefore | None = None


@final
class Remove(msgspec.Struct, frozen=True):
    """The work is done: delete the entry and its data."""


@final
class Release(msgspec.Struct, frozen=True):
    """Put the entry back in the queue it came from, unchanged."""


@final
class RetryLater(msgspec.Struct, frozen=True):
    """This attempt failed: try again after `delay`, in seconds or as a `timedelta`. For `reader.iter(…, retry=…)` only.

    Use it instead of the backoff when a server says how long to wait (`Retry-After`). It counts as an attempt, and
    after the last attempt the entry is given up. With `counts=False` it does not count. `reason` is kept in the entry's
    history.

    Raises `ValueError` if `delay` is negative, and `TypeError` if it is not a duration.

    ```python
    if response.status_code == 429:
        return RetryLater(float(response.headers["Retry-After"]), "too many requests")
    ```
    """

    delay: float | datetime.timedelta
    reason: str = ""
    counts: bool = True

    def __post_init__(self) -> None:
        """Check the delay here, where a traceback shows the caller."""
        _ = length_of(self.delay)
        _check_reason(self.reason)


@final
class GiveUp(msgspec.Struct, frozen=True):
    """No attempt will do better: put the entry into the dead-letter queue. For `reader.iter(…, retry=…)` only.

    `reason` is kept in the entry's history, for people who look after dead letters.

    ```python
    if response.status_code == 410:
        return GiveUp("the subscriber is gone")
    ```
    """

    reason: str = ""

    def __post_init__(self) -> None:
        """Check the reason here, for the same purpose."""
        _check_reason(self.reason)


def _check_reason(reason: object) -> None:
    if not isinstance(reason, str):
        raise TypeError(f"a reason is text for people, not {reason!r}")


Verdict: TypeAlias = Save[Q_co, M_co] | Remove | Release | RetryLater | GiveUp
"""What a handler returns: `Save`, `Remove` or `Release`; with `retry=`, also `RetryLater` or `GiveUp`."""


@final
class Unavailable(enum.Enum):
    """The ordinary answer of `try_checkout` and `try_with_entry` when they get no entry."""

    GONE = "gone"
    """The entry is not in that queue (any more)."""

    BUSY = "busy"
    """Somebody else is working on the entry at this moment."""

"""What a handler answers about the entry it was given, and what `try_…` operations answer when there is none."""

from __future__ import annotations

import enum
from typing import Final, Generic, Literal, TypeAlias, TypeVar, final

import msgspec

from trio_multispool.delays import NotBefore  # of a struct's field

Q_co = TypeVar("Q_co", bound=enum.Enum, covariant=True)
M_co = TypeVar("M_co", covariant=True)


@final
class Unchanged(enum.Enum):
    """The type of `UNCHANGED`."""

    UNCHANGED = "unchanged"


UNCHANGED: Final = Unchanged.UNCHANGED
"""Stands for "the metadata that the job holds now": what was checked out, or what `update` made of it."""


@final
class Save(msgspec.Struct, Generic[Q_co, M_co], frozen=True):
    """Move the entry to `queue` (the one it came from is allowed), with `metadata` if it is given.

    With `not_before`, nobody gets it there until then: an aware `datetime`, or seconds, or a `timedelta`, from now on.

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


Verdict: TypeAlias = Save[Q_co, M_co] | Remove | Release
"""What a handler returns: `Save`, `Remove` or `Release`."""


@final
class Unavailable(enum.Enum):
    """The ordinary answer of `try_checkout` and `try_with_entry` when there is nothing to be had."""

    GONE = "gone"
    """The entry is not in that queue (any more)."""

    BUSY = "busy"
    """Somebody else is working on the entry at this moment."""

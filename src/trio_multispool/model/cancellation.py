"""Requests to cancel the work on an entry, and what `spool.cancel` answers."""

from __future__ import annotations

import enum
from typing import Final, final

import msgspec

from trio_multispool.model.notes import decode_beside
from trio_multispool.model.text import encodable

LONGEST_REASON: Final = 1000
"""In characters. A longer one is cut."""

NO_REASON: Final = "no reason was given"
"""What is told for an empty one."""


@final
class Cancelled(enum.Enum):
    """What `spool.cancel` did about an entry."""

    REMOVED = "removed"
    """The entry was available, or waiting. It is removed, with its data."""

    ASKED = "asked"
    """The entry is, or was a moment ago, in hand. Whoever has it is asked to cancel the work on it."""


@final
class CancelRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """A request to cancel the work on an entry in hand. It stands while the entry is in the queue it was taken from."""

    at: float
    """When it was made, in seconds since 1970."""
    reason: str = ""
    """Why, for people."""


class StoredRequest(msgspec.Struct, frozen=True):
    """A request as it is stored: about which entry, because another one may have the same name later."""

    of: int
    """When the name was reserved, in nanoseconds since 1970; 0 if that cannot be told."""
    queue: str
    """The queue that it was taken from. Once it has gone to another, the work that was to be cancelled is over."""
    request: CancelRequest

    def encode(self) -> bytes:
        """Return it as JSON."""
        return msgspec.json.encode(self) + b"\n"


def decode_request(raw: bytes) -> StoredRequest | None:
    """Return a request that lies beside an entry; `None` if it cannot be read: then nothing was asked."""
    try:
        return decode_beside(raw, StoredRequest)
    except ValueError:
        return None


def new_request(at: float, reason: object) -> CancelRequest:
    """Make a request; raises `TypeError` if the reason is no text."""
    if not isinstance(reason, str):
        raise TypeError(f"a reason is text for people, not {reason!r}")
    return CancelRequest(at, encodable(reason)[:LONGEST_REASON])

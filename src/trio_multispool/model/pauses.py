"""Pauses of queues: for a time, or until somebody resumes it, readers take nothing from one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import msgspec

from trio_multispool.model.notes import decode_beside
from trio_multispool.model.text import encodable

if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST_REASON: Final = 1000
"""In characters. A longer one is cut."""


@final
class Pause(msgspec.Struct, frozen=True, omit_defaults=True):
    """That readers take nothing new from a queue."""

    since: float
    """When somebody asked for it, in seconds since 1970."""
    until: float | None = None
    """When it ends by itself, in seconds since 1970; `None`: only when somebody resumes the queue."""
    reason: str = ""
    """Why, for people."""

    def is_over(self, now: float) -> bool:
        """Tell whether its time is over."""
        return self.until is not None and self.until <= now

    def encode(self) -> bytes:
        """Return it as it is stored: as JSON."""
        return msgspec.json.encode(self) + b"\n"


UNREADABLE: Final = Pause(0.0, None, "what was written down of this pause cannot be read")
"""Stands for one that cannot be read: somebody wanted the queue paused."""


def decode_pause(raw: bytes) -> Pause:
    """Return a pause as it was stored."""
    try:
        return decode_beside(raw, Pause)
    except ValueError:
        return UNREADABLE


def in_force(pauses: Mapping[str, Pause], now: float) -> dict[str, Pause]:
    """Return the pauses whose time is not over, by queue."""
    return {queue: pause for queue, pause in pauses.items() if not pause.is_over(now)}


def new_pause(at: float, length: float | None, reason: object) -> Pause:
    """Make a pause of so many seconds, or without an end; raises `TypeError` if the reason is no text."""
    if not isinstance(reason, str):
        raise TypeError(f"a reason is text for people, not {reason!r}")
    return Pause(at, None if length is None else at + length, encodable(reason)[:LONGEST_REASON])

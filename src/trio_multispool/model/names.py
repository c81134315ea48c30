"""What may be a name, and what makes new ones.

A name is also a file name, and it stays one for the entry's whole life, so it is checked once, where it comes in.
"""

from __future__ import annotations

import unicodedata
from typing import Any, Final, Generic, Protocol, final

import msgspec

from trio_multispool.errors import InvalidName
from trio_multispool.model.types import TypeVar

MAX_NAME_BYTES = 200
"""Longest name, in bytes: NAME_MAX is 255, and temporary files carry a prefix before the name."""

MAX_ATTEMPTS = 100
"""How often a generator is asked again while the name it made is taken."""

_NO_ARGUMENT: Final[Any] = None  # fits the default of the type parameter

A_co = TypeVar("A_co", covariant=True, default=None)
A_contra = TypeVar("A_contra", contravariant=True, default=None)


def invalid_name(name: str) -> InvalidName | None:
    """Say why `name` can be neither an entry nor a queue, or `None` if it can; raises `TypeError` for no string."""
    if not isinstance(name, str):
        message = f"a name is a string, not {name!r}"
        raise TypeError(message)
    reason = _fault(name)
    return None if reason is None else InvalidName(name, reason)


def _fault(name: str) -> str | None:
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return "it is not valid UTF-8"
    if not length:
        return "it is empty"
    if length > MAX_NAME_BYTES:
        return f"it has {length} bytes, and {MAX_NAME_BYTES} is the most"
    if name.startswith("."):
        return "it starts with a dot"
    if "/" in name:
        return "it contains a slash"
    if not name.isprintable() and any(unicodedata.category(character) == "Cc" for character in name):
        return "it contains a control character"
    return None


@final
class Reserve(msgspec.Struct, Generic[A_co], frozen=True):
    """Let the spool's name generator make the entry's name, from `argument`: the default of `enqueue`.

    ```python
    await spool.enqueue(Mail.SEND, envelope, message, name=Reserve("newsletter"))
    ```
    """

    argument: A_co = _NO_ARGUMENT


class NameGenerator(Protocol[A_contra]):
    """Makes names for new entries; give one to `Spoolable(…, names=…)`.

    Names should sort in the order in which readers are to take the entries, and should be short: under 50 bytes keeps a
    directory fast.
    """

    def next(self, argument: A_contra, attempt: int) -> str:
        """Make a name for a new entry.

        Called in a worker thread, possibly in several at once. `argument` is what the caller gave to `Reserve`;
        `attempt` is 0 at first and one more each time the name that was made is taken. What it raises passes through.
        """
        ...

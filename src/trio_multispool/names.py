"""What may be a name, and how new names are made.

A name is also a file name, and it stays one for the entry's whole life, so it is checked once, where it comes in. Names
that sort by time make a sorted listing first-in first-out, which is all the scheduling that a spool has.
"""

from __future__ import annotations

import datetime
import functools
import threading
import unicodedata
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, final

import msgspec

from trio_multispool._typing import TypeVar
from trio_multispool.errors import InvalidName

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_NAME_BYTES = 200
"""Longest name, in bytes: NAME_MAX is 255, and temporary files carry a prefix before the name."""

MAX_ATTEMPTS = 100
"""How often a generator is asked again while the name it made is taken."""

_NO_ARGUMENT: Final[Any] = None  # fits the default of the type parameter
_EPOCH = datetime.datetime(1970, 1, 1)  # noqa: DTZ001  # arithmetic in UTC, no clock

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


def time_ordered_name(nanoseconds: int, token: str) -> str:
    """Make a name that sorts by time and that a person can read, from a Unix time and a token that tells makers apart.

    ```python
    assert time_ordered_name(1_795_417_479_923_587_437, "8f31c2aa") == "20261123T065439.923587437Z-8f31c2aa"
    ```
    """
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    return f"{_second(seconds)}.{fraction:09}Z-{token}"


@functools.lru_cache(maxsize=16)  # thousands of names may be made in one second
def _second(since_1970: int) -> str:
    return f"{_EPOCH + datetime.timedelta(seconds=since_1970):%Y%m%dT%H%M%S}"


def makes_none_twice(generator: NameGenerator[Any]) -> bool:
    """Tell whether a generator is known never to make a name that it, or another process's, has made before."""
    return isinstance(generator, TimeOrdered)


@final
class TimeOrdered:
    """Names that sort by the time of their making: the default.

    Within one process each name is later than the one before, also when the clock steps back; between processes the
    order is that of their clocks. `clock` returns nanoseconds since 1970 in UTC; `token` returns what tells this maker
    from others (it is asked each time, so that it can change in a forked child). The argument is not used.
    """

    def __init__(self, clock: Callable[[], int], token: Callable[[], str]) -> None:
        """Make a generator that has made no name yet."""
        self._clock = clock
        self._token = token
        self._mutex = threading.Lock()
        self._last = 0

    def next(self, argument: object, attempt: int) -> str:  # noqa: ARG002  # the protocol's parameters
        """Make a name later than the last."""
        with self._mutex:
            self._last = max(self._clock(), self._last + 1)
            return time_ordered_name(self._last, self._token())

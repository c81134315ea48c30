"""What may be a name, and how new names are made.

A name is also a file name, for the entry's whole life, so it is checked once, where it comes in. Readers work through a
queue in the order of its names: there is no other scheduling.
"""

from __future__ import annotations

import datetime
import functools
import math
import re
import threading
import unicodedata
import weakref
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, final

import msgspec

from trio_multispool.errors import InvalidName
from trio_multispool.model.times import seconds, whole
from trio_multispool.model.types import TypeVarWithDefault

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_NAME_BYTES = 200
"""Longest name, in bytes: NAME_MAX is 255, and temporary files carry a prefix before the name."""

MAX_ATTEMPTS = 100
"""Ask a generator at most this often while its names are taken."""

NO_ARGUMENT: Final[Any] = None  # fits the default of the type parameter

A_co = TypeVarWithDefault("A_co", covariant=True, default=None)
A_contra = TypeVarWithDefault("A_contra", contravariant=True, default=None)


is_plain: Final = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,99}").fullmatch
"""Tells at once of most names that they are valid."""


def invalid_name(name: str) -> InvalidName | None:
    """Return why this cannot name an entry or a queue, or `None` if it can; raises `TypeError` if it is no string."""
    if not isinstance(name, str):
        raise TypeError(f"a name is a string, not {name!r}")
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

    argument: A_co = NO_ARGUMENT


class NameGenerator(Protocol[A_contra]):
    """Makes names for new entries; give one to `Spoolable(…, names=…)`.

    Readers take entries in the order of their names, so names should sort in the order you want. Keep them short: under
    50 bytes keeps a directory fast.
    """

    def next(self, argument: A_contra, attempt: int) -> str:
        """Make a name for a new entry.

        Called in a worker thread, possibly in several at once. `argument` is what the caller gave to `Reserve`;
        `attempt` is 0 at first, and grows by one each time the name is taken. What it raises passes through.
        """
        ...


LEVELS: Final = 10
"""The default number of priorities."""

_EPOCH: Final = datetime.datetime(1970, 1, 1)  # noqa: DTZ001  # arithmetic in UTC, no clock


def time_ordered_name(nanoseconds: int, token: str) -> str:
    """Make a readable name that sorts by time, from a Unix time and a token that tells makers apart.

    ```python
    assert time_ordered_name(1_795_417_479_923_587_437, "8f31c2aa") == "20261123T070439.923587437Z-8f31c2aa"
    ```
    """
    since_1970, fraction = divmod(nanoseconds, 1_000_000_000)
    return f"{_second(since_1970)}.{fraction:09}Z-{token}"


@functools.lru_cache(maxsize=16)  # thousands of names may be made in one second
def _second(since_1970: int) -> str:
    return f"{_EPOCH + datetime.timedelta(seconds=since_1970):%Y%m%dT%H%M%S}"


def makes_none_twice(generator: NameGenerator[Any]) -> bool:
    """Say whether a generator is known never to repeat a name, its own or one of another process."""
    return isinstance(generator, (TimeOrdered, Prioritized))


def sorts_last(generator: NameGenerator[Any]) -> bool:
    """Say whether a generator's new name is known to sort after all older ones, unless clocks differ."""
    return isinstance(generator, TimeOrdered)


_made: Final[weakref.WeakSet[TimeOrdered]] = weakref.WeakSet()


def renew_locks() -> None:
    """In a forked child: give all generators of its parent new locks."""
    for generator in list(_made):
        generator.renew_lock()


@final
class TimeOrdered:
    """Names that sort by the time they were made: the default.

    Within one process each name is later than the one before, even if the clock steps back. Between processes the order
    is that of their clocks. `clock` returns nanoseconds since 1970 in UTC. `token` returns a text that tells this maker
    from others; it is called each time, so that it can change in a forked child. The argument is not used.
    """

    def __init__(self, clock: Callable[[], int], token: Callable[[], str]) -> None:
        self._clock = clock
        self._token = token
        self._mutex = threading.Lock()
        self._last = 0
        _made.add(self)

    def next(self, argument: object, attempt: int) -> str:  # noqa: ARG002  # the protocol's parameters
        """Make a name later than the last."""
        return time_ordered_name(self.later_than_the_last(), self._token())

    def renew_lock(self) -> None:
        """In a forked child: do not wait for a thread of the parent that was making a name."""
        self._mutex = threading.Lock()

    def later_than_the_last(self) -> int:
        """Return the time in nanoseconds since 1970, or one more than the last answer if that is later."""
        with self._mutex:
            self._last = max(self._clock(), self._last + 1)
            return self._last


@final
class Prioritized:
    """Names that sort by priority, and then by the time they were made: the sorted listing is the schedule.

    Made by `prioritized_names()`. Give `enqueue` the entry's level as `name=Reserve(level)`: a whole number from 0, the
    most urgent, to `levels` - 1. Without it, an entry gets the level in the middle, 5 of 10. Any other number raises
    `ValueError`, anything but a whole number `TypeError`; then nothing is enqueued.

    ```python
    MAIL = Spoolable(queues=Mail, metadata=Envelope, data=bytes, names=prioritized_names())
    await spool.enqueue(Mail.SEND, password_reset, b"", name=Reserve(0))
    ```

    **Starvation**: without `ageing`, priorities are strict. An entry waits as long as a more urgent one is there: for
    ever, if those come faster than they are done. With `ageing`, a duration, each level is worth that much time. An
    entry comes before one that is `n` levels more urgent and was made `n` times that duration after it, or later. So
    with an ageing of 60 seconds, an entry of level 9 waits for nothing that is made nine minutes after it.

    An entry keeps its name, and so its priority, in every queue. Names made by time alone, as by `multispool put` or
    before a spool had priorities, come before all levels. With `ageing` they count as level 0.

    Readers look for more urgent entries as they go: they list a queue again once they have worked twenty times as long
    as a listing takes. A pass (`iter_available`) keeps the order in which it found the queue, and entries that a pool
    has fetched ahead (`prefetch`) are already in hand. Several readers of one queue avoid each other, so some take an
    entry that is not quite the first.
    """

    def __init__(
        self,
        clock: Callable[[], int],
        token: Callable[[], str],
        *,
        levels: int = LEVELS,
        ageing: float | datetime.timedelta | None = None,
    ) -> None:
        """Make a generator that has made no name yet; the first two arguments are those of `TimeOrdered`."""
        self._levels = whole(levels, "levels", least=1)
        self._digits = len(str(self._levels - 1))
        worth = seconds(ageing)
        if worth in (0, math.inf):
            raise ValueError(f"ageing must be a duration above 0, or None for strict priorities, not {ageing!r}")
        self._worth = None if worth is None else round(worth * 1_000_000_000)
        self._times = TimeOrdered(clock, token)
        self._token = token

    def next(self, argument: int | None, attempt: int) -> str:  # noqa: ARG002  # the protocol's parameters
        """Make a name that sorts after all of its level."""
        level = self._level(argument)
        made = self._times.later_than_the_last()
        if self._worth is None:
            return f"p{level:0{self._digits}}-{time_ordered_name(made, self._token())}"
        return time_ordered_name(made + level * self._worth, f"p{level:0{self._digits}}-{self._token()}")

    def _level(self, argument: int | None) -> int:
        if argument is None:
            return self._levels // 2
        level = whole(argument, "a priority", least=0)
        if level >= self._levels:
            message = f"a priority is a whole number from 0, the most urgent, to {self._levels - 1}, not {level}"
            raise ValueError(message)
        return level

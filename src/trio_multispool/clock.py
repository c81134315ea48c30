"""The one place that asks for the time of day, for chance, and who we are; everything else is given them."""

from __future__ import annotations

import os
import random
import secrets
import time
from typing import TYPE_CHECKING

from trio_multispool.model.names import LEVELS, Prioritized, TimeOrdered, renew_locks

if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable

os.register_at_fork(after_in_child=renew_locks)


def wall_clock() -> float:
    """Return seconds since 1970 in UTC."""
    return time.time()


def process_token() -> Callable[[], str]:
    """Return a function that gives eight random hexadecimal digits, which change only in a forked child.

    Process numbers would not do: containers that share a spool can have the same ones.
    """
    owner, token = 0, ""

    def current() -> str:
        nonlocal owner, token
        if owner != os.getpid():
            owner, token = os.getpid(), secrets.token_hex(4)
        return token

    return current


def time_ordered_names() -> TimeOrdered:
    """Return the default name generator, on the system's clock."""
    return TimeOrdered(time.time_ns, process_token())


def prioritized_names(*, levels: int = LEVELS, ageing: float | datetime.timedelta | None = None) -> Prioritized:
    """Return a generator of names that sort by priority and then by time, on the system's clock.

    - `levels`: the number of priorities; 0 is the most urgent.
    - `ageing`: in seconds or as a `timedelta`. An entry made this much earlier comes before one that is a level more
      urgent. `None`, the default, is strict: an entry never comes before a more urgent one.

    Give the generator to `Spoolable(…, names=…)`, and a priority to `enqueue`. All programs of a spool should use the
    same levels and ageing. `Prioritized` explains how the names sort, and starvation.

    Raises `ValueError` for fewer than one level and for an ageing that is not above 0.

    ```python
    names = prioritized_names(ageing=60)
    MAIL = Spoolable(queues=Mail, metadata=Envelope, data=bytes, names=names)
    await spool.enqueue(Mail.SEND, newsletter, b"", name=Reserve(9))
    ```
    """
    return Prioritized(time.time_ns, process_token(), levels=levels, ageing=ageing)


def new_secret() -> str:
    """Return a text that nobody can guess, of letters, digits, `-` and `_`."""
    return secrets.token_urlsafe(32)


def random_fraction() -> float:
    """Return a random number from 0 to 1."""
    return random.random()


def this_process() -> tuple[str, int]:
    """Return the host's name and this process's number."""
    return os.uname().nodename, os.getpid()


def this_user() -> tuple[int, int]:
    """Return the effective user and group of this process: those that its new files get."""
    return os.geteuid(), os.getegid()


def stopwatch() -> Callable[[], float]:
    """Return a function that gives the seconds since this call."""
    began = time.perf_counter()
    return lambda: time.perf_counter() - began


def random_below(limit: int) -> int:
    """Return a random number from 0 to `limit` - 1."""
    return random.randrange(limit)

"""The one place that asks for the time of day and for chance; everything else is given them."""

from __future__ import annotations

import os
import random
import secrets
import time
from typing import TYPE_CHECKING

from trio_multispool.names import TimeOrdered

if TYPE_CHECKING:
    from collections.abc import Callable


def wall_clock() -> float:
    """Return seconds since 1970 in UTC."""
    return time.time()


def process_token() -> Callable[[], str]:
    """Return a function that gives eight random hexadecimal digits, the same for as long as it runs in one process.

    Process numbers would not do: containers that share a spool have the same ones.
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


def stopwatch() -> Callable[[], float]:
    """Return a function that tells how many seconds have gone by since this call."""
    began = time.perf_counter()
    return lambda: time.perf_counter() - began


def random_below(limit: int) -> int:
    """Return a random number from 0 to `limit` - 1."""
    return random.randrange(limit)

"""Policies that callers choose, as values: durability, retries, retention. Nothing here waits."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeAlias, TypeVar, final

import msgspec

from trio_multispool.model.times import length_of, seconds, whole


class Durability(enum.Enum):
    """What an `Ok` promises. A spool has a level, and a call may ask for another.

    In a spool of level `POWER`, a call with `durability=Durability.PROCESS` skips only its own last sync. Power loss
    may then undo *that* call. It never undoes an earlier call that was acknowledged, and never tears an entry.
    """

    POWER = "power"
    """Survives power loss and crashes of the kernel: everything is synced before `Ok` is returned. The default."""

    PROCESS = "process"
    """Survives any crash of processes, `kill -9` included; nothing is synced, so power loss may undo it."""


def check_durability(durability: Durability | None) -> None:
    """Raise `TypeError` for a value that is not a level: such a mistake would silently sync nothing."""
    if durability is not None and not isinstance(durability, Durability):
        message = f"durability is a member of Durability, not {durability!r}"
        raise TypeError(message)


Q_co = TypeVar("Q_co", bound=enum.Enum, covariant=True)


class Backoff(Protocol):
    """How long to wait after a failed attempt. `Exponential` is one; write your own for anything else.

    ```python
    class Steps:
        def delay(self, attempt: int, chance: float) -> float:
            return (5, 300, 1800, 7200)[min(attempt, 4) - 1]
    ```
    """

    def delay(self, attempt: int, chance: float) -> float | datetime.timedelta:
        """Return how long to wait, in seconds or as a `timedelta`, after `attempt` failed attempts (1 after the first).

        `chance` is a random number from 0 to 1, for jitter.
        """
        ...


@final
class Exponential(msgspec.Struct, frozen=True):
    """Wait longer after each failed attempt: `first`, then `first * factor`, `first * factor**2`, … up to `max`.

    - `first`, `max`: in seconds, or as a `timedelta`.
    - `factor`: 1 or more.
    - `jitter`: the part of each wait that is random, from 0 to 1, so that entries that failed together do not come back
      together. With 0.5, the default, a wait of 8 seconds becomes one of 4 to 8; with 1, one of 0 to 8. Jitter makes no
      wait longer. (These are the "equal" and the "full" jitter of Marc Brooker, *Exponential Backoff And Jitter*, AWS
      Architecture Blog, 2015, who found that either of them spares a contended server most of its calls.)

    The same wait each time is `factor=1, jitter=0`.

    Raises `ValueError` for numbers out of these ranges, and `TypeError` if `first` or `max` is not a duration.

    ```python
    Exponential(first=10, factor=3, max=datetime.timedelta(hours=6))  # 10 s, 30 s, 90 s, … 6 h, less some chance
    ```
    """

    first: float | datetime.timedelta = 1.0
    factor: float = 2.0
    max: float | datetime.timedelta = 3600.0
    jitter: float = 0.5

    def __post_init__(self) -> None:
        _ = length_of(self.first), length_of(self.max)
        if not self.factor >= 1:
            raise ValueError(f"factor must be at least 1, or waits would become shorter; not {self.factor!r}")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter is the part of a wait that is left to chance, from 0 to 1, not {self.jitter!r}")

    def delay(self, attempt: int, chance: float) -> float:
        """Return how long to wait after `attempt` failed attempts, in seconds."""
        longest = length_of(self.max)
        try:
            whole_wait = min(longest, length_of(self.first) * self.factor ** (attempt - 1))
        except OverflowError:
            whole_wait = longest
        return whole_wait * (1 - self.jitter * chance)


On: TypeAlias = (
    "type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool | float | datetime.timedelta]"
)
"""Which exceptions are worth another attempt: types, or a function that decides, or returns how long to wait."""

DEFAULT_BACKOFF: Final = Exponential()


@final
class Retry(msgspec.Struct, Generic[Q_co], frozen=True, kw_only=True):
    """How to retry an entry whose handler fails: `reader.iter(handler, retry=Retry(…))`.

    - `dead_letter`: the queue for entries that are given up. They keep the history of their attempts, which
      `multispool show` prints; `multispool retry` gives them back, with a fresh number of attempts.
    - `attempts`: give an entry up after this many attempts in all; `None` means never. An attempt counts even if its
      worker died.
    - `backoff`: how long an entry waits after a failed attempt: an `Exponential`, or any `Backoff`.
    - `on`: which exceptions are worth another attempt: a type, a tuple of types, or a function of the exception. After
      any other, the entry is given up at once. An exception group is worth another attempt if each exception in it is.
      A function returns `True`, `False`, or how long to wait instead of the backoff, in seconds or as a `timedelta`.
      What it raises ends the iteration, and so does the `TypeError` for any other answer; the entry goes back.

    Raises `ValueError` if `attempts` is less than 1, and `TypeError` for an argument of another type.

    ```python
    Retry(attempts=8, backoff=Exponential(first=30, max=6 * 3600), on=(OSError, TimeoutError), dead_letter=Mail.FAILED)
    ```
    """

    dead_letter: Q_co
    attempts: int | None = 10
    backoff: Backoff = DEFAULT_BACKOFF
    on: type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool | float | datetime.timedelta] = (
        Exception
    )

    def __post_init__(self) -> None:
        if self.attempts is not None:
            _ = whole(self.attempts, "attempts", least=1)
        if not isinstance(self.dead_letter, enum.Enum):
            raise TypeError(f"dead_letter is a queue, not {self.dead_letter!r}")
        if not callable(getattr(self.backoff, "delay", None)):
            message = f"backoff has a method delay(attempt, chance), as Exponential has; {self.backoff!r} has none"
            raise TypeError(message)
        kinds: object = (self.on,) if isinstance(self.on, type) else self.on
        if isinstance(kinds, tuple):
            for kind in kinds:
                if not (isinstance(kind, type) and issubclass(kind, Exception)):
                    raise TypeError(f"`on` takes types of exceptions, not {kind!r}")
        elif not callable(kinds):
            raise TypeError(f"`on` is a type of exceptions, a tuple of such types, or a function, not {self.on!r}")

    def delay_after(self, error: Exception, spent: int, chance: float) -> float | None:
        """Return how long to wait, in seconds, after `spent` failed attempts, or `None` to give the entry up.

        If `on` is a function, what it raises passes through. Raises `TypeError` or `ValueError` if it returns neither a
        `bool` nor a duration, or `backoff` no duration.
        """
        wanted = _worth_another(self.on, error)
        if wanted is False or self.is_exhausted(spent):
            return None
        if wanted is True:
            return length_of(self.backoff.delay(spent, chance), "a backoff's delay")
        return length_of(wanted, "what `on` returns, unless it is a bool,")

    def is_exhausted(self, spent: int) -> bool:
        """Say whether no attempt is left after `spent` attempts."""
        return self.attempts is not None and spent >= self.attempts


def _worth_another(on: On, error: Exception) -> bool | float | datetime.timedelta:
    if isinstance(on, (type, tuple)):
        if isinstance(error, ExceptionGroup):
            return isinstance(error, on) or error.split(on)[1] is None
        return isinstance(error, on)
    return on(error)


@final
class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """How long and how much a queue keeps: for `spool.reader(queue, retention=…)` and `spool.expire`.

    - `max_age`: remove entries whose metadata was written longer ago than this, in seconds or as a `timedelta`.
    - `max_count`: keep at most this many entries. The oldest, by the same time, are removed first.

    Only available entries are removed: not those that wait, are checked out, or are in quarantine. Without a retention,
    a queue keeps everything. An entry whose date cannot be (before 2010, or more than a day ahead of the clock) stays
    and does not count, because somebody's clock was wrong; the log tells of it once.

    Raises `ValueError` if neither is given, or one is negative. Raises `TypeError` if `max_age` is not a duration, or
    `max_count` not a whole number.

    ```python
    Retention(max_age=timedelta(days=30), max_count=100_000)
    ```
    """

    max_age: float | datetime.timedelta | None = None
    max_count: int | None = None

    def __post_init__(self) -> None:
        _ = seconds(self.max_age)
        if self.max_count is not None:
            _ = whole(self.max_count, "max_count", least=0)
        if self.max_age is None and self.max_count is None:
            raise ValueError("a retention says a max_age, or a max_count, or both")

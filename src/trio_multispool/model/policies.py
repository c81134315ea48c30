"""What callers decide, as values: how durable, how often to try again, what to keep. Nothing here waits."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeAlias, TypeVar, final

import msgspec

from trio_multispool.model.times import seconds, whole


class Durability(enum.Enum):
    """What an `Ok` promises: a spool has a level, and a call may ask for another.

    In a spool of level `POWER`, a call with `durability=Durability.PROCESS` leaves out only its own last sync: power
    loss may then undo *that* call, never an earlier one that was acknowledged, and never tear an entry.
    """

    POWER = "power"
    """Survives power loss and crashes of the kernel: everything is synced before `Ok` is returned. The default."""

    PROCESS = "process"
    """Survives any crash of processes, `kill -9` included; nothing is synced, so power loss may undo it."""


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
        """Return how long to wait, in seconds or as a `timedelta`, after so many failed attempts (1 after the first).

        `chance` is a random number from 0 to 1, for jitter.
        """
        ...


@final
class Exponential(msgspec.Struct, frozen=True):
    """Wait longer after each failed attempt: `first`, then `first * factor`, `first * factor**2`, … up to `max`.

    - `first`, `max`: in seconds, or as a `timedelta`.
    - `factor`: 1 or more.
    - `jitter`: which part of each wait is left to chance, from 0 to 1, so that what failed together does not come back
      together. With 0.5, the default, a wait of 8 seconds is one of 4 to 8; with 1, one of 0 to 8. No wait is longer
      than without. (These are the "equal" and the "full" jitter of Marc Brooker, *Exponential Backoff And Jitter*, AWS
      Architecture Blog, 2015, who found that either of them spares a server that is contended for most of its calls.)

    Raises `ValueError` for numbers out of these ranges, and `TypeError` for what is no duration.

    ```python
    Exponential(first=10, factor=3, max=datetime.timedelta(hours=6))  # 10 s, 30 s, 90 s, … 6 h, less some chance
    ```
    """

    first: float | datetime.timedelta = 1.0
    factor: float = 2.0
    max: float | datetime.timedelta = 3600.0
    jitter: float = 0.5

    def __post_init__(self) -> None:
        """Check the numbers."""
        _ = seconds(self.first), seconds(self.max)
        if not self.factor >= 1:
            message = f"factor must be at least 1, or waits would become shorter; not {self.factor!r}"
            raise ValueError(message)
        if not 0 <= self.jitter <= 1:
            message = f"jitter is the part of a wait that is left to chance, from 0 to 1, not {self.jitter!r}"
            raise ValueError(message)

    def delay(self, attempt: int, chance: float) -> float:
        """Return how long to wait after so many failed attempts, in seconds."""
        longest = seconds(self.max)
        try:
            whole_wait = min(longest, seconds(self.first) * self.factor ** (attempt - 1))
        except OverflowError:
            whole_wait = longest
        return whole_wait * (1 - self.jitter * chance)


On: TypeAlias = (
    "type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool | float | datetime.timedelta]"
)
"""Which exceptions are worth another attempt: types, or a function that says whether, or after how long."""

DEFAULT_BACKOFF: Final = Exponential()


@final
class Retry(msgspec.Struct, Generic[Q_co], frozen=True, kw_only=True):
    """What becomes of an entry whose handler fails: `reader.iter(handler, retry=Retry(…))`.

    - `dead_letter`: the queue for entries that are given up. They keep the history of their attempts, which
      `multispool show` prints; `multispool retry` gives them back, with a fresh number of attempts.
    - `attempts`: how often an entry is tried in all, before it is given up; `None`: for ever. Attempts that their
      worker did not survive count.
    - `backoff`: how long an entry waits after a failed attempt; an `Exponential`, or any `Backoff`.
    - `on`: which exceptions are worth another attempt: a type, a tuple of types, or a function of the exception. After
      any other, the entry is given up at once. An exception group is worth one if all that is in it is. A function
      returns `True` or `False`, or how long to wait, in seconds or as a `timedelta`, instead of the backoff.

    Raises `ValueError` if `attempts` is less than 1, `TypeError` if it is no whole number, or `on` none of these.

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
        """Check what can be checked without a spool."""
        if self.attempts is not None:
            _ = whole(self.attempts, "attempts", least=1)
        if not isinstance(self.dead_letter, enum.Enum):
            message = f"dead_letter is a queue, not {self.dead_letter!r}"
            raise TypeError(message)
        if not callable(getattr(self.backoff, "delay", None)):
            message = f"backoff has a method delay(attempt, chance), as Exponential has; {self.backoff!r} has none"
            raise TypeError(message)
        kinds: tuple[object, ...] = self.on if isinstance(self.on, tuple) else ()
        if isinstance(self.on, type):
            kinds = (self.on,)
        for kind in kinds:
            if not (isinstance(kind, type) and issubclass(kind, Exception)):
                message = f"`on` takes types of exceptions, not {kind!r}"
                raise TypeError(message)
        if not isinstance(self.on, tuple) and not callable(self.on):  # a class can be called
            message = f"`on` is a type of exceptions, a tuple of such types, or a function, not {self.on!r}"
            raise TypeError(message)

    def delay_after(self, error: Exception, spent: int, chance: float) -> float | None:
        """Return how long to wait, in seconds, after so many failed attempts; `None`: give the entry up.

        Passes on what a function raises that was given as `on`.
        """
        wanted = _worth_another(self.on, error)
        if wanted is False or self.is_exhausted(spent):
            return None
        return seconds(self.backoff.delay(spent, chance)) if wanted is True else seconds(wanted)

    def is_exhausted(self, spent: int) -> bool:
        """Tell whether no attempt is left after so many."""
        return self.attempts is not None and spent >= self.attempts


def _worth_another(on: On, error: Exception) -> bool | float | datetime.timedelta:
    if isinstance(on, (type, tuple)):
        if isinstance(error, ExceptionGroup):
            return isinstance(error, on) or error.split(on)[1] is None
        return isinstance(error, on)
    return on(error)


@final
class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """What a queue is not to keep: for `spool.reader(queue, retention=…)` and `spool.expire`. Nothing by default.

    - `max_age`: an entry goes whose metadata was written longer ago than this, in seconds or as a `timedelta`.
    - `max_count`: of more entries than so many, those go that are the oldest, by the same time.

    Only what is available goes: not what waits, what somebody has, or what is in quarantine.

    Raises `ValueError` if neither is given, or one is negative, and `TypeError` for what is no duration or no number.

    ```python
    Retention(max_age=timedelta(days=30), max_count=100_000)
    ```
    """

    max_age: float | datetime.timedelta | None = None
    max_count: int | None = None

    def __post_init__(self) -> None:
        """Check what was given."""
        _ = seconds(self.max_age)
        if self.max_count is not None:
            _ = whole(self.max_count, "max_count", least=0)
        if self.max_age is None and self.max_count is None:
            message = "a retention says a max_age, or a max_count, or both"
            raise ValueError(message)

"""Where a task is: which blows are around it, for each task by itself; and what fails on purpose there."""

from __future__ import annotations

import contextlib
import contextvars
import functools
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Thunder(Exception):
    """What fails on purpose."""


def words_of(deed: Any) -> str:
    """Return the names of a deed, and of the blows around it, from the outermost on."""
    if not isinstance(deed, functools.partial):
        return getattr(deed, "__qualname__", repr(deed)).rpartition(".")[2]
    inner = [words_of(each) for each in deed.args if callable(each)]
    name = deed.func.__name__.strip("_")
    return " > ".join([*([] if name == "under" else [name]), *inner])


def is_thunder(error: BaseException) -> bool:
    """Tell whether an exception is nothing but that."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(Thunder)[1] is None
    return isinstance(error, Thunder)


class Place(NamedTuple):
    """What is around a place in the program; each task has its own."""

    struck: tuple[tuple[Callable[[], bool], bool], ...] = ()
    """For each blow, a function that tells whether it has struck, and whether it strikes natively."""
    mark: int | None = None
    """How many notes there were at the beginning of the innermost blow."""
    in_scopes: bool = False
    """Whether there are, or may be, scopes around it in the same task."""


OUTSIDE: Final = Place()
PLACE: Final = contextvars.ContextVar("PLACE", default=OUTSIDE)


@contextlib.contextmanager
def at(**words: Any) -> Iterator[None]:
    """Surround what is at another place."""
    before = PLACE.get()
    PLACE.set(before._replace(**words))
    try:
        yield
    finally:
        PLACE.set(before)

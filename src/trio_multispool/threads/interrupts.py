"""Keep Ctrl-C out of our own steps on Trio, where it may be raised between any two lines of Python.

Theory. When SIGINT comes, Trio looks up the stack, in whatever task runs, for code that is marked. If it is protected,
the main task gets the `KeyboardInterrupt` at its next checkpoint; else it is raised on the spot. Between two lines of
ours it would leave an entry checked out, descriptors open, or a task waiting for one that has gone. So all functions of
the rooms that run in the event loop are protected. What a user's handler does is not: a handler that never waits must
be interruptible. (asyncio cancels the main task instead, which takes effect where a task waits.)
"""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

_PACKAGE: Final = __name__.partition(".")[0]
_ROOMS: Final = tuple(
    f"{_PACKAGE}.{room}" for room in ("model", "threads", "session", "entries", "reader", "spool", "monitor")
)

_protected: Final[set[str]] = set()
_exempt: Final[list[Callable[..., Any]]] = []

F = TypeVar("F", bound="Callable[..., Any]")


def lets_interrupts_in(function: F) -> F:
    """Decorate a function that calls a user's code: that may be interrupted anywhere."""
    _exempt.append(function)
    return function


def keep_interrupts_out() -> None:
    """Protect what has been imported of our rooms, if Trio is there; where it is not imported, it cannot be running."""
    trio = sys.modules.get("trio")
    if trio is None:
        return
    for name, module in list(sys.modules.items()):
        if name.startswith(_ROOMS) and name not in _protected:
            _protected.add(name)
            for function in _functions_of(module):
                trio.lowlevel.enable_ki_protection(function)
    for function in _exempt:
        trio.lowlevel.disable_ki_protection(function)


def _functions_of(module: ModuleType) -> Iterator[Callable[..., Any]]:
    """Yield the functions and methods that are written in a module."""
    of_classes = [vars(value) for value in vars(module).values() if inspect.isclass(value)]
    for named in [vars(module), *of_classes]:
        for value in named.values():
            plain = value.fget if isinstance(value, property) else value
            function = inspect.unwrap(plain) if callable(plain) else getattr(plain, "__func__", None)
            if inspect.isfunction(function) and function.__module__ == module.__name__:
                yield function

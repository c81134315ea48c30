"""Warn of an `Err` that was dropped before anybody looked at its error, as Python does of files left open."""

from __future__ import annotations

import sys
import warnings
from typing import Final, TypeAlias, final

import msgspec

_PACKAGE: Final = __name__.partition(".")[0]

Line: TypeAlias = tuple[str, int, str]
"""The file, the line's number, and the module."""

_LOOPS: Final = {"anyio", "asyncio", "trio"}

_AGAIN: Final = 2
"""Marks what is told of another time, for as long as it takes to ask whether to tell it."""

_told: dict[tuple[object, ...], dict[str | tuple[str, type[Warning], int], int]] = {}
"""What the module `warnings` keeps to tell of each line once, for each line. Little: one text, and no more."""


class UnreadErrWarning(ResourceWarning):
    """An operation answered with an `Err`, and nobody looked at its error: the caller believes that it took effect.

    Python shows it under `-X dev` and `-W default`, and pytest always; otherwise it is ignored, like every
    `ResourceWarning`. It is told once a line. To drop a result on purpose, call its `ignore()`.
    """


@final
class Unread(msgspec.Struct, frozen=True, eq=False):
    """What an `Err` that nobody has looked at is from."""

    operation: str
    of: str
    """What it was an operation of: the spool."""
    line: Line
    """The line that awaited it."""

    def warn(self, error: Exception) -> None:
        """Tell of it, unless another from the same line was told of."""
        file, number, module = self.line
        text = (
            f"an Err was dropped unread: {self.operation} ({self.of}): {type(error).__name__}: {error}; "
            "match the result or call its unwrap(), or its ignore() if the error does not matter"
        )
        is_loop = module.partition(".")[0] in _LOOPS  # which awaits for everybody who starts a task
        told = _told.setdefault((*self.line, self.operation, self.of) if is_loop else self.line, {})
        key, is_told = (text, UnreadErrWarning, number), any(isinstance(key, tuple) for key in told)
        if is_told:  # of another entry, maybe; all is forgotten if the filters change
            told[key] = told.get(key, _AGAIN)
        warnings.warn_explicit(text, UnreadErrWarning, file, number, module, told)
        if is_told and told.get(key) == _AGAIN:
            del told[key]


def line_outside() -> Line:
    """Return the line outside this package that is running, or that awaits what is running."""
    frame = sys._getframe()  # noqa: SLF001  # `inspect.stack` reads the source of each
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno, frame.f_globals.get("__name__", "")

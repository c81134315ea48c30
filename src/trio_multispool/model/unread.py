"""Warn of an `Err` that was dropped before anybody looked at its error, as Python does of files left open."""

from __future__ import annotations

import sys
import warnings
from typing import Final, TypeAlias, final

import msgspec

_PACKAGE: Final = __name__.partition(".")[0]

Line: TypeAlias = tuple[str, int, str]
"""The file, the line's number, and the module."""

_told: dict[Line, dict[str | tuple[str, type[Warning], int], int]] = {}
"""What the module `warnings` keeps to tell of each line once, for each line."""


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
        told = _told.setdefault(self.line, {})
        if any(isinstance(key, tuple) for key in told):  # of another entry; it is forgotten if the filters change
            told[text, UnreadErrWarning, number] = True
        warnings.warn_explicit(text, UnreadErrWarning, file, number, module, told)


def line_outside() -> Line:
    """Return the line outside this package that is running, or that awaits what is running."""
    frame = sys._getframe()  # noqa: SLF001  # `inspect.stack` reads the source of each
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno, frame.f_globals.get("__name__", "")

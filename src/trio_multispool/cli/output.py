"""What is written to standard output and standard error: plain lines, JSON, and bytes as they are."""

from __future__ import annotations

import io
import sys
import unicodedata
from typing import TYPE_CHECKING, TextIO

import msgspec

from trio_multispool.cli.exits import Failure

if TYPE_CHECKING:
    from typing import BinaryIO


def prepare() -> None:
    """Let no character of a name or a path be an error, whatever the terminal's encoding."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def is_terminal(stream: TextIO | None) -> bool:
    """Tell whether a person looks at what is written there."""
    return stream is not None and not stream.closed and stream.isatty()


def line(text: str) -> None:
    """Write a line to standard output at once."""
    out = _stdout()
    _ = out.write(text + "\n")
    out.flush()


def document(value: object) -> None:
    """Write a JSON document to standard output, in UTF-8 whatever the locale, on one line for machines."""
    raw(msgspec.json.encode(value) + b"\n")


def raw(content: bytes) -> None:
    """Write bytes to standard output as they are."""
    out = binary()
    _ = out.write(content)
    out.flush()


def binary() -> BinaryIO:
    """Return standard output for bytes."""
    out = _stdout()
    out.flush()
    return out.buffer


def complain(message: str) -> None:
    """Write one line to standard error, in the command's name."""
    # Nobody reads a standard error that is closed.
    if sys.stderr is not None and not sys.stderr.closed:
        print(f"multispool: {printable(message)}", file=sys.stderr, flush=True)


def _stdout() -> TextIO:
    if sys.stdout is None or sys.stdout.closed:
        raise Failure("standard output is closed")
    return sys.stdout


def printable(text: str, keep: str = "") -> str:
    r"""Return text without characters that a terminal would obey: they are shown as `\x1b` and the like."""
    if text.isprintable():
        return text
    return "".join(
        character if character in keep or not _is_obeyed(character) else _escaped(character) for character in text
    )


def _is_obeyed(character: str) -> bool:
    """Tell control characters, and format characters (which can turn the direction of writing), from the rest."""
    return unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def as_text(path: str) -> str:
    """Return a path as text that JSON can hold; bytes that are no UTF-8 are shown as escapes."""
    return path.encode("utf-8", "backslashreplace").decode()

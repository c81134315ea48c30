"""What is written to standard output and standard error: plain lines, JSON, and bytes as they are."""

import contextlib
import io
import os
import sys
from collections.abc import Callable, Generator, Iterator
from typing import Any, Final, TextIO, cast, final

import msgspec

from trio_multispool.cli.exits import Exit, Failure, code_of, said
from trio_multispool.errors import SpoolError
from trio_multispool.model.text import encodable
from trio_multispool.model.text import printable as printable  # noqa: PLC0414  # the commands write `output.printable`
from trio_multispool.model.types import T

as_text: Final = encodable
"""Returns a path as text that JSON can hold; bytes that are no UTF-8 are shown as escapes."""


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
    with writing() as out:
        _ = out.write(text + "\n")


@contextlib.contextmanager
def outcome(what: str) -> Generator[None]:
    """Surround the writing of what was done: what cannot be written is told on standard error, with its own code."""
    try:
        yield
    except BrokenPipeError as error:
        raise Failure(f"standard output was closed; all the same: {what}", Exit.UNTOLD) from error
    except Failure as failure:
        raise Failure(f"{failure}; all the same: {what}", Exit.UNTOLD) from failure


def outcome_line(text: str, *, dry_run: bool = False) -> None:
    """Write a line that says what has been done, or would be."""
    with contextlib.nullcontext() if dry_run else outcome(text):
        line(text)


def outcome_sum(done: str, number: int, *, dry_run: bool = False) -> None:
    """Write how many entries have been `done`, or would be."""
    outcome_line(f"{entries(number)} {'would be ' if dry_run else ''}{printable(done)}", dry_run=dry_run)


def outcome_document(value: object, *, dry_run: bool = False) -> None:
    """Write a JSON document likewise."""
    with contextlib.nullcontext() if dry_run else outcome(encoded(value)):
        document(value)


def document(value: object) -> None:
    """Write a JSON document to standard output, in UTF-8 whatever the locale, on one line for machines."""
    raw(f"{encoded(value)}\n".encode())


def encoded(value: object) -> str:
    """Return a value as JSON. What a terminal would obey is an escape in it, which stands for the same value."""
    text = msgspec.json.encode(value).decode()
    if text.isprintable():
        return text
    return text.translate({ord(each): _escaped(each) for each in set(text) if not each.isprintable()})


def _escaped(character: str) -> str:
    """Return the character as JSON escapes it: by two escapes, if it lies above U+FFFF."""
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def entries(number: int, one: str = "entry", more: str = "entries") -> str:
    """Say how many there are, of `one` or of `more`."""
    return f"{number} {one if number == 1 else more}"


def were(done: str, number: int) -> str:
    """Say how many entries were `done`, when something keeps the others from it."""
    return f"{entries(number, 'entry was', 'entries were')} {done}"


def raw(content: bytes) -> None:
    """Write bytes to standard output as they are."""
    with writing() as out:
        _ = out.buffer.write(content)


def complain(message: str) -> None:
    """Write one line to standard error, in the command's name."""
    remark(f"multispool: {printable(message)}")


@final
class Troubles:
    """Tells what goes wrong with single entries, while the command goes on with the others."""

    def __init__(self, write: Callable[[str], None] | None = None) -> None:
        """Write lines by `write`, by default to standard error."""
        self._write = remark if write is None else write
        self.code: int = Exit.SUCCESS
        """The exit code: that of the first trouble."""

    def tell(self, error: Failure | SpoolError, more: str = "") -> None:
        """Write one line, in the command's name."""
        self.code = self.code or code_of(error)
        self._write(f"multispool: {printable(said(error) + more)}")

    def until(self, items: Iterator[T]) -> Iterator[T]:
        """Yield items, and end at an error, which is told. What was done with them is still to be told then."""
        try:
            yield from items
        except (Failure, SpoolError) as error:
            self.tell(error)


def remark(text: str) -> None:
    """Write a line to standard error. If nobody reads it, the work itself goes on."""
    stream: TextIO | None = sys.stderr
    with contextlib.suppress(OSError, ValueError):  # `ValueError`: it is closed
        print(text, file=stream, flush=True)


@contextlib.contextmanager
def writing() -> Generator[TextIO]:
    """Give standard output, flushed before and after; what keeps it from being written ends the command.

    A `BrokenPipeError` passes through: the reader has closed the pipe.
    """
    out: TextIO | None = sys.stdout
    if out is None or out.closed:
        raise Failure("standard output is closed")
    try:
        yield out
        out.flush()
    except BrokenPipeError:
        drop_stdout()
        raise
    except OSError as error:
        drop_stdout()
        raise Failure(f"cannot write standard output: {error.strerror}") from error


def drop_stdout() -> None:
    """Let what is still to be flushed go nowhere, so that the interpreter does not complain when it ends.

    What comes later does not: from now on standard output is closed.
    """
    _send_nowhere(1)
    sys.stdout = cast("Any", None)  # as Python itself says that there is none


def give_up_stderr() -> None:
    """Let what standard error did not take go nowhere: the interpreter's end would make an exit code of it."""
    stream: TextIO | None = sys.stderr
    if stream is not None and not stream.closed:
        try:
            stream.flush()
        except OSError:
            _send_nowhere(stream.fileno())


def _send_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    _ = os.dup2(nowhere, descriptor)
    os.close(nowhere)

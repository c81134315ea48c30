"""Where the data of a new entry comes from: a file, a pipe or a terminal, copied piece by piece.

A transaction on the spool runs in a thread that is never abandoned, so a thread that waits for a pipe must be told when
the command is to end: it waits for the pipe and for its `Stop` at once.
"""

import os
import select
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final, final

from trio_multispool.cli.exits import Failure

STANDARD_INPUT: Final = "-"
_CHUNK: Final = 1 << 20


class Interrupted(Exception):
    """The command is ending; what was being copied is dropped."""


@final
class Stop:
    """Wakes a thread that is copying."""

    def __init__(self) -> None:
        self.reading_end: int
        self.reading_end, self._writing_end = os.pipe()

    def set(self) -> None:
        """Make every copy end with `Interrupted`. Idempotent."""
        _ = os.write(self._writing_end, b"!")

    def close(self) -> None:
        """Close the pipe."""
        os.close(self.reading_end)
        os.close(self._writing_end)


@final
class Source:
    """An open file that is read so that the command can be ended while it waits for more."""

    def __init__(self, path: str, stop: Stop, advance: Callable[[int], None] | None = None) -> None:
        """Open `path`, or standard input for `-`; `advance` is told of each piece that is copied, in bytes."""
        self.path = path
        self.failure: Failure | None = None
        """What went wrong with reading, which is no fault of the spool."""
        self._stop = stop
        self._advance = advance
        if path == STANDARD_INPUT:
            if sys.stdin is None:
                raise Failure("standard input is closed")
            self._fd = sys.stdin.fileno()
            return
        try:
            # O_NONBLOCK: a FIFO without a writer must not block here, where nothing could interrupt it.
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise unreadable(path, error) from error

    def close(self) -> None:
        """Close the file, unless it is standard input."""
        if self.path != STANDARD_INPUT:
            os.close(self._fd)

    def read(self, size: int) -> bytes:
        """Return that many bytes, or fewer at the end; raises `Interrupted` when the command is to end."""
        pieces: list[bytes] = []
        while size and (piece := self._piece(size)):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def copy_to(self, file: BinaryIO) -> None:
        """Copy everything; raises `Interrupted` when the command is to end."""
        while piece := self._piece(_CHUNK):
            _ = file.write(piece)
            if self._advance is not None:
                self._advance(len(piece))

    def _piece(self, size: int) -> bytes:
        """Wait for a piece of at most that many bytes, and return it; nothing at the end."""
        wake = select.poll()
        wake.register(self._fd, select.POLLIN)
        wake.register(self._stop.reading_end, select.POLLIN)
        while True:
            if any(ready == self._stop.reading_end for ready, _ in wake.poll()):
                raise Interrupted
            try:
                return os.read(self._fd, size)
            except BlockingIOError:  # somebody else was faster at a standard input that several share
                continue
            except OSError as error:
                self.failure = unreadable(self.path, error)
                raise self.failure from error


def unreadable(path: str, error: OSError) -> Failure:
    """Say that a file cannot be read."""
    what = "standard input" if path == STANDARD_INPUT else repr(path)
    return Failure(f"cannot read {what}: {error.strerror}")


def size_of(path: str) -> int | None:
    """Return the size of a file that can be enqueued, `None` if it cannot be told; raises `Failure` for any other."""
    if path == STANDARD_INPUT:
        return None
    try:
        found = Path(path).stat()
        if stat.S_ISDIR(found.st_mode):
            raise Failure(f"cannot read {path!r}: it is a directory")
        if not os.access(path, os.R_OK):
            raise Failure(f"cannot read {path!r}: Permission denied")
    except OSError as error:
        raise unreadable(path, error) from error
    return found.st_size if stat.S_ISREG(found.st_mode) else None


@final
class SourceCodec:
    """Streams a `Source` into an entry's data file."""

    def dump(self, value: Source, file: BinaryIO, /) -> None:
        """Copy the source."""
        value.copy_to(file)

    def load(self, file: BinaryIO, /) -> Source:  # noqa: ARG002  # the codec's protocol
        """Refuse: the command reads data where it lies, and this codec is only for what is put."""
        raise TypeError("a source is only ever written")

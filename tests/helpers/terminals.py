"""A terminal for a program that draws on the whole screen: what is on it, keys, its size, and its end.

`Picture` understands the few escape sequences that `top` writes, and refuses all others.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import termios
import time
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

_PIECE = re.compile(
    r"\x1b\[(?P<row>\d+);(?P<column>\d+)H|\x1b\[(?P<style>[0-9;]*)m|\x1b\[\?(?P<mode>\d+)(?P<on>[hl])"
    r"|(?P<clear>\x1b\[2J)|(?P<text>[^\x1b\x00-\x1f\x7f]+)"
)
_OF_SHELL = re.compile(r"[\r\n]|\x1b\[[0-9;]*m|[^\x1b\x00-\x1f\x7f]")
_HANGS = 60
"""Seconds after which what is waited for will not be shown any more: no test takes a tenth of that."""

CURSOR_SHOWN, WRAPPING, ALTERNATE = 25, 7, 1049


class Picture:
    """What is on a screen after all that was written to it."""

    def __init__(self, columns: int, lines: int) -> None:
        self.size = columns, lines
        self.modes = {CURSOR_SHOWN: True, WRAPPING: True, ALTERNATE: False}
        self.styles: set[str] = set()
        self._cells: list[list[str]] = []
        self._row, self._column = 0, 0
        self._clear()

    def _clear(self) -> None:
        columns, lines = self.size
        self._cells = [[" "] * columns for _ in range(lines)]

    def resize(self, columns: int, lines: int) -> None:
        """Take another size; what was shown is gone, which is what a terminal may do."""
        self.size = columns, lines
        self._clear()

    def feed(self, text: str) -> str:
        """Take in what was written, and return the end of it that is not complete."""
        while text:
            if not self.modes[ALTERNATE] and (found := _OF_SHELL.match(text)) and text[0] != "\x1b":
                text = text[found.end() :]  # not of the program's whole-screen part
                continue
            piece = _PIECE.match(text)
            if piece is None:
                cut_off = text[0] == "\x1b" and len(text) < 16
                assert cut_off, f"not understood: {text[:40]!r}"
                return text
            self._obey(piece)
            text = text[piece.end() :]
        return ""

    def _obey(self, piece: re.Match[str]) -> None:
        if piece["row"]:
            self._row, self._column = int(piece["row"]) - 1, int(piece["column"]) - 1
        elif piece["style"] is not None:
            self.styles.add(piece["style"])
        elif piece["mode"]:
            self.modes[int(piece["mode"])] = piece["on"] == "h"
        elif piece["clear"]:
            self._clear()
        else:
            for character in piece["text"]:
                self._put(character)

    def _put(self, character: str) -> None:
        width = cell_len(character)
        if self._row < self.size[1] and self._column + width <= self.size[0]:
            self._cells[self._row][self._column : self._column + width] = [character] + [""] * (width - 1)
        self._column += width

    def lines(self) -> list[str]:
        """Return the lines as they are shown."""
        return ["".join(cells).rstrip() for cells in self._cells]

    def __str__(self) -> str:
        return "\n".join(self.lines())


class Terminal:
    """A terminal of its own for one process, which `start` starts with it as its standard streams."""

    def __init__(self, start: Callable[..., subprocess.Popen[Any]], columns: int, lines: int) -> None:
        self.picture = Picture(columns, lines)
        self._ours, theirs = pty.openpty()
        self._theirs = theirs
        self._set_size()
        self.modes_before = self.modes()
        self.process = start(
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self._rest = b""

    def _set_size(self) -> None:
        columns, lines = self.picture.size
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def modes(self) -> list[Any]:
        """Return how the terminal is set."""
        return termios.tcgetattr(self._ours)

    def resize(self, columns: int, lines: int) -> None:
        """Change the window's size."""
        self.picture.resize(columns, lines)
        self._set_size()

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._ours, keys.encode())

    def until(self, shown: Callable[[str], object]) -> str:
        """Wait until the screen shows something, and return it all."""
        patience = time.monotonic() + _HANGS
        while not shown(str(self.picture)):
            assert time.monotonic() < patience, f"it does not show what is waited for, but:\n{self.picture}"
            piece = self._read()
            assert piece, f"it ended, and showed:\n{self.picture}"
        return str(self.picture)

    def end(self) -> int:
        """Wait for the process to end, and return its exit code."""
        os.close(self._theirs)
        self._theirs = -1
        while self._read():
            pass
        return self.process.wait()

    def hang_up(self) -> int:
        """Close the terminal, as a window that is closed, and return the exit code."""
        os.close(self._theirs)
        self._theirs = -1
        os.close(self._ours)
        self._ours = -1
        return self.process.wait()

    def close(self) -> None:
        """Close what is open."""
        for descriptor in (self._ours, self._theirs):
            if descriptor >= 0:
                os.close(descriptor)

    def _read(self) -> bytes:
        ready, _, _ = select.select([self._ours], [], [], _HANGS)
        assert ready, f"nothing more was shown than:\n{self.picture}"
        try:
            piece = os.read(self._ours, 65536)
        except OSError:  # EIO: nobody has it open any more
            return b""
        text = (self._rest + piece).decode(errors="surrogateescape")
        kept = self.picture.feed(text) if not _cut(text) else text
        self._rest = kept.encode(errors="surrogateescape")
        return piece


def _cut(text: str) -> bool:
    """Tell whether the last character has not arrived in full."""
    return bool(text) and "\udc80" <= text[-1] <= "\udcff"

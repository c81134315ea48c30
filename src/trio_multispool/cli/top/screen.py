"""The terminal of `top`: taken over and given back as it was found, keys read from it, pictures drawn on it.

Only the changed lines of a picture are written, so it neither flickers nor fills a slow line. Leaving the block, in
any way, undoes all changes to the terminal in reverse order. A terminal that has gone meanwhile (EIO) is no error then.
"""

import contextlib
import io
import os
import re
import sys
import termios
from collections.abc import Generator, Sequence
from typing import Final, final

import trio
from rich.console import Console
from rich.text import Text

from trio_multispool.cli import output
from trio_multispool.cli.exits import Exit, Failure

_ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
"""The alternate screen, no cursor, no wrapping at the right edge, and nothing on it."""

_LEAVE: Final = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"

_PLAIN: Final = str.maketrans("↑↓→←…", "^v><~")
"""For a terminal that shows ASCII only."""

_INPUT_FLAGS, _LOCAL_FLAGS, _CHARACTERS = 0, 3, 6
"""Where `termios.tcgetattr` has them."""

_UNUSABLE: Final = frozenset({"dumb", "unknown", ""})

_ARROWS: Final = {"A": "up", "B": "down", "C": "right", "D": "left", "H": "home", "F": "end"}
_SEQUENCES: Final = {lead + final: key for lead in "[O" for final, key in _ARROWS.items()} | {
    "[1~": "home",
    "[4~": "end",
    "[7~": "home",
    "[8~": "end",
    "[5~": "pageup",
    "[6~": "pagedown",
    "[Z": "backtab",
}
"""What follows the escape character; of keys that are not here, nothing is known but that they were pressed."""

_CONTROLS: Final = {
    "\x1b": "esc",
    "\r": "enter",
    "\n": "enter",
    "\t": "tab",
    " ": "space",
    "\x7f": "backspace",
    "\x08": "backspace",
    "\x0c": "redraw",
    "\x04": "q",  # what ends the input of other programs
}

_KEY: Final = re.compile(r"\x1b(?:O.|\[[^@-~]*[@-~]?)|.", re.DOTALL)
"""An escape sequence (`ESC O x` or `ESC [ … x`), or one character."""


def keys_of(text: str) -> list[str]:
    """Return the keys that were pressed, by their names; a character is its own."""
    found: list[str] = _KEY.findall(text)
    return [_SEQUENCES.get(key[1:], "unknown") if len(key) > 1 else _CONTROLS.get(key, key) for key in found]


@final
class Screen:
    """The terminal, taken over."""

    def __init__(self) -> None:
        """Begin with nothing drawn; `taken_over` makes it."""
        encoding = sys.stdout.encoding or "ascii"
        self.plain: bool = not encoding.lower().startswith("utf")
        """Whether the terminal cannot show more than ASCII."""
        self._encoding = encoding
        self._drawn: list[str] = []
        self._size = (0, 0)
        self._original = termios.tcgetattr(0)
        self._entered = False

    # Modes

    def enter(self) -> None:
        """Take the terminal over. Idempotent."""
        if self._entered:
            return
        self._entered = True
        mode = termios.tcgetattr(0)
        # Keys come one by one and are not shown; Ctrl-C and Ctrl-Z stay signals. Ctrl-S would stop the picture.
        mode[_LOCAL_FLAGS] &= ~(termios.ICANON | termios.ECHO)
        mode[_INPUT_FLAGS] &= ~termios.IXON
        characters: list[bytes | int] = mode[_CHARACTERS]
        characters[termios.VMIN], characters[termios.VTIME] = 1, 0
        termios.tcsetattr(0, termios.TCSADRAIN, mode)
        self._write(_ENTER)
        self._drawn = []

    def leave(self) -> None:
        """Give the terminal back as it was found; if it has gone, nobody misses it. Idempotent."""
        if not self._entered:
            return
        self._entered = False
        with contextlib.suppress(OSError):
            self._write(_LEAVE)
        with contextlib.suppress(termios.error):
            termios.tcsetattr(0, termios.TCSADRAIN, self._original)

    # Keys

    async def keys(self) -> list[str] | None:
        """Wait for keys and return them, or `None` if the terminal has gone."""
        await trio.lowlevel.wait_readable(0)
        try:
            read = os.read(0, 1024)
        except OSError:
            return None
        return keys_of(read.decode(errors="replace")) if read else None

    # Pictures

    @staticmethod
    def size() -> tuple[int, int]:
        """Return how many columns and lines there are now."""
        try:
            found = os.get_terminal_size(1)
        except OSError:
            return 80, 24
        return max(1, found.columns), max(1, found.lines)

    def forget(self) -> None:
        """Draw everything anew the next time: something else may have been written over it."""
        self._drawn = []

    def draw(self, lines: Sequence[Text], size: tuple[int, int]) -> None:
        """Draw a picture; raises `OSError` if the terminal has gone."""
        console = Console(  # into memory, as the terminal can, in colour or not (`NO_COLOR`, `TERM`)
            file=io.StringIO(), force_terminal=True, width=size[0], height=size[1], highlight=False, markup=False
        )
        drawn = [_as_drawn(console, line) for line in lines]
        pieces: list[str] = []
        if self._size != size or not self._drawn:
            self._size, self._drawn = size, []
            pieces.append("\x1b[0m\x1b[2J")
        before = self._drawn + [""] * (len(drawn) - len(self._drawn))
        pieces += [
            f"\x1b[{number};1H{line}"
            for number, (line, old) in enumerate(zip(drawn, before, strict=False), start=1)
            if line != old
        ]
        self._drawn = drawn
        if pieces:
            self._write("".join(pieces))

    def _write(self, text: str) -> None:
        if self.plain:
            text = text.translate(_PLAIN)
        remaining = memoryview(text.encode(self._encoding, "replace"))
        while remaining:
            remaining = remaining[os.write(1, remaining) :]


def _as_drawn(console: Console, line: Text) -> str:
    with console.capture() as capture:
        console.print(line, end="", no_wrap=True, overflow="crop", crop=True)
    return capture.get()


@contextlib.contextmanager
def taken_over() -> Generator[Screen]:
    """Take the terminal over until the block is left; ends the command if there is none."""
    if not (output.is_terminal(sys.stdin) and output.is_terminal(sys.stdout)):
        raise Failure("top needs a terminal; without one, use `multispool ls`, or `multispool stats`", Exit.USAGE)
    if os.environ.get("TERM", "").lower() in _UNUSABLE:
        kind = os.environ.get("TERM", "")
        raise Failure(f"top cannot draw on this terminal (TERM={kind}); use `multispool ls`", Exit.USAGE)
    screen = Screen()
    try:
        screen.enter()
        yield screen
    finally:
        screen.leave()

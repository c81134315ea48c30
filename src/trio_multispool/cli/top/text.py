"""Text that fits: what `top` writes into a column of a given width. Pure."""

from collections.abc import Sequence
from typing import Final, TypeAlias, final

import msgspec
from rich.cells import cell_len, set_cell_size
from rich.text import Text

from trio_multispool.cli.output import printable

GAP: Final = 2
_BARS: Final = "▁▂▃▄▅▆▇█"
_PLAIN_BARS: Final = "_.:-=+*#"
_THOUSAND: Final = 1_000
_TEN: Final = 10


def fit(text: str, width: int, *, right: bool = False) -> str:
    """Return text that takes exactly that many cells. If it is too long, its end is cut."""
    missing = width - cell_len(text)
    if missing < 0:
        return set_cell_size(text, width - 1) + "…" if width > 0 else ""
    return " " * missing + text if right else text + " " * missing


def fit_name(name: str, width: int) -> str:
    """Return a name of at most that many cells. If too long, its middle is cut: generated names differ at the end.

    What a terminal would obey is escaped.
    """
    shown = printable(name)
    if cell_len(shown) <= width or width < _TEN:
        return fit(shown, min(width, cell_len(shown)))
    tail = set_cell_size(shown[::-1], width // 2)[::-1]
    return set_cell_size(shown, width - 1 - width // 2) + "…" + tail


def fit_end(text: str, width: int) -> str:
    """Return text of at most that many cells. If it is too long, its beginning is cut."""
    if cell_len(text) <= width:
        return text
    return "…" + set_cell_size(text[::-1], width - 1)[::-1] if width > 0 else ""


def count(number: int) -> str:
    """Say how many, in nine cells at most."""
    if number < 10_000_000:  # noqa: PLR2004  # what nine cells hold
        return f"{number:,}"
    return f"{number / 1_000_000:.0f}M"


def few(number: int) -> str:
    """Say how many of something that is mostly rare, in five cells."""
    if number < _TEN * _THOUSAND:
        return f"{number:,}"
    return f"{number // _THOUSAND}k" if number < _TEN * _THOUSAND**2 else f"{number // _THOUSAND**2}M"


def rate(per_second: float | None, *, estimated: bool = False) -> str:
    """Say how many a second, in six cells at most: `-` if it is not known, `~` before an estimate."""
    if per_second is None:
        return "-"
    if not per_second:
        return "0"
    mark = "~" if estimated else ""
    if per_second < _TEN:
        return f"{mark}{per_second:.1f}"
    if per_second < _TEN * _THOUSAND:
        return f"{mark}{per_second:.0f}"
    return f"{mark}{per_second / _THOUSAND:.0f}k"


def sparkline(depths: Sequence[int], width: int, *, plain: bool = False) -> str:
    """Draw the latest `width` depths, the last to the right, as high as they are compared with the highest.

    Only an empty queue has the lowest bar.
    """
    bars = _PLAIN_BARS if plain else _BARS
    shown = depths[-width:] if width > 0 else ()
    highest = max(shown, default=0)
    drawn = "".join(bars[0] if not depth else bars[1 + depth * (len(bars) - 2) // highest] for depth in shown)
    return drawn.rjust(width)


def duration(seconds: float) -> str:
    """Say how long something took or takes: `3 ms`, `2.1s`, `40s`."""
    if seconds < 1:
        return f"{seconds * _THOUSAND:.0f} ms"
    return f"{seconds:.1f}s".replace(".0s", "s") if seconds < _TEN else f"{seconds:.0f}s"


@final
class Column(msgspec.Struct, frozen=True):
    """A column of a table."""

    title: str
    width: int
    right: bool = False
    names: bool = False
    """Whether it holds names, which are cut in their middle."""


Cell: TypeAlias = str | tuple[str, str]
"""A text, or a text and its style."""


def row(columns: Sequence[Column], cells: Sequence[Cell]) -> Text:
    """Put cells side by side, each as wide as its column."""
    line = Text(no_wrap=True, end="")
    for number, (column, cell) in enumerate(zip(columns, cells, strict=True)):
        if number:
            _ = line.append(" " * GAP)
        text, style = (cell, "") if isinstance(cell, str) else cell
        text = fit_name(text, column.width) if column.names else text
        _ = line.append(fit(text, column.width, right=column.right), style)
    return line


def share(room: int, wants: Sequence[int]) -> list[int]:
    """Divide lines among tables: one each in turn, until all have enough or no line is left."""
    given = [0] * len(wants)
    while room > 0 and any(have < want for have, want in zip(given, wants, strict=True)):
        for number, want in enumerate(wants):
            if given[number] < want and room > 0:
                given[number] += 1
                room -= 1
    return given


def window(length: int, size: int, position: int | None) -> range:
    """Return which of `length` rows to show in `size` lines, so that the one at `position` is among them."""
    first = 0 if position is None else max(0, min(position - size // 2, length - size))
    return range(first, min(length, first + size))


def fold(text: str, width: int) -> list[str]:
    """Break text into lines of at most that many cells, at any place."""
    lines = [""]
    for character in text:
        if cell_len(lines[-1]) + cell_len(character) > width:
            lines.append("")
        lines[-1] += character
    return lines

"""Tables for people: drawn by rich on a terminal, and elsewhere as plain columns, as wide as their contents."""

import sys
from collections.abc import Collection, Mapping, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trio_multispool.cli import output

_GAP = 2
_LEAST = 8
"""The least width of a column of text on a terminal, in cells; less if its texts are shorter."""


def table(columns: Mapping[str, Sequence[str]], *, numbers: Collection[str] = (), gap: int = _GAP) -> None:
    """Write a table to standard output: its columns, by their headers, with `gap` spaces between them.

    Those named in `numbers` stand to the right. On a terminal that is too narrow text is folded, and numbers never are.
    If not even that has room, lines are longer than the terminal is wide: whole columns would be missing otherwise.
    """
    console = Console(force_terminal=True, highlight=False)
    widths = {header: max(map(cell_len, (header, *column))) for header, column in columns.items()}
    least = sum(gap + (width if header in numbers else min(width, _LEAST)) for header, width in widths.items())
    if not output.is_terminal(sys.stdout) or least - gap > console.width:
        _plain(columns, numbers, gap)
        return
    drawn = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    for header in columns:
        # Folded and never cut off: a name must be there to be copied, however narrow the window.
        number = header in numbers
        drawn.add_column(header, justify="right" if number else "left", overflow="fold", no_wrap=number)
    for row in zip(*columns.values(), strict=True):
        drawn.add_row(*(Text(cell, overflow="fold") for cell in row))
    console.print(drawn)


def _plain(columns: Mapping[str, Sequence[str]], numbers: Collection[str], gap: int) -> None:
    padded: list[list[str]] = []
    for header, column in columns.items():
        cells = [header, *column]
        width = max(map(cell_len, cells))
        spaces = [" " * (width - cell_len(cell)) for cell in cells]
        pairs = zip(cells, spaces, strict=True)
        padded.append([space + cell if header in numbers else cell + space for cell, space in pairs])
    output.line("\n".join((" " * gap).join(row).rstrip() for row in zip(*padded, strict=True)))

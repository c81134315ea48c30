"""Tables for people: drawn by rich on a terminal, and elsewhere as plain columns, as wide as their contents."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trio_multispool.cli import output

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_GAP = 2


def table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Collection[str] = (), gap: int = _GAP
) -> None:
    """Write a table to standard output, with `gap` spaces between columns; those named in `numbers` stand to the right.

    On a terminal that is too narrow text is folded, and numbers never are.
    """
    if output.is_terminal(sys.stdout):
        _drawn(headers, rows, numbers, gap)
    else:
        _plain(headers, rows, numbers, gap)


def _drawn(headers: Sequence[str], rows: Sequence[Sequence[str]], numbers: Collection[str], gap: int) -> None:
    drawn = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    for header in headers:
        # Folded and never cut off: a name must be there to be copied, however narrow the window.
        number = header in numbers
        drawn.add_column(header, justify="right" if number else "left", overflow="fold", no_wrap=number)
    for row in rows:
        drawn.add_row(*(Text(cell, overflow="fold") for cell in row))
    Console(force_terminal=True, highlight=False).print(drawn)


def _plain(headers: Sequence[str], rows: Sequence[Sequence[str]], numbers: Collection[str], gap: int) -> None:
    lines = [list(headers), *(list(row) for row in rows)]
    widths = [max(cell_len(cells[column]) for cells in lines) for column in range(len(headers))]
    right = [header in numbers for header in headers]
    text: list[str] = []
    for cells in lines:
        padded = [
            " " * (width - cell_len(cell)) + cell if to_the_right else cell + " " * (width - cell_len(cell))
            for cell, width, to_the_right in zip(cells, widths, right, strict=True)
        ]
        text.append((" " * gap).join(padded).rstrip())
    output.line("\n".join(text))

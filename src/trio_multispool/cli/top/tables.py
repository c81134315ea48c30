"""The tables of `top`: queues, check-outs, quarantine, problems, and the entries of one queue. Pure.

Each table is drawn by a function that is given the number of lines, header included; each is as wide as the screen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.cells import cell_len
from rich.text import Text

from trio_multispool.cli.ages import human_age, human_size
from trio_multispool.cli.output import printable
from trio_multispool.cli.top.text import GAP, Column, count, few, fit, fit_name, rate, row, sparkline, window
from trio_multispool.cli.top.view import COLUMNS, Kind, Row, sorted_lines
from trio_multispool.model.lifecycle import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from trio_multispool.cli.top.seen import Listing
    from trio_multispool.cli.top.state import Line, Model
    from trio_multispool.cli.top.view import View

HEADER: Final = "bold cyan"
SELECTED: Final = "reverse"
_MARK: Final = 2
"""Cells before each row: the selected one has a mark there, which needs no colour."""

_WIDEST_SPARKLINE: Final = 90
_SPARKLINE: Final = "DEPTH LATELY"
_LEAST_PROGRESS: Final = 4
"""`40 %`: with less room, the progress of an owner is not shown."""

_QUEUE: Final = (8, 14, 40)
"""The cells of a queue's name: at least, in 80 columns, and at most."""

_FIGURES: Final = (9, 6, 6, 7, 5, 6)
"""The widths of `COLUMNS` after the first."""


def _longest(texts: Iterable[str], most: int, least: int) -> int:
    return max(least, min(most, max((cell_len(printable(text)) for text in texts), default=0)))


def _body(rows: Sequence[Row], view: View, lines: int, width: int, draw: Callable[[int], Text]) -> list[Text]:
    """Draw as many rows as there is room for, the selected one among them."""
    position = rows.index(view.selected) if view.selected in rows else None
    drawn: list[Text] = []
    for number in window(len(rows), lines, position):
        selected = number == position
        line = Text("> " if selected else "  ", SELECTED if selected else "", no_wrap=True, end="")
        _ = line.append_text(draw(number))
        line.truncate(width, pad=True)
        drawn.append(line)
    return drawn


def _header(text: Text | str, width: int, shown: int, length: int) -> Text:
    """Return a table's header, with how many of its rows are shown unless all are."""
    line = Text("  ", HEADER, no_wrap=True, end="")
    _ = line.append_text(text) if isinstance(text, Text) else line.append(text)
    if shown < length:
        note = f" {shown} of {count(length)}"
        line.truncate(max(0, width - len(note)), pad=True)
        _ = line.append(note, "yellow")
    line.truncate(width, pad=True)
    return line


# ---------------------------------------------------------------------------------------------------------- queues


def queues(  # noqa: PLR0913  # what a picture depends on
    model: Model, view: View, now: float, lines: int, width: int, *, plain: bool = False
) -> list[Text]:
    """Draw the table of queues."""
    found = sorted_lines(list(model.lines.values()), view)
    columns, spark = _queue_columns([line.seen.queue for line in found], width)
    shown = columns if not spark else [*columns, Column(_SPARKLINE if spark >= len(_SPARKLINE) else "LATELY", spark)]
    rows = [Row(Kind.QUEUE, line.seen.queue) for line in found]
    body = _body(
        rows, view, lines - 1, width, lambda number: row(shown, _queue_cells(found[number], now, shown, plain=plain))
    )
    return [_header(row(shown, _titles(shown, view, plain=plain)), width, len(body), len(found)), *body]


def _queue_columns(names: list[str], width: int) -> tuple[list[Column], int]:
    """Return the columns for which there is room, and what is left for the sparkline."""
    least, usual, most = _QUEUE
    figures = [Column(title, size, right=True) for title, size in zip(COLUMNS[1:], _FIGURES, strict=True)]
    while figures and _MARK + least + sum(GAP + it.width for it in figures) > width:
        _ = figures.pop()
    taken = _MARK + sum(GAP + column.width for column in figures)
    longest = _longest(names, most, least)
    name = max(least, min(longest, usual if width - taken - longest < 2 * usual else most, width - taken))
    spark = min(_WIDEST_SPARKLINE, width - taken - name - GAP)
    return [Column(COLUMNS[0], name), *figures], spark if spark >= least else 0


def _titles(columns: Sequence[Column], view: View, *, plain: bool) -> list[Text]:
    """Write the columns' titles; the one that is sorted by has an arrow, down if the largest is first."""
    titles: list[Text] = []
    for number, column in enumerate(columns):
        falling = view.backwards if number == 0 else not view.backwards
        arrow = ("v" if falling else "^") if plain else ("▼" if falling else "▲")
        sorted_by = number == view.column
        text = column.title
        if sorted_by:
            text = arrow + text if column.right else text + arrow
        text = fit(text, column.width, right=column.right)
        titles.append(Text(text, "bold underline cyan" if sorted_by else ""))
    return titles


def _queue_cells(line: Line, now: float, columns: Sequence[Column], *, plain: bool) -> list[Text | str]:
    seen, rates = line.seen, line.rates or (None, None)
    oldest = "-" if seen.oldest_at is None else human_age(now - seen.oldest_at)
    cells: list[Text | str] = [
        fit_name(seen.queue, columns[0].width),
        count(seen.available),
        rate(rates[0], estimated=line.estimated),
        rate(rates[1], estimated=line.estimated),
        oldest if seen.oldest_of_all or oldest == "-" else f"~{oldest}",
        few(seen.held) if seen.held else "-",
        _coloured(few(seen.aside), _FIGURES[-1], "bold red") if seen.aside else "-",
    ]
    if len(columns) > len(COLUMNS):
        cells.append(Text(sparkline(line.depths, columns[-1].width, plain=plain), "not reverse green"))
    return cells[: len(columns)]


def _coloured(text: str, width: int, style: str) -> Text:
    return Text(fit(text, width, right=True), style)


# ----------------------------------------------------------------------------------------------- entries, problems


def held(model: Model, view: View, now: float, lines: int, width: int) -> list[Text]:
    """Draw the table of check-outs, the longest held first."""
    found = () if model.look is None else model.look.held
    if not found:
        return [_header("CHECKED OUT: nothing", width, 0, 0)]
    queue = _longest((it.queue for it in found), max(5, width // 6), 5)
    by = _longest((it.by for it in found), max(7, width // 4), 7)
    name = _name_width((it.name for it in found), width, queue, by, 5)
    columns = [Column("CHECKED OUT", name), Column("QUEUE", queue), Column("BY", by), Column("FOR", 5, right=True)]
    left = width - _MARK - sum(column.width + GAP for column in columns)
    progress = _longest((it.progress for it in found), left, 0)
    if progress >= _LEAST_PROGRESS:
        columns.append(Column(fit("PROGRESS", progress).rstrip(), progress))

    def draw(number: int) -> Text:
        it = found[number]
        whose = Text(fit(fit_name(it.by, by), by), "" if it.owner is not None else "yellow")
        age = human_age(now - it.since)
        cells: list[Text | str] = [
            fit_name(it.name, name),
            fit_name(it.queue, queue),
            whose,
            age,
            printable(it.progress),
        ]
        return row(columns, cells[: len(columns)])

    body = _body([Row(Kind.HELD, it.queue, it.name) for it in found], view, lines - 1, width, draw)
    total = sum(line.seen.held for line in model.lines.values())
    return [_header(row(columns, [it.title for it in columns]), width, len(body), total), *body]


def aside(model: Model, view: View, now: float, lines: int, width: int) -> list[Text]:
    """Draw the table of what is in quarantine; nothing if nothing is."""
    found = () if model.look is None else model.look.aside
    if not found:
        return []
    queue = _longest((it.queue for it in found), max(5, width // 4), 5)
    name = _name_width((it.name for it in found), width, queue, 5)
    columns = [Column("IN QUARANTINE", name), Column("QUEUE", queue), Column("FOR", 5, right=True)]

    def draw(number: int) -> Text:
        it = found[number]
        return row(columns, [fit_name(it.name, name), fit_name(it.queue, queue), human_age(now - it.since)])

    body = _body([Row(Kind.ASIDE, it.queue, it.name) for it in found], view, lines - 1, width, draw)
    total = sum(line.seen.aside for line in model.lines.values())
    return [_header(row(columns, [it.title for it in columns]), width, len(body), total), *body]


def _name_width(names: Iterable[str], width: int, *others: int) -> int:
    room = width - _MARK - sum(GAP + other for other in others)
    return max(1, min(room, _longest(names, 200, 13)))


def problems(model: Model, now: float, lines: int, width: int, *, plain: bool = False) -> list[Text]:
    """Draw what is wrong, the first to start first, and then what was and has ended, the last to end first."""
    told = [
        (f"{'!' if plain else '●'} for {human_age(now - model.since[key]):>4}  {problem.text}", "red")
        for key, problem in model.problems.items()
    ]
    told += [
        (f"{'-' if plain else '○'} ended {human_age(now - event.at):>4} ago  {event.problem.text}", "dim")
        for event in reversed(model.events)
        if not event.started
    ]
    if not told:
        return [_header("PROBLEMS: none", width, 0, 0)]
    body = [Text(fit("  " + printable(text), width), style, no_wrap=True, end="") for text, style in told[: lines - 1]]
    return [_header("PROBLEMS", width, len(body), len(told)), *body]


def problem_lines(model: Model) -> int:
    """Return how many lines the table of problems could fill, with its header."""
    return 1 + len(model.problems) + sum(not event.started for event in model.events)


def entries(listing: Listing, view: View, now: float, lines: int, width: int) -> list[Text]:
    """Draw the entries of one queue: what is checked out, what is in quarantine, and what comes next by name."""
    found = listing.entries
    by = _longest((it.by for it in found), max(5, width // 4), 2)
    sizes = [Column("METADATA", 9, right=True)] if width >= _ROOM_FOR_SIZES else []
    fixed = [Column("STATE", 11), Column("BY", by), *sizes, Column("AGE", 5, right=True)]
    name = _name_width((it.name for it in found), width, *(column.width for column in fixed))
    columns = [Column("NAME", name), *fixed]

    def draw(number: int) -> Text:
        it = found[number]
        state = Text(fit(it.state.value, 11), _STATE_STYLES[it.state])
        size = [human_size(it.size)] if sizes else []
        return row(columns, [fit_name(it.name, name), state, fit_name(it.by, by), *size, human_age(now - it.since)])

    body = _body([Row(_KINDS[it.state], it.queue, it.name) for it in found], view, lines - 1, width, draw)
    total = len(found) + listing.more
    return [_header(row(columns, [it.title for it in columns]), width, len(body), total), *body]


_ROOM_FOR_SIZES: Final = 90
_STATE_STYLES: Final = {
    State.AVAILABLE: "",
    State.WAITING: "dim",
    State.CHECKED_OUT: "yellow",
    State.QUARANTINED: "red",
}
_KINDS: Final = {
    State.AVAILABLE: Kind.AVAILABLE,
    State.WAITING: Kind.AVAILABLE,
    State.CHECKED_OUT: Kind.HELD,
    State.QUARANTINED: Kind.ASIDE,
}

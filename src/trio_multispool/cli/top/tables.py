"""The tables of `top`: queues, check-outs, quarantine, problems, and the entries of one queue. Pure.

Each table is drawn by a function that is given the number of lines, header included; each is as wide as the screen.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar, final

import msgspec
from rich.cells import cell_len
from rich.text import Text

from trio_multispool.cli.output import printable
from trio_multispool.cli.top.text import GAP, Cell, Column, count, few, fit, rate, row, sparkline, window
from trio_multispool.cli.top.view import COLUMNS, View, row_of, sorted_lines
from trio_multispool.looks.ages import human_age, human_size
from trio_multispool.looks.seen import Entry, Listing
from trio_multispool.looks.state import Line, Model
from trio_multispool.model.lifecycle import State

_Seen = TypeVar("_Seen", Line, Entry)

HEADER: Final = "bold cyan"
_MARK: Final = 2
"""Cells before each row: the selected one has a mark there, which needs no colour."""

_WIDEST_SPARKLINE: Final = 90
_SPARKLINE: Final = "DEPTH LATELY"
_LEAST_PROGRESS: Final = 4
"""`40 %`: with less room, the progress of an owner is not shown."""

_FOR: Final = Column("FOR", 5, right=True)

_QUEUE: Final = (8, 14, 40)
"""The cells of a queue's name: at least, in 80 columns, and at most."""

_FIGURES: Final = (9, 6, 6, 7, 5, 5, 6)
"""The widths of `COLUMNS` after the first."""


def _longest(texts: Iterable[str], most: int, least: int) -> int:
    return max(least, min(most, max((cell_len(printable(text)) for text in texts), default=0)))


@final
class Frame(msgspec.Struct, frozen=True):
    """Where a table is drawn, and what its look depends on beside what is known."""

    view: View
    now: float
    lines: int
    """How many there are for it, header included."""
    width: int
    plain: bool = False
    """Whether the terminal shows ASCII only."""

    def age(self, since: float) -> str:
        """Say how long ago that was."""
        return human_age(self.now - since)


def _table(  # noqa: PLR0913  # what a table consists of
    frame: Frame,
    columns: Sequence[Column],
    found: Sequence[_Seen],
    cells: Callable[[_Seen], list[Cell]],
    *,
    total: int,
    titles: Sequence[Cell] | None = None,
) -> list[Text]:
    """Draw the header, and as many rows as there is room for, the selected one among them."""
    rows = [row_of(each) for each in found]
    position = rows.index(frame.view.selected) if frame.view.selected in rows else None
    drawn: list[Text] = []
    for number in window(len(rows), frame.lines - 1, position):
        selected = number == position
        line = Text("> " if selected else "  ", "reverse" if selected else "", no_wrap=True, end="")
        _ = line.append_text(row(columns, cells(found[number])))
        line.truncate(frame.width, pad=True)
        drawn.append(line)
    header = row(columns, [column.title for column in columns] if titles is None else titles)
    return [_header(header, frame.width, len(drawn), total), *drawn]


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


def queues(model: Model, frame: Frame) -> list[Text]:
    """Draw the table of queues."""
    found = sorted_lines(list(model.lines.values()), frame.view)
    columns = _queue_columns([line.seen.queue for line in found], frame.width)
    cells = functools.partial(_queue_cells, columns=columns, frame=frame)
    return _table(frame, columns, found, cells, total=len(found), titles=_titles(columns, frame))


def _queue_columns(names: list[str], width: int) -> list[Column]:
    """Return the columns for which there is room; the sparkline gets what is left, or the names if it is too little."""
    least, usual, most = _QUEUE
    figures = [Column(title, size, right=True) for title, size in zip(COLUMNS[1:], _FIGURES, strict=True)]
    while figures and _MARK + least + sum(GAP + it.width for it in figures) > width:
        _ = figures.pop()
    room = width - _MARK - sum(GAP + column.width for column in figures)
    longest = min(_longest(names, most, least), max(least, room))
    name = min(longest, usual) if room - longest < 2 * usual else longest
    spark = min(_WIDEST_SPARKLINE, room - name - GAP)
    if spark < least:
        return [Column(COLUMNS[0], longest, names=True), *figures]
    return [
        Column(COLUMNS[0], name, names=True),
        *figures,
        Column(_SPARKLINE if spark >= len(_SPARKLINE) else "LATELY", spark),
    ]


def _titles(columns: Sequence[Column], frame: Frame) -> list[Cell]:
    """Write the columns' titles; the one that is sorted by has an arrow, down if the largest is first."""
    titles: list[Cell] = [column.title for column in columns]
    at, up = frame.view.column, frame.view.backwards != (frame.view.column == 0)
    if at < len(columns):
        arrow = ("^" if up else "v") if frame.plain else ("▲" if up else "▼")
        title = columns[at].title
        titles[at] = arrow + title if columns[at].right else title + arrow, "bold underline cyan"
    return titles


def _queue_cells(line: Line, columns: Sequence[Column], frame: Frame) -> list[Cell]:
    seen, rates = line.seen, line.rates or (None, None)
    oldest = "-" if seen.oldest_at is None else frame.age(seen.oldest_at)
    cells: list[Cell] = [
        seen.queue,
        count(seen.available),
        rate(rates[0], estimated=line.estimated),
        ("paused", "bold yellow") if seen.pause else rate(rates[1], estimated=line.estimated),
        oldest if seen.oldest_of_all or oldest == "-" else f"~{oldest}",
        few(seen.held) if seen.held else "-",
        few(seen.waiting) if seen.waiting else "-",
        (few(seen.aside), "bold red") if seen.aside else "-",
        (sparkline(line.depths, columns[-1].width, plain=frame.plain), "not reverse green"),
    ]
    return cells[: len(columns)]


def held(model: Model, frame: Frame) -> list[Text]:
    """Draw the table of check-outs, the longest held first."""
    found, width = () if model.look is None else model.look.held, frame.width
    if not found:
        return [_header("CHECKED OUT: nothing", width, 0, 0)]
    queue = _names("QUEUE", (it.queue for it in found), max(5, width // 6), 5)
    by = _names("BY", (it.by for it in found), max(7, width // 4), 7)
    columns = _after_names("CHECKED OUT", found, width, queue, by, _FOR)
    left = width - _MARK - sum(column.width + GAP for column in columns)
    progress = _longest((it.progress for it in found), left, 0)
    if progress >= _LEAST_PROGRESS:
        columns.append(Column(fit("PROGRESS", progress).rstrip(), progress))

    def cells(it: Entry) -> list[Cell]:
        whose = it.by, "" if it.owner is not None else "yellow"
        cells: list[Cell] = [it.name, it.queue, whose, frame.age(it.since), printable(it.progress)]
        return cells[: len(columns)]

    return _table(frame, columns, found, cells, total=sum(line.seen.held for line in model.lines.values()))


def aside(model: Model, frame: Frame) -> list[Text]:
    """Draw the table of what is in quarantine; nothing if nothing is."""
    found, width = () if model.look is None else model.look.aside, frame.width
    if not found:
        return []
    queue = _names("QUEUE", (it.queue for it in found), max(5, width // 4), 5)
    columns = _after_names("IN QUARANTINE", found, width, queue, _FOR)
    total = sum(line.seen.aside for line in model.lines.values())
    return _table(frame, columns, found, lambda it: [it.name, it.queue, frame.age(it.since)], total=total)


def _after_names(title: str, found: Sequence[Entry], width: int, *others: Column) -> list[Column]:
    """Return the columns of a table of entries: that of their names, as wide as there is room, and the others."""
    room = width - _MARK - sum(GAP + column.width for column in others)
    return [Column(title, max(1, min(room, _longest((it.name for it in found), 200, 13))), names=True), *others]


def _names(title: str, texts: Iterable[str], most: int, least: int) -> Column:
    return Column(title, _longest(texts, most, least), names=True)


def problems(model: Model, frame: Frame) -> list[Text]:
    """Draw what is wrong, the first to start first, and then what was and has ended, the last to end first."""
    lasts, ended = ("!", "-") if frame.plain else ("●", "○")
    told = [
        (f"{lasts} for {frame.age(model.since[key]):>4}  {problem.text}", "red")
        for key, problem in model.problems.items()
    ]
    told += [
        (f"{ended} ended {frame.age(event.at):>4} ago  {event.problem.text}", "dim")
        for event in reversed(model.events)
        if not event.started
    ]
    if not told:
        return [_header("PROBLEMS: none", frame.width, 0, 0)]
    body = [
        Text(fit("  " + printable(text), frame.width), style, no_wrap=True, end="")
        for text, style in told[: frame.lines - 1]
    ]
    return [_header("PROBLEMS", frame.width, len(body), len(told)), *body]


def problem_lines(model: Model) -> int:
    """Return how many lines the table of problems could fill, with its header."""
    return 1 + len(model.problems) + sum(not event.started for event in model.events)


def entries(listing: Listing, frame: Frame) -> list[Text]:
    """Draw the entries of one queue: what is checked out, what is in quarantine, and what comes next by name."""
    found = listing.entries
    by = _names("BY", (it.by for it in found), max(5, frame.width // 4), 2)
    sizes = [Column("METADATA", 9, right=True)] if frame.width >= _ROOM_FOR_SIZES else []
    age = Column("AGE", 5, right=True)
    columns = _after_names("NAME", found, frame.width, Column("STATE", 11), by, *sizes, age)

    def cells(it: Entry) -> list[Cell]:
        state, size = (it.state.value, _STATE_STYLES[it.state]), [human_size(it.size)] if sizes else []
        return [it.name, state, it.by, *size, frame.age(it.written_at)]

    return _table(frame, columns, found, cells, total=len(found) + listing.more)


_ROOM_FOR_SIZES: Final = 90
_STATE_STYLES: Final = {
    State.AVAILABLE: "",
    State.WAITING: "dim",
    State.CHECKED_OUT: "yellow",
    State.QUARANTINED: "red",
}

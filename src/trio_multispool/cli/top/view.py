"""What a person does with `top`: what is shown, which row is selected, and what each key changes. Pure.

`press` is the whole of it: a view, a key and what is known give another view and, if the key asks for more than that, a
request for the loop to fulfil.
"""

import enum
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias, final

import msgspec
from msgspec.structs import replace

from trio_multispool.looks.seen import Details, Entry, Listing
from trio_multispool.looks.state import Line, Model
from trio_multispool.model.lifecycle import State

COLUMNS: Final = ("QUEUE", "DEPTH", "IN/s", "OUT/s", "OLDEST", "HELD", "WAIT", "ASIDE")
"""Of the table of queues; key `1` sorts by the first."""


@final
class Row(msgspec.Struct, frozen=True):
    """A row that can be selected, by what it stands for: it keeps the selection wherever it is sorted to."""

    queue: str
    name: str = ""
    """The entry, if it stands for one."""
    state: State | None = None
    """That of the entry; what waits counts as available."""


@final
class Action(msgspec.Struct, frozen=True):
    """Something that changes the spool, for which a person is asked first."""

    verb: str
    """`retry` or `drop`."""
    queue: str
    name: str


@final
class View(msgspec.Struct, frozen=True):
    """What is shown, and how."""

    column: int = 0
    """By which of `COLUMNS` queues are sorted."""
    backwards: bool = False
    selected: Row | None = None
    position: int = 0
    """Where the selected row was seen last: if it goes, the one that comes to be there is selected."""
    listing: Listing | None = None
    """The queue that is looked into, shown over the overview."""
    details: Details | None = None
    """The entry that is looked into, shown over the listing."""
    scroll: int = 0
    """How many lines of the details have been scrolled away."""
    help: bool = False
    paused: bool = False
    asking: Action | None = None
    message: str = ""
    """The outcome of the last request, until the next key."""


class Ask(enum.Enum):
    """What a key asks of the loop, if it names no row and no action."""

    QUIT = "quit"
    LOOK = "look without waiting"


Request: TypeAlias = Ask | Row | Action
"""What a key asks for: of a row, that what it stands for is fetched, to be looked into."""


def sorted_lines(lines: Sequence[Line], view: View) -> list[Line]:
    """Return the queues in the order of the view; those without a figure stand last either way."""
    by_name = sorted(lines, key=lambda line: line.seen.queue)
    figure = _FIGURES[view.column]
    if figure is None:
        return by_name[::-1] if view.backwards else by_name
    ranked = [(found, line) for line in by_name if (found := figure(line)) is not None]
    ranked.sort(key=lambda pair: pair[0], reverse=not view.backwards)
    return [line for _, line in ranked] + [line for line in by_name if figure(line) is None]


_FIGURES: Final[tuple[Callable[[Line], float | None] | None, ...]] = (
    None,
    lambda line: line.seen.available,
    lambda line: None if line.rates is None else line.rates[0],
    lambda line: None if line.rates is None else line.rates[1],
    lambda line: None if line.seen.oldest_at is None else -line.seen.oldest_at,
    lambda line: line.seen.held,
    lambda line: line.seen.waiting,
    lambda line: line.seen.aside,
)
"""What each of `COLUMNS` is sorted by, the largest first; the first by name, as it is written."""


def row_of(seen: Line | Entry) -> Row:
    """Return the row that stands for a queue or an entry."""
    if isinstance(seen, Entry):
        return Row(seen.queue, seen.name, State.AVAILABLE if seen.state is State.WAITING else seen.state)
    return Row(seen.seen.queue)


def rows(model: Model, view: View) -> list[Row]:
    """Return what can be selected in what is shown, in its order: the overview, or the queue that is looked into."""
    if view.listing is not None:
        return [row_of(entry) for entry in view.listing.entries]
    if model.look is None:
        return []
    queues = sorted_lines(list(model.lines.values()), view)
    return [*map(row_of, queues), *map(row_of, model.look.held + model.look.aside)]


def settle(model: Model, view: View) -> View:
    """Return the view with a row selected that is there, if any is: what was selected may have gone."""
    found = rows(model, view)
    if not found:
        return replace(view, selected=None, position=0)
    if view.selected in found:
        return replace(view, position=found.index(view.selected))
    position = max(0, min(view.position, len(found) - 1))
    return replace(view, selected=found[position], position=position)


def press(model: Model, view: View, key: str, page: int = 10) -> tuple[View, Request | None]:
    """Return what becomes of the view when a key is pressed, and what else is to be done."""
    view = replace(view, message="")
    if view.asking is not None:
        answered = replace(view, asking=None)
        if key == "y":
            return answered, view.asking
        return replace(answered, message="nothing was changed"), None
    if key == "q":
        return view, Ask.QUIT
    if view.help:
        return replace(view, help=False), None
    if key in {"h", "?"}:
        return replace(view, help=True), None
    if key in {"p", "space"}:
        return replace(view, paused=not view.paused), Ask.LOOK if view.paused else None
    if key == "l":
        return view, Ask.LOOK
    if view.details is not None:
        return _press_in_details(view, view.details, key, page)
    return _press_in_rows(model, view, key, page)


def _press_in_details(view: View, details: Details, key: str, page: int) -> tuple[View, Request | None]:
    if key in _BACK:
        return replace(view, details=None, scroll=0), None
    if key in _ACTIONS:
        return _ask(view, _ACTIONS[key], Row(details.queue, details.name, details.state)), None
    scroll = view.scroll + _moves(page).get(key, 0)
    return replace(view, scroll=max(0, scroll)), None


def _press_in_rows(model: Model, view: View, key: str, page: int) -> tuple[View, Request | None]:
    found = rows(model, view)
    if key in _BACK and view.listing is not None:
        return settle(model, replace(view, listing=None, selected=Row(view.listing.queue))), None
    if (by := _moves(page).get(key)) is not None and found:
        position = max(0, min(view.position + by, len(found) - 1))
        return replace(view, selected=found[position], position=position), None
    if key in {"tab", "backtab"}:
        return _to_next_kind(view, found, forwards=key == "tab"), None
    if key in {"enter", "right"} and view.selected is not None:
        return view, view.selected
    if key in _ACTIONS:
        return _ask(view, _ACTIONS[key], view.selected), None
    if view.listing is None:
        return settle(model, _sort(view, key)), None
    return view, None


_BACK: Final = frozenset({"esc", "left", "backspace"})
_ACTIONS: Final = {"r": "retry", "d": "drop"}
_ONLY_QUARANTINED: Final = "only entries in quarantine can be retried or dropped here; for others there are mv and rm"
_FAR: Final = 1 << 30


def _moves(page: int) -> dict[str, int]:
    up = {"up": -1, "k": -1, "pageup": -page, "home": -_FAR, "g": -_FAR}
    return up | {"down": 1, "j": 1, "pagedown": page, "end": _FAR, "G": _FAR}


def _ask(view: View, verb: str, row: Row | None) -> View:
    if row is None or row.state is not State.QUARANTINED:
        return replace(view, message=_ONLY_QUARANTINED)
    return replace(view, asking=Action(verb, row.queue, row.name))


def _to_next_kind(view: View, found: list[Row], *, forwards: bool) -> View:
    """Select the first row of the next table, or of the one before."""
    if view.selected is None or not found:
        return view
    states = list(dict.fromkeys(row.state for row in found))
    state = states[(states.index(view.selected.state) + (1 if forwards else -1)) % len(states)]
    position = next(place for place, row in enumerate(found) if row.state is state)
    return replace(view, selected=found[position], position=position)


def _sort(view: View, key: str) -> View:
    if key in {"s", ">", "<"}:
        step = -1 if key == "<" else 1
        return replace(view, column=(view.column + step) % len(COLUMNS), backwards=False)
    if key == "S":
        return replace(view, backwards=not view.backwards)
    if key.isdecimal() and 0 < int(key) <= len(COLUMNS):
        column = int(key) - 1
        return replace(view, column=column, backwards=column == view.column and not view.backwards)
    return view

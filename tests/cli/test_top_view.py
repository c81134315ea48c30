"""What keys do in `top`, as tables: sorting, selecting, looking into things, and asking before anything is changed."""

from __future__ import annotations

import msgspec
import pytest

from trio_multispool.cli.top.screen import keys_of
from trio_multispool.cli.top.view import (
    COLUMNS,
    Action,
    Ask,
    Row,
    View,
    press,
    rows,
    settle,
)
from trio_multispool.looks.seen import Details, Entry, Listing, Look, QueueLook, Sample
from trio_multispool.looks.state import Model, advance
from trio_multispool.model.lifecycle import State


def queue(name, names="", oldest=None, aside=0, waiting=0):
    """Return a queue that is seen with these available entries."""
    return QueueLook(name, len(names), 0, aside, Sample(0, frozenset(names)), oldest, waiting=waiting)


def look(instant, *queues, **more):
    """Return a look."""
    return Look(at=100.0 + instant, instant=instant, took=0.0, queues=queues, **more)


HELD = (
    Entry("b", "one", State.CHECKED_OUT, 50.0, by="python[7]", owner=7),
    Entry("c", "two", State.CHECKED_OUT, 60.0, by="unknown"),
)
ASIDE = (Entry("b", "bad", State.QUARANTINED, 70.0),)
FIRST = look(0, queue("a", "123", 10.0), queue("b", "12345", 5.0), queue("c"))
SECOND = look(
    1, queue("a", "1234", 10.0), queue("b", "45", 5.0, aside=1), queue("c", waiting=2), held=HELD, aside=ASIDE
)
MODEL = advance(advance(Model(), FIRST), SECOND)
QUEUES = [Row(name) for name in "abc"]
HELD_ROWS = [Row("b", "one", State.CHECKED_OUT), Row("c", "two", State.CHECKED_OUT)]
OTHERS = [*HELD_ROWS, Row("b", "bad", State.QUARANTINED)]


def pressed(*keys, view=None, model=MODEL):
    """Return the view after these keys, and what the last asked for."""
    view, request = settle(model, View() if view is None else view), None
    for key in keys:
        view, request = press(model, view, key, page=3)
    return view, request


@pytest.mark.parametrize(
    ("keys", "order"),
    [
        ("", "abc"),
        ("1", "cba"),
        ("11", "abc"),
        ("2", "abc"),
        ("22", "cba"),
        ("3", "abc"),
        ("4", "bac"),
        ("5", "bac"),
        ("55", "abc"),  # the oldest last, and what has no oldest entry after it
        ("7", "cab"),
        ("8", "bac"),
        ("s", "abc"),
        ("sss", "bac"),
        ("S", "cba"),
        (">>>S", "acb"),
        ("<", "bac"),
        ("s" * len(COLUMNS), "abc"),
        ("9", "abc"),
        ("0", "abc"),
        ("²", "abc"),
    ],
)
def test_queues_are_sorted_by_the_column_that_is_asked_for(keys, order):
    """Figures begin with the largest, names with the first; equals are in the order of their names."""
    view, _ = pressed(*keys)
    assert "".join(row.queue for row in rows(MODEL, view) if row.state is None) == order


@pytest.mark.parametrize(
    ("keys", "selected"),
    [
        ([], QUEUES[0]),
        (["down"], QUEUES[1]),
        (["j", "j", "k"], QUEUES[1]),
        (["up"], QUEUES[0]),
        (["pagedown"], OTHERS[0]),
        (["end"], OTHERS[2]),
        (["G", "down"], OTHERS[2]),
        (["G", "pageup"], QUEUES[2]),
        (["G", "home"], QUEUES[0]),
        (["tab"], OTHERS[0]),
        (["tab", "tab"], OTHERS[2]),
        (["tab", "tab", "tab"], QUEUES[0]),
        (["backtab"], OTHERS[2]),
        (["1"], QUEUES[0]),  # it is the last now, and still selected
        (["esc"], QUEUES[0]),
        (["unknown"], QUEUES[0]),
    ],
)
def test_keys_move_the_selection_over_all_tables(keys, selected):
    """One selection walks over queues, check-outs and quarantine, and never leaves them."""
    view, request = pressed(*keys)
    assert (view.selected, request) == (selected, None)
    assert rows(MODEL, view)[view.position] == selected


def test_a_selection_whose_row_goes_passes_to_the_one_that_takes_its_place():
    """Whatever comes and goes, a row that is there is selected, if there is any."""
    view, _ = pressed("tab", "down")
    assert view.selected == OTHERS[1]
    later = advance(MODEL, look(2, *SECOND.queues, held=HELD[:1], aside=ASIDE))
    assert settle(later, view).selected == OTHERS[2]
    assert settle(advance(MODEL, look(2, queue("z"))), view).selected == Row("z")
    nothing = settle(advance(MODEL, look(2)), view)
    assert (nothing.selected, nothing.position) == (None, 0)
    for key in ("down", "tab", "enter", "r", "pageup", "5"):
        assert press(advance(MODEL, look(2)), nothing, key)[1] is None
        assert press(Model(), View(), key)[1] is None


@pytest.mark.parametrize(
    ("keys", "request_"),
    [
        (["enter"], QUEUES[0]),
        (["down", "right"], QUEUES[1]),
        (["tab", "enter"], OTHERS[0]),
        (["backtab", "enter"], OTHERS[2]),
        (["l"], Ask.LOOK),
        (["q"], Ask.QUIT),
        (["h", "q"], Ask.QUIT),
        (["p"], None),
        (["p", "p"], Ask.LOOK),
        (["p", "l"], Ask.LOOK),
    ],
)
def test_keys_ask_the_loop_for_what_is_not_the_views(keys, request_):
    """Looking, opening and ending are requests."""
    assert pressed(*keys)[1] == request_


LISTING = Listing(
    "b",
    (
        Entry("b", "one", State.CHECKED_OUT, 50.0, 50.0, 1, "python[7]"),
        Entry("b", "bad", State.QUARANTINED, 70.0, 70.0, 1),
        Entry("b", "next", State.AVAILABLE, 80.0, 80.0, 1),
    ),
    more=2,
)
BAD = Details("b", "bad", State.QUARANTINED, (("name", "bad"),), "{}")


def test_in_a_listing_its_entries_are_selected_and_escape_goes_back_to_the_queue():
    """Each level is left to where it was entered."""
    opened = View(listing=LISTING)
    assert pressed("down", "down", "enter", view=opened)[1] == Row("b", "next", State.AVAILABLE)
    assert pressed("tab", "enter", view=opened)[1] == OTHERS[2]
    view, _ = pressed("tab", "esc", view=opened)
    assert (view.listing, view.selected) == (None, QUEUES[1])
    assert pressed("2", view=opened)[0].column == 0


def test_details_scroll_and_escape_closes_them_first():
    """The listing below is as it was."""
    opened = View(listing=LISTING, details=BAD)
    view, _ = pressed("down", "down", "pagedown", "up", view=opened)
    assert (view.scroll, view.listing) == (4, LISTING)
    assert pressed("home", view=view)[0].scroll == 0
    view, _ = pressed("left", view=view)
    assert (view.details, view.scroll, view.listing) == (None, 0, LISTING)


@pytest.mark.parametrize(("key", "verb"), [("r", "retry"), ("d", "drop")])
@pytest.mark.parametrize(
    ("start", "keys"), [(View(), ["backtab"]), (View(listing=LISTING), ["down"]), (View(details=BAD), [])]
)
def test_what_is_in_quarantine_is_retried_or_dropped_only_after_a_yes(key, verb, start, keys):
    """`y` is a yes; any other key, also one that means something else, is a no, and the next key is an ordinary one."""
    asking, request = pressed(*keys, key, view=start)
    assert (asking.asking, request) == (Action(verb, "b", "bad"), None)
    view, request = press(MODEL, asking, "y")
    assert (view.asking, request) == (None, Action(verb, "b", "bad"))
    for no in ("n", "enter", "q", "Y", "r", "d", "esc"):
        view, request = press(MODEL, asking, no)
        assert (view.asking, request, view.message) == (None, None, "nothing was changed")
        assert press(MODEL, view, "unknown")[0].message == ""


@pytest.mark.parametrize("key", ["r", "d"])
@pytest.mark.parametrize(
    ("start", "keys"),
    [
        (View(), []),
        (View(), ["tab"]),
        (View(listing=LISTING), []),
        (View(listing=LISTING), ["end"]),
        (View(details=msgspec.structs.replace(BAD, state=State.AVAILABLE)), []),
    ],
)
def test_nothing_else_can_be_retried_or_dropped(key, start, keys):
    """Queues, and entries that are available or checked out, are not touched from here."""
    view, request = pressed(*keys, key, view=start)
    assert (view.asking, request) == (None, None)
    assert "only entries in quarantine" in view.message


def test_help_closes_with_any_key():
    """And that key does nothing else."""
    view, _ = pressed("h")
    assert view.help
    view, request = pressed("h", "enter")
    assert (view.help, request, view.selected) == (False, None, QUEUES[0])


@pytest.mark.parametrize(
    ("typed", "keys"),
    [
        ("", []),
        ("qS", ["q", "S"]),
        ("\r\n\t \x7f\x08\x0c\x04", ["enter", "enter", "tab", "space", "backspace", "backspace", "redraw", "q"]),
        ("\x1b", ["esc"]),
        ("\x1b\x1b", ["esc", "esc"]),
        ("\x1b[A\x1b[B\x1bOC\x1b[D", ["up", "down", "right", "left"]),
        ("\x1b[5~\x1b[6~\x1b[Z", ["pageup", "pagedown", "backtab"]),
        ("\x1b[1;5Aj", ["unknown", "j"]),
        ("\x1b[200~", ["unknown"]),
        ("\x1b[", ["unknown"]),
        ("\x1bOPj", ["unknown", "j"]),
        ("\x1bO", ["esc", "O"]),
        ("ä\x1bx", ["ä", "esc", "x"]),
    ],
)
def test_keys_have_names(typed, keys):
    """What a terminal sends for a key is told apart from what is typed, and what is not known does nothing."""
    assert keys_of(typed) == keys

"""The picture of `top` as a function of what is known and the screen's size: it always fits, and says what it must."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from rich.cells import cell_len

from trio_multispool.cli.top.render import HELP, Scene, picture
from trio_multispool.cli.top.text import count, few, fit, fit_end, fit_name, fold, rate, share, sparkline, window
from trio_multispool.cli.top.view import Action, View, settle
from trio_multispool.looks.seen import Details, Entry, Listing, Look, QueueLook, Sample
from trio_multispool.looks.state import Line, Model, advance
from trio_multispool.model.lifecycle import State

NOW = 1_795_417_479.0
NAME = "20261123T065439.923587437Z-8f31c2aa"


def look(instant, *, grown=0):
    """Return a look at a mail server's spool."""
    names = frozenset(f"n{number}" for number in range(14 + grown))
    return Look(
        at=NOW - 2 + instant,
        instant=instant,
        took=0.004,
        queues=(
            QueueLook("failed", 1, oldest_at=NOW - 200_000, sample=Sample(0, frozenset("f"))),
            QueueLook("retry", waiting=1_234),
            QueueLook("send", 14 + grown, 2, 1, Sample(0, names), NOW - 180),
        ),
        held=(
            Entry("send", NAME, State.CHECKED_OUT, NOW - 37, by="mailer[2880]", owner=2880),
            Entry("send", NAME.replace("8f", "9f"), State.CHECKED_OUT, NOW - 3, by="unknown"),
        ),
        aside=(Entry("send", "broken", State.QUARANTINED, NOW - 7200),),
    )


MODEL = advance(advance(advance(Model(), look(0)), look(1, grown=3)), look(2, grown=2))
SCENE = Scene("/var/spool/mail", MODEL, settle(MODEL, View(column=1)), NOW, 1.0, 0.996)


def text(scene, width=80, height=24):
    """Return the picture as text."""
    return [line.plain.rstrip() for line in picture(scene, width, height)]


def test_a_picture_of_80_by_24():
    """Everything that matters is on the smallest usual screen, in full."""
    assert text(SCENE) == [
        " multispool top  /var/spool/mail                                   07:04:39 UTC",
        "  17 available, 2 checked out, 1,234 waiting        a look every 1s, taking 4 ms",
        "  QUEUE        ▼DEPTH    IN/s   OUT/s   OLDEST   HELD   WAIT   ASIDE  LATELY",
        "> send             16     1.5     0.5       3m      2      -       1         ▆█▇",
        "  failed            1       0       0       2d      -      -       -         ███",
        "  retry             0       0       0        -      -  1,234       -         ▁▁▁",
        "",
        "  CHECKED OUT                          QUEUE  BY              FOR",
        "  20261123T065439.923587437Z-8f31c2aa  send   mailer[2880]    37s",
        "  20261123T065439.923587437Z-9f31c2aa  send   unknown          3s",
        "",
        "  IN QUARANTINE  QUEUE    FOR",
        "  broken         send      2h",
        "",
        "  PROBLEMS",
        "  ● for   1s  send: 1 entry is set aside in quarantine",
        "  ● for   1s  send/20261123T065439.923587437Z-9f31c2aa: no living owner",
        "",
        "",
        "",
        "",
        "",
        "",
        " ↑↓ tab move  enter look into  s 1-8 sort  r retry  d drop  h help  q quit",
    ]


def test_a_wide_screen_shows_more_of_the_sparkline_and_nothing_twice():
    """Names and sparklines have the room that there is."""
    deep = msgspec.structs.replace(MODEL.lines["send"], depths=tuple(range(200)))
    model = msgspec.structs.replace(MODEL, lines=MODEL.lines | {"send": deep})
    scene = msgspec.structs.replace(SCENE, model=model)
    narrow, wide = (text(scene, width)[3] for width in (80, 200))
    assert narrow.endswith("▇█")
    assert sum(character in "▁▂▃▄▅▆▇█" for character in wide) == 90
    assert "no living owner" in text(scene, 200)[16]


@pytest.mark.parametrize(
    ("width", "header"),
    [
        (50, "  QUEUE        ▼DEPTH    IN/s   OUT/s   OLDEST"),
        (60, "  QUEUE        ▼DEPTH    IN/s   OUT/s   OLDEST   HELD   WAIT"),
        (68, "  QUEUE        ▼DEPTH    IN/s   OUT/s   OLDEST   HELD   WAIT   ASIDE"),
        (80, "  QUEUE        ▼DEPTH    IN/s   OUT/s   OLDEST   HELD   WAIT   ASIDE  LATELY"),
        (120, "  QUEUE        ▼DEPTH    IN/s   OUT/s   OLDEST   HELD   WAIT   ASIDE  DEPTH LATELY"),
    ],
)
def test_the_columns_are_those_for_which_there_is_room(width, header):
    """A narrower screen has fewer, from the left; none is cut."""
    assert text(SCENE, width)[2] == header


def test_without_room_for_a_sparkline_the_names_have_it():
    """At 80 columns, a name of up to 20 cells is whole."""
    name = "a-name-of-twenty-too"
    model = advance(Model(), Look(NOW, 0.0, 0.0, queues=(QueueLook(name, 3),)))
    shown = text(Scene("/s", model, View(), NOW, 1.0))
    assert shown[3].startswith(f"  {name} ")
    assert shown[2].endswith("ASIDE")


LISTING = Listing(
    "send",
    (
        Entry("send", NAME, State.CHECKED_OUT, NOW - 37, NOW - 37, 43, "mailer[2880]"),
        Entry("send", "broken", State.QUARANTINED, NOW - 7200, NOW - 7200, 7),
        *(
            Entry("send", NAME.replace("8f", f"{number:02}"), State.AVAILABLE, NOW - 9, NOW - 9, 43)
            for number in range(40)
        ),
    ),
    more=12_345,
)
DETAILS = Details(
    "send",
    NAME,
    State.QUARANTINED,
    (("name", NAME), ("path", "/var/spool/mail/.data/" + NAME), ("reason", "JSON is malformed")),
    "{\n" + "".join(f'  "key{number}": "{"x" * 100}",\n' for number in range(40)) + "}",
)
VIEWS = {
    "overview": View(),
    "listing": View(listing=LISTING),
    "details": View(listing=LISTING, details=DETAILS, scroll=3),
    "help": View(help=True),
    "asking": View(asking=Action("drop", "send", NAME)),
    "message": View(message="back in send\x1b[31m"),
    "paused": View(paused=True, column=6),
}
ODD = advance(
    Model(),
    Look(
        at=NOW - 1,
        instant=0,
        took=3.0,
        adopted=False,
        queues=tuple(
            QueueLook(name, depth, 3000, 20_000, Sample(4), NOW + 5, oldest_of_all=False)
            for name, depth in [("zwölf \x1b[2J", 10**6), ("漢字" * 40, 10**9), ("a" * 200, 0), ("\u202egnp", 7)]
        ),
        held=tuple(
            Entry("漢字", f"{number}-" + "漢" * 60, State.CHECKED_OUT, NOW + 9, by="p\x07[1]", owner=1)
            for number in range(70)
        ),
        aside=tuple(Entry("a" * 200, f"{number}\x1b", State.QUARANTINED, 0.0) for number in range(70)),
        troubles=(("send\x1b", "Permission denied"),),
    ),
)
MODELS = {"none": Model(), "usual": MODEL, "odd": ODD, "empty": advance(Model(), Look(NOW, 0.0, 0.0))}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("view", VIEWS)
def test_a_picture_has_the_screens_size_whatever_it_is_and_nothing_that_a_terminal_obeys(model, view):
    """Each line has exactly as many cells as the screen, from one to 200, and only printable characters."""
    known = MODELS[model]
    scene = Scene("/var/spool/mail\x1b[2J", known, settle(known, VIEWS[view]), NOW, 1.0, 27.0)
    for width, height in itertools.product((1, 7, 19, 20, 33, 40, 53, 80, 100, 200), (1, 5, 6, 8, 12, 24, 70)):
        for variant in ({}, {"reading": 123_456}, {"trouble": "it has gone\x07" * 9, "plain": True}):
            lines = picture(msgspec.structs.replace(scene, **variant), width, height)
            assert [cell_len(line.plain) for line in lines] == [width] * height
            assert all(line.plain.isprintable() for line in lines)


def test_the_selected_row_is_marked_without_colour_and_always_among_those_shown():
    """However many rows there are and however few lines."""
    for height, position in itertools.product((8, 12, 24), range(0, 42, 3)):
        entry = LISTING.entries[position]
        view = settle(MODEL, View(listing=LISTING, position=position))
        (marked,) = [line for line in text(msgspec.structs.replace(SCENE, view=view), 80, height) if line[:1] == ">"]
        assert entry.name in marked


def test_tables_that_are_cut_off_say_so():
    """Nobody takes what is shown for all there is."""
    shown = "\n".join(text(Scene("/s", ODD, View(), NOW, 1.0)))
    assert "5 of 12,000\n" in shown
    assert "4 of 80,000\n" in shown
    scene = msgspec.structs.replace(SCENE, view=settle(MODEL, View(listing=LISTING)))
    assert text(scene)[2].endswith("20 of 12,387")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"pause": 0.996}, "a look every 1s, taking 4 ms"),
        ({"pause": 36.0}, "a look takes 4 ms, so one every 36s"),
        ({"reading": 340_000}, "looking: 340,000 names so far"),
        ({"view": View(paused=True)}, "PAUSED, as of 0s ago"),
        ({"view": View(paused=True), "now": NOW + 90}, "PAUSED, as of 1m ago"),
        ({"trouble": "the spool has gone"}, "cannot look: the spool has gone"),
        ({"model": Model()}, ""),
    ],
)
def test_it_says_how_the_looking_goes(changed, told):
    """A person sees how old the picture is, and why."""
    line = text(msgspec.structs.replace(SCENE, **changed))[1]
    assert line.endswith(told) if told else not line


def test_problems_that_have_ended_stay_for_a_while_below_those_that_go_on():
    """What was wrong a minute ago is still to be read."""
    model = advance(MODEL, Look(at=NOW + 60, instant=62, took=0.0, held=MODEL.look.held[1:]))
    scene = msgspec.structs.replace(SCENE, model=model, view=View(), now=NOW + 61)
    shown = text(scene)
    place = shown.index("  PROBLEMS")
    assert shown[place + 1] == f"  ● for   1m  send/{NAME.replace('8f', '9f')}: no living owner"
    assert shown[place + 2] == "  ○ ended   1s ago  send: 1 entry is set aside in quarantine"


def test_a_spool_that_is_not_adopted_is_called_so():
    """There, nothing comes back from dead processes."""
    assert text(Scene("/s", ODD, View(), NOW, 1.0))[1].startswith("  NOT ADOPTED, 1001M available")


def test_estimates_are_marked():
    """A tilde before what was not counted."""
    line = Line(QueueLook("big", 10**6, sample=Sample(4), oldest_at=NOW - 60, oldest_of_all=False))
    model = advance(Model(lines={"big": line}, look=Look(NOW - 3, -2.0, 0.0, queues=(line.seen,))), ODD.look)
    model = msgspec.structs.replace(model, look=Look(NOW, 0.0, 0.0), lines={"big": line})
    assert "~1m" in text(Scene("/s", model, View(), NOW, 1.0))[3]
    assert rate(12.3, estimated=True) == "~12"


def test_help_fits_on_the_smallest_usual_screen():
    """Nothing of it is cut off."""
    assert len(HELP) <= 21
    assert max(map(cell_len, HELP)) <= 78
    assert all(line.strip() in "\n".join(text(msgspec.structs.replace(SCENE, view=View(help=True)))) for line in HELP)


def test_a_question_shows_what_it_is_about():
    """The verb, the entry, its queue, and what is a yes."""
    scene = msgspec.structs.replace(SCENE, view=View(asking=Action("drop", "send", NAME)))
    assert text(scene)[-1] == " drop 20261123T065439.923587437Z-8f31c2aa of send?  y: yes, any other key: no"


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (fit("abc", 5), "abc  "),
        (fit("abc", 5, right=True), "  abc"),
        (fit("abcdef", 4), "abc…"),
        (fit("漢字", 3), "漢…"),
        (fit("漢字", 2), " …"),
        (fit("a", 0), ""),
        (fit_name("abcdefghijklmnop", 11), "abcde…lmnop"),
        (fit_name("a\x1b", 80), "a\\x1b"),
        (fit_end("/var/spool/mail", 8), "…ol/mail"),
        (count(9_999_999), "9,999,999"),
        (count(12_345_678), "12M"),
        (few(9_999), "9,999"),
        (few(20_400), "20k"),
        (few(12_345_678), "12M"),
        (rate(None), "-"),
        (rate(0.0), "0"),
        (rate(0.25), "0.2"),
        (rate(9999.4), "9999"),
        (rate(123_456.0), "123k"),
        (sparkline((0, 1, 4, 8), 6), "  ▁▂▅█"),
        (sparkline((0, 0), 3), " ▁▁"),
        (sparkline((1, 2, 3), 2), "▆█"),
        (sparkline((), 2), "  "),
        (sparkline((0, 8), 2, plain=True), "_#"),
        (share(7, [3, 0, 9]), [3, 0, 4]),
        (share(0, [3]), [0]),
        (share(99, [3, 1]), [3, 1]),
        (window(10, 4, None), range(4)),
        (window(10, 4, 9), range(6, 10)),
        (window(3, 9, 2), range(3)),
        (fold("漢字abc", 3), ["漢", "字a", "bc"]),
    ],
)
def test_text_fits(made, expected):
    """Columns line up whatever is in them."""
    assert made == expected


def test_how_far_an_owner_is_stands_beside_it_if_there_is_room():
    """The percentage first, and the words as far as they fit."""
    working = msgspec.structs.replace(MODEL.look.held[0], progress="40 %, converting the attachments")
    model = msgspec.structs.replace(MODEL, look=msgspec.structs.replace(MODEL.look, held=(working,)))
    scene = msgspec.structs.replace(SCENE, model=model, view=View())
    assert text(scene)[8].endswith("37s  40 %, conver…")
    assert "FOR  PROGRESS" in text(scene, 120)[7]
    assert text(scene, 120)[8].endswith("37s  40 %, converting the attachments")
    assert text(scene, 70)[8].endswith("37s")

"""Turn what is known, what is wanted and the size of the screen into the lines that `top` shows. Pure."""

import datetime
from typing import Final, final

import msgspec
from rich.cells import cell_len
from rich.text import Text

from trio_multispool.cli.output import printable
from trio_multispool.cli.top import tables
from trio_multispool.cli.top.text import count, duration, fit, fit_end, fit_name, fold, share
from trio_multispool.cli.top.view import View
from trio_multispool.looks.ages import human_age
from trio_multispool.looks.seen import Details, Look
from trio_multispool.looks.state import Model
from trio_multispool.model.lifecycle import State

_TITLE: Final = "bold reverse"
_FRAME: Final = 3
"""Lines that are always there: the title, the state of looking, and the keys."""

_LEAST_PATH: Final = 12
"""At least this many cells of the spool's path are shown."""

_NOTEWORTHY: Final = 2
"""If looks are rarer than wanted by this factor, the picture says so."""

_SMALLEST: Final = (20, 6)
"""The fewest columns and lines that can show anything."""


@final
class Scene(msgspec.Struct, frozen=True):
    """All that a picture depends on but the size of the screen."""

    path: str
    model: Model
    view: View
    now: float
    every: float
    """How often a person wants a look, in seconds."""
    pause: float = 0.0
    """How long the loop waits after the last look, because it took long or because it was asked to."""
    reading: int | None = None
    """How many names have been read by a look that has been under way for a while."""
    trouble: str = ""
    """Why the last look failed."""
    plain: bool = False
    """Whether the terminal shows ASCII only."""


def picture(scene: Scene, width: int, height: int) -> list[Text]:
    """Return `height` lines, each `width` cells wide."""
    if width < _SMALLEST[0] or height < _SMALLEST[1]:
        lines = [Text(fit("window too small", width))]
    else:
        room = height - _FRAME
        body = _body(scene, room, width)[:room]
        body += [_blank(width)] * (room - len(body))
        lines = [_title(scene, width), _state(scene, width), *body, _foot(scene, width)]
    return (lines + [_blank(width)] * height)[:height]


def page(height: int) -> int:
    """Return how many rows the keys for whole pages move."""
    return max(1, height - _FRAME - 2)


def _blank(width: int) -> Text:
    return Text(" " * width)


def _title(scene: Scene, width: int) -> Text:
    moment = datetime.datetime.fromtimestamp(scene.now, datetime.UTC)
    right = f" {moment:%H:%M:%S} UTC "
    if width < len(right) * 3:
        right = ""
    inside = [] if scene.view.listing is None else [scene.view.listing.queue]
    if scene.view.details is not None:
        inside.append(scene.view.details.name)
    into = "".join(f"  →  {printable(step)}" for step in inside)
    head = " multispool top  "
    where = fit_end(printable(scene.path), max(_LEAST_PATH, width - len(right) - cell_len(head + into)))
    return Text(fit(head + where + into, width - len(right)) + right, _TITLE, no_wrap=True, end="")


def _state(scene: Scene, width: int) -> Text:
    """Say what there is in all, and how the looking goes: the second gives way to nothing."""
    looking, style = _looking(scene)
    room = width - cell_len(looking) - 2
    totals = fit(f"  {_totals(scene.model)}", room) if room > 0 else ""
    line = Text(totals, no_wrap=True, end="")
    _ = line.append(fit(looking, width - cell_len(totals), right=bool(totals)), style)
    return line


def _totals(model: Model) -> str:
    seen = [line.seen for line in model.lines.values()]
    if not seen:
        return "no queues" if model.look is not None else ""
    told = f"{count(sum(it.available for it in seen))} available, {count(sum(it.held for it in seen))} checked out"
    if waiting := sum(it.waiting for it in seen):
        told += f", {count(waiting)} waiting"
    return told if model.look is None or model.look.adopted else f"NOT ADOPTED, {told}"


def _looking(scene: Scene) -> tuple[str, str]:
    look, view = scene.model.look, scene.view
    if scene.reading is not None:
        return f"looking: {scene.reading:,} names so far", "yellow"
    if view.paused:
        ago = "" if look is None else f", as of {human_age(scene.now - look.at)} ago"
        return f"PAUSED{ago}", "bold yellow"
    if scene.trouble:
        return f"cannot look: {printable(scene.trouble)}", "bold red"
    if look is None:
        return "", ""
    interval = look.took + scene.pause
    if interval > scene.every * _NOTEWORTHY:
        return f"a look takes {duration(look.took)}, so one every {duration(interval)}", "yellow"
    return f"a look every {duration(interval)}, taking {duration(look.took)}", "dim"


def _foot(scene: Scene, width: int) -> Text:
    view = scene.view
    if view.asking is not None:
        ask, of, answer = view.asking, f" of {printable(view.asking.queue)}", "  y: yes, any other key: no"
        name = fit_name(ask.name, max(_LEAST_PATH, width - cell_len(f" {ask.verb} {of}?{answer}")))
        return Text(fit(f" {ask.verb} {name}{of}?{answer}", width), "bold reverse yellow")
    if view.message:
        return Text(fit(f" {printable(view.message)}", width), "reverse yellow")
    return Text(fit(f" {_hints(view)}", width), "reverse")


def _hints(view: View) -> str:
    if view.help:
        return "any key back  q quit"
    if view.details is not None:
        again = "r retry  d drop  " if view.details.state is State.QUARANTINED else ""
        return f"esc back  ↑↓ scroll  {again}p pause  h help  q quit"
    if view.listing is not None:
        return "esc back  ↑↓ move  enter look into  r retry  d drop  p pause  h help  q quit"
    return "↑↓ tab move  enter look into  s 1-8 sort  r retry  d drop  h help  q quit"


def _body(scene: Scene, room: int, width: int) -> list[Text]:
    view = scene.view
    if view.help:
        return [Text(fit(f"  {line}", width)) for line in HELP]
    if view.details is not None:
        return _details(view.details, view.scroll, room, width)
    if view.listing is not None:
        return tables.entries(view.listing, tables.Frame(view, scene.now, room, width))
    if scene.model.look is None:
        return [_blank(width), Text(fit("  looking for the first time", width))]
    return _overview(scene, scene.model.look, room, width)


def _overview(scene: Scene, look: Look, room: int, width: int) -> list[Text]:
    """Put the tables below each other, with a free line between two if there is room for that."""
    model = scene.model
    wants = [
        1 + len(model.lines),
        1 + len(look.held),
        1 + len(look.aside) if look.aside else 0,
        max(2, tables.problem_lines(model)),
    ]
    gaps = sum(want > 0 for want in wants) - 1
    body: list[Text] = []
    drawers = (tables.queues, tables.held, tables.aside, tables.problems)
    for draw, lines in zip(drawers, share(room - gaps, wants), strict=True):
        table = draw(model, tables.Frame(scene.view, scene.now, lines, width, scene.plain)) if lines else []
        body += [_blank(width), *table] if body and table else table
    return body


def _details(details: Details, scroll: int, room: int, width: int) -> list[Text]:
    lines: list[Text] = []
    for label, told in details.facts:
        style = "bold red" if label == "reason" else ""
        for number, piece in enumerate(fold(printable(told), max(1, width - 14))):
            line = Text(f"  {'' if number else label:<10}", tables.HEADER, no_wrap=True, end="")
            _ = line.append(fit(piece, width - 12), style)
            lines.append(line)
    lines.append(_blank(width))
    for text in details.metadata.expandtabs(4).splitlines():
        lines += [Text(fit(f"  {piece}", width)) for piece in fold(text, max(1, width - 4))]
    return lines[min(scroll, max(0, len(lines) - room)) :]


HELP: Final = (
    "",
    "↑ ↓ k j page home end   move               enter →   look into it",
    "tab shift-tab           next, last table   esc ←     back",
    "s S                     sort by the next column; the other way round",
    "1 to 8                  sort by that column; again: the other way round",
    "r d                     retry or drop an entry in quarantine; asks first",
    "l                       look now           p space   pause, go on",
    "h ?                     help               q ctrl-c  quit",
    "",
    "DEPTH   entries available               HELD   entries checked out",
    "IN OUT  entries that appeared and went, a second, of the last ten; those that",
    "        did both between two looks are not seen; ~ estimated from a sample",
    "OLDEST  since its metadata was written; ~ of the first two hundred by name",
    "ASIDE   entries in quarantine           WAIT   entries that are not due yet",
    "BY      unknown: it died, and its entry comes back when the queue is read;",
    "        or the kernel does not show it (other containers, btrfs, overlayfs)",
    "",
    "Looking writes nothing, and only the monitor locks: what it suspects, shortly.",
    "A look that takes long is made less often: a tenth of the time at most.",
)
"""What `h` shows: it fits on 80 by 24."""

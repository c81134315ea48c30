"""What a form brings: read with a limit, and understood as a task, or refused with what is missing."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from trio_multispool.errors import SpoolError
from trio_multispool.web import pausing
from trio_multispool.web.actions import Do, Task, named
from trio_multispool.web.guard import Refused
from trio_multispool.web.letters import letters_in

if TYPE_CHECKING:
    from starlette.requests import Request

    from trio_multispool.web.pages import Asked
    from trio_multispool.web.watched import Watched

Form = dict[str, list[str]]

_LARGEST: Final = 1 << 20
"""In bytes."""


async def form_of(request: Request) -> Form:
    """Return what a form has brought; raises `Refused`."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/x-www-form-urlencoded":
        raise Refused(415, "That is not a form.")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > _LARGEST:
        raise Refused(413, "That is too much at once.")
    raw = b""
    async with contextlib.aclosing(request.stream()) as parts:
        async for part in parts:
            raw += part
            if len(raw) > _LARGEST:
                raise Refused(413, "That is too much at once.")
    found: Form = {}
    for key, value in parse_qsl(raw.decode(errors="replace"), keep_blank_values=True):
        found.setdefault(key, []).append(value)
    return found


def first(form: Form, key: str) -> str:
    """Return the value of a field, the first if there are several; empty if there is none."""
    return form.get(key, [""])[0]


async def task_of(form: Form, watched: Watched) -> Task:
    """Return what a form asks for; raises `Refused`. A button may stand for a group of dead letters."""
    what, _, group = first(form, "do").partition(" ")
    try:
        do = Do(what)
    except ValueError:
        raise Refused(400, "It was not said what to do.") from None
    length = first(form, "for")
    if length not in pausing.LENGTHS:
        raise Refused(400, "It was not said for how long.")
    names = named(form.get("queue" if do.of_queue else "name", []))
    if group:
        try:
            letters = await watched.ask("dead letters", lambda: watched.reader.with_storage(letters_in))
        except SpoolError as error:
            raise Refused(503, f"It could not be done: {error}.") from None
        names = named(name for each in letters.groups if each.key == group for name in each.names)
    if not names:
        raise Refused(400, "Nothing was chosen. Go back, choose something, and try again.")
    return Task(do, names, first(form, "to"), length, first(form, "reason"))


def back_to(form: Form, asked: Asked) -> str:
    """Return the page that the form was on; one elsewhere becomes the overview."""
    back = first(form, "back")
    leads_elsewhere = not back.startswith(f"{asked.root}/") or back[1:2] in {"/", "\\"}
    return asked.href() if leads_elsewhere else back

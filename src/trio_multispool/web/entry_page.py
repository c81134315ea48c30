"""The page of one entry: what is known of it, its attempts, and its data, as text, JSON, hexadecimal or a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from trio_multispool.errors import SpoolError
from trio_multispool.looks.ages import human_length, human_size, human_time
from trio_multispool.looks.facts import facts
from trio_multispool.looks.metadata import is_json
from trio_multispool.model.attempts import CANCELLED, failure_told
from trio_multispool.model.lifecycle import State
from trio_multispool.web import shown
from trio_multispool.web.pages import STATES, base
from trio_multispool.web.reading import when

if TYPE_CHECKING:
    from trio_multispool.model.attempts import Attempt, History
    from trio_multispool.web.pages import Asked, Context
    from trio_multispool.web.reading import Whole
    from trio_multispool.web.watched import Watched

LARGEST_DOWNLOAD: Final = 32 * 1024 * 1024
"""How much data a download has at most, in bytes."""


class Try(NamedTuple):
    """An attempt, for a person."""

    number: int
    began: str
    took: str
    where: str
    outcome: str
    again: str


async def entry(watched: Watched, asked: Asked, name: str) -> Context:
    """Show all that is known of an entry."""
    snapshot, context = await base(watched, asked, "entry")
    context |= {"title": name, "name": name, "whole": None}
    try:
        whole = await watched.ask("an entry", lambda: watched.reader.entry(name))
    except SpoolError as error:
        return context | {"trouble": snapshot.trouble or str(error)}
    if whole is None:
        raise LookupError(f"There is no entry {name!r} any more: it was worked off, or removed.")
    item = whole.item
    by = whole.by if not whole.held_for else f"{whole.by}, for {whole.held_for}"
    metadata, cut = shown.clip(shown.metadata_text(whole.metadata, asked.hidden))
    context |= {
        "whole": whole,
        "item": item,
        "state": STATES[item.place.state],
        "states": State,
        "facts": [
            (label, told)
            for label, told in facts(whole.known, whole.now, by=by)
            if label not in {"name", "queue", "state", "metadata", "progress"}
        ],
        "metadata": metadata,
        "metadata_cut": cut,
        "metadata_size": human_size(item.size),
        "queue_href": asked.href("queue", item.place.queue),
        "attempts": _attempts(whole),
        "came_to": _came_to(whole.history, item.place.queue),
        "traceback": _traceback(whole.history),
        "back_to": whole.history.queue if whole.history is not None and whole.history.given_up else "",
        **_data(asked, whole, asked.parameters.get("as", "")),
    }
    return context


def _attempts(whole: Whole) -> list[Try]:
    if whole.history is None:
        return []
    at_work = whole.item.place.state is State.CHECKED_OUT
    last = whole.history.attempts[-1]
    return [_attempt(each, under_way=at_work and each is last) for each in reversed(whole.history.attempts)]


def _attempt(attempt: Attempt, *, under_way: bool) -> Try:
    began = when(attempt.began)
    outcome = "its worker died"
    if attempt.failure is not None:
        outcome = failure_told(attempt.failure)
    elif under_way and attempt.ended is None:
        outcome = "under way"
    again = None if attempt.next_at is None else when(attempt.next_at)
    return Try(
        attempt.number,
        f"at {attempt.began}" if began is None else human_time(began),
        "" if attempt.ended is None else human_length(attempt.ended - attempt.began),
        f"{attempt.host}[{attempt.pid}], from {attempt.queue}",
        outcome,
        "" if again is None else human_time(again),
    )


def _came_to(history: History | None, queue: str) -> str:
    if history is None:
        return ""
    failure = history.attempts[-1].failure
    if not history.given_up:
        return f"{history.spent} count in {history.queue}"
    came_to = "cancelled" if failure is not None and failure.type == CANCELLED else "given up"
    return f"{came_to} before, and put back: none of them counts" if queue == history.queue else came_to


def _traceback(history: History | None) -> str:
    failure = None if history is None else history.attempts[-1].failure
    return "" if failure is None else failure.traceback


def _data(asked: Asked, whole: Whole, wanted: str) -> Context:
    """Return the beginning of the data, as text, JSON, hexadecimal or a picture, and what else it can be shown as."""
    data, first = whole.known.data, whole.first
    if data is None or not data.size:
        return {"data_size": None if data is None else human_size(0), "data": None, "ways": []}
    ways, name = ["hex"], whole.item.name
    text = shown.text_of(first[: shown.LONGEST])
    if text is not None:
        ways.insert(0, "text")
    if data.size <= shown.LARGEST_JSON and is_json(first):
        ways.insert(0, "json")
    if shown.picture_type(first) is not None:
        ways.insert(0, "picture")
    context: Context = {
        "data_size": human_size(data.size),
        "data_cut": False,
        "download": asked.href("entry", name, "data") if data.size <= LARGEST_DOWNLOAD else "",
        "largest_download": human_size(LARGEST_DOWNLOAD),
        "picture": asked.href("entry", name, "picture"),
    }
    if asked.hidden:  # only in JSON can it be found what is to be hidden
        ways = [way for way in ways if way == "json"]
        if not ways:
            why = "It is not shown: it is no JSON, so what is to be hidden cannot be found in it."
            return context | {"data": None, "why_not": why, "ways": [], "download": ""}
    way = wanted if wanted in ways else ways[0]
    context["ways"] = [(each, asked.href("entry", name, **{"as": each}), each == way) for each in ways]
    if way == "picture":
        return context | {"way": way, "data": None}
    if way == "json":
        told = shown.metadata_text(first, asked.hidden)
    elif way == "text":
        told = text or ""
    else:
        told = shown.in_hex(first[: shown.LONGEST // 16])
    told, cut = shown.clip(told)
    of = {"json": data.size, "text": shown.LONGEST, "hex": shown.LONGEST // 16}[way]
    return context | {"way": way, "data": told, "data_cut": cut or data.size > of}

"""Everything that is known about one entry besides its metadata, and how a person says it."""

import contextlib
from collections.abc import Callable
from typing import Final, NamedTuple

from trio_multispool.errors import DataNotFound, EntryNotFound
from trio_multispool.looks.ages import age_of, human_age, human_size, human_time, told_progress
from trio_multispool.looks.seen import AnyStorage
from trio_multispool.model.cancellation import NO_REASON, CancelRequest
from trio_multispool.model.lifecycle import State
from trio_multispool.model.text import encodable
from trio_multispool.model.times import aware
from trio_multispool.model.types import T
from trio_multispool.storage.requests import Item, Stat


class Known(NamedTuple):
    """What is known about an entry besides its metadata."""

    item: Item
    data: Stat | None
    path: str | None
    """Where its data is, if it is in a file."""
    reason: str | None
    """Why it is in quarantine."""
    cancellation: CancelRequest | None
    """The request to cancel the work on it."""


_TRIES: Final = 10
"""How often an entry may move on while it is read."""


def wherever_it_is(storage: AnyStorage, name: str, read: Callable[[Item, bytes], T]) -> T | None:
    """Find an entry, and read it with its metadata, again if it has moved on; `None`: there is none (any more)."""
    for _ in range(_TRIES):
        item = storage.find(name)
        if item is None:
            return None
        with contextlib.suppress(EntryNotFound):
            return read(item, storage.read_metadata(item.place, name))
    return None


def known(storage: AnyStorage, item: Item) -> Known:
    """Look up what an onlooker is not told of an entry."""
    data = None
    with contextlib.suppress(DataNotFound):
        data = storage.stat_data(item.name)
    reason = storage.quarantine_reason(item.name) if item.place.state is State.QUARANTINED else None
    path, request = storage.data_path(item.name), storage.cancellation(item.place.queue, item.name)
    return Known(item, data, None if path is None else encodable(str(path)), reason, request)


def facts(known: Known, now: float, *, by: str) -> list[tuple[str, str]]:
    """Return what is known for a person, labelled; `by` is said of who has it checked out."""
    item, age = known.item, human_age(age_of(known.item.modified_at, now))
    found = [
        ("name", item.name),
        ("queue", item.place.queue),
        ("state", item.place.state.value),
        ("by", by if item.place.state is State.CHECKED_OUT else None),
        ("due", None if item.due_at is None else human_time(item.due_at)),
        ("progress", None if item.progress is None else told_progress(item.progress)),
        ("cancel", None if known.cancellation is None else _told_request(known.cancellation, now)),
        ("reason", known.reason),
        ("modified", f"{human_time(item.modified_at)} ({age} ago)"),
        ("data", "missing" if known.data is None else human_size(known.data.size)),
        ("path", None if known.data is None else known.path),
        ("metadata", human_size(item.size)),
    ]
    return [(label, told) for label, told in found if told is not None]


def _told_request(request: CancelRequest, now: float) -> str:
    """Say when somebody has asked to cancel the work on an entry, and why."""
    asked_at = aware(request.at)
    return f"asked {human_time(asked_at)} ({human_age(age_of(asked_at, now))} ago): {request.reason or NO_REASON}"

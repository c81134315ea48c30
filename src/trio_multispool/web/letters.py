"""Dead letters, grouped by where they are and why they failed: what is retried, or removed, together. Blocking."""

from __future__ import annotations

import collections
import hashlib
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from trio_multispool.clock import stopwatch
from trio_multispool.errors import SpoolError
from trio_multispool.looks.ages import human_age
from trio_multispool.model.attempts import failure_told, history_in
from trio_multispool.model.lifecycle import State
from trio_multispool.web import reading, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from trio_multispool.looks.seen import AnyStorage
    from trio_multispool.storage.requests import Item


class Group(NamedTuple):
    """Dead letters that failed for the same reason."""

    queue: str
    """In which they lie."""
    back_to: str
    """In which they failed."""
    error: str
    names: list[str]
    """The first of them."""
    number: int
    latest: str
    """How long ago the last of them was given up."""

    @property
    def key(self) -> str:
        """What tells it from the other groups, in a form: of letters and digits, whatever the error says."""
        return hashlib.sha256(msgspec.json.encode([self.queue, self.back_to, self.error])).hexdigest()


class Letters(NamedTuple):
    """The dead letters of a spool, grouped."""

    groups: list[Group]
    searched: int
    complete: bool


def letters_in(storage: AnyStorage) -> Letters:
    """Return the dead letters, as many as there is time for; the largest group first."""
    elapsed, searched, complete = stopwatch(), 0, True
    found: dict[tuple[str, str, str], list[tuple[float, str]]] = collections.defaultdict(list)
    for item in _available_in(storage, storage.queues()):
        if elapsed() > reading.PATIENCE:
            complete = False
            break
        searched += 1
        if (letter := _letter(storage, item)) is not None:
            key, at = letter
            found[key].append((at, item.name))
    now = storage.now()
    groups = [
        Group(*key, [name for _, name in sorted(each)[: reading.MOST]], len(each), human_age(now - max(each)[0]))
        for key, each in found.items()
    ]
    groups.sort(key=lambda group: (-group.number, group.queue, group.error))
    return Letters(groups, searched, complete)


def _available_in(storage: AnyStorage, queues: Iterable[str]) -> Iterator[Item]:
    for queue in queues:
        yield from storage.inventory(queue, State.AVAILABLE)


def _letter(storage: AnyStorage, item: Item) -> tuple[tuple[str, str, str], float] | None:
    """Return which group a dead letter belongs to, and when it failed; `None`: it is none."""
    try:
        history = history_in(storage.notes(item.name))
    except SpoolError:
        return None
    if history is None or not history.given_up or item.place.queue == history.queue:
        return None
    last = history.attempts[-1]
    error = "its worker died" if last.failure is None else failure_told(last.failure)
    key = (item.place.queue, history.queue, shown.clip_line(error, 300))
    return key, last.began if last.ended is None else last.ended

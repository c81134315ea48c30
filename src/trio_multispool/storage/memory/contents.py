"""What is in a store in memory: entries by name, which names are locked, and who is to be told of changes.

Several handles may share it, as several processes share a directory. All access is under its mutex. It is re-entrant,
because a garbage collection may drop a lock in any line.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import threading
import weakref
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, final

from trio_multispool.model.lifecycle import Place, State
from trio_multispool.model.names import TimeOrdered
from trio_multispool.model.times import aware
from trio_multispool.storage.handles import Slot
from trio_multispool.storage.requests import Stat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from trio_multispool.model.cancellation import CancelRequest
    from trio_multispool.model.pauses import Pause
    from trio_multispool.storage.requests import Notes

H = TypeVar("H")

CANCELLATIONS: Final = ".cancel"
"""Stands for a queue, which it cannot be, where listeners are told of requests to cancel entries."""

_TICK: Final = 1_000_000_000

_numbers: Final = itertools.count(1)


class Listener(Protocol):
    """What is told of changes."""

    def tell(self, name: str, queue: str | None) -> None:
        """Take note that an entry came into a queue, or left the store (`None`); under the mutex."""
        ...


@final
@dataclasses.dataclass(eq=False, repr=False)
class Kept:
    """One entry."""

    name: str
    place: Place
    metadata: bytes
    written_at: float
    data: bytes
    data_written_at: float
    due_at: float | None
    """Until when it waits, or waited when it was checked out."""
    carrier: dict[str, str]
    remember: float | None
    notes: dict[str, bytes] = dataclasses.field(default_factory=dict)
    reason: str | None = None
    """Why it is in quarantine."""
    cancellation: tuple[str, CancelRequest] | None = None
    """The request to cancel the work on it, and the queue that it was taken from."""
    checkouts: int = 0
    """How often it was checked out or removed. Only the latest owner may settle it."""
    moved_at: float = 0.0
    """When it came to its place."""
    arrived_at: float = 0.0
    """When it came into its queue, from another one or as a new entry."""
    arrival: int = 0
    """The number of its arrival in its queue, among all arrivals."""

    def annotate(self, changes: Notes) -> None:
        """Change some keys of its notes."""
        self.notes = {key: value for key, value in {**self.notes, **changes}.items() if value is not None}

    def stat(self) -> Stat:
        """Return size and age of its metadata."""
        return Stat(len(self.metadata), aware(self.written_at))


@final
class Contents:
    """All that the handles on one store in memory share."""

    def __init__(self, now: Callable[[], float]) -> None:
        """Begin with nothing; `now` is the wall clock, in seconds since 1970."""
        number = next(_numbers)
        self.location: str = f"memory://{number}"
        self.generator: TimeOrdered = TimeOrdered(lambda: int(now() * _TICK), lambda: f"{number:08x}")
        """Of names that are in the order in which all handles make them."""
        self.mutex: AbstractContextManager[bool] = threading.RLock()
        self.now: Callable[[], float] = now
        self.queues: set[str] = set()
        self.entries: dict[str, Kept] = {}
        self.places: collections.defaultdict[Place, dict[str, Kept]] = collections.defaultdict(dict)
        """The same entries, by place and name."""
        self.arrivals: int = 0
        """How often an entry has come into a queue, from another or as a new one."""
        self.reserved: dict[str, float] = {}
        """Names without an entry, and since when. Nobody has those that are not locked."""
        self.locked: set[str] = set()
        self.remembered: dict[str, float] = {}
        """Names of removed entries, and until when they are remembered."""
        self.pauses: dict[str, Pause] = {}
        """By queue."""
        self.slots: set[int] = set()
        """Those that are held."""
        self.listeners: weakref.WeakSet[Listener] = weakref.WeakSet()

    def lock(self, name: str) -> Slot | None:
        """Lock a name; `None` if it is locked."""
        with self.mutex:
            return None if name in self.locked else self.hold(self.locked, name)

    def hold(self, among: set[H], what: H) -> Slot:
        """Take a name or a number that is free; under the mutex."""
        among.add(what)
        return Slot(functools.partial(self._free, among, what))

    def _free(self, among: set[H], what: H) -> None:
        with self.mutex:
            among.discard(what)

    def at(self, place: Place, name: str) -> Kept | None:
        """Return the entry if it is in that place."""
        with self.mutex:
            return self.places[place].get(name)

    def each(self, queue: str | None = None, state: State | None = None) -> Iterator[Kept]:
        """Yield the entries that are there now, in one queue and state or in all."""
        with self.mutex:
            among = self.entries if queue is None or state is None else self.places[Place(queue, state)]
            found = list(among.values())
        return (kept for kept in found if queue in (None, kept.place.queue) and state in (None, kept.place.state))

    def names(self, queue: str) -> list[str]:
        """Return the names of what is available in a queue, sorted."""
        return sorted(kept.name for kept in self.each(queue, State.AVAILABLE))

    def due(self, queue: str) -> list[tuple[float, str]]:
        """Return what waits for a queue, the first to be due first."""
        return sorted((kept.due_at or 0.0, kept.name) for kept in self.each(queue, State.WAITING))

    def put(self, kept: Kept, place: Place) -> None:
        """Put an entry in a place; under the mutex."""
        if kept.name not in self.entries or kept.place.queue != place.queue:
            self.arrivals += 1
            kept.arrival, kept.arrived_at = self.arrivals, self.now()
        _ = self.places[kept.place].pop(kept.name, None)
        self.entries[kept.name] = self.places[place][kept.name] = kept
        kept.place, kept.moved_at = place, self.now()

    def move(self, kept: Kept, place: Place, due_at: float | None = None) -> None:
        """Put an entry in a place, and tell of it."""
        with self.mutex:
            self.put(kept, place)
            kept.due_at = due_at
            self._tell(kept.name, place.queue)

    def next_due(self) -> float | None:
        """Return when the next waiting entry of any queue becomes due; `None` if none will."""
        waiting = (kept.due_at for kept in self.each(state=State.WAITING))
        return min((due_at for due_at in waiting if due_at is not None and due_at > self.now()), default=None)

    def tell_all(self) -> None:
        """Tell that any queue may have more entries than before: the clock was put forward."""
        with self.mutex:
            for queue in self.queues:
                self._tell("", queue)

    def _tell(self, name: str, queue: str | None) -> None:
        for listener in list(self.listeners):
            listener.tell(name, queue)

    def ask_to_cancel(self, queue: str, name: str, request: CancelRequest) -> None:
        """Keep a request with an entry, if there is one, and tell of it."""
        with self.mutex:
            kept = self.entries.get(name)
            if kept is not None and (kept.cancellation is None or kept.cancellation[0] != queue):
                kept.cancellation = queue, request
                self._tell(name, CANCELLATIONS)

    def remove(self, kept: Kept) -> None:
        """Remove an entry, and remember its name if that was asked for."""
        with self.mutex:
            del self.entries[kept.name], self.places[kept.place][kept.name]
            kept.checkouts += 1  # nobody owns it any more
            if kept.remember:  # not for no time at all
                self.remembered[kept.name] = self.now() + kept.remember
            self._tell(kept.name, None)

    def is_remembered(self, name: str) -> bool:
        """Tell whether a name without an entry must not be used yet. Forgets it if its time has passed."""
        with self.mutex:
            if self.remembered.get(name, self.now()) > self.now():
                return True
            _ = self.remembered.pop(name, None)
            return False

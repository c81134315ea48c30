"""Look at a spool by asking its store, whatever kind it is. It locks nothing and writes nothing.

A question may be a round trip to a server, and a queue may hold a million entries. So there are few questions, each of
which is answered by a count or by a short page. The names of a long queue are not asked for: what came in and went out
is then known only as far as the queue has grown or shrunk.
"""

import contextlib
from collections.abc import Generator, Iterator
from operator import attrgetter
from typing import Final, NamedTuple, final

from msgspec.structs import replace

from trio_multispool.clock import stopwatch
from trio_multispool.errors import SpoolError
from trio_multispool.looks import facts, metadata, owners
from trio_multispool.looks.ages import human_age, told_progress
from trio_multispool.looks.seen import AnyStorage, Details, Entry, Listing, Look, QueueLook, Sample
from trio_multispool.model.lifecycle import Place, State
from trio_multispool.model.pauses import in_force
from trio_multispool.session.stores import look_at_store
from trio_multispool.storage.requests import Item

_EACH: Final = 1_000
"""Up to this many names of a queue are asked for. In a longer one, the first entry by name stands for the oldest."""

_MOST: Final = 1_000
"""How many check-outs, and how many entries in quarantine, are looked at."""

_LISTED: Final = {State.CHECKED_OUT: _MOST, State.QUARANTINED: _MOST, State.AVAILABLE: 200, State.WAITING: 200}
"""How the entries of a queue are listed, and up to how many, the first by name: the many that wait come last."""

_since = attrgetter("since")


class _Named(NamedTuple):
    """What is available in a queue, and the names of what waits for it; of a long one, the first, and nothing."""

    available: list[Item]
    waiting: list[str] | None


@final
class Asker:
    """Looks at one spool, again and again, in one thread at a time. The store stays open, as long as it answers."""

    def __init__(self, location: str) -> None:
        self.seen: int = 0
        """How many names the look that is under way has read; may be read by another thread."""
        self._location = location
        self._elapsed = stopwatch()
        self._stopped = False
        self._open = contextlib.ExitStack()
        self._storage: AnyStorage | None = None

    def stop(self) -> None:
        """End the look that is under way, and all later ones, soon."""
        self._stopped = True

    def close(self) -> None:
        """Close the store."""
        self._storage = None
        self._open.close()

    @contextlib.contextmanager
    def _asking(self) -> Generator[AnyStorage]:
        """Yield the store. One that could not answer is opened anew the next time."""
        if self._storage is None:
            self._storage = self._open.enter_context(contextlib.closing(look_at_store(self._location)))
        try:
            yield self._storage
        except SpoolError:
            self.close()
            raise

    def look(self) -> Look:
        """Look at everything once; raises a `SpoolError` if there is no spool (any more)."""
        began, self.seen = self._elapsed(), 0
        with self._asking() as storage:
            # Check-outs come before and after what is available, and what waits before that: an entry that becomes due,
            # is taken or is given back meanwhile must not be taken for gone.
            before, depths = list(self._entries(storage, None, State.CHECKED_OUT)), storage.depths()
            queues = [each for each in storage.queues() if not self._stopped]
            named = {queue: self._named(storage, queue, depths) for queue in queues}
            held = list(self._entries(storage, None, State.CHECKED_OUT))
            aside = list(self._entries(storage, None, State.QUARANTINED))
            at = storage.now()
            pauses = in_force(storage.pauses(), at)
        all_held = None if max(len(before), len(held)) == _MOST else [*before, *held]
        ended = self._elapsed()
        return Look(
            at=at,
            instant=ended,
            took=ended - began,
            queues=tuple(
                replace(_seen(queue, depths, named[queue], all_held), pause=pauses.get(queue)) for queue in queues
            ),
            held=tuple(sorted(held, key=_since)),
            aside=tuple(sorted(aside, key=_since)),
        )

    def _named(self, storage: AnyStorage, queue: str, depths: dict[Place, int]) -> _Named:
        """Ask for the names of a queue, if there are few."""
        numbers = [depths.get(Place(queue, state), 0) for state in (State.WAITING, State.AVAILABLE)]
        if max(numbers) > _EACH:
            return _Named(list(storage.inventory(queue, State.AVAILABLE, most=1)), None)
        waiting = [name for _, name in storage.waiting(queue, most=_EACH)]
        available = list(storage.inventory(queue, State.AVAILABLE, most=_EACH))
        self.seen += len(waiting) + len(available)
        return _Named(available, waiting)

    def _entries(self, storage: AnyStorage, queue: str | None, state: State) -> Iterator[Entry]:
        """Yield the first entries by name."""
        held = state is State.CHECKED_OUT
        asked = frozenset(storage.asked_to_cancel()) if held else frozenset[str]()
        for item in storage.inventory(queue, state, most=_LISTED[state]):
            if self._stopped:
                return
            self.seen += 1
            written_at = item.modified_at.timestamp()
            since = written_at if item.moved_at is None else item.moved_at
            entry = Entry(item.place.queue, item.name, state, since, written_at, item.size)
            if held:
                progress = [] if item.progress is None else [told_progress(item.progress)]
                if item.name in asked and storage.cancellation(item.place.queue, item.name) is not None:
                    progress.insert(0, "cancel asked")
                entry = replace(entry, by=owners.told(item.owner), owner=item.owner, progress=", ".join(progress))
            yield entry

    def listing(self, queue: str) -> Listing:
        """List one queue; raises `FileNotFoundError` if it has gone, and a `SpoolError` if the spool has."""
        found: list[Entry] = []
        with self._asking() as storage:
            if queue not in storage.queues():
                raise FileNotFoundError(queue)
            for state in reversed(_LISTED):  # so none is missed that moves on
                found[:0] = self._entries(storage, queue, state)
            more = storage.count(queue, State.AVAILABLE) - sum(entry.state is State.AVAILABLE for entry in found)
        return Listing(queue, tuple(found), max(0, more))

    def details(self, queue: str, name: str) -> Details | None:  # noqa: ARG002  # it is found wherever it is
        """Return what is known about an entry, or `None` if it is no more."""
        with self._asking() as storage:

            def read(item: Item, raw: bytes) -> Details:
                text = metadata.for_person(raw, terminal=True).decode(errors="backslashreplace")
                return Details(item.place.queue, name, item.place.state, tuple(self._facts(storage, item)), text)

            return facts.wherever_it_is(storage, name, read)

    def _facts(self, storage: AnyStorage, item: Item) -> list[tuple[str, str]]:
        now, by = storage.now(), owners.told(item.owner)
        if item.moved_at is not None:
            by += f", for {human_age(now - item.moved_at)}"
        return facts.facts(facts.known(storage, item), now, by=by)


def _seen(queue: str, depths: dict[Place, int], named: _Named, held: list[Entry] | None) -> QueueLook:
    """Return how a queue was seen. Its names are known unless it is long, or too much is checked out (`None`)."""
    numbers = {state: depths.get(Place(queue, state), 0) for state in _LISTED}
    sample = Sample(bits=1)
    if named.waiting is not None and held is not None:
        here = (entry.name for entry in held if entry.queue == queue)
        sample = Sample(0, frozenset([*named.waiting, *(item.name for item in named.available), *here]))
    return QueueLook(
        queue=queue,
        available=numbers[State.AVAILABLE],
        held=numbers[State.CHECKED_OUT],
        aside=numbers[State.QUARANTINED],
        sample=sample,
        oldest_at=min((item.modified_at.timestamp() for item in named.available), default=None),
        oldest_of_all=named.waiting is not None,
        waiting=numbers[State.WAITING],
    )

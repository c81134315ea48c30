"""What the pages ask a store: pages of entries, one entry, dead letters, what is in quarantine. Blocking; only looks.

Each question is bounded in time and memory, however much is in the spool: it reads one page of names, or as many
entries as it can within a time, and says when there is more.
"""

from __future__ import annotations

import contextlib
import fnmatch
import heapq
import threading
from typing import TYPE_CHECKING, Final, NamedTuple, final

import msgspec

from trio_multispool.clock import stopwatch
from trio_multispool.errors import OF_ONE_FILE, DataNotFound, EntryNotFound, SpoolError
from trio_multispool.looks import owners
from trio_multispool.looks.ages import age_of, human_age, told_progress
from trio_multispool.looks.facts import Known, known, wherever_it_is
from trio_multispool.looks.histogram import FIRST, Histogram, edges, headers
from trio_multispool.model.attempts import History, history_in
from trio_multispool.model.lifecycle import Place, State
from trio_multispool.model.times import aware
from trio_multispool.session.stores import is_directory, look_at_store
from trio_multispool.web import shown

if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable, Collection, Generator, Iterator
    from typing import BinaryIO

    from trio_multispool.looks.seen import AnyStorage
    from trio_multispool.model.types import T
    from trio_multispool.storage.requests import Item

PAGE: Final = 50
"""How many entries a page shows."""

MOST: Final = 1_000
"""How many check-outs, and how many entries in quarantine, are looked at; how many of a group are acted on at once."""

PATIENCE: Final = 2.0
"""How many seconds a search through a queue may take."""

MOST_AGES: Final = 50_000
"""How many entries are counted by age at most."""


class Row(NamedTuple):
    """An entry in a list."""

    name: str
    queue: str
    state: State
    age: str
    size: int
    metadata: str
    """The beginning of it, or why it cannot be read."""
    due: str = ""
    """When it is due, if it waits."""
    by: str = ""
    """Who has it, if it is checked out."""
    progress: str = ""
    done: float | None = None
    """The progress as a number."""
    reason: str = ""
    """Why it was set aside."""
    held_for: str = ""


class Rows(NamedTuple):
    """A page of entries."""

    rows: list[Row]
    after: str | None
    """What the next page comes after, if there is one."""
    searched: int | None = None
    """How many entries were searched, if there was no time for all."""


class Filter(NamedTuple):
    """What the entries of a page have to be like."""

    name: str = ""
    """A pattern, as `order-*`; or a part of the name."""
    field: str = ""
    """A field of the metadata."""
    value: str = ""
    """What is in it, or a part of that."""

    def fits_name(self, name: str) -> bool:
        """Tell whether a name fits."""
        if not self.name:
            return True
        if any(each in self.name for each in "*?["):
            return fnmatch.fnmatchcase(name, self.name)
        return self.name in name

    def fits(self, raw: bytes) -> bool:
        """Tell whether metadata fits: it is a JSON object that has the field, with the value as text in it."""
        if not self.field:
            return not self.value or self.value.encode() in raw
        try:
            found = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        except (ValueError, RecursionError):
            return False
        if self.field not in found:
            return False
        held = bytes(found[self.field]).decode(errors="backslashreplace")
        with contextlib.suppress(ValueError):
            held = msgspec.json.decode(found[self.field], type=str)
        return self.value in held


class Whole(NamedTuple):
    """One entry."""

    known: Known
    now: float
    metadata: bytes
    history: History | None
    first: bytes
    """The beginning of its data."""
    by: str
    held_for: str
    command: str | None

    @property
    def item(self) -> Item:
        """What an onlooker sees of it."""
        return self.known.item


class Ages(NamedTuple):
    """A queue's available entries by age."""

    labels: list[str]
    numbers: list[int]
    counted: int
    complete: bool


@final
class Reader:
    """Asks one store, from any thread. A store on a server stays open for as long as it answers."""

    def __init__(self, location: str, hidden: Collection[str]) -> None:
        """Take the location, and the fields of metadata that nobody is shown."""
        self._location = location
        self._hidden = frozenset(hidden)
        self._stays = not is_directory(location)
        self._mutex = threading.Lock()
        self._storage: AnyStorage | None = None

    @contextlib.contextmanager
    def _asking(self) -> Generator[AnyStorage]:
        if not self._stays:
            with contextlib.closing(look_at_store(self._location)) as storage:
                yield storage
            return
        with self._mutex:
            if self._storage is None:
                self._storage = look_at_store(self._location)
            storage = self._storage
        try:
            yield storage
        except (EntryNotFound, DataNotFound):
            raise
        except SpoolError:
            self.close()
            raise

    def close(self) -> None:
        """Close the store; the next question opens it anew."""
        with self._mutex:
            storage, self._storage = self._storage, None
        if storage is not None:
            storage.close()

    def with_storage(self, question: Callable[[AnyStorage], T]) -> T:
        """Ask the store something else."""
        with self._asking() as storage:
            return question(storage)

    # Lists

    def rows(self, queue: str, state: State, after: str, wanted: Filter) -> Rows:
        """Return a page of what is in a queue in one state; raises `LookupError` if there is no such queue."""
        with self._asking() as storage:
            if queue not in storage.queues():
                raise LookupError(queue)
            if wanted != Filter():
                return self._search(storage, Place(queue, state), after, wanted)
            match state:
                case State.AVAILABLE:
                    names = storage.names(queue, after=after, most=PAGE + 1)
                    rows = [self._available(storage, queue, name) for name in names[:PAGE]]
                    return Rows([row for row in rows if row], names[PAGE - 1] if len(names) > PAGE else None)
                case State.WAITING:
                    return self._waiting(storage, queue, after)
                case _:
                    items = sorted(storage.inventory(queue, state, most=MOST), key=lambda item: item.name)
                    items = [item for item in items if item.name > after]
                    return self._page(storage, items)

    def _page(self, storage: AnyStorage, items: list[Item], searched: int | None = None) -> Rows:
        rows = [row for row in (self._row(storage, item) for item in items[:PAGE]) if row]
        return Rows(rows, items[PAGE - 1].name if len(items) > PAGE else None, searched)

    def _available(self, storage: AnyStorage, queue: str, name: str) -> Row | None:
        place = Place(queue, State.AVAILABLE)
        try:
            stat = storage.stat(place, name)
        except SpoolError:  # it has moved on, or is no file
            return None
        told = self._beginning(storage, place, name)
        age = human_age(age_of(stat.modified_at, storage.now()))
        return Row(name, queue, State.AVAILABLE, age, stat.size, told)

    def _waiting(self, storage: AnyStorage, queue: str, after: str) -> Rows:
        past = _due_and_name(after)
        found, now, place = (
            storage.waiting(queue, after=past, most=PAGE + 1),
            storage.now(),
            Place(queue, State.WAITING),
        )
        rows: list[Row] = []
        for due_at, name in found[:PAGE]:
            with contextlib.suppress(SpoolError):
                stat = storage.stat(place, name)
                told = self._beginning(storage, place, name)
                age = human_age(age_of(stat.modified_at, now))
                rows.append(Row(name, queue, place.state, age, stat.size, told, due=_told_due(due_at, now)))
        last = found[PAGE - 1] if len(found) > PAGE else None
        return Rows(rows, None if last is None else f"{last[0]!r} {last[1]}")

    def _row(self, storage: AnyStorage, item: Item) -> Row | None:
        now, state = storage.now(), item.place.state
        row = Row(
            item.name,
            item.place.queue,
            state,
            human_age(age_of(item.modified_at, now)),
            item.size,
            self._beginning(storage, item.place, item.name),
            held_for="" if item.moved_at is None else human_age(now - item.moved_at),
        )
        if state is State.CHECKED_OUT:
            progress = item.progress
            told = "" if progress is None else told_progress(progress)
            return row._replace(
                by=owners.told(item.owner), progress=told, done=None if progress is None else progress.done
            )
        if state is State.QUARANTINED:
            return row._replace(reason=storage.quarantine_reason(item.name) or "not written down")
        return row if item.due_at is None else row._replace(due=_told_due(item.due_at.timestamp(), now))

    def _beginning(self, storage: AnyStorage, place: Place, name: str) -> str:
        try:
            return shown.metadata_line(storage.read_metadata(place, name), self._hidden)
        except EntryNotFound:
            return "(it has moved on)"
        except OF_ONE_FILE as error:
            return f"({error})"

    def _search(self, storage: AnyStorage, place: Place, after: str, wanted: Filter) -> Rows:
        elapsed, searched, complete = stopwatch(), 0, True

        def found() -> Iterator[Item]:
            nonlocal searched, complete
            for item in storage.inventory(place.queue, place.state):
                if elapsed() > PATIENCE:
                    complete = False
                    return
                searched += 1
                if item.name <= after or not wanted.fits_name(item.name):
                    continue
                if (wanted.field or wanted.value) and not self._fits(storage, item, wanted):
                    continue
                yield item

        items = heapq.nsmallest(PAGE + 1, found(), key=lambda item: item.name)
        return self._page(storage, items, None if complete else searched)

    def _fits(self, storage: AnyStorage, item: Item, wanted: Filter) -> bool:
        try:
            raw = storage.read_metadata(item.place, item.name)
            return wanted.fits(shown.redacted(raw, self._hidden))
        except (EntryNotFound, shown.Withheld, *OF_ONE_FILE):
            return False

    def all_in(self, state: State) -> Rows:
        """Return what is in one state in any queue, the first thousand: what is in hand, or in quarantine."""
        with self._asking() as storage:
            items = sorted(
                storage.inventory(None, state, most=MOST),
                key=lambda item: (item.moved_at or item.modified_at.timestamp(), item.name),
            )
            rows = [row for row in (self._row(storage, item) for item in items) if row]
            return Rows(rows, None, len(items) if len(items) == MOST else None)

    def ages(self, queue: str) -> Ages:
        """Count a queue's available entries by age, as many as there is time for."""
        limits, elapsed, counted, complete = edges(FIRST), stopwatch(), 0, True
        histogram = Histogram(limits)
        with self._asking() as storage:
            now = storage.now()
            for item in storage.inventory(queue, State.AVAILABLE):
                if counted >= MOST_AGES or elapsed() > PATIENCE:
                    complete = False
                    break
                counted += 1
                histogram.add(age_of(item.modified_at, now))
        return Ages(headers(limits), histogram.counts, counted, complete)

    # One entry

    def entry(self, name: str) -> Whole | None:
        """Return all that is known of an entry, wherever it is; `None`: there is none."""
        with self._asking() as storage:

            def read(item: Item, raw: bytes) -> Whole:
                now, owner = storage.now(), item.owner
                return Whole(
                    known(storage, item),
                    now,
                    raw,
                    history_in(storage.notes(name)),
                    self._first(storage, name),
                    owners.told(owner),
                    "" if item.moved_at is None else human_age(now - item.moved_at),
                    None if owner is None else owners.command_of(owner),
                )

            return wherever_it_is(storage, name, read)

    @staticmethod
    def _first(storage: AnyStorage, name: str) -> bytes:
        try:
            return storage.read_data(name, lambda file: file.read(shown.LARGEST_JSON + 1))
        except DataNotFound:
            return b""

    def data(self, name: str, most: int) -> bytes | None:
        """Return the data of an entry; `None`: they are longer than that. Raises `DataNotFound`."""

        def read(file: BinaryIO) -> bytes:
            return file.read(most + 1)

        with self._asking() as storage:
            raw: bytes = storage.read_data(name, read)
        return None if len(raw) > most else raw


def _told_due(due_at: float, now: float) -> str:
    seconds = due_at - now
    return f"in {human_age(seconds)}" if seconds > 0 else "now"


def _due_and_name(after: str) -> tuple[float, str] | None:
    """Return what a page of what waits comes after, as the page before has told."""
    due, _, name = after.partition(" ")
    try:
        return (float(due), name) if name else None
    except ValueError:
        return None


def when(at: float) -> datetime.datetime | None:
    """Return a time that a program has written, if there is such a time."""
    try:
        return aware(at)
    except (ValueError, OverflowError, OSError):
        return None

"""`MemoryStorage`: the store in memory. Nothing in it waits, so its operations need no threads.

It keeps the promises of `Storage` but for one: its entries end with the process. Handles on the same `Contents` stand
for processes that share a spool.
"""

from __future__ import annotations

import collections
import contextlib
import heapq
import io
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, TypeAlias, final

import msgspec

from trio_multispool.clock import this_process
from trio_multispool.errors import DataNotFound, EntryBusy, EntryNotFound, NameTaken, OwnershipLost
from trio_multispool.instrumentation import Operation
from trio_multispool.model.lifecycle import Place, State, Step, next_state
from trio_multispool.model.notes import PROGRESS, progress_in
from trio_multispool.model.policies import check_durability
from trio_multispool.model.times import aware
from trio_multispool.model.verdicts import Unavailable
from trio_multispool.storage.findings import Findings, Holder, of_entry, of_reservation
from trio_multispool.storage.listed import ListedSource
from trio_multispool.storage.memory.claims import MemoryClaim, MemoryReservation
from trio_multispool.storage.memory.contents import CANCELLATIONS, Contents, Kept
from trio_multispool.storage.memory.shelf import MemoryShelf
from trio_multispool.storage.memory.watch import MemoryWatch
from trio_multispool.storage.protocol import MOST_SETTLED
from trio_multispool.storage.reading import as_file
from trio_multispool.storage.requests import Item, NotDue, Owner, Recovered, Releasing, Removing, Saving, Standing, Stat
from trio_multispool.storage.singly import claim_next

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from trio_multispool.errors import SpoolError
    from trio_multispool.model.cancellation import CancelRequest
    from trio_multispool.model.pauses import Pause
    from trio_multispool.model.policies import Durability
    from trio_multispool.model.types import T
    from trio_multispool.storage.findings import Judge, Wanted
    from trio_multispool.storage.handles import Slot
    from trio_multispool.storage.requests import Advice, Content, NewEntry, Settlement

    BeforeCommit: TypeAlias = Callable[[], None]

MOST_AT_A_TIME: Final = 64
"""How many entries a caller may make or claim at once. Any number would do."""

_STEPS: Final[dict[type, tuple[Operation, Step, Step]]] = {
    Saving: (Operation.SAVE, Step.SAVE, Step.SAVE_TO_WAIT),
    Removing: (Operation.REMOVE, Step.REMOVE, Step.REMOVE),
    Releasing: (Operation.RELEASE, Step.RELEASE, Step.RELEASE_TO_WAIT),
}
"""How a claim is settled: the operation, the step, and the step if the entry is to wait."""


def _nothing(*_asked: object) -> None:
    """Raise nothing."""


def _failure(operation: Callable[[T], None], on: T) -> BaseException | None:
    """Do one of several things, and return what it raised."""
    try:
        operation(on)
    except BaseException as error:  # noqa: BLE001  # the caller's answer
        return error
    return None


def _written(content: Content) -> bytes:
    """Return the bytes, or what the function writes."""
    if isinstance(content, bytes):
        return content
    file = io.BytesIO()
    content(file)
    return file.getvalue()


@final
class MemoryStorage:
    """One handle on a store in memory."""

    blocks: bool = False
    """Nothing here waits."""

    def __init__(
        self,
        contents: Contents,
        queues: Iterable[str],
        location: str,
        *,
        fault: Callable[[Operation, str], None] = _nothing,
    ) -> None:
        """Open the store, with these queues, and recover; `fault` may raise what an operation on a name is to raise."""
        self.contents: Contents = contents
        """What other handles share."""
        self._fault = fault
        self.location: str = location
        contents.queues.update(queues)
        self.recovered_at_first: list[Recovered] = self.recover()
        """What recovery did when the store was opened."""

    def now(self) -> float:
        """Return the time of day."""
        return self.contents.now()

    # Names

    def reserve(self, name: str, *, unique: bool = False, briefly: bool = False) -> MemoryReservation:  # noqa: ARG002
        """Hold a name that no entry has."""
        contents = self.contents
        with contents.mutex:
            if name in contents.entries:
                raise NameTaken(name)
            if contents.is_remembered(name):  # also while its owner, who has lost the entry, still has the name
                raise NameTaken(name, finished=True)
            lock = contents.lock(name)
            if lock is None:
                raise EntryBusy(name)
            contents.reserved[name] = contents.now()
            return MemoryReservation(name, lock)

    def remember(self, reservation: MemoryReservation, remember: float, *, durability: Durability | None) -> None:
        """Remember a name that has no entry."""
        check_durability(durability)
        self.contents.remembered[reservation.name] = self.contents.now() + remember

    def give_up(self, reservation: MemoryReservation) -> None:
        """Give an unused name back."""
        if reservation.state is State.NOTHING and reservation.lock.held:
            _ = self.contents.reserved.pop(reservation.name, None)
            reservation.abandon()

    def carrier(self, name: str) -> dict[str, str]:
        """Return the carrier of an entry."""
        kept = self.contents.entries.get(name)
        return {} if kept is None else dict(kept.carrier)

    def enqueue_together(self, enqueuings: Sequence[NewEntry[MemoryReservation]]) -> list[BaseException | None]:
        """Make several entries."""
        return [_failure(self._enqueue, each) for each in enqueuings]

    def _enqueue(self, new: NewEntry[MemoryReservation]) -> None:
        contents, reservation, name = self.contents, new.reservation, new.reservation.name
        check_durability(new.durability)
        state = next_state(Step.ENQUEUE if new.due_at is None else Step.ENQUEUE_TO_WAIT, reservation.state)
        if not reservation.lock.held:
            raise EntryBusy(name)
        self._fault(Operation.ENQUEUE, name)
        data = _written(new.content)
        new.before_commit()
        with contents.mutex:
            place, now, carrier = Place(new.queue, state), contents.now(), dict(new.carrier or {})
            notes = dict(new.notes or {})
            kept = Kept(name, place, new.metadata, now, data, now, new.due_at, carrier, new.remember, notes)
            _ = contents.reserved.pop(name, None)
            reservation.state = state
            reservation.abandon()
            contents.move(kept, place, new.due_at)

    # Finding entries

    def close_afterwards(self, afterwards: Callable[[Callable[[], None]], None]) -> None:
        """Do nothing: there is nothing to close."""

    def settled_at_a_time(self) -> int:
        """Return how many claims are settled at once."""
        return MOST_SETTLED

    def in_one_look(self) -> contextlib.AbstractContextManager[None]:
        """Do nothing: it is in one place."""
        return contextlib.nullcontext()

    def at_a_time(self) -> int:
        """Return how many may be claimed at once."""
        return MOST_AT_A_TIME

    def source(self, queue: str, *, sorts_last: bool) -> ListedSource:
        """Begin to find the entries of a queue."""
        return ListedSource(self, MemoryShelf(self.contents, queue), queue, sorts_last)

    def names(self, queue: str, *, after: str = "", most: int | None = None) -> list[str]:
        """List what is available in a queue."""
        return [name for name in self.contents.names(queue) if name > after][:most]

    def waiting(
        self, queue: str, *, after: tuple[float, str] | None = None, most: int | None = None
    ) -> list[tuple[float, str]]:
        """List the entries that wait for a queue."""
        return [each for each in self.contents.due(queue) if after is None or each > after][:most]

    def read_metadata(self, place: Place, name: str) -> bytes:
        """Return an entry's metadata."""
        return self._at(place, name).metadata

    def stat(self, place: Place, name: str) -> Stat:
        """Return size and age of an entry's metadata."""
        return self._at(place, name).stat()

    def quarantine_reason(self, name: str) -> str | None:
        """Return why an entry was set aside."""
        kept = self.contents.entries.get(name)
        return None if kept is None else kept.reason

    def _at(self, place: Place, name: str) -> Kept:
        kept = self.contents.at(place, name)
        if kept is None:
            raise EntryNotFound(place.queue, name)
        return kept

    # Checking out and settling

    def claim(
        self, place: Place, name: str, *, due_by: float = math.inf, before_commit: BeforeCommit
    ) -> MemoryClaim | Unavailable | NotDue:
        """Check the entry out."""
        self._fault(Operation.CHECK_OUT, name)
        contents = self.contents
        lock = contents.lock(name)
        if lock is None:
            return Unavailable.BUSY
        claim: MemoryClaim | None = None
        try:
            kept = contents.at(place, name)
            if kept is None:
                return Unavailable.GONE
            if place.state is State.WAITING and kept.due_at is not None and kept.due_at > due_by:
                return NotDue(kept.due_at)
            before_commit()
            with contents.mutex:
                if contents.at(place, name) is not kept:  # deleted meanwhile, by somebody who needs no lock
                    return Unavailable.GONE
                contents.put(kept, Place(place.queue, State.CHECKED_OUT))
                kept.checkouts += 1
                claim = MemoryClaim(kept, lock)
                return claim
        finally:
            if claim is None:
                lock.release()

    def settle(self, settlements: Sequence[Settlement[MemoryClaim]]) -> list[BaseException | None]:
        """Settle several claims."""
        failures = [_failure(self._settle, each) for each in settlements]
        claim_next(settlements, failures)
        return failures

    def _settle(self, settlement: Settlement[MemoryClaim]) -> None:
        contents, claim, kept = self.contents, settlement.claim, settlement.claim.kept
        operation, step, step_to_wait = _STEPS[type(settlement)]
        queue, due_at = claim.queue, claim.due_at
        if isinstance(settlement, Saving):
            queue, due_at = settlement.queue, settlement.due_at
        if not isinstance(settlement, Releasing):
            check_durability(settlement.durability)
        target = claim.check(step if due_at is None else step_to_wait)
        self._fault(operation, claim.name)
        if not isinstance(settlement, Releasing):
            settlement.before_commit()
        with contents.mutex:
            claim.check_owned()
            if isinstance(settlement, Removing):
                contents.remove(kept)
                claim.settle(target)
                return
            kept.annotate({**(settlement.notes or {}), PROGRESS: None})
            if settlement.withdraws:
                kept.cancellation = None
            if isinstance(settlement, Saving) and settlement.metadata is not None:
                kept.metadata, kept.written_at = settlement.metadata, contents.now()
            claim.settle(target)
            contents.move(kept, Place(queue, target), due_at)

    def claims_unsafe(self, queue: str) -> list[MemoryClaim]:
        """Return claims on all that is checked out."""
        return [MemoryClaim(kept, None) for kept in self.contents.each(queue, State.CHECKED_OUT)]

    # Quarantine

    def quarantine(self, claim: MemoryClaim, reason: str) -> None:
        """Set the entry aside."""
        with self.contents.mutex:
            target = claim.check(Step.QUARANTINE)
            claim.kept.reason = reason
            claim.kept.annotate({PROGRESS: None})
            claim.settle(target)
            self.contents.move(claim.kept, Place(claim.queue, target))

    def restore(
        self,
        queue: str,
        name: str,
        *,
        to: str | None = None,
        durability: Durability | None,
        before_commit: BeforeCommit,
    ) -> None:
        """Put back an entry that was set aside."""
        with self._changing(Place(queue, State.QUARANTINED), name, durability, before_commit) as kept:
            kept.reason = None
            self.contents.move(kept, Place(queue if to is None else to, State.AVAILABLE))

    def discard(self, queue: str, name: str, *, durability: Durability | None, before_commit: BeforeCommit) -> None:
        """Delete an entry that was set aside."""
        with self._changing(Place(queue, State.QUARANTINED), name, durability, before_commit) as kept:
            kept.remember = None  # its work was not done: it may be sent again
            self.contents.remove(kept)

    # Without ownership

    def replace_metadata(
        self, queue: str, name: str, metadata: bytes, *, durability: Durability | None, before_commit: BeforeCommit
    ) -> None:
        """Replace an available entry's metadata."""
        with self._changing(Place(queue, State.AVAILABLE), name, durability, before_commit) as kept:
            kept.metadata, kept.written_at = metadata, self.contents.now()

    def delete(self, queue: str, name: str, *, durability: Durability | None, before_commit: BeforeCommit) -> None:
        """Delete an available entry."""
        with self._changing(Place(queue, State.AVAILABLE), name, durability, before_commit) as kept:
            self.contents.remove(kept)

    @contextlib.contextmanager
    def _changing(
        self, place: Place, name: str, durability: Durability | None, before_commit: BeforeCommit
    ) -> Generator[Kept]:
        """Yield an entry under the mutex, once the caller has not withdrawn; one in quarantine, under its lock too."""
        check_durability(durability)
        _ = self._at(place, name)
        lock = self.contents.lock(name) if place.state is State.QUARANTINED else contextlib.nullcontext()
        if lock is None:
            raise EntryBusy(name)
        with lock:
            before_commit()
            with self.contents.mutex:
                yield self._at(place, name)

    # Data and notes

    def read_data(self, name: str, read: Callable[[BinaryIO], T], *, owned: bool = False) -> T:  # noqa: ARG002  # as above
        """Read the entry's data."""
        return read(as_file(self._with_data(name).data))

    def read_entry(
        self,
        queue: str,
        name: str,
        read: Callable[[bytes, Stat, BinaryIO], T],
        *,
        state: State = State.AVAILABLE,
    ) -> T | Unavailable:
        """Read a whole entry under its lock."""
        lock = self.contents.lock(name)
        if lock is None:
            return Unavailable.BUSY
        with lock:
            kept = self.contents.at(Place(queue, state), name)
            return Unavailable.GONE if kept is None else read(kept.metadata, kept.stat(), as_file(kept.data))

    def replace_data(
        self,
        name: str,
        claim: MemoryClaim | None,
        content: Content,
        *,
        durability: Durability | None,
        before_commit: BeforeCommit,
    ) -> None:
        """Replace the entry's data."""
        check_durability(durability)
        check_owned = claim.check_owned if claim is not None and claim.lock is not None else _nothing
        check_owned()
        self._fault(Operation.SAVE, name)
        data = _written(content)
        before_commit()
        with self.contents.mutex:
            check_owned()
            kept = self._with_data(name)
            kept.data, kept.data_written_at = data, self.contents.now()

    def data_at_hand(self, claim: MemoryClaim) -> bytes | None:  # noqa: ARG002  # there are none for any
        """Return nothing: it is read when it is asked for."""
        return None

    def stat_data(self, name: str, *, owned: bool = False) -> Stat:  # noqa: ARG002  # as above
        """Return size and age of the entry's data."""
        kept = self._with_data(name)
        return Stat(len(kept.data), aware(kept.data_written_at))

    def data_path(self, name: str) -> Path | None:  # noqa: ARG002  # there is none for any
        """Return nothing: no other program can read the data."""
        return None

    @contextlib.contextmanager
    def data_file(self, name: str) -> Generator[Path]:
        """Yield the path of a copy of the data."""
        data = self._with_data(name).data
        with tempfile.NamedTemporaryFile(prefix="multispool-") as file:
            _ = file.write(data)
            file.flush()
            yield Path(file.name)

    def _with_data(self, name: str) -> Kept:
        kept = self.contents.entries.get(name)
        if kept is None:
            raise DataNotFound(name)
        return kept

    def annotate(
        self,
        claim: MemoryClaim,
        key: str,
        value: bytes | None,
        found: dict[str, msgspec.Raw] | None = None,  # noqa: ARG002  # the protocol's
    ) -> None:
        """Set a key of an entry's notes."""
        with self.contents.mutex:
            claim.check_owned()
            if claim.lock is None:  # taken from its owner, who writes the notes
                raise OwnershipLost(claim.queue, claim.name)
            claim.kept.annotate({key: value})

    def notes(self, name: str) -> dict[str, msgspec.Raw]:
        """Return an entry's notes."""
        kept = self.contents.entries.get(name)
        return {} if kept is None else {key: msgspec.Raw(value) for key, value in kept.notes.items()}

    # The whole

    def slot(self, numbers: range) -> Slot | None:
        """Hold a free slot."""
        contents = self.contents
        with contents.mutex:
            free = next((number for number in numbers if number not in contents.slots), None)
            return None if free is None else contents.hold(contents.slots, free)

    def depths(self) -> dict[Place, int]:
        """Count the entries in every place."""
        queues = self.queues()
        empty = {Place(queue, state): 0 for queue in queues for state in (State.AVAILABLE, State.CHECKED_OUT)}
        return {**empty, **collections.Counter(kept.place for kept in self.contents.each())}

    def standings(self) -> list[Standing]:
        """Look at everything."""
        contents = self.contents
        with contents.mutex:
            found = {queue: Standing(queue, abandoned=0) for queue in sorted(contents.queues)}
            for place, number in self.depths().items():
                found.setdefault(place.queue, Standing(place.queue, abandoned=0)).entries[place.state] = number
            for kept in contents.each():
                standing = found[kept.place.queue]
                if kept.place.state in (State.AVAILABLE, State.WAITING):
                    standing.see(max(kept.arrived_at, kept.due_at or 0.0), contents.now())
                elif kept.place.state is State.CHECKED_OUT and kept.name not in contents.locked:
                    standing.abandoned = (standing.abandoned or 0) + 1
        return list(found.values())

    def recover(self, queue: str | None = None, *, insist: bool = True) -> list[Recovered]:  # noqa: ARG002  # there is nothing to wait for
        """Put back what dead owners held."""
        names = [kept.name for kept in self.contents.each(queue, State.CHECKED_OUT)]
        return [found for name in names if (found := self.recover_name(name)) is not None]

    def recover_all(self, *, dry_run: bool = False) -> Iterator[Recovered | SpoolError]:
        """Recover, and forget names that nobody has."""
        contents = self.contents
        if not dry_run:
            self._fault(Operation.RECOVER, "")
        with contents.mutex:
            now, held = contents.now(), contents.each(state=State.CHECKED_OUT)
            found = [Recovered(kept.name, kept.place.queue) for kept in held if kept.name not in contents.locked]
            nowhere = sorted({*contents.reserved, *contents.remembered} - contents.locked - contents.entries.keys())
            found += [Recovered(name, None) for name in nowhere if contents.remembered.get(name, now) <= now]
        for each in found:
            done = each if dry_run else self.recover_name(each.name)
            if done is not None:
                yield done

    def recover_name(self, name: str) -> Recovered | None:
        """Put one entry back, or forget a name."""
        contents = self.contents
        lock = contents.lock(name)
        if lock is None:
            return None
        with lock, contents.mutex:
            kept = contents.entries.get(name)
            if kept is not None and kept.place.state is State.CHECKED_OUT:
                kept.annotate({PROGRESS: None})
                contents.move(kept, Place(kept.place.queue, State.AVAILABLE))
                return Recovered(name, kept.place.queue)
            was_there = name in contents.reserved or name in contents.remembered
            _ = contents.reserved.pop(name, None)
            is_gone = kept is None and was_there and not contents.is_remembered(name)
            return Recovered(name, None) if is_gone else None

    def watch(self) -> MemoryWatch:
        """Begin to watch queues."""
        return MemoryWatch(self.contents)

    def watch_entries(self) -> MemoryWatch:
        """Begin to watch entries."""
        return MemoryWatch(self.contents, of_entries=True)

    def ask_to_cancel(self, queue: str, name: str, request: CancelRequest) -> None:
        """Make a request."""
        self.contents.ask_to_cancel(queue, name, request)

    def withdraw_cancellation(self, name: str) -> None:
        """Delete a request."""
        kept = self.contents.entries.get(name)
        if kept is not None:
            kept.cancellation = None

    def cancellation(self, queue: str, name: str) -> CancelRequest | None:
        """Return a request."""
        kept = self.contents.entries.get(name)
        found = None if kept is None else kept.cancellation
        return found[1] if found is not None and found[0] == queue else None

    def asked_to_cancel(self) -> list[str]:
        """List the requests."""
        return [kept.name for kept in self.contents.each() if kept.cancellation is not None]

    def pause(self, queue: str, wanted: Pause) -> None:
        """Pause a queue."""
        self.contents.pauses[queue] = wanted

    def resume(self, queue: str) -> None:
        """End a pause."""
        _ = self.contents.pauses.pop(queue, None)

    def pauses(self) -> dict[str, Pause]:
        """List the pauses."""
        return dict(self.contents.pauses)

    def watch_cancellations(self) -> MemoryWatch:
        """Begin to watch for requests."""
        watch = MemoryWatch(self.contents)
        watch.add(CANCELLATIONS)
        return watch

    def find(self, name: str) -> Item | None:
        """Look for an entry."""
        kept = self.contents.entries.get(name)
        return None if kept is None else self._item(kept)

    def remembered_until(self, name: str) -> float | None:
        """Look until when a name is remembered."""
        return self.contents.remembered[name] if self.contents.is_remembered(name) else None

    def remembered(self, *, after: str = "", most: int | None = None) -> list[tuple[str, float]]:
        """List the names that are remembered."""
        contents = self.contents
        names = sorted(name for name in [*contents.remembered] if name > after and contents.is_remembered(name))
        return [(name, contents.remembered[name]) for name in names[:most]]

    def remember_for(self, name: str) -> float | None:
        """Look for how long the name of an entry is to be remembered."""
        kept = self.contents.entries.get(name)
        return None if kept is None else kept.remember

    def queues(self) -> list[str]:
        """Return the queues, sorted."""
        return sorted(self.contents.queues)

    def inventory(
        self, queue: str | None = None, state: State | None = None, *, most: int | None = None
    ) -> Iterator[Item]:
        """Yield every entry."""
        found = self.contents.each(queue, state)
        return map(self._item, found if most is None else heapq.nsmallest(most, found, key=lambda kept: kept.name))

    def _item(self, kept: Kept) -> Item:
        stat, place = kept.stat(), kept.place
        progress = progress_in(self.notes(kept.name)) if place.state is State.CHECKED_OUT else None
        due_at = aware(kept.due_at) if place.state is State.WAITING and kept.due_at is not None else None
        moved_at, data_size = max(kept.moved_at, kept.written_at), len(kept.data)
        is_held = place.state is State.CHECKED_OUT and kept.name in self.contents.locked
        owner = Owner(*this_process()) if is_held else None
        return Item(kept.name, place, stat.size, stat.modified_at, owner, progress, due_at, None, moved_at, data_size)

    def count(self, queue: str | None = None, state: State | None = None) -> int:
        """Count entries."""
        return sum(1 for _ in self.contents.each(queue, state))

    def examine(self, wanted: Wanted, judge: Judge) -> Iterator[Findings]:  # noqa: ARG002  # it yields all that there is
        """Look at everything."""
        return (self.look_closely(name, judge) for name in [*self.contents.entries, *self.contents.reserved])

    def look_closely(self, name: str, judge: Judge) -> Findings:
        """Look at one name."""
        contents = self.contents
        with contents.mutex:
            kept, reserved_at = contents.entries.get(name), contents.reserved.get(name)
            holder = Holder.SOMEBODY if name in contents.locked else Holder.NOBODY
        if kept is None:
            return Findings(name, ()) if reserved_at is None else of_reservation(name, reserved_at, holder)
        place, is_judged = kept.place, kept.place.state is State.AVAILABLE
        return of_entry(
            name,
            place,
            written_at=kept.written_at,
            moved_at=kept.moved_at,
            due_at=kept.due_at,
            has_data=True,
            fault=judge(place.queue, kept.metadata) if is_judged else None,
            holder=holder,
        )

    def advice(self) -> list[Advice]:
        """Return nothing: there is nothing to look after."""
        return []

    def close(self) -> None:
        """Keep everything, for the other handles."""

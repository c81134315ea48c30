"""The directory store: the `Storage` protocol on a spool directory. Most methods are functions of its parts."""

from __future__ import annotations

import contextlib
import errno
import functools
import heapq
import math
import threading
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from trio_multispool.clock import wall_clock
from trio_multispool.errors import (
    DataNotFound,
    EntryBusy,
    EntryNotFound,
    NameTaken,
    OwnershipLost,
    SpoolError,
    StorageFailure,
)
from trio_multispool.events import Event, log
from trio_multispool.model.lifecycle import Place, State
from trio_multispool.model.policies import Durability
from trio_multispool.storage.directory import (
    cancellations,
    checkout,
    data,
    direct,
    enqueue,
    opening,
    pauses,
    recovery,
    remembered,
    settle,
)
from trio_multispool.storage.directory import notes as beside
from trio_multispool.storage.directory import quarantine as aside
from trio_multispool.storage.directory import waiting as waited
from trio_multispool.storage.directory.context import Context
from trio_multispool.storage.directory.disk.files import read_file
from trio_multispool.storage.directory.disk.format import read_format
from trio_multispool.storage.directory.disk.layout import DATA, REMEMBERED, checkout_of, directory_of, waiting_of
from trio_multispool.storage.directory.disk.locks import locks_at_a_time
from trio_multispool.storage.directory.disk.syscalls import SystemCalls
from trio_multispool.storage.directory.inotify import (
    ArrivalsWatch,
    CancellationWatch,
    DirectoryWatch,
    EntryWatch,
    watch,
)
from trio_multispool.storage.directory.schedule import Due, WaitingEntries
from trio_multispool.storage.directory.slots import ByteSlots
from trio_multispool.storage.directory.source import DirectorySource
from trio_multispool.storage.directory.window import Window
from trio_multispool.storage.protocol import MOST_SETTLED
from trio_multispool.storage.requests import Releasing, Removing, Saving
from trio_multispool.storage.singly import claim_next

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator, Iterator, Sequence
    from contextlib import AbstractContextManager

    import msgspec

    from trio_multispool.model.cancellation import CancelRequest
    from trio_multispool.model.pauses import Pause
    from trio_multispool.model.types import T
    from trio_multispool.model.verdicts import Unavailable
    from trio_multispool.storage.directory.claims import DirectoryClaim, DirectoryReservation
    from trio_multispool.storage.directory.disk.layout import Layout
    from trio_multispool.storage.findings import Finding, Findings, Judge, Loose, Wanted
    from trio_multispool.storage.handles import Slot
    from trio_multispool.storage.requests import (
        Advice,
        Content,
        Item,
        NewEntry,
        NotDue,
        Recovered,
        Settlement,
        Standing,
        Stat,
    )


class DirectoryStorage(Context):
    """An open spool directory, made by `open`, `open_unsafe` or `look`. `Storage` says what the methods do."""

    def __init__(
        self, layout: Layout, level: Durability, *, adopted: bool, now: Callable[[], float] = wall_clock
    ) -> None:
        """Take over an open directory."""
        super().__init__(layout, level, adopted=adopted, now=now)
        self._arrivals: ArrivalsWatch = ArrivalsWatch(layout)
        self._slots: ByteSlots = ByteSlots(layout)
        self._waiting: dict[str, WaitingEntries] = {}
        self._windows: dict[str, Window] = {}
        self._mutex = threading.Lock()
        self.recovered_at_first: list[Recovered] = []
        """What recovery did when the spool was opened."""

    @classmethod
    def open(  # noqa: PLR0913  # what the caller of Spool.load can say
        cls,
        path: str | os.PathLike[str],
        queues: Sequence[str],
        *,
        create: bool = False,
        adopted: bool = True,
        mode: int = 0o700,
        durability: Durability = Durability.POWER,
        trust_file_system: bool = False,
        recover: bool = True,
        calls: SystemCalls | None = None,
        now: Callable[[], float] = wall_clock,
    ) -> DirectoryStorage:
        """Open a spool with these queues, and recover what dead processes held; with `create`, make missing parts.

        A new one is `adopted`, or else one that programs without locks may use too.
        """
        if create:
            opening.create(
                path, queues, calls or SystemCalls(), mode=mode, trust_file_system=trust_file_system, adopted=adopted
            )
        with opening.opened(path, calls) as layout:
            adopted = opening.check(layout, queues, trust_file_system=trust_file_system)  # what it is on disk
            storage = cls(layout, durability, adopted=adopted, now=now)
            if durability is Durability.POWER and not create:
                opening.sync_queues(layout, queues)
            if not adopted and opening.is_unfinished(layout):
                message = (
                    "making or adopting the spool %(spool)s was not finished, so nothing is recovered: do it again"
                )
                log(storage.log.warning, Event.UNFINISHED, layout.path, message)
            if recover:
                storage.recovered_at_first = storage.recover(insist=False)
            return storage

    @classmethod
    def open_unsafe(
        cls,
        path: str | os.PathLike[str],
        *,
        durability: Durability = Durability.POWER,
        calls: SystemCalls | None = None,
    ) -> DirectoryStorage:
        """Open a directory as a spool, without checking that it is one, and without recovering anything."""
        with opening.opened(path, calls) as layout:
            adopted = read_format(layout)
        return cls(layout, durability, adopted=adopted)

    @classmethod
    def look(cls, path: str | os.PathLike[str]) -> DirectoryStorage:
        """Open a spool to look at it: recovers nothing, and writes nothing."""
        with opening.opened(path) as layout:
            adopted = opening.check(layout, (), trust_file_system=True)
        return cls(layout, Durability.PROCESS, adopted=adopted)

    # Operations that are functions of the parts, which take this store as their context.

    def reserve(self, name: str, *, unique: bool = False, briefly: bool = False) -> DirectoryReservation:
        """Hold a name that no entry has."""
        if not briefly:  # else the enqueue does it
            self.layout.check_named()
        try:
            return enqueue.reserve(self, name, unique=unique)
        except (NameTaken, EntryBusy, StorageFailure):  # perhaps only because the spool has gone
            self.layout.check_still_named()
            raise

    def give_up(self, reservation: DirectoryReservation) -> None:
        """Give an unused name back."""
        enqueue.give_up(self, reservation)

    def remember(self, reservation: DirectoryReservation, remember: float, *, durability: Durability | None) -> None:
        """Remember a name that has no entry."""
        self.layout.check_named()
        remembered.remember(self, reservation, remember, durability=durability)

    def enqueue_together(self, enqueuings: Sequence[NewEntry[DirectoryReservation]]) -> list[BaseException | None]:
        """Make several entries with shared syncs."""
        return self._told_gone(enqueue.enqueue_together(self, enqueuings))

    def claim(
        self, place: Place, name: str, *, due_by: float = math.inf, before_commit: Callable[[], None]
    ) -> DirectoryClaim | Unavailable | NotDue:
        """Check the entry out."""
        self.layout.check_named()
        self.layout.follow(checkout_of(place.queue))
        return checkout.claim(self, place, name, due_by=due_by, before_commit=before_commit)

    def claims_unsafe(self, queue: str) -> list[DirectoryClaim]:
        """Return claims on all that is checked out."""
        self.layout.check_named()
        return checkout.claims_unsafe(self, queue)

    def stat(self, place: Place, name: str) -> Stat:
        """Look at an entry's metadata file, wherever it is."""
        self.layout.check_named()
        return direct.stat(self, place, name)

    def replace_metadata(
        self,
        queue: str,
        name: str,
        metadata: bytes,
        *,
        durability: Durability | None,
        before_commit: Callable[[], None],
    ) -> None:
        """Rewrite an available entry's metadata."""
        self.layout.check_named()
        direct.replace_metadata(self, queue, name, metadata, durability=durability, before_commit=before_commit)

    def delete(
        self, queue: str, name: str, *, durability: Durability | None, before_commit: Callable[[], None]
    ) -> None:
        """Delete an available entry."""
        self.layout.check_named()
        direct.delete(self, queue, name, durability=durability, before_commit=before_commit)

    def read_data(self, name: str, read: Callable[[BinaryIO], T], *, owned: bool = False) -> T:
        """Read the entry's data."""
        with self._where_named(owned=owned):
            return data.read_data(self, name, read)

    def read_entry(
        self,
        queue: str,
        name: str,
        read: Callable[[bytes, Stat, BinaryIO], T],
        *,
        state: State = State.AVAILABLE,
    ) -> T | Unavailable:
        """Read a whole entry under its lock."""
        self.layout.check_named()
        return data.read_entry(self, Place(queue, state), name, read)

    def replace_data(
        self,
        name: str,
        claim: DirectoryClaim | None,
        content: Content,
        *,
        durability: Durability | None,
        before_commit: Callable[[], None],
    ) -> None:
        """Replace the entry's data."""
        if claim is None:
            self.layout.check_named()
        data.replace_data(self, name, claim, content, durability=durability, before_commit=before_commit)

    def data_at_hand(self, claim: DirectoryClaim) -> bytes | None:  # noqa: ARG002  # there are none for any
        """Return nothing: it is read when it is asked for."""
        return None

    def stat_data(self, name: str, *, owned: bool = False) -> Stat:
        """Look at the entry's data file."""
        with self._where_named(owned=owned):
            return data.stat_data(self, name)

    def annotate(
        self, claim: DirectoryClaim, key: str, value: bytes | None, found: dict[str, msgspec.Raw] | None = None
    ) -> None:
        """Set a key of an entry's notes."""
        beside.annotate(self, claim, key, value, found)

    def carrier(self, name: str) -> dict[str, str]:
        """Read the carrier of an entry."""
        return beside.carrier_of(self, name)

    def quarantine(self, claim: DirectoryClaim, reason: str) -> None:
        """Set the entry aside."""
        aside.quarantine(self, claim, reason)

    def quarantine_reason(self, name: str) -> str | None:
        """Return why an entry was set aside."""
        return aside.reason_of(self, name)

    def restore(
        self,
        queue: str,
        name: str,
        *,
        to: str | None = None,
        durability: Durability | None,
        before_commit: Callable[[], None],
    ) -> None:
        """Put back an entry that was set aside."""
        self.layout.check_named()
        aside.restore(self, queue, name, to=to, durability=durability, before_commit=before_commit)

    def discard(
        self, queue: str, name: str, *, durability: Durability | None, before_commit: Callable[[], None]
    ) -> None:
        """Delete an entry that was set aside."""
        self.layout.check_named()
        aside.discard(self, queue, name, durability=durability, before_commit=before_commit)

    def recover(self, queue: str | None = None, *, insist: bool = True) -> list[Recovered]:
        """Put back what dead owners held."""
        self.layout.check_named()
        return recovery.recover(self, queue, insist=insist)

    def recover_all(self, *, dry_run: bool = False) -> Iterator[Recovered | SpoolError | None]:
        """Recover and sweep."""
        self.layout.check_named()
        return recovery.recover_all(self, dry_run=dry_run)

    def reserve_again(self, name: str) -> bool:
        """Make a file in `.registry` again."""
        self.layout.check_named()
        return recovery.reserve_again(self, name)

    def clear_temporary(self, name: str) -> bool:
        """Unlink a file in `.tmp`, if its writer is dead."""
        self.layout.check_named()
        return recovery.clear_temporary(self, name)

    def _told_gone(self, failures: list[BaseException | None]) -> list[BaseException | None]:
        """Return why things were not done: an entry, or a directory, may be gone because all of the spool is."""
        for number, failure in enumerate(failures):
            if isinstance(failure, OwnershipLost) or (
                isinstance(failure, StorageFailure) and failure.errno == errno.ENOENT
            ):
                try:
                    self.layout.check_still_named()
                except SpoolError as gone:
                    gone.__cause__ = failure
                    failures[number] = gone
        return failures

    @contextlib.contextmanager
    def _where_named(self, *, owned: bool) -> Generator[None]:
        """Look first whether the spool is where it was; for what is owned, only if it is not found."""
        if not owned:
            self.layout.check_named()
        try:
            yield
        except DataNotFound:  # perhaps only because the spool has gone
            self.layout.check_still_named()
            raise

    def close_afterwards(self, afterwards: Callable[[Callable[[], None]], None]) -> None:
        """Close directories that are not held any more when no operation can be using them."""
        self.layout.afterwards = afterwards

    def settled_at_a_time(self) -> int:
        """Return how many claims are settled at once: the more, the fewer syncs."""
        return MOST_SETTLED

    def in_one_look(self) -> AbstractContextManager[None]:
        """In the block, look once whether the spool is where it was."""
        return self.layout.in_one_look()

    def at_a_time(self) -> int:
        """Count descriptors."""
        return locks_at_a_time()

    blocks: bool = True
    """Every method may wait for the disk."""

    @property
    def location(self) -> str:
        """The spool's directory, absolute."""
        return self.layout.path

    def source(self, queue: str, *, sorts_last: bool) -> DirectorySource:
        """Begin to find the entries of a queue."""
        with self._mutex:
            waiting = self._waiting.setdefault(queue, WaitingEntries(self.layout, self._arrivals, queue, self.now))
            window = self._windows.setdefault(queue, Window(functools.partial(self.names, queue)))
            return DirectorySource(self, self, queue, window=window, waiting=waiting, sorts_last=sorts_last)

    def close_source(self, queue: str) -> None:
        """Forget the names of a queue with its last reader, and what arrives with the last of all."""
        with self._mutex:
            window = self._windows[queue]
            window.sources -= 1
            if not window.sources:
                del self._windows[queue]
                self._waiting[queue].rest()
            if not self._windows:
                self._arrivals.stop()

    def slot(self, numbers: range) -> Slot | None:
        """Hold a free slot."""
        return next(filter(None, map(self._slots.take, numbers)), None)

    def names(self, queue: str, *, after: str = "", most: int | None = None) -> list[str]:
        """List what is available in a queue."""
        self.layout.check_named()
        _ = self.layout.refresh(queue)
        if most is None and not after:
            return self.layout.entry_names(queue)
        later = (name for name in self.layout.each_entry_name(queue) if name > after)
        return sorted(later) if most is None else heapq.nsmallest(most, later)

    def read_metadata(self, place: Place, name: str) -> bytes:
        """Read an entry's metadata wherever it is."""
        self.layout.check_named()
        return self.read_listed(place, name)

    def read_listed(self, place: Place, name: str) -> bytes:
        """Read the metadata of an entry that a source has found, likewise."""
        try:
            directory = directory_of(place)
            return self.layout.again_if_replaced(directory, lambda: read_file(self.layout, directory, name))
        except FileNotFoundError as error:
            self.layout.check_still_named()
            raise EntryNotFound(place.queue, name) from error

    def waiting(
        self, queue: str, *, after: tuple[float, str] | None = None, most: int | None = None
    ) -> list[tuple[float, str]]:
        """List the entries that wait for a queue."""
        self.layout.check_named()
        later = (each for each in waited.waiting(self.layout, queue) if after is None or each > after)
        return sorted(later) if most is None else heapq.nsmallest(most, later)

    def settle(self, settlements: Sequence[Settlement[DirectoryClaim]]) -> list[BaseException | None]:
        """Settle several claims with shared syncs. They go to the queues that are named, wherever they are from."""
        moved = [each for each in settlements if type(each) is not Removing]
        for directory in filter(None, set(map(_target_of, moved))):
            with contextlib.suppress(SpoolError):  # the settlements tell
                _ = self.layout.refresh(directory)
        failures = settle.settle(self, settlements)
        if any(failures):
            failures = self._told_gone(failures)
        for settlement, failure in zip(settlements, failures, strict=True):
            claim = settlement.claim
            if failure is None and isinstance(settlement, Releasing) and claim.due_at is not None:
                waiting = self._waiting.get(claim.queue)
                if waiting is not None:  # where the kernel does not tell
                    waiting.put_back(Due(claim.due_at, claim.name))
        taking = {each.claim.queue for each in settlements if each.then is not None}
        if taking:
            try:
                self.layout.check_named()
                for queue in taking:
                    self.layout.follow(checkout_of(queue))
            except SpoolError:  # nothing more is taken; the next look of a source raises it
                return failures
            claim_next(settlements, failures)
        return failures

    def data_path(self, name: str) -> Path | None:
        """Return the path of the data."""
        return Path(self.layout.full(DATA, name))

    @contextlib.contextmanager
    def data_file(self, name: str) -> Generator[Path]:
        """Yield the path of the data, if it is there: where the spool was exchanged, it would lead to other data."""
        _ = self.stat_data(name)
        yield Path(self.layout.full(DATA, name))

    def notes(self, name: str) -> dict[str, msgspec.Raw]:
        """Read an entry's notes."""
        return beside.read_notes(self, name)

    def depths(self) -> dict[Place, int]:
        """Count the names in every place."""
        self.layout.check_named()
        return {place: len(self.layout.entry_names(directory_of(place))) for place in self.places()}

    def standings(self) -> list[Standing]:
        """List every place."""
        self.layout.check_named()
        from trio_multispool.storage.directory.standing import standings  # noqa: PLC0415  # as in `examine`

        return standings(self)

    def adopt(self) -> None:
        """Write `.spool.json`."""
        self.layout.check_named()
        opening.adopt(self.layout)
        _ = self.is_adopted()

    def watch(self) -> DirectoryWatch | None:
        """Begin to watch queues."""
        return watch(self.layout, DirectoryWatch)

    def watch_entries(self) -> EntryWatch | None:
        """Begin to watch entries."""
        return watch(self.layout, EntryWatch)

    def ask_to_cancel(self, queue: str, name: str, request: CancelRequest) -> None:
        """Make a request."""
        self.layout.check_named()
        cancellations.ask_to_cancel(self, queue, name, request)

    def withdraw_cancellation(self, name: str) -> None:
        """Delete a request."""
        cancellations.withdraw(self, name)

    def cancellation(self, queue: str, name: str) -> CancelRequest | None:
        """Read a request."""
        return cancellations.cancellation(self, queue, name)

    def asked_to_cancel(self) -> list[str]:
        """List the requests."""
        return cancellations.asked_to_cancel(self)

    def watch_cancellations(self) -> CancellationWatch | None:
        """Begin to watch for requests."""
        return watch(self.layout, CancellationWatch)

    def pause(self, queue: str, wanted: Pause) -> None:
        """Pause a queue."""
        self.layout.check_named()
        pauses.pause(self, queue, wanted)

    def resume(self, queue: str) -> None:
        """End a pause."""
        self.layout.check_named()
        pauses.resume(self, queue)

    def pauses(self) -> dict[str, Pause]:
        """List the pauses."""
        return pauses.pauses(self)

    def find(self, name: str) -> Item | None:
        """Look for an entry in all places."""
        self.layout.check_named()
        from trio_multispool.storage.directory.inventory import find  # noqa: PLC0415  # as in `examine`

        return find(self.layout, name)

    def remembered_until(self, name: str) -> float | None:
        """Read until when a name is remembered."""
        return remembered.remembered_until(self, name)

    def remembered(self, *, after: str = "", most: int | None = None) -> list[tuple[str, float]]:
        """List `.keys`."""
        self.layout.check_named()
        return remembered.remembered(self, after, most)

    def remember_for(self, name: str) -> float | None:
        """Read for how long the name of an entry is to be remembered."""
        return remembered.how_long(self, name) if self.layout.is_there(REMEMBERED) else None

    def queues(self) -> list[str]:
        """Return the queues on disk."""
        self.layout.check_named()
        return self.layout.queues()

    def inventory(
        self, queue: str | None = None, state: State | None = None, *, most: int | None = None
    ) -> Iterator[Item]:
        """Yield every entry."""
        self.layout.check_named()
        from trio_multispool.storage.directory.inventory import inventory  # noqa: PLC0415  # as in `examine`

        return inventory(self.layout, self.places(queue), state, most)

    def count(self, queue: str | None = None, state: State | None = None) -> int:
        """Count entries."""
        self.layout.check_named()
        from trio_multispool.storage.directory.inventory import count  # noqa: PLC0415  # as in `examine`

        return count(self.layout, self.places(queue), state)

    def examine(self, wanted: Wanted, judge: Judge) -> Iterator[Finding | None]:
        """Join the listings of all directories."""
        self.layout.check_named()
        from trio_multispool.storage.directory import examine  # noqa: PLC0415  # most programs never examine

        return examine.examine(self, wanted, judge)

    def look_closely(self, name: str, judge: Judge) -> Findings:
        """Look a name up under its lock."""
        self.layout.check_named()
        from trio_multispool.storage.directory import examine  # noqa: PLC0415  # most programs never examine

        return examine.look_closely(self, name, judge)

    def look_again(self, finding: Loose) -> Loose | None:
        """Look at a file once more."""
        from trio_multispool.storage.directory import examine  # noqa: PLC0415  # most programs never examine

        return examine.look_again(self, finding)

    def recover_name(self, name: str) -> Recovered | None:
        """Put one entry back, or collect a name."""
        self.layout.check_named()
        return recovery.recover_name(self, name) if self.is_adopted() else None

    def advice(self) -> list[Advice]:
        """Return nothing: whatever makes a directory unsafe is refused when it is opened, or is a finding."""
        return []

    def close(self) -> None:
        """Close all descriptors."""
        remembered.stop_collecting(self)
        self._slots.close()
        self._arrivals.close()
        self.layout.close()


def _target_of(settlement: Settlement[DirectoryClaim]) -> str | None:
    """Return the directory that an entry goes to, unless it is made sure of in any case; `None` if it goes nowhere."""
    match settlement:
        case Saving():
            return settlement.queue
        case Releasing():
            claim = settlement.claim
            return claim.queue if claim.due_at is None else waiting_of(claim.queue)
        case _:
            return None

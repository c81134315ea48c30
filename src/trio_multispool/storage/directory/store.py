"""The directory store: the `Storage` protocol on a spool directory. Each method calls the part that does the work."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from trio_multispool.clock import wall_clock
from trio_multispool.errors import EntryNotFound, OutOfSpace, ReadOnlySpool, TooManyOpenFiles
from trio_multispool.events import Event, log
from trio_multispool.model.lifecycle import Place, State
from trio_multispool.model.policies import Durability
from trio_multispool.model.verdicts import Unavailable
from trio_multispool.storage.directory import (
    checkout,
    data,
    direct,
    enqueue,
    notes,
    opening,
    quarantine,
    recovery,
    remembered,
    settle,
    waiting,
)
from trio_multispool.storage.directory.context import Context
from trio_multispool.storage.directory.disk.files import read_file
from trio_multispool.storage.directory.disk.format import read_format
from trio_multispool.storage.directory.disk.layout import DATA, REASONS, directory_of, waiting_of
from trio_multispool.storage.directory.disk.locks import locks_at_a_time
from trio_multispool.storage.directory.disk.syscalls import SystemCalls
from trio_multispool.storage.directory.inotify import ArrivalsWatch, DirectoryWatch, watch
from trio_multispool.storage.directory.notes import carrier_of
from trio_multispool.storage.directory.schedule import Due, WaitingEntries
from trio_multispool.storage.directory.slots import ByteSlot, ByteSlots
from trio_multispool.storage.directory.source import DirectorySource
from trio_multispool.storage.requests import Releasing

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence
    from typing import BinaryIO

    import msgspec

    from trio_multispool.errors import SpoolError
    from trio_multispool.model.types import T
    from trio_multispool.storage.directory.claims import DirectoryClaim, DirectoryReservation
    from trio_multispool.storage.directory.disk.layout import Layout
    from trio_multispool.storage.findings import Finding, Findings, Foreign, Judge, Temporary, Wanted
    from trio_multispool.storage.requests import Content, Item, NewEntry, NotDue, Recovered, Settlement, Stat


class DirectoryStorage:
    """An open spool directory, made by `open`, `open_unsafe` or `look`. `Storage` says what the methods do."""

    def __init__(self, context: Context) -> None:
        """Take over an open spool."""
        self._context = context
        self._layout: Layout = context.layout
        self._arrivals: ArrivalsWatch = ArrivalsWatch(context.layout)
        self._waiting: dict[str, WaitingEntries] = {}
        self._sources = 0
        self._mutex = threading.Lock()
        self.recovered_at_first: list[Recovered] = []
        """What recovery did when the spool was opened."""
        self._slots: ByteSlots = ByteSlots(context.layout)

    @classmethod
    def open(  # noqa: PLR0913  # what the caller of Spool.load can say
        cls,
        path: str | os.PathLike[str],
        queues: Sequence[str],
        *,
        create: bool = False,
        mode: int = 0o700,
        durability: Durability = Durability.POWER,
        trust_file_system: bool = False,
        recover: bool = True,
        calls: SystemCalls | None = None,
        now: Callable[[], float] = wall_clock,
    ) -> DirectoryStorage:
        """Open a spool with these queues, and recover what dead processes held; with `create`, make missing parts."""
        calls = SystemCalls() if calls is None else calls
        if create:
            opening.create(path, queues, calls, mode=mode, trust_file_system=trust_file_system)
        layout = opening.open_layout(path, calls)
        try:
            adopted = opening.check(layout, queues, trust_file_system=trust_file_system)
            storage = cls(Context(layout, durability, adopted=adopted, now=now))
            if durability is Durability.POWER and not create:
                opening.sync_queues(layout, queues)
            if not adopted and opening.is_unfinished(layout):
                message = (
                    "making or adopting the spool %(spool)s was not finished, so nothing is recovered: do it again"
                )
                log(storage._context.log.warning, Event.UNFINISHED, layout.path, message)
            if recover:
                storage.recovered_at_first = storage.recover(insist=False)
        except BaseException:  # passed on: whatever it was, nobody will close it
            layout.close()
            raise
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
        layout = opening.open_layout(path, SystemCalls() if calls is None else calls)
        try:
            adopted = read_format(layout)
        except BaseException:  # passed on: whatever it was, nobody will close it
            layout.close()
            raise
        return cls(Context(layout, durability, adopted=adopted))

    @classmethod
    def look(cls, path: str | os.PathLike[str]) -> DirectoryStorage:
        """Open a spool to look at it: recovers nothing, and writes nothing."""
        layout = opening.open_layout(path, SystemCalls())
        try:
            adopted = opening.check(layout, (), trust_file_system=True)
        except BaseException:  # passed on: whatever it was, nobody will close it
            layout.close()
            raise
        return cls(Context(layout, Durability.PROCESS, adopted=adopted))

    @property
    def location(self) -> str:
        """The spool's directory, absolute."""
        return self._layout.path

    @property
    def blocks(self) -> bool:
        """Every method may wait for the disk."""
        return True

    def now(self) -> float:
        """Return the time of day."""
        return self._context.now()

    @property
    def adopted(self) -> bool:
        """Whether every user of the spool is known to take locks."""
        return self._context.adopted

    def reserve(self, name: str, *, unique: bool = False) -> DirectoryReservation:
        """Hold a name that no entry has."""
        return enqueue.reserve(self._context, name, unique=unique)

    def remember(self, reservation: DirectoryReservation, remember: float, *, durability: Durability | None) -> None:
        """Remember a name that has no entry."""
        remembered.remember(self._context, reservation.name, remember, self._context.syncs.plan(durability))

    def give_up(self, reservation: DirectoryReservation) -> None:
        """Give an unused name back."""
        enqueue.give_up(self._context, reservation)

    def carrier(self, name: str) -> dict[str, str]:
        """Read the carrier of an entry."""
        return carrier_of(self._context, name)

    def enqueue_together(self, enqueuings: Sequence[NewEntry[DirectoryReservation]]) -> list[BaseException | None]:
        """Make several entries with shared syncs."""
        return enqueue.enqueue_together(self._context, enqueuings)

    def source(self, queue: str, *, sorts_last: bool) -> DirectorySource:
        """Begin to find the entries of a queue."""
        with self._mutex:
            self._sources += 1
            waiting = self._waiting.setdefault(
                queue, WaitingEntries(self._layout, self._arrivals, queue, self._context.now)
            )
        return DirectorySource(
            self,
            self._layout,
            queue,
            waiting=waiting,
            now=self._context.now,
            closed=self._close_source,
            sorts_last=sorts_last,
        )

    def _close_source(self) -> None:
        with self._mutex:
            self._sources -= 1
            if not self._sources:
                self._arrivals.stop()

    def at_a_time(self) -> int:
        """Count descriptors."""
        return locks_at_a_time()

    def slot(self, numbers: range) -> ByteSlot | None:
        """Hold a free slot."""
        return next(filter(None, map(self._slots.take, numbers)), None)

    def names(self, queue: str) -> list[str]:
        """List what is available in a queue."""
        _ = self._layout.refresh(queue)
        return self._layout.entry_names(queue)

    def read_metadata(self, place: Place, name: str) -> bytes:
        """Read an entry's metadata wherever it is."""
        try:
            directory = directory_of(place)
            return self._layout.again_if_replaced(directory, lambda: read_file(self._layout, directory, name))
        except FileNotFoundError as error:
            raise EntryNotFound(place.queue, name) from error

    def stat(self, place: Place, name: str) -> Stat:
        """Look at an entry's metadata file wherever it is."""
        directory = directory_of(place)
        with self._layout.doing("look at", directory, name):
            try:
                found = self._layout.again_if_replaced(
                    directory, lambda: self._layout.calls.stat(name, self._layout.fd(directory))
                )
            except FileNotFoundError as error:
                raise EntryNotFound(place.queue, name) from error
        return data.as_stat(found, self._layout.full(directory, name))

    def quarantine_reason(self, name: str) -> str | None:
        """Return why an entry was set aside."""
        try:
            return read_file(self._layout, REASONS, name).decode(errors="replace").rstrip("\n")
        except FileNotFoundError:
            return None

    def claim(
        self, place: Place, name: str, *, due_by: float = math.inf, before_commit: Callable[[], None]
    ) -> DirectoryClaim | Unavailable | NotDue:
        """Check the entry out."""
        if place.state is State.AVAILABLE:
            return checkout.claim(self._context, place.queue, name, before_commit=before_commit)
        if self._layout.optional_fd(waiting_of(place.queue)) is None:
            return Unavailable.GONE
        return checkout.claim(self._context, place.queue, name, due_by=due_by, before_commit=before_commit)

    def waiting(self, queue: str) -> Iterator[tuple[float, str]]:
        """Yield the entries that wait for a queue."""
        return waiting.waiting(self._layout, queue)

    def settle(self, settlements: Sequence[Settlement[DirectoryClaim]]) -> list[BaseException | None]:
        """Settle several claims with shared syncs."""
        failures = settle.settle(self._context, settlements)
        for settlement, failure in zip(settlements, failures, strict=True):
            claim = settlement.claim
            if failure is None and isinstance(settlement, Releasing) and claim.due_at is not None:
                waiting = self._waiting.get(claim.queue)
                if waiting is not None:  # where the kernel does not tell
                    waiting.put_back(Due(claim.due_at, claim.name))
        return failures

    def quarantine(self, claim: DirectoryClaim, reason: str) -> None:
        """Set the entry aside."""
        quarantine.quarantine(self._context, claim, reason)

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
        quarantine.restore(self._context, queue, name, to=to, durability=durability, before_commit=before_commit)

    def discard(
        self, queue: str, name: str, *, durability: Durability | None, before_commit: Callable[[], None]
    ) -> None:
        """Delete an entry that was set aside."""
        quarantine.discard(self._context, queue, name, durability=durability, before_commit=before_commit)

    def claims_unsafe(self, queue: str) -> list[DirectoryClaim]:
        """Return claims on all that is checked out."""
        return checkout.claims_unsafe(self._context, queue)

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
        direct.replace_metadata(
            self._context, queue, name, metadata, durability=durability, before_commit=before_commit
        )

    def delete(
        self, queue: str, name: str, *, durability: Durability | None, before_commit: Callable[[], None]
    ) -> None:
        """Delete an available entry."""
        direct.delete(self._context, queue, name, durability=durability, before_commit=before_commit)

    def read_data(self, name: str, read: Callable[[BinaryIO], T]) -> T:
        """Read the entry's data."""
        return data.read_data(self._context, name, read)

    def read_entry(self, queue: str, name: str, read: Callable[[bytes, Stat, BinaryIO], T]) -> T | Unavailable:
        """Read a whole entry under its lock."""
        return data.read_entry(self._context, queue, name, read)

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
        data.replace_data(self._context, name, claim, content, durability=durability, before_commit=before_commit)

    def stat_data(self, name: str) -> Stat:
        """Look at the entry's data file."""
        return data.stat_data(self._context, name)

    def data_path(self, name: str) -> Path | None:
        """Return the path of the data."""
        return Path(self._layout.full(DATA, name))

    def annotate(self, claim: DirectoryClaim, key: str, value: bytes | None) -> None:
        """Set a key of an entry's notes."""
        notes.annotate(self._context, claim, key, value)

    def notes(self, name: str) -> dict[str, msgspec.Raw]:
        """Read an entry's notes."""
        return notes.read_notes(self._layout, name)

    def depths(self) -> dict[Place, int]:
        """Count the names in every place."""
        return {place: len(self._layout.entry_names(directory_of(place))) for place in self._layout.places()}

    def recover(self, queue: str | None = None, *, insist: bool = True) -> list[Recovered]:
        """Put back what dead owners held."""
        try:
            return recovery.recover(self._context, queue)
        except (OutOfSpace, ReadOnlySpool, TooManyOpenFiles) as error:
            if insist:
                raise
            message = "recovery of spool %(spool)s was put off: %(error)s"
            log(self._context.log.warning, Event.RECOVERY_PUT_OFF, self.location, message, error=error)
            return []

    def recover_all(self, *, dry_run: bool = False) -> Iterator[Recovered | SpoolError]:
        """Recover and sweep."""
        return recovery.recover_all(self._context, dry_run=dry_run)

    def adopt(self) -> None:
        """Write `.spool.json`."""
        opening.adopt(self._layout)
        _ = self._context.is_adopted()

    def watch(self) -> DirectoryWatch | None:
        """Begin to watch the spool."""
        return watch(self._layout)

    def queues(self) -> list[str]:
        """Return the queues on disk."""
        return self._layout.queues()

    def inventory(self, queue: str | None = None, state: State | None = None) -> Iterator[Item]:
        """Yield every entry."""
        from trio_multispool.storage.directory.inventory import inventory  # noqa: PLC0415  # as in `examine`

        return inventory(self._layout, queue, state)

    def count(self, queue: str | None = None, state: State | None = None) -> int:
        """Count entries."""
        from trio_multispool.storage.directory.inventory import count  # noqa: PLC0415  # as in `examine`

        return count(self._layout, queue, state)

    def is_adopted(self) -> bool:
        """Look for `.spool.json`."""
        return self._context.is_adopted()

    def examine(self, wanted: Wanted, judge: Judge) -> Iterator[Finding | None]:
        """Join the listings of all directories."""
        from trio_multispool.storage.directory import examine  # noqa: PLC0415  # most programs never examine

        return examine.examine(self._context, wanted, judge)

    def look_closely(self, name: str, judge: Judge) -> Findings:
        """Look a name up under its lock."""
        from trio_multispool.storage.directory import examine  # noqa: PLC0415  # most programs never examine

        return examine.look_closely(self._context, name, judge)

    def look_again(self, finding: Temporary | Foreign) -> Temporary | Foreign | None:
        """Look at a file once more."""
        from trio_multispool.storage.directory import examine  # noqa: PLC0415  # most programs never examine

        return examine.look_again(self._context, finding)

    def recover_name(self, name: str) -> Recovered | None:
        """Put one entry back, or collect a name."""
        return recovery.recover_name(self._context, name) if self._context.is_adopted() else None

    def reserve_again(self, name: str) -> bool:
        """Make a file in `.registry` again."""
        return recovery.reserve_again(self._context, name)

    def clear_temporary(self, name: str) -> bool:
        """Unlink a file in `.tmp`, if its writer is dead."""
        return recovery.clear_temporary(self._context, name)

    def close(self) -> None:
        """Close all descriptors."""
        remembered.stop_collecting(self._context)
        self._slots.close()
        self._arrivals.close()
        self._layout.close()

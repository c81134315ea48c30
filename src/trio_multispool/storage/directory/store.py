"""The directory store: the `Storage` protocol on a spool directory. Most methods are functions of its parts."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from trio_multispool.clock import wall_clock
from trio_multispool.errors import EntryNotFound
from trio_multispool.events import Event, log
from trio_multispool.model.policies import Durability
from trio_multispool.storage.directory import (
    checkout,
    data,
    direct,
    enqueue,
    notes,
    opening,
    recovery,
    remembered,
    settle,
)
from trio_multispool.storage.directory import quarantine as aside
from trio_multispool.storage.directory import waiting as waited
from trio_multispool.storage.directory.context import Context
from trio_multispool.storage.directory.disk.files import read_file
from trio_multispool.storage.directory.disk.format import read_format
from trio_multispool.storage.directory.disk.layout import DATA, directory_of
from trio_multispool.storage.directory.disk.locks import locks_at_a_time
from trio_multispool.storage.directory.disk.syscalls import SystemCalls
from trio_multispool.storage.directory.inotify import ArrivalsWatch, DirectoryWatch, watch
from trio_multispool.storage.directory.schedule import Due, WaitingEntries
from trio_multispool.storage.directory.slots import ByteSlot, ByteSlots
from trio_multispool.storage.directory.source import DirectorySource
from trio_multispool.storage.requests import Releasing

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence

    import msgspec

    from trio_multispool.model.lifecycle import Place, State
    from trio_multispool.storage.directory.claims import DirectoryClaim
    from trio_multispool.storage.directory.disk.layout import Layout
    from trio_multispool.storage.findings import Finding, Findings, Foreign, Judge, Temporary, Wanted
    from trio_multispool.storage.requests import Item, Recovered, Settlement


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
        self._sources = 0
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
                path,
                queues,
                calls or SystemCalls(),
                mode=mode,
                trust_file_system=trust_file_system,
                adopted=adopted,
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

    # Functions that take this store as their context.
    reserve = enqueue.reserve
    give_up = enqueue.give_up
    remember = remembered.remember
    enqueue_together = enqueue.enqueue_together
    claim = checkout.claim
    claims_unsafe = checkout.claims_unsafe
    stat = direct.stat
    replace_metadata = direct.replace_metadata
    delete = direct.delete
    read_data = data.read_data
    read_entry = data.read_entry
    replace_data = data.replace_data
    stat_data = data.stat_data
    annotate = notes.annotate
    carrier = notes.carrier_of
    quarantine = aside.quarantine
    quarantine_reason = aside.reason_of
    restore = aside.restore
    discard = aside.discard
    recover = recovery.recover
    recover_all = recovery.recover_all
    reserve_again = recovery.reserve_again
    clear_temporary = recovery.clear_temporary

    at_a_time = staticmethod(locks_at_a_time)

    blocks: bool = True
    """Every method may wait for the disk."""

    @property
    def location(self) -> str:
        """The spool's directory, absolute."""
        return self.layout.path

    def source(self, queue: str, *, sorts_last: bool) -> DirectorySource:
        """Begin to find the entries of a queue."""
        with self._mutex:
            self._sources += 1
            waiting = self._waiting.setdefault(queue, WaitingEntries(self.layout, self._arrivals, queue, self.now))
        return DirectorySource(
            self, self.layout, queue, waiting=waiting, now=self.now, closed=self._close_source, sorts_last=sorts_last
        )

    def _close_source(self) -> None:
        with self._mutex:
            self._sources -= 1
            if not self._sources:
                self._arrivals.stop()

    def slot(self, numbers: range) -> ByteSlot | None:
        """Hold a free slot."""
        return next(filter(None, map(self._slots.take, numbers)), None)

    def names(self, queue: str) -> list[str]:
        """List what is available in a queue."""
        _ = self.layout.refresh(queue)
        return self.layout.entry_names(queue)

    def read_metadata(self, place: Place, name: str) -> bytes:
        """Read an entry's metadata wherever it is."""
        try:
            directory = directory_of(place)
            return self.layout.again_if_replaced(directory, lambda: read_file(self.layout, directory, name))
        except FileNotFoundError as error:
            raise EntryNotFound(place.queue, name) from error

    def waiting(self, queue: str) -> Iterator[tuple[float, str]]:
        """Yield the entries that wait for a queue."""
        return waited.waiting(self.layout, queue)

    def settle(self, settlements: Sequence[Settlement[DirectoryClaim]]) -> list[BaseException | None]:
        """Settle several claims with shared syncs."""
        failures = settle.settle(self, settlements)
        for settlement, failure in zip(settlements, failures, strict=True):
            claim = settlement.claim
            if failure is None and isinstance(settlement, Releasing) and claim.due_at is not None:
                waiting = self._waiting.get(claim.queue)
                if waiting is not None:  # where the kernel does not tell
                    waiting.put_back(Due(claim.due_at, claim.name))
        return failures

    def data_path(self, name: str) -> Path | None:
        """Return the path of the data."""
        return Path(self.layout.full(DATA, name))

    def notes(self, name: str) -> dict[str, msgspec.Raw]:
        """Read an entry's notes."""
        return notes.read_notes(self.layout, name)

    def depths(self) -> dict[Place, int]:
        """Count the names in every place."""
        return {place: len(self.layout.entry_names(directory_of(place))) for place in self.layout.places()}

    def adopt(self) -> None:
        """Write `.spool.json`."""
        opening.adopt(self.layout)
        _ = self.is_adopted()

    def watch(self) -> DirectoryWatch | None:
        """Begin to watch the spool."""
        return watch(self.layout)

    def queues(self) -> list[str]:
        """Return the queues on disk."""
        return self.layout.queues()

    def inventory(self, queue: str | None = None, state: State | None = None) -> Iterator[Item]:
        """Yield every entry."""
        from trio_multispool.storage.directory.inventory import inventory  # noqa: PLC0415  # as in `examine`

        return inventory(self.layout, queue, state)

    def count(self, queue: str | None = None, state: State | None = None) -> int:
        """Count entries."""
        from trio_multispool.storage.directory.inventory import count  # noqa: PLC0415  # as in `examine`

        return count(self.layout, queue, state)

    def examine(self, wanted: Wanted, judge: Judge) -> Iterator[Finding | None]:
        """Join the listings of all directories."""
        from trio_multispool.storage.directory import examine  # noqa: PLC0415  # most programs never examine

        return examine.examine(self, wanted, judge)

    def look_closely(self, name: str, judge: Judge) -> Findings:
        """Look a name up under its lock."""
        from trio_multispool.storage.directory import examine  # noqa: PLC0415  # most programs never examine

        return examine.look_closely(self, name, judge)

    def look_again(self, finding: Temporary | Foreign) -> Temporary | Foreign | None:
        """Look at a file once more."""
        from trio_multispool.storage.directory import examine  # noqa: PLC0415  # most programs never examine

        return examine.look_again(self, finding)

    def recover_name(self, name: str) -> Recovered | None:
        """Put one entry back, or collect a name."""
        return recovery.recover_name(self, name) if self.is_adopted() else None

    def close(self) -> None:
        """Close all descriptors."""
        remembered.stop_collecting(self)
        self._slots.close()
        self._arrivals.close()
        self.layout.close()

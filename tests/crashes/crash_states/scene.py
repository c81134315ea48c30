"""A spool on a recorded disk, and the store's operations, each with what must be found of its entry after power loss.

What must be found is worked out from the promise alone, before the store is asked. While an operation runs, its entry
is as it was, or in a state that the operation passes through. Once it has returned, it is in its last state if the
call was of level `POWER`; a call of level `PROCESS` may be undone by power loss, so nothing is ruled out that was
legal before. An entry's data and the rest of it are acknowledged apart: a save does not make an earlier replacement of
the data durable that was not to be, and the other way round. In a spool of level `PROCESS` a call of that level
promises nothing, and its entry may be torn, doubled or gone; but a call of level `POWER` that returns has made all of
its entry safe.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any, TypeAlias

from crash_states.disk import FAR, Sync
from crash_states.recording import KilledError, Recording, RecordingCalls
from helpers.calls import WithoutSyncs
from helpers.stores import (
    DATA,
    DUE,
    NEW,
    NEW_DATA,
    OLD,
    available,
    enqueue_reserved,
    make_store,
    nothing,
    release,
    sweep,
    waiting,
    writing,
)
from trio_multispool import Durability
from trio_multispool.storage.directory.store import DirectoryStorage
from trio_multispool.storage.requests import NewEntry, Releasing, Removing, Saving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from trio_multispool.storage.handles import Claim
    from trio_multispool.storage.requests import Settlement

WHERE = "var/spool"
"""The spool's directory, below the one that is recorded."""

QUEUES = ("send", "retry")

ANY = "torn, or gone"
"""An outcome: nothing was promised about the entry."""

SPOOL = ""
"""The name under which it is expected of the spool itself that it `LOADS`, or that it can be `MADE_AGAIN`."""
LOADS, MADE_AGAIN = "loads", "made again"

KEY_OF = "key of "
"""What follows is the name of an entry that must be remembered if it is in no place."""

NOTES_OF = "notes of "
"""What follows is the name of an entry, of whose notes something is expected: their whole content."""

Found: TypeAlias = tuple[str, bytes, bytes]
"""A place, metadata and data. `None`: the entry is nowhere."""


@dataclasses.dataclass
class _Known:
    """What is known of one entry."""

    places: set[object] = dataclasses.field(default_factory=lambda: {None})
    """Where it may be found with which metadata (both as one value), or `None` or `ANY`."""
    datas: set[bytes] = dataclasses.field(default_factory=set)
    """What data it may have, if it is found."""
    now: Found | None = None
    """Where it is; one that is checked out is counted to its queue, to which recovery returns it."""

    @classmethod
    def safe(cls, now: Found | None) -> _Known:
        """Return what is known of an entry of which everything is safe."""
        return cls({None}) if now is None else cls({now[:2]}, {now[2]}, now)

    def allow(self, now: Found | None) -> None:
        """Let it be found in one more state."""
        self.places.add(None if now is None else now[:2])
        self.datas |= set() if now is None else {now[2]}

    def legal(self) -> frozenset[object]:
        """Return all states in which it may be found."""
        plain = {place for place in self.places if place is None or place == ANY}
        return frozenset(plain | {(*place, data) for place in self.places - plain for data in self.datas})


class Scene:
    """A spool, made and synced, whose use is recorded from here on."""

    def __init__(
        self,
        base: Path,
        before: Scene | None = None,
        *,
        level: Durability = Durability.POWER,
        queues: tuple[str, ...] = QUEUES,
        made: bool = True,
    ) -> None:
        """Make the spool below `base`, or go on with that of a scene before, all of which is safe now.

        If it is not `made`, `create` makes it, and is recorded.
        """
        self.path = base / WHERE
        self.level = level
        self.queues = queues
        """The queues that the program knows that loads the spool after power loss."""
        if made:
            make_store(self.path, queues=queues, calls=WithoutSyncs()).close()
        self.recording = Recording(base)
        self.start = 0
        """The number of records that belong to what was prepared."""
        self._known: dict[str, _Known] = {}
        self._stores: list[DirectoryStorage] = []
        self.recording.expect(SPOOL, frozenset((LOADS,) if made else (LOADS, MADE_AGAIN)))
        for name, known in ({} if before is None else before._known).items():
            self._known[name] = _Known.safe(known.now)
            self.tell(name)
        if made:
            self.one = self.process()

    def create(self, queues: tuple[str, ...] = QUEUES, calls: RecordingCalls | None = None) -> Process:
        """Create the spool, or what is missing of it, and open it."""
        calls = RecordingCalls(self.recording) if calls is None else calls
        store = DirectoryStorage.open(self.path, queues, create=True, durability=self.level, calls=calls)
        self.recording.expect(SPOOL, frozenset((LOADS,)))
        self._stores.append(store)
        return Process(self, store, calls)

    def load(self, queues: tuple[str, ...] = QUEUES) -> Process:
        """Open the spool with these queues, without making anything."""
        calls = RecordingCalls(self.recording)
        store = DirectoryStorage.open(self.path, queues, durability=self.level, calls=calls)
        self._stores.append(store)
        return Process(self, store, calls)

    def process(self, level: Durability | None = None, file_system: int | None = None) -> Process:
        """Open the spool as another process would, without recovering anything."""
        calls = RecordingCalls(self.recording, file_system=file_system)
        store = DirectoryStorage.open_unsafe(self.path, durability=level or self.level, calls=calls)
        self._stores.append(store)
        return Process(self, store, calls)

    def make_safe(self) -> None:
        """Let all that was done so far reach the disk."""
        self.recording.records.append(Sync("sync everything", None))

    def begin(self) -> None:
        """End what is preparation: power loss comes later."""
        self.start = len(self.recording.records)

    def close(self) -> None:
        """Close all stores."""
        for store in self._stores:
            store.close()

    def known(self, name: str) -> _Known:
        """Return what is known of an entry."""
        return self._known.setdefault(name, _Known())

    @contextlib.contextmanager
    def changing(
        self, process: Process, name: str, durability: Durability | None, *passing: Found | None
    ) -> Iterator[None]:
        """Around a change of an entry: the states that it passes through, of which the last is where it ends."""
        known, level, last = self.known(name), durability or process.level, passing[-1]
        before = known.now
        for each in (before, *passing):
            known.allow(each)
        if process.level is level is Durability.PROCESS:
            known.places.add(ANY)
        known.now = last
        self.tell(name)
        yield
        if level is Durability.POWER and known.now == last:  # unless somebody has gone on with it already
            safe = _Known.safe(last)
            if not _only_data_differ(before, last):
                known.places = safe.places
            if process.level is Durability.PROCESS or before is None or _only_data_differ(before, last):
                known.datas = safe.datas
        self.tell(name)

    def acknowledge(self, name: str, now: Found | None) -> None:
        """Take what somebody was told of an entry for a promise."""
        self._known[name] = _Known.safe(now)
        self.tell(name)

    def tell(self, name: str) -> None:
        """Record what is legal."""
        self.recording.expect(name, self.known(name).legal())


def _only_data_differ(one: Found | None, two: Found | None) -> bool:
    return one is not None and two is not None and one[:2] == two[:2] and one[2] != two[2]


def _place(queue: str, due_at: float | None) -> str:
    return queue if due_at is None else f"{queue}/.waiting"


class Process:
    """One process that has the spool open. Its methods are the store's, with short arguments."""

    def __init__(self, scene: Scene, store: DirectoryStorage, calls: RecordingCalls) -> None:
        """Take the store."""
        self.scene, self.store, self.calls = scene, store, calls
        self.level = store.level

    def _now(self, name: str) -> Found:
        now = self.scene.known(name).now
        assert now is not None, f"{name} is nowhere"
        return now

    def enqueue(
        self, name: str, queue: str = "send", metadata: bytes = OLD, data: bytes = DATA, level: Durability | None = None
    ) -> None:
        """Reserve and enqueue."""
        self._enqueue(name, (queue, metadata, data), level)

    def enqueue_to_be_remembered(self, name: str) -> None:
        """Reserve and enqueue what is to be remembered; from when that has returned, it is there or remembered."""
        with self.scene.changing(self, name, None, ("send", OLD, DATA)):
            reservation = self.store.reserve(name)
            enqueue_reserved(
                self.store,
                reservation,
                "send",
                OLD,
                writing(DATA),
                durability=None,
                before_commit=nothing,
                remember=FAR,
            )
        self.scene.recording.expect(f"{KEY_OF}{name}", frozenset())

    def enqueue_to_wait(self, name: str, queue: str = "send", level: Durability | None = None) -> None:
        """Reserve and enqueue what is to wait."""
        self._enqueue(name, (queue, OLD, DATA), level, DUE)

    def _enqueue(self, name: str, found: Found, level: Durability | None, due_at: float | None = None) -> None:
        queue, metadata, data = found
        with self.scene.changing(self, name, level, (_place(queue, due_at), metadata, data)):
            enqueue_reserved(
                self.store,
                self.store.reserve(name),
                queue,
                metadata,
                writing(data),
                durability=level,
                before_commit=nothing,
                due_at=due_at,
            )

    def enqueue_together(self, *wanted: tuple[str, str, Durability | None]) -> None:
        """Reserve and enqueue several, each a name, a queue and a level."""
        with contextlib.ExitStack() as stack:
            enqueuings: list[NewEntry[Any]] = []
            for name, queue, level in wanted:
                stack.enter_context(self.scene.changing(self, name, level, (queue, OLD, DATA)))
                reservation = self.store.reserve(name)
                enqueuings.append(NewEntry(reservation, queue, OLD, writing(DATA), level, nothing))
            for failure in self.store.enqueue_together(enqueuings):
                if failure is not None:
                    raise failure

    def claim(self, name: str, queue: str = "send") -> Claim:
        """Check out, which changes nothing that would survive its owner."""
        claim = self.store.claim(available(queue), name, before_commit=nothing)
        assert hasattr(claim, "metadata"), f"{name} of {queue} is {claim}"
        return claim

    def claim_waiting(self, name: str, queue: str = "send") -> Claim:
        """Check out what waits: its owner's death makes it available, and power loss may undo the check-out."""
        known = self.scene.known(name)
        known.allow((queue, *self._now(name)[1:]))
        self.scene.tell(name)
        claim = self.store.claim(waiting(queue), name, due_by=DUE, before_commit=nothing)
        assert hasattr(claim, "metadata"), f"{name}, waiting for {queue}, is {claim}"
        known.now = (queue, *self._now(name)[1:])
        return claim

    def save_to_wait(
        self, claim: Claim, queue: str, metadata: bytes | None = NEW, level: Durability | None = None
    ) -> None:
        """Save alone, to wait."""
        self.settle(Saving(claim, queue, metadata, level, nothing, DUE))

    def save_with_notes(self, claim: Claim, queue: str, due_at: float | None = None) -> None:
        """Save alone, unchanged, with notes that last as long as that; once it has returned, they must be there."""
        self.settle(Saving(claim, queue, None, None, nothing, due_at, {"key": b"1"}))
        self.scene.recording.expect(f"{NOTES_OF}{claim.name}", frozenset((b'{"key":1}\n',)))

    def save(self, claim: Claim, queue: str, metadata: bytes | None = NEW, level: Durability | None = None) -> None:
        """Save alone."""
        self.settle(Saving(claim, queue, metadata, level, nothing))

    def remove(self, claim: Claim, level: Durability | None = None) -> None:
        """Remove alone."""
        self.settle(Removing(claim, level, nothing))

    def release(self, claim: Claim) -> None:
        """Put back, which is not promised to be durable and need not be."""
        release(self.store, claim)

    def settle(self, *settlements: Settlement[Claim]) -> None:
        """Settle together."""
        with contextlib.ExitStack() as stack:
            for settlement in settlements:
                if not isinstance(settlement, Releasing):
                    name, passing = settlement.claim.name, self._passing(settlement)
                    stack.enter_context(self.scene.changing(self, name, settlement.durability, *passing))
            for failure in self.store.settle(settlements):
                if failure is not None:
                    raise failure

    def _passing(self, settlement: Saving[Claim] | Removing[Claim]) -> list[Found | None]:
        source, old, data = self._now(settlement.claim.name)
        if isinstance(settlement, Removing):
            return [None]
        new = old if settlement.metadata is None else settlement.metadata
        return [(source, new, data), (_place(settlement.queue, settlement.due_at), new, data)]

    def quarantine(self, claim: Claim) -> None:
        """Set aside. Nothing says that this survives power loss; the entry must, in one place or the other."""
        queue, metadata, data = self._now(claim.name)
        with self.scene.changing(self, claim.name, Durability.PROCESS, (f".quarantine/{queue}", metadata, data)):
            self.store.quarantine(claim, "not to be read")

    def replace_data(
        self, name: str, claim: Claim | None, data: bytes = NEW_DATA, level: Durability | None = None
    ) -> None:
        """Save the data."""
        queue, metadata, _ = self._now(name)
        with self.scene.changing(self, name, level, (queue, metadata, data)):
            self.store.replace_data(name, claim, writing(data), durability=level, before_commit=nothing)

    def replace_metadata(self, name: str, metadata: bytes = NEW, level: Durability | None = None) -> None:
        """Save the metadata directly."""
        queue, _, data = self._now(name)
        with self.scene.changing(self, name, level, (queue, metadata, data)):
            self.store.replace_metadata(queue, name, metadata, durability=level, before_commit=nothing)

    def delete(self, name: str, level: Durability | None = None) -> None:
        """Remove directly."""
        queue, _, _ = self._now(name)
        with self.scene.changing(self, name, level, None):
            self.store.delete(queue, name, durability=level, before_commit=nothing)

    def recover(self) -> None:
        """Recover and sweep: whatever is legal stays legal."""
        _ = self.store.recover()
        _ = sweep(self.store)

    def killed_at(self, n: int, act: Callable[[], object]) -> bool:
        """Do something, and die before the n-th call that a disk would notice; tell whether there were so many."""
        self.calls.before(n, self.calls.die)
        try:
            act()
        except KilledError:
            return True
        return False

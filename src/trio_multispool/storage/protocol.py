"""`Storage`: what a store of entries does, whatever it keeps them in.

The protocol is blocking; it knows metadata as `bytes` and data as binary files, and codecs, tasks and cancellation
not at all. Queues and entries are names. A *claim* is opaque: it stands for the right to settle one entry, and
whatever the store needs for that (a lock, a row's owner) is its own affair. Methods raise a `SpoolError`; one that
raises has had no effect, but for `DurabilityUnknown`, which says so. All methods may be called from several threads
at once.

`before_commit` is called once, right before the commit. If it raises, the operation undoes what it has done so far and
passes the exception on. That is how a caller withdraws in the last moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import msgspec

    from trio_multispool.errors import SpoolError
    from trio_multispool.model.lifecycle import Place, State
    from trio_multispool.model.policies import Durability
    from trio_multispool.model.types import T
    from trio_multispool.model.verdicts import Unavailable
    from trio_multispool.storage.findings import Finding, Findings, Foreign, Judge, Temporary, Wanted
    from trio_multispool.storage.requests import (
        Arrivals,
        Content,
        Item,
        NewEntry,
        NotDue,
        Recovered,
        Settlement,
        Stat,
    )

C = TypeVar("C", bound="Claim")

R = TypeVar("R", bound="Reservation")


class Claim(Protocol):
    """One entry, checked out: the right to settle it once."""

    @property
    def queue(self) -> str:
        """The queue that it was checked out of."""
        ...

    @property
    def name(self) -> str:
        """The entry's name."""
        ...

    @property
    def metadata(self) -> bytes:
        """The metadata as it was read when the entry was checked out."""
        ...

    @property
    def due_at(self) -> float | None:
        """If it waited when it was checked out: until when, in seconds since 1970."""
        ...

    @property
    def state(self) -> State:
        """`CHECKED_OUT` until the store has settled it; changed by the store itself, at the commit."""
        ...

    @property
    def held(self) -> bool:
        """Whether the store keeps others away from the entry for as long as this claim lives."""
        ...

    def abandon(self) -> None:
        """Let go without settling, as a process that dies does: recovery brings the entry back. Idempotent."""
        ...


class Reservation(Protocol):
    """A name, held for an entry that is to be enqueued."""

    @property
    def name(self) -> str:
        """The reserved name."""
        ...

    @property
    def state(self) -> State:
        """`NOTHING` until the entry is enqueued."""
        ...

    def abandon(self) -> None:
        """Let go of the name without tidying up, as a process that dies does. Idempotent."""
        ...


class Slot(Protocol):
    """One of the numbered slots that all processes share, held by somebody."""

    def release(self) -> None:
        """Let somebody else have it. Idempotent, in any thread."""
        ...


class Watch(Protocol):
    """Tells in which queues something may have come in. A hint: it may tell too much."""

    def fileno(self) -> int:
        """Return a descriptor that is readable when there is something to `drain`."""
        ...

    def add(self, queue: str) -> None:
        """Watch a queue from now on; raises a `SpoolError` if that cannot be. To be called before each listing."""
        ...

    def drain(self) -> set[str]:
        """Return the queues in which something may have come in, without waiting."""
        ...

    def close(self) -> None:
        """Stop watching. Idempotent."""
        ...


class Storage(Protocol[C, R]):
    """A durable store of entries in queues, shared by any processes; `C` is its claim, `R` its reservation."""

    def reserve(self, name: str, *, unique: bool = False) -> R:
        """Hold a name that no entry has, and that is not remembered. Raises `NameTaken` or `EntryBusy`.

        `unique`: whoever made the name makes none twice. Then the store need not look everywhere for an entry that has
        it, as long as it notices one that is there all the same, in `enqueue` at the latest.
        """
        ...

    def remember(self, reservation: R, remember: float, *, durability: Durability | None) -> None:
        """Have a reserved name that has no entry not to be had for so many seconds, as if one had been removed.

        Raises `NotAdopted` where names are not remembered. The reservation is still to be given up.
        """
        ...

    def give_up(self, reservation: R) -> None:
        """Let an unused name go, with all that was written under it."""
        ...

    def enqueue(  # noqa: PLR0913  # each is a word of the operation
        self,
        reservation: R,
        queue: str,
        metadata: bytes,
        content: Content,
        *,
        durability: Durability | None,
        before_commit: Callable[[], None],
        carrier: Mapping[str, str] | None = None,
        due_at: float | None = None,
        remember: float | None = None,
    ) -> None:
        """Make the entry, with data of that content, all or nothing; the reservation is kept if it fails.

        With `due_at`, in seconds since 1970, it waits until then. Raises `NotAdopted` where entries cannot wait. With
        `remember`, its name is not to be had for so many seconds after its removal; `NotAdopted` likewise.

        `carrier` goes along with the entry for as long as there is one, if that can be had cheaply: a hint.
        """
        ...

    def carrier(self, name: str) -> dict[str, str]:
        """Return what went along with an entry when it was enqueued; empty if nothing did, or it was lost."""
        ...

    def enqueue_together(self, enqueuings: Sequence[NewEntry[R]]) -> list[BaseException | None]:
        """Make several entries, each as `enqueue` would, sharing what can be shared.

        Returns for each, in order, what it would have raised, or `None`: one that fails does not keep the others.
        """
        ...

    def enqueues_at_a_time(self) -> int:
        """Return how many entries may be made in one go without using up what this process may have open."""
        ...

    def names(self, queue: str) -> list[str]:
        """Return the names of the entries available in a queue, sorted. A hint: entries move while it is read."""
        ...

    def contains(self, queue: str, name: str) -> bool:
        """Tell whether the entry is available in that queue."""
        ...

    def read_metadata(self, queue: str, name: str) -> bytes:
        """Return the metadata of an available entry, or raise `EntryNotFound`."""
        ...

    def read_metadata_at(self, place: Place, name: str) -> bytes:
        """Return an entry's metadata from the place where it was seen, or raise `EntryNotFound`; locks nothing."""
        ...

    def stat_at(self, place: Place, name: str) -> Stat:
        """Return size and age of an entry's metadata in the place where it was seen, or raise `EntryNotFound`."""
        ...

    def quarantine_reason(self, name: str) -> str | None:
        """Return what was written down when the entry was set aside, if it was."""
        ...

    def stat(self, queue: str, name: str) -> Stat:
        """Return size and age of an available entry's metadata, or raise `EntryNotFound`."""
        ...

    def claim(self, queue: str, name: str, *, before_commit: Callable[[], None]) -> C | Unavailable:
        """Check the entry out, so that nobody else has it."""
        ...

    def claim_waiting(
        self, queue: str, name: str, *, due_by: float, before_commit: Callable[[], None]
    ) -> C | Unavailable | NotDue:
        """Check out an entry that waits for the queue, unless it is due later than `due_by`, in seconds since 1970."""
        ...

    def waiting(self, queue: str) -> Iterator[tuple[float, str]]:
        """Yield all that waits for a queue, in no order: when it is due, in seconds since 1970, and its name."""
        ...

    def arrivals(self, queue: str) -> Arrivals | None:
        """Return what has come to wait for a queue since this was last asked; `None`: nothing waits for it.

        What comes in after it was asked is told the next time, so what waits is to be looked at after the first.
        """
        ...

    def forget_arrivals(self) -> None:
        """Give back what telling of them takes: nobody will ask soon. The next answer is that it may be anything."""
        ...

    def due_at(self, queue: str, name: str) -> float | None:
        """Return when an entry that waits for a queue is due, in seconds since 1970; `None` if it does not wait."""
        ...

    def claims_at_a_time(self) -> int:
        """Return how many entries may be claimed in one go without using up what this process may have open."""
        ...

    def save(  # noqa: PLR0913  # each is a word of the operation
        self,
        claim: C,
        queue: str,
        metadata: bytes | None,
        *,
        due_at: float | None = None,
        durability: Durability | None,
        before_commit: Callable[[], None],
    ) -> None:
        """Settle: move the entry to a queue, with new metadata unless it is `None`. Raises `OwnershipLost`.

        With `due_at`, in seconds since 1970, it waits there until then. Raises `NotAdopted` where entries cannot wait.
        """
        ...

    def remove(self, claim: C, *, durability: Durability | None, before_commit: Callable[[], None]) -> None:
        """Settle: delete the entry and its data. Raises `OwnershipLost`."""
        ...

    def release(self, claim: C) -> None:
        """Settle: put the entry back where it came from. Raises `OwnershipLost`. Never refused, never withdrawn."""
        ...

    def settle(self, settlements: Sequence[Settlement[C]]) -> list[BaseException | None]:
        """Settle several different claims, each as `save`, `remove` or `release` would, sharing what can be shared.

        Returns for each, in order, what it would have raised, or `None`: one that fails does not keep the others.
        """
        ...

    def quarantine(self, claim: C, reason: str) -> None:
        """Settle: set the entry aside for a person to look at, with the reason."""
        ...

    def restore(
        self,
        queue: str,
        name: str,
        *,
        to: str | None = None,
        durability: Durability | None,
        before_commit: Callable[[], None],
    ) -> None:
        """Put an entry that was set aside back into its queue, or into the queue `to`, as it is.

        Raises `EntryNotFound` if it is not in quarantine, and `EntryBusy` if somebody is at it.
        """
        ...

    def discard(
        self, queue: str, name: str, *, durability: Durability | None, before_commit: Callable[[], None]
    ) -> None:
        """Delete an entry that was set aside, with its data and its reason. Raises as `restore` does."""
        ...

    def claims_unsafe(self, queue: str) -> list[C]:
        """Return claims on what others have checked out of a queue; settling one takes it from its owner."""
        ...

    def replace_metadata(
        self,
        queue: str,
        name: str,
        metadata: bytes,
        *,
        durability: Durability | None,
        before_commit: Callable[[], None],
    ) -> None:
        """Rewrite an available entry's metadata in place, or raise `EntryNotFound`; never makes an entry."""
        ...

    def delete(
        self, queue: str, name: str, *, durability: Durability | None, before_commit: Callable[[], None]
    ) -> None:
        """Delete an available entry, or raise `EntryNotFound`."""
        ...

    def read_data(self, name: str, read: Callable[[BinaryIO], T]) -> T:
        """Return what `read` makes of the entry's data, or raise `DataNotFound`. Passes on what `read` raises."""
        ...

    def read_entry(self, queue: str, name: str, read: Callable[[bytes, Stat, BinaryIO], T]) -> T | Unavailable:
        """Return what `read` makes of an available entry's metadata, their size and age, and its data.

        Nobody can check the entry out meanwhile, and it is not moved. Raises `DataNotFound`, and what `read` raises.
        """
        ...

    def replace_data(
        self,
        name: str,
        claim: C | None,
        content: Content,
        *,
        durability: Durability | None,
        before_commit: Callable[[], None],
    ) -> None:
        """Replace an entry's data at once, all or nothing; commits by itself, whatever becomes of the claim."""
        ...

    def stat_data(self, name: str) -> Stat:
        """Return size and age of the entry's data, or raise `DataNotFound`."""
        ...

    def data_path(self, name: str) -> Path | None:
        """Return where the data can be read as a file by other programs, if it can."""
        ...

    def annotate(self, claim: C, key: str, value: bytes | None) -> None:
        """Keep a JSON value under a key of the notes on an entry, or delete it. Raises `OwnershipLost`.

        Not synced. `notes.PROGRESS` is of this check-out: the store deletes it when the claim is settled.
        """
        ...

    def notes(self, name: str) -> dict[str, msgspec.Raw]:
        """Return what is noted about an entry, each value in JSON; locks nothing."""
        ...

    def slot(self, number: int) -> Slot | None:
        """Hold a slot, from 0 to 2**63 - 1, until it is released or this process ends; `None`: somebody has it."""
        ...

    def held(self, queue: str) -> bool:
        """Tell whether anything is checked out of a queue, by whomever."""
        ...

    def depths(self) -> dict[Place, int]:
        """Count the entries in every place, whoever knows of it. A hint: entries move while they are counted."""
        ...

    def recover(self, queue: str | None = None, *, insist: bool = True) -> list[Recovered]:
        """Bring back what dead owners held in `queue` (or anywhere), and clear what they were writing.

        Unless this is what the caller came for (`insist`), a store that takes no writes at the moment is no error:
        whoever wants to read or to make room must be able to.
        """
        ...

    def sweep(self) -> Iterator[Recovered]:
        """Collect what belongs to no entry, over everything; yields each as it is collected."""
        ...

    def recover_all(self, *, dry_run: bool = False) -> Iterator[Recovered | SpoolError]:
        """Do all that `recover` and `sweep` do; yields each thing as it is, or would be, done, once.

        And what kept it from recovering one name; the others are recovered all the same.
        """
        ...

    def adopt(self) -> None:
        """Say that from now on every user of this store takes locks, so that recovery may act."""
        ...

    def watch(self) -> Watch | None:
        """Begin to be told of changes, or return `None` if this store cannot tell; raises if it cannot at present."""
        ...

    def queues(self) -> list[str]:
        """Return the names of all queues that the store has, sorted, known to this program or not."""
        ...

    def inventory(self, queue: str | None = None, state: State | None = None) -> Iterator[Item]:
        """Yield every entry in every place, or in those of one queue or state, in no order; writes nothing.

        Holds nothing: a queue may be larger than memory.
        """
        ...

    def count(self, queue: str | None = None, state: State | None = None) -> int:
        """Return how many entries `inventory` would yield, in a fraction of its time."""
        ...

    def is_adopted(self) -> bool:
        """Tell whether every user of this store takes locks, so that who has none is known to be dead."""
        ...

    def examine(self, wanted: Wanted, judge: Judge) -> Iterator[Finding | None]:
        """Yield what might not be as it should be; writes nothing, and what it yields may only be in motion.

        Yields `None` now and then while it finds nothing, so that whoever asks can give up.
        """
        ...

    def look_closely(self, name: str, judge: Judge) -> Findings:
        """Return all that lies under a name, looked up while nobody can change it, or saying that somebody can."""
        ...

    def look_again(self, finding: Temporary | Foreign) -> Temporary | Foreign | None:
        """Look once more at what belongs to no name; `None` if it has gone."""
        ...

    def recover_name(self, name: str) -> Recovered | None:
        """Do for one name what `recover` and `sweep` do for all; `None`: there was nothing to put back or collect."""
        ...

    def reserve_again(self, name: str) -> bool:
        """Make the reservation of an entry that has none; tell whether that was done."""
        ...

    def clear_temporary(self, name: str) -> bool:
        """Delete what a dead process was writing; tell whether it is gone."""
        ...

    def close(self) -> None:
        """Give back what the store holds. Idempotent."""
        ...

"""`Storage`: what a store of entries does, in whatever medium it keeps them.

The protocol is blocking. It handles metadata as `bytes` and data as binary files. It does not know codecs, tasks or
cancellation. Queues and entries are names. A *claim* is opaque: it is the right to settle one entry, and the store
alone knows what it needs for that (a lock, a row's owner). Methods raise a `SpoolError`. A method that raises has had
no effect, except with `DurabilityUnknown`, which says so. Several threads may call all methods at once.

The store calls `before_commit` once, right before the commit. If it raises, the operation undoes what it has done so
far and passes the exception on. That is how a caller withdraws at the last moment.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol, TypeVar

from trio_multispool.model.lifecycle import State
from trio_multispool.storage.handles import Claim, Reservation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    import msgspec

    from trio_multispool.errors import SpoolError
    from trio_multispool.model.cancellation import CancelRequest
    from trio_multispool.model.lifecycle import Place
    from trio_multispool.model.pauses import Pause
    from trio_multispool.model.policies import Durability
    from trio_multispool.model.types import T
    from trio_multispool.model.verdicts import Unavailable
    from trio_multispool.storage.findings import Finding, Findings, Judge, Wanted
    from trio_multispool.storage.handles import Slot, Watch
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
    from trio_multispool.storage.source import Source

MOST_SETTLED: Final = 64
"""How many claims a store settles at once, unless it says otherwise: all of them wait for the last."""

C = TypeVar("C", bound=Claim)

R = TypeVar("R", bound=Reservation)


class Storage(Protocol[C, R]):
    """A durable store of entries in queues, shared by processes; `C` is its claim, `R` its reservation."""

    @property
    def location(self) -> str:
        """Where the store is, for messages and to open it again elsewhere. Contains no password."""
        ...

    @property
    def blocks(self) -> bool:
        """Whether its methods may wait, for a disk or a server; then they are called in worker threads only."""
        ...

    def close_afterwards(self, afterwards: Callable[[Callable[[], None]], None]) -> None:
        """Take what calls something when all operations that are under way have ended: to close what they may use."""
        ...

    def now(self) -> float:
        """Return the time of day by the store's clock, in seconds since 1970: it says what is due. Does not wait."""
        ...

    def reserve(self, name: str, *, unique: bool = False, briefly: bool = False) -> R:
        """Hold a name that no entry has and that is not remembered. Raises `NameTaken` or `EntryBusy`.

        `briefly`: it is used or given up at once, in the same hop. Then the store may leave the search to the enqueue.
        `unique`: the generator of the name makes no name twice. Then the store need not search everywhere for an entry
        with this name. If there is one all the same, the store must notice it when it makes the entry, at the latest.
        """
        ...

    def remember(self, reservation: R, remember: float, *, durability: Durability | None) -> None:
        """Remember a reserved name for `remember` seconds, as if its entry had been removed. It has no entry.

        Raises `NotAdopted` where names are not remembered. The caller must still give the reservation up.
        """
        ...

    def give_up(self, reservation: R) -> None:
        """Give an unused name back, and delete what was written under it."""
        ...

    def carrier(self, name: str) -> dict[str, str]:
        """Return the carrier with which an entry was enqueued; empty if it had none, or if it was lost."""
        ...

    def enqueue_together(self, enqueuings: Sequence[NewEntry[R]]) -> list[BaseException | None]:
        """Make several entries with their data, each all or nothing, and share work among them.

        Returns for each, in order, why it was not made, or `None`. A failure does not stop the others, and its
        reservation is kept. `NotAdopted`: entries cannot wait or have notes in this store, or names be remembered.
        `TimeNotKept`: an entry cannot wait, or a name be remembered, for so long.
        """
        ...

    def at_a_time(self) -> int:
        """Return how many entries may be made, or claimed, at once without using up what this process may have open."""
        ...

    def settled_at_a_time(self) -> int:
        """Return how many claims are settled at once if there are more: where that is waited for, others work on."""
        ...

    def in_one_look(self) -> AbstractContextManager[None]:
        """Surround several operations of this thread that need not all look whether the store is where it was."""
        ...

    def source(self, queue: str, *, sorts_last: bool) -> Source:
        """Begin to find the entries of a queue, for one reader. `sorts_last`: new names sort after all older ones."""
        ...

    def names(self, queue: str, *, after: str = "", most: int | None = None) -> list[str]:
        """Return the names of the available entries of a queue, sorted. A hint: entries move during the listing.

        With `after` and `most`, return a page: the first names that sort after that one, at most this many.
        """
        ...

    def read_metadata(self, place: Place, name: str) -> bytes:
        """Return the metadata of an entry that was last seen in that place, or raise `EntryNotFound`; locks nothing."""
        ...

    def quarantine_reason(self, name: str) -> str | None:
        """Return the reason for which the entry was set aside; `None` if there is no reason."""
        ...

    def stat(self, place: Place, name: str) -> Stat:
        """Return size and age of the metadata of an entry that was last seen there, or raise `EntryNotFound`."""
        ...

    def claim(
        self, place: Place, name: str, *, due_by: float = math.inf, before_commit: Callable[[], None]
    ) -> C | Unavailable | NotDue:
        """Check out an entry that is available in that place or waits there, so that no other owner has it.

        `NotDue`: it waits, and is due later than `due_by`, in seconds since 1970.
        """
        ...

    def waiting(
        self, queue: str, *, after: tuple[float, str] | None = None, most: int | None = None
    ) -> list[tuple[float, str]]:
        """Return what waits for a queue, the first to be due first: when, in seconds since 1970, and its name.

        A page, with `after` and `most`, as for `names`.
        """
        ...

    def settle(self, settlements: Sequence[Settlement[C]]) -> list[BaseException | None]:
        """Settle several different claims, and share work among them. Then make the claims that they ask for.

        `Saving` moves the entry to a queue, `Removing` deletes it with its data, and `Releasing` puts it back where it
        came from: that is never refused and never withdrawn. Returns for each, in order, why it was not settled, or
        `None`: `OwnershipLost` if somebody has taken the entry away. A failure does not stop the others.
        """
        ...

    def quarantine(self, claim: C, reason: str) -> None:
        """Settle: set the entry aside, with the reason, for a person to look at."""
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
        """Put an entry that was set aside back into its queue, or into the queue `to`, unchanged.

        Raises `EntryNotFound` if it is not in quarantine, and `EntryBusy` if another process has its lock.
        """
        ...

    def discard(
        self, queue: str, name: str, *, durability: Durability | None, before_commit: Callable[[], None]
    ) -> None:
        """Delete an entry that was set aside, with its data and its reason. Raises what `restore` raises."""
        ...

    def claims_unsafe(self, queue: str) -> list[C]:
        """Return claims on all entries that are checked out of a queue. Settling one takes the entry from its owner."""
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
        """Rewrite an available entry's metadata in place, or raise `EntryNotFound`. Never makes an entry."""
        ...

    def delete(
        self, queue: str, name: str, *, durability: Durability | None, before_commit: Callable[[], None]
    ) -> None:
        """Delete an available entry, or raise `EntryNotFound`."""
        ...

    def read_data(self, name: str, read: Callable[[BinaryIO], T], *, owned: bool = False) -> T:
        """Call `read` with the entry's data; return its result. Raises `DataNotFound`, and what `read` raises.

        What is `owned` is in hand, and is read wherever it is.
        """
        ...

    def read_entry(
        self,
        queue: str,
        name: str,
        read: Callable[[bytes, Stat, BinaryIO], T],
        *,
        state: State = State.AVAILABLE,
    ) -> T | Unavailable:
        """Call `read` with an entry's metadata, their size and age, and its data; return its result.

        The entry is available, or waits, as `state` says. Meanwhile no process can check it out. It is not moved.
        Raises `DataNotFound`, and what `read` raises.
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
        """Replace an entry's data, all or nothing. It commits on its own, however the claim is settled later."""
        ...

    def data_at_hand(self, claim: C) -> bytes | None:
        """Return the data of an entry in hand, if they are little and came with it; `None`: read them. Never waits."""
        ...

    def stat_data(self, name: str, *, owned: bool = False) -> Stat:
        """Return size and age of the entry's data, or raise `DataNotFound`; `owned` as for `read_data`."""
        ...

    def data_path(self, name: str) -> Path | None:
        """Return the path at which other programs can read the data as a file; `None` if there is none."""
        ...

    def data_file(self, name: str) -> AbstractContextManager[Path]:
        """Yield the path of a file with the data, for other programs; a copy where the store keeps no files.

        Entering it raises `DataNotFound`. Leaving it deletes the copy.
        """
        ...

    def annotate(self, claim: C, key: str, value: bytes | None, found: dict[str, msgspec.Raw] | None = None) -> None:
        """Set a key of the notes on an entry to a JSON value, or delete it. Raises `OwnershipLost`.

        `found` is what `notes` has just told; nothing of this process may have changed them since.

        Not synced. `notes.PROGRESS` belongs to this check-out: the store deletes it when the claim is settled.
        """
        ...

    def notes(self, name: str) -> dict[str, msgspec.Raw]:
        """Return the notes on an entry, each value in JSON; locks nothing."""
        ...

    def slot(self, numbers: range) -> Slot | None:
        """Hold any free slot of these, until it is released or this process ends; `None`: all are taken.

        Slots are numbered from 0 to 2**63 - 1.
        """
        ...

    def depths(self) -> dict[Place, int]:
        """Count the entries in every place, also in queues unknown to this program. A hint: entries move meanwhile."""
        ...

    def standings(self) -> list[Standing]:
        """Tell of each queue how it stands, also of those that this program does not know. A hint, as `depths`.

        It may cost a listing. Of each place, no more than `LOOKED_AT` entries are looked at one by one, the first by
        name.
        """
        ...

    def recover(self, queue: str | None = None, *, insist: bool = True) -> list[Recovered]:
        """Bring back what dead owners held in `queue` (or anywhere), and clear what they were writing.

        Without `insist`, it is no error if the store takes no writes at the moment: a process that wants to read, or to
        make room, must be able to go on.
        """
        ...

    def recover_all(self, *, dry_run: bool = False) -> Iterator[Recovered | SpoolError | None]:
        """Do all that `recover` does, and collect what belongs to no entry. Yields each name once, when that is done.

        Also yields the error for each name that it could not recover. The other names are recovered all the same.
        It may yield `None` now and then while it finds nothing, so that the caller can give up.
        """
        ...

    def watch(self) -> Watch | None:
        """Begin to watch queues that may get entries; `None` if this kind of store cannot.

        Raises if it cannot at the moment.
        """
        ...

    def watch_entries(self) -> Watch | None:
        """Begin to watch entries that may leave the store, or come into a queue that is added; otherwise as `watch`.

        The queue `""` adds none: then it tells only of what leaves.
        """
        ...

    def ask_to_cancel(self, queue: str, name: str, request: CancelRequest) -> None:
        """Ask the owner of an entry, taken from a queue, to cancel the work on it; keeps an earlier request.

        Locks nothing, and is not synced. It stands until a settlement that `withdraws` it, or until the entry is in
        another queue, or gone. Raises `NotAdopted` if owners need not know of such requests.
        """
        ...

    def withdraw_cancellation(self, name: str) -> None:
        """Delete the request to cancel an entry, if there is one."""
        ...

    def cancellation(self, queue: str, name: str) -> CancelRequest | None:
        """Return the request to cancel the work on an entry that is, or was taken, from a queue, if there is one.

        Never one about an earlier entry of that name, or about its work in another queue.
        """
        ...

    def asked_to_cancel(self) -> list[str]:
        """Return the names for which there is a request; maybe some of entries that are gone."""
        ...

    def watch_cancellations(self) -> Watch | None:
        """Begin to watch for such requests; otherwise as `watch`. The name to add is always `""`."""
        ...

    def pause(self, queue: str, wanted: Pause) -> None:
        """Pause a queue, in place of an earlier pause. It is durable, whatever the store's level is."""
        ...

    def resume(self, queue: str) -> None:
        """End the pause of a queue, if there is one."""
        ...

    def pauses(self) -> dict[str, Pause]:
        """Return the pauses, by queue; maybe also such whose time is over. The store itself minds none of them."""
        ...

    def find(self, name: str) -> Item | None:
        """Return what an onlooker sees of an entry, wherever it is; `None` if there is none. Locks nothing."""
        ...

    def remembered_until(self, name: str) -> float | None:
        """Return until when the name of an entry that was removed is remembered, in seconds since 1970.

        `None`: it is not. Infinity: nobody can say.
        """
        ...

    def remembered(self, *, after: str = "", most: int | None = None) -> list[tuple[str, float]]:
        """Return the names that are remembered, sorted, each with what `remembered_until` tells of it.

        A page, with `after` and `most`, as for `names`.
        """
        ...

    def remember_for(self, name: str) -> float | None:
        """Return for how many seconds to remember the name of an entry after its removal; `None`: not at all."""
        ...

    def queues(self) -> list[str]:
        """Return the names of all queues in the store, sorted, also of those that this program does not know."""
        ...

    def inventory(
        self, queue: str | None = None, state: State | None = None, *, most: int | None = None
    ) -> Iterator[Item]:
        """Yield every entry in every place, or in those of one queue or state, in no order; writes nothing.

        Keeps no list: a queue may be larger than memory. With `most`, only the first by name, sorted, at most so many.
        """
        ...

    def count(self, queue: str | None = None, state: State | None = None) -> int:
        """Return how many entries `inventory` would yield. It takes a fraction of the time."""
        ...

    def examine(self, wanted: Wanted, judge: Judge) -> Iterator[Finding | None]:
        """Yield everything that may be wrong. Writes nothing. What it yields may just have been moving.

        Each name is yielded once at most, and may be left out if nothing can be wrong with it: it has its data and
        one place, is not checked out, and `wanted` does not ask for it. `judge` says why metadata cannot be decoded.
        It need only be asked about what is available in `wanted.judged`, and came or was written since `judged_since`.

        Yields `None` now and then while it finds nothing, so that the caller can give up.
        """
        ...

    def look_closely(self, name: str, judge: Judge) -> Findings:
        """Return all that there is under a name, looked up while no owner can change it; or `holder` says one can.

        `NOBODY`: then the next `recover_name` puts it back or collects it, if it is checked out or belongs to no entry.
        """
        ...

    def advice(self) -> list[Advice]:
        """Return what a person who looks after the store should know: of its settings, say. Writes nothing."""
        ...

    def recover_name(self, name: str) -> Recovered | None:
        """Do for one name what `recover_all` does for all; `None`: there was nothing to put back or collect."""
        ...

    def close(self) -> None:
        """Free everything that the store holds. Idempotent."""
        ...

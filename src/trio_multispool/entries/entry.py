"""`Entry`: a name in a queue, whether or not there is such an entry; and `entry.direct`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, final

from trio_multispool.entries.checkout import check_out, check_out_or_tell_why
from trio_multispool.entries.datafile import DataFile
from trio_multispool.entries.job import CheckedOutEntry
from trio_multispool.model.lifecycle import Place, State
from trio_multispool.model.results import Err, Ok
from trio_multispool.model.types import D, M, Q, TypeVarWithDefault
from trio_multispool.model.verdicts import Unavailable

if TYPE_CHECKING:
    from trio_multispool.errors import (
        CheckoutError,
        CorruptMetadata,
        DirectRemoveError,
        DirectSaveError,
        EntryNotFound,
        Trouble,
        TryCheckoutError,
    )
    from trio_multispool.model.policies import Durability
    from trio_multispool.model.results import Result
    from trio_multispool.session.session import Session
    from trio_multispool.storage.requests import Stat
    from trio_multispool.threads.transaction import BeforeCommit

S_co = TypeVarWithDefault("S_co", covariant=True, default=object)
"""The spool, as `entry.spool` returns it: a type that this room does not know."""


@final
class Entry(Generic[Q, M, D, S_co]):
    """A name in a queue of a spool. Having one says nothing about there being such an entry: that changes at any time.

    Not made by users: `spool.entry`, `spool.entries` and `spool.enqueue` give it. Two are equal when they are the same
    name in the same queue of the same spool.
    """

    def __init__(self, spool: S_co, session: Session[Q, M, D, Any], queue: Q, name: str) -> None:
        """Refer to a name that has been checked."""
        self._spool = spool
        self._session = session
        self._queue = queue
        self._name = name

    def __repr__(self) -> str:
        """Show spool, queue and name."""
        return f"<Entry {self._name!r} in queue {self._queue.value!r} of {self._session.path}>"

    def __eq__(self, other: object) -> bool:
        """Compare spool, queue and name."""
        if not isinstance(other, Entry):
            return NotImplemented
        return self._identity() == other._identity()

    def __hash__(self) -> int:
        """Agree with `==`."""
        return hash(self._identity())

    def _identity(self) -> tuple[object, ...]:
        return (self._session.path, self._queue, self._name)

    @property
    def spool(self) -> S_co:
        """The spool."""
        return self._spool

    @property
    def queue(self) -> Q:
        """The queue."""
        return self._queue

    @property
    def name(self) -> str:
        """The name."""
        return self._name

    @property
    def direct(self) -> DirectEntry[Q, M, D]:
        """Operations on the entry where it is, without checking it out."""
        return DirectEntry(self._session, self._queue.value, self._name)

    async def stat(self) -> Result[Stat, EntryNotFound | Trouble]:
        """Return the size of the metadata, in bytes as stored, and when it was last written.

        `Err(EntryNotFound)`: the entry is not available in its queue.

        **Cancellation**: reads only; nothing changes.

        ```python
        age = now - (await entry.stat()).unwrap().modified_at
        ```
        """
        return await self._session.run(
            f"look at entry {self._name} of queue {self._queue.value}",
            lambda _before_commit: self._session.storage.stat(Place(self._queue.value, State.AVAILABLE), self._name),
        )

    async def checkout(self, *, early: bool = False) -> Result[CheckedOutEntry[Q, M, D], CheckoutError]:
        """Check the entry out, so that nobody else has it; put `async with` around the job that is returned.

        `early`: also if it waits, and is not due; returned, it waits again. (If the process dies meanwhile, it is
        available.)

        `Err(EntryNotFound)`: it is not available in its queue. `Err(EntryBusy)`: another owner has it at this moment.
        `Err(CorruptMetadata)`: its metadata could not be decoded, and it was set aside in quarantine.
        `Err(UnreadableEntry)`: its metadata file could not be read, and was left where it is.

        **Cancellation**: cancelled means that the entry is in its queue.
        **Durability**: a check-out is not synced: if power loss undoes it, the entry is in its queue.

        ```python
        async with (await entry.checkout()).unwrap() as job:
            (await job.save(Mail.FAILED)).unwrap()
        ```
        """
        answer = await check_out_or_tell_why(self._session, self._queue, self._name, early=early)
        return answer if isinstance(answer, Err) else Ok(CheckedOutEntry(answer.value))

    async def try_checkout(
        self, *, early: bool = False
    ) -> Result[CheckedOutEntry[Q, M, D] | Unavailable, TryCheckoutError]:
        """Check the entry out if it can be had: that it is gone or busy is an ordinary answer, `Unavailable`.

        Otherwise like `checkout`, with its other errors.

        **Cancellation**: cancelled means that the entry is in its queue.
        **Durability**: a check-out is not synced: if power loss undoes it, the entry is in its queue.

        ```python
        match await entry.try_checkout():
            case Ok(Unavailable()):
                pass  # somebody else does it
            case Ok(job):
                async with job:
                    (await job.remove()).unwrap()
        ```
        """
        answer = await check_out(self._session, self._queue, self._name, early=early)
        if isinstance(answer, Err):
            return answer
        return Ok(answer.value if isinstance(answer.value, Unavailable) else CheckedOutEntry(answer.value))


@final
class DirectEntry(Generic[Q, M, D]):
    """An available entry, read and changed where it is: `entry.direct`. No ownership is taken by the caller.

    For tools and tests. Each operation locks the entry for its own length if it can, and goes on without if somebody
    else has the lock; it never makes an entry that has gone. Between two calls anybody may take the entry.
    """

    def __init__(self, session: Session[Q, M, D, Any], queue: str, name: str) -> None:
        """Refer to an entry."""
        self._session = session
        self._queue = queue
        self._name = name

    def __repr__(self) -> str:
        """Show queue and name."""
        return f"<DirectEntry {self._name!r} in queue {self._queue!r}>"

    @property
    def data_file(self) -> DataFile[D]:
        """The entry's data."""
        return DataFile(self._session, self._name, None)

    async def contents(self) -> Result[M, EntryNotFound | CorruptMetadata | Trouble]:
        """Return the metadata.

        `Err(EntryNotFound)`: the entry is not available in its queue. `Err(CorruptMetadata)`: it cannot be decoded; it
        stays where it is.

        **Cancellation**: reads only; nothing changes.

        ```python
        envelope = (await entry.direct.contents()).unwrap()
        ```
        """
        session, queue, name = self._session, self._queue, self._name
        place = Place(queue, State.AVAILABLE)
        return await session.run(
            f"reading of entry {name} of queue {queue}",
            lambda _before_commit: session.encoding.decode(queue, name, session.storage.read_metadata(place, name)),
        )

    async def save(self, metadata: M, *, durability: Durability | None = None) -> Result[None, DirectSaveError]:
        """Replace the metadata of the entry where it is.

        `Err(EntryNotFound)`: the entry is not available in its queue; none is made. `Err(EntryBusy)`: somebody else is
        doing the same. `Err(EncodingFailed)`: the codec raised. `Err(SyncsRefused)`: an earlier sync failed, and
        nothing was changed. `Err(DurabilityUnknown)`: it is changed, and power loss might undo it.

        **Cancellation**: cancelled means that nothing changed. (asyncio's own may come after the commit, with a note.)
        **Durability**: the metadata is synced before it takes the place of the old, and the queue after.

        ```python
        (await entry.direct.save(Envelope("anne@example.org"))).unwrap()
        ```
        """
        session = self._session

        def work(before_commit: BeforeCommit) -> None:
            session.storage.replace_metadata(
                self._queue,
                self._name,
                session.encoding.encode(metadata),
                durability=durability,
                before_commit=before_commit,
            )

        return await session.run(f"direct save of entry {self._name} of queue {self._queue}", work)

    async def remove(self, *, durability: Durability | None = None) -> Result[None, DirectRemoveError]:
        """Delete the entry where it is, with its data.

        `Err(EntryNotFound)`: the entry is not available in its queue. `Err(SyncsRefused)`: an earlier sync failed, and
        nothing was changed. `Err(DurabilityUnknown)`: it is removed, and power loss might bring it back.

        **Cancellation**: cancelled means that nothing changed. (asyncio's own may come after the commit, with a note.)
        **Durability**: the queue is synced before the data goes.

        ```python
        (await entry.direct.remove()).unwrap()
        ```
        """
        queue, name, delete = self._queue, self._name, self._session.storage.delete
        return await self._session.run(
            f"direct removal of entry {name} of queue {queue}",
            lambda before_commit: delete(queue, name, durability=durability, before_commit=before_commit),
        )

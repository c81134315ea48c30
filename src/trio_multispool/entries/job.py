"""`CheckedOutEntry`, a job: an entry that is checked out and must be settled or returned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, final

from trio_multispool.model.types import D, M, Q
from trio_multispool.model.verdicts import UNCHANGED, Unchanged
from trio_multispool.threads.loop import leave_in_scope

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    import anyio

    from trio_multispool.entries.checkout import Checkout
    from trio_multispool.entries.datafile import DataFile
    from trio_multispool.errors import OwnershipLost, ReleaseError, RemoveError, SaveError, Trouble
    from trio_multispool.model.policies import Durability
    from trio_multispool.model.results import Result
    from trio_multispool.model.times import NotBefore


@final
class CheckedOutEntry(Generic[Q, M, D]):
    """An entry that nobody else has, until it is settled by `save`, `remove` or `release`: a job.

    Not made by users: `entry.checkout()` and readers give it. Put `async with` around the work:

    ```python
    async with job:
        message = (await job.data.load()).unwrap()
        await send(message)
        (await job.remove()).unwrap()
    ```

    **Leaving the block.** A job that was settled has left already. One that was not, because the block ended, raised or
    was cancelled, goes back to its queue unchanged, whatever is cancelled meanwhile. If settling it was tried and
    failed, and nothing settled it since, a block that ends normally returns it and raises that error: an `Err` that
    nobody looked at must not make the entry go round for ever.

    **If somebody cancels the entry**, by `spool.cancel`, the block is cancelled as by a scope around it, and its
    `cancel_requested` is true. The entry is removed, unless the block settles it all the same (under a shield, say),
    and the program goes on after the block. So enter and leave it in one task. If the block raises something else, that
    is raised, and the entry goes back; the request is for whoever has it next.

    **If the process dies**, the kernel drops the entry's lock, and recovery puts the entry back. A job that is garbage
    collected is let go in the same way, with a `ResourceWarning`.

    Settling a job twice raises `RuntimeError`.
    """

    def __init__(self, checkout: Checkout[Q, M, D]) -> None:
        """Show an entry in hand."""
        self._checkout = checkout
        self._scope: anyio.CancelScope
        self._blocks = 0

    def __repr__(self) -> str:
        """Tell which entry, and how it stands."""
        state = "settled" if self.settled else "checked out"
        return f"<CheckedOutEntry {self.name!r} of queue {self.queue.value!r}, {state}>"

    @property
    def name(self) -> str:
        """The entry's name."""
        return self._checkout.name

    @property
    def queue(self) -> Q:
        """The queue that it was checked out of."""
        return self._checkout.queue

    @property
    def settled(self) -> bool:
        """Whether the entry has been saved, removed or released."""
        return self._checkout.settled

    @property
    def cancel_requested(self) -> bool:
        """Whether somebody has asked by `spool.cancel` that the work ends. Without a block, nothing else tells."""
        return self._checkout.cancellation is not None

    @property
    def metadata(self) -> M:
        """The metadata as it was checked out; `save` stores what it is by then, however it was changed."""
        return self._checkout.metadata

    @metadata.setter
    def metadata(self, metadata: M) -> None:
        self._checkout.metadata = metadata

    @property
    def data(self) -> DataFile[D]:
        """The entry's data."""
        return self._checkout.data

    def update(self, change: Callable[[M], M]) -> None:
        """Replace `metadata`, in memory, by what `change` makes of it; `save` stores it, `release` does not.

        ```python
        job.update(lambda envelope: msgspec.structs.replace(envelope, attempts=envelope.attempts + 1))
        ```
        """
        self.metadata = change(self.metadata)

    async def save(
        self,
        queue: Q,
        metadata: M | Literal[Unchanged.UNCHANGED] = UNCHANGED,
        *,
        not_before: NotBefore | None = None,
        durability: Durability | None = None,
    ) -> Result[None, SaveError]:
        """Settle: move the entry to `queue`, with new metadata.

        `queue` may be the one it came from. `metadata` is what is stored; by default, what `self.metadata` is now. The
        data goes along untouched. `not_before`: the entry waits, and nobody gets it, until then; see `enqueue`.

        `Err(EncodingFailed)`: the codec raised. `Err(OwnershipLost)`: somebody took the entry away by an `…_unsafe`
        operation. `Err(NameTaken)`: there is a file of that name in `queue` already, which only a hand can have put
        there. `Err(NotAdopted)`: it was to wait, in a spool whose other programs need not know that.
        `Err(TimeNotKept)`: the file system cannot keep so late a time. `Err(SyncsRefused)`, and the troubles of the
        operating system: the job is still yours. `Err(DurabilityUnknown)`: the entry has moved, and power loss might
        undo it. Raises `RuntimeError` if the job was settled before,
        `TypeError` if `queue` is none of the spool's, and what `enqueue` raises for a wrong `not_before`.

        **Cancellation**: cancelled means that the job is still yours, unchanged. (asyncio's own cancellation may come
        after the commit: then the `CancelledError` has a note that says so.)
        **Durability**: the new metadata, and the queue that the entry came from, are synced before the move, and the
        new queue after it.

        ```python
        (await job.save(Mail.RETRY)).unwrap()
        ```
        """
        return await self._checkout.save(queue, metadata, not_before=not_before, durability=durability)

    async def remove(self, *, durability: Durability | None = None) -> Result[None, RemoveError]:
        """Settle: delete the entry and its data.

        `Err(OwnershipLost)`: somebody took the entry away by an `…_unsafe` operation. `Err(SyncsRefused)`, and the
        troubles of the operating system: the job is still yours. `Err(DurabilityUnknown)`: the entry is removed, and
        power loss might bring it back. Raises `RuntimeError` if the job was settled before.

        **Cancellation**: cancelled means that the job is still yours. (asyncio's own: see `save`.)
        **Durability**: the queue is synced before the metadata is unlinked, and the directory that it was in before
        the data goes.

        ```python
        (await job.remove()).unwrap()
        ```
        """
        return await self._checkout.remove(durability=durability)

    async def release(self) -> Result[None, ReleaseError]:
        """Settle: put the entry back in the queue it came from, with the metadata that it was checked out with.

        `Err(OwnershipLost)`: somebody took the entry away by an `…_unsafe` operation. `Err(NameTaken)`: the queue has a
        second entry of that name; this one is left to recovery. Raises `RuntimeError` if the job was settled before.

        **Cancellation**: cancelled means that the job is still yours; leaving its block releases it.
        **Durability**: needs none. If power loss undoes it, recovery puts the entry back again.

        ```python
        (await job.release()).unwrap()
        ```
        """
        return await self._checkout.release()

    async def progress(self, done: float, message: str = "") -> Result[None, OwnershipLost | Trouble]:
        """Tell how far the work on the entry is. `multispool ls`, `show` and `top` show it.

        The same as `job.data.progress`, which handlers have. `Err(OwnershipLost)`: somebody took the entry away by an
        `…_unsafe` operation. `Err(OutOfSpace)` and the other troubles of the operating system: it is not shown. Raises
        `ValueError` if `done` is not from 0 to 1, and `RuntimeError` if the job was settled before.

        **Cancellation**: cancelled means that it was not told.
        **Durability**: none; power loss returns the entry anyway.

        ```python
        (await job.progress(0.4, "converting")).unwrap()
        ```
        """
        return await self.data.progress(done, message)

    async def __aenter__(self) -> CheckedOutEntry[Q, M, D]:
        """Return the job. No checkpoint: were it cancelled here, the block's end would never come."""
        if not self._blocks:
            self._scope = self._checkout.open_scope()
        self._blocks += 1
        return self

    async def __aexit__(self, exception_type: object, exception: BaseException | None, traceback: object) -> bool:
        """Return the entry to its queue if it has not been settled; remove it, if a request has cancelled the block."""
        checkout = self._checkout
        self._blocks -= 1
        if self._blocks:  # one around it has the scope
            await checkout.leave(exception)
            return False
        if exception is None and checkout.over and checkout.around is None:  # settling it was a checkpoint
            return bool(self._scope.__exit__(None, None, None))
        return await leave_in_scope(self._scope, checkout.leave, exception)


def checkout_of(job: CheckedOutEntry[Q, M, D]) -> Checkout[Q, M, D]:
    """Return what a job is the face of, for the library itself."""
    return job._checkout  # noqa: SLF001  # the one way behind the face

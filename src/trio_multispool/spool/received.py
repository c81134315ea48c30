"""`Received`: an entry that came out of a channel, to be acknowledged or returned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, final

import anyio
from anyio.lowlevel import cancel_shielded_checkpoint

from trio_multispool.model.types import D, M
from trio_multispool.threads.loop import keeping_notes_of, leave_in_scope

if TYPE_CHECKING:
    from types import TracebackType

    from trio_multispool.entries.checkout import Checkout
    from trio_multispool.entries.datafile import DataFile


@final
class Received(Generic[M, D]):
    """An entry from a channel's `receive`, which nobody else has. Put `async with` around the work.

    ```python
    async with received:
        message = (await received.data.load()).unwrap()
        await deliver(received.metadata, message)
    ```

    **A block that ends normally** acknowledges: the entry is removed, whatever is cancelled meanwhile. (asyncio's own
    cancellation is raised when that is done, with a note.) `return`, `break` and `continue` are normal ends.

    **A block that raises or is cancelled** returns the entry to its queue, unchanged, and somebody receives it again.
    Closing the receive end and leaving the channel's block do the same; a block that ends normally after that raises
    `anyio.ClosedResourceError`. If removing fails, the block raises that `SpoolError`, and the entry is returned
    (except with `DurabilityUnknown`: it is removed, and power loss might bring it back). If the process dies, recovery
    returns the entry.

    **A block that somebody cancels** by `spool.cancel(received.name)` ends as if a scope around it were cancelled; its
    entry is removed.

    A block can be entered once; after that it raises `RuntimeError`.
    """

    def __init__(self, job: Checkout[Any, M, D], in_hand: dict[Received[Any, Any], Checkout[Any, Any, Any]]) -> None:
        """Take over a job, and join what a receive end has in hand until it is closed. Not made by users."""
        self._job = job
        self._in_hand = in_hand
        self._entered = False
        self._scope: anyio.CancelScope
        in_hand[self] = job

    def __repr__(self) -> str:
        return f"<Received {self.name!r} of queue {self._job.queue.value!r}>"

    @property
    def name(self) -> str:
        """The entry's name. It stays the same however often the entry is returned: a good idempotency key."""
        return self._job.name

    @property
    def metadata(self) -> M:
        """The metadata, as it was sent."""
        return self._job.metadata

    @property
    def data(self) -> DataFile[D]:
        """The data, on disk until it is loaded. Usable until the block is left."""
        return self._job.data

    async def __aenter__(self) -> Received[M, D]:
        """Return this. No checkpoint: if it were cancelled here, the block's end would never come."""
        if self._entered:
            raise RuntimeError(f"the block of what was received, entry {self.name!r}, can be entered once")
        if self not in self._in_hand:
            raise self._returned()
        self._entered = True
        self._scope = self._job.open_scope()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Acknowledge if the block ended normally; otherwise return the entry, or remove it if that was asked for."""
        return await leave_in_scope(self._scope, self._leave, exception)

    async def _leave(self, exception: BaseException | None) -> None:
        if self._in_hand.pop(self, None) is None:  # once popped, closing the end leaves the entry to this block
            self._job.end_work(exception)
            with keeping_notes_of(exception):
                await cancel_shielded_checkpoint()
            if exception is None:
                raise self._returned()
            return
        if exception is not None:
            await self._job.leave(exception)
            return
        self._job.scope = None
        async with self._job:  # an entry that cannot be removed is returned here; then its error is raised
            answer = await self._job.remove(insist=True)
            answer.ignore()  # leaving the block raises the error, or the next line does
        answer.unwrap()

    def _returned(self) -> anyio.ClosedResourceError:
        return anyio.ClosedResourceError(f"entry {self.name!r} was returned: the end that received it was closed")

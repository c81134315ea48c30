"""A hop: run a blocking transaction to its end in a worker thread, safe under every kind of cancellation.

Theory. Cancellation must mean "it did not happen". Under Trio's and AnyIO's scopes that is so by construction: the task
checks for cancellation before its thread starts, and cannot be cancelled until the thread has returned.

asyncio's own `Task.cancel()`, and what is built on it (`asyncio.timeout`, `wait_for`), do not ask: `CancelledError` is
raised in the task at once, while the thread goes on. It must not be swallowed, so it cannot be delayed into an ordinary
return either. Therefore:

- the cancelled task marks the transaction, which reads the mark right before its commit and then withdraws, without
  effect;
- the task waits until the thread has finished, in a loop, because more cancellations may come while it waits;
- if the commit was already past, the effect is undone where that is possible: a check-out is given back, a reservation
  is given up. Otherwise it stands, and a note on the `CancelledError` tells the outcome.

What releases something (`finish`) is never withdrawn: it is started again until it has run, and only then does the
cancellation go on its way.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import anyio

from trio_multispool.model.results import Err
from trio_multispool.model.types import T
from trio_multispool.threads.transaction import Hop, Withdrawn

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_multispool.threads.transaction import Answer, BeforeCommit


DEFAULT_THREADS: Final = 40
"""How many operations of one spool run at a time unless the caller gives a limiter; Trio's and AnyIO's default too."""


class Offload:
    """Runs the transactions of one spool in worker threads."""

    def __init__(self, limiter: anyio.CapacityLimiter | None) -> None:
        """Use the caller's limiter, or one of its own: sharing the process's default could deadlock with its users."""
        self.limiter: anyio.CapacityLimiter = anyio.CapacityLimiter(DEFAULT_THREADS) if limiter is None else limiter
        self._unlimited = anyio.CapacityLimiter(math.inf)  # tokens are taken from the other

    async def run(
        self,
        operation: str,
        work: Callable[[BeforeCommit], T],
        *,
        undo: Callable[[T], None] | None = None,
    ) -> Answer[T]:
        """Run `work` and return what it returns, or the `SpoolError` that it raises, as an `Err`.

        `work` is given the function to call right before its commit. What it raises otherwise passes through, as the
        same object. `undo` takes back an effect whose caller was cancelled after the commit.

        **Cancellation**: cancelled means that it did not happen. The only exception is asyncio's own, when it comes
        after the commit and there is no `undo`: then the `CancelledError` has a note.
        """
        hop = Hop(work)
        # On behalf of the hop and not of the task: the task may hold a token of its own.
        await self.limiter.acquire_on_behalf_of(hop)
        try:
            await hop.run_in_thread(self._unlimited)
        except anyio.get_cancelled_exc_class() as cancelled:
            if hop.withdraw_or_prevent():
                with anyio.CancelScope(shield=True):
                    await hop.wait_done()
                await self._after_cancellation(operation, hop, undo, cancelled)
            raise
        finally:
            self.limiter.release_on_behalf_of(hop)
        return hop.result()

    async def _after_cancellation(
        self, operation: str, hop: Hop[T], undo: Callable[[T], None] | None, cancelled: BaseException
    ) -> None:
        if isinstance(hop.exception, Withdrawn):
            return
        if undo is None or hop.exception is not None or isinstance(hop.value, Err):
            hop.note(operation, cancelled)
            return
        value = hop.result().unwrap()
        try:
            undone = await self.finish(operation, lambda: undo(value))
        except anyio.get_cancelled_exc_class():
            return  # undone, and cancelled once more; the caller raises the first cancellation
        if isinstance(undone, Err):
            cancelled.add_note(f"{operation} was cancelled, and could not be undone: {undone.error}")

    async def finish(self, operation: str, work: Callable[[], T]) -> Answer[T]:
        """Run `work` to its end, whatever is cancelled; a cancellation that came meanwhile is raised afterwards.

        For releasing: it never queues on the caller's limiter.
        """
        hop = Hop[T](lambda _before_commit: work())
        return hop.finished(operation, await hop.run_to_the_end(self._unlimited))

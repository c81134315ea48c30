"""A hop: run a blocking transaction to its end in a worker thread, safe under every kind of cancellation.

Theory. Cancellation must mean "it did not happen". There are two kinds.

- A *scope's* (Trio's, AnyIO's) is told at checkpoints, and a shield puts that off. The task checks for it before its
  thread starts, and waits for the thread in a shield. So the operation happens, returns its value, and the cancellation
  takes effect at the next checkpoint.
- A *native* one, by `Task.cancel()` and what is built on it (`asyncio.timeout`, `wait_for`), does not ask:
  `CancelledError` is raised in the task at once, while the thread goes on. An interrupt is like it. It must not be
  swallowed, so the operation cannot return. The transaction is marked as withdrawn; it reads that mark right before its
  commit. The task waits until the thread has finished, in a loop, because more may come. If the commit was already
  past, the effect is undone where that is possible: a check-out is given back, a reservation is given up. Otherwise it
  stands, and a note on the exception tells the outcome.

Because of the shield, what arrives while the thread is at work is native, even if a scope is cancelled as well: neither
can be taken for the other. It is raised outside every `except`, so that no scope finds its own in the context.

What releases something (`finish`) is never withdrawn. The cancellation goes on its way when it has run.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import anyio

from trio_multispool.errors import SpoolError
from trio_multispool.model.results import Err, Ok, handed_out
from trio_multispool.threads.interrupts import keep_interrupts_out
from trio_multispool.threads.loop import context_for_a_thread
from trio_multispool.threads.running import Running
from trio_multispool.threads.transaction import Hop

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_multispool.model.types import T
    from trio_multispool.threads.transaction import Answer, BeforeCommit


DEFAULT_THREADS: Final = 40
"""How many operations of one spool run at a time unless the caller gives a limiter; Trio's and AnyIO's default too."""


class Offload:
    """Runs the transactions of one spool in worker threads."""

    def __init__(self, limiter: anyio.CapacityLimiter | None, running: Running | None = None) -> None:
        """Use the caller's limiter, or one of its own: sharing the process's default could deadlock with its users."""
        keep_interrupts_out()
        if limiter is not None and not isinstance(limiter, anyio.CapacityLimiter):
            raise TypeError(f"a limiter is an anyio.CapacityLimiter, not {limiter!r}")
        self._running = Running() if running is None else running
        self._unlimited = anyio.CapacityLimiter(math.inf)
        self.limiter: anyio.CapacityLimiter = anyio.CapacityLimiter(DEFAULT_THREADS) if limiter is None else limiter

    async def run(
        self,
        operation: str,
        work: Callable[[BeforeCommit], T],
        *,
        undo: Callable[[T], None] | None = None,
        interruptible: bool = False,
        limited: bool = True,
    ) -> Answer[T]:
        """Run `work` and return what it returns, or the `SpoolError` that it raises, as an `Err`.

        `work` is given the function to call right before its commit. What it raises otherwise passes through, as the
        same object. `undo` takes back an effect whose caller was cancelled after the commit. `interruptible`, for work
        without an effect that may be long: a scope's cancellation ends it too, when it calls that function. What is not
        `limited` waits for no token of the limiter.

        **Cancellation**: cancelled means that it did not happen. The only exception is asyncio's own, when it comes
        after the commit and there is no `undo`: then the `CancelledError` has a note.
        """
        hop = Hop(work, context_for_a_thread())
        loop, limiter = self._running.begin(), self.limiter if limited else self._unlimited
        cancelled: BaseException | None = None
        try:
            await loop.checkpoint_if_cancelled()
            try:  # no checkpoint if one is free; on behalf of the hop: the task may hold a token of its own
                limiter.acquire_on_behalf_of_nowait(hop)
            except anyio.WouldBlock:
                await limiter.acquire_on_behalf_of(hop)
            try:
                cancelled = await hop.run_in_thread(self._running, interruptible=interruptible)
                if cancelled is not None and interruptible:  # there is no effect
                    raise cancelled
                return await hop.outcome(operation, cancelled, undo, self._running)
            finally:
                limiter.release_on_behalf_of(hop)
        finally:
            self._running.end()
            del cancelled

    async def at_once(self, operation: str, work: Callable[[], T]) -> Answer[T]:
        """Do what waits for nothing and changes nothing, here, and return what `run` would.

        **Cancellation**: nothing was to change.
        """
        loop = self._running.begin()
        try:
            await loop.checkpoint()
            return Ok(work())
        except SpoolError as error:
            return handed_out(Err(error), operation, self._running.what)
        finally:
            self._running.end()

    async def finish(self, operation: str, work: Callable[[], T]) -> Answer[T]:
        """Run `work` to its end, whatever is cancelled; a cancellation that came meanwhile is raised afterwards.

        For releasing: it never queues on the caller's limiter.
        """
        hop: Hop[T] = Hop(lambda _before_commit: work(), context_for_a_thread(), insist=True)
        _ = self._running.begin()
        cancellation: BaseException | None = None
        try:
            cancellation = await hop.run_in_thread(self._running)
            if cancellation is None:
                return hop.result()
            if hop.exception is not None:
                cancellation.add_note(f"{operation} failed meanwhile: {hop.exception!r}")
            raise cancellation
        finally:
            self._running.end()
            del cancellation

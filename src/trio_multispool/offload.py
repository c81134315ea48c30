"""The one thread hop: a blocking transaction, run to its end in a worker thread, safe under every kind of cancellation.

Theory. Cancellation must mean "it did not happen". Under Trio's and AnyIO's scopes that is so by construction: the task
checks for cancellation before its thread starts, and cannot be cancelled until the thread has returned.

asyncio's own `Task.cancel()`, and what is built on it (`asyncio.timeout`, `wait_for`), do not ask: `CancelledError` is
raised in the task at once, while the thread goes on. It must not be swallowed, so it cannot be delayed into an ordinary
return either. Therefore:

- the cancelled task marks the transaction, which reads the mark right before its commit and then withdraws, without
  effect;
- the task waits until the thread has finished, in a loop, because more cancellations may come while it waits;
- if the commit was already past, the effect is undone where that is possible (a check-out is given back, a
  reservation is
  given up); otherwise it stands, and the outcome is told in a note on the `CancelledError`.

What releases something (`finish`) is never withdrawn: it is started again until it has run, and only then does the
cancellation go on its way.
"""

from __future__ import annotations

import enum
import functools
import math
import threading
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar

import anyio
import anyio.to_thread

from trio_multispool.errors import SpoolError
from trio_multispool.results import Err, Ok

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

DEFAULT_THREADS: Final = 40
"""How many operations of one spool run at a time unless the caller gives a limiter; Trio's and AnyIO's default too."""

Answer: TypeAlias = Ok[T] | Err[Any]
"""A `Result` whose errors are those that the work can raise; each public operation names them in its annotation."""

BeforeCommit: TypeAlias = "Callable[[], None]"


class Withdrawn(BaseException):  # no error: it passes through codecs like a cancellation
    """Raised right before a commit whose caller has been cancelled."""


class _Stage(enum.Enum):
    PENDING = enum.auto()
    RUNNING = enum.auto()
    DONE = enum.auto()
    NEVER_RAN = enum.auto()


class _Hop(Generic[T]):
    """One transaction on its way through a worker thread."""

    def __init__(self, work: Callable[[BeforeCommit], T]) -> None:
        self._work = work
        self._mutex = threading.Lock()
        self._stage = _Stage.PENDING
        self._withdrawn = False
        self._when_done: Callable[[], object] | None = None
        self.value: Answer[T] | None = None
        self.exception: BaseException | None = None

    def run(self) -> None:
        """Do the work, in the worker thread, and keep what comes of it."""
        with self._mutex:
            if self._stage is not _Stage.PENDING:
                return
            self._stage = _Stage.RUNNING
        try:
            self.value = Ok(self._work(self._before_commit))
        except SpoolError as error:
            self.value = Err(error)
        except BaseException as error:  # noqa: BLE001  # raised again in the task that waits
            self.exception = error
        with self._mutex:
            self._stage = _Stage.DONE
            when_done = self._when_done
        if when_done is not None:
            _ = when_done()

    def _before_commit(self) -> None:
        with self._mutex:
            if self._withdrawn:
                raise Withdrawn

    def result(self) -> Answer[T]:
        """Return or raise what came of the work."""
        if self.exception is not None:
            try:
                raise self.exception
            finally:
                self.exception = None  # the frame below holds the exception, which holds the frame
        assert self.value is not None, "the worker thread has not finished"  # noqa: S101  # a bug in this file
        return self.value

    @property
    def started(self) -> bool:
        """Whether the worker thread has begun."""
        with self._mutex:
            return self._stage in (_Stage.RUNNING, _Stage.DONE)

    @property
    def done(self) -> bool:
        """Whether the worker thread has finished."""
        with self._mutex:
            return self._stage is _Stage.DONE

    def withdraw(self) -> bool:
        """Ask a transaction that has not committed not to; tell whether it ever started."""
        with self._mutex:
            if self._stage is _Stage.PENDING:
                self._stage = _Stage.NEVER_RAN
            self._withdrawn = True
            return self._stage is not _Stage.NEVER_RAN

    async def wait_done(self) -> None:
        """Wait for the thread, on asyncio, whatever cancellations arrive meanwhile: the caller raises one already."""
        import asyncio  # noqa: PLC0415  # only where asyncio runs

        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def tell() -> None:
            if not done.done():
                done.set_result(None)

        with self._mutex:
            if self._stage is _Stage.DONE:
                return
            self._when_done = functools.partial(loop.call_soon_threadsafe, tell)
        while not done.done():
            try:
                _ = await asyncio.wait([done])
            except asyncio.CancelledError:
                continue


class Offload:
    """Runs the transactions of one spool in worker threads."""

    def __init__(self, limiter: anyio.CapacityLimiter | None) -> None:
        """Use the caller's limiter, or one of its own: sharing the process's default could deadlock with its users."""
        self.limiter: anyio.CapacityLimiter = anyio.CapacityLimiter(DEFAULT_THREADS) if limiter is None else limiter
        self._settling = anyio.CapacityLimiter(DEFAULT_THREADS)
        self._unlimited = anyio.CapacityLimiter(math.inf)  # tokens are taken from the others

    async def run(
        self,
        operation: str,
        work: Callable[[BeforeCommit], T],
        *,
        undo: Callable[[T], None] | None = None,
        settling: bool = False,
    ) -> Answer[T]:
        """Run `work` and return what it returns, or the `SpoolError` that it raises, as an `Err`.

        `work` is given the function to call right before its commit. What it raises otherwise passes through, as the
        same object. `undo` takes back an effect whose caller was cancelled after the commit. Settling does not queue
        on the caller's limiter.

        **Cancellation**: cancelled means that it did not happen. The only exception is asyncio's own, when it comes
        after the commit and there is no `undo`: then the `CancelledError` has a note.
        """
        hop, limiter = _Hop(work), self._settling if settling else self.limiter
        # On behalf of the hop and not of the task: the task may hold a token of its own.
        await limiter.acquire_on_behalf_of(hop)
        try:
            await anyio.to_thread.run_sync(hop.run, limiter=self._unlimited)
        except anyio.get_cancelled_exc_class() as cancelled:
            if hop.withdraw():
                with anyio.CancelScope(shield=True):
                    await hop.wait_done()
                await self._after_cancellation(operation, hop, undo, cancelled)
            raise
        finally:
            limiter.release_on_behalf_of(hop)
        return hop.result()

    async def _after_cancellation(
        self, operation: str, hop: _Hop[T], undo: Callable[[T], None] | None, cancelled: BaseException
    ) -> None:
        if isinstance(hop.exception, Withdrawn):
            return
        if hop.exception is not None:
            cancelled.add_note(f"{operation} raised while it was being cancelled: {hop.exception!r}")
        elif undo is not None and isinstance(hop.value, Ok):
            value = hop.value.value
            try:
                undone = await self.finish(operation, lambda: undo(value))
            except anyio.get_cancelled_exc_class():
                return  # undone, and cancelled once more; the caller raises the first cancellation
            if isinstance(undone, Err):
                cancelled.add_note(f"{operation} was cancelled, and could not be undone: {undone.error}")
        else:
            cancelled.add_note(f"{operation} was already done when it was cancelled: {hop.value!r}")

    async def finish(self, operation: str, work: Callable[[], T]) -> Answer[T]:
        """Run `work` to its end, whatever is cancelled; a cancellation that came meanwhile is raised afterwards.

        For releasing: it never queues on the caller's limiter.
        """
        cancellation: BaseException | None = None
        hop = _Hop[T](lambda _before_commit: work())
        with anyio.CancelScope(shield=True):
            while not hop.done:
                try:
                    await anyio.to_thread.run_sync(hop.run, limiter=self._unlimited)
                    if not hop.done:  # an earlier attempt, given up for lost, is running it
                        await hop.wait_done()
                except anyio.get_cancelled_exc_class() as cancelled:  # asyncio's own: a shield keeps the others off
                    cancellation = cancellation or cancelled
                    if hop.started:
                        await hop.wait_done()
        if cancellation is None:
            return hop.result()
        try:
            if hop.exception is not None or isinstance(hop.value, Err):
                cancellation.add_note(f"{operation} failed meanwhile: {hop.exception or hop.value!r}")
            raise cancellation
        finally:
            del cancellation

"""One transaction on its way through a worker thread, as the waiting task sees it."""

from __future__ import annotations

import enum
import functools
import math
import sys
import threading
from typing import TYPE_CHECKING, Any, Generic, TypeAlias

import anyio
import anyio.to_thread

from trio_multispool.errors import SpoolError
from trio_multispool.model.results import Err, Ok
from trio_multispool.model.types import T
from trio_multispool.threads import pool
from trio_multispool.threads.loop import running_loop

if TYPE_CHECKING:
    from collections.abc import Callable


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


def keep_interrupts_out_of(function: Callable[..., object]) -> None:
    """Have Trio raise `KeyboardInterrupt` in this function, and in what it calls, at checkpoints only.

    Elsewhere it may be raised between any two lines of the main task. (asyncio cancels the main task instead.)
    """
    trio = sys.modules.get("trio")  # not imported where it cannot be running
    if trio is not None:
        trio.lowlevel.enable_ki_protection(function)


class Transaction(Generic[T]):
    """What is known of a transaction while a thread runs it: how far it is, its outcome, whether it was withdrawn."""

    def __init__(self) -> None:
        """Begin as pending."""
        self._mutex = threading.Lock()
        self._stage = _Stage.PENDING
        self._withdrawn = False
        self._when_done: Callable[[], object] | None = None
        self.value: Answer[T] | None = None
        self.exception: BaseException | None = None

    def begin(self) -> bool:
        """Note that a thread is at work; tell whether it is to be."""
        with self._mutex:
            if self._stage is not _Stage.PENDING:
                return False
            self._stage = _Stage.RUNNING
            return True

    def end(self) -> None:
        """Note that the work is done, and wake the thread or task that waits for it."""
        with self._mutex:
            self._stage = _Stage.DONE
            when_done = self._when_done
        if when_done is not None:
            _ = when_done()

    def keep(self, work: Callable[[], T]) -> None:
        """Do the work, and keep what comes of it."""
        try:
            self.value = Ok(work())
        except SpoolError as error:
            self.value = Err(error)
        except BaseException as error:  # noqa: BLE001  # raised again in the task that waits
            self.value, self.exception = None, error

    def before_commit(self) -> None:
        """Raise `Withdrawn` if nobody wants the effect any more."""
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
        stage = self._stage
        return stage is _Stage.RUNNING or stage is _Stage.DONE

    @property
    def done(self) -> bool:
        """Whether the worker thread has finished."""
        return self._stage is _Stage.DONE

    def withdraw(self) -> None:
        """Ask a transaction that has not committed not to."""
        with self._mutex:
            self._withdrawn = True

    def withdraw_or_prevent(self) -> bool:
        """Withdraw, and keep one that has not begun from beginning; tell whether it had."""
        with self._mutex:
            if self._stage is _Stage.PENDING:
                self._stage = _Stage.NEVER_RAN
            self._withdrawn = True
            return self._stage is not _Stage.NEVER_RAN

    def note(self, operation: str, cancelled: BaseException) -> None:
        """Tell in a note on the cancellation of the caller what came of the work all the same."""
        if self.exception is not None:
            cancelled.add_note(f"{operation} raised while it was being cancelled: {self.exception!r}")
        else:
            cancelled.add_note(f"{operation} was already done when it was cancelled: {self.value!r}")

    def finished(self, operation: str, cancellation: BaseException | None) -> Answer[T]:
        """Return what came of a transaction that nothing could cancel, or raise the cancellation that tried to."""
        if cancellation is None:
            return self.result()
        try:
            if self.exception is not None or isinstance(self.value, Err):
                cancellation.add_note(f"{operation} failed meanwhile: {self.exception or self.value!r}")
            raise cancellation
        finally:
            del cancellation

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


class Hop(Transaction[T]):
    """A transaction with a thread of its own."""

    def __init__(self, work: Callable[[BeforeCommit], T]) -> None:
        """Prepare to do some work."""
        super().__init__()
        self._work = work

    def run(self) -> None:
        """Do the work, in the worker thread."""
        if self.begin():
            self.keep(lambda: self._work(self.before_commit))
            self.end()

    async def run_in_thread(self, limiter: anyio.CapacityLimiter) -> None:
        """Do the work in a thread. asyncio's own cancellation is raised at once, while the thread goes on."""
        await anyio.to_thread.run_sync(self.run, limiter=limiter)

    async def run_in_own_thread(self, on_cancelled: Callable[[], None]) -> BaseException | None:
        """Do the work in one of our own threads, whatever is cancelled; return a cancellation that came meanwhile.

        Only asyncio's own is returned: what a scope cancels is told again at its next checkpoint. An interrupt is
        raised when the work is done. Raises `RuntimeError` if no thread could be started.
        """
        ended, loop = anyio.Event(), running_loop()
        pool.start(self.run, lambda: loop.call(ended.set))
        cancellation: BaseException | None = None
        interrupt: BaseException | None = None
        shielded = False  # not before something is cancelled: a scope takes as long as all the rest
        try:
            while not ended.is_set():
                try:
                    await (_shielded(ended) if shielded else ended.wait())
                except anyio.get_cancelled_exc_class() as cancelled:
                    if anyio.current_effective_deadline() != -math.inf:  # else a scope is cancelled
                        cancellation = cancellation or cancelled
                        on_cancelled()
                except BaseException as error:  # noqa: BLE001  # raised below
                    interrupt = error
                    on_cancelled()
                shielded = True
            if interrupt is not None:
                raise interrupt
            return cancellation
        finally:
            del cancellation, interrupt

    async def run_to_the_end(
        self, limiter: anyio.CapacityLimiter, on_cancelled: Callable[[], None] = lambda: None
    ) -> BaseException | None:
        """Do the work in a thread, whatever is cancelled; return a cancellation that came meanwhile.

        Only asyncio's own can come: a shield keeps the others off. It is started again until it has run.
        """
        cancellation: BaseException | None = None
        try:
            with anyio.CancelScope(shield=True):
                while not self.done:
                    try:
                        await self.run_in_thread(limiter)
                        if not self.done:  # an earlier attempt, given up for lost, is running it
                            await self.wait_done()
                    except anyio.get_cancelled_exc_class() as cancelled:
                        cancellation = cancellation or cancelled
                        on_cancelled()
                        if self.started:
                            await self.wait_done()
            return cancellation
        finally:
            del cancellation


async def _shielded(event: anyio.Event) -> None:
    with anyio.CancelScope(shield=True):
        await event.wait()

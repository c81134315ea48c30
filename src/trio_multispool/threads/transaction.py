"""One transaction on its way through a worker thread, as the waiting task sees it."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeAlias

import msgspec

from trio_multispool.errors import SpoolError
from trio_multispool.model.results import Err, Ok, handed_out
from trio_multispool.model.types import T
from trio_multispool.threads.loop import context_for_a_thread, to_raise

if TYPE_CHECKING:
    from trio_multispool.threads.running import Running


Answer: TypeAlias = Ok[T] | Err[Any]
"""A `Result` whose errors are those that the work can raise; each public operation names them in its annotation."""

BeforeCommit: TypeAlias = "Callable[[], None]"


class Withdrawn(BaseException):  # no error: it passes through codecs like a cancellation
    """Raised right before a commit whose caller has been cancelled."""


class Transaction(msgspec.Struct, Generic[T], eq=False, kw_only=True):
    """What is known of a transaction while a thread runs it: how far it is, its outcome, whether it was withdrawn."""

    started: bool = False
    """Whether the worker thread has begun."""
    done: bool = False
    """Whether it has finished."""
    value: Ok[T] | None = None
    """What it has returned."""
    exception: BaseException | None = None
    """What it has raised; a `SpoolError` becomes an `Err`."""
    withdrawn: bool = False
    """Whether nobody wants the effect any more."""
    insist: bool = False
    """Whether it is never withdrawn."""

    def fail(self, error: BaseException) -> None:
        """Note what the work has raised, and that it is done."""
        self.exception = error
        self.done = True

    def before_commit(self) -> None:
        """Raise `Withdrawn` if nobody wants the effect any more."""
        if self.withdrawn:
            raise Withdrawn

    def result(self) -> Answer[T]:
        """Return or raise what came of the work."""
        if isinstance(self.exception, SpoolError):
            return Err(self.exception)
        if self.exception is not None:
            try:
                raise self.exception
            finally:
                self.exception = None  # the frame below holds the exception, which holds the frame
        assert self.value is not None, "the worker thread has not finished"  # noqa: S101  # a bug in this file
        return self.value

    def withdraw(self) -> None:
        """Ask a transaction that has not committed not to, unless it insists."""
        self.withdrawn = not self.insist

    def note(self, operation: str, cancelled: BaseException) -> None:
        """Tell in a note on the cancellation of the caller what came of the work all the same."""
        if self.exception is None or isinstance(self.exception, SpoolError):
            cancelled.add_note(f"{operation} was already done when it was cancelled: {self.result()!r}")
        else:
            cancelled.add_note(f"{operation} raised while it was being cancelled: {self.exception!r}")

    async def outcome(
        self,
        operation: str,
        cancelled: BaseException | None,
        undo: Callable[[T], None] | None,
        running: Running,
    ) -> Answer[T]:
        """Return or raise what came of the work, if nothing was raised in its caller meanwhile.

        Otherwise nobody wants the effect any more; nor does anybody who could undo it if all has been closed. Undo it,
        or note that it stands on what is raised: `cancelled`, or a native cancellation that came later.
        """
        late: BaseException | None = None
        try:
            if undo is not None and cancelled is None and running.closed and self.value is not None:
                cancelled = running.closed_error()
            if cancelled is None:
                return self.result() if self.exception is None else handed_out(self.result(), operation, running.what)
            if undo is not None and self.value is not None:
                value = self.value.value
                undoing: Hop[None] = Hop(lambda _before_commit: undo(value), context_for_a_thread(), insist=True)
                late = await undoing.run_in_thread(running)
                undone = undoing.result()
                if isinstance(undone, Err):
                    cancelled.add_note(f"{operation} was cancelled, and could not be undone: {undone.error}")
            elif not isinstance(self.exception, Withdrawn):
                self.note(operation, cancelled)
            raise cancelled if late is None else to_raise(cancelled, late)
        finally:
            cancelled = late = None  # the frame below holds them, and they the frame


class Hop(Transaction[T], Generic[T], eq=False):
    """A transaction with a thread of its own."""

    work: Callable[[BeforeCommit], T]
    context: contextvars.Context

    def run_here(self) -> None:
        """Do the work in this thread."""
        transaction: Transaction[T] = self
        transaction.started = True
        try:
            transaction.value = Ok(self.context.run(self.work, self.before_commit))
            transaction.done = True
        except BaseException as error:  # noqa: BLE001  # raised again in the task that waits
            self.fail(error)

    async def run_in_thread(self, running: Running, *, interruptible: bool = False) -> BaseException | None:
        """Do the work in a thread, to its end; return what came meanwhile: asyncio's own cancellation, or an interrupt.

        That withdraws it. The wait is shielded, so what comes is no scope's: that takes effect at the next checkpoint.
        If it is `interruptible`, a scope's counts too: for work without an effect. Raises `RuntimeError` if no thread
        could be started.
        """
        cancellation: BaseException | None = None
        phase = running.grace.begin()
        try:
            ended = running.loop.new_hop(not interruptible)
            running.start(self.run_here, ended.tell)
            while not ended.woken:
                try:
                    _ = await ended.until_woken()
                except BaseException as cancelled:  # noqa: BLE001  # raised by the caller
                    cancellation = cancellation or cancelled
                    self.withdraw()
                    ended.shielded = True
            return cancellation
        finally:
            del cancellation
            running.grace.end(phase)

"""One transaction on its way through a worker thread, as the waiting task sees it."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeAlias

import msgspec

from trio_multispool.errors import SpoolError
from trio_multispool.model.results import Err, Ok
from trio_multispool.model.types import T
from trio_multispool.threads import pool
from trio_multispool.threads.loop import context_for_a_thread, to_raise

if TYPE_CHECKING:
    from trio_multispool.threads.loop import Loop


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
    value: Answer[T] | None = None
    exception: BaseException | None = None
    withdrawn: bool = False
    """Whether nobody wants the effect any more."""

    def fail(self, error: BaseException) -> None:
        """Note what the work has raised, and that it is done."""
        if isinstance(error, SpoolError):
            self.value = Err(error)
        else:
            self.exception = error
        self.done = True

    def before_commit(self) -> None:
        """Raise `Withdrawn` if nobody wants the effect any more."""
        if self.withdrawn:
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

    def withdraw(self) -> None:
        """Ask a transaction that has not committed not to."""
        self.withdrawn = True

    def note(self, operation: str, cancelled: BaseException) -> None:
        """Tell in a note on the cancellation of the caller what came of the work all the same."""
        if self.exception is not None:
            cancelled.add_note(f"{operation} raised while it was being cancelled: {self.exception!r}")
        else:
            cancelled.add_note(f"{operation} was already done when it was cancelled: {self.value!r}")

    async def take_back(
        self,
        operation: str,
        cancelled: BaseException,
        undo: Callable[[T], None] | None,
        *,
        loop: Loop,
        in_thread: bool,
    ) -> BaseException:
        """Undo an effect that nobody wants any more, or note on what the caller is to raise that it stands.

        Returns what the caller is to raise: `cancelled`, or a native cancellation that came meanwhile.
        """
        if isinstance(self.exception, Withdrawn):
            return cancelled
        if undo is None or self.exception is not None or isinstance(self.value, Err):
            self.note(operation, cancelled)
            return cancelled
        value = self.result().unwrap()
        undoing: Hop[None] = Hop(lambda _before_commit: undo(value), context_for_a_thread(), in_thread)
        late = await undoing.run_in_thread(loop, lambda: None)
        undone = undoing.result()
        if isinstance(undone, Err):
            cancelled.add_note(f"{operation} was cancelled, and could not be undone: {undone.error}")
        return cancelled if late is None else to_raise(cancelled, late)

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


class Hop(Transaction[T], Generic[T], eq=False):
    """A transaction with a thread of its own."""

    work: Callable[[BeforeCommit], T]
    context: contextvars.Context | None
    """Of its caller, if it runs the caller's code."""
    in_thread: bool = True
    """Otherwise it runs right in the caller's thread: it must be quick. The wait is the same."""

    def _run(self) -> None:
        transaction: Transaction[T] = self
        transaction.started, context = True, self.context
        try:
            value = self.work(self.before_commit) if context is None else context.run(self.work, self.before_commit)
            transaction.value = Ok(value)
            transaction.done = True
        except BaseException as error:  # noqa: BLE001  # raised again in the task that waits
            self.fail(error)

    async def run_in_thread(
        self, loop: Loop, on_cancelled: Callable[[], None], *, interruptible: bool = False
    ) -> BaseException | None:
        """Do the work in a thread, to its end; return what came meanwhile: asyncio's own cancellation, or an interrupt.

        The wait is shielded, so what comes is no scope's: that takes effect at the next checkpoint. If it is
        `interruptible`, a scope's counts too: for work without an effect. `on_cancelled` is called each time. Raises
        `RuntimeError` if no thread could be started.
        """
        ended = loop.new_hop(not interruptible)
        start = pool.start if self.in_thread else pool.start_here
        start(self._run, ended.tell)
        cancellation: BaseException | None = None
        try:
            while not ended.woken:
                try:
                    _ = await ended.until_woken()
                except BaseException as cancelled:  # noqa: BLE001  # raised by the caller
                    cancellation = cancellation or cancelled
                    on_cancelled()
                    ended.shielded = True
            return cancellation
        finally:
            del cancellation

"""One transaction on its way through a worker thread, as the waiting task sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeAlias

from trio_multispool.errors import SpoolError
from trio_multispool.model.results import Err, Ok
from trio_multispool.model.types import T
from trio_multispool.threads import pool
from trio_multispool.threads.loop import context_for_a_thread, new_wait

if TYPE_CHECKING:
    from collections.abc import Callable


Answer: TypeAlias = Ok[T] | Err[Any]
"""A `Result` whose errors are those that the work can raise; each public operation names them in its annotation."""

BeforeCommit: TypeAlias = "Callable[[], None]"


class Withdrawn(BaseException):  # no error: it passes through codecs like a cancellation
    """Raised right before a commit whose caller has been cancelled."""


class Transaction(Generic[T]):
    """What is known of a transaction while a thread runs it: how far it is, its outcome, whether it was withdrawn.

    The thread works inside `with`, which keeps what is raised there.
    """

    def __init__(self) -> None:
        """Begin as pending."""
        self.started: bool = False
        """Whether the worker thread has begun."""
        self.done: bool = False
        """Whether it has finished."""
        self.value: Answer[T] | None = None
        self.exception: BaseException | None = None
        self._withdrawn = False

    def __enter__(self) -> None:
        """Note that the work begins."""
        self.started = True

    def __exit__(self, _type: object, raised: BaseException | None, _traceback: object) -> bool:
        """Note that the work is done, and keep what it raised, to be raised again in the task that waits."""
        if isinstance(raised, SpoolError):
            self.value = Err(raised)
        elif raised is not None:
            self.value, self.exception = None, raised
        self.done = True
        return True

    def answer(self, value: T) -> None:
        """Note what the work has returned."""
        self.value = Ok(value)

    def go_on(self) -> None:
        """Note that the work is not done: there is more to come."""
        self.done = False

    def before_commit(self) -> None:
        """Raise `Withdrawn` if nobody wants the effect any more."""
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

    def withdraw(self) -> None:
        """Ask a transaction that has not committed not to."""
        self._withdrawn = True

    def note(self, operation: str, cancelled: BaseException) -> None:
        """Tell in a note on the cancellation of the caller what came of the work all the same."""
        if self.exception is not None:
            cancelled.add_note(f"{operation} raised while it was being cancelled: {self.exception!r}")
        else:
            cancelled.add_note(f"{operation} was already done when it was cancelled: {self.value!r}")

    async def take_back(
        self, operation: str, cancelled: BaseException, undo: Callable[[T], None] | None, *, in_thread: bool
    ) -> None:
        """Undo an effect that nobody wants any more, or note on the caller's cancellation that it stands."""
        if isinstance(self.exception, Withdrawn):
            return
        if undo is None or self.exception is not None or isinstance(self.value, Err):
            self.note(operation, cancelled)
            return
        value = self.result().unwrap()
        undoing = Hop[None](lambda _before_commit: undo(value), in_thread=in_thread)
        _ = await undoing.run_in_thread(lambda: None)  # a second cancellation: the caller raises the first
        undone = undoing.result()
        if isinstance(undone, Err):
            cancelled.add_note(f"{operation} was cancelled, and could not be undone: {undone.error}")

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


class Hop(Transaction[T]):
    """A transaction with a thread of its own."""

    def __init__(self, work: Callable[[BeforeCommit], T], *, of_caller: bool = True, in_thread: bool = True) -> None:
        """Prepare to do some work, with the context variables of the caller if it is code `of_caller`.

        Without `in_thread`, it runs right in the caller's thread: it must be quick. The wait is the same.
        """
        super().__init__()
        self._work = work
        self._start = pool.start if in_thread else pool.start_here
        self._context = context_for_a_thread() if of_caller else None

    def _run(self) -> None:
        context, work = self._context, self._work
        with self:
            self.answer(work(self.before_commit) if context is None else context.run(work, self.before_commit))

    async def run_in_thread(
        self, on_cancelled: Callable[[], None], *, interruptible: bool = False
    ) -> BaseException | None:
        """Do the work in a thread, to its end; return what came meanwhile: asyncio's own cancellation, or an interrupt.

        The wait is shielded, so what comes is no scope's: that takes effect at the next checkpoint. If it is
        `interruptible`, a scope's counts too: for work without an effect. `on_cancelled` is called each time. Raises
        `RuntimeError` if no thread could be started.
        """
        ended = new_wait(shielded=not interruptible)
        self._start(self._run, ended.waker())
        cancellation: BaseException | None = None
        try:
            while not ended.woken:
                try:
                    await ended.until_woken()
                except BaseException as cancelled:  # noqa: BLE001  # raised by the caller
                    cancellation = cancellation or cancelled
                    on_cancelled()
                    ended.shielded = True
            return cancellation
        finally:
            del cancellation

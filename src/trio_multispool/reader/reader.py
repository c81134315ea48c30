"""`QueueReader`: takes entries from a queue as they come, and returns what its users did not settle."""

from __future__ import annotations

import contextlib
import functools
import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Generic, final

import anyio

from trio_multispool.entries.handlers import Work
from trio_multispool.entries.job import CheckedOutEntry
from trio_multispool.errors import NotAdopted
from trio_multispool.model.policies import Retry
from trio_multispool.model.results import Err, Ok, handed_out
from trio_multispool.model.times import due_at, length_of, seconds, whole
from trio_multispool.model.types import D, M, Q
from trio_multispool.model.verdicts import Remove, Save
from trio_multispool.reader.dequeue import Dequeuer
from trio_multispool.reader.pool import Jobs, work_off
from trio_multispool.reader.several import DequeuerOfSeveral
from trio_multispool.reader.signals import watching
from trio_multispool.session.session import Session
from trio_multispool.storage.upkeep import is_adopted
from trio_multispool.threads.loop import Loop, background, running_loop

if TYPE_CHECKING:
    import datetime
    from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
    from types import TracebackType

    from trio_multispool.entries.checkout import Checkout
    from trio_multispool.entries.datafile import DataFile
    from trio_multispool.entries.key_limits import KeyLimiter
    from trio_multispool.errors import ReleaseError, SaveError, Trouble
    from trio_multispool.model.results import Result
    from trio_multispool.model.verdicts import Verdict
    from trio_multispool.reader.dequeue import Fetcher
    from trio_multispool.reader.several import AnyDequeuer

POLL_INTERVAL: Final = 1.0
"""The longest wait of an idle reader before it looks again, in seconds."""

_REMOVE: Final = Remove()

_NO_LIMITERS: Final[Mapping[Any, Any]] = MappingProxyType({})


@final
class QueueReader(Generic[Q, M, D]):
    """Reads a queue: an async context manager, made by `spool.reader(queue)`.

    ```python
    async with spool.reader(Mail.SEND) as reader:
        async for job in reader:
            async with job:
                (await job.remove()).unwrap()
    ```

    **Leaving the block** returns every entry that was checked out through the reader and not settled, whatever is
    cancelled meanwhile. Using the reader afterwards raises `anyio.ClosedResourceError`, and its jobs `RuntimeError`.

    The block is a nursery: enter and leave it in one task; in between, several tasks may use the reader. Entries whose
    metadata cannot be decoded are set aside in quarantine, and those that cannot be read are passed over, each with a
    line in the log.
    """

    def __init__(
        self,
        session: Session[Q, M, D, Any],
        queues: Mapping[Q, float],
        *,
        poll_interval: float | datetime.timedelta = POLL_INTERVAL,
        key_limiters: Mapping[Q, KeyLimiter[M]] = _NO_LIMITERS,
        retention_tasks: Sequence[Fetcher] = (),
    ) -> None:
        """Make a reader that has not been entered."""
        if not isinstance(session, Session):  # type checkers refuse it, and newcomers write it
            raise TypeError("make a reader by `spool.reader(queue)`")
        interval = length_of(poll_interval, "poll_interval")
        if not interval:
            raise ValueError(f"poll_interval must be a positive number of seconds, not {poll_interval!r}")
        self._session = session
        dequeuers = {
            Dequeuer[Q, M, D](session, queue, interval, key_limiters.get(queue)): weight
            for queue, weight in queues.items()
        }
        self._dequeuer: AnyDequeuer[Q, M, D]
        self._dequeuer = DequeuerOfSeveral(dequeuers) if len(dequeuers) > 1 else next(iter(dequeuers))
        self._expiring = retention_tasks
        self._entered = False
        self._loop: Loop | None = None
        self._deadline = math.inf
        self._draining = False
        self._scopes: set[anyio.CancelScope] = set()
        self._signals = contextlib.ExitStack()
        self._block = contextlib.AsyncExitStack()

    def __repr__(self) -> str:
        """Show the queue, and how the reader stands."""
        dequeuer = self._dequeuer
        state = "closed" if dequeuer.closed else "stopped" if dequeuer.stopped else "open"
        queues = ", ".join(repr(queue.value) for queue in self.queues)
        return f"<QueueReader of {queues} of {self._session.path}, {state}, {len(dequeuer)} in hand>"

    @property
    def queue(self) -> Q:
        """The queue. Raises `ValueError` if there are several: see `queues`."""
        queue, *others = self.queues
        if others:
            raise ValueError("this reader reads several queues: see its `queues`, and `job.queue` or `data.queue`")
        return queue

    @property
    def _told(self) -> str:
        return f"iteration over queue {', '.join(queue.value for queue in self.queues)}"

    @property
    def queues(self) -> tuple[Q, ...]:
        """The queues; most readers have one."""
        return self._dequeuer.queues

    async def __aenter__(self) -> QueueReader[Q, M, D]:
        """Begin to read. No checkpoint. Raises `RuntimeError` if the reader was entered before."""
        if self._entered:
            raise RuntimeError("a reader can be entered once; make another with spool.reader(queue)")
        self._session.check_open()
        self._loop = running_loop()
        self._entered = True
        _ = self._block.enter_context(self._signals)
        self._block.enter_context(self._drained(anyio.CancelScope()))
        self._dequeuer.open(await self._block.enter_async_context(background()))
        _ = self._block.push_async_exit(self._close)
        for task in self._expiring:
            if not self._dequeuer.stopped:
                self._dequeuer.begin_fetching(task)
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Return unsettled entries; a cancellation by `drain` ends here."""
        return bool(await self._block.__aexit__(exception_type, exception, traceback))

    async def _close(self, _type: object, exception: BaseException | None, _traceback: object) -> None:
        await self._dequeuer.close(exception, patient=exception is None and self._draining)

    def stop(self) -> None:
        """Take no new entry: `dequeue` returns `Ok(None)`, and iterations end after the entries in hand.

        May be called from any task, thread or signal handler, any number of times, also before the reader is entered.
        """
        self._dequeuer.stopped = True
        if self._loop is not None:
            self._loop.call(self._dequeuer.wake)

    def drain(self, timeout: float | datetime.timedelta) -> None:
        """Like `stop`, and after `timeout` (seconds, or a `timedelta`) cancel what is still at work.

        This cancels the reader's block, with all that runs in it. The program goes on after the block, as if the block
        had come to its end; code between a cancelled `iter` and the end of the block does not run. An `iter` in a task
        from outside the block is cancelled too, and returns `Ok(None)`; the block waits for it. Every entry in hand
        goes back to the queue, unchanged, unless its handler returns a verdict: that is stored. A handler that waits
        for a thread goes on until the thread has ended. A block that is left in time is not cancelled.

        Of several calls, the earliest deadline counts. May be called from any task, thread or signal handler while the
        reader's block is open; before that it is like `stop`. Raises `TypeError` or `ValueError` if `timeout` is not a
        duration.

        ```python
        reader.drain(timedelta(seconds=10))
        ```
        """
        limit = _checked(timeout)
        self.stop()
        if self._loop is not None:
            self._draining = True
            self._loop.call(functools.partial(self._cancel_after, limit, self._loop.time))

    def drain_on(self, *signals: int, timeout: float | datetime.timedelta) -> None:
        """From now to the end of the reader's block, have the first of each of these signals call `drain(timeout)`.

        Only the first: a second one does what it did before, so that a second Ctrl-C interrupts as ever. All readers
        that watch for a signal are drained by it. Signals that are ignored stay so, as with `nohup`, and a forked child
        has the handlers that were there before. They are put back at the end of the block.

        Call it in the block, and in the main thread: signals are handled there. Raises `ValueError` in another thread
        (call `drain` from a handler of your own), `OSError` for a signal that cannot be handled, `RuntimeError` before
        the block, `anyio.ClosedResourceError` after it, and `TypeError` without a signal and as `drain` does.

        It works on Trio and asyncio. A handler that asyncio's `add_signal_handler` has set is called too; one that is
        set later, in whatever way, replaces this one.

        **Cancellation**: it does not wait. When the time is over, `drain` cancels the block.

        ```python
        async with spool.reader(Mail.SEND) as reader:
            reader.drain_on(signal.SIGTERM, signal.SIGINT, timeout=10)
            (await reader.iter(deliver, concurrency=8)).unwrap()
        ```
        """
        if not signals:
            raise TypeError("drain_on needs a signal, such as signal.SIGTERM")
        self._dequeuer.check_open()
        self._signals.enter_context(watching(signals, functools.partial(self.drain, _checked(timeout))))

    def _cancel_after(self, limit: float, now: Callable[[], float]) -> None:
        self._deadline = min(self._deadline, now() + limit)
        for scope in self._scopes:
            scope.deadline = self._deadline

    @contextlib.contextmanager
    def _drained(self, scope: anyio.CancelScope) -> Generator[None]:
        """Cancel the block when the time set by `drain` is over."""
        scope.deadline = self._deadline
        self._scopes.add(scope)
        try:
            with scope:
                yield
        finally:
            self._scopes.discard(scope)

    @property
    def stopped(self) -> bool:
        """Whether `stop` has been called."""
        return self._dequeuer.stopped

    # One at a time

    async def dequeue(self) -> Result[CheckedOutEntry[Q, M, D] | None, Trouble]:
        """Wait for an entry and check it out; put `async with` around the job. `Ok(None)`: the reader was stopped.

        `Err`: trouble of the operating system, such as `TooManyOpenFiles`. Raises `anyio.ClosedResourceError` if the
        reader's block has been left, and `RuntimeError` if it was not entered.

        **Cancellation**: cancelled means that nothing is checked out.
        **Durability**: a check-out is not synced: if power loss undoes it, the entry is in its queue.

        ```python
        while (job := (await reader.dequeue()).unwrap()) is not None:
            async with job:
                ...
        ```
        """
        return _shown(await self._dequeuer.dequeue(None, wait=True))

    async def dequeue_available(self) -> Result[CheckedOutEntry[Q, M, D] | None, Trouble]:
        """Check out an entry if one can be had now. `Ok(None)`: there is none, or the reader was stopped.

        Otherwise like `dequeue`.

        **Cancellation**: cancelled means that nothing is checked out.
        **Durability**: a check-out is not synced: if power loss undoes it, the entry is in its queue.

        ```python
        job = (await reader.dequeue_available()).unwrap()
        ```
        """
        return _shown(await self._dequeuer.dequeue(None, wait=False))

    # One after the other

    def __aiter__(self) -> Jobs[Q, M, D]:
        """Iterate over jobs, waiting for more, until the reader is stopped.

        Each job is a `CheckedOutEntry`: put `async with` around it. An iteration cannot return an `Err`, so it raises
        the `SpoolError`.
        """
        return Jobs(self._dequeuer, wait=True)

    def available(self) -> Jobs[Q, M, D]:
        """Iterate over the entries that can be had now, without waiting; otherwise like the reader itself.

        An entry that comes back to the queue meanwhile is not given a second time, unless it was in another queue.

        ```python
        async for job in reader.available():
            async with job:
                ...
        ```
        """
        return Jobs(self._dequeuer, wait=False)

    async def iter(  # noqa: PLR0913  # keyword arguments, each with a default
        self,
        handler: Callable[[M, DataFile[D]], Awaitable[Verdict[Q, M]]],
        *,
        concurrency: int = 1,
        time_limit: float | datetime.timedelta | None = None,
        on_error: Callable[[M, Exception], Verdict[Q, M]] | None = None,
        prefetch: int = 0,
        retry: Retry[Q] | None = None,
        on_cancel: Save[Q, M] | Remove = _REMOVE,
    ) -> Result[None, SaveError | ReleaseError]:
        """Give each entry to `handler` and do what its verdict says, waiting for more, until the reader is stopped.

        - `handler(metadata, data)` returns `Save(queue, metadata)`, `Remove()` or `Release()`. An entry that it
          releases, or saves to this queue, is given out again in its turn. If nothing else is there, that is at once,
          in a hot loop.
        - `concurrency`: how many handlers run at a time, in tasks of this call; no more entries are checked out. Tasks
          that wait for an entry at the same time have theirs checked out together.
        - `time_limit`: how long a handler may take for one entry, in seconds or as a `timedelta`. A handler that takes
          longer is cancelled, and counts as raising `TimeoutError`.
        - `on_error(metadata, exception)`: returns the verdict for an entry whose handler raised, instead of ending the
          iteration; for an `Exception` only, never for a cancellation. What it raises ends the iteration.
        - `prefetch`: how many more entries are checked out ahead, while handlers are at work, to be begun at once when
          one is done. Nobody else can have them meanwhile: use it for short handlers and few readers. Entries not begun
          go back as soon as the reader is stopped, and at the end.
        - `retry`: tries failed entries again after a delay, and puts them into a dead-letter queue when their attempts
          are used up; see `Retry`. The handler may then also answer `RetryLater(delay)` and `GiveUp(reason)`. It
          excludes `on_error`. An attempt is written down before the handler is called, so an entry that kills its
          worker each time is given up too. An entry that goes back because the reader is stopped, drained or cancelled
          uses up no attempt.

        - `on_cancel`: what becomes of an entry whose work somebody cancels by `spool.cancel`: `Remove()`, or
          `Save(queue)`, which keeps the reason in its history, and the metadata as it was checked out unless some is
          given. Its handler is cancelled, and the iteration goes on.

        `Err`: a verdict could not be stored (its entry is back in the queue), or trouble of the operating system;
        handlers that were running are cancelled, and their entries returned. `Err(NotAdopted)`: `retry` was given, in a
        spool that is not adopted: its other programs need not know of entries that wait.

        A handler that raises ends the iteration; its entry, and those of the others, go back to the queue. With
        `concurrency=1` the handler is called in the caller's task, and what it raises passes through as the same
        object; with more, it is always in an `ExceptionGroup`. A note on it names the entry. A handler that does not
        return a verdict counts as raising `TypeError`. (With `retry`, neither ends the iteration: the entry is tried
        again.)
        Raises `ValueError` if `concurrency` is not positive or `prefetch` is negative, and `TypeError` if one of them
        is not a whole number, or for another `on_cancel`. Raises `TypeError` for `retry` with `on_error`, or if the
        spool does not have its dead-letter queue, and `ValueError` if that is the queue being read.

        **Cancellation**: every entry in hand goes back to the queue, unchanged, unless its handler has returned a
        verdict: that is stored.
        **Durability**: as `job.save` and `job.remove` say. A failure is synced with the entry's move. The record
        that an attempt was begun is not, so power loss gives that attempt back.

        ```python
        (await reader.iter(deliver, concurrency=8, retry=Retry(attempts=5, dead_letter=Mail.FAILED))).unwrap()
        ```
        """
        work = Work(handler, seconds(time_limit), on_error, retry, on_cancel)
        answer = await self._iterate(work, concurrency, prefetch, wait=True)
        return handed_out(answer, self._told, self._session.running.what)

    async def iter_available(  # noqa: PLR0913  # as above
        self,
        handler: Callable[[M, DataFile[D]], Awaitable[Verdict[Q, M]]],
        *,
        concurrency: int = 1,
        time_limit: float | datetime.timedelta | None = None,
        on_error: Callable[[M, Exception], Verdict[Q, M]] | None = None,
        prefetch: int = 0,
        retry: Retry[Q] | None = None,
        on_cancel: Save[Q, M] | Remove = _REMOVE,
    ) -> Result[None, SaveError | ReleaseError]:
        """Like `iter`, for the entries that can be had now, without waiting.

        An entry that comes back to the queue meanwhile is not given a second time, unless it was in another queue.

        **Cancellation**: as for `iter`.
        **Durability**: as `job.save` and `job.remove` say.

        ```python
        (await reader.iter_available(deliver)).unwrap()
        ```
        """
        work = Work(handler, seconds(time_limit), on_error, retry, on_cancel)
        answer = await self._iterate(work, concurrency, prefetch, wait=False)
        return handed_out(answer, self._told, self._session.running.what)

    async def _iterate(self, work: Work[Q, M, D], concurrency: int, prefetch: int, *, wait: bool) -> Result[None, Any]:
        concurrency, prefetch = whole(concurrency, "concurrency", least=1), whole(prefetch, "prefetch", least=0)
        self._check_retry(work)
        if isinstance(work.on_cancel, Save):
            _ = self._session.check_queue(work.on_cancel.queue)
            _ = due_at(work.on_cancel.not_before, self._session.now)
        elif not isinstance(work.on_cancel, Remove):
            raise TypeError(f"on_cancel= takes Remove() or Save(…), not {work.on_cancel!r}")
        self._dequeuer.check_open()
        if work.retry is not None:
            adopted = await self._session.run("look for .spool.json", lambda _: is_adopted(self._session.storage))
            if isinstance(adopted, Err):
                return adopted
            if not adopted.value:
                return Err(NotAdopted(self._session.path, "entries that wait"))
        scope = anyio.CancelScope()
        with self._dequeuer.iterating(scope), self._drained(scope):
            return await work_off(self._dequeuer, work, concurrency=concurrency, prefetch=prefetch, wait=wait)
        if not self._draining:
            self._dequeuer.check_open()  # the block was left
        return Ok(None)

    def _check_retry(self, work: Work[Q, M, D]) -> None:
        if work.retry is None:
            return
        if not isinstance(work.retry, Retry):
            raise TypeError(f"retry takes a Retry(…), not {work.retry!r}")
        if work.on_error is not None:
            message = "retry= and on_error= exclude each other: Retry(on=…) says which exceptions are worth an attempt"
            raise TypeError(message)
        letters = self._session.check_queue(work.retry.dead_letter)
        if letters in [queue.value for queue in self.queues]:
            raise ValueError(f"dead letters of queue {letters!r} must go to another queue")


def _checked(timeout: float | datetime.timedelta) -> float:
    limit = seconds(timeout)
    if limit is None:  # type checkers refuse it, but an empty configuration brings it
        raise TypeError("drain needs a timeout, in seconds or as a timedelta; to wait for ever, use stop()")
    return limit


def _shown(answer: Result[Checkout[Q, M, D] | None, Trouble]) -> Result[CheckedOutEntry[Q, M, D] | None, Trouble]:
    if isinstance(answer, Err):
        return answer
    return Ok(None if answer.value is None else CheckedOutEntry(answer.value))

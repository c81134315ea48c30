"""`QueueReader`: takes entries from a queue as they come, and returns what its users did not settle."""

from __future__ import annotations

import contextlib
import enum
import functools
import math
import weakref
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast, final

import anyio
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint

from trio_multispool.activity import Polling
from trio_multispool.durations import seconds
from trio_multispool.handling import Work
from trio_multispool.iteration import Jobs, work_off
from trio_multispool.job import CheckedOutEntry
from trio_multispool.listing import Claimed, Given, Listing, NothingLeft
from trio_multispool.nursery import background
from trio_multispool.results import Err, Ok
from trio_multispool.wakeup import loop_caller

if TYPE_CHECKING:
    import datetime
    from collections.abc import Awaitable, Callable, Generator, Iterable
    from types import TracebackType

    from anyio.abc import TaskGroup

    from trio_multispool.core import Core
    from trio_multispool.datafile import DataFile
    from trio_multispool.errors import ReleaseError, SaveError, SpoolError, Trouble
    from trio_multispool.hop import BeforeCommit
    from trio_multispool.results import Result
    from trio_multispool.supply import Supply
    from trio_multispool.verdicts import Verdict

Q = TypeVar("Q", bound=enum.Enum)
M = TypeVar("M")
D = TypeVar("D")

RECOVERY_INTERVAL: Final = 1.0
"""How often, at most, a reader looks for entries whose owner has died, in seconds."""


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

    def __init__(self, core: Core[Q, M, D, Any], queue: Q, *, poll_interval: float) -> None:
        """Make a reader that has not been entered."""
        if not poll_interval > 0:
            message = f"poll_interval must be a positive number of seconds, not {poll_interval!r}"
            raise ValueError(message)
        self._core = core
        self._queue = queue
        self._poll_interval = poll_interval
        self._listing: Listing[M] = Listing(core, queue.value)
        self._jobs: dict[CheckedOutEntry[Q, M, D], None] = {}
        self._unreturned: list[SpoolError] = []
        self._passes: weakref.WeakSet[Given] = weakref.WeakSet()
        self._recovered_at = float("-inf")
        self._stop_requested = False
        self._entered = False
        self._call_in_loop: Callable[[Callable[[], object]], None] | None = None
        self._closed = False
        self._deadline = math.inf
        self._scopes: set[anyio.CancelScope] = set()
        self._block = contextlib.AsyncExitStack()
        self._tasks: TaskGroup
        self._supplies: weakref.WeakSet[Supply[Q, M, D]] = weakref.WeakSet()

    def __repr__(self) -> str:
        """Show the queue, and how the reader stands."""
        state = "closed" if self._closed else "stopped" if self._stop_requested else "open"
        return f"<QueueReader of {self._queue.value!r} of {self._core.path}, {state}, {len(self._jobs)} in hand>"

    @property
    def queue(self) -> Q:
        """The queue."""
        return self._queue

    async def __aenter__(self) -> QueueReader[Q, M, D]:
        """Begin to read. No checkpoint. Raises `RuntimeError` if it was entered before."""
        if self._entered:
            message = "a reader can be entered once; make another with spool.reader(queue)"
            raise RuntimeError(message)
        self._core.check_open()
        self._call_in_loop = loop_caller()
        self._entered = True
        self._core.activity.join()
        self._block.enter_context(self._drained(anyio.CancelScope()))
        self._tasks = await self._block.enter_async_context(background())
        _ = self._block.push_async_exit(self._close)
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Return what was not settled; what `drain` cancelled ends here."""
        return bool(await self._block.__aexit__(exception_type, exception, traceback))

    async def _close(
        self,
        _exception_type: type[BaseException] | None,
        exception: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """End the reader's tasks, and return what it has in hand."""
        self._closed = True
        self._stop_requested = True
        self._core.activity.leave(self)
        cancelled: BaseException | None = None
        try:
            for closing in (*(supply.close for supply in list(self._supplies)), self._return_all):
                try:
                    await closing()
                except anyio.get_cancelled_exc_class() as error:  # asyncio's own: the rest is closed all the same
                    cancelled = cancelled or error
            failures, self._unreturned = self._unreturned, []
            if exception is not None or cancelled is not None:
                for failure in failures:
                    cast("BaseException", exception or cancelled).add_note(f"not returned: {failure}")
                if cancelled is not None:
                    raise cancelled
            elif len(failures) == 1:
                raise failures[0]
            elif failures:
                message = f"{len(failures)} entries could not be returned to queue {self._queue.value!r}"
                raise ExceptionGroup(message, failures)
        finally:
            del cancelled

    async def _return_all(self) -> None:
        await self._return(self._jobs)
        await cancel_shielded_checkpoint()

    def stop(self) -> None:
        """Take no new entry: `dequeue` returns `Ok(None)`, and iterations end after the entries in hand.

        May be called from any task, thread or signal handler, any number of times, also before the reader is entered.
        """
        self._stop_requested = True
        if self._call_in_loop is not None:
            self._call_in_loop(self._wake)

    def _wake(self) -> None:
        self._core.activity.wake(self)
        for supply in self._supplies:
            supply.poke()

    def drain(self, timeout: float | datetime.timedelta) -> None:
        """Like `stop`, and after `timeout` (seconds, or a `timedelta`) cancel what is still at work.

        What is cancelled are handlers of `iter` and `iter_available`, which then return `Ok(None)`, and what is left
        inside the reader's block, which then ends as if it had come to its end. Every entry in hand goes back to the
        queue, unchanged. The shortest of several calls counts. May be called from any task, thread or signal handler,
        once the reader has been entered.

        ```python
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                reader.drain(timeout=10)
        ```
        """
        limit = seconds(timeout)
        self.stop()
        if self._call_in_loop is not None:
            self._call_in_loop(functools.partial(self._cancel_after, limit))

    def _cancel_after(self, limit: float) -> None:
        deadline = anyio.current_time() + limit
        self._deadline = min(self._deadline, deadline)
        for scope in self._scopes:
            scope.deadline = self._deadline

    @contextlib.contextmanager
    def _drained(self, scope: anyio.CancelScope) -> Generator[None]:
        """Cancel the block when the time that `drain` gave is over."""
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
        return self._stop_requested

    # One at a time

    async def dequeue(self) -> Result[CheckedOutEntry[Q, M, D] | None, Trouble]:
        """Wait for an entry and check it out; put `async with` around the job. `Ok(None)`: the reader was stopped.

        `Err` holds a trouble of the operating system, such as `TooManyOpenFiles`. Raises `anyio.ClosedResourceError`
        if the reader's block has been left, `RuntimeError` if it was not entered.

        **Cancellation**: cancelled means that nothing is checked out.
        **Durability**: a check-out is not synced: if power loss undoes it, the entry is in its queue.

        ```python
        while (job := (await reader.dequeue()).unwrap()) is not None:
            async with job:
                ...
        ```
        """
        return await self._dequeue(None, wait=True)

    async def dequeue_available(self) -> Result[CheckedOutEntry[Q, M, D] | None, Trouble]:
        """Check out an entry if one can be had now. `Ok(None)`: there is none, or the reader was stopped.

        Otherwise like `dequeue`.

        **Cancellation**: cancelled means that nothing is checked out.
        **Durability**: a check-out is not synced: if power loss undoes it, the entry is in its queue.

        ```python
        job = (await reader.dequeue_available()).unwrap()
        ```
        """
        return await self._dequeue(None, wait=False)

    async def _dequeue(self, given: Given | None, *, wait: bool) -> Result[CheckedOutEntry[Q, M, D] | None, Trouble]:
        taken = await self._take(given, _one, wait=wait)
        if isinstance(taken, Err):
            return taken
        return Ok(taken.value[0] if taken.value else None)

    async def _take(
        self, given: Given | None, wanted: Callable[[], int], *, wait: bool
    ) -> Result[list[CheckedOutEntry[Q, M, D]], Trouble]:
        """Check out what is wanted, as far as it is there, and at least one entry; none: the reader was stopped."""
        self._check_open()
        activity, queue, polling = self._core.activity, self._queue.value, Polling(self._poll_interval)
        while not self._stop_requested:
            recovering, seen = self._is_time_to_recover(), activity.seen(queue)
            answer = await self._core.run(
                f"check-out from {queue}",
                functools.partial(self._claim, given=given, wanted=wanted, recovering=recovering, waiting=wait),
                undo=functools.partial(self._undo, given=given),
            )
            if isinstance(answer, Err):
                return answer
            if isinstance(answer.value, list):
                return Ok(await self._in_hand(answer.value))
            if not wait:
                return Ok([])
            if not self._stop_requested:
                nothing = answer.value
                timeout = polling.next_wait(
                    nothing.listing_took, told=activity.told(queue), held=nothing.held, busy=nothing.busy
                )
                await activity.wait(queue, seen, self, timeout)
        self._check_open()
        await checkpoint()
        return Ok([])

    async def _in_hand(self, claimed: list[Claimed[M]]) -> list[CheckedOutEntry[Q, M, D]]:
        jobs = [
            CheckedOutEntry(self._core, self._queue, one.claim, one.metadata, on_settled=self._on_settled)
            for one in claimed
        ]
        if self._closed:  # left by another task while the thread was at work
            await self._return(jobs)
            self._check_open()
        self._jobs.update(dict.fromkeys(jobs))
        return jobs

    def _claim(
        self,
        before_commit: BeforeCommit,
        given: Given | None,
        wanted: Callable[[], int],
        *,
        recovering: bool,
        waiting: bool,
    ) -> list[Claimed[M]] | NothingLeft:
        """Check out the next entries, in a worker thread."""
        if waiting:
            self._core.activity.watch(self._queue.value)
        if recovering:
            for recovered in self._core.storage.recover(self._queue.value, insist=False):
                if recovered.queue is not None:
                    self._core.log.info("entry %s is back in queue %s: its owner died", recovered.name, recovered.queue)
        return self._listing.claim(before_commit, given, wanted)

    def _undo(self, claimed: list[Claimed[M]] | NothingLeft, given: Given | None) -> None:
        if isinstance(claimed, list):
            self._listing.take_back(claimed, given)

    def _most_at_a_time(self) -> int:
        return self._core.storage.claims_at_a_time()

    async def _return(self, jobs: Iterable[CheckedOutEntry[Q, M, D]]) -> None:
        """Return what was not settled, all together, whatever is cancelled; what cannot be is told at the end."""

        async def give_back(job: CheckedOutEntry[Q, M, D]) -> None:
            answer = await job._give_back()  # noqa: SLF001  # one thing in several files
            if isinstance(answer, Err):
                self._unreturned.append(answer.error)

        with anyio.CancelScope(shield=True):  # each has one; but a cancelled group would hide what the block raised
            async with anyio.create_task_group() as returning:
                for job in list(jobs):
                    _ = returning.start_soon(give_back, job)

    def _start(self, supply: Supply[Q, M, D], given: Given | None) -> None:
        """Begin to fetch for an iteration, in a task of the reader's own."""
        self._supplies.add(supply)
        if given is not None:
            self._passes.add(given)
        _ = self._tasks.start_soon(supply.fetch)

    def _is_time_to_recover(self) -> bool:
        now = anyio.current_time()
        if now - self._recovered_at < RECOVERY_INTERVAL:
            return False
        self._recovered_at = now
        return True

    def _on_settled(self, job: CheckedOutEntry[Q, M, D], destination: str | None) -> None:
        self._jobs.pop(job, None)
        if destination != self._queue.value:
            for given in self._passes:
                given.discard(job.name)

    def _check_open(self) -> None:
        if not self._entered:
            message = "put `async with` around a reader before using it"
            raise RuntimeError(message)
        if self._closed:
            message = f"the block of the reader of queue {self._queue.value!r} has been left"
            raise anyio.ClosedResourceError(message)

    # One after the other

    def __aiter__(self) -> Jobs[Q, M, D]:
        """Iterate over jobs, waiting for more, until the reader is stopped.

        Each job is a `CheckedOutEntry`: put `async with` around it. There is no place for an `Err` here, so the
        iteration raises the `SpoolError`.
        """
        return Jobs(self, wait=True)

    def available(self) -> Jobs[Q, M, D]:
        """Iterate over the entries that can be had now, without waiting; otherwise like the reader itself.

        An entry that comes back to the queue meanwhile is not given a second time.

        ```python
        async for job in reader.available():
            async with job:
                ...
        ```
        """
        return Jobs(self, wait=False)

    async def iter(
        self,
        handler: Callable[[M, DataFile[D]], Awaitable[Verdict[Q, M]]],
        *,
        concurrency: int = 1,
        time_limit: float | datetime.timedelta | None = None,
        on_error: Callable[[M, Exception], Verdict[Q, M]] | None = None,
        prefetch: int = 0,
    ) -> Result[None, SaveError | ReleaseError]:
        """Give each entry to `handler` and do what its verdict says, waiting for more, until the reader is stopped.

        - `handler(metadata, data)` returns `Save(queue, metadata)`, `Remove()` or `Release()`.
        - `concurrency`: so many handlers run at a time, in tasks of this call; no more entries are checked out. Those
          who wait for an entry at the same time have theirs checked out together.
        - `time_limit`: how long a handler may take for one entry, in seconds or as a `timedelta`; one that takes longer
          is cancelled, and counts as raising `TimeoutError`.
        - `on_error(metadata, exception)`: returns the verdict for an entry whose handler raised, instead of ending the
          iteration; for an `Exception` only, never for a cancellation. What it raises ends the iteration.
        - `prefetch`: so many more entries are checked out ahead, while handlers are at work, and begun at once when one
          is done. Nobody else can have them meanwhile: for short handlers and few readers. What was not begun goes back
          as soon as the reader is stopped, and at the end.

        `Err`: a verdict that could not be stored (its entry is back in the queue), or a trouble of the operating
        system; handlers that were running are cancelled, and their entries returned.

        A handler that raises ends the iteration; its entry, and those of the others, go back to the queue. With
        `concurrency=1` the handler is called in the caller's task, and what it raises passes through as the same
        object; with more, it is always in an `ExceptionGroup`. A handler that returns no verdict counts as raising
        `TypeError`. Raises `ValueError` if `concurrency` is not positive, or `prefetch` negative.

        **Cancellation**: every entry in hand goes back to the queue, unchanged.
        **Durability**: as `job.save` and `job.remove` say.

        ```python
        (await reader.iter(deliver, concurrency=8)).unwrap()
        ```
        """
        return await self._iterate(Work(handler, seconds(time_limit), on_error), concurrency, prefetch, wait=True)

    async def iter_available(
        self,
        handler: Callable[[M, DataFile[D]], Awaitable[Verdict[Q, M]]],
        *,
        concurrency: int = 1,
        time_limit: float | datetime.timedelta | None = None,
        on_error: Callable[[M, Exception], Verdict[Q, M]] | None = None,
        prefetch: int = 0,
    ) -> Result[None, SaveError | ReleaseError]:
        """Like `iter`, for the entries that can be had now, without waiting.

        An entry that comes back to the queue meanwhile is not given a second time.

        **Cancellation**: every entry in hand goes back to the queue, unchanged.
        **Durability**: as `job.save` and `job.remove` say.

        ```python
        (await reader.iter_available(deliver)).unwrap()
        ```
        """
        return await self._iterate(Work(handler, seconds(time_limit), on_error), concurrency, prefetch, wait=False)

    async def _iterate(self, work: Work[Q, M, D], concurrency: int, prefetch: int, *, wait: bool) -> Result[None, Any]:
        if concurrency < 1:
            message = f"concurrency must be at least 1, not {concurrency}"
            raise ValueError(message)
        if prefetch < 0:
            message = f"prefetch must be 0 or more entries, not {prefetch}"
            raise ValueError(message)
        self._check_open()
        with self._drained(anyio.CancelScope()):
            return await work_off(self, work, concurrency=concurrency, prefetch=prefetch, wait=wait)
        return Ok(None)  # drained


def _one() -> int:
    return 1

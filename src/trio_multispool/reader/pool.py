"""Works through a queue: one job after the other, or several at a time in a pool of handlers."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Generic, Protocol, final

from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from trio_multispool.entries.handlers import handle
from trio_multispool.entries.job import CheckedOutEntry
from trio_multispool.model.results import Err, Ok
from trio_multispool.model.types import D, M, Q
from trio_multispool.reader.next_job import NextJobs
from trio_multispool.reader.prefetch import Prefetcher
from trio_multispool.reader.retries import attempt
from trio_multispool.storage.source import Given
from trio_multispool.threads.loop import in_several_tasks, keeping_notes_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import anyio

    from trio_multispool.entries.checkout import Checkout
    from trio_multispool.entries.handlers import Work
    from trio_multispool.errors import Trouble
    from trio_multispool.model.results import Result
    from trio_multispool.reader.dequeue import Dequeuer


@final
class Jobs(Generic[Q, M, D]):
    """The jobs of a reader, one after the other, for `async for`.

    It is a class and not an async generator: a loop that is left early leaves nothing behind to be closed. Several
    tasks may share it.
    """

    def __init__(self, dequeuer: Dequeuer[Q, M, D], *, wait: bool) -> None:
        """Begin an iteration. One that does not wait gives no entry twice."""
        self._dequeuer = dequeuer
        self._wait = wait
        self._ended = False
        self._given = None if wait else Given()
        self.next_jobs: NextJobs[Q, M, D] | None = None
        """What the settlements of this iteration check out; `None` if they check out nothing."""
        if self._given is not None:
            dequeuer.begin_pass(self._given)

    def __aiter__(self) -> Jobs[Q, M, D]:
        """Return itself."""
        return self

    async def __anext__(self) -> CheckedOutEntry[Q, M, D]:
        """Return the next job, or raise the `SpoolError` that `next` would return."""
        job = (await self.next()).unwrap()
        if job is None:
            raise StopAsyncIteration
        return CheckedOutEntry(job)

    async def next(self) -> Result[Checkout[Q, M, D] | None, Trouble]:
        """Return the next job, or `Ok(None)` at the end, as `dequeue` and `dequeue_available` do.

        **Cancellation**: cancelled means that nothing is checked out.
        """
        if self._ended:
            await checkpoint()
            return Ok(None)
        if self.next_jobs and not self._dequeuer.stopped:
            await checkpoint_if_cancelled()  # the settlement before was a checkpoint
            [job] = self.next_jobs.take()
            return Ok(job)
        answer = await self._dequeuer.dequeue(self._given, wait=self._wait)
        if self._ended and isinstance(answer, Ok) and answer.value is not None:
            _ = await answer.value.give_back()
            return Ok(None)
        return answer

    def end(self) -> None:
        """Give no more jobs: one has failed, and must not come round at once."""
        self._ended = True
        if self.next_jobs is not None:
            self.next_jobs.end()

    @contextlib.asynccontextmanager
    async def with_next_jobs(self) -> AsyncGenerator[Jobs[Q, M, D]]:
        """Let each job's settlement check out the next one, in a block in which one task takes the jobs."""
        self.next_jobs = NextJobs(self._dequeuer, self._given)
        try:
            yield self
        except BaseException as raised:  # passed on, with its notes
            with keeping_notes_of(raised):
                await self.next_jobs.close()
            raise
        await self.next_jobs.close()


class _Source(Protocol[Q, M, D]):
    """Where the tasks of an iteration get their jobs: `Jobs` or a `Prefetcher`."""

    next_jobs: NextJobs[Q, M, D] | None

    async def next(self) -> Result[Checkout[Q, M, D] | None, Trouble]: ...

    def end(self) -> None: ...


async def work_off(
    dequeuer: Dequeuer[Q, M, D], work: Work[Q, M, D], *, concurrency: int, prefetch: int, wait: bool
) -> Result[None, Any]:
    """Do the work on one entry after the other, in `concurrency` tasks; see `QueueReader.iter`."""
    if concurrency == 1 and not prefetch:  # nobody to share a hop with
        async with Jobs(dequeuer, wait=wait).with_next_jobs() as jobs:
            return await _work_off(jobs, work)
    async with Prefetcher(dequeuer, prefetch, wait=wait) as prefetcher:
        if concurrency == 1:
            return await _work_off(prefetcher, work)
        failures: list[Err[Any]] = []

        async def work_off_some(all_of_them: anyio.CancelScope) -> None:
            answer = await _work_off(prefetcher, work)
            if isinstance(answer, Err):
                failures.append(answer)
                all_of_them.cancel()

        all_done = await in_several_tasks(concurrency, work_off_some)
        if failures:
            return failures[0]
        if not all_done:
            await checkpoint_if_cancelled()
        if prefetcher.failed:  # on asyncio, a child that cancels itself leaves its group silently
            message = "a handler ended with a cancellation of its own: it awaited something that somebody cancelled"
            raise ExceptionGroup("unhandled errors in a pool", [RuntimeError(message)])
        return Ok(None)


async def _work_off(source: _Source[Q, M, D], work: Work[Q, M, D]) -> Result[None, Any]:
    while True:
        answer = await source.next()
        if isinstance(answer, Err):
            return answer
        if answer.value is None:
            return Ok(None)
        job = answer.value
        if source.next_jobs is not None:
            job.prepare_next = source.next_jobs.prepare
        handled: Result[Any, Any]
        if work.retry is not None:
            handled = await attempt(job, work, work.retry, on_failure=source.end)
        else:
            handled = await handle(
                job, work.handler, time_limit=work.time_limit, on_error=work.on_error, on_failure=source.end
            )
        if isinstance(handled, Err):
            return handled

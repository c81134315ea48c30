"""Works through a queue: one job after the other, or several at a time in a pool of handlers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from anyio.lowlevel import checkpoint_if_cancelled

from trio_multispool.entries.handlers import handle
from trio_multispool.entries.job import CheckedOutEntry
from trio_multispool.model.results import Err, Ok
from trio_multispool.model.types import D, M, Q
from trio_multispool.reader.next_job import Supply
from trio_multispool.reader.prefetch import Prefetcher
from trio_multispool.reader.retries import Attempts, attempt
from trio_multispool.threads.loop import in_several_tasks

if TYPE_CHECKING:
    from collections.abc import Awaitable

    import anyio

    from trio_multispool.entries.checkout import Checkout
    from trio_multispool.entries.handlers import Work
    from trio_multispool.errors import Trouble
    from trio_multispool.model.results import Result
    from trio_multispool.reader.several import AnyDequeuer
    from trio_multispool.threads.loop import Loop


@final
class Jobs(Supply[Q, M, D]):
    """The jobs of a reader, one after the other, for `async for`.

    It is a class and not an async generator: a loop that is left early leaves nothing behind to be closed. Several
    tasks may share it.
    """

    def __aiter__(self) -> Jobs[Q, M, D]:
        """Return itself."""
        return self

    async def __anext__(self) -> CheckedOutEntry[Q, M, D]:
        """Return the next job, or raise the `SpoolError` that `next` would return."""
        job = (await self.next()).unwrap()
        if job is None:
            raise StopAsyncIteration
        return CheckedOutEntry(job)

    def _ask(self) -> Awaitable[Result[Checkout[Q, M, D] | None, Trouble]]:
        """Check out an entry, as `dequeue` and `dequeue_available` do."""
        return self._dequeuer.dequeue(self._given, wait=self._wait, begin=self._begin)


async def work_off(
    dequeuer: AnyDequeuer[Q, M, D], work: Work[Q, M, D], *, concurrency: int, prefetch: int, wait: bool
) -> Result[None, Any]:
    """Do the work on one entry after the other, in `concurrency` tasks; see `QueueReader.iter`."""
    attempts = None if work.retry is None else Attempts(dequeuer.session, work.retry)
    begin = None if attempts is None or prefetch else attempts  # what is kept ready is not begun
    loop = dequeuer.session.running.loop
    if concurrency == 1 and not prefetch:  # nobody to share a hop with
        async with Jobs(dequeuer, wait=wait, begin=begin) as jobs:
            return await _work_off(loop, jobs, work, attempts)
    async with Prefetcher(dequeuer, prefetch, wait=wait, begin=begin) as prefetcher:
        if concurrency == 1:
            return await _work_off(loop, prefetcher, work, attempts)
        failures: list[Err[Any]] = []

        async def work_off_some(all_of_them: anyio.CancelScope) -> None:
            answer = await _work_off(loop, prefetcher, work, attempts)
            if isinstance(answer, Err):
                answer.ignore()  # the first is handed out
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


async def _work_off(
    loop: Loop, supply: Supply[Q, M, D], work: Work[Q, M, D], attempts: Attempts[Q] | None
) -> Result[None, Any]:
    """Work on one entry after the other, in a scope that lasts until a request cancels the work on one of them."""
    job: Checkout[Q, M, D] | None = None
    while job is None or job.not_stored is None:
        with loop.new_scope() as scope:
            while True:
                answer = await supply.next()
                if isinstance(answer, Err):
                    return answer
                if answer.value is None:
                    return Ok(None)
                job = answer.value
                if supply.claims_next:
                    job.then = supply.then
                job.work_in(scope)
                handled: Result[Any, Any]
                if attempts is not None:
                    handled = await attempt(job, work, attempts, on_failure=supply.fail)
                else:
                    handled = await handle(job, work, on_failure=supply.fail)
                if isinstance(handled, Err):
                    return handled
    return job.not_stored

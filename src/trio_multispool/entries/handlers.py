"""Running a handler on a job, and doing what its verdict says."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, cast, final

import anyio
from anyio.lowlevel import checkpoint

from trio_multispool.errors import EntryCancelled
from trio_multispool.model.cancellation import NO_REASON
from trio_multispool.model.results import Err, Ok, handed_out
from trio_multispool.model.types import D2, D, M, Q, T
from trio_multispool.model.verdicts import GiveUp, Release, Remove, RetryLater, Save
from trio_multispool.threads.interrupts import lets_interrupts_in
from trio_multispool.threads.loop import is_cancellation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from trio_multispool.entries.checkout import Checkout
    from trio_multispool.entries.datafile import DataFile
    from trio_multispool.errors import ReleaseError, SaveError
    from trio_multispool.model.policies import Retry
    from trio_multispool.model.results import Result
    from trio_multispool.model.verdicts import Verdict


Handler: TypeAlias = "Callable[[M, DataFile[D2]], Awaitable[Verdict[Q, M]]]"
"""`async def handler(metadata, data) -> Verdict`. What it raises returns the entry, and passes through."""

_VERDICT_AND_VALUE: Final = 2


@final
@dataclasses.dataclass(frozen=True)
class Work(Generic[Q, M, D]):
    """What is done with an entry."""

    handler: Handler[M, D, Q]
    time_limit: float | None = None
    """In seconds. A handler that takes longer raises `TimeoutError`."""
    on_error: Callable[[M, Exception], Verdict[Q, M]] | None = None
    """May turn what a handler raises into a verdict."""
    retry: Retry[Q] | None = None
    on_cancel: Save[Q, M] | Remove = Remove()  # noqa: RUF009  # frozen
    """What becomes of an entry whose work was cancelled, because somebody asked for that."""


def handle(
    job: Checkout[Q, M, D], work: Work[Q, M, D], *, on_failure: Callable[[], None] = lambda: None
) -> Awaitable[Result[Verdict[Q, M], SaveError | ReleaseError]]:
    """Give the job to a handler and settle it as the verdict says; return the verdict once it is stored.

    A verdict that cannot be stored returns the entry and is an `Err`. A handler that raises, is cancelled, or answers
    something that is no verdict (`TypeError`) returns the entry. `on_failure` is called before an entry goes back that
    was not settled as its handler said, so that a pool can stop taking entries before this one is there again.
    """
    return work_on(job, functools.partial(_handled, job, work), on_failure, work.on_cancel)


async def _handled(job: Checkout[Q, M, D], work: Work[Q, M, D]) -> Result[Verdict[Q, M], Any]:
    try:
        verdict = await called(job, work)
    except Exception as error:  # whatever user code raises; a cancellation is no `Exception`
        if work.on_error is None:
            raise
        verdict = _at_once(work.on_error(job.metadata, error))
    answer = await apply(job, verdict)
    return answer if isinstance(answer, Err) else Ok(verdict)


async def work_on(
    job: Checkout[Q, M, D2],
    settle: Callable[[], Awaitable[Result[T, Any]]],
    on_failure: Callable[[], None],
    on_cancel: Save[Q, M] | Remove,
) -> Result[T, Any]:
    """Settle a job in its block. If that raises or is an `Err`, call `on_failure` before the entry goes back.

    A job whose work was cancelled by a request is settled as `on_cancel` says, and the cancellation raised.
    """
    listening = job.session.hooks.listening
    if listening:
        job.begin_work()
    try:
        try:
            answer = await settle()
        except BaseException as error:  # passed on; other cancellations too return the entry
            if not (job.is_to_be_cancelled and is_cancellation(error) and await _settled(job, on_cancel, on_failure)):
                on_failure()
            raise
        if isinstance(answer, Err):
            on_failure()
            _ = await job.give_back()  # quietly: the error is told to the caller as a value
    except BaseException as error:  # passed on, once the entry is back
        await job.__aexit__(type(error), error, error.__traceback__)
        raise
    if listening or not job.over:
        await job.__aexit__(None, None, None)
    return answer


async def _settled(job: Checkout[Q, M, D], verdict: Save[Q, M] | Remove, on_failure: Callable[[], None]) -> bool:
    """Settle a job that was cancelled by a request; tell whether that went well."""
    try:
        stored = await job.settle_cancelled(verdict)
    except BaseException:  # passed on
        on_failure()
        raise
    job.not_stored = stored if isinstance(stored, Err) else None
    return job.not_stored is None


async def handle_for_value(
    job: Checkout[Q, M, D], handler: Callable[[M, DataFile[D]], Awaitable[Any]]
) -> Result[Any, SaveError | ReleaseError | EntryCancelled]:
    """Like `handle`, with a handler that may answer `(verdict, value)`: then the value is returned."""
    answer: Any = None

    async def verdict_alone(metadata: M, data: DataFile[D]) -> Verdict[Q, M]:
        nonlocal answer
        verdict = answer = await _awaited(handler(metadata, data))
        if len(pair := _as_tuple(answer)) == _VERDICT_AND_VALUE:
            verdict, answer = pair
        return cast("Verdict[Q, M]", verdict)

    session = job.session
    with session.running.loop.new_scope() as scope:
        job.work_in(scope)
        stored = await handle(job, Work(verdict_alone))
        return stored if isinstance(stored, Err) else Ok(answer)
    if job.not_stored is None and not job.settled:  # the spool was closed, and the entry let go
        raise session.running.closed_error()
    failure = job.not_stored or Err(EntryCancelled(job.name, job.cancel_reason or NO_REASON))
    return handed_out(failure, f"work on entry {job.name} of queue {job.claim.queue}", session.running.what)


def _as_tuple(answer: object) -> Sequence[object]:
    return cast("Sequence[object]", answer) if isinstance(answer, tuple) else ()


async def called(job: Checkout[Q, M, D], work: Work[Q, M, D]) -> Verdict[Q, M]:
    """Call a handler with a job, and note on what it raises which entry that was."""
    try:
        if job.cancellation is not None:  # nothing need begin
            await checkpoint()
        if work.time_limit is None:  # a scope takes as long as all the rest
            return await _awaited(work.handler(job.metadata, job.data))
        with anyio.fail_after(work.time_limit):
            return await _awaited(work.handler(job.metadata, job.data))
    except Exception as error:  # whatever user code raises; a cancellation is no `Exception`
        error.add_note(f"while entry {job.name!r} of queue {job.queue.value!r} was handled")
        raise
    finally:
        job.scope = None  # what it has answered, counts


@lets_interrupts_in
async def _awaited(coming: Awaitable[T]) -> T:
    if not isinstance(coming, types.CoroutineType) and not inspect.isawaitable(coming):
        raise TypeError(f"a handler is an async function; this one returned {coming!r}, and its entry goes back")
    return await coming


def _at_once(verdict: T) -> T:
    if inspect.iscoroutine(verdict):
        verdict.close()
        raise TypeError("on_error returns a verdict; an async function cannot, and the entry goes back")
    return verdict


def apply(job: Checkout[Q, M, D], verdict: Verdict[Q, M]) -> Awaitable[Result[None, Any]]:
    """Settle a job as a verdict says; raises `TypeError` if it is not a verdict, and what `job.save` raises.

    The work is finished, so this insists: a scope's cancellation is not raised here, and a native one afterwards.
    """
    match verdict:
        case Save(queue, metadata, not_before):
            return job.save(queue, metadata, not_before=not_before, insist=True)
        case Remove():
            return job.remove(insist=True)
        case Release():
            return job.release(insist=True)
        case RetryLater() | GiveUp():
            raise TypeError(f"{verdict!r} needs reader.iter(…, retry=Retry(…)); entry {job.name!r} goes back")
        case _:
            message = f"a handler answers Save(…), Remove() or Release(), not {verdict!r}; entry {job.name!r} goes back"
            raise TypeError(message)

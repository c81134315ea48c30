"""Attempts: call a handler with a job, write down a failure, and try the entry again or give it up.

The order counts. An attempt is written down before the handler is called, and not synced: it must outlive the worker,
which the handler may kill, but not the machine. It is written down by the thread that checks the entry out; with
`prefetch`, by another, once the handler is free. A failure is written down and synced with the save that moves the
entry to where it waits, or to the dead letters. If the entry is returned unsettled (by a cancellation, a reader that is
stopped or drained, a handler's `Release`), the return strikes the attempt out again.

If the process is killed after the last failure is recorded and before the entry moves to the dead letters, the entry is
found in its queue as one that was given up. It is tried afresh. This is the price of another rule: a dead letter may be
put back by any means, and nobody need know of its history to do so.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final, Generic, final

from trio_multispool.clock import this_process
from trio_multispool.entries.claimer import strike_out
from trio_multispool.entries.handlers import apply, called, work_on
from trio_multispool.errors import EncodingFailed, NotARegularFile, OutOfSpace, SpoolError
from trio_multispool.events import LOGGER, Event, log
from trio_multispool.instrumentation import AttemptFailed
from trio_multispool.model.attempts import (
    ATTEMPTS,
    Begun,
    Failure,
    Mark,
    abandoned,
    answered,
    begun,
    encode_history,
    failed,
    failure_of,
    failure_told,
    history_in,
    spent_before,
)
from trio_multispool.model.results import Err, peek
from trio_multispool.model.times import LATEST, length_of
from trio_multispool.model.types import D, M, Q
from trio_multispool.model.verdicts import GiveUp, Release, Remove, RetryLater, Save
from trio_multispool.threads.batches import Whole

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_multispool.entries.checkout import Checkout
    from trio_multispool.entries.handlers import Work
    from trio_multispool.model.attempts import History
    from trio_multispool.model.policies import Retry
    from trio_multispool.model.results import Result
    from trio_multispool.model.verdicts import Verdict
    from trio_multispool.session.session import Session
    from trio_multispool.storage.handles import Claim
    from trio_multispool.threads.transaction import BeforeCommit


_WORKER_DIED: Final = Failure("WorkerDied", "it did not come to an end: its worker died")
_AGAIN: Final = (
    "attempt %(attempt)d%(of)s at entry %(entry)s of queue %(queue)s failed: %(told)s; again in %(delay).1f s"
)
_DEAD: Final = "entry %(entry)s of queue %(queue)s is a dead letter in %(target)s, after attempt %(attempt)d: %(told)s"
_LATEST: Final = LATEST - 1.0


async def attempt(
    job: Checkout[Q, M, D], work: Work[Q, M, D], attempts: Attempts[Q], *, on_failure: Callable[[], None]
) -> Result[None, Any]:
    """Give the job to a handler once, and settle it by its verdict, or as its `Retry` says for its failure.

    On an `Err` or an exception the iteration is over and the entry is back; `on_failure` is called before, as by
    `handle`. A handler does not end the iteration if it raises, answers no verdict, or answers one that cannot be
    stored.
    """
    return await work_on(job, functools.partial(_attempted, job, work, attempts), on_failure, work.on_cancel)


async def _attempted(job: Checkout[Q, M, D], work: Work[Q, M, D], attempts: Attempts[Q]) -> Result[None, Any]:
    attempt = job.begun
    if attempt is None:
        answer = await attempts.begin_late(job)
        if isinstance(answer, Err):
            return answer
        attempt = answer.value
    return await _Trial(job, attempts, attempt).run(work)


@final
class Attempts(Generic[Q]):
    """Writes down the attempts of one iteration, in worker threads."""

    def __init__(self, session: Session[Q, Any, Any, Any], retry: Retry[Q]) -> None:
        """Begin with none."""
        self.retry: Final = retry
        self.session: Final = session

    def mark(self, queue: str) -> Mark:
        """Return an attempt that begins now, at an entry of a queue."""
        host, pid = this_process()
        return Mark(queue, self.session.now(), host, pid)

    def begin(self, claim: Claim) -> Begun:
        """Begin an attempt at an entry that was just checked out; what raises a `SpoolError` does not count."""
        attempt = self._next_of(claim)
        try:
            self._write_down(claim, attempt)
        except SpoolError:
            strike_out(self.session, claim, attempt)
            raise
        return attempt

    def begin_late(self, job: Checkout[Q, Any, Any]) -> Awaitable[Result[Begun, Any]]:
        """Begin an attempt at an entry that was kept ready."""

        def work(before_commit: BeforeCommit) -> Begun:
            with job.mutex:
                attempt = self._next_of(job.claim)
                job.begin_attempt(attempt)
                before_commit()
                self._write_down(job.claim, attempt)
                return attempt

        return self.session.check_outs.run(f"record of an attempt at {job.name}", Whole(work))

    def _next_of(self, claim: Claim) -> Begun:
        """Return the next attempt at an entry."""
        noted = claim.noted
        found = self.session.storage.notes(claim.name) if noted is None else noted.found
        history = history_in(found)
        spent = spent_before(history, claim.queue)
        if history is not None and self.retry.is_exhausted(spent):
            return Begun(history, spent, exhausted=True, found=found)
        mark = None if noted is None else noted.attempt
        history = begun(history, mark or self.mark(claim.queue))
        return Begun(history, spent + 1, exhausted=False, found=found)

    def _write_down(self, claim: Claim, attempt: Begun) -> None:
        """Write an attempt down, if it is one.

        Those who make room must be able to: without room, the log tells that it is not written down. A directory in the
        place of one entry's notes must not stop the others either.
        """
        if attempt.exhausted or (claim.noted is not None and claim.noted.attempt is not None):
            return
        session, history = self.session, encode_history(attempt.history)
        try:
            session.storage.annotate(claim, ATTEMPTS, history, attempt.found)
        except (OutOfSpace, NotARegularFile) as error:
            path, message = session.path, "an attempt at entry %(entry)s is not written down: %(error)s"
            queue, entry = claim.queue, claim.name
            log(LOGGER.warning, Event.ATTEMPT_NOT_RECORDED, path, message, queue=queue, entry=entry, error=error)


@final
class _Trial(Generic[Q, M, D]):
    """One attempt."""

    def __init__(self, job: Checkout[Q, M, D], attempts: Attempts[Q], attempt: Begun) -> None:
        self._job = job
        self._attempt = attempt
        self._retry, self._session, self._queue = attempts.retry, attempts.session, job.claim.queue

    async def run(self, work: Work[Q, M, D]) -> Result[None, Any]:
        history = self._attempt.history
        if self._attempt.exhausted:
            failure = history.attempts[-1].failure or _WORKER_DIED
            return await self._move_on(abandoned(history), failure, None, None, None)
        try:
            verdict = _checked(await called(self._job, work))
        except Exception as error:  # noqa: BLE001  # user code may raise anything; a cancellation is no Exception
            return await self._failed(error)
        match verdict:
            case RetryLater(delay, reason, counts):
                return await self._later(length_of(delay), reason, counts=counts)
            case GiveUp(reason):
                return await self._failed_with(answered("GiveUp", reason), None)
            case _:
                return await self._settle(verdict)

    async def _settle(self, verdict: Verdict[Q, M]) -> Result[None, Any]:
        try:
            answer = await apply(self._job, verdict)
        except (TypeError, ValueError) as error:  # the verdict holds something that is no queue, or no time
            return await self._failed(error)
        if isinstance(answer, Err) and isinstance(peek(answer), EncodingFailed):
            return await self._failed(answer.error)
        return answer

    async def _failed(self, error: Exception) -> Result[None, Any]:
        delay = self._retry.delay_after(error, self._attempt.number, self._session.chance())
        return await self._failed_with(failure_of(error), delay, error)

    async def _later(self, delay: float, reason: str, *, counts: bool) -> Result[None, Any]:
        if not counts:
            notes = self._job.notes_when_returned
            return await self._job.save_as_it_was(self._queue, self._due_at(delay), notes or {})
        exhausted = self._retry.is_exhausted(self._attempt.number)
        return await self._failed_with(answered("RetryLater", reason), None if exhausted else delay)

    async def _failed_with(
        self, failure: Failure, delay: float | None, error: Exception | None = None
    ) -> Result[None, Any]:
        now, due_at = self._session.now(), self._due_at(delay)
        history = failed(self._attempt.history, failure, at=now, next_at=due_at)
        return await self._move_on(history, failure, delay, due_at, error)

    async def _move_on(
        self, history: History, failure: Failure, delay: float | None, due_at: float | None, error: Exception | None
    ) -> Result[None, Any]:
        """Store the outcome of the attempt, and move the entry where it belongs now."""
        job, notes = self._job, {ATTEMPTS: encode_history(history)}
        job.notes_when_returned = notes  # the attempt has failed, even if the move fails too
        target = self._session.check_queue(self._retry.dead_letter) if due_at is None else self._queue
        answer = await job.save_as_it_was(target, due_at, notes)
        if job.settled:
            self._tell(failure, delay, None if due_at is not None else target, error)
        return answer

    def _due_at(self, delay: float | None) -> float | None:
        return None if delay is None else min(self._session.now() + delay, _LATEST)

    def _tell(self, failure: Failure, delay: float | None, dead_letter: str | None, error: Exception | None) -> None:
        session, name, number = self._session, self._job.name, self._attempt.number
        told = failure_told(failure)
        if dead_letter is None:
            of = "" if self._retry.attempts is None else f" of {self._retry.attempts}"
            log(
                LOGGER.warning,
                Event.ATTEMPT_FAILED,
                session.path,
                _AGAIN,
                queue=self._queue,
                entry=name,
                attempt=number,
                error=error or told,
                of=of,
                told=told,
                delay=delay,
            )
        else:
            log(
                LOGGER.error,
                Event.DEAD_LETTERED,
                session.path,
                _DEAD,
                queue=self._queue,
                entry=name,
                attempt=number,
                error=error or told,
                target=dead_letter,
                told=told,
            )
        again_in = delay if dead_letter is None else None
        session.hooks.attempt_failed(
            AttemptFailed(session.path, self._queue, name, number, failure.type, error, again_in, dead_letter)
        )


def _checked(verdict: Verdict[Q, M]) -> Verdict[Q, M]:
    if not isinstance(verdict, (Save, Remove, Release, RetryLater, GiveUp)):
        raise TypeError(f"a handler answers Save(…), Remove(), Release(), RetryLater(…) or GiveUp(…), not {verdict!r}")
    return verdict

"""`multispool work --attempts`: the command is a handler of the library, which tries failed entries again.

A line is printed when the outcome is stored. So it is not the handler that prints it, but what the spool tells of: the
library's own lines in the log would say the same in other words, and are left out.
"""

import contextlib
import logging
from collections.abc import Generator
from typing import Any, Final, NamedTuple, final

import trio

from trio_multispool.cli.exits import Failure
from trio_multispool.cli.spools import AnySpool, member
from trio_multispool.cli.working import Command, Report
from trio_multispool.clock import random_fraction
from trio_multispool.entries.datafile import DataFile
from trio_multispool.events import LOGGER, Event
from trio_multispool.instrumentation import AttemptFailed, How, Instrumentation, Settled
from trio_multispool.looks.ages import human_length
from trio_multispool.model.policies import Exponential, Retry
from trio_multispool.model.verdicts import Release, Remove, RetryLater, Save, Verdict
from trio_multispool.reader.reader import QueueReader
from trio_multispool.threads.loop import is_cancellation

_LONGEST_DELAY: Final = 3600.0
"""Waits double up to this many seconds, unless the first is longer already."""

_TOLD_HERE: Final = frozenset({Event.ATTEMPT_FAILED, Event.DEAD_LETTERED})


class Attempts(NamedTuple):
    """How often to try, how long to wait after the first failure, in seconds, and the queue of what is given up."""

    most: int
    delay: float
    failed: str


@final
class Outcomes(Instrumentation):
    """Tells what became of entries, as soon as it is stored."""

    def __init__(self, attempts: Attempts, report: Report) -> None:
        self.ended: dict[str, tuple[int | None, str]] = {}
        """The status of each command that has come to its end, and how to say it, until that is told."""
        self.cancelled: dict[str, str] = {}
        """Why somebody has cancelled entries whose command has been ended for that, until it is told."""
        self.attempts: Attempts = attempts
        self.report: Report = report

    def on_settle(self, settled: Settled) -> None:
        """Tell of what succeeded, or was cancelled."""
        if settled.entry in self.cancelled:
            self._on_settle_cancelled(settled)
            return
        status, _ = self.ended.get(settled.entry, (None, ""))
        if status == 0 and settled.how in {How.REMOVED, How.SAVED}:
            del self.ended[settled.entry]
            self.report.tell_done(settled.entry, status, settled.destination)

    def _on_settle_cancelled(self, settled: Settled) -> None:
        reason = self.cancelled.pop(settled.entry)
        if settled.how in {How.REMOVED, How.SAVED}:
            self.report.tell_cancelled(settled.entry, settled.destination, reason)
        else:
            self.report.tell_returned(settled.entry, settled.queue)

    def on_attempt_failed(self, attempt_failed: AttemptFailed) -> None:
        """Tell of what failed, and when it is tried again, or where it is now."""
        name, number, again_in = attempt_failed.entry, attempt_failed.attempt, attempt_failed.again_in
        status, told = self.ended.pop(name, (None, "its worker died"))
        queue = attempt_failed.dead_letter or attempt_failed.queue
        then = f"now in {queue}" if again_in is None else f"again in {human_length(again_in)}"
        told = f"failed ({told}), attempt {number} of {self.attempts.most}, {then}"
        self.report.tell(name, "failed", status, queue, told, attempt=number, again_in=again_in)


@final
class Retrier:
    """Works off one queue; what fails is tried again later."""

    def __init__(self, command: Command, done: str | None, cancelled: str | None, outcomes: Outcomes) -> None:
        attempts = outcomes.attempts
        self._command = command
        self._failed = attempts.failed
        self._most = attempts.most
        self._backoff = Exponential(first=attempts.delay, max=max(attempts.delay, _LONGEST_DELAY))
        self._done = done
        self._cancelled = cancelled
        self._outcomes = outcomes

    async def run(self, spool: AnySpool, reader: QueueReader[Any, bytes, Any], jobs: int, *, once: bool) -> None:
        """Work until nothing is left (`once`), the scope is cancelled, or something is wrong (a `Failure`)."""
        failures: list[Failure] = []

        async def handle(metadata: bytes, data: DataFile[Any]) -> Verdict[Any, bytes]:
            try:
                return await self._handle(spool, metadata, data)
            except Failure as failure:  # not of this entry: if it passed, it would count as an attempt
                failures.append(failure)
                scope.cancel()
                return Release()

        retry = Retry(dead_letter=member(spool, self._failed), attempts=self._most, backoff=self._backoff)
        on_cancel: Save[Any, bytes] | Remove = (
            Remove() if self._cancelled is None else Save(member(spool, self._cancelled))
        )
        answer = None
        with _told_here():
            async with reader:
                work = reader.iter_available if once else reader.iter
                with trio.CancelScope() as scope:
                    answer = await work(handle, concurrency=jobs, retry=retry, on_cancel=on_cancel)
        if failures:  # not through the reader's nursery, which would wrap it
            raise failures[0]
        if answer is not None:
            answer.unwrap()

    async def _handle(self, spool: AnySpool, metadata: bytes, data: DataFile[Any]) -> Verdict[Any, bytes]:
        try:
            status, told = await self._command.run(metadata, data, data.attempt)
        except BaseException as ended:  # passed on
            if data.cancellation is not None and is_cancellation(ended):
                self._outcomes.cancelled[data.name] = data.cancellation.reason
            else:  # a signal, or the command cannot be started: the entry goes back
                self._outcomes.report.tell_returned(data.name, str(data.queue.value))
            raise
        self._outcomes.ended[data.name] = status, told
        if status == 0:
            return Remove() if self._done is None else Save(member(spool, self._done))
        # An answer, and no exception: the history needs no traceback of this program.
        return RetryLater(self._backoff.delay(data.attempt, random_fraction()), told)


@contextlib.contextmanager
def _told_here() -> Generator[None]:
    """Leave out the library's lines of what this command has lines for."""

    def wanted(record: logging.LogRecord) -> bool:
        return getattr(record, "event", None) not in _TOLD_HERE

    LOGGER.addFilter(wanted)
    try:
        yield
    finally:
        LOGGER.removeFilter(wanted)

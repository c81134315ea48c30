"""Retention: finds entries that are too old or too many, gives them to a hook, and removes them if it says so.

Theory. An entry is removed as in any other work: it is checked out, looked at again now that nobody else can change it,
and handled. The handler is the caller's hook, or else one that says `Remove()`. So several processes may apply a
retention at the same time, a hook that raises keeps the entry, and if a process is killed its entry is recovered.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import math
from typing import TYPE_CHECKING, Any, Final, Generic, final

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from trio_multispool.clock import stopwatch
from trio_multispool.entries.checkout import check_out
from trio_multispool.entries.handlers import Handler, handle
from trio_multispool.errors import CorruptMetadata, UnreadableEntry
from trio_multispool.events import LOGGER, Event, log
from trio_multispool.model.lifecycle import Place, State
from trio_multispool.model.results import Err, Ok, Result
from trio_multispool.model.times import seconds
from trio_multispool.model.types import D, M, Q
from trio_multispool.model.verdicts import Release, Remove, Unavailable, Verdict
from trio_multispool.threads.loop import in_several_tasks, whatever_is_cancelled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from trio_multispool.entries.datafile import DataFile
    from trio_multispool.model.policies import Retention
    from trio_multispool.session.session import Session
    from trio_multispool.storage.protocol import Storage


INTERVAL: Final = 60.0
"""How often a reader applies its queue's retention, in seconds."""

SHARE: Final = 20
"""The next application waits this many times as long as the last took, if that is longer: long queues take seconds."""

AT_A_TIME: Final = 16
"""How many entries are handled at once: they share their syncs."""


def not_to_be_kept(storage: Storage[Any, Any], queue: str, retention: Retention, now: float) -> list[tuple[float, str]]:
    """Return the entries that a queue is not to keep, the oldest first: when they were written, and their names.

    All come from one listing. If another process removes some meanwhile, no younger ones go instead.
    """
    items = storage.inventory(queue, State.AVAILABLE)
    ages = sorted((item.modified_at.timestamp(), item.name) for item in items)
    before = -math.inf if retention.max_age is None else now - seconds(retention.max_age)
    surplus = 0 if retention.max_count is None else max(0, len(ages) - retention.max_count)
    return ages[: max(surplus, bisect.bisect_left(ages, (before,)))]


@final
@dataclasses.dataclass(eq=False, repr=False)
class Expiry(Generic[Q, M, D]):
    """One application of a retention to a queue."""

    _session: Session[Q, M, D, Any]
    _queue: Q
    _retention: Retention
    _before: Handler[M, D, Q] | None
    _gone: list[str] = dataclasses.field(default_factory=list)
    _failure: Err[Any] | None = None

    async def run(self) -> Result[list[str], Any]:
        """Apply it; return the names of the entries that have gone."""
        session, queue, retention = self._session, self._queue.value, self._retention
        now = session.now()
        found = await session.run(
            f"look for what {queue} is not to keep",
            lambda _before_commit: not_to_be_kept(session.storage, queue, retention, now),
        )
        if isinstance(found, Err):
            return found
        work_off = functools.partial(self._work_off, iter(found.value))
        all_done = True
        if len(found.value) == 1:  # an exception of the hook passes through bare
            await work_off()
        elif found.value:
            all_done = await in_several_tasks(min(AT_A_TIME, len(found.value)), work_off)
        if self._failure is not None:
            return self._failure
        if not all_done:
            await checkpoint_if_cancelled()
        return Ok(self._gone)

    async def _work_off(
        self, found: Iterator[tuple[float, str]], _all_of_them: anyio.CancelScope | None = None
    ) -> None:
        for written_at, name in found:
            failure = await self._expire(name, written_at)
            self._failure = self._failure or failure
            if self._failure is not None:
                return

    async def _expire(self, name: str, written_at: float) -> Err[Any] | None:
        taken = await check_out(self._session, self._queue, name)
        if isinstance(taken, Err):  # unreadable: left to its readers; not decoded: set aside
            return None if isinstance(taken.error, (UnreadableEntry, CorruptMetadata)) else taken
        job = taken.value
        if isinstance(job, Unavailable):
            return None
        place = Place(self._queue.value, State.CHECKED_OUT)

        async def unless_changed(metadata: M, data: DataFile[D]) -> Verdict[Q, M]:
            stat = await self._session.run(
                f"look at entry {name}", lambda _before_commit: self._session.storage.stat(place, name)
            )
            if isinstance(stat, Err) or stat.value.modified_at.timestamp() != written_at:
                return Release()
            return Remove() if self._before is None else await self._before(metadata, data)

        answer = await handle(job, unless_changed)
        if isinstance(answer, Err):
            return answer
        if not isinstance(answer.value, Release):
            self._gone.append(name)
            message = "entry %(entry)s of queue %(queue)s is not kept any longer"
            log(LOGGER.info, Event.EXPIRED, self._session.path, message, queue=self._queue.value, entry=name)
        return None


@final
class RetentionTask:
    """Applies a reader's retention again and again, in a task of its nursery."""

    def __init__(
        self, session: Session[Any, Any, Any, Any], queue: str, apply: Callable[[], Awaitable[Result[Any, Any]]]
    ) -> None:
        """Begin with nothing applied; `apply` applies the retention once."""
        self._session = session
        self._queue = queue
        self._apply = apply
        self._scope = anyio.CancelScope()
        self._begun = False
        self._finished = anyio.Event()

    async def fetch(self) -> None:
        """Apply the retention again and again, until the end."""
        self._begun = True
        try:
            with self._scope:
                while True:
                    elapsed = stopwatch()
                    answer = await self._apply()
                    if isinstance(answer, Err):
                        path, queue, error = self._session.path, self._queue, answer.error
                        message = "the retention of queue %(queue)s was not applied: %(error)s"
                        log(LOGGER.warning, Event.NOT_EXPIRED, path, message, queue=queue, error=error)
                    await anyio.sleep(max(INTERVAL, SHARE * elapsed()))
        finally:
            self._finished.set()

    def poke(self) -> None:
        """End: the reader was stopped."""
        self._scope.cancel()

    async def close(self) -> None:
        """End, and wait for that. Idempotent."""
        self._scope.cancel()
        if self._begun:  # asyncio may have cancelled the task before its first step; if not, it ends at once
            await whatever_is_cancelled(self._finished.wait)

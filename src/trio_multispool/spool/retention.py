"""Retention: finds entries that are too old or too many, gives them to a hook, and removes them if it says so.

Theory. An age is only as good as the clocks that it is from: an entry whose date cannot be (see `model/times.py`) is
left and does not count, and the log tells of it. All others are removed as in any other work. Each is checked out,
looked at again now that nobody else can change it, and handled. The handler is the caller's hook, or else one that says
`Remove()`. So several processes may apply a retention at the same time, a hook that raises keeps the entry, and if a
process is killed its entry is recovered.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import weakref
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, final

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from trio_multispool.clock import stopwatch
from trio_multispool.entries.checkout import check_out
from trio_multispool.entries.handlers import Handler, Work, handle
from trio_multispool.errors import CorruptMetadata, UnreadableEntry
from trio_multispool.events import LOGGER, Event, log
from trio_multispool.model.lifecycle import State
from trio_multispool.model.results import Err, Ok, Result
from trio_multispool.model.times import aware, length_of
from trio_multispool.model.types import D, M, Q
from trio_multispool.model.verdicts import Release, Remove, Unavailable, Verdict
from trio_multispool.threads.loop import in_several_tasks, whatever_is_cancelled

if TYPE_CHECKING:
    import datetime
    from collections.abc import Awaitable, Callable, Iterator

    from trio_multispool.entries.datafile import DataFile
    from trio_multispool.model.policies import Retention
    from trio_multispool.session.session import Session
    from trio_multispool.storage.protocol import Storage
    from trio_multispool.storage.requests import Item


INTERVAL: Final = 60.0
"""How often a reader applies its queue's retention, in seconds."""

SHARE: Final = 20
"""The next application waits this many times as long as the last took, if that is longer: long queues take seconds."""

AT_A_TIME: Final = 16
"""How many entries are handled at once: they share their syncs."""


_TOLD: Final[weakref.WeakKeyDictionary[Session[Any, Any, Any, Any], set[str]]] = weakref.WeakKeyDictionary()
"""In which queues it was told of dates that cannot be."""


class NotKept(NamedTuple):
    """What a queue is not to keep, and what nobody can tell that of."""

    to_go: list[tuple[datetime.datetime, str]]
    """The oldest first: when they were written, and their names."""
    misdated: list[Item]
    """Entries whose dates cannot be."""


def not_to_be_kept(storage: Storage[Any, Any], queue: str, retention: Retention, now: float) -> NotKept:
    """Return the entries that a queue is not to keep.

    All come from one listing. If another process removes some meanwhile, no younger ones go instead.
    """
    dated: list[tuple[datetime.datetime, str]] = []
    misdated: list[Item] = []
    for item in storage.inventory(queue, State.AVAILABLE):
        if item.has_possible_time(now):
            dated.append((item.modified_at, item.name))
        else:
            misdated.append(item)
    dated.sort()
    before = None if retention.max_age is None else aware(now - length_of(retention.max_age))
    too_old = 0 if before is None else bisect.bisect_left(dated, (before,))
    surplus = 0 if retention.max_count is None else max(0, len(dated) - retention.max_count)
    return NotKept(dated[: max(surplus, too_old)], misdated)


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
        to_go, misdated = found.value
        self._tell_of(misdated)
        work_off = functools.partial(self._work_off, iter(to_go))
        all_done = True
        if len(to_go) == 1:  # an exception of the hook passes through bare
            await work_off()
        elif to_go:
            all_done = await in_several_tasks(min(AT_A_TIME, len(to_go)), work_off)
        if self._failure is not None:
            return self._failure
        if not all_done:
            await checkpoint_if_cancelled()
        return Ok(self._gone)

    async def _work_off(
        self, found: Iterator[tuple[datetime.datetime, str]], _all_of_them: anyio.CancelScope | None = None
    ) -> None:
        for written_at, name in found:
            failure = await self._expire(name, written_at)
            if failure is not None:
                failure.ignore()  # the first is handed out
                self._failure = self._failure or failure
            if self._failure is not None:
                return

    def _tell_of(self, misdated: list[Item]) -> None:
        path, queue = self._session.path, self._queue.value
        told = _TOLD.setdefault(self._session, set())
        if not misdated or queue in told:
            return
        told.add(queue)
        first, number = misdated[0], len(misdated)
        message = (
            "the retention of queue %(queue)s leaves %(number)d of its entries: their dates cannot be, such as "
            "%(date)s of %(entry)s; a clock was wrong, that of this machine or that of a machine that wrote here"
        )
        date = None if first.stamp is None else aware(first.stamp)
        log(LOGGER.warning, Event.MISDATED, path, message, queue=queue, entry=first.name, number=number, date=date)

    async def _expire(self, name: str, written_at: datetime.datetime) -> Err[Any] | None:
        taken = await check_out(self._session, self._queue, name)
        if isinstance(taken, Err):  # unreadable: left to its readers; not decoded: set aside
            return None if isinstance(taken.error, (UnreadableEntry, CorruptMetadata)) else taken
        job = taken.value
        if isinstance(job, Unavailable):
            return None

        async def unless_changed(metadata: M, data: DataFile[D]) -> Verdict[Q, M]:
            if aware(job.claim.written_at) != written_at:
                return Release()
            return Remove() if self._before is None else await self._before(metadata, data)

        answer = await handle(job, Work(unless_changed))
        if isinstance(answer, Err):
            return answer
        if not isinstance(answer.value, Release):
            self._gone.append(name)
            message = "entry %(entry)s of queue %(queue)s is not kept any longer"
            log(LOGGER.info, Event.EXPIRED, self._session.path, message, queue=self._queue.value, entry=name)
        return None


@final
@dataclasses.dataclass(eq=False, repr=False)
class RetentionTask:
    """Applies a reader's retention again and again, in a task of its nursery; `_apply` does so once."""

    _session: Session[Any, Any, Any, Any]
    _queue: str
    _apply: Callable[[], Awaitable[Result[Any, Any]]]
    _scope: anyio.CancelScope = dataclasses.field(default_factory=anyio.CancelScope)
    _begun: bool = False
    _finished: anyio.Event = dataclasses.field(default_factory=anyio.Event)

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

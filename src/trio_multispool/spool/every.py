"""`every`: entries on an interval, or by a calendar, from exactly one of many processes.

Theory. A tick is a point in time. Its entry is named after it, so it can be made only once: the name is refused while
the entry is there, and remembered when it is gone. That is correct without agreement; one process leads so that `make`
runs once per tick. The leader reserves the name of the schedule for as long as it makes the entries, and the kernel
releases the reservation when its process ends. The other processes look now and then whether they can have the name. A
new leader looks backwards from now for the last tick that had an entry, and goes on from there. A new schedule has no
such tick. Then the last tick before now is remembered as if it had had an entry, so that the next one is not missed,
even if the leader is killed before it. No other state can be lost, or contradict this.
"""

from __future__ import annotations

import dataclasses
import datetime
import inspect
from typing import TYPE_CHECKING, Any, Final, Generic, final

import anyio

from trio_multispool.entries.reserved_names import ReservedName, Use
from trio_multispool.errors import EnqueueError, EntryBusy, InvalidName, NameTaken
from trio_multispool.model.calendar import CalendarTicks
from trio_multispool.model.names import invalid_name
from trio_multispool.model.results import Err, Ok, Result, handed_out
from trio_multispool.model.ticks import (
    EPOCH,
    SHORTEST,
    IntervalTicks,
    Missed,
    Ticks,
    back_from,
    due,
    name_of,
    to_remember,
)
from trio_multispool.model.times import aware, length_of
from trio_multispool.model.types import D, M, Q
from trio_multispool.spool.cron import Cron
from trio_multispool.spool.spool import Spool, session_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_multispool.model.policies import Durability
    from trio_multispool.session.session import Session
    from trio_multispool.threads.transaction import BeforeCommit


STANDING_BY: Final = 5.0
"""The longest time between two looks of a process that stands by, whether it can lead, in seconds."""

CLOCK_INTERVAL: Final = 10.0
"""The longest wait before the wall clock is read again, in seconds: it may have been put forward."""

AGAIN: Final = 0.1
"""How long to wait before trying again, if somebody is enqueueing the same entry, in seconds."""

MEMORY: Final = datetime.timedelta(days=7)

MOST_LOOKED_AT: Final = 10_000
"""At most this many ticks are looked for, backwards from now."""


async def every(  # noqa: PLR0913  # keyword arguments, each with a default
    spool: Spool[Q, M, D, Any],
    queue: Q,
    interval: float | datetime.timedelta | Cron,
    make: Callable[[datetime.datetime], tuple[M, D] | Awaitable[tuple[M, D]]],
    *,
    name: str,
    start: datetime.datetime = EPOCH,
    missed: Missed = Missed.LATEST,
    memory: float | datetime.timedelta = MEMORY,
    durability: Durability | None = None,
) -> Result[None, EnqueueError]:
    """Enqueue an entry at every tick of an interval or a calendar, until cancelled; of all that call this, one does it.

    Run it in a task of its own, in every process that may do it. Entries are named `NAME-20271231T080000Z`, after the
    schedule and the time of the tick in UTC. Readers take them like any others.

    - `interval`: from tick to tick, in seconds or as a `timedelta`; a second at least. Or a `Cron`.
    - `make(tick)`: returns the metadata and the data of the entry, or awaits them. `tick` is in UTC.
    - `name`: the name of the schedule. It is reserved while this runs, so no entry can have it.
    - `start`: the first tick, with a time zone. By default, ticks are at whole intervals since 1970 in UTC: of an hour
      on the hour, of a day at midnight. With a `Cron`: the time before which there is no tick.
    - `missed`: what happens to ticks that went by while nothing ran.
    - `memory`: how long ticks are remembered, in seconds or as a `timedelta`; at least two ticks, and at most 10,000.
      (With a `Cron`: at most for as long as 10,000 ticks take on days that have any.) After a longer pause, and the
      first time, the next tick is the first. Each remembered tick is a small file in `.keys/`.

    `Err`: an entry could not be enqueued, as `enqueue` says. It is missing, and is made when `every` is called again,
    as `missed` says. (`Err(NameTaken)`: an entry has the name of the schedule.) Raises what `make` raises; `ValueError`
    for an interval below a second, a `start` without a time zone, and a name that is too long; `TypeError` if the spool
    does not have `queue`, and for a duration that is not one.

    **Cancellation**: the tick that is being enqueued has its entry or not; the process that goes on finds out.
    **Durability**: as `enqueue`. No tick has two entries, and none is left out, whichever process is killed and when.

    ```python
    async with trio.open_nursery() as nursery:
        nursery.start_soon(functools.partial(every, spool, Mail.DIGEST, timedelta(hours=1), make, name="digest"))
        (await reader.iter(deliver)).unwrap()
    ```
    """
    _ = session_of(spool).check_queue(queue)
    ticks = _checked(name, interval, start)
    told = f"schedule {name} of queue {queue.value}", session_of(spool).running.what
    if isinstance(ticks, Err):
        return handed_out(ticks, *told)
    longest = ticks.value.span(MOST_LOOKED_AT)
    kept = datetime.timedelta(seconds=min(length_of(memory, "memory"), longest.total_seconds()))
    return handed_out(await _Series(spool, queue, ticks.value, make, missed, kept, durability).run(), *told)


def _checked(
    name: str, interval: float | datetime.timedelta | Cron, start: datetime.datetime
) -> Result[Ticks, InvalidName]:
    if start.utcoffset() is None:
        raise ValueError(f"start wants a datetime with a time zone, not {start!r}")
    start = start.astimezone(datetime.UTC)
    ticks: Ticks
    if isinstance(interval, Cron):
        ticks = CalendarTicks(name, interval.calendar(), start)
    else:
        every_so_often = datetime.timedelta(seconds=length_of(interval, "an interval"))
        if every_so_often < SHORTEST:
            raise ValueError(f"an interval is a second at least, not {interval!r}")
        ticks = IntervalTicks(name, every_so_often, start)
    fault = invalid_name(name) or invalid_name(name_of(name, EPOCH))
    return Ok(ticks) if fault is None else Err(fault)


@final
@dataclasses.dataclass(eq=False, repr=False)
class _Series(Generic[Q, M, D]):
    """The entries of one schedule, in one process, which makes them or stands by."""

    _spool: Spool[Q, M, D, Any]
    _queue: Q
    _ticks: Ticks
    _make: Callable[[datetime.datetime], tuple[M, D] | Awaitable[tuple[M, D]]]
    _missed: Missed
    _memory: datetime.timedelta
    _durability: Durability | None
    _stood_by: bool = False

    @property
    def _session(self) -> Session[Q, M, D, Any]:
        return session_of(self._spool)

    async def run(self) -> Result[None, EnqueueError]:
        while True:
            answer = await self._session.run(
                f"reservation of {self._ticks.name}",
                lambda _before_commit: self._session.storage.reserve(self._ticks.name),
                undo=self._session.storage.give_up,
            )
            if isinstance(answer, Ok):
                async with ReservedName(self._session, answer.value):
                    return await self._lead()
            if not isinstance(answer.error, EntryBusy):
                return answer
            self._stood_by = True
            await anyio.sleep(min(STANDING_BY, self._ticks.closest.total_seconds() / 2))

    async def _lead(self) -> Result[None, EnqueueError]:
        found = await self._session.run(f"look for the last tick of {self._ticks.name}", self._begin)
        if isinstance(found, Err):
            return found
        last = found.value
        while True:
            for tick in due(self._ticks, last, self._now(), self._missed):
                answer = await self._enqueue(tick)
                if isinstance(answer, Err):
                    return answer
                last = tick
            upcoming = self._ticks.next_after(last)
            while (left := (upcoming - self._now()).total_seconds()) > 0:  # noqa: ASYNC110  # no event tells of the clock
                await anyio.sleep(min(left, CLOCK_INTERVAL))

    def _begin(self, _before_commit: BeforeCommit) -> datetime.datetime | None:
        """Return the tick after which to go on, `None` before the first; in a worker thread."""
        storage, latest = self._session.storage, self._ticks.latest(self._now())
        last = None if latest is None else self._last()
        if latest is None or (last is not None and (self._stood_by or self._missed is not Missed.NONE)):
            return last
        try:
            reservation = storage.reserve(self._name_of(latest))
        except (NameTaken, EntryBusy):  # it has an entry, or somebody is making it
            return latest
        try:
            storage.remember(reservation, self._remember(latest), durability=self._durability)
        finally:
            storage.give_up(reservation)
        return latest

    def _last(self) -> datetime.datetime | None:
        """Return the last tick that has or had an entry; `None` if none is found."""
        storage = self._session.storage
        for tick in back_from(self._ticks, self._now(), self._memory, most=MOST_LOOKED_AT):
            try:
                storage.give_up(storage.reserve(self._name_of(tick)))
            except NameTaken:
                return tick
            except EntryBusy:  # somebody is making it, and may fail
                continue
        return None

    def _remember(self, tick: datetime.datetime) -> float:
        """Return how long a tick is remembered, in seconds: longer than it is looked for."""
        return to_remember(self._ticks, tick, self._memory).total_seconds()

    def _name_of(self, tick: datetime.datetime) -> str:
        return name_of(self._ticks.name, tick)

    async def _enqueue(self, tick: datetime.datetime) -> Result[None, EnqueueError]:
        made = self._make(tick)
        metadata, data = (await made) if inspect.isawaitable(made) else made
        name = Use(self._name_of(tick), remember=self._remember(tick))
        while True:
            answer = await self._spool.enqueue_if_absent(
                self._queue, metadata, data, name=name, durability=self._durability
            )
            if isinstance(answer, Ok):
                return Ok(None)
            if not isinstance(answer.error, EntryBusy):
                return answer
            await anyio.sleep(AGAIN)  # a former leader is still enqueueing it, and will soon be done

    def _now(self) -> datetime.datetime:
        return aware(self._session.now())

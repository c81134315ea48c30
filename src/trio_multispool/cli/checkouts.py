"""Checking entries out, by name wherever they are or as they are selected, and moving or removing them."""

import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, final

import trio

from trio_multispool.cli.exits import Failure
from trio_multispool.cli.finding import find, find_available
from trio_multispool.cli.output import Troubles
from trio_multispool.cli.progress import bar, counting
from trio_multispool.cli.running import Ending, run_telling
from trio_multispool.cli.selecting import Criteria, Settling, selected
from trio_multispool.cli.spools import AnySpool, AnyStorage, Done, load, member, settle
from trio_multispool.entries.job import checkout_of
from trio_multispool.errors import EntryBusy, EntryNotFound, NameTaken, OwnershipLost, SpoolError, UnreadableEntry
from trio_multispool.model.lifecycle import State
from trio_multispool.model.times import aware
from trio_multispool.model.verdicts import Unavailable
from trio_multispool.storage.requests import Item

_AT_A_TIME: Final = 64
"""How many selected entries are settled at once. Beyond some dozens, sharing syncs gains little."""

_TRIES: Final = 10
"""How often to look again for an entry that has moved before it could be checked out."""


@final
@dataclasses.dataclass(frozen=True)
class Task:
    """What is to be done."""

    spool: str
    source: str | None
    """The queue that entries are taken from, or any."""
    destination: str | None
    """The queue that they are moved to; `None`: they are removed."""
    options: Settling
    names: Sequence[str]
    criteria: Criteria | None
    """What entries are like that are not named."""

    def told(self, whence: str = "") -> str:
        """Say what is done with them."""
        return f"removed{whence}" if self.destination is None else f"moved{whence} to {self.destination}"


def settle_all(task: Task, storage: AnyStorage, done: Done) -> int:
    """Move entries to a queue, or remove them; note in `done` what was settled, and return the exit code.

    These are the entries that are named, or what is available and fits the criteria. Of the latter, what somebody else
    takes meanwhile is passed over, and so is what has changed and fits no more. Nothing is recovered first: that would
    make more available than a dry run has shown.
    """

    async def work(_ending: Ending) -> int:
        async with contextlib.AsyncExitStack() as stack:
            settler = _Settler(task, storage, stack, done)
            if task.criteria is None:
                await settler.settle_named(task.names)
            else:
                await settler.settle_selected(task.criteria)
            return settler.troubles.code

    return run_telling(work, done.entries, task.told())


@final
@dataclasses.dataclass
class _Settler:
    """Settles entries, which its spools note in `done`."""

    task: Task
    storage: AnyStorage
    stack: contextlib.AsyncExitStack
    done: Done
    troubles: Troubles = dataclasses.field(default_factory=Troubles)
    spools: dict[str, AnySpool] = dataclasses.field(default_factory=dict)

    async def settle_named(self, names: Sequence[str]) -> None:
        with bar(len(names), shown=len(names) > 1) as shown:
            self.troubles = Troubles(shown.remark)
            for name in dict.fromkeys(names):
                await trio.lowlevel.checkpoint()  # a name that is not there is looked for without any
                try:
                    await self._settle(name)
                except (Failure, SpoolError) as error:
                    self.troubles.tell(error)
                shown.advance()

    async def _settle(self, name: str) -> None:
        """Settle one entry."""
        for _ in range(_TRIES):
            item = find(self.storage, name)
            if item.place.state is State.CHECKED_OUT and item.place.queue not in self.spools:
                _ = await self._spool_with(item.place.queue)  # loading brings back what dead processes had
            queue = find_available(self.storage, name, self.task.source).place.queue
            spool = await self._spool_with(queue)
            entry = spool.entry(member(spool, queue), name).unwrap()
            try:
                async with (await entry.checkout(early=True)).unwrap() as job:  # a person has named it
                    await settle(spool, job, self.task.destination)
            except EntryNotFound:  # it was moved between the two steps
                continue
            except EntryBusy:
                _ = find_available(self.storage, name)  # says who has it, if that can be seen
                raise
            return
        raise EntryBusy(name)

    async def settle_selected(self, criteria: Criteria) -> None:
        with counting("settled") as count:
            for queue in self.storage.queues() if self.task.source is None else [self.task.source]:
                if queue != self.task.destination:
                    await self._settle_in(queue, criteria, count)

    async def _settle_in(self, queue: str, criteria: Criteria, count: Callable[[], None]) -> None:
        """Settle what fits in one queue, many at a time: they share their syncs."""
        spool = await self._spool_with(queue, recover=False)
        items = selected(self.storage, queue, State.AVAILABLE, criteria, self.troubles)

        async def settle_one(item: Item) -> None:
            if await self._settle_if(spool, item, criteria):
                count()

        await with_each(items, settle_one)

    async def _settle_if(self, spool: AnySpool, item: Item, criteria: Criteria) -> bool:
        """Settle a selected entry, if it can be checked out and, once it is locked, still fits."""
        try:
            entry = spool.entry(member(spool, item.place.queue), item.name).unwrap()
            answer = (await entry.try_checkout()).unwrap()
            if isinstance(answer, Unavailable):
                return False
            async with answer as job:
                rewritten = aware(checkout_of(job).claim.written_at) != item.modified_at
                if (rewritten and criteria.older_than is not None) or not criteria.fit_metadata(job.metadata):
                    return False
                await settle(spool, job, self.task.destination)
        except (OwnershipLost, NameTaken, UnreadableEntry) as error:  # trouble of this entry alone
            self.troubles.tell(error)
            return False
        return True

    async def _spool_with(self, queue: str, *, recover: bool = True) -> AnySpool:
        """Return the spool, loaded with no more queues than are needed: of another, something may be missing."""
        if queue not in self.spools:
            queues = [queue] if self.task.destination is None else [queue, self.task.destination]
            trusting = self.task.options.trust_file_system
            loaded = await load(self.task.spool, queues, trust_file_system=trusting, recover=recover, told=self.done)
            self.spools[queue] = await self.stack.enter_async_context(loaded)
        return self.spools[queue]


async def with_each(items: Iterator[Item | None], act: Callable[[Item], Awaitable[None]]) -> None:
    """Do something with each item, many at a time; end at the first error, and raise it."""
    failures: list[Failure | SpoolError] = []
    looking = trio.Lock()

    async def act_on_some() -> None:
        try:
            while not failures and (item := await _next_of(items, looking)) is not None:
                await act(item)
        except (Failure, SpoolError) as error:
            failures.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(_AT_A_TIME):
            nursery.start_soon(act_on_some)
    if failures:  # not through the nursery, which would wrap it
        raise failures[0]


async def _next_of(items: Iterator[Item | None], looking: trio.Lock) -> Item | None:
    """Return the next item; `None` after the last. One task looks at a time, so that a signal is heard soon."""
    try:
        looking.acquire_nowait()  # without a checkpoint, which would cost more than most looks
    except trio.WouldBlock:
        await looking.acquire()
    try:
        for item in items:
            if item is not None:
                return item
            await trio.lowlevel.checkpoint()
    finally:
        looking.release()
    return None

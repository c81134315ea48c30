"""Checking entries out, by name wherever they are or as they are selected, and moving or removing them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final, final

import trio

from trio_multispool.cli import output
from trio_multispool.cli.exits import Exit, Failure, code_of, said
from trio_multispool.cli.finding import find, find_available
from trio_multispool.cli.progress import bar, counting
from trio_multispool.cli.running import Ending, run
from trio_multispool.cli.selecting import selected
from trio_multispool.cli.spools import load, looking, member
from trio_multispool.clock import wall_clock
from trio_multispool.errors import (
    EntryBusy,
    EntryNotFound,
    NameTaken,
    OwnershipLost,
    SpoolError,
    UnreadableEntry,
)
from trio_multispool.model.lifecycle import Place, State
from trio_multispool.model.results import Err
from trio_multispool.model.verdicts import Unavailable

if TYPE_CHECKING:
    import enum
    import os
    from collections.abc import Callable, Iterator, Sequence

    from trio_multispool.cli.selecting import Criteria
    from trio_multispool.cli.sources import Source
    from trio_multispool.cli.spools import AnySpool, AnyStorage
    from trio_multispool.entries.job import CheckedOutEntry
    from trio_multispool.model.results import Result
    from trio_multispool.storage.requests import Item

_AT_A_TIME: Final = 64
"""How many selected entries are settled at once. Beyond some dozens, sharing syncs gains little."""

_TRIES: Final = 10
"""How often to look again for an entry that has moved before it could be checked out."""


def settle_each(
    path: str | os.PathLike[str],
    names: Sequence[str],
    destination: str | None,
    *,
    source: str | None = None,
    trust_file_system: bool,
) -> tuple[list[tuple[str, str]], int]:
    """Move entries to a queue, or remove them; return what was settled and whence, and the exit code.

    With `source`, only entries of that queue.
    """
    settled: list[tuple[str, str]] = []
    codes: list[int] = []

    async def work(_ending: Ending) -> int:
        with looking(path) as storage, bar(len(names), shown=len(names) > 1) as shown:
            async with contextlib.AsyncExitStack() as stack:
                settler = _Settler(storage, destination, stack, trust_file_system=trust_file_system)
                for name in dict.fromkeys(names):
                    try:
                        settled.append((name, await settler.settle(name, source)))
                    except (Failure, SpoolError) as error:
                        codes.append(error.code if isinstance(error, Failure) else code_of(error))
                        shown.remark(f"multispool: {output.printable(_told(error))}")
                    shown.advance()
        return codes[0] if codes else Exit.SUCCESS

    code = run(work)
    return settled, code


def settle_selected(
    path: str | os.PathLike[str],
    source: str | None,
    destination: str | None,
    criteria: Criteria,
    *,
    trust_file_system: bool,
) -> tuple[list[tuple[str, str]], int]:
    """Move or remove what is available and fits, in `source` or in all queues; return the same.

    What somebody else takes meanwhile is passed over, and so is what has changed and fits no more. Nothing is recovered
    first: that would make more available than a dry run has shown.
    """
    settled: list[tuple[str, str]] = []
    codes: list[int] = []

    async def work(_ending: Ending) -> int:
        with looking(path) as storage, counting("settled") as count:
            async with contextlib.AsyncExitStack() as stack:
                settler = _Settler(storage, destination, stack, trust_file_system=trust_file_system, recovers=False)
                for queue in [source] if source is not None else storage.queues():
                    if queue == destination:
                        continue
                    spool = await settler.spool_with(queue)
                    items = selected(storage, queue, State.AVAILABLE, criteria, wall_clock())

                    def note(name: str, queue: str = queue) -> None:
                        settled.append((name, queue))
                        count()

                    pool = _Pool(settler, spool, queue, criteria, items, note, codes)
                    await pool.run()
        return codes[0] if codes else Exit.SUCCESS

    code = run(work)
    return settled, code


@final
class _Pool:
    """Settles selected entries of one queue, many at a time: they share their syncs."""

    def __init__(  # noqa: PLR0913, PLR0917  # what its workers share
        self,
        settler: _Settler,
        spool: AnySpool,
        queue: str,
        criteria: Criteria,
        items: Iterator[Item],
        note: Callable[[str], None],
        codes: list[int],
    ) -> None:
        self._settler = settler
        self._spool = spool
        self._queue = queue
        self._criteria = criteria
        self._items = items
        self._note = note
        self._codes = codes
        self._failure: Failure | SpoolError | None = None

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(_AT_A_TIME):
                nursery.start_soon(self._settle_some)
        if self._failure is not None:  # not through the nursery, which would wrap it
            raise self._failure

    async def _settle_some(self) -> None:
        try:
            for item in self._items:
                if await self._settle(item.name):
                    self._note(item.name)
                if self._failure is not None:
                    return
        except (Failure, SpoolError) as error:
            self._failure = error if self._failure is None else self._failure

    async def _settle(self, name: str) -> bool:
        try:
            return await self._settler.settle_if(self._spool, self._queue, name, self._criteria)
        except (OwnershipLost, NameTaken, UnreadableEntry) as error:  # trouble of this entry alone
            self._codes.append(code_of(error))
            output.complain(said(error))
            return False


def _told(error: Failure | SpoolError) -> str:
    return str(error) if isinstance(error, Failure) else said(error)


@final
class _Settler:
    """Moves entries to `destination`, or removes them if that is `None`."""

    def __init__(
        self,
        storage: AnyStorage,
        destination: str | None,
        stack: contextlib.AsyncExitStack,
        *,
        trust_file_system: bool,
        recovers: bool = True,
    ) -> None:
        self._storage = storage
        self._destination = destination
        self._stack = stack
        self._trust_file_system = trust_file_system
        self._recovers = recovers
        self._spools: dict[str, AnySpool] = {}

    async def settle(self, name: str, source: str | None) -> str:
        """Settle one entry, of that queue if it is given, and return the queue that it was in."""
        for _ in range(_TRIES):
            item = find(self._storage, name)
            if item.place.state is State.CHECKED_OUT and item.place.queue not in self._spools:
                _ = await self.spool_with(item.place.queue)  # loading brings back what dead processes had
            queue = find_available(self._storage, name, source)
            spool = await self.spool_with(queue)
            try:
                await self._settle_in(spool, queue, name)
            except EntryNotFound:  # it was moved between the two steps
                continue
            except EntryBusy:
                _ = find_available(self._storage, name)  # says who has it, if that can be seen
                raise
            return queue
        raise EntryBusy(name)

    async def settle_if(self, spool: AnySpool, queue: str, name: str, criteria: Criteria) -> bool:
        """Settle a selected entry, if it can be checked out and, once it is locked, still fits."""
        answer = (await spool.entry(member(spool, queue), name).unwrap().try_checkout()).unwrap()
        if isinstance(answer, Unavailable):
            return False
        async with answer as job:
            found = self._storage.stat(Place(queue, State.CHECKED_OUT), name)
            if not criteria.fit_age(found.modified_at, wall_clock()) or not criteria.fit_metadata(job.metadata):
                return False
            await self._settle_job(spool, job)
        return True

    async def spool_with(self, queue: str) -> AnySpool:
        """Return the spool, loaded with no more queues than are needed: of another, something may be missing."""
        if queue not in self._spools:
            queues = [queue] if self._destination is None else [queue, self._destination]
            loaded = await load(
                self._storage.location, queues, trust_file_system=self._trust_file_system, recover=self._recovers
            )
            self._spools[queue] = await self._stack.enter_async_context(loaded)
        return self._spools[queue]

    async def _settle_in(self, spool: AnySpool, queue: str, name: str) -> None:
        entry = spool.entry(member(spool, queue), name).unwrap()
        async with (await entry.checkout(early=True)).unwrap() as job:  # a person has named it
            await self._settle_job(spool, job)

    async def _settle_job(self, spool: AnySpool, job: CheckedOutEntry[enum.Enum, bytes, Source]) -> None:
        answer: Result[None, Any]
        if self._destination is None:
            answer = await job.remove()
        else:
            answer = await job.save(member(spool, self._destination))
        if isinstance(answer, Err):
            raise answer.error

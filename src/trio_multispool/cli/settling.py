"""Checking entries out by name, wherever they are, and settling them: what `mv` and `rm` have in common."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final, final

from trio_multispool.cli import output
from trio_multispool.cli.exits import Exit, Failure, code_of, said
from trio_multispool.cli.finding import find, find_available
from trio_multispool.cli.opening import load, looking, member
from trio_multispool.cli.progress import bar
from trio_multispool.cli.running import Ending, run
from trio_multispool.errors import EntryBusy, EntryNotFound, SpoolError
from trio_multispool.lifecycle import State
from trio_multispool.results import Err

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from trio_multispool.cli.opening import AnySpool
    from trio_multispool.results import Result
    from trio_multispool.storage.directory import DirectoryStorage

_TRIES: Final = 10
"""How often an entry is looked for again that was elsewhere by the time it should be checked out."""


def settle_each(
    path: str | os.PathLike[str], names: Sequence[str], destination: str | None, *, trust_file_system: bool
) -> tuple[list[tuple[str, str]], int]:
    """Move entries to a queue, or remove them; return what was settled and whence, and the exit code."""
    settled: list[tuple[str, str]] = []
    codes: list[int] = []

    async def work(_ending: Ending) -> int:
        with looking(path) as storage, bar(len(names), shown=len(names) > 1) as shown:
            async with contextlib.AsyncExitStack() as stack:
                settler = _Settler(storage, destination, stack, trust_file_system=trust_file_system)
                for name in dict.fromkeys(names):
                    try:
                        settled.append((name, await settler.settle(name)))
                    except (Failure, SpoolError) as error:
                        codes.append(error.code if isinstance(error, Failure) else code_of(error))
                        shown.remark(f"multispool: {output.printable(_told(error))}")
                    shown.advance()
        return codes[0] if codes else Exit.SUCCESS

    code = run(work)
    return settled, code


def _told(error: Failure | SpoolError) -> str:
    return str(error) if isinstance(error, Failure) else said(error)


@final
class _Settler:
    """Moves entries to `destination`, or removes them if that is `None`."""

    def __init__(
        self,
        storage: DirectoryStorage,
        destination: str | None,
        stack: contextlib.AsyncExitStack,
        *,
        trust_file_system: bool,
    ) -> None:
        self._storage = storage
        self._destination = destination
        self._stack = stack
        self._trust_file_system = trust_file_system
        self._spools: dict[str, AnySpool] = {}

    async def settle(self, name: str) -> str:
        """Settle one entry, and return the queue that it was in."""
        for _ in range(_TRIES):
            item = find(self._storage, name)
            if item.place.state is State.CHECKED_OUT and item.place.queue not in self._spools:
                _ = await self._spool_with(item.place.queue)  # loading brings back what dead processes had
            queue = find_available(self._storage, name)
            spool = await self._spool_with(queue)
            try:
                await self._settle_in(spool, queue, name)
            except EntryNotFound:  # it was moved between the two steps
                continue
            except EntryBusy:
                _ = find_available(self._storage, name)  # says who has it, if that can be seen
                raise
            return queue
        raise EntryBusy(name)

    async def _spool_with(self, queue: str) -> AnySpool:
        """Return the spool, loaded with no more queues than are needed: of another, something may be missing."""
        if queue not in self._spools:
            queues = [queue] if self._destination is None else [queue, self._destination]
            loaded = await load(self._storage.path, queues, trust_file_system=self._trust_file_system)
            self._spools[queue] = await self._stack.enter_async_context(loaded)
        return self._spools[queue]

    async def _settle_in(self, spool: AnySpool, queue: str, name: str) -> None:
        entry = spool.entry(member(spool, queue), name).unwrap()
        async with (await entry.checkout()).unwrap() as job:
            answer: Result[None, Any]
            if self._destination is None:
                answer = await job.remove()
            else:
                answer = await job.save(member(spool, self._destination))
            if isinstance(answer, Err):
                raise answer.error

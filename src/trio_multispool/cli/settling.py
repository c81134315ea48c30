"""Checking entries out by name, wherever they are, and settling them: what `mv` and `rm` have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from trio_multispool.cli import output
from trio_multispool.cli.exits import Exit, Failure, code_of, said
from trio_multispool.cli.finding import find_available
from trio_multispool.cli.opening import load, looking, member
from trio_multispool.cli.progress import bar
from trio_multispool.cli.running import Ending, run
from trio_multispool.errors import EntryBusy, EntryNotFound, SpoolError
from trio_multispool.results import Err, Ok

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from trio_multispool.cli.opening import AnySpool
    from trio_multispool.results import Result

_TRIES: Final = 10
"""How often an entry is looked for again that was elsewhere by the time it should be checked out."""


def settle_each(
    path: str | os.PathLike[str], names: Sequence[str], destination: str | None, *, trust_file_system: bool
) -> tuple[list[tuple[str, str]], int]:
    """Move entries to a queue, or remove them; return what was settled and whence, and the exit code."""
    settled: list[tuple[str, str]] = []
    codes: list[int] = []

    async def work(_ending: Ending) -> int:
        with bar(len(names), shown=len(names) > 1) as shown:
            for name in dict.fromkeys(names):
                try:
                    source = await _settle(path, name, destination, trust_file_system=trust_file_system)
                    settled.append((name, source))
                except (Failure, SpoolError) as error:
                    codes.append(error.code if isinstance(error, Failure) else code_of(error))
                    output.complain(str(error) if isinstance(error, Failure) else said(error))
                shown.advance()
        return codes[0] if codes else Exit.SUCCESS

    code = run(work)
    return settled, code


async def _settle(
    path: str | os.PathLike[str], name: str, destination: str | None, *, trust_file_system: bool
) -> str:
    for attempt in range(_TRIES):
        with looking(path) as storage:
            queue = find_available(storage, name)
        queues = [queue] if destination is None else [queue, destination]
        async with await load(path, queues, trust_file_system=trust_file_system) as spool:
            try:
                await _checked_out_and_settled(spool, queue, name, destination)
            except EntryNotFound:
                if attempt == _TRIES - 1:
                    raise
                continue
            except EntryBusy:
                with looking(path) as storage:
                    _ = find_available(storage, name)  # says who has it, if that can be seen
                raise
            return queue
    raise AssertionError


async def _checked_out_and_settled(spool: AnySpool, queue: str, name: str, destination: str | None) -> None:
    entry = spool.entry(member(spool, queue), name).unwrap()
    async with (await entry.checkout()).unwrap() as job:
        answer: Result[None, Any]
        if destination is None:
            answer = await job.remove()
        else:
            answer = await job.save(member(spool, destination))
        match answer:
            case Ok():
                return
            case Err(error):
                raise error

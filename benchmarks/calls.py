"""Calls of Python and C functions for each entry: a count, the same on every machine, idle or busy.

    python benchmarks/calls.py [--case CASE]… [--backend trio|asyncio] [--modules N] [--functions N]

Counted by `sys.setprofile` in all threads: the library, AnyIO, the event loop and the standard library together, and
not this file. A coroutine that goes on after a wait counts as a call. *Steps* are how often the event loop ran a task,
which only Trio tells; they are counted in a run of their own, because telling them takes calls. Each case is one way to
use a spool, with 64 tasks that share the work, and with one:

- enqueue: `spool.enqueue`.
- pool: `reader.iter_available(handler, concurrency=…)`, whose handler answers `Remove()`.
- with_entry: `spool.with_entry(entry, handler)`, likewise.
- try_checkout: `entry.try_checkout()` and `job.remove()`.
- async for: `async for job in reader` and `job.remove()`, all tasks with one reader.

With `--modules` and `--functions`, the modules and functions that were called most are shown too.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
import sniffio
import trio
from common import DATA, NOTES, Note, Queue, machine

from trio_multispool import CheckedOutEntry, DataFile, Durability, Entry, Remove, Retry, Spool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterator
    from types import CodeType, FrameType

    Opened: TypeAlias = Spool[Queue, Note, bytes, Any]

TASKS = 64

LIBRARY = "trio_multispool/"


class Calls:
    """What was called while it counted, in all threads that were started while it was set."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.python: collections.Counter[CodeType] = collections.Counter()
        self.c: collections.Counter[str] = collections.Counter()
        self.steps = 0
        self._counting = False

    def seen(self, frame: FrameType, event: str, what: object) -> None:
        """Take note of what the interpreter tells."""
        if not self._counting:
            return
        if event == "call" and frame.f_code.co_filename != __file__:
            self.python[frame.f_code] += 1
        elif event == "c_call":
            self.c[getattr(what, "__qualname__", str(what))] += 1

    def before_task_step(self, task: object) -> None:  # noqa: ARG002  # Trio's name
        """Take note of what Trio tells."""
        self.steps += self._counting

    @contextlib.contextmanager
    def counting(self) -> Generator[None]:
        """Count what is called in the block."""
        self._counting = True
        try:
            yield
        finally:
            self._counting = False


async def enqueued(spool: Opened, entries: int, tasks: int, calls: Calls) -> None:
    """Enqueue."""
    work = iter(range(entries))

    async def enqueue() -> None:
        for number in work:
            _ = (await spool.enqueue(Queue.WORK, Note(number), DATA)).unwrap()

    await in_tasks(tasks, enqueue)  # the threads are there, and the directories open
    work = iter(range(entries))
    with calls.counting():
        await in_tasks(tasks, enqueue)


async def handle(_note: Note, _data: DataFile[bytes]) -> Remove:
    """Do nothing, and have the entry removed."""
    return Remove()


async def of_a_pool(spool: Opened, entries: int, tasks: int, calls: Calls) -> None:
    """Let a pool remove all entries."""
    await fill(spool, entries)
    async with spool.reader(Queue.WORK) as reader:
        with calls.counting():
            _ = (await reader.iter_available(handle, concurrency=tasks)).unwrap()


async def of_a_pool_that_retries(spool: Opened, entries: int, tasks: int, calls: Calls) -> None:
    """Let a pool with `retry=` remove all entries, at the first attempt."""
    await fill(spool, entries)
    retry = Retry(attempts=3, dead_letter=Queue.DEAD)
    async with spool.reader(Queue.WORK) as reader:
        with calls.counting():
            _ = (await reader.iter_available(handle, concurrency=tasks, retry=retry)).unwrap()


async def with_entry(spool: Opened, entries: int, tasks: int, calls: Calls) -> None:
    """Remove entries by `with_entry`."""

    async def remove(entry: Entry[Queue, Note, bytes]) -> None:
        _ = (await spool.with_entry(entry, handle)).unwrap()

    await by_hand(spool, entries, tasks, calls, remove)


async def try_checkout(spool: Opened, entries: int, tasks: int, calls: Calls) -> None:
    """Remove entries that are checked out by name."""

    async def remove(entry: Entry[Queue, Note, bytes]) -> None:
        job = (await entry.try_checkout()).unwrap()
        assert isinstance(job, CheckedOutEntry)
        async with job:
            _ = (await job.remove()).unwrap()

    await by_hand(spool, entries, tasks, calls, remove)


async def by_hand(
    spool: Opened,
    entries: int,
    tasks: int,
    calls: Calls,
    remove: Callable[[Entry[Queue, Note, bytes]], Awaitable[None]],
) -> None:
    """Remove all entries, one by one."""
    await fill(spool, entries)
    left: Iterator[Entry[Queue, Note, bytes]] = iter((await spool.entries(Queue.WORK)).unwrap())

    async def some() -> None:
        for entry in left:
            await remove(entry)

    with calls.counting():
        await in_tasks(tasks, some)


async def async_for(spool: Opened, entries: int, tasks: int, calls: Calls) -> None:
    """Remove entries in tasks that draw from one reader."""
    await fill(spool, entries)
    left = entries
    async with spool.reader(Queue.WORK) as reader:

        async def remove() -> None:
            nonlocal left
            async for job in reader:
                async with job:
                    _ = (await job.remove()).unwrap()
                left -= 1
                if not left:
                    reader.stop()

        with calls.counting():
            await in_tasks(tasks, remove)


CASES = {
    "enqueue": enqueued,
    "pool": of_a_pool,
    "pool, retry": of_a_pool_that_retries,
    "with_entry": with_entry,
    "try_checkout": try_checkout,
    "async for": async_for,
}


async def in_tasks(tasks: int, work: Callable[[], Awaitable[None]]) -> None:
    """Do the work in so many tasks."""
    if tasks == 1:
        await work()
        return
    async with anyio.create_task_group() as group:
        for _ in range(tasks):
            _ = group.start_soon(work)


async def fill(spool: Opened, entries: int) -> None:
    """Enqueue what a case is to remove, and run a batch in a thread, so that one is there."""
    for answer in await spool.enqueue_many(Queue.WORK, [(Note(number), DATA) for number in range(entries)]):
        _ = answer.unwrap()


async def run(case: str, entries: int, tasks: int, calls: Calls, steps: bool) -> None:  # noqa: FBT001  # by position
    """Run one case in a spool of its own; count the steps of the event loop, or else the calls."""
    with tempfile.TemporaryDirectory(prefix="multispool-benchmark-") as folder:
        made = await Spool.create(f"{folder}/spool", NOTES, durability=Durability.PROCESS)
        async with made.unwrap() as spool:
            if steps and sniffio.current_async_library() == "trio":
                trio.lowlevel.add_instrument(calls)
            await CASES[case](spool, entries, tasks, calls)


def function(code: CodeType) -> tuple[str, str]:
    """Return the module and the name of a Python function."""
    path = code.co_filename
    _, inside, module = path.rpartition(LIBRARY)
    return (module if inside else "/".join(Path(path).parts[-2:])), code.co_qualname


def show_most(title: str, counted: collections.Counter[str], entries: int, most: int) -> None:
    """Print what was called most."""
    for name, calls in counted.most_common(most):
        print(f"    {calls / entries:8.2f}  {title} {name}")


def main() -> None:
    """Count, and print a table."""
    parser = argparse.ArgumentParser(description="Count the calls of functions for each entry.")
    _ = parser.add_argument("--case", action="append", choices=list(CASES), help="only this one; may be repeated")
    _ = parser.add_argument("--backend", choices=["trio", "asyncio"], default="trio")
    _ = parser.add_argument("--entries", type=int, default=640, help="of each case (640)")
    _ = parser.add_argument("--modules", type=int, default=0, help="show so many modules of each case")
    _ = parser.add_argument("--functions", type=int, default=0, help="show so many functions of each case")
    options = parser.parse_args()
    print(f"{machine(tempfile.gettempdir())}, {options.backend}, {options.entries} entries, {len(DATA)} bytes of data")
    calls = Calls()
    threading.setprofile(calls.seen)  # worker threads live on from case to case
    sys.setprofile(calls.seen)
    print(f"{'calls for each entry':24}{'tasks':>6}{'Python':>9}{'C':>9}{'steps':>9}")
    for case in options.case or CASES:
        for tasks in (TASKS, 1):
            calls.clear()
            steps = Calls()
            for counting in (calls, steps):
                arguments = case, options.entries, tasks, counting, counting is steps
                anyio.run(run, *arguments, backend=options.backend)
            figures = (calls.python.total(), calls.c.total(), steps.steps)
            print(f"{case:24}{tasks:6}" + "".join(f"{figure / options.entries:9.1f}" for figure in figures), flush=True)
            by_module: collections.Counter[str] = collections.Counter()
            by_function: collections.Counter[str] = collections.Counter()
            for code, number in calls.python.items():
                module, name = function(code)
                by_module[module] += number
                by_function[f"{module}: {name}"] += number
            show_most("module", by_module, options.entries, options.modules)
            show_most("function", by_function, options.entries, options.functions)
            show_most("C function", calls.c, options.entries, options.functions)


if __name__ == "__main__":
    main()

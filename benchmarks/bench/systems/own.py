"""This library, on Trio: as many tasks as asked for share a spool in each process."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import msgspec
import trio

from bench.systems.bare import batches
from bench.work import METADATA_BYTES, QUEUES, Clock
from trio_multispool import Durability, Remove, Save, Spool, Spoolable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bench.work import Phase, Took, Work
    from trio_multispool import DataFile, Entry, Verdict

Queue = enum.Enum("Queue", [(name.upper(), name) for name in QUEUES])


class Note(msgspec.Struct):
    """The metadata."""

    number: int
    padding: str = "x" * (METADATA_BYTES - len('{"number":1234,"padding":""}'))


NOTES = Spoolable(queues=Queue, metadata=Note, data=bytes)


def location(folder: str) -> str:
    """Return where the spool is: in a folder, or in the database that a URL names."""
    return f"{folder}?spool=bench" if "://" in folder else f"{folder}/spool"


class Own:
    """A spool; each phase opens it anew, before the clock runs."""

    def __init__(self, work: Work) -> None:
        """Create the spool, or find it."""
        self._work = work
        self._data = b"x" * work.size
        self._phases: dict[Phase, Callable[[Spool, int], Awaitable[Took]]] = {
            "enqueue": self._enqueue,
            "enqueue_many": self._enqueue_many,
            "remove": self._remove,
            "work_off": self._load_and_remove,
            "save": self._save,
            "pipeline": self._pipeline,
            "with_entry": self._with_entry,
            "try_checkout": self._try_checkout,
        }
        trio.run(self._run, None, 0, lambda: None)

    def measure(self, phase: Phase, count: int, ready: Callable[[], None]) -> Took:
        """Do a phase."""
        return trio.run(self._run, phase, count, ready)

    async def _run(self, phase: Phase | None, count: int, ready: Callable[[], None]) -> Took | None:
        path = location(self._work.folder)
        durability = Durability(self._work.level)
        async with (await Spool.create(path, NOTES, durability=durability)).unwrap() as spool:
            ready()  # blocks: nothing else is to run
            return None if phase is None else await self._phases[phase](spool, count)

    async def _enqueue(self, spool: Spool, count: int) -> Took:
        numbers = iter(range(count))

        async def enqueue() -> None:
            for number in numbers:  # all tasks draw from one iterator
                _ = (await spool.enqueue(Queue.WORK, Note(number), self._data)).unwrap()

        clock = Clock()
        async with trio.open_nursery() as nursery:
            for _ in range(self._work.tasks):
                nursery.start_soon(enqueue)
        return clock.took(count)

    async def _enqueue_many(self, spool: Spool, count: int) -> Took:
        clock = Clock()
        for numbers in batches(count):
            for answer in await spool.enqueue_many(Queue.WORK, [(Note(number), self._data) for number in numbers]):
                _ = answer.unwrap()
        return clock.took(count)

    async def _remove(self, spool: Spool, _count: int) -> Took:
        return await self._work_off(spool, Remove())

    async def _save(self, spool: Spool, _count: int) -> Took:
        return await self._work_off(spool, Save(Queue.SECOND, metadata=Note(1)))

    async def _load_and_remove(self, spool: Spool, _count: int) -> Took:
        return await self._work_off(spool, Remove(), loads=True)

    async def _work_off(self, spool: Spool, verdict: Verdict, *, loads: bool = False) -> Took:
        """Work off what is there."""
        done = 0

        async def handle(_note: Note, data: DataFile[bytes]) -> Verdict:
            nonlocal done
            done += 1
            if loads:
                _ = (await data.load()).unwrap()
            return verdict

        clock = Clock()
        async with spool.reader(Queue.WORK) as reader:
            _ = (await reader.iter_available(handle, concurrency=self._work.tasks)).unwrap()
        return clock.took(done)

    async def _with_entry(self, spool: Spool, _count: int) -> Took:
        async def remove(entry: Entry) -> None:
            _ = (await spool.with_entry(entry, handle)).unwrap()

        async def handle(_note: Note, _data: DataFile[bytes]) -> Verdict:
            return Remove()

        return await self._by_hand(spool, remove)

    async def _try_checkout(self, spool: Spool, _count: int) -> Took:
        async def remove(entry: Entry) -> None:
            async with (await entry.checkout()).unwrap() as job:
                _ = (await job.remove()).unwrap()

        return await self._by_hand(spool, remove)

    async def _by_hand(self, spool: Spool, remove: Callable[[Entry], Awaitable[None]]) -> Took:
        """Remove what is there, by its names."""
        entries = (await spool.entries(Queue.WORK)).unwrap()
        left = iter(entries)

        async def some() -> None:
            for entry in left:
                await remove(entry)

        clock = Clock()
        async with trio.open_nursery() as nursery:
            for _ in range(self._work.tasks):
                nursery.start_soon(some)
        return clock.took(len(entries))

    async def _pipeline(self, spool: Spool, count: int) -> Took:
        """Have three readers wait on three queues, and stop them when the last queue has had all."""
        done = 0
        verdicts = [Save(Queue.SECOND, metadata=Note(1)), Save(Queue.THIRD, metadata=Note(2)), Remove()]
        clock = Clock()
        async with trio.open_nursery() as nursery:

            async def stage(queue: Queue, verdict: Verdict) -> None:
                async def handle(_note: Note, _data: DataFile[bytes]) -> Verdict:
                    nonlocal done
                    if queue is Queue.THIRD:
                        done += 1
                        if done == count:
                            all_done.set()
                    return verdict

                async with spool.reader(queue) as reader:
                    readers.append(reader)
                    _ = (await reader.iter(handle, concurrency=self._work.tasks)).unwrap()

            readers = []
            all_done = trio.Event()
            for queue, verdict in zip(Queue, verdicts, strict=True):
                nursery.start_soon(stage, queue, verdict)
            await all_done.wait()
            for reader in readers:
                reader.stop()
        return clock.took(done)


def opened(work: Work) -> Own:
    """Open it."""
    return Own(work)

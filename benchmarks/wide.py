"""Many readers of one queue, many queues in one spool, and very many entries that wait.

    python benchmarks/wide.py --directory DIRECTORY [--case readers|idle|queues|waiting]…

All at level `process`. What each case shows:

- readers: entries a second that 1, 20 and 200 readers of one queue in one process take and remove, and its memory.
- idle: how soon one of 1 and of 200 waiting readers has an entry that another spool object enqueues.
- queues: with 10, 100 and 1,000 queues, the descriptors that are open when each was used, one more enqueue under a name
  of the caller's choice, and the recovery of an entry in every third queue whose owner died.
- waiting: with so many entries that wait (`--entries`), how soon a first look is cancelled, and how long it takes.
"""

from __future__ import annotations

import argparse
import enum
import os
import resource
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from common import NOTES, Note, Queue, machine

from trio_multispool import CheckedOutEntry, DataFile, Durability, Remove, Spool, Spoolable, Use
from trio_multispool.storage.directory.store import DirectoryStorage

READERS = (1, 20, 200)
QUEUES = (10, 100, 1000)
QUICK = Durability.PROCESS


async def opened(path: Path, spoolable: Spoolable[Any, Any, Any, Any] = NOTES) -> Spool[Any, Any, Any, Any]:
    """Make a spool, or open the one that is there."""
    return (await Spool.create(path, spoolable, durability=QUICK)).unwrap()


async def remove(_note: Note, _data: DataFile[bytes]) -> Remove:
    """Have the entry removed."""
    return Remove()


async def readers(path: Path, entries: int) -> None:
    """Let readers take and remove entries."""
    for count in READERS:
        async with await opened(path / f"{count}") as spool:
            for begin in range(0, entries, 1000):
                made = await spool.enqueue_many(Queue.WORK, [(Note(begin + each), b"x") for each in range(1000)])
                _ = [each.unwrap() for each in made]

            async def work(spool: Spool[Any, Any, Any, Any] = spool) -> None:
                async with spool.reader(Queue.WORK) as reader:
                    (await reader.iter_available(remove)).unwrap()

            began = time.perf_counter()
            async with anyio.create_task_group() as tasks:
                for _ in range(count):
                    _ = tasks.start_soon(work)
            rate = entries / (time.perf_counter() - began)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{count:5} readers: {rate:7.0f} entries a second, {memory:.0f} MB at the most", flush=True)


async def idle(path: Path, entries: int) -> None:
    """Wake waiting readers, one entry after the other."""
    for count in (READERS[0], READERS[-1]):
        async with await opened(path / f"{count}") as spool, await opened(path / f"{count}") as other:
            took: list[float] = []
            sent = [0.0] * entries

            async def note(number: Note, _data: object, took: list[float] = took, sent: list[float] = sent) -> Remove:
                took.append(time.perf_counter() - sent[number.number])
                return Remove()

            async def work(spool: Spool[Any, Any, Any, Any] = spool, note: Any = note) -> None:  # noqa: ANN401
                async with spool.reader(Queue.WORK) as reader:
                    _ = await reader.iter(note)

            async with anyio.create_task_group() as tasks:
                for _ in range(count):
                    _ = tasks.start_soon(work)
                await anyio.sleep(2)
                for number in range(entries):
                    sent[number] = time.perf_counter()
                    _ = (await other.enqueue(Queue.WORK, Note(number), b"x")).unwrap()
                    await anyio.sleep(0.02)
                tasks.cancel_scope.cancel()
        p50, p99 = statistics.median(took) * 1e3, sorted(took)[len(took) * 99 // 100] * 1e3
        print(f"{count:5} idle readers: p50 {p50:.2f} ms, p99 {p99:.2f} ms", flush=True)


def held_open() -> int:
    """Count the descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def queues(path: Path, entries: int) -> None:
    """Use many queues."""
    for count in QUEUES:
        names = [f"q{number}" for number in range(count)]
        wide: Any = enum.Enum("wide", {name: name for name in names})  # type: ignore[misc]
        async with await opened(path / f"{count}", Spoolable(queues=wide, metadata=Note, data=bytes)) as spool:
            for queue in wide:
                _ = (await spool.enqueue(queue, Note(0), b"x")).unwrap()
            held = held_open()
            took: list[float] = []
            for number in range(min(entries, 50)):
                began = time.perf_counter()
                _ = (await spool.enqueue(wide.q0, Note(number), b"x", name=Use(f"chosen-{number}"))).unwrap()
                took.append(time.perf_counter() - began)
            store = DirectoryStorage.open(path / f"{count}", names, durability=QUICK)
            for queue in list(wide)[::3]:
                [entry, *_] = (await spool.entries(queue)).unwrap()
                job = (await entry.checkout()).unwrap()
                assert isinstance(job, CheckedOutEntry)
                job._checkout.claim.abandon()  # noqa: SLF001  # like a process that dies
                job._checkout.let_go = True  # noqa: SLF001
            began = time.perf_counter()
            recovered = len(list(store.recover_all()))
            seconds = time.perf_counter() - began
            store.close()
        print(
            f"{count:5} queues: {held} descriptors, {statistics.median(took) * 1e3:.2f} ms for a chosen name, "
            f"{recovered} entries recovered in {seconds:.2f} s",
            flush=True,
        )


async def waiting(path: Path, entries: int) -> None:
    """Look at what waits."""
    async with await opened(path / "waiting") as spool:
        (path / "waiting" / "work" / ".waiting").mkdir()
        directory = os.open(path / "waiting" / "work" / ".waiting", os.O_RDONLY)
        late = time.time() + 1e6
        for number in range(entries):
            fd = os.open(f"20300101T000000.{number:09}Z-aaaaaaaa", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=directory)
            os.utime(fd, (late, late))
            os.close(fd)
        os.close(directory)
        async with spool.reader(Queue.WORK) as reader:
            began = time.perf_counter()
            with anyio.move_on_after(0.2):
                _ = await reader.dequeue_available()
            late_by = time.perf_counter() - began - 0.2
            began = time.perf_counter()
            _ = (await reader.dequeue_available()).unwrap()
            seconds = time.perf_counter() - began
    print(f"{entries:8} waiting: cancelled after {late_by * 1e3:.0f} ms, looked at in {seconds:.1f} s", flush=True)


CASES = {"readers": (readers, 20_000), "idle": (idle, 200), "queues": (queues, 50), "waiting": (waiting, 1_000_000)}


def main() -> None:
    """Run the cases."""
    parser = argparse.ArgumentParser(description="Many readers, many queues, many entries that wait.")
    _ = parser.add_argument("--directory", default=tempfile.gettempdir(), help="on the file system to measure")
    _ = parser.add_argument("--case", action="append", choices=list(CASES), help="only this one; may be repeated")
    _ = parser.add_argument("--entries", type=int, help="of each case")
    _ = parser.add_argument("--backend", choices=["trio", "asyncio"], default="trio")
    options = parser.parse_args()
    print(f"{machine(options.directory)}, {options.backend}")
    for case in options.case or CASES:
        work, entries = CASES[case]
        with tempfile.TemporaryDirectory(prefix="multispool-benchmark-", dir=options.directory) as folder:
            anyio.run(partial(work, Path(folder), options.entries or entries), backend=options.backend)


if __name__ == "__main__":
    main()

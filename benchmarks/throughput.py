"""Entries per second that one process enqueues, and checks out and removes, with 1 task and with 64.

    python benchmarks/throughput.py [--directory DIRECTORY] [--durability power|process]

Each row is measured in several rounds, each in a new spool: a number of entries is enqueued, shared among the tasks,
and then a pool of as many handlers checks all of them out and removes them. The clock runs from the first task's start
to the last one's end. One round before is not counted. Shown are the median of the rounds, the slowest and the fastest.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from typing import TYPE_CHECKING

import trio
from common import DATA, NOTES, Note, Queue, described, machine

from trio_multispool import Durability, Remove, Spool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_multispool import DataFile

TASKS = (1, 64)


async def timed(tasks: int, work: Callable[[], Awaitable[None]]) -> float:
    """Run `work` in so many tasks; return how long they took together, in seconds."""
    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(work)
    return time.perf_counter() - began


async def measure(directory: str, durability: Durability, tasks: int, entries: int) -> tuple[float, float]:
    """Run one round; return how many entries per second were enqueued, and checked out and removed."""
    with tempfile.TemporaryDirectory(dir=directory, prefix="multispool-benchmark-") as folder:
        async with (await Spool.create(f"{folder}/spool", NOTES, durability=durability)).unwrap() as spool:
            numbers, removed = iter(range(entries)), 0

            async def enqueue() -> None:
                for number in numbers:  # all tasks draw from one iterator
                    (await spool.enqueue(Queue.WORK, Note(number), DATA)).unwrap()

            async def remove(_note: Note, _data: DataFile[bytes]) -> Remove:
                nonlocal removed
                removed += 1
                return Remove()

            enqueueing = await timed(tasks, enqueue)
            began = time.perf_counter()
            async with spool.reader(Queue.WORK) as reader:
                (await reader.iter_available(remove, concurrency=tasks)).unwrap()
            removing = time.perf_counter() - began
            if removed != entries:
                raise RuntimeError(f"{removed} of {entries} entries were removed")
    return entries / enqueueing, entries / removing


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description="Measure how many entries per second one process works off.")
    parser.add_argument("--directory", default=tempfile.gettempdir(), help="make the spools in here")
    parser.add_argument("--durability", choices=[level.value for level in Durability], default=Durability.POWER.value)
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count, for each row (5)")
    parser.add_argument("--entries", type=int, default=2000, help="entries a round; for 1 task a quarter (2000)")
    arguments = parser.parse_args()
    durability = Durability(arguments.durability)

    print(
        f"{machine(arguments.directory)}, "
        f"durability {durability.value}, {len(DATA)} bytes of data, {arguments.rounds} rounds"
    )
    print()
    print("tasks  entries  enqueued per second          checked out and removed per second")
    for tasks in TASKS:
        entries = max(arguments.entries // (4 if tasks == 1 else 1), tasks)
        rounds = [
            trio.run(measure, arguments.directory, durability, tasks, entries) for _ in range(arguments.rounds + 1)
        ][1:]
        enqueued, removed = map(list, zip(*rounds, strict=True))
        print(f"{tasks:5}  {entries:7}  {described(enqueued):27}  {described(removed)}", flush=True)


if __name__ == "__main__":
    main()

"""How soon a waiting reader has an entry that another process enqueued, and what waiting costs.

    python benchmarks/waking.py [--directory DIRECTORY] [--entries 300] [--rounds 5] [--backend trio|asyncio]

Latency: a producer process enqueues an entry now and then, and prints the time at which `enqueue` returned; this
process waits in a reader and takes the time at which it has the job. Both read the system's monotonic clock. The time
can be negative: the reader is woken by the rename, and `enqueue` returns after the last sync. Shown are the median
and the 99th percentile of each round, and of these the median, the least and the most.

Idle: the CPU time that the process takes while one reader waits for an empty queue, as a share of one CPU.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import time

import anyio
from common import DATA, NOTES, Note, Queue, file_system

from trio_multispool import Durability, Spool

PAUSE = 0.01
"""Between two entries, in seconds: long enough that the reader waits again."""

IDLE = 20.0
"""How long the idle reader is watched, in seconds."""


async def produce(path: str, durability: Durability, entries: int) -> None:
    """Be the other process."""
    spool = (await Spool.load(path, NOTES, durability=durability)).unwrap()
    for number in range(entries):
        await anyio.sleep(PAUSE)
        _ = (await spool.enqueue(Queue.WORK, Note(number), DATA)).unwrap()
        print(time.monotonic_ns(), flush=True)


async def latencies(directory: str, durability: Durability, entries: int) -> list[float]:
    """Run one round; return each entry's latency in milliseconds, sorted."""
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        spool = (await Spool.create(f"{folder}/spool", NOTES, durability=durability)).unwrap()
        command = [sys.executable, __file__, "--produce", str(spool.path), "--entries", str(entries)]
        had: list[int] = []
        async with spool.reader(Queue.WORK) as reader:
            process = await anyio.open_process([*command, "--durability", durability.value], stderr=None)
            async for job in reader:
                had.append(time.monotonic_ns())
                async with job:
                    (await job.remove()).unwrap()
                if len(had) == entries:
                    reader.stop()
        assert process.stdout is not None
        printed = b"".join([chunk async for chunk in process.stdout])
        await process.wait()
        spool.close()
    returned = [int(line) for line in printed.split()]
    return sorted((job - enqueue) / 1e6 for job, enqueue in zip(had, returned, strict=True))


async def idle(directory: str) -> float:
    """Return the share of one CPU that a waiting reader takes, in per cent."""
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        spool = (await Spool.create(f"{folder}/spool", NOTES)).unwrap()
        async with spool.reader(Queue.WORK) as reader, anyio.create_task_group() as tasks:
            tasks.start_soon(reader.dequeue)
            await anyio.sleep(1)
            before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
            await anyio.sleep(IDLE)
            after, took = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - began
            reader.stop()
        spool.close()
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / took * 100


def shown(values: list[float]) -> str:
    """Return the median, and from where to where the values go."""
    return f"{statistics.median(values):6.2f}   ({min(values):.2f} to {max(values):.2f})"


async def measure(options: argparse.Namespace) -> None:
    """Measure everything, and print it."""
    durability = Durability(options.durability)
    rounds = [await latencies(options.directory, durability, options.entries) for _ in range(options.rounds + 1)][1:]
    on = file_system(options.directory)
    print(f"{options.backend}, {durability.value}, on {on}, {options.rounds} x {options.entries} entries")
    print(f"wake-up, median           ms {shown([found[len(found) // 2] for found in rounds])}")
    print(f"wake-up, 99th percentile  ms {shown([found[len(found) * 99 // 100] for found in rounds])}")
    print(f"waiting reader, share of a CPU  {await idle(options.directory):.3f} %")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    _ = parser.add_argument("--directory", default=tempfile.gettempdir(), help="on the file system to measure")
    _ = parser.add_argument("--durability", default="power", choices=[level.value for level in Durability])
    _ = parser.add_argument("--entries", type=int, default=300, help="a round")
    _ = parser.add_argument("--rounds", type=int, default=5)
    _ = parser.add_argument("--backend", default="trio", choices=["trio", "asyncio"])
    _ = parser.add_argument("--produce", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.produce:
        anyio.run(produce, options.produce, Durability(options.durability), options.entries, backend=options.backend)
    else:
        anyio.run(measure, options, backend=options.backend)


if __name__ == "__main__":
    main()

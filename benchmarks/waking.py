"""How soon a waiting reader has an entry that another process enqueued, and what waiting costs.

    python benchmarks/waking.py [--directory DIRECTORY] [--backend trio|asyncio|bare] [--entries 200] [--rounds 7]

Latency: a producer process enqueues one entry at a time, and this process waits for it in a reader. Only true wake-ups
are measured: the producer begins an entry when the reader has told, by a byte on a pipe, that it waits again, and after
a pause. The time ends where the reader's user has the job, and begins, on the same monotonic clock of the system, at

- the rename: the moment before the system call that puts the entry into its queue, which is what wakes the reader; and
- the return: the moment at which `enqueue` has returned. Its thread has to come back to the event loop first and, at
  level `power`, syncs the queue before, while the reader has the entry already: so this time can be below zero, the
  more so the slower the disk is.

Shown are the median and the 99th percentile of a round's entries: of each, the median over the rounds, the least and
the most. The rounds of the two levels take turns, and one of each before is not counted. With the short pause that is
the default, few wake-ups include a look for entries of dead owners, which a reader does once a second at most; with
`--pause 1.1` all do.

`--backend bare` measures what the kernel alone takes: in the place of the reader stands a loop that blocks in the read
of an inotify instance, lists the queue and renames what it finds. The producer is the same, on Trio.

Waiting: the CPU time that this process takes while one reader in it waits for an empty queue, as a share of one CPU:
the median of several samples, the least and the most.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, NamedTuple

import anyio
from common import DATA, NOTES, Note, Queue, machine

from trio_multispool import Durability, Spool
from trio_multispool.session.changes import Changes
from trio_multispool.storage.directory.disk.syscalls import SystemCalls

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

IN_MOVED_TO = 0x80

SAMPLE = 10.0
"""How long a sample of an idle reader takes, in seconds: one that is told of changes looks again every ten."""


class Latencies(NamedTuple):
    """What the entries of one round took, in milliseconds, each sorted."""

    since_rename: list[float]
    since_return: list[float]


class Watched(SystemCalls):
    """The producer's system calls, and when it last began to move something: the only move of an enqueue commits it."""

    moved = 0

    def move(self, name: str, directory: int, new_name: str, new_directory: int) -> None:
        """Look at the clock before."""
        self.moved = time.monotonic_ns()
        super().move(name, directory, new_name, new_directory)


async def produce(path: str, durability: Durability, entries: int, pause: float) -> None:
    """Be the other process; print at the end when each entry was renamed, and when its `enqueue` returned."""
    calls = Watched()
    spool = (await Spool.load(path, NOTES, durability=durability, system_calls=calls)).unwrap()
    lines: list[str] = []
    for number in range(entries):
        if not os.read(sys.stdin.fileno(), 1):  # blocks: there is nothing else to do
            sys.exit("the reader has gone")
        await anyio.sleep(pause)
        _ = (await spool.enqueue(Queue.WORK, Note(number), DATA)).unwrap()
        lines.append(f"{calls.moved} {time.monotonic_ns()}")
    print("\n".join(lines))


@contextlib.contextmanager
def calling_before_each_wait(tell: Callable[[], Awaitable[None]]) -> Generator[None]:
    """Have the readers of this process call `tell` when they have looked in vain, and begin to wait for a change."""
    wait = Changes.wait

    async def telling(activity: Changes, queue: str, seen: int, timeout: float) -> None:  # noqa: ASYNC109  # as it has
        await tell()
        await wait(activity, queue, seen, timeout)

    Changes.wait = telling
    try:
        yield
    finally:
        Changes.wait = wait


def producer_of(options: argparse.Namespace, durability: Durability, path: str) -> list[str]:
    """Return the command that starts the other process."""
    command = [sys.executable, __file__, "--produce", durability.value, "--directory", path]
    return [*command, "--entries", str(options.entries), "--pause", str(options.pause), "--backend", options.backend]


def latencies(had: list[int], printed: bytes) -> Latencies:
    """Compare when each entry was had with what the producer has printed."""
    times = [tuple(map(int, line.split())) for line in printed.splitlines()]
    since_rename, since_return = (
        sorted((job - began) / 1e6 for job, began in zip(had, column, strict=True))
        for column in zip(*times, strict=True)
    )
    return Latencies(since_rename, since_return)


async def wake(options: argparse.Namespace, durability: Durability) -> Latencies:
    """Run one round."""
    with tempfile.TemporaryDirectory(dir=options.directory, prefix="multispool-benchmark-") as folder:
        path = f"{folder}/spool"
        spool = (await Spool.create(path, NOTES, durability=durability)).unwrap()
        if options.backend == "bare":
            spool.close()
            return wake_bare(options.entries, producer_of(options, durability, path), f"{path}/{Queue.WORK.value}")
        had: list[int] = []
        told = 0

        async def tell() -> None:
            nonlocal told
            if told == len(had):  # else it waits for the lock of the entry that has woken it
                told += 1
                await producer.stdin.send(b".")

        producer = await anyio.open_process(producer_of(options, durability, path), stderr=None)
        async with producer, spool.reader(Queue.WORK) as reader:
            with calling_before_each_wait(tell):
                async for job in reader:
                    had.append(time.monotonic_ns())
                    async with job:
                        (await job.remove()).unwrap()
                    if len(had) == options.entries:
                        reader.stop()
            printed = b"".join([chunk async for chunk in producer.stdout])
        spool.close()
    return latencies(had, printed)


def wake_bare(entries: int, command: list[str], queue: str) -> Latencies:
    """Run one round without the library on the reader's side."""
    libc = ctypes.CDLL(None, use_errno=True)
    inotify = libc.inotify_init1(0)
    if inotify < 0 or libc.inotify_add_watch(inotify, os.fsencode(queue), IN_MOVED_TO) < 0:
        raise OSError(ctypes.get_errno(), "inotify")
    had: list[int] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as producer:
        while len(had) < entries:
            _ = os.write(producer.stdin.fileno(), b".")
            _ = os.read(inotify, 4096)
            for name in os.listdir(queue):  # noqa: PTH208  # as little as can be
                if not name.startswith("."):
                    os.rename(f"{queue}/{name}", f"{queue}/.checkout/{name}")  # noqa: PTH104
                    had.append(time.monotonic_ns())
        printed = producer.stdout.read()
    os.close(inotify)
    return latencies(had, printed)


async def idle(options: argparse.Namespace) -> list[float]:
    """Return the share of one CPU that a waiting reader takes, in per cent, several times."""
    samples: list[float] = []
    with tempfile.TemporaryDirectory(dir=options.directory, prefix="multispool-benchmark-") as folder:
        spool = (await Spool.create(f"{folder}/spool", NOTES)).unwrap()
        async with spool.reader(Queue.WORK) as reader, anyio.create_task_group() as tasks:
            tasks.start_soon(reader.dequeue)
            await anyio.sleep(1)  # until it waits
            for _ in range(options.samples):
                before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
                await anyio.sleep(SAMPLE)
                after, took = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - began
                used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                samples.append(used / took * 100)
            reader.stop()
        spool.close()
    return samples


def shown(values: list[float], digits: int) -> str:
    """Return the median, and from where to where the values go."""
    median, least, most = (f"{value:.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
    return f"{median:>7}  ({least} to {most})"


def percentile(ordered: list[float], share: int) -> float:
    """Return the value below which so many per cent of them lie."""
    return ordered[len(ordered) * share // 100]


async def measure(options: argparse.Namespace) -> None:
    """Measure everything, and print it."""
    if options.json:
        took = await wake(options, Durability(options.level))
        found = {f"p{share}": percentile(took.since_return, share) for share in (50, 99)}
        found |= {f"rename p{share}": percentile(took.since_rename, share) for share in (50, 99)}
        if options.backend != "bare":
            found["idle"] = (await idle(options))[0]
        print(json.dumps(found))
        return
    print(f"{machine(options.directory)}, {options.backend}")
    print(f"{options.rounds} rounds of {options.entries} entries, {options.pause} s after the reader waits")
    turns = [{level: await wake(options, level) for level in Durability} for _ in range(options.rounds + 1)][1:]
    print(f"\n{'wake-up, in ms':24}{'median':28}99th percentile")
    for level in Durability:
        for since in Latencies._fields:
            rounds = [getattr(turn[level], since) for turn in turns]
            columns = [shown([percentile(found, share) for found in rounds], 2) for share in (50, 99)]
            print(f"{level.value:8}{since.replace('_', ' the '):16}{columns[0]:28}{columns[1]}")
    if options.backend != "bare":
        print(f"\nwaiting, % of one CPU   {shown(await idle(options), 3)}, {options.samples} samples of {SAMPLE:.0f} s")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure how soon a waiting reader has an entry, and what it costs.")
    _ = parser.add_argument("--directory", default=tempfile.gettempdir(), help="make the spools in here")
    _ = parser.add_argument("--backend", choices=["trio", "asyncio", "bare"], default="trio")
    _ = parser.add_argument("--rounds", type=int, default=7, help="rounds that count, for each level (7)")
    _ = parser.add_argument("--entries", type=int, default=200, help="a round (200)")
    _ = parser.add_argument("--pause", type=float, default=0.01, help="before each entry, in seconds (0.01)")
    _ = parser.add_argument("--samples", type=int, default=5, help="of the idle reader (5)")
    _ = parser.add_argument("--json", action="store_true", help="measure once, since the return, and print JSON")
    _ = parser.add_argument(
        "--level", choices=[level.value for level in Durability], default="process", help="for --json"
    )
    _ = parser.add_argument("--produce", help=argparse.SUPPRESS)
    options = parser.parse_args()
    library = "trio" if options.backend == "bare" else options.backend
    if options.produce:
        level = Durability(options.produce)
        anyio.run(produce, options.directory, level, options.entries, options.pause, backend=library)
    else:
        anyio.run(measure, options, backend=library)


if __name__ == "__main__":
    main()

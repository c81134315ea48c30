"""Count the false alarms: check a healthy spool a thousand times, while producers and workers use it at full speed.

Nobody dies and nothing is damaged, so there is nothing to report; whatever is reported is printed, and counted. All
entries are enqueued, moved once or twice, with new metadata or new data or neither, and removed.

    python benchmarks/false_alarms.py --runs 1000 --producers 4 --workers 4
"""

from __future__ import annotations

import argparse
import enum
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import trio
from common import machine

from trio_multispool import DataFile, Durability, Release, Remove, Save, Spool, Spoolable, Use, Verdict
from trio_multispool.monitor import Limits, Monitor

BACKLOG = 300
"""Producers pause while more is waiting: workers are to find something, and checks are not to get slower and slower."""


class Queue(enum.Enum):
    """The queues."""

    NEW = "new"
    DONE = "done"


class Note(msgspec.Struct):
    """The metadata."""

    number: int
    turns: int = 0


NOTES = Spoolable(queues=Queue, metadata=Note, data=bytes)


_done = [0]
"""How many calls of `enqueue`, or verdicts, this process has come to."""


async def produce(spool: Spool[Queue, Note, bytes], seed: int) -> None:
    """Enqueue, one by one, several at once, and under names that come again and again."""
    number = 0
    while True:
        note = Note(number)
        match (number + seed) % 3:
            case 0:
                (await spool.enqueue(Queue.NEW, note, b"x" * (number % 4096))).unwrap()
            case 1:
                for answer in await spool.enqueue_many(Queue.NEW, [(note, b"x")] * 5):
                    _ = answer.unwrap()
            case _:  # the name may be taken
                _ = await spool.enqueue(Queue.NEW, note, b"x", name=Use(f"again-{number % 50}"))
        number += 1
        _done[0] += 1
        if number % 20 == 0:
            while len((await spool.entries(Queue.NEW)).unwrap()) > BACKLOG:  # noqa: ASYNC110  # nobody could set one
                await trio.sleep(0.01)


async def handle(note: Note, data: DataFile[bytes]) -> Verdict[Queue, Note]:
    """Move an entry on, or remove it."""
    _done[0] += 1
    match note.number % 7:
        case 0 if not note.turns:
            return Save(Queue.DONE, Note(note.number, 1))
        case 1 if not note.turns:
            (await data.save(b"changed")).unwrap()
            return Save(Queue.NEW, Note(note.number, 1))
        case 2 if note.turns < 1:
            return Save(Queue.DONE, Note(note.number, 2))
        case 3 if time.time_ns() % 2:
            return Release()
        case _:
            return Remove()


async def work(spool: Spool[Queue, Note, bytes], seed: int) -> None:
    """Work off one of the queues, and every second time both in turn."""
    async with spool.reader(Queue.NEW) as new, spool.reader(Queue.DONE) as done, trio.open_nursery() as nursery:
        nursery.start_soon(_iterate, new, 1 + 3 * (seed % 2))
        nursery.start_soon(_iterate, done, 1)


async def _iterate(reader: object, concurrency: int) -> None:
    (await reader.iter(handle, concurrency=concurrency)).unwrap()  # type: ignore[attr-defined]


async def take_part(role: str, path: str, seed: int) -> None:
    """Be a producer or a worker, until standard input is closed."""
    level = Durability.POWER if seed == 0 else Durability.PROCESS
    spool = (await Spool.load(path, NOTES, durability=level)).unwrap()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce if role == "produce" else work, spool, seed)
        print("at work", flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        nursery.cancel_scope.cancel()


async def check(path: Path, runs: int, processes: list[subprocess.Popen[bytes]]) -> int:
    """Check so many times, print what is reported, and return how much that was."""
    spool = (await Spool.create(path, NOTES, durability=Durability.PROCESS)).unwrap()
    monitor = Monitor(spool, Limits(max_queue_ages=dict.fromkeys(Queue, 600)))
    alarms, began, longest = 0, time.perf_counter(), 0.0
    suspects = _Counting(monitor)
    for run in range(runs):
        started = time.perf_counter()
        for problem in (await monitor.run_once()).unwrap():
            alarms += 1
            print(f"run {run}: {problem.message}\n  {problem!r}")
        longest = max(longest, time.perf_counter() - started)
        dead = [process.args for process in processes if process.poll() is not None]
        if dead:
            print(f"died: {dead}")
            return alarms + len(dead)
    took = time.perf_counter() - began
    print(f"{runs} checks in {took:.1f} s, the longest {longest:.2f} s; {suspects.number:,} suspects looked at again")
    return alarms


class _Counting:
    """Counts the names that are looked at under their lock."""

    def __init__(self, monitor: Monitor[Queue, Note, bytes]) -> None:
        self.number = 0
        storage = monitor.spool._session.storage  # noqa: SLF001  # there is no public count
        closely = storage.look_closely

        def look_closely(*arguments: object) -> object:
            self.number += 1
            return closely(*arguments)

        storage.look_closely = look_closely


def main() -> int:
    """Start everybody, check, and count what was done meanwhile."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--producers", type=int, default=4)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--directory", help="on the file system in question; by default that of temporary files")
    parser.add_argument("--role", choices=["produce", "work"], help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        trio.run(take_part, options.role, options.directory, options.seed)
        print(_done[0])
        return 0
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        path = Path(directory, "spool")
        print(machine(directory))
        trio.run(_create, path)
        roles = [("produce", number) for number in range(options.producers)]
        roles += [("work", number) for number in range(options.workers)]
        command = [sys.executable, __file__, "--directory", str(path)]
        processes = [
            subprocess.Popen(
                [*command, f"--role={role}", f"--seed={seed}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            for role, seed in roles
        ]
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        try:
            alarms = trio.run(check, path, options.runs, processes)
        finally:
            done = [int(process.communicate()[0]) for process in processes]
        enqueued, handled = sum(done[: options.producers]), sum(done[options.producers :])
        print(f"meanwhile {enqueued:,} enqueues by {options.producers} producers, {handled:,} verdicts by", end=" ")
        print(f"{options.workers} workers: {alarms} false alarms")
    return 1 if alarms else 0


async def _create(path: Path) -> None:
    (await Spool.create(path, NOTES)).unwrap().close()


if __name__ == "__main__":
    sys.exit(main())

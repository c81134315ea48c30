"""What a queue costs in which very many entries wait: one more enqueue, the first claim, each further one, memory."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import trio

from bench.crew import environment
from bench.probes import memory, run
from bench.probes.filling import fill
from bench.systems.own import NOTES, Note, Queue
from trio_multispool import Durability, Spool

ENQUEUED = 300
CLAIMED = 300
LEFT_OUT = 50
"""So many are not counted, of either: what is new to the process takes longer."""


def measure(folder: str, *, entries: int, filled: bool = False) -> dict[str, float]:
    """Measure, with so many entries, in a process that begins when they are there."""
    if filled:
        return trio.run(_measure, f"{folder}/spool")
    fill(f"{folder}/spool", entries)
    options = f'{{"entries": {entries}, "filled": true}}'
    command = [sys.executable, "-m", "bench.probes.backlog", folder, options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment())
    sys.stdout.write(done.stdout)
    sys.exit()


async def _measure(path: str) -> dict[str, float]:
    took: dict[str, float] = {}
    async with (await Spool.load(path, NOTES, durability=Durability.PROCESS)).unwrap() as spool:
        each: list[float] = []
        for number in range(LEFT_OUT + ENQUEUED):
            began = time.perf_counter()
            _ = (await spool.enqueue(Queue.WORK, Note(number), b"x")).unwrap()
            each.append(time.perf_counter() - began)
        took["enqueue"] = statistics.median(each[LEFT_OUT:]) * 1e6

        each.clear()
        before = time.perf_counter()
        async with spool.reader(Queue.WORK) as reader:
            jobs = reader.available()
            for number in range(LEFT_OUT + CLAIMED):
                began = time.perf_counter()
                job = await anext(jobs)
                if number == 0:
                    took["first claim"] = time.perf_counter() - before
                _ = (await job.remove()).unwrap()
                each.append(time.perf_counter() - began)
        took["claim and remove"] = statistics.median(each[LEFT_OUT:]) * 1e6
        took["worst claim and remove"] = max(each[LEFT_OUT:]) * 1e6
    took["memory"] = memory()
    return took


if __name__ == "__main__":
    run(measure)

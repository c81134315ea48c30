"""What a queue on a server costs in which very many entries wait: the first claim, each further one, each enqueue."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import psycopg
import trio

from bench.probes import run
from bench.servers import settled
from bench.systems.own import NOTES, Note, Queue, location
from trio_multispool import Remove, Spool

if TYPE_CHECKING:
    from trio_multispool import DataFile, Verdict

ROUNDS = 200
TOGETHER = 20
"""So many times, one entry by itself, and 64 tasks with 64 entries each."""

TASKS = 64


def measure(url: str, *, entries: int) -> dict[str, float]:
    """Measure, with so many entries."""
    trio.run(_fill, url, entries)
    settled(url)
    return trio.run(_measure, url)


async def _fill(url: str, entries: int) -> None:
    """Make one entry, and copies of its row under earlier names: not by the library, whose time it is not."""
    async with (await Spool.create(location(url), NOTES)).unwrap() as spool:
        _ = (await spool.enqueue(Queue.WORK, Note(0), b"x" * 64)).unwrap()
    with psycopg.connect(url, autocommit=True) as connection:
        columns = [
            f'"{name}"'
            for (name,) in connection.execute(
                "SELECT column_name FROM information_schema.columns"
                " WHERE table_schema = 'bench' AND table_name = 'entry' AND column_name <> 'name'"
            )
        ]
        others = ", ".join(columns)
        _ = connection.execute(
            f"INSERT INTO bench.entry (name, {others})"
            f" SELECT '2026' || lpad(n::text, 9, '0') || '-x', {others} FROM bench.entry, generate_series(1, %s) AS n",
            (entries - 1,),
        )


async def _measure(url: str) -> dict[str, float]:
    took: dict[str, float] = {}
    async with (await Spool.load(location(url), NOTES)).unwrap() as spool:

        async def enqueue(times: int) -> None:
            for number in range(times):
                _ = (await spool.enqueue(Queue.WORK, Note(number), b"x" * 64)).unwrap()

        async with spool.reader(Queue.WORK) as reader:
            jobs = reader.available()
            began = time.perf_counter()
            job = await anext(jobs)
            took["first claim"] = (time.perf_counter() - began) * 1e3
            _ = (await job.remove()).unwrap()
            each = []
            for _ in range(ROUNDS):
                began = time.perf_counter()
                job = await anext(jobs)
                _ = (await job.remove()).unwrap()
                each.append(time.perf_counter() - began)
        took["claim and remove"] = statistics.median(each) * 1e6
        each.clear()
        for _ in range(ROUNDS):
            began = time.perf_counter()
            await enqueue(1)
            each.append(time.perf_counter() - began)
        took["enqueue"] = statistics.median(each) * 1e6
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(TASKS):
                nursery.start_soon(enqueue, TOGETHER)
        took["enqueue 64"] = (time.perf_counter() - began) / (TASKS * TOGETHER) * 1e6

        times: list[float] = []

        async def handle(_note: Note, data: DataFile[bytes]) -> Verdict:
            _ = (await data.load()).unwrap()
            times.append(time.perf_counter())
            if len(times) == TASKS * TOGETHER:
                reader.stop()
            return Remove()

        async with spool.reader(Queue.WORK) as reader:
            _ = (await reader.iter(handle, concurrency=TASKS)).unwrap()
        took["claim and remove 64"] = (times[-1] - times[TASKS]) / (len(times) - TASKS) * 1e6
    return took


if __name__ == "__main__":
    run(measure)

"""pgqueuer, as its guide to performance says: uvloop, its settings for autovacuum, a driver for each kind of work.

Enqueued is by one connection, or by a pool if there are several tasks; worked off by its worker, on a connection of its
own. Its level of durability is the default, which is the highest.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import uvloop
from pgqueuer import QueueManager
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver, PsycopgDriver
from pgqueuer.queries import Queries

from bench.systems.bare import batches
from bench.work import QUEUES, Clock, metadata_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from pgqueuer.models import Job
    from pgqueuer.ports.driver import Driver

    from bench.work import Phase, Took, Work

BATCH = 64
"""How many jobs its worker fetches at a time; with no limit to those under way, its question is the cheapest."""

POOL = 20
"""The connections of a pool, as its guide has them."""


class Worker:
    """One driver; each phase connects anew, before the clock runs."""

    def __init__(self, work: Work) -> None:
        """Make the tables, in the first process."""
        self._work = work
        self._payload = metadata_of(0) + b"x" * work.size
        self._phases: dict[Phase, Callable[[Queries, int], Awaitable[Took]]] = {
            "enqueue": self._enqueue,
            "enqueue_many": self._enqueue_many,
            "work_off": self._work_off,
        }
        if work.worker == 0:
            uvloop.run(self._install())

    def measure(self, phase: Phase, count: int, ready: Callable[[], None]) -> Took:
        """Do a phase."""
        return uvloop.run(self._run(phase, count, ready))

    async def _install(self) -> None:
        async with self._driver(1) as driver:
            queries = Queries(driver)
            await queries.install()
            await queries.optimize_autovacuum()

    async def _run(self, phase: Phase, count: int, ready: Callable[[], None]) -> Took:
        async with self._driver(self._work.tasks if phase == "enqueue" else 1) as driver:
            ready()  # blocks: nothing else is to run
            return await self._phases[phase](Queries(driver), count)

    @contextlib.asynccontextmanager
    async def _driver(self, tasks: int) -> AsyncIterator[Driver]:
        url = self._work.folder
        if self._work.system == "pgqueuer on psycopg":
            import psycopg  # noqa: PLC0415  # the other driver needs none

            async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
                yield PsycopgDriver(connection)
            return
        import asyncpg  # noqa: PLC0415  # as above

        if tasks == 1:
            connection = await asyncpg.connect(url)
            yield AsyncpgDriver(connection)
            await connection.close()
            return
        async with asyncpg.create_pool(url, min_size=POOL, max_size=POOL) as pool:
            yield AsyncpgPoolDriver(pool)

    async def _enqueue(self, queries: Queries, count: int) -> Took:
        numbers = iter(range(count))

        async def enqueue() -> None:
            for _ in numbers:  # all tasks draw from one iterator
                _ = await queries.enqueue(QUEUES[0], self._payload)

        clock = Clock()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._work.tasks):
                _ = tasks.create_task(enqueue())
        return clock.took(count)

    async def _enqueue_many(self, queries: Queries, count: int) -> Took:
        clock = Clock()
        for numbers in batches(count):
            size = len(numbers)
            _ = await queries.enqueue([QUEUES[0]] * size, [self._payload] * size, [0] * size)
        return clock.took(count)

    async def _work_off(self, queries: Queries, count: int) -> Took:
        manager, done = QueueManager(queries), 0

        @manager.entrypoint(QUEUES[0])
        async def handle(job: Job) -> None:
            nonlocal done
            assert job.payload is not None, "it comes with the job"
            done += 1
            if done == count:
                manager.shutdown.set()

        clock = Clock()
        await manager.run(batch_size=BATCH)  # returns when all is written
        return clock.took(done)


def opened(work: Work) -> Worker:
    """Open it."""
    return Worker(work)

"""procrastinate, with its connector for asyncio: jobs deferred one by one or in batches, and its worker."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import procrastinate

from bench.systems.bare import batches
from bench.work import QUEUES, Clock, metadata_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bench.work import Phase, Took, Work

CONNECTIONS = 20
CONCURRENCY = 64


class Worker:
    """An app with one task; each phase opens it anew, before the clock runs."""

    def __init__(self, work: Work) -> None:
        """Make the tables, in the first process."""
        logging.getLogger("procrastinate").setLevel(logging.ERROR)
        self._work = work
        self._payload = metadata_of(0).decode() + "x" * work.size
        self._done = 0
        self._phases: dict[Phase, Callable[[int], Awaitable[Took]]] = {
            "enqueue": self._enqueue,
            "enqueue_many": self._enqueue_many,
            "work_off": self._work_off,
        }
        connector = procrastinate.PsycopgConnector(conninfo=work.folder, min_size=4, max_size=CONNECTIONS)
        self._app = procrastinate.App(connector=connector)
        self._task = self._app.task(name="handle", queue=QUEUES[0])(self._handle)
        if work.worker == 0:
            asyncio.run(self._run(None, 0, lambda: None))

    def measure(self, phase: Phase, count: int, ready: Callable[[], None]) -> Took:
        """Do a phase."""
        return asyncio.run(self._run(phase, count, ready))

    async def _run(self, phase: Phase | None, count: int, ready: Callable[[], None]) -> Took | None:
        async with self._app.open_async():
            if phase is None:
                await self._app.schema_manager.apply_schema_async()
                return None
            ready()  # blocks: nothing else is to run
            return await self._phases[phase](count)

    async def _handle(self, payload: str) -> None:
        assert payload, "it comes with the job"
        self._done += 1

    async def _enqueue(self, count: int) -> Took:
        clock = Clock()
        for _ in range(count):
            _ = await self._task.defer_async(payload=self._payload)
        return clock.took(count)

    async def _enqueue_many(self, count: int) -> Took:
        clock = Clock()
        for numbers in batches(count):
            _ = await self._task.batch_defer_async(*({"payload": self._payload} for _ in numbers))
        return clock.took(count)

    async def _work_off(self, _count: int) -> Took:
        self._done, clock = 0, Clock()
        await self._app.run_worker_async(
            queues=[QUEUES[0]],
            wait=False,
            concurrency=CONCURRENCY,
            delete_jobs="always",
            install_signal_handlers=False,
        )
        return clock.took(self._done)


def opened(work: Work) -> Worker:
    """Open it."""
    return Worker(work)

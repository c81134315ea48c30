"""A reader, cancelled at every step of its life in turn: at none is an entry lost, doubled or left in hand."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio

from helpers.spools import Mail, make_spool, put, state_of
from trio_multispool import Durability, Remove

if TYPE_CHECKING:
    from pathlib import Path

    from trio_multispool import Spool

BY_HAND = ["1", "2"]
BY_HANDLER = ["3", "4", "5"]

POOLS = pytest.mark.parametrize(("concurrency", "prefetch"), [(1, 0), (2, 0), (1, 2), (2, 2)])


class _Life:
    """What a program did with its entries, as far as it was told."""

    def __init__(self, spool: Spool[Any, Any, Any, Any], concurrency: int, prefetch: int) -> None:
        self.spool, self.concurrency, self.prefetch = spool, concurrency, prefetch
        self.saved: list[str] = []
        self.handled: list[str] = []

    async def live(self) -> None:
        """Wait for entries and settle them by hand, then have a pool do it."""
        async with self.spool.reader(Mail.SEND) as reader:
            async for job in reader:
                async with job:
                    (await job.data.load()).unwrap()
                    (await job.save(Mail.FAILED)).unwrap()
                    self.saved.append(job.name)
                if len(self.saved) == len(BY_HAND):
                    reader.stop()
        async with self.spool.reader(Mail.RETRY) as reader:
            await reader.iter_available(self.handle, concurrency=self.concurrency, prefetch=self.prefetch)

    async def handle(self, _metadata: Any, data: Any) -> Any:
        """Be a handler."""
        await anyio.lowlevel.checkpoint()
        self.handled.append(data.name)
        return Remove()

    def check(self) -> bool:
        """Hold what is on disk against what the program was told; tell whether it came to its end."""
        state = state_of(self.spool.path)
        assert state.faults() == []
        assert not any(state.checked_out.values())
        assert set(state.names("send")) | set(state.names("failed")) == set(BY_HAND)
        assert set(self.saved) <= set(state.names("failed"))
        gone = set(BY_HANDLER) - set(state.names("retry"))
        assert gone <= set(self.handled), "removed although no handler said so"
        return gone == set(BY_HANDLER)


async def _prepared(path: Path, concurrency: int, prefetch: int) -> _Life:
    spool = await make_spool(path, durability=Durability.PROCESS)
    await put(spool, Mail.SEND, *BY_HAND)
    await put(spool, Mail.RETRY, *BY_HANDLER)
    return _Life(spool, concurrency, prefetch)


class _CancelAt(trio.abc.Instrument):
    """Cancels a scope right before the n-th step of any task."""

    def __init__(self, scope: trio.CancelScope, steps: int) -> None:
        self.scope, self.left = scope, steps

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self.scope.cancel()


@POOLS
async def test_a_reader_cancelled_at_any_checkpoint_of_trio_loses_nothing(
    concurrency: int, prefetch: int, tmp_path: Path
) -> None:
    """For every n: cancelled at the n-th step, every unsettled entry is in its queue, and nothing is checked out."""
    steps = 0
    finished = False
    while not finished:
        steps += 1
        life = await _prepared(tmp_path / f"{steps}", concurrency, prefetch)
        with trio.CancelScope() as scope:
            instrument = _CancelAt(scope, steps)
            trio.lowlevel.add_instrument(instrument)
            try:
                await life.live()
            finally:
                trio.lowlevel.remove_instrument(instrument)
        finished = life.check() and not scope.cancelled_caught
        assert not life.spool._core.activity._waiters
        assert not life.spool._core._settlements._pending
        assert life.spool._core._settlements._leader is None
        life.spool.close()
    assert steps > 50


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@POOLS
async def test_a_reader_cancelled_at_any_step_of_asyncio_loses_nothing(
    anyio_backend: str, concurrency: int, prefetch: int, tmp_path: Path
) -> None:
    """The same by `Task.cancel()`, after every number of turns of the event loop."""
    turns = 0
    finished = False
    while not finished:
        turns += 1
        life = await _prepared(tmp_path / f"{turns}", concurrency, prefetch)
        task = asyncio.ensure_future(life.live())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        finished = life.check() and not task.cancelled()
        life.spool.close()

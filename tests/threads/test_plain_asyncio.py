"""A program on plain asyncio that ends while readers are at work: `asyncio.run` cancels all tasks, begun or not.

Nobody then starts a new task, or waits for one: what is in hand has to go back in the task that is being cancelled.
"""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import pytest

from helpers.gates import breathe
from helpers.loops import LOOPS, run_plainly
from helpers.spools import Mail, put, quick_spool, state_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from helpers.spools import Location

NAMES = ["1", "2", "3", "4", "5", "6"]


async def jobs_without_blocks(reader: Any, busy: asyncio.Event) -> None:
    """Have several jobs in hand, with no block around any."""
    for _ in range(3):
        assert (await reader.dequeue()).unwrap() is not None
    busy.set()
    await asyncio.Event().wait()


async def a_job_in_its_block(reader: Any, busy: asyncio.Event) -> None:
    """Have a job in its block, and another without."""
    assert (await reader.dequeue()).unwrap() is not None
    async with (await reader.dequeue()).unwrap():
        busy.set()
        await asyncio.Event().wait()


def iterating(**options: int) -> Callable[[Any, asyncio.Event], Awaitable[None]]:
    """Have handlers at work that do not end."""
    concurrency = options.get("concurrency", 1)

    async def iterate(reader: Any, busy: asyncio.Event) -> None:
        begun = 0

        async def handler(_metadata: Any, _data: Any) -> Any:
            nonlocal begun
            begun += 1
            if begun == concurrency:
                busy.set()
            await asyncio.Event().wait()

        await reader.iter(handler, **options)

    return iterate


WAYS = {
    "jobs without blocks": (jobs_without_blocks, 3),
    "a job in its block": (a_job_in_its_block, 2),
    "a handler": (iterating(), 1),
    "a pool": (iterating(concurrency=3), 3),
    "prefetched": (iterating(prefetch=2), 3),
    "a pool that prefetches": (iterating(concurrency=2, prefetch=3), 5),
}


@pytest.mark.sample
@pytest.mark.parametrize("cancelled", ["by its end", "and at once ends", "and ends a turn later"])
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("way", WAYS)
def test_a_program_that_ends_returns_what_its_tasks_have_in_hand(
    way: str, loop: str, cancelled: str, place: Location
) -> None:
    """Every entry is back in its queue, whether the program cancels the task itself or not, and nothing is warned."""
    read, in_hand = WAYS[way]

    async def main() -> Any:
        spool = await quick_spool(place)
        await put(spool, Mail.SEND, *NAMES)
        busy = asyncio.Event()

        async def work() -> None:
            async with spool.reader(Mail.SEND) as reader:
                await read(reader, busy)

        task = asyncio.create_task(work())
        await busy.wait()
        while len(state_of(spool.location).checked_out["send"]) < in_hand:
            await breathe()
        if cancelled != "by its end":
            task.cancel()
        if cancelled == "and ends a turn later":
            await asyncio.sleep(0)
        return spool  # still open

    spool = run_plainly(main, loop)
    state = state_of(spool.location)
    assert (state.names("send"), state.checked_out["send"], state.faults()) == (NAMES, {}, [])
    spool.close()
    gc.collect()  # a coroutine that nobody awaited is a warning by now, and that fails the test

"""What a cancellation was told is not lost when asyncio cancels the task again, while it is leaving a block."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from helpers.spools import ANNE, MAIL, Mail, make_spool, put
from trio_multispool import Spool, Use
from trio_multispool.testing import memory_spool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

STEPS = 8
"""After how many steps of the event loop, at most, the second cancellation comes."""


@contextlib.asynccontextmanager
async def job(spool: Any) -> AsyncIterator[None]:
    """Put the entry back at the end."""
    [entry] = await put(spool, Mail.SEND, "one")
    async with (await entry.checkout()).unwrap():
        yield


@contextlib.asynccontextmanager
async def settled_job(spool: Any) -> AsyncIterator[None]:
    """Have nothing left to do at the end."""
    [entry] = await put(spool, Mail.SEND, "one")
    async with (await entry.checkout()).unwrap() as job:
        (await job.remove()).unwrap()
        yield


@contextlib.asynccontextmanager
async def data_as_a_file(spool: Any) -> AsyncIterator[None]:
    """Close the file at the end, or delete the copy."""
    [entry] = await put(spool, Mail.SEND, "one")
    async with entry.direct.data_file.as_file():
        yield


@contextlib.asynccontextmanager
async def reserved_name(spool: Any) -> AsyncIterator[None]:
    """Give the name up at the end."""
    async with (await spool.reserve_name()).unwrap():
        yield


@contextlib.asynccontextmanager
async def used_name(spool: Any) -> AsyncIterator[None]:
    """Have nothing to give up."""
    async with (await spool.reserve_name()).unwrap() as reserved:
        (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(reserved))).unwrap()
        yield


@contextlib.asynccontextmanager
async def reader_with_a_job(spool: Any) -> AsyncIterator[None]:
    """Return the job at the end."""
    await put(spool, Mail.SEND, "one")
    async with spool.reader(Mail.SEND) as reader:
        assert (await reader.dequeue()).unwrap() is not None
        yield


@contextlib.asynccontextmanager
async def received(spool: Any) -> AsyncIterator[None]:
    """Return the entry at the end, as the block is cancelled."""
    await put(spool, Mail.SEND, "one")
    async with spool.channel(Mail.SEND) as (_, receive), await receive.receive():
        yield


@contextlib.asynccontextmanager
async def received_by_an_end_that_was_closed(spool: Any) -> AsyncIterator[None]:
    """Have nothing to return: that was done when the end was closed."""
    await put(spool, Mail.SEND, "one")
    async with spool.channel(Mail.SEND) as (_, receive), await receive.receive():
        await receive.aclose()
        yield


def spool_itself(spool: Any) -> Any:
    """Close it."""
    return spool


BLOCKS: list[Callable[[Any], AbstractAsyncContextManager[object]]] = [
    job,
    settled_job,
    data_as_a_file,
    reserved_name,
    used_name,
    reader_with_a_job,
    received,
    received_by_an_end_that_was_closed,
    spool_itself,
]


@pytest.mark.parametrize("kept", ["in a directory", "in memory"])
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.__name__)
async def test_a_second_cancellation_keeps_the_notes_of_the_first(
    block: Callable[[Any], AbstractAsyncContextManager[object]], kept: str, anyio_backend: str, tmp_path: Path
) -> None:
    """They may say that an effect stands; the second may come at any step at which the block is being left."""
    late = 0
    for steps in range(1, STEPS):
        entered, first = asyncio.Event(), list[BaseException]()
        spool: Spool[Any, Any, Any, Any] = memory_spool(MAIL)
        if kept == "in a directory":
            spool = await make_spool(tmp_path / f"{steps}")

        async def work(
            spool: Any = spool, entered: asyncio.Event = entered, first: list[BaseException] = first
        ) -> None:
            async with block(spool):
                entered.set()
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError as cancelled:
                    cancelled.add_note("it was already done")
                    first.append(cancelled)
                    raise

        task = asyncio.ensure_future(work())
        await entered.wait()
        _ = task.cancel()
        for _ in range(steps):
            await asyncio.sleep(0)
        _ = task.cancel()
        with pytest.raises(asyncio.CancelledError) as raised:
            await task
        assert raised.value.__notes__ == ["it was already done"]
        late += raised.value is not first[0]
        spool.close()
    assert late, "no cancellation came while the block was left"

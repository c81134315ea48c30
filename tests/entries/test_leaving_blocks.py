"""What a cancellation was told is not lost when asyncio cancels the task again, while it is leaving a block."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from helpers.gates import breathe
from helpers.spools import ANNE, MAIL, Mail, make_spool, put
from trio_multispool import Remove, Spool, Use
from trio_multispool.testing import memory_spool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

STEPS = 12
"""After how many steps of the event loop, at most, the second cancellation comes."""

Body = "Callable[[], Awaitable[None]]"


async def job(spool: Any, body: Body) -> None:
    """Put the entry back at the end."""
    [entry] = await put(spool, Mail.SEND, "one")
    async with (await entry.checkout()).unwrap():
        await body()


async def data_as_a_file(spool: Any, body: Body) -> None:
    """Close the file at the end, or delete the copy."""
    [entry] = await put(spool, Mail.SEND, "one")
    async with entry.direct.data_file.as_file():
        await body()


async def reserved_name(spool: Any, body: Body) -> None:
    """Give the name up at the end."""
    async with (await spool.reserve_name()).unwrap():
        await body()


async def used_name(spool: Any, body: Body) -> None:
    """Have nothing to give up."""
    async with (await spool.reserve_name()).unwrap() as reserved:
        (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(reserved))).unwrap()
        await body()


async def reader_with_a_job(spool: Any, body: Body) -> None:
    """Return the job at the end."""
    await put(spool, Mail.SEND, "one")
    async with spool.reader(Mail.SEND) as reader:
        assert (await reader.dequeue()).unwrap() is not None
        await body()


async def handler_of_a_reader(spool: Any, body: Body) -> None:
    """Return its job, and then the next one, which was fetched ahead."""
    await put(spool, Mail.SEND, "one", "two")
    async with spool.reader(Mail.SEND) as reader:

        async def handler(_metadata: Any, _data: Any) -> Remove:
            while len(reader._dequeuer) < 2:
                await breathe()
            await body()
            return Remove()

        await reader.iter(handler, prefetch=1)


async def received(spool: Any, body: Body) -> None:
    """Return the entry at the end, as the block is cancelled."""
    await put(spool, Mail.SEND, "one")
    async with spool.channel(Mail.SEND) as (_, receive), await receive.receive():
        await body()


async def received_by_an_end_that_was_closed(spool: Any, body: Body) -> None:
    """Have nothing to return: that was done when the end was closed."""
    await put(spool, Mail.SEND, "one")
    async with spool.channel(Mail.SEND) as (_, receive), await receive.receive():
        await receive.aclose()
        await body()


async def send_end(spool: Any, body: Body) -> None:
    """Close it."""
    async with spool.channel(Mail.SEND) as (send, _), send:
        await body()


async def receive_end(spool: Any, body: Body) -> None:
    """Return what it received and nobody acknowledged, which is in no block."""
    await put(spool, Mail.SEND, "one")
    async with spool.channel(Mail.SEND) as (_, receive), receive:
        _received = await receive.receive()
        await body()


async def spool_itself(spool: Any, body: Body) -> None:
    """Close it."""
    async with spool:
        await body()


BLOCKS = [
    job,
    data_as_a_file,
    reserved_name,
    used_name,
    reader_with_a_job,
    handler_of_a_reader,
    received,
    received_by_an_end_that_was_closed,
    send_end,
    receive_end,
    spool_itself,
]


@pytest.mark.parametrize("kept", ["in a directory", "in memory"])
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.__name__)
async def test_a_second_cancellation_keeps_the_notes_of_the_first(
    block: Callable[[Any, Body], Awaitable[None]], kept: str, anyio_backend: str, tmp_path: Path
) -> None:
    """They may say that an effect stands; the second may come at any step at which the block is being left."""
    late = 0
    for steps in range(1, STEPS):
        entered, first = asyncio.Event(), list[BaseException]()
        spool: Spool[Any, Any, Any, Any] = memory_spool(MAIL)
        if kept == "in a directory":
            spool = await make_spool(tmp_path / f"{steps}")

        async def body(entered: asyncio.Event = entered, first: list[BaseException] = first) -> None:
            entered.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError as cancelled:
                cancelled.add_note("it was already done")
                first.append(cancelled)
                raise

        task = asyncio.ensure_future(block(spool, body))
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

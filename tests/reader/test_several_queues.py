"""One reader of several queues: each gives its share, none starves, and nothing is lost."""

from __future__ import annotations

import collections
import math
from typing import Any

import anyio
import pytest

from helpers.gates import breathe
from helpers.spools import Envelope, Mail, load_spool, names_in, put, quick_spool
from trio_multispool import Release, Remove, Retry, RetryLater

pytestmark = pytest.mark.anyio

WEIGHTS = {Mail.SEND: 3, Mail.RETRY: 1}


async def filled(place: Any, number: int = 40) -> Any:
    """Make a spool with so many entries in each of two queues."""
    spool = await quick_spool(place)
    for queue in WEIGHTS:
        for result in await spool.enqueue_many(queue, [(Envelope(f"{queue.value} {n}"), b"") for n in range(number)]):
            result.unwrap()
    return spool


class Order:
    """A handler that notes the queues in the order in which it was given their entries."""

    def __init__(self) -> None:
        self.queues: list[Any] = []

    async def __call__(self, envelope: Envelope, data: Any) -> Remove:
        """Note it, and remove the entry."""
        assert data.queue.value == envelope.recipient.split()[0]
        self.queues.append(data.queue)
        return Remove()


@pytest.mark.parametrize("how", [{}, {"concurrency": 8}, {"concurrency": 4, "prefetch": 6}], ids=str)
async def test_each_queue_gives_its_share_while_all_have_entries(place, how):
    """And what is left of one comes when the others have nothing."""
    spool, order = await filled(place), Order()
    async with spool.reader(WEIGHTS) as reader:
        assert reader.queues == (Mail.SEND, Mail.RETRY)
        (await reader.iter_available(order, **how)).unwrap()
    first = collections.Counter(order.queues[:40])
    assert abs(first[Mail.SEND] - 30) <= 2
    assert collections.Counter(order.queues) == {Mail.SEND: 40, Mail.RETRY: 40}


async def test_a_queue_that_had_nothing_has_saved_nothing_up(place):
    """Else it would have all turns, and the others none, when it is filled at last."""
    spool, order = await quick_spool(place), Order()
    for result in await spool.enqueue_many(Mail.SEND, [(Envelope("send"), b"")] * 40):
        result.unwrap()
    async with spool.reader({Mail.SEND: 1, Mail.RETRY: 1}) as reader:
        for _ in range(20):
            job = (await reader.dequeue_available()).unwrap()
            (await job.remove()).unwrap()
        for result in await spool.enqueue_many(Mail.RETRY, [(Envelope("retry"), b"")] * 20):
            result.unwrap()
        (await reader.iter_available(order)).unwrap()
    assert abs(collections.Counter(order.queues[:20])[Mail.RETRY] - 10) <= 1


async def test_it_waits_for_whichever_queue_has_an_entry_first(place):
    """Until it is stopped."""
    spool, order = await quick_spool(place), Order()
    async with spool.reader(WEIGHTS) as reader, anyio.create_task_group() as tasks:

        async def iterate() -> None:
            (await reader.iter(order, concurrency=2)).unwrap()

        tasks.start_soon(iterate)
        with anyio.fail_after(60):
            for number, queue in enumerate((Mail.RETRY, Mail.SEND, Mail.RETRY), 1):
                (await spool.enqueue(queue, Envelope(queue.value), b"")).unwrap()
                while len(order.queues) < number:
                    await breathe()
            reader.stop()
    assert order.queues == [Mail.RETRY, Mail.SEND, Mail.RETRY]


async def test_what_a_limit_raises_leaves_as_it_is_also_while_all_are_waited_for(place):
    """As from a reader of one queue."""
    spool = await quick_spool(place)
    async with spool.reader(WEIGHTS, limit_by=lambda _: [], limit=1) as reader, anyio.create_task_group() as tasks:

        async def wait() -> None:
            with pytest.raises(TypeError):
                await reader.dequeue()

        tasks.start_soon(wait)
        await put(spool, Mail.RETRY, "a")
    assert await names_in(spool, Mail.RETRY) == ["a"]


async def test_one_by_one_and_by_async_for(place):
    """Each job tells its queue."""
    spool = await filled(place, 4)
    async with spool.reader(WEIGHTS) as reader:
        job = (await reader.dequeue()).unwrap()
        assert job.queue in WEIGHTS
        async with job:
            assert job.data.queue is job.queue
            (await job.remove()).unwrap()
        found = collections.Counter()
        async for job in reader.available():
            async with job:
                found[job.queue] += 1
                (await job.remove()).unwrap()
    assert sum(found.values()) == 7


async def test_what_fails_is_tried_again_in_its_own_queue_and_ends_with_its_dead_letters(place, wall):
    """The history of an entry tells in which queue each attempt was."""
    spool = await quick_spool(place, now=wall)
    await put(spool, Mail.SEND, "a")
    await put(spool, Mail.RETRY, "b")
    seen: list[tuple[str, Any]] = []

    async def fail(envelope: Envelope, data: Any) -> RetryLater:
        seen.append((envelope.recipient, data.queue))
        return RetryLater(1)

    retry = Retry(attempts=2, dead_letter=Mail.FAILED)
    async with spool.reader(WEIGHTS) as reader:
        for _ in range(2):
            (await reader.iter_available(fail, retry=retry)).unwrap()
            wall.time += 3600
        with pytest.raises(ValueError, match="must go to another queue"):
            await reader.iter(fail, retry=Retry(attempts=2, dead_letter=Mail.RETRY))
    assert sorted(seen, key=str) == sorted([("a", Mail.SEND), ("b", Mail.RETRY)] * 2, key=str)
    assert sorted(await names_in(spool, Mail.FAILED)) == ["a", "b"]
    for name, queue in (("a", "send"), ("b", "retry")):
        found = (await spool.find(name)).unwrap()
        assert {each.queue for each in found.attempts} == {queue}


async def test_leaving_returns_everything_to_where_it_was(place):
    """Also what a cancelled wait, or a fetch ahead of need, has just checked out."""
    spool = await filled(place, 5)
    async with spool.reader(WEIGHTS) as reader, anyio.create_task_group() as tasks:
        begun = anyio.Event()

        async def hang(_envelope: Envelope, _data: Any) -> Release:
            begun.set()
            await anyio.sleep_forever()
            return Release()

        async def iterate() -> None:
            await reader.iter(hang, concurrency=2, prefetch=3)

        tasks.start_soon(iterate)
        with anyio.fail_after(60):
            await begun.wait()
        tasks.cancel_scope.cancel()
    other = await load_spool(place)
    for queue in WEIGHTS:
        assert len(await names_in(other, queue)) == 5


async def test_a_paused_queue_leaves_its_share_to_the_others(place):
    """Until it is resumed."""
    spool, order = await filled(place, 6), Order()
    (await spool.pause(Mail.SEND)).unwrap()
    async with spool.reader(WEIGHTS) as reader:
        (await reader.iter_available(order)).unwrap()
    assert order.queues == [Mail.RETRY] * 6


async def test_limits_hold_for_each_queue_by_itself(place):
    """An entry of one key at a time, in each."""
    spool = await quick_spool(place)
    for queue in WEIGHTS:
        await put(spool, queue, *(f"{queue.value}-{n}" for n in range(2)))
    async with spool.reader(WEIGHTS, limit_by=lambda _: "one", limit=1) as reader:
        jobs = [(await reader.dequeue_available()).unwrap() for _ in range(3)]
        assert {job.queue for job in jobs if job is not None} == set(WEIGHTS)
        assert jobs[2] is None


async def test_what_cannot_be_meant_is_refused(place):
    """With what is wrong."""
    spool = await quick_spool(place)
    for weight in (0, -1, math.inf, math.nan):
        with pytest.raises(ValueError, match=r"weight of Mail\.SEND"):
            spool.reader({Mail.SEND: weight})
    for weight in ("3", None, True):
        with pytest.raises(TypeError, match=r"weight of Mail\.SEND"):
            spool.reader({Mail.SEND: weight})
    with pytest.raises(TypeError, match="no member"):
        spool.reader({"send": 1})
    with pytest.raises(ValueError, match="needs a queue"):
        spool.reader({})
    reader = spool.reader(WEIGHTS)
    with pytest.raises(ValueError, match="several queues"):
        _ = reader.queue
    assert "'send', 'retry'" in repr(reader)
    [entry] = await put(spool, Mail.SEND, "a")
    with pytest.raises(RuntimeError, match="in hand"):
        _ = entry.direct.data_file.queue

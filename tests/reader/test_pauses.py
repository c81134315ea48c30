"""Queues that are paused: readers take nothing new from them, and go on when that is over."""

from __future__ import annotations

import datetime

import anyio
import pytest
import trio

from helpers.gates import breathe
from helpers.spools import Envelope, Mail, load_spool, names_in, put, quick_spool
from trio_multispool import Ok, Pause, Remove, Use
from trio_multispool.session.pauses import LOOK_EVERY

SOON = 1.0
"""Within so many seconds, each reader knows of a pause and of its end."""


async def test_nothing_new_is_taken_from_a_paused_queue(place, autojump_clock):
    """By any reader of any program that has the spool open, waiting or not; and from other queues all is."""
    spool, other = await quick_spool(place), await load_spool(place)
    await put(spool, Mail.SEND, "a", "b")
    await put(spool, Mail.RETRY, "c")
    async with (
        spool.reader(Mail.SEND) as first,
        other.reader(Mail.SEND) as second,
        other.reader(Mail.RETRY) as elsewhere,
    ):
        job = (await second.dequeue_available()).unwrap()
        assert job is not None
        (await spool.pause(Mail.SEND)).unwrap()
        for _ in range(5):
            await trio.sleep(SOON)
            for reader in (first, second):
                assert (await reader.dequeue_available()).unwrap() is None
        assert (await elsewhere.dequeue_available()).unwrap() is not None
        (await job.remove()).unwrap()  # what is in hand goes on

        (await other.resume(Mail.SEND)).unwrap()
        await trio.sleep(SOON)
        job = (await first.dequeue_available()).unwrap()
        assert job is not None
        assert job.name == "b"


async def test_a_pause_ends_by_itself(place, wall, autojump_clock):
    """When its time is over, by the clock that tells what is due; a reader that waits goes on then."""
    spool = await quick_spool(place, now=wall)
    await put(spool, Mail.SEND, "a")
    made = (await spool.pause(Mail.SEND, datetime.timedelta(minutes=10), reason="the relay")).unwrap()
    assert made == Pause(wall.time, wall.time + 600, "the relay")
    assert (await spool.pauses()).unwrap() == {Mail.SEND: made}
    ended: list[float] = []
    async with spool.reader(Mail.SEND) as reader:
        assert (await reader.dequeue_available()).unwrap() is None
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                assert (await reader.dequeue()).unwrap() is not None
                ended.append(wall.time)

            nursery.start_soon(wait)
            await trio.sleep(SOON)
            assert ended == []
            wall.time += 600
        assert ended == [made.until]
    assert (await spool.pauses()).unwrap() == {}


async def test_a_pool_at_work_stops_taking_and_finishes_what_it_has(place, autojump_clock):
    """Though each settlement checks out the next entry in passing."""
    spool, operator = await quick_spool(place), await load_spool(place)
    await put(spool, Mail.SEND, *(f"{number:03}" for number in range(60)))
    done, paused = [], trio.Event()

    async def handle(envelope: Envelope, _data: object) -> Remove:
        if len(done) == 20 and not paused.is_set():
            paused.set()
            (await operator.pause(Mail.SEND)).unwrap()
            await trio.sleep(LOOK_EVERY)  # before it is time to look for the dead, which is a look too
        done.append(envelope.recipient)
        return Remove()

    async with spool.reader(Mail.SEND) as reader, trio.open_nursery() as nursery:

        async def work() -> None:
            (await reader.iter(handle, concurrency=1)).unwrap()

        nursery.start_soon(work)
        await paused.wait()
        while not done[20:] or len(await names_in(operator, Mail.SEND)) != 60 - len(done):
            await breathe()
        for _ in range(50):
            await breathe()
        assert len(done) <= 22  # the one in hand, and one that was checked out with its settlement
        (await operator.resume(Mail.SEND)).unwrap()
        while len(done) < 60:
            await breathe()
        reader.stop()


async def test_what_waits_and_what_comes_stays_where_it_is(place, wall, autojump_clock):
    """Enqueueing goes on in a pause, and what is due comes when that is over."""
    spool = await quick_spool(place, now=wall)
    (await spool.pause(Mail.SEND)).unwrap()
    _ = (await spool.enqueue(Mail.SEND, Envelope("due"), b"", name=Use("due"), not_before=60)).unwrap()
    await put(spool, Mail.SEND, "new")
    wall.time += 60
    async with spool.reader(Mail.SEND) as reader:
        assert (await reader.dequeue_available()).unwrap() is None
        (await spool.resume(Mail.SEND)).unwrap()
        names = [(await reader.dequeue()).unwrap().name for _ in range(2)]
    assert names == ["due", "new"]


async def test_an_entry_is_checked_out_by_its_name_all_the_same(place):
    """A pause is for readers."""
    spool = await quick_spool(place)
    [entry] = await put(spool, Mail.SEND, "a")
    (await spool.pause(Mail.SEND)).unwrap()
    async with (await entry.checkout()).unwrap() as job:
        (await job.remove()).unwrap()


async def test_what_cannot_be_meant_is_refused(place):
    """And the queue is not paused."""
    spool = await quick_spool(place)
    for wrong in (0, -1, float("nan"), datetime.timedelta(0)):
        with pytest.raises(ValueError, match="duration"):
            await spool.pause(Mail.SEND, wrong)
    for refused in ("10m", [1]):
        with pytest.raises(TypeError, match="duration"):
            await spool.pause(Mail.SEND, refused)
    with pytest.raises(TypeError, match="reason"):
        await spool.pause(Mail.SEND, reason=7)
    for act in (spool.pause, spool.resume):
        with pytest.raises(TypeError, match="no member"):
            await act("send")
    assert (await spool.pauses()) == Ok({})


async def test_a_cancelled_pause_did_not_happen(place):
    """Nor a resumption."""
    spool = await quick_spool(place)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await spool.pause(Mail.SEND)
    assert (await spool.pauses()) == Ok({})
    (await spool.pause(Mail.SEND)).unwrap()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await spool.resume(Mail.SEND)
    assert [*(await spool.pauses()).unwrap()] == [Mail.SEND]

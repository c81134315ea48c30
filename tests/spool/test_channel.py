"""A durable channel: two object streams over a queue, where nothing is lost between `send` and acknowledging."""

from __future__ import annotations

import asyncio
import errno
from typing import Any

import anyio
import anyio.abc
import pytest
import trio
import trio.testing

from helpers.calls import FailingCalls
from helpers.children import Child
from helpers.gates import Gate
from helpers.spools import ANNE, BERT, Mail, names_in, put, quick_spool, state_of
from trio_multispool import (
    ChannelAttribute,
    CorruptData,
    DurabilityUnknown,
    OutOfSpace,
    Spoolable,
    StorageFailure,
    TooManyOpenFiles,
)
from trio_multispool.spool.channel_ends import ROOM_INTERVAL

on_both = pytest.mark.anyio
MESSAGE = (ANNE, b"Hello")


async def wait_until_waiting(stream: Any, *, send: int = 0, receive: int = 0) -> None:
    """Wait until so many tasks are in the ends of a channel."""
    while True:
        found = stream.statistics()
        if (found.tasks_waiting_send, found.tasks_waiting_receive) == (send, receive):
            return
        await anyio.lowlevel.checkpoint()


# What goes through


@pytest.mark.sample
@on_both
async def test_what_is_sent_is_received_and_gone_once_it_is_acknowledged(place):
    """In order, with metadata and data; at rest, nothing is left on disk."""
    async with await quick_spool(place) as spool, spool.channel(Mail.SEND) as (send, receive):
        assert isinstance(send, anyio.abc.ObjectSendStream)
        assert isinstance(receive, anyio.abc.ObjectReceiveStream)
        await send.send((ANNE, b"one"))
        await send.send((BERT, b"two"))
        found = []
        async for received in receive:
            async with received:
                assert received.name == received.data.name
                found.append((received.metadata, (await received.data.load()).unwrap()))
            if len(found) == 2:
                break
        assert found == [(ANNE, b"one"), (BERT, b"two")]
        assert state_of(place).entries() == set()
        assert state_of(place).faults() == []


@on_both
async def test_what_was_sent_survives_the_channel(place):
    """It waits on disk for a channel of another time."""
    async with await quick_spool(place) as spool, spool.channel(Mail.SEND) as (send, _):
        await send.send(MESSAGE)
    async with await quick_spool(place) as spool, spool.channel(Mail.SEND) as (_, receive):
        async with await receive.receive() as received:
            assert received.metadata == ANNE
        assert await names_in(spool, Mail.SEND) == []


@on_both
async def test_what_others_enqueue_is_received_too(place):
    """A channel's messages are entries like all others."""
    async with await quick_spool(place) as spool, spool.channel(Mail.SEND) as (send, receive):
        await put(spool, Mail.SEND, "0")
        await send.send(MESSAGE)
        assert (await receive.receive()).name == "0"
        assert len(await names_in(spool, Mail.SEND)) == 1


def echo(parent, path) -> None:
    """Send back what is received, to another queue, and do not acknowledge the last one: be killed with it."""
    import anyio

    from helpers.spools import Mail, load_spool

    async def main() -> None:
        async with (
            await load_spool(path) as spool,
            spool.channel(Mail.SEND) as (_, receive),
            spool.channel(Mail.RETRY) as (back, _),
        ):
            parent.say("ready")
            async for received in receive:
                async with received:
                    await back.send((received.metadata, (await received.data.load()).unwrap().upper()))
                    if received.metadata.recipient == "last":
                        parent.say("last")
                        parent.hear()

    anyio.run(main, backend="trio")


@on_both
async def test_two_processes_talk_through_channels_and_a_killed_one_loses_nothing(place):
    """What was acknowledged is gone, and what a killed process had received is received again."""
    async with (
        await quick_spool(place) as spool,
        spool.channel(Mail.SEND) as (send, receive),
        spool.channel(Mail.RETRY) as (_, answers),
    ):
        with Child(echo, place) as child:
            assert child.hear() == ["ready"]
            await send.send((ANNE, b"hello"))
            await send.send((type(ANNE)("last"), b"bye"))
            for expected in (b"HELLO", b"BYE"):
                async with await answers.receive() as answer:
                    assert (await answer.data.load()).unwrap() == expected
            assert child.hear() == ["last"]
            child.kill()
        async with await receive.receive() as again:
            assert again.metadata.recipient == "last"
        assert state_of(place).faults() == []


# Acknowledging


@on_both
async def test_receiving_acknowledges_nothing(place):
    """What was received and never entered is in its queue after the channel."""
    async with await quick_spool(place) as spool:
        async with spool.channel(Mail.SEND) as (send, receive):
            await send.send(MESSAGE)
            received = await receive.receive()
            assert receive.statistics().unacknowledged == 1
            assert await names_in(spool, Mail.SEND) == []
        assert await names_in(spool, Mail.SEND) == [received.name]
        with pytest.raises(anyio.ClosedResourceError, match="was returned"):
            await received.__aenter__()


@on_both
async def test_a_block_that_raises_returns_what_was_received(place):
    """The exception leaves as the same object, and the message is received again."""
    error = ValueError("no")
    async with await quick_spool(place) as spool, spool.channel(Mail.SEND) as (send, receive):
        await send.send(MESSAGE)
        received = await receive.receive()
        with pytest.raises(ValueError, match="no") as raised:
            async with received:
                raise error
        assert raised.value is error
        assert not hasattr(error, "__notes__")
        assert receive.statistics().unacknowledged == 0
        again = await receive.receive()
        assert again.name == received.name
        assert again is not received


@on_both
async def test_a_block_that_is_cancelled_returns_what_was_received(place):
    """Also if the cancellation came before the block began."""
    async with await quick_spool(place) as spool, spool.channel(Mail.SEND) as (send, receive):
        await send.send(MESSAGE)
        received = await receive.receive()
        with anyio.CancelScope() as scope:
            scope.cancel()
            async with received:
                await anyio.sleep_forever()
        assert await names_in(spool, Mail.SEND) == [received.name]


@on_both
async def test_a_block_that_ended_normally_acknowledges_though_it_is_cancelled_by_then(place):
    """Work that was done is not done again because of a cancellation that came after it."""
    async with await quick_spool(place) as spool, spool.channel(Mail.SEND) as (send, receive):
        await send.send(MESSAGE)
        received = await receive.receive()
        with anyio.CancelScope() as scope:
            async with received:
                scope.cancel()
        assert state_of(place).entries() == set()


@on_both
async def test_an_acknowledgement_that_fails_raises_and_returns(tmp_path):
    """The block raises the error, and the message is in its queue, never in nobody's hands."""
    calls = FailingCalls()
    async with (
        await quick_spool(tmp_path / "spool", system_calls=calls) as spool,
        spool.channel(Mail.SEND) as (send, receive),
    ):
        await send.send(MESSAGE)
        received = await receive.receive()
        with calls.failing("unlink", errno.EIO, ".checkout/"), pytest.raises(StorageFailure) as raised:
            async with received:
                pass
        assert not hasattr(raised.value, "__notes__")
        assert await names_in(spool, Mail.SEND) == [received.name]


@on_both
async def test_an_acknowledgement_whose_durability_is_unknown_raises(tmp_path):
    """The message is gone, and the block says that power loss might bring it back."""
    calls = FailingCalls()
    async with await quick_spool(tmp_path / "spool", system_calls=calls) as spool, spool.channel(Mail.SEND) as ends:
        send, receive = ends
        await send.send(MESSAGE)
        received = await receive.receive()
        with calls.failing("sync", errno.EIO, "send/.checkout"), pytest.raises(DurabilityUnknown):
            async with received:
                pass
        assert state_of(tmp_path / "spool").places(received.name) == []


@on_both
async def test_a_block_is_entered_once(place):
    """What was acknowledged stands for nothing any more."""
    async with await quick_spool(place) as spool, spool.channel(Mail.SEND) as (send, receive):
        await send.send(MESSAGE)
        async with await receive.receive() as received:
            pass
        with pytest.raises(RuntimeError, match="once"):
            await received.__aenter__()


# Closing


@on_both
async def test_closing_the_senders_does_not_end_the_receivers(place):
    """Somebody may always send: a receiver that waits goes on waiting, and receives."""
    async with await quick_spool(place) as spool, spool.channel(Mail.SEND) as (send, receive):
        found = []

        async def take() -> None:
            async with await receive.receive() as received:
                found.append(received.name)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take)
            await wait_until_waiting(receive, receive=1)
            await send.aclose()
            await send.aclose()
            assert receive.statistics().open_send_streams == 0
            await put(spool, Mail.SEND, "late")
        assert found == ["late"]


@on_both
async def test_closing_the_receivers_does_not_stop_the_senders(place):
    """What is sent waits on disk for another receiver, anywhere."""
    async with await quick_spool(place) as spool, spool.channel(Mail.SEND) as (send, receive):
        await receive.aclose()
        await send.send(MESSAGE)
        assert len(await names_in(spool, Mail.SEND)) == 1


@on_both
async def test_a_closed_end_raises_and_its_clones_go_on(place):
    """Each clone is closed for itself; all are closed with the channel."""
    async with await quick_spool(place) as spool:
        async with spool.channel(Mail.SEND) as (send, receive):
            send2, receive2 = send.clone(), receive.clone()
            assert (send.statistics().open_send_streams, send.statistics().open_receive_streams) == (2, 2)
            await send.aclose()
            await receive.aclose()
            assert (send.statistics().open_send_streams, send.statistics().open_receive_streams) == (1, 1)
            for use in (lambda: send.send(MESSAGE), receive.receive):
                with pytest.raises(anyio.ClosedResourceError, match="has been closed"):
                    await use()
            for end in (send, receive):
                with pytest.raises(anyio.ClosedResourceError):
                    end.clone()
            await send2.send(MESSAGE)
            async with await receive2.receive():
                pass
        for use in (lambda: send2.send(MESSAGE), receive2.receive):
            with pytest.raises(anyio.ClosedResourceError):
                await use()
        assert await names_in(spool, Mail.SEND) == []


@on_both
async def test_closing_a_receive_end_returns_what_it_had_in_hand_and_no_more(place):
    """What a clone received stays with the clone; a block that is at work learns that its message has gone."""
    async with await quick_spool(place) as spool, spool.channel(Mail.SEND) as (_, receive):
        await put(spool, Mail.SEND, "a", "b", "c")
        clone = receive.clone()
        idle, busy, other = await receive.receive(), await receive.receive(), await clone.receive()
        with pytest.raises(anyio.ClosedResourceError, match="was returned"):
            async with busy:
                await receive.aclose()
        assert await names_in(spool, Mail.SEND) == [idle.name, busy.name]
        async with other:
            pass
        assert state_of(place).entries() == {idle.name, busy.name}


@on_both
async def test_closing_wakes_who_waits_in_receive(place):
    """`ClosedResourceError`, and nothing was taken."""
    async with await quick_spool(place) as spool, spool.channel(Mail.SEND) as (_, receive):

        async def wait() -> None:
            with pytest.raises(anyio.ClosedResourceError, match="has been closed"):
                await receive.receive()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await wait_until_waiting(receive, receive=1)
            await receive.aclose()


@on_both
async def test_an_entry_that_is_taken_while_the_end_is_closed_goes_back(tmp_path):
    """Closed in the middle of the check-out: `ClosedResourceError`, and the entry is in its queue."""
    gate = Gate()
    async with (
        await quick_spool(tmp_path / "spool", system_calls=gate) as spool,
        spool.channel(Mail.SEND) as (send, receive),
    ):
        await send.send(MESSAGE)

        async def wait() -> None:
            with pytest.raises(anyio.ClosedResourceError, match="has been closed"):
                await receive.receive()

        gate.arm("move")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await gate.reached()
            await receive.aclose()
            gate.go()
        assert len(await names_in(spool, Mail.SEND)) == 1


@on_both
async def test_a_spool_that_is_closed_below_breaks_the_ends(place):
    """Nobody closed the ends themselves: `BrokenResourceError`."""
    async with await quick_spool(place) as spool, spool.channel(Mail.SEND) as (send, receive):
        spool.close()
        for use in (lambda: send.send(MESSAGE), receive.receive):
            with pytest.raises(anyio.BrokenResourceError, match="spool under"):
                await use()


@on_both
async def test_the_bodys_exception_leaves_the_channel_as_the_same_object(place):
    """And what was in hand is returned."""
    error = ValueError("no")
    async with await quick_spool(place) as spool:

        async def fail() -> None:
            async with spool.channel(Mail.SEND) as (send, receive):
                await send.send(MESSAGE)
                await receive.receive()
                raise error

        with pytest.raises(ValueError, match="no") as raised:
            await fail()
        assert raised.value is error
        assert len(await names_in(spool, Mail.SEND)) == 1


# Cancellation


@on_both
async def test_a_send_that_is_cancelled_sent_nothing(place):
    """Cancelled before: the disk is as it was."""
    async with await quick_spool(place) as spool:
        async with spool.channel(Mail.SEND, max_entries=5) as (send, _):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await send.send(MESSAGE)
            assert scope.cancelled_caught
        assert state_of(place).entries() == set()


@on_both
@pytest.mark.parametrize("how", ["cancelled", "closed"])
async def test_a_send_that_is_interrupted_in_its_thread_sends_and_returns(how, tmp_path):
    """Cancelled or closed during its effect: it is sent, once, and `send` raises nothing."""
    gate = Gate()
    async with await quick_spool(tmp_path / "spool", system_calls=gate) as spool, spool.channel(Mail.SEND) as (send, _):
        scope, sent = anyio.CancelScope(), []

        async def do() -> None:
            with scope:
                sent.append(await send.send(MESSAGE))

        gate.arm("move")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(do)
            await gate.reached()
            if how == "closed":
                await send.aclose()
            else:
                scope.cancel()
            gate.go()
        assert sent == [None]
        assert len(await names_in(spool, Mail.SEND)) == 1


@on_both
async def test_a_receive_that_is_cancelled_took_nothing(place):
    """Cancelled before, and while it waits: what comes then is for somebody else."""
    async with await quick_spool(place) as spool, spool.channel(Mail.SEND) as (send, receive):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive.receive)
            await wait_until_waiting(receive, receive=1)
            tasks.cancel_scope.cancel()
        await send.send(MESSAGE)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await receive.receive()
        assert scope.cancelled_caught
        assert len(await names_in(spool, Mail.SEND)) == 1


@on_both
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_asyncios_own_cancellation_of_a_receive_gives_back_what_was_taken(tmp_path, anyio_backend):
    """Cancelled after the check-out was committed: it is undone, and the task is cancelled."""
    gate = Gate()
    async with await quick_spool(tmp_path / "spool", system_calls=gate) as spool, spool.channel(Mail.SEND) as ends:
        send, receive = ends
        await send.send(MESSAGE)
        gate.arm("move", after=True)
        task = asyncio.ensure_future(receive.receive())
        await gate.reached()
        task.cancel()
        gate.go()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(await names_in(spool, Mail.SEND)) == 1
        assert receive.statistics().tasks_waiting_receive == 0


@on_both
async def test_closing_in_a_cancelled_scope_closes_and_returns(place):
    """Closing is not prevented by anything."""
    async with await quick_spool(place) as spool, spool.channel(Mail.SEND) as (send, receive):
        await send.send(MESSAGE)
        received = await receive.receive()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await receive.aclose()
            await send.aclose()
        assert await names_in(spool, Mail.SEND) == [received.name]
        assert send.statistics().open_send_streams == 0


# Errors and attributes


@on_both
async def test_sending_raises_the_error_that_enqueueing_answers(tmp_path):
    """A full disk is an exception here, and nothing was sent."""
    calls = FailingCalls()
    async with (
        await quick_spool(tmp_path / "spool", system_calls=calls) as spool,
        spool.channel(Mail.SEND) as (send, receive),
    ):
        with calls.failing("write", errno.ENOSPC), pytest.raises(OutOfSpace):
            await send.send(MESSAGE)
        with calls.failing("open", errno.EMFILE), pytest.raises(TooManyOpenFiles):
            await receive.receive()
        assert state_of(tmp_path / "spool").faults() == []


@on_both
async def test_data_that_does_not_decode_is_the_receivers_to_handle(place):
    """`data.load` answers a `Result`, as everywhere."""
    async with await quick_spool(place) as spool, spool.channel(Mail.SEND) as (send, _):
        await send.send((ANNE, b"\xff"))
    texts = Spoolable(queues=Mail, metadata=type(ANNE), data=str)
    async with await quick_spool(place, texts) as spool, spool.channel(Mail.SEND) as (_, receive):
        received = await receive.receive()
        async with received:
            assert isinstance((await received.data.load()).error, CorruptData)


@on_both
async def test_both_ends_know_their_spool_and_their_queue(tmp_path):
    """Typed attributes, as of AnyIO's other streams."""
    async with await quick_spool(tmp_path / "spool") as spool, spool.channel(Mail.SEND) as ends:
        for end in (*ends, *(end.clone() for end in ends)):
            assert end.extra(ChannelAttribute.path) == spool.path
            assert end.extra(ChannelAttribute.queue) is Mail.SEND
            assert "send" in repr(end)
            assert "open" in repr(end)


@on_both
async def test_a_channel_is_made_of_a_queue_and_a_positive_limit(place):
    """Misuse is raised at once."""
    async with await quick_spool(place) as spool:
        with pytest.raises(TypeError, match="no member"):
            spool.channel("send")
        with pytest.raises(ValueError, match="at least 1"):
            spool.channel(Mail.SEND, max_entries=0)


# Backpressure


@on_both
async def test_one_channel_never_exceeds_its_limit(place):
    """However many tasks send at once: whatever is on disk or under way is counted."""
    async with await quick_spool(place) as spool, spool.channel(Mail.SEND, max_entries=3) as ends:
        send, receive = ends
        depths = []
        async with anyio.create_task_group() as tasks:
            for _ in range(12):
                tasks.start_soon(send.send, MESSAGE)
            for _ in range(12):
                received = await receive.receive()
                depths.append(len(await names_in(spool, Mail.SEND)))
                async with received:
                    pass
        assert max(depths) <= 3
        assert await names_in(spool, Mail.SEND) == []


async def test_what_is_under_way_takes_room(tmp_path, autojump_clock, nursery):
    """While one send is in its thread, and nothing is to be seen on disk, the last room is taken."""
    gate = Gate()
    async with await quick_spool(tmp_path / "spool", system_calls=gate) as spool:
        channel = spool.channel(Mail.SEND, max_entries=1)
        async with channel as (send, _):
            gate.arm("move")
            nursery.start_soon(send.send, MESSAGE)
            await gate.reached()
            with trio.move_on_after(10) as scope:
                await send.send(MESSAGE)
            assert scope.cancelled_caught
            gate.go()
            await wait_until_waiting(send)
            assert len(await names_in(spool, Mail.SEND)) == 1


async def test_a_sender_waits_for_room_that_another_program_makes(place, autojump_clock, nursery):
    """It looks again every `ROOM_INTERVAL`; the depth on disk is what counts."""
    async with await quick_spool(place) as spool, spool.channel(Mail.SEND, max_entries=2) as (send, _):
        entries = await put(spool, Mail.SEND, "a", "b")
        sent = trio.Event()

        async def do() -> None:
            await send.send(MESSAGE)
            sent.set()

        nursery.start_soon(do)
        await trio.sleep(100 * ROOM_INTERVAL)
        assert not sent.is_set()
        assert await names_in(spool, Mail.SEND) == ["a", "b"]
        (await entries[0].direct.remove()).unwrap()
        await sent.wait()
        assert len(await names_in(spool, Mail.SEND)) == 2


async def test_a_sender_that_waits_for_room_can_be_cancelled_or_closed(place, autojump_clock, nursery):
    """Nothing was sent, and the next in the line is not held up."""
    async with (
        await quick_spool(place) as spool,
        spool.channel(Mail.SEND, max_entries=1) as (send, receive),
    ):
        await put(spool, Mail.SEND, "a")
        clone = send.clone()
        with trio.move_on_after(10) as scope:
            await send.send(MESSAGE)
        assert scope.cancelled_caught

        async def wait() -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await clone.send(MESSAGE)

        async with trio.open_nursery() as waiting:
            waiting.start_soon(wait)
            await wait_until_waiting(send, send=1)
            await clone.aclose()
        assert await names_in(spool, Mail.SEND) == ["a"]
        async with await receive.receive():
            await send.send(MESSAGE)
        assert len(await names_in(spool, Mail.SEND)) == 1

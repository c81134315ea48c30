"""Hooks are not told of what did not happen, and of what failed they are told as that."""

from __future__ import annotations

import asyncio
import errno

import anyio
import pytest

from helpers.calls import FailingCalls
from helpers.gates import Gate
from helpers.listening import Listening, kinds, listened_to
from helpers.results import is_err
from helpers.spools import ANNE, BERT, Mail, make_spool, names_in, put
from trio_multispool import (
    Durability,
    DurabilityUnknown,
    EntryBusy,
    EntryNotFound,
    Err,
    OutOfSpace,
    OwnershipLost,
    Unavailable,
)
from trio_multispool.instrumentation import (
    Failed,
    How,
    Operation,
    Settled,
)

both_backends = pytest.mark.anyio
on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@both_backends
async def test_an_enqueue_that_fails_is_told_as_a_failure_only(tmp_path):
    """`on_enqueue` is not called."""
    calls = FailingCalls()
    async with listened_to(tmp_path / "spool", system_calls=calls) as (spool, heard):
        with calls.failing("write", errno.ENOSPC):
            answer = await spool.enqueue(Mail.SEND, ANNE, b"Hello")
        assert isinstance(answer, Err)
        assert isinstance(answer.error, OutOfSpace)
        [failed] = heard.events()
        assert (failed.operation, failed.queue, failed.entry) == (Operation.ENQUEUE, "send", None)
        assert failed.error is answer.error


@pytest.mark.sample
@both_backends
async def test_a_cancelled_operation_is_not_told(place):
    """Cancelled before it began, nothing has happened, and nothing is told but that the context manager was left."""
    async with listened_to(place) as (spool, heard):
        [entry] = await put(spool, Mail.SEND, "a")
        job = (await entry.checkout()).unwrap()
        heard.take()
        for operation in (
            lambda: spool.enqueue(Mail.SEND, ANNE, b""),
            lambda: spool.enqueue_many(Mail.SEND, [(ANNE, b"")]),
            entry.checkout,
            job.remove,
            spool.recover,
        ):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await operation()
            assert scope.cancelled_caught
            assert heard.events() == []
        async with job:
            pass


@both_backends
async def test_an_answer_that_there_is_nothing_is_told_as_what_it_is(place):
    """`try_checkout` of what is gone or busy is an ordinary answer; of `checkout` it is an error."""
    async with listened_to(place) as (spool, heard):
        [entry] = await put(spool, Mail.SEND, "a")
        gone = spool.entry(Mail.RETRY, "a").unwrap()
        async with (await entry.checkout()).unwrap():
            heard.take()
            assert isinstance((await gone.try_checkout()).unwrap(), Unavailable)
            assert heard.take() == []
            assert (await gone.checkout()).error == EntryBusy("a")
            assert (await spool.entry(Mail.RETRY, "b").unwrap().checkout()).error == EntryNotFound("retry", "b")
            assert [(one.operation, one.queue, one.entry) for one in heard.take(Failed)] == [
                (Operation.CHECK_OUT, "retry", "a"),
                (Operation.CHECK_OUT, "retry", "b"),
            ]


@both_backends
async def test_a_settlement_that_fails_is_told_as_a_failure_and_the_return_as_a_release(tmp_path):
    """The job is still in hand after the failure; its block's end returns it."""
    calls = FailingCalls()
    async with listened_to(tmp_path / "spool", system_calls=calls) as (spool, heard):
        [entry] = await put(spool, Mail.SEND, "a")
        heard.take()
        job = (await entry.checkout()).unwrap()
        with pytest.raises(OutOfSpace), calls.failing("write", errno.ENOSPC):  # the block's end raises
            async with job:
                assert is_err(await job.save(Mail.RETRY, BERT))
        told = heard.take()
        assert kinds(told) == ["CheckedOut", "Working", "Failed", "Settled", "tuple"]
        assert (told[2].operation, told[2].entry) == (Operation.SAVE, "a")
        assert told[3].how is How.RELEASED
        assert told[4] == ("working", "OutOfSpace")


@both_backends
async def test_a_job_that_another_took_is_told_as_let_go(place):
    """Releasing what somebody else has settled puts nothing back, and is not told as a release."""
    async with listened_to(place) as (spool, heard):
        [entry] = await put(spool, Mail.SEND, "a")
        job = (await entry.checkout()).unwrap()
        [theirs] = (await spool.checkouts_unsafe(Mail.SEND)).unwrap()
        (await theirs.remove()).unwrap()
        [_, _, removed] = heard.events()
        assert (removed.how, removed.in_hand) == (How.REMOVED, None)
        assert isinstance((await job.release()).error, OwnershipLost)
        [settled, failed] = heard.events()
        assert (settled.how, settled.destination) == (How.LET_GO, None)
        assert failed.operation is Operation.RELEASE


@both_backends
async def test_an_entry_that_cannot_be_returned_is_told_as_let_go(tmp_path):
    """The disk refuses the rename: recovery will return it, and nobody has it in hand."""
    calls = FailingCalls()
    async with listened_to(tmp_path / "spool", system_calls=calls) as (spool, heard):
        [entry] = await put(spool, Mail.SEND, "a")
        heard.take()
        with calls.failing("move", errno.EACCES, on=".checkout/a -> "), pytest.raises(Exception, match="a"):
            async with (await entry.checkout()).unwrap():
                pass
        settled = heard.take(Settled, Failed)
        assert [type(one) for one in settled] == [Settled, Failed]
        assert settled[0].how is How.LET_GO


@both_backends
async def test_what_happened_and_may_be_undone_is_told_as_both(tmp_path):
    """With `DurabilityUnknown` the entry is there: `on_enqueue` and `on_error` hear of it."""
    calls = FailingCalls()
    async with listened_to(tmp_path / "spool", system_calls=calls, durability=Durability.POWER) as (spool, heard):
        with calls.failing("sync", errno.EIO, on="/send"):
            answer = await spool.enqueue(Mail.SEND, ANNE, b"Hello")
        assert isinstance(answer.error, DurabilityUnknown)
        [enqueued, failed] = heard.events()
        assert [enqueued.entry] == await names_in(spool, Mail.SEND)
        assert (failed.entry, failed.error) == (enqueued.entry, answer.error)


@both_backends
@on_asyncio
async def test_an_enqueue_that_asyncio_cancelled_too_late_is_told(tmp_path):
    """The entry is in its queue, so it was enqueued, whatever the task raises."""
    gate, heard = Gate(), Listening()
    async with await make_spool(tmp_path / "spool", instrumentation=heard, system_calls=gate) as spool:
        gate.arm("move", after=True)
        task = asyncio.ensure_future(spool.enqueue(Mail.SEND, ANNE, b"Hello"))
        await gate.reached()
        task.cancel()
        await asyncio.sleep(0)
        gate.go()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [one.entry for one in heard.events()] == await names_in(spool, Mail.SEND) != []


@both_backends
@on_asyncio
async def test_a_check_out_that_asyncio_cancelled_is_not_told(tmp_path):
    """It was undone: nothing was in hand."""
    gate, heard = Gate(), Listening()
    async with await make_spool(tmp_path / "spool", instrumentation=heard, system_calls=gate) as spool:
        [entry] = await put(spool, Mail.SEND, "a")
        heard.take()
        gate.arm("move", after=True)
        task = asyncio.ensure_future(entry.checkout())
        await gate.reached()
        task.cancel()
        await asyncio.sleep(0)
        gate.go()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert heard.take() == []
        assert await names_in(spool, Mail.SEND) == ["a"]


@both_backends
async def test_a_job_whose_spool_was_closed_before_is_told_as_let_go(place):
    """Its lock was dropped with the spool; recovery returns it."""
    async with listened_to(place) as (spool, heard):
        [entry] = await put(spool, Mail.SEND, "a")
        async with (await entry.checkout()).unwrap():
            heard.take()
            spool.close()
        settled, ended = heard.take()
        assert (settled.how, settled.destination, ended) == (How.LET_GO, None, ("working", None))


@both_backends
async def test_what_was_tried_in_vain_before_an_entry_was_let_go_is_not_told(tmp_path):
    """A save failed, and then the spool was closed: the entry was not saved."""
    calls = FailingCalls()
    async with listened_to(tmp_path / "spool", system_calls=calls) as (spool, heard):
        [entry] = await put(spool, Mail.SEND, "a")
        job = (await entry.checkout()).unwrap()
        with pytest.raises(OutOfSpace), calls.failing("write", errno.ENOSPC):  # noqa: PT012  # the block's end raises
            async with job:
                assert is_err(await job.save(Mail.RETRY, BERT))
                spool.close()
        [settled] = heard.take(Settled)
        assert (settled.how, settled.destination) == (How.LET_GO, None)


@both_backends
async def test_a_reader_that_cannot_list_is_told_as_a_failure(tmp_path):
    """Of the queue, and of no entry in particular."""
    calls = FailingCalls()
    async with listened_to(tmp_path / "spool", system_calls=calls) as (spool, heard):
        async with spool.reader(Mail.SEND) as reader:
            with calls.failing("regular_files", errno.EIO, on="/send"):
                answer = await reader.dequeue_available()
        [failed] = heard.events()
        assert (failed.operation, failed.queue, failed.entry) == (Operation.CHECK_OUT, "send", None)
        assert failed.error is answer.error

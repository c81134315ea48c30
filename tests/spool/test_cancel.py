"""Cancelling one entry: what it does where the entry is, and how those are told who have it in hand.

Where a test wants to see that the kernel told, the clock stands still, or the spool would look again by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import gc
import logging
import os
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio
import trio.testing

from helpers.calls import WithoutSyncs
from helpers.children import Child
from helpers.gates import breathe
from helpers.inside import open_descriptors, storage_of
from helpers.places import PLACES, place_of
from helpers.spools import ANNE, BERT, MAIL, Mail, load_spool, names_in, put, quick_spool, state_of
from trio_multispool import (
    UNCHANGED,
    Cancelled,
    CancelRequest,
    EncodingFailed,
    EntryBusy,
    EntryCancelled,
    EntryNotFound,
    Err,
    Found,
    GiveUp,
    InvalidName,
    NotAdopted,
    NotARegularFile,
    Ok,
    OutOfSpace,
    Release,
    Remove,
    Retry,
    RetryLater,
    Save,
    Spool,
    State,
    Unavailable,
    Use,
)
from trio_multispool.entries.job import checkout_of
from trio_multispool.storage.requests import Releasing, Removing, Saving
from trio_multispool.testing import memory_spool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    AnySpool = Spool[Any, Any, Any, Any]

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["memory", *PLACES])
async def spool(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AnySpool]:
    """Make a spool of each kind."""
    if request.param == "memory":
        yield memory_spool(MAIL)
        return
    with place_of(request.param, tmp_path) as place:
        yield await quick_spool(place)


async def job_of(spool: AnySpool, name: str = "a") -> Any:
    """Check an entry out of the first queue by hand."""
    return (await spool.entry(Mail.SEND, name).unwrap().checkout()).unwrap()


async def found(spool: AnySpool, name: str = "a") -> Found[Any]:
    """Return where an entry is that is somewhere."""
    where = (await spool.find(name)).unwrap()
    assert isinstance(where, Found)
    return where


async def told(job: Any) -> None:
    """Return when a job by hand has been told."""
    while not job.cancel_requested:
        await breathe()


# Where nobody has it


async def test_what_nobody_has_is_removed(spool, caplog):
    """Available, or waiting until whenever; the log has the reason."""
    caplog.set_level(logging.INFO, "trio_multispool")
    await put(spool, Mail.SEND, "a", "c")
    (await spool.enqueue(Mail.RETRY, ANNE, b"", name=Use("b"), not_before=3600)).unwrap()
    assert await spool.cancel("a", reason="it was\nwithdrawn") == Ok(Cancelled.REMOVED)
    assert await spool.cancel("b") == Ok(Cancelled.REMOVED)
    assert await names_in(spool, Mail.SEND) == ["c"]
    assert [await spool.find(name) for name in "ab"] == [Ok(None), Ok(None)]
    records = [(record.event, record.queue, record.entry) for record in caplog.records]
    assert records == [("multispool.cancelled", "send", "a"), ("multispool.cancelled", "retry", "b")]
    assert "entry a of queue send was cancelled: it was\\nwithdrawn" in caplog.text
    assert "entry b of queue retry was cancelled: no reason was given" in caplog.text
    (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a"))).unwrap()  # the name is free


async def test_what_is_nowhere_is_an_err(spool):
    """Never there, gone, or in quarantine, which is for people; and a name that none can have."""
    assert await spool.cancel("a") == Err(EntryNotFound("", "a"))
    assert str(EntryNotFound("", "a")) == "there is no entry 'a' in this spool; it may have been removed"
    await put(spool, Mail.SEND, "a")
    assert await spool.cancel("a") == Ok(Cancelled.REMOVED)
    assert await spool.cancel("a") == Err(EntryNotFound("", "a"))
    async with (await spool.reserve_name()).unwrap() as reserved:
        assert await spool.cancel(reserved.name) == Err(EntryNotFound("", reserved.name))
    answer = await spool.cancel("a/b")
    assert isinstance(answer, Err)
    assert isinstance(answer.error, InvalidName)
    with pytest.raises(TypeError, match="a reason is text for people, not 3"):
        await spool.cancel("a", reason=3)


async def test_what_is_in_quarantine_is_left_there(tmp_path):
    """A person decides about it."""
    spool = await quick_spool(tmp_path / "spool")
    await put(spool, Mail.SEND, "a")
    (tmp_path / "spool" / "send" / "a").write_bytes(b"nonsense")
    (await spool.entry(Mail.SEND, "a").unwrap().checkout()).ignore()
    assert await spool.cancel("a") == Err(EntryNotFound("send", "a"))
    assert (await found(spool)).state is State.QUARANTINED


async def test_what_cannot_be_decoded_is_removed_all_the_same(tmp_path):
    """It is not looked into."""
    spool = await quick_spool(tmp_path / "spool")
    await put(spool, Mail.SEND, "a")
    (tmp_path / "spool" / "send" / "a").write_bytes(b"nonsense")
    assert await spool.cancel("a") == Ok(Cancelled.REMOVED)


async def test_what_is_locked_for_a_moment_is_tried_again(tmp_path):
    """And no longer than about a second."""
    spool = await quick_spool(tmp_path / "spool")
    await put(spool, Mail.SEND, "a", "b")
    storage, claims = storage_of(spool), []
    claim = storage.claim

    def busy(place: Any, name: str, **options: Any) -> Any:
        claims.append(name)
        return Unavailable.BUSY if name == "b" or len(claims) < 3 else claim(place, name, **options)

    storage.claim = busy
    assert await spool.cancel("a") == Ok(Cancelled.REMOVED)
    assert claims == ["a"] * 3
    assert await spool.cancel("b") == Err(EntryBusy("b"))
    assert len(claims) == 3 + 10


# In the hand of a handler


class Handler:
    """Waits for ever with the entries whose names it was given; removes all others."""

    def __init__(self, *waits: str) -> None:
        self.waits = waits
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.told: dict[str, CancelRequest | None] = {}

    async def __call__(self, metadata: Any, data: Any) -> Remove:
        """Handle an entry."""
        name = metadata.recipient
        self.begun.append(name)
        if name in self.waits:
            assert data.cancellation is None
            try:
                await anyio.sleep_forever()
            finally:
                self.ended.append(name)
                self.told[name] = data.cancellation
        return Remove()

    async def has_begun(self, name: str) -> None:
        """Wait until it has been called with an entry."""
        while name not in self.begun:
            await breathe()


@contextlib.asynccontextmanager
async def working(spool: AnySpool, handle: Any, *, until_empty: bool = False, **options: Any) -> AsyncIterator[Any]:
    """Have a reader of the first queue work for the length of a block, until that is empty or the reader stopped."""
    async with spool.reader(Mail.SEND) as reader, anyio.create_task_group() as tasks:

        async def iterate() -> None:
            (await (reader.iter_available if until_empty else reader.iter)(handle, **options)).unwrap()

        tasks.start_soon(iterate)
        yield reader


WAYS: dict[str, dict[str, Any]] = {
    "one": {"concurrency": 1},
    "one, ahead": {"concurrency": 1, "prefetch": 2},
    "several": {"concurrency": 3},
    "several, ahead": {"concurrency": 3, "prefetch": 2},
    "one, again": {"concurrency": 1, "retry": Retry(attempts=3, dead_letter=Mail.FAILED)},
    "several, again": {"concurrency": 3, "retry": Retry(attempts=3, dead_letter=Mail.FAILED)},
    "several, again, ahead": {"concurrency": 3, "prefetch": 2, "retry": Retry(attempts=3, dead_letter=Mail.FAILED)},
}


@pytest.mark.parametrize("way", WAYS)
async def test_a_handler_is_cancelled_and_its_entry_removed(spool, way):
    """And the others go on."""
    await put(spool, Mail.SEND, *"abcdef")
    handle = Handler("b", "d")
    async with working(spool, handle, **WAYS[way]) as reader:
        for name in "bd":
            await handle.has_begun(name)
            assert await spool.cancel(name) == Ok(Cancelled.ASKED)
            assert await spool.wait(name) == Ok(None)
            assert name in handle.ended
        for name in "ef":
            await handle.has_begun(name)
            assert await spool.wait(name) == Ok(None)
        reader.stop()
    assert sorted(handle.begun) == list("abcdef")
    assert sorted(handle.ended) == ["b", "d"]
    assert storage_of(spool).asked_to_cancel() == []


@pytest.mark.parametrize("way", WAYS)
async def test_what_is_cancelled_goes_where_the_reader_says_with_the_reason(spool, way, caplog):
    """To a queue, with a history that says why; there it is an entry like any other."""
    caplog.set_level(logging.INFO, "trio_multispool")
    await put(spool, Mail.SEND, "a")
    handle = Handler("a")
    async with working(spool, handle, until_empty=True, on_cancel=Save(Mail.RETRY), **WAYS[way]):
        await handle.has_begun("a")
        assert await spool.cancel("a", reason="no longer wanted") == Ok(Cancelled.ASKED)
    where = await found(spool)
    assert (where.queue, where.state, where.cancellation) == (Mail.RETRY, State.AVAILABLE, None)
    told = handle.told["a"]
    assert told is not None
    assert told.reason == "no longer wanted"
    [attempt] = where.attempts
    assert attempt.failure is not None
    assert (attempt.queue, attempt.failure.type, attempt.failure.message) == ("send", "Cancelled", "no longer wanted")
    [record] = [record for record in caplog.records if record.event == "multispool.cancelled"]
    assert (record.queue, record.entry) == ("send", "a")
    async with (await spool.entry(Mail.RETRY, "a").unwrap().checkout()).unwrap() as job:
        assert not job.cancel_requested
        (await job.remove()).unwrap()


async def test_attempts_that_were_made_before_stay_in_the_history(spool):
    """It ends with that it was cancelled."""
    await put(spool, Mail.SEND, "a")
    tries, began = [], anyio.Event()

    async def handle(_metadata: object, _data: object) -> Any:
        tries.append(0)
        if len(tries) == 1:
            return RetryLater(0, "the first")
        began.set()
        await anyio.sleep_forever()
        return Remove()

    retry = Retry(attempts=3, dead_letter=Mail.FAILED)
    async with working(spool, handle, retry=retry, on_cancel=Save(Mail.FAILED)) as reader:
        await began.wait()
        (await spool.cancel("a", reason="the second")).unwrap()
        (await spool.wait("a", until=Mail.FAILED)).unwrap()
        reader.stop()
    attempts = (await found(spool)).attempts
    assert [attempt.failure.message for attempt in attempts if attempt.failure] == ["the first", "the second"]


@pytest.mark.parametrize("way", WAYS)
async def test_a_verdict_that_is_returned_all_the_same_wins(spool, way):
    """The handler finishes under a shield; nothing is left of the request, which is not for the next queue."""
    await put(spool, Mail.SEND, "a", "b")
    began, finish, done = anyio.Event(), anyio.Event(), []

    async def handle(metadata: Any, _data: object) -> Any:
        done.append(metadata.recipient)
        if metadata.recipient == "a":
            with anyio.CancelScope(shield=True):
                began.set()
                await finish.wait()
        return Save(Mail.RETRY)

    async with working(spool, handle, until_empty=True, on_cancel=Save(Mail.FAILED), **WAYS[way]):
        await began.wait()
        assert await spool.cancel("a") == Ok(Cancelled.ASKED)
        while "a" not in cancelled_in(spool):
            await breathe()
        finish.set()
    where = await found(spool)
    assert (where.queue, where.cancellation, where.attempts) == (Mail.RETRY, None, ())
    assert await names_in(spool, Mail.RETRY) == ["a", "b"]
    assert sorted(done) == ["a", "b"]


def cancelled_in(spool: AnySpool) -> list[str]:
    """Return what a spool has in hand and has been told of: nothing public shows that to a handler's test."""
    jobs = [reference() for reference in spool._session.held.values() if reference is not None]
    return [job.name for job in jobs if job is not None and job.cancellation is not None]


@pytest.mark.parametrize("answer", [Release(), "raises", RetryLater(0)])
async def test_a_request_stands_until_it_is_done(spool, answer):
    """The handler gives the entry back instead, or fails: whoever has it next is told at once."""
    await put(spool, Mail.SEND, "a")
    began, finish = anyio.Event(), anyio.Event()

    async def handle(_metadata: object, _data: object) -> Any:
        with anyio.CancelScope(shield=True):
            began.set()
            await finish.wait()
        if answer == "raises":
            raise ValueError("not this time")
        return answer

    retry = Retry(attempts=3, dead_letter=Mail.FAILED) if isinstance(answer, RetryLater) else None
    async with spool.reader(Mail.SEND) as reader:

        async def iterate() -> None:
            with contextlib.suppress(ValueError):
                (await reader.iter(handle, retry=retry)).unwrap()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(iterate)
            await began.wait()
            assert await spool.cancel("a", reason="x") == Ok(Cancelled.ASKED)
            while "a" not in cancelled_in(spool):
                await breathe()
            reader.stop()
            finish.set()
    where = await found(spool)
    assert where.state in {State.AVAILABLE, State.WAITING}
    assert where.cancellation is not None
    assert where.cancellation.reason == "x"
    async with (await spool.entry(Mail.SEND, "a").unwrap().checkout(early=True)).unwrap() as job:
        with anyio.fail_after(30):
            await anyio.sleep_forever()
    assert job.cancel_requested
    assert await spool.find("a") == Ok(None)


async def test_a_request_and_the_end_of_the_reader_at_once(spool):
    """What was asked for is done all the same, when the handler has tidied up."""
    await put(spool, Mail.SEND, "a", "b")
    begun: list[str] = []
    tidying, go_on = anyio.Event(), anyio.Event()

    async def handle(metadata: Any, _data: object) -> Remove:
        begun.append(metadata.recipient)
        try:
            await anyio.sleep_forever()
        finally:
            tidying.set()
            with anyio.CancelScope(shield=True):
                await go_on.wait()
        return Remove()

    async with spool.reader(Mail.SEND) as reader, anyio.create_task_group() as tasks:

        async def iterate() -> None:
            await reader.iter(handle, concurrency=2, on_cancel=Save(Mail.FAILED))

        tasks.start_soon(iterate)
        while sorted(begun) != ["a", "b"]:
            await breathe()
        (await spool.cancel("a")).unwrap()
        await tidying.wait()
        tasks.cancel_scope.cancel()
        go_on.set()
    assert await names_in(spool, Mail.FAILED) == ["a"]
    assert await names_in(spool, Mail.SEND) == ["b"]


class Refusing(WithoutSyncs):
    """System calls for which there is no room in one directory, to move a file into it, or to unlink one in it."""

    full = "nowhere"

    def _check(self, directory: int) -> None:
        if os.readlink(f"/proc/self/fd/{directory}").endswith(self.full):
            raise OSError(errno.ENOSPC, "there is no room")

    def move(self, name: str, directory: int, new_name: str, new_directory: int) -> None:
        """Move a file."""
        self._check(new_directory)
        super().move(name, directory, new_name, new_directory)

    def unlink(self, name: str, directory: int) -> None:
        """Unlink a file."""
        self._check(directory)
        super().unlink(name, directory)


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_what_cannot_be_stored_is_told(tmp_path, concurrency):
    """The entry goes back, and the iteration ends with the error."""
    calls = Refusing()
    spool = await quick_spool(tmp_path / "spool", system_calls=calls)
    await put(spool, Mail.SEND, "a", "b")
    calls.full = "/failed"
    handle, answers = Handler("a", "b"), list[Any]()
    async with spool.reader(Mail.SEND) as reader, anyio.create_task_group() as tasks:

        async def iterate() -> None:
            answers.append(await reader.iter(handle, concurrency=concurrency, on_cancel=Save(Mail.FAILED)))

        tasks.start_soon(iterate)
        await handle.has_begun("a")
        storage_of(spool).ask_to_cancel("send", "a", CancelRequest(0.0, "x"))  # who asks may remove what is back
    [answer] = answers
    assert isinstance(answer.error, OutOfSpace)
    assert await names_in(spool, Mail.SEND) == ["a", "b"]
    assert (await found(spool)).cancellation is not None


@pytest.mark.parametrize("retry", [None, Retry(attempts=3, dead_letter=Mail.FAILED)])
async def test_what_is_kept_ready_is_not_begun(spool, retry):
    """It is in hand, and no handler has it: none need be called."""
    await put(spool, Mail.SEND, "a", "b")
    handle = Handler("a")
    async with working(spool, handle, until_empty=True, prefetch=1, retry=retry, on_cancel=Save(Mail.RETRY)):
        await handle.has_begun("a")
        while (await found(spool, "b")).state is not State.CHECKED_OUT:
            await breathe()
        for name in "ba":
            assert await spool.cancel(name) == Ok(Cancelled.ASKED)
    assert handle.begun == ["a"]
    assert await names_in(spool, Mail.RETRY) == ["a", "b"]


async def test_what_is_no_answer_to_a_request_is_refused(spool):
    """It would come round for ever, or needs what the reader does not have."""
    async with spool.reader(Mail.SEND) as reader:
        for wrong in (Release(), RetryLater(1), None, Mail.FAILED):
            with pytest.raises(TypeError, match=r"on_cancel= takes Remove\(\) or Save\(…\), not "):
                await reader.iter(Handler(), on_cancel=wrong)
        with pytest.raises(TypeError, match="'failed' is no member of Mail"):
            await reader.iter_available(Handler(), on_cancel=Save("failed"))


@pytest.mark.parametrize("way", ["with_entry", "try_with_entry"])
async def test_with_entry_tells_that_it_was_cancelled(spool, way):
    """No verdict was given, and there is no value."""
    [entry] = await put(spool, Mail.SEND, "a")
    handle = Handler("a")
    answers = []
    async with anyio.create_task_group() as tasks:

        async def work() -> None:
            answers.append(await getattr(spool, way)(entry, handle))

        tasks.start_soon(work)
        await handle.has_begun("a")
        (await spool.cancel("a", reason="enough")).unwrap()
    assert answers == [Err(EntryCancelled("a", "enough"))]
    assert await spool.find("a") == Ok(None)


# In hand


async def test_a_block_by_hand_is_cancelled_and_the_program_goes_on_after_it(spool):
    """The entry is removed."""
    await put(spool, Mail.SEND, "a", "b")
    cleaned_up = []
    async with spool.reader(Mail.SEND) as reader:
        job = (await reader.dequeue()).unwrap()
        assert not job.cancel_requested
        async with job:
            assert await spool.cancel("a") == Ok(Cancelled.ASKED)
            try:
                await anyio.sleep_forever()
            finally:
                cleaned_up.append(job.cancel_requested)
        assert (job.cancel_requested, job.settled) == (True, True)
        assert await spool.find("a") == Ok(None)
        job = (await reader.dequeue()).unwrap()  # in the same task
        async with job:
            await anyio.lowlevel.checkpoint()
            (await job.remove()).unwrap()
    assert cleaned_up == [True]


async def test_a_block_that_settles_its_job_all_the_same_wins(spool):
    """Under a shield. The request is over too."""
    await put(spool, Mail.SEND, "a")
    async with await job_of(spool) as job:
        (await spool.cancel("a")).unwrap()
        with anyio.CancelScope(shield=True):
            await told(job)
            (await job.save(Mail.RETRY)).unwrap()
    where = await found(spool)
    assert (where.queue, where.cancellation) == (Mail.RETRY, None)


async def test_a_block_that_ends_without_settling_its_job_has_ended_the_work(spool):
    """It has not come to a checkpoint since it was told."""
    await put(spool, Mail.SEND, "a")
    async with await job_of(spool) as job:
        (await spool.cancel("a")).unwrap()
        with anyio.CancelScope(shield=True):
            await told(job)
    assert await spool.find("a") == Ok(None)


async def test_a_block_that_raises_gives_the_entry_back_and_the_next_owner_is_told(spool):
    """What it raises is raised."""
    await put(spool, Mail.SEND, "a")

    async def work() -> None:
        async with await job_of(spool) as job:
            (await spool.cancel("a")).unwrap()
            with anyio.CancelScope(shield=True):
                await told(job)
            raise ValueError("not now")

    with pytest.raises(ValueError, match="not now"):
        await work()
    async with await job_of(spool):
        with anyio.fail_after(30):
            await anyio.sleep_forever()
    assert await spool.find("a") == Ok(None)


async def test_a_job_without_a_block_is_told(spool):
    """It is for its user to look."""
    await put(spool, Mail.SEND, "a", "b")
    jobs = [await job_of(spool, name) for name in "ab"]
    (await spool.cancel("a")).unwrap()
    await told(jobs[0])
    assert not jobs[1].cancel_requested
    (await jobs[0].remove()).unwrap()
    (await jobs[1].release()).unwrap()
    assert storage_of(spool).asked_to_cancel() == []


async def test_a_cancelled_block_that_cannot_remove_its_entry_raises_that(tmp_path):
    """And the entry is back."""
    calls = Refusing()
    spool = await quick_spool(tmp_path / "spool", system_calls=calls)
    await put(spool, Mail.SEND, "a")
    calls.full = "/.checkout"

    async def work() -> None:
        async with await job_of(spool) as job:
            (await spool.cancel("a")).unwrap()
            with anyio.CancelScope(shield=True):
                await told(job)

    with pytest.raises(OutOfSpace):
        await work()
    assert await names_in(spool, Mail.SEND) == ["a"]


async def test_what_a_channel_has_given_is_cancelled_too(spool):
    """Its block ends, and the entry is gone."""
    after = []
    async with spool.channel(Mail.SEND) as (send, receive):
        await send.send((ANNE, b"Hello"))
        received = await receive.receive()
        async with received:
            assert await spool.cancel(received.name) == Ok(Cancelled.ASKED)
            await anyio.sleep_forever()
        after.append(await spool.find(received.name))
        await send.send((ANNE, b"Hello"))
        async with await receive.receive() as received:
            await anyio.lowlevel.checkpoint()
    assert after == [Ok(None)]
    assert await names_in(spool, Mail.SEND) == []


@pytest.mark.sample
async def test_a_claim_without_ownership_is_not_told(place):
    """Its owner is."""
    spool = await quick_spool(place)
    await put(spool, Mail.SEND, "a")
    async with await job_of(spool) as job:
        [other] = (await spool.checkouts_unsafe(Mail.SEND)).unwrap()
        (await spool.cancel("a")).unwrap()
        with anyio.CancelScope(shield=True):
            await told(job)
        assert not other.cancel_requested
    assert await spool.find("a") == Ok(None)


async def test_a_spool_whose_programs_need_not_know_of_requests(tmp_path):
    """What is in hand cannot be cancelled there."""
    (await quick_spool(tmp_path / "spool")).close()
    (tmp_path / "spool" / ".spool.json").unlink()
    spool = await load_spool(tmp_path / "spool")
    await put(spool, Mail.SEND, "a", "b")
    async with await job_of(spool) as job:
        answer = await spool.cancel("a")
        assert isinstance(answer, Err)
        assert isinstance(answer.error, NotAdopted)
        assert "requests to cancel" in str(answer.error)
        (await job.remove()).unwrap()
    assert await spool.cancel("b") == Ok(Cancelled.REMOVED)
    assert not (tmp_path / "spool" / ".cancel").exists()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("order", ["the request first", "the request last"])
@pytest.mark.parametrize("way", ["block", "one", "several", "with_entry"])
async def test_asyncios_own_cancellation_in_the_same_turn_is_not_lost(spool, way, order, anyio_backend):
    """The task ends as cancelled, and what was asked for is done."""
    [entry] = await put(spool, Mail.SEND, "a")
    handle = Handler("a")

    async def work() -> None:
        if way == "block":
            async with await job_of(spool):
                handle.begun.append("a")
                await anyio.sleep_forever()
        elif way == "with_entry":
            await spool.with_entry(entry, handle)
        else:
            async with spool.reader(Mail.SEND) as reader:
                await reader.iter(handle, concurrency=1 if way == "one" else 3)
        await anyio.sleep_forever()

    task = asyncio.ensure_future(work())
    await handle.has_begun("a")
    [job] = [reference() for reference in spool._session.held.values() if reference is not None]
    request = CancelRequest(0.0, anyio_backend)
    storage_of(spool).ask_to_cancel("send", "a", request)
    both = [functools.partial(job.cancel, request), task.cancel]
    for each in both if order == "the request first" else reversed(both):
        each()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await spool.find("a") == Ok(None)
    assert storage_of(spool).asked_to_cancel() == []


async def test_a_block_that_could_not_settle_its_job_raises_that_and_the_entry_is_back(spool):
    """It has answered, though nobody looked at what came of it."""
    await put(spool, Mail.SEND, "a")

    async def work() -> None:
        async with await job_of(spool) as job:
            (await spool.cancel("a")).unwrap()
            with anyio.CancelScope(shield=True):
                await told(job)
                (await job.save(Mail.RETRY, object())).ignore()

    with pytest.raises(EncodingFailed):
        await work()
    assert await names_in(spool, Mail.SEND) == ["a"]


async def test_a_spool_that_is_closed_in_a_cancelled_block_lets_go(place, caplog):
    """As in any other block."""
    spool = await quick_spool(place)
    await put(spool, Mail.SEND, "a")
    async with await job_of(spool) as job:
        (await spool.cancel("a")).unwrap()
        with anyio.CancelScope(shield=True):
            await told(job)
        spool.close()
        await anyio.sleep_forever()
    assert [record.event for record in caplog.records] == ["multispool.let_go"]


async def test_with_entry_of_a_spool_that_is_closed_meanwhile_tells_that(spool):
    """The entry was let go: it is not removed, and to say so would be wrong."""
    [entry] = await put(spool, Mail.SEND, "a")

    async def handle(_metadata: object, _data: object) -> Remove:
        (await spool.cancel("a")).unwrap()
        with anyio.CancelScope(shield=True):
            while "a" not in cancelled_in(spool):
                await breathe()
        spool.close()
        await anyio.sleep_forever()
        return Remove()

    with pytest.raises(anyio.ClosedResourceError):
        await spool.with_entry(entry, handle)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancelled_block_whose_removal_is_cut_short_gives_the_entry_back(spool, anyio_backend):
    """By asyncio's own cancellation, while the removal fails: the block ends as any other, and raises that."""
    await put(spool, Mail.SEND, "a")
    job = await job_of(spool)

    async def cut_short(_verdict: object) -> None:
        task = asyncio.current_task()
        assert task is not None, anyio_backend
        task.cancel()
        await asyncio.sleep(0)

    checkout_of(job).settle_cancelled = cut_short

    async def work() -> None:
        async with job:
            (await spool.cancel("a")).unwrap()
            await anyio.sleep_forever()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.ensure_future(work())
    assert await names_in(spool, Mail.SEND) == ["a"]


async def test_a_block_in_a_block_of_the_same_job(spool):
    """The outer one is the scope."""
    await put(spool, Mail.SEND, "a", "b")
    inner = []
    async with await job_of(spool) as job, job:
        inner.append(job.settled)
        (await spool.cancel("a")).unwrap()
        await anyio.sleep_forever()
    assert inner == [False]
    async with await job_of(spool, "b") as job:
        async with job:
            (await job.remove()).unwrap()
        await anyio.lowlevel.checkpoint()
    assert await names_in(spool, Mail.SEND) == []


async def test_what_the_work_has_changed_in_part_is_not_kept(spool):
    """The metadata is saved as it was checked out; or what the reader gives."""
    for given, kept in ((UNCHANGED, ANNE), (BERT, BERT)):
        (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a"))).unwrap()
        began = anyio.Event()

        async def handle(metadata: Any, _data: object, began: anyio.Event = began) -> Remove:
            metadata.recipient = "half changed"
            began.set()
            await anyio.sleep_forever()
            return Remove()

        async with working(spool, handle, until_empty=True, on_cancel=Save(Mail.RETRY, given)):
            await began.wait()
            (await spool.cancel("a")).unwrap()
        [entry] = (await spool.entries(Mail.RETRY)).unwrap()
        assert (await entry.direct.contents()).unwrap() == kept
        (await entry.direct.remove()).unwrap()


@pytest.mark.parametrize("answer", [GiveUp("no"), ValueError("no")])
async def test_a_dead_letter_is_not_cancelled(spool, answer):
    """The handler knew of the request, and has answered: the work is over."""
    await put(spool, Mail.SEND, "a")
    began, finish = anyio.Event(), anyio.Event()

    async def handle(_metadata: object, _data: object) -> Any:
        with anyio.CancelScope(shield=True):
            began.set()
            await finish.wait()
        if isinstance(answer, ValueError):
            raise answer
        return answer

    async with working(spool, handle, until_empty=True, retry=Retry(attempts=1, dead_letter=Mail.FAILED)):
        await began.wait()
        (await spool.cancel("a")).unwrap()
        while "a" not in cancelled_in(spool):
            await breathe()
        finish.set()
    where = await found(spool)
    assert (where.queue, where.cancellation) == (Mail.FAILED, None)
    await is_not_told(spool, (await spool.entry(Mail.FAILED, "a").unwrap().checkout()).unwrap())


async def is_not_told(spool: AnySpool, job: Any) -> None:
    """Check that a job is not told, when one that is asked for later is."""
    await put(spool, Mail.SEND, "later")
    later = await job_of(spool, "later")
    (await spool.cancel("later")).unwrap()
    await told(later)
    assert not job.cancel_requested
    for each in (job, later):
        (await each.remove()).unwrap()


def at_once(spool: AnySpool, settle: Callable[[Any], Any]) -> None:
    """Have the owner, who knows nothing, settle an entry as soon as the request is written."""
    storage = storage_of(spool)
    ask = storage.ask_to_cancel

    def ask_and_settle(queue: str, name: str, request: CancelRequest) -> None:
        ask(queue, name, request)
        [claim] = [claim for claim in spool._session.held if claim.name == name]
        assert storage.settle([settle(claim)]) == [None]

    storage.ask_to_cancel = ask_and_settle


SETTLED: dict[str, tuple[Callable[[Any], Any], Cancelled, Mail | None]] = {
    "removed": (lambda claim: Removing(claim, None, lambda: None), Cancelled.ASKED, None),
    "saved": (lambda claim: Saving(claim, "retry", None, None, lambda: None), Cancelled.ASKED, Mail.RETRY),
    "released": (Releasing, Cancelled.REMOVED, None),
}


@pytest.mark.parametrize("how", SETTLED)
async def test_an_owner_that_is_quicker_than_the_request(spool, how):
    """What it has done stands, and nothing is left of the request; what it has given back is removed."""
    settle, answer, queue = SETTLED[how]
    await put(spool, Mail.SEND, "a")
    job = await job_of(spool)
    at_once(spool, settle)
    assert await spool.cancel("a") == Ok(answer)
    assert storage_of(spool).asked_to_cancel() == []
    if queue is None:
        assert await spool.find("a") == Ok(None)
    else:
        assert (await found(spool)).queue is queue
    with pytest.raises(RuntimeError):
        await job.release()


async def test_what_was_given_back_and_is_busy_has_its_request(spool):
    """Whoever has it now is told."""
    await put(spool, Mail.SEND, "a")
    _job = await job_of(spool)
    at_once(spool, Releasing)
    claim, storage_of(spool).claim = storage_of(spool).claim, lambda *_, **__: Unavailable.BUSY
    assert await spool.cancel("a", reason="x") == Ok(Cancelled.ASKED)
    storage_of(spool).claim = claim
    assert (await found(spool)).cancellation is not None


async def test_the_block_of_a_job_that_is_settled_is_not_cancelled(spool):
    """The request was about work that is over."""
    await put(spool, Mail.SEND, "a")
    job = await job_of(spool)
    (await spool.cancel("a")).unwrap()
    await told(job)
    (await job.save(Mail.RETRY)).unwrap()
    went_on = []
    async with job:
        await anyio.lowlevel.checkpoint()
        went_on.append(True)
    assert went_on == [True]


async def test_work_that_holds_all_threads_is_told(place):
    """A spool that shares its limiter with them looks for requests all the same."""
    limiter = anyio.CapacityLimiter(1)
    spool, other = await quick_spool(place, limiter=limiter), await load_spool(place)
    await put(spool, Mail.SEND, "a")
    async with await job_of(spool) as job, limiter:
        (await other.cancel("a")).unwrap()
        await anyio.sleep_forever()
    assert job.cancel_requested


async def test_a_request_that_is_overtaken_while_one_looks_for_it_is_about_no_other_work(tmp_path):
    """The same process has the entry in hand again, from the next queue."""
    spool, other = await quick_spool(tmp_path / "spool"), await load_spool(tmp_path / "spool")
    await put(spool, Mail.SEND, "a")
    job, storage = await job_of(spool), storage_of(spool)
    looking, go_on, cancellation = threading.Event(), threading.Event(), storage.cancellation

    def held_up(queue: str, name: str) -> CancelRequest | None:
        found: CancelRequest | None = cancellation(queue, name)
        looking.set()
        assert go_on.wait(60)
        return found

    storage.cancellation = held_up
    (await other.cancel("a")).unwrap()
    while not looking.is_set():
        await breathe()
    (await job.save(Mail.RETRY)).unwrap()
    again = (await spool.entry(Mail.RETRY, "a").unwrap().checkout()).unwrap()
    go_on.set()
    storage.cancellation = cancellation
    await is_not_told(spool, again)


# In another process


def work_for_ever(parent: Any, path: str) -> None:
    """Begin with two entries, tell of each, and wait until both are cancelled."""
    import trio

    from helpers.spools import MAIL, Mail
    from trio_multispool import Save, Spool

    async def handle(metadata: Any, _data: object) -> Remove:
        parent.say("begun", metadata.recipient)
        try:
            await trio.sleep_forever()
        finally:
            parent.say("ended", metadata.recipient)

    async def main() -> None:
        spool = (await Spool.load(path, MAIL)).unwrap()
        async with spool.reader(Mail.SEND) as reader:
            (await reader.iter(handle, concurrency=2, on_cancel=Save(Mail.FAILED))).unwrap()

    trio.run(main)


async def test_the_owner_is_another_process(place):
    """It is told by the kernel, also by the first request of a spool, and of each alone."""
    spool = await quick_spool(place)
    await put(spool, Mail.SEND, "a", "b")
    with Child(work_for_ever, place) as child:
        begun = [await anyio.to_thread.run_sync(child.hear) for _ in range(2)]
        assert sorted(begun) == [["begun", "a"], ["begun", "b"]]
        for name in "ab":
            assert await spool.cancel(name, reason="from here") == Ok(Cancelled.ASKED)
            assert await anyio.to_thread.run_sync(child.hear) == ["ended", name]
            where = (await spool.wait(name, until=Mail.FAILED)).unwrap()
            assert isinstance(where, Found)
            assert where.queue is Mail.FAILED


async def test_what_a_dead_owner_had_is_removed(tmp_path):
    """Nobody has it, though it lies there as checked out; and a request that it did not see any more is gone."""
    spool = await quick_spool(tmp_path / "spool")
    await put(spool, Mail.SEND, "a", "b")
    with Child(work_for_ever, tmp_path / "spool") as child:
        for _ in range(2):
            await anyio.to_thread.run_sync(child.hear)
        os.kill(child.process.pid, 19)  # SIGSTOP
        assert await spool.cancel("a") == Ok(Cancelled.ASKED)
        child.process.kill()
        child.process.wait()
        assert (await found(spool)).state is State.CHECKED_OUT
        assert [await spool.cancel(name) for name in "ab"] == [Ok(Cancelled.REMOVED)] * 2
    assert os.listdir(tmp_path / "spool" / ".cancel") == []
    assert [await spool.find(name) for name in "ab"] == [Ok(None)] * 2


async def test_the_next_owner_of_what_a_dead_one_had_is_told(tmp_path):
    """The request outlives its owner."""
    spool = await quick_spool(tmp_path / "spool")
    await put(spool, Mail.SEND, "a")
    with Child(work_for_ever, tmp_path / "spool") as child:
        await anyio.to_thread.run_sync(child.hear)
        os.kill(child.process.pid, 19)
        assert await spool.cancel("a") == Ok(Cancelled.ASKED)
        child.process.kill()
        child.process.wait()
    handle = Handler("a")
    async with spool.reader(Mail.SEND) as reader:
        (await reader.iter_available(handle, on_cancel=Save(Mail.FAILED))).unwrap()
    assert (await found(spool)).queue is Mail.FAILED


# Requests that are about nothing


async def test_a_request_means_nothing_to_a_later_entry_of_the_name(tmp_path):
    """It was left behind by who made it and was killed; recovery collects it when the name is free again."""
    path = tmp_path / "spool"
    spool = await quick_spool(path)
    await put(spool, Mail.SEND, "a")
    async with await job_of(spool) as job:
        (await spool.cancel("a")).unwrap()
        with anyio.CancelScope(shield=True):
            await told(job)
            content = (path / ".cancel" / "a").read_bytes()
            (await job.remove()).unwrap()
    (path / ".cancel" / "a").write_bytes(content)
    await put(spool, Mail.SEND, "a")
    assert (await found(spool)).cancellation is None
    await is_not_told(spool, await job_of(spool))
    await put(spool, Mail.SEND, "a")
    (path / ".cancel" / "a").write_bytes(content)
    async with await job_of(spool) as job:
        assert await spool.cancel("a") == Ok(Cancelled.ASKED)  # it does not count as asked for
        with anyio.CancelScope(shield=True):
            await told(job)
    (path / ".cancel" / "a").write_bytes(content)
    assert [each.name for each in (await spool.recover()).unwrap()] == ["a"]
    assert os.listdir(path / ".cancel") == []


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100, b'{"of":0}', b"\xff", "directory", "symlink"])
async def test_what_is_no_request_asks_nothing(tmp_path, content):
    """Anybody may write there. A request takes its place, if it can."""
    path = tmp_path / "spool"
    spool = await quick_spool(path)
    await put(spool, Mail.SEND, "a")
    (path / ".cancel").mkdir()
    if content == "directory":
        (path / ".cancel" / "a").mkdir()
    elif content == "symlink":
        (path / ".cancel" / "a").symlink_to("/etc/hostname")
    else:
        (path / ".cancel" / "a").write_bytes(content)
    await is_not_told(spool, await job_of(spool))
    await put(spool, Mail.SEND, "a")
    async with await job_of(spool) as job:
        answer = await spool.cancel("a")
        if content == "directory":
            assert isinstance(answer, Err)
            assert str(path / ".cancel" / "a") in str(answer.error)
            (await job.remove()).unwrap()
        else:
            assert answer == Ok(Cancelled.ASKED)
            await anyio.sleep_forever()


@pytest.mark.parametrize("instead", ["file", "symlink"])
async def test_something_else_in_the_place_of_the_requests_hides_nothing(tmp_path, instead):
    """Entries are found, removed and worked on; what is in hand cannot be cancelled."""
    path = tmp_path / "spool"
    spool = await quick_spool(path)
    await put(spool, Mail.SEND, "a", "b")
    if instead == "file":
        (path / ".cancel").write_bytes(b"")
    else:
        (path / ".cancel").symlink_to(tmp_path)
    assert (await found(spool)).cancellation is None
    assert await spool.cancel("a") == Ok(Cancelled.REMOVED)
    assert state_of(path).faults() == []
    async with await job_of(spool, "b") as job:
        answer = await spool.cancel("b")
        assert isinstance(answer, Err)
        assert isinstance(answer.error, NotARegularFile)
        (await job.remove()).unwrap()
    assert state_of(path).faults() == []


# The one who listens


def test_the_kernel_tells_of_requests(place):
    """The clock stands still: nobody looks by himself. Also where another made the directory before."""

    async def main() -> None:
        spool = await quick_spool(place)
        for name in "ab":
            await put(spool, Mail.SEND, name)
            async with await job_of(spool, name):
                other = await load_spool(place)
                assert await other.cancel(name) == Ok(Cancelled.ASKED)
                other.close()
                await trio.sleep_forever()
            assert await spool.find(name) == Ok(None)

    trio.run(main, clock=trio.testing.MockClock())


class NoWatch:
    """A watch that watches nothing, because no more are left."""

    def __init__(self) -> None:
        self.closed = False

    def add(self, _queue: str) -> None:
        """Refuse."""
        raise OutOfSpace("watch", "somewhere", "no watches are left")

    def close(self) -> None:
        """Note it."""
        self.closed = True


@pytest.mark.parametrize("left", ["no instance", "no watch"])
def test_where_the_kernel_cannot_tell_one_looks_once_a_second(tmp_path, caplog, left):
    """The log says so once; nothing is left open."""
    watches: list[NoWatch] = []

    async def main() -> None:
        spool = await quick_spool(tmp_path / "spool")
        storage_of(spool).watch_cancellations = refuse
        for name in "ab":
            await put(spool, Mail.SEND, name)
            async with await job_of(spool, name):
                assert await spool.cancel(name) == Ok(Cancelled.ASKED)
                await trio.sleep_forever()
            assert await spool.find(name) == Ok(None)

    def refuse() -> NoWatch:
        if left == "no instance":
            raise OutOfSpace("watch", "somewhere", "no watches are left")
        watches.append(NoWatch())
        return watches[-1]

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.01))
    [record] = [record for record in caplog.records if record.name == "trio_multispool"]
    assert record.event == "multispool.polling"
    assert "looked for by polling" in record.getMessage()
    assert all(watch.closed for watch in watches)


def opened() -> set[str]:
    """Return the descriptors that are open, without that of the listing."""
    return {number for number in open_descriptors() if os.path.exists(f"/proc/self/fd/{number}")}


async def test_nothing_is_left_when_the_spool_is_closed(place):
    """No task that listens, and no descriptor."""
    before = opened()
    spool = await quick_spool(place)
    await put(spool, Mail.SEND, "a")
    async with await job_of(spool) as job:
        (await spool.cancel("a")).unwrap()
        with anyio.CancelScope(shield=True):
            await told(job)
    spool.close()
    while opened() - before:
        await breathe()


async def test_who_listens_keeps_no_spool_open(place):
    """One that is dropped is closed as if nobody listened."""
    before = opened()
    spool = await quick_spool(place)
    await put(spool, Mail.SEND, "a")
    async with await job_of(spool) as job:
        (await spool.cancel("a")).unwrap()
        with anyio.CancelScope(shield=True):
            await told(job)
    del spool, job
    while opened() - before:
        gc.collect()
        await breathe()


def test_another_event_loop_listens_in_its_turn(place):
    """Of the same library, once the first has ended."""
    spools = []

    async def main() -> None:
        if not spools:
            spools.append(await quick_spool(place))
        [spool] = spools
        await put(spool, Mail.SEND, "a")
        async with await job_of(spool):
            (await spool.cancel("a")).unwrap()
            with anyio.fail_after(30):
                await anyio.sleep_forever()

    for backend in ("trio", "asyncio"):
        spools.clear()
        for _ in range(2):
            anyio.run(main, backend=backend)
        spools[0].close()


def test_an_event_loop_that_ended_without_its_tasks_is_followed_by_another(place):
    """Nobody listens in it any more, and the next one's reader does not wait for that."""
    spools = []

    async def hold() -> None:
        spools.append(await quick_spool(place))
        await put(spools[0], Mail.SEND, "a", "b")
        spools.append(await job_of(spools[0], "b"))

    async def work() -> None:
        spool, job = spools
        (await job.release()).unwrap()
        async with spool.reader(Mail.SEND) as reader, (await reader.dequeue()).unwrap():
            (await spool.cancel("a")).unwrap()
            with anyio.fail_after(30):
                await anyio.sleep_forever()
        spool.close()

    for main in (hold, work):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(asyncio.wait_for(main(), 60) if main is work else main())
        loop.close()


async def test_a_bug_of_who_listens_is_logged_and_ends_nothing(tmp_path, caplog):
    """The program works on."""
    spool = await quick_spool(tmp_path / "spool")

    def fail() -> None:
        raise ZeroDivisionError("a bug")

    await put(spool, Mail.SEND, "a", "b")
    for name in "ab":
        async with await job_of(spool, name) as job:
            storage_of(spool).asked_to_cancel = fail
            (await spool.cancel(name)).unwrap()
            while not caplog.records:
                await breathe()
            (await job.remove()).unwrap()
    [record] = caplog.records
    assert record.event == "multispool.not_listening"
    assert "a bug" in record.getMessage()
    spool.close()

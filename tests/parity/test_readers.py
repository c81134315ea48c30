"""The rows of the original's `Queue_reader` and `Expert.Queue_reader`."""

from __future__ import annotations

import errno
import threading

import anyio
import anyio.lowlevel
import pytest

from helpers.calls import FailingCalls
from helpers.spools import ANNE, BERT, Envelope, Mail, contents, load_spool, names_in, put, quick_spool, state_of
from trio_multispool import (
    DataFile,
    EncodingFailed,
    Err,
    Ok,
    OutOfSpace,
    Release,
    Remove,
    Save,
    StorageFailure,
    TooManyOpenFiles,
)

pytestmark = pytest.mark.anyio


async def three(tmp_path, **options):
    """Make a spool with three entries."""
    spool = await quick_spool(tmp_path / "spool", **options)
    await put(spool, Mail.SEND, "a", "b", "c")
    return spool


async def remove(metadata: Envelope, data: DataFile[bytes]) -> Remove:
    """Remove the entry."""
    return Remove()


# create


async def test_a_reader_is_a_block_around_the_reading(tmp_path):
    """Before it is entered using it is misuse; after it was left it is closed; and it can be entered once."""
    spool = await three(tmp_path)
    reader = spool.reader(Mail.SEND)
    assert reader.queue is Mail.SEND
    assert "open" in repr(reader)
    for operation in (
        reader.dequeue,
        reader.dequeue_available,
        lambda: reader.iter(remove),
        lambda: anext(aiter(reader)),
    ):
        with pytest.raises(RuntimeError, match="async with"):
            await operation()
    async with reader as entered:
        assert entered is reader
        with pytest.raises(RuntimeError, match="once"):
            await reader.__aenter__()
    assert "closed" in repr(reader)
    with pytest.raises(RuntimeError, match="once"):
        await reader.__aenter__()
    for operation in (
        reader.dequeue,
        reader.dequeue_available,
        lambda: reader.iter(remove),
        lambda: reader.iter_available(remove),
        lambda: anext(aiter(reader)),
        lambda: anext(reader.available()),
    ):
        with pytest.raises(anyio.ClosedResourceError):
            await operation()
    assert await names_in(spool, Mail.SEND) == ["a", "b", "c"]


@pytest.mark.parametrize("interval", [0, -1, float("nan")])
async def test_a_poll_interval_is_a_positive_number_of_seconds(tmp_path, interval):
    """Anything else would spin, and is refused."""
    spool = await quick_spool(tmp_path / "spool")
    with pytest.raises(ValueError, match="poll_interval"):
        spool.reader(Mail.SEND, poll_interval=interval)


@pytest.mark.parametrize("how", ["normally", "by an exception", "by cancellation"])
async def test_leaving_a_readers_block_returns_everything_in_hand(tmp_path, how):
    """Unsettled entries go back unchanged, settled ones stay where they went; exceptions pass."""
    spool = await three(tmp_path)
    before = contents(spool.path)
    error = LookupError()
    jobs = []
    raising = how == "by an exception"
    with pytest.raises(LookupError) if raising else anyio.CancelScope() as scope:  # a body that raises
        async with spool.reader(Mail.SEND) as reader:
            jobs += [(await reader.dequeue()).unwrap() for _ in range(3)]
            (await jobs[1].save(Mail.RETRY)).unwrap()
            assert "2 in hand" in repr(reader)
            if raising:
                raise error
            if how == "by cancellation":
                scope.cancel()
                await anyio.sleep_forever()
    assert not raising or scope.value is error
    assert all(job.settled for job in jobs)
    assert await names_in(spool, Mail.SEND) == ["a", "c"]
    assert await names_in(spool, Mail.RETRY) == ["b"]
    after = contents(spool.path)
    assert {n: after[n] for n in after if "b" not in n} == {n: before[n] for n in before if "b" not in n}
    with pytest.raises(RuntimeError):
        await jobs[0].remove()


async def test_what_cannot_be_returned_when_the_block_is_left_is_raised(tmp_path):
    """One failure bare, several in an `ExceptionGroup`; an exception of the body gets notes instead."""
    for count, body in ((1, False), (2, False), (2, True)):
        calls = FailingCalls()
        spool = await quick_spool(tmp_path / f"{count}{body}", system_calls=calls)
        await put(spool, Mail.SEND, "a", "b")
        error = LookupError()
        with pytest.raises((LookupError, StorageFailure, ExceptionGroup)) as caught:  # noqa: PT012  # a body that raises
            async with spool.reader(Mail.SEND) as reader:
                for _ in range(count):
                    (await reader.dequeue()).unwrap()
                calls.fail("move", errno.EIO, "/.checkout/")
                if body:
                    raise error
        if body:
            assert caught.value is error
            assert len(error.__notes__) == 2
        elif count == 1:
            assert isinstance(caught.value, StorageFailure)
        else:
            assert isinstance(caught.value, ExceptionGroup)
            assert [type(one) for one in caught.value.exceptions] == [StorageFailure, StorageFailure]
        calls.mend()
        await load_spool(spool.path)
        assert state_of(spool.path).names("send") == ["a", "b"]
        assert state_of(spool.path).faults() == []


# dequeue and dequeue_available


async def test_dequeue_gives_one_entry_after_the_other_in_order(tmp_path):
    """Each is checked out; what is in hand is not given again."""
    spool = await three(tmp_path)
    async with spool.reader(Mail.SEND) as reader:
        jobs = [(await reader.dequeue()).unwrap() for _ in range(2)]
        assert [job.name for job in jobs] == ["a", "b"]
        assert (await reader.dequeue_available()).unwrap().name == "c"
        assert await reader.dequeue_available() == Ok(None)


async def test_dequeue_waits_for_an_entry(tmp_path):
    """An entry that comes, by this process or another, ends the waiting."""
    spool = await quick_spool(tmp_path / "spool")
    other = await load_spool(spool.path)
    async with spool.reader(Mail.SEND, poll_interval=0.01) as reader, anyio.create_task_group() as tasks:

        async def work() -> None:
            async with (await reader.dequeue()).unwrap() as job:
                assert job.name == "a"
                (await job.remove()).unwrap()

        tasks.start_soon(work)
        for _ in range(20):
            await spool.entries(Mail.SEND)
        await put(other, Mail.SEND, "a")
    assert state_of(spool.path).faults() == []
    assert state_of(spool.path).entries() == set()


@pytest.mark.parametrize("when", ["before the block", "in the block", "while waiting", "from a thread"])
async def test_a_stopped_reader_gives_no_entry(tmp_path, when):
    """`Ok(None)` of dequeue, and the end of every iteration, from wherever `stop` was called; entries stay."""
    spool = await quick_spool(tmp_path / "spool")
    reader = spool.reader(Mail.SEND, poll_interval=3600)
    if when == "before the block":
        reader.stop()
    async with reader:
        answers = []

        async def wait() -> None:
            answers.append(await reader.dequeue())

        async with anyio.create_task_group() as tasks:
            if when in ("while waiting", "from a thread"):
                tasks.start_soon(wait)
                for _ in range(20):
                    await spool.entries(Mail.SEND)
            if when == "from a thread":
                thread = threading.Thread(target=reader.stop)
                thread.start()
                await anyio.to_thread.run_sync(thread.join)
            elif when != "before the block":
                reader.stop()
            reader.stop()
        assert reader.stopped
        assert answers == ([Ok(None)] if when in ("while waiting", "from a thread") else [])
        await put(spool, Mail.SEND, "a")
        assert await reader.dequeue() == Ok(None)
        assert await reader.dequeue_available() == Ok(None)
        assert await reader.iter(remove) == Ok(None)
        assert await reader.iter_available(remove) == Ok(None)
        assert [job async for job in reader] == []
        assert [job async for job in reader.available()] == []
    assert await names_in(spool, Mail.SEND) == ["a"]


@pytest.mark.parametrize("what", ["dequeue", "dequeue_available", "iter", "iter_available", "async for", "available"])
@pytest.mark.parametrize(
    "trouble",
    [
        ("open", "/.registry/a", errno.EMFILE, TooManyOpenFiles),
        ("regular_files", "/send", errno.EIO, StorageFailure),
        ("move", "/send/a ->", errno.ENOSPC, OutOfSpace),
    ],
)
async def test_trouble_of_the_system_is_an_err_of_reading(tmp_path, what, trouble):
    """`Err`, or raised where there is no place for one; the entries stay, and the reader can go on afterwards."""
    call, on, code, kind = trouble
    calls = FailingCalls()
    spool = await three(tmp_path, system_calls=calls)
    before = contents(spool.path)
    async with spool.reader(Mail.SEND) as reader:
        with calls.failing(call, code, on):
            match what:
                case "async for" | "available":
                    with pytest.raises(kind):
                        await anext(aiter(reader) if what == "async for" else reader.available())
                case "iter" | "iter_available":
                    assert type((await getattr(reader, what)(remove)).error) is kind
                case _:
                    assert type((await getattr(reader, what)()).error) is kind
        assert contents(spool.path) == before
        assert len([job async for job in reader.available()]) >= 2
    assert await names_in(spool, Mail.SEND) == ["a", "b", "c"]


# iter and async for


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_iter_works_until_it_is_stopped(tmp_path, concurrency):
    """Every entry is handled once, what comes later too, and verdicts are stored."""
    spool = await quick_spool(tmp_path / "spool")
    await put(spool, Mail.SEND, "a", "b", "c")
    verdicts = {"a": Remove(), "b": Save(Mail.FAILED, BERT), "c": Save(Mail.RETRY), "later": Remove()}
    seen = []
    async with spool.reader(Mail.SEND, poll_interval=0.01) as reader:

        async def handler(metadata: Envelope, data: DataFile[bytes]):
            assert await data.load() == Ok(b"Hello")
            seen.append(data.name)
            if len(seen) == 3:
                await put(spool, Mail.SEND, "later")
            if data.name == "later":
                reader.stop()
            return verdicts[data.name]

        assert await reader.iter(handler, concurrency=concurrency) == Ok(None)
    assert sorted(seen) == ["a", "b", "c", "later"]
    state = state_of(spool.path)
    assert (state.names("send"), state.names("retry"), state.names("failed")) == ([], ["c"], ["b"])
    assert state.faults() == []


async def test_async_for_gives_jobs_until_it_is_stopped(tmp_path):
    """The entries in hand are finished; leaving the loop early leaves nothing behind."""
    spool = await three(tmp_path)
    async with spool.reader(Mail.SEND) as reader:
        async for job in reader:
            async with job:
                (await job.save(Mail.RETRY)).unwrap()
            if job.name == "b":
                reader.stop()
    assert await names_in(spool, Mail.RETRY) == ["a", "b"]
    async with spool.reader(Mail.SEND) as reader:
        async for job in reader:
            assert job.name == "c"
            break
    assert await names_in(spool, Mail.SEND) == ["c"]


@pytest.mark.parametrize("what", ["iter", "iter_available"])
async def test_handlers_run_at_most_as_many_at_a_time_as_asked_for(tmp_path, what):
    """`concurrency` handlers run together, and no more."""
    spool = await quick_spool(tmp_path / "spool")
    await put(spool, Mail.SEND, *(f"{number:02}" for number in range(12)))
    running = most = done = 0
    together = anyio.Event()
    async with spool.reader(Mail.SEND) as reader:

        async def handler(metadata: Envelope, data: DataFile[bytes]):
            nonlocal running, most, done
            running += 1
            most = max(most, running)
            if running == 3:
                together.set()
            await together.wait()
            running -= 1
            done += 1
            if done == 12:
                reader.stop()
            return Remove()

        assert await getattr(reader, what)(handler, concurrency=3) == Ok(None)
    assert (most, done) == (3, 12)
    assert state_of(spool.path).faults() == []


@pytest.mark.parametrize("what", ["iter", "iter_available"])
async def test_a_concurrency_of_none_is_refused(tmp_path, what):
    """`ValueError`, and nothing is touched."""
    spool = await three(tmp_path)
    async with spool.reader(Mail.SEND) as reader:
        with pytest.raises(ValueError, match="concurrency"):
            await getattr(reader, what)(remove, concurrency=0)
    assert await names_in(spool, Mail.SEND) == ["a", "b", "c"]


@pytest.mark.parametrize("what", ["iter", "iter_available"])
@pytest.mark.parametrize("concurrency", [1, 2])
async def test_what_a_handler_raises_ends_the_iteration_and_returns_every_entry(tmp_path, what, concurrency):
    """With one at a time it is raised bare, in the caller's task; with more, always in a group."""
    spool = await three(tmp_path)
    before = contents(spool.path)
    error = LookupError()
    caller = anyio.get_current_task().id

    async def handler(metadata: Envelope, data: DataFile[bytes]):
        assert (anyio.get_current_task().id == caller) == (concurrency == 1)
        if data.name == "a":
            raise error
        await anyio.sleep_forever()

    with pytest.raises((LookupError, ExceptionGroup)) as caught:
        async with spool.reader(Mail.SEND) as reader:
            await getattr(reader, what)(handler, concurrency=concurrency)
    if concurrency == 1:
        assert caught.value is error
    else:
        assert isinstance(caught.value, ExceptionGroup)
        assert caught.value.exceptions == (error,)
    assert contents(spool.path) == before


@pytest.mark.parametrize("what", ["iter", "iter_available"])
@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_verdict_that_cannot_be_stored_is_the_err_of_the_iteration(tmp_path, what, concurrency):
    """Its entry goes back, and so do those of the handlers that were running, which are cancelled."""
    spool = await three(tmp_path)
    before = contents(spool.path)

    async def handler(metadata: Envelope, data: DataFile[bytes]):
        if data.name == "a":
            return Save(Mail.RETRY, Envelope(object()))
        return await anyio.sleep_forever()

    async with spool.reader(Mail.SEND) as reader:
        answer = await getattr(reader, what)(handler, concurrency=concurrency)
    assert isinstance(answer, Err)
    assert isinstance(answer.error, EncodingFailed)
    assert contents(spool.path) == before


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_handler_that_answers_no_verdict_counts_as_raising_type_error(tmp_path, concurrency):
    """The entry is in its queue, unchanged."""
    spool = await three(tmp_path)
    before = contents(spool.path)

    async def handler(metadata: Envelope, data: DataFile[bytes]):
        return True

    with pytest.raises((TypeError, ExceptionGroup)):
        async with spool.reader(Mail.SEND) as reader:
            await reader.iter(handler, concurrency=concurrency)
    assert contents(spool.path) == before


# iter_available and available


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_iter_available_ends_when_nothing_is_left_and_gives_nothing_twice(tmp_path, concurrency):
    """An entry that comes back to the queue meanwhile waits for the next pass."""
    spool = await three(tmp_path)
    seen = []

    async def handler(metadata: Envelope, data: DataFile[bytes]):
        seen.append(data.name)
        return Release() if data.name == "a" else Save(Mail.SEND, ANNE) if data.name == "b" else Remove()

    async with spool.reader(Mail.SEND) as reader:
        assert await reader.iter_available(handler, concurrency=concurrency) == Ok(None)
        assert sorted(seen) == ["a", "b", "c"]
        assert await reader.iter_available(handler) == Ok(None)
    assert sorted(seen) == ["a", "a", "b", "b", "c"]
    assert await names_in(spool, Mail.SEND) == ["a", "b"]


async def test_available_goes_over_what_is_there_now(tmp_path):
    """It does not wait, gives nothing twice, and an empty queue is the end."""
    spool = await three(tmp_path)
    seen = []
    async with spool.reader(Mail.SEND) as reader:
        async for job in reader.available():
            async with job:
                seen.append(job.name)
        assert seen == ["a", "b", "c"]
    async with spool.reader(Mail.RETRY) as reader:
        assert [job async for job in reader.available()] == []
        assert await reader.dequeue_available() == Ok(None)


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_many_readers_hand_every_entry_to_exactly_one(tmp_path, concurrency):
    """Readers of one process and of several spools share a queue without doubling or losing anything."""
    spool = await quick_spool(tmp_path / "spool")
    names = [f"{number:02}" for number in range(40)]
    await put(spool, Mail.SEND, *names)
    seen = []

    async def handler(metadata: Envelope, data: DataFile[bytes]):
        seen.append(data.name)
        await anyio.lowlevel.checkpoint()
        return Save(Mail.RETRY)

    async def read(mine) -> None:
        async with mine.reader(Mail.SEND) as reader:
            (await reader.iter_available(handler, concurrency=concurrency)).unwrap()

    async with anyio.create_task_group() as tasks:
        for mine in (spool, spool, await load_spool(spool.path), await load_spool(spool.path)):
            tasks.start_soon(read, mine)
    assert sorted(seen) == names
    assert await names_in(spool, Mail.RETRY) == names
    assert state_of(spool.path).faults() == []


async def test_a_reader_recovers_what_the_dead_had_of_its_queue(tmp_path):
    """Without loading the spool again, and without touching what the living have."""
    spool = await three(tmp_path)
    async with (await spool.entry(Mail.SEND, "b").unwrap().checkout()).unwrap():
        (spool.path / "send" / "a").rename(spool.path / "send" / ".checkout" / "a")
        async with spool.reader(Mail.SEND) as reader:
            assert [job.name async for job in reader.available()] == ["a", "c"]
        assert state_of(spool.path).places("b") == ["send/.checkout"]
    assert state_of(spool.path).faults() == []

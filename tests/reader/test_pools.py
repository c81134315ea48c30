"""Worker pools: so many handlers at a time, their time limits and failures, and how a reader is drained."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio
import trio.testing

from helpers.gates import breathe
from helpers.inside import waiters_of, wrap_looks
from helpers.spools import Mail, make_spool, put, state_of
from trio_multispool import Ok, Release, Remove, Save

if TYPE_CHECKING:
    from helpers.spools import Location


@pytest.mark.anyio
@pytest.mark.parametrize("concurrency", [1, 3])
async def test_no_more_entries_are_in_hand_than_can_be_worked(concurrency: int, place: Location) -> None:
    """With ten entries waiting and N handlers at work, N are checked out."""
    async with await make_spool(place) as spool:
        await put(spool, Mail.SEND, *(f"{number}" for number in range(10)))
        go, started = anyio.Event(), 0

        async def handler(_metadata: Any, _data: Any) -> Any:
            nonlocal started
            started += 1
            await go.wait()
            return Remove()

        async with spool.reader(Mail.SEND) as reader, anyio.create_task_group() as tasks:

            async def read() -> None:
                (await reader.iter_available(handler, concurrency=concurrency)).unwrap()

            tasks.start_soon(read)
            while started < concurrency:
                await breathe()
            await breathe()
            assert len(state_of(spool.location).checked_out["send"]) == concurrency
            go.set()
        assert started == 10
        assert state_of(spool.location).entries() == set()


@pytest.mark.parametrize("limit", [5, 5.0, datetime.timedelta(seconds=5)])
@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_handler_that_takes_too_long_is_cancelled_and_raises_a_timeout(
    limit: Any, concurrency: int, place: Location, autojump_clock: Any
) -> None:
    """It counts as raising `TimeoutError`, bare with one handler and in a group with more; its entry is back."""
    async with await make_spool(place) as spool:
        await put(spool, Mail.SEND, "slow")
        before = state_of(spool.location)

        async def handler(_metadata: Any, _data: Any) -> Any:
            await trio.sleep_forever()

        async with spool.reader(Mail.SEND) as reader:
            began = trio.current_time()
            with pytest.raises(TimeoutError if concurrency == 1 else ExceptionGroup) as raised:
                await reader.iter(handler, concurrency=concurrency, time_limit=limit)
            assert 5 <= trio.current_time() - began < 60
        if isinstance(raised.value, ExceptionGroup):
            assert [type(error) for error in raised.value.exceptions] == [TimeoutError]
        assert state_of(spool.location) == before


@pytest.mark.parametrize(("concurrency", "prefetch"), [(1, 0), (2, 0), (1, 2)])
async def test_a_time_limit_is_for_the_handler_and_not_for_storing_its_verdict(
    concurrency: int, prefetch: int, place: Location, mock_clock: trio.testing.MockClock
) -> None:
    """A handler that has answered is done, though its time is over by then, and what it answered is stored."""
    async with await make_spool(place) as spool:
        await put(spool, Mail.SEND, "1", "2", "3")

        async def handler(_metadata: Any, _data: Any) -> Any:
            mock_clock.jump(100)
            return Save(Mail.RETRY)

        async with spool.reader(Mail.SEND) as reader:
            answer = await reader.iter_available(handler, concurrency=concurrency, prefetch=prefetch, time_limit=5)
        assert answer == Ok(None)
        assert state_of(spool.location).names("retry") == ["1", "2", "3"]


@pytest.mark.sample
@pytest.mark.anyio
async def test_a_pool_that_found_nothing_to_fetch_ahead_does_not_look_again_and_again(place: Location) -> None:
    """It looks when a handler asks, and not before."""
    async with await make_spool(place) as spool:
        await put(spool, Mail.SEND, "1")
        begun, go, hops = anyio.Event(), anyio.Event(), list[bool]()

        async def handler(_metadata: Any, _data: Any) -> Any:
            begun.set()
            await go.wait()
            return Remove()

        async with spool.reader(Mail.SEND) as reader, anyio.create_task_group() as tasks:

            def counting(look: Any) -> Any:
                hops.append(go.is_set())
                return look()

            wrap_looks(reader, counting)

            async def read() -> None:
                (await reader.iter_available(handler, prefetch=4)).unwrap()

            tasks.start_soon(read)
            await begun.wait()
            while len(hops) < 2:
                await breathe()
            for _ in range(20):
                await breathe()
            go.set()
        assert hops == [False, False, True]  # for the handler; ahead, in vain; and when the handler asks again


@pytest.mark.anyio
@pytest.mark.parametrize("concurrency", [1, 3])
async def test_on_error_decides_what_becomes_of_an_entry_whose_handler_raised(
    concurrency: int, place: Location
) -> None:
    """The iteration goes on, and each entry is where its verdict says."""
    async with await make_spool(place) as spool:
        await put(spool, Mail.SEND, "bad", "good", "worse")
        told: list[tuple[str, str]] = []

        async def handler(metadata: Any, _data: Any) -> Any:
            if metadata.recipient != "good":
                raise LookupError(metadata.recipient)
            return Remove()

        def on_error(metadata: Any, error: Exception) -> Any:
            told.append((metadata.recipient, str(error)))
            return Save(Mail.FAILED) if metadata.recipient == "bad" else Release()

        async with spool.reader(Mail.SEND) as reader:
            assert await reader.iter_available(handler, concurrency=concurrency, on_error=on_error) == Ok(None)
        assert sorted(told) == [("bad", "bad"), ("worse", "worse")]
        state = state_of(spool.location)
        assert (state.names("failed"), state.names("send")) == (["bad"], ["worse"])


@pytest.mark.anyio
async def test_on_error_is_not_asked_about_a_cancellation(place: Location) -> None:
    """A cancelled handler's entry goes back without a word."""
    async with await make_spool(place) as spool:
        await put(spool, Mail.SEND, "one")
        before = state_of(spool.location)
        told: list[Exception] = []

        def on_error(_metadata: Any, error: Exception) -> Any:
            told.append(error)
            return Remove()

        with anyio.CancelScope() as scope:

            async def handler(_metadata: Any, _data: Any) -> Any:
                scope.cancel()
                await anyio.sleep_forever()

            async with spool.reader(Mail.SEND) as reader:
                await reader.iter(handler, on_error=on_error)
        assert told == []
        assert state_of(spool.location) == before


@pytest.mark.anyio
async def test_what_on_error_raises_ends_the_iteration(place: Location) -> None:
    """It passes through as the same object, and the entry is back."""
    async with await make_spool(place) as spool:
        await put(spool, Mail.SEND, "one")
        before = state_of(spool.location)
        trouble = ValueError("on_error is broken")

        async def handler(_metadata: Any, _data: Any) -> Any:
            raise LookupError

        def on_error(_metadata: Any, _error: Exception) -> Any:
            raise trouble

        async with spool.reader(Mail.SEND) as reader:
            with pytest.raises(ValueError, match="broken") as raised:
                await reader.iter(handler, on_error=on_error)
        assert raised.value is trouble
        assert state_of(spool.location) == before


async def test_a_drained_reader_lets_those_in_hand_finish_and_then_cancels(
    place: Location, autojump_clock: Any
) -> None:
    """What is done within the time is settled, what is not goes back, nothing new is taken, and nothing is raised."""
    async with await make_spool(place) as spool:
        await put(spool, Mail.SEND, "1-quick", "2-slow", "3-waiting")

        both, draining = trio.Event(), trio.Event()

        async def handler(metadata: Any, _data: Any) -> Any:
            if metadata.recipient == "1-quick":
                await both.wait()  # the clock jumps also while a thread is at work: begin when both are in hand
                reader.drain(timeout=10)
                draining.set()
                await trio.sleep(5)
            else:
                both.set()
                await draining.wait()
                await trio.sleep(100)
            return Remove()

        async with spool.reader(Mail.SEND) as reader:
            await reader.iter(handler, concurrency=2)
            raise AssertionError("the block was cancelled with the iteration")
        state = state_of(spool.location)
        assert state.names("send") == ["2-slow", "3-waiting"]
        assert state.faults() == []


@pytest.mark.anyio
async def test_a_drain_cancels_what_is_left_inside_the_block_and_is_absorbed_at_its_exit(place: Location) -> None:
    """A loop by hand ends too: its job goes back, and the code after the block goes on."""
    async with await make_spool(place) as spool:
        await put(spool, Mail.SEND, "one")
        before = state_of(spool.location)
        async with spool.reader(Mail.SEND) as reader:
            async for job in reader:
                async with job:
                    reader.drain(timeout=0)
                    await anyio.sleep_forever()
        assert state_of(spool.location) == before
        assert isinstance(await spool.entries(Mail.SEND), Ok)


@pytest.mark.anyio
async def test_a_drain_does_not_hide_what_the_block_raises(place: Location) -> None:
    """The body's exception leaves as the same object."""
    async with await make_spool(place) as spool:
        trouble = LookupError("no such recipient")

        async def drain_and_raise() -> None:
            async with spool.reader(Mail.SEND) as reader:
                reader.drain(timeout=3600)
                raise trouble

        with pytest.raises(LookupError) as raised:
            await drain_and_raise()
        assert raised.value is trouble


@pytest.mark.anyio
async def test_a_drained_reader_that_was_idle_ends_at_once(place: Location) -> None:
    """There is nothing in hand to wait for, although there would have been an hour."""
    async with await make_spool(place) as spool, anyio.create_task_group() as tasks:

        async def handler(_metadata: Any, _data: Any) -> Any:
            raise AssertionError("there is no entry")

        async def read() -> None:
            async with spool.reader(Mail.SEND, poll_interval=3600) as reader:
                started.append(reader)
                assert await reader.iter(handler) == Ok(None)

        started: list[Any] = []
        tasks.start_soon(read)
        while not waiters_of(spool):
            await breathe()
        await anyio.to_thread.run_sync(started[0].drain, 3600)


@pytest.mark.anyio
@pytest.mark.parametrize("wrong", [-1, float("nan"), datetime.timedelta(seconds=-1)])
async def test_a_duration_that_is_none_is_refused(wrong: Any, place: Location) -> None:
    """Neither a time limit nor a drain takes what is negative or no number, and nothing is stopped."""

    async def handler(_metadata: Any, _data: Any) -> Any:
        return Remove()

    async with await make_spool(place) as spool, spool.reader(Mail.SEND) as reader:
        with pytest.raises(ValueError, match="duration"):
            await reader.iter(handler, time_limit=wrong)
        with pytest.raises(ValueError, match="duration"):
            reader.drain(wrong)
        assert not reader.stopped

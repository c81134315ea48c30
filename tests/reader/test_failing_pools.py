"""A pool that is over because a handler failed, or by a cancellation: what it had is back, and it hands nothing out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from helpers.gates import Gates, Hold, breathe, let_go_at_last
from helpers.inside import dequeuer_of
from helpers.spools import Envelope, Mail, names_in, put, quick_spool, state_of
from trio_multispool import EncodingFailed, Err, Release, Retry, Save
from trio_multispool.storage.requests import Releasing

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.spools import Location

pytestmark = pytest.mark.anyio


class Failing:
    """A handler that fails at the entry `1`, in some way, when it is told to; it has no other entry to do."""

    def __init__(self, how: str) -> None:
        """Begin with nothing handled."""
        self._how = how
        self.begun: list[str] = []
        self.fail = anyio.Event()

    async def __call__(self, _metadata: Any, data: Any) -> Any:
        """Fail."""
        self.begun.append(data.name)
        await self.fail.wait()
        match self._how:
            case "raises" | "raises where `on` raises":
                raise LookupError("no such recipient")
            case "answers no verdict":
                return None
            case _:
                return Save(Mail.RETRY, Envelope(object()))  # type: ignore[arg-type]  # that is the mistake


def held_after_returning(spool: Any) -> Hold:
    """Hold the next batch that returns an entry when the store has done it, and nobody has been told."""
    hold, settlements = Hold(), spool._session.settlements
    perform = settlements._perform

    def perform_and_hold(batch: Any) -> Any:
        answers = perform(batch)
        if any(isinstance(each, Releasing) for each in batch):
            settlements._perform = perform
            hold.wait()
        return answers

    settlements._perform = perform_and_hold
    return hold


HOW = ["raises", "answers no verdict", "cannot be stored", "raises where `on` raises"]


def passing_on(error: Exception) -> bool:
    """Be what `on` should not be: one that raises."""
    raise error


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("prefetch", [0, 3])
async def test_an_entry_that_failed_does_not_come_round_though_a_hop_is_under_way(
    how: str, prefetch: int, tmp_path: Path
) -> None:
    """It goes back, and a hop that was under way finds it there; the pool ends, and its handler is called once."""
    gates = Gates()
    async with await quick_spool(tmp_path / "spool", system_calls=gates) as spool:
        await put(spool, Mail.SEND, "1")
        before = state_of(spool.location)
        handler, answers = Failing(how), list[Any]()
        retry = Retry(on=passing_on, dead_letter=Mail.FAILED) if "`on`" in how else None

        async def read() -> None:
            try:
                answers.append(await reader.iter(handler, concurrency=2, prefetch=prefetch, retry=retry))
            except ExceptionGroup as group:
                answers.extend(group.exceptions)

        async with spool.reader(Mail.SEND) as reader, anyio.create_task_group() as tasks:
            first, second = gates.hold("regular_files", "send"), gates.hold("regular_files", "send")
            returned = held_after_returning(spool)
            with let_go_at_last(first, second, returned):
                tasks.start_soon(read)
                await first.reached()
                first.go()
                await second.reached()  # one handler has the entry, and a hop is looking for another one
                while not handler.begun:
                    await breathe()
                handler.fail.set()
                await returned.reached()  # the entry is back, and free; the pool has not been told yet
                second.go()
                while len(dequeuer_of(reader)) < 2:  # the hop has had the entry
                    await breathe()
                for _ in range(5):
                    await breathe()
                assert handler.begun == ["1"]
        assert handler.begun == ["1"]
        if how == "cannot be stored":
            assert isinstance(answers[0], Err)
            assert isinstance(answers[0].error, EncodingFailed)
        else:
            assert [type(error) for error in answers] == [TypeError if how == "answers no verdict" else LookupError]
        assert state_of(spool.location) == before


@pytest.mark.sample
@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_note_names_the_entry_whose_handler_raised(concurrency: int, place: Location) -> None:
    """With one handler on what is raised bare, and with more on what is in the group."""
    async with await quick_spool(place) as spool:
        await put(spool, Mail.SEND, "1")
        handler = Failing("raises")
        handler.fail.set()
        async with spool.reader(Mail.SEND) as reader:
            with pytest.raises((LookupError, ExceptionGroup)) as raised:
                await reader.iter(handler, concurrency=concurrency)
        error = raised.value.exceptions[0] if isinstance(raised.value, ExceptionGroup) else raised.value
        assert isinstance(error, LookupError)
        assert error.__notes__ == ["while entry '1' of queue 'send' was handled"]


@pytest.mark.parametrize(("concurrency", "prefetch"), [(2, 0), (1, 2)])
async def test_an_iteration_that_is_cancelled_ends_when_its_hop_has(
    concurrency: int, prefetch: int, tmp_path: Path
) -> None:
    """What the thread has just checked out for it is back by then, while the reader stays open."""
    gates, scope = Gates(), anyio.CancelScope()
    async with await quick_spool(tmp_path / "spool", system_calls=gates) as spool:
        await put(spool, Mail.SEND, "1", "2", "3")
        handler, at_the_end = Failing("raises"), list[Any]()
        async with spool.reader(Mail.SEND) as reader, anyio.create_task_group() as tasks:

            async def read() -> None:
                with scope:
                    await reader.iter(handler, concurrency=concurrency, prefetch=prefetch)
                at_the_end.append(state_of(spool.location).names("send"))

            taken = gates.hold("move", "send/.checkout/1", after=True)
            with let_go_at_last(taken):
                tasks.start_soon(read)
                await taken.reached()
                scope.cancel()
                for _ in range(5):
                    await breathe()
                assert at_the_end == []
            while not at_the_end:
                await breathe()
            assert at_the_end == [["1", "2", "3"]]
        assert handler.begun == []


# asyncio: a handler that cancels itself


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(("concurrency", "prefetch"), [(2, 0), (3, 2)])
@pytest.mark.parametrize("how", ["raises it", "awaits what was cancelled"])
async def test_a_handler_that_ends_with_a_cancellation_of_its_own_ends_the_pool(
    how: str, concurrency: int, prefetch: int, anyio_backend: str, place: Location
) -> None:
    """A task group forgets a child that cancels itself; the pool says what has happened, and every entry is back."""
    async with await quick_spool(place) as spool:
        await put(spool, Mail.SEND, "1", "2", "3", "4")
        begun: list[str] = []

        async def handler(_metadata: Any, data: Any) -> Any:
            begun.append(data.name)
            if data.name != "1":
                return Release()
            if how == "raises it":
                raise asyncio.CancelledError
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            return await future

        async with spool.reader(Mail.SEND) as reader:
            with pytest.raises(ExceptionGroup) as raised:
                await reader.iter(handler, concurrency=concurrency, prefetch=prefetch)
            assert [type(error) for error in raised.value.exceptions] == [RuntimeError]
            assert "cancellation of its own" in str(raised.value.exceptions[0])
            assert begun.count("1") == 1
            assert await names_in(spool, Mail.SEND) == ["1", "2", "3", "4"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_lone_handlers_own_cancellation_passes_through(anyio_backend: str, place: Location) -> None:
    """As in any function that the caller awaits."""
    async with await quick_spool(place) as spool:
        await put(spool, Mail.SEND, "1")
        cancelled = asyncio.CancelledError()

        async def handler(_metadata: Any, _data: Any) -> Any:
            raise cancelled

        async with spool.reader(Mail.SEND) as reader:
            with pytest.raises(asyncio.CancelledError) as raised:
                await reader.iter(handler)
            assert raised.value is cancelled
            assert await names_in(spool, Mail.SEND) == ["1"]

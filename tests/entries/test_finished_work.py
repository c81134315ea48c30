"""Work that is finished is settled: a verdict that was returned is stored, whatever is cancelled by then."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest

from helpers.calls import FailingCalls
from helpers.gates import Gates, Hold, breathe
from helpers.spools import Mail, make_spool, put, quick_spool, state_of
from trio_multispool import Err, Ok, OutOfSpace, Release, Remove, Retention, Retry, Save
from trio_multispool.instrumentation import Instrumentation

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from helpers.spools import Location

pytestmark = pytest.mark.anyio

RETRY: Any = Retry(attempts=3, dead_letter=Mail.FAILED)


async def with_entry(spool: Any, handler: Any) -> Any:
    """Give the entry to the handler by its name."""
    [entry] = (await spool.entries(Mail.SEND)).unwrap()
    return await spool.with_entry(entry, handler)


async def try_with_entry(spool: Any, handler: Any) -> Any:
    """The same, unless it is gone or busy."""
    [entry] = (await spool.entries(Mail.SEND)).unwrap()
    return await spool.try_with_entry(entry, handler)


def iterating(**options: Any) -> Any:
    """Give the entry to the handler from a reader."""

    async def iterate(spool: Any, handler: Any) -> Any:
        async with spool.reader(Mail.SEND) as reader:
            return await reader.iter_available(handler, **options)

    return iterate


async def expiring(spool: Any, handler: Any) -> Any:
    """Have the handler say what becomes of an entry that is too many."""
    return await spool.expire(Mail.SEND, Retention(max_count=0), before_expiry=handler)


WAYS: dict[str, Any] = {
    "with_entry": with_entry,
    "try_with_entry": try_with_entry,
    "iter": iterating(),
    "iter, retry": iterating(retry=RETRY),
    "pool": iterating(concurrency=3),
    "pool, retry": iterating(concurrency=3, retry=RETRY),
    "pool, prefetch": iterating(concurrency=2, prefetch=2),
    "expire": expiring,
}

VERDICTS = {"remove": Remove(), "save": Save(Mail.FAILED), "release": Release()}

WHERE = {"remove": [], "save": ["failed"], "release": ["send"]}
"""Where the entry is when the verdict has been stored."""


@pytest.mark.parametrize("verdict", VERDICTS)
@pytest.mark.parametrize("way", WAYS)
async def test_a_verdict_that_was_returned_in_a_cancelled_scope_is_stored(
    way: str, verdict: str, place: Location
) -> None:
    """The handler has seen no exception: its work is done, and must not be done again."""
    async with await make_spool(place) as spool:
        await put(spool, Mail.SEND, "one")
        handled: list[str] = []
        with anyio.CancelScope() as scope:

            async def handler(_metadata: Any, data: Any) -> Any:
                handled.append(data.name)
                scope.cancel()
                return VERDICTS[verdict]

            await WAYS[way](spool, handler)
            await anyio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        assert handled == ["one"]
        assert state_of(spool.location).places("one") == WHERE[verdict]
        assert state_of(spool.location).faults() == []


@pytest.mark.sample
async def test_with_entry_answers_in_a_cancelled_scope_what_it_has_done(place: Location) -> None:
    """It happened, so it returns; the cancellation takes effect at the next checkpoint."""
    async with await make_spool(place) as spool:
        [entry] = await put(spool, Mail.SEND, "one")
        with anyio.CancelScope() as scope:

            async def handler(_metadata: Any, _data: Any) -> Any:
                scope.cancel()
                return Remove()

            assert await spool.with_entry(entry, handler) == Ok(Remove())
        assert not scope.cancelled_caught


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("moment", ["before", "in the thread"])
@pytest.mark.parametrize("verdict", VERDICTS)
@pytest.mark.parametrize("way", ["with_entry", "iter", "iter, retry"])
async def test_a_verdict_whose_task_is_cancelled_natively_is_stored_and_that_is_noted(
    way: str, verdict: str, moment: str, anyio_backend: str, tmp_path: Path
) -> None:
    """Before the settling begins, or while it is in its thread."""
    gates, held = Gates(), list[Any]()
    async with await make_spool(tmp_path / "spool", system_calls=gates) as spool:
        await put(spool, Mail.SEND, "one")

        async def handler(_metadata: Any, _data: Any) -> Any:
            if moment == "before":
                asyncio.current_task().cancel()  # type: ignore[union-attr]
            else:
                held.append(gates.hold("unlink" if verdict == "remove" else "move"))
            return VERDICTS[verdict]

        task = asyncio.ensure_future(WAYS[way](spool, handler))
        if moment == "in the thread":
            while not held:
                await breathe()
            await held[0].reached()
            task.cancel()
            for _ in range(5):
                await breathe()
            assert not task.done()
            held[0].go()
        with pytest.raises(asyncio.CancelledError) as raised:
            await task
        assert any("already done when it was cancelled: Ok(" in note for note in raised.value.__notes__)
        assert state_of(spool.location).places("one") == WHERE[verdict]


@pytest.mark.parametrize("options", [{}, {"retry": RETRY}, {"concurrency": 3}, {"concurrency": 2, "prefetch": 2}])
async def test_what_a_thread_has_finished_when_the_drain_runs_out_is_settled(options: Any, place: Location) -> None:
    """A handler in a thread cannot be cancelled: it comes to its end, and its verdict counts."""
    async with await quick_spool(place) as spool:
        await put(spool, Mail.SEND, "one", "two", "three")
        hold = Hold()

        async def handler(_metadata: Any, _data: Any) -> Any:
            await anyio.to_thread.run_sync(hold.wait)
            return Remove()

        async with spool.reader(Mail.SEND) as reader, anyio.create_task_group() as tasks:

            async def drain() -> None:
                await hold.reached()
                reader.drain(0)
                with anyio.CancelScope(shield=True):
                    for _ in range(5):
                        await breathe()
                hold.go()

            tasks.start_soon(drain)
            await reader.iter(handler, **options)
        state = state_of(spool.location)
        assert "one" not in state.entries()
        assert state.faults() == []


@pytest.mark.parametrize("way", WAYS)
async def test_a_verdict_that_cannot_be_stored_in_a_cancelled_scope_is_told_as_without(
    way: str, tmp_path: Path
) -> None:
    """The entry goes back, and the error is what it would have been."""
    calls = FailingCalls()
    async with await make_spool(tmp_path / "spool", system_calls=calls) as spool:
        await put(spool, Mail.SEND, "one")
        with anyio.CancelScope() as scope:

            async def handler(_metadata: Any, _data: Any) -> Any:
                scope.cancel()
                calls.fail("move", errno.ENOSPC, "failed")
                return Save(Mail.FAILED)

            answer = await WAYS[way](spool, handler)
            calls.mend()
        assert isinstance(answer, Err)
        assert isinstance(answer.error, OutOfSpace)
        assert state_of(spool.location).places("one") == ["send"]


@pytest.mark.parametrize("kind", ["scope", "native"])
async def test_a_channels_acknowledgement_is_stored(kind: str, anyio_backend_name: str, place: Location) -> None:
    """The block of what was received ended normally, in a scope or a task that is cancelled."""
    if kind == "native" and anyio_backend_name != "asyncio":
        return  # only asyncio has it
    async with await make_spool(place) as spool, spool.channel(Mail.SEND) as (_send, receive):
        await put(spool, Mail.SEND, "one")

        async def acknowledge(cancelled: Callable[[], Any]) -> None:
            async with await receive.receive():
                cancelled().cancel()

        if kind == "scope":
            with anyio.CancelScope() as scope:
                await acknowledge(lambda: scope)
                await anyio.lowlevel.checkpoint()
            assert scope.cancelled_caught
        else:
            task = asyncio.ensure_future(acknowledge(lambda: task))
            with pytest.raises(asyncio.CancelledError):
                await task
        assert state_of(spool.location).entries() == set()


class Striking(Instrumentation):
    """Cancels a task natively in the turn of the event loop after an entry of its was settled."""

    def __init__(self) -> None:
        """Begin with no task."""
        self.task: asyncio.Task[Any] | None = None

    def on_settle(self, _settled: Any) -> None:
        """Strike."""
        if self.task is not None:
            _ = asyncio.get_running_loop().call_soon(self.task.cancel)


@pytest.mark.parametrize("way", ["with_entry", "try_with_entry", "received"])
async def test_once_a_verdict_is_stored_no_cancellation_hides_that(
    way: str, anyio_backend_name: str, place: Location
) -> None:
    """One that comes right after it finds the operation over: that returns, and raises nothing that has no note."""
    if anyio_backend_name != "asyncio":
        return  # only asyncio has it
    striking = Striking()

    async def handler(_metadata: Any, _data: Any) -> Remove:
        return Remove()

    async with (
        await make_spool(place, instrumentation=striking) as spool,
        spool.channel(Mail.SEND) as (_send, receive),
    ):
        await put(spool, Mail.SEND, "one")

        async def work() -> Any:
            if way != "received":
                return await WAYS[way](spool, handler)
            async with await receive.receive():
                pass
            return Ok(Remove())

        striking.task = task = asyncio.ensure_future(work())
        assert await task == Ok(Remove())
        assert state_of(spool.location).entries() == set()

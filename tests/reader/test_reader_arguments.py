"""What readers and channels are given that they cannot use: it is refused, and no entry is touched."""

from __future__ import annotations

import datetime
import functools
import gc
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from helpers.gates import breathe
from helpers.inside import waiters_of
from helpers.spools import ANNE, MAIL, Mail, put, quick_spool, state_of
from trio_multispool import Remove
from trio_multispool.testing import memory_spool

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

NO_WHOLE_NUMBERS = [1.5, 2.0, "2", None]


async def remove(_metadata: Any, _data: Any) -> Any:
    """Remove the entry."""
    return Remove()


@pytest.mark.parametrize("what", ["iter", "iter_available"])
@pytest.mark.parametrize("argument", ["concurrency", "prefetch"])
@pytest.mark.parametrize("wrong", NO_WHOLE_NUMBERS)
async def test_a_number_of_tasks_or_entries_is_a_whole_number(
    what: str, argument: str, wrong: Any, tmp_path: Path
) -> None:
    """`TypeError`, which names the argument."""
    async with await quick_spool(tmp_path / "spool") as spool:
        await put(spool, Mail.SEND, "1")
        before = state_of(spool.path)
        async with spool.reader(Mail.SEND) as reader:
            with pytest.raises(TypeError, match=argument):
                await getattr(reader, what)(remove, **{argument: wrong})
        assert state_of(spool.path) == before


@pytest.mark.parametrize("wrong", [wrong for wrong in NO_WHOLE_NUMBERS if wrong is not None])
async def test_a_limit_of_a_channel_is_a_whole_number(wrong: Any, tmp_path: Path) -> None:
    """`TypeError`, before the channel is open."""
    async with await quick_spool(tmp_path / "spool") as spool:
        with pytest.raises(TypeError, match="max_entries"):
            spool.channel(Mail.SEND, max_entries=wrong)


@pytest.mark.parametrize("wrong", [None, "text", ANNE, (ANNE,), (ANNE, b"", b""), [ANNE, b""], {ANNE.recipient: b""}])
async def test_a_channel_sends_pairs(wrong: Any, tmp_path: Path) -> None:
    """`TypeError` for anything else, and nothing was sent; the end is as good as before."""
    async with await quick_spool(tmp_path / "spool") as spool:
        before = state_of(spool.path)
        async with spool.channel(Mail.SEND, max_entries=1) as (send, _):
            with pytest.raises(TypeError, match="pairs"):
                await send.send(wrong)
            assert state_of(spool.path) == before
            await send.send((ANNE, b""))


@pytest.mark.parametrize("interval", [datetime.timedelta(hours=1), 3600, 3600.0])
async def test_an_interval_is_a_number_of_seconds_or_a_timedelta(interval: Any) -> None:
    """It is what the reader waits for when something is checked out, and the store tells of changes.

    As one in memory always does: all of this machine's programs share what the kernel has to tell of changes with.
    """
    async with memory_spool(MAIL) as spool, anyio.create_task_group() as tasks:
        await put(spool, Mail.SEND, "1")
        async with spool.reader(Mail.SEND, poll_interval=interval) as reader:
            (await reader.dequeue()).unwrap()
            began = anyio.current_time()
            tasks.start_soon(reader.dequeue)
            while not waiters_of(spool):
                await breathe()
            (waiter,) = waiters_of(spool)
            assert began + 3600 <= waiter.scope.deadline <= anyio.current_time() + 3600
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize("wrong", [datetime.timedelta(0), datetime.timedelta(seconds=-1)])
async def test_an_interval_of_no_length_is_refused(wrong: Any, tmp_path: Path) -> None:
    """It would spin."""
    async with await quick_spool(tmp_path / "spool") as spool:
        with pytest.raises(ValueError, match="poll_interval"):
            spool.reader(Mail.SEND, poll_interval=wrong)


def _alone(raised: BaseException) -> BaseException:
    """Return what a group of one has in it."""
    if not isinstance(raised, ExceptionGroup):
        return raised
    (error,) = raised.exceptions
    return error


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_on_error_is_a_function_that_returns_a_verdict_at_once(concurrency: int, tmp_path: Path) -> None:
    """One that is async is told so by a `TypeError`, with the entry back, and no coroutine is left unawaited."""

    async def handler(_metadata: Any, _data: Any) -> Any:
        raise LookupError("no such recipient")

    async def on_error(_metadata: Any, _error: Exception) -> Any:
        return Remove()

    async with await quick_spool(tmp_path / "spool") as spool:
        await put(spool, Mail.SEND, "1")
        before = state_of(spool.path)
        async with spool.reader(Mail.SEND) as reader:
            with pytest.raises((TypeError, ExceptionGroup)) as raised:
                await reader.iter(handler, concurrency=concurrency, on_error=on_error)  # type: ignore[arg-type]
        error = _alone(raised.value)
        assert isinstance(error, TypeError)
        assert "on_error" in str(error)
        assert isinstance(error.__context__, LookupError)
        assert state_of(spool.path) == before
    del raised, error
    gc.collect()


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_handler_is_an_async_function(concurrency: int, tmp_path: Path) -> None:
    """One that returns its verdict at once is told so by a `TypeError`, and the entry is back."""

    def handler(_metadata: Any, _data: Any) -> Any:
        return Remove()

    async with await quick_spool(tmp_path / "spool") as spool:
        await put(spool, Mail.SEND, "1")
        before = state_of(spool.path)
        async with spool.reader(Mail.SEND) as reader:
            with pytest.raises((TypeError, ExceptionGroup)) as raised:
                await reader.iter(handler, concurrency=concurrency)
        error = _alone(raised.value)
        assert isinstance(error, TypeError)
        assert "async function" in str(error)
        assert error.__notes__ == ["while entry '1' of queue 'send' was handled"]
        assert state_of(spool.path) == before


async def test_a_handler_may_return_any_awaitable(tmp_path: Path) -> None:
    """What returns a coroutine is as good as an async function."""
    async with await quick_spool(tmp_path / "spool") as spool:
        await put(spool, Mail.SEND, "1")
        async with spool.reader(Mail.SEND) as reader:
            (await reader.iter_available(functools.partial(remove))).unwrap()
        assert state_of(spool.path).entries() == set()

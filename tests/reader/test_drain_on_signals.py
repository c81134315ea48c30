"""`drain_on`: signals drain readers, and what the signals did before is as it was."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from helpers.forks import in_a_fork
from helpers.loops import LOOPS, run_plainly
from helpers.spools import Mail, put, quick_spool, state_of
from trio_multispool import Ok, Remove

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOUR = 3600


class Took(list[int]):
    """A handler of signals that notes what it gets."""

    def __call__(self, number: int, _frame: object) -> None:
        """Note it."""
        self.append(number)


@pytest.fixture(autouse=True)
def before() -> Iterator[Took]:
    """Have both signals noted, and check at the end that they still are."""
    took = Took()
    replaced = {number: signal.signal(number, took) for number in (signal.SIGUSR1, signal.SIGUSR2)}
    yield took
    now = [signal.signal(number, handler) for number, handler in replaced.items()]
    assert now == [took, took]


async def send(number: int) -> None:
    """Have a signal come by a thread, so that the event loop may be waiting by then, and let it have its effect."""
    await anyio.to_thread.run_sync(os.kill, os.getpid(), number)
    await anyio.lowlevel.checkpoint()


async def work_until_signalled(tmp_path: Path) -> None:
    """Have a handler at work when the signal comes; it is let finish, and nothing else is begun."""
    busy, go = anyio.Event(), anyio.Event()

    async def handler(_metadata: Any, _data: Any) -> Remove:
        busy.set()
        await go.wait()
        return Remove()

    async def signalled(reader: Any) -> None:
        await busy.wait()
        await send(signal.SIGUSR1)
        while not reader.stopped:  # the handler has no event that it could set
            await anyio.lowlevel.checkpoint()
        go.set()

    async with await quick_spool(tmp_path / "spool") as spool:
        await put(spool, Mail.SEND, "1", "2")
        async with spool.reader(Mail.SEND) as reader, anyio.create_task_group() as tasks:
            reader.drain_on(signal.SIGUSR2, signal.SIGUSR1, timeout=HOUR)
            tasks.start_soon(signalled, reader)
            assert await reader.iter(handler) == Ok(None)
    assert state_of(tmp_path / "spool").names("send") == ["2"]


@pytest.mark.anyio
async def test_a_signal_drains_and_what_it_did_before_is_back(before, tmp_path):
    """What is in hand has its time; the program's own handlers were not called, and stand again."""
    await work_until_signalled(tmp_path)
    assert before == []


@pytest.mark.parametrize("loop", LOOPS)
def test_it_does_so_in_a_program_that_asyncio_runs(loop, before, tmp_path):
    """Also where AnyIO does not run the loop."""
    run_plainly(lambda: work_until_signalled(tmp_path), loop)
    assert before == []


@pytest.mark.parametrize("loop", LOOPS)
def test_a_handler_that_asyncio_has_set_is_called_too_and_one_that_it_sets_later_replaces_ours(loop, place):
    """As the docstring says."""

    async def main() -> tuple[list[int], bool, bool]:
        told: list[int] = []
        asyncios = asyncio.get_running_loop()
        async with (
            await quick_spool(place) as spool,
            spool.reader(Mail.SEND) as first,
            spool.reader(Mail.SEND) as second,
        ):
            asyncios.add_signal_handler(signal.SIGUSR1, told.append, 1)
            first.drain_on(signal.SIGUSR1, timeout=HOUR)
            second.drain_on(signal.SIGUSR2, timeout=HOUR)
            asyncios.add_signal_handler(signal.SIGUSR2, told.append, 2)
            for number, count in ((signal.SIGUSR1, 1), (signal.SIGUSR2, 2)):
                await send(number)
                while len(told) < count:  # noqa: ASYNC110  # a turn of the loop calls the handler
                    await asyncio.sleep(0)
            return told, first.stopped, second.stopped

    handlers = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGUSR2)}
    assert run_plainly(main, loop) == ([1, 2], True, False)
    for number, handler in handlers.items():  # asyncio leaves the default behind
        signal.signal(number, handler)


@pytest.mark.sample
@pytest.mark.anyio
async def test_a_drain_that_is_out_of_time_returns_what_is_in_hand(place):
    """The block ends, and the program goes on behind it."""
    async with await quick_spool(place) as spool:
        await put(spool, Mail.SEND, "1")
        async with spool.reader(Mail.SEND) as reader:
            reader.drain_on(signal.SIGUSR1, timeout=0)
            assert (await reader.dequeue()).unwrap() is not None
            await send(signal.SIGUSR1)
            await anyio.sleep_forever()
    assert state_of(place).names("send") == ["1"]


@pytest.mark.anyio
async def test_a_second_signal_does_what_it_did_before(before, place):
    """As a second Ctrl-C interrupts: the first is the drain, and the next is the program's again."""
    async with await quick_spool(place) as spool, spool.reader(Mail.SEND) as reader:
        reader.drain_on(signal.SIGUSR1, signal.SIGUSR2, timeout=HOUR)
        await send(signal.SIGUSR1)
        assert (reader.stopped, before) == (True, [])
        await send(signal.SIGUSR1)
        assert before == [signal.SIGUSR1]


@pytest.mark.anyio
@pytest.mark.parametrize("leaves", [0, 1, 2])
async def test_all_readers_that_watch_are_drained(leaves, before, place):
    """One signal for all of them, also after one of them, whichever, has left; the handler goes with the last."""
    async with await quick_spool(place) as spool, anyio.create_task_group() as tasks:

        async def read(*, task_status: Any) -> None:
            async with spool.reader(Mail.SEND) as reader:
                reader.drain_on(signal.SIGUSR1, timeout=HOUR)
                reader.drain_on(signal.SIGUSR1, timeout=HOUR)  # twice is no more than once
                leave, left = anyio.Event(), anyio.Event()
                task_status.started((reader, leave, left))
                await leave.wait()
            left.set()

        watching = [await tasks.start(read) for _ in range(3)]
        _, leave, left = watching.pop(leaves)
        leave.set()
        await left.wait()
        assert [reader.stopped for reader, _, _ in watching] == [False, False]
        await send(signal.SIGUSR1)
        assert [reader.stopped for reader, _, _ in watching] == [True, True]
        for _, leave, _ in watching:
            leave.set()
    assert before == []


@pytest.mark.anyio
async def test_a_signal_that_is_ignored_stays_ignored(place):
    """What `nohup` started is not ended by a hangup."""
    standing = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        async with await quick_spool(place) as spool, spool.reader(Mail.SEND) as reader:
            reader.drain_on(signal.SIGUSR1, timeout=HOUR)
            await send(signal.SIGUSR1)
            assert not reader.stopped
            assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, standing)


@pytest.mark.anyio
async def test_a_forked_child_does_what_the_program_did_before(before, tmp_path):
    """The reader is its parent's: a signal to the child does not stop it, and is not lost."""
    async with await quick_spool(tmp_path / "spool") as spool, spool.reader(Mail.SEND) as reader:
        reader.drain_on(signal.SIGUSR1, timeout=HOUR)

        def work(tell: int) -> None:
            signal.raise_signal(signal.SIGUSR1)
            os.write(tell, f"{before} {reader.stopped}".encode())
            os._exit(0)

        assert in_a_fork(work) == (f"[{signal.SIGUSR1:d}] False", True)
        assert not reader.stopped
        await send(signal.SIGUSR1)
        assert reader.stopped


@pytest.mark.anyio
async def test_a_program_that_puts_the_handler_back_later_loses_no_signal(before, place):
    """Our handler, put back when nobody watches any more, hands the signal on."""
    async with await quick_spool(place) as spool:
        async with spool.reader(Mail.SEND) as reader:
            reader.drain_on(signal.SIGUSR1, timeout=HOUR)
            ours = signal.signal(signal.SIGUSR1, Took())
        signal.signal(signal.SIGUSR1, ours)
        await send(signal.SIGUSR1)
        assert before == [signal.SIGUSR1]


@pytest.mark.anyio
async def test_what_cannot_be_watched_for_is_refused_at_once(before, place):
    """And not when the signal comes; no handler is left behind."""
    async with await quick_spool(place) as spool:
        reader = spool.reader(Mail.SEND)
        with pytest.raises(RuntimeError, match="async with"):
            reader.drain_on(signal.SIGUSR1, timeout=1)
        async with reader:
            with pytest.raises(TypeError, match=r"needs a signal, such as signal\.SIGTERM"):
                reader.drain_on(timeout=1)
            with pytest.raises(TypeError, match="timeout"):
                reader.drain_on(signal.SIGUSR1, timeout=None)
            with pytest.raises(ValueError, match="not negative"):
                reader.drain_on(signal.SIGUSR1, timeout=-1)
            with pytest.raises(OSError, match="Invalid argument"):
                reader.drain_on(signal.SIGUSR1, signal.SIGKILL, timeout=1)
            raised: list[BaseException] = []

            def elsewhere() -> None:
                try:
                    reader.drain_on(signal.SIGUSR1, timeout=1)
                except ValueError as error:
                    raised.append(error)

            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()
            assert "main thread" in str(raised[0])
            await send(signal.SIGUSR1)
            assert (before, reader.stopped) == ([signal.SIGUSR1], False)
        with pytest.raises(anyio.ClosedResourceError):
            reader.drain_on(signal.SIGUSR1, timeout=1)

"""uvloop: an event loop that is not asyncio's own, in which everything is as it is in asyncio's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from helpers.gates import Gate
from helpers.operations import OPERATIONS, Operation, ordered, states
from helpers.spools import ANNE, BERT, Mail, make_spool, names_in, put, quick_spool, state_of
from trio_multispool import Err, NameTaken, Ok, Remove, Save, Use

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from trio_multispool import QueueReader, Spool

AVAILABLE = sys.implementation.name == "cpython" and sys.platform != "win32"
pytestmark = [
    pytest.mark.skipif(not AVAILABLE, reason="needs uvloop, which there is for CPython on Unix"),
    pytest.mark.anyio,
]


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Run this module's tests on uvloop, and nowhere else."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(autouse=True)
async def _on_uvloop() -> None:
    """Fail if it is not."""
    assert type(asyncio.get_running_loop()).__module__ == "uvloop"


@contextlib.asynccontextmanager
async def _held(operation: Operation, path: Path, call: str, *, after: bool = False) -> AsyncIterator[tuple[Any, Gate]]:
    """Start the operation in a task of its own, and stop its thread at a system call."""
    gate = Gate()
    async with await make_spool(path, ordered(), system_calls=gate) as spool, contextlib.AsyncExitStack() as stack:
        run = await operation.prepare(spool, stack)
        gate.arm(call, after=after)
        task = asyncio.ensure_future(run())
        await gate.reached()
        yield task, gate


async def _let_everything_run() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.sample
async def test_an_entry_lives_on_uvloop_as_it_does_elsewhere(place):
    """It is enqueued once, checked out, saved with new metadata, and removed; the spool is empty then."""
    async with await quick_spool(place) as spool:
        entry = (await spool.enqueue(Mail.SEND, ANNE, b"Hello", name=Use("one"))).unwrap()
        assert await spool.enqueue(Mail.SEND, ANNE, b"Hello", name=Use("one")) == Err(NameTaken("one"))
        async with (await entry.checkout()).unwrap() as job:
            assert (job.metadata, (await job.data.load()).unwrap()) == (ANNE, b"Hello")
            (await job.save(Mail.RETRY, BERT)).unwrap()
        async with spool.reader(Mail.RETRY) as reader:
            async for job in reader.available():
                async with job:
                    assert job.metadata == BERT
                    (await job.remove()).unwrap()
    assert state_of(place).entries() == set()
    assert state_of(place).faults() == []


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
async def test_a_task_cancelled_before_the_commit_has_no_effect(operation: Operation, tmp_path: Path) -> None:
    """The task ends as cancelled, once its thread has ended; what had not been committed was withdrawn."""
    before, after = await states(operation, tmp_path / "twin")
    async with _held(operation, tmp_path / "spool", operation.before) as (task, gate):
        for _ in range(2):
            task.cancel()
            await _let_everything_run()
        assert not task.done(), "the task must not end while its thread is at work"
        gate.go()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert state_of(tmp_path / "spool") == (before if operation.withdraws else after)


@pytest.mark.parametrize("operation", [it for it in OPERATIONS if it.commit is not None], ids=str)
async def test_a_task_cancelled_after_the_commit_is_undone_or_told(operation: Operation, tmp_path: Path) -> None:
    """A check-out and a reservation are given back; the rest stands, and a note on the exception says so."""
    before, after = await states(operation, tmp_path / "twin")
    assert operation.commit is not None
    async with _held(operation, tmp_path / "spool", operation.commit, after=True) as (task, gate):
        task.cancel()
        await _let_everything_run()
        gate.go()
        with pytest.raises(asyncio.CancelledError) as raised:
            await task
        if operation.outcome == "undone":
            assert state_of(tmp_path / "spool") == before
        else:
            assert state_of(tmp_path / "spool") == after
            assert any("already done when it was cancelled: Ok(" in note for note in raised.value.__notes__)


async def test_asyncio_timeout_withdraws_an_enqueue(tmp_path):
    """It raises `TimeoutError`, nothing was enqueued, and the task is not left cancelled."""
    gate = Gate()
    async with await make_spool(tmp_path / "spool", ordered(), system_calls=gate) as spool:
        before = state_of(spool.location)
        gate.arm("write")
        expiring = asyncio.timeout(None)

        async def expire() -> None:
            await gate.reached()
            expiring.reschedule(asyncio.get_running_loop().time())
            while not expiring.expired():  # noqa: ASYNC110  # the next turn or two; it has no event
                await asyncio.sleep(0)
            await _let_everything_run()  # the task is told after that, and the thread must not commit before
            gate.go()

        other = asyncio.ensure_future(expire())
        with pytest.raises(TimeoutError):
            async with expiring:
                await spool.enqueue(Mail.SEND, ANNE, b"")
        await other
        current = asyncio.current_task()
        assert current is not None
        assert current.cancelling() == 0
        assert state_of(spool.location) == before
        assert isinstance(await spool.enqueue(Mail.SEND, ANNE, b""), Ok)


async def test_a_cancel_scope_that_is_cancelled_too_late_changes_nothing(tmp_path):
    """AnyIO's cancellation waits for the thread, and what has happened is returned."""
    gate = Gate()
    async with await make_spool(tmp_path / "spool", ordered(), system_calls=gate) as spool:
        gate.arm("write")
        async with anyio.create_task_group() as tasks:

            async def cancel(scope: anyio.CancelScope) -> None:
                await gate.reached()
                scope.cancel()
                gate.go()

            with anyio.CancelScope() as scope:
                tasks.start_soon(cancel, scope)
                answer = await spool.enqueue(Mail.SEND, ANNE, b"")
        assert isinstance(answer, Ok)
        assert await names_in(spool, Mail.SEND) == [answer.value.name]


async def test_a_task_group_of_asyncio_cancels_its_operations(tmp_path):
    """A failing task cancels its sibling in the middle of an enqueue, and the group raises what it raised."""
    gate = Gate()
    async with await make_spool(tmp_path / "spool", ordered(), system_calls=gate) as spool:
        before = state_of(spool.location)
        gate.arm("write")

        failing = asyncio.Event()

        async def fail() -> None:
            await gate.reached()
            failing.set()
            raise LookupError("no such recipient")

        async def let_go() -> None:
            await failing.wait()
            await _let_everything_run()  # the group has cancelled the sibling by then
            gate.go()

        async def both() -> None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(spool.enqueue(Mail.SEND, ANNE, b""))
                tasks.create_task(fail())

        other = asyncio.ensure_future(let_go())
        with pytest.raises(ExceptionGroup) as group:
            await both()
        await other
        assert [type(error) for error in group.value.exceptions] == [LookupError]
        assert state_of(spool.location) == before


async def test_a_handler_whose_task_is_cancelled_gives_its_entry_back(place):
    """A task group that is torn down in the middle of handlers leaves every entry in its queue."""
    async with await quick_spool(place) as spool:
        await put(spool, Mail.SEND, "1", "2", "3")
        before = state_of(spool.location)
        started = asyncio.Queue[str]()

        async def handle(metadata: Any, _data: Any) -> Any:
            started.put_nowait(metadata.recipient)
            await asyncio.Event().wait()

        async with spool.reader(Mail.SEND) as reader:
            task = asyncio.ensure_future(reader.iter(handle, concurrency=2))
            assert {await started.get(), await started.get()} == {"1", "2"}
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert state_of(spool.location) == before


async def test_an_idle_reader_gets_what_another_task_enqueues(place):
    """A task group of asyncio's own, with a worker and a producer: each entry is handled once."""
    async with await quick_spool(place) as spool, spool.reader(Mail.SEND) as reader:
        handled: list[str] = []

        async def handle(metadata: Any, _data: Any) -> Any:
            handled.append(metadata.recipient)
            if len(handled) == 5:
                reader.stop()
            return Remove() if metadata.recipient != "5" else Save(Mail.FAILED)

        async with asyncio.TaskGroup() as tasks:
            worker = tasks.create_task(reader.iter(handle))
            await put(spool, Mail.SEND, "1", "2", "3", "4", "5")
        assert worker.result() == Ok(None)
        assert handled == ["1", "2", "3", "4", "5"]
        assert await names_in(spool, Mail.FAILED) == ["5"]


def _from_a_thread(reader: QueueReader[Any, Any, Any]) -> None:
    thread = threading.Thread(target=reader.stop)
    thread.start()
    thread.join()


def _from_a_signal_handler(reader: QueueReader[Any, Any, Any]) -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: reader.stop())
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


def _from_a_signal_handler_of_the_loop(reader: QueueReader[Any, Any, Any]) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, reader.stop)
    os.kill(os.getpid(), signal.SIGUSR1)


@pytest.mark.parametrize("stop", [_from_a_thread, _from_a_signal_handler, _from_a_signal_handler_of_the_loop])
async def test_an_idle_reader_is_stopped_from_anywhere(stop: Callable[[Any], None], tmp_path: Path) -> None:
    """The iteration ends, and nothing is in hand."""
    gate = Gate()
    spool: Spool[Any, Any, Any, Any]
    async with await make_spool(tmp_path / "spool", system_calls=gate) as spool, spool.reader(Mail.SEND) as reader:
        gate.arm("regular_files", after=True)
        idle = asyncio.ensure_future(reader.dequeue())
        await gate.reached()
        gate.go()
        await _let_everything_run()
        stop(reader)
        assert await idle == Ok(None)
        asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR1)

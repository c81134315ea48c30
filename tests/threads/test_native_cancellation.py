"""asyncio's own cancellation raises at once while the thread goes on, and must keep working as it does without us."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import warnings
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from helpers.gates import Gate, Gates, breathe
from helpers.inside import waiters_of
from helpers.operations import CHANGING, OPERATIONS, Operation, ordered, states
from helpers.spools import ANNE, Mail, make_spool, put, quick_spool, state_of
from trio_multispool import Ok, Release, Spool
from trio_multispool.reader.prefetch import Prefetcher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from helpers.spools import Location


pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


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
        del task


async def _let_everything_run() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
async def test_a_task_cancelled_before_the_commit_has_no_effect(
    operation: Operation, times: int, tmp_path: Path
) -> None:
    """The task ends as cancelled, once its thread has ended; what had not been committed was withdrawn."""
    before, after = await states(operation, tmp_path / "twin")
    async with _held(operation, tmp_path / "spool", operation.before) as (task, gate):
        for _ in range(times):
            task.cancel()
            await _let_everything_run()
        assert not task.done(), "the task must not end while its thread is at work"
        gate.go()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert state_of(tmp_path / "spool") == (before if operation.withdraws else after)


@pytest.mark.parametrize("operation", CHANGING, ids=str)
async def test_a_task_cancelled_after_the_commit_is_undone_or_told(operation: Operation, tmp_path: Path) -> None:
    """A check-out and a reservation are given back; the rest stands, and a note on the exception says so."""
    before, after = await states(operation, tmp_path / "twin")
    assert operation.commit is not None
    async with _held(operation, tmp_path / "spool", operation.commit, after=True) as (task, gate):
        task.cancel()
        await _let_everything_run()
        assert not task.done()
        gate.go()
        with pytest.raises(asyncio.CancelledError) as raised:
            await task
        if operation.outcome == "undone":
            assert state_of(tmp_path / "spool") == before
        else:
            assert state_of(tmp_path / "spool") == after
            assert any("already done when it was cancelled: Ok(" in note for note in raised.value.__notes__)


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
async def test_a_task_cancelled_before_it_ran_does_nothing(operation: Operation, tmp_path: Path) -> None:
    """Cancelled before its first step: nothing happens. After it, what can be withdrawn is; the thread is held."""
    gate = Gate()
    async with (
        await make_spool(tmp_path / "spool", ordered(), system_calls=gate) as spool,
        contextlib.AsyncExitStack() as stack,
    ):
        run = await operation.prepare(spool, stack)
        before = state_of(spool.location)

        async def wrapped() -> Any:
            return await run()

        for steps in range(2 if operation.withdraws else 1):
            if steps:  # a thread may be at work, and must not come to its commit before it is told
                gate.arm(operation.before)
            task = asyncio.ensure_future(wrapped())
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await _let_everything_run()
            if steps:
                gate.go()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert state_of(spool.location) == before


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
async def test_asyncio_timeout_works_as_it_does_without_us(operation: Operation, tmp_path: Path) -> None:
    """It raises `TimeoutError`, the operation is withdrawn, and the task is not left cancelled."""
    before, after = await states(operation, tmp_path / "twin")
    gate = Gate()
    async with (
        await make_spool(tmp_path / "spool", ordered(), system_calls=gate) as spool,
        contextlib.AsyncExitStack() as stack,
    ):
        run = await operation.prepare(spool, stack)
        gate.arm(operation.before)
        expiring = asyncio.timeout(None)

        async def expire() -> None:
            await gate.reached()
            expiring.reschedule(asyncio.get_running_loop().time())
            await _let_everything_run()
            gate.go()

        other = asyncio.ensure_future(expire())
        with pytest.raises(TimeoutError):
            async with expiring:
                await run()
        await other
        assert expiring.expired()
        current = asyncio.current_task()
        assert current is not None
        assert current.cancelling() == 0
        assert state_of(spool.location) == (before if operation.withdraws else after)
        assert isinstance(await spool.entries(Mail.SEND), Ok)


@pytest.mark.parametrize("operation", CHANGING, ids=str)
async def test_wait_for_works_as_it_does_without_us(
    operation: Operation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It raises `TimeoutError`, and the operation is withdrawn. The thread goes on once it is cancelled."""
    before, after = await states(operation, tmp_path / "twin")
    gate, loop = Gate(), asyncio.get_running_loop()
    async with (
        await make_spool(tmp_path / "spool", ordered(), system_calls=gate) as spool,
        contextlib.AsyncExitStack() as stack,
    ):
        run = await operation.prepare(spool, stack)
        gate.arm(operation.before)

        async def expire() -> None:
            await gate.reached()
            time = loop.time
            monkeypatch.setattr(loop, "time", lambda: time() + 3600)
            await _let_everything_run()
            gate.go()

        other = asyncio.ensure_future(expire())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(run(), timeout=3600)
        await other
        assert state_of(spool.location) == (before if operation.withdraws else after)


async def test_a_task_group_of_asyncio_cancels_its_operations(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("after", [False, True])
async def test_a_job_whose_return_is_cancelled_goes_back_all_the_same(after: bool, tmp_path: Path) -> None:
    """Releasing at the end of a block is never withdrawn; the cancellation goes on its way afterwards."""
    gate = Gate()
    async with await make_spool(tmp_path / "spool", system_calls=gate) as spool:
        entry = (await put(spool, Mail.SEND, "one"))[0]
        before = state_of(spool.location)

        async def work() -> None:
            async with (await entry.checkout()).unwrap():
                gate.arm("move", after=after)

        task = asyncio.ensure_future(work())
        await gate.reached()
        for _ in range(3):
            task.cancel()
            await _let_everything_run()
        assert not task.done()
        gate.go()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert state_of(spool.location) == before


@pytest.mark.sample
async def test_a_job_whose_task_is_cancelled_again_and_again_goes_back(place: Location) -> None:
    """However many cancellations arrive while a block is left, each at another step, the entry is back."""
    async with await make_spool(place) as spool:
        entry = (await put(spool, Mail.SEND, "one"))[0]
        before = state_of(spool.location)
        for steps in range(12):
            entered = asyncio.Event()

            async def work(entered: asyncio.Event = entered) -> None:
                async with (await entry.checkout()).unwrap():
                    entered.set()
                    await asyncio.Event().wait()

            task = asyncio.ensure_future(work())
            await entered.wait()
            task.cancel()
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert state_of(spool.location) == before


async def test_a_job_settled_while_its_task_was_cancelled_is_not_returned(tmp_path: Path) -> None:
    """The worker marks the job settled: the end of its block never releases an entry that has left."""
    gate = Gate()
    async with await make_spool(tmp_path / "spool", system_calls=gate) as spool:
        entry = (await put(spool, Mail.SEND, "one"))[0]

        async def work() -> None:
            async with (await entry.checkout()).unwrap() as job:
                gate.arm("move", after=True)
                await job.save(Mail.RETRY)

        task = asyncio.ensure_future(work())
        await gate.reached()
        task.cancel()
        await _let_everything_run()
        gate.go()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert state_of(spool.location).places("one") == ["retry"]
        assert state_of(spool.location).faults() == []


@pytest.mark.parametrize("method", ["create", "load", "load_unsafe"])
async def test_opening_that_is_cancelled_leaves_nothing_open(method: str, tmp_path: Path) -> None:
    """A spool that nobody gets is closed again, with all its descriptors."""
    async with await make_spool(tmp_path / "spool"):
        pass
    gate = Gate()
    opened: list[int] = []
    closed: list[int] = []
    monitor = _Descriptors(gate, opened, closed)
    gate.arm("open_root", after=True)
    task = asyncio.ensure_future(getattr(Spool, method)(tmp_path / "spool", ordered(), system_calls=monitor))
    await gate.reached()
    task.cancel()
    await _let_everything_run()
    gate.go()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert opened
    assert sorted(opened) == sorted(closed)


class _Descriptors:
    """System calls that keep account of descriptors."""

    def __init__(self, calls: Gate, opened: list[int], closed: list[int]) -> None:
        self._calls, self._opened, self._closed = calls, opened, closed

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._calls, name)

        def counted(*arguments: Any) -> Any:
            result = found(*arguments)
            if name in ("open", "open_root"):
                self._opened.append(result)
            elif name == "close":
                self._closed.append(*arguments)
            return result

        return counted


async def test_a_reader_cancelled_in_a_check_out_has_nothing_in_hand(tmp_path: Path) -> None:
    """A dequeue that is cancelled after its commit gives the entry back before the task ends."""
    gate = Gate()
    async with await make_spool(tmp_path / "spool", system_calls=gate) as spool:
        await put(spool, Mail.SEND, "one")
        before = state_of(spool.location)

        async def read() -> None:
            async with spool.reader(Mail.SEND) as reader:
                gate.arm("move", after=True)
                async for _job in reader:
                    raise AssertionError("cancelled before this")

        task = asyncio.ensure_future(read())
        await gate.reached()
        task.cancel()
        await _let_everything_run()
        gate.go()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert state_of(spool.location) == before


async def test_a_reader_whose_leaving_is_cancelled_at_any_step_returns_all_it_has(place: Location) -> None:
    """Whatever step of leaving a reader's block a cancellation meets, every entry in hand is back."""
    async with await make_spool(place) as spool:
        await put(spool, Mail.SEND, "1", "2", "3")
        before = state_of(spool.location)
        for steps in range(20):
            leaving = asyncio.Event()

            async def work(leaving: asyncio.Event = leaving) -> None:
                async with spool.reader(Mail.SEND) as reader:
                    for _ in range(3):
                        assert (await reader.dequeue()).unwrap() is not None
                    leaving.set()

            task = asyncio.ensure_future(work())
            await leaving.wait()
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert state_of(spool.location) == before


@pytest.mark.parametrize("how", ["waiting", "available"])
async def test_an_entry_that_was_taken_for_a_cancelled_task_comes_first_for_the_next(how: str, tmp_path: Path) -> None:
    """A cancellation after the commit puts the name back at the head of the listing: the order stays."""
    gates = Gates()
    async with await make_spool(tmp_path / "spool", system_calls=gates) as spool:
        await put(spool, Mail.SEND, "1", "2", "3")
        async with spool.reader(Mail.SEND) as reader:
            jobs = aiter(reader) if how == "waiting" else reader.available()
            taken = gates.hold("move", "send/.checkout/1", after=True)
            task = asyncio.ensure_future(anext(jobs))
            await taken.reached()
            task.cancel()
            await _let_everything_run()
            taken.go()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert state_of(spool.location).names("send") == ["1", "2", "3"]
            assert [(await anext(jobs)).name for _ in range(3)] == ["1", "2", "3"]


@pytest.mark.parametrize("in_which_order", ["stopped first", "cancelled first"])
@pytest.mark.parametrize(("concurrency", "prefetch"), [(1, 1), (2, 0)])
async def test_a_task_that_is_cancelled_in_the_turn_in_which_its_reader_is_stopped_has_nothing_in_hand(
    concurrency: int, prefetch: int, in_which_order: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right when its entry is on its way to it: the entry is back when the iteration ends, while the reader is open."""
    hand_out = Prefetcher._hand_out

    async def handler(_metadata: Any, _data: Any) -> Any:
        await asyncio.Event().wait()

    async with await make_spool(tmp_path / "spool") as spool, spool.reader(Mail.SEND) as reader:
        task = asyncio.ensure_future(reader.iter(handler, concurrency=concurrency, prefetch=prefetch))

        def hand_out_and_end(supply: Any, answer: Any) -> None:
            hand_out(supply, answer)
            for end in (reader.stop, task.cancel) if in_which_order == "stopped first" else (task.cancel, reader.stop):
                end()

        monkeypatch.setattr(Prefetcher, "_hand_out", hand_out_and_end)
        await put(spool, Mail.SEND, "1")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert state_of(spool.location).checked_out["send"] == {}
        assert state_of(spool.location).names("send") == ["1"]


@pytest.mark.parametrize("order", [*itertools.permutations(["stop", "scope", "native"])], ids=", ".join)
@pytest.mark.parametrize("options", [{}, {"prefetch": 1}, {"concurrency": 2}], ids=str)
async def test_a_cancellation_is_not_lost_in_the_turn_in_which_a_reader_is_stopped_and_a_scope_cancelled(
    options: dict[str, int], order: tuple[str, ...], place: Location
) -> None:
    """A scope that ends in a task of the reader does not count as one of the task that is cancelled."""
    loop, readers, scope = asyncio.get_running_loop(), list[Any](), anyio.CancelScope()

    async def work() -> None:
        with scope:
            async with spool.reader(Mail.SEND) as reader:
                readers.append(reader)
                await reader.iter(pytest.fail, **options)

    async with await quick_spool(place) as spool:
        task = asyncio.ensure_future(work())
        while not waiters_of(spool):
            await breathe()
        for what in order:
            match what:
                case "stop":
                    readers[0].stop()  # has the loop wake the reader in its next turn
                case "scope":
                    loop.call_soon(scope.cancel)
                case _:
                    loop.call_soon(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_timeout_and_a_scope_that_strike_while_a_pool_ends_are_both_heeded(tmp_path: Path) -> None:
    """The scope comes while the pool, cancelled by the timeout, waits for a handler: each takes its own for its own."""
    gates = Gates()
    async with await quick_spool(tmp_path / "spool", system_calls=gates) as spool:
        await put(spool, Mail.SEND, "one")
        [held] = [gates.hold("move", "send/one")]

        async def handler(_metadata: Any, _data: Any) -> Any:
            return Release()

        expiring, expired = asyncio.timeout(None), False

        async def strike() -> None:
            await held.reached()
            expiring.reschedule(asyncio.get_running_loop().time())
            await _let_everything_run()
            scope.cancel()
            await _let_everything_run()
            held.go()

        other = asyncio.ensure_future(strike())
        with anyio.CancelScope() as scope:
            try:
                async with expiring, spool.reader(Mail.SEND) as reader:
                    await reader.iter(handler, concurrency=2)
            except TimeoutError:
                expired = True
            await anyio.lowlevel.checkpoint()
        await other
        assert expired
        assert scope.cancelled_caught
        assert state_of(spool.location).names("send") == ["one"]


async def test_a_name_that_is_given_up_by_a_cancelled_task_is_not_reported_as_never_used(tmp_path: Path) -> None:
    """It was given up as it should be: there is nothing to warn of when it is garbage collected."""
    gates = Gates()
    async with await quick_spool(tmp_path / "spool", system_calls=gates) as spool:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")

            async def reserve() -> None:
                async with (await spool.reserve_name()).unwrap():
                    held.append(gates.hold("unlink"))

            held = list[Any]()
            task = asyncio.ensure_future(reserve())
            while not held:
                await breathe()
            await held[0].reached()
            task.cancel()
            await _let_everything_run()
            held[0].go()
            with pytest.raises(asyncio.CancelledError):
                await task
            del task
            gc.collect()
        assert [str(each.message) for each in warned] == []
        assert state_of(spool.location).registry == set()

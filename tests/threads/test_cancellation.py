"""Cancelled means that it did not happen; returned means that it happened. For every operation, on both backends."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio

from helpers.gates import Gate
from helpers.operations import CHANGING, OPERATIONS, Operation, ordered, states
from helpers.results import is_err
from helpers.spools import ANNE, MAIL, Mail, make_spool, put, state_of
from trio_multispool import Ok, Save, Spool

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator
    from pathlib import Path

    from helpers.spools import Location


pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("operation", CHANGING, ids=str)
async def test_each_changing_operation_changes_the_store(operation: Operation, place: Location) -> None:
    """The comparisons below can fail: before and after differ."""
    before, after = await states(operation, place)
    assert before != after


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
async def test_an_operation_in_a_cancelled_scope_does_nothing(operation: Operation, place: Location) -> None:
    """Cancelled before: `Cancelled` is raised, and the disk is as it was."""
    async with await make_spool(place, ordered()) as spool, contextlib.AsyncExitStack() as stack:
        run = await operation.prepare(spool, stack)
        before = state_of(spool.location)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await run()
        assert scope.cancelled_caught
        assert state_of(spool.location) == before


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
async def test_an_operation_cancelled_in_its_thread_happens_and_returns(operation: Operation, tmp_path: Path) -> None:
    """Cancelled during: the thread is not abandoned, the result is returned, and the disk agrees with it."""
    _, after = await states(operation, tmp_path / "twin")
    gate = Gate()
    answers: list[Any] = []
    async with (
        await make_spool(tmp_path / "spool", ordered(), system_calls=gate) as spool,
        contextlib.AsyncExitStack() as stack,
    ):
        run = await operation.prepare(spool, stack)
        scope = anyio.CancelScope()

        async def cancelled() -> None:
            with scope:
                answers.append(await run())

        async with anyio.create_task_group() as tasks:
            gate.arm(operation.before)
            tasks.start_soon(cancelled)
            await gate.reached()
            scope.cancel()
            gate.go()
        assert len(answers) == 1
        assert isinstance(answers[0], Ok)
        assert not scope.cancelled_caught
        assert state_of(spool.location) == after


class Turns:
    """Awaits an operation, and counts how often that suspends its task: Trio runs tasks of one step in any order."""

    def __init__(self, operation: Coroutine[Any, Any, object]) -> None:
        self.operation, self.count = operation, 0

    def __await__(self) -> Generator[Any, Any, object]:
        sent: object = None
        while True:
            try:
                asked = self.operation.send(sent)
            except StopIteration as ended:
                return ended.value
            self.count += 1
            sent = yield asked


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
async def test_every_operation_is_a_checkpoint(operation: Operation, place: Location) -> None:
    """Each operation suspends its task, so that another gets a turn."""
    async with await make_spool(place, ordered()) as spool, contextlib.AsyncExitStack() as stack:
        run = await operation.prepare(spool, stack)
        turns = Turns(run())
        assert isinstance(await turns, Ok)
        assert turns.count


@pytest.mark.sample
async def test_operations_that_answer_at_once_are_checkpoints_too(place: Location) -> None:
    """Also an `Err` and a `None` that need no disk come with a check for cancellation."""
    async with await make_spool(place) as spool, spool.reader(Mail.SEND) as reader:
        reader.stop()
        for run in (reader.dequeue, reader.dequeue_available):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await run()
            assert scope.cancelled_caught


async def test_creating_in_a_cancelled_scope_makes_nothing(place: Location) -> None:
    """Cancelled before: there is nothing to open."""
    for make in (Spool.create, Spool.load, Spool.load_unsafe):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await make(place, ordered())
        assert scope.cancelled_caught
    assert is_err(await Spool.load(place, ordered()))


@pytest.mark.parametrize("method", ["create", "load", "load_unsafe"])
async def test_opening_that_is_cancelled_in_its_thread_returns_the_spool(method: str, tmp_path: Path) -> None:
    """Cancelled during: the spool is returned, and can be used."""
    async with await make_spool(tmp_path / "spool", ordered()):
        pass
    gate = Gate()
    answers: list[Any] = []
    scope = anyio.CancelScope()

    async def cancelled() -> None:
        with scope:
            answers.append(await getattr(Spool, method)(tmp_path / "spool", ordered(), system_calls=gate))

    gate.arm("open_root")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cancelled)
        await gate.reached()
        scope.cancel()
        gate.go()
    async with answers[0].unwrap() as spool:
        assert isinstance(await spool.enqueue(Mail.SEND, ANNE, b""), Ok)


# Blocks


async def test_a_job_whose_block_is_cancelled_is_back_in_its_queue(place: Location) -> None:
    """The entry is available and unchanged, although everything around the block is cancelled."""
    async with await make_spool(place) as spool:
        entry = (await put(spool, Mail.SEND, "one"))[0]
        before = state_of(spool.location)
        with anyio.CancelScope() as scope:
            async with (await entry.checkout()).unwrap() as job:
                job.update(lambda _: ANNE)
                scope.cancel()
                await anyio.sleep_forever()
        assert state_of(spool.location) == before


async def test_entering_a_block_is_no_checkpoint(place: Location) -> None:
    """A job or a reserved name that was had is always given back: its block is entered also when cancelled."""
    async with await make_spool(place) as spool:
        entry = (await put(spool, Mail.SEND, "one"))[0]
        before = state_of(spool.location)
        job = (await entry.checkout()).unwrap()
        reserved = (await spool.reserve_name()).unwrap()
        entered = []
        with anyio.CancelScope() as scope:
            scope.cancel()
            async with job, reserved, spool.reader(Mail.SEND):
                entered.append(True)
        assert entered == [True]
        assert state_of(spool.location) == before


async def test_returning_never_queues_on_the_callers_limiter(place: Location) -> None:
    """With the limiter used up, a job's block is left and its entry is back; settling works too."""
    limiter = anyio.CapacityLimiter(1)
    async with await make_spool(place, limiter=limiter) as spool:
        one, two, three = await put(spool, Mail.SEND, "1", "2", "3")
        jobs = [(await entry.checkout()).unwrap() for entry in (one, two, three)]
        async with limiter:
            async with jobs[0]:
                pass
            async with jobs[1] as job:
                assert await job.save(Mail.RETRY) == Ok(None)
            async with jobs[2] as job:
                assert await job.remove() == Ok(None)
        assert state_of(spool.location).names("send") == ["1"]
        assert state_of(spool.location).names("retry") == ["2"]


async def test_an_operation_cancelled_while_it_queues_on_the_limiter_does_nothing(place: Location) -> None:
    """Waiting for the caller's limiter can be cancelled."""
    limiter = anyio.CapacityLimiter(1)
    async with await make_spool(place, limiter=limiter) as spool:
        before = state_of(spool.location)
        async with limiter, anyio.create_task_group() as tasks:
            tasks.start_soon(spool.enqueue, Mail.SEND, ANNE, b"")
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        assert state_of(spool.location) == before


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_reader_that_is_cancelled_returns_all_it_has_in_hand(concurrency: int, place: Location) -> None:
    """Every entry whose handler was running is available again, unchanged."""
    async with await make_spool(place) as spool:
        await put(spool, Mail.SEND, "1", "2", "3")
        before = state_of(spool.location)
        started: list[str] = []
        all_started = anyio.Event()

        async def handler(_metadata: Any, data: Any) -> Any:
            started.append(data.name)
            if len(started) == concurrency:
                all_started.set()
            await anyio.sleep_forever()

        async with anyio.create_task_group() as tasks, spool.reader(Mail.SEND) as reader:

            async def read() -> None:
                await reader.iter(handler, concurrency=concurrency)

            tasks.start_soon(read)
            await all_started.wait()
            assert len(state_of(spool.location).checked_out["send"]) == concurrency
            tasks.cancel_scope.cancel()
        assert state_of(spool.location) == before


async def test_a_handler_cancelled_by_its_own_scope_returns_only_its_entry(place: Location) -> None:
    """A scope inside the handler is the handler's affair: its verdict counts."""
    async with await make_spool(place) as spool:
        entry = (await put(spool, Mail.SEND, "one"))[0]

        async def handler(_metadata: Any, _data: Any) -> Any:
            with anyio.move_on_after(0):
                await anyio.sleep_forever()
            return Save(Mail.FAILED)

        assert await spool.with_entry(entry, handler) == Ok(Save(Mail.FAILED))
        assert state_of(spool.location).names("failed") == ["one"]


async def test_an_exception_from_a_block_is_the_same_object(place: Location) -> None:
    """What user code raises passes through blocks and handlers unchanged, and the entry is back."""
    async with await make_spool(place) as spool:
        entry = (await put(spool, Mail.SEND, "one"))[0]
        before = state_of(spool.location)
        trouble = LookupError("no such recipient")

        async def handler(_metadata: Any, _data: Any) -> Any:
            raise trouble

        with pytest.raises(LookupError) as raised:
            await spool.with_entry(entry, handler)
        assert raised.value is trouble
        async with spool.reader(Mail.SEND) as reader:
            with pytest.raises(LookupError) as raised:
                await reader.iter(handler)
        assert raised.value is trouble
        async with spool.reader(Mail.SEND) as reader:
            with pytest.raises(ExceptionGroup) as group:
                await reader.iter(handler, concurrency=2)
        assert group.value.exceptions == (trouble,)
        assert state_of(spool.location) == before


async def test_a_limiter_of_another_kind_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    """Trio's own, say: its errors are not AnyIO's."""
    limiter: Any = trio.CapacityLimiter(1)
    with pytest.raises(TypeError, match=r"anyio\.CapacityLimiter"):
        await Spool.create(tmp_path / "spool", MAIL, limiter=limiter)
    assert not (tmp_path / "spool").exists()

"""Draining a reader: from anywhere, in any event loop; what is in hand has its time, and the program then goes on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import starlette.applications
import trio
import uvicorn

from helpers.gates import breathe
from helpers.inside import dequeuer_of
from helpers.loops import LOOPS, JumpingLoop, run_plainly
from helpers.spools import Mail, put, quick_spool, state_of
from trio_multispool import Ok, Remove, Retry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from helpers.spools import Location

HOUR = 3600.0
NAMES = ["1", "2", "3", "4", "5"]


class Handler:
    """A handler that is at work until it is let go."""

    def __init__(self, at_a_time: int) -> None:
        """Begin with nothing in hand."""
        self._at_a_time = at_a_time
        self.begun: list[str] = []
        self.busy, self.go = anyio.Event(), anyio.Event()

    async def __call__(self, _metadata: Any, data: Any) -> Any:
        """Work on an entry."""
        self.begun.append(data.name)
        if len(self.begun) == self._at_a_time:
            self.busy.set()
        await self.go.wait()
        return Remove()


async def drain_from(where: str, reader: Any, timeout: float) -> None:  # noqa: ASYNC109  # what drain is given
    """Drain, from the task that runs this, from a thread, or from a raw signal handler."""
    match where:
        case "task":
            reader.drain(timeout)
        case "thread":
            await asyncio.to_thread(reader.drain, timeout)
        case _:
            before = signal.signal(signal.SIGUSR1, lambda *_: reader.drain(timeout))
            # By a thread, so that the event loop is waiting when the signal comes.
            await asyncio.to_thread(os.kill, os.getpid(), signal.SIGUSR1)
            while not reader.stopped:  # noqa: ASYNC110  # the handler has no event that it could set
                await asyncio.sleep(0)
            signal.signal(signal.SIGUSR1, before)


# Where AnyIO does not run the event loop


@pytest.mark.parametrize("where", ["task", "thread", "signal"])
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(("concurrency", "prefetch"), [(1, 0), (2, 2)])
def test_a_drain_cancels_in_a_program_that_asyncio_runs(
    concurrency: int, prefetch: int, loop: str, where: str, place: Location
) -> None:
    """When the time is over, the block ends, every entry is back, and the program goes on behind the block."""

    async def main() -> str:
        async with await quick_spool(place) as spool:
            await put(spool, Mail.SEND, *NAMES)
            handler = Handler(concurrency)
            async with spool.reader(Mail.SEND) as reader, asyncio.TaskGroup() as tasks:
                tasks.create_task(reader.iter(handler, concurrency=concurrency, prefetch=prefetch))
                await handler.busy.wait()
                await drain_from(where, reader, 0)
            assert sorted(handler.begun) == NAMES[:concurrency]
            return "went on"

    assert run_plainly(main, loop) == "went on"
    state = state_of(place)
    assert (state.names("send"), state.faults()) == (NAMES, [])


@pytest.mark.parametrize("where", ["task", "thread", "signal"])
@pytest.mark.parametrize("loop", LOOPS)
def test_a_drain_lets_handlers_finish_in_a_program_that_asyncio_runs(loop: str, where: str, place: Location) -> None:
    """While there is time, nothing is cancelled: what was in hand is settled, and nothing else was taken."""

    async def main() -> Any:
        async with await quick_spool(place) as spool:
            await put(spool, Mail.SEND, *NAMES)
            handler = Handler(2)
            async with spool.reader(Mail.SEND) as reader, asyncio.TaskGroup() as tasks:
                iteration = tasks.create_task(reader.iter(handler, concurrency=2))
                await handler.busy.wait()
                await drain_from(where, reader, HOUR)
                handler.go.set()
            return iteration.result()

    assert run_plainly(main, loop) == Ok(None)
    assert state_of(place).names("send") == NAMES[2:]


@pytest.mark.parametrize("where", ["task", "thread", "signal"])
def test_a_drain_cancels_by_the_clock_of_asyncios_loop(where: str, place: Location) -> None:
    """After half the time the handler is still at work; after all of it, its entry is back."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, JumpingLoop)
        async with await quick_spool(place) as spool:
            await put(spool, Mail.SEND, "1")
            handler = Handler(1)
            async with spool.reader(Mail.SEND) as reader, asyncio.TaskGroup() as tasks:
                iteration = tasks.create_task(reader.iter(handler))
                await handler.busy.wait()
                await drain_from(where, reader, 2 * HOUR)
                for _ in range(10):
                    await asyncio.sleep(0)
                loop.ahead += HOUR
                for _ in range(10):
                    await asyncio.sleep(0)
                assert not iteration.done()
                assert state_of(spool.location).names("send") == []
                loop.ahead += HOUR
            assert iteration.done()

    run_plainly(main, "jumping")
    assert state_of(place).names("send") == ["1"]


@pytest.mark.parametrize("how", ["a task group of anyio", "a task group of asyncio"])
@pytest.mark.parametrize("loop", LOOPS)
def test_a_web_application_drains_its_reader_when_it_ends(loop: str, how: str, place: Location) -> None:
    """In the lifespan that a real server runs: it ends although handlers do not, and their entries are back."""
    handler, ended = Handler(2), []

    @contextlib.asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        async with await quick_spool(place) as spool:
            await put(spool, Mail.SEND, *NAMES)
            async with spool.reader(Mail.SEND) as reader, contextlib.AsyncExitStack() as tasks:

                async def work() -> None:
                    (await reader.iter(handler, concurrency=2)).unwrap()

                if how.endswith("asyncio"):
                    (await tasks.enter_async_context(asyncio.TaskGroup())).create_task(work())
                else:
                    (await tasks.enter_async_context(anyio.create_task_group())).start_soon(work)
                yield
                reader.drain(0)
            ended.append("behind the block")

    app = starlette.applications.Starlette(lifespan=lifespan)
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="on", log_config=None))

    async def main() -> None:
        async def end_when_busy() -> None:
            await handler.busy.wait()
            server.should_exit = True

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(end_when_busy())
            tasks.create_task(server.serve())

    run_plainly(main, loop)
    assert server.started
    assert not server.lifespan.shutdown_failed
    assert ended == ["behind the block"]
    state = state_of(place)
    assert (state.names("send"), state.faults()) == (NAMES, [])


# How long, and what then


@pytest.mark.parametrize("timeouts", [(100, 10), (10, 100), (10, 1000, 100)])
async def test_the_shortest_of_several_drains_counts(
    timeouts: tuple[int, ...], place: Location, autojump_clock: Any
) -> None:
    """Whichever was called last."""
    async with await quick_spool(place) as spool:
        began = trio.current_time()
        async with spool.reader(Mail.SEND) as reader:
            for timeout in timeouts:
                reader.drain(timeout)
            await trio.sleep_forever()
        assert 10 <= trio.current_time() - began < 100


@pytest.mark.sample
async def test_of_several_drains_the_first_that_is_over_counts(place: Location, autojump_clock: Any) -> None:
    """A shorter one that comes too late changes nothing, and neither does a longer one."""
    async with await quick_spool(place) as spool:
        began = trio.current_time()
        async with spool.reader(Mail.SEND) as reader:
            reader.drain(100)
            await trio.sleep(95)
            reader.drain(50)
            await trio.sleep_forever()
        assert 100 <= trio.current_time() - began < 140


@pytest.mark.anyio
@pytest.mark.parametrize(("concurrency", "prefetch"), [(1, 0), (2, 2)])
async def test_an_iteration_outside_the_block_is_drained_too_and_says_that_all_is_well(
    concurrency: int, prefetch: int, place: Location
) -> None:
    """`iter` in a task that the block does not hold returns `Ok(None)`, with every entry back."""
    async with await quick_spool(place) as spool, anyio.create_task_group() as tasks:
        await put(spool, Mail.SEND, *NAMES)
        handler, answers = Handler(concurrency), []
        async with spool.reader(Mail.SEND) as reader:

            async def read() -> None:
                answers.append(await reader.iter(handler, concurrency=concurrency, prefetch=prefetch))

            tasks.start_soon(read)
            await handler.busy.wait()
            reader.drain(0)
            with anyio.CancelScope(shield=True):  # the block itself is cancelled, and waits for the other all the same
                while not answers:
                    await breathe()
            assert answers == [Ok(None)]
        assert state_of(spool.location).names("send") == NAMES


@pytest.mark.anyio
@pytest.mark.parametrize("left", ["by the drain", "in time"])
@pytest.mark.parametrize(
    "options", [{}, {"concurrency": 2}, {"retry": Retry(attempts=2, dead_letter=Mail.FAILED)}], ids=str
)
async def test_a_block_waits_for_handlers_outside_it_and_stores_what_they_answer(
    options: dict[str, Any], left: str, place: Location
) -> None:
    """Which wait for threads, so that no cancellation reaches them: nobody else gets their entries meanwhile."""
    async with await quick_spool(place) as spool, anyio.create_task_group() as tasks:
        await put(spool, Mail.SEND, *NAMES)
        concurrency = options.get("concurrency", 1)
        begun, go, answers, mutex = anyio.Event(), threading.Event(), [], threading.Lock()
        at_work = waiting = 0

        def wait() -> None:
            nonlocal waiting
            with mutex:
                waiting += 1
            assert go.wait(60)

        async def handler(_metadata: Any, _data: Any) -> Remove:
            nonlocal at_work
            at_work += 1
            if at_work == concurrency:
                begun.set()
            await anyio.to_thread.run_sync(wait)
            return Remove()

        async def read() -> None:
            answers.append(await reader.iter(handler, **options))

        async def let_go() -> None:
            while not (reader.stopped if left == "in time" else dequeuer_of(reader).closed):
                await breathe()
            for _ in range(5):  # every chance to take the entries away
                await breathe()
            go.set()

        async with spool.reader(Mail.SEND) as reader:
            tasks.start_soon(read)
            await begun.wait()
            while waiting != concurrency:
                await breathe()
            tasks.start_soon(let_go)
            reader.drain(0 if left == "by the drain" else HOUR)
            if left == "by the drain":
                await anyio.sleep_forever()
        assert go.is_set()
        assert answers == [Ok(None)]
        assert state_of(spool.location).names("send") == NAMES[concurrency:]


@pytest.mark.anyio
@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_drain_leaves_handlers_outside_the_block_their_time_though_the_block_is_left(
    concurrency: int, place: Location
) -> None:
    """They are not cancelled with it: what they answer in time is stored, and then the block has come to its end."""
    async with await quick_spool(place) as spool, anyio.create_task_group() as tasks:
        await put(spool, Mail.SEND, *NAMES)
        handler, answers = Handler(concurrency), []

        async def read() -> None:
            answers.append(await reader.iter(handler, concurrency=concurrency))

        async def let_go() -> None:
            while not reader.stopped:
                await breathe()
            for _ in range(5):  # every chance to cancel them
                await breathe()
            handler.go.set()

        async with spool.reader(Mail.SEND) as reader:
            tasks.start_soon(read)
            await handler.busy.wait()
            tasks.start_soon(let_go)
            reader.drain(HOUR)
        assert answers == [Ok(None)]
        assert state_of(spool.location).names("send") == NAMES[concurrency:]


@pytest.mark.anyio
@pytest.mark.parametrize(("concurrency", "prefetch"), [(1, 0), (2, 2)])
async def test_an_iteration_inside_the_block_is_drained_with_it(
    concurrency: int, prefetch: int, place: Location
) -> None:
    """What stands between it and the end of the block does not run, and what stands behind the block does."""
    ran = []
    async with await quick_spool(place) as spool:
        await put(spool, Mail.SEND, *NAMES)

        async def handler(_metadata: Any, _data: Any) -> Any:
            reader.drain(0)
            await anyio.sleep_forever()

        async with spool.reader(Mail.SEND) as reader:
            await reader.iter(handler, concurrency=concurrency, prefetch=prefetch)
            ran.append("in the block")
        ran.append("behind the block")
        assert ran == ["behind the block"]
        assert state_of(spool.location).names("send") == NAMES


@pytest.mark.anyio
@pytest.mark.parametrize("wrong", [None, "3"])
async def test_what_is_no_duration_drains_nothing(wrong: Any, place: Location) -> None:
    """`TypeError`, also for what a configuration that was not filled in brings, and the reader goes on."""
    async with await quick_spool(place) as spool, spool.reader(Mail.SEND) as reader:
        await put(spool, Mail.SEND, "1")
        with pytest.raises(TypeError, match=r"timeout|duration"):
            reader.drain(wrong)
        assert not reader.stopped
        assert (await reader.dequeue()).unwrap().name == "1"

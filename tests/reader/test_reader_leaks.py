"""Nothing leaks: no thread, descriptor, watch, lock or task outlives a reader, however it was left.

Everything is counted as the kernel and the event loop see it, never as the library says. What may stay are descriptors
of the spool's own directories: it opens them when they are first wanted, and keeps them until it is closed.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import fcntl
import gc
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

import trio_multispool
from helpers.gates import Gate, breathe
from helpers.inside import idle_bells, open_descriptors, waiters_of
from helpers.proofs import every
from helpers.spools import ANNE, Mail, make_spool, put, quick_spool, state_of
from trio_multispool import Durability, Ok, QueueReader, Release
from trio_multispool.threads import pool as threads

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path


HOUR = 3600.0
POOL = 4
TURNS = 50
NAMES = ["1", "2", "3", "4", "5", "6"]

on_both = pytest.mark.anyio


# Counting

INSTANCE = "anon_inode:inotify"
WATCH, LOCK, REGISTERED = "inotify", "lock", "tfd"
"""How the lines begin in which the kernel tells of a descriptor's watches, locks, and what an epoll waits for."""
TASK, AT_WORK = "task", "thread in the library"

_LIBRARY = os.path.dirname(trio_multispool.__file__) + os.sep


def counted() -> collections.Counter[str]:
    """Count what this process holds, open descriptors by what they lead to; but the bells that hops are done with."""
    gc.collect()  # what tests that went before have left
    bells = idle_bells()
    found: collections.Counter[str] = collections.Counter()
    for fd in open_descriptors():
        try:
            found[os.readlink(f"/proc/self/fd/{fd}")] += 1
            with open(f"/proc/self/fdinfo/{fd}") as lines:
                fields = [line.replace(":", " ").split() for line in lines]
            found.update(field for field, *value in fields if field != REGISTERED or value[0] not in bells)
        except FileNotFoundError:  # the descriptor that listed them
            continue
    for field in ("pos", "flags", "mnt_id", "ino"):  # of every descriptor
        del found[field]
    found[TASK] = len(anyio.get_running_tasks())
    found[AT_WORK] = sum(map(_is_in_the_library, _stacks_of_other_threads()))
    return found


def _stacks_of_other_threads() -> list[Any]:
    return [frame for thread, frame in sys._current_frames().items() if thread != threading.get_ident()]


def _is_in_the_library(frame: Any) -> bool:
    if frame.f_code is threads._run.__code__ and "tell" not in frame.f_locals:
        return False  # it waits for its next job
    while frame is not None:
        if frame.f_code.co_filename.startswith(_LIBRARY):
            return True
        frame = frame.f_back
    return False


async def counted_at_rest() -> collections.Counter[str]:
    """Count once no thread is at work: one that tells asyncio that it is done does so from its last line."""
    while (found := counted())[AT_WORK]:
        await breathe()
    return found


def left_over(now: collections.Counter[str], before: collections.Counter[str]) -> dict[str, int]:
    """Return what is held more than before, but for what a spool may keep open: each of its directories, once."""
    return {what: more for what, more in (now - before).items() if more > 1 or not os.path.isdir(what)}


def locked(path: Path) -> list[str]:
    """Return the entries whose lock somebody holds: `flock` belongs to the open file, so we are somebody else."""
    found = []
    for name in os.listdir(path / ".registry"):
        with open(path / ".registry" / name) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                found.append(name)
    return found


async def waiting(spool: Any, count: int = 1) -> None:
    """Wait until so many tasks wait for a queue to change."""
    while len(waiters_of(spool)) < count:
        await breathe()


# How a reader may be left. In `send` are six entries, and they are there again afterwards; `retry` is empty.


class TroubleError(Exception):
    """What goes wrong in here."""


async def take(reader: Any) -> Any:
    """Have an entry in hand; that there is none would be a leak, and must not be waited for."""
    job = (await reader.dequeue_available()).unwrap()
    assert job is not None
    return job


@contextlib.asynccontextmanager
async def blocked(spool: Any, reader: Any) -> AsyncIterator[Any]:
    """Have a task wait in `dequeue` for the length of a block."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reader.dequeue)
        await waiting(spool)
        yield tasks


@contextlib.asynccontextmanager
async def pool(reader: Any) -> AsyncIterator[tuple[Any, anyio.Event]]:
    """Have a pool of handlers at work for the length of a block; the event lets them finish, and return their entry."""
    started, go = 0, anyio.Event()

    async def handler(_metadata: Any, _data: Any) -> Any:
        nonlocal started
        started += 1
        await go.wait()
        return Release()

    async def read() -> None:
        assert await reader.iter(handler, concurrency=POOL) == Ok(None)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        while started < POOL:
            await breathe()
        yield tasks, go


async def by_its_end(spool: Any) -> None:
    """Reach the end of the block, with one entry settled and one in hand."""
    async with spool.reader(Mail.SEND) as reader:
        async with await take(reader) as job:
            (await job.save(Mail.SEND)).unwrap()
        await take(reader)


async def by_an_exception(spool: Any) -> None:
    """Raise in the block, with an entry in hand."""

    async def read() -> None:
        async with spool.reader(Mail.SEND) as reader:
            await take(reader)
            raise TroubleError

    with pytest.raises(TroubleError):
        await read()


async def by_an_exception_while_another_task_waits(spool: Any) -> None:
    """Raise in the block, with a task of the block in `dequeue`."""
    with pytest.raises(ExceptionGroup):
        async with spool.reader(Mail.RETRY, poll_interval=HOUR) as reader, blocked(spool, reader):
            raise TroubleError


async def by_breaking_off(spool: Any) -> None:
    """Leave two loops early, one of them in the midst of a job's block."""
    async with spool.reader(Mail.SEND) as reader:
        async for job in reader:
            async with job:
                break
        async for job in reader.available():  # noqa: B007  # it is in hand, and that is all
            break


async def by_a_pass(spool: Any) -> None:
    """Work off what is there with a pool."""

    async def handler(_metadata: Any, data: Any) -> Any:
        (await data.load()).unwrap()
        return Release()

    async with spool.reader(Mail.SEND) as reader:
        (await reader.iter_available(handler, concurrency=POOL)).unwrap()


async def by_cancelling_a_wait(spool: Any) -> None:
    """Cancel what waits inside, and leave normally."""
    async with spool.reader(Mail.RETRY, poll_interval=HOUR) as reader, blocked(spool, reader) as tasks:
        tasks.cancel_scope.cancel()


async def by_being_cancelled_while_waiting(spool: Any) -> None:
    """Cancel the block itself while three tasks wait, one of them with the baton."""
    with anyio.CancelScope() as scope:
        async with spool.reader(Mail.RETRY, poll_interval=HOUR) as reader, blocked(spool, reader) as tasks:
            tasks.start_soon(reader.dequeue)
            tasks.start_soon(reader.dequeue)
            await waiting(spool, 3)
            scope.cancel()
    assert scope.cancelled_caught


async def by_being_cancelled_with_an_entry_in_hand(spool: Any) -> None:
    """Cancel the block while a job's block runs, and another entry is in hand."""
    with anyio.CancelScope() as scope:
        async with spool.reader(Mail.SEND) as reader:
            await take(reader)
            async with await take(reader):
                scope.cancel()
                await anyio.sleep_forever()
    assert scope.cancelled_caught


async def by_being_cancelled_while_handlers_run(spool: Any) -> None:
    """Cancel the block while a pool is at work."""
    with anyio.CancelScope() as scope:
        async with spool.reader(Mail.SEND) as reader, pool(reader):
            scope.cancel()
    assert scope.cancelled_caught


async def by_stopping_a_wait(spool: Any) -> None:
    """Stop a reader that waits."""
    async with spool.reader(Mail.RETRY, poll_interval=HOUR) as reader, blocked(spool, reader):
        reader.stop()


async def by_stopping_while_handlers_run(spool: Any) -> None:
    """Stop a reader, and let its pool finish."""
    async with spool.reader(Mail.SEND) as reader, pool(reader) as (_, go):
        reader.stop()
        go.set()


async def by_draining_a_wait(spool: Any) -> None:
    """Drain a reader whose own block waits."""
    async with spool.reader(Mail.RETRY, poll_interval=HOUR) as reader:
        reader.drain(0)
        await anyio.sleep_forever()


async def by_draining_handlers(spool: Any) -> None:
    """Drain a reader, and leave its pool no time."""
    async with spool.reader(Mail.SEND) as reader, pool(reader):
        reader.drain(0)


async def by_draining_at_leisure(spool: Any) -> None:
    """Give the pool more time than it takes, and leave with the hour not over."""
    async with spool.reader(Mail.SEND) as reader, pool(reader) as (_, go):
        reader.drain(HOUR)
        go.set()


async def by_a_handler_that_raises(spool: Any) -> None:
    """Have the handler of one task raise."""

    async def handler(_metadata: Any, _data: Any) -> Any:
        raise TroubleError

    async with spool.reader(Mail.SEND) as reader:
        with pytest.raises(TroubleError):
            await reader.iter(handler)


async def by_a_handler_that_raises_beside_others(spool: Any) -> None:
    """Have one handler of a pool raise while the others are at work."""
    started, all_started = 0, anyio.Event()

    async def handler(_metadata: Any, _data: Any) -> Any:
        nonlocal started
        started += 1
        if started == POOL:
            all_started.set()
            raise TroubleError
        await anyio.sleep_forever()

    with pytest.raises(ExceptionGroup):
        async with spool.reader(Mail.SEND) as reader:
            await reader.iter(handler, concurrency=POOL)
    assert all_started.is_set()


async def by_a_time_limit(spool: Any) -> None:
    """Have every handler take too long."""
    late = []

    async def handler(_metadata: Any, _data: Any) -> Any:
        await anyio.sleep_forever()

    def on_error(metadata: Any, _error: Exception) -> Any:
        late.append(metadata.recipient)
        return Release()

    async with spool.reader(Mail.SEND) as reader:
        (await reader.iter_available(handler, concurrency=POOL, time_limit=0, on_error=on_error)).unwrap()
    assert sorted(late) == NAMES


async def by_the_end_of_a_channel(spool: Any) -> None:
    """Leave a channel and its clones open, with one thing received and not acknowledged, and one returned."""
    async with spool.channel(Mail.SEND) as (send, receive):
        await receive.clone().receive()
        send.clone()
        with pytest.raises(TroubleError):
            async with await receive.receive():
                raise TroubleError


async def by_an_exception_in_a_channel(spool: Any) -> None:
    """Raise in a channel's block, in an iteration."""

    async def receive_all() -> None:
        async with spool.channel(Mail.SEND) as (_, receive):
            async for received in receive:
                async with received:
                    raise TroubleError

    with pytest.raises(TroubleError):
        await receive_all()


async def by_being_cancelled_in_a_channel(spool: Any) -> None:
    """Cancel a channel's block while one task waits to receive and one has something in hand."""
    name = ""
    with anyio.CancelScope() as scope:
        async with spool.channel(Mail.RETRY) as (send, receive), anyio.create_task_group() as tasks:
            await send.send((ANNE, b"Hello"))
            async with await receive.receive() as received:
                name = received.name
                tasks.start_soon(receive.receive)
                await waiting(spool)
                scope.cancel()
                await anyio.sleep_forever()
    assert scope.cancelled_caught
    async with spool.reader(Mail.RETRY) as reader, await take(reader) as job:
        assert job.name == name
        (await job.remove()).unwrap()


async def by_closing_an_end(spool: Any) -> None:
    """Close the receive end of a channel under a task that waits in it, and the send end under one that wants room."""
    async with spool.channel(Mail.RETRY) as (_, receive), spool.channel(Mail.SEND, max_entries=1) as (send, _):

        async def wait_for(method: Any, *arguments: Any) -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await method(*arguments)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait_for, receive.receive)
            tasks.start_soon(wait_for, send.send, (ANNE, b"Hello"))
            await waiting(spool)
            while not send.statistics().tasks_waiting_send:
                await breathe()
            await receive.aclose()
            await send.aclose()


WAYS: list[Callable[[Any], Awaitable[None]]] = [
    by_its_end,
    by_an_exception,
    by_an_exception_while_another_task_waits,
    by_breaking_off,
    by_a_pass,
    by_cancelling_a_wait,
    by_being_cancelled_while_waiting,
    by_being_cancelled_with_an_entry_in_hand,
    by_being_cancelled_while_handlers_run,
    by_stopping_a_wait,
    by_stopping_while_handlers_run,
    by_draining_a_wait,
    by_draining_handlers,
    by_draining_at_leisure,
    by_a_handler_that_raises,
    by_a_handler_that_raises_beside_others,
    by_a_time_limit,
    by_the_end_of_a_channel,
    by_an_exception_in_a_channel,
    by_being_cancelled_in_a_channel,
    by_closing_an_end,
]


# While it lives


@on_both
async def test_what_a_reader_holds_while_it_lives_is_counted(tmp_path: Path) -> None:
    """What the other tests do not find afterwards, they would: each thing is there while a reader needs it."""
    gate = Gate()
    async with await make_spool(tmp_path / "spool", durability=Durability.PROCESS, system_calls=gate) as spool:
        await put(spool, Mail.SEND, *NAMES)
        assert locked(spool.path) == []
        before = await counted_at_rest()
        async with spool.reader(Mail.SEND) as reader, spool.reader(Mail.RETRY, poll_interval=HOUR) as idle:
            job = await take(reader)
            in_hand = counted() - before
            assert in_hand[LOCK] == 1
            assert in_hand[str(spool.path / ".registry" / job.name)] == 1
            assert locked(spool.path) == [job.name]
            while not (in_hand := counted() - before)[REGISTERED]:  # until it is listened for requests to cancel it
                await breathe()
            assert (in_hand[INSTANCE], in_hand[WATCH], in_hand[REGISTERED], in_hand[TASK]) == (1, 1, 1, 1)
            async with blocked(spool, idle):
                in_wait = counted() - before - in_hand
                assert (in_wait[INSTANCE], in_wait[WATCH], in_wait[REGISTERED], in_wait[TASK]) == (1, 2, 1, 1)
                idle.stop()
            async with anyio.create_task_group() as tasks:
                gate.arm("move")
                tasks.start_soon(reader.dequeue)
                await gate.reached()
                assert (counted() - before)[AT_WORK] == 1
                gate.go()


@on_both
async def test_readers_that_wait_hold_no_thread_and_share_one_descriptor(tmp_path: Path) -> None:
    """Thirty waiting readers of three queues: no thread, no token of the limiter, one instance, a watch per queue."""
    limiter = anyio.CapacityLimiter(5)
    before = counted()
    threads = threading.active_count()
    async with (
        await quick_spool(tmp_path / "spool", limiter=limiter) as spool,
        contextlib.AsyncExitStack() as entered,
    ):
        queues = list(Mail) * 10
        readers = [await entered.enter_async_context(spool.reader(queue, poll_interval=HOUR)) for queue in queues]
        async with anyio.create_task_group() as tasks:
            for reader in readers:
                tasks.start_soon(reader.dequeue)
            await waiting(spool, len(readers))
            now = counted() - before
            assert (now[AT_WORK], limiter.borrowed_tokens) == (0, 0)
            assert (now[INSTANCE], now[WATCH], now[REGISTERED], now[TASK]) == (1, 1 + len(Mail), 1, len(readers))
            # Idle ones, which the framework keeps: as many as could be at work, and the one that waited for them.
            assert threading.active_count() - threads <= limiter.total_tokens + 1
            tasks.cancel_scope.cancel()
    assert await counted_at_rest() == before


# Afterwards


@on_both
@pytest.mark.parametrize("leave", WAYS, ids=lambda way: way.__name__)
async def test_nothing_is_left_of_a_reader(leave: Callable[[Any], Awaitable[None]], tmp_path: Path) -> None:
    """However it was left: what is held is what was held before, once the spool is closed to the last descriptor."""
    before = counted()
    async with await quick_spool(tmp_path / "spool", durability=Durability.PROCESS) as spool:
        await put(spool, Mail.SEND, *NAMES)
        at_first, state = None, state_of(spool.location)
        for _ in range(3):
            await leave(spool)
            now = await counted_at_rest()
            assert left_over(now, before) == {}
            at_first = at_first or now
            assert now == at_first
            assert locked(spool.path) == []
            assert state_of(spool.location) == state
    assert await counted_at_rest() == before


@on_both
async def test_many_readers_hold_no_more_than_one(tmp_path: Path) -> None:
    """After sixty readers, left in all ways, it is as after the first few, and none of them is still in memory."""
    threads = threading.active_count()
    gc.collect()
    others = {id(each) for each in gc.get_objects() if type(each) is QueueReader}  # of tests that went before
    async with await quick_spool(tmp_path / "spool", durability=Durability.PROCESS) as spool:
        await put(spool, Mail.SEND, *NAMES)
        counts = []
        for _ in range(3):
            for leave in WAYS:
                await leave(spool)
            counts.append(await counted_at_rest())
        assert counts[1:] == counts[:1] * 2
        # The frameworks keep idle threads: as many as were once at work together, and some that were on their way back.
        assert threading.active_count() - threads <= 3 * POOL
        gc.collect()
        assert [each for each in gc.get_objects() if type(each) is QueueReader and id(each) not in others] == []


@on_both
async def test_nothing_is_left_of_a_reader_whose_spool_was_closed_first(tmp_path: Path) -> None:
    """Closed under a reader that waits, with an entry in hand: its lock goes at once, and the watch with the reader."""
    before = counted()
    spool = await quick_spool(tmp_path / "spool", durability=Durability.PROCESS)
    await put(spool, Mail.SEND, *NAMES)
    async with (
        spool.reader(Mail.SEND) as reader,
        spool.reader(Mail.RETRY, poll_interval=HOUR) as idle,
        blocked(spool, idle) as tasks,
    ):
        job = await take(reader)
        assert locked(spool.path) == [job.name]
        spool.close()
        assert locked(spool.path) == []
        tasks.cancel_scope.cancel()
    assert await counted_at_rest() == before


# Cancelled at any moment


async def live(spool: Any) -> None:
    """Do all that readers do, and then wait for ever."""

    async def handler(_metadata: Any, data: Any) -> Any:
        (await data.load()).unwrap()
        return Release()

    async with spool.reader(Mail.SEND) as reader:
        async with await take(reader) as job:
            (await job.save(Mail.SEND)).unwrap()
        await take(reader)
        (await reader.iter_available(handler, concurrency=2)).unwrap()
        async with spool.reader(Mail.RETRY, poll_interval=HOUR) as idle:
            await idle.dequeue()


@contextlib.asynccontextmanager
async def cancelled_natively(function: Callable[..., Any], *arguments: Any) -> AsyncIterator[None]:
    """Run a function in a task of asyncio's for the length of a block, and cancel that at its end."""
    task = asyncio.ensure_future(function(*arguments))
    yield
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@contextlib.asynccontextmanager
async def cancelled_by_scope(function: Callable[..., Any], *arguments: Any) -> AsyncIterator[None]:
    """Run a function in a task for the length of a block, and cancel its scope at its end."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(function, *arguments)
        yield
        tasks.cancel_scope.cancel()


@on_both
@pytest.mark.proof
@pytest.mark.parametrize("pause", [anyio.lowlevel.checkpoint, breathe], ids=["turns", "hops"])
@pytest.mark.parametrize(
    ("anyio_backend", "cancelled"),
    [("asyncio", cancelled_by_scope), ("trio", cancelled_by_scope), ("asyncio", cancelled_natively)],
    ids=["asyncio", "trio", "asyncio-native"],
)
async def test_nothing_is_left_of_a_reader_that_was_cancelled_at_any_moment(
    cancelled: Any, pause: Callable[[], Awaitable[None]], anyio_backend: str, tmp_path: Path
) -> None:
    """After so many turns of the event loop, and after every number of hops to a thread until it only waits."""
    before, threads = counted(), threading.active_count()
    async with await quick_spool(tmp_path / "spool", durability=Durability.PROCESS) as spool:
        await put(spool, Mail.SEND, *NAMES)
        state = state_of(spool.location)
        steps, waited = 0, False
        while not waited and (pause is breathe or steps < TURNS):
            async with cancelled(live, spool):
                for _ in range(steps):
                    await pause()
                waited = bool(waiters_of(spool, Mail.RETRY.value))
            now = await counted_at_rest()
            assert left_over(now, before) == {}
            assert locked(spool.path) == []
            assert state_of(spool.location) == state
            steps += 1 if pause is breathe else every(9)
        assert threading.active_count() - threads <= 3 * POOL
    assert await counted_at_rest() == before


@on_both
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("where", ["waiting", "in hand", "handlers", "checking out", "checked out", "leaving"])
async def test_nothing_is_left_of_a_reader_whose_task_asyncio_cancelled(
    where: str, times: int, anyio_backend: str, tmp_path: Path
) -> None:
    """`Task.cancel()`, once or again and again, which does not wait for a thread: the task does, with all it holds."""
    gate, reached = Gate(), anyio.Event()

    async def read(spool: Any) -> None:
        async with spool.reader(Mail.RETRY if where == "waiting" else Mail.SEND, poll_interval=HOUR) as reader:
            if where == "handlers":
                async with pool(reader):
                    reached.set()
                    await anyio.sleep_forever()
            if where in ("in hand", "leaving"):
                await take(reader)
                await take(reader)
                reached.set()
            if where == "in hand":
                await anyio.sleep_forever()
            if where in ("checking out", "checked out", "leaving"):
                gate.arm("move", after=where == "checked out")
            if where != "leaving":
                await reader.dequeue()

    before = counted()
    async with await make_spool(tmp_path / "spool", durability=Durability.PROCESS, system_calls=gate) as spool:
        await put(spool, Mail.SEND, *NAMES)
        state = state_of(spool.location)
        task = asyncio.ensure_future(read(spool))
        if where == "waiting":
            await waiting(spool)
        elif where in ("in hand", "handlers"):
            await reached.wait()
        else:
            await gate.reached()
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        gate.go()
        with pytest.raises(asyncio.CancelledError):
            await task
        now = await counted_at_rest()
        assert left_over(now, before) == {}
        assert locked(spool.path) == []
        assert state_of(spool.location) == state
        del task
    assert await counted_at_rest() == before

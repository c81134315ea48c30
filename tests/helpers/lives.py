"""Lives of programs that read a queue, to be cut short at any step, and what must hold of their entries then.

A life tells its `World` what it is about to do with an entry and what it was told is done. Whatever lies on disk when
it is over has to agree: what was done stands, what was begun may have happened, and all else is where it was.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel

from helpers.inside import dequeuer_of, threads_of
from helpers.spools import ANNE, Mail, load_spool, state_of
from helpers.stores import enqueue, make_store
from trio_multispool import Durability, Exponential, GiveUp, Release, Remove, Retry, Save
from trio_multispool.model.attempts import history_in
from trio_multispool.model.notes import decode_notes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

START = {"1": "send", "2": "send", "3": "retry", "4": "retry", "5": "retry"}
"""Where the entries are at first."""

REMOVED = ""


class World:
    """A spool, and what a program knows of its entries."""

    def __init__(self, spool: Any) -> None:
        """Begin with nothing done."""
        self.spool = spool
        self.rests: Callable[[], bool] = lambda: False
        """Whether the life has come to where it waits for ever."""
        self._begun: dict[str, set[str]] = {name: {queue} for name, queue in START.items()}
        self._done: dict[str, str] = {}
        self._sent = [0, 0]

    def will(self, name: str, queue: str) -> None:
        """Say where an entry is about to go."""
        self._begun.setdefault(name, set()).add(queue)

    def did(self, name: str, queue: str) -> None:
        """Say where an entry has gone."""
        self._done[name] = queue

    def begin_to_send(self) -> None:
        """Say that an entry is about to be made."""
        self._sent[0] += 1

    def sent(self) -> None:
        """Say that it has been made."""
        self._sent[1] += 1

    def check(self) -> None:
        """Hold what is on disk against what the program was told."""
        state = state_of(self.spool.path)
        assert state.faults() == []
        assert not any(state.checked_out.values())
        new = state.entries() - set(START)
        for name in self._begun.keys() | self._done.keys() | new:
            where = "".join(state.places(name))
            if name in self._done:
                assert where == self._done[name], f"{name} is in {where or 'no place'}"
            elif name in START:
                assert where in self._begun[name], f"{name} is in {where or 'no place'}"
        for name, notes in state.notes.items():
            history = history_in(decode_notes(notes))
            ended = [] if history is None else [attempt.ended is not None for attempt in history.attempts]
            assert all(ended), f"an attempt at {name} was neither struck out nor did it fail"
        begun, done = self._sent
        received = {name for name in self._begun if name not in START}
        assert done <= len(new | received) <= begun
        session = self.spool._session
        assert not session.changes._waiters
        assert not threads_of(self.spool)
        for batches in (session.settlements, session.enqueuings):
            assert not batches._pending
            assert batches._leader is None


def prepare(path: Path) -> None:
    """Make a spool with the entries in it, to be copied for each life."""
    store = make_store(path, durability=Durability.PROCESS)
    for name, queue in START.items():
        enqueue(store, queue, name)
    store.close()


async def begin(template: Path, path: Path) -> World:
    """Begin a life in a spool of its own."""
    shutil.copytree(template, path)
    return World(await load_spool(path, durability=Durability.PROCESS))


async def by_hand(world: World) -> None:
    """Settle one entry after the other, each in its block, until there is no more to do."""
    done = 0
    async with world.spool.reader(Mail.SEND) as reader:
        async for job in reader:
            async with job:
                (await job.data.load()).unwrap()
                world.will(job.name, "failed")
                (await job.save(Mail.FAILED)).unwrap()
                world.did(job.name, "failed")
            done += 1
            if done == 2:
                reader.stop()


async def without_blocks(world: World) -> None:
    """Have several entries in hand, with no block around them; settle one, and leave the reader with the others."""
    async with world.spool.reader(Mail.RETRY) as reader:
        jobs = [(await reader.dequeue()).unwrap() for _ in range(3)]
        world.will(jobs[1].name, "failed")
        (await jobs[1].save(Mail.FAILED)).unwrap()
        world.did(jobs[1].name, "failed")
        (await jobs[2].release()).unwrap()


def by_a_pool(concurrency: int, prefetch: int) -> Callable[[World], Awaitable[None]]:
    """Have handlers remove what is there."""

    async def live(world: World) -> None:
        async def handler(_metadata: Any, data: Any) -> Any:
            await anyio.lowlevel.checkpoint()
            world.will(data.name, REMOVED)
            return Remove()

        async with world.spool.reader(Mail.RETRY) as reader:
            (await reader.iter_available(handler, concurrency=concurrency, prefetch=prefetch)).unwrap()
        for name in ("3", "4", "5"):
            world.did(name, REMOVED)

    return live


async def by_a_pool_that_waits(world: World) -> None:
    """Have handlers remove what is there, and wait for more, which does not come."""
    handled = 0

    async def handler(_metadata: Any, data: Any) -> Any:
        nonlocal handled
        await anyio.lowlevel.checkpoint()
        world.will(data.name, REMOVED)
        handled += 1
        return Remove()

    async with world.spool.reader(Mail.RETRY, poll_interval=3600) as reader:
        session = world.spool._session
        world.rests = lambda: bool(handled == 3 and not len(dequeuer_of(reader)) and session.changes._waiters)
        await reader.iter(handler, concurrency=2, prefetch=1)


async def by_a_pool_with_errors(world: World) -> None:
    """Have handlers fail, in two ways, and another function say what is to become of their entries."""

    async def handler(_metadata: Any, data: Any) -> Any:
        if data.name == "3":
            raise LookupError
        if data.name == "4":
            await anyio.sleep_forever()  # longer than the time limit
        world.will(data.name, REMOVED)
        return Remove()

    def on_error(_metadata: Any, error: Exception) -> Any:
        if isinstance(error, TimeoutError):
            return Release()
        world.will("3", "failed")
        return Save(Mail.FAILED)

    async with world.spool.reader(Mail.RETRY) as reader:
        answer = await reader.iter_available(handler, concurrency=2, time_limit=0, on_error=on_error)
        answer.unwrap()
    world.did("3", "failed")
    world.did("4", "retry")
    world.did("5", REMOVED)


async def by_a_pool_that_tries_again(world: World) -> None:
    """Have handlers fail, so that one entry waits for its next attempt, and another is given up."""
    retry = Retry(attempts=2, backoff=Exponential(first=3600), dead_letter=Mail.FAILED)

    async def handler(_metadata: Any, data: Any) -> Any:
        await anyio.lowlevel.checkpoint()
        if data.name == "3":
            world.will("3", "retry/.waiting")
            raise LookupError
        if data.name == "4":
            world.will("4", "failed")
            return GiveUp()
        world.will(data.name, REMOVED)
        return Remove()

    async with world.spool.reader(Mail.RETRY) as reader:
        (await reader.iter_available(handler, concurrency=2, retry=retry)).unwrap()
    world.did("3", "retry/.waiting")
    world.did("4", "failed")
    world.did("5", REMOVED)


async def drained(world: World) -> None:
    """Drain the reader when a pool is at work, and go on behind its block."""
    begun = 0

    async def handler(_metadata: Any, data: Any) -> Any:
        nonlocal begun
        begun += 1
        if begun == 2:
            reader.drain(0)
        if begun > 1:
            await anyio.sleep_forever()
        world.will(data.name, REMOVED)
        return Remove()

    async with world.spool.reader(Mail.RETRY) as reader:
        await reader.iter(handler, concurrency=2, prefetch=1)
    assert begun > 1
    await by_hand(world)


async def through_a_channel(world: World) -> None:
    """Send when there is room, which another task makes by receiving; return one message, and acknowledge the rest."""
    async with world.spool.channel(Mail.SEND, max_entries=2) as (send, receive), anyio.create_task_group() as tasks:

        async def send_two() -> None:
            for _ in range(2):
                world.begin_to_send()
                await send.send((ANNE, b"Hello"))
                world.sent()

        tasks.start_soon(send_two)
        with anyio.CancelScope() as scope:
            async with await receive.receive():
                scope.cancel()
                await anyio.lowlevel.checkpoint()
        for _ in range(4):
            async with await receive.receive() as received:
                world.will(received.name, REMOVED)
            world.did(received.name, REMOVED)


LIVES: dict[str, Callable[[World], Awaitable[None]]] = {
    "by hand": by_hand,
    "without blocks": without_blocks,
    "a handler": by_a_pool(1, 0),
    "a pool": by_a_pool(2, 0),
    "a handler that fetches ahead": by_a_pool(1, 2),
    "a pool that fetches ahead": by_a_pool(2, 2),
    "a pool that waits": by_a_pool_that_waits,
    "a pool with errors": by_a_pool_with_errors,
    "a pool that tries again": by_a_pool_that_tries_again,
    "drained": drained,
    "a channel": through_a_channel,
}
"""All of them; each begins with what `prepare` made."""

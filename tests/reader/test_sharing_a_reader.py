"""Several tasks that use one reader: what is under way in one when another leaves it, stops it, or is cancelled.

A check-out that is in its thread cannot be stopped. So whoever leaves a reader waits for it, whoever stops one finds
nothing checked out afterwards, and what it found out on its way is not lost to the others.
"""

from __future__ import annotations

import errno
import gc
import os
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from helpers.gates import Gates, Hold, breathe, let_go_at_last, until
from helpers.inside import dequeuer_of, waiters_of, wrap_looks
from helpers.spools import Mail, load_spool, make_spool, names_in, put, quick_spool, state_of
from trio_multispool import Ok, Remove, StorageFailure

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.spools import Location

pytestmark = pytest.mark.anyio

HOUR = 3600.0


class Outcome:
    """What came of a call in another task."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.answers: list[Any] = []
        self.raised: list[BaseException] = []

    async def of(self, function: Any, *arguments: Any, **options: Any) -> None:
        """Make a call, and keep what comes of it."""
        try:
            self.answers.append(await function(*arguments, **options))
        except (anyio.ClosedResourceError, ExceptionGroup) as error:
            self.raised.append(error)


async def let_go_once_closed(reader: Any, *holds: Hold) -> None:
    """Let held calls go on when the reader's block is being left, and has had every chance to end without them."""
    with let_go_at_last(*holds), anyio.CancelScope(shield=True):
        await until(lambda: dequeuer_of(reader).closed)
        for _ in range(5):
            await breathe()


def instances() -> int:
    """Count the inotify instances that this process has open."""
    gc.collect()  # what tests that went before have left
    found = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:inotify"
        except FileNotFoundError:
            continue
    return found


# Leaving


@pytest.mark.sample
async def test_leaving_waits_for_a_task_that_is_about_to_watch_the_queue(place: Location) -> None:
    """Its thread opens the watch that the reader's end has to close: afterwards there is none."""
    async with await quick_spool(place) as spool, anyio.create_task_group() as tasks:
        hold, ended, outcome = Hold(), threading.Event(), Outcome()
        watch = spool._session.changes.watch

        def held(queue: str) -> None:
            hold.wait()
            watch(queue)
            ended.set()

        spool._session.changes.watch = held
        async with spool.reader(Mail.SEND, poll_interval=HOUR) as reader:
            tasks.start_soon(outcome.of, reader.dequeue)
            await hold.reached()
            tasks.start_soon(let_go_once_closed, reader, hold)
        assert ended.is_set()
        assert instances() == 0
        await until(lambda: outcome.raised or outcome.answers)
        assert instances() == 0
    assert [type(error) for error in outcome.raised] == [anyio.ClosedResourceError]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("what", ["dequeue", "dequeue_available", "iter", "pool", "prefetch"])
async def test_leaving_waits_for_a_task_that_is_checking_out(what: str, after: bool, tmp_path: Path) -> None:
    """Before its commit or behind it: at the end of the block nothing is checked out, and the task is told so."""
    gates = Gates()
    async with await quick_spool(tmp_path / "spool", system_calls=gates) as spool, anyio.create_task_group() as tasks:
        await put(spool, Mail.SEND, "1", "2")
        outcome, begun = Outcome(), []

        async def handler(_metadata: Any, data: Any) -> Any:
            begun.append(data.name)
            return Remove()

        async with spool.reader(Mail.SEND) as reader:
            hold = gates.hold("move", "send/.checkout/1", after=after)
            match what:
                case "iter":
                    tasks.start_soon(outcome.of, reader.iter, handler)
                case "pool" | "prefetch":
                    options = {"concurrency": 2} if what == "pool" else {"prefetch": 1}
                    tasks.start_soon(lambda: outcome.of(reader.iter, handler, **options))
                case _:
                    tasks.start_soon(outcome.of, getattr(reader, what))
            await hold.reached()
            tasks.start_soon(let_go_once_closed, reader, hold)
        assert state_of(spool.location).checked_out["send"] == {}
        assert await names_in(spool, Mail.SEND) == ["1", "2"]
        await until(lambda: outcome.raised or outcome.answers)
        assert begun == []
        assert [type(error) for error in outcome.raised] == [anyio.ClosedResourceError]
    assert state_of(spool.location).faults() == []


async def test_what_was_being_checked_out_and_cannot_go_back_is_told_by_the_block_that_was_left(tmp_path: Path) -> None:
    """The block raises why, as for all that it returns, and recovery returns the entry."""

    class Unwilling(Gates):
        def move(self, name: str, directory: int, new_name: str, new_directory: int) -> None:
            if os.readlink(f"/proc/self/fd/{directory}").endswith("/.checkout"):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            super().move(name, directory, new_name, new_directory)

    gates, outcome = Unwilling(), Outcome()
    async with await quick_spool(tmp_path / "spool", system_calls=gates) as spool, anyio.create_task_group() as tasks:
        await put(spool, Mail.SEND, "1")

        async def leave() -> None:
            async with spool.reader(Mail.SEND) as reader:
                hold = gates.hold("move", after=True)
                tasks.start_soon(outcome.of, reader.dequeue)
                await hold.reached()
                tasks.start_soon(let_go_once_closed, reader, hold)

        with pytest.raises(StorageFailure) as raised:
            await leave()
        assert raised.value.errno == errno.EIO
        await until(lambda: outcome.raised or outcome.answers)
    assert [type(error) for error in outcome.raised] == [anyio.ClosedResourceError]
    async with await load_spool(spool.path) as again:
        assert await names_in(again, Mail.SEND) == ["1"]


# Stopping


@pytest.mark.parametrize("what", ["dequeue", "dequeue_available", "iter", "pool"])
async def test_a_stop_ends_what_waits_for_a_thread(what: str, place: Location) -> None:
    """`Ok(None)` although the limiter has no token to spare, and nothing is checked out when it has one again."""
    limiter = anyio.CapacityLimiter(1)
    async with await quick_spool(place, limiter=limiter) as spool:
        await put(spool, Mail.SEND, "1", "2")

        async def handler(_metadata: Any, _data: Any) -> Any:
            raise AssertionError("the reader was stopped before there was anything to handle")

        outcome = Outcome()
        async with spool.reader(Mail.SEND) as reader, anyio.create_task_group() as tasks:
            limiter.acquire_on_behalf_of_nowait("somebody else")
            match what:
                case "iter":
                    tasks.start_soon(outcome.of, reader.iter, handler)
                case "pool":
                    tasks.start_soon(lambda: outcome.of(reader.iter, handler, concurrency=2, prefetch=2))
                case _:
                    tasks.start_soon(outcome.of, getattr(reader, what))
            await until(lambda: limiter.statistics().tasks_waiting)
            reader.stop()
            for _ in range(20):
                await breathe()
            answers = list(outcome.answers)
            limiter.release_on_behalf_of("somebody else")
        assert answers == [Ok(None)]
        assert await names_in(spool, Mail.SEND) == ["1", "2"]


@pytest.mark.parametrize("what", ["dequeue", "dequeue_available", "iter", "pool"])
@pytest.mark.parametrize("listed", [False, True])
async def test_a_stop_in_the_middle_of_a_hop_leaves_everything_where_it_is(
    listed: bool, what: str, tmp_path: Path
) -> None:
    """A thread that has not come to its first name takes none: while it lists, and when it has a listing already."""
    gates, moved = Gates(), []

    async with await quick_spool(tmp_path / "spool", system_calls=gates) as spool:
        await put(spool, Mail.SEND, "1", "2", "3")
        outcome = Outcome()

        async def handler(_metadata: Any, data: Any) -> Any:
            moved.append(data.name)
            return Remove()

        async with spool.reader(Mail.SEND) as reader, anyio.create_task_group() as tasks:
            if listed:
                async with (await reader.dequeue()).unwrap() as job:
                    (await job.remove()).unwrap()
                hold = Hold()

                def held(look: Any) -> Any:
                    hold.wait()
                    return look()

                wrap_looks(reader, held)
            else:
                hold = gates.hold("regular_files", "send", after=True)
            before = state_of(spool.location)
            match what:
                case "iter":
                    tasks.start_soon(outcome.of, reader.iter, handler)
                case "pool":
                    tasks.start_soon(lambda: outcome.of(reader.iter, handler, concurrency=2, prefetch=2))
                case _:
                    tasks.start_soon(outcome.of, getattr(reader, what))
            await hold.reached()
            watching = gates.hold("move")
            reader.stop()
            hold.go()
            await until(lambda: outcome.answers or watching.there)
            watching.go()
        assert not watching.there, "an entry was checked out after the stop"
        assert outcome.answers == [Ok(None)]
        assert moved == []
        assert state_of(spool.location) == before


@pytest.mark.parametrize("how", ["it is stopped", "its block is left"])
@pytest.mark.parametrize("what", ["dequeue", "iter", "pool"])
async def test_a_reader_that_ends_while_its_last_look_finds_nothing_does_not_wait(
    what: str, how: str, tmp_path: Path
) -> None:
    """There was no wait yet that could be ended, and none is begun: nobody would end it for an hour."""
    gates = Gates()
    async with await make_spool(tmp_path / "spool", system_calls=gates) as spool, anyio.create_task_group() as tasks:
        outcome = Outcome()

        async def handler(_envelope: Any, _data: Any) -> Remove:
            return Remove()

        looked = gates.hold("scan", "send/.checkout", after=True)
        with anyio.fail_after(30), let_go_at_last(looked):
            async with spool.reader(Mail.SEND, poll_interval=HOUR) as reader:
                if what == "dequeue":
                    tasks.start_soon(outcome.of, reader.dequeue)
                else:
                    options = {"concurrency": 3} if what == "pool" else {}
                    tasks.start_soon(lambda: outcome.of(reader.iter, handler, **options))
                await looked.reached()
                if how == "it is stopped":
                    reader.stop()
                    await breathe()
                    looked.go()
                    await until(lambda: outcome.answers)
                else:
                    tasks.start_soon(let_go_once_closed, reader, looked)
            await until(lambda: outcome.answers or outcome.raised)


# An entry that is locked


async def test_a_lock_that_a_cancelled_task_met_is_looked_for_again_by_the_others(tmp_path: Path) -> None:
    """A lock that is dropped wakes nobody, and neither would look again for an hour."""
    producing = Gates()
    async with (
        await make_spool(tmp_path / "spool") as spool,
        await load_spool(tmp_path / "spool", system_calls=producing) as other,
        spool.reader(Mail.SEND, poll_interval=HOUR) as reader,
        anyio.create_task_group() as tasks,
    ):
        outcome, scope = Outcome(), anyio.CancelScope()
        enqueuing = producing.hold("move", after=True)
        tasks.start_soon(put, other, Mail.SEND, "one")
        await enqueuing.reached()  # the entry is there, and locked

        async def meet() -> None:
            with scope:
                await reader.dequeue()

        with let_go_at_last(enqueuing):
            tasks.start_soon(meet)
            await until(lambda: waiters_of(spool))
            tasks.start_soon(outcome.of, reader.dequeue)
            await until(lambda: len(waiters_of(spool)) > 1)
            assert all(each.scope.deadline - anyio.current_time() < HOUR / 2 for each in waiters_of(spool))
            scope.cancel()
            await until(lambda: scope.cancelled_caught)
        await until(lambda: outcome.answers)
        job = outcome.answers[0].unwrap()
        assert job.name == "one"


# Interrupts


async def test_an_interrupt_that_comes_while_a_reader_is_left_leaves_nothing_open(tmp_path: Path) -> None:
    """What it hit is raised when the rest has been closed, the watch among it."""
    async with await quick_spool(tmp_path / "spool") as spool:
        before = instances()

        async def read() -> None:
            async with spool.reader(Mail.SEND, poll_interval=HOUR) as reader, anyio.create_task_group() as tasks:
                tasks.start_soon(reader.dequeue)
                await until(lambda: waiters_of(spool))
                assert instances() == before + 1
                tasks.cancel_scope.cancel()

                def interrupt(_jobs: object) -> Any:
                    raise KeyboardInterrupt

                dequeuer_of(reader).give_back = interrupt

        with pytest.raises(KeyboardInterrupt):
            await read()
        assert instances() == before

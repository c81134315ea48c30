"""A queue directory that is removed, moved away and made again under a reader that waits for entries.

The readers here would look again in an hour: what they get, the kernel has told them of.
"""

from __future__ import annotations

import gc
import os
import shutil
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from helpers.gates import breathe
from helpers.inside import waiters_of
from helpers.spools import Mail, load_spool, make_spool, put, state_of
from trio_multispool import Save

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

HOUR = 3600.0


class Reading:
    """What a task reads, one entry after the other, until it is cancelled."""

    def __init__(self, spool: Any, reader: Any) -> None:
        """Begin with nothing."""
        self._spool, self._reader = spool, reader
        self.got: list[str] = []

    async def __call__(self) -> None:
        """Read."""
        async for job in self._reader:
            async with job:
                (await job.remove()).unwrap()
            self.got.append(job.name)

    async def has_got(self, *names: str) -> None:
        """See that these have come, once the reader waits for more than a lock that is about to be dropped."""
        await waits(self._spool)
        while waiting_for(self._spool) < HOUR / 2:
            await waits(self._spool)
        assert self.got == list(names)


def watches() -> int:
    """Count the watches of this process's inotify instances, as the kernel tells."""
    gc.collect()  # what tests that went before have left
    found = 0
    for fd in os.listdir("/proc/self/fdinfo"):
        try:
            with open(f"/proc/self/fdinfo/{fd}") as lines:
                found += sum(line.startswith("inotify") for line in lines)
        except FileNotFoundError:
            continue
    return found


def make_queue(spool: Any, tmp_path: Path) -> None:
    """Make the directory of a queue, in one step."""
    os.mkdir(tmp_path / "new")
    os.mkdir(tmp_path / "new" / ".checkout")
    os.rename(tmp_path / "new", spool.path / "send")


async def waits(spool: Any) -> None:
    """Wait until a reader waits, having looked at all that it was woken for, and see that it stays so."""
    quiet = 0
    while quiet < 5:
        await breathe()
        session = spool._session
        quiet = quiet + 1 if session.changes._waiters and not session.running._count else 0


def waiting_for(spool: Any) -> float:
    """Return in how many seconds the reader will look by itself; none, if it is at work."""
    return max((each.scope.deadline - anyio.current_time() for each in waiters_of(spool)), default=0.0)


@pytest.mark.parametrize("gone", ["removed", "moved away", "removed by hand, file by file"])
async def test_a_queue_that_is_replaced_at_once_is_watched_again_each_time(gone: str, tmp_path: Path) -> None:
    """Several times: what comes then wakes the reader, and the watches do not pile up."""
    async with (
        await make_spool(tmp_path / "spool") as spool,
        spool.reader(Mail.SEND, poll_interval=HOUR) as reader,
        anyio.create_task_group() as tasks,
    ):
        reading = Reading(spool, reader)
        tasks.start_soon(reading)
        await waits(spool)
        names = []
        for number in range(3):
            queue = spool.path / "send"
            if gone == "moved away":
                os.rename(queue, tmp_path / f"old {number}")
            elif gone == "removed":
                shutil.rmtree(queue)
            else:
                os.rmdir(queue / ".checkout")
                os.rmdir(queue)
            make_queue(spool, tmp_path)
            await waits(spool)
            assert watches() == 2 + bool(number)  # the spool's own and the queue's, and one for requests to cancel
            async with await load_spool(spool.path) as other:
                for each in ("a", "b"):
                    names.append(f"{number}{each}")
                    await put(other, Mail.SEND, names[-1])
                    await reading.has_got(*names)
            assert watches() == 3
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("gone", ["removed", "moved away"])
async def test_a_reader_that_finds_no_queue_goes_on_when_it_is_there_again(gone: str, tmp_path: Path) -> None:
    """A queue that is missing is an empty one to who waits, which somebody may be about to replace: no `Err`."""
    async with (
        await make_spool(tmp_path / "spool") as spool,
        spool.reader(Mail.SEND, poll_interval=HOUR) as reader,
        anyio.create_task_group() as tasks,
    ):
        reading = Reading(spool, reader)
        tasks.start_soon(reading)
        await waits(spool)
        names = []
        for number in range(3):
            if gone == "removed":
                shutil.rmtree(spool.path / "send")
            else:
                os.rename(spool.path / "send", tmp_path / f"old {number}")
            await waits(spool)
            (waiter,) = waiters_of(spool)
            waiter.scope.deadline = anyio.current_time() + HOUR  # as after a long while, when it has polled in vain
            make_queue(spool, tmp_path)
            await waits(spool)
            async with await load_spool(spool.path) as other:
                names.append(f"{number}")
                await put(other, Mail.SEND, names[-1])
                await reading.has_got(*names)
        tasks.cancel_scope.cancel()


async def test_what_is_in_hand_while_its_queue_is_moved_away_is_settled(tmp_path: Path) -> None:
    """Also once entries of the new one are in hand beside it: no verdict is lost, and the reader goes on."""
    all_begun, seen = anyio.Event(), []
    async with await make_spool(tmp_path / "spool") as spool, await load_spool(spool.path) as other:
        await put(other, Mail.SEND, "old 1", "old 2")

        async def save(_metadata: Any, data: Any) -> Save[Mail, Any]:
            seen.append(data.name)
            if len(seen) == 2:
                os.rename(spool.path / "send", tmp_path / "old")
                make_queue(spool, tmp_path)
                await put(other, Mail.SEND, "new 1", "new 2")
            if len(seen) == 4:
                all_begun.set()
            await all_begun.wait()
            return Save(Mail.RETRY)

        async with spool.reader(Mail.SEND, poll_interval=HOUR) as reader, anyio.create_task_group() as tasks:

            async def iterate() -> None:
                (await reader.iter(save, concurrency=4)).unwrap()

            tasks.start_soon(iterate)
            with anyio.fail_after(60):  # instead of waiting for ever
                await all_begun.wait()
            reader.stop()
    assert state_of(spool.path).names("retry") == ["new 1", "new 2", "old 1", "old 2"]
    assert state_of(spool.path).faults() == []
    assert [each for each in (tmp_path / "old").rglob("*") if each.is_file()] == []

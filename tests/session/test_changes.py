"""Readers that wait: woken by the kernel, by their timers where nothing announces a change, and by polling otherwise.

Where a test wants to see that it was the kernel, the clock stands still, or the reader would look again in an hour.
"""

from __future__ import annotations

import dataclasses
import errno
import gc
import logging
import os
import signal
from typing import TYPE_CHECKING, Any

import anyio
import inotify_simple
import pytest
import trio
import trio.testing

from helpers.gates import Gate, breathe
from helpers.inside import threads_of, waiters_of
from helpers.processes import start_python
from helpers.spools import ANNE, Mail, Wall, load_spool, make_spool, put, state_of
from trio_multispool import Use
from trio_multispool.session import changes
from trio_multispool.storage.directory.disk.syscalls import SystemCalls

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.spools import Location

HOUR = 3600.0


async def _first(reader: Any) -> str:
    job = (await reader.dequeue()).unwrap()
    async with job:
        await job.remove()
    return job.name


async def _soon(reader: Any) -> str:
    with anyio.fail_after(30):  # by the real clock: whoever is not woken must not wait for ever
        return await _first(reader)


async def _waiting(spool: Any, count: int = 1) -> None:
    while len(waiters_of(spool)) < count:
        await breathe()


@pytest.mark.sample
@pytest.mark.anyio
async def test_a_waiting_reader_is_woken_by_an_enqueue(place: Location) -> None:
    """The entry of another owner of the spool arrives although the reader would not look again for an hour."""
    async with await make_spool(place) as spool, await load_spool(place) as other:
        got: list[str] = []
        async with spool.reader(Mail.SEND, poll_interval=HOUR) as reader, anyio.create_task_group() as tasks:

            async def read() -> None:
                got.append(await _soon(reader))

            tasks.start_soon(read)
            await _waiting(spool)
            await put(other, Mail.SEND, "one")
        assert got == ["one"]


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["save", "release", "moved in by hand", "written by hand"])
async def test_whatever_comes_into_a_queue_wakes_its_reader(how: str, tmp_path: Path) -> None:
    """Entries that are saved, returned, or dropped in from outside are taken at once."""
    async with await make_spool(tmp_path / "spool") as spool, await load_spool(tmp_path / "spool") as other:
        (entry,) = await put(other, Mail.SEND if how == "release" else Mail.FAILED, "one")
        job = (await entry.checkout()).unwrap()
        got: list[str] = []
        async with spool.reader(Mail.SEND, poll_interval=HOUR) as reader, anyio.create_task_group() as tasks:

            async def read() -> None:
                got.append(await _soon(reader))

            tasks.start_soon(read)
            await _waiting(spool)
            async with job:
                if how == "save":
                    await job.save(Mail.SEND)
                elif how == "moved in by hand":
                    (tmp_path / "one").write_bytes(b'{"recipient":"two"}')
                    os.rename(tmp_path / "one", spool.path / "send" / "two")
                elif how == "written by hand":
                    (spool.path / "send" / "two").write_bytes(b'{"recipient":"two"}')
        assert got == ["two" if "hand" in how else "one"]


@pytest.mark.anyio
async def test_a_change_between_listing_and_waiting_is_not_missed(tmp_path: Path) -> None:
    """What arrives after the queue was listed and before the reader waits ends the wait."""
    gate = Gate()
    async with (
        await make_spool(tmp_path / "spool", system_calls=gate) as spool,
        await load_spool(tmp_path / "spool") as other,
    ):
        got: list[str] = []
        async with spool.reader(Mail.SEND, poll_interval=HOUR) as reader, anyio.create_task_group() as tasks:

            async def read() -> None:
                got.append(await _soon(reader))

            await reader.dequeue_available()  # recovery has looked, so the next listing is that of the queue
            gate.arm("regular_files", after=True)
            tasks.start_soon(read)
            await gate.reached()
            await put(other, Mail.SEND, "one")
            gate.go()
        assert got == ["one"]


@pytest.mark.anyio
async def test_a_change_that_another_reader_fetched_is_not_missed(tmp_path: Path) -> None:
    """The reader that holds the baton fetches the change of a queue whose own reader does not wait yet."""
    gate = Gate()
    async with (
        await make_spool(tmp_path / "spool", system_calls=gate) as spool,
        await load_spool(tmp_path / "spool") as other,
        spool.reader(Mail.RETRY, poll_interval=HOUR) as holding,
        spool.reader(Mail.SEND, poll_interval=HOUR) as late,
    ):
        got: list[str] = []
        async with anyio.create_task_group() as tasks:

            async def hold() -> None:
                await holding.dequeue()

            async def read() -> None:
                got.append(await _soon(late))
                holding.stop()

            spool._session.changes.watch("send")
            await late.dequeue_available()
            tasks.start_soon(hold)
            await _waiting(spool)
            gate.arm("regular_files", after=True)
            tasks.start_soon(read)
            await gate.reached()
            await put(other, Mail.SEND, "one")
            while not spool._session.changes.seen("send"):
                await breathe()
            gate.go()
        assert got == ["one"]


@pytest.mark.anyio
async def test_the_baton_passes_on_when_its_holder_leaves(place: Location) -> None:
    """A reader that stops waiting leaves the others awake: each of three in turn is woken."""
    async with await make_spool(place) as spool, await load_spool(place) as other:
        got: list[tuple[str, str]] = []
        readers = {queue: spool.reader(queue, poll_interval=HOUR) for queue in Mail}

        async def read(queue: Mail) -> None:
            async with readers[queue] as reader:
                got.append((queue.value, await _soon(reader)))

        async with anyio.create_task_group() as tasks:
            for number, queue in enumerate(Mail, start=1):
                tasks.start_soon(read, queue)
                await _waiting(spool, number)
            for queue in Mail:  # the first holds the baton, and leaves with it
                await put(other, queue, f"for-{queue.value}")
                while len(got) <= list(Mail).index(queue):
                    await breathe()
        assert got == [(queue.value, f"for-{queue.value}") for queue in Mail]


@pytest.mark.anyio
async def test_several_waiting_tasks_of_one_queue_are_all_kept_busy(place: Location) -> None:
    """Four tasks wait, four entries come, each has one."""
    async with await make_spool(place) as spool, await load_spool(place) as other:
        got: list[str] = []
        async with spool.reader(Mail.SEND, poll_interval=HOUR) as reader, anyio.create_task_group() as tasks:

            async def read() -> None:
                got.append(await _soon(reader))

            for _ in range(4):
                tasks.start_soon(read)
            await _waiting(spool, 4)
            await put(other, Mail.SEND, "1", "2", "3", "4")
        assert sorted(got) == ["1", "2", "3", "4"]


@pytest.mark.anyio
@pytest.mark.parametrize("where", ["task", "thread", "signal"])
async def test_a_waiting_reader_is_stopped_from_anywhere(where: str, tmp_path: Path) -> None:
    """`stop` ends the wait at once, from a task, a thread and a signal handler."""
    async with await make_spool(tmp_path / "spool") as spool:
        ended: list[Any] = []
        async with spool.reader(Mail.SEND, poll_interval=HOUR) as reader, anyio.create_task_group() as tasks:

            async def read() -> None:
                ended.append((await reader.dequeue()).unwrap())

            tasks.start_soon(read)
            await _waiting(spool)
            if where == "task":
                reader.stop()
            elif where == "thread":
                await anyio.to_thread.run_sync(reader.stop)
            else:
                before = signal.signal(signal.SIGUSR1, lambda *_: reader.stop())
                os.kill(os.getpid(), signal.SIGUSR1)
                while not reader.stopped:
                    await breathe()
                signal.signal(signal.SIGUSR1, before)
        assert ended == [None]


@pytest.mark.anyio
async def test_the_watch_is_closed_with_the_last_reader(tmp_path: Path) -> None:
    """One inotify instance serves all readers of a spool, opened for the first that waits, and none is left."""
    async with await make_spool(tmp_path / "spool") as spool:
        assert _instances() == 0
        async with spool.reader(Mail.SEND) as one, spool.reader(Mail.RETRY) as two, anyio.create_task_group() as tasks:
            assert _instances() == 0
            tasks.start_soon(one.dequeue)
            tasks.start_soon(two.dequeue)
            await _waiting(spool, 2)
            assert _instances() == 1
            one.stop()
            two.stop()
        assert _instances() == 0


@pytest.mark.anyio
async def test_what_tells_of_entries_that_wait_is_closed_with_the_last_reader(tmp_path: Path) -> None:
    """It is opened for the first that finds that something waits; the next reader has it anew."""
    async with await make_spool(tmp_path / "spool") as spool:
        (await spool.enqueue(Mail.SEND, ANNE, b"", not_before=3600)).unwrap()
        for _ in range(2):
            async with spool.reader(Mail.SEND) as reader:
                assert _instances() == 0
                assert (await reader.dequeue_available()).unwrap() is None
                assert _instances() == 1
            assert _instances() == 0


def _instances() -> int:
    gc.collect()  # what tests that went before have left
    found = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:inotify"
        except FileNotFoundError:
            continue
    return found


# Where the kernel does not help


class _Refusing(SystemCalls):
    """The kernel has no inotify instance, or no watch, to spare."""

    def __init__(self, code: int, *, watches: bool) -> None:
        self.code, self.watches = code, watches

    def notify(self) -> Any:
        if not self.watches:
            raise OSError(self.code, os.strerror(self.code))
        notifier = super().notify()
        notifier.add_watch = self._refuse  # type: ignore[method-assign]  # a stand-in for a kernel at its limit
        return notifier

    def _refuse(self, *_: Any) -> int:
        raise OSError(self.code, os.strerror(self.code))


@pytest.mark.parametrize(
    ("calls", "limit"),
    [
        (_Refusing(errno.EMFILE, watches=False), "sysctl fs.inotify.max_user_instances"),
        (_Refusing(errno.ENOSPC, watches=True), "sysctl fs.inotify.max_user_watches"),
        (_Refusing(errno.ENOMEM, watches=True), "ENOMEM"),
    ],
    ids=["instances", "watches", "something else"],
)
async def test_without_inotify_readers_poll_and_say_so_once(
    calls: SystemCalls, limit: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, autojump_clock: Any
) -> None:
    """Entries arrive all the same, and the log has one line, which names what can be raised."""
    async with await make_spool(tmp_path / "spool", system_calls=calls) as spool:
        async with spool.reader(Mail.SEND) as reader, trio.open_nursery() as nursery:
            got: list[str] = []

            async def read() -> None:
                got.extend([await _first(reader), await _first(reader)])

            nursery.start_soon(read)
            await trio.sleep(100)
            await put(spool, Mail.SEND, "1")
            await trio.sleep(100)
            await put(spool, Mail.SEND, "2")
        assert got == ["1", "2"]
    told = [record for record in caplog.records if "polling" in record.message]
    assert [record.levelno for record in told] == [logging.WARNING]
    assert limit in told[0].getMessage()


@pytest.mark.anyio
async def test_when_all_instances_are_used_up_readers_poll(place: Location) -> None:
    """The real limit of the kernel: entries arrive, and nothing is raised."""
    used: list[Any] = []
    try:
        while True:
            used.append(inotify_simple.INotify())
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
    try:
        async with await make_spool(place) as spool:
            got: list[str] = []
            async with spool.reader(Mail.SEND) as reader, anyio.create_task_group() as tasks:

                async def read() -> None:
                    got.append(await _soon(reader))

                tasks.start_soon(read)
                await _waiting(spool)
                await put(spool, Mail.SEND, "one")
            assert got == ["one"]
    finally:
        for each in used:
            each.close()


@dataclasses.dataclass
class _Event:
    wd: int
    mask: int


class _Overflowing(SystemCalls):
    """The kernel's queue of events has overflowed: what is read says only that."""

    def notify(self) -> Any:
        notifier = super().notify()
        read = notifier.read

        def overflowed(timeout: int) -> list[Any]:
            return [_Event(-1, 0x4000)] if read(timeout) else []

        notifier.read = overflowed  # type: ignore[method-assign]  # the kernel's queue cannot be filled quickly
        return notifier


@pytest.mark.anyio
async def test_an_overflow_wakes_all_readers(tmp_path: Path) -> None:
    """When events were lost, every queue is looked at."""
    async with (
        await make_spool(tmp_path / "spool", system_calls=_Overflowing()) as spool,
        await load_spool(tmp_path / "spool") as other,
        spool.reader(Mail.SEND, poll_interval=HOUR) as reader,
    ):
        got: list[str] = []
        async with anyio.create_task_group() as tasks:

            async def read() -> None:
                got.append(await _soon(reader))

            tasks.start_soon(read)
            await _waiting(spool)
            await put(other, Mail.SEND, "one")
        assert got == ["one"]


@pytest.mark.anyio
async def test_after_an_overflow_all_that_waits_is_looked_at(tmp_path: Path, wall: Wall) -> None:
    """When the names of what came to wait were lost, it comes all the same when it is due."""
    async with (
        await make_spool(tmp_path / "spool", system_calls=_Overflowing(), now=wall) as spool,
        await load_spool(tmp_path / "spool", now=wall) as other,
        spool.reader(Mail.SEND) as reader,
    ):
        (await other.enqueue(Mail.SEND, ANNE, b"", name=Use("1"), not_before=3600)).unwrap()
        assert (await reader.dequeue_available()).unwrap() is None
        (await other.enqueue(Mail.SEND, ANNE, b"", name=Use("2"), not_before=3600)).unwrap()
        assert (await reader.dequeue_available()).unwrap() is None
        wall.time += 3601
        assert [(await reader.dequeue_available()).unwrap().name for _ in range(2)] == ["1", "2"]


@pytest.mark.anyio
async def test_a_queue_that_is_removed_and_made_again_is_watched_again(tmp_path: Path) -> None:
    """After `rm -r` and `mkdir` the reader goes on, and what arrives then wakes it."""
    async with (
        await make_spool(tmp_path / "spool") as spool,
        spool.reader(Mail.SEND, poll_interval=0.01) as reader,
    ):
        got: list[str] = []
        async with anyio.create_task_group() as tasks:

            async def read() -> None:
                while len(got) < 2:
                    got.append(await _soon(reader))

            tasks.start_soon(read)
            await _waiting(spool)
            queue = spool.path / "send"
            queue.rename(tmp_path / "old")
            os.mkdir(tmp_path / "new")
            os.mkdir(tmp_path / "new" / ".checkout")
            os.rename(tmp_path / "new", queue)
            async with await load_spool(spool.path) as other:
                await put(other, Mail.SEND, "1")
                while not got:
                    await breathe()
                await put(other, Mail.SEND, "2")
        assert got == ["1", "2"]


# What nothing announces


_HOLDER = """
from trio_multispool.model.lifecycle import Place, State
from trio_multispool.storage.directory.store import DirectoryStorage
storage = DirectoryStorage.open(sys.argv[1], ["send"])
place = Place("send", State.AVAILABLE)
claim = storage.claim(place, "one", before_commit=lambda: None)
print("held", flush=True)
sys.stdin.read()
"""


async def test_a_waiting_reader_has_the_entry_of_an_owner_that_died(
    tmp_path: Path, autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dropped lock moves no file, so a timer looks for it: the entry arrives about a second later, by the clock."""
    monkeypatch.setattr(changes, "LISTING_SHARE", 0)  # a machine on which listing is slow would look again later
    async with await make_spool(tmp_path / "spool") as spool:
        await put(spool, Mail.SEND, "one")
        with start_python(_HOLDER, spool.path) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "held\n"
            got: list[str] = []
            async with spool.reader(Mail.SEND) as reader, trio.open_nursery() as nursery:

                async def read() -> None:
                    got.append(await _first(reader))

                nursery.start_soon(read)
                await trio.sleep(100)
                assert got == []
                child.kill()
                child.wait()
                began = trio.current_time()
            assert got == ["one"]
            assert trio.current_time() - began < 3
    assert state_of(spool.location).faults() == []


async def test_an_idle_reader_looks_again_only_now_and_then(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    """With the kernel's help, and nothing checked out, a hundred seconds take the first look and ten more."""

    class Counting(SystemCalls):
        looks = 0

        def regular_files(self, fd: int) -> list[str]:
            self.looks += os.readlink(f"/proc/self/fd/{fd}").endswith("/send")
            return super().regular_files(fd)

    calls = Counting()
    async with (
        await make_spool(tmp_path / "spool", system_calls=calls) as spool,
        spool.reader(Mail.SEND) as reader,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(reader.dequeue)
        for _ in range(105):
            await _waiting(spool)
            mock_clock.jump(1)
            await breathe()
            while threads_of(spool):
                await breathe()
        assert calls.looks == 11
        reader.stop()


@pytest.mark.anyio
async def test_nothing_is_waited_for_when_a_scope_was_cancelled(place: Location) -> None:
    """A wait that is cancelled leaves no waiter behind, and the next one works."""
    async with await make_spool(place) as spool, spool.reader(Mail.SEND, poll_interval=HOUR) as reader:
        for _ in range(3):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(reader.dequeue)
                await _waiting(spool)
                tasks.cancel_scope.cancel()
            assert not waiters_of(spool)
        assert (await spool.enqueue(Mail.SEND, ANNE, b"")).unwrap().name == await _soon(reader)


@pytest.mark.anyio
async def test_an_entry_that_is_still_locked_by_its_producer_is_had_soon_after(tmp_path: Path) -> None:
    """The rename wakes the reader before its producer has dropped the lock, which wakes nobody: a timer does."""
    gate = Gate()
    async with (
        await make_spool(tmp_path / "spool") as spool,
        await load_spool(tmp_path / "spool", system_calls=gate) as other,
        spool.reader(Mail.SEND, poll_interval=HOUR) as reader,
    ):
        got: list[str] = []
        async with anyio.create_task_group() as tasks:

            async def read() -> None:
                got.append(await _soon(reader))

            tasks.start_soon(read)
            await _waiting(spool)
            gate.arm("move", after=True)
            tasks.start_soon(put, other, Mail.SEND, "one")
            await gate.reached()
            while not spool._session.changes.seen("send"):
                await breathe()
            await _waiting(spool)  # it was woken, found the entry locked, and waits again
            assert got == []
            gate.go()
        assert got == ["one"]

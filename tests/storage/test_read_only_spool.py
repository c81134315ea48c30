"""A reader whose spool is mounted read-only: it says so, loses nothing, and goes on when it may write again.

The mounts are real. Each test runs in a process of its own, which alone sees them, and is given an empty file system in
memory.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio
import trio.testing

from helpers import mounts
from helpers.gates import breathe
from helpers.inside import threads_of, waiters_of
from helpers.processes import run_python
from helpers.spools import ANNE, MAIL, Envelope, Mail, load_spool, names_in, put, quick_spool, snapshot, state_of
from helpers.stores import claim, make_store
from trio_multispool import Err, Ok, ReadOnlySpool, Remove, Save, Spool
from trio_multispool.storage.directory.disk.syscalls import SystemCalls

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HOUR = 3600.0

_in_the_process: dict[str, Callable[[Path], Awaitable[None]]] = {}


def on_a_mount(*backends: str) -> Callable[[Callable[[Path], Awaitable[None]]], Callable[..., None]]:
    """Run a test on an empty file system, in a process of its own for each backend; hanging is failing."""

    def decorate(function: Callable[[Path], Awaitable[None]]) -> Callable[..., None]:
        _in_the_process[function.__name__] = function

        @pytest.mark.parametrize("backend", backends)
        def test(backend: str, tmp_path: Path) -> None:
            if reason := mounts.why_not():
                pytest.skip(reason)
            here = Path(__file__)
            code = f"sys.path.append({str(here.parent)!r}); import {here.stem} as module; module.main(*sys.argv[1:])"
            run_python(code, function.__name__, backend, tmp_path / "mount")

        test.__doc__ = function.__doc__
        return test

    return decorate


def main(name: str, backend: str, mount: str) -> None:
    """Be that process."""
    mounts.enter_private()  # while there is one thread: the others would stay where they are
    os.mkdir(mount)
    mounts.tmpfs(mount)
    function = _in_the_process[name]
    if backend == "trio with a clock":
        trio.run(function, Path(mount), clock=trio.testing.MockClock())
    else:
        anyio.run(function, Path(mount), backend=backend)


on_both = on_a_mount("asyncio", "trio")


def make_writable(mount: Path) -> None:
    """Undo `mounts.read_only`."""
    mounts._mount(None, mount, None, mounts._REMOUNT)


async def waiting(spool: Any) -> None:
    """Wait until a task waits for a queue to change."""
    while not waiters_of(spool):
        await breathe()


def is_refused(answer: Any) -> bool:
    """Tell whether it is the `Err` that is expected."""
    return isinstance(answer, Err) and type(answer.error) is ReadOnlySpool


async def take(reader: Any) -> str:
    """Take an entry out of the queue, and return its name."""
    job: Any = (await reader.dequeue()).unwrap()
    async with job:
        (await job.remove()).unwrap()
    return str(job.name)


async def never(_metadata: Any, _data: Any) -> Any:
    """Be a handler that gets nothing."""
    raise AssertionError("nothing can be checked out")


# Entries that cannot be taken


@on_both
async def test_every_way_of_reading_a_read_only_queue_says_so_and_changes_nothing(mount: Path) -> None:
    """`Err(ReadOnlySpool)`, or the same raised where an `Err` has no place; nothing hangs, and no file is touched."""
    async with await quick_spool(mount / "spool") as spool:
        await put(spool, Mail.SEND, "a", "b")
    mounts.read_only(mount)
    before = snapshot(mount)
    async with await load_spool(mount / "spool") as spool:
        async with spool.reader(Mail.SEND) as reader:
            for answer in (
                await reader.dequeue(),
                await reader.dequeue_available(),
                await reader.iter(never),
                await reader.iter(never, concurrency=4),
                await reader.iter_available(never),
                await reader.iter_available(never, concurrency=4),
                await spool.entry(Mail.SEND, "a").unwrap().checkout(),
                await spool.enqueue(Mail.RETRY, ANNE, b""),
            ):
                assert is_refused(answer), answer
                assert str(mount) in str(answer), answer
            for jobs in (aiter(reader), aiter(reader.available())):
                with pytest.raises(ReadOnlySpool):
                    await anext(jobs)
            assert await names_in(spool, Mail.SEND) == ["a", "b"]
            for entry in (await spool.entries(Mail.SEND)).unwrap():
                assert await entry.direct.contents() == Ok(Envelope(entry.name))
                assert await entry.direct.data_file.load() == Ok(b"Hello")
        async with spool.channel(Mail.SEND) as (send, receive):
            with pytest.raises(ReadOnlySpool):
                await receive.receive()
            with pytest.raises(ReadOnlySpool):
                await send.send((ANNE, b""))
    assert snapshot(mount) == before


@on_both
async def test_a_reader_that_was_refused_goes_on_when_the_mount_is_writable_again(mount: Path) -> None:
    """The same reader has the entries, in their order and none twice; the locks that it took meanwhile are gone."""
    async with await quick_spool(mount / "spool") as spool, await load_spool(mount / "spool") as other:
        await put(spool, Mail.SEND, "a", "b", "c", "d")
        async with spool.reader(Mail.SEND) as reader:
            assert await take(reader) == "a"
            for _ in range(2):
                mounts.read_only(mount)
                for _ in range(2):
                    assert is_refused(await reader.dequeue())
                make_writable(mount)
            async with (await other.entry(Mail.SEND, "b").unwrap().checkout()).unwrap():
                pass  # nobody has its lock
            assert [await take(reader) for _ in range(3)] == ["b", "c", "d"]
        assert (state_of(spool.path).entries(), state_of(spool.path).faults()) == (set(), [])


# A queue that is empty


@on_both
async def test_a_reader_waits_for_an_empty_read_only_queue(mount: Path) -> None:
    """It waits as for any other: until it is stopped, or cancelled, or there is an entry that it may take."""
    async with await quick_spool(mount / "spool") as spool:
        pass
    mounts.read_only(mount)
    before = snapshot(mount)
    async with await load_spool(mount / "spool") as spool, await load_spool(mount / "spool") as other:
        for how in ("stopped", "cancelled"):
            async with spool.reader(Mail.SEND, poll_interval=HOUR) as reader, anyio.create_task_group() as tasks:
                assert await reader.dequeue_available() == Ok(None)
                tasks.start_soon(reader.dequeue)
                await waiting(spool)
                if how == "stopped":
                    reader.stop()
                else:
                    tasks.cancel_scope.cancel()
        assert snapshot(mount) == before
        got: list[str] = []
        async with spool.reader(Mail.SEND, poll_interval=HOUR) as reader, anyio.create_task_group() as tasks:

            async def read() -> None:
                got.append(await take(reader))

            tasks.start_soon(read)
            await waiting(spool)
            assert is_refused(await other.enqueue(Mail.SEND, ANNE, b""))
            make_writable(mount)
            await put(other, Mail.SEND, "a")
        assert got == ["a"]


class _Counting(SystemCalls):
    looks = 0

    def regular_files(self, fd: int) -> list[str]:
        self.looks += os.readlink(f"/proc/self/fd/{fd}").endswith("/send")
        return super().regular_files(fd)


async def _looks(path: Path, seconds: int) -> int:
    """Return how often a reader lists the queue while it waits so many seconds of the clock."""
    clock, calls = trio.lowlevel.current_clock(), _Counting()
    assert isinstance(clock, trio.testing.MockClock)
    async with (
        await load_spool(path, system_calls=calls) as spool,
        spool.reader(Mail.SEND) as reader,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(reader.dequeue)
        for _ in range(4 * seconds):
            await waiting(spool)
            clock.jump(0.25)  # exact in binary, and so are the deadlines
            await breathe()
            while threads_of(spool):
                await breathe()
        reader.stop()
    return calls.looks


@on_a_mount("trio with a clock")
async def test_a_reader_that_waits_for_a_read_only_queue_looks_no_oftener_than_for_another(mount: Path) -> None:
    """In half a minute it lists the queue as often as if it might write; once a second if it cannot recover."""
    async with await quick_spool(mount / "spool") as spool:
        writable = await _looks(spool.path, 30)
        mounts.read_only(mount)
        assert await _looks(spool.path, 30) == writable
        assert 1 < writable < 10
        make_writable(mount)
        await put(spool, Mail.SEND, "a")
        storage = make_store(spool.path)
        claim(storage, "send", "a").abandon()
        storage.close()
        mounts.read_only(mount)
        assert 1 < await _looks(spool.path, 30) <= 31


@on_both
async def test_a_waiting_reader_is_told_of_an_entry_that_it_may_not_take(mount: Path) -> None:
    """A producer with a mount of its own may write: the reader is woken, says why it cannot, and has it later."""
    ours, theirs = mount / "ours", mount / "theirs"
    for directory in (ours, theirs):
        directory.mkdir()
    async with await quick_spool(theirs / "spool") as other:
        mounts.bind(theirs, ours)
        mounts._mount(None, ours, None, mounts._REMOUNT | mounts._BIND | mounts._READ_ONLY)
        async with (
            await load_spool(ours / "spool") as spool,
            spool.reader(Mail.SEND, poll_interval=HOUR) as reader,
        ):
            answers: list[Any] = []
            async with anyio.create_task_group() as tasks:

                async def read() -> None:
                    answers.append(await reader.dequeue())

                tasks.start_soon(read)
                await waiting(spool)
                await put(other, Mail.SEND, "a")
            assert is_refused(answers[0])
            assert await names_in(other, Mail.SEND) == ["a"]
            mounts._mount(None, ours, None, mounts._REMOUNT | mounts._BIND)
            assert await take(reader) == "a"
        assert state_of(other.path).entries() == set()


# Entries that are in hand when the mount becomes read-only


@on_both
async def test_an_entry_in_hand_that_can_neither_be_settled_nor_returned_is_not_lost(mount: Path) -> None:
    """Settling it is an `Err`, its block raises, it is let go; and the same reader has it when it can be put back."""
    async with await quick_spool(mount / "spool") as spool, spool.reader(Mail.SEND) as reader:
        await put(spool, Mail.SEND, "a", "b")
        before = state_of(spool.path)

        async def settle() -> None:
            job: Any = (await reader.dequeue()).unwrap()
            async with job:
                mounts.read_only(mount)
                assert is_refused(await job.save(Mail.FAILED))
                assert is_refused(await job.remove())
                assert is_refused(await job.release())
                assert is_refused(await job.data.save(b"new"))
                assert await job.data.load() == Ok(b"Hello")

        with pytest.raises(ReadOnlySpool):
            await settle()
        assert state_of(spool.path).places("a") == ["send/.checkout"]
        assert is_refused(await reader.dequeue())
        make_writable(mount)
        assert [entry.name for entry in (await spool.recover()).unwrap()] == ["a"]
        assert state_of(spool.path) == before
        assert sorted([await take(reader), await take(reader)]) == ["a", "b"]


@on_both
async def test_a_verdict_that_a_read_only_mount_refuses_ends_the_iteration(mount: Path) -> None:
    """`iter` answers `Err(ReadOnlySpool)`, with one handler and with four, and every entry is there afterwards."""
    async with await quick_spool(mount / "spool") as spool:
        await put(spool, Mail.SEND, "a", "b", "c", "d", "e", "f")
        before = state_of(spool.path)
        started: list[str] = []
        for concurrency, verdict in itertools.product([1, 4], [Save(Mail.FAILED), Remove()]):
            started.clear()
            go = anyio.Event()

            async def handler(
                _metadata: Any, data: Any, concurrency: int = concurrency, verdict: Any = verdict, go: anyio.Event = go
            ) -> Any:
                started.append(data.name)
                if len(started) == concurrency:
                    mounts.read_only(mount)
                    go.set()
                await go.wait()
                return verdict

            async with spool.reader(Mail.SEND) as reader:
                assert is_refused(await reader.iter(handler, concurrency=concurrency))
                assert state_of(spool.path).entries() == before.entries()
                make_writable(mount)
            assert sorted(each.name for each in (await spool.recover()).unwrap()) == sorted(started)
            assert state_of(spool.path) == before


@on_both
async def test_leaving_a_reader_that_cannot_return_what_it_has_raises_and_keeps_nothing(mount: Path) -> None:
    """One entry's `ReadOnlySpool`, or those of several in a group, or notes on what the block raised; no lock stays."""
    async with await quick_spool(mount / "spool") as spool:
        await put(spool, Mail.SEND, "a", "b")
        before = state_of(spool.path)

        async def leave(entries: int, trouble: Exception | None = None) -> None:
            async with spool.reader(Mail.SEND) as reader:
                for _ in range(entries):
                    assert (await reader.dequeue()).unwrap() is not None
                mounts.read_only(mount)
                if trouble is not None:
                    raise trouble

        async def is_whole_again() -> None:
            assert state_of(spool.path).entries() == before.entries()
            make_writable(mount)
            assert (await spool.recover()).unwrap() != []
            assert state_of(spool.path) == before

        with pytest.raises(ReadOnlySpool):
            await leave(1)
        await is_whole_again()
        with pytest.raises(ExceptionGroup) as group:
            await leave(2)
        assert [type(error) for error in group.value.exceptions] == [ReadOnlySpool] * 2
        await is_whole_again()
        trouble = LookupError("no such recipient")
        with pytest.raises(LookupError) as raised:
            await leave(2, trouble)
        assert raised.value is trouble
        assert len(trouble.__notes__) == 2
        await is_whole_again()


@on_both
async def test_a_waiting_reader_has_a_dead_owners_entry_when_it_can_be_put_back(mount: Path) -> None:
    """While the mount is read-only it waits, and recovery is put off; afterwards the entry comes by itself."""
    storage = make_store(mount / "spool")
    async with await load_spool(mount / "spool") as spool:
        await put(spool, Mail.SEND, "a")
        claim(storage, "send", "a").abandon()
        storage.close()
        mounts.read_only(mount)
        got: list[str] = []
        async with spool.reader(Mail.SEND, poll_interval=0.01) as reader, anyio.create_task_group() as tasks:

            async def read() -> None:
                got.append(await take(reader))

            tasks.start_soon(read)
            await waiting(spool)
            assert isinstance(await Spool.load(spool.path, MAIL), Ok)
            assert got == []
            assert state_of(spool.path).places("a") == ["send/.checkout"]
            make_writable(mount)
        assert got == ["a"]
        assert state_of(spool.path).faults() == []

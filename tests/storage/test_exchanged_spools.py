"""A spool's directory that is exchanged under running programs: it is noticed, never followed, and ends them."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
import trio

from helpers.calls import FailingCalls
from helpers.inside import look_again, waiters_of
from helpers.mounts import why_not
from helpers.processes import run_python
from helpers.spools import ANNE, BERT, MAIL, Mail, make_spool, put, quick_spool, state_of
from trio_multispool import Err, Ok, Remove, Spool, SpoolGone, SpoolReplaced, Use
from trio_multispool.monitor import Monitor
from trio_multispool.storage.directory.disk.syscalls import SystemCalls

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio


def moved_aside(path: Path) -> None:
    """Another program moves it."""
    path.rename(path.with_name("aside"))


def removed(path: Path) -> None:
    """Gone at once, and then removed."""
    moved_aside(path)
    shutil.rmtree(path.with_name("aside"))


def put_in_its_place(path: Path) -> None:
    """Exchange it with what is called `aside`, in one step: at no time is nothing there."""
    above = os.open(path.parent, os.O_RDONLY)
    SystemCalls().exchange("aside", above, path.name, above)
    os.close(above)


def made_anew(path: Path) -> None:
    """An empty directory is in its place, and it is removed."""
    path.with_name("aside").mkdir()
    put_in_its_place(path)
    shutil.rmtree(path.with_name("aside"))


def restored(path: Path) -> None:
    """Moved aside, and a copy is in its place."""
    shutil.copytree(path, path.with_name("aside"))
    put_in_its_place(path)


def linked_elsewhere(path: Path) -> None:
    """Moved aside, and its path is a symlink to a copy."""
    shutil.copytree(path, path.with_name("copy"))
    path.with_name("aside").symlink_to("copy")
    put_in_its_place(path)


def parent_moved(path: Path) -> None:
    """The directory above it is moved."""
    path.parent.rename(path.parent.with_name("elsewhere"))


def looping(path: Path) -> None:
    """Moved aside, and its path is a symlink that leads nowhere but to itself."""
    path.with_name("aside").symlink_to(path.name)
    put_in_its_place(path)


EXCHANGES = {
    moved_aside: SpoolGone,
    removed: SpoolGone,
    made_anew: SpoolReplaced,
    restored: SpoolReplaced,
    linked_elsewhere: SpoolReplaced,
    parent_moved: SpoolGone,
    looping: SpoolGone,
}

exchanges = pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange.__name__)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Say where the spool is: in a directory of its own, which may be moved."""
    (tmp_path / "var").mkdir()
    return tmp_path / "var" / "spool"


CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "enqueue": lambda spool, _: spool.enqueue(Mail.SEND, ANNE, b""),
    "enqueue under a name": lambda spool, _: spool.enqueue(Mail.SEND, ANNE, b"", name=Use("k1")),
    "enqueue under a name that is taken": lambda spool, _: spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a")),
    "enqueue if absent": lambda spool, _: spool.enqueue_if_absent(Mail.SEND, ANNE, b"", name=Use("k2")),
    "enqueue if absent, remembered": lambda spool, _: spool.enqueue_if_absent(
        Mail.SEND, ANNE, b"", name=Use("k3", remember=60)
    ),
    "enqueue to wait": lambda spool, _: spool.enqueue(Mail.SEND, ANNE, b"", not_before=60),
    "reserve a name": lambda spool, _: spool.reserve_name(),
    "list": lambda spool, _: spool.entries(Mail.SEND),
    "list what waits": lambda spool, _: spool.waiting(Mail.SEND),
    "check out": lambda _, entry: entry.checkout(),
    "try to check out": lambda _, entry: entry.try_checkout(),
    "save directly": lambda _, entry: entry.direct.save(ANNE),
    "remove directly": lambda _, entry: entry.direct.remove(),
    "save data directly": lambda _, entry: entry.direct.data_file.save(b""),
    "recover": lambda spool, _: spool.recover(),
    "check": lambda spool, _: Monitor(spool).run_once(),
}


@exchanges
@pytest.mark.parametrize("call", CALLS)
async def test_every_operation_tells_that_the_directory_is_not_the_one_that_is_named(path, exchange, call):
    """Never `Ok` into a directory that nobody sees, nor an answer about a name. Nothing is written in either."""
    spool = await quick_spool(path)
    [entry, *_] = await put(spool, Mail.SEND, "a", "b")
    exchange(path)
    error = EXCHANGES[exchange](str(path))
    assert await CALLS[call](spool, entry) == Err(error)
    assert str(path) in str(error)
    for each in (path, path.with_name("aside")):
        with contextlib.suppress(OSError):  # it is not there
            assert set(os.listdir(each / "send")) <= {"a", "b", ".checkout", ".waiting"}
            assert os.listdir(each / ".tmp") == []


NEEDED = [".registry", ".data", ".tmp"]
"""What every entry needs."""


def replaced_within(path: Path, directory: str) -> None:
    """Move one of the spool's own directories aside, and put a copy in its place, as a restore does."""
    (path / directory).rename(path / ".aside")
    shutil.copytree(path / ".aside", path / directory)


def removed_within(path: Path, directory: str) -> None:
    """Remove one of the spool's own directories."""
    shutil.rmtree(path / directory)


@pytest.mark.parametrize("directory", NEEDED)
@pytest.mark.parametrize(("exchange", "error"), [(replaced_within, SpoolReplaced), (removed_within, SpoolGone)])
async def test_a_directory_that_every_entry_needs_is_held_like_the_whole_spool(path, exchange, error, directory):
    """Locks that nobody sees, and data that nobody finds, would be worse than an error. It names the directory."""
    spool = await quick_spool(path)
    [entry, *_] = await put(spool, Mail.SEND, "a", "b")
    exchange(path, directory)
    for call in (*CALLS, "enqueue"):
        assert await CALLS[call](spool, entry) == Err(error(str(path / directory))), call
    async with spool.reader(Mail.SEND) as reader:
        assert await reader.dequeue() == Err(error(str(path / directory)))
    assert sorted(each.name for each in (path / "send").iterdir() if each.is_file()) == ["a", "b"]


@pytest.mark.parametrize("directory", NEEDED)
async def test_what_is_in_hand_is_settled_in_the_directories_that_it_is_from(path, directory):
    """Also if a copy of one of them has taken its place."""
    spool = await quick_spool(path)
    [entry] = await put(spool, Mail.SEND, "a")
    async with (await entry.checkout()).unwrap() as job:
        replaced_within(path, directory)
        assert await job.data.load() == Ok(b"Hello")
        assert await job.save(Mail.RETRY, BERT) == Ok(None)
    assert (path / "retry/a").is_file()


@pytest.mark.parametrize("directory", [".notes", ".keys"])
async def test_a_directory_that_there_need_not_be_is_followed(path, directory):
    """What is kept beside entries goes where the next one looks for it."""
    spool = await quick_spool(path)
    (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a", remember=60))).unwrap()
    async with spool.reader(Mail.SEND) as reader:
        async with (await reader.dequeue()).unwrap() as job:
            (await job.progress(0.5)).unwrap()
        shutil.rmtree(path / directory)
        (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("b", remember=60))).unwrap()
        async with (await reader.dequeue()).unwrap() as job:
            (await job.progress(0.5)).unwrap()
            assert (path / directory / ("b" if directory == ".keys" else job.name)).is_file()


async def test_what_was_removed_while_it_was_in_hand_or_reserved_has_gone_with_the_spool(path):
    """The error is that of the spool, and not of the file that is missing first."""
    spool = await quick_spool(path)
    [entry] = await put(spool, Mail.SEND, "a")
    answers = []

    async def use() -> None:
        async with (await spool.reserve_name()).unwrap() as name, (await entry.checkout()).unwrap() as job:
            removed(path)
            answers.append(await job.save(Mail.RETRY, BERT))
            answers.append(await job.save(Mail.RETRY, not_before=60))
            answers.append(await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(name)))
            answers.append(await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(name), not_before=60))

    with pytest.raises(SpoolGone):
        await use()
    assert answers == [Err(SpoolGone(str(path)))] * 4


@exchanges
async def test_several_that_are_enqueued_together_are_all_refused(path, exchange):
    """Each of them is told."""
    spool = await quick_spool(path)
    exchange(path)
    answers = await spool.enqueue_many(Mail.SEND, [(ANNE, b"")] * 3)
    assert answers == [Err(EXCHANGES[exchange](str(path)))] * 3


@exchanges
async def test_what_is_in_hand_is_settled_where_it_is(path, exchange):
    """The job goes on; its data can be read and its verdict is stored, in the directory that it was checked out of."""
    spool = await quick_spool(path)
    [entry] = await put(spool, Mail.SEND, "a")
    lost = pytest.raises(EXCHANGES[exchange]) if exchange in (removed, made_anew) else contextlib.nullcontext()
    with lost:  # what was removed cannot go back when its block ends
        async with (await entry.checkout()).unwrap() as job:
            exchange(path)
            if exchange in (removed, made_anew):
                assert await job.save(Mail.RETRY) == Err(EXCHANGES[exchange](str(path)))
            else:
                assert await job.data.load() == Ok(b"Hello")
                assert await job.save(Mail.RETRY) == Ok(None)
    if exchange in (moved_aside, restored, linked_elsewhere, looping):
        assert state_of(path.with_name("aside")).names("retry") == ["a"]
    if exchange is restored:
        assert state_of(path).names("retry") == []


@exchanges
@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_reader_that_waits_ends_when_it_looks_again(path, exchange, concurrency):
    """Where the kernel tells, that is at once. It takes nothing of what it finds in the other directory."""
    spool = await quick_spool(path)
    seen = []

    async def remove(metadata: Any, data: Any) -> Remove:
        seen.append(data.name)
        return Remove()

    async with spool.reader(Mail.SEND, poll_interval=0.01) as reader, anyio.create_task_group() as tasks:
        answers: list[Any] = []

        async def iterate() -> None:
            answers.append(await reader.iter(remove, concurrency=concurrency))

        tasks.start_soon(iterate)
        await put(spool, Mail.SEND, "a")
        while (path / ".registry" / "a").exists():  # noqa: ASYNC110  # it tells nobody
            await anyio.sleep(0.001)
        exchange(path)
        while not answers:
            look_again(spool, Mail.SEND)
            await anyio.sleep(0.001)
    assert answers == [Err(EXCHANGES[exchange](str(path)))]
    assert seen == ["a"]


async def test_the_kernel_tells_of_a_spool_that_is_moved(path):
    """A reader that waits need not look again for that."""
    spool = await quick_spool(path)
    async with spool.reader(Mail.SEND, poll_interval=1000) as reader, anyio.create_task_group() as tasks:
        answers: list[Any] = []

        async def wait() -> None:
            answers.append(await reader.dequeue())

        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        while not waiters_of(spool):
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.deadline = anyio.current_time() + 60  # instead of waiting for ever
        moved_aside(path)
    assert answers == [Err(SpoolGone(str(path)))]


@exchanges
async def test_a_reader_that_is_busy_takes_no_more_of_its_listing(path, exchange):
    """It had listed a hundred; the ones that it has not begun stay where they are."""
    spool = await quick_spool(path)
    await put(spool, Mail.SEND, *(f"{number:03}" for number in range(100)))
    seen = []

    async def count(metadata: Any, data: Any) -> Remove:
        seen.append(data.name)
        if len(seen) == 3:
            exchange(path)
        return Remove()

    with contextlib.suppress(Exception):  # of a removed directory, the entry in hand cannot be settled
        async with spool.reader(Mail.SEND) as reader:
            answer = await reader.iter(count)
            if exchange not in (removed, made_anew):
                assert answer == Err(EXCHANGES[exchange](str(path)))
    assert len(seen) <= 4


@exchanges
async def test_a_reader_that_waits_for_what_is_due_ends(path, exchange):
    """It does not sleep until then."""
    spool = await quick_spool(path)
    (await spool.enqueue(Mail.SEND, ANNE, b"", not_before=3600)).unwrap()
    async with spool.reader(Mail.SEND, poll_interval=0.01) as reader, anyio.create_task_group() as tasks:
        answers: list[Any] = []

        async def wait() -> None:
            answers.append(await reader.dequeue())

        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        exchange(path)
        while not answers:
            look_again(spool, Mail.SEND)
            await anyio.sleep(0.001)
    assert answers == [Err(EXCHANGES[exchange](str(path)))]


@exchanges
async def test_both_ends_of_a_channel_end(path, exchange):
    """Sending and receiving raise it."""
    spool = await quick_spool(path)
    async with spool.channel(Mail.SEND) as (send, receive):
        exchange(path)
        with pytest.raises(EXCHANGES[exchange]):
            await send.send((ANNE, b""))
        with pytest.raises(EXCHANGES[exchange]):
            await receive.receive()


async def test_a_path_that_cannot_be_looked_at_proves_nothing(path):
    """A directory above that lost its permissions is no reason to end."""
    calls = FailingCalls()
    spool = await make_spool(path, system_calls=calls)
    with calls.failing("stat_path", errno.EACCES):
        [entry] = await put(spool, Mail.SEND, "a")
        assert (await spool.entries(Mail.SEND)).unwrap() == [entry]


async def test_a_queue_that_is_exchanged_is_followed(path):
    """Only the spool's own directory is not: a queue may be moved, and made anew, by hand."""
    spool = await quick_spool(path)
    (path / "send").rename(path / "was-send")
    shutil.copytree(path / "was-send", path / "send")
    [entry] = await put(spool, Mail.SEND, "a")
    assert (await spool.entries(Mail.SEND)).unwrap() == [entry]


@pytest.mark.skipif(bool(why_not()), reason=why_not() or "may mount")
async def test_a_spool_that_is_mounted_over_is_replaced(path):
    """The other file system has an empty spool, as when a disk was not mounted at first."""
    await make_spool(path)
    code = f"""
import trio
import helpers.mounts as mounts
from helpers.spools import ANNE, MAIL, Mail
from trio_multispool import Err, Spool, SpoolReplaced

async def main():
    spool = (await Spool.load({str(path)!r}, MAIL)).unwrap()
    mounts.tmpfs({str(path)!r})
    assert await spool.enqueue(Mail.SEND, ANNE, b"") == Err(SpoolReplaced({str(path)!r}))
    assert await spool.entries(Mail.SEND) == Err(SpoolReplaced({str(path)!r}))

mounts.enter_private()
trio.run(main)
"""
    run_python(code)


def test_a_command_that_works_ends_with_it(path):
    """With the exit code for a spool that is refused, and the path on standard error, so that a supervisor acts."""
    trio.run(make_spool, path)
    code = "import sys; from trio_multispool.cli import main; sys.exit(main())"
    program = [sys.executable, "-c", code, "work", str(path), "send", "true"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            while running.poll() is None and not _is_watching(running.pid):
                time.sleep(0.01)
            moved_aside(path)
            _, told = running.communicate(timeout=60)
        finally:
            running.kill()
    assert (running.returncode, f"is not at {str(path)!r}" in told) == (5, True), told


def _is_watching(pid: int) -> bool:
    """Tell whether a process has an inotify instance: its reader looks, and then waits."""
    found = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return "anon_inode:inotify" in found


async def test_a_spool_is_opened_anew_where_it_is(path):
    """After that, all is as before."""
    spool = await quick_spool(path)
    await put(spool, Mail.SEND, "a")
    moved_aside(path)
    assert isinstance(await spool.entries(Mail.SEND), Err)
    again = (await Spool.load(path.with_name("aside"), MAIL)).unwrap()
    assert len((await again.entries(Mail.SEND)).unwrap()) == 1

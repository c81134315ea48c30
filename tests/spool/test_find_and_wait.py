"""Where an entry is, and waiting until it has got somewhere.

Where a test wants to see that the kernel told, the clock stands still, or the spool would look again by itself.
"""

from __future__ import annotations

import datetime
import errno
import os
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio
import trio.testing

from helpers.children import Child
from helpers.gates import breathe
from helpers.inside import movers_of, open_descriptors, storage_of
from helpers.places import PLACES, place_of
from helpers.results import is_err
from helpers.spools import ANNE, MAIL, Mail, Wall, load_spool, make_spool, put, quick_spool
from trio_multispool import (
    Durability,
    Err,
    Finished,
    Found,
    GiveUp,
    InvalidName,
    Ok,
    Remove,
    Retry,
    Save,
    Spool,
    SpoolGone,
    State,
    Use,
)
from trio_multispool.storage.directory.disk.syscalls import SystemCalls
from trio_multispool.testing import memory_spool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    AnySpool = Spool[Any, Any, Any, Any]

pytestmark = pytest.mark.anyio

HOUR = datetime.timedelta(hours=1)


@pytest.fixture(params=["memory", *PLACES])
async def spool(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AnySpool]:
    """Make a spool of each kind."""
    if request.param == "memory":
        yield memory_spool(MAIL)
        return
    with place_of(request.param, tmp_path) as place:
        yield await quick_spool(place)


async def found(spool: AnySpool, name: str = "a") -> Found[Any]:
    """Return where an entry is that is somewhere."""
    where = (await spool.find(name)).unwrap()
    assert isinstance(where, Found)
    return where


async def waiting(spool: AnySpool, count: int = 1) -> None:
    """Return when so many tasks wait for entries."""
    while len(movers_of(spool)) < count:
        await breathe()


# Finding


async def test_an_entry_is_found_in_every_state(spool):
    """Available, waiting, in hand with its progress, failed with its attempts, finished, and forgotten."""
    assert (await spool.find("a")).unwrap() is None
    use = Use("a", remember=HOUR)
    (await spool.enqueue(Mail.SEND, ANNE, b"Hello", name=use, not_before=HOUR)).unwrap()
    where = await found(spool)
    assert (where.name, where.queue, where.state) == ("a", Mail.SEND, State.WAITING)
    assert where.due_at is not None
    assert (where.owner, where.progress, where.attempts, where.reason) == (None, None, (), None)
    async with (await spool.entry(Mail.SEND, "a").unwrap().checkout(early=True)).unwrap() as job:
        (await job.progress(0.4, "half way")).unwrap()
        where = await found(spool)
        assert (where.queue, where.state) == (Mail.SEND, State.CHECKED_OUT)
        assert (where.owner, where.owner_host) in ((os.getpid(), os.uname().nodename), (None, None))
        assert where.progress is not None
        assert (where.progress.done, where.progress.message) == (0.4, "half way")
        (await job.save(Mail.RETRY)).unwrap()
    where = await found(spool)
    assert (where.queue, where.state, where.progress, where.due_at) == (Mail.RETRY, State.AVAILABLE, None, None)
    async with (await spool.entry(Mail.RETRY, "a").unwrap().checkout()).unwrap() as job:
        (await job.remove()).unwrap()
    where = (await spool.find("a")).unwrap()
    assert isinstance(where, Finished)
    assert where.until is not None


async def test_what_was_tried_is_told(spool):
    """Each attempt, and why it failed."""
    (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a"))).unwrap()

    async def refuse(_metadata: object, _data: object) -> GiveUp:
        return GiveUp("nobody there")

    async with spool.reader(Mail.SEND) as reader:
        (await reader.iter_available(refuse, retry=Retry(attempts=3, dead_letter=Mail.FAILED))).unwrap()
    where = await found(spool)
    assert where.queue is Mail.FAILED
    [attempt] = where.attempts
    assert attempt.failure is not None
    assert (attempt.number, attempt.failure.message) == (1, "nobody there")


async def test_what_is_set_aside_is_found_with_the_reason(tmp_path):
    """And what lies in a queue that this program does not know has that queue's name."""
    spool = await quick_spool(tmp_path / "spool")
    await put(spool, Mail.SEND, "a", "b")
    (tmp_path / "spool" / "send" / "a").write_bytes(b"nonsense")
    (await spool.entry(Mail.SEND, "a").unwrap().checkout()).ignore()
    where = await found(spool)
    assert (where.queue, where.state) == (Mail.SEND, State.QUARANTINED)
    assert where.reason is not None
    assert "cannot be decoded" in where.reason
    (tmp_path / "spool" / "other" / ".checkout").mkdir(parents=True)
    (tmp_path / "spool" / "send" / "b").rename(tmp_path / "spool" / "other" / "b")
    assert (await found(spool, "b")).queue == "other"


async def test_an_entry_that_moves_on_while_it_is_looked_for_is_found(tmp_path):
    """It goes back, by turns of its owner, to a place that was looked at before: then all are looked at again."""

    class Moving(SystemCalls):
        """Moves the entry away right before it would be seen, three times."""

        left = 3

        def stat(self, name: str, directory: int) -> os.stat_result:
            if name.endswith("/a") and (path / name).exists() and self.left:
                self.left -= 1
                (path / name).rename(path / ("send/a" if name == "send/.checkout/a" else "send/.checkout/a"))
            return super().stat(name, directory)

    path = tmp_path / "spool"
    calls = Moving()
    spool = await quick_spool(path, system_calls=calls)
    await put(spool, Mail.SEND, "a")
    calls.left = 3
    assert (await found(spool)).name == "a"
    assert not calls.left


async def test_a_name_that_is_only_reserved_is_no_entry(spool):
    """It has a reservation and no more."""
    async with (await spool.reserve_name()).unwrap() as reserved:
        assert await spool.find(reserved.name) == Ok(None)


async def test_a_name_that_no_entry_can_have_is_an_err(spool):
    """To find it, and to wait for it."""
    for answer in (await spool.find("a/b"), await spool.wait("a/b")):
        assert isinstance(answer, Err)
        assert isinstance(answer.error, InvalidName)
    await spool.wait("a", until=Mail.FAILED)
    with pytest.raises(TypeError, match="'send' is no member of Mail"):
        await spool.wait("a", until="send")
    with pytest.raises(TypeError, match="is no member of Mail"):
        await spool.wait("a", until=["send"])


# Waiting


async def remove(spool: AnySpool) -> None:
    """Remove it by hand."""
    async with (await spool.entry(Mail.SEND, "a").unwrap().checkout()).unwrap() as job:
        (await job.remove()).unwrap()


async def remove_direct(spool: AnySpool) -> None:
    """Remove it where it is."""
    (await spool.entry(Mail.SEND, "a").unwrap().direct.remove()).unwrap()


async def work_off(spool: AnySpool) -> None:
    """Remove it in a reader."""

    async def handle(_metadata: object, _data: object) -> Remove:
        return Remove()

    async with spool.reader(Mail.SEND) as reader:
        (await reader.iter_available(handle)).unwrap()


async def save_to_failed(spool: AnySpool) -> None:
    """Move it to the queue of what failed."""

    async def handle(_metadata: object, _data: object) -> Any:
        return Save(Mail.FAILED)

    async with spool.reader(Mail.SEND) as reader:
        (await reader.iter_available(handle)).unwrap()


async def save_to_wait(spool: AnySpool) -> None:
    """Move it there, to wait."""
    async with (await spool.entry(Mail.SEND, "a").unwrap().checkout()).unwrap() as job:
        (await job.save(Mail.FAILED, not_before=HOUR)).unwrap()


MOVES: dict[Callable[[AnySpool], Any], Any] = {
    remove: Finished,
    remove_direct: Finished,
    work_off: Finished,
    save_to_failed: State.AVAILABLE,
    save_to_wait: State.WAITING,
}


@pytest.mark.parametrize("move", MOVES)
async def test_a_wait_ends_when_the_entry_has_got_there(spool, move):
    """And not when it goes to another queue, or back."""
    (await spool.enqueue(Mail.RETRY, ANNE, b"", name=Use("a", remember=HOUR))).unwrap()
    await put(spool, Mail.SEND, "b", "c")
    found: list[Any] = []

    async def wait() -> None:
        found.append((await spool.wait("a", until=[Mail.FAILED])).unwrap())

    with anyio.fail_after(30):  # by the real clock
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await waiting(spool)
            async with (await spool.entry(Mail.RETRY, "a").unwrap().checkout()).unwrap():
                pass
            async with (await spool.entry(Mail.RETRY, "a").unwrap().checkout()).unwrap() as job:
                (await job.save(Mail.SEND)).unwrap()
            async with (await spool.entry(Mail.SEND, "b").unwrap().checkout()).unwrap() as job:
                (await job.remove()).unwrap()
            assert found == []
            await move(spool)
    [where] = found
    if MOVES[move] is Finished:
        assert isinstance(where, Finished)
    else:
        assert (where.queue, where.state) == (Mail.FAILED, MOVES[move])


async def test_what_is_there_already_is_not_waited_for(spool):
    """It is in one of the queues; or it is nowhere."""
    await put(spool, Mail.SEND, "a")
    where = (await spool.wait("a", until=[Mail.FAILED, Mail.SEND])).unwrap()
    assert isinstance(where, Found)
    assert await spool.wait("nothing") == Ok(None)


@pytest.mark.parametrize("way", ["enqueue", "check out", "release"])
async def test_a_queue_is_reached_in_whatever_state(spool, way):
    """The entry is in the queue, whoever has it."""
    await put(spool, Mail.SEND, "a")
    async with (await spool.entry(Mail.SEND, "a").unwrap().checkout()).unwrap() as job:
        where = (await spool.wait("a", until=[Mail.SEND])).unwrap()
        assert (where.queue, where.state) == (Mail.SEND, State.CHECKED_OUT)
        assert job.name == "a", way


def test_a_thousand_tasks_wait_with_one_descriptor_and_each_is_woken_once(tmp_path):
    """By the kernel: the clock stands still. Each looks twice; those whose entries stay do not look again."""
    clock = trio.testing.MockClock()

    async def main() -> None:
        spool = await make_spool(tmp_path / "spool", durability=Durability.PROCESS)
        storage = storage_of(spool)
        find, looks = storage.find, []
        storage.find = lambda name: looks.append(name) or find(name)
        names = [str(number) for number in range(1000)]
        await put(spool, Mail.SEND, *names)
        before, ended = len(open_descriptors()), []

        async def wait(name: str) -> None:
            ended.append(((await spool.wait(name)).unwrap(), name))

        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(wait, name)
            await waiting(spool, 1000)
            assert len(open_descriptors()) - before <= 2  # its own, and perhaps that of the registry
            assert len(looks) == 1000
            for name in names[:10]:
                (await spool.entry(Mail.SEND, name).unwrap().direct.remove()).unwrap()
            while len(ended) < 10:
                await breathe()
            assert {name for _, name in ended} == set(names[:10])
            assert len(looks) == 1010
            assert len(movers_of(spool)) == 990
            nursery.cancel_scope.cancel()
        assert len(open_descriptors()) <= before + 1
        assert not movers_of(spool)

    trio.run(main, clock=clock)


@pytest.mark.sample
def test_the_kernel_tells_of_what_comes_into_a_queue(place):
    """Available or to wait, also where the queue had nothing waiting before: the clock stands still."""

    async def main() -> None:
        spool = await quick_spool(place)
        await put(spool, Mail.SEND, "a", "b")
        ended: list[str] = []

        async def wait(name: str, queue: Mail) -> None:
            (await spool.wait(name, until=[queue])).unwrap()
            ended.append(name)

        with anyio.fail_after(1):  # which never comes
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait, "a", Mail.RETRY)
                nursery.start_soon(wait, "b", Mail.FAILED)
                await waiting(spool, 2)
                async with (await spool.entry(Mail.SEND, "b").unwrap().checkout()).unwrap() as job:
                    (await job.save(Mail.FAILED, not_before=HOUR)).unwrap()
                while ended != ["b"]:
                    await breathe()
                async with (await spool.entry(Mail.SEND, "a").unwrap().checkout()).unwrap() as job:
                    (await job.save(Mail.RETRY)).unwrap()

    trio.run(main, clock=trio.testing.MockClock())


def test_it_is_looked_for_again_where_the_kernel_does_not_tell(tmp_path):
    """No inotify instance is left; and what is set aside is seen at the next look."""

    class Deaf(SystemCalls):
        """Has none."""

        def notify(self) -> Any:
            raise OSError(errno.EMFILE, "none left")

    async def main() -> None:
        spool = await quick_spool(tmp_path / "spool", system_calls=Deaf())
        other = await load_spool(tmp_path / "spool")
        await put(spool, Mail.SEND, "a", "b")

        async def set_aside() -> None:
            await waiting(spool)
            (tmp_path / "spool" / "send" / "a").write_bytes(b"nonsense")
            (await other.entry(Mail.SEND, "a").unwrap().checkout()).ignore()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(set_aside)
            where = (await spool.wait("a")).unwrap()
            assert isinstance(where, Found)
            assert where.state is State.QUARANTINED

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.01))


def work_in_child(parent: Any, path: Path) -> None:
    """Check the entry out, and remove it when told; or be killed."""
    import trio

    from helpers.spools import Mail, load_spool

    async def main() -> None:
        spool = await load_spool(path)
        async with (await spool.entry(Mail.SEND, "a").unwrap().checkout()).unwrap() as job:
            parent.say("in hand")
            parent.hear()
            (await job.remove()).unwrap()

    trio.run(main)


async def test_a_wait_ends_when_another_process_removes_the_entry(place):
    """And not when that process is killed: then the entry goes back, and the next owner removes it."""
    path = place
    spool = await quick_spool(path)
    await put(spool, Mail.SEND, "a")
    ended: list[Any] = []

    async def wait() -> None:
        ended.append((await spool.wait("a")).unwrap())

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            with Child(work_in_child, path) as killed:
                assert killed.hear() == ["in hand"]
                where = await found(spool)
                assert (where.state, where.owner) == (State.CHECKED_OUT, killed.process.pid)
                tasks.start_soon(wait)
                await waiting(spool)
                killed.kill()
            (await spool.recover()).unwrap()
            assert ended == []
            with Child(work_in_child, path) as child:
                assert child.hear() == ["in hand"]
                child.tell("go on")
                child.end()
    assert ended == [None]


async def test_a_wait_that_is_cancelled_leaves_nothing(spool):
    """Neither a task that waits, nor a descriptor; and others wait on."""
    await put(spool, Mail.SEND, "a")
    before = open_descriptors()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(spool.wait, "a")
        await waiting(spool)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as inner:
                inner.start_soon(spool.wait, "a")
                await waiting(spool, 2)
                scope.cancel()
        assert len(movers_of(spool)) == 1
        tasks.cancel_scope.cancel()
    assert not movers_of(spool)
    assert len(open_descriptors() - before) <= 1


async def test_a_spool_that_is_closed_or_moved_away_ends_the_wait(tmp_path):
    """It says so."""
    spool = await quick_spool(tmp_path / "spool")
    await put(spool, Mail.SEND, "a")
    answers: list[Any] = []

    async def wait() -> None:
        answers.append(await spool.wait("a"))

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await waiting(spool)
            (tmp_path / "spool" / ".registry").rename(tmp_path / "registry")
        [answer] = answers
        assert isinstance(answer.error, SpoolGone)
        (tmp_path / "registry").rename(tmp_path / "spool" / ".registry")

        with pytest.raises(BaseExceptionGroup) as raised:  # noqa: PT012  # the block that it ends
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait)
                await waiting(spool)
                spool.close()
        assert raised.group_contains(anyio.ClosedResourceError)


async def test_what_is_exchanged_while_an_entry_is_waited_for_is_noticed(tmp_path):
    """The kernel tells of a queue's directory that goes, and of the spool that is moved away."""
    path = tmp_path / "spool"
    spool = await quick_spool(path)
    await put(spool, Mail.SEND, "a")
    looks: list[str] = []
    storage = storage_of(spool)
    find = storage.find
    storage.find = lambda name: looks.append(name) or find(name)
    answers: list[Any] = []

    async def wait() -> None:
        answers.append(await spool.wait("a", until=[Mail.RETRY]))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await waiting(spool)
        with anyio.fail_after(5):  # it looks by itself after ten
            (path / "retry").rename(tmp_path / "aside")
            while len(looks) < 2:
                await breathe()
            (tmp_path / "aside").rename(path / "retry")
            while len(looks) < 3:
                await breathe()
            path.rename(tmp_path / "elsewhere")
            while not answers:
                await breathe()
    [answer] = answers
    assert is_err(answer)


async def test_a_spool_that_is_closed_while_it_looks_ends_the_wait(tmp_path):
    """Not when it would look again."""
    spool = await quick_spool(tmp_path / "spool")
    await put(spool, Mail.SEND, "a")
    storage = storage_of(spool)
    find, looking, closed = storage.find, threading.Event(), threading.Event()

    def slowly(name: str) -> Any:
        looking.set()
        closed.wait()
        return find(name)

    storage.find = slowly
    with anyio.fail_after(5), pytest.raises(BaseExceptionGroup) as raised:  # noqa: PT012  # the block that it ends
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(spool.wait, "a")
            while not looking.is_set():
                await breathe()
            spool.close()
            closed.set()
    assert raised.group_contains(anyio.ClosedResourceError)


def test_the_wall_clock_says_until_when_a_name_is_remembered(place):
    """And a name whose time has passed is forgotten."""

    async def main() -> None:
        wall = Wall()
        spool = await quick_spool(place, now=wall)
        (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a", remember=HOUR))).unwrap()
        await remove_direct(spool)
        until = datetime.datetime.fromtimestamp(wall.time, datetime.UTC) + HOUR
        assert await spool.find("a") == Ok(Finished(name="a", until=until))
        wall.time += 3601
        assert await spool.find("a") == Ok(None)

    trio.run(main)

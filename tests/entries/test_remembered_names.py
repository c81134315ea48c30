"""Names that are remembered when their entry is gone: a thing is enqueued once, and not again for some time."""

from __future__ import annotations

import contextlib
import datetime
import errno
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from helpers.calls import FailingCalls
from helpers.children import Child, Parent, quick_directory
from helpers.gates import Gates, let_go_at_last
from helpers.inside import storage_of
from helpers.processes import run_python
from helpers.results import is_err
from helpers.spools import ANNE, START, Mail, Wall, load_spool, quick_spool, state_of
from trio_multispool import (
    EntryBusy,
    Err,
    NameTaken,
    NotAdopted,
    Ok,
    OutOfSpace,
    Release,
    Save,
    Spool,
    Use,
)
from trio_multispool.clock import wall_clock
from trio_multispool.storage.directory import remembered as keys_module
from trio_multispool.storage.directory.remembered import LOOKED_AT_EACH_TIME

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio

HOUR = datetime.timedelta(hours=1)
ORDER = Use("order", remember=HOUR)
FINISHED = Err(NameTaken("order", finished=True))


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Say where the spool is to be."""
    with quick_directory(tmp_path) as directory:
        yield directory / "spool"


@pytest.fixture
def wall() -> Wall:
    """Stop the wall clock, ahead of the kernel's, which says when a file was changed: whatever the year is."""
    wall = Wall()
    wall.time = max(START, math.ceil(wall_clock()) + 86_400.0)
    return wall


async def enqueue(spool: Spool[Any, Any, Any, Any], name: Use = ORDER) -> Any:
    """Enqueue under a name."""
    return await spool.enqueue(Mail.SEND, ANNE, b"", name=name)


async def remove_all(spool: Spool[Any, Any, Any, Any], queue: Mail = Mail.SEND) -> None:
    """Remove what is there."""
    async with spool.reader(queue) as reader:
        async for job in reader.available():
            async with job:
                (await job.remove()).unwrap()


@pytest.mark.sample
async def test_a_name_is_not_to_be_had_for_as_long_as_it_is_remembered(place, wall):
    """From its entry's removal on; then it is free, and nothing is left of it."""
    spool = await quick_spool(place, now=wall)
    (await enqueue(spool)).unwrap()
    wall.time += 10_000  # the time counts from the removal
    assert await enqueue(spool) == Err(NameTaken("order"))
    await remove_all(spool)
    assert await enqueue(spool) == FINISHED
    assert await enqueue(spool, Use("order")) == FINISHED
    assert await spool.enqueue(Mail.FAILED, ANNE, b"", name=Use("order")) == FINISHED
    state = state_of(place)
    assert (state.registry, state.data, state.faults()) == (set(), {}, [])
    wall.time += 3599.9
    assert await enqueue(spool) == FINISHED
    wall.time += 0.1
    (await enqueue(spool, Use("order"))).unwrap()
    assert state_of(place).keys == set()
    await remove_all(spool)
    (await enqueue(spool)).unwrap()


async def test_the_error_says_which_of_the_two_it_is(place, wall):
    """Whether there is an entry, or was one."""
    spool = await quick_spool(place, now=wall)
    (await enqueue(spool)).unwrap()
    error = (await enqueue(spool)).error
    assert (error.finished, str(error)) == (False, "an entry named 'order' already exists in this spool")
    await remove_all(spool)
    error = (await enqueue(spool)).error
    assert (error.finished, "is remembered" in str(error)) == (True, True)


@pytest.mark.parametrize("remember", [3600, 3600.0, HOUR, math.inf])
async def test_however_the_duration_is_said(path, wall, remember):
    """In seconds, as a `timedelta`, or for ever, which is until the year 2445."""
    spool = await quick_spool(path, now=wall)
    (await enqueue(spool, Use("order", remember))).unwrap()
    await remove_all(spool)
    until = (path / ".keys" / "order").stat().st_mtime
    assert until == wall.time + 3600 if remember != math.inf else until > wall.time + 400 * 365 * 86400
    assert await enqueue(spool) == FINISHED


@pytest.mark.parametrize(("wrong", "error"), [(-1, ValueError), ("an hour", TypeError), (math.nan, ValueError)])
def test_a_duration_that_is_none_is_refused_where_it_is_said(wrong, error):
    """And not in a worker thread."""
    with pytest.raises(error):
        Use("order", remember=wrong)


async def test_an_entry_is_remembered_by_whomever_it_is_removed(place, wall):
    """From whatever queue, directly, by a batch, and by another process that knows of nothing."""
    spool = await quick_spool(place, now=wall)
    names = ("moved", "direct", "job", "other")
    for name in names:
        (await enqueue(spool, Use(name, HOUR))).unwrap()

    async with (await spool.entry(Mail.SEND, "moved").unwrap().checkout()).unwrap() as job:
        (await job.save(Mail.RETRY)).unwrap()
    await remove_all(spool, Mail.RETRY)
    (await spool.entry(Mail.SEND, "direct").unwrap().direct.remove()).unwrap()
    async with (await spool.entry(Mail.SEND, "job").unwrap().checkout()).unwrap() as job:
        (await job.remove()).unwrap()
    async with await load_spool(place, now=wall) as another:
        await remove_all(another)
    for name in names:
        assert await enqueue(spool, Use(name)) == Err(NameTaken(name, finished=True))
    assert state_of(place).faults() == []


async def test_what_goes_back_or_on_is_not_finished(place, wall):
    """Its name is its own."""
    spool = await quick_spool(place, now=wall)
    (await enqueue(spool)).unwrap()
    for verdict in (Release(), Save(Mail.SEND), Save(Mail.RETRY)):

        async def handler(_envelope: Any, _data: Any, verdict: Any = verdict) -> Any:
            return verdict

        async with spool.reader(Mail.SEND) as reader:
            (await reader.iter_available(handler)).unwrap()
        assert await enqueue(spool) == Err(NameTaken("order"))


async def test_what_is_dropped_from_quarantine_was_not_done(path, wall):
    """Whoever sends it again is heard."""
    spool = await quick_spool(path, now=wall)
    (await enqueue(spool)).unwrap()
    (path / "send" / "order").write_bytes(b"no json")
    await remove_all(spool)
    assert set(state_of(path).quarantined["send"]) == {"order"}
    assert await enqueue(spool) == Err(NameTaken("order"))
    storage = storage_of(spool)  # no operation of the spool does it, but the command line
    storage.discard("send", "order", durability=None, before_commit=lambda: None)
    assert state_of(path).keys == set()
    (await enqueue(spool)).unwrap()


async def test_a_reserved_name_may_be_remembered_too(place, wall):
    """As one of the caller's."""
    spool = await quick_spool(place, now=wall)
    async with (await spool.reserve_name()).unwrap() as reserved:
        (await enqueue(spool, Use(reserved, HOUR))).unwrap()
    await remove_all(spool)
    assert await enqueue(spool, Use(reserved.name)) == Err(NameTaken(reserved.name, finished=True))


async def test_enqueue_if_absent_answers_none_for_what_is_there_or_was(place, wall):
    """And an entry for what is not."""
    spool = await quick_spool(place, now=wall)
    first = (await spool.enqueue_if_absent(Mail.SEND, ANNE, b"", name=ORDER)).unwrap()
    assert first is not None
    assert first.name == "order"
    assert await spool.enqueue_if_absent(Mail.RETRY, ANNE, b"", name=ORDER) == Ok(None)
    await remove_all(spool)
    assert await spool.enqueue_if_absent(Mail.SEND, ANNE, b"", name=ORDER) == Ok(None)
    wall.time += 3600
    assert await spool.enqueue_if_absent(Mail.SEND, ANNE, b"", name=ORDER, not_before=60) != Ok(None)
    assert set(state_of(place).waiting["send"]) == {"order"}
    with pytest.raises(TypeError, match="Use"):
        await spool.enqueue_if_absent(Mail.SEND, ANNE, b"", name="order")  # type: ignore[arg-type]


async def test_enqueue_if_absent_tells_of_who_is_at_it(path, wall):
    """Nobody knows whether they will succeed."""
    spool = await quick_spool(path, now=wall)
    reserved = storage_of(spool).reserve("order")  # as another process would hold it
    answer = await spool.enqueue_if_absent(Mail.SEND, ANNE, b"", name=ORDER)
    assert answer == Err(EntryBusy("order"))
    storage_of(spool).give_up(reserved)


async def test_of_many_who_enqueue_one_thing_one_does(place, wall):
    """At the same time, in one process."""
    spool = await quick_spool(place, now=wall)
    made: list[Any] = []

    async def once() -> None:
        while isinstance(answer := await spool.enqueue_if_absent(Mail.SEND, ANNE, b"", name=ORDER), Err):
            assert isinstance(answer.error, EntryBusy)
        made.append(answer.value)

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(once)
    assert len([entry for entry in made if entry is not None]) == 1


async def test_what_has_much_data_is_remembered_too(place, wall):
    """Which is written in a hop of its own."""
    spool = await quick_spool(place, now=wall)
    (await spool.enqueue(Mail.SEND, ANNE, b"x" * 300_000, name=ORDER)).unwrap()
    await remove_all(spool)
    assert await enqueue(spool) == FINISHED


async def test_enqueue_many_remembers_too(place, wall):
    """Each name for its own time."""
    spool = await quick_spool(place, now=wall)
    names = [Use("a", 10), Use("b"), Use("c", 30)]
    for answer in await spool.enqueue_many(Mail.SEND, [(ANNE, b"")] * 3, names=names):
        answer.unwrap()
    assert state_of(place).keys == {"a", "c"}
    await remove_all(spool)
    wall.time += 20
    assert [is_err(await enqueue(spool, Use(name))) for name in "abc"] == [False, False, True]


# What is killed, and what fails


def enqueue_and_be_killed(parent: Parent, path: str, at: str) -> None:
    """Enqueue what is to be remembered, and be killed in the call that commits it, before or after its effect.

    Or before its file in `.keys` gets a time.
    """
    import os
    import signal

    import anyio

    from helpers.calls import WithoutSyncs
    from helpers.spools import ANNE, Mail, load_spool
    from trio_multispool import Use

    class Deadly(WithoutSyncs):
        def set_modified(self, *arguments: object) -> None:
            if at == "undated":
                os.kill(os.getpid(), signal.SIGKILL)
            super().set_modified(*arguments)  # type: ignore[arg-type]

        def move(self, *arguments: object) -> None:
            if arguments[0] != "order":  # a probe, when the spool is opened
                super().move(*arguments)  # type: ignore[arg-type]
                return
            if at == "after":
                super().move(*arguments)  # type: ignore[arg-type]
            os.kill(os.getpid(), signal.SIGKILL)

    async def main() -> None:
        spool = await load_spool(path, system_calls=Deadly())  # type: ignore[arg-type]
        await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("order", remember=3600))

    parent.say("ready")
    anyio.run(main)


@pytest.mark.parametrize("at", ["before", "after"])
async def test_a_name_whose_enqueue_was_killed_is_free_unless_its_entry_is_there(path, wall, at):
    """There is no memory of what was not done."""
    spool = await quick_spool(path, now=wall)
    with Child(enqueue_and_be_killed, path, at) as child:
        assert list(child) == [["ready"]]
    assert state_of(path).keys == {"order"}
    answer = await enqueue(spool)
    assert answer == Err(NameTaken("order")) if at == "after" else isinstance(answer, Ok)
    await remove_all(spool)
    assert await enqueue(spool) == FINISHED
    assert state_of(path).faults() == []


async def test_a_name_whose_enqueue_was_killed_before_its_file_had_a_time_is_free(path, wall):
    """Its metadata is still temporary, so there was no entry to remember."""
    spool = await quick_spool(path, now=wall)
    with Child(enqueue_and_be_killed, path, "undated") as child:
        assert list(child) == [["ready"]]
    key = path / ".keys" / "order"
    assert b"3600" in key.read_bytes()
    wall.time = key.stat().st_mtime + 1
    (await spool.recover()).unwrap()
    assert isinstance(await enqueue(spool), Ok)


async def test_what_is_being_cleared_away_after_its_removal_has_been_done(path):
    """Nobody is told that it is busy, and asks again: what was removed is remembered from then on."""
    gates = Gates()
    spool, other = await quick_spool(path, system_calls=gates), await load_spool(path)
    entry = (await enqueue(spool)).unwrap()
    removed = gates.hold("unlink", "send/.checkout/order", after=True)
    async with (await entry.checkout()).unwrap() as job, anyio.create_task_group() as tasks:
        tasks.start_soon(job.remove)
        with let_go_at_last(removed):
            await removed.reached()
            assert await enqueue(other) == FINISHED
            assert await other.enqueue_if_absent(Mail.SEND, ANNE, b"", name=ORDER) == Ok(None)
    assert await enqueue(other) == FINISHED


async def test_recovery_collects_what_a_killed_enqueue_left(path, wall):
    """The file that should have remembered its entry too."""
    spool = await quick_spool(path, now=wall)
    with Child(enqueue_and_be_killed, path, "before") as child:
        assert list(child) == [["ready"]]
    (await spool.recover()).unwrap()
    assert state_of(path).keys == set()
    assert state_of(path).registry == set()


@pytest.mark.parametrize(("call", "on"), [("open", ".keys/"), ("write", ".keys/"), ("set_modified", ".keys/")])
async def test_what_cannot_be_remembered_is_not_enqueued(path, wall, call, on):
    """All or nothing; and the name is free."""
    calls = FailingCalls()
    spool = await quick_spool(path, now=wall, system_calls=calls)
    (path / ".keys").mkdir()
    with calls.failing(call, errno.ENOSPC, on=on):
        answer = await enqueue(spool)
        assert isinstance(answer, Err)
        assert isinstance(answer.error, OutOfSpace)
    state = state_of(path)
    assert (state_of(path).keys, state.registry, state.data, state.temporary) == (set(), set(), {}, {})
    (await enqueue(spool)).unwrap()


async def test_an_enqueue_that_fails_later_forgets(path, wall):
    """There was no entry."""
    calls = FailingCalls()
    spool = await quick_spool(path, now=wall, system_calls=calls)
    with calls.failing("move", errno.ENOSPC, on="send/order"):
        assert is_err(await enqueue(spool))
    assert (state_of(path).keys, state_of(path).registry) == (set(), set())


async def test_a_removal_that_cannot_be_remembered_does_not_happen(path, wall):
    """The job is still its owner's; and one that failed after it was remembered leaves an entry like any other."""
    calls = FailingCalls()
    spool = await quick_spool(path, now=wall, system_calls=calls)
    (await enqueue(spool)).unwrap()
    async with (await spool.entry(Mail.SEND, "order").unwrap().checkout()).unwrap() as job:
        with calls.failing("set_modified", errno.EIO, on=".keys/order"):
            assert is_err(await job.remove())
        with calls.failing("unlink", errno.EPERM, on="send/.checkout/order"):
            assert is_err(await job.remove())
        assert not job.settled
        (await job.release()).unwrap()
    assert await enqueue(spool) == Err(NameTaken("order"))
    wall.time += 7200
    for name in "ab":  # whose removals go over what is remembered
        (await spool.enqueue(Mail.RETRY, ANNE, b"", name=Use(name, HOUR))).unwrap()
        await remove_all(spool, Mail.RETRY)
    await remove_all(spool)
    assert await enqueue(spool) == FINISHED


async def test_removing_needs_no_room(path, wall):
    """Whoever removes entries may be making some."""
    calls = FailingCalls()
    spool = await quick_spool(path, now=wall, system_calls=calls)
    (await enqueue(spool)).unwrap()
    for call in ("write", "make_directory"):
        calls.fail(call, errno.ENOSPC)
    await remove_all(spool)
    calls.mend()
    assert await enqueue(spool) == FINISHED


async def test_a_name_may_be_had_forgotten_at_any_moment(path, wall, monkeypatch):
    """By deleting its file, also in the middle of the removal."""
    spool = await quick_spool(path, now=wall)
    (await enqueue(spool)).unwrap()
    how_long = keys_module.how_long

    def deleted_after(*arguments: Any) -> Any:
        found = how_long(*arguments)
        (path / ".keys" / "order").unlink()
        return found

    monkeypatch.setattr(keys_module, "how_long", deleted_after)
    await remove_all(spool)
    monkeypatch.undo()
    assert isinstance(await enqueue(spool), Ok)


UNREADABLE = [b"{", b'{"remember":"long"}', b'{"remember":-1}', b"\xff", b"[" * 100_000, b"x" * 5_000_000]


@pytest.mark.parametrize("content", [b"", b"\0\0\0", *UNREADABLE], ids=lambda content: repr(content[:9]))
async def test_a_file_that_cannot_be_read_when_the_entry_is_removed_counts_as_remembered(path, wall, content, caplog):
    """Somebody asked for it. How long is not known any more, so it is for good, until a person deletes the file."""
    spool = await quick_spool(path, now=wall)
    (await enqueue(spool)).unwrap()
    (path / ".keys" / "order").write_bytes(content)
    os.utime(path / ".keys" / "order", (0, 0))  # as it was
    await remove_all(spool)
    wall.time += 100 * 365 * 86_400
    assert await enqueue(spool) == Err(NameTaken("order", finished=True))
    assert (await spool.recover()).unwrap() == []
    assert await enqueue(spool) == Err(NameTaken("order", finished=True))
    assert [record.__dict__["event"] for record in caplog.records] == ["multispool.unreadable_notes"]
    (path / ".keys" / "order").unlink()
    assert isinstance(await enqueue(spool), Ok)


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES])
async def test_a_file_that_cannot_be_opened_is_replaced_and_the_entry_can_be_removed(path, wall, code):
    """The removal does not fail for it: then the work would be done again."""
    calls = FailingCalls()
    spool = await quick_spool(path, now=wall, system_calls=calls)
    (await enqueue(spool)).unwrap()
    with calls.failing("open", code, on=".keys/order"):
        await remove_all(spool)
    wall.time += 365 * 86_400
    assert await enqueue(spool) == FINISHED


@pytest.mark.parametrize("content", UNREADABLE, ids=lambda content: repr(content[:9]))
async def test_a_file_that_was_spoilt_later_counts_as_remembered(path, wall, content):
    """Whatever its time says now: it was written over."""
    spool = await quick_spool(path, now=wall)
    (await enqueue(spool)).unwrap()
    await remove_all(spool)
    (path / ".keys" / "order").write_bytes(content)  # dated now, by a clock that is behind the spool's
    assert (await spool.recover(dry_run=True)).unwrap() == []
    assert (await spool.recover()).unwrap() == []
    assert await enqueue(spool) == Err(NameTaken("order", finished=True))


@pytest.mark.parametrize("content", [b"", b"\0\0\0"])
async def test_a_blank_file_without_an_entry_is_what_an_enqueue_left_that_was_killed(path, wall, content):
    """Nothing was acknowledged, so the name is free."""
    spool = await quick_spool(path, now=wall)
    (path / ".keys").mkdir()
    (path / ".keys" / "order").write_bytes(content)
    assert isinstance(await enqueue(spool), Ok)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda key: key.symlink_to("elsewhere")])
async def test_what_is_no_file_counts_as_remembered_and_the_entry_can_be_removed(path, wall, make):
    """The removal does not fail for it: then the work would be done again."""
    spool = await quick_spool(path, now=wall)
    (await enqueue(spool)).unwrap()
    (path / ".keys" / "order").unlink()
    make(path / ".keys" / "order")
    await remove_all(spool)
    assert state_of(path).entries() == set()
    assert await enqueue(spool) == Err(NameTaken("order", finished=True))
    assert await enqueue(spool) == Err(NameTaken("order", finished=True))


async def test_keys_want_a_spool_whose_programs_know_of_them(path, wall):
    """Others would remove the entry and leave no memory."""
    async with await quick_spool(path, now=wall):
        (path / ".spool.json").unlink()
    spool = await load_spool(path)
    assert await enqueue(spool) == Err(NotAdopted(str(path), "keys that are remembered"))
    assert (state_of(path).keys, state_of(path).registry) == (set(), set())


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_another_user_may_remove_what_is_to_be_remembered(shared_directory):
    """In a spool of a group, though the time of a file is its owner's to set: it is made anew."""
    code = """
        import os, sys
        import anyio
        from helpers.spools import ANNE, Mail, quick_spool, load_spool
        from trio_multispool import Err, NameTaken, Use

        path, user = sys.argv[1], int(sys.argv[2])

        async def main():
            await anyio.to_thread.run_sync(os.getpid)  # all that is imported lazily, while it can be read
            import inotify_simple
            os.setgroups([])
            os.setgid(54321)
            os.setuid(user)
            if user == 54321:
                spool = await quick_spool(path, directory_mode=0o770)
                (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("order", remember=3600))).unwrap()
                return
            spool = await load_spool(path)
            async with (await spool.entry(Mail.SEND, "order").unwrap().checkout()).unwrap() as job:
                (await job.remove()).unwrap()
            answer = await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("order"))
            assert answer == Err(NameTaken("order", finished=True)), answer

        anyio.run(main)
    """
    path = shared_directory / "spool"
    path.mkdir()
    os.chown(path, 54321, 54321)
    run_python(code, path, "54321")
    run_python(code, path, "54322")
    state = state_of(path)
    assert (state.temporary, state.registry, state_of(path).keys) == ({}, set(), {"order"})


# What a wrong clock, or a copy, has dated


async def test_a_name_that_a_clock_from_1970_has_dated_is_never_forgotten(path, wall, caplog):
    """Nobody knows when its entry was removed. A person deletes the file; the log says so once."""
    async with await quick_spool(path, now=lambda: 100.0) as spool:
        (await enqueue(spool)).unwrap()
        await remove_all(spool)
    caplog.clear()
    async with await load_spool(path, now=wall) as spool:
        for _ in range(2):
            assert await spool.enqueue_if_absent(Mail.SEND, ANNE, b"", name=ORDER) == Ok(None)
            assert (await spool.recover()).unwrap() == []
            wall.time += 100 * 365 * 86_400
        assert [record.__dict__["event"] for record in caplog.records] == ["multispool.unreadable_notes"]
        (path / ".keys" / "order").unlink()
        assert isinstance(await enqueue(spool), Ok)


@pytest.mark.parametrize("earlier", [0, 10], ids=["a copy", "a copy whose files were changed later"])
async def test_a_copy_that_loses_times_forgets_no_name_early(path, wall, earlier):
    """Each is refused for as long as was asked for, from when the copy wrote its file; then it is free."""
    async with await quick_spool(path, now=wall) as spool:
        (await enqueue(spool)).unwrap()
        await remove_all(spool)
    copy = path.with_name("copy")
    await anyio.run_process(["cp", "-r", path, copy])
    key = copy / ".keys" / "order"
    at = key.stat().st_mtime - earlier
    if earlier:
        os.utime(key, (at, at))
    wall.time = at + 3599
    async with await load_spool(copy, now=wall) as spool:
        assert await enqueue(spool) == FINISHED
        assert (await spool.recover()).unwrap() == []
        assert await enqueue(spool) == FINISHED
        wall.time = at + 3601
        assert [one.name for one in (await spool.recover(dry_run=True)).unwrap()] == ["order"]
        assert isinstance(await enqueue(spool), Ok)


async def test_an_entry_in_a_copy_that_loses_times_is_remembered_from_its_removal_on(path, wall):
    """Its removal sets the time anew."""
    async with await quick_spool(path, now=wall) as spool:
        (await enqueue(spool)).unwrap()
    copy = path.with_name("copy")
    await anyio.run_process(["cp", "-r", path, copy])
    wall.time = (copy / ".keys" / "order").stat().st_mtime + 86_400
    async with await load_spool(copy, now=wall) as spool:
        assert (await spool.recover()).unwrap() == []
        await remove_all(spool)
        wall.time += 3599
        assert await enqueue(spool) == FINISHED
        wall.time += 2
        assert isinstance(await enqueue(spool), Ok)


# Forgetting


async def test_what_need_not_be_remembered_is_collected_as_others_are_removed(path, wall):
    """A few at each removal, which goes over all of them again and again; what is remembered or in use is left."""
    spool = await quick_spool(path, now=wall)
    for number in range(12):
        (await enqueue(spool, Use(f"old-{number}", 10))).unwrap()
    await remove_all(spool)
    (await enqueue(spool, Use("kept", HOUR))).unwrap()
    await remove_all(spool)
    (await spool.enqueue(Mail.RETRY, ANNE, b"", name=Use("in-use", 10))).unwrap()
    wall.time += 11
    for number in range(4 * 14 // LOOKED_AT_EACH_TIME):
        (await enqueue(spool, Use(f"new-{number}", HOUR))).unwrap()
        await remove_all(spool)
    found = {name for name in state_of(path).keys if not name.startswith("new-")}
    assert found == {"kept", "in-use"}
    assert state_of(path).registry == {"in-use"}
    assert state_of(path).faults() == []


async def test_recovering_everything_forgets_all_that_need_not_be_remembered(place, wall):
    """A dry run tells of it, and does not."""
    spool = await quick_spool(place, now=wall)
    for name, remember in (("old", 10), ("kept", HOUR)):
        (await enqueue(spool, Use(name, remember))).unwrap()
    await remove_all(spool)
    (await spool.enqueue(Mail.RETRY, ANNE, b"", name=Use("in-use", 10))).unwrap()
    wall.time += 11
    assert [one.name for one in (await spool.recover(dry_run=True)).unwrap()] == ["old"]
    assert state_of(place).keys == {"old", "kept", "in-use"}
    assert [one.name for one in (await spool.recover()).unwrap()] == ["old"]
    assert state_of(place).keys == {"kept", "in-use"}
    assert state_of(place).registry == {"in-use"}


async def test_trouble_with_forgetting_does_not_make_a_removal_fail(path, wall, caplog):
    """It is logged, and tried again another time."""
    calls = FailingCalls()
    spool = await quick_spool(path, now=wall, system_calls=calls)
    (await enqueue(spool, Use("old", 10))).unwrap()
    await remove_all(spool)
    (await enqueue(spool)).unwrap()
    wall.time += 11
    with calls.failing("unlink", errno.EIO, on=".keys/old"):
        await remove_all(spool)
    assert "multispool.left_behind" in [record.event for record in caplog.records]
    assert state_of(path).keys == {"old", "order"}
    for name in ("another", "last"):
        (await enqueue(spool, Use(name, HOUR))).unwrap()
        await remove_all(spool)
    assert state_of(path).keys == {"order", "another", "last"}


def held_open(directory: Path) -> int:
    """Count the descriptors of a directory that this process has."""
    found = 0
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found += os.readlink(f"/proc/self/fd/{fd}") == os.fspath(directory)
    return found


async def test_closing_lets_go_of_the_directory(path, wall):
    """Which is being gone over for as long as the spool is open."""
    spool = await quick_spool(path, now=wall)
    for number in range(20):
        (await enqueue(spool, Use(f"{number}", HOUR))).unwrap()
    await remove_all(spool)
    assert held_open(path / ".keys") > 1, "the layout has one"
    spool.close()
    assert held_open(path / ".keys") == 0


async def test_a_remembered_name_is_nothing_wrong(path, wall):
    """Nor what need not be remembered any more; but what is no name is."""
    from trio_multispool.monitor import Monitor

    spool = await quick_spool(path)
    for name in ("order", "old"):
        (await enqueue(spool, Use(name, HOUR))).unwrap()
    await remove_all(spool)
    os.utime(path / ".keys" / "old", (START, wall_clock() - 2 * 3600))
    (path / ".keys" / ".hidden").touch()
    assert [problem.name for problem in (await Monitor(spool).run_once()).unwrap()] == [".hidden"]


async def test_whether_a_name_is_remembered_too_long_is_told_by_the_clock_of_the_spool(path, wall):
    """By a clock that is far ahead of the machine's, its date is right. Once that is put back, the date is too late."""
    from trio_multispool.monitor import Monitor, UnreadableNotes

    wall.time += 30 * 86_400
    spool = await quick_spool(path, now=wall)
    (await enqueue(spool, Use("order", HOUR))).unwrap()
    await remove_all(spool)
    assert (path / ".keys" / "order").stat().st_mtime > wall_clock() + 2 * 86_400
    assert (await Monitor(spool).run_once()).unwrap() == []
    wall.time -= 2 * 365 * 86_400
    [problem] = (await Monitor(spool).run_once()).unwrap()
    assert isinstance(problem, UnreadableNotes)
    assert (problem.name, "further ahead than was asked for" in problem.reason) == ("order", True)

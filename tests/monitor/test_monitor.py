"""A monitor says exactly what is wrong: on a spool at rest, and on one that is worked on at full speed."""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from helpers.calls import FailingCalls
from helpers.company import company
from helpers.damage import DAMAGE, LONG_AGO, OUT, QUEUE
from helpers.gates import breathe
from helpers.inside import storage_of
from helpers.spools import ANNE, Mail, load_spool, make_spool, put, quick_spool, snapshot
from helpers.stores import claim, enqueue, make_store, sweep
from trio_multispool import AccessDenied, Err, Ok, Spool, Spoolable, SpoolGone, SpoolReplaced, Use
from trio_multispool.clock import wall_clock
from trio_multispool.monitor import (
    Abandoned,
    Dir,
    Kind,
    Limits,
    MissingData,
    Monitor,
    Orphaned,
    TooOld,
    Undecodable,
    UnreadableNotes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIMITS = Limits(max_queue_ages={Mail.FAILED: 3600})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Name a spool that does not exist."""
    return tmp_path / "spool"


async def found(spool: Spool[Any, Any, Any, Any], limits: Limits = LIMITS, **options: Any) -> list[Any]:
    """Look once."""
    return (await Monitor(spool, limits, **options).run_once()).unwrap()


@pytest.mark.anyio
@pytest.mark.parametrize("kind", DAMAGE)
async def test_each_damage_is_exactly_what_is_reported(path, kind):
    """Nothing before, that and only that afterwards, the same twice; and looking changes nothing."""
    plant, expected = DAMAGE[kind]
    async with await quick_spool(path) as spool:
        await put(spool, Mail.SEND, "other")
        await put(spool, Mail.FAILED, "a", "b")
        assert await found(spool) == []
        plant(path, "a")
        before = snapshot(path)
        assert await found(spool) == expected("a")
        assert await found(spool) == expected("a")
        assert snapshot(path) == before


async def test_all_damages_at_once_are_all_reported(path):
    """Each on an entry of its own: one does not hide another."""
    wanted = []
    async with await quick_spool(path) as spool:
        for number, (plant, expected) in enumerate(DAMAGE.values()):
            name = f"{number:02}"
            await put(spool, Mail.FAILED, name)
            with contextlib.suppress(FileExistsError):
                plant(path, name)
            wanted += [problem for problem in expected(name) if problem.name != "stray"]
        wanted += [Orphaned("stray", Dir(kind)) for kind in (Kind.DATA, Kind.REGISTRY, Kind.NOTES)]
        assert sorted(map(repr, map(_ageless, await found(spool)))) == sorted(map(repr, map(_ageless, wanted)))


def _ageless(problem: Any) -> tuple[object, ...]:
    return problem._identity()


async def test_what_the_living_have_is_no_problem(path):
    """A check-out, a reservation, an enqueue half-way, a name that is reserved and whose data is written."""
    async with await quick_spool(path) as spool:
        await put(spool, Mail.SEND, "checked-out")
        job = (await spool.entry(Mail.SEND, "checked-out").unwrap().checkout()).unwrap()
        async with job, (await spool.reserve_name()).unwrap() as reserved:
            (path / ".data" / reserved.name).touch()
            (path / ".tmp" / reserved.name).touch()
            (path / ".data" / "checked-out").unlink()
            assert await found(spool) == []
            (path / ".data" / "checked-out").touch()
        assert await found(spool, Limits(max_tmp_file_age=None)) == []


async def test_what_lies_beside_an_entry_in_somebodys_hands_is_read(path):
    """It was written before the entry appeared, so it is not just being written."""
    async with await quick_spool(path) as spool:
        await put(spool, Mail.SEND, "a")
        for directory in (".notes", ".keys"):
            (path / directory).mkdir()
            (path / directory / "a").write_bytes(b"{")
        async with (await spool.entry(Mail.SEND, "a").unwrap().checkout()).unwrap():
            wanted = [UnreadableNotes("a", Dir(Kind.NOTES)), UnreadableNotes("a", Dir(Kind.REMEMBERED))]
            assert await found(spool) == wanted


DAY = 86_400.0
REMEMBERED = Dir(Kind.REMEMBERED)


async def remove_remembered(spool: Spool[Any, Any, Any, Any], *, gone: str, there: str) -> None:
    """Enqueue two entries whose names are to be remembered for a day, and remove the first."""
    for name in (gone, there):
        (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(name, remember=DAY))).unwrap()
    async with (await spool.entry(Mail.SEND, gone).unwrap().checkout()).unwrap() as job:
        (await job.remove()).unwrap()


@pytest.mark.parametrize("year", [1970, 2099])
async def test_a_remembered_name_that_a_wrong_clock_has_dated_is_told_until_a_person_dates_it(path, year):
    """It is refused. The date does not matter while the entry is there: its removal sets it."""
    then = datetime.datetime(year, 1, 2, tzinfo=datetime.UTC).timestamp()
    async with await quick_spool(path, now=lambda: then) as spool:
        await remove_remembered(spool, gone="gone", there="there")
    os.utime(path / ".keys" / "there", (then, then))
    async with await load_spool(path) as spool:
        monitor = Monitor(spool)
        (problem,) = (await monitor.run_once()).unwrap()
        assert problem == UnreadableNotes("gone", REMEMBERED)
        assert f"it is dated {year}-01-03" in problem.message
        (await monitor.repair([problem], dry_run=False)).unwrap()
        assert await found(spool) == [problem]
        assert await spool.enqueue_if_absent(Mail.SEND, ANNE, b"", name=Use("gone")) == Ok(None)
        until = wall_clock() + DAY / 2
        os.utime(path / ".keys" / "gone", (until, until))
        assert await found(spool) == []


@pytest.mark.parametrize("what", ["all", "all, and changed later", "only the names"])
async def test_a_remembered_name_that_has_lost_its_time_in_a_copy_is_told(path, what):
    """Only that: names that have their entries lose nothing, and in the original nothing is wrong."""
    copy = path.with_name("copy")
    async with await quick_spool(path) as spool:
        await remove_remembered(spool, gone="gone", there="there")
        await anyio.run_process(["cp", "-r", path, copy])
        assert await found(spool) == []
    key = copy / ".keys" / "gone"
    at = key.stat().st_mtime
    if what == "only the names":  # the spool itself is older than the copy
        os.utime(copy / ".spool.json", (at - 2 * DAY, at - 2 * DAY))
    elif "later" in what:
        os.utime(key, (at - 10, at - 10))
    async with await load_spool(copy) as spool:
        (problem,) = await found(spool)
        assert problem == UnreadableNotes("gone", REMEMBERED)
        assert "a copy that does not keep times" in problem.message


@pytest.mark.parametrize("why", ["over, and changed later", "over in a copy", "half-made"])
async def test_a_remembered_name_whose_file_was_only_changed_later_is_no_problem(path, why):
    """Its removal may have set that time. Nor is one that is over, nor what an enqueue left that was killed."""
    async with await quick_spool(path) as spool:
        await remove_remembered(spool, gone="gone", there="there")
        key, now = path / ".keys" / "gone", wall_clock()
        if why == "over, and changed later":
            os.utime(path / ".spool.json", (now - 3 * DAY, now - 3 * DAY))
            os.utime(key, (now - DAY, now - DAY / 2))
        elif why == "over in a copy":
            os.utime(key, (now - DAY, now - 2 * DAY))
        else:
            key.write_bytes(key.read_bytes())
            assert await found(spool) == [UnreadableNotes("gone", REMEMBERED)]
            (path / ".tmp" / "gone").touch()
        assert await found(spool) == []


async def test_what_an_enqueue_is_writing_beside_its_entry_is_no_problem(path):
    """Half of a note, and half of a key, are not reported while the name is reserved and has no entry."""
    async with await quick_spool(path) as spool, (await spool.reserve_name()).unwrap() as reserved:
        for directory in (".notes", ".keys"):
            (path / directory).mkdir()
            (path / directory / reserved.name).write_bytes(b"{")
        assert await found(spool) == []


async def test_a_check_out_of_the_living_grows_too_old(path):
    """By the clock that the monitor is given: not before its limit, and only if there is one."""
    now = [0.0]
    async with await quick_spool(path) as spool:
        await put(spool, Mail.FAILED, "a")
        async with (await spool.entry(Mail.FAILED, "a").unwrap().checkout()).unwrap():
            now[0] = os.stat(path / "failed" / ".checkout" / "a").st_ctime + 599
            assert await found(spool, clock=lambda: now[0]) == []
            now[0] += 2
            [problem] = await found(spool, clock=lambda: now[0])
            assert problem == TooOld("a", OUT)
            assert problem.age == pytest.approx(601)
            assert await found(spool, Limits(max_checked_out_age=None), clock=lambda: now[0]) == []


async def test_an_entry_of_a_process_that_died_is_abandoned(path):
    """The kernel has dropped its lock; the age is that of the check-out."""
    store = make_store(path)
    enqueue(store, "failed", "a")
    os.utime(path / "failed" / "a", (LONG_AGO, LONG_AGO))
    claimed = claim(store, "failed", "a")
    async with await load_spool(path) as spool:
        assert await found(spool) == []
        claimed.abandon()
        [problem] = await found(spool)
        assert problem == Abandoned("a", OUT)
        assert 0 <= problem.age < 600
    store.close()


async def test_what_the_store_has_forgotten_on_purpose_is_no_problem(path):
    """Every operation, done: nothing is left over that a monitor would name."""
    from helpers.stores import OPERATIONS

    for number, (prepare, perform) in enumerate(OPERATIONS.values()):
        store = make_store(path)
        prepared = prepare(store, f"{number}")
        performed = perform(store, f"{number}", prepared)
        for held in (prepared, performed):
            if hasattr(held, "abandon"):
                held.abandon()
        store.recover()
        sweep(store)
        store.close()
    async with await load_spool(path) as spool:
        assert await found(spool, Limits()) == [], "only what was recovered above had nobody"


async def test_queues_that_the_program_does_not_know_are_looked_at(path):
    """By all rules but the one that needs its codec; notes and quarantine may be absent."""
    store = make_store(path, queues=("send", "retry", "failed", "older"))
    enqueue(store, "older", "a", b"no json")
    enqueue(store, "older", "b")
    store.close()
    (path / ".data" / "b").unlink()
    async with await load_spool(path) as spool:
        assert await found(spool) == [MissingData("b", Dir(Kind.QUEUE, "older"))]
        os.utime(path / "older" / "a", (LONG_AGO, LONG_AGO))
        assert TooOld("a", Dir(Kind.QUEUE, "older")) in await found(spool, Limits(max_queue_ages={"older": 1}))


async def test_metadata_as_bytes_is_always_decodable(path):
    """A spool whose metadata is bytes has nothing to judge, and reads none of it."""
    calls = FailingCalls()
    spoolable = Spoolable(queues=Mail, metadata=bytes, data=bytes)
    async with await quick_spool(path, spoolable, system_calls=calls) as spool:
        (await spool.enqueue(Mail.SEND, b"{", b"")).unwrap()
        calls.made.clear()
        assert await found(spool) == []
        assert [made for made in calls.made if made[0] == "read" and "/send/" in made[1]] == []


async def test_a_spool_that_is_not_adopted_has_no_dead(path):
    """Nothing is abandoned there, and what was touched a moment ago may be in the hands of those who take no locks."""
    async with await quick_spool(path) as spool:
        await put(spool, Mail.FAILED, "a", "b")
        (path / ".data" / "b").unlink()
        DAMAGE["abandoned"][0](path, "a")
    (path / ".spool.json").unlink()
    async with await load_spool(path) as spool:
        assert await found(spool) == []
        later = os.stat(path / "failed" / ".checkout" / "a").st_ctime + 601
        assert await found(spool, clock=lambda: later) == [TooOld("a", OUT), MissingData("b", QUEUE)]


@pytest.mark.anyio
async def test_a_spool_that_cannot_be_looked_at_is_an_err(path):
    """The trouble is told; nothing is taken for sound, or for damage."""
    calls = FailingCalls()
    async with await quick_spool(path, system_calls=calls) as spool:
        await put(spool, Mail.SEND, "a")
        (path / ".data" / "a").unlink()
        for call in ("stat", "open"):
            with calls.failing(call, errno.EACCES, "spool/"):
                answer = await Monitor(spool).run_once()
            assert isinstance(answer, Err)
            assert isinstance(answer.error, AccessDenied)
        assert isinstance(await Monitor(spool).run_once(), Ok)


async def test_a_spool_that_was_removed_is_not_taken_for_a_sound_one(path):
    """Its directories are still held open, and look empty; another spool in its place is another spool."""
    async with await quick_spool(path) as spool:
        await put(spool, Mail.FAILED, "a")
        assert await found(spool) == []
        path.rename(path.with_name("elsewhere"))
        for error in (SpoolGone, SpoolReplaced):
            assert await Monitor(spool).run_once() == Err(error(str(path)))
            make_store(path).close()


@pytest.mark.anyio
async def test_a_check_of_very_many_sound_entries_can_be_cancelled_before_its_end(path):
    """Whoever gives up need not wait until all 6,000 names are read: the first thousand are."""
    async with await quick_spool(path) as spool:
        for number in range(2000):
            for directory in ("failed", ".registry", ".data"):
                (path / directory / f"{number:05}").touch()
        read: list[str] = []
        storage = storage_of(spool)
        examine = storage.examine
        token = anyio.lowlevel.current_token()
        with anyio.CancelScope() as scope:

            async def cancel_and_breathe() -> None:
                scope.cancel()
                for _ in range(5):  # its task is told
                    await breathe()

            def and_cancel(*arguments: Any) -> Iterator[Any]:
                for finding in examine(*arguments):
                    read.append("more")
                    if finding is None and len(read) == 1:
                        anyio.from_thread.run(cancel_and_breathe, token=token)
                    yield finding

            storage.examine = and_cancel
            await Monitor(spool).run_once()
        assert scope.cancelled_caught
        assert read == ["more"]


@pytest.mark.anyio
async def test_a_check_that_is_cancelled_has_changed_nothing(path):
    """Before it starts, and while it waits for what may be newborn."""
    async with await quick_spool(path) as spool:
        (path / ".registry" / "stray").touch()
        before = snapshot(path)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await found(spool)
        assert scope.cancelled_caught
        with anyio.move_on_after(0.05) as scope:
            await found(spool)
        assert scope.cancelled_caught
        assert snapshot(path) == before
        assert await found(spool) == [Orphaned("stray", Dir(Kind.REGISTRY))]


async def test_a_reservation_that_is_being_made_is_looked_at_again(path, autojump_clock):
    """Its maker may not have come to lock it yet: what he has locked half a second later is no orphan."""
    async with await quick_spool(path) as spool:
        store, locks = make_store(path), []
        (path / ".registry" / "newborn").touch()
        (path / ".registry" / "stray").touch()
        real = storage_of(spool).look_closely

        def and_then_lock_it(name: str, judge: Any) -> Any:
            traces = real(name, judge)
            if name == "newborn" and not locks:
                locks.append(store.reserve("newborn"))
            return traces

        storage_of(spool).look_closely = and_then_lock_it
        assert await found(spool) == [Orphaned("stray", Dir(Kind.REGISTRY))]
        assert locks
        locks[0].abandon()
        store.close()


async def test_what_moves_without_a_lock_shows_and_is_not_reported(path):
    """`claims_unsafe` and `direct` need no lock: two looks that differ say that somebody is at work."""
    from trio_multispool.storage.directory import examine as examining
    from trio_multispool.storage.findings import Holder

    store = make_store(path)
    enqueue(store, "failed", "a")
    (path / ".data" / "a").unlink()
    names = iter(["failed/.checkout", "failed"])
    real, looks = examining._findings, []

    def moving(context: Any, name: str, *rest: Any) -> Any:
        looks.append(real(context, name, *rest))
        os.rename(path / ("failed" if len(looks) % 2 else "failed/.checkout") / name, path / next(names) / name)
        return looks[-1]

    examining._findings = moving
    try:
        assert store.look_closely("a", lambda _queue, _raw: None).holder is Holder.SOMEBODY
    finally:
        examining._findings = real
        store.close()
    assert len(looks) == 2


async def test_later_checks_of_a_watch_read_only_metadata_that_is_new(path):
    """And what could not be decoded the last time: it is still a problem, and ends when it is mended."""
    calls = FailingCalls()
    async with await quick_spool(path, system_calls=calls) as spool:
        await put(spool, Mail.FAILED, "a", "b")
        (path / "failed" / "a").write_text("{")
        late = os.stat(path / "failed" / "a").st_ctime + 60
        monitor = Monitor(spool, clock=lambda: late)
        first = (await monitor._look(None)).unwrap()
        assert first == [Undecodable("a", QUEUE)]
        from trio_multispool.monitor.examiner import Past

        calls.made.clear()
        assert (await monitor._look(Past(late, tuple(first)))).unwrap() == first
        assert {os.path.basename(made[1]) for made in calls.made if made[0] == "read"} == {"a"}
        calls.made.clear()
        assert (await monitor._look(Past(late + 60, ()))).unwrap() == first, "the clock was set back: all is read"


async def test_later_checks_of_a_watch_read_beside_entries_only_what_is_new(path):
    """And what could not be read the last time: it is still a problem, and ends when it can be."""
    calls = FailingCalls()
    async with await quick_spool(path, system_calls=calls) as spool:
        await put(spool, Mail.SEND, "a", "b")
        (path / ".notes").mkdir()
        (path / ".notes" / "a").write_bytes(b"{")
        (path / ".notes" / "b").write_bytes(b"{}")
        late = os.stat(path / ".notes" / "b").st_ctime + 60
        monitor = Monitor(spool, clock=lambda: late)
        first = (await monitor._look(None)).unwrap()
        assert first == [UnreadableNotes("a", Dir(Kind.NOTES))]
        from trio_multispool.monitor.examiner import Past

        calls.made.clear()
        assert (await monitor._look(Past(late, tuple(first)))).unwrap() == first
        read = {made[1] for made in calls.made if made[0] == "read" and ".notes" in made[1]}
        assert read == {os.fspath(path / ".notes" / "a")}
        (path / ".notes" / "a").write_bytes(b"{}")
        assert (await monitor._look(Past(late, tuple(first)))).unwrap() == []


# Beside the living


def test_fifty_checks_beside_producers_and_workers_report_nothing_and_then_each_damage_exactly(path):
    """No entry in motion is ever reported, and none hides what is planted among them."""
    import trio

    counts: list[int] = []

    async def look() -> None:
        async with await quick_spool(path) as spool:
            await put(spool, Mail.FAILED, *DAMAGE)
            with company(path, counts):
                suspects = _counting(spool)
                for _ in range(50):
                    assert await found(spool, Limits()) == []
                assert suspects, "there was nothing that moved"
                planted: list[Any] = []
                for kind, (plant, expected) in DAMAGE.items():
                    if kind in ("waiting too long", "a directory among temporary files"):
                        continue
                    if kind.startswith("old temporary"):  # a reader of the company may collect it before it is found
                        continue
                    plant(path, kind)
                    planted += expected(kind)
                problems = await found(spool, Limits())
                assert {problem._identity() for problem in problems} == {problem._identity() for problem in planted}
                assert len(problems) == len(planted)

    trio.run(look)
    assert min(counts) > 0, counts


def _counting(spool: Any) -> list[str]:
    storage, names = storage_of(spool), []
    closely = storage.look_closely

    def look_closely(name: str, judge: Any) -> Any:
        names.append(name)
        return closely(name, judge)

    storage.look_closely = look_closely
    return names


async def test_handles_show_what_they_look_at(path):
    """A monitor's `repr` helps in a log."""
    async with await make_spool(path) as spool:
        assert repr(Monitor(spool)) == f"<Monitor of {path}>"
        assert repr(Monitor(spool).watch()) == "<Watching every 15s, 0 problems>"

"""Repairs mend what can be mended without losing data: planned first, killed anywhere, beside the living."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from helpers.calls import FailingCalls
from helpers.children import Child
from helpers.company import company
from helpers.damage import DAMAGE, OUT, QUEUE, REGISTRY, TEMPORARY
from helpers.inside import storage_of
from helpers.listening import Listening
from helpers.proofs import thinned
from helpers.spools import Mail, State, contents, load_spool, names_in, put, quick_spool, snapshot, state_of
from helpers.stores import claim, make_store
from trio_multispool.instrumentation import Quarantined, Returned
from trio_multispool.monitor import (
    Abandoned,
    Action,
    ForeignFile,
    Limits,
    MissingData,
    MissingReservation,
    Monitor,
    Orphaned,
    TooOld,
    Undecodable,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trio_multispool.model.lifecycle import Place

LIMITS = Limits(max_queue_ages={Mail.FAILED: 3600})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Name a spool that does not exist."""
    return tmp_path / "spool"


def _set_aside(state: State, reason: str) -> None:
    assert list(state.quarantined["failed"]) == ["a"]
    assert reason in state.reasons["a"]
    assert "a" in state.registry


def _back(state: State) -> None:
    assert state.places("a") == ["failed"]
    assert state.faults() == []


MENDED: dict[str, tuple[Action, Callable[[State], None]]] = {
    "abandoned": (Action.RETURN, _back),
    "data is gone": (Action.QUARANTINE, lambda state: _set_aside(state, "has lost its data")),
    "reservation is gone": (Action.RESERVE, _back),
    "metadata is garbage": (Action.QUARANTINE, lambda state: _set_aside(state, "cannot be decoded")),
    "metadata is empty": (Action.QUARANTINE, lambda state: _set_aside(state, "cannot be decoded")),
    "checked out as well": (Action.COLLECT, _back),
    "stray data": (Action.COLLECT, _back),
    "stray reservation": (Action.COLLECT, _back),
    "stray note": (Action.COLLECT, _back),
    "old temporary metadata": (Action.COLLECT, _back),
    "old temporary data": (Action.COLLECT, _back),
    "old temporary notes": (Action.COLLECT, _back),
}
"""What can be repaired, how, and what there is afterwards."""


async def repaired(spool: Any, problems: Any, *, dry_run: bool = False) -> list[Any]:
    """Repair."""
    return (await Monitor(spool, LIMITS).repair(problems, dry_run=dry_run)).unwrap()


async def found(spool: Any) -> list[Any]:
    """Look once."""
    return (await Monitor(spool, LIMITS).run_once()).unwrap()


@pytest.mark.anyio
@pytest.mark.parametrize("kind", DAMAGE)
async def test_a_repair_does_what_its_plan_says_or_leaves_it(path, kind):
    """The plan changes nothing; the deed leaves a sound spool, or everything as it was; the second does nothing."""
    plant, expected = DAMAGE[kind]
    async with await quick_spool(path) as spool:
        await put(spool, Mail.FAILED, "a", "b")
        plant(path, "a")
        problems = await found(spool)
        assert problems == expected("a")
        before = snapshot(path)
        [planned] = await repaired(spool, problems, dry_run=True)
        assert snapshot(path) == before
        assert (planned.problem, planned.done, planned.why) == (problems[0], False, problems[0].remedy)
        assert planned == (await Monitor(spool).repair(problems)).unwrap()[0], "by default, nothing is done"
        [repair] = await repaired(spool, problems)
        if kind in MENDED:
            action, check = MENDED[kind]
            assert (planned.action, repair.action, repair.done) == (action, action, True)
            check(state_of(path))
            assert await found(spool) == []
            [again] = await repaired(spool, problems)
            assert (again.action, again.done) == (Action.LEAVE, False)
            assert "no longer so" in again.why
        else:
            assert (planned.action, repair.action, repair.done) == (Action.LEAVE, Action.LEAVE, False)
            assert repair.why.startswith("it is left: ")
            assert snapshot(path) == before
        assert "b" in await names_in(spool, Mail.FAILED)


async def test_an_abandoned_entry_without_data_is_set_aside(path):
    """It goes back first, and then to the quarantine, with its metadata as it was."""
    async with await quick_spool(path) as spool:
        await put(spool, Mail.FAILED, "a")
        metadata = (path / "failed" / "a").read_bytes()
        DAMAGE["abandoned"][0](path, "a")
        (path / ".data" / "a").unlink()
        problems = await found(spool)
        assert problems == [MissingData("a", OUT), Abandoned("a", OUT)]
        assert [repair.done for repair in await repaired(spool, problems)] == [True, False]
        assert state_of(path).quarantined["failed"] == {"a": metadata}
        assert await found(spool) == []


async def test_a_check_out_that_lost_its_reservation_is_reserved_and_then_put_back(path):
    """Two steps, each of them safe: only a lock says that nobody has it."""
    async with await quick_spool(path) as spool:
        await put(spool, Mail.FAILED, "a")
        DAMAGE["abandoned"][0](path, "a")
        (path / ".registry" / "a").unlink()
        for expected in (MissingReservation("a", OUT), Abandoned("a", OUT)):
            problems = await found(spool)
            assert problems == [expected]
            assert [repair.done for repair in await repaired(spool, problems)] == [True]
        _back(state_of(path))


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("abandoned", [("Returned", "failed", "a")]),
        ("metadata is garbage", [("Quarantined", "failed", "a")]),
        ("stray data", [("Returned", None, "stray")]),
        ("reservation is gone", []),
        ("a file at the top", None),
    ],
)
async def test_a_repair_is_logged_and_hooks_are_told_what_it_was_to_the_entry(path, caplog, kind, told):
    """As of a recovery, and of a reader that sets an entry aside. What was left is not said."""
    caplog.set_level("INFO", "trio_multispool")
    heard = Listening()
    async with await quick_spool(path, instrumentation=heard) as spool:
        await put(spool, Mail.FAILED, "a")
        DAMAGE[kind][0](path, "a")
        [problem] = await found(spool)
        await repaired(spool, [problem])
        await repaired(spool, [problem])
    events = [(type(each).__name__, each.queue, each.entry) for each in heard.take(Returned, Quarantined)]
    assert events == (told or [])
    records = [record for record in caplog.records if getattr(record, "event", "") == "multispool.repaired"]
    said = [(record.entry, record.error, record.getMessage().startswith(problem.message)) for record in records]
    assert said == ([] if told is None else [(problem.name, problem.message, True)])


async def test_what_the_living_have_is_left(path):
    """Also if it was reported before somebody took it: it is looked at again, and nothing is touched."""
    async with await quick_spool(path) as spool:
        await put(spool, Mail.FAILED, "a")
        async with (await spool.entry(Mail.FAILED, "a").unwrap().checkout()).unwrap():
            (path / ".data" / "a").unlink()
            before = snapshot(path)
            problems = [
                Abandoned("a", OUT),
                MissingData("a", OUT),
                Undecodable("a", QUEUE),
                MissingReservation("a", OUT),
            ]
            for repair in await repaired(spool, problems):
                assert (repair.action, repair.done) == (Action.LEAVE, False)
            assert snapshot(path) == before


async def test_a_reservation_of_what_is_no_entry_is_left_and_nobody_is_blamed(path):
    """Nobody is at work on it: the answer says what is in the way, and when that is gone it is repaired."""
    async with await quick_spool(path) as spool:
        (path / "failed" / "a").mkdir()
        (path / ".registry" / "a").touch()
        foreign, orphaned = await found(spool)
        assert (foreign, orphaned) == (ForeignFile("a", QUEUE, "a directory"), Orphaned("a", REGISTRY))
        [repair] = await repaired(spool, [orphaned])
        assert (repair.action, repair.done) == (Action.LEAVE, False)
        assert repair.why.startswith("it is left: something that is no file has its name in a queue")
        (path / "failed" / "a").rmdir()
        [repair] = await repaired(spool, [orphaned])
        assert repair.done
        assert await found(spool) == []


async def test_what_was_mended_meanwhile_is_left(path):
    """Metadata that can be decoded again, data that is back, and a name that is an entry now."""
    async with await quick_spool(path) as spool:
        await put(spool, Mail.FAILED, "a")
        before = contents(path)
        problems = [problem for kind in MENDED for problem in DAMAGE[kind][1]("a")]
        assert not any(repair.done for repair in await repaired(spool, problems))
        assert contents(path) == before


async def test_an_entry_that_is_taken_between_the_look_and_the_deed_is_left(path):
    """Whoever takes it then has it: the repair gives way, and says so."""
    async with await quick_spool(path) as spool:
        await put(spool, Mail.FAILED, "a")
        (path / ".data" / "a").unlink()
        storage, other = storage_of(spool), make_store(path)
        real, taken = storage.claim, []

        def too_late(place: Place, name: str, **rest: Any) -> Any:
            taken.append(claim(other, place.queue, name))
            return real(place, name, **rest)

        storage.claim = too_late
        [repair] = await repaired(spool, [MissingData("a", QUEUE)])
        assert (repair.action, repair.done) == (Action.LEAVE, False)
        assert state_of(path).places("a") == ["failed/.checkout"]
        taken[0].abandon()
        other.close()


async def test_an_entry_that_is_mended_between_the_look_and_the_deed_is_put_back(path):
    """Only what is faulty once it is checked out is set aside."""
    async with await quick_spool(path) as spool:
        await put(spool, Mail.FAILED, "a")
        (path / ".data" / "a").unlink()
        storage = storage_of(spool)
        real = storage.claim

        def in_time(place: Place, name: str, **rest: Any) -> Any:
            (path / ".data" / name).touch()
            return real(place, name, **rest)

        storage.claim = in_time
        [repair] = await repaired(spool, [MissingData("a", QUEUE)])
        assert (repair.action, repair.done) == (Action.LEAVE, False)
        _back(state_of(path))


async def test_nothing_is_repaired_in_a_spool_that_is_not_adopted(path):
    """Others may be at work there without locks; every repair says so."""
    async with await quick_spool(path) as spool:
        await put(spool, Mail.FAILED, "a")
        (path / ".data" / "stray").touch()
        DAMAGE["abandoned"][0](path, "a")
    (path / ".spool.json").unlink()
    async with await load_spool(path) as spool:
        before = snapshot(path)
        problems = [problem for kind in MENDED for problem in DAMAGE[kind][1]("a")]
        for repair in await repaired(spool, problems):
            assert (repair.action, repair.done) == (Action.LEAVE, False)
            assert "not adopted" in repair.why
        assert snapshot(path) == before


async def test_a_repair_that_fails_is_left_with_the_reason_and_others_go_on(path):
    """A disk that refuses one entry does not keep the next from being repaired."""
    import errno

    calls = FailingCalls()
    async with await quick_spool(path, system_calls=calls) as spool:
        await put(spool, Mail.FAILED, "a", "b")
        for name in "ab":
            DAMAGE["abandoned"][0](path, name)
        problems = await found(spool)
        with calls.failing("move", errno.EIO, "/a"):
            first, second = await repaired(spool, problems)
        assert (first.action, first.done, second.done) == (Action.LEAVE, False, True)
        assert "could not move" in first.why
        assert [repair.done for repair in await repaired(spool, await found(spool))] == [True]
        assert state_of(path).faults() == []


@pytest.mark.anyio
async def test_a_repair_that_is_cancelled_before_it_starts_does_nothing(path):
    """What was done before stays done."""
    async with await quick_spool(path) as spool:
        await put(spool, Mail.FAILED, "a", "b")
        for name in "ab":
            DAMAGE["abandoned"][0](path, name)
        problems = await found(spool)
        before = snapshot(path)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await repaired(spool, problems)
        assert scope.cancelled_caught
        assert snapshot(path) == before
        storage = storage_of(spool)
        real, token = storage.recover_name, anyio.lowlevel.current_token()

        def and_cancel(name: str) -> Any:
            anyio.from_thread.run_sync(scope.cancel, token=token)
            return real(name)

        storage.recover_name = and_cancel
        with anyio.CancelScope() as scope:
            await repaired(spool, problems)
        assert scope.cancelled_caught
        assert await names_in(spool, Mail.FAILED) == ["a"]
        assert state_of(path).places("b") == ["failed/.checkout"]


# Killed half-way


def _killed_repairs(parent, base, kind) -> None:
    import functools
    import os
    from pathlib import Path

    from helpers.calls import WithoutSyncs
    from helpers.damage import DAMAGE
    from helpers.forks import in_a_fork
    from helpers.stores import QUEUES, enqueue, make_store
    from helpers.syscalls import KillingAndTelling
    from trio_multispool import Durability
    from trio_multispool.clock import wall_clock
    from trio_multispool.monitor import Limits
    from trio_multispool.monitor.examiner import Examiner
    from trio_multispool.monitor.repairs import repair
    from trio_multispool.storage.directory.store import DirectoryStorage

    plant, expected = DAMAGE[kind]
    judge = lambda _queue, raw: None if raw.endswith(b"}") else "it is torn"  # noqa: E731

    def die_repairing(path: Path, n: int, pipe: int) -> None:
        calls = KillingAndTelling(pipe)
        storage = DirectoryStorage.open_unsafe(path, calls=calls, durability=Durability.PROCESS)
        examiner = Examiner(storage, Limits().ages(), frozenset(QUEUES), judge, wall_clock)
        calls.arm(n)
        repair(examiner, expected("a")[0], (), lambda: None)
        os._exit(0)

    survived, n = False, 0
    while not survived:
        n += 1
        path = Path(base, f"{n:03}", "spool")
        store = make_store(path, calls=WithoutSyncs())
        for name in "ab":
            enqueue(store, "failed", name)
        store.close()
        plant(path, "a")
        before, survived = in_a_fork(functools.partial(die_repairing, path, n))
        parent.say(before, os.fspath(path.relative_to(base)))


@pytest.mark.proof
@pytest.mark.parametrize("kind", thinned(MENDED, 8))
async def test_a_repair_may_be_killed_at_any_call_and_done_again(tmp_path, kind):
    """At every call: the entry and its neighbour are there, whole but for the damage, and the next repair ends it."""
    distinct: dict[str, tuple[str, Path]] = {}
    with Child(_killed_repairs, tmp_path, kind) as child:
        for before, relative in child:
            distinct.setdefault(repr(contents(tmp_path / relative)), (before, tmp_path / relative))
        child.end()
    assert len(distinct) >= 2, "it was killed before and after its effect"
    for before, path in distinct.values():
        state = state_of(path)
        assert len(state.places("a")) >= 1, before
        assert state.places("b") == ["failed"], before
        assert ("a" in state.data) is (kind != "data is gone"), before
        async with await quick_spool(path) as spool:
            while problems := await found(spool):
                done = [repair.done for repair in await repaired(spool, problems)]
                assert any(done), (before, problems)
            MENDED[kind][1](state_of(path))
            assert await names_in(spool, Mail.FAILED) == (["b"] if "a" in state_of(path).reasons else ["a", "b"])


# Beside the living


def test_repairs_beside_producers_and_workers_disturb_nobody(path):
    """While four producers and four workers are at it, each damage is repaired, and nothing else is touched."""
    import trio

    counts: list[int] = []

    async def mend() -> None:
        async with await quick_spool(path) as spool:
            await put(spool, Mail.FAILED, *MENDED, "untouched")
            with company(path, counts):
                for kind in MENDED:
                    DAMAGE[kind][0](path, kind)
                problems = await found(spool)
                temporary = {TooOld(name, TEMPORARY) for name in ("x", ".data.x", ".notes.x")}
                wanted = {problem for kind in MENDED for problem in DAMAGE[kind][1](kind)}
                assert set(problems) | temporary == wanted, "which any reader clears away by itself"
                for repair in await repaired(spool, problems):
                    assert repair.done or "no longer so" in repair.why, repair  # one repair collects all of a name
                assert await found(spool) == []
            set_aside = {kind for kind in MENDED if MENDED[kind][0] is Action.QUARANTINE}
            assert set(await names_in(spool, Mail.FAILED)) == {*MENDED, "untouched"} - set_aside

    trio.run(mend)
    assert min(counts) > 0, counts

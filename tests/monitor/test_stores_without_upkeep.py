"""A monitor of a store that needs no upkeep: what can be wrong there is found, and repaired like anywhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from helpers.inside import storage_of
from helpers.spools import ANNE, MAIL, Mail
from helpers.stores import claim, read_data
from trio_multispool import Spool, Spoolable
from trio_multispool.errors import DataNotFound
from trio_multispool.model.lifecycle import Place, State
from trio_multispool.monitor import (
    Abandoned,
    Action,
    Dir,
    Kind,
    Limits,
    MissingData,
    Monitor,
    Orphaned,
    Start,
    TooOld,
    Undecodable,
)
from trio_multispool.monitor.check import problems_of
from trio_multispool.storage.findings import Holder, of_entry
from trio_multispool.testing import Clock, memory_spool

if TYPE_CHECKING:
    from trio_multispool.monitor.problems import Problem

HOUR = 3600
LIMITS = Limits(max_queue_ages={Mail.SEND: HOUR})
QUEUE, OUT = Dir(Kind.QUEUE, "send"), Dir(Kind.CHECKOUT, "send")


@pytest.fixture
def clock() -> Clock:
    """Tell the time of a spool."""
    return Clock()


@pytest.fixture
def spool(clock: Clock) -> Spool[Any, Any, Any, Any]:
    """Make a spool in memory."""
    return memory_spool(MAIL, clock=clock)


async def put(spool: Spool[Any, Any, Any, Any], **options: Any) -> str:
    """Enqueue an entry, and return its name."""
    return (await spool.enqueue(Mail.SEND, ANNE, b"Hello", **options)).unwrap().name


async def found(spool: Spool[Any, Any, Any, Any]) -> list[Problem]:
    """Look once."""
    return (await Monitor(spool, LIMITS).run_once()).unwrap()


async def repaired(spool: Spool[Any, Any, Any, Any], problem: Problem) -> Action:
    """Repair a problem, which is gone then."""
    [repair] = (await Monitor(spool, LIMITS).repair([problem], dry_run=False)).unwrap()
    assert repair.done
    assert await found(spool) == []
    return repair.action


@pytest.mark.anyio
async def test_nothing_is_wrong_with_a_sound_spool(spool):
    """Not with what is available, waits, is in hand, set aside or remembered."""
    for number in range(3):
        await put(spool, not_before=number * HOUR)
    await put(spool)
    async with spool.reader(Mail.SEND) as reader:
        job = (await reader.dequeue()).unwrap()
        assert await found(spool) == []
        (await job.remove()).unwrap()
    storage_of(spool).quarantine(claim(storage_of(spool), "send", await put(spool)), "for no reason")
    assert await found(spool) == []


@pytest.mark.anyio
async def test_what_the_dead_had_is_abandoned_and_goes_back(spool):
    """Its owner let go of it without settling it."""
    name = await put(spool)
    claim(storage_of(spool), "send", name).abandon()
    assert await found(spool) == [Abandoned(name, OUT)]
    assert await repaired(spool, Abandoned(name, OUT)) is Action.RETURN
    assert [entry.name for entry in (await spool.entries(Mail.SEND)).unwrap()] == [name]


@pytest.mark.anyio
async def test_a_reservation_of_the_dead_is_an_orphan_and_is_deleted(spool, clock):
    """The name can be used again. What was just reserved is looked at twice; this is older."""
    storage_of(spool).reserve("a").abandon()
    clock.advance(1)
    [orphan] = await found(spool)
    assert orphan == Orphaned("a", Dir(Kind.REGISTRY))
    assert orphan.message == "the reservation of 'a' belongs to no entry"
    assert await repaired(spool, orphan) is Action.COLLECT
    storage_of(spool).reserve("a").abandon()


@pytest.mark.anyio
async def test_ages_are_told_by_the_clock_of_the_store(spool, clock):
    """What is available counts from when it was written, what waits from its due time, what is in hand from then."""
    available, due, held = await put(spool), await put(spool, not_before=HOUR), await put(spool)
    claimed = claim(storage_of(spool), "send", held)
    clock.advance(HOUR + 1)
    problems = await found(spool)
    assert problems == [TooOld(available, QUEUE), TooOld(held, OUT)]
    assert [problem.age for problem in problems] == pytest.approx([HOUR, HOUR], abs=60)
    clock.advance(HOUR)
    assert TooOld(due, Dir(Kind.WAITING, "send")) in await found(spool)
    [*_, left] = (await Monitor(spool, LIMITS).repair(problems, dry_run=False)).unwrap()
    assert (left.action, left.done) == (Action.LEAVE, False)
    claimed.abandon()


@pytest.mark.anyio
async def test_what_cannot_be_decoded_is_set_aside(spool):
    """With the reason."""
    newer: Spool[Any, Any, Any, Any] = memory_spool(Spoolable(queues=Mail, metadata=int, data=bytes), beside=spool)
    name = (await newer.enqueue(Mail.SEND, 5, b"")).unwrap().name
    [problem] = await found(spool)
    assert problem == Undecodable(name, QUEUE)
    assert await repaired(spool, problem) is Action.QUARANTINE
    assert problem.message in str(storage_of(spool).quarantine_reason(name))


@pytest.mark.anyio
async def test_what_has_lost_its_data_is_set_aside(spool, monkeypatch):
    """A store in memory cannot lose any: this one says that it has."""
    name, store = await put(spool), storage_of(spool)

    def lost(*_arguments: object, **_options: object) -> Any:
        raise DataNotFound(name)

    look_closely = type(store).look_closely

    def seen(self: Any, name: str, judge: Any) -> Any:
        whole = look_closely(self, name, judge)
        return type(whole)(name, tuple(file for file in whole.files if file.dir.kind is not Kind.DATA), whole.holder)

    monkeypatch.setattr(type(store), "look_closely", seen)
    monkeypatch.setattr(type(store), "stat_data", lost)
    [problem] = await found(spool)
    assert problem == MissingData(name, QUEUE)
    assert await repaired(spool, problem) is Action.QUARANTINE
    assert read_data(store, name) == b"Hello"


async def test_a_watch_tells_what_starts(spool, autojump_clock):
    """As for a directory."""
    name = await put(spool)
    claim(storage_of(spool), "send", name).abandon()
    async with Monitor(spool, LIMITS).watch() as events:
        assert await anext(events) == Start(Abandoned(name, OUT))


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("has_data", [True, False])
def test_an_entry_of_a_store_without_files_is_regular_if_it_has_its_data(state, has_data):
    """Of what is set aside, nobody needs them; of what waits, the time cannot be lost, even if it is this moment."""
    if state not in {State.AVAILABLE, State.WAITING, State.CHECKED_OUT, State.QUARANTINED}:
        return
    findings = of_entry(
        "a",
        Place("send", state),
        written_at=1.0,
        moved_at=2.0,
        due_at=2.0,
        has_data=has_data,
        fault=None,
        holder=Holder.SOMEBODY if state is State.CHECKED_OUT else Holder.NOBODY,
    )
    problems = problems_of(findings, LIMITS.ages(), 3.0)
    is_judged = not has_data and state in {State.AVAILABLE, State.WAITING}
    assert [type(problem) for problem in problems] == [MissingData] * is_judged

"""Entries on an interval or by a calendar: each tick once, whoever is killed, also of those that went by."""

from __future__ import annotations

import contextlib
import datetime
import errno
import functools
import itertools
import math
import random
import time
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from helpers.calls import FailingCalls
from helpers.children import Child, Parent, quick_directory
from helpers.gates import breathe
from helpers.inside import storage_of, threads_of
from helpers.spools import ANNE, START, Mail, closing_at_last, load_spool, quick_spool, state_of
from trio_multispool import Cron, Err, InvalidName, Missed, NameTaken, OutOfSpace, Use, every
from trio_multispool.model.ticks import EPOCH, IntervalTicks, back_from, due, name_of
from trio_multispool.spool import every as interval_module

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from trio.testing import MockClock

HOUR = datetime.timedelta(hours=1)
BEGIN = datetime.datetime.fromtimestamp(START, datetime.UTC)  # on the hour


class Times:
    """A wall clock that goes with Trio's, and can be put forward and back.

    Trio's own autojump would also jump while a worker thread is at work, for which a task waits.
    """

    def __init__(self, clock: MockClock) -> None:
        """Begin on the hour."""
        self._clock = clock
        self.spools: list[Any] = []
        self.offset = START - clock.current_time()

    def __call__(self) -> float:
        """Tell the time; in any thread."""
        return self._clock.current_time() + self.offset

    async def spool(self, path: Path, **options: Any) -> Any:
        """Open a spool that has this clock."""
        self.spools.append(await quick_spool(path, now=self, **options))
        return self.spools[-1]

    async def pass_when_idle(self) -> None:
        """Let time pass whenever nothing else happens."""
        while True:
            await wait_all_tasks_blocked()
            until_next = trio.lowlevel.current_statistics().seconds_to_next_deadline
            if any(threads_of(spool) for spool in self.spools):  # a thread is at work
                await breathe()
            elif 0 < until_next < math.inf:
                self._clock.jump(until_next)
            else:
                await breathe()


@pytest.fixture
async def now(mock_clock: MockClock, nursery: trio.Nursery) -> AsyncIterator[Times]:
    """Let time pass; close at the end what was opened by it: nothing is left open for hundreds of tests to come."""
    times = Times(mock_clock)
    nursery.start_soon(times.pass_when_idle)
    yield times
    for spool in times.spools:
        spool.close()


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Say where the spool is to be."""
    with quick_directory(tmp_path) as directory, closing_at_last():
        yield directory / "spool"


def make(tick: datetime.datetime) -> tuple[Any, bytes]:
    """Make an entry that tells its tick."""
    return ANNE, tick.isoformat().encode()


def ticks_in(path: Path, queue: str = "send") -> list[float]:
    """Return how many hours after the beginning the ticks of the entries are, in order."""
    state = state_of(path)
    found = [datetime.datetime.fromisoformat(state.data[name].decode()) for name in state.names(queue)]
    return [(tick - BEGIN) / HOUR for tick in found]


async def go_on_for(hours: float, spool: Any, make: Any = make, **options: Any) -> Any:
    """Make entries for so long; return what `every` answered, if it did."""
    with trio.move_on_after(hours * 3600):
        return await every(spool, Mail.SEND, **{"interval": HOUR, "make": make, "name": "digest", **options})
    return None


async def remove_all(spool: Any) -> None:
    """Work off what is there."""
    async with spool.reader(Mail.SEND) as reader:
        async for job in reader.available():
            async with job:
                (await job.remove()).unwrap()


# The times


def test_ticks_are_whole_intervals_apart_and_named_by_their_time():
    """Exactly, however many there were: no fraction adds up."""
    third = datetime.timedelta(seconds=1, microseconds=333_333)
    ticks = IntervalTicks("t", third, EPOCH)
    now = EPOCH + 10**9 * third
    assert ticks.latest(now) == now
    assert ticks.latest(now - datetime.timedelta(microseconds=1)) == now - third
    assert ticks.next_after(now) == now + third
    assert name_of("t", datetime.datetime(2027, 12, 31, 8, tzinfo=datetime.UTC)) == "t-20271231T080000Z"
    assert len({name_of("t", EPOCH + n * third) for n in range(1000)}) == 1000


def test_which_ticks_are_due():
    """Nothing before the start; all since the last, or the latest of them."""
    ticks = IntervalTicks("t", HOUR, BEGIN)
    assert ticks.latest(BEGIN - HOUR) is None
    assert due(ticks, None, BEGIN - HOUR, Missed.ALL) == []
    assert due(ticks, None, BEGIN, Missed.LATEST) == [BEGIN]
    assert due(ticks, BEGIN, BEGIN + HOUR / 2, Missed.ALL) == []
    assert due(ticks, BEGIN, BEGIN + 2.5 * HOUR, Missed.ALL) == [BEGIN + HOUR, BEGIN + 2 * HOUR]
    assert due(ticks, BEGIN, BEGIN + 2.5 * HOUR, Missed.LATEST) == [BEGIN + 2 * HOUR]
    assert due(ticks, BEGIN + HOUR, BEGIN, Missed.ALL) == [], "the clock was put back"
    assert list(back_from(ticks, BEGIN + 2.5 * HOUR, 2 * HOUR, most=9)) == [BEGIN + 2 * HOUR, BEGIN + HOUR]
    assert list(back_from(ticks, BEGIN + HOUR, 100 * HOUR, most=9)) == [BEGIN + HOUR, BEGIN]
    assert list(back_from(ticks, BEGIN - HOUR, HOUR, most=9)) == []


# Entries


@pytest.mark.sample
async def test_there_is_an_entry_for_each_tick_from_the_next_on(place, now, mock_clock):
    """Named after the schedule and the time in UTC, in that order; `make` may be async."""
    spool = await now.spool(place)
    now.offset += 600  # ten past

    async def make_slowly(tick: datetime.datetime) -> tuple[Any, bytes]:
        await trio.sleep(1)
        return make(tick)

    await go_on_for(3, spool, make_slowly)
    assert ticks_in(place) == [1, 2, 3]
    assert state_of(place).names("send")[0] == f"digest-{BEGIN + HOUR:%Y%m%dT%H%M%SZ}"
    assert state_of(place).faults() == []


async def test_the_first_tick_may_be_said(place, now, mock_clock):
    """In any time zone; nothing comes before it."""
    spool = await now.spool(place)
    zone = datetime.timezone(datetime.timedelta(hours=5, minutes=30))
    start = (BEGIN + 2.25 * HOUR).astimezone(zone)
    await go_on_for(4, spool, start=start)
    assert ticks_in(place) == [2.25, 3.25]


async def test_of_many_processes_one_makes_the_entries(path, now, mock_clock, monkeypatch):
    """The others stand by; `make` is called once for each tick."""
    monkeypatch.setattr(interval_module, "STANDING_BY", 300.0)  # thousands of looks, otherwise
    calls: list[datetime.datetime] = []

    def counting(tick: datetime.datetime) -> tuple[Any, bytes]:
        calls.append(tick)
        return make(tick)

    spools = [await now.spool(path) for _ in range(3)]
    with trio.move_on_after(3 * 3600 + 60):
        async with trio.open_nursery() as nursery:
            for spool in spools:
                nursery.start_soon(functools.partial(every, spool, Mail.SEND, HOUR, counting, name="digest"))
    assert ticks_in(path) == [1, 2, 3]
    assert len(calls) == 3


async def test_two_schedules_do_not_meet(place, now, mock_clock):
    """Each has its name."""
    spool = await now.spool(place)
    with trio.move_on_after(2 * 3600 + 60):
        async with trio.open_nursery() as nursery:
            for name in ("a", "b"):
                nursery.start_soon(functools.partial(every, spool, Mail.SEND, HOUR, make, name=name))
    assert ticks_in(place) == [1, 2, 1, 2]


# What went by


@pytest.mark.parametrize(("missed", "made_up_for"), [(Missed.ALL, [2, 3, 4]), (Missed.LATEST, [4]), (Missed.NONE, [])])
async def test_what_went_by_while_nothing_ran_is_made_up_for_as_asked(path, now, mock_clock, missed, made_up_for):
    """It is known from the entries, or from the memory of them when they have been worked off."""
    for worked_off, began in ((False, 0), (True, 6)):
        where = path.with_name(f"{worked_off}")
        spool = await now.spool(where)
        await go_on_for(1.25, spool, missed=missed)
        assert ticks_in(where) == [began + 1]
        if worked_off:
            await remove_all(spool)
        await trio.sleep(3600 * 3)
        await go_on_for(1, spool, missed=missed)
        assert ticks_in(where) == [*([] if worked_off else [1]), *(began + tick for tick in made_up_for), began + 5]
        await trio.sleep(3600 * 0.75)


@pytest.mark.parametrize("missed", [Missed.ALL, Missed.LATEST])
async def test_the_very_first_tick_is_not_missed_either(place, now, mock_clock, missed):
    """Though who stood ready for it was killed before, and there is no entry that says so."""
    spool = await now.spool(place)
    now.offset += 600
    await go_on_for(0.5, spool, missed=missed)
    assert ticks_in(place) == []
    await trio.sleep(3600 * 0.5)
    await go_on_for(0.1, spool, missed=missed)
    assert ticks_in(place) == [1]


async def test_who_stood_by_misses_nothing(place, now, mock_clock):
    """A program did run: what came while the one was gone and the other had not noticed is made."""
    spool, other = await now.spool(place), await now.spool(place)
    scope = trio.CancelScope()
    with trio.move_on_after(3600 * 2.5):
        async with trio.open_nursery() as nursery:

            async def first() -> None:
                with scope:
                    await every(spool, Mail.SEND, HOUR, make, name="digest", missed=Missed.NONE)

            async def then() -> None:
                await trio.sleep(60)
                await every(other, Mail.SEND, HOUR, make, name="digest", missed=Missed.NONE)

            nursery.start_soon(first)
            nursery.start_soon(then)
            await trio.sleep(3600 - 1)
            scope.cancel()
            now.offset += 3  # the tick goes by before the other looks again
    assert ticks_in(place) == [1, 2]


async def test_after_a_longer_pause_than_is_remembered_it_begins_anew(place, now, mock_clock):
    """With the next tick, and not with all that there ever were."""
    spool = await now.spool(place)
    await go_on_for(1.25, spool, missed=Missed.ALL, memory=6 * HOUR)
    await remove_all(spool)
    await trio.sleep(3600 * 10)
    await go_on_for(1, spool, missed=Missed.ALL, memory=6 * HOUR)
    assert ticks_in(place) == [12]


async def test_two_intervals_are_remembered_at_least(place, now, mock_clock):
    """Else a schedule would forget its last tick before the next."""
    spool = await now.spool(place)
    await go_on_for(1.25, spool, memory=0)
    await remove_all(spool)
    await trio.sleep(3600)
    await go_on_for(0.1, spool, memory=0)
    assert ticks_in(place) == [2]


async def test_no_more_ticks_are_looked_for_than_anybody_would_wait_for(path, now, mock_clock, monkeypatch):
    """A second's interval, remembered for ever."""
    most = 100
    monkeypatch.setattr(interval_module, "MOST_LOOKED_AT", most)
    spool = await now.spool(path)
    looked: list[str] = []
    storage = storage_of(spool)
    reserve = storage.reserve
    storage.reserve = lambda name, **how: looked.append(name) or reserve(name, **how)
    with trio.move_on_after(0.5):
        await every(spool, Mail.SEND, 1, make, name="t", memory=10**9)
    assert most <= len(looked) < most + 10


# Clocks


async def test_a_clock_that_is_put_forward_is_followed(place, now, mock_clock):
    """Within seconds; what it passes over is made up for as asked."""
    spool = await now.spool(place)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(functools.partial(every, spool, Mail.SEND, HOUR, make, name="digest", missed=Missed.ALL))
        await trio.sleep(60)
        now.offset += 2.5 * 3600
        await trio.sleep(30)
        nursery.cancel_scope.cancel()
    assert ticks_in(place) == [1, 2]


async def test_a_clock_that_is_put_back_makes_no_entry_twice(place, now, mock_clock):
    """What was made is remembered by its name."""
    spool = await now.spool(place)
    await go_on_for(2.25, spool)
    await remove_all(spool)
    now.offset -= 2 * 3600
    await go_on_for(3.25, spool)
    assert ticks_in(place) == [3]


# Trouble


async def test_an_entry_that_cannot_be_enqueued_is_an_err_and_made_the_next_time(path, now, mock_clock):
    """Whoever calls it again, in this process or another."""
    calls = FailingCalls()
    spool = await now.spool(path, system_calls=calls)
    await go_on_for(0.5, spool)
    with calls.failing("write", errno.ENOSPC, on=".data/"):
        answer = await go_on_for(2, spool)
    assert isinstance(answer, Err)
    assert isinstance(answer.error, OutOfSpace)
    assert await go_on_for(0.1, spool) is None
    assert ticks_in(path) == [1]
    assert state_of(path).faults() == []


async def test_what_make_raises_passes_through(place, now, mock_clock):
    """And the schedule is free for others."""
    spool = await now.spool(place)

    def failing(tick: datetime.datetime) -> Any:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await go_on_for(2, spool, failing)
    await go_on_for(0.1, spool)
    assert ticks_in(place) == [1]


async def test_an_entry_that_has_the_name_of_the_schedule_is_in_the_way(place, now, mock_clock):
    """It is said, and nothing waits for ever."""
    spool = await now.spool(place)
    (await spool.enqueue(Mail.FAILED, ANNE, b"", name=Use("digest"))).unwrap()
    assert await go_on_for(2, spool) == Err(NameTaken("digest"))


async def test_somebody_who_is_making_the_very_entry_is_waited_for(path, now, mock_clock):
    """They may fail: then it is made here."""
    spool = await now.spool(path)
    name = f"digest-{BEGIN + HOUR:%Y%m%dT%H%M%SZ}"
    reserved = storage_of(spool).reserve(name)  # as another process would hold it
    async with trio.open_nursery() as nursery:
        nursery.start_soon(functools.partial(every, spool, Mail.SEND, HOUR, make, name="digest"))
        await trio.sleep(3600 + 60)
        assert ticks_in(path) == []
        storage_of(spool).give_up(reserved)
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert ticks_in(path) == [1]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"interval": 0.9}, ValueError),
        ({"interval": -1}, ValueError),
        ({"interval": "1h"}, TypeError),
        ({"interval": Cron("* * * * *"), "start": BEGIN.replace(tzinfo=None)}, ValueError),
        ({"start": BEGIN.replace(tzinfo=None)}, ValueError),
        ({"memory": -1}, ValueError),
        ({"queue": "send"}, TypeError),
        ({"name": 5}, TypeError),
    ],
)
async def test_what_makes_no_sense_is_refused_at_once(place, wrong, error):
    """Before anything is reserved."""
    spool = await quick_spool(place)
    arguments = {"queue": Mail.SEND, "interval": HOUR, "make": make, "name": "digest", **wrong}
    with pytest.raises(error):
        await every(spool, **arguments)
    assert state_of(place).registry == set()


@pytest.mark.parametrize("name", ["", "a/b", "x" * 190])
async def test_a_name_that_no_entry_can_have_is_an_err(place, name):
    """Also if it is too long only with the time behind it."""
    spool = await quick_spool(place)
    answer = await every(spool, Mail.SEND, HOUR, make, name=name)
    assert isinstance(answer, Err)
    assert isinstance(answer.error, InvalidName)


# By a calendar

HALVES = ("2:00", "2:30", "3:00", "3:30")
BERLIN = ZoneInfo("Europe/Berlin")
NIGHTLY = Cron("30 2 * * *", zone="Europe/Berlin")
OFTEN = Cron("*/30 2,3 * * *", zone="Europe/Berlin")
FORWARDS, BACK = (datetime.datetime(2037, *day, 12, tzinfo=BERLIN) for day in ((3, 28), (10, 24)))
"""At noon, on the days before clocks are changed."""

CHANGES = [
    (NIGHTLY, FORWARDS, ["03-29 03:00 +0200", "03-30 02:30 +0200"]),
    (NIGHTLY, BACK, ["10-25 02:30 +0200", "10-26 02:30 +0100"]),
    (OFTEN, FORWARDS, ["03-29 03:00 +0200", "03-29 03:30 +0200", *(f"03-30 0{each} +0200" for each in HALVES)]),
    (
        OFTEN,
        BACK,
        [
            *("10-25 02:00 +0200", "10-25 02:30 +0200"),
            *(f"10-25 0{each} +0100" for each in HALVES),
            *(f"10-26 0{each} +0100" for each in HALVES),
        ],
    ),
]
"""Schedules, when to begin with them, and what they then make in two days."""


def local_ticks_in(path: Path) -> list[str]:
    """Return when the entries were due, in the order of their names, by the clocks of Berlin."""
    state = state_of(path)
    found = [datetime.datetime.fromisoformat(state.data[name].decode()) for name in state.names("send")]
    return [f"{tick.astimezone(BERLIN):%m-%d %H:%M %z}" for tick in found]


def begin_at(now: Times, moment: datetime.datetime) -> None:
    """Set the clock."""
    now.offset += moment.timestamp() - now()


@pytest.mark.sample
@pytest.mark.parametrize(("schedule", "begin", "expected"), CHANGES)
async def test_a_change_of_summer_time_makes_no_gap_and_nothing_twice(  # noqa: PLR0913, PLR0917  # fixtures
    place, now, mock_clock, schedule, begin, expected
):
    """What is left out comes when the clock jumps over it; what comes twice, once, or as often as it is shown."""
    spool = await now.spool(place)
    begin_at(now, begin)
    await go_on_for(42, spool, interval=schedule)
    assert local_ticks_in(place) == expected
    assert state_of(place).faults() == []


@pytest.mark.parametrize(("schedule", "begin", "expected"), CHANGES)
async def test_whoever_comes_and_goes_each_tick_of_a_calendar_has_one_entry(  # noqa: PLR0913, PLR0917  # fixtures
    path, now, mock_clock, schedule, begin, expected
):
    """Programs that run for a while and are gone for a while, with a clock that is put back now and then."""
    chance = random.Random(11)  # no secret
    spool = await now.spool(path)
    begin_at(now, begin)
    end = now() + 42 * 3600
    while now() < end:
        await go_on_for(chance.uniform(0, 2), spool, interval=schedule, missed=Missed.ALL)
        if chance.random() < 0.3:
            now.offset -= chance.uniform(0, 3600)
        await trio.sleep(chance.uniform(0, 3 * 3600))
    await go_on_for(0.1, spool, interval=schedule, missed=Missed.ALL)
    assert [tick for tick in local_ticks_in(path) if tick <= expected[-1]] == expected


@pytest.mark.parametrize(
    ("missed", "made_up_for"),
    [
        (Missed.ALL, ["10-25 02:30 +0200", "10-26 02:30 +0100", "10-27 02:30 +0100"]),
        (Missed.LATEST, ["10-27 02:30 +0100"]),
        (Missed.NONE, []),
    ],
)
async def test_ticks_of_a_calendar_that_went_by_are_made_up_for_as_asked(place, now, mock_clock, missed, made_up_for):
    """As those of an interval are; the tick before them is known by its name, though its entry has gone."""
    spool = await now.spool(place)
    begin_at(now, BACK - 24 * HOUR)
    await go_on_for(24, spool, interval=NIGHTLY, missed=missed)
    assert local_ticks_in(place) == ["10-24 02:30 +0200"]
    await remove_all(spool)
    await trio.sleep(72 * 3600)
    await go_on_for(20, spool, interval=NIGHTLY, missed=missed)
    assert local_ticks_in(place) == [*made_up_for, "10-28 02:30 +0100"]


async def test_the_last_tick_is_remembered_until_the_one_after_the_next(place, now, mock_clock, monkeypatch):
    """However far apart they are, and however short the memory; then the schedule begins anew."""
    monkeypatch.setattr(interval_module, "CLOCK_INTERVAL", 3600.0)  # many thousands of looks, otherwise
    monthly = Cron("0 0 1 * *")
    spool = await now.spool(place)
    for pause, expected in ((0, "02-01"), (45, "03-01"), (120, "")):
        await trio.sleep(pause * 24 * 3600)
        if expected == "02-01":
            await go_on_for(31 * 24, spool, interval=monthly, memory=0)  # from the 1st of January on
        else:
            await go_on_for(0.1, spool, interval=monthly, memory=0)
        assert [tick[:5] for tick in local_ticks_in(place)] == [expected][: bool(expected)]
        await remove_all(spool)


async def test_of_many_processes_one_makes_the_entries_of_a_calendar(path, now, mock_clock, monkeypatch):
    """The others stand by; `make` is called once for each tick."""
    monkeypatch.setattr(interval_module, "STANDING_BY", 300.0)  # thousands of looks, otherwise
    calls: list[datetime.datetime] = []

    def counting(tick: datetime.datetime) -> tuple[Any, bytes]:
        calls.append(tick)
        return make(tick)

    spools = [await now.spool(path) for _ in range(3)]
    begin_at(now, BACK + 12 * HOUR)
    with trio.move_on_after(5 * 3600):
        async with trio.open_nursery() as nursery:
            for spool in spools:
                nursery.start_soon(functools.partial(every, spool, Mail.SEND, OFTEN, counting, name="digest"))
    assert local_ticks_in(path) == CHANGES[3][2][:6]
    assert len(calls) == 6


@pytest.mark.parametrize("missed", [Missed.ALL, Missed.LATEST])
async def test_a_clock_that_jumps_over_a_change_of_summer_time_is_followed(place, now, mock_clock, missed):
    """Forwards, what it passes over is made up for; back again, nothing is made twice."""
    spool = await now.spool(place)
    begin_at(now, BACK + 12 * HOUR)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            functools.partial(every, spool, Mail.SEND, OFTEN, make, name="digest", missed=missed),
        )
        await trio.sleep(60)
        now.offset += 3.25 * 3600  # now it is a quarter past two, for the second time
        await trio.sleep(60)
        made = CHANGES[3][2][:3] if missed is Missed.ALL else CHANGES[3][2][2:3]
        assert local_ticks_in(place) == made
        now.offset -= 2 * 3600
        await trio.sleep(2 * 3600)
        assert local_ticks_in(place) == made
        await trio.sleep(900)
        assert local_ticks_in(place) == [*made, CHANGES[3][2][3]]
        nursery.cancel_scope.cancel()


# Many processes, killed at random


def make_entries(parent: Parent, path: str) -> None:
    """Make entries by a wall clock that the test sets."""
    import datetime
    import pathlib

    import trio

    from helpers.spools import ANNE, Mail, load_spool
    from trio_multispool import Cron, Missed, every
    from trio_multispool.spool import every as interval

    interval.CLOCK_INTERVAL = interval.STANDING_BY = 0.002  # type: ignore[misc]  # the test's clock is quick
    clock, crontab = pathlib.Path(path, ".clock"), pathlib.Path(path, ".crontab").read_text()

    async def main() -> None:
        spool = await load_spool(path, now=lambda: float(clock.read_text()))  # type: ignore[arg-type]
        parent.say("ready")
        await every(
            spool,
            Mail.SEND,
            Cron(crontab, zone="Europe/Berlin") if crontab else datetime.timedelta(hours=1),
            lambda tick: (ANNE, tick.isoformat().encode()),
            name="digest",
            missed=Missed.ALL,
        )

    trio.run(main)


@pytest.mark.parametrize(
    ("crontab", "begin", "hours"),
    [
        ("", BEGIN, range(1, 25)),
        # Each hour, and not from one to two.
        ("0 */1 * * *", BACK, range(1, 25)),
        # Three is when clocks are put forward from two, which is 14 hours after the day before's noon.
        ("0 0-2,4-23 * * *", FORWARDS, [*range(1, 15), *range(15, 25)]),
        ("0 2-23/3 * * *", BACK, [2, 5, 8, 11, 14, 18, 21, 24]),
    ],
)
def test_each_tick_has_one_entry_whoever_is_killed(path, crontab, begin, hours):
    """Of three processes, one is killed at each tick; entries are worked off meanwhile; all come, and none twice."""
    chance = random.Random(7)  # no secret
    came: list[str] = []
    begins_at = begin.timestamp()

    async def prepare() -> None:
        (await quick_spool(path)).close()
        (path / ".crontab").write_text(crontab)

    async def work_off() -> None:
        clock = path / ".clock"
        async with (
            await load_spool(path, now=lambda: float(clock.read_text())) as spool,
            spool.reader(Mail.SEND) as reader,
        ):
            async for job in reader.available():
                async with job:
                    came.append((await job.data.load()).unwrap().decode())
                    (await job.remove()).unwrap()

    def set_clock(hours: float) -> None:
        new = path / ".clock.new"
        new.write_text(str(begins_at + hours * 3600))
        new.rename(path / ".clock")

    def tick_at(hour: int) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(begins_at + hour * 3600, datetime.UTC)

    def key_of(hour: int) -> Path:
        return path / ".keys" / f"digest-{tick_at(hour):%Y%m%dT%H%M%SZ}"

    trio.run(prepare)
    set_clock(0.5)
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(Child(make_entries, path)) for _ in range(3)]
        for child in children:
            assert child.hear() == ["ready"]
        # The first tick is remembered when its file has its time: until then, a leader that is killed has not begun.
        _wait_for(lambda: any(key.stat().st_mtime > begins_at for key in (path / ".keys").glob("digest-*")))
        for hour in range(1, 25):
            set_clock(hour + 0.01)
            victim = chance.randrange(3)
            children[victim].kill()
            children[victim] = stack.enter_context(Child(make_entries, path))
            if hour % 4 == 0:
                last = max((each for each in hours if each <= hour), default=0)
                _wait_for(lambda last=last: not last or key_of(last).exists())
                trio.run(work_off)
        _wait_for(key_of(max(hours)).exists)
    trio.run(work_off)
    assert came == [tick_at(hour).isoformat() for hour in hours]


def _wait_for(so: Any) -> None:
    for _ in itertools.count():
        if so():
            return
        time.sleep(0.002)

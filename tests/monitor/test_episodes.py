"""Problems over time: what starts, what ends, and who is cancelled while he waits."""

from __future__ import annotations

import datetime
import errno
import os
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio

from helpers.calls import FailingCalls
from helpers.damage import QUEUE
from helpers.spools import Mail, put, quick_spool, snapshot
from trio_multispool import AccessDenied
from trio_multispool.monitor import End, MissingData, Monitor, Start, TooOld
from trio_multispool.monitor.episodes import Alerts, Watching

if TYPE_CHECKING:
    from pathlib import Path

A, B = TooOld("a", QUEUE), TooOld("b", QUEUE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Name a spool that does not exist."""
    return tmp_path / "spool"


@pytest.mark.parametrize(
    ("after", "cycles", "expected"),
    [
        (1, [[A], [A], []], [[Start(A)], [], [End(A)]]),
        (2, [[A], [A], [A], []], [[], [Start(A)], [], [End(A)]]),
        (2, [[A], [], [A], [A]], [[], [], [], [Start(A)]]),
        (2, [[A], [], []], [[], [], []]),
        (3, [[A, B], [A], [A, B], [B], [B], []], [[], [], [Start(A)], [End(A)], [Start(B)], [End(B)]]),
        (1, [[A, A], [B], [A, B]], [[Start(A)], [End(A), Start(B)], [Start(A)]]),
    ],
)
def test_a_problem_starts_after_so_many_cycles_and_ends_when_it_is_gone(after, cycles, expected):
    """Only what was there in so many cycles running starts; only what started ends, at once; each once."""
    alerts = Alerts(after)
    assert [alerts.see(problems) for problems in cycles] == expected


def test_a_problem_that_grows_older_is_the_same():
    """The age does not make it a new one; what is told is what was seen."""
    alerts = Alerts(2)
    assert alerts.see([TooOld("a", QUEUE, age=1)]) == []
    [event] = alerts.see([TooOld("a", QUEUE, age=2)])
    assert event.problem.age == 2
    assert alerts.see([TooOld("a", QUEUE, age=3)]) == []
    assert alerts.started == [A]


async def test_a_watch_checks_on_the_clock(path, autojump_clock):
    """At once, and then every so often; a problem starts in its second cycle, and ends in the first without it."""
    async with await quick_spool(path) as spool:
        await put(spool, Mail.FAILED, "a")
        began = trio.current_time()
        async with Monitor(spool).watch(check_every=datetime.timedelta(seconds=15)) as events:
            (path / ".data" / "a").unlink()
            assert await anext(events) == Start(MissingData("a", QUEUE))
            assert trio.current_time() - began == pytest.approx(15, abs=1)
            assert events.problems == [MissingData("a", QUEUE)]
            with trio.move_on_after(100) as scope:
                await anext(events)
            assert scope.cancelled_caught, "it is still the same problem"
            (path / ".data" / "a").touch()
            assert await anext(events) == End(MissingData("a", QUEUE))
            assert events.problems == []
        assert [event async for event in events] == []


async def test_cycles_follow_each_other_by_their_beginnings(autojump_clock):
    """A check that takes long is not made up for; one that takes longer than the pause has half of the time at most."""
    begun: list[float] = []
    lengths = iter([1, 1, 20, 1])

    async def check() -> list[Any]:
        begun.append(trio.current_time())
        await trio.sleep(next(lengths))
        return [A] if len(begun) == 4 else []

    start = trio.current_time()
    async with Watching(check, 15, 1) as events:
        assert await anext(events) == Start(A)
    assert [moment - start for moment in begun] == pytest.approx([0, 15, 30, 70])


@pytest.mark.anyio
async def test_whoever_is_cancelled_while_he_waits_misses_no_event(path):
    """Between checks, and in the middle of one; several events of one check come one by one."""
    async with await quick_spool(path) as spool:
        await put(spool, Mail.FAILED, "a", "b")
        for name in "ab":
            (path / ".data" / name).unlink()
        before = snapshot(path)
        async with Monitor(spool).watch(check_every=0.01, alert_after_cycles=3) as events:
            seen = []
            for _ in range(200):
                with anyio.move_on_after(0.002):
                    seen.append(await anext(events))
            while len(seen) < 2:
                seen.append(await anext(events))
            assert seen == [Start(MissingData("a", QUEUE)), Start(MissingData("b", QUEUE))]
            with anyio.CancelScope() as scope:
                scope.cancel()
                await anext(events)
            assert scope.cancelled_caught
        assert snapshot(path) == before


@pytest.mark.anyio
async def test_a_check_that_fails_is_raised_and_the_next_goes_on(path):
    """Trouble with the disk ends no problem and starts none."""
    calls = FailingCalls()
    async with await quick_spool(path, system_calls=calls) as spool:
        await put(spool, Mail.FAILED, "a")
        (path / ".data" / "a").unlink()
        async with Monitor(spool).watch(check_every=0, alert_after_cycles=1) as events:
            assert await anext(events) == Start(MissingData("a", QUEUE))
            with calls.failing("stat", errno.EACCES), pytest.raises(AccessDenied):
                await anext(events)
            assert events.problems == [MissingData("a", QUEUE)]
            (path / ".data" / "a").touch()
            assert await anext(events) == End(MissingData("a", QUEUE))


@pytest.mark.anyio
async def test_a_watch_of_a_spool_that_is_closed_says_so(path):
    """Like every operation."""
    spool = await quick_spool(path)
    async with Monitor(spool).watch(check_every=0) as events:
        spool.close()
        with pytest.raises(anyio.ClosedResourceError):
            await anext(events)


async def test_undecodable_metadata_that_comes_later_is_found(path, autojump_clock):
    """Later checks read what is new, and only that."""
    async with await quick_spool(path) as spool:
        await put(spool, Mail.FAILED, "a", "b")
        async with Monitor(spool).watch(alert_after_cycles=1) as events:
            with trio.move_on_after(40):
                await anext(events)
            (path / "failed" / "b").write_text("{")
            event = await anext(events)
            assert (type(event), event.problem.name) == (Start, "b")
            (path / "failed" / "b").write_text('{"recipient":"anne"}')
            event = await anext(events)
            assert (type(event), event.problem.name) == (End, "b")
            os.rename(path / "failed" / "a", path / "failed" / "c")
            assert {(await anext(events)).problem.name for _ in range(4)} == {"a", "c"}


async def test_nonsense_is_refused_when_it_is_given(path):
    """No duration, a negative one, less than one cycle."""
    async with await quick_spool(path) as spool:
        monitor = Monitor(spool)
        with pytest.raises(ValueError, match="not negative"):
            monitor.watch(check_every=-1)
        with pytest.raises(TypeError):
            monitor.watch(check_every="15")
        with pytest.raises(ValueError, match="at least 1"):
            monitor.watch(alert_after_cycles=0)
        with pytest.raises(TypeError):
            monitor.watch(alert_after_cycles=1.5)

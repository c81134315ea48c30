"""Working off a listing: in what order, how far in one go, and how readers that meet others go on at some distance.

Chance is taken out where it plays a part: whoever goes on at a distance goes as far as it may.
"""

from __future__ import annotations

import errno
import random
from typing import TYPE_CHECKING, Any

import anyio
import anyio.from_thread
import pytest

from helpers.inside import source_of, storage_of
from helpers.spools import Mail, load_spool, put, quick_spool, state_of
from helpers.stores import nothing
from trio_multispool import Ok, StorageFailure
from trio_multispool.entries.claimer import Claimer
from trio_multispool.storage.directory import window as listing
from trio_multispool.storage.directory.source import TRIES_AT_A_TIME, DirectorySource
from trio_multispool.storage.directory.window import MOST_DOUBLINGS, Position, Window
from trio_multispool.storage.source import Given, Look, NothingLeft

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.spools import Location

pytestmark = pytest.mark.anyio

NAMES = [f"{number:02}" for number in range(20)]
GONE = [f"{number:05}" for number in range(20_000)]
"""What a long listing has in it when others have worked it off."""


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have everybody go as far as may be; return how far that was, each time."""
    asked: list[int] = []

    def farthest(limit: int) -> int:
        asked.append(limit)
        return limit - 1

    monkeypatch.setattr(listing, "random_below", farthest)
    return asked


class Working:
    """A listing of a queue, as a reader has one."""

    def __init__(self, spool: Any) -> None:
        """Begin with none."""
        self.source: DirectorySource = storage_of(spool).source("send", sorts_last=True)
        self.claimer: Claimer[Any] = Claimer(spool._session, "send", self.source)

    def claim(self, wanted: int = 1, given: Given | None = None) -> Any:
        """Check entries out, as the thread of a reader does that is not stopped."""
        look = Look(given, waits=False)
        found = self.source.claim(look, lambda: wanted, gate=self.claimer, stopped=lambda: False, before_commit=nothing)
        return self.claimer.finish(found, look)

    def claim_all(self) -> list[str]:
        """Check out whatever is to be had, one after the other, and return the names."""
        names: list[str] = []
        while not isinstance(claimed := self.claim(), NothingLeft):
            names += [one.claim.name for one in claimed]
        return names


class Tries:
    """How many names a reader tries, in which hops."""

    def __init__(self, reader: Any, at: int = 0, act: Any = None) -> None:
        """Count from here; at one of them, in its thread, something is done."""
        self.hops: list[int] = []
        working = source_of(reader)
        claim, try_ = working.claim, working._try_listed

        def counting_hops(*arguments: Any, **options: Any) -> Any:
            self.hops.append(0)
            return claim(*arguments, **options)

        def counting_tries(*arguments: Any) -> Any:
            self.hops[-1] += 1
            if sum(self.hops) == at:
                act()
            return try_(*arguments)

        working.claim, working._try_listed = counting_hops, counting_tries


async def test_what_could_not_be_finished_is_given_next_in_the_same_pass(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The disk failed, say, when others had been checked out: those are given, and then it, in its turn."""
    async with await quick_spool(tmp_path / "spool") as spool:
        await put(spool, Mail.SEND, *NAMES[:3])
        working, given = Working(spool), Given()
        carried, failing = spool._session.carried, ["01"]

        def carried_unless_failing(claim: Any) -> Any:
            if claim.name in failing:
                failing.remove(claim.name)
                raise StorageFailure("read", claim.name, errno.EIO)
            return carried(claim)

        monkeypatch.setattr(spool._session, "carried", carried_unless_failing)
        monkeypatch.setattr(spool._session.hooks, "carries", True)
        assert [one.claim.name for one in working.claim(3, given)] == ["00"]
        assert [one.claim.name for one in working.claim(3, given)] == ["01", "02"]
        assert isinstance(working.claim(3, given), NothingLeft)


# How far in one go


@pytest.mark.parametrize("what", ["dequeue", "dequeue_available", "iter"])
async def test_a_long_run_of_names_that_others_had_ends_when_its_scope_does(what: str, tmp_path: Path) -> None:
    """A hop cannot be cancelled; so it ends after so many names, and the cancellation that came in it counts."""
    async with await quick_spool(tmp_path / "spool") as spool, spool.reader(Mail.SEND) as reader:
        source_of(reader)._window._names.extend(GONE)
        token = anyio.lowlevel.current_token()
        with anyio.CancelScope() as scope:
            tries = Tries(reader, 5, lambda: anyio.from_thread.run_sync(scope.cancel, token=token))
            await (reader.iter(nothing) if what == "iter" else getattr(reader, what)())
        assert scope.cancelled_caught
        assert tries.hops == [TRIES_AT_A_TIME]


@pytest.mark.parametrize("what", ["dequeue", "dequeue_available", "iter"])
async def test_a_long_run_of_names_that_others_had_ends_when_the_reader_is_stopped(what: str, tmp_path: Path) -> None:
    """At once: no further name is tried."""
    async with await quick_spool(tmp_path / "spool") as spool, spool.reader(Mail.SEND) as reader:
        source_of(reader)._window._names.extend(GONE)
        tries = Tries(reader, 5, reader.stop)
        assert await (reader.iter(nothing) if what == "iter" else getattr(reader, what)()) == Ok(None)
        assert tries.hops == [5]


async def test_a_long_run_of_names_that_others_had_is_passed_over(
    limits: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each is tried once, in hops of so many, from which nobody goes on farther than a thousand or so away."""
    monkeypatch.setattr(listing, "NAMES_PER_GONE", 0)  # as if there were too many to list them again
    gone = GONE[:3000]
    async with await quick_spool(tmp_path / "spool") as spool, spool.reader(Mail.SEND) as reader:
        await put(spool, Mail.SEND, "real")
        source_of(reader)._window._names.extend(gone)
        tries = Tries(reader)
        job = (await reader.dequeue_available()).unwrap()
        assert job is not None
        assert job.name == "real"
        assert sum(tries.hops) == len(gone) + 1
        assert max(tries.hops) == TRIES_AT_A_TIME
        assert max(limits) == 2**MOST_DOUBLINGS


# In what order


@pytest.mark.sample
@pytest.mark.parametrize("taken", [1, 2])
async def test_a_lone_reader_keeps_to_the_order_though_a_hand_takes_entries_away(
    taken: int, limits: list[int], place: Location
) -> None:
    """So many names in a row that are not to be had make nobody think of other readers."""
    async with await quick_spool(place) as spool, await load_spool(place) as other:
        entries = await put(other, Mail.SEND, *NAMES)
        got: list[str] = []
        async with spool.reader(Mail.SEND) as reader:
            async for job in reader.available():
                async with job:
                    (await job.remove()).unwrap()
                got.append(job.name)
                if len(got) in (1, 10):  # twice, with entries that are had in between
                    for entry in entries[NAMES.index(job.name) + 1 :][:taken]:
                        (await entry.direct.remove()).unwrap()
        assert got == NAMES[:1] + NAMES[1 + taken : 10 + taken] + NAMES[10 + 2 * taken :]
        assert limits == []


async def test_who_meets_others_goes_on_at_a_distance_and_gets_every_name(limits: list[int], tmp_path: Path) -> None:
    """After some misses in a row, farther with each; what was skipped comes last."""
    async with await quick_spool(tmp_path / "spool") as spool, await load_spool(tmp_path / "spool") as other:
        await put(spool, Mail.SEND, *NAMES)
        first, second = Working(spool), Working(other)  # as in two processes
        for working in (first, second):
            working.source._window.listed_since(0, waits=False)
        assert [one.claim.name for one in first.claim(6)] == NAMES[:6]
        # 00 to 02 are missed in order; then one is skipped (03), and after the miss of 04 three (05 to 07).
        # The twelve that follow make up for three misses, and of what comes last (03, 05) the second is one too many.
        rest = second.claim_all()
        assert rest == [*NAMES[8:], "07", "06"]
        assert limits == [2, 4, 2]
        assert isinstance(first.claim(), NothingLeft)


async def test_who_meets_nobody_any_more_goes_on_in_order(limits: list[int], tmp_path: Path) -> None:
    """Each four entries that are had make up for a miss: when they are, the next miss skips nothing."""
    async with await quick_spool(tmp_path / "spool") as spool:
        await put(spool, Mail.SEND, *NAMES)
        working = Working(spool)
        working.source._window._names.extend(
            ["gone 1", "gone 2", "gone 3", "skipped", *NAMES[:8], "gone 4", *NAMES[8:]]
        )
        assert [working.claim()[0].claim.name for _ in range(20)] == NAMES
        assert limits == [2]


async def test_consumers_that_go_on_meeting_each_other_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """They do not all try the same names again after each entry that they got."""
    monkeypatch.setattr(listing, "random_below", random.Random(1).randrange)
    left = set(GONE[:4000])
    consumers = [Window(lambda: sorted(left)) for _ in range(16)]
    for each in consumers:
        each.listed_since(0, waits=False)
    misses = claimed = 0
    while left:
        for each in consumers:
            name = each.next(Position(), None, waits=False)
            while name is not None and name not in left:
                misses += 1
                each.decide(name, gone=True)
                name = each.next(Position(), None, waits=False)
            if name is not None:
                left.remove(name)
                each.decide(name, claimed=True)
                claimed += 1
    assert claimed == 4000
    assert misses < claimed / 2


# What goes back


@pytest.mark.parametrize("in_a_pass", [False, True])
async def test_what_is_taken_back_comes_first_again(in_a_pass: bool, place: Location) -> None:
    """In its order, as if it had never been checked out, also in a pass that gives nothing twice."""
    given = Given() if in_a_pass else None
    async with await quick_spool(place) as spool:
        await put(spool, Mail.SEND, *NAMES[:6])
        working = Working(spool)
        claimed = working.claim(3, given)
        assert [one.claim.name for one in claimed] == NAMES[:3]
        working.claimer.take_back(claimed, Look(given, waits=False))
        state = state_of(spool.location)
        assert (state.names("send"), state.checked_out["send"]) == (NAMES[:6], {})
        assert [one.claim.name for one in working.claim(6, given)] == NAMES[:6]


# What another thread is about to find out


async def test_a_listing_that_another_thread_is_working_off_may_hold_a_lock(tmp_path: Path) -> None:
    """Who finds nothing left while another tries the last name is told to look again soon; not once it is known."""
    async with await quick_spool(tmp_path / "spool") as spool:
        working = Working(spool)
        working.source._window._names.append("last")
        window = working.source._window
        assert window.next(Position(), None, waits=True) == "last"
        found = working.claim()
        assert isinstance(found, NothingLeft)
        assert found.busy
        window.decide("last", gone=True)
        found = working.claim()
        assert isinstance(found, NothingLeft)
        assert not found.busy

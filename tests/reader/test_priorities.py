"""Names that sort by priority and then by time, and readers that keep to that order while entries come."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.inside import storage_of
from helpers.naming import made_by_threads
from helpers.spools import ANNE, Envelope, Mail, names_in, quick_spool, state_of
from trio_multispool import Prioritized, Release, Remove, Reserve, Spoolable, TimeOrdered, Use, prioritized_names
from trio_multispool.model.names import invalid_name, makes_none_twice, sorts_last, time_ordered_name
from trio_multispool.storage.directory import window as listing_module
from trio_multispool.storage.directory.window import LISTINGS_OF_WORK

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from helpers.spools import Location

SECOND = 1_000_000_000


def prioritized(times: list[int], **options: Any) -> Prioritized:
    """Make a generator whose clock shows these times, one at each name, in seconds."""
    clock = iter(times)
    return Prioritized(lambda: next(clock) * SECOND, lambda: "00000000", **options)


# The order


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 100)), max_size=20))
def test_names_sort_by_priority_and_then_in_the_order_of_their_making(made):
    """The sorted listing is the schedule, also when the clock stands still or steps back."""
    names = prioritized([time for _, time in made])
    listed = {names.next(level, 0): (level, number) for number, (level, _) in enumerate(made)}
    assert len(listed) == len(made)
    assert [listed[name] for name in sorted(listed)] == sorted(listed.values())


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30)), max_size=20), st.integers(1, 60))
def test_with_ageing_names_sort_by_the_time_of_their_making_and_so_much_for_each_level(made, ageing):
    """No entry waits for one that is made later by more than its level is worth: nothing starves."""
    made = sorted(made, key=lambda one: one[1])  # a clock that does not step back; ties are told apart by a nanosecond
    names = prioritized([time for _, time in made], ageing=datetime.timedelta(seconds=ageing))
    listed = {names.next(level, 0): level * ageing + time for level, time in made}
    assert len(listed) == len(made)
    due = [listed[name] for name in sorted(listed)]
    assert due == sorted(due)


def test_a_hundred_levels_sort_as_numbers_do():
    """Level 10 comes after level 9, though "10" sorts before "9"."""
    names = prioritized([0] * 100, levels=100)
    made = [names.next(level, 0) for level in range(100)]
    assert made == sorted(made)


def test_an_entry_without_a_priority_has_the_one_in_the_middle():
    """There is room on both sides."""
    assert prioritized([0]).next(None, 0).startswith("p5-")
    assert prioritized([0], levels=3).next(None, 0).startswith("p1-")
    assert prioritized([0], levels=1).next(None, 0).startswith("p0-")


def test_a_name_by_time_alone_comes_before_all_levels_and_with_ageing_counts_as_level_0():
    """What was enqueued before a spool had priorities is not left behind."""
    by_time = TimeOrdered(lambda: 50 * SECOND, lambda: "00000000").next(None, 0)
    assert by_time < prioritized([0]).next(0, 0)
    names = prioritized([49, 51, 45, 39], ageing=10)
    assert [names.next(0, 0) < by_time, names.next(0, 0) < by_time] == [True, False]
    assert prioritized([39], ageing=10).next(1, 0) < by_time < prioritized([41], ageing=10).next(1, 0)


@pytest.mark.parametrize("ageing", [None, 60.5])
def test_a_name_is_valid_short_and_can_be_read(ageing):
    """Under fifty bytes, with the level in it and the time."""
    name = prioritized_names(ageing=ageing).next(7, 0)
    assert invalid_name(name) is None
    assert len(name) < 50
    assert "p7-" in name
    made = prioritized([3], ageing=ageing).next(2, 0)
    if ageing is None:
        assert made == f"p2-{time_ordered_name(3 * SECOND, '00000000')}"
    else:
        assert made == f"{time_ordered_name(124 * SECOND, 'p2')}-00000000"


@pytest.mark.parametrize("ageing", [None, 1])
def test_threads_that_share_a_generator_never_get_one_name_twice(ageing):
    """A clock that stands still gives distinct names, at every level."""
    names = Prioritized(lambda: 0, lambda: "00000000", ageing=ageing)
    made = made_by_threads(4, lambda: [names.next(number % 10, 0) for number in range(1000)])
    assert len(set(made)) == len(made) == 4000


def test_what_is_known_of_the_generators_is_so():
    """Names of both are new; only those by time alone sort last."""
    assert makes_none_twice(prioritized_names())
    assert not sorts_last(prioritized_names())
    assert sorts_last(TimeOrdered(lambda: 0, lambda: ""))


# What is no priority


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"levels": 0}, ValueError, "levels must be at least 1, not 0"),
        ({"levels": 2.5}, TypeError, "levels must be a whole number, not 2.5"),
        ({"ageing": 0}, ValueError, "ageing must be a duration above 0"),
        ({"ageing": float("inf")}, ValueError, "ageing must be a duration above 0"),
        ({"ageing": -1}, ValueError, "not negative"),
        ({"ageing": "1m"}, TypeError, "a number of seconds or a timedelta, not '1m'"),
    ],
)
def test_options_that_make_no_sense_are_refused_with_what_would(options, error, named):
    """Bad input is told at once, and what is asked for."""
    with pytest.raises(error, match=named):
        _ = prioritized_names(**options)


@pytest.mark.sample
@pytest.mark.anyio
@pytest.mark.parametrize(
    ("priority", "error", "named"),
    [
        (10, ValueError, "a whole number from 0, the most urgent, to 9, not 10"),
        (-1, ValueError, "a priority must be at least 0, not -1"),
        ("high", TypeError, "a priority must be a whole number, not 'high'"),
    ],
)
async def test_an_entry_with_a_priority_that_there_is_not_is_not_enqueued(priority, error, named, place: Location):
    """It raises, for it is a bug, and leaves nothing."""
    spool = await quick_spool(place, Spoolable(Mail, Envelope, bytes, prioritized_names()))
    before = state_of(spool.location)
    with pytest.raises(error, match=named):
        _ = await spool.enqueue(Mail.SEND, ANNE, b"", name=Reserve(priority))
    assert state_of(spool.location) == before


# Readers


class Watch:
    """The time that readers' listings go by."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.listing_takes = 0.0

    def stopwatch(self) -> Callable[[], float]:
        """Begin to measure; a listing, which is what is measured first after this, takes some time."""
        began = self.seconds
        self.seconds += self.listing_takes
        return lambda: self.seconds - began


async def with_entries(path: Path, priorities: list[int], **options: Any) -> Any:
    """Make a spool with an entry of each of these priorities, which are their recipients too."""
    spool = await quick_spool(path, Spoolable(Mail, Envelope, bytes, prioritized_names(**options)))
    for priority in priorities:
        await add(spool, priority)
    return spool


async def add(spool: Any, priority: int) -> None:
    """Enqueue an entry with a priority."""
    (await spool.enqueue(Mail.SEND, Envelope(str(priority)), b"", name=Reserve(priority))).unwrap()


@pytest.mark.anyio
@pytest.mark.parametrize("priorities", [[9, 0, 5, 5, 1]])
async def test_a_reader_takes_the_most_urgent_first(priorities, place: Location):
    """The order is that of the names, whatever came first."""
    spool = await with_entries(place, priorities)
    done = []

    async def handle(metadata: Envelope, _data: Any) -> Remove:
        done.append(int(metadata.recipient))
        return Remove()

    async with spool.reader(Mail.SEND) as reader:
        _ = (await reader.iter_available(handle)).unwrap()
    assert done == sorted(priorities)


@pytest.mark.anyio
@pytest.mark.parametrize("way", ["iter", "async for", "dequeue"])
async def test_an_urgent_entry_that_comes_while_others_are_worked_off_is_next(way, monkeypatch, tmp_path: Path):
    """A reader lists the queue again when it has worked for twenty times as long as that takes, and not before."""
    watch = Watch()
    watch.listing_takes = 1.0
    monkeypatch.setattr(listing_module, "stopwatch", watch.stopwatch)
    spool = await with_entries(tmp_path / "spool", [5, 5, 5, 5, 5, 5])
    done: list[int] = []

    async def work(metadata: Envelope) -> None:
        done.append(int(metadata.recipient))
        if len(done) == 1:
            await add(spool, 0)
        elif len(done) == 3:
            watch.seconds += LISTINGS_OF_WORK
        elif len(done) == 7:
            reader.stop()

    async def handle(metadata: Envelope, _data: Any) -> Remove:
        await work(metadata)
        return Remove()

    async with spool.reader(Mail.SEND) as reader:
        if way == "iter":
            _ = (await reader.iter(handle)).unwrap()
        else:
            jobs = reader if way == "async for" else dequeued(reader)
            async for job in jobs:
                async with job:
                    await work(job.metadata)
                    _ = (await job.remove()).unwrap()
    assert done == [5, 5, 5, 0, 5, 5, 5]


async def dequeued(reader: Any) -> Any:
    """Yield what `dequeue` gives, until the reader is stopped."""
    while (job := (await reader.dequeue()).unwrap()) is not None:
        yield job


@pytest.mark.anyio
async def test_a_chosen_name_that_sorts_first_is_next_too_if_a_generator_of_the_callers_makes_the_others(
    monkeypatch, tmp_path: Path
):
    """Of names that somebody else makes, nobody knows that they sort last."""
    watch = Watch()
    watch.listing_takes = 1.0
    monkeypatch.setattr(listing_module, "stopwatch", watch.stopwatch)

    class Counting:
        def __init__(self) -> None:
            self.count = 100

        def next(self, argument: None, attempt: int) -> str:
            self.count += 1
            return str(self.count)

    spool = await quick_spool(tmp_path / "spool", Spoolable(Mail, Envelope, bytes, Counting()))
    for _ in range(3):
        (await spool.enqueue(Mail.SEND, ANNE, b"")).unwrap()
    taken = []
    async with spool.reader(Mail.SEND) as reader:
        async for job in reader:
            async with job:
                taken.append(job.name)
                _ = (await job.remove()).unwrap()
            if len(taken) == 1:
                (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("000"))).unwrap()
                watch.seconds += LISTINGS_OF_WORK
            if len(taken) == 4:
                reader.stop()
    assert taken == ["101", "000", "102", "103"]


def counted_listings(spool: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note each time when a queue of the spool is listed."""
    listed: list[str] = []
    names = storage_of(spool).names

    def counting(queue: str, **page: Any) -> list[str]:
        listed.append(queue)
        return names(queue, **page)

    monkeypatch.setattr(storage_of(spool), "names", counting)
    return listed


@pytest.mark.anyio
async def test_names_that_sort_by_time_are_listed_once_however_long_the_work_takes(monkeypatch, tmp_path: Path):
    """Nothing can come before what is listed, so nobody looks."""
    watch = Watch()
    monkeypatch.setattr(listing_module, "stopwatch", watch.stopwatch)
    spool = await quick_spool(tmp_path / "spool")
    for _ in range(5):
        (await spool.enqueue(Mail.SEND, ANNE, b"")).unwrap()
    listed = counted_listings(spool, monkeypatch)
    async with spool.reader(Mail.SEND) as reader:
        for _ in range(5):
            job: Any = (await reader.dequeue()).unwrap()
            async with job:
                watch.seconds += 1000
                _ = (await job.remove()).unwrap()
    assert listed == ["send"]


@pytest.mark.anyio
async def test_a_pass_gives_each_entry_once_though_all_of_them_come_back(monkeypatch, tmp_path: Path):
    """A pass does not list the queue again as it goes: it would go over what it has given each time."""
    watch = Watch()
    monkeypatch.setattr(listing_module, "stopwatch", watch.stopwatch)
    spool = await with_entries(tmp_path / "spool", [3, 1, 4, 1, 5])
    listed = counted_listings(spool, monkeypatch)
    given_ = []

    async def handle(metadata: Envelope, _data: Any) -> Release:
        given_.append(int(metadata.recipient))
        watch.seconds += 1000
        return Release()

    async with spool.reader(Mail.SEND) as reader:
        _ = (await reader.iter_available(handle)).unwrap()
    assert given_ == [1, 1, 3, 4, 5]
    assert len(listed) == 2  # the pass, and a last look for what came meanwhile
    assert len(await names_in(spool, Mail.SEND)) == 5

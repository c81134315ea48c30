"""Many readers of one queue in one spool: one listing for all, and one reader woken for each entry that comes."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from helpers.gates import breathe, until
from helpers.inside import dequeuer_of, waiters_of
from helpers.spools import Envelope, Mail, load_spool, make_spool, put, quick_spool, state_of
from helpers.syscalls import HookedCalls
from trio_multispool import Release, Remove

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from helpers.spools import Location

pytestmark = pytest.mark.anyio

READERS = 12
HOUR = 3600.0
NAMES = [f"{number:02}" for number in range(READERS * 3)]


class Listings(HookedCalls):
    """Counts how often a queue is listed."""

    def __init__(self) -> None:
        """Begin with none."""
        self.made = 0

    def around(self, call: str, arguments: tuple[Any, ...], perform: Callable[[], Any]) -> Any:
        """Count."""
        self.made += call == "regular_files"
        return perform()


@pytest.mark.parametrize("how", ["a pass", "one at a time"])
async def test_all_readers_share_a_listing(how: str, tmp_path: Path) -> None:
    """However many they are: it is made for the first, and again when all have come to its end."""
    calls, given = Listings(), collections.Counter[str]()
    async with await make_spool(tmp_path / "spool", system_calls=calls) as spool:
        await put(spool, Mail.SEND, *NAMES)
        calls.made = 0

        async def handle(envelope: Envelope, _data: object) -> Remove:
            given[envelope.recipient] += 1
            return Remove()

        async def work() -> None:
            async with spool.reader(Mail.SEND) as reader:
                if how == "a pass":
                    (await reader.iter_available(handle)).unwrap()
                    return
                async for job in reader.available():
                    async with job:
                        given[job.metadata.recipient] += 1
                        (await job.remove()).unwrap()

        async with anyio.create_task_group() as tasks:
            for _ in range(READERS):
                tasks.start_soon(work)
    assert given == collections.Counter(NAMES)
    recoveries = 2 * READERS  # each reader looks for what the dead held, and some share that
    assert calls.made <= READERS / 2 + recoveries


@pytest.mark.sample
async def test_what_a_pass_has_given_stays_for_the_other_readers(place: Location) -> None:
    """It came back to the queue: this pass passes it over, and another reader takes it."""
    async with await quick_spool(place) as spool:
        await put(spool, Mail.SEND, "a", "b")
        given: list[str] = []

        async def back(envelope: Envelope, _data: object) -> Release:
            given.append(envelope.recipient)
            return Release()

        async with spool.reader(Mail.SEND) as first, spool.reader(Mail.SEND) as second:
            (await first.iter_available(back)).unwrap()
            assert given == ["a", "b"]
            for name in ("a", "b"):
                job = (await second.dequeue_available()).unwrap()
                assert job is not None
                async with job:
                    assert job.name == name
                    (await job.remove()).unwrap()
    assert state_of(place).entries() == set()


async def test_what_is_full_for_one_reader_is_there_for_another(place: Location) -> None:
    """The one has as many of a key in hand as it may; the other has no limit."""
    async with (
        await quick_spool(place) as spool,
        spool.reader(Mail.SEND, limit_by=lambda _: "all", limit=1) as limited,
        spool.reader(Mail.SEND) as free,
    ):
        await put(spool, Mail.SEND, "a", "b", "c")
        taken = (await limited.dequeue_available()).unwrap()
        assert taken is not None
        async with taken:
            assert (await limited.dequeue_available()).unwrap() is None
            listings = dequeuer_of(free).claimer.source.listings
            for name in ("b", "c"):
                job = (await free.dequeue_available()).unwrap()
                assert job is not None
                async with job:
                    assert (taken.name, job.name) == ("a", name)
                    (await job.remove()).unwrap()
            assert dequeuer_of(free).claimer.source.listings == listings, "they were put by"


# Who is woken


class Looks:
    """Readers that wait, each in a task, and how often each of them has looked."""

    def __init__(self, spool: Any, count: int, **options: Any) -> None:
        """Begin with none."""
        self.spool = spool
        self.count = count
        self.options = options
        self.looks = collections.Counter[int]()
        self.got: list[tuple[int, str]] = []
        self.readers: dict[int, Any] = {}
        self.scopes: dict[int, anyio.CancelScope] = {}

    async def work(self, number: int) -> None:
        """Take one entry after the other, and remove it."""
        with anyio.CancelScope() as self.scopes[number]:
            async with self.spool.reader(Mail.SEND, poll_interval=HOUR, **self.options) as self.readers[number]:
                dequeuer = dequeuer_of(self.readers[number])
                claim = dequeuer._claim

                def counting(*arguments: Any) -> Any:
                    self.looks[number] += 1
                    return claim(*arguments)

                dequeuer._claim = counting
                async for job in self.readers[number]:
                    async with job:
                        self.got.append((number, job.name))
                        (await job.remove()).unwrap()

    async def all_wait(self) -> None:
        """Wait until all that are left wait, and nothing is under way."""
        quiet = 0
        while quiet < 5:
            await breathe()
            idle = len(waiters_of(self.spool)) == self.count and not self.spool._session.running._count
            quiet = quiet + 1 if idle else 0


@pytest.fixture
async def waiting(tmp_path: Path) -> AsyncIterator[tuple[Looks, Any]]:
    """Let some readers wait, with another spool to enqueue by."""
    async with (
        await quick_spool(tmp_path / "spool") as spool,
        await load_spool(tmp_path / "spool") as other,
        anyio.create_task_group() as tasks,
    ):
        looks = Looks(spool, READERS)
        for number in range(READERS):
            tasks.start_soon(looks.work, number)
        await looks.all_wait()
        looks.looks.clear()
        yield looks, other
        tasks.cancel_scope.cancel()


async def test_an_entry_that_comes_wakes_one_reader_and_each_in_its_turn(waiting: tuple[Looks, Any]) -> None:
    """The one that has waited for longest. It looks once more when it has done the entry, and no other does."""
    looks, other = waiting
    for number, name in enumerate(NAMES[:3], 1):
        await put(other, Mail.SEND, name)
        await until(lambda number=number: len(looks.got) == number)
        await looks.all_wait()
    assert [name for _, name in looks.got] == NAMES[:3]
    assert len({number for number, _ in looks.got}) == 3
    assert sum(looks.looks.values()) <= 3 * 3


async def test_as_many_readers_are_woken_as_entries_come(waiting: tuple[Looks, Any]) -> None:
    """Or fewer, if they are done as quickly."""
    looks, other = waiting
    await put(other, Mail.SEND, *NAMES)
    await until(lambda: len(looks.got) == len(NAMES))
    assert sorted(name for _, name in looks.got) == NAMES


@pytest.mark.parametrize("how", ["cancelled", "stopped"])
async def test_a_reader_that_was_woken_and_goes_hands_the_wake_on(how: str, waiting: tuple[Looks, Any]) -> None:
    """It has not looked: another one takes the entry that came, which would wait for an hour otherwise."""
    looks, other = waiting
    changes = looks.spool._session.changes
    tell = changes.tell

    def go_when_woken(queue: str, entries: float = 1) -> None:
        tell(queue, entries)
        changes.tell = tell
        woken = next(iter(waiters_of(looks.spool)))
        assert woken.woken
        number = 0  # the one that has waited for longest
        _ = looks.scopes[number].cancel() if how == "cancelled" else looks.readers[number].stop()

    changes.tell = go_when_woken
    looks.count -= 1
    await put(other, Mail.SEND, "one")
    await until(lambda: looks.got)
    [(number, name)] = looks.got
    assert (number != 0, name) == (True, "one")

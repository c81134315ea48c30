"""Entries that wait: when they come, in which order, and what becomes of them meanwhile."""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import random
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio

from helpers.calls import WithoutSyncs
from helpers.children import quick_directory
from helpers.inside import dequeuer_of, schedule_of, storage_of
from helpers.proofs import WHOLE
from helpers.spools import ANNE, BERT, START, Mail, load_spool, make_spool, quick_spool, recover, state_of
from trio_multispool import (
    EntryNotFound,
    Err,
    NameTaken,
    NotAdopted,
    Ok,
    OutOfSpace,
    Remove,
    Save,
    Spool,
    TooManyOpenFiles,
    Unavailable,
    Use,
)
from trio_multispool.model.lifecycle import State
from trio_multispool.storage.directory import checkout
from trio_multispool.storage.directory import schedule as schedule_module
from trio_multispool.storage.directory.disk.locks import lock_existing
from trio_multispool.threads.loop import running_loop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trio_multispool.storage.directory.disk.syscalls import Notifier

QUICK = 0.005


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Say where the spool is to be."""
    with quick_directory(tmp_path) as directory:
        yield directory / "spool"


async def names_available(spool: Spool[Any, Any, Any, Any], queue: Mail = Mail.SEND) -> list[str]:
    """Remove what can be had now, and return the names in the order in which it came."""
    found: list[str] = []
    async with spool.reader(queue) as reader:
        async for job in reader.available():
            async with job:
                found.append(job.name)
                (await job.remove()).unwrap()
    return found


async def take_one(reader: Any) -> str:
    """Wait for an entry, remove it, and return its name."""
    job = (await reader.dequeue()).unwrap()
    assert job is not None
    async with job:
        (await job.remove()).unwrap()
        return job.name


def waiting(path: Path, queue: str = "send") -> set[str]:
    """Return the names of what waits for a queue."""
    return set(state_of(path).waiting[queue])


@pytest.mark.parametrize(
    "not_before",
    [60, 60.0, datetime.timedelta(minutes=1), datetime.datetime.fromtimestamp(START + 60, datetime.UTC)],
    ids=["whole seconds", "seconds", "timedelta", "datetime"],
)
async def test_an_entry_that_waits_comes_when_it_is_due_and_not_before(place, wall, not_before):
    """However the time is said: until then it is in no listing and for nobody to have, and its name is taken."""
    spool = await quick_spool(place, now=wall)
    entry = (await spool.enqueue(Mail.SEND, ANNE, b"later", name=Use("a"), not_before=not_before)).unwrap()
    wall.time += 59.9
    assert (await spool.entries(Mail.SEND)).unwrap() == []
    assert await entry.checkout() == Err(EntryNotFound("send", "a"))
    assert await spool.enqueue(Mail.RETRY, ANNE, b"", name=Use("a")) == Err(NameTaken("a"))
    assert await names_available(spool) == []
    assert waiting(place) == {"a"}
    wall.time += 0.1
    assert await names_available(spool) == ["a"]
    assert state_of(place).faults() == []


@pytest.mark.sample
async def test_what_waits_can_be_listed_in_the_order_in_which_it_is_due(place, wall):
    """With its time, in UTC; of one queue, and nothing that is available or in hand."""
    spool = await quick_spool(place, now=wall)
    assert (await spool.waiting(Mail.SEND)).unwrap() == []
    for name, delay in (("b", 30), ("a", 60), ("c", 90)):
        (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(name), not_before=delay)).unwrap()
    (await spool.enqueue(Mail.RETRY, ANNE, b"", name=Use("d"), not_before=1)).unwrap()
    (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("e"))).unwrap()
    async with (await spool.entry(Mail.SEND, "c").unwrap().checkout(early=True)).unwrap():
        found = (await spool.waiting(Mail.SEND)).unwrap()
    assert found == [
        (datetime.datetime.fromtimestamp(START + delay, datetime.UTC), spool.entry(Mail.SEND, name).unwrap())
        for name, delay in (("b", 30), ("a", 60))
    ]
    with pytest.raises(TypeError):
        await spool.waiting("send")


@pytest.mark.proof
@pytest.mark.parametrize(("backend", "number"), [("trio", 10_000 if WHOLE else 1_000), ("asyncio", 1_000)])
def test_thousands_of_entries_come_in_the_order_in_which_they_are_due(place, wall, backend, number):
    """Whatever the order in which they were enqueued, and before all that has not waited."""
    delays = list(range(1, number + 1))
    random.Random(7).shuffle(delays)  # no secret
    came: list[int] = []

    async def enqueue_some(spool: Any, some: list[int]) -> None:
        for delay in some:
            answer = await spool.enqueue(Mail.SEND, ANNE, str(delay).encode(), not_before=delay)
            answer.unwrap()

    async def main() -> None:
        spool = await quick_spool(place, now=wall)
        (await spool.enqueue(Mail.SEND, BERT, b"0")).unwrap()
        async with anyio.create_task_group() as tasks:
            for first in range(100):
                tasks.start_soon(enqueue_some, spool, delays[first::100])
        for time in (START + number / 2, START + number):
            wall.time = time
            async with spool.reader(Mail.SEND) as reader:

                async def note(_envelope: Any, data: Any) -> Remove:
                    came.append(int((await data.load()).unwrap()))
                    return Remove()

                (await reader.iter_available(note)).unwrap()

    anyio.run(main, backend=backend)
    assert came == [*range(1, number // 2 + 1), 0, *range(number // 2 + 1, number + 1)]


async def test_a_waiting_reader_has_what_is_due_at_the_next_time_and_hears_of_what_is_due_earlier(place, wall):
    """It waits for the first of them, with one timer; another process that enqueues what is earlier shortens it."""
    spool, other = await quick_spool(place, now=wall), await quick_spool(place, now=wall)
    (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("late"), not_before=50)).unwrap()
    waits, waited = trio.open_memory_channel[float](100)
    activity = spool._session.changes
    wait = activity.wait

    async def telling(queue: str, seen: int, timeout: float) -> None:  # noqa: ASYNC109  # that of the original
        waits.send_nowait(timeout)
        await wait(queue, seen, timeout)

    activity.wait = telling
    async with spool.reader(Mail.SEND, poll_interval=1000) as reader, trio.open_nursery() as nursery:
        got: list[str] = []

        async def take() -> None:
            got.append(await take_one(reader))

        nursery.start_soon(take)
        assert await waited.receive() == 50
        (await other.enqueue(Mail.SEND, ANNE, b"", name=Use("early"), not_before=20)).unwrap()
        while (timeout := await waited.receive()) != 20:
            assert timeout < 1, "only while the entry is locked by who enqueues it are waits short"
        wall.time += 20
        (await other.enqueue(Mail.SEND, ANNE, b"", name=Use("later"), not_before=1)).unwrap()  # any hint will do
    assert got == ["early"]
    assert waiting(place) == {"late", "later"}


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_a_waiting_reader_follows_the_wall_clock_when_it_jumps(place, wall, backend):
    """Forward: what has become due comes within the poll interval. Back: what was due is not any more."""

    async def main() -> None:
        spool = await quick_spool(place, now=wall)
        (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a"), not_before=3600)).unwrap()
        (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("b"), not_before=7200)).unwrap()
        async with spool.reader(Mail.SEND, poll_interval=QUICK) as reader:
            async with anyio.create_task_group() as tasks:
                got: list[str] = []

                async def take() -> None:
                    got.append(await take_one(reader))

                tasks.start_soon(take)
                assert (await reader.dequeue_available()).unwrap() is None
                wall.time += 3600
            assert got == ["a"]
            wall.time += 3600
            wall.time -= 3601
            assert (await reader.dequeue_available()).unwrap() is None
            wall.time += 3601
            assert await take_one(reader) == "b"

    anyio.run(main, backend=backend)


async def test_a_handler_saves_to_wait(place, wall):
    """With `Save(…, not_before=…)`, with new metadata or as it is; and what was saved so comes with its data."""
    spool = await quick_spool(place, now=wall)
    (await spool.enqueue(Mail.SEND, ANNE, b"Hello", name=Use("a"))).unwrap()
    seen: list[int] = []

    async def fail(envelope: Any, data: Any) -> Any:
        assert (await data.load()).unwrap() == b"Hello"
        seen.append(envelope.attempts)
        if len(seen) == 1:
            return Save(Mail.SEND, not_before=10)
        envelope.attempts += 1
        return Save(Mail.RETRY, envelope, not_before=datetime.timedelta(seconds=10))

    for _ in range(2):
        async with spool.reader(Mail.SEND) as reader:
            (await reader.iter_available(fail)).unwrap()
        wall.time += 10
    assert seen == [0, 0]
    async with spool.reader(Mail.RETRY) as reader:
        job = (await reader.dequeue()).unwrap()
        assert job is not None
        async with job:
            assert (job.name, job.metadata.attempts) == ("a", 1)
    assert await names_available(spool, Mail.RETRY) == ["a"]


async def test_what_waited_and_is_given_back_is_where_it_was(place, wall):
    """Released, or returned by a block: it is due still, comes before what has not waited, and may be so again."""
    spool = await quick_spool(place, now=wall)
    (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a"), not_before=1)).unwrap()
    wall.time += 1
    async with spool.reader(Mail.SEND) as reader:
        (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("b"))).unwrap()
        async with (await reader.dequeue()).unwrap() as job:
            assert job.name == "a"
            (await job.release()).unwrap()
        async with (await reader.dequeue()).unwrap() as job:
            assert job.name == "a"
    assert waiting(place) == {"a"}
    wall.time -= 1
    assert await names_available(spool) == ["b"]


async def test_an_entry_can_be_taken_early_by_its_name(path, wall):
    """To be dropped or to be done at once; what is returned waits as before."""
    spool = await quick_spool(path, now=wall)
    entry = (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a"), not_before=60)).unwrap()
    async with (await entry.checkout(early=True)).unwrap() as job:
        assert job.name == "a"
    assert list(storage_of(spool).waiting("send")) == [(START + 60, "a")]
    assert await entry.try_checkout() == Ok(Unavailable.GONE)
    async with (await entry.checkout(early=True)).unwrap() as job:
        (await job.save(Mail.SEND)).unwrap()
    assert await names_available(spool) == ["a"]
    assert await entry.try_checkout(early=True) == Ok(Unavailable.GONE)


async def test_a_time_that_has_come_is_none(place, wall):
    """Nothing waits for the past, and a delay of nothing is no delay."""
    spool = await quick_spool(place, now=wall)
    past = datetime.datetime.fromtimestamp(START - 1, datetime.UTC)
    for number, not_before in enumerate((0, datetime.timedelta(0), past)):
        (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(f"{number}"), not_before=not_before)).unwrap()
    assert state_of(place).names("send") == ["0", "1", "2"]


async def test_many_are_enqueued_to_wait_until_the_same_time(place, wall):
    """`not_before` of `enqueue_many` is that of all."""
    spool = await quick_spool(place, now=wall)
    answers = await spool.enqueue_many(Mail.SEND, [(ANNE, b"1"), (ANNE, b"2")], not_before=5)
    names = [answer.unwrap().name for answer in answers]
    assert waiting(place) == set(names)
    wall.time += 5
    assert await names_available(spool) == names


@pytest.mark.parametrize(
    ("not_before", "error", "words"),
    [
        (datetime.datetime(2050, 1, 1), ValueError, "time zone"),  # noqa: DTZ001  # that is the point
        (-1, ValueError, "not negative"),
        (float("nan"), ValueError, "not negative"),
        (float("inf"), ValueError, "2445"),
        (datetime.datetime.max.replace(tzinfo=datetime.UTC), ValueError, "2445"),
        ("tomorrow", TypeError, "tomorrow"),
    ],
)
async def test_what_is_no_time_is_refused_before_anything_happens(place, wall, not_before, error, words):
    """By `enqueue`, `enqueue_many` and `save`, with words that name it."""
    spool = await quick_spool(place, now=wall)
    (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a"))).unwrap()
    with pytest.raises(error, match=words):
        await spool.enqueue(Mail.SEND, ANNE, b"", not_before=not_before)
    with pytest.raises(error, match=words):
        await spool.enqueue_many(Mail.SEND, [(ANNE, b"")], not_before=not_before)
    async with spool.reader(Mail.SEND) as reader, (await reader.dequeue()).unwrap() as job:
        with pytest.raises(error, match=words):
            await job.save(Mail.RETRY, not_before=not_before)
    assert state_of(place).entries() == {"a"}


async def test_nothing_waits_where_other_programs_may_not_know_of_it(path, wall):
    """A spool that is not adopted answers so, and the entry is where it was; when it is adopted, it works."""
    await quick_spool(path)
    (path / ".spool.json").unlink()
    spool = (await Spool.load(path, (await _spoolable(path)), now=wall)).unwrap()
    refused = Err(NotAdopted(os.fspath(path), "entries that wait"))
    assert await spool.enqueue(Mail.SEND, ANNE, b"", not_before=1) == refused
    (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a"))).unwrap()
    async with spool.reader(Mail.SEND) as reader, (await reader.dequeue()).unwrap() as job:
        assert await job.save(Mail.SEND, not_before=1) == refused
        (await job.release()).unwrap()
    assert state_of(path).names("send") == ["a"]
    (await spool.adopt()).unwrap()
    (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("b"), not_before=1)).unwrap()
    assert waiting(path) == {"b"}


async def _spoolable(path: Path) -> Any:
    return (await load_spool(path)).spoolable


async def test_what_waited_before_this_process_began_comes_too(place, wall):
    """The directory is looked at when the reader begins; and entries of the dead are available at once."""
    spool = await quick_spool(place, now=wall)
    for number in range(3):
        (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(f"{number}"), not_before=3 - number)).unwrap()
    spool.close()
    wall.time += 3
    assert await names_available(await quick_spool(place, now=wall)) == ["2", "1", "0"]


class WithoutNotify(WithoutSyncs):
    """A kernel that has no inotify instance to spare."""

    def notify(self) -> Notifier:
        """Refuse."""
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


async def test_without_being_told_a_reader_finds_what_another_process_lets_wait(path, wall):
    """By looking again after a while."""
    spool, other = await make_spool(path, system_calls=WithoutNotify(), now=wall), await quick_spool(path, now=wall)
    (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("late"), not_before=100)).unwrap()
    async with spool.reader(Mail.SEND, poll_interval=QUICK) as reader:
        assert (await reader.dequeue_available()).unwrap() is None
        (await other.enqueue(Mail.SEND, ANNE, b"", name=Use("early"), not_before=1)).unwrap()
        wall.time += 1
        async with (await reader.dequeue()).unwrap() as job:
            assert job.name == "early"


async def test_of_very_many_those_that_are_due_first_are_kept(path, wall, monkeypatch):
    """And when they are used up, the others are looked for: all come, in order."""
    monkeypatch.setattr(schedule_module, "MOST_KEPT", 10)
    spool, other = await quick_spool(path, now=wall), await quick_spool(path, now=wall)
    async with spool.reader(Mail.SEND) as reader:
        for number in range(35, 0, -1):
            (await other.enqueue(Mail.SEND, ANNE, b"", name=Use(f"{number:02}"), not_before=number)).unwrap()
            assert (await reader.dequeue_available()).unwrap() is None
    assert len(schedule_of(spool, "send")._times) <= 20
    wall.time += 35
    assert await names_available(spool) == [f"{number:02}" for number in range(1, 36)]


async def test_an_entry_that_is_due_and_locked_is_tried_again(path, wall):
    """Somebody looks at it just then: its reader waits a little, and has it."""
    spool = await quick_spool(path, now=wall)
    (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a"), not_before=1)).unwrap()
    wall.time += 1
    lock = lock_existing(storage_of(spool).layout, "a")
    async with spool.reader(Mail.SEND, poll_interval=QUICK) as reader, trio.open_nursery() as nursery:
        assert (await reader.dequeue_available()).unwrap() is None

        nursery.start_soon(take_one, reader)
        lock.release()
    assert state_of(path).entries() == set()


class WithdrawnError(BaseException):
    """What is raised right before a commit, as a cancellation would be."""


async def test_what_is_not_taken_after_all_stays_where_it_is_and_comes_the_next_time(path, wall, monkeypatch):
    """A check-out that is withdrawn before its commit puts the entry back into the schedule."""
    spool = await quick_spool(path, now=wall)
    (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a"), not_before=1)).unwrap()
    wall.time += 1
    claim = checkout.claim

    def withdraw() -> None:
        raise WithdrawnError

    async with spool.reader(Mail.SEND) as reader:
        with monkeypatch.context() as patch:
            patch.setattr(
                checkout,
                "claim",
                lambda *arguments, **named: claim(*arguments, **{**named, "before_commit": withdraw}),
            )
            with pytest.raises(WithdrawnError):
                await reader.dequeue()
        assert waiting(path) == {"a"}
        job = (await reader.dequeue_available()).unwrap()
        assert job is not None
        async with job:
            assert job.name == "a"


async def test_what_the_owner_of_a_due_entry_leaves_when_it_dies_is_available(place, wall):
    """Recovery puts it into its queue, whatever the clock says by then."""
    spool, other = await quick_spool(place, now=wall), await quick_spool(place, now=wall)
    (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a"), not_before=1)).unwrap()
    wall.time += 1
    reader = spool.reader(Mail.SEND)
    with contextlib.suppress(anyio.ClosedResourceError):
        async with reader:
            job = (await reader.dequeue()).unwrap()
            assert job is not None
            job._checkout.claim.abandon()
            job._checkout.let_go = True
    wall.time -= 1
    assert [each.queue for each in await recover(other)] == ["send"]
    assert await names_available(other) == ["a"]


async def test_ages_stay_true(path):
    """What waits is as old as it is: since it was put there, and not from the time at which it is due."""
    before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=2)
    spool = await quick_spool(path)
    (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a"), not_before=3600)).unwrap()
    [item] = storage_of(spool).inventory()
    assert before < item.modified_at < before + datetime.timedelta(minutes=10)
    assert before + datetime.timedelta(minutes=50) < item.due_at < before + datetime.timedelta(minutes=70)
    assert isinstance(await spool.entries(Mail.SEND), Ok)


async def test_while_it_is_found_out_whether_an_entry_is_to_be_had_nobody_waits_for_long(path, wall, monkeypatch):
    """A thread that has taken it from the schedule may be told to leave it: others look again soon."""
    spool = await quick_spool(path, now=wall)
    (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a"), not_before=1)).unwrap()
    wall.time += 1
    schedule, busy = schedule_of(spool, "send"), []
    claim = checkout.claim

    def tell(*arguments: Any, **named: Any) -> Any:
        busy.append(schedule.busy)
        return claim(*arguments, **named)

    monkeypatch.setattr(checkout, "claim", tell)
    assert await names_available(spool) == ["a"]
    assert busy == [True]
    assert not schedule.busy


async def test_what_could_not_be_looked_at_is_looked_at_the_next_time(path, wall, monkeypatch):
    """What the kernel has told once is not forgotten because looking at it failed."""
    spool, other = await quick_spool(path, now=wall), await quick_spool(path, now=wall)
    (await other.enqueue(Mail.SEND, ANNE, b"", name=Use("late"), not_before=100)).unwrap()
    async with spool.reader(Mail.SEND) as reader:
        assert (await reader.dequeue_available()).unwrap() is None
        (await other.enqueue(Mail.SEND, ANNE, b"", name=Use("a"), not_before=1)).unwrap()
        wall.time += 1
        trouble = TooManyOpenFiles("look at", "send/.waiting/a")

        def fail(*_arguments: Any) -> None:
            raise trouble

        with monkeypatch.context() as patch:
            patch.setattr(schedule_module, "due_at_of", fail)
            assert await reader.dequeue_available() == Err(trouble)
        job = (await reader.dequeue_available()).unwrap()
        assert job is not None
        async with job:
            assert job.name == "a"


async def test_what_can_neither_be_decoded_nor_set_aside_does_not_come_round_for_ever(path, wall, monkeypatch):
    """It is back where it waited, and this reader leaves it alone."""
    spool = await quick_spool(path, now=wall)
    (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a"), not_before=1)).unwrap()
    file = path / "send/.waiting/a"
    file.write_bytes(b"{")
    os.utime(file, (wall.time, wall.time))
    (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("b"))).unwrap()
    tries = []
    claim = checkout.claim

    def count(*arguments: Any, **named: Any) -> Any:
        if arguments[1].state is State.WAITING:
            tries.append(arguments)
        assert len(tries) < 10, "it comes round for ever"
        return claim(*arguments, **named)

    def fail(*_arguments: Any) -> None:
        raise OutOfSpace("move", str(path), "full")

    monkeypatch.setattr(checkout, "claim", count)
    monkeypatch.setattr(storage_of(spool), "quarantine", fail)
    async with spool.reader(Mail.SEND, poll_interval=QUICK) as reader:
        assert await take_one(reader) == "b"
        for _ in range(3):
            assert (await reader.dequeue_available()).unwrap() is None
    assert len(tries) == 1
    assert waiting(path) == {"a"}


async def test_when_those_that_were_kept_are_used_up_the_next_look_is_due(path, wall, monkeypatch):
    """A reader that waits must not wait for a hint: what comes after them is known to nobody."""
    monkeypatch.setattr(schedule_module, "MOST_KEPT", 2)
    spool = await quick_spool(path, now=wall)
    for number in (1, 2, 3):
        (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(f"{number}"), not_before=number)).unwrap()
    schedule = schedule_of(spool, "send")
    schedule.look(wanted=True)
    wall.time += 3
    for name in ("1", "2"):
        due = schedule.take()
        assert due is not None
        assert due.name == name
        (path / "send/.waiting" / name).unlink()
        schedule.decide()
    assert schedule.take() is None
    assert schedule.next_at() == START + 2
    schedule.look(wanted=True)
    assert schedule.next_at() == START + 3
    spool.close()  # no reader has left, which gives back what tells of arrivals


async def test_what_waited_and_is_due_comes_before_what_has_not_waited(place, wall):
    """Whatever the names are, also when it becomes due while a listing is worked off: else it might never come."""
    spool = await quick_spool(place, now=wall)
    for name in "abc":
        (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(name))).unwrap()
    for name, after in (("x", 1), ("y", 2)):
        (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(name), not_before=after)).unwrap()
    wall.time += 1
    async with spool.reader(Mail.SEND) as reader:
        names = [await take_one(reader) for _ in range(2)]
        wall.time += 1
        names += [await take_one(reader) for _ in range(3)]
    assert names == ["x", "a", "y", "b", "c"]


# Very many that wait


async def test_what_waits_is_read_a_piece_at_a_time(path, wall, monkeypatch):
    """So whoever looks can be cancelled meanwhile; and all are known, the first to be due first, when it is done."""
    monkeypatch.setattr(schedule_module, "PIECE", 2)
    monkeypatch.setattr(schedule_module, "LONGEST_PIECE", 0.0)
    spool = await quick_spool(path, now=wall)
    for number in range(9):
        (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(f"{number}"), not_before=20 - number)).unwrap()
    async with spool.reader(Mail.SEND) as reader:
        hops: list[Any] = []
        source = dequeuer_of(reader).claimer.source
        claim = source.claim

        def counting(*arguments: Any, **options: Any) -> Any:
            hops.append(claim(*arguments, **options))
            return hops[-1]

        loop, scope = running_loop(), anyio.CancelScope()

        def cancelling(*arguments: Any, **options: Any) -> Any:
            cancelled = threading.Event()
            loop.call(lambda: (scope.cancel(), cancelled.set()))
            assert cancelled.wait(60)
            return counting(*arguments, **options)

        source.claim = cancelling
        with scope:
            await reader.dequeue_available()
        assert scope.cancelled_caught
        assert len(hops) == 1
        source.claim = counting
        assert (await reader.dequeue_available()).unwrap() is None
        assert len(hops) > 2
        wall.time += 21
        got = [(await reader.dequeue_available()).unwrap().name for _ in range(9)]
        assert got == [f"{number}" for number in reversed(range(9))]


async def test_what_comes_to_wait_while_all_is_read_again_is_known_at_the_end(path, wall, monkeypatch):
    """Also what is due after all that was known before."""
    monkeypatch.setattr(schedule_module, "PIECE", 1)
    monkeypatch.setattr(schedule_module, "LONGEST_PIECE", 0.0)
    monkeypatch.setattr(schedule_module, "MOST_KEPT", 2)
    spool, other = await quick_spool(path, now=wall), await quick_spool(path, now=wall)
    for number in (1, 2, 3):
        (await other.enqueue(Mail.SEND, ANNE, b"", name=Use(f"{number}"), not_before=number)).unwrap()
    schedule = schedule_of(spool, "send")
    while not schedule.look(wanted=True):
        pass
    for name in ("1", "2"):  # those that were kept are used up
        wall.time += 1
        due = schedule.take()
        assert due is not None
        assert due.name == name
        schedule.decide()
        (path / "send" / ".waiting" / name).unlink()
    assert not schedule.look(wanted=True)
    (await other.enqueue(Mail.SEND, ANNE, b"", name=Use("late"), not_before=1000)).unwrap()
    while not schedule.look(wanted=True):
        pass
    wall.time += 2000
    found = [schedule.take() for _ in range(2)]
    assert [due and due.name for due in found] == ["3", "late"]


async def test_a_directory_of_what_waits_that_goes_while_it_is_read_ends_the_reading(path, wall, monkeypatch):
    """Then nothing waits, and the queue is looked at."""
    monkeypatch.setattr(schedule_module, "PIECE", 1)
    monkeypatch.setattr(schedule_module, "LONGEST_PIECE", 0.0)
    spool = await quick_spool(path, now=wall)
    for number in range(9):
        (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(f"{number}"), not_before=20)).unwrap()
    schedule = schedule_of(spool, "send")
    assert not schedule.look(wanted=True)
    (path / "send" / ".waiting").rename(path.parent / "away")
    assert schedule.look(wanted=True)
    assert schedule.next_at() is None

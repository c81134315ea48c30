"""`testing.memory_spool`: what a program's tests do with a spool that needs no files, no threads and no time."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import functools
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio
import trio.testing

from helpers.finding import Aside, Reader, put
from helpers.inside import sizes_of_looks
from helpers.results import is_err
from helpers.spools import ANNE, BERT, MAIL, Envelope, Mail, quick_spool
from helpers.stores import QUEUES, claim, claim_waiting, nothing, save
from trio_multispool import (
    CorruptMetadata,
    DurabilityUnknown,
    EntryBusy,
    EntryNotFound,
    Err,
    NotASpool,
    Ok,
    OutOfSpace,
    Release,
    Remove,
    Reserve,
    Retry,
    Save,
    Spool,
    Spoolable,
    StorageFailure,
    TooManyOpenFiles,
    UnreadableEntry,
    Use,
    prioritized_names,
)
from trio_multispool.spool.spool import session_of
from trio_multispool.storage.memory.contents import Contents
from trio_multispool.storage.memory.store import MemoryStorage
from trio_multispool.testing import Clock, Faults, Operation, memory_spool, work_off
from trio_multispool.threads import pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

FULL = OutOfSpace("write", "memory", "no space left on device")


@contextlib.asynccontextmanager
async def in_time() -> AsyncIterator[None]:
    """Fail, instead of waiting for ever, if nobody is woken."""
    with anyio.fail_after(60):
        yield


async def remove(metadata: Any, data: Any) -> Remove:
    """Work on an entry."""
    return Remove()


async def test_every_operation_works_without_a_file_and_without_a_thread(tmp_path, monkeypatch):
    """Enqueue, list, check out, save, data, direct changes, channels, ticks: as in a directory, all in the loop."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delattr(pool, "start")
    async with memory_spool(MAIL) as spool:
        entry = (await spool.enqueue(Mail.SEND, ANNE, b"Hello", name=Use("a", remember=60))).unwrap()
        assert [each.name for each in (await spool.entries(Mail.SEND)).unwrap()] == ["a"]
        async with (await entry.checkout()).unwrap() as job:
            assert (job.metadata, (await job.data.load()).unwrap()) == (ANNE, b"Hello")
            assert is_err(await entry.checkout())
            (await job.data.save(b"Hello again")).unwrap()
            (await job.progress(0.5, "half way")).unwrap()
            job.update(lambda metadata: Envelope(metadata.recipient, 1))
            (await job.save(Mail.RETRY)).unwrap()
        moved = spool.entry(Mail.RETRY, "a").unwrap()
        assert (await moved.direct.contents()).unwrap() == Envelope("anne@example.org", 1)
        (await moved.direct.save(BERT)).unwrap()
        (await moved.direct.remove()).unwrap()
        assert (await spool.enqueue_if_absent(Mail.SEND, ANNE, b"", name=Use("a"))) == Ok(None)
        for answer in await spool.enqueue_many(Mail.SEND, [(ANNE, b"1"), (BERT, b"2")]):
            assert answer.unwrap().queue is Mail.SEND
        async with spool.reader(Mail.SEND) as reader:
            assert await work_off(reader, remove) == Ok(2)
        assert (await spool.recover()).unwrap() == []
    assert list(tmp_path.iterdir()) == []


async def test_a_day_passes_at_once_under_trios_autojump_clock():
    """A reader that waits for an entry of tomorrow has it at once, and the spool's clock says tomorrow."""

    async def main() -> None:
        clock = Clock()
        spool, began = memory_spool(MAIL, clock=clock), clock()
        (await spool.enqueue(Mail.SEND, ANNE, b"", not_before=datetime.timedelta(days=1))).unwrap()
        async with spool.reader(Mail.SEND) as reader:
            looks = sizes_of_looks(reader)
            with trio.fail_after(100_000):
                job = (await reader.dequeue()).unwrap()
            assert job is not None
            assert clock() - began == pytest.approx(86400, abs=60)
            assert trio.current_time() == pytest.approx(86400, abs=60)
            assert len(looks) == 2, "it looks again only when it is told to"

    await on_a_clock_that_jumps(main)


async def test_what_the_jobs_of_a_closed_spool_held_is_had_though_nothing_tells_of_it():
    """The death of an owner is not announced, so a reader looks again for as long as anything is checked out."""

    async def main() -> None:
        spool = memory_spool(MAIL)
        other = memory_spool(MAIL, beside=spool)
        entry = (await spool.enqueue(Mail.SEND, ANNE, b"")).unwrap()
        held = (await entry.checkout()).unwrap()
        async with other.reader(Mail.SEND) as reader, trio.open_nursery() as nursery:

            async def die() -> None:
                await trio.testing.wait_all_tasks_blocked()
                spool.close()

            nursery.start_soon(die)
            with trio.fail_after(1000):
                job = (await reader.dequeue()).unwrap()
            assert job is not None
            assert job.name == held.name

    await on_a_clock_that_jumps(main)


async def on_a_clock_that_jumps(main: Any) -> None:
    """Run a coroutine on a Trio of its own, where nothing waits in real time."""
    await anyio.to_thread.run_sync(
        functools.partial(trio.run, main, clock=trio.testing.MockClock(autojump_threshold=0))
    )


async def test_a_reader_that_waits_has_what_becomes_due_when_the_clock_is_put_forward():
    """It is woken; nobody sleeps for it."""
    clock = Clock()
    spool = memory_spool(MAIL, clock=clock)
    (await spool.enqueue(Mail.SEND, ANNE, b"", not_before=1_000_000)).unwrap()
    [(due_at, _)] = (await spool.waiting(Mail.SEND)).unwrap()
    got = []
    async with spool.reader(Mail.SEND) as reader, in_time(), anyio.create_task_group() as tasks:

        async def take() -> None:
            async with (await reader.dequeue()).unwrap() as job:
                got.append(job.metadata)
                (await job.remove()).unwrap()

        tasks.start_soon(take)
        await anyio.wait_all_tasks_blocked()
        assert await reader.dequeue_available() == Ok(None)
        assert got == []
        clock.advance(1_000_000)
    assert got == [ANNE]
    assert clock() >= due_at.timestamp()


@pytest.mark.parametrize("handed", ["one", "pool"])
async def test_a_reader_that_waits_is_told_of_an_entry_by_another_spool(handed):
    """`beside` stands for another process: its readers need not look again and again."""
    spool = memory_spool(MAIL)
    other = memory_spool(MAIL, beside=spool)
    got = []
    async with other.reader(Mail.SEND) as reader, in_time(), anyio.create_task_group() as tasks:

        async def work(metadata: Envelope, data: Any) -> Remove:
            got.append(metadata)
            if len(got) == 5:
                reader.stop()
            return Remove()

        tasks.start_soon(functools.partial(reader.iter, work, concurrency=1 if handed == "one" else 4))
        for _ in range(5):
            await anyio.wait_all_tasks_blocked()
            (await spool.enqueue(Mail.SEND, ANNE, b"")).unwrap()
    assert got == [ANNE] * 5


async def test_failed_work_comes_to_its_end_with_the_clock():
    """`work_off` puts the clock forward until nothing waits: all attempts are made, and the entry is a dead letter."""
    clock = Clock()
    spool = memory_spool(MAIL, clock=clock)
    (await spool.enqueue(Mail.SEND, ANNE, b"")).unwrap()
    attempts = []

    async def fail(metadata: Envelope, data: Any) -> Remove:
        attempts.append((data.attempt, clock()))
        raise ConnectionError

    async with spool.reader(Mail.SEND) as reader:
        retry = Retry(attempts=3, dead_letter=Mail.FAILED, on=lambda error: 10.0)
        assert await work_off(reader, fail, retry=retry) == Ok(1)
        assert len((await spool.waiting(Mail.SEND)).unwrap()) == 1
        assert await work_off(reader, fail, retry=retry, clock=clock) == Ok(2)
    assert [number for number, _ in attempts] == [1, 2, 3]
    assert attempts[1][1] - attempts[0][1] >= 10
    assert attempts[2][1] - attempts[1][1] >= 10
    assert len((await spool.entries(Mail.FAILED)).unwrap()) == 1


async def test_working_off_takes_what_the_work_makes_and_not_what_waits():
    """Entries that a handler enqueues or saves into the queue are worked on too; the number of calls is returned."""
    spool = memory_spool(MAIL)
    (await spool.enqueue(Mail.SEND, ANNE, b"")).unwrap()
    (await spool.enqueue(Mail.SEND, ANNE, b"", not_before=60)).unwrap()

    async def once_more(metadata: Envelope, data: Any) -> Any:
        if metadata.attempts < 2:
            return Save(Mail.SEND, Envelope(metadata.recipient, metadata.attempts + 1))
        if metadata.recipient == ANNE.recipient:
            (await spool.enqueue(Mail.SEND, BERT, b"")).unwrap()
        return Remove()

    async with spool.reader(Mail.SEND) as reader:
        assert await work_off(reader, once_more) == Ok(6)
    assert (await spool.entries(Mail.SEND)).unwrap() == []
    assert len((await spool.waiting(Mail.SEND)).unwrap()) == 1


@pytest.mark.sample
async def test_working_off_works_in_a_directory_too(place):
    """Nothing in it is about memory."""
    spool = await quick_spool(place)
    (await spool.enqueue(Mail.SEND, ANNE, b"")).unwrap()
    async with spool.reader(Mail.SEND) as reader:
        assert await work_off(reader, remove) == Ok(1)


@pytest.mark.parametrize("retry", [None, Retry(attempts=3, dead_letter=Mail.FAILED)], ids=["once", "retrying"])
async def test_an_entry_that_comes_back_each_time_ends_the_work_with_its_name(retry):
    """Otherwise a test would hang. The entry is in its queue."""
    spool = memory_spool(MAIL)
    (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("boomerang"))).unwrap()

    calls = []

    async def release(metadata: Envelope, data: Any) -> Release:
        calls.append(data.name)
        return Release()

    async with spool.reader(Mail.SEND) as reader:
        with pytest.raises(RuntimeError, match="boomerang was given to the handler 100 times"):
            await work_off(reader, release, retry=retry)
    assert calls == ["boomerang"] * 100
    assert len((await spool.entries(Mail.SEND)).unwrap()) == 1


async def test_data_is_a_file_for_other_programs_while_they_work():
    """A copy, gone afterwards; a job that is settled has none any more."""
    spool = memory_spool(MAIL)
    entry = (await spool.enqueue(Mail.SEND, ANNE, b"Hello")).unwrap()
    async with (await entry.checkout()).unwrap() as job:
        async with job.data.as_file() as path:
            assert path.read_bytes() == b"Hello"
        assert not path.exists()
        (await job.remove()).unwrap()
        with pytest.raises(RuntimeError):
            async with job.data.as_file():
                pass


# Faults


async def test_each_operation_fails_on_demand_and_then_works():
    """With the error that was asked for, as often as was asked for; the entry is where it was."""
    faults = Faults()
    spool = memory_spool(MAIL, faults=faults)

    async def fails_once(operation: Operation, call: Any) -> Any:
        faults.add(operation, FULL)
        assert await call() == Err(FULL)
        return (await call()).unwrap()

    entry = await fails_once(Operation.ENQUEUE, lambda: spool.enqueue(Mail.SEND, ANNE, b"Hello"))
    job = await fails_once(Operation.CHECK_OUT, entry.checkout)
    async with job:
        await fails_once(Operation.RELEASE, job.release)
    async with (await entry.checkout()).unwrap() as job:
        await fails_once(Operation.SAVE, lambda: job.data.save(b"Hello again"))
        await fails_once(Operation.SAVE, lambda: job.save(Mail.RETRY))
    async with (await spool.entry(Mail.RETRY, entry.name).unwrap().checkout()).unwrap() as job:
        await fails_once(Operation.REMOVE, job.remove)
    await fails_once(Operation.RECOVER, spool.recover)
    assert (await spool.entries(Mail.SEND)).unwrap() == (await spool.entries(Mail.RETRY)).unwrap() == []


async def test_faults_are_for_one_entry_or_for_several_times_and_can_be_cleared():
    """The others go their way."""
    faults = Faults()
    spool = memory_spool(MAIL, faults=faults)
    faults.add(Operation.ENQUEUE, FULL, entry="b")
    faults.add(Operation.ENQUEUE, EntryBusy("c"), entry="c", times=2)
    (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a"))).unwrap()
    for name, times in (("b", 1), ("c", 2)):
        for _ in range(times):
            assert is_err(await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(name)))
        (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(name))).unwrap()
    faults.add(Operation.ENQUEUE, FULL, times=1000)
    faults.clear()
    (await spool.enqueue(Mail.SEND, ANNE, b"")).unwrap()


async def test_an_unreadable_entry_is_passed_over_and_trouble_is_told():
    """A reader tells of trouble that is not one entry's, and goes on after it."""
    faults = Faults()
    spool = memory_spool(MAIL, faults=faults)
    for name in ("a", "b"):
        (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(name))).unwrap()
    faults.add(Operation.CHECK_OUT, UnreadableEntry(Mail.SEND.value, "a", "a bad sector"), entry="a", times=100)
    async with spool.reader(Mail.SEND) as reader:
        assert await work_off(reader, remove) == Ok(1)
        faults.clear()
        faults.add(Operation.CHECK_OUT, TooManyOpenFiles("open", "too many"))
        assert is_err(await work_off(reader, remove))
        assert await work_off(reader, remove) == Ok(1)


async def test_a_reader_that_waits_has_an_entry_when_it_can_be_read_again():
    """Nothing tells of that, so it looks again."""

    async def main() -> None:
        faults = Faults()
        spool = memory_spool(MAIL, faults=faults)
        (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a"))).unwrap()
        faults.add(Operation.CHECK_OUT, UnreadableEntry(Mail.SEND.value, "a", "a bad sector"))
        async with spool.reader(Mail.SEND) as reader:
            with trio.fail_after(100_000):
                job = (await reader.dequeue()).unwrap()
            assert job is not None

    await on_a_clock_that_jumps(main)


async def test_a_fault_of_recovery_is_for_those_who_ask_for_one():
    """Spools that are opened, and readers, go on as on a full disk; the fault is left for `spool.recover`."""
    faults = Faults()
    faults.add(Operation.RECOVER, FULL)
    spool = memory_spool(MAIL, faults=faults)
    (await spool.enqueue(Mail.SEND, ANNE, b"")).unwrap()
    async with spool.reader(Mail.SEND) as reader:
        assert await work_off(reader, remove) == Ok(1)
    assert (await spool.recover(dry_run=True)).unwrap() == []
    assert await spool.recover() == Err(FULL)
    assert (await spool.recover()).unwrap() == []


async def test_a_verdict_that_cannot_be_stored_is_told():
    """The entry is back in its queue, and the handler is called again."""
    faults = Faults()
    spool = memory_spool(MAIL, faults=faults)
    (await spool.enqueue(Mail.SEND, ANNE, b"")).unwrap()
    faults.add(Operation.REMOVE, StorageFailure("unlink", "memory", 5))
    async with spool.reader(Mail.SEND) as reader:
        assert await work_off(reader, remove) == Err(StorageFailure("unlink", "memory", 5))
        assert await work_off(reader, remove) == Ok(1)


# Several spools on the same entries


async def test_spools_beside_each_other_share_their_entries_and_a_closed_one_is_recovered():
    """What one holds is busy for the other. Closed, it is like a process that was killed."""
    spool = memory_spool(MAIL)
    entry = (await spool.enqueue(Mail.SEND, ANNE, b"")).unwrap()
    job = (await entry.checkout()).unwrap()
    other = memory_spool(MAIL, beside=spool)
    assert other.location == spool.location
    assert is_err(await other.entry(Mail.SEND, entry.name).unwrap().checkout())
    spool.close()
    third = memory_spool(MAIL, beside=other)
    async with third.reader(Mail.SEND) as reader:
        assert await work_off(reader, remove) == Ok(1)
    assert job.name == entry.name


async def test_spools_that_are_not_beside_each_other_share_nothing():
    """Each test begins with an empty one."""
    one, two = memory_spool(MAIL), memory_spool(MAIL)
    assert one.location != two.location
    (await one.enqueue(Mail.SEND, ANNE, b"", name=Use("a"))).unwrap()
    assert (await two.entries(Mail.SEND)).unwrap() == []


async def test_beside_is_for_spools_in_memory_and_their_own_clock_counts(tmp_path):
    """Anything else is refused at once, naming it."""
    spool = await quick_spool(tmp_path / "spool")
    with pytest.raises(ValueError, match="beside needs a spool in memory"):
        memory_spool(MAIL, beside=spool)
    with pytest.raises(ValueError, match="whose clock counts"):
        memory_spool(MAIL, beside=memory_spool(MAIL), clock=Clock())


# What is as everywhere else


async def test_names_sort_as_they_were_made_also_of_two_spools_and_generators_are_kept():
    """First in, first out; and a spoolable's own generator is used."""
    clock = Clock()
    one = memory_spool(MAIL, clock=clock)
    two = memory_spool(MAIL, beside=one)
    made = []
    for spool in (one, two, two, one):
        clock.advance(1)
        made += [(await spool.enqueue(Mail.SEND, ANNE, b"")).unwrap().name for _ in range(3)]
    assert [each.name for each in (await one.entries(Mail.SEND)).unwrap()] == made
    urgent_first = Spoolable(queues=Mail, metadata=Envelope, data=bytes, names=prioritized_names())
    spool = memory_spool(urgent_first)
    (await spool.enqueue(Mail.SEND, ANNE, b"", name=Reserve(9))).unwrap()
    (await spool.enqueue(Mail.SEND, BERT, b"", name=Reserve(0))).unwrap()
    async with spool.reader(Mail.SEND) as reader:
        assert [job.metadata async for job in reader.available()] == [BERT, ANNE]


async def test_names_of_two_spools_sort_as_they_were_made_though_the_clock_stands_still():
    """They have one generator."""

    async def main() -> None:
        one = memory_spool(MAIL)
        two = memory_spool(MAIL, beside=one)
        made = [(await each.enqueue(Mail.SEND, ANNE, b"")).unwrap().name for each in (two, one, one, two, one)]
        assert sorted(made) == made

    await on_a_clock_that_jumps(main)


@pytest.mark.parametrize("names", [prioritized_names(), None], ids=["prioritized", "plain"])
async def test_what_is_urgent_comes_before_what_was_listed_and_what_is_released_waits_its_turn(names):
    """Where names sort by more than time. Where they do not, it comes as it was enqueued."""
    spool = memory_spool(Spoolable(queues=Mail, metadata=Envelope, data=bytes, names=names))

    async def enqueue(recipient: str, level: int) -> None:
        name = {} if names is None else {"name": Reserve(level)}
        (await spool.enqueue(Mail.SEND, Envelope(recipient), b"", **name)).unwrap()

    for recipient in "abc":
        await enqueue(recipient, 5)
    got = []
    async with spool.reader(Mail.SEND) as reader:
        first = (await reader.dequeue()).unwrap()
        assert first is not None
        await enqueue("urgent", 0)
        await enqueue("later", 9)
        (await first.release()).unwrap()
        while (job := (await reader.dequeue_available()).unwrap()) is not None:
            got.append(job.metadata.recipient)
            (await job.remove()).unwrap()
    plain = ["b", "c", "a", "urgent", "later"]
    assert got == (plain if names is None else ["urgent", "b", "c", "later", "a"])


async def test_metadata_that_cannot_be_decoded_is_set_aside():
    """In quarantine, with its reason, from which it can be restored."""
    spool = memory_spool(MAIL)
    newer = memory_spool(Spoolable(queues=Mail, metadata=int, data=bytes), beside=spool)  # type: ignore[arg-type]
    entry = (await newer.enqueue(Mail.SEND, 5, b"")).unwrap()
    async with spool.reader(Mail.SEND) as reader:
        assert await work_off(reader, remove) == Ok(0)
    answer = await spool.entry(Mail.SEND, entry.name).unwrap().checkout()
    assert not isinstance(answer, Ok)
    assert not isinstance(answer.error, CorruptMetadata)


async def test_it_has_no_path_and_nothing_to_adopt():
    """Both say so, and name the location."""
    spool = memory_spool(MAIL)
    with pytest.raises(RuntimeError, match="memory://"):
        _ = spool.path
    assert is_err(await Spool.load(spool.location, MAIL))
    refused = await spool.adopt()
    assert isinstance(refused, Err)
    assert isinstance(refused.error, NotASpool)


async def test_progress_is_dated_by_the_clock_of_its_spool():
    """As everything else that is told of an entry."""
    clock = Clock()
    spool = memory_spool(MAIL, clock=clock)
    entry = (await spool.enqueue(Mail.SEND, ANNE, b"")).unwrap()
    async with (await entry.checkout()).unwrap() as job:
        before = clock()
        (await job.progress(0.5)).unwrap()
        [item] = session_of(spool).storage.inventory()
        assert before <= item.progress.at <= clock()
        (await job.release()).unwrap()


async def test_a_cancelled_scope_and_a_cancelled_task_have_had_no_effect_or_say_so():
    """As everywhere: a scope's cancellation comes before the effect; asyncio's may come after it, with a note."""
    spool = memory_spool(MAIL)
    with anyio.CancelScope() as scope:
        scope.cancel()
        _ = await spool.enqueue(Mail.SEND, ANNE, b"")
    assert scope.cancelled_caught
    assert (await spool.entries(Mail.SEND)).unwrap() == []


async def test_a_task_cancelled_natively_at_any_step_has_the_effects_that_it_was_told_of():
    """What returned has happened, and nothing else; or a note says what else. A job in hand goes back."""

    async def main() -> None:
        noted = 0
        for turns in range(12):
            spool, told = memory_spool(MAIL), []

            async def work(spool: Any = spool, told: list[str] = told) -> None:
                entry = (await spool.enqueue(Mail.SEND, ANNE, b"")).unwrap()
                told.append("enqueued")
                async with (await entry.checkout()).unwrap() as job:
                    (await job.remove()).unwrap()
                    told.append("removed")

            task = asyncio.create_task(work())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            try:
                await task
                notes = ""
            except asyncio.CancelledError as cancelled:
                notes = "".join(getattr(cancelled, "__notes__", ()))
            noted += "was already done" in notes
            happened = len(told) + ("was already done" in notes)
            assert len((await spool.entries(Mail.SEND)).unwrap()) == happened % 2, (turns, told, notes)
        assert noted

    await anyio.to_thread.run_sync(asyncio.run, main())


def test_the_clock_says_what_it_refuses_and_stands_still_without_a_loop():
    """In a fixture that is no coroutine it can be put forward all the same."""
    clock = Clock()
    began = clock()
    assert clock() == began
    clock.advance(datetime.timedelta(minutes=1))
    assert clock() == began + 60
    assert not clock.advance_to_next()
    with pytest.raises(ValueError, match="not negative"):
        clock.advance(-1)
    with pytest.raises(TypeError, match="a duration is"):
        clock.advance(None)  # type: ignore[arg-type]


def test_the_clock_does_not_leap_from_one_run_of_a_loop_to_the_next():
    """Each loop counts from a time of its own: what lies between two of them is no time that has passed."""
    clock = Clock()

    async def read() -> float:
        return clock()

    def run(began: float) -> float:
        of_the_loop = trio.testing.MockClock()
        of_the_loop.jump(began)
        return trio.run(read, clock=of_the_loop)

    assert run(0) == run(1000) == run(10) == clock()


# Below the spool


@pytest.mark.parametrize("operation", ["restore", "discard"])
def test_what_left_the_quarantine_while_its_lock_was_sought_is_not_found(operation, monkeypatch):
    """Whoever has the lock looks again."""
    contents = Contents(Clock())
    store = MemoryStorage(contents, QUEUES, "memory://tests")
    put(store, "a")
    store.quarantine(claim(store, "send", "a"), "unreadable")

    def lock(name: str) -> Any:
        monkeypatch.undo()
        store.discard("send", name, durability=None, before_commit=nothing)
        return contents.lock(name)

    monkeypatch.setattr(contents, "lock", lock)
    with pytest.raises(EntryNotFound):
        getattr(store, operation)("send", "a", durability=None, before_commit=nothing)
    assert contents.lock("a") is not None


def test_the_store_is_free_while_a_caller_thinks_about_what_recovery_does():
    """It is told name by name; between two of them, other threads go on."""
    contents = Contents(Clock())
    store = MemoryStorage(contents, QUEUES, "memory://tests")
    store.reserve("a").abandon()
    telling = store.recover_all(dry_run=True)
    assert next(telling) is not None

    def is_free() -> bool:
        free = contents.mutex.acquire(blocking=False)
        if free:
            contents.mutex.release()
        return free

    assert Aside(is_free).result()
    assert list(telling) == []


@pytest.mark.parametrize("reads", [False, True])
def test_what_was_gone_and_waits_again_is_told(reads):
    """Somebody moved it away and back while the look went on. A reader that is not told of it would sleep over it."""
    clock = Clock()
    store = MemoryStorage(Contents(clock), QUEUES, "memory://tests")
    put(store, "w", due_at=clock() - 1)
    reader, due = Reader(store), clock() + 10
    reader.door.reads = reads
    reader.door.before["w"] = lambda: save(store, claim_waiting(store, "send", "w"), "retry", None)

    def bring_back() -> None:
        save(store, claim(store, "retry", "w"), "send", None, due_at=due)

    assert reader.nothing_left(before_listing=bring_back).next_due == due


def test_a_claim_does_not_look_through_all_entries():
    """It looks at what waits, and at what is listed. Otherwise it would take longer the more others there are."""

    class NotLookedThrough(dict[str, Any]):
        def values(self) -> Any:
            raise AssertionError("somebody looks through all entries")

    contents = Contents(Clock())
    store = MemoryStorage(contents, QUEUES, "memory://tests")
    contents.entries = NotLookedThrough()
    put(store, "a", "b")
    put(store, "c", queue="retry")
    assert Reader(store).take_all() == ["a", "b"]


def test_durability_unknown_can_be_had_too():
    """Any `SpoolError` can be a fault; here the one that says that the effect may stand."""
    faults = Faults()
    error = DurabilityUnknown("a", Mail.SEND.value, committed=False)
    faults.add(Operation.ENQUEUE, error)
    with pytest.raises(DurabilityUnknown):
        faults.strike(Operation.ENQUEUE, "a")

"""Who owns an entry: a lock that the kernel drops when its process dies, and never before."""

from __future__ import annotations

import fcntl
import gc
import os
from typing import TYPE_CHECKING

import pytest

from helpers.children import Child
from helpers.results import is_err
from helpers.spools import ANNE, Mail, load_spool, make_spool, names_in, state_of
from helpers.stores import (
    DATA,
    NEW,
    OLD,
    QUEUES,
    claim,
    enqueue,
    enqueue_reserved,
    make_store,
    nothing,
    read_data,
    release,
    remove,
    save,
    sweep,
    try_claim,
    writing,
)
from helpers.syscalls import Interleaved
from trio_multispool import EntryBusy, Err, NameTaken, Ok, OwnershipLost, Unavailable, Use
from trio_multispool.storage.directory.store import DirectoryStorage
from trio_multispool.storage.requests import Recovered

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Say where the spool is to be."""
    return tmp_path / "spool"


@pytest.fixture
def storage(path: Path) -> Iterator[DirectoryStorage]:
    """Make a spool with an entry in `send`."""
    storage = make_store(path)
    enqueue(storage, "send", "a")
    yield storage
    storage.close()


def owner(parent, path, queue, name) -> None:
    """Check an entry out and keep it; release it when told to."""
    from helpers.stores import claim, release
    from trio_multispool.storage.directory.store import DirectoryStorage

    storage = DirectoryStorage.open_unsafe(path)
    claimed = claim(storage, queue, name)
    parent.say("mine")
    parent.hear()
    release(storage, claimed)
    parent.say("released")
    parent.hear()


def assert_is_held(path: Path, storage: DirectoryStorage, name: str = "a") -> None:
    """Try everything that could take an entry from its live owner."""
    before = state_of(path)
    assert before.places(name) == ["send/.checkout"]
    assert try_claim(storage, "send", name) is Unavailable.BUSY
    with pytest.raises(NameTaken):
        storage.reserve(name)
    assert [*storage.recover(), *storage.recover("send"), *sweep(storage)] == []
    DirectoryStorage.open(path, QUEUES).close()
    assert state_of(path) == before


# A live owner, and a dead one


def test_an_entry_of_a_live_process_is_busy_and_is_never_taken_away(path, storage):
    """Neither check-outs, nor loading, nor recovery, nor the sweep touch what a live process has checked out."""
    with Child(owner, path, "send", "a") as child:
        child.hear()
        assert_is_held(path, storage)
        child.tell("release it")
        child.hear()
        claim(storage, "send", "a").abandon()
        child.tell("end")
        child.end()


def test_an_entry_of_a_stopped_process_is_not_taken_away(path, storage):
    """A process that stands still, for however long, is alive: there is no lease that runs out."""
    with Child(owner, path, "send", "a") as child:
        child.hear()
        child.stop()
        assert_is_held(path, storage)
        child.go_on()
        child.tell("release it")
        assert child.hear() == ["released"]
    assert state_of(path).places("a") == ["send"]


def test_an_entry_of_an_owner_in_the_same_process_is_busy_too(path, storage):
    """Two owners in one process exclude each other like two processes: by one handle or by two."""
    claimed = claim(storage, "send", "a")
    assert_is_held(path, storage)
    other = DirectoryStorage.open(path, QUEUES)
    assert_is_held(path, other)
    release(storage, claimed)
    remove(other, claim(other, "send", "a"))
    assert state_of(path).faults() == []
    other.close()


@pytest.mark.parametrize("reaped", [True, False], ids=["reaped", "zombie"])
async def test_loading_brings_the_entry_of_a_killed_process_back(path, storage, reaped):
    """The kernel drops the lock at the process's death, before anybody has waited for it."""
    with Child(owner, path, "send", "a") as child:
        child.hear()
        child.kill() if reaped else child.kill_unseen()
        assert state_of(path).places("a") == ["send/.checkout"]
        async with await load_spool(path) as spool:
            assert await names_in(spool, Mail.SEND) == ["a"]
    assert state_of(path).faults() == []


async def test_recover_brings_the_entry_of_a_killed_process_back(path, storage):
    """`recover` tells what it put back."""
    async with await load_spool(path) as spool:
        with Child(owner, path, "send", "a") as child:
            child.hear()
            assert (await spool.recover()).unwrap() == []
            child.kill()
        assert (await spool.recover()).unwrap() == [Recovered("a", "send")]
        assert (await spool.recover()).unwrap() == []
        assert await names_in(spool, Mail.SEND) == ["a"]


@pytest.mark.anyio
async def test_a_new_reader_finds_the_entry_of_a_killed_process(path, storage):
    """A reader brings back what the dead held in its queue, before it says that there is nothing."""
    async with await load_spool(path) as spool:
        with Child(owner, path, "send", "a") as child:
            child.hear()
            child.kill()
        async with spool.reader(Mail.SEND) as reader:
            job = (await reader.dequeue_available()).unwrap()
            assert job is not None
            assert (job.name, job.metadata) == ("a", ANNE)
            (await job.remove()).unwrap()
    assert state_of(path).faults() == []


async def test_a_waiting_reader_gets_the_entry_of_a_process_that_is_killed_meanwhile(path, storage, autojump_clock):
    """No lock that is dropped moves a file; a reader that waits looks for dead owners all the same, by its timer."""
    async with await load_spool(path) as spool:
        with Child(owner, path, "send", "a") as child:
            child.hear()
            async with spool.reader(Mail.SEND) as reader:
                assert (await reader.dequeue_available()).unwrap() is None
                child.kill()
                async with (await reader.dequeue()).unwrap() as job:
                    assert job.name == "a"
    assert state_of(path).places("a") == ["send"]


def test_a_reservation_lives_as_long_as_its_process(path, storage):
    """A reserved name is busy while its process lives, and free when it is dead."""

    def reserve(parent, path) -> None:
        from trio_multispool.storage.directory.store import DirectoryStorage

        storage = DirectoryStorage.open_unsafe(path)
        reservation = storage.reserve("b")
        parent.say(reservation.name)
        parent.hear()

    with Child(reserve, path) as child:
        assert child.hear() == ["b"]
        with pytest.raises(EntryBusy):
            storage.reserve("b")
        assert [*storage.recover(), *sweep(storage)] == []
        child.kill()
    enqueue(storage, "send", "b")
    assert state_of(path).faults() == []


# Places are what is on disk, not what a program has heard of


@pytest.fixture
def newer(path: Path) -> Iterator[DirectoryStorage]:
    """Make a spool with a queue that older programs have not heard of."""
    storage = make_store(path, queues=("send", "later"))
    yield storage
    storage.close()


def test_a_program_that_has_not_heard_of_a_queue_collects_nothing_of_it(path, newer):
    """Available, checked out, quarantined: an entry of an unknown queue keeps its data; a dead owner's goes back."""
    for name in ("available", "live", "dead", "aside"):
        enqueue(newer, "later", name)
    live = claim(newer, "later", "live")
    claim(newer, "later", "dead").abandon()
    newer.quarantine(claim(newer, "later", "aside"), "not to be read")
    older = DirectoryStorage.open(path, ["send"])
    older.recover()
    older.recover("send")
    assert sweep(older) == []
    state = state_of(path)
    assert state.names("later") == ["available", "dead"]
    assert state.places("live") == ["later/.checkout"]
    assert state.places("aside") == [".quarantine/later"]
    assert state.faults() == []
    assert {read_data(older, name) for name in state.entries()} == {DATA}
    release(newer, live)
    older.close()


@pytest.mark.parametrize("where", ["later", "later/.checkout", ".quarantine/later", ".quarantine/gone", "gone"])
def test_a_name_is_taken_wherever_an_entry_has_it(path, newer, where):
    """A name is looked for in every place on disk, those of unknown queues included; what is there stays as it is."""
    enqueue(newer, "later", "a")
    (path / where).mkdir(parents=True, exist_ok=True)
    (path / "later" / "a").rename(path / where / "a")
    older = DirectoryStorage.open_unsafe(path)
    before = state_of(path)
    with pytest.raises(NameTaken):
        older.reserve("a")
    assert state_of(path) == before
    os.unlink(path / ".registry" / "a")
    with pytest.raises(NameTaken):
        older.reserve("a")
    assert read_data(older, "a") == DATA
    older.close()


async def test_a_name_that_is_taken_is_told_by_enqueue(path, newer):
    """`enqueue(name=Use(…))` of a name in an unknown queue answers `NameTaken`, and enqueues nothing."""
    enqueue(newer, "later", "a")
    async with await make_spool(path) as spool:
        assert await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a")) == Err(NameTaken("a"))
    assert state_of(path).places("a") == ["later"]


# The registry file


def test_a_lost_reservation_is_made_again_for_one_owner(path, storage):
    """An entry whose reservation power loss took is checked out by one of two, and its name stays taken."""
    os.unlink(path / ".registry" / "a")
    other = DirectoryStorage.open(path, QUEUES)
    claimed = claim(storage, "send", "a")
    assert try_claim(other, "send", "a") is Unavailable.BUSY
    with pytest.raises(NameTaken):
        other.reserve("a")
    save(storage, claimed, "retry")
    assert state_of(path).faults() == []
    other.close()


def test_a_lost_reservation_of_a_dead_owner_is_made_again_by_recovery(path, storage):
    """A check-out whose owner and reservation are both gone comes back, with a reservation."""
    claim(storage, "send", "a").abandon()
    os.unlink(path / ".registry" / "a")
    assert storage.recover() == [Recovered("a", "send")]
    assert state_of(path).places("a") == ["send"]
    assert state_of(path).faults() == []


def test_no_reservation_is_made_for_an_entry_that_is_not_there(path, storage):
    """Trying to check out a name that is nowhere leaves nothing in the registry."""
    assert try_claim(storage, "send", "nobody") is Unavailable.GONE
    assert state_of(path).registry == {"a"}


def replace_registry_file(path: Path, name: str = "a") -> None:
    """Do what a collector and a new enqueuer do between them: the name is the same, the file another."""
    os.unlink(path / ".registry" / name)
    (path / ".registry" / name).write_bytes(b"")


def test_a_lock_is_held_on_the_file_that_the_registry_has(path, storage):
    """An owner whose registry file was replaced before it was locked has the lock of the new file, not of the old."""
    calls = Interleaved()
    slow = DirectoryStorage.open(path, QUEUES, calls=calls)
    calls.before("lock", lambda: replace_registry_file(path))
    claimed = claim(slow, "send", "a")
    assert os.fstat(claimed.lock.fd).st_ino == os.stat(path / ".registry" / "a").st_ino
    assert_is_held(path, storage)
    release(slow, claimed)
    slow.close()


def test_a_registry_file_that_was_replaced_before_it_was_locked_gives_no_ownership(path, storage):
    """Who has locked the old file of a name does not have the entry, if somebody has the new one."""
    calls = Interleaved()
    slow = DirectoryStorage.open(path, QUEUES, calls=calls)
    with open(path / ".registry" / "a", "rb") as old:

        def replace_and_lock() -> None:
            replace_registry_file(path)
            new = open(path / ".registry" / "a", "rb")  # noqa: SIM115  # closed below
            fcntl.flock(new, fcntl.LOCK_EX | fcntl.LOCK_NB)
            holding.append(new)

        holding = [old]
        calls.before("lock", replace_and_lock)
        assert try_claim(slow, "send", "a") is Unavailable.BUSY
        assert state_of(path).places("a") == ["send"]
        holding.pop().close()
    claim(storage, "send", "a").abandon()
    slow.close()


def test_of_two_who_race_for_a_name_whose_registry_file_is_replaced_one_gets_it(path, storage):
    """Whoever locked the old file of a name finds that somebody else has the new one."""
    storage.reserve("b").abandon()
    calls = Interleaved()
    slow = DirectoryStorage.open(path, QUEUES, calls=calls)
    taken = []

    def collect_and_reserve() -> None:
        sweep(storage)
        taken.append(storage.reserve("b"))

    calls.before("lock", collect_and_reserve)
    with pytest.raises(EntryBusy):
        slow.reserve("b")
    enqueue_reserved(storage, taken[0], "send", OLD, writing(DATA), durability=None, before_commit=nothing)
    assert state_of(path).faults() == []
    slow.close()


def test_a_newborn_reservation_that_a_collector_took_is_made_again(path, storage):
    """A reservation is never held on a file that the registry no longer has."""
    calls = Interleaved()
    slow = DirectoryStorage.open(path, QUEUES, calls=calls)
    collected = []
    calls.before("lock", lambda: collected.extend(sweep(storage)))
    reservation = slow.reserve("b")
    assert collected == [Recovered("b", None)]
    assert os.fstat(reservation.lock.fd).st_ino == os.stat(path / ".registry" / "b").st_ino
    enqueue_reserved(slow, reservation, "send", NEW, writing(DATA), durability=None, before_commit=nothing)
    assert state_of(path).faults() == []
    slow.close()


def test_a_newborn_reservation_that_somebody_else_locked_first_is_theirs(path, storage):
    """The maker of a registry file has no more right to it than who locks it first."""
    calls = Interleaved()
    slow = DirectoryStorage.open(path, QUEUES, calls=calls)
    taken = []
    calls.before("lock", lambda: taken.append(storage.reserve("b")))
    with pytest.raises(EntryBusy):
        slow.reserve("b")
    enqueue_reserved(storage, taken[0], "send", OLD, writing(DATA), durability=None, before_commit=nothing)
    with pytest.raises(NameTaken):
        slow.reserve("b")
    assert state_of(path).faults() == []
    slow.close()


def test_an_entry_that_leaves_between_the_lock_and_the_rename_is_gone(path, storage):
    """A check-out that finds its entry moved by a hand answers that it is gone, and holds nothing."""
    calls = Interleaved()
    slow = DirectoryStorage.open(path, QUEUES, calls=calls)
    calls.before("move", lambda: (path / "send" / "a").rename(path / "retry" / "a"))
    assert try_claim(slow, "send", "a") is Unavailable.GONE
    claim(storage, "retry", "a").abandon()
    slow.close()


# Spools that are not adopted


def disown(path: Path) -> None:
    """Make the spool one that programs without locks may be using."""
    os.unlink(path / ".spool.json")


async def test_nothing_is_recovered_in_a_spool_that_is_not_adopted(path, storage):
    """Where somebody may work without locks, an unlocked check-out is not taken for abandoned, until it is adopted."""
    claim(storage, "send", "a").abandon()
    enqueue(storage, "send", "b")
    storage.reserve("c").abandon()
    (path / ".data" / "orphan").write_bytes(b"")
    disown(path)
    before = state_of(path)
    async with await load_spool(path) as spool:
        assert (await spool.recover()).unwrap() == []
        assert state_of(path) == before
        async with spool.reader(Mail.SEND) as reader:
            async for job in reader.available():
                assert job.name == "b"
        assert state_of(path).places("a") == ["send/.checkout"]
        with pytest.raises(NameTaken):
            (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("c"))).unwrap()
        assert (await spool.adopt()) == Ok(None)
        recovered = (await spool.recover()).unwrap()
    assert set(recovered) == {Recovered("a", "send"), Recovered("c", None), Recovered("orphan", None)}
    assert state_of(path).faults() == []


# Letting go


@pytest.mark.anyio
async def test_a_job_that_is_garbage_collected_is_let_go_with_a_warning(path):
    """Its lock is closed at once, and recovery brings the entry back."""
    async with await make_spool(path) as spool:
        entry = (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a"))).unwrap()
        job = (await entry.checkout()).unwrap()
        assert is_err(await entry.checkout())
        with pytest.warns(ResourceWarning, match="'a' of spool .* was never settled"):  # noqa: PT031  # two steps
            del job
            gc.collect()
        assert (await spool.recover()).unwrap() == [Recovered("a", "send")]
        async with (await entry.checkout()).unwrap() as job:
            (await job.remove()).unwrap()
        del job
    gc.collect()  # a settled job goes without a warning, which would fail the test
    assert state_of(path).faults() == []


@pytest.mark.anyio
async def test_a_reserved_name_that_is_garbage_collected_is_let_go_with_a_warning(path):
    """The name is free again, and what is left of it is collected."""
    async with await make_spool(path) as spool:
        reserved = (await spool.reserve_name()).unwrap()
        name = reserved.name
        assert await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(name)) == Err(EntryBusy(name))
        with pytest.warns(ResourceWarning, match="was reserved and never used"):  # noqa: PT031  # two steps
            del reserved
            gc.collect()
        assert (await spool.recover()).unwrap() == [Recovered(name, None)]
        (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(name))).unwrap()
    assert state_of(path).faults() == []


async def test_closing_a_spool_lets_go_of_its_unsettled_jobs(path):
    """As `close` says, jobs that are not settled by then are let go, and another load puts them back."""
    spool = await make_spool(path)
    entry = (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a"))).unwrap()
    job = (await entry.checkout()).unwrap()
    spool.close()
    async with await load_spool(path):
        assert not job.settled
        assert state_of(path).places("a") == ["send"]


@pytest.mark.anyio
@pytest.mark.parametrize("settle", ["save", "remove", "release"])
async def test_settling_a_job_whose_entry_was_taken_away_answers_so(path, settle):
    """Whoever lost its entry to an `…_unsafe` operation makes nothing again, and is told; the lock is let go."""
    async with await make_spool(path) as spool:
        entry = (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a"))).unwrap()
        job = (await entry.checkout()).unwrap()
        [taken] = (await spool.checkouts_unsafe(Mail.SEND)).unwrap()
        (await taken.save(Mail.FAILED)).unwrap()
        answer = await (job.save(Mail.RETRY, ANNE) if settle == "save" else getattr(job, settle)())
        assert answer == Err(OwnershipLost("send", "a"))
        assert state_of(path).places("a") == ["failed"]
        if settle == "release":
            async with job:  # it has been settled: there was nothing to put back
                pass
        else:
            with pytest.raises(OwnershipLost):
                async with job:
                    pass
        failed = spool.entry(Mail.FAILED, "a").unwrap()
        async with (await failed.checkout()).unwrap():
            pass
    assert state_of(path).faults() == []

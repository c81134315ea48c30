"""Killed at every system call: what another process finds, and that nothing is lost, doubled, torn or left over."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from typing import TYPE_CHECKING

import pytest

from helpers.children import Child, quick_directory
from helpers.outcomes import DONE, LEGAL, RETRY, SEND, found
from helpers.proofs import thinned
from helpers.spools import state_of
from helpers.stores import (
    DATA,
    NEW,
    NEW_DATA,
    OLD,
    OPERATIONS,
    QUEUES,
    TOGETHER,
    available,
    claim,
    enqueue,
    make_store,
    nothing,
    release,
    remove,
    sweep,
)
from helpers.syscalls import Interleaved
from trio_multispool import Durability, EntryBusy, EntryNotFound, NameTaken, StorageFailure, SyncsRefused
from trio_multispool.storage.directory.store import DirectoryStorage
from trio_multispool.storage.requests import Recovered

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Say where the spool is to be."""
    with quick_directory(tmp_path) as directory:
        yield directory / "spool"


def executioner(parent, path, operation) -> None:
    """Do an operation again and again, each time in a process that dies before its n-th call, until one survives."""
    import os
    import traceback

    from helpers.stores import OPERATIONS
    from helpers.syscalls import KillingCalls
    from trio_multispool.storage.directory.store import DirectoryStorage

    prepare, perform = OPERATIONS[operation]

    def die_doing_it(name: str, n: int) -> None:
        calls = KillingCalls()
        storage = DirectoryStorage.open_unsafe(path, calls=calls)
        prepared = prepare(storage, name)
        calls.arm(n)
        perform(storage, name, prepared)
        os._exit(0)

    survived, n = False, 0
    while not survived:
        n += 1
        name = f"{operation.replace(' ', '-')}-{n:03}"
        process = os.fork()
        if process == 0:
            try:
                die_doing_it(name, n)
            except BaseException:  # noqa: BLE001  # its status says so
                traceback.print_exc()
            finally:
                os._exit(2)
        _, status = os.waitpid(process, 0)
        survived = status == 0
        assert survived or os.WIFSIGNALED(status), status
        parent.say(name, survived)
        parent.hear()


@pytest.mark.proof
@pytest.mark.parametrize("operation", thinned(OPERATIONS, 6))
def test_an_operation_that_is_killed_at_any_call_leaves_its_entry_whole_and_in_one_place(path, operation):
    """After loading, the entry is in one place, as the operation may leave it; after recovery there is no litter.

    Every such state is seen, so the sweep has killed on both sides of each commit. What returned, has happened.
    """
    make_store(path).close()
    seen, last = set(), ""
    with Child(executioner, path, operation) as child:
        for name, survived in child:
            storage = DirectoryStorage.open(path, QUEUES)
            names = [name, f"{name}.two"] if operation in TOGETHER else [name]
            all_left = [found(path, each) for each in names]
            for left in all_left:
                assert left in LEGAL[operation], f"killed before call {name.rpartition('-')[2]}"
                seen.add(left)
            sweep(storage)
            assert [found(path, each) for each in names] == all_left
            assert state_of(path).faults() == []
            storage.close()
            last = name
            if survived:
                assert set(all_left) == {DONE.get(operation, (SEND, OLD, DATA))}
            child.tell("go on")
        child.end()
    assert last, "it was killed at some call"
    assert seen == LEGAL[operation]


@pytest.mark.parametrize("count", [1, 8])
@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_what_is_no_file_in_the_place_of_entries_keeps_their_data(path, kind, count):
    """However many they are: a person may put the entry back, and its data must be there then."""
    storage = make_store(path)
    names = [f"{number}" for number in range(count)]
    for name in names:
        enqueue(storage, "send", name)
        (path / "send" / name).rename(path.parent / name)
        if kind == "symlink":
            (path / "send" / name).symlink_to(path.parent / name)
        elif kind == "fifo":
            os.mkfifo(path / "send" / name)
        else:
            (path / "send" / name).mkdir()
    for each in storage.recover_all():
        assert each is None
    assert sorted(os.listdir(path / ".data")) == sorted(os.listdir(path / ".registry")) == names
    storage.close()


def test_what_was_recovered_can_be_had_when_it_is_told(path):
    """Whoever is told may take long: a pager, say."""
    storage = make_store(path)
    for name in ("a", "b"):
        enqueue(storage, "send", name)
        claim(storage, "send", name).abandon()
    recovering = storage.recover_all()
    assert next(recovering) == Recovered("a", "send")
    with contextlib.closing(DirectoryStorage.open(path, QUEUES, recover=False)) as other:
        claim(other, "send", "a").abandon()
    recovering.close()
    storage.close()


def test_an_enqueue_that_was_killed_can_be_tried_again_under_its_name(path):
    """Whoever uses the name again either makes the entry, whole, or is told that it is there: without any recovery."""
    storage = make_store(path)
    answers = []
    with Child(executioner, path, "enqueue") as child:
        for name, _ in child:
            try:
                enqueue(storage, "send", name, NEW, NEW_DATA)
                answers.append("made")
                assert found(path, name) == (SEND, NEW, NEW_DATA)
            except NameTaken:
                answers.append("taken")
                assert found(path, name) == (SEND, OLD, DATA)
            assert state_of(path).faults() == []
            child.tell("go on")
        child.end()
    assert answers == sorted(answers), "once it was committed, it was taken for ever"
    assert {"made", "taken"} == set(answers)
    storage.close()


def test_a_half_made_enqueue_is_collected(path):
    """Whatever a killed enqueue has written is gone after `recover` and the sweep, and nothing else is."""
    storage = make_store(path)
    enqueue(storage, "send", "kept")

    def hold(parent, path) -> None:
        from helpers.stores import OLD, enqueue_reserved, writing
        from trio_multispool.storage.directory.store import DirectoryStorage

        def wait() -> None:
            parent.say("about to commit")
            parent.hear()

        storage = DirectoryStorage.open_unsafe(path)
        reservation = storage.reserve("half-made")
        enqueue_reserved(storage, reservation, "send", OLD, writing(b"Hello"), durability=None, before_commit=wait)

    with Child(hold, path) as child:
        child.hear()
        before = state_of(path)
        assert (set(before.temporary), set(before.data)) == ({"half-made"}, {"half-made", "kept"})
        assert storage.recover() == []
        assert sweep(storage) == []
        assert state_of(path) == before, "while it lives, nothing of it is touched"
        child.kill()
    assert [*storage.recover(), *sweep(storage)] == [Recovered("half-made", None)]
    assert state_of(path).entries() == {"kept"}
    assert state_of(path).faults() == []
    storage.close()


def test_recovery_does_not_touch_what_a_live_process_is_writing(path):
    """New data, and new metadata of those who do not own the entry, are left alone until their writer is dead."""
    storage = make_store(path)
    enqueue(storage, "send", "a")

    def write(parent, path) -> None:
        from helpers.stores import NEW, available, nothing, save, writing
        from trio_multispool.storage.directory.store import DirectoryStorage

        def wait() -> None:
            parent.say("about to commit")
            parent.hear()

        storage = DirectoryStorage.open_unsafe(path)
        storage.replace_metadata("send", "a", NEW, durability=None, before_commit=wait)
        storage.replace_data("a", None, writing(b"Hello again"), durability=None, before_commit=wait)
        claim = storage.claim(available("send"), "a", before_commit=nothing)
        storage.replace_data("a", claim, writing(b"Hello"), durability=None, before_commit=wait)
        save(storage, claim, "retry", NEW, durability=None, before_commit=wait)

    with Child(write, path) as child:
        for prefix in (".unsafe.", ".unsafe.", ".data.a", "a"):
            child.hear()
            [name] = state_of(path).temporary
            assert name.startswith(prefix)
            assert name.endswith("a")
            before = state_of(path)
            assert [*storage.recover(), *sweep(storage)] == []
            assert state_of(path) == before
            child.tell("go on")
        child.end()
    assert found(path, "a") == (RETRY, NEW, DATA)
    assert state_of(path).faults() == []
    storage.close()


def test_temporary_files_of_the_dead_are_collected_whatever_they_were_for(path):
    """Loading empties `.tmp` of everything whose writer is dead."""
    make_store(path).close()
    storage = make_store(path)
    enqueue(storage, "send", "a")
    for name in ("a", ".data.a", ".unsafe.a", ".unsafe.data.a", "nobody", ".data.nobody", ".unsafe.nobody"):
        (path / ".tmp" / name).write_bytes(b"half")
    DirectoryStorage.open(path, QUEUES).close()
    assert state_of(path).temporary == {}
    assert found(path, "a") == (SEND, OLD, DATA)
    assert [*storage.recover(), *sweep(storage)] == []
    assert state_of(path).faults() == []
    storage.close()


def test_recovery_is_idempotent(path):
    """A second recovery finds nothing to do, and changes nothing."""
    storage = make_store(path)
    for name in ("a", "b"):
        enqueue(storage, "send", name)
        claim(storage, "send", name).abandon()
    storage.reserve("c").abandon()
    assert storage.recover() == [Recovered("a", "send"), Recovered("b", "send")]
    assert sweep(storage) == [Recovered("c", None)]
    before = state_of(path)
    assert [*storage.recover(), *sweep(storage)] == []
    assert state_of(path) == before
    assert before.faults() == []
    storage.close()


def recoverer(parent, path) -> None:
    """Recover and sweep when told to, and tell what was done."""
    from helpers.stores import sweep
    from trio_multispool.storage.directory.store import DirectoryStorage

    storage = DirectoryStorage.open_unsafe(path)
    parent.say("ready")
    parent.hear()
    recovered = [*storage.recover(), *sweep(storage)]
    parent.say(*([each.name, each.queue] for each in recovered))


def test_two_recoverers_at_once_do_each_thing_once(path):
    """Every entry is back exactly once, every leftover is collected, and one of the two has told so of each."""
    storage = make_store(path)
    expected = []
    for number in range(150):
        enqueue(storage, "send", f"entry-{number:03}")
        claim(storage, "send", f"entry-{number:03}").abandon()
        storage.reserve(f"leftover-{number:03}").abandon()
        expected += [[f"entry-{number:03}", "send"], [f"leftover-{number:03}", None]]
    with Child(recoverer, path) as one, Child(recoverer, path) as other:
        for child in (one, other):
            child.hear()
        for child in (one, other):
            child.tell("go")
        done = one.hear() + other.hear()
        one.end()
        other.end()
    assert sorted(done) == sorted(expected)
    state = state_of(path)
    assert state.names("send") == [f"entry-{number:03}" for number in range(150)]
    assert state.faults() == []
    storage.close()


def test_of_two_copies_the_available_one_stays(path):
    """A name that is in a queue and in a `.checkout` is dropped from the latter: the copy in the queue is the later."""
    storage = make_store(path)
    for name, queue in (("same-queue", "send"), ("other-queue", "retry")):
        enqueue(storage, queue, name)
        (path / "send" / ".checkout" / name).write_bytes(NEW)
    storage.recover()
    assert found(path, "same-queue") == (SEND, OLD, DATA)
    assert found(path, "other-queue") == (RETRY, OLD, DATA)
    assert state_of(path).faults() == []
    storage.close()


@pytest.mark.parametrize("how", ["recover", "take", "restore"])
def test_another_file_of_that_name_in_quarantine_is_left(path, how):
    """Only one that is the same file was being restored; of any other, nothing says that it is an earlier state."""
    storage = make_store(path)
    for name in "ab":
        enqueue(storage, "send", name)
    (path / ".quarantine/send").mkdir(parents=True)
    (path / ".quarantine/send/a").write_bytes(NEW)
    os.link(path / "send/b", path / ".quarantine/send/b")
    if how == "recover":
        for name in "ab":
            storage.recover_name(name)
    elif how == "take":
        for name in "ab":
            release(storage, claim(storage, "send", name))
    else:
        with pytest.raises(NameTaken):
            storage.restore("send", "a", durability=None, before_commit=nothing)
        with pytest.raises(EntryNotFound):
            storage.restore("send", "b", durability=None, before_commit=nothing)
    assert (path / ".quarantine/send/a").read_bytes() == NEW
    assert (path / "send/a").read_bytes() == OLD
    assert state_of(path).places("b") == ["send"]
    storage.close()


def wait_for_the_next_tick(path: Path, since: Path) -> None:
    """Wait until the clock of the file system, which is coarse, has moved on."""
    probe = path.parent / "probe"
    probe.touch()
    while probe.stat().st_ctime_ns <= since.stat().st_ctime_ns:
        probe.touch()


def test_of_two_checked_out_copies_one_comes_back(path):
    """A name in the `.checkout` of two queues is available once after recovery: where it was moved last."""
    storage = make_store(path)
    for name, queue in (("a", "send"), ("b", "retry")):
        stale = path / ({"send": "retry", "retry": "send"}[queue]) / ".checkout" / name
        stale.write_bytes(NEW)
        os.utime(stale, ns=(2**62, 2**62))  # a time stamp that can be set says nothing
        wait_for_the_next_tick(path, stale)
        enqueue(storage, queue, f"{name}-other")
        (path / queue / f"{name}-other").rename(path / queue / name)
        (path / ".registry" / name).touch()
        (path / ".data" / f"{name}-other").rename(path / ".data" / name)
        (path / queue / name).rename(path / queue / ".checkout" / name)
    assert list(storage.recover_all(dry_run=True))[:2] == [Recovered("a", "send"), Recovered("b", "retry")]
    assert storage.recover() == [Recovered("a", "send"), Recovered("b", "retry")]
    sweep(storage)
    assert found(path, "a") == (SEND, OLD, DATA)
    assert found(path, "b") == (RETRY, OLD, DATA)
    assert state_of(path).faults() == []
    storage.close()


def test_two_copies_with_a_live_owner_are_left_alone(path):
    """Recovery decides nothing about a name whose lock somebody has."""
    storage = make_store(path)
    enqueue(storage, "send", "a")
    claimed = claim(storage, "send", "a")
    (path / "send" / "a").write_bytes(OLD)
    assert storage.recover() == []
    assert state_of(path).places("a") == ["send", "send/.checkout"]
    claimed.abandon()
    storage.recover()
    assert found(path, "a") == (SEND, OLD, DATA)
    storage.close()


def test_writers_that_do_not_own_an_entry_keep_out_of_each_others_files(path):
    """Between a direct save's exchange and its end, recovery and a second direct save may come; both are whole."""
    calls = Interleaved()
    storage, slow = make_store(path), make_store(path, calls=calls)
    enqueue(storage, "send", "a")
    begun, may_commit = threading.Event(), threading.Event()
    outcome: list[object] = []

    def wait() -> None:
        begun.set()
        may_commit.wait()

    def save_too() -> None:
        try:
            storage.replace_metadata("send", "a", b"second", durability=None, before_commit=wait)
        except BaseException as error:  # noqa: BLE001  # told to the test
            outcome.append(error)
            begun.set()
        else:
            outcome.append("saved")

    second = threading.Thread(target=save_too)

    def interfere() -> None:
        storage.recover()
        second.start()
        begun.wait()

    calls.before("unlink", interfere)
    slow.replace_metadata("send", "a", b"first", durability=None, before_commit=lambda: None)
    may_commit.set()
    second.join()
    assert outcome == ["saved"] or [type(error) for error in outcome] == [EntryBusy]
    assert found(path, "a") == (SEND, b"second" if outcome == ["saved"] else b"first", DATA)
    assert state_of(path).faults() == []
    storage.close()
    slow.close()


def test_a_copy_that_blocks_a_check_out_is_no_strange_error(path):
    """An entry with a dead second copy in `.checkout` is checked out, or told to be unavailable; never `NameTaken`."""
    storage = make_store(path)
    enqueue(storage, "send", "a")
    (path / "send" / ".checkout" / "a").write_bytes(OLD)
    try:
        storage.claim(available("send"), "a", before_commit=lambda: None)
    except NameTaken as error:
        pytest.fail(f"a check-out answered {error!r}, which is none of its errors")
    storage.close()


@pytest.mark.parametrize("where", [".data", ".registry", ".notes"])
def test_what_belongs_to_no_entry_is_collected_wherever_it_is(path, where):
    """Data, a reservation or a note that power loss left alone is collected by the sweep."""
    storage = make_store(path)
    enqueue(storage, "send", "a")
    (path / ".notes").mkdir(exist_ok=True)
    (path / ".notes" / "a").write_bytes(b"{}")
    (path / where / "orphan").write_bytes(b"")
    assert [each.name for each in sweep(storage)] == ["orphan"]
    assert "orphan" not in {child.name for child in (path / where).iterdir()}
    assert state_of(path).notes == {"a": b"{}"}
    assert found(path, "a") == (SEND, OLD, DATA)
    storage.close()


@pytest.mark.parametrize("put_off", [True, False], ids=["recovery was put off", "somebody had the lock"])
def test_whoever_takes_an_entry_that_no_recovery_has_looked_into_drops_its_stale_copy(path, put_off):
    """Power loss may leave it in another queue's `.checkout` too; removed before a recovery, it must not come back."""
    from helpers.calls import FailingCalls
    from helpers.stores import remove

    make_store(path).close()
    calls = FailingCalls()
    store = make_store(path)
    enqueue(store, "send", "a")
    (path / "retry" / ".checkout" / "a").write_bytes(NEW)
    if put_off:
        with calls.failing("unlink", errno.EROFS, "/retry/.checkout/a"):
            storage = make_store(path, calls=calls)
    else:
        held = store.reserve("b")
        (path / ".registry" / "a").unlink()
        (path / ".registry" / "b").rename(path / ".registry" / "a")
        storage = make_store(path, calls=calls)
        held.abandon()
    assert set(state_of(path).places("a")) == {"retry/.checkout", "send"}
    claimed = claim(storage, "send", "a")
    assert state_of(path).places("a") == ["send/.checkout"]
    remove(storage, claimed, durability=None, before_commit=lambda: None)
    assert storage.recover() == []
    assert state_of(path).entries() == set()
    assert state_of(path).faults() == []
    for each in (store, storage):
        each.close()


def test_an_entry_costs_no_second_look_once_a_recovery_has_looked_into_it(path):
    """Only what was busy then may have a copy: checking out anything else looks into no other place."""
    from helpers.syscalls import Recorder

    calls = Recorder()
    storage = make_store(path, calls=calls)
    enqueue(storage, "send", "a")
    calls.take()
    claim(storage, "send", "a").abandon()
    assert [words for words in calls.take("stat") if "retry" in words or "failed" in words] == []
    storage.close()


def test_nothing_is_collected_while_a_place_cannot_be_read(path):
    """An entry that may be in a directory that cannot be looked into is not taken for absent."""
    from helpers.calls import FailingCalls
    from helpers.stores import sweep
    from trio_multispool import SpoolError

    calls = FailingCalls()
    storage = make_store(path, calls=calls)
    enqueue(storage, "send", "a")
    enqueue(storage, "failed", "b")
    claim(storage, "failed", "b").abandon()
    for call, on in (("directories", "/spool"), ("stat", "/send/a"), ("stat", "/failed/.checkout/b")):
        fault = calls.fail(call, 5, on)
        for act in (storage.recover, lambda: sweep(storage)):
            try:
                act()
            except SpoolError:
                continue
        assert fault.met
        calls.mend()
        assert set(state_of(path).data) == {"a", "b"}
        assert state_of(path).registry == {"a", "b"}
    storage.recover()
    assert state_of(path).faults() == []
    storage.close()


def test_a_killed_recovery_is_finished_by_the_next(path):
    """A recovery of many things, killed at any call, loses nothing; the next one finishes it."""
    make_store(path).close()

    def sweep_and_die(parent, path) -> None:
        import os

        from helpers.stores import claim, enqueue, sweep
        from helpers.syscalls import KillingCalls
        from trio_multispool.storage.directory.store import DirectoryStorage

        killed, n = True, 0
        while killed:
            n += 3
            storage = DirectoryStorage.open_unsafe(path)
            for name in (f"one-{n:03}", f"two-{n:03}"):
                enqueue(storage, "send", name)
                claim(storage, "send", name).abandon()
            storage.reserve(f"none-{n:03}").abandon()
            storage.close()
            process = os.fork()
            if process == 0:
                calls = KillingCalls()
                storage = DirectoryStorage.open_unsafe(path, calls=calls)
                calls.arm(n)
                storage.recover()
                sweep(storage)
                os._exit(0)
            _, status = os.waitpid(process, 0)
            killed = status != 0
            parent.say(n, killed)
            parent.hear()

    made = set()
    with Child(sweep_and_die, path) as child:
        for n, _ in child:
            made |= {f"one-{n:03}", f"two-{n:03}"}
            storage = make_store(path)
            sweep(storage)
            state = state_of(path)
            assert set(state.names("send")) == made
            assert state.faults() == []
            for name in made:
                claimed = claim(storage, "send", name)
                remove(storage, claimed, durability=None, before_commit=lambda: None)
            made.clear()
            storage.close()
            child.tell("go on")
        child.end()
    assert state_of(path).faults() == []


@pytest.mark.parametrize("level", Durability)
def test_what_a_killed_removal_left_is_not_collected_before_the_removal_is_safe(path, level):
    """Where the sync fails, and ever after, it is left alone: power loss might bring it back, without its data."""
    from helpers.calls import FailingCalls
    from helpers.stores import sweep

    store = make_store(path)
    for name in ("a", "b"):
        enqueue(store, "send", name)
        claim(store, "send", name).abandon()
        (path / "send" / ".checkout" / name).unlink()  # as a remover that is killed there
    calls = FailingCalls()
    storage = make_store(path, calls=calls, durability=level)
    with calls.failing("sync", errno.EIO, "/send"):
        answers = list(storage.recover_all())
    assert [type(answer) for answer in answers] == [StorageFailure, SyncsRefused, SyncsRefused, SyncsRefused]
    assert sweep(storage) == []
    with pytest.raises(SyncsRefused):
        storage.reserve("a")
    assert set(state_of(path).data) == {"a", "b"}
    storage.close()
    again = make_store(path, calls=calls, durability=level)
    calls.made.clear()
    assert sweep(again) == [Recovered("a", None), Recovered("b", None)]
    made = [call for call, where in calls.made if call == "sync" or ("/.data/" in where and call == "unlink")]
    assert made.index("unlink") == len(again.layout.places())
    again.close()
    store.close()


def test_a_dry_run_tells_each_name_once(path):
    """Also one that has both data and a reservation."""
    storage = make_store(path)
    enqueue(storage, "send", "a")
    (path / "send" / "a").unlink()
    assert list(storage.recover_all(dry_run=True)) == [Recovered("a", None)]
    assert list(storage.recover_all()) == [Recovered("a", None)]
    storage.close()

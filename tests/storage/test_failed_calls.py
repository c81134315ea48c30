"""What is asked of the operating system, in which order, and what is answered when it refuses."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import shutil
import typing
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from helpers.calls import FailingCalls
from helpers.children import Child, quick_directory
from helpers.inside import open_descriptors
from helpers.proofs import thinned
from helpers.results import is_err
from helpers.spools import ANNE, BERT, Mail, contents, load_spool, make_spool, names_in, put, state_of
from helpers.stores import (
    DATA,
    NEW,
    NEW_DATA,
    OLD,
    OPERATIONS,
    QUEUES,
    claim,
    enqueue,
    make_store,
    read_data,
    remove,
    replace_data,
    save,
    sweep,
)
from helpers.syscalls import METHODS, FailingAt, Recorder, Unplugged
from trio_multispool import (
    AccessDenied,
    CheckedOutEntry,
    Durability,
    DurabilityUnknown,
    Err,
    Ok,
    OutOfSpace,
    ReadOnlySpool,
    SpoolError,
    StorageFailure,
    SyncsRefused,
    TooManyOpenFiles,
    UnreadableEntry,
    Use,
    errors,
)
from trio_multispool.storage.directory.store import DirectoryStorage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Say where the spool is to be."""
    with quick_directory(tmp_path) as directory:
        yield directory / "spool"


# Each call of each operation fails, once


ANSWERS = {
    errno.ENOSPC: OutOfSpace,
    errno.EDQUOT: OutOfSpace,
    errno.EMFILE: TooManyOpenFiles,
    errno.EACCES: AccessDenied,
    errno.EROFS: ReadOnlySpool,
    errno.EIO: StorageFailure,
}


RUN_OUT = ("open", "create", "write", "sync", "move", "exchange", "make_directory", "regular_files", "directories")
"""Calls that a full disk or a want of descriptors hits: when one fails, nothing is left even before recovery."""


class Operation(NamedTuple):
    """An operation of a spool, on the entry `name` in `send`."""

    errors: Any
    """The union of what it may answer."""
    prepare: Callable[[Any, str], Awaitable[Any]]
    """Given the spool and the name; what it returns is given to the next."""
    act: Callable[[Any, str, Any], Awaitable[Any]]
    queue: str | None = "send"
    """Where it leaves the entry."""
    metadata: bytes = OLD
    data: bytes = DATA
    settles: bool = False


async def _nothing(spool, name) -> None:
    """Need no entry."""


async def _entry(spool, name) -> Any:
    return (await spool.enqueue(Mail.SEND, ANNE, DATA, name=Use(name))).unwrap()


async def _job(spool, name) -> Any:
    return (await (await _entry(spool, name)).checkout()).unwrap()


OPERATION = {
    "enqueue": Operation(
        errors.EnqueueError, _nothing, lambda spool, name, _: spool.enqueue(Mail.SEND, ANNE, DATA, name=Use(name))
    ),
    "checkout": Operation(errors.CheckoutError, _entry, lambda _s, _n, entry: entry.checkout(), "send/.checkout"),
    "save": Operation(errors.SaveError, _job, lambda _s, _n, job: job.save(Mail.RETRY, BERT), "retry", settles=True),
    "save unchanged": Operation(
        errors.SaveError, _job, lambda _s, _n, job: job.save(Mail.RETRY), "retry", settles=True
    ),
    "remove": Operation(errors.RemoveError, _job, lambda _s, _n, job: job.remove(), None, settles=True),
    "release": Operation(errors.ReleaseError, _job, lambda _s, _n, job: job.release(), settles=True),
    "data save": Operation(
        errors.DataSaveError, _job, lambda _s, _n, job: job.data.save(NEW_DATA), "send/.checkout", data=NEW_DATA
    ),
    "data load": Operation(errors.DataLoadError, _job, lambda _s, _n, job: job.data.load(), "send/.checkout"),
    "direct save": Operation(errors.DirectSaveError, _entry, lambda _s, _n, entry: entry.direct.save(BERT)),
    "direct remove": Operation(errors.DirectRemoveError, _entry, lambda _s, _n, entry: entry.direct.remove(), None),
    "direct data save": Operation(
        errors.DataSaveError, _entry, lambda _s, _n, e: e.direct.data_file.save(NEW_DATA), data=NEW_DATA
    ),
    "entries": Operation(errors.Trouble, _entry, lambda spool, _n, _: spool.entries(Mail.SEND)),
    "recover": Operation(errors.Trouble, _entry, lambda spool, _n, _: spool.recover()),
}


def where(path: Path, name: str) -> tuple[list[str], list[bytes], bytes | None]:
    """Return where an entry is, with its metadata and its data."""
    state = state_of(path)
    places = state.places(name)
    return places, [(path / place / name).read_bytes() for place in places], state.data.get(name)


async def attempt(act: Awaitable[Any]) -> Any:
    """Return the answer; an operation never raises because of a system call."""
    try:
        return await act
    except Exception as error:
        raise AssertionError(f"raised {error!r}") from error


async def call_by_call(path: Path, name: str, code: int, **how: Any) -> list[str]:
    """Do an operation again and again, its n-th call failing each time, until none fails; return the calls that failed.

    After each: the answer is of the operation's errors, and the entry is where it was, or where it was to go. The same
    can be done again, and leaves no litter. All that goes wrong is told at once.
    """
    failed: list[str] = []
    wrong: list[str] = []
    while True:
        calls = FailingAt(code, **how)
        directory = path / f"{len(failed):03}" / "spool"
        try:
            await one_call(directory, OPERATION[name], calls, len(failed) + 1)
        except AssertionError as error:
            wrong.append(f"{calls.met or 'nothing'} failed: {str(error).splitlines()[0]}")
        shutil.rmtree(directory)
        if not calls.met:
            assert not wrong, "\n".join(wrong)
            return failed
        failed.append(calls.met)


async def one_call(path: Path, operation: Operation, calls: FailingAt, n: int) -> None:
    """Do an operation, its n-th call failing."""
    async with await make_spool(path, system_calls=calls) as spool:
        prepared = await operation.prepare(spool, "a")
        before = where(path, "a")
        calls.arm(n)
        answer = first = await attempt(operation.act(spool, "a", prepared))
        calls.disarm()
        try:
            if isinstance(first, Err):
                check_error(first.error, operation, calls.code)
                if not isinstance(first.error, DurabilityUnknown):
                    assert where(path, "a") == before, f"{first.error!r}, and the entry is not where it was"
                    assert not operation.settles or not prepared.settled, f"{first.error!r}, and the job is settled"
                    if calls.met.split()[0] in RUN_OUT:
                        assert state_of(path).faults() == [], f"{first.error!r}, and left {state_of(path).faults()}"
                    if not calls.met.startswith("sync"):  # after which the spool may take nothing more
                        answer = await attempt(operation.act(spool, "a", prepared))
                        assert isinstance(answer, Ok), f"{first.error!r}, and the second time {answer}"
            if isinstance(answer, Ok):
                places, _, data = where(path, "a")
                assert places == ([] if operation.queue is None else [operation.queue]), (
                    f"{answer}, and it is in {places}"
                )
                assert operation.queue is None or data == operation.data
        finally:
            await settle(spool, answer, prepared)
    async with await load_spool(path) as spool:
        (await spool.recover()).unwrap()
    assert state_of(path).faults() == []


async def settle(spool, answer, prepared) -> None:
    """Give back what is still in hand."""
    for job in (prepared, answer.value if isinstance(answer, Ok) else None):
        if isinstance(job, CheckedOutEntry):
            with contextlib.suppress(SpoolError):  # which it was settled with, and has been told
                async with job:
                    pass


def check_error(error: SpoolError, operation: Operation, code: int) -> None:
    """Insist that an error is one that the operation may answer, and says what was wrong."""
    assert isinstance(error, typing.get_args(operation.errors)), f"{error!r} is none of its errors"
    if not isinstance(error, (DurabilityUnknown, UnreadableEntry)):
        assert isinstance(error, ANSWERS[code]), f"{error!r} says something else"
    assert error.__cause__ is not None


@pytest.mark.proof
@pytest.mark.parametrize(("name", "code"), thinned(itertools.product(OPERATION, ANSWERS), 16))
async def test_whichever_call_fails_the_answer_is_an_error_and_the_entry_is_where_it_was(path, name, code):
    """No operation raises, loses, tears or moves anything because a call had no effect; all can be done again."""
    failed = await call_by_call(path, name, code)
    assert len(failed) >= (1 if name == "release" else 3), failed


@pytest.mark.parametrize("name", OPERATION)
async def test_a_close_that_reports_an_error_is_no_raw_exception(path, name):
    """`close` may report EIO after it has closed; that is answered, or passed over, but never raised as it is."""
    assert await call_by_call(path, name, errno.EIO, after_effect=True, only=("close",))


@pytest.mark.parametrize("name", OPERATION)
async def test_a_call_that_takes_effect_and_reports_an_error_is_looked_into(path, name):
    """After EIO from a rename or an unlink, the answer says what is on disk: `Ok` if it moved, else an error."""
    failed = await call_by_call(path, name, errno.EIO, after_effect=True, only=("move", "exchange", "unlink"))
    assert failed or name in ("data load", "entries", "recover")


@pytest.mark.parametrize("name", ["enqueue", "checkout", "save", "save unchanged", "remove", "release", "data save"])
async def test_an_operation_whose_rename_took_effect_has_happened(path, name):
    """EIO after the effect of the commit is no reason to say that nothing happened."""
    await make_spool(path)
    operation = OPERATION[name]
    kinds = {"remove": ("unlink",), "data save": ("exchange",)}.get(name, ("move",))
    await make_spool(path)
    calls = FailingAt(errno.EIO, after_effect=True, only=kinds)
    async with await load_spool(path, system_calls=calls) as spool:
        prepared = await operation.prepare(spool, "a")
        calls.arm(1)
        answer = await operation.act(spool, "a", prepared)
        calls.disarm()
        assert calls.met
        assert isinstance(answer, Ok)
        assert where(path, "a")[0] == ([] if operation.queue is None else [operation.queue])
        await settle(spool, answer, prepared)


async def test_an_enqueue_that_cannot_tell_whether_it_was_committed_does_not_tear_the_entry(path):
    """If the rename took effect, reported EIO, and cannot be looked at either, the data stays with the metadata."""
    calls = FailingCalls()
    async with await make_spool(path, system_calls=calls) as spool:
        calls.fail("move", errno.EIO, "/.tmp/a", after_effect=True)
        calls.fail("stat", errno.EIO, "/.tmp/a")
        answer = await spool.enqueue(Mail.SEND, ANNE, DATA, name=Use("a"))
        assert answer == Err(DurabilityUnknown("a", "send", committed=False))
        assert where(path, "a") == (["send"], [OLD], DATA)
        calls.mend()
        (await spool.recover()).unwrap()
    assert state_of(path).faults() == []


class _Blinding(FailingCalls):
    """The first call of a kind takes effect and reports EIO; from then on, no `stat` succeeds."""

    blinded_by = ""

    def _do(self, call: str, *arguments: Any) -> Any:
        if call == self.blinded_by and not self.faults:
            self.fail(call, errno.EIO, after_effect=True, times=1)
            self.fail("stat", errno.EIO)
        return super()._do(call, *arguments)


@pytest.mark.parametrize(
    ("name", "commit"),
    [
        ("remove", "unlink"),
        ("data save", "exchange"),
        ("direct save", "exchange"),
        ("direct remove", "unlink"),
        ("direct data save", "exchange"),
    ],
)
async def test_an_operation_that_cannot_tell_whether_it_was_committed_says_so(path, name, commit):
    """`StorageFailure` means that nothing happened: that is not said where nobody can see whether it did."""
    operation, calls = OPERATION[name], _Blinding()
    async with await make_spool(path, system_calls=calls) as spool:
        prepared = await operation.prepare(spool, "a")
        calls.blinded_by = commit
        answer = await operation.act(spool, "a", prepared)
        calls.blinded_by = ""
        calls.mend()
        queue = "" if name == "direct data save" else "send"
        assert answer == Err(DurabilityUnknown("a", queue, committed=False))
        await settle(spool, answer, prepared)
        (await spool.recover()).unwrap()
    assert state_of(path).faults() == []


@pytest.mark.proof
@pytest.mark.parametrize("code", thinned(ANSWERS, 3), ids=errno.errorcode.get)
async def test_whichever_call_of_loading_and_of_creating_fails_the_answer_is_an_error(path, code):
    """`create` and `load` raise nothing and leave nothing open; the next `create` finishes what was begun."""
    from helpers.spools import MAIL
    from trio_multispool import Spool

    failed: list[str] = []
    wrong: list[str] = []
    for load in (Spool.create, Spool.load):
        for n in itertools.count(1):
            if load == Spool.load:
                (await make_spool(path)).close()
            open_before = open_descriptors()
            calls = FailingAt(code)
            calls.arm(n)
            try:
                answer = await attempt(load(path, MAIL, system_calls=calls))
                calls.disarm()
                if isinstance(answer, Ok):
                    answer.value.close()
                else:
                    assert isinstance(answer.error, typing.get_args(errors.LoadError)), f"answered {answer}"
                assert len(open_descriptors()) == len(open_before), "something is left open"
                (await make_spool(path)).close()
                assert set(contents(path)) >= {".spool.json", ".data", ".registry", ".tmp", "send", "send/.checkout"}
                assert ".spool.json.new" not in contents(path), "half of it is left"
            except AssertionError as error:
                wrong.append(f"{load.__name__}: {calls.met} failed: {str(error).splitlines()[0]}")
            shutil.rmtree(path, ignore_errors=True)
            if not calls.met:
                break
            failed.append(calls.met)
    assert not wrong, "\n".join(wrong)
    assert len(failed) > 40


# Limits that the kernel really sets


def test_a_process_that_runs_out_of_descriptors_keeps_what_it_has(path):
    """Each check-out holds a descriptor; the one too many is refused, and can be had when another is given back."""
    storage = make_store(path)
    for number in range(60):
        enqueue(storage, "send", f"{number:02}")

    def take_all(parent, path) -> None:
        import resource

        from helpers.stores import claim, release
        from trio_multispool import TooManyOpenFiles
        from trio_multispool.storage.directory.store import DirectoryStorage

        storage = DirectoryStorage.open(path, ["send"])
        names = storage.names("send")
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
        claims = []
        try:
            claims.extend(claim(storage, "send", name) for name in names)
        except TooManyOpenFiles as error:
            parent.say(len(claims), str(error))
        try:
            storage.reserve("new")
        except TooManyOpenFiles:
            parent.say("refused")
        for claimed in claims[:3]:
            release(storage, claimed)
        again = claim(storage, "send", names[len(claims)])
        for claimed in [*claims[3:], again]:
            release(storage, claimed)
        parent.say("released")

    with Child(take_all, path) as child:
        taken, told = child.hear()
        assert 0 < taken < 40
        assert "ulimit -n" in told
        assert child.hear() == ["refused"]
        assert child.hear() == ["released"]
        child.end()
    assert [*storage.recover(), *sweep(storage)] == []
    assert len(state_of(path).names("send")) == 60
    assert state_of(path).faults() == []
    storage.close()


def test_data_that_is_larger_than_files_may_be_is_refused_and_undone(path):
    """A write that stops half-way (here by RLIMIT_FSIZE, as on a full disk) leaves the old data, or nothing."""
    storage = make_store(path)
    enqueue(storage, "send", "a")

    def write_too_much(parent, path) -> None:
        import resource

        from helpers.stores import claim, enqueue, release, replace_data
        from trio_multispool import OutOfSpace
        from trio_multispool.storage.directory.store import DirectoryStorage

        storage = DirectoryStorage.open(path, ["send"])
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        claimed = claim(storage, "send", "a")
        for act in (
            lambda: enqueue(storage, "send", "b", data=bytes(300_000)),
            lambda: replace_data(storage, "a", claimed, bytes(100_001)),
        ):
            try:
                act()
            except OutOfSpace as error:
                parent.say(error.operation)
        enqueue(storage, "send", "c", data=bytes(100_000))
        release(storage, claimed)

    with Child(write_too_much, path) as child:
        assert list(child) == [["write"], ["write"]]
        child.end()
    storage.recover()
    sweep(storage)
    state = state_of(path)
    assert state.data == {"a": DATA, "c": bytes(100_000)}
    assert state.names("send") == ["a", "c"]
    assert state.faults() == []
    storage.close()


# Syncs


@pytest.mark.parametrize("synced", ["/.data/a", "/.tmp/a", "/.data"])
async def test_a_sync_that_fails_before_the_commit_undoes_the_enqueue(path, synced):
    """What was not synced is not there: `StorageFailure`, and no litter."""
    calls = FailingCalls()
    async with await make_spool(path, system_calls=calls) as spool:
        calls.fail("sync", errno.EIO, synced, times=1)
        answer = await spool.enqueue(Mail.SEND, ANNE, DATA, name=Use("a"))
        assert isinstance(answer, Err)
        assert isinstance(answer.error, StorageFailure)
        assert answer.error.operation == "sync"
        assert (state_of(path).entries(), state_of(path).faults()) == (set(), [])


@pytest.mark.parametrize("synced", ["/.tmp/a", "/send"])
async def test_a_sync_that_fails_before_the_commit_undoes_the_save(path, synced):
    """The entry stays with its owner, as it was, and leaving the block returns it."""
    calls = FailingCalls()
    async with await make_spool(path, system_calls=calls) as spool:
        job = await _job(spool, "a")
        calls.fail("sync", errno.EIO, synced, times=1)
        with pytest.raises(StorageFailure):  # noqa: PT012  # by leaving the block
            async with job:
                answer = await job.save(Mail.RETRY, BERT)
                assert isinstance(answer, Err)
                assert isinstance(answer.error, StorageFailure)
                assert where(path, "a") == (["send/.checkout"], [OLD], DATA)
        assert where(path, "a") == (["send"], [OLD], DATA)
        assert state_of(path).faults() == []


@pytest.mark.parametrize(
    ("name", "synced"),
    [
        ("enqueue", "/send"),
        ("save", "/retry"),
        ("remove", "/send/.checkout"),
        ("data save", "/.data"),
        ("direct save", "/send"),
        ("direct remove", "/send"),
        ("direct data save", "/.data"),
    ],
)
async def test_a_sync_that_fails_after_the_commit_leaves_durability_unknown(path, name, synced):
    """The change is made, and says so; nothing durable is taken after that, until the spool is loaded again.

    Releasing, listing and reading go on.
    """
    operation = OPERATION[name]
    calls = FailingCalls()
    async with await make_spool(path, system_calls=calls) as spool:
        [other, third] = await put(spool, Mail.FAILED, "other", "third")
        held = (await other.checkout()).unwrap()
        prepared = await operation.prepare(spool, "a")
        before = 1 if name == "direct remove" else 0  # of syncs below that directory
        calls.fail("sync", errno.EIO, "/spool" + synced, times=1, skip=before)
        answer = await operation.act(spool, "a", prepared)
        assert isinstance(answer, Err)
        assert isinstance(answer.error, DurabilityUnknown)
        assert (answer.error.name, answer.error.committed) == ("a", True)
        calls.mend()
        assert where(path, "a")[0] == ([] if operation.queue is None else [operation.queue])

        refused = Err(SyncsRefused(os.fspath(path)))
        assert await spool.enqueue(Mail.SEND, ANNE, DATA) == refused
        assert await held.save(Mail.RETRY, BERT) == refused
        assert await held.save(Mail.RETRY, durability=Durability.PROCESS) == refused
        assert await held.remove() == refused
        assert await held.data.save(b"other") == refused
        assert await third.direct.save(BERT) == refused
        assert await third.direct.remove() == refused
        assert where(path, "other") == (["failed/.checkout"], [b'{"recipient":"other","attempts":0}'], DATA)

        assert await held.data.load() == Ok(DATA)
        assert await held.release() == Ok(None)
        assert await names_in(spool, Mail.FAILED) == ["other", "third"]
        async with (await other.checkout()).unwrap():
            pass
        await settle(spool, answer, prepared)
    async with await load_spool(path) as spool:
        (await spool.recover()).unwrap()
        assert state_of(path).faults() == []
        (await spool.enqueue(Mail.SEND, ANNE, DATA)).unwrap()


async def test_a_spool_that_needs_no_syncs_goes_on_when_they_fail(path):
    """At level `PROCESS` nothing is synced, and nothing is refused."""
    calls = FailingCalls()
    async with await make_spool(path, system_calls=calls, durability=Durability.PROCESS) as spool:
        calls.fail("sync", errno.EIO)
        job = await _job(spool, "a")
        (await job.data.save(NEW_DATA)).unwrap()
        (await job.save(Mail.RETRY, BERT)).unwrap()
        assert is_err(await spool.enqueue(Mail.SEND, ANNE, DATA, durability=Durability.POWER))
        (await spool.enqueue(Mail.SEND, ANNE, DATA)).unwrap()
    assert state_of(path).faults() == []


# Directories that are replaced under a running program


def replace(path: Path, queue: str) -> None:
    """Remove a queue with all that is in it, and make it anew, as an administrator may."""
    shutil.rmtree(path / queue)
    (path / queue / ".checkout").mkdir(parents=True)


@pytest.mark.anyio
async def test_enqueueing_and_reading_go_on_in_a_directory_that_was_replaced(path):
    """A program that runs on uses the directory that is there now."""
    async with await make_spool(path) as spool:
        await put(spool, Mail.SEND, "lost")
        async with spool.reader(Mail.SEND) as reader:
            assert (await reader.dequeue_available()).unwrap() is not None
        replace(path, "send")
        await put(spool, Mail.SEND, "a", "b")
        assert state_of(path).names("send") == ["a", "b"]
        replace(path, "send")
        await put(spool, Mail.SEND, "c")
        async with spool.reader(Mail.SEND) as reader:
            job = (await reader.dequeue_available()).unwrap()
            assert job.name == "c"
            (await job.save(Mail.RETRY)).unwrap()
        replace(path, "retry")
        await put(spool, Mail.RETRY, "d")
        assert await names_in(spool, Mail.RETRY) == ["d"]
        (await spool.recover()).unwrap()
    assert state_of(path).faults() == []


async def test_an_entry_in_a_directory_that_was_replaced_is_found_by_its_name(path):
    """Not only listing notices that a directory is another one now."""
    async with await make_spool(path) as spool, await load_spool(path) as other:
        await put(spool, Mail.SEND, "before")
        assert await names_in(spool, Mail.SEND) == ["before"]
        replace(path, "send")
        await put(other, Mail.SEND, "after")
        entry = spool.entry(Mail.SEND, "after").unwrap()
        assert isinstance(await entry.stat(), Ok)
        assert (await entry.direct.contents()).unwrap().recipient == "after"
        async with (await entry.checkout()).unwrap() as job:
            (await job.remove()).unwrap()


async def test_recovery_collects_nothing_of_a_directory_that_was_replaced(path):
    """An entry that lies in the new directory keeps its data, whoever still has the old one open."""
    async with await make_spool(path) as spool, await load_spool(path) as other:
        await put(spool, Mail.SEND, "before")
        job = (await spool.entry(Mail.SEND, "before").unwrap().checkout()).unwrap()
        (await job.remove()).unwrap()
        replace(path, "send")
        await put(other, Mail.SEND, "after", data=DATA)
        (await spool.recover()).unwrap()
        assert where(path, "after")[2] == DATA
        assert state_of(path).faults() == []


async def test_a_name_in_a_directory_that_was_replaced_is_taken(path):
    """A name is looked for in the directories that are there now."""
    from trio_multispool import NameTaken

    async with await make_spool(path) as spool, await load_spool(path) as other:
        await put(spool, Mail.SEND, "before")
        replace(path, "send")
        await put(other, Mail.SEND, "a")
        assert await spool.enqueue(Mail.RETRY, BERT, b"", name=Use("a")) == Err(NameTaken("a"))
        assert where(path, "a")[0] == ["send"]
        assert where(path, "a")[2] is not None


async def test_a_queue_whose_directory_is_gone_is_told(path):
    """Enqueueing into a queue that was removed answers `StorageFailure`, undone; made again, it is used."""
    async with await make_spool(path) as spool:
        await put(spool, Mail.SEND, "before")
        shutil.rmtree(path / "send")
        answer = await spool.enqueue(Mail.SEND, ANNE, DATA, name=Use("a"))
        assert isinstance(answer, Err)
        assert isinstance(answer.error, StorageFailure)
        assert "a" not in state_of(path).data
        (path / "send" / ".checkout").mkdir(parents=True)
        await put(spool, Mail.SEND, "a")
        (await spool.recover()).unwrap()
    assert state_of(path).faults() == []


# Every change passes `SystemCalls`, and in the order that survives power loss


def test_nothing_changes_on_disk_but_through_the_system_calls(path):
    """With system calls that do nothing, no operation of the store changes anything."""
    for number, (prepare, perform) in enumerate(OPERATIONS.values()):
        calls = Unplugged()
        storage = make_store(path, calls=calls)
        prepared = prepare(storage, f"{number}")
        calls.unplugged = True
        before = contents(path)
        with contextlib.suppress(SpoolError, OSError):
            perform(storage, f"{number}", prepared)
        with contextlib.suppress(SpoolError, OSError):
            make_store(path.with_name("other"), calls=calls)
        assert contents(path) == before
        assert not path.with_name("other").exists()
        calls.unplugged = False
        if hasattr(prepared, "abandon"):
            prepared.abandon()
        storage.recover()
        sweep(storage)
        storage.close()
    assert state_of(path).faults() == []


def test_a_recorder_sees_all_kinds_of_calls(path):
    """The tests here go through every call that the store makes: no kind of call is left out."""
    calls = Recorder()
    storage = make_store(path, calls=calls)
    for number, (prepare, perform) in enumerate(OPERATIONS.values()):
        prepared = prepare(storage, f"{number}")
        perform(storage, f"{number}", prepared)
    storage.names("send")
    list(storage.inventory())
    storage.close()
    used = {words.split()[0] for words in calls.made} | {"open"}
    assert set(METHODS) - used <= {
        "seek",
        "truncate",  # for codecs
        "notify",  # for readers that wait
        "lock_byte",  # for readers with a limit
        "unlock_byte",
        "sync_file_system",  # for batches, on some file systems
        "scan",  # for the monitor
        "change_owner",  # in the spool of another user, or of a group
        "remove_directory",  # where a new directory cannot be given to them
    }


STEPS = ("create", "write_out", "sync", "move", "exchange", "unlink", "unlock")
"""What changes something, makes it durable, or lets others at it."""

CREATE = ["create .registry/a", "create .data/a", "create .tmp/a"]

ORDERS = {
    "enqueue": [
        "create .registry/a",
        "create .data/a",
        "create .tmp/a",
        "sync .data/a",
        "sync .tmp/a",
        "sync .data",
        "move .tmp/a -> send/a",
        "unlock .registry/a",
        "sync send",
    ],
    "enqueue together": [
        "create .data/a",
        "create .tmp/a",
        "create .data/a.two",
        "create .tmp/a.two",
        *(f"write_out {file}" for file in (".data/a", ".tmp/a", ".data/a.two", ".tmp/a.two")),
        *(f"sync {file}" for file in (".data/a", ".tmp/a", ".data/a.two", ".tmp/a.two")),
        "sync .data",
        "move .tmp/a -> send/a",
        "unlock .registry/a",
        "move .tmp/a.two -> send/a.two",
        "unlock .registry/a.two",
        "sync send",
    ],
    "check out": ["move send/a -> send/.checkout/a"],
    "save": [
        "create .tmp/a",
        "sync .tmp/a",
        "sync send",
        "exchange .tmp/a -> send/.checkout/a",
        "move send/.checkout/a -> retry/a",
        "unlink .tmp/a",
        "unlock .registry/a",
        "sync retry",
    ],
    "save together": [
        "create .tmp/a",
        "create .tmp/a.two",
        "write_out .tmp/a",
        "write_out .tmp/a.two",
        "sync .tmp/a",
        "sync .tmp/a.two",
        "sync send",
        "exchange .tmp/a -> send/.checkout/a",
        "move send/.checkout/a -> retry/a",
        "unlink .tmp/a",
        "unlock .registry/a",
        "exchange .tmp/a.two -> send/.checkout/a.two",
        "move send/.checkout/a.two -> retry/a.two",
        "unlink .tmp/a.two",
        "unlock .registry/a.two",
        "sync retry",
    ],
    "save unchanged": ["sync send", "move send/.checkout/a -> retry/a", "unlock .registry/a", "sync retry"],
    "release": ["move send/.checkout/a -> send/a", "unlock .registry/a"],
    "remove": [
        "sync send",
        "unlink send/.checkout/a",
        "sync send/.checkout",
        "unlink .data/a",
        "unlink .registry/a",
        "unlock .registry/a (deleted)",
    ],
    "data save": [
        "create .tmp/.data.a",
        "sync .tmp/.data.a",
        "exchange .tmp/.data.a -> .data/a",
        "unlink .tmp/.data.a",
        "sync .data",
    ],
    "direct save": [
        "create .tmp/.unsafe.a",
        "sync .tmp/.unsafe.a",
        "exchange .tmp/.unsafe.a -> send/a",
        "unlink .tmp/.unsafe.a",
        "unlock send/a",
        "unlock .registry/a",
        "sync send",
    ],
    "direct remove": [
        "sync send/.checkout",
        "unlink send/a",
        "sync send",
        "unlink .data/a",
        "unlink .registry/a",
        "unlock .registry/a (deleted)",
    ],
    "quarantine": [
        "sync .",
        "sync .quarantine",
        "sync send",
        "create .quarantine/.reasons/a",
        "move send/.checkout/a -> .quarantine/send/a",
        "unlock .registry/a",
    ],
    "restore": [
        "sync send/.checkout",
        "sync .quarantine/send",
        "move .quarantine/send/a -> send/a",
        "unlink .quarantine/.reasons/a",
        "unlock .registry/a",
        "sync send",
    ],
    "discard": [
        "sync send/.checkout",
        "sync .quarantine/send",
        "unlink .quarantine/send/a",
        "sync .quarantine/send",
        "unlink .quarantine/.reasons/a",
        "unlink .data/a",
        "unlink .registry/a",
        "unlock .registry/a (deleted)",
    ],
    "recover": ["move send/.checkout/a -> send/a", "unlock .registry/a"],
}
"""The documented order, for a spool of level `POWER`."""


def steps(path: Path, operation: str, **options: Any) -> list[str]:
    """Return the steps of an operation that had an effect."""

    class Effects(Recorder):
        def around(self, call, arguments, perform):
            done = super().around(call, arguments, perform)
            self.effects.append(self.made[-1])
            return done

    calls = Effects()
    calls.effects = []
    storage = make_store(path, calls=calls, **options)
    prepare, perform = OPERATIONS[operation]
    prepared = prepare(storage, "a")
    calls.effects.clear()
    claimed = perform(storage, "a", prepared)
    unnumbered = [re.sub(r"\.unsafe\.[^. ]+", ".unsafe", words) for words in calls.effects]
    taken = [words for words in unnumbered if words.split()[0] in STEPS]
    for held in (prepared, claimed):
        if hasattr(held, "abandon"):
            held.abandon()
    storage.close()
    return taken


@pytest.mark.parametrize("operation", ORDERS)
def test_the_calls_of_an_operation_come_in_the_order_that_survives_power_loss(path, operation):
    """Files before the directory that names them, both before the commit, the queue after it, the reservation last."""
    assert steps(path, operation) == ORDERS[operation]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_nothing_is_synced_at_level_process(path, operation):
    """A spool of level `PROCESS` makes the same calls in the same order, without syncs; and waits for nobody."""
    taken = steps(path, operation, durability=Durability.PROCESS)
    assert [words for words in taken if words.startswith(("sync", "write_out"))] == []
    if operation == "save together":
        assert taken == [*taken[:5], *(words.replace("/a", "/a.two") for words in taken[:5])]
    elif operation == "enqueue together":
        assert taken == [*taken[:4], *(words.replace("/a", "/a.two") for words in taken[:4])]
    elif operation in ORDERS:
        assert taken == [words for words in ORDERS[operation] if not words.startswith(("sync", "write_out"))]


@pytest.mark.parametrize(
    ("operation", "last"), [("enqueue", "sync send"), ("save", "sync retry"), ("data save", "sync .data")]
)
def test_a_call_at_level_process_in_a_spool_of_level_power_leaves_out_its_last_sync_only(path, operation, last):
    """It may lose its own effect, never tear an entry, and never lose what was acknowledged before."""
    calls = Recorder()
    storage = make_store(path, calls=calls)
    if operation != "enqueue":
        enqueue(storage, "send", "a")
        claimed = claim(storage, "send", "a")
    calls.take()
    if operation == "enqueue":
        enqueue(storage, "send", "a", durability=Durability.PROCESS)
    elif operation == "save":
        save(storage, claimed, "retry", durability=Durability.PROCESS)
    else:
        replace_data(storage, "a", claimed, durability=Durability.PROCESS)
        claimed.abandon()
    full = [words for words in ORDERS[operation] if words.startswith("sync")]
    assert full[-1] == last
    assert calls.take("sync") == full[:-1]
    storage.close()


def test_a_removal_at_level_process_in_a_spool_of_level_power_keeps_the_data_until_it_is_durable(path):
    """An entry that power loss brings back has its data: the directory is synced before the data goes."""
    calls = Recorder()
    storage = make_store(path, calls=calls)
    enqueue(storage, "send", "a")
    claimed = claim(storage, "send", "a")
    calls.take()
    remove(storage, claimed, durability=Durability.PROCESS)
    made = calls.take("sync", "unlink")
    assert made.index("sync send/.checkout") < made.index("unlink .data/a")
    storage.close()


def test_a_save_at_level_power_in_a_spool_of_level_process_catches_up(path):
    """What earlier operations left unsynced is synced before the commit, or the promise would be hollow."""
    calls = Recorder()
    storage = make_store(path, calls=calls, durability=Durability.PROCESS)
    enqueue(storage, "send", "a")
    claimed = claim(storage, "send", "a")
    calls.take()
    save(storage, claimed, "retry", None, durability=Durability.POWER)
    made = calls.take("sync", "move")
    before = made[: made.index("move send/.checkout/a -> retry/a")]
    assert set(before) >= {"sync .data/a", "sync .data", "sync send/.checkout/a", "sync send"}
    assert made[-1] == "sync retry"
    assert read_data(storage, "a") == DATA
    assert (path / "retry" / "a").read_bytes() == OLD != NEW
    storage.close()


def test_a_store_that_only_looks_makes_no_change(path):
    """`look` opens read-only: everything on disk stays as it is, the dead owner's entry too."""
    storage = make_store(path)
    enqueue(storage, "send", "a")
    claim(storage, "send", "a").abandon()
    before = contents(path)
    onlooker = DirectoryStorage.look(path)
    assert [item.name for item in onlooker.inventory()] == ["a"]
    assert onlooker.queues() == sorted(QUEUES)
    assert contents(path) == before
    onlooker.close()
    storage.close()

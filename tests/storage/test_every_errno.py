"""Every call of every operation, failed with each error that its manual page names: without effect, and after it.

One spool serves all failures of an operation: each begins and ends with no entry in it. The table is in
`helpers.errnos`.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import shutil
import typing
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from helpers.children import quick_directory
from helpers.errnos import CHANGING, ERRNOS, LATE, class_of
from helpers.figures import Proof
from helpers.proofs import thinned
from helpers.spools import state_of
from helpers.stores import (
    DATA,
    OLD,
    OPERATIONS,
    QUEUES,
    available,
    enqueue,
    enqueue_reserved,
    is_available,
    make_store,
    nothing,
    read_data,
    sweep,
    writing,
)
from helpers.syscalls import METHODS, NEVER_FAIL, FailingAt, Recorder
from trio_multispool import (
    AccessDenied,
    DurabilityUnknown,
    NotARegularFile,
    NotASpool,
    SeveralFileSystems,
    SpoolError,
    SpoolGone,
    StorageFailure,
    UnreadableEntry,
    UnsupportedFormat,
    errors,
)
from trio_multispool.storage.directory.store import DirectoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Say where the spool is to be."""
    with quick_directory(tmp_path) as directory:
        yield directory / "spool"


LEAVES_SOMETHING = ("unlink", "lock", "sync", "stat")
"""Calls without which something cannot be tidied up at once: recovery does."""


class Case(NamedTuple):
    """An operation of the store, on entry `a`."""

    errors: Any
    """The union of what it may answer."""
    prepare: Callable[[DirectoryStorage, str], Any]
    act: Callable[[DirectoryStorage, str, Any], Any]
    insists: bool = True
    """Whether what it answers without an error has had its whole effect; recovery passes over what is in its way."""


def _enqueue(storage: DirectoryStorage, name: str, _prepared: Any) -> None:
    """Reserve and enqueue, as the spool does: a reservation that was of no use is given up."""

    def write(file: Any) -> None:
        """Write as a codec may, that goes back to fill in a length."""
        file.write(b"?" * len(DATA) + b"too much")
        file.seek(0)
        file.write(DATA)
        file.truncate()

    reservation = storage.reserve(name)
    try:
        enqueue_reserved(storage, reservation, "send", OLD, write, durability=None, before_commit=nothing)
    except SpoolError:
        storage.give_up(reservation)
        raise


def _enqueue_reserved(storage: DirectoryStorage, _name: str, reservation: Any) -> None:
    """Enqueue under a name that stays reserved if this fails."""
    enqueue_reserved(storage, reservation, "send", OLD, writing(DATA), durability=None, before_commit=nothing)


def _entry(storage: DirectoryStorage, name: str) -> None:
    enqueue(storage, "send", name)


def _seek_and_read(storage: DirectoryStorage, name: str, _prepared: Any) -> None:
    def read(file: Any) -> bytes:
        file.seek(1)
        return file.read()

    assert storage.read_data(name, read) == DATA[1:]


def _open_with(storage: DirectoryStorage, *, create: bool = False) -> None:
    DirectoryStorage.open(storage.location, QUEUES, create=create, calls=storage.layout.calls).close()


def _without(storage: DirectoryStorage, queue: str) -> None:
    shutil.rmtree(storage.layout.full(queue), ignore_errors=True)


def _make_directory(storage: DirectoryStorage, _name: str, _prepared: Any) -> None:
    _ = storage.layout.ensure_directory("extra")


SOMEBODY = (61_001, 61_001)
"""A user and a group; they need not exist."""

UNIONS = {
    "reserve": errors.ReserveError,
    "give up": errors.Trouble,
    "enqueue": errors.EnqueueError,
    "check out": errors.CheckoutError,
    "save": errors.SaveError,
    "save unchanged": errors.SaveError,
    "save in place": errors.SaveError,
    "release": errors.ReleaseError,
    "remove": errors.RemoveError,
    "ask to cancel": errors.NotAdopted | errors.Trouble,
    "save what is cancelled": errors.SaveError,
    "remove what is cancelled": errors.RemoveError,
    "quarantine": errors.ReleaseError,
    "restore": errors.DirectRemoveError | errors.EntryBusy | errors.NameTaken,
    "discard": errors.DirectRemoveError | errors.EntryBusy | errors.NameTaken,
    "data save": errors.DataSaveError,
    "direct save": errors.DirectSaveError,
    "direct remove": errors.DirectRemoveError,
    "direct data save": errors.DataSaveError,
    "unsafe save": errors.SaveError | errors.EntryBusy,
    "unsafe save from the dead": errors.SaveError | errors.EntryBusy,
    "unsafe release": errors.ReleaseError,
    "unsafe remove": errors.RemoveError,
    "unsafe remove from the dead": errors.RemoveError,
    "unsafe data save": errors.DataSaveError,
    "recover": errors.Trouble,
    "sweep": errors.Trouble,
}
"""By the operation's name in `OPERATIONS`. Settling several together has tests of its own."""

CASES = {name: Case(union, *OPERATIONS[name], name not in ("recover", "sweep")) for name, union in UNIONS.items()} | {
    "enqueue": Case(errors.EnqueueError, lambda s, n: None, _enqueue),
    "enqueue under a reserved name": Case(errors.EnqueueError, OPERATIONS["give up"][0], _enqueue_reserved),
    "load": Case(errors.LoadError, OPERATIONS["recover"][0], lambda s, _n, _: _open_with(s), insists=False),
    "create": Case(errors.LoadError, _entry, lambda s, _n, _: _open_with(s, create=True), insists=False),
    "list": Case(errors.Trouble, _entry, lambda s, _n, _: s.names("send") and s.queues()),
    "inventory": Case(errors.Trouble, OPERATIONS["save"][0], lambda s, _n, _: list(s.inventory())),
    "look at the metadata": Case(
        errors.EntryNotFound | errors.Trouble,
        _entry,
        lambda s, n, _: (
            is_available(s, "send", n),
            s.stat(available("send"), n),
            s.read_metadata(available("send"), n),
        ),
    ),
    "look at the data": Case(errors.DataLoadError, _entry, lambda s, n, _: (s.stat_data(n), read_data(s, n))),
    "read the data": Case(errors.DataLoadError, _entry, _seek_and_read),
    "read a whole entry": Case(
        errors.DataLoadError | errors.UnreadableEntry,
        _entry,
        lambda s, n, _: s.read_entry("send", n, lambda metadata, _found, file: (metadata, file.read())),
    ),
    "count": Case(errors.Trouble, OPERATIONS["save"][0], lambda s, _n, _: s.count()),
    "look at what others have": Case(errors.Trouble, OPERATIONS["save"][0], lambda s, _n, _: s.claims_unsafe("send")),
}


class Failing(FailingAt):
    """Makes the n-th call fail; a file that was opened before the failure is closed, as the kernel does."""

    def act(self, perform: Callable[[], Any]) -> Any:
        """Fail."""

        def closing() -> None:
            opened = perform()
            if self.met.startswith(("open", "create")):
                os.close(opened)

        return super().act(closing)


def where(path: Path) -> list[Any]:
    """Return where entry `a` is, with its metadata and data."""
    state = state_of(path)
    return [(place, (path / place / "a").read_bytes(), state.data.get("a")) for place in state.places("a")]


def calls_of(path: Path, case: Case) -> tuple[list[str], list[Any]]:
    """Do it once, undisturbed; return the calls in words, and what it makes of the entry."""
    calls = Recorder()
    with spool_for_one(path, case, calls) as (storage, prepared):
        calls.take()
        result = case.act(storage, "a", prepared)
        made = [words for words in calls.take() if words.split()[0] not in NEVER_FAIL]
        after = where(path)
        abandon(result)
    return made, after


@contextlib.contextmanager
def spool_for_one(path: Path, case: Case, calls: Any) -> Iterator[tuple[DirectoryStorage, Any]]:
    """Yield a store that has nothing open yet, and what was prepared; at the end recover, insist on order, and empty.

    Nothing may stay open.
    """
    open_before = len(os.listdir("/proc/self/fd"))
    tidier = DirectoryStorage.open_unsafe(path)
    prepared = case.prepare(tidier, "a")
    storage = DirectoryStorage.open_unsafe(path, calls=calls)
    try:
        yield storage, prepared
    finally:
        storage.close()
        abandon(prepared)
        tidier.close()
    with contextlib.closing(DirectoryStorage.open(path, QUEUES)) as tidier:
        sweep(tidier)
        assert state_of(path).faults() == [], f"and after recovery {state_of(path).faults()}"
        for place in state_of(path).places("a"):
            (path / place / "a").unlink()
        sweep(tidier)
    shutil.rmtree(path / ".quarantine", ignore_errors=True)  # made when it is wanted
    left = [os.readlink(f"/proc/self/fd/{fd}") for fd in range(256) if os.path.exists(f"/proc/self/fd/{fd}")]
    assert len(os.listdir("/proc/self/fd")) == open_before, f"and left open {left}"


def abandon(held: Any) -> None:
    """Let go of a claim or a reservation."""
    if hasattr(held, "abandon"):
        held.abandon()


def fail_once(path: Path, case: Case, after: list[Any], n: int, calls: Failing) -> None:
    """Do it, its n-th call failing, and then again; raise `AssertionError` with what is wrong."""
    with spool_for_one(path, case, calls) as (storage, prepared):
        before, faults = where(path), state_of(path).faults()
        calls.arm(n)
        failure = attempt(case, storage, prepared)
        calls.disarm()
        kind = calls.met.split()[0]
        assert kind, "it made fewer calls than before"
        now = where(path)
        if isinstance(failure, SpoolError):
            check_error(failure, case, calls.code, kind)
            if not isinstance(failure, DurabilityUnknown):
                assert now == before or (now == after and not case.insists), f"{failure!r}, and it is {now}"
                if not calls.after_effect and kind not in LEAVES_SOMETHING:
                    left = state_of(path).faults()
                    assert set(left) <= set(faults), f"{failure!r}, and {left}"
                fresh = DirectoryStorage.open_unsafe(path) if kind.startswith("sync") else storage
                failure = attempt(case, fresh, prepared)
                assert not failure, f"and again: {failure!r}"
                now = where(path)
                if fresh is not storage:
                    fresh.close()
        elif not case.insists:
            assert now in (before, after), f"no error, and it is {now}"
            assert attempt(case, storage, prepared) is None
            now = where(path)
        assert now == after, f"{failure!r}, and it is {now}"


def attempt(case: Case, storage: DirectoryStorage, prepared: Any) -> SpoolError | None:
    """Do it; return what it answers, if that is an error. What it checks out or reserves is let go."""
    try:
        abandon(case.act(storage, "a", prepared))
    except SpoolError as error:
        return error.with_traceback(None)  # whose frames would keep claims alive
    except OSError as error:
        raise AssertionError(f"raised {error!r}") from None
    return None


def check_error(error: SpoolError, case: Case, code: int, kind: str) -> None:
    """Insist that an error is one that the operation may answer, and says what was wrong."""
    assert isinstance(error, typing.get_args(case.errors)), f"{error!r} is none of its errors"
    meant = class_of(code)
    if isinstance(error, NotASpool) and code in (errno.ELOOP, errno.ENOTDIR):
        return  # something else lies in a directory's place
    if isinstance(error, SpoolGone) and code == errno.ELOOP:
        return  # a symlink that leads nowhere is in the spool's place
    if isinstance(error, UnsupportedFormat) and meant is NotARegularFile:
        return  # something else lies in the place of `.spool.json`
    assert error.__cause__ is not None or meant is SeveralFileSystems, f"{error!r} has no cause"
    if isinstance(error, DurabilityUnknown):
        assert kind.startswith("sync"), f"{error!r}, and no sync failed"
        assert error.committed
    elif isinstance(error, UnreadableEntry):
        assert meant in (NotARegularFile, AccessDenied, StorageFailure), f"{error!r} is no trouble of one entry"
    else:
        assert type(error) is meant, f"{error!r} says something else"
        assert not isinstance(error, StorageFailure) or error.errno == code, f"{error!r} says something else"


def failures(made: list[str]) -> list[tuple[int, int, bool]]:
    """Return which call fails, with what, and whether after its effect; each call, and each errno of each kind once."""
    everything = [
        (n, code, late)
        for n, words in enumerate(made, 1)
        for code in ERRNOS[words.split()[0]].errnos
        for late in ((False, True) if words.split()[0] in CHANGING and code in LATE else (False,))
    ]
    once = {(made[n - 1].split()[0], code): (n, code, late) for n, code, late in everything}
    kept = {*once.values(), *thinned(everything, 1000, lambda failure: failure[0])}
    return [failure for failure in everything if failure in kept]


@pytest.mark.proof
@pytest.mark.parametrize("name", thinned(CASES, 7))
def test_whatever_a_call_fails_with_the_answer_says_so_and_nothing_is_lost(path, name, count):
    """One of the operation's errors, the right one; the entry where it was; done again, it is done; no litter."""
    case = CASES[name]
    _ = gc.collect()  # what earlier tests left to the collector has files open
    make_store(path).close()
    made, after = calls_of(path, case)
    fail_at_each(path, case, made, after, count)


def fail_at_each(path: Path, case: Case, made: list[str], after: list[Any], count: Callable[..., None]) -> None:
    """Do it with each failure; whatever was wrong is told at the end."""
    owner = path.stat()
    tried, wrong = 0, {}
    for n, code, late in failures(made):
        tried += 1
        try:
            fail_once(path, case, after, n, Failing(code, after_effect=late))
        except AssertionError as error:
            what = f"{made[n - 1]} fails with {errno.errorcode[code]}{' after its effect' if late else ''}"
            wrong[what] = str(error).partition("\n")[0]
            shutil.rmtree(path)
            make_store(path).close()
            os.chown(path, owner.st_uid, owner.st_gid)
    count(Proof.EVERY_ERRNO, operations=1, calls=len(made), failures=tried, bad=len(wrong))
    assert not wrong, "\n".join(f"{what}: {how}" for what, how in wrong.items())
    assert tried > 3


OF_ANOTHER = {
    "enqueue": CASES["enqueue"],
    "save": CASES["save"],
    "quarantine": CASES["quarantine"],
    "make a directory": Case(errors.Trouble, lambda s, _n: _without(s, "extra"), _make_directory, insists=False),
}
"""Operations that make files or directories."""


@pytest.mark.proof
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who may give files away")
@pytest.mark.parametrize("name", OF_ANOTHER)
def test_whatever_fails_in_the_spool_of_another_user_the_answer_says_so_and_nothing_is_lost(path, name, count):
    """Where what is made must be given away, the calls for that are like all others."""
    case = OF_ANOTHER[name]
    _ = gc.collect()
    make_store(path).close()
    os.chown(path, *SOMEBODY)
    made, after = calls_of(path, case)
    assert any(words.startswith("change_owner") for words in made)
    fail_at_each(path, case, made, after, count)


def test_the_table_of_errors_has_every_call():
    """Each call that an operation makes and that can fail has its row, by its manual page."""
    assert set(ERRNOS) >= set(METHODS) - set(NEVER_FAIL) - {"notify", "scan"}
    assert all(row.page.endswith("(2)") for row in ERRNOS.values())

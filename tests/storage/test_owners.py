"""Whose files are: real processes of root and of other users, at work in one spool."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import shutil
import signal
import stat
from typing import TYPE_CHECKING

import pytest

from helpers import users
from helpers.calls import FailingCalls, WithoutRenameFlags, WithoutSyncs
from helpers.forks import in_a_fork
from helpers.proofs import thinned
from helpers.stores import DATA, DUE, OLD, OPERATIONS, enqueue, enqueue_reserved, make_store
from helpers.syscalls import KillingCalls, Recorder
from helpers.users import ANNE, BOB, ROOT, SHARED, STRANGER, User, multispool_as, run_as
from trio_multispool.errors import AccessDenied, NameTaken, SpoolError
from trio_multispool.storage.directory.disk.owners import is_handed_over, owner_of_new
from trio_multispool.storage.directory.disk.syscalls import SystemCalls
from trio_multispool.storage.directory.opening import create

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from trio_multispool.storage.directory.store import DirectoryStorage

pytestmark = pytest.mark.skipif(bool(users.why_not()), reason=users.why_not())

EVERYTHING = """
import contextlib, sys
from helpers.stores import DUE, OPERATIONS, QUEUES, enqueue
from trio_multispool.storage.directory.store import DirectoryStorage
with contextlib.closing(DirectoryStorage.open(sys.argv[1], QUEUES, create=True)) as storage:
    for number, (prepare, act) in enumerate(OPERATIONS.values()):
        name = f"{sys.argv[2]}-{number}"
        held = act(storage, name, prepare(storage, name))
        if hasattr(held, "abandon"):
            held.abandon()
    storage.slot(range(1)).release()
"""
"""Each operation of the store once, on entries of its own."""


ASK = """
import contextlib, os, sys
from helpers.stores import make_store
from trio_multispool.errors import SpoolError
from trio_multispool.storage.directory.disk import locks
made = os.path.join(sys.argv[1], ".registry", sys.argv[2])
locks.wall_clock = lambda: os.stat(made).st_ctime + float(sys.argv[3])
with contextlib.closing(make_store(sys.argv[1])) as storage:
    try:
        storage.reserve(sys.argv[2])
    except SpoolError as error:
        print(type(error).__name__, getattr(error, "finished", ""))
    else:
        print("free")
"""
"""Ask for a name, so long after its reservation was last changed, and say what the answer is."""

ENQUEUE = """
enqueue_reserved(storage, storage.reserve("order"), "send", OLD, DATA, remember=3600)
"""

KILLED = """
import os, signal, stat, sys
from helpers.stores import DATA, DUE, OLD, OPERATIONS, enqueue, enqueue_reserved, make_store
from trio_multispool.storage.directory.disk.syscalls import SystemCalls
class Killed(SystemCalls):
    def change_owner(self, fd, user, group):
        what = "a directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else os.readlink(f"/proc/self/fd/{fd}")
        if sys.argv[2] in what:
            os.kill(os.getpid(), signal.SIGKILL)
        super().change_owner(fd, user, group)
storage = make_store(sys.argv[1], calls=Killed())
"""
"""Do what follows, and be killed before something with this in its path is given to its owner."""


BY_KILL = -signal.SIGKILL
"""How a process ends that was killed."""


class Meanwhile(SystemCalls):
    """Lets something happen before a file with this in its path is given to its owner."""

    def __init__(self, part: str, act: Callable[[], object]) -> None:
        """Say where, and what."""
        self._part = part
        self._act = act

    def change_owner(self, fd: int, user: int, group: int) -> None:
        """Act first, at that file."""
        if self._part in os.readlink(f"/proc/self/fd/{fd}"):
            self._act()
        super().change_owner(fd, user, group)


@pytest.fixture
def path() -> Iterator[Path]:
    """Say where the spool is to be: all users can reach it."""
    with users.common_ground() as directory:
        (directory / "spool").mkdir()
        yield directory / "spool"


def make(path: Path, maker: User, group: int, mode: int) -> None:
    """Let a user make a spool in a directory of theirs that has a group of its own."""
    os.chown(path, maker.number, group)
    path.chmod(mode)
    code = """
    import sys
    from helpers.stores import make_store
    make_store(sys.argv[1], mode=int(sys.argv[2], 8)).close()
    """
    assert run_as(maker, code, path, f"{mode:o}").stderr == ""


def everything(path: Path, user: User, prefix: str) -> None:
    """Let a user do everything that can be done in a spool."""
    done = run_as(user, EVERYTHING, path, prefix)
    assert done.returncode == 0, done.stderr


def whose(path: Path) -> set[tuple[int, int]]:
    """Return the owners and the groups of all that is in the spool."""
    return {(found.lstat().st_uid, found.lstat().st_gid) for found in [path, *path.rglob("*")]}


def test_whatever_root_does_in_the_spool_of_a_user_belongs_to_that_user(path):
    """Each file and directory that an operation of root makes has the spool's owner and group; the owner works on."""
    make(path, ANNE, ANNE.number, 0o700)
    everything(path, ROOT, "root")
    assert whose(path) == {(ANNE.number, ANNE.number)}
    everything(path, ANNE, "anne")


@pytest.mark.parametrize("mode", [0o770, 0o2770])
def test_two_users_of_a_group_share_a_spool_with_and_without_setgid(path, mode):
    """All that either of them, or root, makes has the spool's group; so each can do everything after the others."""
    make(path, ANNE, SHARED, mode)
    everything(path, BOB, "bob")
    everything(path, ROOT, "root")
    everything(path, ANNE, "anne")
    everything(path, BOB, "again")
    assert {group for _, group in whose(path)} == {SHARED}


def test_who_may_not_give_files_the_group_of_the_spool_is_refused_with_the_cure(path):
    """Nothing is committed, and nothing is left that others could not read: the message says what to do."""
    make(path, ANNE, SHARED, 0o770)
    before = sorted(path.rglob("*"))
    for found in [path, *before]:
        os.chown(found, STRANGER.number, SHARED)
    for arguments in (("put", path, "send", "/etc/hostname", "--name", "a"), ("create", path, "extra")):
        refused = multispool_as(STRANGER, *arguments)
        assert refused.returncode == 1, refused
        assert f"the spool has the group '{SHARED}': run this as a member" in refused.stderr
        assert sorted(path.rglob("*")) == before


def test_a_creation_that_is_refused_leaves_nothing_and_the_cure_that_it_names_helps(path):
    """A member can create the spool then. And with setgid, which creation keeps, whoever may write there can."""
    os.chown(path, STRANGER.number, SHARED)
    path.chmod(0o770)
    create = ("create", path, "send", "--mode", "770")
    refused = multispool_as(STRANGER, *create)
    assert "run this as a member, or let the spool's directories pass it on (chmod g+s)" in refused.stderr
    assert list(path.iterdir()) == []
    path.chmod(0o2770)
    created = multispool_as(STRANGER, *create)
    assert created.returncode == 0, created
    assert {group for _, group in whose(path)} == {SHARED}
    assert multispool_as(BOB, "put", path, "send", "/etc/hostname").returncode == 0


def test_create_by_root_gives_back_the_directories_that_root_had_made(path):
    """A creation by root that was killed, or an old version, leaves directories that shut the owner out; no more."""
    make(path, ANNE, ANNE.number, 0o700)
    for name in ("extra", "extra/.checkout"):
        (path / name).mkdir(mode=0o700)
    assert multispool_as(ROOT, "create", path, "extra").returncode == 0
    assert whose(path) == {(ANNE.number, ANNE.number)}
    everything(path, ANNE, "anne")


def test_what_root_adopts_stays_the_owners(path):
    """The file that says that the spool is adopted can be read by its owner, who could not load it otherwise."""
    make(path, ANNE, ANNE.number, 0o700)
    (path / ".spool.json").unlink()
    assert multispool_as(ROOT, "adopt", path).returncode == 0
    assert whose(path) == {(ANNE.number, ANNE.number)}
    everything(path, ANNE, "anne")


def asked_by(user: User, path: Path, *, after: float = 0) -> str:
    """Return what a user is answered who asks for a name."""
    asked = run_as(user, ASK, path, "order", str(after))
    assert asked.returncode == 0, asked.stderr
    return asked.stdout.strip()


@pytest.mark.parametrize(
    ("mode", "after", "answer"),
    [(0o700, 0.0, "EntryBusy"), (0o770, 0.4, "EntryBusy"), (0o770, 0.6, "AccessDenied"), (0o700, -0.6, "AccessDenied")],
)
def test_a_name_that_another_user_is_about_to_reserve_is_busy_and_not_refused_as_a_fault(path, mode, after, answer):
    """Its reservation cannot be opened for a moment. If it stays so, a person has to look at it."""
    make(path, ANNE, SHARED, mode)
    answers: list[str] = []
    calls = Meanwhile("/.registry/order", lambda: answers.append(asked_by(ANNE, path, after=after)))
    with contextlib.closing(make_store(path, calls=calls)) as storage:
        storage.reserve("order").abandon()
    assert answers == [answer]
    assert asked_by(ANNE, path, after=after) == "free"


@pytest.mark.parametrize(("refused", "answer"), [(1, NameTaken), (2, AccessDenied)])
def test_a_reservation_that_has_been_handed_over_by_now_is_opened_once_more(path, refused, answer):
    """Between the refusal and the look its maker went on. If it is refused again, waiting would not help."""
    calls = FailingCalls()
    with contextlib.closing(make_store(path, calls=calls)) as storage:
        enqueue(storage, "send", "a")
        calls.fail("open", errno.EACCES, on=".registry/a", skip=1, times=refused)
        with pytest.raises(answer):
            storage.reserve("a")


@pytest.mark.parametrize(("maker", "other", "mode"), [(ANNE, BOB, 0o770), (ROOT, ANNE, 0o700)])
def test_a_temporary_file_that_another_user_left_half_made_keeps_nobody_from_the_spool(path, maker, other, mode):
    """Its writer may live, so it is left; all others' work goes on, also what recovery brings back."""
    make(path, ANNE, SHARED, mode)
    save = 'enqueue(storage, "send", "a"); OPERATIONS["direct save"][1](storage, "a", None)'
    assert run_as(maker, KILLED + save, path, "/.unsafe.").returncode == BY_KILL
    everything(path, other, "other")
    assert [found.name.startswith(".unsafe.") for found in (path / ".tmp").iterdir()] == [True]


@pytest.mark.parametrize("mode", [0o700, 0o770])
def test_what_another_user_is_about_to_make_does_not_count_as_done(path, mode):
    """A memory that has just been made, and that only its maker may open yet, remembers nothing."""
    make(path, ANNE, SHARED, mode)
    answers: list[str] = []
    storage = make_store(path, calls=Meanwhile("/.keys/order", lambda: answers.append(asked_by(ANNE, path))))
    enqueue_reserved(storage, storage.reserve("order"), "send", OLD, DATA, remember=3600)
    storage.close()
    assert answers == ["EntryBusy"]
    assert asked_by(ANNE, path) == "NameTaken False"


@pytest.mark.parametrize(("maker", "other", "mode"), [(ANNE, BOB, 0o770), (ROOT, ANNE, 0o700)])
def test_what_another_user_was_killed_in_the_middle_of_does_not_count_as_done(path, maker, other, mode):
    """A memory that only the dead may open is no fault, and recovery clears it; the name is free."""
    make(path, ANNE, SHARED, mode)
    assert run_as(maker, KILLED + ENQUEUE, path, "/.keys/order").returncode == BY_KILL
    assert (path / ".keys/order").exists()
    assert ".keys" not in multispool_as(other, "fsck", path).stdout
    assert asked_by(other, path) == "free"
    assert list((path / ".keys").iterdir()) == []


DIRECTORIES = ("send/.waiting", ".keys", ".notes", ".quarantine", ".quarantine/.reasons", "extra", "extra/.checkout")
"""Made when they are first needed, or when a queue is added."""


def whose_alone(found: Path) -> tuple[int, int, int]:
    """Return the owner, the group and the mode of one file or directory."""
    looked_at = found.stat()
    return looked_at.st_uid, looked_at.st_gid, stat.S_IMODE(looked_at.st_mode)


WHOLE = (ANNE.number, SHARED, 0o770)


@pytest.mark.parametrize("directory", DIRECTORIES)
def test_a_directory_that_others_may_use_too_is_never_seen_half_made(path, directory):
    """Wherever its maker dies, there is none of that name, or it is handed over; and the next process makes it."""
    make(path, ANNE, SHARED, 0o770)
    (path / directory).parent.mkdir(exist_ok=True)
    calls = KillingCalls()
    storage = make_store(path, calls=calls)

    def ensure(_tell: int) -> None:
        storage.layout.ensure_directory(directory)
        os._exit(0)

    survived, n = False, 0
    while not survived:
        calls.arm(n := n + 1)
        _, survived = in_a_fork(ensure)
        calls.disarm()
        assert not (path / directory).exists() or whose_alone(path / directory) == WHOLE
        storage.layout.ensure_directory(directory)
        assert whose_alone(path / directory) == WHOLE
        (path / directory).rmdir()
    storage.close()


@pytest.mark.parametrize("adopted", [True, False])
def test_a_spool_for_others_too_whose_creation_is_killed_is_made_by_the_next(path, adopted):
    """Wherever that was, its directories are whole, and what is left of the dead is in nobody's way."""
    calls = KillingCalls()
    calls.counts = lambda call, _: call in ("make_directory", "change_mode", "move")  # a kill at another leaves no more

    def make_spool(_tell: int) -> None:
        create(path / f"{n}", ["send"], calls, mode=0o770, trust_file_system=True, adopted=adopted)
        os._exit(0)

    survived, n = False, 0
    while not survived:
        (path / f"{n + 1}").mkdir()
        calls.arm(n := n + 1)
        _, survived = in_a_fork(make_spool)
        create(path / f"{n}", ["send"], WithoutSyncs(), mode=0o770, trust_file_system=True, adopted=adopted)
        made = [found for found in (path / f"{n}").rglob("*") if found.is_dir() and not found.name.startswith(".new.")]
        assert {stat.S_IMODE(found.stat().st_mode) for found in made} == {0o770}
        shutil.rmtree(path / f"{n}")


def test_of_two_who_make_a_directory_at_once_the_first_has_made_it(path):
    """The second leaves it alone, and leaves nothing else."""
    make(path, ANNE, SHARED, 0o770)
    with contextlib.closing(make_store(path)) as other:
        calls = Meanwhile("", lambda: other.layout.ensure_directory("extra"))
        with contextlib.closing(make_store(path, calls=calls)) as storage:
            before = set(path.iterdir())
            assert not storage.layout.ensure_directory("extra")
    assert set(path.iterdir()) - before == {path / "extra"}
    assert whose_alone(path / "extra") == WHOLE


def test_a_directory_is_made_also_where_a_rename_may_replace_another(path):
    """On such a file system it gets its name at once, and nothing is left of the attempt."""
    make(path, ANNE, SHARED, 0o770)
    with contextlib.closing(make_store(path, calls=WithoutRenameFlags())) as storage:
        before = set(path.iterdir())
        assert storage.layout.ensure_directory("extra")
    assert set(path.iterdir()) - before == {path / "extra"}
    assert whose_alone(path / "extra") == WHOLE


@pytest.mark.parametrize("options", ["due_at=DUE", "remember=3600"])
def test_two_users_work_on_when_the_first_to_need_a_directory_is_killed_while_making_it(path, options):
    """Whoever of them comes next makes it."""
    make(path, ANNE, SHARED, 0o770)
    enqueue = f'enqueue_reserved(storage, storage.reserve("order"), "send", OLD, DATA, {options})'
    assert run_as(ANNE, KILLED + enqueue, path, "a directory").returncode == BY_KILL
    assert run_as(BOB, KILLED + enqueue, path, "nothing").stderr == ""
    everything(path, BOB, "bob")
    everything(path, ANNE, "anne")


SLOT = """
import contextlib, sys
from helpers.stores import make_store
with contextlib.closing(make_store(sys.argv[1])) as storage:
    assert storage.slot(range(1)) is not None
"""
"""Hold a place of a limit."""


@pytest.mark.parametrize(("maker", "other", "mode"), [(ANNE, BOB, 0o770), (ROOT, ANNE, 0o700)])
def test_the_file_of_limits_shuts_nobody_out_whose_maker_is_killed(path, maker, other, mode):
    """It has its name only when others may use it."""
    make(path, ANNE, SHARED, mode)
    assert run_as(maker, KILLED + "storage.slot(range(1))", path, ".limits").returncode == BY_KILL
    assert run_as(other, SLOT, path).stderr == ""
    assert run_as(maker, SLOT, path).stderr == ""


@pytest.mark.parametrize(("maker", "other", "mode"), [(ANNE, BOB, 0o770), (ROOT, ANNE, 0o700)])
def test_what_is_enqueued_again_after_a_kill_is_had_by_all(path, maker, other, mode):
    """The reservation of the dead is taken over; then it is handed over, too, or no other user could lock it."""
    make(path, ANNE, SHARED, mode)
    assert run_as(maker, KILLED + ENQUEUE, path, "/.registry/order").returncode == BY_KILL
    assert run_as(maker, KILLED + ENQUEUE, path, "nothing").stderr == ""
    assert (path / "send/order").exists()
    worked = multispool_as(other, "work", path, "send", "--once", "--", "true")
    assert "order: done" in worked.stderr


class Refusing(SystemCalls):
    """Lets nothing be given away from the n-th file on, if armed."""

    left = math.inf

    def change_owner(self, fd: int, user: int, group: int) -> None:
        """Count."""
        self.left -= 1
        if self.left < 0:
            raise PermissionError(errno.EPERM, "refused")
        super().change_owner(fd, user, group)


def remember(storage: DirectoryStorage, name: str, _: object) -> None:
    """Enqueue what needs more files than others."""
    options = {"remember": 3600.0, "due_at": DUE, "carrier": {"traceparent": "1"}}
    enqueue_reserved(storage, storage.reserve(name), "send", OLD, DATA, **options)


MAKERS = OPERATIONS | {
    "hold a place": (lambda _storage, _name: None, lambda storage, _name, _: storage.slot(range(1)).release()),
    "enqueue to be remembered": (lambda _storage, _name: None, remember),
}


@pytest.mark.proof
@pytest.mark.parametrize("operation", thinned(MAKERS, 4))
def test_nothing_is_left_of_what_may_not_be_handed_over(path, operation):
    """Whichever file of an operation is refused: what is there can be used by the spool's owner and group."""
    make(path, ANNE, SHARED, 0o770)
    calls, refused = Refusing(), True
    prepare, act = MAKERS[operation]
    with contextlib.closing(make_store(path, calls=calls)) as storage:
        for n in range(100):
            prepared = prepare(storage, f"{n}")
            calls.left = n
            with contextlib.suppress(SpoolError):
                held = act(storage, f"{n}", prepared)
                if hasattr(held, "abandon"):
                    held.abandon()
            refused, calls.left = calls.left < 0, math.inf
            assert whose(path) == {(ANNE.number, SHARED)}
            if not refused:
                break
    assert not refused


def test_a_second_process_that_makes_the_file_of_limits_takes_that_of_the_first(path):
    """Both use one file; otherwise each would allow the limit. Nothing else is left."""
    make(path, ANNE, SHARED, 0o770)
    with contextlib.closing(make_store(path)) as first:
        held: list[object] = []
        calls = Meanwhile(".limits", lambda: held.append(first.slot(range(1))))
        with contextlib.closing(make_store(path, calls=calls)) as second:
            assert second.slot(range(1)) is None
            assert held != [None]
    assert list((path / ".tmp").iterdir()) == []


SPOOL = (1000, 2000)


@pytest.mark.parametrize(
    ("mode", "process", "given"),
    [
        (0o700, SPOOL, None),
        (0o770, SPOOL, None),
        (0o770, (1001, 2000), None),
        (0o770, (1001, 1001), (-1, 2000)),
        (0o750, (1001, 1001), (-1, 2000)),
        (0o700, (1000, 1001), None),
        (0o755, (1000, 1001), None),
        (0o775, (1000, 1001), (-1, 2000)),
        (0o700, (0, 0), SPOOL),
        (0o700, (0, 2000), (1000, -1)),
    ],
)
def test_files_are_given_away_only_where_they_would_be_of_the_wrong_owner_or_group(tmp_path, mode, process, given):
    """Root gives all; others give the group, where it may do what others may not; our own files stay as they are."""
    os.chown(tmp_path, *SPOOL)
    tmp_path.chmod(mode)
    assert owner_of_new(tmp_path.stat(), *process) == given


@pytest.mark.parametrize(
    ("owner", "mode", "answer"),
    [
        (SPOOL, 0o660, True),
        ((1001, 2000), 0o660, True),
        ((1001, 1001), 0o660, False),
        ((1001, 2000), 0o640, False),
        ((0, 2000), 0o660, False),
    ],
)
def test_a_file_is_handed_over_once_others_may_do_what_the_spool_lets_them(tmp_path, owner, mode, answer):
    """It has the group and the mode, and is not root's; only such a file is in order, and is refused at once."""
    os.chown(tmp_path, *SPOOL)
    (file := tmp_path / "file").touch()
    os.chown(file, *owner)
    file.chmod(mode)
    assert is_handed_over(file.stat(), tmp_path.stat(), 0o660) is answer


def test_in_our_own_spool_no_operation_makes_a_call_for_the_owner(tmp_path):
    """Files that are right as they are made cost nothing."""
    calls = Recorder()
    storage = make_store(tmp_path / "spool", calls=calls)
    for number, (prepare, act) in enumerate(OPERATIONS.values()):
        held = act(storage, str(number), prepare(storage, str(number)))
        if hasattr(held, "abandon"):
            held.abandon()
    storage.close()
    assert calls.take("change_owner") == []


def test_an_entry_whose_metadata_this_user_may_not_read_is_told_of_once(path):
    """However often it is looked at until it is sure what is wrong."""
    make(path, ANNE, SHARED, 0o770)
    assert multispool_as(ANNE, "put", path, "send", "/etc/hostname", "--name", "a").returncode == 0
    (path / "send/a").chmod(0o600)
    checked = multispool_as(BOB, "fsck", path)
    assert checked.returncode == 7, checked
    assert checked.stderr.count("not judged: metadata of entry a") == 1

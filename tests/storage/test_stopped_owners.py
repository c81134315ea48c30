"""SIGSTOP before every call: a process that stands still is alive, and what it has is its own until it goes on.

Whoever comes meanwhile finds the entry busy, and changes nothing; where the stopped process does not hold the lock
(it has not got it yet, or has let go of it), others may do as they like. Then it goes on, and does what it was to do.
"""

from __future__ import annotations

import dataclasses
import fcntl
from typing import TYPE_CHECKING

import pytest

from helpers.children import Child, quick_directory
from helpers.figures import Proof
from helpers.outcomes import DONE, SEND, found
from helpers.proofs import every
from helpers.spools import state_of
from helpers.stores import DATA, OLD, OPERATIONS, QUEUES, enqueue, release, sweep, try_claim
from trio_multispool import EntryBusy, NameTaken, Unavailable
from trio_multispool.storage.directory.store import DirectoryStorage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from helpers.spools import State


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    """Say where the spools are to be."""
    with quick_directory(tmp_path) as directory:
        yield directory


def sleeper(parent, base, operation, stride) -> None:
    """Do an operation again and again, each time in a process that stops before its n-th call, until one does not.

    Says before which call it stopped and where; when it hears anything, lets the process go on, and says how it ended.
    """
    import os
    import signal
    import traceback
    from pathlib import Path

    from helpers.stores import OPERATIONS, make_store
    from helpers.syscalls import StoppingCalls
    from trio_multispool import SpoolError
    from trio_multispool.storage.directory.store import DirectoryStorage

    prepare, perform = OPERATIONS[operation]

    def do(path: Path, n: int, pipe: int) -> None:
        calls = StoppingCalls(pipe)
        storage = DirectoryStorage.open_unsafe(path, calls=calls)
        prepared = prepare(storage, "a")
        calls.arm(n)
        try:
            perform(storage, "a", prepared)
            outcome = "done"
        except SpoolError as error:
            outcome = repr(error)
        calls.disarm()
        os.write(pipe, outcome.encode())
        os._exit(0)

    stopped, n = True, 0
    while stopped:
        n += 1 if n < 3 else stride  # the shortest make no more than three
        path = Path(base, f"{n:03}", "spool")
        make_store(path).close()
        told, tell = os.pipe()
        process = os.fork()
        if process == 0:
            try:
                do(path, n, tell)
            except BaseException:  # noqa: BLE001  # its status says so
                traceback.print_exc()
            finally:
                os._exit(2)
        _, status = os.waitpid(process, os.WUNTRACED)
        stopped = os.WIFSTOPPED(status)
        if stopped:
            parent.say(os.fspath(path), os.read(told, 4096).decode())
            parent.hear()
            os.kill(process, signal.SIGCONT)
            _, status = os.waitpid(process, 0)
            os.close(tell)
            parent.say(status, os.read(told, 4096).decode())


def is_locked(file: Path) -> bool:
    """Tell whether somebody holds the lock of a file."""
    if not file.exists():
        return False
    with file.open("rb") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def at_rest(path: Path) -> State:
    """Return what lies on disk, without the temporary files that nobody has locked and anybody may collect."""
    state = state_of(path)
    kept = {
        name: content
        for name, content in state.temporary.items()
        if not name.startswith(".unsafe.") or is_locked(path / ".tmp" / name)
    }
    return dataclasses.replace(state, temporary=kept)


def leave_alone(path: Path) -> None:
    """Try everything on an entry that somebody holds: it is busy, or its name is taken, and nothing changes."""
    before = at_rest(path)
    storage = DirectoryStorage.open_unsafe(path)
    for queue in QUEUES:
        assert try_claim(storage, queue, "a") is Unavailable.BUSY
    for use in (storage.reserve, lambda name: enqueue(storage, "send", name)):
        with pytest.raises(NameTaken if before.places("a") else EntryBusy):
            use("a")
    for recover in (storage.recover, lambda: sweep(storage)):
        assert recover() == []
    DirectoryStorage.open(path, QUEUES).close()
    assert at_rest(path) == before
    storage.close()


def use_and_give_back(path: Path) -> None:
    """Recover and sweep, and check out and return what there is: nothing answers that it is busy."""
    storage = DirectoryStorage.open(path, QUEUES)
    sweep(storage)
    for queue in QUEUES:
        claimed = try_claim(storage, queue, "a")
        if claimed is not Unavailable.GONE:
            assert not isinstance(claimed, Unavailable)
            release(storage, claimed)
    storage.close()


@pytest.mark.proof
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_process_that_is_stopped_at_any_call_keeps_its_entry_and_finishes_when_it_goes_on(base, operation, count):
    """Held by a stopped process, an entry is busy to everybody and recovered by nobody; then all comes to its end."""
    stops = held = 0
    with Child(sleeper, base, operation, every(9)) as child:
        for spool, before in child:
            path = base / spool
            stops += 1
            mine = is_locked(path / ".registry" / "a")
            held += mine
            (leave_alone if mine else use_and_give_back)(path)
            child.tell("go on")
            status, outcome = child.hear()
            assert status == 0, f"stopped before {before}"
            taken = not mine and operation.endswith("from the dead")
            assert outcome == "done" or (taken and outcome.startswith(("OwnershipLost", "EntryNotFound"))), before
            storage = DirectoryStorage.open(path, QUEUES)
            sweep(storage)
            expected = DONE.get(operation, (SEND, OLD, DATA)) if outcome == "done" else (SEND, OLD, DATA)
            assert found(path, "a") == expected, f"stopped before {before}"
            assert state_of(path).faults() == [], f"stopped before {before}"
            storage.close()
        child.end()
    count(Proof.STOPPED_OWNERS, stops=stops, with_the_lock_held=held)
    assert stops > 1
    assert held or operation == "sweep"

"""Children that live on while their parent works, lets go, or dies: forked at any call, started anew, or by a pool.

`test_threads_and_fork` has the rest: what a child may do to what its parent holds.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from helpers.children import Child
from helpers.spools import state_of
from helpers.stores import QUEUES, claim, enqueue, make_store, sweep, try_claim
from trio_multispool import Unavailable
from trio_multispool.storage.directory.store import DirectoryStorage
from trio_multispool.storage.requests import Recovered

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Say where the spool is to be."""
    return tmp_path / "spool"


def are_alive(processes: list[int]) -> bool:
    """Tell whether processes run: they have not ended, and are not waited for either."""
    for process in processes:
        with open(f"/proc/{process}/stat") as file:
            if file.read().rpartition(")")[2].split()[0] == "Z":
                return False
    return bool(processes)


@pytest.mark.parametrize("operation", ["check out", "save", "enqueue", "direct save", "data save", "reserve"])
def test_a_child_forked_at_any_call_keeps_nothing_of_its_parent(path, operation):
    """With a child for every call that it made, what its parent holds is to be had as soon as that one is dead."""
    make_store(path).close()

    def fork_at_every_call(parent, path, operation) -> None:
        import signal

        from helpers.stores import OPERATIONS
        from helpers.syscalls import ForkingCalls
        from trio_multispool.storage.directory.store import DirectoryStorage

        prepare, perform = OPERATIONS[operation]
        calls = ForkingCalls()
        storage = DirectoryStorage.open_unsafe(path, calls=calls)
        prepared = prepare(storage, "a")
        calls.wanted = True
        kept = perform(storage, "a", prepared)
        calls.wanted = False
        parent.say(calls.children)
        signal.pause()
        parent.say(kept)

    with Child(fork_at_every_call, path, operation) as child:
        [children] = child.hear()
        storage = DirectoryStorage.open(path, QUEUES)
        if operation in ("check out", "data save", "reserve"):
            before = state_of(path)
            assert try_claim(storage, "send", "a") is Unavailable.BUSY
            assert [*storage.recover(), *sweep(storage)] == []
            assert state_of(path) == before
        child.kill()
        assert are_alive(children)
        recovered = [*storage.recover(), *sweep(storage)]
        queue = "retry" if operation == "save" else "send"
        if operation == "reserve":
            assert recovered == [Recovered("a", None)]
        else:
            assert recovered == ([Recovered("a", "send")] if operation in ("check out", "data save") else [])
            claim(storage, queue, "a").abandon()
            assert storage.recover() == [Recovered("a", queue)]
        assert state_of(path).faults() == []
        assert are_alive(children)
        storage.close()


@pytest.mark.parametrize("how", ["subprocess", "exec"])
def test_a_program_that_an_owner_starts_has_none_of_its_locks(path, how):
    """It inherits no descriptor of the spool, and what its parent lets go of, also by dying, is to be had at once."""
    storage = make_store(path)
    for name in ("released", "orphaned"):
        enqueue(storage, "send", name)

    def start_and_go_on(parent, path, how) -> None:
        import os
        import signal
        import subprocess
        import sys

        from helpers.stores import claim, release
        from trio_multispool.storage.directory.store import DirectoryStorage

        storage = DirectoryStorage.open_unsafe(path)
        claims = {name: claim(storage, "send", name) for name in ("released", "orphaned")}
        ready, tell = os.pipe()
        os.set_inheritable(tell, True)
        program = [sys.executable, "-c", f"import os, sys; os.write({tell}, b'!'); os.close(1); sys.stdin.read()"]
        if how == "subprocess":
            process = subprocess.Popen(program, close_fds=False).pid
        else:
            process = os.fork()
            if process == 0:
                os.execv(program[0], program)
        os.read(ready, 1)
        release(storage, claims["released"])
        parent.say(process)
        signal.pause()

    with Child(start_and_go_on, path, how) as child:
        [program] = child.hear()
        claim(storage, "send", "released").abandon()
        assert try_claim(storage, "send", "orphaned") is Unavailable.BUSY
        child.kill()
        assert {each.name for each in storage.recover()} == {"released", "orphaned"}
        assert are_alive([program])
        held = [os.readlink(f"/proc/{program}/fd/{fd}") for fd in os.listdir(f"/proc/{program}/fd")]
        assert [each for each in held if each.startswith(os.fspath(path))] == []
    assert state_of(path).faults() == []
    storage.close()


def test_a_grandchild_keeps_nothing_of_its_dead_parent(path):
    """What a forked child had checked out is to be had when that child is dead, whoever it has forked itself."""
    storage = make_store(path)
    enqueue(storage, "send", "parents")
    enqueue(storage, "send", "childs")

    def fork_twice(parent, path) -> None:
        import os
        import signal

        from helpers.stores import claim
        from trio_multispool.storage.directory.store import DirectoryStorage

        storage = DirectoryStorage.open_unsafe(path)
        mine = claim(storage, "send", "parents")
        child = os.fork()
        if child == 0:
            theirs = claim(storage, "send", "childs")
            ready, tell = os.pipe()
            grandchild = os.fork()
            if grandchild == 0:
                os.write(tell, b"!")
                os.close(1)
                while os.read(0, 1):
                    pass
                os._exit(0)
            os.read(ready, 1)
            parent.say(grandchild, theirs.held)
            os.kill(os.getpid(), 9)
        os.waitpid(child, 0)
        parent.say(mine.held)
        signal.pause()

    with Child(fork_twice, path) as child:
        grandchild, _ = child.hear()
        assert child.hear() == [True]
        assert storage.recover() == [Recovered("childs", "send")]
        assert try_claim(storage, "send", "parents") is Unavailable.BUSY
        assert are_alive([grandchild])
        child.kill()
        assert storage.recover() == [Recovered("parents", "send")]
        assert are_alive([grandchild])
    assert state_of(path).faults() == []
    storage.close()


def test_a_child_that_ends_as_programs_do_leaves_its_parents_entries_alone(path):
    """The end of an interpreter, with all its finalizers, gives nothing back that is somebody else's."""
    make_store(path).close()

    def end_normally(parent, path) -> None:
        import gc
        import os
        import warnings

        import trio

        from helpers.spools import ANNE, MAIL, Mail
        from trio_multispool import Spool, Use

        warnings.simplefilter("ignore", ResourceWarning)  # of the child, which drops what it has inherited

        async def prepare():
            spool = (await Spool.load(path, MAIL)).unwrap()
            entry = (await spool.enqueue(Mail.SEND, ANNE, b"Hello", name=Use("a"))).unwrap()
            return spool, (await entry.checkout()).unwrap(), (await spool.reserve_name()).unwrap()

        spool, job, reserved = trio.run(prepare)
        process = os.fork()
        if process == 0:
            del spool, job, reserved
            gc.collect()
            return
        _, status = os.waitpid(process, 0)
        parent.say(status, reserved.name)
        parent.hear()

        async def end():
            async with reserved:
                (await job.save(Mail.RETRY)).unwrap()

        trio.run(end)
        spool.close()

    with Child(end_normally, path) as child:
        status, name = child.hear()
        assert status == 0
        storage = DirectoryStorage.open(path, QUEUES)
        assert sweep(storage) == []
        assert state_of(path).places("a") == ["send/.checkout"]
        assert state_of(path).registry == {"a", name}
        child.tell("go on")
        child.end()
        storage.close()
    assert state_of(path).names("retry") == ["a"]
    assert state_of(path).faults() == []


def test_workers_of_multiprocessing_that_are_forked_while_threads_take_locks_work(path):
    """Each forked worker settles entries of its own, and has no lock of its parent; the parent's threads go on."""
    storage = make_store(path)
    for queue, name in [*(("retry", f"{number}") for number in range(20)), ("send", "a"), ("send", "b")]:
        enqueue(storage, queue, name)

    def start_workers(parent, path) -> None:
        import multiprocessing
        import threading
        import warnings

        from helpers.stores import claim, release, save
        from trio_multispool.storage.directory.disk.locks import _table
        from trio_multispool.storage.directory.store import DirectoryStorage

        warnings.simplefilter("ignore", DeprecationWarning)  # a fork with threads is what is tested
        stop = threading.Event()

        def churn(name: str) -> None:
            storage = DirectoryStorage.open_unsafe(path)
            while not stop.is_set():
                release(storage, claim(storage, "send", name))

        def work(number: int) -> None:
            assert not _table.locks
            with_own = DirectoryStorage.open(path, ["send", "retry", "failed"])
            save(with_own, claim(with_own, "retry", f"{number}"), "failed")
            save(shared, claim(shared, "retry", f"{number + 10}"), "failed")

        shared = DirectoryStorage.open_unsafe(path)
        threads = [threading.Thread(target=churn, args=name) for name in "ab"]
        for thread in threads:
            thread.start()
        context = multiprocessing.get_context("fork")
        workers = [context.Process(target=work, args=[number]) for number in range(10)]
        for act in (context.Process.start, context.Process.join):
            for worker in workers:
                act(worker)
        stop.set()
        for thread in threads:
            thread.join()
        parent.say([worker.exitcode for worker in workers])

    with Child(start_workers, path) as child:
        assert child.hear() == [[0] * 10]
        child.end()
    assert [*storage.recover(), *sweep(storage)] == []
    state = state_of(path)
    assert len(state.names("failed")) == 20
    assert state.names("send") == ["a", "b"]
    assert state.faults() == []
    storage.close()

"""Threads and forked children: what they share with their process, what they must not, and that nothing leaks."""

from __future__ import annotations

import gc
import os
import threading
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest

from helpers.children import Child
from helpers.processes import run_python
from helpers.results import is_err
from helpers.spools import ANNE, BERT, Mail, load_spool, make_spool, names_in, put, state_of
from helpers.stores import QUEUES, claim, enqueue, make_store, release, sweep, try_claim
from trio_multispool import Ok, Remove, Unavailable, Use
from trio_multispool.storage.directory.store import DirectoryStorage
from trio_multispool.storage.requests import Recovered

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Say where the spool is to be."""
    return tmp_path / "spool"


# Forking


def test_a_forked_child_does_not_drop_the_locks_of_its_parent(path):
    """A child that ends, or that lets go of everything it inherited, leaves its parent the owner."""
    storage = make_store(path)
    enqueue(storage, "send", "a")

    def fork_and_hold(parent, path) -> None:
        import gc
        import os

        from helpers.stores import claim, release
        from trio_multispool.storage.directory.store import DirectoryStorage

        storage = DirectoryStorage.open_unsafe(path)
        claimed = claim(storage, "send", "a")
        reservation = storage.reserve("b")
        process = os.fork()
        if process == 0:
            claimed.abandon()
            reservation.abandon()
            storage.give_up(reservation)
            storage.close()
            del claimed, reservation, storage
            gc.collect()
            os._exit(0)
        os.waitpid(process, 0)
        parent.say("the child has gone", claimed.held)
        parent.hear()
        release(storage, claimed)
        storage.give_up(reservation)
        parent.say("released")
        parent.hear()

    with Child(fork_and_hold, path) as child:
        assert child.hear() == ["the child has gone", True]
        before = state_of(path)
        assert before.registry == {"a", "b"}
        assert try_claim(storage, "send", "a") is Unavailable.BUSY
        assert [*storage.recover(), *sweep(storage)] == []
        assert state_of(path) == before
        child.tell("release")
        child.hear()
        claim(storage, "send", "a").abandon()
    storage.recover()
    assert state_of(path).faults() == []
    storage.close()


def test_a_forked_child_does_not_keep_the_locks_of_its_parent(path):
    """What the parent lets go of, by settling or by dying, is to be had while its child lives on."""
    storage = make_store(path)
    for name in ("released", "abandoned", "orphaned"):
        enqueue(storage, "send", name)

    def fork_and_go_on(parent, path) -> None:
        import os

        from helpers.stores import claim, release
        from trio_multispool.storage.directory.store import DirectoryStorage

        storage = DirectoryStorage.open_unsafe(path)
        claims = {name: claim(storage, "send", name) for name in ("released", "abandoned", "orphaned")}
        ready, tell_ready = os.pipe()
        process = os.fork()
        if process == 0:
            os.write(tell_ready, b"!")
            os.close(ready)
            os.close(tell_ready)
            os.close(1)  # the test must see the end of its pipe when the parent dies, and not ours
            parent.hear()  # ends when the test closes the pipe
            os._exit(0)
        os.read(ready, 1)
        release(storage, claims["released"])
        claims["abandoned"].abandon()
        parent.say(process)
        os.kill(os.getpid(), 9)

    with Child(fork_and_go_on, path) as child:
        [grandchild] = child.hear()
        child.process.wait()
        os.kill(grandchild, 0)  # it lives
        claim(storage, "send", "released").abandon()
        assert {each.name for each in storage.recover()} == {"released", "abandoned", "orphaned"}
        os.kill(grandchild, 0)  # and still does
    assert state_of(path).names("send") == ["abandoned", "orphaned", "released"]
    assert state_of(path).faults() == []
    storage.close()


def test_a_lock_is_dropped_even_while_a_copy_of_it_is_open_elsewhere(path):
    """A process of a fork that Python does not see keeps copies of descriptors; letting go does not wait for it."""
    storage = make_store(path)
    enqueue(storage, "send", "a")

    def fork_unseen(parent, path) -> None:
        import ctypes
        import os

        from helpers.stores import claim, release
        from trio_multispool.storage.directory.store import DirectoryStorage

        storage = DirectoryStorage.open_unsafe(path)
        claimed = claim(storage, "send", "a")
        end, keep = os.pipe()
        process = ctypes.PyDLL(None).fork()  # without `os.register_at_fork`
        if process == 0:
            os.close(keep)
            os.read(end, 1)  # until its parent has ended
            os._exit(0)
        release(storage, claimed)
        parent.say("released")
        parent.hear()
        os.close(keep)
        os.waitpid(process, 0)

    with Child(fork_unseen, path) as child:
        child.hear()
        claim(storage, "send", "a").abandon()
        child.tell("end")
        child.end()
    storage.recover()
    assert state_of(path).faults() == []
    storage.close()


def test_an_entry_is_its_parents_in_a_forked_child(path):  # noqa: PLR0915  # a program, with what it does in its child
    """Settling a parent's job in its child answers that the ownership is lost, and changes nothing."""
    make_store(path).close()

    def settle_in_child(parent, path) -> None:
        import os
        import traceback

        import trio

        from helpers.results import is_err
        from helpers.spools import ANNE, BERT, MAIL, Mail
        from trio_multispool import Err, OwnershipLost, Spool, Use

        async def prepare():
            spool = (await Spool.load(path, MAIL)).unwrap()
            for name in ("save", "remove", "release", "block", "data"):
                (await spool.enqueue(Mail.SEND, ANNE, b"Hello", name=Use(name))).unwrap()
            entries = (await spool.entries(Mail.SEND)).unwrap()
            jobs = {entry.name: (await entry.checkout()).unwrap() for entry in entries}
            return spool, jobs, (await spool.reserve_name()).unwrap()

        spool, jobs, reserved = trio.run(prepare)
        name = reserved.name

        async def settle():
            lost = {each: Err(OwnershipLost("send", each)) for each in jobs}
            assert await jobs["save"].save(Mail.RETRY, BERT) == lost["save"]
            assert await jobs["remove"].remove() == lost["remove"]
            assert await jobs["release"].release() == lost["release"]
            assert await jobs["data"].data.save(b"other") == lost["data"]
            assert is_err(await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(reserved)))
            try:
                async with jobs["block"]:
                    pass
            except OwnershipLost:
                return
            raise AssertionError("leaving the block said nothing")

        async def end():
            async with reserved:
                for job in jobs.values():
                    (await job.save(Mail.FAILED)).unwrap()

        process = os.fork()
        if process == 0:
            try:
                trio.run(settle)
            except BaseException:  # noqa: BLE001  # its status says so
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(process, 0)
        parent.say(status, name)
        parent.hear()
        trio.run(end)

    with Child(settle_in_child, path) as child:
        status, name = child.hear()
        assert status == 0
        state = state_of(path)
        assert set(state.checked_out["send"]) == {"save", "remove", "release", "block", "data"}
        assert state.registry == state.entries() | {name}
        assert set(state.data.values()) == {b"Hello"}
        child.tell("settle them yourself")
        child.end()
    assert len(state_of(path).names("failed")) == 5
    assert state_of(path).faults() == []


def test_a_forked_child_owns_what_it_checks_out_itself(path):
    """A spool's store goes on working in a forked child; what the child holds is let go when it dies."""
    storage = make_store(path)
    enqueue(storage, "send", "a")
    enqueue(storage, "send", "b")

    def fork_a_worker(parent, path) -> None:
        import os

        from helpers.stores import claim, remove
        from trio_multispool.storage.directory.store import DirectoryStorage

        storage = DirectoryStorage.open_unsafe(path)
        process = os.fork()
        if process == 0:
            remove(storage, claim(storage, "send", "a"))
            held = claim(storage, "send", "b")
            parent.say("holding", held.name)
            parent.hear()
            os.kill(os.getpid(), 9)
        os.waitpid(process, 0)
        parent.say("dead")
        parent.hear()

    with Child(fork_a_worker, path) as child:
        child.hear()
        assert try_claim(storage, "send", "b") is Unavailable.BUSY
        assert storage.recover() == []
        child.tell("die")
        child.hear()
        assert storage.recover() == [Recovered("b", "send")]
    assert state_of(path).faults() == []
    storage.close()


def test_forking_while_threads_take_and_drop_locks_harms_neither_side(path):
    """A child forked at any moment has none of its parent's locks, and all its parent's threads go on."""
    storage = make_store(path)
    for name in "abcd":
        enqueue(storage, "send", name)

    def churn(parent, path) -> None:
        import os
        import threading
        import warnings

        from helpers.stores import claim, release
        from trio_multispool.storage.directory.disk.locks import _table
        from trio_multispool.storage.directory.store import DirectoryStorage

        warnings.simplefilter("ignore", DeprecationWarning)  # a fork with threads is what is tested
        stop = threading.Event()
        rounds = dict.fromkeys("abcd", 0)

        def work(name: str) -> None:
            storage = DirectoryStorage.open_unsafe(path)
            while not stop.is_set():
                release(storage, claim(storage, "send", name))
                rounds[name] += 1

        threads = [threading.Thread(target=work, args=name) for name in "abcd"]
        for thread in threads:
            thread.start()
        failed = 0
        for _ in range(100):
            process = os.fork()
            if process == 0:
                held = [
                    os.readlink(f"/proc/self/fd/{fd}") for fd in range(256) if os.path.exists(f"/proc/self/fd/{fd}")
                ]
                os._exit(bool(_table.locks or any("/.registry/" in each for each in held)))
            failed += os.waitpid(process, 0)[1]
        stop.set()
        for thread in threads:
            thread.join()
        parent.say(failed, min(rounds.values()) > 0)

    with Child(churn, path) as child:
        assert child.hear() == [0, True]
        child.end()
    assert [*storage.recover(), *sweep(storage)] == []
    assert state_of(path).names("send") == list("abcd")
    assert state_of(path).faults() == []
    storage.close()


@pytest.mark.parametrize("generator", ["time_ordered_names", "prioritized_names"])
def test_a_forked_child_makes_names_while_a_thread_of_its_parent_was_making_one(generator):
    """A generator that a program has given to its spools is inherited; the lock in it is the child's own."""
    run_python(
        """
        import os, signal
        from trio_multispool import clock

        names = getattr(clock, sys.argv[1])()
        generator = getattr(names, "_times", names)
        generator._mutex.acquire()  # as a thread has it for some lines
        child = os.fork()
        if child == 0:
            signal.alarm(60)  # it would wait for ever
            names.next(None, 0)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        """,
        generator,
    )


# Threads


def test_of_many_threads_one_gets_an_entry(path):
    """Threads of one process, through one handle, exclude each other."""
    storage = make_store(path)
    barrier = threading.Barrier(8)
    got: list[object] = []

    def take(name: str) -> None:
        barrier.wait()
        got.append(try_claim(storage, "send", name))

    for number in range(30):
        enqueue(storage, "send", f"{number}")
        got.clear()
        threads = [threading.Thread(target=take, args=[f"{number}"]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        [claimed] = [each for each in got if not isinstance(each, Unavailable)]
        assert len(got) == 8
        release(storage, claimed)
    assert len(state_of(path).names("send")) == 30
    assert state_of(path).faults() == []
    storage.close()


def test_of_many_threads_one_gets_a_name(path):
    """Of threads that enqueue under one name at a time, one succeeds, and its entry is whole."""
    from trio_multispool import EntryBusy, NameTaken

    storage = make_store(path)
    barrier = threading.Barrier(6)
    made: list[bytes] = []

    def make(name: str, content: bytes) -> None:
        barrier.wait()
        try:
            enqueue(storage, "send", name, content, content)
        except (NameTaken, EntryBusy):
            return
        made.append(content)

    for number in range(30):
        made.clear()
        threads = [threading.Thread(target=make, args=[f"{number}", f"{writer}".encode()]) for writer in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        [content] = made
        state = state_of(path)
        assert (state.available["send"][f"{number}"], state.data[f"{number}"]) == (content, content)
        assert state.faults() == []
    storage.close()


@pytest.mark.anyio
@pytest.mark.parametrize("loads", [1, 2], ids=["one spool", "two spools"])
async def test_two_readers_in_one_process_exclude_each_other(path, loads):
    """What one reader has in hand, another reader of the same process cannot have, not even through recovery."""
    one = await make_spool(path)
    other = one if loads == 1 else await load_spool(path)
    await put(one, Mail.SEND, "a", "b")
    async with one.reader(Mail.SEND) as first, other.reader(Mail.SEND) as second:
        mine = (await first.dequeue_available()).unwrap()
        theirs = (await second.dequeue_available()).unwrap()
        assert (mine.name, theirs.name) == ("a", "b")
        assert (await first.dequeue_available()).unwrap() is None
        assert (await second.dequeue_available()).unwrap() is None
        assert (await other.recover()).unwrap() == []
        (await mine.release()).unwrap()
        again = (await second.dequeue_available()).unwrap()
        assert again.name == "a"
        assert (await first.dequeue_available()).unwrap() is None
    assert await names_in(one, Mail.SEND) == ["a", "b"]
    for spool in (one, other):
        spool.close()
    assert state_of(path).faults() == []


@pytest.mark.anyio
async def test_tasks_that_settle_one_job_at_once_settle_it_once(path):
    """Of several tasks that settle the same job, one does; the others are told that it was settled before."""
    async with await make_spool(path) as spool:
        outcomes: list[str] = []

        async def settle(job) -> None:
            try:
                outcomes.append(type(await job.save(Mail.RETRY, BERT)).__name__)
            except RuntimeError:
                outcomes.append("settled before")

        for number in range(10):
            entry = (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(f"{number}"))).unwrap()
            job = (await entry.checkout()).unwrap()
            outcomes.clear()
            async with anyio.create_task_group() as tasks:
                for _ in range(4):
                    tasks.start_soon(settle, job)
            assert sorted(outcomes) == ["Ok", *["settled before"] * 3]
        assert len(await names_in(spool, Mail.RETRY)) == 10
    assert state_of(path).faults() == []


@pytest.mark.anyio
@pytest.mark.parametrize("settle", ["save", "release"])
async def test_an_entry_whose_save_is_under_way_is_not_given_to_the_same_iteration_again(path, monkeypatch, settle):
    """An entry that is back in its queue, though the call that put it there has not returned, is not given twice."""
    settled, go_on = threading.Event(), threading.Event()
    async with await make_spool(path) as spool:
        settlements = spool._session.settlements
        at_once = settlements._perform

        def slowly(batch) -> Any:
            outcomes = at_once(batch)
            settled.set()
            go_on.wait()
            return outcomes

        await put(spool, Mail.SEND, "a")
        async with spool.reader(Mail.SEND) as reader:
            jobs = reader.available()
            job = await anext(jobs)
            with monkeypatch.context() as patched:
                patched.setattr(settlements, "_perform", slowly)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(*([job.save, Mail.SEND, BERT] if settle == "save" else [job.release]))
                    try:
                        await anyio.to_thread.run_sync(settled.wait)
                        assert state_of(path).places("a") == ["send"]
                        given = [each.name async for each in jobs]
                    finally:
                        go_on.set()
            assert given == []
    assert state_of(path).faults() == []


# What is held is given back


def open_files(path: Path) -> list[str]:
    """Return what this process has open below the spool's directory."""
    gc.collect()
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:  # the descriptor that listed them
            continue
        if target.startswith(os.fspath(path)):
            found.append(target)
    return sorted(found)


async def work(path: Path) -> list[str]:
    """Do everything that a spool can do; return what was open in the midst of it."""
    async with await make_spool(path) as spool:
        await put(spool, Mail.SEND, *(f"{number}" for number in range(12)))
        jobs = [(await entry.checkout()).unwrap() for entry in (await spool.entries(Mail.SEND)).unwrap()]
        seen = open_files(path)
        (await jobs[0].save(Mail.RETRY, BERT)).unwrap()
        (await jobs[1].remove()).unwrap()
        (await jobs[2].release()).unwrap()
        (await jobs[3].data.save(b"other")).unwrap()
        assert (await jobs[3].data.load()).unwrap() == b"other"
        assert is_err(await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("3")))
        for job in jobs[3:]:
            async with job:
                pass
        async with (await spool.reserve_name()).unwrap():
            pass
        (path / "retry" / "0").write_bytes(b"not to be read")
        assert is_err(await spool.entry(Mail.RETRY, "0").unwrap().checkout())
        direct = spool.entry(Mail.SEND, "4").unwrap().direct
        (await direct.save(BERT)).unwrap()
        (await direct.data_file.save(b"direct")).unwrap()
        (await direct.remove()).unwrap()
        assert is_err(await direct.contents())
        (await spool.recover()).unwrap()

        async def handle(envelope, data):
            return Remove()

        async with spool.reader(Mail.SEND) as reader:
            assert await reader.iter_available(handle, concurrency=4) == Ok(None)
        (await spool.recover()).unwrap()
    return seen


@pytest.mark.anyio
async def test_no_descriptor_outlives_its_spool(path):
    """While entries are in hand each holds its lock's descriptor; when the spool is closed, nothing of it is open."""
    seen = await work(path)
    assert len([each for each in seen if "/.registry/" in each]) == 12
    assert open_files(path) == []
    assert state_of(path).faults() == []


@pytest.mark.anyio
async def test_a_spool_that_is_loaded_again_and_again_holds_no_more_than_once(path):
    """The number of open descriptors of the whole process does not grow from load to load."""
    counts = set()
    for _ in range(4):
        await work(path)
        (path / ".quarantine" / "retry" / "0").unlink()
        async with await load_spool(path) as spool:
            (await spool.recover()).unwrap()
        gc.collect()
        counts.add(len(os.listdir("/proc/self/fd")))
    assert len(counts) == 1


@pytest.mark.anyio
async def test_a_spool_that_is_garbage_collected_closes_its_files(path):
    """Closing a spool is optional."""
    spool = await make_spool(path)
    await put(spool, Mail.SEND, "a")
    assert open_files(path)
    del spool
    assert open_files(path) == []


def test_a_load_that_is_refused_leaves_nothing_open(path):
    """What `load` opened before it found a fault is closed again."""
    from trio_multispool import SpoolError

    make_store(path).close()
    (path / ".spool.json").write_bytes(b"{}")
    with pytest.raises(SpoolError):
        DirectoryStorage.open(path, QUEUES)
    with pytest.raises(SpoolError):
        DirectoryStorage.open_unsafe(path)
    assert open_files(path) == []


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_only_threads_are_the_event_loops(path, backend):
    """The library starts no thread of its own: what runs is the event loop's, and on asyncio ends with it."""
    before = set(threading.enumerate())
    anyio.run(work, path, backend=backend)
    started = [thread for thread in threading.enumerate() if thread not in before]
    if backend == "asyncio":
        for thread in started:
            thread.join(60)
        assert [thread for thread in started if thread.is_alive()] == []
    assert all("Trio" in thread.name for thread in started if backend == "trio"), started

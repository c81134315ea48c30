"""Fair limits: so many entries of one key are at work at once, in all processes, and others are not held up."""

from __future__ import annotations

import collections
import contextlib
import errno
import gc
import os
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from helpers.calls import FailingCalls
from helpers.children import Child, Parent, quick_directory
from helpers.forks import are_alive
from helpers.gates import breathe, until
from helpers.inside import claimer_of, waiters_of
from helpers.results import is_err
from helpers.spools import Envelope, Mail, Wall, load_spool, quick_spool, state_of
from trio_multispool import Release, Remove, Save, Use
from trio_multispool.entries import key_limits as limiting_module
from trio_multispool.session import changes as activity_module
from trio_multispool.storage.directory import checkout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trio_multispool.model.lifecycle import Place


pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Say where the spool is to be."""
    with quick_directory(tmp_path) as directory:
        yield directory / "spool"


def recipient(envelope: Envelope) -> str | None:
    """Limit by the recipient; who has none is not limited."""
    return envelope.recipient or None


async def put(spool: Any, *names: str, **options: Any) -> None:
    """Enqueue entries, each to the recipient that its name begins with; `-` is nobody."""
    for name in names:
        envelope = Envelope("" if name[0] == "-" else name[0])
        (await spool.enqueue(Mail.SEND, envelope, b"", name=Use(name), **options)).unwrap()


class AtWork:
    """A handler that counts who is at work, and goes on when it is told to."""

    def __init__(self, verdict: Any = None) -> None:
        """Begin with nobody."""
        self.now: collections.Counter[str] = collections.Counter()
        self.most: collections.Counter[str] = collections.Counter()
        self.done: list[str] = []
        self.begun: list[str] = []
        self.go_on = anyio.Event()
        self._verdict = Remove() if verdict is None else verdict

    async def __call__(self, envelope: Envelope, data: Any) -> Any:
        """Be at work."""
        key = envelope.recipient
        self.begun.append(data.name)
        self.now[key] += 1
        self.most[key] = max(self.most[key], self.now[key])
        await self.go_on.wait()
        self.now[key] -= 1
        self.done.append(data.name)
        return self._verdict


@contextlib.asynccontextmanager
async def pool(spool: Any, handler: Any, limit: int = 2, concurrency: int = 8, **options: Any) -> Any:
    """Have a pool at work on a queue, for the length of a block."""
    async with (
        spool.reader(Mail.SEND, limit_by=recipient, limit=limit, poll_interval=0.01) as reader,
        anyio.create_task_group() as tasks,
    ):

        async def work() -> None:
            (await reader.iter(handler, concurrency=concurrency, **options)).unwrap()

        tasks.start_soon(work)
        yield reader
        reader.stop()
        handler.go_on.set()


@pytest.mark.parametrize("prefetch", [0, 3])
async def test_so_many_of_a_key_are_at_work_and_the_others_are_not_held_up(place, prefetch):
    """What comes behind a key that is full is begun; and when all goes on, all is done."""
    spool = await quick_spool(place)
    await put(spool, "a1", "a2", "a3", "a4", "a5", "b1", "c1", "-1", "-2", "-3")
    handler = AtWork()
    async with pool(spool, handler, prefetch=prefetch):
        await until(lambda: len(handler.begun) >= 7)
        for _ in range(20):
            await breathe()
        assert sorted(handler.begun) == ["-1", "-2", "-3", "a1", "a2", "b1", "c1"]
        handler.go_on.set()
        await until(lambda: len(handler.done) == 10)
    assert handler.most["a"] == 2
    assert state_of(place).entries() == set()
    assert state_of(place).faults() == []


async def test_a_key_that_has_a_free_place_again_is_begun_at_once(path, monkeypatch):
    """By the very task whose entry is done, and by those that wait: nobody waits to look again."""
    monkeypatch.setattr(activity_module, "FIRST_BUSY_WAIT", 3600)
    spool = await quick_spool(path)
    await put(spool, *(f"a{number}" for number in range(6)))
    handler = AtWork()
    async with (
        spool.reader(Mail.SEND, limit_by=recipient, limit=1, poll_interval=3600) as reader,
        anyio.create_task_group() as tasks,
    ):

        async def work() -> None:
            (await reader.iter(handler, concurrency=3)).unwrap()

        tasks.start_soon(work)
        handler.go_on.set()
        with anyio.fail_after(30):
            await until(lambda: len(handler.done) == 6)
        reader.stop()
    assert (sorted(handler.done), handler.most["a"]) == ([f"a{number}" for number in range(6)], 1)


@pytest.mark.sample
async def test_a_place_that_another_process_frees_is_noticed(place):
    """No change of the queue tells of it, so it is looked for, however long the interval is."""
    spool, other = await quick_spool(place), await load_spool(place)
    await put(spool, "a1", "a2")
    limited = {"limit_by": recipient, "limit": 1, "poll_interval": 3600}
    async with spool.reader(Mail.SEND, **limited) as first, other.reader(Mail.SEND, **limited) as second:
        job = (await first.dequeue()).unwrap()
        async with anyio.create_task_group() as tasks:

            async def take() -> None:
                with anyio.fail_after(30):
                    assert (await second.dequeue()).unwrap().name == "a2"

            tasks.start_soon(take)
            while not waiters_of(other):
                await breathe()
            (await job.remove()).unwrap()


@pytest.mark.parametrize(("seconds", "had"), [(0, "2"), (1, "6")], ids=["in that moment", "later"])
async def test_a_key_that_was_full_is_asked_again_after_a_moment_or_with_the_next_listing(
    path, monkeypatch, seconds, had
):
    """A place that another process frees is had by the rest of the listing; in that moment, by the next listing."""
    time = 0.0

    def stopwatch() -> Any:
        began = time
        return lambda: time - began

    monkeypatch.setattr(limiting_module, "stopwatch", stopwatch)
    spool, other = await quick_spool(path), await load_spool(path)
    for name, key in (("1", "a"), ("2", "a"), ("3", "b"), ("4", "a"), ("5", "b"), ("6", "a")):
        (await spool.enqueue(Mail.SEND, Envelope(key), b"", name=Use(name))).unwrap()
    limited = {"limit_by": recipient, "limit": 1}
    async with other.reader(Mail.SEND, **limited) as elsewhere, spool.reader(Mail.SEND, **limited) as reader:
        held = (await elsewhere.dequeue_available()).unwrap()
        job = (await reader.dequeue_available()).unwrap()
        assert (held.name, job.name) == ("1", "3")
        assert (await reader.dequeue_available()).unwrap() is None  # it knows the keys of all names now
        (await job.remove()).unwrap()
        assert (await reader.dequeue_available()).unwrap().name == "5"  # "6" is what is left of that listing
        (await held.remove()).unwrap()
        time += seconds
        assert (await reader.dequeue_available()).unwrap().name == had


async def test_one_by_hand_and_in_passes(place):
    """An entry in hand counts, however it was taken and however it goes."""
    spool = await quick_spool(place)
    await put(spool, "a1", "a2", "a3")
    async with spool.reader(Mail.SEND, limit_by=recipient, limit=1) as reader:
        for settle in ("save", "remove", "release"):
            job = (await reader.dequeue_available()).unwrap()
            assert job is not None
            assert (await reader.dequeue_available()).unwrap() is None
            arguments = (Mail.RETRY,) if settle == "save" else ()
            (await getattr(job, settle)(*arguments)).unwrap()
        job = (await reader.dequeue_available()).unwrap()
        assert job is not None
        async with job:
            assert (await reader.dequeue_available()).unwrap() is None
        handler = AtWork()
        handler.go_on.set()
        (await reader.iter_available(handler)).unwrap()
    assert handler.done == ["a3"]


async def test_readers_of_one_queue_share_their_limit_and_those_of_others_do_not(place):
    """In one spool that is open, in two, and in two queues."""
    spool, other = await quick_spool(place), await load_spool(place)
    await put(spool, "a1", "a2", "a3")
    (await spool.enqueue(Mail.RETRY, Envelope("a"), b"", name=Use("r"))).unwrap()
    limited = {"limit_by": recipient, "limit": 1}
    async with (
        spool.reader(Mail.SEND, **limited) as first,
        spool.reader(Mail.SEND, **limited) as second,
        other.reader(Mail.SEND, **limited) as third,
        spool.reader(Mail.RETRY, **limited) as elsewhere,
        spool.reader(Mail.SEND) as unlimited,
    ):
        job = (await first.dequeue_available()).unwrap()
        assert job is not None
        assert (await second.dequeue_available()).unwrap() is None
        assert (await third.dequeue_available()).unwrap() is None
        assert (await elsewhere.dequeue_available()).unwrap() is not None
        assert (await unlimited.dequeue_available()).unwrap() is not None
        (await job.remove()).unwrap()
        with anyio.fail_after(30):  # on a server, the other sees it a moment later
            assert (await third.dequeue()).unwrap() is not None
        assert (await first.dequeue_available()).unwrap() is None


@pytest.mark.parametrize("key", ["a", b"a", 7, -1, "ä\udcff", ""])
async def test_a_key_is_text_bytes_or_a_number(place, key):
    """Whatever is in it."""
    spool = await quick_spool(place)
    await put(spool, "a1", "a2")
    async with spool.reader(Mail.SEND, limit_by=lambda _: key, limit=1) as reader:
        assert (await reader.dequeue_available()).unwrap() is not None
        assert (await reader.dequeue_available()).unwrap() is None


async def test_what_waits_is_limited_too(place):
    """It is passed over when it is due, and comes when there is a place."""
    wall = Wall()
    spool = await quick_spool(place, now=wall)
    await put(spool, "a1", "a2", "b1", not_before=10)
    wall.time += 11
    async with spool.reader(Mail.SEND, limit_by=recipient, limit=1) as reader:
        job = (await reader.dequeue_available()).unwrap()
        other = (await reader.dequeue_available()).unwrap()
        assert (job.name, other.name) == ("a1", "b1")
        assert (await reader.dequeue_available()).unwrap() is None
        (await job.remove()).unwrap()
        with anyio.fail_after(30):
            assert (await reader.dequeue()).unwrap().name == "a2"


async def test_metadata_that_changed_since_it_was_looked_at_counts(path, monkeypatch):
    """The entry is looked at again when nobody else can change it, and keeps no place of the key that it had."""
    spool = await quick_spool(path)
    claim = checkout.claim

    def changed_before(storage: Any, place: Place, name: str, **how: Any) -> Any:
        if name == "a1":
            (path / "send" / "a1").write_bytes(b'{"recipient":"b"}')
        return claim(storage, place, name, **how)

    monkeypatch.setattr(checkout, "claim", changed_before)
    async with spool.reader(Mail.SEND, limit_by=recipient, limit=1) as reader:
        await put(spool, "b1")
        b1 = (await reader.dequeue_available()).unwrap()
        assert b1.name == "b1"
        await put(spool, "a1")
        assert (await reader.dequeue_available()).unwrap() is None
        await put(spool, "a2")
        assert (await reader.dequeue_available()).unwrap().name == "a2"
        assert (await reader.dequeue_available()).unwrap() is None
        (await b1.remove()).unwrap()
        assert (await reader.dequeue_available()).unwrap().name == "a1"


async def test_names_are_remembered_only_as_long_as_they_are_listed(path, monkeypatch):
    """A reader that runs for years does not remember all that ever was."""
    monkeypatch.setattr(limiting_module, "FEW_NAMES", 4)
    spool = await quick_spool(path)
    async with spool.reader(Mail.SEND, limit_by=recipient, limit=1) as reader:
        for number in range(20):
            await put(spool, f"a{number}")
            job = (await reader.dequeue_available()).unwrap()
            (await job.remove()).unwrap()
        assert len(claimer_of(reader)._key_limiter._keys) <= 6


# What ends without being settled


async def test_a_job_that_is_let_go_lets_go_of_its_place(place):
    """Collected as garbage, or with its spool; on a server that takes a moment."""
    spool, other = await quick_spool(place), await load_spool(place)
    await put(spool, "a1", "a2")
    async with other.reader(Mail.SEND, limit_by=recipient, limit=1) as second:
        async with spool.reader(Mail.SEND, limit_by=recipient, limit=1) as first:
            assert (await first.dequeue_available()).unwrap() is not None
            assert (await second.dequeue_available()).unwrap() is None
        with anyio.fail_after(30):
            job = (await second.dequeue()).unwrap()
        (await job.release()).unwrap()

        async with spool.reader(Mail.SEND, limit_by=recipient, limit=1) as first:
            assert (await first.dequeue_available()).unwrap() is not None
            spool.close()
        with anyio.fail_after(30):
            (await second.dequeue()).unwrap()
    gc.collect()


async def test_an_entry_that_cannot_be_had_keeps_no_place(path):
    """It is somebody's, has gone, cannot be decoded, or the reader is cancelled."""
    spool = await quick_spool(path)
    await put(spool, "a1", "a2", "a3", "a4")
    (path / "send" / "a2").write_bytes(b"no json")
    held = (await spool.entry(Mail.SEND, "a1").unwrap().checkout()).unwrap()
    async with held, spool.reader(Mail.SEND, limit_by=recipient, limit=1) as reader:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await reader.dequeue()
        job = (await reader.dequeue_available()).unwrap()
        assert job.name == "a3"
        assert (await reader.dequeue_available()).unwrap() is None
    assert set(state_of(path).quarantined["send"]) == {"a2"}


async def test_entries_for_which_the_function_raises_are_limited_together(place, caplog):
    """One of them must not keep all others from being done, nor do they get past the limit; the log says it once."""
    spool = await quick_spool(place)
    await put(spool, "a1", "b1", "c1")

    def wrong(envelope: Envelope) -> str:
        if envelope.recipient in "ab":
            raise ZeroDivisionError
        return envelope.recipient

    async with spool.reader(Mail.SEND, limit_by=wrong, limit=1) as reader:
        first = (await reader.dequeue_available()).unwrap()
        other = (await reader.dequeue_available()).unwrap()
        assert (first.name, other.name) == ("a1", "c1")
        assert (await reader.dequeue_available()).unwrap() is None
        (await first.remove()).unwrap()
        assert (await reader.dequeue_available()).unwrap().name == "b1"
    [record] = caplog.records
    assert (record.event, record.entry, record.levelname) == ("multispool.no_key", "a1", "ERROR")
    assert isinstance(record.error, ZeroDivisionError)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"limit_by": recipient}, TypeError),
        ({"limit": 2}, TypeError),
        ({"limit_by": recipient, "limit": 0}, ValueError),
        ({"limit_by": recipient, "limit": 1025}, ValueError),
        ({"limit_by": recipient, "limit": 1.5}, TypeError),
        ({"limit_by": "recipient", "limit": 1}, TypeError),
    ],
)
async def test_a_limit_that_makes_no_sense_is_refused_where_it_is_said(place, options, error):
    """Before anything is read."""
    spool = await quick_spool(place)
    with pytest.raises(error):
        spool.reader(Mail.SEND, **options)


async def test_a_key_that_is_none_of_those_is_a_mistake(place):
    """It is said which are."""
    spool = await quick_spool(place)
    await put(spool, "a1")
    async with spool.reader(Mail.SEND, limit_by=lambda _: ("a", "b"), limit=1) as reader:  # type: ignore[arg-type,return-value]
        with pytest.raises(TypeError, match="returns a string"):
            await reader.dequeue_available()


async def test_trouble_with_the_file_of_locks_is_an_err(path):
    """And nothing is checked out."""
    calls = FailingCalls()
    spool = await quick_spool(path, system_calls=calls)
    await put(spool, "a1")
    async with spool.reader(Mail.SEND, limit_by=recipient, limit=1) as reader:
        for call, on in (("open", ".limits"), ("move", ".limits"), ("lock_byte", ".limits")):
            with calls.failing(call, errno.ENOLCK, on=on):
                assert is_err(await reader.dequeue_available())
        assert (await reader.dequeue_available()).unwrap() is not None
    assert state_of(path).names("send") == ["a1"]


async def test_the_file_of_locks_is_nothing_wrong_and_has_the_modes_of_the_spool(path):
    """One file, without content, however many keys there are."""
    from trio_multispool.monitor import Monitor

    spool = await quick_spool(path, directory_mode=0o770)
    await put(spool, *(f"{letter}1" for letter in "abcdefgh"))
    handler = AtWork(Save(Mail.RETRY))
    handler.go_on.set()
    async with spool.reader(Mail.SEND, limit_by=recipient, limit=1) as reader:
        (await reader.iter_available(handler)).unwrap()
    found = (path / ".limits").stat()
    assert (found.st_size, found.st_mode & 0o777) == (0, 0o660)
    assert (await Monitor(spool).run_once()).unwrap() == []


async def test_a_released_entry_comes_round_like_any_other(place):
    """Its place is free when it is back."""
    spool = await quick_spool(place)
    await put(spool, "a1")
    seen = 0

    async def handler(_envelope: Envelope, _data: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == 3:
            reader.stop()
        return Release()

    async with spool.reader(Mail.SEND, limit_by=recipient, limit=1) as reader:
        with anyio.fail_after(30):
            (await reader.iter(handler)).unwrap()
    assert seen == 3


# Processes


def work(parent: Parent, place: str, locks: str) -> None:
    """Work in a pool under a limit of two; a handler finds out by locks of its own whether it is one too many."""
    import fcntl
    import os

    import anyio

    from helpers.spools import Mail, load_spool
    from trio_multispool import Remove

    async def handler(envelope: object, data: object) -> Remove:
        key = envelope.recipient  # type: ignore[attr-defined]
        files = [os.open(f"{locks}/{key}-{number}", os.O_RDWR | os.O_CREAT) for number in range(2)]
        try:
            for fd in files:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    continue
            else:
                parent.say("too many", data.name)  # type: ignore[attr-defined]
            await anyio.lowlevel.checkpoint()
        finally:
            for fd in files:
                os.close(fd)
        return Remove()

    async def main() -> None:
        spool = await load_spool(place)
        limited = {"limit_by": lambda envelope: envelope.recipient, "limit": 2, "poll_interval": 0.01}
        async with spool.reader(Mail.SEND, **limited) as reader, anyio.create_task_group() as tasks:  # type: ignore[arg-type]

            async def work_on() -> None:
                (await reader.iter(handler, concurrency=8)).unwrap()  # type: ignore[arg-type]

            tasks.start_soon(work_on)
            parent.say("ready")
            await anyio.to_thread.run_sync(parent.hear)
            reader.stop()
        parent.say("done")

    anyio.run(main)


async def test_processes_keep_to_the_limit_together_and_the_dead_hold_nothing(place, tmp_path):
    """Three of them, one of which is killed in the middle; all is done."""
    spool = await quick_spool(place)
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(Child(work, place, tmp_path)) for _ in range(3)]
        for child in children:
            assert child.hear() == ["ready"]
        for first in range(0, 150, 10):
            await put(spool, *(f"{'abc'[number % 3]}{number:03}" for number in range(first, first + 10)))
            if first == 70:
                children.pop().kill()
        with anyio.fail_after(60):
            await until(lambda: state_of(place).entries() == set())
        for child in children:
            child.tell("stop")
            assert list(child) == [["done"]]
    (await spool.recover()).unwrap()  # the one that was killed may have been removing an entry: its data are left
    assert state_of(place).faults() == []


def hold_and_fork(parent: Parent, path: str) -> None:
    """Hold an entry of a key, fork a child that lives on, and be killed."""
    import os

    import anyio

    from helpers.spools import Mail, load_spool

    async def main() -> None:
        spool = await load_spool(path)  # type: ignore[arg-type]
        async with spool.reader(Mail.SEND, limit_by=lambda envelope: envelope.recipient, limit=1) as reader:
            job = (await reader.dequeue_available()).unwrap()
            begun, begin = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(1)  # the test must see the end of its pipe when the parent dies
                os.write(begin, b"!")
                os.read(0, 1)  # ends when the test closes the pipe
                os._exit(0)
            os.read(begun, 1)  # when `fork` has returned there, too
            parent.say(job.name, child)
            await anyio.sleep_forever()

    anyio.run(main)


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_a_child_that_was_forked_holds_nothing_of_its_parents(path, anyio_backend):
    """Though it has the parent's descriptors, and lives longer."""
    spool = await quick_spool(path)
    await put(spool, "a1", "a2")
    with Child(hold_and_fork, path) as holder:
        name, child = holder.hear()
        try:
            async with spool.reader(Mail.SEND, limit_by=recipient, limit=1) as reader:
                assert (await reader.dequeue_available()).unwrap() is None
                holder.kill()
                assert name == "a1"
                job = (await reader.dequeue_available()).unwrap()
                assert job is not None
                assert are_alive([child])
        finally:
            os.kill(child, 9)

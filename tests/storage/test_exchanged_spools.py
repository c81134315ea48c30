"""A spool's directory that is exchanged under running programs: it is noticed, never followed, and ends them."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
import trio

from helpers import preforked
from helpers.calls import FailingCalls
from helpers.inside import look_again, storage_of, waiters_of
from helpers.mounts import why_not
from helpers.processes import run_python
from helpers.proofs import thinned
from helpers.results import is_err
from helpers.spools import ANNE, BERT, MAIL, Mail, contents, make_spool, put, quick_spool, state_of
from trio_multispool import (
    Err,
    NotARegularFile,
    Ok,
    OwnershipLost,
    Remove,
    Spool,
    Spoolable,
    SpoolGone,
    SpoolReplaced,
    StorageFailure,
    Use,
)
from trio_multispool.model import lifecycle
from trio_multispool.model.lifecycle import Place
from trio_multispool.monitor import Monitor
from trio_multispool.storage.directory.disk.syscalls import SystemCalls

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio


def moved_aside(path: Path) -> None:
    """Another program moves it."""
    path.rename(path.with_name("aside"))


def removed(path: Path) -> None:
    """Gone at once, and then removed."""
    moved_aside(path)
    shutil.rmtree(path.with_name("aside"))


def put_in_its_place(path: Path) -> None:
    """Exchange it with what is called `aside`, in one step: at no time is nothing there."""
    above = os.open(path.parent, os.O_RDONLY)
    SystemCalls().exchange("aside", above, path.name, above)
    os.close(above)


def made_anew(path: Path) -> None:
    """An empty directory is in its place, and it is removed."""
    path.with_name("aside").mkdir()
    put_in_its_place(path)
    shutil.rmtree(path.with_name("aside"))


def restored(path: Path) -> None:
    """Moved aside, and a copy is in its place."""
    shutil.copytree(path, path.with_name("aside"))
    put_in_its_place(path)


def linked_elsewhere(path: Path) -> None:
    """Moved aside, and its path is a symlink to a copy."""
    shutil.copytree(path, path.with_name("copy"))
    path.with_name("aside").symlink_to("copy")
    put_in_its_place(path)


def parent_moved(path: Path) -> None:
    """The directory above it is moved."""
    path.parent.rename(path.parent.with_name("elsewhere"))


def looping(path: Path) -> None:
    """Moved aside, and its path is a symlink that leads nowhere but to itself."""
    path.with_name("aside").symlink_to(path.name)
    put_in_its_place(path)


EXCHANGES = {
    moved_aside: SpoolGone,
    removed: SpoolGone,
    made_anew: SpoolReplaced,
    restored: SpoolReplaced,
    linked_elsewhere: SpoolReplaced,
    parent_moved: SpoolGone,
    looping: SpoolGone,
}

exchanges = pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange.__name__)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Say where the spool is: in a directory of its own, which may be moved."""
    (tmp_path / "var").mkdir()
    return tmp_path / "var" / "spool"


CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "enqueue": lambda spool, _: spool.enqueue(Mail.SEND, ANNE, b""),
    "enqueue under a name": lambda spool, _: spool.enqueue(Mail.SEND, ANNE, b"", name=Use("k1")),
    "enqueue under a name that is taken": lambda spool, _: spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a")),
    "enqueue if absent": lambda spool, _: spool.enqueue_if_absent(Mail.SEND, ANNE, b"", name=Use("k2")),
    "enqueue if absent, remembered": lambda spool, _: spool.enqueue_if_absent(
        Mail.SEND, ANNE, b"", name=Use("k3", remember=60)
    ),
    "enqueue to wait": lambda spool, _: spool.enqueue(Mail.SEND, ANNE, b"", not_before=60),
    "reserve a name": lambda spool, _: spool.reserve_name(),
    "list": lambda spool, _: spool.entries(Mail.SEND),
    "list what waits": lambda spool, _: spool.waiting(Mail.SEND),
    "check out": lambda _, entry: entry.checkout(),
    "try to check out": lambda _, entry: entry.try_checkout(),
    "save directly": lambda _, entry: entry.direct.save(ANNE),
    "read directly": lambda _, entry: entry.direct.contents(),
    "remove directly": lambda _, entry: entry.direct.remove(),
    "save data directly": lambda _, entry: entry.direct.data_file.save(b""),
    "load data directly": lambda _, entry: entry.direct.data_file.load(),
    "look at data directly": lambda _, entry: entry.direct.data_file.stat(),
    "look at": lambda _, entry: entry.stat(),
    "adopt": lambda spool, _: spool.adopt(),
    "recover": lambda spool, _: spool.recover(),
    "check": lambda spool, _: Monitor(spool).run_once(),
}


@exchanges
@pytest.mark.parametrize("call", CALLS)
async def test_every_operation_tells_that_the_directory_is_not_the_one_that_is_named(path, exchange, call):
    """Never `Ok` into a directory that nobody sees, nor an answer about a name. Nothing is written in either."""
    spool = await quick_spool(path)
    [entry, *_] = await put(spool, Mail.SEND, "a", "b")
    exchange(path)
    error = EXCHANGES[exchange](str(path))
    assert await CALLS[call](spool, entry) == Err(error)
    assert str(path) in str(error)
    for each in (path, path.with_name("aside")):
        with contextlib.suppress(OSError):  # it is not there
            assert set(os.listdir(each / "send")) <= {"a", "b", ".checkout", ".waiting"}
            assert os.listdir(each / ".tmp") == []


@exchanges
@pytest.mark.parametrize("repair", ["reserve_again", "clear_temporary", "recover_name"])
async def test_nothing_is_repaired_in_a_directory_that_nobody_sees(path, exchange, repair):
    """A monitor that repairs is told, too."""
    spool = await quick_spool(path)
    exchange(path)
    with pytest.raises(EXCHANGES[exchange]):
        getattr(storage_of(spool), repair)("a")


NEEDED = [".registry", ".data", ".tmp"]
"""What every entry needs."""


def replaced_within(path: Path, directory: str) -> None:
    """Move one of the spool's own directories aside, and put a copy in its place, as a restore does."""
    (path / directory).rename(path / ".aside")
    shutil.copytree(path / ".aside", path / directory)


def removed_within(path: Path, directory: str) -> None:
    """Remove one of the spool's own directories."""
    shutil.rmtree(path / directory)


@pytest.mark.parametrize("directory", NEEDED)
@pytest.mark.parametrize(("exchange", "error"), [(replaced_within, SpoolReplaced), (removed_within, SpoolGone)])
async def test_a_directory_that_every_entry_needs_is_held_like_the_whole_spool(path, exchange, error, directory):
    """Locks that nobody sees, and data that nobody finds, would be worse than an error. It names the directory."""
    spool = await quick_spool(path)
    [entry, *_] = await put(spool, Mail.SEND, "a", "b")
    exchange(path, directory)
    for call in (*CALLS, "enqueue"):
        assert await CALLS[call](spool, entry) == Err(error(str(path / directory))), call
    async with spool.reader(Mail.SEND) as reader:
        assert await reader.dequeue() == Err(error(str(path / directory)))
    assert sorted(each.name for each in (path / "send").iterdir() if each.is_file()) == ["a", "b"]


@pytest.mark.parametrize("directory", NEEDED)
async def test_what_is_in_hand_is_settled_in_the_directories_that_it_is_from(path, directory):
    """Also if a copy of one of them has taken its place."""
    spool = await quick_spool(path)
    [entry] = await put(spool, Mail.SEND, "a")
    async with (await entry.checkout()).unwrap() as job:
        replaced_within(path, directory)
        assert await job.data.load() == Ok(b"Hello")
        assert await job.save(Mail.RETRY, BERT) == Ok(None)
    assert (path / "retry/a").is_file()


@pytest.mark.parametrize("directory", [".notes", ".keys"])
async def test_a_directory_that_there_need_not_be_is_followed(path, directory):
    """What is kept beside entries goes where the next one looks for it."""
    spool = await quick_spool(path)
    (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a", remember=60))).unwrap()
    async with spool.reader(Mail.SEND) as reader:
        async with (await reader.dequeue()).unwrap() as job:
            (await job.progress(0.5)).unwrap()
        shutil.rmtree(path / directory)
        (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("b", remember=60))).unwrap()
        async with (await reader.dequeue()).unwrap() as job:
            (await job.progress(0.5)).unwrap()
            assert (path / directory / ("b" if directory == ".keys" else job.name)).is_file()


async def test_what_was_removed_while_it_was_in_hand_or_reserved_has_gone_with_the_spool(path):
    """The error is that of the spool, and not of the file that is missing first."""
    spool = await quick_spool(path)
    [entry] = await put(spool, Mail.SEND, "a")
    answers = []

    async def use() -> None:
        async with (await spool.reserve_name()).unwrap() as name, (await entry.checkout()).unwrap() as job:
            removed(path)
            answers.append(await job.save(Mail.RETRY, BERT))
            answers.append(await job.save(Mail.RETRY, not_before=60))
            answers.append(await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(name)))
            answers.append(await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(name), not_before=60))

    with pytest.raises(SpoolGone):
        await use()
    assert answers == [Err(SpoolGone(str(path)))] * 4


@exchanges
async def test_several_that_are_enqueued_together_are_all_refused(path, exchange):
    """Each of them is told."""
    spool = await quick_spool(path)
    exchange(path)
    answers = await spool.enqueue_many(Mail.SEND, [(ANNE, b"")] * 3)
    assert answers == [Err(EXCHANGES[exchange](str(path)))] * 3


@exchanges
async def test_what_is_in_hand_is_settled_where_it_is(path, exchange):
    """The job goes on; its data can be read and its verdict is stored, in the directory that it was checked out of."""
    spool = await quick_spool(path)
    [entry] = await put(spool, Mail.SEND, "a")
    lost = pytest.raises(EXCHANGES[exchange]) if exchange in (removed, made_anew) else contextlib.nullcontext()
    with lost:  # what was removed cannot go back when its block ends
        async with (await entry.checkout()).unwrap() as job:
            exchange(path)
            if exchange in (removed, made_anew):
                assert await job.save(Mail.RETRY) == Err(EXCHANGES[exchange](str(path)))
            else:
                assert await job.data.load() == Ok(b"Hello")
                assert await job.save(Mail.RETRY) == Ok(None)
    if exchange in (moved_aside, restored, linked_elsewhere, looping):
        assert state_of(path.with_name("aside")).names("retry") == ["a"]
    if exchange is restored:
        assert state_of(path).names("retry") == []


@exchanges
@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_reader_that_waits_ends_when_it_looks_again(path, exchange, concurrency):
    """Where the kernel tells, that is at once. It takes nothing of what it finds in the other directory."""
    spool = await quick_spool(path)
    seen = []

    async def remove(metadata: Any, data: Any) -> Remove:
        seen.append(data.name)
        return Remove()

    async with spool.reader(Mail.SEND, poll_interval=0.01) as reader, anyio.create_task_group() as tasks:
        answers: list[Any] = []

        async def iterate() -> None:
            answers.append(await reader.iter(remove, concurrency=concurrency))

        tasks.start_soon(iterate)
        await put(spool, Mail.SEND, "a")
        while (path / ".registry" / "a").exists():  # noqa: ASYNC110  # it tells nobody
            await anyio.sleep(0.001)
        exchange(path)
        while not answers:
            look_again(spool, Mail.SEND)
            await anyio.sleep(0.001)
    assert answers == [Err(EXCHANGES[exchange](str(path)))]
    assert seen == ["a"]


async def test_the_kernel_tells_of_a_spool_that_is_moved(path):
    """A reader that waits need not look again for that."""
    spool = await quick_spool(path)
    async with spool.reader(Mail.SEND, poll_interval=1000) as reader, anyio.create_task_group() as tasks:
        answers: list[Any] = []

        async def wait() -> None:
            answers.append(await reader.dequeue())

        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        while not waiters_of(spool):
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.deadline = anyio.current_time() + 60  # instead of waiting for ever
        moved_aside(path)
    assert answers == [Err(SpoolGone(str(path)))]


@exchanges
async def test_a_reader_that_is_busy_takes_no_more_of_its_listing(path, exchange):
    """It had listed a hundred; the ones that it has not begun stay where they are."""
    spool = await quick_spool(path)
    await put(spool, Mail.SEND, *(f"{number:03}" for number in range(100)))
    seen = []

    async def count(metadata: Any, data: Any) -> Remove:
        seen.append(data.name)
        if len(seen) == 3:
            exchange(path)
        return Remove()

    with contextlib.suppress(Exception):  # of a removed directory, the entry in hand cannot be settled
        async with spool.reader(Mail.SEND) as reader:
            answer = await reader.iter(count)
            assert answer == Err(EXCHANGES[exchange](str(path))) or exchange in (removed, made_anew)
    assert len(seen) <= 4


@exchanges
async def test_a_reader_that_waits_for_what_is_due_ends(path, exchange):
    """It does not sleep until then."""
    spool = await quick_spool(path)
    (await spool.enqueue(Mail.SEND, ANNE, b"", not_before=3600)).unwrap()
    async with spool.reader(Mail.SEND, poll_interval=0.01) as reader, anyio.create_task_group() as tasks:
        answers: list[Any] = []

        async def wait() -> None:
            answers.append(await reader.dequeue())

        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        exchange(path)
        while not answers:
            look_again(spool, Mail.SEND)
            await anyio.sleep(0.001)
    assert answers == [Err(EXCHANGES[exchange](str(path)))]


@exchanges
async def test_both_ends_of_a_channel_end(path, exchange):
    """Sending and receiving raise it."""
    spool = await quick_spool(path)
    async with spool.channel(Mail.SEND) as (send, receive):
        exchange(path)
        with pytest.raises(EXCHANGES[exchange]):
            await send.send((ANNE, b""))
        with pytest.raises(EXCHANGES[exchange]):
            await receive.receive()


async def test_a_path_that_cannot_be_looked_at_proves_nothing(path):
    """A directory above that lost its permissions is no reason to end."""
    calls = FailingCalls()
    spool = await make_spool(path, system_calls=calls)
    with calls.failing("stat_path", errno.EACCES):
        [entry] = await put(spool, Mail.SEND, "a")
        assert (await spool.entries(Mail.SEND)).unwrap() == [entry]


def stripped(path: Path, directory: str) -> None:
    """Move a directory out of the spool, as to archive it; one without entries is in its place."""
    aside = path.with_name("aside")
    (path / directory).rename(aside)
    shutil.copytree(aside, path / directory, ignore=_files_in)


def _files_in(directory: str, names: list[str]) -> list[str]:
    return [name for name in names if os.path.isfile(os.path.join(directory, name))]


def stripped_in_one_step(path: Path, directory: str) -> None:
    """Likewise, but at no time is nothing there."""
    stripped(path, directory)
    (path / directory).rename(path.with_name("new"))
    path.with_name("aside").rename(path / directory)
    above = os.open(path.parent, os.O_RDONLY)
    SystemCalls().exchange("new", above, f"{path.name}/{directory}", above)
    os.close(above)


def pass_a_tick(path: Path) -> None:
    """Wait until the kernel gives changes another time than the last one of a directory."""
    probe = path.with_name("probe")
    while True:
        probe.touch()
        if probe.stat().st_ctime_ns > path.stat().st_ctime_ns:
            return


class Uses:
    """What two programs do with one spool. Each use returns the name of an entry that was acknowledged."""

    def __init__(self, spool: Any, raw: Any) -> None:
        """Take a spool, and the same one as a program sees it whose metadata are bytes."""
        self.spool, self.raw = spool, raw

    async def enqueue(self) -> str:
        """Enqueue under a name that is given."""
        return (await self.spool.enqueue(Mail.SEND, ANNE, b"x")).unwrap().name

    async def enqueue_several(self) -> str:
        """Enqueue with shared syncs."""
        return (await self.spool.enqueue_many(Mail.SEND, [(ANNE, b"x")] * 2))[1].unwrap().name

    async def enqueue_to_wait(self) -> str:
        """Enqueue what is due later."""
        return (await self.spool.enqueue(Mail.SEND, ANNE, b"x", not_before=3600)).unwrap().name

    async def save(self) -> str:
        """Save to another queue."""
        entry = (await self.spool.enqueue(Mail.RETRY, ANNE, b"x")).unwrap()
        async with (await entry.checkout()).unwrap() as job:
            (await job.save(Mail.SEND, BERT)).unwrap()
        return entry.name

    async def save_to_wait(self) -> str:
        """Save to another queue, for later."""
        entry = (await self.spool.enqueue(Mail.RETRY, ANNE, b"x")).unwrap()
        async with (await entry.checkout()).unwrap() as job:
            (await job.save(Mail.SEND, BERT, not_before=3600)).unwrap()
        return entry.name

    async def die(self) -> str:
        """Check out, and die with it."""
        entry = (await self.spool.enqueue(Mail.SEND, ANNE, b"x")).unwrap()
        place, storage = Place("send", lifecycle.State.AVAILABLE), storage_of(self.spool)
        storage.claim(place, entry.name, before_commit=lambda: None).abandon()
        return entry.name

    async def die_early(self) -> str:
        """Check out what waits, and die with it."""
        entry = (await self.spool.enqueue(Mail.SEND, ANNE, b"x", not_before=3600)).unwrap()
        place, storage = Place("send", lifecycle.State.WAITING), storage_of(self.spool)
        storage.claim(place, entry.name, before_commit=lambda: None).abandon()
        return entry.name

    async def release(self) -> str:
        """Check out, and give back."""
        entry = (await self.spool.enqueue(Mail.SEND, ANNE, b"x")).unwrap()
        async with (await entry.checkout()).unwrap():
            pass
        return entry.name

    async def set_aside(self) -> str:
        """Find that it cannot be read."""
        entry = (await self.raw.enqueue(Mail.FAILED, b"{{", b"x")).unwrap()
        async with self.spool.reader(Mail.FAILED) as reader:
            assert await reader.dequeue_available() == Ok(None)
        return entry.name

    async def restore(self) -> str:
        """Put it back."""
        name = await self.set_aside()
        storage_of(self.raw).restore("failed", name, durability=None, before_commit=lambda: None)
        return name


FOLLOWED = [
    *("send", "send/.waiting", "send/.checkout", "retry", "retry/.checkout", "failed", "failed/.checkout"),
    *(".quarantine", ".quarantine/failed", ".quarantine/.reasons"),
]
"""The directories in which entries lie, or why one was set aside."""

USES = sorted(use for use in vars(Uses) if not use.startswith("_"))


async def followed_spool(path: Path) -> Uses:
    """Make a spool, and use it in every way: after that, all its directories are held."""
    spool = await quick_spool(path)
    uses = Uses(spool, await quick_spool(path, Spoolable(queues=Mail, metadata=bytes, data=bytes)))
    for use in USES:
        await getattr(uses, use)()
    pass_a_tick(path)
    return uses


async def is_found(path: Path, name: str) -> None:
    """See that the programs which come later find an entry, and that recovery takes it for none that is lost."""
    async with await quick_spool(path) as fresh:
        collected = [each.name for each in (await fresh.recover()).unwrap() if each.queue is None]
        assert name not in collected
    state = state_of(path)
    assert len(state.places(name)) == 1
    assert state.data[name] == b"x"
    assert name in state.registry


@pytest.mark.proof
@pytest.mark.parametrize("use", thinned(USES, 4))
@pytest.mark.parametrize(
    ("exchange", "directory"),
    [
        *((stripped, each) for each in FOLLOWED),
        *((stripped_in_one_step, each) for each in ("send", "send/.waiting", "send/.checkout", ".quarantine")),
    ],
)
async def test_what_is_acknowledged_lies_in_the_directory_that_is_named(path, exchange, directory, use):
    """A queue may be moved, and made anew, by hand. What is in one that nobody sees, recovery would delete."""
    uses = await followed_spool(path)
    exchange(path, directory)
    await is_found(path, await getattr(uses, use)())


SETTLING: dict[str, Callable[[Any], Any]] = {
    "save": lambda job: job.save(Mail.RETRY),
    "save with metadata": lambda job: job.save(Mail.RETRY, BERT),
    "save to wait": lambda job: job.save(Mail.SEND, not_before=3600),
    "release": lambda job: job.release(),
}


@pytest.mark.proof
@pytest.mark.parametrize(
    ("directory", "settle", "waited", "noticed"),
    thinned(
        itertools.product(["send", "send/.waiting", "send/.checkout", "retry"], SETTLING, [False, True], [False, True]),
        3,
    ),
)
async def test_what_was_in_hand_goes_to_the_directory_that_is_named(path, directory, settle, waited, noticed):
    """Also if the one that it was checked out of is in its place no more, and others are checked out meanwhile."""
    uses = await followed_spool(path)
    entry = (await uses.spool.enqueue(Mail.SEND, ANNE, b"x", not_before=3600 if waited else None)).unwrap()
    async with (await entry.checkout(early=True)).unwrap() as job:
        stripped(path, directory)
        if noticed:
            await uses.die()
        assert await SETTLING[settle](job) == Ok(None)
    await is_found(path, entry.name)


@pytest.mark.parametrize("directory", ["send", "send/.checkout"])
async def test_what_was_in_hand_is_removed_where_it_is(path, directory):
    """Its work is done."""
    uses = await followed_spool(path)
    [entry] = await put(uses.spool, Mail.SEND, "a")
    async with (await entry.checkout()).unwrap() as job:
        stripped(path, directory)
        await uses.die()
        assert await job.remove() == Ok(None)
    assert list(path.parent.rglob("a")) == []


@pytest.mark.parametrize("directory", ["send", "send/.checkout"])
async def test_what_was_in_hand_is_lost_if_it_is_taken_from_where_it_was(path, directory):
    """There, as in the directory that is named, the file of the entry is what its owner has."""
    uses = await followed_spool(path)
    [entry] = await put(uses.spool, Mail.SEND, "a")
    lost = OwnershipLost("send", "a")

    async def work() -> None:
        async with (await entry.checkout()).unwrap() as job:
            stripped(path, directory)
            await uses.die()
            next(path.with_name("aside").rglob("a")).unlink()
            for call in (job.remove(), job.save(Mail.RETRY), job.save(Mail.RETRY, BERT)):
                assert await call == Err(lost)

    with pytest.raises(OwnershipLost):
        await work()
    assert state_of(path).places("a") == []


@pytest.mark.parametrize("directory", FOLLOWED)
async def test_what_was_in_hand_is_set_aside_in_the_quarantine_that_is_named(path, directory):
    """Also if somebody archived that, with what was in it."""
    uses = await followed_spool(path)
    entry = (await uses.spool.enqueue(Mail.FAILED, ANNE, b"x")).unwrap()
    storage = storage_of(uses.spool)
    claim = storage.claim(Place("failed", lifecycle.State.AVAILABLE), entry.name, before_commit=lambda: None)
    stripped(path, directory)
    storage.quarantine(claim, "why")
    await is_found(path, entry.name)
    assert state_of(path).reasons[entry.name] == "why\n"


@pytest.mark.parametrize("directory", ["send", "send/.checkout"])
async def test_a_reader_in_the_middle_of_its_listing_checks_out_where_others_look(path, directory):
    """What it takes beside a settlement, too: if it is killed, recovery finds the entry."""
    uses = await followed_spool(path)
    other = await quick_spool(path)
    await put(other, Mail.SEND, "a1", "a2", "a3")
    seen: list[str] = []

    async def remove(_metadata: Any, data: Any) -> Remove:
        if not seen:
            stripped(path, directory)
            if directory == "send":
                for name in ("a2", "a3"):
                    path.with_name("aside").joinpath(name).rename(path / "send" / name)
        else:
            assert state_of(path).places(data.name) == ["send/.checkout"]
        seen.append(data.name)
        return Remove()

    async with uses.spool.reader(Mail.SEND) as reader:
        (await reader.iter_available(remove)).unwrap()
    assert {"a2", "a3"} <= set(seen)


async def test_a_reader_that_is_asked_for_one_after_the_other_checks_out_where_others_look(path):
    """Each time, whatever it had listed before."""
    uses = await followed_spool(path)
    async with uses.spool.reader(Mail.SEND) as reader:
        async with (await reader.dequeue()).unwrap():
            pass
        stripped(path, "send/.checkout")
        async with (await reader.dequeue()).unwrap() as job:
            assert state_of(path).places(job.name) == ["send/.checkout"]


async def test_unsafe_claims_are_of_what_lies_where_others_look(path):
    """Not of what was checked out of a queue that was moved away since."""
    uses = await followed_spool(path)
    assert (await uses.spool.checkouts_unsafe(Mail.SEND)).unwrap() != []
    (path / "send/.checkout").rename(path.with_name("aside"))
    (path / "send/.checkout").mkdir()
    assert (await uses.spool.checkouts_unsafe(Mail.SEND)).unwrap() == []


@pytest.mark.parametrize("use", ["enqueue", "enqueue_to_wait", "save", "save_to_wait", "die", "die_early"])
async def test_a_symlink_in_the_place_of_a_queue_is_not_followed(path, use):
    """Nothing is acknowledged in the directory that it leads to, and the other queues go on."""
    uses = await followed_spool(path)
    aside = path.with_name("aside")
    (path / "send").rename(aside)
    (path / "send").symlink_to(aside)
    before = contents(aside)
    with pytest.raises((NotARegularFile, StorageFailure)):
        await getattr(uses, use)()
    assert contents(aside) == before
    await uses.set_aside()


async def test_what_waited_does_not_go_back_by_a_symlink(path):
    """Its owner is told that it could not be put back."""
    uses = await followed_spool(path)
    entry = (await uses.spool.enqueue(Mail.SEND, ANNE, b"x", not_before=3600)).unwrap()
    aside = path.with_name("aside")

    async def work() -> None:
        async with (await entry.checkout(early=True)).unwrap():
            (path / "send").rename(aside)
            (path / "send").symlink_to(aside)

    with pytest.raises(StorageFailure):
        await work()
    assert (aside / ".checkout" / entry.name).is_file()


@pytest.mark.skipif(bool(why_not()), reason=why_not() or "may mount")
async def test_a_spool_that_is_mounted_over_is_replaced(path):
    """The other file system has an empty spool, as when a disk was not mounted at first."""
    await make_spool(path)
    code = f"""
import trio
import helpers.mounts as mounts
from helpers.spools import ANNE, MAIL, Mail
from trio_multispool import Err, Spool, SpoolReplaced

async def main():
    spool = (await Spool.load({str(path)!r}, MAIL)).unwrap()
    mounts.tmpfs({str(path)!r})
    assert await spool.enqueue(Mail.SEND, ANNE, b"") == Err(SpoolReplaced({str(path)!r}))
    assert await spool.entries(Mail.SEND) == Err(SpoolReplaced({str(path)!r}))

mounts.enter_private()
trio.run(main)
"""
    run_python(code)


def test_a_command_that_works_ends_with_it(path):
    """With the exit code for a spool that is refused, and the path on standard error, so that a supervisor acts."""
    trio.run(make_spool, path)
    command, pipes = ["work", str(path), "send", "true"], dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    with preforked.Process(command, text=True, **pipes) as running:
        try:
            while running.poll() is None and not _is_watching(running.pid):
                time.sleep(0.01)
            moved_aside(path)
            _, told = running.communicate(timeout=60)
        finally:
            running.kill()
    assert (running.returncode, f"is not at {str(path)!r}" in told) == (5, True), told


def _is_watching(pid: int) -> bool:
    """Tell whether a process has an inotify instance: its reader looks, and then waits."""
    found = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return "anon_inode:inotify" in found


async def test_a_spool_is_opened_anew_where_it_is(path):
    """After that, all is as before."""
    spool = await quick_spool(path)
    await put(spool, Mail.SEND, "a")
    moved_aside(path)
    assert is_err(await spool.entries(Mail.SEND))
    again = (await Spool.load(path.with_name("aside"), MAIL)).unwrap()
    assert len((await again.entries(Mail.SEND)).unwrap()) == 1

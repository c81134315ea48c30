"""Entries that are enqueued together: by `enqueue_many`, and by tasks that enqueue at the same time."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import functools
import itertools
import os
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio

from helpers.calls import FailingCalls
from helpers.gates import Gate, breathe
from helpers.processes import run_python
from helpers.results import is_err
from helpers.spools import ANNE, BERT, MAIL, Mail, load_spool, make_spool, names_in, put, quick_spool, state_of
from trio_multispool import (
    Durability,
    DurabilityUnknown,
    EncodingFailed,
    EntryBusy,
    Err,
    InvalidName,
    NameTaken,
    Ok,
    OutOfSpace,
    Reserve,
    Spool,
    Spoolable,
    StorageFailure,
    SyncsRefused,
    Use,
    prioritized_names,
)
from trio_multispool.entries.enqueue import LARGEST_IN_BATCH

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from helpers.spools import Location

pytestmark = pytest.mark.anyio


def made(calls: FailingCalls, *kinds: str) -> list[str]:
    """Return the calls of some kinds that were made, as `sync send`."""
    return [f"{call} {path.partition('/spool/')[2]}" for call, path in calls.made if call in kinds]


def nothing_left(path: Path) -> None:
    """Check that there is nothing that belongs to no entry."""
    assert state_of(path).faults() == []
    assert state_of(path).temporary == {}


# enqueue_many


@pytest.mark.sample
async def test_many_are_enqueued_in_order_with_an_answer_each(place: Location) -> None:
    """Names in the order of the items, each with its own metadata and data."""
    async with await quick_spool(place) as spool:
        items = [(ANNE if number % 2 else BERT, b"%d" % number) for number in range(20)]
        entries = [answer.unwrap() for answer in await spool.enqueue_many(Mail.SEND, items)]
        assert [entry.name for entry in entries] == await names_in(spool, Mail.SEND)
        for entry, (metadata, data) in zip(entries, items, strict=True):
            assert await entry.direct.contents() == Ok(metadata)
            assert await entry.direct.data_file.load() == Ok(data)
        assert await spool.enqueue_many(Mail.SEND, []) == []
    nothing_left(place)


async def test_many_share_their_syncs(tmp_path: Path) -> None:
    """All files are on their way to the disk before the first is synced; `.data` and the queue are synced once."""
    calls = FailingCalls()
    async with await quick_spool(tmp_path / "spool", system_calls=calls) as spool:
        calls.made.clear()
        names = [Use(f"{number}") for number in range(5)]
        await spool.enqueue_many(Mail.SEND, [(ANNE, b"")] * 5, names=names)
    files = [f"{where}/{number}" for number in range(5) for where in (".data", ".tmp")]
    assert made(calls, "write_out", "sync", "move") == [
        *(f"write_out {file}" for file in files),
        *(f"sync {file}" for file in files),
        "sync .data",
        *(f"move .tmp/{number} -> {tmp_path}/spool/send/{number}" for number in range(5)),
        "sync send",
    ]


async def test_at_level_process_many_sync_nothing(tmp_path: Path) -> None:
    """Whether the spool or the call says so; a higher level of the call syncs all the same."""
    calls = FailingCalls()
    items = [(ANNE, b""), (BERT, b"")]
    async with await quick_spool(tmp_path / "spool", system_calls=calls, durability=Durability.PROCESS) as spool:
        calls.made.clear()
        await spool.enqueue_many(Mail.SEND, items)
        assert made(calls, "sync", "write_out") == []
        await spool.enqueue_many(Mail.SEND, items, durability=Durability.POWER)
        assert made(calls, "sync")[-1] == "sync send"


async def test_one_that_fails_does_not_keep_the_others(tmp_path: Path) -> None:
    """Taken, invalid, not to be encoded, no room: each answers for itself, and leaves nothing."""
    calls = FailingCalls()
    async with await quick_spool(tmp_path / "spool", system_calls=calls) as spool:
        await put(spool, Mail.RETRY, "taken")
        calls.fail("write", errno.ENOSPC, "/.data/full")
        names = ["one", "taken", "in/valid", "not bytes", "full", "two", "one"]
        items: list[Any] = [(ANNE, b"x")] * 3 + [(ANNE, 5)] + [(ANNE, b"x")] * 3
        answers = await spool.enqueue_many(Mail.SEND, items, names=[Use(name) for name in names])
        errors = [type(answer.error) if isinstance(answer, Err) else None for answer in answers]
        assert errors == [None, NameTaken, InvalidName, EncodingFailed, OutOfSpace, None, NameTaken]
        assert await names_in(spool, Mail.SEND) == ["one", "two"]
    nothing_left(tmp_path / "spool")


@pytest.mark.parametrize("where", [".data/b", ".tmp/b"])
async def test_a_file_that_cannot_be_synced_fails_its_own_entry(tmp_path: Path, where: str) -> None:
    """`StorageFailure`, nothing of it is there, and the spool goes on: it was no directory."""
    calls = FailingCalls()
    async with await quick_spool(tmp_path / "spool", system_calls=calls) as spool:
        with calls.failing("sync", errno.EIO, f"/{where}"):
            answers = await spool.enqueue_many(Mail.SEND, [(ANNE, b"")] * 3, names=[Use("a"), Use("b"), Use("c")])
        assert [isinstance(answer, Ok) for answer in answers] == [True, False, True]
        assert isinstance(answers[1].error, StorageFailure)
        assert await names_in(spool, Mail.SEND) == ["a", "c"]
        nothing_left(spool.path)
        assert isinstance(await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("b")), Ok)


async def test_a_directory_that_cannot_be_synced_before_the_commits_fails_all_of_them(tmp_path: Path) -> None:
    """Nothing is there; from then on nothing that must survive power loss is taken, until the spool is loaded again."""
    calls = FailingCalls()
    async with await quick_spool(tmp_path / "spool", system_calls=calls) as spool:
        with calls.failing("sync", errno.EIO, "/.data", times=5):
            answers = await spool.enqueue_many(Mail.SEND, [(ANNE, b"")] * 2, names=[Use("a"), Use("b")])
        assert all(is_err(answer) for answer in answers)
        assert state_of(spool.location).entries() == set()
        nothing_left(spool.path)
        [refused] = await spool.enqueue_many(Mail.SEND, [(ANNE, b"")])
        assert isinstance(refused.error, SyncsRefused)
    async with await load_spool(tmp_path / "spool") as spool:
        assert isinstance((await spool.enqueue_many(Mail.SEND, [(ANNE, b"")]))[0], Ok)


async def test_a_queue_that_cannot_be_synced_after_the_commits_leaves_them_unknown(tmp_path: Path) -> None:
    """`DurabilityUnknown(committed=True)` for each: they are there, and power loss might undo them."""
    calls = FailingCalls()
    async with await quick_spool(tmp_path / "spool", system_calls=calls) as spool:
        with calls.failing("sync", errno.EIO, "/send", times=1):
            answers = await spool.enqueue_many(Mail.SEND, [(ANNE, b"")] * 2, names=[Use("a"), Use("b")])
        assert [answer.error.args for answer in answers] == [
            DurabilityUnknown(name, "send", committed=True).args for name in ("a", "b")
        ]
        assert answers[0].error is not answers[1].error, "each caller has its own, to add notes to"
        assert await names_in(spool, Mail.SEND) == ["a", "b"]


def test_many_need_no_more_descriptors_than_the_process_can_spare(anyio_backend: str, tmp_path: Path) -> None:
    """With a low limit they go in several batches, and all arrive; in a process that has nothing else open."""
    run_python(
        """
        import functools, pathlib, resource
        import anyio
        from helpers.calls import FailingCalls
        from helpers.spools import ANNE, Mail, names_in, quick_spool
        from trio_multispool import Ok

        async def enqueue_forty(path, calls):
            async with await quick_spool(path, system_calls=calls) as spool:
                resource.setrlimit(resource.RLIMIT_NOFILE, (96, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
                calls.made.clear()
                answers = await spool.enqueue_many(Mail.SEND, [(ANNE, b"x")] * 40)
                assert all(isinstance(answer, Ok) for answer in answers), answers
                syncs = [path for call, path in calls.made if call == "sync" and path.endswith("/send")]
                assert len(syncs) == 4, f"96 / 9: ten at a time, {len(syncs)}"
                assert len(await names_in(spool, Mail.SEND)) == 40

        anyio.run(enqueue_forty, pathlib.Path(sys.argv[2]), FailingCalls(), backend=sys.argv[1])
        """,
        anyio_backend,
        tmp_path / "spool",
    )


async def test_names_go_with_their_items(place: Location) -> None:
    """A reserved name is used once; too few names, or too many, are refused before anything happens."""
    async with await quick_spool(place) as spool:
        async with (await spool.reserve_name()).unwrap() as reserved:
            names = [Use(reserved), Reserve(None), Use("chosen")]
            entries = [each.unwrap() for each in await spool.enqueue_many(Mail.SEND, [(ANNE, b"")] * 3, names=names)]
            assert [entries[0].name, entries[2].name] == [reserved.name, "chosen"]
        for wrong in ([], [Use("a")], [Use("a")] * 3):
            with pytest.raises(ValueError, match="names"):
                await spool.enqueue_many(Mail.SEND, [(ANNE, b"")] * 2, names=wrong)
        async with (await spool.reserve_name()).unwrap() as reserved:
            with pytest.raises(RuntimeError, match="used") as caught:
                await spool.enqueue_many(Mail.SEND, [(ANNE, b"")] * 2, names=[Use(reserved)] * 2)
            assert caught.value.__notes__ == [f"1 of 2 entries have been enqueued: {reserved.name}"]
        with pytest.raises(TypeError, match="queue"):
            await spool.enqueue_many("send", [(ANNE, b"")])  # type: ignore[arg-type]
        assert len(await names_in(spool, Mail.SEND)) == 4
    nothing_left(place)


class Exhausted:
    """A name generator that breaks at its third name."""

    def __init__(self) -> None:
        """Begin with none."""
        self.made = 0

    def next(self, _argument: None, _attempt: int) -> str:
        """Make a name."""
        self.made += 1
        if self.made == 3:
            raise LookupError("no more names")
        return f"{self.made}"


async def test_what_a_name_generator_raises_passes_through_and_tells_what_was_done(place: Location) -> None:
    """The others are enqueued; the note counts them."""
    spoolable = Spoolable(queues=Mail, metadata=MAIL.metadata, data=bytes, names=Exhausted())
    spool = (await Spool.create(place, spoolable, durability=Durability.PROCESS)).unwrap()
    with pytest.raises(LookupError, match="no more names") as caught:
        await spool.enqueue_many(Mail.SEND, [(ANNE, b"")] * 4)
    assert caught.value.__notes__ == ["3 of 4 entries have been enqueued: 1, 2, 4"]
    assert await names_in(spool, Mail.SEND) == ["1", "2", "4"]
    spool.close()


async def test_many_that_are_cancelled_before_their_thread_begins_have_not_happened(place: Location) -> None:
    """Cancelled in the queue for a thread: nothing is there."""
    limiter = anyio.CapacityLimiter(1)
    async with await quick_spool(place, limiter=limiter) as spool:
        limiter.acquire_on_behalf_of_nowait(spool)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(spool.enqueue_many, Mail.SEND, [(ANNE, b"")] * 3)
            while not limiter.statistics().tasks_waiting:
                await breathe()
            tasks.cancel_scope.cancel()
        limiter.release_on_behalf_of(spool)
        assert await names_in(spool, Mail.SEND) == []


@pytest.mark.parametrize(("held", "left"), [("write", 0), ("move", 3)])
async def test_many_that_asyncio_cancels_are_all_enqueued_or_none(
    tmp_path: Path, held: str, left: int, anyio_backend: str
) -> None:
    """Before the first commit: none, without a word; after it: all, and a note says so."""

    async def main() -> None:
        gate = Gate()
        async with await make_spool(tmp_path / "spool", system_calls=gate) as spool:
            names = [Use("a"), Use("b"), Use("c")]
            gate.arm(held, after=True)
            task = asyncio.create_task(spool.enqueue_many(Mail.SEND, [(ANNE, b"")] * 3, names=names))
            await gate.reached()
            task.cancel()
            await breathe()
            gate.go()
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
            assert len(await names_in(spool, Mail.SEND)) == left
            notes = getattr(caught.value, "__notes__", [])
            assert [note.startswith("enqueue of 3 entries into send was already done") for note in notes] == (
                [True] if left else []
            )
        nothing_left(tmp_path / "spool")

    if anyio_backend == "asyncio":
        await main()
    else:
        await trio.to_thread.run_sync(lambda: asyncio.run(main()))


# Tasks that enqueue at the same time


async def test_tasks_that_enqueue_meanwhile_share_the_next_hop_and_its_syncs(tmp_path: Path) -> None:
    """While one is held in its thread, twenty others come; they are one batch, with one sync of the queue."""

    class Held(Gate, FailingCalls):
        def __init__(self) -> None:
            Gate.__init__(self)
            FailingCalls.__init__(self)

    calls = Held()
    async with await make_spool(tmp_path / "spool", system_calls=calls) as spool, anyio.create_task_group() as tasks:
        calls.arm("move")
        tasks.start_soon(spool.enqueue, Mail.SEND, ANNE, b"first")
        await calls.reached()
        for number in range(20):
            tasks.start_soon(spool.enqueue, Mail.SEND, BERT, b"%d" % number)
        while len(spool._session.enqueuings._pending) < 20:
            await breathe()
        calls.made.clear()
        calls.go()
        while len(state_of(spool.location).names("send")) < 21 or spool._session.enqueuings._leader:
            await breathe()
        assert made(calls, "sync").count("sync send") == 2, "the first one's, and that of all others"
        assert made(calls, "sync").count("sync .data") == 1
    nothing_left(tmp_path / "spool")


async def test_two_that_want_one_name_at_the_same_time_are_told_apart(tmp_path: Path) -> None:
    """One has it, and the other is told that there is an entry: not that somebody is busy with the name."""
    gate = Gate()
    answers: list[Any] = []
    async with await make_spool(tmp_path / "spool", system_calls=gate) as spool, anyio.create_task_group() as tasks:

        async def enqueue(name: str) -> None:
            answers.append(await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(name)))

        gate.arm("move")
        tasks.start_soon(enqueue, "other")
        await gate.reached()
        tasks.start_soon(enqueue, "name")
        tasks.start_soon(enqueue, "name")
        while len(spool._session.enqueuings._pending) < 2:
            await breathe()
        gate.go()
    assert sum(isinstance(answer, Ok) for answer in answers) == 2
    assert [answer.error.args for answer in answers if isinstance(answer, Err)] == [NameTaken("name").args]
    assert not any(isinstance(answer, Err) and isinstance(answer.error, EntryBusy) for answer in answers)


WRONG: dict[str, Callable[[], dict[str, Any]]] = {
    "a list as a name": lambda: {"name": Use(["a"])},  # type: ignore[arg-type]
    "a number as a name": lambda: {"name": Use(5)},  # type: ignore[arg-type]
    "an argument that the names do not know": lambda: {"name": Reserve(["urgent"])},
    "a level that is none": lambda: {"name": Reserve(10)},
    "a name that no file can have": lambda: {"name": Use("a/b")},
    "a list as a level of durability": lambda: {"durability": ["power"]},
    "text as a time": lambda: {"not_before": "tomorrow"},
    "other metadata": lambda: {"metadata": ["anne"]},
    "other data": lambda: {"data": ["Hello"]},
}
"""What one call may be given by mistake."""


@pytest.mark.parametrize("mistake", WRONG)
async def test_a_wrong_argument_fails_its_own_caller_and_nobody_else(tmp_path: Path, mistake: str) -> None:
    """Also if others share its batch, and whichever of them leads."""
    gate = Gate()
    spoolable = Spoolable(queues=Mail, metadata=type(ANNE), data=bytes, names=prioritized_names())
    spool = (await Spool.create(tmp_path / "spool", spoolable, system_calls=gate)).unwrap()
    raised: dict[str, Exception] = {}

    async def enqueue(name: str, mistake: Callable[[], dict[str, Any]] = dict) -> None:
        try:
            given = {"metadata": ANNE, "data": b"", "name": Use(name), **mistake()}
            (await spool.enqueue(Mail.SEND, given.pop("metadata"), given.pop("data"), **given)).unwrap()
        except Exception as error:  # noqa: BLE001  # looked at below
            raised[name] = error

    async with anyio.create_task_group() as tasks:
        gate.arm("move")
        tasks.start_soon(enqueue, "first")
        await gate.reached()
        for name in "abcde":
            tasks.start_soon(enqueue, name, WRONG[mistake] if name in "bd" else dict)
        while len(spool._session.enqueuings._pending) + len(raised) < 5:
            await breathe()
        gate.go()
    assert sorted(raised) == ["b", "d"]
    assert await names_in(spool, Mail.SEND) == ["a", "c", "e", "first"]
    spool.close()
    nothing_left(tmp_path / "spool")


@pytest.mark.parametrize("size", [LARGEST_IN_BATCH, LARGEST_IN_BATCH + 1])
async def test_nobody_waits_for_large_data_of_another(tmp_path: Path, size: int) -> None:
    """Data over the limit is written in a hop of its own; up to it, in the batch."""
    gate = Gate()
    async with await make_spool(tmp_path / "spool", system_calls=gate) as spool, anyio.create_task_group() as tasks:
        gate.arm("write")
        tasks.start_soon(spool.enqueue, Mail.SEND, ANNE, b"x" * size)
        await gate.reached()
        if size > LARGEST_IN_BATCH:
            (await spool.enqueue(Mail.SEND, BERT, b"small")).unwrap()
        else:
            tasks.start_soon(spool.enqueue, Mail.SEND, BERT, b"small")
            while not spool._session.enqueuings._pending:
                await breathe()
        gate.go()
    assert len(state_of(tmp_path / "spool").names("send")) == 2


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


class Telling:
    """Codecs that write down which task they run for."""

    def encode(self, value: str) -> bytes:
        """Encode metadata."""
        return f"{value} {variable.get()}".encode()

    def decode(self, raw: bytes) -> str:
        """Decode it."""
        return raw.decode()

    def dump(self, value: str, file: Any) -> None:
        """Write data."""
        file.write(f"{value} {variable.get()}".encode())

    def load(self, file: Any) -> str:
        """Read it."""
        found: str = file.read().decode()
        return found


@pytest.mark.parametrize("data", [str, Telling()], ids=["in a batch", "streamed"])
async def test_codecs_run_with_the_context_variables_of_their_own_caller(place: Location, data: Any) -> None:
    """Whoever leads the batch."""
    spoolable: Any = Spoolable(queues=Mail, metadata=Telling(), data=data)
    spool = (await Spool.create(place, spoolable, durability=Durability.PROCESS)).unwrap()

    async def enqueue(name: str) -> None:
        variable.set(name)
        (await spool.enqueue(Mail.SEND, "metadata", "data", name=Use(name))).unwrap()

    async with anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(enqueue, f"{number}")
    variable.set("many")
    await spool.enqueue_many(Mail.SEND, [("metadata", "data")], names=[Use("many")])
    spool.close()
    state = state_of(place)
    for name in [*map(str, range(5)), "many"]:
        assert state.available["send"][name] == f"metadata {name}".encode()
        assert state.data[name] == (b"data" if data is str else f"data {name}".encode())


async def test_nobody_waits_for_the_sync_of_large_data_of_another(tmp_path: Path) -> None:
    """It is synced by itself, while others enqueue, settle and release."""

    class Slow(Gate):
        def sync(self, fd: int) -> None:
            if os.fstat(fd).st_size > LARGEST_IN_BATCH:
                self._hold()

    gate = Slow()
    async with await make_spool(tmp_path / "spool", system_calls=gate) as spool, anyio.create_task_group() as tasks:
        jobs = [(await entry.checkout()).unwrap() for entry in await put(spool, Mail.SEND, "a", "b", "c")]
        tasks.start_soon(spool.enqueue, Mail.SEND, ANNE, b"x" * (LARGEST_IN_BATCH + 1))
        await gate.reached()
        (await spool.enqueue(Mail.RETRY, BERT, b"small")).unwrap()
        (await jobs[0].save(Mail.RETRY)).unwrap()
        (await jobs[1].remove()).unwrap()
        (await jobs[2].release()).unwrap()
        assert await names_in(spool, Mail.SEND) == ["c"]
        gate.go()


async def test_two_batches_that_want_each_others_reserved_names_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """It is a mistake, and is told to one of them."""
    gate = Gate()
    async with (
        await make_spool(tmp_path / "spool", system_calls=gate) as spool,
        (await spool.reserve_name()).unwrap() as one,
        (await spool.reserve_name()).unwrap() as two,
        anyio.create_task_group() as tasks,
    ):
        gate.arm("write")
        tasks.start_soon(functools.partial(spool.enqueue_many, Mail.SEND, [(ANNE, b"x")], names=[Use(one)]))
        await gate.reached()
        with pytest.raises(RuntimeError, match="being used"):
            await spool.enqueue_many(Mail.SEND, [(ANNE, b"")] * 2, names=[Use(two), Use(one)])
        gate.go()


async def test_a_name_that_is_no_way_to_say_one_is_refused(place: Location) -> None:
    """A plain string is not, and the error says what is."""
    async with await quick_spool(place) as spool:
        with pytest.raises(TypeError, match="Use"):
            await spool.enqueue_many(Mail.SEND, [(ANNE, b"")], names=["a"])  # type: ignore[list-item]
        with pytest.raises(TypeError, match="Use"):
            await spool.enqueue(Mail.SEND, ANNE, b"", name="a")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="not more"):
            await spool.enqueue_many(Mail.SEND, [(ANNE, b"")], names=itertools.repeat(Reserve(None)))

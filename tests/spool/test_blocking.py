"""`trio_multispool.blocking`: the same as the async spool, for threads; and that nothing of it is there unasked."""

from __future__ import annotations

import contextvars
import itertools
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, BinaryIO

import anyio
import anyio.to_thread
import pytest
import sniffio

from helpers.calls import FailingCalls
from helpers.gates import Gates, let_go_at_last, until
from helpers.processes import run_python
from helpers.spools import ANNE, BERT, MAIL, Mail, is_url, load_spool, names_in, quick_spool, state_of, unsynced
from helpers.syscalls import words_of
from trio_multispool import (
    Cancelled,
    DirectoryNotEmpty,
    EncodingFailed,
    Entry,
    EntryNotFound,
    Err,
    Found,
    InvalidName,
    NameTaken,
    NoData,
    NotAdopted,
    NotASpool,
    Ok,
    OutOfSpace,
    Spool,
    Spoolable,
    State,
    UnreadErrWarning,
    Use,
    blocking,
)
from trio_multispool.spool.spool import session_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from helpers.spools import Location

MANY = 64


def quick(
    place: Location, spoolable: Spoolable[Any, Any, Any, Any] = MAIL, **options: Any
) -> blocking.Spool[Any, Any, Any]:
    """Create a spool that does not take the time to sync."""
    return blocking.Spool.create(place, spoolable, **{**unsynced(place), **options}).unwrap()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Say where the spool is to be."""
    return tmp_path / "spool"


@pytest.fixture
def spool(place: Location) -> Iterator[blocking.Spool[Any, Any, Any]]:
    """Open one for the length of a test."""
    with quick(place) as made:
        yield made


def inside_of(spool: blocking.Spool[Any, Any, Any]) -> Any:
    """Return the session of the async spool that does the work."""
    return session_of(spool._opened[1])


# The same as the async one


OPERATIONS: list[Callable[[Any], Any]] = [
    lambda spool: spool.enqueue(Mail.SEND, ANNE, b"Hello", name=Use("a")),
    lambda spool: spool.enqueue(Mail.SEND, ANNE, b"Hello", name=Use("a")),
    lambda spool: spool.enqueue(Mail.FAILED, BERT, b"Hello", name=Use("a/b")),
    lambda spool: spool.enqueue(Mail.SEND, ANNE, "no bytes", name=Use("b")),
    lambda spool: spool.enqueue(Mail.SEND, ANNE, b"later", name=Use("later"), not_before=60),
    lambda spool: spool.enqueue("send", ANNE, b"Hello"),
    lambda spool: spool.enqueue(Mail.SEND, ANNE, b"Hello", not_before=-1),
    lambda spool: spool.enqueue_if_absent(Mail.SEND, ANNE, b"Hello", name=Use("a")),
    lambda spool: spool.enqueue_if_absent(Mail.FAILED, ANNE, b"Hello", name=Use("c")),
    lambda spool: spool.enqueue_if_absent(Mail.FAILED, ANNE, b"Hello", name="d"),
    lambda spool: spool.enqueue_many(Mail.SEND, [(ANNE, b"1"), (BERT, b"2")], names=[Use("e"), Use("a")]),
    lambda spool: spool.enqueue_many(Mail.SEND, [(ANNE, b"1"), (BERT, b"2")], names=[Use("f")]),
    lambda spool: spool.enqueue_many(Mail.SEND, []),
    lambda spool: spool.entries(Mail.SEND),
    lambda spool: spool.entries(Mail.SEND, after="a", at_most=1),
    lambda spool: spool.entries(Mail.SEND, at_most=0),
]


def plain(answer: Any) -> Any:
    """Return an answer without what differs from one spool to the other."""
    match answer:
        case Ok(value):
            return Ok(plain(value))
        case list():
            return [plain(each) for each in answer]
        case Entry():
            return (answer.queue, answer.name)
        case Err(error):
            return (type(error), str(error))
        case _:
            return answer


async def awaited(place: Location, operations: list[Callable[[Any], Any]]) -> list[Any]:
    """Return what the async spool makes of the operations."""
    found: list[Any] = []
    async with await quick_spool(place) as spool:
        for operation in operations:
            try:
                found.append(plain(await operation(spool)))
            except (TypeError, ValueError) as error:
                found.append((type(error), str(error)))
    return found


@pytest.mark.sample
def test_every_answer_and_every_exception_is_that_of_the_async_spool(spool, tmp_path):
    """Values, errors and what misuse raises: the one is a front of the other."""
    found: list[Any] = []
    for operation in OPERATIONS:
        try:
            found.append(plain(operation(spool)))
        except (TypeError, ValueError) as error:
            found.append((type(error), str(error)))
    assert found == anyio.run(awaited, tmp_path / "other", OPERATIONS)
    kinds = {each[0] for each in found if isinstance(each, tuple)}
    assert kinds == {NameTaken, InvalidName, EncodingFailed, TypeError, ValueError}


def test_what_one_enqueues_the_other_finds(spool, place):
    """It is one directory, and entries are equal."""
    entry = spool.enqueue(Mail.SEND, ANNE, b"Hello").unwrap()
    assert spool.entries(Mail.SEND) == Ok([entry])

    async def look() -> None:
        async with await load_spool(place) as other:
            assert (await other.entries(Mail.SEND)).unwrap() == [entry]

    anyio.run(look)
    assert state_of(place).data == {entry.name: b"Hello"}


def test_entries_belong_to_the_spool_that_gave_them(spool):
    """`entry.spool` is the one that does not need to be awaited, whichever call gave the entry."""
    entries = [
        spool.enqueue(Mail.SEND, ANNE, b"").unwrap(),
        spool.enqueue_if_absent(Mail.SEND, ANNE, b"", name=Use("key")).unwrap(),
        *(answer.unwrap() for answer in spool.enqueue_many(Mail.SEND, [(ANNE, b"")])),
    ]
    assert sorted(entry.name for entry in entries) == [entry.name for entry in spool.entries(Mail.SEND).unwrap()]
    assert all(entry.spool is spool for entry in [*entries, *spool.entries(Mail.SEND).unwrap()])


def test_entries_without_data_are_enqueued_with_metadata_alone(place):
    """As in a spool that is awaited."""
    with quick(place, Spoolable(Mail, str)) as spool:
        assert isinstance(spool.spoolable.data, NoData)
        names = [spool.enqueue(Mail.SEND, "one").unwrap().name]
        names += [answer.unwrap().name for answer in spool.enqueue_many(Mail.SEND, ["two", "three"])]
        found = spool.enqueue_if_absent(Mail.SEND, "four", name=Use("z")).unwrap()
        assert found is not None
        assert [entry.name for entry in spool.entries(Mail.SEND).unwrap()] == [*names, "z"]


def test_opening_answers_what_is_wrong(tmp_path):
    """Nothing there, or something else there: an `Err`, as ever."""
    assert isinstance(blocking.Spool.load(tmp_path / "none", MAIL).error, NotASpool)
    (tmp_path / "file").touch()
    assert isinstance(blocking.Spool.create(tmp_path, MAIL).error, DirectoryNotEmpty)
    made = blocking.Spool.load(tmp_path / "none", MAIL, create_if_missing=True, directory_mode=0o750).unwrap()
    assert made.path.stat().st_mode & 0o777 == 0o750
    shared = quick(tmp_path / "other", adopted=False)
    assert isinstance(shared.enqueue(Mail.SEND, ANNE, b"", not_before=60).error, NotAdopted)


def test_trouble_of_the_disk_is_an_err(path):
    """And the next call works."""
    calls = FailingCalls()
    with quick(path, system_calls=calls) as spool:
        with calls.failing("write", 28):
            assert isinstance(spool.enqueue(Mail.SEND, ANNE, b"Hello").error, OutOfSpace)
        assert isinstance(spool.enqueue(Mail.SEND, ANNE, b"Hello"), Ok)
    assert len(state_of(path).entries()) == 1
    assert state_of(path).faults() == []


def test_a_spool_says_what_and_where_it_is(spool, place):
    """For logs, and for other processes."""
    assert (spool.location, spool.spoolable) == (str(place), MAIL)
    assert is_url(place) or spool.path == place
    assert repr(spool) == f"<blocking.Spool {place}, {MAIL!r}>"
    spool.close()
    assert repr(spool) == f"<blocking.Spool {place}, {MAIL!r}, closed>"
    assert spool.location == str(place)


def test_the_class_is_not_called():
    """What newcomers write is answered with what to write."""
    with pytest.raises(TypeError, match=re.escape("blocking.Spool.create(path, spoolable)")):
        blocking.Spool("mail", MAIL)


def test_a_closed_spool_is_not_used(place):
    """Leaving its block closes it; closing it again does nothing."""
    with quick(place) as spool:
        spool.enqueue(Mail.SEND, ANNE, b"").unwrap()
    spool.close()
    with pytest.raises(anyio.ClosedResourceError, match=re.escape(f"{place} has been closed")):
        spool.entries(Mail.SEND)


# Threads


def test_of_many_threads_each_entry_is_there_once(spool, place):
    """Any number of threads may use one spool."""
    together = threading.Barrier(MANY)

    def enqueue(number: int) -> str:
        together.wait()
        return spool.enqueue(Mail.SEND, ANNE, b"%d" % number).unwrap().name

    with ThreadPoolExecutor(MANY) as threads:
        names = list(threads.map(enqueue, range(MANY)))
    state = state_of(place)
    assert {name: state.data[name] for name in names} == {name: b"%d" % n for n, name in enumerate(names)}
    assert state.names("send") == sorted(names)
    assert state.faults() == []


class Counted(Gates):
    """Gates that count how often the queue is synced."""

    syncs = 0

    def around(self, call: str, arguments: tuple[Any, ...], perform: Callable[[], Any]) -> Any:
        """Count."""
        self.syncs += words_of(call, arguments) == "sync send"
        return super().around(call, arguments, perform)


def test_calls_of_several_threads_share_their_commits(path):
    """What comes while one is under way goes together: the queue is synced twice, and not once for each."""
    calls = Counted()
    with quick(path, system_calls=calls) as spool, ThreadPoolExecutor(MANY) as threads:
        held = calls.hold("move")
        before = calls.syncs
        with let_go_at_last(held):
            first = threads.submit(spool.enqueue, Mail.SEND, ANNE, b"")
            anyio.run(held.reached)
            others = [threads.submit(spool.enqueue, Mail.SEND, ANNE, b"") for _ in range(MANY - 1)]
            anyio.run(until, lambda: len(inside_of(spool).enqueuings._pending) == MANY - 1)
        names = {future.result().unwrap().name for future in [first, *others]}
        assert calls.syncs - before == 2
    assert state_of(path).entries() == names


def test_a_spool_may_be_closed_while_other_threads_use_it(path):
    """Calls that are under way end as ever; later ones are refused."""
    calls = Gates()
    spool = quick(path, system_calls=calls)
    held = calls.hold("move")
    with let_go_at_last(held), ThreadPoolExecutor(1) as threads:
        call = threads.submit(spool.enqueue, Mail.SEND, ANNE, b"")
        anyio.run(held.reached)
        spool.close()
        with pytest.raises(anyio.ClosedResourceError):
            spool.enqueue(Mail.SEND, ANNE, b"")
        held.go()
        name = call.result().unwrap().name
    assert state_of(path).names("send") == [name]
    assert state_of(path).faults() == []


def test_iterators_run_in_the_thread_that_calls(spool):
    """A query of a database belongs to its thread; and the loop must not wait for it."""
    threads: list[threading.Thread] = []

    def noted(iterator: Iterator[Any]) -> Iterator[Any]:
        for each in iterator:
            threads.append(threading.current_thread())
            yield each

    names = noted(Use(f"n{number}") for number in itertools.count())  # without end: what is not needed is not asked for
    items = noted(iter([(ANNE, b"1"), (BERT, b"2")]))
    with pytest.raises(ValueError, match="want as many names"):
        spool.enqueue_many(Mail.SEND, items, names=names)
    assert threads == [threading.current_thread()] * 5


WHO = contextvars.ContextVar("WHO", default="nobody")


class Signed:
    """A codec that signs with what the caller's context says."""

    def dump(self, value: bytes, file: BinaryIO) -> None:
        """Write."""
        file.write(value + WHO.get().encode())

    def load(self, file: BinaryIO) -> bytes:
        """Read."""
        return file.read()


def test_a_call_has_the_context_of_its_caller(place):
    """So that what traces or logs by context variables goes on in it."""
    with quick(place, Spoolable(Mail, str, Signed())) as spool:
        token = WHO.set("anne")
        spool.enqueue(Mail.SEND, "", b"by ").unwrap()
        WHO.reset(token)
    assert [*state_of(place).data.values()] == [b"by anne"]


def test_a_context_that_names_another_async_library_does_no_harm(spool):
    """A thread may have been given the context of a task on Trio."""
    context = contextvars.copy_context()
    context.run(sniffio.current_async_library_cvar.set, "trio")
    assert isinstance(context.run(spool.enqueue, Mail.SEND, ANNE, b""), Ok)
    assert isinstance(context.run(spool.enqueue_many, Mail.SEND, [(ANNE, b"")])[0], Ok)


# Event loops


@pytest.mark.anyio
async def test_a_thread_that_runs_a_loop_is_refused_and_told_what_to_do(path):
    """A call would stop the loop. In a worker thread of that loop it works."""
    with pytest.raises(RuntimeError, match=r"await a `trio_multispool\.Spool` here, or .*to_thread\.run_sync"):
        blocking.Spool.create(path, MAIL)
    assert not path.exists()
    spool = await anyio.to_thread.run_sync(quick, path)
    with pytest.raises(RuntimeError, match="would stop the event loop"):
        spool.enqueue(Mail.SEND, ANNE, b"")
    entry = (await anyio.to_thread.run_sync(spool.enqueue, Mail.SEND, ANNE, b"")).unwrap()
    spool.close()  # that waits for nothing
    async with await load_spool(path) as other:
        assert await names_in(other, Mail.SEND) == [entry.name]


@pytest.mark.anyio
async def test_an_entry_of_it_is_not_awaited_elsewhere(place):
    """The operations of entries are async, and belong to the loop of the spool: they say so."""
    spool = await anyio.to_thread.run_sync(quick, place)
    entry = (await anyio.to_thread.run_sync(spool.enqueue, Mail.SEND, ANNE, b"")).unwrap()
    with pytest.raises(RuntimeError, match=r"open it there too, by `Spool\.load`"):
        await entry.stat()
    spool.close()


# Importing


@pytest.mark.program
def test_it_is_imported_by_who_asks_for_it():
    """Programs that await pay nothing for it."""
    done = run_python(
        """
        import trio_multispool
        print("trio_multispool.blocking" in sys.modules, "asyncio" in sys.modules)
        from trio_multispool import blocking
        print(blocking is trio_multispool.blocking, blocking.__all__)
    """,
        anew=True,
    )
    assert done.stdout.splitlines() == ["False False", "True ['Spool']"]


@pytest.mark.program
def test_importing_it_starts_no_thread():
    """One begins with the first call."""
    done = run_python(
        """
        import threading
        from trio_multispool import blocking
        print(threading.active_count())
    """,
        anew=True,
    )
    assert done.stdout.strip() == "1"


def test_one_loop_serves_all_spools(tmp_path):
    """However many a process opens."""

    def loops() -> int:
        return [thread.name for thread in threading.enumerate()].count("multispool loop")

    spools = [quick(tmp_path / str(number)) for number in range(3)]
    assert loops() == 1
    assert {type(spool._opened[1]) for spool in spools} == {Spool}
    for spool in spools:
        spool.close()


def test_an_entry_is_found_and_an_err_that_is_dropped_is_told_of_here(place):
    """The line is that of the call, not one of the loop's."""
    with blocking.Spool.create(place, MAIL).unwrap() as spool:
        entry = spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a")).unwrap()
        where = spool.find(entry.name).unwrap()
        assert isinstance(where, Found)
        assert (where.queue, where.state) == (Mail.SEND, State.AVAILABLE)
        assert spool.find("b").unwrap() is None
        with pytest.warns(UnreadErrWarning) as told:  # noqa: PT031  # two lines that are told
            spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a"))
            spool.find("a/b")
        assert [warning.filename for warning in told] == [__file__, __file__]


def test_what_nobody_has_is_cancelled_from_a_thread(place):
    """It is removed, and its data; errors are those of the operation, and an `Err` that is dropped is told of here."""
    with blocking.Spool.create(place, MAIL).unwrap() as spool:
        entry = spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a")).unwrap()
        assert spool.cancel(entry.name, reason="withdrawn") == Ok(Cancelled.REMOVED)
        assert spool.find("a").unwrap() is None
        assert spool.cancel("a") == Err(EntryNotFound("", "a"))
        with pytest.raises(TypeError, match="a reason is text for people"):
            spool.cancel("a", reason=None)  # type: ignore[arg-type]
        with pytest.warns(UnreadErrWarning) as told:
            spool.cancel("a")
        assert [warning.filename for warning in told] == [__file__]


async def test_what_a_task_works_on_is_cancelled_from_a_thread(place):
    """The one who has it is told, though another loop asked; the reason is seen until it is done."""
    async with await quick_spool(place) as theirs:
        entry = (await theirs.enqueue(Mail.SEND, ANNE, b"", name=Use("a"))).unwrap()

        def ask() -> object:
            with blocking.Spool.load(place, MAIL).unwrap() as spool:
                answer = spool.cancel("a", reason="withdrawn")
                where = spool.find("a").unwrap()
                assert isinstance(where, Found)
                assert where.cancellation is not None
                assert where.cancellation.reason == "withdrawn"
                return answer

        async with (await entry.checkout()).unwrap() as job:
            with anyio.CancelScope(shield=True):
                assert await anyio.to_thread.run_sync(ask) == Ok(Cancelled.ASKED)
            await anyio.sleep_forever()
        assert job.cancel_requested
        assert await theirs.find("a") == Ok(None)

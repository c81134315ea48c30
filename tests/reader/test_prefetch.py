"""A pool's entries: several in a hop, ahead of need if asked, and back where they came from if not begun."""

from __future__ import annotations

import asyncio
import errno
import gc
import resource
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import msgspec
import pytest

from helpers.calls import FailingCalls
from helpers.gates import Gate, breathe
from helpers.inside import dequeuer_of, sizes_of_looks, waiters_of
from helpers.processes import run_python
from helpers.spools import MAIL, Envelope, Mail, make_spool, names_in, put, quick_spool, state_of
from trio_multispool import Err, Json, Ok, Release, Remove, Save, Spoolable, TooManyOpenFiles
from trio_multispool.reader.prefetch import Prefetcher
from trio_multispool.storage.directory.disk.locks import MOST_LOCKS_AT_A_TIME, locks_at_a_time

if TYPE_CHECKING:
    from helpers.spools import Location

pytestmark = pytest.mark.anyio

NAMES = [f"{number:02}" for number in range(12)]


def checked_out(spool: Any) -> list[str]:
    """Return the names of what is checked out of the queue, as they are on disk."""
    return sorted(state_of(spool.location).checked_out["send"])


async def until_checked_out(spool: Any, names: list[str]) -> None:
    """Wait until these are checked out, and see that it stays so."""
    while checked_out(spool) != names:
        await breathe()
    for _ in range(5):
        await breathe()
    assert checked_out(spool) == names


class Handler:
    """A handler that holds its entries until it is told to let them go."""

    def __init__(self, verdict: Any = Remove()) -> None:  # noqa: B008  # frozen
        """Begin with nothing handled."""
        self.begun: list[str] = []
        self._let_go: dict[str, anyio.Event] = {}
        self._verdict = verdict

    async def __call__(self, _metadata: Any, data: Any) -> Any:
        """Hold an entry."""
        self.begun.append(data.name)
        await self._of(data.name).wait()
        return self._verdict

    def _of(self, name: str) -> anyio.Event:
        return self._let_go.setdefault(name, anyio.Event())

    def let_go(self, *names: str) -> None:
        """Let these be done, also if they have not been begun."""
        for name in names:
            self._of(name).set()

    async def has_begun(self, *names: str) -> None:
        """Wait until these have been begun."""
        while sorted(self.begun) != sorted(names):
            await breathe()


# Several in a hop


async def test_those_who_ask_at_the_same_time_have_their_entries_from_one_hop(tmp_path: Path) -> None:
    """Eight handlers that wait for an entry while a hop is under way have theirs together, in order."""
    gate = Gate()
    async with await make_spool(tmp_path / "spool", system_calls=gate) as spool:
        await put(spool, Mail.SEND, *NAMES)
        handler = Handler()
        async with spool.reader(Mail.SEND) as reader, anyio.create_task_group() as tasks:
            sizes = sizes_of_looks(reader)
            gate.arm("lock")

            async def read() -> None:
                assert await reader.iter_available(handler, concurrency=8) == Ok(None)

            tasks.start_soon(read)
            await gate.reached()
            for _ in range(5):
                await breathe()
            gate.go()
            await handler.has_begun(*NAMES[:8])
            assert sizes == [8]
            handler.let_go(*NAMES)
        assert sorted(handler.begun[:8]) == NAMES[:8]
        assert await names_in(spool, Mail.SEND) == []


def test_no_more_is_taken_in_one_go_than_the_process_can_spare_descriptors(anyio_backend: str, tmp_path: Path) -> None:
    """With 64 descriptors, eight at a time; those who get none have theirs from the next hop.

    In a process that has nothing else open.
    """
    run_python(
        """
        import pathlib, resource
        import anyio
        from helpers.spools import Mail, put, quick_spool
        sys.path.append(sys.argv[3])
        from helpers.inside import sizes_of_looks
        from test_prefetch import NAMES, Handler

        async def work_twelve(path):
            async with await quick_spool(path) as spool:
                await put(spool, Mail.SEND, *NAMES)
                handler = Handler()
                async with spool.reader(Mail.SEND) as reader, anyio.create_task_group() as tasks:
                    sizes = sizes_of_looks(reader)
                    resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

                    async def read():
                        (await reader.iter_available(handler, concurrency=12)).unwrap()

                    tasks.start_soon(read)
                    await handler.has_begun(*NAMES)
                    assert max(sizes) <= 8, sizes
                    handler.let_go(*NAMES)

        anyio.run(work_twelve, pathlib.Path(sys.argv[2]), backend=sys.argv[1])
        """,
        anyio_backend,
        tmp_path / "spool",
        Path(__file__).parent,
    )


@pytest.mark.parametrize(("limit", "locks"), [(4, 1), (512, 64), (4096, MOST_LOCKS_AT_A_TIME)])
async def test_an_eighth_of_the_descriptors_are_locks_in_one_go(limit: int, locks: int) -> None:
    """At least one, and at most so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        found = locks_at_a_time()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found == locks


async def test_trouble_in_the_middle_of_a_hop_leaves_what_was_had(tmp_path: Path) -> None:
    """The two entries that were checked out are worked, and the trouble is met again, and told, by the next hop."""
    calls = FailingCalls()
    async with await quick_spool(tmp_path / "spool", system_calls=calls) as spool:
        await put(spool, Mail.SEND, *NAMES[:4])
        handler = Handler()
        handler.let_go(*NAMES)
        async with spool.reader(Mail.SEND) as reader:
            with calls.failing("open", errno.EMFILE, ".registry/02"):
                answer = await reader.iter_available(handler, concurrency=4)
        assert isinstance(answer, Err)
        assert isinstance(answer.error, TooManyOpenFiles)
        assert sorted(handler.begun)[:2] == NAMES[:2]
        # While one hop is in trouble with 02, another may have 03: which is begun first is for the machine to say.
        assert set(handler.begun) <= {*NAMES[:2], "03"}
        state = state_of(spool.location)
        assert set(state.names("send")) >= set(NAMES[2:4]) - set(handler.begun)
        assert not any(state.checked_out.values())


class _OutOfMemory(Json[Envelope]):
    """Runs out of memory at one entry."""

    def decode(self, raw: bytes) -> Envelope:
        """Decode any other."""
        envelope = super().decode(raw)
        if envelope.recipient == "02":
            raise MemoryError
        return envelope


@pytest.mark.parametrize(("concurrency", "prefetch"), [(4, 0), (1, 3)])
async def test_what_a_codec_raises_in_a_hop_ends_the_iteration_and_takes_the_hop_back(
    concurrency: int, prefetch: int, place: Location
) -> None:
    """Bare with one handler, in a group with more; nothing of that hop is checked out, and the order stays."""
    spoolable = Spoolable(queues=Mail, metadata=_OutOfMemory(Envelope), data=bytes)
    async with await quick_spool(place) as spool:
        await put(spool, Mail.SEND, *NAMES[:5])
    async with await quick_spool(place, spoolable) as spool:
        handler = Handler()
        async with spool.reader(Mail.SEND) as reader:
            with pytest.raises(MemoryError if concurrency == 1 else ExceptionGroup) as raised:
                await reader.iter(handler, concurrency=concurrency, prefetch=prefetch)
            if isinstance(raised.value, ExceptionGroup):
                assert [type(error) for error in raised.value.exceptions] == [MemoryError]
            assert checked_out(spool) == []
            assert await names_in(spool, Mail.SEND) == NAMES[:5]


# Ahead of need


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_so_many_more_are_checked_out_ahead(concurrency: int, place: Location) -> None:
    """No more and no fewer; and when half of them are gone, as many are fetched again, in one hop."""
    async with await quick_spool(place) as spool:
        await put(spool, Mail.SEND, *NAMES)
        handler = Handler()
        async with spool.reader(Mail.SEND) as reader, anyio.create_task_group() as tasks:

            async def read() -> None:
                (await reader.iter_available(handler, concurrency=concurrency, prefetch=4)).unwrap()

            tasks.start_soon(read)
            await handler.has_begun(*NAMES[:concurrency])
            await until_checked_out(spool, NAMES[: concurrency + 4])
            sizes = sizes_of_looks(reader)
            handler.let_go("00")
            await handler.has_begun(*NAMES[: concurrency + 1])
            await until_checked_out(spool, NAMES[1 : concurrency + 4])
            assert sizes == []
            handler.let_go("01")
            await handler.has_begun(*NAMES[: concurrency + 2])
            await until_checked_out(spool, NAMES[2 : concurrency + 6])
            assert sizes == [2]
            handler.let_go(*NAMES)
        assert sorted(handler.begun) == NAMES
        assert state_of(spool.location).entries() == set()


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_stop_returns_what_was_not_begun_at_once(concurrency: int, place: Location) -> None:
    """While handlers go on with what they have."""
    async with await quick_spool(place) as spool:
        await put(spool, Mail.SEND, *NAMES)
        handler = Handler(Save(Mail.RETRY))
        async with spool.reader(Mail.SEND) as reader, anyio.create_task_group() as tasks:

            async def read() -> None:
                assert await reader.iter(handler, concurrency=concurrency, prefetch=5) == Ok(None)

            tasks.start_soon(read)
            await handler.has_begun(*NAMES[:concurrency])
            await until_checked_out(spool, NAMES[: concurrency + 5])
            reader.stop()
            await until_checked_out(spool, NAMES[:concurrency])
            assert await names_in(spool, Mail.SEND) == NAMES[concurrency:]
            handler.let_go(*NAMES)
        assert await names_in(spool, Mail.RETRY) == NAMES[:concurrency]
        assert state_of(spool.location).faults() == []


@pytest.mark.parametrize("how", ["cancelled", "raised", "body raised", "drained"])
@pytest.mark.parametrize("concurrency", [1, 3])
async def test_however_an_iteration_ends_what_was_not_begun_is_back(
    how: str, concurrency: int, place: Location
) -> None:
    """Also while the reader is still open, unless it is the reader's block that ends."""
    async with await quick_spool(place) as spool:
        await put(spool, Mail.SEND, *NAMES)
        before = state_of(spool.location)
        begun, fail = Handler(), anyio.Event()

        async def handler(metadata: Any, data: Any) -> Any:
            await fail.wait() if data.name == "00" else await begun(metadata, data)
            raise LookupError("trouble")

        async def end(reader: Any, scope: anyio.CancelScope) -> None:
            await until_checked_out(spool, NAMES[: concurrency + 4])
            match how:
                case "cancelled":
                    scope.cancel()
                case "raised":
                    fail.set()
                case "drained":
                    reader.drain(0)
                case _:
                    raise LookupError("trouble")

        async def read() -> None:
            async with spool.reader(Mail.SEND) as reader, anyio.create_task_group() as tasks:
                with anyio.CancelScope() as scope:
                    tasks.start_soon(end, reader, scope)
                    await reader.iter(handler, concurrency=concurrency, prefetch=4)
                assert checked_out(spool) == []

        if how in ("raised", "body raised"):
            with pytest.raises(ExceptionGroup) as raised:
                await read()
            error = raised.value.exceptions[0]
            assert isinstance(error, ExceptionGroup if how == "raised" and concurrency > 1 else LookupError)
        else:
            await read()
        assert state_of(spool.location) == before


@pytest.mark.parametrize(("concurrency", "prefetch"), [(1, 4), (3, 0), (3, 4)])
async def test_going_over_what_is_there_gives_nothing_twice(concurrency: int, prefetch: int, place: Location) -> None:
    """Entries that come back to the queue meanwhile are left for the next time."""
    async with await quick_spool(place) as spool:
        await put(spool, Mail.SEND, *NAMES)
        handler = Handler(Release())
        handler.let_go(*NAMES)
        async with spool.reader(Mail.SEND) as reader:
            assert await reader.iter_available(handler, concurrency=concurrency, prefetch=prefetch) == Ok(None)
        assert sorted(handler.begun) == NAMES
        assert await names_in(spool, Mail.SEND) == NAMES


async def test_trouble_while_fetching_ahead_does_not_end_the_work_in_hand(tmp_path: Path) -> None:
    """It is told when somebody asks for more and it lasts; if it has gone by then, nobody hears of it."""
    calls = FailingCalls()
    async with await quick_spool(tmp_path / "spool", system_calls=calls) as spool:
        await put(spool, Mail.SEND, *NAMES[:6])
        handler = Handler()
        async with spool.reader(Mail.SEND) as reader, anyio.create_task_group() as tasks:
            with calls.failing("open", errno.EMFILE, ".registry/01") as fault:

                async def read() -> None:
                    assert await reader.iter_available(handler, prefetch=4) == Ok(None)

                tasks.start_soon(read)
                await handler.has_begun("00")
                while not fault.met:
                    await breathe()
                await until_checked_out(spool, ["00"])
            handler.let_go(*NAMES)
        assert handler.begun == NAMES[:6]


@pytest.mark.sample
async def test_a_pool_that_waits_has_what_comes_later(place: Location) -> None:
    """With an empty queue, all wait; entries that come are worked, up to the number of handlers and those ahead."""
    async with await quick_spool(place) as spool:
        handler = Handler()
        async with spool.reader(Mail.SEND) as reader, anyio.create_task_group() as tasks:

            async def read() -> None:
                assert await reader.iter(handler, concurrency=2, prefetch=2) == Ok(None)

            tasks.start_soon(read)
            while not waiters_of(spool):
                await breathe()
            await put(spool, Mail.SEND, *NAMES[:6])
            await handler.has_begun(*NAMES[:2])
            await until_checked_out(spool, NAMES[:4])
            handler.let_go(*NAMES)
            await handler.has_begun(*NAMES[:6])
            reader.stop()
        assert state_of(spool.location).entries() == set()


async def test_an_iteration_whose_reader_another_task_leaves_is_told_so(place: Location) -> None:
    """Its handlers are cancelled, and what they had is back before the block ends; then it finds the reader closed."""
    async with await quick_spool(place) as spool:
        await put(spool, Mail.SEND, "00")
        handler = Handler()
        told: list[BaseException] = []

        async def read(reader: Any) -> None:
            try:
                await reader.iter(handler, concurrency=2, prefetch=2)
            except anyio.ClosedResourceError as error:
                told.append(error)

        async with anyio.create_task_group() as tasks:
            async with spool.reader(Mail.SEND) as reader:
                tasks.start_soon(read, reader)
                await handler.has_begun("00")
                while not waiters_of(spool):
                    await breathe()
            assert checked_out(spool) == []
            assert await names_in(spool, Mail.SEND) == ["00"]
        assert len(told) == 1


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_what_a_handler_raises_while_it_is_cancelled_is_not_hidden(concurrency: int, place: Location) -> None:
    """Its entry is back, and the exception passes through the cancelled scope."""
    async with await quick_spool(place) as spool:
        await put(spool, Mail.SEND, "00")
        error = LookupError("tidying up")

        async def handler(_metadata: Any, _data: Any) -> Any:
            scope.cancel()
            try:
                await anyio.sleep_forever()
            finally:
                raise error

        async def read() -> None:
            async with spool.reader(Mail.SEND) as reader:
                await reader.iter(handler, concurrency=concurrency, prefetch=1)

        with pytest.raises((LookupError, ExceptionGroup)) as raised, anyio.CancelScope() as scope:
            await read()
        found = raised.value
        assert (found.exceptions == (error,)) if isinstance(found, ExceptionGroup) else (found is error)
        assert isinstance(found, ExceptionGroup) == (concurrency > 1)
        assert await names_in(spool, Mail.SEND) == ["00"]


@pytest.mark.parametrize("in_hand", [True, False])
async def test_what_a_readers_block_raises_is_not_hidden_by_a_cancelled_scope(in_hand: bool, place: Location) -> None:
    """Also if it leaves an entry to be returned."""
    async with await quick_spool(place) as spool:
        await put(spool, Mail.SEND, "00")
        error = LookupError("body")

        async def read() -> None:
            async with spool.reader(Mail.SEND) as reader:
                if in_hand:
                    (await reader.dequeue()).unwrap()
                scope.cancel()
                raise error

        with pytest.raises(LookupError) as raised, anyio.CancelScope() as scope:
            await read()
        assert raised.value is error
        assert await names_in(spool, Mail.SEND) == ["00"]


@pytest.mark.parametrize("how", ["dequeue", "iter"])
async def test_closing_the_spool_ends_the_waits_of_its_readers(how: str, place: Location) -> None:
    """At once, and not when they next look."""
    async with await quick_spool(place) as spool:
        told: list[BaseException] = []

        async def read() -> None:
            try:
                async with spool.reader(Mail.SEND, poll_interval=3600) as reader:
                    await (reader.dequeue() if how == "dequeue" else reader.iter(Handler()))
            except anyio.ClosedResourceError as error:
                told.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            while not waiters_of(spool):
                await breathe()
            spool.close()
        assert len(told) == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_pool_whose_tasks_are_all_cancelled_before_they_begin_ends(anyio_backend: str, place: Location) -> None:
    """As a program does that cancels whatever runs; the reader does not wait for a task that will never be."""
    async with await quick_spool(place) as spool:
        await put(spool, Mail.SEND, *NAMES)
        entered, go = asyncio.Event(), asyncio.Event()

        async def read() -> None:
            async with spool.reader(Mail.SEND) as reader:
                entered.set()
                await go.wait()
                await reader.iter(Handler(), concurrency=2)

        others = asyncio.all_tasks()
        reading = asyncio.ensure_future(read())
        await entered.wait()
        go.set()
        await asyncio.sleep(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # asyncio's: coroutines that were never begun
            for task in asyncio.all_tasks() - others:
                task.cancel()
            await asyncio.wait([reading])
            assert reading.cancelled()
            del task, reading
            gc.collect()
        assert await names_in(spool, Mail.SEND) == NAMES


@pytest.mark.parametrize("what", ["iter", "iter_available"])
async def test_fewer_than_none_cannot_be_fetched_ahead(what: str, place: Location) -> None:
    """`ValueError`, and nothing is touched."""
    async with await quick_spool(place) as spool:
        await put(spool, Mail.SEND, "00")
        async with spool.reader(Mail.SEND) as reader:
            with pytest.raises(ValueError, match="prefetch"):
                await getattr(reader, what)(Handler(), prefetch=-1)
        assert await names_in(spool, Mail.SEND) == ["00"]


async def test_metadata_that_is_set_aside_in_the_middle_of_a_hop_does_not_keep_the_others(tmp_path: Path) -> None:
    """The entry is in quarantine, and all others are worked."""
    async with await quick_spool(tmp_path / "spool", MAIL) as spool:
        await put(spool, Mail.SEND, *NAMES[:5])
        (tmp_path / "spool" / "send" / "02").write_bytes(msgspec.json.encode(["no", "envelope"]))
        handler = Handler()
        handler.let_go(*NAMES)
        async with spool.reader(Mail.SEND) as reader:
            assert await reader.iter_available(handler, concurrency=4, prefetch=2) == Ok(None)
        assert sorted(handler.begun) == ["00", "01", "03", "04"]
        assert list(state_of(spool.location).quarantined["send"]) == ["02"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("then", ["another asks", "nobody asks"])
async def test_what_was_given_to_a_task_that_is_cancelled_in_the_same_turn_is_for_others(
    anyio_backend: str, then: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes to the next one that asks, or is back when the iteration is over, though the reader is still open."""
    async with await quick_spool(tmp_path / "spool") as spool, spool.reader(Mail.SEND) as reader:
        await put(spool, Mail.SEND, "1")
        async with Prefetcher(dequeuer_of(reader), 0, wait=False) as supply:
            hand_out = supply._hand_out
            asking = asyncio.ensure_future(supply.next())

            def hand_out_and_cancel(answer: Any) -> None:
                hand_out(answer)
                assert asking.cancel()

            with monkeypatch.context() as patched:
                patched.setattr(Prefetcher, "_hand_out", lambda _supply, answer: hand_out_and_cancel(answer))
                with pytest.raises(asyncio.CancelledError):
                    await asking
            assert checked_out(spool) == ["1"]
            if then == "another asks":
                job = (await supply.next()).unwrap()
                assert job is not None
                (await job.remove()).unwrap()
        state = state_of(spool.location)
        assert (state.names("send"), state.checked_out["send"]) == (["1"] if then == "nobody asks" else [], {})

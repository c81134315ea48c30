"""The next entry of an iteration, checked out in the hop that settled the one before it: what users may rely on.

Each test goes through a place where the two are one hop, and where something comes between them.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from helpers.calls import FailingCalls
from helpers.gates import Gates, breathe
from helpers.inside import dequeuer_of, sizes_of_looks
from helpers.spools import Envelope, Mail, names_in, put, quick_spool, state_of
from trio_multispool import (
    CheckedOutEntry,
    Err,
    Json,
    Ok,
    Release,
    Remove,
    Save,
    Spoolable,
    StorageFailure,
    TooManyOpenFiles,
)
from trio_multispool.reader import dequeue
from trio_multispool.reader.pool import Jobs
from trio_multispool.storage.directory.store import DirectoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from helpers.spools import Location

pytestmark = pytest.mark.anyio

NAMES = ["0", "1", "2", "3", "4"]


@pytest.fixture(autouse=True)
def _no_recovery_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is: then the next look would be an ordinary one."""
    monkeypatch.setattr(dequeue, "RECOVERY_INTERVAL", 3600.0)


def checked_out(path: Path) -> list[str]:
    """Return what is checked out, as it is on disk."""
    return sorted(state_of(path).checked_out["send"])


class Handled:
    """A handler that notes what it had, and answers as it is told."""

    def __init__(self, verdict: Callable[[str], Any] = lambda _name: Remove()) -> None:
        """Begin with nothing."""
        self.names: list[str] = []
        self._verdict = verdict

    async def __call__(self, _metadata: Any, data: Any) -> Any:
        """Note the entry."""
        self.names.append(data.name)
        return self._verdict(data.name)


@pytest.mark.parametrize("verdict", [Remove(), Save(Mail.RETRY)])
async def test_one_look_is_enough_for_a_whole_listing(verdict: Any, place: Location) -> None:
    """The first entry comes from it, each other one from the settlement before, in order; a second finds no more."""
    async with await quick_spool(place) as spool:
        await put(spool, Mail.SEND, *NAMES)
        handled = Handled(lambda _name: verdict)
        async with spool.reader(Mail.SEND) as reader:
            found = sizes_of_looks(reader)
            assert await reader.iter_available(handled) == Ok(None)
        assert handled.names == NAMES
        assert found == [1, 0]
        assert checked_out(spool.location) == []


@pytest.mark.sample
async def test_what_is_released_does_not_come_round_in_the_same_pass(place: Location) -> None:
    """Though it is in the queue again when the next one is checked out."""
    async with await quick_spool(place) as spool:
        await put(spool, Mail.SEND, *NAMES)
        handled = Handled(lambda _name: Release())
        async with spool.reader(Mail.SEND) as reader:
            assert await reader.iter_available(handled) == Ok(None)
        assert handled.names == NAMES
        assert await names_in(spool, Mail.SEND) == NAMES


async def test_no_more_is_in_hand_than_there_are_handlers(place: Location) -> None:
    """One is settled and one is checked out: two of two, again and again."""
    most = 0
    async with await quick_spool(place) as spool:
        await put(spool, Mail.SEND, *NAMES)

        def count(_name: str) -> Any:
            nonlocal most
            most = max(most, len(checked_out(spool.location)))
            return Remove()

        async with spool.reader(Mail.SEND) as reader:
            assert await reader.iter_available(Handled(count), concurrency=2) == Ok(None)
    assert most == 2


async def test_a_reader_that_was_stopped_takes_no_next_one(place: Location) -> None:
    """Not even in the hop that settles what its handler had."""
    async with await quick_spool(place) as spool:
        await put(spool, Mail.SEND, *NAMES)
        async with spool.reader(Mail.SEND) as reader:

            def stop(_name: str) -> Any:
                reader.stop()
                return Remove()

            handled = Handled(stop)
            assert await reader.iter(handled) == Ok(None)
            assert checked_out(spool.location) == [], "while the block is still open"
        assert handled.names == ["0"]
        assert await names_in(spool, Mail.SEND) == NAMES[1:]


async def test_recovery_is_not_put_off_by_a_long_listing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """When it is due, the next entry comes from an ordinary look, which recovers first."""
    recovered: list[str | None] = []
    recover = DirectoryStorage.recover

    def counting(self: DirectoryStorage, queue: str | None = None, *, insist: bool = True) -> Any:
        recovered.append(queue)
        return recover(self, queue, insist=insist)

    async with await quick_spool(tmp_path / "spool") as spool:
        await put(spool, Mail.SEND, *NAMES)
        monkeypatch.setattr(DirectoryStorage, "recover", counting)

        def due_from_the_third(name: str) -> Any:
            monkeypatch.setattr(dequeue, "RECOVERY_INTERVAL", 0.0 if name >= "2" else 3600.0)
            return Remove()

        async with spool.reader(Mail.SEND) as reader:
            found = sizes_of_looks(reader)
            assert await reader.iter_available(Handled(due_from_the_third)) == Ok(None)
        assert found == [1, 1, 1, 0]
        assert recovered == ["send"] * 4, "at each look but none between"


async def test_what_was_busy_or_gone_is_passed_over(place: Location) -> None:
    """The next that can be had is had, in the same hop."""
    async with await quick_spool(place) as spool, await quick_spool(place) as other:
        _ = await put(spool, Mail.SEND, *NAMES)
        async with other.reader(Mail.SEND) as elsewhere:
            job: CheckedOutEntry[Any, Any, Any] | None = None

            async def handle(_metadata: Any, data: Any) -> Any:
                nonlocal job
                handled.append(data.name)
                if data.name == "0":
                    job = (await elsewhere.dequeue_available()).unwrap()
                    assert job is not None
                    assert job.name == "1"
                    (await spool.entry(Mail.SEND, "2").unwrap().direct.remove()).unwrap()
                return Remove()

            handled: list[str] = []
            async with spool.reader(Mail.SEND) as reader:
                found = sizes_of_looks(reader)
                assert await reader.iter_available(handle) == Ok(None)
            assert handled == ["0", "3", "4"]
            assert found == [1, 0]


async def test_a_settlement_that_fails_takes_no_next_one(tmp_path: Path) -> None:
    """Its error is the answer, and everything is in the queue."""
    calls = FailingCalls()
    async with await quick_spool(tmp_path / "spool", system_calls=calls) as spool:
        await put(spool, Mail.SEND, *NAMES)
        async with spool.reader(Mail.SEND) as reader:
            with calls.failing("unlink", errno.EIO, "send/.checkout/0", times=5):
                answer = await reader.iter_available(Handled())
            assert isinstance(answer, Err)
            assert isinstance(answer.error, StorageFailure)
            assert checked_out(spool.location) == []
        assert await names_in(spool, Mail.SEND) == NAMES


async def test_trouble_with_the_next_one_is_no_trouble_of_the_settlement(tmp_path: Path) -> None:
    """The ordinary look that follows meets it, and answers; if it has passed by then, it is as if it had not been."""
    calls = FailingCalls()
    async with await quick_spool(tmp_path / "spool", system_calls=calls) as spool:
        await put(spool, Mail.SEND, *NAMES)
        handled = Handled()
        async with spool.reader(Mail.SEND) as reader:
            with calls.failing("open", errno.EMFILE, ".registry/1"):
                answer = await reader.iter_available(handled)
        assert isinstance(answer, Err)
        assert isinstance(answer.error, TooManyOpenFiles)
        assert handled.names == ["0"]
        assert await names_in(spool, Mail.SEND) == NAMES[1:]
        async with spool.reader(Mail.SEND) as reader:
            with calls.failing("open", errno.EMFILE, ".registry/2", times=1):
                assert await reader.iter_available(handled) == Ok(None)
        assert handled.names == NAMES


async def test_what_has_ended_claims_nothing_more(place: Location) -> None:
    """Neither by a failure, whose entry would come round at once, nor by a stop; and what was prepared does nothing."""
    async with await quick_spool(place) as spool:
        await put(spool, Mail.SEND, *NAMES)
        for ending in ("failure", "stop"):
            async with spool.reader(Mail.SEND) as reader:
                jobs: Jobs[Any, Any, Any] = Jobs(dequeuer_of(reader), wait=False)
                async with (await reader.dequeue_available()).unwrap():
                    claiming = jobs.then()
                    assert claiming is not None
                    _ = jobs.end() if ending == "failure" else reader.stop()
                    assert jobs.then() is None
                    claiming.carry_out(1)
                    assert checked_out(spool.location) == ["0"]
                    assert not jobs._claimed


class _OutOfMemory(Json[Envelope]):
    """Runs out of memory at one entry, so many times."""

    def __init__(self, times: int) -> None:
        """Begin."""
        super().__init__(Envelope)
        self._left = times

    def decode(self, raw: bytes) -> Envelope:
        """Decode any other."""
        envelope = super().decode(raw)
        if envelope.recipient == "1" and self._left:
            self._left -= 1
            raise MemoryError
        return envelope


@pytest.mark.parametrize("times", [1, 100])
@pytest.mark.parametrize("concurrency", [1, 2])
async def test_what_a_codec_raises_at_the_next_one_is_raised(concurrency: int, times: int, place: Location) -> None:
    """The one before is settled, and nothing is checked out."""
    async with await quick_spool(place) as spool:
        await put(spool, Mail.SEND, "0", "01", "1", "2")
    spoolable = Spoolable(queues=Mail, metadata=_OutOfMemory(times), data=bytes)
    async with await quick_spool(place, spoolable) as spool:
        async with spool.reader(Mail.SEND) as reader:
            with pytest.raises((MemoryError, ExceptionGroup)) as raised:
                await reader.iter_available(Handled(), concurrency=concurrency)
        if isinstance(raised.value, ExceptionGroup):
            assert [type(error) for error in raised.value.exceptions] == [MemoryError]
        assert checked_out(spool.location) == []
        left = set(state_of(spool.location).names("send"))
        assert "1" in left
        assert not left >= {"0", "01"}  # with two handlers, one may have had its entry in hand when the other failed


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_cancelled_iteration_returns_the_next_one(concurrency: int, tmp_path: Path) -> None:
    """Cancelled while the thread that has settled one checks out the next: the settlement stands, and that is all."""
    gates = Gates()
    async with await quick_spool(tmp_path / "spool", system_calls=gates) as spool:
        await put(spool, Mail.SEND, *NAMES)
        handled = Handled()
        async with spool.reader(Mail.SEND) as reader, anyio.create_task_group() as tasks:
            next_one = gates.hold("move", f"send/.checkout/{concurrency}", after=True)

            async def read() -> None:
                await reader.iter_available(handled, concurrency=concurrency)
                handled.names.append("never")

            tasks.start_soon(read)
            await next_one.reached()
            tasks.cancel_scope.cancel()
            next_one.go()
        assert "never" not in handled.names
        assert checked_out(spool.location) == []
        left = await names_in(spool, Mail.SEND)
        assert set(left) >= set(NAMES[concurrency:])
        assert len(left) < len(NAMES), "one was settled, or no hop would have checked out the next"


async def test_leaving_the_reader_returns_the_next_one(tmp_path: Path) -> None:
    """The block is left while another task's hop is checking out the next: it is back before the block has ended."""
    gates = Gates()
    async with await quick_spool(tmp_path / "spool", system_calls=gates) as spool:
        await put(spool, Mail.SEND, *NAMES)
        ended: list[str] = []
        async with anyio.create_task_group() as tasks, spool.reader(Mail.SEND) as reader:
            next_one = gates.hold("move", "send/.checkout/1", after=True)

            async def read() -> None:
                try:
                    await reader.iter_available(Handled())
                except anyio.ClosedResourceError:
                    ended.append("closed")

            tasks.start_soon(read)
            await next_one.reached()
            go_soon(next_one, tasks)
        assert ended == ["closed"]
        assert checked_out(spool.location) == []
        assert await names_in(spool, Mail.SEND) == NAMES[1:]


def go_soon(hold: Any, tasks: Any) -> None:
    """Let the call go when the block is being left: a moment later, in another task."""

    async def go() -> None:
        for _ in range(3):
            await breathe()
        hold.go()

    tasks.start_soon(go)


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_stop_that_comes_while_the_next_one_is_checked_out_returns_it(concurrency: int, tmp_path: Path) -> None:
    """It is not begun, and is back when the iteration has ended."""
    gates = Gates()
    async with await quick_spool(tmp_path / "spool", system_calls=gates) as spool:
        await put(spool, Mail.SEND, *NAMES)
        handled = Handled()
        async with spool.reader(Mail.SEND) as reader, anyio.create_task_group() as tasks:
            next_one = gates.hold("move", f"send/.checkout/{concurrency}", after=True)

            async def read() -> None:
                assert await reader.iter(handled, concurrency=concurrency) == Ok(None)
                assert checked_out(spool.location) == []

            tasks.start_soon(read)
            await next_one.reached()
            reader.stop()
            next_one.go()
        assert str(concurrency) not in handled.names
        assert await names_in(spool, Mail.SEND) == [name for name in NAMES if name not in handled.names]


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_spool_that_is_closed_meanwhile_hands_out_nothing(concurrency: int, tmp_path: Path) -> None:
    """What was checked out is let go: its lock is free, and recovery puts it back."""
    gates = Gates()
    spool = await quick_spool(tmp_path / "spool", system_calls=gates)
    await put(spool, Mail.SEND, *NAMES)
    handled, ended = Handled(), []
    next_one = gates.hold("move", f"send/.checkout/{concurrency}", after=True)

    async def read() -> None:
        async with spool.reader(Mail.SEND) as reader:
            try:
                await reader.iter(handled, concurrency=concurrency)
            except (anyio.ClosedResourceError, ExceptionGroup) as error:
                ended.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await next_one.reached()
        spool.close()
        next_one.go()
    [error] = ended
    for one in error.exceptions if isinstance(error, ExceptionGroup) else [error]:
        assert isinstance(one, anyio.ClosedResourceError)
    assert str(concurrency) not in handled.names
    async with await quick_spool(tmp_path / "spool") as again:
        assert await names_in(again, Mail.SEND) == [name for name in NAMES if name not in handled.names]

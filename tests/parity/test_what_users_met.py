"""What the original's users met, and must not meet here: one test each."""

from __future__ import annotations

import errno
import fcntl
import threading

import anyio
import anyio.lowlevel
import pytest
import trio
import trio.testing

from helpers.calls import FailingCalls
from helpers.processes import run_python
from helpers.results import is_err
from helpers.spools import Envelope, Mail, load_spool, names_in, put, quick_spool, state_of
from trio_multispool import DataFile, EntryBusy, Err, Ok, Remove

anyio_test = pytest.mark.anyio


async def remove(metadata: Envelope, data: DataFile[bytes]) -> Remove:
    """Remove the entry."""
    return Remove()


@anyio_test
async def test_an_exception_in_the_handler_strands_no_entry(tmp_path):
    """The entry is available again as soon as the exception has left, for this reader and for all others."""
    spool = await quick_spool(tmp_path / "spool")
    (entry,) = await put(spool, Mail.SEND, "a")

    async def failing(metadata: Envelope, data: DataFile[bytes]) -> Remove:
        raise LookupError

    for attempt in (
        lambda: spool.with_entry(entry, failing),
        lambda: spool.try_with_entry(entry, failing),
    ):
        with pytest.raises(LookupError):
            await attempt()
        assert await names_in(spool, Mail.SEND) == ["a"]
    with pytest.raises(LookupError):
        async with spool.reader(Mail.SEND) as reader:
            await reader.iter(failing)
    async with spool.reader(Mail.SEND) as reader:
        (await reader.iter_available(remove)).unwrap()
    assert state_of(spool.path).entries() == set()
    assert state_of(spool.path).faults() == []


@anyio_test
async def test_unreadable_metadata_strands_no_entry(tmp_path):
    """What cannot be decoded waits in quarantine with its reason; what cannot be read stays in its queue."""
    calls = FailingCalls()
    spool = await quick_spool(tmp_path / "spool", system_calls=calls)
    await put(spool, Mail.SEND, "a", "b", "c")
    (spool.path / "send" / "a").write_bytes(b"nonsense")
    with calls.failing("read", errno.EIO, "/send/b"):
        async with spool.reader(Mail.SEND) as reader:
            (await reader.iter_available(remove)).unwrap()
    state = state_of(spool.path)
    assert state.checked_out["send"] == {}
    assert state.quarantined == {"send": {"a": b"nonsense"}}
    assert state.reasons["a"]
    assert state.names("send") == ["b"]
    assert state.faults() == []


@anyio_test
async def test_a_dead_process_strands_no_entry(tmp_path):
    """A process that is killed with an entry in hand gives it back to whoever reads or loads next."""
    spool = await quick_spool(tmp_path / "spool")
    await put(spool, Mail.SEND, "a", "b")
    done = run_python(
        """
        import anyio, os, signal
        from helpers.spools import *
        async def main():
            spool = await load_spool(sys.argv[1])
            async with spool.reader(Mail.SEND) as reader:
                job = (await reader.dequeue()).unwrap()
                (await job.data.save(b"half done")).unwrap()
                os.kill(os.getpid(), signal.SIGKILL)
        anyio.run(main, backend="trio")
        """,
        spool.path,
        check=False,
    )
    assert done.returncode == -9, done.stderr
    assert state_of(spool.path).places("a") == ["send/.checkout"]
    async with spool.reader(Mail.SEND) as reader:
        assert [job.name async for job in reader.available()] == ["a", "b"]
    assert state_of(spool.path).faults() == []


@anyio_test
@pytest.mark.parametrize("how", ["settled", "direct"])
async def test_a_removal_never_leaves_an_entry_without_its_data(tmp_path, how):
    """Wherever a removal stops, the entry is there with its data, or is not there; recovery clears away the rest."""
    for step in range(20):
        calls = FailingCalls()
        spool = await quick_spool(tmp_path / str(step), system_calls=calls)
        (entry,) = await put(spool, Mail.SEND, "a")
        calls.fail("unlink", errno.EIO, skip=step)
        if how == "direct":
            answer = await entry.direct.remove()
        else:
            job = (await entry.checkout()).unwrap()
            answer = await job.remove()
            if not job.settled:
                (await job.release()).unwrap()
        state = state_of(spool.path)
        assert state.entries() <= state.data.keys()
        assert (state.entries() == {"a"}) == is_err(answer)
        finished = calls.faults[0].met <= step
        calls.mend()
        (await spool.recover()).unwrap()
        assert state_of(spool.path).faults() == []
        if finished:
            break
    assert step > 2


def test_a_reader_does_not_spin_on_an_entry_that_it_cannot_have(tmp_path):
    """However long it waits, it lists the queue once and then sleeps: on a clock that stands still, never again."""
    listings = threading.Semaphore(0)
    listed = []

    class Counting(FailingCalls):
        def regular_files(self, fd: int) -> list[str]:
            names = super().regular_files(fd)
            if "busy" in names:
                listed.append(names)
                listings.release()
            return names

    async def main() -> None:
        other = await quick_spool(tmp_path / "other")
        spool = await quick_spool(tmp_path / "spool", system_calls=Counting())
        await put(spool, Mail.SEND, "busy")
        with open(spool.path / ".registry" / "busy", "rb") as held:  # noqa: ASYNC230  # the test is alone
            fcntl.flock(held, fcntl.LOCK_EX)
            async with spool.reader(Mail.SEND) as reader, trio.open_nursery() as nursery:
                nursery.start_soon(reader.dequeue)
                await trio.to_thread.run_sync(listings.acquire)
                for _ in range(50):  # a spinning reader would list about as often as this task does
                    (await other.entries(Mail.SEND)).unwrap()
                assert len(listed) == 1
                nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock())


@anyio_test
async def test_a_file_without_reservation_is_handed_out_like_any_other(tmp_path):
    """What made the original's readers spin is an ordinary entry here."""
    spool = await quick_spool(tmp_path / "spool")
    (spool.path / "send" / "stray").write_bytes(b'{"recipient":"stray"}')
    async with spool.reader(Mail.SEND) as reader:
        async with (await reader.dequeue()).unwrap() as job:
            assert job.metadata == Envelope("stray")
            (await job.remove()).unwrap()
        assert await reader.dequeue_available() == Ok(None)
    assert state_of(spool.path).faults() == []


@anyio_test
async def test_what_is_in_motion_is_no_orphan(tmp_path):
    """Recovery beside producers and workers puts nothing of theirs back, and every one of their operations succeeds."""
    spool = await quick_spool(tmp_path / "spool")
    other = await load_spool(spool.path)
    found = []
    finished = anyio.Event()

    async def produce_and_consume(name: str) -> None:
        for number in range(10):
            entry = (await spool.enqueue(Mail.SEND, Envelope(f"{name}-{number}"), b"")).unwrap()
            async with await check_out(entry) as job:
                (await job.save(Mail.RETRY, Envelope("moved"))).unwrap()
            async with await check_out(spool.entry(Mail.RETRY, job.name).unwrap()) as job:
                (await job.remove()).unwrap()

    async def check_out(entry):
        while isinstance(answer := await entry.checkout(), Err):  # busy while recovery has its lock to look at it
            assert answer == Err(EntryBusy(entry.name))
        return answer.value

    async def look_after() -> None:
        while not finished.is_set():
            found.extend((await other.recover()).unwrap())
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look_after)
        async with anyio.create_task_group() as workers:
            for name in "abcd":
                workers.start_soon(produce_and_consume, name)
        finished.set()
    # A newborn reservation that is not locked yet may be collected; its enqueue then makes it again.
    assert [recovered for recovered in found if recovered.queue is not None] == []
    assert state_of(spool.path).entries() == set()
    assert state_of(spool.path).faults() == []


@anyio_test
async def test_an_acknowledged_enqueue_has_synced_its_directories(tmp_path):
    """`Ok` comes after the directories of data and of the queue were synced, and no later rename is unsynced."""
    calls = FailingCalls()
    spool = await quick_spool(tmp_path / "spool", system_calls=calls)
    calls.made.clear()
    await put(spool, Mail.SEND, "a")
    made = [(call, path.removeprefix(f"{spool.path}/")) for call, path in calls.made if call in ("sync", "move")]
    rename = next(at for at, (call, _) in enumerate(made) if call == "move")
    assert set(made[:rename]) >= {("sync", ".data/a"), ("sync", ".tmp/a"), ("sync", ".data")}
    assert made[rename + 1 :] == [("sync", "send")]


@anyio_test
async def test_readers_do_not_all_race_for_the_head_of_the_same_listing(tmp_path):
    """With eight workers of one reader on one listing, hardly any attempt finds that others were faster."""
    calls = FailingCalls()
    spool = await quick_spool(tmp_path / "spool", system_calls=calls)
    await put(spool, Mail.SEND, *(f"{number:02}" for number in range(40)))
    calls.made.clear()
    async with spool.reader(Mail.SEND) as reader:
        (await reader.iter_available(remove, concurrency=8)).unwrap()
    attempts = [path for call, path in calls.made if call == "open" and "/.registry/" in path]
    assert len(set(attempts)) == 40
    assert len(attempts) < 80, "with a listing for each, eight workers make up to 320 attempts"
    assert state_of(spool.path).entries() == set()

"""What jobs, reserved names, data and readers do when they are used from several sides at once, or in an odd order."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import msgspec
import pytest

from helpers.calls import FailingCalls
from helpers.gates import Gate
from helpers.inside import storage_of
from helpers.results import is_err
from helpers.spools import ANNE, MAIL, Envelope, Mail, load_spool, make_spool, put, state_of
from helpers.stores import available
from trio_multispool import (
    DataNotFound,
    Durability,
    EncodingFailed,
    Err,
    Ok,
    ReadOnlySpool,
    Remove,
    Save,
    Spool,
    Spoolable,
    UnsupportedFormat,
    Use,
    WorldWritable,
)
from trio_multispool.session import changes
from trio_multispool.storage.directory.disk.syscalls import SystemCalls

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    from helpers.spools import Location

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("how", ["assigned", "mutated", "updated"])
async def test_a_save_stores_the_metadata_that_the_job_has_however_it_was_changed(how: str, place: Location) -> None:
    """`save(queue)` stores what `job.metadata` is by then."""
    async with await make_spool(place) as spool:
        entry = (await put(spool, Mail.SEND, "one"))[0]
        async with (await entry.checkout()).unwrap() as job:
            if how == "assigned":
                job.metadata = Envelope("one", attempts=5)
            elif how == "mutated":
                job.metadata.attempts += 5
            else:
                job.update(lambda found: msgspec.structs.replace(found, attempts=5))
            assert await job.save(Mail.RETRY) == Ok(None)
        (moved,) = (await spool.entries(Mail.RETRY)).unwrap()
        assert await moved.direct.contents() == Ok(Envelope("one", attempts=5))


@pytest.mark.sample
async def test_a_handler_that_changes_its_metadata_in_place_has_it_stored(place: Location) -> None:
    """`Save(queue)` without metadata stores what the handler made of what it was given."""
    async with await make_spool(place) as spool:
        entry = (await put(spool, Mail.SEND, "one"))[0]

        async def handler(envelope: Envelope, _data: Any) -> Any:
            envelope.attempts += 1
            return Save(Mail.RETRY)

        await spool.with_entry(entry, handler)
        (moved,) = (await spool.entries(Mail.RETRY)).unwrap()
        assert await moved.direct.contents() == Ok(Envelope("one", attempts=1))


async def test_a_save_without_a_change_keeps_what_this_program_does_not_know(tmp_path: Path) -> None:
    """Fields that a newer program wrote are still there after an older one has moved the entry."""
    async with await make_spool(tmp_path / "spool") as spool:
        await put(spool, Mail.SEND, "one")
        stored = b'{"recipient": "one", "colour": "blue"}'
        (spool.path / "send" / "one").write_bytes(stored)
        entry = spool.entry(Mail.SEND, "one").unwrap()
        async with (await entry.checkout()).unwrap() as job:
            assert await job.save(Mail.RETRY) == Ok(None)
        assert state_of(spool.location).available["retry"] == {"one": stored}


async def test_metadata_that_nobody_could_decode_is_not_enqueued(place: Location) -> None:
    """`Ok` means that a worker can read it: a value that does not fit its type is refused where it comes in."""
    async with await make_spool(place) as spool:
        before = state_of(spool.location)
        wrong: Any = Envelope(recipient=None)  # type: ignore[arg-type]  # that is the mistake
        answer = await spool.enqueue(Mail.SEND, wrong, b"")
        assert isinstance(answer, Err)
        assert isinstance(answer.error, EncodingFailed)
        assert state_of(spool.location) == before


async def test_leaving_the_block_of_a_name_while_it_is_being_used_takes_nothing_away(tmp_path: Path) -> None:
    """The name is given up after the enqueue that uses it, and then there is nothing to give up."""
    gate = Gate()
    async with await make_spool(tmp_path / "spool", system_calls=gate) as spool, anyio.create_task_group() as tasks:
        answers: list[Any] = []
        async with (await spool.reserve_name()).unwrap() as reserved:

            async def enqueue() -> None:
                answers.append(await spool.enqueue(Mail.SEND, ANNE, b"precious", name=Use(reserved)))

            gate.arm("move")
            tasks.start_soon(enqueue)
            await gate.reached()
            threading.Timer(0, gate.go).start()
        entry = answers[0].unwrap() if answers else (await spool.entries(Mail.SEND)).unwrap()[0]
        assert await entry.direct.data_file.load() == Ok(b"precious")
        assert state_of(spool.location).faults() == []


async def test_a_name_is_used_once_also_by_two_tasks(tmp_path: Path) -> None:
    """One enqueue has it, and the other is told that it was used."""
    gate = Gate()
    async with await make_spool(tmp_path / "spool", system_calls=gate) as spool:
        outcomes: list[Any] = []
        async with (await spool.reserve_name()).unwrap() as reserved:

            async def enqueue() -> None:
                try:
                    outcomes.append(type(await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(reserved))))
                except RuntimeError as error:
                    outcomes.append(type(error))

            async with anyio.create_task_group() as tasks:
                gate.arm("move")
                tasks.start_soon(enqueue)
                await gate.reached()
                tasks.start_soon(enqueue)
                gate.go()
        assert sorted(map(str, outcomes)) == sorted(map(str, [Ok, RuntimeError]))
        assert len(state_of(spool.location).entries()) == 1


async def test_a_reserved_name_whose_enqueue_failed_can_be_used_again(tmp_path: Path) -> None:
    """The name is still held, and the second enqueue has it."""
    calls = FailingCalls()
    async with await make_spool(tmp_path / "spool", system_calls=calls) as spool:
        async with (await spool.reserve_name()).unwrap() as reserved:
            with calls.failing("write", 28):
                assert is_err(await spool.enqueue(Mail.SEND, ANNE, b"x", name=Use(reserved)))
            entry = (await spool.enqueue(Mail.SEND, ANNE, b"x", name=Use(reserved))).unwrap()
            assert entry.name == reserved.name
        assert state_of(spool.location).faults() == []


class _Paused:
    """A data codec that waits in the middle of writing until it is told to go on."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.go = threading.Event()
        self.armed = False

    def dump(self, value: bytes, file: BinaryIO) -> None:
        if self.armed:
            self.started.set()
            assert self.go.wait(60)
        file.write(value)

    def load(self, file: BinaryIO) -> bytes:
        return file.read()


async def test_data_is_never_saved_into_an_entry_that_has_left(place: Location) -> None:
    """A reader's block that is left while data is being written waits for it; then the entry goes back, whole."""
    codec = _Paused()
    spoolable = Spoolable(Mail, Envelope, codec)
    async with await make_spool(place, spoolable) as spool, anyio.create_task_group() as tasks:
        await put(spool, Mail.SEND, "one", data=b"first")
        order: list[str] = []
        async with spool.reader(Mail.SEND) as reader:
            job = (await reader.dequeue()).unwrap()
            codec.armed = True

            async def save() -> None:
                answer = await job.data.save(b"second")
                order.append(f"saved {answer!r}")

            tasks.start_soon(save)
            await anyio.to_thread.run_sync(codec.started.wait)
            assert state_of(spool.location).places("one") == ["send/.checkout"]
            codec.go.set()
        codec.armed = False
        assert state_of(spool.location).places("one") == ["send"]
        assert state_of(spool.location).data["one"] == b"second"
        assert state_of(spool.location).faults() == []


async def test_a_verdict_that_cannot_be_stored_and_an_entry_that_cannot_go_back_are_one_err(tmp_path: Path) -> None:
    """On a file system that has become read-only, `iter` answers with that error, and no block raises."""
    calls = FailingCalls()
    async with await make_spool(tmp_path / "spool", durability=Durability.PROCESS, system_calls=calls) as spool:
        await put(spool, Mail.SEND, "one")

        async def handler(_metadata: Any, _data: Any) -> Any:
            calls.fail("move", 30)
            return Save(Mail.RETRY)

        async with spool.reader(Mail.SEND) as reader:
            answer = await reader.iter(handler)
        assert isinstance(answer, Err)
        assert isinstance(answer.error, ReadOnlySpool)
        calls.mend()
        async with await load_spool(spool.path) as again:
            assert [entry.name for entry in (await again.entries(Mail.SEND)).unwrap()] == ["one"]


async def test_a_spool_that_is_closed_during_a_dequeue_has_nothing_in_hand(tmp_path: Path) -> None:
    """The dequeue raises that the spool is closed, and the entry is available."""
    gate = Gate()
    spool = await make_spool(tmp_path / "spool", system_calls=gate)
    await put(spool, Mail.SEND, "one")
    raised: list[BaseException] = []

    async def read() -> None:
        async with spool.reader(Mail.SEND) as reader:
            try:
                await reader.dequeue()
            except anyio.ClosedResourceError as error:
                raised.append(error)

    async with anyio.create_task_group() as tasks:
        gate.arm("move", after=True)
        tasks.start_soon(read)
        await gate.reached()
        spool.close()
        gate.go()
    assert len(raised) == 1
    assert state_of(spool.location).places("one") == ["send"]


@pytest.mark.parametrize("concurrency", [1, 4, 16])
async def test_a_pass_gives_each_entry_once_although_they_come_back(concurrency: int, place: Location) -> None:
    """`iter_available` with handlers that save into the same queue ends, and gives nothing twice."""
    async with await make_spool(place, durability=Durability.PROCESS) as spool:
        names = [f"{number:02}" for number in range(30)]
        await put(spool, Mail.SEND, *names)
        given: list[str] = []

        async def handler(_metadata: Any, data: Any) -> Any:
            given.append(data.name)
            return Save(Mail.SEND)

        async with spool.reader(Mail.SEND) as reader:
            assert await reader.iter_available(handler, concurrency=concurrency) == Ok(None)
        assert sorted(given) == names


async def test_an_entry_whose_check_out_was_withdrawn_keeps_its_turn(tmp_path: Path) -> None:
    """First-in first-out holds also when a check-out fails in between."""
    calls = FailingCalls()
    async with await make_spool(tmp_path / "spool", system_calls=calls) as spool:
        await put(spool, Mail.SEND, "1", "2", "3")
        order: list[str] = []
        async with spool.reader(Mail.SEND) as reader:
            with calls.failing("open", 24, on="send/1"):
                assert is_err(await reader.dequeue_available())
            async for job in reader.available():
                async with job:
                    order.append(job.name)
                    await job.remove()
        assert order == ["1", "2", "3"]


async def test_a_full_disk_can_be_read_and_made_room_on(tmp_path: Path) -> None:
    """Loading and reading go on although an abandoned entry cannot be put back for want of room."""
    spool = await make_spool(tmp_path / "spool")
    await put(spool, Mail.SEND, "1", "2")
    abandoned = storage_of(spool).claim(available("send"), "1", before_commit=lambda: None)
    abandoned.abandon()
    spool.close()
    calls = FailingCalls()
    calls.fail("move", 28, on="send/.checkout/1 -> ")
    async with await load_spool(spool.path, system_calls=calls) as full:

        async def handler(_metadata: Any, _data: Any) -> Any:
            return Remove()

        async with full.reader(Mail.SEND) as reader:
            assert await reader.iter_available(handler) == Ok(None)
        assert state_of(spool.location).places("2") == []
        assert is_err(await full.recover())
        calls.mend()
        assert [found.name for found in (await full.recover()).unwrap()] == ["1"]


async def test_a_process_learns_that_another_has_adopted_the_spool(tmp_path: Path) -> None:
    """Recovery begins without loading again."""
    spool = await make_spool(tmp_path / "spool")
    await put(spool, Mail.SEND, "1")
    (spool.path / ".spool.json").unlink()
    spool.close()
    async with await load_spool(spool.path) as one, await load_spool(spool.path) as other:
        abandoned = storage_of(one).claim(available("send"), "1", before_commit=lambda: None)
        abandoned.abandon()
        assert await one.recover() == Ok([])
        assert await other.adopt() == Ok(None)
        assert [found.name for found in (await one.recover()).unwrap()] == ["1"]


async def test_an_entry_of_another_spool_is_refused(tmp_path: Path) -> None:
    """`with_entry` says that the entry is not this spool's."""
    async with await make_spool(tmp_path / "one") as one, await make_spool(tmp_path / "other") as other:
        entry = (await put(other, Mail.SEND, "1"))[0]

        async def handler(_metadata: Any, _data: Any) -> Any:
            return Remove()

        for run in (one.with_entry, one.try_with_entry):
            with pytest.raises(ValueError, match="another spool"):
                await run(entry, handler)


async def test_a_level_of_durability_that_is_none_is_a_type_error(place: Location) -> None:
    """A word in place of a member is refused: it would otherwise sync nothing."""
    wrong: Any = "power"
    with pytest.raises(TypeError, match="Durability"):
        await Spool.create(place, MAIL, durability=wrong)
    async with await make_spool(place) as spool:
        with pytest.raises(TypeError, match="Durability"):
            await spool.enqueue(Mail.SEND, ANNE, b"", durability=wrong)
        assert state_of(spool.location).faults() == []


async def test_a_name_that_is_no_string_is_a_type_error(place: Location) -> None:
    """Neither `Use(None)` nor an entry called 5 makes anything."""
    wrong: Any = None
    async with await make_spool(place) as spool:
        with pytest.raises(TypeError, match="string"):
            await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(wrong))
        with pytest.raises(TypeError, match="string"):
            spool.entry(Mail.SEND, wrong)
        assert state_of(spool.location).entries() == set()


async def test_a_task_may_hold_a_token_of_the_limiter_that_its_spool_uses(place: Location) -> None:
    """The spool borrows on its own behalf, on both backends."""
    limiter = anyio.CapacityLimiter(2)
    async with await make_spool(place, limiter=limiter) as spool, limiter:
        assert isinstance(await spool.enqueue(Mail.SEND, ANNE, b""), Ok)


async def test_data_that_is_gone_says_so(tmp_path: Path) -> None:
    """An entry without data is told, and can be settled."""
    async with await make_spool(tmp_path / "spool") as spool:
        entry = (await put(spool, Mail.SEND, "one"))[0]
        (spool.path / ".data" / "one").unlink()
        async with (await entry.checkout()).unwrap() as job:
            assert await job.data.load() == Err(DataNotFound("one"))
            assert await job.data.save(b"healed") == Ok(None)
            assert await job.data.load() == Ok(b"healed")


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_one_slow_listing_does_not_make_a_reader_sleep_for_long(anyio_backend: str) -> None:
    """The quickest of the last listings counts, and the wait has a bound."""
    polling = changes.Polling(0.5)
    assert polling.next_wait(0.0) < 0.5
    assert polling.next_wait(3.0) < 0.5
    slow = changes.Polling(0.5)
    assert slow.next_wait(0.3) == changes.LONGEST_WAIT


async def test_a_spool_that_everybody_may_write_into_is_not_even_begun(tmp_path: Path) -> None:
    """A mode that would be refused afterwards makes no directory."""
    answer = await Spool.create(tmp_path / "spool", MAIL, directory_mode=0o777)
    assert answer == Err(WorldWritable(str(tmp_path / "spool")))
    assert not (tmp_path / "spool").exists()


async def test_a_chosen_name_is_not_busy_because_a_collector_passes_by(tmp_path: Path) -> None:
    """A recovery that locks the newborn reservation and removes it again costs the enqueue nothing."""
    passing: list[str] = []

    class Collected(SystemCalls):
        def lock(self, fd: int) -> None:
            path = os.readlink(f"/proc/self/fd/{fd}")
            if path.endswith("/.registry/key") and not passing:
                passing.append(path)
                collector = SystemCalls()
                other = os.open(path, os.O_RDONLY)
                collector.lock(other)
                try:
                    super().lock(fd)
                finally:
                    os.unlink(path)
                    os.close(other)
            super().lock(fd)

    async with await make_spool(tmp_path / "spool", system_calls=Collected()) as spool:
        assert isinstance(await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("key")), Ok)
        assert len(passing) == 1


async def test_a_spool_adopted_by_rules_that_are_not_known_is_left_alone(tmp_path: Path) -> None:
    """A newer program adopts a spool under our feet: from then on nothing is recovered, and reading goes on."""
    spool = await make_spool(tmp_path / "spool")
    await put(spool, Mail.SEND, "1", "2")
    (spool.path / ".spool.json").unlink()
    spool.close()
    async with await load_spool(spool.path) as old:
        abandoned = storage_of(old).claim(available("send"), "1", before_commit=lambda: None)
        abandoned.abandon()
        (old.path / ".spool.json").write_text('{"format": 99}')
        assert await old.recover() == Ok([])
        async with old.reader(Mail.SEND) as reader:
            assert [job.name async for job in reader.available()] == ["2"]
        assert await old.adopt() == Err(UnsupportedFormat(str(old.path), "format 99"))
    assert state_of(old.path).places("1") == ["send/.checkout"]

"""What an owner tells of its progress: seen by others, and gone when the entry is settled or its owner is dead."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
import pytest

from helpers.calls import FailingCalls
from helpers.spools import ANNE, Mail, load_spool, put, quick_spool, state_of
from trio_multispool import Ok, OutOfSpace, OwnershipLost, Remove, Save
from trio_multispool.model.notes import LONGEST_MESSAGE, Progress, encode_progress
from trio_multispool.session.stores import look_at_store

if TYPE_CHECKING:
    from pathlib import Path

    import trio.testing

    from helpers.spools import Location
    from trio_multispool import Spool


def told(place: Location) -> dict[str, tuple[float, str] | None]:
    """Return what an onlooker sees of the entries that are checked out."""
    storage = look_at_store(place)
    items = [item for item in storage.inventory() if item.place.queue == "send"]
    storage.close()
    return {item.name: None if item.progress is None else (item.progress.done, item.progress.message) for item in items}


async def job_of(spool: Spool[Any, Any, Any, Any], name: str = "a") -> Any:
    """Enqueue an entry, and check it out."""
    [entry] = await put(spool, Mail.SEND, name)
    return (await entry.checkout()).unwrap()


@pytest.mark.sample
@pytest.mark.anyio
async def test_what_an_owner_tells_is_seen_by_others(place: Location) -> None:
    """By job and by data; the last that was told, and nothing of an entry of which nothing is told."""
    async with await quick_spool(place) as spool:
        async with await job_of(spool, "a") as job, await job_of(spool, "b"):
            assert await job.progress(0.4, "converting") == Ok(None)
            assert told(spool.location) == {"a": (0.4, "converting"), "b": None}
            assert await job.data.progress(0.9, "writing") == Ok(None)
            assert told(spool.location) == {"a": (0.9, "writing"), "b": None}
        assert told(spool.location) == {"a": None, "b": None}


@pytest.mark.anyio
@pytest.mark.parametrize("settle", ["save", "save in place", "remove", "release", "leave"])
async def test_what_was_told_is_gone_when_the_entry_is_settled(place: Location, settle: str) -> None:
    """The next owner begins with nothing, and no file is left."""
    async with await quick_spool(place) as spool:
        async with await job_of(spool) as job:
            (await job.progress(0.5)).unwrap()
            assert state_of(spool.location).notes.keys() == {"a"}
            match settle:
                case "save":
                    (await job.save(Mail.RETRY)).unwrap()
                case "save in place":
                    (await job.save(Mail.SEND, ANNE)).unwrap()
                case "remove":
                    (await job.remove()).unwrap()
                case "release":
                    (await job.release()).unwrap()
                case _:
                    pass
        assert state_of(spool.location).notes == {}
        assert state_of(spool.location).faults() == []


@pytest.mark.anyio
async def test_handlers_tell_by_the_data_that_they_are_given(place: Location) -> None:
    """In a pool too."""
    seen = {}
    async with await quick_spool(place) as spool, spool.reader(Mail.SEND) as reader:
        await put(spool, Mail.SEND, "a", "b")

        async def handle(_envelope: Any, data: Any) -> Any:
            (await data.progress(0.25, data.name)).unwrap()
            seen[data.name] = told(spool.location)[data.name]
            return Save(Mail.RETRY) if data.name == "a" else Remove()

        assert await reader.iter_available(handle, concurrency=2) == Ok(None)
        assert seen == {"a": (0.25, "a"), "b": (0.25, "b")}
        assert state_of(spool.location).notes == {}


@pytest.mark.anyio
async def test_recovery_wipes_what_a_dead_owner_told_and_keeps_other_notes(tmp_path: Path) -> None:
    """Its progress was of its check-out; what others keep there is not."""
    async with await quick_spool(tmp_path / "spool") as spool:
        job = await job_of(spool)
        (await job.progress(0.5)).unwrap()
        notes = msgspec.json.decode((spool.path / ".notes/a").read_bytes())
        (spool.path / ".notes/a").write_bytes(msgspec.json.encode(notes | {"later": [1]}))
        (spool.path / ".tmp/.notes.a").write_bytes(b"half")
        job._checkout.claim.abandon()
        other = await load_spool(spool.path)
        assert state_of(spool.location).notes == {"a": b'{"later":[1]}\n'}
        assert state_of(spool.location).temporary == {}
        async with (await other.entry(Mail.SEND, "a").unwrap().checkout()).unwrap() as again:
            assert told(spool.location) == {"a": None}
            (await again.progress(1, "done")).unwrap()
            assert told(spool.location) == {"a": (1, "done")}
        assert state_of(spool.location).notes == {"a": b'{"later":[1]}\n'}
        other.close()


@pytest.mark.anyio
@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"progress": 5}', b'{"progress": {"done": "x"}}'])
async def test_notes_that_cannot_be_read_are_none(tmp_path: Path, raw: bytes) -> None:
    """They are in nobody's way, and are written over."""
    async with await quick_spool(tmp_path / "spool") as spool:
        async with await job_of(spool) as job:
            (spool.path / ".notes").mkdir()
            (spool.path / ".notes/a").write_bytes(raw)
            assert told(spool.location) == {"a": None}
            (await job.progress(0.5)).unwrap()
            assert told(spool.location) == {"a": (0.5, "")}
        assert state_of(spool.location).notes == {}


@pytest.mark.anyio
async def test_notes_that_are_no_file_are_none(tmp_path: Path) -> None:
    """Whoever looks sees the entry all the same."""
    async with await quick_spool(tmp_path / "spool") as spool, await job_of(spool):
        (spool.path / ".notes").mkdir()
        (spool.path / ".notes/a").symlink_to("elsewhere")
        assert told(spool.location) == {"a": None}


@pytest.mark.anyio
async def test_what_was_told_before_the_entry_was_checked_out_is_not_shown(tmp_path: Path) -> None:
    """It was another owner's, of whom something kept the store from wiping it."""
    async with await quick_spool(tmp_path / "spool") as spool, await job_of(spool):
        (spool.path / ".notes").mkdir()
        (spool.path / ".notes/a").write_bytes(b'{"progress":{"done":0.5,"message":"","at":1000000000}}')
        assert told(spool.location) == {"a": None}


@pytest.mark.anyio
@pytest.mark.parametrize("done", [-0.1, 1.1, float("nan"), float("inf")])
async def test_progress_is_a_number_from_0_to_1(place: Location, done: float) -> None:
    """Anything else is a mistake, and nothing is told."""
    async with await quick_spool(place) as spool, await job_of(spool) as job:
        with pytest.raises(ValueError, match="from 0 to 1"):
            await job.progress(done)
        assert told(spool.location) == {"a": None}


@pytest.mark.anyio
async def test_only_an_owner_can_tell(place: Location) -> None:
    """Not through `direct`, not after the job was settled, and not when it was taken away."""
    async with await quick_spool(place) as spool:
        async with await job_of(spool, "a") as job:
            (await job.release()).unwrap()
            with pytest.raises(RuntimeError, match="settled"):
                await job.progress(0.5)
        with pytest.raises(RuntimeError, match="check it out"):
            await spool.entry(Mail.SEND, "a").unwrap().direct.data_file.progress(0.5)
        job = await job_of(spool, "b")
        [taken] = (await spool.checkouts_unsafe(Mail.SEND)).unwrap()
        assert isinstance((await taken.progress(0.5)).error, OwnershipLost)
        (await taken.release()).unwrap()
        assert isinstance((await job.release()).error, OwnershipLost)
        assert state_of(spool.location).notes == {}


@pytest.mark.anyio
async def test_a_disk_that_is_full_keeps_nobody_from_working(tmp_path: Path) -> None:
    """`Err`, nothing is left over, and the entry is settled as ever."""
    calls = FailingCalls()
    async with await quick_spool(tmp_path / "spool", system_calls=calls) as spool:
        async with await job_of(spool) as job:
            (await job.progress(0.1, "one")).unwrap()
            with calls.failing("write", errno.ENOSPC, "/.tmp/.notes.a"):
                assert isinstance((await job.progress(0.2, "two")).error, OutOfSpace)
            assert told(spool.location) == {"a": (0.1, "one")}
            assert state_of(spool.location).temporary == {}
            with calls.failing("unlink", errno.EIO, "/.notes/a"):
                (await job.save(Mail.RETRY)).unwrap()
        assert state_of(spool.location).names("retry") == ["a"]
        async with (await spool.entry(Mail.RETRY, "a").unwrap().checkout()).unwrap() as job:
            (await job.remove()).unwrap()
        assert state_of(spool.location).faults() == []


async def test_what_is_told_too_often_is_passed_over(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    """Five times a second are enough; another message is told at once."""
    calls = FailingCalls()
    async with await quick_spool(tmp_path / "spool", system_calls=calls) as spool, await job_of(spool) as job:
        calls.made.clear()
        for step in range(100):
            (await job.progress(step / 100, "counting")).unwrap()
        assert told(spool.location) == {"a": (0, "counting")}
        assert sum(call == "write" for call, _ in calls.made) == 1
        (await job.progress(0.99, "ending")).unwrap()
        assert told(spool.location) == {"a": (0.99, "ending")}
        mock_clock.jump(0.2)
        (await job.progress(1, "ending")).unwrap()
        assert told(spool.location) == {"a": (1, "ending")}


@pytest.mark.anyio
async def test_progress_that_is_cancelled_was_not_told(place: Location) -> None:
    """Before it begins; the job is as it was."""
    async with await quick_spool(place) as spool, await job_of(spool) as job:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await job.progress(0.5)
        assert scope.cancelled_caught
        assert told(spool.location) == {"a": None}


def test_a_message_is_one_line_of_bearable_length() -> None:
    """It is shown in tables."""
    value = msgspec.json.decode(encode_progress(0.5, "one\n  two\t" + "x" * 500, 7.0), type=Progress)
    assert value.at == 7.0
    assert value.message.startswith("one two xxx")
    assert len(value.message) == LONGEST_MESSAGE
    assert value.message.endswith("…")


@pytest.mark.anyio
async def test_a_message_may_name_any_file(tmp_path: Path) -> None:
    """What is not UTF-8 in a name that `os.listdir` returned, a lone surrogate, is shown as an escape."""
    async with await quick_spool(tmp_path / "spool") as spool, await job_of(spool) as job:
        assert await job.progress(0.5, "converting \udcff.png") == Ok(None)
        assert told(spool.location) == {"a": (0.5, r"converting \udcff.png")}


def test_a_message_is_no_longer_for_its_escapes() -> None:
    """It is cut when they are there."""
    value = msgspec.json.decode(encode_progress(0.5, "\udcff" * LONGEST_MESSAGE, 7.0), type=Progress)
    assert value.message.startswith(r"\udcff\udcff")
    assert len(value.message) == LONGEST_MESSAGE

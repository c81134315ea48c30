"""What a queue is not to keep: the too old, and the oldest of too many, each after a hook has had a look."""

from __future__ import annotations

import datetime
import errno
import logging
import os
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from helpers.calls import FailingCalls
from helpers.children import quick_directory
from helpers.gates import breathe
from helpers.results import is_err
from helpers.spools import ANNE, Mail, Wall, load_spool, quick_spool, state_of
from helpers.tampering import date, write_metadata
from trio_multispool import AccessDenied, Err, Ok, OutOfSpace, Release, Remove, Retention, Save, Use
from trio_multispool.events import Event
from trio_multispool.spool import retention as expiring_module

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from helpers.spools import Location

pytestmark = pytest.mark.anyio

DAY = datetime.timedelta(days=1)
BEGIN = 1_700_000_000.0  # in the past: what is written in the future is as old as it lies there


@pytest.fixture
def wall() -> Wall:
    """Stop the clock."""
    wall = Wall()
    wall.time = BEGIN
    return wall


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Say where the spool is to be."""
    with quick_directory(tmp_path) as directory:
        yield directory / "spool"


async def put(spool: Any, **days_old: float) -> None:
    """Enqueue entries, each so many days old."""
    for name, days in days_old.items():
        (await spool.enqueue(Mail.SEND, ANNE, name.encode(), name=Use(name))).unwrap()
        date(spool.location, "send", name, BEGIN - days * 86_400)


def left(place: Location) -> str:
    """Return the names of what is available, in order."""
    state = state_of(place)
    assert state.faults() == []
    assert set(state.data) == state.entries()
    return "".join(state.names("send"))


@pytest.mark.parametrize(
    ("retention", "kept"),
    [
        (Retention(max_age=2.5 * DAY), "cde"),
        (Retention(max_age=2.5 * 86_400), "cde"),
        (Retention(max_age=0), "e"),
        (Retention(max_count=3), "bce"),
        (Retention(max_count=0), ""),
        (Retention(max_count=9), "abcde"),
        (Retention(max_age=0.5 * DAY, max_count=3), "e"),
        (Retention(max_age=100 * DAY, max_count=4), "abce"),
    ],
    ids=str,
)
async def test_the_too_old_and_the_oldest_of_too_many_go(place, wall, retention, kept):
    """By when their metadata was written, and not by their names; what goes is told."""
    spool = await quick_spool(place, now=wall)
    days = {"a": 3, "b": 2.6, "c": 1, "d": 2.4 if kept == "cde" else 50, "e": 0}
    await put(spool, **days)
    gone = (await spool.expire(Mail.SEND, retention)).unwrap()
    assert left(place) == kept
    assert sorted(gone) == sorted(set(days) - set(kept))
    assert (await spool.expire(Mail.SEND, retention)).unwrap() == []


@pytest.mark.sample
async def test_only_what_is_available_goes(place, wall):
    """Not what waits, what somebody has, or what is in quarantine, however old."""
    spool = await quick_spool(place, now=wall)
    (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("w"), not_before=1)).unwrap()
    await put(spool, a=9, b=9, c=9)
    write_metadata(place, "send", "c", b"no json")
    async with spool.reader(Mail.RETRY):
        (await spool.entry(Mail.SEND, "c").unwrap().try_checkout()).ignore()
    wall.time += 10 * 86_400
    async with (await spool.entry(Mail.SEND, "a").unwrap().checkout()).unwrap() as job:
        assert (await spool.expire(Mail.SEND, Retention(max_count=0))).unwrap() == ["b"]
        (await job.release()).unwrap()
    state = state_of(place)
    assert (set(state.waiting["send"]), set(state.quarantined["send"]), left(place)) == ({"w"}, {"c"}, "a")


@pytest.mark.parametrize(
    ("verdict", "kept", "gone"), [(Remove(), "b", ["a"]), (Release(), "ab", []), (Save(Mail.RETRY), "b", ["a"])]
)
async def test_a_hook_has_a_look_before_anything_goes(place, wall, verdict, kept, gone):
    """It is given metadata and data, and says whether the entry goes, stays, or goes elsewhere."""
    spool = await quick_spool(place, now=wall)
    await put(spool, a=3, b=0)
    seen: list[Any] = []

    async def before(metadata: Any, data: Any) -> Any:
        seen.append((metadata, data.name, (await data.load()).unwrap()))
        return verdict

    answer = await spool.expire(Mail.SEND, Retention(max_age=DAY), before_expiry=before)
    assert answer == Ok(gone)
    assert seen == [(ANNE, "a", b"a")]
    assert left(place) == kept
    assert state_of(place).names("retry") == (["a"] if verdict == Save(Mail.RETRY) else [])


@pytest.mark.parametrize(("number", "error"), [(1, ZeroDivisionError), (3, ExceptionGroup)])
async def test_what_a_hook_raises_keeps_the_entry_and_passes_through(place, wall, number, error):
    """Bare if it was the only entry to go."""
    spool = await quick_spool(place, now=wall)
    await put(spool, **dict.fromkeys("abc"[:number], 3.0))

    async def before(metadata: Any, data: Any) -> Any:
        raise ZeroDivisionError

    with pytest.raises(error):
        await spool.expire(Mail.SEND, Retention(max_age=DAY), before_expiry=before)
    assert left(place) == "abc"[:number]


async def test_an_entry_that_was_written_since_stays(place, wall):
    """Between the look and the check-out: it is not what was looked at."""
    spool = await quick_spool(place, now=wall)
    await put(spool, a=3)
    find = expiring_module.not_to_be_kept

    def find_and_touch(*arguments: Any) -> Any:
        found = find(*arguments)
        date(place, "send", "a", BEGIN - 2 * 86_400)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(expiring_module, "not_to_be_kept", find_and_touch)
        assert await spool.expire(Mail.SEND, Retention(max_age=DAY)) == Ok([])
    assert left(place) == "a"


@pytest.mark.parametrize("days_old", [54 * 366, -1.5, -400], ids=["before all spools", "ahead", "far ahead"])
async def test_a_date_that_cannot_be_expires_nothing_and_is_told_once(path, wall, caplog, days_old):
    """Such an entry stays, however old it seems, and does not count; others go as if it were not there."""
    spool = await quick_spool(path, now=wall)
    await put(spool, a=5, b=3, c=1, x=days_old, y=days_old)
    for _ in range(2):
        (await spool.expire(Mail.SEND, Retention(max_age=4 * DAY, max_count=2))).unwrap()
        assert left(path) == "bcxy"
    assert set((await spool.expire(Mail.SEND, Retention(max_count=0))).unwrap()) == {"b", "c"}
    told = [(record.queue, record.entry) for record in caplog.records if record.event == Event.MISDATED.value]
    assert [(queue, entry in "xy") for queue, entry in told] == [("send", True)]


@pytest.mark.parametrize("clock", [100.0, BEGIN - 30 * 86_400], ids=["in 1970", "a month late"])
async def test_a_clock_that_cannot_be_expires_nothing(path, wall, caplog, clock):
    """Neither what was written while it was right, nor what was written since; and it goes on when it is right."""
    spool = await quick_spool(path, now=wall)
    await put(spool, a=9, b=3, c=0)
    date(path, "send", "a", clock)
    wall.time = clock
    kept = "bc" if clock > 1e9 else "abc"
    gone = (await spool.expire(Mail.SEND, Retention(max_age=DAY, max_count=0))).unwrap()
    assert (set(gone), left(path)) == ({*"abc"} - {*kept}, kept)
    assert any(record.event == Event.MISDATED.value for record in caplog.records)
    wall.time = BEGIN
    (await spool.expire(Mail.SEND, Retention(max_age=DAY))).unwrap()
    assert left(path) == ("c" if clock > 1e9 else "ac")


async def test_an_entry_that_was_due_later_than_it_was_moved_is_as_old_as_its_last_move(place, wall):
    """It was to wait, and was taken early: the check-out, which moves it, does not make it younger."""
    spool = await quick_spool(place)
    for name in "abc":
        (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(name), not_before=3600)).unwrap()
    async with (await spool.entry(Mail.SEND, "a").unwrap().checkout(early=True)).unwrap() as job:
        (await job.save(Mail.SEND)).unwrap()
    assert (await spool.expire(Mail.SEND, Retention(max_age=0))).unwrap() == ["a"]
    async with (await spool.entry(Mail.SEND, "b").unwrap().checkout(early=True)).unwrap() as job:
        (await job.save(Mail.SEND)).unwrap()
    assert (await spool.expire(Mail.SEND, Retention(max_count=0))).unwrap() == ["b"]
    assert set(state_of(place).waiting["send"]) == {"c"}


async def test_several_who_do_it_at_once_let_go_of_no_more(place, wall):
    """Each entry once, and as many stay as may."""
    spool, other = await quick_spool(place, now=wall), await load_spool(place, now=wall)
    for number in range(40):
        await put(spool, **{f"{number:02}": number})
    gone: list[str] = []

    async def expire(who: Any) -> None:
        gone.extend((await who.expire(Mail.SEND, Retention(max_count=10))).unwrap())

    async with anyio.create_task_group() as tasks:
        for who in (spool, other, spool):
            tasks.start_soon(expire, who)
    assert len(gone) == len(set(gone)) == 30
    assert left(place) == "".join(f"{number:02}" for number in range(10))


async def test_trouble_is_an_err(path, wall):
    """In looking, and in settling; the entry is where it was."""
    calls = FailingCalls()
    spool = await quick_spool(path, now=wall, system_calls=calls)
    await put(spool, a=3, b=3)
    with calls.failing("scan", errno.EACCES):
        assert is_err(await spool.expire(Mail.SEND, Retention(max_age=DAY)))

    async def before(metadata: Any, data: Any) -> Any:
        return Save(Mail.RETRY, type(ANNE)("changed"))

    with calls.failing("write", errno.ENOSPC):
        answer = await spool.expire(Mail.SEND, Retention(max_age=DAY), before_expiry=before)
    assert isinstance(answer, Err)
    assert isinstance(answer.error, OutOfSpace)
    assert left(path) == "ab"


async def test_what_cannot_be_read_is_left_and_the_others_go(path, wall):
    """Readers pass it over too; what cannot be decoded is set aside."""
    calls = FailingCalls()
    spool = await quick_spool(path, now=wall, system_calls=calls)
    await put(spool, a=3, b=3, c=3)
    (path / "send" / "c").write_bytes(b"no json")
    os.utime(path / "send" / "c", (BEGIN, BEGIN - 3 * 86_400))
    calls.fail("open", errno.EIO, on="send/a")
    assert await spool.expire(Mail.SEND, Retention(max_age=DAY)) == Ok(["b"])
    calls.mend()
    assert set(state_of(path).quarantined["send"]) == {"c"}


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({}, ValueError),
        ({"max_age": -1}, ValueError),
        ({"max_age": "a week"}, TypeError),
        ({"max_count": -1}, ValueError),
        ({"max_count": 1.5}, TypeError),
    ],
)
def test_a_retention_that_makes_no_sense_is_refused_where_it_is_made(wrong, error):
    """And not a minute later."""
    with pytest.raises(error):
        Retention(**wrong)


# By readers


async def until(condition: Any) -> None:
    """Wait until something is so."""
    with anyio.fail_after(30):
        while not condition():
            await breathe()


async def test_a_reader_applies_it_when_it_is_entered_and_again_and_again(place, wall, monkeypatch, caplog):
    """Until it is stopped; each entry that goes has a line in the log."""
    caplog.set_level(logging.INFO, "trio_multispool")
    monkeypatch.setattr(expiring_module, "INTERVAL", 0)
    monkeypatch.setattr(expiring_module, "SHARE", 0)
    spool = await quick_spool(place, now=wall)
    await put(spool, a=3, b=0.5)
    async with spool.reader(Mail.SEND, retention=Retention(max_age=DAY)) as reader:
        await until(lambda: state_of(place).entries() == {"b"})
        wall.time += 86_400
        await until(lambda: state_of(place).entries() == set())
        reader.stop()
        await until(reader._expiring[0]._finished.is_set)
        await put(spool, c=9)
    assert left(place) == "c"
    told = [record.entry for record in caplog.records if record.event == Event.EXPIRED.value]
    assert told == ["a", "b"]


@pytest.mark.parametrize("how", ["left", "cancelled", "drained"])
async def test_leaving_a_reader_returns_what_the_hook_had(place, wall, how):
    """It is cancelled like all others."""
    spool = await quick_spool(place, now=wall)
    await put(spool, a=3, b=3)
    begun: list[str] = []

    async def before(metadata: Any, data: Any) -> Any:
        begun.append(data.name)
        await anyio.sleep_forever()

    with anyio.CancelScope() as scope:
        async with spool.reader(Mail.SEND, retention=Retention(max_age=DAY), before_expiry=before) as reader:
            await until(lambda: len(begun) == 2)
            if how == "cancelled":
                scope.cancel()
                await anyio.sleep_forever()
            if how == "drained":
                reader.drain(0)
    assert left(place) == "ab"
    assert scope.cancelled_caught == (how == "cancelled")


async def test_what_a_hook_raises_ends_the_readers_block(place, wall):
    """As what a handler raises ends an iteration."""
    spool = await quick_spool(place, now=wall)
    await put(spool, a=3)

    async def before(metadata: Any, data: Any) -> Any:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with spool.reader(Mail.SEND, retention=Retention(max_age=DAY), before_expiry=before):
            await anyio.sleep_forever()
    assert left(place) == "a"


async def test_trouble_of_a_reader_is_logged_and_it_tries_again(path, wall, monkeypatch, caplog):
    """Its readers go on."""
    monkeypatch.setattr(expiring_module, "INTERVAL", 0)
    monkeypatch.setattr(expiring_module, "SHARE", 0)
    calls = FailingCalls()
    spool = await quick_spool(path, now=wall, system_calls=calls)
    await put(spool, a=3)
    calls.fail("scan", errno.EACCES)
    async with spool.reader(Mail.SEND, retention=Retention(max_age=DAY)):
        await until(lambda: any(record.event == Event.NOT_EXPIRED.value for record in caplog.records))
        assert isinstance(caplog.records[0].__dict__["error"], AccessDenied)
        calls.mend()
        await until(lambda: state_of(path).entries() == set())


async def test_a_reader_that_was_stopped_before_applies_nothing(place, wall):
    """It takes nothing new, for whatever purpose."""
    spool = await quick_spool(place, now=wall)
    await put(spool, a=3)
    reader = spool.reader(Mail.SEND, retention=Retention(max_age=DAY))
    reader.stop()
    async with reader:
        for _ in range(10):
            await breathe()
    assert left(place) == "a"

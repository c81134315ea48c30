"""Beyond the original: `recover` and `adopt`."""

from __future__ import annotations

import errno
import os

import pytest

from helpers.calls import FailingCalls
from helpers.spools import Mail, contents, load_spool, put, quick_spool, state_of
from trio_multispool import AccessDenied, Err, Ok, OutOfSpace, Recovered, StorageFailure, UnsupportedFormat

pytestmark = pytest.mark.anyio


async def test_recover_puts_back_and_collects_what_the_dead_left_and_says_so(tmp_path):
    """Check-outs of the dead are back in their queues, known or not; what belongs to no entry is gone."""
    spool = await quick_spool(tmp_path / "spool")
    await put(spool, Mail.SEND, "dead", "living", "available")
    for queue in ("unheard", "unheard/.checkout"):
        (spool.path / queue).mkdir(mode=0o700)
    (spool.path / "unheard" / "known").write_bytes(b"{}")
    (spool.path / "unheard" / ".checkout" / "there").write_bytes(b"{}")
    for name in ("known", "there"):
        (spool.path / ".registry" / name).touch()
        (spool.path / ".data" / name).touch()
    (spool.path / ".registry" / "reserved").touch()
    (spool.path / ".data" / "data only").touch()
    (spool.path / ".tmp" / ".unsafe.available").touch()
    async with (await spool.entry(Mail.SEND, "living").unwrap().checkout()).unwrap():
        (spool.path / "send" / "dead").rename(spool.path / "send" / ".checkout" / "dead")
        before = contents(spool.path)
        planned = (await spool.recover(dry_run=True)).unwrap()
        assert contents(spool.path) == before, "a dry run changes nothing"
        found = (await spool.recover()).unwrap()
        assert sorted(planned, key=str) == sorted(found, key=str), "and tells all that is done"
        assert set(found) == {
            Recovered("dead", "send"),
            Recovered("there", "unheard"),
            Recovered("reserved", None),
            Recovered("data only", None),
        }
        assert len(found) == 4
        state = state_of(spool.path)
        assert state.available == {
            "failed": {},
            "retry": {},
            "send": state.available["send"],
            "unheard": {"known": b"{}", "there": b"{}"},
        }
        assert state.names("send") == ["available", "dead"]
        assert list(state.checked_out["send"]) == ["living"]
        assert state.faults() == []
        before = contents(spool.path)
        assert await spool.recover() == Ok([])
        assert contents(spool.path) == before


async def test_a_living_reservation_is_not_collected(tmp_path):
    """What another is about to enqueue under stays its own."""
    spool = await quick_spool(tmp_path / "spool")
    async with (await spool.reserve_name()).unwrap() as reserved:
        assert await (await load_spool(spool.path)).recover(dry_run=True) == Ok([])
        assert await (await load_spool(spool.path)).recover() == Ok([])
        assert state_of(spool.path).registry == {reserved.name}


async def test_an_entry_whose_reservation_was_lost_is_put_back_and_reserved_again(tmp_path):
    """Power loss may take the registry file: the entry is no less an entry."""
    spool = await quick_spool(tmp_path / "spool")
    await put(spool, Mail.SEND, "a", "b")
    for name in ("a", "b"):
        (spool.path / ".registry" / name).unlink()
    (spool.path / "send" / "a").rename(spool.path / "send" / ".checkout" / "a")
    assert await spool.recover(dry_run=True) == Ok([Recovered("a", "send")])
    assert state_of(spool.path).registry == set(), "a dry run reserves nothing"
    assert await spool.recover() == Ok([Recovered("a", "send")])
    async with (await spool.entry(Mail.SEND, "b").unwrap().checkout()).unwrap() as job:
        (await job.save(Mail.RETRY)).unwrap()
    assert state_of(spool.path).data.keys() == {"a", "b"}
    assert state_of(spool.path).faults() == []


@pytest.mark.parametrize("call", ["directories", "regular_files"])
async def test_where_anything_cannot_be_read_nothing_is_collected(tmp_path, call):
    """What cannot be seen is not taken for absent: `Err`, and every file is there."""
    calls = FailingCalls()
    spool = await quick_spool(tmp_path / "spool", system_calls=calls)
    await put(spool, Mail.SEND, "a")
    (spool.path / ".registry" / "left").touch()
    before = contents(spool.path)
    with calls.failing(call, errno.EIO):
        assert isinstance((await spool.recover()).error, StorageFailure)
    with calls.failing("stat", errno.EACCES, "/retry/left"):
        answer = await spool.recover()
        assert isinstance(answer, Err) or Recovered("left", None) not in answer.value
    assert contents(spool.path) == before
    assert await spool.recover() == Ok([Recovered("left", None)])


async def test_an_adopted_spool_stays_as_it_is_and_one_that_is_not_becomes_one(tmp_path):
    """`adopt` writes the format file and nothing else; `recover` acts from then on."""
    spool = await quick_spool(tmp_path / "spool")
    before = contents(spool.path)
    assert await spool.adopt() == Ok(None)
    assert contents(spool.path) == before
    (spool.path / ".spool.json").unlink()
    (spool.path / ".registry" / "left").touch()
    spool = await load_spool(spool.path)
    assert await spool.recover() == Ok([])
    assert await spool.adopt() == Ok(None)
    assert contents(spool.path) == {**before, ".registry/left": b""}
    assert await spool.recover() == Ok([Recovered("left", None)])
    assert contents(spool.path) == before


@pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, OutOfSpace), (errno.EACCES, AccessDenied)])
async def test_a_spool_that_cannot_be_adopted_is_not(tmp_path, code, kind):
    """`Err`; nothing is recovered until it succeeds."""
    calls = FailingCalls()
    spool = await quick_spool(tmp_path / "spool")
    (spool.path / ".spool.json").unlink()
    spool = await load_spool(spool.path, system_calls=calls)
    (spool.path / ".registry" / "left").touch()
    with calls.failing("open", code, ".spool.json.new"):
        assert type((await spool.adopt()).error) is kind
    assert not state_of(spool.path).adopted
    assert await spool.recover() == Ok([])
    assert await spool.adopt() == Ok(None)
    assert await spool.recover() == Ok([Recovered("left", None)])


async def test_a_spool_whose_format_has_become_another_is_not_adopted(tmp_path):
    """`Err(UnsupportedFormat)`: what a later version wrote stays."""
    spool = await quick_spool(tmp_path / "spool")
    (spool.path / ".spool.json").unlink()
    spool = await load_spool(spool.path)
    (spool.path / ".spool.json").write_bytes(b'{"format": 2}')
    assert await spool.adopt() == Err(UnsupportedFormat(os.fspath(spool.path), "format 2"))
    assert (spool.path / ".spool.json").read_bytes() == b'{"format": 2}'

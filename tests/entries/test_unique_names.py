"""Names that are never made twice: what is left out when they are reserved, and what is noticed all the same."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from helpers.calls import FailingCalls
from helpers.spools import ANNE, Mail, quick_spool, state_of
from helpers.stores import NEW, NEW_DATA, claim, enqueue, enqueue_reserved, make_store, nothing, read_data
from trio_multispool import NameTaken, StorageFailure, Use

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.spools import State
    from trio_multispool.storage.directory.store import DirectoryStorage
    from trio_multispool.storage.handles import Reservation


def begin(storage: DirectoryStorage, queue: str, reservation: Reservation, content=NEW_DATA) -> None:
    """Enqueue under a reservation."""
    enqueue_reserved(storage, reservation, queue, NEW, content, durability=None, before_commit=nothing)


@pytest.fixture(params=["available", "checked out", "quarantined"])
def lost(request, tmp_path) -> tuple[Path, State]:
    """Make a spool with an entry whose reservation was lost, as power loss may have it; return how it is then."""
    path = tmp_path / "spool"
    storage = make_store(path)
    enqueue(storage, "send", "a")
    if request.param != "available":
        held = claim(storage, "send", "a")
        if request.param == "quarantined":
            storage.quarantine(held, "unreadable")
        else:
            held.abandon()
    (path / ".registry" / "a").unlink()
    storage.close()
    return path, state_of(path)


def test_an_entry_that_is_there_all_the_same_is_noticed_and_left_as_it_is(lost):
    """Its data is in the way, so nothing is written over it, it is in one place, and it has its reservation back."""
    path, before = lost
    storage = make_store(path, recover=False)
    reservation = storage.reserve("a", unique=True)
    with pytest.raises(NameTaken):
        begin(storage, "retry", reservation)
    storage.give_up(reservation)
    after = state_of(path)
    assert (after.places("a"), after.data, after.temporary) == (before.places("a"), before.data, before.temporary)
    assert after.registry == {"a"}
    with pytest.raises(NameTaken):
        storage.reserve("a")


def test_a_reservation_that_is_given_up_unused_takes_no_entry_with_it(lost):
    """Cancelled before the enqueue: the entry of that name keeps its data, and its reservation."""
    path, before = lost
    storage = make_store(path, recover=False)
    storage.give_up(storage.reserve("a", unique=True))
    after = state_of(path)
    assert (after.places("a"), after.data, after.registry) == (before.places("a"), before.data, {"a"})


@pytest.mark.parametrize("call", ["open", "change_mode", "write"])
def test_an_enqueue_that_fails_takes_no_entry_with_it(lost, call):
    """Whatever it cannot tell about the data of that name, it does not delete what may be another's."""
    path, before = lost
    calls = FailingCalls()
    storage = make_store(path, recover=False, calls=calls)
    reservation = storage.reserve("a", unique=True)
    calls.fail(call, errno.EIO, "/.data/")
    with pytest.raises((NameTaken, StorageFailure)):
        begin(storage, "retry", reservation)
    calls.mend()
    storage.give_up(reservation)
    after = state_of(path)
    assert (after.places("a"), after.data) == (before.places("a"), before.data)


def test_an_entry_without_data_and_reservation_is_not_made_a_second_time_in_its_queue(tmp_path):
    """The move does not replace it, and what was written for the new one is gone again."""
    path = tmp_path / "spool"
    storage = make_store(path)
    enqueue(storage, "send", "a")
    for directory in (".registry", ".data"):
        (path / directory / "a").unlink()
    before = state_of(path)
    reservation = storage.reserve("a", unique=True)
    with pytest.raises(NameTaken):
        begin(storage, "send", reservation)
    storage.give_up(reservation)
    after = state_of(path)
    assert after == type(after)(**{**vars(before), "registry": {"a"}})


@pytest.mark.parametrize("left", [".data/a", ".tmp/a"])
def test_what_the_dead_left_is_cleared_away_when_it_is_met(tmp_path, left):
    """A name that only a dead enqueuer used, and whose reservation was lost, can be used."""
    path = tmp_path / "spool"
    storage = make_store(path)
    (path / left).write_bytes(b"left")
    begin(storage, "send", storage.reserve("a", unique=True))
    assert state_of(path).places("a") == ["send"]
    assert (state_of(path).available["send"]["a"], read_data(storage, "a")) == (NEW, NEW_DATA)


@pytest.mark.parametrize("left", [".data/a", ".tmp/a"])
def test_data_that_can_be_written_only_once_is_not_written_for_nothing(tmp_path, left):
    """What is in its way is cleared before, so that all of a stream is in the file."""
    path = tmp_path / "spool"
    storage = make_store(path)
    (path / left).write_bytes(b"left")
    stream = iter([NEW_DATA])
    begin(storage, "send", storage.reserve("a", unique=True), lambda file: file.writelines(stream))
    assert read_data(storage, "a") == NEW_DATA


def test_an_entry_that_has_its_reservation_is_found_at_once(tmp_path):
    """Then the name is not newly reserved, and its maker can make another."""
    storage = make_store(tmp_path / "spool")
    enqueue(storage, "send", "a")
    with pytest.raises(NameTaken):
        storage.reserve("a", unique=True)


async def test_only_names_that_the_library_makes_are_not_looked_for(tmp_path):
    """A name that the caller chose is looked for in every place, one that was generated in none."""
    calls = FailingCalls()
    spool = await quick_spool(tmp_path / "spool", system_calls=calls)

    async def looks(**name) -> int:
        calls.made.clear()
        (await spool.enqueue(Mail.SEND, ANNE, b"", **name)).unwrap()
        return sum(call == "stat" and "/.registry/" not in path for call, path in calls.made)

    assert await looks(name=Use("chosen")) >= len(Mail) * 2
    assert await looks() == 0

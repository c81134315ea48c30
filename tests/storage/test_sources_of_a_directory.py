"""Finding the next entries of a directory: what only a directory gets wrong. `test_finding_the_next` has the rest."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
from typing import TYPE_CHECKING

import pytest

from helpers.calls import FailingCalls
from helpers.conformance import NotTold
from helpers.finding import Reader, put
from helpers.stores import claim_waiting, make_store, nothing, save
from trio_multispool import Durability, StorageFailure
from trio_multispool.storage.directory.schedule import UNREADABLE_INTERVAL
from trio_multispool.storage.source import Look

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from helpers.spools import Wall
    from trio_multispool.storage.directory.store import DirectoryStorage


@pytest.fixture
def calls() -> FailingCalls:
    """Make system calls that can fail."""
    return FailingCalls()


@pytest.fixture
def store(tmp_path: Path, calls: FailingCalls, clock: Wall) -> Iterator[DirectoryStorage]:
    """Make an empty store."""
    made = make_store(tmp_path / "spool", calls=calls, now=clock)
    yield made
    made.close()


def test_a_queue_that_is_missing_is_told_and_is_empty_to_who_waits(store, tmp_path):
    """Who waits goes on when somebody has put it back; who does not wait would take it for the end."""
    put(store, "a")
    reader = Reader(store)
    queue, away = tmp_path / "spool" / "send", tmp_path / "away"
    os.rename(queue, away)
    for _ in range(2):
        with pytest.raises(StorageFailure) as raised:
            reader.take()
        assert raised.value.errno == errno.ENOENT
        found = reader.ask(Look(None, waits=True)).finished
        assert found is not None
        assert not found.busy
    os.rename(away, queue)
    assert reader.take() == ["a"]


def instances() -> int:
    """Count the inotify instances that this process has open."""
    gc.collect()  # what tests that went before have left
    found = 0
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found += os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:inotify"
    return found


def test_the_last_source_that_is_closed_lets_go_of_what_tells_of_new_entries(store):
    """Though another one was closed twice; the next source has it anew."""
    put(store, "w", due_at=4_000_000_000.0)
    for _ in range(2):
        first, last = Reader(store), Reader(store)
        for reader in (first, last):
            reader.nothing_left()
        assert instances() == 1
        for _ in range(2):
            first.source.close()
            last.nothing_left()
            assert instances() == 1
        last.source.close()
        assert instances() == 0


def test_an_entry_that_cannot_be_read_is_told_and_keeps_nobody_from_the_others(store, calls):
    """It is passed over by each look, and had as soon as it can be read."""
    put(store, "a", "b", "c")
    fault = calls.fail("open", errno.EIO, on="/send/a")
    reader = Reader(store)
    reader.passed_over = []
    assert reader.take_all() == ["b", "c"]
    reader.passed_over.clear()
    assert not reader.nothing_left().busy
    assert reader.passed_over == ["a"]
    assert reader.door.inside == ["b", "c"]
    assert fault.met > 0
    calls.mend()
    assert reader.take_all() == ["a"]


def test_an_entry_that_waited_and_cannot_be_read_is_not_tried_over_and_over(store, calls, clock):
    """It would come first each time: it is tried again after a while, and meanwhile the others come."""
    put(store, "a", due_at=clock() - 2)
    put(store, "b", due_at=clock() - 1)
    put(store, "c")
    fault = calls.fail("open", errno.EIO, on="/send/.waiting/a")
    reader = Reader(store)
    reader.passed_over = []
    assert reader.take_all() == ["b", "c"]
    for times in (1, 2):
        for _ in range(3):
            left = reader.nothing_left()
            assert (left.busy, left.next_due) == (False, clock() + UNREADABLE_INTERVAL)
            assert reader.passed_over == ["a"] * times
        clock.time += UNREADABLE_INTERVAL
    assert fault.met > 0
    calls.mend()
    assert reader.take_all() == ["a"]


@pytest.fixture
def other(store: DirectoryStorage, tmp_path: Path) -> Iterator[DirectoryStorage]:
    """Open the same store a second time."""
    made = make_store(tmp_path / "spool")
    yield made
    made.close()


def test_a_listing_that_others_have_worked_off_is_not_tried_to_its_end(store, other):
    """Listing again is quicker. It is done once: the new listing is a good one."""
    old = put(store, *(f"{number:03}" for number in range(400)))
    reader = Reader(store)
    assert reader.take() == old[:1]
    for name in old[1:]:
        other.delete("send", name, durability=Durability.PROCESS, before_commit=nothing)
    new = put(other, *(f"new {number:03}" for number in range(100)))
    assert reader.take_all() == new
    assert len(reader.door.asked) < len(new) + len(old) / 4
    assert len(reader.door.listings) <= 3, "at first, in between and at the end"


def test_a_reader_does_not_wait_for_a_time_that_is_out_of_date(store, other, clock):
    """It was told that the entry waits longer now: it need not wake before."""
    early, late = clock() + 10, clock() + 100
    put(other, "w", due_at=early)
    reader = Reader(store)
    assert reader.nothing_left().next_due == early
    save(other, claim_waiting(other, "send", "w"), "send", None, due_at=late)
    assert reader.nothing_left().next_due == late


def test_an_entry_that_sorts_before_the_listed_ones_is_found_before_they_are_used_up(store, other):
    """Where new names need not sort last: the queue is listed again, though the listed ones suffice for ever."""
    put(store, "b", "c")
    reader = Reader(store, sorts_last=False)
    assert reader.take() == ["b"]
    put(other, "a")
    for _ in range(50_000):
        reader.take_back()
        [name] = reader.take()
        if name == "a":
            break
    assert name == "a"


@pytest.mark.parametrize("told", [True, False])
def test_what_comes_in_to_wait_is_found_though_the_listed_ones_suffice_for_ever(tmp_path, clock, told):
    """What waits and is due would never come otherwise while there is more work than can be done."""
    more = {} if told else {"calls": NotTold()}
    store, other = (make_store(tmp_path / "another", now=clock, **more) for _ in range(2))
    put(store, "a", "b")
    put(other, "v", due_at=clock() + 100)
    reader = Reader(store)
    assert reader.take() == ["a"]
    put(other, "w", due_at=clock() - 1)
    for _ in range(100_000):
        reader.take_back()
        [name] = reader.take()
        if name == "w":
            break
    assert name == "w"
    for each in (store, other):
        each.close()


def test_no_call_tries_very_many_entries(store):
    """Its caller may be cancelled between two."""
    names = put(store, *(f"{number:03}" for number in range(300)))
    reader = Reader(store)
    reader.door.refused = set(names)
    asked, tries, finished = reader.look(), [], None
    while finished is None:
        finished = reader.call(asked).finished
        tries.append(len(reader.door.asked) - sum(tries))
        assert len(tries) < len(names)
    assert max(tries) <= len(names) / 2
    assert sum(tries) >= len(names)

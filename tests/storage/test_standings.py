"""What a look for metrics costs and cannot know; what any store tells is in `test_storage_protocol`, too."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

import pytest

from helpers.conformance import directory_store, memory_store
from helpers.stores import claim, enqueue, fill, make_store, release
from trio_multispool.model.lifecycle import State
from trio_multispool.storage.directory import standing
from trio_multispool.storage.directory.disk.syscalls import SystemCalls

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.conformance import Kind
    from trio_multispool.storage.protocol import Storage
    from trio_multispool.storage.requests import Standing


def sent(store: Storage) -> Standing:
    """Return how a queue stands."""
    [found] = [each for each in store.standings() if each.queue == "send"]
    return found


@pytest.mark.parametrize("kind", [directory_store, memory_store])
def test_check_outs_whose_owner_is_dead_are_counted_until_they_are_put_back(tmp_path: Path, kind: Kind):
    """And are left where they are. Those of a server, which does so by itself: `postgres/test_looking`."""
    opening = kind(tmp_path, time.time)
    store, other = opening(), opening()
    for name in ("a", "b", "c"):
        enqueue(store, "send", name)
    held = [claim(store, "send", name) for name in ("a", "b", "c")]
    assert sent(other).abandoned == 0
    for each in held[:2]:
        each.abandon()
    for _ in range(2):
        standing = sent(other)
        assert (standing.abandoned, standing.entries[State.CHECKED_OUT]) == (2, 3)
    other.recover()
    assert sent(other).abandoned == 0
    release(store, held[2])
    store.close()
    other.close()


class Looking(SystemCalls):
    """System calls that count how many files are looked at one by one."""

    looked = 0

    def stat(self, name: str, directory: int) -> os.stat_result:
        """Count."""
        self.looked += 1
        return super().stat(name, directory)


@pytest.mark.parametrize("state", [State.AVAILABLE, State.CHECKED_OUT])
def test_of_a_long_queue_a_few_are_looked_at_and_all_are_counted(tmp_path: Path, monkeypatch, state):
    """The first by name, which readers take next; so a look at many takes no longer than their listing."""
    monkeypatch.setattr(standing, "LOOKED_AT", 5)
    counts = {}
    for number in (5, 50):
        calls = Looking()
        with contextlib.closing(make_store(tmp_path / f"{number}", calls=calls)) as store:
            names = [f"n{each:02}" for each in range(number)]
            fill(store, "send", names)
            if state is State.CHECKED_OUT:
                for claimed in [claim(store, "send", name) for name in names]:
                    claimed.abandon()
            else:
                for name in names[5:]:  # the oldest by its date, and none of the first
                    os.utime(store.layout.full("send", name), (1, 1))
            store.standings()
            calls.looked = 0
            found = sent(store)
            counts[number] = calls.looked
            assert found.entries[state] == number
            assert found.abandoned == (5 if state is State.CHECKED_OUT else 0)
    assert counts[50] == counts[5]


def test_nobody_is_known_to_be_dead_where_nobody_need_take_locks(tmp_path: Path):
    """In a spool that is not adopted, it is said that this is not known."""
    store = make_store(tmp_path / "spool", adopted=False)
    fill(store, "send", ["a"])
    claim(store, "send", "a").abandon()
    assert {each.abandoned for each in store.standings()} == {None}
    store.close()


def test_a_check_out_without_a_lock_to_take_is_not_known_to_be_dead(tmp_path: Path):
    """Its reservation has gone, or is no file: then a monitor tells what is wrong."""
    store = make_store(tmp_path / "spool")
    fill(store, "send", ["a", "b", "c"])
    for claimed in [claim(store, "send", name) for name in ("a", "b", "c")]:
        claimed.abandon()
    (tmp_path / "spool" / ".registry" / "a").unlink()
    (tmp_path / "spool" / ".registry" / "b").unlink()
    (tmp_path / "spool" / ".registry" / "b").mkdir()
    found = sent(store)
    assert (found.entries[State.CHECKED_OUT], found.abandoned) == (3, 1)
    store.close()


def test_an_entry_that_is_settled_while_it_is_looked_at_is_not_abandoned(tmp_path: Path, monkeypatch):
    """Its lock can be taken, because it is in its queue again by then."""
    store = make_store(tmp_path / "spool")
    fill(store, "send", ["a"])
    claimed, lock_existing = claim(store, "send", "a"), standing.lock_existing

    def release_first(layout, name):
        release(store, claimed)
        return lock_existing(layout, name)

    monkeypatch.setattr(standing, "lock_existing", release_first)
    assert sent(store).abandoned == 0
    store.close()

"""What any store tells those who examine it: enough to judge each entry, and never one in motion."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from helpers.stores import available, claim, claim_waiting, enqueue, release, remove, waiting
from trio_multispool.model.lifecycle import Place, State
from trio_multispool.storage.findings import DATA, REGISTRY, Dir, Findings, Holder, Wanted

if TYPE_CHECKING:
    from trio_multispool.storage.protocol import Storage

ALL = Wanted(dict.fromkeys(("send", "retry"), math.inf), judged=frozenset({"send"}))
"""Look at everything that can be looked at."""


def no_fault(_queue: str, _raw: bytes) -> None:
    """Find nothing wrong with any metadata."""


def examined(store: Storage, wanted: Wanted = ALL, judge=no_fault) -> dict[str, Findings]:
    """Examine a store, and return the findings by name."""
    found = [each for each in store.examine(wanted, judge) if isinstance(each, Findings)]
    assert len({each.name for each in found}) == len(found)
    return {each.name: each for each in found}


def places(found: Findings) -> list[Place]:
    """Return where the entry is."""
    return [file.dir.place for file in found.files if file.dir.place is not None]


@pytest.mark.parametrize("place", [available("send"), waiting("send")], ids=["available", "waiting"])
def test_what_may_be_too_old_is_told_with_its_times(store, clock, place):
    """Of what is available, when it was written; of what waits, when it is due. Younger ones may be left out."""
    due_at = None if place.state is State.AVAILABLE else clock.time + 5
    enqueue(store, "send", "a", due_at=due_at)
    found = examined(store)["a"]
    assert places(found) == [place]
    assert found.at(REGISTRY) is not None
    assert found.at(DATA) is not None
    trace = found.at(Dir.of(place))
    assert trace is not None
    if due_at is not None:
        assert trace.modified_at == due_at
        assert trace.changed_at != due_at, "or its time would count as lost"
    closely = store.look_closely("a", no_fault)
    assert (closely.holder, places(closely)) == (Holder.NOBODY, [place])


def test_what_becomes_due_in_the_moment_in_which_it_is_put_back_has_not_lost_its_time(store, clock):
    """Its time is as old as its move, and kept apart from it."""
    enqueue(store, "send", "a", due_at=clock.time + 5)
    clock.time += 5
    release(store, claim_waiting(store, "send", "a"))
    for trace in store.look_closely("a", no_fault).files:
        assert trace.dir.place is None or trace.modified_at != trace.changed_at


def test_what_is_in_hand_is_told_and_so_is_that_its_owner_lives(store, other):
    """It counts as held, until its owner is dead; recovery then puts it back."""
    enqueue(store, "send", "a")
    claimed = claim(store, "send", "a")
    held = Place("send", State.CHECKED_OUT)
    assert places(examined(other)["a"]) == [held]
    closely = other.look_closely("a", no_fault)
    assert (closely.holder, places(closely)) == (Holder.SOMEBODY, [held])
    claimed.abandon()
    closely = other.look_closely("a", no_fault)
    assert (closely.holder, places(closely)) == (Holder.NOBODY, [held])
    assert other.recover_name("a") is not None
    assert places(other.look_closely("a", no_fault)) == [available("send")]


def test_a_name_that_is_reserved_belongs_to_nobody_once_its_owner_is_dead(store, other):
    """Then it is an orphan, which recovery collects; and then there is nothing under that name."""
    reservation = store.reserve("a")
    assert other.look_closely("a", no_fault).holder is Holder.SOMEBODY
    reservation.abandon()
    found = examined(other)["a"]
    assert [file.dir for file in found.files] == [REGISTRY]
    assert other.look_closely("a", no_fault).holder is Holder.NOBODY
    assert other.recover_name("a") is not None
    assert other.look_closely("a", no_fault).files == ()
    assert "a" not in examined(other)


def test_metadata_is_judged_and_the_fault_told(store, other):
    """Of what is available in the queues that are asked for; the judge says what is wrong with it."""

    def judge(queue: str, raw: bytes) -> str | None:
        return f"{raw.decode()} in {queue}" if raw != b"good" else None

    for name, metadata in (("a", b"bad"), ("b", b"good")):
        enqueue(store, "send", name, metadata)
    enqueue(store, "send", "c", b"bad")
    claimed = claim(store, "send", "c")
    faults = {
        name: [file.fault for file in found.files if file.fault is not None]
        for name, found in examined(other, Wanted(judged=frozenset({"send"})), judge).items()
    }
    assert faults["a"] == ["bad in send"]
    assert not any(fault for name, fault in faults.items() if name != "a")
    assert [file.fault for file in other.look_closely("a", judge).files if file.fault] == ["bad in send"]
    remove(store, claimed)


def test_what_was_asked_for_by_its_name_is_told(store):
    """However young and regular it is; what there is nothing of has no findings, or empty ones."""
    enqueue(store, "send", "a")
    found = examined(store, Wanted(names=frozenset({"a", "nothing"})))
    assert places(found["a"]) == [available("send")]
    assert "nothing" not in found or found["nothing"].files == ()


def test_a_name_that_is_only_remembered_is_no_orphan(store, clock):
    """Nor is one that was: it is forgotten in time, and nothing is wrong."""
    reservation = store.reserve("a")
    store.remember(reservation, 5, durability=None)
    store.give_up(reservation)
    for _ in range(2):
        found = examined(store)
        assert "a" not in found or found["a"].files == ()
        clock.time += 10

"""What any store tells and takes so that a spool can be taken to another one: all that belongs to an entry."""

from __future__ import annotations

import pytest

from helpers.stores import (
    DATA,
    DUE,
    NEW,
    OLD,
    available,
    claim,
    enqueue,
    enqueue_reserved,
    nothing,
    remove,
    save,
    waiting,
)
from trio_multispool.model.lifecycle import State
from trio_multispool.model.verdicts import Unavailable

NOTES = {"attempts": b'{"queue":"send","spent":1,"given_up":false,"attempts":[]}', "more": b"[1,2]"}


def told(store, name: str) -> dict[str, bytes]:
    """Return the notes on an entry, as they were written."""
    return {key: bytes(value) for key, value in store.notes(name).items()}


@pytest.mark.parametrize("due_at", [None, DUE], ids=["available", "waiting"])
@pytest.mark.parametrize("carrier", [None, {"traceparent": "00-1-2-01"}], ids=["alone", "with a carrier"])
def test_an_entry_is_made_with_notes(store, other, due_at, carrier):
    """They are there with it, beside its carrier, and stay with it when it is moved; another key changes no other."""
    enqueue_reserved(store, store.reserve("a"), "send", OLD, DATA, notes=NOTES, due_at=due_at, carrier=carrier)
    assert {key: told(other, "a").get(key) for key in NOTES} == NOTES
    assert other.carrier("a") == (carrier or {})
    place = available("send") if due_at is None else waiting("send")
    claimed = other.claim(place, "a", before_commit=nothing)
    other.annotate(claimed, "more", b"3")
    save(other, claimed, "retry", NEW)
    assert {key: told(store, "a").get(key) for key in NOTES} == {**NOTES, "more": b"3"}
    assert store.carrier("a") == (carrier or {})


def test_notes_of_an_entry_that_is_not_made_are_not_there(store, other):
    """Its name can be used again, and the next entry of it has none of them."""

    def refuse() -> None:
        raise KeyError

    reservation = store.reserve("a")
    with pytest.raises(KeyError):
        enqueue_reserved(store, reservation, "send", OLD, DATA, notes=NOTES, before_commit=refuse)
    store.give_up(reservation)
    enqueue(other, "send", "a")
    assert told(store, "a") == {}


def test_what_waits_is_read_whole_and_nobody_can_have_it_meanwhile(store, other):
    """Like what is available."""
    enqueue(store, "send", "a", due_at=DUE)

    def read(metadata, found, file):
        busy = other.claim(waiting("send"), "a", before_commit=nothing)
        return metadata, found.size, file.read(), busy

    seen = store.read_entry("send", "a", read, state=State.WAITING)
    assert seen == (OLD, len(OLD), DATA, Unavailable.BUSY)
    assert store.read_entry("send", "a", read) is Unavailable.GONE
    [item] = store.inventory()
    assert item.place == waiting("send")
    remove(other, other.claim(waiting("send"), "a", before_commit=nothing))


def test_the_names_that_are_remembered_are_told(store, other, clock):
    """By pages, in their order, until their time has passed; not those of entries that are there."""
    assert store.remembered() == []
    for name in ("c", "a", "b"):
        reservation = store.reserve(name)
        store.remember(reservation, 100, durability=None)
        store.give_up(reservation)
    enqueue_reserved(store, store.reserve("d"), "send", OLD, DATA, remember=50)
    until = pytest.approx(clock.time + 100, abs=3)
    assert other.remembered() == [("a", until), ("b", until), ("c", until)]
    assert other.remembered(after="a", most=1) == [("b", until)]
    assert [other.remembered_until(name) for name in "abcd"] == [until, until, until, None]
    remove(store, claim(store, "send", "d"))
    assert [name for name, _ in other.remembered()] == ["a", "b", "c", "d"]
    clock.time += 60
    assert [name for name, _ in other.remembered()] == ["a", "b", "c"]


def test_for_how_long_to_remember_a_name_is_told_while_its_entry_is_there(store, other):
    """As it was asked for."""
    enqueue_reserved(store, store.reserve("a"), "send", OLD, DATA, remember=50)
    enqueue(store, "send", "b")
    assert [other.remember_for(name) for name in ("a", "b", "nothing")] == [50, None, None]
    claimed = claim(store, "send", "a")
    assert other.remember_for("a") == 50
    save(store, claimed, "retry")
    assert other.remember_for("a") == 50

"""What any store must do, in the words of `Storage` only; `test_finding_the_next` has the suite for `Source`."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from helpers.conformance import Commit, WithdrawnError, look
from helpers.stores import (
    DATA,
    DUE,
    NEW,
    NEW_DATA,
    OLD,
    QUEUES,
    available,
    claim,
    claim_waiting,
    enqueue,
    enqueue_reserved,
    is_available,
    nothing,
    read_data,
    release,
    remove,
    replace_data,
    save,
    sweep,
    try_claim,
    waiting,
    writing,
)
from trio_multispool import (
    DataNotFound,
    Durability,
    EntryBusy,
    EntryNotFound,
    NameTaken,
    OwnershipLost,
    SpoolError,
    Unavailable,
)
from trio_multispool.model.lifecycle import Place, State, Step
from trio_multispool.model.notes import PROGRESS
from trio_multispool.model.times import aware
from trio_multispool.storage.requests import Item, NotDue, Recovered

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_multispool.storage.handles import Claim, Reservation
    from trio_multispool.storage.protocol import Storage


def due_at(store: Any, queue: str, name: str) -> float | None:
    """Return when an entry that waits for a queue is due."""
    return {waiting_name: due for due, waiting_name in store.waiting(queue)}.get(name)


AVAILABLE = (Place("send", State.AVAILABLE), OLD, DATA)
HELD = (Place("send", State.CHECKED_OUT), OLD, DATA)


WAITING = (Place("send", State.WAITING), OLD, DATA)

# Reserving and enqueueing


def test_an_entry_that_was_enqueued_is_seen_by_everybody(store, other):
    """Name, metadata and data are what was given, in that queue and no other."""
    enqueue(store, "send", "a")
    assert other.names("send") == ["a"]
    assert other.names("retry") == []
    assert is_available(other, "send", "a")
    assert not is_available(other, "retry", "a")
    assert not is_available(other, "send", "b")
    assert other.read_metadata(available("send"), "a") == OLD
    assert read_data(other, "a") == DATA
    assert look(other) == {"a": AVAILABLE}


def test_names_are_sorted(store):
    """A sorted listing is first-in first-out for names that sort by time."""
    for name in ("b", "é", "a", "B", "10", "9"):
        enqueue(store, "send", name)
    assert store.names("send") == sorted(["b", "é", "a", "B", "10", "9"])


@pytest.mark.parametrize("content", [b"", b"\x00\xff" * 3, bytes(300_000)], ids=["empty", "binary", "large"])
def test_bytes_are_kept_as_they_are(store, other, content):
    """Metadata and data of any content and size come back unchanged, also through a check-out."""
    enqueue(store, "send", "a", content, content)
    assert other.read_metadata(available("send"), "a") == content
    assert read_data(other, "a") == content
    assert store.stat(available("send"), "a").size == store.stat_data("a").size == len(content)
    claimed = claim(store, "send", "a")
    assert claimed.metadata == content
    release(store, claimed)


def test_times_are_aware_and_do_not_change_by_moving(store):
    """`modified_at` is when it was written, in UTC."""
    enqueue(store, "send", "a")
    written, data_written = store.stat(available("send"), "a").modified_at, store.stat_data("a").modified_at
    assert written.tzinfo is data_written.tzinfo is datetime.UTC
    save(store, claim(store, "send", "a"), "retry", None)
    assert store.stat(available("retry"), "a").modified_at == written
    assert store.stat_data("a").modified_at == data_written


def test_a_reservation_is_no_entry_and_keeps_its_name(store, other):
    """Nobody sees it, nobody can have the name, and the one who has it can enqueue."""
    reservation = store.reserve("a")
    assert (reservation.name, reservation.state) == ("a", State.NOTHING)
    for each in (store, other):
        assert each.names("send") == []
        assert list(each.inventory()) == []
        assert try_claim(each, "send", "a") in (Unavailable.GONE, Unavailable.BUSY)
        with pytest.raises(EntryBusy):
            each.reserve("a")
    enqueue_reserved(store, reservation, "send", OLD, writing(DATA), durability=None, before_commit=nothing)
    assert reservation.state is State.AVAILABLE
    assert look(other) == {"a": AVAILABLE}


def test_a_name_that_was_given_up_is_free(store, other):
    """Giving up leaves nothing, and is idempotent."""
    reservation = store.reserve("a")
    store.give_up(reservation)
    store.give_up(reservation)
    assert [*other.recover(), *sweep(other)] == []
    enqueue(other, "send", "a")
    store.give_up(reservation)
    assert look(store) == {"a": AVAILABLE}


def test_a_reservation_is_used_once(store):
    """A second enqueue with it is refused, and changes nothing."""
    reservation = store.reserve("a")
    enqueue_reserved(store, reservation, "send", OLD, writing(DATA), durability=None, before_commit=nothing)
    with pytest.raises(RuntimeError):
        enqueue_reserved(store, reservation, "retry", NEW, writing(DATA), durability=None, before_commit=nothing)
    assert look(store) == {"a": AVAILABLE}


def test_a_name_is_taken_as_long_as_there_is_an_entry(store, other):
    """Available, checked out or set aside: one name, one entry. Removed: free."""
    enqueue(store, "send", "a")
    with pytest.raises(NameTaken):
        other.reserve("a")
    claimed = claim(store, "send", "a")
    with pytest.raises(NameTaken):
        other.reserve("a")
    save(store, claimed, "failed")
    with pytest.raises(NameTaken):
        other.reserve("a")
    store.quarantine(claim(store, "failed", "a"), "unreadable")
    with pytest.raises(NameTaken):
        other.reserve("a")
    enqueue(store, "send", "b")
    remove(store, claim(store, "send", "b"))
    enqueue(other, "send", "b", NEW, NEW_DATA)
    assert read_data(store, "b") == NEW_DATA


def test_the_name_of_a_dead_reservation_is_free(store, other):
    """A name whose holder died can be reserved by anybody, at once."""
    store.reserve("a").abandon()
    enqueue(other, "send", "a")
    assert look(store) == {"a": AVAILABLE}


class CodecError(Exception):
    """What a codec raises."""


@pytest.mark.parametrize("written", [b"", b"half", bytes(300_000)], ids=["nothing", "little", "much"])
def test_what_the_writer_of_the_data_raises_undoes_the_enqueue(store, other, written):
    """It passes on as the same object, and there is no entry; the reservation is kept, and can be used or given up."""
    error = CodecError()

    def write(file: Any) -> None:
        file.write(written)
        raise error

    for name in ("a", "b"):
        reservation = store.reserve(name)
        with pytest.raises(CodecError) as raised:
            enqueue_reserved(store, reservation, "send", OLD, write, durability=None, before_commit=nothing)
        assert raised.value is error
        assert reservation.state is State.NOTHING
        assert name not in look(other)
        with pytest.raises(EntryBusy):
            other.reserve(name)
        assert [*other.recover(), *sweep(other)] == []
        if name == "a":
            enqueue_reserved(store, reservation, "send", OLD, writing(DATA), durability=None, before_commit=nothing)
        else:
            store.give_up(reservation)
    assert look(other) == {"a": AVAILABLE}
    enqueue(other, "send", "b")


def test_a_failed_enqueue_whose_reservation_is_lost_leaves_nothing(store, other):
    """Whoever dies after its enqueue failed leaves a name that can be used again, and nothing to be found."""
    reservation = store.reserve("a")
    with pytest.raises(WithdrawnError):
        enqueue_reserved(
            store, reservation, "send", OLD, writing(DATA), durability=None, before_commit=Commit(withdraw=True)
        )
    reservation.abandon()
    assert sweep(other) == [Recovered("a", None)]
    assert look(other) == {}
    enqueue(other, "send", "a", NEW, NEW_DATA)
    assert read_data(store, "a") == NEW_DATA


def test_of_many_who_want_one_name_one_gets_it(store, other):
    """The others are told that it is taken or busy."""
    outcomes: list[str] = []
    barrier = threading.Barrier(6)

    def make(each: Storage, name: str) -> None:
        barrier.wait()
        try:
            enqueue(each, "send", name)
        except (NameTaken, EntryBusy):
            outcomes.append("refused")
        else:
            outcomes.append("made")

    for number in range(10):
        outcomes.clear()
        threads = [threading.Thread(target=make, args=[each, f"{number}"]) for each in (store, other) * 3]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["made", *["refused"] * 5]


# Checking out and settling


def test_a_claim_shows_what_was_checked_out(store, other):
    """Queue, name, metadata, and that it is held; the entry has left its queue."""
    enqueue(store, "send", "a")
    claimed = claim(store, "send", "a")
    assert (claimed.queue, claimed.name, claimed.metadata) == ("send", "a", OLD)
    assert (claimed.state, claimed.held) == (State.CHECKED_OUT, True)
    assert other.names("send") == []
    assert not is_available(other, "send", "a")
    with pytest.raises(EntryNotFound):
        other.read_metadata(available("send"), "a")
    assert look(other) == {"a": HELD}
    release(store, claimed)


def test_what_somebody_has_is_busy_and_what_is_not_there_is_gone(store, other):
    """For everybody, the owner included."""
    enqueue(store, "send", "a")
    claimed = claim(store, "send", "a")
    for each in (store, other):
        assert try_claim(each, "send", "a") is Unavailable.BUSY
        assert try_claim(each, "send", "nobody") is Unavailable.GONE
    release(store, claimed)
    assert try_claim(other, "retry", "a") is Unavailable.GONE
    assert look(store) == {"a": AVAILABLE}


def _save_elsewhere(store: Storage, claimed: Claim) -> None:
    save(store, claimed, "retry", NEW)


def _save_unchanged(store: Storage, claimed: Claim) -> None:
    save(store, claimed, "retry", None)


def _save_in_place(store: Storage, claimed: Claim) -> None:
    save(store, claimed, "send", NEW)


def _quarantine(store: Storage, claimed: Claim) -> None:
    store.quarantine(claimed, "unreadable")


def _release(store: Storage, claimed: Claim) -> None:
    release(store, claimed)


SETTLED = {
    _save_elsewhere: {"a": (Place("retry", State.AVAILABLE), NEW, DATA)},
    _save_unchanged: {"a": (Place("retry", State.AVAILABLE), OLD, DATA)},
    _save_in_place: {"a": (Place("send", State.AVAILABLE), NEW, DATA)},
    _release: {"a": AVAILABLE},
    remove: {},
    _quarantine: {"a": (Place("send", State.QUARANTINED), OLD, DATA)},
}


@pytest.mark.parametrize("settle", SETTLED, ids=lambda settle: settle.__name__.strip("_"))
def test_settling_takes_the_entry_where_it_is_to_go(store, other, settle):
    """The claim says so, is held no more, and the next owner can come at once."""
    enqueue(store, "send", "a")
    claimed = claim(store, "send", "a")
    settle(store, claimed)
    assert look(other) == SETTLED[settle]
    assert claimed.state is not State.CHECKED_OUT
    assert not claimed.held
    for place, *_ in SETTLED[settle].values():
        if place.state is State.AVAILABLE:
            assert other.read_metadata(available(place.queue), "a") == claim(other, place.queue, "a").metadata
    assert [*sweep(other)] == []


@pytest.mark.parametrize("again", SETTLED, ids=lambda settle: settle.__name__.strip("_"))
@pytest.mark.parametrize("settle", SETTLED, ids=lambda settle: settle.__name__.strip("_"))
def test_a_claim_is_settled_once(store, settle, again):
    """Settling it again is a bug in the caller, who is told, and changes nothing."""
    enqueue(store, "send", "a")
    claimed = claim(store, "send", "a")
    settle(store, claimed)
    before = look(store)
    with pytest.raises((RuntimeError, OwnershipLost)):
        again(store, claimed)
    assert look(store) == before == SETTLED[settle]


@pytest.mark.parametrize("settle", SETTLED, ids=lambda settle: settle.__name__.strip("_"))
def test_a_claim_that_was_abandoned_settles_nothing(store, other, settle):
    """Whoever let go is told that the entry is its own no more, whoever has it by now."""
    enqueue(store, "send", "a")
    claimed = claim(store, "send", "a")
    claimed.abandon()
    claimed.abandon()
    with pytest.raises(OwnershipLost):
        settle(store, claimed)
    assert other.recover() == [Recovered("a", "send")]
    mine = claim(other, "send", "a")
    with pytest.raises(OwnershipLost):
        settle(store, claimed)
    assert look(other) == {"a": HELD}
    release(other, mine)


# Entries that wait


def test_an_entry_that_waits_is_in_no_listing_and_keeps_its_name(store, other):
    """It is where it waits, and nowhere else: not to be had, not to be enqueued again; and when it is due is told."""
    enqueue(store, "send", "a", due_at=DUE)
    enqueue(store, "send", "b")
    assert look(other) == {"a": WAITING, "b": AVAILABLE}
    assert other.names("send") == ["b"]
    assert not is_available(other, "send", "a")
    assert try_claim(other, "send", "a") is Unavailable.GONE
    assert list(other.waiting("send")) == [(DUE, "a")]
    assert list(other.waiting("retry")) == []
    assert (due_at(other, "send", "a"), due_at(other, "send", "b"), due_at(other, "retry", "a")) == (DUE, None, None)
    assert [(item.name, item.due_at) for item in other.inventory("send", State.WAITING)] == [
        ("a", datetime.datetime.fromtimestamp(DUE, datetime.UTC))
    ]
    with pytest.raises(NameTaken):
        enqueue(other, "retry", "a")
    assert list(other.recover_all()) == []
    assert look(other) == {"a": WAITING, "b": AVAILABLE}


def test_an_entry_that_waits_is_checked_out_when_it_is_due_and_not_before(store, other):
    """Whoever asks too early is told when, and has left it where it is."""
    enqueue(store, "send", "a", due_at=DUE)
    early = other.claim(waiting("send"), "a", due_by=DUE - 1, before_commit=nothing)
    assert early == NotDue(DUE)
    assert look(other) == {"a": WAITING}
    assert other.claim(waiting("retry"), "a", due_by=DUE, before_commit=nothing) is Unavailable.GONE
    claimed = claim_waiting(other, "send", "a", DUE)
    assert (claimed.queue, claimed.metadata) == ("send", OLD)
    assert store.claim(waiting("send"), "a", due_by=DUE, before_commit=nothing) is Unavailable.BUSY
    assert look(store) == {"a": HELD}
    assert claimed.due_at == DUE
    release(other, claimed)
    assert look(store) == {"a": WAITING}
    assert due_at(store, "send", "a") == DUE


def test_an_entry_can_be_saved_to_wait(store, other):
    """In its queue or another, with new metadata or without; what it was stays the same but for that."""
    enqueue(store, "send", "a")
    save(store, claim(store, "send", "a"), "retry", NEW, due_at=DUE)
    assert look(other) == {"a": (Place("retry", State.WAITING), NEW, DATA)}
    assert due_at(other, "retry", "a") == DUE
    save(other, claim_waiting(other, "retry", "a"), "send", None, due_at=DUE + 1)
    assert look(store) == {"a": (Place("send", State.WAITING), NEW, DATA)}
    assert due_at(store, "send", "a") == DUE + 1
    save(store, claim_waiting(store, "send", "a"), "send", OLD)
    assert look(other) == {"a": AVAILABLE}
    assert list(other.waiting("send")) == []


def test_what_waits_is_as_old_as_it_is(store, clock):
    """When it is due is not when it was written: its age is that of the last time that it was moved, or less."""
    before = datetime.datetime.fromtimestamp(clock(), datetime.UTC) - datetime.timedelta(seconds=2)
    enqueue(store, "send", "a", due_at=DUE)
    [item] = store.inventory()
    assert before < item.modified_at < before + datetime.timedelta(minutes=10)
    claim_waiting(store, "send", "a").abandon()
    store.recover()
    assert before < store.stat(available("send"), "a").modified_at < before + datetime.timedelta(minutes=10)


def test_a_claim_tells_when_its_entry_was_written_and_not_when_it_was_taken(store, clock):
    """What it tells is what the listing told, so that they can be compared to see whether it was written since."""
    for name, due_at in (("a", None), ("b", DUE)):
        enqueue(store, "send", name, due_at=due_at)
        [item] = store.inventory()
        taken = claim(store, "send", name) if due_at is None else claim_waiting(store, "send", name)
        assert aware(taken.written_at) == item.modified_at
        save(store, taken, "retry", NEW)
        remove(store, claim(store, "retry", name))


def test_a_claim_tells_since_when_its_entry_was_to_be_had(store):
    """Since it came into its queue, whether or not its metadata were written anew; or since it was due."""
    enqueue(store, "send", "a")
    for queue, metadata in (("retry", None), ("send", NEW), ("failed", None)):
        [item] = store.inventory()
        taken = claim(store, item.place.queue, "a")
        assert taken.available_since == item.moved_at
        save(store, taken, queue, metadata)
    save(store, claim(store, "failed", "a"), "send", due_at=DUE)
    assert claim_waiting(store, "send", "a").available_since == DUE


def test_what_a_dead_owner_had_taken_when_it_was_due_is_available(store, other):
    """It was due, so nothing has to wait any more."""
    enqueue(store, "send", "a", due_at=DUE)
    claim_waiting(store, "send", "a").abandon()
    assert other.recover() == [Recovered("a", "send")]
    assert look(other) == {"a": AVAILABLE}


def test_whoever_withdraws_leaves_an_entry_waiting_or_not_there(store, other):
    """Enqueueing, checking out and saving can be given up right before the commit."""
    reservation = store.reserve("a")
    arguments = (reservation, "send", OLD, writing(DATA))
    with pytest.raises(WithdrawnError):
        enqueue_reserved(store, *arguments, durability=None, before_commit=Commit(withdraw=True), due_at=DUE)
    assert look(other) == {}
    enqueue_reserved(store, *arguments, durability=None, before_commit=nothing, due_at=DUE)
    with pytest.raises(WithdrawnError):
        other.claim(waiting("send"), "a", due_by=DUE, before_commit=Commit(withdraw=True))
    assert look(store) == {"a": WAITING}
    claimed = claim_waiting(other, "send", "a")
    with pytest.raises(WithdrawnError):
        save(other, claimed, "retry", NEW, due_at=DUE, durability=None, before_commit=Commit(withdraw=True))
    assert look(store) == {"a": HELD}
    release(other, claimed)


def test_what_is_set_aside_has_its_reason(store, other):
    """An entry in quarantine is not available, and whoever looks after it can read what it was and why it is there."""
    enqueue(store, "send", "a")
    assert store.quarantine_reason("a") is None
    store.quarantine(claim(store, "send", "a"), "cannot be decoded: \udcff")
    [item] = other.inventory()
    assert item.place == Place("send", State.QUARANTINED)
    assert other.read_metadata(item.place, "a") == OLD
    assert "cannot be decoded" in str(other.quarantine_reason("a"))
    assert try_claim(other, "send", "a") is Unavailable.GONE
    assert [*other.recover(), *sweep(other)] == []
    with pytest.raises(EntryNotFound):
        other.read_metadata(Place("send", State.AVAILABLE), "a")


def test_an_entry_can_be_read_whole_while_nobody_can_take_it(store, other):
    """Metadata, their size and data; it is not moved meanwhile, and to be had again right after."""
    enqueue(store, "send", "a")
    seen: list[Any] = []

    def read(metadata: bytes, found: Any, file: Any) -> str:
        seen.append((metadata, found.size, file.read(), try_claim(store, "send", "a"), look(store)))
        return "read"

    assert other.read_entry("send", "a", read) == "read"
    assert seen == [(OLD, len(OLD), DATA, Unavailable.BUSY, {"a": AVAILABLE})]
    release(store, claim(store, "send", "a"))


def test_what_cannot_be_read_whole_is_told(store, other):
    """Busy, gone, or without its data; what the reading itself raises passes through, and the lock is let go."""
    enqueue(store, "send", "a")
    claimed = claim(store, "send", "a")
    assert other.read_entry("retry", "a", lambda *_: 1) is Unavailable.BUSY
    release(store, claimed)
    assert other.read_entry("retry", "a", lambda *_: 1) is Unavailable.GONE
    assert other.read_entry("send", "nobody", lambda *_: 1) is Unavailable.GONE
    with pytest.raises(ZeroDivisionError):
        other.read_entry("send", "a", lambda *_: 1 // 0)
    assert [*other.recover(), *sweep(other)] == []
    release(store, claim(store, "send", "a"))


def test_the_inventory_can_be_cut_to_the_first_by_name(store):
    """In their order, from all the places that are asked for."""
    for number in (3, 1, 4, 0, 2):
        enqueue(store, "retry" if number == 1 else "send", f"{number}")
    claimed = claim(store, "send", "2")
    assert [item.name for item in store.inventory(most=4)] == ["0", "1", "2", "3"]
    assert [item.name for item in store.inventory("send", State.AVAILABLE, most=2)] == ["0", "3"]
    assert [item.name for item in store.inventory("send", State.CHECKED_OUT, most=9)] == ["2"]
    assert list(store.inventory("send", State.QUARANTINED, most=9)) == []
    remove(store, claimed)


def test_the_inventory_tells_since_when_an_entry_is_where_it_is(store, clock):
    """Whoever moved it; and how much data it has, if the store knows that without looking."""
    enqueue(store, "send", "a", data=b"12345")
    [before] = store.inventory()
    assert before.data_size in (None, 5)
    claimed = claim(store, "send", "a")
    [held] = store.inventory()
    assert held.moved_at is not None
    assert before.moved_at is not None
    assert held.moved_at >= before.moved_at
    assert held.owner is None or held.owner.pid == os.getpid()
    remove(store, claimed)


def test_the_inventory_can_be_narrowed_and_counted(store):
    """By queue and by state; the count is that of the inventory, and each entry can be looked at where it is."""
    enqueue(store, "send", "a")
    enqueue(store, "retry", "b")
    _aside(store, "c")
    claimed = claim(store, "retry", "b")
    for queue in (None, "send", "retry"):
        for state in (None, *State):
            found = list(store.inventory(queue, state))
            assert store.count(queue, state) == len(found)
            assert all(queue in (None, item.place.queue) and state in (None, item.place.state) for item in found)
            assert all(store.stat(item.place, item.name).modified_at == item.modified_at for item in found)
    assert store.count() == 3
    with pytest.raises(EntryNotFound):
        store.stat(Place("retry", State.AVAILABLE), "b")
    release(store, claimed)


def _aside(store: Storage, name: str = "a") -> None:
    enqueue(store, "send", name)
    store.quarantine(claim(store, "send", name), "unreadable")


@pytest.mark.parametrize("to", [None, "send", "retry"])
def test_what_was_set_aside_can_be_put_back(store, other, to):
    """It is available in its queue, or in another, as it was; nothing says any more that it was set aside."""
    _aside(store)
    other.restore("send", "a", to=to, durability=None, before_commit=nothing)
    assert look(store) == {"a": (Place(to or "send", State.AVAILABLE), OLD, DATA)}
    assert store.quarantine_reason("a") is None
    remove(other, claim(other, to or "send", "a"))
    assert [*other.recover(), *sweep(other)] == []


def test_what_was_set_aside_can_be_dropped(store, other):
    """Nothing of it is left, and its name can be used again."""
    _aside(store)
    other.discard("send", "a", durability=None, before_commit=nothing)
    assert look(store) == {}
    assert store.quarantine_reason("a") is None
    assert [*other.recover(), *sweep(other)] == []
    enqueue(store, "send", "a")
    assert look(other) == {"a": AVAILABLE}


def test_the_name_of_what_is_dropped_from_the_quarantine_is_not_remembered(store, other):
    """Though that was asked for: its work was not done, so it may be sent again."""
    enqueue_reserved(store, store.reserve("a"), "send", OLD, DATA, remember=3600.0)
    store.quarantine(claim(store, "send", "a"), "unreadable")
    other.discard("send", "a", durability=None, before_commit=nothing)
    enqueue(store, "send", "a")
    assert look(other) == {"a": AVAILABLE}


@pytest.mark.parametrize("operation", ["restore", "discard"])
def test_only_what_is_in_quarantine_is_put_back_or_dropped_from_it(store, other, operation):
    """What is available, checked out, in the quarantine of another queue or nowhere is not found, and left alone."""
    _aside(store)
    enqueue(store, "retry", "free")
    enqueue(store, "retry", "held")
    claimed = claim(store, "retry", "held")
    before = look(other)
    for queue, name in (("retry", "free"), ("retry", "held"), ("retry", "a"), ("send", "nobody"), ("nowhere", "a")):
        with pytest.raises(EntryNotFound):
            getattr(other, operation)(queue, name, durability=None, before_commit=nothing)
    assert look(other) == before
    release(store, claimed)


@pytest.mark.parametrize("operation", ["restore", "discard"])
@pytest.mark.parametrize("rival", ["restore", "discard"])
def test_of_two_who_look_after_the_quarantine_one_has_its_way(store, other, operation, rival):
    """While one is at an entry the other is told that it is busy, and afterwards that it is gone."""
    _aside(store)
    told: list[BaseException] = []

    def come_in_between() -> None:
        try:
            getattr(other, rival)("send", "a", durability=None, before_commit=nothing)
        except SpoolError as error:
            told.append(error)

    getattr(store, operation)("send", "a", durability=None, before_commit=come_in_between)
    assert told == [EntryBusy("a")]
    assert look(other) == ({"a": AVAILABLE} if operation == "restore" else {})
    with pytest.raises(EntryNotFound):
        getattr(other, rival)("send", "a", durability=None, before_commit=nothing)
    assert look(other) == ({"a": AVAILABLE} if operation == "restore" else {})


@pytest.mark.parametrize("operation", ["restore", "discard"])
def test_what_is_done_to_the_quarantine_can_be_withdrawn(store, other, operation):
    """Before its commit, whoever asked for it can take it back: nothing has changed."""
    _aside(store)
    before = look(other)
    with pytest.raises(ZeroDivisionError):
        getattr(store, operation)("send", "a", durability=None, before_commit=lambda: 1 // 0)
    assert look(other) == before
    assert other.quarantine_reason("a") == "unreadable"


def test_of_many_who_want_one_entry_one_gets_it(store, other):
    """The others are told that it is busy or gone."""
    got: list[Any] = []
    barrier = threading.Barrier(6)

    def take(each: Storage, name: str) -> None:
        barrier.wait()
        got.append((each, try_claim(each, "send", name)))

    for number in range(10):
        enqueue(store, "send", f"{number}")
        got.clear()
        threads = [threading.Thread(target=take, args=[each, f"{number}"]) for each in (store, other) * 3]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 6
        [(each, mine)] = [pair for pair in got if not isinstance(pair[1], Unavailable)]
        remove(each, mine)
    assert list(store.inventory()) == []


def test_a_claim_on_what_another_has_takes_it_away_from_its_owner(store, other):
    """`claims_unsafe` shows everything that is checked out of a queue; the owner is told when it settles."""
    for name in ("a", "b"):
        enqueue(store, "send", name)
    enqueue(store, "retry", "c")
    claims = [claim(store, "send", "a"), claim(store, "send", "b"), claim(store, "retry", "c")]
    taken = {each.name: each for each in other.claims_unsafe("send")}
    assert set(taken) == {"a", "b"}
    assert not taken["a"].held
    assert (taken["a"].queue, taken["a"].metadata, taken["a"].state) == ("send", OLD, State.CHECKED_OUT)
    save(other, taken["a"], "failed", NEW)
    release(other, taken["b"])
    for claimed in claims[:2]:
        with pytest.raises(OwnershipLost):
            save(store, claimed, "retry")
        claimed.abandon()
    assert other.names("failed") == ["a"]
    assert other.names("send") == ["b"]
    with pytest.raises(RuntimeError):
        release(other, taken["b"])
    release(store, claims[2])


@pytest.mark.parametrize("settle", SETTLED, ids=lambda settle: settle.__name__.strip("_"))
@pytest.mark.parametrize("take", [_save_in_place, _release, remove], ids=lambda take: take.__name__.strip("_"))
def test_an_owner_settles_nothing_that_was_taken_away(store, other, take, settle):
    """However it was taken, and however the owner settles it: the owner is told, and what was removed stays away."""
    enqueue(store, "send", "a")
    claimed = claim(store, "send", "a")
    [taken] = other.claims_unsafe("send")
    take(other, taken)
    with pytest.raises(OwnershipLost):
        settle(store, claimed)
    claimed.abandon()
    assert look(other) == SETTLED[take]


def test_a_claim_on_what_another_has_writes_no_notes(store, other):
    """They are the owner's: nobody else tells of its progress."""
    enqueue(store, "send", "a")
    claimed = claim(store, "send", "a")
    [taken] = other.claims_unsafe("send")
    with pytest.raises(OwnershipLost):
        other.annotate(taken, PROGRESS, b"1")
    assert store.notes("a") == {}
    store.annotate(claimed, PROGRESS, b"2")
    assert {key: bytes(value) for key, value in other.notes("a").items()} == {PROGRESS: b"2"}
    release(store, claimed)


# Withdrawing


def _enqueue(store: Storage, reservation: Reservation, before_commit: Commit) -> None:
    enqueue_reserved(store, reservation, "send", OLD, writing(DATA), durability=None, before_commit=before_commit)


def _claim(store: Storage, _: None, before_commit: Commit) -> None:
    store.claim(available("send"), "a", before_commit=before_commit)


def _save(store: Storage, claimed: Claim, before_commit: Commit) -> None:
    save(store, claimed, "retry", NEW, durability=None, before_commit=before_commit)


def _remove(store: Storage, claimed: Claim, before_commit: Commit) -> None:
    remove(store, claimed, durability=None, before_commit=before_commit)


def _replace_own_data(store: Storage, claimed: Claim, before_commit: Commit) -> None:
    store.replace_data("a", claimed, writing(NEW_DATA), durability=None, before_commit=before_commit)


def _replace_data(store: Storage, _: None, before_commit: Commit) -> None:
    store.replace_data("a", None, writing(NEW_DATA), durability=None, before_commit=before_commit)


def _replace_metadata(store: Storage, _: None, before_commit: Commit) -> None:
    store.replace_metadata("send", "a", NEW, durability=None, before_commit=before_commit)


def _delete(store: Storage, _: None, before_commit: Commit) -> None:
    store.delete("send", "a", durability=None, before_commit=before_commit)


COMMITTING = [_enqueue, _claim, _save, _remove, _replace_own_data, _replace_data, _replace_metadata, _delete]
OF_AN_OWNER = [_save, _remove, _replace_own_data]


@pytest.mark.parametrize("operation", COMMITTING, ids=lambda operation: operation.__name__.strip("_"))
def test_whoever_withdraws_before_the_commit_has_changed_nothing(store, other, operation):
    """`before_commit` is called once; what it raises passes on, and all is as it was. Then it can be done."""
    enqueue(store, "send", "a")
    claimed = claim(store, "send", "a") if operation in OF_AN_OWNER else store.reserve("new")
    before = look(store)
    withdrawing, staying = Commit(withdraw=True), Commit()
    with pytest.raises(WithdrawnError):
        operation(store, claimed, withdrawing)
    assert withdrawing.calls == 1
    assert look(other) == before
    assert [*other.recover(), *sweep(other)] == []
    assert look(other) == before
    operation(store, claimed, staying)
    assert staying.calls == 1
    assert look(other) != before


@pytest.mark.parametrize("durability", [None, *Durability])
@pytest.mark.parametrize("operation", ["enqueue", "save", "remove", "replace_data"])
def test_every_level_of_durability_has_the_same_effect(store, operation, durability):
    """The level says what an operation survives, not what it does."""
    enqueue(store, "send", "a", durability=durability)
    claimed = claim(store, "send", "a")
    if operation == "save":
        save(store, claimed, "retry", durability=durability)
        assert store.names("retry") == ["a"]
    elif operation == "remove":
        remove(store, claimed, durability=durability)
        assert list(store.inventory()) == []
    elif operation == "replace_data":
        replace_data(store, "a", claimed, durability=durability)
        assert read_data(store, "a") == NEW_DATA
        release(store, claimed)


WITH_A_LEVEL: dict[str, Callable[[Any, Claim, Any], object]] = {
    "enqueue": lambda s, _, level: enqueue_reserved(s, s.reserve("new"), "send", OLD, DATA, durability=level),
    "save": lambda s, claimed, level: save(s, claimed, "retry", durability=level),
    "remove": lambda s, claimed, level: remove(s, claimed, durability=level),
    "replace own data": lambda s, claimed, level: replace_data(s, "held", claimed, durability=level),
    "replace data": lambda s, _, level: replace_data(s, "a", None, durability=level),
    "replace metadata": lambda s, _, level: s.replace_metadata(
        "send", "a", NEW, durability=level, before_commit=nothing
    ),
    "delete": lambda s, _, level: s.delete("send", "a", durability=level, before_commit=nothing),
    "restore": lambda s, _, level: s.restore("send", "aside", durability=level, before_commit=nothing),
    "discard": lambda s, _, level: s.discard("send", "aside", durability=level, before_commit=nothing),
    "remember": lambda s, _, level: s.remember(s.reserve("new"), 10.0, durability=level),
}
"""All operations for which a caller can say a level, on an entry that is there, a claim, or one in quarantine."""


@pytest.mark.parametrize("operation", WITH_A_LEVEL)
def test_what_is_no_level_of_durability_is_refused_and_changes_nothing(store, other, operation):
    """Such a mistake would silently sync nothing; a test with another store must find it too."""
    for name in ("a", "held", "aside"):
        enqueue(store, "send", name)
    store.quarantine(claim(store, "send", "aside"), "not to be read")
    claimed, before = claim(store, "send", "held"), look(other)
    with pytest.raises(TypeError, match="Durability"):
        WITH_A_LEVEL[operation](store, claimed, "power")
    assert look(other) == before
    release(store, claimed)


# Without ownership


def test_metadata_is_replaced_in_place(store, other):
    """The entry stays in its queue, with its data."""
    enqueue(store, "send", "a")
    other.replace_metadata("send", "a", NEW + b" ", durability=None, before_commit=nothing)
    assert store.read_metadata(available("send"), "a") == NEW + b" "
    assert look(store) == {"a": (AVAILABLE[0], NEW + b" ", DATA)}


def test_an_entry_is_deleted_in_place(store, other):
    """Nothing of it is left, and its name is free."""
    enqueue(store, "send", "a")
    other.delete("send", "a", durability=None, before_commit=nothing)
    assert list(store.inventory()) == []
    with pytest.raises(DataNotFound):
        read_data(store, "a")
    assert [*store.recover(), *sweep(store)] == []
    enqueue(store, "send", "a")


def test_what_is_not_available_is_not_found_and_is_not_made(store, other):
    """Absent, elsewhere or checked out: nothing that takes no ownership finds it, and none makes it."""
    enqueue(store, "retry", "elsewhere")
    enqueue(store, "send", "held")
    claimed = claim(store, "send", "held")
    before = look(store)
    for name in ("nobody", "elsewhere", "held"):
        for act in (
            lambda name=name: other.read_metadata(available("send"), name),
            lambda name=name: other.stat(available("send"), name),
            lambda name=name: other.replace_metadata("send", name, NEW, durability=None, before_commit=nothing),
            lambda name=name: other.delete("send", name, durability=None, before_commit=nothing),
        ):
            with pytest.raises(EntryNotFound) as raised:
                act()
            assert raised.value == EntryNotFound("send", name)
    assert look(store) == before
    release(store, claimed)


# Data


def test_data_is_replaced_all_at_once(store, other):
    """By its owner, and by who is not; it is committed by itself, whatever becomes of the claim."""
    enqueue(store, "send", "a")
    claimed = claim(store, "send", "a")
    replace_data(store, "a", claimed, b"longer than before, and then")
    replace_data(store, "a", claimed, b"short")
    assert read_data(other, "a") == b"short"
    release(store, claimed)
    assert read_data(other, "a") == b"short"
    replace_data(other, "a", None, b"")
    assert read_data(store, "a") == b""
    assert store.stat_data("a").size == 0


def test_a_writer_that_raises_leaves_the_old_data(store, other):
    """What it raises passes on as the same object."""
    enqueue(store, "send", "a")
    claimed = claim(store, "send", "a")
    error = CodecError()

    def write(file: Any) -> None:
        file.write(b"half")
        raise error

    for each, owner in ((store, claimed), (other, None)):
        with pytest.raises(CodecError) as raised:
            each.replace_data("a", owner, write, durability=None, before_commit=nothing)
        assert raised.value is error
        assert read_data(other, "a") == DATA
    release(store, claimed)
    assert [*store.recover(), *sweep(store)] == []


def test_a_reader_that_raises_passes_on_what_it_raised(store):
    """Also an error that looks like the store's own."""
    enqueue(store, "send", "a")
    for error in (CodecError(), FileNotFoundError(2, "something else")):

        def read(file: Any, error: Exception = error) -> None:
            file.read(1)
            raise error

        with pytest.raises(type(error)) as raised:
            store.read_data("a", read)
        assert raised.value is error


def test_data_can_be_sought_in(store):
    """Readers and writers get a binary file that can be positioned, and need not read it all."""

    def write(file: Any) -> None:
        file.write(b"....Hello")
        file.seek(0)
        file.write(b"1234")

    enqueue_reserved(store, store.reserve("a"), "send", OLD, write, durability=None, before_commit=nothing)

    def read(file: Any) -> bytes:
        file.seek(-5, 2)
        tail = file.read()
        file.seek(0)
        return tail + file.read(4)

    assert store.read_data("a", read) == b"Hello1234"


@pytest.mark.parametrize("size", [5, 300_000])
def test_data_are_read_as_a_file_is(store, size):
    """Also by what has a short cut for data in memory: where it has read to is where the file is then."""
    data = bytes(range(256)) * (size // 256 + 1)
    enqueue(store, "send", "a", data=data[:size])

    def read(file: Any) -> tuple[bytes, int, bytes]:
        return hashlib.file_digest(file, "sha256").digest(), file.tell(), file.read()

    assert store.read_data("a", read) == (hashlib.sha256(data[:size]).digest(), size, b"")
    claimed = claim(store, "send", "a")
    assert store.read_data("a", read, owned=True) == (hashlib.sha256(data[:size]).digest(), size, b"")
    release(store, claimed)


def test_data_of_nobody_is_not_found(store):
    """Reading, looking and replacing say so; nothing is made."""
    for act in (
        lambda: read_data(store, "nobody"),
        lambda: store.stat_data("nobody"),
        lambda: replace_data(store, "nobody", None),
    ):
        with pytest.raises(DataNotFound) as raised:
            act()
        assert raised.value == DataNotFound("nobody")
    assert [*store.recover(), *sweep(store)] == []


def test_data_is_its_owners_as_long_as_it_owns_the_entry(store, other):
    """A claim that was settled or abandoned replaces no data."""
    enqueue(store, "send", "a")
    settled = claim(store, "send", "a")
    release(store, settled)
    abandoned = claim(store, "send", "a")
    abandoned.abandon()
    for claimed in (settled, abandoned):
        with pytest.raises(SpoolError):
            replace_data(store, "a", claimed)
    assert read_data(other, "a") == DATA


def test_a_path_to_the_data_leads_to_the_data(store):
    """A store that keeps files says where; another says `None`."""
    enqueue(store, "send", "a")
    path = store.data_path("a")
    assert path is None or path.read_bytes() == DATA


def test_the_data_can_be_read_as_a_file_by_other_programs(store, other):
    """As long as the block is not left; also where no files are kept. What has no data says so."""
    enqueue(store, "send", "a")
    with other.data_file("a") as path:
        assert path.read_bytes() == DATA
    assert store.data_path("a") is not None or not path.exists()
    with pytest.raises(DataNotFound), store.data_file("nobody"):
        pass


def test_names_come_in_pages(store):
    """Those that sort after a name, and at most so many; together they are the whole."""
    for name in ("e", "a", "d", "b", "c"):
        enqueue(store, "send", name)
    pages = [store.names("send", most=2)]
    while pages[-1] and len(pages) < len("abcde"):
        pages.append(store.names("send", after=pages[-1][-1], most=2))
    assert pages == [["a", "b"], ["c", "d"], ["e"], []]
    assert store.names("send", after="b") == ["c", "d", "e"]
    assert store.names("send", most=1) == ["a"]
    assert store.names("retry", after="a", most=2) == []


def test_what_waits_comes_in_pages_the_first_to_be_due_first(store):
    """Also where several are due at once: then the name decides. Together the pages are the whole."""
    for name, due in (("d", DUE), ("a", DUE + 2), ("c", DUE), ("b", DUE + 1), ("e", DUE + 3)):
        enqueue(store, "send", name, due_at=due)
    whole = [(DUE, "c"), (DUE, "d"), (DUE + 1, "b"), (DUE + 2, "a"), (DUE + 3, "e")]
    pages = [store.waiting("send", most=2)]
    while pages[-1] and len(pages) < len(whole):
        pages.append(store.waiting("send", after=pages[-1][-1], most=2))
    assert pages == [whole[:2], whole[2:4], whole[4:], []]
    assert store.waiting("send") == whole
    assert store.waiting("send", after=whole[2]) == whole[3:]


def test_a_name_that_is_used_at_once_makes_one_entry(store, other):
    """`briefly` allows a store to look later: a rival is refused when it reserves the name, or when it uses it."""
    reservation = store.reserve("a", briefly=True)
    with contextlib.suppress(EntryBusy):
        other.give_up(other.reserve("a", briefly=True))
    enqueue_reserved(store, reservation, "send", OLD, writing(DATA), durability=None, before_commit=nothing)
    with pytest.raises(NameTaken):
        enqueue_reserved(
            other, other.reserve("a", briefly=True), "send", OLD, writing(DATA), durability=None, before_commit=nothing
        )
    assert look(store) == {"a": AVAILABLE}


# Recovery


def test_recovery_brings_back_what_the_dead_held(store, other):
    """In the queue that was asked for, or in all; told once."""
    for name, queue in (("a", "send"), ("b", "send"), ("c", "retry"), ("live", "send")):
        enqueue(store, queue, name)
    claims = {name: claim(store, queue, name) for name, queue in (("a", "send"), ("b", "send"), ("c", "retry"))}
    live = claim(store, "send", "live")
    assert other.recover() == []
    for claimed in claims.values():
        claimed.abandon()
    assert other.recover("retry") == [Recovered("c", "retry")]
    assert sorted(other.recover(), key=lambda each: each.name) == [Recovered("a", "send"), Recovered("b", "send")]
    assert [*other.recover(), *sweep(other)] == []
    assert look(other)["live"] == HELD
    release(store, live)
    assert other.names("send") == ["a", "b", "live"]


def test_opening_brings_back_what_the_dead_held(store, open_store):
    """Whoever opens the store finds no entry that nobody has."""
    enqueue(store, "send", "a")
    claim(store, "send", "a").abandon()
    assert open_store().names("send") == ["a"]


def test_a_save_of_the_dead_keeps_what_was_acknowledged(store, other):
    """Data that was saved before the owner died stays saved; metadata that was not, is as it was."""
    enqueue(store, "send", "a")
    claimed = claim(store, "send", "a")
    replace_data(store, "a", claimed)
    claimed.abandon()
    other.recover()
    assert other.read_metadata(available("send"), "a") == OLD
    assert read_data(other, "a") == NEW_DATA


def test_the_sweep_collects_what_belongs_to_no_entry(store, other):
    """Reservations of the dead go; entries and reservations of the living stay."""
    enqueue(store, "send", "a")
    live = store.reserve("live")
    store.reserve("dead").abandon()
    assert sweep(other) == [Recovered("dead", None)]
    assert sweep(other) == []
    enqueue_reserved(store, live, "send", OLD, writing(DATA), durability=None, before_commit=nothing)
    assert other.names("send") == ["a", "live"]


def test_a_dry_run_tells_what_a_recovery_then_does(store, other, clock):
    """Also of names that are remembered no longer. It changes nothing itself."""
    enqueue(store, "send", "held")
    claim(store, "send", "held").abandon()
    store.reserve("dead").abandon()
    remembered = store.reserve("remembered")
    store.remember(remembered, 10.0, durability=None)
    store.give_up(remembered)

    def foreseen_and_done() -> list[tuple[str, str | None]]:
        foreseen, done = (sorted((each.name, each.queue) for each in other.recover_all(dry_run=dry)) for dry in (1, 0))
        assert foreseen == done
        return done

    assert foreseen_and_done() == [("dead", None), ("held", "send")]
    assert foreseen_and_done() == []
    clock.time += 20
    assert foreseen_and_done() == [("remembered", None)]
    assert foreseen_and_done() == []


def test_a_name_that_was_to_be_remembered_for_no_time_leaves_nothing(store, other):
    """It is free at once, and nothing is recovered that was never kept."""
    enqueue_reserved(store, store.reserve("a"), "send", OLD, DATA, remember=0.0)
    store.delete("send", "a", durability=None, before_commit=nothing)
    assert [*other.recover_all(dry_run=True), *other.recover_all()] == []
    other.give_up(other.reserve("a"))


def test_a_name_is_remembered_while_the_owner_who_lost_its_entry_has_its_lock(store, other):
    """Who enqueues the thing again is told that it is done, and not to try later."""
    enqueue_reserved(store, store.reserve("a"), "send", OLD, DATA, remember=3600.0)
    claimed = claim(store, "send", "a")
    [taken] = other.claims_unsafe("send")
    remove(other, taken)
    for _ in range(2):  # with the lock, and without
        with pytest.raises(NameTaken) as told:
            other.reserve("a")
        assert told.value.finished
        claimed.abandon()


# The whole


def test_queues_and_inventory_show_everything(store, other):
    """All queues, sorted; every entry in every place, of one queue or of all."""
    assert other.queues() == sorted(QUEUES)
    assert list(other.inventory()) == []
    for name, queue in (("a", "send"), ("b", "send"), ("c", "retry"), ("d", "send")):
        enqueue(store, queue, name)
    claimed = claim(store, "send", "b")
    store.quarantine(claim(store, "send", "d"), "unreadable")
    assert {(item.name, item.place.queue, item.place.state) for item in other.inventory("send")} == {
        ("a", "send", State.AVAILABLE),
        ("b", "send", State.CHECKED_OUT),
        ("d", "send", State.QUARANTINED),
    }
    assert {item.name for item in other.inventory()} == {"a", "b", "c", "d"}
    assert all(isinstance(item, Item) and item.size == len(OLD) for item in other.inventory())
    assert all(item.modified_at.tzinfo is datetime.UTC for item in other.inventory())
    release(store, claimed)


def standing_of(store: Storage, queue: str = "send") -> Any:
    """Return how a queue stands."""
    [found] = [standing for standing in store.standings() if standing.queue == queue]
    return found


def test_standings_count_what_there_is(store, other):
    """In each queue and state, also where nobody has put anything."""
    assert [standing.queue for standing in other.standings()] == sorted(QUEUES)
    empty = standing_of(other)
    assert (empty.entries[State.AVAILABLE], empty.oldest_since, empty.abandoned) == (0, None, 0)
    for name, queue in (("a", "send"), ("b", "send"), ("c", "retry"), ("d", "send")):
        enqueue(store, queue, name)
    enqueue(store, "send", "e", due_at=DUE)
    claimed = claim(store, "send", "b")
    store.quarantine(claim(store, "send", "d"), "unreadable")
    expected = {State.AVAILABLE: 1, State.WAITING: 1, State.CHECKED_OUT: 1, State.QUARANTINED: 1}
    assert {state: number for state, number in standing_of(other).entries.items() if number} == expected
    counted = {(each.queue, state): n for each in other.standings() for state, n in each.entries.items() if n}
    assert counted == {(place.queue, place.state): number for place, number in other.depths().items() if number}
    assert standing_of(other).abandoned == 0
    release(store, claimed)


def test_the_oldest_entry_is_the_one_that_has_been_to_be_had_for_longest(store, other, clock):
    """Whatever its name is: what is available, and what waits and is due."""
    enqueue(store, "send", "b")
    [before] = store.inventory()
    clock.time = before.moved_at + 100  # what keeps files dates them by its own clock
    enqueue(store, "send", "a")
    assert standing_of(other).oldest_since == before.moved_at
    remove(store, claim(store, "send", "b"))
    assert standing_of(other).oldest_since in (None, *(item.moved_at for item in store.inventory()))
    remove(store, claim(store, "send", "a"))
    assert standing_of(other).oldest_since is None
    enqueue(store, "send", "c", due_at=clock.time + 50)
    enqueue(store, "send", "d", due_at=clock.time + 40)
    assert standing_of(other).oldest_since is None
    due, clock.time = clock.time + 40, clock.time + 60
    assert standing_of(other).oldest_since == due


def test_closing_is_idempotent_and_keeps_everything(store, open_store):
    """What was acknowledged is there for who opens the store next."""
    enqueue(store, "send", "a")
    store.close()
    store.close()
    assert look(open_store()) == {"a": AVAILABLE}


def test_operations_of_the_protocol_are_those_of_the_table():
    """Each step of an entry's life is in this suite: whoever adds one, adds its tests."""
    assert {operation.name for operation in Step} == {
        "ENQUEUE",
        "ENQUEUE_TO_WAIT",
        "CHECK_OUT",
        "SAVE",
        "SAVE_TO_WAIT",
        "RELEASE",
        "RELEASE_TO_WAIT",
        "REMOVE",
        "RECOVER",
        "QUARANTINE",
        "RESTORE",
        "DISCARD",
        "DIRECT_SAVE",
        "DIRECT_REMOVE",
    }

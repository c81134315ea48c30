"""What `top` sees of a spool by asking its store: the same as by reading the directory, of any kind of store."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any, cast

import pytest
from msgspec.structs import replace

from helpers.conformance import STORES
from helpers.stores import ask_to_cancel, available, claim, enqueue, make_store, release, remove, save
from trio_multispool.errors import NotASpool
from trio_multispool.looks import asking
from trio_multispool.looks.asking import Asker
from trio_multispool.looks.directory import Looker
from trio_multispool.looks.opening import looks_at
from trio_multispool.looks.problems import problems_of
from trio_multispool.looks.state import changes
from trio_multispool.model.lifecycle import State
from trio_multispool.model.notes import PROGRESS, encode_progress
from trio_multispool.model.pauses import Pause

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from helpers.conformance import Kind
    from trio_multispool.looks.seen import Entry, Look, QueueLook
    from trio_multispool.storage.protocol import Storage

HOUR = 3600.0


@pytest.fixture(params=STORES)
def opening(request, tmp_path) -> Iterator[Callable[[], Storage]]:
    """Return a function that opens another handle on a store, of each kind; they are closed at the end."""
    opened = contextlib.ExitStack()
    how = cast("Kind", request.param)(tmp_path, time.time)

    def another() -> Storage:
        return opened.enter_context(contextlib.closing(how()))

    with opened:
        yield another


@pytest.fixture
def store(opening) -> Storage:
    """Make a store."""
    return opening()


@pytest.fixture
def asker(store, opening, monkeypatch) -> Iterator[Asker]:
    """Ask that store."""
    monkeypatch.setattr(asking, "look_at_store", lambda _location: opening())
    with contextlib.closing(Asker("anywhere")) as made:
        yield made


def queue_of(look: Look, queue: str = "send") -> QueueLook:
    """Return how a queue was seen."""
    return {seen.queue: seen for seen in look.queues}[queue]


def are_the_same(some: Iterable[Entry], others: Iterable[Entry]) -> bool:
    """Tell whether entries are the same; a time of day is a little coarser than that of a file."""
    return all(
        one == replace(other, since=one.since, written_at=one.written_at)
        and (one.since, one.written_at) == pytest.approx((other.since, other.written_at))
        for one, other in zip(some, others, strict=True)
    )


def test_every_state_is_counted_and_what_is_in_hand_has_its_owner_and_progress(store, asker):
    """The longest held come first, and what was asked of them is told."""
    for name in ("a", "b", "c", "d"):
        enqueue(store, "send", name)
    enqueue(store, "send", "later", due_at=time.time() + HOUR)
    first, second = claim(store, "send", "b"), claim(store, "send", "a")
    store.annotate(second, PROGRESS, encode_progress(0.5, "half", time.time()))
    ask_to_cancel(store, "a")
    store.quarantine(claim(store, "send", "c"), "not to be read")
    look = asker.look()
    assert [seen.queue for seen in look.queues] == ["failed", "retry", "send"]
    seen = queue_of(look)
    assert (seen.available, seen.held, seen.aside, seen.waiting, seen.total) == (1, 2, 1, 1, 4)
    assert (seen.sample.bits, seen.sample.names) == (0, {"a", "b", "d", "later"})
    assert [held.name for held in look.held] == ["b", "a"]
    assert [held.progress.partition(",")[0] for held in look.held] == ["", "cancel asked"]
    assert "50" in look.held[1].progress
    assert {held.owner.pid for held in look.held if held.owner is not None} <= {os.getpid()}
    assert [(aside.name, aside.state) for aside in look.aside] == [("c", State.QUARANTINED)]
    assert look.adopted
    release(store, first)
    release(store, second)


def test_the_oldest_and_what_came_in_and_went_out_are_known(store, asker):
    """As long as a queue is short; what somebody takes, or gives back, does neither."""
    before = asker.look()
    assert queue_of(before).oldest_at is None
    for name in ("b", "a"):
        enqueue(store, "send", name)
    then = asker.look()
    assert changes(queue_of(before), queue_of(then)) == (2, 0)
    oldest = store.stat(available("send"), "b").modified_at.timestamp()
    assert (queue_of(then).oldest_at, queue_of(then).oldest_of_all) == (oldest, True)
    claimed = claim(store, "send", "a")
    after = asker.look()
    assert changes(queue_of(then), queue_of(after)) == (0, 0)
    remove(store, claimed)
    enqueue(store, "send", "c")
    assert changes(queue_of(after), queue_of(asker.look())) == (1, 1)


def test_what_moves_while_it_is_looked_for_is_not_taken_for_gone(store, asker, monkeypatch):
    """It is in hand, and is to be tried again later, just when what waits has been asked for."""
    enqueue(store, "send", "a")
    claimed = claim(store, "send", "a")
    waiting = type(store).waiting

    def asked(self: Any, queue: str, **page: Any) -> Any:
        found = waiting(self, queue, **page)
        if queue == "send" and claimed.state is State.CHECKED_OUT:
            save(store, claimed, "send", due_at=time.time() + HOUR)
        return found

    monkeypatch.setattr(type(store), "waiting", asked)
    assert queue_of(asker.look()).sample.names == {"a"}
    assert queue_of(asker.look()).sample.names == {"a"}


def test_of_a_long_queue_the_first_is_asked_for_and_only_its_growth_is_known(store, asker, monkeypatch):
    """Its names are not read: there may be a million of them."""
    monkeypatch.setattr(asking, "_EACH", 3)
    for number in range(5):
        enqueue(store, "send", f"{number}")
    before = asker.look()
    assert (queue_of(before).available, queue_of(before).oldest_of_all) == (5, False)
    assert queue_of(before).oldest_at == store.stat(available("send"), "0").modified_at.timestamp()
    assert asker.seen == 0
    remove(store, claim(store, "send", "0"))
    enqueue(store, "send", "7")
    enqueue(store, "send", "8")
    assert changes(queue_of(before), queue_of(asker.look())) == (1, 0)


def test_a_queue_and_an_entry_can_be_looked_into(store, asker):
    """The first entries by name, of each state; and all that is known about one."""
    for name in ("b", "a"):
        enqueue(store, "send", name)
    enqueue(store, "send", "later", due_at=time.time() + HOUR)
    claimed = claim(store, "send", "a")
    listing = asker.listing("send")
    found = [(entry.name, entry.state) for entry in listing.entries]
    assert found == [("a", State.CHECKED_OUT), ("b", State.AVAILABLE), ("later", State.WAITING)]
    assert listing.more == 0
    details = asker.details("send", "a")
    assert details is not None
    assert (details.queue, details.name, details.state) == ("send", "a", State.CHECKED_OUT)
    assert "anne@example.org" in details.metadata
    facts = dict(details.facts)
    assert ", for 0s" in facts["by"]
    assert "None" not in facts.values()
    assert asker.details("send", "nothing") is None
    with pytest.raises(FileNotFoundError):
        asker.listing("nothing")
    remove(store, claimed)


def test_only_the_first_entries_of_a_long_queue_are_listed(store, asker, monkeypatch):
    """And how many more there are is told."""
    monkeypatch.setattr(asking, "_LISTED", dict.fromkeys(asking._LISTED, 2))
    for number in reversed(range(5)):
        enqueue(store, "send", f"{number}")
    listing = asker.listing("send")
    assert ([entry.name for entry in listing.entries], listing.more) == (["0", "1"], 3)


def test_a_queue_that_is_paused_is_called_so(store, asker):
    """Until that is over."""
    store.pause("send", Pause(0.0))
    store.pause("failed", Pause(0.0, until=1.0))
    assert [seen.queue for seen in asker.look().queues if seen.pause is not None] == ["send"]


def test_a_stopped_look_ends_soon(store, asker):
    """It need not be of any use."""
    enqueue(store, "send", "a")
    claimed = claim(store, "send", "a")
    asker.stop()
    assert asker.look().held == ()
    remove(store, claimed)


def test_a_store_that_could_not_answer_is_opened_anew(store, asker, opening, monkeypatch):
    """The next look may find it again."""
    handles = []

    def another(_location: str) -> Any:
        handles.append(opening())
        return handles[-1]

    monkeypatch.setattr(asking, "look_at_store", another)
    assert queue_of(asker.look()).total == 0
    asker.look()
    [handle] = handles

    def gone(*_arguments: object, **_options: object) -> Any:
        raise NotASpool("anywhere", "it is gone")

    with monkeypatch.context() as patch:
        patch.setattr(type(handle), "depths", gone)
        with pytest.raises(NotASpool):
            asker.look()
    assert queue_of(asker.look()).total == 0
    assert len(handles) == 2


def test_what_is_asked_of_a_directory_is_what_is_read_in_it(tmp_path):
    """The two kinds of looks are interchangeable."""
    path = tmp_path / "spool"
    with contextlib.closing(make_store(path)) as store:
        for name in ("a", "b", "c", "d"):
            enqueue(store, "send", name)
        enqueue(store, "send", "later", due_at=time.time() + HOUR)
        held = claim(store, "send", "a")
        store.quarantine(claim(store, "send", "c"), "not to be read")
        with contextlib.closing(Asker(str(path))) as asker:
            asked, read = asker.look(), Looker(path).look()
            assert are_the_same(asker.listing("send").entries, Looker(path).listing("send").entries)
            assert asker.details("send", "a") == Looker(path).details("send", "a")
            assert asker.details("send", "c") == Looker(path).details("send", "c")
        assert are_the_same(asked.held + asked.aside, read.held + read.aside)
        for one, other in zip(asked.queues, read.queues, strict=True):
            assert one.oldest_at == pytest.approx(other.oldest_at)
            assert replace(one, oldest_at=None) == replace(other, oldest_at=None)
        assert problems_of(asked).keys() == problems_of(read).keys()
        release(store, held)


def test_a_directory_is_read_and_any_other_store_is_asked(tmp_path):
    """By its location."""
    assert isinstance(looks_at(str(tmp_path)), Looker)
    assert isinstance(looks_at("postgresql://host/db"), Asker)

"""What any store must do when it is asked for the next entries: the suite for `Source`, in the protocol's words only.

Each test is also run on a directory whose kernel does not tell what comes in: such a store looks again after a while.
"""

from __future__ import annotations

import contextlib
import contextvars
import errno
import functools
import itertools
from typing import TYPE_CHECKING, Any, cast

import pytest

from helpers.conformance import (
    STORES,
    Commit,
    WithdrawnError,
    directory_that_is_not_told,
    locks_before_commit,
    look,
)
from helpers.finding import Aside, Door, Reader, Ticket, halted, put, side_by_side
from helpers.spools import Wall
from helpers.stores import (
    DATA,
    OLD,
    claim,
    claim_waiting,
    release,
    remove,
    save,
)
from trio_multispool import Durability, StorageFailure
from trio_multispool.model.lifecycle import Place, State
from trio_multispool.storage.directory.store import DirectoryStorage
from trio_multispool.storage.requests import Removing
from trio_multispool.storage.source import Claiming, Given

if TYPE_CHECKING:
    from collections.abc import Callable

    from helpers.conformance import Kind
    from trio_multispool.storage.handles import Claim
    from trio_multispool.storage.protocol import Storage
    from trio_multispool.storage.source import Look, Next


@pytest.fixture(params=[*STORES, pytest.param(directory_that_is_not_told, id="directory, not told")])
def kind(request: pytest.FixtureRequest) -> Kind:
    """Say how a handle on a store is opened, for each kind of store."""
    return cast("Kind", request.param)


NAMES = ["a", "b", "c", "d", "e"]

both = pytest.mark.parametrize("waited", [False, True], ids=["listed", "waited"])
"""Entries that have not waited, and such as waited and are due."""


def put_in_order(store: Storage, clock: Callable[[], float], *names: str, waited: bool) -> None:
    """Enqueue entries that come in the order of their names: available, or due since a while, one after the other."""
    for number, name in enumerate(names):
        put(store, name, due_at=clock() - 100 + number if waited else None)


def claim_it(store: Storage, name: str, *, waited: bool) -> Claim:
    """Claim an entry by its name, as another program does."""
    return claim_waiting(store, "send", name) if waited else claim(store, "send", name)


def remove_it(store: Storage, name: str, *, waited: bool) -> None:
    """Claim an entry by its name, and remove it."""
    remove(store, claim_it(store, name, waited=waited), durability=Durability.PROCESS)


def readers_of_one_source(store: Storage) -> tuple[Reader, Reader]:
    """Make two readers that are threads of one, each with a gate of its own."""
    first, second = Reader(store), Reader(store)
    second.source = first.source
    return first, second


def checked_out(store: Storage) -> int:
    """Count what is checked out."""
    return store.count("send", State.CHECKED_OUT)


def is_free(store: Storage, name: str, *, waited: bool) -> bool:
    """Tell whether an entry is where it is taken from."""
    place = Place("send", State.WAITING if waited else State.AVAILABLE)
    return look(store).get(name) == (place, OLD, DATA)


# In what order


@pytest.mark.parametrize("most", [1, 2, 100])
def test_a_lone_reader_gets_the_entries_in_the_order_of_their_names(store, other, most):
    """First in, first out, where names sort by time: however many it takes at once, and in whatever order they came."""
    put(other, "b", "é", "a", "B", "10", "9")
    reader, got = Reader(store), []
    while names := reader.take(most):
        assert len(names) <= most
        got += names
    assert got == sorted(["b", "é", "a", "B", "10", "9"])
    assert other.names("send") == []


def test_no_more_is_claimed_than_is_wanted(store, other):
    """The others stay available, and come next."""
    put(store, *NAMES)
    reader = Reader(store)
    assert reader.take(2) == ["a", "b"]
    assert other.names("send") == ["c", "d", "e"]
    assert reader.take(100) == ["c", "d", "e"]


@pytest.mark.parametrize(("at_first", "then", "got"), [(5, 2, "ab"), (2, 4, "abcd")], ids=["fewer", "more"])
def test_how_many_are_wanted_is_asked_again_before_each(store, at_first, then, got):
    """A reader may want fewer, or more, than when the call began."""
    put(store, *NAMES)
    commit = Commit()
    assert Reader(store).take(lambda: at_first if commit.calls < 2 else then, before_commit=commit) == list(got)


@pytest.mark.parametrize("sorts_last", [True, False])
def test_an_entry_that_sorts_before_the_listed_ones_is_found_before_nothing_is_left(store, other, sorts_last):
    """Even where new names were said to sort last."""
    put(store, "b", "c")
    reader = Reader(store, sorts_last=sorts_last)
    assert reader.take() == ["b"]
    put(other, "a")
    assert sorted(reader.take_all()) == ["a", "c"]


class Open(Door):
    """A gate that admits everything without being asked."""

    admits: Any = Ticket("all")


@pytest.mark.parametrize("door", [Door, Open])
def test_what_comes_in_and_sorts_before_the_listed_ones_need_not_wait_for_all_of_them(store, other, clock, door):
    """Where new names may sort anywhere, as with priorities. What was released waits its turn all the same.

    A directory is listed again for them after a time, so that it depends on the machine how many come before.
    """
    names = put(store, *(f"m{number:03}" for number in range(300)))
    reader = Reader(store, sorts_last=False, door=door())
    assert reader.take() == names[:1]
    reader.release()
    clock.time += 1
    put(other, "a")
    got = reader.take_all()
    assert got.index("a") < len(names) - 1 or isinstance(store, DirectoryStorage)
    assert got.index(names[0]) > got.index(names[1])
    assert sorted(got) == ["a", *names]


@pytest.mark.parametrize("most", [1, 7])
def test_a_reader_that_admits_all_gets_everything_in_order_and_once(store, clock, most):
    """As one that asks about each: what is due first, then by name, and what was released after what was listed."""
    names = put(store, *(f"m{number:02}" for number in range(20)))
    due = put(store, "z", "y", due_at=clock() - 1)
    reader = Reader(store, door=Open())
    first = reader.take(most)
    reader.release()
    taken = list(first)
    while got := reader.take(most):
        taken += got
        reader.remove()
    assert sorted(taken) == sorted([*due, *names, *first])
    assert [name for name in taken if name in due][:1] == ["y"]
    assert [name for name in taken[len(first) :] if name in names[most:]] == names[most:]


def test_a_pass_that_admits_all_gives_nothing_twice_and_ends(store):
    """Though everything comes back at once."""
    names = put(store, *(f"m{number:02}" for number in range(20)))
    reader, taken = Reader(store, given=Given(), door=Open()), []
    while got := reader.take(3):
        taken += got
        reader.release()
    assert taken == names


def test_only_the_entries_of_the_queue_are_given(store, clock):
    """Those of other queues are for other sources."""
    put(store, "a", "b", queue="retry")
    put(store, "w", due_at=clock() - 1, queue="retry")
    put(store, "c")
    assert Reader(store).take_all() == ["c"]
    assert Reader(store, "failed").take_all() == []
    assert Reader(store, "retry").take_all() == ["w", "a", "b"]


# Passes


@both
@pytest.mark.parametrize("most", [1, 2])
def test_a_pass_gives_nothing_twice_though_everything_comes_back(store, clock, waited, most):
    """It gives each entry once, in order, and ends. What was given is not even claimed. The next pass gives all."""
    put_in_order(store, clock, *NAMES, waited=waited)
    reader = Reader(store)
    for _ in range(2):
        reader.given, got, commit = Given(), [], Commit()
        while names := reader.take(most, before_commit=commit):
            got += names
            assert len(got) <= len(NAMES)
            reader.release()
        assert got == NAMES
        assert commit.calls == len(NAMES)
    assert all(is_free(store, name, waited=waited) for name in NAMES)


def test_threads_at_a_pass_get_each_entry_once_while_everything_comes_back(store, clock):
    """Each entry is given to one of them, and the pass ends for all."""
    names = put(store, *(f"{number:02}" for number in range(30)))
    names += put(store, *(f"w{number:02}" for number in range(30)), due_at=clock() - 1)
    given = Given()
    readers = readers_of_one_source(store)

    def work(reader: Reader) -> list[str]:
        reader.given, got = given, []
        while True:
            found = reader.ask()
            got += [claimed.name for claimed, _ in found.claims]
            assert len(got) <= len(names)
            reader.release()
            if found.finished is not None:
                return got

    got = side_by_side(*(lambda reader=reader: work(reader) for reader in readers))
    assert sorted(got[0] + got[1]) == sorted(names)
    assert given.names.issuperset(names)


def test_a_pass_gives_what_came_in_before_it_ended(store, other):
    """It is no snapshot."""
    put(store, "a", "b")
    reader = Reader(store, given=Given())
    assert reader.take() == ["a"]
    put(other, "c")
    reader.release()
    assert reader.take_all() == ["b", "c"]


def test_a_name_that_the_pass_forgets_can_be_given_again(store):
    """It is another entry's by then, or has come back on purpose."""
    put(store, "a", "b")
    given = Given()
    reader = Reader(store, given=given)
    assert reader.take(2) == ["a", "b"]
    reader.release()
    assert reader.take_all() == []
    given.discard("a")
    assert reader.take_all() == ["a"]


@both
def test_what_another_thread_of_the_pass_gave_meanwhile_is_put_back(store, clock, waited):
    """Though it could be claimed: it stays where it is, and its admission ends."""
    put_in_order(store, clock, "a", "b", waited=waited)
    given = Given()
    reader = Reader(store, given=given)
    reader.door.before["a"] = lambda: given.add("a")
    assert reader.take_all() == ["b"]
    assert reader.door.inside == ["b"]
    assert is_free(store, "a", waited=waited)


# What comes back


def test_what_was_released_waits_its_turn(store):
    """It is listed again like any other entry; those that were listed before it come first."""
    put(store, "a", "b", "c")
    reader = Reader(store)
    assert reader.take() == ["a"]
    reader.release()
    assert reader.take_all() == ["b", "c", "a"]


def test_what_waited_and_was_released_can_be_had_at_once(store, clock):
    """It is due as before. The store need not look for it, nor be told of it."""
    put(store, "w", due_at=clock() - 1)
    reader = Reader(store)
    for _ in range(3):
        assert reader.take() == ["w"]
        reader.release()


@both
@pytest.mark.parametrize("in_a_pass", [False, True])
def test_what_is_taken_back_comes_first_again(store, other, clock, waited, in_a_pass):
    """As if it had never been claimed: it is free for all, its admission has ended, and it comes in its order."""
    put_in_order(store, clock, *NAMES, waited=waited)
    reader = Reader(store, given=Given() if in_a_pass else None)
    assert reader.take(3) == ["a", "b", "c"]
    reader.take_back()
    assert reader.door.inside == []
    assert all(is_free(other, name, waited=waited) for name in NAMES)
    assert reader.take(2) == ["a", "b"]
    reader.take_back()
    assert reader.take_all() == NAMES


def test_what_is_taken_back_comes_before_what_sorts_before_it(store, other):
    """Where new names sort last, or are said to: it was at its turn."""
    put(store, "b", "c")
    reader = Reader(store)
    assert reader.take() == ["b"]
    put(other, "a")
    for _ in range(300):  # however long that takes: the queue is not listed meanwhile
        reader.take_back()
        assert reader.take() == ["b"]


def test_what_waited_and_what_did_not_are_taken_back_together(store, clock):
    """Each comes where it came before."""
    put(store, "a", "b", "c")
    put(store, "w", due_at=clock() + 10)
    reader = Reader(store)
    assert reader.take() == ["a"]
    clock.time += 10
    reader.remove()
    assert reader.take(2) == ["w", "b"]
    reader.take_back()
    assert reader.take(3) == ["w", "b", "c"]


@both
def test_what_was_taken_back_can_be_had_by_anybody(store, other, clock, waited):
    """And then the reader that had it goes on without it."""
    put_in_order(store, clock, "a", "b", waited=waited)
    reader = Reader(store)
    assert reader.take() == ["a"]
    reader.take_back()
    mine = claim_it(other, "a", waited=waited)
    assert reader.take_all() == ["b"]
    release(other, mine)


# What waits


def test_what_is_due_comes_before_what_has_not_waited_the_first_due_first(store, other, clock):
    """However they are named."""
    put(other, "a", "b")
    for name, ago in (("z", 30), ("x", 10), ("y", 20)):
        put(other, name, due_at=clock() - ago)
    assert Reader(store).take_all() == ["z", "y", "x", "a", "b"]


def test_what_becomes_due_comes_next(store, other, clock):
    """Before what was listed already."""
    put(other, "a", "b", "c")
    put(other, "w", due_at=clock() + 10)
    reader = Reader(store)
    assert reader.take() == ["a"]
    clock.time += 10
    assert reader.take_all() == ["w", "b", "c"]


def test_what_is_not_due_is_not_given_and_when_it_is_due_is_told(store, other, clock):
    """The next that is due is told, and no further one."""
    first, second = clock() + 10, clock() + 20
    put(other, "second", due_at=second)
    put(other, "first", due_at=first)
    reader = Reader(store)
    assert reader.nothing_left().next_due == first
    clock.time = first - 0.5
    assert reader.nothing_left().next_due == first
    clock.time = first
    assert reader.take() == ["first"]
    assert reader.nothing_left().next_due == second
    clock.time = second + 1
    assert reader.take() == ["second"]
    assert reader.nothing_left().next_due is None


def test_what_was_due_is_not_given_when_the_clock_has_gone_back(store, clock):
    """The clock is asked anew each time."""
    put(store, "w", due_at=clock() + 10)
    reader = Reader(store)
    began = clock()
    clock.time += 20
    assert reader.take() == ["w"]
    reader.release()
    clock.time = began
    assert reader.nothing_left().next_due == began + 10


def test_what_was_saved_to_wait_longer_is_given_when_it_is_due_then(store, other, clock):
    """A time that was known before means nothing."""
    early, late = clock() + 10, clock() + 100
    put(other, "w", due_at=early)
    reader = Reader(store)
    assert reader.nothing_left().next_due == early
    save(other, claim_waiting(other, "send", "w"), "send", None, due_at=late)
    clock.time = early
    assert reader.nothing_left().next_due == late
    clock.time = late
    assert reader.take() == ["w"]


def test_what_waited_and_was_taken_by_another_is_passed_over(store, other, clock):
    """It is known to wait, and is gone when it is due: that is no error, and it is waited for no more."""
    put(other, "v", "w", due_at=clock() + 10)
    reader = Reader(store)
    assert reader.nothing_left().next_due == clock() + 10
    mine = claim_waiting(other, "send", "v")
    clock.time += 10
    assert reader.take_all() == ["w"]
    assert reader.nothing_left().next_due is None
    release(other, mine)


@pytest.mark.parametrize("reading", range(1, 7))
def test_what_becomes_due_while_a_look_goes_on_is_given_or_told(store, clock, monkeypatch, reading):
    """Whenever in the look the clock gets there. A reader that is told of nothing to come would sleep over it."""
    due, readings = clock() + 10, itertools.count(1)
    put(store, "w", due_at=due)
    reader = Reader(store)
    monkeypatch.setattr(Wall, "__call__", lambda _clock: due if next(readings) >= reading else due - 1)
    found = reader.ask()
    assert found.claims or (found.finished is not None and found.finished.next_due == due)


def test_what_comes_in_to_wait_is_found_by_asking_again(store, other, clock):
    """By being told, or by looking again after a while: a reader that asks again and again gets it."""
    put(other, "v", due_at=clock() + 100)
    reader = Reader(store)
    assert reader.nothing_left().next_due == clock() + 100
    put(other, "w", due_at=clock() - 1)
    assert reader.take_at_last() == ["w"]


def test_what_was_saved_to_wait_less_is_found_when_it_is_due_then(store, other, clock):
    """It need not wait until the time that was known before."""
    put(other, "v", "w", due_at=clock() + 100)
    reader = Reader(store)
    assert reader.nothing_left().next_due == clock() + 100
    save(other, claim_waiting(other, "send", "w"), "send", None, due_at=clock() + 10)
    clock.time += 10
    assert reader.take_at_last() == ["w"]


# The gate


@both
def test_what_the_gate_ignores_is_never_tried(store, other, clock, waited):
    """It is not asked about, keeps nobody busy, and is there for others."""
    put_in_order(store, clock, "a", "b", "c", waited=waited)
    reader = Reader(store)
    reader.door.ignored = {"a", "c"}
    assert reader.take_all() == ["b"]
    assert set(reader.door.asked) == {"b"}
    assert not reader.nothing_left().busy
    assert Reader(other).take_all() == ["a", "c"]


def test_however_many_are_ignored_a_look_ends_and_keeps_the_order(store):
    """They are there, and nobody has taken them."""
    ignored = put(store, *(f"{number:02}" for number in range(40)))
    put(store, "x", "y", "z")
    reader = Reader(store)
    reader.door.ignored.update(ignored)
    assert [reader.take() for _ in range(3)] == [["x"], ["y"], ["z"]]
    assert reader.nothing_left() is not None


def test_what_is_full_is_skipped_and_stays_for_later(store):
    """The gate does not look at it. It counts as busy: it may be had soon, and nothing else tells when."""
    put(store, "a", "b", "c")
    reader = Reader(store)
    reader.door.full = {"a", "b"}
    assert reader.take_all() == ["c"]
    assert reader.door.asked == ["c"]
    assert reader.nothing_left().busy
    reader.door.full = set()
    assert reader.take_all() == ["a", "b"]
    assert not reader.nothing_left().busy


@both
def test_what_is_refused_stays_for_later_and_for_others(store, other, clock, waited):
    """It is not claimed, and counts as busy. Each look asks again, and one that is refused everything ends."""
    put_in_order(store, clock, "a", "b", "c", waited=waited)
    reader, rival, commit = Reader(store), Reader(other), Commit()
    reader.door.refused = {"a", "b"}
    assert reader.take(before_commit=commit) == ["c"]
    assert reader.nothing_left(before_commit=commit).busy
    assert commit.calls == 1
    assert reader.door.inside == ["c"]
    assert rival.take() == ["a"]
    rival.remove()
    reader.door.refused = set()
    assert reader.take_all() == ["b"]
    assert not reader.nothing_left().busy


class Remembering(Door):
    """A gate that remembers what it has refused until the next listing, as one with limits for keys does."""

    def admit(self, name: str, read: Callable[[], bytes]) -> Any:
        """Remember a refusal."""
        admission = super().admit(name, read)
        if admission is None:
            self.full.add(name)
        return admission

    def listed(self, names: Any) -> None:
        """Forget all refusals."""
        super().listed(names)
        self.full.clear()


def test_the_gate_is_told_of_each_listing(store):
    """What was full is asked about again after it."""
    put(store, "a", "b")
    reader = Reader(store, door=Remembering())
    reader.door.refused = {"a"}
    assert reader.take_all() == ["b"]
    reader.door.refused = set()
    assert reader.take_all() == ["a"]


def test_the_gate_is_told_of_whole_listings(store, other):
    """All that is available, whatever becomes of it: given, ignored, full or refused."""
    put(other, *NAMES)
    given = Given()
    given.add("a")
    reader = Reader(store, given=given)
    reader.door.ignored, reader.door.full, reader.door.refused = {"b"}, {"c"}, {"d", "e"}
    reader.nothing_left()
    assert sorted(reader.door.listings[-1]) == NAMES
    put(other, "f")
    assert reader.take_all() == ["f"]
    assert sorted(reader.door.listings[-1]) == NAMES


@both
def test_what_is_claimed_keeps_its_admission(store, clock, waited):
    """Each claim comes with its own, which ends when its owner says so."""
    put_in_order(store, clock, "a", "b", "c", waited=waited)
    reader = Reader(store)
    assert reader.take(2) == ["a", "b"]
    assert reader.take(2) == ["c"]
    assert [(claimed.name, ticket.name) for claimed, ticket in reader.held] == [("a", "a"), ("b", "b"), ("c", "c")]
    assert [ticket for _, ticket in reader.held] == reader.door.admitted
    assert reader.door.left == []
    reader.release()
    assert reader.door.left == []


def test_an_admission_may_be_false(store):
    """Only `None` is a refusal."""

    class Counting(Door):
        def ticket(self, name: str) -> Any:
            return 0

    put(store, "a")
    reader = Reader(store, door=Counting())
    assert reader.take() == ["a"]
    assert reader.held[0][1] == 0


@both
@pytest.mark.parametrize("what", ["removed", "claimed", "withdrawn"])
def test_what_was_admitted_and_cannot_be_claimed_leaves_once(store, other, clock, waited, what):
    """Somebody has taken it meanwhile, or the reader withdraws: another one is let in, and nothing is left inside."""
    put_in_order(store, clock, "a", "b", waited=waited)
    reader, mine = Reader(store), []
    if what == "removed":
        reader.door.before["a"] = lambda: remove_it(other, "a", waited=waited)
    elif what == "claimed":
        reader.door.before["a"] = lambda: mine.append(claim_it(other, "a", waited=waited))
    else:
        with pytest.raises(WithdrawnError):
            reader.take(before_commit=Commit(withdraw=True))
        assert reader.door.inside == []
        remove_it(other, "a", waited=waited)
    assert reader.take_all() == ["b"]
    assert "a" in [ticket.name for ticket in reader.door.left]
    assert reader.door.inside == ["b"]


def test_what_was_admitted_and_is_not_due_any_more_leaves_once(store, other, clock):
    """It was saved to wait longer, by somebody who had it meanwhile."""
    put(store, "w", due_at=clock() - 1)
    reader, late = Reader(store), clock() + 100
    reader.door.before["w"] = lambda: save(other, claim_waiting(other, "send", "w"), "send", None, due_at=late)
    assert reader.nothing_left().next_due == late
    assert [ticket.name for ticket in reader.door.left] == ["w"]
    assert reader.door.inside == []


@both
def test_what_is_gone_when_the_gate_reads_it_is_passed_over(store, other, clock, waited):
    """That is no error: somebody was quicker."""
    put_in_order(store, clock, "a", "b", waited=waited)
    reader = Reader(store)
    reader.door.reads = True
    reader.door.before["a"] = lambda: remove_it(other, "a", waited=waited)
    assert reader.take_all() == ["b"]
    assert reader.door.inside == ["b"]


@both
def test_what_is_gone_keeps_nobody_busy(store, other, clock, waited):
    """Nothing will come of it: the look ends as if it had not been there."""
    put_in_order(store, clock, "a", waited=waited)
    reader = Reader(store)
    reader.door.before["a"] = lambda: remove_it(other, "a", waited=waited)
    left = reader.nothing_left()
    assert (left.held, left.busy, left.next_due) == (False, False, None)
    assert reader.door.asked == ["a"]


@both
def test_an_entry_whose_admission_raises_is_tried_again_first(store, other, clock, waited):
    """What is raised passes on as it is. Nothing has been claimed, and everything comes in its order."""
    put_in_order(store, clock, *NAMES, waited=waited)
    for error in (ZeroDivisionError(), WithdrawnError(), StorageFailure("read", "something", errno.EIO)):
        reader = Reader(store)
        reader.door.raises["a"] = error
        for _ in range(2):
            with pytest.raises(type(error)) as raised:
                reader.take(3)
            assert raised.value is error
        reader.door.raises.clear()
        assert checked_out(other) == 0
        assert reader.take_all() == NAMES
        reader.release()


@both
@pytest.mark.parametrize("error", [ZeroDivisionError(), WithdrawnError()], ids=["exception", "no exception"])
def test_a_call_that_raises_has_claimed_nothing(store, other, clock, waited, error):
    """What it had is free for all, its admissions have ended, and everything comes in its order."""
    put_in_order(store, clock, *NAMES, waited=waited)
    given = Given()
    reader = Reader(store, given=given)
    reader.door.raises["c"] = error
    with pytest.raises(type(error)) as raised:
        reader.take(4)
    assert raised.value is error
    assert reader.door.inside == []
    assert given.names.isdisjoint(NAMES)
    assert all(is_free(other, name, waited=waited) for name in NAMES)
    reader.door.raises.clear()
    assert reader.take_all() == NAMES


@both
def test_trouble_with_an_entry_does_not_keep_the_others_back(store, clock, waited):
    """What was claimed before it is given; the next call raises, if the trouble lasts. The entry is tried first."""
    put_in_order(store, clock, *NAMES, waited=waited)
    reader, error = Reader(store), StorageFailure("read", "something", errno.EIO)
    reader.door.raises["c"] = error
    assert reader.take(4) == ["a", "b"]
    with pytest.raises(StorageFailure) as raised:
        reader.take(4)
    assert raised.value is error
    assert reader.door.inside == ["a", "b"]
    reader.door.raises.clear()
    assert reader.take_all() == ["c", "d", "e"]


# Commits


def test_before_each_claim_the_caller_is_asked(store, other, clock):
    """Once for each, and before anybody can see that it has left its place."""
    put(store, "a", "b")
    put(store, "w", due_at=clock() - 1)
    seen = []
    reader = Reader(store)
    got = [reader.take(2, before_commit=lambda: seen.append(checked_out(other))) for _ in range(3)]
    assert [*itertools.chain(*got)] == ["w", "a", "b"]
    assert seen == [0, 1, 2]
    reader.nothing_left(before_commit=lambda: seen.append(-1))
    assert seen == [0, 1, 2]


@both
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_caller_that_withdraws_gets_nothing_of_what_was_claimed(store, other, clock, waited, at):
    """Everything goes back, and comes in its order; all admissions have ended, and the pass has given nothing."""
    put_in_order(store, clock, *NAMES, waited=waited)
    given = Given()
    reader, calls = Reader(store, given=given), 0

    def before_commit() -> None:
        nonlocal calls
        calls += 1
        if calls == at:
            raise WithdrawnError

    with pytest.raises(WithdrawnError):
        reader.take(4, before_commit=before_commit)
    assert calls == at
    assert reader.door.inside == []
    assert len(reader.door.left) == at
    assert given.names.isdisjoint(NAMES)
    assert all(is_free(other, name, waited=waited) for name in NAMES)
    assert reader.take_all() == NAMES


# Listings


def test_what_comes_in_before_the_listing_that_counts_is_found_by_that_look(store, other):
    """A caller begins to watch there: it misses nothing."""
    reader = Reader(store)
    assert reader.nothing_left() is not None
    assert reader.take(before_listing=lambda: put(other, "late")) == ["late"]


def test_the_gate_is_told_of_the_listing_that_counts(store):
    """After the caller was told that it is coming, and before the look ends."""
    put(store, "a")
    reader, seen = Reader(store), []
    reader.door.refused = {"a"}
    for _ in range(2):
        seen.clear()
        reader.nothing_left(before_listing=lambda: seen.append(len(reader.door.listings)))
        assert seen
        assert len(reader.door.listings) > seen[-1]


def test_a_listing_that_the_caller_prevents_is_made_the_next_time(store):
    """What the caller raises passes on; its look goes on where it was."""
    put(store, "a")
    reader = Reader(store)
    asked, error = reader.look(), ZeroDivisionError()
    calls = 0

    def before_listing() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise error

    with pytest.raises(ZeroDivisionError) as raised:
        reader.ask(asked, before_listing=before_listing)
    assert raised.value is error
    assert [claimed.name for claimed, _ in reader.ask(asked, before_listing=before_listing).claims] == ["a"]
    assert calls == 2


def test_without_a_listing_only_what_was_listed_is_given_and_there_is_no_end(store, other):
    """Nobody is told of a listing; when the known ones are used up, nothing comes."""
    put(store, "a", "b", "c")
    reader = Reader(store)
    assert reader.take() == ["a"]
    put(other, "d")
    listings, told = len(reader.door.listings), []
    asked, got = reader.look(), []
    for _ in range(5):
        found = reader.call(asked, listed_only=True, before_listing=lambda: told.append(1))
        assert found.finished is None
        got += [claimed.name for claimed, _ in found.claims]
    assert got[:2] == ["b", "c"]
    assert (told, len(reader.door.listings)) == ([], listings)
    assert asked.listing_took is None
    assert [*got, *reader.take_all()] == ["b", "c", "d"]


def test_a_listing_that_another_thread_made_meanwhile_will_do(store):
    """What it has left of it is given."""
    put(store, "a", "b", "c")
    reader, rival = readers_of_one_source(store)
    assert reader.take(before_listing=lambda: Aside(rival.take).result()) == ["b"]
    assert [claimed.name for claimed, _ in rival.held] == ["a"]
    assert reader.take_all() == ["c"]


def test_what_is_taken_back_comes_first_again_though_another_thread_is_about_to_list(store, other):
    """That thread has asked for a listing because nothing was known; now this is."""
    put(store, "b")
    reader, rival = readers_of_one_source(store)
    assert rival.take() == ["b"]

    def before_listing() -> None:
        put(other, "a")
        Aside(rival.take_back).result()

    assert reader.take(before_listing=before_listing) == ["b"]
    assert reader.take_all() == ["a"]


# Coming to an end


def test_a_reader_that_was_stopped_tries_nothing(store):
    """The call ends without claims, and is not finished. The same look can go on."""
    put(store, "a")
    reader = Reader(store)
    asked = reader.look()
    for _ in range(2):
        found = reader.call(asked, stopped=lambda: True)
        assert (found.claims, found.finished) == ([], None)
    assert reader.door.asked == []
    assert [claimed.name for claimed, _ in reader.ask(asked).claims] == ["a"]
    assert reader.call(reader.look(), stopped=lambda: True).finished is None


def test_a_reader_that_is_stopped_meanwhile_gets_what_was_claimed(store, other):
    """And nothing more."""
    put(store, *NAMES)
    reader, commit = Reader(store), Commit()
    assert reader.take(5, before_commit=commit, stopped=lambda: commit.calls >= 2) == ["a", "b"]
    assert other.names("send") == ["c", "d", "e"]


MANY = 400


def test_a_look_at_many_entries_that_are_refused_comes_to_an_end(store):
    """In one call or in several. No entry is tried over and over."""
    names = put(store, *(f"{number:05}" for number in range(MANY)))
    reader = Reader(store)
    reader.door.refused = set(names)
    assert reader.nothing_left().busy
    assert set(reader.door.asked) == set(names)
    assert max(map(reader.door.asked.count, names[:10])) <= 2


def test_a_look_at_many_entries_that_are_gone_comes_to_an_end(store, other):
    """Another program has worked them off since they were listed."""
    names = put(store, *(f"{number:05}" for number in range(MANY)))
    reader = Reader(store)
    assert reader.take() == names[:1]
    reader.remove()
    for name in names[1:]:
        other.delete("send", name, durability=Durability.PROCESS, before_commit=lambda: None)
    assert not reader.nothing_left().busy
    put(other, "late")
    assert reader.take_all() == ["late"]


# When nothing is left


def test_of_an_empty_queue_nothing_is_left(store):
    """Nothing is checked out, nothing is busy, nothing waits. The look knows how long its listing took."""
    reader = Reader(store)
    asked = reader.look()
    assert asked.listing_took is None
    found = reader.ask(asked)
    left = found.finished
    assert left is not None
    assert (left.held, left.busy, left.next_due) == (False, False, None)
    assert left.listing_took == asked.listing_took
    assert left.listing_took >= 0


@both
@pytest.mark.parametrize("whose", ["own", "another's", "dead"])
def test_it_is_told_whether_anything_is_checked_out(store, other, clock, waited, whose):
    """By anybody, living or dead, of this queue: its owner may die, and nothing announces that."""
    put_in_order(store, clock, "a", waited=waited)
    put(store, "x", queue="retry")
    elsewhere = claim(other, "retry", "x")
    reader = Reader(store)
    if whose == "own":
        assert reader.take() == ["a"]
        mine = reader.held[0][0]
    else:
        mine = claim_it(other, "a", waited=waited)
        assert reader.take_all() == []
    if whose == "dead":
        mine.abandon()
    left = reader.nothing_left()
    assert (left.held, left.busy) == (True, False)
    if whose == "dead":
        store.recover()
        assert reader.take() == ["a"]
        reader.remove()
    else:
        remove(store if whose == "own" else other, mine)
    assert not reader.nothing_left().held
    release(other, elsewhere)


@both
@pytest.mark.parametrize("whose", ["another handle's", "another source's", "its own"])
def test_what_somebody_is_just_checking_out_is_busy(store, other, clock, waited, whose):
    """It may stay: that somebody may withdraw. Where nothing is locked before the commit, the quicker one gets it."""
    put_in_order(store, clock, "a", waited=waited)
    reader = Reader(store)
    rival = Reader(other if whose == "another handle's" else store)
    if whose == "its own":
        rival.source = reader.source
    with halted(lambda halt: rival.take(before_commit=halt)) as go_on:
        found = reader.ask()
        assert_busy_or_had(store, found)
        assert [*go_on(), *(claimed.name for claimed, _ in found.claims)] == ["a"]
    assert reader.nothing_left().held
    rival.remove()
    reader.remove()
    left = reader.nothing_left()
    assert (left.busy, left.held) == (False, False)


def assert_busy_or_had(store: Storage, found: Next[Any]) -> None:
    """Insist that an entry which is just being checked out is busy, where it is locked before the commit."""
    assert found.claims or (found.finished is not None and found.finished.busy)
    assert not found.claims or not locks_before_commit(store)


@both
def test_what_somebody_did_not_check_out_after_all_can_be_had(store, other, clock, waited):
    """That is what `busy` is for."""
    put_in_order(store, clock, "a", waited=waited)
    reader, rival = Reader(store), Reader(other)

    def withdraw(halt: Callable[[], None]) -> None:
        def before_commit() -> None:
            halt()
            raise WithdrawnError

        with pytest.raises(WithdrawnError):
            rival.take(before_commit=before_commit)

    with halted(withdraw) as go_on:
        found = reader.ask()
        assert_busy_or_had(store, found)
        go_on()
    assert found.claims or reader.take() == ["a"]


@both
def test_what_another_thread_of_the_reader_is_still_trying_is_had_or_busy(store, clock, waited):
    """Nobody has locked it yet, and that thread may get it or not: one of the two gets it."""
    put_in_order(store, clock, "a", waited=waited)
    reader, rival = readers_of_one_source(store)

    def take(halt: Callable[[], None]) -> list[str]:
        rival.door.before["a"] = halt
        return rival.take()

    with halted(take) as go_on:
        found = reader.ask()
        assert found.claims or (found.finished is not None and found.finished.busy)
        assert [*(claimed.name for claimed, _ in found.claims), *go_on()] == ["a"]
    assert not reader.nothing_left().busy


def test_what_another_thread_took_from_the_same_listing_is_busy_until_it_has_it(store):
    """It was listed for this look, which has not tried it: the other thread may withdraw."""
    put(store, "a")
    reader, rival = readers_of_one_source(store)
    with contextlib.ExitStack() as block:
        letting_go: list[Callable[[], Any]] = []

        def stopped() -> bool:
            if reader.door.listings and not letting_go:
                letting_go.append(block.enter_context(halted(lambda halt: rival.take(before_commit=halt))))
            return False

        found = reader.ask(stopped=stopped)
        assert found.claims or (found.finished is not None and found.finished.busy)
        got = [name for let_go in letting_go for name in let_go()]
    assert [*(claimed.name for claimed, _ in found.claims), *got] == ["a"]
    assert not reader.nothing_left().busy


def test_what_somebody_is_reading_whole_is_busy(store, other):
    """Nobody can check it out meanwhile; right after it can be had."""
    put(store, "a", "b")
    reader = Reader(store)

    def read(halt: Callable[[], None]) -> Any:
        return other.read_entry("send", "a", lambda *_: halt())

    with halted(read) as go_on:
        assert reader.take_all() == ["b"]
        assert reader.nothing_left().busy
        go_on()
    assert reader.take() == ["a"]


# Sharing a queue


def test_what_another_has_is_not_given(store, other, clock):
    """That is no error, and it comes when its owner has released it."""
    put(store, "a", "b")
    put(store, "w", due_at=clock() - 1)
    mine = [claim(other, "send", "a"), claim_waiting(other, "send", "w")]
    reader = Reader(store)
    assert reader.take_all() == ["b"]
    release(other, mine[0])
    assert reader.take_all() == ["a"]
    release(other, mine[1])
    assert Reader(other).take_all() == ["w"]


@pytest.mark.parametrize("how", ["threads of one source", "sources of one handle", "handles"])
def test_who_shares_a_queue_gets_each_entry_once(store, other, clock, how):
    """Together they get all of them, and no trouble."""
    names = put(store, *(f"{number:03}" for number in range(100)))
    names += put(store, *(f"w{number:03}" for number in range(50)), due_at=clock() - 1)
    readers = [Reader(each) for each in ((store, other) if how == "handles" else (store, store)) * 2]
    if how == "threads of one source":
        for reader in readers[1:]:
            reader.source = readers[0].source

    def work(reader: Reader) -> list[str]:
        got: list[str] = []
        while True:
            found = reader.ask(most=2)
            got += [claimed.name for claimed, _ in found.claims]
            reader.remove()
            if found.finished is not None and not found.finished.busy:
                return got

    got = side_by_side(*(lambda reader=reader: work(reader) for reader in readers))
    assert sorted(itertools.chain(*got)) == sorted(names)
    assert look(store) == {}


# Claims


@both
@pytest.mark.parametrize("metadata", [b"", b"\x00\xff{", bytes(300_000)], ids=["empty", "undecodable", "large"])
def test_metadata_come_through_as_they_are(store, other, clock, waited, metadata):
    """Whether they can be decoded is the caller's affair, in the gate and in the claim."""
    put(other, "a", metadata=metadata, due_at=clock() - 1 if waited else None)
    reader = Reader(store)
    reader.door.reads = True
    assert reader.take() == ["a"]
    assert reader.door.read == {"a": metadata}
    assert reader.held[0][0].metadata == metadata


@both
def test_a_claim_of_a_source_is_like_any_other(store, other, clock, waited):
    """It shows what was checked out and when it was due, is held, and can be settled."""
    due_at = clock() - 1 if waited else None
    put(store, "a", due_at=due_at)
    reader = Reader(store)
    assert reader.take() == ["a"]
    [(claimed, _)] = reader.held
    assert (claimed.queue, claimed.name, claimed.metadata, claimed.due_at) == ("send", "a", OLD, due_at)
    assert (claimed.state, claimed.held) == (State.CHECKED_OUT, True)
    assert look(other) == {"a": (Place("send", State.CHECKED_OUT), OLD, DATA)}
    save(store, claimed, "retry", None)
    assert look(other) == {"a": (Place("retry", State.AVAILABLE), OLD, DATA)}
    assert Reader(other, "retry").take() == ["a"]


# Closing


def test_closing_a_source_disturbs_nobody(store, other, clock):
    """It can be done twice. What it claimed is still its owner's, and other sources go on, also with what waits."""
    put(store, "a", "b", "c", "d", "e")
    readers = [Reader(store), Reader(store), Reader(other)]
    assert [reader.take() for reader in readers] == [["a"], ["b"], ["c"]]
    for _ in range(2):
        readers[0].source.close()
    put(store, "w", due_at=clock() + 10)
    assert readers[0].held[0][0].held
    assert [reader.take() for reader in readers[1:]] == [["d"], ["e"]]
    readers[0].release()
    assert readers[2].take_all() == ["a"]
    for reader in readers[1:]:
        reader.source.close()
    later = Reader(store)
    clock.time += 10
    assert later.take_all() == ["w"]
    later.source.close()


def test_what_came_in_to_wait_while_no_source_was_open_is_found(store, other, clock):
    """Nobody kept an eye on it then."""
    put(store, "v", due_at=clock() + 100)
    for name in ("w", "x"):
        reader = Reader(store)
        assert reader.nothing_left().next_due == clock() + 100
        reader.source.close()
        put(other, name, due_at=clock() - 1)
        reader = Reader(store)
        assert reader.take_at_last() == [name]
        reader.source.close()


# The next one, with the settlement of the one before


def settled_and_next(reader: Reader, *, fails: bool = False) -> tuple[list[BaseException | None], list[Any]]:
    """Remove what a reader has in hand, and have as many claimed; return the failures, and what happened."""
    happened: list[Any] = []
    held, reader.held = reader.held, []

    def ready(claimed: Any, admission: Any) -> None:
        happened.append(("ready", claimed.state))
        reader.door.leave(admission)

    def take(_look: Look, claim: Callable[[], Next[Any]]) -> None:
        found = claim()
        happened.append(("taken", [each.name for each, _ in found.claims], secret.get()))
        reader.held += found.claims

    context = contextvars.copy_context()
    context.run(secret.set, "of the task")
    claiming = Claiming(reader.source, reader.look().given, reader.door, lambda: False, take, context)
    settlements = [
        Removing(
            claimed, None, Commit(withdraw=fails), then=claiming, ready=functools.partial(ready, claimed, admission)
        )
        for claimed, admission in held
    ]
    return reader.store.settle(settlements), happened


secret: contextvars.ContextVar[str] = contextvars.ContextVar("secret", default="of somebody else")


def test_a_settlement_claims_the_next_one_when_it_is_done(store):
    """In the same call, once what the settled one held is free, in the context of who asked; of what is at hand."""
    put(store, "a", "b")
    reader = Reader(store)
    assert reader.take() == ["a"]
    failures, happened = settled_and_next(reader)
    assert failures == [None]
    assert happened == [("ready", State.NOTHING), ("taken", ["b"], "of the task")]
    assert [claimed.name for claimed, _ in reader.held] == ["b"]
    assert reader.door.inside == ["b"]
    assert settled_and_next(reader)[1][1] == ("taken", [], "of the task")


def test_settlements_that_ask_for_the_same_claim_together(store):
    """When all of them are done, and what they held is free: as many as they are, or what there is."""
    put(store, "a", "b", "c", "d", "e")
    reader = Reader(store)
    assert reader.take(3) == ["a", "b", "c"]
    failures, happened = settled_and_next(reader)
    assert failures == [None] * 3
    assert happened == [("ready", State.NOTHING)] * 3 + [("taken", ["d", "e"], "of the task")]
    assert reader.door.inside == ["d", "e"]


def test_a_settlement_that_fails_claims_nothing(store):
    """Its owner still has the entry."""
    put(store, "a", "b")
    reader = Reader(store)
    assert reader.take() == ["a"]
    failures, happened = settled_and_next(reader, fails=True)
    assert [type(failure) for failure in failures] == [WithdrawnError]
    assert happened == []
    assert store.names("send") == ["b"]

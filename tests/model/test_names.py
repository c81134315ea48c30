"""What may be a name, and the names that are generated."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.naming import made_by_threads
from helpers.processes import run_python
from helpers.spools import ANNE, MAIL, Envelope, Mail, names_in, put, quick_spool, state_of
from trio_multispool import Err, InvalidName, NameTaken, Reserve, Spoolable, TimeOrdered, Use
from trio_multispool.clock import process_token, time_ordered_names
from trio_multispool.model.names import MAX_ATTEMPTS, invalid_name, time_ordered_name

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.spools import Location

LONGEST_PREFIX = ".unsafe.00000000-4294967295."

INVALID = {
    "": "empty",
    "../x": "dot",
    ".": "dot",
    "..": "dot",
    ".checkout": "dot",
    "x/y": "slash",
    "x/": "slash",
    "/x": "slash",
    "x\0": "control",
    "x\ny": "control",
    "x\n": "control",
    "\x7f": "control",
    "x\x85": "control",
    "x" * 201: "201 bytes",
    "é" * 101: "202 bytes",
    "x" * 300: "300 bytes",
    "\udcff": "UTF-8",
}
VALID = ["x", "x" * 200, "é" * 100, "a b", "x..", "-rf", "*", "a\\b", "日本", "x\u2028", "~", "CON", " "]


@pytest.mark.parametrize(("name", "reason"), INVALID.items())
def test_a_name_that_could_leave_its_directory_or_a_listing_is_refused_with_its_reason(name, reason):
    """Every refused name comes with a sentence that says what is wrong with it."""
    fault = invalid_name(name)
    assert isinstance(fault, InvalidName)
    assert fault.name == name
    assert reason in fault.reason


@pytest.mark.parametrize("name", VALID)
def test_an_ordinary_name_is_accepted(name):
    """1 to 200 bytes of UTF-8 without slash, control character and leading dot are a name."""
    assert invalid_name(name) is None


@given(st.text(max_size=80) | st.text(st.characters(codec="utf-8"), max_size=210))
def test_what_is_accepted_can_be_a_file_that_is_listed_under_the_same_name(name):
    """An accepted name names one file in its own directory, at the longest prefix that the layout puts before it."""
    if invalid_name(name) is not None:
        return
    with tempfile.TemporaryDirectory() as directory:
        with open(os.path.join(directory, LONGEST_PREFIX + name), "x"):
            pass
        assert os.listdir(directory) == [LONGEST_PREFIX + name]
        assert os.path.dirname(os.path.join(directory, name)) == directory


# The default generator


def test_names_of_one_generator_sort_in_the_order_of_their_making_when_the_clock_stands_or_steps_back():
    """A sorted listing is first-in first-out, whatever the clock does."""
    times = iter([10, 10, 10, 5, 0, 11, 12])
    names = TimeOrdered(lambda: next(times), lambda: "00000000")
    made = [names.next(None, 0) for _ in range(7)]
    assert made == sorted(made)
    assert len(set(made)) == 7


@given(st.integers(0, 4_102_444_800 * 10**9), st.integers(0, 4_102_444_800 * 10**9))
def test_names_sort_as_their_times_do(one, other):
    """The order of names is the order of their times, to the nanosecond."""
    assert (time_ordered_name(one, "f") < time_ordered_name(other, "f")) == (one < other)


def test_a_generated_name_is_valid_short_and_can_be_read():
    """Names stay under fifty bytes, so that a directory of millions stays fast, and say when they were made."""
    name = time_ordered_name(1_795_417_479_923_587_437, "8f31c2aa")
    assert name == "20261123T070439.923587437Z-8f31c2aa"
    assert invalid_name(name) is None
    generated = time_ordered_names().next(None, 0)
    assert invalid_name(generated) is None
    assert len(generated) < 50


def test_threads_that_share_a_generator_never_get_one_name_twice():
    """The generator may be called in several threads at once: a clock that never moves gives distinct names."""
    names = TimeOrdered(lambda: 0, lambda: "00000000")
    made = made_by_threads(4, lambda: [names.next(None, 0) for _ in range(2000)])
    assert len(set(made)) == len(made) == 8000


def test_a_forked_child_makes_names_with_a_token_of_its_own():
    """Parent and child tell their names apart without telling each other."""
    done = run_python("""
        import os
        from trio_multispool.clock import process_token
        token = process_token()
        print(token(), token(), flush=True)
        child = os.fork()
        if child == 0:
            print(token(), token(), flush=True)
            os._exit(0)
        os.waitpid(child, 0)
    """)
    parent, parent_again, child, child_again = done.stdout.split()
    assert parent == parent_again
    assert child == child_again
    assert parent != child
    assert process_token()() != process_token()()


# Generators of the caller's


class Numbered:
    """Makes `argument-attempt`, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, int]] = []

    def next(self, argument: object, attempt: int) -> str:
        """Make it."""
        self.asked.append((argument, attempt))
        return f"{argument}-{attempt}"


@pytest.mark.anyio
async def test_a_generator_gets_the_argument_of_reserve_and_one_attempt_more_while_the_name_is_taken(place: Location):
    """A taken name is never used twice: the generator is asked again, with attempt + 1."""
    names = Numbered()
    spool = await quick_spool(place, Spoolable(Mail, Envelope, bytes, names))
    first = (await spool.enqueue(Mail.SEND, ANNE, b"", name=Reserve("letter"))).unwrap()
    second = (await spool.enqueue(Mail.RETRY, ANNE, b"", name=Reserve("letter"))).unwrap()
    assert (first.name, second.name) == ("letter-0", "letter-1")
    assert names.asked == [("letter", 0), ("letter", 0), ("letter", 1)]
    (await spool.enqueue(Mail.SEND, ANNE, b"")).unwrap()
    assert names.asked[-1] == (None, 0)
    assert state_of(spool.location).faults() == []


@pytest.mark.anyio
async def test_a_generator_that_makes_only_taken_names_is_asked_a_bounded_number_of_times(place: Location):
    """A generator that never makes a free name ends in `Err(NameTaken)`, not in an endless loop."""

    class Always:
        asked = 0

        def next(self, argument: None, attempt: int) -> str:
            self.asked += 1
            return "same"

    names = Always()
    spool = await quick_spool(place, Spoolable(Mail, Envelope, bytes, names))
    (await spool.enqueue(Mail.SEND, ANNE, b"1")).unwrap()
    before = state_of(spool.location)
    names.asked = 0
    assert await spool.enqueue(Mail.SEND, ANNE, b"2") == Err(NameTaken("same"))
    assert names.asked == MAX_ATTEMPTS
    assert await spool.reserve_name() == Err(NameTaken("same"))
    assert state_of(spool.location) == before


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["", "../x", "x/y", "x" * 300])
async def test_a_generator_that_makes_an_invalid_name_is_answered_with_invalid_name(tmp_path: Path, name):
    """A generator cannot put a file anywhere but in the queue."""

    class Bad:
        def next(self, argument: None, attempt: int) -> str:
            return name

    spool = await quick_spool(tmp_path / "spool", Spoolable(Mail, Envelope, bytes, Bad()))
    before = state_of(spool.location)
    assert await spool.enqueue(Mail.SEND, ANNE, b"") == Err(invalid_name(name))
    assert await spool.reserve_name() == Err(invalid_name(name))
    assert state_of(spool.location) == before
    assert sorted(os.listdir(tmp_path)) == ["spool"]


@pytest.mark.sample
@pytest.mark.anyio
async def test_what_a_generator_raises_passes_through_as_the_same_object(place: Location):
    """User code's exceptions are not turned into an `Err`, and nothing is enqueued."""
    error = LookupError("no more names")

    class Raising:
        def next(self, argument: None, attempt: int) -> str:
            raise error

    spool = await quick_spool(place, Spoolable(Mail, Envelope, bytes, Raising()))
    before = state_of(spool.location)
    with pytest.raises(LookupError) as caught:
        await spool.enqueue(Mail.SEND, ANNE, b"")
    assert caught.value is error
    with pytest.raises(LookupError) as caught:
        await spool.reserve_name()
    assert caught.value is error
    assert state_of(spool.location) == before


@pytest.mark.anyio
@pytest.mark.parametrize("name", INVALID)
async def test_an_invalid_name_is_an_err_of_entry_and_of_enqueue_and_touches_nothing(tmp_path: Path, name):
    """No name leads out of its queue, whichever operation it is given to."""
    spool = await quick_spool(tmp_path / "spool", MAIL)
    before = state_of(spool.location)
    assert spool.entry(Mail.SEND, name) == Err(invalid_name(name))
    assert await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(name)) == Err(invalid_name(name))
    assert state_of(spool.location) == before
    assert sorted(os.listdir(tmp_path)) == ["spool"]


@pytest.mark.anyio
@pytest.mark.parametrize("name", VALID)
async def test_every_valid_name_goes_through_a_whole_life(place: Location, name):
    """A valid name can be enqueued, found, replaced in place, checked out, given new data, saved and removed."""
    spool = await quick_spool(place, MAIL)
    (entry,) = await put(spool, Mail.SEND, name)
    assert await names_in(spool, Mail.SEND) == [name]
    (await entry.direct.save(Envelope("changed"))).unwrap()
    (await entry.direct.data_file.save(b"changed")).unwrap()
    async with (await entry.checkout()).unwrap() as job:
        (await job.data.save(b"again")).unwrap()
        (await job.save(Mail.RETRY, Envelope("again"))).unwrap()
    assert state_of(spool.location).faults() == []
    async with (await spool.entry(Mail.RETRY, name).unwrap().checkout()).unwrap() as job:
        assert job.metadata == Envelope("again")
        assert (await job.data.load()).unwrap() == b"again"
        (await job.remove()).unwrap()
    assert state_of(spool.location).entries() == set()
    assert state_of(spool.location).faults() == []

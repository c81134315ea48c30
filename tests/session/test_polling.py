"""How long an idle reader waits before it looks again: the waits alone, without a queue and without a clock."""

from __future__ import annotations

import itertools

import pytest

from trio_multispool.session.changes import (
    BUSY_LISTING_SHARE,
    FIRST_BUSY_WAIT,
    FIRST_WAIT,
    LISTING_SHARE,
    LISTINGS_REMEMBERED,
    LONGEST_WAIT,
    Polling,
)

INTERVAL = 1.0
QUICK = 1e-9
"""A listing that takes hardly any time."""


@pytest.mark.parametrize("held", [False, True])
def test_waits_double_up_to_the_interval(held: bool) -> None:
    """Where nothing tells of changes, a reader that was just busy looks soon, and one that is idle now and then."""
    polling = Polling(INTERVAL)
    waits = [polling.next_wait(QUICK, held=held) for _ in range(12)]
    assert waits[0] == FIRST_WAIT
    for one, next_one in itertools.pairwise(waits):
        assert next_one == min(2 * one, INTERVAL)
    assert waits[-1] == INTERVAL


def test_no_wait_is_longer_than_the_interval_however_short_that_is() -> None:
    """Also the first."""
    polling = Polling(FIRST_WAIT / 10)
    assert {polling.next_wait(QUICK) for _ in range(3)} == {FIRST_WAIT / 10}
    polling = Polling(FIRST_BUSY_WAIT / 10)
    assert {polling.next_wait(QUICK, busy=True) for _ in range(3)} == {FIRST_BUSY_WAIT / 10}


@pytest.mark.parametrize("told", [False, True])
def test_waits_for_a_lock_begin_short_and_double_up_to_the_interval(told: bool) -> None:
    """A dropped lock is told by nobody, so it makes no difference whether the store tells of changes."""
    polling = Polling(INTERVAL)
    waits = [polling.next_wait(QUICK, told=told, busy=True) for _ in range(15)]
    assert waits[0] == FIRST_BUSY_WAIT
    for one, next_one in itertools.pairwise(waits):
        assert next_one == min(2 * one, INTERVAL)
    assert waits[-1] == INTERVAL


def test_waits_for_a_lock_do_not_make_other_waits_longer() -> None:
    """Nor the other way round."""
    polling = Polling(INTERVAL)
    for _ in range(5):
        polling.next_wait(QUICK, busy=True)
    assert polling.next_wait(QUICK) == FIRST_WAIT
    assert polling.next_wait(QUICK, busy=True) == FIRST_BUSY_WAIT * 2**5


@pytest.mark.parametrize("interval", [0.01, INTERVAL, LONGEST_WAIT * 100])
def test_who_is_told_of_changes_looks_again_for_the_dead_and_for_lost_hints_only(interval: float) -> None:
    """At the interval while something is checked out, whose owner may die; else only now and then, at the backstop."""
    polling = Polling(interval)
    for _ in range(3):
        assert polling.next_wait(QUICK, told=True, held=True) == interval
        assert polling.next_wait(QUICK, told=True, held=False) == max(interval, LONGEST_WAIT)


def test_a_wait_is_so_many_times_what_a_listing_takes() -> None:
    """So that a queue that is slow to list does not keep a processor busy; up to a limit."""
    for told in (False, True):
        assert Polling(0.01).next_wait(0.004, told=told) == 0.004 * LISTING_SHARE
        assert Polling(0.01).next_wait(3.0, told=told) == LONGEST_WAIT
        assert Polling(LONGEST_WAIT * 2).next_wait(3.0, told=True) == LONGEST_WAIT * 2
    assert Polling(0.01).next_wait(0.004, busy=True) == 0.004 * BUSY_LISTING_SHARE


def test_of_the_last_listings_the_quickest_counts() -> None:
    """One that was slow says nothing, and neither does one of long ago."""
    polling = Polling(0.01)
    assert polling.next_wait(0.004) == 0.004 * LISTING_SHARE
    for _ in range(LISTINGS_REMEMBERED - 1):
        assert polling.next_wait(0.008) == 0.004 * LISTING_SHARE
    assert polling.next_wait(0.008) == 0.008 * LISTING_SHARE

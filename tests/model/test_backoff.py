"""The values of which retries are made: waits, what is worth another attempt, and the history of attempts."""

from __future__ import annotations

import datetime
import enum
from typing import Any

import msgspec
import pytest

from helpers.spools import Mail
from trio_multispool import Exponential, GiveUp, Retry, RetryLater
from trio_multispool.model.attempts import (
    ATTEMPTS,
    KEPT,
    LONGEST_TEXT,
    LONGEST_TRACEBACK,
    MOST_PARTS,
    Failure,
    History,
    Mark,
    begun,
    encode_history,
    failed,
    failure_of,
    failure_told,
    history_in,
    spent_before,
)

MINUTE = datetime.timedelta(minutes=1)


def raised(error: Exception) -> Exception:
    """Return an exception that has been raised, with a traceback."""
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


# Waits


def test_waits_grow_by_the_factor_up_to_the_longest():
    """Without jitter, whatever chance says."""
    backoff = Exponential(first=10, factor=3, max=MINUTE, jitter=0)
    assert [backoff.delay(attempt, 0.7) for attempt in (1, 2, 3, 4)] == [10, 30, 60, 60]
    assert Exponential(first=MINUTE, jitter=0).delay(2, 0.0) == 120
    assert Exponential(first=1, factor=1, jitter=0).delay(1000, 0.0) == 1


def test_no_number_of_attempts_is_too_large():
    """The longest wait is one, also where the power is no number any more."""
    assert Exponential(max=5, jitter=0).delay(10**6, 0.0) == 5
    assert Exponential(first=0, max=5, jitter=0).delay(10**6, 0.0) == 5


@pytest.mark.parametrize(("jitter", "chance", "wait"), [(0.5, 0.0, 8), (0.5, 1.0, 4), (1, 1.0, 0), (1, 0.25, 6)])
def test_jitter_leaves_a_part_of_the_wait_to_chance_and_never_makes_it_longer(jitter, chance, wait):
    """So that what failed together does not come back together."""
    assert Exponential(first=8, jitter=jitter).delay(1, chance) == wait


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"first": -1}, ValueError),
        ({"first": "1"}, TypeError),
        ({"first": None}, TypeError),
        ({"max": None}, TypeError),
        ({"max": -MINUTE}, ValueError),
        ({"factor": 0.5}, ValueError),
        ({"factor": float("nan")}, ValueError),
        ({"jitter": 1.1}, ValueError),
        ({"jitter": -0.1}, ValueError),
    ],
)
def test_a_backoff_that_makes_no_sense_is_refused_where_it_is_made(wrong, error):
    """And not when the first handler fails, at night."""
    with pytest.raises(error):
        Exponential(**wrong)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"attempts": 0}, ValueError),
        ({"attempts": 2.5}, TypeError),
        ({"dead_letter": "failed"}, TypeError),
        ({"backoff": 60}, TypeError),
        ({"on": 5}, TypeError),
        ({"on": KeyboardInterrupt}, TypeError),
        ({"on": (OSError, "TimeoutError")}, TypeError),
    ],
)
def test_a_retry_that_makes_no_sense_is_refused_likewise(wrong, error):
    """Each with a message that says what is wanted."""
    with pytest.raises(error):
        Retry(**{"dead_letter": Mail.FAILED, **wrong})


def test_answers_that_make_no_sense_are_refused_likewise():
    """In the handler, where the traceback shows who said it."""
    with pytest.raises(ValueError, match="negative"):
        RetryLater(-1)
    with pytest.raises(TypeError, match="duration"):
        RetryLater("soon")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="duration"):
        RetryLater(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="reason"):
        RetryLater(1, reason=429)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="reason"):
        GiveUp(reason=410)  # type: ignore[arg-type]


# What is worth another attempt

PLAIN = Exponential(first=8, jitter=0)
OSERRORS = ExceptionGroup("several", [OSError(1, "a"), ExceptionGroup("inner", [TimeoutError()])])
MIXED = ExceptionGroup("several", [OSError(1, "a"), ExceptionGroup("inner", [KeyError()])])


@pytest.mark.parametrize(
    ("on", "error", "delay"),
    [
        (Exception, KeyError(), 8),
        (OSError, TimeoutError(), 8),
        (OSError, KeyError(), None),
        ((OSError, KeyError), KeyError(), 8),
        ((OSError, KeyError), IndexError(), None),
        (OSError, OSERRORS, 8),
        (OSError, MIXED, None),
        ((OSError, KeyError), MIXED, 8),
        (ExceptionGroup, MIXED, 8),
        ((), KeyError(), None),
        (lambda error: isinstance(error, KeyError), KeyError(), 8),
        (lambda error: isinstance(error, KeyError), IndexError(), None),
        (lambda _: 3, KeyError(), 3),
        (lambda _: 0, KeyError(), 0),
        (lambda _: MINUTE, KeyError(), 60),
    ],
)
def test_on_says_which_exceptions_are_worth_another_attempt(on, error, delay):
    """A group is worth one if all that is in it is; a function may say for how long to wait."""
    retry = Retry(dead_letter=Mail.FAILED, attempts=2, backoff=PLAIN, on=on)
    assert retry.delay_after(error, 1, 0.5) == delay
    assert retry.delay_after(error, 2, 0.5) is None


def test_attempts_may_be_unlimited():
    """As of stamina."""
    retry = Retry(dead_letter=Mail.FAILED, attempts=None, backoff=PLAIN)
    assert not retry.is_exhausted(10**9)
    assert retry.delay_after(KeyError(), 2, 0.0) == 16


def test_any_backoff_will_do():
    """Of one's own, in seconds or as a `timedelta`; it is told the number of the attempt, and chance."""

    class Mine:
        def delay(self, attempt: int, chance: float) -> datetime.timedelta:
            return attempt * MINUTE + chance * MINUTE

    assert Retry(dead_letter=Mail.FAILED, backoff=Mine()).delay_after(KeyError(), 2, 0.5) == 150


@pytest.mark.parametrize("wrong", [None, "soon", [1]])
def test_an_answer_that_is_no_duration_is_not_taken_for_another(wrong):
    """Neither that of `on` nor that of a backoff: what somebody forgot to return must not give an entry up."""

    class Mine:
        def delay(self, attempt: int, chance: float) -> Any:
            return wrong

    with pytest.raises(TypeError, match="what `on` returns"):
        Retry(dead_letter=Mail.FAILED, on=lambda _: wrong).delay_after(KeyError(), 1, 0.5)
    with pytest.raises(TypeError, match="backoff"):
        Retry(dead_letter=Mail.FAILED, backoff=Mine()).delay_after(KeyError(), 1, 0.5)


# The history


def attempt_fails(
    history: History | None, error: Exception, *, next_at: float | None = 5.0, queue: str = "q"
) -> History:
    """Return the history after one more attempt, which failed."""
    now_begun = begun(history, Mark(queue, 1.0, "here", 7))
    return failed(now_begun, failure_of(error), at=2.0, next_at=next_at)


def test_attempts_are_counted_in_one_queue_and_anew_when_an_entry_was_given_up():
    """Their numbers go on, over the entry's whole life."""
    history = attempt_fails(attempt_fails(None, KeyError()), KeyError())
    assert (history.spent, [each.number for each in history.attempts]) == (2, [1, 2])
    assert spent_before(history, "q") == 2
    assert spent_before(history, "other") == 0
    history = attempt_fails(history, KeyError(), next_at=None)
    assert (history.spent, history.given_up) == (3, True)
    assert spent_before(history, "q") == 0
    history = attempt_fails(history, KeyError())
    assert (history.spent, history.given_up, history.attempts[-1].number) == (1, False, 4)


def test_only_the_last_attempts_are_kept_and_the_last_traceback():
    """Notes are read at each attempt; they stay small, and keep their numbers."""
    history: History | None = None
    for _ in range(KEPT + 5):
        history = attempt_fails(history, raised(KeyError("x")))
    assert history is not None
    assert [each.number for each in history.attempts] == list(range(6, KEPT + 6))
    assert history.spent == KEPT + 5
    *earlier, last = [each.failure for each in history.attempts]
    assert last is not None
    assert "in raised" in last.traceback
    assert all(each == msgspec.structs.replace(last, traceback="") for each in earlier)


def test_a_failure_keeps_type_message_notes_and_what_is_in_a_group():
    """The traceback is that of the interpreter."""
    error = raised(ExceptionGroup("both", [OSError("a"), ExceptionGroup("in", [msgspec.DecodeError("b")])]))
    error.add_note("seen")
    found = failure_of(error)
    assert (found.type, found.message, found.notes) == ("ExceptionGroup", "both (2 sub-exceptions)", ("seen",))
    assert found.group == (Failure("OSError", "a"), Failure("msgspec.DecodeError", "b"))
    assert "Exception Group Traceback" in found.traceback
    assert failure_told(Failure("E", "two\nlines")) == "E: two lines"
    assert failure_told(Failure("E")) == "E"
    assert failure_told(found) == "ExceptionGroup: OSError: a; msgspec.DecodeError: b"
    many = failure_of(ExceptionGroup("many", [KeyError(number) for number in range(5)]))
    assert failure_told(many) == "ExceptionGroup: KeyError: 0; KeyError: 1; KeyError: 2; and 2 more"


def test_whatever_an_exception_is_it_can_be_kept():
    """Long, with surrogates, with a message that raises, nested: it is JSON, and not too large."""

    class Silly(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    long = raised(ValueError("x" * 10**6))
    for _ in range(100):
        long.add_note("n" * 10**5)
    many = ExceptionGroup("many", [ValueError(str(i)) for i in range(1000)])
    for error in (long, many, ValueError("\udcff"), raised(Silly())):
        kept = failure_of(error)
        assert len(kept.message) <= LONGEST_TEXT
        assert len(kept.traceback) <= LONGEST_TRACEBACK
        assert len(kept.group) <= MOST_PARTS
        assert len(kept.notes) <= MOST_PARTS
        history = failed(begun(None, Mark("q", 1.0, "h", 1)), kept, at=2.0, next_at=None)
        assert history_in({ATTEMPTS: msgspec.Raw(encode_history(history))}) == history
    assert "cut" in failure_of(long).message
    assert failure_of(raised(Silly())).message.startswith("<no message")


EMPTY = b'{"queue":"q","spent":3,"attempts":[]}'


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b'{"queue": 1}', b'{"queue":"q","spent":"two","attempts":[]}', EMPTY]
)
def test_a_history_that_cannot_be_read_is_none(raw):
    """As of all notes: no rule of an entry's life rests on it."""
    assert history_in({ATTEMPTS: msgspec.Raw(raw)}) is None
    assert history_in({}) is None


def test_an_error_is_called_as_a_traceback_calls_it():
    """With its module, unless that is `builtins`."""
    assert failure_of(KeyError("a")).type == "KeyError"
    assert failure_of(msgspec.DecodeError()).type == "msgspec.DecodeError"


def test_values_show_what_they_are():
    """For logs, and for whoever reads a configuration."""

    class Work(enum.Enum):
        DEAD = "dead"

    shown = repr(Retry(dead_letter=Work.DEAD, attempts=3))
    assert "attempts=3" in shown
    assert "Exponential(first=1.0, factor=2.0, max=3600.0, jitter=0.5)" in shown

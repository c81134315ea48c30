"""`Cron`: what is refused when it is made, and that it is a value that needs no library until then."""

from __future__ import annotations

import datetime
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as some

from helpers.processes import run_python
from trio_multispool import Cron


def test_it_is_a_value():
    """It is compared, hashed, shown and sent to other processes as its expression and its zone."""
    cron = Cron("0 8 * * 1-5", zone="Europe/Berlin")
    assert cron == Cron("0 8 * * 1-5", zone="Europe/Berlin") != Cron("0 8 * * 1-5")
    assert len({cron, Cron("0 8 * * 1-5", zone="Europe/Berlin")}) == 1
    assert repr(cron) == "Cron(expression='0 8 * * 1-5', zone='Europe/Berlin')"
    assert pickle.loads(pickle.dumps(cron)) == cron


def test_it_tells_when_it_comes_next():
    """By the clocks of its zone, after a moment in any zone, and never at that moment."""
    nightly, found = Cron("30 2 * * *", zone="Europe/Berlin"), []
    moment = datetime.datetime.fromisoformat("2027-03-27T10:29:00+09:00")
    for _ in range(3):
        moment = nightly.next_after(moment)
        found.append(str(moment))
    assert found == ["2027-03-27 02:30:00+01:00", "2027-03-28 03:00:00+02:00", "2027-03-29 02:30:00+02:00"]
    with pytest.raises(ValueError, match="wants a time zone"):
        nightly.next_after(moment.replace(tzinfo=None))


@pytest.mark.parametrize(
    ("expression", "zone", "told"),
    [
        ("60 * * * *", "UTC", "look at its minute"),
        ("* * * * 8", "UTC", "look at its day-of-week"),
        ("* * x * *", "UTC", "look at its day-of-month"),
        ("0 0 30 2 *", "UTC", "never comes: look at its day-of-month"),
        ("* * */20 * 1L", "UTC", "never comes in UTC"),
        ("*/5 2 * 3 7L", "Europe/Berlin", "never comes in Europe/Berlin"),
        ("", "UTC", "five fields"),
        ("@daily", "UTC", "five fields"),
        ("0 * * * * *", "UTC", "five fields"),
        ("9" * 5000 + " * * * *", "UTC", "far too long"),
        ("* * * * *", "Mars/Olympus", "no time zone 'Mars/Olympus'"),
        ("* * * * *", "Europe", "no time zone 'Europe'"),
        ("* * * * *", "../Europe/Berlin", "no time zone"),
        ("* * * * *", "", "no time zone ''"),
    ],
)
def test_what_has_no_sense_or_never_comes_is_told_when_it_is_made(expression, zone, told):
    """And what to look at."""
    with pytest.raises(ValueError, match=told):
        Cron(expression, zone=zone)


@pytest.mark.parametrize("wrong", [{"expression": 5}, {"expression": "* * * * *", "zone": None}])
def test_what_is_no_text_is_refused(wrong):
    """With a `TypeError`, as elsewhere."""
    with pytest.raises(TypeError):
        Cron(**wrong)


def test_a_time_that_is_left_out_comes_though_it_is_always_left_out():
    """The last Sunday in March, at half past two in Berlin: when clocks are put forward."""
    assert Cron("30 2 * 3 7L", zone="Europe/Berlin").calendar().ever_comes()


@given(some.lists(some.text("0123456789*/,-#LWMONFRI ", max_size=6), min_size=5, max_size=5))
def test_whatever_is_written_is_read_or_refused(fields):
    """Nothing else is raised."""
    try:
        cron = Cron(" ".join(fields))
    except ValueError:
        return
    assert cron.calendar().most_a_day > 0


@pytest.mark.program
def test_the_library_comes_without_what_reads_expressions():
    """Who makes no `Cron` imports neither it nor time zones; who makes one without the extra is told its name."""
    done = run_python(
        """
        import trio_multispool
        print([name for name in ("cronsim", "zoneinfo") if name in sys.modules])
        sys.modules["cronsim"] = None
        try:
            trio_multispool.Cron("* * * * *")
        except ModuleNotFoundError as error:
            print(error.name, error)
        """,
        anew=True,
    )
    modules, told = done.stdout.splitlines()
    assert modules == "[]"
    assert told.startswith("cronsim the module cronsim is missing")
    assert 'pip install "trio-multispool[cron]"' in told

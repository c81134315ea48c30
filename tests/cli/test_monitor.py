"""`multispool monitor`: events as lines and as JSON, until a signal ends it; and once, for cron."""

from __future__ import annotations

import json
import re
import shutil
import signal

import pytest

from helpers.damage import DAMAGE


@pytest.fixture
def lost(spool, put):
    """Leave an entry without data."""
    put("lost", queue="failed")
    (spool / ".data" / "lost").unlink()


def test_once_tells_what_is_wrong_and_ends(multispool, spool, put, snapshot):
    """Nothing and exit code 0, or a line each and exit code 7; nothing is changed."""
    put("a", queue="failed")
    assert multispool.done("monitor", spool, "--once") == ""
    DAMAGE["abandoned"][0](spool, "a")
    before = snapshot(spool)
    told = multispool("monitor", spool, "--once")
    assert (told.returncode, told.stderr) == (7, "")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC  start  entry 'a' is checked out of 'failed', "
        r"and its owner is dead \(\d+s\)\n",
        told.stdout,
    )
    found = json.loads(multispool("monitor", spool, "--once", "--json").stdout)
    assert (found["event"], found["problem"], found["name"]) == ("start", "Abandoned", "a")
    assert snapshot(spool) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_it_tells_starts_and_ends_at_once_and_runs_until_a_signal(multispool, spool, lost, number):
    """Each event is a line as soon as it is known. SIGTERM is how it is meant to end."""
    process = multispool.start("monitor", spool, "--check-every", "0.05", "--alert-after-cycles", "2", "--json")
    start = json.loads(process.stdout.readline())
    assert (start["event"], start["problem"], start["dir"]) == ("start", "MissingData", "failed")
    (spool / ".data" / "lost").touch()
    end = json.loads(process.stdout.readline())
    assert (end["event"], end["name"], end["at"] >= start["at"]) == ("end", "lost", True)
    process.send_signal(number)
    out, err = process.communicate()
    assert (out, err) == ("", "")
    assert process.returncode == (0 if number == signal.SIGTERM else 128 + number)


def test_lines_for_people(multispool, spool, lost):
    """The time, what happened, and the problem."""
    process = multispool.start("monitor", spool, "--check-every", "1s", "--alert-after", "1")
    line = process.stdout.readline()
    assert re.search(r"UTC  start  entry 'lost' in failed has lost its data \(\d+s\)$", line)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


def test_a_spool_that_vanishes_ends_it_with_the_trouble(multispool, spool, lost):
    """So that systemd can start it again: the exit code for what is no spool (any more), and a line that says why."""
    process = multispool.start("monitor", spool, "--check-every", "0.05", "--alert-after", "1")
    process.stdout.readline()
    shutil.rmtree(spool)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 5
    assert err.startswith("multispool: the spool's directory is not at ")
    assert err.count("\n") == 1


def test_a_reader_of_its_output_that_goes_away_ends_it(multispool, spool, lost):
    """As for every command in a pipe."""
    process = multispool.start("monitor", spool, "--check-every", "0.05", "--alert-after", "1", "--json")
    process.stdout.close()
    (spool / "README").touch()
    assert process.wait(60) == 128 + signal.SIGPIPE
    process.stdout = None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--alert-after", "0"], "--alert-after-cycles must be at least 1, not 0"),
        (["--check-every", "often"], "not a duration: 'often'"),
        (["--bogus", "1"], 'Unknown option: "--bogus"'),
    ],
)
def test_nonsense_is_wrong_usage(multispool, spool, words, message):
    """One line, exit code 2."""
    refused = multispool.here("monitor", spool, *words)
    assert refused.returncode == 2
    assert message in refused.stderr

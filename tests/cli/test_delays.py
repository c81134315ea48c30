"""Entries that wait, on the command line: enqueued, looked at, taken early."""

from __future__ import annotations

import datetime
import json
import os
import time

import pytest

from helpers.spools import state_of


def put_to_wait(multispool, spool, name, *options):
    """Enqueue what is to wait, under a name."""
    multispool.done("put", spool, "send", "-", "--name", name, *options, input="Hello")


def test_put_lets_an_entry_wait_for_so_long_or_until_a_time(multispool, spool):
    """A time without a zone is that of the machine."""
    put_to_wait(multispool, spool, "a", "--delay", "2h")
    put_to_wait(multispool, spool, "b", "--at", "2096-01-01T00:00Z")
    put_to_wait(multispool, spool, "c", "--at", "2096-01-01T00:00")
    put_to_wait(multispool, spool, "d", "--at", "2001-01-01T00:00Z")
    assert state_of(spool).names("send") == ["d"]
    due = {name: (spool / "send/.waiting" / name).stat().st_mtime for name in "abc"}
    assert 7000 < due["a"] - time.time() <= 7200
    assert due["b"] == datetime.datetime(2096, 1, 1, tzinfo=datetime.UTC).timestamp()
    assert due["c"] == datetime.datetime(2096, 1, 1).astimezone().timestamp()  # that of the machine


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--delay", "soon"], "not a duration: 'soon'"),
        (["--at", "noon"], "not a time: 'noon'; write 2027-01-31T08:00"),
        (["--delay", "1", "--at", "2096-01-01"], "--delay and --at exclude each other"),
        (["--at", "9000-01-01"], "too late"),
    ],
)
def test_put_refuses_what_is_no_time_and_enqueues_nothing(multispool, spool, options, message):
    """With the exit code for wrong usage."""
    found = multispool("put", spool, "send", "-", *options, input="")
    assert found.returncode == 2
    assert message in found.stderr
    assert state_of(spool).entries() == set()


def test_what_waits_is_shown(multispool, spool):
    """`ls` counts it apart and says when the next is due; `ls --long`, `show` and `stats` have it too."""
    put_to_wait(multispool, spool, "a", "--delay", "2h1m")
    put_to_wait(multispool, spool, "b", "--delay", "3d")
    assert multispool.done("ls", spool, "send").splitlines() == [
        "QUEUE  AVAILABLE  OLDEST  CHECKED OUT  BY  WAITING  NEXT DUE",
        "send           0       -            0  -         2     in 2h",
    ]
    assert [line.split()[-2:] for line in multispool.done("ls", spool, "--long").splitlines()[1:]] == [
        ["in", "2h"],
        ["in", "2d"],
    ]
    shown = multispool.done("show", spool, "b")
    assert "state     waiting\n" in shown
    assert "\ndue       20" in shown
    [queue] = json.loads(multispool.done("ls", spool, "send", "--json"))["queues"]
    assert (queue["available"], queue["waiting"]) == (0, 2)
    assert datetime.datetime.fromisoformat(queue["next_due_at"]) > datetime.datetime.now(datetime.UTC)
    found = json.loads(multispool.done("stats", spool, "send", "--json"))
    assert (found["queues"][0]["entries"], found["queues"][0]["waiting"]) == (2, 2)
    os.utime(spool / "send/.waiting/a", (1, 1))
    assert multispool.done("ls", spool, "send").splitlines()[1].split()[-1] == "now"


def test_what_waits_can_be_dropped_or_done_at_once_by_its_name(multispool, spool):
    """`rm` and `mv` take it early; what is selected by age or metadata is what is available, and leaves it alone."""
    for name in ("a", "b", "c"):
        put_to_wait(multispool, spool, name, "--delay", "2h")
    multispool.done("rm", spool, "a")
    multispool.done("mv", spool, "b", "retry")
    multispool.done("rm", spool, "--all")
    assert state_of(spool).faults() == []
    assert state_of(spool).waiting["send"].keys() == {"c"}
    assert state_of(spool).entries() == {"c"}


def test_a_check_finds_nothing_wrong_with_what_waits_until_it_is_overdue(multispool, spool):
    """Not for its age, nor for the directory that it is in; and one that has lost its data is set aside."""
    put_to_wait(multispool, spool, "a", "--delay", "2h")
    put_to_wait(multispool, spool, "b", "--delay", "2h")
    assert multispool("fsck", spool, "--max-age", "send=1m").returncode == 0
    then = time.time() - 120
    os.utime(spool / "send/.waiting/a", (then, then))
    found = multispool("fsck", spool, "--max-age", "send=1m")
    assert found.returncode == 7
    assert "entry 'a' of 'send' has been due for too long" in found.stdout
    (spool / ".data/b").unlink()
    assert "entry 'b' in send/.waiting has lost its data" in multispool("fsck", spool, "--repair").stdout
    assert set(state_of(spool).quarantined["send"]) == {"b"}

"""`multispool ls --ages`: how old the entries of each queue are; and the bar that is shown while many are counted."""

from __future__ import annotations

import json
import os
import re
import time

import pytest

from trio_multispool.looks.histogram import Histogram, edges, headers, short_count

MINUTE, DAY = 60, 86_400


@pytest.fixture
def old(spool, put):
    """Return a function that enqueues an entry whose metadata was written so many seconds ago."""

    def put_old(name, seconds, queue="send"):
        put(name, queue=queue)
        then = time.time() - seconds
        os.utime(spool / queue / name, (then, then))

    return put_old


def test_each_entry_is_in_the_bucket_of_its_age(multispool, spool, old):
    """Buckets double from five minutes on, the last takes what is older, and the last row sums up."""
    for name, minutes in {"a": 1, "b": 2, "c": 6, "d": 11, "e": 100, "f": 5000}.items():
        old(name, minutes * MINUTE)
    old("g", 2 * DAY, queue="failed")
    assert multispool.done("ls", spool, "--ages") == (
        "QUEUE  TOTAL 5m 10m 20m 40m 80m 160m 320m 640m 21h 21h+\n"
        "failed     1  -   -   -   -   -    -    -    -   -    1\n"
        "retry      0  -   -   -   -   -    -    -    -   -    -\n"
        "send       6  2   1   1   -   -    1    -    -   -    1\n"
        "(all)      7  2   1   1   -   -    1    -    -   -    2\n"
    )


def test_the_first_age_can_be_chosen(multispool, spool, old):
    """Each next is double, and one queue alone has no sum."""
    old("a", 59)
    old("b", 3 * 3600)
    assert multispool.done("ls", spool, "send", "--ages-from", "1h") == (
        "QUEUE TOTAL 1h 2h 4h 8h 16h 32h 64h 128h 256h 256h+\nsend      2  1  -  1  -   -   -   -    -    -     -\n"
    )


def test_json_has_the_edges_of_the_buckets(multispool, spool, old):
    """In seconds, `below` each; the last has none."""
    old("a", 1)
    old("b", DAY)
    [queue] = json.loads(multispool.done("ls", spool, "send", "--ages", "--json"))["queues"]
    assert queue["ages"] == [
        {"below": below, "entries": {600.0: 0, 300.0: 1, None: 1}.get(below, 0)}
        for below in [*(300.0 * 2**number for number in range(9)), None]
    ]
    assert "ages" not in json.loads(multispool.done("ls", spool, "--json"))["queues"][0]


def test_what_is_checked_out_or_set_aside_has_no_age_here(multispool, spool, put, set_aside, dead):
    """The histogram is of what waits: its total is what `ls` calls available."""
    put("one")
    set_aside("odd")
    rows = [line.split() for line in multispool.done("ls", spool, "--ages").splitlines()]
    assert [(row[0], row[1]) for row in rows[1:]] == [("failed", "0"), ("retry", "0"), ("send", "1"), ("(all)", "1")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ages", "--long"], "--long and --ages exclude each other"),
        (["--ages-from", "soon"], "not a duration: 'soon'; write 90, 10m, 1h30m or 2d"),
        (["--ages-from", "0"], "--ages-from wants more than '0'"),
    ],
)
def test_ages_that_cannot_be_are_wrong_usage(multispool, spool, options, message):
    """Exit code 2, and a line that says what is wrong."""
    refused = multispool.here("ls", spool, *options)
    assert (refused.returncode, refused.stdout, refused.stderr) == (2, "", f"multispool: {message}\n")


@pytest.mark.parametrize("columns", [80, 200])
def test_a_histogram_fits_a_terminal(multispool, spool, old, columns):
    """No number is broken or cut off, whatever the numbers and names: a long name is folded, and there in full."""
    name = "a-queue-with-a-name-that-is-longer-than-twenty-three"
    multispool.done("create", spool, name)
    for number in range(12):
        old(f"{number}", 300 * 2**number - 10, queue=name)
    code, shown = multispool.on_terminal("ls", "spool", "--ages", columns=columns)
    lines = [line.replace("\x1b[1m", "").replace("\x1b[0m", "") for line in shown.split("\r\n")]
    assert code == 0
    assert max(map(len, lines)) <= columns
    assert lines[0].split() == ["QUEUE", "TOTAL", *headers(edges(300))]
    [row] = [line.split() for line in lines if line.startswith("a-queue")]
    assert row[1:] == ["12", "1", "1", "1", "1", "1", "1", "1", "1", "1", "3"]
    start = next(number for number, line in enumerate(lines) if line.startswith("a-queue"))
    assert "".join(line.split(" ")[0] for line in lines[start : start + 3]).startswith(name)


def test_numbers_are_told_in_four_characters():
    """Ten columns of them fit beside a name in 80, up to any number that there can be, and none is rounded up."""
    told = {0: "0", 9999: "9999", 10_000: "10k", 999_999: "999k", 1_000_000: "1.0M", 1_990_000: "1.9M"}
    assert {number: short_count(number) for number in told} == told
    assert all(len(short_count(10**power - 1)) <= 4 for power in range(1, 16))


def test_an_age_that_is_an_edge_is_beyond_it():
    """`below` means below; and buckets are named by edges that are true."""
    histogram = Histogram(edges(300))
    for age in (0, 299.9, 300, 599, 600, 1e12):
        histogram.add(age)
    assert histogram.counts == [2, 2, 1, 0, 0, 0, 0, 0, 0, 1]
    assert headers(edges(0.5))[:3] == ["0.5s", "1s", "2s"]
    assert headers(edges(DAY))[-1] == "256d+"


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("command", [["ls", "spool"], ["stats", "spool"]])
def test_whoever_waits_sees_a_bar_that_knows_how_many_there_are(multispool, put, impatient, command, columns):
    """It is on standard error, fits the terminal, and is gone when the answer comes."""
    for number in range(5):
        put(f"{number}")
    code, shown = multispool.on_terminal(*command, columns=columns, code=impatient)
    assert code == 0
    assert "5 of 5 entries" in shown
    assert shown.index("of 5 entries") < shown.index("QUEUE")
    bars = [line for line in shown.replace("\r", "\n").split("\n") if "of 5 entries" in line]
    assert all(len(plain(line)) <= columns for line in bars)


def plain(shown):
    """Return text without what a terminal obeys."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)


def test_a_bar_is_for_terminals_alone(multispool, spool, put, impatient):
    """A log, or a pipe, gets nothing of it."""
    put("one")
    done = multispool("ls", spool)
    assert done.stderr == ""
    impatiently = multispool("ls", spool, code=impatient)
    assert (impatiently.returncode, impatiently.stderr) == (0, "")
    ages = re.compile(r" \d+s ")  # a second may begin between the two
    assert ages.sub(" 0s ", impatiently.stdout) == ages.sub(" 0s ", done.stdout)

"""Durations as a person types them."""

from __future__ import annotations

import pytest

from trio_multispool.cli.durations import parse
from trio_multispool.cli.exits import Exit, Failure


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("90", 90),
        ("0.5", 0.5),
        ("90s", 90),
        ("10m", 600),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("2d", 172_800),
        ("1w", 604_800),
        ("1w2d3h4m5s", 788_645),
        (" 2d ", 172_800),
    ],
)
def test_a_duration_is_seconds_or_numbers_with_units(text, seconds):
    """What `10m` and the like say is that many seconds; a plain number is seconds."""
    assert parse(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "m",
        "-1",
        "-1d",
        "+1",
        "1x",
        "10M",
        "1m1h",
        "1h1h",
        "1h 30m",
        "1e3",
        "nan",
        "inf",
        "1_000",
        "٣d",
        "1.",
        ".5",
        "9" * 400,
        "9" * 400 + "d",
    ],
)
def test_what_is_no_duration_is_wrong_usage(text):
    """It ends the command with exit code 2 and a line that quotes it: nothing is guessed."""
    with pytest.raises(Failure) as caught:
        parse(text)
    assert caught.value.code == Exit.USAGE
    assert repr(text) in str(caught.value)

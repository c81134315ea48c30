"""How much Python runs for each entry: a count, the same on a busy machine as on an idle one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]

CEILINGS = {
    ("enqueue", 64): 96,
    ("enqueue", 1): 140,
    ("pool", 64): 165,
    ("pool", 1): 198,
    ("pool, retry", 64): 226,
    ("pool, retry", 1): 252,
    ("with_entry", 64): 216,
    ("with_entry", 1): 292,
    ("try_checkout", 64): 196,
    ("try_checkout", 1): 277,
    ("async for", 64): 253,
    ("async for", 1): 318,
}
"""Calls of Python functions for each entry: the library, AnyIO, Trio and the standard library together.

They are some seven hundredths above what was counted with Python 3.11, Trio 0.35 and AnyIO 4.16; fifteen for pools of
64, whose batches are smaller on a busy machine. Of what is worked on by hand, 33 are Trio's for the scope of a block,
by which `spool.cancel` reaches it; a pool needs one scope a task. Other versions may call more: then count what
`benchmarks/calls.py` tells of before and after, and raise them.
"""

STEPS = {("enqueue", 1): 1.1, ("enqueue", 64): 1.2, ("pool", 1): 1.2, ("pool", 64): 1.5, ("with_entry", 64): 2.5}
"""How often Trio runs a task for each entry, with the beginning and the end of a pool."""


@pytest.mark.program
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="other versions of Python call other functions")
def test_an_entry_takes_no_more_calls_than_it_did(tmp_path: Path) -> None:
    """In a process of its own: threads that were started before would not be counted."""
    command = [sys.executable, "benchmarks/calls.py"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    ended = subprocess.run(command, cwd=PROJECT, env=environment, check=True, capture_output=True, text=True)
    counted = {
        (case.strip(), int(tasks)): (float(python), float(steps))
        for case, tasks, python, _c, steps in re.findall(
            r"^(.{24}) +(\d+) +([\d.]+) +([\d.]+) +([\d.]+)$", ended.stdout, re.MULTILINE
        )
    }
    assert counted.keys() == CEILINGS.keys()
    assert {case: calls for case, (calls, _) in counted.items() if calls > CEILINGS[case]} == {}
    assert {case: counted[case][1] for case, most in STEPS.items() if counted[case][1] > most} == {}

"""Cancellations at any moment, in all ways that there are: a short storm on each event loop, and its watchdog."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from helpers.figures import Proof
from helpers.loops import LOOPS
from helpers.processes import run_python
from helpers.proofs import WHOLE

ROUNDS = 100 if WHOLE else 20

EAGER = pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio has eager tasks from Python 3.12 on")

BLOWS = ["deadline", "failing deadline", "group", "scope", "shield", "two scopes"]
NATIVE_BLOWS = ["own task", "task", "task group", "timeout", "wait for"]
DONE = [f"{what} done" for what in ("enqueue", "data save", "save", "remove", "release")]


@pytest.mark.program
@pytest.mark.proof
@pytest.mark.parametrize(
    "loop", [pytest.param("trio", marks=pytest.mark.sample), *LOOPS, pytest.param("eager", marks=EAGER)]
)
def test_cancellation_is_right_for_every_operation_in_a_storm_of_cancellations(loop, count):
    """What was cancelled did not happen, what was told is so, nothing is swallowed or doubled, and all is at rest."""
    command = [sys.executable, "-m", "cancelling", "--loop", loop, "--seed", "1", "--rounds", f"{ROUNDS}"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    count(Proof.CANCELLING, event_loops=1, rounds=ROUNDS)
    counted = {line.partition(" x ")[2] for line in done.stdout.splitlines()}
    assert {*BLOWS, *([] if loop == "trio" else NATIVE_BLOWS), *DONE} <= counted


HANGING = """
import sys
import asyncio
import functools
import trio
from cancelling.watchdog import HUNG, Watchdog, asyncio_tasks, trio_tasks

watchdog = Watchdog(0.05)

async def hang_in_a_child():
    await (trio.sleep_forever() if loop == "trio" else asyncio.Event().wait())

async def hang_on_trio():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hang_in_a_child)
        watchdog.tasks = functools.partial(trio_tasks, trio.lowlevel.current_root_task())

async def hang_on_asyncio():
    watchdog.tasks = functools.partial(asyncio_tasks, asyncio.get_running_loop())
    await asyncio.create_task(hang_in_a_child())

loop = sys.argv[1]
trio.run(hang_on_trio) if loop == "trio" else asyncio.run(hang_on_asyncio())
"""


@pytest.mark.parametrize("loop", ["trio", "asyncio"])
def test_where_a_storm_hangs_its_watchdog_tells_where_everything_stands_and_ends_it(loop):
    """The stacks of all tasks, down to what they wait for, and of all threads."""
    hung = run_python(HANGING, loop, check=False)
    assert hung.returncode == 3
    for what in (
        "HUNG",
        "hang_in_a_child",
        f"hang_on_{loop}",
        "Current thread",
        "sleep_forever" if loop == "trio" else "wait",
    ):
        assert what in hung.stderr

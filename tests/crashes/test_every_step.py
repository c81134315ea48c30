"""Readers, cancelled at every step of their lives in turn: at none is an entry lost, doubled or left in hand."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import trio

from helpers.children import quick_directory
from helpers.inside import threads_of
from helpers.lives import LIVES, World, begin, prepare
from helpers.loops import CountingLoop, run_plainly
from helpers.proofs import every

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FEWEST = 4
"""Every life takes more steps than this: if one is over sooner, it was not lived."""

pytestmark = [pytest.mark.proof, pytest.mark.parametrize("life", LIVES)]

STRIDE = every(7)
"""From one step to the next that is tried."""


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Make a directory with a spool in it that every life begins with a copy of."""
    with quick_directory(tmp_path) as quick:
        prepare(quick / "template")
        yield quick


class _CancelAt(trio.abc.Instrument):
    """Cancels a scope right before the n-th step of any task, or when all that is left to do is to wait for ever."""

    def __init__(self, world: World, scope: trio.CancelScope, steps: int) -> None:
        self.world, self.scope, self.left = world, scope, steps
        self.rested = False
        self._token = trio.lowlevel.current_trio_token()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self.scope.cancel()

    def before_io_wait(self, timeout: float) -> None:
        if timeout > 0 and self.left > 0 and not self.rested and _rests(self.world):
            self.rested = True
            self._token.run_sync_soon(self.scope.cancel)


def _rests(world: World) -> bool:
    return not threads_of(world.spool) and world.rests()


async def test_a_reader_cancelled_at_any_step_of_trio_loses_nothing(life: str, directory: Path) -> None:
    """By a scope around it, for every n right before the n-th step."""
    steps, over = 1 - STRIDE, False
    while not over:
        steps += STRIDE
        world = await begin(directory / "template", directory / f"{steps}")
        with trio.CancelScope() as scope:
            instrument = _CancelAt(world, scope, steps)
            trio.lowlevel.add_instrument(instrument)
            try:
                await LIVES[life](world)
                over = True
            finally:
                trio.lowlevel.remove_instrument(instrument)
        over = over or instrument.rested
        world.check()
        world.spool.close()
    assert steps > FEWEST


def _before_turn(world: World, number: int, act: Any) -> None:
    """Do something once, before a turn of asyncio's loop, or when all that is left to do is to wait for ever."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, CountingLoop)
    loop.before_turn(number, act, or_if=lambda: _rests(world))


def test_a_reader_cancelled_at_any_turn_of_asyncio_loses_nothing(life: str, directory: Path) -> None:
    """By `Task.cancel()`, for every n right before the n-th turn of the event loop."""

    async def main(turns: int) -> bool:
        world = await begin(directory / "template", directory / f"{turns}")
        task = asyncio.ensure_future(LIVES[life](world))
        _before_turn(world, turns, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task
        world.check()
        rested = _acted_at_rest()
        world.spool.close()
        return rested or not task.cancelled()

    turns = 1
    while not run_plainly(functools.partial(main, turns), "counting"):
        turns += STRIDE
    assert turns > FEWEST


def _acted_at_rest() -> bool:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, CountingLoop)
    return loop.rested


def test_a_program_that_ends_at_any_turn_of_asyncio_loses_nothing(life: str, directory: Path) -> None:
    """`asyncio.run` cancels all tasks then, those that have not begun included, and starts none any more."""

    async def main(turns: int) -> tuple[World, bool]:
        world = await begin(directory / "template", directory / f"{turns}")
        end = asyncio.get_running_loop().create_future()

        async def begin_late() -> None:
            for _ in range(5):  # as many turns and more as the program takes from its sign until it ends
                await asyncio.sleep(0)
            await LIVES[life](world)

        task = asyncio.ensure_future(begin_late())
        _before_turn(world, turns, lambda: end.set_result(None))
        await asyncio.wait([end, task], return_when=asyncio.FIRST_COMPLETED)
        return world, task.done() or _acted_at_rest()

    turns, over = 1 - STRIDE, False
    with warnings.catch_warnings():
        # Of AnyIO's tasks that had not begun; what anything else never awaited fails the test.
        warnings.filterwarnings("ignore", r"coroutine '.*(apart|fetch|send_two)' was never", RuntimeWarning)
        while not over:
            turns += STRIDE
            world, over = run_plainly(functools.partial(main, turns), "counting")
            world.check()
            world.spool.close()
        del world
        gc.collect()
    assert turns > FEWEST

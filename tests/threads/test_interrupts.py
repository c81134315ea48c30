"""Ctrl-C on Trio, at any line of ours, in whatever task: the program ends in order."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio

import trio_multispool
from helpers.inside import open_descriptors
from helpers.proofs import thinned
from helpers.spools import ANNE, Mail, put, quick_spool, state_of
from trio_multispool import Exponential, Remove, Retry, Save, Use

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

PACKAGE = str(Path(trio_multispool.__file__).parent) + os.sep
NOT_OURS_TO_GUARD = (PACKAGE + "testing.py",)


async def handler(envelope: Any, data: Any) -> Any:
    """Wait a moment; fail for some, keep some."""
    await trio.lowlevel.checkpoint()
    if envelope.recipient == "b":
        raise ValueError
    return Save(Mail.FAILED) if envelope.recipient == "c" else Remove()


async def pool(spool: Any) -> None:
    """Work a queue off by a pool, with retries."""
    async with spool.reader(Mail.SEND) as reader:
        retry = Retry(attempts=2, backoff=Exponential(first=0, jitter=False), dead_letter=Mail.FAILED)
        (await reader.iter_available(handler, concurrency=2, prefetch=1, retry=retry)).unwrap()


async def beside_others(spool: Any) -> None:
    """Do so in a task, while others enqueue."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pool, spool)
        for name in ("x", "y"):
            tasks.start_soon(put, spool, Mail.SEND, name)


async def by_hand(spool: Any) -> None:
    """Take one by one, reserve names, and save."""
    async with spool.reader(Mail.SEND) as reader:
        async for job in reader.available():
            async with job, (await spool.reserve_name()).unwrap() as name:
                (await job.data.load()).unwrap()
                (await spool.enqueue(Mail.RETRY, ANNE, b"", name=Use(name))).unwrap()
                (await job.save(Mail.FAILED)).unwrap()


async def channel(spool: Any) -> None:
    """Send and receive."""
    async with spool.channel(Mail.SEND) as (send, receive):
        for _ in range(3):
            async with await receive.receive() as received:
                await send.send((received.metadata, b""))


class Interrupting:
    """Sends SIGINT when a line of ours is about to be run: the n-th that this thread comes to."""

    def __init__(self, at: int) -> None:
        """Count up to `at`; 0: only count."""
        self.at = at
        self.lines = 0

    def __call__(self, frame: FrameType, event: str, _argument: object) -> Any:
        """Trace a call, and the lines in it if it is of ours."""
        name = frame.f_code.co_filename
        if not name.startswith(PACKAGE) or name in NOT_OURS_TO_GUARD:
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self.at:
                signal.raise_signal(signal.SIGINT)
        return self


@contextlib.contextmanager
def patience(seconds: int) -> Iterator[None]:
    """Fail, where a program does not end."""

    def end(*_: object) -> None:
        raise AssertionError("it does not end")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run(program: Any, path: Path, at: int) -> tuple[int, BaseException | None]:
    """Run a program on a spool of its own, interrupted at a line; tell how many there were, and what it raised."""
    interrupting = Interrupting(at)

    async def main() -> None:
        async with await quick_spool(path) as spool:
            await put(spool, Mail.SEND, "a", "b", "c", "d")
            sys.settrace(interrupting)
            try:
                await program(spool)
            finally:
                sys.settrace(None)

    raised = None
    try:
        with patience(60):
            trio.run(main)
    except (KeyboardInterrupt, BaseExceptionGroup) as error:
        raised = error
    return interrupting.lines, raised


def is_interrupt(raised: BaseException | None) -> bool:
    """Tell whether only the interrupt was raised, bare or in groups."""
    if isinstance(raised, BaseExceptionGroup):
        return raised.split(KeyboardInterrupt)[1] is None
    return isinstance(raised, KeyboardInterrupt)


@pytest.fixture(autouse=True)
def heeded() -> Iterator[None]:
    """Have SIGINT raise `KeyboardInterrupt`, as in a program that was started in a terminal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


POINTS = 120
"""At how many of a program's lines, evenly, of a thousand or more."""


@pytest.mark.proof
@pytest.mark.filterwarnings("ignore:coroutine 'handler' was never awaited")  # interrupted when about to be
@pytest.mark.parametrize("program", [pool, beside_others, by_hand, channel])
def test_an_interrupt_at_any_line_ends_a_program_in_order(program, tmp_path):
    """It ends by the first Ctrl-C; no entry stays checked out, no name reserved, no descriptor open."""
    run(program, tmp_path / "warm", 0)  # what is imported and opened once for all
    lines, raised = run(program, tmp_path / "whole", 0)
    assert raised is None
    descriptors = len(open_descriptors())
    for point in thinned(range(POINTS), 12):
        path, at = tmp_path / str(point), 1 + point * lines // POINTS
        reached, raised = run(program, path, at)
        gc.collect()
        state = state_of(path)
        found = (is_interrupt(raised), state.checked_out, state.faults(), len(open_descriptors()))
        nothing = dict[str, dict[str, bytes]].fromkeys(("send", "retry", "failed"), {})
        assert found == (reached >= at, nothing, [], descriptors), at  # at its end, it may have ended before


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_handler_that_never_waits_can_be_interrupted(concurrency, tmp_path):
    """What is a user's is not protected: Ctrl-C is raised in it, and the entry goes back."""
    lines = []

    async def busy(_envelope: Any, _data: Any) -> Remove:
        lines.append("before")
        signal.raise_signal(signal.SIGINT)
        lines.append("after")
        return Remove()

    async def main() -> None:
        async with await quick_spool(tmp_path / "spool") as spool, spool.reader(Mail.SEND) as reader:
            await put(spool, Mail.SEND, "a")
            await reader.iter_available(busy, concurrency=concurrency)

    with pytest.RaisesGroup(KeyboardInterrupt, allow_unwrapped=True, flatten_subgroups=True):
        trio.run(main)
    assert lines == ["before"]
    assert state_of(tmp_path / "spool").names("send") == ["a"]

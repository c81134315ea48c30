"""Running a command's asynchronous part so that a signal ends it in order: what is in hand goes back first."""

import contextlib
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sized
from typing import Final, final

import trio

from trio_multispool.cli import output
from trio_multispool.cli.exits import Failure, code_of, said
from trio_multispool.errors import SpoolError

BY_SIGNAL: Final = 128
"""Added to the number of the signal that ended the command, as shells do."""

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@final
class Ending:
    """What is known about the end of the command while it runs."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        """The signal that ends it."""
        self.hurry: trio.Event = trio.Event()
        """Set when a second signal comes: its sender will not wait."""


@contextlib.contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Generator[Ending]:
    """Call `stop` at the first signal that would end the command, for work that blocks; the end is the block's to make.

    Nothing is raised where a signal comes in, so what the block is doing is never torn.
    """
    ending = Ending()

    def end(number: int, _frame: object) -> None:
        if ending.signal is None:
            ending.signal = signal.Signals(number)
            stop()

    with _handled(end):
        yield ending


@contextlib.contextmanager
def ended_between_entries() -> Generator[Ending]:
    """Note the first signal that would end the command; the block looks for it, and ends between two entries.

    So it can tell all that it did. A second signal ends the block at once, and what was in hand then is not told.
    """
    ending = Ending()

    def end(number: int, _frame: object) -> None:
        if ending.signal is not None:
            raise KeyboardInterrupt
        ending.signal = signal.Signals(number)

    with _handled(end), contextlib.suppress(KeyboardInterrupt):
        yield ending


def say_interrupted(number: signal.Signals, what: str, done: int | None) -> int:
    """Say that a signal ended the command, and how many entries were `what` before that; return the exit code.

    `None` stands for a dry run, which did nothing.
    """
    output.complain("interrupted" if done is None else f"interrupted; {output.were(what, done)}")
    return BY_SIGNAL + number


@contextlib.contextmanager
def _handled(handle: Callable[[int, object], None]) -> Generator[list[signal.Signals]]:
    """Have the signals handled that would end the command. One that is ignored (`nohup`, a background job) stays so."""
    wanted = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, handle) for number in wanted}
    try:
        yield wanted
    finally:
        for number, handler in previous.items():
            _ = signal.signal(number, handler)


async def when_cancelled(act: Callable[[], None]) -> None:
    """Wait to be cancelled, and act then: end what blocks in a thread, so that nobody has to wait for it."""
    try:
        await trio.sleep_forever()
    finally:
        act()


def run(work: Callable[[Ending], Awaitable[int | None]]) -> int:
    """Run `work` on Trio and return its exit code (0 if it tells none), or that of the signal that ended it."""
    early: list[int] = []
    # A signal that comes while Trio is starting waits; one that comes while it ends is too late.
    with _handled(lambda number, _frame: early.append(number)) as wanted:
        return trio.run(_run, work, wanted, early)


def run_telling(work: Callable[[Ending], Awaitable[int | None]], done: Sized, what: str) -> int:
    """Run `work` likewise. If it fails or is interrupted, say how many entries were `what` before that: `done`.

    Raises the error if nothing was done; otherwise its exit code is returned, and what was done is still to be told.
    """
    try:
        code = run(work)
    except (Failure, SpoolError) as error:
        if not done:
            raise
        told, code = said(error), code_of(error)
    else:
        if code <= BY_SIGNAL:
            return code
        told = "interrupted"
    output.complain(f"{told}; {output.were(what, len(done))}")
    return code


@contextlib.asynccontextmanager
async def beside(task: Callable[[], Awaitable[object]]) -> AsyncGenerator[None]:
    """Run a task until the block is left. A failure of the block passes as it is: no nursery wraps it."""
    failure = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(task)
        try:
            yield
        except (Failure, SpoolError, BrokenPipeError) as error:
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _run(work: Callable[[Ending], Awaitable[int | None]], wanted: list[signal.Signals], early: list[int]) -> int:
    ending, code, scope = Ending(), 0, trio.CancelScope()

    def end(number: int) -> None:
        if ending.signal is None:
            ending.signal = signal.Signals(number)
            scope.cancel()
        else:
            ending.hurry.set()

    async def watch() -> None:
        async for number in received:
            end(number)

    try:
        with trio.open_signal_receiver(*wanted) as received:
            for number in early:
                end(number)
            async with beside(watch):
                with scope:
                    code = await work(ending) or 0
    except (Failure, SpoolError, BrokenPipeError):
        if ending.signal is None:
            raise
    return code if ending.signal is None else BY_SIGNAL + ending.signal

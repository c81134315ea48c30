"""Progress on standard error, for a person who waits: nothing is shown unless that is a terminal."""

import contextlib
import sys
from collections.abc import Callable, Generator
from typing import Final, final

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from trio_multispool.cli import output
from trio_multispool.clock import stopwatch

_PATIENCE: Final = 0.5
"""Seconds after which a person wants to see that something goes on."""

_AT_A_TIME: Final = 256
"""How many are counted between two looks at the clock."""


def error_console() -> Console:
    """Return a console on standard error, with colours only if that is a terminal."""
    return Console(
        stderr=True, force_terminal=output.is_terminal(sys.stderr), highlight=False, markup=False, soft_wrap=True
    )


@final
class Bar:
    """A bar that may be there or not."""

    def __init__(self, progress: Progress | None = None, total: int | None = None) -> None:
        """Show `progress`, or nothing."""
        self._progress = progress
        if progress is not None:
            self._task = progress.add_task("", total=total)

    def advance(self, by: int = 1) -> None:
        """Go on. What is done beyond the total raises it: a queue may grow while it is worked off."""
        if self._progress is None:
            return
        self._progress.advance(self._task, by)
        [task] = self._progress.tasks
        if task.total is not None and task.completed > task.total:
            self._progress.update(self._task, total=task.completed)

    def result(self, text: str) -> None:
        """Write a line of results to standard output, above the bar if both are on one screen."""
        if self._progress is not None and output.is_terminal(sys.stdout):
            self._progress.console.print(text, soft_wrap=True)
        else:
            output.line(text)

    def remark(self, text: str, style: str = "") -> None:
        """Write a line to standard error, above the bar."""
        if self._progress is None and not output.is_terminal(sys.stderr):
            output.remark(text)
        else:
            console = error_console() if self._progress is None else self._progress.console
            console.print(Text(text, style), soft_wrap=True)


@contextlib.contextmanager
def bar(total: int | None, *, shown: bool = True, sizes: bool = False) -> Generator[Bar]:
    """Show a bar of `total` things, or bytes with `sizes`, until the block is left."""
    if not (shown and output.is_terminal(sys.stderr)):
        yield Bar()
        return
    with _progress(DownloadColumn() if sizes else MofNCompleteColumn()) as progress:
        yield Bar(progress, total)


def _progress(done: ProgressColumn) -> Progress:
    # What commands and this program print to standard output is not the bar's to redirect.
    return Progress(
        BarColumn(),
        done,
        TimeRemainingColumn(),
        console=error_console(),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


@contextlib.contextmanager
def counting(what: str, total: Callable[[], int] | None = None) -> Generator[Callable[[], None]]:
    """Give a function to call for each thing seen; a bar is shown when it takes long.

    `total` is asked how many there are, for the bar, when it is to be shown and not before.
    """
    if not output.is_terminal(sys.stderr):
        yield lambda: None
        return
    elapsed, seen, shown = stopwatch(), 0, None
    with contextlib.ExitStack() as stack:

        def count() -> None:
            nonlocal seen, shown
            seen += 1
            if seen % _AT_A_TIME:  # to move a bar for each of a million would take most of the time
                return
            if shown is not None:
                shown.advance(_AT_A_TIME)
            elif elapsed() > _PATIENCE:
                number = None if total is None else total()
                of = " of {task.total:,}" if number else ""
                progress = _progress(TextColumn(f"{{task.completed:,}}{of} {what}"))
                shown = Bar(stack.enter_context(progress), number)
                shown.advance(seen)

        yield count

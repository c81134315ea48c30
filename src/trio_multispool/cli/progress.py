"""Progress on standard error, for a person who waits: nothing is shown unless that is a terminal."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Final, final

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from trio_multispool.cli import output
from trio_multispool.clock import stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from rich.progress import ProgressColumn, TaskID

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

    def __init__(self, progress: Progress | None, total: int | None) -> None:
        """Show `progress`, or nothing."""
        self._progress = progress
        self._total = total
        self._completed = 0
        self._task = None if progress is None else progress.add_task("", total=total)

    def advance(self, by: int = 1) -> None:
        """Go on. What is done beyond the total raises it: a queue may grow while it is worked off."""
        self._completed += by
        if self._progress is None or self._task is None:
            return
        if self._total is not None:
            self._total = max(self._total, self._completed)
        self._progress.update(self._task, completed=self._completed, total=self._total)

    def result(self, text: str) -> None:
        """Write a line of results to standard output, above the bar if both are on one screen."""
        if self._progress is not None and output.is_terminal(sys.stdout):
            self._progress.console.print(text, soft_wrap=True)
        else:
            output.line(text)

    def remark(self, text: str, style: str = "") -> None:
        """Write a line to standard error, above the bar."""
        if self._progress is None:
            if output.is_terminal(sys.stderr):
                error_console().print(Text(text, style), soft_wrap=True)
            else:
                output.remark(text)
        else:
            self._progress.console.print(Text(text, style), soft_wrap=True)


@contextlib.contextmanager
def bar(total: int | None, *, shown: bool = True, sizes: bool = False) -> Generator[Bar]:
    """Show a bar of `total` things, or bytes with `sizes`, until the block is left."""
    if not (shown and output.is_terminal(sys.stderr)):
        yield Bar(None, total)
        return
    columns: list[ProgressColumn] = [BarColumn(), DownloadColumn() if sizes else MofNCompleteColumn()]
    # What commands and this program print to standard output is not the bar's to redirect.
    with Progress(
        *columns,
        TimeRemainingColumn(),
        console=error_console(),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as progress:
        yield Bar(progress, total)


@contextlib.contextmanager
def counting(what: str, total: Callable[[], int] | None = None) -> Generator[Callable[[], None]]:
    """Give a function to call for each thing seen; a bar is shown when it takes long.

    `total` is asked how many there are, for the bar, when it is to be shown and not before.
    """
    if not output.is_terminal(sys.stderr):
        yield lambda: None
        return
    with contextlib.ExitStack() as stack:
        counter = _Counter(what, total, stack)
        yield counter.count


@final
class _Counter:
    """Counts, and moves a bar now and then: to move it for each of a million would take most of the time."""

    def __init__(self, what: str, total: Callable[[], int] | None, stack: contextlib.ExitStack) -> None:
        self._what = what
        self._total = total
        self._stack = stack
        self._elapsed = stopwatch()
        self._seen = 0
        self._bar: tuple[Progress, TaskID] | None = None

    def count(self) -> None:
        self._seen += 1
        if self._seen % _AT_A_TIME == 0 and (self._bar is not None or self._elapsed() > _PATIENCE):
            self._move()

    def _move(self) -> None:
        if self._bar is None:
            total = None if self._total is None else self._total()
            progress = Progress(
                BarColumn(),
                TextColumn(f"{{task.completed:,}} of {{task.total:,}} {self._what}" if total else _counted(self._what)),
                TimeRemainingColumn(),
                console=error_console(),
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._bar = self._stack.enter_context(progress), progress.add_task("", total=total)
        progress, task = self._bar
        task_total = progress.tasks[task].total
        if task_total is not None and task_total < self._seen:  # the queue has grown since it was counted
            progress.update(task, total=self._seen)
        progress.update(task, completed=self._seen)


def _counted(what: str) -> str:
    return f"{{task.completed:,}} {what}"

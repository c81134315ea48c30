"""How the demonstration shows its progress: bars on a terminal, and elsewhere a line now and then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import trio
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from rich.console import Console


class Progressing:
    """Shows how far it is: bars on a terminal, and elsewhere a line whenever a second has passed."""

    def __init__(self, console: Console, expected: int) -> None:
        """Begin at nothing."""
        self._console = console
        self._expected = expected
        self._shown_at = trio.current_time()
        self._bars = Progress(
            TextColumn("{task.description:>8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
        )
        self._enqueued = self._bars.add_task("enqueued", total=expected)
        self._done = self._bars.add_task("done", total=expected)

    def __enter__(self) -> Self:
        """Draw the bars, on a terminal."""
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        """Leave the bars as they are."""
        if self._console.is_terminal:
            self._bars.stop()

    def show(self, enqueued: int, done: int) -> None:
        """Show where it stands."""
        self._bars.update(self._enqueued, completed=enqueued)
        self._bars.update(self._done, completed=done)
        if not self._console.is_terminal and trio.current_time() - self._shown_at >= 1:
            self._shown_at = trio.current_time()
            self.say(f"{enqueued} enqueued, {done} done, of {self._expected}")

    def say(self, line: str) -> None:
        """Print a line; while there are bars, above them."""
        self._console.print(f"demo: {line}", markup=False, highlight=False, soft_wrap=True)

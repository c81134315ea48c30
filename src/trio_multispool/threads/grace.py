"""Grace periods: do something when no thread can be using any more what was taken away before.

Theory (as of read-copy-update). Threads hold descriptors of directories only for the length of a hop. So a directory
that nobody can find any more may be closed when all hops that are under way have ended. Hops are counted by phase. A
new phase begins only when none of the phase before the last is under way. So what was asked for in one phase is due
when the count of that phase has come to 0, though new hops begin all the time.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Grace:
    """The hops of one open spool that are under way; used by any number of threads."""

    def __init__(self) -> None:
        """Begin with none."""
        self._mutex = threading.Lock()
        self._phase = 0
        self._counts = [0, 0]  # of those that began in each phase
        self._next: list[Callable[[], None]] = []  # to be called after those of this phase
        self._acts: list[Callable[[], None]] = []  # to be called after those of the phase before

    def begin(self) -> int:
        """Count a hop; give `end` what is returned."""
        with self._mutex:
            self._counts[self._phase] += 1
            return self._phase

    def end(self, phase: int) -> None:
        """Count one less, and do what has become due."""
        with self._mutex:
            self._counts[phase] -= 1
            acts = self._due() if self._acts and phase != self._phase else ()
        for act in acts:
            act()

    def afterwards(self, act: Callable[[], None]) -> None:
        """Have something called when all hops that are under way now have ended; at once if there are none."""
        with self._mutex:
            self._next.append(act)
            acts = () if self._acts else self._due()
        for each in acts:
            each()

    def _due(self) -> list[Callable[[], None]]:
        """Begin a new phase if none of the one before is under way; return what is due; under the mutex."""
        due: list[Callable[[], None]] = []
        while not self._counts[1 - self._phase]:
            due += self._acts
            self._acts, self._next = self._next, []
            if not self._acts:
                break
            self._phase = 1 - self._phase
        return due

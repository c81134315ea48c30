"""What may be found after power loss at each moment of a run: kept outside the spool, by whoever asked for each change.

Until an operation is acknowledged, its entry may be in the old state, in the new one, or in one that the operation is
documented to pass through. Afterwards it must be in the new one; unless it was asked for at level `PROCESS`, which may
be undone until the next operation at level `POWER` is acknowledged.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Entry(NamedTuple):
    """An entry, available in a queue."""

    queue: str
    metadata: bytes
    data: bytes

    def __str__(self) -> str:
        """Say it in a line."""
        return f"{self.metadata.decode(errors='replace')} with {len(self.data)} bytes of data in {self.queue}"


Possible = dict[str, frozenset[Entry | None]]
"""For each name, what may be found; `None` is no entry."""


@dataclasses.dataclass(frozen=True)
class Moment:
    """A stretch of a run within which what may be found does not change."""

    since: int
    """How far the device's log had come when it began."""
    created: bool
    """Whether the making of the spool was acknowledged."""
    possible: Possible
    doing: str
    """What was begun or acknowledged, for people."""


class Ledger:
    """What may be found now, and at all moments so far."""

    def __init__(self, position: Callable[[], int] = lambda: 0) -> None:
        """Ask `position` how far the device's log has come."""
        self.mutex = threading.RLock()
        """Held while a device is copied, so that nothing is begun or acknowledged meanwhile."""
        self._position = position
        self._now: Possible = {}
        self.moments = [Moment(0, False, {}, "nothing yet")]

    @property
    def now(self) -> Moment:
        """The moment that lasts."""
        with self.mutex:
            return self.moments[-1]

    def _note(self, doing: str, *, created: bool = True) -> None:
        self.moments.append(Moment(self._position(), created, dict(self._now), doing))

    def created(self) -> None:
        """Note that making the spool was acknowledged."""
        with self.mutex:
            self._note("the spool was made")

    @contextlib.contextmanager
    def changing(self, name: str, change: str, to: Entry | None, *, lasting: bool = True) -> Iterator[None]:
        """Note that a change of an entry is asked for in this block, and acknowledged at its end."""
        with self.mutex:
            before = self._now.get(name, frozenset([None]))
            between = {e._replace(metadata=to.metadata) for e in before if e is not None} if to is not None else set()
            self._now[name] = before | between | {to}
            self._note(f"asked to {change} {name}")
        yield
        with self.mutex:
            if lasting:
                self._now[name] = frozenset([to])
            self._note(f"answered Ok to {change} {name}")

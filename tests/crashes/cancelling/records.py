"""What a round's tasks tried and were told, held against what lies on disk when all of them have ended.

The lines and the checker are those of `helpers.ledger`; here nobody dies, so an operation that was cancelled counts as
refused, or as done where a note on the cancellation says so.
"""

from __future__ import annotations

import collections
import dataclasses
from typing import TYPE_CHECKING, Final

import msgspec

from helpers.ledger import TORN, Fault, Line, What, check, data_version_of, found_in, stamped
from helpers.spools import state_of

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.spools import State

LARGE: Final = 300 * 1024
"""How many bytes are added to data that is to go through a hop of its own."""

DONE: Final = " was already done when it was cancelled: Ok("
"""What a note says of an operation that took effect."""

_TOLD_AS: Final = {
    "enqueue": "enqueue ",
    "data save": "saving the data of ",
    "save": ("save of ", "direct save of "),
    "remove": ("remove of ", "direct removal of "),
    "release": "release of ",
}
"""How notes begin, by the operation: a channel's send, for one, also lists the queue."""

_FAILURES: Final = (" raised while it was being cancelled", " could not be undone", " failed meanwhile")
"""What a note says of what must not happen while the disk is well."""


def content(life: str, version: str, *, large: bool) -> bytes:
    """Return the data of one version."""
    return stamped(life, version) + bytes(LARGE if large else 0)


def version_in(life: str, found: bytes) -> str:
    """Return which version some data is."""
    return data_version_of(life, _without_padding(found))


def _without_padding(found: bytes) -> bytes:
    stripped = found.rstrip(b"\0")
    return stripped if len(found) - len(stripped) in (0, LARGE) else TORN.encode()


def notes_of(error: BaseException) -> list[str]:
    """Return the notes on an exception."""
    return list(getattr(error, "__notes__", ()))


class Records:
    """What is written down in one round."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.faults: list[Fault] = []
        self.counts: collections.Counter[str] = collections.Counter()
        self.left_to_recovery: set[str] = set()
        """Entries that were removed where they were: if another has the lock just then, their files are left."""
        self._lines: list[Line] = []
        self._turns: collections.Counter[str] = collections.Counter()
        self._owned: dict[str, int] = {}

    def write(self, line: Line) -> None:
        """Write a line."""
        self._lines.append(line)
        if line.what is not What.ATTEMPT:
            self.counts[f"{line.operation} {line.what.value}"] += 1

    def close(self, line: Line, what: What, **words: str) -> None:
        """Write what came of an attempt."""
        self.write(msgspec.structs.replace(line, what=what, **words))

    def has_happened(self, life: str) -> bool:
        """Tell whether the last operation on an entry has been done."""
        return next(line.what is What.DONE for line in reversed(self._lines) if line.life == life)

    def fault(self, kind: str, about: str, why: object) -> None:
        """Write down something that must not be."""
        self.faults.append(Fault(kind, about, str(why)))

    def begin_turn(self, life: str, name: str) -> int:
        """Say that somebody owns an entry from now on; return the turn's number, greater than those before it."""
        self._turns[life] += 1
        if name in self._owned:
            self.fault("two owners", name, f"turn {self._turns[life]} of {life} begins during another")
        self._owned[name] = self._turns[life]
        return self._turns[life]

    def turn_of(self, life: str) -> int:
        """Return the number of the turn that began last."""
        return self._turns[life]

    def end_turn(self, name: str, number: int) -> None:
        """Say that its owner is about to settle it, or to leave it. Idempotent."""
        if self._owned.get(name) == number:
            del self._owned[name]

    def happened(self, operation: str, error: BaseException) -> bool:
        """Tell from the notes on a cancellation whether the operation that raised it took effect."""
        notes = notes_of(error)
        for note in notes:
            if any(failure in note for failure in _FAILURES):
                self.fault("failed", "a note on a cancellation", note)
        return any(note.startswith(_TOLD_AS[operation]) and DONE in note for note in notes)

    def judge(self, path: Path) -> None:
        """Compare the lines with the spool, which must be at rest."""
        state = state_of(path)
        found, faults = found_in(_unpadded(state))
        self.faults += [Fault("left over", "the spool", fault) for fault in state.faults()]
        self.faults += [fault for fault in faults if fault.kind != "left over"]
        self.faults += check([self._lines], found).faults

    def history(self, fault: Fault) -> list[str]:
        """Return what was written down of the life that a fault is about."""
        life = fault.about.partition(" ")[0]
        return [f"{line}" for line in self._lines if line.life == life]


def _unpadded(state: State) -> State:
    """Return the state with data as it was written, without what makes it long."""
    return dataclasses.replace(state, data={name: _without_padding(data) for name, data in state.data.items()})
